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

use std::marker::PhantomData;
use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::copy::{copy, copy_line, copy_short, is_short};
use crate::headers::ethernet::LINK_HEADERS;
use crate::offload::{BadOffload, Capabilities, Offload, OffloadRequest};

/// Largest number of frames in one burst.
pub const BURST: usize = 32;

/// Bytes of a frame that a guest-facing queue copies into private memory: enough for the
/// Ethernet, VLAN, IPv4 and TCP headers of an ordinary frame, and exactly one cache line.
pub const HEAD_LEN: usize = 64;

/// Room for the private head of one frame, which bounds what a queue may copy there.
pub const HEAD_CAPACITY: usize = 192;

/// Largest frame, in bytes: a 64 KiB segment with its link-layer headers. A frame whose bytes are
/// all head has 65,535 at most.
pub const MAX_FRAME_LEN: usize = 65_535 + LINK_HEADERS;

/// Where a piece of memory is, and how long: a pointer and a length that promise nothing.
///
/// Rings hand these out, since their buffers stay valid for as long as the ring's memory is held,
/// which no borrow can say. [`get`](Self::get) makes a [`Segment`] of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawSegment {
    ptr: NonNull<u8>,
    len: u32,
}

// SAFETY: it is an address and a length; to use the address is unsafe wherever it is done.
unsafe impl Send for RawSegment {}
// SAFETY: as above; there is no interior state.
unsafe impl Sync for RawSegment {}

