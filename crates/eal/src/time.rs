//! The time by which control threads wait, age and measure: one place for it, so that a test can
//! stop and move it.
//!
//! Workers count cycles, by [`clock`](crate::clock); nothing here is for them.
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

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A clock: that of the system, or one that can be stopped and moved. Copies are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Time(Option<Arc<Mutex<Hands>>>);

/// A clock that is not the system's.
struct Hands {
    /// What it shows, beyond what the system's clock showed `since`.
    shown: Instant,
    /// Since when it goes, by the system's clock; `None` while it stands still.
    since: Option<Instant>,
    listeners: Vec<Box<dyn Fn() -> bool + Send>>,
}

impl fmt::Debug for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, since, listeners } = self;
        let listeners = listeners.len();
        f.debug_struct("Hands")
            .field("shown", shown)
            .field("since", since)
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

fn later(moment: Instant, by: Duration) -> Instant {
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
        let hands = Hands { shown: now, since: Some(now), listeners: Vec::new() };
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
}

#[cfg(test)]
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
}
