//! The paths of a cache: each once, with what has taken it, and until when it is known to hold.
//!
//! Tables may change often, and a path is looked at only when it is asked for: what has changed since it
//! was last known to hold is [judged](Changes::judge), of all packets that take it at once. If it is not
//! sure of all of them, the path is *left*: each entry that is asked for is judged by its own packet, and
//! goes on to a *heir*, the same path as of now, or is decided anew. A path that a single packet takes is judged
//! by that one, and [mended](self::mend) where it is if it does not hold: a rule that changes costs the flow that
//! goes by it one walk, and no other flow anything.
//!
//! Numbers of paths are given once, so that an entry with one that is gone finds nothing. Memory is
//! bounded: the paths that nobody takes make room.

mod by_hash;
mod exchange;
mod mend;

use std::collections::VecDeque;
use std::sync::Arc;

use super::changes::{Changes, Since, Verdict};
use super::effort::Effort;
use crate::key::{Key, slot};
use crate::path::{Path, Way};
use crate::tables::{Change, LookUps};
use crate::walk::room::Room;
use by_hash::ByHash;
use mend::Lacks;
pub(super) use mend::{Broken, Renewed};

/// The most paths; beyond that some make room.
pub(super) const MAX_PATHS: usize = 1 << 16;

/// The most bytes of them, about.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The lower bits of a number are its place, and the upper ones tell the paths that were there.
const PLACE_BITS: u32 = 20;
const LAST_TERM: u32 = (u32::MAX >> PLACE_BITS) - 1;

/// The number of no path.
pub(super) const NONE: u32 = u32::MAX;

/// Places that there can be: the last number of all is that of none.
const MAX_PLACES: usize = (1 << PLACE_BITS) - 1;

/// As many places wait until one is used again: so numbers last long.
const WAITING: usize = 1 << 13;

/// How many paths are looked at for whether they make room, each time.
const AT_ONCE: usize = 64;

#[derive(Debug)]
struct Known {
    /// Its number, or that of none.
    id: u32,
    /// What tells those of this place.
    term: u32,
    /// Until when it is known to hold.
    checked: Since,
    /// It is left, for this one, as long as that has not been mended.
    heir: Option<u32>,
    is_left: bool,
    is_mended: bool,
    was_taken: bool,
    hash: u64,
    weight: usize,
    path: Path,
    /// The only packet that has taken it, as that came in, as far as that is noted; and whether that has come round.
    only: Option<Box<Key>>,
    comes_round: bool,
    /// Which of its rules are gone, where no other path of the era found them.
    lacks: Lacks,
    /// What took it since its rules were told.
    packets: u64,
    bytes: u64,
    /// What was counted when a rule of it was exchanged last before a packet came; [`ANY`] if some have come since that was
    /// told.
    exchanged_at: u64,
}

/// No number of packets.
const ANY: u64 = u64::MAX;

/// All paths of a cache.
#[derive(Debug)]
pub(super) struct Paths {
    places: Vec<Known>,
    /// For each place, the path that may be taken, and in which version: beside each other, as all packets
    /// ask for them.
    standing: Vec<u64>,
    waiting: VecDeque<u32>,
    /// Those that may be taken, by hash.
    by_hash: ByHash,
    /// Those that were taken since their rules were told; and of these, those that rules are made by.
    taken: Vec<u32>,
    learning: Vec<u32>,
    pub(super) changes: Changes,
    /// Those that the last change of rules has pointed at.
    pointed: Vec<u32>,
    /// About how many bytes they are, and may be.
    pub(super) weight: usize,
    pub(super) max_weight: usize,
    /// The place that is looked at next for whether it makes room.
    hand: usize,
    /// There are no more numbers for a place.
    is_worn: bool,
    /// A path was asked for and not found to hold.
    has_failed: bool,
    /// How often one was found to hold still.
    pub(super) renewed: u64,
    seed: u64,
    /// The time, as last told, in milliseconds.
    pub(super) now: u64,
    /// Where tables count what was looked up in them.
    look_ups: LookUps,
}

impl Paths {
    /// None yet.
    pub(super) fn new(seed: u64, look_ups: LookUps) -> Self {
        Self {
            places: Vec::new(),
            standing: Vec::new(),
            waiting: VecDeque::new(),
            by_hash: ByHash::default(),
            taken: Vec::new(),
            learning: Vec::new(),
            changes: Changes::new(seed),
            pointed: Vec::new(),
            weight: 0,
            max_weight: MAX_BYTES,
            hand: 0,
            is_worn: false,
            has_failed: false,
            renewed: 0,
            seed,
            now: 0,
            look_ups,
        }
    }

