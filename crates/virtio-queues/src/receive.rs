//! The receive side: a ring full of empty buffers, and the frames that come in them.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::dma::DmaBacking;
use ethdev::queue::copy_packets;
use ethdev::{DropReason, QueueStats, RxDriver};
use packet::frame::{HEAD_CAPACITY, HEAD_LEN};
use packet::prefetch::prefetch_read;
use packet::{
    BURST, Capabilities, ETHERNET_HEADER_LEN, FrameBatch, Packet, Pool, PoolCache, RawSegment,
};
use virtio::driver::{Buffer, DriverQueue, DriverRing, RingError};
use virtio::{NET_HEADER_LEN, NetHeader};

use super::kick::Kick;
use super::lane::{Lane, Ring};
use super::memory::Slots;
use super::store::{PacketStore, Span, Store};

/// Most buffers that one frame may span: 64 KiB take 31.
const MAX_MERGED: usize = 64;

/// Bytes of `num_buffers`, the last field of the net header.
const NUM_BUFFERS_LEN: usize = 2;

/// The ring of one session. Descriptor `n` always has buffer `n`, so once it is filled no
/// descriptor is ever written again, but for packets that were given away.
#[derive(Debug)]
pub struct RxRing {
    queue: DriverQueue,
    buffers: Kind,
    fault: Option<RingError>,
    hold: Hold,
}

/// What was negotiated, as far as receiving goes.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// Bytes of the net header.
    pub header: usize,
    /// MRG_RXBUF was negotiated.
    pub mergeable: bool,
    /// What the device may leave to us.
    pub offloads: Capabilities,
}

/// The buffers of a ring, of either kind.
#[derive(Debug)]
enum Kind {
    Slots(Buffers<Slots>),
    Packets(Box<Buffers<PacketStore>>),
}

/// What goes with the queue, of whatever format that is: code that works on bursts is made for
/// each, and for each kind of buffers, so that the choice costs two branches for a burst.
#[derive(Debug)]
struct Buffers<S> {
    store: S,
    agreed: Agreed,
    kick: Kick,
}

/// Keeps the ring and its buffers mapped.
#[derive(Clone, Debug)]
struct Hold {
    memory: Arc<DmaBacking>,
    _pool: Option<Pool>,
}

impl Hold {
    /// Whether this is of the same session.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }
}

/// Calls a method of the buffers with the queue, made for the kind of both.
macro_rules! dispatch {
    ($ring:expr, $method:ident($($argument:expr),*)) => {
        match (&mut $ring.queue, &mut $ring.buffers) {
            (DriverQueue::Split(queue), Kind::Slots(buffers)) => {
                buffers.$method(queue, $($argument),*)
            }
            (DriverQueue::Packed(queue), Kind::Slots(buffers)) => {
                buffers.$method(queue, $($argument),*)
            }
            (DriverQueue::Split(queue), Kind::Packets(buffers)) => {
                buffers.$method(queue, $($argument),*)
            }
            (DriverQueue::Packed(queue), Kind::Packets(buffers)) => {
                buffers.$method(queue, $($argument),*)
            }
        }
    };
}

impl Ring for RxRing {
    fn fault(&self) -> Option<RingError> {
        self.fault
    }
}

impl RxRing {
    /// Fills the ring with a buffer per slot.
    pub fn new(queue: impl Into<DriverQueue>, slots: Slots, agreed: Agreed, kick: Kick) -> Self {
        let mut queue = queue.into();
        let hold = Hold { memory: Arc::clone(slots.backing()), _pool: None };
        let mut buffers = Buffers { store: slots, agreed, kick };
        buffers.offer(&mut queue);
        Self { queue, buffers: Kind::Slots(buffers), fault: None, hold }
    }

