//! IPFIX (RFC 7011): samples of packets, gathered into flows, with the information elements and numbers of
//! templates that Open vSwitch has for them.
//!
//! - `element`: what is told of a flow, and in which order
//! - `exporter`: flows on their way into messages
//! - `message`: records in messages, behind the templates that tell how to read them
//! - `packet`: a packet that stands for many
//! - `totals`: what has been counted of all

mod element;
mod exporter;
mod message;
mod packet;
#[cfg(test)]
mod tests;
mod totals;

pub use exporter::{Exporter, Settings, Stats};
pub use message::Moment;
pub use packet::{Addresses, Direction, Interface, Ip, Sample, Tag, Transport};

/// The port where collectors listen, if nothing else is said.
pub const PORT: u16 = 4739;

/// The most flows that are gathered at a time.
pub const MAX_FLOWS: usize = 65_536;

/// The most bytes of a virtual observation's name.
pub const MAX_VIRTUAL_ID: usize = 254;
