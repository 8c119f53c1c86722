//! Descriptors of a split ring and who owns them.
//!
//! A descriptor is free, held by the driver, or posted: with the device. All of this is
//! private; the ring in shared memory is only written, apart from the used ring, of which each
//! word is read once and checked.

use super::ring::SplitRing;
use crate::driver::buffer::{Buffer, MAX_CHAIN, RingError, Used, writable_bytes};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, Desc, QueueSize, need_event};
use eal::{DmaPart, DmaSlice};

/// With EVENT_IDX, an index that was passed comes up again after 65,536 steps; this many steps
/// after the last update it is moved on.
const EVENT_REFRESH: u16 = 0x4000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Free,
    Driver,
    Device,
}

/// What the driver knows of a descriptor.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// What the shared descriptor says, as far as we wrote it.
    desc: Desc,
    /// Bytes that the device may write in the chain that starts here.
    room: u32,
    owner: Owner,
}

/// The driver side of a split ring.
///
/// Use: [`add`](Self::add) chains, or [`reserve`](Self::reserve), fill and [`post`](Self::post)
/// single descriptors that keep their buffers; [`publish`](Self::publish) once per burst and
/// notify the device if it says so; [`poll_used`](Self::poll_used) once per burst and
/// [`next_used`](Self::next_used) for each chain that came back.
#[derive(Debug)]
pub struct SplitQueue {
    ring: SplitRing,
    event_idx: bool,
    interrupts: bool,
    slots: Box<[Slot]>,
    /// A ring of free descriptors: first in, first out, so that with a device that works in order
    /// the available ring always has the same words, and its cache lines need not move.
    free: Box<[u16]>,
    free_from: u16,
    free_to: u16,
    /// Chains that the device has.
    posted: u16,
    avail: u16,
    published: u16,
    used: u16,
    /// The device's used index when we last looked.
    used_seen: u16,
    /// The used index that we last told the device.
    used_event: u16,
}

impl SplitQueue {
    /// Bytes of memory that a queue of `size` entries takes.
    #[must_use]
    pub const fn bytes(size: QueueSize) -> usize {
        SplitRing::bytes(size)
    }

    /// An empty queue in `memory`, which is cleared, with interrupts off. `event_idx` says
    /// whether EVENT_IDX was negotiated. `None` when the memory is too short or not aligned to 16
    /// bytes.
    #[must_use]
    pub fn new(memory: DmaPart, size: QueueSize, event_idx: bool) -> Option<Self> {
        SplitRing::new(memory, size).map(|ring| Self::on(ring, event_idx))
    }

    /// Bytes of memory that a queue of `size` entries takes in the legacy layout.
    #[must_use]
    pub const fn legacy_bytes(size: QueueSize) -> usize {
        SplitRing::legacy_bytes(size)
    }

    /// As [`new`](Self::new), in the layout that devices before virtio 1.0 expect. The memory
    /// must be aligned to [`LEGACY_ALIGN`](super::LEGACY_ALIGN).
    #[must_use]
    pub fn new_legacy(memory: DmaPart, size: QueueSize, event_idx: bool) -> Option<Self> {
        SplitRing::new_legacy(memory, size).map(|ring| Self::on(ring, event_idx))
    }

    fn on(ring: SplitRing, event_idx: bool) -> Self {
        let size = ring.size();
        let mut queue = Self {
            ring,
            event_idx,
            interrupts: true,
            slots: vec![Slot::default(); size.get().into()].into_boxed_slice(),
            free: (0..size.get()).collect(),
            free_from: 0,
            free_to: size.get(),
            posted: 0,
            avail: 0,
            published: 0,
            used: 0,
            used_seen: 0,
            used_event: 0,
        };
        queue.disable_interrupts();
        queue
    }

    /// The number of entries.
    #[must_use]
    pub const fn size(&self) -> QueueSize {
        self.ring.size()
    }

    /// The device's addresses of descriptor table, available ring and used ring.
    #[must_use]
    pub const fn device_addresses(&self) -> (u64, u64, u64) {
        self.ring.device_addresses()
    }

    /// The number of free descriptors.
    #[must_use]
    #[inline]
    pub const fn free_count(&self) -> u16 {
        self.free_to.wrapping_sub(self.free_from)
    }

    /// The number of chains that the device has.
    #[must_use]
    #[inline]
    pub const fn posted_count(&self) -> u16 {
        self.posted
    }

