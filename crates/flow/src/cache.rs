//! The path cache: one look-up gives a packet's whole way.
//!
//! It belongs to one worker and one bridge. Entries are found by those bits of the packet that any
//! rule of the bridge, or any action, depends on; so there is one look-up, whatever masks the rules
//! have, and packets that differ elsewhere share an entry. Entries with the same way share a path.
//! Frames of ordinary shapes have those bits where they lie; of others, and of packets that were tracked,
//! they are in a key.
//!
//! A path holds as long as nothing has come or gone in the tables that it passes that its packets might
//! find. Its memory is bounded: where there are more flows than entries, they take each other's places,
//! and a new packet is only as dear as its way through the tables.
//!
//! - `changes`: what has changed lately, and which ways hold all the same
//! - `index`: entries, by whatever values
//! - `lines`: those by the first bytes of frames
//! - `words`: those by words of keys
//! - `paths`: the paths

mod changes;
mod index;
mod lines;
mod paths;
mod words;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use packet::Frame;

use crate::extract::Depth;
use crate::frozen::Frozen;
use crate::key::{Key, PACKET_WORDS, TRACKED_WORDS, slot};
use crate::lengths::class_of;
use crate::path::{Op, Path};
use crate::pipeline::Pipeline;
use crate::shape::Shapes;
use crate::tables::Change;
use crate::walk::{Start, find_way};
use index::Index;
use lines::ByLine;
use paths::{MAX_BYTES, MAX_PATHS, NONE, Paths};
use words::ByWords;

pub use lines::Run;

/// What each round weighs at least, so that there are no more than paths.
const LEAST_ROUND: usize = MAX_BYTES / MAX_PATHS;

/// The number of a path. It is good for until the cache [begins](PathCache::begin) again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathId(u32);

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Those that did not, so that a packet went through the tables.
    pub misses: u64,
    /// How often a path was found to hold though tables that it passes have changed.
    pub renewed: u64,
    /// Paths that there are.
    pub paths: usize,
    /// Entries that there is room for.
    pub entries: usize,
}

/// The paths of a bridge's packets, as one worker has met them.
#[derive(Debug)]
pub struct PathCache {
    pipeline: Arc<Pipeline>,
    /// Of frames of ordinary shapes as they come in.
    shaped: ByLine,
    shapes: Shapes,
    /// Of others.
    others: ByWords<PACKET_WORDS>,
    /// Of those that were tracked.
    tracked: ByWords<TRACKED_WORDS>,
    depth: Depth,
    /// Whether packets have come in that begin with something else than Ethernet.
    has_types: bool,
    /// The lengths of packets that make a difference.
    lengths: Box<[u16]>,
    paths: Paths,
    /// What tracked packets go on with, by number, the first of which is 1; and the numbers.
    rounds: Vec<Arc<Frozen>>,
    numbers: HashMap<Arc<Frozen>, u32>,
    /// About how many bytes these are.
    rounds_weight: usize,
    stats: CacheStats,
}

impl PathCache {
    /// An empty one.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        let seed = RandomState::new().hash_one(1);
        let look_ups = pipeline.tables.look_ups().clone();
        let mut cache = Self {
            pipeline,
            shaped: ByLine::new(),
            shapes: Shapes::new(Default::default(), Depth::All, 1),
            others: ByWords::new(),
            tracked: ByWords::new(),
            depth: Depth::All,
            has_types: false,
            lengths: Box::default(),
            paths: Paths::new(seed, look_ups),
            rounds: Vec::new(),
            numbers: HashMap::new(),
            rounds_weight: 0,
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
        let all = [&self.shaped.index, &self.others.index];
        let (paths, entries) = (self.paths.len(), all.map(Index::entries).iter().sum());
        CacheStats { paths, entries, renewed: self.paths.renewed, ..self.stats }
    }

    /// Has another pipeline decide from `now` on, in milliseconds. Paths stay that it decides about as the
    /// one before did.
    pub fn update(&mut self, pipeline: Arc<Pipeline>, now: u64) {
        self.paths.now = now;
        self.paths.flush_learning();
        self.end_burst();
        self.paths.count_in(pipeline.tables.look_ups());
        let before = std::mem::replace(&mut self.pipeline, pipeline);
        let is_known = self.paths.changes.add(&self.pipeline, &before);
        if self.look() || !is_known {
            self.forget();
        } else {
            self.paths.tidy();
        }
    }

