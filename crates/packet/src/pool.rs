//! Pools of packet buffers, with a cache for each worker.
//!
//! A buffer is in one of three places: the pool's shared list, a worker's [`PoolCache`], or a
//! [`Packet`]. Between cache and packet it moves by plain stores; between cache and shared list
//! in bulk, under a lock. A packet that is simply dropped, by whatever thread, goes to a
//! lock-free list beside the shared one, at the price of two atomic operations, and is found
//! again when the shared list runs low. So a worker gives packets back with
//! [`PoolCache::free`], and everything else may just drop them. (Test
//! `pool_costs` on an AMD EPYC: to allocate and free, 8 cycles per packet; to allocate and
//! drop, 31.)
//!
//! The pool's memory lives until the last handle, cache and packet is gone. This is counted as
//! by an `Arc`, but in bulk: a cache that takes 32 buffers adds 32 to the count at once.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use eal::dma::DmaError;
use eal::{DmaBuffer, DmaSpace, MemError, SharedMemory};
use thiserror::Error;

use crate::frame::{BURST, Frame, FrameReader, RawSegment};
use crate::owned::Packet;

/// Bytes free in front of a fresh packet's data, for headers.
pub const HEADROOM: usize = 128;

/// Room for data in a buffer that holds any ordinary frame with its tags.
pub const DATA_ROOM: usize = 2048;

/// Most segments of one packet: enough for the largest frame in buffers of [`DATA_ROOM`].
pub const MAX_SEGMENTS: usize = 48;

/// Most buffers that a cache keeps from the other workers.
pub const CACHE_SIZE: usize = 256;

/// Buffers that move between a cache and the shared list at once.
const BULK: usize = BURST;

const CACHE_LINE: usize = 64;
/// A packet's first segment is at most this long, since a frame's head is.
const MAX_ROOM: usize = 65_472 - HEADROOM;

/// Why a pool cannot be made.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A number is out of range.
    #[error(
        "pool \"{name}\": {buffers} buffers of {room} bytes, expected 1 to 2^24 buffers of 64 to \
         {MAX_ROOM} bytes"
    )]
    Size {
        /// Name of the pool.
        name: String,
        /// Number of buffers.
        buffers: u32,
        /// Room for data in each.
        room: usize,
    },
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// There is no memory that devices reach.
    #[error(transparent)]
    Dma(#[from] DmaError),
}

/// Where the buffers of a pool lie.
enum Memory {
    /// In memory of this process.
    Plain(SharedMemory),
    /// In memory that devices reach as well.
    Dma(DmaBuffer),
}

impl Memory {
    #[inline]
    const fn shared(&self) -> &SharedMemory {
        match self {
            Self::Plain(memory) => memory,
            Self::Dma(buffer) => buffer.memory(),
        }
    }
}

/// Segments after a packet's first one, in memory beside that first buffer's data.
pub(crate) struct Tail {
    pub(crate) segments: [RawSegment; MAX_SEGMENTS - 1],
    pub(crate) buffers: [u32; MAX_SEGMENTS - 1],
}

/// What all handles, caches and packets of a pool share.
pub(crate) struct Shared {
    memory: Memory,
    /// First byte of the first buffer.
    base: NonNull<u8>,
    stride: usize,
    /// Places for buffers. All of them have one, except those that lie across the border of two
    /// pages of memory which devices do not see in one piece.
    count: u32,
    /// Buffers.
    capacity: u32,
    /// One for each buffer, written only by the packet that it is the first buffer of; pages of
    /// it that no packet of several segments has used stay untouched, and so absent.
    tails: Box<[UnsafeCell<MaybeUninit<Tail>>]>,
    free: Mutex<Vec<u32>>,
    /// Head of the list of dropped buffers: an index plus one, or 0.
    dropped: AtomicU32,
    /// Its links, likewise.
    links: Box<[AtomicU32]>,
    /// Handles and caches, plus buffers that are not in `free` or `dropped`.
    refs: AtomicUsize,
}

