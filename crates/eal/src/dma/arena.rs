//! Memory that a device reaches, in parts that have one owner each.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{DmaBuffer, DmaMemory};
use crate::mem::SharedMemory;

/// Whose memory the parts of an arena are.
#[derive(Debug)]
pub enum DmaBacking {
    /// A PCI device reads and writes it.
    Buffer(DmaBuffer),
    /// A peer maps its file descriptor, and finds its first byte at this address.
    Shared(SharedMemory, u64),
}

impl DmaBacking {
    /// The memory itself.
    #[must_use]
    pub const fn shared(&self) -> &SharedMemory {
        match self {
            Self::Buffer(buffer) => buffer.memory(),
            Self::Shared(memory, _) => memory,
        }
    }

    /// Bytes that the device sees in one piece.
    #[must_use]
    pub fn piece_len(&self) -> usize {
        match self {
            Self::Buffer(buffer) => buffer.piece_len(),
            Self::Shared(memory, _) => memory.len(),
        }
    }

    /// Where `len` bytes from `offset` on are; `None` unless the device sees them in one piece.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<DmaMemory> {
        match self {
            Self::Buffer(buffer) => buffer.slice(offset, len),
            Self::Shared(memory, device) => {
                DmaMemory::new(memory.as_ptr(), memory.len(), *device)?.slice(offset, len)
            }
        }
    }
}

/// Memory that is given out in parts, from front to back. A part keeps the memory, and nobody has
/// a second one of the same bytes:
///
/// ```compile_fail,E0382
/// # use eal::{DmaArena, SharedMemory};
/// let memory = SharedMemory::allocate("ring", 4096).unwrap();
/// let part = DmaArena::shared(memory, 0x1000).unwrap().take_at(0, 4096).unwrap();
/// let (one, other) = (part, part);
/// ```
#[derive(Debug)]
pub struct DmaArena {
    backing: Arc<DmaBacking>,
    /// Where the next part may start.
    next: usize,
}

impl DmaArena {
    /// The memory of `buffer`.
    #[must_use]
    pub fn new(buffer: DmaBuffer) -> Self {
        Self { backing: Arc::new(DmaBacking::Buffer(buffer)), next: 0 }
    }

    /// Memory that a peer maps by its file descriptor, and of which it finds the first byte at
    /// `device`. `None` when the peer's addresses would overflow.
    #[must_use]
    pub fn shared(memory: SharedMemory, device: u64) -> Option<Self> {
        DmaMemory::new(memory.as_ptr(), memory.len(), device)?;
        Some(Self { backing: Arc::new(DmaBacking::Shared(memory, device)), next: 0 })
    }

    /// Whose memory the parts lie in.
    #[must_use]
    pub const fn backing(&self) -> &Arc<DmaBacking> {
        &self.backing
    }

    /// The memory itself.
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        self.backing.shared()
    }

    /// Where `len` bytes from `offset` on are, whoever has them; `None` unless the device sees them
    /// in one piece.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<DmaMemory> {
        self.backing.slice(offset, len)
    }

    /// The next part: `len` bytes from `offset` on. `None`, and nothing changes, when some of them
    /// belong to an earlier part, or the device does not see them in one piece.
    #[must_use]
    pub fn take_at(&mut self, offset: usize, len: usize) -> Option<DmaPart> {
        if offset < self.next {
            return None;
        }
        let place = self.backing.slice(offset, len)?;
        self.next = offset.checked_add(len)?;
        Some(DmaPart { place, backing: Arc::clone(&self.backing) })
    }

    /// The next part of `len` bytes, at a multiple of `align` bytes from the start, a power of two;
    /// `None`, and nothing changes, when fewer are left or the device does not see them in one
    /// piece.
    #[must_use]
    pub fn take(&mut self, len: usize, align: usize) -> Option<DmaPart> {
        self.take_at(self.next.checked_next_multiple_of(align)?, len)
    }
}

/// A part of an [arena](DmaArena): memory that one owner and the device reach.
///
/// The device may write it at any time, so its bytes are copied in and out or accessed one volatile
/// word at a time, never borrowed.
#[derive(Debug)]
pub struct DmaPart {
    place: DmaMemory,
    backing: Arc<DmaBacking>,
}

