//! OpenFlow 1.0 to 1.5 with Open vSwitch's extensions: what is in its messages, and how people write
//! it. There is no input or output in here.
//!
//! ```
//! use openflow::{Action, Field, Instructions, Match, PortNo};
//!
//! // All IPv4 packets from 10.0.0.0/8 to TCP port 80 go to port 2.
//! let matching = Match::new()
//!     .with(Field::EthType, 0x0800)
//!     .with(Field::IpProto, 6)
//!     .with_masked(Field::IpSrc, 0x0A00_0000, 0xFF00_0000)
//!     .with(Field::TcpDst, 80);
//! let instructions = Instructions::apply(vec![Action::output(PortNo(2))]);
//! assert_eq!(matching.exact(Field::TcpDst), Some(80));
//! assert_eq!(matching.get(Field::IpSrc), Some((0x0A00_0000, 0xFF00_0000)));
//! assert!(!instructions.is_empty());
//! ```
//!
//! - [`action`]: what becomes of a packet
//! - [`mod@error`]: errors that a switch answers with
//! - [`experimenter`]: whose extensions are known
//! - [`field`]: what of a packet can be matched on and written
//! - [`framing`]: messages in a stream of bytes
//! - [`instruction`]: what a flow does with a packet at its table
//! - [`matching`]: which packets a flow is for
//! - [`message`]: messages, and what they say
//! - [`packet_in`]: packets that go to controllers
//! - `port_no`: numbers of ports
//! - [`print`]: whole messages as people read them
//! - `testing`: messages at random, for tests
//! - [`text`]: what people write
//! - [`version`]: versions of the protocol
//! - [`wire`]: reading and writing of fields

#![forbid(unsafe_code)]

pub mod action;
pub mod error;
pub mod experimenter;
pub mod field;
pub mod framing;
pub mod instruction;
pub mod matching;
pub mod message;
pub mod packet_in;
mod port_no;
pub mod print;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod version;
pub mod wire;

pub use action::Action;
pub use error::{ErrorCode, ErrorMessage};
pub use field::{Field, Subfield};
pub use instruction::Instructions;
pub use matching::Match;
pub use port_no::PortNo;
pub use version::{Version, VersionSet};
