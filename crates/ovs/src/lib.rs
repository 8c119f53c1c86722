//! A switch that is configured by Open vSwitch's database, in place of ovs-vswitchd.
//!
//! The [`Agent`] is a writer of the desired state, as a configuration file is one: it watches
//! the tables `Bridge`, `Port` and `Interface`, makes a [`State`](daemon::State) of them, and
//! writes back what has come of it, so that `ovs-vsctl` and all others that wait for that go on.
//!
//! What columns mean is functions of rows without the database, as this one:
//!
//! ```
//! use ovs::content::Policing;
//! use switch::limit::Bits;
//!
//! // ovs-vsctl set interface vm1 ingress_policing_rate=10000
//! let row = Policing { rate: 10_000, ..Policing::default() };
//! let limits = ovs::policing::limits(&row, None)?;
//! assert_eq!(limits.rx_rate, Some(Bits(10_000_000)));
//! # Ok::<(), String>(())
//! ```
//!
//! - [`agent`]: the connection of both
//! - [`content`]: what the database says
//! - [`controller`]: controllers of bridges
//! - [`desired`]: what the switch is to be by that
//! - [`device`]: types of interfaces
//! - [`bond`]: settings of bonds
//! - [`mod@export`]: what collectors are told
//! - [`import`]: a configuration file from the database of a switch that is left
//! - [`vlan`]: VLAN settings of ports
//! - [`mirror`]: mirrors of bridges
//! - [`pmd`]: workers and the queues that they poll
//! - [`policing`]: limits of interfaces
//! - `shaping`: what goes out by the kernel's queueing discipline
//! - [`snoop`]: snooping of bridges and ports
//! - [`spanning`]: spanning tree of bridges and ports
//! - [`numbers`]: OpenFlow port numbers
//! - `pairs`: names and numbers, found by either
//! - [`refused`]: that the database takes no news
//! - [`report`]: what is written back
//! - [`watch`]: how links of interfaces are watched
//! - [`unixctl`]: the socket of `ovs-appctl`

#![forbid(unsafe_code)]

pub mod agent;
pub mod bond;
pub mod connections;
pub mod content;
pub mod controller;
pub mod desired;
pub mod device;
pub mod export;
pub mod features;
pub mod import;
pub mod mirror;
pub mod numbers;
mod pairs;
pub mod pmd;
pub mod policing;
pub mod refused;
pub mod report;
mod shaping;
pub mod snoop;
pub mod spanning;
pub mod unixctl;
pub mod vlan;
pub mod watch;
pub mod zones;

pub use agent::news::interface_names;
pub use agent::{Agent, Settings};
pub use content::Content;
pub use desired::Desired;
