//! The memory that passes between a worker and the reader of a capture.
//!
//! There are two halves. The reader takes one at a time, and puts an empty one in its place; the
//! worker writes into the one that the reader does not have. Neither waits for the other.

use eal::{Counter, Handover};
use ethdev::DropReason;
use packet::Frame;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use super::Direction;

/// Bytes in front of a frame's own.
const HEADER: usize = 8 * 4;

/// In place of a reason.
const NOT_DROPPED: u8 = u8::MAX;
const VOID: u8 = u8::MAX - 1;

/// Where the reason is.
const REASON_AT: usize = 25;

/// What is known of a frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is complete.
    Complete,
    /// Its checksum is only begun: whoever receives it completes it, or knows.
    NoChecksum,
    /// It is a large segment, to be cut into frames with so many bytes of payload.
    Segment(u16),
}

impl Note {
    fn of(frame: &Frame<'_>) -> Self {
        let offload = frame.offload();
        match offload.gso_size() {
            0 if offload.needs().is_empty() => Self::Complete,
            0 => Self::NoChecksum,
            size => Self::Segment(size),
        }
    }

    /// The same for people; `None` where there is nothing to say.
    #[must_use]
    pub fn text(self) -> Option<Cow<'static, str>> {
        match self {
            Self::Complete => None,
            Self::NoChecksum => Some("checksum not filled in yet".into()),
            Self::Segment(size) => {
                Some(format!("large segment, {size} bytes each once cut").into())
            }
        }
    }

    /// As it is written: no segment has a size of 0 or 1.
    const fn code(self) -> u16 {
        match self {
            Self::Complete => 0,
            Self::NoChecksum => 1,
            Self::Segment(size) => size,
        }
    }

    const fn of_code(code: u16) -> Self {
        match code {
            0 => Self::Complete,
            1 => Self::NoChecksum,
            size => Self::Segment(size),
        }
    }
}

/// A frame that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'c> {
    /// Its port, as a place in [`CaptureReader::ports`](super::CaptureReader::ports).
    pub port: usize,
    /// When, in clock cycles.
    pub cycles: u64,
    /// Which way it went.
    pub direction: Direction,
    /// Its first bytes, as it came in, or as it goes out.
    pub bytes: &'c [u8],
    /// How many it has.
    pub len: u32,
    /// Why it was dropped, if it was.
    pub dropped: Option<DropReason>,
    /// What else is known.
    pub note: Note,
    /// How many frames of this port were missed just before.
    pub missed: u32,
}

/// What a worker writes of a frame before it knows what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'d> {
    pub(crate) port: u32,
    pub(crate) cycles: u64,
    pub(crate) direction: Direction,
    /// How often frames of the port were missed so far.
    pub(crate) missed: u32,
    pub(crate) snaplen: usize,
    /// A copy of the frame, where there is one already.
    pub(crate) copy: Option<&'d [u8]>,
}

/// Adds a frame to `records`, if there is room without more memory. Returns where it is.
pub(crate) fn append(records: &mut Vec<u8>, frame: &Frame<'_>, draft: &Draft<'_>) -> Option<usize> {
    let kept = frame.len().min(draft.snaplen);
    let size = HEADER.checked_add(kept)?;
    let at = records.len();
    let end = at.checked_add(size).filter(|end| *end <= records.capacity())?;
    let [c, d, e, f, g, h, i, j] = draft.cycles.to_le_bytes();
    let [a, b] = Note::of(frame).code().to_le_bytes();
    let header = [
        u32::try_from(size).ok()?.to_le_bytes(),
        draft.port.to_le_bytes(),
        [c, d, e, f],
        [g, h, i, j],
        u32::try_from(frame.len()).ok()?.to_le_bytes(),
        draft.missed.to_le_bytes(),
        [u8::from(draft.direction == Direction::Out), NOT_DROPPED, a, b],
        [0; 4],
    ];
    records.extend_from_slice(header.as_flattened());
    let head = frame.head();
    match draft.copy {
        Some(copy) => records.extend_from_slice(copy.get(..kept).unwrap_or(copy)),
        // Nothing is filled in that is written over anyway.
        None if kept <= head.len() => records.extend_from_slice(head.get(..kept)?),
        None => {
            records.resize(end, 0);
            let place = records.get_mut(at.saturating_add(HEADER)..).unwrap_or_default();
            frame.copy_to(place);
        }
    }
    // A frame whose bytes were not all there is filled up.
    records.resize(end, 0);
    Some(at)
}

