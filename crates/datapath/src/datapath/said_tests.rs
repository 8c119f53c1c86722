//! Tunnels whose headers say more than a key: ERSPAN, and GTP-U.

use flow::Key;
use openflow::{Action, Field, Match, PortNo};
use packet::headers::EtherType;
use tunnel::{
    Address, Envelope, Erspan, ErspanSettings, Found, Gtpu, Inner, Kind, Mode, Said, Settings,
    TunnelKey, parse,
};

use super::bare_tests::rules;
use super::tunnel_tests::{Net, STATION, TUNNEL, WIRE, datagram, from_peer, peer, segment};
use super::*;

fn found(kind: Kind, outer: &[u8]) -> Found {
    let envelope = Envelope::parse(outer, outer.len()).unwrap();
    parse(kind, &envelope, outer).unwrap()
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.full_mask() }
}

fn out(port: u32) -> Action {
    Action::output(PortNo(port))
}

const PORTS: [(u32, u16); 2] = [(1, STATION), (2, TUNNEL)];

fn erspan(erspan: ErspanSettings) -> Settings {
    let (in_key, out_key) = (TunnelKey::Flow, TunnelKey::Flow);
    Settings { in_key, out_key, erspan, ..Settings::new(Kind::Erspan, Address::Is(peer())) }
}

#[test]
fn mirrored_frames_are_sent_with_what_rules_say() {
    let flow = ErspanSettings {
        version: Said::Flow,
        index: Said::Flow,
        direction: Said::Flow,
        hardware: Said::Is(9),
    };
    let mut net = Net::new(vec![erspan(flow)]);
    let actions = vec![
        set(Field::TunId, 0x237),
        set(Field::TunErspanVer, 2),
        set(Field::TunErspanDir, 1),
        set(Field::TunErspanHwid, 7),
        out(2),
        set(Field::TunErspanVer, 1),
        set(Field::TunErspanIdx, 0xFFFFF),
        out(2),
        // There are no such session and no such version.
        set(Field::TunErspanVer, 3),
        out(2),
        set(Field::TunErspanVer, 1),
        set(Field::TunId, 0x400),
        out(2),
    ];
    rules(&mut net, 0, &PORTS, vec![(Match::new().with(Field::InPort, 1), actions)]);
    let frame = datagram(100);
    let sent = net.send(STATION, std::slice::from_ref(&frame)).swap_remove(1);
    let wanted = [
        (54, Erspan { version: 2, index: 0, direction: 1, hardware: 9 }),
        (50, Erspan { version: 1, index: 0xFFFFF, direction: 0, hardware: 0 }),
    ];
    assert_eq!(sent.len(), wanted.len());
    for ((outer, (at, erspan)), number) in sent.iter().zip(wanted).zip(0_u32..) {
        let found = found(Kind::Erspan, outer);
        assert_eq!((found.at, found.meta.erspan, found.meta.key), (at, Some(erspan), Some(0x237)));
        assert_eq!((&outer[at..], &outer[38..42]), (&frame[..], &number.to_be_bytes()[..]));
    }
    assert_eq!(net.dropped(0, DropReason::NoRoute), (0, 2));
}

