//! What a worker may touch while pages of the guest's memory are missing.
//!
//! A chain of which a page is missing stays in the ring, with all behind it, until the guest's pager
//! has the pages. So the worker never waits for one, and the next burst finds what has come.
//!
//! A guest that changes a chain after it was looked at has the worker touch a page that is not
//! there. In the mapping that workers use that makes an empty page: the guest's own loss.

use std::sync::Arc;

use arrayvec::ArrayVec;
use packet::{MAX_FRAME_LEN, RawSegment};
use virtio::device::burst::MAX_BUFFERS;
use virtio::device::{Buffer, Buffers, DeviceQueue, MAX_CHAIN, RingSetup};
use virtio::{GuestMemory, NET_HEADER_LEN};

use vhost::postcopy::{PagerLink, Pages};

/// Pages that one ring waits for at once: those of four buffers for each of a burst's chains.
const MAX_ASKED: usize = 4 * MAX_BUFFERS;

/// Bytes of a chain that are ever touched: the longest frame with its header.
const MAX_TOUCHED: usize = MAX_FRAME_LEN + NET_HEADER_LEN;

/// What one ring knows of the pages of its guest.
#[derive(Debug)]
pub struct Gate {
    pages: Arc<Pages>,
    pager: Arc<PagerLink>,
    /// Pages that the pager was asked for and that have not come, by its addresses.
    asked: ArrayVec<u64, MAX_ASKED>,
    /// How many more pages may be asked for, in one look at the ring.
    left: usize,
    /// Whether the next chain waits for pages, all of which were asked for.
    waiting: bool,
    /// Scratch for one chain.
    chain: Vec<RawSegment>,
}

impl Gate {
    /// A gate for one ring of the guest whose pages `pages` are and whose pager is `pager`.
    #[must_use]
    pub fn new(pages: Arc<Pages>, pager: Arc<PagerLink>) -> Self {
        let asked = ArrayVec::new();
        Self { pages, pager, asked, left: 0, waiting: false, chain: Vec::with_capacity(MAX_CHAIN) }
    }

    /// Whether the next chain waits for pages that will come.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Keeps of `buffers`, which were fetched from `queue` just now, those before the first of
    /// which a page is missing, and has all that are missing brought in. Buffers are touched up to
    /// the length of the longest frame.
    #[cold]
    #[inline(never)]
    pub fn admit<const WRITE: bool>(&mut self, queue: &mut DeviceQueue, buffers: &mut Buffers) {
        self.begin();
        let count = buffers.as_slice().len();
        let mut admitted = count;
        for index in 0..count {
            let Some(buffer) = buffers.as_slice().get(index).copied() else { break };
            let (there, asked) = self.check_chain::<WRITE>(queue, &buffer);
            if !there && admitted == count {
                admitted = index;
                self.waiting = index == 0 && asked;
            }
        }
        buffers.truncate(admitted);
    }

    /// Whether all of a ring that is to start in `memory` is there; has what is missing brought in.
    /// What does not lie in memory is for others to refuse.
    pub fn admit_ring(&mut self, memory: &GuestMemory, setup: &RingSetup) -> bool {
        self.begin();
        let parts = DeviceQueue::parts(memory, setup).into_iter().flatten();
        // All of them, so that all are asked for.
        parts.fold(true, |all, part| all & self.check(part).0)
    }

    /// Has what is missing in the next chains of a ring brought in, before a worker looks at them.
    pub fn look_ahead<const WRITE: bool>(&mut self, queue: &mut DeviceQueue) {
        let mut buffers = Buffers::default();
        // A ring that makes no sense is its worker's to stop.
        if queue.fetch::<WRITE>(MAX_BUFFERS, &mut buffers).is_ok() {
            self.admit::<WRITE>(queue, &mut buffers);
        }
    }

    fn begin(&mut self) {
        let Self { pages, asked, .. } = self;
        asked.retain(|at| !pages.is_present(*at));
        self.left = MAX_ASKED;
        self.waiting = false;
    }

    /// Whether all that is touched of a chain is there; and if not, whether all of it was asked for.
    fn check_chain<const WRITE: bool>(
        &mut self,
        queue: &mut DeviceQueue,
        buffer: &Buffer,
    ) -> (bool, bool) {
        if let Some(segment) = buffer.single() {
            return self.check(front(segment, MAX_TOUCHED));
        }
        if let Some(table) = queue.indirect_table(buffer.chain()) {
            let table = self.check(front(table, 16 * MAX_CHAIN));
            if !table.0 {
                return table;
            }
        }
        let mut chain = std::mem::take(&mut self.chain);
        let mut result = (true, true);
        // A chain that breaks a rule is touched no further than here.
        if queue.walk::<WRITE>(buffer.chain(), &mut chain).is_ok() {
            let mut left = MAX_TOUCHED;
            for segment in &chain {
                let segment = front(*segment, left);
                left -= segment.len();
                let (there, asked) = self.check(segment);
                result = (result.0 & there, result.1 & asked);
            }
        }
        self.chain = chain;
        result
    }

    /// Whether all pages of a segment are there; and if not, whether all of them were asked for.
    fn check(&mut self, segment: RawSegment) -> (bool, bool) {
        let Self { pages, pager, asked, left, .. } = self;
        let mut all_asked = true;
        let there = pages.check(segment.as_ptr(), segment.len(), |at| {
            let Some(rest) = left.checked_sub(1) else {
                all_asked = false;
                return;
            };
            *left = rest;
            if !asked.contains(&at) {
                let sent = !asked.is_full() && pager.touch(at);
                if sent {
                    asked.push(at);
                }
                all_asked &= sent;
            }
        });
        (there, all_asked)
    }
}

/// The first `len` bytes of a segment.
fn front(segment: RawSegment, len: usize) -> RawSegment {
    let len = u32::try_from(segment.len().min(len)).unwrap_or(u32::MAX);
    RawSegment::new(segment.as_ptr(), len)
}
