//! What a bridge that snoops has to know of a frame to decide where it goes (RFC 4541, sections 2.1
//! and 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::Frame;
use packet::headers::ethernet::{HEADER_LEN, MAX_TAGS, TAG_LEN};
use packet::headers::{EtherType, IpProtocol, Ipv4, Ipv6};

use super::message::{self, IGMP, PIM};

/// How the addresses of frames to IPv4 groups begin (RFC 1112, section 6.4), and to those of IPv6
/// (RFC 2464, section 7).
const TO_IPV4: [u8; 3] = [0x01, 0x00, 0x5E];
const TO_IPV6: [u8; 2] = [0x33, 0x33];

/// Bytes that are looked at to find what a packet of IPv6 is: its headers with a few extensions.
const LOOK: usize = 256;

/// What a frame is to a bridge that snoops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that it knows about: it goes where it would go anyway.
    #[default]
    Other,
    /// A packet to a group that hosts report.
    Data(IpAddr),
    /// What a host reports, or that it leaves: for routers.
    Report,
    /// What a router says to all hosts.
    FromRouter,
}

impl Kind {
    /// The kind of a frame.
    #[inline]
    pub fn of(frame: &Frame<'_>) -> Self {
        let head = frame.head();
        if head.starts_with(&TO_IPV4) {
            of_ipv4(frame)
        } else if head.starts_with(&TO_IPV6) {
            of_ipv6(frame)
        } else {
            Self::Other
        }
    }
}

/// Whether hosts report that they belong to a group, so that it can be known who does: not those
/// of the local network control block (RFC 4541, section 2.1.2) and of a host itself, nor all nodes
/// of a link (RFC 3810, section 6).
pub const fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && !is_local(group),
        IpAddr::V6(group) => {
            let scope = group.octets()[1] & 0xF;
            group.is_multicast() && scope > 1 && !is_all_nodes(group)
        }
    }
}

const fn is_local(group: Ipv4Addr) -> bool {
    matches!(group.octets(), [224, 0, 0, _])
}

const fn is_all_nodes(group: Ipv6Addr) -> bool {
    u128::from_be_bytes(group.octets()) == 0xFF02 << 112 | 1
}

/// The packet in a frame that begins so, behind its tags, if it is one of `kind`.
pub(super) fn packet_of(head: &[u8], kind: EtherType) -> Option<&[u8]> {
    let mut at = HEADER_LEN;
    for _ in 0..=MAX_TAGS {
        let bytes = head.get(at - 2..)?.first_chunk()?;
        let found = EtherType(u16::from_be_bytes(*bytes));
        if found == kind {
            return head.get(at..);
        }
        if !found.is_tag() {
            return None;
        }
        at += TAG_LEN;
    }
    None
}

fn data(group: IpAddr) -> Kind {
    if is_reported(group) { Kind::Data(group) } else { Kind::Other }
}

/// The group of all routers of PIM (RFC 7761, section 4.3.1).
const PIM_ROUTERS: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 13));
const PIM_ROUTERS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 0xD));

#[inline]
fn of_ipv4(frame: &Frame<'_>) -> Kind {
    let ip = packet_of(frame.head(), EtherType::IPV4).and_then(Ipv4::parse);
    match ip {
        Some(ip) if !matches!(ip.protocol(), IGMP | PIM) => data(ip.destination().into()),
        _ => with_headers(frame, |bytes| {
            ipv4_control(&Ipv4::parse(packet_of(bytes, EtherType::IPV4)?)?)
        }),
    }
}

#[inline]
fn of_ipv6(frame: &Frame<'_>) -> Kind {
    let ip = packet_of(frame.head(), EtherType::IPV6).and_then(Ipv6::parse);
    match ip {
        Some(ip) if matches!(ip.next_header(), IpProtocol::UDP | IpProtocol::TCP) => {
            data(ip.destination().into())
        }
        _ => with_headers(frame, |bytes| {
            ipv6_control(&Ipv6::parse(packet_of(bytes, EtherType::IPV6)?)?)
        }),
    }
}

/// The kind of a frame whose headers may lie behind what of it is at hand.
#[cold]
fn with_headers(frame: &Frame<'_>, kind: impl FnOnce(&[u8]) -> Option<Kind>) -> Kind {
    let mut bytes = [0; LOOK];
    let len = frame.copy_to(&mut bytes);
    bytes.get(..len).and_then(kind).unwrap_or_default()
}

fn ipv4_control(ip: &Ipv4<'_>) -> Option<Kind> {
    let group = ip.destination().into();
    let is_first = ip.fragment_offset() == 0;
    Some(match ip.protocol() {
        IGMP if is_first => message::igmp(*ip.payload().first()?),
        PIM if is_first && group == PIM_ROUTERS => Kind::FromRouter,
        _ => data(group),
    })
}

