//! How hard pressed a queue is: how much waits in it, how often a burst was as long as can be, how
//! often a device had no room, and how much of its worker's time it took.
//!
//! The depth of a ring is known to its worker alone, and would cost each burst a store that nobody
//! looks at. So it is asked for: [`ask_depths`] raises a number that every queue compares with the
//! one that it saw last, and a queue that finds another notes its depth once.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use eal::Counter;

/// How often depths were asked for. Read by workers with each burst, and written when somebody
/// looks at figures, so that it stays in everybody's cache.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Has every queue note how much waits in it when it is polled, or sent to, the next time. Never
/// waits.
pub fn ask_depths() {
    ASKED.fetch_add(1, Relaxed);
}

/// Whether a queue is to note its depth.
#[derive(Debug)]
pub(crate) struct Asked(u32);

impl Default for Asked {
    /// One that was asked nothing.
    fn default() -> Self {
        Self(ASKED.load(Relaxed))
    }
}

impl Asked {
    /// Whether depths were asked for since this was called last.
    #[inline]
    pub(crate) fn take(&mut self) -> bool {
        let asked = ASKED.load(Relaxed);
        let is_asked = asked != self.0;
        if is_asked {
            self.0 = asked;
        }
        is_asked
    }
}

/// The counters of a queue, which its worker writes.
#[derive(Debug, Default)]
pub(crate) struct Pressed {
    pub(crate) bursts: Counter,
    pub(crate) full_bursts: Counter,
    pub(crate) stalls: Counter,
    pub(crate) cycles: Counter,
    /// One more than the depth; 0: it is not known.
    depth: Counter,
}

impl Pressed {
    /// Notes the depth, or that there is none.
    pub(crate) fn set_depth(&self, depth: Option<u32>) {
        self.depth.set(depth.map_or(0, |depth| u64::from(depth).saturating_add(1)));
    }

    /// Nothing waits, of a queue whose depth is known.
    pub(crate) fn set_empty(&self) {
        if self.depth.get() != 0 {
            self.set_depth(Some(0));
        }
    }

    pub(crate) fn snapshot(&self) -> Pressure {
        let depth = self.depth.get().checked_sub(1);
        Pressure {
            bursts: self.bursts.get(),
            full_bursts: self.full_bursts.get(),
            stalls: self.stalls.get(),
            cycles: self.cycles.get(),
            depth: depth.map(|depth| u32::try_from(depth).unwrap_or(u32::MAX)),
        }
    }
}

/// How hard pressed a queue is, at one moment. Counters only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Polls of a receive queue that found frames.
    pub bursts: u64,
    /// Those of them that found as many as a burst may have: more were waiting, or came in the
    /// meantime.
    pub full_bursts: u64,
    /// Bursts for a transmit queue of which some frames found no room: the peer's ring was full, or
    /// had no buffers. Tries again count as well.
    pub stalls: u64,
    /// Clock cycles that a worker has spent on the frames of a receive queue, where it measures
    /// that; see [`QueueStats::count_cycles`](crate::QueueStats::count_cycles).
    pub cycles: u64,
    /// Buffers in the ring that the peer has offered and nobody has taken: with frames, of a receive
    /// queue; for frames, of a transmit queue. As it was when the queue was first used after
    /// [`ask_depths`]; `None` where the driver does not tell.
    pub depth: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_notes_it_once() {
        let mut asked = Asked::default();
        ask_depths();
        assert!(asked.take());
        // Other tests may ask, too.
        let pressed = Pressed::default();
        pressed.set_empty();
        assert_eq!(pressed.snapshot().depth, None);
        pressed.set_depth(Some(7));
        assert_eq!(pressed.snapshot().depth, Some(7));
        pressed.set_empty();
        assert_eq!(pressed.snapshot().depth, Some(0));
        pressed.set_depth(None);
        assert_eq!(pressed.snapshot(), Pressure::default());
    }
}