impl DmaPart {
    /// Where it is. The pointer is valid, for reads and writes of whoever has this part, for as
    /// long as it lives.
    #[must_use]
    #[inline]
    pub const fn place(&self) -> DmaMemory {
        self.place
    }

    /// The memory that it lies in.
    #[must_use]
    pub const fn backing(&self) -> &Arc<DmaBacking> {
        &self.backing
    }

    /// Where `len` bytes from `offset` on are; `None` when they are not all inside.
    #[must_use]
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<DmaMemory> {
        self.place.slice(offset, len)
    }

    /// `len` bytes from `offset` on, borrowed; `None` when they are not all inside.
    #[must_use]
    #[inline]
    pub fn slice_mut(&mut self, offset: usize, len: usize) -> Option<DmaSlice<'_>> {
        let place = self.place.slice(offset, len)?;
        Some(DmaSlice { place, _part: PhantomData })
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a place, not a collection")]
    pub const fn len(&self) -> usize {
        self.place.len()
    }

    /// Its first `len` bytes, the rest being given up; `None` when it has fewer.
    #[must_use]
    pub fn truncate(self, len: usize) -> Option<Self> {
        Some(Self { place: self.place.slice(0, len)?, ..self })
    }

    /// Copies `bytes` to `offset`; `false`, and nothing is written, when they do not fit there.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let Some(place) = self.place.slice(offset, bytes.len()) else { return false };
        // SAFETY: the place is inside this part, which keeps its memory and is borrowed exclusively.
        // Nobody has references to it, `bytes` neither.
        unsafe { place.host().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Copies the bytes at `offset` to `into`; `false`, and nothing is read, when there are fewer.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        let Some(place) = self.place.slice(offset, into.len()) else { return false };
        // SAFETY: as in `write`; what the device writes meanwhile is copied or not.
        unsafe { place.host().as_ptr().copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        true
    }
}

/// A piece of a [part](DmaPart), borrowed from its owner.
#[derive(Debug)]
pub struct DmaSlice<'p> {
    place: DmaMemory,
    _part: PhantomData<&'p mut DmaPart>,
}

impl DmaSlice<'_> {
    /// Where it is. The pointer is valid, for reads and writes, for as long as it is borrowed.
    #[must_use]
    #[inline]
    pub const fn place(self) -> DmaMemory {
        self.place
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::mem::Pages;

    fn arena() -> DmaArena {
        let memory = SharedMemory::allocate_from("arena", 4096, Pages::Plain).unwrap();
        DmaArena::shared(memory, 0x10_0000).unwrap()
    }

    #[test]
    fn no_byte_is_in_two_parts() {
        let mut arena = arena();
        let first = arena.take(100, 128).unwrap();
        let second = arena.take(100, 128).unwrap();
        assert_eq!((first.place().device(), second.place().device()), (0x10_0000, 0x10_0080));
        assert!(arena.take_at(0, 1).is_none() && arena.take_at(227, 1).is_none());
        assert!(arena.take_at(228, 4096 - 228 + 1).is_none());
        assert!(arena.take_at(228, usize::MAX).is_none());
        assert!(arena.take_at(228, 4096 - 228).is_some());
        assert!(arena.take(1, 1).is_none());
    }

    #[test]
    fn a_part_keeps_the_memory() {
        let mut arena = arena();
        let mut part = arena.take(64, 64).unwrap();
        let peer = crate::Mapping::map(arena.memory().fd(), 0, 4096).unwrap();
        drop(arena);
        assert!(part.write(60, b"ring") && !part.write(61, b"ring"));
        let mut bytes = [0; 4];
        assert!(part.read(60, &mut bytes) && !part.read(usize::MAX, &mut bytes));
        assert_eq!(&bytes, b"ring");
        // SAFETY: the mapping has a page.
        assert_eq!(unsafe { peer.ptr().add(60).read_volatile() }, b'r');
        let piece = part.slice_mut(32, 32).unwrap().place();
        assert_eq!((piece.device(), piece.len()), (0x10_0020, 32));
        assert!(part.slice_mut(32, 33).is_none());
        assert_eq!(part.truncate(10).map(|part| part.len()), Some(10));
    }

    #[test]
    fn addresses_of_the_peer_do_not_overflow() {
        let memory = SharedMemory::allocate_from("arena", 4096, Pages::Plain).unwrap();
        assert!(DmaArena::shared(memory, u64::MAX - 4094).is_none());
    }
}