    /// Whether the device has a chain that starts at descriptor `id`.
    #[must_use]
    pub fn is_posted(&self, id: u16) -> bool {
        self.slots.get(usize::from(id)).is_some_and(|slot| slot.owner == Owner::Device)
    }

    /// Takes a free descriptor for the driver; `None` when there is none.
    #[inline]
    pub fn reserve(&mut self) -> Option<u16> {
        if self.free_from == self.free_to {
            return None;
        }
        let id = *self.free.get(self.size().position(self.free_from))?;
        self.slots.get_mut(usize::from(id))?.owner = Owner::Driver;
        self.free_from = self.free_from.wrapping_add(1);
        Some(id)
    }

    /// Frees one descriptor that the driver holds; one that it does not hold is left alone.
    #[inline]
    pub fn release(&mut self, id: u16) {
        let position = self.size().position(self.free_to);
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return };
        let Some(free) = self.free.get_mut(position) else { return };
        if slot.owner == Owner::Driver {
            slot.owner = Owner::Free;
            *free = id;
            self.free_to = self.free_to.wrapping_add(1);
        }
    }

    /// Makes descriptor `id`, which the driver holds, a chain of its own with `buffer`. Nothing
    /// is written where the descriptor says that already.
    #[inline]
    pub fn set(&mut self, id: u16, buffer: Buffer) {
        let desc = buffer.desc();
        let room = if buffer.writable { desc.len } else { 0 };
        self.write(id, desc, room);
    }

    #[inline]
    fn write(&mut self, id: u16, desc: Desc, room: u32) {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return };
        if slot.owner != Owner::Driver {
            return;
        }
        slot.room = room;
        if slot.desc != desc {
            slot.desc = desc;
            self.ring.write_desc(id, desc);
        }
    }

    /// Makes a chain of the descriptors `ids`, which the driver holds, with one of `buffers`
    /// each, those that the device writes last (virtio 1.3 section 2.7.4.2). Surplus ids or
    /// buffers are left out.
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

    /// Makes descriptor `id`, which the driver holds, a chain whose descriptors lie in `table`
    /// (virtio 1.3 section 2.7.5.3), which the feature INDIRECT_DESC allows. Returns `false`, and
    /// changes nothing, when the table is too short for the buffers or not aligned to 16 bytes, or
    /// when there are no buffers.
    pub fn set_indirect(&mut self, id: u16, table: DmaSlice<'_>, buffers: &[Buffer]) -> bool {
        let bytes = size_of::<Desc>().saturating_mul(buffers.len());
        let Some(place) = table.place().slice(0, bytes) else { return false };
        let entries = place.host().cast::<Desc>();
        let held = self.slots.get(usize::from(id)).is_some_and(|slot| slot.owner == Owner::Driver);
        if buffers.is_empty() || !entries.is_aligned() || !held {
            return false;
        }
        let mut next = 0_u16;
        for (index, buffer) in buffers.iter().enumerate() {
            let mut desc = buffer.desc();
            next = next.saturating_add(1);
            if index + 1 < buffers.len() {
                desc.flags |= DESC_NEXT;
                desc.next = next;
            }
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
        if slot.owner == Owner::Driver {
            slot.owner = Owner::Device;
            self.ring.write_avail(self.avail, head);
            self.avail = self.avail.wrapping_add(1);
            self.posted += 1;
        }
    }

    /// Takes a free descriptor, makes it a chain of its own with the buffer that `fill` chooses
    /// for it, and posts it: [`reserve`](Self::reserve), [`set`](Self::set) and
    /// [`post`](Self::post) in one. Returns whether a descriptor was free and got a buffer.
    #[inline]
    pub fn add_with(&mut self, fill: impl FnOnce(u16) -> Option<Buffer>) -> bool {
        if self.free_from == self.free_to {
            return false;
        }
        let Some(id) = self.free.get(self.ring.size().position(self.free_from)) else {
            return false;
        };
        let Some(slot) = self.slots.get_mut(usize::from(*id)) else { return false };
        let Some(buffer) = fill(*id) else { return false };
        let desc = buffer.desc();
        slot.owner = Owner::Device;
        slot.room = if buffer.writable { desc.len } else { 0 };
        if slot.desc != desc {
            slot.desc = desc;
            self.ring.write_desc(*id, desc);
        }
        self.ring.write_avail(self.avail, *id);
        self.free_from = self.free_from.wrapping_add(1);
        self.avail = self.avail.wrapping_add(1);
        self.posted += 1;
        true
    }

    /// Takes as many descriptors as there are buffers, makes a chain of them and posts it.
    /// Returns its head, or `None` when too few descriptors are free or there are no buffers.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || buffers.len() > usize::from(self.free_count()) {
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
        let (old, new) = (self.published, self.avail);
        if old == new {
            return false;
        }
        self.ring.publish_avail(new);
        self.published = new;
        SplitRing::full_fence();
        if self.event_idx {
            need_event(self.ring.avail_event(), new, old)
        } else {
            !self.ring.no_notify()
        }
    }

    /// The index of the next entry of the available ring (virtio 1.3 section 2.9).
    #[must_use]
    #[inline]
    pub const fn position(&self) -> u16 {
        self.avail
    }

    /// Looks how many chains the device has used that were not taken yet: one load for a burst.
    ///
    /// # Errors
    /// When the device claims more than it was given.
    #[inline]
    pub fn poll_used(&mut self) -> Result<u16, RingError> {
        let to = self.ring.used_index();
        let count = to.wrapping_sub(self.used);
        if count > self.posted {
            return Err(RingError::Index { from: self.used, to, posted: self.posted });
        }
        self.used_seen = to;
        if self.event_idx
            && !self.interrupts
            && self.used.wrapping_sub(self.used_event) > EVENT_REFRESH
        {
            self.park_used_event();
        }
        Ok(count)
    }

    /// The device's used index when it was last looked at.
    pub(in crate::driver) const fn used_seen(&self) -> u16 {
        self.used_seen
    }

    /// Takes the next of the used chains that [`poll_used`](Self::poll_used) has seen; its
    /// descriptors are the driver's again. `None` when all were taken.
    ///
    /// # Errors
    /// When the device returns what it does not have, or claims to have written more than there
    /// was room for. (Of a chain that is only read the length is ignored: devices are
    /// known to give nonsense there.)
    #[inline]
    pub fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        if self.used == self.used_seen {
            return Ok(None);
        }
        let elem = self.ring.read_used(self.used);
        let bad_id = RingError::Id { id: elem.id };
        let head = u16::try_from(elem.id).map_err(|_| bad_id)?;
        let slot = self.slots.get_mut(usize::from(head)).ok_or(bad_id)?;
        if slot.owner != Owner::Device {
            return Err(bad_id);
        }
        if elem.len > slot.room && slot.room > 0 {
            return Err(RingError::Len { head, len: elem.len, room: slot.room });
        }
        slot.owner = Owner::Driver;
        self.used = self.used.wrapping_add(1);
        self.posted = self.posted.saturating_sub(1);
        Ok(Some(Used { head, len: elem.len.min(slot.room) }))
    }

    /// Frees all descriptors of the chain that starts at `head`, which the driver holds.
    pub fn recycle(&mut self, head: u16) {
        let mut id = head;
        // Links are private copies and lead nowhere else, but a bound costs nothing.
        for _ in 0..self.size().get() {
            let Some(slot) = self.slots.get(usize::from(id)) else { return };
            let desc = slot.desc;
            self.release(id);
            if desc.flags & DESC_NEXT == 0 {
                return;
            }
            id = desc.next;
        }
    }

    /// The driver's buffer at `head` is followed by this descriptor in its chain, if any.
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
        self.interrupts = true;
        if self.event_idx {
            self.used_event = self.used;
            self.ring.set_used_event(self.used);
        } else {
            self.ring.set_no_interrupt(false);
        }
        // The device writes its index and then looks at our wish; we write our wish and then
        // look at its index: with a fence on both sides, one of us sees the other.
        SplitRing::full_fence();
        self.ring.used_index() == self.used
    }

    /// Asks the device for no interrupts; some may still come.
    pub fn disable_interrupts(&mut self) {
        self.interrupts = false;
        if self.event_idx {
            self.park_used_event();
        } else {
            self.ring.set_no_interrupt(true);
        }
    }

    /// Sets `used_event` to an index that was just passed.
    fn park_used_event(&mut self) {
        self.used_event = self.used.wrapping_sub(1);
        self.ring.set_used_event(self.used_event);
    }
}
