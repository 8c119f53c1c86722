//! Opening devices, and the address spaces that those of one process share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::device::PciDevice;
use super::error::PciError;
use super::info::{DeviceInfo, PciAddress};
use super::physical::PhysicalMemory;
use super::sysfs::Sysfs;
use super::uio::UioDevice;
use super::vfio::container::Container;
use super::vfio::device::VfioDevice;
use crate::dma::DmaSpace;

/// The kernel driver that gives devices to user space, behind an IOMMU.
pub const VFIO_PCI: &str = "vfio-pci";
/// The kernel driver that gives devices to user space where there is no IOMMU.
pub const UIO_PCI_GENERIC: &str = "uio_pci_generic";

/// The address spaces of this process's devices. Keep one per process, so that its devices share
/// memory; nothing is made before a device needs it.
#[derive(Debug, Default)]
pub struct Spaces {
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    vfio: Option<(Arc<Container>, DmaSpace)>,
    vfio_without_iommu: Option<(Arc<Container>, DmaSpace)>,
    physical: Option<DmaSpace>,
    /// The space of the first device that was opened.
    in_use: Option<DmaSpace>,
}

impl Spaces {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The address space in use: that of the first device that was opened, and so of all devices
    /// that are bound to the same kind of driver. `None` when no device was opened yet. Devices of
    /// another kind get copies of packets that lie in it.
    #[must_use]
    pub fn in_use(&self) -> Option<DmaSpace> {
        self.lock().in_use.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_vfio(&self, info: DeviceInfo, sysfs: &Sysfs) -> Result<VfioDevice, PciError> {
        let address = info.address;
        let Some(group) = info.iommu_group else {
            return Err(PciError::new(address, no_iommu(address)));
        };
        let has_iommu = !sysfs.group_is_without_iommu(group);
        let (container, space) = {
            let mut made = self.lock();
            let slot = if has_iommu { &mut made.vfio } else { &mut made.vfio_without_iommu };
            match slot {
                Some((container, space)) => (Arc::clone(container), space.clone()),
                None => {
                    let container = Container::new(has_iommu)
                        .map_err(|reason| PciError::new(address, reason))?;
                    let container = Arc::new(container);
                    let space = DmaSpace::new(Arc::clone(&container) as _);
                    *slot = Some((Arc::clone(&container), space.clone()));
                    (container, space)
                }
            }
        };
        VfioDevice::open(info, sysfs, &container, space)
    }

    fn physical(&self) -> DmaSpace {
        let make = || DmaSpace::new(Arc::new(PhysicalMemory));
        self.lock().physical.get_or_insert_with(make).clone()
    }
}

/// What to do about a machine without an IOMMU.
pub(super) fn no_iommu(address: PciAddress) -> String {
    format!(
        "it is behind no IOMMU, which vfio-pci needs; switch the IOMMU on (VT-d or AMD-Vi in the \
         firmware, and intel_iommu=on on the kernel's command line), or do without: ringway \
         devices bind {address} --driver {UIO_PCI_GENERIC}"
    )
}

/// Opens the device at `address`, which belongs to this process from now on, until the value is
/// dropped.
///
/// # Errors
/// When there is no such device, it is not bound to [`VFIO_PCI`] or [`UIO_PCI_GENERIC`], or
/// cannot be had; the error says what to type.
pub fn open(address: PciAddress, spaces: &Spaces) -> Result<Box<dyn PciDevice>, PciError> {
    let sysfs = Sysfs::default();
    let info = sysfs.device(address)?;
    let device: Box<dyn PciDevice> = match info.driver.as_deref() {
        Some(VFIO_PCI) => Box::new(spaces.open_vfio(info, &sysfs)?),
        Some(UIO_PCI_GENERIC) => Box::new(UioDevice::open(info, &sysfs, spaces.physical())?),
        driver => return Err(PciError::new(address, not_ours(&info, driver))),
    };
    spaces.lock().in_use.get_or_insert_with(|| device.dma().clone());
    Ok(device)
}

/// Why a device cannot be opened that has another driver, or none.
fn not_ours(info: &DeviceInfo, driver: Option<&str>) -> String {
    if !info.is_network() {
        return format!("is no network device, but one of class {:06x}", info.class);
    }
    let state = match (driver, info.interfaces.as_slice()) {
        (None, _) => "is bound to no driver".to_owned(),
        (Some(driver), []) => format!("is bound to kernel driver '{driver}'"),
        (Some(driver), interfaces) => {
            format!("is bound to kernel driver '{driver}' (interface {})", interfaces.join(", "))
        }
    };
    format!("{state}; type: ringway devices bind {}", info.address)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let address = "ffff:ff:1f.7".parse().unwrap();
        let error = open(address, &Spaces::new()).unwrap_err().to_string();
        assert!(error.contains("ffff:ff:1f.7") && error.contains("devices list"), "{error}");
        assert!(Spaces::new().in_use().is_none());
    }

    #[test]
    fn only_a_network_device_is_to_be_bound() {
        let fake = FakeSysfs::new(&[]);
        fake.device("0000:01:00.0", None, None);
        let known = fake.sysfs().device("0000:01:00.0".parse().unwrap()).unwrap();
        assert!(not_ours(&known, None).contains("type: ringway devices bind 0000:01:00.0"));
        let balloon = DeviceInfo { class: 0x00_FF_00, ..known };
        let reason = not_ours(&balloon, Some("virtio-pci"));
        assert_eq!(reason, "is no network device, but one of class 00ff00");
    }
}
