//! Fragments that wait until all of their packet are there: a connection is told by what only the first one
//! has, and nothing of a packet goes on before it is known what packet it is (decision 63).
//!
//! All of it is bounded: how many fragments wait, and how many bytes; of one port, a share of that. Where a
//! port has no room left, its oldest fragments go; where there is none for anybody, those of the port that
//! has most. Who sends none pays nothing.

mod list;
mod part;
mod way;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::list::{Fit, List};
use self::part::Part;
pub use self::part::Whole;
pub use self::way::Way;
use crate::dissect::{Seen, dissect_whole};

/// How long the first fragment waits for the last one, in milliseconds, as in Open vSwitch.
const WAIT: u64 = 15_000;

/// How many fragments wait at most, as in Open vSwitch, and what may be set.
const FRAGMENTS: usize = 1_000;
const MOST_FRAGMENTS: usize = 5_000;

/// The shortest packets of IP that are fragments, but for the last of each, as in Open vSwitch, and what
/// may be set.
const SHORTEST: [usize; 2] = [1_200, 1_280];
const LEAST_SHORTEST: usize = 400;

/// Bytes that wait at most.
const BYTES: usize = 8 << 20;

/// The share of all that a port has.
const SHARE: usize = 4;

/// Lists that are looked at by a sweep for those whose time is over, of each port.
const SWEPT: usize = 64;

/// What became of fragments, of one version of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// They waited.
    pub accepted: u64,
    /// They went on with all others of their packets.
    pub completed: u64,
    /// Others of their packets did not come in time.
    pub expired: u64,
    /// They were shorter than fragments have to be.
    pub too_small: u64,
    /// They were over others, or there already.
    pub overlapped: u64,
    /// They made room for others.
    pub purged: u64,
}

impl FragmentCounts {
    /// One that is this to those that there are.
    fn note(&mut self, fit: Fit) {
        match fit {
            Fit::Overlaps | Fit::Again => self.overlapped += 1,
            Fit::Kept | Fit::Complete => self.accepted += 1,
        }
    }
}

/// What is shown of fragments of one version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentVersion {
    /// Whether they are put together.
    pub is_enabled: bool,
    /// The shortest packets that are fragments, but for the last of each.
    pub shortest: usize,
    /// What became of them.
    pub counts: FragmentCounts,
}

/// What is shown of fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentStatus {
    /// Of IPv4 and of IPv6.
    pub versions: [FragmentVersion; 2],
    /// How many wait.
    pub count: usize,
    /// How many may.
    pub limit: usize,
    /// Their packets, how many there are of each, and how far it has come.
    pub packets: Vec<(Whole, usize, &'static str)>,
}

/// Why a fragment goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is too short, or is such as nobody makes.
    Bad,
    /// It is over another one of its packet.
    Overlaps,
    /// There is no room for it.
    NoRoom,
}

/// What becomes of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits.
    Waits,
    /// It goes nowhere.
    Refused(Refused),
    /// It was the last one that was waited for: the frames of all of them, in order, and what they are of.
    /// `None`: of no connection.
    Whole(Vec<Vec<u8>>, Option<Box<Seen>>),
}

/// A frame with a fragment, all of it.
#[derive(Debug)]
pub struct Fragment {
    /// Its bytes.
    pub frame: Vec<u8>,
    /// Where IP begins.
    pub network: usize,
    /// What IP is.
    pub ether_type: u16,
    /// Where it is tracked.
    pub zone: u16,
    /// The table that it goes on with, and one more; 0: none.
    pub next: u16,
    /// The tags of VLANs that it came with, the outer one first: their kinds and numbers; 0: none.
    pub tags: [u32; 2],
}

/// Those of one port.
#[derive(Debug, Default)]
struct Owner {
    /// By the time that the first one of each came.
    lists: Vec<List>,
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Store {
    owners: HashMap<u32, Owner>,
    count: usize,
    bytes: usize,
    limit: usize,
    shortest: [usize; 2],
    counts: [FragmentCounts; 2],
}

/// All fragments that wait.
#[derive(Debug)]
pub struct Fragments {
    are_enabled: [AtomicBool; 2],
    store: Mutex<Store>,
}

impl Default for Fragments {
    fn default() -> Self {
        let store = Store {
            owners: HashMap::new(),
            count: 0,
            bytes: 0,
            limit: FRAGMENTS,
            shortest: SHORTEST,
            counts: [FragmentCounts::default(); 2],
        };
        Self { are_enabled: [true, true].map(AtomicBool::new), store: Mutex::new(store) }
    }
}

impl Fragments {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enabled(&self, is_v6: bool) -> &AtomicBool {
        let [v4, v6] = &self.are_enabled;
        if is_v6 { v6 } else { v4 }
    }

