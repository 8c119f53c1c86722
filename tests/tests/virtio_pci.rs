//! The virtio-net driver over PCI in a Linux guest, on QEMU's own devices: frames go in through one
//! of them, through the switch in the guest, and out of the other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{Model, Netns, PciNic, Peer, Qemu, Vm, Wire, l2fwd, pci, require_shared, wait, wire};
use serde_json::{Value, json};

/// How long anything may take in a guest under emulation on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two questions to the switch: each takes the guest's CPU for a twentieth of a second.
const PAUSE: Duration = Duration::from_millis(100);

/// Frames of sizes for each kind of buffer use.
const SIZES: [usize; 4] = [64, 1514, 9000, 60];

/// A guest with two virtio devices that are bound for programs.
struct Bench {
    vm: Vm,
    wires: [Wire; 2],
    nics: [PciNic; 2],
    next: u32,
}

impl Bench {
    fn new(dir: &Path, name: &str, vfio: bool, options: &str) -> Self {
        let wires = [0, 1].map(|n| Wire::new(dir, &format!("{name}{n}")).unwrap());
        let nic = |n: u8| {
            let mac = format!("52:54:00:00:00:{:02x}", n + 1);
            PciNic::new(Model::Virtio, n + 1, &mac, &wires[usize::from(n)]).options(options)
        };
        let nics = [nic(0), nic(1)];
        let qemu = Qemu::new(name, &pci::image().unwrap());
        let qemu = if vfio { qemu.iommu() } else { qemu.memory_mib(512) };
        let mut vm = nics.iter().fold(qemu, Qemu::pci_nic).start(dir).unwrap();
        vm.wait_boot().unwrap();
        vm.sh(&pci::huge_pages(if vfio { 32 } else { 64 })).unwrap();
        let driver = if vfio { "vfio-pci" } else { "uio_pci_generic" };
        let [left, right] = [nics[0].address(), nics[1].address()];
        vm.sh(&format!("ringway devices bind {left} {right} --driver {driver}")).unwrap();
        Self { vm, wires, nics, next: 0 }
    }

    /// Starts the switch, with these options for both ports, and waits for their links.
    fn start(&mut self, options: &str) {
        let [left, right] = [0, 1].map(|n| self.nics[n].address());
        let switch = format!(
            "ringway switch --control /tmp/ctl --port left=virtio-pci:{left}{options} \
             --port right=virtio-pci:{right}{options}"
        );
        self.vm.sh("rm -f /tmp/ctl").unwrap();
        self.vm.spawn("switch", &switch).unwrap();
        self.wait_for("links", |ports| ports.iter().all(|port| port["link_up"] == true));
    }

    fn stop(&mut self, signal: &str) {
        self.vm.end("switch", signal).unwrap();
    }

    fn log(&mut self) -> String {
        self.vm.sh("cat /tmp/switch.log").unwrap()
    }

    fn show(&mut self, what: &str) -> Option<Value> {
        let output =
            self.vm.run(&format!("ringway show {what} --json --control /tmp/ctl")).unwrap();
        if output.status == 0 { serde_json::from_str(&output.text).ok() } else { None }
    }

    /// Waits until there are two ports of which something is true.
    fn wait_for(&mut self, what: &str, is_true: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ports = self.show("ports");
            let list = ports.as_ref().and_then(|ports| ports["ports"].as_array());
            if list.is_some_and(|ports| ports.len() == 2 && is_true(ports)) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {ports:?}\n{}", self.log());
            std::thread::sleep(PAUSE);
        }
    }

    fn details(&mut self, port: usize) -> Value {
        self.show("ports").unwrap()["ports"][port]["details"].clone()
    }

    /// Sends frames both ways and checks what comes out.
    fn transfer(&mut self, count: u32) {
        let passed = wire::exchange(&self.wires, &SIZES, &mut self.next, count, PATIENCE);
        assert!(passed.is_ok(), "{passed:?}: {:#?}\n{}", self.show("stats"), self.log());
    }

    /// Has `ringway l2fwd` forward instead of the switch, and checks addresses and contents.
    fn l2fwd(&mut self, options: &str) {
        let ports = [0, 1].map(|n| format!("virtio-pci:{}{options}", self.nics[n].address()));
        let macs = [1, 2].map(|n| [0x52, 0x54, 0, 0, 0, n]);
        let ports = ports.each_ref().map(String::as_str);
        l2fwd::check_in_guest(&mut self.vm, &self.wires, ports, macs).unwrap();
    }

    /// What the device lets through, as QEMU says.
    fn filter(&mut self, nic: usize) -> Value {
        let name = self.nics[nic].id();
        self.vm.qmp("query-rx-filter", &json!({ "name": name })).unwrap()[0].clone()
    }

    /// How often workers have slept.
    fn sleeps(&mut self) -> u64 {
        let workers = self.show("workers").unwrap();
        let sleeps = workers["workers"].as_array().unwrap().iter();
        sleeps.map(|worker| worker["sleeps"].as_u64().unwrap()).sum()
    }

    fn set_link(&mut self, nic: usize, up: bool) {
        let name = self.nics[nic].id();
        self.vm.qmp("set_link", &json!({ "name": name, "up": up })).unwrap();
    }
}

