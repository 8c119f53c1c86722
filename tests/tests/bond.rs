//! Bonds with the host's kernel on the other side: uplinks into a Linux bridge, which would be a
//! loop if both were in use.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::time::Duration;

use e2e::ovs::BRIDGE;
use e2e::{GuestImage, Netns, Ovs, Peer, Ringway, Uml, process, require_shared, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
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
        wait::until_ok("the bridge has learnt", LIMIT, PAUSE, || outside.sh(&line)).unwrap();
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
    ringway.client(&["bond", "disable-member", "uplink", "up0"]).unwrap();
    wait_active(&ringway, "up1");
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    ringway.client(&["bond", "enable-member", "uplink", "up0"]).unwrap();
    wait_active(&ringway, "up0");
    ringway.client(&["bond", "set", "uplink", "--primary", "default", "--members", "up1"]).unwrap();
    wait_active(&ringway, "up1");
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    let shown = ringway.client(&["show", "bonds"]).unwrap();
    assert!(shown.lines().nth(1).unwrap().contains("up1"), "{shown}");
    ringway.client(&["bond", "del", "uplink"]).unwrap();
    assert_eq!(ringway.show("ports").unwrap()["ports"].as_array().unwrap().len(), 2);
    assert!(ringway.stop(LIMIT).unwrap().success(), "{}", ringway.log());
}

/// Both members have been answered so often.
fn wait_answered(ringway: &Ringway, more: u64) {
    let received = |bond: &Value| [0, 1].map(|n| bond["members"][n]["arp"]["received"].as_u64());
    let mut first = None;
    wait::until("both members are answered", LIMIT, PAUSE, || {
        let now = received(&ringway.show("bonds")?["bonds"][0]);
        let before = *first.get_or_insert(now);
        let are_answered =
            now.iter().zip(before).all(|(now, before)| *now >= before.map(|n| n + more));
        Ok((now[0].is_some() && are_answered).then_some(()))
    })
    .unwrap();
}

#[test]
fn an_uplink_that_leads_nowhere_is_given_up_though_its_link_is_up() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (host, outside, mut ringway) = start(dir.path());
    outside.sh("ip address add fd00::2/64 dev br0 nodad").unwrap();
    // Both targets have to answer: Linux does, by ARP and by neighbour discovery.
    let targets = ["--arp-ip-targets", "10.1.0.2,fd00::2", "--arp-all-targets", "on"];
    let pace = ["--arp-interval", "200", "--arp-missed-max", "5"];
    ringway.client(&[&["bond", "set", "uplink"], &targets[..], &pace].concat()).unwrap();
    wait_answered(&ringway, 4);
    wait_active(&ringway, "up0");
    // The port of the bridge at the other end blocks, and its link stays up.
    outside.sh("bridge link set dev p0 state 0").unwrap();
    let bond = wait_active(&ringway, "up1");
    assert_eq!(bond["members"][0]["link_up"], true);
    let shown = ringway.client(&["show", "bonds"]).unwrap();
    assert!(shown.lines().any(|line| line.contains("up0") && line.contains("silent")), "{shown}");
    let ping = || {
        let answered = || host.ping("10.1.0.2", "-c 5 -i 0.01 -W 2");
        wait::until_ok("pings are answered", LIMIT, PAUSE, answered).unwrap();
    };
    ping();
    outside.sh("bridge link set dev p0 state 3").unwrap();
    wait_active(&ringway, "up0");
    ping();
    // Where one of the targets is gone, no member is any good.
    outside.sh("ip address del fd00::2/64 dev br0").unwrap();
    wait::until("no member is answered", LIMIT, PAUSE, || {
        Ok(ringway.show("bonds")?["bonds"][0]["active"].is_null().then_some(()))
    })
    .unwrap();
    ringway.client(&["bond", "set", "uplink", "--arp-all-targets", "off"]).unwrap();
    wait_active(&ringway, "up0");
    ping();
    assert!(ringway.stop(LIMIT).unwrap().success(), "{}", ringway.log());
}

const LACP: &str = r#"
    [ports.vm]
    device = "tap:rwa"

    [ports.uplink]
    device = "bond:"
    bonding = { mode = "balance-tcp", lacp = "active", lacp-time = "fast" }
"#;

fn member(name: &str, device: &str) -> String {
    format!("[ports.{name}]\ndevice = \"{device}\"\nbond = \"uplink\"\n")
}

/// Waits until so many members are in use by LACP, and returns the bond.
fn wait_agreed(ringway: &Ringway, count: usize) -> Value {
    wait::until("both sides agree", LIMIT, PAUSE, || {
        let bond = ringway.show("bonds")?["bonds"][0].clone();
        let members = bond["members"].as_array().into_iter().flatten();
        let in_use = members.filter(|member| member["enabled"] == true).count();
        Ok((in_use == count && bond["lacp"]["negotiated"] == true).then_some(bond))
    })
    .unwrap()
}

/// Pings from 32 addresses, each of which is a flow of its own, as soon as the other side has come to
/// the same: until then it may send answers where nobody takes them.
fn ping_from_many(from: &Netns, to: &str) {
    let line = format!(
        "for n in $(seq 16 47); do busybox ping -q -c 1 -W 2 -I 10.1.0.$n {to} || exit 1; done"
    );
    wait::until_ok("all pings are answered", LIMIT, PAUSE, || from.sh(&line)).unwrap();
}

