//! The driver side of virtqueues: for poll-mode drivers, over PCI or vhost-user.
//!
//! - [`memory`]: memory that driver and device share, with the address that the device uses
//! - [`split`]: split rings

pub mod memory;
pub mod split;

pub use memory::DmaMemory;
pub use split::{Buffer, RingError, SplitQueue, Used};
