//! The headers of a large segment, from its first byte to the transport that is to be cut: those
//! of tunnels around it too.
//!
//! The sender says where the transport header is, which is all that is needed to cut what is
//! behind it. In front of it every header that has a length, a number or a checksum of what
//! follows must be found, to be made anew for each part: a [`Layer`] each.
//!
//! A tunnel over UDP is known by what follows its header, not by its port, which is the choice
//! of whoever set it up: VXLAN (RFC 7348) with its generic extension, Geneve (RFC 8926), and IP
//! in UDP without a header of its own.

use arrayvec::ArrayVec;

use super::layout::{Behind, Transport, behind_ipv4, behind_ipv6, byte, ether_type, tcp_len, word};
use super::{BadOffload, Capabilities, MAX_SEGMENTS};
use crate::checksum::Checksum;
use crate::headers::{EtherType, IpProtocol};

/// Most bytes that the headers of a large segment have in all.
pub const MAX_HEADERS: usize = 512;

/// Most headers that are made anew for each part: those of three tunnels, and an IP header
/// inside.
pub const MAX_LAYERS: usize = 8;

/// Length of an IPv6 header without extensions.
const IPV6_HEADER: usize = 40;

/// Length of a UDP header.
const UDP_HEADER: usize = 8;

/// A header in front of the transport, in which something depends on what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IPv4: a length, an identification and a checksum of its own.
    Ipv4 {
        /// Where it is.
        at: usize,
        /// Its length.
        len: usize,
    },
    /// IPv6: the length of its payload.
    Ipv6 {
        /// Where it is.
        at: usize,
    },
    /// UDP of a tunnel: a length and, as a rule, no checksum.
    Udp {
        /// Where it is.
        at: usize,
        /// What its checksum starts with; `None` where it has none.
        pseudo: Option<PseudoSum>,
    },
    /// GRE with a checksum (RFC 2784).
    Gre {
        /// Where it is.
        at: usize,
    },
}

/// The sum of a pseudo header without the length in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PseudoSum(u16);

impl PseudoSum {
    /// The beginning of a checksum over `len` bytes.
    #[must_use]
    pub fn with_len(self, len: u16) -> Checksum {
        let mut checksum = Checksum::new();
        checksum.add_u16(self.0);
        checksum.add_u16(len);
        checksum
    }

    /// Takes the length out of a checksum that was begun in its field for `len` bytes: what is
    /// left of a pseudo header whose addresses nobody has to know.
    #[must_use]
    pub fn of_begun(field: u16, len: u16) -> Self {
        let mut checksum = Checksum::new();
        checksum.add_u16(field);
        checksum.add_u16(!len);
        Self(checksum.partial())
    }
}

/// The IP header that was found last.
#[derive(Clone, Copy, Debug)]
struct Network {
    at: usize,
    is_v6: bool,
    /// Its destination is not the one that checksums are about (RFC 8200, section 8.1).
    is_routed: bool,
}

/// All headers of a large segment.
#[derive(Clone, Debug)]
pub struct Layers {
    layers: ArrayVec<Layer, MAX_LAYERS>,
    /// The transport protocol.
    pub transport: Transport,
    /// Where its header is.
    pub transport_at: usize,
    /// Length of all headers: where the payload is.
    pub headers: usize,
    /// What the transport's checksum starts with.
    pub pseudo: PseudoSum,
    is_v6: bool,
}

/// Why the headers were not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLayers {
    /// They are not those of TCP or UDP over IP, contradict each other, or are not all there.
    Mismatch,
    /// The transport header is not where the sender says.
    Misplaced,
    /// A header, named here, behind which nothing can be cut.
    Uncuttable(&'static str),
}

/// What the next header is.
#[derive(Clone, Copy, Debug)]
enum Next {
    Ethernet,
    Ether(EtherType),
    Ip(IpProtocol),
}

/// The walk over the headers of a frame of `len` bytes.
struct Walk<'a> {
    head: &'a [u8],
    len: usize,
    layers: ArrayVec<Layer, MAX_LAYERS>,
    network: Option<Network>,
}

impl Layers {
    /// Finds the headers of a large segment of `len` bytes whose private first part is `head`,
    /// and whose sender says that its transport header is at `transport_at`.
    ///
    /// # Errors
    /// When there is no such transport there within the first [`MAX_HEADERS`] bytes of `head`, or
    /// it cannot be cut.
    pub fn parse(head: &[u8], len: usize, transport_at: u16) -> Result<Self, NoLayers> {
        let head = head.get(..MAX_HEADERS.min(head.len())).unwrap_or_default();
        let mut walk = Walk { head, len, layers: ArrayVec::new(), network: None };
        let (mut next, mut at) = (Next::Ethernet, 0);
        let target = usize::from(transport_at);
        loop {
            (next, at) = match next {
                Next::Ip(protocol) if at >= target => return walk.finish(protocol, at, target),
                Next::Ethernet => walk.ethernet(at).ok_or(NoLayers::Mismatch)?,
                Next::Ether(kind) => walk.network(kind, at)?,
                Next::Ip(protocol) => walk.tunnel(protocol, at)?,
            };
        }
    }

