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
//! - `counts`: how often paths were looked up
//! - `effort`: how much may be looked at in one go
//! - `index`: entries, by whatever values
//! - `lines`: those by the first bytes of frames
//! - `words`: those by words of keys
//! - `paths`: the paths
//! - `ways`: which path a packet takes

mod changes;
mod counts;
mod effort;
mod index;
mod lines;
mod paths;
mod ways;
mod words;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use packet::{Burst, Frame};

use crate::extract::Depth;
use crate::frozen::Frozen;
use crate::key::{Key, MARKED_WORDS, PACKET_WORDS, TRACKED_WORDS, slot};
use crate::kinds::KINDS;
use crate::lengths::class_of;
use crate::path::Path;
use crate::pipeline::Pipeline;
use crate::shape::Shapes;
use crate::tables::Change;
use crate::walk::Start;
use index::Index;
use lines::ByLine;
use ways::Ways;
use words::ByWords;

pub use counts::PathCounts;
pub use lines::Run;

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

/// What counts of packets: of those of known kinds, of any, and behind how many tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Looks {
    by_kind: [Key; KINDS.len()],
    relevant: Key,
    vlans: u8,
}

/// The paths of a bridge's packets, as one worker has met them.
#[derive(Debug)]
pub struct PathCache {
    ways: Ways,
    /// Of frames of ordinary shapes as they come in.
    shaped: ByLine,
    shapes: Shapes,
    looks: Box<Looks>,
    /// Of others.
    others: ByWords<PACKET_WORDS>,
    /// Of those that were tracked.
    tracked: ByWords<TRACKED_WORDS>,
    /// The same by all that is known of their connections, once there is one whose path tells somebody of that.
    connected: Option<Box<ByWords<TRACKED_WORDS>>>,
    /// Those of packets that have come with marks, once there is one.
    marked: Option<Box<ByWords<MARKED_WORDS>>>,
    depth: Depth,
    /// Whether packets have come in that begin with something else than Ethernet.
    has_types: bool,
    /// The lengths of packets that make a difference.
    lengths: Box<[u16]>,
    /// Look-ups of which an entry was to be found.
    hits: u64,
    /// Look-ups of packets that had been looked up before.
    again: u64,
    /// What was asked for last of both.
    taken: PathCounts,
}

