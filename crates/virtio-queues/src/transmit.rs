//! The transmit side: frames are copied into buffers of our own, one per descriptor. Packets that
//! the device reaches are sent from where they lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use arrayvec::ArrayVec;
use eal::DmaSpace;
use ethdev::{DropReason, PacketTally, QueueStats, Sent, TxDriver};
use packet::{
    BURST, Capabilities, ETHERNET_HEADER_LEN, Frame, FrameReader, LINK_HEADERS, Packet, PoolCache,
};
use virtio::NetHeader;
use virtio::driver::{Buffer, DmaMemory, DmaPart, DmaSlice, DriverQueue, DriverRing, RingError};

use super::kept::Kept;
use super::kick::Kick;
use super::lane::{Lane, Ring};
use super::memory::Slots;

/// Most buffers that one frame may take: 64 KiB take 31.
pub const MAX_PIECES: usize = 32;

/// How often in a row to refuse a burst for which there is room in part only. Past that the
/// device may be one that gives nothing back until it gets more.
const MAX_REFUSALS: u32 = 1000;

/// No further buffer.
const END: u16 = u16::MAX;

/// Tables of descriptors, one per slot, for frames of several pieces.
#[derive(Debug)]
pub struct Tables(DmaPart);

impl Tables {
    const STRIDE: usize = 16 * MAX_PIECES;

    /// Bytes of memory that `count` tables take.
    pub const fn bytes(count: u16) -> usize {
        Self::STRIDE * count as usize
    }

    /// Tables in `memory`.
    pub const fn new(memory: DmaPart) -> Self {
        Self(memory)
    }

    fn table(&mut self, id: u16) -> Option<DmaSlice<'_>> {
        self.0.slice_mut(Self::STRIDE * usize::from(id), Self::STRIDE)
    }
}

/// The ring of one session. Descriptor `n` always has slot `n`, whose net header is zero and
/// stays so until a frame with an offload is sent; as long as frames have the same length, no
/// descriptor of a split ring is written.
#[derive(Debug)]
pub struct TxRing {
    queue: DriverQueue,
    buffers: Buffers,
    fault: Option<RingError>,
}

/// What goes with the queue, of whatever format that is: code that works on bursts is made for
/// each, so that the choice costs one branch for a burst.
#[derive(Debug)]
struct Buffers {
    slots: Slots,
    /// Bytes of the net header.
    header: usize,
    /// For frames of several pieces, where INDIRECT_DESC was negotiated.
    tables: Option<Tables>,
    /// What the device takes.
    offloads: Capabilities,
    /// Some slot's net header is not zero.
    headers_used: bool,
    /// Per buffer the next one of the same frame, or [`END`].
    links: Box<[u16]>,
    /// Packets that the device has, where it can reach such.
    kept: Option<Kept>,
    /// Frames of several pieces, and packets, that the device has.
    special: usize,
    /// How often in a row a burst was refused for which there was room in part.
    refusals: u32,
    kick: Kick,
}

impl Ring for TxRing {
    fn fault(&self) -> Option<RingError> {
        self.fault
    }
}

impl TxRing {
    /// An empty ring. `slots` must be all zero.
    pub fn new(
        queue: impl Into<DriverQueue>,
        slots: Slots,
        header: usize,
        tables: Option<Tables>,
        offloads: Capabilities,
        kick: Kick,
    ) -> Self {
        let mut queue = queue.into();
        keep_to_slots(&mut queue, slots.count());
        let links = vec![END; queue.entries().into()].into_boxed_slice();
        let buffers = Buffers {
            slots,
            header,
            tables,
            offloads,
            headers_used: false,
            links,
            kept: None,
            special: 0,
            refusals: 0,
            kick,
        };
        Self { queue, buffers, fault: None }
    }

    /// The queue, for its addresses.
    pub const fn queue(&self) -> &DriverQueue {
        &self.queue
    }

    /// Has the device notified in another way from now on; it is once, as what was signalled in
    /// the old way may be lost.
    pub fn set_kick(&mut self, kick: Kick) {
        self.buffers.kick = kick;
        self.kick();
    }

