//! The memory of a socket's frames: chunks of one page, which the kernel and we own in turns.

use std::io;
use std::ptr::NonNull;

use super::ring::{Chunk, Descriptor};
use crate::kernel::memory::Pages;

/// Bytes of a chunk: what an ordinary page has.
pub(super) const CHUNK: usize = 4096;

/// Bytes at the start of a chunk that the kernel keeps for itself when it receives
/// (`XDP_PACKET_HEADROOM`).
pub(super) const HEADROOM: usize = 256;

/// Chunks: those numbered below `count` are for receiving, as many others for sending. So the
/// two queues share nothing but the mapping.
#[derive(Debug)]
pub(super) struct Umem {
    pages: Pages,
    count: u32,
}

/// A piece of a frame: bytes that lie in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The chunk's number.
    pub(super) chunk: u32,
    pub(super) first: NonNull<u8>,
    pub(super) len: u32,
}

impl Umem {
    /// Memory for `count` chunks in each direction.
    pub(super) fn new(count: u32) -> io::Result<Self> {
        let len = (count as usize).checked_mul(2 * CHUNK);
        let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { pages: Pages::anonymous(len)?, count })
    }

    /// Where it starts and how long it is, for the kernel.
    pub(super) fn range(&self) -> (u64, u64) {
        let first = self.pages.at(0, 0).map_or(0, |first| first.addr().get());
        (first as u64, self.pages.len() as u64)
    }

    /// Chunks in each direction.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// The address of receive chunk `number`, as rings have it.
    #[inline]
    pub(super) const fn receive_address(number: u32) -> Chunk {
        number as u64 * CHUNK as u64
    }

    /// What a descriptor of the receive ring tells of; `None` unless it lies inside one receive
    /// chunk.
    #[inline]
    pub(super) fn received(&self, descriptor: &Descriptor) -> Option<Piece> {
        let address = usize::try_from(descriptor.address).ok()?;
        let (chunk, offset) = (address / CHUNK, address % CHUNK);
        let len = descriptor.len as usize;
        let chunk = u32::try_from(chunk).ok().filter(|chunk| *chunk < self.count)?;
        if len > CHUNK - offset {
            return None;
        }
        Some(Piece { chunk, first: self.pages.at(address, len)?, len: descriptor.len })
    }

    /// The number, from 0, of the send chunk at `address`; `None` when there is none there.
    #[inline]
    pub(super) fn send_chunk(&self, address: Chunk) -> Option<u32> {
        // The kernel may give the address of any byte in it.
        let chunk = u32::try_from(address / CHUNK as u64).ok()?;
        chunk.checked_sub(self.count).filter(|chunk| *chunk < self.count)
    }

    /// The send chunk `number`: its address as rings have it, and its first byte.
    #[inline]
    pub(super) fn send(&self, number: u32) -> Option<(Chunk, NonNull<u8>)> {
        let chunk = self.count.checked_add(number)?;
        let address = chunk as usize * CHUNK;
        Some((address as u64, self.pages.at(address, CHUNK)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_a_receive_chunk_is_a_piece() {
        let umem = Umem::new(4).unwrap();
        let piece = |address, len| umem.received(&Descriptor { address, len, options: 0 });
        let first = umem.pages.at(0, 0).unwrap();
        // SAFETY: inside the mapping.
        let at = |offset| unsafe { first.add(offset) };
        let whole = Piece { chunk: 1, first: at(4096), len: 4096 };
        assert_eq!(piece(4096, 4096), Some(whole));
        assert_eq!(piece(4096 + 256, 60).map(|piece| piece.first), Some(at(4352)));
        assert_eq!(piece(4096 + 256, 3840).map(|piece| piece.chunk), Some(1));
        // Past its chunk, into the send chunks, behind the end, around the world.
        for (address, len) in [
            (4096 + 256, 3841),
            (4 * 4096, 60),
            (8 * 4096, 0),
            (u64::MAX - 10, 60),
            (0, u32::MAX),
            (1 << 44, 60),
        ] {
            assert_eq!(piece(address, len), None, "{address:#x}, {len}");
        }
    }

    #[test]
    fn only_send_chunks_come_back_from_sending() {
        let umem = Umem::new(4).unwrap();
        for number in 0..4 {
            let (address, _) = umem.send(number).unwrap();
            assert_eq!(umem.send_chunk(address), Some(number));
            assert_eq!(umem.send_chunk(address + 4095), Some(number));
        }
        assert!(umem.send(4).is_none() && umem.send(u32::MAX).is_none());
        for address in [0, 4 * 4096 - 1, 8 * 4096, u64::MAX] {
            assert_eq!(umem.send_chunk(address), None);
        }
    }
}
