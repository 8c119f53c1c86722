//! A desired state as a TOML file.

use std::path::{Path, PathBuf};

use ethdev::hint;
use toml_edit::{Document, Item};

use crate::error::Error;
use crate::state::{Port, State};
use crate::values::{self, Fault};
use crate::vdpa::{Vdpa, is_vdpa};

/// Why a vDPA device has no settings of a port.
pub const NO_PORT: &str =
    "'mtu', 'workers' and whatever else is set here are for ports; a vDPA device is none";

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The number of the line, from 1 on, where that is known.
    pub line: Option<usize>,
    /// What is wrong there, and what was expected.
    pub message: String,
}

/// A configuration file that was read.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    text: String,
    /// What it says.
    pub state: State,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or understood: names the file, the line, and what was expected there.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("configuration {}: cannot read it: {error}", path.display())
        })?;
        let state = parse(&text).map_err(|problem| problem.in_file(path))?;
        Ok(Self { path: path.to_owned(), text, state })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about a part of the state, with the line of that part if it is in this file.
    #[must_use]
    pub fn explain(&self, error: &Error) -> String {
        let Some((part, reason)) = error.part() else { return error.to_string() };
        let Some(line) = line_of(&self.text, part) else { return error.to_string() };
        Problem { line: Some(line), message: reason.to_owned() }.in_file(&self.path)
    }
}

impl Problem {
    fn in_file(&self, path: &Path) -> String {
        let place = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("configuration {}{place}: {}", path.display(), self.message)
    }
}

/// Reads a state from a text.
///
/// # Errors
/// What is wrong with it, with the number of its line.
pub fn parse(text: &str) -> Result<State, Problem> {
    let mut state: State = read(text).map_err(|Fault { span, message }| {
        let line = span.and_then(|span| line_at(text, span.start));
        let message = explain(&message);
        let content = line.and_then(|line| text.lines().nth(line.saturating_sub(1)));
        let message = match content {
            Some(content) if !message.starts_with("unknown key") => {
                format!("in '{}': {message}", content.trim())
            }
            _ => message,
        };
        Problem { line, message }
    })?;
    move_vdpa(&mut state).map_err(|error| {
        let Some((part, reason)) = error.part() else {
            return Problem { line: None, message: error.to_string() };
        };
        Problem { line: line_of(text, part), message: reason.to_owned() }
    })?;
    Ok(state)
}

fn read(text: &str) -> Result<State, Fault> {
    let document = Document::parse(text)
        .map_err(|error| Fault { span: error.span(), message: error.message().to_owned() })?;
    values::read(document.as_item())
}

/// A state as a file would say it.
#[must_use]
pub fn write(state: &State) -> String {
    // Every value of a state is one that TOML has.
    values::document(state).map(|document| document.to_string()).unwrap_or_default()
}

/// Makes vDPA devices of ports whose device strings say so, as they were written before there was
/// a section for them.
fn move_vdpa(state: &mut State) -> Result<(), Error> {
    let moved = state.ports.extract_if(.., |_, port| is_vdpa(&port.device));
    for (name, port) in moved.collect::<Vec<_>>() {
        let device = vdpa_of(&name, &port)?;
        if state.vdpa.insert(name.clone(), device).is_some() {
            let reason = format!("vDPA device '{name}' is given twice");
            return Err(Error::invalid(format!("ports.{name}"), reason));
        }
    }
    Ok(())
}

/// The vDPA device that a port with such a device string means.
///
/// # Errors
/// The string makes no sense, or there are settings of a port.
pub fn vdpa_of(name: &str, port: &Port) -> Result<Vdpa, Error> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("ports.{name}.device"), format!("port '{name}': {error}"))
    };
    if *port != Port::new(port.device.as_str()) {
        return Err(wrong(&NO_PORT));
    }
    Vdpa::parse(&port.device).map_err(|error| wrong(&error))
}

/// The number of the line that byte `offset` is in, from 1 on.
fn line_at(text: &str, offset: usize) -> Option<usize> {
    let before = text.get(..offset)?;
    Some(before.bytes().filter(|byte| *byte == b'\n').count().saturating_add(1))
}

