//! All connections.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::conn::{Conn, Entry};
use crate::dissect::Seen;
use crate::shard::Shard;
use crate::state::{State, Tracked};
use crate::timeout::Timeouts;
use crate::tuple::Tuple;
use crate::zones::{ZoneLimit, Zones};

/// Parts that are locked by themselves.
const SHARDS: usize = 64;

/// Places that are looked at with a lock held.
const CHUNK: usize = 256;

/// The most connections, as in Open vSwitch's user space.
pub const DEFAULT_LIMIT: usize = 3_000_000;

/// All connections: one value for all workers, of which each has a [`Lane`](crate::Lane) of it.
///
/// It has no clock: whoever calls says what time it is, in milliseconds from where he likes.
#[derive(Debug)]
pub struct Conntrack {
    shards: Box<[Mutex<Shard>]>,
    seed: u64,
    timeouts: Timeouts,
    zones: Zones,
    count: AtomicUsize,
    limit: AtomicUsize,
    /// Whether sequence numbers of TCP are checked.
    checks: AtomicBool,
    /// The shard that is swept next.
    hand: AtomicUsize,
    /// The time, as last told.
    now: AtomicU64,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self::new(Timeouts::default())
    }
}

impl Conntrack {
    /// Without connections.
    #[must_use]
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            seed: RandomState::new().hash_one(2),
            timeouts,
            zones: Zones::default(),
            count: AtomicUsize::new(0),
            limit: AtomicUsize::new(DEFAULT_LIMIT),
            checks: AtomicBool::new(true),
            hand: AtomicUsize::new(0),
            now: AtomicU64::new(0),
        }
    }

    /// The time, as last told: what workers go by.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// Tells the time.
    pub fn set_now(&self, now: u64) {
        self.now.store(now, Relaxed);
    }

    /// What a packet would be at `now` in `zone`, without anything being changed by it: for those who want
    /// to know what would become of it.
    #[must_use]
    pub fn tell(&self, seen: Option<&Seen>, zone: u16, now: u64) -> Tracked {
        let Some(seen) = seen else { return Tracked::invalid(zone) };
        let tuple = &seen.tuple;
        let Some(conn) = self.find(tuple.hash(self.seed), tuple, now) else {
            let state = if seen.can_begin() { State::NEW } else { State::INVALID };
            let state = state | State::TRACKED;
            return Tracked { state, original: Some(*tuple), ..Tracked::invalid(zone) };
        };
        let reply = if conn.original == *tuple { State::default() } else { State::REPLY };
        let state = match (seen.is_related, conn.is_answered()) {
            (true, _) => State::RELATED | reply,
            (false, false) if reply != State::REPLY => State::NEW,
            (false, _) => State::ESTABLISHED | reply,
        };
        let (mark, label) = conn.labels();
        let (state, original) = (state | State::TRACKED, Some(conn.original));
        Tracked { state, zone, mark, label, original }
    }

    /// How many connections there are. Those that are over count until they are swept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// How many there may be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Sets how many there may be; those that there are stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Whether sequence numbers of TCP are checked.
    #[must_use]
    pub fn checks_sequences(&self) -> bool {
        self.checks.load(Relaxed)
    }

    /// Sets whether they are.
    pub fn check_sequences(&self, checks: bool) {
        self.checks.store(checks, Relaxed);
    }

    /// How many connections a zone without a limit of its own may have; 0: as many as there are.
    #[must_use]
    pub fn default_zone_limit(&self) -> u32 {
        self.zones.default_limit()
    }

    /// Sets that.
    pub fn set_default_zone_limit(&self, limit: u32) {
        self.zones.set_default(limit);
    }

    /// How many connections a zone may have, and has.
    #[must_use]
    pub fn zone_limit(&self, zone: u16) -> ZoneLimit {
        self.zones.get(zone)
    }

    /// Sets how many it may have; `None`: as those without a limit of their own.
    pub fn set_zone_limit(&self, zone: u16, limit: Option<u32>) {
        self.zones.set(zone, limit);
    }

    /// The zones that have limits of their own.
    #[must_use]
    pub fn zone_limits(&self) -> Vec<ZoneLimit> {
        self.zones.limited()
    }

    /// How many places there are for connections, which a [sweep](Self::sweep) looks at: about as many as
    /// there have been connections at once.
    #[must_use]
    pub fn places(&self) -> usize {
        (0..SHARDS).filter_map(|at| self.shard_at(at)).map(|shard| shard.places()).sum()
    }

    /// Ends connections whose time is over by `now`. It looks at so many places, a few at a time, and
    /// goes on from there when it is called again; returns how many have ended.
    pub fn sweep(&self, now: u64, most: usize) -> usize {
        let (mut ended, mut looked_at, mut shards) = (0, 0, 0);
        while looked_at < most && shards < SHARDS {
            let at = self.hand.load(Relaxed) % SHARDS;
            let (gone, is_through) =
                self.shard_at(at).map_or((Vec::new(), true), |mut shard| shard.sweep(now, CHUNK));
            if is_through {
                self.hand.store(at + 1, Relaxed);
                shards += 1;
            }
            ended += gone.len();
            looked_at += CHUNK;
            gone.iter().for_each(|conn| self.forget(conn));
        }
        ended
    }

    /// Ends all connections, or those of a zone; returns how many.
    pub fn flush(&self, zone: Option<u16>) -> usize {
        self.end_if(|conn| zone.is_none_or(|zone| conn.original.zone() == zone))
    }

    /// Ends the connection of packets with these ends, in either direction; returns whether there was
    /// one by `now`.
    pub fn flush_tuple(&self, tuple: &Tuple, now: u64) -> bool {
        let Some(mut shard) = self.shard(tuple.hash(self.seed)) else { return false };
        let was_there = shard.find(tuple, now).is_some();
        let gone = shard.remove(tuple);
        drop(shard);
        gone.iter().for_each(|conn| self.forget(conn));
        was_there
    }

    /// Ends those that are meant, of all that there are at `now`; returns how many.
    pub fn flush_if(&self, now: u64, is_meant: impl Fn(&Entry) -> bool) -> usize {
        self.end_if(|conn| is_meant(&conn.entry(now)))
    }

    fn end_if(&self, is_meant: impl Fn(&Conn) -> bool) -> usize {
        let mut ended = 0;
        self.walk(|shard, conns| {
            for conn in conns.iter().filter(|conn| is_meant(conn)) {
                let gone = shard.remove(&conn.original);
                gone.iter().for_each(|conn| self.forget(conn));
                ended += usize::from(gone.is_some());
            }
        });
        ended
    }

    /// All connections at `now`. Those that begin or end meanwhile may be missed.
    pub fn for_each(&self, now: u64, mut take: impl FnMut(Entry)) {
        for at in 0..SHARDS {
            let mut start = Some(0);
            while let Some(from) = start {
                let Some(shard) = self.shard_at(at) else { break };
                let (conns, rest) = shard.chunk(from, CHUNK);
                drop(shard);
                let there = conns.iter().filter(|conn| !conn.is_over(now));
                there.for_each(|conn| take(conn.entry(now)));
                start = rest;
            }
        }
    }

    /// Has all connections looked at, a few at a time.
    fn walk(&self, mut look: impl FnMut(&mut Shard, &[Arc<Conn>])) {
        for at in 0..SHARDS {
            let mut start = Some(0);
            while let Some(from) = start {
                let Some(mut shard) = self.shard_at(at) else { break };
                let (conns, rest) = shard.chunk(from, CHUNK);
                look(&mut shard, &conns);
                start = rest;
            }
        }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        self.shard_at(usize::try_from(hash >> 58).unwrap_or_default() % SHARDS)
    }

    fn shard_at(&self, at: usize) -> Option<MutexGuard<'_, Shard>> {
        let shard = self.shards.get(at)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One that has been taken out.
    fn forget(&self, conn: &Conn) {
        self.count.fetch_sub(1, Relaxed);
        self.zones.give(conn.original.zone());
    }

    /// The connection of a packet.
    pub(crate) fn find(&self, hash: u64, tuple: &Tuple, now: u64) -> Option<Arc<Conn>> {
        self.shard(hash)?.find(tuple, now).cloned()
    }

    /// Ends a connection, unless its place was taken by another one.
    pub(crate) fn end(&self, hash: u64, conn: &Arc<Conn>) {
        let Some(mut shard) = self.shard(hash) else { return };
        let is_there = shard.find(&conn.original, 0).is_some_and(|own| Arc::ptr_eq(own, conn));
        let gone = if is_there { shard.remove(&conn.original) } else { None };
        drop(shard);
        gone.iter().for_each(|conn| self.forget(conn));
    }

    /// Keeps a connection that begins with this packet. Where there is one by now, that; `None` where
    /// there is no room.
    pub(crate) fn begin(&self, hash: u64, seen: &Seen, now: u64) -> Option<Begun> {
        let mut shard = self.shard(hash)?;
        if let Some(conn) = shard.find(&seen.tuple, now) {
            return Some(Begun::Was(Arc::clone(conn)));
        }
        // One with these ends that is over makes room for this one.
        shard.remove(&seen.tuple).iter().for_each(|conn| self.forget(conn));
        let zone = seen.tuple.zone();
        // Who has no room in his own zone takes nobody else's.
        if !self.zones.take(zone) {
            return None;
        }
        if self.count() >= self.limit() {
            // Connections that nobody has answered, as a flood makes them, go first.
            let Some(gone) = shard.give_up(now) else {
                self.zones.give(zone);
                return None;
            };
            self.forget(&gone);
        }
        self.count.fetch_add(1, Relaxed);
        let conn = Arc::new(Conn::new(seen, &self.timeouts, now));
        shard.insert(Arc::clone(&conn));
        Some(Begun::Now(conn))
    }
}

/// A connection that a packet was to begin.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It has.
    Now(Arc<Conn>),
    /// Another one has been quicker.
    Was(Arc<Conn>),
}