    /// Has tables count here from now on.
    pub(super) fn count_in(&mut self, look_ups: &LookUps) {
        if !self.look_ups.are(look_ups) {
            self.flush();
            self.look_ups = look_ups.clone();
        }
    }

    /// What hashes of paths begin with.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.waiting.len()
    }

    #[inline]
    fn known(&self, id: u32) -> Option<&Known> {
        self.places.get(place(id)).filter(|known| known.id == id)
    }

    #[inline]
    fn known_mut(&mut self, id: u32) -> Option<&mut Known> {
        self.places.get_mut(place(id)).filter(|known| known.id == id)
    }

    /// A path by its number.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Path> {
        self.known(id).map(|known| &known.path)
    }

    /// Whether there is a path of this number, though it may hold no more.
    #[inline]
    pub(super) fn has(&self, id: u32) -> bool {
        self.known(id).is_some()
    }

    /// Whether any packet may take the path of this number, as far as is known.
    #[inline]
    pub(super) fn stands(&self, id: u32) -> bool {
        self.standing.get(place(id)) == Some(&standing(id, self.changes.loud()))
    }

    /// The path that packets take by an entry with this number that does not stand as it is: that one, or its
    /// heir; `key` is one of them.
    pub(super) fn renew(&mut self, id: u32, key: impl FnOnce() -> Key) -> Renewed {
        if self.is_alone(id) {
            return self.renew_alone(id);
        }
        let found = match self.check(id) {
            Some(Verdict::Holds) => Some(id),
            Some(Verdict::Unsure) => self.heir(id, &key()),
            Some(Verdict::Over) | None => None,
        };
        self.renewed += u64::from(found.is_some());
        self.has_failed |= found.is_none();
        found.map_or(Renewed::Gone, Renewed::Stands)
    }

    /// Finds out what has become of a path.
    fn check(&mut self, id: u32) -> Option<Verdict> {
        if self.is_alone(id) {
            let holds = self.check_alone(id) == Some(Verdict::Holds);
            return Some(if holds { Verdict::Holds } else { Verdict::Unsure });
        }
        let Self { places, changes, standing: all, .. } = self;
        let known = places.get_mut(place(id)).filter(|known| known.id == id)?;
        if !known.lacks.is_nothing() {
            // All of its packets found what is gone.
            self.remove(id);
            return Some(Verdict::Over);
        }
        if known.is_left {
            return Some(Verdict::Unsure);
        }
        let now = changes.now();
        let verdict = match known.checked.era == now.era {
            true => changes.judge(&known.path, known.checked, None, &mut Effort::of_path()),
            // Of each of its packets it is to be noted what it is.
            false => Verdict::Unsure,
        };
        match verdict {
            Verdict::Holds => {
                known.checked = now;
                if let Some(own) = all.get_mut(place(id)) {
                    *own = standing(id, changes.loud());
                }
            }
            Verdict::Unsure => {
                known.is_left = true;
                self.unlist(id);
            }
            Verdict::Over => self.remove(id),
        }
        Some(verdict)
    }

    /// The heir of a path that is left, if a packet still takes the same way.
    fn heir(&mut self, id: u32, key: &Key) -> Option<u32> {
        let Self { places, changes, .. } = self;
        let known = places.get(place(id)).filter(|known| known.id == id)?;
        // Without a trace, nothing is known of a single packet.
        let trace = known.path.trace.as_ref()?;
        let effort = &mut Effort::of_path();
        if changes.judge(&known.path, known.checked, Some(key), effort) != Verdict::Holds {
            return None;
        }
        if known.checked.era != changes.now().era {
            if !changes.is_told_by(trace) {
                return None;
            }
            changes.note(key, Some(trace));
        }
        let (heir, hash) = (known.heir, known.hash);
        if let Some(heir) = heir
            && self.known(heir).is_some_and(|heir| !heir.is_mended)
            && self.check(heir) == Some(Verdict::Holds)
        {
            self.share(heir, key);
            return Some(heir);
        }
        let path = self.known(id)?.path.clone();
        let heir = self.add(path, hash, key)?;
        self.known_mut(id)?.heir = Some(heir);
        Some(heir)
    }

    /// A packet with this key takes a path, too.
    fn share(&mut self, id: u32, key: &Key) {
        let Some(known) = self.known_mut(id) else { return };
        known.only = known.only.take().filter(|only| **only == *key);
    }

    /// Whether a way needs a trace: one has failed since that was last asked, or all are noted.
    pub(super) const fn take_traces(&mut self) -> bool {
        std::mem::replace(&mut self.has_failed, false) || self.changes.notes()
    }

    /// The number of the path of a way, which a packet takes that came in as this; the same one for ways
    /// that are equal.
    pub(super) fn intern(&mut self, mut way: Way<'_>, key: &Key, room: &mut Room) -> Option<u32> {
        let trace = way.trace();
        self.changes.note(key, trace.as_ref());
        let hash = way.hash(self.seed);
        let is_it = |path: &Path| way.is(path) && path.trace.is_some() == trace.is_some();
        let found = self.same(hash, |id| self.get(id).is_some_and(is_it));
        if let Some(id) = found
            && self.check(id) == Some(Verdict::Holds)
            && let Some(known) = self.known_mut(id)
        {
            if let (Some(trace), Some(other)) = (&mut known.path.trace, &trace) {
                trace.join(other);
            }
            self.share(id, key);
            room.take_back(way);
            return Some(id);
        }
        self.add(way.into_path(trace, room), hash, key)
    }

    /// Adds a path that holds, which a packet takes that came in as this.
    fn add(&mut self, path: Path, hash: u64, key: &Key) -> Option<u32> {
        let at = self.room()?;
        let (now, loud) = (self.changes.now(), self.changes.loud());
        let only = self.changes.notes().then(|| Box::new(*key));
        let known = self.places.get_mut(at)?;
        known.term += 1;
        let id = known.term << PLACE_BITS | u32::try_from(at).ok()?;
        self.note_rules(&path, id);
        let known = self.places.get_mut(at)?;
        let weight = size_of::<Known>() + path.weight() + only.as_deref().map_or(0, size_of_val);
        let (term, comes_round) = (known.term, key.get_u32(slot::RECIRC_ID) != 0);
        *known = Known { id, term, weight, hash, path, only, comes_round, ..Known::new(now) };
        *self.standing.get_mut(at)? = standing(id, loud);
        self.weight += weight;
        self.list(id, hash);
        Some(id)
    }

    /// A place for one more.
    fn room(&mut self) -> Option<usize> {
        let is_full = self.places.len() >= MAX_PLACES;
        if self.waiting.len() > WAITING || is_full {
            let place = self.waiting.pop_front()? as usize;
            if self.places.get(place).is_some_and(|known| known.term < LAST_TERM) {
                return Some(place);
            }
            self.is_worn = true;
        }
        if is_full {
            return None;
        }
        self.places.push(Known::new(Since { version: 0, era: 0 }));
        self.standing.push(0);
        Some(self.places.len() - 1)
    }

    /// Takes one out, when its rules have been told what took it.
    pub(super) fn remove(&mut self, id: u32) {
        self.unlist(id);
        self.tell(id);
        let now = self.changes.now();
        let Some(known) = self.known_mut(id) else { return };
        let term = known.term;
        let gone = std::mem::replace(known, Known { term, ..Known::new(now) });
        self.weight -= gone.weight;
        if let Some(own) = self.standing.get_mut(place(id)) {
            *own = 0;
        }
        self.waiting.extend(u32::try_from(place(id)));
    }

    /// One of those that are found by this hash.
    fn same(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.by_hash.find(hash, is_it)
    }

    /// Has other packets take it that find it by this hash.
    fn list(&mut self, id: u32, hash: u64) {
        let Some(known) = self.places.get_mut(place(id)) else { return };
        known.hash = hash;
        self.by_hash.add(hash, id);
    }

    /// No other packets are to take it.
    fn unlist(&mut self, id: u32) {
        if let Some(hash) = self.known(id).map(|known| known.hash) {
            self.by_hash.remove(hash, id);
        }
    }

    /// Has it be found by this hash from now on.
    fn relist(&mut self, id: u32, hash: u64) {
        self.unlist(id);
        self.list(id, hash);
    }

    /// Forgets all, whose rules are told before. Returns whether numbers begin anew.
    pub(super) fn forget(&mut self) -> bool {
        self.flush();
        self.changes.restart();
        self.by_hash.clear();
        let is_worn = std::mem::take(&mut self.is_worn);
        if is_worn {
            (self.places, self.waiting, self.weight) = Default::default();
            self.standing.clear();
            return true;
        }
        let ids: Vec<u32> = self.places.iter().map(|known| known.id).collect();
        ids.into_iter().filter(|id| *id != NONE).for_each(|id| self.remove(id));
        false
    }

    /// Whether there are so many numbers that all have to be forgotten.
    #[inline]
    pub(super) const fn is_worn(&self) -> bool {
        self.is_worn
    }

    /// Has all places be used as often as they can.
    #[cfg(test)]
    pub(super) fn wear(&mut self) {
        self.places.iter_mut().for_each(|known| known.term = LAST_TERM);
    }

    /// Whether there are more than there may be.
    #[inline]
    pub(super) fn are_many(&self) -> bool {
        self.weight > self.max_weight || self.len() > MAX_PATHS
    }

    /// Whether there are so many that those which make room are not enough: whoever sends packets of ever
    /// new ways makes them faster than they go.
    pub(super) fn are_too_many(&self) -> bool {
        self.weight > self.max_weight.saturating_mul(2) || self.len() > 2 * MAX_PATHS
    }

    /// Has some make room that are of no use any more, and, where there are too many, those that nobody
    /// has taken lately. No number is in use by then.
    pub(super) fn tidy(&mut self) {
        for _ in 0..AT_ONCE.min(self.places.len()) {
            self.hand = (self.hand + 1) % self.places.len().max(1);
            let are_many = self.are_many();
            // Most stand, which is told by less memory.
            let loud = u64::from(self.changes.loud());
            let standing = self.standing.get(self.hand).copied().unwrap_or_default();
            if !are_many && standing & u64::from(u32::MAX) == loud {
                continue;
            }
            let Some(known) = self.places.get_mut(self.hand) else { return };
            let id = known.id;
            let is_of_use = self.changes.reach(known.checked);
            let was_taken = known.packets > 0 || known.was_taken;
            known.was_taken &= !are_many;
            if id != NONE && (!is_of_use || are_many && !was_taken) {
                self.remove(id);
            }
        }
    }

    /// Counts packets that take a path; returns the rules that are made of them, if they are the first
    /// since the path's own were told.
    #[inline]
    pub(super) fn count(&mut self, id: u32, packets: u64, bytes: u64) -> &[Arc<Change>] {
        let Some(known) = self.known_mut(id) else { return &[] };
        let is_first = known.packets == 0;
        known.packets += packets;
        known.bytes += bytes;
        if is_first {
            return self.begin_count(id);
        }
        &[]
    }

    fn begin_count(&mut self, id: u32) -> &[Arc<Change>] {
        self.taken.push(id);
        let learns = |paths: &Self| paths.get(id).is_some_and(|path| !path.learns.is_empty());
        if learns(self) {
            self.learning.push(id);
        }
        self.get(id).map_or(&[], |path| &path.learns)
    }

    /// Tells rules, groups and tables how many packets they were for.
    pub(super) fn flush(&mut self) {
        self.learning.clear();
        std::mem::take(&mut self.taken).into_iter().for_each(|id| self.tell(id));
    }

    /// The same of those ways only that rules are made on: if one of these is gone, the next packet makes
    /// it again.
    pub(super) fn flush_learning(&mut self) {
        std::mem::take(&mut self.learning).into_iter().for_each(|id| self.tell(id));
    }

    fn tell(&mut self, id: u32) {
        let (now, at) = (self.now, place(id));
        let known = self.places.get_mut(at).filter(|known| known.id == id && known.packets > 0);
        let Some(known) = known else { return };
        // Whether a packet has come since is to be known then, too.
        known.exchanged_at = if known.is_idle() { 0 } else { ANY };
        let packets = std::mem::take(&mut known.packets);
        let bytes = std::mem::take(&mut known.bytes);
        known.was_taken = true;
        known.path.stats().for_each(|stats| stats.add(packets, bytes, now));
        for visit in &known.path.visits {
            self.look_ups.add(visit.table, visit.rule.is_some(), packets);
        }
    }
}

impl Known {
    /// Whether no packet has taken it since a rule of it was exchanged before one came.
    const fn is_idle(&self) -> bool {
        self.packets == self.exchanged_at
    }

    /// Nothing yet, by now.
    fn new(checked: Since) -> Self {
        Self {
            id: NONE,
            term: 0,
            checked,
            heir: None,
            is_left: false,
            is_mended: false,
            was_taken: true,
            hash: 0,
            weight: 0,
            path: Path::new(Default::default(), Default::default(), None),
            only: None,
            comes_round: false,
            lacks: Lacks::Nothing,
            packets: 0,
            bytes: 0,
            exchanged_at: ANY,
        }
    }
}

/// A path and a version in one.
#[inline]
const fn standing(id: u32, version: u32) -> u64 {
    (id as u64) << 32 | version as u64
}

#[inline]
const fn place(id: u32) -> usize {
    (id & ((1 << PLACE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests;
