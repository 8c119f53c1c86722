//! The receive side: a ring full of empty buffers, and the frames that come in them.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats, RxDriver};
use packet::frame::HEAD_CAPACITY;
use packet::prefetch::prefetch_read;
use packet::{BURST, Capabilities, FrameBatch, Segment};
use virtio::driver::{Buffer, DriverQueue, DriverRing, RingError};
use virtio::{NET_HEADER_LEN, NetHeader};

use super::kick::Kick;
use super::lane::{Lane, Ring};
use super::memory::{RingMemory, Slots};

/// Shortest frame: an Ethernet header.
const MIN_FRAME: usize = 14;

/// Most buffers that one frame may span: 64 KiB take 31.
const MAX_MERGED: usize = 64;

/// Bytes of `num_buffers`, the last field of the net header.
const NUM_BUFFERS_LEN: usize = 2;

/// The ring of one session. Descriptor `n` always has slot `n`, so once it is filled no
/// descriptor is ever written again.
#[derive(Debug)]
pub(crate) struct RxRing {
    queue: DriverQueue,
    buffers: Buffers,
    fault: Option<RingError>,
    /// Keeps `queue` and the slots mapped.
    memory: Arc<RingMemory>,
}

/// What goes with the queue, of whatever format that is: code that works on bursts is made for
/// each, so that the choice costs one branch for a burst.
#[derive(Debug)]
struct Buffers {
    slots: Slots,
    /// Bytes of the net header.
    header: usize,
    /// MRG_RXBUF was negotiated.
    mergeable: bool,
    /// What the device may leave to us.
    offloads: Capabilities,
    kick: Kick,
}

impl Ring for RxRing {
    fn fault(&self) -> Option<RingError> {
        self.fault
    }
}

impl RxRing {
    /// Fills the ring with a buffer per slot. `queue` and `slots` must lie in `memory`.
    pub(crate) fn new(
        queue: impl Into<DriverQueue>,
        slots: Slots,
        header: usize,
        mergeable: bool,
        offloads: Capabilities,
        kick: Kick,
        memory: Arc<RingMemory>,
    ) -> Self {
        let mut queue = queue.into();
        while let Some(id) = queue.reserve() {
            let Some(buffer) = slots.part(id, header, header + slots.room()) else { break };
            queue.set(id, Buffer::writable(buffer));
            queue.post(id);
        }
        // The device does not look yet: it is started and then kicked, whatever it wishes.
        let _ = queue.publish();
        let buffers = Buffers { slots, header, mergeable, offloads, kick };
        Self { queue, buffers, fault: None, memory }
    }

    /// Has the device notified in another way from now on; it is once, as what was signalled in
    /// the old way may be lost.
    pub(crate) fn set_kick(&mut self, kick: Kick) {
        self.buffers.kick = kick;
        self.kick();
    }

    /// Sends the kick that a device may expect after its start.
    pub(crate) fn kick(&self) {
        self.buffers.kick.signal(self.queue.position());
    }

    /// The queue, for its addresses.
    pub(crate) const fn queue(&self) -> &DriverQueue {
        &self.queue
    }

    /// Gives buffers back to the device.
    #[inline]
    fn repay(&mut self, owed: &mut Vec<u16>) {
        match &mut self.queue {
            DriverQueue::Split(queue) => self.buffers.repay(queue, owed),
            DriverQueue::Packed(queue) => self.buffers.repay(queue, owed),
        }
    }

    /// Takes up to `max` frames. The buffers that were used, those of bad frames too, go to
    /// `owed`.
    #[inline]
    fn fill(
        &mut self,
        max: usize,
        batch: &mut FrameBatch,
        owed: &mut Vec<u16>,
        stats: &QueueStats,
    ) -> Result<(), RingError> {
        match &mut self.queue {
            DriverQueue::Split(queue) => self.buffers.fill(queue, max, batch, owed, stats),
            DriverQueue::Packed(queue) => self.buffers.fill(queue, max, batch, owed, stats),
        }
    }
}

impl Buffers {
    #[inline]
    fn repay(&self, queue: &mut impl DriverRing, owed: &mut Vec<u16>) {
        for id in owed.drain(..) {
            queue.post(id);
        }
        if queue.publish() {
            self.kick.signal(queue.position());
        }
    }

