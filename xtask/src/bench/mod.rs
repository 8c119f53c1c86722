use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::peers::workspace;
use e2e::process::run as output_of;
use e2e::{Peer, require};

use self::back_end::BackEnd;
use self::cell::{Cell, Mergeable, Ring, Size};
use self::report::{Report, Row};

/// What is measured, in turn.
mod back_end;
/// What the guests are like.
mod cell;
/// How costs grow.
mod growth;
/// Packets per second between PCI devices of a guest.
mod guest;
/// Between interfaces of the host, compared with the kernel's bridge.
mod kernel;
/// Round-trip times at shares of the capacity.
mod latency;
/// Bridges that Open vSwitch's tools have set up, compared with OVS-DPDK.
mod openflow;
/// Figures as SVG.
mod plot;
/// Medians, ratios and tables.
mod report;

/// How `cargo xtask bench` measures.
#[derive(Debug, Args)]
pub struct Options {
    /// Bytes per frame without FCS, or `mix`
    #[arg(long = "sizes", value_name = "LIST", value_delimiter = ',', value_parser = Size::parse,
        default_value = "64,256,512,1500,mix")]
    sizes: Vec<Size>,
    /// Formats of the rings
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "split,packed")]
    rings: Vec<Ring>,
    /// Whether receive buffers may be merged
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "on,off")]
    mergeable: Vec<Mergeable>,
    /// Queue pairs of each guest
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4")]
    queues: Vec<u16>,
    /// Rounds; every back-end is measured once in each, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only back-ends whose name contains NAME; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Of the part `openflow` only bridges whose name contains NAME; may be repeated
    #[arg(long = "bridge", value_name = "NAME")]
    bridges: Vec<String>,
    /// Of the part `openflow` only these numbers of packet flows
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,256,32768")]
    packet_flows: Vec<u32>,
    /// Another testpmd to measure; may be repeated
    #[arg(long, value_name = "PATH")]
    testpmd: Vec<PathBuf>,
    /// Parts to measure
    #[arg(long, value_name = "LIST", value_delimiter = ',',
        default_value = "matrix,latency,growth,flows,openflow,kernel,guest",
        value_parser = ["matrix", "latency", "growth", "flows", "openflow", "kernel", "guest"])]
    parts: Vec<String>,
    /// Have the parts growth and flows built as the tests are, without LTO: in a minute
    #[arg(long)]
    as_tested: bool,
    /// Write the tables and plots of these parts into docs/performance.md and docs/plots
    #[arg(long)]
    write: bool,
    /// Print the figures as JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Measures and prints; what has been measured is written even when a later part fails.
pub fn run(options: &Options) -> Result<bool> {
    let asked = |part: &str| options.parts.iter().any(|name| name == part);
    let dpdk = ["matrix", "latency", "openflow", "guest"].into_iter().any(asked);
    let needed = [
        (Peer::Dpdk, dpdk),
        (Peer::Ovs, asked("openflow")),
        (Peer::Netns, asked("kernel") || asked("openflow")),
        (Peer::Guest, asked("guest")),
    ];
    let needed = needed.iter().filter(|(_, needed)| *needed).map(|(peer, _)| *peer);
    let peers: Vec<Peer> = needed.collect();
    let Some(_turn) = require(&peers) else { bail!("this needs {peers:?}") };
    let mut report = Report::new();
    let result = measure(options, &mut report);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        println!("\n{}", report.markdown());
    }
    if options.write {
        report.write()?;
    }
    result.map(|()| true)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let asked = |part: &str| options.parts.iter().any(|name| name == part);
    let back_ends: Vec<BackEnd> = BackEnd::all(&options.testpmd)
        .into_iter()
        .filter(|back_end| {
            let name = back_end.name();
            options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()))
        })
        .collect();
    if asked("matrix") {
        matrix(options, &back_ends, report)?;
    }
    if asked("latency") {
        report.latency = latency::run(&back_ends, options.rounds)?;
    }
    if asked("growth") {
        report.growth = growth::run("growth", options.rounds, options.as_tested)?;
    }
    if asked("flows") {
        report.flows = growth::run("flow-growth", options.rounds, options.as_tested)?;
    }
    if asked("openflow") {
        let rows = openflow::rows(&options.bridges, &options.packet_flows);
        let kinds = openflow::kinds(&options.only);
        openflow::run(rows, &kinds, options.rounds, options.seconds, &mut report.openflow)?;
    }
    if asked("kernel") {
        report.kernel = kernel::run(options.rounds, options.seconds)?;
    }
    if asked("guest") {
        report.guest = guest::run(options.rounds, options.seconds)?;
    }
    Ok(())
}

/// Every back-end once per round, in turn, so that a slow moment of the machine hits all alike.
fn matrix(options: &Options, back_ends: &[BackEnd], report: &mut Report) -> Result<()> {
    let cells = cells(options);
    let (all, started) = (cells.len() * options.rounds, Instant::now());
    for (index, cell) in cells.into_iter().enumerate() {
        let mut samples = vec![Vec::new(); back_ends.len()];
        for round in 0..options.rounds {
            progress(&format!("{cell}"), index * options.rounds + round, all, started);
            for (back_end, samples) in back_ends.iter().zip(&mut samples) {
                let time = Duration::from_secs(options.seconds);
                let sample = back_end.measure(cell, time);
                samples.push(sample.with_context(|| format!("{cell}: {}", back_end.name()))?);
            }
        }
        for (back_end, samples) in back_ends.iter().zip(samples) {
            report.rows.push(Row { cell, back_end: back_end.name(), samples });
        }
    }
    Ok(())
}

fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &queues in &options.queues {
        for &mergeable in &options.mergeable {
            for &ring in &options.rings {
                let cell = |&size| Cell { size, ring, mergeable, queues };
                cells.extend(options.sizes.iter().map(cell));
            }
        }
    }
    cells
}

/// Says on standard error how far it has come and how long the rest will take.
fn progress(what: &str, done: usize, all: usize, started: Instant) {
    let left = match u32::try_from(done) {
        Ok(done @ 1..) => {
            let rest = u32::try_from(all).unwrap_or(done).saturating_sub(done);
            let left = started.elapsed() * rest / done;
            format!(", {} min {} s left", left.as_secs() / 60, left.as_secs() % 60)
        }
        _ => String::new(),
    };
    eprintln!("[{}/{all}] {what}{left}", done + 1);
}

/// The packages that are built as releases are, always together: the features of one of them alone
/// would have cargo build what they need once more.
pub const RELEASED: [&str; 4] = ["--package", "ringway", "--package", "ringway-benches"];

/// Builds a program of the package `ringway-benches` as releases are built; gives its path.
pub fn build(program: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(["build", "--release"]).args(RELEASED);
    command.args(["--bin", program]);
    executable(command)
}

/// Builds what a command of cargo says; gives the path of the program.
pub fn executable(mut command: Command) -> Result<PathBuf> {
    output_of(command.arg("--message-format=json"))?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no executable")
}
