//! Guards of the ports of a running switch.

use crate::common::{BROADCAST, Peer, frame, mac, number, port, wait_until};
use std::sync::Arc;
use std::time::Instant;

use ethdev::DropReason::{
    self, AddressLimit, Bpdu, BroadcastLimited, Isolated, LinkDown, MacSpoofed, MulticastLimited,
    OtherProtocol, UnknownLimited,
};
use switch::guard::{Beyond, BpduGuard};
use switch::limit::Frames;
use switch::{PortGuard, PortLimits, PortOptions, Switch, SwitchConfig};

/// Ports `a` with two queues, and `b`.
fn start(workers: usize) -> (Switch, [Arc<Peer>; 2]) {
    let config = SwitchConfig { workers, ..SwitchConfig::default() };
    let switch = Switch::start(&config).unwrap();
    let peers = [("a", 2), ("b", 1)].map(|(name, queues)| {
        let (open, peer) = port(name, queues);
        switch.add_port(open, &PortOptions::default()).unwrap();
        peer
    });
    (switch, peers)
}

fn set(switch: &Switch, guard: PortGuard) {
    switch.set_port("a", &PortOptions { guard, ..PortOptions::default() }).unwrap();
}

fn macs(guest: u16) -> PortGuard {
    PortGuard { allowed_macs: [mac(guest)].into(), ..PortGuard::default() }
}

fn dropped(switch: &Switch, reason: DropReason) -> u64 {
    switch.port("a").unwrap().stats.rx_total().dropped_for(reason)
}

#[test]
fn what_a_port_may_not_send_is_dropped_and_nobody_learns_from_it() {
    for workers in [1, 3] {
        let (switch, [a, b]) = start(workers);
        set(&switch, macs(1));
        assert_eq!(switch.port("a").unwrap().guard, macs(1));
        for queue in [0, 1] {
            a.send(queue, [1, 2, 1, 3].map(|guest| frame(BROADCAST, mac(guest), 0)));
        }
        b.receive(4);
        wait_until("the others are counted", || dropped(&switch, MacSpoofed) == 4);
        let learnt: Vec<_> = switch.fdb().into_iter().map(|entry| entry.mac).collect();
        assert_eq!(learnt, [mac(1)]);
        // Both ways in the middle of it all, and other workers have to know it, too.
        set(&switch, macs(2));
        a.send(1, [frame(BROADCAST, mac(2), 0)]);
        b.receive(1);
        switch.set_workers(&[], 2).unwrap();
        a.send(0, [frame(BROADCAST, mac(1), 0)]);
        wait_until("a new worker drops it", || dropped(&switch, MacSpoofed) == 5);
        set(&switch, PortGuard::default());
        a.send(0, [frame(BROADCAST, mac(1), 0)]);
        b.receive(1);
    }
}

#[test]
fn isolated_ports_reach_all_others_and_not_each_other() {
    let (switch, [a, b]) = start(2);
    let (open, c) = port("c", 1);
    switch.add_port(open, &PortOptions::default()).unwrap();
    let isolated = PortGuard { isolated: true, ..PortGuard::default() };
    let set = |name: &str, guard: &PortGuard| {
        let options = PortOptions { guard: guard.clone(), ..PortOptions::default() };
        switch.set_port(name, &options).unwrap();
    };
    ["a", "b"].iter().for_each(|name| set(name, &isolated));
    a.send(0, [frame(BROADCAST, mac(1), 1)]);
    b.send(0, [frame(BROADCAST, mac(2), 2)]);
    c.receive(2);
    c.send(0, [frame(BROADCAST, mac(3), 3)]);
    a.receive(1);
    b.receive(1);
    // All are known by now.
    a.send(1, [frame(mac(2), mac(1), 4), frame(mac(3), mac(1), 5)]);
    c.receive(1);
    wait_until("it is counted", || dropped(&switch, Isolated) == 1);
    c.send(0, [frame(mac(2), mac(3), 6)]);
    b.receive(1);
    assert_eq!((a.arrived(), b.arrived(), c.arrived()), (0, 0, 0));
    // Where nobody else is there, a broadcast has no receiver.
    switch.remove_port("c").unwrap();
    a.send(0, [frame(BROADCAST, mac(1), 7)]);
    wait_until("it is lost", || dropped(&switch, Isolated) == 2);
    set("b", &PortGuard::default());
    a.send(0, [frame(BROADCAST, mac(1), 8), frame(mac(2), mac(1), 9)]);
    b.receive(2);
}

