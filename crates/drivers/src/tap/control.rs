//! The control side of a TAP port: what ip-link(8) does, by ioctl.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ethdev::{Error, Link, PortControl, PortEvents, PortInfo};
use packet::{Capabilities, MacAddr};

use super::queue::State;
use super::sys;
use super::{INFO, MAX_MTU};
use crate::interfaces::Interfaces;

/// Control side of a TAP port.
#[derive(Debug)]
pub(super) struct TapControl {
    interfaces: Interfaces,
    /// A descriptor per queue; the first one knows the interface's name, should it change.
    fds: Vec<Arc<OwnedFd>>,
    state: Arc<State>,
    offloads: Capabilities,
    name: String,
    /// The last state of the link that somebody asked for, to count changes.
    link: Cell<Link>,
    /// The last values seen, for when the interface is gone.
    mac: Cell<MacAddr>,
    mtu: Cell<u16>,
}

impl TapControl {
    /// The control side of attached queues; the error is the reason.
    pub(super) fn new(
        interfaces: Interfaces,
        fds: Vec<Arc<OwnedFd>>,
        state: Arc<State>,
        offloads: Capabilities,
    ) -> Result<Self, String> {
        let first = fds.first().ok_or("it has no queue")?;
        let (name, _) = sys::attached_to(first.as_fd())
            .map_err(|cause| format!("cannot ask the kernel about it: {cause}"))?;
        let (link, mac, mtu) = (Cell::default(), Cell::default(), Cell::default());
        Ok(Self { interfaces, fds, state, offloads, name, link, mac, mtu })
    }

    /// Applies the options of a device string.
    pub(super) fn configure(
        &mut self,
        mtu: Option<u16>,
        mac: Option<MacAddr>,
        up: Option<bool>,
    ) -> Result<(), Error> {
        // The address first: some kernels refuse to change it while the interface is up.
        if let Some(mac) = mac {
            self.set_mac(mac)?;
        }
        if let Some(mtu) = mtu {
            self.set_mtu(mtu)?;
        }
        if up.unwrap_or(true) {
            self.switch_on(up.is_some())?;
        }
        self.link.set(Link { up: self.is_up(), ..Link::default() });
        Ok(())
    }

    fn switch_on(&self, asked_for: bool) -> Result<(), Error> {
        let name = self.name();
        let is_on = self.interfaces.flags(&name).is_ok_and(|flags| flags & libc::IFF_UP != 0);
        let Err(cause) = (if is_on { Ok(()) } else { self.interfaces.set_up(&name) }) else {
            return Ok(());
        };
        let remedy = format!("run as root: ip link set {name} up");
        if asked_for {
            return Err(self.error(format!("cannot switch it on: {cause}; {remedy}")));
        }
        tracing::warn!("TAP interface '{name}' is down and stays so ({cause}); {remedy}");
        Ok(())
    }

    /// The interface's name now.
    fn name(&self) -> String {
        let asked = self.fds.first().and_then(|fd| sys::attached_to(fd.as_fd()).ok());
        asked.map_or_else(|| self.name.clone(), |(name, _)| name)
    }

    fn is_up(&self) -> bool {
        let wanted = libc::IFF_UP | libc::IFF_RUNNING;
        self.state.is_alive()
            && self.interfaces.flags(&self.name()).is_ok_and(|flags| flags & wanted == wanted)
    }

    fn error(&self, reason: String) -> Error {
        Error::Device { what: format!("TAP interface '{}'", self.name()), reason }
    }

    fn refused(&self, what: &str, cause: &io::Error) -> Error {
        let remedy = match cause.raw_os_error() {
            Some(libc::EPERM) => "; run with CAP_NET_ADMIN, or use ip link as root",
            _ => "",
        };
        self.error(format!("cannot set {what}: {cause}{remedy}"))
    }
}

impl PortControl for TapControl {
    fn info(&self) -> PortInfo {
        PortInfo {
            driver: INFO.name,
            rx_queues: self.fds.len(),
            tx_queues: self.fds.len(),
            max_mtu: MAX_MTU,
        }
    }

    /// Up when the host has switched the interface on. Changes are counted from call to call.
    fn link(&self) -> Link {
        let mut link = self.link.get();
        let up = self.is_up();
        link.changes += u64::from(up != link.up);
        link.up = up;
        self.link.set(link);
        link
    }

    /// The address of the host's interface.
    fn mac(&self) -> MacAddr {
        if let Ok(mac) = self.interfaces.mac(&self.name()) {
            self.mac.set(mac);
        }
        self.mac.get()
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.interfaces
            .set_mac(&self.name(), mac)
            .map_err(|cause| self.refused(&format!("the MAC address {mac}"), &cause))
    }

    fn mtu(&self) -> u16 {
        if let Ok(mtu) = self.interfaces.mtu(&self.name()) {
            self.mtu.set(mtu);
        }
        self.mtu.get()
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        self.interfaces
            .set_mtu(&self.name(), mtu)
            .map_err(|cause| self.refused(&format!("the MTU {mtu} (68 to {MAX_MTU})"), &cause))
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.state.events)
    }

    fn details(&self) -> Vec<(String, String)> {
        let offloads = self.offloads.iter_names().map(|(name, _)| name).collect::<Vec<_>>();
        let offloads = if offloads.is_empty() { "none".to_owned() } else { offloads.join(" ") };
        vec![("interface".to_owned(), self.name()), ("offloads".to_owned(), offloads)]
    }
}

impl Drop for TapControl {
    fn drop(&mut self) {
        self.state.close();
    }
}
