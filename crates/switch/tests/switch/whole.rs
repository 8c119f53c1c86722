//! The whole switch, between ports whose other ends are the test.

mod live;
mod sleep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::common::{BROADCAST, PATIENCE, Peer, frame, mac, number, port, wait_until};
use eal::time::Time;
use ethdev::DropReason;
use packet::MacAddr;
use switch::{DEFAULT_BRIDGE, Error, PortOptions, Switch, SwitchConfig};

fn start(workers: usize) -> Switch {
    Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap()
}

fn add(switch: &Switch, name: &str, queues: usize) -> Arc<Peer> {
    let (open, peer) = port(name, queues);
    switch.add_port(open, &PortOptions::default()).unwrap();
    peer
}

/// Has each station learnt: station `i` behind the `i`th peer.
fn announce(switch: &Switch, peers: &[Arc<Peer>]) {
    for (index, peer) in (0..).zip(peers) {
        peer.send(0, [frame(BROADCAST, mac(index), 0)]);
        for other in peers.iter().filter(|other| !Arc::ptr_eq(other, peer)) {
            other.receive(1);
        }
    }
    wait_until("all stations are learnt", || switch.fdb().len() == peers.len());
}

#[test]
fn stations_find_each_other() {
    for workers in [1, 3] {
        let switch = start(workers);
        let peers: Vec<_> = ["a", "b", "c"].iter().map(|name| add(&switch, name, 1)).collect();
        peers[0].send(0, [frame(BROADCAST, mac(0), 1)]);
        assert_eq!(number(&peers[1].receive(1)[0]), 1);
        assert_eq!(number(&peers[2].receive(1)[0]), 1);
        peers[1].send(0, [frame(mac(0), mac(1), 2)]);
        assert_eq!(peers[0].receive(1), [frame(mac(0), mac(1), 2)]);
        peers[0].send(0, [frame(mac(1), mac(0), 3)]);
        assert_eq!(number(&peers[1].receive(1)[0]), 3);
        assert_eq!(peers[2].arrived(), 0);

        let fdb = switch.fdb();
        let entries: Vec<_> = fdb.iter().map(|e| (e.mac, e.port.as_str(), e.is_static)).collect();
        assert_eq!(entries, [(mac(0), "a", false), (mac(1), "b", false)]);
        // A frame is counted just after it is out.
        let sent = || switch.port("a").unwrap().stats.tx_total().packets;
        wait_until("the frame to a is counted", || sent() == 1);
        let report = switch.port("a").unwrap();
        assert_eq!(report.stats.rx_total().packets, 2);
        assert_eq!((report.driver, report.mtu, report.fdb_entries), ("test", 1500, 1));
        assert_eq!(switch.shutdown().panics, []);
        assert!(peers.iter().all(|peer| peer.closed.load(SeqCst)));
    }
}

#[test]
fn what_is_behind_a_link_that_goes_down_is_forgotten_at_once() {
    for workers in [1, 3] {
        let switch = start(workers);
        let peers: Vec<_> = ["a", "b", "c"].iter().map(|name| add(&switch, name, 1)).collect();
        announce(&switch, &peers);
        switch.fdb_add_static(mac(9), 0, "a").unwrap();
        let learnt = |port: &str| switch.port(port).unwrap().fdb_entries;
        peers[0].set_link(false);
        wait_until("the port's address is forgotten", || learnt("a") == 0);
        assert_eq!((learnt("b"), learnt("c"), switch.fdb().len()), (1, 1, 3));
        // The station is heard again from elsewhere: nothing holds it back.
        peers[1].send(0, [frame(mac(2), mac(0), 1)]);
        assert_eq!(number(&peers[2].receive(1)[0]), 1);
        peers[2].send(0, [frame(mac(0), mac(2), 2)]);
        assert_eq!(number(&peers[1].receive(1)[0]), 2);
        wait_until("both are learnt", || learnt("b") == 2);
        peers[1].flap_link();
        wait_until("the other port's addresses are forgotten", || learnt("b") == 0);
    }
}

