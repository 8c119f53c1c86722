//! Where a device has stopped that served a packed ring and was not, or could not be, asked.
//!
//! The ring does not say so in so many words. A descriptor's AVAIL flag tells in which round of
//! the ring the driver wrote it; where the round changes is the place of the next descriptor that
//! the driver will write. Behind it, backwards, lie descriptors that look available, up to the last
//! one that the device has used. All of these are outstanding, with one exception: of a chain of
//! several descriptors the device overwrites the first one only, so the others go on looking
//! available.
//!
//! These others end with a descriptor that has the chain's buffer id. An outstanding chain has the
//! same id only if the driver got the used one back before it wrote that one, right behind it:
//! when nothing else was outstanding. So the place is certain but for a ring that was empty a
//! moment ago, and one that is full, where the used one has been overwritten. What a device does
//! when it is given a little time decides that, in a transmit ring.
//!
//! All this holds for devices that use chains in the order in which they were made available. If
//! they do not, a used descriptor overwrites one of another chain, and nobody but the device knows
//! what that was.

use std::sync::Arc;

use super::{PackedQueue, Parts, told};
use crate::device::{RingSetup, SetupError};
use crate::features::Features;
use crate::memory::GuestMemory;
use crate::packed::{AVAIL, Desc, Position, USED};
use crate::ring::{DESC_INDIRECT, DESC_NEXT};

/// How often to look at a ring whose driver is just writing a chain, from its last descriptor on;
/// and how many descriptors to look at in all, where a hostile driver never stops.
const MOST_LOOKS: usize = 1000;
const MOST_READS: usize = 1 << 20;

/// Where a device is in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The base of the ring, as in [`RingSetup::base`].
    pub base: u32,
    /// The base if what lies there is the rest of a used chain; `None` when it cannot be.
    pub behind_rest: Option<u32>,
}

/// What a ring says of the base that a device was told to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseCheck {
    /// It may be right.
    Fits,
    /// It is wrong; this one is right.
    Found(u32),
    /// It is wrong, and the ring does not tell the right one.
    Unknown,
}

impl PackedQueue {
    /// Whether a device that starts with a new ring fits.
    pub(in crate::device) const fn is_new(setup: &RingSetup) -> bool {
        let first = Position::FIRST.bits() as u32;
        // DPDK sends the available half alone.
        setup.base == first || setup.base == (first << 16 | first)
    }

    /// Looks where a device is that serves the ring by itself and uses chains in order.
    ///
    /// # Errors
    /// When the ring does not lie in `memory`, or its size is not allowed.
    pub fn locate(memory: &Arc<GuestMemory>, setup: &RingSetup) -> Result<Located, SetupError> {
        if setup.size == 0 || setup.size > crate::packed::MAX_SIZE {
            return Err(SetupError::Size(setup.size));
        }
        let parts = Parts::resolve(memory, setup)?;
        let next = parts.driver_position(setup.size);
        let (place, behind_rest) = parts.device_position(next, setup.size);
        Ok(Located { base: base(place), behind_rest: behind_rest.map(base) })
    }

    /// Looks whether a device that uses chains in order can go on at the base in `setup`.
    ///
    /// Where a back-end was killed nobody could ask it, and a VMM tells the next one where the
    /// killed one began. QEMU finds the place in split rings itself (as of version 10).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(in crate::device) fn check_base(
        memory: &GuestMemory,
        setup: &RingSetup,
    ) -> Result<BaseCheck, SetupError> {
        let size = setup.size;
        let (avail, used) = told(setup)?;
        let parts = Parts::resolve(memory, setup)?;
        let next = parts.driver_position(size);
        let (place, behind_rest) = parts.device_position(next, size);
        let may_be = |at| at == place || Some(at) == behind_rest;
        // Where only the used half fits, what was taken and not used is lost, but the ring goes on.
        if may_be(avail) || may_be(used) {
            return Ok(BaseCheck::Fits);
        }
        let steps = |to| (0..=size).find(|steps| place.after(*steps, size) == to);
        let count = steps(next).unwrap_or(size);
        if setup.features.contains(Features::IN_ORDER) {
            // Of chains that are used with one mark, all but the first look outstanding.
            let outstanding = steps(avail).is_some_and(|steps| steps <= count);
            return Ok(if outstanding { BaseCheck::Fits } else { BaseCheck::Unknown });
        }
        // A single buffer looks like the rest of a chain when it has the id of the last one used.
        let place = behind_rest.filter(|_| parts.has_chains(place, count, size)).unwrap_or(place);
        Ok(BaseCheck::Found(base(place)))
    }
}

