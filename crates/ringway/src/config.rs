//! The switch's configuration: a TOML file, added to and overridden by the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use eal::access::{parse_group, parse_mode};
use eal::{Access, CoreList};
use serde::{Deserialize, Deserializer};
use switch::{PortOptions, SwitchConfig};

use crate::cli::{SandboxArgs, SwitchArgs};
use crate::exit::Failure;
use crate::sandbox::SandboxConfig;
use crate::vdpa::placement::{Placement, is_vdpa};

/// Why a vDPA device has no settings of a port.
pub const NO_PORT: &str = "'mtu', 'workers' and 'tx-retries' are for ports; a vDPA device is none";

/// The configuration file. A key that is not here is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Path of the control socket.
    pub control: Option<PathBuf>,
    /// Group whose processes may connect to the control socket.
    #[serde(deserialize_with = "group")]
    pub control_group: Option<u32>,
    /// Permissions of the control socket.
    #[serde(deserialize_with = "mode")]
    pub control_mode: Option<u32>,
    /// One worker on each of these cores.
    #[serde(deserialize_with = "core_list")]
    pub cores: Option<CoreList>,
    /// Number of workers where no cores are given.
    pub workers: Option<usize>,
    /// Never sleep.
    pub busy_poll: Option<bool>,
    /// Microseconds that a worker without frames polls before it sleeps.
    pub idle_after: Option<u64>,
    /// The sockets of ports and vDPA devices.
    pub sockets: SocketsSection,
    /// What the switch gives up.
    pub sandbox: SandboxSection,
    /// The forwarding database.
    pub fdb: FdbSection,
    /// The ports, by name.
    pub ports: PortsSection,
}

/// Section `[sockets]`: who may connect where the device string does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SocketsSection {
    /// Group whose processes may.
    #[serde(deserialize_with = "group")]
    pub group: Option<u32>,
    /// Permissions.
    #[serde(deserialize_with = "mode")]
    pub mode: Option<u32>,
}

/// Section `[sandbox]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SandboxSection {
    /// Whether anything is given up.
    pub enabled: Option<bool>,
    /// Kinds of ports that may be added later.
    pub ports: Vec<String>,
    /// Folders for sockets and files of ports that are added later.
    pub paths: Vec<PathBuf>,
}

/// Section `[fdb]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FdbSection {
    /// Seconds until an entry that is not refreshed is removed.
    pub ageing: Option<u64>,
    /// Largest number of entries.
    pub size: Option<usize>,
    /// Most addresses that a burst of frames may add or move.
    pub learn_per_burst: Option<usize>,
}

/// Sections `[ports.NAME]`, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsSection(Vec<(String, PortSection)>);

/// One section `[ports.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortSection {
    /// Device string.
    pub device: String,
    /// Largest payload in bytes; the device's own when absent.
    pub mtu: Option<u16>,
    /// Workers that poll its receive queues, by number, in turn; spread evenly when absent.
    #[serde(default)]
    pub workers: Vec<usize>,
    /// How often to offer frames again to a port that has no room for any.
    #[serde(default)]
    pub tx_retries: u32,
}

impl<'de> Deserialize<'de> for PortsSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = PortsSection;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tables of the form [ports.NAME]")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<PortsSection, A::Error> {
                let mut ports = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    ports.push(entry);
                }
                Ok(PortsSection(ports))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn core_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CoreList>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_group(&text).map(Some).map_err(serde::de::Error::custom)
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_mode(&text).map(Some).map_err(serde::de::Error::custom)
}

/// A port to open: its name and its device string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name in the switch.
    pub name: String,
    /// Its device string.
    pub device: String,
    /// Settings that are no part of the device string.
    pub options: PortOptions,
}

/// Everything that the switch needs to know, from file and command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Path of the control socket.
    pub control: PathBuf,
    /// Who may connect to it.
    pub control_access: Access,
    /// Who may connect to the sockets of ports that do not say it themselves.
    pub sockets: Access,
    /// What the switch gives up.
    pub sandbox: SandboxConfig,
    /// One worker on each of these cores.
    pub cores: CoreList,
    /// Number of workers where there are no cores.
    pub workers: usize,
    /// Never sleep.
    pub busy_poll: bool,
    /// Seconds until an entry of the forwarding database that is not refreshed is removed; 0 for
    /// never.
    pub ageing: u64,
    /// Largest number of entries in the forwarding database.
    pub fdb_size: usize,
    /// Most addresses that a burst of frames may add or move there.
    pub learn_per_burst: usize,
    /// How long a worker without frames polls before it sleeps.
    pub idle_after: Duration,
    /// The ports, in order.
    pub ports: Vec<PortConfig>,
}

/// Permissions of the control socket when nobody says otherwise: its owner alone.
const CONTROL_MODE: u32 = 0o600;

