//! A worker's part in samplings: which frames are sampled, and where they go.

use std::cell::Cell;
use std::sync::Arc;

use arrayvec::ArrayVec;
use packet::Frame;

use super::Sampling;
use super::room::{Onward, Room, Sample};

/// The most samplings of a bridge.
pub(super) const MAX_SAMPLERS: usize = 8;

/// A sampling of a bridge, as one worker knows it.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    rate: u32,
    bytes: usize,
    /// How many frames are still to come until the next sample, itself among them.
    left: Cell<u32>,
    /// How many that were when it was drawn.
    drawn: Cell<u32>,
    random: Cell<u64>,
    room: Arc<Room>,
}

impl Sampler {
    /// One that begins now, with a seed of its own.
    pub(super) fn new(sampling: &Sampling, room: Arc<Room>, seed: u64) -> Self {
        let Sampling { rate, bytes, .. } = *sampling;
        let sampler = Self {
            rate,
            bytes,
            left: Cell::new(1),
            drawn: Cell::new(1),
            // All but zero will do.
            random: Cell::new(seed | 1),
            room,
        };
        sampler.draw();
        sampler
    }

    /// Draws how many frames are to come until the next sample, itself among them: on average as many as
    /// the rate says.
    fn draw(&self) {
        // Marsaglia's xorshift.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        let most = u64::from(self.rate).saturating_mul(2).saturating_sub(1).max(1);
        // The upper half of a product with what is even in 32 bits is even up to the most.
        let drawn = ((x >> 32).wrapping_mul(most) >> 32).wrapping_add(1);
        let drawn = u32::try_from(drawn).unwrap_or(u32::MAX);
        self.drawn.set(drawn);
        self.left.set(drawn);
    }
}

/// All samplings of a bridge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samplers(Vec<Sampler>);

/// A sample that is about to be taken, of which it is not known yet where the frame goes.
#[derive(Debug)]
#[must_use]
pub(crate) struct Draft {
    sample: Sample,
    /// For whom it is, and how many frames it stands for there.
    due: ArrayVec<(usize, u32), MAX_SAMPLERS>,
}

impl Samplers {
    /// These, as many as a bridge can have.
    pub(super) fn new(all: impl Iterator<Item = Sampler>) -> Self {
        Self(all.take(MAX_SAMPLERS).collect())
    }

    /// Goes on with what was counted `before` of the same samplings, which are told anew with each port that
    /// comes or goes.
    pub(crate) fn go_on_from(&self, before: &Self) {
        for new in &self.0 {
            let same = before.0.iter().find(|old| Arc::ptr_eq(&old.room, &new.room));
            if let Some(Sampler { left, drawn, random, .. }) = same {
                new.left.set(left.get());
                new.drawn.set(drawn.get());
                new.random.set(random.get());
            }
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of so many frames that come, the place of the first one that is sampled, if one is: then those up to it
    /// have come, and otherwise all.
    #[inline]
    pub(crate) fn next(&self, frames: usize) -> Option<usize> {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        let nearest = self.0.iter().map(|sampler| sampler.left.get()).min()?;
        let come = nearest.min(frames);
        for sampler in &self.0 {
            sampler.left.set(sampler.left.get().saturating_sub(come));
        }
        (nearest <= frames).then(|| usize::try_from(nearest.saturating_sub(1)).unwrap_or(0))
    }

    /// Takes a sample of a frame that has come in on `port`, for all whose turn it is.
    pub(crate) fn begin(&self, port: u16, frame: &Frame<'_>) -> Draft {
        let mut due = ArrayVec::new();
        let mut bytes = 0;
        for (place, sampler) in self.0.iter().enumerate() {
            if sampler.left.get() == 0 && due.try_push((place, sampler.drawn.get())).is_ok() {
                bytes = bytes.max(sampler.bytes);
                sampler.draw();
            }
        }
        Draft { sample: Sample::new(port, frame, bytes), due }
    }

    /// Hands it over, as it is known where the frame has gone.
    pub(crate) fn end(&self, draft: &Draft, onward: Onward) {
        for (place, stands_for) in &draft.due {
            if let Some(Sampler { bytes, room, .. }) = self.0.get(*place) {
                room.put(&draft.sample.told(*stands_for, onward, *bytes));
            }
        }
    }
}

/// Where the frame at hand goes, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen(Onward);

impl Seen {
    /// It goes out on `port`, like this.
    pub(crate) fn note(&mut self, port: u16, frame: &Frame<'_>) {
        if self.0.count == 0 {
            self.0 = Onward { count: 0, port, tci: tci(frame.head()) };
        }
        self.0.count = self.0.count.saturating_add(1);
    }

    pub(crate) const fn onward(self) -> Onward {
        self.0
    }
}

/// The outer tag of a frame; 0 where it has none.
fn tci(head: &[u8]) -> u16 {
    match head.get(12..16) {
        Some([0x81, 0, high, low] | [0x88, 0xa8, high, low]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}
