//! Actions as ovs-ofctl shows them.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::{
    Action, Algorithm, Bundle, Controller, Ct, CtZone, Encap, HashFields, Learn, LearnSource,
    LearnSpec, LearnTarget, Multipath, Nat, NatKind, PropertyOfEncap, Sample, SampleDirection,
};
use crate::field::text::{Hex, Ip6, Masked};
use crate::field::{Field, Subfield, ones};
use crate::message::flow_mod::DEFAULT_PRIORITY;
use crate::packet_in::Reason;
use crate::port_no::PortNo;

/// Some actions with commas between them; `drop` where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Actions<'a>(pub &'a [Action]);

impl Display for Actions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("drop");
        }
        commas(f, self.0)
    }
}

/// Some things with commas between them.
fn commas<T: Display>(f: &mut Formatter<'_>, all: &[T]) -> fmt::Result {
    let mut comma = "";
    for one in all {
        write!(f, "{comma}{one}")?;
        comma = ",";
    }
    Ok(())
}

/// Bytes with dots between them.
fn dotted(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let mut dot = "";
    for byte in bytes {
        write!(f, "{dot}{byte:02x}")?;
        dot = ".";
    }
    Ok(())
}

/// As ovs-ofctl shows it: `output:1`, `set_field:0x1->reg0`.
impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output { port, max_len } if *port == PortNo::CONTROLLER => {
                write!(f, "CONTROLLER:{max_len}")
            }
            Self::Output { port, .. } if *port < PortNo::MAX => write!(f, "output:{port}"),
            Self::Output { port, .. } => write!(f, "{port}"),
            Self::OutputField { source, .. } => write!(f, "output:{source}"),
            Self::OutputTruncated { port, max_len } => {
                write!(f, "output(port={port},max_len={max_len})")
            }
            Self::Controller(to) => controller(f, to),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::Enqueue { port, queue } => write!(f, "enqueue:{port}:{queue}"),
            Self::Bundle(bundle) => show_bundle(f, bundle),
            Self::SetField { field, value, mask } => {
                let value = Masked { field: *field, value: *value, mask: *mask };
                write!(f, "set_field:{value}->{field}")
            }
            Self::Load { target, value } => write!(f, "load:{}->{target}", Hex((*value).into())),
            Self::Move { source, target } => write!(f, "move:{source}->{target}"),
            Self::Push(part) => write!(f, "push:{part}"),
            Self::Pop(part) => write!(f, "pop:{part}"),
            Self::Resubmit { port, table, ct } => resubmit(f, *port, *table, *ct),
            Self::DecTtl(Some(ids)) => {
                f.write_str("dec_ttl(")?;
                commas(f, ids)?;
                f.write_str(")")
            }
            Self::Clone(actions) => write!(f, "clone({})", Actions(actions)),
            Self::Learn(learn) => show_learn(f, learn),
            Self::Conjunction { id, clause, clauses } => {
                write!(f, "conjunction({id},{}/{clauses})", u16::from(*clause) + 1)
            }
            Self::Multipath(multipath) => show_multipath(f, multipath),
            Self::CheckPktLarger { len, target } => write!(f, "check_pkt_larger({len})->{target}"),
            Self::FinTimeout { idle, hard } => {
                let comma = if *idle != 0 && *hard != 0 { "," } else { "" };
                f.write_str("fin_timeout(")?;
                if *idle != 0 {
                    write!(f, "idle_timeout={idle}{comma}")?;
                }
                if *hard != 0 {
                    write!(f, "hard_timeout={hard}")?;
                }
                f.write_str(")")
            }
            Self::Sample(sample) => show_sample(f, sample),
            Self::Ct(ct) => show_ct(f, ct),
            Self::Nat(nat) => show_nat(f, nat),
            Self::Note(bytes) => {
                f.write_str("note:")?;
                dotted(f, bytes)
            }
            Self::Encap(encap) => show_encap(f, encap),
            Self::Decap { packet_type: USE_NEXT } => f.write_str("decap()"),
            Self::Decap { packet_type } => {
                let (space, kind) = (packet_type >> 16, packet_type & 0xFFFF);
                write!(f, "decap(packet_type(ns={space},type={}))", Hex(kind.into()))
            }
            _ => simple(f, self),
        }
    }
}

/// That what is below a header that is taken off is what the header says.
const USE_NEXT: u32 = 0xFFFE;

