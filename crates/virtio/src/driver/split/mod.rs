//! Split rings (virtio 1.3 section 2.7), driver side.
//!
//! - [`ring`]: the shared memory of a ring: every load and store that the device sees or makes
//! - [`queue`]: descriptors and who owns them: the driver, or the device for now

pub mod queue;
pub mod ring;
#[cfg(test)]
mod tests;

pub use queue::SplitQueue;
pub use ring::{LEGACY_ALIGN, SplitRing};
