//! The messages by which hosts tell routers which groups they belong to, and routers ask for it:
//! IGMP (RFC 1112, RFC 2236, RFC 3376) and MLD (RFC 2710, RFC 3810); with PIM (RFC 7761) and the
//! advertisement of routers (RFC 4286) as far as they tell where a router is.
//!
//! Of version 3 of IGMP, and 2 of MLD, what is heard is whether a host belongs to a group at all:
//! sources are for routers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::MacAddr;
use packet::checksum::{Checksum, checksum};
use packet::headers::ethernet::HEADER_LEN;
use packet::headers::{EtherType, IpProtocol, Ipv4, Ipv6};

use super::kind::{Kind, is_reported, packet_of};

/// The protocols.
pub(crate) const IGMP: IpProtocol = IpProtocol(2);
pub(crate) const PIM: IpProtocol = IpProtocol(103);

const IGMP_QUERY: u8 = 0x11;
const IGMP_REPORT_V1: u8 = 0x12;
const IGMP_REPORT_V2: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMP_REPORT_V3: u8 = 0x22;
const ROUTER_V4: u8 = 0x30;

const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_REPORT_V2: u8 = 143;
const ROUTER_V6: u8 = 151;

/// Kinds of records in a report: the state of a group, and how it has changed (RFC 3376, section
/// 4.2.12).
const IS_INCLUDE: u8 = 1;
const TO_INCLUDE: u8 = 3;
const BLOCK_OLD: u8 = 6;

/// Bytes of a record without its sources: with addresses of IPv4, and of IPv6.
const RECORD: usize = 4;

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'m> {
    /// A router, or the switch next to it, asks who belongs to a group, or to any.
    Query {
        /// Who asks.
        source: IpAddr,
        /// Which group; `None`: any.
        group: Option<IpAddr>,
    },
    /// Something else that says where a router is.
    Router,
    /// A host says which groups it belongs to, and no more.
    Report(Records<'m>),
}

/// What a report says: groups, and whether its host belongs to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<'m> {
    one: Option<(IpAddr, bool)>,
    is_v6: bool,
    left: u16,
    bytes: &'m [u8],
}

impl<'m> Records<'m> {
    const fn one(group: IpAddr, belongs: bool) -> Self {
        Self { one: Some((group, belongs)), is_v6: false, left: 0, bytes: &[] }
    }

    /// Of a report that has this behind its first four bytes.
    fn many(is_v6: bool, body: &'m [u8]) -> Option<Self> {
        let ([_, _, high, low], bytes) = body.split_first_chunk()?;
        Some(Self { one: None, is_v6, left: u16::from_be_bytes([*high, *low]), bytes })
    }

    /// The next record, whether it tells anything here or not; `None` at the end of what is there.
    fn record(&mut self) -> Option<(IpAddr, u8, u16)> {
        self.left = self.left.checked_sub(1)?;
        let ([kind, auxiliary, high, low], rest) = self.bytes.split_first_chunk::<RECORD>()?;
        let (group, rest) = address(rest, self.is_v6)?;
        let sources = u16::from_be_bytes([*high, *low]);
        let each = if self.is_v6 { 16 } else { 4 };
        let len = usize::from(sources) * each + usize::from(*auxiliary) * 4;
        // One that is cut off at its sources still says its group; nothing is behind it.
        self.bytes = rest.get(len..).unwrap_or_default();
        Some((group, *kind, sources))
    }
}

impl Iterator for Records<'_> {
    type Item = (IpAddr, bool);

    /// There are no more than a frame has room for: each takes eight bytes or more.
    fn next(&mut self) -> Option<(IpAddr, bool)> {
        if let Some(one) = self.one.take() {
            return Some(one).filter(|(group, _)| is_reported(*group));
        }
        loop {
            let (group, kind, sources) = self.record()?;
            // To belong to a group for no source is not to belong to it. Those who block some of
            // their sources go on with others, which they repeat when they are asked.
            let belongs = !(sources == 0 && matches!(kind, IS_INCLUDE | TO_INCLUDE));
            if is_reported(group) && kind != 0 && kind < BLOCK_OLD {
                return Some((group, belongs));
            }
        }
    }
}

