//! The writes of one ring, in the log of a guest that is being migrated.
//!
//! What is marked: every page that the device has written, and in the ring itself the pages of all
//! entries from the first to the last that it gave back, whether or not each of them was written.
//! When logging starts, all pages of the ring that the device may write are marked, since it may
//! have written them before.

use std::ptr::NonNull;
use std::sync::Arc;

use packet::RawSegment;

use crate::dirty::DirtyLog;
use crate::memory::{GuestMemory, Translator};
use crate::packed::Position;
use crate::ring::{ENTRIES_OFFSET, QueueSize};

/// Where a ring logs what it writes to the guest's memory.
#[derive(Debug)]
pub struct RingLog {
    log: Arc<DirtyLog>,
    /// The address that writes to the used ring, or the device's event structure, are logged at.
    used: Option<u64>,
    /// Guest-physical address of a packed ring's descriptors.
    desc: Option<u64>,
    /// What was given back from here on is still to be marked: in a split ring a free-running index,
    /// as the bits of a position.
    next: Position,
    /// Whether there are marks that the front-end has not been told of.
    untold: bool,
}

impl RingLog {
    /// Logs to `log`. `used` is the address that stands for the first byte of the used ring
    /// (packed: of the device's event structure) in the log; `None` leaves those writes out.
    #[must_use]
    pub const fn new(log: Arc<DirtyLog>, used: Option<u64>) -> Self {
        Self { log, used, desc: None, next: Position::FIRST, untold: false }
    }

    /// Notes where the descriptors of a packed ring lie.
    pub(super) fn set_desc(&mut self, desc: Option<u64>) {
        self.desc = desc;
    }

    /// Has writes to the used ring, or to the device's event structure, at I/O virtual address
    /// `used` logged where they take place, if `memory` is behind a virtual IOMMU: what the
    /// front-end said is such an address, too.
    pub(super) fn translate_used(&mut self, memory: &GuestMemory, used: u64) {
        if memory.is_translated() && self.used.is_some() {
            self.used = memory.ring_guest_addr(used);
        }
    }

    /// Marks pieces of `memory` that were written: from where, and how many bytes.
    pub(super) fn mark_pieces(
        &mut self,
        memory: &Translator,
        pieces: impl Iterator<Item = (NonNull<u8>, usize)>,
    ) {
        let mut marks = self.log.after_writes();
        for (start, len) in pieces {
            match memory.guest_addr(start) {
                Some(addr) => marks.mark(addr, len as u64),
                None => self.log.miss(),
            }
        }
        self.untold |= marks.keep_quiet();
    }

    /// Marks `len` bytes at `offset` of the used ring, or of the device's event structure.
    pub(super) fn mark_used(&mut self, offset: usize, len: usize) {
        self.mark_part(self.used, offset, len);
    }

    /// Marks what the device wrote there to say whether it wants notifications; tells the
    /// front-end, since no burst may follow.
    pub(super) fn mark_wish(&mut self, offset: usize, len: usize) {
        self.mark_used(offset, len);
        self.tell();
    }

    /// Notes where in the used ring marking is to go on, a free-running index.
    pub(super) fn set_next(&mut self, next: u16) {
        self.next = Position::from_bits(next);
    }

    /// Marks the elements of a used ring up to before free-running index `next`, and its index.
    pub(super) fn mark_elements(&mut self, size: QueueSize, next: u16) {
        let from = self.next.bits();
        self.set_next(next);
        let (start, count) = (size.position(from), usize::from(next.wrapping_sub(from)));
        for (first, count) in spans(start, count, size.get()) {
            self.mark_used(ENTRIES_OFFSET + 8 * first, 8 * count);
        }
        self.mark_used(0, ENTRIES_OFFSET);
    }

    /// Marks all descriptors of a packed ring of `size`, and notes where marking is to go on.
    pub(super) fn mark_all_descriptors(&mut self, size: u16, next: Position) {
        self.next = next;
        self.mark_part(self.desc, 0, 16 * usize::from(size));
    }

    /// Marks the descriptors of a packed ring of `size` up to before `next`.
    pub(super) fn mark_descriptors(&mut self, size: u16, next: Position) {
        let from = std::mem::replace(&mut self.next, next);
        let round = if from.wrap == next.wrap { 0 } else { size };
        let count = next.index.wrapping_add(round).wrapping_sub(from.index);
        for (first, count) in spans(from.index.into(), count.into(), size) {
            self.mark_part(self.desc, 16 * first, 16 * count);
        }
    }

    fn mark_part(&mut self, part: Option<u64>, offset: usize, len: usize) {
        let Some(part) = part else { return };
        let mut marks = self.log.after_writes();
        marks.mark(part.saturating_add(offset as u64), len as u64);
        self.untold |= marks.keep_quiet();
    }

    /// Tells the front-end of new marks: once per burst.
    pub(super) fn tell(&mut self) {
        if std::mem::take(&mut self.untold) {
            self.log.signal();
        }
    }
}

/// A ring's log, while there is one.
#[derive(Debug, Default)]
pub(super) struct LogSlot(Option<Box<RingLog>>);

impl LogSlot {
    pub(super) fn new(log: Option<RingLog>) -> Self {
        Self(log.map(Box::new))
    }

    #[inline]
    pub(super) const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Does `mark` if there is a log: a test and a branch where there is none.
    #[inline]
    pub(super) fn with(&mut self, mark: impl FnOnce(&mut RingLog)) {
        if let Some(log) = &mut self.0 {
            apart(move || mark(log));
        }
    }
}

/// Keeps code out of where it is called from.
#[cold]
#[inline(never)]
fn apart(code: impl FnOnce()) {
    code();
}

/// `count` entries of a ring of `size` from `start` on, as spans that do not pass the ring's end:
/// each with its first entry and its number of entries.
fn spans(start: usize, count: usize, size: u16) -> [(usize, usize); 2] {
    let size = usize::from(size);
    let now = count.min(size.saturating_sub(start));
    [(start, now), (0, (count - now).min(size))]
}

/// The first `len` bytes of `segments`, piece by piece.
pub(super) fn front(
    segments: &[RawSegment],
    len: usize,
) -> impl Iterator<Item = (NonNull<u8>, usize)> + '_ {
    segments.iter().scan(len, |left, segment| {
        let now = segment.len().min(*left);
        *left -= now;
        (now > 0).then(|| (segment.as_ptr(), now))
    })
}
