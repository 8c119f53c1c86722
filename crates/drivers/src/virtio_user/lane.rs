//! Where a ring passes between the port's thread and the worker that polls it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use eal::{EventFd, Handover};
use virtio::driver::RingError;

/// A ring of a session, seen by whoever hands it over.
pub(super) trait Ring {
    /// What the back-end did wrong, if it did; the ring is not used any more.
    fn fault(&self) -> Option<RingError>;
}

/// One queue of a port. It stays for the port's life; its ring comes and goes with sessions.
#[derive(Debug)]
pub(super) struct Lane<R> {
    /// The ring of the present session.
    pub(super) ring: Handover<R>,
    /// What the back-end signals. It is the same in all sessions, so that a worker can wait for
    /// it without knowing of sessions.
    pub(super) call: EventFd,
    /// The ring is there and enabled.
    ready: AtomicBool,
    /// Wakes the port's thread.
    wake: Arc<EventFd>,
}

impl<R: Ring> Lane<R> {
    pub(super) fn new(wake: &Arc<EventFd>) -> std::io::Result<Self> {
        Ok(Self {
            ring: Handover::empty(),
            call: EventFd::new()?,
            ready: AtomicBool::new(false),
            wake: Arc::clone(wake),
        })
    }

    /// Gives the worker a ring, and wakes it should it sleep: what it armed was another ring.
    pub(super) fn install(&self, ring: R) {
        self.ring.replace(Some(ring));
        self.ready.store(true, Relaxed);
        let _ = self.call.signal();
    }

    /// Takes the ring from the worker.
    pub(super) fn remove(&self) -> Option<R> {
        self.ready.store(false, Relaxed);
        self.ring.take()
    }

    /// Whether the worker has a ring.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// For the worker, when the back-end has broken its ring: wakes the port's thread, which will
    /// find out and end the session.
    #[cold]
    pub(super) fn report_fault(&self) {
        self.ready.store(false, Relaxed);
        let _ = self.wake.signal();
    }

    /// What the back-end did wrong with this ring, if it did.
    pub(super) fn fault(&self) -> Option<RingError> {
        self.ring.lock().as_ref().and_then(Ring::fault)
    }
}
