//! What bursts write in the guest's memory is in the log of written pages, all of it, and nothing
//! else but pages of the ring.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use virtio::DirtyLog;
use virtio::device::RingLog;
use virtio::dirty::LOG_PAGE;
use virtio::driver::{DriverQueue, DriverRing};

use super::super::command::ACK_OK;
use super::super::control_ring::ControlRing;
use super::*;

const BYTES: usize = 1 << 20;
const RING_BYTES: usize = 1 << 16;
/// The memory is shared in two regions, cut in the middle of the buffers.
const CUT: usize = BYTES / 4 + 0x1000;
const GUEST: u64 = 0x1_0000;
/// What buffers to write are full of before: no byte of a frame or header in these tests.
const FILL: u8 = 0xff;
/// A bit for every page up to the end of the memory.
const LOG_BYTES: usize = (0x1_0000 + BYTES) / 4096 / 8;

/// A guest with one ring of either format, and the log of a front-end that migrates it.
struct Migrated {
    memory: DmaArena,
    ring: DriverQueue,
    slot: Arc<RingSlot>,
    stats: QueueStats,
    next_buffer: usize,
    log: OwnedFd,
    /// Pages of the ring that a device may write.
    ring_pages: BTreeSet<u64>,
    /// Where the used ring or the device's event structure is.
    used: u64,
}

impl Migrated {
    fn new(features: Features) -> Self {
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        let mut memory = DmaArena::shared(memory, GUEST).unwrap();
        let (ring, queue) = queues(&mut memory, features);
        let slot = RingSlot::new("test".into(), Arc::new(EventFd::new().unwrap())).unwrap();
        slot.edit(|place| {
            let mut running = Ring::new(queue, features);
            running.enabled = true;
            *place = Some(Box::new(running));
        });
        let (desc, _, used) = ring.device_addresses();
        let size = u64::from(SIZE);
        let ring_pages = if features.contains(Features::RING_PACKED) {
            pages(desc, 16 * size).chain(pages(used, 4)).collect()
        } else {
            pages(used, 6 + 8 * size).collect()
        };
        let (slot, stats) = (Arc::new(slot), QueueStats::default());
        let next_buffer = RING_BYTES;
        Self { memory, ring, slot, stats, next_buffer, log: log_file(), ring_pages, used }
    }

    /// Switches logging as the front-end does, between two bursts.
    fn set_log(&self, on: bool) {
        let log = on.then(|| RingLog::new(open_log(&self.log), Some(self.used)));
        self.slot.edit(|ring| ring.as_mut().unwrap().queue.set_log(log));
    }

    fn allocate(&mut self, len: usize) -> Option<DmaMemory> {
        let at = self.next_buffer;
        self.next_buffer += len;
        let buffer = self.memory.slice(at, len)?;
        // SAFETY: `slice` gave exactly this many bytes of the guest's memory.
        unsafe { buffer.host().as_ptr().write_bytes(FILL, len) };
        Some(buffer)
    }

    /// Offers buffers as one chain, or as an indirect table; none when memory or ring are full.
    fn offer(&mut self, lens: &[usize], indirect: bool, writable: bool) {
        let kind = if writable { Buffer::writable } else { Buffer::readable };
        let buffers: Option<Vec<_>> =
            lens.iter().map(|len| self.allocate(*len).map(kind)).collect();
        self.next_buffer = self.next_buffer.next_multiple_of(16);
        let at = self.next_buffer;
        let (Some(buffers), Some(place)) = (buffers, self.allocate(16 * lens.len())) else {
            return;
        };
        let mut table = self.memory.take_at(at, place.len()).unwrap();
        if !indirect {
            self.ring.add(&buffers);
        } else if let Some(id) = self.ring.reserve() {
            let table = table.slice_mut(0, place.len()).unwrap();
            assert!(self.ring.set_indirect(id, table, &buffers));
            self.ring.post(id);
        }
        let _ = self.ring.publish();
    }

    fn take_used(&mut self) {
        let waiting = self.ring.poll_used().unwrap();
        for _ in 0..waiting {
            if let Some(used) = self.ring.next_used().unwrap() {
                self.ring.recycle(used.head);
            }
        }
    }

