//! The tags of a frame, and what a bridge knows by them.

use packet::headers::EtherType;
use packet::{Frame, Tag};

use crate::header::Addresses;

/// Where a frame's outer tag is: behind both addresses.
const OUTER: usize = 12;

/// What of a tag's control word is the VLAN.
const VID: u16 = 0x0FFF;

/// The outer two tags of a frame as they are in it, as one number; of one that has no such tags,
/// what would be in their place counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags(u64);

/// A frame that ends within a tag.
const CUT_OFF: Tags = Tags(u64::MAX);

impl Tags {
    /// The tags of a frame.
    #[inline]
    pub(crate) fn of(frame: &Frame<'_>) -> Self {
        let tags = frame.head().get(OUTER..).unwrap_or_default();
        let Some([a, b, rest @ ..]) = tags.first_chunk::<8>() else { return Self::of_short(tags) };
        if !is_tag(*a, *b) {
            return Self(0);
        }
        let all =
            u64::from_be_bytes([*a, *b, rest[0], rest[1], rest[2], rest[3], rest[4], rest[5]]);
        Self(if is_tag(rest[2], rest[3]) { all } else { all & !0xFFFF_FFFF })
    }

    /// As `of`, for frames that end there.
    #[cold]
    fn of_short(tags: &[u8]) -> Self {
        match *tags {
            [a, b, c, d, ..]
                if is_tag(a, b) && !matches!(tags, [_, _, _, _, e, f, ..] if is_tag(*e, *f)) =>
            {
                Self(u64::from_be_bytes([a, b, c, d, 0, 0, 0, 0]))
            }
            [a, b, ..] if is_tag(a, b) => CUT_OFF,
            _ => Self(0),
        }
    }

    /// The outer tag, if there is one.
    pub(crate) fn outer(self) -> Option<Tag> {
        tag_of(self.0 >> 32)
    }

    /// The tag behind that.
    pub(crate) fn inner(self) -> Option<Tag> {
        tag_of(self.0)
    }

    /// Whether the frame ends within its tags.
    pub(crate) fn is_cut_off(self) -> bool {
        self == CUT_OFF
    }
}

/// The bytes of a frame that tell its tags, by which others are compared with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    /// Eight bytes from the first tag on, in the order of memory, and which of their bits matter.
    bits: u64,
    mask: u64,
}

impl Default for Glance {
    /// Like no frame's.
    fn default() -> Self {
        Self { bits: 1, mask: 0 }
    }
}

impl Glance {
    /// That of a frame with these tags.
    #[inline]
    pub(crate) fn of(tags: Tags, frame: &Frame<'_>) -> Self {
        let Some(start) = Start::of(frame) else { return Self::default() };
        // Each tag is told by its kind, and that it is the last one by what follows.
        let mask = match (tags.outer(), tags.inner()) {
            (None, _) => [0xFF, 0xFF, 0, 0, 0, 0, 0, 0],
            (Some(_), None) => [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
            (Some(_), Some(_)) => [0xFF; 8],
        };
        let mask = u64::from_ne_bytes(mask);
        Self { bits: start.tags & mask, mask }
    }

    /// Which bits of the eight bytes behind the addresses tell the tags.
    pub(crate) const fn mask(&self) -> u64 {
        self.mask
    }

    /// Whether a frame has these addresses, and surely the same tags.
    #[inline(always)]
    pub(crate) fn is_alike(&self, frame: &Frame<'_>, addresses: Addresses) -> bool {
        Start::of(frame).is_some_and(|start| {
            // One branch for all.
            let difference = (start.tags & self.mask) ^ self.bits;
            start.addresses.difference(addresses) | difference == 0
        })
    }

    /// Whether a frame has surely the same tags.
    #[inline(always)]
    pub(crate) fn has_tags_of(&self, frame: &Frame<'_>) -> bool {
        Start::of(frame).is_some_and(|start| start.tags & self.mask == self.bits)
    }
}

/// The start of a frame that is long enough for two tags.
struct Start {
    addresses: Addresses,
    tags: u64,
}

impl Start {
    #[inline(always)]
    fn of(frame: &Frame<'_>) -> Option<Self> {
        let start = frame.head().first_chunk::<{ OUTER + 8 }>()?;
        let addresses = Addresses::read(start.first_chunk()?)?;
        let tags = u64::from_ne_bytes(*start.last_chunk()?);
        Some(Self { addresses, tags })
    }
}

#[inline]
const fn is_tag(high: u8, low: u8) -> bool {
    EtherType(u16::from_be_bytes([high, low])).is_tag()
}

/// The tag in the low half of `bits`.
fn tag_of(bits: u64) -> Option<Tag> {
    let [_, _, _, _, a, b, c, d] = bits.to_be_bytes();
    let kind = EtherType(u16::from_be_bytes([a, b]));
    kind.is_tag().then_some(Tag { kind, control: u16::from_be_bytes([c, d]) })
}

/// The VLAN in a tag; 0 where there is none.
pub(crate) fn vid(tag: Option<Tag>) -> u16 {
    tag.map_or(0, |tag| tag.control & VID)
}

/// The tag with another VLAN in it.
pub(crate) const fn with_vid(tag: Tag, vlan: u16) -> Tag {
    Tag { kind: tag.kind, control: (tag.control & !VID) | vlan }
}

/// What travels beside the frames of a run through a bridge that knows VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The VLAN that the frames are in.
    pub vlan: u16,
    /// The VLAN of the tag behind the bridge's; 0 where there is none.
    pub inner: u16,
    /// The bridge's tag as the frames came with it, if they have one.
    pub had: Option<Tag>,
    /// The bridge's tag, where a port sends it; its VLAN is [`vlan`](Self::vlan).
    pub tag: Tag,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_what_is_none_does_not_count() {
        let of = |bytes: &[u8]| {
            let all = [&[9; 12], bytes].concat();
            Tags::of(&Frame::from_bytes(&all))
        };
        let tag = |kind, control| Some(Tag { kind, control });
        let long = [0x88, 0xA8, 0x20, 5, 0x81, 0, 0xF0, 6, 8, 0];
        let tags = of(&long);
        assert_eq!(tags.outer(), tag(EtherType::QINQ, 0x2005));
        assert_eq!(tags.inner(), tag(EtherType::VLAN, 0xF006));
        assert_eq!((vid(tags.outer()), vid(tags.inner()), vid(None)), (5, 6, 0));
        let one = of(&[0x81, 0, 0x20, 5, 8, 0, 0x45, 0]);
        assert_eq!((one.outer(), one.inner()), (tag(EtherType::VLAN, 0x2005), None));
        assert_eq!(one, of(&[0x81, 0, 0x20, 5, 8, 0, 0x46, 1]));
        assert_eq!(one, of(&[0x81, 0, 0x20, 5]), "a frame that ends behind its tag");
        assert_eq!(of(&[8, 0, 0x81, 0, 0, 0, 0, 0]), of(&[8, 0]));
        for len in [2, 3, 6, 7] {
            assert!(of(&long[..len]).is_cut_off(), "{len}");
        }
    }
}
