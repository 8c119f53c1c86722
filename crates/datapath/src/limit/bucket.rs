//! Token buckets: so many tokens per second, and as many at once as the bucket holds.
//!
//! The workers that share a bucket take tokens from it for a whole burst of frames at a time, and
//! some in advance, their [share](Share). What is taken in advance has no place in the bucket, so
//! that at no time more than the size of the bucket can be spent at once, however many workers
//! there are. A bucket of one worker has no shares, and nothing atomic is done to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The part of a bucket that all shares in it have together, as one of so many.
const SHARES: u64 = 8;

/// How far the time of one worker is behind another's at most, in tokens.
const PAST: u64 = 1 << 40;

/// What a bucket is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Tokens per so many cycles of the clock.
    pub(crate) tokens: u64,
    pub(crate) cycles: u64,
    /// Tokens that can be spent at once.
    pub(crate) burst: u64,
    /// The most tokens that are ever asked for together: however tokens are shared out, so many
    /// must come together again.
    pub(crate) largest: u64,
}

/// A bucket, which starts full.
#[derive(Debug)]
#[repr(align(128))]
struct Bucket {
    size: Size,
    /// What it holds at most: all that is not in shares.
    room: u64,
    /// The time at which it began to fill, in cycles.
    start: AtomicU64,
    is_shared: bool,
    /// Tokens that were taken, or found no room, since then.
    gone: AtomicU64,
}

impl Bucket {
    /// Tokens that have come until `now`, those that it started with included. It wraps around,
    /// as `gone` does: for the fastest bucket after four years without a frame.
    fn come(&self, now: u64) -> u64 {
        let cycles = u128::from(now.saturating_sub(self.start.load(Relaxed)));
        let come = cycles.saturating_mul(self.size.tokens.into()) / u128::from(self.size.cycles);
        #[allow(clippy::cast_possible_truncation, reason = "it wraps around")]
        let come = come as u64;
        come.wrapping_add(self.room)
    }

    /// Takes `wanted` tokens, or as many as there are.
    fn take(&self, wanted: u64, now: u64) -> u64 {
        let come = self.come(now);
        let mut gone = self.gone.load(Relaxed);
        loop {
            let there = come.wrapping_sub(gone);
            // Another worker, whose time is a little later, has taken what came meanwhile.
            let there = if there > u64::MAX - PAST { 0 } else { there.min(self.room) };
            let taken = there.min(wanted);
            if taken == 0 {
                return 0;
            }
            let next = come.wrapping_sub(there).wrapping_add(taken);
            if !self.is_shared {
                self.take_alone(there, taken, (next, now));
                return taken;
            }
            // Somebody else got on when this fails: that happens as often as there are workers.
            match self.gone.compare_exchange_weak(gone, next, Relaxed, Relaxed) {
                Ok(_) => return taken,
                Err(other) => gone = other,
            }
        }
    }

    /// Takes tokens of a bucket that is one worker's alone, which makes it so many that have gone. From a full one it
    /// fills anew: what had come of the next token had no place in it.
    fn take_alone(&self, there: u64, taken: u64, (gone, now): (u64, u64)) {
        let is_full = there == self.room;
        if is_full {
            self.start.store(now, Relaxed);
        }
        self.gone.store(if is_full { taken } else { gone }, Relaxed);
    }

    /// Gives tokens back that were taken.
    fn give(&self, tokens: u64) {
        if self.is_shared {
            self.gone.fetch_sub(tokens, Relaxed);
        } else {
            self.gone.store(self.gone.load(Relaxed).wrapping_sub(tokens), Relaxed);
        }
    }
}

/// A bucket of which workers take shares when they come to it.
#[derive(Clone, Debug)]
pub(crate) struct Well {
    bucket: Arc<Bucket>,
    /// The most that each may have in advance.
    most: u64,
}

