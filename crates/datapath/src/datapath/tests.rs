use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use ethdev::{DropReason, PacketTally, RxDriver, RxQueue, Sent, Stats, TxDriver, TxQueue};
use fdb::Fdb;
use packet::{FrameBatch, Pool};
use proptest::prelude::*;

use super::*;
use crate::bridge::BridgeChange;
use crate::output::Output;

/// What a test port does and what it got.
#[derive(Debug)]
struct Peer {
    got: Mutex<Vec<Vec<u8>>>,
    /// Frames that find room in all.
    room: AtomicUsize,
    /// The most frames that one call takes.
    per_call: AtomicUsize,
    ready: AtomicBool,
    flushes: AtomicUsize,
    /// How many flushes it takes until all is sent.
    unfinished: AtomicUsize,
    stats: Arc<QueueStats>,
}

impl Peer {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            got: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            per_call: AtomicUsize::new(BURST),
            ready: AtomicBool::new(true),
            flushes: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            stats: Arc::default(),
        })
    }

    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.got.lock().unwrap())
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.stats.snapshot().dropped_for(reason)
    }
}

struct Sender(Arc<Peer>);

impl TxDriver for Sender {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        let room = self.0.room.load(Relaxed);
        let count = frames.len().min(room).min(self.0.per_call.load(Relaxed));
        self.0.room.store(room - count, Relaxed);
        self.0.got.lock().unwrap().extend(frames[..count].iter().map(Frame::to_vec));
        Sent::first(count)
    }

    fn is_ready(&self) -> bool {
        self.0.ready.load(Relaxed)
    }

    fn flush(&mut self) -> bool {
        self.0.flushes.fetch_add(1, Relaxed);
        let left = self.0.unfinished.load(Relaxed).saturating_sub(1);
        self.0.unfinished.store(left, Relaxed);
        left > 0
    }
}

/// A data path with some ports, of one queue each.
pub(super) struct Bench {
    pub(super) path: Datapath,
    peers: Vec<Arc<Peer>>,
    stats: QueueStats,
}

impl Bench {
    pub(super) fn new(ports: usize) -> Self {
        Self::with(ports, Fdb::new(64, crate::port_set::MAX_PORTS, 300), 1500, 0)
    }

    fn with(ports: usize, fdb: Fdb, mtu: u32, retries: u32) -> Self {
        let cache = Pool::new("test", 1, 64).unwrap().cache();
        let mut path = Datapath::new(cache);
        let bridge = Bridge::new(Arc::new(fdb), BURST, 0);
        path.change_bridge(BridgeId::DEFAULT, BridgeChange::Open(bridge));
        let peers: Vec<_> = (0..ports).map(|_| Peer::new()).collect();
        for (port, peer) in (0..).zip(&peers) {
            let queue = TxQueue::new(Box::new(Sender(Arc::clone(peer))), Arc::clone(&peer.stats));
            let mtu = Arc::new(AtomicU32::new(mtu));
            let output = Output::new(vec![queue], (0, 1), 0, mtu, retries);
            assert!(path.set_output(port, Some(output)).is_none());
            path.change_bridge(BridgeId::DEFAULT, BridgeChange::Join(port, None));
        }
        Self { path, peers, stats: QueueStats::default() }
    }

    /// A burst into `port`; returns what each port got.
    pub(super) fn send(&mut self, port: u16, frames: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        self.send_to_bridge(0, port, frames)
    }

