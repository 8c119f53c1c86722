//! Patch ports of a running switch.

use std::sync::Arc;

use crate::common::{BROADCAST, Peer, frame, mac, number, port, wait_until};
use switch::{BridgeOptions, PortOptions, PortVlan, Switch, SwitchConfig};

fn on(bridge: &str) -> PortOptions {
    PortOptions { bridge: Some(bridge.to_owned()), ..PortOptions::default() }
}

/// Bridges `default`, `red` and `blue`, with a port each.
fn start(workers: usize) -> (Switch, [Arc<Peer>; 3]) {
    let switch = Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap();
    let peers = [("a", "default"), ("b", "red"), ("c", "blue")].map(|(name, bridge)| {
        if bridge != "default" {
            switch.add_bridge(bridge, &BridgeOptions::default()).unwrap();
        }
        let (open, peer) = port(name, 1);
        switch.add_port(open, &on(bridge)).unwrap();
        peer
    });
    (switch, peers)
}

/// What comes first at a port, by its number.
fn first(peer: &Peer) -> u32 {
    number(&peer.receive(1)[0])
}

fn is_up(switch: &Switch, name: &str) -> bool {
    switch.port(name).unwrap().link.up
}

#[test]
fn a_patch_is_there_when_both_ends_are_and_gone_with_one() {
    for workers in [1, 3] {
        let (switch, [a, b, c]) = start(workers);
        switch.open_port("ab", "patch:ba", &PortOptions::default()).unwrap();
        assert!(!is_up(&switch, "ab"));
        switch.open_port("ba", "patch:ab", &on("red")).unwrap();
        assert!(is_up(&switch, "ab") && is_up(&switch, "ba"));
        a.send(0, [frame(BROADCAST, mac(1), 1)]);
        assert_eq!(first(&b), 1);
        b.send(0, [frame(mac(1), mac(2), 2)]);
        assert_eq!(first(&a), 2);
        wait_until("all is learnt", || switch.fdb().len() == 4);
        let port = switch.port("ab").unwrap();
        assert_eq!((port.driver, port.device.as_str(), port.fdb_entries), ("patch", "patch:ba", 1));
        assert_eq!(port.details, [("peer".to_owned(), "ba".to_owned())]);
        let stats = |name: &str| {
            let stats = switch.port(name).unwrap().stats;
            (stats.rx_total().packets, stats.tx_total().packets)
        };
        wait_until("both are counted", || (stats("ab"), stats("ba")) == ((1, 1), (1, 1)));
        // One end goes: what was learnt through the other is forgotten there.
        switch.remove_port("ba").unwrap();
        assert!(!is_up(&switch, "ab"));
        assert_eq!(switch.port("ab").unwrap().fdb_entries, 0);
        a.send(0, [frame(mac(2), mac(1), 3)]);
        // It comes again, in another bridge and with another number.
        let (open, _other) = crate::common::port("other", 1);
        switch.add_port(open, &on("red")).unwrap();
        switch.open_port("ba", "patch:ab", &on("blue")).unwrap();
        a.send(0, [frame(BROADCAST, mac(1), 4)]);
        // The other one may come before it, or with it.
        while !c.receive(1).iter().any(|frame| number(frame) == 4) {}
        assert_eq!((b.arrived(), switch.port("ab").unwrap().link.changes), (0, 3));
    }
}

#[test]
fn an_end_moves_and_goes_out_of_service() {
    let (switch, [a, b, c]) = start(2);
    switch.open_port("x", "patch:y", &PortOptions::default()).unwrap();
    switch.open_port("y", "patch:x", &on("red")).unwrap();
    switch.fdb_add_static(mac(9), 0, "y").unwrap();
    for (round, (bridge, peer)) in (0..).zip([("blue", &c), ("red", &b), ("blue", &c)]) {
        switch.set_port("y", &on(bridge)).unwrap();
        a.send(0, [frame(BROADCAST, mac(1), round)]);
        assert_eq!(first(peer), round);
        peer.send(0, [frame(mac(1), mac(2), 10 + round)]);
        assert_eq!(first(&a), 10 + round);
    }
    assert!(switch.fdb().iter().all(|entry| !entry.is_static));
    switch.set_port("x", &PortOptions { disabled: true, ..PortOptions::default() }).unwrap();
    assert!(!is_up(&switch, "x") && !is_up(&switch, "y"));
    c.send(0, [frame(mac(1), mac(2), 20)]);
    let dropped = || switch.port("c").unwrap().stats.rx_total().dropped();
    wait_until("nobody is left to send it to", || dropped() == 1);
    // Both in one bridge lead back into it.
    switch.set_port("x", &on("blue")).unwrap();
    assert!(is_up(&switch, "x"));
    switch.set_port("y", &on("red")).unwrap();
    assert!(is_up(&switch, "x"));
    c.send(0, [frame(BROADCAST, mac(2), 21)]);
    assert_eq!(first(&b), 21);
    assert_eq!([&a, &b, &c].map(|peer| peer.arrived()), [0; 3]);
}