    /// Lets the device do something, and compares what it wrote with what it marked.
    fn check(&mut self, what: &str, logged: bool, act: impl FnOnce(&Self)) {
        let before = self.snapshot();
        assert_eq!(take_marks(&self.log), BTreeSet::new(), "marks out of nowhere");
        act(self);
        let marked = take_marks(&self.log);
        if !logged {
            assert_eq!(marked, BTreeSet::new(), "{what} marks what is not to be logged");
            return;
        }
        let changed = changed_pages(&before, &self.snapshot());
        let missing: Vec<_> = changed.difference(&marked).collect();
        assert!(missing.is_empty(), "{what} wrote pages {missing:x?} and did not mark them");
        let extra: Vec<_> = marked.iter().filter(|page| !changed.contains(page)).collect();
        let in_ring = extra.iter().all(|page| self.ring_pages.contains(page));
        assert!(in_ring, "{what} marks pages {extra:x?} that it has not written");
    }

    fn snapshot(&self) -> Vec<u8> {
        // SAFETY: nobody writes to the memory while it is copied: all runs in this thread.
        unsafe { std::slice::from_raw_parts(self.memory.memory().as_ptr().as_ptr(), BYTES) }
            .to_vec()
    }
}

/// Both sides of a ring at the start of `memory`.
fn queues(memory: &mut DmaArena, features: Features) -> (DriverQueue, DeviceQueue) {
    let ring_memory = memory.take_at(0, RING_BYTES).unwrap();
    let fd = memory.memory().fd();
    let region = |start: usize, len: usize| {
        let mapping = Mapping::map(fd, start as u64, len as u64).unwrap();
        let (guest_addr, user_addr) = (GUEST + start as u64, USER + start as u64);
        Region { guest_addr, user_addr, mapping: Arc::new(mapping) }
    };
    let regions = vec![region(CUT, BYTES - CUT), region(0, CUT)];
    let ring = DriverQueue::new(ring_memory, SIZE, features).unwrap();
    let (desc, avail, used) = ring.device_addresses();
    let [desc, avail, used] = [desc, avail, used].map(|addr| addr - GUEST + USER);
    let setup = RingSetup { size: SIZE, desc, avail, used, base: ring.first_base(), features };
    let queue = DeviceQueue::new(Arc::new(GuestMemory::new(regions).unwrap()), setup).unwrap();
    (ring, queue)
}

fn log_file() -> OwnedFd {
    let file = rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, LOG_BYTES as u64).unwrap();
    file
}

fn open_log(file: &OwnedFd) -> Arc<DirtyLog> {
    use std::os::fd::AsFd;
    let map = Mapping::map(file.as_fd(), 0, LOG_BYTES as u64).unwrap();
    Arc::new(DirtyLog::new(Arc::new(map), None))
}

/// The pages that are marked, which are none afterwards.
fn take_marks(file: &OwnedFd) -> BTreeSet<u64> {
    let mut bytes = [0; LOG_BYTES];
    rustix::io::pread(file, &mut bytes, 0).unwrap();
    rustix::io::pwrite(file, &[0; LOG_BYTES], 0).unwrap();
    let bits = (0..8 * LOG_BYTES).filter(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1);
    bits.map(|bit| bit as u64).collect()
}

fn pages(addr: u64, len: u64) -> impl Iterator<Item = u64> {
    addr / LOG_PAGE..=(addr + len - 1) / LOG_PAGE
}

fn changed_pages(before: &[u8], after: &[u8]) -> BTreeSet<u64> {
    let chunks = before.chunks(4096).zip(after.chunks(4096));
    let first = GUEST / LOG_PAGE;
    (first..).zip(chunks).filter(|(_, (old, new))| old != new).map(|(page, _)| page).collect()
}

