//! Large segments inside tunnels: two hosts with tunnels between them, of which one leaves its
//! segments to AF_PACKET, and of which the other is behind each kind of port of the host's kernel.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use e2e::{Netns, Peer, Ringway, process, require_shared, traffic};

const MIB: u32 = 4;

/// How long anything may take on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

/// A way from one host, number 1, to the other, number 2.
struct Way {
    name: &'static str,
    /// What both run, where `ME` and `PEER` are the numbers and `DEV` is the interface.
    both: &'static str,
    /// What the first runs besides.
    first: &'static str,
    /// The other's address.
    address: &'static str,
}

/// A tunnel of which the kernel has an interface.
const fn tunnel(name: &'static str, both: &'static str, address: &'static str) -> Way {
    Way { name, both, first: "true", address }
}

/// A way of which the first has a route with segments.
const fn route(name: &'static str, first: &'static str, address: &'static str) -> Way {
    Way { name, both: "true", first, address }
}

/// Those that every kernel for this test has.
const WAYS: [Way; 5] = [
    tunnel(
        "VXLAN",
        "ip link add vx0 type vxlan id 5 local 10.1.0.ME remote 10.1.0.PEER dstport 4789 dev DEV \
         && ip address add 10.2.0.ME/24 dev vx0 && ip link set vx0 up",
        "10.2.0.2",
    ),
    tunnel(
        "VXLAN over IPv6, with a checksum, at a port of its own",
        "ip link add vx6 type vxlan id 6 local fd01::ME remote fd01::PEER dstport 8765 dev DEV \
         udpcsum noudp6zerocsumtx && ip address add 10.3.0.ME/24 dev vx6 && ip link set vx6 up",
        "10.3.0.2",
    ),
    route(
        "SRv6 inline",
        "ip -6 route add fd0d::1 encap seg6 mode inline segs fd0b::1 via fd01::2 dev DEV",
        "fd0d::1",
    ),
    route(
        "SRv6 around IPv6, with headers of more than 200 bytes",
        "ip -6 route add fd0e::1 encap seg6 mode encap segs \
         fd0b::1,fd0b::1,fd0b::1,fd0b::1,fd0b::1 via fd01::2 dev DEV",
        "fd0e::1",
    ),
    route(
        "SRv6 around IPv4",
        "ip route add 10.9.0.2 encap seg6 mode encap segs fd0b::1 dev DEV src 10.1.0.1",
        "10.9.0.2",
    ),
];

/// Those that a kernel may do without.
const RARER_WAYS: [Way; 4] = [
    tunnel(
        "GRE",
        "ip link add gr0 type gre local 10.1.0.ME remote 10.1.0.PEER key 7 csum \
         && ip address add 10.5.0.ME/24 dev gr0 && ip link set gr0 up",
        "10.5.0.2",
    ),
    tunnel(
        "Ethernet in GRE",
        "ip link add gt0 type gretap local 10.1.0.ME remote 10.1.0.PEER \
         && ip address add 10.6.0.ME/24 dev gt0 && ip link set gt0 up",
        "10.6.0.2",
    ),
    tunnel(
        "IP in IP",
        "ip link add ii0 type ipip local 10.1.0.ME remote 10.1.0.PEER \
         && ip address add 10.7.0.ME/24 dev ii0 && ip link set ii0 up",
        "10.7.0.2",
    ),
    tunnel(
        "Geneve",
        "ip link add gn0 type geneve id 8 remote 10.1.0.PEER \
         && ip address add 10.8.0.ME/24 dev gn0 && ip link set gn0 up",
        "10.8.0.2",
    ),
];

/// One end of all ways.
struct Host<'a> {
    netns: &'a Netns,
    dev: &'a str,
    number: u8,
}

