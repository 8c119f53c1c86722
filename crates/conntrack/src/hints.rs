//! Whether a key may be in a map that is behind a lock, told without taking it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::tuple::Tuple;

/// How many counts there are: for each of the most that are expected, four.
const COUNTS: usize = 1 << 14;

/// How many keys of the map there are, by parts of their hashes. They are changed while its lock is held.
#[derive(Debug)]
pub(crate) struct Hints {
    /// Nobody outside knows whose keys are counted together.
    seed: u64,
    counts: Box<[AtomicU16]>,
}

impl Default for Hints {
    fn default() -> Self {
        let counts = (0..COUNTS).map(|_| AtomicU16::new(0)).collect();
        Self { seed: RandomState::new().hash_one(3), counts }
    }
}

impl Hints {
    fn count(&self, key: &Tuple) -> Option<&AtomicU16> {
        self.counts.get(usize::try_from(key.hash(self.seed)).unwrap_or(0) % COUNTS)
    }

    /// Whether a key may be there.
    pub(crate) fn may_have(&self, key: &Tuple) -> bool {
        self.count(key).is_some_and(|count| count.load(Relaxed) != 0)
    }

    /// A key has come.
    pub(crate) fn add(&self, key: &Tuple) {
        self.change(key, |count| count.saturating_add(1));
    }

    /// A key has gone.
    pub(crate) fn remove(&self, key: &Tuple) {
        self.change(key, |count| count.saturating_sub(1));
    }

    /// By who holds the lock, so that nobody else does it at the same time.
    fn change(&self, key: &Tuple, by: impl Fn(u16) -> u16) {
        if let Some(count) = self.count(key) {
            count.store(by(count.load(Relaxed)), Relaxed);
        }
    }
}
