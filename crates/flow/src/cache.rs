//! The path cache: one look-up gives a packet's whole way.
//!
//! It belongs to one worker and one bridge. Entries are found by those bits of the packet that any
//! rule of the bridge, or any action, depends on; so there is one look-up, whatever masks the rules
//! have, and packets that differ elsewhere share an entry. Entries with the same way share a path.
//!
//! A path holds as long as the tables that it passes are the same. Its memory is bounded: where there
//! are more flows than entries, they take each other's places, and a new packet is only as dear as
//! its way through the tables.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::extract::Depth;
use crate::key::{Key, PACKET_WORDS, slot};
use crate::path::{Path, Way};
use crate::pattern::{finish, mix};
use crate::pipeline::Pipeline;
use crate::tables::Change;
use crate::walk::{Start, find_way};

/// Entries that are found together.
const WAYS: usize = 8;

/// Entries of a new cache.
const FIRST: usize = 1 << 10;

/// The most entries.
const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes that their keys may have.
const MAX_BYTES: usize = 64 << 20;

/// The most paths; beyond that all of them are forgotten.
const MAX_PATHS: usize = 1 << 16;

/// The number of a path. It is good for until the cache [begins](PathCache::begin) again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathId(u32);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// 0 where there is no entry.
    tags: [u16; WAYS],
    paths: [u32; WAYS],
}

const EMPTY: Bucket = Bucket { tags: [0; WAYS], paths: [0; WAYS] };

#[derive(Debug)]
struct Known {
    path: Path,
    /// What took it since its rules were told.
    packets: u64,
    bytes: u64,
    is_stale: bool,
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Those that did not, so that a packet went through the tables.
    pub misses: u64,
    /// Paths that there are.
    pub paths: usize,
    /// Entries that there is room for.
    pub entries: usize,
}

/// The paths of a bridge's packets, as one worker has met them.
#[derive(Debug)]
pub struct PathCache {
    pipeline: Arc<Pipeline>,
    /// The words of a packet's key that its way depends on, each with its bits.
    words: Box<[(u8, u64)]>,
    depth: Depth,
    buckets: Vec<Bucket>,
    /// For each entry as many words as there are in `words`.
    keys: Vec<u64>,
    /// Entries that were made since there was room for so many.
    made: usize,
    paths: Vec<Known>,
    /// The number of the first path; smaller numbers are of paths that were forgotten.
    base: u32,
    /// Paths by hash.
    index: HashMap<u64, Vec<u32>>,
    /// Those that were taken since their rules were told.
    taken: Vec<u32>,
    seed: u64,
    /// The entry that was found last in this burst.
    last: Option<PathId>,
    last_values: [u64; PACKET_WORDS],
    stats: CacheStats,
}

