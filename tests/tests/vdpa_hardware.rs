//! vDPA with virtio network hardware: QEMU's device behind a virtual IOMMU, in a Linux guest.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::frames::frame;
use e2e::wire::{self, LEFT, RIGHT};
use e2e::{
    Model, Netns, PciNic, Peer, Qemu, Ringway, Vm, Wire, l2fwd, pci, require_shared, ringway, wait,
};
use serde_json::Value;

/// How long anything may take in a guest under emulation on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(180);

/// Between two questions to the switch: each takes the guest's CPU for a twentieth of a second.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a measure is taken that other work on the machine may spoil.
const TRIES: usize = 12;

/// The outer switch's core; the guest may use all.
const CORES: &str = "1";

/// Properties of a device whose doorbells have a page each, as those of hardware do.
const HARDWARE: &str = "packed=on,page-per-vq=on,vectors=8";

/// Sends every frame of ours that comes out of a wire back into it, addresses swapped.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(wire: Wire) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let Some(frame) = wire.receive(Duration::from_millis(20)).unwrap() else {
                    continue;
                };
                if frame.get(12..14) == Some(&[0x88, 0xb5]) {
                    let back = [&frame[6..12], &frame[..6], &frame[12..]].concat();
                    wire.send(&back).unwrap();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let outcome = self.thread.take().unwrap().join();
        assert!(outcome.is_ok() || std::thread::panicking());
    }
}

/// A guest with the device at `0000:01:00.0`, bound to VFIO, and the driver's own tests in it.
fn guest(dir: &Path, name: &str) -> (Vm, Wire) {
    let wire = Wire::new(dir, name).unwrap();
    let nic = PciNic::new(Model::Virtio, 1, "52:54:00:00:00:01", &wire).options(HARDWARE);
    let program = ringway::test_program("ringway-vdpa", "hardware").unwrap();
    let image = pci::spec().unwrap().named("vdpa-hardware").program_named(&program, "vdpa-tests");
    let qemu = Qemu::new(name, &image.build().unwrap()).iommu().pci_nic(&nic).booting();
    let mut vm = qemu.start(dir).unwrap();
    vm.wait_boot().unwrap();
    vm.sh(&pci::huge_pages(32)).unwrap();
    vm.sh("ringway devices bind 0000:01:00.0 --driver vfio-pci").unwrap();
    (vm, wire)
}

#[test]
fn the_device_serves_rings_by_itself() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, wire) = guest(dir.path(), "own");
    let _echo = Echo::start(wire);
    let command =
        "RINGWAY_TEST_VDPA=0000:01:00.0 vdpa-tests --ignored --test-threads=1 --nocapture 2>&1";
    let running = vm.begin(command).unwrap();
    let output = vm.finish(&running, 5 * PATIENCE).unwrap();
    println!("{}", output.text);
    assert_eq!(output.status, 0);
}

/// Frames of sizes for each kind of buffer use.
const SIZES: [usize; 4] = [64, 1514, 9000, 60];

/// A guest in which the device at `0000:01:00.0` is attached to a socket, by a process of its own,
/// and whatever drives that socket also has the device at `0000:02:00.0`.
struct Bench {
    vm: Vm,
    wires: [Wire; 2],
    next: u32,
}

impl Bench {
    fn new(dir: &Path, name: &str) -> Self {
        let wires = [0, 1].map(|n| Wire::new(dir, &format!("{name}{n}")).unwrap());
        let nics = [
            PciNic::new(Model::Virtio, 1, "52:54:00:00:00:01", &wires[0]).options(HARDWARE),
            PciNic::new(Model::Virtio, 2, "52:54:00:00:00:02", &wires[1]).options("packed=on"),
        ];
        let image = pci::spec_with_testpmd().unwrap().build().unwrap();
        let qemu = Qemu::new(name, &image).iommu();
        let mut vm = nics.iter().fold(qemu, Qemu::pci_nic).start(dir).unwrap();
        vm.wait_boot().unwrap();
        vm.sh(&pci::huge_pages(160)).unwrap();
        vm.sh("ringway devices bind 0000:01:00.0 0000:02:00.0 --driver vfio-pci").unwrap();
        Self { vm, wires, next: 0 }
    }

    /// Attaches the device to `/tmp/vdpa0`.
    fn attach(&mut self) {
        attach(&mut self.vm);
    }

    /// How often each thread of the process that attached the device has woken up.
    fn wakes(&mut self) -> BTreeMap<u64, u64> {
        // One that ends meanwhile has nothing to say.
        let line = "cat /proc/$(cat /tmp/vdpa.pid)/task/*/status 2>/dev/null | \
                    grep -E '^(Pid|voluntary_ctxt)'";
        let text = self.vm.sh(line).unwrap();
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
    }

