//! Descriptors, and the rings that they are in (82576 datasheet, 7.1.5 and 7.2.2).
//!
//! A descriptor is two little-endian words of 64 bits. The device writes them while we look, so
//! each access is one volatile load or store of a word; what a received descriptor says comes in
//! one such load, and is then checked.

use std::ptr::NonNull;

use eal::dma::DmaError;
use eal::{DmaArena, DmaPart, DmaSpace};

/// Bytes of a descriptor.
const LEN: usize = 16;

/// Two words.
type Words = [u64; 2];

/// Memory for the rings of a port, of equal size.
#[derive(Debug)]
pub(super) struct RingMemory {
    memory: DmaArena,
    entries: u16,
}

impl RingMemory {
    /// Memory for `count` rings of `entries` descriptors.
    ///
    /// # Errors
    /// When there is no such memory, or devices do not reach it.
    pub(super) fn allocate(
        name: &str,
        count: usize,
        entries: u16,
        space: &DmaSpace,
    ) -> Result<Self, DmaError> {
        let bytes = Self::stride(entries).saturating_mul(count);
        Ok(Self { memory: DmaArena::new(space.allocate(name, bytes)?), entries })
    }

    /// Bytes from one ring to the next: a power of two, so that none crosses the border of pages
    /// that devices do not see in one piece.
    fn stride(entries: u16) -> usize {
        (LEN * usize::from(entries)).next_power_of_two()
    }

    /// Another ring, all zero; `None` when there is no memory for one.
    pub(super) fn ring(&mut self) -> Option<DescriptorRing> {
        let bytes = LEN * usize::from(self.entries);
        let memory = self.memory.take(bytes, Self::stride(self.entries))?;
        let (first, device) = (memory.place().host().cast(), memory.place().device());
        Some(DescriptorRing { _memory: memory, first, device, entries: self.entries })
    }
}

/// A ring of descriptors in memory that the device reaches.
#[derive(Debug)]
pub(super) struct DescriptorRing {
    /// What `first` points to.
    _memory: DmaPart,
    first: NonNull<Words>,
    device: u64,
    entries: u16,
}

// SAFETY: `first` is an address in memory that belongs to this value alone.
unsafe impl Send for DescriptorRing {}

impl DescriptorRing {
    /// Number of descriptors.
    #[inline]
    pub(super) const fn entries(&self) -> u16 {
        self.entries
    }

    /// Bytes of all descriptors.
    pub(super) fn bytes(&self) -> u32 {
        u32::from(self.entries) * 16
    }

    /// Where the device finds the first one.
    pub(super) const fn device_address(&self) -> u64 {
        self.device
    }

    /// The index after `index`.
    #[inline]
    pub(super) const fn after(&self, index: u16) -> u16 {
        self.ahead(index, 1)
    }

    /// The index `count` places after `index`; `count` is at most the number of descriptors.
    #[inline]
    pub(super) const fn ahead(&self, index: u16, count: u16) -> u16 {
        // Indices are below 4096 and so is the number of descriptors, about.
        let sum = index.wrapping_add(count);
        if sum >= self.entries { sum - self.entries } else { sum }
    }

    /// The second word of descriptor `index`, in which the device says that it is done, and
    /// everything that it wrote to memory before that.
    #[inline]
    pub(super) fn status(&self, index: u16) -> u64 {
        let Some(words) = self.at(index) else { return 0 };
        // SAFETY: `at` made sure that the descriptor is in the ring's memory, which is aligned.
        let word = unsafe { (&raw const (*words.as_ptr())[1]).read_volatile() };
        // What the device wrote before it said so is read after this.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        u64::from_le(word)
    }

    /// Writes descriptor `index`.
    #[inline]
    pub(super) fn write(&self, index: u16, descriptor: Words) {
        let Some(words) = self.at(index) else { return };
        let [first, second] = descriptor;
        // SAFETY: as in `status`; no reference to the memory exists.
        unsafe {
            (&raw mut (*words.as_ptr())[0]).write_volatile(first.to_le());
            (&raw mut (*words.as_ptr())[1]).write_volatile(second.to_le());
        }
    }

    /// Where descriptor `index` is, to have its cache line fetched.
    #[inline]
    pub(super) fn hint(&self, index: u16) -> *const u8 {
        self.first.as_ptr().wrapping_add(usize::from(index)).cast()
    }

