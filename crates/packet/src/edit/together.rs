//! Frames of a burst that are edited in the same way, and what is known of them then.

use std::ops::RangeInclusive;
use std::ptr::NonNull;
use std::slice::IterMut;

use arrayvec::ArrayVec;

use super::{ADDRESSES, Edit, Editing, Head, Tag};
use crate::copy::{HALVES, copy_halves, copy_short, is_short};
use crate::frame::{Alike, BURST, Burst, Frame, HEAD_LEN};
use crate::headers::EtherType;
use crate::headers::ethernet::TAG_LEN;

/// Length of the addresses of a frame, and of a tag behind them.
const TAGGED: usize = ADDRESSES + TAG_LEN;

/// Lengths of heads that are copied without a call; so is what they have behind a tag.
const NEAR: RangeInclusive<usize> = 32..=HEAD_LEN;

/// Frames that were edited, [`BURST`] at most.
#[derive(Debug, Default)]
pub struct Edited<'e> {
    frames: ArrayVec<Frame<'e>, BURST>,
    longest: usize,
    /// What they have in common, where it was known of what they were made of.
    alike: Option<Alike>,
}

impl<'e> Edited<'e> {
    /// Adds a frame, where there is room.
    #[inline(always)]
    pub fn push(&mut self, frame: Frame<'e>) {
        self.alike = None;
        self.longest = self.longest.max(frame.len());
        let _ = self.frames.try_push(frame);
    }

    /// The frames, with what is known of all of them together.
    #[must_use]
    #[inline]
    pub fn known(&self) -> Burst<'_, 'e> {
        match self.alike {
            None => Burst::up_to(&self.frames, self.longest),
            alike => Burst::with_alike(&self.frames, alike),
        }
    }
}

impl<'e> Editing<'e> {
    /// Edits frames in the same way, as [`edit`](Self::edit) does one, and adds them to `edited`; those
    /// that cannot be edited are left out.
    #[inline(always)]
    pub fn edit_all(&mut self, frames: Burst<'_, 'e>, edit: Edit, edited: &mut Edited<'e>) {
        match (edit.pop, edit.push) {
            (false, None) => self.edit_each::<false, false>(frames, edit, edited),
            (false, Some(_)) => self.edit_each::<false, true>(frames, edit, edited),
            (true, None) => self.edit_each::<true, false>(frames, edit, edited),
            (true, Some(_)) => self.edit_each::<true, true>(frames, edit, edited),
        }
    }

    /// As [`edit_all`](Self::edit_all), with loops of their own for each kind of edit.
    #[inline]
    fn edit_each<const POP: bool, const PUSH: bool>(
        &mut self,
        frames: Burst<'_, 'e>,
        edit: Edit,
        edited: &mut Edited<'e>,
    ) {
        let tag = u32::from_ne_bytes(edit.push.map_or([0; TAG_LEN], Tag::to_bytes));
        if self.edit_alike::<POP, PUSH>(frames, tag, edited).is_some() {
            return;
        }
        let mut free = std::mem::take(&mut self.heads).iter_mut();
        for frame in frames.as_slice() {
            if is_near::<POP>(frame)
                && let Some(head) = free.next()
            {
                near::<POP, PUSH>(frame, head, tag).into_iter().for_each(|next| edited.push(next));
                continue;
            }
            let next;
            (free, next) = self.edit_far(frame, edit, free);
            next.into_iter().for_each(|next| edited.push(next));
        }
        self.heads = free.into_slice();
    }