// SAFETY: `tails` and `base` are what keeps this from being automatic. An element of `tails` is
// reached only through the packet that owns the buffer of the same index, and every buffer has at
// most one owner; `base` is an address.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it is bound to a thread.
unsafe impl Send for Shared {}

impl Shared {
    fn new(
        name: &str,
        buffers: u32,
        room: usize,
        space: Option<&DmaSpace>,
    ) -> Result<Self, PoolError> {
        if !(1..=1 << 24).contains(&buffers) || !(64..=MAX_ROOM).contains(&room) {
            return Err(PoolError::Size { name: name.to_owned(), buffers, room });
        }
        let stride = (HEADROOM + room).next_multiple_of(CACHE_LINE);
        let bytes = stride.saturating_mul(buffers as usize);
        let (memory, piece) = match space {
            None => (Memory::Plain(SharedMemory::allocate(name, bytes)?), usize::MAX),
            Some(space) => {
                // A buffer is lost at each border, at most.
                let piece = space.piece_len();
                let borders = bytes / piece.saturating_sub(stride).max(1);
                let more = borders.saturating_add(1).saturating_mul(stride);
                let buffer = space.allocate(name, bytes.saturating_add(more))?;
                (Memory::Dma(buffer), piece)
            }
        };
        let is_whole = |index: &u32| {
            let first = *index as usize * stride;
            first / piece == (first + stride - 1) / piece
        };
        let places = u32::try_from(memory.shared().len() / stride).unwrap_or(u32::MAX);
        let free: Vec<u32> = (0..places).filter(is_whole).take(buffers as usize).collect();
        let count = free.last().map_or(0, |last| last + 1);
        let capacity = u32::try_from(free.len()).unwrap_or(0);
        let tails = Box::<[UnsafeCell<MaybeUninit<Tail>>]>::new_uninit_slice(count as usize);
        Ok(Self {
            base: memory.shared().as_ptr(),
            memory,
            stride,
            count,
            capacity,
            // SAFETY: an UnsafeCell of a MaybeUninit needs no initialisation.
            tails: unsafe { tails.assume_init() },
            free: Mutex::new(free.into_iter().rev().collect()),
            dropped: AtomicU32::new(0),
            links: (0..count).map(|_| AtomicU32::new(0)).collect(),
            refs: AtomicUsize::new(0),
        })
    }

    /// Bytes in a buffer, headroom included.
    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of a page of its memory.
    pub(crate) const fn page_size(&self) -> usize {
        self.memory.shared().page_size()
    }

    /// First byte of buffer `index`, headroom included.
    #[inline]
    pub(crate) fn buffer(&self, index: u32) -> NonNull<u8> {
        debug_assert!(index < self.count);
        // SAFETY: indices come from `free`, so they are below `count`, and the memory has
        // `count * stride` bytes.
        unsafe { self.base.add(index as usize * self.stride) }
    }

    /// Where the devices of `space` find the byte at `ptr` of a buffer; `None` when the pool's
    /// memory is not theirs.
    #[inline]
    pub(crate) fn device_address(&self, ptr: NonNull<u8>, space: &DmaSpace) -> Option<u64> {
        match &self.memory {
            Memory::Dma(buffer) if buffer.space().is_same(space) => {
                buffer.device_address(ptr.addr().get().wrapping_sub(self.base.addr().get()))
            }
            _ => None,
        }
    }

    /// Where the segments after the first one of the packet that begins in buffer `index` are.
    #[inline]
    pub(crate) fn tail(&self, index: u32) -> *mut Tail {
        // SAFETY: as in `buffer`; `tails` has `count` elements.
        unsafe { self.tails.get_unchecked(index as usize).get().cast() }
    }

