//! Guards of the ports of a running switch.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

mod common;

use common::{BROADCAST, Peer, frame, mac, port, wait_until};
use ethdev::DropReason::{self, MacSpoofed, OtherProtocol};
use std::sync::Arc;
use switch::{PortGuard, PortOptions, Switch, SwitchConfig};

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
