//! What kind of packet a key is of.

use flow::{Key, TAG_PRESENT, slot};

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ipv4,
    Ipv6,
    /// ARP, or RARP.
    Arp,
    Mpls,
    /// A network service header.
    Nsh,
    Other,
}

impl Kind {
    pub(crate) fn of(key: &Key) -> Self {
        match key.get_u16(slot::ETH_TYPE) {
            0x0800 => Self::Ipv4,
            0x86DD => Self::Ipv6,
            0x0806 | 0x8035 => Self::Arp,
            0x8847 | 0x8848 => Self::Mpls,
            0x894F => Self::Nsh,
            _ => Self::Other,
        }
    }

    pub(crate) const fn is_ip(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Ipv6)
    }
}

pub(crate) fn is_mpls(key: &Key) -> bool {
    Kind::of(key) == Kind::Mpls
}

/// Whether a network service header is in front of it.
pub(crate) fn begins_with_nsh(key: &Key) -> bool {
    key.get_u32(slot::PACKET_TYPE) == 0x1_894F
}

/// Whether it has a tag.
pub(crate) fn is_tagged(key: &Key) -> bool {
    key.get_u16(slot::VLAN_TCI) & TAG_PRESENT != 0
}

/// Whether it is a later fragment, which has no header of the layer above.
pub(crate) fn is_later(key: &Key) -> bool {
    key.get_u8(slot::IP_FRAG) & flow::FRAG_LATER != 0
}

/// Whether it is of ICMP.
pub(crate) fn is_icmp(key: &Key) -> bool {
    let proto = key.get_u8(slot::IP_PROTO);
    matches!((Kind::of(key), proto), (Kind::Ipv4, 1) | (Kind::Ipv6, 58))
}

/// Whether it is of neighbour discovery: a solicitation or an advertisement.
pub(crate) fn is_discovery(key: &Key) -> bool {
    Kind::of(key) == Kind::Ipv6
        && is_icmp(key)
        && key.get(slot::TP_DST) == 0
        && matches!(key.get_u16(slot::TP_SRC), 135 | 136)
}
