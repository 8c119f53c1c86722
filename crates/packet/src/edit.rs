//! VLAN tags put on frames, taken off them and changed, while the frames stay as they are in the
//! ring where they lie.
//!
//! An edited frame has a head of its own and shares its body with the frame that it was made
//! of. So one frame can go to several receivers, to each as it needs it, and nobody copies more
//! than a cache line for it.

mod open;
mod together;

pub use open::Open;
pub use together::Edited;

use crate::frame::{BURST, Frame, HEAD_CAPACITY, HEAD_LEN, RawSegment, Segment};
use crate::headers::EtherType;
use crate::headers::ethernet::TAG_LEN;

/// Length of the two addresses at the start of a frame, behind which tags are.
const ADDRESSES: usize = 12;

/// Room for the longest head that is edited as a whole, with the outer header of a tunnel, or the longest network
/// service header, and a few more tags.
const ROOM: usize = HEAD_CAPACITY + 6 * HEAD_LEN;

/// As much of a frame as there are headers in at most, where one of them is a network service header, with room
/// for as much as those of tunnels have.
pub const DEEPEST_HEAD: usize = HEAD_CAPACITY + 4 * HEAD_LEN;

/// Segments in all the bodies of a burst that are not taken over as they are: those of frames whose
/// private part is longer than [`HEAD_CAPACITY`]. It is enough for jumbo frames in buffers of
/// 2 KiB, the longest of which have five.
const SEGMENTS: usize = 8 * BURST;

/// A VLAN tag (IEEE 802.1Q clause 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// What kind of tag it is: [`EtherType::VLAN`] or [`EtherType::QINQ`].
    pub kind: EtherType,
    /// Priority (3 bits), drop eligibility (1 bit) and VLAN id (12 bits).
    pub control: u16,
}

impl Tag {
    /// The four bytes as they are in a frame.
    #[must_use]
    #[inline]
    pub const fn to_bytes(self) -> [u8; TAG_LEN] {
        let ([a, b], [c, d]) = (self.kind.0.to_be_bytes(), self.control.to_be_bytes());
        [a, b, c, d]
    }
}

/// What becomes of a frame's tags; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Edit {
    /// Whether the outermost tag is taken off.
    pub pop: bool,
    /// The tag to put on afterwards.
    pub push: Option<Tag>,
}

impl Edit {
    /// Leaves the frame as it is.
    pub const NONE: Self = Self { pop: false, push: None };

    /// Whether the frame stays as it is.
    #[must_use]
    #[inline]
    pub const fn is_none(&self) -> bool {
        !self.pop && self.push.is_none()
    }
}

/// A head with room for more tags.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Head([u8; ROOM]);

/// Memory for the heads of a burst of edited frames, used again for each burst.
#[derive(Debug)]
pub struct EditRoom {
    heads: Box<[Head; BURST]>,
    segments: Box<[RawSegment]>,
}

impl Default for EditRoom {
    fn default() -> Self {
        let none = Segment::from_bytes(&[]).raw();
        Self {
            heads: Box::new([Head([0; ROOM]); BURST]),
            segments: vec![none; SEGMENTS].into_boxed_slice(),
        }
    }
}

impl EditRoom {
    /// Room for the next burst. The frames of the one before are gone, as the borrow checker
    /// makes sure:
    ///
    /// ```compile_fail,E0499
    /// let mut room = packet::EditRoom::default();
    /// let pop = packet::Edit { pop: true, push: None };
    /// let bytes = [0; 60];
    /// let edited = room.begin().edit(&packet::Frame::from_bytes(&bytes), pop);
    /// room.begin();
    /// edited.map(|frame| frame.len());
    /// ```
    #[inline]
    pub fn begin(&mut self) -> Editing<'_> {
        Editing { heads: &mut self.heads[..], segments: &mut self.segments }
    }
}

/// Edits the frames of one burst, of [`BURST`] at most.
#[derive(Debug)]
pub struct Editing<'e> {
    /// What is still free.
    heads: &'e mut [Head],
    segments: &'e mut [RawSegment],
}

