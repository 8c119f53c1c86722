//! The receive side: a ring full of packets of the queue's own pool, and the frames that come in
//! them.
//!
//! Frames are lent to the worker where they lie. When a burst is over their descriptors are
//! written anew; a worker that keeps them gets the packets themselves, and the ring gets others.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::handover::Loan;
use eal::{Counter, DmaSpace};
use ethdev::{DropReason, QueueStats, RxDriver};
use packet::pool::{CACHE_SIZE, DATA_ROOM};
use packet::prefetch::prefetch_read;
use packet::{
    BURST, ETHERNET_HEADER_LEN, FrameBatch, Offload, Packet, Pool, PoolCache, RawSegment,
};

use super::descriptors::{DescriptorRing, Received, empty_buffer};
use super::hardware::{Hardware, HardwareError};
use super::lane::Lane;
use super::registers::{Registers, RxRegisters, dctl, srrctl};

/// Most buffers of one frame. The longest, 9.5 KiB, takes 5.
const MAX_CHAIN: usize = 8;

/// Returned descriptors are announced to the device when there are this many, a quarter of the
/// shortest ring: writing its register costs more than all the rest.
const ANNOUNCE: u16 = 32;

/// Bytes of a frame that a buffer holds, in the device's unit.
const BUFFER_KIB: u32 = 2;

const _: () = assert!(DATA_ROOM == (BUFFER_KIB as usize) << 10);

/// Packets that caches keep, and that others may have, besides those in the ring.
pub(super) const SPARE: u32 = 256;

const _: () = assert!(CACHE_SIZE == SPARE as usize);

/// Descriptors that the device fetches at once, and those that it writes back.
const THRESHOLDS: u32 = 8 | 8 << dctl::HTHRESH_SHIFT | 1 << dctl::WTHRESH_SHIFT;

/// What all receive queues of a port have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct RxConfig {
    /// The VLAN that received frames must have had.
    pub(super) access_vlan: Option<u16>,
    /// Whether there are other queues, which this one must not hold up.
    pub(super) drop_when_empty: bool,
}

/// The packet that a descriptor has.
#[derive(Debug)]
struct Slot {
    packet: Packet,
    /// Where the device finds its data.
    address: u64,
}

impl Slot {
    /// `None` for a packet that the device does not reach.
    #[inline]
    fn new(packet: Packet, space: &DmaSpace) -> Option<Self> {
        let address = packet.device_address(space)?;
        Some(Self { packet, address })
    }
}

/// The descriptors of one frame.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u16,
    count: u16,
}

/// One queue's ring. It gives its memory up when it is dropped, after it has stopped the queue.
#[derive(Debug)]
pub(super) struct RxRing<R: Registers> {
    hardware: Arc<Hardware<R>>,
    queue: u16,
    registers: RxRegisters,
    memory: ManuallyDrop<Memory>,
    access_vlan: Option<u16>,
    /// The descriptor that the device fills next.
    next: u16,
    /// Descriptors before that one which the device does not have.
    taken: u16,
    /// Descriptors that have been written anew without the device being told.
    unannounced: u16,
    /// A frame without end is being discarded.
    skipping: bool,
    /// The good frames of the burst.
    spans: ArrayVec<Span, BURST>,
    /// Frames with a wrong checksum, which are received all the same.
    bad_checksums: Arc<Counter>,
}

/// What the device accesses.
#[derive(Debug)]
struct Memory {
    ring: DescriptorRing,
    slots: Box<[Slot]>,
    cache: PoolCache,
    space: DmaSpace,
}

impl<R: Registers> RxRing<R> {
    /// Makes the ring of `queue` and starts it, without giving the device any buffer.
    ///
    /// # Errors
    /// When there is no memory for it, or the device does not start it; the error is the reason.
    pub(super) fn start(
        hardware: &Arc<Hardware<R>>,
        name: &str,
        queue: u16,
        ring: DescriptorRing,
        config: RxConfig,
        space: &DmaSpace,
    ) -> Result<Self, String> {
        let memory = Memory::allocate(name, ring, space)?;
        let ring = Self {
            hardware: Arc::clone(hardware),
            queue,
            registers: RxRegisters::of(queue),
            memory: ManuallyDrop::new(memory),
            access_vlan: config.access_vlan,
            next: 0,
            taken: 0,
            unannounced: 0,
            skipping: false,
            spans: ArrayVec::new(),
            bad_checksums: Arc::default(),
        };
        ring.set_up(config.drop_when_empty).map_err(|error| error.to_string())?;
        Ok(ring)
    }