/// Whether a descriptor is available in the round of the ring that it was written in.
const fn looks_available(desc: Desc) -> bool {
    let marks = desc.flags & (AVAIL | USED);
    marks == AVAIL || marks == USED
}

/// The base of a ring in which nothing is under way in the device.
fn base(place: Position) -> u32 {
    u32::from(place.bits()) << 16 | u32::from(place.bits())
}

/// Where the driver writes its next descriptor, and how often the round changes in the ring: once
/// at most where no chain is being written.
fn driver_position(size: u16, flags: impl Fn(u16) -> u16) -> (Position, usize) {
    let first = flags(0) & AVAIL != 0;
    let (mut changes, mut last, mut place) = (0, first, None);
    for index in 1..size {
        let round = flags(index) & AVAIL != 0;
        if round != last {
            changes += 1;
            place = place.or(Some(index));
        }
        last = round;
    }
    // At the ring's end the next round begins.
    let end = Position { index: 0, wrap: !first };
    (place.map_or(end, |index| Position { index, wrap: first }), changes)
}

impl Parts {
    /// Where the driver writes its next descriptor.
    fn driver_position(self, size: u16) -> Position {
        let mut next = Position::FIRST;
        let looks = MOST_READS.div_ceil(usize::from(size).max(1)).min(MOST_LOOKS);
        for _ in 0..looks {
            let (found, rounds) = driver_position(size, |index| self.descriptor(index).flags);
            next = found;
            if rounds <= 1 {
                break;
            }
        }
        next
    }

    /// Whether the ring shows that chains have several descriptors: one that goes on, or the rest
    /// of one elsewhere than in the `count` descriptors from `place` on.
    fn has_chains(self, place: Position, count: u16, size: u16) -> bool {
        let mut all = (0..size).map(|steps| {
            let at = place.after(steps, size);
            (steps, self.descriptor(at.index))
        });
        all.any(|(steps, desc)| {
            desc.flags & DESC_NEXT != 0 || (steps >= count && looks_available(desc))
        })
    }

    /// The first descriptor before `next` that looks available, or `next`; and the one behind the
    /// rest of a used chain, if that is what may lie there.
    fn device_position(self, next: Position, size: u16) -> (Position, Option<Position>) {
        let before = |back: u16| {
            let passed = next.index < back;
            let index = if passed { size - back + next.index } else { next.index - back };
            Position { index, wrap: next.wrap != passed }
        };
        let run = (1..=size)
            .take_while(|back| looks_available(self.descriptor(before(*back).index)))
            .count();
        let run = u16::try_from(run).unwrap_or(size);
        if run == 0 {
            return (next, None);
        }
        let start = before(run);
        let Some((len, last)) = self.group(start, run, size) else { return (start, None) };
        let belongs_to_used = || {
            let used = self.descriptor(before(run.saturating_add(1)).index);
            // One that was never written is no used one: that is the first round.
            used.id == last.id && (used.addr != 0 || used.len != 0)
        };
        // In a ring that looks full, the used one is not there any more.
        let is_rest = run == size || belongs_to_used();
        if !is_rest || last.flags & DESC_INDIRECT != 0 {
            return (start, None);
        }
        // No two outstanding chains have the same id.
        let behind = start.after(len, size);
        if self.ids(behind, run.saturating_sub(len), size).any(|id| id == last.id) {
            return (behind, None);
        }
        (start, Some(behind))
    }

    /// The ids of the chains in the `most` descriptors from `start` on.
    fn ids(self, start: Position, most: u16, size: u16) -> impl Iterator<Item = u16> {
        let descriptors = (0..most).map(move |step| self.descriptor(start.after(step, size).index));
        descriptors.filter(|desc| desc.flags & DESC_NEXT == 0).map(|desc| desc.id)
    }

    /// The length of the chain, or rest of one, at `start`, and its last descriptor; `None` where
    /// it does not end within `most` descriptors.
    fn group(self, start: Position, most: u16, size: u16) -> Option<(u16, Desc)> {
        (0..most).find_map(|step| {
            let desc = self.descriptor(start.after(step, size).index);
            (desc.flags & DESC_NEXT == 0).then_some((step + 1, desc))
        })
    }
}
