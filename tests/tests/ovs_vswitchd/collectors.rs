//! What collectors of nfdump's are told of traffic by NetFlow, sFlow and IPFIX.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use e2e::collector::{Collector, Collects, Record};
use e2e::peers::Turn;
use e2e::{Peer, require_shared};
use tempfile::TempDir;

use super::{LIMIT, Lab};

/// Where datagrams go from and to: addresses, and ports of UDP.
const ENDS: [(&str, u16); 2] = [("192.0.2.1", 4_321), ("192.0.2.2", 1_234)];

/// How many bytes a frame has before a datagram's own: Ethernet, IP and UDP.
const HEADERS: u64 = 14 + 20 + 8;

const UDP: u8 = 17;

/// A datagram.
const DATAGRAM: [u8; 100] = [7; 100];

/// How many bytes its frame has.
const LEN: u64 = HEADERS + DATAGRAM.len() as u64;

/// The port of a collector beside nfdump's, that sees when anything is told.
const WITNESS: u16 = 9_999;

/// The lab, with a collector of nfdump's beside the switch.
struct Stage {
    // Dropped in this order.
    collector: Collector,
    witness: UdpSocket,
    lab: Lab,
    _dir: TempDir,
    _turn: Turn,
}

impl Stage {
    /// With a collector that listens at this port; `None`: there are not all of these peers.
    fn start(what: Collects, port: u16) -> Option<Self> {
        let turn = require_shared(&[Peer::OvsDatabase, Peer::Netns, Peer::Nfdump])?;
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(dir.path());
        let collector = Collector::start(&lab.host, what, &dir.path().join("told"), port).unwrap();
        let witness = lab.host.within(|| UdpSocket::bind(("127.0.0.1", WITNESS))).unwrap().unwrap();
        Some(Self { collector, witness, lab, _dir: dir, _turn: turn })
    }

    /// Has both collectors be told what a row says, which is of this kind and has these columns. The port may be left
    /// out where it is the usual one.
    fn tell(&self, column: &str, kind: &str, port: &str, columns: &str) {
        self.lab.vsctl(&format!(
            "set Bridge br0 {column}=@row -- --id=@row create {kind} {columns} \
             targets=\"127.0.0.1{port}\",\"127.0.0.1:{WITNESS}\""
        ));
    }

    /// Waits until collectors are told of what goes from one end of the lab to the other one, which know each other by
    /// then: no datagram waits for an answer.
    fn wait_until_told(&self) {
        let deadline = Instant::now() + LIMIT;
        self.witness.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while self.witness.recv(&mut [0; 2_000]).is_err() {
            assert!(Instant::now() < deadline, "nothing is told: {}", self.lab.switch.log());
            self.lab.ping();
        }
    }

    /// Sends datagrams from one end of the lab to the other one; none of them is lost.
    fn send(&self, count: usize) {
        let [from, to] = ENDS;
        let receiver = self.lab.guest.within(|| UdpSocket::bind(to)).unwrap().unwrap();
        receiver.set_read_timeout(Some(LIMIT)).unwrap();
        let sender = self.lab.host.within(|| UdpSocket::bind(from)).unwrap().unwrap();
        for _ in 0..count {
            sender.send_to(&DATAGRAM, to).unwrap();
            // One after the other: no queue can be full.
            assert_eq!(receiver.recv(&mut [0; 2_000]).unwrap(), DATAGRAM.len());
        }
    }

    /// The number that the system has for the interface where datagrams come in.
    fn left(&self) -> u32 {
        self.lab.host.sh("cat /sys/class/net/left/ifindex").unwrap().trim().parse().unwrap()
    }
}

/// Packets and bytes of the datagrams that were sent, and where they came in and went out, by each record.
fn sent(records: &[Record]) -> (u64, u64, Vec<[u32; 2]>) {
    let [(from, source), (to, destination)] = ENDS;
    let own = |record: &&Record| {
        record.addresses == [from, to]
            && record.ports == [source, destination]
            && record.protocol == UDP
    };
    let own = records.iter().filter(own);
    own.fold((0, 0, Vec::new()), |(packets, bytes, mut interfaces), record| {
        interfaces.push(record.interfaces);
        (packets + record.packets, bytes + record.bytes, interfaces)
    })
}

#[test]
fn netflow_tells_what_has_passed() {
    let Some(stage) = Stage::start(Collects::Flows, 2_055) else { return };
    stage.tell("netflow", "NetFlow", ":2055", "active_timeout=1");
    stage.wait_until_told();
    stage.send(20);
    let records = stage.collector.wait_for(|records| sent(records).0 >= 20).unwrap();
    let (packets, bytes, interfaces) = sent(&records);
    assert_eq!((packets, bytes), (20, 20 * LEN));
    // By their numbers of OpenFlow.
    assert!(interfaces.iter().all(|numbers| *numbers == [1, 2]), "{interfaces:?}");
}

