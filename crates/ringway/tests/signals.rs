//! Signals to every command that holds something: however many come and whichever they are, what
//! it made goes with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of test functions")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::ringway;

const LIMIT: Duration = Duration::from_secs(60);

/// A running command in a session of its own, so that it has no terminal; killed when dropped.
struct Running {
    child: Child,
    output: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts `ringway ARGS` with `dir` for temporary files.
    fn start(dir: &Path, args: &[&str]) -> Self {
        let program = ringway();
        let mut command = std::process::Command::new("setsid");
        command.arg(program.get_program()).args(args).env("TMPDIR", dir);
        command.env_remove("RUST_LOG").env_remove("RINGWAY_CONTROL");
        // A pipe that stays open: the end of input is a wish to end, too.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        support::end_with_test(&mut command);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, output, errors: Some(errors) }
    }

    fn wait_for(&mut self, word: &str) {
        self.wait_for_line(word, |line| line.contains(word));
    }

    /// Waits for a line that is `wanted`; `what` says which.
    fn wait_for_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        loop {
            match self.output.recv_timeout(LIMIT) {
                Ok(line) if wanted(&line) => return,
                Ok(_) => {}
                Err(error) => {
                    let _ = self.child.kill();
                    panic!("no {what:?} ({error}): {}", self.log());
                }
            }
        }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends the signals in turn, again and again, until it has ended.
    fn storm(&mut self, signals: &[Signal]) -> ExitStatus {
        for signal in signals.iter().cycle() {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            self.send(*signal);
            // Not to wait for something: signals that are pending at the same time are one.
            std::thread::sleep(Duration::from_micros(200));
        }
        unreachable!("the signals are given in turn for ever")
    }

    fn log(&mut self) -> String {
        self.errors.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The wishes to end that may come one after the other.
const ENDS: [&[Signal]; 4] = [
    &[Signal::TERM],
    &[Signal::INT],
    &[Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1],
    &[Signal::XCPU, Signal::POWER, Signal::USR2, Signal::ALARM],
];

/// What a command has to do when it is to end, and how to see that it does.
enum Load {
    /// Nothing.
    None,
    /// Traffic from one guest to another, both our own, until this is true of the command and the folder
    /// of its sockets.
    Traffic(fn(&mut Running, &Path)),
    /// The same, until both guests say that a second is over.
    TrafficForASecond,
}

/// Traffic from one guest to another.
const TRAFFIC: [&str; 2] = [
    "gen txonly --port virtio-user:DIR/a.sock --json",
    "gen rxonly --port virtio-user:DIR/b.sock --json",
];

/// Plays `rounds` rounds of: start the command, wait for its word that it is ready, if it has one,
/// start what gives it work, send signals that are to do nothing, then those that end it.
fn ends_well(rounds: usize, args: &str, ready: Option<&str>, load: &Load) {
    for ends in ENDS.iter().cycle().take(rounds) {
        let dir = tempfile::tempdir().unwrap();
        let run = |args: &str| {
            let args = args.replace("DIR", dir.path().to_str().unwrap());
            Running::start(dir.path(), &args.split_whitespace().collect::<Vec<_>>())
        };
        let mut command = run(args);
        if let Some(word) = ready {
            command.wait_for(word);
        }
        let guests = if matches!(load, Load::None) { &[][..] } else { &TRAFFIC };
        let mut guests: Vec<Running> = guests.iter().map(|args| run(args)).collect();
        match load {
            Load::None => {}
            Load::Traffic(flows) => flows(&mut command, dir.path()),
            Load::TrafficForASecond => {
                guests.iter_mut().for_each(|guest| guest.wait_for("interval"));
            }
        }
        for signal in [Signal::USR1, Signal::HUP, Signal::USR2, Signal::ALARM, Signal::IO] {
            command.send(signal);
        }
        let status = command.storm(ends);
        assert_eq!(status.code(), Some(0), "{args:?}, {ends:?}: {status}: {}", command.log());
        drop(guests);
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new(), "{args:?}, {ends:?}: left over");
    }
}

#[test]
fn a_switch_under_load() {
    let args = "switch --control DIR/control.sock --port a=vhost-user:DIR/a.sock \
                --port b=vhost-user:DIR/b.sock";
    let load = Load::Traffic(|_, dir| {
        let control = dir.join("control.sock");
        let show = ["show", "stats", "--json", "--control", control.to_str().unwrap()];
        testkit::wait_for("traffic", || {
            let stats: Value = serde_json::from_slice(&support::run(&show).stdout).unwrap();
            stats["ports"][1]["tx"]["packets"].as_u64() > Some(1_000)
        });
    });
    ends_well(8, args, Some("ready"), &load);
}

#[test]
fn a_forwarder_under_load() {
    let args = "l2fwd --port a=vhost-user:DIR/a.sock --port b=vhost-user:DIR/b.sock \
                --stats 0.1 --json";
    let load = Load::Traffic(|command, _| {
        command.wait_for_line("traffic", |line| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["statistics"]["workers"][0]["frames"].as_u64() > Some(1_000)
        });
    });
    // It is ready once it has links.
    ends_well(4, args, None, &load);
}

