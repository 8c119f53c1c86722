//! Buffers of a packed ring and who owns them.
//!
//! A buffer id is free, held by the driver, or posted: with the device. A posted chain has the
//! id of its first buffer, and takes as many descriptors of the ring as it has buffers, wherever
//! the ring has arrived. All of this is private; what the device writes is read once and checked.

use super::ring::PackedRing;
use crate::driver::buffer::{Buffer, MAX_CHAIN, RingError, Used, writable_bytes};
use crate::features::Features;
use crate::packed::{self, AVAIL, EVENT_DESC, EVENT_ENABLE, Position, USED, event_position};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Desc, need_event};
use eal::{DmaPart, DmaSlice};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Free,
    Driver,
    Device,
}

/// What the driver knows of a buffer id.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// What the descriptor of this buffer will say, marks and id apart; `next` is the id of the
    /// next buffer of its chain.
    desc: Desc,
    /// Bytes that the device may write in the chain that starts here.
    room: u32,
    /// Descriptors that the chain that starts here takes in the ring, once it is posted.
    count: u16,
    owner: Owner,
}

/// The first descriptor of what was posted since the last `publish`: its second word is written
/// last, so that the device sees all of it or nothing.
#[derive(Clone, Copy, Debug)]
struct Withheld {
    index: u16,
    rest: u64,
}

/// The driver side of a packed ring. It is used as [`SplitQueue`](crate::driver::SplitQueue) is.
#[derive(Debug)]
pub struct PackedQueue {
    ring: PackedRing,
    size: u16,
    event_idx: bool,
    in_order: bool,
    slots: Box<[Slot]>,
    /// A ring of free ids, first in, first out; the first of them is at `free_from`.
    free: Box<[u16]>,
    free_from: u16,
    free_count: u16,
    /// With IN_ORDER: a ring of the posted chains, oldest first; the oldest is at `order_from`.
    order: Box<[u16]>,
    order_from: u16,
    /// With IN_ORDER: the chain, with its length, up to which the device has used all at once.
    batch: Option<(u16, u32)>,
    /// Chains that the device has.
    posted: u16,
    /// Descriptors that they take.
    taken: u16,
    avail: Position,
    used: Position,
    withheld: Option<Withheld>,
    /// Descriptors posted since the last `publish`.
    unpublished: u16,
}

impl PackedQueue {
    /// Bytes of memory that a queue of `size` entries takes.
    #[must_use]
    pub const fn bytes(size: u16) -> usize {
        PackedRing::bytes(size)
    }

    /// The place of the next used descriptor.
    pub(in crate::driver) const fn used_place(&self) -> Position {
        self.used
    }

    /// An empty queue in `memory`, which is cleared, with interrupts off. `size` may be any
    /// number from 1 to 32,768; of the negotiated `features` EVENT_IDX and IN_ORDER matter.
    /// `None` when the size is another, or the memory too short or not aligned to 16 bytes.
    #[must_use]
    pub fn new(memory: DmaPart, size: u16, features: Features) -> Option<Self> {
        let mut ring = PackedRing::new(memory, size)?;
        ring.set_no_interrupt();
        let in_order = features.contains(Features::IN_ORDER);
        let order = if in_order { size } else { 0 };
        Some(Self {
            ring,
            size,
            event_idx: features.contains(Features::EVENT_IDX),
            in_order,
            slots: vec![Slot::default(); size.into()].into_boxed_slice(),
            free: (0..size).collect(),
            free_from: 0,
            free_count: size,
            order: vec![0; order.into()].into_boxed_slice(),
            order_from: 0,
            batch: None,
            posted: 0,
            taken: 0,
            avail: Position::FIRST,
            used: Position::FIRST,
            withheld: None,
            unpublished: 0,
        })
    }

    /// The number of entries.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// The device's addresses of descriptor ring, driver and device event structure.
    #[must_use]
    pub const fn device_addresses(&self) -> (u64, u64, u64) {
        self.ring.device_addresses()
    }

    /// The number of free ids.
    #[must_use]
    #[inline]
    pub const fn free_count(&self) -> u16 {
        self.free_count
    }

    /// The number of chains that the device has.
    #[must_use]
    #[inline]
    pub const fn posted_count(&self) -> u16 {
        self.posted
    }

    /// Whether the device has a chain with this id.
    #[must_use]
    pub fn is_posted(&self, id: u16) -> bool {
        self.slots.get(usize::from(id)).is_some_and(|slot| slot.owner == Owner::Device)
    }

