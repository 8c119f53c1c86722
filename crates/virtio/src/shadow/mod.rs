//! Shadow rings: the device serves a ring of ours, and descriptors go to and fro between that one
//! and the guest's. Frames do not: the device reads and writes the guest's buffers.
//!
//! That is for devices that begin each ring at index 0, as all do that keep to the virtio
//! standard, while the guest's ring goes on at another place; and for those that do not log what
//! they write.
//!
//! Chains go back to the guest in the order in which it made them available, whatever the device
//! does. So what is not done yet is always the youngest part of the ring, and a single number, the
//! ring's base, tells whoever comes next where to go on.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use packet::RawSegment;

use crate::device::burst::{Buffer as GuestBuffer, MAX_BUFFERS};
use crate::device::{self, Buffers, Chain, DeviceQueue, RingLog};
use crate::driver::{self, Buffer, DmaMemory, DriverQueue, DriverRing as _, Used};

/// Rounds of one [`ShadowRing::relay`], of 64 chains each: others have their turn then.
const ROUNDS: usize = 4;

/// Why a shadow ring cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// The guest's ring makes no sense.
    #[error("the guest's ring: {0}")]
    Guest(#[from] device::RingError),
    /// The device has broken the rules of the shadow ring.
    #[error("the shadow ring: {0}")]
    Device(#[from] driver::RingError),
}

/// What is to be done after [`ShadowRing::relay`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// There may be more to relay at once. Otherwise the guest notifies of new chains, and the
    /// device of used ones.
    pub again: bool,
    /// The device is to be notified.
    pub notify: bool,
    /// The guest is to be notified.
    pub call: bool,
    /// Chains that went to the device.
    pub given: u32,
    /// Chains that came back to the guest.
    pub returned: u32,
    /// Chains that broke the rules and went back to the guest unused.
    pub bad: u32,
}

/// A chain that the guest has not got back yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    chain: Chain,
    /// Its first descriptor in the shadow ring; `None` for one that the device never saw.
    head: Option<u16>,
    /// Bytes that were written into it, once it is done.
    done: Option<u32>,
}

/// A chain in the shadow ring.
#[derive(Clone, Debug, Default)]
struct Place {
    /// How many chains came before it.
    number: u64,
    /// Where the device writes, for the log.
    written: Vec<RawSegment>,
}

/// How a chain went into the shadow ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Given(u16),
    Bad,
    NoRoom,
}

/// A ring of the guest, and the one that the device serves in its place.
#[derive(Debug)]
pub struct ShadowRing {
    guest: DeviceQueue,
    shadow: DriverQueue,
    /// The device writes the buffers: it is a receive ring.
    writes: bool,
    /// Most chains that are pending: the entries of the guest's ring.
    most: usize,
    /// The chains that the guest does not have back, oldest first.
    pending: VecDeque<Pending>,
    /// How many chains came before those.
    before: u64,
    /// By first descriptor in the shadow ring: the chain there.
    places: Box<[Place]>,
    /// The next chain has more descriptors than are free.
    no_room: bool,
    buffers: Box<Buffers>,
    segments: Vec<RawSegment>,
    parts: Vec<Buffer>,
    ids: Vec<u16>,
}