    pub(super) fn send_frames(&mut self, port: u16, frames: &[Frame<'_>]) -> Vec<Vec<Vec<u8>>> {
        self.send_from(0, port, frames)
    }

    /// A burst into `port` of bridge `id`; returns what each port got.
    pub(super) fn send_to_bridge(
        &mut self,
        id: u16,
        port: u16,
        frames: &[Vec<u8>],
    ) -> Vec<Vec<Vec<u8>>> {
        let frames: Vec<_> = frames.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
        self.send_from(id, port, &frames)
    }

    fn send_from(&mut self, id: u16, port: u16, frames: &[Frame<'_>]) -> Vec<Vec<Vec<u8>>> {
        let source = Source { bridge: BridgeId(id), ..from(port, &self.stats) };
        self.path.forward(Burst::new(frames).compared(), &source, false);
        self.path.flush();
        self.peers.iter().map(|peer| peer.take()).collect()
    }

    /// The number of its ports.
    pub(super) fn ports(&self) -> usize {
        self.peers.len()
    }

    /// Changes bridge `id`.
    pub(super) fn change(&mut self, id: u16, change: BridgeChange) {
        self.path.change_bridge(BridgeId(id), change);
    }

    /// The default bridge.
    pub(super) fn bridge(&mut self) -> &mut Bridge {
        let Datapath { bridges, apart, .. } = &mut self.path;
        bridges[0].as_mut().or(apart[0].as_mut()).unwrap()
    }

    fn counts(&mut self, port: u16, frames: &[Vec<u8>]) -> Vec<usize> {
        self.send(port, frames).iter().map(Vec::len).collect()
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.stats.snapshot().dropped_for(reason)
    }

    /// Frames to `port` that were dropped.
    pub(super) fn dropped_to(&self, port: usize, reason: DropReason) -> u64 {
        self.peers[port].dropped(reason)
    }
}

/// A burst into `port` of the default bridge.
fn from(port: u16, stats: &QueueStats) -> Source<'_> {
    Source::new((BridgeId::DEFAULT, port), stats, 0)
}

pub(super) const BROADCAST: u64 = 0xFFFF_FFFF_FFFF;

pub(super) fn station(number: u64) -> u64 {
    0x5254_0000_0000 + number
}

fn frame_of(to: u64, from: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..6].copy_from_slice(&to.to_be_bytes()[2..]);
    bytes[6..12].copy_from_slice(&from.to_be_bytes()[2..]);
    bytes[12..14].copy_from_slice(&[0x88, 0xB5]);
    bytes
}

pub(super) fn frame(to: u64, from: u64) -> Vec<u8> {
    frame_of(to, from, 60)
}

#[test]
fn it_floods_learns_and_follows_a_move() {
    let mut bench = Bench::new(4);
    let (a, b) = (station(1), station(2));
    assert_eq!(bench.counts(3, &[frame(BROADCAST, a)]), [1, 1, 1, 0]);
    assert_eq!(bench.counts(1, &[frame(a, b)]), [0, 0, 0, 1]);
    assert_eq!(bench.counts(3, &[frame(b, a)]), [0, 1, 0, 0]);
    // a appears on port 2.
    assert_eq!(bench.counts(2, &[frame(b, a)]), [0, 1, 0, 0]);
    assert_eq!(bench.counts(1, &[frame(a, b)]), [0, 0, 1, 0]);
    assert_eq!(bench.counts(0, &[frame(station(9), station(3))]), [0, 1, 1, 1]);
    assert_eq!(bench.counts(0, &[frame(0x0100_5E00_0001, station(3))]), [0, 1, 1, 1]);
}

#[test]
fn frames_without_a_sensible_destination_or_source_are_dropped_and_counted() {
    let mut bench = Bench::new(2);
    let (a, b) = (station(1), station(2));
    let none = [0, 0];
    assert_eq!(bench.counts(0, &[vec![0xFF; 13], Vec::new()]), none);
    assert_eq!(bench.dropped(DropReason::TooShort), 2);
    assert_eq!(bench.counts(0, &[frame(b, 0), frame(b, BROADCAST), frame(b, 1 << 40)]), none);
    assert_eq!(bench.dropped(DropReason::BadSource), 3);
    let reserved = [frame(0x0180_C200_0000, a), frame(0x0180_C200_000E, a)];
    assert_eq!(bench.counts(0, &reserved), none);
    assert_eq!(bench.dropped(DropReason::ReservedMulticast), 2);
    assert_eq!(bench.counts(0, &[frame(0x0180_C200_0010, a)]), [0, 1]);
    assert_eq!(bench.counts(0, &[frame(a, b), frame(b, a)]), none);
    assert_eq!(bench.dropped(DropReason::Hairpin), 2);
}