impl PathCache {
    /// An empty one.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        let seed = RandomState::new().hash_one(1);
        let mut cache = Self {
            pipeline,
            words: Box::default(),
            depth: Depth::All,
            buckets: Vec::new(),
            keys: Vec::new(),
            made: 0,
            paths: Vec::new(),
            base: 1,
            index: HashMap::new(),
            taken: Vec::new(),
            seed,
            last: None,
            last_values: [0; PACKET_WORDS],
            stats: CacheStats::default(),
        };
        cache.look();
        cache
    }

    /// What decides about packets.
    #[must_use]
    pub const fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// How much of a packet has to be looked at.
    #[must_use]
    #[inline]
    pub const fn depth(&self) -> Depth {
        self.depth
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let (paths, entries) = (self.paths.len(), self.buckets.len() * WAYS);
        CacheStats { paths, entries, ..self.stats }
    }

    /// Has another pipeline decide from `now` on, in milliseconds. Paths stay that pass no table that
    /// has changed.
    pub fn update(&mut self, pipeline: Arc<Pipeline>, now: u64) {
        self.flush(now);
        self.last = None;
        let changed = pipeline.changed(&self.pipeline);
        self.pipeline = pipeline;
        if !self.look()
            && let Some(changed) = changed
        {
            for known in &mut self.paths {
                known.is_stale |= known.path.basis.meets(&changed);
            }
        } else {
            self.forget();
        }
    }

    /// Finds out what to look at; returns whether that is something else than before.
    fn look(&mut self) -> bool {
        let relevant = self.pipeline.tables.relevant();
        let words = (0_u8..).zip(relevant.words().iter().copied()).take(PACKET_WORDS);
        let words: Box<[(u8, u64)]> = words.filter(|(_, bits)| *bits != 0).collect();
        let ether_src = slot::ETH_SRC.ones();
        let is_link = |(word, bits): &(u8, u64)| match usize::from(*word) {
            2 => u128::from(*bits) & !ether_src == 0,
            word => word <= slot::VLAN_TCI.word(),
        };
        self.depth = if words.iter().all(is_link) { Depth::Link } else { Depth::All };
        let is_other = words != self.words;
        if is_other || self.buckets.is_empty() {
            self.words = words;
            self.resize(FIRST);
        }
        is_other
    }

    /// Makes room for so many entries; those that there are have to be found anew.
    fn resize(&mut self, entries: usize) {
        self.buckets = vec![EMPTY; entries / WAYS];
        self.keys = vec![0; entries * self.words.len()];
        self.made = 0;
    }

    /// Forgets all paths, whose rules were told.
    fn forget(&mut self) {
        let count = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        self.paths.clear();
        self.index.clear();
        match self.base.checked_add(count).filter(|base| *base < u32::MAX / 2) {
            Some(base) => self.base = base,
            None => {
                self.base = 1;
                self.buckets.fill(EMPTY);
            }
        }
    }

    /// Numbers of paths from before are good for nothing any more: a burst has come to its end.
    #[inline]
    pub fn begin(&mut self, now: u64) {
        self.last = None;
        if self.paths.len() > MAX_PATHS {
            self.flush(now);
            self.forget();
        }
    }

    /// Tells the rules how many packets they were for, which were seen until `now`, in milliseconds.
    pub fn flush(&mut self, now: u64) {
        for id in std::mem::take(&mut self.taken) {
            let Some(known) = self.known_mut(PathId(id)) else { continue };
            let packets = std::mem::take(&mut known.packets);
            let bytes = std::mem::take(&mut known.bytes);
            known.path.rules.iter().for_each(|stats| stats.add(packets, bytes, now));
        }
    }

    #[inline]
    fn known_mut(&mut self, PathId(id): PathId) -> Option<&mut Known> {
        self.paths.get_mut(id.checked_sub(self.base)? as usize)
    }

    /// A path by its number.
    #[must_use]
    #[inline]
    pub fn path(&self, PathId(id): PathId) -> Option<&Path> {
        self.paths.get(id.checked_sub(self.base)? as usize).map(|known| &known.path)
    }

    /// Counts packets that take a path; returns the rules that are made of them, if they are the first
    /// since the path's own were told.
    #[inline]
    pub fn count(&mut self, id: PathId, packets: u64, bytes: u64) -> &[Arc<Change>] {
        let Some(known) = self.known_mut(id) else { return &[] };
        let is_first = known.packets == 0;
        known.packets += packets;
        known.bytes += bytes;
        if is_first {
            self.taken.push(id.0);
            return self.path(id).map_or(&[], |path| &path.learns);
        }
        &[]
    }

    /// The path of a packet with this key.
    #[inline]
    pub fn find(&mut self, key: &Key) -> PathId {
        let mut room = [0; PACKET_WORDS];
        let mut hash = self.seed;
        // Neighbours in a burst are mostly of one flow.
        let mut differs = self.last.is_none();
        for (at, (word, bits)) in self.words.iter().enumerate() {
            let value = key.word(usize::from(*word)) & bits;
            if let (Some(place), Some(last)) = (room.get_mut(at), self.last_values.get(at)) {
                *place = value;
                differs |= *last != value;
            }
        }
        if let (false, Some(id)) = (differs, self.last) {
            self.stats.hits += 1;
            return id;
        }
        let values = room.get(..self.words.len()).unwrap_or_default();
        for value in values {
            hash = mix(hash, *value);
        }
        let hash = finish(hash);
        let id = match self.find_entry(hash, values) {
            Some(id) => {
                self.stats.hits += 1;
                PathId(id)
            }
            None => self.miss(key, hash, values),
        };
        (self.last_values, self.last) = (room, Some(id));
        id
    }

    #[inline]
    fn find_entry(&self, hash: u64, values: &[u64]) -> Option<u32> {
        let at = self.bucket_of(hash);
        let bucket = self.buckets.get(at)?;
        let tag = tag_of(hash);
        let ways = bucket.tags.iter().zip(&bucket.paths).enumerate();
        for (way, (_, id)) in ways.filter(|(_, (own, _))| **own == tag) {
            let start = (at * WAYS + way) * values.len();
            if self.keys.get(start..start + values.len()) == Some(values) {
                let known = self.paths.get(id.checked_sub(self.base)? as usize)?;
                return (!known.is_stale).then_some(*id);
            }
        }
        None
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        // There are as many as a power of two.
        usize::try_from(hash & 0xFFFF_FFFF).unwrap_or_default() & self.buckets.len().wrapping_sub(1)
    }

    /// The packet's way is not known: it goes through the tables.
    #[cold]
    fn miss(&mut self, key: &Key, hash: u64, values: &[u64]) -> PathId {
        self.stats.misses += 1;
        // It stays as it is meanwhile, whoever changes rules.
        let pipeline = Arc::clone(&self.pipeline);
        let way = find_way(&pipeline, &mut key.clone(), &Start::Table, None);
        let id = self.intern(way);
        let most = MAX_ENTRIES.min(MAX_BYTES / (8 * values.len().max(1)));
        let entries = self.buckets.len() * WAYS;
        if self.made >= entries && entries * 2 <= most {
            self.resize(entries * 2);
        }
        self.put_entry(hash, values, id);
        PathId(id)
    }

    fn put_entry(&mut self, hash: u64, values: &[u64], id: u32) {
        let (at, tag) = (self.bucket_of(hash), tag_of(hash));
        let base = self.base;
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let start = |way: usize| (at * WAYS + way) * values.len();
        let is_same = |way: &usize| {
            let key = self.keys.get(start(*way)..start(*way) + values.len());
            bucket.tags.get(*way) == Some(&tag) && key == Some(values)
        };
        let is_free = |way: &usize| {
            let free = bucket.tags.get(*way).is_some_and(|tag| *tag == 0);
            free || bucket.paths.get(*way).is_some_and(|id| *id < base)
        };
        let way = (0..WAYS).find(is_same).or_else(|| (0..WAYS).find(is_free));
        // Whoever makes flows without end cannot tell whose entry goes.
        let way = way.unwrap_or(usize::try_from(hash >> 32).unwrap_or_default() % WAYS);
        self.made += 1;
        if let (Some(own), Some(path)) = (bucket.tags.get_mut(way), bucket.paths.get_mut(way)) {
            (*own, *path) = (tag, id);
        }
        if let Some(key) = self.keys.get_mut(start(way)..start(way) + values.len()) {
            key.copy_from_slice(values);
        }
    }

    /// The number of the path of a way; the same one for ways that are equal.
    fn intern(&mut self, way: Way<'_>) -> u32 {
        let hash = way.hash(self.seed);
        let same = self.index.entry(hash).or_default();
        let known = same.iter().copied().find(|id| {
            let known = self.paths.get(id.wrapping_sub(self.base) as usize);
            known.is_some_and(|known| !known.is_stale && way.is(&known.path))
        });
        if let Some(id) = known {
            return id;
        }
        let id = self.base.saturating_add(u32::try_from(self.paths.len()).unwrap_or(u32::MAX));
        same.push(id);
        let path = way.into_path();
        self.paths.push(Known { path, packets: 0, bytes: 0, is_stale: false });
        id
    }
}

