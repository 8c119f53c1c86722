//! The dates of frames, whose times are counts of clock cycles.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eal::clock;

/// For how long the cycle counter is trusted to go as it did before.
const RESET: Duration = Duration::from_secs(1);

/// The date of a count of clock cycles.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    cycles: u64,
    /// Nanoseconds since 1970.
    time: u64,
}

impl Calendar {
    /// What it is now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { cycles: clock::now(), time: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Looks at the date again after a while.
    pub fn keep(&mut self) {
        if clock::duration(clock::now().saturating_sub(self.cycles)) >= RESET {
            *self = Self::now();
        }
    }

    /// The date at `cycles`, in nanoseconds since 1970.
    #[must_use]
    pub fn time(&self, cycles: u64) -> u64 {
        let nanoseconds =
            |cycles| u64::try_from(clock::duration(cycles).as_nanos()).unwrap_or(u64::MAX);
        match cycles.checked_sub(self.cycles) {
            Some(later) => self.time.saturating_add(nanoseconds(later)),
            None => self.time.saturating_sub(nanoseconds(self.cycles.saturating_sub(cycles))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_in_both_directions() {
        let calendar = Calendar { cycles: clock::cycles(RESET), time: 5_000_000_000 };
        let near = |found: u64, expected: u64| assert!(found.abs_diff(expected) < 1_000, "{found}");
        near(calendar.time(calendar.cycles), 5_000_000_000);
        near(calendar.time(calendar.cycles * 2), 6_000_000_000);
        near(calendar.time(0), 4_000_000_000);
    }
}
