//! A worker's sleep, until a device announces a frame.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use eal::event::{Events, Interest};
use eal::{Epoll, clock};

use crate::queue::RxQueue;

/// How long a worker sleeps at most if all its queues will wake it. It need not be finite; it
/// bounds the damage should a device ever forget to.
const NAP_ARMED: Duration = Duration::from_secs(1);

/// How long a worker sleeps if it has a queue that cannot wake it.
const NAP_UNARMED: Duration = Duration::from_micros(500);

/// Tokens of the event that wakes a worker, and of its queues.
const WAKE: u64 = 1;
const QUEUE: u64 = 0;

/// How a [sleep](Sleeper::sleep) went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// Not at all: there were frames, or this process cannot sleep any more.
    Not,
    /// Until a queue had a frame.
    UntilFrame,
    /// Until the worker's own event was signalled, whatever else there was.
    UntilWoken,
    /// As long as it may.
    ToTheEnd,
}

/// Lets a worker sleep on its queues, and on an event of its own.
#[derive(Debug)]
pub struct Sleeper {
    epoll: Epoll,
    events: Events,
    /// Queues of the worker that cannot wake it.
    silent: usize,
    /// Whether sleeping has failed; what makes it fail does not go away.
    broken: bool,
}

impl Sleeper {
    /// For a worker without queues. `wake` ends its sleep while it is readable.
    ///
    /// # Errors
    /// When the process has too many file descriptors open.
    pub fn new(wake: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(wake, WAKE, Interest::READ)?;
        Ok(Self { epoll, events: Events::new(), silent: 0, broken: false })
    }

