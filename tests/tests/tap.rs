//! TAP ports: the host's kernel on both sides of `ringway switch`, in network namespaces.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use e2e::{Netns, Peer, Ringway, require_shared, traffic, wait};

/// Mebibytes of a transfer, which go round rings dozens of times.
const MIB: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

fn configure(ns: &Netns, interface: &str, address: &str) {
    ns.sh(&format!("ip address add {address}/24 dev {interface}")).unwrap();
    ns.sh(&format!("ip link set {interface} up")).unwrap();
}

/// Ping and TCP both ways between 10.1.0.1 and 10.1.0.2.
fn talk(left: &Netns, right: &Netns) {
    left.ping("10.1.0.2", "-c 100 -i 0.01").unwrap();
    // A frame as large as may be, which must not be broken up.
    left.sh("ping -q -c 3 -i 0.01 -M do -s 1472 10.1.0.2").unwrap();
    let there = traffic::transfer(left, right, "10.1.0.2", MIB).unwrap();
    let back = traffic::transfer(right, left, "10.1.0.1", MIB).unwrap();
    println!("{MIB} MiB in {there:?} and {back:?}");
}

#[test]
fn the_host_kernel_talks_to_itself_through_two_taps() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
    let ports = ["a=tap:rwa", "b=tap:rwb"];
    let mut ringway = Ringway::switch_in(&left, dir.path(), &ports, "0").unwrap();
    ringway.wait_links(&["a", "b"]).unwrap();
    // As for a container: the interface moves into its namespace.
    left.sh(&format!("ip link set rwb netns {}", right.name())).unwrap();
    configure(&left, "rwa", "10.1.0.1");
    configure(&right, "rwb", "10.1.0.2");
    talk(&left, &right);
    let counters = ringway.counters("a").unwrap();
    let bytes = u64::from(MIB) << 20;
    assert!(counters.rx_bytes > bytes && counters.tx_bytes > bytes, "{counters:?}");
    assert!(ringway.stop(LIMIT).unwrap().success());
    assert!(left.sh("ip link show rwa").is_err(), "the interface is left over");
}

/// A TAP interface is moved into a container and called `eth0` there, as another interface is in
/// the switch's namespace; the container ends, and another one gets the interface.
#[test]
fn a_tap_in_a_container_is_known_whatever_it_is_called() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    host.sh("ip link add eth0 mtu 600 type veth peer name eth1").unwrap();
    host.sh("ip link set eth0 up; ip link set eth1 up").unwrap();
    let mut ringway =
        Ringway::switch_in(&host, dir.path(), &["a=tap:rwa", "b=tap:rwb"], "0").unwrap();
    ringway.wait_links(&["a", "b"]).unwrap();
    configure(&host, "rwa", "10.1.0.1");
    for _ in 0..2 {
        let container = Netns::new().unwrap();
        host.sh(&format!("ip link set rwb netns {}", container.name())).unwrap();
        container.sh("ip link set rwb name eth0").unwrap();
        configure(&container, "eth0", "10.1.0.2");
        ringway.wait_links(&["a", "b"]).unwrap();
        // More than the other eth0 takes.
        talk(&host, &container);
        let shown = ringway.show("ports").unwrap().to_string();
        assert!(shown.contains("net:["), "{shown}");
        drop(container);
        // The kernel takes its time to end a namespace.
        wait::until_ok("the interface is made again", LIMIT, PAUSE, || host.sh("ip link show rwb"))
            .unwrap();
    }
    assert!(ringway.stop(LIMIT).unwrap().success());
}

/// Two switches, a TAP port each, between them our front-end and our back-end.
#[test]
fn two_switches_are_joined_by_a_vhost_user_socket() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
    let [one, other] = dirs.each_ref().map(tempfile::TempDir::path);
    let socket = one.join("trunk.sock").display().to_string();
    let trunk = format!("trunk=vhost-user:{socket},queues=2");
    let first = Ringway::switch_in(&left, one, &["a=tap:rwa", &trunk], "0").unwrap();
    let trunk = format!("trunk=virtio-user:{socket},queues=2");
    let second = Ringway::switch_in(&right, other, &["b=tap:rwb", &trunk], "1").unwrap();
    configure(&left, "rwa", "10.1.0.1");
    configure(&right, "rwb", "10.1.0.2");
    first.wait_links(&["a", "trunk"]).unwrap();
    second.wait_links(&["b", "trunk"]).unwrap();
    talk(&left, &right);
    // A trunk that was lost comes back.
    drop(first);
    let trunk = format!("trunk=vhost-user:{socket},queues=2");
    let first = Ringway::switch_in(&left, one, &["a=tap:rwa", &trunk], "0").unwrap();
    configure(&left, "rwa", "10.1.0.1");
    first.wait_links(&["a", "trunk"]).unwrap();
    left.sh("ping -q -c 20 -i 0.05 10.1.0.2").unwrap();
}