    /// As [`new`](Self::new), with packets, which are given away when asked for. `memory` is that
    /// of the session.
    pub fn with_packets(
        queue: impl Into<DriverQueue>,
        packets: PacketStore,
        agreed: Agreed,
        kick: Kick,
        memory: Arc<DmaBacking>,
    ) -> Self {
        let mut queue = queue.into();
        let hold = Hold { memory, _pool: Some(packets.pool().clone()) };
        let mut buffers = Box::new(Buffers { store: packets, agreed, kick });
        buffers.offer(&mut queue);
        Self { queue, buffers: Kind::Packets(buffers), fault: None, hold }
    }

    /// Has the device notified in another way from now on; it is once, as what was signalled in
    /// the old way may be lost.
    pub fn set_kick(&mut self, kick: Kick) {
        match &mut self.buffers {
            Kind::Slots(buffers) => buffers.kick = kick,
            Kind::Packets(buffers) => buffers.kick = kick,
        }
        self.kick();
    }

    /// Sends the kick that a device may expect after its start.
    pub fn kick(&self) {
        let kick = match &self.buffers {
            Kind::Slots(buffers) => &buffers.kick,
            Kind::Packets(buffers) => &buffers.kick,
        };
        kick.signal(self.queue.position());
    }

    /// The queue, for its addresses.
    pub const fn queue(&self) -> &DriverQueue {
        &self.queue
    }

    /// Gives buffers back to the device.
    #[inline]
    fn repay(&mut self, owed: &mut Vec<u16>) {
        dispatch!(self, repay(owed));
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
        dispatch!(self, fill(max, batch, owed, stats))
    }

    /// Makes packets of the frames of the burst, whose buffers are `owed`, where they lie in
    /// such. Returns whether they do.
    #[inline]
    fn give(
        &mut self,
        batch: &FrameBatch,
        owed: &[u16],
        packets: &mut ArrayVec<Packet, BURST>,
        stats: &QueueStats,
    ) -> bool {
        match (&mut self.queue, &mut self.buffers) {
            (_, Kind::Slots(_)) => return false,
            (DriverQueue::Split(queue), Kind::Packets(buffers)) => {
                buffers.give(queue, batch, owed, packets, stats);
            }
            (DriverQueue::Packed(queue), Kind::Packets(buffers)) => {
                buffers.give(queue, batch, owed, packets, stats);
            }
        }
        true
    }
}

impl Buffers<PacketStore> {
    fn give(
        &mut self,
        queue: &mut impl DriverRing,
        batch: &FrameBatch,
        owed: &[u16],
        packets: &mut ArrayVec<Packet, BURST>,
        stats: &QueueStats,
    ) {
        let mut missed = 0;
        for (index, frame) in batch.frames().iter().enumerate() {
            let given = if packets.is_full() {
                None
            } else {
                self.store.give(queue, frame, index, owed, self.agreed.header)
            };
            match given {
                Some(packet) => packets.push(packet),
                None => missed += 1,
            }
        }
        if missed > 0 {
            stats.count_drops(DropReason::NoBuffer, missed);
        }
    }
}

impl<S: Store> Buffers<S> {
    /// Fills the ring.
    fn offer(&mut self, queue: &mut DriverQueue) {
        while let Some(id) = queue.reserve() {
            let Some(buffer) = self.store.buffer(id, self.agreed.header) else { break };
            queue.set(id, Buffer::writable(buffer));
            queue.post(id);
        }
        // The device does not look yet: it is started and then kicked, whatever it wishes.
        let _ = queue.publish();
    }

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
        &mut self,
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
        self.store.begin();
        // Where the buffers of the next frame are among those that are owed.
        let mut at = owed.len();
        // First touch all of them, so that the cache misses overlap.
        let mut taken = ArrayVec::<Taken, BURST>::new();
        for _ in 0..count.min(BURST) {
            let Some(next) = self.next(queue, owed)? else { break };
            if self.agreed.mergeable {
                prefetch_read(next.frame.as_ptr().wrapping_sub(self.agreed.header));
            }
            prefetch_read(next.frame.as_ptr());
            taken.push(next);
        }
        let mut taken = taken.into_iter();
        while let Some(first) = taken.next() {
            let (pushed, count) = match self.num_buffers(first) {
                0 | 1 => (self.push(first, batch), 1),
                many => self.push_merged(queue, first, many, &mut taken, batch, owed)?,
            };
            match pushed {
                Ok(()) => self.store.note(Span { first: at, count }),
                Err(reason) => stats.count_drops(reason, 1),
            }
            at += count;
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
        // There is a buffer for every descriptor that was posted, so this is never `None`.
        Ok(self.store.frame(used.head).map(|frame| Taken { frame, len: used.len }))
    }

