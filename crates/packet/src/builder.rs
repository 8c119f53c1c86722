//! Builds whole frames with correct lengths and checksums, for tests and traffic generators.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::checksum::{Checksum, checksum};
use crate::frame::MAX_FRAME_LEN;
use crate::headers::icmp::{ECHO_REPLY, ECHO_REPLY_V6, ECHO_REQUEST, ECHO_REQUEST_V6};
use crate::headers::{ArpOperation, EtherType, IpProtocol, TcpFlags, arp, icmp, ipv4, tcp, udp};
use crate::mac::MacAddr;

/// Why a frame cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// The payload does not fit.
    #[error("frame of {len} bytes, expected at most {max} with these headers")]
    TooLong {
        /// Length that it would have.
        len: usize,
        /// Length that it may have.
        max: usize,
    },
    /// A transport was chosen without IP below it.
    #[error("a transport header needs an IP header: call `ip` before `build`")]
    NoIp,
    /// The two addresses are of different versions of IP.
    #[error("IP addresses {source_ip} and {destination_ip} are of different versions")]
    MixedVersions {
        /// Source address.
        source_ip: IpAddr,
        /// Destination address.
        destination_ip: IpAddr,
    },
}

#[derive(Clone, Copy, Debug)]
enum Network {
    None(EtherType),
    Arp { operation: ArpOperation, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr) },
    Ip { source: IpAddr, destination: IpAddr, ttl: u8 },
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    None(IpProtocol),
    Udp { source: u16, destination: u16 },
    Tcp { source: u16, destination: u16, sequence: u32, acknowledgment: u32, flags: TcpFlags },
    Echo { reply: bool, identifier: u16, sequence: u16 },
}

/// What a frame is to be made of.
///
/// ```
/// use packet::builder::FrameBuilder;
/// use packet::{MacAddr, headers::{Ethernet, Ipv4, Udp}};
///
/// let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
/// let frame = FrameBuilder::new(a, b)
///     .ip([10, 0, 0, 1], [10, 0, 0, 2])
///     .udp(1234, 53)
///     .payload(b"hello")
///     .build()?;
/// let ip = Ipv4::parse(Ethernet::parse(&frame).unwrap().payload()).unwrap();
/// assert!(ip.checksum_is_valid());
/// assert_eq!(Udp::parse(ip.payload()).unwrap().payload(), b"hello");
/// # Ok::<(), packet::builder::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    source: MacAddr,
    destination: MacAddr,
    tags: Vec<(EtherType, u16)>,
    network: Network,
    transport: Option<Transport>,
    payload: Vec<u8>,
    min_len: usize,
}

impl FrameBuilder {
    /// A frame from `source` to `destination` that carries nothing yet (EtherType 0x88B5, for
    /// local experiments).
    #[must_use]
    pub const fn new(source: MacAddr, destination: MacAddr) -> Self {
        Self {
            source,
            destination,
            tags: Vec::new(),
            network: Network::None(EtherType(0x88B5)),
            transport: None,
            payload: Vec::new(),
            min_len: 0,
        }
    }

    /// Another protocol than the known ones.
    #[must_use]
    pub const fn ether_type(mut self, ether_type: EtherType) -> Self {
        self.network = Network::None(ether_type);
        self
    }

    /// A VLAN tag inside of those added before; `control` is the priority and the VLAN.
    #[must_use]
    pub fn tag(mut self, ether_type: EtherType, control: u16) -> Self {
        self.tags.push((ether_type, control));
        self
    }

    /// An ARP packet.
    #[must_use]
    pub const fn arp(
        mut self,
        operation: ArpOperation,
        sender: (MacAddr, Ipv4Addr),
        target: (MacAddr, Ipv4Addr),
    ) -> Self {
        self.network = Network::Arp { operation, sender, target };
        self
    }

    /// An IPv4 or IPv6 header, as the addresses are.
    #[must_use]
    pub fn ip(mut self, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        self.network = Network::Ip { source, destination, ttl: 64 };
        self
    }

    /// Time to live or hop limit of the IP header chosen before; 64 without this.
    #[must_use]
    pub const fn ttl(mut self, value: u8) -> Self {
        if let Network::Ip { ttl, .. } = &mut self.network {
            *ttl = value;
        }
        self
    }

    /// Another protocol above IP than the known ones; without any it is "none".
    #[must_use]
    pub const fn protocol(mut self, protocol: IpProtocol) -> Self {
        self.transport = Some(Transport::None(protocol));
        self
    }

