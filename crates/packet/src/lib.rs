//! Packets: borrowed frames, owned packets and their pools, header views, checksums.
//!
//! - [`frame`]: frames that still lie in a device's ring, and the batch that holds a burst of them
//! - [`mac`]: MAC addresses
//! - [`prefetch`]: cache hints

pub mod frame;
pub mod mac;
pub mod prefetch;

pub use frame::{BURST, Frame, FrameBatch, FrameReader, HEAD_LEN, MAX_FRAME_LEN, Segment};
pub use mac::MacAddr;
