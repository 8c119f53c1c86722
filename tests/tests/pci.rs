//! PCI devices of a guest: listed, taken from the kernel's drivers, opened over VFIO and over UIO,
//! and given back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{Model, PciNic, Peer, Qemu, Vm, Wire, pci, require_shared, ringway, wait};
use serde_json::Value;

const IGB: &str = "0000:01:00.0";
const VIRTIO: &str = "0000:02:00.0";
/// Two functions of one device, in one IOMMU group.
const TWINS: [&str; 2] = ["0000:03:00.0", "0000:03:00.1"];
const MAC: &str = "52:54:00:00:00:01";

/// How long anything may take in a guest under emulation on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `ringway devices ..`, which must succeed.
fn devices(vm: &mut Vm, arguments: &str) -> String {
    vm.sh(&format!("ringway devices {arguments}")).unwrap()
}

/// Runs a command that must fail, with all of `expected` in its message.
fn fails(vm: &mut Vm, command: &str, expected: &[&str]) {
    let output = vm.run(command).unwrap();
    assert_eq!(output.status, 1, "{command}: {}", output.text);
    for part in expected {
        assert!(output.text.contains(part), "{command}: {part:?} is not in: {}", output.text);
    }
}

/// Runs `ringway devices ..`, which must fail, with all of `expected` in its message.
fn refused(vm: &mut Vm, arguments: &str, expected: &[&str]) {
    fails(vm, &format!("ringway devices {arguments}"), expected);
}

/// One device of `ringway devices list`.
fn listed(vm: &mut Vm, address: &str) -> Value {
    let list: Value = serde_json::from_str(&devices(vm, "list --json")).unwrap();
    let mut devices = list["devices"].as_array().unwrap().iter();
    devices.find(|device| device["address"] == address).unwrap().clone()
}

fn driver(vm: &mut Vm, address: &str) -> String {
    listed(vm, address)["driver"].as_str().unwrap_or("none").to_owned()
}

/// What a device says that is open.
fn shown(vm: &mut Vm, address: &str) -> Value {
    let text = devices(vm, &format!("show {address} --json"));
    let value: Value = serde_json::from_str(&text).unwrap();
    value["open"].clone()
}

/// Both kinds of devices can be opened, and their registers read, with the vectors of the first.
fn registers_are_read(vm: &mut Vm, vectors: u32) {
    let igb = shown(vm, IGB);
    assert_eq!((&igb["registers"]["mac"], &igb["msix_vectors"]), (&MAC.into(), &vectors.into()));
    assert_eq!(igb["line_interrupt"], true, "{igb}");
    let mapped: Vec<_> = igb["mapped_bars"].as_array().unwrap().iter().collect();
    assert_eq!((&mapped[0]["index"], &mapped[0]["bytes"]), (&0.into(), &0x2_0000.into()));
    let virtio = shown(vm, VIRTIO);
    // Receive, transmit, control.
    assert_eq!(virtio["registers"]["queues"], "3", "{virtio}");
    let vendor = |one: &&Value| one["name"] == "vendor";
    assert!(virtio["capabilities"].as_array().unwrap().iter().filter(vendor).count() >= 4);
}

/// Runs a test of `crates/eal/tests/devices.rs` in the guest, on the igb device.
fn program(test: &str, environment: &str) -> String {
    format!("RINGWAY_TEST_IGB={IGB} {environment} pci-devices --ignored --exact --nocapture {test}")
}

/// Interrupts and DMA of the igb device work, whatever it is bound to.
fn works(vm: &mut Vm, wire: &Wire) {
    vm.sh(&program("interrupts_are_heard_and_masked", "")).unwrap();
    vm.sh(&program("the_device_sends_from_our_memory_and_memory_outlives_it", "")).unwrap();
    for payload in ["first", "second", "third"] {
        sent(wire, payload);
    }
}

