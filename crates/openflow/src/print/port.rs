//! What a switch is, and its ports.

use std::fmt::Write as _;

use ordered::Order as _;

use super::said::Said;
use super::{Bits, Names, figure, limits};
use crate::error::ErrorCode;
use crate::message::features::Features;
use crate::message::flow_text::Seconds;
use crate::message::port::{PortDesc, PortMod, PortReason, PortStatus};
use crate::message::stats::port::{PortStats, UNKNOWN};
use crate::message::{Kind, Raw};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::Reader;

const CONFIG: Names =
    &["PORT_DOWN", "NO_STP", "NO_RECV", "NO_RECV_STP", "NO_FLOOD", "NO_FWD", "NO_PACKET_IN"];

const STATE: Names = &["LINK_DOWN", "BLOCKED", "LIVE"];

const FEATURES: Names = &[
    "10MB-HD",
    "10MB-FD",
    "100MB-HD",
    "100MB-FD",
    "1GB-HD",
    "1GB-FD",
    "10GB-FD",
    "40GB-FD",
    "100GB-FD",
    "1TB-FD",
    "OTHER",
    "COPPER",
    "FIBER",
    "AUTO_NEG",
    "AUTO_PAUSE",
    "AUTO_PAUSE_ASYM",
];

/// Those that are speeds.
const SPEEDS: u32 = 0x3FF;

/// Writes what a message about a switch or its ports says.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    match raw.kind {
        Kind::FeaturesReply => {
            features(text, Features::decode(raw.version, raw.body)?, raw.version);
        }
        Kind::PortStatus => {
            let status = PortStatus::decode(raw.version, raw.body)?;
            *text += match status.reason {
                PortReason::Add => " ADD:",
                PortReason::Delete => " DEL:",
                PortReason::Modify => " MOD:",
            };
            port(text, &status.port, raw.version);
        }
        Kind::PortMod => port_mod(text, PortMod::decode(raw.version, raw.body)?),
        Kind::PortDescReply => {
            text.push('\n');
            ports(text, PortDesc::decode_all(raw.version, raw.body)?, raw.version);
        }
        _ => {
            let (mut reader, mut all) = (Reader::new(raw.body), Vec::new());
            while !reader.is_empty() {
                all.push(PortStats::decode(raw.version, &mut reader)?);
            }
            let _ = writeln!(text, " {} ports", all.len());
            all.iter().for_each(|one| stats(text, one, raw.version));
        }
    }
    Ok(())
}

fn features(text: &mut String, of: Features, version: Version) {
    let _ = write!(text, " dpid:{:016x}\nn_tables:{}, ", of.datapath_id, of.tables);
    let _ = write!(text, "n_buffers:{}", of.buffers);
    if of.auxiliary != 0 {
        let _ = write!(text, ", auxiliary_id:{}", of.auxiliary);
    }
    let capabilities: Names = match version {
        Version::V10 => &[
            "FLOW_STATS",
            "TABLE_STATS",
            "PORT_STATS",
            "STP",
            "",
            "IP_REASM",
            "QUEUE_STATS",
            "ARP_MATCH_IP",
        ],
        _ => &[
            "FLOW_STATS",
            "TABLE_STATS",
            "PORT_STATS",
            "GROUP_STATS",
            "",
            "IP_REASM",
            "QUEUE_STATS",
            "ARP_MATCH_IP",
            "PORT_BLOCKED",
            "BUNDLES",
            "FLOW_MONITORING",
        ],
    };
    let _ = writeln!(text, "\ncapabilities: {}", Bits(of.capabilities, capabilities));
    let actions = limits::action_names(of.actions, Version::V10);
    if version == Version::V10 && !actions.is_empty() {
        let _ = writeln!(text, "actions: {}", actions.join(" "));
    }
    ports(text, of.ports, version);
}

/// Ports in the order of their numbers.
fn ports(text: &mut String, mut all: Vec<PortDesc>, version: Version) {
    all.order_by_key(|port| port.number);
    all.iter().for_each(|one| port(text, one, version));
}

/// The speed of the fastest link among features, in Mb/s.
fn speed(features: u32) -> u32 {
    match (features & SPEEDS).checked_ilog2() {
        None => 0,
        Some(0 | 1) => 10,
        Some(2 | 3) => 100,
        Some(4 | 5) => 1_000,
        Some(6) => 10_000,
        Some(7) => 40_000,
        Some(8) => 100_000,
        Some(_) => 1_000_000,
    }
}

fn port(text: &mut String, of: &PortDesc, version: Version) {
    let is_shown = |letter: &char| letter.is_ascii_graphic() || *letter == ' ';
    let name: String = of.name.chars().take_while(is_shown).collect();
    let _ = writeln!(text, " {}({name}): addr:{}", of.number, of.mac);
    let _ = writeln!(text, "     config:     {}", Bits(of.config, CONFIG));
    let _ = writeln!(text, "     state:      {}", Bits(of.state, STATE));
    let known = [
        ("current:    ", of.current),
        ("advertised: ", of.advertised),
        ("supported:  ", of.supported),
        ("peer:       ", of.peer),
    ];
    for (name, features) in known.into_iter().filter(|(_, features)| *features != 0) {
        let _ = writeln!(text, "     {name}{}", Bits(features, FEATURES));
    }
    // The oldest messages have no speeds but these.
    let (now, most) = match version {
        Version::V10 => (speed(of.current), speed(of.supported)),
        _ => (of.current_speed / 1_000, of.max_speed / 1_000),
    };
    let _ = writeln!(text, "     speed: {now} Mbps now, {most} Mbps max");
}

fn port_mod(text: &mut String, change: PortMod) {
    let _ = writeln!(text, " port: {}: addr:{}", change.number, change.mac);
    let _ = writeln!(text, "     config: {}", Bits(change.config, CONFIG));
    let _ = writeln!(text, "     mask:   {}", Bits(change.mask, CONFIG));
    let _ = match change.advertise {
        0 => write!(text, "     advertise: UNCHANGED"),
        features => write!(text, "     advertise: {}", Bits(features, FEATURES)),
    };
}

fn stats(text: &mut String, of: &PortStats, version: Version) {
    let known = |at: usize| figure(of.figures.get(at).copied().unwrap_or(UNKNOWN));
    let list = |names: &[(&str, usize)]| {
        let all: Vec<String> =
            names.iter().map(|(name, at)| format!("{name}={}", known(*at))).collect();
        all.join(", ")
    };
    let space = if of.port < PortNo(10) { " " } else { "" };
    let received = [
        ("pkts", 0),
        ("bytes", 2),
        ("drop", 4),
        ("errs", 6),
        ("frame", 8),
        ("over", 9),
        ("crc", 10),
    ];
    let _ = writeln!(text, "  port {space}{}: rx {}", of.port, list(&received));
    let sent = [("pkts", 1), ("bytes", 3), ("drop", 5), ("errs", 7), ("coll", 11)];
    let _ = writeln!(text, "           tx {}", list(&sent));
    if version >= Version::V13 {
        let _ = writeln!(text, "           duration={}", Seconds(of.age));
    }
    if of.custom.is_empty() {
        return;
    }
    *text += "           CUSTOM Statistics";
    for (at, (name, figure)) in of.custom.iter().enumerate() {
        *text += if at.is_multiple_of(3) { "\n                      " } else { " " };
        let _ = write!(text, "{}={figure},", Said(name));
    }
    text.push('\n');
}
