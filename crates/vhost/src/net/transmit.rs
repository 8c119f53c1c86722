//! Frames for the guest, copied once, from wherever they lie into the buffers that the guest
//! offers in its receive ring.

use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::queue::{Sent, TxDriver};
use ethdev::stats::{DropReason, QueueStats};
use packet::{Capabilities, Frame, FrameReader, Segment};
use virtio::device::burst::MAX_BUFFERS;
use virtio::device::{Buffers, Chain, ChainError, MAX_CHAIN, RingError};
use virtio::{NET_HEADER_LEN, NetHeader};

use super::filter::ReceiveFilter;
use super::ring::{Ring, RingSlot};

/// The transmit side of one queue pair: fills the guest's receive ring.
pub struct NetTransmitter {
    slot: Arc<RingSlot>,
    buffers: Buffers,
    used: ArrayVec<(Chain, u32), MAX_BUFFERS>,
    /// Scratch for the buffers of one frame that does not fit into a single descriptor.
    spread: Vec<Segment>,
    chain: Vec<Segment>,
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
            used: ArrayVec::new(),
            spread: Vec::with_capacity(MAX_CHAIN),
            chain: Vec::with_capacity(MAX_CHAIN),
        }
    }

    /// Sends as many of `frames` as the ring has buffers for. Only if `offloaded` may frames have
    /// offloads.
    fn send(
        &mut self,
        ring: &mut Ring,
        frames: &[Frame<'_>],
        offloaded: bool,
        stats: &QueueStats,
    ) -> Result<Sent, RingError> {
        let mut sent = Sent::NONE;
        // One buffer per frame will do, as a rule; when a frame needs several, take all.
        let mut wanted = frames.len();
        while let Some(rest) = frames.get(sent.consumed..).filter(|rest| !rest.is_empty()) {
            ring.queue.fetch::<true>(wanted, &mut self.buffers)?;
            let fetched = self.buffers.chains().len();
            let before = sent.consumed;
            if offloaded {
                self.fill_offloaded(ring, rest, &mut sent, stats);
            } else {
                self.fill::<false>(ring, rest, &mut sent, stats);
            }
            ring.queue.advance(&self.buffers, self.used.len());
            ring.queue.complete(self.used.drain(..));
            if sent.consumed > before {
                // Where one frame needed many buffers, the next one will.
                if wanted < MAX_BUFFERS {
                    wanted = frames.len() - sent.consumed;
                }
            } else if fetched < wanted.min(MAX_BUFFERS) {
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
            let one = self.send(ring, std::slice::from_ref(frame), offloaded, stats)?;
            match (one.consumed, one.dropped) {
                (0, _) => break,
                (_, 0) => sent.add_sent(),
                (..) => sent.mark_dropped(),
            }
        }
        Ok(sent)
    }

    /// Fills the fetched buffers with frames from the front of `frames`, and lists the filled
    /// ones, which go back to the guest.
    #[inline]
    fn fill<const OFFLOADED: bool>(
        &mut self,
        ring: &mut Ring,
        frames: &[Frame<'_>],
        sent: &mut Sent,
        stats: &QueueStats,
    ) {
        self.used.clear();
        let (header_len, mut next) = (ring.header_len, 0);
        for frame in frames {
            let Some((chain, single)) = self.buffers.get(next) else { break };
            let needed = header_len + frame.len();
            let outcome = match single {
                Some(buffer) if buffer.len() >= needed => {
                    // SAFETY: the buffer has room for header and frame.
                    unsafe { write_frame::<OFFLOADED>(buffer.as_ptr(), header_len, frame) };
                    self.give_back(chain, needed);
                    next += 1;
                    Outcome::Delivered
                }
                _ => self.fill_several(ring, frame, &mut next),
            };
            match outcome {
                Outcome::Delivered => {
                    if OFFLOADED && frame.offload().gso().is_some() {
                        self.slot.large_segments.add(1);
                    }
                    sent.add_sent();
                }
                Outcome::Dropped(reason) => sent.add_dropped(stats, reason),
                Outcome::OutOfBuffers => break,
            }
        }
    }

    /// As [`fill`](Self::fill), for frames with offloads. Apart, so that complete frames need not
    /// share their registers with it.
    #[inline(never)]
    fn fill_offloaded(
        &mut self,
        ring: &mut Ring,
        frames: &[Frame<'_>],
        sent: &mut Sent,
        stats: &QueueStats,
    ) {
        self.fill::<true>(ring, frames, sent, stats);
    }

    /// Adds a buffer to those that the guest gets back; `len` bytes of it were written.
    #[inline]
    fn give_back(&mut self, chain: Chain, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        // There is an entry for every fetched buffer, so this cannot fail.
        let _ = self.used.try_push((chain, len));
    }

    /// Delivers a frame into a chain of several descriptors, or into several buffers where they
    /// may be merged, starting at fetched buffer `next`.
    #[cold]
    fn fill_several(&mut self, ring: &mut Ring, frame: &Frame<'_>, next: &mut usize) -> Outcome {
        let needed = ring.header_len + frame.len();
        let mut lens: ArrayVec<(Chain, usize), MAX_BUFFERS> = ArrayVec::new();
        self.spread.clear();
        let mut room = 0;
        let mut index = *next;
        while room < needed {
            let Some((chain, single)) = self.buffers.get(index) else {
                return Outcome::OutOfBuffers;
            };
            index += 1;
            if self.resolve(ring, chain, single).is_err() {
                // The bad chain goes back empty, after those before it; the frame tries again
                // with what follows.
                self.slot.bad_chains.add(1);
                if !lens.is_empty() {
                    return Outcome::OutOfBuffers;
                }
                self.give_back(chain, 0);
                *next = index;
                continue;
            }
            let len: usize = self.chain.iter().map(Segment::len).sum();
            let fits = room + len >= needed;
            if !fits && !ring.mergeable || self.spread.len() + self.chain.len() > MAX_CHAIN {
                return Outcome::Dropped(DropReason::BufferTooSmall);
            }
            self.spread.extend_from_slice(&self.chain);
            if lens.try_push((chain, len.min(needed - room))).is_err() {
                return Outcome::OutOfBuffers;
            }
            room += len;
        }
        write_spread(&self.spread, ring.header_len, frame, lens.len());
        for (chain, len) in lens {
            self.give_back(chain, len);
        }
        *next = index;
        Outcome::Delivered
    }

    /// The memory of one fetched buffer, in `self.chain`.
    fn resolve(
        &mut self,
        ring: &mut Ring,
        chain: Chain,
        single: Option<Segment>,
    ) -> Result<(), ChainError> {
        match single {
            Some(segment) => {
                self.chain.clear();
                self.chain.push(segment);
                Ok(())
            }
            None => ring.queue.walk::<true>(chain, &mut self.chain),
        }
    }
}

/// Writes net header and frame into one buffer. The header says: one buffer, and, unless
/// `OFFLOADED`, ordinary frame.
///
/// # Safety
///
/// `to` must be valid for writes of `header_len` bytes (10 or 12) and the frame behind them.
#[inline]
unsafe fn write_frame<const OFFLOADED: bool>(
    to: NonNull<u8>,
    header_len: usize,
    frame: &Frame<'_>,
) {
    // SAFETY: the caller vouches for header and frame; the header is 8 bytes and 2 or 4 more.
    unsafe {
        if OFFLOADED {
            let header = NetHeader::for_offload(frame.offload(), 1).encode();
            let header_len = header_len.min(NET_HEADER_LEN);
            std::ptr::copy_nonoverlapping(header.as_ptr(), to.as_ptr(), header_len);
            frame.copy_to_ptr(to.add(header_len), frame.len());
            return;
        }
        to.cast::<u64>().write_unaligned(0);
        if header_len == NET_HEADER_LEN {
            to.add(8).cast::<u32>().write_unaligned(0x0001_0000);
        } else {
            to.add(8).cast::<u16>().write_unaligned(0);
        }
        frame.copy_to_ptr(to.add(header_len), frame.len());
    }
}

/// Writes net header and frame over several pieces of memory, which together have the room.
fn write_spread(pieces: &[Segment], header_len: usize, frame: &Frame<'_>, buffers: usize) {
    let num_buffers = u16::try_from(buffers).unwrap_or(1);
    let header = NetHeader::for_offload(frame.offload(), num_buffers).encode();
    let mut header = header.get(..header_len).unwrap_or_default();
    let mut reader = FrameReader::new(frame);
    for piece in pieces {
        let count = header.len().min(piece.len());
        let (now, later) = header.split_at(count);
        header = later;
        // SAFETY: `count` header bytes and then at most the rest of the piece are written,
        // which the translation vouched for.
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
        frames: &[Frame<'_>],
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
                self.send_filtered(ring, &filter, frames, offloaded, stats)
            }
        };
        let sent = sent.unwrap_or_else(|error| {
            self.slot.break_ring(ring, error);
            Sent::all_dropped(frames.len(), stats, DropReason::LinkDown)
        });
        self.slot.call(ring);
        self.slot.check_in(loan);
        sent
    }
}

/// The frames before the first that needs more than the guest takes. There is such a frame only
/// if the guest has just switched offloads, and then the caller tries it again another way.
fn until_refused<'s, 'f>(frames: &'s [Frame<'f>], takes: Capabilities) -> &'s [Frame<'f>] {
    let refused = frames.iter().position(|frame| !takes.contains(frame.offload().needs()));
    refused.and_then(|index| frames.get(..index)).unwrap_or(frames)
}

impl TxDriver for NetTransmitter {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        self.transmit_burst(frames, false, stats)
    }

    fn takes(&self) -> Capabilities {
        self.slot.takes()
    }

    fn transmit_offloaded(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        self.transmit_burst(frames, true, stats)
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
