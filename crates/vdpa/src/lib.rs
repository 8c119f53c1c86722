//! vDPA: devices that serve a guest's rings themselves, behind a vhost-user socket.
//!
//! The front-end sees an ordinary vhost-user back-end. Its messages come to us, its frames do
//! not: the device reads and writes the guest's rings and buffers by DMA.
//!
//! - [`device`]: what a vDPA device does
//! - [`virtio_pci`]: virtio network hardware over VFIO

pub mod device;
pub mod virtio_pci;

pub use device::{DeviceError, NotifyArea, Ring, Setup, Statistic, VdpaDevice};
