//! The igb driver on QEMU's 82576, in a guest, over VFIO and UIO. Frames come from outside of the
//! guest and are checked there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

mod vlans;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::frames::{difference, frame, frames};
use e2e::{Model, PciNic, Peer, Qemu, Vm, Wire, l2fwd, pci, require_shared, wait};
use igb::rss::{DEFAULT_KEY, Spread};
use packet::MacAddr;
use packet::builder::FrameBuilder;
use packet::checksum::Checksum;
use packet::headers::{ArpOperation, EtherType, TcpFlags};
use serde_json::{Value, json};

/// How long anything may take in a guest under emulation on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two questions to the guest.
const PAUSE: Duration = Duration::from_millis(100);

/// Stations outside of the guest: one at each wire.
const STATIONS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xA]), MacAddr([2, 0, 0, 0, 0, 0xB])];

/// Frames on their way at once.
const BURST: usize = 8;

const EXPERIMENT: EtherType = EtherType(0x88B5);
const TAG: EtherType = EtherType(0x8100);

/// A guest with two igb devices, and what is at the other ends of their cables.
struct Bench {
    vm: Vm,
    wires: [Wire; 2],
    nics: [PciNic; 2],
}

impl Bench {
    fn start(dir: &Path) -> Self {
        let wires = ["a", "b"].map(|name| Wire::new(dir, name).unwrap());
        let nic = |n: u8| {
            let mac = format!("52:54:00:00:00:0{n}");
            PciNic::new(Model::Igb, n, &mac, &wires[usize::from(n) - 1])
        };
        let nics = [nic(1), nic(2)];
        let qemu = Qemu::new("igb", &pci::image().unwrap()).iommu();
        let mut vm = nics.iter().fold(qemu, Qemu::pci_nic).start(dir).unwrap();
        vm.wait_boot().unwrap();
        vm.sh("modprobe igb && modprobe tun").unwrap();
        Self { vm, wires, nics }
    }

    fn bind(&mut self, driver: &str) {
        let [a, b] = self.nics.each_ref().map(PciNic::address);
        self.vm.sh(&format!("ringway devices bind {a} {b} --driver {driver}")).unwrap();
    }

    /// Starts a switch with a port per device, `a` and `b`, with these options.
    fn switch(&mut self, options: [&str; 2]) {
        let [a, b] = self.nics.each_ref().map(PciNic::address);
        let ports = [format!("a=igb:{a}{}", options[0]), format!("b=igb:{b}{}", options[1])];
        self.switch_with(&ports.each_ref().map(String::as_str));
    }

    fn switch_with(&mut self, ports: &[&str]) {
        let ports: Vec<String> = ports.iter().map(|port| format!("--port {port}")).collect();
        self.switch_as(&ports.join(" "));
    }

    /// Starts a switch with these arguments.
    fn switch_as(&mut self, arguments: &str) {
        let start = Instant::now();
        self.vm.spawn("switch", &format!("ringway switch {arguments}")).unwrap();
        self.wait("links are up", |bench| {
            let Some(ports) = bench.show("ports") else { return false };
            let ports = ports["ports"].as_array().unwrap().clone();
            ports.iter().all(|port| port["link_up"] == true)
        });
        println!("the switch and its links were up after {:?}", start.elapsed());
    }

    /// Ends the switch; what the kernel says of interrupts and DMA goes to the log of the test.
    fn stop(&mut self, signal: &str) {
        self.vm.end("switch", signal).unwrap();
        let log = self.vm.sh("cat /tmp/switch.log; dmesg | grep -i dmar.*fault || true").unwrap();
        assert!(!log.to_lowercase().contains("fault"), "{log}");
        println!("{log}");
    }

    /// What `ringway show` says; `None` while there is no switch.
    fn show(&mut self, what: &str) -> Option<Value> {
        let output = self.vm.run(&format!("ringway show {what} --json")).unwrap();
        (output.status == 0).then(|| serde_json::from_str(&output.text).unwrap())
    }

    fn stats(&mut self, port: &str) -> Value {
        let stats = self.show("stats").unwrap();
        let mut ports = stats["ports"].as_array().unwrap().iter();
        ports.find(|found| found["name"] == port).unwrap().clone()
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let waited = wait::until(what, LIMIT, PAUSE, || Ok(done(self).then_some(())));
        if let Err(error) = waited {
            let log = self.vm.run("cat /tmp/switch.log; dmesg | tail").unwrap().text;
            panic!("{error}: {log}");
        }
    }

