//! A guest with one ring, played in the same thread: no sockets, so that a burst costs what the
//! back-end does with it, and no cache line changes cores.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;

use eal::{Mapping, SharedMemory};
use vhost::net::{Ring, RingSlot};
use virtio::Features;
use virtio::device::{DeviceQueue, RingSetup};
use virtio::driver::memory::DmaMemory;
use virtio::driver::{Buffer, DriverQueue, DriverRing};
use virtio::memory::{GuestMemory, Region};

const SIZE: u16 = 256;
const ROOM: usize = 2048;
const RING_BYTES: usize = 1 << 16;

/// A guest with one ring of 256 entries, all of them on buffers of their own.
#[derive(Debug)]
pub struct Guest {
    ring: DriverQueue,
    slot: Arc<RingSlot>,
    _memory: SharedMemory,
}

impl Guest {
    /// A guest that sends frames of `len` bytes, net header included.
    #[must_use]
    pub fn sender(len: usize, packed: bool) -> Self {
        Self::new(Some(len), packed)
    }

    /// A guest that receives frames, into mergeable buffers of 2 KiB.
    #[must_use]
    pub fn receiver(packed: bool) -> Self {
        Self::new(None, packed)
    }

    fn new(sends: Option<usize>, packed: bool) -> Self {
        let bytes = RING_BYTES + usize::from(SIZE) * ROOM;
        let memory = SharedMemory::allocate("bench", bytes).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, bytes as u64).unwrap());
        let region = Region { guest_addr: 0, user_addr: 0, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        // SAFETY: the memory moves into the guest and lives as long as its queue.
        let dma = unsafe { DmaMemory::new(memory.as_ptr(), bytes, 0) }.unwrap();
        let mut features = Features::VERSION_1 | Features::MRG_RXBUF;
        features.set(Features::RING_PACKED, packed);
        let mut ring = DriverQueue::new(dma.slice(0, RING_BYTES).unwrap(), SIZE, features).unwrap();
        for index in 0..usize::from(SIZE) {
            let part = dma.slice(RING_BYTES + index * ROOM, sends.unwrap_or(ROOM)).unwrap();
            let buffer =
                if sends.is_some() { Buffer::readable(part) } else { Buffer::writable(part) };
            ring.add(&[buffer]).unwrap();
        }
        let _ = ring.publish();
        let (desc, avail, used) = ring.device_addresses();
        let base = ring.first_base();
        let setup = RingSetup { size: SIZE, desc, avail, used, base, features };
        let slot = RingSlot::new("bench".into()).unwrap();
        slot.edit(|place| {
            let mut running = Ring::new(DeviceQueue::new(table, setup).unwrap(), features);
            running.enabled = true;
            *place = Some(Box::new(running));
        });
        Self { ring, slot: Arc::new(slot), _memory: memory }
    }

    /// Where the back-end finds the ring.
    #[must_use]
    pub const fn slot(&self) -> &Arc<RingSlot> {
        &self.slot
    }

    /// Posts again what the back-end has used.
    pub fn recycle(&mut self) {
        self.ring.poll_used().unwrap();
        while let Some(used) = self.ring.next_used().unwrap() {
            self.ring.post(used.head);
        }
        let _ = self.ring.publish();
    }
}
