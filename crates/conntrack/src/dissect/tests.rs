use packet::MacAddr;
use packet::builder::FrameBuilder;
use packet::headers::tcp::TcpFlags;
use proptest::prelude::*;

use super::*;

const ONE: [u8; 4] = [10, 0, 0, 1];
const OTHER: [u8; 4] = [10, 0, 0, 2];

/// A packet, without the header of Ethernet.
fn packet(build: impl FnOnce(FrameBuilder) -> FrameBuilder) -> Vec<u8> {
    let frame = build(FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6]))).build().unwrap();
    frame[14..].to_vec()
}

fn seen(packet: &[u8]) -> Option<Seen> {
    dissect(if packet[0] >> 4 == 4 { IPV4 } else { IPV6 }, packet, packet.len(), 3)
}

fn tuple(protocol: u8, from: (&str, u16), to: (&str, u16)) -> Tuple {
    let [source, destination] = [from.0, to.0].map(|text| text.parse().unwrap());
    Tuple::new(IpProtocol(protocol), (source, from.1), (destination, to.1), 3).unwrap()
}

#[test]
fn ends_are_told() {
    let udp = packet(|frame| frame.ip(ONE, OTHER).udp(4000, 53).payload(b"?"));
    let expected = tuple(17, ("10.0.0.1", 4000), ("10.0.0.2", 53));
    assert_eq!(seen(&udp).unwrap().tuple, expected);
    let tcp =
        packet(|frame| frame.ip(ONE, OTHER).tcp((4000, 80), 7, 0, TcpFlags::ACK).payload(&[1; 33]));
    let found = seen(&tcp).unwrap();
    assert_eq!(found.tuple, tuple(6, ("10.0.0.1", 4000), ("10.0.0.2", 80)));
    let segment = found.segment.unwrap();
    assert_eq!((segment.sequence, segment.len), (7, 33));
}

#[test]
fn broken_packets_are_of_no_connection() {
    let udp = packet(|frame| frame.ip(ONE, OTHER).udp(4000, 53).payload(b"?"));
    for len in 0..28 {
        assert!(seen(&udp[..len.max(1)]).is_none(), "{len}");
    }
    let changed = |at: usize, value: u8| {
        let mut packet = udp.clone();
        packet[at] = value;
        seen(&packet)
    };
    // Longer than there is; a fragment, first or later; port 0; a datagram longer or shorter than it says.
    assert!(changed(3, 200).is_none());
    assert!(changed(6, 0x20).is_none() && changed(7, 1).is_none());
    let mut port = udp.clone();
    port[20..22].fill(0);
    assert!(seen(&port).is_none());
    assert!(changed(25, 100).is_none() && changed(25, 7).is_none());
    assert!(dissect(0x0806, &udp, udp.len(), 3).is_none());
    // Padding is none of it.
    let padded = [udp.clone(), vec![0; 20]].concat();
    assert_eq!(seen(&padded), seen(&udp));
    // Of some protocols nothing is known but addresses.
    let other = changed(9, 47).unwrap();
    assert_eq!(other.tuple, tuple(47, ("10.0.0.1", 0), ("10.0.0.2", 0)));
}

/// A message of ICMP.
fn icmp(from: [u8; 4], to: [u8; 4], kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = packet(|frame| frame.ip(from, to).udp(1, 1).payload(rest));
    packet[9] = 1;
    packet[20..28].copy_from_slice(&[kind, code, 0, 0, 0, 99, 0, 0]);
    packet
}

#[test]
fn queries_are_known_by_their_identifier() {
    let ask = seen(&icmp(ONE, OTHER, 8, 0, b"ping")).unwrap();
    let answer = seen(&icmp(OTHER, ONE, 0, 0, b"ping")).unwrap();
    assert_eq!(ask.tuple, answer.tuple.reversed());
    assert!(ask.can_begin() && !answer.can_begin());
    for (kind, code) in [(8, 1), (9, 0), (10, 0), (17, 0), (255, 0)] {
        assert!(seen(&icmp(ONE, OTHER, kind, code, b"ping")).is_none(), "{kind}");
    }
}

