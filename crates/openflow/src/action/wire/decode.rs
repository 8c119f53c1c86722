//! Reading of actions.

use std::net::Ipv4Addr;

use packet::MacAddr;

use super::kinds::{self, Kind, RawAction};
use super::{WithMetadata, check_source, check_target, ct, is_zero, learn, packed};
use crate::action::{
    Action, Algorithm, Bundle, Controller, Encap, HashFields, Multipath, PropertyOfEncap, Sample,
    SampleDirection, verify_output,
};
use crate::error::ErrorCode;
use crate::field::{Field, Subfield, entry};
use crate::packet_in::Reason;
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::Reader;

/// What a packet is without a header of a given type: what the header says.
const NSH: (u16, u8, u8) = (4, 1, 2);

/// Reads all actions of a list, and the lists in them.
pub(super) fn list(
    mut reader: Reader<'_>,
    version: Version,
    depth: u8,
) -> Result<WithMetadata, ErrorCode> {
    let depth = depth.checked_sub(1).ok_or(ErrorCode::BacTooMany)?;
    let (mut actions, mut metadata) = (Vec::new(), None);
    while !reader.is_empty() {
        let raw = kinds::pull(&mut reader, version)?;
        if raw.kind == Kind::WriteMetadata {
            if metadata.replace(write_metadata(raw)?).is_some() {
                return Err(ErrorCode::BacUnsupportedOrder);
            }
            continue;
        }
        if metadata.is_some() {
            return Err(ErrorCode::BacUnsupportedOrder);
        }
        actions.push(one(raw, version, depth)?);
    }
    Ok((actions, metadata))
}

/// Reads a list in an action.
pub(super) fn nested(
    reader: Reader<'_>,
    version: Version,
    depth: u8,
) -> Result<Vec<Action>, ErrorCode> {
    let (actions, metadata) = list(reader, version, depth)?;
    if metadata.is_some() { Err(ErrorCode::BicUnsupInst) } else { Ok(actions) }
}

fn write_metadata(raw: RawAction<'_>) -> Result<(u64, u64), ErrorCode> {
    let mut body = raw.body;
    if !is_zero(body.sub(6)?) {
        return Err(ErrorCode::NxbrcMustBeZero);
    }
    Ok((body.u64()?, body.u64()?))
}

