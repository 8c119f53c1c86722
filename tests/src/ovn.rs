//! OVN: its databases, `ovn-northd` and `ovn-controller`, which drives the switch of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ovsdb::{OvsDatabase, environment};
use crate::peers::find_program;
use crate::process::{Process, run};

const LIMIT: Duration = Duration::from_secs(60);

/// What it is all made of, in Debian's packages `ovn-central` and `ovn-host` and what they need.
pub const PROGRAMS: [&str; 4] = ["ovn-northd", "ovn-controller", "ovn-nbctl", "ovsdb-tool"];

/// OVN with one machine, apart from any other that there may be.
#[derive(Debug)]
pub struct Ovn {
    // Dropped in this order: who asks before who answers.
    controller: Process,
    northd: Process,
    _databases: Process,
    dir: PathBuf,
}

impl Ovn {
    /// Starts it, with all that it keeps in `dir`, so that it drives the switch of `database`. Tunnels would
    /// begin at 127.0.0.1.
    ///
    /// # Errors
    /// When a part does not come up.
    pub fn start(dir: &Path, database: &OvsDatabase) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let remote = format!("unix:{}", dir.join("ovn.sock").display());
        let ids = ["system-id=host", "ovn-encap-type=geneve", "ovn-encap-ip=127.0.0.1"];
        let ids = ids.map(str::to_owned).into_iter().chain([
            format!("ovn-remote=\"{remote}\""),
            "ovn-bridge-datapath-type=netdev".to_owned(),
        ]);
        let ids: Vec<String> = ids.map(|id| format!("external_ids:{id}")).collect();
        let set = ["--no-wait", "set", "Open_vSwitch", "."].into_iter();
        let words: Vec<&str> = set.chain(ids.iter().map(String::as_str)).collect();
        database.vsctl(&words)?;
        let databases = serve(dir)?;
        let mut northd = Command::new("ovn-northd");
        for part in ["nb", "sb"] {
            northd.arg(format!("--ovn{part}-db={remote}"));
        }
        northd.arg(format!("--unixctl={}", dir.join("northd.ctl").display()));
        let northd = Process::start("ovn-northd", quiet(northd, dir))?;
        let mut controller = Command::new("ovn-controller");
        controller.arg(format!("unix:{}", database.socket().display()));
        let controller = quiet(controller, dir);
        // It finds the bridge where the switch is.
        let switch = database.socket();
        let folder = switch.parent().context("the database has a folder")?;
        let controller = Process::start("ovn-controller", environment(controller, folder))?;
        Ok(Self { controller, northd, _databases: databases, dir: dir.to_owned() })
    }

    /// Runs `ovn-nbctl` with the words of `line`, and waits until the switch does what it says.
    ///
    /// # Errors
    /// When it fails, with what the controller has written.
    pub fn nbctl(&self, line: &[&str]) -> Result<String> {
        let mut command = Command::new("ovn-nbctl");
        command.arg(format!("--db=unix:{}", self.dir.join("ovn.sock").display()));
        command.args(["--timeout=60", "--wait=hv"]).args(line);
        run(&mut environment(command, &self.dir)).with_context(|| self.log())
    }

    /// What its controller has written, and what has told it what to do.
    #[must_use]
    pub fn log(&self) -> String {
        self.northd.log() + &self.controller.log()
    }
}

/// Both databases, by one server.
fn serve(dir: &Path) -> Result<Process> {
    let program = find_program("ovn-northd").context("ovn-northd is not installed")?;
    let prefix = program.ancestors().nth(2).context("ovn-northd is in a folder")?;
    let mut command = Command::new("ovsdb-server");
    for part in ["nb", "sb"] {
        let schema = prefix.join(format!("share/ovn/ovn-{part}.ovsschema"));
        let file = dir.join(format!("{part}.db"));
        run(Command::new("ovsdb-tool").arg("create").arg(&file).arg(schema))?;
        command.arg(file);
    }
    let socket = dir.join("ovn.sock");
    command.arg(format!("--remote=punix:{}", socket.display()));
    command.arg(format!("--unixctl={}", dir.join("ovsdb.ctl").display()));
    command.args(["--no-chdir", "-vconsole:warn", "-vsyslog:off"]);
    let server = Process::start("ovsdb-server of OVN", environment(command, dir))?;
    server.wait_for_listener(&socket, LIMIT)?;
    Ok(server)
}

/// With all of OVN's folders in `dir`, and what it tells on standard error.
fn quiet(mut command: Command, dir: &Path) -> Command {
    for variable in ["OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR", "OVN_SYSCONFDIR"] {
        command.env(variable, dir);
    }
    command.args(["-vconsole:info", "-vsyslog:off"]);
    environment(command, dir)
}
