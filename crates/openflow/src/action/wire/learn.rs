//! `learn`: flows that are learnt from packets.

use super::decode::argument;
use super::kinds::{Kind, Put};
use super::{Style, check_source, check_target, is_zero};
use crate::action::{Action, Learn, LearnFlags, LearnSource, LearnSpec, LearnTarget, Timeouts};
use crate::error::ErrorCode;
use crate::field::{Subfield, entry, ones};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Flags.
const SEND_FLOW_REMOVED: u16 = 1;
const DELETE_LEARNED: u16 = 2;
const WRITE_RESULT: u16 = 4;

/// Parts of the head of what a flow matches on or does.
const BITS: u16 = 0x3FF;
const FROM_VALUE: u16 = 1 << 13;
const TARGET: u16 = 3 << 11;
const LOAD: u16 = 1 << 11;
const OUTPUT: u16 = 2 << 11;

/// Reads it, the second form of it, too.
pub(super) fn decode(mut body: Reader<'_>, is_second: bool) -> Result<Action, ErrorCode> {
    let timeouts = Timeouts { idle: body.u16()?, hard: body.u16()? };
    let (priority, cookie, bits, table) = (body.u16()?, body.u64()?, body.u16()?, body.u8()?);
    let is_reserved_zero = body.u8()? == 0;
    let fin_timeouts = Timeouts { idle: body.u16()?, hard: body.u16()? };
    let (limit, offset, reserved) =
        if is_second { (body.u32()?, body.u16()?, body.u16()?) } else { (0, 0, 0) };
    if reserved != 0 {
        return Err(ErrorCode::NxbacMustBeZero);
    }
    argument(is_reserved_zero && table != 0xFF)?;
    let known = SEND_FLOW_REMOVED | DELETE_LEARNED | if is_second { WRITE_RESULT } else { 0 };
    argument(bits & !known == 0)?;
    let result = result(bits, offset, &mut body)?;
    let flags = LearnFlags {
        send_flow_removed: bits & SEND_FLOW_REMOVED != 0,
        delete_learned: bits & DELETE_LEARNED != 0,
    };
    let specs = specs(body)?;
    Ok(Action::Learn(Box::new(Learn {
        timeouts,
        fin_timeouts,
        priority,
        cookie,
        flags,
        table,
        limit,
        result,
        specs,
    })))
}

/// Reads which bit tells whether a flow was learnt.
fn result(bits: u16, offset: u16, body: &mut Reader<'_>) -> Result<Option<Subfield>, ErrorCode> {
    if bits & WRITE_RESULT == 0 {
        argument(offset == 0)?;
        return Ok(None);
    }
    let field = entry::pull_name(body)?;
    if !field.is_writable() {
        return Err(ErrorCode::BacBadSetArgument);
    }
    Ok(Some(Subfield { field, offset, bits: 1 }))
}

fn specs(mut body: Reader<'_>) -> Result<Vec<LearnSpec>, ErrorCode> {
    let mut specs = Vec::new();
    while let Ok(head) = body.u16() {
        if head == 0 {
            break;
        }
        specs.push(spec(head, &mut body)?);
    }
    argument(is_zero(body))?;
    Ok(specs)
}

/// Reads what a flow matches on or does.
fn spec(head: u16, body: &mut Reader<'_>) -> Result<LearnSpec, ErrorCode> {
    let bad_len = |_| ErrorCode::BacBadLen;
    let (bits, is_value, target) = (head & BITS, head & FROM_VALUE != 0, head & TARGET);
    argument(target <= LOAD || target == OUTPUT && !is_value)?;
    let width = usize::from(bits).div_ceil(16).saturating_mul(2);
    let source_len = if is_value { width } else { 6 };
    let target_len = if target == OUTPUT { 0 } else { 6 };
    if body.len() < source_len.saturating_add(target_len) {
        return Err(ErrorCode::BacBadLen);
    }
    let mut fits = true;
    let source = if is_value {
        let bytes = body.take(width).map_err(bad_len)?;
        let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
        fits = high.iter().all(|byte| *byte == 0);
        let value = low.iter().fold(0, |value, byte| value << 8 | u128::from(*byte));
        LearnSource::Value(value & ones(bits))
    } else {
        let part = subfield(bits, body)?;
        LearnSource::Field { field: part.field, offset: part.offset }
    };
    let target = match target {
        OUTPUT => LearnTarget::Output,
        LOAD => {
            let part = subfield(bits, body)?;
            LearnTarget::Load { field: part.field, offset: part.offset }
        }
        _ => {
            let part = subfield(bits, body)?;
            LearnTarget::Match { field: part.field, offset: part.offset }
        }
    };
    // The others have fewer bits than this, which is said once what they are for has been read.
    let is_large = matches!(target,
        LearnTarget::Match { field, .. } | LearnTarget::Load { field, .. } if field.is_tun_metadata());
    let is_kept = fits || !is_large;
    if is_kept { Ok(LearnSpec { bits, source, target }) } else { Err(ErrorCode::BacBadSetLen) }
}