impl ShadowRing {
    /// `guest` is the guest's ring, of `entries` entries, and `shadow` a new one. `writes`: the
    /// device writes the buffers (a receive ring), otherwise it reads them.
    #[must_use]
    pub fn new(guest: DeviceQueue, entries: u16, shadow: DriverQueue, writes: bool) -> Self {
        let places = vec![Place::default(); shadow.entries().into()].into_boxed_slice();
        Self {
            guest,
            shadow,
            writes,
            most: entries.into(),
            pending: VecDeque::with_capacity(entries.into()),
            before: 0,
            places,
            no_room: false,
            buffers: Box::default(),
            segments: Vec::new(),
            parts: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// The ring that the device serves.
    #[must_use]
    pub const fn shadow(&self) -> &DriverQueue {
        &self.shadow
    }

    /// Where the next chain goes in the shadow ring, as notifications with NOTIFICATION_DATA tell it.
    #[must_use]
    pub fn position(&self) -> u16 {
        self.shadow.position()
    }

    /// Logs from now on what the device writes into the guest's buffers and what is written into its
    /// ring; or logs nothing any more.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        self.guest.set_log(log);
    }

    /// Gives used chains back to the guest and new ones to the device, for a while.
    ///
    /// # Errors
    /// When one of the rings is broken; neither is to be used any more.
    pub fn relay(&mut self) -> Result<Relayed, ShadowError> {
        let mut relayed = Relayed { again: true, ..Relayed::default() };
        self.guest.disarm();
        self.shadow.disable_interrupts();
        for _ in 0..ROUNDS {
            let (before, bad) = (relayed.returned + relayed.given, relayed.bad);
            relayed.returned += self.take_back()?;
            self.give(&mut relayed)?;
            relayed.notify |= self.shadow.publish();
            if relayed.returned + relayed.given == before && relayed.bad == bad {
                relayed.again = self.wait_for_more();
                break;
            }
        }
        relayed.call = self.guest.needs_call();
        Ok(relayed)
    }

    /// Asks both sides for notifications; `true` when there is something already.
    fn wait_for_more(&mut self) -> bool {
        let guest_waits = self.guest.arm();
        let device_waits = self.shadow.enable_interrupts();
        let can_take = !self.no_room && self.room() > 0;
        !device_waits || (!guest_waits && can_take)
    }

    /// Chains that may be taken from the guest now.
    fn room(&self) -> usize {
        let free = usize::from(self.shadow.free_count());
        free.min(self.most.saturating_sub(self.pending.len())).min(MAX_BUFFERS)
    }

    /// Takes chains from the guest's ring and puts them into the shadow ring.
    fn give(&mut self, relayed: &mut Relayed) -> Result<(), ShadowError> {
        self.no_room = false;
        let room = self.room();
        let mut buffers = std::mem::take(&mut self.buffers);
        let fetched = match self.writes {
            true => self.guest.fetch::<true>(room, &mut buffers),
            false => self.guest.fetch::<false>(room, &mut buffers),
        };
        let mut taken = 0;
        for buffer in buffers.as_slice().iter().take(room) {
            let (head, done) = match self.place(buffer) {
                Placed::Given(head) => (Some(head), None),
                Placed::Bad => (None, Some(0)),
                Placed::NoRoom => {
                    self.no_room = true;
                    break;
                }
            };
            relayed.given += u32::from(head.is_some());
            relayed.bad += u32::from(head.is_none());
            self.pending.push_back(Pending { chain: buffer.chain(), head, done });
            taken += 1;
        }
        self.guest.advance(&buffers, taken);
        self.buffers = buffers;
        Ok(fetched?)
    }

    /// Puts a chain into the shadow ring.
    fn place(&mut self, buffer: &GuestBuffer) -> Placed {
        self.segments.clear();
        match buffer.single() {
            Some(segment) => self.segments.push(segment),
            None => {
                let walked = match self.writes {
                    true => self.guest.walk::<true>(buffer.chain(), &mut self.segments),
                    false => self.guest.walk::<false>(buffer.chain(), &mut self.segments),
                };
                if walked.is_err() {
                    return Placed::Bad;
                }
            }
        }
        self.parts.clear();
        for segment in self.segments.iter().filter(|segment| segment.len() > 0) {
            let Some(address) = self.guest.memory().guest_address(*segment) else {
                return Placed::Bad;
            };
            let memory = DmaMemory::new(segment.as_ptr(), segment.len(), address);
            let Some(memory) = memory else { return Placed::Bad };
            let writes = self.writes;
            self.parts.push(if writes {
                Buffer::writable(memory)
            } else {
                Buffer::readable(memory)
            });
        }
        if self.parts.is_empty() || self.parts.len() > self.shadow.entries().into() {
            return Placed::Bad;
        }
        self.post()
    }

    /// Posts `parts` as a chain of the shadow ring.
    fn post(&mut self) -> Placed {
        if self.parts.len() > self.shadow.free_count().into() {
            return Placed::NoRoom;
        }
        self.ids.clear();
        self.ids.extend((0..self.parts.len()).map_while(|_| self.shadow.reserve()));
        let Some(head) = self.ids.first().copied() else { return Placed::NoRoom };
        let Some(place) = self.places.get_mut(usize::from(head)) else { return Placed::Bad };
        place.number = self.before + self.pending.len() as u64;
        if self.writes {
            place.written.clone_from(&self.segments);
        }
        self.shadow.set_chain(&self.ids, &self.parts);
        self.shadow.post(head);
        Placed::Given(head)
    }

    /// Takes what the device has used, and gives the oldest chains back to the guest, as far as
    /// they are done. Returns how many.
    fn take_back(&mut self) -> Result<u32, ShadowError> {
        if self.shadow.poll_used()? > 0 {
            while let Some(used) = self.shadow.next_used()? {
                self.note_used(used);
                self.shadow.recycle(used.head);
            }
        }
        let done = self.pending.iter().take_while(|pending| pending.done.is_some()).count();
        Ok(self.give_back(done))
    }

    /// Notes that the device is done with a chain, and logs what it has written.
    fn note_used(&mut self, used: Used) {
        let Some(place) = self.places.get(usize::from(used.head)) else { return };
        let index = usize::try_from(place.number.wrapping_sub(self.before));
        let pending = index.ok().and_then(|index| self.pending.get_mut(index));
        if let Some(pending) = pending {
            pending.done = Some(used.len);
        }
        self.guest.log_written(&place.written, used.len as usize);
    }

    /// Gives the oldest `count` chains back to the guest.
    fn give_back(&mut self, count: usize) -> u32 {
        let count = count.min(self.pending.len());
        let chains = self.pending.drain(..count);
        self.guest.complete(chains.map(|pending| (pending.chain, pending.done.unwrap_or(0))));
        self.before += count as u64;
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Ends it, once the device has been reset: takes what the device has used since the last
    /// relay, and returns the ring's base, from which on chains are to be given to a device
    /// again, with what the last relay did.
    ///
    /// A chain that the device has not used although it has used a younger one goes back to the
    /// guest empty: the base can tell of one place only.
    pub fn end(mut self) -> (u32, Relayed) {
        // What a broken ring still has is lost with it.
        let mut returned = self.take_back().unwrap_or(0);
        // Chains that the device never saw can come again.
        let used = |pending: &Pending| pending.head.is_some() && pending.done.is_some();
        let last = self.pending.iter().rposition(used);
        let given_up = last.map_or(0, |last| last + 1);
        let bad = self.pending.iter().take(given_up).filter(|pending| pending.done.is_none());
        let bad = u32::try_from(bad.count()).unwrap_or(u32::MAX);
        returned += self.give_back(given_up);
        // Whoever comes next has no reason to be polled for.
        let _ = self.guest.arm();
        let call = self.guest.needs_call();
        let base = self.guest.base_without(self.pending.len());
        (base, Relayed { call, returned, bad, ..Relayed::default() })
    }

    /// Chains that are with the device.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending
            .iter()
            .filter(|pending| pending.head.is_some() && pending.done.is_none())
            .count()
    }
}
