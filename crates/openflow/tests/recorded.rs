//! What ovn-controller has sent, as ovs-ofctl showed it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod messages;

use messages::{bytes, messages};
use openflow::message::{Raw, flow_mod::FlowMod, flow_stats::FlowStats};

#[test]
fn flows_are_shown_as_ovs_shows_them() {
    let recorded = include_str!("flow_mods.hex");
    let shown = include_str!("flow_mods.txt");
    assert_eq!(recorded.lines().count(), shown.lines().count());
    for (hex, line) in recorded.lines().zip(shown.lines()) {
        let message = bytes(hex);
        let change = FlowMod::decode(&Raw::read(&message).unwrap(), false).unwrap();
        let flow = FlowStats {
            table: change.table,
            matching: change.matching,
            priority: change.priority,
            cookie: change.new_cookie,
            instructions: change.instructions,
            ..FlowStats::default()
        };
        assert_eq!(flow.dumped(false).to_string(), line);
    }
}

/// What Open vSwitch goes on with has a form of its own in each switch, and packets are told by their length here.
fn is_compared(line: &&str) -> bool {
    !line.starts_with(" continuation.") && !line.contains(",dl_dst=")
}

#[test]
fn messages_are_shown_as_ovs_shows_them() {
    for (message, said) in messages() {
        let said: Vec<&str> = said.lines().filter(is_compared).collect();
        let said = said.join("\n");
        assert_eq!(openflow::print::message(&message), said, "{message:02x?}");
    }
}