/// Reads an action.
fn one(raw: RawAction<'_>, version: Version, depth: u8) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    match raw.kind {
        Kind::Output10 | Kind::Output11 | Kind::OutputReg | Kind::OutputReg2 => output(raw),
        Kind::OutputTrunc => {
            let (port, max_len) = (PortNo::from_v10(body.u16()?), body.u32()?);
            // No less than an Ethernet header.
            argument(max_len >= 14)?;
            Ok(Action::OutputTruncated { port, max_len })
        }
        Kind::Controller | Kind::Controller2 => controller(raw),
        Kind::Enqueue => {
            let port = PortNo::from_v10(body.u16()?);
            body.skip(6)?;
            if port >= PortNo::MAX && port != PortNo::IN_PORT && port != PortNo::LOCAL {
                return Err(ErrorCode::BacBadOutPort);
            }
            Ok(Action::Enqueue { port, queue: body.u32()? })
        }
        Kind::Bundle | Kind::BundleLoad => bundle(body, raw.kind == Kind::BundleLoad),
        Kind::Multipath => multipath(body),
        Kind::SetField12 | Kind::SetField15 | Kind::RegLoad2 => set_field(raw),
        Kind::RegLoad => {
            let bits = body.u16()?;
            let target = packed(entry::name_of(body.u32()?)?, bits);
            let value = body.u64()?;
            check_target(target)?;
            argument(u128::from(value) & !crate::field::ones(target.bits) == 0)?;
            Ok(Action::Load { target, value })
        }
        Kind::RegMove | Kind::CopyField13 | Kind::CopyField15 => copy(raw),
        Kind::StackPush | Kind::StackPop => stack(raw),
        Kind::Resubmit | Kind::ResubmitTable | Kind::ResubmitTableCt => resubmit(raw),
        Kind::DecTtlCntIds => dec_ttl(body),
        Kind::Learn | Kind::Learn2 => learn::decode(body, raw.kind == Kind::Learn2),
        Kind::Conjunction => {
            let (clause, clauses, id) = (body.u8()?, body.u8()?, body.u32()?);
            if !(2..=64).contains(&clauses) || clause >= clauses {
                return Err(ErrorCode::NxbacBadConjunction);
            }
            Ok(Action::Conjunction { id, clause, clauses })
        }
        Kind::Ct => ct::decode(body, version, depth),
        Kind::Nat => ct::decode_nat(body),
        Kind::Clone => {
            body.skip(6)?;
            Ok(Action::Clone(nested(body, version, depth)?))
        }
        Kind::Sample | Kind::Sample2 | Kind::Sample3 => sample(raw),
        Kind::FinTimeout => Ok(Action::FinTimeout { idle: body.u16()?, hard: body.u16()? }),
        Kind::Note => Ok(Action::Note(body.rest().to_vec())),
        Kind::CheckPktLarger => {
            let (len, offset) = (body.u16()?, body.u16()?);
            let target = Subfield { field: entry::pull_name(&mut body)?, offset, bits: 1 };
            if !is_zero(body) {
                return Err(ErrorCode::NxbrcMustBeZero);
            }
            check_target(target)?;
            Ok(Action::CheckPktLarger { len, target })
        }
        Kind::DeleteField => Ok(Action::DeleteField(entry::pull_name(&mut body)?)),
        Kind::Encap => encap(body),
        Kind::Decap => {
            body.skip(2)?;
            let packet_type = body.u32()?;
            let is_all = body.is_empty();
            if is_all {
                Ok(Action::Decap { packet_type })
            } else {
                Err(ErrorCode::NxbacUnknownEdProp)
            }
        }
        _ => simple(raw),
    }
}

/// Reads an action that has one value or none.
fn simple(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let byte = || raw.value::<1>().map(|value| u8::try_from(value).unwrap_or(u8::MAX));
    let half = || raw.value::<2>().map(|value| u16::try_from(value).unwrap_or(u16::MAX));
    let word = || raw.value::<4>().map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    let mut body = raw.body;
    Ok(match raw.kind {
        Kind::SetVlanVid10 | Kind::SetVlanVid11 => {
            let vid = half()?;
            argument(vid < 4096)?;
            Action::SetVlanVid { vid, push: raw.kind == Kind::SetVlanVid10 }
        }
        Kind::SetVlanPcp10 | Kind::SetVlanPcp11 => {
            let pcp = byte()?;
            argument(pcp < 8)?;
            Action::SetVlanPcp { pcp, push: raw.kind == Kind::SetVlanPcp10 }
        }
        Kind::PushVlan => {
            let ethertype = half()?;
            argument([0x8100, 0x88A8].contains(&ethertype))?;
            Action::PushVlan { ethertype }
        }
        Kind::StripVlan => Action::StripVlan,
        Kind::PopVlan => Action::PopVlan,
        Kind::SetDlSrc => Action::SetEthSrc(MacAddr(body.bytes()?)),
        Kind::SetDlDst => Action::SetEthDst(MacAddr(body.bytes()?)),
        Kind::SetNwSrc => Action::SetIpSrc(Ipv4Addr::from_bits(word()?)),
        Kind::SetNwDst => Action::SetIpDst(Ipv4Addr::from_bits(word()?)),
        Kind::SetNwTos => {
            let tos = byte()?;
            argument(tos & 3 == 0)?;
            Action::SetNwTos(tos)
        }
        Kind::SetNwEcn => {
            let ecn = byte()?;
            argument(ecn < 4)?;
            Action::SetNwEcn(ecn)
        }
        Kind::SetNwTtl => Action::SetNwTtl(byte()?),
        Kind::SetTpSrc => Action::SetL4Src(half()?),
        Kind::SetTpDst => Action::SetL4Dst(half()?),
        Kind::SetMplsLabel => Action::SetMplsLabel(word()?),
        Kind::SetMplsTc => Action::SetMplsTc(byte()?),
        Kind::SetMplsTtl => Action::SetMplsTtl(byte()?),
        Kind::DecMplsTtl => Action::DecMplsTtl,
        Kind::PushMpls => {
            let ethertype = half()?;
            argument([0x8847, 0x8848].contains(&ethertype))?;
            Action::PushMpls { ethertype }
        }
        Kind::PopMpls => Action::PopMpls { ethertype: half()? },
        Kind::SetQueue => Action::SetQueue(word()?),
        Kind::PopQueue => Action::PopQueue,
        Kind::Group => Action::Group(word()?),
        Kind::DecNwTtl => Action::DecTtl(None),
        Kind::DecNshTtl => Action::DecNshTtl,
        Kind::Meter15 => Action::Meter(word()?),
        Kind::SetTunnel => Action::SetTunnel { id: word()?.into(), wide: false },
        Kind::SetTunnel64 => Action::SetTunnel { id: raw.value::<8>()?, wide: true },
        Kind::Exit => Action::Exit,
        Kind::CtClear => Action::CtClear,
        Kind::DebugSlow => Action::DebugSlow,
        Kind::DebugRecirc => Action::DebugRecirc,
        // All others have been read elsewhere.
        _ => return Err(ErrorCode::BacBadType),
    })
}

