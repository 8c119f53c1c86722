//! `ringway l2fwd` between real peers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{L2fwd, Netns, Peer, Relay, require_shared, traffic};

const LIMIT: Duration = Duration::from_secs(60);

fn port(dir: &Path, n: u8) -> String {
    format!("vhost-user:{},mtu=9000", dir.join(format!("s{n}")).display())
}

fn front(dir: &Path, n: u8, arguments: &str) -> String {
    format!("net_virtio_user{n},path={},{arguments}", dir.join(format!("s{n}")).display())
}

/// The address of a port as its first line tells it.
fn mac(ready: &serde_json::Value, port: usize) -> [u8; 6] {
    let text = ready["ports"][port]["mac"].as_str().unwrap();
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Testpmd at both ends: every frame arrives with the right addresses, and otherwise as it was.
#[test]
fn virtio_user_front_ends_get_each_others_frames_with_new_addresses() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    for set in ["mrg_rxbuf=1", "packed_vq=1,mrg_rxbuf=1,in_order=1"] {
        for updating in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let ports = [0, 1].map(|n| port(dir.path(), n));
            let more: &[&str] = if updating { &[] } else { &["--no-mac-updating"] };
            let arguments = [&["--cores", "0"], more].concat();
            let l2fwd = L2fwd::start(&[&ports[0], &ports[1]], &arguments).unwrap();
            let ready = l2fwd.wait_ready().unwrap();
            let [left, right] = [0, 1].map(|n| front(dir.path(), n, set));
            // No more than a ring of 256 entries holds, of the largest frames six each: none is
            // dropped, by testpmd neither, however long the other side has to wait for its core.
            let mut relay = Relay::new(left, right).frames(&[64, 1518, 9000], 90);
            if updating {
                let addresses = |n: u8| ([2, 0, 0, 0, 0, n], mac(&ready, usize::from(n)));
                relay = relay.addresses(addresses(0), addresses(1));
            }
            let relay = relay.start(dir.path(), 1).unwrap();
            l2fwd.wait_links().unwrap();
            if let Err(error) = relay.forward() {
                panic!("{set}, updating {updating}: {error:?}\n{}", l2fwd.log());
            }
            let (status, summary) = l2fwd.stop(LIMIT).unwrap();
            assert!(status.success());
            assert_eq!(summary["total"]["sent"], 180, "{summary:#}");
            assert_eq!(summary["total"]["dropped"], 0);
        }
    }
}

fn configure(ns: &Netns, interface: &str, address: &str) {
    ns.sh(&format!("ip address add {address}/24 dev {interface}")).unwrap();
    ns.sh(&format!("ip link set {interface} up")).unwrap();
}

/// The host's kernel on both sides: its interfaces have the addresses that frames get.
#[test]
fn the_host_kernel_talks_to_itself_through_two_taps() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    for updating in [true, false] {
        let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
        let ports = ["a=tap:rwa,mac=02:00:00:00:00:00", "b=tap:rwb,mac=02:00:00:00:00:01"];
        let more: &[&str] = if updating { &[] } else { &["--no-mac-updating"] };
        let l2fwd = L2fwd::start_in(&left, &ports, more).unwrap();
        l2fwd.wait_ready().unwrap();
        left.sh(&format!("ip link set rwb netns {}", right.name())).unwrap();
        configure(&left, "rwa", "10.1.0.1");
        configure(&right, "rwb", "10.1.0.2");
        left.ping("10.1.0.2", "-c 20").unwrap();
        traffic::transfer(&left, &right, "10.1.0.2", 32).unwrap();
        traffic::transfer(&right, &left, "10.1.0.1", 32).unwrap();
        let (status, summary) = l2fwd.stop(LIMIT).unwrap();
        assert!(status.success());
        let bytes = |port: usize| summary["ports"][port]["received"]["bytes"].as_u64().unwrap();
        assert!(bytes(0) > 32 << 20 && bytes(1) > 32 << 20, "{summary:#}");
    }
}
