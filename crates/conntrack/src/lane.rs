//! What one worker knows of the connections.
//!
//! Connections that packets of this worker are of are kept at hand, so that those of established ones are
//! found without a lock. What is at hand is bounded, and is only ever a copy of where to look.

use std::sync::Arc;

use crate::conn::{Conn, Outcome};
use crate::dissect::Seen;
use crate::expect::Expected;
use crate::helper::{Helper, Overheard, overhear};
use crate::state::{Request, State, Tracked, Translation};
use crate::table::{Begun, Conntrack};

/// Connections that are found together.
const WAYS: usize = 4;

/// Connections that a new lane has room for, and one that has grown.
const FIRST: usize = 1 << 8;
const MOST: usize = 1 << 18;

/// Places that are looked at for connections that are over, at a time.
const TIDIED: usize = 1 << 12;

#[derive(Clone, Debug, Default)]
struct Set {
    tags: [u16; WAYS],
    conns: [Option<Arc<Conn>>; WAYS],
    /// The one that makes room next.
    next: u8,
}

/// One worker's part in the connections.
#[derive(Debug)]
pub struct Lane {
    all: Arc<Conntrack>,
    sets: Vec<Set>,
    /// Connections that were put in since there was room for so many.
    made: usize,
    /// Where the next look for those that are over begins.
    hand: usize,
}

impl Lane {
    /// With nothing at hand.
    #[must_use]
    pub const fn new(all: Arc<Conntrack>) -> Self {
        Self { all, sets: Vec::new(), made: 0, hand: 0 }
    }

    /// All connections.
    #[must_use]
    pub const fn all(&self) -> &Arc<Conntrack> {
        &self.all
    }

    /// Finds out what a packet is at `now`, in milliseconds, and does what is asked for with its
    /// connection. `seen` is in the zone of the request. One of which nothing could be
    /// [seen](crate::dissect) is invalid.
    #[inline]
    pub fn track(&mut self, seen: Option<&Seen>, request: &Request, now: u64) -> Tracked {
        self.track_and(seen, request, now, |_, _| {})
    }

    /// The same, and how the packet is to be translated, if it is.
    pub fn translate(
        &mut self,
        seen: Option<&Seen>,
        request: &Request,
        now: u64,
    ) -> (Tracked, Option<Translation>) {
        let mut translation = None;
        let tracked = self.track_and(seen, request, now, |conn, is_reply| {
            translation = seen.and_then(|seen| conn.translation(seen, request, is_reply));
        });
        (tracked, translation)
    }

    /// `take` has the connection that the packet is of, and whether it goes back.
    #[inline]
    fn track_and(
        &mut self,
        seen: Option<&Seen>,
        request: &Request,
        now: u64,
        mut take: impl FnMut(&Conn, bool),
    ) -> Tracked {
        let Some(seen) = seen else { return Tracked::invalid(request.zone) };
        let hash = seen.tuple.hash(self.all.seed());
        if let Some((conn, is_reply)) = self.known(hash, seen, request, now) {
            let packet = (seen, is_reply);
            if let Some(tracked) = meet(&self.all, conn, packet, request, now) {
                take(conn, is_reply);
                return tracked;
            }
        }
        self.look(hash, seen, request, now, take)
    }

    #[inline]
    fn known(&self, hash: u64, seen: &Seen, request: &Request, now: u64) -> Option<(&Conn, bool)> {
        let set = self.sets.get(self.set_of(hash))?;
        let tag = tag_of(hash);
        let ways = set.tags.iter().zip(&set.conns).filter(|(own, _)| **own == tag);
        let mut conns = ways.filter_map(|(_, conn)| conn.as_deref());
        conns.find_map(|conn| {
            let is_reply = conn.way(&seen.tuple, request.is_translated)?;
            (!conn.is_over(now)).then_some((conn, is_reply))
        })
    }

    fn set_of(&self, hash: u64) -> usize {
        // There are as many as a power of two.
        usize::try_from(hash & 0xFFFF_FFFF).unwrap_or_default() & self.sets.len().wrapping_sub(1)
    }

    /// The packet is of no connection that is at hand.
    #[cold]
    fn look(
        &mut self,
        hash: u64,
        seen: &Seen,
        request: &Request,
        now: u64,
        mut take: impl FnMut(&Conn, bool),
    ) -> Tracked {
        let mut met = |all: &Conntrack, conn: &Conn| {
            let is_reply = conn.way(&seen.tuple, request.is_translated)?;
            let tracked = meet(all, conn, (seen, is_reply), request, now)?;
            take(conn, is_reply);
            Some(tracked)
        };
        if let Some(conn) = self.all.find(hash, &seen.tuple, request.is_translated, now) {
            if let Some(tracked) = met(&self.all, &conn) {
                self.put(hash, conn);
                return tracked;
            }
            self.all.end(&conn);
        }
        let invalid = Tracked { original: Some(seen.tuple), ..Tracked::invalid(request.zone) };
        if !seen.can_begin() {
            return invalid;
        }
        let expected = match request.commit {
            true => self.all.claim(seen, now),
            false => self.all.expected(seen, now),
        };
        let new = new(seen, request.zone, expected.as_ref());
        let begin = || self.all.begin((hash, expected), seen, request, now);
        match if request.commit { begin() } else { None } {
            None => new,
            Some(Begun::Now(conn)) => {
                let (mark, label) = conn.write_labels(request);
                let told = conn.told(new.state, request, false);
                let new = Tracked { state: told.state, mark, label, helper: told.listener, ..new };
                take(&conn, false);
                self.put(hash, conn);
                new
            }
            Some(Begun::Was(conn)) => met(&self.all, &conn).unwrap_or(invalid),
        }
    }

