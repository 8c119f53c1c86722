use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;

const PROMPT: &str = "testpmd> ";
const LIMIT: Duration = Duration::from_secs(60);

/// The command line of a testpmd.
#[derive(Debug, Clone)]
pub struct Testpmd {
    program: PathBuf,
    cpu: usize,
    memory_mib: u32,
    vdevs: Vec<String>,
    queues: u16,
    arguments: Vec<String>,
}

impl Default for Testpmd {
    fn default() -> Self {
        Self {
            program: "dpdk-testpmd".into(),
            cpu: 0,
            memory_mib: 192,
            vdevs: Vec::new(),
            queues: 1,
            arguments: Vec::new(),
        }
    }
}

impl Testpmd {
    /// A testpmd without ports, whose forwarding thread polls on CPU 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another testpmd than the one that is installed.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// The CPU of the forwarding thread. The main thread sleeps and is not pinned.
    #[must_use]
    pub fn cpu(mut self, cpu: usize) -> Self {
        self.cpu = cpu;
        self
    }

    /// The memory taken from huge pages.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Adds a virtual device, such as `net_vhost0,iface=PATH`. They are ports in this order.
    #[must_use]
    pub fn vdev(mut self, vdev: impl Into<String>) -> Self {
        self.vdevs.push(vdev.into());
        self
    }

    /// The number of receive and of transmit queues of each port.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// Adds arguments of testpmd itself (those after `--`).
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Starts testpmd and waits for its prompt. Forwarding is not started yet.
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn start(&self) -> Result<RunningTestpmd> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix =
            format!("ringway{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cpus = std::thread::available_parallelism()?.get();
        let main = if cpus > 1 { format!("(0-{})", cpus - 1) } else { "0".to_owned() };
        // `stdbuf`: its output goes to a pipe, and would otherwise come in blocks of 4 KiB.
        // `--in-memory`: huge pages without a name, which go when the process goes.
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(&self.program).args(["--no-pci", "--in-memory"]);
        command.args(["--single-file-segments", "--file-prefix", &prefix]);
        command.args(["--lcores", &format!("0@{main},1@{}", self.cpu % cpus)]);
        command.args(["-m", &self.memory_mib.to_string()]);
        for vdev in &self.vdevs {
            command.args(["--vdev", vdev]);
        }
        let queues = self.queues;
        // `--no-flush-rx`: otherwise `start` throws away what has been received before it.
        command.args(["--", "-i", "--total-num-mbufs=16384", "--no-flush-rx"]);
        command.args([format!("--rxq={queues}"), format!("--txq={queues}")]);
        command.args(&self.arguments);
        let process = Process::start("testpmd", command)?;
        let log = process.wait_for(PROMPT, 0, LIMIT)?;
        // A device that it cannot make is no error to testpmd: it goes on without it.
        let ports = log.lines().filter(|line| line.starts_with("Configuring Port ")).count();
        let vdevs = self.vdevs.len();
        ensure!(ports == vdevs, "testpmd has {ports} ports instead of {vdevs}:\n{log}");
        Ok(RunningTestpmd { process })
    }
}

/// A testpmd that takes commands.
#[derive(Debug)]
pub struct RunningTestpmd {
    process: Process,
}

/// The counters that `show port stats` prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that found no room.
    pub rx_missed: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames not sent.
    pub tx_errors: u64,
}

