//! Bonds on the data path.

use std::sync::Arc;

use ethdev::DropReason::{CameBack, InactiveMember, LinkDown, RateLimited};
use l2proto::lacp::pdu;

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bond::way::Fittings;
use crate::bond::way::Way;
use crate::bond::way::{BUCKETS, Division, NOBODY, Receives, Strand};
use crate::bridge::BridgeChange;
use crate::inlet::{Heard, Inlet, Pace};
use crate::patch::Patch;
use crate::vlan::PortVlan;
use crate::vlan::policy::Policy;

/// The bond, whose members are ports 2 and 3.
const BOND: u16 = 9;

fn way(active: u16) -> (Way, Fittings) {
    let receives = |port| if port == active { Receives::All } else { Receives::Nothing };
    let strand = |port| Strand { port, receives: receives(port) };
    let way = Way {
        bridge: BridgeId::DEFAULT,
        division: Division::Whole,
        table: [active; BUCKETS],
        members: vec![strand(2), strand(3)],
        comes_back: false,
    };
    (way, Fittings::default())
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

/// Traffic is divided: even parts go to port 2, odd ones to port 3.
fn divided(division: Division) -> Way {
    let table = std::array::from_fn(|bucket| if bucket % 2 == 0 { 2 } else { 3 });
    let (way, _) = way(2);
    let other = Strand { port: 3, receives: Receives::Unicast };
    let members = vec![way.members[0], other];
    Way { division, table, members, comes_back: division == Division::Source, ..way }
}

/// A frame of one of many flows between two stations.
fn flow_frame(number: u16) -> Vec<u8> {
    let mut bytes = frame(station(9), station(1));
    bytes.resize(60, 0);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[23] = 17;
    bytes[34..36].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn by_source_all_frames_of_a_station_go_the_same_way() {
    let mut bench = bench(2);
    let fittings = Fittings::default();
    let load = Arc::clone(&fittings.load);
    bench.path.set_bond(BOND, Some((divided(Division::Source), fittings)));
    let mut ways = Vec::new();
    for from in 20..52 {
        let frames: Vec<_> = (0..4).map(|_| frame(BROADCAST, station(from))).collect();
        let got = bench.send(0, &frames);
        let counts = [got[2].len(), got[3].len()];
        assert!(counts == [4, 0] || counts == [0, 4], "{from}: {counts:?}");
        ways.push(counts[0] != 0);
    }
    let by_first = ways.iter().filter(|way| **way).count();
    assert!((8..=24).contains(&by_first), "{by_first}");
    assert_eq!(load.bytes().iter().sum::<u64>(), 32 * 4 * frame(0, 0).len() as u64);
    assert_eq!(load.frames().iter().sum::<u64>(), 32 * 4);
    // What is only told is not counted.
    let told = frame(BROADCAST, station(20));
    let decided = bench.path.decide((BridgeId::DEFAULT, 0), &told, false, 1);
    assert_eq!(decided.outputs.len(), 2, "the other port, and a member");
    assert_eq!(bench.path.trace((BridgeId::DEFAULT, 0), &told, false, 1).outputs.len(), 2);
    assert_eq!(load.frames().iter().sum::<u64>(), 32 * 4);
}

#[test]
fn by_flow_frames_of_one_burst_are_spread_and_stay_in_order() {
    let mut bench = bench(2);
    bench.path.set_bond(BOND, Some((divided(Division::Flow), Fittings::default())));
    bench.enter_member(2, 9, 1);
    let frames: Vec<_> = (0..32).map(|number| flow_frame(number % 8)).collect();
    let got = bench.send(0, &frames);
    assert_eq!(got[2].len() + got[3].len(), 32);
    assert!(got[2].len() >= 4 && got[3].len() >= 4, "{} {}", got[2].len(), got[3].len());
    for side in [&got[2], &got[3]] {
        let of_burst: Vec<_> = frames.iter().filter(|frame| side.contains(frame)).collect();
        assert!(side.iter().eq(of_burst), "a flow is on one side");
    }
}

#[test]
fn what_comes_back_is_dropped_until_a_station_says_that_it_has_moved() {
    let mut bench = bench(2);
    bench.path.set_bond(BOND, Some((divided(Division::Source), Fittings::default())));
    assert_eq!(bench.came_out(0, 1, 0)[1], 1);
    // The network floods it to the other members.
    assert_eq!(bench.enter_member(3, 1, 0), [0; 4]);
    assert_eq!(bench.dropped(InactiveMember), 1, "groups are heard once");
    assert_eq!(bench.enter_member(2, 1, 0), [0; 4]);
    assert_eq!(bench.enter_member(3, 1, 55), [0; 4]);
    assert_eq!(bench.dropped(CameBack), 2);
    assert_eq!(bench.enter_member(3, 7, 1), [1, 0, 0, 0], "what goes to one station is heard");
    let announcement = packet::announcement(packet::MacAddr([2, 0, 0, 0, 0, 77])).to_vec();
    bench.send(0, std::slice::from_ref(&announcement));
    let announce = |bench: &mut Bench| {
        let got = bench.send_to_bridge(BridgeId::BOND.0, 2, std::slice::from_ref(&announcement));
        got.iter().map(Vec::len).sum::<usize>()
    };
    assert_eq!(announce(&mut bench), 0, "our own, coming back");
    let now = bench.bridge().fdb.now();
    bench.bridge().fdb.set_now(now + 5);
    assert_eq!(announce(&mut bench), 2, "it has moved");
}

#[test]
fn what_neighbours_say_is_put_aside_though_the_member_is_not_in_use() {
    let mut bench = bench(2);
    let (inlet, heard) = Inlet::new(pdu::FRAME_LEN, 64, &Pace::of(1_000_000), || {});
    let (way, fittings) = way(2);
    bench.path.set_bond(BOND, Some((way, Fittings { inlet: Some(inlet), ..fittings })));
    let own = packet::MacAddr([2, 0, 0, 0, 0, 7]);
    let said = pdu::Pdu::default().frame(own);
    let mut burst = vec![frame(BROADCAST, station(7)); 2];
    burst.insert(1, said.clone());
    for (port, came) in [(2, 2), (3, 0)] {
        let got = bench.send_to_bridge(BridgeId::BOND.0, port, &burst);
        assert_eq!([got[0].len(), got[1].len()], [came; 2]);
        let heard = heard.try_recv().unwrap();
        assert_eq!((heard.port, heard.bytes()), (port, &said[..]));
    }
    assert_eq!(bench.dropped(InactiveMember), 2);
    let flood = vec![said; 32];
    for _ in 0..4 {
        bench.send_to_bridge(BridgeId::BOND.0, 3, &flood);
    }
    assert_eq!(heard.try_iter().count(), 30);
    assert_eq!(bench.dropped(RateLimited), 4 * 32 - 30);
}

/// The bench's port 0 in the default bridge with a bond, whose one member is patch port 10; its peer 11
/// is the member of a bond of bridge 1, where the bench's port 1 is. Returns what is heard in each.
fn patched() -> (Bench, [std::sync::mpsc::Receiver<Heard>; 2]) {
    let mut bench = Bench::new(4);
    bench.change(0, BridgeChange::Leave(1));
    let fdb = Arc::new(fdb::Fdb::new(64, crate::port_set::MAX_PORTS, 300));
    bench.change(1, BridgeChange::Open(Bridge::new(fdb, BURST, 0)));
    bench.change(1, BridgeChange::Join(1, None));
    let heard = [(0, BOND, 10), (1, BOND + 3, 11)].map(|(bridge, bond, member)| {
        bench.change(bridge, BridgeChange::Join(bond, None));
        let (inlet, heard) = Inlet::new(pdu::FRAME_LEN, 64, &Pace::of(1_000_000), || {});
        let members = vec![Strand { port: member, receives: Receives::All }];
        let way = Way { bridge: BridgeId(bridge), table: [member; BUCKETS], members, ..way(2).0 };
        let fittings = Fittings { inlet: Some(inlet), ..Fittings::default() };
        bench.path.set_bond(bond, Some((way, fittings)));
        let (peer, [rx, tx]) = (21 - member, [0; 2].map(|_| Arc::<QueueStats>::default()));
        let patch = Patch { bridge: BridgeId::BOND, peer, tx, rx };
        bench.path.set_patch(member, Some(patch));
        heard
    });
    (bench, heard)
}

#[test]
fn members_may_be_patch_ports_between_bonds_of_two_bridges() {
    let (mut bench, heard) = patched();
    let mut went = |bridge, port, from, to| {
        let frames = [frame(if to == 0 { BROADCAST } else { station(to) }, station(from))];
        let got = bench.send_to_bridge(bridge, port, &frames);
        got.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(went(0, 0, 1, 0), [0, 1, 1, 1], "the flood of one bridge, and of the other");
    assert_eq!(went(1, 1, 2, 1), [1, 0, 0, 0], "known behind both bonds");
    assert_eq!(went(0, 0, 1, 2), [0, 1, 0, 0]);
    // What one bond says comes to the other one, and nobody else.
    let said = pdu::Pdu::default().frame(packet::MacAddr([2, 0, 0, 0, 0, 7]));
    for (member, peer, heard) in [(10, 11, &heard[1]), (11, 10, &heard[0])] {
        assert!(bench.path.send_own(member, &[Frame::from_bytes(&said)], 1));
        let heard = heard.try_recv().unwrap();
        assert_eq!((heard.port, heard.bytes()), (peer, &said[..]));
    }
    assert!(heard.iter().all(|heard| heard.try_recv().is_err()));
    // One that is not in use takes nothing but that.
    let members = vec![Strand { port: 11, receives: Receives::Nothing }];
    let other = Way { bridge: BridgeId(1), table: [NOBODY; BUCKETS], members, ..way(2).0 };
    bench.path.set_bond(BOND + 3, Some((other, Fittings::default())));
    let got = bench.send(0, &[frame(BROADCAST, station(1))]);
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 1, 1]);
    let dropped = bench.path.patches.get(10).unwrap().rx.snapshot();
    assert_eq!(dropped.dropped_for(InactiveMember), 1);
}
