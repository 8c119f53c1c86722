//! What Open vSwitch's own dummy ports made of the same words, recorded with version 3.1.

use super::*;
use crate::compose::compose;

fn composed(text: &str) -> String {
    let frame = compose(&parse(text).unwrap().key, None);
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

const ETH: &str = "in_port(1),eth(src=50:54:00:00:00:05,dst=ff:ff:ff:ff:ff:ff)";
const HEAD: &str = "ffffffffffff505400000005";

#[test]
fn frames_are_as_open_vswitch_makes_them() {
    let payload: String = (0..64).map(|byte| format!("{byte:02x}")).collect();
    let v4 = |upper: &str| format!("{ETH},eth_type(0x0800),ipv4(src=10.0.0.2,dst=10.0.0.1,{upper}");
    let tcp = v4("proto=6,tos=0,ttl=64,frag=no),tcp(src=8,dst=9),tcp_flags(0x010)");
    let of_tcp = "45000068000000004006668e0a0000020a00000100080009000000000000000050100000b77d0000";
    assert_eq!(composed(&tcp), format!("{HEAD}0800{of_tcp}{payload}"));
    assert_eq!(composed(&tcp.replace("0x010", "ack")), composed(&tcp));
    assert_eq!(
        composed(&tcp.replace("0x010", "ack|syn")),
        composed(&tcp.replace("0x010", "0x012"))
    );
    assert!(parse("tcp_flags(ack|nothing)").is_err());
    let udp = v4("proto=17,tos=0,ttl=64,frag=no),udp(src=8,dst=9)");
    let of_udp = "4500005c000000004011668f0a0000020a0000010008000900480747";
    assert_eq!(composed(&udp), format!("{HEAD}0800{of_udp}{payload}"));
    let icmp = v4("proto=1,tos=0,ttl=64,frag=no),icmp(type=8,code=0)");
    let of_icmp = "4500005c000000004001669f0a0000020a000001080013fc00000000";
    assert_eq!(composed(&icmp), format!("{HEAD}0800{of_icmp}{payload}"));
    let icmpv6 = format!(
        "{ETH},eth_type(0x86dd),ipv6(src=fe80::1,dst=fe80::2,label=0,proto=58,tclass=0x70,\
         hlimit=128,frag=no),icmpv6(type=128,code=0)"
    );
    let of_icmpv6 = "6700000000483a80fe800000000000000000000000000001\
                     fe80000000000000000000000000000280009e7400000000";
    assert_eq!(composed(&icmpv6), format!("{HEAD}86dd{of_icmpv6}{payload}"));
    let arp = format!(
        "{ETH},eth_type(0x8100),vlan(vid=5,pcp=3),encap(eth_type(0x0806),arp(sip=192.168.0.1,\
         tip=192.168.0.2,op=1,sha=50:54:00:00:00:05,tha=00:00:00:00:00:00))"
    );
    let of_arp = "0001080006040001505400000005c0a80001000000000000c0a80002";
    assert_eq!(composed(&arp), format!("{HEAD}810060050806{of_arp}"));
    assert_eq!(composed("eth(src=50:54:00:00:00:05,dst=ff:ff:ff:ff:ff:ff)"), format!("{HEAD}000e"));
}

#[test]
fn a_length_is_had_where_a_payload_can_have_it() {
    let text = format!("{ETH},eth_type(0x0800),ipv4(proto=17,ttl=64),udp(src=1,dst=2)");
    let Parsed { in_port, key, .. } = parse(&text).unwrap();
    assert_eq!(in_port.as_deref(), Some("1"));
    assert_eq!(compose(&key, Some(300)).len(), 300);
    assert_eq!(compose(&key, Some(3)).len(), 42);
    let later = parse(&text.replace("ttl=64", "ttl=64,frag=later")).unwrap();
    assert_eq!((compose(&later.key, None).len(), compose(&later.key, Some(60)).len()), (34, 60));
    // What begins a connection carries nothing, unless a length is asked for.
    let syn = parse(&format!("{ETH},eth_type(0x0800),ipv4(proto=6),tcp(dst=9),tcp_flags(syn)"));
    let syn = syn.unwrap().key;
    assert_eq!((compose(&syn, None).len(), compose(&syn, Some(118)).len()), (54, 118));
}

#[test]
fn frames_have_the_keys_that_they_are_made_of() {
    let nd = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x8100),\
              vlan(vid=5,pcp=1),encap(eth_type(0x86dd),ipv6(src=fe80::1,dst=fe80::2,label=0x7,proto=58,\
              tclass=0x70,hlimit=128,frag=no),icmpv6(type=135,code=0),nd(target=fe80::2020,\
              sll=66:55:44:33:22:11),nd_ext(nd_reserved=0,nd_options_type=1))";
    let later = "eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x86dd),ipv6(src=fe80::1,\
                 dst=fe80::2,proto=44,hlimit=1,frag=later)";
    let tcp = "eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),ipv4(src=1.1.1.1,\
               dst=2.2.2.2,proto=6,tos=0xfe,ttl=128,frag=first),tcp(src=8,dst=9),tcp_flags(syn|ack)";
    for text in [nd, later, tcp] {
        let key = parse(text).unwrap().key;
        let frame = compose(&key, None);
        let mut read = Key::default();
        flow::extract(&mut read, &frame, frame.len(), 1, flow::Depth::All);
        assert_eq!(read, key, "{text}");
    }
}