/// Waits for a frame of the test program.
fn sent(wire: &Wire, payload: &str) {
    let ours = |frame: &[u8]| frame[12..].starts_with(&[0x88, 0xb5]);
    let frame = wire.receive_some(1, LIMIT, ours).unwrap().remove(0);
    assert!(frame[14..].starts_with(payload.as_bytes()), "{payload}: {frame:?}");
}

/// The interface that the kernel makes of a device works: its frames leave the guest.
fn kernel_sends(vm: &mut Vm, address: &str, wire: &Wire) {
    let device = listed(vm, address);
    let interface = device["interfaces"][0].as_str().unwrap();
    // Until it has negotiated with the other end nothing leaves.
    vm.sh(&format!(
        "ip link set {interface} up; \
         until [ \"$(cat /sys/class/net/{interface}/carrier)\" = 1 ]; do usleep 10000; done"
    ))
    .unwrap();
    vm.sh(&format!("ip address add 10.9.0.1/24 dev {interface}")).unwrap();
    // Nobody answers, so what comes out are questions who has the address.
    vm.sh("ping 10.9.0.2 >/dev/null 2>&1 & echo $! >/tmp/ping").unwrap();
    let arp = |frame: &[u8]| frame[12..].starts_with(&[8, 6]);
    wire.receive_some(1, LIMIT, arp).unwrap();
    vm.sh("kill $(cat /tmp/ping)").unwrap();
    vm.sh(&format!("ip address flush dev {interface}; ip link set {interface} down")).unwrap();
}

/// A guest with an igb device, a virtio one, and two virtio functions in one group.
fn guest(dir: &Path, iommu: bool) -> (Vm, Vec<Wire>) {
    let wires: Vec<Wire> = (0..4).map(|n| Wire::new(dir, &format!("w{n}")).unwrap()).collect();
    let nic = |model, bus, n: usize| {
        PciNic::new(model, bus, &format!("52:54:00:00:00:{:02x}", n + 1), &wires[n])
    };
    let nics = [
        nic(Model::Igb, 1, 0),
        nic(Model::Virtio, 2, 1),
        nic(Model::Virtio, 3, 2).options("multifunction=on"),
        nic(Model::Virtio, 3, 3).function(1),
    ];
    let program = ringway::test_program("ringway-eal", "devices").unwrap();
    let image = pci::spec().unwrap().named("pci-test").program_named(&program, "pci-devices");
    let qemu = Qemu::new("pci", &image.build().unwrap()).booting();
    let qemu = if iommu { qemu.iommu() } else { qemu.memory_mib(512) };
    let mut vm = nics.iter().fold(qemu, Qemu::pci_nic).start(dir).unwrap();
    vm.wait_boot().unwrap();
    vm.sh("modprobe igb && modprobe virtio_net").unwrap();
    (vm, wires)
}

#[test]
fn behind_an_iommu_devices_are_taken_opened_and_given_back() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, wires) = guest(dir.path(), true);
    println!("{}", devices(&mut vm, "list"));
    for (address, kernel, ours) in [
        (IGB, "igb", "igb"),
        (VIRTIO, "virtio-pci", "virtio-pci"),
        (TWINS[1], "virtio-pci", "virtio-pci"),
    ] {
        let device = listed(&mut vm, address);
        assert_eq!((&device["driver"], &device["ringway"]), (&kernel.into(), &ours.into()));
        assert!(device["iommu_group"].is_u64() && device["interfaces"][0].is_string(), "{device}");
    }
    a_device_in_use_is_refused_unless_forced(&mut vm);
    devices(&mut vm, &format!("bind {VIRTIO}"));
    registers_are_read(&mut vm, 10);
    works(&mut vm, &wires[0]);
    a_user_without_privilege_needs_what_is_said(&mut vm);
    a_device_in_use_by_a_process_stays_with_it(&mut vm, &wires[0]);
    a_group_is_given_as_a_whole(&mut vm);
    uio_works_where_addresses_are_physical(&mut vm, &wires[0]);
    devices(&mut vm, "restore --all");
    println!("{}", devices(&mut vm, "list"));
    for (address, expected) in [(IGB, "igb"), (VIRTIO, "virtio-pci"), (TWINS[0], "virtio-pci")] {
        assert_eq!(driver(&mut vm, address), expected);
    }
    assert!(devices(&mut vm, "restore --all").contains("no device"));
    kernel_sends(&mut vm, IGB, &wires[0]);
    kernel_sends(&mut vm, VIRTIO, &wires[1]);
}

