//! Records of chains in flight: written while the ring runs, and read when it starts.

use arrayvec::ArrayVec;

use super::SplitQueue;
use crate::device::burst::{Buffer, Buffers, Chain, MAX_BUFFERS};
use crate::device::inflight::SplitRecords;
use crate::device::{Resumed, SetupError};
use crate::inflight::InflightArea;

impl SplitQueue {
    /// Goes on where the records in `area` say, and records from now on. To be called before
    /// anything is fetched.
    ///
    /// # Errors
    /// When they are for another kind of ring.
    pub(in crate::device) fn resume(&mut self, area: InflightArea) -> Result<Resumed, SetupError> {
        let records = SplitRecords::read(area, self.size.get(), self.next_used)?;
        let inflight = records.inflight().map(<[u16]>::to_vec);
        self.tracker.set(records.start(self.next_used));
        let Some(inflight) = inflight else { return Ok(Resumed::Anew) };
        self.next_avail = self.next_used;
        // There are no more than entries of the ring.
        let count = u16::try_from(inflight.len()).unwrap_or(u16::MAX);
        let places = (0..count).map(|step| self.next_used.wrapping_add(step));
        if inflight.iter().zip(places).all(|(head, at)| self.parts.head(self.size, at) == *head) {
            return Ok(Resumed::Here { again: count });
        }
        self.next_avail = self.next_used.wrapping_add(count);
        self.complete(inflight.into_iter().map(|head| (Chain { head, id: 0, slots: 1 }, 0)));
        Ok(Resumed::GivenBack { chains: count })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_taken(&mut self, buffers: &Buffers, count: usize) {
        if let Some(tracker) = self.tracker.get() {
            tracker.take(heads(buffers.as_slice().get(..count).unwrap_or_default()));
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_begin(&mut self, batch: &[Buffer]) {
        if let Some(tracker) = self.tracker.get() {
            tracker.begin(heads(batch));
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_end(&mut self, batch: &[Buffer]) {
        let used = self.next_used;
        if let Some(tracker) = self.tracker.get() {
            tracker.end(heads(batch), used);
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
            let heads = || batch.iter().map(|(chain, _)| chain.head);
            if let Some(tracker) = self.tracker.get() {
                tracker.begin(heads());
            }
            self.give_back(batch.iter().copied());
            let used = self.next_used;
            if let Some(tracker) = self.tracker.get() {
                tracker.end(heads(), used);
            }
        }
    }
}

fn heads(batch: &[Buffer]) -> impl Iterator<Item = u16> {
    batch.iter().map(|buffer| buffer.chain().head)
}
