//! Captures of what two kernels send through a switch, read by tcpdump: from a file, and from a pipe
//! while the capture goes on; and mirrors, to files and into a VLAN.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{Netns, Peer, Process, Ringway, process, require_shared, ringway, wait};
use rustix::process::Signal;
use serde_json::Value;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A port that lets 64 frames through at once, and then one a second.
const CONFIGURATION: &str = r#"
[ports.a]
device = "tap:rwca"
limits = { rx-packet-rate = 1, rx-packet-burst = 64 }
[ports.b]
device = "tap:rwcb"
"#;

#[test]
fn tcpdump_reads_what_kernels_send_and_what_is_dropped() {
    let Some(_turn) = require_shared(&[Peer::Netns, Peer::Tcpdump]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let [left, right] = [(); 2].map(|()| Netns::new().unwrap());
    let mut switch = Ringway::configured_in(&left, dir.path(), CONFIGURATION, "0").unwrap();
    switch.wait_links(&["a", "b"]).unwrap();
    left.sh(&format!("ip link set rwcb netns {}", right.name())).unwrap();
    for (ns, interface, address) in [(&left, "rwca", "10.3.0.1"), (&right, "rwcb", "10.3.0.2")] {
        ns.sh(&format!("ip address add {address}/24 dev {interface}")).unwrap();
        ns.sh(&format!("ip link set {interface} up")).unwrap();
    }
    switch.wait_links(&["a", "b"]).unwrap();
    let program = ringway::binary().unwrap();
    let (program, control) = (program.display(), switch.control().display());
    let capture = format!("{program} capture --control {control}");
    let file = dir.path().join("out.pcapng");

    let line = format!("{capture} b -w - icmp | tcpdump -n -l -r -");
    let piped = left.spawn(&line).unwrap();
    let mut command = ringway::command(&["capture", "a,b", "icmp", "-w"]).unwrap();
    command.arg(&file).arg("--control").arg(switch.control());
    let mut written = Process::start("ringway capture", command).unwrap();
    for process in [&piped, &written] {
        // To standard error, where it is in nobody's way.
        let has_begun = || Ok(process.log().contains("capturing on ").then_some(()));
        wait::until("the capture has begun", LIMIT, PAUSE, has_begun).unwrap();
    }
    // Some get no answer, which ping takes for a failure.
    left.sh("ping -q -c 90 -i 0.002 -W 1 10.3.0.2; true").unwrap();
    // Each burst goes on at once: nobody has ended that capture.
    piped.wait_for("10.3.0.1 > 10.3.0.2: ICMP echo request", 0, LIMIT).unwrap();
    piped.wait_for("10.3.0.2 > 10.3.0.1: ICMP echo reply", 0, LIMIT).unwrap();
    // Ping does not wait for the last ones. All came in on one port, and those that were not dropped
    // went out on the other.
    wait::until("all are in the file", LIMIT, PAUSE, || {
        let (read, dropped) = (requests_in(&file), dropped_in(&file));
        Ok((read + dropped == 90 + 90).then_some(()))
    })
    .unwrap();
    written.signal(Signal::INT).unwrap();
    assert!(written.wait(LIMIT).unwrap().success(), "{}", written.log());
    written.wait_output_end(LIMIT).unwrap();

    let counters = switch.counters("a").unwrap();
    assert!(counters.rx_dropped > 0, "{counters:?}");
    let read = process::sh(&format!("tcpdump -n -r {}", file.display())).unwrap();
    let log = written.log();
    let total = read.lines().filter(|line| line.contains("ICMP echo")).count();
    assert!(log.contains(&format!("{total} frames captured")), "{total}: {log}");
    let (requests, dropped) = (requests_in(&file), dropped_in(&file));
    assert!(dropped > 0 && requests == 90 + 90 - dropped, "{requests}, {dropped}");
    assert!(log.contains(&format!("{dropped} of them dropped")), "{dropped}: {log}");
    assert!(switch.stop(LIMIT).unwrap().success());
}

/// How many requests tcpdump finds in a file that may not be whole yet.
fn requests_in(file: &Path) -> usize {
    let text = process::sh(&format!("tcpdump -n -r {} 2>&1; true", file.display())).unwrap();
    text.lines().filter(|line| line.contains("ICMP echo request")).count()
}

/// How many frames of a file say that a limit dropped them.
fn dropped_in(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(21).filter(|text| text == b"dropped: rate_limited").count()
}

/// Two ports of VLAN 10 whose frames are written down, and one that has the VLAN of a remote mirror.
fn mirrored(file: &Path) -> String {
    let file = file.display();
    format!(
        "[ports.a]\ndevice = \"tap:rwma\"\nvlan.tag = 10\nmtu = 9000\n\
         [ports.b]\ndevice = \"tap:rwmb\"\nvlan.tag = 10\nmtu = 9000\n\
         [ports.watcher]\ndevice = \"tap:rwmw\"\nvlan.trunks = [99]\nmtu = 9000\n\
         [mirrors.recorder]\nselect-src-port = [\"a\"]\nselect-dst-port = [\"a\"]\n\
         output-file = \"{file}\"\nfile-size = 1\nfiles = 2\n"
    )
}

/// The numbers of the pings, or of the answers, that tcpdump finds in a file.
fn pings_in(file: &Path, what: &str) -> Vec<u32> {
    let text = process::sh(&format!("tcpdump -n -r {}", file.display())).unwrap();
    let lines = text.lines().filter(|line| line.contains(what));
    let number = |line: &str| line.split_once("seq ")?.1.split(',').next()?.parse().ok();
    lines.map(|line| number(line).unwrap()).collect()
}

#[test]
fn mirrors_write_files_that_take_turns_and_reach_a_remote_vlan() {
    let Some(_turn) = require_shared(&[Peer::Netns, Peer::Tcpdump]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let [left, right] = [(); 2].map(|()| Netns::new().unwrap());
    let text = mirrored(&dir.path().join("m.pcapng"));
    let mut switch = Ringway::configured_in(&left, dir.path(), &text, "0").unwrap();
    switch.wait_links(&["a", "b", "watcher"]).unwrap();
    left.sh(&format!("ip link set rwmb netns {}", right.name())).unwrap();
    for (ns, interface, address) in [(&left, "rwma", "10.3.0.1"), (&right, "rwmb", "10.3.0.2")] {
        ns.sh(&format!("ip address add {address}/24 dev {interface}")).unwrap();
        ns.sh(&format!("ip link set {interface} mtu 9000 up")).unwrap();
    }
    left.sh("ip link set rwmw up").unwrap();
    switch.wait_links(&["a", "b", "watcher"]).unwrap();

    let remote = ["mirror", "add", "remote", "--src", "a", "--dst", "a", "--vlans", "10"];
    switch.client(&[&remote[..], &["--to-vlan", "99"]].concat()).unwrap();
    let watcher = left.spawn("tcpdump -n -e -l -i rwmw icmp or vlan and icmp").unwrap();
    let listens = || Ok(watcher.log().contains("listening on").then_some(()));
    wait::until("tcpdump listens", LIMIT, PAUSE, listens).unwrap();
    let ping = || left.ping("10.3.0.2", "-c 1 -W 2");
    wait::until_ok("a ping is answered", LIMIT, PAUSE, ping).unwrap();
    for what in ["request", "reply"] {
        let both = |line: &&str| line.contains("vlan 99") && line.contains(what);
        let seen = || Ok(watcher.log().lines().find(both).map(drop));
        wait::until("the remote VLAN has both ways", LIMIT, PAUSE, seen).unwrap();
    }
    switch.client(&["mirror", "del", "remote"]).unwrap();

    // Each time more than a million bytes, which find room even if nobody writes for a while. Answers
    // that ping has no room for have come all the same.
    for next in 2..=4 {
        left.sh("busybox ping -q -c 70 -i 0.002 -s 8000 10.3.0.2; true").unwrap();
        let file = dir.path().join(format!("m_0000{next}.pcapng"));
        wait::until("it is the next file's turn", LIMIT, PAUSE, || Ok(file.exists().then_some(())))
            .unwrap();
    }
    let mirror = switch.show("mirrors").unwrap()["mirrors"][0].clone();
    assert_eq!((&mirror["missed"], &mirror["trouble"]), (&0.into(), &Value::Null), "{mirror}");
    // It ends when all is written.
    switch.client(&["mirror", "del", "recorder"]).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcapng"))
        .collect();
    files.sort();
    let names: Vec<_> =
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["m_00003.pcapng", "m_00004.pcapng"], "the newest two are kept");
    for what in ["echo request", "echo reply"] {
        let numbers: Vec<u32> = files.iter().flat_map(|file| pings_in(file, what)).collect();
        assert!(numbers.len() > 60, "{what}: {numbers:?}");
        // Some count from 0, others from 1.
        let follows = |pair: &[u32]| pair[1] == pair[0] + 1 || (pair[0] >= 69 && pair[1] <= 1);
        assert!(numbers.windows(2).all(follows), "{what}: {numbers:?}");
        assert!(numbers.last() >= Some(&69), "{what}: {numbers:?}");
    }
    assert!(switch.stop(LIMIT).unwrap().success());
}

#[test]
fn tcpdump_finds_no_fault_in_frames_of_the_generator() {
    let Some(_turn) = require_shared(&[Peer::Tcpdump]) else { return };
    let dir = tempfile::tempdir().unwrap();
    // What tcpdump says of a frame whose checksums are right, and how often: of each layer.
    for (number, (options, good)) in [
        ("--vlan 5-9 --svlan 100 --src-ip 10.0.0.250+50 --src-port 1000", "udp sum ok"),
        ("--ipv6 --src-port 1-60", "udp sum ok"),
        ("--protocol tcp --dst-ip 10.0.0.250+30@7", "(correct)"),
        ("--ipv6 --src-ip 2001:2::fff0+32 --protocol tcp --tcp-flags ack,psh", "(correct)"),
        (
            "--vxlan 7+9 --src-ip 10.0.0.250+50 --src-port 1 --outer-src-ip 192.0.2.1+20",
            "udp sum ok",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let file = dir.path().join(format!("{number}.pcap"));
        let port = format!("pcap:,tx={}", file.display());
        let mut command = ringway::command(&["gen", "txonly", "--port", &port]).unwrap();
        command.args(["--count", "300", "--size", "101:3,1499:2,158:1"]).args(options.split(' '));
        process::run(&mut command).unwrap();
        let text = process::sh(&format!("tcpdump -n -vv -r {}", file.display())).unwrap();
        assert_eq!(text.matches(good).count(), 300, "{options}: {text}");
        for fault in ["bad cksum", "bad udp", "incorrect", "truncated", "invalid"] {
            assert!(!text.contains(fault), "{options}: {fault}: {text}");
        }
    }
}