    /// How often threads of that process wake up while `count` frames pass each way, and what is
    /// counted of their processor time, in ticks of 10 ms.
    fn activity(&mut self, count: u32) -> (u64, u64) {
        let ticks = |bench: &mut Self| {
            let line = "cut -d ')' -f 2 /proc/$(cat /tmp/vdpa.pid)/stat";
            let stat = bench.vm.sh(line).unwrap();
            // User and system time are 14 and 15 of all fields.
            let stat = stat.split_whitespace().skip(11).take(2);
            stat.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
        };
        let (wakes, before) = (self.wakes(), ticks(self));
        self.transfer(count);
        let after = ticks(self);
        let more = self.wakes().into_iter().map(|(thread, now)| {
            let before = wakes.get(&thread).copied().unwrap_or_default();
            now - before
        });
        (more.sum(), after - before)
    }

    fn end(&mut self, what: &str, signal: &str) {
        self.vm.end(what, signal).unwrap();
    }

    /// Starts a switch between the socket and the other device.
    fn switch(&mut self, options: &str) {
        let switch = format!(
            "ringway switch --control /tmp/ctl --port left=virtio-user:/tmp/vdpa0,mtu=9000{options} \
             --port right=virtio-pci:0000:02:00.0,mtu=9000"
        );
        self.vm.sh("rm -f /tmp/ctl").unwrap();
        self.vm.spawn("switch", &switch).unwrap();
        self.wait_for_links(true);
    }

    /// Waits until both ports have a link and the left one the device's doorbells, or until it has
    /// no link.
    fn wait_for_links(&mut self, up: bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.vm.run("ringway show ports --json --control /tmp/ctl").unwrap();
            let shown: Value = serde_json::from_str(&output.text).unwrap_or_default();
            let ports = shown["ports"].as_array().cloned().unwrap_or_default();
            let links = [0, 1].map(|n| ports.get(n).is_some_and(|port| port["link_up"] == true));
            // It takes the doorbells when it comes to it.
            let doorbells = !up
                || ports.first().is_some_and(|port| port["details"]["doorbells"] == "2 of 2 rings");
            if ports.len() == 2 && links == [up, true] && doorbells {
                return;
            }
            let logs = "tail -n 20 /tmp/switch.log /tmp/vdpa.log";
            assert!(Instant::now() < deadline, "{shown:#}\n{}", self.vm.sh(logs).unwrap());
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends frames both ways and checks what comes out.
    fn transfer(&mut self, count: u32) {
        let passed = wire::exchange(&self.wires, &SIZES, &mut self.next, count, PATIENCE);
        let logs = "tail -n 20 /tmp/switch.log /tmp/vdpa.log";
        assert!(passed.is_ok(), "{passed:?}: {}", self.vm.sh(logs).unwrap());
    }
}

/// Attaches the device at `0000:01:00.0` to `/tmp/vdpa0`.
fn attach(vm: &mut Vm) {
    vm.sh("rm -f /tmp/vdpa0").unwrap();
    vm.spawn("vdpa", "ringway vdpa --iface /tmp/vdpa --device virtio-pci:0000:01:00.0").unwrap();
    wait::until("the socket", PATIENCE, Duration::from_millis(20), || {
        let state = vm
            .sh("[ -S /tmp/vdpa0 ] && echo there; [ -d /proc/$(cat /tmp/vdpa.pid) ] || \
             cat /tmp/vdpa.log")?;
        assert!(state.trim() == "there" || state.is_empty(), "{state}");
        Ok((state.trim() == "there").then_some(()))
    })
    .unwrap();
}

/// Starts testpmd between the socket and the other device.
fn testpmd(bench: &mut Bench, options: &str) {
    let testpmd = format!(
        "dpdk-testpmd --lcores 0@0,1@0 -m 128 --no-telemetry --single-file-segments \
         -a 0000:02:00.0 --vdev net_virtio_user0,path=/tmp/vdpa0{options} -- --forward-mode=io \
         --total-num-mbufs=2048 --auto-start"
    );
    // It ends when its standard input does.
    let input = "rm -f /tmp/in; mkfifo /tmp/in; sleep 600 >/tmp/in & echo $! >/tmp/sleeper.pid";
    bench.vm.sh(input).unwrap();
    bench.vm.spawn("testpmd", &format!("{testpmd} </tmp/in")).unwrap();
    // It forwards when frames come through, whatever it has printed by then.
    let first = frame(RIGHT, LEFT, 60, u32::MAX);
    let pause = Duration::from_millis(200);
    let ready = wait::until("a frame", PATIENCE, pause, || {
        bench.vm.sh("[ -d /proc/$(cat /tmp/testpmd.pid) ]")?;
        bench.wires[1].send(&first)?;
        Ok(bench.wires[0].receive(pause)?.map(drop))
    });
    let logs = "tail -n 40 /tmp/testpmd.log /tmp/vdpa.log";
    assert!(ready.is_ok(), "{ready:?} {}", bench.vm.sh(logs).unwrap());
    bench.wires[0].drain(pause).unwrap();
}

#[test]
fn dpdks_driver_gets_its_frames() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Testpmd]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), "dpdk");
    bench.attach();
    for options in ["", ",packed_vq=1", ",packed_vq=1,mrg_rxbuf=0", ",in_order=0"] {
        testpmd(&mut bench, options);
        for (from, to) in [(0, 1), (1, 0)] {
            for seed in 0..64 {
                let frame = frame(RIGHT, LEFT, 60 + 20 * seed as usize, seed);
                bench.wires[from].send(&frame).unwrap();
                let arrived = bench.wires[to].receive_some(1, PATIENCE, |other| other == frame);
                let logs = "tail -n 30 /tmp/testpmd.log /tmp/vdpa.log";
                assert!(arrived.is_ok(), "{options}: {arrived:?} {}", bench.vm.sh(logs).unwrap());
            }
        }
        // The next one comes to a device that this one has left in the middle.
        bench.end("testpmd", "KILL");
        bench.end("sleeper", "KILL");
    }
    let log = bench.vm.sh("cat /tmp/vdpa.log").unwrap();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

