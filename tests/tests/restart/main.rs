//! A switch that is killed, again and again, while frames pass: what its rings held, and for how
//! long none pass.
//!
//! `RINGWAY_KILLS=50` makes the tests longer; `--nocapture` shows what they measure.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod figures;
mod stream;

use std::path::Path;
use std::time::Duration;

use drivers::Drivers;
use e2e::{Peer, Ringway, Testpmd, require, require_shared};
use ethdev::OpenPort;
use rustix::process::Signal;

use self::stream::{Loss, Stream};

/// The worker's core; frames are sent and received on the other.
const CORES: &str = "1";

/// A worker's longest burst: what a killed switch may have been about (decision 6).
const IN_FLIGHT: u64 = 64;

fn kills() -> u64 {
    std::env::var("RINGWAY_KILLS").map_or(5, |kills| kills.parse().unwrap())
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
        let stream = Stream::start(vec![front(0), front(1)], Loss::None);
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
        let stream = Stream::start(vec![front], Loss::Some);
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
            let stream = Stream::start(vec![front(0), front(1)], Loss::Some);
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
            // Who waits too long does so each time; what else the machine does is now and then.
            let shortest = gaps.iter().min().copied();
            println!("{mode}: {}; {:?}", summary(gaps), stream.finish());
            assert!(
                shortest < Some(Duration::from_secs(2)),
                "{mode}: {shortest:?}\n{}",
                ringway.log()
            );
        }
    }

    /// `cargo test -p ringway-e2e --features peers --test restart -- --ignored --nocapture`
    #[test]
    #[ignore = "measures and checks nothing: for a quiet machine"]
    fn figures_beside_ovs_dpdk() {
        let Some(_turn) = require(&[Peer::Ovs, Peer::Netns]) else { return };
        figures::print();
    }
}
