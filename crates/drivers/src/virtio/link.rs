//! What both sides of a port's thread see of the port, and how it is changed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eal::EventFd;
use ethdev::{Error, Link, PortEvent, PortEvents};
use packet::MacAddr;

/// How long a change of a port may take: all that it takes to start the device again, at worst.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The link and what is worth telling of the device.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    up: AtomicBool,
    changes: AtomicU64,
    details: Mutex<Vec<(String, String)>>,
    events: PortEvents,
}

impl LinkState {
    /// Notes the state of the link, and announces it if it is another.
    pub(crate) fn set(&self, up: bool) {
        if self.up.swap(up, Relaxed) != up {
            self.changes.fetch_add(1, Relaxed);
            self.events.announce(PortEvent::LinkChanged);
        }
    }

    /// The link as the device API has it.
    pub(crate) fn link(&self) -> Link {
        Link { up: self.up.load(Relaxed), speed_mbps: None, changes: self.changes.load(Relaxed) }
    }

    pub(crate) fn set_details(&self, details: Vec<(String, String)>) {
        *self.details.lock().unwrap_or_else(PoisonError::into_inner) = details;
    }

    pub(crate) fn details(&self) -> Vec<(String, String)> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) const fn events(&self) -> &PortEvents {
        &self.events
    }
}

/// What a port wants of its device, whenever that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) mac: MacAddr,
    pub(crate) mtu: u16,
    pub(crate) promiscuous: bool,
}

/// Something to change, and where the outcome goes.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) to: Wishes,
    pub(crate) done: Sender<Result<(), Error>>,
}

/// How the control side has the port's thread make changes.
#[derive(Debug)]
pub(crate) struct Changes {
    name: String,
    sender: Sender<Change>,
    wake: Arc<EventFd>,
}

impl Changes {
    /// Changes for the thread of the port called `name`, which `wake` wakes.
    pub(crate) fn new(name: &str, wake: Arc<EventFd>) -> (Self, Receiver<Change>) {
        let (sender, receiver) = mpsc::channel();
        (Self { name: name.to_owned(), sender, wake }, receiver)
    }

    /// Has the port's thread make a change, and waits for the outcome.
    pub(crate) fn make(&self, to: Wishes) -> Result<(), Error> {
        let failed = |reason: String| Error::Device { what: self.name.clone(), reason };
        let (done, outcome) = mpsc::channel();
        let sent = self.sender.send(Change { to, done });
        sent.map_err(|_| failed("the port's thread has ended".to_owned()))?;
        let _ = self.wake.signal();
        outcome.recv_timeout(CHANGE_TIMEOUT).map_err(|_| {
            failed(format!("not done within {CHANGE_TIMEOUT:?}; is the device stuck?"))
        })?
    }
}
