//! The driver side of virtqueues: for poll-mode drivers, over PCI or vhost-user.
//!
//! - [`buffer`]: what goes into a ring and comes back out of it
//! - [`memory`]: memory that driver and device share, with the address that the device uses
//! - [`packed`]: packed rings
//! - [`queue`]: a ring of either format
//! - [`split`]: split rings

pub mod buffer;
pub mod memory;
pub mod packed;
pub mod queue;
pub mod split;

pub use buffer::{Buffer, RingError, Used};
pub use memory::DmaMemory;
pub use packed::PackedQueue;
pub use queue::{DriverQueue, DriverRing};
pub use split::SplitQueue;