#[test]
fn frames_from_any_address_pass_where_that_is_wanted_and_nothing_is_learnt_from_them() {
    let mut bench = Bench::new(3);
    let fdb = Arc::new(Fdb::new(64, crate::port_set::MAX_PORTS, 300));
    let set = BridgeChange::Set {
        fdb: Arc::clone(&fdb),
        learn_per_burst: BURST,
        group_fwd_mask: 0,
        vlan_aware: false,
        any_source: true,
    };
    bench.path.change_bridge(BridgeId::DEFAULT, set);
    let (a, b) = (station(1), station(2));
    let odd = [frame(b, 0), frame(b, 0), frame(a, BROADCAST), frame(BROADCAST, 1 << 40)];
    assert_eq!(bench.counts(0, &odd), [0, 4, 4]);
    assert_eq!((bench.dropped(DropReason::BadSource), fdb.len()), (0, 0));
    // Among others, which are learnt from, and to those.
    assert_eq!(bench.counts(1, &[frame(b, 0), frame(b, a), frame(b, 0)]), [3, 0, 3]);
    assert_eq!(bench.counts(2, &[frame(a, 0), frame(a, 1 << 40), frame(0, b)]), [1, 3, 0]);
    assert_eq!((bench.counts(0, &[frame(0, a)]), fdb.len()), ([0, 1, 1].to_vec(), 2));
    assert_eq!(bench.counts(0, &[frame(0x0180_C200_0000, 0)]), [0, 0, 0]);
    assert_eq!(bench.dropped(DropReason::ReservedMulticast), 1);
}

#[test]
fn a_burst_to_many_is_split_and_stays_in_order() {
    let mut bench = Bench::new(4);
    for port in 0..4 {
        bench.send(port, &[frame(BROADCAST, station(u64::from(port)))]);
    }
    let numbered = |to: u64, number: u8| {
        let mut bytes = frame(to, station(0));
        bytes[20] = number;
        bytes
    };
    let to = [1, 2, 1, 3, 2, 2, 1, 1];
    let burst: Vec<_> = (0..).zip(to).map(|(n, port)| numbered(station(port), n)).collect();
    let got = bench.send(0, &burst);
    let order = |port: usize| got[port].iter().map(|frame| frame[20]).collect::<Vec<_>>();
    assert_eq!([order(1), order(2), order(3)], [vec![0, 2, 6, 7], vec![1, 4, 5], vec![3]]);
    // With a broadcast in the middle.
    let to = [station(1), BROADCAST, station(2), station(1)];
    let burst: Vec<_> = (0..).zip(to).map(|(n, to)| numbered(to, n)).collect();
    let got = bench.send(0, &burst);
    let order = |port: usize| got[port].iter().map(|frame| frame[20]).collect::<Vec<_>>();
    assert_eq!([order(1), order(2), order(3)], [vec![0, 1, 3], vec![1, 2], vec![1]]);
}

#[test]
fn the_mtu_of_the_destination_holds() {
    let mut bench = Bench::with(3, Fdb::new(64, 16, 300), 1500, 0);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    let mut tagged = frame_of(station(1), station(0), 1518);
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    let burst = [
        frame_of(station(1), station(0), 1514),
        frame_of(station(1), station(0), 1515),
        tagged,
        frame_of(station(1), station(0), 9000),
    ];
    let lengths = |got: &[Vec<u8>]| got.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(&bench.send(0, &burst)[1]), [1514, 1518]);
    assert_eq!(bench.peers[1].dropped(DropReason::TooLong), 2);
    bench.send(0, &[frame_of(BROADCAST, station(0), 1600)]);
    let dropped = [0, 1, 2].map(|port| bench.peers[port].dropped(DropReason::TooLong));
    assert_eq!(dropped, [0, 3, 1]);
}

#[test]
fn a_full_ring_drops_what_does_not_fit() {
    let mut bench = Bench::new(3);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    bench.peers[1].room.store(5, Relaxed);
    let burst = vec![frame(station(1), station(0)); 8];
    assert_eq!(bench.counts(0, &burst), [0, 5, 0]);
    assert_eq!(bench.peers[1].dropped(DropReason::RingFull), 3);
    // It goes on while there is progress, at one frame a time.
    bench.peers[1].room.store(usize::MAX, Relaxed);
    bench.peers[1].per_call.store(1, Relaxed);
    assert_eq!(bench.counts(0, &burst), [0, 8, 0]);
    // Flooding to a full port does not hinder the others.
    bench.peers[1].room.store(0, Relaxed);
    assert_eq!(bench.counts(0, &[frame(BROADCAST, station(0))]), [0, 0, 1]);
    assert_eq!(bench.peers[1].dropped(DropReason::RingFull), 4);
}

