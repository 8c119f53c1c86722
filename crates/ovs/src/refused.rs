//! That the database takes no news: when they are tried again, and when that is told.

use std::time::{Duration, Instant};

use eal::time::later;

/// The first wait, and the longest: each is twice as long as the one before.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));

/// What has come of the last attempt.
#[derive(Debug, Default)]
pub struct Refused(Option<Refusal>);

#[derive(Debug)]
struct Refusal {
    reason: String,
    wait: Duration,
    until: Instant,
}

impl Refused {
    /// Whether it is too early for another attempt.
    #[must_use]
    pub fn waits(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|refusal| now < refusal.until)
    }

    /// They were refused once more, for this reason. Returns the wait until the next attempt, unless
    /// that reason was told before.
    pub fn again(&mut self, reason: &str, now: Instant) -> Option<Duration> {
        let (told, wait) = match &self.0 {
            None => (false, WAITS.0),
            Some(before) => (before.reason == reason, before.wait.saturating_mul(2).min(WAITS.1)),
        };
        self.0 = Some(Refusal { reason: reason.to_owned(), wait, until: later(now, wait) });
        (!told).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_told_once_and_tried_ever_later() {
        let mut refused = Refused::default();
        let start = Instant::now();
        assert!(!refused.waits(start));
        assert_eq!(refused.again("no", start), Some(WAITS.0));
        assert!(refused.waits(start) && !refused.waits(start + WAITS.0));
        assert_eq!(refused.again("no", start), None);
        assert!(refused.waits(start + WAITS.0) && !refused.waits(start + 2 * WAITS.0));
        assert_eq!(refused.again("never", start), Some(4 * WAITS.0));
        for _ in 0..10 {
            refused.again("never", start);
        }
        assert!(!refused.waits(start + WAITS.1));
    }
}
