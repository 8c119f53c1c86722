//! The transmit side: packets that stay in the ring until the device has sent them.
//!
//! Packets that the device reaches are sent as they are. Borrowed frames, and packets from
//! elsewhere, are copied into packets of the queue's own.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use arrayvec::ArrayVec;
use eal::DmaSpace;
use ethdev::{DropReason, PacketTally, QueueStats, Sent, TxDriver};
use packet::pool::{DATA_ROOM, MAX_SEGMENTS, Returns};
use packet::{
    BURST, Capabilities, ETHERNET_HEADER_LEN, Frame, LINK_HEADERS, Packet, Pool, PoolCache,
};

use super::context::{Contexts, Plan, Unfit};
use super::descriptors::{DescriptorRing, tx};
use super::hardware::{Hardware, HardwareError};
use super::lane::Lane;
use super::receive::{SPARE, halves};
use super::registers::{Registers, TxRegisters, dctl};

/// Most bytes of one descriptor. Devices could do with a little more.
const MAX_PIECE: usize = 8192;

/// Smallest page. QEMU's device drops frames of which a descriptor's part crosses from one page to
/// another that is elsewhere in its memory, as happens behind an IOMMU. Real devices do not care.
const PAGE: usize = 4096;

/// Most descriptors of one packet: two for each segment, which may cross the border of pages, and
/// more for those that are longer than a page. (QEMU's device drops what has more than 64.)
const MAX_PIECES: usize = 2 * MAX_SEGMENTS + packet::MAX_FRAME_LEN.div_ceil(PAGE);

// Any packet finds room in an empty ring, with a context in front of it.
const _: () = assert!(MAX_PIECES + 1 < *super::options::SIZES.start() as usize);

/// Descriptors in use from which on sent packets are taken back. Not as many as a long ring has:
/// the pools that they come from may be small.
const RECLAIM: u16 = 128;

/// Descriptors that the device fetches at once. Completions are written back at once.
const THRESHOLDS: u32 = 8 | 1 << dctl::HTHRESH_SHIFT;

/// What the devices can do: checksums of TCP and UDP, and large segments of TCP. With ECN too: the
/// flags of the first part and the others are kept apart (DTXTCPFLGL, 82576 datasheet, 8.12.4).
const OFFLOADS: Capabilities =
    Capabilities::CSUM.union(Capabilities::TSO4).union(Capabilities::TSO6).union(Capabilities::ECN);

/// What all transmit queues of a port have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxConfig {
    /// The VLAN whose tag frames get.
    pub(super) access_vlan: Option<u16>,
    pub(super) offloads: bool,
}

/// One queue's ring. It gives its memory up when it is dropped, after it has stopped the queue.
#[derive(Debug)]
pub(super) struct TxRing<R: Registers> {
    hardware: Arc<Hardware<R>>,
    queue: u16,
    registers: TxRegisters,
    memory: ManuallyDrop<Memory>,
    access_vlan: Option<u16>,
    takes: Capabilities,
    contexts: Contexts,
    /// The next descriptor to write.
    next: u16,
    /// The oldest descriptor that may be the device's.
    oldest: u16,
    /// Descriptors from the oldest to the next.
    used: u16,
    /// The last descriptors of bursts, which the device reports, oldest first. It has as much
    /// room as the ring, so it never grows.
    reports: VecDeque<u16>,
    /// The last descriptor of the burst, which the device is not told of yet.
    last: Option<(u16, [u64; 2])>,
}

/// What the device accesses.
#[derive(Debug)]
struct Memory {
    ring: DescriptorRing,
    /// Each packet at its last descriptor.
    packets: Box<[Option<Packet>]>,
    /// Of the queue's own packets.
    cache: PoolCache,
    space: DmaSpace,
}

/// What became of a packet.
enum Posted {
    Yes,
    /// There is no room for it.
    Full(Packet),
    /// Its headers are not what its offload says.
    Bad,
}

