//! The shared memory of a split ring, as its driver uses it.

use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicU16, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use crate::ring::{
    AVAIL_NO_INTERRUPT, Desc, ENTRIES_OFFSET, FLAGS_OFFSET, INDEX_OFFSET, QueueSize,
    USED_NO_NOTIFY, UsedElem,
};
use eal::DmaPart;

/// The parts of a ring start on boundaries of this many bytes, so that what the driver writes
/// and what the device writes never share a cache line, nor the pair of lines that x86 fetches.
const PART_ALIGN: usize = 128;

/// Where the used ring starts in its [`PART_ALIGN`]: so that its elements, which come after four
/// bytes of flags and index, are aligned to their own size, though four bytes are all that a
/// device may expect (virtio 1.3 section 2.7).
///
/// No element lies across two pages then. QEMU from 9.0 on writes the second half of such an
/// element behind the first one's page in physical memory, whatever an IOMMU has put there: over
/// a descriptor, a page table or a stack of the guest's kernel.
const USED_SHIFT: usize = PART_ALIGN - ENTRIES_OFFSET;

/// Legacy rings, and the used rings in them, start on boundaries of this many bytes. They are for
/// devices without an IOMMU only (virtio 1.3 section 6, `VIRTIO_F_ACCESS_PLATFORM`), and so their
/// elements may lie across two pages.
pub const LEGACY_ALIGN: usize = 4096;

/// Where the three parts of a ring lie in its memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    avail: usize,
    used: usize,
    end: usize,
}

impl Layout {
    const fn new(size: QueueSize) -> Self {
        let avail = size.desc_bytes().next_multiple_of(PART_ALIGN);
        let used = (avail + size.avail_bytes()).next_multiple_of(PART_ALIGN) + USED_SHIFT;
        let end = (used + size.used_bytes()).next_multiple_of(PART_ALIGN);
        Self { avail, used, end }
    }

    /// The layout before virtio 1.0 (virtio 1.3 section 2.7.2): the device computes it itself.
    const fn legacy(size: QueueSize) -> Self {
        let avail = size.desc_bytes();
        let used = (avail + size.avail_bytes()).next_multiple_of(LEGACY_ALIGN);
        let end = (used + size.used_bytes()).next_multiple_of(LEGACY_ALIGN);
        Self { avail, used, end }
    }
}

/// The three parts of a split ring in memory that is shared with the device.
///
/// Positions are taken modulo the ring's size, so no argument can lead outside of it.
#[derive(Debug)]
pub struct SplitRing {
    desc: NonNull<Desc>,
    avail: NonNull<u8>,
    used: NonNull<u8>,
    size: QueueSize,
    layout: Layout,
    /// What the pointers lead into, and nobody else in this process has.
    memory: DmaPart,
}

