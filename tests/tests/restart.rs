//! A switch that is killed, again and again, while frames pass: what its rings held, and for how
//! long none pass.
//!
//! `RINGWAY_KILLS=50` makes the tests longer; `--nocapture` shows what they measure.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use ethdev::OpenPort;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drivers::Drivers;
use e2e::{Netns, OvsDatabase, Peer, Ringway, Testpmd, frames, require, require_shared, wait};
use packet::{BURST, Frame};
use rustix::process::Signal;

/// The worker's core; frames are sent and received on the other.
const CORES: &str = "1";

/// Frames that are on their way at most, fewer than a ring holds: nobody has to drop one.
const WINDOW: u64 = 128;

/// How long a frame may be missing before others are sent after it.
const PATIENCE: Duration = Duration::from_millis(20);

const LIMIT: Duration = Duration::from_secs(20);

/// A worker's longest burst: what a killed switch may have been about (decision 6).
const IN_FLIGHT: u64 = 64;

fn kills() -> u64 {
    std::env::var("RINGWAY_KILLS").map_or(5, |kills| kills.parse().unwrap())
}

/// Numbered frames out of one port and into another, or into the same one, on a thread.
struct Stream {
    shared: Arc<Shared>,
    thread: JoinHandle<Outcome>,
}

#[derive(Default)]
struct Shared {
    received: AtomicU64,
    /// The longest time without a frame since it was asked for, in nanoseconds.
    gap: AtomicU64,
    stop: AtomicBool,
}

/// What became of the frames that were taken by a ring.
#[derive(Debug)]
#[expect(dead_code, reason = "shown as a whole")]
struct Outcome {
    sent: u64,
    missing: u64,
    doubled: u64,
}

/// The thread's side.
struct Pump {
    ports: Vec<OpenPort>,
    shared: Arc<Shared>,
    /// How often each frame has come.
    seen: Vec<u8>,
    next: u64,
    sent_at: Instant,
    received_at: Instant,
}

impl Stream {
    fn start(ports: Vec<OpenPort>) -> Self {
        let shared = Arc::new(Shared::default());
        let now = Instant::now();
        let theirs = Arc::clone(&shared);
        let mut pump = Pump {
            ports,
            shared: theirs,
            seen: Vec::new(),
            next: 0,
            sent_at: now,
            received_at: now,
        };
        Self { shared, thread: std::thread::spawn(move || pump.run()) }
    }

    /// Waits until `count` more frames have come; gives the longest time without one meanwhile.
    fn flows(&self, count: u64) -> anyhow::Result<Duration> {
        let received = || self.shared.received.load(Ordering::Relaxed);
        let goal = received() + count;
        wait::until("frames", LIMIT, Duration::from_millis(1), || {
            Ok((received() >= goal).then_some(()))
        })?;
        Ok(Duration::from_nanos(self.shared.gap.swap(0, Ordering::Relaxed)))
    }

    fn finish(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Pump {
    fn run(&mut self) -> Outcome {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.next.saturating_sub(self.seen.len() as u64) < WINDOW
                || self.sent_at.elapsed() > PATIENCE
            {
                self.send();
            }
            self.receive();
        }
        while self.received_at.elapsed() < Duration::from_millis(500) {
            self.receive();
        }
        self.seen.resize(usize::try_from(self.next).unwrap(), 0);
        let more = |count: &u8| u64::from(count.saturating_sub(1));
        Outcome {
            sent: self.next,
            missing: self.seen.iter().filter(|count| **count == 0).count() as u64,
            doubled: self.seen.iter().map(more).sum(),
        }
    }

    fn send(&mut self) {
        let port = &mut self.ports[0];
        if !port.tx[0].is_ready() {
            return;
        }
        let number = |number: u64| u32::try_from(number).unwrap();
        let frame = |n| {
            let len = 60 + usize::try_from(n * 31 % 1400).unwrap();
            frames::frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], len, number(n))
        };
        let frames: Vec<_> = (self.next..self.next + 8).map(frame).collect();
        let burst: Vec<_> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
        // What was dropped, for the link went down just now, was not taken by the ring.
        let before = port.port.tx_queue_stats()[0].packets;
        port.tx[0].tx_burst(&burst);
        self.next += port.port.tx_queue_stats()[0].packets - before;
        self.sent_at = Instant::now();
    }

    fn receive(&mut self) {
        let port = self.ports.last_mut().unwrap();
        let burst = port.rx[0].rx_burst(BURST);
        let mut count = 0;
        for frame in burst.frames() {
            let bytes = frame.to_vec();
            let seed = u32::from_be_bytes(bytes[14..18].try_into().unwrap());
            let sent = frames::frame([0; 6], [0; 6], bytes.len(), seed);
            assert_eq!(bytes[12..], sent[12..], "frame {seed}");
            let place = usize::try_from(seed).unwrap();
            if place >= self.seen.len() {
                self.seen.resize(place + 1, 0);
            }
            self.seen[place] += 1;
            count += 1;
        }
        if count > 0 {
            let now = Instant::now();
            let gap = now.duration_since(self.received_at).as_nanos();
            self.shared.gap.fetch_max(u64::try_from(gap).unwrap(), Ordering::Relaxed);
            self.shared.received.fetch_add(count, Ordering::Relaxed);
            self.received_at = now;
        }
    }
}