impl<R: Registers> TxRing<R> {
    /// Makes the ring of `queue` and starts it.
    ///
    /// # Errors
    /// When there is no memory for it, or the device does not start it; the error is the reason.
    pub(super) fn start(
        hardware: &Arc<Hardware<R>>,
        name: &str,
        queue: u16,
        ring: DescriptorRing,
        config: TxConfig,
        space: &DmaSpace,
    ) -> Result<Self, String> {
        let memory = Memory::allocate(name, ring, space)?;
        let reports = VecDeque::with_capacity(memory.ring.entries().into());
        let ring = Self {
            hardware: Arc::clone(hardware),
            queue,
            registers: TxRegisters::of(queue),
            memory: ManuallyDrop::new(memory),
            access_vlan: config.access_vlan,
            takes: if config.offloads { OFFLOADS } else { Capabilities::empty() },
            contexts: Contexts::default(),
            next: 0,
            oldest: 0,
            used: 0,
            reports,
            last: None,
        };
        ring.set_up().map_err(|error| error.to_string())?;
        Ok(ring)
    }

    fn set_up(&self) -> Result<(), HardwareError> {
        let (hardware, registers) = (&self.hardware, &self.registers);
        let ring = &self.memory.ring;
        let [low, high] = halves(ring.device_address());
        hardware.write(registers.tdbal, low);
        hardware.write(registers.tdbah, high);
        hardware.write(registers.tdlen, ring.bytes());
        hardware.write(registers.tdwbal, 0);
        hardware.write(registers.tdh, 0);
        hardware.write(registers.tdt, 0);
        hardware.enable_queue(registers.txdctl, THRESHOLDS)
    }

    /// Descriptors that can be written. One stays free: a full ring would look like an empty one.
    #[inline]
    fn free(&self) -> usize {
        usize::from(self.memory.ring.entries() - 1).saturating_sub(self.used.into())
    }

    /// Takes back what the device has sent; packets of other pools go to `cache`.
    fn reclaim(&mut self, cache: Option<&mut PoolCache>) {
        let mut returns = cache.map(PoolCache::returns);
        while let Some(report) = self.reports.front().copied() {
            if self.memory.ring.status(report) & tx::DONE == 0 {
                return;
            }
            self.reports.pop_front();
            // Up to the report, or once around the ring should the numbers not fit each other.
            for _ in 0..self.memory.ring.entries() {
                let index = self.oldest;
                self.oldest = self.memory.ring.after(index);
                self.used = self.used.saturating_sub(1);
                self.memory.free(index, returns.as_mut());
                if index == report {
                    break;
                }
            }
        }
    }

    /// Whether `count` descriptors can be written, after a look at what has been sent meanwhile.
    #[inline]
    fn has_room(&mut self, count: usize) -> bool {
        if count <= self.free() {
            return true;
        }
        self.reclaim(None);
        count <= self.free()
    }

    /// Makes room for a burst, seldom enough that many packets come back at once.
    #[inline]
    fn make_room(&mut self, cache: Option<&mut PoolCache>) {
        if self.used > RECLAIM.min(self.memory.ring.entries() / 2) {
            self.reclaim(cache);
        }
    }

