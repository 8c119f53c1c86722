//! Rings against back-ends that break the rules.

use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use arrayvec::ArrayVec;
use eal::dma::{AddressSpace, DeviceAddresses};
use eal::mem::Pages;
use eal::{Closer, DmaSpace, EventFd, PeerEvent, SharedMemory};
use ethdev::{DropReason, QueueStats, RxQueue, TxQueue};
use packet::{BURST, Capabilities, Frame, Packet, Pool};
use proptest::prelude::*;
use virtio::driver::SplitQueue;
use virtio::ring::QueueSize;

use super::kick::Kick;
use super::lane::Lane;
use super::memory::{DEVICE_BASE, Parts, Slots};
use super::receive::{Agreed, Receiver, RxRing};
use super::store::PacketStore;
use super::transmit::{Tables, Transmitter, TxRing};

const SIZE: u16 = 8;
const ROOM: usize = 2176;
const HEADER: usize = 12;

/// A ring without a back-end, in whose memory tests write what they like.
struct Bench {
    memory: Parts,
    used: u64,
    index: u16,
    wake: Arc<EventFd>,
}

impl Bench {
    fn new() -> (Self, SplitQueue, Slots) {
        let mut memory = Parts::shared("hostile", 100_000).unwrap();
        let size = QueueSize::new(SIZE).unwrap();
        let part = memory.take(SplitQueue::bytes(size)).unwrap();
        let queue = SplitQueue::new(part, size, false).unwrap();
        let slots = Slots::new(&mut memory, SIZE, ROOM).unwrap();
        let used = queue.device_addresses().2;
        let wake = Arc::new(EventFd::new().unwrap());
        (Self { memory, used, index: 0, wake }, queue, slots)
    }

    /// A receive queue with all buffers posted, and where each of them starts.
    fn receiver() -> (Self, RxQueue, Arc<QueueStats>, Vec<u64>, Arc<Lane<RxRing>>) {
        let (bench, queue, slots) = Self::new();
        let starts = (0..SIZE).map(|id| slots.part(id, HEADER, 0).unwrap().device()).collect();
        let agreed = Agreed { header: HEADER, mergeable: true, offloads: Capabilities::all() };
        let ring = RxRing::new(queue, slots, agreed, kick());
        let lane = Arc::new(Lane::new(&bench.wake, &Closer::default()).unwrap());
        lane.install(ring);
        let stats = Arc::new(QueueStats::default());
        let driver = Receiver::new(Arc::clone(&lane), SIZE, false);
        let rx = RxQueue::new(Box::new(driver), Arc::clone(&stats));
        (bench, rx, stats, starts, lane)
    }

    /// The same with packets, and where the descriptors are.
    fn packet_receiver() -> (Self, RxQueue, u64) {
        let (bench, queue, _) = Self::new();
        let table = queue.device_addresses().0;
        let agreed = Agreed { header: HEADER, mergeable: true, offloads: Capabilities::all() };
        let space = DmaSpace::new(Arc::new(Same));
        let packets = PacketStore::new("hostile", SIZE, ROOM, &space).unwrap();
        let shared = Arc::clone(bench.memory.memory());
        let ring = RxRing::with_packets(queue, packets, agreed, kick(), shared);
        let lane = Arc::new(Lane::new(&bench.wake, &Closer::default()).unwrap());
        lane.install(ring);
        let driver = Receiver::new(lane, SIZE, true);
        (bench, RxQueue::new(Box::new(driver), Arc::default()), table)
    }

    /// Where descriptor `id` of the table at `table` has its buffer.
    fn buffer(&self, table: u64, id: u32) -> u64 {
        let offset = usize::try_from(table - DEVICE_BASE).unwrap() + 16 * id as usize;
        let shared = self.memory.memory().shared();
        // SAFETY: the table has SIZE descriptors, of which this is one; nobody writes meanwhile.
        unsafe { shared.as_ptr().add(offset).cast::<u64>().read_unaligned() }
    }

