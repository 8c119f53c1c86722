//! Flows over the receive queues of a Linux guest that has more of them than the switch has workers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::frames::{read_pcap, write_pcap};
use e2e::peers::find_program;
use e2e::{GuestImage, ImageSpec, Netns, Nic, Peer, Process, Qemu, Ringway, Vm};
use e2e::{require_shared, ringway, wait};
use packet::builder::FrameBuilder;
use packet::{MacAddr, flow};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

const FLOWS: u16 = 1000;
/// All frames of a burst find room in the guest's rings, whatever it does meanwhile.
const FRAMES_OF_FLOW: u8 = 2;
const BURST: u64 = FLOWS as u64 * FRAMES_OF_FLOW as u64;
const VLAN: u16 = 10;

const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

const PORTS: &str = r#"
[sandbox]
ports = ["pcap"]
paths = ["DIR"]
[ports.vm]
device = "vhost-user:DIR/vm.sock,queues=4"
[ports.load]
device = "vhost-user:DIR/load.sock"
"#;

/// Number `sequence` of a flow.
fn frame(flow: u16, sequence: u8) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    FrameBuilder::new(SENDER, GUEST)
        .ip(Ipv4Addr::new(10, 1, high, low), Ipv4Addr::new(10, 2, 0, 1))
        .udp(1000 + flow, 2000)
        .payload(&[high, low, sequence])
        .build()
        .unwrap()
}

/// How many frames of a burst each of `queues` queues is to get.
fn predicted(queues: usize) -> Vec<u64> {
    let mut counts = vec![0; queues];
    for number in 0..FLOWS {
        counts[flow::hash(&frame(number, 0)) as usize % queues] += u64::from(FRAMES_OF_FLOW);
    }
    counts
}

fn image() -> GuestImage {
    let ethtool = find_program("ethtool").unwrap();
    ImageSpec::new("steering")
        .modules(&["virtio_net"])
        .program_named(&ringway::binary().unwrap(), "ringway")
        .program(&ethtool)
        .build()
        .unwrap()
}

/// A switch with one worker, and a guest with four queues.
struct Bench {
    dir: PathBuf,
    _netns: Netns,
    ringway: Ringway,
    vm: Vm,
}

impl Bench {
    fn new(dir: &Path) -> Self {
        let netns = Netns::new().unwrap();
        let ports = PORTS.replace("DIR", &dir.display().to_string());
        let ringway = Ringway::configured_in(&netns, dir, &ports, "1").unwrap();
        let nic = Nic::new(&dir.join("vm.sock"), "52:54:00:00:00:01").queues(4);
        let nic = nic.options("rx_queue_size=1024");
        let qemu = Qemu::new("steering", &image()).memory_mib(512).nic(nic);
        let mut vm = qemu.start(dir).unwrap();
        vm.wait_boot().unwrap();
        vm.sh("ip link set eth0 up").unwrap();
        let all: Vec<_> = (0..FRAMES_OF_FLOW)
            .flat_map(|sequence| (0..FLOWS).map(move |flow| frame(flow, sequence)))
            .collect();
        write_pcap(&dir.join("flows.pcap"), &all).unwrap();
        Self { dir: dir.to_owned(), _netns: netns, ringway, vm }
    }

    /// Has the guest use so many queues.
    fn set_queues(&mut self, queues: usize) {
        self.vm.sh(&format!("ethtool -L eth0 combined {queues}")).unwrap();
        self.ringway.wait_rings(&["vm"], 2 * queues).unwrap();
    }

    /// How many frames each queue that the guest uses has received, while it records.
    fn received(&mut self) -> Vec<u64> {
        let text = self.vm.sh("ringway show stats --json --control /tmp/ctl").unwrap();
        let stats: Value = serde_json::from_str(&text).unwrap();
        let mut ports = stats["ports"].as_array().unwrap().iter();
        let port = ports.find(|port| port["name"] == "in").unwrap();
        let queues = port["rx_queues"].as_array().unwrap().iter();
        queues.map(|queue| queue["packets"].as_u64().unwrap()).collect()
    }

