//! The driver side of virtqueues: for poll-mode drivers, over PCI or vhost-user.
//!
//! - [`buffer`]: what goes into a ring and comes back out of it
//! - [`packed`]: packed rings
//! - [`queue`]: a ring of either format
//! - [`split`]: split rings

pub mod buffer;
pub mod packed;
pub mod queue;
pub mod split;

pub use eal::{DmaMemory, DmaPart, DmaSlice};

pub use buffer::{Buffer, RingError, Used};
pub use packed::PackedQueue;
pub use queue::{DriverQueue, DriverRing};
pub use split::SplitQueue;
