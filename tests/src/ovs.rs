use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::ovsdb::{OvsDatabase, environment};
use crate::process::{Process, run};
use crate::wait;

/// The `ovs-vswitchd` with DPDK, where Debian puts it.
pub const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

/// The name of its bridge, which is that of an interface of the host, too: none that an
/// administrator has chosen, and which sends frames of its own.
pub const BRIDGE: &str = "rw-ovs0";

const LIMIT: Duration = Duration::from_secs(60);

/// An Open vSwitch of its own: database, switch and run directory apart from any
/// that the machine may run.
#[derive(Debug)]
pub struct Ovs {
    // Dropped in this order: the switch before its database.
    vswitchd: Process,
    database: OvsDatabase,
    dir: PathBuf,
    /// The program and its arguments.
    words: Vec<OsString>,
}

impl Ovs {
    /// Starts a switch with one bridge, [`BRIDGE`], on the userspace datapath; its polling
    /// thread runs on `cpu`.
    ///
    /// # Errors
    /// When a part does not come up; the message has what it wrote.
    pub fn start(dir: &Path, cpu: u32) -> Result<Self> {
        Self::with_dpdk(Command::new(VSWITCHD), dir, cpu)
    }

    /// The same in a network namespace.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_dpdk_in(netns: &Netns, dir: &Path, cpu: u32) -> Result<Self> {
        Self::with_dpdk(netns.command(VSWITCHD), dir, cpu)
    }

    fn with_dpdk(command: Command, dir: &Path, cpu: u32) -> Result<Self> {
        let database = OvsDatabase::start(dir)?;
        let mask = 1_u64 << cpu;
        for setting in [
            "dpdk-init=true".to_owned(),
            "dpdk-socket-mem=256".to_owned(),
            "dpdk-lcore-mask=0x1".to_owned(),
            format!("pmd-cpu-mask={mask:#x}"),
            "dpdk-extra=--no-pci --in-memory --single-file-segments".to_owned(),
        ] {
            let (key, value) = setting.split_once('=').unwrap_or_default();
            let pair = format!("other_config:{key}=\"{value}\"");
            database.vsctl(&["--no-wait", "set", "Open_vSwitch", ".", &pair])?;
        }
        Self::run(command, database, dir)
    }

    /// One in a network namespace, where its ports are interfaces, without DPDK.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_in(netns: &Netns, dir: &Path) -> Result<Self> {
        Self::run(netns.command(VSWITCHD), OvsDatabase::start(dir)?, dir)
    }

    fn run(mut command: Command, database: OvsDatabase, dir: &Path) -> Result<Self> {
        command.arg(format!("unix:{}", dir.join("db.sock").display()));
        command.arg(format!("--unixctl={}", dir.join("vswitchd.ctl").display()));
        command.args(["--no-chdir", "-vconsole:info", "-vsyslog:off"]);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<OsString> = words.map(ToOwned::to_owned).collect();
        let vswitchd = launch(&words, dir)?;
        let ovs = Self { vswitchd, database, dir: dir.to_owned(), words };
        ovs.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
        Ok(ovs)
    }

    /// Ends the switch at once, as if it had crashed. Its database stays.
    pub fn kill(&mut self) {
        self.vswitchd.kill();
    }

    /// Starts the switch again after [`Self::kill`].
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn start_again(&mut self) -> Result<()> {
        // It is replaced by the new one, which is waited for.
        std::fs::remove_file(self.dir.join("vswitchd.ctl"))?;
        self.vswitchd = launch(&self.words, &self.dir)?;
        Ok(())
    }

    /// Adds a vhost-user port whose socket the front-end listens on.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn add_vhost_client(&self, name: &str, socket: &Path) -> Result<()> {
        let path = format!("options:vhost-server-path={}", socket.display());
        let kind = "type=dpdkvhostuserclient";
        self.vsctl(&["add-port", BRIDGE, name, "--", "set", "Interface", name, kind, &path])?;
        Ok(())
    }

    /// Adds a vhost-user port on whose socket the switch listens; gives the socket's path.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn add_vhost_server(&self, name: &str) -> Result<PathBuf> {
        let kind = "type=dpdkvhostuser";
        self.vsctl(&["add-port", BRIDGE, name, "--", "set", "Interface", name, kind])?;
        let path = self.dir.join(name);
        self.vswitchd.wait_for_path(&path, LIMIT)?;
        Ok(path)
    }

    /// Runs `ovs-vsctl` and gives its output. It waits until the switch has taken the change.
    ///
    /// # Errors
    /// When it fails, with what the switch wrote.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        self.database.vsctl(arguments).with_context(|| self.log())
    }

    /// Its database, by which others drive it.
    #[must_use]
    pub const fn database(&self) -> &OvsDatabase {
        &self.database
    }

    /// Runs `ovs-appctl` on the switch, for example `dpif-netdev/pmd-stats-show`.
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ovs-appctl");
        command.arg("-t").arg(self.dir.join("vswitchd.ctl")).args(arguments);
        run(&mut environment(command, &self.dir))
    }

    /// Runs `ovs-ofctl` on a bridge, which is called by its name.
    ///
    /// # Errors
    /// When it fails.
    pub fn ofctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ovs-ofctl");
        command.arg("--timeout=60").args(arguments);
        run(&mut environment(command, &self.dir))
    }

    /// Frames that the switch has received from an interface, and those it has sent to it.
    /// (The column `statistics` of the database lags by 5 seconds; this does not.)
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn packets(&self, interface: &str) -> Result<(u64, u64)> {
        let text = self.ofctl(&["dump-ports", BRIDGE, interface])?;
        parse_packets(&text).with_context(|| format!("{interface}: {text}"))
    }

    /// Cycles that polling threads spent on packets, and the packets, since
    /// `dpif-netdev/pmd-stats-clear`.
    ///
    /// # Errors
    /// When nothing was forwarded.
    pub fn busy_cycles(&self) -> Result<(u64, u64)> {
        parse_cycles(&self.appctl(&["dpif-netdev/pmd-stats-show"])?)
    }

    /// Whether the front-end of an interface is there.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn link_is_up(&self, interface: &str) -> Result<bool> {
        Ok(self.vsctl(&["get", "Interface", interface, "link_state"])?.trim() == "up")
    }

    /// Waits for the front-end of an interface.
    ///
    /// # Errors
    /// When it is not there within a minute.
    pub fn wait_link(&self, interface: &str) -> Result<()> {
        wait::until("link", LIMIT, Duration::from_millis(50), || {
            Ok(self.link_is_up(interface)?.then_some(()))
        })
        .with_context(|| self.log())
    }

    /// Waits until the front-end of the vhost-user port on `socket` has enabled `rings` rings,
    /// two for each queue pair: what goes to a ring that is not enabled yet is lost.
    ///
    /// # Errors
    /// When it has not within a minute.
    pub fn wait_rings(&self, socket: &Path, rings: usize) -> Result<()> {
        let enabled = format!("of vhost device '{}' changed to 'enabled'", socket.display());
        wait::until("rings", LIMIT, Duration::from_millis(20), || {
            Ok((self.log().matches(&enabled).count() >= rings).then_some(()))
        })
        .with_context(|| self.log())
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.vswitchd.id()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.vswitchd.ended()
    }

    /// Everything the switch has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.vswitchd.log()
    }

    /// Stops the switch in order.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub fn stop(mut self) -> Result<()> {
        self.appctl(&["exit", "--cleanup"])?;
        self.vswitchd.wait(LIMIT)?;
        Ok(())
    }
}