    #[inline]
    fn fill(
        &self,
        queue: &mut impl DriverRing,
        max: usize,
        batch: &mut FrameBatch,
        owed: &mut Vec<u16>,
        stats: &QueueStats,
    ) -> Result<(), RingError> {
        let count = usize::from(queue.poll_used()?).min(max);
        if count == 0 {
            return Ok(());
        }
        // First touch all of them, so that the cache misses overlap.
        let mut taken = ArrayVec::<Taken, BURST>::new();
        for _ in 0..count.min(BURST) {
            let Some(next) = self.next(queue, owed)? else { break };
            if self.mergeable {
                prefetch_read(next.frame.as_ptr().wrapping_sub(self.header));
            }
            prefetch_read(next.frame.as_ptr());
            taken.push(next);
        }
        let mut taken = taken.into_iter();
        while let Some(first) = taken.next() {
            let pushed = match self.num_buffers(first) {
                0 | 1 => self.push(first, batch),
                many => self.push_merged(queue, first, many, &mut taken, batch, owed)?,
            };
            if let Err(reason) = pushed {
                stats.count_drops(reason, 1);
            }
        }
        Ok(())
    }

    /// The next buffer that the device has used.
    #[inline]
    fn next(
        &self,
        queue: &mut impl DriverRing,
        owed: &mut Vec<u16>,
    ) -> Result<Option<Taken>, RingError> {
        let Some(used) = queue.next_used()? else { return Ok(None) };
        owed.push(used.head);
        // There is a slot for every descriptor, so this is never `None`.
        Ok(self.slots.frame(used.head).map(|frame| Taken { frame, len: used.len }))
    }

    /// The number of buffers that the frame in `first` spans, read once.
    #[inline]
    fn num_buffers(&self, first: Taken) -> u16 {
        if !self.mergeable {
            return 1;
        }
        // SAFETY: with mergeable buffers the header has 12 bytes, which lie in front of the frame
        // in its slot, and the field is the last of them. The device may write it meanwhile,
        // hence volatile; any value will do.
        unsafe { first.frame.sub(NUM_BUFFERS_LEN).cast::<u16>().read_volatile() }
    }

    #[allow(clippy::inline_always, reason = "once per frame, and called in two places")]
    #[inline(always)]
    fn push(&self, used: Taken, batch: &mut FrameBatch) -> Result<(), DropReason> {
        let frame = used.first(self.header).ok_or(DropReason::TooShort)?;
        if frame.len() < MIN_FRAME {
            return Err(DropReason::TooShort);
        }
        if !self.is_plain(used) {
            return self.push_offloaded(used, &[frame], batch);
        }
        // SAFETY: as for the segment.
        let pushed = unsafe { batch.push_shared(frame) };
        if pushed { Ok(()) } else { Err(DropReason::NoBuffer) }
    }

    /// Whether the net header of the frame in `first` says nothing about it. Where nothing was
    /// negotiated that it could say it is not looked at.
    #[inline]
    fn is_plain(&self, first: Taken) -> bool {
        if self.offloads.is_empty() {
            return true;
        }
        // SAFETY: the net header lies in front of the frame in its slot. The device may write it
        // meanwhile, hence volatile; whatever it says is checked.
        let said = unsafe { first.frame.sub(self.header).cast::<[u8; 2]>().read_volatile() };
        said == [0, 0]
    }

    /// Adds a frame about which its net header says something.
    #[inline(never)]
    fn push_offloaded(
        &self,
        first: Taken,
        segments: &[Segment],
        batch: &mut FrameBatch,
    ) -> Result<(), DropReason> {
        let mut header = [0; NET_HEADER_LEN];
        let header_len = self.header.min(NET_HEADER_LEN);
        // SAFETY: as in `is_plain`; the header has `header_len` bytes, and so has the copy. `copy`
        // is as good as volatile here, since only what was copied is looked at.
        unsafe {
            let from = first.frame.sub(header_len).as_ptr();
            std::ptr::copy(from, header.as_mut_ptr(), header_len);
        }
        let request = NetHeader::decode(header).request().ok_or(DropReason::BadHeader)?;
        // SAFETY: as for the segments.
        if !unsafe { batch.push_shared_with_head(segments, HEAD_CAPACITY) } {
            return Err(DropReason::TooLong);
        }
        batch.set_offload(&request, self.offloads).map_err(|_| DropReason::BadHeader)
    }