impl Well {
    /// A full bucket of so many workers that begins to be filled now.
    pub(crate) fn new(size: Size, workers: usize, now: u64) -> Self {
        let count = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
        let is_shared = count > 1;
        let spare = size.burst.saturating_sub(size.largest);
        let most = if is_shared { spare / SHARES / count } else { 0 };
        let room = size.burst.saturating_sub(most.saturating_mul(count));
        let (start, gone) = (AtomicU64::new(now), AtomicU64::new(0));
        Self { bucket: Arc::new(Bucket { size, room, start, is_shared, gone }), most }
    }

    /// A worker's share, with nothing at hand yet.
    pub(crate) fn share(&self) -> Share {
        Share { bucket: Arc::clone(&self.bucket), tokens: 0, most: self.most }
    }
}

/// What one worker has of a bucket.
#[derive(Debug)]
pub(crate) struct Share {
    bucket: Arc<Bucket>,
    /// Tokens at hand.
    tokens: u64,
    /// The most to have in advance.
    most: u64,
}

impl Share {
    /// The shares of so many workers in a full bucket that begins to be filled now.
    pub(crate) fn of(size: Size, workers: usize, now: u64) -> Vec<Self> {
        let well = Well::new(size, workers, now);
        (0..workers).map(|_| Self { tokens: well.most, ..well.share() }).collect()
    }

    /// Whether there are so many tokens at time `now`; if there are, they are at hand now.
    #[inline]
    pub(crate) fn has(&mut self, tokens: u64, now: u64) -> bool {
        self.tokens >= tokens || self.fetch(tokens, now)
    }

    #[inline(never)]
    fn fetch(&mut self, tokens: u64, now: u64) -> bool {
        let wanted = tokens.saturating_sub(self.tokens).saturating_add(self.most);
        self.tokens = self.tokens.saturating_add(self.bucket.take(wanted, now));
        self.tokens >= tokens
    }

    /// How many tokens are at hand.
    #[inline]
    pub(crate) const fn at_hand(&self) -> u64 {
        self.tokens
    }

