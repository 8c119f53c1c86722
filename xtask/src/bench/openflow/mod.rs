use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::Vswitch;
use e2e::vswitch::Kind;

use self::bridge::{Bridge, PORTS};
use self::traffic::Traffic;
use super::back_end::{BACK_END_CPU, Sample, sample};
use super::progress;

/// What bridges are told.
pub mod bridge;
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

/// These switches by each bridge once per round, in turn, so that a slow moment of the machine hits all
/// alike. What has been measured is in `measured` even when a later one fails.
pub fn run(
    rows: Vec<Row>,
    kinds: &[Kind],
    rounds: usize,
    seconds: u64,
    measured: &mut Vec<Row>,
) -> Result<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    let (all, started) = (rows.len() * rounds, Instant::now());
    for (index, mut row) in rows.into_iter().enumerate() {
        for round in 0..rounds {
            let what = format!("{}, flows: {}", row.bridge, row.flows);
            progress(&what, index * rounds + round, all, started);
            for &kind in kinds {
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

/// A row for each bridge that one of these names is part of, or for all, with each of these numbers of flows.
pub fn rows(names: &[String], flows: &[u32]) -> Vec<Row> {
    let is_asked = |bridge: &Bridge| {
        let own = bridge.to_string();
        names.is_empty() || names.iter().any(|name| own.contains(name.as_str()))
    };
    let bridges = Bridge::ALL.into_iter().filter(is_asked);
    let row = |bridge, flows| Row { bridge, flows, ovs: Vec::new(), ringway: Vec::new() };
    bridges.flat_map(|bridge| flows.iter().map(move |flows| row(bridge, *flows))).collect()
}

/// The switches that one of these names is part of, or both.
pub fn kinds(names: &[String]) -> Vec<Kind> {
    let is_asked = |kind: &Kind| {
        let own = kind.to_string();
        names.is_empty() || names.iter().any(|name| own.contains(name.as_str()))
    };
    Kind::ALL.into_iter().filter(is_asked).collect()
}

fn measure(kind: Kind, bridge: Bridge, flows: u32, time: Duration) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let sockets = ["s0", "s1"].map(|name| dir.path().join(name));
    let switch = Vswitch::start(kind, dir.path(), BACK_END_CPU)?;
    for ((port, number), socket) in PORTS.iter().zip(1..).zip(&sockets) {
        tell(&switch, &Vswitch::adds(port, number, socket))?;
    }
    configure(&switch, bridge, dir.path())?;
    let traffic = Traffic { flows, trunk: bridge.trunk() };
    let mut driver = traffic.driver(&sockets, dir.path())?;
    let ports = [0, 1].map(|n| (PORTS[n], sockets[n].as_path()));
    switch.wait_rings(&ports, RINGS)?;
    traffic.start(&mut driver)?;
    let (start, ()) = (Instant::now(), switch.clear_cycles()?);
    std::thread::sleep(time);
    let (cycles, packets) = switch.busy_cycles()?;
    sample(cycles, packets, start.elapsed())
}

fn tell(switch: &Vswitch, words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    switch.vsctl(&words).map(drop)
}

fn configure(switch: &Vswitch, bridge: Bridge, dir: &Path) -> Result<()> {
    for command in bridge.commands() {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        tell(switch, &words)?;
    }
    let Some(rules) = bridge.rules()? else { return Ok(()) };
    let file = dir.join("rules");
    std::fs::write(&file, rules)?;
    switch.ofctl("del-flows", &[])?;
    switch.ofctl("add-flows", &[&file.display().to_string()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_are_chosen_by_parts_of_their_names() {
        let chosen = |names: &[&str], flows: &[u32]| -> Vec<(Bridge, u32)> {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            rows(&names, flows).into_iter().map(|row| (row.bridge, row.flows)).collect()
        };
        assert_eq!(chosen(&[], &[1, 256]).len(), 10);
        let wanted = [(Bridge::Pipeline, 1), (Bridge::LogicalSwitch, 1)];
        assert_eq!(chosen(&["OVN", "tables"], &[1]), wanted);
        assert_eq!(chosen(&["none"], &[1]), []);
    }

    #[test]
    fn switches_are_chosen_by_parts_of_their_names() {
        let chosen =
            |names: &[&str]| kinds(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(chosen(&[]), Kind::ALL);
        assert_eq!(chosen(&["ringway"]), [Kind::Ringway]);
        assert_eq!(chosen(&["testpmd"]), []);
    }
}