/// Whether an argument is right.
pub(super) fn argument(is_right: bool) -> Result<(), ErrorCode> {
    if is_right { Ok(()) } else { Err(ErrorCode::BacBadArgument) }
}

fn output(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    match raw.kind {
        Kind::OutputReg => {
            let bits = body.u16()?;
            let source = entry::name_of(body.u32()?);
            let max_len = body.u16()?;
            argument(is_zero(body))?;
            let source = packed(source?, bits);
            check_source(source)?;
            Ok(Action::OutputField { source, max_len })
        }
        Kind::OutputReg2 => {
            let (bits, max_len) = (body.u16()?, body.u16()?);
            let source = packed(entry::pull_name(&mut body)?, bits);
            if !is_zero(body) {
                return Err(ErrorCode::NxbrcMustBeZero);
            }
            check_source(source)?;
            Ok(Action::OutputField { source, max_len })
        }
        kind => {
            let port = match kind {
                Kind::Output10 => PortNo::from_v10(body.u16()?),
                _ => PortNo(body.u32()?),
            };
            verify_output(port)?;
            Ok(Action::Output { port, max_len: body.u16()? })
        }
    }
}

/// Properties of `controller`.
const MAX_LEN: u16 = 0;
const CONTROLLER_ID: u16 = 1;
const REASON: u16 = 2;
const USERDATA: u16 = 3;
const PAUSE: u16 = 4;
const METER: u16 = 5;

fn controller(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    let mut controller = Controller::default();
    if raw.kind == Kind::Controller {
        (controller.max_len, controller.id) = (body.u16()?, body.u16()?);
        controller.reason = Reason(body.u8()?);
        return Ok(Action::Controller(Box::new(controller)));
    }
    if !is_zero(body.sub(6)?) {
        return Err(ErrorCode::NxbrcMustBeZero);
    }
    while !body.is_empty() {
        let (kind, mut value) = property(&mut body)?;
        let bad_len = |_| ErrorCode::BpcBadLen;
        match kind {
            MAX_LEN => controller.max_len = value.u16().map_err(bad_len)?,
            CONTROLLER_ID => controller.id = value.u16().map_err(bad_len)?,
            REASON => controller.reason = Reason(value.u8().map_err(bad_len)?),
            USERDATA => controller.userdata = value.rest().to_vec(),
            PAUSE => controller.pause = true,
            METER => controller.meter = value.u32().map_err(bad_len)?,
            _ => return Err(unknown_property(kind)),
        }
        // Of the others there may be more.
        if kind == METER && !value.is_empty() {
            return Err(ErrorCode::BpcBadLen);
        }
    }
    Ok(Action::Controller(Box::new(controller)))
}

/// The type of properties that are somebody's own, who is said first in them.
const EXPERIMENTER: u16 = 0xFFFF;