fn a_device_in_use_is_refused_unless_forced(vm: &mut Vm) {
    refused(vm, "show 0000:0f:00.0", &["0000:0f:00.0", "no such device", "devices list --all"]);
    refused(vm, "bind 0000:0f:00.0", &["no such device"]);
    assert_eq!(vm.run("ringway devices bind somewhere").unwrap().status, 2);
    let text = devices(vm, &format!("show {IGB}"));
    assert!(text.contains("the host has it"), "{text}");
    let expected = "RINGWAY_TEST_EXPECTED='type: ringway devices bind 0000:01:00.0'";
    vm.sh(&program("a_device_that_cannot_be_had_is_told", expected)).unwrap();
    let interface = listed(vm, IGB)["interfaces"][0].as_str().unwrap().to_owned();
    vm.sh(&format!("ip address add 10.8.0.1/24 dev {interface}")).unwrap();
    refused(vm, &format!("bind {IGB}"), &[&interface, "has an address", "--force"]);
    vm.sh(&format!("ip link set {interface} up && ip route add default via 10.8.0.2")).unwrap();
    let all = ["carries the default route", "has an address", "is up", "--force"];
    refused(vm, &format!("bind {IGB}"), &all);
    refused(vm, &format!("unbind {IGB}"), &all);
    refused(vm, &format!("bind {IGB} --driver none-such --force"), &["none-such"]);
    // A driver that does not take it: the former one has it again.
    refused(vm, &format!("bind {IGB} --driver virtio-pci --force"), &["does not take it"]);
    assert_eq!(driver(vm, IGB), "igb");
    let text = devices(vm, &format!("bind {IGB} --force"));
    assert!(text.contains("vfio-pci, before: igb"), "{text}");
    assert_eq!(listed(vm, IGB)["interfaces"], Value::Array(Vec::new()));
    assert!(devices(vm, &format!("bind {IGB}")).contains("as before"));
}

/// Runs a command as a user who has no privilege.
fn as_user(command: &str) -> String {
    format!("su user -c \"{command}\"")
}

fn a_user_without_privilege_needs_what_is_said(vm: &mut Vm) {
    fails(vm, &as_user(&format!("ringway devices bind {}", TWINS[0])), &["root"]);
    let show = as_user(&format!("ringway devices show {IGB}"));
    fails(vm, &show, &["/dev/vfio/", "Permission denied", "chown", "ulimit -l"]);
    let group = listed(vm, IGB)["iommu_group"].as_u64().unwrap();
    vm.sh(&format!("chown 1000 /dev/vfio/{group}")).unwrap();
    assert!(vm.sh(&show).unwrap().contains(MAC));
    let test = program("memory_that_cannot_be_had_is_told", "RINGWAY_TEST_EXPECTED='ulimit -l'");
    vm.sh(&as_user(&format!("ulimit -l 64; {test}"))).unwrap();
}

