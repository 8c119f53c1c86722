//! The path cache: one look-up gives a packet's whole way.
//!
//! It belongs to one worker and one bridge. Entries are found by those bits of the packet that any
//! rule of the bridge, or any action, depends on; so there is one look-up, whatever masks the rules
//! have, and packets that differ elsewhere share an entry. Entries with the same way share a path.
//!
//! A path holds as long as the tables that it passes are the same. Its memory is bounded: where there
//! are more flows than entries, they take each other's places, and a new packet is only as dear as
//! its way through the tables.

mod index;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::extract::Depth;
use crate::frozen::Frozen;
use crate::key::{Key, PACKET_WORDS, TRACKED_WORDS, slot};
use crate::lengths::class_of;
use crate::path::{Op, Path, Way};
use crate::pipeline::Pipeline;
use crate::tables::Change;
use crate::walk::{Start, find_way};
use index::Index;

/// The most paths; beyond that all of them are forgotten.
const MAX_PATHS: usize = 1 << 16;

/// The number of a path. It is good for until the cache [begins](PathCache::begin) again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathId(u32);

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
    /// Of packets as they come in.
    index: Index<PACKET_WORDS>,
    /// Of those that were tracked.
    tracked: Index<TRACKED_WORDS>,
    depth: Depth,
    /// The lengths of packets that make a difference.
    lengths: Box<[u16]>,
    paths: Vec<Known>,
    /// The number of the first path; smaller numbers are of paths that were forgotten.
    base: u32,
    /// Paths by hash.
    by_hash: HashMap<u64, Vec<u32>>,
    /// Those that were taken since their rules were told.
    taken: Vec<u32>,
    /// What tracked packets go on with, by number, the first of which is 1; and the numbers.
    rounds: Vec<Arc<Frozen>>,
    numbers: HashMap<Arc<Frozen>, u32>,
    seed: u64,
    stats: CacheStats,
}