/// Shows actions that have one value or none.
fn simple(f: &mut Formatter<'_>, action: &Action) -> fmt::Result {
    match action {
        Action::SetVlanVid { vid, push: true } => write!(f, "mod_vlan_vid:{vid}"),
        Action::SetVlanVid { vid, push: false } => write!(f, "set_vlan_vid:{vid}"),
        Action::SetVlanPcp { pcp, push: true } => write!(f, "mod_vlan_pcp:{pcp}"),
        Action::SetVlanPcp { pcp, push: false } => write!(f, "set_vlan_pcp:{pcp}"),
        Action::StripVlan => f.write_str("strip_vlan"),
        Action::PopVlan => f.write_str("pop_vlan"),
        Action::PushVlan { ethertype } => write!(f, "push_vlan:{ethertype:#x}"),
        Action::SetEthSrc(mac) => write!(f, "mod_dl_src:{mac}"),
        Action::SetEthDst(mac) => write!(f, "mod_dl_dst:{mac}"),
        Action::SetIpSrc(address) => write!(f, "mod_nw_src:{address}"),
        Action::SetIpDst(address) => write!(f, "mod_nw_dst:{address}"),
        Action::SetNwTos(tos) => write!(f, "mod_nw_tos:{tos}"),
        Action::SetNwEcn(ecn) => write!(f, "mod_nw_ecn:{ecn}"),
        Action::SetNwTtl(ttl) => write!(f, "mod_nw_ttl:{ttl}"),
        Action::SetL4Src(port) => write!(f, "mod_tp_src:{port}"),
        Action::SetL4Dst(port) => write!(f, "mod_tp_dst:{port}"),
        Action::SetMplsLabel(label) => write!(f, "set_mpls_label({label})"),
        Action::SetMplsTc(tc) => write!(f, "set_mpls_tc({tc})"),
        Action::SetMplsTtl(ttl) => write!(f, "set_mpls_ttl({ttl})"),
        Action::DecMplsTtl => f.write_str("dec_mpls_ttl"),
        Action::PushMpls { ethertype } => write!(f, "push_mpls:{ethertype:#06x}"),
        Action::PopMpls { ethertype } => write!(f, "pop_mpls:{ethertype:#06x}"),
        Action::DecNshTtl => f.write_str("dec_nsh_ttl"),
        Action::DeleteField(field) => write!(f, "delete_field:{field}"),
        Action::SetTunnel { id, wide } => {
            let wide = if *wide || u32::try_from(*id).is_err() { "64" } else { "" };
            write!(f, "set_tunnel{wide}:{}", Hex((*id).into()))
        }
        Action::SetQueue(queue) => write!(f, "set_queue:{queue}"),
        Action::PopQueue => f.write_str("pop_queue"),
        Action::Meter(meter) => write!(f, "meter:{meter}"),
        Action::Exit => f.write_str("exit"),
        Action::CtClear => f.write_str("ct_clear"),
        Action::DebugRecirc => f.write_str("debug_recirc"),
        Action::DebugSlow => f.write_str("debug_slow"),
        // All others are shown elsewhere.
        _ => f.write_str("dec_ttl"),
    }
}

fn controller(f: &mut Formatter<'_>, to: &Controller) -> fmt::Result {
    let plain = Controller { max_len: to.max_len, ..Controller::default() };
    if *to == plain {
        return write!(f, "CONTROLLER:{}", to.max_len);
    }
    let mut parts = Vec::new();
    if to.reason != Reason::ACTION {
        parts.push(format!("reason={}", to.reason));
    }
    if to.max_len != u16::MAX {
        parts.push(format!("max_len={}", to.max_len));
    }
    if to.id != 0 {
        parts.push(format!("id={}", to.id));
    }
    if !to.userdata.is_empty() {
        let bytes: Vec<String> = to.userdata.iter().map(|byte| format!("{byte:02x}")).collect();
        parts.push(format!("userdata={}", bytes.join(".")));
    }
    if to.pause {
        parts.push("pause".to_owned());
    }
    if to.meter != u32::MAX {
        parts.push(format!("meter_id={}", to.meter));
    }
    write!(f, "controller({})", parts.join(","))
}

impl Display for HashFields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EthSrc => "eth_src",
            Self::SymmetricL4 => "symmetric_l4",
            Self::SymmetricL3L4 => "symmetric_l3l4",
            Self::SymmetricL3L4Udp => "symmetric_l3l4+udp",
            Self::NwSrc => "nw_src",
            Self::NwDst => "nw_dst",
            Self::SymmetricL3 => "symmetric_l3",
        })
    }
}