fn front(dir: &Path, n: u8, drivers: &Drivers, options: &str) -> OpenPort {
    let device = format!("virtio-user:{},{options}", dir.join(format!("s{n}")).display());
    drivers::open(&format!("front{n}"), &device, drivers).unwrap()
}

fn back(dir: &Path, n: u8, options: &str) -> String {
    format!("p{n}=vhost-user:{}{options}", dir.join(format!("s{n}")).display())
}

/// Ends the switch as a crash does: its sockets stay, and nobody is told.
fn kill(ringway: Ringway) {
    ringway.signal(Signal::KILL).unwrap();
    drop(ringway);
}

/// Received frames that were dropped for `reason`, and others, on all ports.
fn dropped(ringway: &Ringway, reason: &str) -> (u64, u64) {
    let stats = ringway.show("stats").unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
    let of_port = |port: &serde_json::Value| {
        let (all, these) = (number(&port["rx"]["dropped"]), number(&port["rx"]["drops"][reason]));
        (these, all - these)
    };
    let ports = stats["ports"].as_array().unwrap();
    ports.iter().map(of_port).fold((0, 0), |(a, b), (these, others)| (a + these, b + others))
}

/// Median and longest of `times`.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    format!("median {median:.1?}, longest {longest:.1?} of {}", times.len())
}

/// With records of chains in flight, as our front-end keeps them, no frame is lost that a ring
/// held, and none is doubled but those of a burst that the switch was just about.
#[test]
fn what_rings_hold_outlives_a_killed_switch() {
    let Some(_turn) = require_shared(&[]) else { return };
    for options in ["packed=off", "packed=on", "packed=on,in_order=on"] {
        let (dir, drivers) = (tempfile::tempdir().unwrap(), Drivers::new());
        let front = |n| front(dir.path(), n, &drivers, &format!("ctrl_vq=off,{options}"));
        let start = || {
            // The receiver's port first: frames for a port that is not there yet are dropped by
            // the switch, which has taken them from the ring then.
            let ringway = Ringway::switch(dir.path(), &[&back(dir.path(), 1, "")], CORES).unwrap();
            ringway.wait_rings(&["p1"], 2).unwrap();
            ringway.client(&["port", "add", &back(dir.path(), 0, "")]).unwrap();
            ringway
        };
        let stream = Stream::start(vec![front(0), front(1)]);
        let mut ringway = start();
        for round in 0..kills() {
            let flows = stream.flows(2000);
            assert!(flows.is_ok(), "{options}, round {round}: {flows:?}\n{}", ringway.log());
            kill(ringway);
            ringway = start();
        }
        stream.flows(2000).unwrap();
        let outcome = stream.finish();
        println!("{options}: {outcome:?}");
        assert_eq!(outcome.missing, 0, "{options}: {outcome:?}\n{}", ringway.log());
        assert!(outcome.doubled <= kills() * IN_FLIGHT, "{options}: {outcome:?}");
    }
}

/// DPDK's front-end keeps no records. Of split rings it keeps the rings, of packed ones nothing: it
/// drops what they held and begins anew, so frames are missing, but none comes that was not sent,
/// or more often than the bursts that were under way. Nor are any discarded between the start of a
/// ring and its being enabled.
#[test]
fn dpdks_front_end_goes_on_after_each_kill() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    for options in ["packed_vq=1,in_order=1", "packed_vq=1,in_order=0", "in_order=1", "in_order=0"]
    {
        let (dir, drivers) = (tempfile::tempdir().unwrap(), Drivers::new());
        let ports = [0, 1].map(|n| back(dir.path(), n, ",client=on"));
        let start = || Ringway::switch(dir.path(), &[&ports[0], &ports[1]], CORES).unwrap();
        // What DPDK receives it sends back.
        let path = dir.path().join("s1").display().to_string();
        let device = format!("net_virtio_user1,path={path},server=1,{options}");
        let mut ringway = start();
        let testpmd = Testpmd::new().cpu(0).vdev(device).arguments(["--port-topology=loop"]);
        let mut testpmd = testpmd.start().unwrap();
        testpmd.command("set fwd macswap").unwrap();
        testpmd.command("start").unwrap();
        ringway.wait_rings(&["p1"], 2).unwrap();
        let front = front(dir.path(), 0, &drivers, "ctrl_vq=off,server=on,packed=on,in_order=on");
        let stream = Stream::start(vec![front]);
        let (mut gaps, mut early) = (Vec::new(), 0);
        for round in 0..kills() {
            let gap = stream.flows(2000);
            assert!(gap.is_ok(), "{options}, {round}: {gap:?}\n{}", ringway.log());
            gaps.push(gap.unwrap());
            let (to_no_port, others) = dropped(&ringway, "link_down");
            assert_eq!(others, 0, "{options}, {round}: {:#}", ringway.show("stats").unwrap());
            early += to_no_port;
            kill(ringway);
            ringway = start();
        }
        stream.flows(2000).unwrap();
        let outcome = stream.finish();
        // The first one is the start of everything.
        let gaps = summary(gaps.split_off(1));
        println!("{options}: {gaps}; {outcome:?}, {early} before there was a port for them");
        assert!(outcome.doubled <= 2 * kills() * IN_FLIGHT, "{options}: {outcome:?}");
        testpmd.quit().unwrap();
    }
}

