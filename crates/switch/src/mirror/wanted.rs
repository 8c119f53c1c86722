//! The mirrors of a switch as control threads see them.

use std::sync::Arc;

use datapath::mirror::taps::{Counters, Tap, Taps, To};
use datapath::port_set::PortSet;
use eal::time::Time;
use litemap::LiteMap;

use super::file::File;
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
    /// Where its copies are written, and the number of that.
    file: Option<(u64, File)>,
}

/// All mirrors, by name.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    all: LiteMap<String, Entry>,
    /// How many files there ever were.
    files: u64,
}

/// What a mirror was, with the file that it does not write to any more. To drop it may take a
/// while.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) mirror: Mirror,
    _file: Option<(u64, File)>,
}

impl Mirrors {
    /// Adds or changes one, which goes on counting then; the switch has so many workers, and its
    /// timers go by `time`. Returns what it was before.
    pub(crate) fn set(
        &mut self,
        name: &str,
        mirror: &Mirror,
        workers: usize,
        time: &Time,
    ) -> Result<Option<Before>, Error> {
        let wrong = |reason| Error::Mirror { name: name.to_owned(), reason };
        mirror.check().map_err(|(_, reason)| wrong(reason))?;
        if !is_port_name(name) {
            return Err(wrong("expected a name like a port's".to_owned()));
        }
        let entry = self.all.get(name);
        if entry.is_none() && self.all.len() >= MAX_MIRRORS {
            return Err(wrong(format!("there are {MAX_MIRRORS} mirrors already")));
        }
        let place = mirror.place();
        let had = entry.and_then(|entry| entry.file.as_ref()).map(|(_, file)| file.place());
        let goes_on = had == place.as_ref();
        let mut file = match place {
            Some(place) if !goes_on => {
                self.files = self.files.saturating_add(1);
                Some((self.files, File::start(name, &place, workers, time.clone())?))
            }
            _ => None,
        };
        let Some(entry) = self.all.get_mut(name) else {
            let counters = (0..workers).map(|_| Arc::default()).collect();
            let entry = Entry { mirror: mirror.clone(), counters, first: 0, file };
            self.all.insert(name.to_owned(), entry);
            return Ok(None);
        };
        if !goes_on {
            std::mem::swap(&mut entry.file, &mut file);
        }
        let mirror = std::mem::replace(&mut entry.mirror, mirror.clone());
        Ok(Some(Before { mirror, _file: file }))
    }

    /// Removes one, and returns what it was.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Before> {
        let Entry { mirror, file, .. } = self.all.remove(name)?;
        Some(Before { mirror, _file: file })
    }

    /// There are others, so many workers from now on: each gets counters that nobody else has.
    pub(crate) fn restart(&mut self, workers: usize) {
        for (_, entry) in &mut self.all {
            if let Some((_, file)) = &mut entry.file {
                file.restart(workers);
            }
            entry.first = entry.counters.len();
            entry.counters.extend((0..workers).map(|_| Arc::default()));
        }
    }

    /// Whether a bridge has any.
    pub(crate) fn concern(&self, bridge: &str) -> bool {
        self.of(bridge).next().is_some()
    }

    fn of(&self, bridge: &str) -> impl Iterator<Item = &Entry> {
        self.all.values().filter(move |entry| entry.mirror.bridge_name() == bridge)
    }

    /// What a worker is to know of the mirrors of a bridge, whose ports are given by name and number;
    /// `None` where it has none. A mirror whose output port is not there does nothing.
    pub(crate) fn taps(
        &self,
        bridge: &str,
        ports: &LiteMap<&str, u16>,
        worker: usize,
    ) -> Option<Taps> {
        let outputs = self.outputs(bridge, ports);
        let taps: Vec<Tap> =
            self.of(bridge).filter_map(|entry| entry.tap(ports, &outputs, worker)).collect();
        (!taps.is_empty()).then(|| Taps::new(taps, outputs))
    }

    /// The place of a mirror among the [taps](Self::taps) of its bridge.
    pub(crate) fn place(&self, name: &str, ports: &LiteMap<&str, u16>) -> Option<usize> {
        let bridge = self.bridge_of(name)?;
        let outputs = self.outputs(bridge, ports);
        let there = self.all.iter().filter(|(_, entry)| {
            entry.mirror.bridge_name() == bridge && entry.tap(ports, &outputs, 0).is_some()
        });
        let mut names = there.map(|(name, _)| name.as_str());
        names.position(|there| there == name)
    }

    /// The bridge of a mirror.
    pub(crate) fn bridge_of(&self, name: &str) -> Option<&str> {
        Some(self.all.get(name)?.mirror.bridge_name())
    }

    /// The ports of a bridge that are for copies alone.
    pub(crate) fn outputs(&self, bridge: &str, ports: &LiteMap<&str, u16>) -> PortSet {
        let names = self.of(bridge).filter_map(|entry| entry.mirror.output_port.as_deref());
        names.filter_map(|name| ports.get(name).copied()).collect()
    }

    /// All of them; `has` tells whether a bridge has a port.
    pub(crate) fn report(&self, has: impl Fn(&str, &str) -> bool) -> Vec<MirrorReport> {
        let report = |(name, entry): (&String, &Entry)| {
            let Entry { mirror, counters, file, .. } = entry;
            let output = mirror.output_port.as_deref();
            let written = file.as_ref().map(|(_, file)| file.report());
            let (trouble, missed) = written.unwrap_or_default();
            let is_there = output.is_none_or(|port| has(mirror.bridge_name(), port));
            MirrorReport {
                name: name.clone(),
                is_active: is_there && trouble.is_none(),
                trouble,
                missed,
                mirror: mirror.clone(),
                packets: counters.iter().map(|counters| counters.packets.get()).sum(),
                bytes: counters.iter().map(|counters| counters.bytes.get()).sum(),
            }
        };
        self.all.iter().map(report).collect()
    }
}

impl Entry {
    fn tap(&self, ports: &LiteMap<&str, u16>, outputs: &PortSet, worker: usize) -> Option<Tap> {
        let Self { mirror, counters, first, file } = self;
        let to = match (&mirror.output_port, mirror.output_vlan, file) {
            (Some(port), ..) => To::Port(*ports.get(port.as_str())?),
            (None, Some(vlan), _) => To::Vlan(vlan),
            (None, None, file) => To::File(file.as_ref()?.0),
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
            reflects: mirror.reflect,
            snaplen: mirror.snaplen.map_or(usize::MAX, usize::from),
            counters: Arc::clone(counters.get(first.checked_add(worker)?)?),
            recorder: file.as_ref().and_then(|(_, file)| file.recorder(worker)),
        })
    }
}
