//! Split rings, device side (virtio 1.3 section 2.7).

mod recover;
mod resume;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use packet::RawSegment;

use super::burst::{Buffer, Buffers, Chain, MAX_BUFFERS, prefetch};
use super::inflight::{SplitTracker, TrackerSlot};
use super::log::{LogSlot, RingLog};
use super::part::RingPart;
use super::table::{ChainWalk, Indirect};
use super::{ChainError, MAX_CHAIN, RingError, RingSetup, SetupError};
use crate::features::Features;
use crate::memory::{Cursor, GuestMemory, Translator};
use crate::ring::{
    AVAIL_NO_INTERRUPT, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Desc, ENTRIES_OFFSET, FLAGS_OFFSET,
    INDEX_OFFSET, QueueSize, USED_NO_NOTIFY, need_event, read_desc,
};

/// A running split ring.
#[derive(Debug)]
pub struct SplitQueue {
    parts: Parts,
    size: QueueSize,
    /// Free-running index of the next entry to take from the available ring.
    next_avail: u16,
    /// Free-running index of the next entry to write in the used ring.
    next_used: u16,
    /// `next_used` when the driver was last told, or decided not to be.
    told_used: u16,
    event_idx: bool,
    in_order: bool,
    indirect: bool,
    memory: Translator,
    /// While the guest is being migrated.
    log: LogSlot,
    /// Where the front-end keeps records of chains in flight.
    tracker: TrackerSlot<SplitTracker>,
    setup: RingSetup,
}

/// The ring's three parts. Each is as long as `size` of the same queue demands, which never
/// changes: an index is in bounds by `QueueSize::position` or by a check against `size`.
#[derive(Clone, Copy, Debug)]
struct Parts {
    desc: NonNull<u8>,
    avail: NonNull<u8>,
    used: NonNull<u8>,
}

/// What was read of a chain: its head, and the descriptor there if there is one.
#[derive(Clone, Copy, Debug)]
struct Fetched {
    head: u16,
    desc: Option<Desc>,
}

// SAFETY: the pointers lead into mappings that `memory` keeps alive and that any thread may
// use; a queue has one owner at a time.
unsafe impl Send for SplitQueue {}

impl SplitQueue {
    /// Starts a ring in `memory`.
    ///
    /// # Errors
    /// When the size is not allowed or a part does not lie in `memory`.
    pub fn new(memory: Arc<GuestMemory>, setup: RingSetup) -> Result<Self, SetupError> {
        let size = QueueSize::new(setup.size).ok_or(SetupError::Size(setup.size))?;
        let next_avail = u16::try_from(setup.base)
            .map_err(|_| SetupError::Base { base: setup.base, size: setup.size })?;
        let parts = Parts::resolve(&memory, &setup, size)?;
        let mut queue = Self::begin(memory, setup, size, parts);
        queue.next_avail = next_avail;
        queue.disarm();
        Ok(queue)
    }

    /// The ring as it lies in memory; nothing is changed there.
    fn begin(memory: Arc<GuestMemory>, setup: RingSetup, size: QueueSize, parts: Parts) -> Self {
        let mut queue = Self {
            parts,
            size,
            next_avail: 0,
            next_used: 0,
            told_used: 0,
            event_idx: setup.features.contains(Features::EVENT_IDX),
            in_order: setup.features.contains(Features::IN_ORDER),
            indirect: setup.features.contains(Features::INDIRECT_DESC),
            memory: Translator::new(memory),
            log: LogSlot::default(),
            tracker: TrackerSlot::NONE,
            setup,
        };
        // After a restart of the back-end the used ring goes on where it stood.
        queue.next_used = queue.load16(queue.parts.used, INDEX_OFFSET, Ordering::Relaxed);
        queue.told_used = queue.next_used;
        queue
    }

