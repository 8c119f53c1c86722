//! What ovn-controller has sent, as ovs-ofctl showed it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

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

/// Messages of a real switch, and of tools that spoke to it, each with what Debian's `ovs-ofctl ofp-print` says of it.
fn messages() -> Vec<(Vec<u8>, String)> {
    let mut all: Vec<(Vec<u8>, String)> = Vec::new();
    for line in include_str!("messages.txt").lines() {
        match (line.split_at_checked(2), all.last_mut()) {
            (Some(("= ", hex)), _) => all.push((bytes(hex), String::new())),
            (text, Some((_, said))) => {
                if !said.is_empty() {
                    said.push('\n');
                }
                *said += text.map_or("", |(_, text)| text);
            }
            _ => panic!("{line}"),
        }
    }
    all
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
