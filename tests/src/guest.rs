use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use crate::ping;
use crate::process::{Process, tail};

/// What a command in a guest gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit status of the shell that ran it.
    pub status: i32,
    /// Standard output and standard error.
    pub text: String,
}

/// What lines of the agent's own begin with.
const CONTROL: char = '\u{2}';

/// The agent's word that it takes commands.
const READY: &str = "\u{2}READY\n";

/// A command that a guest is working on.
#[derive(Debug)]
#[must_use = "the guest runs one command at a time: take the output before the next"]
pub struct Running {
    id: u64,
    command: String,
}

/// The connection to the agent of a guest (see `guest/init`).
#[derive(Debug)]
pub struct Agent {
    stream: BufReader<UnixStream>,
    next: u64,
}

/// Accepts one connection within `limit`.
///
/// # Errors
/// When nobody connects.
pub fn accept(listener: &UnixListener, limit: Duration) -> Result<UnixStream> {
    let mut ready = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    ensure!(poll(&mut ready, Some(&limit.try_into()?))? > 0, "no connection within {limit:?}");
    Ok(listener.accept()?.0)
}

/// Makes a listening socket at `path`.
///
/// # Errors
/// When the path is taken or too long.
pub fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

impl Agent {
    /// An agent that talks over `stream`.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream), next: 0 }
    }

    /// Waits until the guest has booted, or booted again.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        // What was under way before a reset may come first.
        while !self.line(deadline)?.ends_with(READY) {}
        Ok(())
    }

    /// Starts a command and does not wait for it.
    ///
    /// # Errors
    /// When the agent cannot be reached.
    pub fn begin(&mut self, command: &str) -> Result<Running> {
        self.next += 1;
        let line = format!("{} {}\n", self.next, escaped(command));
        self.stream.get_mut().write_all(line.as_bytes()).context("the guest is gone")?;
        Ok(Running { id: self.next, command: command.to_owned() })
    }

    /// Waits for the end of a command.
    ///
    /// # Errors
    /// When it takes longer than `limit`, or the guest goes away or starts again.
    pub fn finish(&mut self, running: &Running, limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        let end = format!("{CONTROL}DONE {} ", running.id);
        let mut text = String::new();
        loop {
            let line = self
                .line(deadline)
                .with_context(|| format!("no end of {:?} within {limit:?}", running.command))?;
            if let Some(status) = line.strip_prefix(&end) {
                // What comes before the end is a line of its own.
                text.pop();
                return Ok(Output { status: status.trim_end().parse()?, text });
            }
            ensure!(!line.contains(CONTROL), "unexpected answer from the guest: {line:?}");
            text += &line;
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            self.set_deadline(deadline)?;
            let n = self.stream.read_until(b'\n', &mut line).context("no answer from the guest")?;
            ensure!(n > 0, "the guest has closed the connection");
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn set_deadline(&self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the time is over");
        Ok(self.stream.get_ref().set_read_timeout(Some(left))?)
    }
}

/// How long a guest may take to boot: 6 to 10 s of a core under emulation, and
/// several may share the machine's cores with a polling worker.
pub const BOOT: Duration = Duration::from_secs(120);

/// How long a command in a guest may take, unless it is told.
const COMMAND: Duration = Duration::from_secs(60);

/// A running Linux, of whatever kind its machine is, that takes commands.
#[derive(Debug)]
pub struct Guest {
    name: String,
    process: Process,
    agent: Agent,
    /// The file that the console goes to, where it is not the output of the process.
    console: Option<PathBuf>,
}

impl Guest {
    /// The guest that `process` is the machine of.
    #[must_use]
    pub fn new(name: &str, process: Process, agent: Agent, console: Option<PathBuf>) -> Self {
        Self { name: name.to_owned(), process, agent, console }
    }

    /// The name that stands for it in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the guest takes commands.
    ///
    /// # Errors
    /// When it does not within [`BOOT`]; the message has the end of its console.
    pub fn wait_boot(&mut self) -> Result<()> {
        self.agent.wait_ready(BOOT).with_context(|| self.state())
    }

    /// Runs a shell command in the guest and gives its output, whatever its status.
    ///
    /// # Errors
    /// When it takes longer than a minute or the guest is gone.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        let running = self.begin(command)?;
        self.finish(&running, COMMAND)
    }

    /// Runs a shell command in the guest that must end with status 0; gives its output.
    ///
    /// # Errors
    /// As [`Self::run`], and when the status is another.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        self.sh_within(command, COMMAND)
    }

    /// As [`Self::sh`], for a command that may take as long as `limit`.
    ///
    /// # Errors
    /// As there.
    pub fn sh_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let running = self.begin(command)?;
        let Output { status, text } = self.finish(&running, limit)?;
        if status != 0 {
            bail!("guest {}: {command:?} ended with status {status}: {text}", self.name);
        }
        Ok(text)
    }

    /// Starts a command and does not wait, so that commands run in several guests at once.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn begin(&mut self, command: &str) -> Result<Running> {
        self.agent.begin(command).with_context(|| self.state())
    }

    /// Waits for the end of a command.
    ///
    /// # Errors
    /// When it takes longer than `limit`.
    pub fn finish(&mut self, running: &Running, limit: Duration) -> Result<Output> {
        self.agent.finish(running, limit).with_context(|| self.state())
    }

    /// Starts a program that goes on beside what comes next: its output is in `/tmp/NAME.log`, and its
    /// process id in `/tmp/NAME.pid`. When this returns, nothing is in the log of the program that had
    /// the name before, so that whoever waits for a line there waits for this one's.
    ///
    /// # Errors
    /// As [`Self::sh`].
    pub fn spawn(&mut self, name: &str, line: &str) -> Result<()> {
        // A redirection is made by the process that is started, whenever it gets to that.
        let line =
            format!(": >/tmp/{name}.log; {line} >>/tmp/{name}.log 2>&1 & echo $! >/tmp/{name}.pid");
        self.sh(&line).map(drop)
    }

    /// Sends `signal` to the program that was [started](Self::spawn) as `name`, and waits until it is
    /// gone.
    ///
    /// # Errors
    /// As [`Self::sh`].
    pub fn end(&mut self, name: &str, signal: &str) -> Result<()> {
        let line = format!(
            "p=$(cat /tmp/{name}.pid); kill -{signal} $p; while [ -d /proc/$p ]; do usleep 10000; done"
        );
        self.sh(&line).map(drop)
    }

    /// A counter of `/sys/class/net/IF/statistics`.
    ///
    /// # Errors
    /// When there is no such interface or counter.
    pub fn counter(&mut self, interface: &str, name: &str) -> Result<u64> {
        let text = self.sh(&format!("cat /sys/class/net/{interface}/statistics/{name}"))?;
        text.trim().parse().with_context(|| format!("{interface} {name}: {text:?}"))
    }

    /// Pings `address` and demands every answer, as [`ping::line`] does; gives what ping prints.
    ///
    /// # Errors
    /// When an answer is missing.
    pub fn ping(&mut self, address: &str, options: &str) -> Result<String> {
        self.sh_within(&ping::line("ping", address, options)?, 2 * COMMAND)
    }

    /// Ends the machine at once, as if its program had crashed.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether the machine's program still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The process id of the machine's program.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What is known about it, for messages.
    #[must_use]
    pub fn state(&self) -> String {
        let console = self.console.as_ref().and_then(|path| std::fs::read(path).ok());
        let console = String::from_utf8_lossy(&console.unwrap_or_default()).into_owned();
        let (name, log) = (&self.name, self.process.log());
        let (console, log) = (tail(&console, 3000), tail(&log, 3000));
        format!("guest {name}; console ends with:\n{console}\nits program says: {log}")
    }
}

/// A text as a format of printf, on one line and without blanks.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'%');
    let escape = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("\\{byte:03o}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_answer_is_matched_to_its_command_and_a_restart_noticed() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut agent = Agent::new(ours);
        let limit = Duration::from_secs(60);
        theirs.write_all(b"DONE\n\x02READY\n").unwrap();
        agent.wait_ready(limit).unwrap();
        let running = agent.begin("printf 'hello\\n'").unwrap();
        theirs.write_all(b"hello\n\n\x02DONE 1 3\n\n\x02DONE 2 0\n").unwrap();
        let output = agent.finish(&running, limit).unwrap();
        assert_eq!((output.status, output.text.as_str()), (3, "hello\n"));
        let mut line = [0; 25];
        theirs.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"1 printf\\040'hello\\134n'\n");
        let running = agent.begin("true").unwrap();
        assert_eq!(agent.finish(&running, limit).unwrap().text, "");
        let running = agent.begin("true").unwrap();
        theirs.write_all(b"\x02READY\n").unwrap();
        assert!(agent.finish(&running, limit).is_err());
        let running = agent.begin("true").unwrap();
        assert!(agent.finish(&running, Duration::from_millis(20)).is_err());
    }
}
