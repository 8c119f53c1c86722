//! Frames for the guest, copied once, from wherever they lie into the buffers that the guest
//! offers in its receive ring.

use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::drop_reason::DropReason;
use ethdev::queue::{Sent, TxDriver};
use ethdev::stats::QueueStats;
use packet::{Alike, Burst, Capabilities, Frame, FrameReader, RawSegment};
use virtio::device::burst::MAX_BUFFERS;
use virtio::device::{Buffer, Buffers, ChainError, MAX_CHAIN, RingError};
use virtio::{LEGACY_NET_HEADER_LEN, NET_HEADER_LEN, NetHeader};

use super::filter::ReceiveFilter;
use super::ring::{Ring, RingSlot};

/// The transmit side of one queue pair: fills the guest's receive ring.
pub struct NetTransmitter {
    slot: Arc<RingSlot>,
    buffers: Buffers,
    /// Scratch for the buffers of one frame that does not fit into a single descriptor.
    spread: Vec<RawSegment>,
    chain: Vec<RawSegment>,
}

/// What came of one frame.
enum Outcome {
    Delivered,
    Dropped(DropReason),
    /// The fetched buffers do not suffice.
    OutOfBuffers,
}

impl NetTransmitter {
    /// A transmitter on the ring that `slot` holds from time to time.
    #[must_use]
    pub fn new(slot: Arc<RingSlot>) -> Self {
        Self {
            slot,
            buffers: Buffers::default(),
            spread: Vec::with_capacity(MAX_CHAIN),
            chain: Vec::with_capacity(MAX_CHAIN),
        }
    }

    /// Sends as many of `frames` as the ring has buffers for. Only if `offloaded` may frames have
    /// offloads.
    fn send(
        &mut self,
        ring: &mut Ring,
        frames: Burst<'_, '_>,
        offloaded: bool,
        stats: &QueueStats,
    ) -> Result<Sent, RingError> {
        let mut sent = Sent::NONE;
        // One buffer per frame will do, as a rule; when a frame needs several, take all.
        let mut wanted = frames.len();
        while sent.consumed < frames.len() {
            let rest = frames.part(sent.consumed, frames.len());
            ring.queue.fetch::<true>(wanted, &mut self.buffers)?;
            if let Some(gate) = &mut ring.gate {
                gate.admit::<true>(&mut ring.queue, &mut self.buffers);
            }
            let fetched = self.buffers.as_slice().len();
            let before = sent.consumed;
            // SAFETY: the buffers were fetched from this ring just now.
            let used = unsafe {
                match (offloaded, ring.header_len) {
                    (true, _) => self.fill_offloaded(ring, rest, &mut sent, stats),
                    (false, NET_HEADER_LEN) => self.fill::<Plain>(ring, rest, &mut sent, stats),
                    (false, _) => self.fill::<PlainLegacy>(ring, rest, &mut sent, stats),
                }
            };
            ring.queue.advance(&self.buffers, used);
            ring.queue.complete_written(&self.buffers, used);
            if sent.consumed > before {
                // Where one frame needed many buffers, the next one will.
                if wanted < MAX_BUFFERS {
                    wanted = frames.len() - sent.consumed;
                }
            } else if ring.queue.awaited().is_some() {
                break; // It is not known yet where the next one lies.
            } else if fetched < wanted.min(MAX_BUFFERS) {
                self.slot.check_memory(ring);
                break; // The ring has no more.
            } else if wanted < MAX_BUFFERS {
                wanted = MAX_BUFFERS;
            } else {
                // Even a full set of buffers is too small for this frame.
                sent.add_dropped(stats, DropReason::BufferTooSmall);
            }
        }
        Ok(sent)
    }

