//! Tunnels on the data path: a bridge with a station and ports of tunnels, and one by which these go, with a
//! wire and the host's own port.

use std::net::IpAddr;
use std::sync::Arc;

use ethdev::{DropReason, QueueStats};
use fdb::Fdb;
use flow::{Change, OptionField, Pipeline, Port, Tunnelling};
use l2proto::Bfd;
use l2proto::bfd::frame::Packet;
use openflow::{Action, Field, Instructions, Match, PortNo};
use packet::builder::FrameBuilder;
use packet::checksum::Checksum;
use packet::headers::{Arp, ArpOperation, EtherType, Ethernet};
use packet::{Capabilities, Frame, Gso, MacAddr, Offload, OffloadRequest};
use proptest::prelude::*;
use tunnel::{
    Address, Envelope, Erspan, Inner, Kind, Link, Meta, Outer, Policy, Prefix, Settings, TunnelKey,
    parse,
};

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bridge::BridgeChange;
use crate::flows::BridgeFlows;
use crate::inlet::{Heard, Inlet, Pace};
use crate::port_set::MAX_PORTS;
use crate::trap::Trap;
use crate::trap::Watched;
use crate::tunnel::Tunnels;
use crate::tunnel::hop::{End, Way, Ways};
use crate::tunnel::{ANSWER_LEN, TunnelPort};

/// The ports: a station, the wire, the host; and from this number on, tunnels.
pub(super) const STATION: u16 = 0;
pub(super) const WIRE: u16 = 1;
const HOST: u16 = 2;
pub(super) const TUNNEL: u16 = 3;

const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);

/// Whoever is in the station.
const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

/// A frame of no known protocol.
fn between(from: MacAddr, to: MacAddr) -> Vec<u8> {
    [&to.0[..], &from.0, &[0x12, 0x34], &[0; 46]].concat()
}

fn own() -> IpAddr {
    [10, 0, 0, 1].into()
}

pub(super) fn peer() -> IpAddr {
    [10, 0, 0, 2].into()
}

/// A large segment of TCP, of which four frames are to become.
pub(super) fn segment() -> (Vec<u8>, Offload) {
    let sender = FrameBuilder::new(SENDER, MacAddr::BROADCAST);
    let frame = sender.ip([192, 168, 0, 1], [192, 168, 0, 2]);
    let bytes = frame.tcp((1, 2), 1, 1, packet::headers::TcpFlags::ACK).payload(&[7; 4_000]);
    let bytes = bytes.build().unwrap();
    let request = OffloadRequest {
        needs_csum: true,
        gso: Some(Gso::TcpV4),
        gso_size: 1_000,
        csum_start: 34,
        csum_offset: 16,
        ..OffloadRequest::default()
    };
    let offload = Offload::check(&request, Capabilities::all(), &bytes, bytes.len()).unwrap();
    (bytes, offload)
}

pub(super) struct Net {
    pub(super) bench: Bench,
    /// The bridge that tunnels are ports of.
    pub(super) bridge: BridgeId,
    numbers: Arc<std::sync::atomic::AtomicU32>,
    pub(super) ports: Vec<(Settings, Arc<QueueStats>, Arc<QueueStats>)>,
    inlet: Inlet,
    heard: std::sync::mpsc::Receiver<Heard>,
}

impl Net {
    pub(super) fn new(ports: Vec<Settings>) -> Self {
        let mut bench = Bench::new(3);
        let fdb = Arc::new(Fdb::new(64, MAX_PORTS, 300));
        bench.change(1, BridgeChange::Open(Bridge::new(fdb, BURST, 0)));
        for port in [WIRE, HOST] {
            bench.change(0, BridgeChange::Leave(port));
            bench.change(1, BridgeChange::Join(port, None));
        }
        let (inlet, heard) = Inlet::new(ANSWER_LEN, 64, &Pace::of(1_000_000), || {});
        let ports = ports.into_iter().map(|port| (port, Arc::default(), Arc::default()));
        let ports: Vec<(Settings, Arc<QueueStats>, Arc<QueueStats>)> = ports.collect();
        for number in (TUNNEL..).take(ports.len()) {
            bench.change(0, BridgeChange::Join(number, None));
        }
        let mut net =
            Self { bench, bridge: BridgeId(0), numbers: Arc::default(), ports, inlet, heard };
        net.set_ways(Self::ways(1));
        net
    }

