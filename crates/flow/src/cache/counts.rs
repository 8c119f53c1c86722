//! How often paths were looked up.

use super::{CacheStats, PathCache};

/// How often paths were looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// For which an entry was found.
    pub hits: u64,
    /// For which a packet went through the tables.
    pub misses: u64,
    /// Of both, for packets that had been looked up before: on another bridge, or until they were tracked.
    pub again: u64,
}

impl PathCounts {
    /// The sum of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits.wrapping_add(other.hits),
            misses: self.misses.wrapping_add(other.misses),
            again: self.again.wrapping_add(other.again),
        }
    }

    /// What has come since there were those of `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits.wrapping_sub(before.hits),
            misses: self.misses.wrapping_sub(before.misses),
            again: self.again.wrapping_sub(before.again),
        }
    }
}

impl PathCache {
    /// Packets come in that had been looked up on another bridge before.
    pub const fn note_again(&mut self, packets: usize) {
        self.again = self.again.wrapping_add(packets as u64);
    }

    /// How often paths were looked up since this was asked last.
    pub fn take_look_ups(&mut self) -> PathCounts {
        let CacheStats { hits, misses, .. } = self.stats();
        let all = PathCounts { hits, misses, again: self.again };
        all.since(std::mem::replace(&mut self.taken, all))
    }
}
