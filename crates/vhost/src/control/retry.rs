//! When to connect again to a front-end that listens.

use std::time::{Duration, Instant};

/// Pause between attempts at first. An attempt takes some ten microseconds.
const FIRST: Duration = Duration::from_millis(20);

/// How long pauses stay at that: a VMM that has lost its back-end listens again when its main loop
/// comes round to it, which takes a while on a busy machine, and may hang up once more before.
const EAGER: Duration = Duration::from_secs(2);

/// Longest pause, to which they double from then on.
const LAST: Duration = Duration::from_secs(1);

/// A connection that lasted as long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// When to connect next, and how long to wait after that.
#[derive(Debug)]
pub(super) struct Retry {
    next: Option<Instant>,
    pause: Duration,
    /// Until then, pauses do not grow.
    eager: Instant,
}

impl Retry {
    /// The first attempt is now.
    pub(super) fn new(now: Instant) -> Self {
        Self { next: Some(now), pause: FIRST, eager: now + EAGER }
    }

    /// When to connect, unless there is a connection.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// There is a connection.
    pub(super) const fn connected(&mut self) {
        self.next = None;
    }

    /// An attempt was in vain.
    pub(super) fn failed(&mut self, now: Instant) {
        self.next = Some(now + self.pause);
        if now >= self.eager {
            self.pause = (self.pause * 2).min(LAST);
        }
    }

    /// The connection of `since` has ended. A peer that accepts and hangs up at once, again and
    /// again, is not hammered.
    pub(super) fn ended(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= GOOD {
            *self = Self::new(now);
        }
        self.failed(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses until the last one.
    fn pauses(
        retry: &mut Retry,
        mut now: Instant,
        mut fail: impl FnMut(&mut Retry, Instant),
    ) -> Vec<Duration> {
        let mut pauses = Vec::new();
        while pauses.last() != Some(&LAST) {
            fail(retry, now);
            let next = retry.next().unwrap();
            pauses.push(next - now);
            now = next;
        }
        pauses
    }

    #[test]
    fn attempts_are_close_at_first_and_rare_in_the_end() {
        let now = Instant::now();
        let mut retry = Retry::new(now);
        assert_eq!(retry.next(), Some(now));
        let pauses = pauses(&mut retry, now, Retry::failed);
        let eager = pauses.iter().take_while(|pause| **pause == FIRST);
        let eager: Duration = eager.sum();
        assert!((EAGER..EAGER + 2 * FIRST).contains(&eager), "{eager:?}");
        assert!(pauses.windows(2).all(|two| two[0] <= two[1] && two[1] <= 2 * two[0]));
    }

    #[test]
    fn only_a_connection_that_lasted_makes_it_eager_again() {
        let now = Instant::now();
        let mut retry = Retry::new(now);
        retry.connected();
        assert_eq!(retry.next(), None);
        // Each connection ends at once.
        let hang_ups = pauses(&mut retry, now, |retry, now| retry.ended(now, now));
        assert!(hang_ups.len() < 110, "{}", hang_ups.len());
        let later = now + Duration::from_secs(60);
        retry.ended(later, later);
        assert_eq!(retry.next(), Some(later + LAST));
        retry.ended(later - GOOD, later);
        assert_eq!(retry.next(), Some(later + FIRST));
    }
}