    fn vxlan() -> Self {
        let key = TunnelKey::Is(5);
        let settings = Settings::new(Kind::Vxlan, Address::Is(peer()));
        Self::new(vec![Settings { in_key: key, out_key: key, ..settings }])
    }

    /// Ways by this bridge.
    pub(super) fn ways(bridge: u16) -> Ways {
        let (port, bridge) = (HOST, BridgeId(bridge));
        let to = Prefix::new(own(), 24).unwrap();
        Ways {
            ends: vec![End { port, bridge, mac: OWN_MAC, addresses: vec![own()] }],
            ways: vec![Way { to, end: 0, gateway: None, source: Some(own()), mark: 0 }],
            neighbours: [((0, peer()), (PEER_MAC, false))].into_iter().collect(),
        }
    }

    pub(super) fn set_ways(&mut self, ways: Ways) {
        let ports = (TUNNEL..).zip(&self.ports).map(|(port, (settings, rx, tx))| TunnelPort {
            port,
            bridge: self.bridge,
            settings: Arc::new(settings.clone()),
            numbers: Arc::clone(&self.numbers),
            rx: Arc::clone(rx),
            tx: Arc::clone(tx),
        });
        let tunnels = Tunnels::new(ports.collect(), Arc::new(ways), self.inlet.clone());
        self.bench.path.set_tunnels(Some(Box::new(tunnels)));
    }

    pub(super) fn dropped(&self, port: usize, reason: DropReason) -> (u64, u64) {
        let (_, rx, tx) = &self.ports[port];
        (rx.snapshot().dropped_for(reason), tx.snapshot().dropped_for(reason))
    }

    /// What each port gets of a burst that comes in on one.
    pub(super) fn send(&mut self, port: u16, frames: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        let bridge = u16::from(port != STATION);
        self.bench.send_to_bridge(bridge, port, frames)
    }
}

/// A frame as the peer sends it into a tunnel.
pub(super) fn from_peer(kind: Kind, change: impl FnOnce(&mut Meta), inner: &[u8]) -> Vec<u8> {
    let mut meta = Meta::new(peer(), own()).with_key(5);
    match kind {
        Kind::Erspan => meta.erspan = Some(Erspan { version: 1, ..Erspan::default() }),
        Kind::Gtpu => meta.inner = Inner::Bare(EtherType::IPV4),
        Kind::Vxlan | Kind::Geneve | Kind::Gre => {}
    }
    change(&mut meta);
    let link = Link { source: PEER_MAC, destination: OWN_MAC };
    let outer = Outer::new(kind, &meta, link, kind.port()).unwrap();
    let mut frame = [vec![0; outer.len()], inner.to_vec()].concat();
    outer.write(&mut frame, inner.len(), 50_000);
    let mut sum = Checksum::new();
    sum.add(inner);
    outer.seal(&mut frame, inner.len(), sum);
    frame
}

pub(super) fn datagram(len: usize) -> Vec<u8> {
    let frame =
        FrameBuilder::new(SENDER, MacAddr::BROADCAST).ip([192, 168, 0, 1], [192, 168, 0, 2]);
    frame.udp(7, 8).payload(&vec![9; len]).build().unwrap()
}

#[test]
fn frames_go_into_a_tunnel_and_come_out_of_it() {
    let mut net = Net::vxlan();
    let sent = [frame(BROADCAST, station(1)), datagram(1_000), datagram(1)];
    let got = net.send(STATION, &sent);
    assert_eq!([got[0].len(), got[1].len(), got[2].len()], [0, 3, 0]);
    for (outer, inner) in got[1].iter().zip([&sent[0], &sent[1], &sent[2]]) {
        assert_eq!(
            (outer[..6].to_vec(), outer[6..12].to_vec()),
            (PEER_MAC.0.into(), OWN_MAC.0.into())
        );
        let envelope = Envelope::parse(outer, outer.len()).unwrap();
        let found = parse(Kind::Vxlan, &envelope, outer).unwrap();
        assert_eq!((found.meta.key, found.meta.source), (Some(5), own()));
        assert_eq!(outer[found.at..], inner[..]);
    }
    let back: Vec<_> = sent.iter().map(|inner| from_peer(Kind::Vxlan, |_| {}, inner)).collect();
    let got = net.send(WIRE, &back);
    assert_eq!((&got[0][..], got[1].len(), got[2].len()), (&sent[..], 0, 0));
    let (_, rx, tx) = &net.ports[0];
    assert_eq!((rx.snapshot().packets, tx.snapshot().packets), (3, 3));
    // The station is known to be behind the tunnel by now, and its answers need no flood.
    let got = net.send(STATION, &[frame(station(1), station(2))]);
    assert_eq!(got[1].len(), 1);
}

