//! Several bridges in one switch.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{BROADCAST, Peer, frame, mac, number, port, wait_until};
use eal::time::Time;
use packet::MacAddr;
use switch::{BridgeOptions, PortOptions, PortVlan, Switch, SwitchConfig};

fn start(workers: usize) -> Switch {
    let switch = Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap();
    switch.add_bridge("red", &BridgeOptions::default()).unwrap();
    switch
}

fn on(bridge: &str) -> PortOptions {
    PortOptions { bridge: Some(bridge.to_owned()), ..PortOptions::default() }
}

fn add(switch: &Switch, name: &str, options: &PortOptions) -> Arc<Peer> {
    let (open, peer) = port(name, 1);
    switch.add_port(open, options).unwrap();
    peer
}

/// Bridge, port and number of VLAN of each entry of the forwarding databases.
fn known(switch: &Switch) -> Vec<(String, String, u16)> {
    let entries = switch.fdb().into_iter();
    entries.map(|entry| (entry.bridge, entry.port, entry.vlan)).collect()
}

fn entry(bridge: &str, port: &str, vlan: u16) -> (String, String, u16) {
    (bridge.to_owned(), port.to_owned(), vlan)
}

/// The numbers of the frames that come when `count` have, and those that follow.
fn numbers(peer: &Peer, count: usize) -> Vec<u32> {
    peer.receive(count).iter().map(|frame| number(frame)).collect()
}

#[test]
fn bridges_know_nothing_of_each_other() {
    for workers in [1, 3] {
        let switch = start(workers);
        let ports = [("a", "default"), ("b", "default"), ("c", "red"), ("d", "red")];
        let [a, b, c, d] = ports.map(|(name, bridge)| add(&switch, name, &on(bridge)));
        // The same station in both.
        for (from, to, number) in [(&a, &b, 1), (&c, &d, 2)] {
            from.send(0, [frame(BROADCAST, mac(1), number)]);
            assert_eq!(numbers(to, 1), [number]);
        }
        wait_until("both are learnt", || switch.fdb().len() == 2);
        assert_eq!(known(&switch), [entry("default", "a", 0), entry("red", "c", 0)]);
        // Each answers to the one of its bridge.
        for (from, to, number) in [(&b, &a, 3), (&d, &c, 4)] {
            from.send(0, [frame(mac(1), mac(2), number)]);
            assert_eq!(numbers(to, 1), [number]);
        }
        assert_eq!([&a, &b, &c, &d].map(|peer| peer.arrived()), [0; 4]);
        let report = switch.bridges();
        let names: Vec<_> = report.iter().map(|b| (b.name.as_str(), b.ports.join(" "))).collect();
        assert_eq!(names, [("default", "a b".to_owned()), ("red", "c d".to_owned())]);
        wait_until("all are learnt", || switch.bridges().iter().all(|b| b.fdb.entries == 2));
    }
}

#[test]
fn tags_count_in_the_bridge_where_a_port_has_vlans() {
    let switch = start(2);
    let access = PortVlan { tag: Some(5), ..PortVlan::default() };
    let [_a, b] = ["a", "b"].map(|name| add(&switch, name, &on("red")));
    let [c, d] = ["c", "d"].map(|name| add(&switch, name, &PortOptions::default()));
    b.send(0, [frame(BROADCAST, mac(1), 1)]);
    wait_until("it is learnt", || known(&switch) == [entry("red", "b", 0)]);
    switch.set_port("a", &PortOptions { vlan: access, ..on("red") }).unwrap();
    assert_eq!(known(&switch), [], "it is in another VLAN now");
    let plain = frame(BROADCAST, mac(2), 2);
    let tagged = [&plain[..12], &[0x81, 0, 0, 7], &plain[12..]].concat();
    c.send(0, [tagged.clone()]);
    assert_eq!(d.receive(1), [tagged]);
    wait_until("its tag does not count", || known(&switch) == [entry("default", "c", 0)]);
}

#[test]
fn a_port_moves_while_frames_flow_and_leaves_its_addresses_behind() {
    for workers in [1, 3] {
        let switch = start(workers);
        let [a, b, c] = [("a", "default"), ("b", "default"), ("c", "red")]
            .map(|(name, bridge)| add(&switch, name, &on(bridge)));
        a.send(0, [frame(BROADCAST, mac(1), 1)]);
        assert_eq!(numbers(&b, 1), [1]);
        switch.fdb_add_static(mac(9), 0, "a").unwrap();
        wait_until("it is learnt", || switch.fdb().len() == 2);
        for round in 0..10 {
            let (to, peer, old) = match round % 2 {
                0 => ("red", &c, "default"),
                _ => ("default", &b, "red"),
            };
            switch.set_port("a", &on(to)).unwrap();
            assert_eq!(known(&switch).iter().filter(|entry| entry.1 == "a").count(), 0);
            assert_eq!(switch.port("a").unwrap().bridge, to);
            a.send(0, [frame(BROADCAST, mac(1), 10 + round)]);
            assert_eq!(numbers(peer, 1), [10 + round]);
            peer.send(0, [frame(mac(1), mac(2), 50 + round)]);
            assert_eq!(numbers(&a, 1), [50 + round]);
            let bridges = switch.bridges();
            let of_old = bridges.iter().find(|bridge| bridge.name == old).unwrap();
            assert!(!of_old.ports.contains(&"a".to_owned()));
        }
        assert_eq!([&a, &b, &c].map(|peer| peer.arrived()), [0; 3]);
    }
}

