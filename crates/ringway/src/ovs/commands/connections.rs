//! Tracked connections, as `ovs-dpctl` shows and flushes them.
//!
//! There is one table of them for all data paths, so a data path's name changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use conntrack::{Entry, TcpState, Tuple, ZoneLimit};
use openflow::message::ct_flush::CtFlush;
use ordered::Order as _;
use ovs::unixctl::Answer;
use packet::headers::IpProtocol;

use super::Appctl;
use super::dpif::path_of;

/// An error in Open vSwitch's words.
pub(super) fn invalid(what: &str) -> String {
    format!("ovs-vswitchd: {what} (Invalid argument)\n")
}

/// The options, and the words that say something: all but a data path's name.
fn split(arguments: &[String]) -> (Vec<&str>, Vec<&str>) {
    let (options, words): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    let is_path = |word: &&str| word.contains('@') || word.starts_with("ovs-");
    (options, words.into_iter().filter(|word| !is_path(word)).collect())
}

/// That a data path which is named is one that there is: `netdev@ovs-netdev`, or without what is before the
/// sign.
pub(super) fn check_path(appctl: &Appctl<'_>, name: Option<&String>) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    let bridges = appctl.agent.content().into_iter().flat_map(|content| content.bridges.values());
    let is_it = |path: &str| path == name || path.split('@').nth(1) == Some(name.as_str());
    let is_there = bridges.map(|bridge| path_of(&bridge.datapath_type)).any(is_it);
    if is_there { Ok(()) } else { Err(invalid("datapath not found")) }
}

fn zone_of(word: &str) -> Option<u16> {
    word.strip_prefix("zone=")?.parse().ok()
}

/// All connections, or those of a zone, in order.
fn entries(appctl: &Appctl<'_>, zone: Option<u16>) -> Vec<Entry> {
    let all = appctl.daemon.switch().connections();
    let mut entries = Vec::new();
    all.for_each(all.now(), |entry| {
        if zone.is_none_or(|zone| entry.original.zone() == zone) {
            entries.push(entry);
        }
    });
    entries.order_by_key(|entry| entry.original);
    entries
}

/// The connections.
pub fn dump(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (options, words) = split(arguments);
    let has = |names: [&str; 2]| options.iter().any(|option| names.contains(option));
    let is_verbose = has(["-m", "--more"]);
    let counts = has(["-s", "--statistics"]);
    let zone = words.iter().find_map(|word| zone_of(word));
    let lines = entries(appctl, zone);
    Ok(lines.iter().map(|entry| line(entry, is_verbose, counts) + "\n").collect())
}

fn line(entry: &Entry, is_verbose: bool, counts: bool) -> String {
    let Entry { original, reply, left, mark, label, tcp, helper, master } = entry;
    let mut text = format!(
        "{},orig=({}),reply=({})",
        protocol(original.protocol()),
        ends(original),
        ends(reply)
    );
    if is_verbose {
        text += ",id=0";
    }
    if original.zone() != 0 {
        let _ = write!(text, ",zone={}", original.zone());
    }
    if is_verbose {
        text += ",status=0";
    }
    if counts {
        let _ = write!(text, ",timeout={}", left / 1000);
    }
    if *mark != 0 {
        let _ = write!(text, ",mark={mark}");
    }
    if *label != 0 {
        let _ = write!(text, ",labels={label:#x}");
    }
    match tcp {
        Some([one, other]) if is_verbose => {
            let (one, other) = (state(*one), state(*other));
            let _ = write!(text, ",protoinfo=(state_orig={one},state_reply={other})");
        }
        Some(states) => {
            let _ = write!(text, ",protoinfo=(state={})", state(both(*states)));
        }
        None => {}
    }
    if let Some(helper) = helper {
        let _ = write!(text, ",helper={}", helper.name());
    }
    if let Some(master) = master.filter(|_| is_verbose) {
        let _ = write!(text, ",parent=({})", ends(&master));
    }
    text
}

/// The state of a connection of which both sides have these.
fn both([one, other]: [TcpState; 2]) -> TcpState {
    match one.max(other) {
        TcpState::FinWait2 => TcpState::TimeWait,
        state => state,
    }
}

const fn state(state: TcpState) -> &'static str {
    match state {
        TcpState::Closed => "CLOSED",
        TcpState::SynSent => "SYN_SENT",
        TcpState::Established => "ESTABLISHED",
        TcpState::Closing => "CLOSING",
        TcpState::FinWait2 => "FIN_WAIT_2",
        TcpState::TimeWait => "TIME_WAIT",
    }
}

