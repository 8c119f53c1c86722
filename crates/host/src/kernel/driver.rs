//! Drivers of ports on interfaces of the host: what each is by itself, and what the control side, which is
//! the same for all, knows of it.

use std::io;
use std::sync::Arc;

use eal::Epoll;
use ethdev::{RxDriver, RxQueue, TxDriver, TxQueue};

use super::interface::{Interface, NotOpened};
use super::link::LinkState;
use super::options::{MAX_MTU, Settings};
use super::session::Device;
use super::slot::Slots;
use crate::interfaces::Interfaces;

/// What all ports of a driver have in common.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What device strings call it.
    pub(crate) name: &'static str,
    /// What messages call it.
    pub(crate) title: &'static str,
    /// Largest MTU that a port can have, in bytes.
    pub(crate) max_mtu: u16,
    /// Frames for all stations are received, whatever anybody wants.
    pub(crate) always_promiscuous: bool,
    /// The driver makes the interface where it is not there. What fails then is tried again after
    /// a while, since trying may itself be what the kernel tells of.
    pub(crate) makes_interfaces: bool,
}

impl Kind {
    /// That of a driver for interfaces that are there, which are promiscuous when they are told to.
    pub(crate) const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title, max_mtu: MAX_MTU, always_promiscuous: false, makes_interfaces: false }
    }
}

/// A driver of ports on interfaces of the host.
pub(crate) trait Driver: Send + 'static {
    const KIND: Kind;
    type Rx: RxDriver + 'static;
    type Tx: TxDriver + 'static;

    /// How many queue pairs the port is to have, whether its interface is there or not.
    fn queues(&self, name: &str, asker: &Interfaces) -> usize;

    /// Whether this process may open such a port at all; the error is the reason.
    fn check_rights(&self) -> Result<(), String>;

    /// Finds the interface in the calling thread's network namespace, or makes it.
    fn find<'a>(&mut self, name: &str, asker: &'a Interfaces) -> Result<Interface<'a>, NotOpened> {
        Interface::find(name, asker)
    }

    /// Opens queues on an interface: one for each of `waits`, or as many as it has. A worker may
    /// sleep on each of these already.
    fn open(
        &mut self,
        interface: &Interface<'_>,
        wanted: &Settings,
        waits: Vec<Arc<Epoll>>,
        state: &Arc<LinkState>,
    ) -> Result<Opened<Self::Rx, Self::Tx>, NotOpened>;

    /// The interface is as it was asked for, and about to be used; the error is the reason why it
    /// is not yet what it should be.
    fn finish(&self, interface: &Interface<'_>) -> Result<(), String> {
        let _ = interface;
        Ok(())
    }
}

/// What a driver has opened.
pub(crate) struct Opened<R, T> {
    pub(crate) rx: Vec<R>,
    pub(crate) tx: Vec<T>,
    pub(crate) device: Box<dyn Device>,
    /// The interface was off before.
    pub(crate) was_off: bool,
}

/// A driver with the slots that its queues lie in, whatever these are.
pub(crate) trait Queues: Send {
    /// What all ports of this driver have in common.
    fn kind(&self) -> &'static Kind;

    /// Makes as many slots as a port on interface `name` is to have, and gives the queues for the workers;
    /// to be called once.
    fn make_slots(
        &mut self,
        name: &str,
        asker: &Interfaces,
        state: &Arc<LinkState>,
    ) -> io::Result<(Vec<RxQueue>, Vec<TxQueue>)>;

    /// Queue pairs of the port.
    fn count(&self) -> usize;

    /// See [`Driver::check_rights`].
    fn check_rights(&self) -> Result<(), String>;

    /// See [`Driver::find`].
    fn find<'a>(&mut self, name: &str, asker: &'a Interfaces) -> Result<Interface<'a>, NotOpened>;

    /// Opens queues on an interface, which are not in use until they are in the slots.
    fn open(
        &mut self,
        interface: &Interface<'_>,
        wanted: &Settings,
        state: &Arc<LinkState>,
    ) -> Result<Ready, NotOpened>;

    /// See [`Driver::finish`].
    fn finish(&self, interface: &Interface<'_>) -> Result<(), String>;

    /// Empties the slots, which ends what the workers are at with these queues.
    fn clear(&self);
}

/// Queues that are open and not yet in use.
pub(crate) struct Ready {
    /// Puts them into the slots.
    pub(crate) fill: Box<dyn FnOnce()>,
    pub(crate) device: Box<dyn Device>,
    /// The interface was off before.
    pub(crate) was_off: bool,
}

/// A driver and its slots.
struct Slotted<D: Driver> {
    driver: D,
    slots: Slots<D::Rx, D::Tx>,
}

/// A driver that has no slots yet.
pub(crate) fn slotted<D: Driver>(driver: D) -> Box<dyn Queues> {
    Box::new(Slotted { driver, slots: Slots::default() })
}

impl<D: Driver> Queues for Slotted<D> {
    fn kind(&self) -> &'static Kind {
        &D::KIND
    }

    fn make_slots(
        &mut self,
        name: &str,
        asker: &Interfaces,
        state: &Arc<LinkState>,
    ) -> io::Result<(Vec<RxQueue>, Vec<TxQueue>)> {
        self.slots = Slots::new(self.driver.queues(name, asker))?;
        Ok(self.slots.queues(state))
    }

    fn count(&self) -> usize {
        self.slots.count()
    }

    fn check_rights(&self) -> Result<(), String> {
        self.driver.check_rights()
    }

    fn find<'a>(&mut self, name: &str, asker: &'a Interfaces) -> Result<Interface<'a>, NotOpened> {
        self.driver.find(name, asker)
    }

    fn open(
        &mut self,
        interface: &Interface<'_>,
        wanted: &Settings,
        state: &Arc<LinkState>,
    ) -> Result<Ready, NotOpened> {
        let opened = self.driver.open(interface, wanted, self.slots.waits(), state)?;
        let Opened { rx, tx, device, was_off } = opened;
        let slots = self.slots.clone();
        Ok(Ready { fill: Box::new(move || slots.fill(rx, tx)), device, was_off })
    }

    fn finish(&self, interface: &Interface<'_>) -> Result<(), String> {
        self.driver.finish(interface)
    }

    fn clear(&self) {
        self.slots.clear();
    }
}
