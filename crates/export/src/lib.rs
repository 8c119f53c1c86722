//! What switches tell collectors of the traffic that passes through, as they have it: datagrams as bytes,
//! without sockets and clocks.
//!
//! ```
//! use export::sflow::{Agent, Exporter, FlowSample, Output};
//!
//! let agent = Agent { address: [192, 0, 2, 1].into(), sub_id: 0 };
//! let mut exporter = Exporter::new(agent);
//! let sample = FlowSample {
//!     rate: 400,
//!     stands_for: 371,
//!     output: Output::Interface(3),
//!     input: 2,
//!     frame_len: 60,
//!     header: &[0; 60],
//!     ..FlowSample::default()
//! };
//! exporter.flow(&sample, 1_000);
//! let datagrams = exporter.take(1_000);
//! assert_eq!(datagrams[0].bytes[..4], [0, 0, 0, 5], "version 5");
//! assert_eq!(datagrams[0].records, 1);
//! ```
//!
//! - [`datagram`]: what is sent at once
//! - [`ipfix`]: samples of packets, gathered into flows, by IPFIX
//! - [`netflow`]: flows, by NetFlow
//! - [`sflow`]: samples of packets, and counters of ports, by sFlow
//! - [`tally`]: what has become of them
//! - `wire`: numbers in the order of the network

#![forbid(unsafe_code)]

pub mod datagram;
pub mod ipfix;
pub mod netflow;
pub mod sflow;
pub mod tally;
mod wire;

pub use datagram::Datagram;
pub use tally::{Tally, Told};
