//! `ringway l2fwd`, over files, over the null port and over vhost-user sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code outside of test functions"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{refusal, ringway, run};

const LIMIT: Duration = Duration::from_secs(60);

/// A running `ringway l2fwd`; killed when dropped.
struct L2fwd {
    child: Child,
    lines: Receiver<String>,
}

impl L2fwd {
    fn start(args: &[&str]) -> Self {
        let mut child = ringway()
            .arg("l2fwd")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        Self { child, lines }
    }

    /// The next line of output that `wanted` makes something of.
    fn wait_for<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return found,
                    None => seen.push(line),
                },
                Err(error) => panic!("{error}; it said:\n{}", seen.join("\n")),
            }
        }
    }

    /// The next JSON object called `name` that satisfies `enough`.
    fn object(&self, name: &str, enough: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(|line| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            Some(value[name].take()).filter(|value| !value.is_null() && enough(value))
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and waits for the end: the status and what it wrote to standard error.
    fn end(&mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap(), errors)
    }
}

impl Drop for L2fwd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes `count` frames of mixed sizes to a capture file.
fn generate(path: &Path, count: u32) {
    let device = format!("pcap:,tx={}", path.display());
    let count = count.to_string();
    let args = ["gen", "txonly", "--port", &device, "--count", &count, "--size", "imix"];
    assert!(run(&args).status.success());
}

/// The frames of a capture file.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    // A header of 24 bytes; 16 bytes in front of each frame, its length in the third word.
    let (mut frames, mut rest) = (Vec::new(), &bytes[24..]);
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        frames.push(behind[..len].to_vec());
        rest = &behind[len..];
    }
    frames
}

/// The frames with other addresses.
fn addressed(frames: &[Vec<u8>], destination: &str, source: &str) -> Vec<Vec<u8>> {
    let macs = destination.split(':').chain(source.split(':'));
    let header: Vec<u8> = macs.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    frames.iter().map(|frame| [&header, &frame[12..]].concat()).collect()
}

#[test]
fn frames_get_new_addresses_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    generate(&from, 1000);
    let (first, second) =
        (format!("from=pcap:{}", from.display()), format!("to=pcap:,tx={}", to.display()));
    let mut l2fwd = L2fwd::start(&["-p", &first, "-p", &second, "-T", "0.1", "--json"]);
    let ready = l2fwd.object("ready", |_| true);
    assert_eq!((&ready["ports"][0]["to"], &ready["ports"][1]["to"]), (&1.into(), &0.into()));
    // What a port has received may be of a moment before what another has sent.
    let statistics = l2fwd.object("statistics", |now| {
        now["total"]["sent"] == 1000 && now["ports"][0]["received"]["packets"] == 1000
    });
    assert_eq!(statistics["ports"][1]["sent"]["packets"], 1000);
    assert_eq!(statistics["ports"][0]["name"], "from");

    let (status, errors) = l2fwd.end(Signal::INT);
    assert!(status.success(), "{errors}");
    let summary = l2fwd.object("summary", |_| true);
    assert_eq!(summary["total"]["sent"], 1000);
    assert_eq!(summary["total"]["dropped"], 0);
    assert_eq!(summary["workers"][0]["frames"], 1000);
    let source = ready["ports"][1]["mac"].as_str().unwrap();
    assert_eq!(frames(&to), addressed(&frames(&from), "02:00:00:00:00:01", source));
}

/// Port 0 with port 2, and port 1 alone.
#[test]
fn ports_are_paired_as_told_and_addresses_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, there, back] =
        ["one", "other", "there", "back"].map(|name| dir.path().join(name));
    generate(&one, 300);
    generate(&other, 77);
    let ports = [
        format!("pcap:{}", one.display()),
        format!("loop=pcap:{},tx={}", other.display(), back.display()),
        format!("end=pcap:,tx={}", there.display()),
    ];
    let more = ["--portmap", "(0,end),(loop,1)", "--burst", "7", "-T", "0.1", "--json"];
    let args = ["-p", &ports[0], "-p", &ports[1], "-p", &ports[2], "--no-mac-updating"];
    let mut l2fwd = L2fwd::start(&[&args[..], &more].concat());
    l2fwd.object("statistics", |now| now["total"]["sent"] == 377);
    let (status, errors) = l2fwd.end(Signal::TERM);
    assert!(status.success());
    assert!(errors.contains("port loop") && !errors.contains("port end"), "{errors}");
    assert_eq!(frames(&there), frames(&one));
    assert_eq!(frames(&back), frames(&other));
}

#[test]
fn people_get_a_table_and_the_last_counts_on_ctrl_c() {
    let mut l2fwd = L2fwd::start(&["-p", "null:rx=on", "-p", "out=null:", "-T", "0.1"]);
    l2fwd.wait_for(|line| line.starts_with("ringway l2fwd ready: 2 ports, 1 worker").then_some(()));
    let row = l2fwd.wait_for(|line| line.starts_with("0 ").then(|| line.to_owned()));
    assert!(row.contains("out") && row.contains("pps"), "{row}");
    assert!(l2fwd.end(Signal::INT).0.success());
    l2fwd.wait_for(|line| (line.starts_with("In ") && line.contains("forwarding")).then_some(()));
    let total = l2fwd.wait_for(|line| line.starts_with("total").then(|| line.to_owned()));
    assert!(total.contains("pps") && !total.contains('\x1b'), "{total}");
}

