//! The memory that a front-end shares (SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG).

use std::os::fd::AsFd;
use std::sync::Arc;

use eal::{Mapping, PeerFd};
use virtio::GuestMemory;
use virtio::memory::Region;

use super::error::SessionError;
use crate::backend::MemoryKinds;
use crate::protocol::MemoryRegion;

/// Number of regions that a session can hold: that of the kernel's vhost, and more than a guest
/// with every memory slot of QEMU filled needs. A process may have 65530 mappings by default, so
/// more than a hundred such guests.
pub const MAX_SLOTS: usize = 509;

/// Bytes of memory that a front-end can share: more than a guest has, and little enough that some
/// front-ends cannot use up what the process can map ([`eal::mem::MAX_PEER_MEMORY`]).
pub const MAX_MEMORY: u64 = 4 << 40;

/// The regions of a front-end.
#[derive(Debug, Default)]
pub(super) struct MemoryTable {
    regions: Vec<Region>,
    /// Whether somebody looked for what a guest has written.
    looked: bool,
}

/// How much of the memory's start is looked at: a machine has its firmware's data there.
const START: usize = 1 << 20;
/// How much of a ring.
const PAGE: usize = 1 << 12;

impl MemoryTable {
    /// Whether any memory is shared.
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Whether, on the first look, nobody seems to have written to the memory in which a ring at
    /// `desc` of the front-end's address space is to start: neither to its start nor to the ring.
    pub(super) fn turns_out_blank(&mut self, desc: u64) -> bool {
        if std::mem::replace(&mut self.looked, true) {
            return false;
        }
        let lowest = self.regions.iter().min_by_key(|region| region.guest_addr);
        let ring = self.regions.iter().find_map(|region| {
            let offset = usize::try_from(desc.checked_sub(region.user_addr)?).ok()?;
            (offset < region.mapping.len()).then_some((region, offset))
        });
        let (Some(lowest), Some((region, offset))) = (lowest, ring) else { return false };
        region.mapping.is_blank(offset, PAGE) && lowest.mapping.is_blank(0, START)
    }

    /// The first guest-physical address behind all regions.
    pub(super) fn end(&self) -> u64 {
        let end = |region: &Region| region.guest_addr.saturating_add(region.mapping.len() as u64);
        self.regions.iter().map(end).max().unwrap_or(0)
    }

    /// A table with these regions only, in files of `kinds`.
    pub(super) fn of(
        request: &'static str,
        regions: &[(MemoryRegion, PeerFd)],
        kinds: MemoryKinds,
    ) -> Result<Self, SessionError> {
        check_sum(request, regions.iter().map(|(region, _)| region.size))?;
        let regions = regions.iter().map(|(region, fd)| map(request, region, fd, kinds));
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        if regions.is_empty() {
            return Err(SessionError::NoMemory);
        }
        Ok(Self { regions, looked: false })
    }

    /// This table and one more region, in a file of `kinds`.
    pub(super) fn with(
        &self,
        request: &'static str,
        region: &MemoryRegion,
        fd: &PeerFd,
        kinds: MemoryKinds,
    ) -> Result<Self, SessionError> {
        if self.regions.len() >= MAX_SLOTS {
            return Err(SessionError::NoSlot);
        }
        let sizes = self.regions.iter().map(|region| region.mapping.len() as u64);
        check_sum(request, sizes.chain([region.size]))?;
        let mut regions = self.regions.clone();
        regions.push(map(request, region, fd, kinds)?);
        Ok(Self { regions, looked: false })
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
        Ok(Self { regions, looked: false })
    }

    /// What the table says, for the device.
    pub(super) fn memory(&self, request: &'static str) -> Result<Arc<GuestMemory>, SessionError> {
        GuestMemory::new(self.regions.clone())
            .map(Arc::new)
            .map_err(|source| SessionError::Memory { request, source })
    }
}

/// Refuses more memory than a front-end may share.
fn check_sum(request: &'static str, sizes: impl Iterator<Item = u64>) -> Result<(), SessionError> {
    let bytes = sizes.fold(0, u64::saturating_add);
    if bytes > MAX_MEMORY { Err(SessionError::TooMuchMemory { request, bytes }) } else { Ok(()) }
}

fn map(
    request: &'static str,
    region: &MemoryRegion,
    fd: &PeerFd,
    kinds: MemoryKinds,
) -> Result<Region, SessionError> {
    let guest_addr = region.guest_addr;
    let map = match kinds {
        MemoryKinds::Lasting => Mapping::map,
        MemoryKinds::Any => Mapping::map_file,
    };
    let mapping = map(fd.as_fd(), region.mmap_offset, region.size)
        .map_err(|source| SessionError::Map { request, guest_addr, source })?;
    let mapping = Arc::new(mapping.closed_by(fd.closer()));
    Ok(Region { guest_addr, user_addr: region.user_addr, mapping })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const USER: u64 = 0x7000_0000;
    const SIZE: u64 = 4 << 20;

    /// A table of memory in which only the byte at `written` is not zero.
    fn table(written: Option<u64>) -> MemoryTable {
        let fd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, SIZE).unwrap();
        let file = File::from(fd);
        if let Some(offset) = written {
            file.write_all_at(&[1], offset).unwrap();
        }
        let region = MemoryRegion { guest_addr: 0, size: SIZE, user_addr: USER, mmap_offset: 0 };
        MemoryTable::of("test", &[(region, OwnedFd::from(file).into())], MemoryKinds::Lasting)
            .unwrap()
    }

    #[test]
    fn memory_that_nobody_has_written_to_is_noticed_once() {
        const RING: u64 = 2 << 20;
        let mut blank = table(None);
        assert!(blank.turns_out_blank(USER + RING));
        assert!(!blank.turns_out_blank(USER + RING), "the second ring");
        // A guest that has booted, and a front-end with no more than a ring.
        for written in [0x400, RING] {
            assert!(!table(Some(written)).turns_out_blank(USER + RING), "{written:#x}");
        }
        assert!(!table(None).turns_out_blank(USER + SIZE), "outside");
        assert!(!table(None).turns_out_blank(0), "outside");
    }
}
