//! Frames that the guest sends, borrowed from its transmit ring.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use eal::handover::Loan;
use ethdev::drop_reason::DropReason;
use ethdev::queue::RxDriver;
use ethdev::stats::QueueStats;
use packet::frame::HEAD_CAPACITY;
use packet::{
    Capabilities, ETHERNET_HEADER_LEN, FrameBatch, MAX_FRAME_LEN, MacAddr, OffloadRequest,
    RawSegment, Segment, announcement,
};
use virtio::device::{Buffer, Buffers, Chain, ChainError, MAX_CHAIN};
use virtio::net_header::{GSO_NONE, NEEDS_CSUM};
use virtio::{NET_HEADER_LEN, NetHeader};

use super::ring::{Ring, RingSlot};

/// Body segments in a batch: a burst of ordinary chains, and any one chain at its longest.
const SEGMENTS: usize = 2 * MAX_CHAIN;

/// The receive side of one queue pair: polls the guest's transmit ring.
pub struct NetReceiver {
    slot: Arc<RingSlot>,
    /// The ring, while the frames of a burst lie in it.
    held: Option<Loan<Box<Ring>>>,
    /// The chains of the burst; all of `taken` go back at its end.
    buffers: Buffers,
    taken: usize,
    batch: FrameBatch,
    /// Scratch for one chain.
    chain: Vec<RawSegment>,
}

impl NetReceiver {
    /// A receiver on the ring that `slot` holds from time to time.
    #[must_use]
    pub fn new(slot: Arc<RingSlot>) -> Self {
        Self {
            slot,
            held: None,
            buffers: Buffers::default(),
            taken: 0,
            batch: FrameBatch::with_segments(SEGMENTS),
            chain: Vec::with_capacity(MAX_CHAIN),
        }
    }

    /// Takes frames from `ring` into the batch; returns how many chains that used up.
    ///
    /// # Safety
    ///
    /// The buffers must be what was fetched last from this ring, which must be held until the batch
    /// is cleared: so are then the chains' memory and all that was translated from it.
    unsafe fn take_frames(&mut self, ring: &mut Ring, stats: &QueueStats) -> usize {
        let mut taken = 0;
        loop {
            let rest = self.buffers.as_slice().get(taken..).unwrap_or_default();
            // SAFETY: as the caller says.
            taken += unsafe { push_singles(&mut self.batch, ring.header_len, rest) };
            // The next one is no ordinary frame in one piece, or there is none.
            let Some(buffer) = self.buffers.as_slice().get(taken) else { break };
            let (chain, single) = (buffer.chain(), buffer.single());
            // SAFETY: as the caller says.
            match unsafe { self.push_unusual(ring, chain, single) } {
                Ok(()) => {}
                Err(Refusal::NotNow) => break,
                Err(Refusal::Drop(reason)) => {
                    if reason == DropReason::BadDescriptor {
                        self.slot.bad_chains.add(1);
                    }
                    stats.count_drops(reason, 1);
                }
            }
            taken += 1;
        }
        taken
    }

    /// # Safety
    ///
    /// As for [`take_frames`](Self::take_frames).
    #[cold]
    #[inline(never)]
    unsafe fn push_unusual(
        &mut self,
        ring: &mut Ring,
        chain: Chain,
        single: Option<RawSegment>,
    ) -> Result<(), Refusal> {
        // SAFETY: as the caller says.
        unsafe {
            match single {
                Some(raw) => push_single(&mut self.batch, ring, &self.slot, raw.get()),
                None => push_chain(&mut self.batch, ring, &self.slot, chain, &mut self.chain),
            }
        }
    }
}

/// Adds the frames at the front of `buffers` that lie in one piece, net header included, and
/// need nothing; returns how many those are.
///
/// # Safety
///
/// The ring that the buffers were fetched from must be held until the batch is cleared.
#[inline]
unsafe fn push_singles(batch: &mut FrameBatch, header_len: usize, buffers: &[Buffer]) -> usize {
    let shortest = header_len + ETHERNET_HEADER_LEN;
    let longest = header_len + MAX_FRAME_LEN;
    let frames = buffers.iter().map_while(|buffer| {
        // SAFETY: the ring is held, and with it its memory.
        let segment = unsafe { buffer.single()?.get() };
        if segment.len() < shortest || segment.len() > longest {
            return None;
        }
        // SAFETY: the segment has at least `shortest` bytes.
        let [flags, gso_type] = unsafe { segment.as_ptr().cast::<[u8; 2]>().read_volatile() };
        is_plain(flags, gso_type).then(|| segment.skip(header_len))
    });
    // SAFETY: the ring is held, and with it its memory, until the batch is cleared.
    unsafe { batch.extend_shared(frames) }
}