    /// The same of frames that are alike, where nothing is edited yet: what is so of all of them is looked at once. `None`, and
    /// nothing done, where they are others.
    #[inline(always)]
    fn edit_alike<const POP: bool, const PUSH: bool>(
        &mut self,
        frames: Burst<'_, 'e>,
        tag: u32,
        edited: &mut Edited<'e>,
    ) -> Option<()> {
        let alike = frames.alike()?;
        let (skip, at) = (start_of(POP), start_of(PUSH));
        let rest = alike.head_len().checked_sub(skip).filter(|rest| HALVES.contains(rest))?;
        let fits = edited.frames.is_empty() && frames.len() <= self.heads.len().min(BURST);
        if !fits || !alike.offload().is_none() || POP && !are_tagged(frames, alike) {
            return None;
        }
        let longer = i16::from(PUSH) - i16::from(POP);
        let made = alike.spliced(ADDRESSES, 4 * longer)?;
        let (heads, free) = std::mem::take(&mut self.heads).split_at_mut_checked(frames.len())?;
        self.heads = free;
        let (mut next, mut to) = (edited.frames.as_mut_ptr(), NonNull::from(heads).cast::<Head>());
        for frame in frames.as_slice() {
            // SAFETY: all heads have `skip + rest` bytes, which are 44 at least, so the first TAGGED are there.
            // `at + rest`, what the new ones have, is 80 at most, and ROOM is larger. The two are different
            // memory, since the new ones are borrowed for this alone. Of these there are as many as frames, and
            // there is room for BURST frames, which is no less.
            unsafe {
                let (from, bytes) = (frame.head().as_ptr(), to.cast::<u8>());
                copy_start::<PUSH>(from, bytes.as_ptr(), tag);
                copy_halves(from.add(skip), bytes.as_ptr().add(at), rest);
                next.write(frame.with_head_of(bytes, made));
                (next, to) = (next.add(1), to.add(1));
            }
        }
        // SAFETY: so many were written.
        unsafe { edited.frames.set_len(frames.len()) };
        (edited.longest, edited.alike) = (made.len(), Some(made));
        Some(())
    }

    /// As [`edit`](Self::edit), with the heads that are still `free`; returns those that are so then.
    #[cold]
    #[inline(never)]
    fn edit_far(
        &mut self,
        frame: &Frame<'e>,
        edit: Edit,
        free: IterMut<'e, Head>,
    ) -> (IterMut<'e, Head>, Option<Frame<'e>>) {
        self.heads = free.into_slice();
        let edited = self.edit(frame, edit);
        (std::mem::take(&mut self.heads).iter_mut(), edited)
    }
}

/// Where what follows the addresses is, or a tag behind them.
const fn start_of(is_tagged: bool) -> usize {
    if is_tagged { TAGGED } else { ADDRESSES }
}

/// Whether all of these frames have surely a tag.
#[inline(always)]
fn are_tagged(frames: Burst<'_, '_>, alike: Alike) -> bool {
    const KIND: u128 = 0xFFFF << (8 * ADDRESSES);
    alike.differences() & KIND == 0 && frames.first().is_some_and(is_tagged)
}

/// Whether this one has.
#[inline(always)]
fn is_tagged(frame: &Frame<'_>) -> bool {
    match frame.head().first_chunk::<{ ADDRESSES + 2 }>() {
        Some([.., a, b]) => EtherType(u16::from_be_bytes([*a, *b])).is_tag(),
        None => false,
    }
}

/// Whether [`near`] can edit a frame: one that nobody has to finish, whose head is copied without a
/// call, and that has a tag where one is to be taken off.
#[inline(always)]
fn is_near<const POP: bool>(frame: &Frame<'_>) -> bool {
    NEAR.contains(&frame.head().len()) && frame.offload().is_none() && (!POP || is_tagged(frame))
}

/// A frame that [`is_near`] with a tag taken off, one put on, or both; with the head `to`.
#[inline(always)]
fn near<'e, const POP: bool, const PUSH: bool>(
    frame: &Frame<'e>,
    Head(to): &'e mut Head,
    tag: u32,
) -> Option<Frame<'e>> {
    let from = frame.head();
    let (skip, at) = (start_of(POP), start_of(PUSH));
    let rest = from.len().wrapping_sub(skip);
    debug_assert!(NEAR.contains(&from.len()) && is_short(rest));
    // SAFETY: the head has 32 bytes at least, so the addresses are there and TAGGED bytes, and so are
    // `skip + rest`, its length. `at + rest` is at most TAG_LEN more than HEAD_LEN, and ROOM is larger.
    // The two are different memory, since `to` is borrowed for this alone.
    let head = unsafe {
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        copy_start::<PUSH>(from, to, tag);
        copy_short(from.add(skip), to.add(at), rest);
        std::slice::from_raw_parts(to, at.wrapping_add(rest))
    };
    frame.with_head(head)
}

