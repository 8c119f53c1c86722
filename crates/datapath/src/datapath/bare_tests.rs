//! Packets without a header of Ethernet, which tunnels carry and patch ports pass on.

use std::sync::Arc;

use ethdev::DropReason;
use flow::{Change, Pipeline, Port, Tunnelling};
use openflow::action::Encap;
use openflow::{Action, Field, Instructions, Match, PortNo};
use packet::headers::EtherType;
use packet::{Frame, MacAddr};
use tunnel::{Address, Envelope, Inner, Kind, Mode, Settings, parse};

use super::tunnel_tests::{Net, STATION, TUNNEL, WIRE, datagram, from_peer, peer, segment};
use super::*;
use crate::bridge::BridgeChange;
use crate::flows::BridgeFlows;
use crate::patch::Patch;

fn gre(mode: Mode) -> Settings {
    Settings { mode, ..Settings::new(Kind::Gre, Address::Is(peer())) }
}

/// What is inside of an outer packet of this kind: what it is said to be, and its bytes.
fn inside(kind: Kind, outer: &[u8]) -> (Inner, &[u8]) {
    let envelope = Envelope::parse(outer, outer.len()).unwrap();
    let found = parse(kind, &envelope, outer).unwrap();
    (found.meta.inner, &outer[found.at..])
}

/// A packet as the peer sends it into a tunnel without a header of Ethernet.
fn bare(kind: Kind, of: u16, packet: &[u8]) -> Vec<u8> {
    let change = |meta: &mut tunnel::Meta| {
        meta.key = None;
        meta.inner = Inner::Bare(EtherType(of));
        meta.says_inner = kind == Kind::Vxlan;
    };
    from_peer(kind, change, packet)
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat()
}

#[test]
fn ethernet_is_taken_off_on_the_way_into_a_tunnel_and_put_on_behind_it() {
    let mut net = Net::new(vec![gre(Mode::Packets)]);
    // A header that is put on has no addresses.
    let set = BridgeChange::Set {
        fdb: Arc::new(fdb::Fdb::new(64, crate::port_set::MAX_PORTS, 300)),
        learn_per_burst: BURST,
        group_fwd_mask: 0,
        vlan_aware: false,
        any_source: true,
    };
    net.bench.change(0, set);
    let frame = datagram(100);
    let got = net.send(STATION, &[frame.clone(), tagged(&frame)]);
    assert_eq!(got[1].len(), 2);
    for outer in &got[1] {
        assert_eq!(inside(Kind::Gre, outer), (Inner::Bare(EtherType::IPV4), &frame[14..]));
    }
    let got = net.send(WIRE, &[bare(Kind::Gre, 0x0800, &frame[14..])]);
    let placed = [&[0; 12], &frame[12..]].concat();
    assert_eq!(got[usize::from(STATION)], [placed]);
    let (_, rx, tx) = &net.ports[0];
    let (rx, tx) = (rx.snapshot(), tx.snapshot());
    let len = frame.len() as u64 - 14;
    assert_eq!((rx.packets, rx.bytes, tx.packets, tx.bytes), (1, len, 2, 2 * len + 4));
    // Frames of Ethernet are for others, and what has no type goes nowhere.
    assert_eq!(
        net.send(WIRE, &[from_peer(Kind::Gre, |meta| meta.key = None, &frame)]).concat().len(),
        0
    );
    assert_eq!(net.dropped(0, DropReason::NoTunnel), (1, 0));
    let llc = [&frame[..12], &[0, 40], &[0x42; 40][..]].concat();
    assert_eq!(net.send(STATION, &[llc])[1].len(), 0);
    assert_eq!(net.dropped(0, DropReason::FlowPacketType), (0, 1));
}

/// What nobody knows the way of is not for a port that takes the header of Ethernet off.
#[test]
fn frames_flood_only_where_they_are_to() {
    let mut net = Net::new(vec![gre(Mode::Packets)]);
    let frame = datagram(100);
    let sent = |net: &mut Net| net.send(STATION, std::slice::from_ref(&frame))[1].len();
    assert_eq!(sent(&mut net), 1);
    net.bench.change(0, BridgeChange::Flood(TUNNEL, false));
    assert_eq!(sent(&mut net), 0);
    net.bench.change(0, BridgeChange::Flood(TUNNEL, true));
    assert_eq!(sent(&mut net), 1);
    // A port that has left is none of them.
    net.bench.change(0, BridgeChange::Leave(TUNNEL));
    net.bench.change(0, BridgeChange::Flood(TUNNEL, true));
    assert_eq!(sent(&mut net), 0);
}

