//! A port's time with an interface: from when the port takes it up until it is gone, or the port.

use std::io;
use std::sync::Arc;

use eal::Epoll;
use ethdev::{RxDriver, TxDriver};
use packet::MacAddr;

use super::interface::{Interface, NotOpened};
use super::link::{LinkState, carries};
use super::options::Settings;
use super::socket::Promiscuous;
use crate::interfaces::Interfaces;

/// A driver of ports on interfaces of the host.
pub(crate) trait Driver: Send + 'static {
    /// What device strings call it.
    const NAME: &'static str;
    /// What messages call it.
    const TITLE: &'static str;
    type Rx: RxDriver + 'static;
    type Tx: TxDriver + 'static;

    /// How many queue pairs the port is to have, whether its interface is there or not.
    fn queues(&self, name: &str, asker: &Interfaces) -> usize;

    /// Whether this process may open such a port at all; the error is the reason.
    fn check_rights(&self) -> Result<(), String>;

    /// Opens queues on an interface: one for each of `waits`, or as many as it has. A worker may
    /// sleep on each of these already.
    fn open(
        &mut self,
        interface: &Interface<'_>,
        wanted: &Settings,
        waits: Vec<Arc<Epoll>>,
        state: &Arc<LinkState>,
    ) -> Result<Opened<Self::Rx, Self::Tx>, NotOpened>;
}

/// What a driver has opened.
pub(crate) struct Opened<R, T> {
    pub(crate) rx: Vec<R>,
    pub(crate) tx: Vec<T>,
    pub(crate) device: Box<dyn Device>,
    /// The interface was off before.
    pub(crate) was_off: bool,
}

/// What is particular to a driver; dropped when the port is closed, or its interface is gone.
pub(crate) trait Device: Send {
    /// Whether the sockets are still those of the interface: neither was it deleted, nor has it
    /// been in another network namespace meanwhile.
    fn is_attached(&self, index: u32) -> bool;

    /// Largest MTU that the queues can carry, in bytes.
    fn max_mtu(&self) -> u16;

    /// Counters of the kernel's, by name.
    fn extended_stats(&self) -> Vec<(String, u64)>;

    /// Facts about the port, by name.
    fn details(&self) -> Vec<(String, String)>;
}

/// What the interface was like before.
#[derive(Debug, Default)]
struct Before {
    mtu: Option<u16>,
    mac: Option<MacAddr>,
    /// It was off.
    was_off: bool,
}

/// An interface that a port uses.
pub(crate) struct Session {
    /// Its name when it was taken up.
    name: String,
    /// What it is known by: names change.
    index: u32,
    device: Box<dyn Device>,
    promiscuous: Option<Promiscuous>,
    before: Before,
}

impl Session {
    pub(crate) fn new(interface: Interface<'_>, device: Box<dyn Device>, was_off: bool) -> Self {
        let Interface { name, index, .. } = interface;
        let before = Before { was_off, ..Before::default() };
        Self { name, index, device, promiscuous: None, before }
    }

    /// Makes the interface what it is to be; the error is the reason.
    pub(crate) fn configure(
        &mut self,
        asker: &Interfaces,
        wanted: &Settings,
    ) -> Result<(), String> {
        // The address first: some drivers refuse to change it later.
        if let Some(mac) = wanted.mac {
            self.set_mac(asker, mac)?;
        }
        if let Some(mtu) = wanted.mtu {
            self.set_mtu(asker, mtu)?;
        }
        self.set_promiscuous(wanted.promiscuous)
    }

    /// Whether the interface carries frames, and its MTU; `None` when it is gone.
    pub(crate) fn facts(&self, asker: &Interfaces) -> Option<(bool, u16)> {
        let name = asker.name(self.index).ok()?;
        let facts = (carries(asker.flags(&name).ok()?), asker.mtu(&name).ok()?);
        // Last: if it is still attached, this was about it.
        self.device.is_attached(self.index).then_some(facts)
    }

    /// The interface's name now.
    pub(crate) fn name(&self, asker: &Interfaces) -> String {
        asker.name(self.index).unwrap_or_else(|_| self.name.clone())
    }

    pub(crate) fn mac(&self, asker: &Interfaces) -> Option<MacAddr> {
        asker.mac(&self.name(asker)).ok()
    }

    pub(crate) fn set_mac(&mut self, asker: &Interfaces, mac: MacAddr) -> Result<(), String> {
        let (name, before) = (self.name(asker), self.mac(asker));
        asker
            .set_mac(&name, mac)
            .map_err(|cause| refused(&format!("the MAC address {mac}"), &cause))?;
        self.before.mac = self.before.mac.or(before);
        Ok(())
    }

    pub(crate) fn set_mtu(&mut self, asker: &Interfaces, mtu: u16) -> Result<(), String> {
        let (name, max) = (self.name(asker), self.max_mtu());
        if mtu > max {
            return Err(format!("the MTU is at most {max}, not {mtu}"));
        }
        let before = asker.mtu(&name).ok();
        if before == Some(mtu) {
            return Ok(());
        }
        asker
            .set_mtu(&name, mtu)
            .map_err(|cause| refused(&format!("the MTU {mtu} (68 to {max})"), &cause))?;
        self.before.mtu = self.before.mtu.or(before);
        Ok(())
    }

    pub(crate) fn set_promiscuous(&mut self, on: bool) -> Result<(), String> {
        if !on {
            self.promiscuous = None;
        } else if self.promiscuous.is_none() {
            let made = Promiscuous::new(self.index);
            self.promiscuous = Some(made.map_err(|cause| refused("promiscuous mode", &cause))?);
        }
        Ok(())
    }

    pub(crate) fn max_mtu(&self) -> u16 {
        self.device.max_mtu()
    }

    pub(crate) fn extended_stats(&self) -> Vec<(String, u64)> {
        self.device.extended_stats()
    }

    pub(crate) fn details(&self) -> Vec<(String, String)> {
        self.device.details()
    }

    /// Undoes what was changed on the interface, if it is there.
    pub(crate) fn give_back(&mut self, asker: &Interfaces) {
        let Ok(name) = asker.name(self.index) else { return };
        if !self.device.is_attached(self.index) {
            return;
        }
        let before = std::mem::take(&mut self.before);
        let mtu = before.mtu.map_or(Ok(()), |mtu| asker.set_mtu(&name, mtu));
        let mac = before.mac.map_or(Ok(()), |mac| asker.set_mac(&name, mac));
        let off = if before.was_off { asker.set_down(&name) } else { Ok(()) };
        for (undone, what) in [(mtu, "MTU"), (mac, "MAC address"), (off, "state")] {
            if let Err(cause) = undone {
                tracing::warn!("interface '{name}' does not get its {what} back: {cause}");
            }
        }
    }
}

/// Why something cannot be set.
fn refused(what: &str, cause: &io::Error) -> String {
    let remedy = match cause.raw_os_error() {
        Some(libc::EPERM) => "; run with CAP_NET_ADMIN, or use ip link as root",
        Some(libc::EBUSY) => "; set it before the port is opened, with ip link",
        _ => "",
    };
    format!("cannot set {what}: {cause}{remedy}")
}
