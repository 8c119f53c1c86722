//! Headers that are put on in front of a whole packet, and taken off.

use flow::slot;
use openflow::action::{Controller, Encap};

use super::*;
use crate::flows::{FlowBegin, FlowPacketOut};
use crate::record::Record;
use crate::vlan::PortVlan;
use crate::vlan::policy::Policy;

const ETHERNET: u32 = 0;
const MPLS: u32 = 0x1_8847;

fn encap(packet_type: u32) -> Action {
    Action::Encap(Box::new(Encap { packet_type, header_size: 0, properties: Vec::new() }))
}

const fn decap(packet_type: u32) -> Action {
    Action::Decap { packet_type }
}

/// What the first header is said to be by who does not say it.
const NEXT: u32 = 0xFFFE;

fn datagram(payload: &[u8], tags: usize) -> Vec<u8> {
    let [from, to] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
    let builder = FrameBuilder::new(from, to).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(7, 53);
    let tagged = |builder: FrameBuilder, _| builder.tag(packet::headers::EtherType::VLAN, 5);
    (0..tags).fold(builder, tagged).payload(payload).build().unwrap()
}

/// A frame behind labels with these numbers, the outermost first, and a header of Ethernet.
fn covered(labels: &[u32], frame: &[u8]) -> Vec<u8> {
    let mut all = vec![0; 12];
    all.extend([0x88, 0x47]);
    for (at, label) in labels.iter().enumerate() {
        let last = if at + 1 == labels.len() { 0x100 } else { 0 };
        all.extend((label << 12 | last | 64).to_be_bytes());
    }
    [&all, frame].concat()
}

/// Actions by which a frame is covered so.
fn cover(labels: &[u32]) -> Vec<Action> {
    let each = labels.iter().rev().flat_map(|label| [encap(MPLS), Action::SetMplsLabel(*label)]);
    each.chain([encap(ETHERNET)]).collect()
}

/// Actions by which it is uncovered.
fn uncover(labels: usize) -> Vec<Action> {
    let mut actions = vec![decap(NEXT)];
    actions.extend((1..labels).map(|_| decap(MPLS)));
    actions.push(decap(ETHERNET));
    actions
}

fn mpls() -> Match {
    Match::new().with(Field::EthType, 0x8847)
}

proptest! {
    /// Whatever is put on is there, and is taken off again, wherever the frame's bytes lie; rules find
    /// what is behind it.
    #[test]
    fn frames_are_covered_and_uncovered(
        labels in prop::collection::vec(0..1_u32 << 20, 1..=3),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        tags in 0..2_usize,
        head in 0..300_usize,
    ) {
        let plain = datagram(&payload, tags);
        let whole = covered(&labels, &plain);
        let udp = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 17);
        let udp = udp.with(Field::UdpDst, 53);
        let again = [uncover(labels.len()), vec![Action::resubmit_table(1)]].concat();
        let rules = [
            (0, Match::new(), [cover(&labels), vec![output(2)]].concat()),
            (0, mpls(), again),
            (1, udp, vec![output(2)]),
        ];
        for (from, to) in [(&plain, &whole), (&whole, &plain)] {
            prop_assert_eq!(sent_from(&rules, from, head), [to.clone()]);
        }
    }
}

#[test]
fn what_goes_round_behind_patch_ports_is_recorded_by_the_port_where_it_came_in() {
    let plain = datagram(&[1, 2, 3], 0);
    let mut bench = Bench::new(4);
    set(&mut bench, pipeline(5, &[(0, Match::new(), vec![output(5)])]));
    let rules = [(0, Match::new(), [cover(&[7]), uncover(1)].concat())];
    add_neighbour(&mut bench, pipeline(6, &rules));
    bench.path.set_recording(Record::All, 0);
    bench.send(0, &[plain]);
    let (came, again) = bench.path.take_recording();
    assert_eq!((came.kinds.len(), came.kinds[0].origin), (1, 0));
    let again: Vec<_> = again.iter().flat_map(|(_, again)| &again.kinds).collect();
    assert!(!again.is_empty());
    for kind in again {
        assert_eq!((kind.origin, kind.key.get_u32(slot::IN_PORT)), (0, 6));
    }
}

