//! OVN joins two machines by tunnels: our switch on the one, ours or Open vSwitch on the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use e2e::ovs::{BRIDGE, parse_packets};
use e2e::vswitch::Kind;
use e2e::{Chassis, Netns, Ovn, Ovs, OvsDatabase, Peer, Ringway};
use e2e::{process, require_shared, traffic, wait};

use super::{LIMIT, logical};

const PAUSE: Duration = Duration::from_millis(20);

const MIB: u32 = 4;

const NAMES: [&str; 2] = ["one", "two"];

const ADDRESSES: [&str; 2] = ["10.1.0.1", "10.1.0.2"];

/// Guests, the first of which is number 1: in which logical switch, and with which address.
const GUESTS: [(&str, &str); 3] =
    [("inside", "192.0.2.1"), ("inside", "192.0.2.2"), ("outside", "198.51.100.3")];

/// A machine: a bridge to the wire between the two, by which tunnels go, and OVN's own.
pub(super) struct Machine {
    // Dropped in this order: the switch before its database.
    switch: Switch,
    pub(super) host: Netns,
    dir: PathBuf,
    /// The bridge to the wire.
    uplink: &'static str,
    address: &'static str,
}

enum Switch {
    Ringway(Option<Ringway>, OvsDatabase),
    Ovs(Ovs),
}

impl Machine {
    pub(super) fn start(kind: Kind, host: Netns, dir: PathBuf, address: &'static str) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let (switch, uplink) = match kind {
            Kind::Ovs => (Switch::Ovs(Ovs::start_in(&host, &dir).unwrap()), BRIDGE),
            Kind::Ringway => {
                let database = OvsDatabase::start(&dir).unwrap();
                let ringway = Ringway::vswitchd_in(&host, &dir).unwrap();
                database.vsctl(&["add-br", "br-phy"]).unwrap();
                (Switch::Ringway(Some(ringway), database), "br-phy")
            }
        };
        let machine = Self { switch, host, dir, uplink, address };
        machine.vsctl(&format!("add-port {uplink} wire"));
        machine.connect();
        machine
    }

    /// Gives the bridge to the wire the address at which tunnels end.
    fn connect(&self) {
        let Self { host, uplink, address, .. } = self;
        host.sh(&format!("ip addr add {address}/24 dev {uplink}; ip link set {uplink} up"))
            .unwrap();
    }

    pub(super) const fn database(&self) -> &OvsDatabase {
        match &self.switch {
            Switch::Ringway(_, database) => database,
            Switch::Ovs(ovs) => ovs.database(),
        }
    }

    pub(super) fn vsctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.database().vsctl(&words).unwrap().trim().to_owned()
    }

    /// Frames that have come in by a port of OVN's bridge, and gone out.
    fn packets(&self, port: &str) -> (u64, u64) {
        let text = self.database().ofctl(&["dump-ports", "br-int", port]).unwrap();
        parse_packets(&text).context(text).unwrap()
    }

    /// Our switch, while it runs.
    fn ours(&mut self) -> &mut Option<Ringway> {
        match &mut self.switch {
            Switch::Ringway(ringway, _) => Some(ringway),
            Switch::Ovs(_) => None,
        }
        .unwrap()
    }

    /// Ends the switch as a crash does.
    pub(super) fn kill(&mut self) {
        self.ours().take().into_iter().for_each(Ringway::kill);
    }

    /// Ends the switch as a crash does and starts it again, without the interfaces that were its own.
    pub(super) fn restart(&mut self) {
        self.kill();
        *self.ours() = Some(Ringway::vswitchd_in(&self.host, &self.dir).unwrap());
        // It may have been ready without its ports, as long as the server did not know that the one before
        // is gone. Something new is waited for.
        self.vsctl("set Open_vSwitch . external_ids:restarts=1");
        self.connect();
    }
}

/// OVN, machines, guests on them, and a station on the wire between the machines.
pub(super) struct Cloud<const N: usize> {
    pub(super) ovn: Ovn,
    pub(super) machines: [Machine; N],
    guests: [Netns; 3],
    pub(super) station: Netns,
}