/// Writes down why the frame at `at` was dropped.
pub(super) fn set_reason(records: &mut [u8], at: usize, reason: DropReason) {
    let place = DropReason::ALL.iter().position(|known| *known == reason);
    set(records, at, place.and_then(|place| u8::try_from(place).ok()).unwrap_or(NOT_DROPPED));
}

/// Takes the frame at `at` out.
pub(super) fn withdraw(records: &mut Vec<u8>, at: usize) {
    let is_last =
        size_at(records, at).is_some_and(|size| at.checked_add(size) == Some(records.len()));
    if is_last { records.truncate(at) } else { set(records, at, VOID) }
}

fn set(records: &mut [u8], at: usize, value: u8) {
    if let Some(place) = records.get_mut(at.saturating_add(REASON_AT)) {
        *place = value;
    }
}

fn size_at(records: &[u8], at: usize) -> Option<usize> {
    let size = records.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    usize::try_from(size).ok().filter(|size| *size >= HEADER)
}

/// The frames in `records`, each with the number of frames that its port had missed by then.
pub fn records(records: &[u8]) -> impl Iterator<Item = Captured<'_>> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        loop {
            let size = size_at(records, at)?;
            let record = records.get(at..)?.get(..size)?;
            at = at.checked_add(size)?;
            if record.get(REASON_AT) != Some(&VOID) {
                return parse(record);
            }
        }
    })
}

fn parse(record: &[u8]) -> Option<Captured<'_>> {
    let (header, bytes) = record.split_first_chunk::<HEADER>()?;
    let u32_at = |at: usize| {
        let chunk = header.get(at..).and_then(|rest| rest.first_chunk());
        chunk.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let [.., direction, reason, low, high, _, _, _, _] = *header;
    let cycles = u64::from(u32_at(12)) << 32 | u64::from(u32_at(8));
    Some(Captured {
        port: usize::try_from(u32_at(4)).ok()?,
        cycles,
        direction: if direction == 0 { Direction::In } else { Direction::Out },
        bytes,
        len: u32_at(16),
        dropped: DropReason::ALL.get(usize::from(reason)).copied(),
        note: Note::of_code(u16::from_le_bytes([low, high])),
        missed: u32_at(20),
    })
}

/// What one worker hands over.
#[derive(Debug)]
pub struct Room {
    halves: [Handover<Vec<u8>>; 2],
    half: usize,
    /// Frames that found no room, by port.
    missed: Mutex<Vec<Arc<Counter>>>,
}

impl Room {
    /// One of so many bytes.
    pub fn new(size: usize) -> Self {
        let half = size / 2;
        let halves = [(); 2].map(|()| Handover::new(Some(Vec::with_capacity(half))));
        Self { halves, half, missed: Mutex::default() }
    }

    /// Counts the frames of `port` that find no room.
    pub fn missed(&self, port: usize) -> Arc<Counter> {
        let mut all = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= port {
            all.resize_with(port.saturating_add(1), Arc::default);
        }
        all.get(port).cloned().unwrap_or_default()
    }

    /// How many there were.
    pub fn missed_of(&self, port: usize) -> u64 {
        let all = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(port).map_or(0, |counter| counter.get())
    }

    /// For the worker: hands records over, if there is room for all of them. Neither waits nor
    /// allocates.
    pub(super) fn put(&self, records: &[u8]) -> bool {
        // The reader has one of them at most.
        let Some(mut guard) = self.halves.iter().find_map(Handover::try_lock) else { return false };
        let Some(half) = guard.as_mut() else { return false };
        let fits = records.len() <= half.capacity().saturating_sub(half.len());
        if fits {
            half.extend_from_slice(records);
        }
        fits
    }

    /// For the worker: lets `write` add records, without more memory, where nobody is just reading.
    /// Returns whether it could.
    pub(crate) fn write(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(mut guard) = self.halves.iter().find_map(Handover::try_lock) else { return false };
        guard.as_mut().map(write).is_some()
    }

    /// For the reader: takes what there is, oldest first, in exchange for memory of `spare`, where
    /// it is to be put back afterwards.
    pub fn take(&self, spare: &mut Vec<Vec<u8>>, mut taken: impl FnMut(Vec<u8>)) {
        for half in &self.halves {
            // Made before the lock is taken.
            let mut empty = spare.pop().unwrap_or_else(|| Vec::with_capacity(self.half));
            if empty.capacity() < self.half {
                empty = Vec::with_capacity(self.half);
            }
            let mut guard = half.lock();
            let full = guard.as_mut().filter(|half| !half.is_empty());
            if let Some(full) = full {
                std::mem::swap(full, &mut empty);
            }
            drop(guard);
            if empty.is_empty() { spare.push(empty) } else { taken(empty) }
        }
    }
}
