//! A device behind the guest's IOMMU: its rings wait, go on, and forget.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use virtio::iotlb::{Access, Translation};

use super::*;
use crate::NetDevice;
use vhost::backend::{Backend, RingSetup as Told};
use vhost::protocol::{BackendMessage, IotlbMessage};

const PAGE: u64 = 4096;
/// Where the guest's memory begins for the device. In memory it is elsewhere, and its pages lie in
/// another order.
const IOVA: u64 = 0xfff0_0000;
const PAGES: u64 = 64;
const FEATURES: Features = Features::VERSION_1
    .union(Features::ACCESS_PLATFORM)
    .union(Features::MRG_RXBUF)
    .union(Features::VHOST_USER_PROTOCOL);

/// A guest that is written page by page, and what its IOMMU says.
struct Guest {
    memory: SharedMemory,
    device: NetDevice,
    /// Page of memory, and what may be done, by page of I/O addresses.
    table: BTreeMap<u64, (u64, Access)>,
    /// Pages that were asked for.
    asked: Vec<(u64, bool)>,
    call: PeerEvent,
    stats: QueueStats,
    avail: [u16; 2],
}

/// The ring that the device receives from, and the one that it sends to.
const SENDS: u16 = 1;
const TAKES: u16 = 0;

impl Guest {
    fn new() -> Self {
        let memory =
            SharedMemory::allocate("guest", usize::try_from(PAGES * PAGE).unwrap()).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, PAGES * PAGE).unwrap());
        let region = Region { guest_addr: GUEST, user_addr: USER, mapping };
        let mut device = NetDevice::new("test", 1).unwrap().with_iommu().unwrap();
        device.connected();
        device.set_features(FEATURES.bits()).unwrap();
        device.set_memory(Arc::new(GuestMemory::new(vec![region]).unwrap())).unwrap();
        // Backwards, so that no two neighbours are neighbours in memory.
        let table = (0..PAGES).map(|page| (page, (PAGES - 1 - page, Access::all()))).collect();
        let (call, stats) = (PeerEvent::new().unwrap(), QueueStats::default());
        Self { memory, device, table, asked: Vec::new(), call, stats, avail: [0; 2] }
    }

    /// Each ring has two pages: descriptors and available ring, and the used ring.
    const fn ring(index: u16) -> u64 {
        2 * index as u64 * PAGE
    }

    fn start(&mut self, index: u16) {
        let desc = IOVA + Self::ring(index);
        let (avail, used, features) = (desc + 0x800, desc + PAGE, FEATURES);
        let place = RingSetup { size: 16, desc, avail, used, base: 0, features };
        let call = Some(self.call.clone().into());
        let setup = Told { call, ..Told::at(place) };
        self.device.start_ring(index, setup).unwrap();
    }

    /// Where I/O offset `at` lies in this process.
    fn host(&self, at: u64) -> *mut u8 {
        let (place, _) = self.table[&(at / PAGE)];
        assert!(place < PAGES);
        let offset = usize::try_from(place * PAGE + at % PAGE).unwrap();
        // SAFETY: inside the memory.
        unsafe { self.memory.as_ptr().as_ptr().add(offset) }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            // SAFETY: `host` says where the byte lies.
            unsafe { self.host(at).write_volatile(*byte) };
        }
    }

    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        // SAFETY: as in `write`.
        (at..at + len).map(|at| unsafe { self.host(at).read_volatile() }).collect()
    }

    /// Offers `len` bytes at I/O offset `at` in ring `index`.
    fn offer(&mut self, index: u16, at: u64, len: u32) {
        let ring = Self::ring(index);
        let avail = &mut self.avail[usize::from(index)];
        let (slot, flags) = (*avail % 16, if index == TAKES { 2_u16 } else { 0 });
        *avail += 1;
        let avail = *avail;
        let desc = [&(IOVA + at).to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes()];
        self.write(ring + 16 * u64::from(slot), &desc.concat());
        self.write(ring + 0x800 + 4 + 2 * u64::from(slot), &slot.to_le_bytes());
        self.write(ring + 0x800 + 2, &avail.to_le_bytes());
    }

    /// Puts a frame of `byte`s at I/O offset `at`, and offers it.
    fn post(&mut self, at: u64, byte: u8, len: usize) {
        self.write(at, &Self::frame(byte, len));
        self.offer(SENDS, at, u32::try_from(NET_HEADER_LEN + len).unwrap());
    }

    fn frame(byte: u8, len: usize) -> Vec<u8> {
        [&[0; NET_HEADER_LEN][..], &vec![byte; len]].concat()
    }

    fn used(&self, index: u16) -> u16 {
        let bytes = self.read(Self::ring(index) + PAGE + 2, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    /// Moves all pages to other places; where they were is nonsense.
    fn relocate(&mut self) {
        let pages: Vec<_> = (0..PAGES).map(|page| self.read(page * PAGE, PAGE)).collect();
        for (page, bytes) in (0..).zip(&pages) {
            self.write(page * PAGE, &vec![0xff; bytes.len()]);
        }
        for (place, _) in self.table.values_mut() {
            *place = (*place + 7) % PAGES;
        }
        (0..).zip(&pages).for_each(|(page, bytes)| self.write(page * PAGE, bytes));
    }

    /// Answers what the device asks for, once.
    fn answer(&mut self) -> bool {
        let Some(message) = self.device.next_message() else { return false };
        let BackendMessage::Iotlb(miss) = message else { panic!("{message:?}") };
        assert_eq!(miss.kind, IotlbMessage::MISS);
        assert!(self.device.next_message().is_none(), "one at a time");
        let page = (miss.iova - IOVA) / PAGE;
        self.asked.push((page, miss.access == 2));
        let wanted = Access::from_bits(miss.access).unwrap();
        if let Some((place, access)) = self.table.get(&page).filter(|(_, a)| a.contains(wanted)) {
            let (iova, user_addr) = (IOVA + page * PAGE, USER + place * PAGE);
            let translation = Translation { iova, len: PAGE, user_addr, access: *access };
            self.device.update_translation(translation).unwrap();
        }
        self.device.translation_answered();
        true
    }

    fn answer_all(&mut self) {
        let before = self.asked.len();
        while self.answer() {
            assert!(self.asked.len() < before + 100, "{:?}", self.asked);
        }
    }

    fn receive(&self, receiver: &mut NetReceiver) -> Vec<Vec<u8>> {
        receiver.receive(BURST, &self.stats);
        receiver.batch().frames().iter().map(Frame::to_vec).collect()
    }

    /// Receives, and answers what that asks for, until there is nothing to ask.
    fn receive_all(&mut self, receiver: &mut NetReceiver) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            frames.extend(self.receive(receiver));
            receiver.release();
            if !self.answer() {
                return frames;
            }
        }
    }
}