/// Takes a property: its type, and its value without the zeroes behind it (OpenFlow 1.4, 7.2.1.2).
pub(crate) fn property<'a>(reader: &mut Reader<'a>) -> Result<(u16, Reader<'a>), ErrorCode> {
    let bad_len = |_| ErrorCode::BpcBadLen;
    let mut header = *reader;
    let (kind, len) = (header.u16().map_err(bad_len)?, header.u16().map_err(bad_len)?);
    let padded = usize::from(len).next_multiple_of(8);
    let value = usize::from(len).checked_sub(4).ok_or(ErrorCode::BpcBadLen)?;
    let mut whole = reader.sub(padded).map_err(bad_len)?;
    whole.skip(4).map_err(bad_len)?;
    let value = whole.sub(value).map_err(bad_len)?;
    if kind == EXPERIMENTER {
        let mut owner = value;
        let (whose, _number) = (owner.u32().map_err(bad_len)?, owner.u32().map_err(bad_len)?);
        // Nobody's could be taken for the standard's.
        if whose == 0 {
            return Err(ErrorCode::BpcBadExperimenter);
        }
    }
    Ok((kind, value))
}

/// What is said of a property of a type that is not known.
pub(crate) fn unknown_property(kind: u16) -> ErrorCode {
    if kind == EXPERIMENTER { ErrorCode::BpcBadExpType } else { ErrorCode::BpcBadType }
}

fn hash_fields(number: u16) -> Result<HashFields, ErrorCode> {
    HashFields::from_wire(number).ok_or(ErrorCode::BacBadArgument)
}

fn bundle(mut body: Reader<'_>, load: bool) -> Result<Action, ErrorCode> {
    let (algorithm, fields, basis) = (body.u16()?, body.u16()?, body.u16()?);
    let (kind, count, bits, reserved) = (body.u32()?, body.u16()?, body.u16()?, body.u32()?);
    let is_reserved_zero = body.u32()? == 0;
    let target = if load { Some(packed(entry::name_of(reserved)?, bits)) } else { None };
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(PortNo::from_v10(body.u16().map_err(|_| ErrorCode::BacBadLen)?));
    }
    let is_unused_zero = load || bits == 0 && reserved == 0;
    argument(entry::name_of(kind) == Ok(Field::InPort) && count <= 2048)?;
    argument(is_reserved_zero && is_unused_zero && target.is_none_or(|part| part.bits >= 16))?;
    let algorithm = match algorithm {
        0 => Algorithm::ActiveBackup,
        1 => Algorithm::Hrw,
        _ => return Err(ErrorCode::BacBadArgument),
    };
    let fields = hash_fields(fields)?;
    target.map_or(Ok(()), check_target)?;
    for port in &members {
        if *port == PortNo::CONTROLLER {
            return Err(ErrorCode::BacBadOutPort);
        }
        if *port != PortNo::ANY {
            verify_output(*port)?;
        }
    }
    Ok(Action::Bundle(Box::new(Bundle { fields, basis, algorithm, members, target })))
}

fn multipath(mut body: Reader<'_>) -> Result<Action, ErrorCode> {
    let (fields, basis) = (body.u16()?, body.u16()?);
    body.skip(2)?;
    let (algorithm, max_link, arg) = (body.u16()?, body.u16()?, body.u32()?);
    body.skip(2)?;
    let bits = body.u16()?;
    let target = packed(entry::name_of(body.u32()?)?, bits);
    let fields = hash_fields(fields)?;
    let algorithm = match algorithm {
        0 => Algorithm::ModuloN,
        1 => Algorithm::HashThreshold,
        2 => Algorithm::Hrw,
        3 => Algorithm::IterHash,
        _ => return Err(ErrorCode::BacBadArgument),
    };
    argument(u128::from(max_link) <= crate::field::ones(target.bits))?;
    check_target(target)?;
    let multipath = Multipath { fields, basis, algorithm, max_link, arg, target };
    Ok(Action::Multipath(Box::new(multipath)))
}

