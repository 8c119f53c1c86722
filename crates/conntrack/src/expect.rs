//! Connections that are expected, since others have announced them.
//!
//! Each is expected by its ends but for the port that it comes from, once, for a time, and as long as the
//! connection is there that has announced it. How many there are is bounded for each of those, and for all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::conn::Conn;
use crate::hints::Hints;
use crate::nat::{Nat, NatEnd};
use crate::tuple::Tuple;

/// Connections that are expected, at most.
const MOST: usize = 4096;

/// Those that one connection has announced, at most: beyond that, its oldest goes.
pub(crate) const MOST_OF_ONE: usize = 8;

/// For how long one is expected, in milliseconds: as in Linux.
const TIME: u64 = 300_000;

/// One that is expected.
#[derive(Clone, Debug)]
struct Expectation {
    master: Weak<Conn>,
    nat: Nat,
    /// Until when.
    end: u64,
}

/// What is known of a packet that was expected.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) master: Arc<Conn>,
    /// How its connection is translated, if that is asked for.
    pub(crate) nat: Nat,
    end: u64,
}

/// All that are expected.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    /// How many there are, so that nobody asks further where there are none.
    count: AtomicUsize,
    /// Which there may be, so that whoever begins a connection that nobody has announced does not take the lock.
    hints: Hints,
    all: Mutex<HashMap<Tuple, Expectation>>,
}

/// All of them, for who holds the lock: hints and the count follow.
struct Locked<'e> {
    all: MutexGuard<'e, HashMap<Tuple, Expectation>>,
    of: &'e Expectations,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.of.count.store(self.all.len(), Relaxed);
    }
}

impl Locked<'_> {
    fn insert(&mut self, key: Tuple, own: Expectation) {
        if self.all.insert(key, own).is_none() {
            self.of.hints.add(&key);
        }
    }

    /// Where there is none yet.
    fn insert_new(&mut self, key: Tuple, own: Expectation) {
        if let Entry::Vacant(room) = self.all.entry(key) {
            room.insert(own);
            self.of.hints.add(&key);
        }
    }

    fn remove(&mut self, key: &Tuple) -> Option<Expectation> {
        let own = self.all.remove(key)?;
        self.of.hints.remove(key);
        Some(own)
    }

    fn retain(&mut self, stays: impl Fn(&Tuple, &Expectation) -> bool) {
        let hints = &self.of.hints;
        self.all.retain(|key, own| {
            let stays = stays(key, own);
            if !stays {
                hints.remove(key);
            }
            stays
        });
    }
}

/// By which ends a connection comes that a packet of `master` has announced, and how it is translated.
/// `None` for the port: that which it came from.
pub(crate) fn announced(master: &Conn, is_reply: bool, port: Option<u16>) -> Option<(Tuple, Nat)> {
    let (original, reply) = (master.original, master.reply());
    let end = master.translated().map(|nat| nat.end);
    let (packet, own) = if is_reply { (original, reply) } else { (reply, original) };
    // A connection comes the other way, to where the packet has come from.
    let key = packet.expected(port.unwrap_or(packet.ports().1))?;
    let to_sender = if is_reply { NatEnd::Destination } else { NatEnd::Source };
    let nat = match end {
        None => Nat { end: Some(NatEnd::Destination), ..Nat::default() },
        // Its sender is known to the other one by another address.
        Some(end) if end == to_sender => Nat {
            end: Some(NatEnd::Destination),
            addresses: Some((own.source(), own.source())),
            ports: port.is_none().then_some((own.ports().0, own.ports().0)),
            ..Nat::default()
        },
        Some(_) => Nat {
            end: Some(NatEnd::Source),
            addresses: Some((own.destination(), own.destination())),
            ..Nat::default()
        },
    };
    Some((key, nat))
}