impl PathCache {
    /// An empty one.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        let seed = RandomState::new().hash_one(1);
        let mut cache = Self {
            ways: Ways::new(pipeline, seed),
            shaped: ByLine::new(),
            shapes: Shapes::new(Default::default(), Depth::All, 1),
            looks: Box::default(),
            others: ByWords::new(),
            tracked: ByWords::new(),
            connected: None,
            marked: None,
            depth: Depth::All,
            has_types: false,
            lengths: Box::default(),
            hits: 0,
            again: 0,
            taken: PathCounts::default(),
        };
        cache.look();
        cache
    }

    /// What decides about packets.
    #[must_use]
    pub const fn pipeline(&self) -> &Arc<Pipeline> {
        &self.ways.pipeline
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
        let Ways { paths, walks, mended, .. } = &self.ways;
        CacheStats {
            // Not where a packet went through the tables all the same.
            hits: self.hits.saturating_sub(*mended),
            misses: *walks,
            renewed: paths.renewed,
            paths: paths.len(),
            entries: all.map(Index::entries).iter().sum(),
        }
    }

    /// Has another pipeline decide from `now` on, in milliseconds. Paths stay that it decides about as the
    /// one before did.
    pub fn update(&mut self, pipeline: Arc<Pipeline>, now: u64) {
        self.ways.paths.now = now;
        self.ways.paths.flush_learning();
        self.end_burst();
        let is_known = self.ways.update(pipeline);
        if self.look() || !is_known {
            self.forget();
        } else {
            self.ways.exchange();
            self.ways.paths.tidy();
        }
    }

    /// Finds out what to look at; returns whether that is something else than before.
    fn look(&mut self) -> bool {
        let relevant = self.ways.pipeline.relevant();
        let by_kind = self.ways.pipeline.relevant_by_kind();
        let vlans = self.ways.pipeline.vlans.tags();
        let lengths = self.ways.pipeline.tables.lengths().classes();
        let looks = Looks { by_kind, relevant, vlans };
        // Mostly it is what it was.
        if *self.looks == looks && self.lengths == lengths {
            return false;
        }
        *self.looks = looks;
        let keyed = self.keyed(relevant);
        let is_other = self.look_at(&keyed);
        let ether_src = slot::ETH_SRC.ones();
        let is_link = |(word, bits): &(u8, u64)| match usize::from(*word) {
            2 => u128::from(*bits) & !ether_src == 0,
            word => word <= slot::VLAN_TCI.word(),
        };
        let mut words = (0..).zip(relevant.words().iter().copied()).take(PACKET_WORDS);
        let is_flat = words.all(|(word, bits)| bits == 0 || is_link(&(word, bits)));
        self.depth = if is_flat { Depth::Link } else { Depth::All };
        let shapes = Shapes::new((by_kind, relevant), self.depth, vlans);
        let is_other = !shapes.is_same(&self.shapes) || is_other;
        if is_other {
            self.shapes = shapes;
            self.shaped.begin();
        }
        let is_other = is_other || lengths != self.lengths;
        self.lengths = lengths;
        is_other
    }

    /// Has these bits count of packets whose keys are made; returns whether they are others than before.
    fn look_at(&mut self, keyed: &Key) -> bool {
        self.others.look_at(keyed)
            | self.tracked.look_at(keyed)
            | self.look_at_connections(keyed)
            | self.look_at_marks(keyed)
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
        let keyed = self.keyed(self.ways.pipeline.relevant());
        self.end_burst();
        self.look_at(&keyed);
    }

    /// Packets of whose connections somebody is told are told apart by all that is known of these.
    fn look_at_connections(&mut self, keyed: &Key) -> bool {
        let Some(connected) = &mut self.connected else { return false };
        let mut keyed = *keyed;
        keyed.union(&Key::of_connections());
        connected.look_at(&keyed)
    }

    /// Packets that have come with marks are told apart by these where no rule looks at them, either: what rules
    /// leave of them goes on to further bridges.
    fn look_at_marks(&mut self, keyed: &Key) -> bool {
        let Some(marked) = &mut self.marked else { return false };
        let mut keyed = *keyed;
        keyed.set(slot::PKT_MARK, slot::PKT_MARK.ones());
        marked.look_at(&keyed)
    }

    /// Forgets all paths, whose rules are told before.
    fn forget(&mut self) {
        if self.ways.forget() {
            self.shaped.clear();
            self.others.index.clear();
            self.tracked.index.clear();
            self.connected.iter_mut().for_each(|connected| connected.index.clear());
            self.marked.iter_mut().for_each(|marked| marked.index.clear());
        }
    }

    /// Numbers of paths from before are good for nothing any more: a burst has come to its end.
    #[inline]
    pub fn begin(&mut self, now: u64) {
        self.end_burst();
        if self.ways.paths.are_many() {
            self.make_room(now);
        }
        if self.ways.paths.is_worn() || self.ways.rounds.are_too_many() {
            self.ways.paths.now = now;
            self.forget();
        }
    }

    /// There are more paths than there may be.
    #[cold]
    fn make_room(&mut self, now: u64) {
        self.ways.paths.now = now;
        match self.ways.paths.are_too_many() {
            true => self.forget(),
            false => self.ways.paths.tidy(),
        }
    }

    #[inline]
    const fn end_burst(&mut self) {
        self.others.begin();
        self.tracked.begin();
        if let Some(connected) = &mut self.connected {
            connected.begin();
        }
        if let Some(marked) = &mut self.marked {
            marked.begin();
        }
    }

    /// Tells the rules how many packets they were for, which were seen until `now`, in milliseconds.
    pub fn flush(&mut self, now: u64) {
        self.ways.paths.now = now;
        self.ways.paths.flush();
    }

    /// A path by its number.
    #[must_use]
    #[inline]
    pub fn path(&self, PathId(id): PathId) -> Option<&Path> {
        self.ways.paths.get(id)
    }

    /// Counts packets that take a path; returns the rules that are made of them, if they are the first
    /// since the path's own were told.
    #[inline]
    pub fn count(&mut self, PathId(id): PathId, packets: u64, bytes: u64) -> &[Arc<Change>] {
        self.ways.paths.count(id, packets, bytes)
    }

    /// The path of all frames of a burst that came in at a port, by its OpenFlow number, if these are surely like
    /// what came in there last, and it stands; with their bytes.
    #[inline]
    pub fn find_whole(&mut self, port: u32, frames: Burst<'_, '_>) -> Option<(PathId, u64)> {
        // How long a frame is, is not among its bytes.
        if !self.lengths.is_empty() {
            return None;
        }
        self.shapes.set_port(port);
        let (id, bytes) = self.shaped.whole(&self.shapes, frames)?;
        if !self.ways.paths.stands(id) {
            return None;
        }
        self.hits += frames.len() as u64;
        Some((PathId(id), bytes))
    }

    /// Takes the frames of a burst that came in at a port, by its OpenFlow number. Returns those that are
    /// looked up by [runs](Self::next_run), a bit for each; others have to be by their [keys](Self::find).
    #[inline]
    pub fn take_frames(&mut self, port: u32, frames: Burst<'_, '_>) -> u32 {
        // How long a frame is, is not among its bytes.
        if !self.lengths.is_empty() {
            return 0;
        }
        self.shapes.set_port(port);
        let taken = self.shaped.take(&mut self.shapes, frames);
        self.hits += u64::from(taken.count_ones());
        taken
    }

    /// The next frames that are alike, of those that were taken last.
    #[inline]
    pub fn next_run(&mut self, frames: &[Frame<'_>]) -> Option<Run> {
        let Self { shaped, shapes, ways, .. } = self;
        let (number, mask, bytes) = shaped.next()?;
        if number == 0
            && let Some(id) = shaped.front(|id| ways.paths.stands(id))
        {
            return Some(Run { path: PathId(id), mask, bytes });
        }
        let frame = frames.get(number)?;
        let key = || shapes.key(frame.head(), frame.len());
        let found = shaped.find(number, |id| ways.judge(id, key));
        let id = found.unwrap_or_else(|| self.missing(number, frame));
        self.shaped.note(number, id);
        Some(Run { path: PathId(id), mask, bytes })
    }

    #[cold]
    fn missing(&mut self, number: usize, frame: &Frame<'_>) -> u32 {
        // It was taken for one.
        self.hits -= 1;
        let id = self.ways.find(&self.shapes.key(frame.head(), frame.len()), &Start::Table);
        let paths = &self.ways.paths;
        self.shaped.put(number, id, |id| paths.has(id));
        id
    }

    /// The path of a packet with this key, that has come in.
    #[inline]
    pub fn find(&mut self, key: &Key) -> PathId {
        let Self { others, ways, .. } = self;
        match others.find(key, |id| ways.judge(id, || *key)) {
            Some(id) => {
                self.hits += 1;
                id
            }
            None => {
                let id = self.ways.find(key, &Start::Table);
                let paths = &self.ways.paths;
                self.others.put(id, |id| paths.has(id));
                PathId(id)
            }
        }
    }

    /// The path of a packet that was tracked, or looked at anew, and goes on with what has number `round`, which an operation
    /// of a path that was found in this burst says. `key` has what is of the packet itself, and what is
    /// known of its connection. `None`: there is no such number.
    pub fn find_tracked(&mut self, round: u32, key: &mut Key) -> Option<PathId> {
        let frozen = self.ways.rounds.get(round)?;
        key.set(slot::IN_PORT, frozen.key.get(slot::IN_PORT));
        key.set_packet_type(frozen.key.get_u32(slot::PACKET_TYPE));
        key.set(slot::RECIRC_ID, u128::from(round));
        self.note_again(1);
        let Self { tracked, connected, ways, hits, .. } = self;
        let found = tracked.find(key, |id| ways.judge(id, || *key));
        let found = found.or_else(|| connected.as_mut()?.find(key, |id| ways.judge(id, || *key)));
        if let Some(id) = found {
            *hits += 1;
            return Some(id);
        }
        let frozen = Arc::clone(ways.rounds.get(round)?);
        let id = ways.find(key, &Start::Frozen(&frozen));
        if ways.paths.get(id).is_some_and(Path::tells_connection) {
            self.put_connected(key, id);
        } else {
            tracked.put(id, |id| ways.paths.has(id));
        }
        Some(PathId(id))
    }

    /// Adds the entry of packets with all of this key, whose path tells of their connection.
    #[cold]
    fn put_connected(&mut self, key: &Key, id: u32) {
        if self.connected.is_none() {
            self.connected = Some(Box::new(ByWords::new()));
            let keyed = self.keyed(self.ways.pipeline.relevant());
            self.look_at_connections(&keyed);
        }
        let Self { connected, ways, .. } = self;
        let Some(connected) = connected else { return };
        // The place for it is that of what is not found.
        connected.find(key, |_| None);
        connected.put(id, |id| ways.paths.has(id));
    }

    /// What tracked packets go on with that have number `round`, as in [`find_tracked`](Self::find_tracked).
    #[must_use]
    pub fn round(&self, round: u32) -> Option<&Arc<Frozen>> {
        self.ways.rounds.get(round)
    }

    /// The path of a packet with this key that has come with a mark, from another bridge.
    pub fn find_marked(&mut self, key: &Key) -> PathId {
        if self.marked.is_none() {
            self.marked = Some(Box::new(ByWords::new()));
            let keyed = self.keyed(self.ways.pipeline.relevant());
            self.look_at_marks(&keyed);
        }
        let Self { marked, ways, hits, .. } = self;
        let Some(marked) = marked else { return PathId(paths::NONE) };
        if let Some(id) = marked.find(key, |id| ways.judge(id, || *key)) {
            *hits += 1;
            return id;
        }
        let id = ways.find(key, &Start::Table);
        marked.put(id, |id| ways.paths.has(id));
        PathId(id)
    }

    /// The path of a packet with this key that begins elsewhere than in the first table; it is found anew
    /// each time.
    pub fn find_once(&mut self, key: &Key, start: &Start<'_>) -> PathId {
        PathId(self.ways.find(key, start))
    }
}

#[cfg(test)]
mod tests;