/// A meter has seen the bytes of packets, and not the place of a header that they do not have.
#[test]
fn meters_count_what_packets_have() {
    use openflow::message::meter::{Meter, MeterCommand, MeterMod};
    let mut net = Net::new(vec![gre(Mode::Any)]);
    let frame = datagram(100);
    let meter = |actions: Vec<Action>| {
        let mut pipeline = Pipeline::default();
        let meter = Meter { id: 1, flags: 1, bands: vec![] };
        pipeline.tables.change_meter(&MeterMod { command: MeterCommand::Add, meter }, 0).unwrap();
        let rule = Change::add(0, Match::new(), Instructions::apply(actions));
        pipeline.tables.change(&rule, 0).unwrap();
        pipeline.ports.insert(PortNo(1), Port::new(STATION));
        pipeline
    };
    for (actions, len) in [
        (vec![Action::Meter(1), out(1)], 0),
        (vec![decap(), Action::Meter(1), encap(), out(1)], 14),
        (vec![decap(), Action::Clone(vec![encap(), Action::Meter(1), out(1)])], 0),
    ] {
        let pipeline = meter(actions);
        let stats = Arc::clone(&pipeline.tables.meters().get(1).unwrap().stats);
        let mut flows = BridgeFlows::new(Arc::new(pipeline.clone()));
        flows.metering = flows.metering.of(pipeline.tables.meters(), (1, 1_000, 0));
        net.bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
        net.send(STATION, std::slice::from_ref(&frame));
        net.bench.change(0, BridgeChange::FlushFlows(0));
        let bytes = stats.seen.bytes();
        assert_eq!(bytes, (frame.len() - len) as u64);
    }
}

#[test]
fn packets_of_each_type_have_their_own_header() {
    let vxlan = Settings::new(Kind::Vxlan, Address::Is(peer()));
    let gpe = Settings { mode: Mode::Packets, says_inner: true, ..vxlan };
    for (settings, taken) in [(gre(Mode::Packets), 3), (gpe, 2)] {
        let kind = settings.kind;
        let mut net = Net::new(vec![settings]);
        let four = datagram(60);
        let mut six = four.clone();
        six[12..15].copy_from_slice(&[0x86, 0xDD, 0x60]);
        let mut label = four.clone();
        label[12..14].copy_from_slice(&[0x88, 0x47]);
        let got = net.send(STATION, &[four.clone(), six.clone(), label, six]);
        let kinds: Vec<Inner> = got[1].iter().map(|outer| inside(kind, outer).0).collect();
        let six = Inner::Bare(EtherType::IPV6);
        assert_eq!(
            (kinds[0], kinds[1], kinds.len()),
            (Inner::Bare(EtherType::IPV4), six, taken + 1)
        );
        assert_eq!(net.dropped(0, DropReason::FlowPacketType).1, 3 - taken as u64);
    }
}

#[test]
fn large_segments_stay_large_without_ethernet() {
    let mut net = Net::new(vec![gre(Mode::Packets)]);
    let (bytes, offload) = segment();
    let got = net.bench.send_frames(STATION, &[Frame::from_bytes(&bytes).with_offload(offload)]);
    assert_eq!(got[1].iter().map(Vec::len).collect::<Vec<_>>(), [1_078; 4]);
    for outer in &got[1] {
        let (kind, packet) = inside(Kind::Gre, outer);
        assert_eq!((kind, packet.len()), (Inner::Bare(EtherType::IPV4), 1_040));
        let ip = packet::headers::Ipv4::parse(packet).unwrap();
        assert!(ip.checksum_is_valid());
    }
}

