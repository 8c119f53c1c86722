//! VLANs between Linux guests and the host, by the VLAN devices of their kernels.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::guest::Running;
use e2e::{GuestImage, Netns, Nic, Peer, Qemu, Ringway, Vm, process, require_shared, traffic};

/// Mebibytes of a transfer.
const MIB: u32 = 8;

/// How long anything may take on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

/// Both guests have two interfaces: on the first, one guest has VLANs 10 and 20 and one that nobody
/// else has, the other is in VLAN 10 and knows nothing of it; the second ones are a customer's
/// whose VLANs go through the provider's VLAN 30, which a trunk carries, too.
const PORTS: &str = r#"
[ports.a0]
device = "vhost-user:DIR/a0.sock"
vlan = { trunks = [10, 20, 99] }
[ports.b0]
device = "vhost-user:DIR/b0.sock"
vlan.tag = 10
[ports.host]
device = "tap:rwhost,mac=02:00:00:00:20:03"
vlan = { mode = "native-untagged", tag = 20, trunks = [30] }
[ports.a1]
device = "vhost-user:DIR/a1.sock"
vlan = { mode = "dot1q-tunnel", tag = 30 }
[ports.b1]
device = "vhost-user:DIR/b1.sock"
vlan = { mode = "dot1q-tunnel", tag = 30, cvlans = [5, 6] }
[ports.provider]
device = "pcap:,tx=DIR/provider.pcap"
vlan.trunks = "30"
"#;

/// The same guests at two switches, between which there is a trunk.
const LEFT: &str = r#"
[sandbox]
ports = ["af-xdp", "af-packet"]
[ports.a0]
device = "vhost-user:DIR/a0.sock"
vlan = { trunks = [10, 20, 99] }
[ports.a1]
device = "vhost-user:DIR/a1.sock"
vlan = { mode = "dot1q-tunnel", tag = 30 }
"#;
const RIGHT: &str = r#"
[sandbox]
ports = ["af-xdp", "af-packet"]
[ports.b0]
device = "vhost-user:DIR/b0.sock"
vlan.tag = 10
[ports.b1]
device = "vhost-user:DIR/b1.sock"
vlan = { mode = "dot1q-tunnel", tag = 30, cvlans = [5, 6] }
[ports.host]
device = "tap:rwhost,mac=02:00:00:00:20:03"
vlan = { mode = "native-untagged", tag = 20 }
"#;

fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

fn start(dir: &Path, name: &str, number: u8) -> Vm {
    let image = GuestImage::network().unwrap();
    let nic = |n: u8| {
        let mac = format!("52:54:00:00:{n:02x}:{number:02x}");
        Nic::new(&socket(dir, &format!("{name}{n}")), &mac)
    };
    Qemu::new(name, &image).nic(nic(0)).nic(nic(1)).start(dir).unwrap()
}

/// Waits for a guest, whose interfaces are then called `net0` and `net1`: devices that are plugged in
/// come in any order.
fn wait_boot(vm: &mut Vm) {
    vm.wait_boot().unwrap();
    vm.sh("modprobe 8021q && for n in 0 1; do \
         eth=$(ls /sys/bus/pci/devices/0000:0$((n + 1)):00.0/virtio*/net) && \
         ip link set $eth name net$n || exit 1; done")
        .unwrap();
}

/// Gives interface `name` an address and takes it up.
fn up(vm: &mut Vm, name: &str, address: &str) {
    vm.sh(&format!("ip address add {address}/24 dev {name} && ip link set {name} up")).unwrap();
}

/// The same, for a VLAN of interface `link`.
fn up_vlan(vm: &mut Vm, link: &str, vlan: u16, address: &str) {
    let name = format!("{link}.{vlan}");
    vm.sh(&format!(
        "ip link set {link} up; ip link add link {link} name {name} type vlan id {vlan}"
    ))
    .unwrap();
    up(vm, &name, address);
}

/// A ping that nobody is to hear, while others go on.
fn ping_silence(vm: &mut Vm, addresses: &[&str]) -> Running {
    let ping = |address: &&str| format!("ping -c 3 -i 0.1 -W 1 {address} & ");
    vm.begin(&format!("{}wait", addresses.iter().map(ping).collect::<String>())).unwrap()
}

/// Nobody has answered a ping.
fn was_silent(vm: &mut Vm, pings: &Running, addresses: &[&str]) {
    let lost = vm.finish(pings, LIMIT).unwrap().text;
    let silent = lost.matches(" 0 packets received, 100% packet loss").count();
    assert_eq!(silent, addresses.len(), "{addresses:?}: {lost}");
}