fn launch(words: &[OsString], dir: &Path) -> Result<Process> {
    let (program, arguments) = words.split_first().context("a program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    let vswitchd = Process::start("ovs-vswitchd", environment(command, dir))?;
    vswitchd.wait_for_listener(&dir.join("vswitchd.ctl"), LIMIT)?;
    Ok(vswitchd)
}

/// Frames that have come in by a port and gone out, of what `ovs-ofctl dump-ports` has printed of it: two
/// lines, `rx pkts=1, bytes=..` and `tx pkts=2, bytes=..`.
#[must_use]
pub fn parse_packets(text: &str) -> Option<(u64, u64)> {
    let mut counts = text.split("pkts=").skip(1).map(|rest| rest.split(',').next()?.parse().ok());
    Some((counts.next()??, counts.next()??))
}

/// Cycles and packets of the one polling thread, in what `dpif-netdev/pmd-stats-show` has printed:
/// `avg processing cycles per packet: 373.00 (746/2)`.
///
/// # Errors
/// When nothing was forwarded.
pub fn parse_cycles(text: &str) -> Result<(u64, u64)> {
    let parse = || {
        let line = text.lines().find(|line| line.contains("avg processing cycles per packet:"))?;
        let (cycles, packets) = line.split_once('(')?.1.strip_suffix(')')?.split_once('/')?;
        Some((cycles.parse().ok()?, packets.parse().ok()?))
    };
    parse().with_context(|| format!("no packets in: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_counters_are_parsed() {
        let text = "OFPST_PORT reply (xid=0x4): 1 ports\n  port  v0: rx pkts=12, bytes=720, \
                    drop=0, errs=0\n           tx pkts=34, bytes=0, drop=1\n";
        assert_eq!(parse_packets(text), Some((12, 34)));
        assert_eq!(parse_packets("ovs-ofctl: no such port"), None);
        let text = "  avg cycles per packet: 400.00 (800/2)\n  \
                    avg processing cycles per packet: 373.00 (746/2)\n";
        assert_eq!(parse_cycles(text).unwrap(), (746, 2));
        assert!(parse_cycles("packets received: 0").is_err());
    }
}
