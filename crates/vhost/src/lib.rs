//! vhost-user: protocol, sessions, and the device side of virtio-net.
//!
//! - [`backend`]: what a device does behind a session
//! - [`connection`]: messages and file descriptors over a Unix stream, never waiting
//! - [`control`]: the thread that serves all sockets
//! - [`frontend`]: the front-end of a session
//! - [`net`]: the device side of virtio-net
//! - [`protocol`]: the wire format, for both sides
//! - [`session`]: the state machine of a connection, back-end side

pub mod backend;
pub mod connection;
pub mod control;
pub mod frontend;
pub mod net;
pub mod protocol;
pub mod session;
#[cfg(test)]
mod testing;

// So that `testing` reads the same here and in `tests/`.
#[cfg(test)]
extern crate self as vhost;

pub use backend::{Backend, BackendError, Event, RingSetup};
pub use connection::{Connection, ConnectionError};
pub use control::{ControlHandle, ControlThread, SocketHandle, SocketOptions};
pub use protocol::ProtocolFeatures;
