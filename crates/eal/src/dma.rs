//! Memory that devices reach by DMA, and the addresses at which they find it.
//!
//! A [`DmaSpace`] is what one or more devices see of this process: the address space behind a
//! VFIO container, or physical memory for devices without an IOMMU. Memory that is allocated in it
//! ([`DmaSpace::allocate`]) is mapped for all of its devices, and for no other. A [`DmaArena`] gives
//! such memory out in parts, each of which has one owner.
//!
//! - [`arena`]: memory in parts
//! - [`place`]: where a driver and its device find a piece of memory

pub mod arena;
pub mod place;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::foreign::Mapping;
use crate::mem::{MemError, Pages, SharedMemory};

pub use arena::{DmaArena, DmaBacking, DmaPart, DmaSlice};
pub use place::DmaMemory;

/// Why memory cannot be reached by devices.
#[derive(Debug, Error)]
pub enum DmaError {
    /// There is no such memory.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// The memory cannot be mapped for devices.
    #[error("memory \"{name}\" of {bytes} bytes cannot be mapped for devices: {reason}")]
    Map {
        /// Name of the memory.
        name: String,
        /// Its size in bytes.
        bytes: usize,
        /// What happened, and what to do about it.
        reason: String,
    },
}

/// Why a peer's memory cannot be given to devices.
#[derive(Debug, Error)]
#[error("{len:#x} bytes of the peer's memory cannot be mapped for devices at {at:#x}: {reason}")]
pub struct MapError {
    /// The devices' address.
    pub at: u64,
    /// Length in bytes.
    pub len: u64,
    /// What happened, what was expected, and what to do about it.
    pub reason: String,
}

/// Where devices find a piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceAddresses {
    /// All of it in one piece from this address on.
    Contiguous(u64),
    /// Each page by itself; no buffer that devices use may cross from one page to the next.
    Pages {
        /// Binary logarithm of the size of a page in bytes.
        shift: u32,
        /// The address of each page, in the order of the memory.
        addresses: Box<[u64]>,
    },
}

/// What makes memory visible to devices: implemented by VFIO containers and physical memory.
pub trait AddressSpace: Send + Sync {
    /// The kind of pages that memory must be made of to be mapped.
    fn pages(&self) -> Pages;

    /// Bytes that devices see in one piece, whatever memory it is: a page, or any number
    /// (`usize::MAX`).
    fn piece_len(&self) -> usize;

    /// Makes all of `memory` visible to all devices of this space, for reading and writing,
    /// those that come later too.
    ///
    /// # Errors
    /// What the kernel refused, or lacks, and what to do about it.
    ///
    /// # Safety
    /// The memory must be [unmapped](Self::unmap) before it goes.
    unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String>;

    /// Undoes [`map`](Self::map). From now on no device reaches the memory.
    fn unmap(&self, memory: &SharedMemory, addresses: &DeviceAddresses);

    /// Makes a peer's memory visible to all devices of this space at address `at`, for reading
    /// and writing.
    ///
    /// # Errors
    /// As [`map`](Self::map), and where devices see physical memory: there is no choice of
    /// addresses then.
    ///
    /// # Safety
    /// The memory must be [unmapped](Self::unmap_at) before it goes.
    unsafe fn map_at(&self, memory: &Arc<Mapping>, at: u64) -> Result<(), String> {
        let _ = (memory, at);
        Err("addresses can be chosen behind an IOMMU only".to_owned())
    }

    /// Undoes [`map_at`](Self::map_at).
    fn unmap_at(&self, at: u64) {
        let _ = at;
    }
}

impl fmt::Debug for dyn AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressSpace(..)")
    }
}

/// An address space of devices. A handle: clones are the same space.
#[derive(Clone, Debug)]
pub struct DmaSpace(Arc<dyn AddressSpace>);

impl DmaSpace {
    /// A handle to `space`.
    #[must_use]
    pub fn new(space: Arc<dyn AddressSpace>) -> Self {
        Self(space)
    }

    /// Whether both are the same address space.
    #[must_use]
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Bytes that devices see in one piece: a page, or any number (`usize::MAX`).
    #[must_use]
    pub fn piece_len(&self) -> usize {
        self.0.piece_len()
    }

    /// Zeroed memory of at least `bytes` bytes that the devices of this space reach. `name` shows
    /// up in errors and in `/proc/PID/maps`.
    ///
    /// # Errors
    /// When there is no such memory, or it cannot be mapped for devices.
    pub fn allocate(&self, name: &str, bytes: usize) -> Result<DmaBuffer, DmaError> {
        let memory = SharedMemory::allocate_from(name, bytes, self.0.pages())?;
        let bytes = memory.len();
        // SAFETY: the buffer unmaps it when it is dropped, and keeps it until then.
        let map = unsafe { self.0.map(&memory) };
        let addresses =
            map.map_err(|reason| DmaError::Map { name: name.to_owned(), bytes, reason })?;
        Ok(DmaBuffer { memory, addresses, space: self.clone() })
    }

