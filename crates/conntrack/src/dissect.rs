//! What of a packet says which connection it is of.
//!
//! Packets come from guests and networks, and nothing in them is believed: what is cut short or
//! contradicts itself is of no connection.

use std::net::IpAddr;
use std::ops::Range;

use packet::headers::tcp::TcpFlags;
use packet::headers::{Icmp, IpProtocol, Ipv4, Ipv6, Tcp, Udp};

use crate::tcp::Segment;
use crate::tuple::{Tuple, asks, opposite};

/// EtherTypes of packets that can be tracked.
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86DD;

/// Types of ICMP that tell of an error, and have the start of the packet that it is about (RFC 792):
/// unreachable, source quench, redirect, time exceeded, parameter problem.
const ERRORS: [u8; 5] = [3, 4, 5, 11, 12];

/// Those of ICMPv6 (RFC 4443, section 3): unreachable, too big, time exceeded, parameter problem.
const ERRORS_V6: [u8; 4] = [1, 2, 3, 4];

/// The header that packets of SCTP have in common (RFC 9260, section 3.1).
const SCTP_LEN: usize = 12;

/// The header of IPv6, and that which its fragments have (RFC 8200, sections 3 and 4.5).
const IPV6_LEN: usize = 40;
const FRAGMENT_LEN: usize = 8;

/// The option of TCP by which windows are scaled (RFC 7323, section 2.2).
const WINDOW_SCALE: u8 = 3;

/// What of a packet says which connection it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its ends. Where it is an error: those of the packet that it is about, turned round.
    pub(crate) tuple: Tuple,
    /// Whether it is an error about a packet of the connection.
    pub(crate) is_related: bool,
    /// What it says as a segment of TCP.
    pub(crate) segment: Option<Segment>,
}

impl Seen {
    /// The ends of its connection, as it goes.
    #[must_use]
    pub const fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    /// Whether a connection can begin with it.
    pub(crate) fn can_begin(&self) -> bool {
        match (&self.segment, self.tuple.query()) {
            _ if self.is_related => false,
            (Some(segment), _) => segment.can_begin(),
            (None, Some((_, kind))) => asks(kind, self.tuple.source().is_ipv6()),
            (None, None) => true,
        }
    }
}

/// Looks at a packet in `zone`: `bytes` are its first ones, from the header of the network layer on, and
/// `len` is how many there are in all, with padding.
///
/// `None` if it can be of no connection: what is neither IPv4 nor IPv6, is a fragment, is broken, or has
/// port 0; and messages of ICMP other than queries, their answers, and errors about tracked packets. Also
/// if `bytes` are too few to tell: 160 always are enough without extension headers.
///
/// Checksums are not looked at: those of guests are often still to be made, and whoever gets a wrong
/// packet drops it.
#[must_use]
pub fn dissect(ether_type: u16, bytes: &[u8], len: usize, zone: u16) -> Option<Seen> {
    let network = Network::parse(ether_type, bytes)?;
    if network.len > len || network.is_fragment {
        return None;
    }
    Look { zone }.transport(&network)
}

/// What a packet of TCP or UDP carries, as far as it is among `bytes`: where that begins in them, and where
/// it ends.
#[must_use]
pub fn carried(ether_type: u16, bytes: &[u8]) -> Option<Range<usize>> {
    let network = Network::parse(ether_type, bytes)?;
    let header_len = match network.protocol {
        IpProtocol::TCP => usize::from(*network.payload.get(12)? >> 4) * 4,
        IpProtocol::UDP => 8,
        _ => return None,
    };
    let start = network.len.checked_sub(network.payload_len)?.checked_add(header_len)?;
    let end = network.len.min(bytes.len());
    (start <= end && !network.is_fragment).then_some(start..end)
}

/// What says which connection a packet is of that came in fragments, of which `bytes` are the first one and `len` is how many
/// there would be without fragments.
///
/// `None` also where that is a fragment of something else: whose ports these are, only a first one says.
pub(crate) fn dissect_whole(ether_type: u16, bytes: &[u8], len: usize, zone: u16) -> Option<Seen> {
    let network = Network::parse(ether_type, bytes)?;
    if ether_type == IPV6 && has_fragment_inside(bytes)? {
        return None;
    }
    let before = network.len.checked_sub(network.payload_len)?;
    let payload_len = len.checked_sub(before)?;
    Look { zone }.transport(&Network { len, payload_len, ..network })
}

/// Whether behind the header of a fragment of IPv6 there is another one.
fn has_fragment_inside(bytes: &[u8]) -> Option<bool> {
    let part = Ipv6::parse(bytes)?.fragment()?;
    // What it has behind that header, as a packet of its own.
    let mut header = *bytes.first_chunk::<IPV6_LEN>()?;
    let at = (IPV6_LEN + part.extensions_len).checked_sub(FRAGMENT_LEN)?;
    header[6] = *bytes.get(at)?;
    let inside = [&header[..], part.payload].concat();
    Some(Ipv6::parse(&inside)?.upper()?.fragment_offset.is_some())
}

/// A packet of IPv4 or IPv6.
struct Network<'n> {
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    is_fragment: bool,
    /// As much as there is.
    payload: &'n [u8],
    /// The length of all of it, and of what is behind its headers.
    len: usize,
    payload_len: usize,
}

impl<'n> Network<'n> {
    fn parse(ether_type: u16, bytes: &'n [u8]) -> Option<Self> {
        match ether_type {
            IPV4 => Self::parse_v4(&Ipv4::parse(bytes)?),
            IPV6 => Self::parse_v6(&Ipv6::parse(bytes)?),
            _ => None,
        }
    }

