//! What an operator meets: memory, signals, refusals, the live view.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{Peer, Process, Ringway, Terminal, require_shared, ringway};
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
        let mut times = vec![ending_time(&mut ringway, signal, dir.path())];
        // Once in a few tries: what else the machine does may take as long.
        while times.last().is_some_and(|time| *time >= Duration::from_secs(1)) {
            assert!(times.len() < 5, "{signal:?}: ended after {times:?}");
            let mut ringway = Ringway::switch(dir.path(), &ports, "0").unwrap();
            times.push(ending_time(&mut ringway, signal, dir.path()));
        }
    }
}

/// Ends a switch well; gives how long that takes.
fn ending_time(ringway: &mut Ringway, signal: Signal, dir: &Path) -> Duration {
    let start = Instant::now();
    ringway.signal(signal).unwrap();
    let status = ringway.wait(Duration::from_secs(60)).unwrap();
    let time = start.elapsed();
    assert!(status.success(), "{status}: {}", ringway.log());
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "files are left over");
    time
}

/// Runs `ringway switch` with arguments that must be refused; gives its exit status and message.
fn refusal(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let control = dir.join("refused.ctl");
    let mut command = ringway::command(&["switch", "--control"]).unwrap();
    command.arg(control).args(arguments);
    let mut process = Process::start("ringway switch", command).unwrap();
    let status = process.wait(Duration::from_secs(60)).unwrap();
    process.wait_output_end(Duration::from_secs(60)).unwrap();
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

/// What `ringway top` shows on a terminal, and that it gives that back as it was.
#[test]
fn top_shows_256_ports_on_a_terminal_and_gives_it_back() {
    let Some(_turn) = require_shared(&[Peer::Terminal]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
    let mut ports: Vec<String> = (1..=254).map(|n| format!("null{n}=null:")).collect();
    ports.extend([("a", &a), ("b", &b)].map(|(n, p)| format!("{n}=vhost-user:{}", p.display())));
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let switch = Ringway::switch(dir.path(), &ports, "0").unwrap();
    let device = |path: &Path| format!("virtio-user:{}", path.display());
    let (from, to) = (device(&a), device(&b));
    let gen_args = ["gen", "flowgen", "--rate", "200", "--port", &from, "--port2", &to];
    let _traffic = Process::start("gen", ringway::command(&gen_args).unwrap()).unwrap();

    let top = ringway::binary().unwrap();
    let top = format!("{} top --control {}", top.display(), switch.control().display());
    let terminal = Terminal::start(dir.path(), (80, 24), &top).unwrap();
    let screen = terminal.wait_for("with rates", |s| s.contains("\na ") && s.contains("rx 2"));
    let screen = screen.unwrap();
    assert!(screen.contains("ports 256 of 256 up"), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(screen.contains("ringway "), "the process behind a port: {screen}");
    terminal.keys(&["/", "n", "u", "l", "l", "2", "5", "Enter"]).unwrap();
    terminal.wait_for("a filter", |s| s.contains("with 'null25': 6 of 256")).unwrap();
    // Back, to the end of the table by its names.
    terminal.keys(&["Escape"]).unwrap();
    terminal.wait_for("no filter", |s| s.contains("q quit")).unwrap();
    terminal.keys(&["<", "<", "G"]).unwrap();
    terminal.wait_for("the last row", |s| s.contains("by port") && s.contains("null254")).unwrap();
    terminal.keys(&["g", "Enter"]).unwrap();
    terminal.wait_for("a port", |s| s.contains("guest takes") && s.contains("the last ")).unwrap();
    terminal.keys(&["q", "2"]).unwrap();
    terminal.wait_for("workers", |s| s.contains("cycles/frame")).unwrap();
    switch.client(&["bond", "add", "uplink", "--members", "null253,null254"]).unwrap();
    switch.client(&["mirror", "add", "watch", "--src", "a", "--to", "null252"]).unwrap();
    terminal.keys(&["5"]).unwrap();
    let is_bond = |s: &str| s.contains("uplink null253  up   active");
    let screen = terminal.wait_for("a bond", is_bond).unwrap();
    assert!(screen.contains(" 5 Bonds 2 "), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    terminal.keys(&["6"]).unwrap();
    let is_mirror = |s: &str| s.contains("watch  active") && s.contains("in a");
    terminal.wait_for("a mirror", is_mirror).unwrap();
    terminal.keys(&["7"]).unwrap();
    terminal
        .wait_for("no vDPA device", |s| s.contains("none; 'ringway port add NAME=vdpa:"))
        .unwrap();
    terminal.keys(&["2"]).unwrap();
    terminal.wait_for("workers again", |s| s.contains("cycles/frame")).unwrap();
    terminal.resize(200, 60).unwrap();
    terminal.wait_for("a large screen", |s| s.contains("load of the core")).unwrap();

    switch.kill();
    terminal.wait_for("that it is lost", |s| s.contains("NO ANSWER")).unwrap();
    let switch = Ringway::switch(dir.path(), &["c=null:"], "0").unwrap();
    let found = format!("pid {} ", switch.id());
    terminal.wait_for("the new one", |s| s.contains(&found) && !s.contains("NO ANSWER")).unwrap();
    for (index, signal) in [Signal::TERM, Signal::HUP].into_iter().enumerate() {
        if index > 0 {
            terminal.again().unwrap();
            terminal.wait_for("it once more", |s| s.contains("q quit")).unwrap();
        }
        terminal.signal(signal).unwrap();
        terminal.wait_end(0).unwrap();
    }
    terminal.again().unwrap();
    terminal.wait_for("it once more", |s| s.contains("q quit")).unwrap();
    terminal.keys(&["q"]).unwrap();
    terminal.wait_end(0).unwrap();

    let text = switch.client(&["top", "--batch", "-n", "2", "--interval", "0.1"]).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("c  ")).count();
    assert_eq!(rows, 2, "{text}");
    let alone = dir.path().join("none.ctl");
    let mut command = ringway::command(&["top", "--control"]).unwrap();
    let output = command.arg(alone).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