#[test]
fn open_vswitch_agrees_on_a_bond_by_lacp() {
    let Some(_turn) = require_shared(&[Peer::Netns, Peer::OvsDatabase, Peer::Ovs]) else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (host, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
    let (at, to) = (host.name(), outside.name());
    for n in [0, 1] {
        process::sh(&format!("ip link add up{n} netns {at} type veth peer name p{n} netns {to}"))
            .unwrap();
        host.sh(&format!("ip link set up{n} up")).unwrap();
        outside.sh(&format!("ip link set p{n} up")).unwrap();
    }
    let ovs = Ovs::start_in(&outside, dirs[1].path()).unwrap();
    ovs.vsctl(&["add-bond", BRIDGE, "bond0", "p0", "p1", "bond_mode=balance-tcp", "lacp=active"])
        .unwrap();
    ovs.vsctl(&["set", "Port", "bond0", "other_config:lacp-time=fast"]).unwrap();
    outside
        .sh(&format!("ip address add 10.1.0.2/24 dev {BRIDGE} && ip link set {BRIDGE} up"))
        .unwrap();
    let text = [LACP, &member("up0", "af-packet:up0"), &member("up1", "af-packet:up1")].concat();
    let mut ringway = Ringway::configured_in(&host, dirs[0].path(), &text, "0").unwrap();
    host.sh("ip address add 10.1.0.1/24 dev rwa && ip link set rwa up").unwrap();

    let bond = wait_agreed(&ringway, 2);
    let shown = || ovs.appctl(&["lacp/show", "bond0"]);
    wait::until("it says so, too", LIMIT, PAUSE, || {
        let text = shown()?;
        let current = text.matches(": current attached").count();
        Ok((text.contains("status: active negotiated") && current == 2).then_some(()))
    })
    .unwrap();
    let partner = shown().unwrap();
    for member in bond["members"].as_array().unwrap() {
        assert_eq!(member["lacp"]["state"], "current");
        assert_eq!(member["share"], 128);
    }
    let system = bond["lacp"]["system"].as_str().unwrap();
    assert!(partner.contains(&format!("partner sys_id: {system}")), "{partner}");
    let packets = |port| ringway.counters(port).unwrap().tx_packets;
    let before = ["up0", "up1"].map(packets);
    host.sh("for n in $(seq 16 47); do ip address add 10.1.0.$n/24 dev rwa; done").unwrap();
    ping_from_many(&host, "10.1.0.2");
    // Each flow has its way, and these are not all the same. Which way the answers come is up to
    // Open vSwitch, which may have all on one member.
    for (before, after) in before.into_iter().zip(["up0", "up1"].map(packets)) {
        // The protocol itself has a frame a second.
        assert!(after >= before + 6, "{before} {after}");
    }
    // A link fails at the other end, and comes back.
    outside.sh("ip link set p1 down").unwrap();
    wait_agreed(&ringway, 1);
    ping_from_many(&host, "10.1.0.2");
    outside.sh("ip link set p1 up").unwrap();
    wait_agreed(&ringway, 2);
    // The other side has to come to the same, and may move flows until then.
    wait::until_ok("all pings are answered", LIMIT, PAUSE, || {
        outside.ping("10.1.0.1", "-c 20 -i 0.01 -W 2")
    })
    .unwrap();
    let text = ringway.client(&["show", "bonds"]).unwrap();
    assert!(text.contains("LACP negotiated"), "{text}");
    assert!(ringway.stop(LIMIT).unwrap().success(), "{}", ringway.log());
    ovs.stop().unwrap();
}

#[test]
fn the_bonding_driver_of_linux_agrees_on_a_bond_by_lacp() {
    let Some(_turn) = require_shared(&[Peer::Netns, Peer::Uml]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let socket = |n: u32| dir.path().join(format!("up{n}.sock"));
    let members =
        [0, 1].map(|n| member(&format!("up{n}"), &format!("vhost-user:{}", socket(n).display())));
    let text = [LACP, &members[0], &members[1]].concat();
    let mut ringway = Ringway::configured_in(&host, dir.path(), &text, "0").unwrap();
    host.sh("ip address add 10.1.0.1/24 dev rwa && ip link set rwa up").unwrap();
    let image = GuestImage::user_mode_bonding().unwrap();
    let mut guest =
        Uml::new("bonding", &image).nic(&socket(0)).nic(&socket(1)).start(dir.path()).unwrap();
    guest.wait_boot().unwrap();
    guest
        .sh("modprobe bonding mode=802.3ad lacp_rate=fast miimon=50 && cd /sys/class/net && \
             for n in 0 1; do ethtool -s eth$n speed 1000 duplex full; ip link set eth$n down; \
             echo +eth$n > bond0/bonding/slaves; done; \
             ip address add 10.1.0.2/24 dev bond0 && ip link set bond0 up")
        .unwrap();
    let bond = wait_agreed(&ringway, 2);
    let shown = guest.sh("cat /proc/net/bonding/bond0").unwrap();
    let system = bond["lacp"]["system"].as_str().unwrap();
    assert!(shown.contains(&format!("Partner Mac Address: {system}")), "{shown}");
    assert!(shown.contains("Number of ports: 2"), "{shown}");
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    guest.ping("10.1.0.1", "-c 20 -i 0.01").unwrap();
    // One of the guest's links is taken down.
    guest.sh("echo -eth1 > /sys/class/net/bond0/bonding/slaves").unwrap();
    wait_agreed(&ringway, 1);
    host.ping("10.1.0.2", "-c 20 -i 0.01").unwrap();
    assert!(ringway.stop(LIMIT).unwrap().success(), "{}", ringway.log());
}
