//! Where the headers of a TCP or UDP frame are.

use super::Capabilities;
use crate::frame::HEAD_CAPACITY;
use crate::headers::ethernet::MAX_TAGS;
use crate::headers::ipv6::MAX_EXTENSIONS;
use crate::headers::{EtherType, IpProtocol};

/// A transport protocol that can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Where its checksum is, from its first byte.
    #[must_use]
    pub const fn csum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// What a receiver must take to cut it itself.
    #[must_use]
    pub const fn segmentation(self, is_v6: bool) -> Capabilities {
        match (self, is_v6) {
            (Self::Tcp, false) => Capabilities::TSO4,
            (Self::Tcp, true) => Capabilities::TSO6,
            (Self::Udp, false) => Capabilities::USO4,
            (Self::Udp, true) => Capabilities::USO6,
        }
    }
}

/// Offsets of a frame's headers. All of them lie in the frame's private head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// Whether a routing header has segments left: then the checksum is about another destination
    /// than the header's (RFC 8200, section 8.1).
    pub is_routed: bool,
    /// The transport protocol.
    pub transport: Transport,
    /// Where the IP header is.
    pub network_at: usize,
    /// Where the transport header is.
    pub transport_at: usize,
    /// Where the payload is: the length of all headers.
    pub headers: usize,
}

/// Length of the Ethernet header with up to two VLAN tags; `None` when it is not all there.
#[must_use]
pub fn link_len(head: &[u8]) -> Option<usize> {
    ether_type(head).map(|(_, len)| len)
}

/// What the Ethernet frame carries, and where.
pub(crate) fn ether_type(head: &[u8]) -> Option<(EtherType, usize)> {
    let mut at = 14;
    let mut ether_type = EtherType(word(head, 12)?);
    for _ in 0..MAX_TAGS {
        if !ether_type.is_tag() {
            break;
        }
        ether_type = EtherType(word(head, at + 2)?);
        at += 4;
    }
    Some((ether_type, at))
}

pub(super) fn byte(head: &[u8], at: usize) -> Option<u8> {
    head.get(at).copied()
}

/// The big-endian number at `at`.
pub(super) fn word(head: &[u8], at: usize) -> Option<u16> {
    head.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

impl Layout {
    /// Finds the headers of a TCP or UDP frame of `len` bytes whose private first part is
    /// `head`. `None` when it is none, is a fragment, has more than
    /// [`HEAD_CAPACITY`] bytes of headers, or headers that end beyond `head` or contradict each
    /// other.
    ///
    /// The lengths that the headers give for what follows are not looked at: they are made anew
    /// when the frame is cut, and its receiver checks them when it is not.
    #[must_use]
    pub fn parse(head: &[u8], len: usize) -> Option<Self> {
        let head = head.get(..HEAD_CAPACITY.min(head.len()))?;
        let (ether_type, network_at) = ether_type(head)?;
        let is_v6 = match ether_type {
            EtherType::IPV4 => false,
            EtherType::IPV6 => true,
            _ => return None,
        };
        let behind =
            if is_v6 { behind_ipv6(head, network_at)? } else { behind_ipv4(head, network_at)? };
        let Behind { protocol, at: transport_at, is_routed } = behind;
        let (transport, header) = match protocol {
            IpProtocol::TCP => (Transport::Tcp, tcp_len(head, transport_at)?),
            IpProtocol::UDP => (Transport::Udp, 8),
            _ => return None,
        };
        let headers = transport_at + header;
        (headers <= head.len().min(len)).then_some(Self {
            is_v6,
            is_routed,
            transport,
            network_at,
            transport_at,
            headers,
        })
    }
}

/// What is behind an IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    pub(crate) protocol: IpProtocol,
    /// Where it is.
    pub(crate) at: usize,
    /// As [`Layout::is_routed`].
    pub(crate) is_routed: bool,
}

/// What is behind the IPv4 header at `at`.
pub(crate) fn behind_ipv4(head: &[u8], at: usize) -> Option<Behind> {
    let first = byte(head, at)?;
    let len = usize::from(first & 0x0F) * 4;
    let is_fragment = word(head, at + 6)? & 0x3FFF != 0;
    let protocol = IpProtocol(byte(head, at + 9)?);
    let behind = Behind { protocol, at: at + len, is_routed: false };
    (first >> 4 == 4 && len >= 20 && !is_fragment).then_some(behind)
}

/// What is behind the IPv6 header at `at` and its extension headers: fragments, and what is
/// authenticated or encrypted, are protocols of their own here, since they cannot be cut.
pub(crate) fn behind_ipv6(head: &[u8], at: usize) -> Option<Behind> {
    if byte(head, at)? >> 4 != 6 {
        return None;
    }
    let mut next = byte(head, at + 6)?;
    let mut at = at + 40;
    let mut is_routed = false;
    for _ in 0..=MAX_EXTENSIONS {
        let units = || byte(head, at + 1).map(usize::from);
        let len = match next {
            // Hop-by-hop and destination options, mobility.
            0 | 60 | 135 => (units()? + 1) * 8,
            43 => {
                is_routed |= byte(head, at + 3)? != 0;
                (units()? + 1) * 8
            }
            protocol => return Some(Behind { protocol: IpProtocol(protocol), at, is_routed }),
        };
        next = byte(head, at)?;
        at += len;
    }
    None
}

/// Length of the TCP header at `at`.
pub(super) fn tcp_len(head: &[u8], at: usize) -> Option<usize> {
    let len = usize::from(byte(head, at + 12)? >> 4) * 4;
    (len >= 20).then_some(len)
}
