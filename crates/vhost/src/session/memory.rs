//! The memory that a front-end shares (SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use eal::Mapping;
use virtio::GuestMemory;
use virtio::memory::Region;

use super::error::SessionError;
use crate::protocol::MemoryRegion;

/// Number of regions that a session can hold: that of the kernel's vhost, and more than a guest
/// with every memory slot of QEMU filled needs. A process may have 65530 mappings by default, so
/// more than a hundred such guests.
pub const MAX_SLOTS: usize = 509;

/// The regions of a front-end.
#[derive(Debug, Default)]
pub(super) struct MemoryTable {
    regions: Vec<Region>,
}

impl MemoryTable {
    /// Whether any memory is shared.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The first guest-physical address behind all regions.
    pub(super) fn end(&self) -> u64 {
        let end = |region: &Region| region.guest_addr.saturating_add(region.mapping.len() as u64);
        self.regions.iter().map(end).max().unwrap_or(0)
    }

    /// A table with these regions only.
    pub(super) fn of(
        request: &'static str,
        regions: impl IntoIterator<Item = (MemoryRegion, OwnedFd)>,
    ) -> Result<Self, SessionError> {
        let regions = regions.into_iter().map(|(region, fd)| map(request, &region, &fd));
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        if regions.is_empty() {
            return Err(SessionError::NoMemory);
        }
        Ok(Self { regions })
    }

    /// This table and one more region.
    pub(super) fn with(
        &self,
        request: &'static str,
        region: &MemoryRegion,
        fd: &OwnedFd,
    ) -> Result<Self, SessionError> {
        if self.regions.len() >= MAX_SLOTS {
            return Err(SessionError::NoSlot);
        }
        let mut regions = self.regions.clone();
        regions.push(map(request, region, fd)?);
        Ok(Self { regions })
    }

    /// This table without `region`, which is known by its addresses and its size.
    pub(super) fn without(&self, region: &MemoryRegion) -> Result<Self, SessionError> {
        let mut regions = self.regions.clone();
        regions.retain(|known| {
            known.guest_addr != region.guest_addr
                || known.user_addr != region.user_addr
                || u64::try_from(known.mapping.len()) != Ok(region.size)
        });
        if regions.len() == self.regions.len() {
            let MemoryRegion { guest_addr, size, .. } = *region;
            return Err(SessionError::NoSuchRegion { guest_addr, size });
        }
        Ok(Self { regions })
    }

    /// What the table says, for the device.
    pub(super) fn memory(&self, request: &'static str) -> Result<Arc<GuestMemory>, SessionError> {
        GuestMemory::new(self.regions.clone())
            .map(Arc::new)
            .map_err(|source| SessionError::Memory { request, source })
    }
}

fn map(request: &'static str, region: &MemoryRegion, fd: &OwnedFd) -> Result<Region, SessionError> {
    let guest_addr = region.guest_addr;
    let mapping = Mapping::map(fd.as_fd(), region.mmap_offset, region.size)
        .map_err(|source| SessionError::Map { request, guest_addr, source })?;
    Ok(Region { guest_addr, user_addr: region.user_addr, mapping: Arc::new(mapping) })
}
