//! Cycles that the back-end spends per packet when it copies bursts from one guest's ring to
//! another's: no sockets, no switch, both guests in this thread, so that no cache line changes
//! cores. It is the floor of the data path, and under `valgrind --tool=callgrind` a count of
//! instructions.
//!
//! Usage: `burst-cost [BURSTS [LENGTH ..]]`; prints a line for each frame length.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measuring tool that trusts itself"
)]

use std::sync::Arc;

use eal::{Mapping, SharedMemory, clock};
use ethdev::stats::QueueStats;
use ethdev::{RxQueue, TxQueue};
use packet::BURST;
use vhost::net::{NetReceiver, NetTransmitter, Ring, RingSlot};
use virtio::Features;
use virtio::device::{DeviceQueue, RingSetup};
use virtio::driver::memory::DmaMemory;
use virtio::driver::{Buffer, SplitQueue as DriverQueue};
use virtio::memory::{GuestMemory, Region};
use virtio::ring::QueueSize;

const SIZE: u16 = 256;
const ROOM: usize = 2048;
const RING_BYTES: usize = 1 << 16;

/// A guest with one ring, all of its descriptors on buffers of their own.
struct Guest {
    ring: DriverQueue,
    slot: Arc<RingSlot>,
    _memory: SharedMemory,
}

impl Guest {
    fn new(writable: bool, len: usize) -> Self {
        let bytes = RING_BYTES + usize::from(SIZE) * ROOM;
        let memory = SharedMemory::allocate("bench", bytes).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, bytes as u64).unwrap());
        let region = Region { guest_addr: 0, user_addr: 0, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        // SAFETY: the memory moves into the guest and lives as long as its queue.
        let dma = unsafe { DmaMemory::new(memory.as_ptr(), bytes, 0) }.unwrap();
        let size = QueueSize::new(SIZE).unwrap();
        let mut ring = DriverQueue::new(dma.slice(0, RING_BYTES).unwrap(), size, false).unwrap();
        for index in 0..usize::from(SIZE) {
            let id = ring.reserve().unwrap();
            let part = dma.slice(RING_BYTES + index * ROOM, if writable { ROOM } else { len });
            let part = part.unwrap();
            ring.set(id, if writable { Buffer::writable(part) } else { Buffer::readable(part) });
            ring.post(id);
        }
        let _ = ring.publish();
        let (desc, avail, used) = ring.device_addresses();
        let features = Features::VERSION_1 | Features::MRG_RXBUF;
        let setup = RingSetup { size: SIZE, desc, avail, used, base: 0, features };
        let slot = RingSlot::new("bench".into()).unwrap();
        slot.edit(|place| {
            let mut running = Ring::new(DeviceQueue::new(table, setup).unwrap(), features);
            running.enabled = true;
            *place = Some(Box::new(running));
        });
        Self { ring, slot: Arc::new(slot), _memory: memory }
    }

    /// Posts again what the back-end has used.
    fn recycle(&mut self) {
        self.ring.poll_used().unwrap();
        while let Some(used) = self.ring.next_used().unwrap() {
            self.ring.post(used.head);
        }
        let _ = self.ring.publish();
    }
}

/// Median over the bursts of back-end cycles per packet for frames of `len` bytes.
fn measure(len: usize, bursts: usize) -> f64 {
    let (mut from, mut to) = (Guest::new(false, len + 12), Guest::new(true, 0));
    let stats = || Arc::new(QueueStats::default());
    let mut rx = RxQueue::new(Box::new(NetReceiver::new(Arc::clone(&from.slot))), stats());
    let mut tx = TxQueue::new(Box::new(NetTransmitter::new(Arc::clone(&to.slot))), stats());
    let mut cycles = Vec::with_capacity(bursts);
    for _ in 0..bursts {
        let start = clock::now();
        let burst = rx.rx_burst(BURST);
        assert_eq!(tx.tx_burst(burst.frames()), BURST);
        drop(burst);
        cycles.push(clock::now() - start);
        from.recycle();
        to.recycle();
    }
    cycles.sort_unstable();
    cycles[bursts / 2] as f64 / BURST as f64
}

fn main() {
    let bursts = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    let lens: Vec<usize> = std::env::args().skip(2).map(|text| text.parse().unwrap()).collect();
    let lens = if lens.is_empty() { vec![64, 128, 256, 512, 1024, 1500] } else { lens };
    println!("length  cycles per packet");
    for len in lens {
        println!("{len:>6}  {:>17.1}", measure(len, bursts));
    }
}
