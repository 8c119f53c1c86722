//! The device side of virtqueues: what a back-end does with a guest's rings.
//!
//! Everything in a ring belongs to a hostile guest. A value is read once into a private copy,
//! checked, and only then used. There are two kinds of trouble:
//!
//! - a bad chain ([`ChainError`]) costs the guest that one frame; its descriptors go back;
//! - a broken ring ([`RingError`]) makes no sense any more, and the device stops using it.

pub mod burst;
mod inflight;
pub mod log;
#[cfg(test)]
mod log_tests;
pub mod packed;
#[cfg(test)]
mod packed_tests;
mod part;
pub mod queue;
#[cfg(test)]
mod recover_tests;
pub mod split;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod translated_tests;

pub use burst::{Buffer, Buffers, Chain};
pub use inflight::Resumed;
pub use log::RingLog;
pub use packed::{BaseCheck, PackedQueue};
pub use queue::DeviceQueue;
pub use split::SplitQueue;

use crate::features::Features;

/// Where a ring lies and where to begin in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSetup {
    /// Number of entries.
    pub size: u16,
    /// Address of the descriptor table, or packed ring, in the front-end's address space.
    pub desc: u64,
    /// Address of the available ring, or the driver's event structure.
    pub avail: u64,
    /// Address of the used ring, or the device's event structure.
    pub used: u64,
    /// Where to begin. Split: the first index of the available ring that is still to be
    /// processed. Packed: bits 0 to 15 the next available descriptor with its wrap counter, bits
    /// 16 to 31 the next used one.
    pub base: u32,
    /// Negotiated features.
    pub features: Features,
}

/// Descriptors that one chain may have: QEMU's own limit, and enough for 64 KiB in 64 pieces
/// many times over.
pub const MAX_CHAIN: usize = 1024;

/// A ring that cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The driver made more buffers available than the ring has entries.
    #[error("available index {avail} is more than the ring's {size} entries ahead of {next}")]
    IndexJump {
        /// The driver's index.
        avail: u16,
        /// The device's own.
        next: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// An entry of the available ring names a descriptor that does not exist.
    #[error("descriptor {head} of a ring with {size} entries")]
    HeadOutOfRange {
        /// The entry.
        head: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A packed chain that goes on for as long as the ring.
    #[error("the chain at descriptor {head} has no end")]
    EndlessChain {
        /// Its first descriptor.
        head: u16,
    },
    /// The front-end truncated its memory while it was in use.
    #[error("the front-end has taken its memory away")]
    MemoryGone,
}

/// A chain of descriptors that breaks the rules (virtio 1.3 section 2.7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A buffer or table does not lie in one piece of shared memory.
    #[error("{len} bytes at guest address {addr:#x} are not in shared memory")]
    Unmapped {
        /// Guest-physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Nobody has said yet what lies at the I/O virtual address of a buffer or table. The chain is
    /// not bad: it is to be tried again after an answer.
    #[error("the translation of an address is awaited")]
    Untranslated,
    /// `next` names a descriptor that does not exist.
    #[error("descriptor {0} does not exist")]
    NextOutOfRange(u16),
    /// More than [`MAX_CHAIN`] descriptors, or a loop.
    #[error("chain is longer than {MAX_CHAIN} descriptors or has no end")]
    TooLong,
    /// A buffer is for reading where one for writing is needed, or the other way round.
    #[error("buffer has the wrong direction")]
    WrongDirection,
    /// An indirect table that is empty, no multiple of 16 bytes, nested, chained on, or not
    /// negotiated.
    #[error("indirect descriptor breaks the rules")]
    BadIndirect,
}

/// A ring that cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The number of entries is not allowed.
    #[error("ring size {0} is not from 1 to 32768, or no power of two, as split rings need")]
    Size(u16),
    /// The place to begin at is not in the ring.
    #[error("base {base:#x} lies outside a ring of {size} entries")]
    Base {
        /// The base.
        base: u32,
        /// Entries of the ring.
        size: u16,
    },
    /// A part of the ring does not lie in shared memory, or not aligned.
    #[error("{part} at address {addr:#x} is not in one piece of shared memory, or not aligned")]
    Unmapped {
        /// Which part.
        part: &'static str,
        /// Its address.
        addr: u64,
    },
    /// The records of chains in flight are for another ring, or of a kind that is not known.
    #[error(
        "records of chains in flight of version {version} for {entries} entries, expected version 1 \
         for a ring of {size}"
    )]
    Inflight {
        /// The version that they have.
        version: u16,
        /// For how many entries they are.
        entries: u16,
        /// Entries of the ring.
        size: u16,
    },
}
