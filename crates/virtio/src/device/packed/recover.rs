//! Where a device has stopped that served a packed ring by itself.
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

use super::{PackedQueue, Parts};
use crate::device::{RingSetup, SetupError};
use crate::memory::GuestMemory;
use crate::packed::{AVAIL, Desc, Position, USED};
use crate::ring::{DESC_INDIRECT, DESC_NEXT};

/// How often to look at a ring whose driver is just writing a chain, from its last descriptor on.
const MOST_LOOKS: usize = 1000;

/// Where a device is in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The base of the ring, as in [`RingSetup::base`].
    pub base: u32,
    /// The base if what lies there is the rest of a used chain; `None` when it cannot be.
    pub behind_rest: Option<u32>,
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
        let flags = |index| parts.descriptor(index).flags;
        let mut next = Position::FIRST;
        for _ in 0..MOST_LOOKS {
            let (found, rounds) = driver_position(setup.size, flags);
            next = found;
            if rounds <= 1 {
                break;
            }
        }
        let (place, rest) = parts.device_position(next, setup.size);
        let base = |place: Position| u32::from(place.bits()) << 16 | u32::from(place.bits());
        let behind_rest = rest.map(|len| base(place.after(len, setup.size)));
        Ok(Located { base: base(place), behind_rest })
    }
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
    /// The first descriptor before `next` that looks available, or `next`; and how many
    /// descriptors from there on may be the rest of a used chain.
    fn device_position(self, next: Position, size: u16) -> (Position, Option<u16>) {
        let looks_available = |desc: Desc| {
            let marks = desc.flags & (AVAIL | USED);
            marks == AVAIL || marks == USED
        };
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
        (start, Some(len))
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