    /// How often each of the first `queues` queues has interrupted the guest.
    fn interrupts(&mut self, queues: usize) -> Vec<u64> {
        let text = self.vm.sh("cat /proc/interrupts").unwrap();
        let count = |queue| {
            let name = format!("-input.{queue}");
            let line = text.lines().find(|line| line.ends_with(&name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (0..queues).map(count).collect()
    }

    /// Has the guest record what comes, by a socket of its kernel's for each of its queues.
    fn record(&mut self) {
        let line = "rm -f /tmp/out.pcap; ringway switch --control /tmp/ctl \
             --port in=af-xdp:eth0,mode=generic --port out=pcap:,tx=/tmp/out.pcap \
             >/tmp/log 2>&1 & echo $! >/tmp/pid; \
             until ringway show ports --control /tmp/ctl 2>/dev/null | grep -q '^in .* up'; do \
             usleep 20000; done";
        self.vm.sh(line).unwrap();
    }

    /// The frames that the guest has recorded.
    fn recorded(&mut self) -> Vec<Vec<u8>> {
        let end = "kill $(cat /tmp/pid); while [ -d /proc/$(cat /tmp/pid) ]; do usleep 10000; done";
        let text = self.vm.sh(&format!("{end}; xxd -p /tmp/out.pcap")).unwrap();
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let path = self.dir.join("out.pcap");
        std::fs::write(&path, digits.chunks(2).map(byte).collect::<Vec<_>>()).unwrap();
        read_pcap(&path).unwrap()
    }

    /// Sends a burst to the guest, in a VLAN or none, and checks that each of its queues had its
    /// flows, and each flow its order.
    fn spreads(&mut self, queues: usize, vlan: bool) {
        self.record();
        let before = self.received();
        let source = format!("source=pcap:{}", self.dir.join("flows.pcap").display());
        let tag = VLAN.to_string();
        let options = if vlan { &["--tag", &tag][..] } else { &[] };
        self.ringway.client(&[&["port", "add", &source][..], options].concat()).unwrap();
        let mut counts = Vec::new();
        wait::until("all frames in the guest", LIMIT, PAUSE, || {
            let now = self.received();
            counts = now.iter().zip(&before).map(|(now, before)| now - before).collect();
            Ok((counts.iter().sum::<u64>() >= BURST).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}: {counts:?}\n{}", self.ringway.log()));
        assert_eq!((counts.len(), &counts), (queues, &predicted(queues)));
        let even = BURST / queues as u64;
        assert!(
            counts.iter().all(|count| (even / 5 * 4..even * 6 / 5).contains(count)),
            "{counts:?}"
        );
        println!("{counts:?}");
        let frames = self.recorded();
        is_in_order(&frames, vlan);
        self.ringway.client(&["port", "del", "source"]).unwrap();
    }

    /// Has the guest use so many queues while frames arrive, and waits until they do on all of them.
    fn change_under_load(&mut self, queues: usize) {
        self.set_queues(queues);
        let before = self.interrupts(queues);
        wait::until("frames on all queues", LIMIT, PAUSE, || {
            let now = self.interrupts(queues);
            Ok(now.iter().zip(&before).all(|(now, before)| now > before).then_some(()))
        })
        .unwrap();
    }
}

/// All frames of the burst are there, those of each flow in their order.
fn is_in_order(frames: &[Vec<u8>], vlan: bool) {
    let tag: &[u8] = if vlan { &[0x81, 0, 0, 10] } else { &[] };
    let mut next = vec![0; usize::from(FLOWS)];
    for bytes in frames.iter().filter(|bytes| bytes[6..12] == SENDER.0) {
        let (addresses, rest) = bytes.split_at(12);
        let rest = rest.strip_prefix(tag).unwrap_or_else(|| panic!("no tag: {bytes:x?}"));
        let payload = &rest[30..33];
        let number = u16::from_be_bytes([payload[0], payload[1]]);
        let expected = frame(number, next[usize::from(number)]);
        let same = [addresses, rest].concat().starts_with(&expected);
        assert!(same, "flow {number}: {bytes:x?} in place of {expected:x?}");
        next[usize::from(number)] += 1;
    }
    assert!(next.iter().all(|count| *count == FRAMES_OF_FLOW), "{next:?}");
}

/// Frames of 1000 flows for all, at a rate that the guest can take.
fn load(dir: &Path) -> Process {
    let port = format!("virtio-user:{}", dir.join("load.sock").display());
    let arguments = ["gen", "txonly", "--port", &port, "--flows", "1000", "--rate", "2k"];
    Process::start("ringway gen", ringway::command(&arguments).unwrap()).unwrap()
}

#[test]
fn a_thousand_flows_use_all_queues_of_a_guest_and_stay_in_order() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    bench.set_queues(4);
    bench.spreads(4, false);
    bench.ringway.client(&["port", "set", "vm", "--trunks", &VLAN.to_string()]).unwrap();
    bench.spreads(4, true);
    bench.ringway.client(&["port", "set", "vm", "--no-vlan"]).unwrap();
    let mut load = load(dir.path());
    for queues in [2, 1, 4, 3] {
        bench.change_under_load(queues);
    }
    load.stop(LIMIT).unwrap();
    bench.spreads(3, false);
}