#[test]
fn no_more_addresses_are_learnt_than_a_port_may_have() {
    for beyond_max in Beyond::ALL {
        let (switch, [a, b]) = start(1);
        let few =
            |most| PortGuard { max_addresses: Some(most), beyond_max, ..PortGuard::default() };
        set(&switch, few(3));
        // Three are learnt, in whatever burst they come.
        for guest in [1, 2, 3] {
            a.send(0, [frame(BROADCAST, mac(guest), 0)]);
            b.receive(1);
        }
        a.send(0, (4..20).map(|guest| frame(BROADCAST, mac(guest), 0)));
        a.send(0, [1, 2, 3].map(|guest| frame(BROADCAST, mac(guest), 1)));
        let lost = || usize::try_from(dropped(&switch, AddressLimit)).unwrap();
        wait_until("all are dealt with", || b.arrived() + lost() == 19);
        assert_eq!(lost(), if beyond_max == Beyond::Drop { 16 } else { 0 });
        b.receive(0);
        let learnt = |switch: &Switch| switch.port("a").unwrap().fdb_entries;
        assert_eq!(learnt(&switch), 3);
        assert!(switch.fdb_report().refused > 0);
        // One of another port does not move here, and keeps its place.
        b.send(0, [frame(BROADCAST, mac(30), 0)]);
        a.receive(1);
        a.send(0, [frame(BROADCAST, mac(30), 0), frame(BROADCAST, mac(1), 2)]);
        wait_until("its own comes", || b.receive(1).iter().any(|frame| number(frame) == 2));
        assert_eq!(switch.port("b").unwrap().fdb_entries, 1);
        // Fewer, and more again; what goes away makes room.
        set(&switch, few(1));
        assert_eq!(learnt(&switch), 1);
        set(&switch, few(2));
        switch.fdb_flush(Some("a")).unwrap();
        a.send(0, [frame(BROADCAST, mac(7), 0)]);
        b.receive(1);
        a.send(0, [frame(BROADCAST, mac(8), 0)]);
        b.receive(1);
        assert_eq!(learnt(&switch), 2);
        switch.remove_port("a").unwrap();
        let (open, a) = port("a", 1);
        switch.add_port(open, &PortOptions::default()).unwrap();
        a.send(0, (40..45).map(|guest| frame(BROADCAST, mac(guest), 0)));
        b.receive(5);
        wait_until("all are learnt", || learnt(&switch) == 5);
    }
}

#[test]
fn a_port_that_sends_a_bridges_messages_is_shut_until_it_is_set() {
    let bpdu = || frame(packet::MacAddr([1, 0x80, 0xC2, 0, 0, 0]), mac(1), 0);
    for workers in [1, 2] {
        let (switch, [a, b]) = start(workers);
        let guard = |bpdu_guard| PortGuard { bpdu_guard, ..PortGuard::default() };
        set(&switch, guard(BpduGuard::Drop));
        a.send(0, [bpdu(), frame(BROADCAST, mac(1), 1)]);
        b.receive(1);
        assert_eq!(dropped(&switch, Bpdu), 1);
        set(&switch, guard(BpduGuard::Shut));
        for again in [false, true] {
            a.send(1, [frame(BROADCAST, mac(1), 2)]);
            b.receive(1);
            a.send(0, [bpdu()]);
            wait_until("it is shut", || switch.port("a").unwrap().is_shut);
            let port = switch.port("a").unwrap();
            assert!(!port.link.up && !port.disabled && port.fdb_entries == 0);
            b.send(0, [frame(BROADCAST, mac(2), 3)]);
            wait_until("nobody is there", || {
                switch.port("b").unwrap().stats.rx_total().dropped_for(LinkDown) > 0
            });
            // What it sends meanwhile is dropped by all workers, also by those that come then.
            let before = dropped(&switch, Bpdu);
            a.send(0, [frame(BROADCAST, mac(1), 4), bpdu()]);
            wait_until("both are dropped", || dropped(&switch, Bpdu) == before + 2);
            switch.set_workers(&[], 3 - workers).unwrap();
            a.send(1, [bpdu(), frame(BROADCAST, mac(1), 5)]);
            wait_until("both are dropped", || dropped(&switch, Bpdu) == before + 4);
            assert_eq!((a.arrived(), b.arrived()), (0, 0));
            assert!(switch.trace("a", &frame(BROADCAST, mac(1), 6), false).is_err());
            if again {
                set(&switch, guard(BpduGuard::Drop));
            } else {
                assert!(switch.reopen_port("a").unwrap() && !switch.reopen_port("a").unwrap());
            }
            a.send(0, [frame(BROADCAST, mac(1), 7)]);
            assert_eq!(number(&b.receive(1)[0]), 7, "nothing has waited");
            assert!(!switch.port("a").unwrap().is_shut && switch.port("a").unwrap().link.up);
        }
        a.send(0, [bpdu(), frame(BROADCAST, mac(1), 5)]);
        b.receive(1);
    }
}