    /// The number of buffers that the frame in `first` spans, read once.
    #[inline]
    fn num_buffers(&self, first: Taken) -> u16 {
        if !self.agreed.mergeable {
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
        let frame = used.first(self.agreed.header).ok_or(DropReason::TooShort)?;
        if frame.len() < ETHERNET_HEADER_LEN {
            return Err(DropReason::TooShort);
        }
        if !self.is_plain(used) {
            return self.push_offloaded(used, &[frame], batch);
        }
        // SAFETY: the device has used the buffer, and gets it back with the next `repay`, before
        // which the receiver clears its batch. The receiver keeps its memory until then, too.
        let pushed = unsafe { self.store.push(frame, batch) };
        if pushed { Ok(()) } else { Err(DropReason::NoBuffer) }
    }

    /// Whether the net header of the frame in `first` says nothing about it. Where nothing was
    /// negotiated that it could say it is not looked at.
    #[inline]
    fn is_plain(&self, first: Taken) -> bool {
        if self.agreed.offloads.is_empty() {
            return true;
        }
        // SAFETY: the net header lies in front of the frame in its slot. The device may write it
        // meanwhile, hence volatile; whatever it says is checked.
        let said = unsafe { first.frame.sub(self.agreed.header).cast::<[u8; 2]>().read_volatile() };
        said == [0, 0]
    }

    /// Adds a frame about which its net header says something.
    #[inline(never)]
    fn push_offloaded(
        &self,
        first: Taken,
        segments: &[RawSegment],
        batch: &mut FrameBatch,
    ) -> Result<(), DropReason> {
        let mut header = [0; NET_HEADER_LEN];
        let header_len = self.agreed.header.min(NET_HEADER_LEN);
        // SAFETY: as in `is_plain`; the header has `header_len` bytes, and so has the copy. `copy`
        // is as good as volatile here, since only what was copied is looked at.
        unsafe {
            let from = first.frame.sub(header_len).as_ptr();
            std::ptr::copy(from, header.as_mut_ptr(), header_len);
        }
        let request = NetHeader::decode(header).request().ok_or(DropReason::BadHeader)?;
        // SAFETY: as in `push`.
        if !unsafe { self.store.push_chain(segments, HEAD_CAPACITY, batch) } {
            return Err(DropReason::TooLong);
        }
        batch.set_offload(&request, self.agreed.offloads).map_err(|_| DropReason::BadHeader)
    }

    /// Adds a frame that spans `count` buffers: the rest of its buffers are next in the used
    /// ring, in `taken` and behind it (virtio 1.3 section 5.1.6.4). Returns how many there were.
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
    ) -> Result<(Result<(), DropReason>, usize), RingError> {
        let header = self.agreed.header;
        let mut segments = ArrayVec::<RawSegment, MAX_MERGED>::new();
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
            let Some(used) = used else {
                return Ok((Err(DropReason::BadHeader), index.into()));
            };
            let segment = if index == 0 { used.first(header) } else { used.further(header) };
            whole &= segment.is_some_and(|segment| segments.try_push(segment).is_ok());
        }
        let pushed = if whole {
            self.push_segments(first, &segments, batch)
        } else {
            Err(DropReason::BadHeader)
        };
        Ok((pushed, count.into()))
    }

    /// Adds a frame in several pieces.
    fn push_segments(
        &self,
        first: Taken,
        segments: &[RawSegment],
        batch: &mut FrameBatch,
    ) -> Result<(), DropReason> {
        if segments.iter().map(RawSegment::len).sum::<usize>() < ETHERNET_HEADER_LEN {
            return Err(DropReason::TooShort);
        }
        if !self.is_plain(first) {
            return self.push_offloaded(first, segments, batch);
        }
        // SAFETY: as in `push`.
        let pushed = unsafe { self.store.push_chain(segments, HEAD_LEN, batch) };
        if pushed { Ok(()) } else { Err(DropReason::TooLong) }
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
    fn first(self, header: usize) -> Option<RawSegment> {
        let len = u32::try_from((self.len as usize).checked_sub(header)?).ok()?;
        Some(RawSegment::new(self.frame, len))
    }

    /// The part of a frame that lies in a further buffer, which has no header.
    #[inline]
    fn further(self, header: usize) -> Option<RawSegment> {
        // SAFETY: the buffer starts `header` bytes in front of the frame.
        let start = unsafe { self.frame.sub(header) };
        Some(RawSegment::new(start, self.len))
    }
}

