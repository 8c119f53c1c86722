//! A worker's part in samplings: which frames are sampled, and where they go.

use std::cell::Cell;
use std::sync::Arc;

use arrayvec::ArrayVec;
use packet::Frame;

use super::Sides;
use super::room::{Onward, Origin, Room, Sample};

/// The most samplings of what comes in on a bridge.
pub const MAX_SAMPLERS: usize = 8;

/// The most samplings of a bridge of what its rules say.
pub const MAX_SETS: usize = 64;

/// The most ports of which it is sampled how a frame goes out there.
const MAX_OUT: usize = 64;

/// A sampling of a bridge, as one worker knows it.
#[derive(Clone, Debug)]
pub struct Sampler {
    rate: u32,
    sides: Sides,
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
    pub fn new((rate, sides): (u32, Sides), bytes: usize, room: Arc<Room>, seed: u64) -> Self {
        let sampler = Self {
            rate,
            sides,
            bytes,
            left: Cell::new(1),
            drawn: Cell::new(1),
            random: seeded(seed),
            room,
        };
        sampler.draw();
        sampler
    }

    /// Draws how many frames are to come until the next sample, itself among them: on average as many as
    /// the rate says.
    fn draw(&self) {
        let most = self.rate.saturating_mul(2).saturating_sub(1).max(1);
        let drawn = below(&self.random, most).saturating_add(1);
        self.drawn.set(drawn);
        self.left.set(drawn);
    }
}

/// Where random numbers begin.
const fn seeded(seed: u64) -> Cell<u64> {
    // All but zero will do.
    Cell::new(seed | 1)
}

/// A random number below `most`.
fn below(random: &Cell<u64>, most: u32) -> u32 {
    // Marsaglia's xorshift.
    let mut x = random.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    random.set(x);
    // The upper half of a product with what is even in 32 bits is even up to the most.
    u32::try_from((x >> 32).wrapping_mul(most.into()) >> 32).unwrap_or(0)
}

/// A sampling of what rules say, as one worker knows it.
#[derive(Clone, Debug)]
pub struct SetSampler {
    set: u32,
    bytes: usize,
    random: Cell<u64>,
    room: Arc<Room>,
}

impl SetSampler {
    /// Of the collectors of this number.
    pub const fn new(set: u32, bytes: usize, room: Arc<Room>, seed: u64) -> Self {
        Self { set, bytes, random: seeded(seed), room }
    }

    /// Takes samples of some of the frames that have come from there.
    fn take(&self, rule: &flow::Sample, frames: &[Frame<'_>], from: Origin, onward: Onward) {
        let stands_for = u32::from(u16::MAX / rule.probability.max(1));
        for frame in frames {
            if below(&self.random, u16::MAX.into()) < rule.probability.into() {
                let sample = Sample::new(from, frame, self.bytes);
                let mut sample = sample.told(stands_for, onward, self.bytes);
                sample.rule = Some(*rule);
                self.room.put(&sample);
            }
        }
    }
}

/// All samplings of a bridge.
#[derive(Clone, Debug, Default)]
pub struct Samplers {
    /// Of what comes in.
    all: Vec<Sampler>,
    /// Of what rules say.
    sets: Vec<SetSampler>,
}

/// A sample that is about to be taken, of which it is not known yet where the frame goes.
#[derive(Debug)]
#[must_use]
pub struct Draft {
    sample: Sample,
    /// For whom it is, and how many frames it stands for there.
    due: ArrayVec<(usize, u32), MAX_SAMPLERS>,
    /// How many bytes are wanted of it where it goes out.
    out: usize,
}

impl Samplers {
    /// These, as many as a bridge can have.
    pub fn new(all: impl Iterator<Item = Sampler>) -> Self {
        Self { all: all.take(MAX_SAMPLERS).collect(), sets: Vec::new() }
    }

    /// The same with these of what rules say.
    pub fn with_sets(self, sets: impl Iterator<Item = SetSampler>) -> Self {
        Self { sets: sets.take(MAX_SETS).collect(), ..self }
    }

    /// Goes on with what was counted `before` of the same samplings, which are told anew with each port that
    /// comes or goes.
    pub(crate) fn go_on_from(&self, before: &Self) {
        for new in &self.all {
            let same = before.all.iter().find(|old| Arc::ptr_eq(&old.room, &new.room));
            if let Some(Sampler { left, drawn, random, .. }) = same {
                new.left.set(left.get());
                new.drawn.set(drawn.get());
                new.random.set(random.get());
            }
        }
    }