    /// Those that are made anew for each part, innermost first.
    pub fn inside_out(&self) -> impl Iterator<Item = Layer> {
        self.layers.iter().rev().copied()
    }

    /// Whether the transport is inside a tunnel.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.layers.len() > 1
    }

    /// Whether a checksum in front of the transport covers it.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        let covers =
            |layer: &Layer| matches!(layer, Layer::Gre { .. } | Layer::Udp { pseudo: Some(_), .. });
        self.layers.iter().any(covers)
    }

    /// What a receiver must take to cut such a segment itself.
    #[must_use]
    pub fn segmentation(&self) -> Capabilities {
        let kind = self.transport.segmentation(self.is_v6);
        if self.is_tunnel() { kind | Capabilities::TUNNEL } else { kind }
    }

    /// Into how many frames of `gso_size` payload bytes a frame of `len` bytes is cut.
    ///
    /// # Errors
    /// When there is no end of them, or they are too long for IP.
    pub fn segments(&self, gso_size: u16, len: usize) -> Result<usize, BadOffload> {
        let gso_size = usize::from(gso_size);
        let payload = len.saturating_sub(self.headers);
        let longest = payload.min(gso_size);
        // Then the length of every header fits its field as well.
        if self.headers + longest > usize::from(u16::MAX) {
            return Err(BadOffload::TooLong(longest));
        }
        match payload.checked_div(gso_size) {
            None => Err(BadOffload::NoSegmentSize),
            Some(_) => match payload.div_ceil(gso_size).max(1) {
                count @ ..=MAX_SEGMENTS => Ok(count),
                count => Err(BadOffload::TooManySegments(count)),
            },
        }
    }
}

/// What follows, and where.
type Step = Result<(Next, usize), NoLayers>;

