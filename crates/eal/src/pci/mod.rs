//! PCI devices, driven from user space.
//!
//! - [`info`]: addresses, and what the kernel knows of a device
//! - [`sysfs`]: the devices there are
//! - [`bind`]: taking devices from the kernel's drivers, and giving them back
//! - `usage`: whether somebody needs a device
//! - [`device`]: a device that belongs to this process
//! - [`bar`]: its registers
//! - [`capability`]: its configuration space
//! - [`spaces`]: opening a device, and the address spaces that devices share
//! - `vfio`: devices bound to `vfio-pci`, behind an IOMMU
//! - `uio`, `physical`: devices bound to `uio_pci_generic`, and the memory that they see
//! - [`needs`](mod@needs): what a process needs of the system for a device
//! - [`error`]: what goes wrong

pub mod bar;
pub mod bind;
pub mod capability;
pub mod device;
pub mod error;
#[cfg(test)]
#[cfg(not(loom))]
mod fake;
pub mod info;
pub mod needs;
mod physical;
pub mod spaces;
pub mod sysfs;
mod uio;
mod usage;
mod vfio;

pub use bar::Bar;
pub use bind::Binder;
pub use capability::{Capability, capabilities};
pub use device::PciDevice;
pub use error::PciError;
pub use info::{DeviceInfo, PciAddress};
pub use needs::needs;
pub use spaces::{Spaces, open};
pub use sysfs::{Resource, Sysfs};