#[test]
fn what_has_no_header_of_ethernet_goes_out_nowhere_until_it_has_one() {
    let plain = datagram(&[1, 2, 3], 0);
    let mut bare = plain.clone();
    bare[..12].fill(0);
    let actions = vec![decap(NEXT), output(2), output(PortNo::FLOOD.0), output(PortNo::NORMAL.0)];
    let (got, bench) = sent(&[(0, Match::new(), actions.clone())], &[Frame::from_bytes(&plain)]);
    assert_eq!((got.len(), bench.dropped(DropReason::FlowDrop)), (0, 1));
    let back = [actions, vec![encap(ETHERNET), output(2)]].concat();
    let (got, _) = sent(&[(0, Match::new(), back)], &[Frame::from_bytes(&plain)]);
    assert_eq!(got, [bare]);
}

#[test]
fn tags_of_what_has_no_ethernet_are_forgotten() {
    let plain = datagram(&[], 0);
    let sent_after = |actions: &[Action]| {
        let actions = [&[decap(NEXT)], actions, &[encap(ETHERNET), output(2)]].concat();
        sent(&[(0, Match::new(), actions)], &[Frame::from_bytes(&plain)]).0
    };
    let without = sent_after(&[]);
    assert_eq!(without.len(), 1);
    let push = Action::PushVlan { ethertype: 0x8100 };
    let vid = Action::SetVlanVid { vid: 5, push: true };
    for tag in [push.clone(), vid, write(Field::VlanTci, 0x1005)] {
        assert_eq!(sent_after(std::slice::from_ref(&tag)), without, "{tag:?}");
    }
    // A frame behind a label goes as it is, without the tag that was put on before.
    let actions = vec![decap(NEXT), push, decap(ETHERNET), output(2)];
    let covered = covered(&[7], &plain);
    assert_eq!(sent(&[(0, Match::new(), actions)], &[Frame::from_bytes(&covered)]).0, [plain]);
}

#[test]
fn what_packets_cannot_have_or_have_not_drops_them() {
    let (plain, tagged) = (datagram(&[], 0), datagram(&[], 1));
    let deep = covered(&[1, 2, 3, 4], &plain);
    let several = covered(&[1, 2], &plain);
    let cut = covered(&[7], &plain[..20]);
    let behind = covered(&[7], &tagged[14..]);
    // LLC, and no SNAP.
    let llc = [&plain[..12], &[0, 40, 0x42, 0x42, 3], &[0; 40]].concat();
    for (frame, actions, reason) in [
        (&tagged, vec![decap(NEXT)], DropReason::FlowPacketType),
        (&llc, vec![decap(NEXT)], DropReason::FlowPacketType),
        // There is a tag behind its label, and no Ethernet that it could be taken out of.
        (&behind, vec![decap(NEXT), decap(0x1_8100), Action::PopVlan], DropReason::FlowDrop),
        (&plain, vec![encap(ETHERNET)], DropReason::FlowPacketType),
        (&plain, vec![decap(NEXT), decap(NEXT)], DropReason::FlowPacketType),
        (&deep, vec![decap(NEXT), decap(MPLS)], DropReason::FlowLabels),
        (&plain, cover(&[1, 2, 3, 4]), DropReason::FlowLabels),
        // It does not say what is behind its label: no port of frames takes it then, nor does a header fit.
        (&covered(&[7], &plain), vec![decap(NEXT), decap(NEXT)], DropReason::FlowDrop),
        (&several, vec![decap(NEXT), decap(NEXT)], DropReason::FlowDrop),
        (&several, vec![decap(NEXT), decap(NEXT), encap(ETHERNET)], DropReason::FlowPacketType),
        // What is behind it is no frame.
        (&covered(&[7], &[1, 2, 3]), uncover(1), DropReason::TooShort),
    ] {
        let actions = [actions, vec![output(2)]].concat();
        let rules = [(0, Match::new(), actions.clone())];
        let (got, bench) = sent(&rules, &[Frame::from_bytes(frame)]);
        assert_eq!((got.len(), bench.dropped(reason)), (0, 1), "{actions:?}");
    }
    // A packet that is cut short goes as it is.
    let rules = [(0, Match::new(), [uncover(1), vec![output(2)]].concat())];
    assert_eq!(sent(&rules, &[Frame::from_bytes(&cut)]).0, [plain[..20].to_vec()]);
}

