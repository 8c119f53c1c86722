//! The place where a queue passes between a control thread and the worker that polls it.

#[cfg(all(test, loom))]
mod models;

use std::fmt;
use std::mem::{forget, replace};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::counter::CacheAligned;
use crate::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{UnsafeCell, yield_now};

/// A slot for at most one `T`, which a worker visits once per burst and a control thread now
/// and then.
///
/// It differs from `Mutex<Option<T>>` in what the two sides are promised:
///
/// - the worker's [`try_lock`](Self::try_lock) never waits and never enters the kernel: one load
///   and one atomic swap, and one store when the guard drops;
/// - the control thread's [`lock`](Self::lock) waits no longer than until the worker is through
///   with the burst that it is at: while somebody waits, `try_lock` gives way;
/// - a panic while it is locked does not poison it: the guard's drop unlocks it, and the other
///   side finds whatever is there.
pub struct Handover<T> {
    /// Shared with at most one loan, so that one that gets lost can still unlock.
    state: Arc<CacheAligned<State>>,
    slot: UnsafeCell<Slot<T>>,
}

struct Slot<T> {
    value: Option<T>,
    /// What goes along with the next loan, made for the first one and then passed to and fro.
    token: Token,
}

#[derive(Default)]
struct State {
    locked: AtomicBool,
    /// Number of control threads in `lock` that have not got it yet.
    waiting: AtomicU32,
}

// SAFETY: the slot is reached only through a guard, of which there is one at a time (`locked`),
// so sharing a Handover only ever moves a T, or the exclusive use of it, between threads.
unsafe impl<T: Send> Sync for Handover<T> {}

impl<T> Handover<T> {
    /// A slot that holds `value`.
    #[must_use]
    pub fn new(value: Option<T>) -> Self {
        let slot = Slot { value, token: Token(None) };
        Self { state: Arc::default(), slot: UnsafeCell::new(slot) }
    }

    /// An empty slot.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(None)
    }

    /// For the worker, once per burst: locks the slot, or returns `None` at once when the other
    /// side has it or is waiting for it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        if self.state.waiting.load(Relaxed) != 0 {
            return None;
        }
        self.acquire()
    }

    /// For the control thread: locks the slot, waiting until the worker's burst is over.
    ///
    /// Whoever holds the guard keeps the worker from this queue, so it must not wait for a peer
    /// meanwhile.
    pub fn lock(&self) -> Guard<'_, T> {
        if let Some(guard) = self.acquire() {
            return guard;
        }
        self.state.waiting.fetch_add(1, Relaxed);
        let guard = loop {
            if !self.state.locked.load(Relaxed)
                && let Some(guard) = self.acquire()
            {
                break guard;
            }
            // The worker may be on this very core, so give it time rather than burn it.
            yield_now();
        };
        self.state.waiting.fetch_sub(1, Relaxed);
        guard
    }

    /// Puts `value` into the slot and returns what was there; as [`lock`](Self::lock).
    pub fn replace(&self, value: Option<T>) -> Option<T> {
        replace(&mut *self.lock(), value)
    }

    /// Takes what is in the slot; as [`lock`](Self::lock).
    pub fn take(&self) -> Option<T> {
        self.replace(None)
    }

    /// The slot itself: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut Option<T> {
        &mut self.slot.get_mut().value
    }

    /// For the worker, once per burst: takes the value along and leaves the slot locked until
    /// [`check_in`](Self::check_in), for a burst whose frames outlive the call that received
    /// them. `None` when the slot is empty, or the other side has it or waits for it.
    #[inline]
    pub fn check_out(&self) -> Option<Loan<T>> {
        let mut guard = self.try_lock()?;
        let slot = guard.slot_mut();
        let value = slot.value.take()?;
        let token = Token(Some(slot.token.0.take().unwrap_or_else(|| Arc::clone(&self.state))));
        forget(guard);
        Some(Loan { value, token })
    }

    /// Puts back what [`check_out`](Self::check_out) took and unlocks the slot. A loan of another
    /// slot is lost: its value is dropped, and that other slot is then empty and unlocked.
    #[inline]
    pub fn check_in(&self, mut loan: Loan<T>) {
        let ours = loan.token.0.as_ref().is_some_and(|state| Arc::ptr_eq(state, &self.state));
        debug_assert!(ours, "loan belongs to another slot");
        if ours {
            // The token proves that this slot is locked on the loan's behalf.
            let mut guard = Guard { handover: self };
            let slot = guard.slot_mut();
            // A slot that is lent holds nothing. The compiler cannot know, and would look for what
            // to drop, once a burst.
            forget(replace(&mut slot.token.0, loan.token.0.take()));
            forget(slot.value.replace(loan.value));
        }
    }

    #[inline]
    fn acquire(&self) -> Option<Guard<'_, T>> {
        let taken = self.state.locked.compare_exchange(false, true, Acquire, Relaxed);
        taken.is_ok().then(|| Guard { handover: self })
    }
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T> fmt::Debug for Handover<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locked = self.state.locked.load(Relaxed);
        f.debug_struct("Handover").field("locked", &locked).finish_non_exhaustive()
    }
}

