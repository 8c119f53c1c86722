//! A guest with one ring, played in the same thread: no sockets, so that a burst costs what the
//! back-end does with it, and no cache line changes cores.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;

use eal::{DmaArena, Mapping, SharedMemory};
use vhost_net::{Ring, RingSlot};
use virtio::Features;
use virtio::device::{DeviceQueue, RingSetup};

use virtio::driver::{Buffer, DriverQueue, DriverRing};
use virtio::memory::{GuestMemory, Region};

const SIZE: u16 = 256;
const ROOM: usize = 2048;
const RING_BYTES: usize = 1 << 14;

/// What is special about a guest.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Whether its ring is a packed one.
    pub packed: bool,
    /// In how many regions it shares its memory, 32 at most; neighbouring buffers lie in different
    /// ones.
    pub regions: usize,
}

impl Shape {
    /// A split ring in memory of one region.
    pub const SPLIT: Self = Self { packed: false, regions: 1 };
    /// A packed ring in memory of one region.
    pub const PACKED: Self = Self { packed: true, regions: 1 };
}

/// A guest with one ring of 256 entries, all of them on buffers of their own.
#[derive(Debug)]
pub struct Guest {
    ring: DriverQueue,
    slot: Arc<RingSlot>,
    memory: DmaArena,
    /// The buffer of the ring's next entry.
    next: usize,
}

impl Guest {
    /// A guest that sends frames of `len` bytes, net header included.
    #[must_use]
    pub fn sender(len: usize, shape: Shape) -> Self {
        Self::new(Some(len), shape, SIZE)
    }

    /// A guest that sends nothing.
    #[must_use]
    pub fn silent(shape: Shape) -> Self {
        Self::new(Some(ROOM), shape, 0)
    }

    /// A guest that receives frames, into mergeable buffers of 2 KiB.
    #[must_use]
    pub fn receiver(shape: Shape) -> Self {
        Self::new(None, shape, SIZE)
    }

    /// A guest with `posted` buffers in its ring, which send frames of a length, or receive.
    fn new(sends: Option<usize>, shape: Shape, posted: u16) -> Self {
        let bytes = RING_BYTES + usize::from(SIZE) * ROOM;
        let memory = SharedMemory::allocate("bench", bytes).unwrap();
        let chunk = (bytes / shape.regions).next_multiple_of(4096);
        let region = |start: usize| {
            let (start, len) = (start as u64, chunk.min(bytes - start) as u64);
            let mapping = Arc::new(Mapping::map(memory.fd(), start, len).unwrap());
            Region { guest_addr: start, user_addr: start, mapping }
        };
        let regions = (0..bytes).step_by(chunk).map(region).collect();
        let table = Arc::new(GuestMemory::new(regions).unwrap());
        let mut memory = DmaArena::shared(memory, 0).unwrap();
        let part = memory.take_at(0, RING_BYTES).unwrap();
        let mut features = Features::VERSION_1 | Features::MRG_RXBUF;
        features.set(Features::RING_PACKED, shape.packed);
        let mut ring = DriverQueue::new(part, SIZE, features).unwrap();
        for index in 0..usize::from(posted) {
            let part = memory.slice(place(index), sends.unwrap_or(ROOM)).unwrap();
            let buffer =
                if sends.is_some() { Buffer::readable(part) } else { Buffer::writable(part) };
            ring.add(&[buffer]).unwrap();
        }
        let _ = ring.publish();
        let (desc, avail, used) = ring.device_addresses();
        let base = ring.first_base();
        let setup = RingSetup { size: SIZE, desc, avail, used, base, features };
        let slot = RingSlot::new("bench".into(), Arc::new(eal::EventFd::new().unwrap())).unwrap();
        slot.edit(|place| {
            let mut running = Ring::new(DeviceQueue::new(table, setup).unwrap(), features);
            running.enabled = true;
            *place = Some(Box::new(running));
        });
        Self { ring, slot: Arc::new(slot), memory, next: 0 }
    }

    /// Where the back-end finds the ring.
    #[must_use]
    pub const fn slot(&self) -> &Arc<RingSlot> {
        &self.slot
    }

    /// Writes `bytes` to byte `at` of the frame that is sent next but `ahead`.
    pub fn write(&mut self, ahead: usize, at: usize, bytes: &[u8]) {
        let index = (self.next + ahead) % usize::from(SIZE);
        let frame = self.memory.slice(place(index) + 12 + at, bytes.len()).unwrap();
        // SAFETY: the slice has room for them, and the back-end runs in this thread.
        unsafe { frame.host().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Posts again what the back-end has used.
    pub fn recycle(&mut self) {
        self.ring.poll_used().unwrap();
        while let Some(used) = self.ring.next_used().unwrap() {
            self.ring.post(used.head);
            self.next = (self.next + 1) % usize::from(SIZE);
        }
        let _ = self.ring.publish();
    }
}

/// Where the buffer of entry `index` lies: not beside those of its neighbours.
const fn place(index: usize) -> usize {
    RING_BYTES + (index * 37 % SIZE as usize) * ROOM
}
