//! Values of fields.

use std::net::{Ipv4Addr, Ipv6Addr};

use packet::MacAddr;

use super::{Names, TextError};
use crate::field::text::{CT_STATE, FRAGMENTS, Flags, TCP_FLAGS, TUNNEL_FLAGS};
use crate::field::{Field, Format, Subfield, ones};
use crate::port_no::PortNo;

/// A number in base 16 (`0x1f`), 8 (`017`) or 10.
pub(super) fn number(text: &str) -> Result<u128, TextError> {
    let wrong = || TextError::new(format_args!("'{text}' is no number"));
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match lower.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if lower.len() > 1 && lower.starts_with('0') => (lower.as_str(), 8),
        None => (lower.as_str(), 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(wrong());
    }
    u128::from_str_radix(digits, base).map_err(|_| wrong())
}

/// A number of a type that it must fit.
pub(super) fn fit<T: TryFrom<u128>>(text: &str) -> Result<T, TextError> {
    let too_large = |_| TextError::new(format_args!("{text} is too large"));
    T::try_from(number(text)?).map_err(too_large)
}

/// A number of 64 bits, which may be -1 for all of them.
pub(super) fn wide(text: &str) -> Result<u64, TextError> {
    if text == "-1" { Ok(u64::MAX) } else { fit(text) }
}

/// A port's number, or its name.
pub(super) fn port(text: &str, names: Names<'_>) -> Result<PortNo, TextError> {
    let wrong = || TextError::new(format_args!("'{text}' is no port"));
    if text.starts_with(|letter: char| letter.is_ascii_digit()) {
        let number: u32 = fit(text)?;
        // Those that OpenFlow 1.0 reserves are meant by their numbers there, too.
        let port = u16::try_from(number).map_or(PortNo(number), PortNo::from_v10);
        return if port.v10().is_some() { Ok(port) } else { Err(wrong()) };
    }
    let name = text.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(text);
    PortNo::by_name(text).or_else(|| (names.port)(name)).ok_or_else(wrong)
}

/// A value, and the mask behind a slash.
fn halves(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)))
}

/// What is before a mask and the mask, both read by one function; without a mask it is `full`.
fn masked(
    text: &str,
    full: u128,
    read: impl Fn(&str) -> Result<u128, TextError>,
) -> Result<(u128, u128), TextError> {
    let (value, mask) = halves(text);
    Ok((read(value)?, mask.map_or(Ok(full), read)?))
}

