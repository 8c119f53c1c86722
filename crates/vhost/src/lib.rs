//! vhost-user and VDUSE: protocols, sessions, and the thread that serves them.
//!
//! Messages pass between two ends of a socket, and neither ever waits for the other:
//!
//! ```
//! use std::os::fd::OwnedFd;
//! use std::os::unix::net::UnixStream;
//!
//! use vhost::connection::Connection;
//! use vhost::protocol::{FrontendMessage, FrontendRequest};
//!
//! let (here, there) = UnixStream::pair()?;
//! let mut front_end = Connection::new(here.into())?;
//! let mut back_end = Connection::new(there.into())?;
//! assert!(back_end.receive()?.is_none(), "nothing has come yet");
//!
//! front_end.send_request(&FrontendMessage::<OwnedFd>::GetFeatures, false)?;
//! let message = back_end.receive()?.ok_or("not all of it has come")?;
//! assert_eq!(message.header.request, FrontendRequest::GetFeatures.number());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`session`] makes of them what a [`Backend`] is asked to do, and the [`control`] thread serves the
//! sessions of all sockets. The device side of virtio-net, in the crate `vhost-net`, is such a back-end.
//!
//! - [`backend`]: what a device does behind a session
//! - [`call`]: how a device notifies its driver
//! - [`connection`]: messages and file descriptors over a Unix stream, never waiting
//! - [`control`]: the thread that serves all sockets and VDUSE devices
//! - [`frontend`]: the front-end of a session
//! - [`postcopy`]: page faults of guests that arrive by post-copy migration
//! - [`protocol`]: the wire format, for both sides
//! - [`session`]: the state machine of a connection, back-end side
//! - [`vduse`]: devices that the kernel takes for vDPA devices

pub mod backend;
pub mod call;
pub mod connection;
pub mod control;
pub mod frontend;
mod inband;
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
