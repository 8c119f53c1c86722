//! Ports that do not forward, on the data path.

use std::sync::Arc;

use ethdev::DropReason::{SpanningTree, WrongVlan};
use l2proto::rstp::bpdu::{Bpdu, FRAME_LEN};

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bridge::BridgeChange;
use crate::gate::Gate;
use crate::inlet::{Inlet, Pace};
use crate::trap::Trap;
use crate::vlan::PortVlan;
use crate::vlan::policy::Policy;

fn gate(forwarding: &[u16], learning: &[u16]) -> BridgeChange {
    let set = |ports: &[u16]| ports.iter().copied().collect();
    BridgeChange::Gate(Some(Arc::new(Gate {
        forwarding: set(forwarding),
        learning: set(learning),
    })))
}

fn counts(bench: &mut Bench, port: u16, from: u64, to: u64) -> Vec<usize> {
    let to = if to == 0 { BROADCAST } else { station(to) };
    bench.send(port, &[frame(to, station(from))]).iter().map(Vec::len).collect()
}

#[test]
fn a_port_that_discards_neither_learns_nor_forwards() {
    let mut bench = Bench::new(4);
    bench.change(0, gate(&[0, 1, 2], &[]));
    assert!(bench.path.bridges[0].is_some(), "nothing else is asked because of that");
    assert_eq!(counts(&mut bench, 0, 1, 0), [0, 1, 1, 0], "a flood does not go out there");
    assert_eq!(bench.dropped(SpanningTree), 0);
    assert_eq!(counts(&mut bench, 3, 7, 0), [0; 4]);
    assert_eq!((bench.dropped(SpanningTree), bench.bridge().fdb.len()), (1, 1));
    // A port that has just joined is in neither set.
    bench.change(0, gate(&[0], &[]));
    assert_eq!(counts(&mut bench, 0, 1, 0), [0; 4]);
    assert_eq!(bench.dropped(SpanningTree), 2, "nobody had it");
    bench.change(0, BridgeChange::Gate(None));
    assert_eq!(counts(&mut bench, 3, 7, 0), [1, 1, 1, 0]);
}

#[test]
fn a_port_that_learns_does_not_forward() {
    let mut bench = Bench::new(3);
    bench.change(0, gate(&[0, 1], &[2]));
    assert_eq!(counts(&mut bench, 2, 7, 0), [0; 3]);
    assert_eq!((bench.dropped(SpanningTree), bench.bridge().fdb.len()), (1, 1));
    assert_eq!(counts(&mut bench, 0, 1, 7), [0; 3], "what is behind it is not reached yet");
    assert_eq!(bench.dropped(SpanningTree), 2);
    bench.change(0, BridgeChange::Gate(None));
    assert_eq!(counts(&mut bench, 0, 1, 7), [0, 0, 1]);
}

#[test]
fn ports_have_vlans_besides() {
    let mut bench = Bench::new(3);
    let access = PortVlan { tag: Some(5), ..PortVlan::default() };
    bench.change(0, BridgeChange::SetVlan(1, Some(Arc::new(Policy::from(&access)))));
    bench.change(0, gate(&[0, 1], &[]));
    assert_eq!(counts(&mut bench, 0, 1, 0), [0, 0, 0], "the trunk is in VLAN 0");
    assert_eq!(counts(&mut bench, 1, 7, 0), [1, 0, 0]);
    let mut tagged = frame(station(7), station(1));
    tagged[12..16].copy_from_slice(&[0x81, 0, 0, 6]);
    bench.send(0, &[tagged.clone()]);
    assert_eq!(bench.dropped(WrongVlan), 0, "it is not known in that VLAN");
    tagged[15] = 5;
    assert_eq!(bench.send(0, &[tagged])[1].len(), 1);
}

#[test]
fn messages_of_spanning_tree_come_in_where_nothing_else_does() {
    let mut bench = Bench::new(2);
    bench.change(0, gate(&[0], &[]));
    let (inlet, heard) = Inlet::new(FRAME_LEN, 8, &Pace::of(1_000_000), || {});
    bench.path.set_trap(1, Some(Box::new(Trap { bpdu: Some(inlet), ..Trap::default() })));
    let tcn = Bpdu::Tcn.frame(packet::MacAddr([2, 0, 0, 0, 0, 1]));
    bench.send(1, &[tcn.clone(), frame(BROADCAST, station(1))]);
    assert_eq!(heard.try_iter().next().unwrap().bytes(), &tcn[..]);
    assert_eq!((bench.dropped(SpanningTree), bench.bridge().fdb.len()), (1, 0));
    // And what is sent goes out.
    let own = Frame::from_bytes(&tcn);
    assert!(bench.path.send_own(1, &[own], 0));
}
