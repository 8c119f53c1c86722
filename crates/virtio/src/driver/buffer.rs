//! What goes into a ring and comes back out of it, whatever its format.

use crate::ring::{DESC_WRITE, Desc};
use eal::DmaMemory;

/// Longest chain that `add` makes.
pub(super) const MAX_CHAIN: usize = 64;

/// A piece of memory for the device to read or to write.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    pub(super) memory: DmaMemory,
    pub(super) writable: bool,
}

impl Buffer {
    /// Memory that the device reads.
    #[must_use]
    #[inline]
    pub const fn readable(memory: DmaMemory) -> Self {
        Self { memory, writable: false }
    }

    /// Memory that the device writes.
    #[must_use]
    #[inline]
    pub const fn writable(memory: DmaMemory) -> Self {
        Self { memory, writable: true }
    }

    /// The device's address of the memory, and its length in bytes.
    #[cfg(test)]
    pub(crate) fn place(&self) -> (u64, u32) {
        (self.desc().addr, self.desc().len)
    }

    /// The descriptor for this buffer; lengths over 4 GiB are cut.
    #[inline]
    pub(super) fn desc(&self) -> Desc {
        let len = u32::try_from(self.memory.len()).unwrap_or(u32::MAX);
        let flags = if self.writable { DESC_WRITE } else { 0 };
        Desc { addr: self.memory.device(), len, flags, next: 0 }
    }
}

/// A chain that the device has used. Its descriptors are held by the driver again: to
/// [`post`](super::SplitQueue::post) once more, or to [`recycle`](super::SplitQueue::recycle).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain's first descriptor.
    pub head: u16,
    /// Bytes that the device says it wrote, never more than the chain has room for.
    pub len: u32,
}

/// The device broke the rules of the ring. Nothing in the ring can be trusted any more: reset the
/// device, or leave it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// More was used than was posted.
    #[error(
        "the device moved its used index from {from} to {to}, expected at most {posted} steps: \
         no more buffers are posted"
    )]
    Index {
        /// The index up to which elements were taken.
        from: u16,
        /// The index that the device wrote.
        to: u16,
        /// Chains that the device has.
        posted: u16,
    },
    /// A descriptor that the device does not have.
    #[error("the device used descriptor {id}, expected the head of one of the posted chains")]
    Id {
        /// What the device wrote.
        id: u32,
    },
    /// More was written than there is room.
    #[error("the device wrote {len} bytes to the {room} bytes at descriptor {head}")]
    Len {
        /// The chain's head.
        head: u16,
        /// What the device claims.
        len: u32,
        /// The bytes it was given to write.
        room: u32,
    },
}

pub(super) fn writable_bytes(buffers: &[Buffer]) -> u32 {
    let lens = buffers.iter().filter(|buffer| buffer.writable).map(|buffer| buffer.desc().len);
    lens.fold(0, u32::saturating_add)
}
