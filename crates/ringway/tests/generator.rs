//! `ringway gen`, over files and over the null port.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code outside of test functions"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Switch, refusal, ringway, run};

/// The summary that `ringway gen --json` ends with.
fn summary(args: &[&str]) -> (Option<i32>, Value) {
    let mut args = args.to_vec();
    args.push("--json");
    let output = run(&args);
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap_or_else(|| panic!("{args:?}: no output"));
    let mut value: Value = serde_json::from_str(last).unwrap();
    (output.status.code(), value["summary"].take())
}

#[test]
fn what_is_sent_to_a_file_is_found_whole_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("traffic.pcap");
    let to = format!("pcap:,tx={}", file.display());
    let args =
        ["gen", "txonly", "--port", &to, "--count", "1200", "--size", "imix", "--flows", "7"];
    let (code, sent) = summary(&args);
    assert_eq!((code, &sent["sent"]["packets"]), (Some(0), &1200.into()));
    assert_eq!(sent["sent"]["bytes"], 100 * (7 * 60 + 4 * 590 + 1514));

    let from = format!("pcap:{}", file.display());
    let args = ["gen", "rxonly", "--port", &from, "--count", "1200", "--duration", "20"];
    let (code, received) = summary(&args);
    assert_eq!(code, Some(0));
    assert_eq!(received["good"], 1200, "{received:#}");
    assert_eq!(received["flows"], 7);
    for wrong in ["corrupt", "lost", "reordered", "foreign"] {
        assert_eq!(received[wrong], 0, "{wrong}");
    }
}

#[test]
fn a_damaged_frame_is_found_and_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("traffic.pcap");
    let to = format!("pcap:,tx={}", file.display());
    let (_, sent) = summary(&["gen", "txonly", "--port", &to, "--count", "10", "--size", "200"]);
    assert_eq!(sent["sent"]["packets"], 10);
    // The last byte of the file is the last one of the last frame's pattern.
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let from = format!("pcap:{}", file.display());
    let args = ["gen", "rxonly", "--port", &from, "--count", "10", "--duration", "20"];
    let (code, received) = summary(&args);
    assert_eq!((code, &received["good"], &received["corrupt"]), (Some(1), &9.into(), &1.into()));
}

#[test]
fn rates_are_kept() {
    let args = ["gen", "txonly", "--port", "null:", "--rate", "20k", "--count", "10000"];
    let (code, sent) = summary(&args);
    assert_eq!((code, &sent["sent"]["packets"]), (Some(0), &10_000.into()));
    // Half a second at the rate asked for, less ten milliseconds that may be made up for.
    assert!(sent["seconds"].as_f64().unwrap() >= 0.48, "{sent:#}");
}

#[test]
fn what_does_not_come_back_is_lost() {
    let args = ["gen", "latency", "--port", "null:", "--count", "100"];
    let (code, report) = summary(&args);
    assert_eq!(code, Some(0));
    assert_eq!((&report["sent"]["packets"], &report["lost"]), (&100.into(), &100.into()));
    assert_eq!(report["latency"], Value::Null);
}

#[test]
fn io_forwards_between_two_devices() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.pcap"), dir.path().join("second.pcap"));
    let to = format!("pcap:,tx={}", first.display());
    let (_, sent) = summary(&["gen", "txonly", "--port", &to, "--count", "300", "--size", "imix"]);
    assert_eq!(sent["sent"]["packets"], 300);
    let (from, onward) =
        (format!("pcap:{}", first.display()), format!("pcap:,tx={}", second.display()));
    let args =
        ["gen", "io", "--port", &from, "--port2", &onward, "--count", "300", "--duration", "20"];
    let (code, forwarded) = summary(&args);
    assert_eq!((code, &forwarded["sent"]["packets"]), (Some(0), &300.into()));
    let from = format!("pcap:{}", second.display());
    let args = ["gen", "rxonly", "--port", &from, "--count", "300", "--duration", "20"];
    assert_eq!(summary(&args).1["good"], 300);
}

