//! The actions that consist of more.

use std::net::IpAddr;

use super::action::{arrow, bytes, list, value_of, writable};
use super::flow::table;
use super::pairs::Pairs;
use super::value::{fit, number, port, subfield, wide};
use super::{Names, TextError};
use crate::action::wire::Place;
use crate::action::{
    Action, Algorithm, Bundle, Ct, CtZone, Encap, HashFields, Learn, LearnFlags, LearnSource,
    LearnSpec, LearnTarget, Multipath, Nat, NatKind, PropertyOfEncap, Sample, SampleDirection,
    Timeouts,
};
use crate::field::{Subfield, ones};
use crate::message::flow_mod::DEFAULT_PRIORITY;
use crate::port_no::PortNo;

fn unknown(name: &str) -> TextError {
    TextError::new(format_args!("unknown keyword {name}"))
}

/// An action by its name, if it is one of these.
pub(super) fn action(
    name: &str,
    text: &str,
    names: Names<'_>,
    depth: u8,
) -> Option<Result<Action, TextError>> {
    Some(match name {
        "clone" => list(text, names, depth, Place::Clone).map(Action::Clone),
        "learn" => learn(text),
        "conjunction" => conjunction(text),
        "multipath" => multipath(text),
        "bundle" => bundle(text, false, names),
        "bundle_load" => bundle(text, true, names),
        "check_pkt_larger" => check_pkt_larger(text),
        "fin_timeout" => fin_timeout(text),
        "sample" => sample(text, names),
        "ct" => ct(text, names, depth),
        "nat" => nat(text),
        "encap" => encap(text),
        "decap" => decap(text),
        _ => return None,
    })
}

fn conjunction(text: &str) -> Result<Action, TextError> {
    let wrong = || TextError::new("expected (id,clause/clauses) with 2 to 64 clauses");
    let (id, clause) = text.split_once(',').ok_or_else(wrong)?;
    let (clause, clauses) = clause.split_once('/').ok_or_else(wrong)?;
    let (clause, clauses): (u8, u8) = (fit(clause.trim())?, fit(clauses.trim())?);
    let is_right = (2..=64).contains(&clauses) && (1..=clauses).contains(&clause);
    if !is_right {
        return Err(wrong());
    }
    Ok(Action::Conjunction { id: fit(id.trim())?, clause: clause - 1, clauses })
}

/// Words with commas or spaces between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|word| !word.is_empty())
}

impl HashFields {
    fn by_name(name: &str) -> Result<Self, TextError> {
        let wrong = || TextError::new(format_args!("there are no fields '{name}' for a hash"));
        let all = (0..7).filter_map(Self::from_wire);
        let found = all.into_iter().find(|fields| fields.to_string().eq_ignore_ascii_case(name));
        found.ok_or_else(wrong)
    }
}

/// The algorithm of a name among these.
fn algorithm(name: &str, all: &[Algorithm]) -> Result<Algorithm, TextError> {
    let wrong = || TextError::new(format_args!("there is no algorithm '{name}'"));
    let is_it = |known: &&Algorithm| known.to_string().eq_ignore_ascii_case(name);
    all.iter().find(is_it).copied().ok_or_else(wrong)
}

fn multipath(text: &str) -> Result<Action, TextError> {
    let all: Vec<&str> = words(text).collect();
    let [fields, basis, name, links, arg, target] = all[..] else {
        return Err(TextError::new("expected (fields,basis,algorithm,links,arg,field)"));
    };
    let algorithms =
        [Algorithm::ModuloN, Algorithm::HashThreshold, Algorithm::Hrw, Algorithm::IterHash];
    let links: u32 = fit(links)?;
    let max_link = links.checked_sub(1).and_then(|last| u16::try_from(last).ok());
    let target = subfield(target)?;
    let max_link = max_link
        .filter(|last| u128::from(*last) <= ones(target.bits))
        .ok_or_else(|| TextError::new(format_args!("{links} links do not fit the field")))?;
    writable(target.field)?;
    Ok(Action::Multipath(Box::new(Multipath {
        fields: HashFields::by_name(fields)?,
        basis: fit(basis)?,
        algorithm: algorithm(name, &algorithms)?,
        max_link,
        arg: fit(arg)?,
        target,
    })))
}