impl Expectations {
    fn lock(&self) -> Locked<'_> {
        Locked { all: self.all.lock().unwrap_or_else(PoisonError::into_inner), of: self }
    }

    /// By what a packet with these ends is looked for; `None`: it is not expected.
    fn key(&self, tuple: &Tuple) -> Option<Tuple> {
        if self.is_empty() {
            return None;
        }
        let key = tuple.expected(tuple.ports().1)?;
        self.hints.may_have(&key).then_some(key)
    }

    /// Whether none is.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Expects a connection by its ends; returns whether that can be: not if another connection has
    /// announced one with the same ends.
    pub(crate) fn add(&self, master: &Arc<Conn>, (key, nat): (Tuple, Nat), now: u64) -> bool {
        let mut locked = self.lock();
        let is_others = |own: &Expectation| !own.is_of(master) && own.master(now).is_some();
        if locked.all.get(&key).is_some_and(is_others) {
            return false;
        }
        if locked.all.len() >= MOST && !locked.all.contains_key(&key) {
            make_room(&mut locked, now);
        }
        let end = now.saturating_add(TIME);
        locked.insert(key, Expectation { master: Arc::downgrade(master), nat, end });
        true
    }

    /// Expects one no more that `master` has announced: another one may have announced it since it came.
    pub(crate) fn remove(&self, key: &Tuple, master: &Arc<Conn>) {
        let mut locked = self.lock();
        if locked.all.get(key).is_some_and(|own| own.is_of(master)) {
            locked.remove(key);
        }
    }

    /// As [`find`](Self::find), for who has it begin: nobody else finds it from then on.
    pub(crate) fn claim(&self, tuple: &Tuple, now: u64) -> Option<Expected> {
        let key = self.key(tuple)?;
        let found = self.lock().remove(&key)?;
        found.expected(now)
    }

    /// Expects one still that was claimed, and has not begun.
    pub(crate) fn put_back(&self, tuple: &Tuple, claimed: &Expected) {
        let Some(key) = tuple.expected(tuple.ports().1) else { return };
        let Expected { master, nat, end } = claimed;
        let mut locked = self.lock();
        if locked.all.len() < MOST {
            let own = Expectation { master: Arc::downgrade(master), nat: *nat, end: *end };
            locked.insert_new(key, own);
        }
    }

    /// What is known of a packet with these ends that is of no connection, if it is expected at `now`.
    pub(crate) fn find(&self, tuple: &Tuple, now: u64) -> Option<Expected> {
        let key = self.key(tuple)?;
        self.lock().all.get(&key)?.expected(now)
    }

    /// Forgets those of which it is known that they will not come any more.
    pub(crate) fn sweep(&self, now: u64) {
        if self.is_empty() {
            return;
        }
        let mut locked = self.lock();
        locked.retain(|_, own| own.master(now).is_some());
        if locked.all.is_empty() {
            *locked.all = HashMap::new();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().all.len()
    }

    /// Whether a packet with these ends has the lock be taken.
    #[cfg(test)]
    pub(crate) fn may_expect(&self, tuple: &Tuple) -> bool {
        self.key(tuple).is_some()
    }
}

impl Expectation {
    /// Whether this connection has announced it.
    fn is_of(&self, master: &Arc<Conn>) -> bool {
        std::ptr::eq(self.master.as_ptr(), Arc::as_ptr(master))
    }

    /// What is known of its packets at `now`, if it is still expected.
    fn expected(&self, now: u64) -> Option<Expected> {
        Some(Expected { master: self.master(now)?, nat: self.nat, end: self.end })
    }

    /// Who has announced it, if it is still expected.
    fn master(&self, now: u64) -> Option<Arc<Conn>> {
        let master = self.master.upgrade()?;
        (now < self.end && !master.is_over(now)).then_some(master)
    }
}

/// Makes room: those go that will not come any more, or else the older half of the zone that has most. So
/// whoever announces without end has little work done for each.
fn make_room(locked: &mut Locked<'_>, now: u64) {
    locked.retain(|_, own| own.master(now).is_some());
    if locked.all.len() < MOST {
        return;
    }
    let mut zones = HashMap::<u16, Vec<u64>>::new();
    locked.all.iter().for_each(|(key, own)| zones.entry(key.zone()).or_default().push(own.end));
    let Some((zone, mut ends)) = zones.into_iter().max_by_key(|(_, ends)| ends.len()) else {
        return;
    };
    ends.sort_unstable();
    let middle = ends.get(ends.len() / 2).copied().unwrap_or(u64::MAX);
    locked.retain(|key, own| key.zone() != zone || own.end > middle);
}