#[test]
fn a_capture_is_replayed_at_the_rate_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.pcap"), dir.path().join("second.pcap"));
    let to = format!("pcap:,tx={}", first.display());
    let (_, sent) = summary(&["gen", "txonly", "--port", &to, "--count", "200", "--size", "100"]);
    assert_eq!(sent["sent"]["packets"], 200);
    let (from, onward) =
        (format!("pcap:{}", first.display()), format!("pcap:,tx={}", second.display()));
    // Half a second each, less what may be made up for of frames that a busy machine has made late.
    for rate in ["400", "320kbit"] {
        let args = ["gen", "io", "--port", &from, "--port2", &onward, "--rate", rate];
        let (code, replayed) = summary(&[&args[..], &["--count", "200"]].concat());
        assert_eq!((code, &replayed["sent"]["packets"]), (Some(0), &200.into()), "{rate}");
        assert!(replayed["seconds"].as_f64().unwrap() >= 0.48, "{rate}: {replayed:#}");
    }
}

#[test]
fn frames_go_through_a_switch_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let port =
        |name: &str| format!("{name}=vhost-user:{}/{name}.sock,queues=2", dir.path().display());
    let switch = Switch::start(dir.path(), &["--port", &port("a"), "--port", &port("b")]);
    // Rings that take all frames of a test: nothing can be dropped, however late anybody is.
    let device = |name: &str, queues: u8| {
        format!("virtio-user:{}/{name}.sock,queue_size=4096,queues={queues}", dir.path().display())
    };
    for (mode, queues, extra) in
        [("latency", 1, ["--rate", "20k"]), ("flowgen", 2, ["--flows", "64"])]
    {
        let (from, to) = (device("a", queues), device("b", queues));
        let mut args = vec!["gen", mode, "--port", &from, "--port2", &to, "--count", "3000"];
        args.extend(["--size", "imix"]);
        args.extend(extra);
        let (code, report) = summary(&args);
        assert_eq!((code, &report["good"]), (Some(0), &3000.into()), "{mode}: {report:#}");
        for wrong in ["corrupt", "lost", "reordered"] {
            assert_eq!(report[wrong], 0, "{mode}: {wrong}");
        }
        let measured = report["latency"]["count"].as_u64();
        assert_eq!(measured, (mode == "latency").then_some(3000), "{mode}");
    }
    let stats = switch.show("stats");
    assert_eq!(stats["ports"][0]["rx"]["packets"], 6000, "{stats:#}");
    assert_eq!(stats["ports"][1]["tx"]["packets"], 6000);
    // Both of a's queues were used by the second run.
    assert!(stats["ports"][0]["rx_queues"][1]["packets"].as_u64().unwrap() > 0);
}

