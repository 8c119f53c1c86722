//! Samples: of so many frames that come in on the ports of a bridge one, with its first bytes and where it goes,
//! for somebody who estimates by them what all of them are.
//!
//! How many frames pass until the next one is drawn once for each sample: 1 to twice the rate less one, all
//! alike, so that traffic with a rhythm of its own is not seen falsely. A worker counts that down by bursts; a
//! frame that is sampled goes by itself, so that it is known where it goes. Samples are copied into memory that
//! the worker has for that, and what finds no room there is counted as lost: a worker never waits for a reader.
//!
//! - `room`: the memory that passes between them
//! - `sampler`: a worker's part

mod room;
mod sampler;
#[cfg(test)]
mod tests;

pub use self::room::{Onward, Origin, Room, Sample, SampleLoss};
pub(crate) use self::sampler::Draft;
pub use self::sampler::{MAX_SAMPLERS, MAX_SETS, Sampler, Samplers, Seen, SetSampler};

/// The most samplings that a switch can have at a time.
pub const MAX_SAMPLINGS: usize = 256;

/// The most bytes of a frame that are sampled.
pub const MAX_SAMPLE: usize = 256;

/// What is to be sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// The bridge of the ports where frames come in. It need not be there yet.
    pub bridge: String,
    /// Which of them.
    pub what: Sampled,
    /// The most bytes of a frame that are kept, [`MAX_SAMPLE`] at most.
    pub bytes: usize,
}

/// Which frames are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// Those that come in, and of these one in so many.
    Frames {
        /// Of how many there is one sample.
        rate: u32,
        /// Where samples are taken of it.
        sides: Sides,
    },
    /// Those of which rules of the bridge say that they are for the collectors of this number.
    Set(u32),
}

/// Where samples are taken of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Where it comes in: one, that tells where it went.
    pub ingress: bool,
    /// Where it goes out: one for each port.
    pub egress: bool,
}

impl Sides {
    /// Where it comes in alone.
    pub const IN: Self = Self { ingress: true, egress: false };
}

impl Sampling {
    /// Checks that the numbers are in range.
    ///
    /// # Errors
    /// What is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        const MOST: u32 = u32::MAX / 2;
        if let Sampled::Frames { rate, .. } = self.what
            && !(1..=MOST).contains(&rate)
        {
            return Err(format!("one of {rate} frames: expected 1 to {MOST}"));
        }
        if !(1..=MAX_SAMPLE).contains(&self.bytes) {
            return Err(format!("{} bytes of a frame: expected 1 to {MAX_SAMPLE}", self.bytes));
        }
        Ok(())
    }
}