    /// A UDP header.
    #[must_use]
    pub const fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Some(Transport::Udp { source, destination });
        self
    }

    /// A TCP header without options.
    #[must_use]
    pub const fn tcp(
        mut self,
        ports: (u16, u16),
        sequence: u32,
        acknowledgment: u32,
        flags: TcpFlags,
    ) -> Self {
        let (source, destination) = ports;
        let tcp = Transport::Tcp { source, destination, sequence, acknowledgment, flags };
        self.transport = Some(tcp);
        self
    }

    /// An ICMP echo request or reply, ICMPv6 over IPv6.
    #[must_use]
    pub const fn echo(mut self, reply: bool, identifier: u16, sequence: u16) -> Self {
        self.transport = Some(Transport::Echo { reply, identifier, sequence });
        self
    }

    /// What comes after all headers.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Pads the frame with zeroes, outside of the IP packet, to at least `len` bytes.
    #[must_use]
    pub const fn pad_to(mut self, len: usize) -> Self {
        self.min_len = len;
        self
    }

    /// The frame, without frame check sequence.
    ///
    /// # Errors
    ///
    /// When it would be too long, or its parts do not go together.
    pub fn build(&self) -> Result<Vec<u8>, BuildError> {
        let mut frame = Vec::with_capacity(self.payload.len().saturating_add(80));
        frame.extend(self.destination.0);
        frame.extend(self.source.0);
        for (ether_type, control) in &self.tags {
            frame.extend(ether_type.0.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        match self.network {
            Network::None(_) | Network::Arp { .. } if self.transport.is_some() => {
                return Err(BuildError::NoIp);
            }
            Network::None(ether_type) => {
                frame.extend(ether_type.0.to_be_bytes());
                frame.extend(&self.payload);
            }
            Network::Arp { operation, sender, target } => {
                frame.extend(EtherType::ARP.0.to_be_bytes());
                emit_arp(&mut frame, operation, sender, target);
                frame.extend(&self.payload);
            }
            Network::Ip { source, destination, ttl } => match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    self.emit_v4(&mut frame, source, destination, ttl)?;
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    self.emit_v6(&mut frame, source, destination, ttl)?;
                }
                (source_ip, destination_ip) => {
                    return Err(BuildError::MixedVersions { source_ip, destination_ip });
                }
            },
        }
        if frame.len() < self.min_len {
            frame.resize(self.min_len.min(MAX_FRAME_LEN), 0);
        }
        let (len, max) = (frame.len().max(self.min_len), MAX_FRAME_LEN);
        if len > max { Err(BuildError::TooLong { len, max }) } else { Ok(frame) }
    }

    fn emit_v4(
        &self,
        frame: &mut Vec<u8>,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        ttl: u8,
    ) -> Result<(), BuildError> {
        let protocol = self.protocol_number(false);
        let len = self.transport_len(frame.len(), ipv4::HEADER_LEN)?;
        let pseudo = Checksum::pseudo_v4(source.octets(), destination.octets(), protocol.0, len);
        // `transport_len` left room for the header.
        let total_len = len.saturating_add(20).to_be_bytes();
        frame.extend(EtherType::IPV4.0.to_be_bytes());
        let mut header = [0; ipv4::HEADER_LEN];
        (header[0], header[2], header[3]) = (0x45, total_len[0], total_len[1]);
        (header[6], header[8], header[9]) = (0x40, ttl, protocol.0);
        [header[12], header[13], header[14], header[15]] = source.octets();
        [header[16], header[17], header[18], header[19]] = destination.octets();
        [header[10], header[11]] = checksum(&header).to_be_bytes();
        frame.extend(header);
        // ICMP, unlike ICMPv6, has no pseudo header (RFC 792).
        let is_icmp = protocol == IpProtocol::ICMP;
        self.emit_transport(frame, if is_icmp { Checksum::new() } else { pseudo }, len, false);
        Ok(())
    }

    fn emit_v6(
        &self,
        frame: &mut Vec<u8>,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        hop_limit: u8,
    ) -> Result<(), BuildError> {
        let protocol = self.protocol_number(true);
        let len = self.transport_len(frame.len(), 0)?;
        let pseudo =
            Checksum::pseudo_v6(source.octets(), destination.octets(), protocol.0, u32::from(len));
        frame.extend(EtherType::IPV6.0.to_be_bytes());
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol.0, hop_limit]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        self.emit_transport(frame, pseudo, len, true);
        Ok(())
    }

    fn protocol_number(&self, v6: bool) -> IpProtocol {
        match self.transport {
            None => IpProtocol::NONE,
            Some(Transport::None(protocol)) => protocol,
            Some(Transport::Udp { .. }) => IpProtocol::UDP,
            Some(Transport::Tcp { .. }) => IpProtocol::TCP,
            Some(Transport::Echo { .. }) if v6 => IpProtocol::ICMPV6,
            Some(Transport::Echo { .. }) => IpProtocol::ICMP,
        }
    }

    /// Length of the transport header and payload, if with `counted` more bytes it still fits
    /// IP's 16-bit length.
    fn transport_len(&self, link_len: usize, counted: usize) -> Result<u16, BuildError> {
        let header = match self.transport {
            None | Some(Transport::None(_)) => 0,
            Some(Transport::Udp { .. }) => udp::HEADER_LEN,
            Some(Transport::Tcp { .. }) => tcp::HEADER_LEN,
            Some(Transport::Echo { .. }) => icmp::HEADER_LEN,
        };
        let len = self.payload.len().saturating_add(header);
        let max = usize::from(u16::MAX) - counted;
        match u16::try_from(len) {
            Ok(short) if len <= max => Ok(short),
            _ => Err(BuildError::TooLong {
                len: len.saturating_add(counted).saturating_add(link_len),
                max: max.saturating_add(counted).saturating_add(link_len),
            }),
        }
    }

    /// `len` is that of the transport header and payload; `sum` starts their checksum.
    fn emit_transport(&self, frame: &mut Vec<u8>, mut sum: Checksum, len: u16, v6: bool) {
        match self.transport {
            None | Some(Transport::None(_)) => {}
            Some(Transport::Udp { source, destination }) => {
                let mut header = [0; udp::HEADER_LEN];
                [header[0], header[1]] = source.to_be_bytes();
                [header[2], header[3]] = destination.to_be_bytes();
                [header[4], header[5]] = len.to_be_bytes();
                sum.add(&header);
                sum.add(&self.payload);
                [header[6], header[7]] = sum.finish_udp().to_be_bytes();
                frame.extend(header);
            }
            Some(Transport::Tcp { source, destination, sequence, acknowledgment, flags }) => {
                let mut header = [0; tcp::HEADER_LEN];
                [header[0], header[1]] = source.to_be_bytes();
                [header[2], header[3]] = destination.to_be_bytes();
                [header[4], header[5], header[6], header[7]] = sequence.to_be_bytes();
                [header[8], header[9], header[10], header[11]] = acknowledgment.to_be_bytes();
                (header[12], header[13], header[14], header[15]) = (0x50, flags.0, 0xFF, 0xFF);
                sum.add(&header);
                sum.add(&self.payload);
                [header[16], header[17]] = sum.finish().to_be_bytes();
                frame.extend(header);
            }
            Some(Transport::Echo { reply, identifier, sequence }) => {
                let mut header = [0; icmp::HEADER_LEN];
                header[0] = match (v6, reply) {
                    (false, false) => ECHO_REQUEST,
                    (false, true) => ECHO_REPLY,
                    (true, false) => ECHO_REQUEST_V6,
                    (true, true) => ECHO_REPLY_V6,
                };
                [header[4], header[5]] = identifier.to_be_bytes();
                [header[6], header[7]] = sequence.to_be_bytes();
                sum.add(&header);
                sum.add(&self.payload);
                [header[2], header[3]] = sum.finish().to_be_bytes();
                frame.extend(header);
            }
        }
        frame.extend(&self.payload);
    }
}

