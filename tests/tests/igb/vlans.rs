//! VLANs between a device that Ringway drives and one that the guest's kernel drives.

use std::cell::RefCell;

use anyhow::Result;
use e2e::traffic::{self, Station};
use e2e::{Process, Vm, ping};

use crate::{Bench, STATIONS, frame};

const MIB: u32 = 2;

impl Bench {
    /// Gives device `b` back to the kernel, and tells its interface, which is up.
    fn interface(&mut self) -> String {
        let address = self.nics[1].address();
        let line = format!(
            "[ -e /sys/bus/pci/devices/{address}/net ] || ringway devices restore {address} >&2; \
             name=$(ls /sys/bus/pci/devices/{address}/net) && ip link set $name up && \
             until [ $(cat /sys/class/net/$name/carrier) = 1 ]; do usleep 10000; done; echo $name"
        );
        self.vm.sh(&line).unwrap().lines().last().unwrap().to_owned()
    }
}

/// A frame of `len` bytes to the station at wire `to`, in VLAN 5 of a customer in VLAN 30.
fn in_two_vlans(to: usize, len: usize, seed: u32) -> Vec<u8> {
    let mut bytes = frame(STATIONS[to].0, STATIONS[1 - to].0, len - 8, seed);
    bytes.splice(12..12, [0x88, 0xA8, 0, 30, 0x81, 0, 0, 5]);
    bytes
}

/// Frames of full length with two tags pass through the kernel's driver, as they do through ours.
pub fn an_interface_of_a_card_takes_two_tags_beside_its_mtu(bench: &mut Bench) {
    let (address, interface) = (bench.nics[0].address(), bench.interface());
    for kind in ["af-packet", "af-xdp"] {
        let ports = [format!("a=igb:{address}"), format!("b={kind}:{interface}")];
        bench.switch_with(&ports.each_ref().map(String::as_str));
        for from in [0, 1] {
            let sent: Vec<_> = (0..8).map(|n| in_two_vlans(1 - from, 1522 - 4 * n, 1)).collect();
            bench.relays(from, &sent);
        }
        bench.stop("TERM");
    }
}

/// One end of a connection, where both are in the same guest: in a network namespace of its own
/// or not.
#[derive(Clone, Copy)]
struct End<'a> {
    vm: &'a RefCell<&'a mut Vm>,
    prefix: &'a str,
}

impl End<'_> {
    fn ping(&self, address: &str) {
        self.run(&ping::line("ping", address, "-c 5 -i 0.05 -s 1472").unwrap()).unwrap();
    }

    fn run(&self, line: &str) -> Result<String> {
        let prefix = self.prefix;
        self.vm.borrow_mut().sh(&format!("{prefix} sh <<'END'\n{line}\nEND"))
    }
}

impl Station for End<'_> {
    fn sh(&mut self, line: &str) -> Result<String> {
        self.run(line)
    }

    fn start(&mut self, line: &str) -> Result<Option<Process>> {
        self.run(&format!("{line} >/dev/null 2>&1 &")).map(|_| None)
    }
}

/// The guest's kernel is at both ends: at TAP interfaces of the switch, and in a namespace behind the
/// other device, whose cable leads to that of the switch.
pub fn stations_reach_each_other_in_their_vlans_only(bench: &mut Bench) {
    let (address, interface) = (bench.nics[0].address(), bench.interface());
    bench.vm.sh(&configuration(&address)).unwrap();
    bench.switch_as("--config /tmp/vlans.toml");
    bench.vm.sh(&stations(&interface)).unwrap();
    let joined = bench.wires[0].join(&bench.wires[1]).unwrap();
    {
        let vm = RefCell::new(&mut bench.vm);
        let near = End { vm: &vm, prefix: "" };
        let far = End { vm: &vm, prefix: "nsenter -t $(cat /tmp/far) -n" };
        for (near_address, far_address) in [("10.10.0.1", "10.10.0.2"), ("10.5.0.1", "10.5.0.2")] {
            near.ping(far_address);
            let there = traffic::transfer(near, far, far_address, MIB).unwrap();
            let back = traffic::transfer(far, near, near_address, MIB).unwrap();
            println!("{far_address}: {MIB} MiB in {there:?} and {back:?}");
        }
        for silent in ["10.20.0.2", "10.6.0.2"] {
            let lost = near.run(&format!("ping -c 3 -i 0.1 -W 1 {silent} || true")).unwrap();
            assert!(lost.contains(" 100% packet loss"), "{lost}");
        }
    }
    drop(joined);
    let stats = bench.stats("up");
    assert!(stats["extended"]["tx_tso_packets"].as_u64().unwrap() > 0, "{stats:#}");
    // Questions in VLAN 20, where the station beyond is alone.
    let mut drops = stats["rx"]["drops"].as_object().unwrap().keys();
    assert!(drops.all(|reason| reason == "link_down"), "{stats:#}");
    bench.vm.sh("kill $(cat /tmp/far)").unwrap();
    bench.stop("TERM");
}

/// A line that writes the switch's configuration, with the device at `address` as its trunk.
fn configuration(address: &str) -> String {
    format!(
        "cat >/tmp/vlans.toml <<'END'
[ports.access]
device = \"tap:rwa\"
vlan.tag = 10
[ports.tunnel]
device = \"tap:rwt\"
vlan = {{ mode = \"dot1q-tunnel\", tag = 30, cvlans = [5] }}
[ports.up]
device = \"igb:{address}\"
vlan.trunks = [10, 20, 30]
END"
    )
}

/// A line that makes the stations: one in VLANs 10 and 20 and in 5 and 6 of the customer in 30, beyond
/// `interface`, and one with addresses in all of these, but the switch's VLANs 10 and 5 only.
fn stations(interface: &str) -> String {
    let mut line = format!(
        "set -e; modprobe 8021q; unshare -n sleep 1000 & echo $! >/tmp/far
until [ \"$(readlink /proc/$(cat /tmp/far)/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do
    usleep 10000
done
ip link set {interface} netns $(cat /tmp/far)
ip address add 10.10.0.1/24 dev rwa
ip address add 10.20.0.1/24 dev rwa
ip link set rwa up; ip link set rwt up
for id in 5 6; do
    ip link add link rwt name rwt.$id type vlan id $id
    ip address add 10.$id.0.1/24 dev rwt.$id; ip link set rwt.$id up
done
nsenter -t $(cat /tmp/far) -n sh -e <<'END'
ip link set {interface} up
ip link add link {interface} name far.30 type vlan protocol 802.1ad id 30
ip link set far.30 up
"
    );
    for (vlan, link) in [(10, interface), (20, interface), (5, "far.30"), (6, "far.30")] {
        line += &format!(
            "ip link add link {link} name far.{vlan} type vlan id {vlan}
ip address add 10.{vlan}.0.2/24 dev far.{vlan}; ip link set far.{vlan} up
"
        );
    }
    line + &format!(
        "until ip link show {interface} | grep -q LOWER_UP; do usleep 10000; done
END"
    )
}
