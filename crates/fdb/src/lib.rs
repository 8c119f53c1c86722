//! The forwarding database: behind which port a MAC address is.
//!
//! One database serves all workers, and one bridge. Lookups take no lock and touch at most two cache lines; so
//! does noting that an address was seen again. All that changes which address is where (learning,
//! moving, expiring, evicting, an operator's entries) goes through one lock, for which a worker
//! never waits: where it is taken, the worker learns from a later frame.
//!
//! At the size limit, the port with the most entries gives up one that was not seen for long, so
//! that a flood of addresses from one port costs that port its own entries and no other port any.
//! Static entries neither age, nor move, nor give way.
//!
//! - `table`: the hash table
//! - `lists`: the entries of each port, oldest first
//! - `usage`: which port has the most of them
//! - `resize`: a database of another size in the place of one
//!
//! ```
//! use fdb::{Fdb, Key, Learned};
//! use packet::MacAddr;
//!
//! let fdb = Fdb::new(1024, 4, 300);
//! let key = Key::new(0, MacAddr([0x52, 0x54, 0, 0, 0, 1]));
//! let hash = fdb.hash(key);
//! assert!(fdb.find(key, hash).is_none());
//! assert_eq!(fdb.write().learn(key, hash, 3), Learned::New);
//! assert_eq!(fdb.find(key, hash).map(|value| value.port()), Some(3));
//! ```

#![forbid(unsafe_code)]

mod lists;
mod resize;
mod table;
mod usage;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use eal::Counter;
use packet::MacAddr;

use lists::Lists;
pub use table::{Hash, Key, Value};
use table::{Table, WAYS};

/// A port that may learn as many entries as there is room for.
const ANY: u32 = u32::MAX;

/// An entry as the database stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// VLAN id.
    pub vlan: u16,
    /// Address.
    pub mac: MacAddr,
    /// Number of the port that it is behind.
    pub port: u16,
    /// Seconds since it was seen; 0 for a static entry.
    pub age: u32,
    /// Whether an operator set it.
    pub is_static: bool,
}

/// What became of a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It is new.
    New,
    /// It was behind another port.
    Moved,
    /// It was there already, or is another port's static entry.
    Known,
    /// There is no room: only static entries could have given way, or the port has as many as it
    /// may have.
    Refused,
}

/// A forwarding database's size and counters since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries now, static ones included.
    pub entries: usize,
    /// Static entries now.
    pub statics: usize,
    /// The most entries that there can be.
    pub limit: usize,
    /// How long an entry lives without frames, in seconds; 0: for ever.
    pub ageing: u32,
    /// Addresses learnt.
    pub learned: u64,
    /// Addresses that moved from one port to another.
    pub moved: u64,
    /// Entries forgotten since no frame came for too long.
    pub expired: u64,
    /// Entries given up for others at the size limit.
    pub evicted: u64,
    /// Addresses that were not learnt since their ports had as many as they may.
    pub refused: u64,
    /// Frames whose source address is a static entry of another port, which it stays. Several workers
    /// count at once, and one may miss what another one has counted.
    pub kept: u64,
}

/// A database of another size would have no room for a static entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {mac}: all {limit} entries are static")]
pub struct Full {
    /// The address.
    pub mac: MacAddr,
    /// The size limit.
    pub limit: usize,
}

/// How often what happened; see [`Report`]. Written under the lock.
#[derive(Debug, Default)]
struct Counts {
    learned: Counter,
    moved: Counter,
    expired: Counter,
    evicted: Counter,
    refused: Counter,
}

/// A counter that any worker may write, away from what others read for each burst.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Apart(Counter);

/// The forwarding database.
#[derive(Debug)]
pub struct Fdb {
    table: Table,
    limit: usize,
    /// Seconds without a frame after which an entry expires; 0: never.
    ageing: AtomicU32,
    /// The current second, counted from some moment before the start.
    now: AtomicU32,
    entries: AtomicUsize,
    statics: AtomicUsize,
    counts: Counts,
    kept: Apart,
    /// How many entries each port may learn, by its number; [`ANY`]: as many as there is room for.
    most: Box<[AtomicU32]>,
    /// All that only writers need.
    index: Mutex<Index>,
}

#[derive(Debug)]
struct Index {
    lists: Lists,
    statics: BTreeSet<Key>,
    /// For each bucket, how many entries it is the first bucket of that are in their second.
    overflows: Box<[u32]>,
}

