//! The buffers that one burst takes from a ring.

use std::ptr::NonNull;

use packet::RawSegment;
use packet::prefetch::{prefetch_read, prefetch_write_at};

use crate::memory::Cursor;
use crate::net_header::NET_HEADER_LEN;

/// Buffers in one burst: twice the frames of a burst, so that jumbo frames over mergeable
/// buffers need few rounds.
pub const MAX_BUFFERS: usize = 64;

/// A chain of descriptors that the driver has made available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Number of its first descriptor. In a split ring the driver knows the chain by it, and the
    /// other fields mean nothing.
    pub head: u16,
    /// By which the driver of a packed ring knows it when it comes back.
    pub id: u16,
    /// Entries of a packed ring that it takes.
    pub slots: u16,
}

/// A fetched chain and, where it is one ordinary descriptor, which nearly all are, its memory.
///
/// It is as small as can be: a burst writes and reads it once or twice per frame.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Where the memory starts; `None` where the chain must be walked.
    start: Option<NonNull<u8>>,
    /// Bytes of memory from `start`.
    len: u32,
    /// Bytes that the device has written into the chain.
    written: u32,
    chain: Chain,
}

// SAFETY: a buffer is an address and a length, as `RawSegment` is; what it leads to was translated
// from memory that any thread may use.
unsafe impl Send for Buffer {}

impl Buffer {
    const NONE: Self =
        Self { start: None, len: 0, written: 0, chain: Chain { head: 0, id: 0, slots: 0 } };

    /// The chain.
    #[must_use]
    #[inline]
    pub const fn chain(&self) -> Chain {
        self.chain
    }

    /// The chain's memory where it is one ordinary descriptor. It is valid for as long as the
    /// queue that the chain was taken from keeps its memory table.
    #[must_use]
    #[inline]
    pub fn single(&self) -> Option<RawSegment> {
        self.start.map(|start| RawSegment::new(start, self.len))
    }

    /// What the device has written, where the chain is one ordinary descriptor: where it starts and
    /// how many bytes.
    pub(super) fn written(&self) -> Option<(NonNull<u8>, usize)> {
        let written = self.written.min(self.len);
        self.start.filter(|_| written > 0).map(|start| (start, written as usize))
    }

    /// How many bytes the device has written into the chain.
    #[inline]
    pub(super) const fn written_len(&self) -> u32 {
        self.written
    }

    /// Notes that the device has written `len` bytes into the chain.
    #[inline]
    pub fn set_written(&mut self, len: u32) {
        self.written = len;
    }

    /// Sets the memory of one ordinary descriptor, if it is in the window that was used last, and asks
    /// for it to be brought into the cache; gives whether it is.
    #[inline(always)]
    pub(super) fn locate<const WRITE: bool>(
        &mut self,
        addr: u64,
        len: u32,
        cursor: Cursor<'_, WRITE>,
    ) -> bool {
        cursor.with_last(addr, len, |segment| {
            prefetch::<WRITE>(segment);
            (self.start, self.len) = (Some(segment.as_ptr()), len);
        })
    }

    #[inline]
    pub(super) fn set_memory(&mut self, single: Option<RawSegment>) {
        (self.start, self.len) = match single {
            #[allow(clippy::cast_possible_truncation, reason = "a segment's length is a u32")]
            Some(segment) => (Some(segment.as_ptr()), segment.len() as u32),
            None => (None, 0),
        };
    }

    #[inline]
    pub(super) fn set_chain(&mut self, chain: Chain) {
        self.chain = chain;
    }

    /// Sets the head alone, which is all that split rings use.
    #[inline]
    pub(super) fn set_head(&mut self, head: u16) {
        self.chain.head = head;
    }
}

/// Chains taken from the available ring, in order, with their memory resolved.
#[derive(Debug)]
pub struct Buffers {
    buffers: [Buffer; MAX_BUFFERS],
    len: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { buffers: [Buffer::NONE; MAX_BUFFERS], len: 0 }
    }
}

impl Buffers {
    /// The buffers, oldest first.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[Buffer] {
        self.buffers.get(..self.len).unwrap_or_default()
    }

    /// The buffers, to note what was written.
    #[must_use]
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [Buffer] {
        self.buffers.get_mut(..self.len).unwrap_or_default()
    }

    /// The first `count` of them, or all where there are fewer.
    #[inline]
    pub(super) fn first(&self, count: usize) -> &[Buffer] {
        let all = self.as_slice();
        all.get(..count).unwrap_or(all)
    }

    /// The chains.
    #[inline]
    pub fn chains(&self) -> impl ExactSizeIterator<Item = Chain> + '_ {
        self.as_slice().iter().map(Buffer::chain)
    }

    /// The first `count` chains, each as one that the device has only read.
    #[inline]
    pub fn read(&self, count: usize) -> impl Iterator<Item = (Chain, u32)> + '_ {
        self.first(count).iter().map(|buffer| (buffer.chain, 0))
    }

    /// The first `count` chains, each with the number of bytes that were
    /// [written](Buffer::set_written) to it.
    #[inline]
    pub fn written(&self, count: usize) -> impl Iterator<Item = (Chain, u32)> + '_ {
        self.first(count).iter().map(|buffer| (buffer.chain, buffer.written))
    }

    /// Forgets all chains.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `count` other chains (at most [`MAX_BUFFERS`]), which the caller fills in.
    #[inline]
    pub(super) fn refill(&mut self, count: usize) -> &mut [Buffer] {
        self.len = count.min(MAX_BUFFERS);
        self.as_mut_slice()
    }

    /// Forgets all but the first `count` chains.
    #[inline]
    pub fn truncate(&mut self, count: usize) {
        self.len = self.len.min(count);
    }

    /// Adds a chain, if there is room.
    #[inline]
    pub(super) fn push(&mut self, chain: Chain, single: Option<RawSegment>) {
        if let Some(place) = self.buffers.get_mut(self.len) {
            place.chain = chain;
            place.set_memory(single);
            self.len += 1;
        }
    }
}

/// Asks for the first cache lines of a buffer: those of the net header, and of the first 64 bytes
/// of the frame behind it.
///
/// A header that has a line to itself is written only when it changes, so that line is not taken
/// from the driver's cache.
#[inline]
pub(super) fn prefetch<const WRITE: bool>(segment: RawSegment) {
    let start = segment.as_ptr().as_ptr();
    if WRITE {
        prefetch_write_at::<NET_HEADER_LEN>(start);
        prefetch_write_at::<{ NET_HEADER_LEN + 63 }>(start);
        prefetch_read(start);
    } else {
        prefetch_read(start);
        prefetch_read(start.wrapping_add(64));
    }
}