/// Why a chain did not become a frame of the batch.
enum Refusal {
    /// The batch is full, or it is not known yet where the chain lies: it stays in the ring for
    /// the next burst.
    NotNow,
    /// The frame is dropped.
    Drop(DropReason),
}

/// Adds the frame of a chain that is one descriptor, net header and frame in one piece, but too
/// short, too long, or with a net header that asks for something.
///
/// # Safety
///
/// The segment must stay valid until the batch is cleared.
unsafe fn push_single(
    batch: &mut FrameBatch,
    ring: &Ring,
    slot: &Arc<RingSlot>,
    segment: Segment<'_>,
) -> Result<(), Refusal> {
    if segment.len() < ring.header_len + ETHERNET_HEADER_LEN {
        return Err(Refusal::Drop(DropReason::TooShort));
    }
    if segment.len() > ring.header_len + MAX_FRAME_LEN {
        return Err(Refusal::Drop(DropReason::TooLong));
    }
    let mut segments = [segment];
    let header = take_header(&mut segments, ring.header_len);
    // SAFETY: as the caller says.
    unsafe { push_with_header(batch, ring.sends, slot, header, &segments) }
}

/// Adds the frame of a chain of several descriptors, or of one with an indirect table; the net
/// header may be spread over any number of them.
///
/// # Safety
///
/// The ring must be held until the batch is cleared.
unsafe fn push_chain(
    batch: &mut FrameBatch,
    ring: &mut Ring,
    slot: &Arc<RingSlot>,
    chain: Chain,
    scratch: &mut Vec<RawSegment>,
) -> Result<(), Refusal> {
    match ring.walk::<false>(chain, scratch) {
        Ok(()) => {}
        Err(ChainError::Untranslated) => return Err(Refusal::NotNow),
        Err(_) => return Err(Refusal::Drop(DropReason::BadDescriptor)),
    }
    // SAFETY: the ring is held, and with it the memory that it has just translated them from.
    let segments = unsafe { RawSegment::get_all_mut(scratch) };
    let len: usize = segments.iter().map(Segment::len).sum();
    if len < ring.header_len + ETHERNET_HEADER_LEN {
        return Err(Refusal::Drop(DropReason::TooShort));
    }
    if len > ring.header_len + MAX_FRAME_LEN {
        return Err(Refusal::Drop(DropReason::TooLong));
    }
    let header = take_header(segments, ring.header_len);
    // SAFETY: as the caller says.
    unsafe { push_with_header(batch, ring.sends, slot, header, segments) }
}