#[test]
fn what_is_no_tunnels_goes_to_the_host() {
    let mut net = Net::vxlan();
    let builder = || FrameBuilder::new(PEER_MAC, OWN_MAC).ip([10, 0, 0, 2], [10, 0, 0, 1]);
    let elsewhere = FrameBuilder::new(PEER_MAC, OWN_MAC).ip([10, 0, 0, 2], [10, 0, 0, 9]);
    let others = [
        builder().udp(1, 4_790).payload(&[1; 60]).build().unwrap(),
        elsewhere.udp(1, 4_789).payload(&[1; 60]).build().unwrap(),
        between(PEER_MAC, OWN_MAC),
    ];
    // The host has been heard, so frames to it are not flooded.
    net.send(HOST, &[between(OWN_MAC, MacAddr::BROADCAST)]);
    let got = net.send(WIRE, &others);
    assert_eq!((got[0].len(), &got[2][..]), (0, &others[..]));
    // What is for a tunnel, and none is there for it, goes nowhere.
    let strange = [
        from_peer(Kind::Vxlan, |meta| meta.key = Some(6), &datagram(1)),
        from_peer(Kind::Vxlan, |meta| meta.source = [10, 0, 0, 3].into(), &datagram(1)),
    ];
    assert_eq!(net.send(WIRE, &strange).concat().len(), 0);
    assert_eq!(net.dropped(0, DropReason::NoTunnel), (2, 0));
}

#[test]
fn a_neighbour_that_is_not_known_is_asked_once_and_heard() {
    let mut net = Net::vxlan();
    net.set_ways(Ways { neighbours: Default::default(), ..Net::ways(1) });
    let got = net.send(STATION, &[datagram(1), datagram(2)]);
    assert_eq!((got[1].len(), net.dropped(0, DropReason::NoNeighbour)), (1, (0, 2)));
    let arp = Arp::parse(Ethernet::parse(&got[1][0]).unwrap().payload()).unwrap();
    assert_eq!((arp.operation(), arp.sender_mac()), (ArpOperation::REQUEST, OWN_MAC));
    assert_eq!(IpAddr::from(arp.target_ip()), peer());
    net.set_ways(Ways { neighbours: Default::default(), ..Net::ways(1) });
    assert_eq!(net.send(STATION, &[datagram(1)])[1].len(), 0, "it was asked just now");
    let answer = FrameBuilder::new(PEER_MAC, OWN_MAC).arp(
        ArpOperation::REPLY,
        (PEER_MAC, [10, 0, 0, 2].into()),
        (OWN_MAC, [10, 0, 0, 1].into()),
    );
    let answer = answer.build().unwrap();
    let answers = [answer];
    assert_eq!(net.send(WIRE, &answers)[2], answers, "the host hears it, too");
    let heard = net.heard.try_recv().unwrap();
    assert_eq!((heard.port, tunnel::told(heard.bytes())), (HOST, Some((peer(), PEER_MAC))));
    net.set_ways(Ways { ways: Vec::new(), ..Net::ways(1) });
    net.send(STATION, &[datagram(1)]);
    assert_eq!(net.dropped(0, DropReason::NoRoute), (0, 1));
}

#[test]
fn outer_checksums_are_made_and_looked_at() {
    for kind in [Kind::Geneve, Kind::Gre] {
        let (in_key, out_key) = (TunnelKey::Is(5), TunnelKey::Is(5));
        let settings = Settings::new(kind, Address::Is(peer()));
        let mut net = Net::new(vec![Settings { checksum: true, in_key, out_key, ..settings }]);
        // One frame of which the checksum is only begun.
        let whole = datagram(601);
        let mut begun = whole.clone();
        let sum = Checksum::pseudo_v4([192, 168, 0, 1], [192, 168, 0, 2], 17, 609);
        begun[40..42].copy_from_slice(&sum.partial().to_be_bytes());
        let request = OffloadRequest {
            needs_csum: true,
            csum_start: 34,
            csum_offset: 6,
            ..Default::default()
        };
        let offload = Offload::check(&request, Capabilities::all(), &begun, begun.len()).unwrap();
        let frames = [Frame::from_bytes(&whole), Frame::from_bytes(&begun).with_offload(offload)];
        let got = net.bench.send_frames(STATION, &frames);
        let mut outer = got[1].clone();
        assert_eq!(outer.len(), 2);
        let inner = outer[0].len() - whole.len();
        // Whoever sends it completes what was begun.
        outer[1][inner..].copy_from_slice(&whole);
        for frame in &outer {
            let envelope = Envelope::parse(frame, frame.len()).unwrap();
            let (from, is_udp) = parse(kind, &envelope, frame).unwrap().checksum.unwrap();
            let mut sum = if is_udp { envelope.pseudo_header() } else { Checksum::new() };
            sum.add(&frame[from..]);
            assert!(sum.is_valid(), "{kind:?}");
        }
        let good = from_peer(kind, |meta| meta.checksum = true, &whole);
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(net.send(WIRE, &[bad, good])[0], [whole]);
        assert_eq!(net.dropped(0, DropReason::BadChecksum), (1, 0));
    }
}

