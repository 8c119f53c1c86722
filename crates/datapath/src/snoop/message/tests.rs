use proptest::prelude::*;

use super::*;

pub(crate) const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ROUTER: [u8; 4] = [192, 0, 2, 254];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A frame with a message of IGMP, whose checksum is made.
pub(crate) fn igmp_frame(source: [u8; 4], to: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = checksum(&message).to_be_bytes();
    message.splice(2..4, sum);
    let len = u16::try_from(24 + message.len()).unwrap().to_be_bytes();
    let mut header = vec![0x46, 0, len[0], len[1], 0, 0, 0, 0, 1, 2, 0, 0];
    header.extend(source.iter().chain(&to));
    header.extend([0x94, 4, 0, 0]);
    let [_, b, c, d] = to;
    frame([1, 0, 0x5E, b & 0x7F, c, d], HOST, EtherType::IPV4, &[header, message])
}

/// A frame with a message of MLD.
pub(crate) fn mld_frame(source: &str, to: &str, message: &[u8]) -> Vec<u8> {
    let (source, to): (Ipv6Addr, Ipv6Addr) = (source.parse().unwrap(), to.parse().unwrap());
    let mut message = message.to_vec();
    let len = u32::try_from(message.len()).unwrap();
    let mut sum = Checksum::pseudo_v6(source.octets(), to.octets(), 58, len);
    sum.add(&message);
    message.splice(2..4, sum.finish().to_be_bytes());
    let len = u16::try_from(len + 8).unwrap().to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, len[0], len[1], 0, 1];
    header.extend(source.octets());
    header.extend(to.octets());
    let options = vec![58, 0, 5, 2, 0, 0, 1, 0];
    let [.., c, d, e, f] = to.octets();
    frame([0x33, 0x33, c, d, e, f], HOST, EtherType::IPV6, &[header, options, message])
}

/// A report of IGMPv2, or that its host leaves.
pub(crate) fn report(group: [u8; 4], belongs: bool) -> Vec<u8> {
    let [a, b, c, d] = group;
    let kind = if belongs { IGMP_REPORT_V2 } else { IGMP_LEAVE };
    let to = if belongs { group } else { [224, 0, 0, 2] };
    igmp_frame([192, 0, 2, 1], to, &[kind, 0, 0, 0, a, b, c, d])
}

/// A query of IGMP, from a router.
pub(crate) fn query_frame(source: [u8; 4], group: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = group;
    let to = if group == [0; 4] { [224, 0, 0, 1] } else { group };
    igmp_frame(source, to, &[IGMP_QUERY, 100, 0, 0, a, b, c, d, 2, 125, 0, 0])
}

fn records(frame: &[u8]) -> Vec<(IpAddr, bool)> {
    match parse(frame, true) {
        Some(Message::Report(records)) => records.collect(),
        other => panic!("{other:?}"),
    }
}

/// The groups that a frame says something of, if it can be read.
fn probe(frame: &[u8], is_whole: bool) -> Vec<(IpAddr, bool)> {
    match parse(frame, is_whole) {
        Some(Message::Report(records)) => records.collect(),
        _ => Vec::new(),
    }
}

#[test]
fn reports_of_every_version_are_read() {
    let group = ip("239.1.2.3");
    assert_eq!(records(&report([239, 1, 2, 3], true)), [(group, true)]);
    assert_eq!(records(&report([239, 1, 2, 3], false)), [(group, false)]);
    let v1 = igmp_frame([192, 0, 2, 1], [239, 1, 2, 3], &[0x12, 0, 0, 0, 239, 1, 2, 3]);
    assert_eq!(records(&v1), [(group, true)]);
    let mut v3 = vec![0x22, 0, 0, 0, 0, 0, 0, 6];
    v3.extend([4, 0, 0, 0, 239, 1, 2, 3]);
    // With a source and four bytes more.
    v3.extend([1, 1, 0, 1, 239, 1, 2, 4, 192, 0, 2, 9, 1, 2, 3, 4]);
    v3.extend([3, 0, 0, 0, 239, 1, 2, 5]);
    v3.extend([6, 0, 0, 1, 239, 1, 2, 6, 192, 0, 2, 9]);
    v3.extend([4, 0, 0, 0, 224, 0, 0, 251]);
    v3.extend([2, 0, 0, 0, 239, 1, 2, 7]);
    let heard = records(&igmp_frame([192, 0, 2, 1], [224, 0, 0, 22], &v3));
    let expected =
        [("239.1.2.3", true), ("239.1.2.4", true), ("239.1.2.5", false), ("239.1.2.7", true)];
    assert_eq!(heard, expected.map(|(group, belongs)| (ip(group), belongs)));
}

