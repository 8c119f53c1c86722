//! What becomes of a packet, in the words of Open vSwitch: of its datapath, and of `ofproto/trace`.
//!
//! Open vSwitch makes of a packet's way through the tables a flow of its datapath: which packets go the
//! same way (a megaflow), and a list of actions. Here there are paths instead ([`flow::Path`]); but
//! people and their tests read the former. So a way can be followed by a [`flow::walk::Watch`] that
//! tells it in those words. Nothing of this is called where packets are forwarded.
//!
//! - [`action`]: actions of a datapath
//! - `commit`: from what a packet was to what rules have made of it
//! - `compose`: from a key to a frame
//! - `header`: headers as a datapath has them
//! - `kind`: what kind of packet it is
//! - `look`: which bits a look-up depends on
//! - `node`: lines, and what follows from each
//! - [`mod@parse`]: packets in the words of a datapath
//! - `seen`: which bits all of a way depends on
//! - [`told`]: packets in the words of `ofproto/trace`
//! - [`mod@trace`]: a packet's way, told
//! - `value`: values of fields

#![forbid(unsafe_code)]

pub mod action;
mod commit;
mod compose;
mod header;
mod kind;
mod look;
mod node;
pub mod parse;
mod seen;
pub mod told;
pub mod trace;
mod value;

pub use action::{Action, Actions};
pub use compose::compose;
pub use parse::{Parsed, parse, parse_hex};
pub use trace::{Normal, Outlet, Question, Told, World, trace};