fn mac(text: &str) -> Result<u128, TextError> {
    let wrong = || TextError::new(format_args!("'{text}' is no MAC address"));
    let address: MacAddr = text.parse().map_err(|_| wrong())?;
    Ok(address.0.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
}

fn ipv4(text: &str) -> Result<u128, TextError> {
    let wrong = || TextError::new(format_args!("'{text}' is no IPv4 address"));
    let address: Ipv4Addr = text.parse().map_err(|_| wrong())?;
    Ok(address.to_bits().into())
}

fn ipv6(text: &str) -> Result<u128, TextError> {
    let wrong = || TextError::new(format_args!("'{text}' is no IPv6 address"));
    let address: Ipv6Addr = text.parse().map_err(|_| wrong())?;
    Ok(address.to_bits())
}

/// A mask as an address, or as the number of ones that it begins with.
fn prefix(
    text: &str,
    width: u16,
    read: impl Fn(&str) -> Result<u128, TextError>,
) -> Result<u128, TextError> {
    match text.parse::<u16>() {
        Ok(length) if length <= width => Ok(ones(width) & !ones(width - length)),
        Ok(length) => Err(TextError::new(format_args!("/{length} is beyond {width} bits"))),
        Err(_) => read(text),
    }
}

fn address(
    text: &str,
    width: u16,
    read: impl Fn(&str) -> Result<u128, TextError> + Copy,
) -> Result<(u128, u128), TextError> {
    let (value, mask) = halves(text);
    let mask = mask.map_or(Ok(ones(width)), |mask| prefix(mask, width, read))?;
    Ok((read(value)?, mask))
}

/// The place of a flag.
fn flag(name: &str, names: Flags) -> Result<u128, TextError> {
    let at = names.iter().position(|known| *known == name);
    let at = at.ok_or_else(|| TextError::new(format_args!("there is no flag '{name}'")))?;
    Ok(1 << at)
}

/// Flags: `+new-est`, `new|est`, or numbers, also with a mask.
fn flags(text: &str, names: Flags, full: u128) -> Result<(u128, u128), TextError> {
    if let (value, Some(mask)) = halves(text) {
        return Ok((number(value)?, number(mask)?));
    }
    if text.starts_with(['+', '-']) {
        let (mut value, mut mask) = (0, 0);
        let mut left = text;
        while let Some(sign) = left.chars().next() {
            let rest = left.get(1..).unwrap_or_default();
            let end = rest.find(['+', '-']).unwrap_or(rest.len());
            let (name, next) = rest.split_at(end);
            let bit = flag(name, names)?;
            if mask & bit != 0 {
                return Err(TextError::new(format_args!("the flag '{name}' is there twice")));
            }
            mask |= bit;
            if sign == '+' {
                value |= bit;
            }
            left = next;
        }
        return Ok((value, mask));
    }
    let one = |name: &str| number(name).or_else(|_| flag(name, names));
    let value = text.split('|').try_fold(0, |value, name| Ok(value | one(name)?))?;
    Ok((value, full))
}

fn packet_type(text: &str) -> Result<(u128, u128), TextError> {
    let wrong = || TextError::new(format_args!("expected (namespace,type), not '{text}'"));
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or_else(wrong)?;
    let (space, kind) = inner.split_once(',').ok_or_else(wrong)?;
    let (space, kind): (u16, u16) = (fit(space)?, fit(kind)?);
    Ok((u128::from(space) << 16 | u128::from(kind), ones(32)))
}

/// A value and a mask of a field. The mask is of all its bytes where none is given.
///
/// # Errors
/// The text is none, or the field cannot have such a mask.
pub(super) fn of_field(
    field: Field,
    text: &str,
    names: Names<'_>,
) -> Result<(u128, u128), TextError> {
    let full = field.byte_mask();
    if ["*", "ANY"].contains(&text) {
        return Ok((0, 0));
    }
    let (value, mask) = match field.format() {
        Format::Decimal | Format::Hex => masked(text, full, number)?,
        Format::Ethernet => masked(text, full, mac)?,
        Format::Ipv4 => address(text, 32, ipv4)?,
        Format::Ipv6 => address(text, 128, ipv6)?,
        Format::CtState => flags(text, CT_STATE, full)?,
        Format::TcpFlags => flags(text, TCP_FLAGS, full)?,
        Format::TunnelFlags => flags(text, TUNNEL_FLAGS, full)?,
        Format::PacketType => packet_type(text)?,
        Format::Port => {
            let port = port(text, names)?.v10().unwrap_or(u16::MAX);
            (port.into(), full)
        }
        Format::PortOxm => (port(text, names)?.0.into(), full),
        Format::Frag => {
            let is_it = |(name, ..): &&(&str, u128, u128)| name.eq_ignore_ascii_case(text);
            let kind = FRAGMENTS.iter().find(is_it);
            let (_, value, mask) =
                kind.ok_or_else(|| TextError::new("expected no, yes, first, later or not_later"))?;
            (*value, *mask)
        }
    };
    if value & !full != 0 || mask & !full != 0 {
        return Err(TextError::new(format_args!("{text} has more than {} bytes", field.bytes())));
    }
    if field.format() != Format::Frag && !field.is_valid_mask(mask) {
        return Err(TextError::new(format_args!("it cannot have the mask of {text}")));
    }
    Ok((value, mask))
}

/// Reads some bits of a field: `NXM_NX_REG0[0..15]`, `reg0[3]`, `eth_src[]`, `eth_src`.
///
/// # Errors
/// There is no such field, or it does not have these bits.
pub fn subfield(text: &str) -> Result<Subfield, TextError> {
    let (name, range) = text.split_once('[').map_or((text, "]"), |(name, range)| (name, range));
    let known = Field::by_header_name(name).or_else(|| Field::by_name(name));
    let field = known.ok_or_else(|| TextError::new(format_args!("there is no field '{name}'")))?;
    let wrong = || {
        TextError::new(format_args!(
            "expected [], [bit] or [first..last] behind {name}, not '{text}'"
        ))
    };
    let range = range.strip_suffix(']').ok_or_else(wrong)?;
    if range.is_empty() {
        return Ok(Subfield::whole(field));
    }
    let (first, last) = range.split_once("..").unwrap_or((range, range));
    let bit = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = (bit(first)?, bit(last)?);
    if first > last || last >= field.bits() {
        let bits = field.bits();
        return Err(TextError::new(format_args!(
            "{text} is not within the {bits} bits of {field}"
        )));
    }
    Ok(Subfield { field, offset: first, bits: last - first + 1 })
}