impl Walk<'_> {
    fn ethernet(&self, at: usize) -> Option<(Next, usize)> {
        let (kind, len) = ether_type(self.head.get(at..)?)?;
        Some((Next::Ether(kind), at + len))
    }

    fn push(&mut self, layer: Layer) -> Result<(), NoLayers> {
        self.layers.try_push(layer).map_err(|_| NoLayers::Uncuttable("inside so many tunnels"))
    }

    fn network(&mut self, kind: EtherType, at: usize) -> Step {
        let (is_v6, behind) = match kind {
            EtherType::IPV4 => (false, behind_ipv4(self.head, at)),
            EtherType::IPV6 => (true, behind_ipv6(self.head, at)),
            _ => return Err(NoLayers::Mismatch),
        };
        let Behind { protocol, at: behind, is_routed } = behind.ok_or(NoLayers::Mismatch)?;
        self.network = Some(Network { at, is_v6, is_routed });
        self.push(match is_v6 {
            true => Layer::Ipv6 { at },
            false => Layer::Ipv4 { at, len: behind - at },
        })?;
        Ok((Next::Ip(protocol), behind))
    }

    /// Goes into the tunnel whose header is at `at`.
    fn tunnel(&mut self, protocol: IpProtocol, at: usize) -> Step {
        match protocol.0 {
            4 => Ok((Next::Ether(EtherType::IPV4), at)),
            41 => Ok((Next::Ether(EtherType::IPV6), at)),
            // Ethernet, as in SRv6 (RFC 8986, section 10.1).
            143 => Ok((Next::Ethernet, at)),
            47 => self.gre(at),
            17 => self.udp(at),
            44 => Err(NoLayers::Uncuttable("of which a header in front is in fragments")),
            50 => Err(NoLayers::Uncuttable("inside ESP, which is encrypted,")),
            51 => Err(NoLayers::Uncuttable("behind an authentication header")),
            6 => Err(NoLayers::Misplaced),
            _ => Err(NoLayers::Mismatch),
        }
    }

    /// GRE (RFC 2784), with a key (RFC 2890).
    fn gre(&mut self, at: usize) -> Step {
        let flags = word(self.head, at).ok_or(NoLayers::Mismatch)?;
        let kind = EtherType(word(self.head, at + 2).ok_or(NoLayers::Mismatch)?);
        let has = |flag: u16| usize::from(flags & flag != 0);
        if flags & 0x4007 != 0 {
            return Err(NoLayers::Uncuttable("inside GRE of another version, or with routing,"));
        }
        if flags & 0x1000 != 0 {
            // The parts would take the numbers of what the sender sends next.
            return Err(NoLayers::Uncuttable("inside GRE with sequence numbers"));
        }
        if flags & 0x8000 != 0 {
            self.push(Layer::Gre { at })?;
        }
        let next = if kind.0 == TRANSPARENT_ETHERNET { Next::Ethernet } else { Next::Ether(kind) };
        Ok((next, at + 4 + 4 * (has(0x8000) + has(0x2000))))
    }

    fn udp(&mut self, at: usize) -> Step {
        let field = word(self.head, at + 6).ok_or(NoLayers::Mismatch)?;
        let pseudo = match field {
            0 => None,
            field => Some(self.pseudo(IpProtocol::UDP, at, field).ok_or(NoLayers::Mismatch)?),
        };
        self.push(Layer::Udp { at, pseudo })?;
        self.over_udp(at + UDP_HEADER)
            .ok_or(NoLayers::Uncuttable("inside an unknown tunnel over UDP"))
    }

    /// What is in the tunnel whose header follows that of UDP.
    fn over_udp(&self, at: usize) -> Option<(Next, usize)> {
        let first = byte(self.head, at)?;
        match first >> 4 {
            4 => return Some((Next::Ether(EtherType::IPV4), at)),
            6 => return Some((Next::Ether(EtherType::IPV6), at)),
            _ => {}
        }
        let kind = EtherType(word(self.head, at + 2)?);
        let options = usize::from(first & 0x3F) * 4;
        match kind {
            EtherType(TRANSPARENT_ETHERNET) if first >> 6 == 0 => {
                return Some((Next::Ethernet, at + 8 + options));
            }
            EtherType::IPV4 | EtherType::IPV6 if first >> 6 == 0 => {
                return Some((Next::Ether(kind), at + 8 + options));
            }
            _ => {}
        }
        let next = match (first & 0x0C, byte(self.head, at + 3)?) {
            // VXLAN, and the generic extension that names what follows.
            (0x08, _) | (0x0C, 3) => Next::Ethernet,
            (0x0C, 1) => Next::Ether(EtherType::IPV4),
            (0x0C, 2) => Next::Ether(EtherType::IPV6),
            _ => return None,
        };
        Some((next, at + 8))
    }

    /// The transport that is to be cut: it must be at `target`.
    fn finish(self, protocol: IpProtocol, at: usize, target: usize) -> Result<Layers, NoLayers> {
        let (transport, header) = match protocol {
            IpProtocol::TCP => (Transport::Tcp, tcp_len(self.head, at).ok_or(NoLayers::Mismatch)?),
            IpProtocol::UDP => (Transport::Udp, UDP_HEADER),
            _ => return Err(NoLayers::Mismatch),
        };
        if at != target {
            return Err(NoLayers::Misplaced);
        }
        let headers = at + header;
        let network = self.network.filter(|_| headers <= self.head.len().min(self.len));
        let is_v6 = network.ok_or(NoLayers::Mismatch)?.is_v6;
        let field = word(self.head, at + transport.csum_offset()).ok_or(NoLayers::Mismatch)?;
        let pseudo = self.pseudo(protocol, at, field).ok_or(NoLayers::Mismatch)?;
        Ok(Layers { layers: self.layers, transport, transport_at: at, headers, pseudo, is_v6 })
    }

    /// What the checksum of the transport at `at` starts with, which has `field` so far. It is
    /// found from the addresses where they are those that it is about, since there are senders
    /// who leave that to the device.
    fn pseudo(&self, IpProtocol(protocol): IpProtocol, at: usize, field: u16) -> Option<PseudoSum> {
        let network = self.network?;
        if network.is_routed {
            let len = u16::try_from(self.len.checked_sub(at)?).ok()?;
            return Some(PseudoSum::of_begun(field, len));
        }
        let ip = self.head.get(network.at..)?;
        let checksum = if network.is_v6 {
            let addresses = ip.get(8..IPV6_HEADER)?.as_chunks::<16>().0;
            let [source, destination] = addresses.first_chunk()?;
            Checksum::pseudo_v6(*source, *destination, protocol, 0)
        } else {
            let [source, destination] = ip.get(12..20)?.as_chunks::<4>().0.first_chunk()?;
            Checksum::pseudo_v4(*source, *destination, protocol, 0)
        };
        Some(PseudoSum(checksum.partial()))
    }
}

/// EtherType of an Ethernet frame in a tunnel.
const TRANSPARENT_ETHERNET: u16 = 0x6558;
