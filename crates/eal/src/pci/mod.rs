//! PCI devices, driven from user space.
//!
//! - [`info`]: addresses, and what the kernel knows of a device
//! - [`device`]: a device that belongs to this process
//! - [`bar`]: its registers
//! - [`error`]: what goes wrong

pub mod bar;
pub mod device;
pub mod error;
pub mod info;

pub use bar::Bar;
pub use device::PciDevice;
pub use error::PciError;
pub use info::{DeviceInfo, PciAddress};