#[test]
fn a_ring_starts_once_it_is_known_where_it_lies() {
    let mut guest = Guest::new();
    let mut receiver = guest.device.receivers().remove(0);
    guest.start(SENDS);
    guest.post(16 * PAGE, 7, 100);
    assert!(guest.receive(&mut receiver).is_empty());
    assert!(guest.answer());
    assert!(guest.receive(&mut receiver).is_empty(), "its used ring is not known");
    assert_eq!(guest.receive_all(&mut receiver), [vec![7; 100]]);
    assert_eq!(guest.asked, [(2, false), (3, true), (16, false)]);
    assert_eq!(guest.used(SENDS), 1);
    // Known by now.
    guest.post(16 * PAGE + 200, 8, 100);
    assert_eq!(guest.receive(&mut receiver), [vec![8; 100]]);
    receiver.release();
    assert_eq!(guest.device.stop_ring(SENDS), 2);
}

#[test]
fn a_ring_that_waits_can_be_changed_and_stopped() {
    let mut guest = Guest::new();
    let mut receiver = guest.device.receivers().remove(0);
    guest.start(SENDS);
    guest.device.set_ring_enabled(SENDS, false).unwrap();
    assert_eq!(guest.device.stop_ring(SENDS), 0);
    assert!(!guest.answer());
    guest.start(SENDS);
    guest.device.set_ring_enabled(SENDS, false).unwrap();
    guest.answer_all();
    guest.post(16 * PAGE, 7, 100);
    assert!(guest.receive_all(&mut receiver).is_empty(), "disabled: taken and dropped");
    guest.device.set_ring_enabled(SENDS, true).unwrap();
    guest.post(16 * PAGE, 7, 100);
    assert_eq!(guest.receive_all(&mut receiver), [vec![7; 100]]);
}

#[test]
fn frames_over_pages_that_are_apart_arrive_whole() {
    let mut guest = Guest::new();
    let mut receiver = guest.device.receivers().remove(0);
    let mut transmitter = guest.device.transmitters().remove(0);
    guest.start(SENDS);
    guest.start(TAKES);
    let at = 17 * PAGE - 100;
    guest.post(at, 9, 8000);
    guest.offer(TAKES, 30 * PAGE - 10, 9000);
    let sent = guest.receive_all(&mut receiver);
    assert_eq!(sent, [vec![9; 8000]]);
    let frames = [Frame::from_bytes(&sent[0])];
    // Where the buffers lie was asked for before there were frames for them.
    assert_eq!(transmitter.transmit(&frames, &guest.stats).consumed, 1, "{:?}", guest.asked);
    let header = 12;
    assert_eq!(guest.read(30 * PAGE - 10 + header, 8000), vec![9; 8000]);
    assert_eq!((guest.used(SENDS), guest.used(TAKES)), (1, 1));
}