    /// `index`, which is less than twice the size, modulo the size.
    #[inline]
    const fn wrapped(&self, index: u16) -> u16 {
        if index >= self.size { index.wrapping_sub(self.size) } else { index }
    }

    /// Takes a free id for the driver; `None` when there is none.
    #[inline]
    pub fn reserve(&mut self) -> Option<u16> {
        if self.free_count == 0 {
            return None;
        }
        let id = *self.free.get(usize::from(self.free_from))?;
        self.slots.get_mut(usize::from(id))?.owner = Owner::Driver;
        self.free_from = self.wrapped(self.free_from.wrapping_add(1));
        self.free_count = self.free_count.wrapping_sub(1);
        Some(id)
    }

    /// Frees one id that the driver holds; one that it does not hold is left alone.
    #[inline]
    pub fn release(&mut self, id: u16) {
        let position = self.wrapped(self.free_from.wrapping_add(self.free_count));
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return };
        let Some(free) = self.free.get_mut(usize::from(position)) else { return };
        if slot.owner == Owner::Driver {
            slot.owner = Owner::Free;
            *free = id;
            self.free_count = self.free_count.wrapping_add(1);
        }
    }

    /// Makes `id`, which the driver holds, a chain of its own with `buffer`.
    #[inline]
    pub fn set(&mut self, id: u16, buffer: Buffer) {
        let desc = buffer.desc();
        let room = if buffer.writable { desc.len } else { 0 };
        self.write(id, desc, room);
    }

    #[inline]
    fn write(&mut self, id: u16, desc: Desc, room: u32) {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return };
        if slot.owner == Owner::Driver {
            slot.desc = desc;
            slot.room = room;
        }
    }

    /// As [`SplitQueue::set_chain`](crate::driver::SplitQueue::set_chain).
    pub fn set_chain(&mut self, ids: &[u16], buffers: &[Buffer]) {
        let room = writable_bytes(buffers);
        let count = ids.len().min(buffers.len());
        for (index, (id, buffer)) in ids.iter().zip(buffers).enumerate() {
            let mut desc = buffer.desc();
            if let Some(next) = ids.get(index + 1).filter(|_| index + 1 < count) {
                desc.flags |= DESC_NEXT;
                desc.next = *next;
            }
            self.write(*id, desc, if index == 0 { room } else { 0 });
        }
    }

    /// Makes `id`, which the driver holds, a chain whose descriptors lie in `table` (virtio 1.3
    /// section 2.8.8), which the feature INDIRECT_DESC allows. Returns `false`, and changes nothing,
    /// when the table is too short for the buffers or not aligned to 16 bytes, or when there are
    /// no buffers.
    pub fn set_indirect(&mut self, id: u16, table: DmaSlice<'_>, buffers: &[Buffer]) -> bool {
        let bytes = size_of::<packed::Desc>().saturating_mul(buffers.len());
        let Some(place) = table.place().slice(0, bytes) else { return false };
        let entries = place.host().cast::<packed::Desc>();
        let held = self.slots.get(usize::from(id)).is_some_and(|slot| slot.owner == Owner::Driver);
        if buffers.is_empty() || !entries.is_aligned() || !held {
            return false;
        }
        for (index, buffer) in buffers.iter().enumerate() {
            let Desc { addr, len, flags, .. } = buffer.desc();
            let desc = packed::Desc { addr, len, id: 0, flags: flags & DESC_WRITE };
            // SAFETY: the table has room for the number of buffers, `index` is less than that, and
            // it is borrowed from whoever has this memory alone.
            unsafe { entries.add(index).write_volatile(desc) };
        }
        let desc = Desc { flags: DESC_INDIRECT, ..Buffer::readable(place).desc() };
        self.write(id, desc, writable_bytes(buffers));
        true
    }

    /// Puts the chain that starts at `head`, which the driver holds, in line for the device. It
    /// gets it with the next [`publish`](Self::publish).
    #[inline]
    pub fn post(&mut self, head: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return };
        if slot.owner != Owner::Driver {
            return;
        }
        if slot.desc.flags & DESC_NEXT != 0 {
            self.post_chain(head);
        } else if self.taken < self.size {
            slot.owner = Owner::Device;
            slot.count = 1;
            let desc = slot.desc;
            self.put(head, desc);
            self.account(head, 1);
        }
    }

    /// As `post`, for chains of several descriptors.
    #[cold]
    #[inline(never)]
    fn post_chain(&mut self, head: u16) {
        let Some(count) = self.chain_len(head) else { return };
        let mut id = head;
        for _ in 0..count {
            let Some(desc) = self.slots.get(usize::from(id)).map(|slot| slot.desc) else { return };
            self.put(head, desc);
            id = desc.next;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(head)) {
            slot.owner = Owner::Device;
            slot.count = count;
        }
        self.account(head, count);
    }

    /// The number of descriptors of the chain at `head`, if the ring has room for them.
    fn chain_len(&self, head: u16) -> Option<u16> {
        let mut id = head;
        for count in 1..=self.size.saturating_sub(self.taken) {
            match self.next_in_chain(id) {
                None => return Some(count),
                Some(next) => id = next,
            }
        }
        None
    }

    /// Writes the next descriptor of the ring.
    #[inline]
    fn put(&mut self, id: u16, desc: Desc) {
        let at = self.avail;
        let flags = desc.flags | if at.wrap { AVAIL } else { USED };
        let rest = u64::from(desc.len) | u64::from(id) << 32 | u64::from(flags) << 48;
        self.ring.write_addr(at.index, desc.addr);
        if self.withheld.is_none() {
            self.withheld = Some(Withheld { index: at.index, rest });
        } else {
            self.ring.write_rest(at.index, rest);
        }
        self.avail = at.after(1, self.size);
    }

    /// Notes that the device has the chain `head` of `count` descriptors.
    #[inline]
    fn account(&mut self, head: u16, count: u16) {
        if self.in_order {
            let position = self.wrapped(self.order_from.wrapping_add(self.posted));
            if let Some(entry) = self.order.get_mut(usize::from(position)) {
                *entry = head;
            }
        }
        self.posted = self.posted.wrapping_add(1);
        self.taken = self.taken.wrapping_add(count);
        self.unpublished = self.unpublished.wrapping_add(count);
    }

    /// As [`SplitQueue::add_with`](crate::driver::SplitQueue::add_with).
    #[inline]
    pub fn add_with(&mut self, fill: impl FnOnce(u16) -> Option<Buffer>) -> bool {
        if self.free_count == 0 || self.taken >= self.size {
            return false;
        }
        let Some(id) = self.free.get(usize::from(self.free_from)).copied() else { return false };
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return false };
        let Some(buffer) = fill(id) else { return false };
        let desc = buffer.desc();
        let room = if buffer.writable { desc.len } else { 0 };
        *slot = Slot { desc, room, count: 1, owner: Owner::Device };
        self.free_from = self.wrapped(self.free_from.wrapping_add(1));
        self.free_count = self.free_count.wrapping_sub(1);
        self.put(id, desc);
        self.account(id, 1);
        true
    }

    /// Takes as many ids as there are buffers, makes a chain of them and posts it. Returns its
    /// head, or `None` when too few are free or there are no buffers.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || buffers.len() > usize::from(self.free_count) {
            return None;
        }
        let mut ids = arrayvec::ArrayVec::<u16, MAX_CHAIN>::new();
        for _ in 0..buffers.len().min(MAX_CHAIN) {
            ids.push(self.reserve()?);
        }
        self.set_chain(&ids, buffers);
        let head = *ids.first()?;
        self.post(head);
        Some(head)
    }

    /// Makes all posted chains visible to the device with one store, and returns whether the
    /// device wants to be notified of them.
    #[inline]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let Some(Withheld { index, rest }) = self.withheld.take() else { return false };
        self.ring.publish_rest(index, rest);
        let count = std::mem::take(&mut self.unpublished);
        PackedRing::full_fence();
        let (off_wrap, flags) = self.ring.device_event();
        match flags & 3 {
            EVENT_ENABLE => true,
            EVENT_DESC if self.event_idx => {
                let new = self.avail;
                let event = event_position(off_wrap, new.wrap, self.size);
                need_event(event, new.index, new.index.wrapping_sub(count))
            }
            _ => false,
        }
    }

    /// The position of the next descriptor, with its wrap counter (virtio 1.3 section 2.9).
    #[must_use]
    #[inline]
    pub const fn position(&self) -> u16 {
        self.avail.bits()
    }

    /// How many chains [`next_used`](Self::next_used) may give: 0 if the device has used none,
    /// otherwise a bound, since a packed ring does not tell the number.
    ///
    /// # Errors
    /// None yet; other formats have some.
    #[inline]
    pub fn poll_used(&mut self) -> Result<u16, RingError> {
        let any = self.batch.is_some() || self.peek().is_some();
        Ok(if any { self.posted } else { 0 })
    }

    /// What the device says about the next descriptor that it uses, if it has used it. Nothing
    /// that was posted but not published counts: what is in the ring there is old.
    #[inline]
    fn peek(&self) -> Option<(u32, u16)> {
        if self.taken == self.unpublished { None } else { self.ring.read_used(self.used) }
    }

    /// Takes the next chain that the device has used; its descriptors are the driver's again.
    /// `None` when there is none.
    ///
    /// # Errors
    /// When the device returns what it does not have, or claims to have written more than there
    /// was room for. (Of a chain that is only read the length is ignored.)
    #[inline]
    pub fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        if self.in_order {
            return self.next_used_in_order();
        }
        let Some((len, id)) = self.peek() else { return Ok(None) };
        self.take_used(id, Some(len)).map(Some)
    }

    /// As `next_used`, where the device may give back several chains by the id of the last one;
    /// the others are used up completely then (virtio 1.3 section 2.8.9).
    #[inline(never)]
    fn next_used_in_order(&mut self) -> Result<Option<Used>, RingError> {
        let (last, len) = match self.batch {
            Some(batch) => batch,
            None => match self.peek() {
                Some((len, id)) if self.is_posted(id) => (id, len),
                Some((_, id)) => return Err(RingError::Id { id: id.into() }),
                None => return Ok(None),
            },
        };
        let oldest = self.order.get(usize::from(self.order_from)).copied();
        let Some(id) = oldest.filter(|_| self.taken != self.unpublished) else {
            // The batch reaches into what the device cannot have seen yet.
            return Err(RingError::Id { id: last.into() });
        };
        let is_last = id == last;
        let used = self.take_used(id, is_last.then_some(len))?;
        self.order_from = self.wrapped(self.order_from.wrapping_add(1));
        self.batch = if is_last { None } else { Some((last, len)) };
        Ok(Some(used))
    }

    /// Takes chain `id` back; `len` is what the device says it wrote, `None` for all there is
    /// room for.
    #[inline]
    fn take_used(&mut self, id: u16, len: Option<u32>) -> Result<Used, RingError> {
        let bad_id = RingError::Id { id: id.into() };
        let slot = self.slots.get_mut(usize::from(id)).ok_or(bad_id)?;
        // A chain that the device has not got yet may make the ring's positions run over.
        if slot.owner != Owner::Device || slot.count > self.taken.wrapping_sub(self.unpublished) {
            return Err(bad_id);
        }
        let len = len.unwrap_or(slot.room);
        if len > slot.room && slot.room > 0 {
            return Err(RingError::Len { head: id, len, room: slot.room });
        }
        slot.owner = Owner::Driver;
        self.used = self.used.after(slot.count, self.size);
        self.taken = self.taken.wrapping_sub(slot.count);
        self.posted = self.posted.wrapping_sub(1);
        Ok(Used { head: id, len: len.min(slot.room) })
    }

    /// Frees all ids of the chain that starts at `head`, which the driver holds.
    pub fn recycle(&mut self, head: u16) {
        let mut id = head;
        // Links are private and lead nowhere else, but a bound costs nothing.
        for _ in 0..self.size {
            let next = self.next_in_chain(id);
            self.release(id);
            let Some(next) = next else { return };
            id = next;
        }
    }

    /// The buffer `id` is followed by this one in its chain, if any.
    #[must_use]
    #[inline]
    pub fn next_in_chain(&self, id: u16) -> Option<u16> {
        let desc = &self.slots.get(usize::from(id))?.desc;
        (desc.flags & DESC_NEXT != 0).then_some(desc.next)
    }

    /// Asks the device to interrupt when it uses the next chain. Returns `false` if it has used
    /// some already: then there may be no interrupt, and the caller must poll.
    #[must_use]
    pub fn enable_interrupts(&mut self) -> bool {
        let flags = if self.event_idx { EVENT_DESC } else { EVENT_ENABLE };
        self.ring.set_driver_event(self.used.bits(), flags);
        // The device marks its descriptor and then looks at our wish; we write our wish and then
        // look at its mark: with a fence on both sides, one of us sees the other.
        PackedRing::full_fence();
        self.batch.is_none() && self.peek().is_none()
    }

    /// Asks the device for no interrupts; some may still come.
    pub fn disable_interrupts(&mut self) {
        self.ring.set_no_interrupt();
    }
}
