//! A ring of either format.
//!
//! The format is decided when a ring starts, so the choice between the two costs one predictable
//! branch per burst.

use std::sync::Arc;

use packet::RawSegment;

use super::burst::{Buffer, Buffers, Chain, MAX_BUFFERS};
use super::log::{RingLog, front};
use super::packed::{BaseCheck, PackedQueue};
use super::part::RingPart;
use super::split::SplitQueue;
use super::table::ChainWalk;
use super::{ChainError, MAX_CHAIN, Resumed, RingError, RingSetup, SetupError};
use crate::features::Features;
use crate::inflight::InflightArea;
use crate::memory::{GuestMemory, Miss};

/// A running ring, split or packed. See [`SplitQueue`] for what its methods do.
#[derive(Debug)]
pub enum DeviceQueue {
    /// Virtio 1.3 section 2.7.
    Split(SplitQueue),
    /// Virtio 1.3 section 2.8.
    Packed(PackedQueue),
}

/// Calls the same method on whichever ring it is.
macro_rules! either {
    ($queue:expr, $ring:ident => $call:expr) => {
        match $queue {
            DeviceQueue::Split($ring) => $call,
            DeviceQueue::Packed($ring) => $call,
        }
    };
}

impl DeviceQueue {
    /// Starts a ring of the format that was negotiated.
    ///
    /// # Errors
    /// When size or base are not allowed, or a part does not lie in `memory`.
    pub fn new(memory: Arc<GuestMemory>, setup: RingSetup) -> Result<Self, SetupError> {
        if setup.features.contains(Features::RING_PACKED) {
            PackedQueue::new(memory, setup).map(Self::Packed)
        } else {
            SplitQueue::new(memory, setup).map(Self::Split)
        }
    }

    /// Goes on where the records of chains in flight in `area` say, and keeps such records from now
    /// on. To be called before anything is fetched; the device must give chains back in the order
    /// in which it takes them.
    ///
    /// # Errors
    /// When the records are for another kind of ring.
    pub fn resume(&mut self, area: InflightArea) -> Result<Resumed, SetupError> {
        either!(self, ring => ring.resume(area))
    }