    /// Has the devices of this space find a peer's memory at address `at`, until the value is
    /// dropped. Memory that is allocated later does not get these addresses.
    ///
    /// # Errors
    /// When the devices cannot do these addresses, they are in use, they or the memory are no
    /// whole pages, or the kernel does not map it.
    pub fn map_at(&self, memory: Arc<Mapping>, at: u64) -> Result<DmaMapping, MapError> {
        let len = memory.len() as u64;
        // SAFETY: the mapping unmaps it when it is dropped, and keeps it until then.
        let map = unsafe { self.0.map_at(&memory, at) };
        map.map_err(|reason| MapError { at, len, reason })?;
        Ok(DmaMapping { at, memory, space: self.clone() })
    }
}

/// A peer's memory that the devices of one [`DmaSpace`] reach at an address of the peer's choice.
/// Dropping it takes it away from them.
#[derive(Debug)]
pub struct DmaMapping {
    at: u64,
    memory: Arc<Mapping>,
    space: DmaSpace,
}

impl DmaMapping {
    /// Size in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }
}

impl Drop for DmaMapping {
    fn drop(&mut self) {
        self.space.0.unmap_at(self.at);
    }
}

/// Memory that the devices of one [`DmaSpace`] reach. Dropping it takes it away from them and
/// frees it. Where devices see physical memory only stopping them takes it away, which whoever
/// gave them an address of it does before.
#[derive(Debug)]
pub struct DmaBuffer {
    memory: SharedMemory,
    addresses: DeviceAddresses,
    space: DmaSpace,
}

impl DmaBuffer {
    /// The memory itself.
    #[must_use]
    #[inline]
    pub const fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The space in which its addresses mean something.
    #[must_use]
    #[inline]
    pub const fn space(&self) -> &DmaSpace {
        &self.space
    }

    /// Size in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.memory.len()
    }

    /// Bytes of a piece that devices see as a whole: a page, or all of it. Pieces start at
    /// multiples of it.
    #[must_use]
    pub fn piece_len(&self) -> usize {
        match &self.addresses {
            DeviceAddresses::Contiguous(_) => self.len(),
            DeviceAddresses::Pages { shift, .. } => {
                1_usize.checked_shl(*shift).unwrap_or(usize::MAX)
            }
        }
    }

    /// The devices' address of the byte at `offset`; `None` when there is no such byte.
    #[must_use]
    #[inline]
    pub fn device_address(&self, offset: usize) -> Option<u64> {
        match &self.addresses {
            DeviceAddresses::Contiguous(first) => {
                first.checked_add(offset as u64).filter(|_| offset < self.len())
            }
            DeviceAddresses::Pages { shift, addresses } => {
                let page = addresses.get(offset.checked_shr(*shift)?)?;
                page.checked_add(offset as u64 & (1_u64.checked_shl(*shift)? - 1))
            }
        }
    }

    /// Where `len` bytes from `offset` on are; `None` when they are not all inside, or devices do
    /// not see them in one piece.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<DmaMemory> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len())?;
        let piece = self.piece_len();
        if len > 0 && offset / piece != (end - 1) / piece {
            return None;
        }
        let device = self.device_address(offset)?;
        // SAFETY: `offset` is inside the mapping, or just behind.
        let host = unsafe { self.memory.as_ptr().add(offset) };
        DmaMemory::new(host, len, device)
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        self.space.0.unmap(&self.memory, &self.addresses);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Pages of 4 KiB at addresses that are not neighbours; remembers what is mapped.
    #[derive(Debug, Default)]
    struct Scattered(Mutex<usize>);

    impl AddressSpace for Scattered {
        fn pages(&self) -> Pages {
            Pages::Plain
        }

        fn piece_len(&self) -> usize {
            4096
        }

        unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
            *self.0.lock().unwrap() += memory.len();
            let addresses = (1..=memory.len() as u64 / 4096).map(|page| page << 20).collect();
            Ok(DeviceAddresses::Pages { shift: 12, addresses })
        }

        fn unmap(&self, memory: &SharedMemory, _addresses: &DeviceAddresses) {
            *self.0.lock().unwrap() -= memory.len();
        }
    }

    #[test]
    fn scattered_pages_are_pieces() {
        let space = Arc::new(Scattered::default());
        let buffer = DmaSpace::new(space.clone()).allocate("test", 3 * 4096).unwrap();
        assert_eq!((buffer.len(), buffer.piece_len()), (3 * 4096, 4096));
        assert_eq!(buffer.device_address(4096 + 5), Some((2 << 20) + 5));
        assert_eq!(buffer.device_address(3 * 4096), None);
        let whole = buffer.slice(4096, 4096).unwrap();
        assert_eq!((whole.device(), whole.len()), (2 << 20, 4096));
        assert!(buffer.slice(4095, 2).is_none() && buffer.slice(usize::MAX, 2).is_none());
        assert_eq!(*space.0.lock().unwrap(), 3 * 4096);
        drop(buffer);
        assert_eq!(*space.0.lock().unwrap(), 0);
    }
}