/// Tests that have the machine to themselves.
mod alone {
    use super::*;

    /// How long no frame passes, in both modes, with everything in place from the start.
    #[test]
    fn frames_pass_again_soon_after_a_kill() {
        let Some(_turn) = require(&[]) else { return };
        for (mode, ours, theirs) in
            [("server", "", "packed=on"), ("client", ",client=on", "packed=on,server=on")]
        {
            let (dir, drivers) = (tempfile::tempdir().unwrap(), Drivers::new());
            let ports = [0, 1].map(|n| back(dir.path(), n, ours));
            let start = || Ringway::switch(dir.path(), &[&ports[0], &ports[1]], CORES).unwrap();
            let front = |n| front(dir.path(), n, &drivers, &format!("ctrl_vq=off,{theirs}"));
            let stream = Stream::start(vec![front(0), front(1)]);
            let mut ringway = start();
            let mut gaps = Vec::new();
            stream.flows(2000).unwrap();
            for _ in 0..kills() {
                kill(ringway);
                ringway = start();
                let gap = stream.flows(2000);
                assert!(gap.is_ok(), "{mode}: {gap:?}\n{}", ringway.log());
                gaps.push(gap.unwrap());
            }
            let longest = gaps.iter().max().copied();
            println!("{mode}: {}; {:?}", summary(gaps), stream.finish());
            assert!(
                longest < Some(Duration::from_secs(2)),
                "{mode}: {longest:?}\n{}",
                ringway.log()
            );
        }
    }

    /// Figures of a switch that Open vSwitch's database describes: how long no frame passes after a
    /// kill, how long `ovs-vsctl add-port` takes, and how long a start with 256 ports.
    ///
    /// `cargo test --release -p ringway-e2e --features peers --test restart -- --ignored --nocapture`
    #[test]
    #[ignore = "measures and checks nothing: for a quiet machine"]
    fn figures_of_a_switch_of_open_vswitch_s_database() {
        let Some(_turn) = require(&[Peer::OvsDatabase, Peer::Netns]) else { return };
        let (dir, drivers, host) = (tempfile::tempdir().unwrap(), Drivers::new(), Netns::new());
        let (path, host) = (dir.path(), host.unwrap());
        // The bridge's own interface says nothing by itself.
        host.sh("for n in all default; do echo 1 >/proc/sys/net/ipv6/conf/$n/disable_ipv6; done")
            .unwrap();
        let database = OvsDatabase::start(path).unwrap();
        let vsctl = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let begin = Instant::now();
            database.vsctl(&words).unwrap();
            begin.elapsed()
        };
        let add = |n: usize| {
            let socket = path.join(format!("s{n}"));
            format!(
                "add-port br0 p{n} -- set Interface p{n} type=dpdkvhostuserclient \
                 options:vhost-server-path={}",
                socket.display()
            )
        };
        let start = || {
            let begin = Instant::now();
            let ringway = Ringway::vswitchd_with(&host, path, &["--cores", CORES]).unwrap();
            (ringway, begin.elapsed())
        };
        let (mut ringway, _) = start();
        vsctl(&format!("add-br br0 -- {} -- {}", add(0), add(1)));
        let front = |n| front(path, n, &drivers, "ctrl_vq=off,packed=on,server=on");
        let stream = Stream::start(vec![front(0), front(1)]);
        stream.flows(2000).unwrap();
        let mut gaps = Vec::new();
        for _ in 0..kills() {
            kill(ringway);
            (ringway, _) = start();
            gaps.push(stream.flows(2000).unwrap());
        }
        println!("no frame after a kill: {}; {:?}", summary(gaps), stream.finish());
        println!("ovs-vsctl add-port: {}", summary((2..32).map(|n| vsctl(&add(n))).collect()));
        let all: Vec<String> = (32..256).map(add).collect();
        println!("ovs-vsctl add-port, 224 at once: {:.1?}", vsctl(&all.join(" -- ")));
        let mut starts = Vec::new();
        for _ in 0..kills() {
            kill(ringway);
            let (again, time) = start();
            ringway = again;
            starts.push(time);
        }
        println!("start with 256 ports: {}", summary(starts));
    }
}
