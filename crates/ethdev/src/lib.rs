//! The device API: one interface for every kind of port.
//!
//! ```
//! use ethdev::DeviceSpec;
//!
//! // How a driver reads its device string: what it does not know is an error that says so.
//! let mut spec: DeviceSpec = "tap:tap0,queues=2,colour=red".parse()?;
//! assert_eq!((spec.driver(), spec.target()), ("tap", "tap0"));
//! let queues: u16 = spec.take_number("queues", 1, &(1..=16))?;
//! assert_eq!(queues, 2);
//! assert!(spec.finish("queues").unwrap_err().to_string().contains("colour"));
//! # Ok::<(), ethdev::Error>(())
//! ```
//!
//! - [`queue`]: receive and transmit queues, owned by the worker that polls them
//! - [`shared`]: a transmit queue that several workers use in turns
//! - [`tx_buffer`]: packets that wait until there is a burst of them
//! - [`idle`]: what a worker does without frames: it goes on polling, then sleeps
//! - [`sleep`]: how it sleeps until a device announces a frame
//! - [`driver`]: what a driver says of itself, and what it gives when it opens a port
//! - [`port`]: the control side of a port: link, MAC, MTU, statistics
//! - [`events`]: how a port tells that its link changed or that it is gone
//! - [`mtu`]: the bounds of MTUs
//! - [`access`]: options that say who may connect to a socket
//! - [`spelling`]: the name that somebody may have meant
//! - [`drop_reason`]: why frames are dropped
//! - [`stats`]: counters per queue
//! - [`pressure`]: how hard pressed a queue is
//! - [`spec`]: device strings such as `vhost-user:/run/vm1.sock,queues=2`

pub mod access;
pub mod driver;
pub mod drop_reason;
pub mod events;
pub mod idle;
pub mod mtu;
mod offload;
pub mod port;
pub mod pressure;
pub mod queue;
pub mod shared;
pub mod sleep;
pub mod spec;
pub mod spelling;
pub mod stats;
pub mod tx_buffer;

pub use driver::{DriverInfo, OpenPort, OptionInfo};
pub use drop_reason::DropReason;
pub use events::{PortEvent, PortEvents};
pub use idle::{Idle, IdleOptions, Load, LoadReport};
pub use port::{Error, Link, Peer, Port, PortControl, PortInfo};
pub use pressure::{Pressure, ask_depths};
pub use queue::{RxBurst, RxDriver, RxQueue, Sent, TxDriver, TxQueue};
pub use shared::{SharedTxQueue, share_out};
pub use sleep::{Sleeper, Slept};
pub use spec::DeviceSpec;
pub use spelling::{closest, hint};
pub use stats::{PacketTally, PortStats, QueueStats, Stats};
pub use tx_buffer::{TxBuffer, TxBufferOptions};