fn ipv6_control(ip: &Ipv6<'_>) -> Option<Kind> {
    let group = ip.destination().into();
    let upper = ip.upper().filter(|upper| upper.fragment_offset.is_none_or(|offset| offset == 0));
    let kind = upper.and_then(|upper| match upper.protocol {
        IpProtocol::ICMPV6 => message::icmp(*upper.payload.first()?),
        PIM if group == PIM_ROUTERS_V6 => Some(Kind::FromRouter),
        _ => None,
    });
    Some(kind.unwrap_or_else(|| data(group)))
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;
    use packet::builder::FrameBuilder;

    use super::*;

    const FROM: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn builder(to: &str) -> FrameBuilder {
        let to: IpAddr = to.parse().unwrap();
        let mac = match to {
            IpAddr::V4(ip) => {
                let [_, b, c, d] = ip.octets();
                MacAddr([1, 0, 0x5E, b & 0x7F, c, d])
            }
            IpAddr::V6(ip) => {
                let [.., c, d, e, f] = ip.octets();
                MacAddr([0x33, 0x33, c, d, e, f])
            }
        };
        let from: IpAddr = match to {
            IpAddr::V4(_) => [192, 0, 2, 1].into(),
            IpAddr::V6(_) => "fe80::1".parse().unwrap(),
        };
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => FrameBuilder::new(FROM, mac).ip(from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => FrameBuilder::new(FROM, mac).ip(from, to),
            _ => unreachable!(),
        }
    }

    fn kind(frame: &FrameBuilder) -> Kind {
        Kind::of(&Frame::from_bytes(&frame.build().unwrap()))
    }

    #[test]
    fn data_is_told_by_its_group_behind_any_tags() {
        for group in ["239.1.2.3", "224.0.1.1", "ff02::1:ff00:7", "ff05::2", "ff02::fb"] {
            let expected = Kind::Data(group.parse().unwrap());
            let plain = builder(group).udp(5, 6).payload(&[0; 40]);
            assert_eq!(kind(&plain), expected, "{group}");
            let tagged = plain.clone().tag(EtherType::VLAN, 5);
            assert_eq!(kind(&tagged), expected, "{group}");
            assert_eq!(kind(&tagged.tag(EtherType::VLAN, 6)), expected, "{group}");
        }
        for group in ["224.0.0.251", "224.0.0.1", "ff02::1", "ff01::5", "255.255.255.255"] {
            assert_eq!(kind(&builder(group).udp(5, 6)), Kind::Other, "{group}");
        }
    }

    #[test]
    fn messages_are_told_by_their_types() {
        for (kind_of, expected) in [
            (0x11, Kind::FromRouter),
            (0x12, Kind::Report),
            (0x16, Kind::Report),
            (0x17, Kind::Report),
            (0x22, Kind::Report),
            (0x30, Kind::FromRouter),
            (0x13, Kind::Other),
        ] {
            let frame = builder("239.1.2.3").protocol(IGMP).payload(&[kind_of, 0, 0, 0]);
            assert_eq!(kind(&frame), expected, "{kind_of:#x}");
        }
        let hello = builder("224.0.0.13").protocol(PIM).payload(&[0x20, 0, 0, 0]);
        assert_eq!(kind(&hello), Kind::FromRouter);
        let data = builder("239.1.2.3").protocol(PIM).payload(&[0x20, 0, 0, 0]);
        assert_eq!(kind(&data), Kind::Data("239.1.2.3".parse().unwrap()));
    }

    #[test]
    fn messages_of_mld_may_lie_behind_an_extension() {
        for (kind_of, expected) in
            [(130, Kind::FromRouter), (131, Kind::Report), (132, Kind::Report), (143, Kind::Report)]
        {
            let mut bytes = builder("ff02::16").build().unwrap();
            bytes.resize(54, 0);
            bytes[18..21].copy_from_slice(&[0, 32, 0]);
            // A router alert, and the message.
            bytes.extend([58, 0, 5, 2, 0, 0, 1, 0, kind_of]);
            bytes.extend([0; 23]);
            assert_eq!(Kind::of(&Frame::from_bytes(&bytes)), expected, "{kind_of}");
            // A guest's queue has the first 64 bytes at hand only.
            let (head, rest) = bytes.split_at(60);
            let body = [packet::Segment::from_bytes(rest)];
            let frame = Frame::from_parts(head, &body).unwrap();
            assert_eq!(Kind::of(&frame), expected, "{kind_of}");
        }
        let neighbour = builder("ff02::1:ff00:7").protocol(IpProtocol::ICMPV6).payload(&[135; 24]);
        assert_eq!(kind(&neighbour), Kind::Data("ff02::1:ff00:7".parse().unwrap()));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_has_a_kind(
            start in 0_usize..3, tags in 0_usize..4, is_v6: bool,
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
        ) {
            let mut bytes = [&TO_IPV4[..], &TO_IPV6, &[2]][start].to_vec();
            bytes.resize(12, 9);
            (0..tags).for_each(|_| bytes.extend([0x81, 0, 0, 5]));
            bytes.extend(if is_v6 { [0x86, 0xDD, 0x60] } else { [8, 0, 0x45] });
            bytes.extend(rest);
            let kind = Kind::of(&Frame::from_bytes(&bytes));
            if let Kind::Data(group) = kind {
                assert!(is_reported(group));
            }
            assert!(start < 2 || kind == Kind::Other);
        }
    }
}
