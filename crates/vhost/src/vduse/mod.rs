//! VDUSE: devices that the kernel takes for vDPA devices (Linux
//! `Documentation/userspace-api/vduse.rst`, `linux/vduse.h`).
//!
//! A device is made over `/dev/vduse/control` and appears as `/dev/vduse/NAME`. Once it was
//! attached to the vDPA bus, the driver that is bound to it there drives it: `virtio_vdpa`, so
//! that the kernel has a network interface, or `vhost_vdpa`, so that a VMM has
//! `/dev/vhost-vdpa-N`. The kernel's requests come through the device's file; a [`Session`]
//! translates them for a [`Backend`](crate::Backend), as one of vhost-user does for messages.
//!
//! - `abi`: the kernel's numbers, structures and calls
//! - [`device`]: making and removing a device, and its open file
//! - [`kernel`]: the kernel's side of a device, so that tests can stand in for it
//! - `memory`: the memory that the driver has shared
//! - [`message`]: the kernel's requests and the answers
//! - [`offer`]: features, rings and configuration that a device is made with
//! - [`session`]: the state machine of a device

mod abi;
pub mod device;
pub mod kernel;
mod memory;
pub mod message;
pub mod offer;
pub mod session;
#[cfg(test)]
mod tests;

pub use device::{ControlFile, DeviceFile, Interrupt};
pub use kernel::{Extent, Kernel, RingInfo};
pub use offer::Offer;
pub use session::Session;
