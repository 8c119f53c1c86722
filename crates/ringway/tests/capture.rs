//! `ringway capture` and a switch.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use capture::libpcap::Libpcap;
use capture::pcapng::{Block, Blocks, Direction};
use support::{Switch, ringway};

/// A frame to anybody, one to its own sender, and one from a group: all of them UDP but the first.
fn frames() -> [Vec<u8>; 3] {
    let frame = |to: u8, from: [u8; 2], kind: [u8; 2]| {
        let mut frame = vec![from[0], 0, 0, 0, 0, from[1]];
        frame.splice(0..0, if to == 0xFF { [0xFF; 6] } else { [2, 0, 0, 0, 0, to] });
        frame.extend(kind);
        frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.resize(60, 0);
        frame
    };
    [frame(0xFF, [2, 1], [0x88, 0xB5]), frame(1, [2, 1], [8, 0]), frame(2, [3, 1], [8, 0])]
}

/// A switch with a port that swallows frames; [`play`] adds one that has them.
fn start(dir: &Path) -> Switch {
    let mut file = Vec::new();
    for word in [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames() {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    std::fs::write(dir.join("in.pcap"), file).unwrap();
    Switch::start(dir, &["-p", "sink=null:", "--allow-path", dir.to_str().unwrap()])
}

fn play(switch: &Switch, dir: &Path) {
    switch.tell(&["port", "add", &format!("src=pcap:rx={}", dir.join("in.pcap").display())]);
}

/// A command that captures, and has begun.
struct Capturing(Child);

impl Capturing {
    fn start(switch: &Switch, args: &[&str]) -> Self {
        let mut command = ringway();
        command.arg("capture").args(args).arg("--control").arg(&switch.control);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // Byte by byte, so that the rest stays for whoever reads the output.
        let stderr = child.stderr.as_mut().unwrap();
        let mut byte = [0];
        while !line.ends_with('\n') && stderr.read(&mut byte).unwrap() == 1 {
            line.push(char::from(byte[0]));
        }
        assert!(line.starts_with("capturing on "), "{line}");
        Self(child)
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    fn end(self) -> (String, String) {
        let Output { status, stdout, stderr } = self.0.wait_with_output().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(status.success(), "{status}: {stderr}");
        (stdout, stderr)
    }
}

/// What a file has: port, direction, comment, bytes.
fn read(path: &PathBuf) -> Vec<(String, Direction, Option<String>, Vec<u8>)> {
    let mut blocks = Blocks::new(std::fs::File::open(path).unwrap());
    let (mut names, mut seen) = (Vec::new(), Vec::new());
    while let Some((_, block)) = blocks.next_block().unwrap() {
        match block {
            Block::Interface(name) => names.push(name.to_owned()),
            Block::Packet(packet) => seen.push((
                names[packet.interface as usize].clone(),
                packet.direction.unwrap(),
                packet.comment.map(str::to_owned),
                packet.bytes.to_vec(),
            )),
            _ => {}
        }
    }
    seen
}

#[test]
fn a_file_has_what_passed_and_what_was_dropped_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcapng");
    let file = path.to_str().unwrap();
    let switch = start(dir.path());
    let whole = Capturing::start(&switch, &["all", "-w", file, "-c", "4"]);
    let lines = Capturing::start(&switch, &["all", "-e"]);
    let dropped = Capturing::start(&switch, &["all", "--dropped", "--json", "-c", "2"]);
    let out = Capturing::start(&switch, &["sink", "--direction", "out", "-s", "20", "-c", "1"]);
    play(&switch, dir.path());

    let (_, told) = whole.end();
    assert!(told.contains("out.pcapng: 4 frames captured, 2 of them dropped"), "{told}");
    let [first, hairpin, bad] = frames();
    let seen = |port: &str, direction, comment: Option<&str>, bytes: &[u8]| {
        (port.to_owned(), direction, comment.map(str::to_owned), bytes.to_vec())
    };
    let expected = [
        seen("src", Direction::In, None, &first),
        seen("sink", Direction::Out, None, &first),
        seen("src", Direction::In, Some("dropped: hairpin"), &hairpin),
        seen("src", Direction::In, Some("dropped: bad_source"), &bad),
    ];
    assert_eq!(read(&path), expected);

    let (json, _) = dropped.end();
    let reasons: Vec<_> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["dropped"].clone())
        .collect();
    assert_eq!(reasons, ["hairpin", "bad_source"]);
    let (line, told) = out.end();
    assert!(line.contains(" sink out 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff ethertype 0x88b5"));
    assert!(line.lines().count() == 1 && told.contains("1 frames captured, 0 of"), "{told}");

    lines.interrupt();
    let (text, told) = lines.end();
    let text: Vec<&str> = text.lines().collect();
    assert_eq!(text.len(), 4, "{text:?}");
    assert!(text[2].contains("10.0.0.1 > 10.0.0.2"), "{text:?}");
    assert!(text[3].ends_with(" length 60 [dropped: bad_source]"), "{text:?}");
    assert!(told.contains("4 frames captured, 2 of them dropped by the switch; 0 missed"));
}

#[test]
fn filters_choose_and_files_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let switch = start(dir.path());
    let path = dir.path().join("ring.pcapng");
    // By the times of the frames, which are all the same.
    let turns = ["-G", "1000", "-W", "2", "-c", "3"];
    let args = [&["all", "--direction", "in", "-w", path.to_str().unwrap()][..], &turns].concat();
    let ring = Capturing::start(&switch, &args);
    let filtered = match Libpcap::load() {
        Ok(_) => Some(Capturing::start(&switch, &["all", "ip", "and", "udp", "-c", "2"])),
        Err(error) => {
            let output = switch.ask(&["capture", "all", "udp"]);
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains("libpcap0.8"), "{text}: {error}");
            None
        }
    };
    play(&switch, dir.path());
    if let Some(filtered) = filtered {
        let (text, _) = filtered.end();
        assert!(text.lines().all(|line| line.contains("[dropped: ")), "{text}");
    }
    ring.end();
    assert_eq!(read(&dir.path().join("ring_00001.pcapng")).len(), 3);
    assert!(!path.exists());
}

