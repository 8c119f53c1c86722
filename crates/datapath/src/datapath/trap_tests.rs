//! Frames for the switch itself on the data path.

use std::sync::Arc;

use ethdev::DropReason::{Bpdu, RateLimited, ReservedMulticast};
use l2proto::lldp::frame::{CHASSIS_MAC, ETHERTYPE, Id, MAX_LEN, PORT_NAME, Unit};

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::guard::Guard;
use crate::guard::{BpduGuard, PortGuard, Trip};
use crate::inlet::{Heard, Inlet, Pace};
use crate::limit::Direction;
use crate::limit::PortLimits;
use crate::trap::Trap;

/// A frame of LLDP.
pub(super) fn lldp() -> Vec<u8> {
    let neighbour = packet::MacAddr([2, 0, 0, 0, 0, 1]);
    let unit = Unit {
        chassis: Id { kind: CHASSIS_MAC, bytes: neighbour.0.to_vec() },
        port: Id { kind: PORT_NAME, bytes: b"up0".to_vec() },
        ttl: 120,
        port_description: None,
        system_name: None,
        system_description: None,
        capabilities: None,
        addresses: Vec::new(),
    };
    unit.frame(neighbour)
}

pub(super) fn listen(bench: &mut Bench, port: u16) -> std::sync::mpsc::Receiver<Heard> {
    let (inlet, heard) = Inlet::new(MAX_LEN, 8, &Pace::of(1_000_000), || {});
    bench.path.set_trap(port, Some(Box::new(Trap { lldp: Some(inlet), ..Trap::default() })));
    heard
}

#[test]
fn what_is_for_the_switch_is_taken_out_and_the_rest_goes_on() {
    let mut bench = Bench::new(3);
    assert!(bench.path.bridges[0].is_some());
    let heard = listen(&mut bench, 0);
    assert!(bench.path.apart[0].is_some(), "bridges go the long way while somebody listens");
    let burst = [frame(BROADCAST, station(1)), lldp(), frame(BROADCAST, station(2))];
    let got = bench.send(0, &burst);
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [0, 2, 2]);
    let all: Vec<_> = heard.try_iter().collect();
    assert_eq!((all.len(), all[0].port, all[0].bytes()), (1, 0, &lldp()[..]));
    assert_eq!(bench.bridge().fdb.len(), 2, "nothing is learnt of it");
    // On another port it is what it always was, and so are others to the same group.
    bench.send(1, &[lldp()]);
    let mut ptp = lldp();
    ptp[12..14].copy_from_slice(&[0x88, 0xF7]);
    bench.send(0, &[ptp]);
    assert_eq!(bench.dropped(ReservedMulticast), 2);
    assert!(heard.try_iter().next().is_none());
    bench.path.set_trap(0, None);
    assert!(bench.path.bridges[0].is_some());
    bench.send(0, &[lldp()]);
    assert_eq!(bench.dropped(ReservedMulticast), 3);
}

#[test]
fn nobody_hears_of_a_port_that_is_shut() {
    let mut bench = Bench::new(3);
    let heard = listen(&mut bench, 0);
    let guard = PortGuard { bpdu_guard: BpduGuard::Shut, ..PortGuard::default() };
    let trip = Arc::new(Trip::new(|| {}));
    let guard = Guard::of(&guard, &PortLimits::default(), Some(&trip), 1).remove(0);
    bench.path.set_guard(0, guard.map(Box::new));
    bench.send(0, &[lldp(), lldp()]);
    assert_eq!(heard.try_iter().count(), 2);
    trip.trip();
    let got = bench.send(0, &[lldp(), frame(BROADCAST, station(1))]);
    assert!(got.iter().all(Vec::is_empty));
    assert_eq!((heard.try_iter().count(), bench.dropped(Bpdu)), (0, 2));
    trip.reset();
    bench.send(0, &[lldp()]);
    assert_eq!(heard.try_iter().count(), 1);
}

#[test]
fn a_flood_is_bounded_and_counted_and_a_limit_does_not_count() {
    let mut bench = Bench::new(2);
    let heard = listen(&mut bench, 0);
    let limits =
        PortLimits { rx_packet_rate: Some("64".parse().unwrap()), ..PortLimits::default() };
    let limiter = limits.rx().limiters(1, 1_000_000, 0).remove(0).map(Box::new);
    bench.path.set_limit(0, Direction::Rx, limiter);
    let burst = vec![frame(BROADCAST, station(1)); BURST];
    (0..20).for_each(|_| _ = bench.send(0, &burst));
    let limited = bench.dropped(RateLimited);
    assert!(limited > 0);
    bench.send(0, &[lldp(), lldp()]);
    assert_eq!(heard.try_iter().count(), 2);
    bench.send(0, &vec![lldp(); BURST]);
    assert_eq!(heard.try_iter().count(), 8, "as many as there is room for");
    assert_eq!(bench.dropped(RateLimited) - limited, 24);
    assert_eq!(u16::from_be_bytes([lldp()[12], lldp()[13]]), ETHERTYPE);
}
