//! Devices bound to `vfio-pci`: the IOMMU lets them reach what they were given, and nothing else.
//!
//! - [`abi`]: the kernel's interface
//! - [`iova`]: which addresses devices use
//! - [`container`]: the address space that devices share
//! - [`handle`]: a device's file and mappings, which can be given back
//! - [`device`]: one device

pub(super) mod abi;
pub(super) mod container;
pub(super) mod device;
mod handle;
pub(super) mod iova;
