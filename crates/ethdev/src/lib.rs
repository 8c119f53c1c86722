//! The device API: one interface for every kind of port.
//!
//! - [`queue`]: receive and transmit queues, owned by the worker that polls them
//! - [`shared`]: a transmit queue that several workers use in turns
//! - [`tx_buffer`]: packets that wait until there is a burst of them
//! - [`idle`]: what a worker does without frames: it goes on polling, then sleeps
//! - [`sleep`]: how it sleeps until a device announces a frame
//! - [`port`]: the control side of a port: link, MAC, MTU, statistics
//! - [`events`]: how a port tells that its link changed or that it is gone
//! - [`stats`]: counters per queue, and the reasons for which frames are dropped
//! - [`spec`]: device strings such as `vhost-user:/run/vm1.sock,queues=2`

pub mod events;
pub mod idle;
mod offload;
pub mod port;
pub mod queue;
pub mod shared;
pub mod sleep;
pub mod spec;
pub mod stats;
pub mod tx_buffer;

pub use events::{PortEvent, PortEvents};
pub use idle::{Idle, IdleOptions, Load, LoadReport};
pub use port::{Error, Link, Port, PortControl, PortInfo};
pub use queue::{RxBurst, RxDriver, RxQueue, Sent, TxDriver, TxQueue};
pub use shared::{SharedTxQueue, share_out};
pub use sleep::{Sleeper, Slept};
pub use spec::DeviceSpec;
pub use stats::{DropReason, PacketTally, PortStats, QueueStats, Stats};
pub use tx_buffer::{TxBuffer, TxBufferOptions};