/// The address at the beginning of `bytes`, and what is behind it.
fn address(bytes: &[u8], is_v6: bool) -> Option<(IpAddr, &[u8])> {
    if is_v6 {
        let (octets, rest) = bytes.split_first_chunk::<16>()?;
        return Some((Ipv6Addr::from(*octets).into(), rest));
    }
    let (octets, rest) = bytes.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*octets).into(), rest))
}

/// What a message of IGMP of this type is to a bridge.
pub(super) const fn igmp(kind: u8) -> Kind {
    match kind {
        IGMP_QUERY | ROUTER_V4 => Kind::FromRouter,
        IGMP_REPORT_V1 | IGMP_REPORT_V2 | IGMP_LEAVE | IGMP_REPORT_V3 => Kind::Report,
        _ => Kind::Other,
    }
}

/// The same of ICMPv6; `None` where it is none of MLD.
pub(super) const fn icmp(kind: u8) -> Option<Kind> {
    match kind {
        MLD_QUERY | ROUTER_V6 => Some(Kind::FromRouter),
        MLD_REPORT | MLD_DONE | MLD_REPORT_V2 => Some(Kind::Report),
        _ => None,
    }
}

/// Reads a frame; `is_whole` tells whether its checksum is to be looked at. `None` for what is
/// none of these messages, cut off, or not as it was sent.
pub fn parse(frame: &[u8], is_whole: bool) -> Option<Message<'_>> {
    match packet_of(frame, EtherType::IPV4) {
        Some(packet) => parse_ipv4(&Ipv4::parse(packet)?, is_whole),
        None => parse_ipv6(&Ipv6::parse(packet_of(frame, EtherType::IPV6)?)?, is_whole),
    }
}

fn parse_ipv4<'m>(ip: &Ipv4<'m>, is_whole: bool) -> Option<Message<'m>> {
    let message = ip.payload();
    if ip.is_fragment() {
        return None;
    }
    if ip.protocol() == PIM {
        return hello(message);
    }
    if ip.protocol() != IGMP || (is_whole && checksum(message) != 0) {
        return None;
    }
    let ([kind, ..], body) = message.split_first_chunk::<4>()?;
    let group = || Some(address(body, false)?.0);
    Some(match *kind {
        IGMP_QUERY => query(ip.source().into(), group()?),
        ROUTER_V4 => Message::Router,
        IGMP_REPORT_V1 | IGMP_REPORT_V2 => Message::Report(Records::one(group()?, true)),
        IGMP_LEAVE => Message::Report(Records::one(group()?, false)),
        IGMP_REPORT_V3 => Message::Report(Records::many(false, body)?),
        _ => return None,
    })
}

fn parse_ipv6<'m>(ip: &Ipv6<'m>, is_whole: bool) -> Option<Message<'m>> {
    let upper = ip.upper().filter(|upper| upper.fragment_offset.is_none())?;
    if upper.protocol == PIM {
        return hello(upper.payload);
    }
    // What comes from behind a router, or pretends to, is refused (RFC 3810, section 6.2).
    let is_near = ip.hop_limit() == 1
        && (ip.source().is_unicast_link_local() || ip.source().is_unspecified());
    if upper.protocol != IpProtocol::ICMPV6 || !is_near {
        return None;
    }
    if is_whole {
        let len = u32::try_from(upper.payload.len()).ok()?;
        let mut sum = ip.pseudo_header(upper.protocol, len);
        sum.add(upper.payload);
        if !sum.is_valid() {
            return None;
        }
    }
    let ([kind, ..], body) = upper.payload.split_first_chunk::<4>()?;
    let group = || Some(address(body.get(4..)?, true)?.0);
    Some(match *kind {
        MLD_QUERY => query(ip.source().into(), group()?),
        ROUTER_V6 => Message::Router,
        MLD_REPORT => Message::Report(Records::one(group()?, true)),
        MLD_DONE => Message::Report(Records::one(group()?, false)),
        MLD_REPORT_V2 => Message::Report(Records::many(true, body)?),
        _ => return None,
    })
}

