//! Matches as lists of fields: NXM, which is Open vSwitch's in OpenFlow 1.0 and 1.1, and OXM
//! (OpenFlow 1.2, A.2.3).

use super::Match;
use crate::error::ErrorCode;
use crate::field::{
    Field,
    entry::{Entry, RawHeader},
};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The class and number under which NXM has a flow's cookie, which is no field.
const COOKIE: (u16, u8) = (1, 30);

/// How much is let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing that is not right.
    Strict,
    /// Fields that are not known, and those without what they need, as in what is told of a packet.
    Loose,
    /// Nothing that is not right, and no fields of the packet itself, as in packets to be sent.
    Pipeline,
}

/// A match, and the cookie that came with it: value and mask.
pub type WithCookie = (Match, Option<(u64, u64)>);

/// In which order fields are written.
static ORDER: &[Field] = &{
    use Field::*;
    [
        DpHash,
        RecircId,
        ConjId,
        InPort,
        InPortOxm,
        ActsetOutput,
        EthSrc,
        EthDst,
        EthType,
        VlanTci,
        VlanVid,
        VlanPcp,
        MplsTc,
        MplsBos,
        MplsTtl,
        MplsLabel,
        IpSrc,
        IpDst,
        Ipv6Src,
        Ipv6Dst,
        IpFrag,
        NwTos,
        IpDscp,
        IpEcn,
        NwTtl,
        Ipv6Label,
        IpProto,
        TcpSrc,
        TcpDst,
        TcpFlags,
        UdpSrc,
        UdpDst,
        SctpSrc,
        SctpDst,
        IcmpType,
        IcmpCode,
        Icmpv6Type,
        Icmpv6Code,
        NdReserved,
        NdTarget,
        NdOptionsType,
        NdSll,
        NdTll,
        ArpOp,
        ArpSpa,
        ArpTpa,
        ArpSha,
        ArpTha,
        TunId,
        TunFlags,
        TunSrc,
        TunDst,
        TunIpv6Src,
        TunIpv6Dst,
        TunGbpId,
        TunGbpFlags,
    ]
};

/// In which order fields are written behind a tunnel's options.
static ORDER_BEHIND: &[Field] = &{
    use Field::*;
    [
        TunErspanIdx,
        TunErspanVer,
        TunErspanDir,
        TunErspanHwid,
        TunGtpuFlags,
        TunGtpuMsgtype,
        NshFlags,
        NshTtl,
        NshMdtype,
        NshNp,
        NshSpi,
        NshSi,
        NshC1,
        NshC2,
        NshC3,
        NshC4,
    ]
};

/// In which order fields are written behind registers.
static ORDER_LAST: &[Field] = &{
    use Field::*;
    [
        PktMark, CtState, CtZone, CtMark, CtLabel, CtNwSrc, CtIpv6Src, CtNwDst, CtIpv6Dst,
        CtNwProto, CtTpSrc, CtTpDst, Metadata,
    ]
};

/// Reads fields up to the end.
///
/// # Errors
/// What Open vSwitch answers, too: `OFPBMC_BAD_LEN`, `OFPBMC_BAD_FIELD` for one that is not known or
/// whose size is wrong, `OFPBMC_BAD_MASK`, `OFPBMC_BAD_WILDCARDS` for a value beyond its mask,
/// `OFPBMC_BAD_VALUE`, `OFPBMC_BAD_PREREQ`, `OFPBMC_DUP_FIELD`.
pub fn decode(bytes: &[u8], strictness: Strictness) -> Result<Match, ErrorCode> {
    Ok(read(bytes, strictness, false)?.0)
}

/// Reads fields, and the cookie that may be among them.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_with_cookie(bytes: &[u8]) -> Result<WithCookie, ErrorCode> {
    read(bytes, Strictness::Strict, true)
}

fn read(bytes: &[u8], strictness: Strictness, may_cookie: bool) -> Result<WithCookie, ErrorCode> {
    let mut reader = Reader::new(bytes);
    let (mut matching, mut cookie) = (Match::new(), None);
    while !reader.is_empty() {
        let header = RawHeader::read(&mut reader)?;
        let is_cookie = (header.class.class, header.number) == COOKIE && header.width() == 8;
        if is_cookie && may_cookie {
            let entry = Entry::read(Field::Metadata, header, &mut reader)?;
            let mask = entry.mask.map_or(u64::MAX, low64);
            if cookie.replace((low64(entry.value), mask)).is_some() {
                return Err(ErrorCode::BmcDupField);
            }
            continue;
        }
        let Some(field) = header.field() else {
            header.skip(&mut reader)?;
            if strictness == Strictness::Loose {
                continue;
            }
            return Err(ErrorCode::BmcBadField);
        };
        let entry = Entry::read(field, header, &mut reader)?;
        add(&mut matching, entry, strictness)?;
    }
    matching.forget_implied();
    Ok((matching, cookie))
}