    fn transmitter() -> (Self, TxQueue, Arc<Lane<TxRing>>) {
        let (mut bench, queue, slots) = Self::new();
        let tables = Tables::new(bench.memory.take(Tables::bytes(SIZE)).unwrap());
        let offloads = Capabilities::all();
        let ring = TxRing::new(queue, slots, HEADER, Some(tables), offloads, kick());
        let lane = Arc::new(Lane::new(&bench.wake, &Closer::default()).unwrap());
        lane.install(ring);
        let driver = Transmitter::new(Arc::clone(&lane), Arc::new(AtomicU16::new(9000)), false);
        let tx = TxQueue::new(Box::new(driver), Arc::new(QueueStats::default()));
        (bench, tx, lane)
    }

    fn write<T>(&self, address: u64, value: T) {
        let offset = usize::try_from(address - DEVICE_BASE).unwrap();
        let shared = self.memory.memory().shared();
        assert!(offset + size_of::<T>() <= shared.len());
        // SAFETY: checked to be inside; the rings access this memory by volatile and atomic words
        // on this same thread.
        unsafe { shared.as_ptr().add(offset).cast::<T>().write_unaligned(value) }
    }

    /// Adds an element to the used ring.
    fn push_used(&mut self, id: u32, len: u32) {
        let entry = self.used + 4 + 8 * u64::from(self.index % SIZE);
        self.write(entry, id);
        self.write(entry + 4, len);
        self.index = self.index.wrapping_add(1);
        self.write(self.used + 2, self.index);
    }

    /// Writes a net header and a first byte into slot `id`.
    fn fill(&self, start: u64, num_buffers: u16, first: u8) {
        self.write(start + 10, num_buffers);
        self.write(start + 12, first);
    }
}

/// A device that sees memory where this process does.
#[derive(Debug)]
struct Same;

impl AddressSpace for Same {
    fn pages(&self) -> Pages {
        Pages::Plain
    }

    fn piece_len(&self) -> usize {
        usize::MAX
    }

    unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
        Ok(DeviceAddresses::Contiguous(memory.as_ptr().expose_provenance().get() as u64))
    }

    fn unmap(&self, _memory: &SharedMemory, _addresses: &DeviceAddresses) {}
}

fn kick() -> Kick {
    Kick::Event(PeerEvent::new().unwrap())
}

fn frame_lens(rx: &mut RxQueue) -> Vec<usize> {
    rx.rx_burst(BURST).frames().iter().map(Frame::len).collect()
}

