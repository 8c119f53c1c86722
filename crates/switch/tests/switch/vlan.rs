//! VLAN settings of a running switch.

use std::sync::Arc;

use crate::common::{BROADCAST, Peer, frame, mac, port, wait_until};
use ethdev::DropReason;
use packet::MacAddr;
use switch::{BridgeOptions, DEFAULT_BRIDGE, PortOptions, PortVlan, Switch, SwitchConfig};

fn start(workers: usize) -> Switch {
    Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap()
}

fn in_vlan(tag: u16) -> PortOptions {
    let vlan = PortVlan { tag: Some(tag), ..PortVlan::default() };
    PortOptions { vlan, ..PortOptions::default() }
}

fn add(switch: &Switch, name: &str, options: &PortOptions) -> Arc<Peer> {
    let (open, peer) = port(name, 1);
    switch.add_port(open, options).unwrap();
    peer
}

fn tagged(vlan: u8, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat()
}

#[test]
fn ports_change_their_vlans_while_the_switch_runs() {
    for workers in [1, 3] {
        let switch = start(workers);
        let trunk = add(&switch, "trunk", &PortOptions::default());
        let [a, b] = ["a", "b"].map(|name| add(&switch, name, &PortOptions::default()));
        a.send(0, [frame(BROADCAST, mac(1), 1)]);
        assert_eq!([&trunk, &b].map(|peer| peer.receive(1).len()), [1, 1]);
        wait_until("it is learnt", || switch.fdb().len() == 1);
        // The first port with a VLAN: what was learnt without is forgotten.
        switch.set_port("a", &in_vlan(5)).unwrap();
        assert_eq!(switch.fdb(), []);
        switch.set_port("b", &in_vlan(6)).unwrap();
        let report = switch.port("a").unwrap();
        assert_eq!((report.vlan.tag, report.fdb_entries), (Some(5), 0));
        let bytes = frame(BROADCAST, mac(1), 2);
        a.send(0, [bytes.clone()]);
        assert_eq!(trunk.receive(1), [tagged(5, &bytes)]);
        b.send(0, [frame(BROADCAST, mac(1), 3)]);
        assert_eq!(trunk.receive(1), [tagged(6, &frame(BROADCAST, mac(1), 3))]);
        wait_until("both are learnt", || switch.fdb().len() == 2);
        let vlans: Vec<_> = switch.fdb().iter().map(|entry| (entry.vlan, entry.mac)).collect();
        assert_eq!(vlans, [(5, mac(1)), (6, mac(1))]);
        // Another VLAN: only its own addresses are forgotten.
        switch.set_port("b", &in_vlan(5)).unwrap();
        assert_eq!(switch.fdb().len(), 1);
        b.send(0, [frame(mac(1), mac(2), 4)]);
        assert_eq!(a.receive(1), [frame(mac(1), mac(2), 4)]);
        assert_eq!((trunk.arrived(), b.arrived()), (0, 0));
        // The last port with a VLAN goes: tags are payload again.
        switch.remove_port("a").unwrap();
        switch.set_port("b", &PortOptions::default()).unwrap();
        assert_eq!(switch.fdb(), []);
        trunk.send(0, [tagged(7, &bytes)]);
        assert_eq!(b.receive(1), [tagged(7, &bytes)]);
        wait_until("it is learnt in no VLAN", || switch.fdb().len() == 1);
        assert_eq!(switch.fdb()[0].vlan, 0);
    }
}

