//! What a process needs of the system for a device on the PCI bus.

use crate::sandbox::{CapabilitySet, Needs, Reach, nodes};

use super::PciAddress;

/// What the device at the address in `text` needs; any device, if it is empty.
#[must_use]
pub fn needs(text: &str) -> Needs {
    let address = text.parse::<PciAddress>().ok();
    let driver = address.and_then(|address| {
        let link = format!("/sys/bus/pci/devices/{address}/driver");
        Some(std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
    });
    let vfio = Needs::new()
        .capabilities(CapabilitySet::IPC_LOCK)
        .path("/sys", Reach::READ)
        .path("/dev/vfio", Reach::DEVICE);
    // Without an IOMMU the process has to see physical addresses, whatever gives it the device.
    let is_guarded =
        driver.as_deref() == Some("vfio-pci") && nodes("/dev/vfio", "noiommu").is_empty();
    if is_guarded {
        return vfio;
    }
    let physical = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_RAWIO;
    let needs = vfio.capabilities(physical).path("/sys/devices", Reach::READ | Reach::WRITE);
    needs.nodes("/dev", "uio")
}
