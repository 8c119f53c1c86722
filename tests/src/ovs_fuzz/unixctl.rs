use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Deserializer, Value, json};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Commands of ovs-appctl on one connection, without a program for each.
#[derive(Debug)]
pub struct Unixctl {
    stream: BufReader<UnixStream>,
    next: u64,
}

impl Unixctl {
    /// Connects to a daemon's control socket.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { stream: BufReader::new(stream), next: 0 })
    }

    /// Gives a command and waits for what it says.
    pub fn call(&mut self, command: &str, arguments: &[String]) -> Result<String> {
        self.next += 1;
        let request = json!({ "method": command, "params": arguments, "id": self.next });
        self.stream.get_mut().write_all(request.to_string().as_bytes())?;
        let mut answers = Deserializer::from_reader(&mut self.stream).into_iter::<Value>();
        let answer = answers.next().context("the daemon has closed the connection")??;
        ensure!(answer["error"].is_null(), "{command}: {}", answer["error"]);
        Ok(answer["result"].as_str().unwrap_or_default().to_owned())
    }
}
