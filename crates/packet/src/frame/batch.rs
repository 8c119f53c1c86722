//! The frames of one burst.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use arrayvec::ArrayVec;

use super::{Alike, BURST, Burst, Frame, HEAD_CAPACITY, HEAD_LEN, MAX_FRAME_LEN, Segment};
use crate::copy::{copy, copy_halves, copy_line};
use crate::offload::{BadOffload, Capabilities, Offload, OffloadRequest};

/// The length of the head of most frames.
const LINE: u16 = 64;
const _: () = assert!(LINE as usize == HEAD_LEN);

/// Lengths of frames that are shorter than that, but of half a line at least, as nearly all of them are.
const SHORT: Range<usize> = HEAD_LEN / 2..HEAD_LEN;

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
    /// What they have in common, if they were compared, and nothing of them was changed since.
    alike: Option<Alike>,
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
        let none = Segment::EMPTY;
        let heads = Box::new([Head([0; HEAD_CAPACITY]); BURST]);
        let segments = vec![none; segments.clamp(BURST, u16::MAX as usize)].into_boxed_slice();
        Self {
            frames: ArrayVec::new(),
            alike: None,
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

    /// The same, with what is known of all of them together since they were [compared](Self::compare).
    #[must_use]
    #[inline]
    pub fn known(&self) -> Burst<'_, '_> {
        Burst::with_alike(&self.frames, self.alike)
    }

    /// Finds out what they have in common.
    #[inline]
    pub fn compare(&mut self) -> Burst<'_, '_> {
        self.alike = Alike::of(&self.frames);
        self.known()
    }

    /// The private head of frame `index`, to rewrite header fields in place; `None` when there
    /// is no such frame.
    #[must_use]
    #[inline]
    pub fn head_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        self.alike = None;
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
        self.alike = None;
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
        self.alike = None;
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
        self.alike = None;
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
                body.write(segment.skip(HEAD_LEN).raw().get());
            } else {
                copy(segment.as_ptr().as_ptr(), head.as_ptr(), head_len);
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most HEAD_LEN")]
        let frame = Frame {
            head,
            body,
            len: segment.raw().len,
            head_len: head_len as u16,
            body_count: u16::from(segment.len() > HEAD_LEN),
            offload: Offload::NONE,
            _ring: PhantomData,
        };
        // SAFETY: `index` was less than the capacity, BURST.
        unsafe { self.frames.push_unchecked(frame) };
        true
    }

    /// Adds frames that lie in one piece of shared memory each, as [`Self::push_shared`] does, as long as
    /// there is room; returns how many.
    ///
    /// # Safety
    ///
    /// As for [`Self::push_shared`], for every segment.
    #[inline]
    pub unsafe fn extend_shared<'s>(
        &mut self,
        mut segments: impl Iterator<Item = Segment<'s>>,
    ) -> usize {
        let before = self.frames.len();
        let mut are_short = false;
        loop {
            // SAFETY: the caller vouches for the segments.
            let other = unsafe {
                match are_short {
                    false => self.extend_near::<false>(&mut segments),
                    true => self.extend_near::<true>(&mut segments),
                }
            };
            // Those that follow are mostly of its kind.
            are_short = other.is_some_and(|other| SHORT.contains(&other.len()));
            // SAFETY: as above.
            if !other.is_some_and(|other| unsafe { self.push_apart(other) }) {
                return self.frames.len() - before;
            }
        }
    }

    /// Adds frames of a line or more, or those that are [`SHORT`], until one is of another kind, which is
    /// returned, or there is none or no room. Such a loop has no call in it and stays in registers.
    ///
    /// # Safety
    ///
    /// As for [`Self::push_shared`], for every segment.
    #[inline(always)]
    unsafe fn extend_near<'s, const ARE_SHORT: bool>(
        &mut self,
        segments: &mut impl Iterator<Item = Segment<'s>>,
    ) -> Option<Segment<'s>> {
        let frames = self.frames.as_mut_ptr();
        let (heads, bodies) = (self.heads.cast::<Head>(), self.bodies.cast::<Segment<'static>>());
        let (mut index, mut other) = (self.frames.len(), None);
        self.alike = None;
        // The next frame is taken only where there is room.
        while index < BURST {
            let Some(segment) = segments.next() else { break };
            let len = segment.len();
            if if ARE_SHORT { !SHORT.contains(&len) } else { len < HEAD_LEN } {
                other = Some(segment);
                break;
            }
            // SAFETY: there are BURST frames, heads and bodies, and `index` is less than that. The head
            // has room for HEAD_LEN bytes, of which as many are copied as the segment has at least. The
            // caller vouches for the segment for as long as the batch has it.
            unsafe {
                let (head, body) = (heads.add(index).cast::<u8>(), bodies.add(index));
                if ARE_SHORT {
                    copy_halves(segment.as_ptr().as_ptr(), head.as_ptr(), len);
                } else {
                    copy_line(segment.as_ptr().as_ptr(), head.as_ptr());
                    body.write(segment.skip(HEAD_LEN).raw().get());
                }
                #[allow(clippy::cast_possible_truncation, reason = "at most HEAD_LEN")]
                frames.add(index).write(Frame {
                    head,
                    body,
                    len: segment.raw().len,
                    head_len: if ARE_SHORT { len as u16 } else { LINE },
                    body_count: u16::from(len > HEAD_LEN),
                    offload: Offload::NONE,
                    _ring: PhantomData,
                });
            }
            index += 1;
        }
        // SAFETY: that is no more than BURST, and all of them have been written.
        unsafe { self.frames.set_len(index) };
        other
    }

    /// As [`Self::push_shared`], apart.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(never)]
    unsafe fn push_apart(&mut self, segment: Segment<'_>) -> bool {
        // SAFETY: as the caller says.
        unsafe { self.push_shared(segment) }
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
                unsafe { body.add(used).write(rest.raw().get()) };
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
            unsafe { body.add(index).write(segment.raw().get()) };
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
        self.alike = None;
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
        self.alike = None;
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
        self.alike = None;
        self.frames.try_push(frame).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RawSegment;
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
    fn frames_in_one_piece_are_added_together_until_there_is_no_room() {
        let bytes: Vec<u8> = (0..100).collect();
        let of = |lens: &[usize]| {
            let mut batch = FrameBatch::with_segments(0);
            let segments = lens.iter().map(|len| Segment::from_bytes(&bytes[..*len]));
            // SAFETY: `bytes` outlives the batch.
            assert!(unsafe { batch.push_shared(Segment::from_bytes(&bytes)) });
            // SAFETY: as above.
            let added = unsafe { batch.extend_shared(segments) };
            assert_eq!(batch.frames().len(), added + 1);
            for (frame, len) in batch.frames().iter().skip(1).zip(lens) {
                assert_eq!(frame.to_vec(), bytes[..*len]);
                assert_eq!(frame.head().len(), (*len).min(HEAD_LEN));
                assert_eq!(frame.body().len(), usize::from(*len > HEAD_LEN));
            }
            added
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[64, 16, 31, 60, 64, 65, 100, 15, 14, 64]), 10);
        assert_eq!(of(&[64; BURST + 2]), BURST - 1);
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
    }
}