impl Cloud<2> {
    fn start(dir: &Path, second: Kind) -> Self {
        let hosts = [(); 2].map(|()| Netns::new().unwrap());
        connect(&hosts, second);
        let mut ovn = Ovn::start(&dir.join("ovn")).unwrap();
        let [one, two] = hosts;
        let all = [(Kind::Ringway, one), (second, two)].into_iter().zip(NAMES).zip(ADDRESSES);
        let machines = all.map(|(((kind, host), name), ip)| {
            let machine = Machine::start(kind, host, dir.join(name), ip);
            ovn.add(&Chassis { name, encap: "geneve", ip }, machine.database()).unwrap();
            machine
        });
        let machines: Vec<_> = machines.collect();
        Self::new(ovn, machines.try_into().ok().unwrap())
    }
}

impl<const N: usize> Cloud<N> {
    pub(super) fn new(ovn: Ovn, machines: [Machine; N]) -> Self {
        let guests = [(); 3].map(|()| Netns::new().unwrap());
        Self { ovn, machines, guests, station: Netns::new().unwrap() }
    }

    pub(super) fn nbctl(&self, line: &str) {
        logical::do_line(&self.ovn, line);
    }

    /// One of the guests, of which the first is number 1.
    pub(super) fn guest(&self, number: usize) -> &Netns {
        self.guests.get(number - 1).unwrap()
    }

    /// Has a guest be known, without a machine that it is on.
    pub(super) fn admit(&self, number: usize) {
        let (switch, address) = GUESTS.get(number - 1).unwrap();
        let (port, both) = (format!("guest{number}"), format!("{} {address}", mac(number)));
        self.ovn
            .nbctl(&["lsp-add", switch, &port, "--", "lsp-set-addresses", &port, &both])
            .unwrap();
    }

    /// Plugs a guest in on a machine, and waits until that has rules for it.
    pub(super) fn plug(&self, number: usize, machine: &Machine) {
        let (port, mac) = (format!("guest{number}"), mac(number));
        machine.vsctl(&format!(
            "add-port br-int {port} -- set Interface {port} type=internal mac=\"{mac}\" \
             external_ids:iface-id={port}"
        ));
        let installed = format!("wait-until Interface {port} external_ids:ovn-installed=true");
        machine.vsctl(&installed);
        self.take(number, machine);
    }

    /// Gives a guest the interface that the switch has made for it.
    pub(super) fn take(&self, number: usize, machine: &Machine) {
        let (port, address) = (format!("guest{number}"), address(number));
        let guest = self.guest(number);
        let (network, _) = address.rsplit_once('.').unwrap();
        machine.host.sh(&format!("ip link set {port} netns {}", guest.name())).unwrap();
        guest
            .sh(&format!(
                "ip addr add {address}/24 dev {port}; ip link set {port} mtu 1400 up; \
                 ip route add default via {network}.254"
            ))
            .unwrap();
    }

    /// Plugs the station into a machine's bridge to the wire.
    pub(super) fn plug_station(&self, machine: &Machine) {
        machine.vsctl("add-port br-phy station -- set Interface station type=internal");
        machine.host.sh(&format!("ip link set station netns {}", self.station.name())).unwrap();
        self.station.sh("ip addr add 203.0.113.5/24 dev station; ip link set station up").unwrap();
    }

    /// Has somebody ping until there is an answer, since neighbours are asked for first; then for good.
    pub(super) fn reach(&self, from: &Netns, address: &str) {
        let answered = || from.ping(address, "-c 1 -W 1");
        wait::until_ok(address, LIMIT, PAUSE, answered).with_context(|| self.ovn.log()).unwrap();
        from.ping(address, "-c 3 -i 0.05").unwrap();
    }

    /// Has each of the guests reach the others.
    fn all_reach(&self, numbers: &[usize]) {
        for from in numbers {
            for to in numbers.iter().filter(|to| *to != from) {
                self.reach(self.guest(*from), address(*to));
            }
        }
    }

    /// Sends much by TCP, in large segments.
    fn transfer(&self, from: usize, to: usize) {
        let (from, to_guest) = (self.guest(from), self.guest(to));
        traffic::transfer(from, to_guest, address(to), MIB).unwrap();
    }

    /// Asserts that the switches have taken all that they were sent.
    pub(super) fn assert_all_taken(&self) {
        let log = self.ovn.log();
        assert!(!log.contains("OpenFlow error"), "{log}");
    }

    /// Waits until the gateway to the station is on this machine, and all machines know.
    pub(super) fn wait_for_gateway(&self, name: &str) {
        self.wait_for_claim(name);
        self.nbctl("sync");
    }