impl Display for Algorithm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ActiveBackup => "active_backup",
            Self::ModuloN => "modulo_n",
            Self::HashThreshold => "hash_threshold",
            Self::Hrw => "hrw",
            Self::IterHash => "iter_hash",
        })
    }
}

fn show_bundle(f: &mut Formatter<'_>, bundle: &Bundle) -> fmt::Result {
    let name = if bundle.target.is_some() { "bundle_load" } else { "bundle" };
    write!(f, "{name}({},{},{},ofport,", bundle.fields, bundle.basis, bundle.algorithm)?;
    if let Some(target) = bundle.target {
        write!(f, "{target},")?;
    }
    f.write_str("members:")?;
    commas(f, &bundle.members)?;
    f.write_str(")")
}

fn show_multipath(f: &mut Formatter<'_>, multipath: &Multipath) -> fmt::Result {
    let links = u32::from(multipath.max_link) + 1;
    let Multipath { fields, basis, algorithm, arg, target, .. } = multipath;
    write!(f, "multipath({fields},{basis},{algorithm},{links},{arg},{target})")
}

fn resubmit(
    f: &mut Formatter<'_>,
    port: Option<PortNo>,
    table: Option<u8>,
    ct: bool,
) -> fmt::Result {
    let port = port.filter(|port| *port != PortNo::IN_PORT);
    if let (Some(port), None) = (port, table) {
        return write!(f, "resubmit:{port}");
    }
    let port = port.map(|port| port.to_string()).unwrap_or_default();
    let table = table.map(|table| table.to_string()).unwrap_or_default();
    write!(f, "resubmit({port},{table}{})", if ct { ",ct" } else { "" })
}

fn show_learn(f: &mut Formatter<'_>, learn: &Learn) -> fmt::Result {
    write!(f, "learn(table={}", learn.table)?;
    let timeouts = [
        ("idle_timeout", learn.timeouts.idle),
        ("hard_timeout", learn.timeouts.hard),
        ("fin_idle_timeout", learn.fin_timeouts.idle),
        ("fin_hard_timeout", learn.fin_timeouts.hard),
    ];
    for (name, seconds) in timeouts.into_iter().filter(|(_, seconds)| *seconds != 0) {
        write!(f, ",{name}={seconds}")?;
    }
    if learn.priority != DEFAULT_PRIORITY {
        write!(f, ",priority={}", learn.priority)?;
    }
    if learn.flags.send_flow_removed {
        f.write_str(",send_flow_rem")?;
    }
    if learn.flags.delete_learned {
        f.write_str(",delete_learned")?;
    }
    if learn.cookie != 0 {
        write!(f, ",cookie={:#x}", learn.cookie)?;
    }
    if learn.limit != 0 {
        write!(f, ",limit={}", learn.limit)?;
    }
    if let Some(target) = learn.result {
        write!(f, ",result_dst={target}")?;
    }
    for spec in &learn.specs {
        f.write_str(",")?;
        show_spec(f, *spec)?;
    }
    f.write_str(")")
}

fn show_spec(f: &mut Formatter<'_>, spec: LearnSpec) -> fmt::Result {
    let part = |field: Field, offset: u16| Subfield { field, offset, bits: spec.bits };
    let source = match spec.source {
        LearnSource::Field { field, offset } => part(field, offset).to_string(),
        LearnSource::Value(value) => Hex(value & ones(spec.bits)).to_string(),
    };
    match (spec.target, spec.source) {
        (LearnTarget::Match { field, offset }, LearnSource::Value(value)) => {
            let target = part(field, offset);
            if target.is_whole() {
                let value = Masked { field, value, mask: field.byte_mask() };
                return write!(f, "{field}={value}");
            }
            write!(f, "{target}={source}")
        }
        (LearnTarget::Match { field, offset }, LearnSource::Field { field: from, offset: at }) => {
            write!(f, "{}", part(field, offset))?;
            if (field, offset) == (from, at) { Ok(()) } else { write!(f, "={source}") }
        }
        (LearnTarget::Load { field, offset }, _) => {
            write!(f, "load:{source}->{}", part(field, offset))
        }
        (LearnTarget::Output, _) => write!(f, "output:{source}"),
    }
}

