//! Entries by the first bytes of frames, for those of ordinary shapes.
//!
//! What is to be compared of the frames of a burst is written down before any is looked up: so the memory
//! that they need is asked for together.

use packet::{BURST, Burst, Frame};

use super::PathId;
use super::index::{Index, are_same};
use super::paths::NONE as NO_PATH;
use crate::extract::Depth;
use crate::shape::{LINE, Line, Shapes, Twin};

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

/// The number of no frame.
const NOBODY: u32 = u32::MAX;

/// So many ports, by the last bits of their numbers, have what came in there last remembered.
const PORTS: usize = 8;

/// What came in last at a port, if it was several frames that are alike: mostly more of them follow.
#[derive(Debug)]
struct Last {
    twin: Twin,
    /// How they were looked up.
    entry: Entry,
    /// The number of their path.
    path: u32,
}

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
    lasts: Box<[Option<Last>; PORTS]>,
    /// The number of the path of the frames at the front of the burst at hand, where it is known without a
    /// look-up.
    front: u32,
    /// Of the burst at hand, the number of the frame that is the last by now of its port, and where that is.
    last_of: u32,
    place: usize,
}

impl ByLine {
    /// Without entries.
    pub(super) fn new() -> Self {
        let entries = Box::new([NONE; BURST]);
        let (index, lasts) = (Index::new(LINE), Box::default());
        let front = NO_PATH;
        Self {
            index,
            entries,
            known: 0,
            first: 0,
            left: 0,
            lasts,
            front,
            last_of: NOBODY,
            place: 0,
        }
    }

    /// Forgets all, since other bytes count.
    pub(super) fn begin(&mut self) {
        self.index.begin_with(LINE);
        *self.lasts = Default::default();
    }

    /// Forgets all, since numbers of paths begin anew.
    pub(super) fn clear(&mut self) {
        self.index.clear();
        *self.lasts = Default::default();
    }

    /// Takes a burst; returns which frames have lines, a bit for each.
    pub(super) fn take(&mut self, shapes: &mut Shapes, frames: Burst<'_, '_>) -> u32 {
        let frames = frames.part(0, BURST);
        let at = self.take_last(shapes, frames);
        if at < frames.len() {
            // Each has a loop of its own.
            match shapes.depth() {
                Depth::Link => self.take_by((shapes, Depth::Link), &frames, at),
                Depth::All => self.take_by((shapes, Depth::All), &frames, at),
            }
        }
        if self.index.is_large() {
            self.fetch();
        }
        self.known
    }

    /// The number of the path of all frames of a burst, and their bytes, if they are surely like what came in
    /// last at their port, and that is known.
    #[inline]
    pub(super) fn whole(&self, shapes: &Shapes, frames: Burst<'_, '_>) -> Option<(u32, u64)> {
        let last = self.lasts.get(place(shapes))?.as_ref()?;
        let is_known = last.path != NO_PATH && frames.len() <= BURST;
        if !is_known || !last.twin.are_all(frames, shapes) {
            return None;
        }
        Some((last.path, last.twin.len() as u64 * frames.len() as u64))
    }

    /// Takes the frames at the front of a burst that are like what came in last at its port; returns how many.
    #[inline(always)]
    fn take_last(&mut self, shapes: &Shapes, frames: Burst<'_, '_>) -> usize {
        (self.known, self.first, self.left) = (0, 0, 0);
        (self.front, self.last_of, self.place) = (NO_PATH, NOBODY, place(shapes));
        let Some(Some(last)) = self.lasts.get(self.place) else { return 0 };
        let count = last.twin.count(frames, shapes);
        if count == 0 {
            return 0;
        }
        let [entry, ..] = &mut *self.entries;
        *entry = Entry { bytes: last.twin.len() as u64 * count as u64, ..last.entry };
        self.front = last.path;
        (self.known, self.first, self.left) = (ones(count), 1, 1);
        self.last_of = 0;
        count
    }