impl RawSegment {
    /// Notes `len` bytes at `ptr`.
    #[must_use]
    #[inline]
    pub const fn new(ptr: NonNull<u8>, len: u32) -> Self {
        Self { ptr, len }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a segment is a length, not a collection")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// First byte.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The memory itself.
    ///
    /// # Safety
    ///
    /// For all of `'a` the bytes must stay mapped and readable, from any thread, and nobody may
    /// have an exclusive reference to them.
    #[must_use]
    #[inline]
    pub const unsafe fn get<'a>(self) -> Segment<'a> {
        Segment { raw: self, _memory: PhantomData }
    }

    /// As [`get`](Self::get), for many at once.
    ///
    /// # Safety
    ///
    /// As there, for each of them.
    #[must_use]
    #[inline]
    pub const unsafe fn get_all<'a>(raw: &[Self]) -> &[Segment<'a>] {
        // SAFETY: a segment is nothing but a raw one (`repr(transparent)`), and the caller vouches
        // for what it promises.
        unsafe { &*(std::ptr::from_ref(raw) as *const [Segment<'a>]) }
    }

    /// As [`get_all`](Self::get_all), to be cut as well.
    ///
    /// # Safety
    ///
    /// As there.
    #[must_use]
    #[inline]
    pub const unsafe fn get_all_mut<'a>(raw: &mut [Self]) -> &mut [Segment<'a>] {
        // SAFETY: as in `get_all`; whatever is written there is a raw segment, too.
        unsafe { &mut *(std::ptr::from_mut(raw) as *mut [Segment<'a>]) }
    }
}

/// A piece of memory that is there for as long as `'a`, and that somebody else may be writing at
/// the same moment.
///
/// There is no way to get a `&[u8]` of it: its bytes can only be copied out.
///
/// It is valid no longer than what it was made from, which the borrow checker sees to:
///
/// ```compile_fail,E0505
/// let packet = packet::Pool::new("doc", 1, 64).unwrap().cache().alloc().unwrap();
/// let tail = packet.tail().first().copied();
/// drop(packet);
/// tail.map(|segment| segment.copy_to(&mut [0; 16]));
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Segment<'a> {
    raw: RawSegment,
    _memory: PhantomData<&'a [u8]>,
}

impl<'a> Segment<'a> {
    /// Private bytes as a segment; what is longer than 4 GiB is cut.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: the bytes are borrowed for all of 'a, and there are at least `len`.
        unsafe { RawSegment::new(NonNull::from(bytes).cast(), len).get() }
    }

    /// Where it is, without the promise that it is still there.
    #[must_use]
    #[inline]
    pub const fn raw(&self) -> RawSegment {
        self.raw
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a segment is a length, not a collection")]
    pub const fn len(&self) -> usize {
        self.raw.len()
    }

    /// First byte, for a driver that copies or hands the bytes to a device.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.raw.ptr
    }

    /// Copies the first bytes, as many as fit, to `to`; returns how many.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len());
        // SAFETY: `count` is at most the length of both. `copy` stands a guest that maps one
        // piece of memory twice.
        unsafe { std::ptr::copy(self.raw.ptr.as_ptr(), to.as_mut_ptr(), count) };
        count
    }

    /// The segment without its first `count` bytes (empty when it has fewer).
    #[must_use]
    #[inline]
    pub fn skip(&self, count: usize) -> Self {
        let count = count.min(self.len());
        // SAFETY: `count` is at most the segment's length, so the result stays inside it.
        let ptr = unsafe { self.raw.ptr.add(count) };
        #[allow(clippy::cast_possible_truncation, reason = "count is at most len, a u32")]
        let raw = RawSegment { ptr, len: self.raw.len - count as u32 };
        Self { raw, ..*self }
    }
}

/// A frame that lies in a receive ring, or in a packet, for as long as `'a`.
///
/// It is as cheap to copy as a slice, and it is to `Packet` as `&str` is to
/// `String`.
#[derive(Clone, Copy, Debug)]
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
        let len = self.len - u32::from(self.head_len) + u32::from(head_len);
        let head = NonNull::from(head).cast();
        (len as usize <= MAX_FRAME_LEN).then_some(Self {
            head,
            len,
            head_len,
            offload: Offload::NONE,
            ..self
        })
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
    /// [`HEAD_LEN`] bytes, as nearly all have, and otherwise nothing. Returns whether that was
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

/// Private memory for one frame's head.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Head([u8; HEAD_CAPACITY]);

/// The frames of one burst and the storage for their heads and bodies; owned by a receive queue
/// and reused for every burst.
#[derive(Debug)]
pub struct FrameBatch {
    /// The lifetime is a white lie: [`Self::frames`] shortens it to the batch's own.
    frames: ArrayVec<Frame<'static>, BURST>,
    /// Raw, since frames point into it while the next head is filled.
    heads: NonNull<[Head; BURST]>,
    /// The bodies of frames that have one segment. Raw for the same reason, as is what follows.
    bodies: NonNull<[Segment<'static>; BURST]>,
    /// The segments of all other bodies.
    segments: NonNull<[Segment<'static>]>,
    segments_used: usize,
}

impl Drop for FrameBatch {
    fn drop(&mut self) {
        // SAFETY: all come from `Box::leak` in `with_segments` and are freed only here.
        unsafe {
            drop(Box::from_raw(self.heads.as_ptr()));
            drop(Box::from_raw(self.bodies.as_ptr()));
            drop(Box::from_raw(self.segments.as_ptr()));
        }
    }
}

// SAFETY: the pointers in `frames` and `segments` lead to this batch's own boxes or to memory
// that the makers of the frames vouched for until `clear`; none of it is bound to a thread.
unsafe impl Send for FrameBatch {}

impl FrameBatch {
    /// An empty batch with room for `segments` body segments over all its frames. One frame
    /// can have no more than that, and no more than 65,535.
    #[must_use]
    pub fn with_segments(segments: usize) -> Self {
        let none = Segment { raw: RawSegment::new(NonNull::dangling(), 0), _memory: PhantomData };
        let heads = Box::new([Head([0; HEAD_CAPACITY]); BURST]);
        let segments = vec![none; segments.clamp(BURST, u16::MAX as usize)].into_boxed_slice();
        Self {
            frames: ArrayVec::new(),
            heads: NonNull::from(Box::leak(heads)),
            bodies: NonNull::from(Box::leak(Box::new([none; BURST]))),
            segments: NonNull::from(Box::leak(segments)),
            segments_used: 0,
        }
    }

    /// The private memory of the next frame's head; `None` when the batch is full.
    #[inline]
    fn next_head(&self) -> Option<NonNull<u8>> {
        let index = self.frames.len();
        // SAFETY: `index` is less than BURST, the number of heads.
        (index < BURST).then(|| unsafe { self.heads.cast::<Head>().add(index).cast() })
    }

    /// Where the next body segment goes; `None` when fewer than `count` are left.
    #[inline]
    fn next_segments(&self, count: usize) -> Option<NonNull<Segment<'static>>> {
        let free = self.segments.len() - self.segments_used;
        // SAFETY: `segments_used` is at most the number of segments.
        (count <= free)
            .then(|| unsafe { self.segments.cast::<Segment<'_>>().add(self.segments_used) })
    }

    /// The frames received, oldest first.
    #[must_use]
    #[inline]
    pub fn frames(&self) -> &[Frame<'_>] {
        &self.frames
    }

    /// The private head of frame `index`, to rewrite header fields in place; `None` when there
    /// is no such frame.
    #[must_use]
    #[inline]
    pub fn head_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        let frame = self.frames.get(index)?;
        // SAFETY: the head is private memory that `push_*` made over for the batch's use, and
        // the exclusive borrow of the batch excludes every `Frame::head` meanwhile.
        Some(unsafe {
            std::slice::from_raw_parts_mut(frame.head.as_ptr(), frame.head_len as usize)
        })
    }

    /// Calls `rewrite` with the private head of each frame, oldest first, to rewrite header fields
    /// in place.
    #[inline]
    pub fn for_each_head(&mut self, mut rewrite: impl FnMut(&mut [u8])) {
        for frame in &self.frames {
            // SAFETY: as in `head_mut`; the head is lent for one call, so that no two exist.
            rewrite(unsafe {
                std::slice::from_raw_parts_mut(frame.head.as_ptr(), frame.head_len as usize)
            });
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.frames.clear();
        self.segments_used = 0;
    }

    /// Whether another frame of `segments` segments has room.
    #[must_use]
    #[inline]
    pub fn has_room(&self, segments: usize) -> bool {
        !self.frames.is_full() && self.segments.len() - self.segments_used >= segments
    }

    /// Adds a frame that lies in one piece of shared memory: its first [`HEAD_LEN`] bytes are
    /// copied into private memory now. Returns whether there was room.
    ///
    /// # Safety
    ///
    /// `segment` must stay readable until [`clear`](Self::clear), or the next push after it, and
    /// must not lie in this batch.
    #[inline]
    pub unsafe fn push_shared(&mut self, segment: Segment<'_>) -> bool {
        let index = self.frames.len();
        if index >= BURST {
            return false;
        }
        // SAFETY: there are BURST heads and bodies, and `index` is less than that.
        let (head, body) = unsafe {
            let head: NonNull<u8> = self.heads.cast::<Head>().add(index).cast();
            (head, self.bodies.cast::<Segment<'static>>().add(index))
        };
        let head_len = segment.len().min(HEAD_LEN);
        // SAFETY: the head has room for HEAD_LEN bytes, and the segment has at least `head_len`. The
        // caller vouches for the segment for as long as the batch has it.
        unsafe {
            if segment.len() >= HEAD_LEN {
                copy_line(segment.as_ptr().as_ptr(), head.as_ptr());
                body.write(segment.skip(HEAD_LEN).raw.get());
            } else {
                copy(segment.as_ptr().as_ptr(), head.as_ptr(), head_len);
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most HEAD_LEN")]
        let frame = Frame {
            head,
            body,
            len: segment.raw.len,
            head_len: head_len as u16,
            body_count: u16::from(segment.len() > HEAD_LEN),
            offload: Offload::NONE,
            _ring: PhantomData,
        };
        // SAFETY: `index` was less than the capacity, BURST.
        unsafe { self.frames.push_unchecked(frame) };
        true
    }

    /// Adds a frame that lies in several pieces of shared memory, as [`Self::push_shared`].
    /// Returns whether there was room; a frame longer than [`MAX_FRAME_LEN`] never has.
    ///
    /// # Safety
    ///
    /// As for [`Self::push_shared`], for every segment.
    pub unsafe fn push_shared_chain(&mut self, segments: &[Segment<'_>]) -> bool {
        // SAFETY: the caller vouches for the segments.
        unsafe { self.push_shared_with_head(segments, HEAD_LEN) }
    }

    /// As [`Self::push_shared_chain`], but `head_room` bytes are copied into private memory, or
    /// [`HEAD_CAPACITY`] where that is less: enough for all headers of a frame that is to get an
    /// offload.
    ///
    /// # Safety
    ///
    /// As for [`Self::push_shared`], for every segment.
    pub unsafe fn push_shared_with_head(
        &mut self,
        segments: &[Segment<'_>],
        head_room: usize,
    ) -> bool {
        let head_room = head_room.min(HEAD_CAPACITY);
        let len: usize = segments.iter().map(Segment::len).sum();
        if len > MAX_FRAME_LEN {
            return false;
        }
        let Some(head) = self.next_head() else { return false };
        let Some(body) = self.next_segments(segments.len()) else { return false };
        let mut head_len = 0;
        let mut used = 0;
        for segment in segments {
            let count = segment.len().min(head_room - head_len);
            // SAFETY: `head_len + count` is at most the head's capacity, `count` at most the
            // segment's length.
            unsafe {
                std::ptr::copy(segment.as_ptr().as_ptr(), head.as_ptr().add(head_len), count);
            }
            head_len += count;
            let rest = segment.skip(count);
            if rest.len() > 0 {
                // SAFETY: `next_segments` made sure of `segments.len()` segments at `body`, and the
                // caller vouches for this one for as long as the batch has it.
                unsafe { body.add(used).write(rest.raw.get()) };
                used += 1;
            }
        }
        self.segments_used += used;
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the checks above")]
        let frame = Frame {
            head,
            body,
            len: len as u32,
            head_len: head_len as u16,
            body_count: used as u16,
            offload: Offload::NONE,
            _ring: PhantomData,
        };
        self.add(frame)
    }

    /// Adds a short frame by copying its bytes; returns whether there was room, and no more than
    /// [`HEAD_CAPACITY`] bytes.
    pub fn push_copy(&mut self, bytes: &[u8]) -> bool {
        let Some(head) = self.next_head().filter(|_| bytes.len() <= HEAD_CAPACITY) else {
            return false;
        };
        // SAFETY: the head has room for HEAD_CAPACITY bytes, and the batch keeps them to itself.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), head.as_ptr(), bytes.len());
            self.push_private(head, u16::try_from(bytes.len()).unwrap_or(0))
        }
    }

    /// Adds a frame that lies in private memory, all of it head, without copying it. Returns
    /// whether there was room.
    ///
    /// # Safety
    ///
    /// Until [`clear`](Self::clear) the bytes must stay valid for reads and writes, and nobody
    /// but this batch may touch them.
    #[inline]
    pub unsafe fn push_private(&mut self, ptr: NonNull<u8>, len: u16) -> bool {
        let frame = Frame {
            head: ptr,
            body: NonNull::dangling(),
            len: u32::from(len),
            head_len: len,
            body_count: 0,
            offload: Offload::NONE,
            _ring: PhantomData,
        };
        self.add(frame)
    }

    /// Adds a frame of a private head, as [`push_private`](Self::push_private), and a body of
    /// `segments`. Returns whether there was room; a frame longer than [`MAX_FRAME_LEN`] never
    /// has.
    ///
    /// # Safety
    ///
    /// As for [`push_private`](Self::push_private), and for
    /// [`push_shared`](Self::push_shared) of every segment.
    pub unsafe fn push_private_chain(
        &mut self,
        ptr: NonNull<u8>,
        len: u16,
        segments: &[Segment<'_>],
    ) -> bool {
        let body_len: usize = segments.iter().map(Segment::len).sum();
        let whole = body_len + usize::from(len);
        if whole > MAX_FRAME_LEN {
            return false;
        }
        let Some(body) = self.next_segments(segments.len()) else { return false };
        for (index, segment) in segments.iter().enumerate() {
            // SAFETY: `next_segments` made sure of `segments.len()` segments at `body`, and the
            // caller vouches for this one for as long as the batch has it.
            unsafe { body.add(index).write(segment.raw.get()) };
        }
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the checks above")]
        let frame = Frame {
            head: ptr,
            body,
            len: whole as u32,
            head_len: len,
            body_count: segments.len() as u16,
            offload: Offload::NONE,
            _ring: PhantomData,
        };
        let added = self.add(frame);
        self.segments_used += if added { segments.len() } else { 0 };
        added
    }

    /// Says of the frame that was pushed last that its checksum was found good.
    #[inline]
    pub fn set_data_valid(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.offload = Offload::DATA_VALID;
        }
    }

    /// Gives the frame that was pushed last the offload that its sender asks for, who may ask
    /// for what is in `allowed`.
    ///
    /// # Errors
    /// When the request does not hold for the frame, which is then taken out of the batch.
    pub fn set_offload(
        &mut self,
        request: &OffloadRequest,
        allowed: Capabilities,
    ) -> Result<(), BadOffload> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        match Offload::check_frame(request, allowed, frame) {
            Ok(offload) => {
                frame.offload = offload;
                Ok(())
            }
            Err(error) => {
                let (body, count) = (frame.body, usize::from(frame.body_count));
                self.frames.pop();
                // The body of a frame in one piece is elsewhere.
                let start = self.segments_used.checked_sub(count);
                let first = self.segments.as_ptr().cast::<Segment<'_>>();
                let is_last = |start: &usize| first.wrapping_add(*start) == body.as_ptr();
                self.segments_used = start.filter(is_last).unwrap_or(self.segments_used);
                Err(error)
            }
        }
    }

    #[inline]
    fn add(&mut self, frame: Frame<'static>) -> bool {
        self.frames.try_push(frame).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_frame_is_all_head() {
        let bytes = [7_u8; 60];
        let mut batch = FrameBatch::with_segments(0);
        // SAFETY: `bytes` outlives the batch.
        assert!(unsafe { batch.push_shared(Segment::from_bytes(&bytes)) });
        let frame = batch.frames()[0];
        assert_eq!((frame.len(), frame.head(), frame.body().len()), (60, &bytes[..], 0));
    }

    #[test]
    fn what_was_read_from_the_head_is_what_is_sent() {
        let mut bytes = [1_u8; 100];
        let shared = NonNull::from(&mut bytes[..]).cast::<u8>();
        let mut batch = FrameBatch::with_segments(0);
        // SAFETY: `bytes` outlives the batch.
        assert!(unsafe { batch.push_shared(RawSegment::new(shared, 100).get()) });
        // The guest changes everything after we have looked at the head.
        // SAFETY: 100 bytes at `shared` are `bytes`.
        unsafe { shared.as_ptr().write_bytes(9, 100) };
        let sent = batch.frames()[0].to_vec();
        assert_eq!(sent[..HEAD_LEN], [1; HEAD_LEN]);
        assert_eq!(sent[HEAD_LEN..], [9; 100 - HEAD_LEN]);
    }

    #[test]
    fn a_copied_frame_belongs_to_the_batch() {
        let mut batch = FrameBatch::with_segments(0);
        assert!(batch.push_copy(&[7; HEAD_CAPACITY]));
        assert!(!batch.push_copy(&[7; HEAD_CAPACITY + 1]));
        assert_eq!(batch.frames().len(), 1);
        assert_eq!(batch.frames()[0].to_vec(), [7; HEAD_CAPACITY]);
    }

    #[test]
    fn a_frame_that_is_refused_gives_back_no_segments_of_others() {
        let bytes = [7_u8; 300];
        let halves = [&bytes[..150], &bytes[150..]].map(Segment::from_bytes);
        let asks = OffloadRequest { needs_csum: true, ..OffloadRequest::default() };
        let mut batch = FrameBatch::with_segments(0);
        // SAFETY: `bytes` outlives the batch.
        unsafe {
            assert!(batch.push_shared_chain(&halves));
            // Its body is in one piece, which takes no segment.
            assert!(batch.push_shared(Segment::from_bytes(&bytes)));
            batch.set_offload(&asks, Capabilities::empty()).unwrap_err();
            assert!(batch.push_shared_chain(&[Segment::from_bytes(&[9; 200])]));
            batch.set_offload(&asks, Capabilities::empty()).unwrap_err();
        }
        assert_eq!((batch.frames().len(), batch.segments_used), (1, 2));
        assert_eq!(batch.frames()[0].to_vec(), bytes);
    }

    #[test]
    fn a_batch_takes_a_burst_and_no_more() {
        let bytes = [0_u8; 80];
        let mut batch = FrameBatch::with_segments(0);
        for _ in 0..BURST {
            // SAFETY: `bytes` outlives the batch.
            assert!(unsafe { batch.push_shared(Segment::from_bytes(&bytes)) });
        }
        assert!(!batch.has_room(0));
        // SAFETY: as above.
        assert!(!unsafe { batch.push_shared(Segment::from_bytes(&bytes)) });
        batch.clear();
        assert!(batch.has_room(BURST));
    }

    proptest! {
        #[test]
        fn a_chain_reads_as_the_bytes_it_is_made_of(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        ) {
            let segments: Vec<Segment<'_>> = parts.iter().map(|part| Segment::from_bytes(part)).collect();
            let mut batch = FrameBatch::with_segments(64);
            // SAFETY: `parts` outlives the batch.
            let added = unsafe { batch.push_shared_chain(&segments) };
            prop_assert!(added);
            let frame = batch.frames()[0];
            let whole = parts.concat();
            prop_assert_eq!(frame.len(), whole.len());
            prop_assert_eq!(frame.head(), &whole[..whole.len().min(HEAD_LEN)]);
            prop_assert_eq!(frame.to_vec(), whole);
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
