//! A ring of either format, for drivers.
//!
//! The format is decided when a session starts. Code that moves packets is written against
//! [`DriverRing`], once, and made for each format; what is not in a hurry uses [`DriverQueue`].

use super::buffer::{Buffer, RingError, Used};
use super::packed::PackedQueue;
use super::split::SplitQueue;
use crate::features::Features;
use crate::packed;
use crate::ring::QueueSize;
use eal::{DmaPart, DmaSlice};

/// What both formats can do. See [`SplitQueue`] and [`PackedQueue`] for what its methods do.
pub trait DriverRing {
    /// The number of entries.
    fn entries(&self) -> u16;
    /// The number of free ids.
    fn free_count(&self) -> u16;
    /// Whether the device has a chain that starts at `id`.
    fn is_posted(&self, id: u16) -> bool;
    /// Takes a free id for the driver.
    fn reserve(&mut self) -> Option<u16>;
    /// Frees an id that the driver holds.
    fn release(&mut self, id: u16);
    /// Makes `id` a chain of its own.
    fn set(&mut self, id: u16, buffer: Buffer);
    /// Makes a chain of `ids`.
    fn set_chain(&mut self, ids: &[u16], buffers: &[Buffer]);
    /// Makes `id` a chain of buffers that `table` describes.
    fn set_indirect(&mut self, id: u16, table: DmaSlice<'_>, buffers: &[Buffer]) -> bool;
    /// Puts a chain in line for the device.
    fn post(&mut self, head: u16);
    /// Reserves, sets and posts in one.
    fn add_with(&mut self, fill: impl FnOnce(u16) -> Option<Buffer>) -> bool;
    /// Reserves, sets and posts a chain.
    fn add(&mut self, buffers: &[Buffer]) -> Option<u16>;
    /// Makes what was posted visible; returns whether the device wants to be notified.
    #[must_use]
    fn publish(&mut self) -> bool;
    /// Where the next chain will go, as notifications with NOTIFICATION_DATA tell it.
    fn position(&self) -> u16;
    /// How many chains [`next_used`](Self::next_used) may give; 0 for none.
    ///
    /// # Errors
    /// When the device broke the rules of the ring.
    fn poll_used(&mut self) -> Result<u16, RingError>;
    /// Takes the next chain that the device has used.
    ///
    /// # Errors
    /// When the device broke the rules of the ring.
    fn next_used(&mut self) -> Result<Option<Used>, RingError>;
    /// Frees all ids of a chain that the driver holds.
    fn recycle(&mut self, head: u16);
    /// Asks for an interrupt with the next used chain; `false` if there is one already.
    #[must_use]
    fn enable_interrupts(&mut self) -> bool;
    /// Asks for no interrupts.
    fn disable_interrupts(&mut self);
}

/// Writes the methods of `DriverRing`, each with `$call` on what `$ring` stands for.
macro_rules! forward {
    ($type:ident, $entries:expr, $this:ident, $ring:ident => $dispatch:ident) => {
        impl DriverRing for $type {
            #[inline]
            fn entries(&self) -> u16 {
                let $this = self;
                $entries
            }
            #[inline]
            fn free_count(&self) -> u16 {
                $dispatch!(self, $ring => $ring.free_count())
            }
            fn is_posted(&self, id: u16) -> bool {
                $dispatch!(self, $ring => $ring.is_posted(id))
            }
            #[inline]
            fn reserve(&mut self) -> Option<u16> {
                $dispatch!(self, $ring => $ring.reserve())
            }
            #[inline]
            fn release(&mut self, id: u16) {
                $dispatch!(self, $ring => $ring.release(id));
            }
            #[inline]
            fn set(&mut self, id: u16, buffer: Buffer) {
                $dispatch!(self, $ring => $ring.set(id, buffer));
            }
            fn set_chain(&mut self, ids: &[u16], buffers: &[Buffer]) {
                $dispatch!(self, $ring => $ring.set_chain(ids, buffers));
            }
            fn set_indirect(&mut self, id: u16, table: DmaSlice<'_>, buffers: &[Buffer]) -> bool {
                $dispatch!(self, $ring => $ring.set_indirect(id, table, buffers))
            }
            #[inline]
            fn post(&mut self, head: u16) {
                $dispatch!(self, $ring => $ring.post(head));
            }
            #[inline]
            fn add_with(&mut self, fill: impl FnOnce(u16) -> Option<Buffer>) -> bool {
                $dispatch!(self, $ring => $ring.add_with(fill))
            }
            fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
                $dispatch!(self, $ring => $ring.add(buffers))
            }
            #[inline]
            fn publish(&mut self) -> bool {
                $dispatch!(self, $ring => $ring.publish())
            }
            #[inline]
            fn position(&self) -> u16 {
                $dispatch!(self, $ring => $ring.position())
            }
            #[inline]
            fn poll_used(&mut self) -> Result<u16, RingError> {
                $dispatch!(self, $ring => $ring.poll_used())
            }
            #[inline]
            fn next_used(&mut self) -> Result<Option<Used>, RingError> {
                $dispatch!(self, $ring => $ring.next_used())
            }
            fn recycle(&mut self, head: u16) {
                $dispatch!(self, $ring => $ring.recycle(head));
            }
            fn enable_interrupts(&mut self) -> bool {
                $dispatch!(self, $ring => $ring.enable_interrupts())
            }
            fn disable_interrupts(&mut self) {
                $dispatch!(self, $ring => $ring.disable_interrupts());
            }
        }
    };
}

