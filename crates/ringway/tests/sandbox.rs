//! What a running switch has given up.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{Switch, refusal, ringway};

/// A field of a process's status, or of a thread's, as the kernel tells it.
fn value<'a>(status: &'a str, field: &str) -> &'a str {
    let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_once(':').unwrap().1.trim()
}

fn field(of: &std::path::Path, field: &str) -> String {
    value(&std::fs::read_to_string(of.join("status")).unwrap(), field).to_owned()
}

fn status(switch: &Switch, name: &str) -> String {
    field(format!("/proc/{}", switch.pid()).as_ref(), name)
}

/// That no thread of the process has a privilege, of which there are at least `least`.
fn expect_confined(pid: u32, least: usize) {
    let none = "0".repeat(16);
    // Threads have no more than the one that started them.
    let status = |task: std::io::Result<std::fs::DirEntry>| {
        // One that has just ended has none.
        std::fs::read_to_string(task.ok()?.path().join("status")).ok()
    };
    testkit::wait_for("its threads", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tasks: Vec<String> = tasks.filter_map(status).collect();
        for task in &tasks {
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(value(task, set), none, "{set}");
            }
            assert_eq!((value(task, "NoNewPrivs"), value(task, "Seccomp")), ("1", "2"));
        }
        tasks.len() >= least
    });
}

/// Another command, that runs until it is told to end; killed when dropped.
struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Other {
    /// Starts it and waits until it has said a line that has `sign` in it.
    fn start(args: &[&str], temporary: &std::path::Path, sign: &str) -> Self {
        let mut command = ringway();
        command.args(args).env("TMPDIR", temporary);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self { child, input, output };
        other.wait_for(sign);
        other
    }

    fn wait_for(&mut self, sign: &str) -> String {
        let mut line = String::new();
        while !line.contains(sign) {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "no {sign}: {}", self.errors());
        }
        line
    }

    /// What it wrote to standard error, once it has ended.
    fn errors(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Has it end, which it does well, and without a call that was refused.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let log = self.errors();
        assert!(!log.contains("refused the system call"), "{log}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_switch_of_virtual_machines_keeps_no_privileges() {
    let dir = tempfile::tempdir().unwrap();
    let port = format!("vm1=vhost-user:{}", dir.path().join("vm1").display());
    let mut switch = Switch::start(dir.path(), &["--port", &port]);
    expect_confined(switch.pid(), 3);
    assert_eq!(switch.terminate().0.code(), Some(0));
    let log = switch.log();
    assert!(log.contains("sandbox capabilities=none files=true calls=true"), "{log}");
    assert!(!log.contains("refused the system call"), "{log}");
}

#[test]
fn processes_for_post_copy_are_started_first() {
    let dir = tempfile::tempdir().unwrap();
    let device =
        |name: &str| format!("{name}=vhost-user:{},postcopy=on", dir.path().join(name).display());
    let mut switch = Switch::start(dir.path(), &["--port", &device("vm1")]);
    assert!(switch.ready.contains("1 port,"), "{}", switch.ready);
    switch.tell(&["port", "add", &device("vm2")]);
    let (status, time) = switch.terminate();
    assert_eq!(status.code(), Some(0));
    // Less than it waits for such a process.
    assert!(time < std::time::Duration::from_secs(8), "it took {time:?}");
}

#[test]
fn what_was_given_up_is_named_and_how_to_keep_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let switch = Switch::start(dir.path(), &["--port", "sink=null:"]);
    let add = |name: &str, device: &str| {
        let output = switch.ask(&["port", "add", &format!("{name}={device}")]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let elsewhere = other.path().join("vm1.sock");
    let message = add("vm1", &format!("vhost-user:{}", elsewhere.display()));
    let set = format!("start it with --allow-path {}", other.path().display());
    assert!(message.contains("gave up at its start") && message.contains(&set), "{message}");
    assert!(!elsewhere.exists());
    let message = add("out", &format!("pcap:,tx={}", other.path().join("x.pcap").display()));
    assert!(message.contains("--allow-path"), "{message}");
    let message = add("up", "af-xdp:lo");
    assert!(message.contains("--allow-port af-xdp"), "{message}");
    // Where the switch is anyway, ports are added as before.
    let here = dir.path().join("vm2.sock");
    switch.tell(&["port", "add", &format!("vm2=vhost-user:{}", here.display())]);
    assert!(here.exists());
}

#[test]
fn folders_are_kept_by_option_and_everything_without_the_sandbox() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = other.path().display().to_string();
    let device = |name: &str| format!("{name}=vhost-user:{path}/{name}");
    let switch = Switch::start(dir.path(), &["--allow-path", &path, "--allow-port", "tap"]);
    switch.tell(&["port", "add", &device("vm1")]);
    assert!(other.path().join("vm1").exists());
    let free = Switch::start(other.path(), &["--sandbox", "off"]);
    assert_eq!((status(&free, "NoNewPrivs"), status(&free, "Seccomp")), ("0".into(), "0".into()));
    let nowhere = other.path().join("c").display().to_string();
    let (code, message) = refusal(&["switch", "--allow-port", "tpa", "--control", &nowhere]);
    assert_eq!(code, Some(2));
    assert!(
        message.contains("kind of port 'tpa'") && message.contains("did you mean"),
        "{message}"
    );
}

#[test]
fn other_commands_keep_no_more_than_their_devices_need() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("vhost-user:{}", dir.path().join("vm.sock").display());
    // What it says once its devices carry frames, and how many threads it has by then.
    let commands: [(&[&str], &str, usize); 3] = [
        (&["l2fwd", "-p", &socket, "-p", "null:rx=on", "--wait-link", "0", "--json"], "ready", 3),
        (&["gen", "txonly", "-p", "null:", "--json"], "sent", 2),
        (&["demo", "-s", "60", "--json"], "{", 4),
    ];
    for (args, sign, threads) in commands {
        let other = Other::start(args, dir.path(), sign);
        expect_confined(other.child.id(), threads);
        other.end();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{args:?} left something");
    }
    let args = ["gen", "txonly", "-p", "null:", "--json", "--sandbox", "off"];
    let free = Other::start(&args, dir.path(), "sent");
    let process = format!("/proc/{}", free.child.id());
    assert_eq!(field(process.as_ref(), "Seccomp"), "0");
    free.end();
}

#[test]
fn vdpa_names_what_it_gave_up_before_a_command_tries_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().display().to_string();
    let args = ["vdpa", "--interactive", "--allow-path", &path];
    let mut vdpa = Other::start(&args, dir.path(), "ready");
    expect_confined(vdpa.child.id(), 1);
    let mut create = |folder: &std::path::Path, device: &str| {
        let socket = folder.join("vm0").display().to_string();
        writeln!(vdpa.input, "create {socket} {device}").unwrap();
        vdpa.wait_for("error: ")
    };
    // Where the socket may be, there is no such device, nor what one would need unless there are
    // others; elsewhere it may not be.
    for folder in [dir.path(), other.path()] {
        let refusal = create(folder, "vhost-vdpa:nobody-has-it");
        assert!(refusal.contains("nobody-has-it"), "{refusal}");
        let elsewhere = folder == other.path();
        assert!(!elsewhere || refusal.contains("was given up at the start"), "{refusal}");
        assert!(elsewhere || !refusal.contains("--allow-path"), "{refusal}");
    }
    assert!(create(dir.path(), "xyz:1").contains("no vDPA driver 'xyz'"));
    vdpa.end();
}
