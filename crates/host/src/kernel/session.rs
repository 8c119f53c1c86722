//! A port's time with an interface: from when the port takes it up until it is gone, or the port.

use std::cell::Cell;
use std::io;

use packet::MacAddr;

use super::interface::Interface;
use super::link::carries;
use super::options::Settings;
use super::place::{Place, Remote};
use super::socket::Promiscuous;
use crate::interfaces::Interfaces;

/// What is particular to a driver; dropped when the port is closed, or its interface is gone.
pub(crate) trait Device: Send {
    /// Whether the queues are still those of the interface. For sockets: neither was it deleted,
    /// nor has it been in another network namespace meanwhile.
    fn is_attached(&self, index: u32) -> bool;

    /// Where the interface is, which had number `index` when it was taken up. Without a word from
    /// the driver, a queue does not leave the switch's network namespace.
    fn place(&self, asker: &Interfaces, index: u32) -> Place {
        asker.name(index).map_or(Place::Gone, Place::Here)
    }

    /// What was changed on the interface stays when the port is closed.
    fn leaves_changes(&self) -> bool {
        false
    }

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
    /// What was last known of it: whether it carries frames, and its MTU.
    last: Cell<(bool, u16)>,
}

impl Session {
    pub(crate) fn new(interface: &Interface<'_>, device: Box<dyn Device>, was_off: bool) -> Self {
        let (name, index) = (interface.name.clone(), interface.index);
        let before = Before { was_off, ..Before::default() };
        Self { name, index, device, promiscuous: None, before, last: Cell::new((false, 1500)) }
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

    fn place(&self, asker: &Interfaces) -> Place {
        self.device.place(asker, self.index)
    }

    /// Whether the interface carries frames, and its MTU; `None` when it is gone.
    pub(crate) fn facts(&self, asker: &Interfaces) -> Option<(bool, u16)> {
        let (up, mtu) = self.last.get();
        let facts = match self.place(asker) {
            Place::Here(name) => {
                let flags = asker.flags(&name).map_or(up, carries);
                (flags, asker.mtu(&name).unwrap_or(mtu))
            }
            Place::Elsewhere(remote) => (remote.up, remote.mtu.unwrap_or(mtu)),
            Place::Gone => return None,
        };
        // Last: if it is still attached, this was about it.
        let is_attached = self.device.is_attached(self.index);
        is_attached.then(|| self.last.set(facts));
        is_attached.then_some(facts)
    }

    /// What is known of the interface while it is in another network namespace.
    pub(crate) fn elsewhere(&self, asker: &Interfaces) -> Option<Remote> {
        match self.place(asker) {
            Place::Elsewhere(remote) => Some(remote),
            Place::Here(_) | Place::Gone => None,
        }
    }

    /// The interface's name now.
    pub(crate) fn name(&self, asker: &Interfaces) -> String {
        match self.place(asker) {
            Place::Here(name) | Place::Elsewhere(Remote { name, .. }) => name,
            Place::Gone => self.name.clone(),
        }
    }

    pub(crate) fn mac(&self, asker: &Interfaces) -> Option<MacAddr> {
        match self.place(asker) {
            Place::Here(name) => asker.mac(&name).ok(),
            Place::Elsewhere(remote) => remote.mac,
            Place::Gone => None,
        }
    }

    /// Changes something of the interface, if it can be changed; the error is the reason.
    fn change(
        &self,
        asker: &Interfaces,
        what: &str,
        act: impl Fn(&str) -> io::Result<()>,
    ) -> Result<(), String> {
        match self.place(asker) {
            Place::Here(_) => asker.by_name(self.index, act).map_err(|cause| refused(what, &cause)),
            Place::Elsewhere(Remote { name, .. }) => Err(format!(
                "cannot set {what}: it is in another network namespace, as '{name}'; use ip link \
                 there"
            )),
            Place::Gone => Err(format!("cannot set {what}: the interface is gone")),
        }
    }

    pub(crate) fn set_mac(&mut self, asker: &Interfaces, mac: MacAddr) -> Result<(), String> {
        let (what, before) = (format!("the MAC address {mac}"), self.mac(asker));
        self.change(asker, &what, |name| asker.set_mac(name, mac))?;
        self.before.mac = self.before.mac.or(before);
        Ok(())
    }

    pub(crate) fn set_mtu(&mut self, asker: &Interfaces, mtu: u16) -> Result<(), String> {
        let max = self.max_mtu();
        if mtu > max {
            return Err(format!("the MTU is at most {max}, not {mtu}"));
        }
        let what = format!("the MTU {mtu} (68 to {max})");
        let before = Cell::new(None);
        self.change(asker, &what, |name| {
            before.set(asker.mtu(name).ok());
            if before.get() == Some(mtu) { Ok(()) } else { asker.set_mtu(name, mtu) }
        })?;
        let changed = before.get().filter(|before| *before != mtu);
        self.before.mtu = self.before.mtu.or(changed);
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

    /// Facts about the interface and the port, by name.
    pub(crate) fn details(&self, asker: &Interfaces) -> Vec<(String, String)> {
        let mut details = vec![("interface".to_owned(), self.name(asker))];
        if let Some(remote) = self.elsewhere(asker) {
            let namespace = remote.namespace.map(|number| format!("net:[{number}]"));
            let namespace = namespace.unwrap_or_else(|| "another one".to_owned());
            details.push(("namespace".to_owned(), namespace));
        }
        details.extend(self.device.details());
        details
    }

    /// Undoes what was changed on the interface, if it is there.
    pub(crate) fn give_back(&mut self, asker: &Interfaces) {
        let Place::Here(name) = self.place(asker) else { return };
        let by_name = |act: &dyn Fn(&str) -> io::Result<()>| asker.by_name(self.index, act);
        if self.device.leaves_changes() || !self.device.is_attached(self.index) {
            return;
        }
        let before = std::mem::take(&mut self.before);
        let mtu = before.mtu.map_or(Ok(()), |mtu| by_name(&|name| asker.set_mtu(name, mtu)));
        let mac = before.mac.map_or(Ok(()), |mac| by_name(&|name| asker.set_mac(name, mac)));
        let off = if before.was_off { by_name(&|name| asker.set_down(name)) } else { Ok(()) };
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
