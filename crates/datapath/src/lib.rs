//! The data path of the virtual switch: all that frames pass between receive and transmit queues, and what
//! control threads say to it.
//!
//! A [`Worker`](worker::Worker) owns what it works with: its receive queues ([`inputs`]), its ways to send
//! ([`output`]), and its view of all bridges ([`bridge`]). Nobody else touches that. Who controls a switch
//! makes values of the types below and has a worker take them between two bursts, by a
//! [`Message`](worker::Message) in its [`Mailbox`](worker::Mailbox). What workers tell comes back as answers,
//! through [`inlet`]s (frames for the switch itself), in memory that they share with one reader
//! ([`capture`](mod@capture), [`sample`], [`mirror`]), and as counters.
//!
//! The way of a burst:
//!
//! - [`inputs`]: the receive queues of a worker
//! - [`limit`], [`guard`], [`trap`]: what a port may send, how much, and what of it is for the switch itself
//! - [`Datapath`]: from a burst of frames to the ports where they go out
//! - `header`: what the switch reads of a frame
//! - [`bridge`]: what a bridge decides about a burst of frames, with what it knows of VLANs ([`vlan`]),
//!   spanning tree ([`gate`]) and groups ([`snoop`])
//! - `stage`: what kinds of bridges do beside learning and looking up
//! - [`flows`]: bridges whose frames go by the rules of OpenFlow tables
//! - `outputs`: a worker's ways to all ports, and the verdicts on a burst; `marks`: the frames of a burst
//!   that go to one port
//! - [`patch`], [`tunnel`], [`bond`]: ports that are others: of another bridge, behind an IP network, or
//!   several as one
//! - [`output`]: one worker's way to send to a port; `share`: its share of a port's transmit queues;
//!   [`owners`]: who has those
//!
//! Who looks on:
//!
//! - [`capture`](mod@capture): what ports receive, send and drop
//! - [`mirror`]: copies for somebody who watches
//! - [`record`]: which packets have come in
//! - [`sample`]: of so many frames one, with where it goes
//!
//! And between control threads and workers:
//!
//! - [`worker`]: polls receive queues, sleeps, and does what messages say; `answer`: the answers to those
//! - [`inlet`]: what neighbours, hosts and routers say to the switch itself, on its way to control threads
//! - [`port_set`]: sets of ports
//! - `bench`: a worker without its thread, for measuring programs

#![forbid(unsafe_code)]

mod answer;
#[doc(hidden)]
pub mod bench;
pub mod bond;
pub mod bridge;
pub mod capture;
mod datapath;
pub mod flows;
pub mod gate;
pub mod guard;
mod header;
pub mod inlet;
pub mod inputs;
pub mod limit;
mod marks;
pub mod mirror;
pub mod output;
mod outputs;
pub mod owners;
pub mod patch;
pub mod port_set;
pub mod record;
pub mod sample;
mod segments;
mod share;
pub mod snoop;
mod stage;
pub mod trap;
pub mod tunnel;
pub mod vlan;
pub mod worker;

pub use crate::datapath::{Datapath, trace};
pub use answer::{Answer, Awaited};