#[test]
fn offloads_that_are_not_true_are_refused() {
    let (mut bench, mut rx, stats, slots, _lane) = Bench::receiver();
    // Flags, GSO type, header length, segment size, checksum start and offset.
    let headers: [[u8; 10]; 4] = [
        [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        [1, 0, 0, 0, 0, 0, 34, 0, 60, 0],
        [1, 1, 0, 0, 1, 0, 34, 0, 16, 0],
        [0, 0x7F, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for ((id, start), header) in (0..).zip(&slots).zip(headers) {
        bench.fill(*start, 1, 7);
        bench.write(*start, header);
        bench.push_used(id, 12 + 80);
    }
    assert_eq!(frame_lens(&mut rx), [] as [usize; 0]);
    assert_eq!(stats.snapshot().dropped_for(DropReason::BadHeader), 4);
    // The checksum is known to be good.
    bench.fill(slots[4], 1, 7);
    bench.write(slots[4], [2_u8, 0]);
    bench.push_used(4, 12 + 80);
    assert!(rx.rx_burst(BURST).frames()[0].offload().is_data_valid());
}

#[test]
fn bad_frames_are_counted_and_their_buffers_come_back() {
    let (mut bench, mut rx, stats, slots, lane) = Bench::receiver();
    // More rounds than there are buffers: a lost one would be missed.
    for round in 1..=20 {
        let id = |index: u32| (index + 4 * (round - 1)) % u32::from(SIZE);
        let start = |index| slots[id(index) as usize];
        for index in 0..3 {
            bench.fill(start(index), 1, 7);
        }
        bench.push_used(id(0), 11);
        bench.push_used(id(1), 25);
        bench.push_used(id(2), 26);
        bench.fill(start(3), 9, 7);
        bench.push_used(id(3), 1000);
        assert_eq!(frame_lens(&mut rx), [14], "round {round}");
        let drops = stats.snapshot().drops;
        assert_eq!(drops[DropReason::TooShort as usize], 2 * u64::from(round));
        assert_eq!(drops[DropReason::BadHeader as usize], u64::from(round));
        let _ = rx.rx_burst(BURST);
    }
    assert_eq!(lane.fault(), None);
}

#[test]
fn a_frame_over_several_buffers_is_put_together() {
    let (mut bench, mut rx, _, slots, _) = Bench::receiver();
    bench.fill(slots[5], 3, 0xA1);
    bench.push_used(5, 12 + 1);
    bench.write(slots[0], 0xB2_u8);
    bench.push_used(0, 20);
    bench.write(slots[7], 0xC3_u8);
    bench.push_used(7, 2188);
    bench.fill(slots[1], 1, 0xD4);
    bench.push_used(1, 12 + 60);
    let burst = rx.rx_burst(BURST);
    let [long, short] = burst.frames() else { panic!("two frames") };
    let bytes = long.to_vec();
    assert_eq!(bytes.len(), 1 + 20 + 2188);
    assert_eq!((bytes[0], bytes[1], bytes[21]), (0xA1, 0xB2, 0xC3));
    assert_eq!((short.len(), short.head()[0]), (60, 0xD4));
}

#[test]
fn a_burst_may_end_in_the_middle_of_what_was_asked_for() {
    let (mut bench, mut rx, stats, slots, _) = Bench::receiver();
    for id in [0_u8, 2] {
        bench.fill(slots[usize::from(id)], 2, 1);
        bench.push_used(id.into(), 100);
        bench.push_used(u32::from(id) + 1, 50);
    }
    let first: Vec<usize> = rx.rx_burst(1).frames().iter().map(Frame::len).collect();
    assert_eq!(first, [88 + 50]);
    assert_eq!(frame_lens(&mut rx), [88 + 50]);
    assert_eq!(stats.snapshot().dropped(), 0);
}

#[test]
fn a_broken_receive_ring_is_reported_and_left_alone() {
    for (id, len) in [(8, 100), (u32::MAX, 100), (0, 2189), (0, u32::MAX)] {
        let (mut bench, mut rx, _, _, lane) = Bench::receiver();
        bench.push_used(id, len);
        assert_eq!(frame_lens(&mut rx), [] as [usize; 0]);
        assert!(lane.fault().is_some(), "{id} {len}");
        assert!(!lane.is_ready());
        assert!(bench.wake.drain().unwrap(), "the port's thread is woken");
        bench.push_used(1, 100);
        assert_eq!(frame_lens(&mut rx), [] as [usize; 0]);
        assert!(lane.remove().is_some());
    }
}

#[test]
fn a_broken_transmit_ring_is_reported_and_left_alone() {
    let (mut bench, mut tx, lane) = Bench::transmitter();
    let bytes = [0; 100];
    let burst = [Frame::from_bytes(&bytes); 4];
    assert_eq!(tx.tx_burst(&burst), 4);
    for _ in 0..5 {
        bench.push_used(0, 0);
    }
    assert_eq!(tx.tx_burst(&burst), 0);
    assert!(lane.fault().is_some());
    assert!(!tx.is_ready());
    assert_eq!(tx.tx_burst(&burst), 4, "dropped as on any link that is down");
    assert_eq!(tx.stats().snapshot().drops[DropReason::LinkDown as usize], 4);
}

#[test]
fn long_frames_give_all_their_buffers_back_in_any_order() {
    let (mut bench, mut tx, lane) = Bench::transmitter();
    let (long, short) = (vec![0; 3 * ROOM], [0; 60]);
    for _ in 0..50 {
        // 3 + 3 + 1 + 1 buffers.
        let burst = [&long[..], &short, &long, &short].map(Frame::from_bytes);
        assert_eq!(tx.tx_burst(&burst), 4);
        assert_eq!(tx.tx_burst(&burst[1..2]), 0, "all in use");
        let mut heads: Vec<u16> = lane.ring.lock().as_ref().unwrap().posted_heads();
        assert_eq!(heads.len(), 4);
        heads.reverse();
        heads.into_iter().for_each(|head| bench.push_used(head.into(), 0));
    }
}

#[test]
fn a_ring_with_little_room_waits_for_more_but_not_for_ever() {
    let (mut bench, mut tx, _) = Bench::transmitter();
    let bytes = [0; 60];
    let burst = [Frame::from_bytes(&bytes); 4];
    assert_eq!(tx.tx_burst(&burst), 4);
    assert_eq!(tx.tx_burst(&burst), 4);
    (0..2).for_each(|id| bench.push_used(id, 0));
    assert_eq!(tx.tx_burst(&burst), 0, "there is room for two only");
    assert_eq!(tx.tx_burst(&burst[..2]), 2);
    (2..5).for_each(|id| bench.push_used(id, 0));
    let attempts = (1..).find(|_| tx.tx_burst(&burst) == 3).unwrap();
    assert_eq!(attempts, 1001);
    (5..8).chain(0..5).for_each(|id| bench.push_used(id, 0));
    assert_eq!(tx.tx_burst(&burst), 4);
}

proptest! {
    /// Whatever is written anywhere in the memory, nothing worse than drops and a fault happens.
    #[test]
    fn nonsense_in_the_memory_does_no_harm(
        writes in prop::collection::vec((0_usize..25_000, any::<u8>()), 0..300),
        steps in prop::collection::vec((0_u32..12, 0_u32..2300), 0..20),
    ) {
        let (mut rx_bench, mut rx, _, _, _) = Bench::receiver();
        let (mut tx_bench, mut tx, _) = Bench::transmitter();
        let bytes = [0; 3000];
        for (offset, byte) in writes {
            rx_bench.write(DEVICE_BASE + offset as u64, byte);
            tx_bench.write(DEVICE_BASE + offset as u64, byte);
        }
        for (id, len) in steps {
            rx_bench.push_used(id, len);
            tx_bench.push_used(id, len);
            for frame in rx.rx_burst(BURST).frames() {
                prop_assert_eq!(frame.to_vec().len(), frame.len());
            }
            let _ = tx.tx_burst(&[Frame::from_bytes(&bytes), Frame::from_bytes(&bytes[..60])]);
        }
    }

    /// Whatever a device says of packets in a ring, each buffer is in one place.
    #[test]
    fn nonsense_about_packets_does_no_harm(
        steps in prop::collection::vec(
            (0_u32..9, 0_u32..2300, any::<[u8; 10]>(), 0_u16..6, any::<bool>(), any::<bool>()),
            0..60,
        ),
    ) {
        let (mut bench, mut rx, table) = Bench::packet_receiver();
        let pool = Pool::new("copies", 64, 2048).unwrap();
        let mut cache = pool.cache();
        let mut held: Vec<Packet> = Vec::new();
        for (id, len, header, buffers, good, take) in steps {
            if id < u32::from(SIZE) {
                let at = std::ptr::with_exposed_provenance_mut::<u8>(
                    usize::try_from(bench.buffer(table, id)).unwrap(),
                );
                let header = if good { [0; 10] } else { header };
                // SAFETY: the buffer of a descriptor has room for a header, and belongs to the ring,
                // or to a burst that is over.
                unsafe {
                    at.cast::<[u8; 10]>().write(header);
                    at.add(10).cast::<[u8; 2]>().write(buffers.to_le_bytes());
                }
            }
            bench.push_used(id, len);
            let burst = rx.rx_burst(BURST);
            for frame in burst.frames() {
                prop_assert_eq!(frame.to_vec().len(), frame.len());
            }
            if take {
                let mut packets = ArrayVec::new();
                burst.into_packets(&mut packets, &mut cache);
                held.extend(packets);
            }
            if held.len() > 20 {
                held.drain(..7);
            }
            let mut places: Vec<u64> = (0..SIZE).map(|id| bench.buffer(table, id.into())).collect();
            for packet in &held {
                prop_assert_eq!(packet.as_frame().to_vec().len(), packet.len());
                places.push(packet.data().as_ptr().addr() as u64 - HEADER as u64);
                let parts = packet.tail().iter();
                places.extend(parts.map(|part| part.as_ptr().as_ptr().addr() as u64));
            }
            places.sort_unstable();
            let count = places.len();
            places.dedup();
            prop_assert_eq!(places.len(), count, "a buffer is in two places");
        }
    }
}