fn are_silent(vm: &mut Vm, addresses: &[&str]) {
    let pings = ping_silence(vm, addresses);
    was_silent(vm, &pings, addresses);
}

/// Sends both ways, and looks whether segments went in one piece.
fn talk(ringway: &Ringway, [a, b]: [&mut Vm; 2], [to_a, to_b]: [&str; 2], port: &str, mib: u32) {
    // As large as may be, without the tags.
    a.ping(to_b, "-c 10 -i 0.02 -s 1472").unwrap();
    let before = ringway.counters(port).unwrap();
    let there = traffic::transfer(&mut *a, &mut *b, to_b, mib).unwrap();
    let back = traffic::transfer(&mut *b, &mut *a, to_a, mib).unwrap();
    println!("{port}: {mib} MiB in {there:?} and {back:?}");
    let after = ringway.counters(port).unwrap();
    let mean = (after.rx_bytes - before.rx_bytes) / (after.rx_packets - before.rx_packets);
    assert!(mean > 3000, "frames of {port} have {mean} bytes on average: segments were cut");
    drops_nothing_but_excess(ringway, port);
}

#[test]
fn guests_reach_each_other_in_their_vlans_only() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let ports = PORTS.replace("DIR", &dir.path().display().to_string());
    let ringway = Ringway::configured_in(&host, dir.path(), &ports, "1").unwrap();
    let mut guests = [("a", 1), ("b", 2)].map(|(name, n)| start(dir.path(), name, n));
    guests.iter_mut().for_each(wait_boot);
    let [a, b] = &mut guests;
    for vlan in [10, 20, 99] {
        up_vlan(a, "net0", vlan, &format!("10.{vlan}.0.1"));
    }
    up(b, "net0", "10.10.0.2");
    for vlan in [5, 6, 7] {
        up_vlan(a, "net1", vlan, &format!("10.{vlan}.0.1"));
        up_vlan(b, "net1", vlan, &format!("10.{vlan}.0.2"));
    }
    at_one_switch(dir.path(), &host, ringway, &mut guests);
    through_trunks(dir.path(), &mut guests);
}

fn at_one_switch(dir: &Path, host: &Netns, mut ringway: Ringway, [a, b]: &mut [Vm; 2]) {
    host.sh("ip address add 10.20.0.3/24 dev rwhost && ip link set rwhost up").unwrap();
    ringway.wait_links(&["a0", "b0", "a1", "b1", "host"]).unwrap();

    // A trunk and an access port, and segments through the tag between them.
    talk(&ringway, [a, b], ["10.10.0.1", "10.10.0.2"], "a0", MIB);
    // The same with the host's kernel, in the native VLAN of its port.
    a.ping("10.20.0.3", "-c 10 -i 0.02 -s 1472").unwrap();
    let there = traffic::transfer(&mut *a, host, "10.20.0.3", MIB).unwrap();
    let back = traffic::transfer(host, &mut *a, "10.20.0.1", MIB).unwrap();
    println!("host: {MIB} MiB in {there:?} and {back:?}");
    // Nobody hears of others' VLANs, whatever addresses they have.
    b.sh("ip address add 10.20.0.2/24 dev net0; ip address add 10.99.0.2/24 dev net0").unwrap();
    let from_b = ping_silence(b, &["10.20.0.3"]);
    are_silent(a, &["10.20.0.2", "10.99.0.2"]);
    was_silent(b, &from_b, &["10.20.0.3"]);
    // And who sends with a tag where none is due is not heard.
    let before = ringway.counters("b0").unwrap();
    up_vlan(b, "net0", 20, "10.21.0.2");
    are_silent(b, &["10.21.0.3"]);
    let after = ringway.counters("b0").unwrap();
    assert!(after.rx_dropped > before.rx_dropped, "{after:?}");
    let stats = ringway.client(&["show", "stats"]).unwrap();
    assert!(stats.contains("wrong_vlan"), "{stats}");

    // QinQ: the customer's own VLANs, those that the other end takes.
    talk(&ringway, [a, b], ["10.5.0.1", "10.5.0.2"], "a1", MIB);
    a.ping("10.6.0.2", "-c 3 -i 0.02").unwrap();
    are_silent(a, &["10.7.0.2"]);
    let shown = ringway.client(&["show", "ports"]).unwrap();
    assert!(shown.contains("a1: vlan dot1q-tunnel 30 802.1ad"), "{shown}");
    let fdb = ringway.client(&["show", "fdb"]).unwrap();
    assert!(fdb.contains("52:54:00:00:01:02") && fdb.contains(" 30 "), "{fdb}");
    assert!(ringway.stop(LIMIT).unwrap().success());
    // What was flooded in the provider's VLAN had both tags.
    let recorded = std::fs::read(dir.join("provider.pcap")).unwrap();
    let both = [0x88, 0xA8, 0, 30, 0x81, 0, 0, 5];
    assert!(recorded.windows(8).any(|bytes| bytes == both));
}

