//! A Linux guest that reaches the network behind an interface of the host, through `ringway switch`.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use e2e::{GuestImage, Netns, Nic, Peer, Qemu, Ringway, process, require_shared, traffic};

/// Mebibytes of a transfer, which go round rings dozens of times.
const MIB: u32 = 16;

/// The worker's core; the guest may use all.
const CORES: &str = "1";

/// How long anything may take on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

/// A guest at one port, and at the other `uplink`, whose interface leads to another namespace.
fn reaches_the_outside(uplink: &str) {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (host, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
    let (at, to) = (host.name(), outside.name());
    process::sh(&format!("ip link add up0 netns {at} type veth peer name net0 netns {to}"))
        .unwrap();
    host.sh("ip link set up0 up").unwrap();
    outside.sh("ip address add 10.0.0.9/24 dev net0 && ip link set net0 up").unwrap();

    let socket = dir.path().join("vm1.sock");
    let ports = [format!("vm1=vhost-user:{}", socket.display()), format!("up={uplink}:up0")];
    let ports = ports.each_ref().map(String::as_str);
    let mut ringway = Ringway::switch_in(&host, dir.path(), &ports, CORES).unwrap();
    let nic = Nic::new(&socket, "52:54:00:00:00:01");
    let image = GuestImage::network().unwrap();
    let mut vm = Qemu::new("vm1", &image).nic(nic).start(dir.path()).unwrap();
    vm.wait_boot().unwrap();
    traffic::configure(&mut vm, "10.0.0.1", 1500).unwrap();
    ringway.wait_links(&["vm1", "up"]).unwrap();

    vm.ping("10.0.0.9", "-c 20 -i 0.05 -s 1472").unwrap();
    traffic::transfer(&mut vm, &outside, "10.0.0.9", MIB).unwrap();
    traffic::transfer(&outside, &mut vm, "10.0.0.1", MIB).unwrap();
    let counters = ringway.counters("up").unwrap();
    let bytes = u64::from(MIB) << 20;
    assert!(counters.rx_bytes > bytes && counters.tx_bytes > bytes, "{counters:?}");
    assert!(ringway.stop(LIMIT).unwrap().success(), "{}", ringway.log());
}

#[test]
fn a_guest_reaches_the_outside_through_af_xdp() {
    reaches_the_outside("af-xdp");
}

#[test]
fn a_guest_reaches_the_outside_through_af_packet() {
    reaches_the_outside("af-packet");
}
