//! The time by which control threads wait, age and measure: one place for it, so that a test can
//! stop and move it.
//!
//! Workers count cycles, by [`clock`](crate::clock). Of this they need what fills buckets of tokens, which
//! tests have fill by a clock that they move: [`Time::cycles`].
//!
//! ```
//! use std::time::Duration;
//! use eal::time::Time;
//!
//! let time = Time::stopped();
//! let due = time.now() + Duration::from_secs(300);
//! assert_eq!(time.until(due), None, "to be woken, however long that takes");
//! time.warp(Duration::from_secs(300));
//! assert_eq!(time.until(due), Some(Duration::ZERO));
//! ```
//!
//! What bounds a peer or a device is not for this clock: how long a turn may last, a system call
//! be waited for, a device take to reset, and how many log lines a peer causes. Those limits hold
//! though somebody has stopped it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::{EventFd, clock};

/// A clock: that of the system, or one that can be stopped and moved. Copies are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Time(Option<Arc<Mutex<Hands>>>);

/// A clock that is not the system's.
struct Hands {
    /// What it shows, beyond what the system's clock showed `since`.
    shown: Instant,
    /// Since when it goes, by the system's clock; `None` while it stands still.
    since: Option<Instant>,
    /// What it showed when it was made, and the counter of cycles at that moment.
    origin: (Instant, u64),
    listeners: Vec<Box<dyn Fn() -> bool + Send>>,
}

impl fmt::Debug for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, since, origin, listeners } = self;
        let listeners = listeners.len();
        f.debug_struct("Hands")
            .field("shown", shown)
            .field("since", since)
            .field("origin", origin)
            .field("listeners", &listeners)
            .finish()
    }
}

impl Hands {
    fn now(&self) -> Instant {
        let gone = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        later(self.shown, gone)
    }

    /// Wakes those who wait; forgets those who do not any more.
    fn tell(&mut self) {
        self.listeners.retain(|listener| listener());
    }
}

/// The moment that is `by` after another; the same one where no clock gets so far.
#[must_use]
pub fn later(moment: Instant, by: Duration) -> Instant {
    moment.checked_add(by).unwrap_or(moment)
}

impl Time {
    /// The system's monotonic clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// One that goes like the system's until it is [stopped](Self::stop).
    #[must_use]
    pub fn adjustable() -> Self {
        let now = Instant::now();
        let (origin, listeners) = ((now, clock::now()), Vec::new());
        let hands = Hands { shown: now, since: Some(now), origin, listeners };
        Self(Some(Arc::new(Mutex::new(hands))))
    }

    /// One that stands still.
    #[must_use]
    pub fn stopped() -> Self {
        let time = Self::adjustable();
        time.stop();
        time
    }

    fn hands(&self) -> Option<MutexGuard<'_, Hands>> {
        let hands = self.0.as_ref()?;
        Some(hands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.hands().map_or_else(Instant::now, |hands| hands.now())
    }

    /// What it shows, in cycles of the [counter](clock::now), which shows `counter`: that itself where it is
    /// the system's.
    #[must_use]
    #[inline]
    pub fn cycles(&self, counter: u64) -> u64 {
        if self.0.is_none() { counter } else { self.shown_cycles(counter) }
    }

    #[cold]
    fn shown_cycles(&self, counter: u64) -> u64 {
        let Some(hands) = self.hands() else { return counter };
        let (began, at) = hands.origin;
        at.saturating_add(clock::cycles(hands.now().saturating_duration_since(began)))
    }

    /// Stops it; returns whether that can be done, which it cannot with the system's.
    pub fn stop(&self) -> bool {
        let Some(mut hands) = self.hands() else { return false };
        hands.shown = hands.now();
        hands.since = None;
        hands.tell();
        true
    }

    /// Puts it forward and wakes those who wait; returns whether that can be done, which it cannot
    /// with the system's.
    pub fn warp(&self, by: Duration) -> bool {
        let Some(mut hands) = self.hands() else { return false };
        hands.shown = later(hands.shown, by);
        hands.tell();
        true
    }

    /// How long to wait until it shows `moment`, as the system counts; `None` while it stands still
    /// before that: then whoever waits is to be [told](Self::on_change).
    #[must_use]
    pub fn until(&self, moment: Instant) -> Option<Duration> {
        let rest = moment.saturating_duration_since(self.now());
        let stands = self.hands().is_some_and(|hands| hands.since.is_none());
        if stands && !rest.is_zero() { None } else { Some(rest) }
    }