/// What a worker has taken along for the length of a burst; see [`Handover::check_out`]. It goes
/// back with [`Handover::check_in`]; a loan that is dropped instead, by a panic for example,
/// leaves an empty slot.
#[must_use]
pub struct Loan<T> {
    // Dropped before the token, so that the other side finds the slot empty only after the value
    // is gone.
    value: T,
    token: Token,
}

/// The duty to unlock a slot, while it is with a loan.
struct Token(Option<Arc<CacheAligned<State>>>);

impl Drop for Token {
    #[inline]
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.locked.store(false, Release);
        }
    }
}

impl<T> Deref for Loan<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Loan<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loan").field(&self.value).finish()
    }
}

/// Exclusive use of what a [`Handover`] holds; unlocks when dropped.
pub struct Guard<'a, T> {
    handover: &'a Handover<T>,
}

// SAFETY: a shared guard gives `&Option<T>` and nothing else, so T: Sync is what it takes.
// (The automatic impl would ask only for `Handover<T>: Sync`, that is T: Send.)
unsafe impl<T: Sync> Sync for Guard<'_, T> {}

impl<T> Deref for Guard<'_, T> {
    type Target = Option<T>;

    #[inline]
    fn deref(&self) -> &Option<T> {
        // SAFETY: this guard is the only one (`locked` was false and is now true), and `&self`
        // excludes `slot_mut`.
        unsafe { &(*self.handover.slot.get()).value }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Option<T> {
        &mut self.slot_mut().value
    }
}

impl<T> Guard<'_, T> {
    #[inline]
    fn slot_mut(&mut self) -> &mut Slot<T> {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { &mut *self.handover.slot.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.handover.state.locked.store(false, Release);
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&**self).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_one_side_has_it() {
        let slot = Handover::new(Some(5));
        let guard = slot.lock();
        assert!(slot.try_lock().is_none());
        drop(guard);
        assert_eq!(*slot.try_lock().unwrap(), Some(5));
        assert_eq!(slot.take(), Some(5));
        assert_eq!(*slot.try_lock().unwrap(), None);
    }

    #[test]
    fn a_loan_keeps_the_slot_locked_until_it_is_back() {
        let slot = Handover::new(Some(5));
        let mut loan = slot.check_out().unwrap();
        assert!(slot.try_lock().is_none());
        *loan += 1;
        slot.check_in(loan);
        assert_eq!(slot.take(), Some(6));
        assert!(slot.check_out().is_none(), "nothing to take along");
        assert!(slot.try_lock().is_some(), "and the slot is not locked for it");
    }

    #[test]
    fn a_loan_that_gets_lost_leaves_an_empty_slot() {
        let slot = Handover::new(Some(5));
        slot.check_in(slot.check_out().unwrap());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _loan = slot.check_out().unwrap();
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert_eq!(slot.replace(Some(6)), None);
        let loan = slot.check_out().unwrap();
        assert!(slot.try_lock().is_none());
        slot.check_in(loan);
        assert_eq!(slot.take(), Some(6));
        // A slot that is gone needs no unlocking, and a token at rest unlocks nothing.
        let gone = Handover::new(Some(7));
        let loan = gone.check_out().unwrap();
        drop(gone);
        assert_eq!(*loan, 7);
    }

    #[test]
    fn a_panic_leaves_it_unlocked() {
        let slot = Handover::new(Some(5));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = slot.lock();
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert_eq!(slot.take(), Some(5));
    }

    #[test]
    fn control_gets_through_to_a_worker_that_never_rests() {
        let slot = Handover::new(Some(0_u64));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    if let Some(mut guard) = slot.try_lock()
                        && let Some(bursts) = guard.as_mut()
                    {
                        *bursts += 1;
                    }
                }
            });
            for _ in 0..1_000 {
                let queue = slot.take();
                assert!(queue.is_some());
                assert!(slot.replace(queue).is_none());
            }
            stop.store(true, Relaxed);
        });
    }

    #[test]
    fn what_is_handed_over_is_never_in_two_places() {
        // A non-atomic read-modify-write under the guard loses counts if exclusion fails, and
        // `inside` catches two holders in the act.
        const ROUNDS: usize = 20_000;
        let slot = Handover::new(Some(0_usize));
        let inside = AtomicUsize::new(0);
        let visit = |mut guard: Guard<'_, usize>| {
            assert_eq!(inside.fetch_add(1, Relaxed), 0);
            let count = guard.as_mut().unwrap();
            *count = std::hint::black_box(*count) + 1;
            inside.fetch_sub(1, Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| visit(slot.lock())));
            }
            scope.spawn(|| {
                let mut done = 0;
                while done < ROUNDS {
                    if let Some(guard) = slot.try_lock() {
                        visit(guard);
                        done += 1;
                    }
                }
            });
        });
        assert_eq!(slot.take(), Some(3 * ROUNDS));
    }

    proptest! {
        #[test]
        fn it_behaves_as_an_option(steps in prop::collection::vec((0..3_u8, any::<u8>()), 0..50)) {
            let slot = Handover::empty();
            let mut model = None;
            for (step, value) in steps {
                match step {
                    0 => prop_assert_eq!(slot.replace(Some(value)), model.replace(value)),
                    1 => prop_assert_eq!(slot.take(), model.take()),
                    _ => prop_assert_eq!(*slot.try_lock().unwrap(), model),
                }
            }
        }
    }
}
