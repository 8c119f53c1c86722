//! vDPA: devices that serve a guest's rings themselves, behind a vhost-user socket.
//!
//! ```no_run
//! use vdpa::attach::AttachOptions;
//!
//! // Virtio hardware serves the guest behind the socket; no frame passes through this process.
//! let device = vdpa::open("virtio-pci:0000:01:00.0")?;
//! let attached = vdpa::attach::attach("/run/vm1.sock", AttachOptions::default(), device)?;
//! println!("{} queue pairs", attached.queue_pairs());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The front-end sees an ordinary vhost-user back-end. Its messages come to us, its frames do
//! not: the device reads and writes the guest's rings and buffers by DMA.
//!
//! - [`device`]: what a vDPA device does
//! - [`kernel`]: devices that the kernel drives
//! - [`registry`]: from a device string to an open device, and the list of drivers
//! - [`attach`](mod@attach): a device on a vhost-user socket
//! - `attachment`: what the front-end has told, and when the device starts and stops
//! - `backend`: the device side of a vhost-user session
//! - `outbox`: what the front-end has yet to be told
//! - `place`: where a ring lies in guest memory
//! - [`virtio_pci`]: virtio network hardware over VFIO

pub mod attach;
mod attachment;
mod backend;
pub mod device;
pub mod kernel;
mod outbox;
mod place;
pub mod registry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod virtio_pci;

pub use attach::{AttachOptions, Attached, State, Status, attach};
pub use device::{DeviceError, NotifyArea, Ring, Setup, Statistic, VdpaDevice};
pub use registry::{Found, find, list, needs, open, open_spec};