#[test]
fn ports_that_are_not_ready_are_left_out() {
    let mut bench = Bench::new(3);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    bench.peers[1].ready.store(false, Relaxed);
    assert_eq!(bench.counts(0, &[frame(station(1), station(0))]), [0, 0, 0]);
    assert_eq!(bench.peers[1].dropped(DropReason::LinkDown), 1);
    assert_eq!(bench.counts(0, &[frame(BROADCAST, station(0))]), [0, 0, 1]);
    assert_eq!(bench.peers[1].dropped(DropReason::LinkDown), 1);
    // In one burst: the broadcast goes to the others, the unicast frame is lost.
    let burst = [frame(station(1), station(0)), frame(BROADCAST, station(0))];
    assert_eq!(bench.counts(0, &burst), [0, 0, 1]);
    assert_eq!(bench.peers[1].dropped(DropReason::LinkDown), 2);
    // Nobody at all.
    bench.peers[2].ready.store(false, Relaxed);
    assert_eq!(bench.counts(0, &[frame(BROADCAST, station(0))]), [0, 0, 0]);
    assert_eq!(bench.dropped(DropReason::LinkDown), 1);
    // A port that is gone, although its address is known.
    bench.peers[1].ready.store(true, Relaxed);
    assert_eq!(bench.counts(0, &[frame(station(1), station(0))]), [0, 1, 0]);
    assert!(bench.path.set_output(1, None).is_some());
    assert_eq!(bench.counts(0, &[frame(station(1), station(0))]), [0, 0, 0]);
    assert_eq!(bench.dropped(DropReason::LinkDown), 2);
}

#[test]
fn a_burst_learns_no_more_than_allowed() {
    let mut bench = Bench::new(2);
    bench.bridge().learn_per_burst = 3;
    let burst: Vec<_> = (0..20).map(|number| frame(BROADCAST, station(number))).collect();
    assert_eq!(bench.counts(0, &burst), [0, 20]);
    assert_eq!(bench.bridge().fdb.len(), 3);
    bench.send(0, &burst);
    assert_eq!(bench.bridge().fdb.len(), 6);
}

#[test]
fn while_somebody_changes_the_database_frames_still_flow() {
    let mut bench = Bench::new(2);
    let fdb = Arc::clone(&bench.bridge().fdb);
    let writer = fdb.write();
    assert_eq!(bench.counts(0, &[frame(BROADCAST, station(1))]), [0, 1]);
    drop(writer);
    assert!(fdb.is_empty());
    bench.send(0, &[frame(BROADCAST, station(1))]);
    assert_eq!(fdb.len(), 1);
}

#[test]
fn a_port_is_flushed_once_per_round() {
    let mut bench = Bench::new(3);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    let before = bench.peers[1].flushes.load(Relaxed);
    let bytes = frame(station(1), station(0));
    for _ in 0..3 {
        let source = from(0, &bench.stats);
        bench.path.forward(Burst::new(&[Frame::from_bytes(&bytes)]), &source, false);
    }
    bench.path.flush();
    bench.path.flush();
    assert_eq!(bench.peers[1].flushes.load(Relaxed), before + 1);
    assert_eq!(bench.peers[1].take().len(), 3);
}

#[test]
fn a_port_whose_device_has_not_taken_all_is_flushed_again() {
    let mut bench = Bench::new(2);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    let before = bench.peers[1].flushes.load(Relaxed);
    bench.peers[1].unfinished.store(3, Relaxed);
    let bytes = frame(station(1), station(0));
    let mut forward = || {
        let source = from(0, &bench.stats);
        bench.path.forward(Burst::new(&[Frame::from_bytes(&bytes)]), &source, false);
        bench.path.flush()
    };
    // More frames in between change nothing.
    assert_eq!([forward(), forward()], [true, true]);
    assert!(!bench.path.flush(), "the third time it has taken all");
    assert!(!bench.path.flush());
    assert_eq!(bench.peers[1].flushes.load(Relaxed), before + 3);
}

#[test]
fn workers_use_the_ready_queues_in_turn() {
    let peers = [Peer::new(), Peer::new(), Peer::new()];
    let bytes = frame(BROADCAST, station(1));
    let mut used_by = |worker| {
        let queue = |peer: &Arc<Peer>| {
            TxQueue::new(Box::new(Sender(Arc::clone(peer))), Arc::clone(&peer.stats))
        };
        let queues = peers.iter().map(queue).collect();
        let mut output = Output::new(queues, (worker, 4), 0, Arc::new(AtomicU32::new(1500)), 0);
        assert!(output.is_ready(0));
        assert!(output.send(Burst::new(&[Frame::from_bytes(&bytes)]), 1));
        peers.iter().position(|peer| !peer.take().is_empty()).unwrap()
    };
    assert_eq!([0, 1, 2, 3].map(&mut used_by), [0, 1, 2, 0]);
    peers[1].ready.store(false, Relaxed);
    assert_eq!([0, 1, 2, 3].map(&mut used_by), [0, 2, 0, 2]);
}

