//! What a worker does without frames: it goes on polling for a while, then sleeps until a device
//! announces the next frame.
//!
//! Polling again and again finds a frame within nanoseconds and costs a whole core; an announcement
//! costs a system call here and a notification there, some microseconds. So a worker sleeps only
//! where there has been nothing for longer than that.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use eal::{Counter, clock};

use crate::queue::RxQueue;
use crate::sleep::{Sleeper, Slept};

/// When a worker sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleOptions {
    /// How long it goes on polling after the last frame; 100 µs unless told. `None`: for ever,
    /// for the lowest latency, at the price of a busy core.
    pub after: Option<Duration>,
}

impl Default for IdleOptions {
    fn default() -> Self {
        Self { after: Some(Duration::from_micros(100)) }
    }
}

/// How busy a worker is. It has one writer, the worker; anybody may read it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    busy_rounds: Counter,
    frames: Counter,
    busy_cycles: Counter,
    sleeps: Counter,
}

impl Load {
    /// The counters as they are now.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        LoadReport {
            busy_rounds: self.busy_rounds.get(),
            frames: self.frames.get(),
            busy_cycles: self.busy_cycles.get(),
            sleeps: self.sleeps.get(),
        }
    }
}

/// A worker's [`Load`] at one moment. Counters count since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Rounds over its queues that found frames.
    pub busy_rounds: u64,
    /// The frames.
    pub frames: u64,
    /// Clock cycles that those rounds took.
    pub busy_cycles: u64,
    /// How often it slept.
    pub sleeps: u64,
}

/// Keeps account of a worker's rounds, and puts it to sleep when they find nothing.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use eal::{WorkerContext, clock};
/// # use ethdev::{Idle, IdleOptions, RxQueue};
/// # fn work(context: WorkerContext, mut queues: Vec<RxQueue>) -> std::io::Result<()> {
/// let mut idle = Idle::new(IdleOptions::default(), context.stop_event(), Arc::default())?;
/// queues.iter().for_each(|queue| idle.watch(queue));
/// while !context.should_stop() {
///     let now = clock::now();
///     let frames = queues.iter_mut().map(|queue| queue.rx_burst(32).frames().len()).sum();
///     if idle.may_sleep(frames, now) {
///         idle.sleep(&mut queues, |queue| queue, None);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Idle {
    /// How long to poll without frames, in cycles; `u64::MAX`: for ever.
    after: u64,
    /// When the last frame came, or the last sleep ended.
    since: u64,
    /// When the current round began, and how many frames the one before found.
    round: u64,
    last_frames: usize,
    sleeper: Sleeper,
    load: Arc<Load>,
}

impl Idle {
    /// For a worker without queues, which counts its rounds in `load`. `wake` ends its sleep when
    /// it becomes readable: usually
    /// [`WorkerContext::stop_event`](eal::WorkerContext::stop_event).
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn new(options: IdleOptions, wake: BorrowedFd<'_>, load: Arc<Load>) -> io::Result<Self> {
        let sleeper = Sleeper::new(wake)?;
        let now = clock::now();
        Ok(Self {
            after: options.after.map_or(u64::MAX, clock::cycles),
            since: now,
            round: now,
            last_frames: 0,
            sleeper,
            load,
        })
    }

    /// Lets `queue` end the sleep. If it cannot, sleeps are short: half a millisecond.
    pub fn watch(&mut self, queue: &RxQueue) {
        self.sleeper.watch(queue);
    }

    /// To be called once per round over the queues: the round began at `now` and found `frames`
    /// frames. Returns whether there has been nothing for so long that the worker may sleep.
    #[inline]
    pub fn may_sleep(&mut self, frames: usize, now: u64) -> bool {
        // How long a round took is known when the next one begins: one clock read for both.
        if self.last_frames > 0 {
            self.load.busy_rounds.add(1);
            self.load.frames.add(self.last_frames as u64);
            self.load.busy_cycles.add(now.wrapping_sub(self.round));
        }
        self.round = now;
        self.last_frames = frames;
        if frames > 0 {
            self.since = now;
            return false;
        }
        now.wrapping_sub(self.since) >= self.after
    }

    /// Sleeps until one of the queues of `items`, all of which must be
    /// [watched](Self::watch), has a frame, until `due` (a time of [`clock::now`]), or for a
    /// limited time. `queue` gets at the queue of an item.
    pub fn sleep<T>(
        &mut self,
        items: &mut [T],
        queue: impl FnMut(&mut T) -> &mut RxQueue,
        due: Option<u64>,
    ) {
        let slept = self.sleeper.sleep(items, queue, due);
        if slept != Slept::Not {
            self.load.sleeps.add(1);
        }
        if slept != Slept::ToTheEnd {
            self.since = clock::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use eal::EventFd;

    use super::*;

    fn idle(options: IdleOptions) -> (Idle, EventFd) {
        let stop = EventFd::new().unwrap();
        (Idle::new(options, stop.as_fd(), Arc::default()).unwrap(), stop)
    }

    #[test]
    fn a_worker_may_sleep_once_there_was_nothing_for_long_enough() {
        let (mut idle, _stop) = idle(IdleOptions::default());
        let (start, after) = (clock::now(), clock::cycles(Duration::from_micros(100)));
        assert!(!idle.may_sleep(3, start));
        assert!(!idle.may_sleep(0, start + 50));
        assert!(!idle.may_sleep(0, start + after - 1));
        assert!(idle.may_sleep(0, start + after));
        assert!(!idle.may_sleep(2, start + after + 10));
        assert!(!idle.may_sleep(0, start + after + 30));
        let load = idle.load.report();
        assert_eq!((load.busy_rounds, load.frames, load.busy_cycles), (2, 5, 50 + 20));
    }

    #[test]
    fn a_worker_that_is_told_so_never_sleeps() {
        let (mut idle, _stop) = idle(IdleOptions { after: None });
        assert!(!idle.may_sleep(0, u64::MAX - 1));
    }

    #[test]
    fn a_worker_with_waiting_frames_has_not_slept() {
        let (mut idle, _stop) = idle(IdleOptions::default());
        let event = Arc::new(EventFd::new().unwrap());
        let mut queues = [crate::sleep::tests::queue(Some(&event), true, &Arc::default())];
        idle.watch(&queues[0]);
        let before = idle.since;
        idle.sleep(&mut queues, |queue| queue, None);
        assert!(idle.since > before);
        assert_eq!(idle.load.report().sleeps, 0);
    }

    #[test]
    fn it_polls_for_a_while_when_it_was_woken_and_not_when_it_was_not() {
        let (mut idle, stop) = idle(IdleOptions { after: Some(Duration::from_secs(1000)) });
        let before = idle.since;
        idle.sleep::<RxQueue>(&mut [], |queue| queue, Some(0));
        assert_eq!(idle.since, before);
        stop.signal().unwrap();
        idle.sleep::<RxQueue>(&mut [], |queue| queue, None);
        assert!(idle.since > before);
        assert_eq!(idle.load.report().sleeps, 2);
    }
}