    /// Sends borrowed frames.
    fn send_frames(&mut self, frames: &[Frame<'_>], most: usize, stats: &QueueStats) -> Sent {
        self.make_room(None);
        let mut sent = Sent::NONE;
        for frame in frames.iter().take(BURST) {
            if let Err(reason) = check(frame.len(), frame.wire_len(), most) {
                sent.add_dropped(stats, reason);
                continue;
            }
            // A buffer for each descriptor, and perhaps a context.
            if !self.has_room(frame.len().div_ceil(DATA_ROOM) + 1) {
                break;
            }
            let Some(packet) = self.memory.cache.copy_frame(frame) else { break };
            match self.post(packet) {
                Posted::Yes => sent.add_sent(),
                Posted::Full(packet) => {
                    self.memory.cache.free(packet);
                    break;
                }
                Posted::Bad => sent.add_dropped(stats, DropReason::BadHeader),
            }
        }
        self.publish();
        sent
    }

    /// Sends packets: takes those that are dealt with from the front of `packets`.
    fn send_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        most: usize,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        self.make_room(Some(cache));
        let mut tally = PacketTally::default();
        let mut left = ArrayVec::<Packet, BURST>::new();
        let mut waiting = packets.drain(..);
        while let Some(packet) = waiting.next() {
            let wire_len = packet.offload().wire_len(packet.len());
            if let Err(reason) = check(packet.len(), wire_len, most) {
                stats.count_drops(reason, 1);
                cache.free(packet);
                continue;
            }
            let mut counted = tally;
            counted.add(packet.len(), packet.data());
            match self.post_any(packet, cache) {
                Posted::Yes => tally = counted,
                Posted::Full(packet) => {
                    left.push(packet);
                    left.extend(waiting.by_ref());
                }
                Posted::Bad => stats.count_drops(DropReason::BadHeader, 1),
            }
        }
        drop(waiting);
        if !left.is_empty() {
            *packets = left;
        }
        self.publish();
        stats.count_tally(&tally);
    }

    /// Posts a packet, or a copy of it where the device does not reach it.
    #[inline]
    fn post_any(&mut self, packet: Packet, cache: &mut PoolCache) -> Posted {
        if self.memory.reaches(&packet) {
            return self.post(packet);
        }
        self.post_copy(packet, cache)
    }

    #[inline(never)]
    fn post_copy(&mut self, packet: Packet, cache: &mut PoolCache) -> Posted {
        if !self.has_room(packet.len().div_ceil(DATA_ROOM) + 1) {
            return Posted::Full(packet);
        }
        let Some(copy) = self.memory.cache.copy_frame(&packet.as_frame()) else {
            return Posted::Full(packet);
        };
        match self.post(copy) {
            Posted::Full(copy) => {
                self.memory.cache.free(copy);
                Posted::Full(packet)
            }
            posted => {
                cache.free(packet);
                posted
            }
        }
    }

    /// Writes the descriptors of a packet that the device reaches.
    #[inline]
    fn post(&mut self, mut packet: Packet) -> Posted {
        let is_plain = packet.offload().csum().is_none();
        let is_short = packet.segment_count() == 1 && packet.len() <= MAX_PIECE;
        if is_plain && is_short && self.access_vlan.is_none() {
            return self.post_plain(packet);
        }
        let plan = match Plan::offloaded(&mut packet, self.access_vlan) {
            Ok(plan) => plan,
            Err(unfit) => return self.post_unfit(packet, unfit),
        };
        self.post_pieces(packet, plan)
    }

    /// The packet of nearly all frames: complete, in one piece.
    #[inline]
    fn post_plain(&mut self, packet: Packet) -> Posted {
        let len = packet.len();
        if !self.has_room(1) {
            return Posted::Full(packet);
        }
        let Some(address) = packet.device_address(&self.memory.space) else { return Posted::Bad };
        let plan = Plan::plain(len, None);
        // Never 0, since a frame has 14 bytes at least.
        if address / PAGE as u64 != address.saturating_add(len as u64 - 1) / PAGE as u64 {
            return self.post_pieces(packet, plan);
        }
        self.write(address, len, plan.bits | tx::END);
        self.keep(packet);
        Posted::Yes
    }

    /// Gathers the headers of a packet that the device cannot cut as it lies there.
    #[cold]
    fn post_unfit(&mut self, packet: Packet, unfit: Unfit) -> Posted {
        if unfit == Unfit::Bad || packet.data().len() >= DATA_ROOM {
            return Posted::Bad;
        }
        let Some(mut copy) = self.memory.cache.copy_frame(&packet.as_frame()) else {
            return Posted::Full(packet);
        };
        match Plan::offloaded(&mut copy, self.access_vlan) {
            Ok(plan) => self.post_pieces(copy, plan),
            Err(_) => Posted::Bad,
        }
    }

