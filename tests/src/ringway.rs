use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::netns::Netns;
use crate::ovsdb::environment;
use crate::peers::workspace;
use crate::process::{Process, run};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(60);

/// The variable that names the binary to test; `cargo xtask test` sets it.
pub const BINARY: &str = "RINGWAY_BIN";

/// The `ringway` binary: the one that [`BINARY`] names, otherwise a release build.
///
/// # Errors
/// When it does not build.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(path.into());
    }
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|e| anyhow!(e))
}

fn build() -> Result<PathBuf> {
    executable(&["build", "--release", "--package", "ringway"], "ringway", "ringway")
}

/// The program of the integration test `test` of a crate, for a guest to run.
///
/// # Errors
/// When it does not build.
pub fn test_program(package: &str, test: &str) -> Result<PathBuf> {
    // With the features that all packages together turn on, as `cargo xtask test` builds them: with
    // those of one package alone everything it needs would be built once more.
    let arguments = ["test", "--no-run", "--workspace", "--features", "ringway-e2e/peers"];
    executable(&[&arguments[..], &["--test", test]].concat(), package, test)
}

/// What cargo builds of the target `name` of a package.
fn executable(arguments: &[&str], package: &str, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(arguments).arg("--message-format=json");
    run(&mut command)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            // The id ends with `#NAME@VERSION`, or with `/NAME#VERSION` where a package is called
            // as its directory.
            let id = message["package_id"].as_str().unwrap_or_default();
            let ends = [format!("#{package}@"), format!("/{package}#")];
            message["target"]["name"] == name && ends.iter().any(|end| id.contains(end))
        })
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo {} names no executable {name}", arguments.join(" ")))
}

/// A command of the binary.
///
/// # Errors
/// When the binary does not build.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    Ok(command)
}

/// A running `ringway switch`.
#[derive(Debug)]
pub struct Ringway {
    process: Process,
    control: PathBuf,
}

/// The counters of a port, from the switch's side: `rx` is what the switch received from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received, without FCS.
    pub rx_bytes: u64,
    /// Received frames that were dropped.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent, without FCS.
    pub tx_bytes: u64,
    /// Frames that should have been sent and were dropped.
    pub tx_dropped: u64,
}

impl Ringway {
    /// Starts a switch with the ports given as `NAME=DEVICE` on `cores`, with its control
    /// socket in `dir`, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up; the message has what it wrote.
    pub fn switch(dir: &Path, ports: &[&str], cores: &str) -> Result<Self> {
        Self::start(Command::new(binary()?), dir, ports, cores)
    }