fn bundle(text: &str, load: bool, names: Names<'_>) -> Result<Action, TextError> {
    let wrong = || TextError::new("expected (fields,basis,algorithm,ofport,[field,]members:...)");
    let at = text.find("members:").or_else(|| text.find("slaves:")).ok_or_else(wrong)?;
    let (head, members) = text.split_at(at);
    let (_, members) = members.split_once(':').ok_or_else(wrong)?;
    let mut head = words(head);
    let mut next = || head.next().ok_or_else(wrong);
    let fields = HashFields::by_name(next()?)?;
    let basis = fit(next()?)?;
    let algorithm = algorithm(next()?, &[Algorithm::ActiveBackup, Algorithm::Hrw])?;
    if !next()?.eq_ignore_ascii_case("ofport") {
        return Err(wrong());
    }
    let target = if load { Some(subfield(next()?)?) } else { None };
    if let Some(target) = target {
        writable(target.field)?;
    }
    let members = words(members.trim_matches(['[', ']'])).map(|name| port(name, names));
    let members = members.collect::<Result<_, _>>()?;
    Ok(Action::Bundle(Box::new(Bundle { fields, basis, algorithm, members, target })))
}

fn check_pkt_larger(text: &str) -> Result<Action, TextError> {
    let (len, target) = arrow(text)?;
    let target = subfield(target)?;
    if target.bits != 1 {
        return Err(TextError::new(format_args!(
            "expected one bit, not the {} of it",
            target.bits
        )));
    }
    writable(target.field)?;
    Ok(Action::CheckPktLarger { len: fit(len.trim_end_matches(')'))?, target })
}

fn fin_timeout(text: &str) -> Result<Action, TextError> {
    let (mut idle, mut hard) = (0, 0);
    for (name, value) in Pairs::new(text) {
        match name {
            "idle_timeout" => idle = fit(value)?,
            "hard_timeout" => hard = fit(value)?,
            _ => return Err(unknown(name)),
        }
    }
    Ok(Action::FinTimeout { idle, hard })
}

fn sample(text: &str, names: Names<'_>) -> Result<Action, TextError> {
    let mut sample = Sample {
        probability: 0,
        collector_set_id: 0,
        obs_domain_id: 0,
        obs_point_id: 0,
        sampling_port: PortNo::ANY,
        direction: SampleDirection::Default,
    };
    for (name, value) in Pairs::new(text) {
        match name {
            "probability" => sample.probability = fit(value)?,
            "collector_set_id" => sample.collector_set_id = fit(value)?,
            "obs_domain_id" => sample.obs_domain_id = fit(value)?,
            "obs_point_id" => sample.obs_point_id = fit(value)?,
            "sampling_port" => sample.sampling_port = port(value, names)?,
            "ingress" => sample.direction = SampleDirection::Ingress,
            "egress" => sample.direction = SampleDirection::Egress,
            _ => return Err(unknown(name)),
        }
    }
    if sample.probability == 0 {
        return Err(TextError::new("expected a probability of 1 to 65535"));
    }
    Ok(Action::Sample(Box::new(sample)))
}

fn ct(text: &str, names: Names<'_>, depth: u8) -> Result<Action, TextError> {
    let mut ct = Ct::default();
    for (name, value) in Pairs::new(text) {
        match name {
            "commit" => ct.commit = true,
            "force" => ct.force = true,
            "table" => ct.table = Some(table(value)?),
            "zone" => {
                ct.zone = match fit(value) {
                    Ok(zone) => CtZone::Number(zone),
                    Err(_) => CtZone::Field(zone(value)?),
                }
            }
            "alg" => {
                ct.alg = match value {
                    "ftp" => 21,
                    "tftp" => 69,
                    _ => {
                        return Err(TextError::new(format_args!(
                            "expected ftp or tftp, not '{value}'"
                        )));
                    }
                }
            }
            "nat" => ct.actions.push(nat(value)?),
            "exec" => ct.actions.extend(list(value, names, depth, Place::Ct)?),
            _ => return Err(unknown(name)),
        }
    }
    if ct.force && !ct.commit {
        return Err(TextError::new("force is only with commit"));
    }
    if ct.table == Some(0xFF) {
        return Err(TextError::new("there is no table 255"));
    }
    Ok(Action::Ct(Box::new(ct)))
}

fn zone(text: &str) -> Result<Subfield, TextError> {
    let part = subfield(text)?;
    let wrong = || TextError::new(format_args!("a zone has 16 bits, {text} has {}", part.bits));
    if part.bits == 16 { Ok(part) } else { Err(wrong()) }
}