/// Adds a frame of `segments`, whose net header was `header`.
///
/// # Safety
///
/// The segments must stay valid until the batch is cleared.
unsafe fn push_with_header(
    batch: &mut FrameBatch,
    sends: Capabilities,
    slot: &RingSlot,
    header: NetHeader,
    segments: &[Segment<'_>],
) -> Result<(), Refusal> {
    if !batch.has_room(segments.len()) {
        return Err(Refusal::NotNow);
    }
    if !is_plain(header.flags, header.gso_type) {
        // SAFETY: as the caller says.
        return unsafe { push_offloaded(batch, sends, slot, header, segments) };
    }
    // SAFETY: as the caller says.
    if unsafe { batch.push_shared_chain(segments) } {
        Ok(())
    } else {
        Err(Refusal::Drop(DropReason::TooLong))
    }
}

/// Copies the first bytes of `chain` to `to` and cuts them off.
fn take_front(chain: &mut [Segment<'_>], to: &mut [u8]) {
    let mut done = 0;
    for segment in chain {
        let Some(room) = to.get_mut(done..).filter(|room| !room.is_empty()) else { return };
        let count = segment.copy_to(room);
        *segment = segment.skip(count);
        done += count;
    }
}

/// A private copy of the net header at the start of `chain`, which is cut off.
fn take_header(chain: &mut [Segment<'_>], header_len: usize) -> NetHeader {
    let mut header = [0; NET_HEADER_LEN];
    take_front(chain, header.get_mut(..header_len).unwrap_or_default());
    NetHeader::decode(header)
}

/// Whether a net header asks for nothing.
#[inline]
const fn is_plain(flags: u8, gso_type: u8) -> bool {
    flags & NEEDS_CSUM == 0 && gso_type == GSO_NONE
}

/// Adds a frame whose net header asks for something, if that was negotiated (`sends`) and holds
/// for the frame (virtio 1.3 sections 5.1.6.2 and 5.1.6.2.1).
///
/// # Safety
///
/// The segments must stay valid until the batch is cleared.
unsafe fn push_offloaded(
    batch: &mut FrameBatch,
    sends: Capabilities,
    slot: &RingSlot,
    header: NetHeader,
    segments: &[Segment<'_>],
) -> Result<(), Refusal> {
    let Some(request) = header.request() else {
        return Err(Refusal::Drop(DropReason::BadHeader));
    };
    // What a guest knows about its frames is its own opinion.
    let request = OffloadRequest { data_valid: false, ..request };
    // SAFETY: as the caller says.
    if !unsafe { batch.push_shared_with_head(segments, HEAD_CAPACITY) } {
        return Err(Refusal::NotNow);
    }
    let refused = |_| Refusal::Drop(DropReason::BadHeader);
    batch.set_offload(&request, sends).map_err(refused)?;
    slot.large_segments.add(u64::from(request.gso.is_some()));
    Ok(())
}

impl RxDriver for NetReceiver {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.release();
        let Some(mut loan) = self.slot.check_out() else { return };
        let ring: &mut Ring = &mut loan;
        if let Err(error) = ring.queue.fetch::<false>(max, &mut self.buffers) {
            self.slot.break_ring(ring, error);
            self.slot.check_in(loan);
            return;
        }
        if let Some(gate) = &mut ring.gate {
            gate.admit::<false>(&mut ring.queue, &mut self.buffers);
        }
        if self.buffers.as_slice().is_empty() {
            self.slot.check_memory(ring);
            // A guest that sends is known without it.
            let moved = if ring.enabled { ring.announce.take() } else { None };
            self.slot.check_in(loan);
            if let Some(mac) = moved {
                self.batch.push_copy(&announcement(MacAddr(mac)));
            }
            return;
        }
        let taken = if ring.enabled {
            // SAFETY: they were fetched just now, and the loan is kept until `release`, which clears
            // the batch first.
            unsafe { self.take_frames(ring, stats) }
        } else if ring.pending {
            0
        } else {
            // A ring that is started but disabled is drained, its frames are discarded
            // (vhost-user, "Ring states").
            let count = self.buffers.as_slice().len();
            stats.count_drops(DropReason::QueueDisabled, count);
            count
        };
        if taken == 0 {
            // The first chain waits for its translation, or all wait until the ring is enabled.
            self.slot.check_in(loan);
            return;
        }
        ring.queue.advance(&self.buffers, taken);
        self.taken = taken;
        self.held = Some(loan);
        if self.batch.frames().is_empty() {
            self.release();
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
        let Some(mut loan) = self.held.take() else { return };
        let ring: &mut Ring = &mut loan;
        ring.queue.complete_read(&self.buffers, self.taken);
        self.slot.call(ring);
        self.slot.check_in(loan);
    }

    fn depth(&mut self) -> Option<u32> {
        self.release();
        self.slot.depth()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.slot.wait_fd()
    }

    fn arm(&mut self) -> bool {
        self.release();
        // Without a ring there is nothing to wait for but the control thread, which wakes us.
        let Some(mut loan) = self.slot.check_out() else { return true };
        // Without a kick file the front-end asks for polling. Where the ring waits for pages, for a
        // translation or to be enabled, the control thread wakes us.
        let is_told = loan.kick.is_some() || loan.inband;
        let waits = loan.waits_for_pages() || loan.queue.awaited().is_some() || loan.pending;
        let armed = is_told && loan.queue.arm() || waits;
        self.slot.check_in(loan);
        armed
    }

    fn disarm(&mut self) {
        self.slot.take_kicks();
        let Some(mut loan) = self.slot.check_out() else { return };
        loan.queue.disarm();
        self.slot.check_in(loan);
    }
}

impl Drop for NetReceiver {
    fn drop(&mut self) {
        self.release();
    }
}

impl std::fmt::Debug for NetReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetReceiver").field("slot", &self.slot).finish_non_exhaustive()
    }
}
