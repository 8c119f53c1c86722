//! What becomes of a packet, in the words of Open vSwitch: of its datapath, and of `ofproto/trace`.
//!
//! Open vSwitch makes of a packet's way through the tables a flow of its datapath: which packets go the
//! same way (a megaflow), and a list of actions. Here there are paths instead ([`flow::Path`]); but
//! people and their tests read the former. So a way can be followed by a [`flow::walk::Watch`] that
//! tells it in those words. Nothing of this is called where packets are forwarded.
//!
//! ```
//! let packet = "in_port(1),eth(src=52:54:00:00:00:01,dst=52:54:00:00:00:02),eth_type(0x0800),\
//!               ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,ttl=64),udp(src=1000,dst=53)";
//! let parsed = odp::parse(packet)?;
//! assert_eq!(parsed.in_port.as_deref(), Some("1"));
//! // The frame that it is, with all checksums right.
//! let frame = odp::compose(&parsed.key, None);
//! assert_eq!(frame.get(34..38), Some(&[0x03, 0xe8, 0, 53][..]));
//! # Ok::<(), String>(())
//! ```
//!
//! - [`action`]: actions of a datapath
//! - `commit`: from what a packet was to what rules have made of it
//! - `compose`: from a key to a frame
//! - `edited`: a frame as rules have made it
//! - [`flows`]: the flows that a datapath would have
//! - `header`: headers as a datapath has them
//! - `kind`: what kind of packet it is
//! - `look`: which bits a look-up depends on
//! - [`masked`]: a flow's packets in the words of a datapath
//! - `node`: lines, and what follows from each
//! - `nsh`: network service headers
//! - [`mod@parse`]: packets in the words of a datapath
//! - `seen`: which bits all of a way depends on
//! - [`told`]: packets in the words of `ofproto/trace`
//! - [`mod@trace`]: a packet's way, told
//! - `tunnel`: tunnels in the words of a datapath
//! - `value`: values of fields

#![forbid(unsafe_code)]

mod abilities;
pub mod action;
mod commit;
mod compose;
mod edited;
pub mod flows;
mod header;
mod kind;
mod look;
pub mod masked;
mod node;
mod nsh;
pub mod parse;
mod seen;
pub mod told;
pub mod trace;
mod tunnel;
mod value;

pub use abilities::Abilities;
pub use action::{Action, Actions};
pub use compose::compose;
pub use edited::edited;
pub use flows::{Flow, Flows};
pub use masked::Masked;
pub use parse::{Parsed, parse, parse_hex};
pub use trace::{MirrorCopy, Normal, Outlet, Protocol, Question, Told, World, resume, trace};
pub use tunnel::{IntoTunnel, Push, TunnelWay};
