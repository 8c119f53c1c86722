//! IPv6 and its extension headers (RFC 8200).

use std::net::Ipv6Addr;

use super::IpProtocol;
use crate::checksum::Checksum;

/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 40;

/// More extension headers than this in one packet are taken for an attack.
pub const MAX_EXTENSIONS: usize = 8;

/// An IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

/// What comes after the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper<'a> {
    /// The protocol.
    pub protocol: IpProtocol,
    /// As much of its header and payload as there is. Of a fragment that is not the first, it
    /// is the middle of something.
    pub payload: &'a [u8],
    /// Length of the extension headers, in bytes.
    pub extensions_len: usize,
    /// Offset of the fragment, in bytes; `None` when the packet is not fragmented.
    pub fragment_offset: Option<usize>,
}

/// What a fragment says of itself (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Offset in what the packet has behind the header of its fragments, in bytes.
    pub offset: usize,
    /// Whether more of it follows.
    pub has_more: bool,
    /// What fragments of one packet have in common.
    pub identification: u32,
    /// As much of this part of the packet as there is.
    pub payload: &'a [u8],
    /// Length of the extension headers before it, that of the fragment included.
    pub extensions_len: usize,
}

impl<'a> Ipv6<'a> {
    /// `None` when the version is not 6 or the header is not all there.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        // Whatever lies beyond the packet is padding.
        let payload = payload.get(..payload_len).unwrap_or(payload);
        (header[0] >> 4 == 6).then_some(Self { header, payload })
    }

    /// Differentiated services and congestion notification.
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// The flow label, 20 bits.
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0F, self.header[2], self.header[3]])
    }

    /// Length of what follows the fixed header, whether all of it is there or not.
    #[must_use]
    pub const fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// What follows the fixed header: an extension header, perhaps; see [`upper`](Self::upper).
    #[must_use]
    pub const fn next_header(&self) -> IpProtocol {
        IpProtocol(self.header[6])
    }

    /// Hop limit.
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.address::<8>()
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        self.address::<24>()
    }

    /// As much of the payload as there is, extension headers included.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether all of the packet is there.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.payload.len() == self.payload_len() as usize
    }

    /// Walks over the extension headers. `None` when they do not end within the bytes that are
    /// there, or there are more than [`MAX_EXTENSIONS`].
    #[must_use]
    pub fn upper(&self) -> Option<Upper<'a>> {
        let mut upper = Upper {
            protocol: self.next_header(),
            payload: self.payload,
            extensions_len: 0,
            fragment_offset: None,
        };
        for _ in 0..=MAX_EXTENSIONS {
            let Some(len) = extension_len(upper.protocol, upper.payload)? else {
                return Some(upper);
            };
            let (extension, rest) = upper.payload.split_at_checked(len)?;
            let [next, _, high, low, ..] = extension else { return None };
            if upper.protocol.0 == FRAGMENT {
                let offset = usize::from(u16::from_be_bytes([*high, *low]) & 0xFFF8);
                upper.fragment_offset = Some(offset);
            }
            upper.protocol = IpProtocol(*next);
            upper.payload = rest;
            upper.extensions_len = upper.extensions_len.checked_add(len)?;
            if upper.fragment_offset.is_some_and(|offset| offset > 0) {
                // The rest of the chain, if any, is in the first fragment.
                return Some(upper);
            }
        }
        None
    }

    /// What the packet says of itself as a fragment, if it is one. A packet that is whole is none, even if
    /// it has the header (RFC 6946).
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment<'a>> {
        let (mut next, mut payload, mut extensions_len) =
            (self.next_header(), self.payload, 0_usize);
        for _ in 0..=MAX_EXTENSIONS {
            let len = extension_len(next, payload)??;
            let (extension, rest) = payload.split_at_checked(len)?;
            let [after, _, high, low, a, b, c, d, ..] = *extension else { return None };
            extensions_len = extensions_len.checked_add(len)?;
            if next.0 == FRAGMENT {
                let bits = u16::from_be_bytes([high, low]);
                return (bits & 0xFFF9 != 0).then(|| Fragment {
                    offset: usize::from(bits & 0xFFF8),
                    has_more: bits & 1 != 0,
                    identification: u32::from_be_bytes([a, b, c, d]),
                    payload: rest,
                    extensions_len,
                });
            }
            (next, payload) = (IpProtocol(after), rest);
        }
        None
    }

    /// The start of the upper layer's checksum: `len` is that of its header and payload.
    #[must_use]
    pub fn pseudo_header(&self, protocol: IpProtocol, len: u32) -> Checksum {
        Checksum::pseudo_v6(self.source().octets(), self.destination().octets(), protocol.0, len)
    }

    fn address<const AT: usize>(&self) -> Ipv6Addr {
        let bytes = self.header.get(AT..).and_then(|rest| rest.first_chunk::<16>());
        bytes.map_or(Ipv6Addr::UNSPECIFIED, |bytes| Ipv6Addr::from(*bytes))
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// Length in bytes of the extension header at the start of `bytes`: `Some(None)` when `protocol`
/// is none, `None` when not even the length is there.
#[allow(clippy::option_option, reason = "two different ends of the walk")]
fn extension_len(protocol: IpProtocol, bytes: &[u8]) -> Option<Option<usize>> {
    let units = |bytes: &[u8]| bytes.get(1).map(|len| usize::from(*len));
    match protocol.0 {
        HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => Some(Some((units(bytes)? + 1) * 8)),
        FRAGMENT => Some(Some(8)),
        // RFC 4302, section 2.2: in units of four bytes, minus two.
        AUTHENTICATION => Some(Some((units(bytes)? + 2) * 4)),
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x6A, 0xB1, 0x23, 0x45];
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend([next_header, 64]);
        bytes.extend([0x20; 16]);
        bytes.extend([0xFE; 16]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn fields_are_where_they_belong() {
        let mut bytes = packet(17, &[1, 2, 3]);
        bytes.extend([0; 9]);
        let ip = Ipv6::parse(&bytes).unwrap();
        assert_eq!((ip.traffic_class(), ip.flow_label()), (0xAB, 0x12345));
        assert_eq!((ip.next_header(), ip.hop_limit()), (IpProtocol::UDP, 64));
        assert_eq!((ip.source(), ip.destination()), ([0x20; 16].into(), [0xFE; 16].into()));
        assert_eq!((ip.payload(), ip.is_complete()), (&[1, 2, 3][..], true));
        assert!(Ipv6::parse(&bytes[..39]).is_none());
        bytes[0] = 0x45;
        assert!(Ipv6::parse(&bytes).is_none());
    }

    #[test]
    fn extension_headers_are_walked_over() {
        let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, then destination options
        payload.extend([51, 1].iter().chain(&[0; 14])); // 16 bytes, then authentication
        payload.extend([44, 1].iter().chain(&[0; 10])); // 12 bytes, then fragment
        payload.extend([6, 0, 0, 1, 0, 0, 0, 9]); // offset 0, more to come, then TCP
        payload.extend([0xAA; 5]);
        let bytes = packet(0, &payload);
        let upper = Ipv6::parse(&bytes).unwrap().upper().unwrap();
        let expected = Upper {
            protocol: IpProtocol::TCP,
            payload: &[0xAA; 5],
            extensions_len: 44,
            fragment_offset: Some(0),
        };
        assert_eq!(upper, expected);
        for len in 40..84 {
            assert!(Ipv6::parse(&bytes[..len]).unwrap().upper().is_none(), "cut at {len}");
        }
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        let bytes = packet(44, &[60, 0, 0x01, 0x01, 0, 0, 0, 9, 0xFF, 0xFF]);
        let upper = Ipv6::parse(&bytes).unwrap().upper().unwrap();
        assert_eq!((upper.fragment_offset, upper.payload), (Some(256), &[0xFF, 0xFF][..]));
    }

    #[test]
    fn fragments_say_what_they_are() {
        let of = |bits: u16| {
            let [high, low] = bits.to_be_bytes();
            let bytes = packet(60, &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, high, low, 1, 2, 3, 4, 0xFF]);
            let ip = Ipv6::parse(&bytes).unwrap();
            ip.fragment().map(|part| {
                assert_eq!((part.identification, part.payload), (0x0102_0304, &[0xFF][..]));
                assert_eq!(part.extensions_len, 16);
                (part.offset, part.has_more)
            })
        };
        assert_eq!((of(0x0101), of(0x0100)), (Some((256, true)), Some((256, false))));
        assert_eq!((of(1), of(0)), (Some((0, true)), None));
        for len in 0..56 {
            let bytes = packet(60, &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 1, 2, 3, 4]);
            let ip = bytes.get(..len).and_then(Ipv6::parse);
            assert_eq!(ip.and_then(|ip| ip.fragment()), None, "cut at {len}");
        }
        assert_eq!(Ipv6::parse(&packet(17, &[0; 8])).unwrap().fragment(), None);
    }

    #[test]
    fn an_endless_chain_is_cut() {
        let chain = |count: usize| {
            let mut payload = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count);
            *payload.get_mut(count * 8 - 8).unwrap() = 17;
            packet(60, &payload)
        };
        assert!(Ipv6::parse(&chain(MAX_EXTENSIONS)).unwrap().upper().is_some());
        assert!(Ipv6::parse(&chain(MAX_EXTENSIONS + 1)).unwrap().upper().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            next in prop::sample::select(vec![0_u8, 6, 43, 44, 51, 60, 135]),
            payload in prop::collection::vec(prop_oneof![Just(0_u8), Just(60), any::<u8>()], 0..300),
        ) {
            let bytes = packet(next, &payload);
            let ip = Ipv6::parse(&bytes).unwrap();
            if let Some(upper) = ip.upper() {
                prop_assert_eq!(upper.extensions_len + upper.payload.len(), payload.len());
            }
        }
    }
}
