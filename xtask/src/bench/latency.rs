use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use e2e::process::run as output_of;
use e2e::{Ringway, Testpmd, ringway};
use serde_json::Value;

use super::back_end::{BACK_END_CPU, BackEnd};

/// Shares of the capacity at which latency is measured, in per cent.
const SHARES: [u64; 3] = [10, 50, 90];

/// Round-trip times through one back-end at one load.
#[derive(Debug, Clone)]
pub struct Latency {
    /// What forwards.
    pub back_end: String,
    /// Load in per cent of its capacity.
    pub share: u64,
    /// Frames per second.
    pub rate: u64,
    /// In microseconds: half of the frames took no longer, and so on.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// Measures what lies between two `virtio-user` ports of `ringway gen`: frames of 64 bytes from
/// one to the other. Medians over the rounds.
pub fn run(back_ends: &[BackEnd], rounds: usize) -> Result<Vec<Latency>> {
    let mut all: Vec<Vec<Latency>> = Vec::new();
    for round in 0..rounds {
        for back_end in back_ends {
            if !matches!(back_end, BackEnd::Ringway | BackEnd::Testpmd(_)) {
                continue;
            }
            eprintln!("latency, round {} of {rounds}: {}", round + 1, back_end.name());
            all.push(measure(back_end).with_context(|| back_end.name())?);
        }
    }
    let mut result: Vec<Latency> = Vec::new();
    let all: Vec<Latency> = all.into_iter().flatten().collect();
    for first in &all {
        let same =
            |other: &&Latency| other.back_end == first.back_end && other.share == first.share;
        if result.iter().any(|done| same(&done)) {
            continue;
        }
        let of = |part: fn(&Latency) -> f64| {
            let mut values: Vec<f64> = all.iter().filter(same).map(part).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        result.push(Latency {
            p50: of(|one| one.p50),
            p99: of(|one| one.p99),
            p999: of(|one| one.p999),
            ..first.clone()
        });
    }
    Ok(result)
}

/// The process that forwards, ended when dropped.
enum Running {
    Switch(#[expect(dead_code, reason = "runs as long as this value lives")] Ringway),
    Testpmd(
        #[expect(dead_code, reason = "runs as long as this value lives")]
        e2e::testpmd::RunningTestpmd,
    ),
}

fn start(back_end: &BackEnd, dir: &Path) -> Result<Running> {
    let socket = |n: u8| dir.join(format!("s{n}")).display().to_string();
    match back_end {
        BackEnd::Testpmd(path) => {
            let back = |n: u8| format!("net_vhost{n},iface={}", socket(n));
            let testpmd = Testpmd::new().program(path).cpu(BACK_END_CPU as usize);
            let mut testpmd = testpmd.vdev(back(0)).vdev(back(1)).start()?;
            testpmd.command("start")?;
            Ok(Running::Testpmd(testpmd))
        }
        _ => {
            let port = |n: u8| format!("p{n}=vhost-user:{}", socket(n));
            let (a, b) = (port(0), port(1));
            let cores = BACK_END_CPU.to_string();
            Ok(Running::Switch(Ringway::switch(dir, &[a.as_str(), b.as_str()], &cores)?))
        }
    }
}

fn measure(back_end: &BackEnd) -> Result<Vec<Latency>> {
    let dir = tempfile::tempdir()?;
    let _running = start(back_end, dir.path())?;
    // In the same mode, since the generator too must be able to do it.
    let capacity = generate(dir.path(), &["latency", "--rate", "100M"])?;
    let capacity = capacity["received_pps"].as_f64().context("no received_pps")?;
    SHARES
        .into_iter()
        .map(|share| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
            let rate = (capacity as u64) * share / 100;
            let summary = generate(dir.path(), &["latency", "--rate", &rate.to_string()])?;
            let micros = |name: &str| {
                let nanos = summary["latency"][name].as_f64();
                nanos.map(|nanos| nanos / 1000.0).with_context(|| format!("no {name}: {summary}"))
            };
            Ok(Latency {
                back_end: back_end.name(),
                share,
                rate,
                p50: micros("p50_ns")?,
                p99: micros("p99_ns")?,
                p999: micros("p999_ns")?,
            })
        })
        .collect()
}

/// Runs `ringway gen` between the two sockets for two seconds; gives its summary.
fn generate(dir: &Path, arguments: &[&str]) -> Result<Value> {
    let mut command: Command = ringway::command(&["gen", "--json", "--duration", "2"])?;
    command.args(arguments).args(["--cores", "1"]);
    for (option, n) in [("--port", 0), ("--port2", 1)] {
        let socket = dir.join(format!("s{n}"));
        command.arg(option).arg(format!("virtio-user:{}", socket.display()));
    }
    let text = output_of(&mut command)?;
    let last = text.lines().last().context("ringway gen printed nothing")?;
    let value: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
    Ok(value["summary"].clone())
}