    /// Sends frames into one wire and expects them from the other.
    fn relays(&mut self, from: usize, sent: &[Vec<u8>]) {
        for burst in sent.chunks(BURST) {
            burst.iter().for_each(|frame| self.wires[from].send(frame).unwrap());
            let arrived = self.expect(1 - from, burst.len());
            if let Some(difference) = difference(burst, &arrived) {
                let (a, b) = (self.stats("a"), self.stats("b"));
                panic!("{difference}\n{a:#}\n{b:#}");
            }
        }
    }

    /// The next frames of our own at a wire, up to `count` of them: the guest's kernel may have
    /// sent others before.
    fn expect(&self, wire: usize, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + LIMIT;
        let mut frames = Vec::new();
        while frames.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(frame) = self.wires[wire].receive(left).unwrap() else { break };
            if frame[6..8] == [2, 0] {
                frames.push(frame);
            }
        }
        frames
    }

    /// Sum of the counts of interrupts whose line in /proc/interrupts has `name`.
    fn interrupts(&mut self, name: &str) -> u64 {
        let lines = self.vm.sh(&format!("grep -F '{name}' /proc/interrupts")).unwrap();
        let counts = lines.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
        counts.sum()
    }

    fn set_link(&mut self, n: usize, up: bool) {
        let name = format!("wire{}x0", n + 1);
        self.vm.qmp("set_link", &json!({ "name": name, "up": up })).unwrap();
    }
}

#[test]
fn two_devices_over_vfio_carry_everything() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path());
    bench.bind("vfio-pci");
    frames_of_all_sizes_pass_unchanged(&mut bench);
    a_worker_sleeps_and_is_woken(&mut bench, "vfio-msix[1](0000:01:00.0)");
    a_link_that_goes_and_comes_is_noticed(&mut bench);
    a_killed_switch_starts_again(&mut bench);
    flows_go_to_the_predicted_queues(&mut bench);
    vlans_are_tagged_and_filtered(&mut bench);
    frames_for_others_are_left_out_on_request(&mut bench);
    checksums_and_segments_are_made_by_the_device(&mut bench);
    l2fwd_rewrites_addresses(&mut bench);
    a_device_in_use_is_taken_away(&mut bench);
    vlans::an_interface_of_a_card_takes_two_tags_beside_its_mtu(&mut bench);
    vlans::stations_reach_each_other_in_their_vlans_only(&mut bench);
    bench.vm.sh("ringway devices restore --all").unwrap();
}

#[test]
fn two_devices_over_uio_carry_frames() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path());
    bench.vm.sh(&pci::huge_pages(64)).unwrap();
    bench.bind("uio_pci_generic");
    frames_of_all_sizes_pass_unchanged(&mut bench);
    a_worker_sleeps_and_is_woken(&mut bench, "uio_pci_generic");
    a_link_that_goes_and_comes_is_noticed(&mut bench);
    a_killed_switch_starts_again(&mut bench);
    flows_go_to_the_predicted_queues(&mut bench);
    l2fwd_rewrites_addresses(&mut bench);
}

fn l2fwd_rewrites_addresses(bench: &mut Bench) {
    let ports = bench.nics.each_ref().map(|nic| format!("igb:{},mtu=9000", nic.address()));
    let macs = [1, 2].map(|n| [0x52, 0x54, 0, 0, 0, n]);
    let ports = ports.each_ref().map(String::as_str);
    l2fwd::check_in_guest(&mut bench.vm, &bench.wires, ports, macs).unwrap();
}

fn frames_of_all_sizes_pass_unchanged(bench: &mut Bench) {
    bench.switch([",mtu=9000"; 2]);
    let [a, b] = STATIONS.map(|station| station.0);
    // More than fit into the rings at once, so that all descriptors are used again.
    bench.relays(0, &frames(b, a, &[60, 64, 65, 1514, 2048, 2049, 9000, 9014], 1200));
    bench.relays(1, &frames(a, b, &[64, 1514, 9000], 300));
    let stats = bench.stats("a");
    assert_eq!((&stats["rx"]["dropped"], &stats["tx"]["dropped"]), (&0.into(), &0.into()));
    // The device itself has counted as many, and kept none of them.
    assert!(stats["extended"]["rx_wire_good_packets"].as_u64().unwrap() >= 1200, "{stats:#}");
    assert_eq!(stats["extended"]["rx_q0_missed_packets"], 0);
}

