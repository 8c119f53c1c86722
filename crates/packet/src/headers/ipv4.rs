//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use super::IpProtocol;
use crate::checksum::Checksum;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// An IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// `None` when the version is not 4, the header is not all there, or a length in it cannot
    /// be true. The checksum is not looked at; see [`checksum_is_valid`](Self::checksum_is_valid).
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let header_len = usize::from(header[0] & 0x0F) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || total_len < header_len {
            return None;
        }
        // Whatever lies beyond the packet is padding.
        let bytes = bytes.get(..total_len).unwrap_or(bytes);
        let options = bytes.get(HEADER_LEN..header_len)?;
        Some(Self { header, options, payload: bytes.get(header_len..)? })
    }

    /// Length of the header with its options: 20 to 60 bytes.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Length of the whole packet as the header gives it, whether all of it is there or not.
    #[must_use]
    pub const fn total_len(&self) -> u16 {
        self.word(2)
    }

    /// Differentiated services and congestion notification.
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        self.header[1]
    }

    /// What its fragments have in common.
    #[must_use]
    pub const fn identification(&self) -> u16 {
        self.word(4)
    }

    /// Whether routers must not fragment it.
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.header[6] & 0x40 != 0
    }

    /// Whether it is a fragment, be it the first, a middle or the last one.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.word(6) & 0x3FFF != 0
    }

    /// Offset of the fragment in the original payload, in bytes. Only at 0 does the payload
    /// begin with a transport header.
    #[must_use]
    pub const fn fragment_offset(&self) -> usize {
        (self.word(6) & 0x1FFF) as usize * 8
    }

    /// Whether more of the packet is in fragments behind this one.
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.word(6) & 0x2000 != 0
    }

    /// Time to live.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// What the payload is.
    #[must_use]
    pub const fn protocol(&self) -> IpProtocol {
        IpProtocol(self.header[9])
    }

    /// The header's checksum field.
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        self.word(10)
    }

    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        let h = self.header;
        Ipv4Addr::new(h[12], h[13], h[14], h[15])
    }

    /// Where it goes.
    #[must_use]
    pub const fn destination(&self) -> Ipv4Addr {
        let h = self.header;
        Ipv4Addr::new(h[16], h[17], h[18], h[19])
    }

    /// The options, with their padding.
    #[must_use]
    pub const fn options(&self) -> &'a [u8] {
        self.options
    }

    /// As much of the payload as there is.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether all of the packet is there.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.header_len() + self.payload.len() == self.total_len() as usize
    }

    /// Whether the header's checksum is right.
    #[must_use]
    pub fn checksum_is_valid(&self) -> bool {
        let mut sum = Checksum::new();
        sum.add(self.header);
        sum.add(self.options);
        sum.is_valid()
    }

    /// The start of the transport's checksum, for the whole payload.
    #[must_use]
    pub fn pseudo_header(&self) -> Checksum {
        let (source, destination) = (self.source().octets(), self.destination().octets());
        let header_len = u16::try_from(self.header_len()).unwrap_or(u16::MAX);
        let len = self.total_len().saturating_sub(header_len);
        Checksum::pseudo_v4(source, destination, self.protocol().0, len)
    }

    const fn word(&self, at: u8) -> u16 {
        let h = self.header;
        match at {
            2 => u16::from_be_bytes([h[2], h[3]]),
            4 => u16::from_be_bytes([h[4], h[5]]),
            6 => u16::from_be_bytes([h[6], h[7]]),
            _ => u16::from_be_bytes([h[10], h[11]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A UDP datagram of 115 bytes, without its payload.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn fields_are_where_they_belong() {
        let ip = Ipv4::parse(&HEADER).unwrap();
        assert_eq!((ip.header_len(), ip.total_len(), ip.is_complete()), (20, 115, false));
        assert_eq!((ip.ttl(), ip.protocol(), ip.checksum()), (64, IpProtocol::UDP, 0xb861));
        assert_eq!(ip.source(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(ip.destination(), Ipv4Addr::new(192, 168, 0, 199));
        assert!(ip.dont_fragment() && !ip.is_fragment() && ip.checksum_is_valid());
    }

    #[test]
    fn padding_is_cut_off() {
        let mut bytes = [HEADER.to_vec(), vec![7; 200]].concat();
        let ip = Ipv4::parse(&bytes).unwrap();
        assert_eq!((ip.payload().len(), ip.is_complete()), (95, true));
        bytes[6..8].copy_from_slice(&[0x20, 0x02]);
        let ip = Ipv4::parse(&bytes).unwrap();
        assert_eq!((ip.is_fragment(), ip.fragment_offset()), (true, 16));
        assert!(!ip.checksum_is_valid());
    }

    #[test]
    fn impossible_headers_are_refused() {
        for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x46), (3, 19)] {
            let mut bytes = HEADER;
            bytes[at] = value;
            assert!(Ipv4::parse(&bytes).is_none(), "byte {at} = {value:#x}");
        }
        assert!(Ipv4::parse(&HEADER[..19]).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 20..100)) {
            bytes[0] = 0x40 | bytes[0] & 0x0F;
            if let Some(ip) = Ipv4::parse(&bytes) {
                prop_assert!(ip.header_len() + ip.payload().len() <= bytes.len());
                prop_assert!(ip.header_len() >= 20);
                let _ = (ip.checksum_is_valid(), ip.pseudo_header(), ip.fragment_offset());
            }
        }
    }
}
