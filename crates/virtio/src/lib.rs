//! Virtio: what both sides of a virtqueue need, without any transport.
//!
//! - [`features`]: feature bits
//! - [`net_header`]: the header in front of every frame
//! - [`ring`]: the memory layout of split rings

pub mod features;
pub mod net_header;
pub mod ring;

pub use features::Features;
pub use net_header::{NET_HEADER_LEN, NetHeader};