#[test]
fn receive_queues_are_spread_and_can_be_pinned() {
    let switch = start(3);
    let (_a, _b) = (add(&switch, "a", 4), add(&switch, "b", 2));
    assert_eq!(switch.port("a").unwrap().rx_workers, [0, 1, 2, 0]);
    assert_eq!(switch.port("b").unwrap().rx_workers, [1, 2]);
    let (open, _c) = port("c", 3);
    let options = PortOptions { workers: vec![2, 1], ..PortOptions::default() };
    switch.add_port(open, &options).unwrap();
    assert_eq!(switch.port("c").unwrap().rx_workers, [2, 1, 2]);
    let queues = |worker: usize| {
        let queues = &switch.workers()[worker].queues;
        queues.iter().map(|(port, queue)| format!("{port}{queue}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!([queues(0), queues(1), queues(2)], ["a0 a3", "a1 b0 c1", "a2 b1 c0 c2"]);
    let (open, _d) = port("d", 1);
    let options = PortOptions { workers: vec![3], ..PortOptions::default() };
    let error = switch.add_port(open, &options).unwrap_err().to_string();
    assert_eq!(error, "port 'd': there is no worker 3: the switch has 3, counted from 0");
}

#[test]
fn every_frame_is_delivered_or_counted_as_dropped() {
    // Frames that each port gets from the announcements of the two others.
    const ANNOUNCED: u64 = 2;
    let switch = start(2);
    let peers: Vec<_> = ["a", "b", "c"].iter().map(|name| add(&switch, name, 1)).collect();
    announce(&switch, &peers);
    peers[1].room.store(100, SeqCst);
    let mut sent = 0_u64;
    let mut send = |frames: Vec<Vec<u8>>| {
        sent += frames.len() as u64;
        peers[0].send(0, frames);
    };
    for round in 0..50 {
        let to = |to| move |_| frame(to, mac(0), round);
        send((0..9).map(to(mac(1))).collect());
        send((0..3).map(to(mac(2))).collect());
        send((0..2).map(to(mac(0))).collect());
        send((0..2).map(to(MacAddr([1, 0x80, 0xC2, 0, 0, 3]))).collect());
        send((0..4).map(|_| frame(mac(1), BROADCAST, round)).collect());
        send(vec![vec![0; 10]]);
        let mut long = frame(mac(2), mac(0), round);
        long.resize(1515, 0);
        send(vec![long]);
    }
    // A worker counts a burst when all of it is dealt with. Each port has announced itself.
    let packets = || switch.workers().iter().map(|worker| worker.packets).sum::<u64>();
    wait_until("all are dealt with", || packets() == 3 + sent);
    let stats: Vec<_> = switch.ports().into_iter().map(|port| port.stats).collect();
    let (rx, b, c) = (stats[0].rx_total(), stats[1].tx_total(), stats[2].tx_total());
    assert_eq!(rx.packets, 1 + sent);
    let (b_packets, c_packets) = (b.packets - ANNOUNCED, c.packets - ANNOUNCED);
    assert_eq!((b_packets, b.dropped_for(DropReason::RingFull)), (100, 350));
    assert_eq!((c_packets, c.dropped_for(DropReason::TooLong)), (150, 50));
    let dropped = [
        (DropReason::Hairpin, 100),
        (DropReason::ReservedMulticast, 100),
        (DropReason::BadSource, 200),
        (DropReason::TooShort, 50),
    ];
    for (reason, count) in dropped {
        assert_eq!(rx.dropped_for(reason), count, "{}", reason.name());
    }
    let dropped = rx.dropped() + b.dropped() + c.dropped();
    assert_eq!(sent, b_packets + c_packets + dropped);
}

#[test]
fn a_removed_port_leaves_no_addresses_and_its_number_can_be_used_again() {
    let switch = start(2);
    let mut peers = vec![add(&switch, "a", 1), add(&switch, "b", 1), add(&switch, "c", 1)];
    announce(&switch, &peers);
    switch.fdb_add_static(mac(50), 0, "b").unwrap();
    switch.remove_port("b").unwrap();
    assert!(peers[1].closed.load(SeqCst));
    assert!(switch.fdb().iter().all(|entry| entry.port != "b"));
    peers[1] = add(&switch, "new", 1);
    // What went to b is flooded now, also to the port that has its number.
    peers[0].send(0, [frame(mac(1), mac(0), 5)]);
    assert_eq!(number(&peers[1].receive(1)[0]), 5);
    assert_eq!(number(&peers[2].receive(1)[0]), 5);
    assert!(matches!(switch.remove_port("b"), Err(Error::UnknownPort { .. })));
}

#[test]
fn static_entries_are_set_listed_and_deleted() {
    let switch = start(1);
    let peers = [add(&switch, "a", 1), add(&switch, "b", 1), add(&switch, "c", 1)];
    switch.fdb_add_static(mac(1), 0, "b").unwrap();
    peers[0].send(0, [frame(mac(1), mac(0), 1)]);
    peers[1].receive(1);
    // The station shows up elsewhere, and the entry stays.
    peers[2].send(0, [frame(mac(0), mac(1), 2)]);
    peers[0].receive(1);
    peers[0].send(0, [frame(mac(1), mac(0), 3)]);
    assert_eq!(number(&peers[1].receive(1)[0]), 3);
    assert_eq!(switch.fdb_flush(None).unwrap(), 1);
    let fdb = switch.fdb();
    assert_eq!(fdb.len(), 1);
    assert_eq!((fdb[0].mac, fdb[0].port.as_str(), fdb[0].is_static), (mac(1), "b", true));
    assert_eq!(switch.fdb_report().statics, 1);
    switch.fdb_delete(DEFAULT_BRIDGE, mac(1), 0).unwrap();
    for (error, part) in [
        (
            switch.fdb_delete(DEFAULT_BRIDGE, mac(1), 0),
            "there is no entry for 52:54:00:00:00:01 in VLAN 0",
        ),
        (switch.fdb_add_static(BROADCAST, 0, "a").map(drop), "is not the address of one station"),
        (switch.fdb_add_static(mac(1), 4095, "a").map(drop), "VLAN 4095: expected 0 to 4094"),
        (
            switch.fdb_add_static(mac(1), 0, "x").map(drop),
            "there is no port 'x'; there are: a, b, c",
        ),
        (switch.fdb_flush(Some("x")).map(drop), "there is no port 'x'"),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_mtu_can_be_changed() {
    let switch = start(1);
    let (open, a) = port("a", 1);
    let options = PortOptions { mtu: Some(9000), ..PortOptions::default() };
    switch.add_port(open, &options).unwrap();
    let b = add(&switch, "b", 1);
    announce(&switch, &[Arc::clone(&a), Arc::clone(&b)]);
    let long = |to, from| {
        let mut bytes = frame(mac(to), mac(from), 1);
        bytes.resize(9014, 0);
        bytes
    };
    b.send(0, [long(0, 1)]);
    assert_eq!(a.receive(1)[0].len(), 9014);
    a.send(0, [long(1, 0), frame(mac(1), mac(0), 2)]);
    assert_eq!(b.receive(1).len(), 1);
    switch.set_mtu("b", Some(9000)).unwrap();
    a.send(0, [long(1, 0)]);
    assert_eq!(b.receive(1)[0].len(), 9014);
    let error = switch.set_mtu("b", Some(9001)).unwrap_err().to_string();
    assert_eq!(error, "port 'b': test: MTU 9001: at most 9000");
}

#[test]
fn an_mtu_that_is_a_wish_stops_no_port() {
    let config = SwitchConfig { mtu_is_wish: true, ..SwitchConfig::default() };
    let switch = Switch::start(&config).unwrap();
    let (open, _peer) = port("a", 1);
    let wish = |mtu| PortOptions { mtu: Some(mtu), ..PortOptions::default() };
    switch.add_port(open, &wish(9001)).unwrap();
    assert_eq!(switch.port("a").unwrap().mtu, 1500);
    for (mtu, has) in [(2000, 2000), (9001, 2000), (9000, 9000)] {
        switch.set_port("a", &wish(mtu)).unwrap();
        assert_eq!(switch.port("a").unwrap().mtu, has, "{mtu}");
    }
    switch.exchange_device("a", "null:").unwrap();
    assert_eq!(switch.port("a").unwrap().mtu, 9000);
    switch.open_port("b", "null:", &wish(67)).unwrap();
    assert_eq!(switch.port("b").unwrap().mtu, 1500);
}

#[test]
fn bad_ports_are_refused_by_name() {
    let switch = start(1);
    let _a = add(&switch, "a", 1);
    let refusal = |name: &str| {
        let (open, peer) = port(name, 1);
        let error = switch.add_port(open, &PortOptions::default()).unwrap_err().to_string();
        assert!(peer.closed.load(SeqCst));
        error
    };
    assert!(refusal("a").starts_with("port 'a' exists already"));
    assert!(refusal("no spaces").starts_with("port name 'no spaces': expected 1 to 32 letters"));
    let error = switch.open_port("n", "nil:", &PortOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("port 'n': ") && error.contains("'nil'"), "{error}");
    assert!(matches!(
        Switch::start(&SwitchConfig { workers: 0, ..SwitchConfig::default() }),
        Err(Error::Config { setting: "number of workers", .. })
    ));
    assert!(matches!(
        Switch::start(&SwitchConfig { cores: vec![100_000], ..SwitchConfig::default() }),
        Err(Error::Worker(_))
    ));
}

#[test]
fn a_worker_that_panics_is_reported_and_the_others_go_on() {
    let switch = start(2);
    let (open, bad) = port("bad", 1);
    let on = |worker| PortOptions { workers: vec![worker], ..PortOptions::default() };
    switch.add_port(open, &on(0)).unwrap();
    let mut peers = Vec::new();
    for name in ["a", "b"] {
        let (open, peer) = port(name, 1);
        switch.add_port(open, &on(1)).unwrap();
        peers.push(peer);
    }
    bad.panics.store(true, SeqCst);
    bad.send(0, [frame(BROADCAST, mac(9), 1)]);
    wait_until("the worker is gone", || !switch.workers()[0].alive);
    peers[0].send(0, [frame(BROADCAST, mac(1), 2)]);
    assert_eq!(number(&peers[1].receive(1)[0]), 2);
    // New ports go to the worker that is left.
    let c = add(&switch, "c", 2);
    assert_eq!(switch.port("c").unwrap().rx_workers, [1, 1]);
    peers[0].send(0, [frame(BROADCAST, mac(1), 3)]);
    assert_eq!(number(&c.receive(1)[0]), 3);
    switch.remove_port("bad").unwrap();
    let panics = switch.shutdown().panics;
    assert_eq!(panics.len(), 1);
    assert_eq!(panics[0].0, 0);
    assert!(panics[0].1.contains("on purpose"));
}

#[test]
fn addresses_age() {
    let time = Time::stopped();
    let switch = Switch::start_with(&SwitchConfig::default(), time.clone()).unwrap();
    let peers = [add(&switch, "a", 1), add(&switch, "b", 1)];
    announce(&switch, &peers);
    let age = |port: &str| switch.fdb().iter().find(|entry| entry.port == port).map(|e| e.age);
    time.warp(Duration::from_secs(100));
    wait_until("they are older", || (age("a"), age("b")) == (Some(100), Some(100)));
    // One is heard of again.
    peers[0].send(0, [frame(mac(1), mac(0), 0)]);
    peers[1].receive(1);
    // A worker sends first and learns then.
    wait_until("it is young again", || age("a") == Some(0));
    time.warp(Duration::from_secs(200));
    wait_until("one is as old as it may be", || (age("a"), age("b")) == (Some(200), Some(300)));
    time.warp(Duration::from_secs(1));
    wait_until("it is not there any more", || (age("a"), age("b")) == (Some(201), None));
    time.warp(Duration::from_secs(30));
    wait_until("its place is free", || switch.fdb_report().expired == 1);
    switch.set_ageing(Duration::from_secs(50)).unwrap();
    time.warp(Duration::from_secs(30));
    wait_until("all have expired", || switch.fdb_report().expired == 2);
    assert_eq!((switch.fdb(), switch.uptime()), (vec![], Duration::from_secs(361)));
}

/// A capture file (libpcap's format, version 2.4, microseconds, Ethernet) of `frames`.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let header: [u32; 6] = [0xA1B2_C3D4, 0x0004_0002, 0, 0, 65_535, 1];
    let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        file.extend([0, 0, len, len].iter().flat_map(|word: &u32| word.to_le_bytes()));
        file.extend(frame);
    }
    file
}

#[test]
fn capture_files_go_through_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let frames: Vec<_> = (0..500)
        .map(|n| {
            let mut bytes = frame(mac(1), mac(2), n);
            bytes.resize(60 + n as usize, 0xA5);
            bytes
        })
        .collect();
    std::fs::write(path("in"), capture(&frames)).unwrap();

    let options = PortOptions::default();
    let switch = start(1);
    switch.open_port("out", &format!("pcap:tx={}", path("out")), &options).unwrap();
    switch.open_port("null", "null:", &options).unwrap();
    switch.open_port("in", &format!("pcap:{}", path("in")), &options).unwrap();
    let sent = |port| switch.port(port).unwrap().stats.tx_total().packets;
    wait_until("all are flooded", || sent("out") == 500 && sent("null") == 500);
    wait_until("the worker has counted them", || switch.workers()[0].packets == 500);
    let worker = &switch.workers()[0];
    assert!(worker.cycles_per_packet() > 0.0 && worker.load() <= 1.0);
    assert_eq!(switch.remove_port("out").unwrap().stats.tx_total().packets, 500);

    let peer = add(&switch, "peer", 1);
    switch.open_port("again", &format!("pcap:{}", path("out")), &options).unwrap();
    assert_eq!(peer.receive(500), frames);
}

#[test]
fn a_disabled_port_is_as_if_it_were_not_there() {
    for workers in [1, 2] {
        let switch = start(workers);
        let peers: Vec<_> = ["a", "b", "c"].iter().map(|name| add(&switch, name, 1)).collect();
        announce(&switch, &peers);
        switch.fdb_add_static(mac(7), 0, "b").unwrap();
        let disabled = PortOptions { disabled: true, ..PortOptions::default() };
        switch.set_port("b", &disabled).unwrap();
        assert!(switch.port("b").unwrap().disabled);
        assert_eq!(switch.port("b").unwrap().fdb_entries, 0);
        peers[1].send(0, [frame(BROADCAST, mac(1), 1)]);
        peers[0].send(0, [frame(mac(7), mac(0), 2), frame(mac(1), mac(0), 3)]);
        // What was behind it is flooded; what always is behind it is dropped.
        assert_eq!(number(&peers[2].receive(1)[0]), 3);
        assert_eq!((peers[1].pending(), peers[1].arrived()), (1, 0));
        // It may change meanwhile, and may have been added so.
        switch.set_port("b", &PortOptions { mtu: Some(2000), ..disabled.clone() }).unwrap();
        switch.set_port("b", &disabled).unwrap();
        assert_eq!(switch.port("b").unwrap().mtu, 1500);
        let (open, late) = port("d", 1);
        switch.add_port(open, &disabled).unwrap();
        late.send(0, [frame(BROADCAST, mac(9), 4)]);
        switch.set_port("b", &PortOptions::default()).unwrap();
        assert_eq!(number(&peers[0].receive(1)[0]), 1, "what waited there comes now");
        peers[0].send(0, [frame(mac(7), mac(0), 5)]);
        assert_eq!(number(&peers[1].receive(1)[0]), 5);
        assert_eq!((late.pending(), late.arrived()), (1, 0));
        switch.remove_port("d").unwrap();
        assert!(late.closed.load(SeqCst));
        switch.set_port("a", &disabled).unwrap();
        drop(switch);
        assert!(peers.iter().all(|peer| peer.closed.load(SeqCst)));
    }
}

#[test]
fn settings_that_cannot_be_change_nothing() {
    let switch = start(2);
    let peer = add(&switch, "a", 1);
    let before = switch.port("a").unwrap();
    for (options, expected) in [
        (PortOptions { workers: vec![2], mtu: Some(2000), ..Default::default() }, "no worker 2"),
        (PortOptions { mtu: Some(9001), disabled: true, ..Default::default() }, "at most 9000"),
    ] {
        let error = switch.set_port("a", &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(switch.port("a").unwrap(), before);
    }
    let error = switch.set_port("z", &PortOptions::default()).unwrap_err().to_string();
    assert!(error.contains("there are: a"), "{error}");
    assert!(switch.set_ageing(Duration::from_millis(3)).is_err());
    switch.set_ageing(Duration::from_secs(7)).unwrap();
    assert_eq!(switch.fdb_report().ageing, 7);
    drop(peer);
}
