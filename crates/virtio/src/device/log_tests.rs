//! Which pages of a ring are marked.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use eal::{Mapping, PeerEvent, SharedMemory};
use rustix::fs::MemfdFlags;

use super::burst::Buffers;
use super::{DeviceQueue, RingLog, RingSetup};
use crate::dirty::DirtyLog;
use crate::features::Features;
use crate::memory::{GuestMemory, Region};

const USER: u64 = 0x7F00_0000_0000;
const BYTES: u64 = 1 << 20;
/// Large enough for rings of many pages.
const SIZE: u16 = 2048;
const DESC: u64 = 0;
const AVAIL: u64 = 0x1_0000;
const USED: u64 = 0x2_0000;
const DATA: u64 = 0x4_0000;

struct Guest {
    memory: SharedMemory,
    file: OwnedFd,
    queue: DeviceQueue,
    event: PeerEvent,
}

impl Guest {
    fn new(features: Features, base: u32) -> Self {
        let memory = SharedMemory::allocate("guest", BYTES.try_into().unwrap()).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, BYTES).unwrap());
        let region = Region { guest_addr: 0, user_addr: USER, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let (desc, avail, used) = (USER + DESC, USER + AVAIL, USER + USED);
        let setup = RingSetup { size: SIZE, desc, avail, used, base, features };
        let file = rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, BYTES / 4096 / 8).unwrap();
        let queue = DeviceQueue::new(table, setup).unwrap();
        Self { memory, file, queue, event: PeerEvent::new().unwrap() }
    }

    fn log(&self, used: Option<u64>) -> RingLog {
        let map = Mapping::map(self.file.as_fd(), 0, BYTES / 4096 / 8).unwrap();
        let event = Some(self.event.clone());
        RingLog::new(Arc::new(DirtyLog::new(Arc::new(map), event)), used)
    }

    fn take_marks(&self) -> BTreeSet<u64> {
        let mut bytes = [0; 32];
        rustix::io::pread(&self.file, &mut bytes, 0).unwrap();
        rustix::io::pwrite(&self.file, &[0; 32], 0).unwrap();
        (0..256).filter(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1).map(|bit| bit as u64).collect()
    }

    fn write(&self, at: u64, value: u64) {
        assert!(at + 8 <= BYTES);
        // SAFETY: inside the memory, as just checked.
        unsafe { self.memory.as_ptr().add(at.try_into().unwrap()).cast().write_unaligned(value) };
    }

    /// How often the front-end was told.
    fn told(&self) -> u64 {
        let mut count = [0; 8];
        let read = rustix::io::read(self.event.as_fd(), &mut count);
        read.map_or(0, |_| u64::from_ne_bytes(count))
    }

    /// Uses `count` chains as a device that reads them.
    fn burst(&mut self, count: usize) {
        let mut buffers = Buffers::default();
        self.queue.fetch::<false>(count, &mut buffers).unwrap();
        assert_eq!(buffers.as_slice().len(), count);
        self.queue.advance(&buffers, count);
        self.queue.complete_read(&buffers, count);
        let _ = self.queue.needs_call();
    }
}

fn pages(pages: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    pages.into_iter().collect()
}

#[test]
fn a_split_ring_marks_the_elements_that_it_wrote_and_the_index() {
    let mut guest = Guest::new(Features::VERSION_1, 0);
    guest.queue.set_log(Some(guest.log(Some(USED))));
    assert_eq!(guest.take_marks(), pages(0x20..=0x24), "all that may have been written before");
    // All chains are descriptor 0, a buffer of 60 bytes.
    guest.write(DESC, DATA);
    guest.write(DESC + 8, 60);
    guest.write(AVAIL, u64::from(SIZE) << 16);
    // 511 elements of 8 bytes lie in the first page, behind flags and index.
    for _ in 0..15 {
        guest.burst(32);
    }
    assert_eq!(guest.take_marks(), pages([0x20]));
    guest.burst(32);
    assert_eq!(guest.take_marks(), pages([0x20, 0x21]));
    for _ in 0..48 {
        guest.burst(32);
    }
    guest.take_marks();
    guest.write(AVAIL, u64::from(SIZE + 40) << 16);
    guest.burst(10);
    assert_eq!(guest.take_marks(), pages([0x20]), "round the end");
    assert!(guest.queue.arm().eq(&false));
    assert_eq!(guest.take_marks(), pages([0x20]), "the flags");
    guest.queue.set_log(None);
    guest.burst(10);
    assert_eq!(guest.take_marks(), pages([]));
}

#[test]
fn a_packed_ring_marks_its_descriptors_and_its_event_structure() {
    let features = Features::VERSION_1 | Features::RING_PACKED;
    let near_the_end = u32::from(SIZE - 4) | 1 << 15;
    let mut guest = Guest::new(features, near_the_end << 16 | near_the_end);
    guest.queue.set_log(Some(guest.log(Some(USED))));
    assert_eq!(guest.take_marks(), pages((0..8).chain([0x20])));
    for index in (SIZE - 4..SIZE).chain(0..4) {
        // AVAIL as the driver's wrap counter, USED not.
        let flags: u64 = if index < 4 { 1 << 15 } else { 1 << 7 };
        guest.write(DESC + 16 * u64::from(index), DATA);
        guest.write(DESC + 16 * u64::from(index) + 8, flags << 48 | 60);
    }
    guest.burst(3);
    assert_eq!(guest.take_marks(), pages([7]));
    guest.burst(2);
    assert_eq!(guest.take_marks(), pages([0, 7]), "round the end");
    guest.burst(3);
    assert_eq!(guest.take_marks(), pages([0]));
    assert!(guest.queue.arm());
    assert_eq!(guest.take_marks(), pages([0x20]));
    // Where the front-end does not want the device's structure to be logged.
    guest.queue.set_log(Some(guest.log(None)));
    assert_eq!(guest.take_marks(), pages(0..8));
    guest.queue.disarm();
    assert_eq!(guest.take_marks(), pages([]));
}

#[test]
fn the_front_end_is_told_once_per_burst() {
    let mut guest = Guest::new(Features::VERSION_1, 0);
    guest.queue.set_log(Some(guest.log(Some(USED))));
    assert_eq!(guest.told(), 1);
    guest.take_marks();
    guest.write(DESC, DATA);
    guest.write(DESC + 8, 60);
    guest.write(AVAIL, 64 << 16);
    let mut buffers = Buffers::default();
    guest.queue.fetch::<false>(32, &mut buffers).unwrap();
    let written = buffers.as_slice()[0].single().unwrap();
    for half in [16, 32] {
        guest.queue.advance(&buffers, 16);
        guest.queue.log_written(&[written], half);
        guest.queue.complete_written(&buffers, 16);
        assert_eq!(guest.told(), 0, "the burst is not over");
    }
    let _ = guest.queue.needs_call();
    assert_eq!((guest.told(), guest.take_marks()), (1, pages([0x20, 0x40])));
    let _ = guest.queue.needs_call();
    assert_eq!(guest.told(), 0);
}