/// Every frame of two ports that are not touched comes, in order, whatever happens to another one.
#[test]
fn moving_a_port_costs_others_no_frame() {
    const FRAMES: u32 = 20_000;
    let switch = start(2);
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, &on("red")));
    let _other = add(&switch, "other", &PortOptions::default());
    b.send(0, [frame(BROADCAST, mac(2), 0)]);
    a.receive(1);
    wait_until("it is learnt", || switch.fdb().len() == 1);
    let mut seen = 0;
    for first in (0..FRAMES).step_by(100) {
        a.send(0, (first..first + 100).map(|number| frame(mac(2), mac(1), number)));
        let bridge = if first % 200 == 0 { "red" } else { "default" };
        switch.set_port("other", &on(bridge)).unwrap();
    }
    while seen < FRAMES {
        for number in numbers(&b, 1) {
            assert_eq!(number, seen);
            seen += 1;
        }
    }
}

#[test]
fn settings_of_a_bridge_change_while_it_is_in_use() {
    let time = Time::stopped();
    // Before there is a worker, which would learn with the time that it looked at last.
    time.warp(Duration::from_secs(1000));
    let switch = Switch::start_with(&SwitchConfig::default(), time.clone()).unwrap();
    let options = BridgeOptions { fdb_limit: 4, ..BridgeOptions::default() };
    switch.add_bridge("red", &options).unwrap();
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, &on("red")));
    switch.fdb_add_static(mac(100), 0, "b").unwrap();
    let send = |count: u16| a.send(0, (1..=count).map(|i| frame(BROADCAST, mac(i), u32::from(i))));
    // A worker that finds the database being changed learns from later frames.
    let send_until = |is_so: &dyn Fn() -> bool| {
        let sent = (0..1000).take_while(|_| !is_so()).inspect(|_| {
            send(8);
            b.receive(8);
        });
        assert!(sent.count() < 1000, "nothing is learnt");
    };
    let report = || switch.bridges().remove(1).fdb;
    send_until(&|| report().learned >= 6);
    assert_eq!((report().entries, report().statics), (4, 1));
    // A larger one has what was there.
    let options = BridgeOptions { fdb_limit: 50, ageing: Duration::from_secs(9), ..options };
    switch.set_bridge("red", &options).unwrap();
    assert_eq!((report().entries, report().statics, report().limit), (4, 1, 50));
    send_until(&|| report().entries == 9);
    // A smaller one keeps what is static, and refuses to give that up.
    switch.fdb_add_static(mac(101), 0, "b").unwrap();
    let small = BridgeOptions { fdb_limit: 1, ..options.clone() };
    let error = switch.set_bridge("red", &small).unwrap_err().to_string();
    assert!(error.contains("all 1 entries are static"), "{error}");
    assert_eq!(report().limit, 50);
    switch.set_bridge("red", &BridgeOptions { fdb_limit: 3, ..options.clone() }).unwrap();
    assert_eq!((report().entries, report().statics), (3, 2));
    // Time goes on in it as in the others.
    time.warp(Duration::from_secs(30));
    wait_until("what was learnt has expired", || report().entries == 2);
    // Reserved groups.
    let lldp = frame(MacAddr([1, 0x80, 0xC2, 0, 0, 0xE]), mac(1), 77);
    switch.set_bridge("red", &BridgeOptions { group_fwd_mask: 1 << 14, ..options }).unwrap();
    a.send(0, [lldp.clone()]);
    assert_eq!(b.receive(1), [lldp]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let switch = start(1);
    let _a = add(&switch, "a", &on("red"));
    let text = |result: Result<(), switch::Error>| result.unwrap_err().to_string();
    let default = BridgeOptions::default();
    let (open, _b) = port("b", 1);
    for (error, expected) in [
        (text(switch.add_bridge("red", &default)), "bridge 'red' exists already"),
        (text(switch.add_bridge("default", &default)), "'default' exists already"),
        (text(switch.add_bridge("a b", &default)), "bridge name 'a b': expected 1 to 32"),
        (
            text(switch.add_bridge("x", &BridgeOptions { fdb_limit: 0, ..default.clone() })),
            "limit is 0",
        ),
        (text(switch.remove_bridge("red")), "bridge 'red' has ports: a; remove them first"),
        (text(switch.remove_bridge("default")), "is always there"),
        (text(switch.remove_bridge("blue")), "no bridge 'blue'; there are: default, red"),
        (text(switch.set_bridge("blue", &default)), "no bridge 'blue'"),
        (text(switch.set_port("a", &on("blue"))), "no bridge 'blue'"),
        (text(switch.add_port(open, &on("blue"))), "no bridge 'blue'"),
        (text(switch.fdb_delete("blue", mac(1), 0)), "no bridge 'blue'"),
        (text(switch.fdb_flush_bridge("blue").map(drop)), "no bridge 'blue'"),
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(switch.port("a").unwrap().bridge, "red");
    for name in 2..switch::MAX_BRIDGES {
        switch
            .add_bridge(&format!("b{name}"), &BridgeOptions { fdb_limit: 1, ..default.clone() })
            .unwrap();
    }
    assert!(text(switch.add_bridge("x", &default)).contains("256 bridges already"));
    switch.remove_bridge("b7").unwrap();
    switch.add_bridge("x", &default).unwrap();
    switch.remove_port("a").unwrap();
    switch.remove_bridge("red").unwrap();
}
