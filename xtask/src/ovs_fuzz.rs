use std::time::Duration;

use anyhow::Result;
use clap::Args;
use e2e::ovs_fuzz::{Effort, run as compare};
use e2e::peers::{Peer, are_there};

/// How `cargo xtask ovs-fuzz` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// How long to look
    #[arg(long, value_name = "N", default_value_t = 1)]
    minutes: u64,
    /// The seed of the first set of rules; that of each further one is one more
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many sets of rules to try at most
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    sets: u64,
    /// After how many packets to stop
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    packets: u64,
    /// How many differences to look for
    #[arg(long, value_name = "N", default_value_t = 1)]
    differences: usize,
    /// Of how many packets of a set the trace is compared, too
    #[arg(long, value_name = "N", default_value_t = 0)]
    traces: usize,
    /// How many pairs of switches to have compare at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    pairs: usize,
}

/// Compares the two; gives whether they did the same with everything.
pub fn run(options: &Options) -> Result<bool> {
    if !are_there(&[Peer::OvsDatabase, Peer::Netns]) {
        return Ok(true);
    }
    let dir = tempfile::tempdir()?;
    let effort = Effort {
        time: Duration::from_secs(options.minutes.saturating_mul(60)),
        sets: options.sets,
        packets: options.packets,
        seed: options.seed,
        differences: options.differences,
        traces: options.traces,
        pairs: options.pairs,
    };
    let report = compare(dir.path(), effort)?;
    for difference in &report.differences {
        println!("{difference}");
    }
    println!("{}\n{report}", report.coverage());
    Ok(report.differences.is_empty())
}
