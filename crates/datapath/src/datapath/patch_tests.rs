//! Patch ports on the data path.

use std::sync::Arc;

use ethdev::{DropReason, QueueStats, Stats};
use fdb::Fdb;
use packet::Frame;
use proptest::prelude::*;

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bridge::BridgeChange;
use crate::patch::MAX_HOPS;
use crate::patch::Patch;
use crate::port_set::MAX_PORTS;
use crate::vlan::policy::Policy;
use crate::vlan::{PortVlan, VlanMode};

/// Some bridges, each with one of the bench's ports, and patch ports between them.
struct Net {
    bench: Bench,
    /// For each patch port, which has the number of the bench's ports and its place here together:
    /// its bridge, and its counters.
    patches: Vec<(u16, Arc<QueueStats>, Arc<QueueStats>)>,
}

impl Net {
    fn new(bridges: usize) -> Self {
        let mut bench = Bench::new(bridges);
        for id in 0..u16::try_from(bridges).unwrap() {
            bench.change(0, BridgeChange::Leave(id));
            if id != 0 {
                let fdb = Arc::new(Fdb::new(64, MAX_PORTS, 300));
                bench.change(id, BridgeChange::Open(Bridge::new(fdb, BURST, 0)));
            }
        }
        for id in 0..u16::try_from(bridges).unwrap() {
            bench.change(id, BridgeChange::Join(id, None));
        }
        Self { bench, patches: Vec::new() }
    }

    /// Patch ports between two bridges, each with VLAN settings of its own; returns the first's
    /// place.
    fn connect(&mut self, ends: [(u16, Option<PortVlan>); 2]) -> usize {
        let first = u16::try_from(self.bench.ports() + self.patches.len()).unwrap();
        let stats = [0, 1].map(|_| (Arc::<QueueStats>::default(), Arc::<QueueStats>::default()));
        for (index, (id, vlan)) in (0..).zip(ends.clone()) {
            let policy = vlan.map(|vlan| Arc::new(Policy::from(&vlan)));
            self.bench.change(id, BridgeChange::Join(first + index, policy));
            let other = usize::from(1 - index);
            let patch = Patch {
                bridge: BridgeId(ends[other].0),
                peer: first + 1 - index,
                tx: Arc::clone(&stats[usize::from(index)].1),
                rx: Arc::clone(&stats[other].0),
            };
            self.bench.path.set_patch(first + index, Some(patch));
        }
        let place = self.patches.len();
        for ((id, _), (rx, tx)) in ends.into_iter().zip(stats) {
            self.patches.push((id, rx, tx));
        }
        place
    }

    fn plain(&mut self, a: u16, b: u16) -> usize {
        self.connect([(a, None), (b, None)])
    }

    /// A burst into the bench's port of bridge `id`; how many frames each port gets.
    fn send(&mut self, id: u16, frames: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        self.bench.send_to_bridge(id, id, frames)
    }

    fn counts(&mut self, id: u16, frames: &[Vec<u8>]) -> Vec<usize> {
        self.send(id, frames).iter().map(Vec::len).collect()
    }

    fn rx(&self, place: usize) -> Stats {
        self.patches[place].1.snapshot()
    }

    fn tx(&self, place: usize) -> Stats {
        self.patches[place].2.snapshot()
    }

    fn loops(&self) -> u64 {
        let drops = self.patches.iter().map(|(.., tx)| tx.snapshot());
        drops.map(|stats| stats.dropped_for(DropReason::PatchLoop)).sum()
    }
}

/// What leaves by one end comes in at the other, in the same bridge: a loop ends, and goes nowhere else.
#[test]
fn a_bridge_may_be_its_own_neighbour() {
    let mut net = Net::new(2);
    let place = net.plain(0, 0);
    let got = net.counts(0, &[frame(BROADCAST, station(1))]);
    assert!((1..=2 * MAX_HOPS).contains(&got[0]) && got[1] == 0, "{got:?}");
    assert_eq!(net.loops(), 2);
    let [out, back] = [net.tx(place).packets, net.rx(place + 1).packets];
    assert_eq!((out, out > 1), (back, true));
}