#[test]
fn what_lies_beyond_a_packet_is_padding_but_in_gre() {
    let cases = [
        (Kind::Gre, false, true),
        (Kind::Gre, true, false),
        (Kind::Erspan, false, true),
        (Kind::Vxlan, false, false),
    ];
    for (kind, checksum, is_kept) in cases {
        let settings = Settings::new(kind, Address::Is(peer()));
        let mut net = Net::new(vec![Settings { in_key: TunnelKey::Flow, ..settings }]);
        let inner = datagram(60);
        let outer = from_peer(kind, |meta| meta.checksum = checksum, &inner);
        let got = net.send(WIRE, &[[outer, vec![0xEE; 8]].concat()]);
        let beyond = vec![0xEE; if is_kept { 8 } else { 0 }];
        assert_eq!(got[0], [[inner, beyond].concat()], "{kind:?} {checksum}");
    }
}

#[test]
fn large_segments_stay_large_in_a_tunnel() {
    let mut net = Net::vxlan();
    let (bytes, offload) = segment();
    let got = net.bench.send_frames(STATION, &[Frame::from_bytes(&bytes).with_offload(offload)]);
    // The wire takes no large segments: four parts, each with an outer header of its own.
    let lengths: Vec<_> = got[1].iter().map(Vec::len).collect();
    assert_eq!(lengths, [1_104; 4]);
    for outer in &got[1] {
        let envelope = Envelope::parse(outer, outer.len()).unwrap();
        assert_eq!((envelope.end, parse(Kind::Vxlan, &envelope, outer).unwrap().at), (1_104, 50));
    }
}

/// The numbers that packets of GRE have.
fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    let number = |frame: &Vec<u8>| {
        let envelope = Envelope::parse(frame, frame.len()).unwrap();
        let found = parse(Kind::Gre, &envelope, frame).unwrap();
        assert!(found.meta.is_numbered);
        if let Some((at, _)) = found.checksum {
            assert_eq!(packet::checksum::checksum(&frame[at..]), 0);
        }
        u32::from_be_bytes(*frame[..found.at].last_chunk().unwrap())
    };
    frames.iter().map(number).collect()
}

#[test]
fn packets_have_numbers_where_they_are_to() {
    let remote = Address::Is(peer());
    let settings =
        Settings { is_numbered: true, checksum: true, ..Settings::new(Kind::Gre, remote) };
    let mut net = Net::new(vec![settings]);
    let got = net.send(STATION, &[datagram(1), datagram(2)]);
    assert_eq!(numbers(&got[1]), [0, 1]);
    // Each part of a large segment has its own.
    let (bytes, offload) = segment();
    let got = net.bench.send_frames(STATION, &[Frame::from_bytes(&bytes).with_offload(offload)]);
    assert_eq!(got[1].len(), 4);
    let number = |frame: &Vec<u8>| u32::from_be_bytes(frame[42..46].try_into().unwrap());
    assert_eq!(got[1].iter().map(number).collect::<Vec<_>>(), [2, 3, 4, 5]);
    // Numbers of what comes in are passed over.
    let numbered = |meta: &mut Meta| (meta.key, meta.is_numbered) = (None, true);
    assert_eq!(net.send(WIRE, &[from_peer(Kind::Gre, numbered, &datagram(1))])[0].len(), 1);
}

