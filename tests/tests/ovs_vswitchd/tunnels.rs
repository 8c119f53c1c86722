//! Tunnels between our switch and the kernel's, or Open vSwitch's, each with a station behind it.

use std::time::Duration;

use e2e::ovs::BRIDGE;
use e2e::{Netns, Ovs, OvsDatabase, Peer, Ringway, process, require_shared, traffic, wait};

const MIB: u32 = 4;

/// How long anything may take on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A tunnel of the kernel, and ours to it.
struct Way {
    /// The number of its network, and the last but one byte of its addresses.
    number: u8,
    /// The kernel's interface, without its name.
    kernel: &'static str,
    /// Type and options of ours.
    ours: &'static str,
}

/// A kernel may do without those behind the second.
const WAYS: [Way; 6] = [
    Way {
        number: 1,
        kernel: "type vxlan id 5 local 10.1.0.2 remote 10.1.0.1 dstport 4789",
        ours: "type=vxlan options:remote_ip=10.1.0.2 options:key=5",
    },
    Way {
        number: 2,
        kernel: "type vxlan id 6 local fd01::2 remote fd01::1 dstport 8765 udpcsum \
                 noudp6zerocsumtx noudp6zerocsumrx",
        ours: "type=vxlan options:remote_ip=fd01::2 options:key=6 options:dst_port=8765 \
               options:csum=true",
    },
    Way {
        number: 3,
        kernel: "type geneve id 7 remote 10.1.0.1",
        ours: "type=geneve options:remote_ip=10.1.0.2 options:key=7",
    },
    Way {
        number: 4,
        kernel: "type geneve id 8 remote 10.1.0.1 dstport 6082 udpcsum",
        ours: "type=geneve options:remote_ip=10.1.0.2 options:key=8 options:dst_port=6082 \
               options:csum=true",
    },
    Way {
        number: 5,
        kernel: "type gretap local 10.1.0.2 remote 10.1.0.1 key 9",
        ours: "type=gre options:remote_ip=10.1.0.2 options:key=9",
    },
    Way {
        number: 6,
        kernel: "type gretap local 10.1.0.2 remote 10.1.0.1 key 10 csum",
        ours: "type=gre options:remote_ip=10.1.0.2 options:key=10 options:csum=true",
    },
];

/// The switch in a namespace, with a bridge to a wire to the kernel's end, and one for each tunnel.
struct Lab {
    host: Netns,
    guest: Netns,
    peer: Netns,
    database: OvsDatabase,
    _switch: Ringway,
}

impl Lab {
    fn start(dir: &std::path::Path) -> Self {
        let [host, guest, peer] = [(); 3].map(|()| Netns::new().unwrap());
        let (at, to) = (host.name(), peer.name());
        process::sh(&format!("ip link add pa netns {at} type veth peer name l0 netns {to}"))
            .unwrap();
        host.sh("ip link set pa addrgenmode none up").unwrap();
        peer.sh("ip addr add 10.1.0.2/24 dev l0; ip -6 addr add fd01::2/64 dev l0 nodad").unwrap();
        peer.sh("ip link set l0 up").unwrap();
        let database = OvsDatabase::start(dir).unwrap();
        let switch = Ringway::vswitchd_in(&host, dir).unwrap();
        let lab = Self { host, guest, peer, database, _switch: switch };
        lab.vsctl("add-br br-phy -- add-port br-phy pa");
        lab.host.sh("ip addr add 10.1.0.1/24 dev br-phy").unwrap();
        lab.host.sh("ip -6 addr add fd01::1/64 dev br-phy nodad; ip link set br-phy up").unwrap();
        lab
    }

