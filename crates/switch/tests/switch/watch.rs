//! Links that are watched by BFD and CFM.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use eal::time::Time;
use switch::{BOND_DEVICE, Bfd, BridgeOptions, Cfm, PortOptions, Switch, SwitchConfig};

use crate::common::port;

fn watched(bridge: Option<&str>, mpid: u64) -> PortOptions {
    PortOptions {
        bridge: bridge.map(str::to_owned),
        bfd: Some(Bfd { min_rx: 300, ..Bfd::default() }),
        cfm: Some(Cfm { interval: 100, ..Cfm::new(mpid) }),
        ..PortOptions::default()
    }
}

/// Lets so many tenths of a second pass; in each, all is said that is to be said.
fn pass(switch: &Switch, time: &Time, tenths: u32) {
    for _ in 0..tenths {
        time.warp(Duration::from_millis(100));
        // What is due, what is heard then, the answers to that, and what is heard of those.
        (0..4).for_each(|_| switch.catch_up());
    }
}

fn does(switch: &Switch, name: &str) -> bool {
    switch.port(name).unwrap().is_agreed
}

#[test]
fn both_ends_of_a_link_hear_each_other_until_one_is_silent() {
    let time = Time::stopped();
    let switch = Switch::start_with(&SwitchConfig::default(), time.clone()).unwrap();
    switch.add_bridge("red", &BridgeOptions::default()).unwrap();
    switch.open_port("ab", "patch:ba", &watched(None, 1)).unwrap();
    switch.open_port("ba", "patch:ab", &watched(Some("red"), 2)).unwrap();
    pass(&switch, &time, 50);
    assert!(does(&switch, "ab") && does(&switch, "ba"));
    let cfm = switch.cfm();
    assert_eq!(
        (cfm[0].0.as_str(), &cfm[0].1.reached, &cfm[1].1.reached),
        ("ab", &vec![2], &vec![1])
    );
    let bfd = switch.bfd();
    assert!(bfd.iter().all(|(_, report)| report.is_forwarding && report.flaps == 1));
    let changes = switch.watch_changes();
    switch
        .set_port("ba", &PortOptions { bfd: None, cfm: None, ..watched(Some("red"), 2) })
        .unwrap();
    pass(&switch, &time, 20);
    assert!(!does(&switch, "ab") && does(&switch, "ba"));
    assert!(switch.watch_changes() > changes && switch.cfm().len() == 1);
    let faults: Vec<_> = switch.cfm()[0].1.faults.names().collect();
    assert_eq!(faults, ["recv"]);
    // An operator knows better.
    assert!(switch.override_cfm(Some("ab"), Some(false)) && switch.override_bfd(None, Some(true)));
    assert!(does(&switch, "ab") && !switch.override_bfd(Some("ba"), None));
}

#[test]
fn a_member_of_a_bond_whose_link_does_not_do_is_not_used() {
    let time = Time::stopped();
    let switch = Switch::start_with(&SwitchConfig::default(), time.clone()).unwrap();
    switch.open_port("bond", BOND_DEVICE, &PortOptions::default()).unwrap();
    let mut peers = Vec::new();
    let member = PortOptions { bond: Some("bond".to_owned()), ..PortOptions::default() };
    for (name, bfd) in [("x", Some(Bfd::default())), ("y", None)] {
        let (open, peer) = port(name, 1);
        peers.push(peer);
        switch.add_port(open, &PortOptions { bfd, ..member.clone() }).unwrap();
    }
    pass(&switch, &time, 10);
    let active = || switch.bonds()[0].active.clone();
    assert_eq!(active().as_deref(), Some("y"));
    switch.set_port("x", &member).unwrap();
    switch.remove_port("y").unwrap();
    pass(&switch, &time, 1);
    assert_eq!(active().as_deref(), Some("x"));
}

#[test]
fn a_port_is_looked_at_when_something_is_due_there_and_not_on_others() {
    let time = Time::stopped();
    let switch = Switch::start_with(&SwitchConfig::default(), time.clone()).unwrap();
    let mut peers = Vec::new();
    for (name, interval) in [("quick", 100), ("slow", 10_000)] {
        let (open, peer) = port(name, 1);
        peers.push(peer);
        let cfm = Some(Cfm { interval, ..Cfm::new(1) });
        switch.add_port(open, &PortOptions { cfm, ..PortOptions::default() }).unwrap();
    }
    let looks = |at: usize| peers[at].mac_looks.swap(0, SeqCst);
    let _ = (looks(0), looks(1));
    pass(&switch, &time, 90);
    // In nine seconds: 90 messages, and one look after three and a half.
    assert!(looks(0) >= 90);
    assert_eq!(looks(1), 0);
    // What an operator says is heeded at once all the same.
    let changes = switch.watch_changes();
    let _ = switch.heed_links();
    assert!(switch.override_cfm(Some("slow"), Some(true)));
    switch.catch_up();
    assert!(switch.watch_changes() > changes && switch.heed_links());
}