/// Rules of bridge `number`, whose ports have these numbers, by OpenFlow's; they all take packets without Ethernet
/// but the station.
pub(super) fn rules(
    net: &mut Net,
    number: u16,
    ports: &[(u32, u16)],
    rules: Vec<(Match, Vec<Action>)>,
) {
    let mut pipeline = Pipeline::default();
    for (port_no, port) in ports.iter().copied() {
        let takes_bare = port != STATION;
        pipeline.ports.insert(PortNo(port_no), Port { takes_bare, ..Port::new(port) });
    }
    pipeline.tunnels =
        Tunnelling { is_used: ports.iter().any(|(_, port)| *port >= TUNNEL), options: Vec::new() };
    for (priority, (matching, actions)) in (0..).zip(rules.into_iter().rev()) {
        let add = Change::add(0, matching, Instructions::apply(actions));
        pipeline.tables.change(&add.with_priority(priority), 0).unwrap();
    }
    let flows = BridgeFlows::new(Arc::new(pipeline));
    net.bench.change(number, BridgeChange::Flows(Some(Box::new(flows)), 0));
}

const IPV4: u128 = 0x1_0800;

fn out(port: u32) -> Action {
    Action::output(PortNo(port))
}

fn decap() -> Action {
    Action::Decap { packet_type: 0xFFFE }
}

fn encap() -> Action {
    Action::Encap(Box::new(Encap { packet_type: 0, header_size: 0, properties: vec![] }))
}

#[test]
fn a_port_of_any_packets_gives_and_takes_them_as_they_are() {
    let mut net = Net::new(vec![gre(Mode::Any)]);
    let typed = |of| Match::new().with(Field::InPort, 2).with(Field::PacketType, of);
    let all = vec![
        (Match::new().with(Field::InPort, 1), vec![out(2), decap(), out(2), encap(), out(2)]),
        (typed(IPV4), vec![encap(), Action::SetEthDst(MacAddr([6; 6])), out(1)]),
        (typed(0), vec![Action::SetEthDst(MacAddr([7; 6])), out(1)]),
        // They go to no port for frames.
        (typed(0x1_8847), vec![out(1)]),
    ];
    rules(&mut net, 0, &[(1, STATION), (2, TUNNEL)], all);
    let frame = datagram(60);
    let got = net.send(STATION, std::slice::from_ref(&frame));
    let sent: Vec<_> = got[1].iter().map(|outer| inside(Kind::Gre, outer)).collect();
    let placed = [&[0; 12], &frame[12..]].concat();
    let bare_kind = Inner::Bare(EtherType::IPV4);
    let wanted =
        [(Inner::Ethernet, &frame[..]), (bare_kind, &frame[14..]), (Inner::Ethernet, &placed)];
    assert_eq!(sent, wanted);
    let got = net.send(
        WIRE,
        &[
            bare(Kind::Gre, 0x0800, &frame[14..]),
            from_peer(Kind::Gre, |meta| meta.key = None, &frame),
            bare(Kind::Gre, 0x8847, &[0, 0, 0x11, 0x40, 1, 2]),
            bare(Kind::Gre, 0x0800, &frame[14..]),
        ],
    );
    let got: Vec<_> = got[usize::from(STATION)].iter().map(|frame| frame[..6].to_vec()).collect();
    assert_eq!(got, [[6; 6], [7; 6], [6; 6]]);
}

#[test]
fn large_segments_are_cut_where_a_header_is_put_on() {
    let header = |packet_type, properties| {
        Action::Encap(Box::new(Encap { packet_type, header_size: 0, properties }))
    };
    let nsh = header(0x1_894F, vec![]);
    let (mpls, label) = (header(0x1_8847, vec![]), Action::PushMpls { ethertype: 0x8847 });
    let (bytes, offload) = segment();
    let small = datagram(60);
    for (actions, is_bare, longer) in [
        (vec![nsh, out(2)], true, 24),
        (vec![mpls.clone(), out(2)], true, 4),
        (vec![mpls, encap(), out(2)], false, 18),
        (vec![label, out(2)], false, 4),
    ] {
        let mut net = Net::new(vec![gre(Mode::Any)]);
        rules(&mut net, 0, &[(1, STATION), (2, TUNNEL)], vec![(Match::new(), actions)]);
        let large = Frame::from_bytes(&bytes).with_offload(offload);
        let got = net
            .bench
            .send_frames(STATION, &[Frame::from_bytes(&small), large, Frame::from_bytes(&small)]);
        let sent: Vec<_> = got[1].iter().map(|outer| inside(Kind::Gre, outer)).collect();
        assert!(sent.iter().all(|(kind, _)| kind.is_bare() == is_bare));
        let lens: Vec<_> = sent.iter().map(|(_, bytes)| bytes.len() - longer).collect();
        // In order, and each with checksums of its own.
        assert_eq!(lens, [small.len(), 1_054, 1_054, 1_054, 1_054, small.len()]);
        for (_, bytes) in &sent[1..5] {
            let packet = &bytes[bytes.len() - 1_040..];
            let ip = packet::headers::Ipv4::parse(packet).unwrap();
            assert_eq!((ip.checksum_is_valid(), ip.total_len()), (true, 1_040));
            let mut sum = packet::checksum::Checksum::new();
            sum.add(&packet[12..20]);
            sum.add_u16(6);
            sum.add_u16(1_020);
            sum.add(&packet[20..]);
            assert!(sum.is_valid());
        }
    }
}

