use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use e2e::process::{Process, run as output_of};
use e2e::testpmd::RunningTestpmd;
use e2e::{L2fwd, Ovs, Peer, Ringway, Testpmd};
use serde_json::Value;

use super::cell::Cell;

/// Switching and driving: one core each.
pub const BACK_END_CPU: u32 = 0;
pub const DRIVER_CPU: usize = 1;
const LIMIT: Duration = Duration::from_secs(60);

/// What forwards between two vhost-user ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackEnd {
    /// Our switch.
    Ringway,
    /// Our ports without a switch.
    Forward,
    /// Our ports joined by `ringway l2fwd`.
    L2fwd,
    /// DPDK's testpmd in `io` mode, of this path.
    Testpmd(PathBuf),
    /// OVS-DPDK, which switches.
    Ovs,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Busy cycles per packet.
    pub cycles: f64,
    /// Million packets per second, both directions together.
    pub mpps: f64,
}

impl BackEnd {
    /// Those that this machine has, and `others`: paths of further testpmds.
    pub fn all(others: &[PathBuf]) -> Vec<Self> {
        let mut all =
            vec![Self::Ringway, Self::Forward, Self::L2fwd, Self::Testpmd("dpdk-testpmd".into())];
        all.extend(others.iter().cloned().map(Self::Testpmd));
        if Peer::Ovs.missing().is_none() {
            all.push(Self::Ovs);
        }
        all
    }

    /// The name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Ringway => "ringway switch".into(),
            Self::Forward => "ringway ports alone".into(),
            Self::L2fwd => "ringway l2fwd".into(),
            Self::Testpmd(path) if path == Path::new("dpdk-testpmd") => "testpmd io".into(),
            Self::Testpmd(path) => format!("testpmd io ({})", path.display()),
            Self::Ovs => "OVS-DPDK".into(),
        }
    }

    /// Forwards between two guests as `cell` says, for `time`, both driven by one testpmd with
    /// virtio-user.
    pub fn measure(&self, cell: Cell, time: Duration) -> Result<Sample> {
        let dir = tempfile::tempdir()?;
        let run = Run { dir: dir.path(), cell, time };
        match self {
            Self::Ringway => run.switch(),
            Self::Forward => run.forward(),
            Self::L2fwd => run.l2fwd(),
            Self::Testpmd(path) => run.testpmd(path),
            Self::Ovs => run.ovs(),
        }
    }
}

/// One measurement.
struct Run<'a> {
    dir: &'a Path,
    cell: Cell,
    time: Duration,
}

impl Run<'_> {
    fn socket(&self, n: u8) -> PathBuf {
        self.dir.join(format!("s{n}"))
    }

    /// The device string of a port.
    fn device(&self, n: u8) -> String {
        format!("vhost-user:{},queues={}", self.socket(n).display(), self.cell.queues)
    }

    fn rings(&self) -> usize {
        2 * usize::from(self.cell.queues)
    }

    /// The guests, whose traffic is still to be started.
    fn driver(&self, more: &str) -> Result<RunningTestpmd> {
        driver(self.dir, self.cell, more)
    }

    fn switch(&self) -> Result<Sample> {
        let ports = [0, 1].map(|n| format!("p{n}={}", self.device(n)));
        let ports = [ports[0].as_str(), ports[1].as_str()];
        let switch = Ringway::switch(self.dir, &ports, &BACK_END_CPU.to_string())?;
        let mut driver = self.driver("")?;
        switch.wait_rings(&["p0", "p1"], self.rings())?;
        start(&mut driver, self.cell)?;
        let before = worker(&switch)?;
        std::thread::sleep(self.time);
        let after = worker(&switch)?;
        sample(after.0 - before.0, after.1 - before.1, self.time)
    }

    fn forward(&self) -> Result<Sample> {
        let mut command = Command::new(forwarder()?);
        command.args([0, 1].map(|n| self.device(n)));
        command.arg("3600").arg(BACK_END_CPU.to_string());
        let forwarder = Process::start("port-forward", command)?;
        forwarder.wait_for("forwarding", 0, LIMIT)?;
        let mut driver = self.driver("")?;
        start(&mut driver, self.cell)?;
        let mark = forwarder.mark();
        std::thread::sleep(self.time);
        parse_forwarder(&forwarder.wait_for("\n", mark, LIMIT)?, &forwarder.log())
    }

    fn l2fwd(&self) -> Result<Sample> {
        let cores = BACK_END_CPU.to_string();
        let ports = [0, 1].map(|n| self.device(n));
        let l2fwd = L2fwd::start(&[&ports[0], &ports[1]], &["--cores", &cores])?;
        l2fwd.wait_ready()?;
        let mut driver = self.driver("")?;
        start(&mut driver, self.cell)?;
        let before = l2fwd.statistics()?;
        std::thread::sleep(self.time);
        l2fwd_sample(&before, &l2fwd.statistics()?)
    }

    fn testpmd(&self, path: &Path) -> Result<Sample> {
        let queues = self.cell.queues;
        let back =
            |n: u8| format!("net_vhost{n},iface={},queues={queues}", self.socket(n).display());
        let mut switch = Testpmd::new()
            .program(path)
            .cpu(BACK_END_CPU as usize)
            .queues(queues)
            .vdev(back(0))
            .vdev(back(1))
            .arguments(["--record-core-cycles"])
            .start()?;
        let mut driver = self.driver("")?;
        switch.wait_rings(&[0, 1], self.rings())?;
        switch.command("start")?;
        start(&mut driver, self.cell)?;
        switch.command("clear fwd stats all")?;
        std::thread::sleep(self.time);
        let (cycles, packets) = switch.busy_cycles()?;
        sample(cycles, packets, self.time)
    }

    fn ovs(&self) -> Result<Sample> {
        let switch = Ovs::start(self.dir, BACK_END_CPU)?;
        switch.add_vhost_client("v0", &self.socket(0))?;
        switch.add_vhost_client("v1", &self.socket(1))?;
        // OVS connects to the sockets, the others listen.
        let mut driver = self.driver(",server=1")?;
        switch.wait_rings(&self.socket(0), self.rings())?;
        switch.wait_rings(&self.socket(1), self.rings())?;
        start(&mut driver, self.cell)?;
        switch.appctl(&["dpif-netdev/pmd-stats-clear"])?;
        std::thread::sleep(self.time);
        let (cycles, packets) = switch.busy_cycles()?;
        sample(cycles, packets, self.time)
    }
}