    /// Sends the kick that a device may expect after its start.
    pub fn kick(&self) {
        self.buffers.kick.signal(self.queue.position());
    }

    /// Has the device, which finds memory in `space`, send packets from where they lie.
    pub fn keep_packets(&mut self, space: DmaSpace) {
        self.buffers.kept = Some(Kept::new(self.queue.entries(), space));
    }

    #[inline]
    fn send_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        mtu: u16,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) -> Result<(), RingError> {
        match &mut self.queue {
            DriverQueue::Split(queue) => {
                self.buffers.send_packets(queue, packets, mtu, cache, stats)
            }
            DriverQueue::Packed(queue) => {
                self.buffers.send_packets(queue, packets, mtu, cache, stats)
            }
        }
    }

    /// Sends a frame of the port's own, which is nobody's to count, and returns whether there was
    /// room for it.
    pub fn send_own(&mut self, frame: &Frame<'_>) -> Result<bool, RingError> {
        let sent = self.send(&[*frame], u16::MAX, &QueueStats::default())?;
        Ok(sent.packets() > 0)
    }

    /// The heads of the frames that the device has.
    #[cfg(test)]
    pub fn posted_heads(&self) -> Vec<u16> {
        let size = self.queue.entries();
        (0..size).filter(|id| self.queue.is_posted(*id)).collect()
    }

    #[inline]
    fn send(
        &mut self,
        frames: &[Frame<'_>],
        mtu: u16,
        stats: &QueueStats,
    ) -> Result<Sent, RingError> {
        match &mut self.queue {
            DriverQueue::Split(queue) => self.buffers.send(queue, frames, mtu, stats),
            DriverQueue::Packed(queue) => self.buffers.send(queue, frames, mtu, stats),
        }
    }

    /// Frees the buffers of what the device has sent.
    fn reclaim(&mut self) -> Result<(), RingError> {
        match &mut self.queue {
            DriverQueue::Split(queue) => self.buffers.reclaim(queue),
            DriverQueue::Packed(queue) => self.buffers.reclaim(queue),
        }
    }
}