    /// Adds a frame that spans `count` buffers: the rest of its buffers are next in the used
    /// ring, in `taken` and behind it (virtio 1.3 section 5.1.6.4).
    #[cold]
    #[inline(never)]
    fn push_merged(
        &self,
        queue: &mut impl DriverRing,
        first: Taken,
        count: u16,
        taken: &mut impl Iterator<Item = Taken>,
        batch: &mut FrameBatch,
        owed: &mut Vec<u16>,
    ) -> Result<Result<(), DropReason>, RingError> {
        let mut segments = ArrayVec::<Segment, MAX_MERGED>::new();
        let mut whole = true;
        for index in 0..count {
            let used = match index {
                0 => Some(first),
                _ => match taken.next() {
                    Some(used) => Some(used),
                    None => self.next(queue, owed)?,
                },
            };
            // The device makes all buffers of a frame visible at once, so this is no frame.
            let Some(used) = used else { return Ok(Err(DropReason::BadHeader)) };
            let segment =
                if index == 0 { used.first(self.header) } else { used.further(self.header) };
            whole &= segment.is_some_and(|segment| segments.try_push(segment).is_ok());
        }
        if !whole {
            return Ok(Err(DropReason::BadHeader));
        }
        if segments.iter().map(Segment::len).sum::<usize>() < MIN_FRAME {
            return Ok(Err(DropReason::TooShort));
        }
        if !self.is_plain(first) {
            return Ok(self.push_offloaded(first, &segments, batch));
        }
        // SAFETY: as for the segments.
        let pushed = unsafe { batch.push_shared_chain(&segments) };
        Ok(if pushed { Ok(()) } else { Err(DropReason::TooLong) })
    }
}

/// A buffer that the device has used.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// Where a frame starts in its slot.
    frame: NonNull<u8>,
    /// Bytes that the device wrote, net header included; the queue made sure that the buffer has
    /// room for them.
    len: u32,
}

impl Taken {
    /// The part of a frame that lies in its first buffer, behind the net header.
    #[inline]
    fn first(self, header: usize) -> Option<Segment> {
        let len = u32::try_from((self.len as usize).checked_sub(header)?).ok()?;
        // SAFETY: the buffer starts with the header and ends with the slot's room, `len` bytes of
        // which follow; the receiver keeps its memory for as long as its batch has frames there.
        Some(unsafe { Segment::new(self.frame, len) })
    }

    /// The part of a frame that lies in a further buffer, which has no header.
    #[inline]
    fn further(self, header: usize) -> Option<Segment> {
        // SAFETY: the buffer starts `header` bytes in front of the frame, and has `len` bytes.
        Some(unsafe { Segment::new(self.frame.sub(header), self.len) })
    }
}

/// The receive queue that a worker polls.
#[derive(Debug)]
pub(crate) struct Receiver {
    lane: Arc<Lane<RxRing>>,
    batch: FrameBatch,
    /// Buffers that go back to the device with the next release. No longer than the ring.
    owed: Vec<u16>,
    /// Where the batch's frames lie and what `owed` belongs to, even when the session is over.
    memory: Option<Arc<RingMemory>>,
}

impl Receiver {
    pub(crate) fn new(lane: Arc<Lane<RxRing>>, queue_size: u16) -> Self {
        let size = usize::from(queue_size);
        let batch = FrameBatch::with_segments(size);
        Self { lane, batch, owed: Vec::with_capacity(size), memory: None }
    }

    /// Makes the ring the one that this queue polls; what was owed to another is forgotten.
    #[inline]
    fn adopt(memory: &mut Option<Arc<RingMemory>>, owed: &mut Vec<u16>, ring: &RxRing) {
        if memory.as_ref().is_none_or(|memory| !Arc::ptr_eq(memory, &ring.memory)) {
            owed.clear();
            *memory = Some(Arc::clone(&ring.memory));
        }
    }
}

impl RxDriver for Receiver {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        let Self { lane, batch, owed, memory } = self;
        batch.clear();
        let Some(mut guard) = lane.ring.try_lock() else { return };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return };
        Self::adopt(memory, owed, ring);
        if !owed.is_empty() {
            ring.repay(owed);
        }
        if let Err(error) = ring.fill(max, batch, owed, stats) {
            ring.fault = Some(error);
            lane.report_fault();
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        let Self { lane, batch, owed, memory } = self;
        batch.clear();
        // Should the port's thread have the ring just now, the next burst repays.
        let Some(mut guard) = lane.ring.try_lock() else { return };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return };
        Self::adopt(memory, owed, ring);
        ring.repay(owed);
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.lane.call.as_fd())
    }

    fn arm(&mut self) -> bool {
        let Self { lane, owed, memory, .. } = self;
        if !lane.can_sleep() {
            return false;
        }
        let Some(mut guard) = lane.ring.try_lock() else { return false };
        // Without a ring there is nothing to announce until `Lane::install` does.
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return true };
        // No buffer may stay behind while the worker sleeps: the device may wait for it.
        Self::adopt(memory, owed, ring);
        if self.batch.frames().is_empty() && !owed.is_empty() {
            ring.repay(owed);
        }
        ring.queue.enable_interrupts()
    }

    fn disarm(&mut self) {
        if let Some(mut guard) = self.lane.ring.try_lock()
            && let Some(ring) = guard.as_mut()
        {
            ring.queue.disable_interrupts();
        }
        let _ = self.lane.call.drain();
    }
}