fn set_field(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    let found = entry::Entry::pull(&mut body)?;
    if found.mask.is_some() && raw.kind == Kind::SetField12 {
        return Err(ErrorCode::BacBadSetMask);
    }
    let (field, value) = (found.field, found.value);
    let mask = found.mask.unwrap_or(u128::MAX) & field.byte_mask();
    let is_tag = field == Field::VlanVid;
    let is_right = is_zero(body)
        && (field != Field::InPortOxm || raw.kind == Kind::RegLoad2)
        && field.is_writable()
        && field.is_valid(value)
        && (!is_tag || mask & value & 0x1000 != 0);
    if is_right {
        Ok(Action::SetField { field, value, mask })
    } else {
        Err(ErrorCode::BacBadSetArgument)
    }
}

fn copy(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    if raw.kind == Kind::CopyField13 {
        body.skip(2)?;
    }
    let (bits, from, to) = (body.u16()?, body.u16()?, body.u16()?);
    if raw.kind != Kind::RegMove {
        body.skip(2)?;
    }
    let source = Subfield { field: entry::pull_name(&mut body)?, offset: from, bits };
    let target = Subfield { field: entry::pull_name(&mut body)?, offset: to, bits };
    if !is_zero(body) {
        return Err(ErrorCode::NxbrcMustBeZero);
    }
    check_source(source)?;
    check_target(target)?;
    Ok(Action::Move { source, target })
}

fn stack(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    let offset = body.u16()?;
    let field = entry::pull_name(&mut body)?;
    let part = Subfield { field, offset, bits: body.u16()? };
    if !is_zero(body) {
        return Err(ErrorCode::NxbrcMustBeZero);
    }
    if raw.kind == Kind::StackPush {
        check_source(part)?;
        return Ok(Action::Push(part));
    }
    check_target(part)?;
    Ok(Action::Pop(part))
}

fn resubmit(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    let port = PortNo::from_v10(body.u16()?);
    if raw.kind == Kind::Resubmit {
        // Even of the port that the packet has come in on.
        return Ok(Action::Resubmit { port: Some(port), table: None, ct: false });
    }
    let table = body.u8()?;
    argument(is_zero(body))?;
    let port = (port != PortNo::IN_PORT).then_some(port);
    let table = (table != 0xFF).then_some(table);
    Ok(Action::Resubmit { port, table, ct: raw.kind == Kind::ResubmitTableCt })
}

fn dec_ttl(mut body: Reader<'_>) -> Result<Action, ErrorCode> {
    let count = body.u16()?;
    if body.u32()? != 0 {
        return Err(ErrorCode::NxbrcMustBeZero);
    }
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(body.u16().map_err(|_| ErrorCode::BacBadLen)?);
    }
    Ok(Action::DecTtl(Some(ids)))
}

fn sample(raw: RawAction<'_>) -> Result<Action, ErrorCode> {
    let mut body = raw.body;
    let mut sample = Sample {
        probability: body.u16()?,
        collector_set_id: body.u32()?,
        obs_domain_id: body.u32()?,
        obs_point_id: body.u32()?,
        sampling_port: PortNo::ANY,
        direction: SampleDirection::Default,
    };
    if raw.kind != Kind::Sample {
        sample.sampling_port = PortNo::from_v10(body.u16()?);
    }
    if raw.kind == Kind::Sample3 {
        sample.direction = match body.u8()? {
            0 => SampleDirection::Default,
            1 => SampleDirection::Ingress,
            2 => SampleDirection::Egress,
            _ => return Err(ErrorCode::BacBadArgument),
        };
        if !is_zero(body) {
            return Err(ErrorCode::NxbrcMustBeZero);
        }
    }
    argument(sample.probability != 0)?;
    Ok(Action::Sample(Box::new(sample)))
}

fn encap(mut body: Reader<'_>) -> Result<Action, ErrorCode> {
    let (header_size, packet_type) = (body.u16()?, body.u32()?);
    // Ethernet, NSH, and MPLS.
    if ![0, 0x0001_894F, 0x0001_8847, 0x0001_8848].contains(&packet_type) {
        return Err(ErrorCode::NxbacBadHeaderType);
    }
    let mut properties = Vec::new();
    while !body.is_empty() {
        properties.push(encap_property(&mut body)?);
    }
    Ok(Action::Encap(Box::new(Encap { packet_type, header_size, properties })))
}

