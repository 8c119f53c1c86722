//! Spanning tree with Open vSwitch on the other side of two links, which would be a loop.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::time::Duration;

use e2e::ovs::BRIDGE;
use e2e::{Netns, Ovs, Peer, Ringway, process, require_shared, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

const LOOP: &str = r#"
    rstp.enabled = true

    [ports.vm]
    device = "tap:rwa"
    rstp.admin-edge = true

    [ports.up0]
    device = "af-packet:up0"
    rstp.path-cost = 2000

    [ports.up1]
    device = "af-packet:up1"
    rstp.path-cost = 20000
"#;

/// Two links from one namespace to another.
fn links(host: &Netns, outside: &Netns) {
    let (at, to) = (host.name(), outside.name());
    for n in [0, 1] {
        process::sh(&format!("ip link add up{n} netns {at} type veth peer name p{n} netns {to}"))
            .unwrap();
        host.sh(&format!("ip link set up{n} up")).unwrap();
        outside.sh(&format!("ip link set p{n} up")).unwrap();
    }
}

/// Waits until a port has a role and a state, and returns the bridge.
fn wait_port(ringway: &Ringway, port: &str, role: &str, state: &str) -> Value {
    let what = format!("{port} is {role}, {state}");
    let found = wait::until(&what, LIMIT, PAUSE, || {
        let bridge = ringway.show("rstp")?["bridges"][0].clone();
        let mut ports = bridge["ports"].as_array().into_iter().flatten();
        let is_so =
            |one: &&Value| one["name"] == port && one["role"] == role && one["state"] == state;
        Ok(ports.any(|one| is_so(&one)).then_some(bridge))
    });
    assert!(found.is_ok(), "{found:?}: {}", ringway.show("rstp").unwrap());
    found.unwrap()
}

/// That pings are answered, as soon as the other side has come to the same.
fn reaches(from: &Netns, address: &str) {
    let answered = || from.ping(address, "-c 5 -i 0.01 -W 2");
    wait::until_ok("all pings are answered", LIMIT, PAUSE, answered).unwrap();
}

/// That frames to all do not go round: a few are sent, and a few arrive.
fn assert_no_storm(host: &Netns, ringway: &Ringway) {
    let received = || ringway.counters("vm").unwrap().tx_packets;
    let before = received();
    host.sh("busybox ping -q -c 5 -W 1 -i 0.1 10.1.0.99 || true").unwrap();
    let after = received();
    assert!(after - before < 100, "{before} {after}");
}

#[test]
fn open_vswitch_and_the_switch_use_one_of_two_links_and_the_other_when_it_fails() {
    let Some(_turn) = require_shared(&[Peer::Netns, Peer::OvsDatabase, Peer::Ovs]) else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (host, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
    links(&host, &outside);
    let ovs = Ovs::start_in(&outside, dirs[1].path()).unwrap();
    // It is the root, before there is a loop.
    ovs.vsctl(&["set", "Bridge", BRIDGE, "rstp_enable=true", "other_config:rstp-priority=4096"])
        .unwrap();
    for port in ["p0", "p1"] {
        ovs.vsctl(&["add-port", BRIDGE, port]).unwrap();
    }
    outside
        .sh(&format!("ip address add 10.1.0.2/24 dev {BRIDGE} && ip link set {BRIDGE} up"))
        .unwrap();
    let mut ringway = Ringway::configured_in(&host, dirs[0].path(), LOOP, "0").unwrap();
    host.sh("ip address add 10.1.0.1/24 dev rwa && ip link set rwa up").unwrap();
    ringway.wait_links(&["vm", "up0", "up1"]).unwrap();

    let bridge = wait_port(&ringway, "up0", "root", "forwarding");
    wait_port(&ringway, "up1", "alternate", "discarding");
    assert!(bridge["root_id"].as_str().unwrap().starts_with("1000."), "{bridge}");
    assert_eq!((&bridge["root_port"], &bridge["root_path_cost"]), (&"up0".into(), &2000.into()));
    assert!(bridge["ports"].as_array().unwrap().iter().all(|port| port["protocol"] == "rstp"));
    let shown = wait::until("Open vSwitch forwards", LIMIT, PAUSE, || {
        let text = ovs.appctl(&["rstp/show", BRIDGE])?;
        Ok((text.matches("Forwarding").count() >= 2).then_some(text))
    })
    .unwrap();
    assert!(shown.contains("This bridge is the root"), "{shown}");
    reaches(&host, "10.1.0.2");
    assert_no_storm(&host, &ringway);
    let shown = ringway.client(&["show", "rstp"]).unwrap();
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(words.join(" ").contains("by up0 at cost 2000"), "{shown}");

    // The link that is used fails: the other one is used at once, and what was learnt is forgotten.
    outside.sh("ip link set p0 down").unwrap();
    let bridge = wait_port(&ringway, "up1", "root", "forwarding");
    assert!(bridge["topology_changes"].as_u64() > Some(0), "{bridge}");
    reaches(&host, "10.1.0.2");
    outside.sh("ip link set p0 up").unwrap();
    wait_port(&ringway, "up0", "root", "forwarding");
    wait_port(&ringway, "up1", "alternate", "discarding");
    reaches(&outside, "10.1.0.1");
    assert_no_storm(&host, &ringway);

    // Another root, by command.
    ringway.client(&["bridge", "set", "default", "--rstp-priority", "0"]).unwrap();
    let bridge = wait_port(&ringway, "up1", "designated", "forwarding");
    assert_eq!((&bridge["root_id"], &bridge["root_port"]), (&bridge["bridge_id"], &Value::Null));
    wait::until("Open vSwitch blocks one", LIMIT, PAUSE, || {
        let text = ovs.appctl(&["rstp/show", BRIDGE])?;
        Ok((text.contains("Alternate") && text.contains("Discarding")).then_some(()))
    })
    .unwrap();
    reaches(&host, "10.1.0.2");
    assert_no_storm(&host, &ringway);
    assert!(ringway.stop(Duration::from_secs(60)).unwrap().success(), "{}", ringway.log());
    ovs.stop().unwrap();
}

#[test]
fn a_linux_bridge_is_spoken_to_in_the_old_protocol() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (host, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
    links(&host, &outside);
    outside
        .sh("ip link add br0 type bridge stp_state 1 priority 4096 forward_delay 200 hello_time 100 \
             max_age 600 && ip address add 10.1.0.2/24 dev br0 && ip link set br0 up && \
             ip link set p0 master br0 && ip link set p1 master br0")
        .unwrap();
    let mut ringway = Ringway::configured_in(&host, dir.path(), LOOP, "0").unwrap();
    host.sh("ip address add 10.1.0.1/24 dev rwa && ip link set rwa up").unwrap();
    ringway.wait_links(&["vm", "up0", "up1"]).unwrap();
    let bridge = wait_port(&ringway, "up0", "root", "forwarding");
    wait_port(&ringway, "up1", "alternate", "discarding");
    assert!(bridge["root_id"].as_str().unwrap().starts_with("1000."), "{bridge}");
    assert_eq!(bridge["forward_delay"], 4, "the root says 2, which is out of bounds");
    wait::until("Linux forwards", LIMIT, PAUSE, || {
        let state = outside.sh("cat /sys/class/net/p0/brport/state")?;
        Ok((state.trim() == "3").then_some(()))
    })
    .unwrap();
    reaches(&host, "10.1.0.2");
    assert_no_storm(&host, &ringway);
    assert!(ringway.stop(Duration::from_secs(60)).unwrap().success(), "{}", ringway.log());
}
