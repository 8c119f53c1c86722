//! What a worker does when a port has sent what it is shut for: notes it, and has somebody look.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a port has sent what it is shut for.
pub struct Trip {
    is_tripped: AtomicBool,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trip").field("is_tripped", &self.is_tripped).finish_non_exhaustive()
    }
}

impl Trip {
    /// One that calls `notify` when it is tripped, which must be quick.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self { is_tripped: AtomicBool::new(false), notify: Box::new(notify) }
    }

    /// Notes that it has.
    #[cold]
    pub(crate) fn trip(&self) {
        if !self.is_tripped.swap(true, Relaxed) {
            (self.notify)();
        }
    }

    /// Whether it has, since this was [reset](Self::reset).
    #[inline]
    pub fn is_tripped(&self) -> bool {
        self.is_tripped.load(Relaxed)
    }

    /// Forgets it.
    pub fn reset(&self) {
        self.is_tripped.store(false, Relaxed);
    }
}