#[test]
fn a_switch_learns_as_many_addresses_as_there_are_in_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let port = format!("a=vhost-user:{}/a.sock", dir.path().display());
    let switch = Switch::start(dir.path(), &["--port", &port]);
    // Round after round: a switch learns a few addresses of a burst only, and forgets those of a port
    // whose link goes down.
    let device = format!("virtio-user:{}/a.sock", dir.path().display());
    let mut generator = ringway()
        .args(["gen", "txonly", "--port", &device, "--src-mac", "02:00:00:00:f0:00+4000"])
        .args(["--order", "random", "--rate", "50k"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let entries = loop {
        let fdb = switch.show("fdb");
        let entries = fdb["entries"].as_array().unwrap().clone();
        if entries.len() >= 4000 || Instant::now() > deadline {
            break entries;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    generator.kill().unwrap();
    generator.wait().unwrap();
    let mut known: Vec<&str> = entries.iter().map(|entry| entry["mac"].as_str().unwrap()).collect();
    known.sort_unstable();
    let expected = (0xF000..0xF000 + 4000_u32).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        format!("02:00:00:00:{high:02x}:{low:02x}")
    });
    let same = expected.eq(known.iter().copied());
    assert!(same, "{} addresses, {:?} to {:?}", known.len(), known.first(), known.last());
}

#[test]
fn a_run_leaves_a_report_and_all_its_latencies() {
    let dir = tempfile::tempdir().unwrap();
    let port = |name: &str| format!("{name}=vhost-user:{}/{name}.sock", dir.path().display());
    let _switch = Switch::start(dir.path(), &["--port", &port("a"), "--port", &port("b")]);
    let device =
        |name: &str| format!("virtio-user:{}/{name}.sock,queue_size=4096", dir.path().display());
    let (from, to) = (device("a"), device("b"));
    let (csv, html) = (dir.path().join("all.csv"), dir.path().join("report.html"));
    let (csv_name, html_name) = (csv.display().to_string(), html.display().to_string());
    let (code, report) = summary(
        &[
            &["gen", "latency", "--port", &from, "--port2", &to, "--count", "2000"][..],
            &["--rate", "10k", "--burst", "16", "--ramp-from", "1k", "--ramp-time", "0.2"],
            &["--ipv6", "--vlan", "7", "--size", "100", "--flows", "30"],
            &["--histogram", &csv_name, "--report", &html_name],
        ]
        .concat(),
    );
    assert_eq!((code, &report["good"], &report["lost"]), (Some(0), &2000.into(), &0.into()));
    let rows = std::fs::read_to_string(&csv).unwrap();
    let counts = rows.lines().skip(1).map(|row| row.rsplit(',').next().unwrap());
    assert_eq!(counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>(), 2000);
    let html = std::fs::read_to_string(&html).unwrap();
    for part in ["ringway gen latency", "2,000", "Latency by percentile", "</html>"] {
        assert!(html.contains(part), "{part}: {html}");
    }
    let (code, message) =
        refusal(&["gen", "latency", "--port", "null:", "--histogram", "latencies.txt"]);
    assert!(code == Some(2) && message.contains("ends in .csv"), "{message}");
}

#[test]
fn several_ports_send_to_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c"];
    let port = |name: &str| format!("{name}=vhost-user:{}/{name}.sock", dir.path().display());
    let ports = names.map(port);
    let ports: Vec<&str> = ports.iter().flat_map(|port| ["--port", port]).collect();
    let switch = Switch::start(dir.path(), &ports);
    let device =
        |name: &str| format!("virtio-user:{}/{name}.sock,queue_size=4096", dir.path().display());
    let devices = names.map(device);
    let devices: Vec<&str> = devices.iter().flat_map(|device| ["--port", device]).collect();
    let options = ["--count", "3000", "--topology", "mesh", "--src-mac", "02:00:00:00:00:00+10"];
    let (code, report) =
        summary(&[&["gen", "flowgen", "--rate", "20k"], &devices[..], &options].concat());
    // What the switch has not learned yet is flooded, and comes to others, too: that is not counted.
    assert_eq!((code, &report["good"], &report["lost"]), (Some(0), &3000.into(), &0.into()));
    assert_eq!((&report["sent"]["packets"], &report["flows"]), (&3000.into(), &60.into()));
    assert!(report["misdirected"].is_u64(), "{report:#}");
    // All of them were among the receivers, though not to the same extent: senders of a port take turns
    // by burst, and how long these are depends on how busy the machine is.
    let stats = switch.show("stats");
    let sent = |port: &Value| port["tx"]["packets"].as_u64().unwrap();
    let sent: Vec<u64> = stats["ports"].as_array().unwrap().iter().map(sent).collect();
    assert!(sent.iter().all(|sent| *sent > 0) && sent.iter().sum::<u64>() >= 3000, "{sent:?}");

    for (options, expected) in [
        (&["flowgen", "-p", "null:", "-p", "null:", "-p", "null:"][..], "--topology mesh"),
        (&["io", "-p", "null:", "-p", "null:"], "--port2"),
        (&["txonly", "-p", "null:", "--topology", "mesh"], "several --port"),
        (
            &["txonly", "-p", "null:", "-p", "null:", "--dst-mac", "02:00:00:00:00:01"],
            "--dst-mac is of no use",
        ),
    ] {
        let (code, message) = refusal(&[&["gen"], options].concat());
        assert!(code == Some(2) && message.contains(expected), "{message}");
    }
}