/// A host behind a switch of its own, at which the device's other end is a port, reaches one that
/// is beyond the guest.
#[test]
fn two_queue_pairs_carry_the_flows_of_a_host() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let name = |n: u8| format!("rv{}x{n}", std::process::id());
    let nic = |n: u8| {
        let mac = format!("52:54:00:00:00:0{n}");
        let nic = PciNic::on_tap(Model::Virtio, n, &mac, &name(n), 2);
        nic.options(&format!("mq=on,{HARDWARE}"))
    };
    let qemu = Qemu::new("pairs", &pci::image().unwrap()).iommu().booting();
    let mut vm = qemu.pci_nic(&nic(1)).pci_nic(&nic(2)).start(dir.path()).unwrap();
    let hosts = [1, 2].map(|n: u8| {
        let (netns, name) = (Netns::new().unwrap(), name(n));
        let moved = Command::new("ip").args(["link", "set", &name, "netns", netns.name()]).status();
        assert!(moved.unwrap().success());
        netns.sh(&format!("ip link set {name} up")).unwrap();
        netns
    });
    let ports = [&format!("device=af-packet:{}", name(1)), "host=tap:host0"];
    let outer = Ringway::switch_in(&hosts[0], dir.path(), &ports, CORES).unwrap();
    for (host, n, name) in [(&hosts[0], 1, "host0"), (&hosts[1], 2, &name(2))] {
        let up = format!("ip address add 10.9.0.{n}/24 dev {name}; ip link set {name} up");
        host.sh(&up).unwrap();
    }
    vm.wait_boot().unwrap();
    vm.sh(&pci::huge_pages(64)).unwrap();
    vm.sh("ringway devices bind 0000:01:00.0 0000:02:00.0 --driver vfio-pci").unwrap();
    for options in ["", ",packed=on"] {
        attach(&mut vm);
        let switch = format!(
            "ringway switch --control /tmp/ctl --port left=virtio-user:/tmp/vdpa0,queues=2{options} \
             --port right=virtio-pci:02:00.0,queues=2"
        );
        vm.sh("rm -f /tmp/ctl").unwrap();
        vm.spawn("switch", &switch).unwrap();
        // The switch is under way, and ping ends when nobody has answered ARP for three seconds. It
        // compares what comes back with what it has sent.
        let ping = || hosts[0].sh("ping -c 3 -i 0.2 -w 60 -s 1400 10.9.0.2");
        let ping = wait::until_ok("answers to ping", PATIENCE, Duration::ZERO, ping);
        assert!(ping.is_ok(), "{ping:?}: {}", vm.sh("cat /tmp/switch.log /tmp/vdpa.log").unwrap());
        let both = pci::fill_two_queues(&mut vm, &hosts, PATIENCE);
        assert!(both.is_ok(), "{options}: {both:?}");
        vm.end("switch", "TERM").unwrap();
        vm.end("vdpa", "TERM").unwrap();
    }
    let device = outer.counters("device").unwrap();
    assert!(device.rx_packets > 64 && device.tx_packets > 64, "{device:?}");
}

