//! Machines that are simulated, as in OVN's own tests: switches without devices, joined by a socket, each of which OVN
//! drives. Frames come in by `ovs-appctl`, and are read where they went.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use e2e::frames::read_pcap;
use e2e::{Chassis, Netns, Ovn, OvsDatabase, Peer, Ringway, require_shared, wait};

use super::{LIMIT, logical};

const PAUSE: Duration = Duration::from_millis(20);

/// A machine's name, where its tunnels end, and its end of the wire between the two.
type Plan = (&'static str, &'static str, &'static str);

const PLANS: [Plan; 2] = [("one", "10.1.0.1", "pstream=punix"), ("two", "10.1.0.2", "stream=unix")];

/// A switch with a bridge to the wire, whose own port has no device either, and with OVN's.
struct Machine {
    // Dropped in this order: the switch before its database.
    _switch: Ringway,
    database: OvsDatabase,
    _host: Netns,
    dir: PathBuf,
}

impl Machine {
    fn start(dir: &Path, (name, ip, end): Plan) -> Self {
        let host = Netns::new().unwrap();
        let own = dir.join(name);
        std::fs::create_dir(&own).unwrap();
        let database = OvsDatabase::start(&own).unwrap();
        let switch = Ringway::vswitchd_with(&host, &own, &["--enable-dummy=system"]).unwrap();
        let machine = Self { _switch: switch, database, _host: host, dir: own };
        let (wire, sent) = (dir.join("wire.sock"), machine.sent_to("wire"));
        let (wire, sent) = (wire.display(), sent.display());
        machine.vsctl(&format!(
            "add-br br-phys -- add-port br-phys wire \
             -- set Interface wire options:{end}:{wire} options:tx_pcap={sent}"
        ));
        machine.appctl(&format!("netdev-dummy/ip4addr br-phys {ip}/24"));
        machine.appctl(&format!("ovs/route/add {ip}/24 br-phys"));
        machine
    }

    /// The file with the frames that have gone out by a port.
    fn sent_to(&self, port: &str) -> PathBuf {
        self.dir.join(format!("{port}.pcap"))
    }

    fn vsctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.database.vsctl(&words).unwrap().trim().to_owned()
    }

    fn appctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        self.database.appctl(&words).unwrap()
    }

    /// Plugs a guest into the logical switch `inside`.
    fn plug(&self, ovn: &Ovn, (guest, mac, ip): Guest) {
        let address = format!("{mac} {ip}");
        let add = ["lsp-add", "inside", guest, "--", "lsp-set-addresses", guest, &address];
        ovn.nbctl(&add).unwrap();
        let sent = self.sent_to(guest);
        self.vsctl(&format!(
            "add-port br-int {guest} -- set Interface {guest} external_ids:iface-id={guest} \
             options:tx_pcap={}",
            sent.display()
        ));
        self.vsctl(&format!("wait-until Interface {guest} external_ids:ovn-installed=true"));
    }
}

/// Its port of OVN's, and its addresses.
type Guest = (&'static str, &'static str, &'static str);

const GUESTS: [Guest; 2] =
    [("left", "02:00:00:00:00:01", "192.0.2.1"), ("right", "02:00:00:00:00:02", "192.0.2.2")];

/// A packet that a guest sends another one, in the words of `netdev-dummy/receive`.
fn packet((_, source, from): Guest, (_, target, to): Guest) -> String {
    format!(
        "eth(src={source},dst={target}),eth_type(0x0800),\
         ipv4(src={from},dst={to},proto=17,tos=0,ttl=64,frag=no),udp(src=7,dst=9)"
    )
}

/// Whether a frame is this guest's for that one, with nothing of a tunnel before it.
fn is_between(frame: &[u8], [(_, source, _), (_, target, _)]: [Guest; 2]) -> bool {
    let byte = |digits| u8::from_str_radix(digits, 16).unwrap();
    let addresses: Vec<u8> = target.split(':').chain(source.split(':')).map(byte).collect();
    frame.starts_with(&addresses)
}

#[test]
fn simulated_machines_of_ovn_are_joined() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns, Peer::Ovn]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let machines = PLANS.map(|plan| Machine::start(dir.path(), plan));
    let mut ovn = Ovn::start(&dir.path().join("ovn")).unwrap();
    for (machine, (name, ip, _)) in machines.iter().zip(PLANS) {
        ovn.add(&Chassis { name, encap: "geneve", ip }, &machine.database).unwrap();
    }
    let [one, two] = &machines;
    logical::do_line(&ovn, "ls-add inside");
    machines.iter().zip(GUESTS).for_each(|(machine, guest)| machine.plug(&ovn, guest));

    let [left, right] = GUESTS;
    for (from, to, sender, receiver) in [(one, two, left, right), (two, one, right, left)] {
        let frame = packet(sender, receiver);
        // OVN has both know of each other's tunnel some time, and the first frame asks for the other's address, which
        // its bridge answers.
        wait::until_ok("a frame of the other machine", LIMIT, PAUSE, || {
            from.appctl(&format!("netdev-dummy/receive {} {frame}", sender.0));
            let frames = read_pcap(&to.sent_to(receiver.0))?;
            let has_come = frames.iter().any(|frame| is_between(frame, [sender, receiver]));
            ensure!(has_come, "{} frames, of others", frames.len());
            Ok(())
        })
        .unwrap();
        let outer = read_pcap(&from.sent_to("wire")).unwrap();
        // Ethernet, IPv4, UDP, and Geneve with the option of OVN.
        let inner =
            |frame: &Vec<u8>| is_between(frame.get(58..).unwrap_or(&[]), [sender, receiver]);
        assert!(outer.iter().any(inner), "it has come by a tunnel");
    }
    watch_each_other(&ovn, &machines);
}

/// Both may be the gateway, and watch each other by BFD; on a busy machine, neither may take the other for gone.
fn watch_each_other(ovn: &Ovn, [one, two]: &[Machine; 2]) {
    logical::do_line(
        ovn,
        "set NB_Global . options:bfd-mult=100 -- ls-add public -- lr-add router \
         -- lrp-add router to-public 02:00:00:00:01:02 203.0.113.254/24 \
         -- lrp-set-gateway-chassis to-public one 20 -- lrp-set-gateway-chassis to-public two 10",
    );
    logical::add_router_port(ovn, "public");
    for (machine, tunnel) in [(one, "ovn-two-0"), (two, "ovn-one-0")] {
        machine.vsctl(&format!(
            "wait-until Interface {tunnel} bfd_status:forwarding=true bfd_status:remote_state=up"
        ));
    }
}
