//! Where a ring passes between the control side and the worker that polls it, and how the worker
//! is woken.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use eal::{EventFd, Handover};

use super::hardware::Hardware;
use super::registers::{EICR, EIMC, EIMS, ICR, IMS, Registers, cause};

/// One queue of a port: its ring, for as long as the port is open and the device there.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) ring: Handover<Box<T>>,
    /// The ring is there and the link is up.
    ready: AtomicBool,
    /// For receive queues that can be waited for.
    pub(super) notify: Option<Notify>,
}

impl<T> Lane<T> {
    pub(super) fn new(ring: T, notify: Option<Notify>) -> Self {
        Self { ring: Handover::new(Some(Box::new(ring))), ready: AtomicBool::new(false), notify }
    }

    /// Whether frames can be sent.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// Takes the ring from the worker, after the burst that it is at, and wakes it.
    pub(super) fn take(&self) -> Option<Box<T>> {
        self.set_ready(false);
        let ring = self.ring.take();
        if let Some(notify) = &self.notify {
            let _ = notify.event.signal();
        }
        ring
    }
}

/// How a receive queue announces frames.
#[derive(Debug)]
pub(super) struct Notify {
    /// Signalled by the kernel, or by the port's thread.
    pub(super) event: EventFd,
    pub(super) source: Source,
}

/// What interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An MSI-X vector of the queue's own, by its bit.
    Vector(u32),
    /// The line, which all queues and the link share. The port's thread listens to it: it
    /// disables the cause and wakes the workers of all queues.
    Line,
}

impl Notify {
    /// Lets the device announce frames that come from now on.
    ///
    /// What came before is forgotten first: it would be announced at once, and in vain.
    pub(super) fn enable<R: Registers>(&self, hardware: &Hardware<R>) {
        match self.source {
            Source::Vector(bit) => {
                hardware.write(EICR, bit);
                hardware.write(EIMS, bit);
            }
            Source::Line => {
                hardware.write(ICR, cause::RXDW);
                hardware.write(IMS, cause::RXDW);
            }
        }
    }

    /// Ends that. The line's cause stays enabled until it fires, since others may wait for it.
    pub(super) fn disable<R: Registers>(&self, hardware: &Hardware<R>) {
        if let Source::Vector(bit) = self.source {
            hardware.write(EIMC, bit);
        }
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
