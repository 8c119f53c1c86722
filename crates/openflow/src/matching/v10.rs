//! The match of OpenFlow 1.0, of 40 bytes (OpenFlow 1.0, 5.2.3).

use super::Match;
use crate::field::{Field, ones};
use crate::port_no::PortNo;
use crate::wire::{Reader, Short, Writer as _};

/// Its size in bytes.
pub const LEN: usize = 40;

/// Wildcards, each a bit that says that a field may be anything.
const IN_PORT: u32 = 1 << 0;
const DL_VLAN: u32 = 1 << 1;
const DL_SRC: u32 = 1 << 2;
const DL_DST: u32 = 1 << 3;
const DL_TYPE: u32 = 1 << 4;
const NW_PROTO: u32 = 1 << 5;
const TP_SRC: u32 = 1 << 6;
const TP_DST: u32 = 1 << 7;
const DL_VLAN_PCP: u32 = 1 << 20;
const NW_TOS: u32 = 1 << 21;

/// Where the six bits are that count how many bits of an address may be anything.
const NW_SRC_SHIFT: u32 = 8;
const NW_DST_SHIFT: u32 = 14;

/// How a tag's number says that there is none.
const NO_VLAN: u16 = 0xFFFF;

/// Reads one. Nothing in it is wrong; what cannot be goes when it is [normalized](Match::normalize).
///
/// # Errors
/// There are too few bytes.
pub fn decode(reader: &mut Reader<'_>) -> Result<Match, Short> {
    let wild = reader.u32()?;
    let mut matching = Match::new();
    let mut set = |wildcard: u32, field: Field, value: u128| {
        if wild & wildcard == 0 {
            matching.set(field, value);
        }
    };
    set(IN_PORT, Field::InPort, reader.u16()?.into());
    set(DL_SRC, Field::EthSrc, mac(reader.bytes()?));
    set(DL_DST, Field::EthDst, mac(reader.bytes()?));
    let (vid, pcp) = (reader.u16()?, reader.u8()?);
    reader.skip(1)?;
    set(DL_TYPE, Field::EthType, reader.u16()?.into());
    set(NW_TOS, Field::NwTos, (reader.u8()? & 0xFC).into());
    set(NW_PROTO, Field::IpProto, reader.u8()?.into());
    reader.skip(2)?;
    for (field, shift) in [(Field::IpSrc, NW_SRC_SHIFT), (Field::IpDst, NW_DST_SHIFT)] {
        let mask = u32::MAX.checked_shl(wild >> shift & 0x3F).unwrap_or(0);
        matching.set_masked(field, reader.u32()?.into(), mask.into());
    }
    let ports = [(TP_SRC, Field::TcpSrc), (TP_DST, Field::TcpDst)];
    for (wildcard, field) in ports {
        let value = reader.u16()?;
        if wild & wildcard == 0 {
            matching.set(field, value.into());
        }
    }
    decode_vlan(&mut matching, wild, vid, pcp);
    Ok(matching)
}

fn decode_vlan(matching: &mut Match, wild: u32, vid: u16, pcp: u8) {
    if wild & DL_VLAN == 0 && vid == NO_VLAN {
        // Whatever the priority is to be, which a packet without a tag does not have.
        matching.set(Field::DlVlan, NO_VLAN.into());
        return;
    }
    if wild & DL_VLAN == 0 {
        matching.set(Field::DlVlan, (vid & 0xFFF).into());
    }
    if wild & DL_VLAN_PCP == 0 {
        matching.set(Field::DlVlanPcp, (pcp & 7).into());
    }
}

fn mac(bytes: [u8; 6]) -> u128 {
    bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// Writes one. What OpenFlow 1.0 cannot say is left out, so that it may be for more packets than the
/// match is.
pub fn encode(matching: &Match, out: &mut Vec<u8>) {
    let mut wild = 0;
    let get = |field: Field| matching.get(field).map_or(0, |(value, _)| value);
    let vlan = encode_vlan(matching, &mut wild);
    let fields = [
        (IN_PORT, Field::InPort),
        (DL_SRC, Field::EthSrc),
        (DL_DST, Field::EthDst),
        (DL_TYPE, Field::EthType),
        (NW_TOS, Field::NwTos),
        (NW_PROTO, Field::IpProto),
        (TP_SRC, Field::TcpSrc),
        (TP_DST, Field::TcpDst),
    ];
    for (wildcard, field) in fields {
        if matching.get(field).is_none() {
            wild |= wildcard;
        }
    }
    for (field, shift) in [(Field::IpSrc, NW_SRC_SHIFT), (Field::IpDst, NW_DST_SHIFT)] {
        let mask = matching.get(field).map_or(0, |(_, mask)| mask);
        wild |= (mask & ones(32)).trailing_zeros().min(32) << shift;
    }
    out.u32(wild);
    out.u16(low16(get(Field::InPort)));
    put_low(out, get(Field::EthSrc), 6);
    put_low(out, get(Field::EthDst), 6);
    out.u16(vlan.0);
    out.u8(vlan.1);
    out.zeroes(1);
    put_low(out, get(Field::EthType), 2);
    put_low(out, get(Field::NwTos), 1);
    put_low(out, get(Field::IpProto), 1);
    out.zeroes(2);
    put_low(out, get(Field::IpSrc), 4);
    put_low(out, get(Field::IpDst), 4);
    put_low(out, get(Field::TcpSrc), 2);
    put_low(out, get(Field::TcpDst), 2);
}

/// The tag's number and priority, and the wildcards of them.
fn encode_vlan(matching: &Match, wild: &mut u32) -> (u16, u8) {
    let Some((tci, mask)) = matching.get(Field::VlanTci) else {
        *wild |= DL_VLAN | DL_VLAN_PCP;
        return (0, 0);
    };
    if mask & 0x1000 != 0 && tci & 0x1000 == 0 {
        return (NO_VLAN, 0);
    }
    let (mut vid, mut pcp) = (0, 0);
    if mask & 0xFFF == 0 {
        *wild |= DL_VLAN;
    } else {
        vid = low16(tci & 0xFFF);
    }
    if mask & 0xE000 == 0 {
        *wild |= DL_VLAN_PCP;
    } else {
        pcp = u8::try_from(tci >> 13 & 7).unwrap_or(0);
    }
    (vid, pcp)
}

fn low16(value: u128) -> u16 {
    u16::try_from(value & 0xFFFF).unwrap_or(0)
}

/// Writes the lowest bytes of a value.
pub(super) fn put_low(out: &mut Vec<u8>, value: u128, width: usize) {
    let bytes = value.to_be_bytes();
    out.bytes(bytes.get(bytes.len().saturating_sub(width)..).unwrap_or_default());
}

/// The port of OpenFlow 1.1 that a number stands for, if there can be one.
pub(crate) fn port(number: u32) -> Option<PortNo> {
    Some(PortNo(number)).filter(|port| port.v10().is_some())
}