impl PathCache {
    /// An empty one.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        let seed = RandomState::new().hash_one(1);
        let mut cache = Self {
            pipeline,
            index: Index::new(seed),
            tracked: Index::new(seed),
            depth: Depth::All,
            lengths: Box::default(),
            paths: Vec::new(),
            base: 1,
            by_hash: HashMap::new(),
            taken: Vec::new(),
            rounds: Vec::new(),
            numbers: HashMap::new(),
            seed,
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

    /// Notes in a key how long its packet is, as far as that decides; `len` is asked for only then.
    #[inline]
    pub fn note_len(&self, key: &mut Key, len: impl FnOnce() -> usize) {
        if !self.lengths.is_empty() {
            key.set(slot::FRAME_LEN, class_of(&self.lengths, len()).into());
        }
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let (paths, entries) = (self.paths.len(), self.index.entries());
        CacheStats { paths, entries, ..self.stats }
    }

    /// Has another pipeline decide from `now` on, in milliseconds. Paths stay that pass no table that
    /// has changed.
    pub fn update(&mut self, pipeline: Arc<Pipeline>, now: u64) {
        self.flush(now);
        self.end_burst();
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
        let relevant = self.pipeline.relevant();
        let is_other = self.index.look_at(&relevant) | self.tracked.look_at(&relevant);
        let ether_src = slot::ETH_SRC.ones();
        let is_link = |(word, bits): &(u8, u64)| match usize::from(*word) {
            2 => u128::from(*bits) & !ether_src == 0,
            word => word <= slot::VLAN_TCI.word(),
        };
        let is_flat = self.index.words().iter().all(is_link);
        self.depth = if is_flat { Depth::Link } else { Depth::All };
        let lengths = self.pipeline.tables.lengths().classes();
        let is_other = is_other || lengths != self.lengths;
        self.lengths = lengths;
        is_other
    }

    /// Forgets all paths, whose rules were told.
    fn forget(&mut self) {
        let count = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        self.paths.clear();
        self.by_hash.clear();
        self.rounds.clear();
        self.numbers.clear();
        match self.base.checked_add(count).filter(|base| *base < u32::MAX / 2) {
            Some(base) => self.base = base,
            None => {
                self.base = 1;
                self.index.clear();
                self.tracked.clear();
            }
        }
    }

    /// Numbers of paths from before are good for nothing any more: a burst has come to its end.
    #[inline]
    pub fn begin(&mut self, now: u64) {
        self.end_burst();
        if self.paths.len() > MAX_PATHS || self.rounds.len() > MAX_PATHS {
            self.flush(now);
            self.forget();
        }
    }

    #[inline]
    const fn end_burst(&mut self) {
        self.index.begin();
        self.tracked.begin();
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

    /// The path of a packet with this key, that has come in.
    #[inline]
    pub fn find(&mut self, key: &Key) -> PathId {
        let Self { index, paths, base, .. } = self;
        match index.find(key, |id| is_good(paths, *base, id)) {
            Ok(id) => {
                self.stats.hits += 1;
                id
            }
            Err(hash) => {
                let id = self.way(key, &Start::Table);
                self.index.put(hash, id, self.base);
                PathId(id)
            }
        }
    }

    /// The path of a packet that was tracked and goes on with what has number `round`, which an operation
    /// of a path that was found in this burst says. `key` has what is of the packet itself, and what is
    /// known of its connection. `None`: there is no such number.
    pub fn find_tracked(&mut self, round: u32, key: &mut Key) -> Option<PathId> {
        let frozen = self.rounds.get(round.checked_sub(1)? as usize)?;
        key.set(slot::IN_PORT, frozen.key.get(slot::IN_PORT));
        key.set(slot::RECIRC_ID, u128::from(round));
        let Self { tracked, paths, base, .. } = self;
        Some(match tracked.find(key, |id| is_good(paths, *base, id)) {
            Ok(id) => {
                self.stats.hits += 1;
                id
            }
            Err(hash) => {
                let frozen = Arc::clone(frozen);
                let id = self.way(key, &Start::Frozen(&frozen));
                self.tracked.put(hash, id, self.base);
                PathId(id)
            }
        })
    }

    /// The path of a packet with this key that begins elsewhere than in the first table; it is found anew
    /// each time.
    pub fn find_once(&mut self, key: &Key, start: &Start<'_>) -> PathId {
        PathId(self.way(key, start))
    }

    /// The way of a packet is not known: it goes through the tables.
    #[cold]
    fn way(&mut self, key: &Key, start: &Start<'_>) -> u32 {
        self.stats.misses += 1;
        // It stays as it is meanwhile, whoever changes rules.
        let pipeline = Arc::clone(&self.pipeline);
        let mut way = find_way(&pipeline, &mut key.clone(), start, None);
        for op in &mut way.ops {
            if let Op::Track(track, round) = op
                && let Some(next) = &track.next
            {
                *round = self.number(next);
            }
        }
        self.intern(way)
    }

    /// The number of what tracked packets go on with.
    fn number(&mut self, next: &Arc<Frozen>) -> u32 {
        let rounds = &mut self.rounds;
        *self.numbers.entry(Arc::clone(next)).or_insert_with(|| {
            rounds.push(Arc::clone(next));
            u32::try_from(rounds.len()).unwrap_or(u32::MAX)
        })
    }

    /// The number of the path of a way; the same one for ways that are equal.
    fn intern(&mut self, way: Way<'_>) -> u32 {
        let hash = way.hash(self.seed);
        let same = self.by_hash.entry(hash).or_default();
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

/// Whether the path of this number is there, and holds.
#[inline]
fn is_good(paths: &[Known], base: u32, id: u32) -> bool {
    let known = id.checked_sub(base).and_then(|at| paths.get(at as usize));
    known.is_some_and(|known| !known.is_stale)
}

#[cfg(test)]
mod tests;