#[test]
fn what_begins_with_a_tag_stays_so_and_gets_no_header_of_ethernet() {
    let frame = datagram(60);
    let behind = |tags: &[u8]| [tags, &[8, 0], &frame[14..]].concat();
    for (kind, packet) in [
        (0x8100, behind(&[0, 5])),
        (0x88A8, behind(&[0, 6])),
        (0x8100, behind(&[0, 5, 0x81, 0, 0, 7])),
        (0x8100, vec![0, 5]),
    ] {
        let mut net = Net::new(vec![gre(Mode::Any)]);
        let all = vec![(Match::new(), vec![Action::output(PortNo::IN_PORT)])];
        rules(&mut net, 0, &[(1, STATION), (2, TUNNEL)], all);
        let others = bare(Kind::Gre, 0x0800, &frame[14..]);
        let got = net.send(WIRE, &[bare(Kind::Gre, kind, &packet), others]);
        let sent: Vec<_> = got[1].iter().map(|outer| inside(Kind::Gre, outer)).collect();
        let tagged = (Inner::Bare(EtherType(kind)), &packet[..]);
        assert!(sent.contains(&tagged), "{kind:#x}: {sent:?}");
        assert!(sent.contains(&(Inner::Bare(EtherType::IPV4), &frame[14..])));
        // A header in front would have it be a frame of the VLAN that it says.
        let mut net = Net::new(vec![gre(Mode::Packets)]);
        assert_eq!(net.send(WIRE, &[bare(Kind::Gre, kind, &packet)]).concat().len(), 0);
        assert_eq!(net.dropped(0, DropReason::NoTunnel), (1, 0));
    }
}

#[test]
fn packets_without_ethernet_stay_whole_into_a_tunnel_for_such() {
    const HERE: u16 = TUNNEL + 1;
    let there =
        Settings { local: Address::Any, out_key: tunnel::TunnelKey::Is(7), ..gre(Mode::Packets) };
    let mut net = Net::new(vec![gre(Mode::Any), there]);
    let all = vec![(Match::new().with(Field::InPort, 2), vec![out(3)])];
    rules(&mut net, 0, &[(1, STATION), (2, TUNNEL), (3, HERE)], all);
    let packet = [&[0, 5, 8, 0][..], &datagram(60)[14..]].concat();
    let got = net.send(WIRE, &[bare(Kind::Gre, 0x8100, &packet)]);
    let sent: Vec<_> = got[1].iter().map(|outer| inside(Kind::Gre, outer)).collect();
    assert_eq!(sent, [(Inner::Bare(EtherType::VLAN), &packet[..])]);
}