    /// Has `listener` called whenever the clock is stopped or put forward, until it returns
    /// `false`. It must be quick, and not use this clock. The system's clock never calls.
    pub fn on_change(&self, listener: impl Fn() -> bool + Send + 'static) {
        if let Some(mut hands) = self.hands() {
            hands.listeners.push(Box::new(listener));
        }
    }

    /// For a thread that waits by this clock and for files at once.
    ///
    /// # Errors
    /// When there is no file descriptor left; never with the system's clock.
    pub fn alarm(&self) -> io::Result<Alarm> {
        let moved = self.0.is_some().then(EventFd::new).transpose()?.map(Arc::new);
        if let Some(moved) = &moved {
            let moved = Arc::downgrade(moved);
            self.on_change(move || moved.upgrade().is_some_and(|moved| moved.signal().is_ok()));
        }
        Ok(Alarm { time: self.clone(), moved })
    }
}

/// Waits for files and by a [`Time`], also when that is stopped and moved.
///
/// ```
/// use std::os::fd::AsFd;
/// use std::time::Duration;
/// use eal::EventFd;
/// use eal::time::Time;
///
/// let (time, event) = (Time::stopped(), EventFd::new()?);
/// let alarm = time.alarm()?;
/// let due = alarm.now() + Duration::from_secs(3600);
/// let other = time.clone();
/// let hour = std::thread::spawn(move || other.warp(Duration::from_secs(3600)));
/// assert_eq!(alarm.wait(&[Some(event.as_fd())], Some(due))?, None, "the hour is over");
/// event.signal()?;
/// assert_eq!(alarm.wait(&[None, Some(event.as_fd())], None)?, Some(1));
/// # hour.join().unwrap();
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Alarm {
    time: Time,
    /// Signalled when the clock is stopped or moved; the system's never is.
    moved: Option<Arc<EventFd>>,
}

