//! Connection tracking: which packets belong to which connection, and what state that is in.
//!
//! - `dissect`: what of a packet says which connection it is of
//! - `tuple`: what packets of a connection have in common
//! - `state`: what is known of a packet, and what is to be done with its connection
//! - `nat`: which addresses and ports connections are translated to
//! - `tcp`: states and windows of TCP
//! - `fragments`: those that wait until all of their packet are there
//! - `timeout`: how long connections are kept
//! - `conn`: a connection
//! - `beside`: what few connections have
//! - `helper`: protocols whose connections announce others
//! - `ftp`: what packets of FTP announce
//! - `expect`: connections that are announced
//! - `hints`: which of them there may be, told without a lock
//! - `numbers`: sequence numbers of packets that become longer or shorter
//! - `shard`: a part of all connections
//! - `zones`: how many connections zones may have
//! - `table`: all connections
//! - `lane`: what one worker knows of them
//!
//! Packets of an established connection take no lock and no atomic operation that reads and writes: a
//! worker has the connections at hand that its packets are of, and their states are loaded and stored
//! (decision 47). Fragments of a packet are judged together (decision 63).
//!
//! ```
//! use std::sync::Arc;
//! use conntrack::{Conntrack, Lane, Request, State, dissect};
//! use packet::{MacAddr, builder::FrameBuilder};
//!
//! let all = Arc::new(Conntrack::default());
//! let mut lane = Lane::new(Arc::clone(&all));
//! let mut track = |from: [u8; 4], to: [u8; 4], request: &Request| {
//!     let frame = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6])).ip(from, to).udp(53, 53);
//!     let frame = frame.payload(b"?").build().unwrap();
//!     let packet = &frame[14..];
//!     let seen = dissect(0x0800, packet, packet.len(), request.zone);
//!     lane.track(seen.as_ref(), request, 0).state
//! };
//!
//! let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
//! let (look, keep) = (Request::default(), Request { commit: true, ..Request::default() });
//! assert_eq!(track(one, other, &look), State::NEW | State::TRACKED);
//! assert_eq!(track(other, one, &look), State::NEW | State::TRACKED, "none was kept yet");
//! assert_eq!(track(one, other, &keep), State::NEW | State::TRACKED);
//! assert_eq!(track(other, one, &look), State::ESTABLISHED | State::REPLY | State::TRACKED);
//! assert_eq!((all.count(), all.flush(None)), (1, 1));
//! ```

#![forbid(unsafe_code)]

mod beside;
mod conn;
mod dissect;
mod expect;
mod fragments;
mod ftp;
mod helper;
mod hints;
mod lane;
mod nat;
mod numbers;
mod shard;
mod state;
mod table;
mod tcp;
mod timeout;
mod tuple;
mod zones;

pub use conn::Entry;
pub use dissect::{Seen, carried, dissect};
pub use fragments::{
    Fate, Fragment, FragmentCounts, FragmentStatus, FragmentVersion, Fragments, Refused, Way, Whole,
};
pub use helper::{Helper, Overheard};
pub use lane::Lane;
pub use nat::{Nat, NatEnd};
pub use numbers::{Adjustment, Replacement, Skew};
pub use state::{Request, State, Tracked, Translation};
pub use table::{Conntrack, DEFAULT_LIMIT};
pub use tcp::{Segment, TcpState};
pub use timeout::{Stage, Timeouts};
pub use tuple::Tuple;
pub use zones::ZoneLimit;

#[cfg(test)]
mod tests;
