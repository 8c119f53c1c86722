//! Limits of the ports of a running switch.

use std::sync::Arc;
use std::time::Instant;

use crate::common::{BROADCAST, Peer, frame, mac, port, wait_until};
use ethdev::DropReason::RateLimited;
use switch::limit::Frames;
use switch::{PortLimits, PortOptions, Switch, SwitchConfig};

const NONE: PortLimits = PortLimits {
    rx_rate: None,
    rx_burst: None,
    rx_packet_rate: None,
    rx_packet_burst: None,
    tx_rate: None,
    tx_burst: None,
    tx_packet_rate: None,
    tx_packet_burst: None,
    broadcast_rate: None,
    broadcast_packet_rate: None,
    multicast_rate: None,
    multicast_packet_rate: None,
    unknown_rate: None,
    unknown_packet_rate: None,
};

/// Frames per second, and at once.
const RATE: u64 = 1_000;
const BURST: u64 = 800;

/// Ports `a` with two queues, `b` and `c`.
fn start(workers: usize) -> (Switch, [Arc<Peer>; 3]) {
    let config = SwitchConfig { workers, ..SwitchConfig::default() };
    let switch = Switch::start(&config).unwrap();
    let peers = [("a", 2), ("b", 1), ("c", 1)].map(|(name, queues)| {
        let (open, peer) = port(name, queues);
        switch.add_port(open, &PortOptions::default()).unwrap();
        peer
    });
    (switch, peers)
}

fn set(switch: &Switch, name: &str, limits: PortLimits) {
    switch.set_port(name, &PortOptions { limits, ..PortOptions::default() }).unwrap();
}

/// Sends 4,000 frames through both queues of a port.
fn flood(peer: &Peer) {
    for number in 0..2_000 {
        for queue in [0, 1] {
            peer.send(queue, [frame(BROADCAST, mac(1), number)]);
        }
    }
}

#[test]
fn no_more_goes_through_than_the_limit_and_no_less() {
    let (rate, burst) = (Some(Frames(RATE)), Some(Frames(BURST)));
    let rx = PortLimits { rx_packet_rate: rate, rx_packet_burst: burst, ..NONE };
    let tx = PortLimits { tx_packet_rate: rate, tx_packet_burst: burst, ..NONE };
    for workers in [1, 3] {
        for (name, limits) in [("a", rx), ("b", tx)] {
            let (switch, [a, b, c]) = start(workers);
            let begin = Instant::now();
            set(&switch, name, limits);
            assert_eq!(switch.port(name).unwrap().limits, limits);
            flood(&a);
            let dropped = || {
                let stats = switch.port(name).unwrap().stats;
                [stats.rx_total(), stats.tx_total()]
                    .iter()
                    .map(|all| all.dropped_for(RateLimited))
                    .sum::<u64>()
            };
            wait_until("all are dealt with", || b.arrived() as u64 + dropped() == 4_000);
            let millis = u64::try_from(begin.elapsed().as_millis()).unwrap() + 1;
            let came = b.arrived() as u64;
            // Shares that other workers have in advance are an eighth of the bucket at most.
            let least = if workers == 1 { BURST } else { BURST * 7 / 8 };
            assert!(
                (least..=BURST + RATE * millis / 1_000).contains(&came),
                "{came} in {millis} ms"
            );
            if name == "b" {
                wait_until("the other port has all", || c.arrived() == 4_000);
            } else {
                wait_until("the other port has as many", || c.arrived() as u64 == came);
            }
        }
    }
}

#[test]
fn limits_go_with_the_port_and_by_command() {
    let (switch, [a, b, _]) = start(2);
    let limits = PortLimits { rx_packet_rate: Some(Frames(1)), ..NONE };
    set(&switch, "a", limits);
    set(&switch, "a", NONE);
    flood(&a);
    b.receive(4_000);
    set(&switch, "a", limits);
    switch.remove_port("a").unwrap();
    // The next port has its number.
    let (open, next) = port("next", 2);
    switch.add_port(open, &PortOptions::default()).unwrap();
    flood(&next);
    b.receive(4_000);
    let wrong = PortLimits { tx_packet_burst: Some(Frames(70)), ..NONE };
    let options = PortOptions { limits: wrong, ..PortOptions::default() };
    let error = switch.set_port("next", &options).unwrap_err().to_string();
    assert!(error.starts_with("port 'next': tx-packet-burst without tx-packet-rate"), "{error}");
    assert!(switch.port("next").unwrap().limits.is_default());
}
