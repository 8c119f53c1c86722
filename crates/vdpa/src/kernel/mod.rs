//! Devices that the kernel drives: `/dev/vhost-vdpa-N` (Linux `drivers/vhost/vdpa.c`).
//!
//! Every vDPA device that the kernel has can be used this way: hardware that its drivers know,
//! and programs behind VDUSE. The kernel maps the guest's memory for the device, has its kick
//! files notify it and the device signal its call files; nothing of that passes through us.
//!
//! - [`list`](mod@list): which devices there are
//! - `device`: a device as a [`VdpaDevice`](crate::VdpaDevice)
//! - `offer`: what a device is and can do
//! - `session`: from one start to the next stop
//! - `memory`: what memory the device reaches
//! - `control`: its control queue
//! - `calls`: what is asked of the kernel
//! - `abi`: the kernel's interface
//!
//! A front-end that maps the doorbell of a ring gets the device's file for that. It can reset its
//! own device with it, as it can with messages; memory of others it cannot give it, since the
//! kernel maps that of the process which opened the device only.
//!
//! A device of a program (VDUSE) is asked by the kernel, which waits for it: 30 s, unless told
//! otherwise, for one that hangs. So it must not be served by the thread that uses it here.

mod abi;
mod calls;
mod control;
mod device;
pub mod list;
mod memory;
#[cfg(test)]
mod model;
mod offer;
mod session;
#[cfg(test)]
mod tests;

pub use device::KernelDevice;
pub use list::{KernelVdpa, list};