#[test]
fn benchmarks_find_what_a_switch_lets_through() {
    let dir = tempfile::tempdir().unwrap();
    let port = |name: &str| format!("{name}=vhost-user:{}/{name}.sock", dir.path().display());
    let switch = Switch::start(dir.path(), &["--port", &port("a"), "--port", &port("b")]);
    // So much passes and no more, also where a busy machine takes much longer than a trial should.
    let limit = |rate| {
        switch.tell(&["port", "set", "a", "--rx-packet-rate", rate, "--rx-packet-burst", "300"]);
    };
    limit("1k");
    let device =
        |name: &str| format!("virtio-user:{}/{name}.sock,queue_size=4096", dir.path().display());
    let (from, to) = (device("a"), device("b"));
    let common = ["--port", &from, "--port2", &to, "--rate", "10k", "--sizes", "128"];
    let args = [&["gen", "throughput", "--trial", "0.3", "--precision", "10"], &common[..]];
    let (code, found) = summary(&args.concat());
    let result = &found["results"][0];
    let rate = result["throughput_pps"].as_f64().unwrap();
    assert!(code == Some(0) && rate > 0.0 && result["size"] == 128, "{found:#}");
    // A bucket of 300 takes all frames of a trial with a thousand a second, and 1,000 more a second pass. A
    // busy machine may have kept the generator from sending more than passes.
    let is_limited = result["limited_by_generator"].as_bool().unwrap();
    assert!(is_limited || (100.0..6500.0).contains(&rate), "{result:#}");

    limit("100");
    let args =
        [&["gen", "back-to-back", "--repeat", "1", "--precision", "20", "-n", "1200"], &common[..]];
    let html = dir.path().join("report.html");
    let report = ["--report", html.to_str().unwrap()];
    let (code, found) = summary(&[&args.concat()[..], &report].concat());
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("Longest burst without loss") && html.contains("<circle"), "{html}");
    let burst = found["results"][0]["burst_frames"].as_f64().unwrap();
    assert!(code == Some(0) && (10.0..1200.0).contains(&burst), "{found:#}");

    // A reader that goes away, as `| head`; there would be something to do for a minute.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let sizes = ["64"; 300].join(",");
    let started = Instant::now();
    let args = ["gen", "throughput", "--trial", "0.1", "--loss", "99", "--rate", "1k"];
    let more = ["--port", &from, "--port2", &to, "--sizes", &sizes];
    let status = ringway().args(args).args(more).stdout(writer).status().unwrap();
    assert!(status.success() && started.elapsed() < Duration::from_secs(20), "{status}");
}

#[test]
fn a_peer_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let device = format!("virtio-user:{}/nobody.sock", dir.path().display());
    let (code, message) = refusal(&["gen", "txonly", "--port", &device, "--wait-link", "0.1"]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("nobody.sock: no link"), "{message}");
}

#[test]
fn an_interrupted_run_still_has_a_summary() {
    let mut child = ringway()
        .args(["gen", "txonly", "--port", "null:", "--rate", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The heading comes with the first row, a second after the start.
    assert!(lines.next().unwrap().unwrap().contains("seconds"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(rest.iter().any(|line| line.starts_with("sent ")), "{rest:?}");
}

#[test]
fn a_benchmark_ends_when_nothing_comes_back() {
    let (code, message) = refusal(&["gen", "throughput", "--trial", "0.2", "--port", "null:"]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("64 bytes: none of") && message.contains("null:"), "{message}");
}