impl Fdb {
    /// A database of at most `limit` entries for port numbers below `ports`, whose entries
    /// expire after `ageing` seconds (0: never).
    #[must_use]
    pub fn new(limit: usize, ports: usize, ageing: u32) -> Self {
        let table = Table::new(limit);
        let index = Index {
            lists: Lists::new(table.slots(), ports),
            statics: BTreeSet::new(),
            overflows: vec![0; table.buckets().len()].into_boxed_slice(),
        };
        Self {
            table,
            limit,
            ageing: AtomicU32::new(ageing),
            now: AtomicU32::new(1),
            entries: AtomicUsize::new(0),
            statics: AtomicUsize::new(0),
            counts: Counts::default(),
            kept: Apart::default(),
            most: (0..ports).map(|_| AtomicU32::new(ANY)).collect(),
            index: Mutex::new(index),
        }
    }

    /// The current second.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// Sets the current second, which must not go back. Somebody calls this about once a second,
    /// so that workers need not read a clock.
    pub fn set_now(&self, second: u32) {
        self.now.store(second, Relaxed);
    }

    /// Seconds without a frame after which an entry expires; 0: never.
    #[must_use]
    pub fn ageing(&self) -> u32 {
        self.ageing.load(Relaxed)
    }

    /// Changes that, for the entries that there are, too.
    pub fn set_ageing(&self, ageing: u32) {
        self.ageing.store(ageing, Relaxed);
    }

    /// Has `port` learn so many entries at most; `None`: as many as there is room for. Those that it
    /// has beyond that are removed.
    pub fn set_most(&self, port: u16, most: Option<u32>) {
        let Some(place) = self.most.get(usize::from(port)) else { return };
        // Those who learn look at it under the same lock.
        let mut writer = self.write();
        place.store(most.unwrap_or(ANY), Relaxed);
        writer.trim(port);
    }

    /// Whether there is a limit of what `port` may learn.
    #[must_use]
    #[inline]
    pub fn is_limited(&self, port: u16) -> bool {
        self.most_of(port) != ANY
    }

    #[inline]
    fn most_of(&self, port: u16) -> u32 {
        self.most.get(usize::from(port)).map_or(ANY, |most| most.load(Relaxed))
    }

    /// The hash of `key`, for [`prefetch`](Self::prefetch) and [`find`](Self::find).
    #[must_use]
    #[inline]
    pub fn hash(&self, key: Key) -> Hash {
        self.table.hash(key)
    }

    /// Starts to load the memory that a lookup will need.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        self.table.prefetch(hash);
    }

    /// Looks `key` up.
    #[must_use]
    #[inline]
    pub fn find(&self, key: Key, hash: Hash) -> Option<Value> {
        self.table.find(key, hash).map(|hit| hit.value)
    }

    /// Looks a source address up that came in on `port` and notes that it was seen. Returns
    /// whether there is something to [`learn`](Writer::learn).
    #[inline]
    pub fn see(&self, key: Key, hash: Hash, port: u16, now: u32) -> bool {
        let Some(hit) = self.table.find(key, hash) else { return true };
        if hit.value.port() != port {
            return !(hit.value.is_static() && self.keep());
        }
        if hit.value.seen() != now && !hit.value.is_static() {
            hit.slot.refresh(hit.value, now);
        }
        false
    }

    /// Counts a frame whose address stays where it is.
    #[cold]
    fn keep(&self) -> bool {
        self.kept.0.add(1);
        true
    }

    /// The right to change the database, if nobody else has it at the moment.
    #[must_use]
    #[inline]
    pub fn try_write(&self) -> Option<Writer<'_>> {
        match self.index.try_lock() {
            Ok(index) => Some(Writer { fdb: self, index }),
            Err(TryLockError::Poisoned(poison)) => {
                Some(Writer { fdb: self, index: poison.into_inner() })
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The right to change the database; for control threads, since it may have to wait.
    #[must_use]
    pub fn write(&self) -> Writer<'_> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        Writer { fdb: self, index }
    }

    /// Removes what has expired from `count` buckets from bucket `from` on, and returns where
    /// to go on; 0 after the last bucket.
    pub fn expire(&self, from: usize, count: usize) -> usize {
        if self.ageing() == 0 || self.is_empty() {
            return 0;
        }
        let buckets = self.table.buckets();
        let to = from.saturating_add(count).min(buckets.len());
        let slots = from.saturating_mul(WAYS)..to.saturating_mul(WAYS);
        for (index, slot) in slots.zip(buckets.iter().skip(from).flat_map(|bucket| &bucket.0)) {
            if slot.entry().is_some_and(|(_, value)| self.has_expired(value)) {
                self.write().expire(index);
            }
        }
        if to == buckets.len() { 0 } else { to }
    }

    /// Number of buckets, for [`expire`](Self::expire).
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.table.buckets().len()
    }

    fn has_expired(&self, value: Value) -> bool {
        let ageing = self.ageing();
        ageing != 0 && !value.is_static() && self.age(value) > ageing
    }

    fn age(&self, value: Value) -> u32 {
        if value.is_static() { 0 } else { self.now().saturating_sub(value.seen()) }
    }

    /// All entries, in no order. Takes no lock: what changes meanwhile may or may not be there.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let slots = self.table.buckets().iter().flat_map(|bucket| &bucket.0);
        slots
            .filter_map(table::Slot::entry)
            .filter(|(_, value)| !self.has_expired(*value))
            .map(|(key, value)| Entry {
                vlan: key.vlan(),
                mac: key.mac(),
                port: value.port(),
                age: self.age(value),
                is_static: value.is_static(),
            })
            .collect()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size and counters.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            entries: self.len(),
            statics: self.statics.load(Relaxed),
            limit: self.limit,
            ageing: self.ageing(),
            learned: self.counts.learned.get(),
            moved: self.counts.moved.get(),
            expired: self.counts.expired.get(),
            evicted: self.counts.evicted.get(),
            refused: self.counts.refused.get(),
            kept: self.kept.0.get(),
        }
    }
}

