//! Frames with the headers that the command line asks for, against the parser of `packet`, which knows
//! nothing of templates.

use std::net::IpAddr;

use packet::MacAddr;
use packet::checksum::Checksum;
use packet::headers::{EtherType, Ethernet, Ipv4, Ipv6, Tcp, Udp};
use proptest::prelude::*;

use crate::cli::HeaderArgs;
use generator::find::by_headers;
use generator::headers::*;
use generator::order::{Order, Shuffle};
use generator::range::{Countable, Range};
use generator::stamp::{MAX_FLOWS, STAMP_LEN, Seen};
use generator::template::Builder;

const FLOWS: u32 = 5000;

/// Header options as they are typed.
fn headers(options: &str) -> Headers {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        headers: HeaderArgs,
    }
    let words = ["gen"].into_iter().chain(options.split_whitespace());
    <Line as clap::Parser>::try_parse_from(words).unwrap().headers.headers().unwrap()
}

fn frame(headers: &Headers, size: usize, flow: u32, sequence: u32) -> Vec<u8> {
    let builder = Builder::new(headers.template(FLOWS), 9, true);
    let mut bytes = vec![0; size];
    builder.begin(&mut bytes);
    // A frame of another flow before: nothing of it may stay.
    builder.write(&mut bytes, flow ^ 1, sequence.wrapping_add(1), 1);
    builder.write(&mut bytes, flow, sequence, 77);
    bytes
}

/// The value that flow `flow` has of a range.
fn nth<T: Countable>(range: &Range<T>, flow: u32) -> u64 {
    range.first.number() + u64::from(flow % range.count) * range.step
}

fn mac(bytes: MacAddr) -> u64 {
    bytes.number()
}

/// Looks at all headers of a frame, and returns what UDP or TCP carries.
fn parse<'a>(bytes: &'a [u8], headers: &Headers, flow: u32) -> &'a [u8] {
    let (mut rest, mut tags) = (bytes, &headers.tags[..]);
    if let Some((outer, vni)) = &headers.tunnel {
        let udp = network(rest, tags, outer, flow).unwrap().0;
        let udp = Udp::parse(udp).unwrap();
        assert_eq!((udp.destination_port(), udp.checksum()), (4789, 0));
        assert_eq!(u32::from(udp.source_port()), 0xE000 + flow % 0x2000);
        let number = u64::from(u32::from_be_bytes(udp.payload()[4..8].try_into().unwrap()) >> 8);
        assert_eq!((udp.payload()[0], number), (8, nth(vni, flow)));
        (rest, tags) = (&udp.payload()[8..], &[]);
    }
    let (segment, mut sum) = network(rest, tags, &headers.network, flow).unwrap();
    sum.add(segment);
    assert!(sum.is_valid(), "{bytes:x?}");
    let (ports, payload) = match headers.transport {
        Transport::Udp => {
            let udp = Udp::parse(segment).unwrap();
            assert_eq!(usize::from(udp.len()), segment.len());
            assert_ne!(udp.checksum(), 0);
            ((udp.source_port(), udp.destination_port()), udp.payload())
        }
        Transport::Tcp(flags) => {
            let tcp = Tcp::parse(segment).unwrap();
            assert_eq!(tcp.flags(), flags);
            ((tcp.source_port(), tcp.destination_port()), tcp.payload())
        }
    };
    let expected = (nth(&headers.src_port, flow), nth(&headers.dst_port, flow));
    assert_eq!((u64::from(ports.0), u64::from(ports.1)), expected);
    payload
}

/// Ethernet and IP: what they carry, and the sum of the pseudo header.
fn network<'a>(
    bytes: &'a [u8],
    tags: &[Tag],
    network: &Network,
    flow: u32,
) -> Option<(&'a [u8], Checksum)> {
    let ethernet = Ethernet::parse(bytes)?;
    assert_eq!(mac(ethernet.source()), nth(&network.src_mac, flow));
    assert_eq!(mac(ethernet.destination()), nth(&network.dst_mac, flow));
    let mut place = 12;
    for tag in tags {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(word(place), tag.ether_type.0);
        let control = word(place + 2);
        assert_eq!(u64::from(control & 0xFFF), nth(&tag.vlan, flow));
        assert_eq!(control >> 13, u16::from(tag.priority));
        place += 4;
    }
    let (ether_type, packet) = ethernet.inner()?;
    let (addresses, class, ttl, segment, sum) = if ether_type == EtherType::IPV4 {
        let ip = Ipv4::parse(packet)?;
        assert!(ip.checksum_is_valid() && ip.is_complete() && !ip.is_fragment());
        assert_eq!(usize::from(ip.total_len()), packet.len());
        let addresses = (IpAddr::from(ip.source()), IpAddr::from(ip.destination()));
        (addresses, ip.traffic_class(), ip.ttl(), ip.payload(), ip.pseudo_header())
    } else {
        let ip = Ipv6::parse(packet)?;
        assert_eq!(usize::from(ip.payload_len()), packet.len() - 40);
        let addresses = (IpAddr::from(ip.source()), IpAddr::from(ip.destination()));
        let len = u32::from(ip.payload_len());
        let sum = ip.pseudo_header(ip.next_header(), len);
        (addresses, ip.traffic_class(), ip.hop_limit(), ip.payload(), sum)
    };
    assert_eq!((class, ttl), (network.class, network.ttl));
    for (address, range) in [(addresses.0, &network.src_ip), (addresses.1, &network.dst_ip)] {
        assert_eq!(address.number(), nth(range, flow));
        if let (IpAddr::V6(one), IpAddr::V6(other)) = (address, range.first) {
            assert_eq!(one.octets()[..8], other.octets()[..8]);
        }
    }
    Some((segment, sum))
}