    fn lock_free(&self) -> MutexGuard<'_, Vec<u32>> {
        // A panic can only have come between two complete moves of indices.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what was dropped to the shared list.
    fn collect_dropped(&self, free: &mut Vec<u32>) {
        if self.dropped.load(Relaxed) == 0 {
            return;
        }
        // Taking the whole list at once is what keeps it free of the ABA problem.
        let mut next = self.dropped.swap(0, Acquire);
        while let Some(index) = next.checked_sub(1) {
            free.push(index);
            next = self.links.get(index as usize).map_or(0, |link| link.load(Relaxed));
        }
    }

    /// Puts buffers on the list of dropped ones. They still count as references: the caller
    /// ends with [`release`](Self::release).
    pub(crate) fn push_dropped(&self, first: u32, rest: &[u32]) {
        // Link them to each other, then hang the whole chain in front of the list.
        let mut last = first;
        for index in rest {
            self.link(last, index.wrapping_add(1));
            last = *index;
        }
        let mut head = self.dropped.load(Relaxed);
        loop {
            self.link(last, head);
            let new = first.wrapping_add(1);
            match self.dropped.compare_exchange_weak(head, new, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn link(&self, index: u32, to: u32) {
        if let Some(link) = self.links.get(index as usize) {
            link.store(to, Relaxed);
        }
    }

    fn retain(&self, count: usize) {
        self.refs.fetch_add(count, Relaxed);
    }

    /// Gives up `count` references, and frees the pool if they were the last.
    ///
    /// # Safety
    ///
    /// The caller must own that many, and not use `this` afterwards if it owned no others.
    pub(crate) unsafe fn release(this: NonNull<Self>, count: usize) {
        // SAFETY: the caller's references keep it alive until this subtraction.
        let before = unsafe { this.as_ref() }.refs.fetch_sub(count, Release);
        if before == count {
            fence(Acquire);
            // SAFETY: it was made by `Box::leak` in `Pool::new`, and nobody refers to it now.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }
}

/// One counted reference to a pool.
struct Handle(NonNull<Shared>);

// SAFETY: it stands for a `&Shared`, which is Sync.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    #[inline]
    fn shared(&self) -> &Shared {
        // SAFETY: this reference keeps it alive, and nobody has it mutably.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.shared().retain(1);
        Self(self.0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this handle owns one reference, and ends.
        unsafe { Shared::release(self.0, 1) };
    }
}

/// Packet buffers of one size. A handle: clones are the same pool.
#[derive(Clone)]
pub struct Pool(Handle);

impl Pool {
    /// A pool of `buffers` buffers (at most 2^24), each with room for `room` bytes of data (64
    /// to 65,344, usually [`DATA_ROOM`]) and [`HEADROOM`] in front of it. The memory comes from
    /// huge pages if there are enough.
    ///
    /// # Errors
    ///
    /// When a number is out of range, or there is not enough memory.
    pub fn new(name: &str, buffers: u32, room: usize) -> Result<Self, PoolError> {
        Self::make(Shared::new(name, buffers, room, None)?)
    }

    /// As [`new`](Self::new), in memory that the devices of `space` reach: they transmit packets
    /// of this pool without a copy.
    ///
    /// # Errors
    ///
    /// As there, or when the memory cannot be mapped for the devices.
    pub fn for_devices(
        name: &str,
        buffers: u32,
        room: usize,
        space: &DmaSpace,
    ) -> Result<Self, PoolError> {
        Self::make(Shared::new(name, buffers, room, Some(space))?)
    }

    fn make(shared: Shared) -> Result<Self, PoolError> {
        shared.retain(1);
        Ok(Self(Handle(NonNull::from(Box::leak(Box::new(shared))))))
    }

    /// A cache for one worker.
    #[must_use]
    pub fn cache(&self) -> PoolCache {
        PoolCache { pool: self.0.clone(), free: ArrayVec::new() }
    }

    /// Number of buffers.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.shared().capacity as usize
    }

    /// Number of buffers that are neither in a packet nor in a cache: an estimate by the time
    /// it is returned.
    #[must_use]
    pub fn available(&self) -> usize {
        let shared = self.0.shared();
        let mut free = shared.lock_free();
        shared.collect_dropped(&mut free);
        free.len()
    }

    /// Room for data in one buffer behind the headroom, in bytes: at least what was asked for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.shared().stride - HEADROOM
    }

    /// The memory that the buffers lie in, to hand its descriptor to a peer or a device.
    ///
    /// # Safety
    ///
    /// A peer or device that maps it must not write to a buffer while a [`Packet`] owns it,
    /// since packets give out references to their bytes. A peer that is not trusted that far
    /// gets memory of its own, not a pool.
    #[must_use]
    pub unsafe fn memory(&self) -> &SharedMemory {
        self.0.shared().memory.shared()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capacity, room) = (self.capacity(), self.room());
        f.debug_struct("Pool").field("capacity", &capacity).field("room", &room).finish()
    }
}

/// One worker's share of a pool's free buffers: up to [`CACHE_SIZE`]. Dropping it gives them
/// back.
pub struct PoolCache {
    pool: Handle,
    free: ArrayVec<u32, CACHE_SIZE>,
}

impl PoolCache {
    /// An empty packet with [`HEADROOM`] in front; `None` when the pool is exhausted, or what is
    /// left is in the caches of other workers.
    #[must_use]
    #[inline]
    pub fn alloc(&mut self) -> Option<Packet> {
        if self.free.is_empty() {
            self.refill();
        }
        let index = self.free.pop()?;
        // SAFETY: the index was in this cache, so nobody else has it, and its reference goes
        // over to the packet.
        Some(unsafe { Packet::from_buffer(self.pool.0, index) })
    }

    /// Fills `packets` up with as many as there are; returns how many were added.
    pub fn alloc_burst<const N: usize>(&mut self, packets: &mut ArrayVec<Packet, N>) -> usize {
        let before = packets.len();
        while !packets.is_full() {
            let Some(packet) = self.alloc() else { break };
            packets.push(packet);
        }
        packets.len() - before
    }

    /// A packet with the bytes of `frame`, in as many buffers as it takes; `None` when there are
    /// not enough, or a packet cannot have that many.
    #[must_use]
    pub fn copy_frame(&mut self, frame: &Frame<'_>) -> Option<Packet> {
        let room = self.pool.shared().stride() - HEADROOM;
        let mut packet = self.alloc()?;
        packet.set_offload(frame.offload());
        if frame.len() <= room {
            // SAFETY: a fresh packet has `room` bytes behind its headroom, which are nobody
            // else's, so the frame cannot overlap them.
            unsafe { packet.fill(|to, room| frame.copy_to_ptr(to, room)) };
            return Some(packet);
        }
        let mut reader = FrameReader::new(frame);
        // SAFETY: as above.
        unsafe { packet.fill(|to, room| reader.copy_next(to, room)) };
        while packet.len() < frame.len() {
            let Some(mut next) = self.alloc() else {
                self.free(packet);
                return None;
            };
            // SAFETY: as above.
            unsafe { next.fill(|to, room| reader.copy_next(to, room)) };
            if let Err(next) = packet.chain(next) {
                self.free(next);
                self.free(packet);
                return None;
            }
        }
        Some(packet)
    }

    /// Whether the packet's buffers are of this cache's pool, so that [`free`](Self::free) takes
    /// them back without an atomic operation.
    #[must_use]
    #[inline]
    pub fn owns(&self, packet: &Packet) -> bool {
        packet.pool() == self.pool.0
    }

    /// Gives a packet's buffers back without an atomic operation. A packet of another pool is
    /// dropped.
    #[inline]
    pub fn free(&mut self, packet: Packet) {
        if self.owns(&packet) {
            self.take_back(packet);
        }
    }

    /// Takes the buffers of a packet of its own pool.
    #[inline]
    fn take_back(&mut self, packet: Packet) {
        let (first, rest) = packet.into_buffers();
        self.put(first);
        if let Some((buffers, count)) = rest {
            for index in buffers.iter().take(count) {
                self.put(*index);
            }
        }
    }

    /// Gives the packets back; as [`free`](Self::free), but two atomic operations are enough for
    /// many of another pool.
    pub fn free_burst(&mut self, packets: impl IntoIterator<Item = Packet>) {
        let mut returns = self.returns();
        for packet in packets {
            returns.free(packet);
        }
    }

    /// A way to give many packets back one by one.
    #[inline]
    pub fn returns(&mut self) -> Returns<'_> {
        Returns { cache: self, pool: NonNull::dangling(), buffers: ArrayVec::new() }
    }

    #[inline]
    fn put(&mut self, index: u32) {
        if self.free.is_full() {
            self.flush(CACHE_SIZE / 2);
        }
        // There is room: half of the cache at least.
        let _ = self.free.try_push(index);
    }

    #[cold]
    fn refill(&mut self) {
        let shared = self.pool.shared();
        let mut free = shared.lock_free();
        if free.len() < BULK {
            shared.collect_dropped(&mut free);
        }
        let start = free.len().saturating_sub(BULK);
        shared.retain(free.len() - start);
        self.free.extend(free.drain(start..));
    }

    /// Gives all but `keep` buffers back to the shared list.
    #[cold]
    fn flush(&mut self, keep: usize) {
        let keep = keep.min(self.free.len());
        let count = self.free.len() - keep;
        self.pool.shared().lock_free().extend(self.free.drain(keep..));
        // SAFETY: each of these buffers came with a reference, and `self.pool` holds another.
        unsafe { Shared::release(self.pool.0, count) };
    }
}

impl Drop for PoolCache {
    fn drop(&mut self) {
        self.flush(0);
    }
}

/// Packets on their way back: those of the cache's own pool go there, those of others to the list of
/// what was dropped, up to 32 at once. (A packet that a device received into its own pool comes back
/// in the worker of another device, so on the way from card to card all are of others.)
#[derive(Debug)]
pub struct Returns<'c> {
    cache: &'c mut PoolCache,
    /// The pool of `buffers`, if there are any; each came with a reference to it.
    pool: NonNull<Shared>,
    buffers: ArrayVec<u32, BULK>,
}

