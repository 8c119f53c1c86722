use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::bridge::Bridge;
use self::switch::{Kind, Running};
use self::traffic::Traffic;
use super::back_end::{Sample, sample};
use super::progress;

/// What bridges are told.
pub mod bridge;
/// Who forwards.
pub mod switch;
/// Ratios and tables.
pub mod table;
/// What is forwarded.
mod traffic;

/// The number of flows of packets that the plot is of.
pub const SHOWN: u32 = traffic::ROUND;

/// Rings of a port.
const RINGS: usize = 2;

/// What both switches took for the same frames by the same bridge.
#[derive(Debug, Clone)]
pub struct Row {
    pub bridge: Bridge,
    /// Flows of packets, in each direction.
    pub flows: u32,
    /// Of every round.
    pub ovs: Vec<Sample>,
    pub ringway: Vec<Sample>,
}

/// Both switches by each bridge once per round, in turn, so that a slow moment of the machine hits both
/// alike. What has been measured is in `measured` even when a later one fails.
pub fn run(rounds: usize, seconds: u64, measured: &mut Vec<Row>) -> Result<()> {
    let rows: Vec<Row> = Bridge::ALL.into_iter().flat_map(rows_of).collect();
    let (all, started) = (rows.len() * rounds, Instant::now());
    for (index, mut row) in rows.into_iter().enumerate() {
        for round in 0..rounds {
            let what = format!("{}, flows: {}", row.bridge, row.flows);
            progress(&what, index * rounds + round, all, started);
            for kind in Kind::ALL {
                let sample = measure(kind, row.bridge, row.flows, Duration::from_secs(seconds));
                let sample = sample.with_context(|| format!("{what}: {kind}"))?;
                match kind {
                    Kind::Ovs => row.ovs.push(sample),
                    Kind::Ringway => row.ringway.push(sample),
                }
            }
        }
        measured.push(row);
    }
    Ok(())
}

/// A row for each number of flows.
fn rows_of(bridge: Bridge) -> [Row; traffic::FLOWS.len()] {
    traffic::FLOWS.map(|flows| Row { bridge, flows, ovs: Vec::new(), ringway: Vec::new() })
}

fn measure(kind: Kind, bridge: Bridge, flows: u32, time: Duration) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let switch = Running::start(kind, dir.path())?;
    configure(&switch, bridge, dir.path())?;
    let traffic = Traffic { flows, trunk: bridge.trunk() };
    let mut driver = traffic.driver(&switch.sockets(), dir.path())?;
    switch.wait_rings(RINGS)?;
    traffic.start(&mut driver)?;
    let (start, ()) = (Instant::now(), switch.clear()?);
    std::thread::sleep(time);
    let (cycles, packets) = switch.busy_cycles()?;
    sample(cycles, packets, start.elapsed())
}

fn configure(switch: &Running, bridge: Bridge, dir: &Path) -> Result<()> {
    for command in bridge.commands() {
        let words: Vec<&str> = command.split(' ').collect();
        switch.vsctl(&words)?;
    }
    let Some(rules) = bridge.rules() else { return Ok(()) };
    let file = dir.join("rules");
    std::fs::write(&file, rules)?;
    switch.ofctl("del-flows", &[])?;
    switch.ofctl("add-flows", &[&file.display().to_string()])?;
    Ok(())
}