    /// Whether fragments are put together; if not, they are of no connection.
    #[must_use]
    pub fn are_enabled(&self, is_v6: bool) -> bool {
        self.enabled(is_v6).load(Relaxed)
    }

    /// Sets whether they are. Those that wait do so until their time is over.
    pub fn enable(&self, is_v6: bool, is_enabled: bool) {
        self.enabled(is_v6).store(is_enabled, Relaxed);
    }

    /// Sets how short they may be; returns whether that can be.
    #[must_use]
    pub fn set_shortest(&self, is_v6: bool, len: usize) -> bool {
        let is_right = (LEAST_SHORTEST..=usize::from(u16::MAX)).contains(&len);
        let store = &mut *self.store();
        let [v4, v6] = &mut store.shortest;
        if is_right {
            *(if is_v6 { v6 } else { v4 }) = len;
        }
        is_right
    }

    /// Sets how many may wait; returns whether so many can.
    #[must_use]
    pub fn set_limit(&self, limit: usize) -> bool {
        let is_right = limit <= MOST_FRAGMENTS;
        if is_right {
            self.store().limit = limit;
        }
        is_right
    }

    /// What is shown of them.
    #[must_use]
    pub fn status(&self) -> FragmentStatus {
        let store = self.store();
        let version = |(shortest, counts): (usize, FragmentCounts), is_v6| FragmentVersion {
            is_enabled: self.are_enabled(is_v6),
            shortest,
            counts,
        };
        let [v4, v6] = store.shortest;
        let [counts, counts_v6] = store.counts;
        let lists = store.owners.values().flat_map(|owner| &owner.lists);
        FragmentStatus {
            versions: [version((v4, counts), false), version((v6, counts_v6), true)],
            count: store.count,
            limit: store.limit,
            packets: lists.map(|list| (list.whole, list.count(), list.state())).collect(),
        }
    }

    /// A fragment of `owner` comes at `now`, in milliseconds, by this way. Returns what becomes of it,
    /// and how many of the same owner went to make room for it.
    pub fn add(
        &self,
        (owner, way): (u32, &Arc<dyn Way>),
        fragment: Fragment,
        now: u64,
    ) -> (Fate, usize) {
        let Some(part) = Part::parse(&fragment) else {
            return (Fate::Refused(Refused::Bad), 0);
        };
        let Fragment { ether_type, zone, .. } = fragment;
        let (added, gone) =
            self.store().add((owner, way), &part, (fragment.network, fragment.frame), now);
        // No lock is held while it is looked at.
        let fate = match added {
            Err(refused) => Fate::Refused(refused),
            Ok(None) => Fate::Waits,
            Ok(Some(list)) => {
                let head = list.head().unwrap_or_default();
                let seen = dissect_whole(ether_type, head, list.total(), zone).map(Box::new);
                Fate::Whole(list.into_frames(), seen)
            }
        };
        (fate, gone)
    }

    /// Gives up all of an owner: whoever gets his number has none of them.
    pub fn forget(&self, owner: u32) {
        let Store { owners, count, bytes, counts, .. } = &mut *self.store();
        for list in owners.remove(&owner).iter().flat_map(|own| &own.lists) {
            give_up(list, (count, bytes));
            of_version(counts, &list.whole).purged += list.count() as u64;
        }
    }

    /// Gives up those whose time is over by `now`, some of each port.
    pub(crate) fn sweep(&self, now: u64) {
        let store = &mut *self.store();
        let owners: Vec<u32> = store.owners.keys().copied().collect();
        for owner in owners {
            store.give_up_if(owner, |list| list.end <= now, now);
            if store.owners.get(&owner).is_some_and(|own| own.lists.is_empty()) {
                store.owners.remove(&owner);
            }
        }
    }
}

fn of_version<'c>(counts: &'c mut [FragmentCounts; 2], whole: &Whole) -> &'c mut FragmentCounts {
    let [v4, v6] = counts;
    if whole.source.is_ipv6() { v6 } else { v4 }
}

fn give_up(list: &List, (count, bytes): (&mut usize, &mut usize)) {
    *count -= list.count();
    *bytes -= list.bytes;
}

impl Owner {
    fn take(&mut self, at: usize) -> Option<List> {
        if at >= self.lists.len() {
            return None;
        }
        let list = self.lists.remove(at);
        give_up(&list, (&mut self.count, &mut self.bytes));
        Some(list)
    }

    fn take_first_if(&mut self, is_meant: impl Fn(&List) -> bool) -> Option<List> {
        if self.lists.first().is_some_and(is_meant) { self.take(0) } else { None }
    }
}

/// A fragment that was added: the list that is complete by it, if one is.
type Added = Result<Option<List>, Refused>;