    /// Goes on in another memory table.
    ///
    /// # Errors
    /// When the ring does not lie in it; the queue must not be used then.
    pub fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), SetupError> {
        self.parts = Parts::resolve(&memory, &self.setup, self.size)?;
        self.memory = Translator::new(memory);
        self.locate_log();
        Ok(())
    }

    /// Checks whether the ring could go on in `memory`.
    ///
    /// # Errors
    /// As [`set_memory`](Self::set_memory).
    pub fn check_memory(&self, memory: &GuestMemory) -> Result<(), SetupError> {
        Parts::resolve(memory, &self.setup, self.size).map(|_| ())
    }

    /// Logs all that is written to the guest's memory from now on, and the used ring as it is; or
    /// logs nothing any more.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        self.log = LogSlot::new(log);
        self.locate_log();
        self.log.with(|log| {
            log.set_next(self.next_used);
            log.mark_used(0, self.size.used_bytes());
            log.tell();
        });
    }

    /// Notes where the ring lies now, for a log.
    fn locate_log(&mut self) {
        self.log.with(|log| log.translate_used(self.memory.memory(), self.setup.used));
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
        self.log.with(|log| log.mark_elements(self.size, self.next_used));
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

    /// The index where another device, or this one later, has to go on (GET_VRING_BASE).
    #[must_use]
    pub fn base(&self) -> u32 {
        self.next_avail.into()
    }

    /// The index of the used ring: how many chains were ever given back, modulo 65536. With a
    /// device that gives them back in order, that is also where the next one is to be taken.
    #[must_use]
    pub const fn next_used(&self) -> u16 {
        self.next_used
    }

    /// See [`DeviceQueue::base_without`](super::DeviceQueue::base_without).
    pub(super) fn base_without(&self, count: u16) -> u32 {
        self.next_avail.wrapping_sub(count).into()
    }

    /// Number of chains that wait in the available ring.
    ///
    /// # Errors
    /// When the driver's index makes no sense.
    #[inline]
    pub fn available(&self) -> Result<u16, RingError> {
        // Acquire: the entries and descriptors behind the index are read after it.
        let avail = self.load16(self.parts.avail, INDEX_OFFSET, Ordering::Acquire);
        let waiting = avail.wrapping_sub(self.next_avail);
        if waiting > self.size.get() {
            let (next, size) = (self.next_avail, self.size.get());
            return Err(RingError::IndexJump { avail, next, size });
        }
        Ok(waiting)
    }

    /// Takes up to `max` chains that the device is to read (`WRITE` false) or write into
    /// `buffers`, and asks for their memory to be brought into the cache. The chains stay in
    /// the available ring until [`advance`](Self::advance).
    ///
    /// # Errors
    /// When the ring is broken.
    #[inline]
    pub fn fetch<const WRITE: bool>(
        &mut self,
        max: usize,
        buffers: &mut Buffers,
    ) -> Result<(), RingError> {
        let count = max.min(self.available()? as usize).min(MAX_BUFFERS);
        // Copies, so that nothing in the loop is loaded twice.
        let (parts, size) = (self.parts, self.size);
        let mut cursor = self.memory.cursor::<WRITE>();
        let mut places = buffers.refill(count);
        let (mut index, mut fetched) = (self.next_avail, Ok(()));
        // Up to the ring's end, and from its start.
        while !places.is_empty() && fetched.is_ok() {
            let heads = parts.heads(size, index, places.len());
            let (now, later) = places.split_at_mut(heads.len());
            fetched = parts.fetch_span::<WRITE>(size, heads, now, &mut cursor);
            // There are no more entries than a u16 counts.
            index = index.wrapping_add(u16::try_from(heads.len()).unwrap_or(0));
            places = later;
        }
        let last = cursor.last();
        self.memory.set_last::<WRITE>(last);
        if fetched.is_err() {
            buffers.clear();
        }
        fetched
    }

    /// Takes the first `count` of `buffers`, fetched chains, out of the available ring for good.
    #[inline]
    pub fn advance(&mut self, buffers: &Buffers, count: usize) {
        if self.tracker.is_some() {
            self.record_taken(buffers, count);
        }
        // There are 64 buffers at most.
        let count = u16::try_from(count).unwrap_or(0);
        self.next_avail = self.next_avail.wrapping_add(count);
    }

    /// Visits the buffers of a fetched chain: each with whether the device is to write it.
    ///
    /// # Errors
    /// When the chain breaks a rule.
    pub(super) fn follow(
        &mut self,
        chain: Chain,
        mut visit: impl FnMut(RawSegment, bool) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        let mut index = chain.head;
        // The driver must not make a chain longer than the ring (section 2.7.5.2), so this many
        // steps reach the end of every chain that has one.
        for _ in 0..MAX_CHAIN.min(self.size.get().into()) {
            let desc =
                self.parts.descriptor(self.size, index).ok_or(ChainError::NextOutOfRange(index))?;
            if desc.flags & DESC_INDIRECT != 0 {
                let table = Indirect { addr: desc.addr, len: desc.len };
                let allowed = self.indirect && desc.flags & DESC_NEXT == 0;
                return table.follow(allowed, &mut self.memory, ChainWalk::Linked, visit);
            }
            let writable = desc.flags & DESC_WRITE != 0;
            self.memory.pieces(desc.addr, desc.len, writable, |piece| visit(piece, writable))?;
            if desc.flags & DESC_NEXT == 0 {
                return Ok(());
            }
            index = desc.next;
        }
        Err(ChainError::TooLong)
    }

    /// See [`DeviceQueue::indirect_table`](super::DeviceQueue::indirect_table).
    pub(super) fn indirect_table(&mut self, chain: Chain) -> Option<RawSegment> {
        let mut index = chain.head;
        for _ in 0..MAX_CHAIN.min(self.size.get().into()) {
            let desc = self.parts.descriptor(self.size, index)?;
            if desc.flags & DESC_INDIRECT != 0 {
                return self.memory.translate::<false>(desc.addr, desc.len);
            }
            if desc.flags & DESC_NEXT == 0 {
                return None;
            }
            index = desc.next;
        }
        None
    }

    /// Gives chains back to the driver with one store of the index, each with the number of
    /// bytes written into it.
    #[inline]
    pub fn complete(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        if self.tracker.is_some() {
            return self.complete_recorded(used);
        }
        self.give_back(used);
    }

    fn give_back(&mut self, used: impl Iterator<Item = (Chain, u32)>) {
        let mut next = self.next_used;
        for (chain, len) in used {
            self.parts.set_used(self.size, next, chain.head, len);
            next = next.wrapping_add(1);
        }
        self.publish(next);
    }

    /// The same of a burst, with what `len` says of each buffer.
    #[inline(always)]
    fn give_back_batch(&mut self, batch: &[Buffer], len: impl Fn(&Buffer) -> u32 + Copy) {
        let (parts, size) = (self.parts, self.size);
        let (mut next, mut rest) = (self.next_used, batch);
        // Up to the ring's end, and from its start.
        while !rest.is_empty() {
            let done = parts.set_used_span(size, next, rest, len);
            // There are no more entries than a u16 counts.
            next = next.wrapping_add(u16::try_from(done).unwrap_or(0));
            rest = rest.get(done..).unwrap_or_default();
        }
        self.publish(next);
    }

    /// Shows the driver the elements up to this index.
    #[inline]
    fn publish(&mut self, next: u16) {
        if self.next_used != next {
            self.next_used = next;
            // Release: the elements, and what was written into the buffers, come first.
            self.store16(self.parts.used, INDEX_OFFSET, next, Ordering::Release);
            self.log_used();
        }
    }

    /// Gives the first `count` of `buffers` back to the driver, each with the number of bytes that were
    /// written into it.
    #[inline]
    pub fn complete_written(&mut self, buffers: &Buffers, count: usize) {
        if self.tracker.is_some() {
            return self.complete_recorded(buffers.written(count));
        }
        self.give_back_batch(buffers.first(count), Buffer::written_len);
    }

    /// Gives the first `count` of `buffers`, which the device has only read, back to the driver.
    /// With IN_ORDER the last one stands for all (section 2.7.9), so that one element is written
    /// where there would be as many as frames.
    #[inline]
    pub fn complete_read(&mut self, buffers: &Buffers, count: usize) {
        let batch = buffers.first(count);
        match batch.last() {
            Some(last) if self.in_order => self.complete_in_order(batch, last.chain()),
            _ if self.tracker.is_some() => self.complete_recorded(buffers.read(count)),
            _ => self.give_back_batch(batch, |_| 0),
        }
    }

    #[inline]
    fn complete_in_order(&mut self, batch: &[Buffer], last: Chain) {
        if self.tracker.is_some() {
            self.record_begin(batch);
        }
        self.parts.set_used(self.size, self.next_used, last.head, 0);
        // There are 64 buffers at most.
        let count = u16::try_from(batch.len()).unwrap_or(0);
        self.next_used = self.next_used.wrapping_add(count);
        // Release: that the buffers were read, and the element, come first.
        self.store16(self.parts.used, INDEX_OFFSET, self.next_used, Ordering::Release);
        if self.tracker.is_some() {
            self.record_end(batch);
        }
        self.log_used();
    }

    /// Whether the driver wants to hear of the chains given back since the last call of this
    /// function (virtio 1.3 section 2.7.7).
    #[inline]
    #[must_use]
    pub fn needs_call(&mut self) -> bool {
        let (old, new) = (self.told_used, self.next_used);
        if old == new {
            return false;
        }
        self.told_used = new;
        self.log.with(RingLog::tell);
        // The index must be visible before the driver's wish is read: the driver states its
        // wish and then looks at the index, so one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let offset = self.size.used_event_offset();
            need_event(self.load16(self.parts.avail, offset, Ordering::Relaxed), new, old)
        } else {
            let flags = self.load16(self.parts.avail, FLAGS_OFFSET, Ordering::Relaxed);
            flags & AVAIL_NO_INTERRUPT == 0
        }
    }

    /// Asks the driver for a notification with the next chain, and returns `false` if chains
    /// are waiting already (or the ring is broken), in which case none may come.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        let offset = if self.event_idx {
            let offset = self.size.avail_event_offset();
            self.store16(self.parts.used, offset, self.next_avail, Ordering::Relaxed);
            offset
        } else {
            self.store16(self.parts.used, FLAGS_OFFSET, 0, Ordering::Relaxed);
            FLAGS_OFFSET
        };
        self.log.with(|log| log.mark_wish(offset, 2));
        // The wish must be visible before the index is read: see `needs_call`.
        fence(Ordering::SeqCst);
        self.available() == Ok(0)
    }

    /// Tells the driver that the ring is polled. With EVENT_IDX there is nothing to say: the
    /// driver notifies when its index passes the one of the last `arm`, which is rare.
    pub fn disarm(&mut self) {
        if !self.event_idx {
            self.store16(self.parts.used, FLAGS_OFFSET, USED_NO_NOTIFY, Ordering::Relaxed);
            self.log.with(|log| log.mark_wish(FLAGS_OFFSET, 2));
        }
    }

    #[inline]
    fn load16(&self, part: NonNull<u8>, offset: usize, order: Ordering) -> u16 {
        // SAFETY: the callers' offsets are even and inside the part, which is at least 2-aligned.
        unsafe { AtomicU16::from_ptr(part.add(offset).cast().as_ptr()) }.load(order)
    }

    #[inline]
    fn store16(&self, part: NonNull<u8>, offset: usize, value: u16, order: Ordering) {
        // SAFETY: as in `load16`.
        unsafe { AtomicU16::from_ptr(part.add(offset).cast().as_ptr()) }.store(value, order);
    }
}

