//! A frame whose head is changed step by step, and sent in between.

use std::ops::Range;

use super::{DEEPEST_HEAD, Editing, Head, ROOM};
use crate::frame::{Frame, HEAD_CAPACITY, Segment};
use crate::offload::Offload;

/// A frame with a head of its own that can be changed in any way.
///
/// ```
/// let bytes = [7; 60];
/// let mut room = packet::EditRoom::default();
/// let mut open = room.begin().open(&packet::Frame::from_bytes(&bytes)).unwrap();
/// open.head_mut()[0] = 9;
/// assert!(open.insert(12, &[0x81, 0, 0, 5]));
/// let frame = open.frame().unwrap();
/// assert_eq!((frame.len(), frame.head()[0]), (64, 9));
/// ```
#[derive(Debug)]
pub struct Open<'e> {
    head: &'e mut [u8; ROOM],
    len: usize,
    body: &'e [Segment<'e>],
    offload: Offload,
}

impl<'e> Editing<'e> {
    /// The frame with a copy of its head, or of the first [`HEAD_CAPACITY`] bytes of that. `None` past
    /// [`BURST`](crate::BURST) frames, and where the burst has come to more pieces than there is room
    /// for.
    #[must_use]
    pub fn open(&mut self, frame: &Frame<'e>) -> Option<Open<'e>> {
        self.open_at(frame, HEAD_CAPACITY)
    }

    /// The frame with a copy of its head, or of so many bytes of that.
    fn open_at(&mut self, frame: &Frame<'e>, most: usize) -> Option<Open<'e>> {
        let (Head(head), free) = std::mem::take(&mut self.heads).split_first_mut()?;
        self.heads = free;
        let (near, far) = frame.head().split_at(most.min(frame.head().len()));
        head.get_mut(..near.len())?.copy_from_slice(near);
        let body = match far {
            [] => frame.body(),
            far => self.body(far, frame.body())?,
        };
        Some(Open { head, len: near.len(), body, offload: frame.offload() })
    }

    /// The same with as much of its body in its head as there is room for, up to [`HEAD_CAPACITY`]
    /// bytes.
    #[must_use]
    pub fn open_deep(&mut self, frame: &Frame<'e>) -> Option<Open<'e>> {
        self.open_to(frame, HEAD_CAPACITY)
    }

    /// The same up to `depth` bytes, [`DEEPEST_HEAD`] at most.
    #[must_use]
    pub fn open_to(&mut self, frame: &Frame<'e>, depth: usize) -> Option<Open<'e>> {
        let (had, depth) = (frame.head().len(), depth.min(DEEPEST_HEAD));
        if had >= depth || frame.body().is_empty() {
            return self.open_at(frame, depth);
        }
        let (Head(head), free) = std::mem::take(&mut self.heads).split_first_mut()?;
        self.heads = free;
        let len = frame.copy_to(head.get_mut(..depth)?);
        let body = self.end_of(frame.body(), len.checked_sub(had)?)?;
        Some(Open { head, len, body, offload: frame.offload() })
    }
}

impl Open<'_> {
    /// Its head, as it is by now.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.len).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn head_mut(&mut self) -> &mut [u8] {
        self.head.get_mut(..self.len).unwrap_or_default()
    }

    /// The length of the whole frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len + self.body.iter().map(Segment::len).sum::<usize>()
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it still needs before it is complete.
    #[must_use]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Puts bytes into the head, before the headers that an offload may be about. Returns whether there
    /// was room for them, and the place is in the head; otherwise nothing is changed.
    pub fn insert(&mut self, at: usize, bytes: &[u8]) -> bool {
        let count = bytes.len();
        let len = self.len.saturating_add(count);
        let Some(offload) = self.offload.shifted(count.cast_signed()) else { return false };
        if at > self.len || len > ROOM {
            return false;
        }
        self.head.copy_within(at..self.len, at + count);
        if let Some(place) = self.head.get_mut(at..at + count) {
            place.copy_from_slice(bytes);
        }
        (self.len, self.offload) = (len, offload);
        true
    }

    /// Takes bytes out of the head, from before the headers that an offload may be about. Returns whether
    /// they were there; otherwise nothing is changed.
    pub fn remove(&mut self, at: usize, count: usize) -> bool {
        let Some(offload) = self.offload.shifted(-count.cast_signed()) else { return false };
        let Some(end) = at.checked_add(count).filter(|end| *end <= self.len) else { return false };
        self.head.copy_within(end..self.len, at);
        self.len -= count;
        self.offload = offload;
        true
    }

    /// Puts bytes in place of others of the head, behind the headers that an offload may be about. Returns
    /// whether those were there, and there was room; otherwise nothing is changed.
    pub fn replace(&mut self, place: Range<usize>, bytes: &[u8]) -> bool {
        let Range { start, end } = place;
        let after = start.saturating_add(bytes.len());
        let len = after.saturating_add(self.len.saturating_sub(end));
        if start > end || end > self.len || len > ROOM {
            return false;
        }
        self.head.copy_within(end..self.len, after);
        if let Some(place) = self.head.get_mut(start..after) {
            place.copy_from_slice(bytes);
        }
        self.len = len;
        true
    }

    /// Puts the frame into a tunnel: an outer header in front of all. What is known of its checksum is
    /// not of the outer one. Returns whether there was room.
    pub fn encapsulate(&mut self, outer: &[u8]) -> bool {
        let is_done = self.insert(0, outer);
        if is_done {
            self.offload = self.offload.in_tunnel();
        }
        is_done
    }

    /// Takes the frame out of a tunnel, whose outer header, with all in front of it, has so many bytes.
    /// Returns whether it is a frame then that can be finished.
    pub fn decapsulate(&mut self, outer: usize) -> bool {
        let (offload, len) = (self.offload, self.len());
        // What is about the outer header goes with it.
        self.offload = Offload::NONE;
        if !self.remove(0, outer) {
            self.offload = offload;
            return false;
        }
        let inner = len.saturating_sub(outer);
        let found = offload.out_of_tunnel(outer, self.head(), inner);
        self.offload = found.unwrap_or_default();
        found.is_some()
    }

    /// The frame as it is by now. `None` if it has become longer than
    /// [`MAX_FRAME_LEN`](crate::MAX_FRAME_LEN).
    #[must_use]
    pub fn frame(&self) -> Option<Frame<'_>> {
        let frame = Frame::from_parts(self.head(), self.body)?;
        Some(frame.with_offload(self.offload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::TcpFlags;
    use crate::{Capabilities, EditRoom, Gso, MacAddr, OffloadRequest, builder::FrameBuilder};

    fn segment() -> Vec<u8> {
        let [from, to] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        let frame = FrameBuilder::new(from, to).ip([10, 0, 0, 1], [10, 0, 0, 2]);
        frame.tcp((1, 2), 1, 1, TcpFlags::ACK).payload(&[7; 3_000]).build().unwrap()
    }

    #[test]
    fn large_segments_go_into_tunnels_and_come_out_again() {
        let bytes = segment();
        let request = OffloadRequest {
            needs_csum: true,
            gso: Some(Gso::TcpV4),
            gso_size: 1_000,
            csum_start: 34,
            csum_offset: 16,
            ..OffloadRequest::default()
        };
        let offload = Offload::check(&request, Capabilities::all(), &bytes, bytes.len()).unwrap();
        let frame = Frame::from_bytes(&bytes).with_offload(offload);
        let mut room = EditRoom::default();
        let mut open = room.begin().open(&frame).unwrap();
        // VXLAN over IPv4 and UDP, as far as offloads are concerned.
        let mut outer = [0; 50];
        outer[12..15].copy_from_slice(&[8, 0, 0x45]);
        outer[23] = 17;
        outer[36..38].copy_from_slice(&4_789_u16.to_be_bytes());
        outer[42] = 8;
        assert!(open.encapsulate(&outer));
        assert!(open.offload().needs().contains(Capabilities::TUNNEL | Capabilities::TSO4));
        assert_eq!(open.offload().csum(), Some((84, 16)));
        let mut inner = room.begin();
        let mut inner = inner.open(&frame).unwrap();
        assert!(inner.encapsulate(&outer) && inner.decapsulate(50));
        assert_eq!((inner.offload(), inner.frame().unwrap().to_vec()), (offload, bytes.clone()));
        // A checksum that is begun in the outer header goes with that.
        let begun = frame.with_offload(Offload::partial_csum(34, 6));
        let mut open = room.begin().open(&begun).unwrap();
        assert!(open.decapsulate(50));
        assert_eq!((open.offload(), open.len()), (Offload::NONE, bytes.len() - 50));
    }

    proptest! {
        #[test]
        fn an_open_frame_is_what_was_done_to_its_bytes(
            head in 0..400_usize,
            depth in prop::option::of(0..=2 * DEEPEST_HEAD),
            segments in prop::collection::vec(0..3_000_usize, 0..4),
            steps in prop::collection::vec((any::<bool>(), 0..200_usize), 0..40),
        ) {
            let total = head + segments.iter().sum::<usize>();
            let mut model: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let whole = model.clone();
            let mut rest = &whole[head..];
            let body: Vec<Segment<'_>> = segments.iter().map(|len| {
                let (piece, others) = rest.split_at(*len);
                rest = others;
                Segment::from_bytes(piece)
            }).collect();
            let frame = Frame::from_parts(&whole[..head], &body).unwrap();
            let mut room = EditRoom::default();
            let mut editing = room.begin();
            let mut open = match depth {
                Some(depth) => editing.open_to(&frame, depth).unwrap(),
                None => editing.open(&frame).unwrap(),
            };
            if let Some(depth) = depth {
                prop_assert_eq!(open.head().len(), total.min(depth).min(DEEPEST_HEAD));
            }
            for (inserts, at) in steps {
                if inserts {
                    let fits = at <= open.head().len() && open.head().len() + 4 <= ROOM;
                    prop_assert_eq!(open.insert(at, &[1, 2, 3, 4]), fits);
                    if fits {
                        model.splice(at..at, [1, 2, 3, 4]);
                    }
                } else {
                    let fits = at + 4 <= open.head().len();
                    prop_assert_eq!(open.remove(at, 4), fits);
                    if fits {
                        model.drain(at..at + 4);
                    }
                }
                prop_assert_eq!(open.len(), model.len());
            }
            prop_assert_eq!(open.frame().unwrap().to_vec(), model);
            prop_assert_eq!(frame.to_vec(), whole);
        }
    }
}
