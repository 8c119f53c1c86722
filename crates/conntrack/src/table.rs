//! All connections.

use std::cmp::Ordering;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::beside::{Beside, Translated};
use crate::conn::{Conn, Entry};
use crate::dissect::Seen;
use crate::expect::{Expectations, Expected, announced};
use crate::fragments::Fragments;
use crate::helper::Helper;
use crate::lane::new;
use crate::nat::{Chances, Tries};
use crate::shard::Shard;
use crate::state::{Request, State, Tracked, Translation};
use crate::timeout::{Policies, Policy, Timeouts};
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
    chances: Chances,
    policies: Policies,
    zones: Zones,
    fragments: Fragments,
    expectations: Expectations,
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
        Self::new(&Timeouts::default())
    }
}

impl Conntrack {
    /// Without connections.
    #[must_use]
    pub fn new(timeouts: &Timeouts) -> Self {
        Self::with_lag(timeouts, Duration::ZERO)
    }

    /// The same, where the time that is told may be behind by so much: connections are kept no shorter for that.
    #[must_use]
    pub fn with_lag(timeouts: &Timeouts, lag: Duration) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            seed: RandomState::new().hash_one(2),
            chances: Chances::default(),
            policies: Policies::new(timeouts, lag),
            zones: Zones::default(),
            fragments: Fragments::default(),
            expectations: Expectations::default(),
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

    /// What a packet would be at `now`, and how it would be translated, without anything being changed by
    /// it: for those who want to know what would become of it.
    #[must_use]
    pub fn tell(
        &self,
        seen: Option<&Seen>,
        request: &Request,
        now: u64,
    ) -> (Tracked, Option<Translation>) {
        let zone = request.zone;
        let Some(seen) = seen else { return (Tracked::invalid(zone), None) };
        let tuple = &seen.tuple;
        let Some(conn) = self.find(tuple.hash(self.seed), tuple, request.is_translated, now) else {
            return self.tell_new(seen, request, now);
        };
        let is_reply = conn.way(tuple, request.is_translated).unwrap_or(false);
        let reply = if is_reply { State::REPLY } else { State::default() };
        let state = match (request.before, seen.is_related, conn.is_answered()) {
            (Some(before), ..) => before,
            (None, true, _) => State::RELATED | reply,
            (None, false, false) if !is_reply => State::NEW,
            (None, false, _) => State::ESTABLISHED | reply,
        };
        let (mark, label) = conn.labels();
        let told = conn.told(state | State::TRACKED, request, is_reply);
        let (state, original) = (told.state, Some(*told.original));
        let tracked = Tracked { state, zone, mark, label, original, helper: None };
        (tracked, conn.translation(seen, request, is_reply))
    }

    /// The same of a packet that is of no connection.
    fn tell_new(&self, seen: &Seen, request: &Request, now: u64) -> (Tracked, Option<Translation>) {
        let invalid = Tracked { original: Some(seen.tuple), ..Tracked::invalid(request.zone) };
        if !seen.can_begin() {
            return (invalid, None);
        }
        let expected = self.expected(seen, now);
        let new = new(seen, request.zone, expected.as_ref());
        let Some((nat, tries)) = self.tries(&seen.tuple, request, expected.as_ref()) else {
            return (new, None);
        };
        let is_free = |reply: &Tuple| {
            self.shard(reply.hash(self.seed)).is_some_and(|shard| !shard.is_taken(reply, now))
        };
        let after = tries.filter(|_| request.commit).find(is_free).map(|reply| reply.reversed());
        let of_nat = after.map_or(State::default(), |_| nat.state(false));
        let before = seen.tuple;
        let after = after.filter(|after| *after != before);
        let translation = after.map(|after| Translation { before, after, is_error: false });
        (Tracked { state: new.state | of_nat, ..new }, translation)
    }

    /// Fragments that wait until all of their packet are there.
    #[must_use]
    pub const fn fragments(&self) -> &Fragments {
        &self.fragments
    }

