//! AF_XDP and AF_PACKET ports: `ringway switch` between virtual Ethernet interfaces whose peers
//! are in other network namespaces.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::{
    L2fwd, Netns, Peer, Process, Ringway, ping, process, require_shared, ringway, side_by_side,
    traffic, wait,
};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
const MIB: u32 = 16;

/// Frames on their way where none may be lost: the kernel's own ring between two virtual interfaces
/// has 256 entries, so it takes all of them, however late it or anybody else is.
const BURST: u64 = 250;

/// Joins two namespaces: `inner` of the switch's to `outer` of another.
fn join(switch: &Netns, inner: &str, other: &Netns, outer: &str, mtu: u32) {
    let (at, to) = (switch.name(), other.name());
    let line = format!(
        "ip link add {inner} mtu {mtu} netns {at} type veth peer name {outer} mtu {mtu} netns {to}"
    );
    process::sh(&line).unwrap();
    for (netns, name) in [(switch, inner), (other, outer)] {
        // The kernel shall say nothing that nobody asked for.
        netns.sh(&format!("ip link set {name} addrgenmode none up")).unwrap();
    }
}

/// A switch's namespace with interfaces `pa` and `pb`, and the namespaces of their peers.
struct Stage {
    switch: Netns,
    left: Netns,
    right: Netns,
}

impl Stage {
    /// The peers are `l0` and `r0`, with addresses 10.1.0.1 and 10.1.0.2.
    fn hosts() -> Self {
        let [switch, left, right] = [(); 3].map(|()| Netns::new().unwrap());
        join(&switch, "pa", &left, "l0", 1500);
        join(&switch, "pb", &right, "r0", 1500);
        left.sh("ip address add 10.1.0.1/24 dev l0").unwrap();
        right.sh("ip address add 10.1.0.2/24 dev r0").unwrap();
        Self { switch, left, right }
    }

    /// Ping and TCP both ways.
    fn talk(&self) {
        self.left.ping("10.1.0.2", "-c 100 -i 0.01").unwrap();
        self.left.sh("ping -q -c 3 -i 0.01 -M do -s 1472 10.1.0.2").unwrap();
        let (left, right) = (&self.left, &self.right);
        let there = traffic::transfer(left, right, "10.1.0.2", MIB).unwrap();
        let back = traffic::transfer(right, left, "10.1.0.1", MIB).unwrap();
        println!("{MIB} MiB in {there:?} and {back:?}");
    }
}

/// Sends [`BURST`] frames of `size` bytes from one device to another, in namespace `outside`, and
/// checks that each arrives once, as it was.
fn send_exactly(outside: &Netns, ringway: &Ringway, [from, to]: [&str; 2], size: u32) {
    let binary = ringway::binary().unwrap().display().to_string();
    let mut command = outside.command(&binary);
    let (size, count) = (size.to_string(), BURST.to_string());
    command.args(["gen", "flowgen", "--port", from, "--port2", to, "--size", &size]);
    command.args(["--count", &count, "--flows", "64", "--json"]);
    let text = process::run(&mut command).unwrap();
    let last = text.lines().rfind(|line| line.starts_with("{\"summary\"")).unwrap();
    let summary: Value = serde_json::from_str(last).unwrap();
    let summary = &summary["summary"];
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(
        (number("good"), number("lost")),
        (BURST, 0),
        "{size} bytes: {summary:#} {:#}",
        ringway.show("stats").unwrap()
    );
    assert_eq!((number("corrupt"), number("reordered")), (0, 0), "{size} bytes: {summary:#}");
}

