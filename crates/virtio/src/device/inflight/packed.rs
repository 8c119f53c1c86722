//! Records of a packed ring.
//!
//! Entries that are not in use are a list. The region has it for other devices; this one goes by a
//! copy of its own, which the front-end cannot change.

use std::collections::VecDeque;

use super::{check, clear, in_order, step};
use crate::device::SetupError;
use crate::device::burst::Chain;
use crate::inflight::{Head, InflightArea, Layout, VERSION};
use crate::packed::{Desc, Position};

/// The records of a packed ring, and what this device knows without them.
#[derive(Debug)]
pub(in crate::device) struct PackedTracker {
    area: InflightArea,
    /// Of the next chain.
    counter: u64,
    /// The first entry that is not in use.
    free: u16,
    /// The entry behind each in the list.
    next: Box<[u16]>,
    /// First and last entry of every chain in flight, in order.
    taken: VecDeque<(u16, u16)>,
    used: Position,
}

/// A chain in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::device) struct Inflight {
    /// By which the driver knows it.
    pub(in crate::device) id: u16,
    /// Its descriptors.
    pub(in crate::device) slots: u16,
}

/// What another device has left.
#[derive(Debug)]
pub(in crate::device) struct PackedRecords {
    area: InflightArea,
    /// Where the next used descriptor goes; `None` where nothing was recorded.
    used: Option<Position>,
    /// The entries in flight, in order, and what they say.
    entries: Vec<u16>,
    inflight: Vec<Inflight>,
}

impl PackedRecords {
    /// Reads the records of a ring of `size`. `is_available` tells whether the descriptor at a
    /// place in the ring looks available.
    ///
    /// # Errors
    /// When they are for another kind of ring.
    pub(in crate::device) fn read(
        area: InflightArea,
        size: u16,
        is_available: impl Fn(Position) -> bool,
    ) -> Result<Self, SetupError> {
        if !check(&area, Layout::Packed, size)? {
            return Ok(Self { area, used: None, entries: Vec::new(), inflight: Vec::new() });
        }
        let head = area.head();
        let (now, old) = area.places();
        let error = SetupError::Inflight { version: head.version, entries: head.entries, size };
        if now.index >= size || old.index >= size {
            return Err(error);
        }
        // The first descriptor of a burst is marked last, and makes all of it visible.
        let visible = now != old && !is_available(old);
        let (used, mut free) = if visible { (now, head.first) } else { (old, head.second) };
        for _ in 0..area.entries() {
            // The list ends with an entry that does not exist.
            if free >= area.entries() {
                break;
            }
            area.set_inflight(free, false);
            free = area.next(free);
        }
        step();
        let entries = in_order(&area);
        let inflight = entries.iter().map(|entry| {
            let (last, slots) = area.extent(*entry);
            Inflight { id: area.id(last), slots }
        });
        let inflight = inflight.collect();
        Ok(Self { area, used: Some(used), entries, inflight })
    }

    /// Where the next used descriptor goes, and the chains in flight, in order; `None` where
    /// nothing was recorded.
    pub(in crate::device) fn found(&self) -> Option<(Position, &[Inflight])> {
        self.used.map(|used| (used, &*self.inflight))
    }

    /// Starts to record for a ring in which the next used descriptor goes to `used`, and in which
    /// nothing is in flight.
    pub(in crate::device) fn start(self, used: Position) -> PackedTracker {
        let Self { area, entries, used: known, .. } = self;
        let all = || (0..area.entries()).collect();
        clear(&area, &if known.is_some() { entries } else { all() });
        area.set_places(used, used);
        step();
        let count = area.entries();
        let next: Box<[u16]> = (1..=count).collect();
        for (index, next) in (0..count).zip(&next) {
            area.set_next(index, *next);
        }
        let taken = VecDeque::with_capacity(count.into());
        let tracker = PackedTracker { area, counter: 0, free: 0, next, taken, used };
        step();
        tracker.set_head(0);
        tracker
    }
}

impl PackedTracker {
    /// Records that `chain` was taken, which consists of `descriptors`.
    pub(in crate::device) fn take(
        &mut self,
        chain: Chain,
        descriptors: impl Iterator<Item = Desc>,
    ) {
        let first = self.free;
        let (mut last, mut free) = (first, first);
        for desc in descriptors.take(chain.slots.into()) {
            let Some(next) = self.next.get(usize::from(free)) else {
                // More than the ring has: nobody takes so many, and nothing says that they did.
                self.taken.push_back((self.area.entries(), 0));
                return;
            };
            self.area.set_desc(free, desc);
            (last, free) = (free, *next);
        }
        self.area.set_extent(first, last, chain.slots);
        self.area.set_counter(first, self.counter);
        self.counter = self.counter.wrapping_add(1);
        step();
        self.area.set_inflight(first, true);
        step();
        self.free = free;
        self.taken.push_back((first, last));
        // Before anything is done with the chain.
        self.set_head(free);
        step();
    }

    /// Records that the `count` oldest chains are about to be given back, after which the next used
    /// descriptor goes to `used`.
    pub(in crate::device) fn begin(&mut self, count: usize, used: Position) {
        let old = self.free;
        let exists = |(first, _): &&(u16, u16)| *first < self.area.entries();
        for (first, last) in self.taken.iter().take(count).filter(exists) {
            self.area.set_next(*last, self.free);
            if let Some(next) = self.next.get_mut(usize::from(*last)) {
                *next = self.free;
            }
            self.free = *first;
        }
        step();
        self.set_head(old);
        step();
        self.area.set_places(used, self.used);
        self.used = used;
        step();
    }

    /// Records that they were.
    pub(in crate::device) fn end(&mut self, count: usize) {
        step();
        for (first, _) in self.taken.drain(..count.min(self.taken.len())) {
            self.area.set_inflight(first, false);
        }
        step();
        self.set_head(self.free);
        step();
        self.area.set_places(self.used, self.used);
    }

    /// Sets the list's head, and what it is if the burst under way does not happen.
    fn set_head(&self, old: u16) {
        let entries = self.area.entries();
        let head = Head { version: VERSION, entries, first: self.free, second: old };
        self.area.set_head(head);
    }
}
