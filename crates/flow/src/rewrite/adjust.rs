//! Packets of TCP whose connection is looked at by a helper: other numbers, and other addresses in what they
//! carry.

use conntrack::{Adjustment, Replacement, Skew};
use packet::Open;
use packet::checksum::{Checksum, update};

use super::{Covers, IPV4, Layered, TCP};
use crate::key::slot;

/// Where parts of a header of TCP are (RFC 9293, section 3.1).
const SEQUENCE: usize = 4;
const ACKNOWLEDGMENT: usize = 8;
const LENGTH: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const OPTIONS: usize = 20;

/// The bit that says that something is acknowledged.
const ACK: u8 = 0x10;

/// The option that acknowledges parts (RFC 2018, section 3).
const SACK: u8 = 5;

/// Changes a packet of TCP; returns whether it could be done: its headers, and what is replaced in it, have
/// to be in the head.
pub fn adjust(adjustment: &Adjustment, frame: &mut Open<'_>) -> bool {
    let Adjustment { sequence, acknowledged, replacement } = adjustment;
    let mut layered = Layered::new(frame);
    let is_done = layered.adjust_numbers(*sequence, acknowledged);
    let replaced = replacement.as_ref().map_or(Some(()), |by| layered.replace(by));
    (is_done, replaced) == (Some(()), Some(()))
}

impl Layered<'_, '_> {
    fn adjust_numbers(&mut self, sequence: u32, acknowledged: &Skew) -> Option<()> {
        let is_tcp = self.key.get_u8(slot::IP_PROTO) == TCP;
        let at = self.transport(0).filter(|_| is_tcp)?;
        let flags = *self.frame.head().get(at + FLAGS)?;
        self.change_number(at + SEQUENCE, |number| number.wrapping_add(sequence))?;
        if flags & ACK == 0 {
            return Some(());
        }
        self.change_number(at + ACKNOWLEDGMENT, |number| acknowledged.back(number))?;
        let (mut option, end) = (at + OPTIONS, self.payload()?);
        while option < end {
            let kind = *self.frame.head().get(option)?;
            let len = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*self.frame.head().get(option + 1)?).max(2),
            };
            if kind == SACK {
                let edges = (option + 2..(option + len).min(end)).step_by(4);
                for edge in edges.filter(|edge| edge + 4 <= end) {
                    self.change_number(edge, |number| acknowledged.back(number))?;
                }
            }
            option += len;
        }
        Some(())
    }

    /// Where what the packet carries begins.
    fn payload(&self) -> Option<usize> {
        let at = self.transport(0)?;
        Some(at + usize::from(*self.frame.head().get(at + LENGTH)? >> 4) * 4)
    }

    /// Changes a number of four bytes, wherever it is in the header.
    fn change_number(&mut self, at: usize, change: impl FnOnce(u32) -> u32) -> Option<()> {
        let old = u32::from_be_bytes(*self.frame.head().get(at..)?.first_chunk()?);
        let new = u64::from(change(old));
        if at.checked_sub(self.transport(0)?)?.is_multiple_of(2) {
            self.put::<4>(at, u32::MAX.into(), new, Covers::Transport);
        } else if self.frame.head().len() >= at + 5 {
            // What the checksum is over are words.
            self.put::<6>(at - 1, 0xFF_FFFF_FF00, new << 8, Covers::Transport);
        }
        Some(())
    }

    /// Writes something in place of what the packet carries.
    fn replace(&mut self, by: &Replacement) -> Option<()> {
        // Segments that somebody is still to cut have what is replaced in several of them.
        let start = self.payload().filter(|_| self.frame.offload().gso().is_none())?;
        let end = self.end()?;
        let before = self.sum(end)?;
        let place = start.checked_add(by.place.start)?..start.checked_add(by.place.end)?;
        let is_there = place.end <= end && self.frame.replace(place, &by.text);
        let end = end.checked_sub(by.place.len())?.checked_add(by.text.len())?;
        let (field, len) = if self.is(IPV4) { (2, end) } else { (4, end.checked_sub(40)?) };
        let len = len.checked_sub(self.network(0)).filter(|len| is_there && *len < 1 << 16)?;
        self.put::<2>(self.network(field), 0xFFFF, len as u64, Covers::Header);
        let after = self.sum(end)?;
        self.mend_sum(before, after)
    }

    /// What the checksum is over, but for addresses: how long that is, and what it sums up to.
    fn sum(&self, end: usize) -> Option<(u16, u16)> {
        let start = self.transport(0)?;
        let mut sum = Checksum::new();
        sum.add(self.frame.frame()?.to_vec().get(start..end)?);
        let len = u16::try_from(end.checked_sub(start)?).ok()?;
        Some((len, sum.partial()))
    }

    fn mend_sum(&mut self, before: (u16, u16), after: (u16, u16)) -> Option<()> {
        let at = self.transport(CHECKSUM)?;
        let begun = self.frame.offload().csum();
        let is_begun =
            begun.is_some_and(|(start, offset)| usize::from(start) + usize::from(offset) == at);
        self.mend_at(at, |sum| match is_begun {
            // Of the packet, only its length is in it by now, and not inverted.
            true => !update(!sum, before.0, after.0),
            false => update(update(sum, before.0, after.0), before.1, after.1),
        });
        Some(())
    }
}

#[cfg(test)]
mod tests;