fn a_worker_sleeps_and_is_woken(bench: &mut Bench, interrupt: &str) {
    let sleeps = |bench: &mut Bench| {
        let workers = bench.show("workers").unwrap();
        let workers = workers["workers"].as_array().unwrap();
        workers.iter().map(|worker| worker["sleeps"].as_u64().unwrap()).sum::<u64>()
    };
    let [a, b] = STATIONS.map(|station| station.0);
    for round in 0..3 {
        let before = sleeps(bench);
        bench.wait("a worker sleeps", |bench| {
            bench.relays(0, &[frame(b, a, 100, 1000 + round)]);
            sleeps(bench) > before
        });
    }
    let count = bench.interrupts(interrupt);
    assert!(count > 0, "{interrupt}");
}

fn a_link_that_goes_and_comes_is_noticed(bench: &mut Bench) {
    let link = |bench: &mut Bench| {
        let ports = bench.show("ports").unwrap();
        let port = ports["ports"][0].clone();
        (port["link_up"].as_bool().unwrap(), port["link_changes"].as_u64().unwrap())
    };
    // Opening waits for the first negotiation, for a second: on a machine with other work that may take
    // longer, and is a change then.
    let (up, before) = link(bench);
    assert!(up && before <= 1, "{before} changes");
    bench.set_link(0, false);
    bench.wait("the link is down", |bench| link(bench) == (false, before + 1));
    bench.set_link(0, true);
    bench.wait("the link is up", |bench| link(bench) == (true, before + 2));
    let [a, b] = STATIONS.map(|station| station.0);
    bench.relays(0, &[frame(b, a, 100, 1)]);
    bench.relays(1, &[frame(a, b, 100, 2)]);
}

fn a_killed_switch_starts_again(bench: &mut Bench) {
    let [a, b] = STATIONS.map(|station| station.0);
    bench.wires[0].send(&frame(b, a, 1514, 1)).unwrap();
    bench.stop("KILL");
    // What had been on its way is either lost or here.
    while bench.wires[1].receive(Duration::from_millis(50)).unwrap().is_some() {}
    bench.switch(["", ""]);
    bench.relays(0, &frames(b, a, &[64, 1514], 40));
    bench.relays(1, &frames(a, b, &[64, 1514], 40));
    bench.stop("TERM");
}

fn flows_go_to_the_predicted_queues(bench: &mut Bench) {
    bench.switch([",queues=4", ",queues=4"]);
    let spread = Spread::new(DEFAULT_KEY, &[0, 1, 2, 3]);
    let mut expected = [0_u64; 4];
    let mut sent = Vec::new();
    for flow in 0..40_u8 {
        let flow16 = u16::from(flow);
        let build = FrameBuilder::new(STATIONS[0], STATIONS[1]);
        let four: [IpAddr; 2] =
            [Ipv4Addr::new(10, 1, 0, flow).into(), Ipv4Addr::new(10, 2, 0, 1).into()];
        let six: [IpAddr; 2] =
            [format!("fd00::{flow:x}").parse().unwrap(), "fd00:1::1".parse().unwrap()];
        let udp = (1000 + flow16, 2000);
        let tcp = (3000 + flow16, 4000);
        for [source, destination] in [four, six] {
            let ip = build.clone().ip(source, destination).payload(&[flow; 20]);
            let flags = TcpFlags::ACK;
            for (frame, ports) in
                [(ip.clone().udp(udp.0, udp.1), udp), (ip.tcp(tcp, 1, 1, flags), tcp)]
            {
                sent.push(frame.build().unwrap());
                let queue = spread.queue_of(source, destination, Some(ports));
                expected[usize::from(queue)] += 1;
            }
        }
    }
    bench.relays(0, &sent);
    let stats = bench.stats("a");
    let queues = stats["rx_queues"].as_array().unwrap();
    let counts: Vec<u64> = queues.iter().map(|queue| queue["packets"].as_u64().unwrap()).collect();
    assert_eq!(counts, expected, "{stats:#}");
    bench.stop("TERM");
}