impl Parts {
    /// The entry of the available ring at free-running index `index`; `size` is the ring's.
    #[inline]
    fn head(self, size: QueueSize, index: u16) -> u16 {
        let offset = ENTRIES_OFFSET + 2 * size.position(index);
        // SAFETY: `position` is less than the ring's size, so the 2 bytes lie in the available
        // ring, which is aligned to 2.
        unsafe { AtomicU16::from_ptr(self.avail.add(offset).cast().as_ptr()) }
            .load(Ordering::Relaxed)
    }

    /// The entries of the available ring from free-running index `index` on, up to the ring's end,
    /// `count` at most; `size` is the ring's.
    #[inline]
    fn heads(&self, size: QueueSize, index: u16, count: usize) -> &[AtomicU16] {
        let from = size.position(index);
        let count = count.min(usize::from(size.get()).saturating_sub(from));
        // SAFETY: they lie in the available ring, which is aligned to 2, and whoever uses the parts
        // keeps its memory; both sides change it as atomics do.
        unsafe {
            let first = self.avail.add(ENTRIES_OFFSET + 2 * from).cast();
            NonNull::slice_from_raw_parts(first, count).as_ref()
        }
    }

    /// Fetches the chains with these heads into places, of which there are as many.
    ///
    /// # Errors
    /// When there is no such descriptor.
    #[inline(always)]
    fn fetch_span<const WRITE: bool>(
        self,
        size: QueueSize,
        heads: &[AtomicU16],
        places: &mut [Buffer],
        cursor: &mut Cursor<'_, WRITE>,
    ) -> Result<(), RingError> {
        let mut done = 0;
        // In memory, so that what is mostly not needed takes no register of the loop.
        let mut unusual = Fetched { head: 0, desc: None };
        loop {
            let rest = heads.get(done..).unwrap_or_default().iter();
            let rest = rest.zip(places.get_mut(done..).unwrap_or_default());
            done += self.fetch_singles::<WRITE>(size, rest, *cursor, &mut unusual);
            let Some(place) = places.get_mut(done) else { return Ok(()) };
            self.fetch_unusual::<WRITE>(size, &unusual, place, cursor)?;
            done += 1;
        }
    }