impl Buffers {
    /// The frames before the first that needs more than the device takes, which there is only if
    /// the session is newer than what the caller knows.
    fn until_refused<'s, 'f>(&mut self, frames: &'s [Frame<'f>]) -> &'s [Frame<'f>] {
        self.headers_used = true;
        let takes = self.offloads;
        let refused = frames.iter().position(|frame| !takes.contains(frame.offload().needs()));
        refused.and_then(|index| frames.get(..index)).unwrap_or(frames)
    }

    #[inline]
    fn send(
        &mut self,
        queue: &mut impl DriverRing,
        frames: &[Frame<'_>],
        mtu: u16,
        stats: &QueueStats,
    ) -> Result<Sent, RingError> {
        // Seldom enough that the used ring's cache lines are fetched for many frames at once.
        let half = usize::from(queue.entries() / 2);
        if usize::from(queue.free_count()) < half.max(BURST) {
            self.reclaim(queue)?;
            // A device that lags behind gets whole bursts when it has caught up, not a few
            // frames with each attempt, which would cost both sides more than twice as much.
            if usize::from(queue.free_count()) < frames.len().min(half)
                && self.refusals < MAX_REFUSALS
            {
                self.refusals += 1;
                return Ok(Sent::NONE);
            }
        }
        self.refusals = 0;
        let most = usize::from(mtu) + LINK_HEADERS;
        let mut sent = Sent::NONE;
        for frame in frames.iter().take(BURST) {
            let len = frame.len();
            if len < ETHERNET_HEADER_LEN {
                sent.add_dropped(stats, DropReason::TooShort);
            } else if len > most && frame.wire_len() > most {
                sent.add_dropped(stats, DropReason::TooLong);
            } else if len > self.slots.room() {
                match self.add_long(queue, frame)? {
                    Added::Yes => sent.add_sent(),
                    Added::Full => break,
                    Added::Never => sent.add_dropped(stats, DropReason::TooLong),
                }
            } else if self.add(queue, frame) {
                sent.add_sent();
            } else {
                break;
            }
        }
        if queue.publish() {
            self.kick.signal(queue.position());
        }
        Ok(sent)
    }

    /// Puts a frame that fits into one buffer in line; `false` when none is free.
    #[inline]
    fn add(&mut self, queue: &mut impl DriverRing, frame: &Frame<'_>) -> bool {
        let (slots, header, len) = (&self.slots, self.header, frame.len());
        let headers_used = self.headers_used;
        queue.add_with(|id| {
            let whole = slots.part(id, header, header + len)?;
            if headers_used {
                write_header(whole, header, frame);
            }
            // SAFETY: `part` made sure of `header + len` bytes of the slot. They are not the
            // frame's memory: frames come from receive slots and from other ports' memory.
            unsafe { frame.copy_to_ptr(whole.host().add(header), len) };
            Some(Buffer::readable(whole))
        })
    }

    /// Has `copy` write `len` bytes of a frame to slot `id`, and returns them with `header` bytes
    /// in front.
    #[inline]
    fn fill(
        &self,
        id: u16,
        header: usize,
        len: usize,
        copy: impl FnOnce(std::ptr::NonNull<u8>, usize),
    ) -> Option<DmaMemory> {
        let whole = self.slots.part(id, header, header + len)?;
        copy(whole.slice(header, len)?.host(), len);
        Some(whole)
    }

    /// Puts a frame of several pieces in line.
    #[cold]
    #[inline(never)]
    fn add_long(
        &mut self,
        queue: &mut impl DriverRing,
        frame: &Frame<'_>,
    ) -> Result<Added, RingError> {
        let (len, room) = (frame.len(), self.slots.room());
        let count = len.div_ceil(room);
        if count > MAX_PIECES || count > usize::from(self.slots.count()) {
            return Ok(Added::Never);
        }
        if count > usize::from(queue.free_count()) {
            self.reclaim(queue)?;
        }
        if count > usize::from(queue.free_count()) {
            return Ok(Added::Full);
        }
        let mut ids = ArrayVec::<u16, MAX_PIECES>::new();
        let mut pieces = ArrayVec::<Buffer, MAX_PIECES>::new();
        let mut reader = FrameReader::new(frame);
        let mut left = len;
        while left > 0 {
            let Some(id) = queue.reserve() else { break };
            ids.push(id);
            let header = if pieces.is_empty() { self.header } else { 0 };
            let piece = self.fill(id, header, left.min(room), |to, room| {
                // SAFETY: as in `add`.
                unsafe { reader.copy_next(to, room) };
            });
            let Some(piece) = piece else { break };
            if self.headers_used && pieces.is_empty() {
                write_header(piece, self.header, frame);
            }
            pieces.push(Buffer::readable(piece));
            left = left.saturating_sub(room);
        }
        Ok(self.post_long(queue, &ids, &pieces))
    }

    fn post_long(&mut self, queue: &mut impl DriverRing, ids: &[u16], pieces: &[Buffer]) -> Added {
        let Some(head) = ids.first() else { return Added::Full };
        let table = self.tables.as_mut().and_then(|tables| tables.table(*head));
        let indirect = table.is_some_and(|table| queue.set_indirect(*head, table, pieces));
        if !indirect {
            queue.set_chain(ids, pieces);
        }
        let next = ids.iter().skip(1).copied().chain([END]);
        for (id, next) in ids.iter().zip(next) {
            if let Some(link) = self.links.get_mut(usize::from(*id)) {
                *link = next;
            }
        }
        self.special += 1;
        queue.post(*head);
        Added::Yes
    }

    /// Frees the buffers of what the device has sent.
    fn reclaim(&mut self, queue: &mut impl DriverRing) -> Result<(), RingError> {
        self.reclaim_to(queue, &mut drop)
    }

    /// As `reclaim`, with packets given to `free`.
    fn reclaim_to(
        &mut self,
        queue: &mut impl DriverRing,
        free: &mut impl FnMut(Packet),
    ) -> Result<(), RingError> {
        queue.poll_used()?;
        while let Some(used) = queue.next_used()? {
            if self.special > 0 {
                self.release_special(queue, used.head, free);
            }
            queue.release(used.head);
        }
        Ok(())
    }

    /// Frees what goes with `head`: its packet, or the buffers that follow it in its frame.
    fn release_special(
        &mut self,
        queue: &mut impl DriverRing,
        head: u16,
        free: &mut impl FnMut(Packet),
    ) {
        if let Some(packet) = self.kept.as_mut().and_then(|kept| kept.take(head)) {
            self.special = self.special.saturating_sub(1);
            return free(packet);
        }
        let mut id = head;
        for piece in 0..MAX_PIECES {
            let Some(link) = self.links.get_mut(usize::from(id)) else { return };
            id = std::mem::replace(link, END);
            if id == END {
                return;
            }
            queue.release(id);
            if piece == 0 {
                self.special = self.special.saturating_sub(1);
            }
        }
    }

    /// Takes packets from the front of `packets` and puts them in line, as they are where the
    /// device reaches them.
    fn send_packets(
        &mut self,
        queue: &mut impl DriverRing,
        packets: &mut ArrayVec<Packet, BURST>,
        mtu: u16,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) -> Result<(), RingError> {
        if usize::from(queue.free_count()) < usize::from(queue.entries() / 2).max(BURST) {
            let mut returns = cache.returns();
            self.reclaim_to(queue, &mut |packet| returns.free(packet))?;
        }
        let mut tally = PacketTally::default();
        let mut rest = std::mem::take(packets).into_iter();
        for packet in rest.by_ref() {
            let (len, mut station) = (packet.len(), [0; 6]);
            if let Some(head) = packet.data().first_chunk() {
                station = *head;
            }
            match self.add_packet(queue, packet, mtu)? {
                PacketFate::Kept => tally.add(len, &station),
                PacketFate::Copied(packet) => {
                    tally.add(len, &station);
                    cache.free(packet);
                }
                PacketFate::Dropped(packet, reason) => {
                    stats.count_drops(reason, 1);
                    cache.free(packet);
                }
                PacketFate::Full(packet) => {
                    packets.push(packet);
                    break;
                }
            }
        }
        packets.extend(rest);
        stats.count_tally(&tally);
        if queue.publish() {
            self.kick.signal(queue.position());
        }
        Ok(())
    }

    /// Puts a packet in line.
    #[inline]
    fn add_packet(
        &mut self,
        queue: &mut impl DriverRing,
        mut packet: Packet,
        mtu: u16,
    ) -> Result<PacketFate, RingError> {
        let (len, most) = (packet.len(), usize::from(mtu) + LINK_HEADERS);
        if len < ETHERNET_HEADER_LEN {
            return Ok(PacketFate::Dropped(packet, DropReason::TooShort));
        }
        if len > most && packet.as_frame().wire_len() > most {
            return Ok(PacketFate::Dropped(packet, DropReason::TooLong));
        }
        // One that needs more than the device takes there is only if the session is newer than
        // what the caller knows.
        if queue.free_count() == 0 || !self.offloads.contains(packet.offload().needs()) {
            return Ok(PacketFate::Full(packet));
        }
        let header = self.header;
        if let Some(kept) = &mut self.kept
            && let Some(buffer) = kept.buffer(&mut packet, header)
        {
            let mut head = END;
            let added = queue.add_with(|id| {
                head = id;
                Some(buffer)
            });
            if !added {
                return Ok(PacketFate::Dropped(packet, DropReason::NoBuffer));
            }
            kept.keep(head, packet);
            self.special += 1;
            return Ok(PacketFate::Kept);
        }
        self.copy_packet(queue, packet)
    }

    /// Puts a copy of a packet in line.
    #[cold]
    fn copy_packet(
        &mut self,
        queue: &mut impl DriverRing,
        packet: Packet,
    ) -> Result<PacketFate, RingError> {
        let frame = packet.as_frame();
        self.headers_used |= !frame.offload().is_none();
        let added = if frame.len() > self.slots.room() {
            self.add_long(queue, &frame)?
        } else if self.add(queue, &frame) {
            Added::Yes
        } else {
            Added::Full
        };
        Ok(match added {
            Added::Yes => PacketFate::Copied(packet),
            Added::Full => PacketFate::Full(packet),
            Added::Never => PacketFate::Dropped(packet, DropReason::TooLong),
        })
    }
}

