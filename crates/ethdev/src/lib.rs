//! The device API: one interface for every kind of port.
//!
//! - [`queue`]: receive and transmit queues, owned by the worker that polls them
//! - [`port`]: the control side of a port: link, MAC, MTU, statistics
//! - [`stats`]: counters per queue, and the reasons for which frames are dropped
//! - [`spec`]: device strings such as `vhost-user:/run/vm1.sock,queues=2`

pub mod port;
pub mod queue;
pub mod spec;
pub mod stats;

pub use port::{Error, Link, Port, PortControl, PortInfo};
pub use queue::{RxBurst, RxDriver, RxQueue, TxDriver, TxQueue};
pub use spec::DeviceSpec;
pub use stats::{DropReason, QueueStats, Stats};