    fn parse_v4(ip: &Ipv4<'n>) -> Option<Self> {
        let len = usize::from(ip.total_len());
        Some(Self {
            source: ip.source().into(),
            destination: ip.destination().into(),
            protocol: ip.protocol(),
            is_fragment: ip.is_fragment(),
            payload: ip.payload(),
            len,
            payload_len: len.checked_sub(ip.header_len())?,
        })
    }

    fn parse_v6(ip: &Ipv6<'n>) -> Option<Self> {
        let upper = ip.upper()?;
        let len = usize::from(ip.payload_len());
        Some(Self {
            source: ip.source().into(),
            destination: ip.destination().into(),
            protocol: upper.protocol,
            is_fragment: upper.fragment_offset.is_some(),
            payload: upper.payload,
            len: len + 40,
            payload_len: len.checked_sub(upper.extensions_len)?,
        })
    }
}

struct Look {
    zone: u16,
}

impl Look {
    fn transport(&self, network: &Network<'_>) -> Option<Seen> {
        match network.protocol {
            IpProtocol::TCP => {
                let mut fixed = *network.payload.first_chunk::<20>()?;
                let header_len = usize::from(fixed[12] >> 4) * 4;
                let len = network.payload_len.checked_sub(header_len)?;
                // Options are for the first segments only; those of others need not be there.
                let is_first = TcpFlags(fixed[13]).contains(TcpFlags::SYN);
                if header_len < fixed.len() {
                    return None;
                }
                fixed[12] = 0x50;
                let tcp = Tcp::parse(if is_first { network.payload } else { &fixed })?;
                let seen = self.ports(network, (tcp.source_port(), tcp.destination_port()))?;
                Some(Seen { segment: Some(segment(&tcp, len)?), ..seen })
            }
            IpProtocol::UDP => {
                let udp = Udp::parse(network.payload)?;
                let len = usize::from(udp.len());
                if !(8..=network.payload_len).contains(&len) {
                    return None;
                }
                self.ports(network, (udp.source_port(), udp.destination_port()))
            }
            IpProtocol::SCTP => {
                let [a, b, c, d, ..] = *network.payload.first_chunk::<SCTP_LEN>()?;
                let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                self.ports(network, ports).filter(|_| network.payload_len >= SCTP_LEN)
            }
            IpProtocol::ICMP if network.source.is_ipv4() => self.icmp(network, false),
            IpProtocol::ICMPV6 if network.source.is_ipv6() => self.icmp(network, true),
            _ => self.seen(network, (0, 0)),
        }
    }

    fn seen(&self, network: &Network<'_>, (from, to): (u16, u16)) -> Option<Seen> {
        let (source, destination) = ((network.source, from), (network.destination, to));
        let tuple = Tuple::new(network.protocol, source, destination, self.zone)?;
        Some(Seen { tuple, is_related: false, segment: None })
    }

    fn ports(&self, network: &Network<'_>, ports: (u16, u16)) -> Option<Seen> {
        if ports.0 == 0 || ports.1 == 0 { None } else { self.seen(network, ports) }
    }

    fn icmp(&self, network: &Network<'_>, is_v6: bool) -> Option<Seen> {
        let icmp = Icmp::parse(network.payload)?;
        let (kind, errors) = (icmp.kind(), if is_v6 { &ERRORS_V6[..] } else { &ERRORS });
        if errors.contains(&kind) {
            let inner = Network::parse(if is_v6 { IPV6 } else { IPV4 }, icmp.payload())?;
            // It goes to whoever has sent the packet that it is about.
            let is_right = inner.source == network.destination && !inner.is_fragment;
            return if is_right { self.error_about(&inner) } else { None };
        }
        opposite(kind, is_v6).filter(|_| icmp.code() == 0)?;
        self.seen(network, (icmp.identifier(), kind.into()))
    }

    /// The connection of a packet of which there are the first bytes only, 8 of the transport header.
    fn error_about(&self, inner: &Network<'_>) -> Option<Seen> {
        let first: &[u8; 8] = inner.payload.first_chunk()?;
        let [a, b, c, d, e, f, ..] = *first;
        let seen = match inner.protocol {
            IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP => {
                let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                self.ports(inner, ports)?
            }
            IpProtocol::ICMP | IpProtocol::ICMPV6
                if (inner.protocol == IpProtocol::ICMPV6) == inner.source.is_ipv6() =>
            {
                opposite(a, inner.source.is_ipv6()).filter(|_| b == 0)?;
                self.seen(inner, (u16::from_be_bytes([e, f]), a.into()))?
            }
            _ => self.seen(inner, (0, 0))?,
        };
        Some(Seen { tuple: seen.tuple.reversed(), is_related: true, segment: None })
    }
}

fn segment(tcp: &Tcp<'_>, len: usize) -> Option<Segment> {
    Some(Segment {
        flags: tcp.flags(),
        sequence: tcp.sequence(),
        acknowledgment: tcp.acknowledgment(),
        window: tcp.window(),
        len: u32::try_from(len).ok()?,
        scale: window_scale(tcp.options()),
    })
}

/// By how many bits windows are to be shifted, if an option says so. There are 40 bytes at most.
fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match *options {
            [0, ..] | [] | [_] => return None,
            [1, ..] => options.get(1..)?,
            [WINDOW_SCALE, 3, shift, ..] => return Some(shift),
            [_, len, ..] => options.get(usize::from(len.max(2))..)?,
        };
    }
}

#[cfg(test)]
mod tests;
