//! Protocols by which a switch and its neighbours agree, as values: spanning tree, link aggregation, link
//! layer discovery, and those by which both ends of a link find out whether it does. They read no clock, have
//! no ports and send nothing: whoever runs one tells it the time and what was heard, and sends what it asks
//! for.
//!
//! ```
//! use l2proto::rstp::{bpdu, tree::{Link, Tree}};
//! use l2proto::{PortRstp, Rstp, RstpRole, RstpVersion};
//! use packet::MacAddr;
//!
//! // A bridge with one port, which hears of a better one behind it: that is the root.
//! let own = |last| Rstp::default().settings(MacAddr([2, 0, 0, 0, 0, last]));
//! let settings = |port| PortRstp::default().settings(port, None, RstpVersion::Rstp);
//! let link = |port| Link { port, settings: settings(port), is_up: true };
//! let (mut better, mut bridge) = (Tree::new(own(1)), Tree::new(own(2)));
//! bridge.update(&[link(7)]);
//! better.update(&[link(3)]);
//! for (_, message) in better.take().send {
//!     let frame = message.frame(MacAddr([2, 0, 0, 0, 0, 1]));
//!     bridge.hear(7, &bpdu::parse(&frame).ok_or("no message")?);
//! }
//! assert_eq!(bridge.root().bridge, own(1).name);
//! assert_eq!(bridge.root_port(), Some(7));
//! assert!(bridge.ports().all(|(_, port)| port.role() == RstpRole::Root));
//! # Ok::<(), &str>(())
//! ```
//!
//! - [`bfd`]: by which two systems tell each other that they hear each other (bidirectional forwarding
//!   detection)
//! - [`cfm`]: by which maintenance points of a link do (connectivity fault management)
//! - [`lacp`]: by which bonds agree with their neighbours
//! - [`lldp`]: by which neighbours tell each other who they are
//! - [`names`]: settings that have names
//! - [`rstp`]: by which bridges agree on one way between any two stations

#![forbid(unsafe_code)]

pub mod bfd;
pub mod cfm;
pub mod lacp;
pub mod lldp;
pub mod names;
pub mod rstp;

pub use bfd::session::Session as BfdSession;
pub use bfd::{Bfd, BfdReport, BfdSide, BfdState, MAX_INTERVAL as MAX_BFD_INTERVAL};
pub use cfm::session::Session as CfmSession;
pub use cfm::{Cfm, CfmReport};
pub use lacp::PortLacp;
pub use lldp::{LldpMode, LldpReport, Neighbour};
pub use rstp::{PortRstp, Rstp, RstpRole, RstpState, RstpVersion};
