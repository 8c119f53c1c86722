//! `ringway vdpa` and the vDPA devices of a switch, as far as no device is needed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write as _;
use std::process::Stdio;

use support::{Switch, refusal, ringway, run};

/// Runs `ringway vdpa --interactive` with `input` to its end; returns what it printed.
fn interactive(input: &str) -> String {
    let mut child = ringway()
        .args(["vdpa", "--interactive"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_come_from_a_pipe_too() {
    let text = interactive("help\nlits\nstats nobody\ncreate /tmp/x xyz:1\nquit\nhelp\n");
    assert!(text.starts_with("ringway vdpa ready: 0 devices\n"), "{text}");
    assert!(!text.contains("vdpa> "), "no prompt where nobody types: {text}");
    assert_eq!(text.matches("create SOCKET DEVICE").count(), 1, "{text}");
    for expected in ["no command 'lits'", "no device 'nobody'", "no vDPA driver 'xyz'"] {
        assert!(text.contains(&format!("error: {expected}")) || text.contains(expected), "{text}");
    }
    // The end of the input is an end, too.
    assert!(interactive("help").contains("ready"));
}

#[test]
fn what_there_is_is_listed() {
    let output = run(&["vdpa", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["devices"].is_array());
    assert!(run(&["vdpa", "list"]).status.success());
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    for (args, expected) in [
        (&["vdpa"][..], "--iface"),
        (&["vdpa", "--device", "x:1"], "--iface"),
        (&["vdpa", "--iface", "/tmp/x", "list"], "list"),
        (&["vdpa", "--iface", "/tmp/x", "--device", "xyz"], "expected DRIVER:TARGET"),
        (&["vdpa", "--iface", "/tmp/x", "--device", "xyz:1"], "no vDPA driver 'xyz'"),
    ] {
        let (code, message) = refusal(args);
        assert_eq!(code, Some(2), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn a_switch_shows_its_vdpa_devices_and_refuses_what_makes_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:"]);
    assert_eq!(switch.show("vdpa")["devices"].as_array().unwrap().len(), 0);
    assert!(switch.tell(&["show", "vdpa"]).contains("no vDPA devices"));
    for (device, expected) in [
        ("b=vdpa:xyz:1,socket=/tmp/x", "no vDPA driver 'xyz'"),
        ("b=vdpa:xyz:1", "expected socket=PATH"),
        ("a=vdpa:xyz:1,socket=/tmp/x", "'a' exists already"),
    ] {
        let output = switch.ask(&["port", "add", device]);
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected), "{device}: {message}");
    }
    drop(switch);
    let control = dir.path().join("other.sock");
    let device = "b=vdpa:xyz:1,socket=/tmp/x";
    let (code, message) =
        refusal(&["switch", "--control", control.to_str().unwrap(), "--port", device]);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("no vDPA driver 'xyz'"), "{message}");
}

#[test]
fn a_switch_goes_on_without_a_device_that_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vm.sock");
    let device = format!("b=vdpa:vhost-vdpa:none-such,socket={}", socket.display());
    let mut switch = Switch::start(dir.path(), &["--port", "a=null:", "--port", &device]);
    assert!(switch.ready.contains("ready: 1 port, 1 worker"), "{}", switch.ready);
    assert!(!socket.exists());
    assert_eq!(switch.terminate().0.code(), Some(0));
    let log = switch.log();
    assert!(log.contains("none-such") && log.contains("goes on without it"), "{log}");
}
