//! OVN: its databases, `ovn-northd`, and an `ovn-controller` for each machine, which drives its switch.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ovsdb::{OvsDatabase, environment};
use crate::peers::find_program;
use crate::process::{Process, run};

const LIMIT: Duration = Duration::from_secs(60);

/// What it is all made of, in Debian's packages `ovn-central`, `ovn-host` and `ovn-common` and what they
/// need; and what sets up the wire between two machines.
pub const PROGRAMS: [&str; 6] =
    ["ovn-northd", "ovn-controller", "ovn-nbctl", "ovn-sbctl", "ovsdb-tool", "ethtool"];

/// OVN with the machines that it drives, apart from any other that there may be.
#[derive(Debug)]
pub struct Ovn {
    // Dropped in this order: who asks before who answers.
    controllers: Vec<(&'static str, Process)>,
    northd: Process,
    _databases: Process,
    dir: PathBuf,
}

/// A machine as the others know it.
#[derive(Debug)]
pub struct Chassis {
    /// Its name.
    pub name: &'static str,
    /// What tunnels to it are.
    pub encap: &'static str,
    /// Where they end.
    pub ip: &'static str,
}

impl Ovn {
    /// Starts it without any machine, with all that it keeps in `dir`.
    ///
    /// # Errors
    /// When a part does not come up.
    pub fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let databases = serve(dir)?;
        let mut northd = Command::new("ovn-northd");
        let remote = format!("unix:{}", dir.join("ovn.sock").display());
        for part in ["nb", "sb"] {
            northd.arg(format!("--ovn{part}-db={remote}"));
        }
        northd.arg(format!("--unixctl={}", dir.join("northd.ctl").display()));
        let northd = Process::start("ovn-northd", quiet(northd, dir))?;
        Ok(Self { controllers: Vec::new(), northd, _databases: databases, dir: dir.to_owned() })
    }

    /// Has it drive the switch of `database`, and waits until the bridge is there that it makes.
    ///
    /// # Errors
    /// When its controller does not come up.
    pub fn add(&mut self, chassis: &Chassis, database: &OvsDatabase) -> Result<()> {
        let ids = [
            format!("system-id={}", chassis.name),
            format!("ovn-encap-type={}", chassis.encap),
            format!("ovn-encap-ip={}", chassis.ip),
            format!("ovn-remote=\"unix:{}\"", self.dir.join("ovn.sock").display()),
            "ovn-bridge-datapath-type=netdev".to_owned(),
        ];
        let ids = ids.map(|id| format!("external_ids:{id}"));
        let set = ["--no-wait", "set", "Open_vSwitch", "."].into_iter();
        let words: Vec<&str> = set.chain(ids.iter().map(String::as_str)).collect();
        database.vsctl(&words)?;
        let mut controller = Command::new("ovn-controller");
        controller.arg(format!("unix:{}", database.socket().display()));
        let controller = quiet(controller, &self.dir);
        // It finds the bridge where the switch is.
        let switch = database.socket();
        let folder = switch.parent().context("the database has a folder")?;
        let name = format!("ovn-controller of {}", chassis.name);
        let controller = Process::start(name, environment(controller, folder))?;
        self.controllers.push((chassis.name, controller));
        database.vsctl(&["wait-until", "Bridge", "br-int"]).with_context(|| self.log())?;
        Ok(())
    }

    /// Ends what drives a machine's switch as a crash does: nobody says that the machine has gone.
    pub fn kill(&mut self, name: &str) {
        // Dropping it kills it.
        self.controllers.retain(|(own, _)| *own != name);
    }

    /// Runs `ovn-nbctl` with the words of `line`, and waits until all switches do what it says.
    ///
    /// # Errors
    /// When it fails, with what the controller has written.
    pub fn nbctl(&self, line: &[&str]) -> Result<String> {
        self.ask("ovn-nbctl", &[&["--wait=hv"], line].concat())
    }

    /// Runs `ovn-sbctl` with the words of `line`.
    ///
    /// # Errors
    /// When it fails, with what the controllers have written.
    pub fn sbctl(&self, line: &[&str]) -> Result<String> {
        self.ask("ovn-sbctl", line)
    }

    fn ask(&self, program: &str, line: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.arg(format!("--db=unix:{}", self.dir.join("ovn.sock").display()));
        command.arg("--timeout=60").args(line);
        run(&mut environment(command, &self.dir)).with_context(|| self.log())
    }

    /// What its controllers have written, and what has told them what to do.
    #[must_use]
    pub fn log(&self) -> String {
        self.controllers.iter().fold(self.northd.log(), |all, (_, one)| all + &one.log())
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
