//! A worker whose packets take the ways that they would take without a cache.

use std::collections::BTreeMap;

use conntrack::{State, Tracked};
use proptest::prelude::*;

use super::*;
use crate::cache::{PathCache, PathId};
use crate::frozen::Frozen;
use crate::path::Op;
use crate::rule::Stats;
use crate::walk::find_way;
use crate::walk::guide::address;
use crate::walk::room::Room;

pub(in crate::cache) fn key(to: u64, from: u64, port: u32, source: u32) -> Key {
    let mut key = Key::default();
    for (slot, value) in [
        (slot::IN_PORT, port.into()),
        (slot::ETH_DST, to.into()),
        (slot::ETH_SRC, from.into()),
        (slot::ETH_TYPE, 0x800),
        (slot::IPV4_SRC, source.into()),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
    ] {
        key.set(slot, value);
    }
    key
}

/// The same path with the numbers of rounds left out, and these with what goes on there.
fn without_rounds(path: &Path) -> (Path, Vec<(u32, Arc<Frozen>)>) {
    let (mut path, mut rounds) = (path.clone(), Vec::new());
    for op in &mut path.ops {
        match op {
            Op::Track(track, round) => {
                rounds.extend(track.next.clone().map(|next| (*round, next)));
                *round = 0;
            }
            Op::Again(next, round) => {
                rounds.push((*round, Arc::clone(next)));
                *round = 0;
            }
            _ => {}
        }
    }
    (path, rounds)
}

/// A worker that may be some versions behind.
pub(in crate::cache) struct Worker {
    pub(in crate::cache) cache: PathCache,
    flows: Arc<Pipeline>,
    /// What rules are to count.
    pub(super) counts: BTreeMap<u64, (Arc<Stats>, u64)>,
}

impl Worker {
    pub(in crate::cache) fn new(flows: &Pipeline) -> Self {
        let flows = Arc::new(flows.clone());
        Self { cache: PathCache::new(Arc::clone(&flows)), flows, counts: BTreeMap::new() }
    }

    pub(in crate::cache) fn update(&mut self, flows: &Pipeline) {
        self.flows = Arc::new(flows.clone());
        self.cache.update(Arc::clone(&self.flows), 0);
    }

    /// A packet takes the way that it would take without a cache, also when it has been tracked, or is
    /// looked at anew.
    pub(in crate::cache) fn check(&mut self, key: &Key) -> Result<(), TestCaseError> {
        self.cache.begin(0);
        let id = self.cache.find(key);
        let wanted = walk(&self.flows, &mut key.clone(), &Start::Table, None);
        self.check_trace(id, key)?;
        let mut rounds = self.check_path(id, &wanted)?;
        for _ in 0..3 {
            let Some((round, frozen)) = rounds.pop() else { break };
            let state = State(if rounds.len() % 2 == 0 { 0x20 } else { 0x21 });
            let tracked =
                Tracked { state, zone: 0, mark: 0, label: 0, original: None, helper: None };
            let mut key = *key;
            key.set_connection(&tracked);
            let id = self.cache.find_tracked(round, &mut key).unwrap();
            let wanted = walk(&self.flows, &mut key.clone(), &Start::Frozen(&frozen), None);
            rounds.extend(self.check_path(id, &wanted)?);
        }
        Ok(())
    }

    /// What is known of all packets of a path is true of one.
    fn check_trace(&self, id: PathId, key: &Key) -> Result<(), TestCaseError> {
        let path = self.cache.path(id).unwrap();
        if let Some(known) = path.trace.as_ref().filter(|trace| trace.is_of_one(usize::MAX)) {
            let (start, mut room) = (Start::Table, Room::default());
            let trace = find_way(&self.flows, key, &start, (true, None), &mut room).trace();
            prop_assert_eq!(Some(known), trace.as_ref());
        }
        Ok(())
    }

    fn check_path(
        &mut self,
        id: PathId,
        wanted: &Path,
    ) -> Result<Vec<(u32, Arc<Frozen>)>, TestCaseError> {
        self.cache.count(id, 1, 60);
        let (path, rounds) = without_rounds(self.cache.path(id).unwrap());
        prop_assert!(path == *wanted, "{:#?}\n{:#?}", path, wanted);
        for stats in wanted.stats() {
            self.counts.entry(address(stats)).or_insert((Arc::clone(stats), 0)).1 += 1;
        }
        Ok(rounds)
    }

    pub(in crate::cache) fn check_counts(&mut self) -> Result<(), TestCaseError> {
        self.cache.flush(1);
        for (stats, count) in self.counts.values() {
            prop_assert_eq!(stats.packets(), *count);
        }
        Ok(())
    }
}
