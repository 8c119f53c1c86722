//! Matches from OpenFlow 1.1 on: a header that says of which kind it is, then that of OpenFlow 1.1
//! (OpenFlow 1.1, A.2.3) or a list of fields.

use super::Match;
use super::oxm::{self, Strictness};
use super::v10::{port, put_low};
use crate::error::ErrorCode;
use crate::field::Field;
use crate::matching::prerequisite::{ETH_TYPE_ARP, ETH_TYPE_IP, ETH_TYPE_RARP};
use crate::matching::prerequisite::{PROTO_ICMP, PROTO_SCTP, PROTO_TCP, PROTO_UDP};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Kinds of matches.
const STANDARD: u16 = 0;
const OXM: u16 = 1;

/// The size of that of OpenFlow 1.1.
const LEN: u16 = 88;

/// Wildcards of that.
const IN_PORT: u32 = 1 << 0;
const DL_VLAN: u32 = 1 << 1;
const DL_VLAN_PCP: u32 = 1 << 2;
const DL_TYPE: u32 = 1 << 3;
const NW_TOS: u32 = 1 << 4;
const NW_PROTO: u32 = 1 << 5;
const TP_SRC: u32 = 1 << 6;
const TP_DST: u32 = 1 << 7;
const MPLS_LABEL: u32 = 1 << 8;
const MPLS_TC: u32 = 1 << 9;

/// How a tag's number says that it may be any, and that there is no tag.
const ANY_VLAN: u16 = 0xFFFE;
const NO_VLAN: u16 = 0xFFFF;

/// Reads a match with its header and the zeroes behind it.
///
/// # Errors
/// `OFPBMC_BAD_TYPE`, `OFPBMC_BAD_LEN`, and those of [`oxm::decode`].
pub fn decode(reader: &mut Reader<'_>, strictness: Strictness) -> Result<Match, ErrorCode> {
    let mut header = *reader;
    let kind = header.u16().map_err(|_| ErrorCode::BmcBadLen)?;
    let len = header.u16().map_err(|_| ErrorCode::BmcBadLen)?;
    match kind {
        STANDARD if len == LEN => {
            let mut body = reader.sub(LEN.into()).map_err(|_| ErrorCode::BmcBadLen)?;
            body.skip(4)?;
            decode_standard(&mut body)
        }
        OXM => {
            let fields = usize::from(len).checked_sub(4).ok_or(ErrorCode::BmcBadLen)?;
            let padded = usize::from(len).next_multiple_of(8);
            let mut body = reader.sub(padded).map_err(|_| ErrorCode::BmcBadLen)?;
            body.skip(4)?;
            oxm::decode(body.take(fields)?, strictness)
        }
        STANDARD => Err(ErrorCode::BmcBadLen),
        _ => Err(ErrorCode::BmcBadType),
    }
}

/// Reads what is behind the header of OpenFlow 1.1's.
fn decode_standard(reader: &mut Reader<'_>) -> Result<Match, ErrorCode> {
    let mut matching = Match::new();
    let (in_port, wild) = (reader.u32()?, reader.u32()?);
    if wild & IN_PORT == 0 {
        let port = port(in_port).ok_or(ErrorCode::BmcBadValue)?;
        matching.set(Field::InPortOxm, port.0.into());
    }
    for field in [Field::EthSrc, Field::EthDst] {
        let (value, wild) = (number(reader.bytes::<6>()?), number(reader.bytes::<6>()?));
        matching.set_masked(field, value, !wild);
    }
    let (vid, pcp) = (reader.u16()?, reader.u8()?);
    reader.skip(1)?;
    decode_vlan(&mut matching, wild, vid, pcp)?;
    let eth_type = reader.u16()?;
    if wild & DL_TYPE == 0 {
        matching.set(Field::EthType, eth_type.into());
    }
    decode_network(&mut matching, wild, reader)?;
    let (label, class) = (reader.u32()?, reader.u8()?);
    reader.skip(3)?;
    if wild & MPLS_LABEL == 0 && matching.may_have(Field::MplsLabel) {
        matching.set(Field::MplsLabel, label.into());
    }
    if wild & MPLS_TC == 0 && matching.may_have(Field::MplsTc) {
        matching.set(Field::MplsTc, class.into());
    }
    let (metadata, wild) = (reader.u64()?, reader.u64()?);
    matching.set_masked(Field::Metadata, metadata.into(), (!wild).into());
    Ok(matching)
}

