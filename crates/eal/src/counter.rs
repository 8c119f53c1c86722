//! Counters that one thread writes and any thread reads.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A 64-bit counter with a single writer.
///
/// [`add`](Self::add) is a plain load and store, not a locked read-modify-write: it costs what
/// an ordinary `+=` costs, and any number of threads may [`get`](Self::get) meanwhile. If two
/// threads add at the same time, counts are lost (nothing worse), so each worker has its own
/// counters and readers sum them.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `count`; wraps around at 2^64. For the counter's one writer only.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Sets the value. For the counter's one writer only.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The current value.
    #[must_use]
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value alone on its cache lines, so that its writers do not slow down their neighbours.
///
/// 128 bytes: two 64-byte lines, since x86 fetches lines in pairs, and one line of some Arm
/// cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(128))]
pub struct CacheAligned<T>(pub T);

impl<T> CacheAligned<T> {
    /// Aligns `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Gives the value back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for CacheAligned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for CacheAligned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_sets_and_wraps() {
        let counter = Counter::new();
        counter.add(3);
        counter.add(4);
        assert_eq!(counter.get(), 7);
        counter.set(u64::MAX);
        counter.add(2);
        assert_eq!(counter.get(), 1);
    }

    #[test]
    fn a_reader_never_sees_the_single_writer_go_back() {
        let counter = CacheAligned::new(Counter::new());
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| counter.add(1)));
            let mut last = 0;
            while last < 100_000 {
                let now = counter.get();
                assert!(now >= last);
                last = now;
            }
        });
    }

    #[test]
    fn neighbours_do_not_share_a_line() {
        let pair = [CacheAligned::new(0_u8), CacheAligned::new(0_u8)];
        let gap = (&raw const pair[1]).addr() - (&raw const pair[0]).addr();
        assert_eq!((gap, (&raw const pair[0]).addr() % 128), (128, 0));
    }
}
