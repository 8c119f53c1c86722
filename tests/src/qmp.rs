use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A connection to QEMU's machine protocol.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode.
    ///
    /// # Errors
    /// When QEMU does not answer within a minute.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.read()?;
        ensure!(greeting.get("QMP").is_some(), "not a QMP greeting: {greeting}");
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives its answer.
    ///
    /// # Errors
    /// When QEMU refuses it or is gone.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}").context("QEMU is gone")?;
        loop {
            let mut answer = self.read()?;
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("QMP {command}: {error}");
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Waits for an event, also among those that came with earlier answers.
    ///
    /// # Errors
    /// When it does not come within `limit` of the one before.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
            return Ok(self.events.remove(at));
        }
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        loop {
            let event = self.read().with_context(|| format!("waited for the event {name}"))?;
            if event["event"] == name {
                return Ok(event);
            }
            self.events.push(event);
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "QEMU has closed the QMP connection");
        Ok(serde_json::from_str(&line)?)
    }
}
