//! Signalling eventfds that take long to signal.
//!
//! Whoever signals an eventfd wakes all that wait for it, one after the other, within the system
//! call, and with interrupts disabled. A peer can wait for one as often as it may have files open:
//! 18,000 waiting made a signal take 2 to 13 ms instead of a microsecond. So where a signal has
//! taken long the next ones of that peer are left to a thread, until that thread has found that
//! they take no longer than usual.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::{sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::aio::Aio;
use crate::clock;
use crate::closer::PeerFd;

/// A signal that takes longer is looked at. It may be that the thread had to wait for its processor
/// meanwhile.
const LONG: Duration = Duration::from_millis(1);

/// A signal that takes more of a processor is the peer's doing. A thousand that wait take 50 µs.
const TOO_LONG: Duration = Duration::from_micros(200);

/// For how long a peer's signals are left to the thread after the first that took too long; it
/// doubles each time.
const FIRST_PENALTY: Duration = Duration::from_secs(1);

/// The longest such time.
const LAST_PENALTY: Duration = Duration::from_secs(3600);

/// How long the thread waits for more before it ends.
const LINGER: Duration = Duration::from_secs(1);

/// Signals the eventfds of one peer. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ringer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Nobody makes signals take long: one that did was at a processor that others had meanwhile.
    is_trusted: bool,
    /// Signals are left to the thread.
    late: AtomicBool,
    work: Mutex<Work>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    /// Each eventfd once.
    waiting: VecDeque<Arc<PeerFd>>,
    has_thread: bool,
    penalty: Penalty,
}

/// How long signals are left to the thread.
#[derive(Debug, Default)]
struct Penalty {
    last: Duration,
    until: Option<Instant>,
}

impl Penalty {
    /// Takes note of a signal that took `time` of the processor. Returns whether the next ones may
    /// be sent by whoever has to send them.
    fn note(&mut self, time: Duration, now: Instant) -> bool {
        if time > TOO_LONG {
            self.last = (self.last * 2).clamp(FIRST_PENALTY, LAST_PENALTY);
            self.until = Some(now + self.last);
        }
        self.until.is_none_or(|until| until <= now)
    }
}

impl Ringer {
    /// For eventfds of somebody who has no reason to make signals take long: nothing is left to a thread.
    pub(crate) fn trusting() -> Self {
        Self(Arc::new(Shared { is_trusted: true, ..Shared::default() }))
    }

    /// Signals `event`, now or soon.
    #[inline]
    pub(crate) fn signal(&self, aio: &'static Aio, event: &Arc<PeerFd>) -> std::io::Result<()> {
        if self.0.late.load(Relaxed) {
            return self.leave(aio, event);
        }
        let begun = clock::now();
        let done = aio.signal(event.as_fd());
        if clock::duration(clock::now().saturating_sub(begun)) > LONG {
            self.note_long();
        }
        done
    }

    /// A signal took long: the next ones are left to the thread.
    #[cold]
    fn note_long(&self) {
        self.0.late.store(!self.0.is_trusted, Relaxed);
    }

    /// Leaves it to the thread.
    #[cold]
    fn leave(&self, aio: &'static Aio, event: &Arc<PeerFd>) -> std::io::Result<()> {
        let mut work = self.lock();
        if !work.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, event)) {
            work.waiting.push_back(Arc::clone(event));
        }
        if work.has_thread {
            self.0.more.notify_one();
            return Ok(());
        }
        let ringer = self.clone();
        let thread = std::thread::Builder::new().name("ringer".into());
        work.has_thread = crate::thread::spawn(thread, move || ringer.run(aio)).is_ok();
        if work.has_thread {
            return Ok(());
        }
        work.waiting.retain(|waiting| !Arc::ptr_eq(waiting, event));
        drop(work);
        aio.signal(event.as_fd())
    }

    fn run(&self, aio: &'static Aio) {
        leave_the_workers_core();
        let mut work = self.lock();
        loop {
            if let Some(event) = work.waiting.pop_front() {
                drop(work);
                let begun = processor_time();
                // Nothing that a peer could cause.
                let _ = aio.signal(event.as_fd());
                let time = processor_time().saturating_sub(begun);
                drop(event);
                work = self.lock();
                let direct = work.penalty.note(time, Instant::now());
                self.0.late.store(!direct, Relaxed);
                continue;
            }
            let more = self.0.more.wait_timeout_while(work, LINGER, |work| work.waiting.is_empty());
            work = more.unwrap_or_else(PoisonError::into_inner).0;
            if work.waiting.is_empty() {
                work.has_thread = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.0.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread has had of processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Runs where the first thread of the process may, and not where only the worker may that has
/// started this one.
fn leave_the_workers_core() {
    // Where it is refused, the thread runs beside the worker.
    let first = sched_getaffinity(Some(rustix::process::getpid()));
    let _ = first.and_then(|cores| sched_setaffinity(None, &cores));
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::{Closer, PeerEvent};

    #[test]
    fn a_signal_that_is_left_to_the_thread_arrives_and_the_next_need_not_be() {
        let aio = Aio::get().unwrap();
        let event = PeerEvent::for_peer(&Closer::default()).unwrap();
        let ringer = Ringer::default();
        let file = Arc::new(PeerFd::from(event.as_fd().try_clone_to_owned().unwrap()));
        let end = Instant::now() + Duration::from_secs(60);
        for _ in 0..3 {
            ringer.note_long();
            assert!(ringer.0.late.load(Relaxed));
            // Where the processor was not its own for a moment, the thread takes the next ones, too.
            while ringer.0.late.load(Relaxed) {
                ringer.signal(aio, &file).unwrap();
                while !event.drain().unwrap() {
                    assert!(Instant::now() < end);
                    std::thread::yield_now();
                }
            }
        }
    }

    #[test]
    fn whom_one_trusts_is_signalled_at_once_however_long_that_took() {
        let (aio, ringer) = (Aio::get().unwrap(), Ringer::trusting());
        let event = PeerEvent::for_peer(&Closer::default()).unwrap();
        let file = Arc::new(PeerFd::from(event.as_fd().try_clone_to_owned().unwrap()));
        ringer.note_long();
        ringer.signal(aio, &file).unwrap();
        assert!(event.drain().unwrap() && !ringer.lock().has_thread);
    }

    #[test]
    fn whoever_takes_too_long_waits_longer_each_time() {
        let (mut penalty, now) = (Penalty::default(), Instant::now());
        assert!(penalty.note(TOO_LONG, now));
        let slow = 2 * TOO_LONG;
        for expected in [1, 2, 4] {
            assert!(!penalty.note(slow, now));
            let after = Duration::from_secs(expected);
            assert!(!penalty.note(TOO_LONG, now + after / 2));
            assert!(penalty.note(TOO_LONG, now + after));
        }
        for _ in 0..40 {
            penalty.note(slow, now);
        }
        assert!(penalty.note(TOO_LONG, now + LAST_PENALTY));
    }
}