impl Alarm {
    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.time.now()
    }

    /// As [`Time::until`].
    #[must_use]
    pub fn until(&self, moment: Instant) -> Option<Duration> {
        self.time.until(moment)
    }

    /// What is readable once the clock was stopped or moved, for those who wait by themselves;
    /// absent with the system's.
    #[must_use]
    pub fn moved(&self) -> Option<BorrowedFd<'_>> {
        self.moved.as_ref().map(AsFd::as_fd)
    }

    /// Makes that unreadable again.
    pub fn heed(&self) {
        if let Some(moved) = &self.moved {
            // It is ours and cannot fail; where there is nothing, nothing happens.
            let _ = moved.drain();
        }
    }

    /// Waits until one of `files` is readable or hung up, and returns the place of the first such;
    /// `None` when the clock shows `due` before that. Absent files are never ready, an absent `due`
    /// never comes. A signal that interrupts it does not end it.
    ///
    /// # Errors
    /// None that an application could cause.
    pub fn wait(
        &self,
        files: &[Option<BorrowedFd<'_>>],
        due: Option<Instant>,
    ) -> io::Result<Option<usize>> {
        let there = (0..).zip(files).filter_map(|(place, file)| Some((place, (*file)?)));
        let (places, there): (Vec<usize>, Vec<_>) = there.unzip();
        let all = there.into_iter().chain(self.moved());
        let flags = PollFlags::IN | PollFlags::RDHUP;
        let mut fds: Vec<_> = all.map(|file| PollFd::from_borrowed_fd(file, flags)).collect();
        loop {
            let rest = due.and_then(|due| self.until(due));
            let rest = rest.and_then(|rest| Timespec::try_from(rest).ok());
            match poll(&mut fds, rest.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let ready = fds.iter().position(|fd| !fd.revents().is_empty());
            if let Some(place) = ready.and_then(|ready| places.get(ready)) {
                return Ok(Some(*place));
            }
            self.heed();
            if due.is_some_and(|due| due <= self.now()) {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_stopped_clock_moves_when_it_is_moved_and_only_then() {
        let time = Time::stopped();
        let (start, copy) = (time.now(), time.clone());
        let told = Arc::new(AtomicUsize::new(0));
        let (count, once) = (Arc::clone(&told), Arc::clone(&told));
        time.on_change(move || count.fetch_add(1, Relaxed) < usize::MAX);
        time.on_change(move || once.fetch_add(100, Relaxed) == usize::MAX);
        assert_eq!(
            (time.now(), time.until(start), time.until(start + HOUR)),
            (start, Some(Duration::ZERO), None)
        );
        assert!(copy.warp(HOUR));
        assert_eq!((time.now(), time.until(start + HOUR)), (start + HOUR, Some(Duration::ZERO)));
        assert!(copy.warp(HOUR));
        // The second listener wanted no more.
        assert_eq!((time.now(), told.load(Relaxed)), (start + 2 * HOUR, 102));
    }

    #[test]
    fn cycles_are_those_of_the_counter_until_a_clock_is_moved() {
        assert_eq!(Time::system().cycles(7), 7);
        let time = Time::stopped();
        let (first, hz) = (time.cycles(0), clock::hz());
        assert_eq!(time.cycles(u64::MAX), first, "it stands still");
        time.warp(HOUR);
        assert_eq!(time.cycles(0), first + 3600 * hz);
        let (before, time) = (clock::now(), Time::adjustable());
        let (shown, after) = (time.cycles(0), clock::now());
        assert!(before <= shown && shown <= after + hz / 1_000, "{before} {shown} {after}");
    }

    #[test]
    fn an_adjustable_clock_goes_until_it_is_stopped() {
        let time = Time::adjustable();
        let (start, system) = (time.now(), Instant::now());
        assert!(time.until(start + HOUR).unwrap() <= HOUR);
        assert!(time.warp(HOUR));
        let now = time.now();
        assert!(now >= start + HOUR && now <= start + HOUR + system.elapsed() + HOUR / 60);
        assert!(time.stop());
        assert_eq!((time.now(), time.until(time.now() + HOUR)), (time.now(), None));
    }

    #[test]
    fn the_systems_clock_is_nobodys_to_move() {
        let time = Time::system();
        assert!(!time.stop() && !time.warp(HOUR));
        time.on_change(|| unreachable!());
        assert!(time.until(Instant::now() + HOUR).unwrap() <= HOUR);
        assert_eq!(time.until(Instant::now()), Some(Duration::ZERO));
    }

    #[test]
    fn an_alarm_hears_files_and_the_clock_whether_it_goes_or_not() {
        let (quiet, rung) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let files = [None, Some(quiet.as_fd()), Some(rung.as_fd())];
        for time in [Time::system(), Time::adjustable(), Time::stopped()] {
            let alarm = time.alarm().unwrap();
            let (begun, soon) = (Instant::now(), Duration::from_millis(5));
            assert_eq!(alarm.wait(&files, Some(alarm.now())).unwrap(), None);
            if alarm.until(alarm.now() + soon).is_some() {
                assert_eq!(alarm.wait(&files, Some(alarm.now() + soon)).unwrap(), None);
                assert!(begun.elapsed() >= soon);
            }
            rung.signal().unwrap();
            assert_eq!(alarm.wait(&files, None).unwrap(), Some(2));
            assert_eq!(alarm.wait(&files, Some(alarm.now())).unwrap(), Some(2));
            rung.drain().unwrap();
        }
    }

    #[test]
    fn an_alarm_wakes_when_its_clock_is_moved_far_enough_and_stops_with_it() {
        let time = Time::adjustable();
        let (alarm, quiet) = (time.alarm().unwrap(), EventFd::new().unwrap());
        let due = alarm.now() + HOUR;
        std::thread::scope(|scope| {
            let files = [Some(quiet.as_fd())];
            let waiter = scope.spawn(move || {
                let woken = alarm.wait(&files, Some(due)).unwrap();
                (woken, alarm.now() >= due, alarm.moved().is_some())
            });
            time.stop();
            // Not enough, so that it waits on.
            time.warp(HOUR / 4);
            time.warp(HOUR);
            assert_eq!(waiter.join().unwrap(), (None, true, true));
        });
        // Nobody waits any more: that is noticed, and forgotten.
        assert_eq!(time.hands().unwrap().listeners.len(), 1);
        time.warp(HOUR);
        assert_eq!(time.hands().unwrap().listeners.len(), 0);
    }
}