/// The testpmd that plays both guests.
fn driver(dir: &Path, cell: Cell, more: &str) -> Result<RunningTestpmd> {
    let front = |n: u8| {
        let (path, arguments) = (dir.join(format!("s{n}")), cell.device_arguments());
        format!("net_virtio_user{n},path={},{arguments}{more}", path.display())
    };
    let driver = Testpmd::new().cpu(DRIVER_CPU).queues(cell.queues).vdev(front(0)).vdev(front(1));
    driver.arguments(["--burst=256"]).start()
}

/// Puts 256 frames for each queue on the way, which then go round, and lets the rate settle.
fn start(driver: &mut RunningTestpmd, cell: Cell) -> Result<()> {
    for command in cell.size.commands() {
        driver.command(&command)?;
    }
    driver.command("start tx_first 1")?;
    driver.wait_stats(0, LIMIT, |stats| stats.rx_packets > 200_000)?;
    Ok(())
}

/// Builds the program that forwards between ports without a switch.
fn forwarder() -> Result<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BUILT.get() {
        return Ok(path);
    }
    let path = super::build("port-forward")?;
    Ok(BUILT.get_or_init(|| path))
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

/// The one worker of `ringway l2fwd` between two statistics.
fn l2fwd_sample(before: &Value, after: &Value) -> Result<Sample> {
    let since = |name: &str| {
        let number = |value: &Value| value["workers"][0][name].as_u64();
        number(after).zip(number(before)).map(|(after, before)| after - before)
    };
    let parse = || Some((since("busy_cycles")?, since("frames")?));
    let (cycles, packets) = parse().with_context(|| format!("no counters in {after:#}"))?;
    let seconds = after["seconds"].as_f64().zip(before["seconds"].as_f64());
    let seconds = seconds.map(|(after, before)| after - before).context("no time")?;
    sample(cycles, packets, Duration::from_secs_f64(seconds))
}

/// `123 packets/s, busy cycles each: 90 median, 95 mean; 31.0 a burst`
fn parse_forwarder(line: &str, log: &str) -> Result<Sample> {
    let parse = || {
        let (pps, rest) = line.trim().split_once(" packets/s")?;
        let mean = rest.split_once("median, ")?.1.split_once(" mean")?.0;
        Some(Sample { cycles: mean.parse().ok()?, mpps: pps.parse::<f64>().ok()? / 1e6 })
    };
    parse().with_context(|| format!("port-forward said: {log}"))
}

/// The mean of so many packets in so much time.
#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
pub fn sample(cycles: u64, packets: u64, time: Duration) -> Result<Sample> {
    if packets == 0 {
        bail!("nothing was forwarded");
    }
    let mpps = packets as f64 / time.as_secs_f64() / 1e6;
    Ok(Sample { cycles: cycles as f64 / packets as f64, mpps })
}

/// What a machine says of itself: processor and DPDK, for the report.
pub fn describe() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let version = |program: &str| {
        let text = output_of(Command::new("dpkg-query").args(["-W", "-f=${Version}", program]));
        text.unwrap_or_else(|_| "unknown".into())
    };
    let (dpdk, ovs) = (version("dpdk"), version("openvswitch-switch-dpdk"));
    format!("{cores} cores of {model}; Debian's DPDK {dpdk} and OVS-DPDK {ovs}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarder_is_understood() {
        let line = "  5000000 packets/s, busy cycles each: 90 median, 95 mean; 31.0 a burst";
        let sample = parse_forwarder(line, "").unwrap();
        assert!((sample.cycles - 95.0).abs() < 0.1 && (sample.mpps - 5.0).abs() < 0.1);
        assert!(parse_forwarder("forwarding a <-> b", "").is_err());
    }
}