#[test]
fn queues_are_spread_over_workers_and_share_a_port_that_has_too_few() {
    let args = ["-p", "null:rx=on,queues=3", "-p", "null:rx=on", "--queues-per-core", "2"];
    let mut l2fwd = L2fwd::start(&[&args[..], &["-T", "0.1", "--json"]].concat());
    let ready = l2fwd.object("ready", |_| true);
    let queues: Vec<&Value> =
        ready["workers"].as_array().unwrap().iter().map(|worker| &worker["queues"]).collect();
    assert_eq!(queues, [2, 2]);
    let busy = |now: &Value, index: usize| now["workers"][index]["frames"].as_u64() > Some(10_000);
    l2fwd.object("statistics", |now| busy(now, 0) && busy(now, 1));
    assert!(l2fwd.end(Signal::TERM).0.success());
    let summary = l2fwd.object("summary", |_| true);
    let number = |value: &Value| value.as_u64().unwrap();
    // What the three queues received, the one queue of the other port has sent.
    assert_eq!(
        number(&summary["ports"][0]["received"]["packets"]),
        number(&summary["ports"][1]["sent"]["packets"]),
    );
    assert_eq!(number(&summary["total"]["dropped"]), 0, "{summary:#}");
}

#[test]
fn an_idle_worker_sleeps_unless_told_not_to() {
    let dir = tempfile::tempdir().unwrap();
    let device = format!("vhost-user:{}", dir.path().join("a.sock").display());
    let args = ["-p", &device, "--wait-link", "0", "-T", "0.1", "--json"];
    for (more, sleeps) in [(&[][..], true), (&["--busy-poll"][..], false)] {
        // Once in a few tries: what else the machine does may take as long.
        let ends_soon = (0..5).any(|_| {
            let mut l2fwd = L2fwd::start(&[&args[..], more].concat());
            let asleep = |now: &Value| now["workers"][0]["sleeps"].as_u64() > Some(0);
            l2fwd.object("statistics", |now| asleep(now) == sleeps);
            let start = Instant::now();
            assert!(l2fwd.end(Signal::INT).0.success());
            let time = start.elapsed();
            assert_eq!(asleep(&l2fwd.object("summary", |_| true)), sleeps);
            time < Duration::from_secs(1)
        });
        assert!(ends_soon, "a sleeping worker hears of the end");
    }
}

/// Every byte of what `ringway gen` sends is checked by it at the other end, in single frames as
/// well as in bursts.
#[test]
fn frames_cross_between_two_vhost_user_ports() {
    let dir = tempfile::tempdir().unwrap();
    let port = |name: &str| format!("{name}=vhost-user:{}/{name}.sock", dir.path().display());
    let ports = [port("a"), port("b")];
    let args = ["-p", &ports[0], "-p", &ports[1], "--wait-link", "0", "--json"];
    let mut l2fwd = L2fwd::start(&args);
    l2fwd.object("ready", |_| true);
    let device =
        |name: &str| format!("virtio-user:{}/{name}.sock,queue_size=4096", dir.path().display());
    let (a, b) = (device("a"), device("b"));
    for (mode, rate) in [("latency", "5k"), ("latency", "100k"), ("flowgen", "10M")] {
        let args = ["gen", mode, "--port", &a, "--port2", &b, "--count", "3000"];
        let output = run(&[&args[..], &["--rate", rate, "--size", "imix", "--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(report["summary"]["good"], 3000, "{mode} at {rate}: {report:#}");
    }
    assert!(l2fwd.end(Signal::TERM).0.success());
    let summary = l2fwd.object("summary", |_| true);
    assert_eq!(summary["ports"][0]["received"]["packets"], 9000);
    assert_eq!(summary["ports"][1]["sent"]["packets"], 9000);
}

#[test]
fn missing_links_are_named_and_waited_for_no_longer_than_told() {
    let dir = tempfile::tempdir().unwrap();
    let device = format!("lan=vhost-user:{}", dir.path().join("a.sock").display());
    let mut l2fwd = L2fwd::start(&["-p", &device, "--wait-link", "2.5", "--json"]);
    l2fwd.object("ready", |ready| ready["ports"][0]["link_up"] == false);
    let (status, errors) = l2fwd.end(Signal::INT);
    assert!(status.success());
    assert!(errors.contains("waiting for the link of lan"), "{errors}");
    assert!(errors.contains("no link: lan; forwarding begins without"), "{errors}");

    // A signal ends the wait.
    let mut l2fwd = L2fwd::start(&["-p", &device, "--wait-link", "600"]);
    let mut errors = BufReader::new(l2fwd.child.stderr.take().unwrap()).lines();
    assert!(errors.any(|line| line.unwrap().contains("waiting for the link")));
    l2fwd.signal(Signal::INT);
    assert!(l2fwd.child.wait().unwrap().success());
}

#[test]
fn mistakes_are_named() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "--port"),
        (&["-p", "tap0"], 2, "expected DEVICE or NAME=DEVICE"),
        (&["-p", "nul:"], 2, "did you mean 'null'"),
        (&["-p", "a=null:", "-p", "a=null:"], 2, "'a' is given twice"),
        (&["-p", "null:", "--portmap", "(0,1)"], 2, "no port '1'; the ports are 0"),
        (&["-p", "null:", "--portmap", "0,1"], 2, "expected pairs of ports"),
        (&["-p", "null:", "--burst", "33"], 2, "33"),
        (&["-p", "null:", "--drain-us", "2000000"], 2, "--drain-us"),
        (&["-p", "null:", "--cores", "1000"], 2, "core 1000"),
        (&["-p", "null:", "-T", "soon"], 2, "number of seconds"),
        (
            &["-p", "null:queues=3", "--cores", "0", "--queues-per-core", "2"],
            2,
            "3 receive queues at 2 per core need 2 cores; --cores has 1",
        ),
        (&["-p", "pcap:/nonexistent/a.pcap"], 1, "/nonexistent/a.pcap"),
    ];
    for (args, code, expected) in cases {
        let (status, message) = refusal(&[&["l2fwd"], *args].concat());
        assert_eq!(status, Some(*code), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}