/// Something that happens at a ring.
#[derive(Clone, Debug)]
enum Step {
    /// The guest offers buffers.
    Offer { lens: Vec<usize>, indirect: bool },
    /// The device is through with a burst: of frames to the guest, of these lengths, or from it.
    Burst(Vec<usize>),
    /// The guest takes back what was used.
    TakeUsed,
    /// The worker goes to sleep.
    Arm,
    /// It wakes up.
    Disarm,
    /// The front-end switches logging.
    Log(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lens = prop::collection::vec(prop_oneof![1_usize..100, 1500_usize..6000], 1..5);
    let frames = prop::collection::vec(prop_oneof![60_usize..70, 60_usize..9000], 0..20);
    let step = prop_oneof![
        6 => (lens, any::<bool>()).prop_map(|(lens, indirect)| Step::Offer { lens, indirect }),
        6 => frames.prop_map(Step::Burst),
        2 => Just(Step::TakeUsed),
        1 => Just(Step::Arm),
        1 => Just(Step::Disarm),
        1 => any::<bool>().prop_map(Step::Log),
    ];
    prop::collection::vec(step, 1..40)
}

fn features() -> impl Strategy<Value = Features> {
    any::<[bool; 4]>().prop_map(|[packed, mergeable, event_idx, in_order]| {
        let mut features = Features::VERSION_1 | Features::INDIRECT_DESC;
        features.set(Features::RING_PACKED, packed);
        features.set(Features::MRG_RXBUF, mergeable);
        features.set(Features::EVENT_IDX, event_idx);
        features.set(Features::IN_ORDER, in_order);
        features
    })
}

/// Plays `steps` to a ring in which the guest receives, or sends.
fn play(features: Features, steps: &[Step], receives: bool) {
    let mut guest = Migrated::new(features);
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    let mut transmitter = NetTransmitter::new(Arc::clone(&guest.slot));
    let mut logged = false;
    // Written before logging begins, so the ring as it is has to be marked then.
    guest.check("start", true, |guest| guest.set_log(true));
    for step in std::iter::once(&Step::Log(true)).chain(steps) {
        match step {
            Step::Offer { lens, indirect } => guest.offer(lens, *indirect, receives),
            // Our driver side does not know IN_ORDER, where an element stands for several chains.
            Step::TakeUsed if features.contains(Features::IN_ORDER) => {}
            Step::TakeUsed => guest.take_used(),
            Step::Log(on) => {
                guest.set_log(*on);
                logged = *on;
                let marked = take_marks(&guest.log);
                assert_eq!(marked, if logged { guest.ring_pages.clone() } else { BTreeSet::new() });
            }
            Step::Burst(lens) if receives => {
                let bytes: Vec<_> = lens.iter().map(|len| pattern(*len)).collect();
                let frames: Vec<_> = bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
                guest.check("a burst to the guest", logged, |guest| {
                    transmitter.transmit(&frames, &guest.stats);
                });
            }
            Step::Burst(_) => guest.check("a burst of the guest", logged, |guest| {
                receiver.receive(BURST, &guest.stats);
                receiver.release();
            }),
            Step::Arm => guest.check("going to sleep", logged, |_| {
                let _ = receiver.arm();
            }),
            Step::Disarm => guest.check("waking up", logged, |_| receiver.disarm()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_page_written_in_a_receive_ring_is_marked(features in features(), steps in steps()) {
        play(features, &steps, true);
    }

    #[test]
    fn every_page_written_in_a_transmit_ring_is_marked(features in features(), steps in steps()) {
        play(features, &steps, false);
    }
}

#[test]
fn the_answers_of_the_control_queue_are_marked() {
    for packed in [false, true] {
        let mut features = Features::VERSION_1;
        features.set(Features::RING_PACKED, packed);
        let mut guest = Migrated::new(features);
        let mut queue = guest.slot.edit(|ring| ring.take().unwrap().queue);
        queue.set_log(Some(RingLog::new(open_log(&guest.log), Some(guest.used))));
        take_marks(&guest.log);
        // To receive everything.
        let command = guest.allocate(3).unwrap();
        // SAFETY: three bytes.
        unsafe { command.host().cast::<[u8; 3]>().write([0, 0, 1]) };
        guest.next_buffer = BYTES - 5;
        let answer = guest.allocate(1).unwrap();
        guest.ring.add(&[Buffer::readable(command), Buffer::writable(answer)]).unwrap();
        let _ = guest.ring.publish();
        let mut control = ControlRing::new(queue);
        guest.check("a command", true, |_| {
            control.serve(|_| true);
        });
        // SAFETY: one byte.
        assert_eq!(unsafe { answer.host().read() }, ACK_OK);
    }
}

#[test]
fn the_used_ring_is_logged_where_the_front_end_wants_it_and_only_if_it_does() {
    let mut guest = Migrated::new(Features::VERSION_1);
    let mut transmitter = NetTransmitter::new(Arc::clone(&guest.slot));
    for (elsewhere, page) in [(Some(0x3000_u64), Some(3)), (None, None)] {
        let log = RingLog::new(open_log(&guest.log), elsewhere);
        guest.slot.edit(|ring| ring.as_mut().unwrap().queue.set_log(Some(log)));
        take_marks(&guest.log);
        guest.offer(&[200], false, true);
        let buffer = GUEST + (guest.next_buffer - 4096) as u64;
        let frame = pattern(60);
        transmitter.transmit(&[Frame::from_bytes(&frame)], &guest.stats);
        let marked = take_marks(&guest.log);
        let ring: Vec<_> =
            marked.iter().copied().filter(|page| *page < buffer / LOG_PAGE).collect();
        assert_eq!(ring, page.into_iter().collect::<Vec<_>>());
        assert!(marked.len() > ring.len(), "the frame is logged in any case: {marked:?}");
    }
}