/// As in Open vSwitch: it goes on as something of that EtherType behind one label, and as nothing that there is
/// behind several; what was sent before stays sent.
#[test]
fn what_is_not_said_to_be_behind_labels_goes_on_all_the_same() {
    let plain = datagram(&[5; 9], 0);
    let of = |packet_type: u128| Match::new().with(Field::PacketType, packet_type);
    let again = [output(3), decap(NEXT), decap(NEXT), Action::resubmit_table(1)];
    let rules = [
        (0, Match::new(), again.to_vec()),
        (1, of(0x1_FFFE), vec![encap(ETHERNET), write(Field::EthDst, 9), output(2)]),
        (1, of(0xFFFE), vec![output(2)]),
    ];
    for (labels, count, is_seen) in [(&[3][..], 1, [1, 0]), (&[3, 4], 0, [0, 1])] {
        let frame = covered(labels, &plain[14..]);
        let (mut bench, stats) = bench(&rules);
        let got = bench.send_frames(0, &[Frame::from_bytes(&frame)]);
        assert_eq!(got[2], [frame], "{labels:?}");
        assert_eq!(got[1].len(), count, "{labels:?}");
        for sent in &got[1] {
            let header = [0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xFF, 0xFE];
            assert_eq!((&sent[..14], &sent[14..]), (&header[..], &plain[14..]));
        }
        bench.change(0, BridgeChange::FlushFlows(1_000));
        assert_eq!([stats[1].packets(), stats[2].packets()], is_seen, "{labels:?}");
    }
}

/// A frame of IEEE 802.3 that says by LLC and SNAP what this one says by its EtherType.
fn snap(frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len() - 6).unwrap().to_be_bytes();
    [&frame[..12], &len, &[0xAA, 0xAA, 3, 0, 0, 0], &frame[12..]].concat()
}

/// They are of the header that is taken off: a packet begins behind them.
#[test]
fn llc_and_snap_go_with_the_header_of_ethernet() {
    let plain = datagram(&[1, 2, 3], 0);
    let mut bare = plain.clone();
    bare[..12].fill(0);
    let inside = covered(&[7], &plain);
    for (frame, actions, expected) in [
        (snap(&plain), vec![decap(NEXT), encap(ETHERNET)], &bare),
        (snap(&inside), uncover(1), &plain),
    ] {
        let rules = [(0, Match::new(), [actions, vec![output(2)]].concat())];
        assert_eq!(sent(&rules, &[Frame::from_bytes(&frame)]).0, std::slice::from_ref(expected));
    }
    let labelled = [vec![decap(NEXT)], cover(&[7]), vec![output(2)]].concat();
    let rules = [(0, Match::new(), labelled)];
    let (got, _) = sent(&rules, &[Frame::from_bytes(&snap(&plain))]);
    assert_eq!(got, [covered(&[7], &plain[14..])]);
}

/// What is behind labels may be a packet without a header of Ethernet: rules see what it is.
#[test]
fn a_packet_behind_labels_has_the_type_that_is_said() {
    let plain = datagram(&[5; 9], 0);
    let frame = covered(&[3], &plain[14..]);
    let of = |packet_type: u128| Match::new().with(Field::PacketType, packet_type);
    let rules = [
        (0, Match::new(), vec![decap(NEXT), decap(0x1_0800), Action::resubmit_table(1)]),
        (1, Match::new(), vec![]),
        (1, of(0x1_86DD), vec![]),
        (
            1,
            of(0x1_0800).with(Field::IpDst, 0x0A00_0002),
            vec![Action::DecTtl(None), encap(ETHERNET), write(Field::EthDst, 9), output(2)],
        ),
    ];
    let (mut bench, stats) = bench(&rules);
    let got = bench.send_frames(0, &[Frame::from_bytes(&frame)]).swap_remove(1);
    // The place of its header does not count where it is known that it has none.
    bench.change(0, BridgeChange::FlushFlows(1_000));
    let told = |stats: &Stats| (stats.packets(), stats.bytes());
    assert_eq!(told(&stats[0]), (1, frame.len() as u64));
    assert_eq!(told(&stats[3]), (1, plain.len() as u64 - 14));
    let got = got.first().unwrap();
    assert_eq!((&got[..6], &got[6..14]), (&[0, 0, 0, 0, 0, 9][..], &[0, 0, 0, 0, 0, 0, 8, 0][..]));
    assert_eq!((got[22], &got[26..]), (plain[22] - 1, &plain[26..]));
}

