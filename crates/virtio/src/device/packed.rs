//! Packed rings, device side (virtio 1.3 section 2.8).
//!
//! Both sides write into one ring of descriptors. A descriptor belongs to the device when its
//! AVAIL flag equals the driver's wrap counter and its USED flag does not; the device gives it
//! back by making both equal. A wrap counter flips each time its side passes the ring's end.

mod recover;
mod resume;

pub use recover::{BaseCheck, Located};

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use packet::RawSegment;

use super::burst::{Buffer, Buffers, Chain, MAX_BUFFERS, prefetch};
use super::inflight::{PackedTracker, TrackerSlot};
use super::log::{LogSlot, RingLog};
use super::part::{EVENT_BYTES, RingPart};
use super::table::{ChainWalk, Indirect};
use super::{ChainError, MAX_CHAIN, RingError, RingSetup, SetupError};
use crate::features::Features;
use crate::memory::{Cursor, GuestMemory, Translator};
use crate::packed::{
    AVAIL, Desc, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, MAX_SIZE, Position, USED, event_position,
};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, need_event};

/// The flags that tell whose a descriptor is, where they lie in its second half.
const MARKS: u64 = ((AVAIL | USED) as u64) << 48;
/// The flags that tell what kind of descriptor it is.
const KIND: u64 = ((DESC_NEXT | DESC_INDIRECT | DESC_WRITE) as u64) << 48;

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
    in_order: bool,
    indirect: bool,
    memory: Translator,
    /// While the guest is being migrated.
    log: LogSlot,
    /// Where the front-end keeps records of chains in flight.
    tracker: TrackerSlot<PackedTracker>,
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
        let (next_avail, next_used) = told(&setup)?;
        let mut queue = Self {
            parts: Parts::resolve(&memory, &setup)?,
            size: setup.size,
            next_avail,
            next_used,
            untold: 0,
            event_idx: setup.features.contains(Features::EVENT_IDX),
            in_order: setup.features.contains(Features::IN_ORDER),
            indirect: setup.features.contains(Features::INDIRECT_DESC),
            memory: Translator::new(memory),
            log: LogSlot::default(),
            tracker: TrackerSlot::NONE,
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
        self.locate_log();
        Ok(())
    }

    /// Checks whether the ring could go on in `memory`.
    ///
    /// # Errors
    /// As [`set_memory`](Self::set_memory).
    pub fn check_memory(&self, memory: &GuestMemory) -> Result<(), SetupError> {
        Parts::resolve(memory, &self.setup).map(|_| ())
    }

    /// As [`SplitQueue::set_log`](super::SplitQueue::set_log); the ring is logged as it is.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        self.log = LogSlot::new(log);
        self.locate_log();
        self.log.with(|log| {
            log.mark_all_descriptors(self.size, self.next_used);
            log.mark_wish(0, EVENT_BYTES);
        });
    }

    /// Notes where the ring lies now, for a log.
    fn locate_log(&mut self) {
        let memory = self.memory.memory();
        self.log.with(|log| {
            log.set_desc(memory.ring_guest_addr(self.setup.desc));
            log.translate_used(memory, self.setup.used);
        });
    }

    /// Logs what was given back, where writes are logged.
    #[inline]
    fn log_used(&mut self) {
        // Nothing but `self` is needed, so that the loops before keep their registers.
        if self.log.is_some() {
            self.log_used_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn log_used_now(&mut self) {
        self.log.with(|log| log.mark_descriptors(self.size, self.next_used));
    }

    #[inline]
    pub(super) const fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Logs pieces of memory that were written, where writes are logged.
    pub(super) fn log_pieces(&mut self, pieces: impl Iterator<Item = (NonNull<u8>, usize)>) {
        let memory = &self.memory;
        self.log.with(move |log| log.mark_pieces(memory, pieces));
    }

    /// The memory that the ring and its buffers lie in.
    #[must_use]
    pub const fn memory(&self) -> &Arc<GuestMemory> {
        self.memory.memory()
    }

    pub(super) const fn translator(&self) -> &Translator {
        &self.memory
    }

    pub(super) const fn translator_mut(&mut self) -> &mut Translator {
        &mut self.memory
    }

    pub(super) const fn setup(&self) -> &RingSetup {
        &self.setup
    }

    /// Where another device, or this one later, has to go on: bits 0 to 15 the next available
    /// descriptor and its wrap counter, bits 16 to 31 the next used one (vhost-user, "Vring base
    /// for packed virtqueues").
    #[must_use]
    pub fn base(&self) -> u32 {
        u32::from(self.next_used.bits()) << 16 | u32::from(self.next_avail.bits())
    }

    /// See [`DeviceQueue::base_without`](super::DeviceQueue::base_without): the place of the
    /// next chain that is given back, for both halves.
    pub(super) fn base_of_used(&self) -> u32 {
        let used = u32::from(self.next_used.bits());
        used << 16 | used
    }

    /// Whether a chain waits in the ring.
    #[must_use]
    #[inline]
    pub fn has_available(&self) -> bool {
        self.parts.available(self.next_avail).is_some()
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
        // A driver that never stops offering cannot make one descriptor count twice.
        let count = max.min(self.size.into()).min(MAX_BUFFERS);
        let mut cursor = self.memory.cursor::<WRITE>();
        let mut places = buffers.refill(count);
        let mut at = self.next_avail;
        let (mut fetched, mut end) = (0, SpanEnd::Full);
        // Up to the ring's end, and from its start: in between neither index nor wrap counter
        // needs a look.
        for _ in 0..2 {
            let span = places.len().min(self.size.saturating_sub(at.index).into());
            let (now, later) = places.split_at_mut(span);
            let (count, why) = self.parts.fetch_span::<WRITE>(at, now, &mut cursor);
            fetched += count;
            at = at.after(u16::try_from(count).unwrap_or(0), self.size);
            (places, end) = (later, why);
            if why != SpanEnd::Full || places.is_empty() {
                break;
            }
        }
        let last = cursor.last();
        self.memory.set_last::<WRITE>(last);
        buffers.truncate(fetched);
        match end {
            SpanEnd::Chain => self.fetch_chains::<WRITE>(at, count, buffers),
            SpanEnd::Full | SpanEnd::Nothing => Ok(()),
        }
    }

    /// Goes on with [`fetch`](Self::fetch) at `at`, where a chain of several descriptors begins.
    #[cold]
    #[inline(never)]
    fn fetch_chains<const WRITE: bool>(
        &mut self,
        mut at: Position,
        count: usize,
        buffers: &mut Buffers,
    ) -> Result<(), RingError> {
        // What was fetched so far took a descriptor each.
        let fetched = u16::try_from(buffers.as_slice().len()).unwrap_or(u16::MAX);
        let mut left = self.size.saturating_sub(fetched);
        for _ in usize::from(fetched)..count {
            let Some(desc) = self.parts.available(at).filter(|_| left > 0) else { break };
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

    /// How many descriptors wait, from the next one on: those follow each other, so that the end is
    /// found by halves.
    pub(super) fn depth(&self) -> u16 {
        let (mut waiting, mut beyond) = (0_u16, self.size);
        while waiting < beyond {
            let middle = waiting.midpoint(beyond);
            match self.parts.available(self.next_avail.after(middle, self.size)) {
                Some(_) => waiting = middle.saturating_add(1),
                None => beyond = middle,
            }
        }
        waiting
    }

    /// Finds the end of the chain at `at`, whose buffer id is in its last descriptor (section
    /// 2.8.7).
    #[cold]
    #[inline(never)]
    fn measure_chain(&self, at: Position, left: u16) -> Result<Chain, RingError> {
        for steps in 0..left {
            let desc = self.parts.descriptor(at.after(steps, self.size).index);
            if desc.flags & DESC_NEXT == 0 {
                return Ok(Chain { head: at.index, id: desc.id, slots: steps.saturating_add(1) });
            }
        }
        Err(RingError::EndlessChain { head: at.index })
    }

    /// Takes the first `count` of `buffers` out of the ring for good.
    #[inline]
    pub fn advance(&mut self, buffers: &Buffers, count: usize) {
        if self.tracker.is_some() {
            self.record_taken(buffers, count);
        }
        let slots = buffers.chains().take(count).map(|chain| chain.slots);
        let slots = slots.fold(0, u16::wrapping_add);
        self.next_avail = self.next_avail.after(slots, self.size);
    }

    #[inline]
    fn single<const WRITE: bool>(&mut self, desc: Desc) -> Option<RawSegment> {
        let wanted = if WRITE { DESC_WRITE } else { 0 };
        if desc.flags & (DESC_INDIRECT | DESC_WRITE) != wanted {
            return None;
        }
        self.memory.translate::<WRITE>(desc.addr, desc.len)
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
        mut visit: impl FnMut(RawSegment, bool) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        // A chain may be of another ring, which is larger.
        if chain.head >= self.size {
            return Err(ChainError::NextOutOfRange(chain.head));
        }
        let mut at = Position { index: chain.head, wrap: false };
        for _ in 0..MAX_CHAIN.min(chain.slots.into()) {
            let desc = self.parts.descriptor(at.index);
            let writable = desc.flags & DESC_WRITE != 0;
            if desc.flags & DESC_INDIRECT != 0 {
                // Entries of a packed table follow each other: NEXT has no meaning there.
                let table = Indirect { addr: desc.addr, len: desc.len };
                let allowed = self.indirect && chain.slots == 1;
                return table.follow(allowed, &mut self.memory, tables, visit);
            }
            self.memory.pieces(desc.addr, desc.len, writable, |piece| visit(piece, writable))?;
            at = at.after(1, self.size);
        }
        if usize::from(chain.slots) > MAX_CHAIN { Err(ChainError::TooLong) } else { Ok(()) }
    }

    /// See [`DeviceQueue::indirect_table`](super::DeviceQueue::indirect_table).
    pub(super) fn indirect_table(&mut self, chain: Chain) -> Option<RawSegment> {
        let desc = self.parts.descriptor(chain.head);
        let has_table = chain.slots == 1 && desc.flags & DESC_INDIRECT != 0;
        if has_table { self.memory.translate::<false>(desc.addr, desc.len) } else { None }
    }

    /// Gives chains back to the driver, each with the number of bytes written into it. The
    /// driver sees none of them before all are there (section 2.8.4).
    #[inline]
    pub fn complete(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        if self.tracker.is_some() {
            return self.complete_recorded(used);
        }
        self.give_back(used);
    }

    #[inline]
    fn give_back(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        let (parts, size) = (self.parts, self.size);
        let (first, mut at) = (self.next_used, self.next_used);
        let (mut first_value, mut slots) = (None, 0_u32);
        let mut marks = at.used_flags();
        for (chain, len) in used {
            let written = u64::from(len > 0) * u64::from(DESC_WRITE);
            let flags = marks | (written << 48);
            let value = flags | u64::from(chain.id) << 32 | u64::from(len);
            if first_value.is_none() {
                first_value = Some(value);
            } else {
                parts.set_used(at, value);
            }
            slots = slots.wrapping_add(chain.slots.into());
            at.index = at.index.wrapping_add(chain.slots);
            if at.index >= size {
                (at, marks) = wrap(at, size);
            }
        }
        if let Some(value) = first_value {
            // Whatever was written comes before the flag that makes it visible.
            parts.set_used(first, value);
            self.next_used = at;
            self.untold = self.untold.saturating_add(u16::try_from(slots).unwrap_or(u16::MAX));
            self.log_used();
        }
    }

    /// As [`SplitQueue::complete_written`](super::SplitQueue::complete_written).
    #[inline]
    pub fn complete_written(&mut self, buffers: &Buffers, count: usize) {
        self.complete(buffers.written(count));
    }

    /// As [`SplitQueue::complete_read`](super::SplitQueue::complete_read); the driver then skips
    /// the descriptors of the others (section 2.8.9).
    #[inline]
    pub fn complete_read(&mut self, buffers: &Buffers, count: usize) {
        let batch = buffers.as_slice().get(..count).unwrap_or_default();
        let (true, Some(last)) = (self.in_order, batch.last()) else {
            return self.complete(buffers.read(count));
        };
        let slots = batch.iter().map(|buffer| buffer.chain().slots).fold(0, u16::wrapping_add);
        let first = self.next_used;
        let next = first.after(slots, self.size);
        if self.tracker.is_some() {
            self.record_begin(count, next);
        }
        // Release, as in `complete`.
        self.parts.set_used(first, first.used_flags() | u64::from(last.chain().id) << 32);
        self.next_used = next;
        if self.tracker.is_some() {
            self.record_end(count);
        }
        self.untold = self.untold.saturating_add(slots);
        self.log_used();
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
        self.log.with(RingLog::tell);
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

    fn set_device_event(&mut self, off_wrap: u16, flags: u16) {
        let value = u32::from(flags) << 16 | u32::from(off_wrap);
        // SAFETY: the structure has 4 bytes and is aligned to 4, as `resolve` checked.
        let event = unsafe { AtomicU32::from_ptr(self.parts.device_event.cast().as_ptr()) };
        event.store(value, Ordering::Release);
        self.log.with(|log| log.mark_wish(0, EVENT_BYTES));
    }
}

/// Where a device is told to begin: its next available and its next used descriptor.
fn told(setup: &RingSetup) -> Result<(Position, Position), SetupError> {
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
    Ok((next_avail, next_used))
}

/// Why a span of descriptors was not fetched any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanEnd {
    /// It was, to its end.
    Full,
    /// The next descriptor is not available.
    Nothing,
    /// A chain of several descriptors begins there.
    Chain,
}

/// A position that has passed the end of a ring of `size`, and the marks of used descriptors there.
#[cold]
fn wrap(at: Position, size: u16) -> (Position, u64) {
    let at = at.round(at.index, size);
    (at, at.used_flags())
}

/// In these, a position is made by `Position::after` or checked in `PackedQueue::new` and `follow`,
/// so its index is less than the ring's size.
impl Parts {
    /// The words of the descriptor at `index`: its address, and the rest.
    #[inline]
    fn halves(self, index: u16) -> [NonNull<AtomicU64>; 2] {
        // SAFETY: `index` is less than the number of descriptors that `resolve` found in memory.
        let low = unsafe { self.ring.add(16 * index as usize) }.cast();
        // SAFETY: a descriptor has 16 bytes.
        [low, unsafe { low.add(1) }]
    }

    /// Fetches descriptors from `at` on into `places`, of which there are no more than descriptors
    /// up to the ring's end; returns how many and why no more.
    #[inline]
    fn fetch_span<const WRITE: bool>(
        self,
        at: Position,
        places: &mut [Buffer],
        cursor: &mut Cursor<'_, WRITE>,
    ) -> (usize, SpanEnd) {
        let marks = u64::from(if at.wrap { AVAIL } else { USED }) << 48;
        let direction = u64::from(if WRITE { DESC_WRITE } else { 0 }) << 48;
        let mut index = at.index;
        for (fetched, place) in places.iter_mut().enumerate() {
            let [low, high] = self.halves(index);
            // SAFETY: 16 bytes, aligned to 16, as `resolve` checked. Acquire: the address, and
            // what lies there, are read after the flags.
            let rest = unsafe { high.as_ref() }.load(Ordering::Acquire);
            // Mostly one comparison tells all: available, alone, and of the right direction.
            let is_single = rest & (MARKS | KIND) == marks | direction;
            if !is_single {
                if rest & MARKS != marks {
                    return (fetched, SpanEnd::Nothing);
                }
                if rest & u64::from(DESC_NEXT) << 48 != 0 {
                    return (fetched, SpanEnd::Chain);
                }
            }
            // SAFETY: as above.
            let addr = unsafe { low.as_ref() }.load(Ordering::Relaxed);
            let desc = Desc::from_halves(addr, rest);
            place.set_chain(Chain { head: index, id: desc.id, slots: 1 });
            if !is_single || !place.locate::<WRITE>(addr, desc.len, *cursor) {
                let single = if is_single { cursor.translate(addr, desc.len) } else { None };
                single.into_iter().for_each(prefetch::<WRITE>);
                place.set_memory(single);
            }
            index = index.wrapping_add(1);
        }
        (places.len(), SpanEnd::Full)
    }

    /// The descriptor at `at`, if it is available (virtio 1.3 section 2.8.1); each of its halves is
    /// read once.
    #[inline]
    fn available(self, at: Position) -> Option<Desc> {
        let [low, high] = self.halves(at.index);
        // SAFETY: 16 bytes, aligned to 16, as `resolve` checked. Acquire: the address, and what
        // lies there, are read after the flags.
        let rest = unsafe { high.as_ref() }.load(Ordering::Acquire);
        let wanted = if at.wrap { AVAIL } else { USED };
        if Desc::from_halves(0, rest).flags & (AVAIL | USED) != wanted {
            return None;
        }
        // SAFETY: as above.
        let addr = unsafe { low.as_ref() }.load(Ordering::Relaxed);
        Some(Desc::from_halves(addr, rest))
    }

    /// A private copy of the descriptor at `index`, each of its halves read once.
    #[inline]
    fn descriptor(self, index: u16) -> Desc {
        // SAFETY: 16 bytes, aligned to 16, as `resolve` checked.
        let halves = self.halves(index).map(|half| unsafe { half.as_ref() });
        let [addr, rest] = halves.map(|half| half.load(Ordering::Relaxed));
        Desc::from_halves(addr, rest)
    }

    /// Makes the descriptor at `at` a used one: `value` has length, id and flags. All that was
    /// written before is visible to whoever sees the flags.
    #[inline]
    fn set_used(self, at: Position, value: u64) {
        let [_, high] = self.halves(at.index);
        // SAFETY: as in `descriptor`.
        unsafe { high.as_ref() }.store(value, Ordering::Release);
    }

    /// Finds the ring and the event structures in `memory` (alignments: section 2.8).
    fn resolve(memory: &GuestMemory, setup: &RingSetup) -> Result<Self, SetupError> {
        let [ring, driver_event, device_event] = RingPart::packed(setup);
        Ok(Self {
            ring: ring.find(memory)?,
            driver_event: driver_event.find(memory)?,
            device_event: device_event.find(memory)?,
        })
    }
}
