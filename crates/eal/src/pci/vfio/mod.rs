//! Devices bound to `vfio-pci`: the IOMMU lets them reach what they were given, and nothing else.
//!
//! - [`abi`]: the kernel's interface
//! - [`iova`]: which addresses devices use
//! - [`container`]: the address space that devices share
//! - [`device`]: one device

pub(super) mod abi;
pub(super) mod container;
pub(super) mod device;
pub(super) mod iova;