    /// As [`Self::switch_in`], with the configuration file `text` in place of ports.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn configured_in(netns: &Netns, dir: &Path, text: &str, cores: &str) -> Result<Self> {
        Self::of_file(netns.command(&binary()?.display().to_string()), dir, text, cores)
    }

    /// As [`Self::switch`], with the configuration file `text` in place of ports.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn configured(dir: &Path, text: &str, cores: &str) -> Result<Self> {
        Self::of_file(Command::new(binary()?), dir, text, cores)
    }

    /// As [`Self::configured`], with a clock that can be stopped and put forward.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn adjustable(dir: &Path, text: &str) -> Result<Self> {
        let file = dir.join("ringway.toml");
        std::fs::write(&file, text)?;
        let mut command = Command::new(binary()?);
        command.args(["switch", "--control-time", "--config"]).arg(&file);
        Self::run(command, dir, "0")
    }

    fn of_file(mut command: Command, dir: &Path, text: &str, cores: &str) -> Result<Self> {
        let file = dir.join("ringway.toml");
        std::fs::write(&file, text)?;
        command.args(["switch", "--config"]).arg(&file);
        Self::run(command, dir, cores)
    }

    /// As [`Self::switch`], inside a network namespace.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn switch_in(netns: &Netns, dir: &Path, ports: &[&str], cores: &str) -> Result<Self> {
        let binary = binary()?;
        Self::start(netns.command(&binary.display().to_string()), dir, ports, cores)
    }

    /// Starts `ringway ovs-vswitchd` inside a network namespace, on the database in `dir`, and waits
    /// until it is as that says.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn vswitchd_in(netns: &Netns, dir: &Path) -> Result<Self> {
        Self::vswitchd_with(netns, dir, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn vswitchd_with(netns: &Netns, dir: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = netns.command(&binary()?.display().to_string());
        let control = dir.join("ringway.ctl");
        command.args(["ovs-vswitchd", "--pidfile", "--control"]).arg(&control).args(arguments);
        Self::vswitchd_by(environment(command, dir), &control)
    }

    /// Starts the `ovs-vswitchd` that `command` says, with its control socket at `control`, and waits until
    /// it is ready.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn vswitchd_by(command: Command, control: &Path) -> Result<Self> {
        let process = Process::start("ringway ovs-vswitchd", command)?;
        process.wait_for("the switch is as the database says", 0, LIMIT)?;
        Ok(Self { process, control: control.to_owned() })
    }

    /// Starts the switch that `command` says, with its control socket at `control`, and waits until it
    /// is ready.
    ///
    /// # Errors
    /// As [`Self::switch`].
    pub fn service(command: Command, control: &Path) -> Result<Self> {
        let process = Process::start("ringway switch", command)?;
        // The control socket is there before the ports are, so it is not the sign.
        process.wait_for("ringway switch ready", 0, LIMIT)?;
        Ok(Self { process, control: control.to_owned() })
    }

    fn start(mut command: Command, dir: &Path, ports: &[&str], cores: &str) -> Result<Self> {
        command.arg("switch");
        for port in ports {
            command.args(["--port", port]);
        }
        Self::run(command, dir, cores)
    }

    fn run(mut command: Command, dir: &Path, cores: &str) -> Result<Self> {
        let control = dir.join("ringway.ctl");
        command.args(["--cores", cores, "--control"]).arg(&control);
        Self::service(command, &control)
    }

    /// Waits until the links of all the ports named are up.
    ///
    /// # Errors
    /// When one is not within a minute.
    pub fn wait_links(&self, names: &[&str]) -> Result<()> {
        let up = |ports: &Value, name: &str| {
            let mut ports = ports["ports"].as_array().into_iter().flatten();
            ports.any(|port| port["name"] == name && port["link_up"] == true)
        };
        let mut last = Value::Null;
        wait::until("links", LIMIT, Duration::from_millis(50), || {
            last = self.show("ports")?;
            Ok(names.iter().all(|name| up(&last, name)).then_some(()))
        })
        .with_context(|| format!("{names:?}: {last:#}\n{}", self.process.log()))
    }

    /// Waits until all the vhost-user ports named carry frames on `rings` rings, two for each
    /// queue pair.
    ///
    /// A front-end enables its rings one by one and does not wait for an answer: the link is up
    /// after the first pair, and what goes to a ring that is not enabled yet is lost.
    ///
    /// # Errors
    /// When one does not within a minute.
    pub fn wait_rings(&self, names: &[&str], rings: usize) -> Result<()> {
        let running = format!("{rings} of ");
        let ready = |ports: &Value, name: &str| {
            let mut ports = ports["ports"].as_array().into_iter().flatten();
            let port = ports.find(|port| port["name"] == name);
            let rings = port.and_then(|port| port["details"]["rings"].as_str());
            rings.is_some_and(|rings| rings.starts_with(&running))
        };
        let mut last = Value::Null;
        wait::until("rings", LIMIT, Duration::from_millis(20), || {
            last = self.show("ports")?;
            Ok(names.iter().all(|name| ready(&last, name)).then_some(()))
        })
        .with_context(|| format!("{names:?}: {last:#}\n{}", self.process.log()))
    }

    /// The counters of a port.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn counters(&self, port: &str) -> Result<Counters> {
        let stats = self.show("stats")?;
        let mut ports = stats["ports"].as_array().into_iter().flatten();
        let found = ports.find(|found| found["name"] == port);
        let number = |side: &str, name: &str| found?[side][name].as_u64();
        let counters = || {
            Some(Counters {
                rx_packets: number("rx", "packets")?,
                rx_bytes: number("rx", "bytes")?,
                rx_dropped: number("rx", "dropped")?,
                tx_packets: number("tx", "packets")?,
                tx_bytes: number("tx", "bytes")?,
                tx_dropped: number("tx", "dropped")?,
            })
        };
        counters().with_context(|| format!("no counters of {port} in {stats:#}"))
    }

    /// The sum of a port's counters of its driver's own whose name ends with `suffix`, over all
    /// queues; `side` is `rx` or `tx`.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn extended(&self, port: &str, side: &str, suffix: &str) -> Result<u64> {
        let stats = self.show("stats")?;
        let mut ports = stats["ports"].as_array().into_iter().flatten();
        let all = ports.find(|found| found["name"] == port);
        let all = all.and_then(|port| port["extended"].as_object()).into_iter().flatten();
        let counters: Vec<u64> = all
            .filter(|(name, _)| name.starts_with(side) && name.ends_with(suffix))
            .filter_map(|(_, count)| count.as_u64())
            .collect();
        ensure!(!counters.is_empty(), "no {side} counter ..{suffix} of {port} in {stats:#}");
        Ok(counters.iter().sum())
    }

    /// Runs a further command on the control socket and gives its output,
    /// for example `["show", "ports"]`.
    ///
    /// # Errors
    /// When its status is not 0.
    pub fn client(&self, arguments: &[&str]) -> Result<String> {
        run(command(arguments)?.arg("--control").arg(&self.control))
            .with_context(|| self.process.log())
    }

    /// What `ringway show WHAT --json` prints. It is asked for without that command: who looks again and
    /// again until something has happened would have most of a CPU start programs.
    ///
    /// # Errors
    /// When it is refused or is not JSON.
    pub fn show(&self, what: &str) -> Result<Value> {
        self.ask(&json!({ "command": format!("show-{what}") })).with_context(|| self.process.log())
    }

    /// The value that a request is answered with (docs/control-protocol.md).
    fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.control)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let mut answer: Value = serde_json::from_str(&answer).with_context(|| answer)?;
        ensure!(answer.get("ok").is_some(), "{request}: {answer}");
        Ok(answer["ok"].take())
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
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

    /// Waits for the end.
    ///
    /// # Errors
    /// When it runs for longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.stop(limit)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it at once, as if it had crashed.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

impl Drop for Ringway {
    /// Everything that a switch does under test, it does without a system call that its sandbox
    /// refuses.
    fn drop(&mut self) {
        self.process.assert_nothing_refused();
    }
}
