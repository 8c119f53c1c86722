//! Borrowed frames: packets that still lie in the device's ring.
//!
//! A receive burst yields [`Frame`]s. A frame has two parts:
//!
//! - the *head*: its first bytes, in memory that belongs to this process alone. Whoever
//!   classifies a frame looks at these bytes, and whoever transmits it sends these bytes, so
//!   what was checked is what is sent;
//! - the *body*: the rest, as [`Segment`]s that may lie in memory which a guest can change at
//!   any time. Body bytes are only ever copied, never looked at in place.
//!
//! Frames live in a [`FrameBatch`], which the receive queue owns. The borrow checker makes sure
//! that no frame outlives the burst it came with.
//!
//! - `batch`: the frames of a burst
//! - `burst`: those, with what is known of all of them together
//! - `segment`: pieces of memory that somebody else may be writing

mod batch;
mod burst;
mod segment;

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::checksum::Checksum;
use crate::copy::{copy, copy_halves, copy_line, copy_short, is_short};
use crate::headers::ethernet::LINK_HEADERS;
use crate::offload::Offload;
use crate::wide::{WIDE, Wide};

pub use batch::FrameBatch;
pub use burst::{Alike, Burst};
pub use segment::{RawSegment, Segment};

/// Largest number of frames in one burst.
pub const BURST: usize = 32;

/// Bytes of a frame that a guest-facing queue copies into private memory: enough for the
/// Ethernet, VLAN, IPv4 and TCP headers of an ordinary frame, and exactly one cache line.
pub const HEAD_LEN: usize = 64;

/// Room for the private head of one frame, which bounds what a queue may copy there.
pub const HEAD_CAPACITY: usize = 192;

/// How many bytes are read at once to be summed up.
const SUM_PART: usize = 512;

/// Largest frame, in bytes: a 64 KiB segment with its link-layer headers. A frame whose bytes are
/// all head has 65,535 at most.
pub const MAX_FRAME_LEN: usize = 65_535 + LINK_HEADERS;

/// A frame that lies in a receive ring, or in a packet, for as long as `'a`.
///
/// It is as cheap to copy as a slice, and it is to `Packet` as `&str` is to
/// `String`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Frame<'a> {
    head: NonNull<u8>,
    body: NonNull<Segment<'a>>,
    len: u32,
    head_len: u16,
    body_count: u16,
    offload: Offload,
    _ring: PhantomData<&'a [u8]>,
}

