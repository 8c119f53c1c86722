//! The one piece of memory that a session shares with its device: rings and packet buffers, and
//! nothing else of the process.

use std::ptr::NonNull;
use std::sync::Arc;

use eal::dma::DmaBacking;
use eal::{DmaArena, DmaMemory, DmaPart, DmaSpace, SharedMemory};
use ethdev::Error;

/// Where a vhost-user back-end is told that the memory lies: as guest-physical and as user
/// address. It need not be our own address, and so it tells nobody where anything lies in our
/// process.
pub const DEVICE_BASE: u64 = 0x1_0000_0000;

/// Where a frame starts in its slot: on a cache line of its own. The net header ends there, so a
/// header that never changes keeps its line unchanged, and shared, for ever.
pub const DATA_OFFSET: usize = 64;

/// Memory for devices is at least half a huge page, so that it is one where there are any: an IOMMU
/// has one translation for all of it then, in place of hundreds.
const WORTH_HUGE: usize = 1 << 20;

/// Parts start on multiples of this many bytes: a pair of cache lines.
pub const ALIGN: usize = 128;

/// Where the next part goes, in memory that the device sees in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    offset: usize,
    piece: usize,
}

impl Cursor {
    /// At the start of memory in pieces of `piece` bytes.
    pub const fn new(piece: usize) -> Self {
        Self { offset: 0, piece }
    }

    /// Where `bytes` bytes can lie in one piece, at a multiple of `align`, a power of two. `None`
    /// when no piece is that large.
    pub fn take(&mut self, bytes: usize, align: usize) -> Option<usize> {
        let size = bytes.checked_next_multiple_of(ALIGN)?;
        let start = self.offset.checked_next_multiple_of(align.max(ALIGN))?;
        let last = start.checked_add(size.saturating_sub(1))?;
        let whole = start.checked_div(self.piece)? == last.checked_div(self.piece)?;
        let start = if whole { start } else { start.checked_next_multiple_of(self.piece)? };
        if size > self.piece {
            return None;
        }
        self.offset = start.checked_add(size)?;
        Some(start)
    }

    /// Bytes of memory up to here.
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

/// Memory that is given out in parts, from front to back.
#[derive(Debug)]
pub struct Parts {
    memory: DmaArena,
    cursor: Cursor,
}

impl Parts {
    /// `bytes` of memory for the back-end of the port called `name`.
    pub fn shared(name: &str, bytes: usize) -> Result<Self, Error> {
        let memory = SharedMemory::allocate(&memory_name(name), bytes)
            .map_err(|source| failed(name, &source.to_string()))?;
        let memory = DmaArena::shared(memory, DEVICE_BASE)
            .ok_or_else(|| failed(name, "it is larger than the peer has addresses"))?;
        Ok(Self::of(memory))
    }

    /// `bytes` of memory for the PCI device of the port called `name`.
    pub fn dma(name: &str, bytes: usize, space: &DmaSpace) -> Result<Self, Error> {
        let buffer = space
            .allocate(&memory_name(name), bytes.max(WORTH_HUGE))
            .map_err(|source| failed(name, &source.to_string()))?;
        Ok(Self::of(DmaArena::new(buffer)))
    }

    fn of(memory: DmaArena) -> Self {
        let cursor = Cursor::new(memory.backing().piece_len());
        Self { memory, cursor }
    }

    /// The memory itself.
    pub const fn memory(&self) -> &Arc<DmaBacking> {
        self.memory.backing()
    }

    /// The next `bytes` bytes; `None` when fewer are left.
    pub fn take(&mut self, bytes: usize) -> Option<DmaPart> {
        self.take_aligned(bytes, ALIGN)
    }

    /// As [`take`](Self::take), from a multiple of `align` on.
    pub fn take_aligned(&mut self, bytes: usize, align: usize) -> Option<DmaPart> {
        let mut cursor = self.cursor;
        let part = self.memory.take_at(cursor.take(bytes, align)?, bytes)?;
        self.cursor = cursor;
        Some(part)
    }
}

fn memory_name(name: &str) -> String {
    let short: String = name.chars().take(100).filter(|c| *c != '\0').collect();
    format!("ringway-{short}")
}

fn failed(name: &str, reason: &str) -> Error {
    Error::Device { what: format!("port {name}"), reason: reason.to_owned() }
}

/// Packet buffers of equal size, one per descriptor.
#[derive(Debug)]
pub struct Slots {
    memory: DmaPart,
    count: u16,
    stride: usize,
    /// Bytes of a slot from [`DATA_OFFSET`] on.
    room: usize,
}

impl Slots {
    /// Bytes from one slot to the next: an odd number of cache lines, since with a power of two
    /// the first lines of all slots would compete for the same few places in the cache.
    const fn stride(room: usize) -> usize {
        let lines = (DATA_OFFSET + room).div_ceil(64);
        64 * (lines | 1)
    }

