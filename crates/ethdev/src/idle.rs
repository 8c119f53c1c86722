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

use eal::event::{Events, Interest};
use eal::{Counter, Epoll, clock};

use crate::queue::RxQueue;

/// How long a worker sleeps at most if all its queues will wake it. It need not be finite; it
/// bounds the damage should a device ever forget to.
const NAP_ARMED: Duration = Duration::from_secs(1);

/// How long a worker sleeps if it has a queue that cannot wake it.
const NAP_UNARMED: Duration = Duration::from_micros(500);

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
    epoll: Epoll,
    events: Events,
    /// Whether every queue can end the sleep.
    all_wake: bool,
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
        let epoll = Epoll::new()?;
        epoll.add(wake, 0, Interest::READ)?;
        let now = clock::now();
        Ok(Self {
            after: options.after.map_or(u64::MAX, clock::cycles),
            since: now,
            round: now,
            last_frames: 0,
            epoll,
            events: Events::new(),
            all_wake: true,
            load,
        })
    }

    /// Lets `queue` end the sleep. If it cannot, sleeps are short: half a millisecond.
    pub fn watch(&mut self, queue: &RxQueue) {
        let watched = queue.wait_fd().is_some_and(|fd| match self.epoll.add(fd, 0, Interest::READ) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a queue cannot be waited for; it is looked at all the time");
                false
            }
        });
        self.all_wake &= watched;
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
        mut queue: impl FnMut(&mut T) -> &mut RxQueue,
        due: Option<u64>,
    ) {
        // One that has frames already has to be polled instead.
        let has_frames = |item: &mut T| {
            let queue = queue(item);
            queue.wait_fd().is_some() && !queue.arm()
        };
        let busy = items.iter_mut().position(has_frames);
        if busy.is_none() {
            self.wait(due);
        }
        let armed = busy.map_or(items.len(), |index| index.saturating_add(1));
        for item in items.iter_mut().take(armed) {
            queue(item).disarm();
        }
        if busy.is_some() || !self.events.as_slice().is_empty() {
            self.since = clock::now();
        }
    }

    fn wait(&mut self, due: Option<u64>) {
        let nap = if self.all_wake { NAP_ARMED } else { NAP_UNARMED };
        let nap = due.map_or(nap, |due| nap.min(clock::duration(due.saturating_sub(clock::now()))));
        if let Err(error) = self.epoll.wait(&mut self.events, Some(nap)) {
            tracing::error!(%error, "a worker cannot sleep; it polls without pause");
            self.after = u64::MAX;
        }
        self.load.sleeps.add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Instant;

    use eal::EventFd;
    use packet::FrameBatch;

    use super::*;
    use crate::queue::RxDriver;
    use crate::stats::QueueStats;

    /// Has a frame when its event is signalled; remembers whether it is armed.
    struct Device {
        event: Option<Arc<EventFd>>,
        armed: Arc<AtomicUsize>,
        waiting: bool,
        batch: FrameBatch,
    }

    impl RxDriver for Device {
        fn receive(&mut self, _max: usize, _stats: &QueueStats) {}

        fn batch(&self) -> &FrameBatch {
            &self.batch
        }

        fn batch_mut(&mut self) -> &mut FrameBatch {
            &mut self.batch
        }

        fn release(&mut self) {}

        fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
            self.event.as_ref().map(|event| event.as_fd())
        }

        fn arm(&mut self) -> bool {
            self.armed.fetch_add(1, Relaxed);
            !self.waiting
        }

        fn disarm(&mut self) {
            self.armed.fetch_sub(1, Relaxed);
            self.event.as_ref().map(|event| event.drain());
        }
    }

    struct Bench {
        armed: Arc<AtomicUsize>,
        queues: Vec<RxQueue>,
        idle: Idle,
        stop: EventFd,
    }

    impl Bench {
        fn new(devices: &[(Option<&Arc<EventFd>>, bool)]) -> Self {
            let (armed, stop) = (Arc::<AtomicUsize>::default(), EventFd::new().unwrap());
            let queue = |(event, waiting): &(Option<&Arc<EventFd>>, bool)| {
                let (event, armed) = (event.map(Arc::clone), Arc::clone(&armed));
                let batch = FrameBatch::with_segments(0);
                let device = Device { event, armed, waiting: *waiting, batch };
                RxQueue::new(Box::new(device), Arc::default())
            };
            let queues: Vec<RxQueue> = devices.iter().map(queue).collect();
            let mut idle = Idle::new(IdleOptions::default(), stop.as_fd(), Arc::default()).unwrap();
            queues.iter().for_each(|queue| idle.watch(queue));
            Self { armed, queues, idle, stop }
        }

        /// Sleeps; returns how long.
        fn sleep(&mut self, due: Option<u64>) -> Duration {
            let start = Instant::now();
            self.idle.sleep(&mut self.queues, |queue| queue, due);
            start.elapsed()
        }
    }

    #[test]
    fn a_worker_may_sleep_once_there_was_nothing_for_long_enough() {
        let mut bench = Bench::new(&[]);
        let (start, after) = (clock::now(), clock::cycles(Duration::from_micros(100)));
        assert!(!bench.idle.may_sleep(3, start));
        assert!(!bench.idle.may_sleep(0, start + 50));
        assert!(!bench.idle.may_sleep(0, start + after - 1));
        assert!(bench.idle.may_sleep(0, start + after));
        assert!(!bench.idle.may_sleep(2, start + after + 10));
        assert!(!bench.idle.may_sleep(0, start + after + 30));
        let load = bench.idle.load.report();
        assert_eq!((load.busy_rounds, load.frames, load.busy_cycles), (2, 5, 50 + 20));

        let options = IdleOptions { after: None };
        let mut idle = Idle::new(options, bench.stop.as_fd(), Arc::default()).unwrap();
        assert!(!idle.may_sleep(0, u64::MAX - 1));
    }

    #[test]
    fn a_frame_or_a_stop_ends_the_sleep_and_no_queue_stays_armed() {
        let events = [(); 2].map(|()| Arc::new(EventFd::new().unwrap()));
        let mut bench = Bench::new(&[(Some(&events[0]), false), (Some(&events[1]), false)]);
        events[1].signal().unwrap();
        let stops = bench.stop.try_clone().unwrap();
        for stop in [false, true] {
            assert!(bench.sleep(None) < NAP_ARMED, "{stop}");
            assert_eq!((bench.armed.load(Relaxed), events[1].drain().unwrap()), (0, false));
            // It polls for a while after it was woken.
            let now = clock::now();
            assert!(!bench.idle.may_sleep(0, now) || now - bench.idle.since >= bench.idle.after);
            stops.signal().unwrap();
        }
        assert_eq!(bench.idle.load.report().sleeps, 2);
    }

    #[test]
    fn waiting_frames_keep_it_awake() {
        let events = [(); 3].map(|()| Arc::new(EventFd::new().unwrap()));
        let mut bench = Bench::new(&[
            (Some(&events[0]), false),
            (Some(&events[1]), true),
            (Some(&events[2]), false),
        ]);
        bench.sleep(None);
        assert_eq!((bench.armed.load(Relaxed), bench.idle.load.report().sleeps), (0, 0));
    }

    #[test]
    fn it_sleeps_no_longer_than_until_something_is_due_or_a_queue_must_be_looked_at() {
        let event = Arc::new(EventFd::new().unwrap());
        let mut bench = Bench::new(&[(Some(&event), false)]);
        let due = Duration::from_millis(3);
        let slept = bench.sleep(Some(clock::now() + clock::cycles(due)));
        assert!(slept < NAP_ARMED && bench.idle.load.report().sleeps == 1);
        assert!(bench.sleep(Some(0)) < NAP_ARMED, "it is long past");

        let mut bench = Bench::new(&[(Some(&event), false), (None, false)]);
        let slept = bench.sleep(None);
        assert!(slept >= NAP_UNARMED && slept < NAP_ARMED, "{slept:?}");
    }
}
