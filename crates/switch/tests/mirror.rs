//! Mirrors of a running switch.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

mod common;

use std::sync::Arc;

use common::{BROADCAST, Peer, frame, mac, port, wait_until};
use ethdev::DropReason::MirrorPort;
use switch::{BridgeOptions, Mirror, PortOptions, Switch, SwitchConfig};

fn start(workers: usize) -> Switch {
    Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap()
}

fn add(switch: &Switch, name: &str, bridge: Option<&str>) -> Arc<Peer> {
    let (open, peer) = port(name, 1);
    let bridge = bridge.map(str::to_owned);
    switch.add_port(open, &PortOptions { bridge, ..PortOptions::default() }).unwrap();
    peer
}

/// What comes in on `src` goes to `to`.
fn mirror(src: &str, to: &str) -> Mirror {
    let select_src_port = [src.to_owned()].into();
    Mirror { select_src_port, output_port: Some(to.to_owned()), ..Mirror::default() }
}

#[test]
fn mirrors_come_and_go_with_their_ports() {
    for workers in [1, 3] {
        let switch = start(workers);
        switch.set_mirror("m", &mirror("a", "w")).unwrap();
        let [a, b] = ["a", "b"].map(|name| add(&switch, name, None));
        assert!(!switch.mirrors()[0].is_active);
        // From its first moment on the port gets copies and nothing else.
        let watcher = add(&switch, "w", None);
        assert!(switch.mirrors()[0].is_active);
        let [first, second] = [1, 2].map(|number| frame(BROADCAST, mac(1), number));
        b.send(0, [frame(BROADCAST, mac(2), 9)]);
        a.receive(1);
        a.send(0, [first.clone()]);
        assert_eq!((watcher.receive(1), b.receive(1)), (vec![first.clone()], vec![first]));
        watcher.send(0, [frame(BROADCAST, mac(3), 9)]);
        let dropped = || switch.port("w").unwrap().stats.rx_total().dropped_for(MirrorPort);
        wait_until("it is dropped", || dropped() == 1);
        let report = switch.mirrors().remove(0);
        assert_eq!((report.packets, report.bytes), (1, 60));
        // Another port has the number of one that was selected.
        switch.remove_port("a").unwrap();
        let c = add(&switch, "c", None);
        c.send(0, [second.clone()]);
        b.receive(1);
        assert_eq!(watcher.arrived(), 0);
        // The same mirror otherwise; it goes on counting.
        switch.set_mirror("m", &mirror("c", "w")).unwrap();
        c.send(0, [second.clone()]);
        assert_eq!(watcher.receive(1), std::slice::from_ref(&second));
        wait_until("it is counted", || switch.mirrors()[0].packets == 2);
        assert!(switch.remove_mirror("m") && !switch.remove_mirror("m"));
        b.receive(1);
        watcher.send(0, [frame(BROADCAST, mac(3), 9)]);
        assert_eq!((b.receive(1).len(), c.receive(1).len()), (1, 1));
    }
}

#[test]
fn a_mirror_is_about_the_ports_of_its_bridge() {
    let switch = start(2);
    switch.add_bridge("green", &BridgeOptions::default()).unwrap();
    let other = add(&switch, "a", None);
    let [b, c, watcher] = ["b", "c", "w"].map(|name| add(&switch, name, Some("green")));
    let all = Mirror {
        bridge: Some("green".to_owned()),
        select_all: true,
        output_port: Some("w".to_owned()),
        ..Mirror::default()
    };
    switch.set_mirror("m", &all).unwrap();
    other.send(0, [frame(BROADCAST, mac(1), 1)]);
    b.send(0, [frame(BROADCAST, mac(2), 2)]);
    assert_eq!((c.receive(1).len(), watcher.receive(1).len()), (1, 1));
    // Moved away, the watcher is a port like any other.
    switch.set_port("w", &PortOptions::default()).unwrap();
    assert!(!switch.mirrors()[0].is_active);
    watcher.send(0, [frame(BROADCAST, mac(3), 3)]);
    other.receive(1);
    let bridge = Some("green".to_owned());
    switch.set_port("w", &PortOptions { bridge, ..PortOptions::default() }).unwrap();
    c.send(0, [frame(BROADCAST, mac(4), 4)]);
    assert_eq!((b.receive(1).len(), watcher.receive(1).len()), (1, 1));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let switch = start(1);
    let error =
        |name: &str, mirror: &Mirror| switch.set_mirror(name, mirror).unwrap_err().to_string();
    assert_eq!(error("m", &Mirror::default()), "mirror 'm': give output-port or output-vlan");
    assert!(error("m m", &mirror("a", "w")).contains("a name like a port's"));
    for number in 0..switch::MAX_MIRRORS {
        switch.set_mirror(&format!("m{number}"), &mirror("a", "w")).unwrap();
    }
    assert!(error("more", &mirror("a", "w")).contains("32 mirrors already"));
}