#[test]
fn what_travels_beside_a_packet_is_understood() {
    let text = "recirc_id(0x5),ct_state(+trk+est-new),ct_zone(0xff),skb_mark(2/0x3),in_port(p1),\
                packet_type(ns=0,id=0),tunnel(tun_id=0x7,src=1.1.1.1,dst=2.2.2.2,ttl=64,flags(df|key))";
    let Parsed { in_port, key, tunnel } = parse(text).unwrap();
    assert_eq!(in_port.as_deref(), Some("p1"));
    let of = |slot| key.get(slot);
    assert_eq!((of(slot::RECIRC_ID), of(slot::CT_STATE), of(slot::CT_ZONE)), (5, 0x22, 0xFF));
    let tunnel = tunnel.unwrap();
    assert_eq!((of(slot::PKT_MARK), tunnel.key, tunnel.ttl), (2, Some(7), 64));
}

#[test]
fn parts_of_addresses_can_have_one_digit() {
    let of =
        |text: &str| parse(&format!("eth(src={text})")).map(|parsed| parsed.key.get(slot::ETH_SRC));
    assert_eq!(of("50:54:00:00:00:1"), of("50:54:00:00:00:01"));
    for wrong in ["50:54:00:00:00:", "50:54:00:00:1", "50:54:00:00:00:001", "0:0:0:0:0:0:0"] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    for wrong in
        ["x", "eth(", "eth(src=x)", "what(1)", "eth_type(0x12345)", "encap()x", "vlan(pcp=9)"]
    {
        assert!(parse(wrong).unwrap_err().starts_with("syntax error"), "{wrong}");
    }
    let deep = "encap(".repeat(20) + &")".repeat(20);
    assert!(parse(&deep).is_err());
    assert_eq!(parse_hex("00fF"), Some(vec![0, 255]));
    assert!(["", "0", "0g", "é"].map(parse_hex).iter().all(Option::is_none));
}

#[test]
fn a_header_of_the_network_says_what_it_is_where_nothing_else_does() {
    let of = |text: &str| parse(text).unwrap().key.get_u16(slot::ETH_TYPE);
    assert_eq!(
        (of("ipv4(ttl=1)"), of("ipv6(hlimit=1)"), of("arp(op=1)")),
        (0x0800, 0x86DD, 0x0806)
    );
    assert_eq!((of("eth_type(0x8100),ipv4(ttl=1)"), of("eth(src=0:0:0:0:0:1)")), (0x8100, 0));
}