    /// As many slots of `room` bytes as a piece of memory of `piece` bytes holds, `count` at most.
    pub fn fitting(count: u16, room: usize, piece: usize) -> u16 {
        u16::try_from(piece / Self::stride(room)).map_or(count, |fitting| fitting.min(count))
    }

    /// Bytes of memory that `count` slots take, with `room` bytes for a frame each.
    pub const fn bytes(count: u16, room: usize) -> usize {
        count as usize * Self::stride(room)
    }

    /// `count` slots with `room` bytes for a frame each.
    pub fn new(memory: &mut Parts, count: u16, room: usize) -> Option<Self> {
        let stride = Self::stride(room);
        Some(Self { memory: memory.take(Self::bytes(count, room))?, count, stride, room })
    }

    /// The memory that they lie in.
    pub const fn backing(&self) -> &Arc<DmaBacking> {
        self.memory.backing()
    }

    /// The number of slots.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of a frame that one slot holds.
    pub const fn room(&self) -> usize {
        self.room
    }

    /// Where a frame starts in slot `id`: [`DATA_OFFSET`] bytes lie before it, and
    /// [`room`](Self::room) bytes from it on. `None` when there is no such slot.
    #[inline]
    pub fn frame(&self, id: u16) -> Option<NonNull<u8>> {
        if id >= self.count {
            return None;
        }
        let offset = usize::from(id) * self.stride + DATA_OFFSET;
        // SAFETY: the memory has room for `count` slots, and `id` is one of them.
        Some(unsafe { self.memory.place().host().add(offset) })
    }

    /// The `len` bytes of slot `id` that start `before` bytes in front of [`DATA_OFFSET`]; `None`
    /// when the slot is not that long.
    #[inline]
    pub fn part(&self, id: u16, before: usize, len: usize) -> Option<DmaMemory> {
        if before > DATA_OFFSET || len > self.room + before {
            return None;
        }
        self.memory.slice(usize::from(id) * self.stride + DATA_OFFSET - before, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_end_with_the_memory() {
        let mut parts = Parts::shared("test", 10 * 4096).unwrap();
        let total = parts.memory().shared().len();
        let first = parts.take(100).unwrap();
        let second = parts.take(1).unwrap();
        let device = |part: DmaPart| part.place().device();
        assert_eq!((first.len(), device(first)), (100, DEVICE_BASE));
        assert_eq!(device(second), DEVICE_BASE + 128);
        assert_eq!(device(parts.take_aligned(1, 4096).unwrap()), DEVICE_BASE + 4096);
        assert!(parts.take(total - 4096).is_none());
        assert!(parts.take(total - 4096 - 128).is_some());
        assert!(parts.take(1).is_none());
    }

    #[test]
    fn no_part_lies_in_two_pieces() {
        let mut cursor = Cursor::new(4096);
        assert_eq!(cursor.take(4000, ALIGN), Some(0));
        assert_eq!(cursor.take(1, ALIGN), Some(4096));
        assert_eq!(cursor.take(3968, ALIGN), Some(4096 + 128));
        assert_eq!(cursor.take(4096, ALIGN), Some(8192));
        assert_eq!(cursor.take(4097, ALIGN), None);
        assert_eq!(cursor.offset(), 3 * 4096);
        assert_eq!(Slots::fitting(256, 2176, 4096), 1);
        assert_eq!(Slots::fitting(256, 2176, usize::MAX), 256);
    }

    #[test]
    fn frames_start_on_a_line_and_slots_spread_over_the_cache() {
        let mut memory = Parts::shared("test", Slots::bytes(8, 2176) + 128).unwrap();
        let slots = Slots::new(&mut memory, 8, 2176).unwrap();
        for id in 0..8 {
            let frame = slots.part(id, 0, slots.room()).unwrap();
            assert_eq!(frame.device() % 64, 0);
            let with_header = slots.part(id, 12, 12 + slots.room()).unwrap();
            assert_eq!(with_header.device() + 12, frame.device());
            assert_eq!(slots.frame(id), Some(frame.host()));
        }
        let line = |id| slots.part(id, 0, 1).unwrap().device() / 64;
        assert_eq!((line(1) - line(0)) % 2, 1);
        assert!(slots.part(0, 0, slots.room() + 1).is_none());
        assert!(slots.part(0, 65, 65).is_none());
        assert!(slots.part(8, 0, 1).is_none());
        assert!(slots.frame(8).is_none());
    }
}
