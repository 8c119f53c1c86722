//! Where received frames lie: in slots that stay with their ring, or in packets that may leave it.
//!
//! A slot's memory is shared with a peer that may write to it at any time, so the head of a frame is
//! copied before anybody looks at it. A device on the PCI bus has the packets of its ring to itself
//! until it has used them, and leaves them alone from then on, as any network card; so they
//! can be given to whoever keeps the frame, and the ring gets others.

use std::ptr::NonNull;

use arrayvec::ArrayVec;
use eal::DmaSpace;
use packet::pool::{CACHE_SIZE, MAX_SEGMENTS, PoolError};
use packet::{BURST, Frame, FrameBatch, Packet, Pool, PoolCache, RawSegment};
use virtio::driver::{Buffer, DmaMemory, DriverRing};

use super::memory::Slots;

/// Packets that caches keep, and that others may have, besides those in the ring.
#[allow(clippy::cast_possible_truncation, reason = "the constant is 256")]
const SPARE: u32 = CACHE_SIZE as u32;

/// The buffers of a receive ring, one per descriptor.
pub(crate) trait Store {
    /// Where a frame starts in buffer `id`; `None` when there is no such buffer.
    fn frame(&self, id: u16) -> Option<NonNull<u8>>;

    /// What the device writes to in buffer `id`: `header` bytes, and what a frame may have.
    fn buffer(&self, id: u16, header: usize) -> Option<DmaMemory>;

    /// Adds a frame that lies in one buffer to the batch. Returns whether there was room.
    ///
    /// # Safety
    /// The segment must lie in a buffer that the device has used, and that it does not get back, as
    /// nobody else does, before the batch is cleared.
    unsafe fn push(&self, frame: RawSegment, batch: &mut FrameBatch) -> bool;

    /// As [`push`](Self::push), for a frame in several buffers, of which `head_room` bytes are to be
    /// looked at.
    ///
    /// # Safety
    /// As there, for all segments.
    unsafe fn push_chain(
        &self,
        segments: &[RawSegment],
        head_room: usize,
        batch: &mut FrameBatch,
    ) -> bool;

    /// A burst begins.
    fn begin(&mut self) {}

    /// The frame that was added last has the buffers of this span.
    fn note(&mut self, span: Span) {
        let _ = span;
    }
}

/// The buffers of one frame, among those that the device has used in this burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Store for Slots {
    #[inline]
    fn frame(&self, id: u16) -> Option<NonNull<u8>> {
        Self::frame(self, id)
    }

    fn buffer(&self, id: u16, header: usize) -> Option<DmaMemory> {
        self.part(id, header, header + self.room())
    }

    #[inline]
    unsafe fn push(&self, frame: RawSegment, batch: &mut FrameBatch) -> bool {
        // SAFETY: as the caller says.
        unsafe { batch.push_shared(frame.get()) }
    }

    unsafe fn push_chain(
        &self,
        segments: &[RawSegment],
        head_room: usize,
        batch: &mut FrameBatch,
    ) -> bool {
        // SAFETY: as the caller says.
        unsafe { batch.push_shared_with_head(RawSegment::get_all(segments), head_room) }
    }
}

/// A packet for each descriptor, which the device reaches. All of them are fresh.
#[derive(Debug)]
pub struct PacketStore {
    packets: Box<[Packet]>,
    /// Bytes of a frame that each holds.
    room: usize,
    /// Where others come from.
    cache: PoolCache,
    pool: Pool,
    space: DmaSpace,
    /// The frames of the burst.
    spans: ArrayVec<Span, BURST>,
}

impl PacketStore {
    /// For a ring of `entries` entries of the port called `name`, with `room` bytes for a frame
    /// each.
    ///
    /// # Errors
    /// When there is no such memory.
    pub fn new(name: &str, entries: u16, room: usize, space: &DmaSpace) -> Result<Self, PoolError> {
        // A ring full, as many packets that are somewhere else, and what caches keep.
        let buffers = 2 * (u32::from(entries) + SPARE);
        let pool = Pool::for_devices(&format!("{name}-rx"), buffers, room, space)?;
        let mut cache = pool.cache();
        let packets = (0..entries).map_while(|_| cache.alloc()).collect();
        let (space, spans) = (space.clone(), ArrayVec::new());
        Ok(Self { packets, room, cache, pool, space, spans })
    }