#[test]
fn frames_pass_behind_an_iommu() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), "vfio", true, "packed=on");
    for options in [",mtu=9000", ",mtu=9000,packed=on", ",mtu=9000,mrg_rxbuf=off,event_idx=on"] {
        bench.start(options);
        println!("{}", bench.details(0));
        bench.transfer(64);
        bench.stop("TERM");
    }
    // Again after a crash.
    bench.start(",mtu=9000,packed=on");
    bench.transfer(8);
    bench.stop("KILL");
    // The device hears of address, modes and VLANs.
    bench.start(",mac=02:00:00:00:00:77,vlans=5+1000");
    let filter = bench.filter(1);
    assert_eq!(filter["main-mac"], "02:00:00:00:00:77", "{filter}");
    assert_eq!(filter["promiscuous"], true, "{filter}");
    let vlans = filter["vlan-table"].as_array().unwrap();
    assert!(vlans.contains(&json!(5)) && vlans.contains(&json!(1000)), "{filter}");
    assert!(!bench.log().contains("WARN"), "{}", bench.log());
    bench.stop("TERM");
    bench.start(",mtu=9000");
    bench.transfer(8);

    // A worker that sleeps is woken by the device.
    for _ in 0..3 {
        let sleeps = bench.sleeps();
        let deadline = Instant::now() + PATIENCE;
        while bench.sleeps() == sleeps && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        bench.transfer(8);
    }

    bench.set_link(0, false);
    bench
        .wait_for("link down", |ports| ports[0]["link_up"] == false && ports[1]["link_up"] == true);
    bench.set_link(0, true);
    bench.wait_for("link up", |ports| ports[0]["link_up"] == true);
    bench.transfer(16);
    bench.stop("TERM");
    let log = bench.log();
    assert!(!log.contains("broken ring") && !log.contains("panicked"), "{log}");
    bench.l2fwd(",mtu=9000");
    bench.l2fwd(",mtu=9000,packed=on");
    // In plain pages, of which no two that are neighbours for the device need be so in memory.
    bench.vm.sh(&pci::huge_pages(0)).unwrap();
    bench.l2fwd(",mtu=9000");
    bench.vm.sh(&pci::huge_pages(32)).unwrap();
    a_device_is_unplugged(&mut bench);
}

/// QEMU presses the button of the slot, the guest's kernel asks for the device, and has it at once.
fn a_device_is_unplugged(bench: &mut Bench) {
    bench.start(",mtu=9000,packed=on");
    bench.transfer(16);
    let (address, id) = (bench.nics[1].address(), bench.nics[1].id());
    bench.vm.qmp("device_del", &json!({ "id": id })).unwrap();
    bench.wait_for("device gone", |ports| {
        ports[0]["link_up"] == true && ports[1]["link_up"] == false
    });
    // The switch still runs, and has the port, when the kernel is through with the device.
    wait::until("the kernel to let the device go", PATIENCE, Duration::from_millis(200), || {
        let output = bench.vm.run(&format!("[ ! -e /sys/bus/pci/devices/{address} ]"))?;
        Ok((output.status == 0).then_some(()))
    })
    .unwrap();
    let log = bench.log();
    assert_eq!(log.matches("is to be given back; the port is down").count(), 1, "{log}");
    assert!(bench.show("ports").unwrap()["ports"].as_array().unwrap().len() == 2);
    bench.vm.sh("ringway port del right --control /tmp/ctl").unwrap();
    bench.stop("TERM");
    let log = bench.log();
    assert!(!log.contains("cannot unmap") && !log.contains("panicked"), "{log}");
}