#[test]
fn a_generator_under_load() {
    let args = "gen io --port vhost-user:DIR/a.sock --port2 vhost-user:DIR/b.sock --json";
    ends_well(4, args, None, &Load::TrafficForASecond);
}

#[test]
fn a_demo() {
    ends_well(4, "demo --seconds 600 --json", Some("interval"), &Load::None);
}

#[test]
fn vdpa_that_waits_for_commands() {
    ends_well(4, "vdpa --interactive", Some("ready"), &Load::None);
}

#[test]
fn a_hang_up_without_a_terminal_is_logged_and_the_switch_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control.sock");
    let args = ["switch", "--port", "a=null:", "--control", control.to_str().unwrap()];
    let mut switch = Running::start(dir.path(), &args);
    switch.wait_for("ready");
    switch.send(Signal::HUP);
    let show = ["show", "ports", "--json", "--control", control.to_str().unwrap()];
    // Twice: the log line comes before the second answer at the latest.
    for _ in 0..2 {
        assert!(support::run(&show).status.success());
    }
    assert_eq!(switch.storm(&[Signal::TERM]).code(), Some(0));
    let log = switch.log();
    let expected =
        "SIGHUP: nothing is changed: the switch was started without a configuration file";
    assert!(log.contains(expected), "{log}");
}

#[test]
fn a_hang_up_without_a_terminal_has_the_switch_read_its_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (control, file) = (path("control.sock"), path("ringway.toml"));
    // Written as editors and package managers do.
    let write = |text: &str| {
        std::fs::write(path("new"), text).unwrap();
        std::fs::rename(path("new"), &file).unwrap();
    };
    write("[ports.a]\ndevice = \"null:\"\n");
    let mut switch =
        Running::start(dir.path(), &["switch", "--config", &file, "--control", &control]);
    switch.wait_for("ready");
    let version = || {
        let output = support::run(&["config", "show", "--json", "--control", &control]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["version"].as_u64().unwrap()
    };
    write("[ports.b]\ndevice = \"null:\"\nmtu = 9000\n");
    switch.send(Signal::HUP);
    while version() < 2 {}
    let ports = support::run(&["show", "ports", "--json", "--control", &control]);
    let ports: Value = serde_json::from_slice(&ports.stdout).unwrap();
    assert_eq!(
        (&ports["ports"][0]["name"], &ports["ports"][0]["mtu"]),
        (&"b".into(), &9000.into())
    );
    // A mistake changes nothing.
    write("[ports.b]\ndevice = \"nul:\"\n");
    switch.send(Signal::HUP);
    assert_eq!((version(), version()), (2, 2));
    assert_eq!(switch.storm(&[Signal::TERM]).code(), Some(0));
    let log = switch.log();
    assert!(log.contains("port a removed: null:") && log.contains("ringway.toml:2: "), "{log}");
}