    /// Takes the frames from number `at` on, before which there are none or those that are alike.
    #[inline(always)]
    fn take_by(&mut self, by: (&mut Shapes, Depth), frames: &[Frame<'_>], at: usize) {
        let (shapes, depth) = by;
        let (mut known, mut first, mut last_of) = (self.known, self.first, self.last_of);
        let Some((done, entries)) = self.entries.split_at_mut_checked(at) else { return };
        let rest = frames.get(at..).unwrap_or_default();
        let mut none = NONE;
        let (mut before, mut twins, mut has_twins) =
            (done.first_mut().unwrap_or(&mut none), 0, true);
        let mut bit = ones(at).wrapping_add(1);
        for (frame, entry) in rest.iter().zip(entries) {
            if twins & bit == 0
                && let Some(line) = shapes.line(frame.head(), frame.len(), depth)
            {
                let len = frame.len() as u64;
                known |= bit;
                if first == 0 || !are_same(&line, &before.line) {
                    first |= bit;
                    *entry = Entry { line, hash: self.index.hash(&line), bytes: len };
                    before = entry;
                } else {
                    before.bytes += len;
                    if has_twins {
                        // Where two are alike, those that follow often are, too.
                        let rest = frames.get(bit.trailing_zeros() as usize..);
                        let last = self.lasts.get_mut(self.place);
                        let count = follow(last, shapes, rest, depth, before);
                        has_twins = count > 0;
                        twins = ones(count).wrapping_mul(bit) << 1;
                        known |= twins;
                        if has_twins {
                            last_of = first.ilog2();
                        }
                    }
                }
            }
            bit <<= 1;
        }
        (self.known, self.first, self.left, self.last_of) = (known, first, first, last_of);
    }

    /// Asks for the memory that look-ups are going to need.
    fn fetch(&self) {
        let entries =
            || self.entries.iter().enumerate().filter(|(at, _)| self.first & 1 << at != 0);
        entries().for_each(|(_, entry)| self.index.fetch_tags(entry.hash));
        entries().for_each(|(_, entry)| self.index.fetch_values(entry.hash));
    }

    /// The number of the path of the frames at the front, if it is known without a look-up and `stands`.
    #[inline(never)]
    pub(super) fn front(&self, stands: impl Fn(u32) -> bool) -> Option<u32> {
        Some(self.front).filter(|path| *path != NO_PATH && stands(*path))
    }

    /// The first of the next frames that are alike, all of them, and their bytes.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<(usize, u32, u64)> {
        let at = self.left.trailing_zeros() as usize;
        let bytes = self.entries.get(at)?.bytes;
        self.left &= self.left - 1;
        let below = |bits: u32| (bits & bits.wrapping_neg()).wrapping_sub(1);
        let mask = self.known & below(self.left) & u32::MAX << at;
        Some((at, mask, bytes))
    }

    /// The frames with this one have a path of this number, which more that are alike may have.
    #[inline(always)]
    pub(super) fn note(&mut self, number: usize, id: u32) {
        if number == self.last_of as usize {
            self.note_last(id);
        }
    }

    #[inline(never)]
    fn note_last(&mut self, id: u32) {
        if let Some(Some(last)) = self.lasts.get_mut(self.place) {
            last.path = id;
        }
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

/// How many frames behind the first of these are like it, as far as is easily seen: they are of this entry,
/// and if there are any, that is remembered.
#[inline(never)]
fn follow(
    last: Option<&mut Option<Last>>,
    shapes: &Shapes,
    frames: Option<&[Frame<'_>]>,
    depth: Depth,
    entry: &mut Entry,
) -> usize {
    let Some((first, rest)) = frames.and_then(<[_]>::split_first) else { return 0 };
    let Some(twin) = shapes.twin(first, depth) else { return 0 };
    let count = twin.count(Burst::new(rest), shapes);
    if count > 0 {
        entry.bytes += twin.len() as u64 * count as u64;
        if let Some(last) = last {
            *last = Some(Last { twin, entry: *entry, path: NO_PATH });
        }
    }
    count
}

/// Where it is remembered what came in last at a port.
#[inline(always)]
fn place(shapes: &Shapes) -> usize {
    shapes.port() as usize % PORTS
}

/// The first bits of a burst, so many.
#[inline(always)]
fn ones(count: usize) -> u32 {
    let ones = u32::try_from(count).ok().and_then(|count| 1_u32.checked_shl(count));
    ones.unwrap_or(0).wrapping_sub(1)
}

#[cfg(test)]
mod tests;