#[test]
fn flows_spread_over_the_queues_of_a_worker_and_stay_in_order() {
    let peers = [Peer::new(), Peer::new(), Peer::new(), Peer::new()];
    let queue = |peer: &Arc<Peer>| {
        TxQueue::new(Box::new(Sender(Arc::clone(peer))), Arc::clone(&peer.stats))
    };
    let queues = peers.iter().map(queue).collect();
    let mtu = Arc::new(AtomicU32::new(1500));
    let mut bench = Bench::new(2);
    bench.path.set_output(1, Some(Output::new(queues, (0, 1), 0, mtu, 0)));
    let burst: Vec<_> = (0..BURST as u64)
        .map(|number| {
            let mut bytes = frame(BROADCAST, station(number % 8));
            bytes[20] = u8::try_from(number).unwrap();
            bytes
        })
        .collect();
    bench.send(0, &burst);
    let got = peers.each_ref().map(|peer| peer.take());
    assert_eq!(got.iter().map(Vec::len).sum::<usize>(), BURST);
    assert!(got.iter().filter(|got| !got.is_empty()).count() > 1);
    for flow in 0..8 {
        let all: Vec<_> = burst.iter().skip(flow).step_by(8).cloned().collect();
        let of_flow = |got: &Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            got.iter().filter(|bytes| bytes[6..12] == all[0][6..12]).cloned().collect()
        };
        let where_it_is = got.iter().map(of_flow).filter(|got| !got.is_empty());
        assert_eq!(where_it_is.collect::<Vec<_>>(), std::slice::from_ref(&all));
    }
    // Every queue that was used is flushed.
    assert!(
        peers
            .iter()
            .zip(&got)
            .all(|(peer, got)| { peer.flushes.load(Relaxed) > 0 || got.is_empty() })
    );
    peers.iter().for_each(|peer| peer.ready.store(false, Relaxed));
    peers[2].ready.store(true, Relaxed);
    bench.send(0, &burst);
    assert_eq!(peers[2].take().len(), BURST);
}

/// What the switch must do with one frame, by the rules and without any cleverness. Returns the
/// ports where it goes out.
fn model(
    known: &mut HashMap<u64, u16>,
    ports: u16,
    port: u16,
    to: u64,
    from: u64,
) -> Result<Vec<u16>, DropReason> {
    if from == 0 || from >> 40 & 1 != 0 {
        return Err(DropReason::BadSource);
    }
    if to & !0xF == 0x0180_C200_0000 {
        return Err(DropReason::ReservedMulticast);
    }
    known.insert(from, port);
    match known.get(&to) {
        Some(out) if *out == port => Err(DropReason::Hairpin),
        Some(out) => Ok(vec![*out]),
        None => Ok((0..ports).filter(|out| *out != port).collect()),
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => (0..6_u64).prop_map(station),
        2 => Just(BROADCAST),
        1 => Just(0x0180_C200_0002_u64),
        1 => Just(0_u64),
    ]
}

proptest! {
    #[test]
    fn every_frame_goes_where_it_belongs(
        bursts in prop::collection::vec(
            (0..4_u16, prop::collection::vec((address(), address()), 1..=BURST)), 1..20)
    ) {
        let mut bench = Bench::new(4);
        let mut known = HashMap::new();
        let mut number = 0_u32;
        let mut sent = 0;
        let mut delivered = 0;
        for (port, addresses) in bursts {
            // A burst first learns all its sources, then looks all destinations up.
            for (to, from) in &addresses {
                let _ = model(&mut known, 4, port, *to, *from);
            }
            let mut expected = vec![Vec::new(); 4];
            let mut burst = Vec::new();
            for (to, from) in addresses {
                let mut bytes = frame(to, from);
                bytes[20..24].copy_from_slice(&number.to_be_bytes());
                number += 1;
                for out in model(&mut known, 4, port, to, from).unwrap_or_default() {
                    expected[usize::from(out)].push(bytes.clone());
                }
                burst.push(bytes);
            }
            sent += burst.len();
            let got = bench.send(port, &burst);
            delivered += got.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(got, expected);
        }
        let total: Stats = bench.peers.iter().map(|peer| peer.stats.snapshot()).sum();
        prop_assert_eq!(total.packets, delivered as u64);
        prop_assert_eq!(total.dropped(), 0);
        prop_assert!(bench.stats.snapshot().dropped() <= sent as u64);
    }
}

