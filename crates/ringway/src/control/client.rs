//! The client's end of the control socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::object;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::path::candidates;
use super::protocol::{Request, Response};
use crate::exit::Failure;

/// How long a switch may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes: a table of a million addresses has room.
const MAX_RESPONSE: u64 = 256 << 20;

/// Whether sudo(8) runs this, for whom other paths are the default.
fn is_by_sudo() -> bool {
    std::env::var_os("SUDO_USER").is_some()
}

const fn is_nobody_there(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// No switch could be reached at these paths.
fn unreachable(missed: &[(PathBuf, ErrorKind, String)]) -> Failure {
    let places = missed.iter().map(|(path, _, error)| format!("{}: {error}", path.display()));
    let places = places.collect::<Vec<_>>().join("; nor at ");
    let hint = match missed.last().map(|(_, kind, _)| *kind) {
        Some(ErrorKind::PermissionDenied) => "run this as the user who runs the switch, or as root",
        _ if is_by_sudo() => {
            "is 'ringway switch' running, with the same --control? sudo drops the variables \
             RINGWAY_CONTROL and XDG_RUNTIME_DIR: name the socket by --control"
        }
        _ => "is 'ringway switch' running, with the same --control?",
    };
    Failure::runtime(format!("cannot reach a switch at {places}; {hint}"))
}

/// A connection to a running switch.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the switch whose control socket was named (`given`), else to the user's own, else
    /// to the service.
    pub fn connect(given: Option<PathBuf>) -> Result<Self, Failure> {
        Self::connect_first(candidates(given))
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connects to the first of `paths` where a switch is.
    fn connect_first(paths: Vec<PathBuf>) -> Result<Self, Failure> {
        let mut missed = Vec::new();
        for path in paths {
            match UnixStream::connect(&path) {
                Ok(stream) => return Self::on(stream, path),
                Err(error) => {
                    missed.push((path, error.kind(), error.to_string()));
                    // Where there is one that one may not use, no other is meant.
                    if !is_nobody_there(error.kind()) {
                        break;
                    }
                }
            }
        }
        Err(unreachable(&missed))
    }

    fn on(stream: UnixStream, path: PathBuf) -> Result<Self, Failure> {
        let client = Self { path, reader: BufReader::new(stream) };
        let stream = client.reader.get_ref();
        stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| client.broken(&error))?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(|error| client.broken(&error))?;
        Ok(client)
    }

    /// Sends a request and returns the answer as it is.
    pub fn ask_raw(&mut self, request: &Request) -> Result<Value, Failure> {
        let mut line = serde_json::to_vec(request).map_err(Failure::runtime)?;
        line.push(b'\n');
        self.reader.get_ref().write_all(&line).map_err(|error| self.broken(&error))?;
        let mut answer = String::new();
        let read = self.reader.by_ref().take(MAX_RESPONSE).read_line(&mut answer);
        let read = read.map_err(|error| self.broken(&error))?;
        if read == 0 || !answer.ends_with('\n') {
            return Err(self.broken(&"the switch closed the connection before it answered"));
        }
        match serde_json::from_str(&answer) {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Error(refusal)) => Err(Failure::runtime(refusal)),
            Err(error) => Err(self.broken(&format!("not an answer of a switch: {error}"))),
        }
    }

    /// The next event, however long that takes, once this has subscribed; `None` when the switch has
    /// ended.
    pub fn next_event(&mut self) -> Result<Option<Value>, Failure> {
        self.reader.get_ref().set_read_timeout(None).map_err(|error| self.broken(&error))?;
        let mut line = String::new();
        let read = self.reader.by_ref().take(MAX_RESPONSE).read_line(&mut line);
        if read.map_err(|error| self.broken(&error))? == 0 {
            return Ok(None);
        }
        let event = serde_json::from_str(&line);
        event.map(Some).map_err(|error| self.broken(&format!("not an event: {error}")))
    }

    /// Sends a request and returns the answer as what it is expected to be.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        let value = self.ask_raw(request)?;
        self.parse(value)
    }

    /// Makes an answer what it is expected to be.
    pub fn parse<T: DeserializeOwned>(&self, value: Value) -> Result<T, Failure> {
        object::read(value).map_err(|error| {
            self.broken(&format!("unexpected answer ({error}); is the switch of another version?"))
        })
    }

    /// The connection itself, and what has come on it beyond the last answer.
    pub fn into_stream(self) -> Result<(Vec<u8>, UnixStream), Failure> {
        let stream = self.reader.get_ref();
        stream.set_read_timeout(None).map_err(|error| self.broken(&error))?;
        let began = self.reader.buffer().to_vec();
        Ok((began, self.reader.into_inner()))
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::runtime(format!("control socket {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_first_switch_that_is_there_is_the_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        drop(UnixListener::bind(path("left")).unwrap());
        let _own = UnixListener::bind(path("own")).unwrap();
        let _service = UnixListener::bind(path("service")).unwrap();
        let found = |names: &[&str]| {
            let client = Client::connect_first(names.iter().map(|name| path(name)).collect());
            client.map(|client| client.path).map_err(|failure| failure.to_string())
        };
        assert_eq!(found(&["own", "service"]), Ok(path("own")));
        assert_eq!(found(&["none", "service"]), Ok(path("service")));
        assert_eq!(found(&["left", "service"]), Ok(path("service")));
        let message = found(&["none", "left"]).unwrap_err();
        assert!(
            message.contains("none: No such file") && message.contains("; nor at "),
            "{message}"
        );
        // A file where a folder should be is no absence.
        let message = found(&["own/x", "service"]).unwrap_err();
        assert!(!message.contains("nor at"), "{message}");
    }
}