/// As in Open vSwitch: where nothing is left to do when a packet is looked at anew, its way begins anew, and what of
/// it is beside the packet stays.
#[test]
fn what_has_nothing_left_to_do_behind_its_header_begins_in_the_first_table() {
    let plain = datagram(&[5; 9], 0);
    let frame = covered(&[3], &plain[14..]);
    let bare = Match::new().with(Field::PacketType, 0x1_0800).with(Field::Reg1, 7);
    let onward = vec![encap(ETHERNET), write(Field::EthDst, 9), output(2)];
    let last = [vec![], vec![Action::Note(vec![1])], vec![write(Field::Reg1, 8)]];
    let counts = last.map(|last| {
        let before = vec![write(Field::Reg1, 7), decap(NEXT), decap(0x1_0800)];
        let rules = [
            (0, Match::new(), vec![Action::resubmit_table(1)]),
            (1, mpls(), [before, last].concat()),
            (0, bare.clone(), onward.clone()),
        ];
        sent(&rules, &[Frame::from_bytes(&frame)]).0.len()
    });
    assert_eq!(counts, [1, 1, 0]);
}

/// Controllers are told what a packet begins with, and get no header that it does not have.
#[test]
fn controllers_get_packets_without_a_header_of_ethernet_as_they_are() {
    let plain = datagram(&[5; 9], 0);
    let to = Action::output(PortNo::CONTROLLER);
    let rules = [(0, Match::new(), vec![decap(NEXT), to])];
    let (inlet, packets) = flow_queue(4, || {});
    let mut bench = Bench::new(4);
    let flows = BridgeFlows::new(Arc::new(pipeline(4, &rules))).with_packets(inlet);
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
    bench.send(0, std::slice::from_ref(&plain));
    let Ok(FlowEvent::Packet(packet)) = packets.try_recv() else { panic!("no packet") };
    assert_eq!((packet.bytes.as_slice(), packet.len), (&plain[14..], plain.len() - 14));
    let told = flow::place::to_match(&packet.about.key);
    assert_eq!(told.exact(Field::PacketType), Some(0x1_0800));
}

/// A controller decides about what has no header of Ethernet as about all else: it goes on when it says so,
/// and not before.
#[test]
fn what_has_no_header_of_ethernet_waits_for_its_controller() {
    let plain = datagram(&[5; 9], 0);
    let pause = Action::Controller(Box::new(Controller { pause: true, ..Controller::default() }));
    let behind = vec![Action::DecTtl(None), encap(ETHERNET), write(Field::EthDst, 9), output(2)];
    let rules = [(0, Match::new(), [vec![decap(NEXT), pause], behind].concat())];
    let (inlet, packets) = flow_queue(4, || {});
    let mut bench = Bench::new(4);
    let flows = BridgeFlows::new(Arc::new(pipeline(4, &rules))).with_packets(inlet);
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows.clone())), 0));
    assert_eq!(counts(&bench.send(0, std::slice::from_ref(&plain))), [0, 0, 0, 0]);
    let Ok(FlowEvent::Packet(packet)) = packets.try_recv() else { panic!("no packet") };
    assert_eq!(packet.bytes, plain[14..]);
    let frozen = Box::new(packet.about.frozen.as_deref().unwrap().clone());
    let (key, bytes) = (frozen.key.clone(), packet.bytes.clone());
    let begin = FlowBegin::Resume { frozen, mirrors: 0 };
    let packet = FlowPacketOut { in_port: PortNo(1), begin, key, bytes };
    bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(&flows), 5), 1);
    let got = bench.send(0, &[]);
    assert_eq!(counts(&got), [0, 1, 0, 0]);
    let got = &got[1][0];
    assert_eq!(got[..14], [0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 8, 0]);
    assert_eq!((got[22], &got[26..]), (plain[22] - 1, &plain[26..]));
}