    /// Spends tokens that are at hand.
    #[inline]
    pub(crate) const fn spend(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    /// Gives back all that is at hand: its worker does not come again.
    pub(crate) fn leave(&mut self) {
        self.bucket.give(std::mem::take(&mut self.tokens));
    }

    /// Gives back what was fetched and is not needed, so that others can have it.
    pub(crate) fn give_back(&mut self) {
        let more = self.tokens.saturating_sub(self.most);
        if more > 0 {
            self.bucket.give(more);
            self.tokens = self.tokens.saturating_sub(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Spends as much of `wanted` as there is, in parts of `step`.
    fn spend(share: &mut Share, wanted: u64, step: u64, now: u64) -> u64 {
        let mut spent = 0;
        if !share.has(wanted, now) {
            while spent + step <= wanted && share.at_hand() >= step {
                share.spend(step);
                spent += step;
            }
            share.give_back();
            return spent;
        }
        share.spend(wanted);
        wanted
    }

    #[test]
    fn a_bucket_starts_full_and_fills_as_time_goes_by() {
        let size = Size { tokens: 10, cycles: 1_000, burst: 64, largest: 1 };
        let mut share = Share::of(size, 1, 5_000).remove(0);
        assert!(!share.has(65, 5_000) && share.has(64, 5_000));
        share.spend(64);
        share.give_back();
        assert!(!share.has(1, 5_099) && share.has(1, 5_100));
        // A clock that goes back a little brings nothing, and harms nothing.
        assert!(!share.has(2, 5_050) && share.has(2, 5_200));
        share.spend(2);
        assert!(share.has(64, u64::MAX / 2) && !share.has(65, u64::MAX / 2));
    }

    #[test]
    fn a_full_bucket_has_nothing_of_the_next_token() {
        let size = Size { tokens: 1, cycles: 1_000, burst: 2, largest: 1 };
        let mut share = Share::of(size, 1, 0).remove(0);
        // There is room for two, and it has been full for a while.
        assert!(share.has(2, 4_900));
        share.spend(2);
        assert!(!share.has(1, 5_899) && share.has(1, 5_900));
        share.spend(1);
        // What has come of one counts where there is room.
        assert!(share.has(1, 7_800));
        share.spend(1);
        assert!(!share.has(1, 7_899) && share.has(1, 7_900));
    }

    #[test]
    fn what_one_worker_has_in_advance_the_others_do_not_get() {
        let size = Size { tokens: 1, cycles: 1_000_000, burst: 1_000, largest: 100 };
        let mut shares = Share::of(size, 4, 0);
        let all: u64 = shares.iter_mut().map(|share| spend(share, 1_000, 1, 0)).sum();
        assert_eq!(all, 1_000);
        // After a pause one worker alone has at least seven eighths.
        let alone = spend(&mut shares[0], 1_000, 1, 1 << 40);
        assert!((875..=1_000).contains(&alone), "{alone}");
        // However small it is, the largest frame goes through on every worker.
        for burst in [100, 101, 130] {
            let mut shares = Share::of(Size { burst, ..size }, 4, 0);
            assert_eq!(spend(&mut shares[3], 100, 100, 0), 100, "{burst}");
        }
    }

    #[test]
    fn workers_that_take_at_the_same_time_get_no_more_than_there_is() {
        let size = Size { tokens: 1, cycles: 1_000, burst: 100_000, largest: 10 };
        let shares = Share::of(size, 4, 0);
        let spent: u64 = std::thread::scope(|scope| {
            let spend_all = |mut share: Share| {
                move || (0..50_000_u64).map(|now| spend(&mut share, 32, 3, now)).sum::<u64>()
            };
            let threads: Vec<_> =
                shares.into_iter().map(|share| scope.spawn(spend_all(share))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((100_000 - 12..=100_049).contains(&spent), "{spent}");
    }

    proptest! {
        /// Against time and arithmetic: in no interval more than a bucket and what came, and where
        /// nobody ever stops asking no less than what came.
        #[test]
        fn no_more_than_the_bucket_and_what_comes_is_ever_spent(
            tokens in 1..1_000_000_u64,
            cycles in 1..1_000_000_u64,
            burst in 100..100_000_u64,
            largest in 1..100_u64,
            workers in 1..5_usize,
            steps in prop::collection::vec(
                (0..50_000_u64, 0..5_usize, 0..5_000_u64, 1..100_u64),
                1..100,
            ),
        ) {
            let size = Size { tokens, cycles, burst, largest };
            let mut shares = Share::of(size, workers, 0);
            let mut now = 0;
            let mut log = vec![];
            for (pause, worker, wanted, step) in steps {
                now += pause;
                let spent = spend(&mut shares[worker % workers], wanted, step.min(largest), now);
                log.push((now, spent));
            }
            for (from, (start, _)) in log.iter().enumerate() {
                let mut sum = 0;
                for (end, spent) in &log[from..] {
                    sum += u128::from(*spent);
                    // What came in the interval, give or take the token that was half there.
                    let come = u128::from(end - start) * u128::from(tokens) / u128::from(cycles);
                    prop_assert!(sum <= u128::from(burst) + come + 1);
                }
            }
        }

        #[test]
        fn who_never_stops_asking_gets_all_that_comes(
            tokens in 1..100_000_u64,
            burst in 100..10_000_u64,
            workers in 1..5_usize,
            pauses in prop::collection::vec(1..50_u64, 1..200),
            step in 1..100_u64,
        ) {
            let size = Size { tokens, cycles: 1_000, burst, largest: 99 };
            let mut shares = Share::of(size, workers, 0);
            // What is too little for another step stays in the bucket, and must leave room.
            let step = step.min(burst / 4);
            let (mut now, mut spent) = (0, 0);
            let mut asked = 0;
            for pause in pauses {
                // No pause so long that the bucket is full and tokens are lost.
                now += pause.min(burst / 2 * 1_000 / tokens);
                let wanted = burst * 2 / step * step;
                asked += wanted;
                spent += spend(&mut shares[0], wanted, step, now);
            }
            let come = now * tokens / 1_000;
            prop_assert!(spent >= come.min(asked).saturating_sub(step), "{spent} of {come}");
        }
    }
}