impl RunningTestpmd {
    /// Runs a command and gives what it prints.
    ///
    /// # Errors
    /// When the next prompt does not come within a minute.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let mark = self.process.mark();
        self.process.send_line(line)?;
        self.process.wait_for(PROMPT, mark, LIMIT).with_context(|| line.to_owned())
    }

    /// The counters of a port.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn stats(&mut self, port: u16) -> Result<PortStats> {
        let text = self.command(&format!("show port stats {port}"))?;
        PortStats::parse(&text).with_context(|| text)
    }

    /// Waits until the counters of a port satisfy `enough`.
    ///
    /// # Errors
    /// When they do not within `limit`; the message has the last ones.
    pub fn wait_stats(
        &mut self,
        port: u16,
        limit: Duration,
        enough: impl Fn(&PortStats) -> bool,
    ) -> Result<PortStats> {
        let mut last = PortStats::default();
        crate::wait::until("counters", limit, Duration::from_millis(20), || {
            last = self.stats(port)?;
            Ok(enough(&last).then_some(last))
        })
        .with_context(|| format!("port {port}: {last:?}"))
    }

    /// Whether the link of a port is up.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn link_is_up(&mut self, port: u16) -> Result<bool> {
        let text = self.command(&format!("show port info {port}"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Link status: "));
        Ok(line.with_context(|| text.clone())?.trim() == "up")
    }

    /// Waits for the link of a port.
    ///
    /// # Errors
    /// When it is not up within `limit`.
    pub fn wait_link(&mut self, port: u16, limit: Duration) -> Result<()> {
        crate::wait::until("link", limit, Duration::from_millis(20), || {
            Ok(self.link_is_up(port)?.then_some(()))
        })
    }

    /// Waits until the front-ends of all the vhost ports named have enabled `rings` rings, two
    /// for each queue pair. They do so one by one without waiting for an answer, and what goes to
    /// a ring that is not enabled yet is lost.
    ///
    /// # Errors
    /// When they have not within a minute.
    pub fn wait_rings(&self, ports: &[u16], rings: usize) -> Result<()> {
        crate::wait::until("rings", LIMIT, Duration::from_millis(20), || {
            let log = self.log();
            let enabled = |port| log.matches(&format!("Port {port}: queue state event")).count();
            Ok(ports.iter().all(|port| enabled(port) >= rings).then_some(()))
        })
        .with_context(|| self.log())
    }

    /// Busy cycles and packets since `start` or `clear fwd stats all`, of a testpmd with
    /// `--record-core-cycles`.
    ///
    /// # Errors
    /// When they were not recorded.
    pub fn busy_cycles(&mut self) -> Result<(u64, u64)> {
        let text = self.command("show fwd stats all")?;
        parse_cycles(&text).with_context(|| text)
    }

    /// Leaves testpmd in order, so that its pcap files are complete.
    ///
    /// # Errors
    /// When it does not end with status 0 within a minute.
    pub fn quit(mut self) -> Result<()> {
        self.process.send_line("quit")?;
        let status = self.process.wait(LIMIT)?;
        ensure!(status.success(), "testpmd: {status}: {}", self.process.log());
        Ok(())
    }

    /// Ends it at once, as if it had crashed.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Everything it has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl PortStats {
    fn parse(text: &str) -> Option<Self> {
        let number = |name: &str| {
            let rest = text[text.find(name)? + name.len()..].trim_start();
            rest.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            rx_packets: number("RX-packets:")?,
            rx_bytes: number("RX-bytes:")?,
            rx_missed: number("RX-missed:")?,
            tx_packets: number("TX-packets:")?,
            tx_bytes: number("TX-bytes:")?,
            tx_errors: number("TX-errors:")?,
        })
    }
}

/// `CPU cycles/packet=293.25 (busy cycles=586 / total io packets=2) at 2000 MHz Clock`
fn parse_cycles(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find(|line| line.contains("CPU cycles/packet="))?;
    let mut numbers = line.split('=').skip(2).map(|part| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_cycles_are_parsed() {
        let text = "  RX-packets: 12         RX-missed: 3          RX-bytes:  720\n\
                    \x20 RX-errors: 0\n  RX-nombuf:  0         \n\
                    \x20 TX-packets: 4          TX-errors: 5          TX-bytes:  256\n";
        let stats = PortStats {
            rx_packets: 12,
            rx_bytes: 720,
            rx_missed: 3,
            tx_packets: 4,
            tx_bytes: 256,
            tx_errors: 5,
        };
        assert_eq!(PortStats::parse(text), Some(stats));
        assert_eq!(PortStats::parse("Invalid port"), None);
        let text = "  CPU cycles/packet=293.00 (busy cycles=586 / total io packets=2) at 2000 MHz";
        assert_eq!(parse_cycles(text), Some((586, 2)));
        assert_eq!(parse_cycles("  RX-packets: 0"), None);
    }
}
