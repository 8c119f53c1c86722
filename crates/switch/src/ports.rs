//! The switch's ports as control threads see them.
//!
//! - `entry`: one of them
//! - `served`: its workers' side: how its queues get to them, and back

mod entry;
mod served;

use datapath::bridge::BridgeId;
use datapath::worker::Mailbox;
use litemap::LiteMap;

use crate::config::MAX_PORTS;
use crate::error::Error;

pub(crate) use entry::{Entry, Ticket};

/// The longest name of a port, in bytes.
const MAX_NAME: usize = 32;

/// All ports, by name.
#[derive(Debug, Default)]
pub(crate) struct Ports(LiteMap<String, Entry>);

impl Ports {
    /// Checks that a port `name` can be added.
    pub(crate) fn check_new(&self, name: &str) -> Result<(), Error> {
        let name = || name.to_owned();
        if !is_port_name(&name()) {
            return Err(Error::PortName { name: name() });
        }
        if self.0.contains_key(&name()) {
            return Err(Error::DuplicatePort { name: name() });
        }
        if self.0.len() >= MAX_PORTS {
            return Err(Error::TooManyPorts { name: name(), max: MAX_PORTS });
        }
        Ok(())
    }

    /// The smallest number that no port has.
    pub(crate) fn free_number(&self) -> Option<u16> {
        let mut used = [false; MAX_PORTS];
        for entry in self.0.values() {
            if let Some(used) = used.get_mut(usize::from(entry.number)) {
                *used = true;
            }
        }
        used.iter().position(|used| !used).and_then(|number| u16::try_from(number).ok())
    }

    pub(crate) fn insert(&mut self, name: String, entry: Entry) {
        self.0.insert(name, entry);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Entry, Error> {
        self.0.get(name).ok_or_else(|| self.unknown(name))
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Result<&mut Entry, Error> {
        if !self.0.contains_key(name) {
            return Err(self.unknown(name));
        }
        self.0
            .get_mut(name)
            .ok_or_else(|| Error::UnknownPort { name: name.to_owned(), known: Vec::new() })
    }

    fn unknown(&self, name: &str) -> Error {
        Error::UnknownPort { name: name.to_owned(), known: self.0.keys().cloned().collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The ports of a bridge.
    pub(crate) fn of_bridge(&self, bridge: BridgeId) -> impl Iterator<Item = (&str, &Entry)> {
        self.iter().filter(move |(_, entry)| entry.bridge == bridge)
    }

    /// Whether any port of a bridge has VLAN settings.
    pub(crate) fn have_vlans(&self, bridge: BridgeId) -> bool {
        self.of_bridge(bridge).any(|(_, entry)| !entry.options.vlan.is_default())
    }

    /// All ports, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut().map(|(_, entry)| entry)
    }

    /// See [`Entry::look_at_owners`].
    pub(crate) fn look_at_owners(&mut self, workers: &[Mailbox], alive: &[usize]) {
        self.iter_mut().for_each(|entry| entry.look_at_owners(workers, alive));
    }

    /// See [`Entry::look_at_lost`].
    pub(crate) fn look_at_lost(&mut self, number: u16, workers: &[Mailbox]) {
        if let Some(entry) = self.iter_mut().find(|entry| entry.number == number) {
            entry.look_at_lost(workers);
        }
    }

    /// Whether the link of port `number` is down, or was down since this was asked last.
    pub(crate) fn was_down(&mut self, number: u16) -> bool {
        let mut entries = self.iter_mut();
        entries.find(|entry| entry.number == number).is_some_and(Entry::was_down)
    }

    /// Port `number`, with its name.
    pub(crate) fn numbered(&self, number: u16) -> Option<(&str, &Entry)> {
        self.iter().find(|(_, entry)| entry.number == number)
    }

    /// The same, to be changed.
    pub(crate) fn numbered_mut(&mut self, number: u16) -> Option<(&str, &mut Entry)> {
        let mut all = self.0.iter_mut();
        let found = all.find(|(_, entry)| entry.number == number);
        found.map(|(name, entry)| (name.as_str(), entry))
    }

    /// The name of port `number`.
    pub(crate) fn name_of(&self, number: u16) -> Option<&str> {
        self.numbered(number).map(|(name, _)| name)
    }

    /// The receive queues that a worker polls: port name and queue number.
    pub(crate) fn queues_of(&self, worker: usize) -> impl Iterator<Item = (&str, usize)> {
        self.iter().flat_map(move |(name, entry)| {
            let queues = entry.rx_workers.iter().enumerate();
            queues.filter(move |(_, of)| **of == worker).map(move |(queue, _)| (name, queue))
        })
    }

    /// Tells the workers the MTUs, which a device may change by itself.
    pub(crate) fn update_mtus(&self) {
        self.0.values().for_each(Entry::update_mtu);
    }
}

/// Whether `name` can be a port's: what a shell, a table and a metric take without quoting, and no
/// command takes for an option.
#[must_use]
pub fn is_port_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_ordinary_characters() {
        for good in ["a", "vm1", "0", "tap-vm_1.0", "patch+", &"x".repeat(32)] {
            assert!(is_port_name(good), "{good}");
        }
        for bad in ["", "-a", ".", "a b", "a/b", "a:b", "ä", "a\n", &"x".repeat(33)] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }
}
