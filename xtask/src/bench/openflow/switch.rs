use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use e2e::ovs::{BRIDGE, parse_cycles};
use e2e::ovsdb::environment;
use e2e::{Ovs, OvsDatabase, Ringway};

use super::super::back_end::BACK_END_CPU;
use super::bridge::PORTS;

/// A switch that Open vSwitch's tools drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ovs,
    Ringway,
}

impl Kind {
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

/// One that runs, with a bridge and a vhost-user port for each of two guests, which listen.
#[derive(Debug)]
pub struct Running {
    program: Program,
    dir: PathBuf,
}

#[derive(Debug)]
enum Program {
    Ovs(Ovs),
    // Dropped in this order: the switch before its database.
    Ringway(Ringway, OvsDatabase),
}

impl Running {
    /// Starts it with its database in `dir`.
    pub fn start(kind: Kind, dir: &Path) -> Result<Self> {
        let program = match kind {
            Kind::Ovs => Program::Ovs(Ovs::start(dir, BACK_END_CPU)?),
            Kind::Ringway => ringway(dir)?,
        };
        let running = Self { program, dir: dir.to_owned() };
        for ((port, number), socket) in PORTS.iter().zip(1..).zip(running.sockets()) {
            let path = format!("options:vhost-server-path={}", socket.display());
            let number = format!("ofport_request={number}");
            let kind = "type=dpdkvhostuserclient";
            running.vsctl(&[
                "add-port",
                BRIDGE,
                port,
                "--",
                "set",
                "Interface",
                port,
                kind,
                &path,
                &number,
            ])?;
        }
        Ok(running)
    }

    /// Where the guests listen.
    pub fn sockets(&self) -> [PathBuf; 2] {
        ["s0", "s1"].map(|name| self.dir.join(name))
    }

    /// Runs `ovs-vsctl`, which waits until the switch is so.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        match &self.program {
            Program::Ovs(ovs) => ovs.vsctl(arguments),
            Program::Ringway(_, database) => database.vsctl(arguments),
        }
    }

    /// Runs `ovs-ofctl COMMAND` on the bridge.
    pub fn ofctl(&self, command: &str, arguments: &[&str]) -> Result<String> {
        let all = [&[command, BRIDGE], arguments].concat();
        match &self.program {
            Program::Ovs(ovs) => ovs.ofctl(&all),
            Program::Ringway(_, database) => database.ofctl(&all),
        }
    }

    fn appctl(&self, arguments: &[&str]) -> Result<String> {
        match &self.program {
            Program::Ovs(ovs) => ovs.appctl(arguments),
            Program::Ringway(_, database) => database.appctl(arguments),
        }
    }

    /// Waits until the guests have enabled that many rings each.
    pub fn wait_rings(&self, rings: usize) -> Result<()> {
        match &self.program {
            Program::Ovs(ovs) => {
                self.sockets().iter().try_for_each(|socket| ovs.wait_rings(socket, rings))
            }
            Program::Ringway(ringway, _) => ringway.wait_rings(&PORTS, rings),
        }
    }

    /// Has cycles and packets be counted from here on.
    pub fn clear(&self) -> Result<()> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"]).map(drop)
    }

    /// Cycles spent on packets since then, and the packets, by the switch's own count.
    pub fn busy_cycles(&self) -> Result<(u64, u64)> {
        parse_cycles(&self.appctl(&["dpif-netdev/pmd-stats-show"])?)
    }
}

fn ringway(dir: &Path) -> Result<Program> {
    let database = OvsDatabase::start(dir)?;
    let (cpu, control) = (BACK_END_CPU.to_string(), dir.join("ringway.ctl"));
    let mut command = Command::new(e2e::ringway::binary()?);
    command.args(["ovs-vswitchd", "--pidfile", "--cores", &cpu, "--control"]).arg(&control);
    let ringway = Ringway::vswitchd_by(environment(command, dir), &control)?;
    database.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
    Ok(Program::Ringway(ringway, database))
}
