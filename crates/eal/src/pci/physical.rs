//! Physical memory, as devices without an IOMMU see it.
//!
//! Nothing keeps such a device from any other memory of the machine, so this is for machines
//! without an IOMMU, and for those who trust the device and its driver.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::dma::{AddressSpace, DeviceAddresses};
use crate::huge::HUGE_PAGE;
use crate::mem::{Pages, SharedMemory};

/// A page that is in memory, in `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
/// The number of the page frame; zero without privilege.
const FRAME: u64 = (1 << 55) - 1;

/// All devices that have no IOMMU, of this machine.
#[derive(Debug)]
pub struct PhysicalMemory;

impl AddressSpace for PhysicalMemory {
    /// The kernel neither moves nor swaps out reserved huge pages.
    fn pages(&self) -> Pages {
        Pages::Huge
    }

    fn piece_len(&self) -> usize {
        HUGE_PAGE
    }

    unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
        addresses(memory)
    }

    fn unmap(&self, _memory: &SharedMemory, _addresses: &DeviceAddresses) {}
}

/// Where the huge pages of `memory` are.
pub fn addresses(memory: &SharedMemory) -> Result<DeviceAddresses, String> {
    if memory.page_size() != HUGE_PAGE {
        return Err(format!(
            "it is made of pages of {} bytes, expected huge ones",
            memory.page_size()
        ));
    }
    let pagemap =
        File::open("/proc/self/pagemap").map_err(|cause| format!("/proc/self/pagemap: {cause}"))?;
    let start = memory.as_ptr().addr().get();
    let pages = (start..start + memory.len()).step_by(HUGE_PAGE);
    let addresses =
        pages.map(|page| frame(&pagemap, page as u64)).collect::<Result<Box<[u64]>, String>>()?;
    Ok(DeviceAddresses::Pages { shift: HUGE_PAGE.trailing_zeros(), addresses })
}

/// The physical address of the page at `address`.
fn frame(pagemap: &File, address: u64) -> Result<u64, String> {
    let page = rustix::param::page_size() as u64;
    let mut entry = [0; 8];
    pagemap
        .read_exact_at(&mut entry, address / page * 8)
        .map_err(|cause: io::Error| format!("cannot read /proc/self/pagemap: {cause}"))?;
    let entry = u64::from_ne_bytes(entry);
    if entry & PRESENT == 0 {
        return Err("a huge page is not in memory".into());
    }
    match (entry & FRAME).checked_mul(page) {
        None | Some(0) => Err("the kernel hides physical addresses from this process: run it as \
                               root, or give it CAP_SYS_ADMIN (setcap cap_sys_admin+ep)"
            .into()),
        Some(physical) if !physical.is_multiple_of(HUGE_PAGE as u64) => {
            Err(format!("a huge page is at {physical:#x}, which is no multiple of 2 MiB"))
        }
        Some(physical) => Ok(physical),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::DmaSpace;
    use std::sync::Arc;

    #[test]
    fn huge_pages_have_addresses_and_others_a_reason() {
        let plain = SharedMemory::allocate_from("test", 4096, Pages::Plain).unwrap();
        assert!(addresses(&plain).unwrap_err().contains("huge"));
        let space = DmaSpace::new(Arc::new(PhysicalMemory));
        match space.allocate("test", 2 * HUGE_PAGE) {
            Ok(buffer) => {
                let first = buffer.device_address(0).unwrap();
                let second = buffer.device_address(HUGE_PAGE).unwrap();
                assert!(first != second && first.is_multiple_of(HUGE_PAGE as u64));
                assert_eq!(buffer.device_address(HUGE_PAGE + 5), Some(second + 5));
            }
            // No huge pages, or no privilege: what to do about it is said.
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("nr_hugepages") || error.contains("root"), "{error}");
            }
        }
    }
}
