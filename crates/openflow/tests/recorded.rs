//! What ovn-controller has sent, as ovs-ofctl showed it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod messages;

use std::collections::HashSet;

use messages::{bytes, messages};
use openflow::Version;
use openflow::message::{Kind, Raw, flow_mod::FlowMod, flow_stats::FlowStats};

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

#[test]
fn there_is_one_of_each_number_in_each_version() {
    let all: Vec<_> = messages().into_iter().map(|(message, _)| message).collect();
    let there: HashSet<_> = all
        .iter()
        .filter_map(|message| Raw::read(message).ok())
        .map(|raw| (raw.version, raw.form, raw.number))
        .collect();
    let missing: Vec<_> = Version::ALL
        .into_iter()
        .flat_map(|version| Kind::ALL.iter().map(move |kind| (version, *kind)))
        .flat_map(|(version, kind)| kind.forms(version).map(move |form| (version, kind, form)))
        .filter(|(version, _, (form, number))| !there.contains(&(*version, *form, *number)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(there.len(), 469);
}