#[test]
fn every_frame_arrives_once_as_it_was_sent() {
    // More than rings of 1024 hold in all.
    const BURSTS: u64 = 2;
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    const MIXES: [[&str; 2]; 3] = [
        ["a=af-xdp:pa", "b=af-xdp:pb"],
        ["a=af-packet:pa", "b=af-packet:pb"],
        ["a=af-packet:pa", "b=af-xdp:pb"],
    ];
    let sets = [(1500, &[60, 64, 1514][..]), (9000, &[64, 1514, 3900, 9014])];
    let cases: Vec<_> = sets.iter().flat_map(|set| MIXES.iter().map(move |m| (*set, *m))).collect();
    // The generator waits half a second for what is late.
    side_by_side(MIXES.len(), &cases, |((mtu, sizes), ports)| {
        let (switch, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
        join(&switch, "pa", &outside, "a0", *mtu);
        join(&switch, "pb", &outside, "b0", *mtu);
        let dir = tempfile::tempdir().unwrap();
        let mut ringway = Ringway::switch_in(&switch, dir.path(), ports, "0").unwrap();
        ringway.wait_links(&["a", "b"]).unwrap();
        for &size in *sizes {
            let before = ringway.counters("b").unwrap();
            for _ in 0..BURSTS {
                send_exactly(&outside, &ringway, ["af-packet:a0", "af-packet:b0"], size);
                send_exactly(&outside, &ringway, ["af-packet:b0", "af-packet:a0"], size);
            }
            let after = ringway.counters("b").unwrap();
            let sent = after.tx_packets - before.tx_packets;
            assert_eq!(sent, BURSTS * BURST, "{ports:?}, {size} bytes: {after:?}");
            assert_eq!((after.rx_dropped, after.tx_dropped), (0, 0), "{ports:?}: {after:?}");
        }
        assert!(ringway.stop(LIMIT).unwrap().success());
    });
}

#[test]
fn hosts_talk_through_every_mix_of_ports() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let mixes = [
        ["a=af-xdp:pa", "b=af-xdp:pb"],
        ["a=af-packet:pa", "b=af-packet:pb"],
        ["a=af-xdp:pa", "b=af-packet:pb"],
        ["a=af-xdp:pa,busy_poll=on", "b=af-xdp:pb,busy_poll=on"],
    ];
    side_by_side(2, &mixes, |ports| {
        let (stage, dir) = (Stage::hosts(), tempfile::tempdir().unwrap());
        let mut ringway = Ringway::switch_in(&stage.switch, dir.path(), ports, "0").unwrap();
        ringway.wait_links(&["a", "b"]).unwrap();
        println!("{ports:?}");
        stage.talk();
        assert!(ringway.stop(LIMIT).unwrap().success());
        assert!(!stage.switch.sh("ip link").unwrap().contains("xdp"), "a program is left over");
    });
}

/// Hosts at both ends of `ringway l2fwd`, whose interfaces have the addresses that frames get.
#[test]
fn l2fwd_joins_interfaces_and_leaves_their_filters_alone_unless_told() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let devices = [["af-xdp:pa", "af-xdp:pb"], ["af-packet:pa", "af-packet:pb"]];
    side_by_side(devices.len(), &devices, |ports| {
        let stage = Stage::hosts();
        stage.left.sh("ip link set l0 address 02:00:00:00:00:00").unwrap();
        stage.right.sh("ip link set r0 address 02:00:00:00:00:01").unwrap();
        for (options, promiscuity) in [(&[][..], "promiscuity 0"), (&["-P"], "promiscuity 1")] {
            let l2fwd = L2fwd::start_in(&stage.switch, ports, options).unwrap();
            l2fwd.wait_ready().unwrap();
            l2fwd.wait_links().unwrap();
            let shown = stage.switch.sh("ip -d link show pa").unwrap();
            assert!(shown.contains(promiscuity), "{ports:?}, {options:?}: {shown}");
            stage.talk();
            let (status, summary) = l2fwd.stop(LIMIT).unwrap();
            assert!(status.success(), "{summary:#}");
        }
    });
}

/// A host whose segments are large, behind AF_PACKET, talks to one behind TAP.
#[test]
fn large_segments_pass_between_af_packet_and_tap() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let stage = Stage::hosts();
    let dir = tempfile::tempdir().unwrap();
    let ports = ["a=af-packet:pa", "t=tap:rwt"];
    let ringway = Ringway::switch_in(&stage.switch, dir.path(), &ports, "0").unwrap();
    ringway.wait_links(&["a", "t"]).unwrap();
    stage.right.sh("ip address flush dev r0").unwrap();
    let right = stage.right.name();
    stage.switch.sh(&format!("ip link set rwt netns {right}")).unwrap();
    stage.right.sh("ip address add 10.1.0.2/24 dev rwt && ip link set rwt up").unwrap();
    stage.talk();
    let counters = ringway.counters("a").unwrap();
    let mean = counters.rx_bytes / counters.rx_packets.max(1);
    assert!(mean > 1514, "no large segments: {counters:?}");
}

#[test]
fn after_a_kill_nothing_is_left_and_the_next_start_works() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let stage = Stage::hosts();
    let dir = tempfile::tempdir().unwrap();
    let ports = ["a=af-xdp:pa", "b=af-xdp:pb"];
    for _ in 0..3 {
        let ringway = Ringway::switch_in(&stage.switch, dir.path(), &ports, "0").unwrap();
        ringway.wait_links(&["a", "b"]).unwrap();
        stage.left.sh("ping -q -c 5 -i 0.01 10.1.0.2").unwrap();
        let shown = stage.switch.sh("ip -d link show pa").unwrap();
        assert!(shown.contains("prog/xdp") && shown.contains("promiscuity 1"), "{shown}");
        ringway.kill();
        wait::until("the kernel to clean up", LIMIT, PAUSE, || {
            let shown = stage.switch.sh("ip -d link show pa")?;
            let clean = !shown.contains("xdp") && shown.contains("promiscuity 0");
            Ok(clean.then_some(()))
        })
        .unwrap();
    }
}