#[test]
fn frames_without_options_are_what_they_always_were() {
    let bytes = frame(&headers(""), 60, 3, 1);
    assert_eq!(parse(&bytes, &headers(""), 3).len(), STAMP_LEN);
    assert_eq!(bytes[26..30], [198, 18, 0, 3]);
    assert_eq!(bytes[34..38], [0xC0, 3, 0, 9]);
}

#[test]
fn frames_too_short_for_a_stamp_are_sound_too() {
    let headers = headers("--protocol tcp --tcp-flags syn,ack --src-port 1-100");
    for size in 60..80 {
        let bytes = frame(&headers, size, 7, 1);
        assert_eq!(parse(&bytes, &headers, 7).len(), size - 54);
    }
}

#[test]
fn flows_are_as_many_as_there_are_combinations() {
    assert_eq!((headers("").asked, headers("").most_flows()), (1, 65_536));
    assert_eq!(headers("--src-mac 02:00:00:00:00:00+100000").asked, 100_000);
    assert_eq!(headers("--src-port 1-10 --dst-port 1-15").asked, 30);
    let all = headers("--src-ip 10.0.0.0+1000000 --src-port 1-999 --vlan 1-7").asked;
    assert!(all > u64::from(MAX_FLOWS));
}

#[test]
fn every_value_of_a_range_is_sent_once_in_a_round() {
    let headers = headers("--src-mac 02:00:00:00:ff:00+1000 --dst-ip 10.0.0.1+250@4");
    for order in [Order::Sequence, Order::Shuffled(Shuffle::new(1000, 5))] {
        let (mut macs, mut ips) = (Vec::new(), Vec::new());
        for place in 0..1000 {
            let bytes = frame(&headers, 60, order.flow(place), 0);
            macs.push(Ethernet::parse(&bytes).unwrap().source().number());
            ips.push(u32::from_be_bytes(bytes[30..34].try_into().unwrap()));
        }
        macs.sort_unstable();
        assert!(macs.into_iter().eq(0x0200_0000_FF00..0x0200_0000_FF00 + 1000));
        ips.sort_unstable();
        let expected = (0..250).flat_map(|index| [0x0A00_0001 + 4 * index; 4]);
        assert!(ips.into_iter().eq(expected));
    }
}

/// Options for a frame, some of them or all.
fn options() -> impl Strategy<Value = String> {
    let some = |options: &'static [&'static str]| {
        prop::sample::select([&[""], options].concat()).prop_map(str::to_owned)
    };
    let parts = [
        some(&["--src-mac 02:00:00:00:ff:fe+3", "--src-mac 02:ff:ff:ff:ff:00+256"]),
        some(&["--dst-mac 01:00:5e:00:00:01", "--dst-mac 02:00:00:00:00:00+9@65536"]),
        some(&["--vlan 4094", "--vlan 0 --priority 7", "--vlan 1+4000 --svlan 9-1000@7"]),
        some(&["--ipv6", "--src-ip 10.0.255.0+4096", "--dst-ip 2001:2::ffff:ffff+300@65535"]),
        some(&["--dscp 46 --ttl 1", "--dscp 63 --ttl 255"]),
        some(&["--protocol tcp", "--protocol tcp --tcp-flags fin,psh,ack,cwr"]),
        some(&["--src-port 0-65535", "--dst-port 80", "--dst-port 65000+500 --src-port 4789"]),
        some(&[
            "--vxlan 5",
            "--vxlan 16777000+200 --outer-src-mac 02:00:00:00:00:00+7",
            "--vxlan 1+5 --outer-dst-ip 2001:2::1 --outer-src-ip 2001:2::2+9",
        ]),
    ];
    parts.to_vec().prop_map(|parts| parts.join(" "))
}

proptest! {
    #[test]
    fn any_frame_is_sound_and_its_stamp_is_found(
        options in options(), more in 0..1500_usize, flow in 0..FLOWS, sequence: u32,
    ) {
        let headers = headers(&options);
        let least = headers.template(FLOWS).head.len() + STAMP_LEN;
        let bytes = frame(&headers, least + more, flow, sequence);
        let payload = parse(&bytes, &headers, flow);
        prop_assert_eq!(payload.len(), STAMP_LEN + more);

        let head = &bytes[..bytes.len().min(generator::find::ENOUGH)];
        let found = by_headers(head, bytes.len());
        let Seen::Stamped(stamp) = found.seen else { panic!("{options}: {found:?}") };
        prop_assert_eq!((stamp.run, stamp.flow, stamp.sequence), (9, flow, sequence));
        prop_assert!(stamp.pattern_matches(&bytes[found.at + STAMP_LEN..]));
    }
}
