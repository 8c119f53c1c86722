//! Arguments of `ringway gen`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use eal::CoreList;

use super::{ConfineArgs, HeaderArgs, devices_help, number, parse_interval, rfc2544};
use crate::generate::rate::Rate;
use crate::generate::size::SizeMix;
use crate::generate::stamp::MAX_FLOWS;
use crate::generate::topology::Topology;

/// Arguments of `ringway gen`.
#[derive(Clone, Debug, Args)]
pub struct GenArgs {
    /// What to do with the traffic.
    #[arg(value_enum)]
    pub mode: Mode,

    /// Device to use; several of them, each with its own --port, send to each other.
    #[arg(short, long = "port", value_name = "DEVICE", required = true)]
    pub ports: Vec<String>,

    /// Second device: where io sends to, and where flowgen and latency expect their frames back.
    #[arg(long, value_name = "DEVICE")]
    pub port2: Option<String>,

    /// Who sends to whom among several devices [default: pairs].
    #[arg(long, value_enum, value_name = "TOPOLOGY")]
    pub topology: Option<Topology>,

    /// Bytes per frame without frame check sequence: a number, a mix SIZE:WEIGHT,.. or imix.
    #[arg(short, long, value_name = "SIZE|MIX", default_value = "64")]
    pub size: SizeMix,

    /// Number of flows, which differ in IP address and port, or as the ranges of the headers say
    /// [default: as many as these make; without any 1, flowgen: 1024].
    #[arg(short, long, value_name = "N", value_parser = number(1..=MAX_FLOWS))]
    pub flows: Option<u32>,

    /// Frames per second, as 50k or 1.5M, or bits per second, as 10Gbit [default: all that goes;
    /// latency: 100k]; in io each way, of several devices each.
    #[arg(short, long, value_name = "RATE")]
    pub rate: Option<Rate>,

    /// Frames that leave at a time, as fast as it goes; the rate stays what it is.
    #[arg(long, value_name = "N", requires = "rate", value_parser = number(1..=1_000_000_u32))]
    pub burst: Option<u32>,

    /// Rate to begin with, from which it changes evenly to --rate.
    #[arg(long, value_name = "RATE", requires = "rate")]
    pub ramp_from: Option<Rate>,

    /// Seconds that this takes [default: --duration].
    #[arg(long, value_name = "SECS", requires = "ramp_from", value_parser = parse_interval)]
    pub ramp_time: Option<Duration>,

    /// Seconds to run [default: until Ctrl-C, or until --count].
    #[arg(short, long, value_name = "SECS", value_parser = parse_interval)]
    pub duration: Option<Duration>,

    /// Frames to send; in rxonly and io to receive; in back-to-back of the longest burst.
    #[arg(short = 'n', long, value_name = "N", value_parser = number(1_u64..))]
    pub count: Option<u64>,

    /// Cores for the threads, one per queue pair [default: wherever the kernel likes].
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// Do not fill frames with a pattern that the receiver checks: headers are checked anyway.
    #[arg(long)]
    pub no_pattern: bool,

    /// How long to wait for the device's link before starting.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = parse_interval)]
    pub wait_link: Duration,

    /// What headers frames have.
    #[command(flatten)]
    pub headers: HeaderArgs,

    /// What the benchmarks try.
    #[command(flatten)]
    pub rfc2544: rfc2544::Rfc2544Args,

    /// File for all latencies: .csv, or .hgrm as HdrHistogram's tools read it.
    #[arg(long, value_name = "FILE")]
    pub histogram: Option<PathBuf>,

    /// File for a report with plots, in HTML.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Print JSON: one object per second, or trial, and the summary as the last.
    #[arg(long)]
    pub json: bool,

    /// What it gives up.
    #[command(flatten)]
    pub confine: ConfineArgs,
}

/// Modes of `ringway gen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Send; what is received is dropped without a look.
    Txonly,
    /// Receive and count; frames of another ringway gen are checked.
    Rxonly,
    /// Send many flows, and check what comes back.
    Flowgen,
    /// Forward frames unchanged between the two devices, or back out of the same one.
    Io,
    /// Send frames with time stamps and measure how long they take to come back.
    Latency,
    /// Search for the highest rate without loss, size by size (RFC 2544, 26.1).
    Throughput,
    /// Search for the longest burst at full speed without loss (RFC 2544, 26.4).
    BackToBack,
}

/// What `--help` says after the options.
pub(super) fn help() -> String {
    format!(
        "\
Devices:
{}
Examples:
  Flood a switch's port with small frames for ten seconds:
    ringway gen txonly --port virtio-user:/run/vm1.sock --duration 10

  Latency through a switch, at 200,000 frames per second:
    ringway gen latency --port virtio-user:/run/vm1.sock --port2 virtio-user:/run/vm2.sock \\
      --rate 200k --duration 10

  The highest rate without loss for each size of frames (RFC 2544):
    ringway gen throughput --port virtio-user:/run/vm1.sock --port2 virtio-user:/run/vm2.sock

  Have a switch learn 100,000 addresses, in an order that looks random, for as long as this runs:
    ringway gen txonly --port virtio-user:/run/vm1.sock --src-mac 02:00:00:00:00:00+100000 \\
      --order random --rate 1M

  TCP over IPv6 in 100 VLANs:
    ringway gen txonly --port virtio-user:/run/vm1.sock --vlan 100+100 --ipv6 \\
      --protocol tcp --size 100

  From a thousand frames per second to a million, 64 at a time, with plots of what came of it:
    ringway gen flowgen --port virtio-user:/run/vm1.sock --port2 virtio-user:/run/vm2.sock \\
      --ramp-from 1k --rate 1M --burst 64 --duration 30 --report ramp.html

  Each of three guests to each other:
    ringway gen flowgen --port virtio-user:/run/vm1.sock --port virtio-user:/run/vm2.sock \\
      --port virtio-user:/run/vm3.sock --topology mesh --rate 100k

  1000 frames of mixed sizes into a file:
    ringway gen txonly --port pcap:,tx=out.pcap --size imix --count 1000

Latency counts from the moment at which a frame was due, not from when the sender got round to
it, so that a stall shows in every frame that it held up (no coordinated omission).

Exit status: 1 when something failed or a frame arrived damaged, 2 for wrong arguments.",
        devices_help()
    )
}
