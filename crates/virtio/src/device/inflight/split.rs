//! Records of a split ring.

use super::{check, clear, in_order, step};
use crate::device::SetupError;
use crate::inflight::{Head, InflightArea, Layout, VERSION};

/// The records of a split ring, and what this device knows without them.
#[derive(Debug)]
pub(in crate::device) struct SplitTracker {
    area: InflightArea,
    /// Of the next chain.
    counter: u64,
    last_batch: u16,
    used: u16,
}

/// What another device has left.
#[derive(Debug)]
pub(in crate::device) struct SplitRecords {
    area: InflightArea,
    /// Heads of the chains in flight, in order; `None` where nothing was recorded.
    inflight: Option<Vec<u16>>,
}

impl SplitRecords {
    /// Reads the records of a ring of `size` whose used index is `used`.
    ///
    /// # Errors
    /// When they are for another kind of ring.
    pub(in crate::device) fn read(
        area: InflightArea,
        size: u16,
        used: u16,
    ) -> Result<Self, SetupError> {
        if !check(&area, Layout::Split, size)? {
            return Ok(Self { area, inflight: None });
        }
        let head = area.head();
        // The last device was about to take these marks back.
        let mut entry = head.first;
        for _ in 0..used.wrapping_sub(head.second).min(size) {
            area.set_inflight(entry, false);
            entry = area.next(entry);
        }
        step();
        area.set_head(Head { second: used, ..head });
        let mut inflight = in_order(&area);
        // Entries of a larger ring do not exist in this one.
        inflight.retain(|head| *head < size);
        Ok(Self { area, inflight: Some(inflight) })
    }

    /// Heads of the chains in flight, in order; `None` where nothing was recorded.
    pub(in crate::device) fn inflight(&self) -> Option<&[u16]> {
        self.inflight.as_deref()
    }

    /// Starts to record for a ring whose used index is now `used`, and in which nothing is in
    /// flight.
    pub(in crate::device) fn start(self, used: u16) -> SplitTracker {
        let Self { area, inflight } = self;
        clear(&area, &inflight.unwrap_or_else(|| (0..area.entries()).collect()));
        let tracker = SplitTracker { area, counter: 0, last_batch: 0, used };
        tracker.set_head();
        tracker
    }
}

impl SplitTracker {
    /// Records that chains were taken, by their heads.
    pub(in crate::device) fn take(&mut self, heads: impl Iterator<Item = u16>) {
        for head in heads {
            self.area.set_counter(head, self.counter);
            self.counter = self.counter.wrapping_add(1);
            step();
            self.area.set_inflight(head, true);
        }
        // Before anything is done with the chains.
        step();
    }

    /// Records that chains are about to be given back.
    pub(in crate::device) fn begin(&mut self, heads: impl Iterator<Item = u16>) {
        for head in heads {
            self.area.set_next(head, self.last_batch);
            self.last_batch = head;
        }
        step();
        self.set_head();
        step();
    }

    /// Records that they were: the used index is `used`.
    pub(in crate::device) fn end(&mut self, heads: impl Iterator<Item = u16>, used: u16) {
        step();
        for head in heads {
            self.area.set_inflight(head, false);
        }
        step();
        self.used = used;
        self.set_head();
    }

    fn set_head(&self) {
        let entries = self.area.entries();
        let head = Head { version: VERSION, entries, first: self.last_batch, second: self.used };
        self.area.set_head(head);
    }
}