#[test]
fn errors_are_of_the_connection_that_they_are_about() {
    let udp = packet(|frame| frame.ip(ONE, OTHER).udp(4000, 53).payload(b"?"));
    let router = [192, 0, 2, 1];
    let error = seen(&icmp(router, ONE, 3, 1, &udp)).unwrap();
    assert_eq!(error.tuple, tuple(17, ("10.0.0.2", 53), ("10.0.0.1", 4000)));
    assert!(error.is_related && !error.can_begin());
    // Eight bytes behind the header are enough, and needed.
    assert_eq!(seen(&icmp(router, ONE, 11, 0, &udp[..28])), Some(error));
    assert!(seen(&icmp(router, ONE, 11, 0, &udp[..27])).is_none());
    // It is told to somebody who has not sent that; about an error.
    assert!(seen(&icmp(router, OTHER, 3, 1, &udp)).is_none());
    let about = icmp(ONE, OTHER, 3, 1, &udp);
    assert!(seen(&icmp(router, ONE, 3, 1, &about)).is_none());
    let about = icmp(ONE, OTHER, 8, 0, b"ping");
    let error = seen(&icmp(OTHER, ONE, 3, 1, &about)).unwrap();
    assert_eq!(error.tuple, seen(&about).unwrap().tuple.reversed());
}

#[test]
fn ipv6_has_the_same() {
    let [one, other]: [std::net::Ipv6Addr; 2] =
        ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
    let udp = packet(|frame| frame.ip(one, other).udp(4000, 53).payload(b"?"));
    let expected = tuple(17, ("fd00::1", 4000), ("fd00::2", 53));
    assert_eq!(seen(&udp).unwrap().tuple, expected);
    let mut error = packet(|frame| frame.ip(other, one).udp(1, 1).payload(&udp));
    error[6] = 58;
    error[40..48].copy_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    let found = seen(&error).unwrap();
    assert_eq!((found.tuple, found.is_related), (expected.reversed(), true));
    // Neighbour discovery is of no connection.
    error[40] = 135;
    assert!(seen(&error).is_none());
    let mut fragment = udp.clone();
    fragment[6] = 44;
    assert!(seen(&fragment).is_none());
}

#[test]
fn a_window_scale_is_found_among_options() {
    assert_eq!(window_scale(&[2, 4, 5, 180, 1, 3, 3, 7]), Some(7));
    assert_eq!(window_scale(&[1, 1, 1, 0, 3, 3, 7]), None);
    for options in [&[3, 3][..], &[3, 4, 7, 7], &[8, 200, 3, 3, 7], &[5, 0], &[2]] {
        assert_eq!(window_scale(options), None, "{options:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_v6 in any::<bool>(),
        protocol in prop::sample::select(vec![1_u8, 6, 17, 58, 0, 44]),
        len in 0..300_usize,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if is_v6 { 0x60 } else { 0x45 };
        }
        if let Some(place) = bytes.get_mut(if is_v6 { 6 } else { 9 }) {
            *place = protocol;
        }
        let kind = if is_v6 { IPV6 } else { IPV4 };
        if let Some(seen) = dissect(kind, &bytes, len, 1) {
            prop_assert_eq!(seen.tuple.reversed().reversed(), seen.tuple);
            prop_assert_eq!(seen.segment.is_some(), seen.tuple.protocol() == IpProtocol::TCP && !seen.is_related);
        }
    }
}

#[test]
fn control_bits_are_read() {
    let tcp = packet(|frame| frame.ip(ONE, OTHER).tcp((1, 2), 7, 0, TcpFlags::SYN));
    let mut syn = tcp;
    assert!(seen(&syn).unwrap().can_begin());
    syn[33] = 0;
    assert!(!seen(&syn).unwrap().can_begin());
}
