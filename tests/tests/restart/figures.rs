use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drivers::Drivers;
use e2e::Vswitch;
use e2e::vswitch::Kind;

use super::stream::{Loss, Stream};
use super::{front, kills, summary};

/// The worker's core; frames are sent and received on the other.
const CPU: u32 = 1;

/// Ports that are added one by one, and all that there are in the end.
const ONE_BY_ONE: u32 = 32;
const ALL: u32 = 256;

/// What was measured of a switch.
struct Figures {
    kind: Kind,
    /// The longest time without a frame, of each kill.
    away: Vec<Duration>,
    add_port: Vec<Duration>,
    all_at_once: Duration,
    start: Vec<Duration>,
}

/// Prints how long a switch that Open vSwitch's database describes is away, and what it takes to be told: ours
/// beside OVS-DPDK.
pub fn print() {
    let all = Kind::ALL.map(measure);
    println!(
        "\n| {} kills | {} | {} | goal |\n|---|---|---|---|",
        kills(),
        all[0].kind,
        all[1].kind
    );
    let line = |what: &str, of: &dyn Fn(&Figures) -> String, goal: &str| {
        println!("| {what} | {} | {} | {goal} |", of(&all[0]), of(&all[1]));
    };
    line("no frame after a kill", &|all| summary(all.away.clone()), "300 ms");
    line("`ovs-vsctl add-port`", &|all| summary(all.add_port.clone()), "50 ms");
    line("224 ports by one command", &|all| format!("{:.1?}", all.all_at_once), "-");
    line("start with 256 ports", &|all| summary(all.start.clone()), "2 s");
}

fn measure(kind: Kind) -> Figures {
    let (dir, drivers) = (tempfile::tempdir().unwrap(), Drivers::new());
    let path = dir.path();
    let mut switch = Vswitch::start(kind, path, CPU).unwrap();
    for n in 0..2 {
        add(&switch, path, n..n + 1);
    }
    let ports = [0, 1].map(|n| front(path, n, &drivers, "ctrl_vq=off,packed=on,server=on"));
    let stream = Stream::start(ports.into(), Loss::Some);
    let flows = |switch: &Vswitch| {
        let gap = stream.flows(2000);
        assert!(gap.is_ok(), "{kind}: {gap:?}\n{}", switch.log());
        gap.unwrap()
    };
    flows(&switch);
    let mut away = Vec::new();
    for _ in 0..kills() {
        switch.restart().unwrap();
        away.push(flows(&switch));
    }
    println!("{kind}: {:?}", stream.finish());
    let add_port = (2..ONE_BY_ONE).map(|n| add(&switch, path, n..n + 1)).collect();
    let all_at_once = add(&switch, path, ONE_BY_ONE..ALL);
    let start = (0..kills()).map(|_| switch.restart().unwrap()).collect();
    Figures { kind, away, add_port, all_at_once, start }
}

/// Adds ports by one `ovs-vsctl`; gives how long it took.
fn add(switch: &Vswitch, dir: &Path, ports: std::ops::Range<u32>) -> Duration {
    let socket = |n: u32| -> PathBuf { dir.join(format!("s{n}")) };
    let all: Vec<Vec<String>> =
        ports.map(|n| Vswitch::adds(&format!("p{n}"), n + 1, &socket(n))).collect();
    let words = all.join(&"--".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let begin = Instant::now();
    switch.vsctl(&words).unwrap();
    begin.elapsed()
}