fn nat(text: &str) -> Result<Action, TextError> {
    let mut nat = Nat { kind: NatKind::Existing, flags: 0, addresses: None, ports: None };
    for (name, value) in Pairs::new(text) {
        match name {
            "src" | "dst" if nat.kind != NatKind::Existing => {
                return Err(TextError::new("expected one of src and dst"));
            }
            "src" => nat.kind = NatKind::Source,
            "dst" => nat.kind = NatKind::Destination,
            "persistent" => nat.flags |= Nat::PERSISTENT,
            "hash" => nat.flags |= Nat::HASH,
            "random" => nat.flags |= Nat::RANDOM,
            _ => return Err(unknown(name)),
        }
        if !value.is_empty() {
            range(&mut nat, value)?;
        }
    }
    if nat.kind == NatKind::Existing && nat.flags != 0 {
        return Err(TextError::new("flags are only with src or dst"));
    }
    if nat.flags & (Nat::HASH | Nat::RANDOM) == Nat::HASH | Nat::RANDOM {
        return Err(TextError::new("expected one of hash and random"));
    }
    Ok(Action::Nat(Box::new(nat)))
}

/// Addresses and ports to choose from: `10.0.0.1-10.0.0.9:80-90`, `[fd00::1]:80`, `fd00::1-fd00::9`.
fn range(nat: &mut Nat, text: &str) -> Result<(), TextError> {
    let wrong = || TextError::new(format_args!("'{text}' is no range of addresses"));
    let (addresses, ports) = if text.starts_with('[') {
        let end = text.rfind(']').ok_or_else(wrong)?;
        let (addresses, rest) = text.split_at(end.saturating_add(1));
        (addresses.to_owned(), rest.strip_prefix(':'))
    } else if text.matches(':').count() == 1 {
        let (addresses, ports) = text.split_once(':').ok_or_else(wrong)?;
        (addresses.to_owned(), Some(ports))
    } else {
        (text.to_owned(), None)
    };
    let plain: String = addresses.chars().filter(|letter| !['[', ']'].contains(letter)).collect();
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| wrong());
    let (least, largest) = match plain.split_once('-') {
        Some((least, largest)) => (address(least)?, Some(address(largest)?)),
        None => (address(&plain)?, None),
    };
    if largest.is_some_and(|largest| largest.is_ipv4() != least.is_ipv4() || largest < least) {
        return Err(wrong());
    }
    nat.addresses = Some((least, largest));
    if let Some(ports) = ports {
        let (least, largest) = ports.split_once('-').unwrap_or((ports, ""));
        let least: u16 = fit(least)?;
        let largest = if largest.is_empty() { None } else { Some(fit(largest)?) };
        if least == 0 || largest.is_some_and(|largest| largest < least) {
            return Err(wrong());
        }
        nat.ports = Some((least, largest));
    }
    Ok(())
}

fn learn(text: &str) -> Result<Action, TextError> {
    let mut learn = Learn {
        timeouts: Timeouts::default(),
        fin_timeouts: Timeouts::default(),
        priority: DEFAULT_PRIORITY,
        cookie: 0,
        flags: LearnFlags::default(),
        table: 1,
        limit: 0,
        result: None,
        specs: Vec::new(),
    };
    for (name, value) in Pairs::new(text) {
        match name {
            "table" => learn.table = table(value)?,
            "priority" => learn.priority = fit(value)?,
            "idle_timeout" => learn.timeouts.idle = fit(value)?,
            "hard_timeout" => learn.timeouts.hard = fit(value)?,
            "fin_idle_timeout" => learn.fin_timeouts.idle = fit(value)?,
            "fin_hard_timeout" => learn.fin_timeouts.hard = fit(value)?,
            "cookie" => learn.cookie = wide(value)?,
            "send_flow_rem" => learn.flags.send_flow_removed = true,
            "delete_learned" => learn.flags.delete_learned = true,
            "limit" => learn.limit = fit(value)?,
            "result_dst" => learn.result = Some(result(value)?),
            _ => learn.specs.push(spec(name, value)?),
        }
    }
    if learn.table == 0xFF {
        return Err(TextError::new("there is no table 255"));
    }
    Ok(Action::Learn(Box::new(learn)))
}

fn result(text: &str) -> Result<Subfield, TextError> {
    let target = subfield(text)?;
    writable(target.field)?;
    let wrong =
        || TextError::new(format_args!("result_dst: expected one bit, not {}", target.bits));
    if target.bits == 1 { Ok(target) } else { Err(wrong()) }
}

