//! Where the headers of a TCP or UDP frame are.

use super::{BadOffload, Capabilities, MAX_SEGMENTS};
use crate::frame::HEAD_CAPACITY;
use crate::headers::ipv6::MAX_EXTENSIONS;
use crate::headers::{EtherType, IpProtocol};

/// VLAN tags that are skipped; more are used nowhere.
const MAX_TAGS: usize = 2;

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
}

/// Offsets of a frame's headers. All of them lie in the frame's private head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether it is IPv6.
    pub is_v6: bool,
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
fn ether_type(head: &[u8]) -> Option<(EtherType, usize)> {
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

fn byte(head: &[u8], at: usize) -> Option<u8> {
    head.get(at).copied()
}

/// The big-endian number at `at`.
fn word(head: &[u8], at: usize) -> Option<u16> {
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
        let (protocol, transport_at) =
            if is_v6 { behind_ipv6(head, network_at)? } else { behind_ipv4(head, network_at)? };
        let (transport, header) = match protocol {
            IpProtocol::TCP => (Transport::Tcp, tcp_len(head, transport_at)?),
            IpProtocol::UDP => (Transport::Udp, 8),
            _ => return None,
        };
        let headers = transport_at + header;
        (headers <= head.len().min(len)).then_some(Self {
            is_v6,
            transport,
            network_at,
            transport_at,
            headers,
        })
    }

    /// What a receiver must take to cut such a frame itself.
    #[must_use]
    pub const fn segmentation(&self) -> Capabilities {
        match (self.transport, self.is_v6) {
            (Transport::Tcp, false) => Capabilities::TSO4,
            (Transport::Tcp, true) => Capabilities::TSO6,
            (Transport::Udp, false) => Capabilities::USO4,
            (Transport::Udp, true) => Capabilities::USO6,
        }
    }

    /// Into how many frames of `gso_size` payload bytes a frame of `len` bytes is cut.
    ///
    /// # Errors
    /// When there is no end of them, or they are too long for IP.
    pub fn segments(&self, gso_size: u16, len: usize) -> Result<usize, BadOffload> {
        let gso_size = usize::from(gso_size);
        let payload = len.saturating_sub(self.headers);
        let longest = payload.min(gso_size);
        // Then the IP packet's length fits its field as well.
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

/// What is behind the IPv4 header at `at`, and where.
fn behind_ipv4(head: &[u8], at: usize) -> Option<(IpProtocol, usize)> {
    let first = byte(head, at)?;
    let len = usize::from(first & 0x0F) * 4;
    let is_fragment = word(head, at + 6)? & 0x3FFF != 0;
    let protocol = IpProtocol(byte(head, at + 9)?);
    (first >> 4 == 4 && len >= 20 && !is_fragment).then_some((protocol, at + len))
}

/// What is behind the IPv6 header at `at` and its extension headers, and where.
fn behind_ipv6(head: &[u8], at: usize) -> Option<(IpProtocol, usize)> {
    if byte(head, at)? >> 4 != 6 {
        return None;
    }
    let mut next = byte(head, at + 6)?;
    let mut at = at + 40;
    for _ in 0..=MAX_EXTENSIONS {
        let units = || byte(head, at + 1).map(usize::from);
        let len = match next {
            // Hop-by-hop and destination options, mobility.
            0 | 60 | 135 => (units()? + 1) * 8,
            // Routing: while there is a way to go, the checksum is about another destination
            // than the header's (RFC 8200, section 8.1).
            43 if byte(head, at + 3)? == 0 => (units()? + 1) * 8,
            // A fragment cannot be cut, nor can what is authenticated or encrypted.
            43 | 44 | 50 | 51 => return None,
            protocol => return Some((IpProtocol(protocol), at)),
        };
        next = byte(head, at)?;
        at += len;
    }
    None
}

/// Length of the TCP header at `at`.
fn tcp_len(head: &[u8], at: usize) -> Option<usize> {
    let len = usize::from(byte(head, at + 12)? >> 4) * 4;
    (len >= 20).then_some(len)
}
