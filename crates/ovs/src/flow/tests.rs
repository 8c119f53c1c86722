//! What Open vSwitch's own dummy ports made of the same words, recorded with version 3.1.

use super::*;

fn composed(text: &str) -> String {
    let frame = compose(&parse_datapath(text).unwrap(), None);
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
    assert!(parse_datapath("tcp_flags(ack|nothing)").is_err());
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
    let flow = parse_datapath(&text).unwrap();
    assert_eq!(flow.in_port.as_deref(), Some("1"));
    assert_eq!(compose(&flow, Some(300)).len(), 300);
    assert_eq!(compose(&flow, Some(3)).len(), 42);
    let later = parse_datapath(&text.replace("ttl=64", "ttl=64,frag=later")).unwrap();
    assert_eq!(compose(&later, None).len(), 34);
}

#[test]
fn words_of_openflow_are_understood() {
    let flow = parse_openflow("in_port=LOCAL,dl_src=10:20:30:40:50:60,dl_vlan=5,dl_vlan_pcp=3");
    let flow = flow.unwrap();
    assert_eq!(
        (flow.in_port.as_deref(), flow.tags.as_slice()),
        (Some("LOCAL"), &[(0x8100, 0x6005)][..])
    );
    let udp = parse_openflow("udp,in_port=1,nw_src=10.0.0.2,nw_dst=10.0.0.1,nw_ttl=64,tp_dst=9");
    let udp = udp.unwrap();
    assert_eq!((udp.ethertype, udp.upper.dst), (Some(0x0800), 9));
    assert!(matches!(udp.body, Body::V4 { proto: 17, ttl: 64, src: [10, 0, 0, 2], .. }));
    assert!(parse_openflow("in_prot=1").unwrap_err().contains("unknown field in_prot"));
    assert!(parse_openflow("dl_src=x").is_err());
}

#[test]
fn what_is_not_understood_is_an_error() {
    for wrong in
        ["x", "eth(", "eth(src=x)", "what(1)", "eth_type(0x12345)", "encap()x", "vlan(pcp=9)"]
    {
        assert!(parse_datapath(wrong).unwrap_err().starts_with("syntax error"), "{wrong}");
    }
    let deep = "encap(".repeat(20) + &")".repeat(20);
    assert!(parse_datapath(&deep).is_err());
    assert_eq!(parse_hex("00fF"), Some(vec![0, 255]));
    assert!(["", "0", "0g", "é"].map(parse_hex).iter().all(Option::is_none));
}