const fn query<'m>(source: IpAddr, group: IpAddr) -> Message<'m> {
    let group = if group.is_unspecified() { None } else { Some(group) };
    Message::Query { source, group }
}

/// A message of PIM: the first byte has its version and its type, 0 for a hello.
fn hello(message: &[u8]) -> Option<Message<'_>> {
    (*message.first()? == 0x20).then_some(Message::Router)
}

/// How long hosts have to answer, in the units of IGMP: tenths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response(pub u8);

/// A query of IGMPv3, or of MLDv2 where `group` is one of IPv6, for a group, or for all where that
/// is the unspecified address. It comes from `mac`, and by IGMP from `source`.
pub fn ask(mac: MacAddr, source: Ipv4Addr, group: IpAddr, response: Response) -> Vec<u8> {
    match group {
        IpAddr::V4(group) => ask_ipv4(mac, source, group, response),
        IpAddr::V6(group) => ask_ipv6(mac, group, response),
    }
}

/// Robustness 2, and an interval of 125 s, as RFC 3376, section 8, has them by default.
const ROBUSTNESS: [u8; 2] = [2, 125];

fn ask_ipv4(mac: MacAddr, source: Ipv4Addr, group: Ipv4Addr, response: Response) -> Vec<u8> {
    let to = if group.is_unspecified() { Ipv4Addr::new(224, 0, 0, 1) } else { group };
    let [_, b, c, d] = to.octets();
    let mut message = vec![IGMP_QUERY, response.0, 0, 0];
    message.extend(group.octets());
    message.extend(ROBUSTNESS);
    message.extend([0, 0]);
    let sum = checksum(&message).to_be_bytes();
    message.splice(2..4, sum);
    // Precedence of network control, a lifetime of one hop, and a router alert (RFC 2113).
    let mut ip = vec![0x46, 0xC0, 0, 36, 0, 0, 0x40, 0, 1, IGMP.0, 0, 0];
    ip.extend(source.octets());
    ip.extend(to.octets());
    ip.extend([0x94, 4, 0, 0]);
    let sum = checksum(&ip).to_be_bytes();
    ip.splice(10..12, sum);
    frame([1, 0, 0x5E, b & 0x7F, c, d], mac, EtherType::IPV4, &[ip, message])
}

fn ask_ipv6(mac: MacAddr, group: Ipv6Addr, response: Response) -> Vec<u8> {
    let source = link_local(mac);
    let all_nodes = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
    let to = if group.is_unspecified() { all_nodes } else { group };
    let [.., c, d, e, f] = to.octets();
    let mut message = vec![MLD_QUERY, 0, 0, 0];
    message.extend((u16::from(response.0) * 100).to_be_bytes());
    message.extend([0, 0]);
    message.extend(group.octets());
    message.extend(ROBUSTNESS);
    message.extend([0, 0]);
    let len = u32::try_from(message.len()).unwrap_or_default();
    let protocol = IpProtocol::ICMPV6.0;
    let mut sum = Checksum::pseudo_v6(source.octets(), to.octets(), protocol, len);
    sum.add(&message);
    message.splice(2..4, sum.finish().to_be_bytes());
    // Hop-by-hop options: a router alert (RFC 2711), and padding.
    let options = vec![protocol, 0, 5, 2, 0, 0, 1, 0];
    let mut ip = vec![0x60, 0, 0, 0, 0, 36, 0, 1];
    ip.extend(source.octets());
    ip.extend(to.octets());
    frame([0x33, 0x33, c, d, e, f], mac, EtherType::IPV6, &[ip, options, message])
}

/// The address of a link that a station with this address has (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xFE, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xFF, 0xFE, d, e, f])
}

fn frame(to: [u8; 6], from: MacAddr, kind: EtherType, parts: &[Vec<u8>]) -> Vec<u8> {
    let len = parts.iter().map(Vec::len).fold(HEADER_LEN, usize::saturating_add);
    let mut frame = Vec::with_capacity(len);
    frame.extend(to);
    frame.extend(from.0);
    frame.extend(kind.0.to_be_bytes());
    parts.iter().for_each(|part| frame.extend(part));
    frame
}

#[cfg(test)]
pub(crate) mod tests;
