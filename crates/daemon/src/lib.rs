//! What a switch is to be, and the way there.
//!
//! A [`State`] is everything that an operator decides: bridges, ports with their settings and
//! static addresses, vDPA devices, workers, the forwarding database. Whoever wants something else, be it
//! a configuration file or a command, writes another one, and a [`Daemon`] makes the difference
//! true, without touching what is the same in both.
//!
//! ```
//! use daemon::{Daemon, Missing, Options, Port, State};
//!
//! let mut daemon = Daemon::start(State::default(), Options::default())?;
//! daemon.edit(Missing::Refuse, |state| state.add_port("sink", Port::new("null:")))?;
//! let applied = daemon.edit(Missing::Refuse, |state| {
//!     state.port_mut("sink")?.enabled = false;
//!     Ok(())
//! })?;
//! assert_eq!(applied.changes[0].to_string(), "port sink: enabled true -> false");
//! assert!(daemon.switch().ports()[0].disabled);
//! # Ok::<(), daemon::Error>(())
//! ```
//!
//! - [`state`]: the desired state
//! - [`address`]: static addresses
//! - `bond`: bonds and their members
//! - [`bridge`](mod@bridge): bridges
//! - [`vdpa`](mod@vdpa): vDPA devices and their sockets
//! - [`check`](mod@check): what is wrong with a state, before anything is done
//! - [`diff`](mod@diff): from one state to another
//! - [`daemon`](mod@daemon): the reconciler
//! - [`waiting`]: what could not be opened yet
//! - [`hub`]: the vDPA devices that are attached to sockets
//! - [`file`]: a state as a TOML file
//! - [`edit`]: changes of such a file that keep its comments
//! - [`metrics`]: where figures are read
//! - `mirror`: mirrors in a state
//! - [`merge`](mod@merge): what a file has changed since it was read
//! - [`object`]: values of JSON as types
//! - [`error`]: what can go wrong
//! - `patch`: patch ports
//! - [`snoop`]: groups of IGMP and MLD
//! - `text`: values that are written as text
//! - `values`: TOML as the values that JSON has, and back

#![forbid(unsafe_code)]

pub mod address;
mod bond;
pub mod bridge;
pub mod check;
pub mod daemon;
pub mod diff;
pub mod edit;
pub mod error;
pub mod file;
pub mod hub;
pub mod merge;
pub mod metrics;
mod mirror;
pub mod object;
mod patch;
pub mod snoop;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
mod values;
pub mod vdpa;
pub mod waiting;

pub use address::Address;
pub use bridge::Bridge;
pub use daemon::{Applied, Daemon, Device, Missing, Options};
pub use diff::{Change, Diff, diff};
pub use edit::Edit;
pub use error::Error;
pub use hub::Hub;
pub use merge::merge;
pub use patch::OTHER_POLICY;
pub use snoop::McastSnooping;
pub use state::{Port, State};
pub use vdpa::Vdpa;