impl Store {
    /// Adds a part, and how many have gone for it.
    fn add(
        &mut self,
        (owner, way): (u32, &Arc<dyn Way>),
        part: &Part,
        (network, mut frame): (usize, Vec<u8>),
        now: u64,
    ) -> (Added, usize) {
        let [v4, v6] = self.shortest;
        let shortest = if part.whole.source.is_ipv6() { v6 } else { v4 };
        if part.has_more && part.len < shortest {
            of_version(&mut self.counts, &part.whole).too_small += 1;
            return (Err(Refused::Bad), 0);
        }
        let Some(gone) = self.make_room(owner, frame.len(), now) else {
            return (Err(Refused::NoRoom), 0);
        };
        let Self { owners, count, bytes, counts, .. } = self;
        let counts = of_version(counts, &part.whole);
        let own = owners.entry(owner).or_default();
        let is_its = |list: &List| list.whole == part.whole && list.way.is_same(&**way);
        let at = own.lists.iter().position(is_its);
        let at = at.unwrap_or_else(|| {
            own.lists.push(List::new(part.whole, Arc::clone(way), now.saturating_add(WAIT)));
            // It takes a place before there is anything in it.
            (own.count, *count) = (own.count + 1, *count + 1);
            own.lists.len() - 1
        });
        let Some(list) = own.lists.get_mut(at) else { return (Err(Refused::NoRoom), gone) };
        let before = (list.count(), list.bytes);
        let fit = list.add(part, (network, &mut frame));
        let after = (list.count(), list.bytes);
        for (place, before, after) in [
            (&mut own.count, before.0, after.0),
            (&mut *count, before.0, after.0),
            (&mut own.bytes, before.1, after.1),
            (&mut *bytes, before.1, after.1),
        ] {
            *place = (*place + after).saturating_sub(before);
        }
        counts.note(fit);
        let added = match fit {
            Fit::Overlaps | Fit::Again => Err(Refused::Overlaps),
            Fit::Kept => Ok(None),
            Fit::Complete => {
                let list = own.take(at);
                list.iter().for_each(|list| {
                    give_up(list, (count, bytes));
                    counts.completed += list.count() as u64;
                });
                Ok(list)
            }
        };
        (added, gone)
    }

    /// Makes room for so many bytes more of an owner: what is his and oldest goes, or, where others have taken
    /// all of it, what is the oldest of him who has most. Returns how many of his own that were; `None` if
    /// there is no room.
    fn make_room(&mut self, owner: u32, len: usize, now: u64) -> Option<usize> {
        let mut gone = self.give_up_if(owner, |list| list.end <= now, now);
        while !self.has_room(owner, len) {
            // Of what there is too little of.
            let are_many = self.count >= self.limit;
            let of = |one: &Owner| if are_many { one.count } else { one.bytes };
            let own = self.owners.get(&owner).map_or(0, of);
            let most = self.owners.iter().max_by_key(|(_, other)| of(other));
            let victim = match most {
                Some((number, other)) if of(other) > own && self.is_within_share(owner, len) => {
                    *number
                }
                _ => owner,
            };
            match self.give_up_first(victim, |_| true, now)? {
                count if victim == owner => gone += count,
                _ => {}
            }
        }
        Some(gone)
    }

    fn has_room(&self, owner: u32, len: usize) -> bool {
        self.count < self.limit && self.bytes + len <= BYTES && self.is_within_share(owner, len)
    }

    /// Whether an owner with so many bytes more has no more than his share.
    fn is_within_share(&self, owner: u32, len: usize) -> bool {
        let (count, bytes) = self.owners.get(&owner).map_or((0, 0), |own| (own.count, own.bytes));
        count < self.limit.div_ceil(SHARE) && bytes + len <= BYTES / SHARE
    }

    /// Gives up the oldest packet of an owner if it is meant; returns how many fragments that were.
    fn give_up_first(
        &mut self,
        owner: u32,
        is_meant: impl Fn(&List) -> bool,
        now: u64,
    ) -> Option<usize> {
        let list = self.owners.get_mut(&owner)?.take_first_if(is_meant)?;
        give_up(&list, (&mut self.count, &mut self.bytes));
        let counts = of_version(&mut self.counts, &list.whole);
        let which = if list.end <= now { &mut counts.expired } else { &mut counts.purged };
        *which += list.count() as u64;
        Some(list.count())
    }

    /// The same of the oldest ones, a few of them at most.
    fn give_up_if(&mut self, owner: u32, is_meant: impl Fn(&List) -> bool, now: u64) -> usize {
        let each = (0..SWEPT).map_while(|_| self.give_up_first(owner, &is_meant, now));
        each.sum()
    }
}

#[cfg(test)]
mod tests;