impl Returns<'_> {
    /// Gives a packet's buffers back.
    #[inline]
    pub fn free(&mut self, packet: Packet) {
        if self.cache.owns(&packet) {
            self.cache.take_back(packet);
        } else {
            self.put_aside(packet);
        }
    }

    /// Keeps the buffers of a packet of another pool until there are many.
    #[inline(never)]
    fn put_aside(&mut self, packet: Packet) {
        let pool = packet.pool();
        if pool != self.pool {
            self.flush();
            self.pool = pool;
        }
        let (first, rest) = packet.into_buffers();
        self.put(first);
        if let Some((buffers, count)) = rest {
            for index in buffers.iter().take(count) {
                self.put(*index);
            }
        }
    }

    #[inline]
    fn put(&mut self, index: u32) {
        if self.buffers.is_full() {
            self.flush();
        }
        // There is room, as it was just made.
        let _ = self.buffers.try_push(index);
    }

    #[inline(never)]
    fn flush(&mut self) {
        let Some((first, rest)) = self.buffers.split_first() else { return };
        // SAFETY: the buffers' references keep the pool alive.
        unsafe { self.pool.as_ref() }.push_dropped(*first, rest);
        let count = self.buffers.len();
        self.buffers.clear();
        // SAFETY: one reference came with each buffer. Should a further packet of this pool come, it
        // brings others.
        unsafe { Shared::release(self.pool, count) };
    }
}

impl Drop for Returns<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.buffers.is_empty() {
            self.flush();
        }
    }
}

impl fmt::Debug for PoolCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolCache").field("free", &self.free.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