/// Copies both addresses, and puts a tag behind them.
///
/// # Safety
///
/// `from` must be valid for reads and `to` for writes of [`TAGGED`] bytes.
#[inline(always)]
unsafe fn copy_start<const PUSH: bool>(from: *const u8, to: *mut u8, tag: u32) {
    // SAFETY: the caller vouches for as many.
    unsafe {
        copy_short(from, to, TAGGED);
        if PUSH {
            to.add(ADDRESSES).cast::<u32>().write_unaligned(tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EditRoom, Offload, Segment};

    /// What is in the place of a tag, and whether the checksum was found good.
    type Kind = (usize, bool);

    /// The bytes of one head.
    fn head(len: usize, (kind, _): Kind, first: u8) -> Vec<u8> {
        let mut bytes: Vec<u8> = (first..).take(len).collect();
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&[[0x81, 0], [0x88, 0xA8], [8, 0]][kind]);
        }
        bytes
    }

    /// Lengths of heads that are alike, mostly, and others.
    fn heads() -> impl Strategy<Value = Vec<(usize, Kind)>> {
        let kind = || (0..3_usize, any::<bool>());
        let alike = (0..90_usize, kind(), 0..=BURST)
            .prop_map(|(len, kind, count)| vec![(len, kind); count]);
        let same_length = (0..90_usize, prop::collection::vec(kind(), 0..=BURST))
            .prop_map(|(len, kinds)| kinds.into_iter().map(|kind| (len, kind)).collect());
        prop_oneof![alike, same_length, prop::collection::vec((0..200_usize, kind()), 0..=BURST)]
    }

    proptest! {
        #[test]
        fn frames_edited_together_are_those_edited_one_by_one(
            heads in heads(),
            body in prop::option::of(0..100_usize),
            pop in any::<bool>(),
            push in prop::option::of(any::<u16>()),
        ) {
            let edit = Edit { pop, push: push.map(|control| Tag { kind: EtherType::VLAN, control }) };
            let all: Vec<_> =
                (0..).zip(&heads).map(|(first, (len, kind))| head(*len, *kind, first)).collect();
            let bytes = [7; 100];
            let body: Vec<_> = body.iter().map(|len| Segment::from_bytes(&bytes[..*len])).collect();
            let frames: Vec<_> = all
                .iter()
                .zip(&heads)
                .map(|(bytes, (_, (_, is_valid)))| {
                    let offload = if *is_valid { Offload::DATA_VALID } else { Offload::NONE };
                    Frame::from_parts(bytes, &body).unwrap().with_offload(offload)
                })
                .collect();
            let (mut one, mut other, mut known) = <(EditRoom, EditRoom, EditRoom)>::default();
            let mut editing = one.begin();
            let single: Vec<_> =
                frames.iter().filter_map(|frame| editing.edit(frame, edit)).collect();
            let [mut together, mut alike] = [Edited::default(), Edited::default()];
            other.begin().edit_all(Burst::new(&frames), edit, &mut together);
            let mut editing = known.begin();
            editing.edit_all(Burst::new(&frames).compared(), edit, &mut alike);
            let shown = |frames: &[Frame<'_>]| {
                frames.iter().map(|frame| (frame.to_vec(), frame.head().len(), frame.offload())).collect::<Vec<_>>()
            };
            let longest = single.iter().map(Frame::len).max().unwrap_or(0);
            for edited in [&together, &alike] {
                prop_assert_eq!(shown(&edited.known()), shown(&single));
                prop_assert_eq!(edited.known().longest(), longest);
            }
            if let Some(said) = alike.known().alike() {
                let found = Burst::new(&single).compared().alike().unwrap();
                let said_of = |all: Alike| (all.len(), all.head_len(), all.offload(), all.first_bytes());
                prop_assert_eq!(said_of(said), said_of(found));
                prop_assert_eq!(found.differences() & !said.differences(), 0);
            }
            // What is edited next gets heads of its own.
            let more = frames.first().and_then(|first| editing.edit(first, edit));
            prop_assert!(more.is_none() || single.len() < BURST);
            prop_assert_eq!(shown(&alike.known()), shown(&single));
        }
    }
}