    fn set_up(&self, drop_when_empty: bool) -> Result<(), HardwareError> {
        let (hardware, registers) = (&self.hardware, &self.registers);
        let ring = &self.memory.ring;
        let [low, high] = halves(ring.device_address());
        hardware.write(registers.rdbal, low);
        hardware.write(registers.rdbah, high);
        hardware.write(registers.rdlen, ring.bytes());
        let buffers = BUFFER_KIB | srrctl::DESCTYPE_ADVANCED;
        let drops = if drop_when_empty { srrctl::DROP_EN } else { 0 };
        hardware.write(registers.srrctl, buffers | drops);
        hardware.enable_queue(registers.rxdctl, THRESHOLDS)?;
        hardware.write(registers.rdh, 0);
        hardware.write(registers.rdt, 0);
        Ok(())
    }

    /// Gives the device all buffers but one, after receiving was switched on.
    pub(super) fn offer(&self) {
        for (index, slot) in (0..).zip(&*self.memory.slots) {
            self.memory.ring.write(index, empty_buffer(slot.address));
        }
        // A ring whose head and tail were equal would be an empty one.
        self.hardware.write(self.registers.rdt, (self.memory.ring.entries() - 1).into());
    }

    pub(super) const fn bad_checksums(&self) -> &Arc<Counter> {
        &self.bad_checksums
    }

    /// Descriptors that the device has: all but one are its, or taken.
    #[inline]
    fn posted(&self) -> u16 {
        (self.memory.ring.entries() - 1).saturating_sub(self.taken)
    }

    /// Takes up to `max` frames.
    fn fill(&mut self, max: usize, batch: &mut FrameBatch, stats: &QueueStats) {
        let mut ahead = Ahead::default();
        ahead.look(self, max);
        if ahead.statuses.is_empty() {
            return;
        }
        // The next look finds this line there already.
        prefetch_read(self.memory.ring.hint(self.next));
        let mut at = 0;
        let mut bad_checksums = 0;
        while batch.frames().len() < max {
            let Some(first) = ahead.get(self, at) else { break };
            let (count, whole) = if first.has(Received::END) {
                (1, true)
            } else {
                match self.chain_len(&mut ahead, at) {
                    Some(chain) => chain,
                    // The rest of the frame is still on its way.
                    None => break,
                }
            };
            let Some(last) = ahead.get(self, at + usize::from(count) - 1) else { break };
            if std::mem::replace(&mut self.skipping, !whole) {
                // The end of a frame that was counted when it was too long.
            } else if !whole {
                stats.count_drops(DropReason::BadDescriptor, 1);
            } else {
                bad_checksums += u64::from(last.is_invalid());
                let pushed = match count {
                    1 => self.push(last, batch),
                    _ => self.push_chain(&ahead, at, count, last, batch),
                };
                if let Err(reason) = pushed {
                    stats.count_drops(reason, 1);
                }
            }
            self.next = self.memory.ring.ahead(self.next, count);
            self.taken += count;
            at += usize::from(count);
        }
        if bad_checksums > 0 {
            self.bad_checksums.add(bad_checksums);
        }
    }

    /// How many descriptors the frame has that starts `at` descriptors ahead, and whether that is
    /// all of it: a frame that has more than any may have is given up. `None` while its end has
    /// not come.
    #[inline(never)]
    fn chain_len(&self, ahead: &mut Ahead, at: usize) -> Option<(u16, bool)> {
        for count in 1..=MAX_CHAIN {
            let whole = ahead.get(self, at + count - 1)?.has(Received::END);
            if whole || count == MAX_CHAIN {
                return Some((u16::try_from(count).ok()?, whole));
            }
        }
        None
    }