    fn vsctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.database.vsctl(&words).unwrap().trim().to_owned()
    }

    fn appctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        self.database.appctl(&words).unwrap()
    }

    /// Adds a bridge with a station and our end of a tunnel.
    fn add(&self, way: &Way) {
        self.add_end(way.number, way.ours);
    }

    fn add_end(&self, number: u8, ours: &str) {
        self.vsctl(&format!(
            "add-br br{number} -- add-port br{number} vm{number} -- set Interface vm{number} type=internal \
             -- add-port br{number} tun{number} -- set Interface tun{number} {ours}"
        ));
        assert_eq!(self.vsctl(&format!("get Interface tun{number} error")), "[]");
        let guest = self.guest.name();
        self.host.sh(&format!("ip link set vm{number} netns {guest}")).unwrap();
        let line = format!(
            "ip link set vm{number} mtu 1400 up && ip addr add 10.2.{number}.1/24 dev vm{number}"
        );
        self.guest.sh(&line).unwrap();
    }

    /// Waits until a station is there.
    fn reach(&self, address: &str) {
        reach(&self.guest, address, 56);
    }

    /// Adds the kernel's end; says whether it has such.
    fn add_kernels(&self, way: &Way) -> bool {
        let number = way.number;
        let made = self.peer.sh(&format!("ip link add kt{number} {}", way.kernel));
        let line = format!(
            "ip addr add 10.2.{number}.2/24 dev kt{number} && ip link set kt{number} mtu 1400 up"
        );
        made.and_then(|_| self.peer.sh(&line)).is_ok()
    }
}

/// Waits until a station answers a packet with so many bytes.
fn reach(from: &Netns, address: &str, bytes: u16) {
    let line = format!("busybox ping -q -c 1 -W 1 -s {bytes} {address}");
    wait::until_ok(address, LIMIT, PAUSE, || from.sh(&line)).unwrap();
}

/// The first packet asks for the neighbour; then TCP, with its large segments, goes both ways.
#[test]
fn stations_meet_through_tunnels_to_the_kernel() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let mut tried = 0;
    for way in &WAYS {
        if !lab.add_kernels(way) {
            println!("not tried, since the kernel has none: {}", way.kernel);
            continue;
        }
        lab.add(way);
        let (near, far) = (format!("10.2.{}.1", way.number), format!("10.2.{}.2", way.number));
        // The first packets ask where the neighbour is.
        lab.reach(&far);
        let there = traffic::transfer(&lab.guest, &lab.peer, &far, MIB).unwrap();
        let back = traffic::transfer(&lab.peer, &lab.guest, &near, MIB).unwrap();
        println!("{}: {MIB} MiB there in {there:?}, back in {back:?}", way.kernel);
        tried += 1;
    }
    assert!(tried >= 2, "the kernel has VXLAN");
    let neighbours = lab.appctl("tnl/neigh/show");
    assert!(neighbours.contains("10.1.0.2 ") && neighbours.contains("   br-phy"), "{neighbours}");
    let routes = lab.appctl("ovs/route/show");
    assert!(routes.contains("Cached: 10.1.0.0/24 dev br-phy SRC 10.1.0.1\n"), "{routes}");
    let ports = lab.appctl("tnl/ports/show");
    let is_it = |line: &str| line.starts_with("vxlan_sys_4789 (") && line.ends_with(") ref_cnt=1");
    assert!(ports.lines().any(is_it), "{ports}");
    // Without the route, nothing gets through.
    lab.host.sh("ip addr del 10.1.0.1/24 dev br-phy").unwrap();
    let is_gone = || Ok((!lab.appctl("ovs/route/show").contains("10.1.0.0/24")).then_some(()));
    wait::until("the end of a route", LIMIT, PAUSE, is_gone).unwrap();
    assert!(lab.guest.sh("busybox ping -q -c 1 -W 1 10.2.1.2").is_err());
}

/// A tunnel between our switch and Open vSwitch, which has tunnels of its own in its datapath.
struct Foreign {
    /// The number of its network, and the last but one byte of its addresses.
    number: u8,
    /// Type and options of both ends, where `REMOTE4` and `REMOTE6` are the other end's addresses.
    both: &'static str,
    /// Whether packets carry an option, without which they do not arrive.
    has_option: bool,
}

const FOREIGN: [Foreign; 6] = [
    Foreign {
        number: 1,
        both: "type=geneve options:remote_ip=REMOTE4 options:key=7",
        has_option: false,
    },
    Foreign {
        number: 2,
        both: "type=geneve options:remote_ip=REMOTE4 options:key=8 options:csum=true",
        has_option: true,
    },
    Foreign {
        number: 3,
        both: "type=gre options:remote_ip=REMOTE4 options:key=9",
        has_option: false,
    },
    Foreign {
        number: 4,
        both: "type=gre options:remote_ip=REMOTE4 options:key=10 options:csum=true",
        has_option: false,
    },
    Foreign {
        number: 5,
        both: "type=vxlan options:remote_ip=REMOTE6 options:key=11",
        has_option: false,
    },
    Foreign {
        number: 6,
        both: "type=geneve options:remote_ip=REMOTE6 options:key=12",
        has_option: true,
    },
];

