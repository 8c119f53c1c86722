//! Ethernet II and IEEE 802.1Q.

use crate::mac::MacAddr;

/// Length of an Ethernet header without tags, in bytes.
pub const HEADER_LEN: usize = 14;
/// Length of a VLAN tag, in bytes.
pub const TAG_LEN: usize = 4;
/// VLAN tags that count as part of the header: a service provider's and a customer's. There is no
/// limit in the standard; two is what provider bridges use.
pub const MAX_TAGS: usize = 2;
/// What a frame may have on top of its MTU: an Ethernet header and two VLAN tags, in bytes.
pub const LINK_HEADERS: usize = HEADER_LEN + MAX_TAGS * TAG_LEN;

/// What an Ethernet frame carries; below 0x0600 it is a length instead (IEEE 802.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// A VLAN tag (802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86DD);
    /// A service provider's VLAN tag (802.1ad).
    pub const QINQ: Self = Self(0x88A8);

    /// Whether a VLAN tag follows.
    #[must_use]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::QINQ)
    }
}

/// An Ethernet frame's header.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// `None` when `bytes` has fewer than 14.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk()?;
        Some(Self { header, payload })
    }

    /// Where the frame goes.
    #[must_use]
    #[inline]
    pub const fn destination(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.header;
        MacAddr([a, b, c, d, e, f])
    }

    /// Where it comes from.
    #[must_use]
    #[inline]
    pub const fn source(&self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header;
        MacAddr([a, b, c, d, e, f])
    }

    /// What follows the header: a tag, if there is one.
    #[must_use]
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.header[12], self.header[13]]))
    }

    /// The bytes after the header, padding included.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The outer VLAN tag; `None` when the frame has none, or ends before its end.
    #[must_use]
    #[inline]
    pub fn vlan(&self) -> Option<VlanTag<'a>> {
        if self.ether_type().is_tag() { VlanTag::parse(self.payload) } else { None }
    }

    /// What the frame carries behind up to two VLAN tags; `None` when it ends within them.
    #[must_use]
    pub fn inner(&self) -> Option<(EtherType, &'a [u8])> {
        let (mut ether_type, mut payload) = (self.ether_type(), self.payload);
        for _ in 0..2 {
            if !ether_type.is_tag() {
                break;
            }
            let tag = VlanTag::parse(payload)?;
            (ether_type, payload) = (tag.ether_type(), tag.payload());
        }
        Some((ether_type, payload))
    }
}

/// A VLAN tag: the four bytes from the tag control information to the next EtherType.
#[derive(Clone, Copy, Debug)]
pub struct VlanTag<'a> {
    tag: &'a [u8; TAG_LEN],
    payload: &'a [u8],
}

impl<'a> VlanTag<'a> {
    /// `bytes` starts after the tag's EtherType, as an Ethernet payload does.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (tag, payload) = bytes.split_first_chunk()?;
        Some(Self { tag, payload })
    }

    /// Priority, drop eligibility and VLAN in one.
    #[must_use]
    pub const fn control(&self) -> u16 {
        u16::from_be_bytes([self.tag[0], self.tag[1]])
    }

    /// The VLAN, 0 to 4095; 0 means "priority only".
    #[must_use]
    pub const fn vlan(&self) -> u16 {
        self.control() & 0x0FFF
    }

    /// The priority code point, 0 to 7.
    #[must_use]
    pub const fn priority(&self) -> u8 {
        self.tag[0] >> 5
    }

    /// Whether the frame may be dropped first.
    #[must_use]
    pub const fn drop_eligible(&self) -> bool {
        self.tag[0] & 0x10 != 0
    }

    /// What follows the tag.
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.tag[2], self.tag[3]]))
    }

    /// The bytes after the tag, padding included.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An Ethernet header to rewrite in place.
#[derive(Debug)]
pub struct EthernetMut<'a>(&'a mut [u8; HEADER_LEN]);

impl<'a> EthernetMut<'a> {
    /// `None` when `bytes` has fewer than 14.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Self)
    }

    /// Sets where the frame goes.
    #[inline]
    pub fn set_destination(&mut self, to: MacAddr) {
        if let Some(field) = self.0.first_chunk_mut() {
            *field = to.0;
        }
    }

    /// Sets where it comes from.
    #[inline]
    pub fn set_source(&mut self, from: MacAddr) {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = self.0;
        [*a, *b, *c, *d, *e, *f] = from.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x06, 0xAA, 0xBB];

    #[test]
    fn fields_are_where_they_belong() {
        let ethernet = Ethernet::parse(&PLAIN).unwrap();
        assert_eq!(ethernet.destination(), MacAddr([1, 2, 3, 4, 5, 6]));
        assert_eq!(ethernet.source(), MacAddr([7, 8, 9, 10, 11, 12]));
        assert_eq!(ethernet.inner(), Some((EtherType::ARP, &[0xAA, 0xBB][..])));
        assert!(ethernet.vlan().is_none());
        assert!(Ethernet::parse(&PLAIN[..13]).is_none());
    }

    #[test]
    fn tags_are_read_and_skipped() {
        let mut bytes = PLAIN[..12].to_vec();
        bytes.extend([0x88, 0xA8, 0xF0, 0x07, 0x81, 0x00, 0x0F, 0xFF, 0x86, 0xDD, 9]);
        let ethernet = Ethernet::parse(&bytes).unwrap();
        let tag = ethernet.vlan().unwrap();
        assert_eq!((tag.vlan(), tag.priority(), tag.drop_eligible()), (7, 7, true));
        assert_eq!(ethernet.inner(), Some((EtherType::IPV6, &[9][..])));
        for len in 14..22 {
            assert!(Ethernet::parse(&bytes[..len]).unwrap().inner().is_none());
        }
    }

    #[test]
    fn addresses_are_rewritten_in_place_and_nothing_else() {
        let mut bytes = PLAIN;
        let mut ethernet = EthernetMut::parse(&mut bytes).unwrap();
        ethernet.set_destination(MacAddr::BROADCAST);
        ethernet.set_source(MacAddr([2; 6]));
        assert_eq!(bytes[..12], [[0xFF; 6], [2; 6]].concat());
        assert_eq!(bytes[12..], PLAIN[12..]);
        assert!(EthernetMut::parse(&mut bytes[..13]).is_none());
    }
}
