//! Packed rings, device side (virtio 1.3 section 2.8).
//!
//! Both sides write into one ring of descriptors. A descriptor belongs to the device when its
//! AVAIL flag equals the driver's wrap counter and its USED flag does not; the device gives it
//! back by making both equal. A wrap counter flips each time its side passes the ring's end.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use packet::Segment;

use super::burst::{Buffers, Chain, MAX_BUFFERS, prefetch};
use super::table::{ChainWalk, Indirect};
use super::{ChainError, MAX_CHAIN, RingError, RingSetup, SetupError};
use crate::features::Features;
use crate::memory::{GuestMemory, Translator};
use crate::packed::{
    AVAIL, Desc, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, MAX_SIZE, Position, USED, event_position,
};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, need_event};

/// A running packed ring.
#[derive(Debug)]
pub struct PackedQueue {
    parts: Parts,
    size: u16,
    next_avail: Position,
    next_used: Position,
    /// Descriptors given back since the driver was last told, or decided not to be.
    untold: u16,
    event_idx: bool,
    indirect: bool,
    memory: Translator,
    setup: RingSetup,
}

/// The ring and the two event structures. The ring has `size` descriptors, which never changes.
#[derive(Clone, Copy, Debug)]
struct Parts {
    ring: NonNull<u8>,
    driver_event: NonNull<u8>,
    device_event: NonNull<u8>,
}

// SAFETY: the pointers lead into mappings that `memory` keeps alive and that any thread may
// use; a queue has one owner at a time.
unsafe impl Send for PackedQueue {}

impl PackedQueue {
    /// Starts a ring in `memory`; `setup.avail` is the driver's event structure and
    /// `setup.used` the device's.
    ///
    /// # Errors
    /// When the size is not allowed, the base lies outside the ring, or a part does not lie in
    /// `memory`.
    pub fn new(memory: Arc<GuestMemory>, setup: RingSetup) -> Result<Self, SetupError> {
        let size = setup.size;
        if size == 0 || size > MAX_SIZE {
            return Err(SetupError::Size(size));
        }
        let [low_0, low_1, high_0, high_1] = setup.base.to_le_bytes();
        let next_avail = Position::from_bits(u16::from_le_bytes([low_0, low_1]));
        let used = u16::from_le_bytes([high_0, high_1]);
        // DPDK sends the available half alone, and then both are the same.
        let next_used = if used == 0 { next_avail } else { Position::from_bits(used) };
        if next_avail.index >= size || next_used.index >= size {
            return Err(SetupError::Base { base: setup.base, size });
        }
        let mut queue = Self {
            parts: Parts::resolve(&memory, &setup)?,
            size,
            next_avail,
            next_used,
            untold: 0,
            event_idx: setup.features.contains(Features::EVENT_IDX),
            indirect: setup.features.contains(Features::INDIRECT_DESC),
            memory: Translator::new(memory),
            setup,
        };
        queue.disarm();
        Ok(queue)
    }

