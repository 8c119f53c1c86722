//! Capture files: pcapng, in little-endian byte order, with times in nanoseconds.
//!
//! Format: draft-ietf-opsawg-pcapng, sections 3 and 4. Only what Ringway writes is read: whatever
//! other block a file has is passed over.
//!
//! - `read`: the blocks of a file
//! - `write`: blocks, added to bytes that somebody else writes

mod read;
mod write;

pub use self::read::{Block, Blocks, BrokenFile};
pub use self::write::{Interface, interface, packet, section, statistics};

/// Kinds of blocks.
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Says which byte order a section has.
const BYTE_ORDER: u32 = 0x1A2B_3C4D;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

/// Codes of options.
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const IF_FILTER: u16 = 11;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_ENDTIME: u16 = 3;
const ISB_IFDROP: u16 = 5;
const ISB_USRDELIV: u16 = 8;

/// Which way a frame went, seen from the capturing side (bits 0 and 1 of `epb_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It was received on the interface.
    In,
    /// It was sent there.
    Out,
}

/// A frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'p> {
    /// The number of its interface in the file.
    pub interface: u32,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// Its first bytes.
    pub bytes: &'p [u8],
    /// How many it had.
    pub len: u32,
    /// Which way it went, where that is known.
    pub direction: Option<Direction>,
    /// How many frames of the interface were lost since the one before.
    pub lost: u64,
    /// What is said of it.
    pub comment: Option<&'p str>,
}

/// What was counted of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The number of the interface in the file.
    pub interface: u32,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// Frames in the file.
    pub captured: u64,
    /// Frames that should be, and are not.
    pub missed: u64,
}

#[cfg(test)]
mod tests;
