//! The database of Open vSwitch, with or without a switch.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Process, run};

/// The schema of Debian's Open vSwitch.
pub const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

const LIMIT: Duration = Duration::from_secs(60);

/// An `ovsdb-server` of its own, with its folder apart from any that the machine may run.
#[derive(Debug)]
pub struct OvsDatabase {
    server: Process,
    dir: PathBuf,
}

impl OvsDatabase {
    /// Makes an empty database in `dir` and serves it at `dir/db.sock`.
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn start(dir: &Path) -> Result<Self> {
        run(Command::new("ovsdb-tool").arg("create").arg(dir.join("conf.db")).arg(SCHEMA))?;
        let database = Self { server: serve(dir)?, dir: dir.to_owned() };
        database.vsctl(&["--no-wait", "init"]).with_context(|| database.server.log())?;
        Ok(database)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("db.sock")
    }

    /// Kills the server and starts it again with the same content.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.server.kill();
        std::fs::remove_file(self.socket())?;
        self.server = serve(&self.dir)?;
        Ok(())
    }

    /// Runs `ovs-vsctl` and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.vsctl_command(arguments))
    }

    /// `ovs-vsctl` with `arguments`, to be run.
    #[must_use]
    pub fn vsctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db=unix:{}", self.socket().display())).arg("--timeout=60");
        command.args(arguments);
        environment(command, &self.dir)
    }

    /// Runs `ovs-appctl` on the switch of this database and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ovs-appctl");
        command.args(["--timeout=60", "-t", "ovs-vswitchd"]).args(arguments);
        run(&mut environment(command, &self.dir))
    }

    /// Runs `ovs-ofctl` on a bridge of the switch of this database and gives its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ofctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ovs-ofctl");
        command.arg("--timeout=60").args(arguments);
        run(&mut environment(command, &self.dir))
    }

    /// Runs `ovsdb-client` with the server's address between `command` and `arguments`.
    ///
    /// # Errors
    /// When it fails.
    pub fn client(&self, command: &[&str], arguments: &[&str]) -> Result<String> {
        let mut client = Command::new("ovsdb-client");
        client.args(command).arg(format!("unix:{}", self.socket().display())).args(arguments);
        run(&mut environment(client, &self.dir))
    }
}

fn serve(dir: &Path) -> Result<Process> {
    let mut command = Command::new("ovsdb-server");
    command.arg(dir.join("conf.db"));
    command.arg(format!("--remote=punix:{}", dir.join("db.sock").display()));
    command.arg(format!("--unixctl={}", dir.join("ovsdb.ctl").display()));
    command.args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
    let server = Process::start("ovsdb-server", environment(command, dir))?;
    server.wait_for_listener(&dir.join("db.sock"), LIMIT)?;
    Ok(server)
}

/// `command` with all folders of Open vSwitch in `dir`.
#[must_use]
pub fn environment(mut command: Command, dir: &Path) -> Command {
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, dir);
    }
    command
}