impl Config {
    /// Puts the file, if any, and the command line together and checks the result.
    pub fn load(args: &SwitchArgs, control: Option<PathBuf>) -> Result<Self, Failure> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let PortsSection(sections) = file.ports;
        let mut ports: Vec<PortConfig> = sections
            .into_iter()
            .map(|(name, section)| {
                let options = PortOptions {
                    mtu: section.mtu,
                    workers: section.workers,
                    tx_retries: section.tx_retries,
                    ..PortOptions::default()
                };
                PortConfig { name, device: section.device, options }
            })
            .collect();
        ports.extend(args.port.iter().cloned());
        let defaults = SwitchConfig::default();
        let config = Self {
            control: crate::control::path::resolve(control.or(file.control)),
            control_access: Access { group: args.control_group, mode: args.control_mode }
                .or(Access { group: file.control_group, mode: file.control_mode })
                .or(Access { group: None, mode: Some(CONTROL_MODE) }),
            sockets: args
                .sockets
                .access()
                .or(Access { group: file.sockets.group, mode: file.sockets.mode }),
            sandbox: sandbox(&args.sandbox, file.sandbox),
            cores: args.cores.clone().or(file.cores).unwrap_or_default(),
            workers: args.workers.or(file.workers).unwrap_or(defaults.workers),
            busy_poll: args.busy_poll || file.busy_poll.unwrap_or(false),
            ageing: args.ageing.or(file.fdb.ageing).unwrap_or(defaults.ageing.as_secs()),
            fdb_size: args.fdb_size.or(file.fdb.size).unwrap_or(defaults.fdb_limit),
            learn_per_burst: file.fdb.learn_per_burst.unwrap_or(defaults.learn_per_burst),
            idle_after: file.idle_after.map_or(defaults.idle_after, Duration::from_micros),
            ports,
        };
        config.check()?;
        Ok(config)
    }

    /// The part that the switch itself wants.
    pub fn switch(&self) -> SwitchConfig {
        SwitchConfig {
            cores: self.cores.as_slice().to_vec(),
            workers: self.workers,
            fdb_limit: self.fdb_size,
            ageing: Duration::from_secs(self.ageing),
            busy_poll: self.busy_poll,
            sockets: self.sockets,
            learn_per_burst: self.learn_per_burst,
            idle_after: self.idle_after,
        }
    }

    /// Checks what is otherwise noticed when ports are opened.
    pub fn check_ports(&self) -> Result<(), Failure> {
        let config = self.switch();
        config.check().map_err(Failure::usage)?;
        for port in &self.ports {
            let named = |error: String| Failure::usage(format!("port '{}': {error}", port.name));
            if is_vdpa(&port.device) {
                Placement::parse(&port.device).map_err(|error| named(error.to_string()))?;
                if port.options != PortOptions::default() {
                    return Err(named(NO_PORT.to_owned()));
                }
                continue;
            }
            drivers::open::check(&port.device).map_err(|error| named(error.to_string()))?;
            port.options.check(&port.name, config.worker_count()).map_err(Failure::usage)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        self.cores.check_available().map_err(Failure::usage)?;
        for (index, port) in self.ports.iter().enumerate() {
            check_port_name(&port.name).map_err(Failure::usage)?;
            if self.ports.iter().take(index).any(|other| other.name == port.name) {
                return Err(Failure::usage(format!(
                    "port name '{}' is given twice; each port needs a name of its own",
                    port.name
                )));
            }
        }
        Ok(())
    }
}

/// The file's settings and those of the command line, which overrides and adds to them.
fn sandbox(args: &SandboxArgs, file: SandboxSection) -> SandboxConfig {
    let mut config = SandboxConfig {
        enabled: args.sandbox.or(file.enabled).unwrap_or(true),
        ports: file.ports,
        paths: file.paths,
    };
    config.ports.extend(args.allow_port.iter().cloned());
    config.paths.extend(args.allow_path.iter().cloned());
    config
}

/// Whether `name` can be a port's; the error says what was expected.
pub fn check_port_name(name: &str) -> Result<(), String> {
    if switch::is_port_name(name) {
        return Ok(());
    }
    Err(switch::Error::PortName { name: name.to_owned() }.to_string())
}

/// Reads a configuration file.
fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("configuration {}: cannot read it: {error}", path.display()))
    })?;
    parse(&text).map_err(|(line, message)| {
        let place = line.map(|line| format!(":{line}")).unwrap_or_default();
        Failure::usage(format!("configuration {}{place}: {message}", path.display()))
    })
}

/// Parses a configuration; an error comes with the number of its line.
fn parse(text: &str) -> Result<File, (Option<usize>, String)> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map(|span| span.start);
        let before = start.and_then(|start| text.get(..start));
        let line = before.map(|before| before.bytes().filter(|byte| *byte == b'\n').count());
        let content = line.and_then(|line| text.lines().nth(line)).unwrap_or_default().trim();
        (line.map(|line| line.saturating_add(1)), explain(error.message(), content))
    })
}

