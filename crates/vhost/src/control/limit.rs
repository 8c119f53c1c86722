//! What a peer can cause, held to a bearable number: log lines, files that we make for it. By the
//! system's clock, since a peer must be held to it whatever becomes of another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that may come at once.
const BURST: u32 = 10;

/// After this, one more may come.
const REFILL: Duration = Duration::from_secs(1);

/// So many of something at once, and one more after each pause from then on.
#[derive(Debug)]
pub(crate) struct Allowance {
    most: u32,
    pause: Duration,
    left: u32,
    refilled: Instant,
}

impl Allowance {
    /// `most` at once, and one more after each `pause`, which is not 0.
    pub(crate) const fn new(most: u32, pause: Duration, now: Instant) -> Self {
        Self { most, pause, left: most, refilled: now }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_millis();
        let more = passed.checked_div(self.pause.as_millis()).unwrap_or(0);
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(self.most);
            self.refilled = now;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

/// Decides which of many log lines are written: ten at once, and one per second from then on.
#[derive(Debug)]
pub(crate) struct LogLimit {
    lines: Allowance,
    suppressed: u64,
}

impl LogLimit {
    const fn new(now: Instant) -> Self {
        Self { lines: Allowance::new(BURST, REFILL, now), suppressed: 0 }
    }

    /// As [`admit`](Self::admit), now; the number, for a field of the line, only if there is one.
    pub(crate) fn admit_line(&mut self) -> Option<Option<u64>> {
        self.admit(Instant::now()).map(|suppressed| (suppressed > 0).then_some(suppressed))
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if !self.lines.take(now) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Default for LogLimit {
    /// Nothing has been written yet.
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

/// A limit that the control thread shares with the workers of a port. Clones are the same limit.
#[derive(Clone, Debug, Default)]
pub struct SharedLimit(Arc<Mutex<LogLimit>>);

impl SharedLimit {
    /// Whether a line may be written now; if so, how many were not since the last one, for a field
    /// of the line, if there were any.
    #[must_use]
    pub fn admit_line(&self) -> Option<Option<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit_line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_one_per_second() {
        let start = Instant::now();
        let mut limit = LogLimit::new(start);
        let admitted = (0..100).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit(start + Duration::from_millis(999)), None);
        assert_eq!(limit.admit(start + Duration::from_millis(1000)), Some(91));
        assert_eq!(limit.admit(start + Duration::from_millis(1500)), None);
        let later = start + Duration::from_secs(1000);
        assert_eq!((0..100).filter(|_| limit.admit(later).is_some()).count(), 10);
    }
}
