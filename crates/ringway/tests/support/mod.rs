//! A running switch for the tests, and commands with their output.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of test functions")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

/// The program under test, without settings of whoever runs the tests.
pub fn ringway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.env_remove("RUST_LOG").env_remove("RINGWAY_CONTROL").env("NO_COLOR", "1");
    end_with_test(&mut command);
    command
}

/// Has what `command` starts get SIGKILL when the thread of the test is no more: a test that is killed
/// leaves nothing that goes on.
pub fn end_with_test(command: &mut Command) {
    let test = std::process::id();
    // SAFETY: between fork and exec there are two system calls, without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The test may have ended before that.
            let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
            match parent.and_then(|pid| u32::try_from(pid).ok()) == Some(test) {
                true => Ok(()),
                false => Err(std::io::ErrorKind::NotConnected.into()),
            }
        });
    }
}

/// Runs `ringway ARGS` to its end.
pub fn run(args: &[&str]) -> Output {
    ringway().args(args).stdin(Stdio::null()).output().unwrap()
}

/// Exit status and what it wrote to standard error.
pub fn refusal(args: &[&str]) -> (Option<i32>, String) {
    let output = run(args);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A running `ringway switch`; killed when dropped.
pub struct Switch {
    child: Child,
    pub ready: String,
    pub control: PathBuf,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Switch {
    /// Starts a switch with its control socket in `dir` and waits for its ready line.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_with(ringway(), dir, args)
    }

    /// The same of a command that was prepared.
    pub fn start_with(mut command: Command, dir: &Path, args: &[&str]) -> Self {
        let control = dir.join("control.sock");
        let mut child = command
            .arg("switch")
            .arg("--control")
            .arg(&control)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        let mut switch = Self { child, ready: String::new(), control, errors: Some(errors) };
        match lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => switch.ready = line,
            Err(error) => {
                let _ = switch.child.kill();
                panic!("no ready line ({error}):\n{}", switch.log());
            }
        }
        switch
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs `ringway ARGS --control ..` and returns its output.
    pub fn ask(&self, args: &[&str]) -> Output {
        ringway().args(args).arg("--control").arg(&self.control).output().unwrap()
    }

    /// As `ask`, for what must succeed.
    pub fn tell(&self, args: &[&str]) -> String {
        let output = self.ask(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `ringway show WHAT --json`.
    pub fn show(&self, what: &str) -> serde_json::Value {
        serde_json::from_str(&self.tell(&["show", what, "--json"])).unwrap()
    }

    /// Sends SIGTERM and waits for the end: its status and how long it took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        (self.child.wait().unwrap(), start.elapsed())
    }

    /// What it wrote to standard error; only once it has ended.
    pub fn log(&mut self) -> String {
        self.child.wait().unwrap();
        self.errors.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