    #[inline]
    fn at(&self, index: u16) -> Option<NonNull<Words>> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: the memory has `entries` descriptors, and `index` is one of them.
        Some(unsafe { self.first.add(usize::from(index)) })
    }
}

/// What the device wrote about a received buffer: the second word of an advanced receive
/// descriptor (7.1.5.2), as it was at one moment. Nothing of it is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received(pub(super) u64);

impl Received {
    /// The buffer is filled.
    pub(super) const DONE: u64 = 1 << 0;
    /// It is the frame's last.
    pub(super) const END: u64 = 1 << 1;
    /// A VLAN tag was stripped.
    pub(super) const TAG_STRIPPED: u64 = 1 << 3;
    /// The checksum of TCP or UDP was looked at.
    pub(super) const L4_CHECKED: u64 = 1 << 5;
    /// It was wrong.
    pub(super) const L4_ERROR: u64 = 1 << 29;
    /// The checksum of the IPv4 header was wrong.
    pub(super) const IP_ERROR: u64 = 1 << 30;
    /// The frame was broken on its way.
    pub(super) const RECEIVE_ERROR: u64 = 1 << 31;

    /// Whether all of `bits` are set.
    #[inline]
    pub(super) const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Bytes in the buffer, as the device says.
    #[inline]
    pub(super) const fn len(self) -> usize {
        ((self.0 >> 32) & 0xFFFF) as usize
    }

    /// The VLAN of the tag that was stripped.
    #[inline]
    pub(super) const fn vlan(self) -> u16 {
        ((self.0 >> 48) & 0x0FFF) as u16
    }

    /// Whether the device found the transport's checksum good, and that of the IPv4 header where
    /// there is one.
    #[inline]
    pub(super) const fn is_valid(self) -> bool {
        const LOOKED_AT: u64 = Received::L4_CHECKED | Received::L4_ERROR | Received::IP_ERROR;
        self.0 & LOOKED_AT == Self::L4_CHECKED
    }

    /// Whether the device found a checksum wrong.
    #[inline]
    pub(super) const fn is_invalid(self) -> bool {
        self.0 & (Self::L4_ERROR | Self::IP_ERROR) != 0
    }
}

/// A receive descriptor for a buffer at `address` (7.1.5.1): no header buffer.
#[inline]
pub(super) const fn empty_buffer(address: u64) -> Words {
    [address, 0]
}

/// Bits of the second word of transmit descriptors (7.2.2.2 and 7.2.2.3). The lower half is the
/// command word, except for the length; the upper one is for offloads.
pub(super) mod tx {
    /// A context descriptor.
    pub const CONTEXT: u64 = 0x2 << 20;
    /// A data descriptor.
    pub const DATA: u64 = 0x3 << 20;
    /// The frame's last.
    pub const END: u64 = 1 << 24;
    /// Insert the frame check sequence.
    pub const INSERT_FCS: u64 = 1 << 25;
    /// Report when it is done.
    pub const REPORT: u64 = 1 << 27;
    /// One of the advanced descriptors.
    pub const ADVANCED: u64 = 1 << 29;
    /// Insert the context's VLAN tag.
    pub const INSERT_TAG: u64 = 1 << 30;
    /// Cut the frame as the context says.
    pub const SEGMENT: u64 = 1 << 31;
    /// The device writes it into the upper half when it is done.
    pub const DONE: u64 = 1 << 32;
    /// Where the number of the context goes.
    pub const CONTEXT_SHIFT: u32 = 32 + 4;
    /// Insert the checksum of the IPv4 header.
    pub const IP_CHECKSUM: u64 = 1 << (32 + 8);
    /// Insert the checksum of TCP or UDP.
    pub const L4_CHECKSUM: u64 = 1 << (32 + 9);
    /// Where the length of the payload goes.
    pub const PAYLOAD_SHIFT: u32 = 32 + 14;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_descriptor_says_is_taken_apart() {
        let received = Received(0xF064_0123_0000_002B);
        assert!(received.has(Received::DONE | Received::END | Received::TAG_STRIPPED));
        assert_eq!((received.len(), received.vlan()), (0x123, 0x064));
        assert!(received.is_valid() && !received.is_invalid());
        assert!(!Received(Received::L4_CHECKED | Received::IP_ERROR).is_valid());
        assert!(!Received(0).is_valid());
    }
}