    /// Goes on in another memory table.
    ///
    /// # Errors
    /// When the ring does not lie in it; the queue goes on in the old one then.
    pub fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), SetupError> {
        self.parts = Parts::resolve(&memory, &self.setup)?;
        self.memory = Translator::new(memory);
        Ok(())
    }

    /// Checks whether the ring could go on in `memory`.
    ///
    /// # Errors
    /// As [`set_memory`](Self::set_memory).
    pub fn check_memory(&self, memory: &GuestMemory) -> Result<(), SetupError> {
        Parts::resolve(memory, &self.setup).map(|_| ())
    }

    /// The memory that the ring and its buffers lie in.
    #[must_use]
    pub const fn memory(&self) -> &Arc<GuestMemory> {
        self.memory.memory()
    }

    /// Where another device, or this one later, has to go on: bits 0 to 15 the next available
    /// descriptor and its wrap counter, bits 16 to 31 the next used one (vhost-user, "Vring base
    /// for packed virtqueues").
    #[must_use]
    pub fn base(&self) -> u32 {
        u32::from(self.next_used.bits()) << 16 | u32::from(self.next_avail.bits())
    }

    /// Whether a chain waits in the ring.
    #[must_use]
    #[inline]
    pub fn has_available(&self) -> bool {
        self.is_available(self.next_avail)
    }

    #[inline]
    fn is_available(&self, at: Position) -> bool {
        // Acquire: the rest of the descriptor is read after its flags.
        let flags = self.flags_of(at.index, Ordering::Acquire);
        (flags & AVAIL != 0) == at.wrap && (flags & USED != 0) != at.wrap
    }

    /// As [`SplitQueue::fetch`](super::SplitQueue::fetch).
    ///
    /// # Errors
    /// When a chain has no end, so that nothing behind it can be found.
    #[inline]
    pub fn fetch<const WRITE: bool>(
        &mut self,
        max: usize,
        buffers: &mut Buffers,
    ) -> Result<(), RingError> {
        buffers.clear();
        let mut at = self.next_avail;
        // A driver that never stops offering cannot make one descriptor count twice.
        let mut left = self.size;
        for _ in 0..max.min(MAX_BUFFERS) {
            if left == 0 || !self.is_available(at) {
                break;
            }
            let desc = self.descriptor(at.index);
            let (chain, single) = if desc.flags & DESC_NEXT == 0 {
                let single = self.single::<WRITE>(desc);
                (Chain { head: at.index, id: desc.id, slots: 1 }, single)
            } else {
                (self.measure_chain(at, left)?, None)
            };
            if let Some(segment) = single {
                prefetch::<WRITE>(segment);
            }
            buffers.push(chain, single);
            left = left.saturating_sub(chain.slots);
            at = at.after(chain.slots, self.size);
        }
        Ok(())
    }

    /// Finds the end of the chain at `at`, whose buffer id is in its last descriptor (section
    /// 2.8.7).
    #[cold]
    #[inline(never)]
    fn measure_chain(&self, at: Position, left: u16) -> Result<Chain, RingError> {
        for steps in 0..left {
            let desc = self.descriptor(at.after(steps, self.size).index);
            if desc.flags & DESC_NEXT == 0 {
                return Ok(Chain { head: at.index, id: desc.id, slots: steps.saturating_add(1) });
            }
        }
        Err(RingError::EndlessChain { head: at.index })
    }

    /// Takes the first `count` of `buffers` out of the ring for good.
    #[inline]
    pub fn advance(&mut self, buffers: &Buffers, count: usize) {
        for chain in buffers.chains().take(count) {
            self.next_avail = self.next_avail.after(chain.slots, self.size);
        }
    }

    #[inline]
    fn single<const WRITE: bool>(&mut self, desc: Desc) -> Option<Segment> {
        let wanted = if WRITE { DESC_WRITE } else { 0 };
        if desc.flags & (DESC_INDIRECT | DESC_WRITE) != wanted {
            return None;
        }
        self.memory.translate(desc.addr, desc.len)
    }

    /// Visits the buffers of a fetched chain: each with whether the device is to write it. `tables`
    /// says how to take indirect ones.
    ///
    /// # Errors
    /// When the chain breaks a rule.
    pub(super) fn follow(
        &mut self,
        chain: Chain,
        tables: ChainWalk,
        mut visit: impl FnMut(Segment, bool) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        let mut at = Position { index: chain.head, wrap: false };
        for _ in 0..MAX_CHAIN.min(chain.slots.into()) {
            let desc = self.descriptor(at.index);
            let writable = desc.flags & DESC_WRITE != 0;
            if desc.flags & DESC_INDIRECT != 0 {
                // Entries of a packed table follow each other: NEXT has no meaning there.
                let table = Indirect { addr: desc.addr, len: desc.len };
                let allowed = self.indirect && chain.slots == 1;
                return table.follow(allowed, &mut self.memory, tables, visit);
            }
            let segment = self
                .memory
                .translate(desc.addr, desc.len)
                .ok_or(ChainError::Unmapped { addr: desc.addr, len: desc.len })?;
            visit(segment, writable)?;
            at = at.after(1, self.size);
        }
        if usize::from(chain.slots) > MAX_CHAIN { Err(ChainError::TooLong) } else { Ok(()) }
    }

    /// Gives chains back to the driver, each with the number of bytes written into it. The
    /// driver sees none of them before all are there (section 2.8.4).
    #[inline]
    pub fn complete(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        let first = self.next_used;
        let mut first_flags = None;
        for (chain, len) in used {
            let at = self.next_used;
            let written = if len > 0 { DESC_WRITE } else { 0 };
            let flags = written | if at.wrap { AVAIL | USED } else { 0 };
            self.write_used(at.index, chain.id, len);
            match first_flags {
                None => first_flags = Some(flags),
                Some(_) => self.store_flags(at.index, flags, Ordering::Release),
            }
            self.next_used = at.after(chain.slots, self.size);
            self.untold = self.untold.saturating_add(chain.slots);
        }
        if let Some(flags) = first_flags {
            // Release: whatever was written comes before the flag that makes it visible.
            self.store_flags(first.index, flags, Ordering::Release);
        }
    }

    /// As [`SplitQueue::needs_call`](super::SplitQueue::needs_call), for packed rings (section
    /// 2.8.10).
    #[inline]
    #[must_use]
    pub fn needs_call(&mut self) -> bool {
        let count = std::mem::take(&mut self.untold);
        if count == 0 {
            return false;
        }
        // What was given back must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        // SAFETY: the structure has 4 bytes and is aligned to 4, as `resolve` checked.
        let event = unsafe { AtomicU32::from_ptr(self.parts.driver_event.cast().as_ptr()) };
        let [off_0, off_1, flags, _] = event.load(Ordering::Relaxed).to_le_bytes();
        match u16::from(flags) & 3 {
            EVENT_ENABLE => true,
            EVENT_DESC if self.event_idx => {
                let off_wrap = u16::from_le_bytes([off_0, off_1]);
                let new = self.next_used;
                let event = event_position(off_wrap, new.wrap, self.size);
                need_event(event, new.index, new.index.wrapping_sub(count))
            }
            _ => false,
        }
    }

    /// As [`SplitQueue::arm`](super::SplitQueue::arm).
    #[must_use]
    pub fn arm(&mut self) -> bool {
        let flags = if self.event_idx { EVENT_DESC } else { EVENT_ENABLE };
        self.set_device_event(self.next_avail.bits(), flags);
        // The wish must be visible before the ring is looked at: see `needs_call`.
        fence(Ordering::SeqCst);
        !self.has_available()
    }

    /// Tells the driver that the ring is polled.
    pub fn disarm(&mut self) {
        self.set_device_event(0, EVENT_DISABLE);
    }

    fn set_device_event(&self, off_wrap: u16, flags: u16) {
        let value = u32::from(flags) << 16 | u32::from(off_wrap);
        // SAFETY: the structure has 4 bytes and is aligned to 4, as `resolve` checked.
        let event = unsafe { AtomicU32::from_ptr(self.parts.device_event.cast().as_ptr()) };
        event.store(value, Ordering::Release);
    }

    /// The descriptor at `index`, which is less than `size`.
    #[inline]
    fn place(&self, index: u16) -> NonNull<u8> {
        debug_assert!(index < self.size, "positions stay inside the ring");
        // SAFETY: every position is made by `after` or checked in `new`, so `index` is less than
        // `size`, the number of descriptors that `resolve` found in memory.
        unsafe { self.parts.ring.add(16 * index as usize) }
    }

    #[inline]
    fn flags_of(&self, index: u16, order: Ordering) -> u16 {
        // SAFETY: the flags are the last 2 of the descriptor's 16 bytes, aligned to 2.
        unsafe { AtomicU16::from_ptr(self.place(index).add(14).cast().as_ptr()) }.load(order)
    }

    #[inline]
    fn store_flags(&self, index: u16, flags: u16, order: Ordering) {
        // SAFETY: as in `flags_of`.
        unsafe { AtomicU16::from_ptr(self.place(index).add(14).cast().as_ptr()) }
            .store(flags, order);
    }

    /// Writes length and id of a used descriptor, not its flags.
    #[inline]
    fn write_used(&self, index: u16, id: u16, len: u32) {
        let place = self.place(index);
        // SAFETY: length and id are at offsets 8 and 12 of the descriptor's 16 bytes.
        unsafe {
            AtomicU32::from_ptr(place.add(8).cast().as_ptr()).store(len, Ordering::Relaxed);
            AtomicU16::from_ptr(place.add(12).cast().as_ptr()).store(id, Ordering::Relaxed);
        }
    }

    /// A private copy of the descriptor at `index`, each of its halves read once.
    #[inline]
    fn descriptor(&self, index: u16) -> Desc {
        let place: NonNull<u64> = self.place(index).cast();
        // SAFETY: 16 bytes, aligned to 16, as `resolve` checked.
        let (addr, rest) = unsafe {
            let low = AtomicU64::from_ptr(place.as_ptr()).load(Ordering::Relaxed);
            let high = AtomicU64::from_ptr(place.add(1).as_ptr()).load(Ordering::Relaxed);
            (low, high)
        };
        Desc::from_halves(addr, rest)
    }
}

impl Parts {
    /// Finds the ring and the event structures in `memory` (alignments: section 2.8).
    fn resolve(memory: &GuestMemory, setup: &RingSetup) -> Result<Self, SetupError> {
        let find = |part, addr, len, align| {
            memory.translate_user(addr, len, align).ok_or(SetupError::Unmapped { part, addr })
        };
        Ok(Self {
            ring: find("descriptor ring", setup.desc, 16 * usize::from(setup.size), 16)?,
            driver_event: find("driver event structure", setup.avail, 4, 4)?,
            device_event: find("device event structure", setup.used, 4, 4)?,
        })
    }
}