fn tagged(vlan: u16, seed: u8) -> Vec<u8> {
    let frame = FrameBuilder::new(STATIONS[0], STATIONS[1]).tag(TAG, vlan);
    frame.ether_type(EXPERIMENT).payload(&[seed; 80]).build().unwrap()
}

fn untagged(from: usize, seed: u8) -> Vec<u8> {
    let frame = FrameBuilder::new(STATIONS[from], STATIONS[1 - from]);
    frame.ether_type(EXPERIMENT).payload(&[seed; 80]).build().unwrap()
}

fn vlans_are_tagged_and_filtered(bench: &mut Bench) {
    bench.switch([",vlan=100", ""]);
    // Only the frame of the port's VLAN comes through, without its tag.
    for frame in [tagged(101, 1), untagged(0, 2), tagged(100, 3)] {
        bench.wires[0].send(&frame).unwrap();
    }
    assert_eq!(bench.expect(1, 1), [untagged(0, 3)]);
    bench.wires[1].send(&untagged(1, 4)).unwrap();
    let mut expected = untagged(1, 4);
    expected.splice(12..12, [0x81, 0, 0, 100]);
    assert_eq!(bench.expect(0, 1), [expected]);
    assert_eq!(bench.stats("a")["rx"]["drops"]["filtered"], 1);
    bench.stop("TERM");

    bench.switch([",vlans=5+100", ""]);
    for frame in [tagged(101, 1), tagged(100, 2), untagged(0, 3), tagged(6, 4), tagged(5, 5)] {
        bench.wires[0].send(&frame).unwrap();
    }
    assert_eq!(bench.expect(1, 3), [tagged(100, 2), untagged(0, 3), tagged(5, 5)]);
    bench.stop("TERM");
}

fn frames_for_others_are_left_out_on_request(bench: &mut Bench) {
    bench.switch([",promiscuous=off,multicast=01:00:5e:00:00:05", ""]);
    let from = STATIONS[0].0;
    let own = [0x52, 0x54, 0, 0, 0, 1];
    let (group, other_group) = ([1, 0, 0x5E, 0, 0, 5], [1, 0, 0x5E, 0, 0, 0x66]);
    let wanted = [own, [0xFF; 6], group].map(|to| frame(to, from, 100, 1));
    for to in [STATIONS[1].0, other_group] {
        bench.wires[0].send(&frame(to, from, 100, 2)).unwrap();
    }
    wanted.iter().for_each(|frame| bench.wires[0].send(frame).unwrap());
    assert_eq!(bench.expect(1, 3), wanted);
    bench.stop("TERM");
}

/// The kernel gets it at once, and the process goes on with the other one.
fn a_device_in_use_is_taken_away(bench: &mut Bench) {
    bench.switch(["", ""]);
    let [a, b] = STATIONS.map(|station| station.0);
    bench.relays(0, &frames(b, a, &[64, 1514], 16));
    let address = bench.nics[1].address();
    let start = Instant::now();
    bench.vm.sh(&format!("echo 1 >/sys/bus/pci/devices/{address}/remove")).unwrap();
    println!("the device was away after {:?}", start.elapsed());
    bench.wait("its port is down, the other one up", |bench| {
        let ports = bench.show("ports").unwrap();
        ports["ports"][0]["link_up"] == true && ports["ports"][1]["link_up"] == false
    });
    let gone = bench.vm.sh("cat /tmp/switch.log").unwrap();
    assert_eq!(gone.matches("is to be given back; the port is down").count(), 1, "{gone}");
    // It comes back as a new device, while its former port is still there.
    bench.vm.sh("echo 1 >/sys/bus/pci/rescan").unwrap();
    bench
        .vm
        .sh(&format!("ringway devices bind {address} && ringway devices show {address}"))
        .unwrap();
    bench.stop("TERM");
}

