//! vhost-user and VDUSE: protocols, sessions, and the device side of virtio-net.
//!
//! A network device behind a socket: what its guest sends is received here.
//!
//! ```
//! use ethdev::{QueueStats, RxQueue};
//! use vhost::control::{ControlThread, SocketOptions};
//! use vhost::net::NetDevice;
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
//! - [`backend`]: what a device does behind a session
//! - [`call`]: how a device notifies its driver
//! - [`connection`]: messages and file descriptors over a Unix stream, never waiting
//! - [`control`]: the thread that serves all sockets and VDUSE devices
//! - [`frontend`]: the front-end of a session
//! - [`net`]: the device side of virtio-net
//! - [`postcopy`]: page faults of guests that arrive by post-copy migration
//! - [`protocol`]: the wire format, for both sides
//! - [`session`]: the state machine of a connection, back-end side
//! - [`vduse`]: devices that the kernel takes for vDPA devices

pub mod backend;
pub mod call;
#[cfg(test)]
mod conformance;
pub mod connection;
pub mod control;
pub mod frontend;
mod inband;
pub mod net;
pub mod postcopy;
pub mod protocol;
pub mod session;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod vduse;

pub use backend::{Backend, BackendError, Event, MemoryKinds, RingSetup};
pub use call::Call;
pub use connection::{Connection, ConnectionError};
pub use control::{ControlHandle, ControlThread, SocketHandle, SocketOptions};
pub use protocol::ProtocolFeatures;
