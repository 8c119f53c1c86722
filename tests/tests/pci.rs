//! PCI devices of a guest with an IOMMU: listed, taken from the kernel's drivers, opened over VFIO
//! and over UIO, and given back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;

use e2e::{Model, PciNic, Peer, Qemu, Vm, Wire, pci, require};
use serde_json::Value;

const IGB: &str = "0000:00:08.0";
const VIRTIO: &str = "0000:00:09.0";
/// Two functions of one device, in one IOMMU group.
const TWINS: [&str; 2] = ["0000:00:0a.0", "0000:00:0a.1"];

/// Runs `ringway devices ..`, which must succeed.
fn devices(vm: &mut Vm, arguments: &str) -> String {
    vm.sh(&format!("ringway devices {arguments}")).unwrap()
}

/// Runs `ringway devices ..`, which must fail, with all of `expected` in its message.
fn refused(vm: &mut Vm, arguments: &str, expected: &[&str]) {
    let output = vm.run(&format!("ringway devices {arguments}")).unwrap();
    assert_eq!(output.status, 1, "{arguments}: {}", output.text);
    for part in expected {
        assert!(output.text.contains(part), "{arguments}: {part:?} is not in: {}", output.text);
    }
}

/// One device of `ringway devices list`.
fn listed(vm: &mut Vm, address: &str) -> Value {
    let list: Value = serde_json::from_str(&devices(vm, "list --json")).unwrap();
    let mut devices = list["devices"].as_array().unwrap().iter();
    devices.find(|device| device["address"] == address).unwrap().clone()
}

/// What the registers of an open device say.
fn shown(vm: &mut Vm, address: &str) -> Value {
    let text = devices(vm, &format!("show {address} --json"));
    let value: Value = serde_json::from_str(&text).unwrap();
    value["open"].clone()
}

fn driver(vm: &mut Vm, address: &str) -> String {
    listed(vm, address)["driver"].as_str().unwrap_or("none").to_owned()
}

/// A guest with an igb device, a virtio one, and two virtio functions in one group.
fn guest(dir: &Path, iommu: bool) -> (Vm, Vec<Wire>) {
    let wires: Vec<Wire> = (0..4).map(|n| Wire::new(dir, &format!("w{n}")).unwrap()).collect();
    let nic = |model, slot, n: usize| {
        PciNic::new(model, slot, &format!("52:54:00:00:00:{n:02x}"), &wires[n])
    };
    let nics = [
        nic(Model::Igb, 8, 0),
        nic(Model::Virtio, 9, 1),
        nic(Model::Virtio, 10, 2).options("multifunction=on"),
        nic(Model::Virtio, 10, 3).function(1),
    ];
    let image = pci::image().unwrap();
    let qemu = Qemu::new("pci", &image);
    let qemu = if iommu { qemu.iommu() } else { qemu.memory_mib(512) };
    let mut vm = nics.iter().fold(qemu, Qemu::pci_nic).start(dir).unwrap();
    vm.wait_boot().unwrap();
    (vm, wires)
}

/// Whether the interface that the kernel makes of a device works: its frames leave the guest.
fn kernel_sends(vm: &mut Vm, wire: &Wire, address: &str) {
    let device = listed(vm, address);
    let interface = device["interfaces"][0].as_str().unwrap().to_owned();
    vm.sh(&format!("ip link set {interface} up && ip address add 10.9.0.1/24 dev {interface}"))
        .unwrap();
    // Nobody answers, so what comes out are questions who has the address.
    let ping = vm.begin("ping -c 3 -W 1 10.9.0.2").unwrap();
    let arp = |frame: &[u8]| frame.get(12..14) == Some(&[8, 6]);
    wire.receive_some(1, std::time::Duration::from_secs(20), arp).unwrap();
    vm.finish(&ping, std::time::Duration::from_secs(20)).unwrap();
    vm.sh(&format!("ip address flush dev {interface} && ip link set {interface} down")).unwrap();
}

#[test]
fn devices_are_taken_opened_and_given_back_behind_an_iommu() {
    let Some(_turn) = require(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, wires) = guest(dir.path(), true);
    vm.sh("modprobe igb && modprobe virtio_net").unwrap();
    vm.sh(&pci::huge_pages(8)).unwrap();
    println!("{}", devices(&mut vm, "list --all"));
    println!("{}", devices(&mut vm, &format!("show {IGB}")));
    println!("{}", devices(&mut vm, &format!("bind {IGB} {VIRTIO}")));
    println!("{}", devices(&mut vm, &format!("show {IGB}")));
    println!("{}", devices(&mut vm, &format!("show {VIRTIO}")));
    println!("{}", devices(&mut vm, &format!("bind {IGB} {VIRTIO} --driver uio_pci_generic")));
    println!("{}", devices(&mut vm, &format!("show {IGB}")));
    println!("{}", devices(&mut vm, &format!("show {VIRTIO}")));
    println!("{}", devices(&mut vm, "list"));
    println!("{}", devices(&mut vm, "restore --all"));
    println!("{}", devices(&mut vm, "list"));
    kernel_sends(&mut vm, &wires[0], IGB);
}