    /// Fetches chains of one ordinary descriptor each, in memory that is at hand; returns how many. What was
    /// read of the one behind them that is none is `unusual`. Such a loop has no call in it and stays in
    /// registers.
    #[inline(always)]
    fn fetch_singles<'b, const WRITE: bool>(
        self,
        size: QueueSize,
        entries: impl Iterator<Item = (&'b AtomicU16, &'b mut Buffer)>,
        cursor: Cursor<'_, WRITE>,
        unusual: &mut Fetched,
    ) -> usize {
        let wanted = if WRITE { DESC_WRITE } else { 0 };
        let mut count = 0;
        for (head, place) in entries {
            // Each is read once.
            let head = head.load(Ordering::Relaxed);
            let Some(desc) = self.descriptor(size, head) else {
                *unusual = Fetched { head, desc: None };
                return count;
            };
            let is_single = desc.flags & (DESC_NEXT | DESC_INDIRECT | DESC_WRITE) == wanted;
            if !is_single || !place.locate::<WRITE>(desc.addr, desc.len, cursor) {
                *unusual = Fetched { head, desc: Some(desc) };
                return count;
            }
            place.set_head(head);
            count += 1;
        }
        count
    }

    /// Fetches any chain.
    ///
    /// # Errors
    /// When there is no such descriptor.
    #[inline(never)]
    fn fetch_unusual<const WRITE: bool>(
        self,
        size: QueueSize,
        &Fetched { head, desc }: &Fetched,
        place: &mut Buffer,
        cursor: &mut Cursor<'_, WRITE>,
    ) -> Result<(), RingError> {
        let Some(desc) = desc else {
            return Err(RingError::HeadOutOfRange { head, size: size.get() });
        };
        let wanted = if WRITE { DESC_WRITE } else { 0 };
        let is_single = desc.flags & (DESC_NEXT | DESC_INDIRECT | DESC_WRITE) == wanted;
        let single = if is_single { cursor.translate(desc.addr, desc.len) } else { None };
        single.into_iter().for_each(prefetch::<WRITE>);
        place.set_memory(single);
        place.set_head(head);
        Ok(())
    }

    /// A private copy of descriptor `index`; `None` when there is no such descriptor.
    #[inline]
    fn descriptor(self, size: QueueSize, index: u16) -> Option<Desc> {
        if index >= size.get() {
            return None;
        }
        // SAFETY: the table has `size` descriptors, `index` is one of them, and `resolve`
        // checked that the table is aligned to 16.
        Some(unsafe { read_desc(self.desc.add(16 * index as usize)) })
    }

    /// Writes the element of the used ring at free-running index `index`.
    #[inline]
    fn set_used(self, size: QueueSize, index: u16, head: u16, len: u32) {
        let offset = ENTRIES_OFFSET + 8 * size.position(index);
        let value = u64::from(len) << 32 | u64::from(head);
        // SAFETY: `position` is less than the ring's size, so the 8 bytes lie in the used ring;
        // only this device writes them.
        unsafe { self.used.add(offset).cast::<u64>().write_unaligned(value) };
    }

    /// Writes the elements of `batch` from free-running index `index` on, up to the ring's end, with what
    /// `len` says of each; returns how many those are.
    #[inline(always)]
    fn set_used_span(
        self,
        size: QueueSize,
        index: u16,
        batch: &[Buffer],
        len: impl Fn(&Buffer) -> u32,
    ) -> usize {
        let from = size.position(index);
        let count = batch.len().min(usize::from(size.get()).saturating_sub(from));
        for (at, buffer) in (from..).zip(batch.iter().take(count)) {
            let value = u64::from(len(buffer)) << 32 | u64::from(buffer.chain().head);
            // SAFETY: `at` is less than the ring's size, so the 8 bytes lie in the used ring; only
            // this device writes them.
            unsafe { self.used.add(ENTRIES_OFFSET + 8 * at).cast::<u64>().write_unaligned(value) };
        }
        count
    }

    /// Finds the ring's parts in `memory`, all of their bytes (alignments: section 2.7).
    fn resolve(
        memory: &GuestMemory,
        setup: &RingSetup,
        size: QueueSize,
    ) -> Result<Self, SetupError> {
        let [desc, avail, used] = RingPart::split(setup, size);
        Ok(Self { desc: desc.find(memory)?, avail: avail.find(memory)?, used: used.find(memory)? })
    }
}
