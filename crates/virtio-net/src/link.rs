//! What both sides of a port's thread see of the port, how it is changed, and the thread's end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use eal::EventFd;
use eal::channel::{Receiver, Sender, channel};
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

/// The address, MTU and receive mode of a port, for its control side: its thread makes changes, and
/// those that worked are kept for later sessions.
#[derive(Debug)]
pub(crate) struct Settings {
    name: String,
    wishes: Wishes,
    max_mtu: u16,
    /// What the transmit queues check frames against.
    mtu: Arc<AtomicU16>,
    sender: Sender<Change>,
    wake: Arc<EventFd>,
}

impl Settings {
    /// For the port called `name`, whose thread `wake` wakes to take changes from the receiver.
    pub(crate) fn new(
        name: &str,
        wishes: Wishes,
        max_mtu: u16,
        mtu: Arc<AtomicU16>,
        wake: Arc<EventFd>,
    ) -> (Self, Receiver<Change>) {
        let (sender, receiver) = channel();
        mtu.store(wishes.mtu, Relaxed);
        (Self { name: name.to_owned(), wishes, max_mtu, mtu, sender, wake }, receiver)
    }

    pub(crate) const fn wishes(&self) -> Wishes {
        self.wishes
    }

    pub(crate) const fn max_mtu(&self) -> u16 {
        self.max_mtu
    }

    /// As [`PortControl::set_mac`](ethdev::PortControl::set_mac).
    pub(crate) fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        if mac.is_multicast() {
            return Err(self.failed(format!("{mac} is not the address of one station")));
        }
        self.change(Wishes { mac, ..self.wishes })
    }

    /// As [`PortControl::set_mtu`](ethdev::PortControl::set_mtu).
    pub(crate) fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        ethdev::mtu::check(mtu, &(ethdev::mtu::MIN..=self.max_mtu), || self.name.clone())?;
        self.change(Wishes { mtu, ..self.wishes })?;
        self.mtu.store(mtu, Relaxed);
        Ok(())
    }

    /// As [`PortControl::set_promiscuous`](ethdev::PortControl::set_promiscuous).
    pub(crate) fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        if on == self.wishes.promiscuous {
            return Ok(());
        }
        self.change(Wishes { promiscuous: on, ..self.wishes })
    }

    /// Has the port's thread make a change, and waits for the outcome.
    fn change(&mut self, to: Wishes) -> Result<(), Error> {
        let (done, outcome) = channel();
        let sent = self.sender.send(Change { to, done });
        sent.map_err(|_| self.failed("the port's thread has ended".to_owned()))?;
        let _ = self.wake.signal();
        outcome.recv_timeout(CHANGE_TIMEOUT).map_err(|_| {
            self.failed(format!("not done within {CHANGE_TIMEOUT:?}; is the device stuck?"))
        })??;
        self.wishes = to;
        Ok(())
    }

    fn failed(&self, reason: String) -> Error {
        Error::Device { what: self.name.clone(), reason }
    }
}

/// The thread of a port. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct PortThread {
    name: String,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl PortThread {
    /// Starts the thread of the port called `name`, which does `work` until `stop` is signalled.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(crate) fn start(
        name: &str,
        prefix: &str,
        stop: EventFd,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let builder = std::thread::Builder::new().name(format!("{prefix}-{name}"));
        let thread = Some(eal::thread::spawn(builder, work)?);
        Ok(Self { name: name.to_owned(), stop, thread })
    }
}

impl Drop for PortThread {
    fn drop(&mut self) {
        let _ = self.stop.signal();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of port {} has panicked", self.name);
        }
    }
}