#[test]
fn packets_without_ethernet_go_by_patch_ports_and_back_into_tunnels() {
    const HERE: u16 = 8;
    const THERE: u16 = 9;
    // The tunnel is behind a patch port.
    let mut net = Net::new(vec![gre(Mode::Any)]);
    let third = Arc::new(fdb::Fdb::new(64, crate::port_set::MAX_PORTS, 300));
    net.bench.change(2, BridgeChange::Open(Bridge::new(third, BURST, 0)));
    net.bench.change(0, BridgeChange::Leave(TUNNEL));
    net.bench.change(2, BridgeChange::Join(TUNNEL, None));
    net.bridge = BridgeId(2);
    net.set_ways(Net::ways(1));
    for (port, bridge, peer, other) in [(HERE, 0, THERE, 2), (THERE, 2, HERE, 0)] {
        net.bench.change(bridge, BridgeChange::Join(port, None));
        let (tx, rx) = Default::default();
        let patch = Patch { bridge: BridgeId(other), peer, tx, rx };
        net.bench.path.set_patch(port, Some(patch));
    }
    let typed = |port, of| Match::new().with(Field::InPort, port).with(Field::PacketType, of);
    let here = vec![(typed(1, 0), vec![decap(), out(2)]), (typed(2, IPV4), vec![encap(), out(1)])];
    rules(&mut net, 0, &[(1, STATION), (2, HERE)], here);
    let there = vec![(typed(2, IPV4), vec![out(1)]), (typed(1, IPV4), vec![out(2)])];
    rules(&mut net, 2, &[(1, TUNNEL), (2, THERE)], there);
    let frame = datagram(60);
    let got = net.send(STATION, std::slice::from_ref(&frame));
    let sent: Vec<_> = got[1].iter().map(|outer| inside(Kind::Gre, outer)).collect();
    assert_eq!(sent, [(Inner::Bare(EtherType::IPV4), &frame[14..])]);
    let got = net.send(WIRE, &[bare(Kind::Gre, 0x0800, &frame[14..])]);
    assert_eq!(got[usize::from(STATION)], [[&[0; 12], &frame[12..]].concat()]);
    // A bridge without rules knows frames alone.
    net.bench.change(2, BridgeChange::Flows(None, 0));
    assert_eq!(net.send(STATION, &[frame]).concat().len(), 0);
}

/// What is sent behind a start of it goes into a tunnel as itself, and with the key that it has.
#[test]
fn the_start_of_a_packet_says_nothing_of_what_is_sent_behind_it() {
    let start = || Action::OutputTruncated { port: PortNo(2), max_len: 1_000 };
    let frame = datagram(60);
    let sent = |settings: Settings, actions: Vec<Action>| {
        let mut net = Net::new(vec![settings]);
        let all = vec![(Match::new().with(Field::InPort, 1), actions)];
        rules(&mut net, 0, &[(1, STATION), (2, TUNNEL)], all);
        net.send(STATION, std::slice::from_ref(&frame)).swap_remove(1)
    };
    let outer = sent(gre(Mode::Any), vec![decap(), start(), out(2)]);
    let bare_kind = Inner::Bare(EtherType::IPV4);
    for outer in &outer {
        assert_eq!(inside(Kind::Gre, outer), (bare_kind, &frame[14..]));
    }
    let flow = tunnel::TunnelKey::Flow;
    let set = |value| {
        let field = Field::TunId;
        Action::SetField { field, value, mask: field.full_mask() }
    };
    let settings = Settings { out_key: flow, in_key: flow, ..gre(Mode::Frames) };
    let keyed = sent(settings, vec![set(5), out(2), set(7), start(), out(2)]);
    let key = |outer: &Vec<u8>| {
        let envelope = Envelope::parse(outer, outer.len()).unwrap();
        parse(Kind::Gre, &envelope, outer).unwrap().meta.key
    };
    let keys: Vec<_> = keyed.iter().map(key).collect();
    assert_eq!((outer.len(), keys), (2, vec![Some(5), Some(7), Some(7)]));
}

/// A packet ends with a copy of it that has to be looked at anew, as in Open vSwitch.
#[test]
fn behind_a_copy_that_is_looked_into_nothing_more_is_done() {
    use openflow::action::PropertyOfEncap;
    let mut net = Net::new(vec![gre(Mode::Any)]);
    let nsh = |len: usize| {
        let tlv = PropertyOfEncap::NshTlv { class: 1, kind: 1, data: vec![7; len] };
        let properties = vec![PropertyOfEncap::NshMdtype(2), tlv];
        Action::Encap(Box::new(Encap { packet_type: 0x1_894F, header_size: 0, properties }))
    };
    // A frame with as much in its head as is ever changed.
    let frame = datagram(400);
    let mut sent = |actions: Vec<Action>| {
        let all = vec![(Match::new().with(Field::InPort, 1), actions)];
        rules(&mut net, 0, &[(1, STATION), (2, TUNNEL)], all);
        net.send(STATION, std::slice::from_ref(&frame)).swap_remove(1).len()
    };
    let copy = || Action::Clone(vec![nsh(4), decap(), out(2)]);
    assert_eq!(sent(vec![nsh(240), out(2)]), 1);
    assert_eq!(sent(vec![copy(), nsh(240), out(2)]), 1);
}