#[inline]
fn tag_of(hash: u64) -> u16 {
    u16::try_from(hash >> 48).unwrap_or_default() | 1
}

#[cfg(test)]
mod tests {
    use openflow::{Action, Field, Instructions, Match, PortNo};
    use proptest::prelude::*;

    use super::*;
    use crate::path::Op;
    use crate::pipeline::Port;
    use crate::tables::Change;
    use crate::walk::walk;

    fn pipeline() -> Pipeline {
        let mut pipeline = Pipeline::default();
        for number in 1..9_u16 {
            pipeline.ports.insert(PortNo(number.into()), Port::new(number));
        }
        pipeline
    }

    fn rule(pipeline: &mut Pipeline, table: u8, matching: Match, actions: Vec<Action>) {
        let add = Change::add(table, matching, Instructions::apply(actions));
        pipeline.tables.change(&add, 0).unwrap();
    }

    fn output(port: u32) -> Action {
        Action::output(PortNo(port))
    }

    fn key(address: u64, source: u64) -> Key {
        let mut key = Key::default();
        key.set(slot::IN_PORT, 1);
        key.set(slot::ETH_DST, address.into());
        key.set(slot::ETH_SRC, source.into());
        key
    }

    fn ports(cache: &mut PathCache, key: &Key) -> Vec<u16> {
        cache.begin(0);
        let id = cache.find(key);
        cache.count(id, 1, 60);
        let to = |op: &Op| if let Op::Output(port) = op { Some(*port) } else { None };
        cache.path(id).unwrap().ops.iter().filter_map(to).collect()
    }