/// What has come in just now, too, and where it went, though ports are in other VLANs from then on.
#[test]
fn netflow_tells_all_when_its_row_goes_and_when_the_switch_ends() {
    let Some(stage) = Stage::start(Collects::Flows, 2_055) else { return };
    let ends: [&dyn Fn(); 3] = [
        &|| drop(stage.lab.vsctl("clear Bridge br0 netflow")),
        &|| drop(stage.lab.vsctl("clear Bridge br0 netflow -- set Port left tag=20")),
        &|| drop(stage.lab.appctl("exit")),
    ];
    for (end, count) in ends.into_iter().zip([20, 40, 60]) {
        stage.lab.vsctl("set Port left tag=10");
        stage.lab.ping();
        stage.tell("netflow", "NetFlow", ":2055", "active_timeout=-1");
        // Who is answered then is behind the turn in which recording has begun.
        stage.lab.appctl("ofproto/list");
        stage.send(20);
        end();
        let records = stage.collector.wait_for(|records| sent(records).0 >= count).unwrap();
        let (packets, bytes, interfaces) = sent(&records);
        assert_eq!((packets, bytes), (count, count * LEN));
        assert!(interfaces.iter().all(|numbers| *numbers == [1, 2]), "{interfaces:?}");
    }
}

#[test]
fn ipfix_tells_all_when_its_row_goes_and_when_the_switch_ends() {
    let Some(stage) = Stage::start(Collects::Flows, 4_739) else { return };
    let ends: [&dyn Fn(); 2] =
        [&|| drop(stage.lab.vsctl("clear Bridge br0 ipfix")), &|| drop(stage.lab.appctl("exit"))];
    for (end, count) in ends.into_iter().zip([2, 4]) {
        stage.lab.ping();
        let gathers = "sampling=1 cache_active_timeout=4200 cache_max_flows=65536";
        stage.tell("ipfix", "IPFIX", "", gathers);
        stage.send(20);
        end();
        // Each flow is told where it comes in, and where it goes out.
        let records = stage.collector.wait_for(|records| sent(records).2.len() >= count).unwrap();
        assert_eq!(sent(&records).2.len(), count, "{records:#?}");
    }
}

#[test]
fn sflow_tells_of_each_packet() {
    let Some(stage) = Stage::start(Collects::Samples, 6_343) else { return };
    // Counters would be told without any packet.
    stage.tell("sflow", "sFlow", "", "sampling=1 polling=0");
    stage.wait_until_told();
    stage.send(20);
    let records = stage.collector.wait_for(|records| sent(records).0 >= 20).unwrap();
    let (packets, bytes, interfaces) = sent(&records);
    // With the checksum that Ethernet puts behind a frame.
    assert_eq!((packets, bytes), (20, 20 * (LEN + 4)));
    let left = stage.left();
    // The other one is in another namespace: its number is made of its name.
    let is_right =
        |[input, output]: &[u32; 2]| *input == left && (0x80_0000..0x100_0000).contains(output);
    assert!(interfaces.iter().all(is_right), "{interfaces:?}");
}

/// As many records of each direction as there are datagrams, each of one packet, in and out on these interfaces.
fn assert_ipfix(stage: &Stage, records: &[Record], sides: &[bool]) {
    let left = stage.left();
    let (_, _, interfaces) = sent(records);
    assert_eq!(interfaces.len(), 20 * sides.len());
    for goes_out in sides {
        let is_one = |[input, output]: &&[u32; 2]| *input == left && (*output != 0) == *goes_out;
        assert_eq!(interfaces.iter().filter(is_one).count(), 20, "{interfaces:?}");
    }
    // Of what was counted for a flow, and of all, nfcapd keeps the latter: with each packet it is more.
    let mut all: Vec<&Record> = records.iter().collect();
    all.sort_by_key(|record| record.packets);
    let (mut packets, mut bytes) = (0, 0);
    for record in all {
        assert!(record.packets > packets, "{records:#?}");
        if !sent(std::slice::from_ref(record)).2.is_empty() && packets > 0 {
            // Of IP, without the header of Ethernet.
            assert_eq!(record.bytes - bytes, LEN - 14, "{records:#?}");
        }
        (packets, bytes) = (record.packets, bytes.max(record.bytes));
    }
}

#[test]
fn ipfix_tells_what_comes_in_and_goes_out() {
    let Some(stage) = Stage::start(Collects::Flows, 4_739) else { return };
    stage.tell("ipfix", "IPFIX", ":4739", "sampling=1 obs_domain_id=7");
    stage.wait_until_told();
    stage.send(20);
    let records = stage.collector.wait_for(|records| sent(records).2.len() >= 40).unwrap();
    assert_ipfix(&stage, &records, &[false, true]);
}

#[test]
fn rules_have_a_set_of_collectors_be_told() {
    let Some(stage) = Stage::start(Collects::Flows, 4_739) else { return };
    // Another set has collectors, too: nobody listens there.
    stage.lab.vsctl(&format!(
        "--id=@br get Bridge br0 -- --id=@ix create IPFIX \
         targets=\"127.0.0.1:4739\",\"127.0.0.1:{WITNESS}\" \
         -- create Flow_Sample_Collector_Set id=5 bridge=@br ipfix=@ix \
         -- --id=@other create IPFIX targets=\"127.0.0.1:9\" \
         -- create Flow_Sample_Collector_Set id=6 bridge=@br ipfix=@other"
    ));
    for rule in [
        "priority=9,in_port=left actions=sample(probability=65535,collector_set_id=5,obs_domain_id=8),normal",
        "in_port=right actions=sample(probability=65535,collector_set_id=6),normal",
    ] {
        stage.lab.database.ofctl(&["add-flow", "br0", rule]).unwrap();
    }
    stage.wait_until_told();
    stage.send(20);
    let records = stage.collector.wait_for(|records| sent(records).2.len() >= 20).unwrap();
    assert_ipfix(&stage, &records, &[false]);
    // What came in on the other port is none of theirs.
    let [(host, _), (guest, _)] = ENDS;
    assert!(records.iter().all(|record| record.addresses != [guest, host]), "{records:#?}");
}