    /// Lets `queue` end the sleep. If it cannot, sleeps are short: half a millisecond.
    pub fn watch(&mut self, queue: &RxQueue) {
        let watched =
            queue.wait_fd().is_some_and(|fd| match self.epoll.add(fd, QUEUE, Interest::READ) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "a queue cannot be waited for; it is looked at all the time");
                    false
                }
            });
        self.silent += usize::from(!watched);
    }

    /// Undoes [`watch`](Self::watch).
    pub fn unwatch(&mut self, queue: &RxQueue) {
        let watched = queue.wait_fd().is_some_and(|fd| self.epoll.remove(fd).is_ok());
        self.silent = self.silent.saturating_sub(usize::from(!watched));
    }

    /// Sleeps until one of the queues of `items`, all of which must be [watched](Self::watch), has
    /// a frame, until the worker is woken, until `due` (a time of [`clock::now`]), or for a limited
    /// time. `queue` gets at the queue of an item.
    pub fn sleep<T>(
        &mut self,
        items: &mut [T],
        mut queue: impl FnMut(&mut T) -> &mut RxQueue,
        due: Option<u64>,
    ) -> Slept {
        if self.broken {
            return Slept::Not;
        }
        // One that has frames already has to be polled instead.
        let has_frames = |item: &mut T| {
            let queue = queue(item);
            queue.wait_fd().is_some() && !queue.arm()
        };
        let busy = items.iter_mut().position(has_frames);
        let slept = if busy.is_none() { self.wait(due) } else { Slept::Not };
        let armed = busy.map_or(items.len(), |index| index.saturating_add(1));
        for item in items.iter_mut().take(armed) {
            let queue = queue(item);
            if queue.wait_fd().is_some() {
                queue.disarm();
            }
        }
        slept
    }

    fn wait(&mut self, due: Option<u64>) -> Slept {
        let nap = if self.silent == 0 { NAP_ARMED } else { NAP_UNARMED };
        let nap = due.map_or(nap, |due| nap.min(clock::duration(due.saturating_sub(clock::now()))));
        if let Err(error) = self.epoll.wait(&mut self.events, Some(nap)) {
            tracing::error!(%error, "a worker cannot sleep; it polls without pause");
            self.broken = true;
            return Slept::Not;
        }
        if self.events.iter().any(|event| event.token == WAKE) {
            Slept::UntilWoken
        } else if self.events.as_slice().is_empty() {
            Slept::ToTheEnd
        } else {
            Slept::UntilFrame
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;
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

    /// A queue that has frames already if it is `waiting`, or when `event` is signalled; counts in
    /// `armed`.
    pub(crate) fn queue(
        event: Option<&Arc<EventFd>>,
        waiting: bool,
        armed: &Arc<AtomicUsize>,
    ) -> RxQueue {
        let (event, armed) = (event.map(Arc::clone), Arc::clone(armed));
        let device = Device { event, armed, waiting, batch: FrameBatch::with_segments(0) };
        RxQueue::new(Box::new(device), Arc::default())
    }

    struct Bench {
        armed: Arc<AtomicUsize>,
        queues: Vec<RxQueue>,
        sleeper: Sleeper,
        wake: EventFd,
    }

    impl Bench {
        fn new(devices: &[(Option<&Arc<EventFd>>, bool)]) -> Self {
            let (armed, wake) = (Arc::<AtomicUsize>::default(), EventFd::new().unwrap());
            let queues: Vec<RxQueue> =
                devices.iter().map(|(event, waiting)| queue(*event, *waiting, &armed)).collect();
            let mut sleeper = Sleeper::new(wake.as_fd()).unwrap();
            queues.iter().for_each(|queue| sleeper.watch(queue));
            Self { armed, queues, sleeper, wake }
        }

        /// Sleeps; returns how, and for how long.
        fn sleep(&mut self, due: Option<u64>) -> (Slept, Duration) {
            let start = Instant::now();
            let slept = self.sleeper.sleep(&mut self.queues, |queue| queue, due);
            (slept, start.elapsed())
        }
    }

    #[test]
    fn a_frame_or_a_call_ends_the_sleep_and_no_queue_stays_armed() {
        let events = [(); 2].map(|()| Arc::new(EventFd::new().unwrap()));
        let mut bench = Bench::new(&[(Some(&events[0]), false), (Some(&events[1]), false)]);
        events[1].signal().unwrap();
        for expected in [Slept::UntilFrame, Slept::UntilWoken] {
            assert_eq!(bench.sleep(None).0, expected);
            assert_eq!((bench.armed.load(Relaxed), events[1].drain().unwrap()), (0, false));
            events[1].signal().unwrap();
            bench.wake.signal().unwrap();
        }
    }

    #[test]
    fn waiting_frames_keep_it_awake() {
        let events = [(); 3].map(|()| Arc::new(EventFd::new().unwrap()));
        let mut bench = Bench::new(&[
            (Some(&events[0]), false),
            (Some(&events[1]), true),
            (Some(&events[2]), false),
        ]);
        assert_eq!((bench.sleep(None).0, bench.armed.load(Relaxed)), (Slept::Not, 0));
    }

    #[test]
    fn it_sleeps_no_longer_than_until_something_is_due_or_a_queue_must_be_looked_at() {
        let event = Arc::new(EventFd::new().unwrap());
        // Once in a few tries: what else the machine does may take as long.
        let ends_soon = |bench: &mut Bench, due: &dyn Fn() -> Option<u64>, least: Duration| {
            (0..5).any(|_| {
                let (slept, time) = bench.sleep(due());
                assert_eq!((slept, bench.armed.load(Relaxed)), (Slept::ToTheEnd, 0));
                assert!(time >= least, "{time:?}");
                time < NAP_ARMED
            })
        };
        let mut bench = Bench::new(&[(Some(&event), false)]);
        let due = || Some(clock::now() + clock::cycles(Duration::from_millis(3)));
        assert!(ends_soon(&mut bench, &due, Duration::ZERO));
        assert!(ends_soon(&mut bench, &|| Some(0), Duration::ZERO));
        let mut bench = Bench::new(&[(Some(&event), false), (None, false)]);
        assert!(ends_soon(&mut bench, &|| None, NAP_UNARMED));
    }

    #[test]
    fn a_queue_that_is_watched_no_more_neither_wakes_nor_hurries() {
        let events = [(); 2].map(|()| Arc::new(EventFd::new().unwrap()));
        let mut bench = Bench::new(&[(Some(&events[0]), false), (None, false)]);
        for queue in bench.queues.drain(..) {
            bench.sleeper.unwatch(&queue);
        }
        events[0].signal().unwrap();
        // The time before it sleeps counts, too: what is due does not wait for a thread without core.
        let start = Instant::now();
        let due = clock::now() + clock::cycles(Duration::from_millis(3));
        let (slept, _) = bench.sleep(Some(due));
        let time = start.elapsed();
        assert!(slept == Slept::ToTheEnd && time > NAP_UNARMED, "{slept:?} {time:?}");
    }
}
