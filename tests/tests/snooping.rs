//! Groups of IGMP and MLD by real peers: hosts that are kernels in network namespaces, and the bridge
//! of Linux as the one who asks.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::time::Duration;

use e2e::{Netns, Peer, Ringway, process, require_shared, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Datagrams that are sent to a group.
const COUNT: u64 = 200;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 31, 0, 1);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xFF15, 0, 0, 0, 0, 0, 0, 0x31);
const MEMBER: Ipv4Addr = Ipv4Addr::new(10, 31, 0, 2);

const PORTS: &str = r#"
[mcast-snooping]
enabled = true
disable-flood-unregistered = true
[ports.source]
device = "tap:rws"
[ports.member]
device = "tap:rwm"
[ports.other]
device = "tap:rwo"
mcast-snooping.router = "never"
[ports.up]
device = "af-packet:upl"
"#;

/// A switch, with a host at each of three ports, and a bridge at the fourth.
struct Stage {
    ringway: Ringway,
    source: Netns,
    member: Netns,
    outside: Netns,
    // What others use goes last.
    _other: Netns,
    _host: Netns,
}

impl Stage {
    fn new(dir: &Path) -> Self {
        let [host, source, member, other, outside] = [(); 5].map(|()| Netns::new().unwrap());
        let (at, to) = (host.name(), outside.name());
        // Addresses are there at once.
        outside.sh("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad").unwrap();
        outside.sh("ip link add br0 type bridge mcast_query_use_ifaddr 1").unwrap();
        outside.sh("ip address add 10.31.0.254/24 dev br0 && ip link set br0 up").unwrap();
        process::sh(&format!("ip link add upl netns {at} type veth peer name p netns {to}"))
            .unwrap();
        host.sh("ip link set upl up").unwrap();
        outside.sh("ip link set p master br0 up").unwrap();
        let ringway = Ringway::configured_in(&host, dir, PORTS, "1").unwrap();
        ringway.wait_links(&["source", "member", "other", "up"]).unwrap();
        for (interface, netns, number) in
            [("rws", &source, 1), ("rwm", &member, 2), ("rwo", &other, 3)]
        {
            host.sh(&format!("ip link set {interface} netns {}", netns.name())).unwrap();
            netns
                .sh(&format!(
                    "echo 0 >/proc/sys/net/ipv6/conf/{interface}/accept_dad; \
                     ip address add 10.31.0.{number}/24 dev {interface}; \
                     ip link set {interface} up; \
                     ip route add 239.0.0.0/8 dev {interface}"
                ))
                .unwrap();
        }
        Self { ringway, source, member, outside, _other: other, _host: host }
    }

    /// Whether the switch knows a group, or a router, at a port.
    fn knows(&self, what: &str, group: Option<&str>, port: &str) -> bool {
        let shown = self.ringway.show("groups").unwrap();
        let is_it = |entry: &Value| {
            entry["port"] == port && group.is_none_or(|group| entry["group"] == group)
        };
        shown[what].as_array().unwrap().iter().any(is_it)
    }

    /// Frames to groups that the switch has sent to a port.
    fn sent(&self, port: &str) -> u64 {
        let stats = self.ringway.show("stats").unwrap();
        let ports = stats["ports"].as_array().unwrap();
        let port = ports.iter().find(|entry| entry["name"] == port).unwrap();
        port["tx"]["multicast"].as_u64().unwrap()
    }

    /// A socket at the source, and where to send to groups from there.
    fn sender(&self) -> (UdpSocket, [SocketAddr; 2]) {
        let index = index_of(&self.source, "rws");
        let [v4, v6] = [SocketAddr::from((GROUP, 5000)), {
            SocketAddrV6::new(GROUP_V6, 5001, 0, index).into()
        }];
        let socket = self.source.within(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
        (socket, [mapped(v4), v6])
    }
}

/// An address as sockets for both protocols take it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        v6 @ SocketAddr::V6(_) => v6,
    }
}

