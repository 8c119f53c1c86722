//! Entries by the first bytes of frames, for those of ordinary shapes.
//!
//! What is to be compared of the frames of a burst is written down before any is looked up: so the memory
//! that they need is asked for together.

use packet::{BURST, Frame};

use super::PathId;
use super::index::{Index, are_same};
use crate::extract::Depth;
use crate::shape::{LINE, Line, Shapes};

/// Frames of a burst that are alike.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Their path.
    pub path: PathId,
    /// Which they are, a bit for each.
    pub mask: u32,
    /// The bytes that they have together.
    pub bytes: u64,
}

/// One that is to be looked up: what is compared, its hash, and the bytes of the frames that are alike.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Entry {
    line: Line,
    hash: u64,
    bytes: u64,
}

const NONE: Entry = Entry { line: [0; LINE], hash: 0, bytes: 0 };

/// Entries by lines.
#[derive(Debug)]
pub(super) struct ByLine {
    pub(super) index: Index,
    /// Of the burst at hand, by the numbers of frames.
    entries: Box<[Entry; BURST]>,
    /// Which frames have lines, a bit for each, and which have another one than the frame before.
    known: u32,
    first: u32,
    /// Those that were not looked up yet.
    left: u32,
}

impl ByLine {
    /// Without entries.
    pub(super) fn new() -> Self {
        let entries = Box::new([NONE; BURST]);
        Self { index: Index::new(LINE), entries, known: 0, first: 0, left: 0 }
    }

    /// Takes a burst; returns which frames have lines, a bit for each.
    pub(super) fn take(&mut self, shapes: &mut Shapes, frames: &[Frame<'_>]) -> u32 {
        let frames = frames.get(..BURST).unwrap_or(frames);
        // Each has a loop of its own.
        match shapes.depth() {
            Depth::Link => self.take_by((shapes, Depth::Link), frames),
            Depth::All => self.take_by((shapes, Depth::All), frames),
        }
        if self.index.is_large() {
            self.fetch();
        }
        self.known
    }

    #[inline(always)]
    fn take_by(&mut self, (shapes, depth): (&mut Shapes, Depth), frames: &[Frame<'_>]) {
        let (mut known, mut first, mut bit) = (0_u32, 0, 1_u32);
        let (mut before, mut twins, mut has_twins) = (&mut NONE.clone(), 0_u32, true);
        for (frame, entry) in frames.iter().zip(self.entries.iter_mut()) {
            if twins & bit == 0
                && let Some(line) = shapes.line(frame.head(), frame.len(), depth)
            {
                let len = frame.len() as u64;
                known |= bit;
                if first == 0 || !are_same(&line, &before.line) {
                    first |= bit;
                    *entry = Entry { line, hash: self.index.hash(&line), bytes: len };
                    before = entry;
                } else if has_twins {
                    // Where two are alike, those that follow often are, too.
                    let count = shapes.twins(frames.get(bit.trailing_zeros() as usize..), depth);
                    has_twins = count > 0;
                    twins = behind(bit, count);
                    known |= twins;
                    before.bytes += len * (count as u64 + 1);
                } else {
                    before.bytes += len;
                }
            }
            bit <<= 1;
        }
        (self.known, self.first, self.left) = (known, first, first);
    }

    /// Asks for the memory that look-ups are going to need.
    fn fetch(&self) {
        let entries =
            || self.entries.iter().enumerate().filter(|(at, _)| self.first & 1 << at != 0);
        entries().for_each(|(_, entry)| self.index.fetch_tags(entry.hash));
        entries().for_each(|(_, entry)| self.index.fetch_values(entry.hash));
    }

    /// The first of the next frames that are alike, all of them, and their bytes.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<(usize, u32, u64)> {
        let at = self.left.trailing_zeros() as usize;
        let entry = self.entries.get(at)?;
        self.left &= self.left - 1;
        let below = |bits: u32| (bits & bits.wrapping_neg()).wrapping_sub(1);
        Some((at, self.known & below(self.left) & u32::MAX << at, entry.bytes))
    }

    /// The path of a frame that is the first of such, if there is an entry with one of which `judge` says that
    /// it, or another one, is good.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        number: usize,
        judge: impl FnMut(u32) -> Option<u32>,
    ) -> Option<u32> {
        let entry = self.entries.get(number)?;
        self.index.find(entry.hash, &entry.line, judge)
    }

    /// Adds the entry that was missing for such a frame; it may take the place of one whose path is not there.
    pub(super) fn put(&mut self, number: usize, id: u32, is_there: impl Fn(u32) -> bool) {
        if let Some(entry) = self.entries.get(number) {
            self.index.put(&entry.line, id, is_there);
        }
    }
}

/// So many bits of a burst behind this one.
#[inline(always)]
fn behind(bit: u32, count: usize) -> u32 {
    let ones = u32::try_from(count).ok().and_then(|count| 1_u32.checked_shl(count));
    bit.wrapping_mul(ones.unwrap_or(0).wrapping_sub(1)) << 1
}

#[cfg(test)]
mod tests;