#[test]
fn frames_go_from_bridge_to_bridge_where_a_patch_leads_and_nowhere_else() {
    let mut net = Net::new(4);
    let [a, b] = [net.plain(0, 1), net.plain(1, 2)];
    let one = vec![frame(BROADCAST, station(1)), frame(BROADCAST, station(1))];
    assert_eq!(net.counts(0, &one), [0, 2, 2, 0]);
    for (sent, came) in [(a, a + 1), (b, b + 1)] {
        assert_eq!((net.tx(sent).packets, net.rx(came).packets), (2, 2));
        assert_eq!((net.tx(sent).broadcast, net.rx(came).bytes), (2, 120));
        assert_eq!((net.tx(came).packets, net.rx(sent).packets), (0, 0));
    }
    // What was learnt on the way leads back, and through no other bridge's ports.
    assert_eq!(net.counts(2, &[frame(station(1), station(2))]), [1, 0, 0, 0]);
    assert_eq!(net.counts(0, &[frame(station(2), station(1))]), [0, 0, 1, 0]);
    assert_eq!((net.tx(a).packets, net.rx(a).packets), (3, 1));
    assert_eq!(net.counts(3, &[frame(BROADCAST, station(3))]), [0; 4]);
    // A patch port that leads nowhere any more.
    let port = u16::try_from(4 + b).unwrap();
    net.bench.path.set_patch(port, None);
    assert_eq!(net.counts(0, &one), [0, 2, 0, 0]);
    assert_eq!(net.counts(1, &[frame(station(2), station(9))]), [0; 4]);
    assert_eq!(net.bench.dropped(DropReason::LinkDown), 2);
}

#[test]
fn tags_change_at_both_ends_of_a_patch() {
    let mut net = Net::new(2);
    let access = |tag| Some(PortVlan { tag: Some(tag), ..PortVlan::default() });
    let trunk = |vlans: &str| {
        Some(PortVlan { trunks: Some(vlans.parse().unwrap()), ..PortVlan::default() })
    };
    // VLAN 5 here is VLAN 7 there; VLAN 9 goes as it is; 11 is carried by the one end only.
    net.connect([(0, access(5)), (1, access(7))]);
    let place = net.connect([(0, trunk("9,11")), (1, trunk("9"))]);
    let tagged = |vlan: u8| {
        let bytes = frame(BROADCAST, station(u64::from(vlan)));
        [&bytes[..12], &[0x81, 0, 0, vlan], &bytes[12..]].concat()
    };
    let vlans = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame[15]).collect::<Vec<_>>();
    let burst = [5, 6, 9, 11, 5].map(tagged);
    let mut got = net.send(0, &burst).remove(1);
    // Frames of one patch port stay in order; those of two need not.
    got.sort_by_key(|frame| frame[15]);
    assert_eq!(vlans(&got), [7, 7, 9]);
    assert_eq!(net.rx(place + 1).dropped_for(DropReason::WrongVlan), 1);
    // A service tag around what the other bridge tags already.
    let mut net = Net::new(2);
    let tunnel =
        PortVlan { mode: Some(VlanMode::Dot1qTunnel), tag: Some(3), ..PortVlan::default() };
    net.connect([(0, None), (1, Some(tunnel))]);
    let got = net.send(0, &[tagged(5)]).remove(1);
    assert_eq!(got[0][12..20], [0x88, 0xA8, 0, 3, 0x81, 0, 0, 5]);
    let back = [&tagged(3)[..12], &[0x88, 0xA8, 0, 3, 0x81, 0, 0, 5, 8, 0], &[0; 40]].concat();
    assert_eq!(net.send(1, &[back]).remove(0)[0][12..18], [0x81, 0, 0, 5, 8, 0]);
}

