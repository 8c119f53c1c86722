//! The switch's bridges as control threads see them.

use std::sync::Arc;

use datapath::bridge::{Bridge, BridgeChange, BridgeId};
use datapath::flows::BridgeFlows;
use datapath::worker::{Mailbox, Message};
use eal::clock;
use fdb::Fdb;
use flow::Pipeline;
use litemap::LiteMap;
use ordered::Gather as _;

use crate::config::{BridgeOptions, DEFAULT_BRIDGE, MAX_BRIDGES, MAX_PORTS, ageing_seconds};
use crate::error::Error;
use crate::ports::is_port_name;

/// A bridge.
#[derive(Debug)]
pub(crate) struct Entry {
    id: BridgeId,
    fdb: Arc<Fdb>,
    options: BridgeOptions,
    /// What decides about its frames, where that is told.
    flows: Option<BridgeFlows>,
}

impl Entry {
    fn new(id: BridgeId, options: &BridgeOptions, now: u32) -> Result<Self, Error> {
        let ageing = ageing_seconds(options.ageing)?;
        let fdb = Fdb::new(options.fdb_limit, MAX_PORTS, ageing);
        fdb.set_now(now);
        Ok(Self { id, fdb: Arc::new(fdb), options: options.clone(), flows: None })
    }

    /// The number by which workers know it.
    pub(crate) const fn id(&self) -> BridgeId {
        self.id
    }

    pub(crate) const fn fdb(&self) -> &Arc<Fdb> {
        &self.fdb
    }

    pub(crate) const fn options(&self) -> &BridgeOptions {
        &self.options
    }

    /// What decides about its frames, where that is told.
    pub(crate) const fn flows(&self) -> Option<&BridgeFlows> {
        self.flows.as_ref()
    }

    /// Has its frames go by flows. Meters that are the same as before go on as they are.
    fn set_flows(&mut self, flows: Option<BridgeFlows>, workers: usize) {
        let before = std::mem::replace(&mut self.flows, flows);
        let Some(flows) = &mut self.flows else { return };
        let meters = flows.pipeline.tables.meters();
        let known = before.map(|before| {
            let is_same = before.pipeline.tables.meters().is_same(meters);
            (is_same, before.metering)
        });
        flows.metering = match known {
            Some((true, metering)) => metering,
            known => {
                let metering =
                    known.map_or_else(|| flows.metering.clone(), |(_, metering)| metering);
                metering.of(meters, (workers, clock::hz(), clock::now()))
            }
        };
    }

    /// Its flows with another pipeline, for a packet that goes by that.
    pub(crate) fn flows_by(&self, pipeline: Arc<Pipeline>, workers: usize) -> BridgeFlows {
        let before = self.flows.as_ref();
        let metering = before.map(|flows| flows.metering.clone()).unwrap_or_default();
        let at = (workers, clock::hz(), clock::now());
        let metering = metering.of(pipeline.tables.meters(), at);
        let packets = before.and_then(|flows| flows.packets.clone());
        BridgeFlows { metering, packets, ..BridgeFlows::new(pipeline) }
    }

    /// Has its meters begin anew, for so many workers; returns whether there are any.
    fn restart_meters(&mut self, workers: usize) -> bool {
        let Some(flows) = &mut self.flows else { return false };
        let meters = flows.pipeline.tables.meters();
        let at = (workers, clock::hz(), clock::now());
        flows.metering = flows.metering.anew(meters, at);
        !meters.is_empty()
    }

    /// The same as workers have it: a plain bridge has none.
    fn worker_flows(&self) -> Option<Box<BridgeFlows>> {
        let flows = self.flows.clone().filter(|flows| !flows.pipeline.is_plain());
        flows.map(Box::new)
    }

    /// What a worker gets of it, without ports.
    pub(crate) fn view(&self) -> Bridge {
        let BridgeOptions { learn_per_burst, group_fwd_mask, .. } = self.options;
        let mut bridge = Bridge::new(Arc::clone(&self.fdb), learn_per_burst, group_fwd_mask);
        bridge.change(self.settings());
        bridge
    }