#[test]
fn what_cannot_be_attached_is_refused_with_the_reason() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let wires: Vec<Wire> =
        (0..4).map(|n| Wire::new(dir.path(), &format!("b{n}")).unwrap()).collect();
    let nic =
        |bus, n: usize| PciNic::new(Model::Virtio, bus, &format!("52:54:00:00:00:0{n}"), &wires[n]);
    let nics = [
        nic(1, 0).options("iommu_platform=off"),
        nic(2, 1).options("multifunction=on"),
        nic(2, 2).function(1),
        nic(3, 3),
    ];
    let image = pci::image().unwrap();
    let attempt = |vm: &mut Vm, address: &str| {
        let line = format!("ringway vdpa --iface /tmp/bad --device virtio-pci:{address} 2>&1");
        let output = vm.run(&line).unwrap();
        assert_eq!(output.status, 1, "{}", output.text);
        output.text
    };
    let with = Qemu::new("with", &image).iommu().booting();
    let mut vm = nics.iter().fold(with, Qemu::pci_nic).start(dir.path()).unwrap();
    vm.wait_boot().unwrap();
    vm.sh("modprobe virtio_net; modprobe vfio-pci; modprobe vfio_iommu_type1").unwrap();
    vm.sh(&pci::give_to_vfio("0000:01:00.0")).unwrap();
    vm.sh(&pci::give_to_vfio("0000:02:00.0")).unwrap();
    for (address, reason) in [
        ("0000:01:00.0", "iommu_platform=on"),
        ("0000:02:00.0", "also has 0000:02:00.1 (driver 'virtio-pci')"),
        ("0000:03:00.0", "is bound to kernel driver 'virtio-pci'"),
        ("0000:09:00.0", "0000:09:00.0"),
    ] {
        let text = attempt(&mut vm, address);
        assert!(text.contains(reason), "{address}: {text}");
    }
    vm.sh("[ ! -e /tmp/bad0 ]").unwrap();
    drop(vm);

    let wire = Wire::new(dir.path(), "plain").unwrap();
    let nic = PciNic::new(Model::Virtio, 1, "52:54:00:00:00:09", &wire);
    let nic = nic.options("iommu_platform=off,ats=off");
    let without = Qemu::new("without", &image).memory_mib(512).pci_nic(&nic);
    let mut vm = without.start(dir.path()).unwrap();
    vm.wait_boot().unwrap();
    vm.sh("ringway devices bind 0000:01:00.0 --driver uio_pci_generic").unwrap();
    let text = attempt(&mut vm, "0000:01:00.0");
    assert!(text.contains("vDPA needs VFIO with an IOMMU"), "{text}");
}

#[test]
fn our_driver_has_the_device_to_itself() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Testpmd]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), "ours");
    bench.attach();
    for options in ["", ",packed=on", ",mrg_rxbuf=off,event_idx=on"] {
        let ports = [
            &format!("virtio-user:/tmp/vdpa0,mac=52:54:00:00:00:01,mtu=9000{options}"),
            "virtio-pci:0000:02:00.0,mtu=9000",
        ];
        let macs = [1, 2].map(|n| [0x52, 0x54, 0, 0, 0, n]);
        l2fwd::check_promiscuous_in_guest(&mut bench.vm, &bench.wires, ports, macs).unwrap();
    }

    // The process sees no frame: it sleeps while they pass.
    for options in ["", ",packed=on"] {
        bench.switch(options);
        bench.transfer(32);
        // A guest that gets no CPU for a while takes that for its own time.
        let sleeps = |(wakes, ticks): &(u64, u64)| *wakes <= 2 && *ticks <= 2;
        let what = "wake-ups and ticks for 1600 frames";
        let tries = wait::until_good(what, TRIES, || bench.activity(800), sleeps).unwrap();
        println!("{options:?}: {tries:?} {what}");
        bench.end("switch", "TERM");
    }

    // Either side is killed and comes again.
    bench.switch(",packed=on");
    bench.transfer(16);
    bench.end("vdpa", "KILL");
    bench.wait_for_links(false);
    bench.attach();
    bench.wait_for_links(true);
    bench.transfer(64);
    bench.end("switch", "KILL");
    bench.switch("");
    bench.transfer(64);
    bench.end("vdpa", "KILL");
    bench.wait_for_links(false);
    bench.end("switch", "TERM");
    bench.attach();
    bench.switch("");
    bench.transfer(16);
    bench.end("vdpa", "TERM");
    let log = bench.vm.sh("cat /tmp/vdpa.log").unwrap();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}
