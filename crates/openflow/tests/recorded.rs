//! What ovn-controller has sent, as ovs-ofctl showed it.

#![allow(clippy::unwrap_used, reason = "tests")]

use openflow::message::{Raw, flow_mod::FlowMod, flow_stats::FlowStats};

/// Bytes of a line of digits.
fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

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