// SAFETY: the pointers lead into `memory`, which is Send; the ring is their only user on the
// driver's side.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// Bytes of memory that a ring of `size` entries takes.
    #[must_use]
    pub const fn bytes(size: QueueSize) -> usize {
        Layout::new(size).end
    }

    /// A ring of `size` entries at the start of `memory`, all zero; `None` when the memory is
    /// shorter than [`bytes`](Self::bytes) or not aligned to 16 bytes.
    ///
    /// The ring has the memory to itself, and keeps it; what was only looked up does not do:
    ///
    /// ```compile_fail,E0308
    /// # use eal::DmaSpace;
    /// # use virtio::{driver::split::SplitRing, ring::QueueSize};
    /// fn in_memory_that_goes(space: &DmaSpace) -> Option<SplitRing> {
    ///     let buffer = space.allocate("ring", 1 << 16).ok()?;
    ///     let place = buffer.slice(0, 1 << 16)?;
    ///     drop(buffer);
    ///     SplitRing::new(place, QueueSize::new(256)?)
    /// }
    /// ```
    #[must_use]
    pub fn new(memory: DmaPart, size: QueueSize) -> Option<Self> {
        Self::with_layout(memory, size, Layout::new(size))
    }

    /// Bytes of memory that a ring of `size` entries takes in the legacy layout.
    #[must_use]
    pub const fn legacy_bytes(size: QueueSize) -> usize {
        Layout::legacy(size).end
    }

    /// As [`new`](Self::new), in the legacy layout; `None` also when the device's address is not
    /// aligned to [`LEGACY_ALIGN`].
    #[must_use]
    pub fn new_legacy(memory: DmaPart, size: QueueSize) -> Option<Self> {
        if !memory.place().device().is_multiple_of(LEGACY_ALIGN as u64) {
            return None;
        }
        Self::with_layout(memory, size, Layout::legacy(size))
    }

    fn with_layout(memory: DmaPart, size: QueueSize, layout: Layout) -> Option<Self> {
        let memory = memory.truncate(layout.end)?;
        let (host, device) = (memory.place().host(), memory.place().device());
        if !host.cast::<Desc>().is_aligned() || !device.is_multiple_of(16) {
            return None;
        }
        // SAFETY: the part is `layout.end` bytes long and belongs to this ring alone, and both
        // offsets are below that.
        let (avail, used) = unsafe {
            host.as_ptr().write_bytes(0, layout.end);
            (host.add(layout.avail), host.add(layout.used))
        };
        Some(Self { desc: host.cast(), avail, used, size, layout, memory })
    }

    /// The number of entries.
    #[must_use]
    #[inline]
    pub const fn size(&self) -> QueueSize {
        self.size
    }

    /// The device's addresses of descriptor table, available ring and used ring.
    #[must_use]
    pub const fn device_addresses(&self) -> (u64, u64, u64) {
        let (layout, base) = (self.layout, self.memory.place().device());
        (base, base + layout.avail as u64, base + layout.used as u64)
    }

    /// A 16-bit word of the available or the used ring.
    ///
    /// # Safety
    ///
    /// `offset` must be even and the word inside the part.
    #[inline]
    unsafe fn word(&self, part: NonNull<u8>, offset: usize) -> &AtomicU16 {
        // SAFETY: inside the ring's memory as the caller says, aligned since parts start on
        // multiples of 4, and an atomic may be shared with anybody.
        unsafe { AtomicU16::from_ptr(part.add(offset).cast().as_ptr()) }
    }

    /// Writes descriptor `id`.
    #[inline]
    pub fn write_desc(&mut self, id: u16, desc: Desc) {
        // SAFETY: the position is less than the ring's size, the number of descriptors.
        unsafe { self.desc.add(self.size.position(id)).write_volatile(desc) }
    }

    /// Puts `head` at free-running index `index` of the available ring. A word that is
    /// already there is not written again, so that its cache line stays with the device.
    #[inline]
    pub fn write_avail(&mut self, index: u16, head: u16) {
        let offset = ENTRIES_OFFSET + 2 * self.size.position(index);
        // SAFETY: even, and the position is less than the number of entries.
        let word = unsafe { self.word(self.avail, offset) };
        if word.load(Relaxed) != head {
            word.store(head, Relaxed);
        }
    }

    /// Publishes the available entries before `index`: all writes before this are visible to the
    /// device when it sees the index.
    #[inline]
    pub fn publish_avail(&mut self, index: u16) {
        // SAFETY: the index word is part of every available ring.
        unsafe { self.word(self.avail, INDEX_OFFSET) }.store(index, Release);
    }

    /// The device's index in the used ring; elements before it may be read after this.
    #[must_use]
    #[inline]
    pub fn used_index(&self) -> u16 {
        // SAFETY: the index word is part of every used ring.
        unsafe { self.word(self.used, INDEX_OFFSET) }.load(Acquire)
    }

    /// The element at free-running index `index` of the used ring: whatever the device, or
    /// anybody else who has the memory, wrote there.
    #[must_use]
    #[inline]
    pub fn read_used(&self, index: u16) -> UsedElem {
        let offset = ENTRIES_OFFSET + size_of::<UsedElem>() * self.size.position(index);
        // SAFETY: the position is less than the number of elements, and elements are aligned to
        // 4 bytes in a part that is.
        unsafe {
            let id = self.used.add(offset).cast::<u32>();
            UsedElem {
                id: AtomicU32::from_ptr(id.as_ptr()).load(Relaxed),
                len: AtomicU32::from_ptr(id.add(1).as_ptr()).load(Relaxed),
            }
        }
    }

    /// Orders what was published before this against what is read of the device's wishes after
    /// it (virtio 1.3 section 2.7.13.4.1).
    #[inline]
    pub fn full_fence() {
        fence(SeqCst);
    }

    /// Whether the device wants no notifications; counts only without EVENT_IDX.
    #[must_use]
    #[inline]
    pub fn no_notify(&self) -> bool {
        // SAFETY: the flags word is part of every used ring.
        unsafe { self.word(self.used, FLAGS_OFFSET) }.load(Relaxed) & USED_NO_NOTIFY != 0
    }

    /// The available index that the device wants to hear of; counts only with EVENT_IDX.
    #[must_use]
    #[inline]
    pub fn avail_event(&self) -> u16 {
        // SAFETY: the part ends with this word.
        unsafe { self.word(self.used, self.size.avail_event_offset()) }.load(Relaxed)
    }

    /// Tells the device whether to interrupt; counts only without EVENT_IDX.
    #[inline]
    pub fn set_no_interrupt(&mut self, on: bool) {
        let flags = if on { AVAIL_NO_INTERRUPT } else { 0 };
        // SAFETY: the flags word is part of every available ring.
        unsafe { self.word(self.avail, FLAGS_OFFSET) }.store(flags, Relaxed);
    }

    /// Tells the device of which used index to interrupt; counts only with EVENT_IDX.
    #[inline]
    pub fn set_used_event(&mut self, index: u16) {
        // SAFETY: the part ends with this word.
        unsafe { self.word(self.avail, self.size.used_event_offset()) }.store(index, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_elements_are_aligned_to_their_size_and_alone_in_their_lines() {
        for size in (0..=15).filter_map(|shift| QueueSize::new(1 << shift)) {
            let layout = Layout::new(size);
            assert_eq!((layout.used + ENTRIES_OFFSET) % size_of::<UsedElem>(), 0, "{size:?}");
            // Neither lines nor pages are shared with what the driver writes.
            let written = (layout.avail + size.avail_bytes()).div_ceil(PART_ALIGN);
            assert!(layout.used / PART_ALIGN >= written, "{size:?}");
            assert!(layout.used + size.used_bytes() <= layout.end, "{size:?}");
        }
    }
}
