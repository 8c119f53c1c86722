//! Records of the chains that a device has taken and not given back yet, for rings whose front-end
//! keeps such records (vhost-user, chapter "Inflight I/O tracking").
//!
//! - `packed`: for packed rings
//! - `split`: for split rings
//!
//! A device may end between any two stores. It is killed, not the machine: stores that come first
//! in the program are there, so all that is needed is that the compiler keeps their order.
//!
//! This device gives chains back in the order in which it has taken them. So one that starts where
//! another has ended takes the chains in flight again from the ring itself, in which they still
//! lie. Where the records say that they do not, another kind of device has left them, and they go
//! back to the driver empty: none is used twice, and no buffer is lost.

mod packed;
mod split;
#[cfg(test)]
mod tests;

use std::sync::atomic::{Ordering, compiler_fence};

pub(super) use packed::{Inflight, PackedRecords, PackedTracker};
pub(super) use split::{SplitRecords, SplitTracker};

use ordered::Order as _;

use super::SetupError;
use crate::inflight::{InflightArea, Layout, VERSION};

/// What the records of a ring have said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// Nothing: the ring starts where the front-end says.
    Anew,
    /// The ring goes on behind what the last device has given back.
    Here {
        /// Chains that were in flight, which are taken again.
        again: u16,
    },
    /// Chains that were in flight are not where a device would take them again.
    GivenBack {
        /// How many there are; they went back to the driver empty.
        chains: u16,
    },
}

/// The tracker of a ring, where there is one.
#[derive(Debug)]
pub(super) struct TrackerSlot<T>(Option<Box<T>>);

impl<T> TrackerSlot<T> {
    pub(super) const NONE: Self = Self(None);

    pub(super) fn set(&mut self, tracker: T) {
        self.0 = Some(Box::new(tracker));
    }

    #[inline]
    pub(super) const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(super) fn get(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

/// Has all stores before it come before all that follow.
#[inline]
fn step() {
    #[cfg(test)]
    crate::inflight::kill::before_store();
    compiler_fence(Ordering::SeqCst);
}

/// Checks that `area` is one for a ring of `size` and of format `layout`; returns whether there is
/// anything in it.
fn check(area: &InflightArea, layout: Layout, size: u16) -> Result<bool, SetupError> {
    let head = area.head();
    let error = SetupError::Inflight { version: head.version, entries: head.entries, size };
    if area.layout() != layout || area.entries() < size {
        return Err(error);
    }
    match head.version {
        0 => Ok(false),
        VERSION if head.entries == area.entries() => Ok(true),
        _ => Err(error),
    }
}

/// The entries that are in flight, in the order in which their chains were taken.
fn in_order(area: &InflightArea) -> Vec<u16> {
    let inflight = (0..area.entries()).filter(|index| area.is_inflight(*index));
    let mut entries: Vec<_> = inflight.map(|index| (area.counter(index), index)).collect();
    entries.order();
    entries.into_iter().map(|(_, index)| index).collect()
}

/// Takes the marks of `entries` back, the youngest first: wherever that ends, those that are left
/// are the next ones of the ring.
fn clear(area: &InflightArea, entries: &[u16]) {
    for index in entries.iter().rev() {
        step();
        area.set_inflight(*index, false);
    }
    step();
}