    /// Writes the descriptors of a packet, and a context before them where the device needs one.
    fn post_pieces(&mut self, packet: Packet, plan: Plan) -> Posted {
        let mut pieces = ArrayVec::<(u64, usize), MAX_PIECES>::new();
        let space = &self.memory.space;
        let page = packet.page_size();
        let first = packet.device_address(space).map(|address| (address, packet.data().len()));
        let rest = packet.tail().iter().map(|segment| {
            let address = packet.device_address_of(segment, space)?;
            Some((address, segment.len()))
        });
        for segment in std::iter::once(first).chain(rest) {
            let Some((address, len)) = segment else { return Posted::Bad };
            if !split(address, len, page, &mut pieces) {
                return Posted::Bad;
            }
        }
        if !self.has_room(pieces.len() + 1) {
            return Posted::Full(packet);
        }
        let mut bits = plan.bits;
        if let Some(context) = plan.context {
            let (number, is_new) = self.contexts.find(context);
            if is_new {
                self.write_words(context.descriptor(number));
            }
            bits |= (number as u64) << tx::CONTEXT_SHIFT;
        }
        let Some(((address, len), most)) = pieces.split_last() else { return Posted::Bad };
        for (address, len) in most {
            self.write(*address, *len, bits);
        }
        self.write(*address, *len, bits | tx::END);
        self.keep(packet);
        Posted::Yes
    }

    /// Writes the next data descriptor. `len` is at most [`MAX_PIECE`].
    #[inline]
    fn write(&mut self, address: u64, len: usize, bits: u64) {
        const KIND: u64 = tx::DATA | tx::ADVANCED | tx::INSERT_FCS;
        self.write_words([address, KIND | bits | len as u64]);
    }

    #[inline]
    fn write_words(&mut self, words: [u64; 2]) {
        self.memory.ring.write(self.next, words);
        self.last = Some((self.next, words));
        self.next = self.memory.ring.after(self.next);
        self.used += 1;
    }

    /// Keeps a packet until the device has dealt with the descriptor written last.
    #[inline]
    fn keep(&mut self, packet: Packet) {
        if let Some((index, _)) = self.last
            && let Some(place) = self.memory.packets.get_mut(usize::from(index))
        {
            *place = Some(packet);
        }
    }

    /// Has the device send what was written, and report the last of it.
    #[inline]
    fn publish(&mut self) {
        let Some((index, [address, bits])) = self.last.take() else { return };
        self.memory.ring.write(index, [address, bits | tx::REPORT]);
        self.reports.push_back(index);
        self.hardware.write(self.registers.tdt, self.next.into());
    }
}

impl<R: Registers> Drop for TxRing<R> {
    fn drop(&mut self) {
        if self.hardware.stop_tx(self.queue) {
            // SAFETY: it is dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            tracing::error!("transmit queue {} does not stop; its memory is given up", self.queue);
        }
    }
}

impl Memory {
    fn allocate(name: &str, ring: DescriptorRing, space: &DmaSpace) -> Result<Self, String> {
        let entries = ring.entries();
        let buffers = u32::from(entries) + SPARE;
        let pool = Pool::for_devices(name, buffers, DATA_ROOM, space)
            .map_err(|error| error.to_string())?;
        let packets = (0..entries).map(|_| None).collect();
        Ok(Self { ring, packets, cache: pool.cache(), space: space.clone() })
    }

    /// Whether the device reaches all of a packet.
    #[inline]
    fn reaches(&self, packet: &Packet) -> bool {
        // All buffers of a packet are of one pool.
        packet.device_address(&self.space).is_some()
    }

