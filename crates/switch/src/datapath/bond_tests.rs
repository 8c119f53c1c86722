//! Bonds on the data path.

use std::sync::Arc;

use ethdev::DropReason::{InactiveMember, LinkDown};

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bond::way::{BUCKETS, NOBODY, Strand};
use crate::vlan::PortVlan;
use crate::vlan::policy::Policy;

/// The bond, whose members are ports 2 and 3.
const BOND: u16 = 9;

fn way(active: u16) -> Way {
    let strand = |port| Strand { port, receives: port == active };
    Way { bridge: BridgeId::DEFAULT, table: [active; BUCKETS], members: vec![strand(2), strand(3)] }
}

/// Four ports, two of which are members of a bond.
fn bench(active: u16) -> Bench {
    let mut bench = Bench::new(4);
    for member in [2, 3] {
        bench.change(0, BridgeChange::Leave(member));
    }
    bench.change(0, BridgeChange::Join(BOND, None));
    bench.path.set_bond(BOND, Some(way(active)));
    bench
}

impl Bench {
    /// A frame into a member; how many came out of each port.
    fn enter_member(&mut self, port: u16, from: u64, to: u64) -> Vec<usize> {
        let frames = [frame(if to == 0 { BROADCAST } else { station(to) }, station(from))];
        let got = self.send_to_bridge(BridgeId::BOND.0, port, &frames);
        got.iter().map(Vec::len).collect()
    }

    fn came_out(&mut self, port: u16, from: u64, to: u64) -> Vec<usize> {
        let frames = [frame(if to == 0 { BROADCAST } else { station(to) }, station(from))];
        self.send(port, &frames).iter().map(Vec::len).collect()
    }
}

#[test]
fn a_bridge_learns_the_bond_and_sends_by_the_active_member() {
    let mut bench = bench(2);
    assert_eq!(bench.came_out(0, 1, 0), [0, 1, 1, 0], "a flood goes out once");
    assert_eq!(bench.enter_member(2, 7, 1), [1, 0, 0, 0]);
    assert_eq!(bench.came_out(1, 5, 7), [0, 0, 1, 0]);
    // The other one takes over: what was learnt is behind the bond still.
    bench.path.set_bond(BOND, Some(way(3)));
    assert_eq!(bench.came_out(1, 5, 7), [0, 0, 0, 1]);
    assert_eq!(bench.enter_member(3, 8, 0), [1, 1, 0, 0], "nothing goes back into the bond");
    assert_eq!(bench.enter_member(3, 8, 7), [0, 0, 0, 0]);
}

#[test]
fn what_comes_in_on_a_member_that_is_not_in_use_is_counted_and_not_learnt() {
    let mut bench = bench(2);
    assert_eq!(bench.enter_member(3, 7, 0), [0; 4]);
    assert_eq!(bench.dropped(InactiveMember), 1);
    assert_eq!(bench.bridge().fdb.len(), 0);
    bench.path.set_bond(BOND, None);
    assert_eq!(bench.enter_member(2, 7, 0), [0; 4], "a member without its bond");
    assert_eq!(bench.dropped(LinkDown), 1);
    assert!(bench.path.bridges[0].is_some(), "a switch without bonds runs the short way");
}

#[test]
fn without_a_member_frames_are_lost_and_counted() {
    let mut bench = bench(NOBODY);
    assert_eq!(bench.came_out(0, 1, 0), [0, 1, 0, 0]);
    assert_eq!(bench.dropped(LinkDown), 0, "somebody had it");
    bench.path.set_bond(BOND, Some(way(2)));
    bench.enter_member(2, 7, 1);
    bench.path.set_bond(BOND, Some(way(NOBODY)));
    assert_eq!(bench.came_out(0, 1, 7), [0; 4]);
    assert_eq!(bench.dropped(LinkDown), 1);
}

#[test]
fn tags_are_those_of_the_bond() {
    let mut bench = bench(2);
    let access = PortVlan { tag: Some(5), ..PortVlan::default() };
    bench.change(0, BridgeChange::SetVlan(0, Some(Arc::new(Policy::from(&access)))));
    let got = bench.send(0, &[frame(BROADCAST, station(1)), frame(station(9), station(1))]);
    assert_eq!(got[2].len(), 2);
    assert!(got[2].iter().all(|frame| frame[12..16] == [0x81, 0, 0, 5]));
    assert_eq!((got[1].len(), got[3].len()), (2, 0), "a trunk has them, too");
}
