//! A packet that stands for many.

use super::Source;
use crate::wire::Writer;

/// `flow_sample`.
const KIND: u32 = 1;

/// `sampled_header`, and what it begins with: an Ethernet header.
const HEADER: u32 = 1;
const ETHERNET: u32 = 1;

/// `extended_switch`.
const SWITCH: u32 = 1_001;

/// Bytes at the end of a frame that are not here any more: its checksum.
const STRIPPED: u32 = 4;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Nowhere.
    #[default]
    Dropped,
    /// Out on the interface of this number.
    Interface(u32),
    /// Out on so many interfaces.
    Several(u32),
}

impl Output {
    /// As it is written: what kind of number, and the number.
    const fn code(self) -> u32 {
        const NUMBER: u32 = 0x3fff_ffff;
        match self {
            // For a reason that is not known.
            Self::Dropped => 1 << 30 | 256,
            Self::Interface(index) => index & NUMBER,
            Self::Several(count) => 2 << 30 | count & NUMBER,
        }
    }
}

/// The outer VLAN tag of a packet; all zero where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The VLAN.
    pub vlan: u16,
    /// The priority.
    pub priority: u8,
}

impl Tag {
    /// Of the tag's 16 bits.
    #[must_use]
    pub const fn of_tci(tci: u16) -> Self {
        let [high, _] = tci.to_be_bytes();
        Self { vlan: tci & 0xfff, priority: high >> 5 }
    }
}

/// A packet that stands for many.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowSample<'s> {
    /// One packet in so many is sampled.
    pub rate: u32,
    /// How many packets have come for which it stands.
    pub stands_for: u32,
    /// How many samples there was no room for so far.
    pub drops: u32,
    /// The number of the interface where it came in; 0 where that is not known.
    pub input: u32,
    /// Where it goes.
    pub output: Output,
    /// Its tag when it came in.
    pub tag_in: Tag,
    /// And as it goes out.
    pub tag_out: Tag,
    /// How many bytes it has, without the checksum.
    pub frame_len: u32,
    /// Its first bytes.
    pub header: &'s [u8],
}

impl FlowSample<'_> {
    /// Writes it, the `sequence`th of its source, of which `pool` packets have come.
    pub(super) fn write(&self, writer: &mut Writer, source: Source, sequence: u32, pool: u32) {
        writer.block(KIND, |sample| {
            sample.u32(sequence).u32(source.code()).u32(self.rate).u32(pool).u32(self.drops);
            sample.u32(self.input).u32(self.output.code()).u32(2);
            sample.block(HEADER, |block| {
                block.u32(ETHERNET).u32(self.frame_len.saturating_add(STRIPPED)).u32(STRIPPED);
                block.opaque(self.header);
            });
            sample.block(SWITCH, |block| {
                for tag in [self.tag_in, self.tag_out] {
                    block.u32(tag.vlan.into()).u32(tag.priority.into());
                }
            });
        });
    }
}
