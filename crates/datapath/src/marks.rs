//! The frames of a burst that go to one port, and what becomes of them on the way.

use packet::{BURST, Burst, Edit, Edited, Editing};

/// A burst's frames, as bits (bit 0 is the first), each with its edit.
#[derive(Debug)]
pub(crate) struct Marks {
    /// All frames that go to the port.
    frames: u32,
    /// Those of them that are edited. There are as many of these as a burst has frames at most,
    /// as long as each frame goes to a port once; were it more, the list would grow.
    edits: Vec<(u32, Edit)>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { frames: 0, edits: Vec::with_capacity(BURST) }
    }
}

impl Marks {
    /// Whether no frame goes to the port.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// All frames that go to the port.
    #[inline]
    pub(crate) const fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether some of them are edited.
    #[inline]
    pub(crate) const fn has_edits(&self) -> bool {
        !self.edits.is_empty()
    }

    /// Whether all frames of a burst of `count` go to the port as they are.
    pub(crate) const fn is_whole(&self, count: usize) -> bool {
        self.frames.count_ones() as usize == count && !self.has_edits()
    }

    /// Adds the frames in `mask`, which are not among those here.
    #[inline]
    pub(crate) fn add(&mut self, mask: u32, edit: Edit) {
        self.frames |= mask;
        if !edit.is_none() {
            self.add_edit(mask, edit);
        }
    }

    fn add_edit(&mut self, mask: u32, edit: Edit) {
        match self.edits.last_mut() {
            Some((last, same)) if *same == edit => *last |= mask,
            _ => self.edits.push((mask, edit)),
        }
    }

    /// Takes all frames out that are not in `mask`, and returns those.
    pub(crate) const fn retain(&mut self, mask: u32) -> u32 {
        let out = self.frames & !mask;
        self.frames &= mask;
        out
    }

    /// What becomes of the frame that `bit` tells.
    pub(crate) fn edit_of(&self, bit: u32) -> Edit {
        let found = self.edits.iter().find(|(mask, _)| mask & bit != 0);
        found.map_or(Edit::NONE, |(_, edit)| *edit)
    }

    /// Adds those of `frames` that go to the port to `edited`, edited. What cannot be edited is left out.
    #[inline(always)]
    pub(crate) fn apply<'e>(
        &self,
        frames: Burst<'_, 'e>,
        editing: &mut Editing<'e>,
        edited: &mut Edited<'e>,
    ) {
        // As a rule all that go to one port are neighbours, and edited in the same way.
        let alike = match *self.edits {
            [(mask, edit)] if self.frames & !mask == 0 => {
                neighbours(frames, self.frames).zip(Some(edit))
            }
            _ => None,
        };
        if let Some((frames, edit)) = alike {
            return editing.edit_all(frames, edit, edited);
        }
        for bit in bits(self.frames) {
            let Some(frame) = frames.get(bit as usize) else { continue };
            let edit = self.edit_of(1_u32.wrapping_shl(bit));
            let frame = if edit.is_none() { Some(*frame) } else { editing.edit(frame, edit) };
            frame.into_iter().for_each(|frame| edited.push(frame));
        }
    }

    /// The frames that go to the port, those together that are edited in the same way.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (u32, Edit)> {
        let edited = self.edits.iter().fold(0, |all, (mask, _)| all | mask);
        let edits = self.edits.iter().map(|(mask, edit)| (mask & self.frames, *edit));
        let all = std::iter::once((self.frames & !edited, Edit::NONE)).chain(edits);
        all.filter(|(mask, _)| *mask != 0)
    }

    /// Has all of them go as they are.
    pub(crate) fn leave_unedited(&mut self) {
        self.edits.clear();
    }

    /// Forgets all of them.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.frames = 0;
        if self.has_edits() {
            self.edits.clear();
        }
    }
}

/// The frames that `mask` tells, where they are neighbours.
#[inline]
pub(crate) fn neighbours<'s, 'f>(frames: Burst<'s, 'f>, mask: u32) -> Option<Burst<'s, 'f>> {
    let first = mask.trailing_zeros();
    let run = mask.checked_shr(first)?;
    let is_all = run & run.wrapping_add(1) == 0;
    let count = run.trailing_ones() as usize;
    Some(frames.part(first as usize, count)).filter(|found| is_all && found.len() == count)
}

/// Bits of so many things, of a burst at most.
#[inline]
pub(crate) fn all_of(count: usize) -> u32 {
    let others = u32::try_from(BURST.saturating_sub(count)).unwrap_or(0);
    u32::MAX.checked_shr(others).unwrap_or(0)
}

/// The numbers of the bits in `mask`, lowest first.
pub(crate) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.checked_sub(1)?;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use packet::Frame;

    use super::*;

    #[test]
    fn neighbours_are_told_from_others() {
        let bytes = [0_u8; 64];
        let frames: Vec<_> = (14..46).map(|len| Frame::from_bytes(&bytes[..len])).collect();
        let lengths = |mask| {
            neighbours(Burst::new(&frames), mask)
                .map(|all| all.iter().map(Frame::len).collect::<Vec<_>>())
        };
        assert_eq!(lengths(0b1_1100), Some(vec![16, 17, 18]));
        assert_eq!(lengths(u32::MAX), Some((14..46).collect()));
        assert_eq!(lengths(1 << 31), Some(vec![45]));
        assert_eq!((lengths(0b101), lengths(0)), (None, None));
        assert!(neighbours(Burst::new(&frames[..2]), 0b111).is_none());
    }

    #[test]
    fn frames_and_edits_are_remembered_until_cleared() {
        let pop = Edit { pop: true, push: None };
        let mut marks = Marks::default();
        marks.add(0b0011, Edit::NONE);
        assert!(marks.is_whole(2) && !marks.has_edits());
        marks.add(0b0100, pop);
        marks.add(0b1000, pop);
        assert_eq!((marks.frames(), marks.edits.len()), (0b1111, 1));
        assert!(!marks.is_whole(4));
        assert_eq!([1, 4, 8].map(|bit| marks.edit_of(bit)), [Edit::NONE, pop, pop]);
        assert_eq!((marks.retain(0b1_0110), marks.frames()), (0b1001, 0b0110));
        assert_eq!([2, 4].map(|bit| marks.edit_of(bit)), [Edit::NONE, pop]);
        assert_eq!(marks.parts().collect::<Vec<_>>(), [(0b0010, Edit::NONE), (0b0100, pop)]);
        marks.clear();
        assert!(marks.is_empty() && !marks.has_edits());
    }
}
