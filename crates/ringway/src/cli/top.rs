//! Arguments of `ringway top`.

use std::time::Duration;

use clap::Args;

use super::{ControlArgs, number, parse_interval};
use crate::top::View;

/// Arguments of `ringway top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// What to look at first.
    #[arg(value_enum, default_value = "ports")]
    pub view: View,

    /// Seconds between two looks; + and - change it.
    #[arg(short, long, value_name = "SECS", default_value = "1", value_parser = parse_interval)]
    pub interval: Duration,

    /// Column to sort by, as rx-pps, drop-s or port [default: what is busiest first].
    #[arg(short, long, value_name = "COLUMN")]
    pub sort: Option<String>,

    /// Sort the other way round: the smallest number first.
    #[arg(short, long, requires = "sort")]
    pub reverse: bool,

    /// Show only rows with these words: in a name, device, VMM or address, or up, down.
    #[arg(short, long, value_name = "WORDS")]
    pub filter: Option<String>,

    /// Print one table with the rates of one interval, and end.
    #[arg(long, conflicts_with = "batch")]
    pub once: bool,

    /// Print a table after each interval instead of filling the screen.
    #[arg(short, long)]
    pub batch: bool,

    /// Tables to print [default: until Ctrl-C].
    #[arg(short = 'n', long, value_name = "N", requires = "batch", value_parser = number(1_u64..))]
    pub count: Option<u64>,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl TopArgs {
    /// Tables to print, if it is tables that are wanted.
    pub fn rounds(&self) -> Option<u64> {
        match (self.once, self.batch) {
            (true, _) => Some(1),
            (false, true) => Some(self.count.unwrap_or(u64::MAX)),
            (false, false) => None,
        }
    }
}