/// What a controller sends may have no header of Ethernet, and gets none.
#[test]
fn controllers_send_packets_without_a_header_of_ethernet() {
    let plain = datagram(&[5; 9], 0);
    let (inlet, packets) = flow_queue(4, || {});
    let mut bench = Bench::new(4);
    let flows = BridgeFlows::new(Arc::new(pipeline(4, &[]))).with_packets(inlet);
    let mut key = Box::<flow::Key>::default();
    key.set_packet_type(0x1_0800);
    let actions = vec![
        Action::DecTtl(None),
        Action::output(PortNo::CONTROLLER),
        output(1),
        encap(ETHERNET),
        output(2),
    ];
    let begin = FlowBegin::Actions(actions);
    let bytes = plain[14..].to_vec();
    let packet = FlowPacketOut { in_port: PortNo::CONTROLLER, begin, key, bytes };
    bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(&flows), 0), 1);
    let Ok(FlowEvent::Packet(packet)) = packets.try_recv() else { panic!("no packet") };
    assert_eq!((packet.bytes.len(), packet.bytes[8]), (plain.len() - 14, plain[22] - 1));
    assert_eq!(&packet.bytes[12..], &plain[26..]);
    let got = bench.send(0, &[]);
    assert_eq!(counts(&got), [0, 1, 0, 0]);
    assert_eq!(got[1][0][..14], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
}

/// Whoever looks at such a packet anew finds an EtherType.
#[test]
fn controllers_are_told_an_ethertype_where_nothing_says_what_was_behind_labels() {
    let controller = Action::Output { port: PortNo::CONTROLLER, max_len: 20 };
    let actions = vec![decap(NEXT), decap(NEXT), controller];
    let (inlet, packets) = flow_queue(40, || {});
    let flows = BridgeFlows::new(Arc::new(pipeline(4, &[(0, Match::new(), actions)])));
    let mut bench = Bench::new(4);
    let flows = flows.with_packets(inlet);
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
    bench.send_frames(0, &[Frame::from_bytes(&covered(&[1, 2], &datagram(&[], 0)))]);
    let Ok(FlowEvent::Packet(packet)) = packets.try_recv() else { panic!("no packet") };
    assert_eq!(packet.about.key.get_u32(slot::PACKET_TYPE), 0x1_FFFE);
}

fn any_source() -> BridgeChange {
    BridgeChange::Set {
        fdb: Arc::new(fdb::Fdb::new(64, crate::port_set::MAX_PORTS, 300)),
        learn_per_burst: BURST,
        group_fwd_mask: 0,
        vlan_aware: false,
        any_source: true,
    }
}

/// `NORMAL` floods them, by whatever VLANs, to ports that take them: so they come to other bridges, as they are.
#[test]
fn packets_without_ethernet_are_switched_to_other_bridges_alone() {
    let frame = datagram(&[5; 9], 0);
    let here = Match::new().with(Field::InPort, 1);
    let rules = [
        (0, here, vec![decap(NEXT), output(PortNo::NORMAL.0)]),
        (0, Match::new().with(Field::InPort, 5), vec![output(2)]),
    ];
    let mut first = pipeline(5, &rules);
    first.ports.get_mut(&PortNo(5)).unwrap().takes_bare = true;
    let back = vec![encap(ETHERNET), output(PortNo::IN_PORT.0)];
    let of = Match::new().with(Field::PacketType, 0x1_0800);
    let mut bench = Bench::new(4);
    add_neighbour(&mut bench, pipeline(6, &[(0, of, back)]));
    let access = PortVlan { tag: Some(7), ..PortVlan::default() };
    bench.change(0, BridgeChange::Join(0, Some(Arc::new(Policy::from(&access)))));
    // The place of a header has no addresses.
    bench.change(0, any_source());
    set(&mut bench, first);
    for _ in 0..2 {
        let got = bench.send_frames(0, &[Frame::from_bytes(&frame)]);
        assert_eq!(counts(&got), [0, 1, 0, 0]);
        assert_eq!((&got[1][0][..12], &got[1][0][12..]), (&[0; 12][..], &frame[12..]));
    }
}