impl Foreign {
    /// Type and options of the end whose other one has this last part of its addresses.
    fn end(&self, remote: u8) -> String {
        let line = self.both.replace("REMOTE4", &format!("10.1.0.{remote}"));
        line.replace("REMOTE6", &format!("fd01::{remote}"))
    }

    /// Rules by which what a station sends gets an option of OVN's, and only what has that of the other end
    /// comes in.
    fn rules(&self, bridge: &str, station: &str, own: u8, other: u8, ofctl: &dyn Fn(&[&str])) {
        let tunnel = format!("tun{}", self.number);
        ofctl(&["add-tlv-map", bridge, "{class=0x102,type=0x80,len=4}->tun_metadata0"]);
        ofctl(&["del-flows", bridge]);
        ofctl(&[
            "add-flow",
            bridge,
            &format!("in_port={station},actions=set_field:{own}->tun_metadata0,output:{tunnel}"),
        ]);
        ofctl(&[
            "add-flow",
            bridge,
            &format!("in_port={tunnel},tun_metadata0={other},actions=output:{station}"),
        ]);
    }
}

/// Open vSwitch at the kernel's end of the wire, and stations of its own.
struct Opposite {
    ovs: Ovs,
    far: Netns,
}

impl Opposite {
    fn start(lab: &Lab, dir: &std::path::Path) -> Self {
        lab.peer.sh("ip addr flush dev l0").unwrap();
        let (ovs, far) = (Ovs::start_in(&lab.peer, dir).unwrap(), Netns::new().unwrap());
        ovs.vsctl(&["add-port", BRIDGE, "l0"]).unwrap();
        let line = format!(
            "ip addr add 10.1.0.2/24 dev {BRIDGE} && ip -6 addr add fd01::2/64 dev {BRIDGE} nodad && \
             ip link set {BRIDGE} up"
        );
        lab.peer.sh(&line).unwrap();
        Self { ovs, far }
    }

    /// Adds a bridge with a station and its end of a tunnel.
    fn add(&self, lab: &Lab, way: &Foreign) {
        let number = way.number;
        let line = format!(
            "ip link add st{number} type veth peer name s{number} netns {} && ip link set st{number} up",
            self.far.name()
        );
        lab.peer.sh(&line).unwrap();
        let line = format!(
            "ip addr add 10.2.{number}.2/24 dev s{number} && ip link set s{number} mtu 1400 up"
        );
        self.far.sh(&line).unwrap();
        let line = format!(
            "add-br br{number} -- set Bridge br{number} datapath_type=netdev -- add-port br{number} st{number} \
             -- add-port br{number} tun{number} -- set Interface tun{number} {}",
            way.end(1)
        );
        self.ovs.vsctl(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
    }
}

/// Each end asks for the other's address first, and packets with and without options go both ways.
#[test]
fn stations_meet_through_tunnels_to_open_vswitch() {
    let Some(_turn) = require_shared(&[Peer::Ovs, Peer::OvsDatabase, Peer::Netns]) else { return };
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let lab = Lab::start(dirs[0].path());
    let opposite = Opposite::start(&lab, dirs[1].path());
    for way in &FOREIGN {
        let number = way.number;
        lab.add_end(number, &way.end(2));
        opposite.add(&lab, way);
        if way.has_option {
            let bridge = format!("br{number}");
            let ours = |words: &[&str]| drop(lab.database.ofctl(words).unwrap());
            way.rules(&bridge, &format!("vm{number}"), 1, 2, &ours);
            let theirs = |words: &[&str]| drop(opposite.ovs.ofctl(words).unwrap());
            way.rules(&bridge, &format!("st{number}"), 2, 1, &theirs);
        }
        lab.reach(&format!("10.2.{number}.2"));
        reach(&opposite.far, &format!("10.2.{number}.1"), 56);
        // Packets that nearly fill a frame, and are in pieces of no tunnel.
        reach(&lab.guest, &format!("10.2.{number}.2"), 1_300);
    }
    // What ours tells of the way is what Open vSwitch would tell.
    let flows = lab.appctl("ofproto/trace br1 in_port=vm1");
    assert!(flows.contains("tnl_push(tnl_port("), "{flows}");
}