    /// The pool, which keeps the memory of packets where it is.
    pub(crate) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The bytes of a fresh packet's buffer that the device writes to.
    #[inline]
    fn buffer_of(&self, packet: &Packet, header: usize) -> Option<DmaMemory> {
        if header > packet.headroom() {
            return None;
        }
        let address = packet.device_address(&self.space)?.checked_sub(header as u64)?;
        // SAFETY: `header` bytes in front of a packet's data are its headroom, as was checked.
        let start = unsafe { packet.as_ptr().sub(header) };
        // A fresh one has room for `room` bytes behind. The store keeps it while the device has it.
        DmaMemory::new(start, header + self.room, address)
    }

    /// Makes a packet of a frame of the burst, number `index` in it, whose buffers are among `used`;
    /// the descriptors get others. `None`, and nothing changes, when there are none.
    #[inline]
    pub(crate) fn give(
        &mut self,
        queue: &mut impl DriverRing,
        frame: &Frame<'_>,
        index: usize,
        used: &[u16],
        header: usize,
    ) -> Option<Packet> {
        let span = *self.spans.get(index)?;
        let ids = used.get(span.first..span.first.checked_add(span.count)?)?;
        let mut packet = match ids {
            [id] => {
                let fresh = self.cache.alloc()?;
                self.exchange(queue, *id, fresh, (0, frame.len()), header)?
            }
            _ => self.give_chain(queue, frame, ids, header)?,
        };
        packet.set_offload(frame.offload());
        Some(packet)
    }

    #[cold]
    fn give_chain(
        &mut self,
        queue: &mut impl DriverRing,
        frame: &Frame<'_>,
        ids: &[u16],
        header: usize,
    ) -> Option<Packet> {
        let mut fresh = ArrayVec::<Packet, MAX_SEGMENTS>::new();
        while fresh.len() < ids.len().min(MAX_SEGMENTS) {
            let Some(packet) = self.cache.alloc() else { break };
            fresh.push(packet);
        }
        if fresh.len() < ids.len() {
            self.cache.free_burst(fresh);
            return None;
        }
        // Only the first buffer has a header.
        let first = (0, frame.head().len());
        let rest = frame.body().iter().map(|segment| (header, segment.len()));
        let mut whole: Option<Packet> = None;
        for ((id, fresh), part) in ids.iter().zip(fresh).zip(std::iter::once(first).chain(rest)) {
            let part = self.exchange(queue, *id, fresh, part, header)?;
            match &mut whole {
                None => whole = Some(part),
                // The frame was no longer than a packet may be, and all are of one pool.
                Some(whole) => whole.chain(part).ok()?,
            }
        }
        whole
    }

    /// Puts a fresh packet in the place of that of descriptor `id`, into which the device has written
    /// `len` bytes of a frame from `before` bytes in front of its data on.
    #[inline]
    fn exchange(
        &mut self,
        queue: &mut impl DriverRing,
        id: u16,
        fresh: Packet,
        (before, len): (usize, usize),
        header: usize,
    ) -> Option<Packet> {
        let buffer = self.buffer_of(&fresh, header)?;
        let place = self.packets.get_mut(usize::from(id))?;
        let mut packet = std::mem::replace(place, fresh);
        queue.set(id, Buffer::writable(buffer));
        // SAFETY: the packet was fresh. The device has used the buffer, and the descriptor, which
        // is not posted yet, says another one now.
        unsafe { packet.set_received_from(before, len) }.then_some(packet)
    }
}

impl Store for PacketStore {
    #[inline]
    fn frame(&self, id: u16) -> Option<NonNull<u8>> {
        self.packets.get(usize::from(id)).map(Packet::as_ptr)
    }

    fn buffer(&self, id: u16, header: usize) -> Option<DmaMemory> {
        self.buffer_of(self.packets.get(usize::from(id))?, header)
    }

    #[inline]
    unsafe fn push(&self, frame: RawSegment, batch: &mut FrameBatch) -> bool {
        let Ok(len) = u16::try_from(frame.len()) else { return false };
        // SAFETY: as the caller says; nobody looks at a packet in the ring before it is given away.
        unsafe { batch.push_private(frame.as_ptr(), len) }
    }

    unsafe fn push_chain(
        &self,
        segments: &[RawSegment],
        _head_room: usize,
        batch: &mut FrameBatch,
    ) -> bool {
        let Some((head, body)) = segments.split_first() else { return false };
        let Ok(len) = u16::try_from(head.len()) else { return false };
        // SAFETY: as in `push`.
        unsafe { batch.push_private_chain(head.as_ptr(), len, RawSegment::get_all(body)) }
    }

    #[inline]
    fn begin(&mut self) {
        self.spans.clear();
    }

    #[inline]
    fn note(&mut self, span: Span) {
        // A batch has no more frames than this has room for.
        let _ = self.spans.try_push(span);
    }
}