#[test]
fn a_bridge_that_is_told_to_looks_at_tags_without_ports_that_have_vlans() {
    let switch = start(2);
    let [a, b, c] = ["a", "b", "c"].map(|name| add(&switch, name, &PortOptions::default()));
    let aware = BridgeOptions { vlan_aware: true, ..BridgeOptions::default() };
    a.send(0, [tagged(7, &frame(BROADCAST, mac(1), 1))]);
    assert_eq!([&b, &c].map(|peer| peer.receive(1).len()), [1, 1]);
    wait_until("it is learnt", || switch.fdb().len() == 1);
    // What was learnt without is forgotten.
    switch.set_bridge(DEFAULT_BRIDGE, &aware).unwrap();
    assert_eq!(switch.fdb(), []);
    a.send(0, [tagged(7, &frame(BROADCAST, mac(1), 2))]);
    assert_eq!([&b, &c].map(|peer| peer.receive(1).len()), [1, 1]);
    wait_until("it is learnt", || switch.fdb().len() == 1);
    assert_eq!((switch.fdb()[0].vlan, switch.fdb()[0].mac), (7, mac(1)));
    // In its VLAN it is known, in another one it is not.
    b.send(0, [tagged(7, &frame(mac(1), mac(2), 3))]);
    assert_eq!(a.receive(1), [tagged(7, &frame(mac(1), mac(2), 3))]);
    assert_eq!(c.arrived(), 0);
    b.send(0, [tagged(8, &frame(mac(1), mac(2), 4))]);
    let flooded = tagged(8, &frame(mac(1), mac(2), 4));
    assert_eq!([&a, &c].map(|peer| peer.receive(1)), [[flooded.clone()], [flooded]]);
    // Settings of a port that come and go change nothing for the others.
    wait_until("all are learnt", || switch.fdb().len() == 3);
    let d = add(&switch, "d", &in_vlan(9));
    switch.remove_port("d").unwrap();
    assert_eq!((switch.fdb().len(), d.arrived()), (3, 0));
    switch.set_bridge(DEFAULT_BRIDGE, &BridgeOptions::default()).unwrap();
    assert_eq!(switch.fdb(), []);
    a.send(0, [tagged(7, &frame(BROADCAST, mac(1), 5))]);
    wait_until("tags are payload again", || switch.fdb().len() == 1 && switch.fdb()[0].vlan == 0);
    // So is a bridge that begins with it.
    switch.add_bridge("red", &aware).unwrap();
    let red = PortOptions { bridge: Some("red".into()), ..PortOptions::default() };
    let [e, f] = ["e", "f"].map(|name| add(&switch, name, &red));
    e.send(0, [tagged(6, &frame(BROADCAST, mac(6), 6))]);
    assert_eq!(f.receive(1).len(), 1);
    let learnt = || switch.fdb().iter().any(|entry| (entry.vlan, entry.mac) == (6, mac(6)));
    wait_until("it is learnt in its VLAN", learnt);
}

#[test]
fn a_port_whose_number_is_used_again_has_none_of_the_settings() {
    let switch = start(2);
    let first = add(&switch, "first", &in_vlan(5));
    let other = add(&switch, "other", &in_vlan(5));
    switch.remove_port("first").unwrap();
    let second = add(&switch, "second", &PortOptions::default());
    other.send(0, [frame(BROADCAST, mac(1), 1)]);
    assert_eq!(second.receive(1), [tagged(5, &frame(BROADCAST, mac(1), 1))]);
    assert_eq!(first.arrived(), 0);
}

#[test]
fn settings_that_contradict_each_other_change_nothing() {
    let switch = start(1);
    let peer = add(&switch, "a", &in_vlan(5));
    let before = switch.port("a").unwrap();
    let error = switch.set_port("a", &in_vlan(4095)).unwrap_err().to_string();
    assert_eq!(error, "port 'a': tag 4095: expected a VLAN from 0 to 4094");
    assert_eq!(switch.port("a").unwrap(), before);
    let (open, late) = port("b", 1);
    assert!(switch.add_port(open, &in_vlan(4095)).is_err());
    peer.send(0, [tagged(5, &frame(BROADCAST, mac(1), 1))]);
    let dropped = || switch.port("a").unwrap().stats.rx_total().dropped_for(DropReason::WrongVlan);
    wait_until("it is dropped", || dropped() == 1);
    assert_eq!(late.arrived(), 0);
}

#[test]
fn reserved_groups_are_forwarded_where_the_mask_says() {
    let config = SwitchConfig { group_fwd_mask: 1 << 0xE, ..SwitchConfig::default() };
    let switch = Switch::start(&config).unwrap();
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, &PortOptions::default()));
    let group = |last| MacAddr([0x01, 0x80, 0xC2, 0, 0, last]);
    let frames = [0, 2, 0xE, 0xF].map(|last| frame(group(last), mac(1), u32::from(last)));
    a.send(0, frames.clone());
    assert_eq!(b.receive(1), [frames[2].clone()]);
    let stats = || switch.port("a").unwrap().stats.rx_total();
    wait_until("the others are dropped", || {
        stats().dropped_for(DropReason::ReservedMulticast) == 3
    });
}
