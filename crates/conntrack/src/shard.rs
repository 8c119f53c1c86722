//! A part of all connections, of which each has its place by its hash.

use std::collections::HashMap;
use std::sync::Arc;

use crate::conn::Conn;
use crate::tuple::Tuple;

/// Places that are looked at for one to be given up, where there is room for no further connection.
const LOOKED_AT: usize = 32;

/// Connections by their ends, which are found in order, too.
///
/// One whose ends are translated is found by those of the packets that come back as well, and that may be
/// in another shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// By the translated ends of packets that come back, which are the same for both directions.
    translated: HashMap<Tuple, Arc<Conn>>,
    /// Places by tuples, which are the same for both directions.
    index: HashMap<Tuple, u32>,
    places: Vec<Option<Arc<Conn>>>,
    free: Vec<u32>,
    /// Where the next look for those that are over begins.
    hand: usize,
}

impl Shard {
    /// The connection of a packet, if it has not ended by `now`.
    pub(crate) fn find(&self, tuple: &Tuple, is_translated: bool, now: u64) -> Option<&Arc<Conn>> {
        let key = tuple.canonical();
        let is_of =
            |conn: &&Arc<Conn>| !conn.is_over(now) && conn.way(tuple, is_translated).is_some();
        self.by_key(&key).filter(is_of).or_else(|| self.translated.get(&key).filter(is_of))
    }

    fn by_key(&self, key: &Tuple) -> Option<&Arc<Conn>> {
        self.at(*self.index.get(key)?)
    }

    /// Whether there is a connection at `now` that packets with these ends, or their answers, could be
    /// taken for.
    pub(crate) fn is_taken(&self, tuple: &Tuple, now: u64) -> bool {
        let key = tuple.canonical();
        let is_there = |conn: &Arc<Conn>| !conn.is_over(now);
        self.by_key(&key).is_some_and(is_there) || self.translated.get(&key).is_some_and(is_there)
    }

    /// Whether a connection cannot begin with these ends since it would be found where another one is. One
    /// that is translated itself has answers with other ends.
    pub(crate) fn is_in_the_way(&self, tuple: &Tuple, is_translated: bool, now: u64) -> bool {
        let key = tuple.canonical();
        let is_there = |conn: &Arc<Conn>| !conn.is_over(now);
        self.by_key(&key).is_some_and(is_there)
            || !is_translated && self.translated.get(&key).is_some_and(is_there)
    }

    /// Whether this one is in its place.
    pub(crate) fn has(&self, conn: &Arc<Conn>) -> bool {
        self.by_key(&conn.original.canonical()).is_some_and(|own| Arc::ptr_eq(own, conn))
    }

    /// Has one be found by the ends of what comes back, too.
    pub(crate) fn insert_translated(&mut self, key: Tuple, conn: Arc<Conn>) {
        self.translated.insert(key, conn);
    }

    /// Has it not be found so any more.
    pub(crate) fn remove_translated(&mut self, key: &Tuple, conn: &Conn) {
        if self.translated.get(key).is_some_and(|own| std::ptr::eq(&raw const **own, conn)) {
            self.translated.remove(key);
        }
        if self.translated.is_empty() {
            // What many connections have needed is given back.
            self.translated = HashMap::new();
        }
    }

    fn at(&self, place: u32) -> Option<&Arc<Conn>> {
        self.places.get(place as usize)?.as_ref()
    }

    /// Adds one with whose ends there is none.
    pub(crate) fn insert(&mut self, conn: Arc<Conn>) {
        let key = conn.original.canonical();
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Some(conn);
            self.index.insert(key, place);
        }
    }

    /// How many connections it has.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Places, with connections or without.
    pub(crate) const fn places(&self) -> usize {
        self.places.len()
    }

    /// Takes one out, and ends it.
    pub(crate) fn remove(&mut self, tuple: &Tuple) -> Option<Arc<Conn>> {
        let place = self.index.remove(&tuple.canonical())?;
        let conn = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        conn.end();
        if self.index.is_empty() {
            // What many connections have needed is given back.
            let translated = std::mem::take(&mut self.translated);
            *self = Self { translated, ..Self::default() };
        }
        Some(conn)
    }

    /// So many places from `start` on, and where to go on; `None`: there are no more.
    pub(crate) fn chunk(&self, start: usize, most: usize) -> (Vec<Arc<Conn>>, Option<usize>) {
        let all = self.places.iter().skip(start).take(most);
        let end = start.saturating_add(most);
        let rest = (end < self.places.len()).then_some(end);
        (all.flatten().cloned().collect(), rest)
    }

    /// Looks at the next `most` places for connections that have ended by `now`, and takes them out.
    /// Returns them, and whether that were all places.
    pub(crate) fn sweep(&mut self, now: u64, most: usize) -> (Vec<Arc<Conn>>, bool) {
        let (found, rest) = self.chunk(self.hand, most);
        self.hand = rest.unwrap_or(0);
        let over = found.into_iter().filter(|conn| conn.is_over(now));
        let tuples: Vec<Tuple> = over.map(|conn| conn.original).collect();
        (tuples.iter().filter_map(|tuple| self.remove(tuple)).collect(), rest.is_none())
    }

    /// Gives up one that is over, or one that nobody has answered, of few that are looked at.
    pub(crate) fn give_up(&mut self, now: u64) -> Option<Arc<Conn>> {
        let (found, rest) = self.chunk(self.hand, LOOKED_AT);
        self.hand = rest.unwrap_or(0);
        let over = found.iter().find(|conn| conn.is_over(now));
        let conn = over.or_else(|| found.iter().find(|conn| !conn.is_answered()))?;
        let tuple = conn.original;
        self.remove(&tuple)
    }
}