/// The number of the line where `part`, as in `ports.vm1.mtu`, is set; of the closest table around
/// it where it is not.
fn line_of(text: &str, part: &str) -> Option<usize> {
    let document = Document::parse(text).ok()?;
    let mut item: &Item = document.as_item();
    let mut span = None;
    // A name may have dots of its own.
    let mut rest = part;
    while !rest.is_empty() {
        let table = item.as_table_like()?;
        let is_next = |key: &str| {
            rest.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let keys = table.iter().filter(|(key, _)| is_next(key));
        let Some((key, next)) = keys.max_by_key(|(key, _)| key.len()) else { break };
        // Nothing stands for a table that its own tables imply, nor above it.
        let is_implied = next.as_table().is_some_and(toml_edit::Table::is_implicit);
        span = values::span_of(table, key, next).or(span.filter(|_| !is_implied));
        rest = rest.get(key.len()..)?.trim_start_matches('.');
        item = next;
    }
    line_at(text, span?.start)
}

/// What Rust calls numbers, and what people do.
const NUMBERS: [(&str, &str); 4] = [
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
];

/// The parser's message in plain words, and for an unknown key the one that was probably meant.
pub(crate) fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return NUMBERS.iter().fold(message.to_owned(), |message, (rust, plain)| {
            message.replace(&format!("expected {rust}"), &format!("expected {plain}"))
        });
    };
    let mut quoted = rest.split('`').step_by(2);
    let Some(unknown) = quoted.next() else { return message.to_owned() };
    let valid: Vec<&str> = quoted.filter(|name| !name.is_empty()).collect();
    let hint = hint(unknown, valid.iter().copied());
    format!("unknown key '{unknown}'{hint} (valid here: {})", valid.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_whole_file_is_understood_and_written_as_it_was() {
        let text = r#"control = "/run/a.sock"
control-group = "0"
cores = "0-1"
busy-poll = true

[sockets]
group = "0"
mode = "0666"

[metrics]
address = "127.0.0.1:9477"

[sandbox]
ports = ["tap"]

[fdb]
ageing = 10
size = 100

[bridges.red]
group-fwd-mask = 4

[bridges.red.fdb]
ageing = 60

[ports.z]
device = "null:"
bridge = "red"
mtu = 9000
enabled = false
addresses = ["52:54:00:00:00:01", "52:54:00:00:00:02 vlan 7"]

[ports.a]
device = "tap:tap0"

[vdpa.b]
device = "vhost-vdpa:net0"
socket = "/run/b.sock"
client = true
"#;
        let state = parse(text).unwrap();
        assert_eq!(state.control, Some("/run/a.sock".into()));
        assert_eq!(state.cores, Some("0-1".parse().unwrap()));
        let (ageing, size) = (state.fdb.ageing, state.fdb.size);
        assert_eq!((state.busy_poll, ageing, size), (Some(true), Some(10), Some(100)));
        assert_eq!((state.control_group, state.control_mode), (Some(0), None));
        assert_eq!((state.sockets.group, state.sockets.mode), (Some(0), Some(0o666)));
        assert_eq!((state.sandbox.enabled, &state.sandbox.ports[..]), (None, &["tap".into()][..]));
        let names: Vec<&String> = state.ports.keys().collect();
        assert_eq!(names, ["z", "a"], "in the order of the file");
        assert_eq!((state.ports["z"].mtu, state.ports["z"].enabled), (Some(9000), false));
        assert_eq!(state.port_of("red", "52:54:00:00:00:02 vlan 7".parse().unwrap()), Some("z"));
        assert_eq!(state.vdpa["b"].socket, PathBuf::from("/run/b.sock"));
        assert_eq!(write(&state).replace("\n\n", "\n"), text.replace("\n\n", "\n"));
    }

    #[test]
    fn vdpa_devices_may_be_written_as_ports() {
        let text = "[ports.b]\ndevice = \"vdpa:vhost-vdpa:net0,socket=/run/b.sock\"\n";
        let state = parse(text).unwrap();
        assert!(state.ports.is_empty());
        assert_eq!(state.vdpa["b"].device, "vhost-vdpa:net0");
        let problem = parse(&format!("\n{text}mtu = 3\n")).unwrap_err();
        assert_eq!(problem.line, Some(3));
        assert!(problem.message.contains("a vDPA device is none"), "{problem:?}");
        let problem = parse("[ports.b]\nmtu = 3\ndevice = \"vdpa:x\"\n").unwrap_err();
        assert_eq!(problem.line, Some(3));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one() {
        let problem = parse("cores = \"0\"\n[fdb]\nagein = 3\n").unwrap_err();
        assert_eq!(problem.line, Some(3));
        assert!(problem.message.contains("'agein'; did you mean 'ageing'?"), "{problem:?}");
        let problem = parse("[ports.vm1]\ndevice = \"null:\"\nxyz = 1\n").unwrap_err();
        assert_eq!(problem.line, Some(3));
        let expected = "unknown key 'xyz' (valid here: device, bridge, mtu, workers, tx-retries, ";
        assert!(problem.message.contains(expected), "{problem:?}");
    }

    #[test]
    fn wrong_values_are_named_with_their_line() {
        for (text, line, expected) in [
            ("busy-poll = 3\n", 1, "boolean"),
            ("\ncores = \"a-b\"\n", 2, "a-b"),
            ("[ports.a]\ndevice = \"null:\"\nvlan.tag = 4095\n", 3, "a VLAN from 0 to 4094"),
            ("[ports.a]\ndevice = \"null:\"\nvlan = { tags = 5 }\n", 3, "did you mean 'tag'?"),
            ("[mirrors.m]\nselect-port = 1\n", 2, "did you mean 'select-"),
            ("[ports.a]\ndevice = \"null:\"\nlimits.rx-rate = \"1x\"\n", 3, "as in 100Mbit"),
            ("[ports.a]\ndevice = \"null:\"\nguard.allowed-ip = []\n", 3, "mean 'allowed-ips'?"),
            (
                "[ports.a]\ndevice = \"null:\"\nguard.allowed-macs = [\n\"x\"]\n",
                4,
                "such as 52:54:00",
            ),
            ("[ports.a]\ndevice = \"null:\"\nvlan.trunks = \"5-4\"\n", 3, "before it begins"),
            ("[sockets]\nmode = \"rw\"\n", 2, "octal permissions"),
            ("[metrics]\naddress = \"localhost:9\"\n", 2, "as in 127.0.0.1:9477"),
            ("control-group = \"nobody-has-it\"\n", 1, "no such group"),
            ("[ports.a]\ndevice = \"null:\"\nmtu = 99999\n", 3, "a whole number from 0 to 65535"),
            ("[ports]\nvm1 = \"null:\"\n", 2, "expected a table [ports.NAME] with device"),
            ("[ports.a]\ndevice = \"null:\"\naddresses = [\"x\"]\n", 3, "expected 52:54:00"),
            ("[ports.a]\nmtu = 9\n", 1, "missing field `device`"),
            ("[ports.a]\ndevice = \"null:\"\n[ports.a]\ndevice = \"null:\"\n", 3, "a"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.line, Some(line), "{text}: {problem:?}");
            assert!(problem.message.contains(expected), "{text}: {problem:?}");
        }
    }

    #[test]
    fn a_part_is_found_in_the_text() {
        let text = "workers = 1\n[fdb]\nsize = 3\n[ports.a]\nmtu = 1\n[ports.\"a.b\"]\nmtu = 2\n\
                    ports = { c = 4 }\n";
        for (part, line) in [
            ("workers", Some(1)),
            ("fdb.size", Some(3)),
            ("fdb.ageing", Some(2)),
            ("ports.a.mtu", Some(5)),
            ("ports.a.b.mtu", Some(7)),
            ("ports.a.device", Some(4)),
            ("ports.z", None),
            ("cores", None),
        ] {
            assert_eq!(line_of(text, part), line, "{part}");
        }
    }
}