/// What became of a packet.
enum PacketFate {
    /// The device has it.
    Kept,
    /// The device has a copy.
    Copied(Packet),
    Dropped(Packet, DropReason),
    /// There is no room.
    Full(Packet),
}

/// Takes the ids that have no slot out of use, where memory in pieces holds fewer slots than the
/// ring has entries.
fn keep_to_slots(queue: &mut DriverQueue, count: u16) {
    if count >= queue.entries() {
        return;
    }
    while queue.reserve().is_some() {}
    (0..count).for_each(|id| queue.release(id));
}

/// Writes a frame's net header to the first bytes of its buffer.
fn write_header(buffer: DmaMemory, header_len: usize, frame: &Frame<'_>) {
    // The driver has no use for the number of buffers (virtio 1.3 section 5.1.6.2.1).
    let header = NetHeader::for_offload(frame.offload(), 0).encode();
    let header_len = header_len.min(header.len()).min(buffer.len());
    // SAFETY: `header_len` is at most the length of both, and one of them is our own.
    unsafe {
        std::ptr::copy_nonoverlapping(header.as_ptr(), buffer.host().as_ptr(), header_len);
    }
}

/// What became of a long frame.
enum Added {
    Yes,
    Full,
    Never,
}

/// The transmit queue that a worker has.
#[derive(Debug)]
pub struct Transmitter {
    lane: Arc<Lane<TxRing>>,
    mtu: Arc<AtomicU16>,
    /// Rings of this port keep packets; see [`TxRing::keep_packets`].
    keeps_packets: bool,
}