#[test]
fn reports_of_mld_are_read() {
    let group: Ipv6Addr = "ff15::7".parse().unwrap();
    for (kind, belongs) in [(131, true), (132, false)] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], &group.octets()[..]].concat();
        let frame = mld_frame("fe80::1", "ff02::2", &message);
        assert_eq!(records(&frame), [(group.into(), belongs)]);
        // One that has no address yet; one from elsewhere, with more hops, with a wrong checksum.
        assert_eq!(records(&mld_frame("::", "ff02::2", &message)), [(group.into(), belongs)]);
        assert_eq!(parse(&mld_frame("2001:db8::1", "ff02::2", &message), true), None);
        let mut far = frame.clone();
        far[14 + 7] = 2;
        assert_eq!(parse(&far, true), None);
        let mut broken = frame;
        broken[14 + 40 + 8 + 4] ^= 1;
        assert_eq!(parse(&broken, true), None);
        assert!(parse(&broken, false).is_some(), "nobody has made its checksum yet");
    }
    let record = |kind, group: &str| {
        let group: Ipv6Addr = group.parse().unwrap();
        [&[kind, 0, 0, 0], &group.octets()[..]].concat()
    };
    let message = [
        &[143, 0, 0, 0, 0, 0, 0, 3][..],
        &record(4, "ff02::1:ff00:7"),
        &record(4, "ff02::1"),
        &record(3, "ff15::8"),
    ];
    let heard = records(&mld_frame("fe80::1", "ff02::16", &message.concat()));
    assert_eq!(heard, [(ip("ff02::1:ff00:7"), true), (ip("ff15::8"), false)]);
}

#[test]
fn what_routers_say_tells_where_they_are() {
    let query = |group: Option<&str>| {
        let source = IpAddr::from(ROUTER);
        Some(Message::Query { source, group: group.map(ip) })
    };
    assert_eq!(parse(&query_frame(ROUTER, [0; 4]), true), query(None));
    assert_eq!(parse(&query_frame(ROUTER, [239, 1, 2, 3]), true), query(Some("239.1.2.3")));
    let advertised = igmp_frame(ROUTER, [224, 0, 0, 106], &[0x30, 20, 0, 0]);
    assert_eq!(parse(&advertised, true), Some(Message::Router));
    let mut hello = igmp_frame(ROUTER, [224, 0, 0, 13], &[0x20, 0, 0, 0]);
    hello[14 + 9] = PIM.0;
    assert_eq!(parse(&hello, true), Some(Message::Router));
    hello[14 + 24] = 0x21;
    assert_eq!(parse(&hello, true), None);
}

#[test]
fn queries_are_as_hosts_expect_them() {
    let source = Ipv4Addr::from(ROUTER);
    for (group, to) in [("0.0.0.0", [1, 0, 0x5E, 0, 0, 1]), ("239.129.2.3", [1, 0, 0x5E, 1, 2, 3])]
    {
        let frame = ask(HOST, source, ip(group), Response(10));
        assert_eq!((&frame[..6], &frame[6..12]), (&to[..], &HOST.0[..]));
        let group = Some(ip(group)).filter(|group| !group.is_unspecified());
        let expected = Message::Query { source: source.into(), group };
        assert_eq!(parse(&frame, true), Some(expected));
        assert_eq!(checksum(&frame[14..38]), 0, "of the IP header");
        assert_eq!((frame[14], frame[22], &frame[34..38]), (0x46, 1, &[0x94, 4, 0, 0][..]));
        assert_eq!(frame.len(), 14 + 24 + 12);
    }
    for (group, to) in [("::", [0x33, 0x33, 0, 0, 0, 1]), ("ff15::7", [0x33, 0x33, 0, 0, 0, 7])] {
        let frame = ask(HOST, source, ip(group), Response(10));
        assert_eq!(&frame[..6], &to);
        let group = Some(ip(group)).filter(|group| !group.is_unspecified());
        let expected = Message::Query { source: ip("fe80::ff:fe00:1"), group };
        assert_eq!(parse(&frame, true), Some(expected));
        assert_eq!(frame[14 + 48 + 4..][..2], 1_000_u16.to_be_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_cut_off_says_no_more_than_all_of_it(len in 0_usize..70, records in 0_u16..9) {
        let mut v3 = vec![0x22, 0, 0, 0, 0, 0];
        v3.extend(records.to_be_bytes());
        for group in 1..5 {
            v3.extend([4, 0, 0, 0, 239, 0, 0, group]);
        }
        let frame = igmp_frame([192, 0, 2, 1], [224, 0, 0, 22], &v3);
        let all = probe(&frame, false);
        prop_assert_eq!(all.len(), usize::from(records.min(4)));
        let some = probe(&frame[..len.min(frame.len())], false);
        prop_assert!(all.starts_with(&some));
    }

    #[test]
    fn whatever_comes_is_read_or_refused(
        kind in prop::sample::select(vec![0x11_u8, 0x12, 0x16, 0x17, 0x22, 130, 131, 132, 143]),
        body in prop::collection::vec(any::<u8>(), 0..200), is_v6: bool,
    ) {
        let message = [&[kind, 0, 0, 0][..], &body].concat();
        let frame = match is_v6 {
            true => mld_frame("fe80::9", "ff02::16", &message),
            false => igmp_frame([192, 0, 2, 1], [224, 0, 0, 22], &message),
        };
        for (group, _) in probe(&frame, true) {
            prop_assert!(is_reported(group));
        }
    }
}
