//! Memory that devices reach by DMA, and the addresses at which they find it.
//!
//! A [`DmaSpace`] is what one or more devices see of this process: the address space behind a
//! VFIO container, or physical memory for devices without an IOMMU. Memory that is allocated in it
//! ([`DmaSpace::allocate`]) is mapped for all of its devices, and for no other.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use thiserror::Error;

use crate::foreign::Mapping;
use crate::mem::{MemError, Pages, SharedMemory};

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
pub trait AddressSpace: Send + Sync + fmt::Debug {
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
    fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String>;

    /// Undoes [`map`](Self::map). From now on no device reaches the memory.
    fn unmap(&self, memory: &SharedMemory, addresses: &DeviceAddresses);

    /// Makes a peer's memory visible to all devices of this space at address `at`, for reading
    /// and writing.
    ///
    /// # Errors
    /// As [`map`](Self::map), and where devices see physical memory: there is no choice of
    /// addresses then.
    fn map_at(&self, memory: &Arc<Mapping>, at: u64) -> Result<(), String> {
        let _ = (memory, at);
        Err("addresses can be chosen behind an IOMMU only".to_owned())
    }

    /// Undoes [`map_at`](Self::map_at).
    fn unmap_at(&self, at: u64) {
        let _ = at;
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
        let map = self.0.map(&memory);
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
        self.0.map_at(&memory, at).map_err(|reason| MapError { at, len, reason })?;
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
/// frees it: whoever gave a device an address of it stops the device before.
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

    /// `len` bytes from `offset` on; `None` when they are not all inside, or devices do not see
    /// them in one piece.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<DmaMemory> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len())?;
        let piece = self.piece_len();
        if len > 0 && offset / piece != (end - 1) / piece {
            return None;
        }
        let device = self.device_address(offset)?;
        // SAFETY: the bytes are inside the mapping. The caller of `unsafe` methods that use the
        // address keeps this buffer, as `DmaMemory` says.
        unsafe { DmaMemory::new(self.memory.as_ptr().add(offset), len, device) }
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        self.space.0.unmap(&self.memory, &self.addresses);
    }
}

/// A piece of memory that a driver and its device both reach, each at an address of its own: the
/// driver at a pointer, the device at a number that means something to it alone (a DMA address, or
/// a guest-physical address of the vhost-user memory table).
///
/// The device may write it at any time, so its bytes are copied out or accessed one volatile word
/// at a time, never borrowed. It does not keep the memory alive: whoever uses the pointer does.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory {
    host: NonNull<u8>,
    len: usize,
    device: u64,
}

// SAFETY: it is an address with a length; whoever made it vouched for the memory without regard
// to threads, and using the pointer is unsafe wherever it is done.
unsafe impl Send for DmaMemory {}
// SAFETY: as above; there is no interior state.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// Describes `len` bytes at `host`, which the device finds at `device`. `None` when the
    /// device's addresses would overflow.
    ///
    /// # Safety
    ///
    /// The bytes must stay mapped, readable and writable for as long as this value, a part of it, or
    /// a queue made of it is used, or the device may reach them. Nobody may hold a Rust reference
    /// to them meanwhile.
    #[must_use]
    pub const unsafe fn new(host: NonNull<u8>, len: usize, device: u64) -> Option<Self> {
        if device.checked_add(len as u64).is_none() {
            return None;
        }
        Some(Self { host, len, device })
    }

    /// `len` bytes from `offset` on; `None` when they are not all inside.
    #[must_use]
    #[inline]
    pub const fn slice(&self, offset: usize, len: usize) -> Option<Self> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: `offset` is at most the length, so the pointer stays inside or just behind.
        let host = unsafe { self.host.add(offset) };
        Some(Self { host, len, device: self.device + offset as u64 })
    }

    /// The driver's address.
    #[must_use]
    #[inline]
    pub const fn host(&self) -> NonNull<u8> {
        self.host
    }

    /// The device's address.
    #[must_use]
    #[inline]
    pub const fn device(&self) -> u64 {
        self.device
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a place, not a collection")]
    pub const fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
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

        fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
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

    #[test]
    fn parts_stay_inside_and_keep_both_addresses() {
        let mut bytes = [0_u8; 100];
        let host = NonNull::from(&mut bytes).cast::<u8>();
        // SAFETY: `bytes` outlives the value, and only addresses are looked at.
        let memory = unsafe { DmaMemory::new(host, 100, 0x1000) }.unwrap();
        let part = memory.slice(90, 10).unwrap();
        assert_eq!((part.device(), part.len()), (0x1000 + 90, 10));
        assert_eq!(part.host().addr().get() - host.addr().get(), 90);
        assert!(memory.slice(100, 0).is_some());
        assert!(memory.slice(91, 10).is_none());
        assert!(memory.slice(101, 0).is_none());
        assert!(memory.slice(1, usize::MAX).is_none());
        // SAFETY: as above.
        assert!(unsafe { DmaMemory::new(host, 100, u64::MAX - 99) }.is_none());
    }
}