/// Checks that all bits can be read and written that it is about.
///
/// # Errors
/// `OFPBAC_BAD_SET_LEN`, `OFPBAC_BAD_SET_ARGUMENT`.
pub(super) fn check(learn: &Learn) -> Result<(), ErrorCode> {
    learn.result.map_or(Ok(()), check_target)?;
    learn.specs.iter().try_for_each(|spec| check_spec(*spec))
}

/// Checks one of them.
fn check_spec(spec: LearnSpec) -> Result<(), ErrorCode> {
    let part = |field, offset| Subfield { field, offset, bits: spec.bits };
    if let LearnSource::Field { field, offset } = spec.source {
        check_source(part(field, offset))?;
    }
    match spec.target {
        LearnTarget::Match { field, offset } => check_source(part(field, offset)),
        LearnTarget::Load { field, offset } => check_target(part(field, offset)),
        LearnTarget::Output => Ok(()),
    }
}

fn subfield(bits: u16, body: &mut Reader<'_>) -> Result<Subfield, ErrorCode> {
    let bad_len = |_| ErrorCode::BacBadLen;
    let (name, offset) = (body.u32().map_err(bad_len)?, body.u16().map_err(bad_len)?);
    Ok(Subfield { field: entry::name_of(name)?, offset, bits })
}

/// Writes it, in its second form where the first will not do.
pub(super) fn encode(learn: &Learn, version: Style<'_>, out: &mut Vec<u8>) {
    let is_second = learn.limit != 0 || learn.result.is_some();
    let kind = if is_second { Kind::Learn2 } else { Kind::Learn };
    let Some(put) = Put::begin(out, kind, version.version()) else { return };
    let flag = |is_set: bool, bit: u16| if is_set { bit } else { 0 };
    put.out.u16(learn.timeouts.idle);
    put.out.u16(learn.timeouts.hard);
    put.out.u16(learn.priority);
    put.out.u64(learn.cookie);
    put.out.u16(
        flag(learn.flags.send_flow_removed, SEND_FLOW_REMOVED)
            | flag(learn.flags.delete_learned, DELETE_LEARNED)
            | flag(learn.result.is_some(), WRITE_RESULT),
    );
    put.out.u8(learn.table);
    put.out.u8(0);
    put.out.u16(learn.fin_timeouts.idle);
    put.out.u16(learn.fin_timeouts.hard);
    if is_second {
        put.out.u32(learn.limit);
        put.out.u16(learn.result.map_or(0, |target| target.offset));
        put.out.u16(0);
        if let Some(target) = learn.result {
            version.put_name(put.out, target.field, Version::V10);
        }
    }
    for spec in &learn.specs {
        encode_spec(spec, version, put.out);
    }
    put.end();
}

fn encode_spec(spec: &LearnSpec, version: Style<'_>, out: &mut Vec<u8>) {
    let target = match spec.target {
        LearnTarget::Match { .. } => 0,
        LearnTarget::Load { .. } => LOAD,
        LearnTarget::Output => OUTPUT,
    };
    let source = if matches!(spec.source, LearnSource::Value(_)) { FROM_VALUE } else { 0 };
    out.u16(spec.bits & BITS | target | source);
    match spec.source {
        LearnSource::Field { field, offset } => {
            version.put_name(out, field, Version::V10);
            out.u16(offset);
        }
        LearnSource::Value(value) => {
            let width = usize::from(spec.bits).div_ceil(16).saturating_mul(2);
            let bytes = value.to_be_bytes();
            out.zeroes(width.saturating_sub(bytes.len()));
            out.bytes(bytes.get(bytes.len().saturating_sub(width)..).unwrap_or_default());
        }
    }
    if let LearnTarget::Match { field, offset } | LearnTarget::Load { field, offset } = spec.target
    {
        version.put_name(out, field, Version::V10);
        out.u16(offset);
    }
}