fn a_device_in_use_by_a_process_stays_with_it(vm: &mut Vm, wire: &Wire) {
    let test = program("holds_the_device_until_it_is_killed", "");
    vm.sh(&format!("{test} >/tmp/held 2>&1 & echo $! >/tmp/pid")).unwrap();
    sent(wire, "held");
    refused(vm, &format!("show {IGB}"), &["another process"]);
    refused(vm, &format!("restore {IGB}"), &["a process is using it"]);
    refused(vm, &format!("bind {IGB} --driver igb --force"), &["a process is using it"]);
    vm.sh("kill -9 $(pidof pci-devices)").unwrap();
    // What is left of a killed process is cleaned up after it has gone from the list.
    wait::until("the device is free", LIMIT, Duration::from_millis(100), || {
        Ok((vm.run(&format!("ringway devices show {IGB}"))?.status == 0).then_some(()))
    })
    .unwrap();
    works(vm, wire);
}

fn a_group_is_given_as_a_whole(vm: &mut Vm) {
    let [first, second] = TWINS;
    devices(vm, &format!("bind {first}"));
    let show = format!("show {first}");
    refused(vm, &show, &[&format!("{second} (driver 'virtio-pci')"), &format!("bind {second}")]);
    devices(vm, &format!("unbind {second}"));
    assert_eq!(driver(vm, second), "none");
    assert_eq!(shown(vm, first)["registers"]["queues"], "3");
    devices(vm, &format!("restore {second}"));
    assert_eq!(driver(vm, second), "virtio-pci");
}

fn uio_works_where_addresses_are_physical(vm: &mut Vm, wire: &Wire) {
    devices(vm, &format!("bind {IGB} {VIRTIO} --driver uio_pci_generic"));
    registers_are_read(vm, 0);
    let expected = "RINGWAY_TEST_EXPECTED='vm.nr_hugepages'";
    vm.sh(&program("memory_that_cannot_be_had_is_told", expected)).unwrap();
    vm.sh(&pci::huge_pages(8)).unwrap();
    works(vm, wire);
    vm.sh(&format!("{} >/tmp/held 2>&1 &", program("holds_the_device_until_it_is_killed", "")))
        .unwrap();
    sent(wire, "held");
    refused(vm, &format!("show {IGB}"), &["another process"]);
    refused(vm, &format!("restore {IGB}"), &["a process is using it"]);
    vm.sh("kill -9 $(pidof pci-devices)").unwrap();
    wait::until("the device is free", LIMIT, Duration::from_millis(100), || {
        Ok((vm.run(&format!("ringway devices show {IGB}"))?.status == 0).then_some(()))
    })
    .unwrap();
    // The IOMMU translates for this one from now on.
    devices(vm, &format!("unbind {VIRTIO}"));
    let group = listed(vm, VIRTIO)["iommu_group"].as_u64().unwrap();
    vm.sh(&format!("echo DMA >/sys/kernel/iommu_groups/{group}/type")).unwrap();
    devices(vm, &format!("bind {VIRTIO} --driver uio_pci_generic"));
    refused(vm, &format!("show {VIRTIO}"), &["IOMMU that translates", "--driver vfio-pci"]);
}

#[test]
fn without_an_iommu_uio_is_the_way() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, wires) = guest(dir.path(), false);
    let vm = &mut vm;
    refused(vm, &format!("bind {IGB}"), &["no IOMMU", "intel_iommu=on", "uio_pci_generic"]);
    vm.sh("mv /bin/modprobe /bin/modprobe.away").unwrap();
    let uio = format!("bind {IGB} {VIRTIO} --driver uio_pci_generic");
    refused(vm, &uio, &["no driver 'uio_pci_generic'", "modprobe uio_pci_generic"]);
    vm.sh("mv /bin/modprobe.away /bin/modprobe").unwrap();
    assert_eq!(driver(vm, IGB), "igb");
    devices(vm, &uio);
    vm.sh(&pci::huge_pages(8)).unwrap();
    registers_are_read(vm, 0);
    works(vm, &wires[0]);
    devices(vm, &format!("restore {IGB} {VIRTIO}"));
    kernel_sends(vm, IGB, &wires[0]);
    kernel_sends(vm, VIRTIO, &wires[1]);
}