/// Packets leave the pool of one driver's ring for the other's transmit ring, both ways.
#[test]
fn packets_pass_between_devices_of_two_kinds() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let wires = ["virtio", "igb"].map(|name| Wire::new(dir.path(), name).unwrap());
    let nics = [
        PciNic::new(Model::Virtio, 1, "52:54:00:00:00:01", &wires[0]).options("packed=on"),
        PciNic::new(Model::Igb, 2, "52:54:00:00:00:02", &wires[1]),
    ];
    let qemu = Qemu::new("mixed", &pci::image().unwrap()).iommu();
    let mut vm = nics.iter().fold(qemu, Qemu::pci_nic).start(dir.path()).unwrap();
    vm.wait_boot().unwrap();
    vm.sh(&pci::huge_pages(32)).unwrap();
    let [virtio, igb] = nics.each_ref().map(PciNic::address);
    vm.sh(&format!("ringway devices bind {virtio} {igb} --driver vfio-pci")).unwrap();
    let igb = format!("igb:{igb},mtu=9000");
    for options in ["", ",packed=on", ",mrg_rxbuf=off"] {
        let virtio = format!("virtio-pci:{virtio},mtu=9000{options}");
        let macs = [1, 2].map(|n| [0x52, 0x54, 0, 0, 0, n]);
        l2fwd::check_in_guest(&mut vm, &wires, [&virtio, &igb], macs).unwrap();
    }
}

#[test]
fn frames_pass_without_an_iommu() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    for (name, options, expected) in [
        ("transitional", "disable-legacy=off,iommu_platform=off,ats=off", "modern"),
        ("legacy", "disable-legacy=off,disable-modern=on,iommu_platform=off,ats=off", "legacy"),
    ] {
        let mut bench = Bench::new(dir.path(), name, false, options);
        bench.start(",mtu=9000");
        let details = bench.details(0);
        println!("{details}");
        assert_eq!(details["device"], expected);
        bench.transfer(64);
        bench.stop("KILL");
        bench.l2fwd(",mtu=9000");
        bench.start(",mtu=9000,mrg_rxbuf=off");
        bench.transfer(32);
        bench.set_link(1, false);
        bench.wait_for("link down", |ports| ports[1]["link_up"] == false);
        bench.set_link(1, true);
        bench.wait_for("link up", |ports| ports[1]["link_up"] == true);
        bench.transfer(8);
        // The device is taken away; the other one goes on.
        let address = bench.nics[1].address();
        bench.vm.sh(&format!("echo 1 >/sys/bus/pci/devices/{address}/remove")).unwrap();
        bench.wait_for("device gone", |ports| {
            ports[0]["link_up"] == true && ports[1]["link_up"] == false
        });
        let log = bench.log();
        assert_eq!(log.matches("is gone; the port is down for good").count(), 1, "{log}");
        bench.stop("TERM");
    }
}

fn interface(n: u8) -> String {
    format!("rw{}x{n}", std::process::id())
}

#[test]
fn several_queues_carry_the_flows_of_a_host() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let nic = |n: u8, more: &str| {
        let mac = format!("52:54:00:00:00:0{n}");
        let nic = PciNic::on_tap(Model::Virtio, n, &mac, &interface(n), 2);
        nic.options(&format!("mq=on,vectors=6,packed=on{more}"))
    };
    let qemu = Qemu::new("queues", &pci::image().unwrap()).iommu();
    let qemu = qemu.pci_nic(&nic(1, "")).pci_nic(&nic(2, ",rss=on"));
    let mut vm = qemu.start(dir.path()).unwrap();
    let hosts = [1, 2].map(|n: u8| {
        let (netns, name) = (Netns::new().unwrap(), interface(n));
        let moved = Command::new("ip").args(["link", "set", &name, "netns", netns.name()]).status();
        assert!(moved.unwrap().success());
        netns
            .sh(&format!("ip address add 10.9.0.{n}/24 dev {name}; ip link set {name} up"))
            .unwrap();
        netns
    });
    vm.wait_boot().unwrap();
    vm.sh(&pci::huge_pages(32)).unwrap();
    vm.sh("ringway devices bind 0000:01:00.0 0000:02:00.0").unwrap();
    let switch = "ringway switch --control /tmp/ctl --port left=virtio-pci:01:00.0,queues=2 \
                  --port right=virtio-pci:02:00.0,queues=2,packed=on";
    vm.spawn("switch", switch).unwrap();
    // The switch is under way, and ping ends when nobody has answered ARP for three seconds.
    let ping = || hosts[0].sh("ping -c 3 -i 0.2 -w 60 10.9.0.2");
    let ping = wait::until_ok("answers to ping", PATIENCE, Duration::ZERO, ping);
    assert!(ping.is_ok(), "{ping:?}: {}", vm.sh("cat /tmp/switch.log").unwrap());
    pci::fill_two_queues(&mut vm, &hosts, PATIENCE).unwrap();
}