    #[test]
    fn packets_share_entries_where_no_rule_tells_them_apart() {
        let mut flows = pipeline();
        rule(&mut flows, 0, Match::new().with(Field::EthDst, 7), vec![output(2)]);
        let mut cache = PathCache::new(Arc::new(flows));
        assert_eq!(cache.depth(), Depth::Link);
        for source in 0..100 {
            assert_eq!(ports(&mut cache, &key(7, source)), [2]);
            assert_eq!(ports(&mut cache, &key(source + 8, source)), [0; 0]);
        }
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.hits, stats.paths), (101, 99, 2));
    }

    #[test]
    fn rules_are_told_exactly() {
        let mut flows = pipeline();
        rule(&mut flows, 0, Match::new(), vec![Action::resubmit_table(1), output(3)]);
        rule(&mut flows, 1, Match::new().with(Field::EthDst, 7), vec![output(2)]);
        let stats: Vec<_> = flows.tables.iter().map(|rule| Arc::clone(&rule.stats)).collect();
        let mut cache = PathCache::new(Arc::new(flows));
        assert_eq!(ports(&mut cache, &key(7, 1)), [2, 3]);
        assert_eq!(ports(&mut cache, &key(7, 1)), [2, 3]);
        assert_eq!(ports(&mut cache, &key(8, 1)), [3]);
        assert!(stats.iter().all(|stats| stats.packets() == 0));
        cache.flush(77);
        let counts: Vec<_> = stats.iter().map(|s| (s.packets(), s.bytes(), s.used())).collect();
        assert_eq!(counts, [(3, 180, 77), (2, 120, 77)]);
        cache.flush(99);
        assert_eq!((stats[0].packets(), stats[0].used()), (3, 77));
    }

    #[test]
    fn a_changed_table_takes_only_its_own_paths_along() {
        let mut flows = pipeline();
        let to = |table| vec![Action::resubmit_table(table)];
        rule(&mut flows, 0, Match::new().with(Field::EthDst, 1), to(1));
        rule(&mut flows, 0, Match::new().with(Field::EthDst, 2), to(2));
        rule(&mut flows, 1, Match::new(), vec![output(2)]);
        rule(&mut flows, 2, Match::new(), vec![output(3)]);
        let mut cache = PathCache::new(Arc::new(flows.clone()));
        let both = |cache: &mut PathCache| [1, 2].map(|to| ports(cache, &key(to, 0)));
        assert_eq!(both(&mut cache), [[2], [3]]);
        rule(&mut flows, 2, Match::new(), vec![output(4)]);
        cache.update(Arc::new(flows.clone()), 0);
        assert_eq!(both(&mut cache), [[2], [4]]);
        assert_eq!((cache.stats().misses, cache.stats().hits), (3, 1));
        // One that a packet was looked up in without being found counts, too.
        assert_eq!(ports(&mut cache, &key(3, 0)), [0; 0]);
        rule(&mut flows, 0, Match::new().with(Field::EthDst, 3), vec![output(5)]);
        cache.update(Arc::new(flows.clone()), 0);
        assert_eq!(ports(&mut cache, &key(3, 0)), [5]);
        flows.ports.remove(&PortNo(5));
        cache.update(Arc::new(flows), 0);
        assert_eq!(ports(&mut cache, &key(3, 0)), [0; 0]);
    }

    #[test]
    fn a_million_flows_have_bounded_memory() {
        let mut flows = pipeline();
        rule(&mut flows, 0, Match::new().with(Field::EthDst, u128::MAX), vec![output(2)]);
        rule(&mut flows, 0, Match::new().with_masked(Field::EthSrc, 0, 1), vec![output(3)]);
        let mut cache = PathCache::new(Arc::new(flows));
        for address in 0..20_000 {
            cache.find(&key(address, 0));
        }
        let stats = cache.stats();
        assert!((16_384..=32_768).contains(&stats.entries), "{stats:?}");
        cache.resize(MAX_ENTRIES);
        for address in 0..5_000 {
            cache.find(&key(address << 20, 0));
        }
        assert!(cache.keys.len() * 8 <= MAX_BYTES && cache.stats().entries <= MAX_ENTRIES);
        assert_eq!(cache.stats().paths, 1);
    }

    proptest! {
        #[test]
        fn a_cached_way_is_the_way(
            rules in prop::collection::vec((0..3_u8, 0..3_u64, 0..4_u64, 1..9_u32, 0..4_u8), 0..12),
            packets in prop::collection::vec((0..4_u64, 0..4_u64), 0..60),
            changes in 0..10_usize,
        ) {
            let mut flows = pipeline();
            let mut cache = PathCache::new(Arc::new(flows.clone()));
            let mut rules = rules.into_iter();
            for (index, (to, from)) in packets.into_iter().enumerate() {
                if index % (changes + 1) == 0 && let Some((table, to, mask, port, next)) = rules.next() {
                    let matching = Match::new().with_masked(Field::EthDst, to.into(), mask.into());
                    let mut actions = vec![output(port)];
                    if next > table {
                        actions.push(Action::resubmit_table(next));
                    }
                    rule(&mut flows, table, matching, actions);
                    cache.update(Arc::new(flows.clone()), 0);
                }
                let key = key(to, from);
                let path = walk(&flows, &mut key.clone(), &Start::Table, None);
                cache.begin(0);
                let id = cache.find(&key);
                prop_assert!(cache.path(id) == Some(&path));
            }
        }
    }
}