fn index_of(netns: &Netns, interface: &str) -> u32 {
    let text = netns.sh(&format!("cat /sys/class/net/{interface}/ifindex")).unwrap();
    text.trim().parse().unwrap()
}

/// The sockets of a host that belongs to both groups, as long as it has them.
fn join(netns: &Netns) -> [UdpSocket; 2] {
    let index = index_of(netns, "rwm");
    let sockets = netns.within(|| {
        let v4 = UdpSocket::bind("0.0.0.0:5000").unwrap();
        v4.join_multicast_v4(&GROUP, &MEMBER).unwrap();
        let v6 = UdpSocket::bind("[::]:5001").unwrap();
        v6.join_multicast_v6(&GROUP_V6, index).unwrap();
        [v4, v6]
    });
    sockets.unwrap()
}

#[test]
fn hosts_get_the_groups_that_they_have_joined_and_no_others() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path());
    wait::until("a router is heard", LIMIT, PAUSE, || {
        if stage.knows("routers", None, "up") {
            return Ok(Some(()));
        }
        // It asks whenever it begins to.
        let ask = "ip link set br0 type bridge mcast_querier";
        stage.outside.sh(&format!("{ask} 0 && {ask} 1"))?;
        Ok(None)
    })
    .unwrap();
    let sockets = join(&stage.member);
    let groups = [GROUP.to_string(), GROUP_V6.to_string()];
    wait::until("both groups are known", LIMIT, PAUSE, || {
        let known = groups.iter().all(|group| stage.knows("groups", Some(group), "member"));
        Ok(known.then_some(()))
    })
    .unwrap();
    // The router has heard of them by what the host has said.
    for group in &groups {
        let line = format!("bridge mdb show dev br0 | grep -w 'port p grp {group}'");
        let shown = || stage.outside.sh(&line);
        wait::until_ok("the router knows the group", LIMIT, PAUSE, shown).unwrap();
    }
    let (sender, targets) = stage.sender();
    for (socket, target) in sockets.iter().zip(targets) {
        socket.set_read_timeout(Some(PAUSE)).unwrap();
        wait::until("workers know the group", LIMIT, PAUSE, || {
            sender.send_to(b"first", target)?;
            Ok(socket.recv(&mut [0; 16]).ok())
        })
        .unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let before = ["other", "up"].map(|port| stage.sent(port));
        let mut received = 0;
        for number in 0..COUNT {
            sender.send_to(&number.to_be_bytes(), target).unwrap();
            let mut bytes = [0; 16];
            while socket.recv(&mut bytes).unwrap() != 8 {}
            received += u64::from(bytes[..8] == number.to_be_bytes());
        }
        assert_eq!(received, COUNT);
        // The member may have the last one before the router does.
        wait::until("the router has them", LIMIT, PAUSE, || {
            Ok((stage.sent("up") >= before[1] + COUNT).then_some(()))
        })
        .unwrap();
        // A few of other groups may be among them: what hosts and the router say themselves.
        let after = stage.sent("other");
        assert!(after < before[0] + COUNT / 2, "a host that has not joined: {before:?} {after}");
    }
    drop(sockets);
    wait::until("both have been left", LIMIT, PAUSE, || {
        let known = groups.iter().any(|group| stage.knows("groups", Some(group), "member"));
        Ok((!known).then_some(()))
    })
    .unwrap();
    // Without snooping, all get everything.
    stage.ringway.client(&["bridge", "set", "default", "--mcast-snooping", "off"]).unwrap();
    let before = stage.sent("other");
    for _ in 0..COUNT {
        sender.send_to(b"last", targets[0]).unwrap();
    }
    wait::until("all get it", LIMIT, PAUSE, || {
        Ok((stage.sent("other") >= before + COUNT).then_some(()))
    })
    .unwrap();
}
