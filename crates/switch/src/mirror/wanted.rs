//! The mirrors of a switch as control threads see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::taps::{Counters, PortSet, Tap, Taps, To};
use super::{MAX_MIRRORS, Mirror};
use crate::error::Error;
use crate::ports::is_port_name;
use crate::report::MirrorReport;

/// A mirror, and for each worker that there ever was what it has counted of it.
#[derive(Debug)]
struct Entry {
    mirror: Mirror,
    counters: Vec<Arc<Counters>>,
    /// Where those of the present workers begin.
    first: usize,
}

/// All mirrors, by name.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(BTreeMap<String, Entry>);

impl Mirrors {
    /// Adds or changes one, which goes on counting then; the switch has so many workers. Returns
    /// what it was before.
    pub(crate) fn set(
        &mut self,
        name: &str,
        mirror: &Mirror,
        workers: usize,
    ) -> Result<Option<Mirror>, Error> {
        let wrong = |reason| Error::Mirror { name: name.to_owned(), reason };
        mirror.check().map_err(|(_, reason)| wrong(reason))?;
        if let Some(entry) = self.0.get_mut(name) {
            return Ok(Some(std::mem::replace(&mut entry.mirror, mirror.clone())));
        }
        if !is_port_name(name) {
            return Err(wrong("expected a name like a port's".to_owned()));
        }
        if self.0.len() >= MAX_MIRRORS {
            return Err(wrong(format!("there are {MAX_MIRRORS} mirrors already")));
        }
        let counters = (0..workers).map(|_| Arc::default()).collect();
        self.0.insert(name.to_owned(), Entry { mirror: mirror.clone(), counters, first: 0 });
        Ok(None)
    }

    /// Removes one, and returns what it was.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Mirror> {
        self.0.remove(name).map(|entry| entry.mirror)
    }

    /// There are others, so many workers from now on: each gets counters that nobody else has.
    pub(crate) fn restart(&mut self, workers: usize) {
        for entry in self.0.values_mut() {
            entry.first = entry.counters.len();
            entry.counters.extend((0..workers).map(|_| Arc::default()));
        }
    }

    /// Whether a bridge has any.
    pub(crate) fn concern(&self, bridge: &str) -> bool {
        self.of(bridge).next().is_some()
    }

    fn of(&self, bridge: &str) -> impl Iterator<Item = &Entry> {
        self.0.values().filter(move |entry| entry.mirror.bridge_name() == bridge)
    }

    /// What a worker is to know of the mirrors of a bridge, whose ports are given by name and number;
    /// `None` where it has none. A mirror whose output port is not there does nothing.
    pub(crate) fn taps(
        &self,
        bridge: &str,
        ports: &BTreeMap<&str, u16>,
        worker: usize,
    ) -> Option<Taps> {
        let outputs = self.outputs(bridge, ports);
        let taps: Vec<Tap> =
            self.of(bridge).filter_map(|entry| entry.tap(ports, &outputs, worker)).collect();
        (!taps.is_empty()).then(|| Taps::new(taps, outputs))
    }

    /// The ports of a bridge that are for copies alone.
    pub(crate) fn outputs(&self, bridge: &str, ports: &BTreeMap<&str, u16>) -> PortSet {
        let names = self.of(bridge).filter_map(|entry| entry.mirror.output_port.as_deref());
        names.filter_map(|name| ports.get(name).copied()).collect()
    }

    /// All of them; `has` tells whether a bridge has a port.
    pub(crate) fn report(&self, has: impl Fn(&str, &str) -> bool) -> Vec<MirrorReport> {
        let report = |(name, entry): (&String, &Entry)| {
            let Entry { mirror, counters, .. } = entry;
            let output = mirror.output_port.as_deref();
            MirrorReport {
                name: name.clone(),
                is_active: output.is_none_or(|port| has(mirror.bridge_name(), port)),
                mirror: mirror.clone(),
                packets: counters.iter().map(|counters| counters.packets.get()).sum(),
                bytes: counters.iter().map(|counters| counters.bytes.get()).sum(),
            }
        };
        self.0.iter().map(report).collect()
    }
}

impl Entry {
    fn tap(&self, ports: &BTreeMap<&str, u16>, outputs: &PortSet, worker: usize) -> Option<Tap> {
        let Self { mirror, counters, first } = self;
        let to = match (&mirror.output_port, mirror.output_vlan) {
            (Some(port), _) => To::Port(*ports.get(port.as_str())?),
            (None, vlan) => To::Vlan(vlan?),
        };
        let chosen = |names: &std::collections::BTreeSet<String>| -> PortSet {
            let is_chosen = |name: &str| mirror.select_all || names.contains(name);
            let chosen = ports.iter().filter(|(name, _)| is_chosen(name)).map(|(_, port)| *port);
            chosen.filter(|port| !outputs.contains(*port)).collect()
        };
        Some(Tap {
            src: chosen(&mirror.select_src_port),
            dst: chosen(&mirror.select_dst_port),
            vlans: mirror.select_vlan.clone(),
            to,
            snaplen: mirror.snaplen.map_or(usize::MAX, usize::from),
            counters: Arc::clone(counters.get(first.checked_add(worker)?)?),
        })
    }
}
