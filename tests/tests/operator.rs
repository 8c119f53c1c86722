//! What an operator meets: memory, signals, refusals. Needs no peer but the kernel.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{Ringway, ringway};
use rustix::process::Signal;

fn device(dir: &Path, n: usize) -> String {
    format!("vm{n}=vhost-user:{},queues=2", dir.join(format!("vm{n}.sock")).display())
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_switch_with_64_ports_is_small_sleeps_and_ends_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<String> = (0..64).map(|n| device(dir.path(), n)).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    for signal in [Signal::TERM, Signal::INT] {
        let mut ringway = Ringway::switch(dir.path(), &ports, "0").unwrap();
        let kib = resident_kib(ringway.id());
        assert!(kib < 100_000, "{kib} KiB resident");
        let before = e2e::process::cpu_ticks(ringway.id()).unwrap();
        std::thread::sleep(Duration::from_secs(1)); // an interval to measure over
        let ticks = e2e::process::cpu_ticks(ringway.id()).unwrap() - before;
        assert!(ticks <= 5, "idle, and yet {ticks} of 100 ticks of a core");
        let start = Instant::now();
        ringway.signal(signal).unwrap();
        let status = ringway.wait(Duration::from_secs(10)).unwrap();
        let time = start.elapsed();
        assert!(status.success(), "{status}: {}", ringway.log());
        assert!(time < Duration::from_secs(1), "{signal:?}: ended after {time:?}");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "files are left over");
    }
}

/// Runs `ringway switch` with arguments that must be refused; gives its exit status and message.
fn refusal(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let control = dir.join("refused.ctl");
    let mut command = ringway::command(&["switch", "--control"]).unwrap();
    command.arg(control).args(arguments);
    let mut process = e2e::Process::start("ringway switch", command).unwrap();
    let status = process.wait(Duration::from_secs(10)).unwrap();
    process.wait_output_end(Duration::from_secs(10)).unwrap();
    (status.code(), process.log())
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let taken = device(dir.path(), 0);
    let mut running = Ringway::switch(dir.path(), &[&taken], "0").unwrap();
    let long = format!("a=vhost-user:/tmp/{}", "x".repeat(110));
    let absent = format!("a=vhost-user:{}/no/such/dir/s", dir.path().display());
    for (arguments, expected, code) in [
        (vec!["--port", taken.as_str()], "vm0.sock", 1),
        (vec!["--port", long.as_str()], "107", 1),
        (vec!["--port", absent.as_str()], "no/such/dir", 1),
        (vec!["--port", "a=null:", "--port", "a=null:"], "'a'", 2),
        (vec!["--port", "a=tpa:x"], "tpa", 2),
        (vec!["--port", "a=null:,queues=many"], "queues", 2),
        (vec!["--port", "null:"], "NAME=DEVICE", 2),
        (vec!["--port", "a=null:", "--cores", "4000"], "4000", 2),
        (vec!["--config", "/no/such/file"], "/no/such/file", 2),
    ] {
        let (status, text) = refusal(dir.path(), &arguments);
        assert!(text.contains(expected), "{arguments:?}: {expected:?} is not in: {text}");
        assert_eq!(status, Some(code), "{arguments:?}: {text}");
    }
    assert!(running.is_running(), "{}", running.log());
    assert_eq!(running.show("ports").unwrap()["ports"][0]["name"], "vm0");
}