#[test]
fn mirrored_frames_come_in_with_what_is_said_of_them() {
    let mut net = Net::new(vec![erspan(ErspanSettings::USUAL)]);
    let from = Match::new().with(Field::InPort, 2);
    let two = from.clone().with(Field::TunErspanVer, 2).with(Field::TunErspanHwid, 0x3F);
    let one = from.with(Field::TunErspanIdx, 5).with(Field::TunErspanVer, 1);
    let other = |mac| vec![Action::SetEthDst(packet::MacAddr([mac; 6])), out(1)];
    rules(&mut net, 0, &PORTS, vec![(two, other(2)), (one, other(4))]);
    let frame = datagram(100);
    let said = |erspan: Erspan| from_peer(Kind::Erspan, |meta| meta.erspan = Some(erspan), &frame);
    let first = Erspan { version: 1, index: 5, direction: 0, hardware: 0 };
    let second = Erspan { version: 2, index: 0, direction: 0, hardware: 0x3F };
    let others = [Erspan { index: 6, ..first }, Erspan { hardware: 0x3E, ..second }];
    let frames = [first, second, others[0], others[1]].map(said);
    let got = net.send(WIRE, &frames).swap_remove(STATION.into());
    assert_eq!(got.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(got[0][6..], frame[6..]);
}

#[test]
fn gre_and_mirrored_frames_are_each_for_their_own_port() {
    let gre = Settings::new(Kind::Gre, Address::Is(peer()));
    let mirrored = erspan(ErspanSettings::USUAL);
    for settings in [vec![gre.clone(), mirrored.clone()], vec![mirrored, gre]] {
        let kinds: Vec<Kind> = settings.iter().map(|settings| settings.kind).collect();
        let mut net = Net::new(settings);
        let frame = datagram(100);
        net.send(WIRE, &[from_peer(Kind::Gre, |meta| meta.key = None, &frame)]);
        net.send(WIRE, &vec![from_peer(Kind::Erspan, |_| {}, &frame); 2]);
        let packets =
            kinds.iter().zip(&net.ports).map(|(kind, (_, rx, _))| (*kind, rx.snapshot().packets));
        let mut packets: Vec<_> = packets.collect();
        packets.sort_unstable();
        assert_eq!(packets, [(Kind::Gre, 1), (Kind::Erspan, 2)]);
    }
}

fn gtpu(mode: Mode) -> Settings {
    let (in_key, out_key) = (TunnelKey::Flow, TunnelKey::Is(7));
    Settings { in_key, out_key, mode, ..Settings::new(Kind::Gtpu, Address::Is(peer())) }
}

#[test]
fn packets_of_mobile_networks_have_their_lengths() {
    for is_numbered in [false, true] {
        let mut net = Net::new(vec![Settings { is_numbered, ..gtpu(Mode::Packets) }]);
        let (large, offload) = segment();
        let frames = [Frame::from_bytes(&large).with_offload(offload)];
        let sent = net.bench.send_frames(STATION, &frames).swap_remove(1);
        assert_eq!(sent.len(), 4);
        for (outer, number) in sent.iter().zip(0_u16..) {
            let found = found(Kind::Gtpu, outer);
            let at = if is_numbered { 54 } else { 50 };
            assert_eq!((found.at, found.meta.key), (at, Some(7)));
            assert_eq!(found.meta.inner, Inner::Bare(EtherType::IPV4));
            assert_eq!(usize::from(u16::from_be_bytes([outer[44], outer[45]])), outer.len() - 50);
            if is_numbered {
                assert_eq!(outer[50..52], number.to_be_bytes());
            }
        }
    }
    // It carries packets of IP, and nothing else.
    let mut net = Net::new(vec![gtpu(Mode::Packets)]);
    let mut arp = datagram(60);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(net.send(STATION, &[arp]).concat().len(), 0);
    assert_eq!(net.dropped(0, DropReason::FlowPacketType), (0, 1));
}

#[test]
fn packets_of_mobile_networks_come_in_and_words_between_ends_stay_whole() {
    let mut net = Net::new(vec![gtpu(Mode::Any)]);
    let typed = |of| Match::new().with(Field::InPort, 2).with(Field::PacketType, of);
    let packet = typed(0x1_0800).with(Field::TunGtpuFlags, 0x30).with(Field::TunGtpuMsgtype, 255);
    let encap = openflow::action::Encap { packet_type: 0, header_size: 0, properties: vec![] };
    let encap = Action::Encap(Box::new(encap));
    let word = typed(0).with(Field::TunGtpuMsgtype, 1);
    let all = vec![(packet, vec![encap, out(1)]), (word, vec![out(1)])];
    rules(&mut net, 0, &PORTS, all);
    let frame = datagram(100);
    let outer = from_peer(Kind::Gtpu, |_| {}, &frame[14..]);
    let mut word = outer.clone();
    word[43] = 1;
    let got = net.send(WIRE, &[outer, word.clone()]).swap_remove(STATION.into());
    assert_eq!(got, [[&[0; 12], &frame[12..]].concat(), word.clone()]);
    // A port for packets takes no words.
    let mut net = Net::new(vec![gtpu(Mode::Packets)]);
    assert_eq!(net.send(WIRE, &[word]).concat().len(), 0);
    assert_eq!(net.dropped(0, DropReason::NoTunnel), (1, 0));
}

#[test]
fn what_is_said_is_in_the_key_and_comes_again() {
    let mut key = Key::default();
    let erspan = Erspan { version: 2, index: 0, direction: 1, hardware: 0x2A };
    let gtpu = Gtpu { flags: 0x36, message: 254 };
    let meta = tunnel::Meta {
        erspan: Some(erspan),
        gtpu: Some(gtpu),
        ..tunnel::Meta::new(peer(), peer())
    };
    key.set_tunnel(&crate::tunnel::words(&meta, &[]).unwrap());
    let is = |field, value| Match::new().with(field, value);
    for (field, value) in [
        (Field::TunErspanVer, 2),
        (Field::TunErspanDir, 1),
        (Field::TunErspanHwid, 0x2A),
        (Field::TunGtpuFlags, 0x36),
        (Field::TunGtpuMsgtype, 254),
    ] {
        let pattern = flow::place::pattern(&is(field, value)).unwrap();
        assert!(pattern.matches(&key), "{field}");
    }
    assert_eq!(crate::tunnel::wish(&key.tunnel(), &[]).0.erspan, erspan);
}
