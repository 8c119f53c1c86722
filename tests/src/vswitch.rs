use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::netns::Netns;
use crate::ovs::{BRIDGE, Ovs, parse_cycles};
use crate::ovsdb::OvsDatabase;
use crate::ringway::Ringway;

/// A switch that Open vSwitch's tools drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's OVS-DPDK.
    Ovs,
    /// `ringway ovs-vswitchd`.
    Ringway,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ovs, Self::Ringway];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ovs => "OVS-DPDK",
            Self::Ringway => "ringway ovs-vswitchd",
        })
    }
}

/// One that runs in a network namespace, with a database of its own and a bridge, [`BRIDGE`].
#[derive(Debug)]
pub struct Vswitch {
    // Dropped before where it is.
    program: Program,
    host: Netns,
    dir: PathBuf,
    cpu: u32,
    restarts: u32,
}

#[derive(Debug)]
enum Program {
    Ovs(Ovs),
    // Dropped in this order: the switch before its database.
    Ringway { ringway: Option<Ringway>, database: OvsDatabase },
}

impl Vswitch {
    /// Starts it in `dir`; it polls on `cpu`.
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn start(kind: Kind, dir: &Path, cpu: u32) -> Result<Self> {
        let host = Netns::new()?;
        // The bridge is an interface that is up, and says nothing by itself.
        host.sh("for n in all default; do echo 1 >/proc/sys/net/ipv6/conf/$n/disable_ipv6; done")?;
        let program = match kind {
            Kind::Ovs => Program::Ovs(Ovs::start_dpdk_in(&host, dir, cpu)?),
            Kind::Ringway => ringway(&host, dir, cpu)?,
        };
        Ok(Self { program, host, dir: dir.to_owned(), cpu, restarts: 0 })
    }

    /// Ends it as a crash does and starts it again; gives how long it took until all is as the database
    /// says, which `ovs-vsctl` waits for.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<Duration> {
        let begin = match &mut self.program {
            Program::Ovs(ovs) => {
                ovs.kill();
                let begin = Instant::now();
                ovs.start_again()?;
                begin
            }
            Program::Ringway { ringway, .. } => {
                ringway.take().into_iter().for_each(Ringway::kill);
                let begin = Instant::now();
                *ringway = Some(vswitchd(&self.host, &self.dir, self.cpu)?);
                begin
            }
        };
        // Something new: for what is there already nobody waits.
        self.restarts += 1;
        let news = format!("external_ids:restarts={}", self.restarts);
        self.vsctl(&["set", "Open_vSwitch", ".", &news])?;
        Ok(begin.elapsed())
    }

    /// What adds a vhost-user port, whose guest listens: `ovs-vsctl`'s arguments.
    #[must_use]
    pub fn adds(name: &str, number: u32, socket: &Path) -> Vec<String> {
        let path = format!("options:vhost-server-path={}", socket.display());
        let number = format!("ofport_request={number}");
        let kind = "type=dpdkvhostuserclient";
        ["add-port", BRIDGE, name, "--", "set", "Interface", name, kind, &path, &number]
            .map(str::to_owned)
            .to_vec()
    }

    /// Runs `ovs-vsctl`, which waits until the switch is so.
    ///
    /// # Errors
    /// When it fails.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        match &self.program {
            Program::Ovs(ovs) => ovs.vsctl(arguments),
            Program::Ringway { database, .. } => database.vsctl(arguments),
        }
    }

    /// Runs `ovs-ofctl COMMAND` on the bridge.
    ///
    /// # Errors
    /// When it fails.
    pub fn ofctl(&self, command: &str, arguments: &[&str]) -> Result<String> {
        let all = [&[command, BRIDGE], arguments].concat();
        match &self.program {
            Program::Ovs(ovs) => ovs.ofctl(&all),
            Program::Ringway { database, .. } => database.ofctl(&all),
        }
    }

    /// Runs `ovs-appctl`.
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String> {
        match &self.program {
            Program::Ovs(ovs) => ovs.appctl(arguments),
            Program::Ringway { database, .. } => database.appctl(arguments),
        }
    }

    /// Waits until guests have enabled `rings` rings each: those of these ports, at these sockets.
    ///
    /// # Errors
    /// When one has not within a minute.
    pub fn wait_rings(&self, ports: &[(&str, &Path)], rings: usize) -> Result<()> {
        match &self.program {
            Program::Ovs(ovs) => {
                ports.iter().try_for_each(|(_, socket)| ovs.wait_rings(socket, rings))
            }
            Program::Ringway { ringway, .. } => {
                let names: Vec<&str> = ports.iter().map(|(name, _)| *name).collect();
                ringway.iter().try_for_each(|ringway| ringway.wait_rings(&names, rings))
            }
        }
    }

    /// Has cycles and packets be counted from here on.
    ///
    /// # Errors
    /// When that fails.
    pub fn clear_cycles(&self) -> Result<()> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"]).map(drop)
    }

    /// Cycles spent on packets since then, and the packets, by the switch's own count.
    ///
    /// # Errors
    /// When nothing was forwarded.
    pub fn busy_cycles(&self) -> Result<(u64, u64)> {
        parse_cycles(&self.appctl(&["dpif-netdev/pmd-stats-show"])?)
    }

    /// What it has written.
    #[must_use]
    pub fn log(&self) -> String {
        match &self.program {
            Program::Ovs(ovs) => ovs.log(),
            Program::Ringway { ringway, .. } => ringway.iter().map(Ringway::log).collect(),
        }
    }
}

fn ringway(host: &Netns, dir: &Path, cpu: u32) -> Result<Program> {
    let database = OvsDatabase::start(dir)?;
    let ringway = Some(vswitchd(host, dir, cpu)?);
    database.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
    Ok(Program::Ringway { ringway, database })
}

fn vswitchd(host: &Netns, dir: &Path, cpu: u32) -> Result<Ringway> {
    Ringway::vswitchd_with(host, dir, &["--cores", &cpu.to_string()])
}