    /// Gives back the packet whose last descriptor is `index`, if there is one.
    #[inline]
    fn free(&mut self, index: u16, returns: Option<&mut Returns<'_>>) {
        let place = self.packets.get_mut(usize::from(index));
        let Some(packet) = place.and_then(Option::take) else { return };
        match returns {
            Some(returns) if !self.cache.owns(&packet) => returns.free(packet),
            _ => self.cache.free(packet),
        }
    }
}

/// Divides `len` bytes at `address` into what one descriptor each can have, none of which crosses
/// the border of pages; `false` when there is no room for them in `pieces`.
fn split(
    mut address: u64,
    mut len: usize,
    page: usize,
    pieces: &mut ArrayVec<(u64, usize), MAX_PIECES>,
) -> bool {
    while len > 0 {
        let in_page = address % (page as u64).max(1);
        let rest = usize::try_from(in_page).map_or(0, |offset| page.saturating_sub(offset));
        let piece = len.min(MAX_PIECE).min(rest.max(1));
        if pieces.try_push((address, piece)).is_err() {
            return false;
        }
        address = address.wrapping_add(piece as u64);
        len -= piece;
    }
    true
}

/// Whether a frame can be sent that has `len` bytes, or `wire_len` at most after it was cut.
#[inline]
fn check(len: usize, wire_len: usize, most: usize) -> Result<(), DropReason> {
    if len < ETHERNET_HEADER_LEN {
        Err(DropReason::TooShort)
    } else if wire_len > most {
        Err(DropReason::TooLong)
    } else {
        Ok(())
    }
}

/// The transmit queue that a worker has.
#[derive(Debug)]
pub(super) struct Transmitter<R: Registers> {
    lane: Arc<Lane<TxRing<R>>>,
    mtu: Arc<AtomicU16>,
}

impl<R: Registers> Transmitter<R> {
    pub(super) const fn new(lane: Arc<Lane<TxRing<R>>>, mtu: Arc<AtomicU16>) -> Self {
        Self { lane, mtu }
    }

    /// Bytes of the longest frame.
    #[inline]
    fn most(&self) -> usize {
        usize::from(self.mtu.load(Relaxed)) + LINK_HEADERS
    }
}

impl<R: Registers> TxDriver for Transmitter<R> {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        if !self.lane.is_ready() {
            return Sent::all_dropped(frames.len(), stats, DropReason::LinkDown);
        }
        let most = self.most();
        // Should the control side have the ring just now, there is no room for a moment.
        let Some(mut guard) = self.lane.ring.try_lock() else { return Sent::NONE };
        match guard.as_mut() {
            Some(ring) => ring.send_frames(frames, most, stats),
            None => Sent::all_dropped(frames.len(), stats, DropReason::LinkDown),
        }
    }

    fn takes(&self) -> Capabilities {
        let guard = self.lane.ring.try_lock();
        let ring = guard.as_ref().and_then(|guard| guard.as_ref());
        // Without the ring there is no room either.
        ring.map_or(Capabilities::empty(), |ring| ring.takes)
    }

    fn keeps_packets(&self) -> bool {
        true
    }

    fn transmit_packets(
        &mut self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
        stats: &QueueStats,
    ) {
        let most = self.most();
        if self.lane.is_ready() {
            let Some(mut guard) = self.lane.ring.try_lock() else { return };
            if let Some(ring) = guard.as_mut() {
                ring.send_packets(packets, most, cache, stats);
                return;
            }
        }
        stats.count_drops(DropReason::LinkDown, packets.len());
        cache.free_burst(packets.drain(..));
    }

    #[inline]
    fn is_ready(&self) -> bool {
        self.lane.is_ready()
    }

    fn flush(&mut self) -> bool {
        if let Some(mut guard) = self.lane.ring.try_lock()
            && let Some(ring) = guard.as_mut()
        {
            ring.reclaim(None);
        }
        false
    }
}