impl Host<'_> {
    fn sh(&self, line: &str) -> anyhow::Result<String> {
        let (me, peer) = (self.number.to_string(), (3 - self.number).to_string());
        let line = line.replace("DEV", self.dev).replace("ME", &me).replace("PEER", &peer);
        self.netns.sh(&line)
    }

    /// Gives it its addresses; the second is also where segments and routes end.
    fn configure(&self) {
        self.sh("ip address add 10.1.0.ME/24 dev DEV").unwrap();
        self.sh("ip -6 address add fd01::ME/64 dev DEV nodad && ip link set DEV up").unwrap();
        // TCP makes segments of two frames when frames take long: then there is little to cut.
        self.sh("sysctl -qw net.ipv4.tcp_min_tso_segs=8").unwrap();
        if self.number == 1 {
            self.sh("ip -6 route add fd0b::/64 via fd01::2 dev DEV").unwrap();
        } else {
            for address in ["fd0b::1/128", "fd0d::1/128", "fd0e::1/128", "10.9.0.2/32"] {
                self.sh(&format!("ip address add {address} dev lo")).unwrap();
            }
            for name in ["all", "lo", self.dev] {
                self.sh(&format!("sysctl -qw net.ipv6.conf.{name}.seg6_enabled=1")).unwrap();
            }
        }
    }
}

/// Has TCP pass by all ways between a host behind the AF_PACKET port `a` and `other`.
fn pass_all(ringway: &Ringway, one: &Host<'_>, other: &Host<'_>) {
    one.configure();
    other.configure();
    let mut tried = Vec::new();
    for (index, way) in WAYS.iter().chain(&RARER_WAYS).enumerate() {
        let made = other.sh(way.both).and_then(|_| one.sh(way.both));
        if index >= WAYS.len() && made.is_err() {
            println!("not tried, since the kernel has none: {}", way.name);
            continue;
        }
        made.and_then(|_| one.sh(way.first)).unwrap();
        one.netns.ping(way.address, "-c 3 -i 0.01").unwrap();
        let before = ringway.counters("a").unwrap();
        let time = traffic::transfer(one.netns, other.netns, way.address, MIB).unwrap();
        let after = ringway.counters("a").unwrap();
        let dropped = after.rx_dropped - before.rx_dropped;
        let mean = (after.rx_bytes - before.rx_bytes) / (after.rx_packets - before.rx_packets);
        println!("{}: {MIB} MiB in {time:?}, {mean} bytes a frame", way.name);
        assert_eq!(dropped, 0, "{}: {after:?}", way.name);
        assert!(mean > 2000, "{}: no large segments, but {mean} bytes a frame", way.name);
        tried.push(way.name);
    }
    println!("passed: {}", tried.join(", "));
}

/// The namespace of the switch, with interface `pa`, whose peer is `l0` in that of a host.
fn stage() -> (Netns, Netns, Netns) {
    let [switch, left, right] = [(); 3].map(|()| Netns::new().unwrap());
    join(&switch, "pa", &left, "l0");
    (switch, left, right)
}

fn join(switch: &Netns, inner: &str, other: &Netns, outer: &str) {
    let (at, to) = (switch.name(), other.name());
    process::sh(&format!("ip link add {inner} netns {at} type veth peer name {outer} netns {to}"))
        .unwrap();
    switch.sh(&format!("ip link set {inner} addrgenmode none up")).unwrap();
}

#[test]
fn large_segments_in_tunnels_pass_between_af_packet_ports() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let (switch, left, right) = stage();
    join(&switch, "pb", &right, "r0");
    left.sh("ip link set l0 up").unwrap();
    right.sh("ip link set r0 up").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ports = ["a=af-packet:pa", "b=af-packet:pb"];
    let mut ringway = Ringway::switch_in(&switch, dir.path(), &ports, "0").unwrap();
    ringway.wait_links(&["a", "b"]).unwrap();
    let one = Host { netns: &left, dev: "l0", number: 1 };
    let other = Host { netns: &right, dev: "r0", number: 2 };
    pass_all(&ringway, &one, &other);
    assert!(ringway.stop(LIMIT).unwrap().success());
}

/// To a TAP that takes large segments, but none in tunnels, and to one that takes nothing.
#[test]
fn large_segments_in_tunnels_pass_from_af_packet_to_tap() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    for options in ["", ",offloads=off"] {
        let (switch, left, right) = stage();
        left.sh("ip link set l0 up").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ports = ["a=af-packet:pa", &format!("t=tap:rwt{options}")];
        let mut ringway = Ringway::switch_in(&switch, dir.path(), &ports, "0").unwrap();
        ringway.wait_links(&["a", "t"]).unwrap();
        switch.sh(&format!("ip link set rwt netns {}", right.name())).unwrap();
        let one = Host { netns: &left, dev: "l0", number: 1 };
        let other = Host { netns: &right, dev: "rwt", number: 2 };
        pass_all(&ringway, &one, &other);
        assert!(ringway.stop(LIMIT).unwrap().success());
    }
}