    /// Whether a frame that ends with `last` is to be received.
    #[inline]
    fn check(&self, last: Received) -> Result<(), DropReason> {
        if last.has(Received::RECEIVE_ERROR) {
            return Err(DropReason::DeviceError);
        }
        match self.access_vlan {
            Some(vlan) if !last.has(Received::TAG_STRIPPED) || last.vlan() != vlan => {
                Err(DropReason::Filtered)
            }
            _ => Ok(()),
        }
    }

    /// Adds the frame in the next descriptor's buffer.
    #[inline]
    fn push(&mut self, status: Received, batch: &mut FrameBatch) -> Result<(), DropReason> {
        self.check(status)?;
        let len = status.len();
        if len < ETHERNET_HEADER_LEN {
            return Err(DropReason::TooShort);
        }
        let first = self.next;
        let data = self.data(first, len).ok_or(DropReason::BadDescriptor)?;
        let len = u16::try_from(len).map_err(|_| DropReason::BadDescriptor)?;
        // SAFETY: `data` made sure that the packet has `len` bytes, which the device has written
        // and was told to leave alone since. Nobody but the batch has them until the descriptor is
        // written anew, which `release` and `give` do after they have cleared the batch; the ring
        // is checked out until then.
        if !unsafe { batch.push_private(data, len) } {
            return Err(DropReason::NoBuffer);
        }
        if status.is_valid() {
            batch.set_data_valid();
        }
        self.spans.push(Span { first, count: 1 });
        Ok(())
    }

    /// As [`push`](Self::push), for a frame in `count` buffers.
    #[inline(never)]
    fn push_chain(
        &mut self,
        ahead: &Ahead,
        at: usize,
        count: u16,
        last: Received,
        batch: &mut FrameBatch,
    ) -> Result<(), DropReason> {
        self.check(last)?;
        let mut segments = ArrayVec::<RawSegment, MAX_CHAIN>::new();
        for index in 0..count {
            let len = ahead.statuses.get(at + usize::from(index)).map_or(0, |status| status.len());
            let slot = self.memory.ring.ahead(self.next, index);
            let data = self.data(slot, len).ok_or(DropReason::BadDescriptor)?;
            let len = u32::try_from(len).map_err(|_| DropReason::BadDescriptor)?;
            segments.push(RawSegment::new(data, len));
        }
        let (head, body) = segments.split_first().ok_or(DropReason::BadDescriptor)?;
        let len = u16::try_from(head.len()).map_err(|_| DropReason::BadDescriptor)?;
        if usize::from(len) < ETHERNET_HEADER_LEN {
            return Err(DropReason::TooShort);
        }
        // SAFETY: as in `push`, for all buffers.
        let pushed =
            unsafe { batch.push_private_chain(head.as_ptr(), len, RawSegment::get_all(body)) };
        if !pushed {
            return Err(DropReason::NoBuffer);
        }
        if last.is_valid() {
            batch.set_data_valid();
        }
        self.spans.push(Span { first: self.next, count });
        Ok(())
    }

    /// The data of the packet in slot `index`, which has `len` bytes from now on; `None` when it
    /// has no room for them.
    #[inline]
    fn data(&mut self, index: u16, len: usize) -> Option<NonNull<u8>> {
        if len > DATA_ROOM {
            return None;
        }
        let slot = self.memory.slots.get_mut(usize::from(index))?;
        // SAFETY: the packet is as `PoolCache::alloc` made it, but for lengths set here. The
        // device has said that it is done with the buffer.
        if !unsafe { slot.packet.set_received(len) } {
            return None;
        }
        Some(NonNull::from(slot.packet.data_mut()).cast())
    }

    /// Gives the buffers of the burst back to the device. No frame may be left in the batch.
    #[inline]
    fn release(&mut self) {
        self.spans.clear();
        let memory = &self.memory;
        let mut index = memory.ring.ahead(self.next, memory.ring.entries() - self.taken);
        for _ in 0..self.taken {
            if let Some(slot) = memory.slots.get(usize::from(index)) {
                memory.ring.write(index, empty_buffer(slot.address));
            }
            index = memory.ring.after(index);
        }
        self.unannounced += self.taken;
        self.taken = 0;
        if self.unannounced >= ANNOUNCE {
            self.announce();
        }
    }