#[test]
fn a_long_way_is_passed_and_a_longer_one_is_a_loop() {
    let mut net = Net::new(MAX_HOPS + 2);
    for id in 0..=u16::try_from(MAX_HOPS).unwrap() {
        net.plain(id, id + 1);
    }
    let counts = net.counts(0, &[frame(BROADCAST, station(1))]);
    assert_eq!(counts[1..=MAX_HOPS], [1; MAX_HOPS]);
    assert_eq!((counts[0], counts[MAX_HOPS + 1], net.loops()), (0, 0, 1));
}

#[test]
fn loops_end_and_are_counted() {
    // Two ways between two bridges: what goes there by one comes back by the other.
    let mut net = Net::new(2);
    (0..2).for_each(|_| _ = net.plain(0, 1));
    let burst: Vec<_> = (0..32).map(|number| frame(BROADCAST, station(number))).collect();
    let counts = net.counts(0, &burst);
    assert_eq!(counts, [32 * MAX_HOPS, 32 * MAX_HOPS]);
    assert_eq!(net.loops(), 64);
    // The next burst is like the first: nothing was left behind.
    assert_eq!(net.counts(0, &burst), counts);
    // Twenty ways, where frames multiply at each step.
    let mut net = Net::new(2);
    (0..20).for_each(|_| _ = net.plain(0, 1));
    let counts = net.counts(0, &burst);
    assert!(counts.iter().sum::<usize>() <= 32 * MAX_PORTS / 2, "{counts:?}");
    assert!(net.loops() > 0);
}

#[test]
fn as_many_bridges_as_there_can_be_are_reached_from_one() {
    let many = MAX_PORTS / 2;
    let mut net = Net::new(many + 1);
    for id in 1..=u16::try_from(many).unwrap() {
        net.plain(0, id);
    }
    let counts = net.counts(0, &[frame(BROADCAST, station(1))]);
    assert_eq!((counts[0], counts.iter().sum::<usize>(), net.loops()), (0, many, 0));
}

/// A tree of bridges: each but the first has a patch to one before it.
fn tree() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<prop::sample::Index>(), 1..12).prop_map(|parents| {
        parents.iter().enumerate().map(|(child, parent)| parent.index(child + 1)).collect()
    })
}

proptest! {
    /// Bridges without loops are to their stations what one bridge is, but that those which a
    /// station's frames have not passed yet flood what is for it.
    #[test]
    fn a_tree_of_bridges_forwards_as_one_bridge(
        parents in tree(),
        frames in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                0..3_u64,
                prop::option::of((any::<prop::sample::Index>(), 0..3_u64)),
            ),
            1..40,
        ),
    ) {
        let count = parents.len() + 1;
        let mut net = Net::new(count);
        for (child, parent) in (1..).zip(&parents) {
            net.plain(u16::try_from(*parent).unwrap(), child);
        }
        let mut one = Bench::new(count);
        for (from, source, to) in frames {
            let port = u16::try_from(from.index(count)).unwrap();
            // Stations stay behind their ports.
            let of = |port: u16, number: u64| station(100 * u64::from(port) + number);
            let to = to.map_or(BROADCAST, |(at, to)| {
                of(u16::try_from(at.index(count)).unwrap(), to)
            });
            let bytes = frame(to, of(port, source));
            let expected = one.send(port, std::slice::from_ref(&bytes));
            let got = net.send(port, &[bytes]);
            for (out, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let is_flooded = expected.is_empty() && out != usize::from(port);
                prop_assert!(got == expected || is_flooded && got.len() == 1);
            }
        }
        prop_assert_eq!(net.loops(), 0);
    }
}

#[test]
fn a_large_segment_passes_in_one_piece() {
    let (mut bytes, offload) = crate::header::tests::large_segment();
    bytes[..6].fill(0xFF);
    bytes[6..12].copy_from_slice(&station(1).to_be_bytes()[2..]);
    let mut net = Net::new(2);
    let place = net.plain(0, 1);
    let large = Frame::from_bytes(&bytes).with_offload(offload);
    let got = net.bench.send_frames(0, &[large]);
    assert_eq!((net.tx(place).packets, net.tx(place).bytes), (1, bytes.len() as u64));
    // It is cut where it goes out.
    assert!(got[1].len() > 30);
}