/// Receives bursts of frames in packet buffers, as a network card's queue does.
struct Card {
    pool: PoolCache,
    next: Vec<Vec<u8>>,
    packets: Vec<Packet>,
    batch: FrameBatch,
}

impl Card {
    fn queue(pool: &Pool, frames: &[Vec<u8>]) -> RxQueue {
        let (pool, next) = (pool.cache(), frames.to_vec());
        let batch = FrameBatch::with_segments(0);
        RxQueue::new(Box::new(Self { pool, next, packets: Vec::new(), batch }), Arc::default())
    }
}

impl RxDriver for Card {
    fn receive(&mut self, _max: usize, _stats: &QueueStats) {
        for bytes in std::mem::take(&mut self.next) {
            assert!(self.batch.push_copy(&bytes));
            self.packets.push(self.pool.copy_frame(&Frame::from_bytes(&bytes)).unwrap());
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
        self.packets.clear();
    }

    fn gives_packets(&self) -> bool {
        true
    }

    fn take_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        _cache: &mut PoolCache,
        _stats: &QueueStats,
    ) {
        self.batch.clear();
        packets.extend(self.packets.drain(..));
    }
}

/// A card's transmit side: keeps packets while it has room, and counts frames that it must copy.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<(Vec<Packet>, usize)>>);

impl TxDriver for Keeper {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        self.0.lock().unwrap().1 += frames.len();
        Sent::first(frames.len())
    }

    fn keeps_packets(&self) -> bool {
        true
    }

    fn transmit_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        _cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        let (kept, _) = &mut *self.0.lock().unwrap();
        let mut tally = PacketTally::default();
        let room = 3_usize.saturating_sub(kept.len()).min(packets.len());
        for packet in packets.drain(..room) {
            tally.add(packet.len(), packet.data());
            kept.push(packet);
        }
        stats.count_tally(&tally);
    }
}

#[test]
fn a_burst_from_card_to_card_is_given_not_copied() {
    let pool = Pool::new("test", 64, 2048).unwrap();
    let mut bench = Bench::new(2);
    let keeper = Keeper::default();
    let stats = Arc::<QueueStats>::default();
    let queue = TxQueue::new(Box::new(keeper.clone()), Arc::clone(&stats));
    let mtu = Arc::new(AtomicU32::new(1500));
    bench.path.set_output(1, Some(Output::new(vec![queue], (0, 1), u64::MAX, mtu, 0)));
    // The station behind the card is known from what it sent.
    let back = frame(0x2B, 0x2A);
    bench.path.forward(Burst::new(&[Frame::from_bytes(&back)]), &from(1, &bench.stats), false);
    let there = frame(0x2A, 0x2B);
    let mut forward = |frames: &[Vec<u8>]| {
        let mut rx = Card::queue(&pool, frames);
        let source = from(0, &bench.stats);
        bench.path.forward_burst(rx.rx_burst(BURST), &source);
        let (kept, copied) = &*keeper.0.lock().unwrap();
        (kept.len(), *copied, stats.snapshot())
    };
    let (kept, copied, counted) = forward(&[there.clone(), there.clone()]);
    assert_eq!((kept, copied, counted.packets), (2, 0, 2));
    // Not the whole burst: one frame goes back where it came from.
    let (kept, copied, counted) = forward(&[there.clone(), frame(0x2B, 0x2B)]);
    assert_eq!((kept, copied, counted.packets), (2, 1, 3));
    // There is room for one more.
    let (kept, copied, counted) = forward(&[there.clone(), there]);
    assert_eq!((kept, copied, counted.packets), (3, 1, 4));
    assert_eq!(counted.dropped_for(DropReason::RingFull), 1);
    keeper.0.lock().unwrap().0.clear();
    assert_eq!(pool.available(), pool.capacity(), "every buffer came back");
}
