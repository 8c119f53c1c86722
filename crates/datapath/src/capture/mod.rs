//! Captures: what ports receive and send, and what was dropped, for somebody who looks.
//!
//! A frame that is captured goes through the data path by itself. So the counters tell what has
//! become of it: the reason whose counter has moved is that of its drop, whatever part of the data
//! path counts it. A worker copies it, once, into memory of the capture; a reader takes that from
//! time to time. What finds no room is counted as missed: a worker never waits for a reader.
//!
//! - `room`: the memory that passes between them
//! - `tap`: a worker's part

mod room;
mod tap;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::capture::bpf::Program;
use ethdev::DropReason;
use packet::MAX_FRAME_LEN;

pub use self::room::{Captured, Note, Room, records};
pub(crate) use self::room::{Draft, append};
pub use self::tap::{Captures, Tap, TapPort};
pub(crate) use self::tap::{Handle, low};

/// The most captures that a switch can have at a time.
pub const MAX_CAPTURES: usize = 8;

/// The least and the most bytes that a worker may have for what a reader has not taken yet.
const BUFFERS: std::ops::RangeInclusive<usize> = 128 << 10..=1 << 30;

/// Which way frames go, seen from the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the port into the switch.
    In,
    /// From the switch to the port.
    Out,
}

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The ports; `None`: all, and those that come later.
    pub ports: Option<Vec<String>>,
    /// Which way; `None`: both.
    pub direction: Option<Direction>,
    /// Whether only frames are captured that are dropped.
    pub dropped: bool,
    /// The most bytes of a frame that are kept.
    pub snaplen: usize,
    /// Which frames; `None`: all.
    pub filter: Option<Arc<Program>>,
    /// Bytes that each worker has for what the reader has not taken yet.
    pub buffer: usize,
}

impl Default for Capture {
    /// Everything, with 4 MiB for each worker.
    fn default() -> Self {
        let (ports, direction, filter) = (None, None, None);
        Self { ports, direction, dropped: false, snaplen: MAX_FRAME_LEN, filter, buffer: 4 << 20 }
    }
}

impl Capture {
    /// Checks that the numbers are in range.
    ///
    /// # Errors
    /// What is not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.ports.as_ref().is_some_and(Vec::is_empty) {
            return Err("it names no port: give some, or all".to_owned());
        }
        if !(1..=MAX_FRAME_LEN).contains(&self.snaplen) {
            return Err(format!("snaplen {}: expected 1 to {MAX_FRAME_LEN}", self.snaplen));
        }
        if !BUFFERS.contains(&self.buffer) {
            let (least, most) = (BUFFERS.start(), BUFFERS.end());
            return Err(format!("buffer {}: expected {least} to {most} bytes", self.buffer));
        }
        Ok(())
    }
}

/// Counters of drops that are followed frame by frame, to tell why one was dropped.
pub(crate) struct Drops {
    total: u64,
    by_reason: [u64; DropReason::COUNT],
}

impl Drops {
    /// They are like this now.
    pub(crate) fn new(by_reason: [u64; DropReason::COUNT]) -> Self {
        Self { total: by_reason.iter().fold(0, |sum, count| sum.wrapping_add(*count)), by_reason }
    }

    /// The reason whose counter has moved since this was asked last, if one has: `total` is the sum of
    /// all, and seldom another.
    #[inline]
    pub(crate) fn moved(
        &mut self,
        total: u64,
        by_reason: impl FnOnce() -> [u64; DropReason::COUNT],
    ) -> Option<DropReason> {
        if total == self.total {
            return None;
        }
        let now = by_reason();
        let reasons = self.by_reason.iter().zip(&now).zip(DropReason::ALL);
        let mut moved = reasons.filter(|((before, after), _)| before != after);
        let moved = moved.next().map(|(_, reason)| reason);
        *self = Self { total, by_reason: now };
        moved
    }
}
