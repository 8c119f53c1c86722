//! The command line of what programs that watch a switch read.

use clap::Args;
use daemon::metrics::{Endpoint, Metrics};
use eal::access::{parse_group, parse_mode};

/// Where figures are read.
#[derive(Clone, Debug, Default, Args)]
pub struct MetricsArgs {
    /// Have Prometheus and its like read all figures at this Unix socket (a path), or address of TCP
    /// (127.0.0.1:9477), by HTTP: GET /metrics.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<Endpoint>,

    /// Group whose processes may connect to that socket.
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub metrics_group: Option<u32>,

    /// Permissions of that socket [default: 0660 with a group, else as umask says].
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode)]
    pub metrics_mode: Option<u32>,
}

impl MetricsArgs {
    /// The same as a section of the file.
    pub fn section(&self) -> Metrics {
        let Self { metrics, metrics_group, metrics_mode } = self.clone();
        Metrics { address: metrics, group: metrics_group, mode: metrics_mode }
    }
}
