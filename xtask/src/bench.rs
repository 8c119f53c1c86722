use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::testpmd::RunningTestpmd;
use e2e::{Ovs, Peer, Ringway, Testpmd, require};

/// Switching and driving: one core each.
const BACK_END_CPU: u32 = 0;
const DRIVER_CPU: usize = 1;
const LIMIT: Duration = Duration::from_secs(60);

/// How `cargo xtask bench` measures.
#[derive(Debug, Args)]
pub struct Options {
    /// Bytes per frame without FCS; may be repeated
    #[arg(long = "size", value_name = "BYTES", default_values = ["64", "1500"])]
    sizes: Vec<u16>,
    /// Rounds; every back-end is measured once in each, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only these back-ends: ringway, testpmd, ovs
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// What forwards between two vhost-user ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackEnd {
    Ringway,
    Testpmd,
    Ovs,
}

impl BackEnd {
    const ALL: [Self; 3] = [Self::Ringway, Self::Testpmd, Self::Ovs];

    fn name(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Testpmd => "testpmd",
            Self::Ovs => "ovs",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Sample {
    cycles: f64,
    mpps: f64,
}

/// Measures cycles per packet of forwarding between two vhost-user ports, both driven by one
/// testpmd with virtio-user; prints medians.
///
/// Cycles are those in which the back-end had frames to forward, by its own count.
pub fn run(options: &Options) -> Result<bool> {
    let Some(_turn) = require(&[Peer::Dpdk]) else { bail!("this needs DPDK") };
    println!("{:>6} {:>8} {:>10} {:>10}  all rounds", "bytes", "by", "cycles", "Mpps");
    for &size in &options.sizes {
        let mut results = vec![Vec::new(); BackEnd::ALL.len()];
        for _ in 0..options.rounds {
            for (back_end, samples) in BackEnd::ALL.iter().zip(&mut results) {
                let name = back_end.name();
                let asked = options.only.is_empty() || options.only.iter().any(|only| only == name);
                let there = *back_end != BackEnd::Ovs || Peer::Ovs.missing().is_none();
                if asked && there {
                    let seconds = Duration::from_secs(options.seconds);
                    samples.push(measure(*back_end, size, seconds).context(name)?);
                }
            }
        }
        for (back_end, samples) in BackEnd::ALL.iter().zip(results) {
            print_row(size, *back_end, samples);
        }
    }
    Ok(true)
}

fn print_row(size: u16, back_end: BackEnd, mut samples: Vec<Sample>) {
    samples.sort_by(|a, b| a.cycles.total_cmp(&b.cycles));
    let Some(median) = samples.get(samples.len() / 2) else { return };
    let all: Vec<_> = samples.iter().map(|sample| format!("{:.0}", sample.cycles)).collect();
    let name = back_end.name();
    println!(
        "{size:>6} {name:>8} {:>10.1} {:>10.2}  {}",
        median.cycles,
        median.mpps,
        all.join(" ")
    );
}

fn measure(back_end: BackEnd, size: u16, time: Duration) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let socket = |n: u8| dir.path().join(format!("s{n}"));
    // OVS connects to the sockets, the others listen.
    let server = if back_end == BackEnd::Ovs { ",server=1" } else { "" };
    let front = |n: u8| format!("net_virtio_user{n},path={}{server}", socket(n).display());
    let driver = || -> Result<RunningTestpmd> {
        let driver = Testpmd::new().cpu(DRIVER_CPU).vdev(front(0)).vdev(front(1));
        driver.arguments(["--burst=256"]).start()
    };
    match back_end {
        BackEnd::Ringway => {
            let port = |n: u8| format!("p{n}=vhost-user:{}", socket(n).display());
            let ports = [port(0), port(1)];
            let ports = [ports[0].as_str(), ports[1].as_str()];
            let switch = Ringway::switch(dir.path(), &ports, &BACK_END_CPU.to_string())?;
            let mut driver = driver()?;
            switch.wait_links(&["p0", "p1"])?;
            start(&mut driver, size)?;
            let before = worker(&switch)?;
            std::thread::sleep(time);
            let after = worker(&switch)?;
            sample(after.0 - before.0, after.1 - before.1, time)
        }
        BackEnd::Testpmd => {
            let back = |n: u8| format!("net_vhost{n},iface={}", socket(n).display());
            let mut switch = Testpmd::new()
                .cpu(BACK_END_CPU as usize)
                .vdev(back(0))
                .vdev(back(1))
                .arguments(["--record-core-cycles"])
                .start()?;
            let mut driver = driver()?;
            switch.wait_link(0, LIMIT)?;
            switch.wait_link(1, LIMIT)?;
            switch.command("start")?;
            start(&mut driver, size)?;
            switch.command("clear fwd stats all")?;
            std::thread::sleep(time);
            let (cycles, packets) = switch.busy_cycles()?;
            sample(cycles, packets, time)
        }
        BackEnd::Ovs => {
            let switch = Ovs::start(dir.path(), BACK_END_CPU)?;
            switch.add_vhost_client("v0", &socket(0))?;
            switch.add_vhost_client("v1", &socket(1))?;
            let mut driver = driver()?;
            switch.wait_link("v0")?;
            switch.wait_link("v1")?;
            start(&mut driver, size)?;
            switch.appctl(&["dpif-netdev/pmd-stats-clear"])?;
            std::thread::sleep(time);
            let (cycles, packets) = switch.busy_cycles()?;
            sample(cycles, packets, time)
        }
    }
}

/// Puts 256 frames of `size` bytes on the way, which then go round, and lets the rate settle.
fn start(driver: &mut RunningTestpmd, size: u16) -> Result<()> {
    driver.command(&format!("set txpkts {size}"))?;
    driver.command("start tx_first 1")?;
    driver.wait_stats(0, LIMIT, |stats| stats.rx_packets > 200_000)?;
    Ok(())
}

/// Busy cycles and packets of the one worker.
fn worker(switch: &Ringway) -> Result<(u64, u64)> {
    let workers = switch.show("workers")?;
    let number = |name: &str| {
        let value = workers["workers"][0][name].as_u64();
        value.with_context(|| format!("no {name} in {workers}"))
    };
    Ok((number("busy_cycles")?, number("packets")?))
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn sample(cycles: u64, packets: u64, time: Duration) -> Result<Sample> {
    if packets == 0 {
        bail!("nothing was forwarded");
    }
    let mpps = packets as f64 / time.as_secs_f64() / 1e6;
    Ok(Sample { cycles: cycles as f64 / packets as f64, mpps })
}