/// The right to change the database.
#[derive(Debug)]
pub struct Writer<'f> {
    fdb: &'f Fdb,
    index: MutexGuard<'f, Index>,
}

impl Writer<'_> {
    /// Learns that `key` is behind `port`.
    pub fn learn(&mut self, key: Key, hash: Hash, port: u16) -> Learned {
        let now = self.fdb.now();
        let Some(position) = self.fdb.table.position(key, hash) else {
            if self.is_full(port) {
                return self.refuse();
            }
            return self.insert(key, hash, Value::new(port, false, now));
        };
        let Some((_, value)) = self.entry(position) else { return Learned::Refused };
        if value.is_static() || value.port() == port {
            return Learned::Known;
        }
        if self.is_full(port) {
            return self.refuse();
        }
        self.unlist(position, value);
        self.set_value(position, Value::new(port, false, now));
        self.fdb.counts.moved.add(1);
        Learned::Moved
    }

    /// Whether `port` has learnt as many entries as it may.
    #[must_use]
    pub fn is_full(&self, port: u16) -> bool {
        self.learned_on(port) >= self.fdb.most_of(port) as usize
    }

    fn refuse(&self) -> Learned {
        self.fdb.counts.refused.add(1);
        Learned::Refused
    }

    /// Removes entries that `port` has beyond its limit.
    fn trim(&mut self, port: u16) {
        let most = self.fdb.most_of(port) as usize;
        while self.learned_on(port) > most {
            let first = self.index.lists.first(port);
            if !first.is_some_and(|slot| self.delete(slot as usize)) {
                break;
            }
        }
    }

    /// Makes `key` a static entry of `port`, whatever it was before; `false` if there is no room.
    pub fn add_static(&mut self, key: Key, port: u16) -> bool {
        let hash = self.fdb.hash(key);
        let value = Value::new(port, true, 0);
        if let Some(position) = self.fdb.table.position(key, hash)
            && let Some((_, before)) = self.entry(position)
        {
            self.unlist(position, before);
            self.set_value(position, value);
        } else if self.insert(key, hash, value) == Learned::Refused {
            return false;
        }
        self.index.statics.insert(key);
        self.count_statics();
        true
    }

    /// Removes the entry of `key`; returns whether there was one.
    pub fn remove(&mut self, key: Key) -> bool {
        let position = self.fdb.table.position(key, self.fdb.hash(key));
        position.is_some_and(|position| self.delete(position))
    }

    /// Removes all entries that were learnt, on `port` only if one is given; returns how many.
    pub fn flush(&mut self, port: Option<u16>) -> usize {
        let ports = port.map_or(0..=u16::MAX, |port| port..=port);
        let mut count = 0;
        for port in ports {
            if !self.index.lists.has(port) {
                break;
            }
            while let Some(slot) = self.index.lists.first(port) {
                if !self.delete(slot as usize) {
                    break;
                }
                count += 1;
            }
        }
        count
    }

    /// Removes all entries of `port`, static ones too.
    pub fn remove_port(&mut self, port: u16) {
        self.flush(Some(port));
        for key in self.index.statics.clone() {
            let value = self.fdb.find(key, self.fdb.hash(key));
            if value.is_some_and(|value| value.port() == port) {
                self.remove(key);
            }
        }
    }

    /// Number of entries learnt on `port`.
    #[must_use]
    pub fn learned_on(&self, port: u16) -> usize {
        self.index.lists.len(port)
    }

    fn expire(&mut self, position: usize) {
        if self.entry(position).is_some_and(|(_, value)| self.fdb.has_expired(value))
            && self.delete(position)
        {
            self.fdb.counts.expired.add(1);
        }
    }

    /// Adds an entry that is not there yet.
    fn insert(&mut self, key: Key, hash: Hash, value: Value) -> Learned {
        if self.fdb.len() >= self.fdb.limit && !self.evict() {
            return Learned::Refused;
        }
        let Some(position) = self.room(hash) else { return Learned::Refused };
        let Some(slot) = self.fdb.table.slot(position) else { return Learned::Refused };
        self.count_overflow(key, position, 1);
        slot.set(key, value);
        self.list(position, value);
        self.fdb.entries.store(self.fdb.len().saturating_add(1), Relaxed);
        if !value.is_static() {
            self.fdb.counts.learned.add(1);
        }
        Learned::New
    }

    /// Makes room for an entry.
    fn evict(&mut self) -> bool {
        let Some(victim) = self.index.lists.largest() else { return false };
        let table = &self.fdb.table;
        let seen = |slot: u32| {
            let entry = table.slot(slot as usize).and_then(table::Slot::entry);
            entry.map_or(0, |(_, value)| value.seen())
        };
        let Some(slot) = self.index.lists.oldest(victim, seen) else { return false };
        self.fdb.counts.evicted.add(1);
        self.delete(slot as usize)
    }

    /// A free slot for a key of `hash`: in its first bucket, in its second, one that is freed by
    /// moving another entry to that one's other bucket, or else by giving up the oldest entry of
    /// both buckets.
    fn room(&mut self, hash: Hash) -> Option<usize> {
        let table = &self.fdb.table;
        let buckets = [table.first(hash), table.second(hash)];
        if let Some(free) = buckets.iter().find_map(|bucket| table.free_in(*bucket)) {
            return Some(free);
        }
        let slots =
            || buckets.into_iter().flat_map(|bucket| (0..WAYS).map(move |i| bucket * WAYS + i));
        if let Some(moved) = slots().find(|position| self.displace(*position)) {
            return Some(moved);
        }
        let learnt = slots().filter_map(|position| Some((position, self.entry(position)?.1)));
        let (oldest, _) =
            learnt.filter(|(_, value)| !value.is_static()).min_by_key(|(_, value)| value.seen())?;
        self.fdb.counts.evicted.add(1);
        self.delete(oldest).then_some(oldest)
    }

    /// Moves the entry at `position` to its other bucket, if there is room.
    fn displace(&mut self, position: usize) -> bool {
        let table = &self.fdb.table;
        let Some((key, value)) = self.entry(position) else { return false };
        let hash = table.hash(key);
        let here = position / WAYS;
        let there = if table.first(hash) == here { table.second(hash) } else { table.first(hash) };
        let (Some(old), Some(new)) = (table.slot(position), table.free_in(there)) else {
            return false;
        };
        let Some(to) = table.slot(new) else { return false };
        // First the new place, then the old: a lookup finds one of them, or, in the worst
        // moment, neither, as if the address were not learnt yet.
        self.count_overflow(key, new, 1);
        to.set(key, value);
        old.clear();
        self.count_overflow(key, position, -1);
        if !value.is_static()
            && let (Ok(old), Ok(new)) = (u32::try_from(position), u32::try_from(new))
        {
            self.index.lists.replace(value.port(), old, new);
        }
        true
    }

    /// Removes the entry at `position`; returns whether there was one.
    fn delete(&mut self, position: usize) -> bool {
        let Some((key, value)) = self.entry(position) else { return false };
        self.unlist(position, value);
        if let Some(slot) = self.fdb.table.slot(position) {
            slot.clear();
        }
        self.count_overflow(key, position, -1);
        self.fdb.entries.store(self.fdb.len().saturating_sub(1), Relaxed);
        if value.is_static() {
            self.index.statics.remove(&key);
            self.count_statics();
        }
        true
    }

    /// Notes that `key` is, or was, at `position`, if that is in its second bucket. A lookup
    /// goes to the second bucket only if this says so, hence first of all when one is added.
    fn count_overflow(&mut self, key: Key, position: usize, change: i32) {
        let first = self.fdb.table.first(self.fdb.table.hash(key));
        if position / WAYS == first {
            return;
        }
        let Some(count) = self.index.overflows.get_mut(first) else { return };
        *count = count.saturating_add_signed(change);
        if let Some(bucket) = self.fdb.table.bucket(first) {
            bucket.mark_overflowed(*count > 0);
        }
    }

    fn set_value(&mut self, position: usize, value: Value) {
        if let Some(slot) = self.fdb.table.slot(position) {
            slot.update(value);
        }
        self.list(position, value);
    }

    fn list(&mut self, position: usize, value: Value) {
        if !value.is_static()
            && let Ok(slot) = u32::try_from(position)
        {
            self.index.lists.push(value.port(), slot);
        }
    }

    fn unlist(&mut self, position: usize, value: Value) {
        if !value.is_static()
            && let Ok(slot) = u32::try_from(position)
        {
            self.index.lists.remove(value.port(), slot);
        }
    }

    fn entry(&self, position: usize) -> Option<(Key, Value)> {
        self.fdb.table.slot(position)?.entry()
    }

    fn count_statics(&self) {
        self.fdb.statics.store(self.index.statics.len(), Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
