//! The IP header around a tunnel's own.

use std::net::IpAddr;

use packet::checksum::Checksum;
use packet::headers::{EtherType, Ethernet, IpProtocol, Ipv4, Ipv6, ethernet, ipv6};

use crate::parse::Refused;

/// The IP header of a frame that may be a tunnel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where it is from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// What follows.
    pub protocol: IpProtocol,
    /// Type of service.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
    /// Where what follows begins, and where it ends, from the start of the frame.
    pub at: usize,
    /// See `at`.
    pub end: usize,
}

impl Envelope {
    /// That of a frame of `len` bytes that begins with `head`, or is all of it.
    ///
    /// # Errors
    /// It is no frame of IP without tags, a fragment, or contradicts itself; or more of it has to be in
    /// `head`.
    pub fn parse(head: &[u8], len: usize) -> Result<Self, Refused> {
        let short = if head.len() < len { Refused::Deeper } else { Refused::Malformed };
        let ethernet = Ethernet::parse(head).ok_or(short)?;
        let packet = ethernet.payload();
        let rest = len.saturating_sub(ethernet::HEADER_LEN);
        let found = match ethernet.ether_type() {
            EtherType::IPV4 if packet.len() >= 20 => Self::v4(packet, rest),
            EtherType::IPV6 if packet.len() >= ipv6::HEADER_LEN => Self::v6(packet, rest),
            EtherType::IPV4 | EtherType::IPV6 => Err(short),
            _ => Err(Refused::Other),
        }?;
        let [at, end] = [found.at, found.end].map(|at| at + ethernet::HEADER_LEN);
        Ok(Self { at, end, ..found })
    }

    fn v4(packet: &[u8], len: usize) -> Result<Self, Refused> {
        let header = packet.first().map_or(0, |first| usize::from(first & 0x0F) * 4);
        if packet.len() < header.min(len) {
            return Err(Refused::Deeper);
        }
        let ip = Ipv4::parse(packet).ok_or(Refused::Malformed)?;
        let end = usize::from(ip.total_len());
        if end > len || !ip.checksum_is_valid() {
            return Err(Refused::Malformed);
        }
        if ip.is_fragment() {
            return Err(Refused::Other);
        }
        Ok(Self {
            source: ip.source().into(),
            destination: ip.destination().into(),
            protocol: ip.protocol(),
            tos: ip.traffic_class(),
            ttl: ip.ttl(),
            dont_fragment: ip.dont_fragment(),
            at: ip.header_len(),
            end,
        })
    }

    /// Extension headers are none of a tunnel's.
    fn v6(packet: &[u8], len: usize) -> Result<Self, Refused> {
        let ip = Ipv6::parse(packet).ok_or(Refused::Malformed)?;
        let end = ipv6::HEADER_LEN + usize::from(ip.payload_len());
        if end > len {
            return Err(Refused::Malformed);
        }
        Ok(Self {
            source: ip.source().into(),
            destination: ip.destination().into(),
            protocol: ip.next_header(),
            tos: ip.traffic_class(),
            ttl: ip.hop_limit(),
            dont_fragment: true,
            at: ipv6::HEADER_LEN,
            end,
        })
    }

    /// The start of a checksum over what follows.
    #[must_use]
    pub fn pseudo_header(&self) -> Checksum {
        pseudo((self.source, self.destination), self.protocol, self.end.saturating_sub(self.at))
    }
}

/// The start of a checksum over `len` bytes of this protocol, between these addresses.
pub(crate) fn pseudo(
    (source, destination): (IpAddr, IpAddr),
    protocol: IpProtocol,
    len: usize,
) -> Checksum {
    let short = u16::try_from(len).unwrap_or(u16::MAX);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Checksum::pseudo_v4(source.octets(), destination.octets(), protocol.0, short)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Checksum::pseudo_v6(source.octets(), destination.octets(), protocol.0, short.into())
        }
        _ => Checksum::new(),
    }
}