    /// Waits until this machine says that the gateway is there.
    pub(super) fn wait_for_claim(&self, name: &str) {
        let find = ["--bare", "--columns=_uuid", "find", "Chassis", &format!("name={name}")];
        let row = self.ovn.sbctl(&find).unwrap();
        let is_there = format!("chassis={}", row.trim());
        self.ovn.sbctl(&["wait-until", "Port_Binding", "cr-to-public", &is_there]).unwrap();
    }
}

fn address(number: usize) -> &'static str {
    GUESTS.get(number - 1).unwrap().1
}

fn mac(number: usize) -> String {
    format!("02:00:00:00:00:0{number}")
}

/// The wire. Open vSwitch reads frames from it that have to be whole, as those of a real wire are: that
/// of our kernel passes on what is still to be cut, and has no checksum yet.
fn connect([one, two]: &[Netns; 2], second: Kind) {
    let (one_name, two_name) = (one.name(), two.name());
    process::sh(&format!(
        "ip link add wire netns {one_name} type veth peer name wire netns {two_name}"
    ))
    .unwrap();
    for host in [one, two] {
        host.sh("ip link set wire addrgenmode none up").unwrap();
    }
    if second == Kind::Ovs {
        one.sh("ethtool -K wire tx off").unwrap();
    }
}

/// Guests of one network on both machines, and the tunnel between them.
fn one_network(cloud: &Cloud<2>) {
    let [one, two] = &cloud.machines;
    cloud.nbctl("ls-add inside");
    cloud.admit(1);
    cloud.admit(2);
    cloud.plug(1, one);
    cloud.plug(2, two);
    cloud.all_reach(&[1, 2]);
    assert_eq!(one.vsctl("get Interface ovn-two-0 error"), "[]");
    let options = one.vsctl("get Interface ovn-two-0 options");
    assert_eq!(options, "{csum=\"true\", key=flow, remote_ip=\"10.1.0.2\"}");
    let before = one.packets("ovn-two-0");
    cloud.transfer(1, 2);
    cloud.transfer(2, 1);
    let counted = || {
        let now = one.packets("ovn-two-0");
        Ok((now.0 > before.0 && now.1 > before.1).then_some(()))
    };
    wait::until("counters of the tunnel", LIMIT, PAUSE, counted).unwrap();

    // What is sent to the other machine has the port that it is for, and the one it has come by.
    let packet = "in_port=guest1,icmp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,\
                  nw_src=192.0.2.1,nw_dst=192.0.2.2,nw_ttl=64";
    let trace = one.database().appctl(&["ofproto/trace", "br-int", packet]).unwrap();
    let header = "geneve(crit,vni=0x1,options({class=0x102,type=0x80,len=4,0x10002}))";
    for part in ["tnl_push(tnl_port(", "ipv4(src=10.1.0.1,dst=10.1.0.2,proto=17,", header] {
        assert!(trace.contains(part), "{part}: {trace}");
    }
}

/// A router, which is on each machine, and a network behind it.
fn two_networks(cloud: &Cloud<2>) {
    logical::add_router(&cloud.ovn);
    cloud.admit(3);
    cloud.plug(3, &cloud.machines[1]);
    cloud.all_reach(&[1, 2, 3]);
    cloud.transfer(1, 3);
    cloud.transfer(3, 1);
}

/// Access lists by connections that begin on the one machine and end on the other; a load balancer
/// whose server is on the other; and DHCP.
fn connections(cloud: &Cloud<2>, dir: &Path) {
    let acl = |words: [&str; 6]| cloud.ovn.nbctl(&words).unwrap();
    acl(["acl-add", "inside", "from-lport", "1002", "inport==\"guest1\" && ip4", "allow-related"]);
    acl(["acl-add", "inside", "to-lport", "1001", "outport==\"guest1\" && ip4", "drop"]);
    cloud.reach(cloud.guest(1), address(2));
    for from in [2, 3] {
        let ping = format!("busybox ping -q -c 1 -W 1 {}", address(1));
        assert!(cloud.guest(from).sh(&ping).is_err(), "{from} to 1");
    }
    cloud.transfer(1, 2);
    cloud.nbctl("acl-del inside");
    cloud.reach(cloud.guest(2), address(1));

    let clients = [1, 2].map(|number| cloud.guest(number));
    logical::balance_page(&cloud.ovn, dir, cloud.guest(3), &clients);
    logical::lease(&cloud.ovn, cloud.guest(1));
}