/// The receive queue that a worker polls.
#[derive(Debug)]
pub struct Receiver {
    lane: Arc<Lane<RxRing>>,
    batch: FrameBatch,
    /// Buffers that go back to the device with the next release. No longer than the ring.
    owed: Vec<u16>,
    /// Where the batch's frames lie and what `owed` belongs to, even when the session is over.
    hold: Option<Hold>,
    /// Rings of this port have packets.
    gives_packets: bool,
}

impl Receiver {
    /// The queue of `lane`, whose rings have `queue_size` entries at most.
    #[must_use]
    pub fn new(lane: Arc<Lane<RxRing>>, queue_size: u16, gives_packets: bool) -> Self {
        let size = usize::from(queue_size);
        let batch = FrameBatch::with_segments(size);
        Self { lane, batch, owed: Vec::with_capacity(size), hold: None, gives_packets }
    }

    /// Makes the ring the one that this queue polls; what was owed to another is forgotten.
    #[inline]
    fn adopt(hold: &mut Option<Hold>, owed: &mut Vec<u16>, ring: &RxRing) {
        if hold.as_ref().is_none_or(|hold| !hold.is_same(&ring.hold)) {
            owed.clear();
            *hold = Some(ring.hold.clone());
        }
    }

    /// Takes the frames of the burst out of the ring as packets; `false` where that cannot be.
    #[inline]
    fn give(&mut self, packets: &mut ArrayVec<Packet, BURST>, stats: &QueueStats) -> bool {
        let Self { lane, batch, owed, hold, .. } = self;
        let Some(mut guard) = lane.ring.try_lock() else { return false };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return false };
        // The ring that the frames came from, and no later one.
        if hold.as_ref().is_none_or(|hold| !hold.is_same(&ring.hold)) {
            return false;
        }
        if !ring.give(batch, owed, packets, stats) {
            return false;
        }
        batch.clear();
        ring.repay(owed);
        true
    }
}

impl RxDriver for Receiver {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        let Self { lane, batch, owed, hold, .. } = self;
        batch.clear();
        let Some(mut guard) = lane.ring.try_lock() else { return };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return };
        Self::adopt(hold, owed, ring);
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
        let Self { lane, batch, owed, hold, .. } = self;
        batch.clear();
        // Should the port's thread have the ring just now, the next burst repays.
        let Some(mut guard) = lane.ring.try_lock() else { return };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return };
        Self::adopt(hold, owed, ring);
        ring.repay(owed);
    }

    fn gives_packets(&self) -> bool {
        self.gives_packets
    }

    fn take_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        if !self.give(packets, stats) {
            // There is no such ring any more, or the port's thread has it just now.
            copy_packets(self.batch.frames(), packets, cache, stats);
            self.release();
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.lane.call.as_fd())
    }

    fn arm(&mut self) -> bool {
        let Self { lane, owed, hold, .. } = self;
        if !lane.can_sleep() {
            return false;
        }
        let Some(mut guard) = lane.ring.try_lock() else { return false };
        // Without a ring there is nothing to announce until `Lane::install` does.
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else { return true };
        // No buffer may stay behind while the worker sleeps: the device may wait for it.
        Self::adopt(hold, owed, ring);
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
