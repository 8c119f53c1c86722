//! The one piece of memory that a session shares with its back-end: rings and packet buffers,
//! and nothing else of the process.

use std::ptr::NonNull;
use std::sync::Arc;

use eal::SharedMemory;
use ethdev::Error;
use virtio::driver::DmaMemory;

/// Where the back-end is told that the memory lies: as guest-physical and as user address. It
/// need not be our own address, and so it tells nobody where anything lies in our process.
pub(super) const DEVICE_BASE: u64 = 0x1_0000_0000;

/// Where a frame starts in its slot: on a cache line of its own. The net header ends there, so a
/// header that never changes keeps its line unchanged, and shared, for ever.
pub(super) const DATA_OFFSET: usize = 64;

/// Parts start on multiples of this many bytes: a pair of cache lines.
const ALIGN: usize = 128;

/// Shared memory that is given out in parts, from front to back.
#[derive(Debug)]
pub(super) struct SessionMemory {
    shared: Arc<SharedMemory>,
    rest: DmaMemory,
}

impl SessionMemory {
    /// Allocates `bytes` for the port called `name`.
    pub(super) fn allocate(name: &str, bytes: usize) -> Result<Self, Error> {
        let error = |reason: String| Error::Device { what: format!("port {name}"), reason };
        let short: String = name.chars().take(100).filter(|c| *c != '\0').collect();
        let shared = SharedMemory::allocate(&format!("ringway-{short}"), bytes)
            .map_err(|source| error(source.to_string()))?;
        // SAFETY: the pointer and length are those of the mapping, to which no reference exists.
        // Whatever is made of this memory keeps the Arc: the rings, and the receiver for as long
        // as its frames lie there.
        let rest = unsafe { DmaMemory::new(shared.as_ptr(), shared.len(), DEVICE_BASE) }
            .ok_or_else(|| error(format!("{bytes} bytes are more than an address space has")))?;
        Ok(Self { shared: Arc::new(shared), rest })
    }

    /// The memory itself.
    pub(super) const fn shared(&self) -> &Arc<SharedMemory> {
        &self.shared
    }

    /// The next `bytes` bytes; `None` when fewer are left.
    pub(super) fn take(&mut self, bytes: usize) -> Option<DmaMemory> {
        let size = rounded(bytes);
        let part = self.rest.slice(0, size)?;
        self.rest = self.rest.slice(size, self.rest.len() - size)?;
        part.slice(0, bytes)
    }
}

/// What a part of `bytes` bytes takes of the memory.
pub(super) const fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Packet buffers of equal size, one per descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    memory: DmaMemory,
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

    /// Bytes of memory that `count` slots take, with `room` bytes for a frame each.
    pub(super) const fn bytes(count: u16, room: usize) -> usize {
        count as usize * Self::stride(room)
    }

    /// `count` slots with `room` bytes for a frame each.
    pub(super) fn new(memory: &mut SessionMemory, count: u16, room: usize) -> Option<Self> {
        let stride = Self::stride(room);
        Some(Self { memory: memory.take(Self::bytes(count, room))?, count, stride, room })
    }

    /// Bytes of a frame that one slot holds.
    pub(super) const fn room(&self) -> usize {
        self.room
    }

    /// Where a frame starts in slot `id`: [`DATA_OFFSET`] bytes lie before it, and
    /// [`room`](Self::room) bytes from it on. `None` when there is no such slot.
    #[inline]
    pub(super) fn frame(&self, id: u16) -> Option<NonNull<u8>> {
        if id >= self.count {
            return None;
        }
        let offset = usize::from(id) * self.stride + DATA_OFFSET;
        // SAFETY: the memory has room for `count` slots, and `id` is one of them.
        Some(unsafe { self.memory.host().add(offset) })
    }

    /// The `len` bytes of slot `id` that start `before` bytes in front of [`DATA_OFFSET`]; `None`
    /// when the slot is not that long.
    #[inline]
    pub(super) fn part(&self, id: u16, before: usize, len: usize) -> Option<DmaMemory> {
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
        let mut memory = SessionMemory::allocate("test", 10 * 4096).unwrap();
        let total = memory.shared().len();
        let first = memory.take(100).unwrap();
        let second = memory.take(1).unwrap();
        assert_eq!((first.device(), first.len()), (DEVICE_BASE, 100));
        assert_eq!(second.device(), DEVICE_BASE + 128);
        assert!(memory.take(total - 2 * 128 + 1).is_none());
        assert!(memory.take(total - 2 * 128).is_some());
        assert!(memory.take(1).is_none());
    }

    #[test]
    fn frames_start_on_a_line_and_slots_spread_over_the_cache() {
        let mut memory = SessionMemory::allocate("test", Slots::bytes(8, 2176) + 128).unwrap();
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