/// The parser's message with the line in question, and for an unknown key the one that was
/// probably meant.
fn explain(message: &str, line: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        let message =
            ["u16", "u64", "usize"].iter().fold(message.to_owned(), |message, integer| {
                message.replace(&format!("expected {integer}"), "expected a whole number")
            });
        return format!("in '{line}': {message}");
    };
    let mut quoted = rest.split('`').step_by(2);
    let Some(unknown) = quoted.next() else { return message.to_owned() };
    let valid: Vec<&str> = quoted.filter(|name| !name.is_empty()).collect();
    let hint = nearest(unknown, &valid).map(|name| format!("; did you mean '{name}'?"));
    let hint = hint.unwrap_or_default();
    format!("unknown key '{unknown}'{hint} (valid here: {})", valid.join(", "))
}

/// The one of `valid` that is most like `word`, if any is at all.
fn nearest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    valid
        .iter()
        .map(|name| (strsim::jaro_winkler(word, name), *name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_whole_file_is_understood() {
        let file = parse(
            r#"
control = "/run/a.sock"
control-group = "0"
cores = "0-1"
busy-poll = true
[sockets]
group = "root"
mode = "0666"
[sandbox]
ports = ["tap"]
[fdb]
ageing = 10
size = 100
[ports.z]
device = "null:"
[ports.a]
device = "tap:tap0"
"#,
        )
        .unwrap();
        assert_eq!(file.control, Some("/run/a.sock".into()));
        assert_eq!(file.cores, Some("0-1".parse().unwrap()));
        assert_eq!(
            (file.busy_poll, file.fdb.ageing, file.fdb.size),
            (Some(true), Some(10), Some(100))
        );
        assert_eq!((file.control_group, file.control_mode), (Some(0), None));
        assert_eq!((file.sockets.group, file.sockets.mode), (Some(0), Some(0o666)));
        assert_eq!((file.sandbox.enabled, file.sandbox.ports), (None, vec!["tap".to_owned()]));
        let PortsSection(ports) = file.ports;
        let names: Vec<&str> = ports.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a"], "in the order of the file");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one() {
        let (line, message) = parse("cores = \"0\"\n[fdb]\nagein = 3\n").unwrap_err();
        assert_eq!(line, Some(3));
        assert!(message.contains("'agein'; did you mean 'ageing'?"), "{message}");
        let (line, message) = parse("[ports.vm1]\ndevice = \"null:\"\nxyz = 1\n").unwrap_err();
        assert_eq!(line, Some(3));
        assert!(
            message.contains("unknown key 'xyz' (valid here: device, mtu, workers, tx-retries)"),
            "{message}"
        );
    }

    #[test]
    fn wrong_values_are_named_with_their_line() {
        let (line, message) = parse("busy-poll = 3\n").unwrap_err();
        assert_eq!(line, Some(1));
        assert!(message.contains("boolean"), "{message}");
        let (line, message) = parse("\ncores = \"a-b\"\n").unwrap_err();
        assert_eq!(line, Some(2));
        assert!(message.contains("a-b"), "{message}");
        let (line, message) = parse("[sockets]\nmode = \"rw\"\n").unwrap_err();
        assert_eq!(line, Some(2));
        assert!(message.contains("octal permissions"), "{message}");
        let (line, message) = parse("control-group = \"nobody-has-it\"\n").unwrap_err();
        assert_eq!(line, Some(1));
        assert!(message.contains("no such group"), "{message}");
        let (line, _) =
            parse("[ports.a]\ndevice = \"null:\"\n[ports.a]\ndevice = \"null:\"\n").unwrap_err();
        assert_eq!(line, Some(3), "a port that is there twice");
    }

    #[test]
    fn the_command_line_overrides_who_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "control-mode = \"0640\"\n[sockets]\nmode = \"0666\"\n").unwrap();
        let load = |options: &str| {
            let words = ["ringway", "switch", "--config", file.to_str().unwrap()];
            let words = words.into_iter().chain(options.split_whitespace());
            let Command::Switch(args) = Cli::try_parse_from(words).unwrap().command else {
                unreachable!()
            };
            let config = Config::load(&args, None).unwrap();
            (config.control_access, config.switch().sockets)
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
    fn port_names_need_no_quoting() {
        for good in ["vm1", "web-7.prod_x", "0"] {
            assert!(check_port_name(good).is_ok());
        }
        for bad in ["", "-a", "a:b", "a b", "a/b", "a=b", "é", &"x".repeat(33)] {
            assert!(check_port_name(bad).is_err());
        }
    }
}