    /// Tells the device how far it may go: up to the descriptor before the next one.
    fn announce(&mut self) {
        self.unannounced = 0;
        let ring = &self.memory.ring;
        let tail = ring.ahead(self.next, ring.entries() - 1);
        self.hardware.write(self.registers.rdt, tail.into());
    }

    /// Gives the packets of the burst away and puts others in their place. `offloads` are those of
    /// the frames, which are no longer in the batch.
    fn give(
        &mut self,
        offloads: &[Offload],
        packets: &mut ArrayVec<Packet, BURST>,
        stats: &QueueStats,
    ) {
        let spans = std::mem::take(&mut self.spans);
        for (span, offload) in spans.iter().zip(offloads) {
            let given = if packets.is_full() { None } else { self.memory.exchange(*span) };
            match given {
                Some(mut packet) => {
                    packet.set_offload(*offload);
                    packets.push(packet);
                }
                None => stats.count_drops(DropReason::NoBuffer, 1),
            }
        }
        self.release();
    }

    /// Whether the device has filled a buffer that was not looked at.
    fn has_frames(&self) -> bool {
        self.posted() > 0 && Received(self.memory.ring.status(self.next)).has(Received::DONE)
    }
}

impl<R: Registers> Drop for RxRing<R> {
    fn drop(&mut self) {
        if self.hardware.stop_rx(self.queue) {
            // SAFETY: it is dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            // Better lost than written to by the device when it is somebody else's.
            tracing::error!("receive queue {} does not stop; its memory is given up", self.queue);
        }
    }
}

impl Memory {
    fn allocate(name: &str, ring: DescriptorRing, space: &DmaSpace) -> Result<Self, String> {
        let entries = ring.entries();
        // A ring full, as many packets that are somewhere else, and what caches keep.
        let buffers = 2 * (u32::from(entries) + SPARE);
        let pool = Pool::for_devices(name, buffers, DATA_ROOM, space)
            .map_err(|error| error.to_string())?;
        let mut cache = pool.cache();
        let slots: Option<Box<[Slot]>> =
            (0..entries).map(|_| Slot::new(cache.alloc()?, space)).collect();
        let slots = slots.ok_or("its packets are not where the device reaches them")?;
        Ok(Self { ring, slots, cache, space: space.clone() })
    }

    /// Takes the packet of `span` and puts fresh ones in its place; `None`, and nothing changes,
    /// when there are none.
    #[inline]
    fn exchange(&mut self, span: Span) -> Option<Packet> {
        if span.count == 1 {
            return self.exchange_one(span.first);
        }
        self.exchange_chain(span)
    }

    #[inline]
    fn exchange_one(&mut self, index: u16) -> Option<Packet> {
        let fresh = Slot::new(self.cache.alloc()?, &self.space)?;
        let slot = self.slots.get_mut(usize::from(index))?;
        Some(std::mem::replace(slot, fresh).packet)
    }

    #[inline(never)]
    fn exchange_chain(&mut self, span: Span) -> Option<Packet> {
        let mut fresh = ArrayVec::<Packet, MAX_CHAIN>::new();
        for _ in 0..span.count {
            let Some(packet) = self.cache.alloc() else {
                self.cache.free_burst(fresh);
                return None;
            };
            fresh.push(packet);
        }
        let mut whole: Option<Packet> = None;
        for (offset, packet) in (0..).zip(fresh) {
            let index = self.ring.ahead(span.first, offset);
            let fresh = Slot::new(packet, &self.space)?;
            let slot = self.slots.get_mut(usize::from(index))?;
            let part = std::mem::replace(slot, fresh).packet;
            match &mut whole {
                None => whole = Some(part),
                // The frame was no longer than a packet may be, and all are of one pool.
                Some(whole) => whole.chain(part).ok()?,
            }
        }
        whole
    }
}

/// Descriptors that were looked at, each once: those that the device is done with, from the next
/// one on.
#[derive(Debug, Default)]
struct Ahead {
    statuses: ArrayVec<Received, { BURST + MAX_CHAIN }>,
}

impl Ahead {
    /// Looks at up to `max` descriptors, and fetches what they are about, so that the cache misses
    /// overlap.
    #[inline]
    fn look<R: Registers>(&mut self, ring: &RxRing<R>, max: usize) {
        while self.statuses.len() < max && self.look_at_next(ring) {}
    }