/// A gateway that is on one of the two machines, by a network that both are on; they watch each other by
/// BFD. Guests on the other machine go there by the tunnel, but for those with an address of their own.
fn gateway(cloud: &Cloud<2>) {
    cloud.plug_station(&cloud.machines[0]);
    for machine in &cloud.machines {
        let uplink = machine.uplink;
        machine
            .vsctl(&format!("set Open_vSwitch . external_ids:ovn-bridge-mappings=phys:{uplink}"));
    }
    // On a busy machine, neither may take the other for gone.
    cloud.nbctl(
        "set NB_Global . options:bfd-mult=100 -- ls-add public -- lrp-add router to-public 02:00:00:00:01:02 203.0.113.254/24 \
         -- lsp-add public wire -- lsp-set-type wire localnet -- lsp-set-addresses wire unknown \
         -- lsp-set-options wire network_name=phys \
         -- lrp-set-gateway-chassis to-public one 20 -- lrp-set-gateway-chassis to-public two 10",
    );
    logical::add_router_port(&cloud.ovn, "public");
    cloud.nbctl("lr-nat-add router snat 203.0.113.254 192.0.2.0/24");
    let [one, two] = &cloud.machines;
    let session =
        "bfd_status:forwarding=true bfd_status:remote_state=up bfd:check_tnl_key=true bfd:mult=100";
    one.vsctl(&format!("wait-until Interface ovn-two-0 {session}"));
    two.vsctl(&format!("wait-until Interface ovn-one-0 {session}"));
    for name in NAMES {
        cloud.nbctl(&format!("lrp-set-gateway-chassis to-public {name} 30"));
        cloud.wait_for_gateway(name);
        for from in [1, 2] {
            cloud.reach(cloud.guest(from), "203.0.113.5");
        }
        cloud.nbctl(&format!("lrp-set-gateway-chassis to-public {name} 5"));
    }
    cloud.nbctl(
        "lr-nat-add router dnat_and_snat 203.0.113.51 192.0.2.1 guest1 02:00:00:00:02:01 \
         -- lr-nat-add router dnat_and_snat 203.0.113.52 192.0.2.2 guest2 02:00:00:00:02:02",
    );
    for (number, address) in [(1, "203.0.113.51"), (2, "203.0.113.52")] {
        cloud.reach(&cloud.station, address);
        cloud.reach(cloud.guest(number), "203.0.113.5");
    }

    // What is too long there is told to whoever has sent it.
    cloud.nbctl("lrp-set-options to-public gateway_mtu=1300");
    for number in [1, 2] {
        let told = || {
            let long = "busybox ping -q -c 1 -W 1 -s 1350 203.0.113.5 >/dev/null";
            let route = "ip route get 203.0.113.5";
            let route = cloud.guest(number).sh(&format!("{long}; {route}"))?;
            Ok(route.contains("mtu 1300").then_some(()))
        };
        wait::until("a smaller MTU", LIMIT, PAUSE, told).with_context(|| cloud.ovn.log()).unwrap();
    }
}

/// A guest that moves to the other machine, and back.
fn a_guest_moves(cloud: &Cloud<2>) {
    let [one, two] = &cloud.machines;
    for (from, to) in [(two, one), (one, two)] {
        from.vsctl("del-port br-int guest2");
        cloud.plug(2, to);
        cloud.all_reach(&[1, 2, 3]);
    }
}

#[test]
fn ovn_joins_two_of_our_switches() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns, Peer::Ovn]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = Cloud::start(dir.path(), Kind::Ringway);
    one_network(&cloud);
    two_networks(&cloud);
    a_guest_moves(&cloud);
    // A switch that is killed has all its rules and tunnels again.
    cloud.machines[0].restart();
    cloud.take(1, &cloud.machines[0]);
    cloud.nbctl("sync");
    cloud.all_reach(&[1, 2, 3]);
    cloud.transfer(2, 1);
    cloud.assert_all_taken();
}

#[test]
fn ovn_joins_our_switch_and_open_vswitch() {
    let peers = [Peer::Ovs, Peer::OvsDatabase, Peer::Netns, Peer::Ovn];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path(), Kind::Ovs);
    one_network(&cloud);
    two_networks(&cloud);
    connections(&cloud, dir.path());
    gateway(&cloud);
    a_guest_moves(&cloud);
    cloud.assert_all_taken();
}
