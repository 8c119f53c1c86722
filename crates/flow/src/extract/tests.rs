use packet::headers::{Ethernet, Ipv4, Ipv6};
use proptest::prelude::*;

use super::*;
use crate::pipeline::VlanLimit;

fn key_of(frame: &[u8]) -> Key {
    let mut key = Key::default();
    extract(&mut key, frame, frame.len(), 2, Depth::All);
    key
}

fn ethernet(tags: &[(u16, u16)], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (kind, control) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(proto: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + options + payload.len()).unwrap();
    let mut packet = vec![0x45 + u8::try_from(options / 4).unwrap(), 0xB9];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([63, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(vec![0; options]);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6A, 0xB1, 0x23, 0x45];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

fn tcp() -> Vec<u8> {
    let mut header = vec![0x03, 0xE8, 0, 22];
    header.extend([0; 8]);
    header.extend([0x51, 0x12]);
    header.extend([0; 6]);
    header
}

#[test]
fn tcp_over_ipv4_behind_two_tags() {
    let packet = ipv4(6, 0, 8, &tcp());
    let frame = ethernet(&[(QINQ, 0x2005), (VLAN, 7)], IPV4, &packet);
    let key = key_of(&frame);
    assert_eq!(key.get_u64(slot::ETH_DST), 0x0200_0000_0001);
    assert_eq!((key.get_u16(slot::VLAN_TCI), key.get_u16(slot::VLAN_TPID)), (0x3005, QINQ));
    assert_eq!((key.get_u16(slot::INNER_TCI), key.get_u16(slot::INNER_TPID)), (0x1007, VLAN));
    assert_eq!((key.get_u16(slot::ETH_TYPE), key.get_u8(slot::IP_PROTO)), (IPV4, 6));
    assert_eq!(key.get_u32(slot::IPV4_SRC), 0x0A00_0001);
    assert_eq!((key.get_u8(slot::IP_TOS), key.get_u8(slot::IP_TTL)), (0xB9, 63));
    assert_eq!((key.get_u16(slot::TP_SRC), key.get_u16(slot::TP_DST)), (1000, 22));
    assert_eq!(key.get_u16(slot::TCP_FLAGS), 0x112);
    // With a limit of one tag, the next one is what the frame carries.
    let mut key = Key::default();
    let layers = extract(&mut key, &frame, frame.len(), 1, Depth::All);
    assert_eq!((key.get_u16(slot::ETH_TYPE), layers.tags), (VLAN, 1));
    assert_eq!(key.get_u8(slot::IP_PROTO), 0);
    // The same as what is left of a key of two.
    assert_eq!(key_of(&frame).with_tags(VlanLimit::new(1)), key);
    assert_eq!(key_of(&frame).with_tags(VlanLimit::new(0)), key_of(&frame));
    let one = key_of(&ethernet(&[(QINQ, 5)], IPV4, &ipv4(6, 0, 0, &[1; 20])));
    assert_eq!(one.with_tags(VlanLimit::default()), one);
}

#[test]
fn ports_are_those_of_first_fragments() {
    let key = |fragment| key_of(&ethernet(&[], IPV4, &ipv4(17, fragment, 0, &[1; 12])));
    let facts = |key: Key| (key.get_u8(slot::IP_FRAG), key.get_u16(slot::TP_SRC));
    assert_eq!(facts(key(0)), (0, 0x0101));
    assert_eq!(facts(key(0x2000)), (FRAG_ANY, 0x0101));
    assert_eq!(facts(key(0x2001)), (FRAG_ANY | FRAG_LATER, 0));
    assert_eq!(facts(key(0x0001)), (FRAG_ANY | FRAG_LATER, 0));
}

#[test]
fn there_is_tcp_only_with_its_whole_header() {
    let ports = |offset: u8| {
        let mut header = tcp();
        header[12] = offset << 4 | 1;
        key_of(&ethernet(&[], IPV4, &ipv4(6, 0, 0, &header))).get_u16(slot::TP_DST)
    };
    assert_eq!((ports(5), ports(4), ports(15)), (22, 0, 0));
}

#[test]
fn ipv6_with_extensions() {
    // Hop-by-hop options, then a first fragment of TCP.
    let mut payload = vec![44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9];
    payload.extend(tcp());
    let key = key_of(&ethernet(&[], IPV6, &ipv6(0, &payload)));
    assert_eq!(key.get_u8(slot::IP_PROTO), 6);
    assert_eq!((key.get_u16(slot::TP_DST), key.get_u8(slot::IP_FRAG)), (22, FRAG_ANY));
    assert_eq!((key.get_u8(slot::IP_TOS), key.get_u32(slot::IPV6_LABEL)), (0xAB, 0x1_2345));
    // Of a later fragment it is not known what it is of.
    let later = [6, 0, 0, 0x11, 0, 0, 0, 9].repeat(4);
    let key = key_of(&ethernet(&[], IPV6, &ipv6(44, &later)));
    assert_eq!((key.get_u8(slot::IP_PROTO), key.get_u8(slot::IP_FRAG)), (44, 3));
    // Where the headers are cut short, nothing but addresses is known.
    let key = key_of(&ethernet(&[], IPV6, &ipv6(0, &[6, 1, 0, 0, 0, 0, 0, 0])));
    assert_eq!((key.get_u8(slot::IP_TTL), key.get_u8(slot::IP_TOS)), (0, 0));
    assert_ne!(key.get(slot::IPV6_SRC), 0);
    // A chain without end is not followed to its end.
    let endless = [0; 8].repeat(40);
    assert_eq!(key_of(&ethernet(&[], IPV6, &ipv6(0, &endless))).get_u8(slot::IP_PROTO), 0);
}

/// Messages of the other version's protocol are read, too, as in Open vSwitch: no rule matches on them.
#[test]
fn control_messages_of_either_version() {
    let message = [8, 3, 0, 0, 0, 0, 0, 0];
    for proto in [1, 2, 58] {
        let frames = [(IPV4, ipv4(proto, 0, 0, &message)), (IPV6, ipv6(proto, &message))];
        for (kind, packet) in frames {
            let key = key_of(&ethernet(&[], kind, &packet));
            assert_eq!((key.get_u16(slot::TP_SRC), key.get_u16(slot::TP_DST)), (8, 3), "{proto}");
        }
    }
}

#[test]
fn neighbour_discovery_and_arp() {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend([0xFE; 16]);
    message.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    let key = key_of(&ethernet(&[], IPV6, &ipv6(58, &message)));
    assert_eq!((key.get_u16(slot::TP_SRC), key.get_u16(slot::TP_DST)), (135, 0));
    assert_eq!(key.get(slot::ND_TARGET), u128::from_be_bytes([0xFE; 16]));
    assert_eq!(key.get_u64(slot::ARP_SHA), 0x0200_0000_0009);
    assert_eq!(key.get_u8(slot::ND_OPTIONS_TYPE), 1);
    // The same option twice takes the addresses away; its kind stays.
    let twice = [message.as_slice(), &message[24..]].concat();
    let key = key_of(&ethernet(&[], IPV6, &ipv6(58, &twice)));
    assert_eq!((key.get(slot::ND_TARGET), key.get_u64(slot::ARP_SHA)), (0, 0));
    assert_eq!(key.get_u8(slot::ND_OPTIONS_TYPE), 1);
    // Behind an option of no length there are no more.
    message[25] = 0;
    let key = key_of(&ethernet(&[], IPV6, &ipv6(58, &message)));
    assert_eq!(key.get(slot::ND_TARGET), u128::from_be_bytes([0xFE; 16]));
    assert_eq!(key.get_u64(slot::ARP_SHA), 0);
    let arp =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let key = key_of(&ethernet(&[], ARP, &arp));
    assert_eq!((key.get_u8(slot::IP_PROTO), key.get_u32(slot::IPV4_DST)), (1, 0x0A00_0002));
    assert_eq!(key.get_u64(slot::ARP_SHA), 0x0200_0000_0002);
}

#[test]
fn lengths_are_no_types() {
    let llc = |header: &[u8]| {
        let mut payload = header.to_vec();
        payload.resize(46, 0);
        key_of(&ethernet(&[], 46, &payload)).get_u16(slot::ETH_TYPE)
    };
    assert_eq!(llc(&[0x42, 0x42, 3]), NO_ETHER_TYPE);
    assert_eq!(llc(&[0xAA, 0xAA, 3, 0, 0, 0, 0x08, 0x06]), ARP);
    assert_eq!(llc(&[0xAA, 0xAA, 3, 0, 0, 1, 0x08, 0x06]), NO_ETHER_TYPE);
}

/// Frames of which some are good and others nearly.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop_oneof![Just(vec![]), Just(vec![(VLAN, 5)]), Just(vec![(QINQ, 5), (VLAN, 6)])];
    let payload = || prop::collection::vec(any::<u8>(), 0..80);
    let proto = prop_oneof![Just(6), Just(17), Just(1), Just(58), Just(44), Just(0), any::<u8>()];
    let fragment = prop_oneof![3 => Just(0), 1 => any::<u16>()];
    let packet = (any::<bool>(), proto, fragment, payload()).prop_map(
        |(is_v6, proto, fragment, payload)| match is_v6 {
            true => (IPV6, ipv6(proto, &payload)),
            false => (IPV4, ipv4(proto, fragment, 0, &payload)),
        },
    );
    let other = (prop_oneof![Just(ARP), Just(MPLS), any::<u16>()], payload());
    let damage = prop::collection::vec((0..120_usize, any::<u8>()), 0..3);
    (tags, prop_oneof![4 => packet, 1 => other], damage, 0..20_usize).prop_map(
        |(tags, (kind, payload), damage, cut)| {
            let mut frame = ethernet(&tags, kind, &payload);
            for (at, byte) in damage {
                frame.get_mut(at).into_iter().for_each(|place| *place = byte);
            }
            frame.truncate(frame.len() - cut.min(frame.len()) * usize::from(cut > 10));
            frame
        },
    )
}

proptest! {
    #[test]
    fn a_head_says_the_same_as_the_frame_or_that_it_is_cut(frame in frames(), head in 0..200_usize) {
        let (mut whole, mut part) = (Key::default(), Key::default());
        let of_whole = extract(&mut whole, &frame, frame.len(), 2, Depth::All);
        let head = frame.get(..head).unwrap_or(&frame);
        let of_part = extract(&mut part, head, frame.len(), 2, Depth::All);
        prop_assert!(!of_whole.is_cut);
        prop_assert!(of_part.is_cut || (whole, of_whole) == (part, of_part));
        prop_assert!(!of_part.is_cut || head.len() < frame.len());
    }

    #[test]
    fn it_says_what_views_of_headers_say(frame in frames()) {
        let key = key_of(&frame);
        let Some(view) = Ethernet::parse(&frame) else { return Ok(()) };
        prop_assert_eq!(
            key.get_u64(slot::ETH_SRC).to_be_bytes()[2..].to_vec(),
            view.source().0.to_vec()
        );
        let Some((kind, payload)) = view.inner().filter(|(kind, _)| kind.0 >= 0x600) else {
            return Ok(());
        };
        prop_assert_eq!(key.get_u16(slot::ETH_TYPE), kind.0);
        let has_addresses = key.get(slot::IPV6_DST) != 0 || key.get_u32(slot::IPV4_DST) != 0;
        match kind.0 {
            IPV4 if has_addresses => {
                // As OVS, the key does not ask for the version.
                if let Some(ip) = Ipv4::parse(payload) {
                    prop_assert_eq!(key.get_u32(slot::IPV4_SRC), u32::from(ip.source()));
                    prop_assert_eq!(key.get_u8(slot::IP_PROTO), ip.protocol().0);
                }
            }
            IPV6 if has_addresses => {
                let header: &[u8; 40] = payload.first_chunk().unwrap();
                prop_assert_eq!(&key.get(slot::IPV6_SRC).to_be_bytes(), &header[8..24]);
                if let Some(upper) = Ipv6::parse(payload).and_then(|ip| ip.upper())
                    // Mobility (135) is a protocol for OVS, and later fragments are of that.
                    && !matches!(key.get_u8(slot::IP_PROTO), 0 | 44 | 135)
                {
                    prop_assert_eq!(key.get_u8(slot::IP_PROTO), upper.protocol.0);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn network_service_headers() {
    let header = Nsh { flags: 2, ttl: 63, md_type: MD1, next: 3, path: 0x1234_56FE };
    let context: Vec<u8> = (1..=16).collect();
    let bytes = header.to_bytes(&context).unwrap();
    let key = key_of(&ethernet(&[(VLAN, 7)], NSH, &bytes));
    let fields = [
        (slot::NSH_FLAGS, 2),
        (slot::NSH_TTL, 63),
        (slot::NSH_MDTYPE, 1),
        (slot::NSH_NP, 3),
        (slot::NSH_SPI, 0x12_3456),
        (slot::NSH_SI, 0xFE),
        (slot::NSH_C1, 0x0102_0304),
        (slot::NSH_C2, 0x0506_0708),
        (slot::NSH_C3, 0x090A_0B0C),
        (slot::NSH_C4, 0x0D0E_0F10),
    ];
    assert!(fields.into_iter().all(|(slot, value)| key.get(slot) == value), "{key:?}");
    // Values of other metadata are not looked at.
    let header = Nsh { md_type: 2, ..header };
    let key = key_of(&ethernet(&[], NSH, &header.to_bytes(&context).unwrap()));
    assert_eq!((key.get(slot::NSH_MDTYPE), key.get(slot::NSH_C1_C2)), (2, 0));
    // One that is cut short is none, as one is that contradicts itself.
    let cut = ethernet(&[], NSH, &bytes[..23]);
    let none = [slot::NSH_FIRST, slot::NSH_C1_C2, slot::NSH_C3_C4];
    let key = key_of(&cut);
    assert!(none.into_iter().all(|slot| key.get(slot) == 0), "{key:?}");
    assert_eq!(key.get_u16(slot::ETH_TYPE), NSH);
    let mut key = Key::default();
    let layers = extract(&mut key, &cut, cut.len() + 1, 2, Depth::All);
    assert!(layers.is_cut && none.into_iter().all(|slot| key.get(slot) == 0));
}
