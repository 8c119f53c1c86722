//! What collectors of nfdump's are told of traffic by NetFlow, sFlow and IPFIX.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use e2e::collector::{Collector, Collects, Record};
use e2e::{Peer, require_shared};

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

/// Sends datagrams from one end of the lab to the other one, as soon as collectors are told of what goes there; none
/// of them is lost.
fn send(lab: &Lab, count: usize, witness: &UdpSocket) {
    // Each end knows the other one by then, so that no datagram waits for an answer.
    let deadline = Instant::now() + LIMIT;
    witness.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while witness.recv(&mut [0; 2_000]).is_err() {
        assert!(Instant::now() < deadline, "nothing is told: {}", lab.switch.log());
        lab.ping();
    }
    let [from, to] = ENDS;
    let receiver = lab.guest.within(|| UdpSocket::bind(to)).unwrap().unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let sender = lab.host.within(|| UdpSocket::bind(from)).unwrap().unwrap();
    for _ in 0..count {
        sender.send_to(&DATAGRAM, to).unwrap();
        // One after the other: no queue can be full.
        assert_eq!(receiver.recv(&mut [0; 2_000]).unwrap(), DATAGRAM.len());
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

/// A collector that is told the same.
fn witness(lab: &Lab) -> UdpSocket {
    lab.host.within(|| UdpSocket::bind(("127.0.0.1", WITNESS))).unwrap().unwrap()
}

#[test]
fn netflow_tells_what_has_passed() {
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::Nfdump];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let files = dir.path().join("flows");
    let collector = Collector::start(&lab.host, Collects::Flows, &files, 2_055).unwrap();
    let witness = witness(&lab);
    lab.vsctl(&format!(
        "set Bridge br0 netflow=@nf -- --id=@nf create NetFlow active_timeout=1 \
         targets=\"127.0.0.1:2055\",\"127.0.0.1:{WITNESS}\""
    ));
    send(&lab, 20, &witness);
    let records = collector.wait_for(|records| sent(records).0 >= 20).unwrap();
    let (packets, bytes, interfaces) = sent(&records);
    assert_eq!((packets, bytes), (20, 20 * LEN));
    // By their numbers of OpenFlow.
    assert!(interfaces.iter().all(|numbers| *numbers == [1, 2]), "{interfaces:?}");
}

#[test]
fn sflow_tells_of_each_packet() {
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::Nfdump];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let files = dir.path().join("samples");
    let collector = Collector::start(&lab.host, Collects::Samples, &files, 6_343).unwrap();
    let witness = witness(&lab);
    // Counters would be told without any packet.
    lab.vsctl(&format!(
        "set Bridge br0 sflow=@sf -- --id=@sf create sFlow sampling=1 polling=0 \
         targets=\"127.0.0.1\",\"127.0.0.1:{WITNESS}\""
    ));
    send(&lab, 20, &witness);
    let records = collector.wait_for(|records| sent(records).0 >= 20).unwrap();
    let (packets, bytes, interfaces) = sent(&records);
    // With the checksum that Ethernet puts behind a frame.
    assert_eq!((packets, bytes), (20, 20 * (LEN + 4)));
    let left = lab.host.sh("cat /sys/class/net/left/ifindex").unwrap();
    let left: u32 = left.trim().parse().unwrap();
    // The other one is in another namespace: its number is made of its name.
    let is_right =
        |[input, output]: &[u32; 2]| *input == left && (0x80_0000..0x100_0000).contains(output);
    assert!(interfaces.iter().all(is_right), "{interfaces:?}");
}

/// As many records of each direction as there are datagrams, each of one packet, in and out on these interfaces.
fn assert_ipfix(lab: &Lab, records: &[Record], sides: &[bool]) {
    let left = lab.host.sh("cat /sys/class/net/left/ifindex").unwrap();
    let left: u32 = left.trim().parse().unwrap();
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
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::Nfdump];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let files = dir.path().join("flows");
    let collector = Collector::start(&lab.host, Collects::Flows, &files, 4_739).unwrap();
    let witness = witness(&lab);
    lab.vsctl(&format!(
        "set Bridge br0 ipfix=@ix -- --id=@ix create IPFIX sampling=1 obs_domain_id=7 \
         targets=\"127.0.0.1:4739\",\"127.0.0.1:{WITNESS}\""
    ));
    send(&lab, 20, &witness);
    let records = collector.wait_for(|records| sent(records).2.len() >= 40).unwrap();
    assert_ipfix(&lab, &records, &[false, true]);
}

#[test]
fn rules_have_a_set_of_collectors_be_told() {
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::Nfdump];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let files = dir.path().join("flows");
    let collector = Collector::start(&lab.host, Collects::Flows, &files, 4_739).unwrap();
    let witness = witness(&lab);
    // Another set has collectors, too: nobody listens there.
    lab.vsctl(&format!(
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
        lab.database.ofctl(&["add-flow", "br0", rule]).unwrap();
    }
    send(&lab, 20, &witness);
    let records = collector.wait_for(|records| sent(records).2.len() >= 20).unwrap();
    assert_ipfix(&lab, &records, &[false]);
    // What came in on the other port is none of theirs.
    let [(host, _), (guest, _)] = ENDS;
    assert!(records.iter().all(|record| record.addresses != [guest, host]), "{records:#?}");
}