#[test]
fn the_protocol_carries_a_capture_file_and_checks_the_filter_itself() {
    let dir = tempfile::tempdir().unwrap();
    let switch = start(dir.path());
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&switch.control).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        (line, reader)
    };
    for (request, expected) in [
        (r#"{"command":"capture","ports":["x"]}"#, "no port 'x'; there are: sink"),
        (r#"{"command":"capture","filter":"zz"}"#, "16 hexadecimal digits"),
        (r#"{"command":"capture","filter":"0005000000000009"}"#, "outside of the filter"),
        (r#"{"command":"capture","snaplen":0}"#, "snaplen 0: expected 1 to"),
        (r#"{"command":"capture","buffer":5}"#, "buffer 5: expected"),
        (r#"{"command":"capture","direction":"up"}"#, "unknown variant"),
    ] {
        let (line, _) = ask(request);
        assert!(line.starts_with(r#"{"error":"#) && line.contains(expected), "{request}: {line}");
    }
    // All frames are taken; whoever has enough closes its side.
    let (line, reader) = ask(r#"{"command":"capture","filter":"0006000000000001"}"#);
    assert_eq!(line, "{\"ok\":{\"format\":\"pcapng\"}}\n");
    play(&switch, dir.path());
    let ending = reader.get_ref().try_clone().unwrap();
    let mut blocks = Blocks::new(reader);
    let (mut packets, mut missed) = (0, None);
    while let Some((_, block)) = blocks.next_block().unwrap() {
        match block {
            Block::Packet(_) => packets += 1,
            Block::Statistics(statistics) => missed = Some(statistics.missed),
            _ => {}
        }
        if packets == 4 {
            ending.shutdown(std::net::Shutdown::Write).unwrap();
        }
    }
    assert_eq!((packets, missed), (4, Some(0)));
    // A client that just goes away ends it, too: there is room for as many as before.
    for _ in 0..3 * switch::MAX_CAPTURES {
        let is_there = || ask(r#"{"command":"capture","ports":["sink"]}"#).0.contains("pcapng");
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_there() {
            assert!(std::time::Instant::now() < patience, "captures of clients that are gone");
        }
    }
}