impl<'e> Editing<'e> {
    /// The frame with its tags changed. `None` where it has no tag to take off, would be longer
    /// than [`MAX_FRAME_LEN`](crate::MAX_FRAME_LEN), or has headers that end too far behind for an
    /// offload ([`Offload::shifted`](crate::Offload::shifted)); and past [`BURST`] frames.
    #[must_use]
    #[inline(always)]
    pub fn edit(&mut self, frame: &Frame<'e>, edit: Edit) -> Option<Frame<'e>> {
        let (addresses, rest) = frame.head().split_at_checked(ADDRESSES)?;
        let rest = if edit.pop { without_tag(rest)? } else { rest };
        let longer = isize::from(edit.push.is_some()) - isize::from(edit.pop);
        let offload = frame.offload().shifted(TAG_LEN.cast_signed() * longer)?;
        let (head, free) = std::mem::take(&mut self.heads).split_first_mut()?;
        self.heads = free;
        let is_whole = frame.head().len() <= HEAD_CAPACITY;
        let (near, far) = if is_whole { (rest, &[][..]) } else { rest.split_at(HEAD_LEN) };
        let head = fill(head, addresses, edit.push, near)?;
        let edited = match far {
            [] => frame.with_head(head),
            far => Frame::from_parts(head, self.body(far, frame.body())?),
        };
        edited.map(|edited| edited.with_offload(offload))
    }

    /// The first `len` bytes of a frame that is longer, without its offload, since nobody can finish
    /// what is not all there; fewer, but all of its head, where the burst has come to more pieces
    /// than there is room for.
    #[must_use]
    pub fn cut(&mut self, frame: &Frame<'e>, len: usize) -> Frame<'e> {
        if frame.len() <= len {
            return *frame;
        }
        let head = frame.head();
        let near = head.get(..len).unwrap_or(head);
        let body = self.start_of(frame.body(), len.saturating_sub(near.len()));
        Frame::from_parts(near, body.unwrap_or_default()).unwrap_or(*frame)
    }

    /// The same frame with its first [`HEAD_CAPACITY`] bytes, or all of it where it is shorter, in its
    /// head: copied now, so that what is looked at there is what is sent. `None` where the burst has
    /// come to more pieces than there is room for, and past [`BURST`] frames.
    #[must_use]
    pub fn deepen(&mut self, frame: &Frame<'e>) -> Option<Frame<'e>> {
        let had = frame.head().len();
        if had >= HEAD_CAPACITY || frame.body().is_empty() {
            return Some(*frame);
        }
        let (Head(bytes), free) = std::mem::take(&mut self.heads).split_first_mut()?;
        self.heads = free;
        let room = bytes.get_mut(..HEAD_CAPACITY)?;
        let len = frame.copy_to(room);
        let body = self.end_of(frame.body(), len.checked_sub(had)?)?;
        let deep = Frame::from_parts(room.get(..len)?, body);
        // The headers that an offload is about were in the head already, and are the same.
        deep.map(|deep| deep.with_offload(frame.offload()))
    }

    /// The first `len` bytes of a body.
    fn start_of(&mut self, body: &[Segment<'e>], len: usize) -> Option<&'e [Segment<'e>]> {
        let mut rest = len;
        let parts = body.iter().filter_map(|segment| {
            let part = segment.len().min(rest);
            rest = rest.saturating_sub(part);
            let raw = RawSegment::new(segment.as_ptr(), u32::try_from(part).ok()?);
            (part > 0).then_some(raw)
        });
        // SAFETY: each is the beginning of a segment that is there for all of 'e.
        unsafe { self.keep(parts) }
    }

    /// A body without its first `len` bytes.
    fn end_of(&mut self, body: &[Segment<'e>], len: usize) -> Option<&'e [Segment<'e>]> {
        let mut gone = len;
        let parts = body.iter().filter_map(|segment| {
            let part = segment.skip(gone.min(segment.len()));
            gone = gone.saturating_sub(segment.len());
            (part.len() > 0).then_some(part.raw())
        });
        // SAFETY: each is the end of a segment that is there for all of 'e.
        unsafe { self.keep(parts) }
    }

    /// Puts segments where they stay for the burst; `None` if there is no room for all.
    ///
    /// # Safety
    ///
    /// What each of them leads to must be there for all of `'e`.
    unsafe fn keep(
        &mut self,
        mut parts: impl Iterator<Item = RawSegment>,
    ) -> Option<&'e [Segment<'e>]> {
        let all = std::mem::take(&mut self.segments);
        let mut count = 0;
        let mut is_full = false;
        for part in parts.by_ref() {
            let Some(place) = all.get_mut(count) else {
                is_full = true;
                break;
            };
            *place = part;
            count = count.saturating_add(1);
        }
        let (segments, free) = all.split_at_mut_checked(count)?;
        self.segments = free;
        // SAFETY: all of them were just written, and the caller vouches for them.
        (!is_full).then(|| unsafe { RawSegment::get_all(segments) })
    }

    /// The body of a frame of which `far` is private, and `body` follows.
    #[cold]
    fn body(&mut self, far: &'e [u8], body: &'e [Segment<'e>]) -> Option<&'e [Segment<'e>]> {
        let count = body.len().checked_add(1)?;
        let (segments, free) = std::mem::take(&mut self.segments).split_at_mut_checked(count)?;
        self.segments = free;
        let all = std::iter::once(Segment::from_bytes(far)).chain(body.iter().copied());
        for (to, from) in segments.iter_mut().zip(all) {
            *to = from.raw();
        }
        // SAFETY: all of them were just written, each from a segment that is there for all of 'e.
        Some(unsafe { RawSegment::get_all(segments) })
    }
}

/// What follows the tag that `rest`, which begins behind the addresses, begins with.
#[inline]
fn without_tag(rest: &[u8]) -> Option<&[u8]> {
    let ([a, b, _, _], behind) = rest.split_first_chunk()?;
    EtherType(u16::from_be_bytes([*a, *b])).is_tag().then_some(behind)
}

/// Puts a head together.
#[inline]
fn fill<'e>(
    head: &'e mut Head,
    addresses: &[u8],
    tag: Option<Tag>,
    near: &[u8],
) -> Option<&'e [u8]> {
    let Head(bytes) = head;
    bytes.get_mut(..ADDRESSES)?.copy_from_slice(addresses);
    let mut at = ADDRESSES;
    if let Some(tag) = tag {
        bytes.get_mut(at..at + TAG_LEN)?.copy_from_slice(&tag.to_bytes());
        at += TAG_LEN;
    }
    let end = at + near.len();
    bytes.get_mut(at..end)?.copy_from_slice(near);
    bytes.get(..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Capabilities, Gso, MAX_FRAME_LEN, Offload, OffloadRequest};

    const TAG: Tag = Tag { kind: EtherType::VLAN, control: 0x2005 };
    const PUSH: Edit = Edit { pop: false, push: Some(TAG) };
    const POP: Edit = Edit { pop: true, push: None };

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    /// The edit, on plain bytes.
    fn model(mut bytes: Vec<u8>, edit: Edit) -> Option<Vec<u8>> {
        if edit.pop {
            if bytes.len() < 16 || ![[0x81, 0], [0x88, 0xA8]].iter().any(|k| bytes[12..14] == *k) {
                return None;
            }
            bytes.drain(12..16);
        }
        if let Some(tag) = edit.push {
            bytes.splice(12..12, tag.to_bytes());
        }
        Some(bytes)
    }

    proptest! {
        #[test]
        fn tags_come_and_go_and_all_else_stays(
            head in 0..300_usize,
            segments in prop::collection::vec(0..3000_usize, 0..6),
            kind in prop_oneof![Just(0x8100_u16), Just(0x88A8), Just(0x0800)],
            pop in any::<bool>(),
            push in prop::option::of(any::<u16>()),
        ) {
            let mut whole = bytes(head + segments.iter().sum::<usize>());
            if head >= 14 {
                whole[12..14].copy_from_slice(&kind.to_be_bytes());
            }
            let body = pieces(&whole[head..], &segments);
            let frame = Frame::from_parts(&whole[..head], &body).unwrap();
            let edit = Edit { pop, push: push.map(|control| Tag { control, ..TAG }) };
            let expected = if head < 12 { None } else { model(whole.clone(), edit) };
            let expected = expected.filter(|_| !pop || head >= 16);
            let mut room = EditRoom::default();
            let mut editing = room.begin();
            let edited: Vec<_> =
                (0..3).map(|_| editing.edit(&frame, edit).map(|frame| frame.to_vec())).collect();
            prop_assert_eq!(edited, vec![expected; 3]);
            prop_assert_eq!(frame.to_vec(), whole);
        }
    }

    /// What a frame has beside its head, in pieces of these lengths.
    fn pieces<'b>(mut rest: &'b [u8], lengths: &[usize]) -> Vec<Segment<'b>> {
        let next = |len: &usize| {
            let (piece, others) = rest.split_at(*len);
            rest = others;
            Segment::from_bytes(piece)
        };
        lengths.iter().map(next).collect()
    }

    proptest! {
        #[test]
        fn what_is_cut_is_the_start_of_the_frame(
            head in 0..300_usize,
            segments in prop::collection::vec(prop_oneof![Just(0), 0..3000_usize], 0..6),
            len in prop_oneof![0..400_usize, 0..20_000_usize],
        ) {
            let whole = bytes(head + segments.iter().sum::<usize>());
            let body = pieces(&whole[head..], &segments);
            let frame = Frame::from_parts(&whole[..head], &body).unwrap();
            let mut room = EditRoom::default();
            let mut editing = room.begin();
            for _ in 0..3 {
                let cut = editing.cut(&frame, len);
                prop_assert_eq!(cut.to_vec(), &whole[..len.min(whole.len())]);
                // And edited as any other.
                let tagged = editing.edit(&cut, PUSH).map(|frame| frame.to_vec());
                let expected = (cut.head().len() >= 12).then(|| model(cut.to_vec(), PUSH).unwrap());
                prop_assert_eq!(tagged, expected);
            }
        }
    }

    proptest! {
        #[test]
        fn a_deeper_frame_is_the_same_and_has_more_in_its_head(
            head in 0..300_usize,
            segments in prop::collection::vec(0..300_usize, 0..6),
        ) {
            let whole = bytes(head + segments.iter().sum::<usize>());
            let body = pieces(&whole[head..], &segments);
            let frame = Frame::from_parts(&whole[..head], &body).unwrap();
            let mut room = EditRoom::default();
            let mut editing = room.begin();
            for _ in 0..3 {
                let deep = editing.deepen(&frame).unwrap();
                prop_assert_eq!(deep.to_vec(), &whole[..]);
                prop_assert_eq!(deep.head(), &whole[..whole.len().min(HEAD_CAPACITY.max(head))]);
            }
        }
    }

    #[test]
    fn a_frame_of_many_pieces_is_not_deepened_beyond_the_room() {
        let bytes = bytes(2_000);
        let body: Vec<_> = bytes[64..].iter().map(|_| Segment::from_bytes(&bytes[..1])).collect();
        let frame = |count| Frame::from_parts(&bytes[..64], &body[..count]).unwrap();
        let fits = HEAD_CAPACITY - 64 + SEGMENTS;
        let mut room = EditRoom::default();
        assert!(room.begin().deepen(&frame(fits + 1)).is_none());
        let mut editing = room.begin();
        let deep = editing.deepen(&frame(fits)).unwrap();
        assert_eq!((deep.head().len(), deep.len()), (HEAD_CAPACITY, 64 + fits));
        assert!(editing.deepen(&frame(fits)).is_none());
    }

    #[test]
    fn a_frame_of_many_pieces_is_cut_behind_its_head_where_there_is_no_room() {
        let bytes = bytes(2_000);
        let body: Vec<_> = bytes[64..].iter().map(|_| Segment::from_bytes(&bytes[..1])).collect();
        let frame = Frame::from_parts(&bytes[..64], &body).unwrap();
        let mut room = EditRoom::default();
        let mut editing = room.begin();
        assert_eq!(editing.cut(&frame, 64 + SEGMENTS).len(), 64 + SEGMENTS);
        assert_eq!(editing.cut(&frame, 70).len(), 64);
        assert_eq!(editing.cut(&frame, 60).len(), 60);
    }

    #[test]
    fn a_burst_has_room_and_no_more() {
        let bytes = bytes(1500);
        let mut room = EditRoom::default();
        for _ in 0..2 {
            let mut editing = room.begin();
            let frame = Frame::from_bytes(&bytes);
            let edited: Vec<_> = (0..=BURST).map_while(|_| editing.edit(&frame, PUSH)).collect();
            assert_eq!(edited.len(), BURST);
            assert!(
                edited.iter().all(|edited| Some(edited.to_vec()) == model(bytes.clone(), PUSH))
            );
        }
    }

    #[test]
    fn a_large_segment_takes_its_offload_along() {
        let mut bytes = bytes(5000);
        bytes[12..14].copy_from_slice(&[0x08, 0]);
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
        bytes[46] = 0x50;
        let request = OffloadRequest {
            needs_csum: true,
            gso: Some(Gso::TcpV4),
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            ..OffloadRequest::default()
        };
        let offload =
            Offload::check(&request, Capabilities::all(), &bytes[..64], bytes.len()).unwrap();
        let body = [Segment::from_bytes(&bytes[64..])];
        let frame = Frame::from_parts(&bytes[..64], &body).unwrap().with_offload(offload);
        let (mut first, mut second) = (EditRoom::default(), EditRoom::default());
        let tagged = first.begin().edit(&frame, PUSH).unwrap();
        assert_eq!((tagged.offload().csum(), tagged.len()), (Some((38, 16)), 5004));
        assert_eq!((tagged.offload().hdr_len(), tagged.wire_len()), (58, 58 + 1448));
        let again = Offload::check_frame(&tagged.offload().request(), Capabilities::all(), &tagged);
        assert_eq!(again, Ok(tagged.offload()));
        let bare = second.begin().edit(&tagged, POP).unwrap();
        assert_eq!((bare.offload(), bare.to_vec()), (offload, bytes.clone()));
    }

    #[test]
    fn nothing_grows_beyond_the_longest_frame() {
        let bytes = bytes(MAX_FRAME_LEN);
        let edit = |len: usize| {
            let body = [Segment::from_bytes(&bytes[64..len])];
            let frame = Frame::from_parts(&bytes[..64], &body).unwrap();
            EditRoom::default().begin().edit(&frame, PUSH).map(|frame| frame.len())
        };
        assert_eq!(edit(MAX_FRAME_LEN - 4), Some(MAX_FRAME_LEN));
        assert_eq!(edit(MAX_FRAME_LEN - 3), None);
    }
}