// Bursts are walked over again and again: a frame should not cost more than half a cache line.
const _: () = assert!(size_of::<Frame<'_>>() == 32);

// Its lengths and what it needs are the second of two wide words.
const _: () = assert!(std::mem::offset_of!(Frame<'_>, len) == WIDE);
const _: () = assert!(size_of::<Frame<'_>>() == 2 * WIDE);

impl<'a> Frame<'a> {
    /// A frame whose bytes are all private, such as one that the caller just built.
    ///
    /// Bytes past 65,535 are left out: no device carries them in one piece.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        let len = bytes.len().min(u16::MAX as usize);
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the line above")]
        Self {
            head: NonNull::from(bytes).cast(),
            body: NonNull::dangling(),
            len: len as u32,
            head_len: len as u16,
            body_count: 0,
            offload: Offload::NONE,
            _ring: PhantomData,
        }
    }

    /// A frame of a private head and a body of segments; `None` if it would be longer than
    /// [`MAX_FRAME_LEN`] or its head longer than 65,535 bytes.
    #[must_use]
    pub fn from_parts(head: &'a [u8], body: &'a [Segment<'a>]) -> Option<Self> {
        let body_len: usize = body.iter().map(Segment::len).sum();
        let len = head.len().checked_add(body_len).filter(|len| *len <= MAX_FRAME_LEN)?;
        Some(Self {
            head: NonNull::from(head).cast(),
            body: NonNull::from(body).cast(),
            len: u32::try_from(len).ok()?,
            head_len: u16::try_from(head.len()).ok()?,
            body_count: u16::try_from(body.len()).ok()?,
            offload: Offload::NONE,
            _ring: PhantomData,
        })
    }

    /// The same body with another head and without an offload; `None` if the frame would be longer
    /// than [`MAX_FRAME_LEN`] or its head longer than 65,535 bytes.
    #[inline]
    pub(crate) fn with_head(self, head: &'a [u8]) -> Option<Self> {
        let head_len = u16::try_from(head.len()).ok()?;
        // No frame is shorter than its head, nor so long that this could be too much.
        let len = self.len.wrapping_sub(u32::from(self.head_len)).wrapping_add(u32::from(head_len));
        let head = NonNull::from(head).cast();
        (len as usize <= MAX_FRAME_LEN).then_some(Self {
            head,
            len,
            head_len,
            offload: Offload::NONE,
            ..self
        })
    }

    /// The same body with another head, where it is known of what it is made of that lengths fit.
    ///
    /// # Safety
    ///
    /// All of `'a` there must be as many bytes at `head` as `alike` says, private to this process, and unwritten;
    /// and its length must be that of these and the body's.
    #[inline(always)]
    pub(crate) const unsafe fn with_head_of(self, head: NonNull<u8>, alike: Alike) -> Self {
        let (len, head_len, offload) = (alike.len, alike.head_len, alike.offload);
        Self { head, len, head_len, offload, ..self }
    }

    /// Length of the whole frame in bytes, without the frame check sequence.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty in a useful sense")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// What the frame still needs before it is complete, and what is known about it.
    #[must_use]
    #[inline]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// The same frame with another offload, which must hold for it.
    #[must_use]
    #[inline]
    pub const fn with_offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// Length in bytes, on a wire, of the longest frame that this one becomes: its own, unless
    /// it is a large segment that is still to be cut.
    #[must_use]
    #[inline]
    pub fn wire_len(&self) -> usize {
        self.offload.wire_len(self.len())
    }

    /// The private first bytes: the only ones that may be looked at in place.
    #[must_use]
    #[inline]
    pub const fn head(&self) -> &'a [u8] {
        // SAFETY: whoever made the frame had `head_len` initialised bytes at `head`, private to
        // this process, that live and stay unwritten for 'a (the batch is borrowed meanwhile).
        unsafe { std::slice::from_raw_parts(self.head.as_ptr(), self.head_len as usize) }
    }

    /// What follows the head, in order; empty when the head is the whole frame.
    #[must_use]
    #[inline]
    pub const fn body(&self) -> &'a [Segment<'a>] {
        // SAFETY: whoever made the frame had `body_count` segments at `body` that live for 'a.
        unsafe { std::slice::from_raw_parts(self.body.as_ptr(), self.body_count as usize) }
    }

    /// The lengths of all, of the head, and of the list of segments, and the offload, which lie side by side.
    #[inline(always)]
    fn shape(&self) -> Wide {
        let halves = std::ptr::from_ref(self).cast::<Wide>();
        // SAFETY: that is the second half of a frame, which is as aligned, and has no padding.
        unsafe { halves.add(1).read() }
    }

    /// Copies the frame to `to`, as far as it fits, and returns the number of bytes copied.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        // SAFETY: `to` is valid for writes of its own length.
        unsafe { self.copy_to_ptr(NonNull::from(&mut *to).cast(), to.len()) }
    }

    /// Copies the frame's first `room` bytes, or all of it where it is shorter, to `to`, and
    /// returns how many that were.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of `room` bytes. It may be memory that somebody else reads
    /// or writes meanwhile; it must not overlap the frame's head.
    pub unsafe fn copy_to_ptr(&self, to: NonNull<u8>, room: usize) -> usize {
        let mut done = room.min(self.head_len as usize);
        // SAFETY: `done` is at most `room` and at most the head's length.
        unsafe { copy(self.head.as_ptr(), to.as_ptr(), done) };
        for segment in self.body() {
            let count = segment.len().min(room - done);
            // SAFETY: the segment is readable for its length, and `done + count` is at most
            // `room`. `copy` tolerates a guest that lets source and destination overlap.
            unsafe { std::ptr::copy(segment.as_ptr().as_ptr(), to.as_ptr().add(done), count) };
            done += count;
        }
        done
    }

    /// Copies the first part of the frame to `to`: all of its head if that has between 16 and
    /// 80 bytes, as nearly all have, and otherwise nothing. Returns whether that was
    /// the whole frame; if not, [`copy_rest_to_ptr`](Self::copy_rest_to_ptr) has to follow.
    ///
    /// A loop over a burst that calls this one alone has no call to `memcpy` in it.
    ///
    /// # Safety
    ///
    /// As for [`copy_to_ptr`](Self::copy_to_ptr), with room for [`len`](Self::len) bytes.
    #[inline]
    pub unsafe fn copy_first_to_ptr(&self, to: NonNull<u8>) -> bool {
        // SAFETY: the head has `head_len` bytes, and the caller vouches for room for them.
        let copied = unsafe {
            let (from, to) = (self.head.as_ptr(), to.as_ptr());
            match usize::from(self.head_len) {
                HEAD_LEN => {
                    copy_line(from, to);
                    true
                }
                len => copy_short(from, to, len),
            }
        };
        copied && self.body_count == 0
    }

    /// As [`copy_first_to_ptr`](Self::copy_first_to_ptr), where it is known how long the head is.
    ///
    /// # Safety
    ///
    /// As there; and `head_len` must be the length of the head, and from 32 to 64.
    #[inline(always)]
    pub unsafe fn copy_near_to_ptr(&self, to: NonNull<u8>, head_len: usize) {
        // SAFETY: the head has `head_len` bytes, and the caller vouches for room for them.
        unsafe { copy_halves(self.head.as_ptr(), to.as_ptr(), head_len) }
    }

    /// Copies to `to` what [`copy_first_to_ptr`](Self::copy_first_to_ptr) has left out: the start
    /// of the frame belongs at `to`.
    ///
    /// # Safety
    ///
    /// As for [`copy_first_to_ptr`](Self::copy_first_to_ptr).
    #[inline]
    pub unsafe fn copy_rest_to_ptr(&self, to: NonNull<u8>) {
        let mut done = usize::from(self.head_len);
        if !is_short(done) {
            // SAFETY: the head has `done` bytes, and the caller vouches for room for them.
            unsafe { std::ptr::copy(self.head.as_ptr(), to.as_ptr(), done) };
        }
        for segment in self.body() {
            let (from, len) = (segment.as_ptr().as_ptr(), segment.len());
            // SAFETY: the segment is readable for its length, and the lengths of head and body
            // add up to `len`. `copy` tolerates a guest that lets source and destination overlap.
            unsafe { std::ptr::copy(from, to.as_ptr().add(done), len) };
            done += len;
        }
    }

    /// Adds all bytes from number `from` on to a checksum. Each is read once, into private memory; whoever
    /// changes them afterwards spoils his own frame.
    pub fn add_to(&self, checksum: &mut Checksum, from: usize) {
        let mut part = [0; SUM_PART];
        let (mut reader, mut skip) = (FrameReader::new(self), from);
        loop {
            // SAFETY: `part` has that many bytes.
            let count = unsafe { reader.copy_next(NonNull::from(&mut part).cast(), SUM_PART) };
            let gone = skip.min(count);
            skip -= gone;
            checksum.add(part.get(gone..count).unwrap_or_default());
            if count < SUM_PART {
                return;
            }
        }
    }

    /// The whole frame in a vector of its own: for tests and tools, not for a data path.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        let count = self.copy_to(&mut bytes);
        bytes.truncate(count);
        bytes
    }
}

