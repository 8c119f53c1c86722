//! Sequence numbers of connections in whose packets addresses are written that are longer or shorter than
//! those that were there: what follows has other numbers for the one side than for the other.

use std::net::IpAddr;
use std::ops::Range;

use crate::tcp::Segment;

/// By how much numbers of one side are to be changed: up to a place, and behind it.
///
/// What was sent before an address was replaced may come again. So the change before is kept, too; that
/// before the one before is for segments that are acknowledged by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Number of the segment that was changed last, as it was sent.
    pub at: u32,
    /// What is added to numbers up to that.
    pub before: u32,
    /// What is added to those behind it.
    pub behind: u32,
}

/// Whether `a` is behind `b`, by numbers that begin again at 0.
const fn is_behind(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed() < 0
}

impl Skew {
    /// Whether nothing is changed.
    const fn is_none(&self) -> bool {
        self.before == 0 && self.behind == 0
    }

    /// What is to be added to a number of this side.
    const fn of(&self, sequence: u32) -> u32 {
        if is_behind(sequence, self.at) { self.behind } else { self.before }
    }

    /// A number of this side as it was sent, of one as the other side knows it.
    #[must_use]
    pub const fn back(&self, number: u32) -> u32 {
        let sent = number.wrapping_sub(self.before);
        if is_behind(sent, self.at) { number.wrapping_sub(self.behind) } else { sent }
    }

    /// A segment of this number has become so much longer, now or when it came before.
    const fn grow(&mut self, sequence: u32, by: u32) {
        if by != 0 && (self.before == self.behind || is_behind(sequence, self.at)) {
            (self.at, self.before) = (sequence, self.behind);
            self.behind = self.behind.wrapping_add(by);
        }
    }
}

/// What is written into a packet in place of what it carries there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// What goes, counted from the first byte that the packet carries.
    pub place: Range<usize>,
    /// What comes.
    pub text: Vec<u8>,
}

impl Replacement {
    /// An address, with dots or with commas.
    pub(crate) fn address(place: Range<usize>, address: IpAddr, has_commas: bool) -> Self {
        let mut text = address.to_string().into_bytes();
        text.iter_mut().filter(|byte| has_commas && **byte == b'.').for_each(|byte| *byte = b',');
        Self { place, text }
    }

    /// By how much a packet becomes longer.
    pub(crate) fn growth(&self) -> u32 {
        let [before, after] = [self.place.len(), self.text.len()];
        let [before, after] = [before, after].map(|len| u32::try_from(len).unwrap_or_default());
        after.wrapping_sub(before)
    }
}

/// How a packet of TCP is changed, beside its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// What is added to its number.
    pub sequence: u32,
    /// What its acknowledgments are of.
    pub acknowledged: Skew,
    /// What is written into it.
    pub replacement: Option<Replacement>,
}

/// The changed numbers of both sides, that of the first packet first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers([Skew; 2]);

impl Numbers {
    /// Those of the side that has sent a packet, and those of the other one.
    const fn sides(&self, is_reply: bool) -> (&Skew, &Skew) {
        let Self([original, reply]) = self;
        if is_reply { (reply, original) } else { (original, reply) }
    }

    /// A segment with all numbers as they were sent, by whoever has sent what they are of. It may have been
    /// adjusted by now.
    pub(crate) const fn as_sent(
        &self,
        segment: &Segment,
        is_reply: bool,
        is_adjusted: bool,
    ) -> Segment {
        let (own, others) = self.sides(is_reply);
        let mut segment = *segment;
        if is_adjusted {
            segment.sequence = own.back(segment.sequence);
        } else {
            segment.acknowledgment = others.back(segment.acknowledgment);
        }
        segment
    }

    /// How a segment is changed on its way, into which this is written, too; `None`: not at all.
    pub(crate) fn adjust(
        &mut self,
        segment: &Segment,
        is_reply: bool,
        replacement: Option<Replacement>,
    ) -> Option<Adjustment> {
        let Self([original, reply]) = self;
        let own = if is_reply { reply } else { original };
        own.grow(segment.sequence, replacement.as_ref().map_or(0, Replacement::growth));
        let (own, others) = self.sides(is_reply);
        if own.is_none() && others.is_none() && replacement.is_none() {
            return None;
        }
        let sequence = own.of(segment.sequence);
        Some(Adjustment { sequence, acknowledged: *others, replacement })
    }
}

#[cfg(test)]
mod tests;
