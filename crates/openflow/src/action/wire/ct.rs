//! Tracking of connections, and translation of their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::decode::{argument, nested};
use super::kinds::{Kind, Put};
use super::verify::{self, Place};
use super::{Style, check_source, encode, pack, packed};
use crate::action::{Action, Ct, CtZone, Nat, NatKind};
use crate::error::ErrorCode;
use crate::field::entry;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Flags of `ct`.
const COMMIT: u16 = 1;
const FORCE: u16 = 2;

/// The table's number where the packet does not go on.
const NO_TABLE: u8 = 0xFF;

/// Flags of `nat` that say which address is translated, and all that there are.
const SOURCE: u16 = 1;
const DESTINATION: u16 = 2;
const NAT_FLAGS: u16 = 0x1F;
/// What of addresses and ports is there.
const IPV4_MIN: u16 = 1 << 0;
const IPV4_MAX: u16 = 1 << 1;
const IPV6_MIN: u16 = 1 << 2;
const IPV6_MAX: u16 = 1 << 3;
const PORT_MIN: u16 = 1 << 4;
const PORT_MAX: u16 = 1 << 5;

/// Reads `ct`.
pub(super) fn decode(
    mut body: Reader<'_>,
    version: Version,
    depth: u8,
) -> Result<Action, ErrorCode> {
    let flags = body.u16()?;
    let (commit, force) = (flags & COMMIT != 0, flags & FORCE != 0);
    argument(commit || !force)?;
    let (field, value) = (body.u32()?, body.u16()?);
    let zone = zone(field, value)?;
    let table = body.u8()?;
    body.skip(3)?;
    let alg = body.u16()?;
    let actions = nested(body, version, depth)?;
    verify::list(&actions, Place::Ct)?;
    let is_plain = |action: &Action| matches!(action, Action::Nat(nat) if nat.is_plain());
    argument(commit || actions.iter().all(is_plain))?;
    let table = (table != NO_TABLE).then_some(table);
    Ok(Action::Ct(Box::new(Ct { commit, force, zone, table, alg, actions })))
}

fn zone(field: u32, value: u16) -> Result<CtZone, ErrorCode> {
    if field == 0 {
        return Ok(CtZone::Number(value));
    }
    let source = packed(entry::name_of(field)?, value);
    check_source(source)?;
    if source.bits == 16 { Ok(CtZone::Field(source)) } else { Err(ErrorCode::BacBadSetLen) }
}

/// Writes `ct`.
pub(super) fn encode_ct(ct: &Ct, version: Style<'_>, out: &mut Vec<u8>) {
    let Some(put) = Put::begin(out, Kind::Ct, version.version()) else { return };
    put.out.u16(if ct.commit { COMMIT } else { 0 } | if ct.force { FORCE } else { 0 });
    match ct.zone {
        CtZone::Number(zone) => {
            put.out.u32(0);
            put.out.u16(zone);
        }
        CtZone::Field(source) => {
            version.put_name(put.out, source.field, Version::V10);
            put.out.u16(pack(source));
        }
    }
    put.out.u8(ct.table.unwrap_or(NO_TABLE));
    put.out.zeroes(3);
    put.out.u16(ct.alg);
    encode(&ct.actions, version, put.out);
    put.end();
}

/// Reads `nat`.
pub(super) fn decode_nat(mut body: Reader<'_>) -> Result<Action, ErrorCode> {
    body.skip(2)?;
    let (flags, present) = (body.u16()?, body.u16()?);
    let both = |one, other| flags & one != 0 && flags & other != 0;
    argument(
        flags & !NAT_FLAGS == 0 && !both(SOURCE, DESTINATION) && !both(Nat::HASH, Nat::RANDOM),
    )?;
    let kind = match flags & (SOURCE | DESTINATION) {
        SOURCE => NatKind::Source,
        DESTINATION => NatKind::Destination,
        _ => NatKind::Existing,
    };
    let addresses = addresses(&mut body, present).ok_or(ErrorCode::BacBadArgument)?;
    let ports = ports(&mut body, present).ok_or(ErrorCode::BacBadArgument)?;
    argument(ports.is_none() || addresses.is_some())?;
    let flags = flags & !(SOURCE | DESTINATION);
    Ok(Action::Nat(Box::new(Nat { kind, flags, addresses, ports })))
}

/// A range of addresses.
type Addresses = Option<(IpAddr, Option<IpAddr>)>;

/// A range of ports.
type Ports = Option<(u16, Option<u16>)>;

fn addresses(body: &mut Reader<'_>, present: u16) -> Option<Addresses> {
    let has = |flag: u16| present & flag != 0;
    let (is_v4, is_v6) = (has(IPV4_MIN), has(IPV6_MIN));
    let lost = has(IPV4_MAX) && !is_v4 || has(IPV6_MAX) && !is_v6;
    if lost || is_v4 && is_v6 {
        return None;
    }
    let mut next = |is_there: bool| -> Option<Option<IpAddr>> {
        if !is_there {
            return Some(None);
        }
        Some(Some(if is_v4 {
            Ipv4Addr::from_bits(body.u32().ok()?).into()
        } else {
            Ipv6Addr::from_bits(body.u128().ok()?).into()
        }))
    };
    let (least, largest) = (next(is_v4 || is_v6)?, next(has(IPV4_MAX) || has(IPV6_MAX))?);
    let Some(least) = least else { return Some(None) };
    let is_right = !least.is_unspecified() && largest.is_none_or(|largest| least <= largest);
    is_right.then_some(Some((least, largest)))
}

fn ports(body: &mut Reader<'_>, present: u16) -> Option<Ports> {
    if present & PORT_MIN == 0 {
        return (present & PORT_MAX == 0).then_some(None);
    }
    let least = body.u16().ok().filter(|port| *port != 0)?;
    if present & PORT_MAX == 0 {
        return Some(Some((least, None)));
    }
    let largest = body.u16().ok().filter(|port| *port >= least)?;
    Some(Some((least, Some(largest))))
}

/// Writes `nat`.
pub(super) fn encode_nat(nat: &Nat, version: Style<'_>, out: &mut Vec<u8>) {
    let Some(put) = Put::begin(out, Kind::Nat, version.version()) else { return };
    let kind = match nat.kind {
        NatKind::Existing => 0,
        NatKind::Source => SOURCE,
        NatKind::Destination => DESTINATION,
    };
    put.out.zeroes(2);
    put.out.u16(nat.flags | kind);
    let place = put.out.position();
    put.out.u16(0);
    let mut present = 0;
    let (least, largest) = nat.addresses.map_or((None, None), |(least, more)| (Some(least), more));
    for (address, v4, v6) in [(least, IPV4_MIN, IPV6_MIN), (largest, IPV4_MAX, IPV6_MAX)] {
        match address {
            Some(IpAddr::V4(address)) => {
                put.out.u32(address.to_bits());
                present |= v4;
            }
            Some(IpAddr::V6(address)) => {
                put.out.u128(address.to_bits());
                present |= v6;
            }
            None => {}
        }
    }
    let (least, largest) = nat.ports.map_or((None, None), |(least, more)| (Some(least), more));
    for (port, flag) in [(least, PORT_MIN), (largest, PORT_MAX)] {
        if let Some(port) = port {
            put.out.u16(port);
            present |= flag;
        }
    }
    put.out.patch(place, &present.to_be_bytes());
    put.end();
}
