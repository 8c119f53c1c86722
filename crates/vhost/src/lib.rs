//! vhost-user: protocol, sessions, and the device side of virtio-net.
//!
//! - [`connection`]: messages and file descriptors over a Unix stream, never waiting
//! - [`net`]: the device side of virtio-net
//! - [`protocol`]: the wire format, for both sides

pub mod connection;
pub mod net;
pub mod protocol;

pub use connection::{Connection, ConnectionError};
pub use protocol::ProtocolFeatures;