/// The queue's own method of the same name: inherent methods come first.
macro_rules! own {
    ($queue:expr, $ring:ident => $call:expr) => {{
        let $ring = $queue;
        $call
    }};
}

/// The method of whichever ring it is.
macro_rules! either {
    ($queue:expr, $ring:ident => $call:expr) => {
        match $queue {
            DriverQueue::Split($ring) => $call,
            DriverQueue::Packed($ring) => $call,
        }
    };
}

forward!(SplitQueue, this.size().get(), this, ring => own);
forward!(PackedQueue, this.size(), this, ring => own);
forward!(DriverQueue, either!(this, ring => ring.entries()), this, ring => either);

/// A ring of the format that was negotiated.
#[derive(Debug)]
pub enum DriverQueue {
    /// Virtio 1.3 section 2.7.
    Split(SplitQueue),
    /// Virtio 1.3 section 2.8.
    Packed(PackedQueue),
}

impl From<SplitQueue> for DriverQueue {
    fn from(queue: SplitQueue) -> Self {
        Self::Split(queue)
    }
}

impl From<PackedQueue> for DriverQueue {
    fn from(queue: PackedQueue) -> Self {
        Self::Packed(queue)
    }
}

impl DriverQueue {
    /// Bytes of memory that a queue of `size` entries takes with these features; 0 for a size
    /// that is not allowed.
    #[must_use]
    pub fn bytes(size: u16, features: Features) -> usize {
        if features.contains(Features::RING_PACKED) {
            PackedQueue::bytes(size)
        } else {
            QueueSize::new(size).map_or(0, SplitQueue::bytes)
        }
    }

    /// An empty queue in `memory`, which is cleared, with interrupts off. `None` when the size
    /// is not allowed, or the memory too short or not aligned to 16 bytes.
    #[must_use]
    pub fn new(memory: DmaPart, size: u16, features: Features) -> Option<Self> {
        if features.contains(Features::RING_PACKED) {
            return PackedQueue::new(memory, size, features).map(Self::Packed);
        }
        let event_idx = features.contains(Features::EVENT_IDX);
        SplitQueue::new(memory, QueueSize::new(size)?, event_idx).map(Self::Split)
    }

    /// Bytes of memory that a split queue of `size` entries takes in the layout of devices before
    /// virtio 1.0; 0 for a size that is not allowed.
    #[must_use]
    pub fn legacy_bytes(size: u16) -> usize {
        QueueSize::new(size).map_or(0, SplitQueue::legacy_bytes)
    }

    /// As [`new`](Self::new), in the layout of devices before virtio 1.0, which are told one
    /// address only (virtio 1.3 section 2.7.2). The memory must be aligned to
    /// [`LEGACY_ALIGN`](super::split::LEGACY_ALIGN).
    #[must_use]
    pub fn new_legacy(memory: DmaPart, size: u16, features: Features) -> Option<Self> {
        let event_idx = features.contains(Features::EVENT_IDX);
        SplitQueue::new_legacy(memory, QueueSize::new(size)?, event_idx).map(Self::Split)
    }

    /// The device's addresses of the ring's three parts, in the order in which virtio and
    /// vhost-user name them: descriptors, driver area, device area.
    #[must_use]
    pub const fn device_addresses(&self) -> (u64, u64, u64) {
        either!(self, ring => ring.device_addresses())
    }

    /// Where a device goes on that gives chains back in order, as far as the driver has seen it; in
    /// the form of [`first_base`](Self::first_base), which it is in a new ring.
    #[must_use]
    pub const fn base(&self) -> u32 {
        match self {
            Self::Split(ring) => ring.used_seen() as u32,
            Self::Packed(ring) => {
                let used = ring.used_place().bits() as u32;
                used << 16 | used
            }
        }
    }

    /// Where a device starts in a ring that is new, as vhost-user's SET_VRING_BASE has it: index
    /// 0, and with packed rings both wrap counters set.
    #[must_use]
    pub const fn first_base(&self) -> u32 {
        match self {
            Self::Split(_) => 0,
            Self::Packed(_) => {
                let first = packed::Position::FIRST.bits() as u32;
                first << 16 | first
            }
        }
    }
}