    /// Finds out what to look at; returns whether that is something else than before.
    fn look(&mut self) -> bool {
        let relevant = self.pipeline.relevant();
        let keyed = self.keyed(relevant);
        let is_other = self.others.look_at(&keyed) | self.tracked.look_at(&keyed);
        let ether_src = slot::ETH_SRC.ones();
        let is_link = |(word, bits): &(u8, u64)| match usize::from(*word) {
            2 => u128::from(*bits) & !ether_src == 0,
            word => word <= slot::VLAN_TCI.word(),
        };
        let mut words = (0..).zip(relevant.words().iter().copied()).take(PACKET_WORDS);
        let is_flat = words.all(|(word, bits)| bits == 0 || is_link(&(word, bits)));
        self.depth = if is_flat { Depth::Link } else { Depth::All };
        let relevant = (self.pipeline.relevant_by_kind(), relevant);
        let shapes = Shapes::new(relevant, self.depth, self.pipeline.vlans.tags());
        let is_other = !shapes.is_same(&self.shapes) || is_other;
        if is_other {
            self.shapes = shapes;
            self.shaped.begin();
        }
        let lengths = self.pipeline.tables.lengths().classes();
        let is_other = is_other || lengths != self.lengths;
        self.lengths = lengths;
        is_other
    }

    /// What of packets counts whose keys are made.
    fn keyed(&self, mut relevant: Key) -> Key {
        if self.has_types {
            relevant.set(slot::PACKET_TYPE, slot::PACKET_TYPE.ones());
        }
        relevant
    }

    /// From now on, packets come in that begin with something else than Ethernet: they are told apart by it. As
    /// long as none has come, no packet is the slower for that.
    #[inline]
    pub fn tell_types(&mut self) {
        if !self.has_types {
            self.begin_types();
        }
    }

    #[cold]
    fn begin_types(&mut self) {
        self.has_types = true;
        let keyed = self.keyed(self.pipeline.relevant());
        self.end_burst();
        self.others.look_at(&keyed);
        self.tracked.look_at(&keyed);
    }

    /// Forgets all paths, whose rules are told before.
    fn forget(&mut self) {
        self.rounds.clear();
        self.numbers.clear();
        self.rounds_weight = 0;
        if self.paths.forget() {
            self.shaped.clear();
            self.others.index.clear();
            self.tracked.index.clear();
        }
    }

    /// Numbers of paths from before are good for nothing any more: a burst has come to its end.
    #[inline]
    pub fn begin(&mut self, now: u64) {
        self.end_burst();
        if self.paths.are_many() {
            self.make_room(now);
        }
        if self.paths.is_worn() || self.rounds_weight > MAX_BYTES {
            self.paths.now = now;
            self.forget();
        }
    }

    /// There are more paths than there may be.
    #[cold]
    fn make_room(&mut self, now: u64) {
        self.paths.now = now;
        match self.paths.are_too_many() {
            true => self.forget(),
            false => self.paths.tidy(),
        }
    }

    #[inline]
    const fn end_burst(&mut self) {
        self.others.begin();
        self.tracked.begin();
    }

    /// Tells the rules how many packets they were for, which were seen until `now`, in milliseconds.
    pub fn flush(&mut self, now: u64) {
        self.paths.now = now;
        self.paths.flush();
    }

    /// A path by its number.
    #[must_use]
    #[inline]
    pub fn path(&self, PathId(id): PathId) -> Option<&Path> {
        self.paths.get(id)
    }

    /// Counts packets that take a path; returns the rules that are made of them, if they are the first
    /// since the path's own were told.
    #[inline]
    pub fn count(&mut self, PathId(id): PathId, packets: u64, bytes: u64) -> &[Arc<Change>] {
        self.paths.count(id, packets, bytes)
    }