#[test]
fn what_the_next_buffers_lack_is_asked_for_ahead() {
    let mut guest = Guest::new();
    let mut transmitter = guest.device.transmitters().remove(0);
    guest.start(TAKES);
    guest.answer_all();
    (10..20).for_each(|page| guest.offer(TAKES, page * PAGE, 200));
    let frame = Guest::frame(5, 100);
    let frames = [Frame::from_bytes(&frame)];
    guest.table.remove(&15);
    guest.asked.clear();
    assert_eq!(transmitter.transmit(&frames, &guest.stats).consumed, 0);
    guest.answer_all();
    // Not beyond the first that there is nothing for: that is between it and the guest.
    assert_eq!(guest.asked, (10..16).map(|page| (page, true)).collect::<Vec<_>>());
    for _ in 10..15 {
        assert_eq!(transmitter.transmit(&frames, &guest.stats).consumed, 1);
    }
    while transmitter.transmit(&frames, &guest.stats).consumed == 0 {
        assert!(guest.answer());
    }
    guest.answer_all();
    let asked = guest.asked.iter().filter(|(page, _)| *page >= 16);
    assert!(asked.copied().eq((16..20).map(|page| (page, true))), "{:?}", guest.asked);
    assert_eq!(guest.used(TAKES), 7);
}

#[test]
fn a_chain_that_the_iommu_does_not_allow_is_bad_and_the_next_one_goes_on() {
    let mut guest = Guest::new();
    let mut receiver = guest.device.receivers().remove(0);
    let mut transmitter = guest.device.transmitters().remove(0);
    guest.start(SENDS);
    guest.start(TAKES);
    guest.post(16 * PAGE, 1, 100);
    guest.post(17 * PAGE, 2, 100);
    guest.post(18 * PAGE, 3, 100);
    guest.table.remove(&17);
    let frames = guest.receive_all(&mut receiver);
    assert_eq!(frames, [vec![1; 100], vec![3; 100]]);
    assert_eq!(guest.stats.snapshot().dropped_for(DropReason::BadDescriptor), 1);
    // What may only be read is not written.
    guest.table.insert(20, (20, Access::READ));
    guest.write(20 * PAGE, &[0xee; 200]);
    guest.offer(TAKES, 20 * PAGE, 200);
    guest.offer(TAKES, 21 * PAGE, 200);
    let frames = [Frame::from_bytes(&frames[0])];
    while transmitter.transmit(&frames, &guest.stats).consumed == 0 {
        assert!(guest.answer());
    }
    assert_eq!(guest.read(20 * PAGE, 200), [0xee; 200]);
    assert_eq!(guest.read(21 * PAGE + 12, 100), [1; 100]);
    assert_eq!((guest.used(SENDS), guest.used(TAKES)), (3, 2));
    let bad: u64 = guest.device.slots().iter().map(|slot| slot.bad_chains.get()).sum();
    assert_eq!(bad, 2);
}

#[test]
fn a_ring_whose_own_pages_are_taken_away_is_left_alone_until_it_has_others() {
    let mut guest = Guest::new();
    let mut receiver = guest.device.receivers().remove(0);
    guest.start(SENDS);
    guest.post(16 * PAGE, 1, 100);
    assert_eq!(guest.receive_all(&mut receiver), [vec![1; 100]]);
    for round in 0..3 {
        guest.asked.clear();
        guest.post(16 * PAGE, 2, 100);
        guest.device.forget_translations(0, 0);
        guest.relocate();
        assert!(guest.receive(&mut receiver).is_empty());
        assert_eq!(guest.receive_all(&mut receiver), [vec![2; 100]], "{round}");
        assert_eq!(guest.asked, [(2, false), (3, true), (16, false)]);
        assert_eq!(guest.used(SENDS), 2 + round);
    }
    // A ring of which nothing is known is asked for once, and not for ever.
    guest.asked.clear();
    guest.device.forget_translations(IOVA, PAGES * PAGE);
    let table = std::mem::take(&mut guest.table);
    guest.answer_all();
    assert_eq!(guest.asked, [(2, false)]);
    guest.table = table;
    assert_eq!(guest.device.stop_ring(SENDS), 4);
}

/// A worker polls while translations come and go: whatever it forwards was there when it was
/// allowed to look.
#[test]
fn nothing_is_used_after_it_was_taken_back() {
    const ROUNDS: u8 = 40;
    let mut guest = Guest::new();
    let mut receiver = guest.device.receivers().remove(0);
    guest.start(SENDS);
    guest.answer_all();
    let stop = AtomicBool::new(false);
    let received = std::thread::scope(|scope| {
        let (stop, stats) = (&stop, QueueStats::default());
        let worker = scope.spawn(move || {
            let mut received = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                receiver.receive(BURST, &stats);
                received.extend(receiver.batch().frames().iter().map(Frame::to_vec));
                receiver.release();
                std::thread::yield_now();
            }
            received
        });
        for round in 0..ROUNDS {
            guest.post(16 * PAGE, round, 3000);
            // The page may be known or not, and the frame be on its way or through.
            if round % 3 == 0 {
                guest.answer();
            }
            guest.device.forget_translations(0, 0);
            guest.relocate();
            let deadline = Instant::now() + Duration::from_secs(20);
            while guest.used(SENDS) != u16::from(round) + 1 {
                guest.answer();
                assert!(Instant::now() < deadline, "{round}: {:?}", guest.asked.last());
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    });
    let expected: Vec<_> = (0..ROUNDS).map(|round| vec![round; 3000]).collect();
    assert!(received == expected, "{} frames", received.len());
}
