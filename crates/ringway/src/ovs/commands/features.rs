//! What the data path can, and all rules of a bridge.

use std::fmt::Write as _;

use openflow::message::flow_mod::DEFAULT_PRIORITY;
use ovs::unixctl::Answer;

use super::Appctl;

/// What a datapath of Open vSwitch may be able to do, and whether, or how much of it, is here.
const FEATURES: [(&str, &str); 26] = [
    ("Masked set action", "Yes"),
    ("Tunnel push pop", "No"),
    ("Ufid", "Yes"),
    ("Truncate action", "Yes"),
    ("Clone action", "Yes"),
    ("Sample nesting", "0"),
    ("Conntrack eventmask", "No"),
    ("Conntrack clear", "Yes"),
    ("Max dp_hash algorithm", "0"),
    ("Check pkt length action", "Yes"),
    ("Conntrack timeout policy", "No"),
    ("Explicit Drop action", "No"),
    ("Optimized Balance TCP mode", "No"),
    ("Conntrack all-zero IP SNAT", "No"),
    ("MPLS Label add", "No"),
    ("Max VLAN headers", "1"),
    ("Max MPLS depth", "3"),
    ("Recirc", "Yes"),
    ("CT state", "Yes"),
    ("CT zone", "Yes"),
    ("CT mark", "Yes"),
    ("CT label", "Yes"),
    ("CT state NAT", "No"),
    ("CT orig tuple", "Yes"),
    ("CT orig tuple for IPv6", "Yes"),
    ("IPv6 ND Extension", "Yes"),
];

/// What the data path of a bridge can.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    if let Some(bridge) = arguments.last() {
        appctl.check_bridge(bridge)?;
    }
    Ok(FEATURES.iter().map(|(name, value)| format!("{name}: {value}\n")).collect())
}

/// All rules of a bridge, with those that no controller made.
pub fn dump_rules(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let Some(bridge) = arguments.last() else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let switch = appctl.daemon.switch();
    switch.flush_flows();
    let now = switch.flow_time();
    let flows = switch.flows(bridge).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for rule in flows.iter().flat_map(|flows| flows.pipeline.tables.iter()) {
        if rule.table != 0 {
            let _ = write!(text, "table_id={}, ", rule.table);
        }
        let seconds = now.saturating_sub(rule.created) / 1_000;
        let (packets, bytes) = (rule.stats.packets(), rule.stats.bytes());
        let _ = write!(text, "duration={seconds}s, n_packets={packets}, n_bytes={bytes}, ");
        let matching = rule.matching.to_string();
        let comma = if matching.is_empty() { "" } else { "," };
        if rule.priority != DEFAULT_PRIORITY {
            let _ = write!(text, "priority={}{comma}", rule.priority);
        }
        let _ = writeln!(text, "{matching},actions={}", rule.instructions);
    }
    Ok(text)
}