    /// What workers are told of its settings.
    fn settings(&self) -> BridgeChange {
        let BridgeOptions { learn_per_burst, group_fwd_mask, vlan_aware, any_source, .. } =
            self.options;
        let fdb = Arc::clone(&self.fdb);
        BridgeChange::Set { fdb, learn_per_burst, group_fwd_mask, vlan_aware, any_source }
    }
}

/// All bridges, by name. One is always there.
#[derive(Debug)]
pub(crate) struct Bridges(LiteMap<String, Entry>);

impl Bridges {
    /// The default bridge alone.
    pub(crate) fn new(options: &BridgeOptions) -> Result<Self, Error> {
        let entry = Entry::new(BridgeId::DEFAULT, options, 1)?;
        Ok(Self([(DEFAULT_BRIDGE.to_owned(), entry)].into_iter().gather()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Entry, Error> {
        self.0.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::UnknownBridge { name: name.to_owned(), known: self.0.keys().cloned().collect() }
    }

    /// Has frames of a bridge go by flows from `now` on, in milliseconds.
    pub(crate) fn set_flows(
        &mut self,
        name: &str,
        flows: Option<BridgeFlows>,
        now: u64,
        workers: &[Mailbox],
    ) -> Result<(), Error> {
        let unknown = self.unknown(name);
        let entry = self.0.get_mut(name).ok_or(unknown)?;
        let was_plain = entry.worker_flows().is_none();
        // Until workers have let go of them: whoever does so last frees all the rules that are no more, for
        // which no worker has the time.
        let _before = entry.flows.clone();
        entry.set_flows(flows, workers.len());
        let flows = entry.worker_flows();
        if !was_plain || flows.is_some() {
            tell(workers, entry.id, &BridgeChange::Flows(flows, now));
        }
        Ok(())
    }

    /// Tells workers who are new what decides about frames. Meters begin anew for all, whose tokens
    /// are for another number of workers now.
    pub(crate) fn tell_flows(&mut self, now: u64, all: &[Mailbox], fresh: &[Mailbox]) {
        for (_, entry) in &mut self.0 {
            let is_metered = entry.restart_meters(all.len());
            if let Some(flows) = entry.worker_flows() {
                let told = if is_metered { all } else { fresh };
                tell(told, entry.id, &BridgeChange::Flows(Some(flows), now));
            }
        }
    }

    /// Has the rules of all bridges be told what they were for until `now`, in milliseconds.
    pub(crate) fn flush_flows(&self, now: u64, workers: &[Mailbox]) {
        for entry in self.0.values().filter(|entry| entry.worker_flows().is_some()) {
            tell(workers, entry.id, &BridgeChange::FlushFlows(now));
        }
    }

    /// Whether a bridge looks at tags whatever its ports are; one that is not there does not.
    pub(crate) fn is_vlan_aware(&self, id: BridgeId) -> bool {
        self.0.values().any(|entry| entry.id == id && entry.options.vlan_aware)
    }

    /// The name of a bridge.
    pub(crate) fn name_of(&self, id: BridgeId) -> Option<&str> {
        self.0.iter().find(|(_, entry)| entry.id == id).map(|(name, _)| name.as_str())
    }

    /// All forwarding databases.
    pub(crate) fn fdbs(&self) -> impl Iterator<Item = &Arc<Fdb>> {
        self.0.values().map(Entry::fdb)
    }

    /// Adds a bridge, which the workers are told.
    pub(crate) fn add(
        &mut self,
        name: &str,
        options: &BridgeOptions,
        workers: &[Mailbox],
    ) -> Result<(), Error> {
        if !is_port_name(name) {
            return Err(Error::BridgeName { name: name.to_owned() });
        }
        if self.0.contains_key(name) {
            return Err(Error::DuplicateBridge { name: name.to_owned() });
        }
        options.check()?;
        let id = self.free_id(name)?;
        // All databases have the same time.
        let now = self.fdbs().map(|fdb| fdb.now()).max().unwrap_or(1);
        let entry = Entry::new(id, options, now)?;
        tell(workers, id, &BridgeChange::Open(entry.view()));
        self.0.insert(name.to_owned(), entry);
        Ok(())
    }

    /// The smallest number that no bridge has.
    fn free_id(&self, name: &str) -> Result<BridgeId, Error> {
        let is_free = |id: &BridgeId| self.0.values().all(|entry| entry.id != *id);
        let mut ids = (0..).map(BridgeId).take(MAX_BRIDGES);
        let too_many = || Error::TooManyBridges { name: name.to_owned(), max: MAX_BRIDGES };
        ids.find(is_free).ok_or_else(too_many)
    }

    /// Removes a bridge without ports.
    pub(crate) fn remove(&mut self, name: &str, workers: &[Mailbox]) -> Result<(), Error> {
        if name == DEFAULT_BRIDGE {
            return Err(Error::DefaultBridge);
        }
        let entry = self.0.remove(name).ok_or_else(|| self.unknown(name))?;
        tell(workers, entry.id, &BridgeChange::Close);
        Ok(())
    }

    /// Gives a bridge other settings.
    pub(crate) fn set(
        &mut self,
        name: &str,
        options: &BridgeOptions,
        workers: &[Mailbox],
    ) -> Result<(), Error> {
        options.check()?;
        let ageing = ageing_seconds(options.ageing)?;
        let unknown = self.unknown(name);
        let entry = self.0.get_mut(name).ok_or(unknown)?;
        if entry.options.fdb_limit != options.fdb_limit {
            entry.fdb = Arc::new(entry.fdb.resized(options.fdb_limit, MAX_PORTS)?);
        }
        entry.fdb.set_ageing(ageing);
        let before = std::mem::replace(&mut entry.options, options.clone());
        let told = BridgeOptions {
            ageing: before.ageing,
            mcast_snooping: before.mcast_snooping,
            ..options.clone()
        };
        if before != told {
            tell(workers, entry.id, &entry.settings());
        }
        Ok(())
    }
}

/// Tells all workers of a change, and waits until each has made it: all at once, since each may be in a
/// burst.
pub(crate) fn tell(workers: &[Mailbox], id: BridgeId, change: &BridgeChange) {
    let begin =
        |worker: &Mailbox| worker.begin(|done| Message::Bridge(id, Box::new(change.clone()), done));
    let told: Vec<_> = workers.iter().filter_map(begin).collect();
    for awaited in told {
        awaited.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use openflow::{Instructions, Match};

    use super::*;
    use datapath::Datapath;
    use datapath::worker::{Idle, Worker};

    /// Flows with a rule of their own.
    fn flows() -> BridgeFlows {
        let mut pipeline = Pipeline::default();
        let add = flow::Change::add(1, Match::new(), Instructions::default());
        pipeline.tables.change(&add, 0).unwrap();
        BridgeFlows::new(Arc::new(pipeline))
    }

    #[test]
    fn workers_are_told_at_once_and_drop_no_rules() {
        let (workers, mailboxes): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let path = Datapath::new(packet::Pool::new("test", 1, 64).unwrap().cache());
                Worker::new(path, Idle { busy_poll: false, after: 0 }).unwrap()
            })
            .unzip();
        let mut bridges = Bridges::new(&BridgeOptions::default()).unwrap();
        let first = flows();
        let old = Arc::downgrade(&first.pipeline);
        bridges.set_flows(DEFAULT_BRIDGE, Some(first), 0, &[]).unwrap();
        let seen = old.clone();
        let both = thread::spawn(move || {
            // None is answered before both have come.
            let told: Vec<Message> = workers.iter().filter_map(Worker::next_message).collect();
            let is_there = seen.strong_count() > 0;
            for message in told {
                if let Message::Bridge(_, _, done) = message {
                    done.give(());
                }
            }
            is_there
        });
        bridges.set_flows(DEFAULT_BRIDGE, Some(flows()), 1, &mailboxes).unwrap();
        assert!(both.join().unwrap(), "whoever lets go of rules last frees them");
        assert_eq!(old.strong_count(), 0);
    }
}