    /// What the device says `at` descriptors ahead; `None` when it is not done with that one.
    #[inline]
    fn get<R: Registers>(&mut self, ring: &RxRing<R>, at: usize) -> Option<Received> {
        while at >= self.statuses.len() {
            if !self.look_at_next(ring) {
                return None;
            }
        }
        self.statuses.get(at).copied()
    }

    #[inline]
    fn look_at_next<R: Registers>(&mut self, ring: &RxRing<R>) -> bool {
        // Frames that were taken in this burst count as looked at.
        let looked_at = u16::try_from(self.statuses.len()).unwrap_or(u16::MAX);
        let begin = ring.begin();
        if self.statuses.is_full() || looked_at >= ring.memory.ring.entries() - 1 {
            return false;
        }
        let index = ring.memory.ring.ahead(begin, looked_at);
        let status = Received(ring.memory.ring.status(index));
        if !status.has(Received::DONE) {
            return false;
        }
        if let Some(slot) = ring.memory.slots.get(usize::from(index)) {
            prefetch_read(slot.packet.data().as_ptr());
        }
        self.statuses.push(status);
        true
    }
}

impl<R: Registers> RxRing<R> {
    /// The first descriptor that is not the device's.
    #[inline]
    fn begin(&self) -> u16 {
        let ring = &self.memory.ring;
        ring.ahead(self.next, ring.entries() - self.taken)
    }
}

/// An address for two registers: lower half, upper half.
pub(super) fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// The receive queue that a worker polls.
#[derive(Debug)]
pub(super) struct Receiver<R: Registers> {
    lane: Arc<Lane<RxRing<R>>>,
    batch: FrameBatch,
    /// The ring, while the batch has frames that lie there.
    loan: Option<Loan<Box<RxRing<R>>>>,
}

impl<R: Registers> Receiver<R> {
    pub(super) fn new(lane: Arc<Lane<RxRing<R>>>) -> Self {
        let batch = FrameBatch::with_segments(BURST * MAX_CHAIN);
        Self { lane, batch, loan: None }
    }
}

impl<R: Registers> RxDriver for Receiver<R> {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.release();
        let Some(mut ring) = self.lane.ring.check_out() else { return };
        ring.fill(max.min(BURST), &mut self.batch, stats);
        if self.batch.frames().is_empty() {
            if ring.taken > 0 {
                ring.release();
            }
            self.lane.ring.check_in(ring);
        } else {
            self.loan = Some(ring);
        }
    }

    #[inline]
    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    #[inline]
    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
        if let Some(mut ring) = self.loan.take() {
            ring.release();
            self.lane.ring.check_in(ring);
        }
    }

    fn gives_packets(&self) -> bool {
        true
    }

    fn take_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        _cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        let offloads: ArrayVec<Offload, BURST> =
            self.batch.frames().iter().map(packet::Frame::offload).collect();
        self.batch.clear();
        if let Some(mut ring) = self.loan.take() {
            ring.give(&offloads, packets, stats);
            self.lane.ring.check_in(ring);
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.lane.notify.as_ref().map(AsFd::as_fd)
    }

    fn arm(&mut self) -> bool {
        let Some(notify) = &self.lane.notify else { return false };
        let Some(mut guard) = self.lane.ring.try_lock() else { return false };
        // Without a ring no frame will come.
        let Some(ring) = guard.as_mut() else { return true };
        // The device may be waiting for these.
        if ring.unannounced > 0 {
            ring.announce();
        }
        notify.enable(&ring.hardware);
        if ring.has_frames() {
            notify.disable(&ring.hardware);
            return false;
        }
        true
    }

    fn disarm(&mut self) {
        let Some(notify) = &self.lane.notify else { return };
        // Not while the control side has the ring: the device may be somebody else's by then.
        if let Some(guard) = self.lane.ring.try_lock()
            && let Some(ring) = guard.as_ref()
        {
            notify.disable(&ring.hardware);
        }
        let _ = notify.event.drain();
    }
}

impl<R: Registers> Drop for Receiver<R> {
    fn drop(&mut self) {
        // The ring outlives its queue: only the control side stops it.
        self.release();
    }
}
