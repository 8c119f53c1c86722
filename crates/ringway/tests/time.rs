//! `ringway time`: a switch whose clock a test has in its hand.

mod support;

use std::time::{Duration, Instant};

use support::{Switch, run};

/// Waits until something is true.
fn wait_for(what: &str, is_true: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < end, "not seen: {what}");
    }
}

#[test]
fn addresses_age_as_the_clock_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("in.pcap");
    let to = format!("pcap:,tx={}", capture.display());
    let output = run(&["gen", "txonly", "--port", &to, "--count", "5"]);
    assert!(output.status.success(), "{output:?}");
    let from = format!("from=pcap:{}", capture.display());
    let (folder, late) = (dir.path().to_str().unwrap(), ["--allow-port", "pcap", "--allow-path"]);
    let args = [&["--control-time", "--port", "to=null:"], &late[..], &[folder]].concat();
    let switch = Switch::start(dir.path(), &args);
    switch.tell(&["time", "stop"]);
    switch.tell(&["port", "add", &from]);
    let learned = || switch.show("fdb")["entries"].as_array().unwrap().len();
    wait_for("an address", || learned() == 1);
    let uptime = || switch.show("stats")["uptime_ms"].as_u64().unwrap();
    let stopped = uptime();
    assert!(
        switch.tell(&["time", "warp", "300000"]).contains(&format!("{} ms", stopped + 300_000))
    );
    // It may be as old as that, and no older; the answer comes when that has been looked at.
    let fdb = switch.show("fdb");
    assert_eq!((&fdb["entries"][0]["age_seconds"], uptime()), (&300.into(), stopped + 300_000));
    switch.tell(&["time", "warp", "40000"]);
    let fdb = switch.show("fdb");
    assert_eq!((fdb["entries"].as_array().unwrap().len(), &fdb["expired"]), (0, &1.into()));
}

#[test]
fn devices_are_tried_again_as_the_clock_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("later.pcap");
    let port = format!("late=pcap:{}", capture.display());
    let args = ["--control-time", "--sandbox", "off", "-p", "a=null:", "-p", &port];
    let switch = Switch::start(dir.path(), &args);
    switch.tell(&["time", "stop"]);
    let to = format!("pcap:,tx={}", capture.display());
    assert!(run(&["gen", "txonly", "--port", &to, "--count", "1"]).status.success());
    let ports = || switch.show("ports")["ports"].as_array().unwrap().len();
    assert_eq!(ports(), 1);
    // It is due after a second, or later where it was tried before the clock was stopped.
    wait_for("the device", || {
        switch.tell(&["time", "warp", "1000"]);
        ports() == 2
    });
}

#[test]
fn nobody_gets_a_clock_that_can_be_stopped_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let switch = Switch::start(dir.path(), &["--port", "a=null:"]);
    for args in [&["time", "stop"][..], &["time", "warp", "1"]] {
        let output = switch.ask(args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("start it with --control-time"), "{message}");
    }
    let long = switch.ask(&["time", "warp", "31536000001"]);
    let message = String::from_utf8_lossy(&long.stderr);
    assert!(message.contains("a whole number from 0 to 31536000000"), "{message}");
}
