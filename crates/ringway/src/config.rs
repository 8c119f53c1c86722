//! The switch's configuration: a TOML file, added to and overridden by the command line.

use std::path::{Path, PathBuf};

use daemon::file::{File, vdpa_of};
use daemon::state::{Fdb, Sandbox, Sockets};
use daemon::vdpa::is_vdpa;
use daemon::{Port, State, check};
use eal::Access;

use crate::cli::SwitchArgs;
use crate::control::path::resolve;
use crate::exit::Failure;

/// Permissions of the control socket when nobody says otherwise: its owner alone.
const CONTROL_MODE: u32 = 0o600;

/// A port, or vDPA device, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its device string.
    pub device: String,
}

/// What the file and the command line say.
#[derive(Clone, Debug)]
pub struct Config {
    /// Both together, with every default filled in.
    pub state: State,
    file: Option<File>,
}

impl Config {
    /// Puts the file, if any, and the command line together and checks the result.
    pub fn load(args: &SwitchArgs, control: Option<PathBuf>) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(File::read).transpose().map_err(Failure::usage)?;
        Self::of(overlay(args, control).map_err(Failure::usage)?, file)
    }

    fn of(args: State, file: Option<File>) -> Result<Self, Failure> {
        let base = file.as_ref().map(|file| file.state.clone()).unwrap_or_default();
        let state = args.over(base);
        let mut config = Self { state: State::default(), file };
        config.state = with_access(state.map_err(|error| config.usage(&error))?).resolved();
        let checked = check::check(&State::default(), &config.state);
        checked.map_err(|error| config.usage(&error))?;
        Ok(config)
    }

    /// What a file says alone.
    pub fn of_file(path: &Path) -> Result<Self, Failure> {
        Self::of(State::default(), Some(File::read(path).map_err(Failure::usage)?))
    }

    /// A mistake in the configuration, with its line if it is in the file.
    fn usage(&self, error: &daemon::Error) -> Failure {
        let file = self.file.as_ref();
        Failure::usage(file.map_or_else(|| error.to_string(), |file| file.explain(error)))
    }
}

/// Where a running switch has its configuration from.
#[derive(Debug)]
pub struct Source {
    /// `None`: neither from a file nor from a command line of ours.
    args: Option<SwitchArgs>,
    /// What it said when it was read last.
    last: State,
}

impl Source {
    /// The command line that a switch was started with, and what it and the file said then.
    pub fn new(args: &SwitchArgs, config: &Config) -> Self {
        let mut args = args.clone();
        // Whoever asks may be in another folder.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        args.config = args.config.map(absolute);
        Self { args: Some(args), last: config.state.clone() }
    }

    /// Somebody else decides what a switch is to be, which was `state` at the start.
    pub const fn of_state(state: State) -> Self {
        Self { args: None, last: state }
    }

    /// The path of the file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.args.as_ref()?.config.as_deref()
    }

    /// The names of ports and vDPA devices that are on the command line.
    pub fn arguments(&self) -> Vec<String> {
        let ports = self.args.iter().flat_map(|args| &args.port);
        ports.map(|port| port.name.clone()).collect()
    }

    /// What file and command line say now.
    pub fn read(&self) -> Result<State, Failure> {
        let Some(args) = &self.args else { return Ok(self.last.clone()) };
        Config::load(args, args.control.control.clone()).map(|config| config.state)
    }

    /// What they said when they were read last.
    pub const fn last(&self) -> &State {
        &self.last
    }

    /// They were read.
    pub fn set_last(&mut self, state: State) {
        self.last = state;
    }

    /// An error about what they say, with its line in the file.
    pub fn explain(&self, error: &daemon::Error) -> String {
        let file = self.file().and_then(|path| File::read(path).ok());
        file.map_or_else(|| error.to_string(), |file| file.explain(error))
    }
}