#[test]
fn vlan_settings_of_a_patch_port_are_those_of_any_port() {
    let (switch, [a, b, _c]) = start(1);
    let access = |tag| PortVlan { tag: Some(tag), ..PortVlan::default() };
    let vlan = |bridge, tag| PortOptions { vlan: access(tag), ..on(bridge) };
    switch.open_port("x", "patch:y", &vlan("default", 5)).unwrap();
    switch.open_port("y", "patch:x", &vlan("red", 7)).unwrap();
    let plain = frame(BROADCAST, mac(1), 0);
    let tagged = |vlan| [&plain[..12], &[0x81, 0, 0, vlan], &plain[12..]].concat();
    a.send(0, [tagged(6), tagged(5)]);
    assert_eq!(b.receive(1), [tagged(7)]);
    switch.set_port("y", &on("red")).unwrap();
    a.send(0, [tagged(5)]);
    assert_eq!(b.receive(1), [plain]);
}

#[test]
fn a_loop_of_patch_ports_ends_and_is_counted() {
    let (switch, [a, b, _c]) = start(2);
    for (name, peer) in [("x1", "y1"), ("x2", "y2")] {
        switch.open_port(name, &format!("patch:{peer}"), &PortOptions::default()).unwrap();
        switch.open_port(peer, &format!("patch:{name}"), &on("red")).unwrap();
    }
    a.send(0, [frame(BROADCAST, mac(1), 1)]);
    b.receive(16);
    let loops = || {
        let ports = switch.ports().into_iter();
        let drops = ports.map(|port| port.stats.tx_total());
        drops.map(|stats| stats.dropped_for(ethdev::DropReason::PatchLoop)).sum::<u64>()
    };
    wait_until("both ways have ended", || loops() == 2);
    assert_eq!(switch.shutdown().panics, []);
}

#[test]
fn what_a_patch_port_cannot_have_is_refused() {
    let (switch, _peers) = start(1);
    let mtu = PortOptions { mtu: Some(9000), ..PortOptions::default() };
    let error = switch.open_port("x", "patch:y", &mtu).unwrap_err().to_string();
    assert_eq!(error, "port 'x': patch ports cannot change their MTU");
    switch.open_port("x", "patch:x", &PortOptions::default()).unwrap();
    assert!(!is_up(&switch, "x"), "it leads nowhere");
    let error = switch.open_port("x", "patch:y", &PortOptions::default()).unwrap_err();
    assert!(error.to_string().contains("exists already"));
}

#[test]
fn a_patch_leads_on_for_workers_that_come_later() {
    let (switch, [a, b, _c]) = start(1);
    switch.open_port("ab", "patch:ba", &PortOptions::default()).unwrap();
    switch.open_port("ba", "patch:ab", &on("red")).unwrap();
    for (round, workers) in (0..).zip([3, 2, 4, 1, 2]) {
        switch.set_workers(&[], workers).unwrap();
        for worker in 0..workers {
            let polled = PortOptions { workers: vec![worker], ..PortOptions::default() };
            switch.set_port("a", &polled).unwrap();
            a.send(0, [frame(BROADCAST, mac(1), round)]);
            assert_eq!(first(&b), round);
        }
        switch.set_port("a", &PortOptions::default()).unwrap();
    }
    let packets = || switch.port("ab").unwrap().stats.tx_total().packets;
    wait_until("all are counted", || packets() == 12);
}
