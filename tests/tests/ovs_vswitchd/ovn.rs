//! OVN drives a bridge: what its controller has sent to Open vSwitch, as it was recorded; and OVN itself.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use e2e::peers::workspace;
use e2e::process::run;
use e2e::{Chassis, Netns, Ovn, OvsDatabase, Peer, Ringway, require_shared, wait};

use super::{LIMIT, logical, receive};

const ERROR: u8 = 1;
const BARRIER_REQUEST: u8 = 20;
const BARRIER_REPLY: u8 = 21;

/// A connection on which messages are sent as they were recorded.
struct Connection(UnixStream);

impl Connection {
    fn to(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    /// Sends the messages of a file, waits until the switch has done what they say, and gives the errors
    /// that it has for them.
    fn replay(&mut self, file: &Path) -> Vec<String> {
        // No recorded message has this number.
        let barrier = [6, BARRIER_REQUEST, 0, 8, 0xFF, 0xFF, 0xFF, 0xFF];
        let text = std::fs::read_to_string(file).unwrap();
        let messages = text.lines().map(bytes).chain([barrier.to_vec()]);
        let mut sender = self.0.try_clone().unwrap();
        let all: Vec<Vec<u8>> = messages.collect();
        let sent = all.clone();
        let sending = std::thread::spawn(move || {
            all.iter().try_for_each(|message| sender.write_all(message)).unwrap();
        });
        let mut errors = Vec::new();
        loop {
            let answer = receive(&mut self.0);
            match answer.get(1) {
                Some(&ERROR) => errors.push(describe(&sent, &answer)),
                Some(&BARRIER_REPLY) if number(&answer) == number(&barrier) => break,
                _ => {}
            }
        }
        sending.join().unwrap();
        errors
    }
}

/// The number that an answer has of what it answers.
fn number(message: &[u8]) -> Option<&[u8]> {
    message.get(4..8)
}

/// The message that an error is about, as `ovs-ofctl` shows both.
fn describe(sent: &[Vec<u8>], error: &[u8]) -> String {
    let about = sent.iter().find(|message| number(message) == number(error));
    let shown = [Some(error), about.map(Vec::as_slice)].into_iter().flatten().map(|message| {
        let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
        run(Command::new("ovs-ofctl").args(["ofp-print", &hex])).unwrap()
    });
    shown.collect()
}

/// Bytes of a line of digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// Lines in an order of their own: tables have none.
fn sorted(text: &str) -> Vec<&str> {
    // The first line has a number of the message.
    let lines = text.lines().filter(|line| !line.starts_with("OFPST_"));
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    lines
}

/// Lines of one that the other does not have.
fn only<'t>(first: &[&'t str], second: &[&str]) -> Vec<&'t str> {
    first.iter().filter(|line| !second.contains(line)).copied().collect()
}

#[test]
fn what_ovn_has_sent_makes_the_same_rules() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let archive = workspace().join("tests/ovn/recorded.tar.xz");
    run(Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(dir.path())).unwrap();
    let host = Netns::new().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let _switch = Ringway::vswitchd_in(&host, dir.path()).unwrap();
    database.vsctl(&["add-br", "br-int", "--", "set-fail-mode", "br-int", "secure"]).unwrap();
    let socket = dir.path().join("br-int.mgmt");
    let [mut rules, mut packets] = [(); 2].map(|()| Connection::to(&socket));
    for stage in ["0-empty", "1-two-vm", "2-secgroup-dhcp", "3-router-lb", "4-tunnel-nat-qos"] {
        let file = |name: &str| dir.path().join(stage).join(name);
        assert_eq!(rules.replay(&file("rules.hex")), [""; 0], "{stage}");
        assert_eq!(packets.replay(&file("packets.hex")), [""; 0], "{stage}");
        for what in ["flows", "groups", "meters"] {
            let Ok(expected) = std::fs::read_to_string(file(&format!("{what}.txt"))) else {
                continue;
            };
            let command = format!("dump-{what}");
            let shown = ["-O", "OpenFlow15", "--no-stats", &command, "br-int"];
            let shown = database.ofctl(&shown).unwrap();
            let (shown, expected) = (sorted(&shown), sorted(&expected));
            assert_eq!(only(&shown, &expected), [""; 0], "{stage}: {what} that OVN has not made");
            assert_eq!(only(&expected, &shown), [""; 0], "{stage}: {what} that are missing");
            assert_eq!(shown.len(), expected.len(), "{stage}: {what}");
        }
    }
}

/// OVN, a machine whose switch it drives, and guests of it.
struct Cloud {
    ovn: Ovn,
    database: OvsDatabase,
    _switch: Ringway,
    host: Netns,
    guests: [Netns; 3],
}