fn low64(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default()
}

/// Adds a field to a match.
fn add(matching: &mut Match, entry: Entry, strictness: Strictness) -> Result<(), ErrorCode> {
    let Entry { field, value, mask } = entry;
    if mask.is_some_and(|mask| !field.is_valid_mask(mask)) {
        return Err(ErrorCode::BmcBadMask);
    }
    if !field.is_valid(value) {
        return Err(ErrorCode::BmcBadValue);
    }
    if strictness != Strictness::Loose && !matching.may_have(field) {
        return Err(ErrorCode::BmcBadPrereq);
    }
    if matching.get(field).is_some() || matching.presence(field).is_some() {
        return Err(ErrorCode::BmcDupField);
    }
    if strictness == Strictness::Pipeline && !field.is_pipeline() {
        return Err(ErrorCode::BrcPipelineFieldsOnly);
    }
    match mask {
        None => matching.set(field, value),
        Some(0) if field.is_tun_metadata() => matching.set_present(field),
        Some(mask) => matching.set_masked(field, value, mask),
    }
    Ok(())
}

/// Writes fields as a version has them; OpenFlow 1.0 and 1.1: as NXM, with the cookie.
#[must_use]
pub fn encode(matching: &Match, version: Version, cookie: Option<(u64, u64)>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(value) = matching.exact(Field::PacketType) {
        Entry { field: Field::PacketType, value, mask: None }.put(&mut out, version);
    }
    // That there are no ports is said behind them, where both are: a reader goes by the order.
    let is_later = matching.get(Field::IpFrag).is_some_and(|(kind, _)| kind & 2 != 0);
    for field in ORDER.iter().filter(|field| !(is_later && **field == Field::IpFrag)) {
        put(&mut out, matching, *field, version);
    }
    if is_later {
        put(&mut out, matching, Field::IpFrag, version);
    }
    let has_any = |first: Field, last: Field| {
        matching.iter().any(|entry| (first..=last).contains(&entry.field))
    };
    let has_options = matching.get(Field::TunOptions).is_some();
    for field in (0..64).filter(|_| has_options).filter_map(Field::tun_metadata) {
        put(&mut out, matching, field, version);
    }
    for field in ORDER_BEHIND {
        put(&mut out, matching, *field, version);
    }
    let registers = if version < Version::V15 { Field::reg } else { Field::xreg };
    let has_registers = has_any(Field::Reg0, Field::Reg15);
    for field in (0..16).filter(|_| has_registers).map_while(registers) {
        put(&mut out, matching, field, version);
    }
    for field in ORDER_LAST {
        put(&mut out, matching, *field, version);
    }
    if let Some((value, mask)) = cookie.filter(|(_, mask)| *mask != 0) {
        put_cookie(&mut out, value & mask, mask);
    }
    out
}

/// Whether a version has a field by this of its views.
fn has_view(field: Field, version: Version) -> bool {
    let is_oxm = version >= Version::V12;
    match field {
        Field::InPort | Field::VlanTci | Field::NwTos => !is_oxm,
        Field::InPortOxm | Field::VlanVid | Field::VlanPcp | Field::IpDscp => is_oxm,
        _ => true,
    }
}

/// Writes a field, if it is there.
fn put(out: &mut Vec<u8>, matching: &Match, field: Field, version: Version) {
    let Some((value, mask)) = matching.get(field) else {
        // All that counts is that it is there.
        if matching.presence(field) == Some(true) {
            Entry { field, value: 0, mask: Some(0) }.put(out, version);
        }
        return;
    };
    if !has_view(field, version) || !matching.has(field.prerequisite()) {
        return;
    }
    let is_exact = matching.exact(field).is_some() && field != Field::CtState;
    let mask = if is_exact || !field.is_maskable() { None } else { Some(mask) };
    Entry { field, value, mask }.put(out, version);
}

fn put_cookie(out: &mut Vec<u8>, value: u64, mask: u64) {
    let is_masked = mask != u64::MAX;
    out.u16(COOKIE.0);
    out.u8(COOKIE.1 << 1 | u8::from(is_masked));
    out.u8(if is_masked { 16 } else { 8 });
    out.u64(value);
    if is_masked {
        out.u64(mask);
    }
}
