//! `ringway demo`: what a newcomer sees works, and tells the truth.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{ringway, run};

#[test]
fn every_byte_is_right_and_every_frame_accounted_for() {
    let output = run(&["demo", "--seconds", "2", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let summary = &rows.last().unwrap()["summary"];
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert!(number("sent") > 0);
    assert_eq!(number("good"), number("sent"), "{summary:#}");
    for wrong in ["corrupt", "foreign", "reordered", "lost"] {
        assert_eq!(number(wrong), 0, "{wrong}");
    }
    // What the switch counted is what the guests did.
    assert_eq!(summary["switch_received"]["packets"], number("sent"));
    assert_eq!(summary["switch_sent"]["packets"], number("good"));
    assert_eq!(summary["switch_sent"]["bytes"], number("bytes"));
    assert!(summary["latency"]["count"].as_u64().unwrap() > 0);
    let traffic: Vec<&str> =
        rows.iter().filter_map(|row| row["interval"]["traffic"].as_str()).collect();
    assert!(traffic.len() >= 4, "a row for each kind of traffic at least: {traffic:?}");
}

#[test]
fn it_ends_with_the_command_for_ones_own_machine() {
    let output = run(&["demo", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["All right:", "ringway switch --port vm1=", "qemu-system-x86_64", "share=on"] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
}

#[test]
fn an_interrupted_demo_still_sums_up_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = ringway()
        .args(["demo", "--seconds", "600"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first row: traffic flows.
    let row = lines.find(|line| line.as_ref().unwrap().contains("one at a time"));
    assert!(row.is_some());
    let start = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Not the ten minutes that it was to run.
    assert!(start.elapsed() < Duration::from_secs(60), "it took {:?}", start.elapsed());
    assert!(rest.iter().any(|line| line.starts_with("All right:")), "{rest:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
