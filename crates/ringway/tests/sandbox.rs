//! What a running switch has given up.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use support::{Switch, refusal};

/// A field of the main thread's status, as the kernel tells it.
fn status(switch: &Switch, field: &str) -> String {
    let path = format!("/proc/{}/status", switch.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn a_switch_of_virtual_machines_keeps_no_privileges() {
    let dir = tempfile::tempdir().unwrap();
    let port = format!("vm1=vhost-user:{}", dir.path().join("vm1").display());
    let mut switch = Switch::start(dir.path(), &["--port", &port]);
    let none = "0".repeat(16);
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status(&switch, set), none, "{set}");
    }
    assert_eq!(
        (status(&switch, "NoNewPrivs"), status(&switch, "Seccomp")),
        ("1".into(), "2".into())
    );
    // Threads have no more than the one that started them.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", switch.pid())).unwrap();
    let tasks: Vec<_> = tasks.map(|task| task.unwrap().path().join("status")).collect();
    assert!(tasks.len() > 2, "{tasks:?}");
    for task in tasks {
        let status = std::fs::read_to_string(task).unwrap();
        assert!(status.contains(&format!("CapEff:\t{none}")), "{status}");
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
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
    assert!(time < std::time::Duration::from_secs(1), "it took {time:?}");
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