/// Whether the checksums of the IPv4 header and of what it carries are right.
fn is_valid(frame: &[u8]) -> bool {
    let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let (ip, transport) = (&frame[14..34], &frame[34..14 + len]);
    let address = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).unwrap();
    let transport_len = u16::try_from(transport.len()).unwrap();
    let mut sum = Checksum::pseudo_v4(address(12), address(16), ip[9], transport_len);
    sum.add(transport);
    packet::checksum::checksum(ip) == 0 && sum.finish() == 0
}

/// A kernel's frames come through a TAP port with their checksums begun and uncut.
fn checksums_and_segments_are_made_by_the_device(bench: &mut Bench) {
    let address = bench.nics[0].address();
    bench.switch_with(&["tap=tap:tap0", &format!("a=igb:{address}")]);
    bench.vm.sh("ip addr add 10.5.0.1/24 dev tap0 && ip link set tap0 up").unwrap();
    let tcp = |frame: &[u8]| frame.len() > 54 - 1 && frame[12..14] == [8, 0] && frame[23] == 6;
    bench.vm.sh("head -c 100000 /dev/zero | tr '\\0' x >/tmp/data").unwrap();
    // All of it at once, so that TCP finds more than a frame waiting.
    let send = "nc 10.5.0.2 80 -e dd if=/tmp/data bs=100000 >/dev/null 2>&1 &";
    bench.vm.sh(send).unwrap();
    let who_has = |frame: &[u8]| frame[12..14] == [8, 6] && frame[38..42] == [10, 5, 0, 2];
    let question = bench.wires[0].receive_some(1, LIMIT, who_has).unwrap().remove(0);
    let guest = MacAddr(question[6..12].try_into().unwrap());
    let (ours, theirs) = (Ipv4Addr::new(10, 5, 0, 2), Ipv4Addr::new(10, 5, 0, 1));
    let answer = FrameBuilder::new(STATIONS[0], guest)
        .arp(ArpOperation::REPLY, (STATIONS[0], ours), (guest, theirs))
        .build()
        .unwrap();
    bench.wires[0].send(&answer).unwrap();
    let syn = bench.wires[0].receive_some(1, LIMIT, tcp).unwrap().remove(0);
    assert!(is_valid(&syn), "{syn:?}");
    let answer = syn_answer(&syn);
    bench.wires[0].send(&answer).unwrap();
    // The first window of ten segments, which the kernel hands over in few pieces.
    let data = |frame: &[u8]| tcp(frame) && frame.len() > 100;
    let segments = bench.wires[0].receive_some(10, LIMIT, data).unwrap();
    let mut next = u32::from_be_bytes(syn[38..42].try_into().unwrap()).wrapping_add(1);
    for segment in &segments {
        assert!(segment.len() <= 1514 && is_valid(segment), "{segment:?}");
        assert_eq!(u32::from_be_bytes(segment[38..42].try_into().unwrap()), next);
        next = next.wrapping_add(u32::try_from(segment.len() - 54).unwrap());
        assert!(segment[54..].iter().all(|byte| *byte == b'x'));
    }
    let stats = bench.stats("a");
    assert!(stats["extended"]["tx_tso_packets"].as_u64().unwrap() > 0, "{stats:#}");
    bench.vm.sh("kill $(pidof dd) || true").unwrap();
    bench.stop("TERM");
}

/// The answer to a SYN, without options, from port 80.
fn syn_answer(syn: &[u8]) -> Vec<u8> {
    let source = u16::from_be_bytes([syn[34], syn[35]]);
    let sequence = u32::from_be_bytes(syn[38..42].try_into().unwrap());
    let guest = MacAddr(syn[6..12].try_into().unwrap());
    let mut frame = FrameBuilder::new(STATIONS[0], guest)
        .ip(Ipv4Addr::new(10, 5, 0, 2), Ipv4Addr::new(10, 5, 0, 1))
        .tcp((80, source), 1, sequence.wrapping_add(1), TcpFlags::SYN | TcpFlags::ACK)
        .build()
        .unwrap();
    // The largest window, and the checksum anew.
    frame[48..52].copy_from_slice(&[0xFF, 0xFF, 0, 0]);
    let len = u16::try_from(frame.len() - 34).unwrap();
    let mut sum = Checksum::pseudo_v4([10, 5, 0, 2], [10, 5, 0, 1], 6, len);
    sum.add(&frame[34..]);
    frame[50..52].copy_from_slice(&sum.finish().to_be_bytes());
    frame
}