/// Reads a frame from front to back in pieces of any size, for receivers whose buffers are
/// shorter than the frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameReader<'a> {
    head: &'a [u8],
    body: &'a [Segment<'a>],
    /// What is left of the segment in front of `body`.
    part: Option<Segment<'a>>,
}

impl<'a> FrameReader<'a> {
    /// Starts at the frame's first byte.
    #[must_use]
    pub fn new(frame: &Frame<'a>) -> Self {
        Self { head: frame.head(), body: frame.body(), part: None }
    }

    /// Leaves out the next `count` bytes, as far as the frame's head has them.
    pub fn skip_head(&mut self, count: usize) {
        self.head = self.head.get(count..).unwrap_or_default();
    }

    /// Copies the next `room` bytes, or what is left, to `to`; returns how many.
    ///
    /// # Safety
    ///
    /// As for [`Frame::copy_to_ptr`].
    pub unsafe fn copy_next(&mut self, to: NonNull<u8>, room: usize) -> usize {
        let (now, later) = self.head.split_at(room.min(self.head.len()));
        self.head = later;
        let mut done = now.len();
        // SAFETY: `done` is at most `room`.
        unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), to.as_ptr(), done) };
        while done < room {
            let Some(segment) = self.part.take().or_else(|| self.next_segment()) else { break };
            let count = segment.len().min(room - done);
            // SAFETY: the segment is readable for its length, `done + count` at most `room`.
            unsafe { std::ptr::copy(segment.as_ptr().as_ptr(), to.as_ptr().add(done), count) };
            done += count;
            self.part = Some(segment.skip(count)).filter(|rest| rest.len() > 0);
        }
        done
    }

    fn next_segment(&mut self) -> Option<Segment<'a>> {
        let (first, rest) = self.body.split_first()?;
        self.body = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_is_that_of_the_bytes(
            head in prop::collection::vec(any::<u8>(), 0..200),
            body in prop::collection::vec(any::<u8>(), 0..2_000),
            from in 0..1_500_usize,
        ) {
            let segments = [Segment::from_bytes(&body)];
            let frame = Frame::from_parts(&head, &segments).unwrap();
            let whole = [head.clone(), body.clone()].concat();
            let (mut sum, mut wanted) = (Checksum::new(), Checksum::new());
            frame.add_to(&mut sum, from);
            wanted.add(whole.get(from..).unwrap_or_default());
            prop_assert_eq!(sum.finish(), wanted.finish());
        }

        #[test]
        fn a_reader_yields_the_frame_in_pieces(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..9),
            step in 1_usize..90,
        ) {
            let segments: Vec<Segment<'_>> = parts.iter().map(|part| Segment::from_bytes(part)).collect();
            let mut batch = FrameBatch::with_segments(64);
            // SAFETY: `parts` outlives the batch.
            let added = unsafe { batch.push_shared_chain(&segments) };
            prop_assert!(added);
            let mut reader = FrameReader::new(&batch.frames()[0]);
            let mut whole = Vec::new();
            loop {
                let mut piece = vec![0; step];
                // SAFETY: `piece` has `step` bytes.
                let count = unsafe { reader.copy_next(NonNull::from(&mut piece[..]).cast(), step) };
                whole.extend_from_slice(&piece[..count]);
                if count < step { break }
            }
            prop_assert_eq!(whole, parts.concat());
        }
    }
}