    /// Takes the frames of a burst that came in at a port, by its OpenFlow number. Returns those that are
    /// looked up by [runs](Self::next_run), a bit for each; others have to be by their [keys](Self::find).
    #[inline]
    pub fn take_frames(&mut self, port: u32, frames: &[Frame<'_>]) -> u32 {
        // How long a frame is, is not among its bytes.
        if !self.lengths.is_empty() {
            return 0;
        }
        self.shapes.set_port(port);
        let taken = self.shaped.take(&mut self.shapes, frames);
        self.stats.hits += u64::from(taken.count_ones());
        taken
    }

    /// The next frames that are alike, of those that were taken last.
    #[inline]
    pub fn next_run(&mut self, frames: &[Frame<'_>]) -> Option<Run> {
        let Self { shaped, shapes, paths, .. } = self;
        let (number, mask, bytes) = shaped.next()?;
        if number == 0
            && let Some(id) = shaped.front(|id| paths.stands(id))
        {
            return Some(Run { path: PathId(id), mask, bytes });
        }
        let frame = frames.get(number)?;
        let judge = |id| match paths.stands(id) {
            true => Some(id),
            false => paths.judge(id, &shapes.key(frame.head(), frame.len())),
        };
        let found = shaped.find(number, judge);
        let id = found.unwrap_or_else(|| self.missing(number, frame));
        self.shaped.note(number, id);
        Some(Run { path: PathId(id), mask, bytes })
    }

    #[cold]
    fn missing(&mut self, number: usize, frame: &Frame<'_>) -> u32 {
        // It was taken for one.
        self.stats.hits -= 1;
        let id = self.way(&self.shapes.key(frame.head(), frame.len()), &Start::Table);
        let paths = &self.paths;
        self.shaped.put(number, id, |id| paths.has(id));
        id
    }

    /// The path of a packet with this key, that has come in.
    #[inline]
    pub fn find(&mut self, key: &Key) -> PathId {
        let Self { others, paths, .. } = self;
        match others.find(key, |id| paths.judge(id, key)) {
            Some(id) => {
                self.stats.hits += 1;
                id
            }
            None => {
                let id = self.way(key, &Start::Table);
                let paths = &self.paths;
                self.others.put(id, |id| paths.has(id));
                PathId(id)
            }
        }
    }

    /// The path of a packet that was tracked, or looked at anew, and goes on with what has number `round`, which an operation
    /// of a path that was found in this burst says. `key` has what is of the packet itself, and what is
    /// known of its connection. `None`: there is no such number.
    pub fn find_tracked(&mut self, round: u32, key: &mut Key) -> Option<PathId> {
        let frozen = self.rounds.get(round.checked_sub(1)? as usize)?;
        key.set(slot::IN_PORT, frozen.key.get(slot::IN_PORT));
        key.set_packet_type(frozen.key.get_u32(slot::PACKET_TYPE));
        key.set(slot::RECIRC_ID, u128::from(round));
        let Self { tracked, paths, .. } = self;
        Some(match tracked.find(key, |id| paths.judge(id, key)) {
            Some(id) => {
                self.stats.hits += 1;
                id
            }
            None => {
                let frozen = Arc::clone(frozen);
                let id = self.way(key, &Start::Frozen(&frozen));
                let paths = &self.paths;
                self.tracked.put(id, |id| paths.has(id));
                PathId(id)
            }
        })
    }

    /// What tracked packets go on with that have number `round`, as in [`find_tracked`](Self::find_tracked).
    #[must_use]
    pub fn round(&self, round: u32) -> Option<&Arc<Frozen>> {
        self.rounds.get(round.checked_sub(1)? as usize)
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
        // Where rules change, it is noted what tells packets from those that a change is about.
        let traces = self.paths.take_traces();
        let mut way = find_way(&pipeline, &mut key.clone(), start, (None, traces));
        for op in &mut way.ops {
            match op {
                Op::Track(track, round) => {
                    *round = track.next.as_ref().map_or(0, |next| self.number(next));
                }
                Op::Again(next, round) => *round = self.number(next),
                _ => {}
            }
        }
        // There are more numbers than packets of a burst can need.
        self.paths.intern(way, key).unwrap_or(NONE)
    }

    /// The number of what tracked packets go on with.
    fn number(&mut self, next: &Arc<Frozen>) -> u32 {
        let Self { rounds, rounds_weight, .. } = self;
        *self.numbers.entry(Arc::clone(next)).or_insert_with(|| {
            rounds.push(Arc::clone(next));
            *rounds_weight += LEAST_ROUND.max(next.weight());
            u32::try_from(rounds.len()).unwrap_or(u32::MAX)
        })
    }
}

#[cfg(test)]
mod tests;