impl Transmitter {
    /// The queue of `lane`; `mtu` is the MTU that its port has by now.
    #[must_use]
    pub const fn new(lane: Arc<Lane<TxRing>>, mtu: Arc<AtomicU16>, keeps_packets: bool) -> Self {
        Self { lane, mtu, keeps_packets }
    }
}

impl Transmitter {
    #[inline]
    fn transmit_burst(
        &mut self,
        frames: &[Frame<'_>],
        offloaded: bool,
        stats: &QueueStats,
    ) -> Sent {
        // Should the port's thread have the ring just now, there is no room for a moment.
        let Some(mut guard) = self.lane.ring.try_lock() else { return Sent::NONE };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else {
            return Sent::all_dropped(frames.len(), stats, DropReason::LinkDown);
        };
        let frames = if offloaded { ring.buffers.until_refused(frames) } else { frames };
        ring.send(frames, self.mtu.load(Relaxed), stats).unwrap_or_else(|error| {
            ring.fault = Some(error);
            self.lane.report_fault();
            Sent::NONE
        })
    }
}

impl TxDriver for Transmitter {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        self.transmit_burst(frames, false, stats)
    }

    fn takes(&self) -> Capabilities {
        // Without the ring there is no room either.
        let guard = self.lane.ring.try_lock();
        guard
            .as_ref()
            .and_then(|ring| ring.as_ref())
            .map_or(Capabilities::empty(), |ring| ring.buffers.offloads)
    }

    fn transmit_offloaded(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        self.transmit_burst(frames, true, stats)
    }

    fn keeps_packets(&self) -> bool {
        self.keeps_packets
    }

    fn transmit_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        let Some(mut guard) = self.lane.ring.try_lock() else { return };
        let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none()) else {
            stats.count_drops(DropReason::LinkDown, packets.len());
            return cache.free_burst(packets.drain(..));
        };
        if let Err(error) = ring.send_packets(packets, self.mtu.load(Relaxed), cache, stats) {
            ring.fault = Some(error);
            self.lane.report_fault();
        }
    }

    fn is_ready(&self) -> bool {
        self.lane.is_ready()
    }

    fn flush(&mut self) -> bool {
        if let Some(mut guard) = self.lane.ring.try_lock()
            && let Some(ring) = guard.as_mut().filter(|ring| ring.fault.is_none())
            && let Err(error) = ring.reclaim()
        {
            ring.fault = Some(error);
            self.lane.report_fault();
        }
        false
    }
}
