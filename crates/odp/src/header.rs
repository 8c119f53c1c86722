//! Headers as a datapath has them: which fields, in which order.

use flow::{Key, slot};

use crate::value::{Fields, Line, Style};

/// A header whose fields are set together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Line],
    /// Whether all of it is set, where anything is.
    pub(crate) is_whole: bool,
}

const fn header(name: &'static str, fields: &'static [Line]) -> Header {
    Header { name, fields, is_whole: false }
}

pub(crate) const ETHERNET: Header =
    header("eth", &[("src", slot::ETH_SRC, Style::Mac), ("dst", slot::ETH_DST, Style::Mac)]);

pub(crate) const IPV4: Header = header(
    "ipv4",
    &[
        ("src", slot::IPV4_SRC, Style::Ipv4),
        ("dst", slot::IPV4_DST, Style::Ipv4),
        ("tos", slot::IP_TOS, Style::Hex),
        ("ttl", slot::IP_TTL, Style::Decimal),
    ],
);

pub(crate) const IPV6: Header = header(
    "ipv6",
    &[
        ("src", slot::IPV6_SRC, Style::Ipv6),
        ("dst", slot::IPV6_DST, Style::Ipv6),
        ("label", slot::IPV6_LABEL, Style::Hex),
        ("tclass", slot::IP_TOS, Style::Hex),
        ("hlimit", slot::IP_TTL, Style::Decimal),
    ],
);

pub(crate) const ARP: Header = header(
    "arp",
    &[
        ("sip", slot::IPV4_SRC, Style::Ipv4),
        ("tip", slot::IPV4_DST, Style::Ipv4),
        ("op", slot::IP_PROTO, Style::Decimal),
        ("sha", slot::ARP_SHA, Style::Mac),
        ("tha", slot::ARP_THA, Style::Mac),
    ],
);

pub(crate) const ND: Header = header(
    "nd",
    &[
        ("target", slot::ND_TARGET, Style::Ipv6),
        ("sll", slot::ARP_SHA, Style::Mac),
        ("tll", slot::ARP_THA, Style::Mac),
    ],
);

pub(crate) const ND_EXTENSIONS: Header = header(
    "nd_ext",
    &[
        ("nd_reserved", slot::ND_RESERVED, Style::Hex),
        ("nd_options_type", slot::ND_OPTIONS_TYPE, Style::Decimal),
    ],
);

const TYPE_AND_CODE: &[Line] =
    &[("type", slot::TP_SRC, Style::Decimal), ("code", slot::TP_DST, Style::Decimal)];

pub(crate) const ICMP: Header = Header { name: "icmp", fields: TYPE_AND_CODE, is_whole: true };

pub(crate) const ICMPV6: Header = Header { name: "icmpv6", fields: TYPE_AND_CODE, is_whole: true };

const PORTS: &[Line] =
    &[("src", slot::TP_SRC, Style::Decimal), ("dst", slot::TP_DST, Style::Decimal)];

/// The header of a protocol that has ports.
pub(crate) const fn transport(proto: u8) -> Option<Header> {
    let name = match proto {
        6 => "tcp",
        17 => "udp",
        132 => "sctp",
        _ => return None,
    };
    Some(header(name, PORTS))
}

/// The outermost label of MPLS; with a mask, only what counts of it.
pub(crate) fn label(key: &Key, mask: Option<&Key>) -> String {
    let mut fields = Fields::default();
    let lines = [
        ("label", slot::MPLS_LABEL, Style::Decimal),
        ("tc", slot::MPLS_TC, Style::Decimal),
        ("ttl", slot::MPLS_TTL, Style::Decimal),
        ("bos", slot::MPLS_BOS, Style::Decimal),
    ];
    fields.add_lines(&lines, |slot| {
        (key.get(slot), mask.map_or_else(|| slot.ones(), |mask| mask.get(slot)))
    });
    fields.0
}
