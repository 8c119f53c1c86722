//! Packets: borrowed frames, owned packets and their pools, header views, checksums.
//!
//! ```
//! use packet::headers::{EtherType, Ethernet};
//! use packet::{MacAddr, builder::FrameBuilder};
//!
//! let [here, there] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
//! let frame = FrameBuilder::new(here, there)
//!     .ip([10, 0, 0, 1], [10, 0, 0, 2])
//!     .udp(4000, 53)
//!     .payload(b"ping")
//!     .build()?;
//! let ethernet = Ethernet::parse(&frame).ok_or("too short")?;
//! assert_eq!(ethernet.destination(), there);
//! assert_eq!(ethernet.ether_type(), EtherType::IPV4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`announce`](mod@announce): the frame by which a station says where it is now
//! - [`builder`]: whole frames with correct checksums, for tests and generators
//! - [`checksum`]: the Internet checksum
//! - `copy`: copies of few bytes
//! - [`edit`]: heads that are changed, and bodies that stay: VLAN tags put on, taken off and changed
//! - [`flow`]: which flow a frame belongs to
//! - [`frame`]: frames that still lie in a device's ring, and the batch that holds a burst of them
//! - [`headers`]: views of protocol headers
//! - [`mac`]: MAC addresses
//! - [`offload`]: what a frame still needs before it is complete
//! - [`owned`]: packets that own their buffers
//! - [`pool`]: pools of buffers, and a cache of each for a worker
//! - [`prefetch`]: cache hints
//! - [`segmentation`]: offloads in software
//! - [`slots`]: memory for the frames that a driver receives by copying
//! - `wide`: words as wide as the widest move of every supported CPU

pub mod announce;
pub mod builder;
pub mod checksum;
mod copy;
pub mod crc32c;
pub mod edit;
pub mod flow;
pub mod frame;
pub mod headers;
pub mod mac;
pub mod offload;
pub mod owned;
pub mod pool;
pub mod prefetch;
pub mod segmentation;
pub mod slots;
mod wide;

pub use announce::announcement;
pub use edit::{DEEPEST_HEAD, Edit, EditRoom, Edited, Editing, Open, Tag};
pub use frame::{
    Alike, BURST, Burst, Frame, FrameBatch, FrameReader, HEAD_LEN, MAX_FRAME_LEN, RawSegment,
    Segment,
};
pub use headers::ethernet::{HEADER_LEN as ETHERNET_HEADER_LEN, LINK_HEADERS};
pub use mac::MacAddr;
pub use offload::{BadOffload, Capabilities, Gso, Offload, OffloadRequest};
pub use owned::Packet;
pub use pool::{Pool, PoolCache};