fn emit_arp(
    frame: &mut Vec<u8>,
    operation: ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) {
    frame.extend(arp::KIND);
    frame.extend(operation.0.to_be_bytes());
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::{Arp, Ethernet, Icmp, Ipv4, Ipv6, Tcp, Udp};

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const IP_A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const IP_B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn valid(mut sum: Checksum, bytes: &[u8]) -> bool {
        sum.add(bytes);
        sum.is_valid()
    }

    #[test]
    fn arp_reads_back() {
        let (sender, target) = ((A, IP_A), (MacAddr([0; 6]), IP_B));
        let frame = FrameBuilder::new(A, MacAddr::BROADCAST)
            .tag(EtherType::VLAN, 100)
            .arp(ArpOperation::REQUEST, sender, target)
            .pad_to(60)
            .build()
            .unwrap();
        assert_eq!(frame.len(), 60);
        let ethernet = Ethernet::parse(&frame).unwrap();
        assert_eq!((ethernet.source(), ethernet.vlan().unwrap().vlan()), (A, 100));
        let (ether_type, payload) = ethernet.inner().unwrap();
        let arp = Arp::parse(payload).unwrap();
        assert_eq!((ether_type, arp.operation()), (EtherType::ARP, ArpOperation::REQUEST));
        assert_eq!((arp.sender_mac(), arp.sender_ip()), sender);
        assert_eq!((arp.target_mac(), arp.target_ip()), target);
        assert!(Arp::parse(&payload[..27]).is_none());
        let mut token_ring = payload.to_vec();
        token_ring[1] = 6;
        assert!(Arp::parse(&token_ring).is_none());
    }

    #[test]
    fn echo_has_a_pseudo_header_over_ipv6_only() {
        let build = |source: IpAddr, destination: IpAddr| {
            let frame = FrameBuilder::new(A, B).ip(source, destination).echo(true, 7, 9);
            frame.payload(b"abc").build().unwrap()
        };
        let frame = build(IP_A.into(), IP_B.into());
        let ip = Ipv4::parse(&frame[14..]).unwrap();
        let echo = Icmp::parse(ip.payload()).unwrap();
        assert!(valid(Checksum::new(), ip.payload()));
        assert_eq!((echo.kind(), echo.code(), echo.payload()), (ECHO_REPLY, 0, &b"abc"[..]));
        assert_eq!((echo.identifier(), echo.sequence()), (7, 9));

        let frame = build(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let ip = Ipv6::parse(&frame[14..]).unwrap();
        assert!(valid(ip.pseudo_header(IpProtocol::ICMPV6, 11), ip.payload()));
        assert_eq!(Icmp::parse(ip.payload()).unwrap().kind(), ECHO_REPLY_V6);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let builder = FrameBuilder::new(A, B);
        assert_eq!(builder.clone().udp(1, 2).build(), Err(BuildError::NoIp));
        let mixed = builder.clone().ip(IP_A, Ipv6Addr::LOCALHOST).build();
        assert!(matches!(mixed, Err(BuildError::MixedVersions { .. })));
        let udp = builder.clone().ip(IP_A, IP_B).udp(1, 2);
        assert_eq!(udp.clone().payload(&[0; 65_507]).build().unwrap().len(), 65_549);
        assert!(matches!(udp.payload(&[0; 65_508]).build(), Err(BuildError::TooLong { .. })));
        assert!(matches!(
            builder.pad_to(usize::MAX).build(),
            Err(BuildError::TooLong { len: usize::MAX, .. })
        ));
    }

    proptest! {
        #[test]
        fn udp_and_tcp_read_back_with_valid_checksums(
            v6: bool, is_tcp: bool, ports: (u16, u16), numbers: (u32, u32), ttl: u8,
            addresses: ([u8; 16], [u8; 16]),
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let address = |bytes: [u8; 16]| -> IpAddr {
                if v6 { bytes.into() } else { (*bytes.first_chunk::<4>().unwrap()).into() }
            };
            let (source, destination) = (address(addresses.0), address(addresses.1));
            let builder = FrameBuilder::new(A, B).ip(source, destination).ttl(ttl);
            let flags = TcpFlags::SYN | TcpFlags::ECE;
            let builder = if is_tcp {
                builder.tcp(ports, numbers.0, numbers.1, flags)
            } else {
                builder.udp(ports.0, ports.1)
            };
            let frame = builder.payload(&payload).pad_to(60).build().unwrap();
            prop_assert!(frame.len() >= 60);
            let ethernet = Ethernet::parse(&frame).unwrap();
            let (upper, pseudo) = if v6 {
                let ip = Ipv6::parse(ethernet.payload()).unwrap();
                prop_assert_eq!((IpAddr::from(ip.source()), ip.hop_limit()), (source, ttl));
                let upper = ip.upper().unwrap();
                let len = u32::try_from(upper.payload.len()).unwrap();
                (upper.payload, ip.pseudo_header(upper.protocol, len))
            } else {
                let ip = Ipv4::parse(ethernet.payload()).unwrap();
                prop_assert_eq!((IpAddr::from(ip.destination()), ip.ttl()), (destination, ttl));
                prop_assert!(ip.checksum_is_valid() && ip.is_complete());
                (ip.payload(), ip.pseudo_header())
            };
            prop_assert!(valid(pseudo, upper));
            if is_tcp {
                let tcp = Tcp::parse(upper).unwrap();
                prop_assert_eq!((tcp.source_port(), tcp.destination_port()), ports);
                prop_assert_eq!((tcp.sequence(), tcp.acknowledgment()), numbers);
                prop_assert_eq!((tcp.flags(), tcp.header_len()), (flags, 20));
                prop_assert_eq!(tcp.payload(), &payload[..]);
            } else {
                let udp = Udp::parse(upper).unwrap();
                prop_assert_eq!((udp.source_port(), udp.destination_port()), ports);
                prop_assert_eq!(usize::from(udp.len()), payload.len() + 8);
                prop_assert_eq!(udp.payload(), &payload[..]);
                prop_assert_ne!(udp.checksum(), 0);
            }
        }

        #[test]
        fn no_transport_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            if let Some(tcp) = Tcp::parse(&bytes) {
                prop_assert_eq!(tcp.header_len() + tcp.payload().len(), bytes.len());
                prop_assert_eq!(tcp.options().len(), tcp.header_len() - 20);
            }
            if let Some(udp) = Udp::parse(&bytes) {
                prop_assert!(udp.payload().len() + 8 <= usize::from(udp.len()));
            }
            let _ = (Icmp::parse(&bytes), Arp::parse(&bytes));
        }
    }
}
