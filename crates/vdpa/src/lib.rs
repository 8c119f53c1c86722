//! vDPA: devices that serve a guest's rings themselves, behind a vhost-user socket.
//!
//! The front-end sees an ordinary vhost-user back-end. Its messages come to us, its frames do
//! not: the device reads and writes the guest's rings and buffers by DMA.
//!
//! - [`device`]: what a vDPA device does
//! - [`kernel`]: devices that the kernel drives

pub mod device;
pub mod kernel;

pub use device::{DeviceError, NotifyArea, Ring, Setup, Statistic, VdpaDevice};
