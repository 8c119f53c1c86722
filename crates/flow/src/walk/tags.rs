//! The tags of a packet on its way: which of those that it had are still there, and what is new.
//!
//! There are places for two in the key. One more pushes the innermost off the end, and so out of the
//! packet; what is behind a place that says that there is no tag is not there; all as in OVS.
//!
//! A packet without a header of Ethernet has nothing that a tag could be in. Rules find what was written, as in OVS,
//! until the packet is to go out; then it is not there.

use arrayvec::ArrayVec;

use super::is_tagged;
use crate::key::{Key, TAG_PRESENT, slot};
use crate::path::Edit;

/// Kind and control information that are put on where nothing else is said.
const VLAN: u16 = 0x8100;

/// What is at a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag {
    /// Which of the packet's tags it is, counted from the outermost; none if it is new.
    origin: Option<u8>,
    /// Which bits of it were written.
    written: u16,
}

/// What has become of the tags since the packet was last made to be what its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tags {
    /// How many it had then.
    before: u8,
    outer: Tag,
    inner: Tag,
}

/// The tags that a key says that there are, the outermost first: kind and control information.
fn known(key: &Key) -> ArrayVec<(u16, u16), 2> {
    let places = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    let all = places.into_iter().map(|(tpid, tci)| (key.get_u16(tpid), key.get_u16(tci)));
    all.take_while(|(_, tci)| is_tagged(*tci)).collect()
}

/// How many there are.
pub(super) fn count(key: &Key) -> u8 {
    u8::try_from(known(key).len()).unwrap_or_default()
}

impl Tags {
    /// Those that a packet comes with.
    pub(super) fn new(key: &Key) -> Self {
        let before = count(key);
        let tag = |number| Tag { origin: (number < before).then_some(number), written: 0 };
        Self { before, outer: tag(0), inner: tag(1) }
    }

    /// Puts one on.
    pub(super) fn push(&mut self, key: &mut Key, tpid: u16) {
        // What is there moves on, even where it says that there is no tag.
        key.set(slot::INNER_TPID, key.get(slot::VLAN_TPID));
        key.set(slot::INNER_TCI, key.get(slot::VLAN_TCI));
        self.inner = self.outer;
        key.set(slot::VLAN_TPID, u128::from(tpid));
        key.set(slot::VLAN_TCI, u128::from(TAG_PRESENT));
        self.outer = Tag::default();
    }

    /// Takes the outermost off, if there is one.
    pub(super) fn pop(&mut self, key: &mut Key) {
        match count(key) {
            0 => return,
            1 => {
                key.set(slot::VLAN_TPID, 0);
                key.set(slot::VLAN_TCI, 0);
                self.outer = Tag::default();
                return;
            }
            _ => self.outer = std::mem::take(&mut self.inner),
        }
        key.set(slot::VLAN_TPID, key.get(slot::INNER_TPID));
        key.set(slot::VLAN_TCI, key.get(slot::INNER_TCI));
        key.set(slot::INNER_TPID, 0);
        key.set(slot::INNER_TCI, 0);
    }

    /// Writes bits of the control information of the outermost, by which it may come or go.
    pub(super) fn write(&mut self, key: &mut Key, bits: u16, mask: u16) {
        let tci = key.get_u16(slot::VLAN_TCI) & !mask | bits & mask;
        key.set(slot::VLAN_TCI, u128::from(tci));
        if tci != 0 && key.get_u16(slot::VLAN_TPID) == 0 {
            key.set(slot::VLAN_TPID, u128::from(VLAN));
        }
        self.outer.written |= mask & !TAG_PRESENT;
    }

    /// Leaves out those that were put on what has no header of Ethernet.
    pub(super) fn settle(&mut self, key: &mut Key) {
        if self.before > 0 || key.is_ethernet() {
            return;
        }
        for slot in [slot::VLAN_TPID, slot::VLAN_TCI, slot::INNER_TPID, slot::INNER_TCI] {
            key.set(slot, 0);
        }
        *self = Self::new(key);
    }

    /// How many of the tags that there are now the packet has already: the innermost of both.
    fn kept(&self, now: u8) -> u8 {
        let is_same = |kept: &u8| {
            let tag = if now == kept + 1 { self.outer } else { self.inner };
            tag.origin.is_some() && tag.origin == self.before.checked_sub(kept + 1)
        };
        u8::try_from((0..now).take_while(is_same).count()).unwrap_or_default()
    }

    /// By how many bytes the packet is to grow, and by how many to shrink.
    pub(super) fn growth(&self, key: &Key) -> (u32, u32) {
        let (now, tags) = (count(key), |more: u8| u32::from(more) * 4);
        let kept = self.kept(now);
        (tags(now.saturating_sub(kept)), tags(self.before.saturating_sub(kept)))
    }

    /// The changes that make the packet's tags those of its key.
    pub(super) fn edits(&mut self, key: &Key) -> impl Iterator<Item = Edit> + use<> {
        let all = known(key);
        let kept = self.kept(count(key));
        let new = all.len().saturating_sub(usize::from(kept));
        let written = if new == 0 { self.outer.written } else { self.inner.written };
        let outermost = all.get(new).filter(|_| written != 0);
        let set = outermost.map(|(_, tci)| Edit::SetVlan { mask: written, tci: tci & written });
        let pops = (kept..self.before).map(|_| Edit::PopVlan);
        let pushes = all.into_iter().take(new).rev();
        let pushes = pushes.map(|(tpid, tci)| Edit::PushVlan { tpid, tci: tci & !TAG_PRESENT });
        *self = Self::new(key);
        pops.chain(set).chain(pushes)
    }
}
