//! Records of chains in flight: written while the ring runs, and read when it starts.

use arrayvec::ArrayVec;

use super::PackedQueue;
use crate::device::burst::{Buffers, Chain, MAX_BUFFERS};
use crate::device::inflight::{Inflight, PackedRecords};
use crate::device::{Resumed, SetupError};
use crate::inflight::InflightArea;
use crate::packed::Position;
use crate::ring::DESC_NEXT;

impl PackedQueue {
    /// Goes on where the records in `area` say, and records from now on. To be called before
    /// anything is fetched.
    ///
    /// # Errors
    /// When they are for another kind of ring.
    pub(in crate::device) fn resume(&mut self, area: InflightArea) -> Result<Resumed, SetupError> {
        let parts = self.parts;
        let records = PackedRecords::read(area, self.size, |at| parts.available(at).is_some())?;
        let Some((used, inflight)) = records.found() else {
            self.tracker.set(records.start(self.next_used));
            return Ok(Resumed::Anew);
        };
        let inflight = inflight.to_vec();
        self.tracker.set(records.start(used));
        (self.next_used, self.next_avail) = (used, used);
        let again = u16::try_from(inflight.len()).unwrap_or(u16::MAX);
        let total = inflight.iter().map(|chain| usize::from(chain.slots)).sum::<usize>();
        if self.lie_there(&inflight) {
            return Ok(Resumed::Here { again });
        }
        if total > usize::from(self.size) {
            // No ring has so many: what the records say of chains is worth nothing.
            return Ok(Resumed::Here { again: 0 });
        }
        self.next_avail = used.after(u16::try_from(total).unwrap_or(0), self.size);
        for Inflight { id, slots } in inflight {
            let chain = Chain { head: self.next_used.index, id, slots };
            self.complete([(chain, 0)].into_iter());
        }
        Ok(Resumed::GivenBack { chains: again })
    }

    /// Whether the ring has `inflight` as its next chains.
    fn lie_there(&self, inflight: &[Inflight]) -> bool {
        let (mut at, mut left) = (self.next_used, self.size);
        inflight.iter().all(|chain| {
            if self.parts.available(at).is_none() || chain.slots == 0 || chain.slots > left {
                return false;
            }
            let last = self.parts.descriptor(at.after(chain.slots - 1, self.size).index);
            (at, left) = (at.after(chain.slots, self.size), left - chain.slots);
            last.id == chain.id && last.flags & DESC_NEXT == 0
        })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_taken(&mut self, buffers: &Buffers, count: usize) {
        let (parts, size) = (self.parts, self.size);
        let Some(tracker) = self.tracker.get() else { return };
        for chain in buffers.chains().take(count) {
            // What was fetched from a larger ring leads to a place in this one, too.
            let head = Position { index: chain.head, wrap: false };
            let places = (0..chain.slots).map(|step| head.after(step, size).index);
            tracker.take(chain, places.map(|index| parts.descriptor(index)));
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_begin(&mut self, count: usize, used: Position) {
        if let Some(tracker) = self.tracker.get() {
            tracker.begin(count, used);
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_end(&mut self, count: usize) {
        if let Some(tracker) = self.tracker.get() {
            tracker.end(count);
        }
    }

    /// Gives chains back of which there are records.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_recorded(&mut self, mut used: impl Iterator<Item = (Chain, u32)>) {
        loop {
            let batch: ArrayVec<_, MAX_BUFFERS> = used.by_ref().take(MAX_BUFFERS).collect();
            if batch.is_empty() {
                return;
            }
            let slots = batch.iter().fold(0, |sum: u16, (chain, _)| sum.wrapping_add(chain.slots));
            self.record_begin(batch.len(), self.next_used.after(slots, self.size));
            self.give_back(batch.iter().copied());
            self.record_end(batch.len());
        }
    }
}