/// A switch of its own for each guest, and between them a virtual cable.
struct Trunk {
    netns: [Netns; 2],
    switches: [Ringway; 2],
}

impl Trunk {
    fn new(dir: &Path) -> Self {
        let netns = [(); 2].map(|()| Netns::new().unwrap());
        let [left, right] = netns.each_ref().map(Netns::name);
        // One of the tags counts against the MTU of a virtual cable.
        let line = format!(
            "ip link add up0 mtu 1504 netns {left} type veth peer name up0 mtu 1504 netns {right}"
        );
        process::sh(&line).unwrap();
        for netns in &netns {
            // The kernel shall say nothing that nobody asked for.
            netns.sh("ip link set up0 addrgenmode none up").unwrap();
        }
        let mut cores = ["0", "1"].into_iter();
        let sides = [("left", LEFT, &netns[0]), ("right", RIGHT, &netns[1])];
        let switches = sides.map(|(name, ports, netns)| {
            let own = dir.join(name);
            std::fs::create_dir(&own).unwrap();
            let ports = ports.replace("DIR", &dir.display().to_string());
            Ringway::configured_in(netns, &own, &ports, cores.next().unwrap()).unwrap()
        });
        Self { netns, switches }
    }

    /// Has both switches take this device for the trunk.
    fn lead_through(&self, device: [&str; 2]) {
        for (ringway, device) in self.switches.iter().zip(device) {
            let port = format!("up={device}:up0");
            ringway.client(&["port", "add", &port, "--trunks", "10,20,30"]).unwrap();
        }
        for ringway in &self.switches {
            ringway.wait_links(&["up"]).unwrap();
        }
    }

    fn end(&self) {
        for ringway in &self.switches {
            ringway.client(&["port", "del", "up"]).unwrap();
        }
    }
}

/// A port has dropped only what its ring had no room for, which is TCP's own affair, and what came
/// before its link was up.
fn drops_nothing_but_excess(ringway: &Ringway, name: &str) {
    let stats = ringway.show("stats").unwrap();
    let mut ports = stats["ports"].as_array().unwrap().iter();
    let port = ports.find(|port| port["name"] == name).unwrap();
    for side in ["rx", "tx"] {
        let mut drops = port[side]["drops"].as_object().unwrap().iter();
        let is_excess = |reason: &str| matches!(reason, "ring_full" | "link_down");
        assert!(drops.all(|(reason, _)| is_excess(reason)), "{side} of {name}: {port:#}");
    }
}

/// The same from switch to switch, on a trunk of each kind that leads through a kernel.
fn through_trunks(dir: &Path, [a, b]: &mut [Vm; 2]) {
    let trunk = Trunk::new(dir);
    let [left, right] = &trunk.switches;
    trunk.netns[1].sh("ip address add 10.20.0.3/24 dev rwhost && ip link set rwhost up").unwrap();
    left.wait_links(&["a0", "a1"]).unwrap();
    right.wait_links(&["b0", "b1", "host"]).unwrap();
    for devices in [["af-xdp"; 2], ["af-packet"; 2], ["af-xdp", "af-packet"]] {
        println!("{devices:?}");
        trunk.lead_through(devices);
        // The kernels take up a cable when they come to it.
        a.sh("until ping -c 1 -W 1 10.10.0.2; do :; done").unwrap();
        talk(left, [a, b], ["10.10.0.1", "10.10.0.2"], "a0", MIB);
        talk(left, [a, b], ["10.5.0.1", "10.5.0.2"], "a1", MIB);
        a.ping("10.20.0.3", "-c 3 -i 0.02 -s 1472").unwrap();
        for ringway in &trunk.switches {
            drops_nothing_but_excess(ringway, "up");
        }
        are_silent(a, &["10.20.0.2", "10.7.0.2"]);
        trunk.end();
    }
}
