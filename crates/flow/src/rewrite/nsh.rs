//! Network service headers that are put in front of frames, taken off them, and changed.

use arrayvec::ArrayVec;
use packet::Open;
use packet::headers::Nsh;
use packet::headers::nsh::{HEADER_LEN, MAX_LEN, MD1};

use super::{Covers, ETHERNET_LEN, Layered, NSH, TAGS, set_ether_type};
use crate::key::slot;
use crate::path::NshPush;

/// Puts one in front, behind the place of a header of Ethernet. Large segments would have to be cut with it, which
/// not all ports can: they are cut before. Returns whether there was room.
pub fn push_nsh(NshPush { header, before_ethernet }: &NshPush, frame: &mut Open<'_>) -> bool {
    if frame.offload().gso().is_some() {
        return false;
    }
    if !before_ethernet {
        return frame.insert(ETHERNET_LEN, header) && set_ether_type(NSH, ETHERNET_LEN, frame);
    }
    let mut front = ArrayVec::<u8, { ETHERNET_LEN + MAX_LEN }>::new();
    let parts = [&[0; TAGS][..], &NSH.to_be_bytes(), header];
    parts.into_iter().all(|part| front.try_extend_from_slice(part).is_ok())
        && frame.insert(0, &front)
}

/// Takes one off; returns whether it was there.
pub(super) fn pop_nsh(ether_type: Option<u16>, frame: &mut Open<'_>) -> bool {
    let Some((_, len)) = header_at(ETHERNET_LEN, frame) else { return false };
    match ether_type {
        None => frame.remove(0, ETHERNET_LEN + len),
        Some(kind) => frame.remove(ETHERNET_LEN, len) && set_ether_type(kind, ETHERNET_LEN, frame),
    }
}

/// The header that begins at a place, and how long it is.
fn header_at(at: usize, frame: &Open<'_>) -> Option<(Nsh, usize)> {
    let first = frame.head().get(at..)?.first_chunk::<HEADER_LEN>()?;
    Nsh::read(*first, frame.len().checked_sub(at)?)
}

impl Layered<'_, '_> {
    /// What such a header says, but for what decides how it is read.
    pub(super) fn write_nsh(&mut self, word: usize, mask: u64, value: u64) {
        let at = self.network(0);
        let Some((header, _)) = header_at(at, self.frame).filter(|_| self.is(NSH)) else { return };
        if word == slot::NSH_PATH.word() {
            let low = |from: u64| from & 0xFFFF_FFFF;
            let first = |from: u64| from >> 44 & 0x3000 | from >> 42 & 0x0FC0;
            self.put::<2>(at, first(mask), first(value), Covers::Nothing);
            self.put::<4>(at + 4, low(mask), low(value), Covers::Nothing);
        } else if header.md_type == MD1 {
            let behind = (word - slot::NSH_C1_C2.word()) * 8;
            self.put::<8>(at + HEADER_LEN + behind, mask, value, Covers::Nothing);
        }
    }
}
