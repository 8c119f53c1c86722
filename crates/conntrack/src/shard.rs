//! A part of all connections, of which each has its place by its hash.

use std::collections::HashMap;
use std::sync::Arc;

use crate::conn::Conn;
use crate::tuple::Tuple;

/// Places that are looked at for one to be given up, where there is room for no further connection.
const LOOKED_AT: usize = 32;

/// Connections by their ends, which are found in order, too.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Places by tuples, which are the same for both directions.
    index: HashMap<Tuple, u32>,
    places: Vec<Option<Arc<Conn>>>,
    free: Vec<u32>,
    /// Where the next look for those that are over begins.
    hand: usize,
}

impl Shard {
    /// The connection of a packet, if it has not ended by `now`.
    pub(crate) fn find(&self, tuple: &Tuple, now: u64) -> Option<&Arc<Conn>> {
        let place = self.index.get(&tuple.canonical())?;
        self.at(*place).filter(|conn| !conn.is_over(now))
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
            *self = Self::default();
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