/// What the command line says.
fn overlay(args: &SwitchArgs, control: Option<PathBuf>) -> Result<State, daemon::Error> {
    let mut state = State {
        control,
        control_group: args.control_group,
        control_mode: args.control_mode,
        cores: args.cores.clone(),
        workers: args.workers,
        busy_poll: args.busy_poll.then_some(true),
        metrics: args.metrics.section(),
        sockets: Sockets { group: args.sockets.socket_group, mode: args.sockets.socket_mode },
        sandbox: Sandbox {
            enabled: args.sandbox.sandbox,
            ports: args.sandbox.allow_port.clone(),
            paths: args.sandbox.allow_path.clone(),
        },
        fdb: Fdb { ageing: args.ageing, size: args.fdb_size, learn_per_burst: None },
        ..State::default()
    };
    for Named { name, device } in &args.port {
        add(&mut state, name, Port::new(device))?;
    }
    Ok(state)
}

/// Adds a port, or the vDPA device that its device string means.
pub fn add(state: &mut State, name: &str, port: Port) -> Result<(), daemon::Error> {
    check::check_name(name)?;
    if is_vdpa(&port.device) {
        state.add_vdpa(name, vdpa_of(name, &port)?)
    } else {
        state.add_port(name, port)
    }
}

/// The state with the path of the control socket and who may connect there.
fn with_access(state: State) -> State {
    let given = Access { group: state.control_group, mode: state.control_mode };
    let Access { group, mode } = given.or(Access { group: None, mode: Some(CONTROL_MODE) });
    let control = Some(resolve(state.control));
    State { control, control_group: group, control_mode: mode, ..state }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn load(line: &[&str]) -> Result<State, Failure> {
        let Command::Switch(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!()
        };
        Config::load(&args, args.control.control.clone()).map(|config| config.state)
    }

    #[test]
    fn the_command_line_overrides_who_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "control-mode = \"0640\"\n[sockets]\nmode = \"0666\"\n").unwrap();
        let load = |options: &str| {
            let words = ["ringway", "switch", "--config", file.to_str().unwrap()];
            let words: Vec<&str> = words.into_iter().chain(options.split_whitespace()).collect();
            let state = load(&words).unwrap();
            let control = Access { group: state.control_group, mode: state.control_mode };
            (control, state.switch().sockets)
        };
        let access = |group, mode| Access { group, mode: Some(mode) };
        assert_eq!(load(""), (access(None, 0o640), access(None, 0o666)));
        assert_eq!(
            load("--control-group 7 --socket-mode 0600"),
            (access(Some(7), 0o660), access(None, 0o600))
        );
        assert_eq!(load("--socket-group 8").1, access(Some(8), 0o660));
        std::fs::write(&file, "").unwrap();
        assert_eq!(load(""), (access(None, 0o600), Access::default()));
    }

    #[test]
    fn the_command_line_adds_ports_and_a_mistake_is_told_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let path = file.to_str().unwrap();
        let text = "[ports.a]\ndevice = \"null:\"\nworkers = [0, 1]\n";
        std::fs::write(&file, text).unwrap();
        let switch =
            |options: &[&str]| load(&[&["ringway", "switch", "--config", path], options].concat());
        let state = switch(&["--workers", "2", "-p", "b=null:"]).unwrap();
        let names: Vec<&String> = state.ports.keys().collect();
        assert_eq!(names, ["a", "b"]);
        for (options, expected) in [
            (&["--workers", "2", "-p", "a=null:"][..], "'a' is given twice"),
            (&["-p", "b=null:"], "c.toml:3: port 'a': there is no worker 1"),
            (&["--workers", "2", "-p", "c=nul:"], "did you mean 'null'?"),
            (&["--workers", "2", "-p", "c=null:", "-p", "c=null:"], "'c' exists already"),
            (&["--workers", "200"], "number of workers is 200: expected 1 to 128"),
        ] {
            let error = switch(options).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)));
            assert!(error.to_string().contains(expected), "{options:?}: {error}");
        }
    }
}
