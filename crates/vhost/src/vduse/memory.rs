//! The memory that the driver has shared: the kernel's own bounce buffers and rings, or the memory
//! of a VMM.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use eal::mem::MemError;
use eal::{Closer, Mapping, PeerFd};
use virtio::GuestMemory;
use virtio::memory::{MemoryError, Region};

use super::kernel::{Extent, Kernel};
use crate::session::MAX_SLOTS;

/// Why the memory of a driver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The kernel does not tell.
    #[error("the kernel does not tell the device's memory: {0}")]
    Kernel(#[from] io::Error),
    /// A piece cannot be mapped.
    #[error("device address {start:#x}: {source}")]
    Map {
        /// Its first address.
        start: u64,
        /// Why.
        source: MemError,
    },
    /// There are too many pieces.
    #[error("the device's memory is in more than {MAX_SLOTS} pieces")]
    TooMany,
    /// What the kernel says makes no sense.
    #[error("the kernel answers {start:#x} to {last:#x}, asked for the memory from {from:#x} on")]
    Order {
        /// First address of the answer.
        start: u64,
        /// Last address of the answer.
        last: u64,
        /// First address that was asked for.
        from: u64,
    },
    /// Pieces overlap.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What is mapped.
#[derive(Debug, Default)]
pub(super) struct MemoryTable {
    /// For the files and mappings of this driver, one table after the other.
    closer: Closer,
    pieces: Vec<(Extent, Arc<Mapping>)>,
}

impl MemoryTable {
    /// Maps all that there is now. What is in `known` as well is not mapped again.
    pub(super) fn scan(kernel: &dyn Kernel, known: &Self) -> Result<Self, ShareError> {
        let closer = known.closer.clone();
        let mut pieces = Vec::new();
        let mut from = 0;
        while let Some((extent, file)) = kernel.lookup(from, u64::MAX)? {
            let file = PeerFd::new(file, closer.clone());
            let Extent { start, last, .. } = extent;
            if start < from || last < start {
                return Err(ShareError::Order { start, last, from });
            }
            if pieces.len() >= MAX_SLOTS {
                return Err(ShareError::TooMany);
            }
            // What a driver lets us only read, a VMM's ROM for example, is nothing that frames
            // come from; and it must not be written to, which nobody below checks.
            if extent.writable {
                pieces.push((extent, known.mapping(&extent, &file)?));
            }
            let Some(next) = last.checked_add(1) else { break };
            from = next;
        }
        Ok(Self { closer, pieces })
    }

    fn mapping(&self, extent: &Extent, file: &PeerFd) -> Result<Arc<Mapping>, ShareError> {
        let known = self.pieces.iter().find(|(known, _)| known == extent);
        if let Some((_, mapping)) = known {
            return Ok(Arc::clone(mapping));
        }
        let Extent { start, last, offset, .. } = *extent;
        // Only all addresses would be one more than there are numbers; no mapping is that long.
        let len = (last - start).saturating_add(1);
        let mapping = Mapping::map_object(file.as_fd(), offset, len)
            .map_err(|source| ShareError::Map { start, source })?;
        Ok(Arc::new(mapping.closed_by(file.closer())))
    }

    /// Whether it is the same memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&(Extent, _), &(Extent, _))| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1);
        self.pieces.len() == other.pieces.len() && self.pieces.iter().zip(&other.pieces).all(same)
    }

    /// For the device.
    pub(super) fn memory(&self) -> Result<Arc<GuestMemory>, ShareError> {
        let region = |(extent, mapping): &(Extent, Arc<Mapping>)| Region {
            guest_addr: extent.start,
            user_addr: extent.start,
            mapping: Arc::clone(mapping),
        };
        Ok(Arc::new(GuestMemory::new(self.pieces.iter().map(region).collect())?))
    }
}