fn encap_property(body: &mut Reader<'_>) -> Result<PropertyOfEncap, ErrorCode> {
    let mut header = *body;
    let bad_len = |_| ErrorCode::BacBadLen;
    let class = header.u16().map_err(bad_len)?;
    let (kind, len) = (header.u8().map_err(bad_len)?, header.u8().map_err(bad_len)?);
    let len = usize::from(len);
    let mut value = body.sub(len.next_multiple_of(8)).map_err(bad_len)?;
    let value = value.take(len).map_err(bad_len)?;
    let mut value = Reader::new(value);
    value.skip(4).map_err(bad_len)?;
    let bad = |_| ErrorCode::NxbacBadEdProp;
    if (class, kind) == (NSH.0, NSH.1) {
        if len > 8 {
            return Err(ErrorCode::NxbacBadEdProp);
        }
        return Ok(PropertyOfEncap::NshMdtype(value.u8().map_err(bad)?));
    }
    if (class, kind) != (NSH.0, NSH.2) {
        return Err(ErrorCode::NxbacUnknownEdProp);
    }
    let (class, kind, size) =
        (value.u16().map_err(bad)?, value.u8().map_err(bad)?, value.u8().map_err(bad)?);
    if value.len() != usize::from(size).next_multiple_of(8) {
        return Err(ErrorCode::NxbacBadEdProp);
    }
    let data = value.take(size.into()).map_err(bad)?.to_vec();
    Ok(PropertyOfEncap::NshTlv { class, kind, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> Result<String, ErrorCode> {
        let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
        let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        crate::action::wire::decode(&bytes, Version::V10).map(|all| all[0].to_string())
    }

    /// What is expected was said by Debian's `ovs-ofctl ofp-print`.
    #[test]
    fn actions_are_read_as_ovs_reads_them() {
        let larger = |end: &str| {
            let zeroes = "00".repeat(11);
            decoded(&format!("ffff0020 00002320 0031 1180 0003 00010204 {zeroes} {end} 00 00"))
        };
        assert_eq!(larger("00"), Ok("check_pkt_larger(4480)->NXM_NX_REG1[3]".to_owned()));
        assert_eq!(larger("01"), Err(ErrorCode::NxbrcMustBeZero));
        let load = decoded("ffff0018 00002320 0007 0007 0001c501 00000000000000ae");
        assert_eq!(load, Ok("load:0xae->NXM_NX_TUN_METADATA58[0..7]".to_owned()));
        let delete = decoded("ffff0018 00002320 0032 00015683 00000000000000000000");
        assert_eq!(delete, Err(ErrorCode::BmcBadField));
    }

    #[test]
    fn of_two_errors_of_an_action_the_one_of_ovs_is_said() {
        let learn = "ffff0028 00002320 002d 0000 0000 8000 0000000000000000 0000 ff 01 00000000";
        assert_eq!(decoded(&format!("{learn} 00000000 0001 0000")), Err(ErrorCode::BacBadArgument));
        assert_eq!(
            decoded(&format!("{learn} 00000000 0001 0002")),
            Err(ErrorCode::NxbacMustBeZero)
        );
        let told =
            |property: &str| decoded(&format!("ffff0020 00002320 0025 000000000000 {property}"));
        let owned = |len: u8, owner: u8| {
            told(&format!("ffff 00{len:02x} 000000{owner:02x} 00000001 00000000"))
        };
        assert_eq!(owned(12, 7), Err(ErrorCode::BpcBadExpType));
        assert_eq!(owned(12, 0), Err(ErrorCode::BpcBadExperimenter));
        assert_eq!(owned(11, 7), Err(ErrorCode::BpcBadLen));
        assert_eq!(told("1234 0004 000000000000000000000000"), Err(ErrorCode::BpcBadType));
    }
}