fn protocol(protocol: IpProtocol) -> String {
    let names = [
        (IpProtocol::ICMP, "icmp"),
        (IpProtocol::ICMPV6, "icmpv6"),
        (IpProtocol::TCP, "tcp"),
        (IpProtocol::UDP, "udp"),
        (IpProtocol(132), "sctp"),
        (IpProtocol(136), "udplite"),
        (IpProtocol(33), "dccp"),
        (IpProtocol(2), "igmp"),
    ];
    let name = names.iter().find(|(known, _)| *known == protocol);
    name.map_or_else(|| protocol.0.to_string(), |(_, name)| (*name).to_owned())
}

fn ends(tuple: &Tuple) -> String {
    let (source, destination) = (tuple.source(), tuple.destination());
    let rest = match (tuple.query(), tuple.ports()) {
        (Some((id, kind)), _) => format!("id={id},type={kind},code=0"),
        (None, (from, to)) => format!("sport={from},dport={to}"),
    };
    format!("src={source},dst={destination},{rest}")
}

/// Ends connections: all, or those of a zone, with a mark or label, or with these ends.
pub fn flush(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (_, words) = split(arguments);
    let which = CtFlush::parse(&words).map_err(|error| invalid(&error))?;
    ovs::connections::flush(&appctl.daemon.switch().connections(), &which);
    Ok(String::new())
}

/// How many connections there are, by protocol.
pub fn stats(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (options, words) = split(arguments);
    let is_verbose = options.iter().any(|option| matches!(*option, "-m" | "--more"))
        || words.contains(&"verbose");
    let zone = words.iter().find_map(|word| zone_of(word));
    let all = appctl.daemon.switch().connections();
    let (mut total, mut counts, mut states) = (0_usize, BTreeMap::new(), BTreeMap::new());
    // There may be millions: none is kept.
    all.for_each(all.now(), |Entry { original, tcp, .. }| {
        if zone.is_none_or(|zone| original.zone() == zone) {
            total += 1;
            *counts.entry(original.protocol().0).or_insert(0_usize) += 1;
            tcp.into_iter().for_each(|tcp| *states.entry(both(tcp)).or_insert(0_usize) += 1);
        }
    });
    let mut text = format!("Connections Stats:\n    Total: {total}\n");
    let known = [(6, "TCP"), (17, "UDP"), (136, "UDPLITE"), (132, "SCTP"), (1, "ICMP")];
    let known = known.into_iter().chain([(58, "ICMPV6"), (33, "DCCP"), (2, "IGMP")]);
    let mut rest = total;
    for (number, name) in known {
        let count = counts.get(&number).copied().unwrap_or_default();
        rest -= count;
        if count != 0 {
            let _ = writeln!(text, "  {name}: {count}");
        }
        if number == 6 && is_verbose && count != 0 {
            text += "    Conn per TCP states:\n";
            for (of, count) in &states {
                let _ = writeln!(text, "      [{}]={count}", state(*of));
            }
        }
    }
    if rest != 0 {
        let _ = writeln!(text, "  Other: {rest}");
    }
    Ok(text)
}

/// How many shares are shown in a line.
const IN_LINE: usize = 8;

/// How many connections each part of the table has, of those that have more than `gt`.
pub fn shares(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let least = arguments.last().and_then(|word| word.strip_prefix("gt="));
    let path = arguments.first().filter(|_| arguments.len() > usize::from(least.is_some()));
    check_path(appctl, path)?;
    let least = least.and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(table(&appctl.daemon.switch().connections().shares(), least))
}

fn table(shares: &[usize], least: usize) -> String {
    let total: usize = shares.iter().sum();
    let mut text = format!("Total Buckets: {}\nCurrent Connections: {total}\n\n", shares.len());
    if total == 0 {
        return text;
    }
    let line = format!("+{}+{}+\n", "-".repeat(11), "-".repeat(41));
    text += &line;
    text += "|  Buckets  |         Connections per Buckets         |\n";
    text += line.trim_end();
    for (at, row) in shares.chunks(IN_LINE).enumerate() {
        let first = at * IN_LINE;
        let _ = write!(text, "\n {first:3}..{:3}   | ", first + IN_LINE - 1);
        for share in row {
            let shown = if *share > least { share.to_string() } else { ".".to_owned() };
            let _ = write!(text, "{shown:>5}");
        }
    }
    text + "\n\n"
}