#[test]
fn groups_of_policies_are_seen_and_said_where_they_are_agreed() {
    let flow = TunnelKey::Flow;
    let vxlan = Settings::new(Kind::Vxlan, Address::Is(peer()));
    let policy = Policy { group: 0x0102, flags: 0x08 };
    let set = |field, value| Action::SetField { field, value, mask: Field::full_mask(field) };
    for has_policy in [true, false] {
        let settings = Settings { in_key: flow, out_key: flow, has_policy, ..vxlan.clone() };
        let mut net = Net::new(vec![settings]);
        let there = vec![
            set(Field::TunGbpId, 0x0102),
            set(Field::TunGbpFlags, 8),
            Action::output(PortNo(2)),
        ];
        let from = |port| Match::new().with(Field::InPort, port);
        let back = from(2).with(Field::TunGbpId, 0x0102).with(Field::TunGbpFlags, 8);
        let rules = [(from(1), there), (back, vec![Action::output(PortNo(1))]), (from(2), vec![])];
        with_rules(&mut net, rules);
        let got = net.send(STATION, &[datagram(1)]);
        let envelope = Envelope::parse(&got[1][0], got[1][0].len()).unwrap();
        let found = parse(Kind::Vxlan, &envelope, &got[1][0]).unwrap();
        assert_eq!(found.meta.policy, has_policy.then_some(policy));
        let said = |meta: &mut Meta| meta.policy = Some(policy);
        let got = net.send(WIRE, &[from_peer(Kind::Vxlan, said, &datagram(1))]);
        assert_eq!(got[0].len(), usize::from(has_policy));
    }
}

/// A bridge with rules, in which the station is port 1 and the tunnel is port 2.
fn with_rules(net: &mut Net, rules: [(Match, Vec<Action>); 3]) {
    let mut pipeline = Pipeline::default();
    for (port_no, number) in [(1, STATION), (2, TUNNEL)] {
        pipeline.ports.insert(PortNo(port_no), Port::new(number));
    }
    let option = OptionField { field: 0, class: 0x0102, kind: 0x80, len: 4 };
    pipeline.tunnels = Tunnelling { is_used: true, options: vec![option] };
    for (priority, (matching, actions)) in (0..).zip(rules.into_iter().rev()) {
        let add = Change::add(0, matching, Instructions::apply(actions));
        pipeline.tables.change(&add.with_priority(priority), 0).unwrap();
    }
    let flows = BridgeFlows::new(Arc::new(pipeline));
    net.bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
}

#[test]
fn rules_say_where_tunnels_go_and_see_where_packets_have_come_from() {
    let flow = TunnelKey::Flow;
    let settings = Settings::new(Kind::Geneve, Address::Flow);
    let mut net = Net::new(vec![Settings { in_key: flow, out_key: flow, ..settings }]);
    let set = |field, value| Action::SetField { field, value, mask: Field::full_mask(field) };
    let there = vec![
        Action::Clone(vec![set(Field::TunId, 9), Action::output(PortNo(2))]),
        set(Field::TunId, 7),
        set(Field::TunDst, 0x0A00_0002),
        set(Field::TunMetadata0, 0x0001_0002),
        Action::output(PortNo(2)),
        set(Field::TunId, 8),
        Action::output(PortNo(2)),
    ];
    let back = Match::new()
        .with(Field::InPort, 2)
        .with(Field::TunId, 7)
        .with(Field::TunSrc, 0x0A00_0002)
        .with(Field::TunMetadata0, 0x0003_0004);
    let from = |port| Match::new().with(Field::InPort, port);
    // What has come by a tunnel goes back by it, to whom the rule says.
    let again = vec![set(Field::TunDst, 0x0A00_0002), Action::output(PortNo::IN_PORT)];
    with_rules(
        &mut net,
        [(from(1), there), (back, vec![Action::output(PortNo(1))]), (from(2), again)],
    );
    let frames = [datagram(1)];
    let sent = &frames[0];
    let got = net.send(STATION, &frames);
    let metas: Vec<_> = got[1]
        .iter()
        .map(|outer| {
            let envelope = Envelope::parse(outer, outer.len()).unwrap();
            let found = parse(Kind::Geneve, &envelope, outer).unwrap();
            assert_eq!(outer[found.at..], sent[..]);
            found.meta
        })
        .collect();
    // The first was to go nowhere yet.
    assert_eq!(metas.iter().map(|meta| meta.key).collect::<Vec<_>>(), [Some(7), Some(8)]);
    let option = metas[0].options.iter().next().unwrap();
    assert_eq!((option.class, option.kind, option.value), (0x0102, 0x80, &[0, 1, 0, 2][..]));
    assert_eq!(net.dropped(0, DropReason::NoRoute), (0, 1));
    let known = |meta: &mut Meta| {
        meta.key = Some(7);
        assert!(meta.options.push(0x0102, 0x80, &[0, 3, 0, 4]));
    };
    let got = net.send(WIRE, &[from_peer(Kind::Geneve, known, sent)]);
    assert_eq!(got[0], frames);
    // Another option: it goes back, with the key that it has come with.
    let other = |meta: &mut Meta| meta.key = Some(0x77);
    let got = net.send(WIRE, &[from_peer(Kind::Geneve, other, sent)]);
    let envelope = Envelope::parse(&got[1][0], got[1][0].len()).unwrap();
    let meta = parse(Kind::Geneve, &envelope, &got[1][0]).unwrap().meta;
    assert_eq!((meta.key, meta.destination), (Some(0x77), peer()));
    // One that must not be passed over, and that nobody knows.
    let strange = |meta: &mut Meta| assert!(meta.options.push(1, 0x81, &[]));
    assert_eq!(net.send(WIRE, &[from_peer(Kind::Geneve, strange, sent)]).concat().len(), 0);
    assert_eq!(net.dropped(0, DropReason::Malformed), (1, 0));
}