fn number(bytes: [u8; 6]) -> u128 {
    bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

fn decode_vlan(matching: &mut Match, wild: u32, vid: u16, pcp: u8) -> Result<(), ErrorCode> {
    if wild & DL_VLAN != 0 {
        return Ok(());
    }
    match vid {
        NO_VLAN => {
            matching.set(Field::DlVlan, NO_VLAN.into());
            return Ok(());
        }
        ANY_VLAN => matching.set_masked(Field::VlanVid, 0x1000, 0x1000),
        0..4096 => matching.set(Field::DlVlan, vid.into()),
        _ => return Err(ErrorCode::BmcBadValue),
    }
    if wild & DL_VLAN_PCP == 0 {
        if pcp > 7 {
            return Err(ErrorCode::BmcBadValue);
        }
        matching.set(Field::DlVlanPcp, pcp.into());
    }
    Ok(())
}

/// Reads what is of the network header and behind it.
fn decode_network(
    matching: &mut Match,
    wild: u32,
    reader: &mut Reader<'_>,
) -> Result<(), ErrorCode> {
    let eth_type = matching.eth_type();
    let is_ip = eth_type == ETH_TYPE_IP;
    let has_addresses = is_ip || [ETH_TYPE_ARP, ETH_TYPE_RARP].contains(&eth_type);
    let (tos, protocol) = (reader.u8()?, reader.u8()?);
    if is_ip && wild & NW_TOS == 0 {
        if tos & 3 != 0 {
            return Err(ErrorCode::BmcBadValue);
        }
        matching.set(Field::NwTos, tos.into());
    }
    if has_addresses && wild & NW_PROTO == 0 {
        matching.set(Field::IpProto, protocol.into());
    }
    for field in [Field::IpSrc, Field::IpDst] {
        let (value, wild) = (reader.u32()?, reader.u32()?);
        if has_addresses {
            matching.set_masked(field, value.into(), (!wild).into());
        }
    }
    for (wildcard, field) in [(TP_SRC, Field::TcpSrc), (TP_DST, Field::TcpDst)] {
        let value = reader.u16()?;
        if !is_ip || wild & wildcard != 0 {
            continue;
        }
        match matching.protocol() {
            PROTO_ICMP if value > 0xFF => return Err(ErrorCode::BmcBadField),
            PROTO_ICMP | PROTO_TCP | PROTO_UDP | PROTO_SCTP => matching.set(field, value.into()),
            // The specification has it ignored.
            _ => {}
        }
    }
    Ok(())
}

/// Writes a match as a version has it, with its header and zeroes up to a multiple of 8 bytes.
pub fn encode(matching: &Match, version: Version, out: &mut Vec<u8>) {
    if version < Version::V12 {
        out.u16(STANDARD);
        out.u16(LEN);
        encode_standard(matching, out);
        return;
    }
    let start = out.position();
    out.u16(OXM);
    out.u16(0);
    out.bytes(&oxm::encode(matching, version, None));
    out.patch_length(start.saturating_add(2), start);
    out.pad8(start);
}

fn encode_standard(matching: &Match, out: &mut Vec<u8>) {
    let get = |field: Field| matching.get(field).unwrap_or_default();
    let mut wild = 0;
    let (vid, pcp) = encode_vlan(matching, &mut wild);
    let fields = [
        (IN_PORT, Field::InPortOxm),
        (DL_TYPE, Field::EthType),
        (NW_TOS, Field::NwTos),
        (NW_PROTO, Field::IpProto),
        (TP_SRC, Field::TcpSrc),
        (TP_DST, Field::TcpDst),
        (MPLS_LABEL, Field::MplsLabel),
        (MPLS_TC, Field::MplsTc),
    ];
    for (wildcard, field) in fields {
        if matching.get(field).is_none() {
            wild |= wildcard;
        }
    }
    put_low(out, get(Field::InPortOxm).0, 4);
    out.u32(wild);
    for field in [Field::EthSrc, Field::EthDst] {
        put_low(out, get(field).0, 6);
        put_low(out, !get(field).1, 6);
    }
    out.u16(vid);
    out.u8(pcp);
    out.zeroes(1);
    put_low(out, get(Field::EthType).0, 2);
    put_low(out, get(Field::NwTos).0, 1);
    put_low(out, get(Field::IpProto).0, 1);
    for field in [Field::IpSrc, Field::IpDst] {
        put_low(out, get(field).0, 4);
        put_low(out, !get(field).1, 4);
    }
    put_low(out, get(Field::TcpSrc).0, 2);
    put_low(out, get(Field::TcpDst).0, 2);
    put_low(out, get(Field::MplsLabel).0, 4);
    put_low(out, get(Field::MplsTc).0, 1);
    out.zeroes(3);
    put_low(out, get(Field::Metadata).0, 8);
    put_low(out, !get(Field::Metadata).1, 8);
}

/// The tag's number and priority, and the wildcards of them.
fn encode_vlan(matching: &Match, wild: &mut u32) -> (u16, u8) {
    let Some((tci, mask)) = matching.get(Field::VlanTci) else {
        *wild |= DL_VLAN | DL_VLAN_PCP;
        return (0, 0);
    };
    if mask & 0x1000 != 0 && tci & 0x1000 == 0 {
        *wild |= DL_VLAN_PCP;
        return (NO_VLAN, 0);
    }
    let vid = u16::try_from(tci & 0xFFF).unwrap_or(0);
    let vid = if mask & 0xFFF == 0 { ANY_VLAN } else { vid };
    if mask & 0xE000 == 0 {
        *wild |= DL_VLAN_PCP;
        return (vid, 0);
    }
    (vid, u8::try_from(tci >> 13 & 7).unwrap_or(0))
}
