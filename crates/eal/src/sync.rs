//! What threads share, or what stands in for it while models of it are checked.
//!
//! With `--cfg loom` the code that takes its atomics from here is run by
//! [loom](https://docs.rs/loom), in every order that its threads and the memory model allow:
//! `cargo xtask loom`. Otherwise these are the standard library's.

#[cfg(not(loom))]
pub use std::{
    cell::UnsafeCell,
    sync::{atomic, mpsc},
    thread,
    thread::yield_now,
};

#[cfg(loom)]
pub use loom::{
    sync::{atomic, mpsc},
    thread,
    thread::yield_now,
};

#[cfg(not(loom))]
pub use crate::event::EventFd;

/// A cell of which a model notices when two threads have it at once.
#[cfg(loom)]
#[derive(Debug)]
pub struct UnsafeCell<T> {
    value: std::cell::UnsafeCell<T>,
    uses: loom::cell::UnsafeCell<()>,
}

#[cfg(loom)]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self { value: std::cell::UnsafeCell::new(value), uses: loom::cell::UnsafeCell::new(()) }
    }

    /// As the standard library's; each call is a use of its own, which nothing may go along with.
    pub fn get(&self) -> *mut T {
        self.uses.with_mut(|_| self.value.get())
    }

    /// As the standard library's.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// An eventfd, and beside it what of it a model can see: the kernel keeps the counter under a lock,
/// and wakes who waits for it.
#[cfg(loom)]
#[derive(Debug)]
pub struct EventFd {
    event: crate::event::EventFd,
    is_signalled: loom::sync::Mutex<bool>,
    wakes: loom::sync::Condvar,
}

#[cfg(loom)]
impl EventFd {
    /// As [`new`](crate::EventFd::new).
    pub fn new() -> std::io::Result<Self> {
        let event = crate::event::EventFd::new()?;
        Ok(Self { event, is_signalled: loom::sync::Mutex::new(false), wakes: Default::default() })
    }

    /// As [`signal`](crate::EventFd::signal).
    pub fn signal(&self) -> std::io::Result<()> {
        *self.lock() = true;
        self.wakes.notify_all();
        self.event.signal()
    }

    /// Waits until it is signalled, as a thread does that sleeps until it is readable.
    pub fn wait(&self) {
        let mut is_signalled = self.lock();
        while !*is_signalled {
            is_signalled = self.wakes.wait(is_signalled).unwrap_or_else(|error| error.into_inner());
        }
    }

    fn lock(&self) -> loom::sync::MutexGuard<'_, bool> {
        self.is_signalled.lock().unwrap_or_else(|error| error.into_inner())
    }
}

#[cfg(loom)]
impl std::os::fd::AsFd for EventFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Runs `body` in every order in which its threads take turns, with at most three changes from one
/// to another that need not be: each more takes ten times as long, and hardly any fault needs it.
#[cfg(loom)]
pub fn check_all(body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(body);
}