#[test]
fn guests_have_bfd_of_their_own_through_a_tunnel_that_is_watched() {
    let flow = TunnelKey::Flow;
    let settings = Settings::new(Kind::Geneve, Address::Is(peer()));
    let mut net = Net::new(vec![Settings { in_key: flow, out_key: flow, ..settings }]);
    let bfd = Bfd { check_tnl_key: true, ..Bfd::default() };
    let packet = Packet::new().frame(&bfd, SENDER, 49_152);
    let by_key = |key| {
        let with = |meta: &mut Meta| {
            meta.key = Some(key);
            // What rules would know, and must not be passed over.
            assert!(meta.options.push(0x0102, 0x80, &[0, 3, 0, 4]));
        };
        from_peer(Kind::Geneve, with, &packet)
    };
    let (inlet, heard) = Inlet::new(ANSWER_LEN, 8, &Pace::of(1_000_000), || {});
    let watched = |bfd| Watched { extended: None, bfd: Some(bfd) };
    for (bfd, passed) in [(bfd, vec![packet.clone()]), (Bfd::default(), Vec::new())] {
        let watch = Some((watched(bfd), inlet.clone()));
        net.bench.path.set_trap(TUNNEL, Some(Box::new(Trap { watch, ..Trap::default() })));
        let got = net.send(WIRE, &[by_key(0), by_key(5)]);
        let taken: Vec<_> = heard.try_iter().map(|heard| heard.bytes().to_vec()).collect();
        assert_eq!(got[usize::from(STATION)], passed);
        assert_eq!(taken, vec![packet.clone(); 2 - passed.len()]);
    }
}

#[test]
fn tunnels_in_their_own_bridge_end() {
    let mut net = Net::vxlan();
    // The host's own port is where the tunnel's is: what is flooded goes into the tunnel again.
    net.bench.change(1, BridgeChange::Leave(HOST));
    net.bench.change(0, BridgeChange::Join(HOST, None));
    net.set_ways(Net::ways(0));
    let got = net.send(STATION, &[datagram(1)]);
    assert!(got.concat().len() < 100);
    let loops = net.dropped(0, DropReason::PatchLoop).1 + net.dropped(0, DropReason::TooLong).1;
    assert!(loops > 0, "it ends where there are too many bridges or headers");
}

proptest! {
    #[test]
    fn nothing_from_a_wire_harms(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        inner in 0..200_usize,
        changes in prop::collection::vec((12..140_usize, any::<u8>()), 0..5),
        keep in 20..400_usize,
    ) {
        let settings = |kind| Settings {
            in_key: TunnelKey::Flow,
            ..Settings::new(kind, Address::Flow)
        };
        let mut net = Net::new(Kind::ALL.into_iter().map(settings).collect());
        net.send(HOST, &[between(OWN_MAC, MacAddr::BROADCAST)]);
        let mut outer = from_peer(kind, |_| {}, &vec![0xFE; inner]);
        for (at, byte) in changes {
            if let Some(place) = outer.get_mut(at) {
                *place = byte;
            }
        }
        outer.truncate(keep);
        let got = net.send(WIRE, &[outer]);
        prop_assert!(got.concat().len() <= 3);
    }
}
