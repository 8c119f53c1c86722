//! Values of fields, and parts of fields, as ovs-ofctl writes them.

use std::fmt::{self, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Field, Format, Subfield, ones};
use crate::port_no::PortNo;
use crate::version::Version;

/// Flags with names, the lowest bit first.
pub(crate) type Flags = &'static [&'static str];

/// Those of a connection.
pub(crate) static CT_STATE: Flags = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
/// Those of TCP.
pub(crate) static TCP_FLAGS: Flags =
    &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
/// Those of a tunnel.
pub(crate) static TUNNEL_FLAGS: Flags = &["oam"];

/// Kinds of fragments: name, value, mask.
pub(crate) static FRAGMENTS: &[(&str, u128, u128)] = &[
    ("no", 0, 1),
    ("yes", 1, 1),
    ("first", 1, 3),
    ("later", 3, 3),
    ("not_later", 0, 2),
    ("no", 0, 3),
    ("later", 2, 2),
];

/// A number in base 16 as `0x12`, but 0 as it is.
pub(crate) struct Hex(pub(crate) u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}

/// Flags all of which count: `new|est`.
pub(crate) fn flags(f: &mut Formatter<'_>, names: Flags, value: u128) -> fmt::Result {
    if value == 0 {
        return f.write_str("0");
    }
    let mut separator = "";
    for (at, name) in names.iter().enumerate() {
        if value >> at & 1 != 0 {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
    }
    let unknown = value >> names.len() << names.len();
    if unknown != 0 {
        write!(f, "{separator}{unknown:#x}")?;
    }
    Ok(())
}

/// Flags some of which count: `+new-est`.
pub(crate) fn masked_flags(
    f: &mut Formatter<'_>,
    names: Flags,
    value: u128,
    mask: u128,
) -> fmt::Result {
    if mask == 0 {
        return f.write_str("0/0");
    }
    for at in (0..128).filter(|at| mask >> at & 1 != 0) {
        let sign = if value >> at & 1 != 0 { '+' } else { '-' };
        write!(f, "{sign}{}", names.get(at).unwrap_or(&"[Unknown]"))?;
    }
    Ok(())
}

/// How many ones a mask of `width` bits begins with, if it has no others.
pub(crate) fn prefix(mask: u128, width: u16) -> Option<u32> {
    let length = u32::from(width).checked_sub(mask.trailing_zeros().min(width.into()))?;
    let rest = u32::from(width).saturating_sub(length);
    (mask == ones(width) & !ones(u16::try_from(rest).ok()?)).then_some(length)
}

/// An IPv4 address and its mask.
pub(crate) fn ipv4(f: &mut Formatter<'_>, value: u128, mask: u128) -> fmt::Result {
    let address = |value: u128| Ipv4Addr::from_bits(u32::try_from(value & ones(32)).unwrap_or(0));
    write!(f, "{}", address(value))?;
    match prefix(mask, 32) {
        Some(32) => Ok(()),
        Some(length) => write!(f, "/{length}"),
        None => write!(f, "/{}", address(mask)),
    }
}

/// An IPv6 address as the C library writes it, which has IPv4 addresses at its end for less.
pub(crate) struct Ip6(pub(crate) u128);

impl fmt::Display for Ip6 {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.0);
        // ::1.2.3.4, if the upper of the two words is not 0.
        if self.0 >> 32 == 0 && self.0 >> 16 != 0 {
            return write!(f, "::{}", Ipv4Addr::from_bits(u32::try_from(self.0).unwrap_or(0)));
        }
        write!(f, "{address}")
    }
}

/// An IPv6 address and its mask.
pub(crate) fn ipv6(f: &mut Formatter<'_>, value: u128, mask: u128) -> fmt::Result {
    write!(f, "{}", Ip6(value))?;
    match prefix(mask, 128) {
        Some(128) => Ok(()),
        Some(length) => write!(f, "/{length}"),
        None => write!(f, "/{}", Ip6(mask)),
    }
}

/// A MAC address and its mask.
pub(crate) fn mac(f: &mut Formatter<'_>, value: u128, mask: u128) -> fmt::Result {
    let bytes = |value: u128| {
        let [.., a, b, c, d, e, g] = value.to_be_bytes();
        packet::MacAddr([a, b, c, d, e, g])
    };
    write!(f, "{}", bytes(value))?;
    if mask & ones(48) == ones(48) { Ok(()) } else { write!(f, "/{}", bytes(mask)) }
}

/// A value and its mask as actions have them.
pub(crate) struct Masked {
    pub(crate) field: Field,
    pub(crate) value: u128,
    pub(crate) mask: u128,
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { field, value, mask } = *self;
        let is_exact = mask == field.byte_mask();
        if mask == 0 {
            return f.write_str("ANY");
        }
        match field.format() {
            Format::Port if is_exact => {
                let port = u16::try_from(value).map_or(PortNo::ANY, PortNo::from_v10);
                write!(f, "{port}")
            }
            Format::PortOxm if is_exact => {
                write!(f, "{}", PortNo(u32::try_from(value).unwrap_or(u32::MAX)))
            }
            Format::Hex => {
                write!(f, "{}", Hex(value))?;
                if is_exact { Ok(()) } else { write!(f, "/{}", Hex(mask)) }
            }
            Format::Ethernet => mac(f, value, mask),
            Format::Ipv4 => ipv4(f, value, mask),
            Format::Ipv6 => ipv6(f, value, mask),
            Format::Frag => {
                let kind =
                    FRAGMENTS.iter().find(|(_, kind, bits)| (*kind, *bits) == (value, mask & 3));
                f.write_str(kind.map_or("<error>", |(name, ..)| name))
            }
            Format::CtState if is_exact => flags(f, CT_STATE, value),
            Format::CtState => masked_flags(f, CT_STATE, value, mask),
            Format::TcpFlags if is_exact => flags(f, TCP_FLAGS, value),
            Format::TcpFlags => masked_flags(f, TCP_FLAGS, value, mask & ones(12)),
            // There is only one that can be written.
            Format::TunnelFlags if is_exact || mask & 1 != 0 => {
                flags(f, TUNNEL_FLAGS, value & mask)
            }
            Format::TunnelFlags => masked_flags(f, TUNNEL_FLAGS, value, mask & 1),
            Format::PacketType => write!(f, "({},{:#x})", value >> 16, value & 0xFFFF),
            Format::Decimal | Format::Port | Format::PortOxm => {
                write!(f, "{value}")?;
                if is_exact { Ok(()) } else { write!(f, "/{}", Hex(mask)) }
            }
        }
    }
}

/// A value of all bits of a field, as actions have it.
#[must_use]
pub fn shown(field: Field, value: u128) -> String {
    Masked { field, value, mask: field.byte_mask() }.to_string()
}

/// `NXM_NX_REG0[]`, `NXM_NX_REG0[4]`, `NXM_NX_REG0[0..15]`.
impl fmt::Display for Subfield {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let header = self.field.header(Version::V10);
        f.write_str(header.map_or(self.field.name(), |header| header.name))?;
        if self.is_whole() {
            return f.write_str("[]");
        }
        if self.bits == 1 {
            return write!(f, "[{}]", self.offset);
        }
        let last = self.offset.saturating_add(self.bits).saturating_sub(1);
        write!(f, "[{}..{last}]", self.offset)
    }
}
