//! What queues and workers did in the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use eal::time::later;
use litemap::LiteMap;
use ordered::Gather as _;
use switch::{PortReport, WorkerReport};

/// How often it is looked at.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Intervals that are remembered.
const INTERVALS: usize = 12;

/// All of them, in seconds.
pub const WINDOW: u64 = INTERVAL.as_secs() * INTERVALS as u64;

/// Clock cycles until a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sample {
    /// What workers had of them, and what of that with frames.
    workers: LiteMap<usize, (u64, u64)>,
    /// What frames of queues took.
    queues: LiteMap<(String, usize), u64>,
}

/// What a worker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worked {
    /// Clock cycles that it had.
    pub total: u64,
    /// Those with frames.
    pub busy: u64,
}

/// The last minute, since something became different.
#[derive(Debug)]
pub struct Usage {
    samples: VecDeque<Sample>,
    due: Instant,
    /// The number of changes since which this is.
    since: u64,
}

impl Usage {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { samples: VecDeque::new(), due: now, since: 0 }
    }

    /// When it is to be looked at again.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Whether it is to be looked at: it is time, or who polls what is another matter since.
    #[must_use]
    pub fn wants(&self, now: Instant, changes: u64) -> bool {
        now >= self.due || self.since != changes
    }

    /// Looks at it.
    pub fn look(
        &mut self,
        (now, changes): (Instant, u64),
        workers: &[WorkerReport],
        ports: &[PortReport],
    ) {
        if self.since != changes {
            self.samples.clear();
            self.since = changes;
        }
        let worked =
            |worker: &WorkerReport| (worker.index, (worker.total_cycles, worker.busy_cycles));
        let took = |port: &PortReport| {
            let [received, _] = &port.pressures;
            let name = port.name.clone();
            let one = |(queue, cycles)| ((name.clone(), queue), cycles);
            let all: Vec<_> =
                received.iter().map(|queue| queue.cycles).enumerate().map(one).collect();
            all
        };
        self.samples.push_front(Sample {
            workers: workers.iter().map(worked).gather(),
            queues: ports.iter().flat_map(took).gather(),
        });
        self.samples.truncate(INTERVALS + 1);
        self.due = later(now, INTERVAL);
    }

    /// The newest sample, and the one that is so many intervals older.
    fn ends(&self, intervals: usize) -> Option<(&Sample, &Sample)> {
        Some((self.samples.front()?, self.samples.get(intervals)?))
    }

    /// What a worker did between two samples, if it was the same one.
    fn between(index: usize, new: &Sample, old: &Sample) -> Option<Worked> {
        let ((total, busy), before) = (new.workers.get(&index)?, old.workers.get(&index)?);
        let total = total.checked_sub(before.0)?;
        Some(Worked { total, busy: busy.saturating_sub(before.1).min(total) })
    }

    /// What a worker did in so many intervals; nothing is known before these are over.
    #[must_use]
    pub fn worker(&self, index: usize, intervals: usize) -> Option<Worked> {
        let (new, old) = self.ends(intervals)?;
        Self::between(index, new, old).filter(|worked| worked.total > 0)
    }

    /// The clock cycles that a worker had in all that is remembered.
    #[must_use]
    pub fn total(&self, index: usize) -> Option<u64> {
        self.worker(index, INTERVALS).map(|worked| worked.total)
    }

    /// Whether a worker was busy for so many hundredths of its time at least, in every interval of all that
    /// can be remembered.
    #[must_use]
    pub fn was_busy(&self, index: usize, hundredths: u64) -> bool {
        let mut pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let is_busy = |(new, old): (&Sample, &Sample)| {
            let worked = Self::between(index, new, old);
            worked.is_some_and(|Worked { total, busy }| {
                busy.saturating_mul(100) >= total.saturating_mul(hundredths)
                    && (total > 0 || hundredths == 0)
            })
        };
        self.samples.len() > INTERVALS && pairs.all(is_busy)
    }

    /// What frames of a queue took in so many intervals, or since something became different.
    #[must_use]
    pub fn queue(&self, port: &str, queue: usize, intervals: usize) -> u64 {
        let last = intervals.min(self.samples.len().saturating_sub(1));
        let Some((new, old)) = self.ends(last) else { return 0 };
        let of = |sample: &Sample| sample.queues.get(&(port.to_owned(), queue)).copied();
        of(new).unwrap_or(0).saturating_sub(of(old).unwrap_or(0))
    }

    /// The same of all that is remembered.
    #[must_use]
    pub fn load(&self, port: &str, queue: usize) -> u64 {
        self.queue(port, queue, INTERVALS)
    }
}

/// How many intervals so many seconds are; all, if it is not so many.
#[must_use]
pub fn intervals(seconds: Option<u64>) -> usize {
    let seconds = seconds.filter(|seconds| (1..=WINDOW).contains(seconds)).unwrap_or(WINDOW);
    usize::try_from(seconds.div_ceil(INTERVAL.as_secs())).unwrap_or(INTERVALS)
}

#[cfg(test)]
mod tests {
    use flow::PathCounts;

    use super::*;

    fn worker(total_cycles: u64, busy_cycles: u64) -> WorkerReport {
        WorkerReport {
            index: 0,
            core: None,
            alive: true,
            polls: 0,
            busy_polls: 0,
            packets: 0,
            busy_cycles,
            total_cycles,
            sleeps: 0,
            sleep_cycles: 0,
            look_ups: PathCounts::default(),
            queues: Vec::new(),
        }
    }

    #[test]
    fn a_worker_is_busy_that_was_so_in_every_interval() {
        let start = Instant::now();
        let mut usage = Usage::new(start);
        let mut look = |total: u64, busy: u64| {
            usage.look((start, 0), &[worker(total, busy)], &[]);
            [0, 80, 81].map(|hundredths| usage.was_busy(0, hundredths))
        };
        for step in 0..INTERVALS as u64 {
            assert_eq!(look(100 * step, 80 * step), [false; 3]);
        }
        assert_eq!(look(1_200, 960), [true, true, false]);
        // It got nothing to do for a while, and then no time.
        assert_eq!(look(1_300, 1_039), [true, false, false]);
        assert_eq!(look(1_300, 1_039), [true, false, false]);
        assert!(!usage.was_busy(1, 0));
    }

    #[test]
    fn what_was_done_is_known_when_its_time_is_over() {
        let start = Instant::now();
        let mut usage = Usage::new(start);
        assert!(usage.wants(start, 0));
        for (step, (total, busy)) in (0..).zip([(100, 10), (300, 60), (400, 60)]) {
            usage.look((start + INTERVAL * step, 0), &[worker(total, busy)], &[]);
        }
        assert_eq!(usage.due(), start + INTERVAL * 3);
        assert_eq!(usage.worker(0, 1), Some(Worked { total: 100, busy: 0 }));
        assert_eq!(usage.worker(0, 2), Some(Worked { total: 300, busy: 50 }));
        assert_eq!((usage.worker(0, 3), usage.worker(1, 1)), (None, None));
        // A worker that came anew has had less than the one before it.
        usage.look((start, 0), &[worker(50, 5)], &[]);
        assert_eq!(usage.worker(0, 1), None);
        // Somebody else polls: nothing is known any more, and it is looked at once.
        assert!(usage.wants(start, 7) && !usage.wants(start, 0));
        usage.look((start, 7), &[worker(900, 5)], &[]);
        assert_eq!((usage.worker(0, 1), usage.queue("p1", 0, 2)), (None, 0));
    }
}
