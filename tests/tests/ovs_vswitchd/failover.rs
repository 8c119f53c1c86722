//! OVN's gateway fails over: two machines may be it, and watch each other by BFD through tunnels of VXLAN, as does the
//! machine with the guest, whose bridge to the wire joins them all.

use std::path::Path;

use e2e::vswitch::Kind;
use e2e::{Chassis, Netns, Ovn, Peer, process, require_shared};

use super::chassis::{Cloud, Machine};
use super::logical;

/// The machines' names and where their tunnels end: both gateways, and the one with the guest.
const PLANS: [(&str, &str); 3] = [("one", "10.1.0.1"), ("two", "10.1.0.2"), ("home", "10.1.0.3")];

const STATION: &str = "203.0.113.5";

/// The gateways' wires end at the third machine.
fn start(dir: &Path) -> Cloud<3> {
    let hosts = [(); 3].map(|()| Netns::new().unwrap());
    for (gateway, end) in hosts.iter().zip(["wire", "wire2"]) {
        let (gateway, home) = (gateway.name(), hosts[2].name());
        process::sh(&format!(
            "ip link add wire netns {gateway} type veth peer name {end} netns {home} \
             && ip -n {gateway} link set wire addrgenmode none up \
             && ip -n {home} link set {end} addrgenmode none up"
        ))
        .unwrap();
    }
    let mut ovn = Ovn::start(&dir.join("ovn")).unwrap();
    let machines = hosts.into_iter().zip(PLANS).map(|(host, (name, ip))| {
        let machine = Machine::start(Kind::Ringway, host, dir.join(name), ip);
        add(&mut ovn, &machine, (name, ip));
        machine
    });
    let machines: Vec<Machine> = machines.collect();
    let cloud = Cloud::new(ovn, machines.try_into().ok().unwrap());
    cloud.machines[2].vsctl("add-port br-phy wire2");
    cloud.plug_station(&cloud.machines[2]);
    cloud
}

fn add(ovn: &mut Ovn, machine: &Machine, (name, ip): (&'static str, &'static str)) {
    ovn.add(&Chassis { name, encap: "vxlan", ip }, machine.database()).unwrap();
}

/// A guest, and a router to where the station is, by a gateway on machine `one` as long as that is there. Who says
/// nothing for five seconds is gone.
fn build(cloud: &Cloud<3>) {
    for machine in &cloud.machines {
        machine.vsctl("set Open_vSwitch . external_ids:ovn-bridge-mappings=phys:br-phy");
    }
    cloud.nbctl(
        "set NB_Global . options:bfd-min-rx=100 options:bfd-min-tx=100 options:bfd-mult=50 \
         -- ls-add inside -- ls-add public -- lr-add router \
         -- lrp-add router to-inside 02:00:00:00:01:00 192.0.2.254/24 \
         -- lrp-add router to-public 02:00:00:00:01:02 203.0.113.254/24 \
         -- lsp-add public wire -- lsp-set-type wire localnet -- lsp-set-addresses wire unknown \
         -- lsp-set-options wire network_name=phys \
         -- lrp-set-gateway-chassis to-public one 20 -- lrp-set-gateway-chassis to-public two 10 \
         -- lr-nat-add router snat 203.0.113.254 192.0.2.0/24",
    );
    logical::add_router_port(&cloud.ovn, "inside");
    logical::add_router_port(&cloud.ovn, "public");
    cloud.admit(1);
    cloud.plug(1, &cloud.machines[2]);
}

#[test]
fn a_gateway_of_ovn_fails_over_through_vxlan() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns, Peer::Ovn]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = start(dir.path());
    build(&cloud);
    let is_up = "bfd_status:forwarding=true bfd_status:remote_state=up";
    for tunnel in ["ovn-one-0", "ovn-two-0"] {
        cloud.machines[2].vsctl(&format!("wait-until Interface {tunnel} type=vxlan {is_up}"));
    }
    cloud.wait_for_gateway("one");
    cloud.reach(cloud.guest(1), STATION);

    cloud.ovn.kill("one");
    cloud.machines[0].kill();
    cloud.wait_for_claim("two");
    cloud.reach(cloud.guest(1), STATION);

    // It comes again, and is preferred.
    cloud.machines[0].restart();
    add(&mut cloud.ovn, &cloud.machines[0], PLANS[0]);
    cloud.wait_for_gateway("one");
    cloud.reach(cloud.guest(1), STATION);
    cloud.assert_all_taken();
}
