//! ARP over Ethernet for IPv4 (RFC 826).

use std::net::Ipv4Addr;

use super::EtherType;
use crate::mac::MacAddr;

/// Length of an ARP packet for Ethernet and IPv4, in bytes.
pub const PACKET_LEN: usize = 28;

/// Ethernet and IPv4: hardware type 1, protocol type, and the lengths of both addresses.
pub(crate) const KIND: [u8; 6] = {
    let [high, low] = EtherType::IPV4.0.to_be_bytes();
    [0, 1, high, low, 6, 4]
};

/// What an ARP packet asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpOperation(pub u16);

impl ArpOperation {
    /// Who has this address?
    pub const REQUEST: Self = Self(1);
    /// I have.
    pub const REPLY: Self = Self(2);
}

/// An ARP packet.
#[derive(Clone, Copy, Debug)]
pub struct Arp<'a>(&'a [u8; PACKET_LEN]);

impl<'a> Arp<'a> {
    /// `None` when it is too short, or not about Ethernet and IPv4.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let packet: &[u8; PACKET_LEN] = bytes.first_chunk()?;
        packet.starts_with(&KIND).then_some(Self(packet))
    }

    /// The operation.
    #[must_use]
    pub const fn operation(&self) -> ArpOperation {
        ArpOperation(u16::from_be_bytes([self.0[6], self.0[7]]))
    }

    /// The sender's MAC address.
    #[must_use]
    pub const fn sender_mac(&self) -> MacAddr {
        let p = self.0;
        MacAddr([p[8], p[9], p[10], p[11], p[12], p[13]])
    }

    /// The sender's IPv4 address.
    #[must_use]
    pub const fn sender_ip(&self) -> Ipv4Addr {
        let p = self.0;
        Ipv4Addr::new(p[14], p[15], p[16], p[17])
    }

    /// The target's MAC address; meaningless in a request.
    #[must_use]
    pub const fn target_mac(&self) -> MacAddr {
        let p = self.0;
        MacAddr([p[18], p[19], p[20], p[21], p[22], p[23]])
    }

    /// The target's IPv4 address.
    #[must_use]
    pub const fn target_ip(&self) -> Ipv4Addr {
        let p = self.0;
        Ipv4Addr::new(p[24], p[25], p[26], p[27])
    }
}
