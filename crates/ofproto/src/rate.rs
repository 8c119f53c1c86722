//! How many packets a controller is told of.

/// A limit of packets: so many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second; not 0.
    pub per_second: u32,
    /// At once, after a time without any.
    pub burst: u32,
}

/// How a controller's connection is from the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The most packets that it is told of, of those that no rule is for, and of others.
    pub rate: Option<Rate>,
    /// Whether it is told nothing unasked until it says what it wants.
    pub is_silent: bool,
}

/// What may still be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// Thousandths of packets.
    tokens: u64,
    /// When it was last filled, in milliseconds.
    filled: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        Self { rate, tokens: u64::from(rate.burst) * 1_000, filled: 0 }
    }

    /// Whether a packet may be told at `now`, in milliseconds.
    pub fn take(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.filled).saturating_mul(self.rate.per_second.into());
        let most = u64::from(self.rate.burst) * 1_000;
        self.tokens = self.tokens.saturating_add(passed).min(most);
        self.filled = now;
        match self.tokens.checked_sub(1_000) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_at_once_and_more_at_its_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 100, burst: 5 });
        let mut told = |now: u64| (0..50).filter(|_| bucket.take(now)).count();
        assert_eq!((told(0), told(9), told(10), told(1_000_000)), (5, 0, 1, 5));
        // A clock that goes back gives nothing.
        assert_eq!((told(0), told(1_000_000)), (0, 5));
    }
}