    /// Sends those of `frames` that the guest wants.
    #[cold]
    fn send_filtered(
        &mut self,
        ring: &mut Ring,
        filter: &ReceiveFilter,
        frames: &[Frame<'_>],
        offloaded: bool,
        stats: &QueueStats,
    ) -> Result<Sent, RingError> {
        let mut sent = Sent::NONE;
        for frame in frames {
            if !filter.accepts(frame.head()) {
                sent.add_dropped(stats, DropReason::Filtered);
                continue;
            }
            let one = Burst::new(std::slice::from_ref(frame));
            let one = self.send(ring, one, offloaded, stats)?;
            match (one.consumed, one.dropped) {
                (0, _) => break,
                (_, 0) => sent.add_sent(),
                (..) => sent.mark_dropped(),
            }
        }
        Ok(sent)
    }

    /// Fills the fetched buffers with frames from the front of `frames`; returns how many buffers
    /// go back to the guest.
    ///
    /// # Safety
    ///
    /// The buffers must be what was fetched last from this ring: then its memory is theirs.
    #[inline]
    unsafe fn fill<H: Header>(
        &mut self,
        ring: &mut Ring,
        frames: Burst<'_, '_>,
        sent: &mut Sent,
        stats: &QueueStats,
    ) -> usize {
        let alike = frames.alike().filter(|alike| H::IS_SAME && alike.have_near_heads());
        let (mut used, mut rest) = (0, frames.as_slice());
        loop {
            let buffers = self.buffers.as_mut_slice().get_mut(used..).unwrap_or_default();
            // SAFETY: the ring, which is held, has the memory of its buffers.
            let filled = unsafe {
                match alike {
                    Some(alike) => fill_alike::<H>(rest, alike, buffers),
                    None => fill_singles::<H>(rest, buffers),
                }
            };
            sent.add_sent_many(filled);
            used += filled;
            rest = rest.get(filled..).unwrap_or_default();
            // The next frame does not fit into a buffer of one piece, or there is none.
            let Some((frame, others)) = rest.split_first() else { return used };
            // SAFETY: as the caller says.
            match unsafe { self.fill_several(ring, frame, &mut used) } {
                Outcome::Delivered => sent.add_sent(),
                Outcome::Dropped(reason) => sent.add_dropped(stats, reason),
                Outcome::OutOfBuffers => return used,
            }
            rest = others;
        }
    }

    /// As [`fill`](Self::fill), for frames with offloads. Apart, so that complete frames need not
    /// share their registers with it.
    ///
    /// # Safety
    ///
    /// As for [`fill`](Self::fill).
    #[inline(never)]
    unsafe fn fill_offloaded(
        &mut self,
        ring: &mut Ring,
        frames: Burst<'_, '_>,
        sent: &mut Sent,
        stats: &QueueStats,
    ) -> usize {
        let before = *sent;
        // SAFETY: as the caller says.
        let used = unsafe {
            match ring.header_len {
                NET_HEADER_LEN => self.fill::<Offloaded>(ring, frames, sent, stats),
                _ => self.fill::<OffloadedLegacy>(ring, frames, sent, stats),
            }
        };
        let is_large = |(index, frame): &(usize, &Frame<'_>)| {
            frame.offload().gso().is_some() && !sent.is_dropped(before.consumed + index)
        };
        let consumed = frames.iter().take(sent.consumed - before.consumed).enumerate();
        self.slot.large_segments.add(consumed.filter(is_large).count() as u64);
        used
    }

    /// Delivers a frame into a chain of several descriptors, or into several buffers where they
    /// may be merged, starting at fetched buffer `used`, which moves on.
    ///
    /// # Safety
    ///
    /// As for [`fill`](Self::fill).
    #[cold]
    #[inline(never)]
    unsafe fn fill_several(
        &mut self,
        ring: &mut Ring,
        frame: &Frame<'_>,
        used: &mut usize,
    ) -> Outcome {
        let needed = ring.header_len + frame.len();
        let mut lens: ArrayVec<usize, MAX_BUFFERS> = ArrayVec::new();
        self.spread.clear();
        let mut room = 0;
        while room < needed {
            let index = *used + lens.len();
            let Some(buffer) = self.buffers.as_slice().get(index).copied() else {
                return Outcome::OutOfBuffers;
            };
            if let Err(error) = self.resolve(ring, &buffer) {
                if error == ChainError::Untranslated {
                    return Outcome::OutOfBuffers;
                }
                // The bad chain goes back empty, after those before it; the frame tries again
                // with what follows.
                self.slot.bad_chains.add(1);
                if !lens.is_empty() {
                    return Outcome::OutOfBuffers;
                }
                self.set_written(index, 0);
                *used += 1;
                continue;
            }
            let len: usize = self.chain.iter().map(RawSegment::len).sum();
            let fits = room + len >= needed;
            if !fits && !ring.mergeable || self.spread.len() + self.chain.len() > MAX_CHAIN {
                return Outcome::Dropped(DropReason::BufferTooSmall);
            }
            self.spread.extend_from_slice(&self.chain);
            if lens.try_push(len.min(needed - room)).is_err() {
                return Outcome::OutOfBuffers;
            }
            room += len;
        }
        // SAFETY: the pieces were translated from the memory of the ring, which is held.
        unsafe { write_spread(&self.spread, ring.header_len, frame, lens.len()) };
        ring.queue.log_written(&self.spread, needed);
        for len in lens {
            self.set_written(*used, len);
            *used += 1;
        }
        Outcome::Delivered
    }

    /// Notes how much was written into a fetched buffer.
    fn set_written(&mut self, index: usize, len: usize) {
        if let Some(buffer) = self.buffers.as_mut_slice().get_mut(index) {
            buffer.set_written(u32::try_from(len).unwrap_or(u32::MAX));
        }
    }

    /// The memory of one fetched buffer, in `self.chain`.
    fn resolve(&mut self, ring: &mut Ring, buffer: &Buffer) -> Result<(), ChainError> {
        match buffer.single() {
            Some(segment) => {
                self.chain.clear();
                self.chain.push(segment);
                Ok(())
            }
            None => ring.walk::<true>(buffer.chain(), &mut self.chain),
        }
    }
}

/// Writes frames from the front of `frames` into one buffer each, as long as each fits; returns
/// how many did.
///
/// First the headers and heads of all frames, in a loop without a call, and then what remains of
/// those that are longer.
///
/// # Safety
///
/// The memory of the buffers must be that of a ring which is held.
#[inline]
unsafe fn fill_singles<H: Header>(frames: &[Frame<'_>], buffers: &mut [Buffer]) -> usize {
    let (mut filled, mut all_whole) = (0, true);
    for (frame, buffer) in frames.iter().zip(&mut *buffers) {
        let needed = H::LEN + frame.len();
        let Some(room) = buffer.single().filter(|room| room.len() >= needed) else { break };
        // SAFETY: the buffer has room for header and frame, and the caller vouches for its memory.
        all_whole &= unsafe {
            H::write(room.as_ptr(), frame);
            frame.copy_first_to_ptr(room.as_ptr().add(H::LEN))
        };
        #[allow(clippy::cast_possible_truncation, reason = "at most a segment's length, a u32")]
        buffer.set_written(needed as u32);
        filled += 1;
    }
    if !all_whole {
        let written = frames.iter().zip(&*buffers).take(filled);
        // SAFETY: the loop above came to `filled` with these, and the caller vouches for the memory.
        unsafe { write_rests::<H>(written) };
    }
    filled
}

/// As [`fill_singles`], for frames that are alike and have near heads: nothing of one is looked at that is so of
/// all.
///
/// # Safety
///
/// As there; and `alike` must be what the frames have in common.
#[inline]
unsafe fn fill_alike<H: Header>(
    frames: &[Frame<'_>],
    alike: Alike,
    buffers: &mut [Buffer],
) -> usize {
    let (needed, head_len) = (H::LEN + alike.len(), alike.head_len());
    let mut filled = 0;
    for (frame, buffer) in frames.iter().zip(&mut *buffers) {
        let Some(room) = buffer.single().filter(|room| room.len() >= needed) else { break };
        // SAFETY: the buffer has room for header and frame, and the caller vouches for its memory, and for
        // the length of all heads.
        unsafe {
            H::write(room.as_ptr(), frame);
            frame.copy_near_to_ptr(room.as_ptr().add(H::LEN), head_len);
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most a segment's length, a u32")]
        buffer.set_written(needed as u32);
        filled += 1;
    }
    if alike.len() > head_len {
        let written = frames.iter().zip(&*buffers).take(filled);
        // SAFETY: the loop above came to `filled` with these, and the caller vouches for the memory.
        unsafe { write_rests::<H>(written) };
    }
    filled
}

/// Writes what remains of `frames` behind their heads into one buffer each. Apart, so that it has
/// the registers for itself: each call of a copy costs those of its caller.
///
/// # Safety
///
/// Each buffer must have room for header and frame, and its memory must be that of a ring which is
/// held.
#[inline(never)]
unsafe fn write_rests<'a, H: Header>(frames: impl Iterator<Item = (&'a Frame<'a>, &'a Buffer)>) {
    for (frame, buffer) in frames {
        let Some(room) = buffer.single() else { break };
        // SAFETY: as the caller says.
        unsafe { frame.copy_rest_to_ptr(room.as_ptr().add(H::LEN)) };
    }
}

/// Net headers of one length, for frames that lie in one buffer.
trait Header {
    /// Their length in bytes.
    const LEN: usize;

    /// Whether complete frames alone have them, and the same: those that mostly are alike.
    const IS_SAME: bool = false;

    /// Writes the header of `frame` to `to`.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of [`LEN`](Self::LEN) bytes.
    unsafe fn write(to: NonNull<u8>, frame: &Frame<'_>);
}

/// The last four bytes of the header of a frame in one buffer: the number of buffers is the last
/// field.
const ONE_BUFFER: u32 = u32::from_le_bytes([0, 0, 1, 0]);

/// An ordinary frame in one buffer.
enum Plain {}
/// The same, with the header of drivers that know neither version 1 nor mergeable buffers.
enum PlainLegacy {}
/// A frame that may have an offload.
enum Offloaded {}
/// The same, with the short header.
enum OffloadedLegacy {}

impl Header for Plain {
    const LEN: usize = NET_HEADER_LEN;
    const IS_SAME: bool = true;

    /// A header that is there already stays untouched: where it has a cache line to itself, as
    /// with DPDK's drivers, that line then never leaves either side's cache.
    #[inline]
    unsafe fn write(to: NonNull<u8>, _frame: &Frame<'_>) {
        // SAFETY: 12 bytes; the last two are the number of buffers. What is read is compared and
        // nothing else, so that it does not matter what the guest does to it meanwhile.
        unsafe {
            let (first, last) = (to.cast::<u64>(), to.add(8).cast::<u32>());
            if first.read_unaligned() != 0 || last.read_unaligned() != ONE_BUFFER {
                first.write_unaligned(0);
                last.write_unaligned(ONE_BUFFER);
            }
        }
    }
}

impl Header for PlainLegacy {
    const LEN: usize = LEGACY_NET_HEADER_LEN;

    #[inline]
    unsafe fn write(to: NonNull<u8>, _frame: &Frame<'_>) {
        // SAFETY: 10 bytes.
        unsafe {
            to.cast::<u64>().write_unaligned(0);
            to.add(8).cast::<u16>().write_unaligned(0);
        }
    }
}

impl Header for Offloaded {
    const LEN: usize = NET_HEADER_LEN;

    #[inline]
    unsafe fn write(to: NonNull<u8>, frame: &Frame<'_>) {
        let header = NetHeader::for_offload(frame.offload(), 1).encode();
        // SAFETY: the header is as long as `LEN` says.
        unsafe { to.cast().write_unaligned(header) };
    }
}

impl Header for OffloadedLegacy {
    const LEN: usize = LEGACY_NET_HEADER_LEN;

    #[inline]
    unsafe fn write(to: NonNull<u8>, frame: &Frame<'_>) {
        let header = NetHeader::for_offload(frame.offload(), 1).encode();
        // SAFETY: the first 10 bytes of a header of 12.
        unsafe { std::ptr::copy_nonoverlapping(header.as_ptr(), to.as_ptr(), Self::LEN) };
    }
}

/// Writes net header and frame over several pieces of memory, which together have the room.
///
/// # Safety
///
/// The pieces must be valid for writes.
unsafe fn write_spread(
    pieces: &[RawSegment],
    header_len: usize,
    frame: &Frame<'_>,
    buffers: usize,
) {
    let num_buffers = u16::try_from(buffers).unwrap_or(1);
    let header = NetHeader::for_offload(frame.offload(), num_buffers).encode();
    let mut header = header.get(..header_len).unwrap_or_default();
    let mut reader = FrameReader::new(frame);
    for piece in pieces {
        let count = header.len().min(piece.len());
        let (now, later) = header.split_at(count);
        header = later;
        // SAFETY: `count` header bytes and then at most the rest of the piece are written,
        // which the caller vouches for.
        unsafe {
            std::ptr::copy_nonoverlapping(now.as_ptr(), piece.as_ptr().as_ptr(), count);
            reader.copy_next(piece.as_ptr().add(count), piece.len() - count);
        }
    }
}

impl NetTransmitter {
    #[inline]
    fn transmit_burst(
        &mut self,
        frames: Burst<'_, '_>,
        offloaded: bool,
        stats: &QueueStats,
    ) -> Sent {
        let Some(mut loan) = self.slot.check_out() else {
            if self.slot.is_ready() {
                // The control thread is at the ring just now: try again.
                return Sent::NONE;
            }
            return Sent::all_dropped(frames.len(), stats, DropReason::LinkDown);
        };
        let ring: &mut Ring = &mut loan;
        let frames = if offloaded { until_refused(frames, ring.takes) } else { frames };
        let sent = match &ring.filter {
            _ if !ring.enabled => {
                Ok(Sent::all_dropped(frames.len(), stats, DropReason::QueueDisabled))
            }
            None => self.send(ring, frames, offloaded, stats),
            Some(filter) => {
                let filter = Arc::clone(filter);
                self.send_filtered(ring, &filter, &frames, offloaded, stats)
            }
        };
        let sent = sent.unwrap_or_else(|error| {
            self.slot.break_ring(ring, error);
            Sent::all_dropped(frames.len(), stats, DropReason::LinkDown)
        });
        self.slot.call(ring);
        if ring.asks.is_some() {
            ring.look_ahead(&mut self.buffers, &mut self.chain);
        }
        self.slot.check_in(loan);
        sent
    }
}

/// The frames before the first that needs more than the guest takes. There is such a frame only
/// if the guest has just switched offloads, and then the caller tries it again another way.
fn until_refused<'s, 'f>(frames: Burst<'s, 'f>, takes: Capabilities) -> Burst<'s, 'f> {
    let refused = frames.iter().position(|frame| !takes.contains(frame.offload().needs()));
    refused.map_or(frames, |index| frames.part(0, index))
}

impl TxDriver for NetTransmitter {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        self.transmit_burst(Burst::new(frames), false, stats)
    }

    fn transmit_known(&mut self, frames: Burst<'_, '_>, stats: &QueueStats) -> Sent {
        self.transmit_burst(frames, false, stats)
    }

    fn takes(&self) -> Capabilities {
        self.slot.takes()
    }

    fn transmit_offloaded(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        self.transmit_burst(Burst::new(frames), true, stats)
    }

    fn depth(&mut self) -> Option<u32> {
        self.slot.depth()
    }

    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }
}

impl std::fmt::Debug for NetTransmitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetTransmitter").field("slot", &self.slot).finish_non_exhaustive()
    }
}
