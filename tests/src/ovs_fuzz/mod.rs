//! The same rules and packets into Debian's Open vSwitch and into ours: what comes out of which port,
//! and what rules count, has to be the same.
//!
//! Rules and packets are made at random, the same ones for the same seed: [`run`]. One set of rules
//! is for many packets, since packets are what costs least.

/// Both switches side by side.
mod both;
/// Frames that a port has sent.
mod capture;
/// A set of rules and its packets.
mod case;
/// OpenFlow as a controller speaks it.
mod channel;
/// Packets of connections, and rules that track them.
mod connection;
/// What rules that have counted packets match on and do.
mod coverage;
/// Packets at random.
mod frame;
/// Groups at random.
mod group;
/// The two switches.
mod lab;
/// Rules that are changed between packets.
mod later;
/// What has been tried, and with what.
mod report;
/// Rules at random.
mod rule;
/// Rules of another bridge.
mod second;
/// A case that differs, as small as it gets.
mod shrink;
/// Pairs of switches that compare at the same time.
mod team;
/// What a trace says.
mod told;
/// Commands of ovs-appctl.
mod unixctl;
/// Values of fields that rules and packets have in common.
mod values;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

pub use self::report::Report;

/// How long, and with what, to look for differences.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// When to stop, but for the sets of rules that are being tried.
    pub time: Duration,
    /// The most sets of rules.
    pub sets: u64,
    /// After how many packets to stop, likewise.
    pub packets: u64,
    /// The seed of the first set; that of each further one is one more.
    pub seed: u64,
    /// How many sets may differ until it stops.
    pub differences: usize,
    /// Of how many packets of a set the way is asked for, as text.
    pub traces: usize,
    /// How many pairs of switches compare at the same time.
    pub pairs: usize,
}

/// Looks for differences, in a folder of its own for each switch.
///
/// # Errors
/// A switch does not come up, or does not answer, or ours ends.
pub fn run(dir: &Path, effort: Effort) -> Result<Report> {
    team::run(dir, effort)
}