/// How many there may be.
pub fn limit(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    check_path(appctl, arguments.first())?;
    Ok(format!("{}\n", appctl.daemon.switch().connections().limit()))
}

/// Sets how many there may be.
pub fn set_limit(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let limit = arguments.last().and_then(|word| word.parse::<u32>().ok());
    let limit = limit.ok_or_else(|| invalid("maxconns missing or malformed"))?;
    check_path(appctl, arguments.first().filter(|_| arguments.len() > 1))?;
    appctl.daemon.switch().connections().set_limit(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok("setting maxconns successful".to_owned())
}

/// How many there are.
pub fn count(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    check_path(appctl, arguments.first())?;
    Ok(format!("{}\n", appctl.daemon.switch().connections().count()))
}

/// Whether sequence numbers of TCP are checked.
pub fn checks(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let checks = appctl.daemon.switch().connections().checks_sequences();
    Ok(format!("TCP sequence checking: {}\n", if checks { "enabled" } else { "disabled" }))
}

/// Has them be checked.
pub fn enable_checks(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.daemon.switch().connections().check_sequences(true);
    Ok("enabling TCP sequence checking successful\n".to_owned())
}

/// Has them not be checked.
pub fn disable_checks(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.daemon.switch().connections().check_sequences(false);
    Ok("disabling TCP sequence checking successful\n".to_owned())
}

/// How many connections zones may have.
pub fn zone_limits(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (_, words) = split(arguments);
    let all = appctl.daemon.switch().connections();
    let wanted = match words.first() {
        Some(word) => zones(word)?.into_iter().map(|zone| all.zone_limit(zone)).collect(),
        None => all.zone_limits(),
    };
    let mut text = format!("default limit={}", all.default_zone_limit());
    for ZoneLimit { zone, limit, count } in wanted {
        let _ = write!(text, "\nzone={zone},limit={limit},count={count}");
    }
    Ok(text + "\n")
}

/// Sets that: `default=L`, and `zone=N,limit=L` as often as wanted.
pub fn set_zone_limits(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (_, words) = split(arguments);
    let mut default = None;
    let mut limits = Vec::new();
    for word in words {
        if let Some(limit) = word.strip_prefix("default=") {
            default = Some(limit.parse::<u32>().map_err(|_| invalid("invalid default limit"))?);
            continue;
        }
        let parts = word.split_once(',').and_then(|(zone, limit)| {
            Some((zone_of(zone)?, limit.strip_prefix("limit=")?.parse::<u32>().ok()?))
        });
        limits.push(parts.ok_or_else(|| invalid(&format!("failed to parse {word}")))?);
    }
    let all = appctl.daemon.switch().connections();
    if let Some(limit) = default {
        all.set_default_zone_limit(limit);
    }
    limits.into_iter().for_each(|(zone, limit)| all.set_zone_limit(zone, Some(limit)));
    Ok(String::new())
}

/// Has zones have no limits of their own.
pub fn forget_zone_limits(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (_, words) = split(arguments);
    let zones = zones(words.first().copied().unwrap_or_default())?;
    let all = appctl.daemon.switch().connections();
    zones.into_iter().for_each(|zone| all.set_zone_limit(zone, None));
    Ok(String::new())
}

/// Zones, as `zone=1,2,3`.
fn zones(text: &str) -> Result<Vec<u16>, String> {
    let list = text.strip_prefix("zone=").ok_or_else(|| invalid("invalid argument"))?;
    let numbers = list.split(',').map(str::parse);
    numbers.collect::<Result<_, _>>().map_err(|_| invalid("invalid zone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_eight_in_a_line() {
        let shares = [vec![0, 3, 12_000], vec![1; 7]].concat();
        let text = table(&shares, 1);
        assert!(
            text.starts_with("Total Buckets: 10\nCurrent Connections: 12010\n\n+-----------+--")
        );
        assert!(
            text.contains("\n   0..  7   |     .    312000    .    .    .    .    .\n"),
            "{text}"
        );
        assert!(text.ends_with("\n   8.. 15   |     .    .\n\n"), "{text}");
        assert_eq!(table(&[0; 64], 0), "Total Buckets: 64\nCurrent Connections: 0\n\n");
    }
}