fn show_sample(f: &mut Formatter<'_>, sample: &Sample) -> fmt::Result {
    let Sample { probability, collector_set_id, obs_domain_id, obs_point_id, .. } = sample;
    write!(f, "sample(probability={probability},collector_set_id={collector_set_id}")?;
    write!(f, ",obs_domain_id={obs_domain_id},obs_point_id={obs_point_id}")?;
    if sample.sampling_port != PortNo::ANY {
        write!(f, ",sampling_port={}", sample.sampling_port)?;
    }
    f.write_str(match sample.direction {
        SampleDirection::Default => "",
        SampleDirection::Ingress => ",ingress",
        SampleDirection::Egress => ",egress",
    })?;
    f.write_str(")")
}

fn show_ct(f: &mut Formatter<'_>, ct: &Ct) -> fmt::Result {
    let mut parts = Vec::new();
    if ct.commit {
        parts.push("commit".to_owned());
    }
    if ct.force {
        parts.push("force".to_owned());
    }
    if let Some(table) = ct.table {
        parts.push(format!("table={table}"));
    }
    match ct.zone {
        CtZone::Number(0) => {}
        CtZone::Number(zone) => parts.push(format!("zone={zone}")),
        CtZone::Field(source) => parts.push(format!("zone={source}")),
    }
    // The first translation of addresses stands outside of what else is done.
    let rest = match ct.actions.split_first() {
        Some((nat @ Action::Nat(_), rest)) => {
            parts.push(nat.to_string());
            rest
        }
        _ => &ct.actions[..],
    };
    if !rest.is_empty() {
        parts.push(format!("exec({})", Actions(rest)));
    }
    match ct.alg {
        0 => {}
        21 => parts.push("alg=ftp".to_owned()),
        69 => parts.push("alg=tftp".to_owned()),
        alg => parts.push(format!("alg={alg}")),
    }
    write!(f, "ct({})", parts.join(","))
}

/// An address in a range; IPv6 has brackets where a port follows.
fn nat_address(f: &mut Formatter<'_>, address: IpAddr, has_port: bool) -> fmt::Result {
    match address {
        IpAddr::V4(address) => write!(f, "{address}"),
        IpAddr::V6(address) if has_port => write!(f, "[{}]", Ip6(address.to_bits())),
        IpAddr::V6(address) => write!(f, "{}", Ip6(address.to_bits())),
    }
}

fn show_nat(f: &mut Formatter<'_>, nat: &Nat) -> fmt::Result {
    let kind = match nat.kind {
        NatKind::Existing => return f.write_str("nat"),
        NatKind::Source => "src",
        NatKind::Destination => "dst",
    };
    write!(f, "nat({kind}")?;
    if let Some((least, largest)) = nat.addresses {
        f.write_str("=")?;
        nat_address(f, least, nat.ports.is_some())?;
        if let Some(largest) = largest.filter(|largest| *largest != least) {
            f.write_str("-")?;
            nat_address(f, largest, nat.ports.is_some())?;
        }
        if let Some((least, largest)) = nat.ports {
            write!(f, ":{least}")?;
            if let Some(largest) = largest.filter(|largest| *largest != least) {
                write!(f, "-{largest}")?;
            }
        }
        let names =
            [(Nat::PERSISTENT, ",persistent"), (Nat::HASH, ",hash"), (Nat::RANDOM, ",random")];
        for (flag, name) in names {
            if nat.flags & flag != 0 {
                f.write_str(name)?;
            }
        }
    }
    f.write_str(")")
}

fn show_encap(f: &mut Formatter<'_>, encap: &Encap) -> fmt::Result {
    let name = match encap.packet_type {
        0 => "ethernet",
        0x0001_894F => "nsh",
        0x0001_8847 => "mpls",
        0x0001_8848 => "mpls_mc",
        _ => "UNKNOWN",
    };
    write!(f, "encap({name}")?;
    if !encap.properties.is_empty() {
        f.write_str("(")?;
        commas(f, &encap.properties)?;
        f.write_str(")")?;
    }
    f.write_str(")")
}

impl Display for PropertyOfEncap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NshMdtype(kind) => write!(f, "md_type={kind}"),
            Self::NshTlv { class, kind, data } => {
                write!(f, "tlv({class:#06x},{kind},")?;
                let first = data.iter().position(|byte| *byte != 0);
                match first.and_then(|first| data.get(first..)).and_then(<[u8]>::split_first) {
                    None => f.write_str("0")?,
                    Some((first, rest)) => {
                        write!(f, "{first:#x}")?;
                        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                    }
                }
                f.write_str(")")
            }
        }
    }
}
