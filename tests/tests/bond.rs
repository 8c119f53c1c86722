//! Bonds with the host's kernel on the other side: uplinks into a Linux bridge, which would be a
//! loop if both were in use.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use e2e::{Netns, Peer, Ringway, process, require_shared, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

const BOND: &str = r#"
    [ports.vm]
    device = "tap:rwa"

    [ports.uplink]
    device = "bond:"
    bonding = { primary = "up0" }

    [ports.up0]
    device = "af-packet:up0"
    bond = "uplink"

    [ports.up1]
    device = "af-packet:up1"
    bond = "uplink"
"#;

/// A switch whose bond leads to two ports of a bridge in another namespace, behind which is
/// 10.1.0.2; on this side is 10.1.0.1.
fn start(dir: &std::path::Path) -> (Netns, Netns, Ringway) {
    let (host, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
    let (at, to) = (host.name(), outside.name());
    outside.sh("ip link add br0 type bridge && ip link set br0 up").unwrap();
    outside.sh("ip address add 10.1.0.2/24 dev br0").unwrap();
    for number in [0, 1] {
        let line =
            format!("ip link add up{number} netns {at} type veth peer name p{number} netns {to}");
        process::sh(&line).unwrap();
        host.sh(&format!("ip link set up{number} up")).unwrap();
        outside.sh(&format!("ip link set p{number} master br0 up")).unwrap();
    }
    let ringway = Ringway::configured_in(&host, dir, BOND, "0").unwrap();
    host.sh("ip address add 10.1.0.1/24 dev rwa && ip link set rwa up").unwrap();
    ringway.wait_links(&["vm", "up0", "up1", "uplink"]).unwrap();
    (host, outside, ringway)
}

fn wait_active(ringway: &Ringway, member: &str) -> Value {
    wait::until("the member takes over", LIMIT, PAUSE, || {
        let bond = ringway.show("bonds")?["bonds"][0].clone();
        Ok((bond["active"] == member).then_some(bond))
    })
    .unwrap()
}

#[test]
fn the_network_follows_when_an_uplink_fails() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (host, outside, mut ringway) = start(dir.path());
    wait_active(&ringway, "up0");
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    let address = host.sh("cat /sys/class/net/rwa/address").unwrap();
    let address = address.trim();
    let behind = |port: &str| {
        let line = format!("bridge fdb show br br0 | grep '^{address} dev {port}'");
        wait::until("the bridge has learnt", LIMIT, PAUSE, || Ok(outside.sh(&line).ok())).unwrap();
    };
    behind("p0");
    // The cable is pulled out at the other end. Nothing is sent from here: the bridge learns the
    // station at the other port from what the switch says for it.
    outside.sh("ip link set p0 down").unwrap();
    behind("p1");
    wait_active(&ringway, "up1");
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    outside.ping("10.1.0.1", "-c 20 -i 0.01").unwrap();
    // The primary one takes over again, and what the bridge floods to the other one is dropped.
    outside.sh("ip link set p0 up").unwrap();
    let bond = wait_active(&ringway, "up0");
    assert_eq!((&bond["members"][0]["failures"], &bond["active_changes"]), (&1.into(), &3.into()));
    behind("p0");
    outside.sh("ping -c 1 -W 1 -b 10.1.0.255 || true").unwrap();
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    wait::until("the standby member drops", LIMIT, PAUSE, || {
        let bond = &ringway.show("bonds")?["bonds"][0];
        Ok((bond["members"][1]["inactive_drops"].as_u64() > Some(0)).then_some(()))
    })
    .unwrap();
    // By command, while frames flow.
    ringway.client(&["bond", "set", "uplink", "--primary", "default", "--members", "up1"]).unwrap();
    wait_active(&ringway, "up1");
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    let shown = ringway.client(&["show", "bonds"]).unwrap();
    assert!(shown.lines().nth(1).unwrap().contains("up1"), "{shown}");
    ringway.client(&["bond", "del", "uplink"]).unwrap();
    assert_eq!(ringway.show("ports").unwrap()["ports"].as_array().unwrap().len(), 2);
    assert!(ringway.stop(Duration::from_secs(2)).unwrap().success(), "{}", ringway.log());
}
