//! The control side of a port on an interface of the host: what ip-link(8) does, by ioctl.
//!
//! The interface is not ours: what is changed on it is undone when the port is closed. Only
//! promiscuous mode is undone by the kernel itself when the process dies.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use ethdev::{Error, Link, PortControl, PortEvents, PortInfo};
use packet::MacAddr;

use super::interface::Interface;
use super::link::{LinkState, LinkWatch, carries};
use super::options::Settings;
use super::socket::Promiscuous;
use crate::interfaces::Interfaces;

/// What is particular to a driver; dropped when the port is closed.
pub(crate) trait Device: Send {
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

/// Control side of a port.
pub(crate) struct KernelControl {
    info: PortInfo,
    /// The device as messages name it: `AF_XDP port on 'eth0'`.
    what: String,
    index: u32,
    asker: Interfaces,
    state: Arc<LinkState>,
    device: Box<dyn Device>,
    promiscuous: Option<Promiscuous>,
    before: Before,
    /// The last values seen, for when the interface is gone.
    name: RefCell<String>,
    mac: Cell<MacAddr>,
    mtu: Cell<u16>,
    /// Dropped last, and without anything that it could be waiting for.
    _watch: LinkWatch,
}

impl std::fmt::Debug for KernelControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelControl").field("what", &self.what).finish_non_exhaustive()
    }
}

impl KernelControl {
    /// The control side of a port on `interface`, which was off before the port was opened if
    /// `was_off`. The error is the reason.
    pub(crate) fn new(
        info: PortInfo,
        what: &str,
        interface: Interface,
        was_off: bool,
        state: Arc<LinkState>,
        device: Box<dyn Device>,
    ) -> Result<Self, String> {
        let Interface { name, index, asker } = interface;
        let watch = LinkWatch::start(index, Arc::clone(&state))
            .map_err(|cause| format!("cannot watch its link: {cause}"))?;
        let before = Before { was_off, ..Before::default() };
        Ok(Self {
            info,
            what: what.to_owned(),
            index,
            asker,
            state,
            device,
            promiscuous: None,
            before,
            name: RefCell::new(name),
            mac: Cell::default(),
            mtu: Cell::default(),
            _watch: watch,
        })
    }

    /// Applies the options of a device string.
    pub(crate) fn configure(&mut self, settings: &Settings) -> Result<(), Error> {
        if let Some(mac) = settings.mac {
            self.set_mac(mac)?;
        }
        match settings.mtu {
            Some(mtu) => self.set_mtu(mtu)?,
            None => self.warn_of_mtu(),
        }
        self.set_promiscuous(settings.promiscuous)
    }

    /// Says so where the interface may have longer frames than the port can carry.
    fn warn_of_mtu(&self) {
        let (mtu, max) = (self.mtu(), self.info.max_mtu);
        if mtu > max {
            let what = &self.what;
            tracing::warn!("{what}: its MTU is {mtu}, but the port carries {max} bytes at most");
        }
    }

    /// The interface's name now.
    fn name(&self) -> String {
        if let Ok(name) = self.asker.name(self.index) {
            self.name.replace(name);
        }
        self.name.borrow().clone()
    }

    fn error(&self, reason: String) -> Error {
        Error::Device { what: self.what.clone(), reason }
    }

    fn refused(&self, what: &str, cause: &io::Error) -> Error {
        let remedy = match cause.raw_os_error() {
            Some(libc::EPERM) => "; run with CAP_NET_ADMIN, or use ip link as root",
            Some(libc::EBUSY) => "; set it before the port is opened, with ip link",
            _ => "",
        };
        self.error(format!("cannot set {what}: {cause}{remedy}"))
    }

    fn undo(&mut self) {
        let name = self.name();
        let before = std::mem::take(&mut self.before);
        let mtu = before.mtu.map_or(Ok(()), |mtu| self.asker.set_mtu(&name, mtu));
        let mac = before.mac.map_or(Ok(()), |mac| self.asker.set_mac(&name, mac));
        let off = if before.was_off { self.asker.set_down(&name) } else { Ok(()) };
        for (undone, what) in [(mtu, "MTU"), (mac, "MAC address"), (off, "state")] {
            if let Err(cause) = undone {
                tracing::warn!("interface '{name}' does not get its {what} back: {cause}");
            }
        }
    }
}

impl PortControl for KernelControl {
    fn info(&self) -> PortInfo {
        self.info.clone()
    }

    /// Up when the interface is, as ip-link(8) shows it: switched on, with a carrier.
    fn link(&self) -> Link {
        let mut link = self.state.link();
        // The thread that watches may not have come to it yet.
        let flags = self.asker.name(self.index).and_then(|name| self.asker.flags(&name));
        link.up &= flags.is_ok_and(carries);
        link
    }

    fn mac(&self) -> MacAddr {
        if let Ok(mac) = self.asker.mac(&self.name()) {
            self.mac.set(mac);
        }
        self.mac.get()
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        let before = self.mac();
        self.asker
            .set_mac(&self.name(), mac)
            .map_err(|cause| self.refused(&format!("the MAC address {mac}"), &cause))?;
        self.before.mac.get_or_insert(before);
        Ok(())
    }

    fn mtu(&self) -> u16 {
        if let Ok(mtu) = self.asker.mtu(&self.name()) {
            self.mtu.set(mtu);
        }
        self.mtu.get()
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let (before, max) = (self.mtu(), self.info.max_mtu);
        if mtu > max {
            return Err(self.error(format!("the MTU is at most {max}, not {mtu}")));
        }
        if mtu == before {
            return Ok(());
        }
        self.asker
            .set_mtu(&self.name(), mtu)
            .map_err(|cause| self.refused(&format!("the MTU {mtu} (68 to {max})"), &cause))?;
        self.before.mtu.get_or_insert(before);
        self.state.set_mtu(mtu);
        Ok(())
    }

    fn promiscuous(&self) -> bool {
        self.promiscuous.is_some()
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        if !on {
            self.promiscuous = None;
        } else if self.promiscuous.is_none() {
            let made = Promiscuous::new(self.index);
            let made = made.map_err(|cause| self.refused("promiscuous mode", &cause))?;
            self.promiscuous = Some(made);
        }
        Ok(())
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        self.device.extended_stats()
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.state.events)
    }

    fn details(&self) -> Vec<(String, String)> {
        let mut details = vec![("interface".to_owned(), self.name())];
        details.extend(self.device.details());
        details
    }
}

impl Drop for KernelControl {
    fn drop(&mut self) {
        self.state.close();
        if self.asker.name(self.index).is_ok() {
            self.undo();
        }
    }
}