#[test]
fn a_port_that_is_shut_and_then_disabled_lets_nothing_in() {
    let bpdu = || frame(packet::MacAddr([1, 0x80, 0xC2, 0, 0, 0]), mac(1), 0);
    let (switch, [a, b]) = start(1);
    let guard = PortGuard { bpdu_guard: BpduGuard::Shut, ..PortGuard::default() };
    set(&switch, guard.clone());
    a.send(0, [bpdu()]);
    wait_until("it is shut", || switch.port("a").unwrap().is_shut);
    let options = PortOptions { disabled: true, guard: guard.clone(), ..PortOptions::default() };
    switch.set_port("a", &options).unwrap();
    a.send(0, [frame(BROADCAST, mac(1), 7)]);
    // The worker goes round several times.
    for round in 1..=3 {
        b.send(0, [frame(BROADCAST, mac(2), 3)]);
        wait_until("the worker was at the other port", || {
            switch.port("b").unwrap().stats.rx_total().packets == round
        });
    }
    assert_eq!((a.pending(), a.arrived(), b.arrived()), (1, 0, 0));
    set(&switch, guard);
    assert_eq!(number(&b.receive(1)[0]), 7);
    b.send(0, [frame(BROADCAST, mac(2), 8)]);
    assert_eq!(number(&a.receive(1)[0]), 8);
}

#[test]
fn a_storm_is_bounded_and_other_frames_pass() {
    const SENT: usize = 1_000;
    let (switch, [a, b]) = start(1);
    b.send(0, [frame(BROADCAST, mac(2), 0)]);
    a.receive(1);
    let group = packet::MacAddr([1, 0, 0x5E, 0, 0, 1]);
    let rate = Some(Frames(1));
    let none = PortLimits::default();
    for (to, limits, reason) in [
        (BROADCAST, PortLimits { broadcast_packet_rate: rate, ..none }, BroadcastLimited),
        (group, PortLimits { multicast_packet_rate: rate, ..none }, MulticastLimited),
        (mac(9), PortLimits { unknown_packet_rate: rate, ..none }, UnknownLimited),
    ] {
        switch.set_port("a", &PortOptions { limits, ..PortOptions::default() }).unwrap();
        let begin = Instant::now();
        for _ in 0..SENT {
            a.send(0, [frame(to, mac(1), 0)]);
        }
        for other in [BROADCAST, group, mac(9), mac(2)].into_iter().filter(|other| *other != to) {
            (0..100).for_each(|_| a.send(0, [frame(other, mac(1), 0)]));
        }
        let lost = || usize::try_from(dropped(&switch, reason)).unwrap();
        wait_until("all are dealt with", || b.arrived() + lost() == SENT + 300);
        let passed = b.receive(300).len() - 300;
        // What may pass at once, and a frame for each second.
        let most = 65 + usize::try_from(begin.elapsed().as_secs()).unwrap();
        assert!((64..=most).contains(&passed), "{reason:?}: {passed}");
    }
    // With a guard, too, that refuses some.
    let limits = PortLimits { broadcast_packet_rate: rate, ..none };
    switch
        .set_port("a", &PortOptions { limits, guard: macs(1), ..PortOptions::default() })
        .unwrap();
    let (before, begin) = (dropped(&switch, BroadcastLimited), Instant::now());
    for _ in 0..SENT {
        a.send(0, [frame(BROADCAST, mac(1), 0), frame(BROADCAST, mac(5), 0)]);
    }
    wait_until("all others are refused", || dropped(&switch, MacSpoofed) == SENT as u64);
    wait_until("all are dealt with", || {
        b.arrived() as u64 + dropped(&switch, BroadcastLimited) - before == SENT as u64
    });
    let most = 65 + usize::try_from(begin.elapsed().as_secs()).unwrap();
    assert!((64..=most).contains(&b.arrived()), "{}", b.arrived());
}

#[test]
fn a_guard_goes_with_its_port() {
    let (switch, [a, _]) = start(1);
    let ips = PortGuard { allowed_ips: ["192.0.2.7".parse().unwrap()].into(), ..macs(1) };
    set(&switch, ips);
    a.send(0, [frame(BROADCAST, mac(1), 0)]);
    wait_until("it is no IP", || dropped(&switch, OtherProtocol) == 1);
    switch.remove_port("a").unwrap();
    // The next one gets its number.
    let (open, a) = port("a", 1);
    switch.add_port(open, &PortOptions::default()).unwrap();
    let (open, c) = port("c", 1);
    let options = PortOptions { guard: macs(3), ..PortOptions::default() };
    switch.add_port(open, &options).unwrap();
    a.send(0, [frame(BROADCAST, mac(9), 0)]);
    c.receive(1);
    let wrong = PortGuard { allowed_macs: [BROADCAST].into(), ..PortGuard::default() };
    let options = PortOptions { guard: wrong, ..PortOptions::default() };
    let error = switch.set_port("a", &options).unwrap_err().to_string();
    assert!(error.contains("port 'a': allowed-macs: ff:ff:ff:ff:ff:ff is not"), "{error}");
}