    /// Has a connection at hand from now on.
    fn put(&mut self, hash: u64, conn: Arc<Conn>) {
        let entries = self.sets.len() * WAYS;
        if self.sets.is_empty() || self.made >= entries && entries * 2 <= MOST {
            self.grow((entries * 2).max(FIRST));
        }
        self.made += 1;
        let at = self.set_of(hash);
        let Some(set) = self.sets.get_mut(at) else { return };
        let of_same = |(_, own): &(usize, &Option<Arc<Conn>>)| {
            own.as_ref().is_none_or(|own| own.original.canonical() == conn.original.canonical())
        };
        let way = set.conns.iter().enumerate().find(of_same).map(|(way, _)| way);
        let way = way.unwrap_or_else(|| {
            set.next = set.next.wrapping_add(1);
            usize::from(set.next) % WAYS
        });
        if let (Some(tag), Some(own)) = (set.tags.get_mut(way), set.conns.get_mut(way)) {
            (*tag, *own) = (tag_of(hash), Some(conn));
        }
    }

    /// Makes room for so many; those that were at hand have to be found anew.
    fn grow(&mut self, entries: usize) {
        self.sets = vec![Set::default(); entries / WAYS];
        (self.made, self.hand) = (0, 0);
    }

    /// Has a helper look at what a packet carries whose connection is known to have one; `seen`, `request`
    /// and `now` are those that it was tracked with.
    #[cold]
    pub fn overhear(&self, seen: &Seen, request: &Request, carried: &[u8], now: u64) -> Overheard {
        let hash = seen.tuple.hash(self.all.seed());
        let found = self.all.find(hash, &seen.tuple, request.is_translated, now);
        found
            .and_then(|conn| overhear(&self.all, &conn, (seen, request, carried), now))
            .unwrap_or_default()
    }

    /// Lets go of connections that are over by `now`, whose memory stays in use as long as they are at
    /// hand. It looks at some of them, and at the others when it is called again.
    pub fn tidy(&mut self, now: u64) {
        let end = (self.hand + TIDIED / WAYS).min(self.sets.len());
        for set in self.sets.get_mut(self.hand..end).unwrap_or_default() {
            for conn in &mut set.conns {
                if conn.as_ref().is_some_and(|conn| conn.is_over(now)) {
                    *conn = None;
                }
            }
        }
        self.hand = if end < self.sets.len() { end } else { 0 };
    }
}

/// What is said of a packet that begins a connection, or would.
pub(crate) fn new(seen: &Seen, zone: u16, expected: Option<&Expected>) -> Tracked {
    let new = State::NEW | State::TRACKED;
    let none = Tracked { original: Some(seen.tuple), ..Tracked::invalid(zone) };
    let Some(Expected { master, .. }) = expected else { return Tracked { state: new, ..none } };
    let (mark, label) = master.labels();
    Tracked { state: new | State::RELATED, mark, label, original: Some(master.original), ..none }
}

#[inline]
fn tag_of(hash: u64) -> u16 {
    u16::try_from(hash >> 40 & 0xFFFF).unwrap_or_default()
}

/// A packet of a connection, and whether it goes back; `None` if that ends by it, and another one may
/// begin.
#[inline]
fn meet(
    all: &Conntrack,
    conn: &Conn,
    (seen, is_reply): (&Seen, bool),
    request: &Request,
    now: u64,
) -> Option<Tracked> {
    if is_reply && request.force {
        return None;
    }
    if let Some(before) = request.before.filter(|_| !Helper::may_be_for(&seen.tuple)) {
        return Some(meet_again(conn, before, is_reply, request));
    }
    let checks = all.checks_sequences();
    let sent = conn.as_sent(seen, request, is_reply);
    let seen = sent.as_ref().unwrap_or(seen);
    let Outcome::State(state) = conn.track(seen, is_reply, checks, now) else { return None };
    let (mark, label) = labels(conn, state, request);
    let told = conn.told(state | State::TRACKED, request, is_reply);
    let (state, original, helper) = (told.state, Some(*told.original), told.listener);
    Some(Tracked { state, zone: request.zone, mark, label, original, helper })
}

/// The same of one that has met it before: mark and label are the connection's, all else stays.
#[cold]
fn meet_again(conn: &Conn, before: State, is_reply: bool, request: &Request) -> Tracked {
    let (mark, label) = labels(conn, before, request);
    let told = conn.told(before, request, is_reply);
    let (state, original) = (told.state, Some(*told.original));
    Tracked { state, zone: request.zone, mark, label, original, helper: None }
}

/// A connection's mark and label after a packet of this state has written what it is asked to. An invalid one, which
/// may be anybody's, writes nothing.
#[inline]
fn labels(conn: &Conn, state: State, request: &Request) -> (u32, u128) {
    let is_written = request.mark.is_some() || request.label.is_some();
    match is_written && !state.contains(State::INVALID) {
        true => conn.write_labels(request),
        false => conn.labels(),
    }
}
