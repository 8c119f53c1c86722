//! The device side of virtio-net: the rings of one guest, shared between the control thread,
//! which starts and stops them, and the workers, which poll them.
//!
//! A network device behind a socket: what its guest sends is received here.
//!
//! ```
//! use ethdev::{QueueStats, RxQueue};
//! use vhost::control::{ControlThread, SocketOptions};
//! use vhost_net::NetDevice;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("vm1.sock");
//! let device = NetDevice::new("vm1", 1)?;
//! let receivers = device.receivers().into_iter();
//! let mut queues: Vec<RxQueue> =
//!     receivers.map(|ring| RxQueue::new(Box::new(ring), QueueStats::default().into())).collect();
//!
//! let control = ControlThread::start()?;
//! let socket = control.add_server(&path, SocketOptions::default(), Box::new(device))?;
//! // No guest has come yet.
//! assert!(queues.iter_mut().all(|queue| queue.rx_burst(32).frames().is_empty()));
//! socket.remove();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The guest is behind a vhost-user socket, or the kernel has the device as a vDPA one
//! (VDUSE): either is a session of [`vhost`], and tells the device what to do.
//!
//! - [`command`]: commands of the control queue
//! - [`control_ring`]: the control queue, served on the control thread
//! - [`device`]: the control side: starts and stops rings
//! - `dirty`: where the rings log what they write
//! - `gate`: what a worker may touch while pages of the guest are missing
//! - `iommu`: the device behind a virtual IOMMU
//! - [`filter`]: which frames a guest wants to receive
//! - `postcopy`: a guest that runs before all of its memory is there
//! - [`ring`]: a running ring and the slot in which it passes between the two sides
//! - `start`: how a ring starts
//! - `state`: what moves to another back-end with the guest
//! - [`receive`]: frames that the guest sends, borrowed from its ring
//! - [`transmit`]: frames for the guest, copied into the buffers that it offers

pub mod command;
pub mod control_ring;
pub mod device;
mod dirty;
pub mod filter;
pub mod gate;
mod iommu;
mod postcopy;
pub mod receive;
pub mod ring;
mod start;
mod state;
#[cfg(test)]
mod tests;
pub mod transmit;

pub use device::NetDevice;
pub use receive::NetReceiver;
pub use ring::{Ring, RingSlot};
pub use transmit::NetTransmitter;