    /// Goes on in another memory table.
    ///
    /// # Errors
    /// When the ring does not lie in it; the queue goes on in the old one then.
    pub fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), SetupError> {
        either!(self, ring => ring.set_memory(memory))
    }

    /// Checks whether the ring could go on in `memory`.
    ///
    /// # Errors
    /// As [`set_memory`](Self::set_memory).
    pub fn check_memory(&self, memory: &GuestMemory) -> Result<(), SetupError> {
        either!(self, ring => ring.check_memory(memory))
    }

    /// The memory that the ring and its buffers lie in.
    #[must_use]
    pub const fn memory(&self) -> &Arc<GuestMemory> {
        either!(self, ring => ring.memory())
    }

    /// The first address of a ring's own parts that has no translation yet, where `memory` is behind
    /// a virtual IOMMU.
    #[must_use]
    pub fn missing_part(memory: &GuestMemory, setup: &RingSetup) -> Option<Miss> {
        RingPart::first_miss(memory, setup)
    }

    /// What the ring was made of.
    #[must_use]
    pub const fn setup(&self) -> &RingSetup {
        either!(self, ring => ring.setup())
    }

    /// The translation that the next chain waits for: a walk came to
    /// [`Untranslated`](ChainError::Untranslated), and there was neither another memory nor an
    /// [answer](Self::answer) since.
    #[must_use]
    pub const fn awaited(&self) -> Option<Miss> {
        either!(self, ring => ring.translator()).awaited()
    }

    /// The first translation that one of the chains in the ring lacks, of as many as fit into
    /// `buffers`, whether or not the ring waits for it already. None that was refused, nor any
    /// behind it. `buffers` and `segments` are scratch.
    pub fn miss_ahead<const WRITE: bool>(
        &mut self,
        buffers: &mut Buffers,
        segments: &mut Vec<RawSegment>,
    ) -> Option<Miss> {
        let awaited = self.awaited();
        // A ring that makes no sense is found out when it is used.
        if awaited.is_some() || self.fetch::<WRITE>(MAX_BUFFERS, buffers).is_err() {
            return awaited;
        }
        let refused = either!(self, ring => ring.translator()).refused();
        // What it is that was refused is to be seen.
        either!(self, ring => ring.translator_mut()).ahead(None, None);
        let apart = buffers.as_slice().iter().filter(|buffer| buffer.single().is_none());
        let missing = apart.into_iter().any(|buffer| {
            self.walk::<WRITE>(buffer.chain(), segments) == Err(ChainError::Untranslated)
        });
        let found = either!(self, ring => ring.translator_mut()).ahead(None, refused);
        found.filter(|_| missing)
    }

    /// Notes that nothing will come of a translation that was asked for: the chain is bad that needs
    /// it.
    pub fn answer(&mut self, miss: Miss) {
        either!(self, ring => ring.translator_mut()).answer(miss);
    }

    /// Logs all that is written to the guest's memory from now on, and the ring as it is; or logs
    /// nothing any more.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        either!(self, ring => ring.set_log(log));
    }

    /// Logs, where writes are logged, that the first `len` bytes of `segments` were written.
    #[inline]
    pub fn log_written(&mut self, segments: &[RawSegment], len: usize) {
        either!(self, ring => ring.log_pieces(front(segments, len)));
    }

    /// Where another device, or this one later, has to go on; see [`RingSetup::base`].
    #[must_use]
    pub fn base(&self) -> u32 {
        either!(self, ring => ring.base())
    }

    /// As [`base`](Self::base) for a device that is to take the `count` chains again that were
    /// taken last: all those that were not given back yet, when chains go back in order.
    #[must_use]
    pub fn base_without(&self, count: usize) -> u32 {
        match self {
            Self::Split(ring) => ring.base_without(u16::try_from(count).unwrap_or(u16::MAX)),
            Self::Packed(ring) => ring.base_of_used(),
        }
    }

    /// Whether a device that starts with a new ring, at index 0, fits this one.
    #[must_use]
    pub fn is_new(memory: &GuestMemory, setup: &RingSetup) -> bool {
        if setup.features.contains(Features::RING_PACKED) {
            PackedQueue::is_new(setup)
        } else {
            SplitQueue::is_new(memory, setup)
        }
    }

    /// Looks whether a ring can go on at the base in `setup`, for a device that uses chains in
    /// order: whoever tells it may not know where a device was that got killed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn check_base(memory: &GuestMemory, setup: &RingSetup) -> Result<BaseCheck, SetupError> {
        if setup.features.contains(Features::RING_PACKED) {
            PackedQueue::check_base(memory, setup)
        } else {
            SplitQueue::check_base(memory, setup)
        }
    }

    /// Where the three parts of a ring lie that is to start. They are valid for as long as somebody
    /// holds `memory`.
    ///
    /// # Errors
    /// When the size of a split ring is not allowed, or a part does not lie in `memory`.
    pub fn parts(memory: &GuestMemory, setup: &RingSetup) -> Result<[RawSegment; 3], SetupError> {
        let find = |part: RingPart| {
            // At most 16 bytes for each of 65,535 entries.
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            part.find(memory).map(|start| RawSegment::new(start, len))
        };
        let [desc, avail, used] = RingPart::all(setup)?;
        Ok([find(desc)?, find(avail)?, find(used)?])
    }

    /// How many buffers the driver has offered that were not taken yet: chains of a split ring,
    /// descriptors of a packed one; 0 of a ring that makes no sense.
    #[must_use]
    pub fn depth(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.available().unwrap_or_default(),
            Self::Packed(ring) => ring.depth(),
        }
    }

    /// Takes up to `max` chains that the device is to read (`WRITE` false) or write into
    /// `buffers`, and asks for their memory to be brought into the cache. The chains stay in
    /// the ring until [`advance`](Self::advance).
    ///
    /// # Errors
    /// When the ring is broken.
    #[inline]
    pub fn fetch<const WRITE: bool>(
        &mut self,
        max: usize,
        buffers: &mut Buffers,
    ) -> Result<(), RingError> {
        either!(self, ring => ring.fetch::<WRITE>(max, buffers))
    }

    /// Takes the first `count` of the fetched chains out of the ring for good.
    #[inline]
    pub fn advance(&mut self, buffers: &Buffers, count: usize) {
        either!(self, ring => ring.advance(buffers, count));
    }

    /// Gives chains back to the driver, all at once, each with the number of bytes written into
    /// it.
    #[inline]
    pub fn complete(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        either!(self, ring => ring.complete(used));
    }

    /// Gives the first `count` of `buffers` back to the driver, all at once, each with the number
    /// of bytes [written](super::Buffer::set_written) into it. Where writes are logged, those into
    /// chains of several descriptors must have been [logged](Self::log_written) before.
    #[inline]
    pub fn complete_written(&mut self, buffers: &Buffers, count: usize) {
        if either!(self, ring => ring.is_logged()) {
            self.log_buffers(buffers, count);
        }
        either!(self, ring => ring.complete_written(buffers, count));
    }

    #[cold]
    #[inline(never)]
    fn log_buffers(&mut self, buffers: &Buffers, count: usize) {
        let written = buffers.as_slice().iter().take(count).filter_map(Buffer::written);
        either!(self, ring => ring.log_pieces(written));
    }

    /// Gives the first `count` of `buffers`, which the device has only read, back to the driver,
    /// all at once.
    #[inline]
    pub fn complete_read(&mut self, buffers: &Buffers, count: usize) {
        either!(self, ring => ring.complete_read(buffers, count));
    }

    /// Whether the driver wants to hear of the chains given back since the last call.
    #[inline]
    #[must_use]
    pub fn needs_call(&mut self) -> bool {
        either!(self, ring => ring.needs_call())
    }

    /// Asks the driver for a notification with the next chain, and returns `false` if chains
    /// are waiting already (or the ring is broken), in which case none may come.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        either!(self, ring => ring.arm())
    }

    /// Tells the driver that the ring is polled.
    pub fn disarm(&mut self) {
        either!(self, ring => ring.disarm());
    }

    /// Collects the memory of a fetched chain, all of it for reading (`WRITE` false) or for
    /// writing, into `segments`, in order. It is valid for as long as this queue keeps its memory
    /// table.
    ///
    /// # Errors
    /// When the chain breaks a rule; `segments` is of no use then.
    #[inline(never)]
    pub fn walk<const WRITE: bool>(
        &mut self,
        chain: Chain,
        segments: &mut Vec<RawSegment>,
    ) -> Result<(), ChainError> {
        segments.clear();
        let visit = |segment, writable| {
            if writable != WRITE {
                return Err(ChainError::WrongDirection);
            }
            push(segments, segment)
        };
        let tables = if WRITE { ChainWalk::Sequential } else { ChainWalk::SequentialRead };
        self.follow(chain, tables, visit)
    }

    /// The memory of the indirect table that [`walk`](Self::walk) reads for a fetched chain, if it
    /// reads one; for those who must know before whether they may read it. The driver may change
    /// the chain in between.
    #[must_use]
    pub fn indirect_table(&mut self, chain: Chain) -> Option<RawSegment> {
        either!(self, ring => ring.indirect_table(chain))
    }

    fn follow(
        &mut self,
        chain: Chain,
        packed_tables: ChainWalk,
        visit: impl FnMut(RawSegment, bool) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        match self {
            Self::Split(ring) => ring.follow(chain, visit),
            Self::Packed(ring) => ring.follow(chain, packed_tables, visit),
        }
    }

    /// Collects the memory of a request: buffers to read, and behind them buffers to write the
    /// answer to (virtio 1.3 section 2.7.4.2). Both are valid for as long as this queue keeps its
    /// memory table.
    ///
    /// # Errors
    /// When the chain breaks a rule; the two vectors are of no use then.
    pub fn walk_request(
        &mut self,
        chain: Chain,
        request: &mut Vec<RawSegment>,
        answer: &mut Vec<RawSegment>,
    ) -> Result<(), ChainError> {
        request.clear();
        answer.clear();
        let visit = |segment, writable| match (writable, answer.is_empty()) {
            (true, _) => push(answer, segment),
            (false, true) => push(request, segment),
            (false, false) => Err(ChainError::WrongDirection),
        };
        self.follow(chain, ChainWalk::Sequential, visit)
    }
}

fn push(segments: &mut Vec<RawSegment>, segment: RawSegment) -> Result<(), ChainError> {
    if segments.len() >= MAX_CHAIN {
        return Err(ChainError::TooLong);
    }
    segments.push(segment);
    Ok(())
}