    #[cfg(test)]
    pub(crate) const fn expectations(&self) -> &Expectations {
        &self.expectations
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

    /// Sets how long connections of a zone are kept, those too that had timeouts of the zone before;
    /// `None`: as those of zones without timeouts of their own.
    pub fn set_zone_timeouts(&self, zone: u16, timeouts: Option<&Timeouts>) {
        self.policies.set(zone, timeouts);
    }

    /// How many places there are for connections, which a [sweep](Self::sweep) looks at: about as many as
    /// there have been connections at once.
    #[must_use]
    pub fn places(&self) -> usize {
        (0..SHARDS).filter_map(|at| self.shard_at(at)).map(|shard| shard.places()).sum()
    }

    /// How many connections each part of the table has that is locked by itself. Those that are over count until
    /// they are swept.
    #[must_use]
    pub fn shares(&self) -> Vec<usize> {
        (0..SHARDS).filter_map(|at| self.shard_at(at)).map(|shard| shard.len()).collect()
    }

    /// Ends connections whose time is over by `now`, and gives up fragments that have waited too long. It looks at so many places, a few at a time, and
    /// goes on from there when it is called again; returns how many have ended.
    pub fn sweep(&self, now: u64, most: usize) -> usize {
        self.fragments.sweep(now);
        self.expectations.sweep(now);
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
        let Some(conn) = self.find(tuple.hash(self.seed), tuple, false, now) else { return false };
        self.end(&conn);
        true
    }

    /// Ends those that are meant, of all that there are at `now`; returns how many.
    pub fn flush_if(&self, now: u64, is_meant: impl Fn(&Entry) -> bool) -> usize {
        self.end_if(|conn| is_meant(&conn.entry(now)))
    }

    fn end_if(&self, is_meant: impl Fn(&Conn) -> bool) -> usize {
        let mut ended = 0;
        for at in 0..SHARDS {
            let mut start = Some(0);
            while let Some(from) = start {
                let Some(shard) = self.shard_at(at) else { break };
                let (mut conns, rest) = shard.chunk(from, CHUNK);
                drop(shard);
                // Workers wait for nobody who makes up his mind.
                conns.retain(|conn| is_meant(conn));
                let gone = self.take_out(at, &conns);
                ended += gone.len();
                gone.iter().for_each(|conn| self.forget(conn));
                start = rest;
            }
        }
        ended
    }

    /// Takes those out of a shard that are still in their places.
    fn take_out(&self, at: usize, conns: &[Arc<Conn>]) -> Vec<Arc<Conn>> {
        if conns.is_empty() {
            return Vec::new();
        }
        let Some(mut shard) = self.shard_at(at) else { return Vec::new() };
        let remove = |conn: &Arc<Conn>| {
            if shard.has(conn) { shard.remove(&conn.original) } else { None }
        };
        conns.iter().filter_map(remove).collect()
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
                there.for_each(|conn| take(conn.entry(now.saturating_add(self.policies.lag()))));
                start = rest;
            }
        }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        self.shard_at(place_of(hash))
    }

    fn shard_at(&self, at: usize) -> Option<MutexGuard<'_, Shard>> {
        let shard = self.shards.get(at)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The shards of two hashes, one after the other; `None` where both have the same one.
    fn both<T>(
        &self,
        (one, other): (u64, u64),
        run: impl FnOnce(&mut Shard, Option<&mut Shard>) -> T,
    ) -> Option<T> {
        match place_of(one).cmp(&place_of(other)) {
            Ordering::Equal => Some(run(&mut *self.shard(one)?, None)),
            // Locks are taken in order, so that nobody waits for one who waits for him.
            Ordering::Less => {
                let (mut own, mut others) = (self.shard(one)?, self.shard(other)?);
                Some(run(&mut own, Some(&mut others)))
            }
            Ordering::Greater => {
                let (mut others, mut own) = (self.shard(other)?, self.shard(one)?);
                Some(run(&mut own, Some(&mut others)))
            }
        }
    }

    /// One that has been taken out; no lock is held.
    fn forget(&self, conn: &Conn) {
        self.discount(conn);
        self.unlink(conn);
    }

    fn discount(&self, conn: &Conn) {
        self.count.fetch_sub(1, Relaxed);
        self.zones.give(conn.original.zone());
    }

    /// What comes back is not found by its translated ends any more.
    fn unlink(&self, conn: &Conn) {
        if let Some(key) = conn.other_key()
            && let Some(mut shard) = self.shard(key.hash(self.seed))
        {
            shard.remove_translated(&key, conn);
        }
    }

    /// The connection of a packet.
    pub(crate) fn find(
        &self,
        hash: u64,
        tuple: &Tuple,
        is_translated: bool,
        now: u64,
    ) -> Option<Arc<Conn>> {
        self.shard(hash)?.find(tuple, is_translated, now).cloned()
    }

    /// Ends a connection, unless its place was taken by another one.
    pub(crate) fn end(&self, conn: &Arc<Conn>) {
        let Some(mut shard) = self.shard(conn.original.hash(self.seed)) else { return };
        let gone = if shard.has(conn) { shard.remove(&conn.original) } else { None };
        drop(shard);
        gone.iter().for_each(|conn| self.forget(conn));
    }

    /// What is known of a packet of no connection, if it was expected.
    pub(crate) fn expected(&self, seen: &Seen, now: u64) -> Option<Expected> {
        self.expectations.find(&seen.tuple, now)
    }

    /// The same for who has its connection [begin](Self::begin): it is expected once, so that no other worker
    /// finds it from then on.
    pub(crate) fn claim(&self, seen: &Seen, now: u64) -> Option<Expected> {
        self.expectations.claim(&seen.tuple, now)
    }

    /// Has a connection be expected that a packet of this one has announced, as one that goes to a port;
    /// returns whether that can be.
    pub(crate) fn expect(
        &self,
        master: &Arc<Conn>,
        (is_reply, port): (bool, Option<u16>),
        now: u64,
    ) -> bool {
        let Some(next) = announced(master, is_reply, port) else { return false };
        if !self.expectations.add(master, next, now) {
            return false;
        }
        let oldest = master.control().and_then(|mut control| control.expect(next.0));
        oldest.iter().for_each(|oldest| self.expectations.remove(oldest, master));
        true
    }

    /// What is tried for the ends of a connection that begins, if it is to be translated. One that was
    /// expected is translated as the one that has announced it.
    fn tries(
        &self,
        original: &Tuple,
        request: &Request,
        expected: Option<&Expected>,
    ) -> Option<(Translated, Tries)> {
        let nat = &request.nat.map(|nat| expected.map_or(nat, |expected| expected.nat))?;
        let tries = nat.tries(original, self.chances.of(original, nat))?;
        Some((Translated { reply: *original, end: nat.end? }, tries))
    }

    /// Keeps a connection that begins with this packet, and what was claimed of it, if it was expected. Where
    /// there is one by now, that; `None` where there is no room, or no other ends for it are free.
    pub(crate) fn begin(
        &self,
        (hash, expected): (u64, Option<Expected>),
        seen: &Seen,
        request: &Request,
        now: u64,
    ) -> Option<Begun> {
        let mut gone = Vec::new();
        let tries = self.tries(&seen.tuple, request, expected.as_ref());
        let master = expected.as_ref().map(|own| Arc::clone(&own.master));
        let first = First { seen, helper: request.helper, master };
        let begun = match tries {
            None => self
                .shard(hash)
                .map(|mut shard| self.begin_in(&mut shard, (&first, None), now, &mut gone)),
            Some((nat, mut tries)) => {
                let begun = tries.find_map(|reply| {
                    let nat = Translated { reply, ..nat };
                    self.begin_translated(hash, (&first, nat), now, &mut gone)
                });
                // The one by which they are taken may be this one, that another worker has begun meanwhile.
                begun.or_else(|| Some(self.find(hash, &seen.tuple, false, now).map(Begun::Was)))
            }
        };
        gone.iter().for_each(|conn| self.unlink(conn));
        if let Some(claimed) = &expected
            && !matches!(begun, Some(Some(Begun::Now(_))))
        {
            self.expectations.put_back(&seen.tuple, claimed);
        }
        begun?
    }

    /// The same with these ends of what comes back; `None` if these are not free.
    fn begin_translated(
        &self,
        hash: u64,
        (first, nat): (&First<'_>, Translated),
        now: u64,
        gone: &mut Vec<Arc<Conn>>,
    ) -> Option<Option<Begun>> {
        let reply = nat.reply;
        let other = reply.hash(self.seed);
        if self.shard(other)?.is_taken(&reply, now) {
            return None;
        }
        self.both((hash, other), |shard, others| {
            let is_taken = match &others {
                Some(others) => others.is_taken(&reply, now),
                None => shard.is_taken(&reply, now),
            };
            if is_taken {
                return None;
            }
            let begun = self.begin_in(shard, (first, Some(nat)), now, gone);
            if let Some(Begun::Now(conn)) = &begun
                && let Some(key) = conn.other_key()
            {
                others.unwrap_or(shard).insert_translated(key, Arc::clone(conn));
            }
            Some(begun)
        })?
    }

    /// The same in its shard; what has to make room for it is to be forgotten.
    fn begin_in(
        &self,
        shard: &mut Shard,
        (first, nat): (&First<'_>, Option<Translated>),
        now: u64,
        gone: &mut Vec<Arc<Conn>>,
    ) -> Option<Begun> {
        let First { seen, .. } = *first;
        if let Some(conn) = shard.find(&seen.tuple, false, now) {
            return Some(Begun::Was(Arc::clone(conn)));
        }
        // Another one has these ends once they are translated.
        if shard.is_in_the_way(&seen.tuple, nat.is_some(), now) {
            return None;
        }
        let mut give_up = |conn: Option<Arc<Conn>>| {
            conn.iter().for_each(|conn| self.discount(conn));
            gone.extend(conn);
        };
        // One with these ends that is over makes room for this one.
        give_up(shard.remove(&seen.tuple));
        let zone = seen.tuple.zone();
        // Who has no room in his own zone takes nobody else's.
        if !self.zones.take(zone) {
            return None;
        }
        if self.count() >= self.limit() {
            // Connections that nobody has answered, as a flood makes them, go first.
            let Some(unanswered) = shard.give_up(now) else {
                self.zones.give(zone);
                return None;
            };
            give_up(Some(unanswered));
        }
        self.count.fetch_add(1, Relaxed);
        let conn = first.conn(nat, self.policies.of(zone), now);
        shard.insert(Arc::clone(&conn));
        Some(Begun::Now(conn))
    }
}

/// A packet that begins a connection, and what few of these have.
struct First<'f> {
    seen: &'f Seen,
    helper: Option<Helper>,
    /// The one that has announced it.
    master: Option<Arc<Conn>>,
}

impl First<'_> {
    fn conn(&self, nat: Option<Translated>, policy: Arc<Policy>, now: u64) -> Arc<Conn> {
        let Self { seen, helper, master } = self;
        let original = master.as_ref().map(|master| master.original);
        let beside = Beside::new(&seen.tuple, nat, *helper, original);
        let conn = Conn::new(seen, beside, policy, now);
        master.iter().for_each(|master| conn.inherit(master));
        Arc::new(conn)
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

/// The shard of a hash.
fn place_of(hash: u64) -> usize {
    usize::try_from(hash >> 58).unwrap_or_default() % SHARDS
}