/// The lines of the log that are about an interface.
fn lines_about(ringway: &Ringway, name: &str) -> Vec<String> {
    let log = ringway.log();
    log.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

/// Whether `ringway show ports` has port `c` waiting for its interface.
fn is_waiting(ringway: &Ringway) -> bool {
    let shown = ringway.show("ports").unwrap();
    let ports = shown["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == "c").unwrap();
    let about = port["details"]["interface"].as_str().unwrap();
    port["link_up"] == false && about.starts_with("waiting for 'pc'")
}

/// Pings from a namespace to the other, each of which is to be answered.
fn pings(from: &Netns) -> Process {
    let line = ping::line("busybox ping", "10.1.0.2", "-c 200 -i 0.01").unwrap();
    let mut command = from.command("sh");
    command.args(["-c", &line]);
    Process::start("pings", command).unwrap()
}

/// The port's interface is not there at the start, is made, deleted and made again, while the
/// others carry frames.
#[test]
fn a_port_takes_its_interface_up_whenever_it_is_there() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    side_by_side(2, &["af-xdp", "af-packet"], |driver| {
        let stage = Stage::hosts();
        let other = Netns::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ports = ["a=af-xdp:pa", "b=af-packet:pb", &format!("c={driver}:pc")];
        let ringway = Ringway::switch_in(&stage.switch, dir.path(), &ports, "0").unwrap();
        ringway.wait_links(&["a", "b"]).unwrap();
        assert!(is_waiting(&ringway));
        for round in 1..=3 {
            let mut running = pings(&stage.left);
            join(&stage.switch, "pc", &other, "c0", 1500);
            ringway.wait_links(&["c"]).unwrap();
            other.sh("ip address add 10.1.0.3/24 dev c0").unwrap();
            other.ping("10.1.0.1", "-c 20 -i 0.01").unwrap();
            stage.switch.sh("ip link delete pc").unwrap();
            wait::until(
                "the port to wait",
                LIMIT,
                PAUSE,
                || Ok(is_waiting(&ringway).then_some(())),
            )
            .unwrap();
            assert!(running.wait(LIMIT).unwrap().success(), "{}", running.log());
            let lines = || lines_about(&ringway, "'pc'");
            let about = |what: &str| lines().iter().filter(|line| line.contains(what)).count();
            // The log may be told a moment after those who ask.
            let told = || Ok((about("waits for one of this name") >= round).then_some(()));
            wait::until("the log has it", LIMIT, PAUSE, told).unwrap();
            assert_eq!(about("waits for the interface: there is no such"), 1, "{:?}", lines());
            assert_eq!(about("and the port uses it"), round, "{:?}", lines());
            assert_eq!(about("waits for one of this name"), round, "{:?}", lines());
        }
        ringway.client(&["port", "del", "c"]).unwrap();
        stage.talk();
    });
}

#[test]
fn interrupts_rest_while_a_port_is_polled_and_no_longer() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let stage = Stage::hosts();
    let dir = tempfile::tempdir().unwrap();
    let settings = |name: &str| {
        let files = ["napi_defer_hard_irqs", "gro_flush_timeout"];
        files.map(|file| {
            let text = stage.switch.sh(&format!("cat /sys/class/net/{name}/{file}")).unwrap();
            text.trim().parse::<u64>().unwrap()
        })
    };
    stage.switch.sh("echo 7 >/sys/class/net/pb/napi_defer_hard_irqs").unwrap();
    let ports = ["a=af-xdp:pa,busy_poll=on", "b=af-xdp:pb,busy_poll=on"];
    let mut ringway = Ringway::switch_in(&stage.switch, dir.path(), &ports, "0").unwrap();
    ringway.wait_links(&["a", "b"]).unwrap();
    assert_eq!((settings("pa"), settings("pb")), ([2, 200_000], [7, 200_000]));
    let shown = ringway.show("ports").unwrap();
    assert_eq!(shown["ports"][0]["details"]["busy_poll"], "on, interrupts rest", "{shown:#}");
    stage.talk();
    assert!(ringway.stop(LIMIT).unwrap().success());
    assert_eq!((settings("pa"), settings("pb")), ([0, 0], [7, 0]), "what somebody chose stays");
}

/// What an AF_XDP port may change on an interface, as `ip` and sysfs show it.
fn settings(netns: &Netns, name: &str) -> String {
    let line = format!(
        "ip -d -o link show {name} | grep -o -E 'mtu [0-9]+|ether [0-9a-f:]+|promiscuity [0-9]+|xdp'; \
         cd /sys/class/net/{name} && cat napi_defer_hard_irqs gro_flush_timeout"
    );
    netns.sh(&line).unwrap()
}