    /// Whether nothing is sampled.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty() && self.sets.is_empty()
    }

    /// Whether any is of what comes in.
    pub(crate) const fn has_any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Of so many frames that come, the place of the first one that is sampled, if one is: then those up to it
    /// have come, and otherwise all.
    #[inline]
    pub fn next(&self, frames: usize) -> Option<usize> {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        let nearest = self.all.iter().map(|sampler| sampler.left.get()).min()?;
        let come = nearest.min(frames);
        for sampler in &self.all {
            sampler.left.set(sampler.left.get().saturating_sub(come));
        }
        (nearest <= frames).then(|| usize::try_from(nearest.saturating_sub(1)).unwrap_or(0))
    }

    /// Takes a sample of a frame that has come from there, for all whose turn it is.
    pub fn begin(&self, from: Origin, frame: &Frame<'_>) -> Draft {
        let mut due = ArrayVec::new();
        let (mut bytes, mut out) = (0, 0);
        for (place, sampler) in self.all.iter().enumerate() {
            if sampler.left.get() == 0 && due.try_push((place, sampler.drawn.get())).is_ok() {
                bytes = bytes.max(sampler.bytes);
                out = out.max(if sampler.sides.egress { sampler.bytes } else { 0 });
                sampler.draw();
            }
        }
        Draft { sample: Sample::new(from, frame, bytes), due, out }
    }

    /// Hands it over, as it is known where the frame has gone.
    pub fn end(&self, draft: &Draft, seen: &Seen) {
        for (place, stands_for) in &draft.due {
            let Some(Sampler { sides, bytes, room, .. }) = self.all.get(*place) else { continue };
            if sides.ingress {
                room.put(&draft.sample.told(*stands_for, seen.onward, *bytes));
            }
            if sides.egress {
                for out in &seen.out {
                    let mut out = out.told(*stands_for, out.onward, *bytes);
                    out.port = draft.sample.port;
                    room.put(&out);
                }
                let count = u32::try_from(seen.out.len()).unwrap_or(u32::MAX);
                room.lose(seen.onward.count.saturating_sub(count), *stands_for);
            }
        }
    }

    /// Takes samples of frames that have come in on `port`, as a rule says; those of which nobody wants to know are
    /// not looked at.
    pub(crate) fn take(&self, rule: &flow::Sample, frames: &[Frame<'_>], from: Origin, lost: bool) {
        // Where they go is not known yet, but whether they do.
        let onward = Onward { count: u32::from(!lost), ..Onward::default() };
        if let Some(sampler) = self.sets.iter().find(|sampler| sampler.set == rule.set) {
            sampler.take(rule, frames, from, onward);
        }
    }
}

impl Draft {
    /// How many bytes are wanted of the frame where it goes out; 0: it is not sampled there.
    pub(crate) const fn bytes_out(&self) -> usize {
        self.out
    }
}

/// Where the frame at hand goes, as far as that is known.
#[derive(Debug, Default)]
pub struct Seen {
    pub(super) onward: Onward,
    /// How many bytes are kept of it where it goes out.
    bytes: usize,
    /// What it is like there, if they are any.
    out: Vec<Sample>,
}

impl Seen {
    /// Nothing yet; so many bytes are kept of the frame where it goes out, in the memory of another one.
    pub(crate) fn new(bytes: usize, memory: Self) -> Self {
        let mut out = memory.out;
        out.clear();
        out.reserve(if bytes == 0 { 0 } else { MAX_OUT });
        Self { onward: Onward::default(), bytes, out }
    }

    /// It goes out on `port`, like this.
    pub(crate) fn note(&mut self, port: u16, frame: &Frame<'_>) {
        let tci = tci(frame.head());
        if self.onward.count == 0 {
            self.onward = Onward { count: 0, port, tci };
        }
        self.onward.count = self.onward.count.saturating_add(1);
        if self.bytes > 0 && self.out.len() < MAX_OUT {
            let mut sample = Sample::new((port, 0), frame, self.bytes);
            sample.out = Some(port);
            sample.onward = Onward { count: 1, port, tci };
            self.out.push(sample);
        }
    }
}

/// The outer tag of a frame; 0 where it has none.
fn tci(head: &[u8]) -> u16 {
    match head.get(12..16) {
        Some([0x81, 0, high, low] | [0x88, 0xa8, high, low]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}
