//! The switch's ports as control threads see them, and how queues get to the workers and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use eal::clock;
use ethdev::{Port, RxQueue, SharedTxQueue, TxQueue};

use crate::config::{MAX_PORTS, MAX_TX_RETRIES};
use crate::error::Error;
use crate::inputs::Input;
use crate::output::Output;
use crate::report::PortReport;
use crate::worker::{Mailbox, Message};

/// The longest name of a port, in bytes.
const MAX_NAME: usize = 32;

/// How long a worker relies on a queue to be ready before it looks again.
const RECHECK: Duration = Duration::from_millis(1);

/// A port.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u16,
    port: Port,
    /// As the workers see it.
    mtu: Arc<AtomicU32>,
    /// The worker of each receive queue.
    rx_workers: Vec<usize>,
    /// How often the link had changed when it was last looked at.
    link_changes: u64,
}

impl Entry {
    pub(crate) const fn new(
        number: u16,
        port: Port,
        mtu: Arc<AtomicU32>,
        rx_workers: Vec<usize>,
    ) -> Self {
        Self { number, port, mtu, rx_workers, link_changes: 0 }
    }

    /// The number that the data path knows the port by.
    pub(crate) const fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn set_mtu(&mut self, name: &str, mtu: u16) -> Result<(), Error> {
        let set = self.port.control_mut().set_mtu(mtu);
        set.map_err(|source| Error::Port { name: name.to_owned(), source })?;
        self.update_mtu();
        Ok(())
    }

    /// Whether the link is down, or was down for a while since this was asked last.
    fn was_down(&mut self) -> bool {
        let link = self.port.control().link();
        let changes = link.changes.saturating_sub(self.link_changes);
        self.link_changes = link.changes;
        !link.up || changes > 1
    }

    /// Tells the workers the device's MTU.
    fn update_mtu(&self) {
        self.mtu.store(u32::from(self.port.control().mtu()), Relaxed);
    }

    pub(crate) fn report(&self, name: &str, fdb_entries: usize) -> PortReport {
        let control = self.port.control();
        PortReport {
            name: name.to_owned(),
            device: self.port.device().to_owned(),
            driver: control.info().driver,
            link: control.link(),
            mac: control.mac(),
            mtu: control.mtu(),
            rx_workers: self.rx_workers.clone(),
            stats: self.port.stats(),
            extended: control.extended_stats(),
            details: control.details(),
            fdb_entries,
        }
    }
}

/// All ports, by name.
#[derive(Debug, Default)]
pub(crate) struct Ports(BTreeMap<String, Entry>);

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

    /// Whether the link of port `number` is down, or was down since this was asked last.
    pub(crate) fn was_down(&mut self, number: u16) -> bool {
        let mut entries = self.0.values_mut();
        entries.find(|entry| entry.number == number).is_some_and(Entry::was_down)
    }

    /// The name of port `number`.
    pub(crate) fn name_of(&self, number: u16) -> Option<&str> {
        self.iter().find(|(_, entry)| entry.number == number).map(|(name, _)| name)
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
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Gives all workers the way to a port.
pub(crate) fn attach(
    number: u16,
    tx: Vec<TxQueue>,
    mtu: &Arc<AtomicU32>,
    retries: u32,
    workers: &[Mailbox],
) {
    let recheck = clock::cycles(RECHECK);
    let retries = retries.min(MAX_TX_RETRIES);
    let output =
        |worker, queues| Box::new(Output::new(queues, worker, recheck, Arc::clone(mtu), retries));
    if let [only] = workers {
        only.ask(|done| Message::AddOutput(number, output(0, tx), done));
        return;
    }
    // Which queue a worker uses depends on which are ready, so any worker may come to use any
    // queue.
    let shared: Vec<SharedTxQueue> = tx.into_iter().map(SharedTxQueue::new).collect();
    for (index, worker) in workers.iter().enumerate() {
        let queues = shared.iter().cloned().map(TxQueue::from).collect();
        worker.ask(|done| Message::AddOutput(number, output(index, queues), done));
    }
}

/// Takes the way to a port from all workers.
pub(crate) fn detach(number: u16, workers: &[Mailbox]) -> Vec<Output> {
    let take = |worker: &Mailbox| worker.ask(|reply| Message::TakeOutput(number, reply));
    workers.iter().filter_map(|worker| take(worker).flatten()).collect()
}

/// Gives the receive queues of a port to the workers in `places`, by queue number.
pub(crate) fn poll(number: u16, rx: Vec<RxQueue>, places: &[usize], workers: &[Mailbox]) {
    for (rx, place) in rx.into_iter().zip(places) {
        if let Some(worker) = workers.get(*place) {
            let input = Box::new(Input::new(number, rx));
            worker.ask(|done| Message::AddInput(input, done));
        }
    }
}

/// Takes the receive queues of a port from the workers.
pub(crate) fn unpoll(number: u16, workers: &[Mailbox]) -> Vec<Input> {
    let take = |worker: &Mailbox| worker.ask(|reply| Message::TakeInputs(number, reply));
    workers.iter().filter_map(take).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_ordinary_characters() {
        for good in ["a", "vm1", "0", "tap-vm_1.0", &"x".repeat(32)] {
            assert!(is_port_name(good), "{good}");
        }
        for bad in ["", "-a", ".", "a b", "a/b", "a:b", "ä", "a\n", &"x".repeat(33)] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }
}
