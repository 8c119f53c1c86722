//! One port's part in the protocol: its neighbours, each for as long as it has said, and when they are
//! told who we are (IEEE 802.1AB-2016 clause 9).

use std::time::{Duration, Instant};

use eal::time::later;
use litemap::LiteMap;

use super::frame::{self, Id, Unit};
use super::{LldpMode, Neighbour};

/// For how long neighbours are to remember us, in seconds (msgTxHold times msgTxInterval).
pub const TTL: u16 = 120;

/// How often they are told (clause 9.2.5.7).
const INTERVAL: Duration = Duration::from_secs(30);

/// How often while there is a new one, and how many times (clauses 9.2.5.5 and 9.2.5.19).
const FAST_INTERVAL: Duration = Duration::from_secs(1);
const FAST_COUNT: u32 = 4;

/// The most neighbours that are kept on a port.
pub const MAX_NEIGHBOURS: usize = 16;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames received that made no sense.
    pub bad: u64,
    /// Those of one neighbour more than are kept.
    pub ignored: u64,
    /// Neighbours that were not heard for as long as they had said.
    pub aged: u64,
}

/// A neighbour, and when it is forgotten.
#[derive(Clone, Debug)]
struct Known {
    unit: Unit,
    until: Instant,
}

/// A port.
#[derive(Debug, Default)]
pub struct Agent {
    mode: LldpMode,
    /// Whether it is in service, and its link up.
    is_up: bool,
    /// By station and port.
    neighbours: LiteMap<(Id, Id), Known>,
    /// When they are told next; `None` as long as nobody is told anything.
    next: Option<Instant>,
    /// How many times that is to be soon.
    fast: u32,
    /// What was wrong with a frame.
    flaw: Option<&'static str>,
    /// What is counted.
    pub counts: Counts,
}

impl Agent {
    /// What it does.
    pub const fn mode(&self) -> LldpMode {
        self.mode
    }

    /// Does what is due at `now`; returns for how long that is to hold what is to be sent, if anything
    /// is, in seconds.
    pub fn run(&mut self, mode: LldpMode, is_up: bool, now: Instant) -> Option<u16> {
        (self.mode, self.is_up) = (mode, is_up);
        if !self.listens() {
            self.neighbours.clear();
        }
        let before = self.neighbours.len();
        self.neighbours.retain(|_, known| known.until > now);
        let aged = before.saturating_sub(self.neighbours.len());
        self.counts.aged = self.counts.aged.saturating_add(aged as u64);
        if !(mode.transmits() && is_up) {
            return self.end();
        }
        if self.next.is_some_and(|next| next > now) {
            return None;
        }
        let interval = if self.fast > 0 { FAST_INTERVAL } else { INTERVAL };
        self.fast = self.fast.saturating_sub(1);
        self.next = Some(later(now, interval));
        self.counts.sent = self.counts.sent.saturating_add(1);
        Some(TTL)
    }

    const fn listens(&self) -> bool {
        self.mode.receives() && self.is_up
    }

    /// Tells nobody anything any more: first that (clause 9.1.2.2), where that is of use.
    pub fn end(&mut self) -> Option<u16> {
        self.fast = 0;
        self.next.take().filter(|_| self.is_up).map(|_| 0)
    }

    /// A frame has come in.
    pub fn hear(&mut self, frame: &[u8], now: Instant) {
        if !self.listens() {
            return;
        }
        self.counts.received = self.counts.received.saturating_add(1);
        let Some(unit) = frame::parse(frame) else {
            self.counts.bad = self.counts.bad.saturating_add(1);
            self.flaw = self.flaw.or_else(|| frame::flaw(frame));
            return;
        };
        let key = (unit.chassis.clone(), unit.port.clone());
        if unit.ttl == 0 {
            self.neighbours.remove(&key);
            return;
        }
        let is_new = !self.neighbours.contains_key(&key);
        if is_new && self.neighbours.len() >= MAX_NEIGHBOURS {
            self.counts.ignored = self.counts.ignored.saturating_add(1);
            return;
        }
        let until = later(now, Duration::from_secs(u64::from(unit.ttl)));
        self.neighbours.insert(key, Known { unit, until });
        if is_new && let Some(next) = &mut self.next {
            // It is to know us soon.
            self.fast = FAST_COUNT;
            *next = later(now, FAST_INTERVAL).min(*next);
        }
    }

    /// What was wrong with a frame that it has heard since this was asked last, where there are words for
    /// it.
    pub const fn take_flaw(&mut self) -> Option<&'static str> {
        self.flaw.take()
    }

    /// Its neighbours at `now`.
    pub fn neighbours(&self, now: Instant) -> impl Iterator<Item = Neighbour> {
        let known = self.neighbours.values();
        known.map(move |known| known.unit.neighbour(known.until.saturating_duration_since(now)))
    }

    /// When there is something to do next.
    pub fn due(&self) -> Option<Instant> {
        self.neighbours.values().map(|known| known.until).chain(self.next).min()
    }
}
