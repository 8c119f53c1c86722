//! The memory that passes between a worker and the reader of its samples.
//!
//! There are two halves. The reader takes one at a time, and puts an empty one in its place; the worker writes into
//! one that the reader does not have. Neither waits for the other.

use eal::{Counter, Handover};
use packet::Frame;

use super::MAX_SAMPLE;

/// Samples of which a half has room: what a worker takes at most between two looks of the reader is twice that.
const HALF: usize = 512;

/// Where a frame has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Onward {
    /// Out on how many ports.
    pub count: u32,
    /// The number of the first one.
    pub port: u16,
    /// The outer tag that it had there, as it is in the frame; 0 where there was none.
    pub tci: u16,
}

/// The number of the port where a frame came in, and how many of its first bytes are nothing of the packet.
pub type Origin = (u16, usize);

/// A frame that was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The number of the port where it came in.
    pub port: u16,
    /// How many frames it stands for.
    pub stands_for: u32,
    /// How many bytes it has.
    pub len: u32,
    /// Where it has gone.
    pub onward: Onward,
    /// The number of the port where it goes out, of one as it goes out there.
    pub out: Option<u16>,
    /// What a rule says of it that has it be sampled.
    pub rule: Option<flow::Sample>,
    kept: u16,
    bytes: [u8; MAX_SAMPLE],
}

impl Sample {
    /// One of a frame that came from there, of which so many bytes are kept.
    pub(super) fn new((port, place): Origin, frame: &Frame<'_>, bytes: usize) -> Self {
        let mut sample = Self {
            port,
            stands_for: 1,
            len: u32::try_from(frame.len().saturating_sub(place)).unwrap_or(u32::MAX),
            onward: Onward::default(),
            out: None,
            rule: None,
            kept: 0,
            bytes: [0; MAX_SAMPLE],
        };
        let place = sample.bytes.get_mut(..bytes.min(MAX_SAMPLE)).unwrap_or_default();
        let kept = frame.copy_to(place);
        sample.kept = u16::try_from(kept).unwrap_or(0);
        sample
    }

    /// The same with what is known of it later, and so many bytes at most.
    pub(super) fn told(&self, stands_for: u32, onward: Onward, bytes: usize) -> Self {
        let kept = self.kept.min(u16::try_from(bytes).unwrap_or(u16::MAX));
        Self { stands_for, onward, kept, ..*self }
    }

    /// Its first bytes, as it came in.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.kept)).unwrap_or_default()
    }
}

/// What was sampled and is not told, since there was no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleLoss {
    /// Samples.
    pub samples: u64,
    /// Frames for which these stood.
    pub frames: u64,
}

impl SampleLoss {
    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            samples: self.samples.saturating_add(other.samples),
            frames: self.frames.saturating_add(other.frames),
        }
    }
}

/// What one worker hands over.
#[derive(Debug)]
pub struct Room {
    halves: [Handover<Vec<Sample>>; 2],
    /// Samples that found no room, and frames for which they stood.
    lost: [Counter; 2],
}

impl Default for Room {
    /// One without samples.
    fn default() -> Self {
        let halves = [(); 2].map(|()| Handover::new(Some(Vec::with_capacity(HALF))));
        Self { halves, lost: Default::default() }
    }
}

impl Room {
    /// For the worker: hands a sample over, if there is room for it. Neither waits nor allocates.
    pub(super) fn put(&self, sample: &Sample) {
        let is_kept = self.halves.iter().any(|half| {
            let mut guard = half.try_lock();
            let half = guard.as_mut().and_then(|guard| guard.as_mut());
            half.is_some_and(|half| {
                let has_room = half.len() < half.capacity().min(HALF);
                if has_room {
                    half.push(*sample);
                }
                has_room
            })
        });
        if !is_kept {
            self.lose(1, sample.stands_for);
        }
    }

    /// What found no room.
    pub fn lost(&self) -> SampleLoss {
        let [samples, frames] = self.lost.each_ref().map(Counter::get);
        SampleLoss { samples, frames }
    }

    /// For the worker: so many samples, each for so many frames, could not be taken.
    pub(super) fn lose(&self, count: u32, stands_for: u32) {
        let [samples, frames] = &self.lost;
        samples.add(count.into());
        frames.add(u64::from(count).saturating_mul(stands_for.into()));
    }

    /// For the reader: takes what there is in exchange for memory of `spare`, where it is left.
    pub fn take(&self, spare: &mut Vec<Sample>, mut taken: impl FnMut(&Sample)) {
        for half in &self.halves {
            spare.clear();
            // Made before the lock is taken.
            spare.reserve(HALF);
            if let Some(half) = half.lock().as_mut() {
                std::mem::swap(half, spare);
            }
            spare.iter().for_each(&mut taken);
        }
    }
}
