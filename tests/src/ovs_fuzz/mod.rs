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
/// Packets at random.
mod frame;
/// Groups at random.
mod group;
/// The two switches.
mod lab;
/// Rules that are changed between packets.
mod later;
/// Rules at random.
mod rule;
/// Rules of another bridge.
mod second;
/// A case that differs, as small as it gets.
mod shrink;
/// What a trace says.
mod told;
/// Commands of ovs-appctl.
mod unixctl;
/// Values of fields that rules and packets have in common.
mod values;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::both::{Both, IMPATIENCE, PATIENCE};
use self::case::Case;

/// How often is told how far it is.
const PROGRESS: Duration = Duration::from_secs(20);

/// What has been found.
#[derive(Debug, Default)]
pub struct Report {
    /// Sets of rules that were tried.
    pub sets: u64,
    /// Packets that were.
    pub packets: u64,
    /// Rules that both refused.
    pub refused: u64,
    /// Sets of rules that made Open vSwitch end.
    pub ended: u64,
    /// Sets with which Open vSwitch did for a packet what it had found out for another one.
    pub mistaken: u64,
    /// Differences, each as text that says how to have it again.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sets, packets, refused, ended, mistaken, differences } = self;
        let found = differences.len();
        write!(
            f,
            "{packets} packets by {sets} sets of rules (both refused {refused} rules, \
             Open vSwitch crashed with {ended} sets more, and took packets for others with {mistaken}): \
             {found} sets differ"
        )
    }
}

/// How long, and with what, to look for differences.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// When to stop, but for the set of rules that is being tried.
    pub time: Duration,
    /// The most sets of rules.
    pub sets: u64,
    /// The seed of the first set; that of each further one is one more.
    pub seed: u64,
    /// How many sets may differ until it stops.
    pub differences: usize,
    /// Of how many packets of a set the way is asked for, as text.
    pub traces: usize,
}

/// Looks for differences, in a folder of its own for each switch.
///
/// # Errors
/// A switch does not come up, or does not answer, or ours ends.
pub fn run(dir: &Path, effort: Effort) -> Result<Report> {
    let mut both = Both::start(dir, effort.traces)?;
    let mut report = Report::default();
    let (begin, mut told) = (Instant::now(), Instant::now());
    for seed in (effort.seed..).take(usize::try_from(effort.sets)?) {
        if begin.elapsed() >= effort.time || report.differences.len() >= effort.differences {
            break;
        }
        if let Err(error) = report.take(&mut both, seed) {
            // What makes Open vSwitch end is its own matter.
            if !both.real.has_ended() {
                return Err(error);
            }
            report.ended += 1;
            both = Both::start(&dir.join(seed.to_string()), effort.traces)?;
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("up to seed {seed}, in {} s: {report}", begin.elapsed().as_secs());
        }
    }
    Ok(report)
}

impl Report {
    /// Tries the set of rules of a seed.
    fn take(&mut self, both: &mut Both, seed: u64) -> Result<()> {
        let mut case = Case::new(seed);
        let found = both.agree(&mut case);
        let found = found.inspect_err(|error| eprintln!("{case}\nseed {seed}: {error:#}"))?;
        self.sets += 1;
        self.packets += case.count() as u64;
        self.refused += found.refused;
        self.mistaken += u64::from(found.is_mistaken);
        let Some(difference) = found.difference else { return Ok(()) };
        eprintln!("seed {seed} differs, and is made smaller:\n{difference}");
        // There are many cases then, and most that differ do so for good.
        both.patience = IMPATIENCE;
        let (case, difference) = shrink::shrink(both, case, difference)?;
        both.patience = PATIENCE;
        let text = format!("--seed {seed}\n{case}{difference}");
        eprintln!("as small as it gets:\n{text}");
        self.differences.push(text);
        Ok(())
    }
}