/// What a learnt flow matches on or does.
fn spec(name: &str, value: &str) -> Result<LearnSpec, TextError> {
    let field = |part: Subfield| LearnSource::Field { field: part.field, offset: part.offset };
    match name {
        "load" => {
            let (source, target) = arrow(value)?;
            let to = subfield(target)?;
            writable(to.field)?;
            let target = LearnTarget::Load { field: to.field, offset: to.offset };
            let source = match number(source) {
                Ok(value) if value & !ones(to.bits) == 0 => LearnSource::Value(value),
                Ok(value) => {
                    return Err(TextError::new(format_args!(
                        "{value} has more than {} bits",
                        to.bits
                    )));
                }
                Err(_) => field(same_bits(subfield(source)?, to)?),
            };
            Ok(LearnSpec { bits: to.bits, source, target })
        }
        "output" => {
            let part = subfield(value)?;
            Ok(LearnSpec { bits: part.bits, source: field(part), target: LearnTarget::Output })
        }
        _ => {
            let to = subfield(name)?;
            let target = LearnTarget::Match { field: to.field, offset: to.offset };
            let source = if value.is_empty() {
                field(to)
            } else if let Ok(part) = subfield(value) {
                field(same_bits(part, to)?)
            } else if to.is_whole() {
                LearnSource::Value(value_of(to.field, value).map_err(|error| error.about(name))?)
            } else {
                LearnSource::Value(number(value).map_err(|error| error.about(name))?)
            };
            let too_large =
                matches!(source, LearnSource::Value(value) if value & !ones(to.bits) != 0);
            if too_large {
                return Err(TextError::new(format_args!(
                    "{name}: {value} has more than {} bits",
                    to.bits
                )));
            }
            Ok(LearnSpec { bits: to.bits, source, target })
        }
    }
}

fn same_bits(part: Subfield, other: Subfield) -> Result<Subfield, TextError> {
    let wrong = || TextError::new(format_args!("{} bits are not {}", part.bits, other.bits));
    if part.bits == other.bits { Ok(part) } else { Err(wrong()) }
}

fn encap(text: &str) -> Result<Action, TextError> {
    let missing = || TextError::new("expected ethernet, nsh, mpls or mpls_mc");
    let (name, properties) = Pairs::new(text).next().ok_or_else(missing)?;
    let packet_type = match name {
        "ethernet" => 0,
        "nsh" => 0x0001_894F,
        "mpls" => 0x0001_8847,
        "mpls_mc" => 0x0001_8848,
        _ => return Err(missing()),
    };
    let properties = Pairs::new(properties).map(|(name, value)| match name {
        "md_type" => match fit(value)? {
            kind @ (1 | 2) => Ok(PropertyOfEncap::NshMdtype(kind)),
            kind => Err(TextError::new(format_args!("expected md_type 1 or 2, not {kind}"))),
        },
        "tlv" => tlv(value),
        _ => Err(unknown(name)),
    });
    let properties = properties.collect::<Result<_, _>>()?;
    Ok(Action::Encap(Box::new(Encap { packet_type, header_size: 0, properties })))
}

fn tlv(text: &str) -> Result<PropertyOfEncap, TextError> {
    let all: Vec<&str> = words(text).collect();
    let [class, kind, data] = all[..] else {
        return Err(TextError::new("expected (class,type,value)"));
    };
    let digits = data.strip_prefix("0x").unwrap_or(data);
    let even = if digits.len() % 2 == 0 { digits.to_owned() } else { format!("0{digits}") };
    Ok(PropertyOfEncap::NshTlv { class: fit(class)?, kind: fit(kind)?, data: bytes(&even)? })
}

fn decap(text: &str) -> Result<Action, TextError> {
    let Some((name, value)) = Pairs::new(text).next() else {
        return Ok(Action::Decap { packet_type: 0xFFFE });
    };
    if name != "packet_type" {
        return Err(unknown(name));
    }
    let (mut space, mut kind) = (0_u16, 0_u16);
    for (name, value) in Pairs::new(value) {
        match name {
            "ns" => space = fit(value)?,
            "type" => kind = fit(value)?,
            _ => return Err(unknown(name)),
        }
    }
    Ok(Action::Decap { packet_type: u32::from(space) << 16 | u32::from(kind) })
}
