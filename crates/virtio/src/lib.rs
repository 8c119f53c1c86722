//! Virtio: what both sides of a virtqueue need, without any transport.
//!
//! ```
//! use virtio::Features;
//!
//! // A session uses what both sides know (virtio 1.3, section 2.2).
//! let offered = Features::VERSION_1 | Features::EVENT_IDX | Features::RING_PACKED;
//! let agreed = offered & (Features::VERSION_1 | Features::EVENT_IDX | Features::IN_ORDER);
//! assert_eq!(agreed, Features::VERSION_1 | Features::EVENT_IDX);
//! ```
//!
//! - [`device`]: the device side of virtqueues
//! - [`dirty`]: the log of written pages, for live migration
//! - [`driver`]: the driver side of virtqueues
//! - [`features`]: feature bits
//! - [`inflight`]: the record of chains in flight, for restarts
//! - [`iotlb`]: translations of I/O virtual addresses
//! - [`memory`]: the guest's memory and the checked way into it
//! - [`net_header`]: the header in front of every frame
//! - [`packed`]: the memory layout of packed rings
//! - [`ring`]: the memory layout of split rings
//! - [`shadow`]: a ring for a device in place of the guest's

pub mod device;
pub mod dirty;
pub mod driver;
pub mod features;
pub mod inflight;
pub mod iotlb;
pub mod memory;
pub mod net_header;
pub mod packed;
pub mod ring;
pub mod shadow;

pub use dirty::DirtyLog;
pub use features::Features;
pub use inflight::InflightArea;
pub use iotlb::Iotlb;
pub use memory::GuestMemory;
pub use net_header::{LEGACY_NET_HEADER_LEN, NET_HEADER_LEN, NetHeader};
pub use shadow::ShadowRing;
