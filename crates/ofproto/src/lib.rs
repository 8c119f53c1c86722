//! An OpenFlow switch as a value, without I/O: what comes in on connections goes into a [`Bridge`],
//! which puts answers, and what it tells unasked, into the connections' outboxes.
//!
//! ```
//! use std::time::Instant;
//!
//! use ofproto::{Bridge, Detached, Origin, Settings};
//! use openflow::message::{Kind, Message, Raw, hello::Hello};
//! use openflow::{Version, VersionSet};
//!
//! let mut bridge = Bridge::new(Settings { datapath_id: 7, ..Settings::default() });
//! let now = Instant::now();
//! let controller = bridge.connect(Origin::Service, 1 << 20);
//! bridge.receive(controller, &Hello { versions: VersionSet::ALL }.encode(1), &mut Detached::default(), now)?;
//! let request = Message::new(Version::V15, Kind::FeaturesRequest, 2).finish();
//! bridge.receive(controller, &request, &mut Detached::default(), now)?;
//! // Its own HELLO, and the answer.
//! let _hello = bridge.take(controller).ok_or("a HELLO")?;
//! let answer = bridge.take(controller).ok_or("an answer")?;
//! assert_eq!(Raw::read(&answer)?.kind, Kind::FeaturesReply);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`bridge`]: the switch
//! - [`connection`]: what it knows of a connection
//! - [`datapath`]: what forwards
//! - `handle`: answers to messages
//! - [`in_band`]: controllers that are reached through the bridge itself
//! - `monitor`: who is told of changes of rules
//! - [`port`]: its ports
//! - [`rate`]: how many packets controllers are told of
//! - [`table`]: how its tables are set
//! - `tally`: how many changes of rules a controller has made
//! - `tlv`: options of tunnels as fields

#![forbid(unsafe_code)]

pub mod bridge;
pub mod connection;
pub mod datapath;
mod handle;
pub mod in_band;
mod monitor;
pub mod port;
pub mod rate;
pub mod table;
mod tally;
mod tlv;

pub use bridge::{BUNDLE_TIMEOUT, Bridge, Closed, Job, Settings};
pub use connection::{ConnectionId, Origin};
pub use datapath::{Datapath, Detached, PacketOut, Received, Resumed};
pub use port::Port;
pub use rate::{Manner, Rate};
pub use table::TableConfig;