impl Cloud {
    fn start(dir: &Path) -> Self {
        let host = Netns::new().unwrap();
        let guests = [(); 3].map(|()| Netns::new().unwrap());
        let database = OvsDatabase::start(dir).unwrap();
        let switch = Ringway::vswitchd_in(&host, dir).unwrap();
        let mut ovn = Ovn::start(&dir.join("ovn")).unwrap();
        // Nothing is at the other end of a tunnel.
        let chassis = Chassis { name: "host", encap: "geneve", ip: "127.0.0.1" };
        ovn.add(&chassis, &database).unwrap();
        Self { ovn, database, _switch: switch, host, guests }
    }

    fn nbctl(&self, line: &str) {
        logical::do_line(&self.ovn, line);
    }

    fn vsctl(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.database.vsctl(&words).with_context(|| self.ovn.log()).unwrap();
    }

    /// One of the guests, of which the first is number 1.
    fn guest(&self, number: usize) -> &Netns {
        self.guests.get(number - 1).unwrap()
    }

    /// Plugs guest `number` into a logical switch, at this address; its router has the last but one.
    fn plug(&self, number: usize, switch: &str, address: &str) {
        let (port, mac) = (format!("guest{number}"), format!("02:00:00:00:00:0{number}"));
        self.ovn
            .nbctl(&[
                "lsp-add",
                switch,
                &port,
                "--",
                "lsp-set-addresses",
                &port,
                &format!("{mac} {address}"),
            ])
            .unwrap();
        let interface = format!("set Interface {port} type=internal external_ids:iface-id={port}");
        self.vsctl(&format!("add-port br-int {port} -- {interface} mac=\"{mac}\""));
        self.vsctl(&format!("wait-until Interface {port} external_ids:ovn-installed=true"));
        let guest = self.guest(number);
        self.host.sh(&format!("ip link set {port} netns {}", guest.name())).unwrap();
        let (network, _) = address.rsplit_once('.').unwrap();
        guest
            .sh(&format!(
                "ip addr add {address}/24 dev {port}; ip link set {port} up; \
                 ip route add default via {network}.254"
            ))
            .unwrap();
    }

    /// Has a guest ping until there is an answer, since OVN asks for addresses first; and then for good.
    fn reach(&self, number: usize, address: &str) {
        let guest = self.guest(number);
        let answered = || guest.ping(address, "-c 1 -W 1");
        wait::until_ok("an answer", LIMIT, Duration::from_millis(20), answered)
            .with_context(|| format!("{number} to {address}: {}", self.ovn.log()))
            .unwrap();
        guest.ping(address, "-c 3 -i 0.05").unwrap();
    }

    fn cannot_reach(&self, number: usize, address: &str) {
        let ping = format!("busybox ping -q -c 1 -W 1 {address}");
        assert!(self.guest(number).sh(&ping).is_err(), "{number} to {address}");
    }
}

/// A logical switch, access lists, a router, translated addresses, a load balancer, and DHCP.
#[test]
fn ovn_drives_the_switch() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns, Peer::Ovn]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path());
    cloud.nbctl("ls-add inside");
    cloud.plug(1, "inside", "192.0.2.1");
    cloud.plug(2, "inside", "192.0.2.2");
    cloud.reach(1, "192.0.2.2");

    // Who may ask, and gets answers, which come by the connection alone.
    let acl = |words: [&str; 6]| cloud.ovn.nbctl(&words).unwrap();
    acl(["acl-add", "inside", "from-lport", "1002", "inport==\"guest1\" && ip4", "allow-related"]);
    acl(["acl-add", "inside", "to-lport", "1001", "outport==\"guest1\" && ip4", "drop"]);
    cloud.reach(1, "192.0.2.2");
    cloud.cannot_reach(2, "192.0.2.1");
    cloud.nbctl("acl-del inside");
    cloud.reach(2, "192.0.2.1");

    // A router, on whose other side is guest 3.
    logical::add_router(&cloud.ovn);
    cloud.plug(3, "outside", "198.51.100.3");
    cloud.reach(1, "192.0.2.254");
    cloud.reach(1, "198.51.100.3");

    // Guest 1 has another address outside.
    cloud.nbctl("set Logical_Router router options:chassis=host");
    cloud.nbctl("lr-nat-add router dnat_and_snat 198.51.100.50 192.0.2.1");
    cloud.reach(3, "198.51.100.50");
    cloud.reach(1, "198.51.100.3");

    logical::balance_page(&cloud.ovn, dir.path(), cloud.guest(3), &[cloud.guest(1)]);
    logical::lease(&cloud.ovn, cloud.guest(1));

    // The switch has taken all that it was sent, and what goes is gone.
    let log = cloud.ovn.log();
    assert!(!log.contains("OpenFlow error") && !log.contains("refused"), "{log}");
    cloud.vsctl("del-port guest3");
    cloud.nbctl("lsp-del guest3 -- lb-del balancer");
    cloud.cannot_reach(1, "198.51.100.3");
    cloud.reach(1, "192.0.2.2");
}