#[test]
fn an_interface_is_as_it_was_however_many_signals_end_the_switch() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let stage = Stage::hosts();
    let dir = tempfile::tempdir().unwrap();
    let before = settings(&stage.switch, "pa");
    let ports =
        ["a=af-xdp:pa,busy_poll=on,mtu=1400,mac=02:aa:bb:cc:dd:ee", "b=af-packet:pb", "t=tap:t0"];
    let storms: [&[Signal]; 2] =
        [&[Signal::TERM], &[Signal::INT, Signal::TERM, Signal::HUP, Signal::USR1, Signal::XCPU]];
    for storm in storms.iter().cycle().take(20) {
        let mut ringway = Ringway::switch_in(&stage.switch, dir.path(), &ports, "0").unwrap();
        let during = settings(&stage.switch, "pa");
        assert!(during.contains("mtu 1400") && during.contains("02:aa:bb:cc:dd:ee"), "{during}");
        for signal in [Signal::USR1, Signal::USR2, Signal::ALARM] {
            ringway.signal(signal).unwrap();
        }
        ringway.wait_links(&["a", "b"]).unwrap();
        for signal in storm.iter().cycle() {
            if !ringway.is_running() || ringway.signal(*signal).is_err() {
                break;
            }
            // Not to wait for something: signals that are pending at the same time are one.
            std::thread::sleep(Duration::from_micros(200));
        }
        let status = ringway.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(0), "{storm:?}: {status}: {}", ringway.log());
        assert_eq!(settings(&stage.switch, "pa"), before, "{storm:?}");
        assert!(stage.switch.sh("ip link show t0").is_err(), "{storm:?}: the TAP interface stays");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{storm:?}: files stay");
    }
}

/// Starts a switch that must be refused, in a namespace; gives its message.
fn refusal(netns: &Netns, dir: &Path, ports: &[&str]) -> String {
    let binary = ringway::binary().unwrap();
    let mut command: Command = netns.command(&binary.display().to_string());
    command.args(["switch", "--control"]).arg(dir.join("refused.ctl"));
    for port in ports {
        command.args(["--port", port]);
    }
    let mut process = Process::start("ringway switch", command).unwrap();
    assert!(!process.wait(LIMIT).unwrap().success());
    process.wait_output_end(LIMIT).unwrap();
    process.log()
}

#[test]
fn what_cannot_be_is_refused_with_a_way_out() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let stage = Stage::hosts();
    let dir = tempfile::tempdir().unwrap();
    let mut ringway = Ringway::switch_in(&stage.switch, dir.path(), &["a=af-xdp:pa"], "0").unwrap();
    for (port, part) in [
        ("x=af-xdp:pa", "has an XDP program already"),
        ("x=af-xdp:pb,queues=7", "it has 1 queue, not 7; use queues=1"),
        ("x=af-xdp:pb,mode=zero-copy", "use mode=copy"),
    ] {
        let text = refusal(&stage.switch, dir.path(), &[port]);
        assert!(text.contains(part), "{port}: {text}");
    }
    assert!(ringway.is_running());
    ringway.signal(Signal::INT).unwrap();
    assert!(ringway.wait(LIMIT).unwrap().success());
}

#[test]
fn an_idle_port_sleeps_until_the_first_frame() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let stage = Stage::hosts();
    for ports in [
        ["a=af-xdp:pa", "b=af-xdp:pb"],
        ["a=af-packet:pa", "b=af-packet:pb"],
        ["a=af-xdp:pa,busy_poll=on", "b=af-xdp:pb,busy_poll=on"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ringway = Ringway::switch_in(&stage.switch, dir.path(), &ports, "0").unwrap();
        ringway.wait_links(&["a", "b"]).unwrap();
        stage.left.sh("ping -q -c 3 -i 0.01 10.1.0.2").unwrap();
        let ticks = || process::ticks_in_a_second(ringway.id()).unwrap();
        let what = format!("{ports:?}: ticks of 100 of a core, and idle");
        wait::until_good(&what, 12, ticks, |ticks| *ticks <= 5).unwrap();
        // Far more than a frame takes, and far less than the nap of a worker nobody wakes, a second.
        let longest = || {
            let text = stage.left.ping("10.1.0.2", "-c 5 -i 0.2").unwrap();
            let times = text.split(" time=").skip(1).filter_map(|rest| rest.split(' ').next());
            times.map(|time| time.parse::<f64>().unwrap()).fold(0.0, f64::max)
        };
        let what = format!("{ports:?}: milliseconds of the longest answer");
        wait::until_good(&what, 20, longest, |time| *time < 250.0).unwrap();
    }
}
