//! Writing of actions.

use super::kinds::{Kind, Put};
use super::{ct, learn, pack};
use crate::action::{
    Action, Bundle, Controller, Encap, Multipath, PropertyOfEncap, Sample, SampleDirection,
};
use crate::field::{Class, Field, Subfield, entry, ones};
use crate::packet_in::Reason;
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::Writer as _;

/// How actions are written: as a version has them, and with options of tunnels as long as a bridge says.
#[derive(Clone, Copy, Debug)]
pub struct Style<'a> {
    version: Version,
    lengths: Option<&'a Lengths>,
}

/// How many bytes options of tunnels have, by the numbers of their fields; 0: it is not known.
pub type Lengths = [u8; 64];

impl<'a> Style<'a> {
    /// As a version has them, by what a bridge says.
    #[must_use]
    pub const fn new(version: Version, lengths: &'a Lengths) -> Self {
        Self { version, lengths: Some(lengths) }
    }

    /// Writes the header of a field, of which no value follows.
    pub(super) fn put_name(self, out: &mut Vec<u8>, field: Field, version: Version) {
        let number = field.number_in(Field::TunMetadata0, 64).map(usize::from);
        let len = number.and_then(|number| self.lengths?.get(number).copied());
        match len.filter(|len| *len > 0) {
            Some(len) => _ = entry::put_header(out, field, version, false, len.into()),
            None => entry::put_name(out, field, version),
        }
    }

    /// The version.
    pub(crate) const fn version(self) -> Version {
        self.version
    }
}

impl From<Version> for Style<'_> {
    fn from(version: Version) -> Self {
        Self { version, lengths: None }
    }
}

impl PartialEq<Version> for Style<'_> {
    fn eq(&self, version: &Version) -> bool {
        self.version == *version
    }
}

impl PartialOrd<Version> for Style<'_> {
    fn partial_cmp(&self, version: &Version) -> Option<std::cmp::Ordering> {
        self.version.partial_cmp(version)
    }
}

/// Writes actions as a version has them. Those that it does not have become others that do the same,
/// or else are left out.
pub fn encode<'a>(actions: &[Action], version: impl Into<Style<'a>>, out: &mut Vec<u8>) {
    let version = version.into();
    for action in actions {
        one(action, version, out);
    }
}

/// Writes an action, the body of which `write` makes.
fn with(out: &mut Vec<u8>, kind: Kind, version: Style<'_>, write: impl FnOnce(&mut Vec<u8>)) {
    if let Some(put) = Put::begin(out, kind, version.version) {
        write(put.out);
        put.end();
    }
}

/// Writes an action of one value, of `N` bytes.
fn value<const N: usize>(out: &mut Vec<u8>, kind: Kind, version: Style<'_>, value: u64) {
    if let Some(put) = Put::begin(out, kind, version.version) {
        put.value::<N>(value);
    }
}

/// A port's number where messages of all versions have 16 bits for it.
fn port16(port: PortNo) -> u16 {
    port.v10().unwrap_or(0xFFFF)
}

fn one(action: &Action, version: Style<'_>, out: &mut Vec<u8>) {
    match action {
        Action::Output { port, max_len } => output(*port, *max_len, version, out),
        Action::OutputField { source, max_len } => output_field(*source, *max_len, version, out),
        Action::OutputTruncated { port, max_len } => {
            with(out, Kind::OutputTrunc, version, |out| {
                out.u16(port16(*port));
                out.u32(*max_len);
            });
        }
        Action::Controller(to) => controller(to, version, out),
        Action::Enqueue { port, queue } => enqueue(*port, *queue, version, out),
        Action::Bundle(bundle) => encode_bundle(bundle, version, out),
        Action::Multipath(multipath) => encode_multipath(multipath, version, out),
        Action::SetField { field, value, mask } => set_field(*field, *value, *mask, version, out),
        Action::Load { target, value } => load(*target, *value, version, out),
        Action::Move { source, target } => copy(*source, *target, version, out),
        Action::SetVlanVid { .. }
        | Action::SetVlanPcp { .. }
        | Action::SetEthSrc(_)
        | Action::SetEthDst(_)
        | Action::SetIpSrc(_)
        | Action::SetIpDst(_)
        | Action::SetNwTos(_)
        | Action::SetNwEcn(_)
        | Action::SetNwTtl(_)
        | Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::SetTunnel { .. } => old_set(action, version, out),
        Action::Push(part) => stack(Kind::StackPush, *part, version, out),
        Action::Pop(part) => stack(Kind::StackPop, *part, version, out),
        Action::Resubmit { port, table, ct } => resubmit(*port, *table, *ct, version, out),
        Action::DecTtl(Some(ids)) => with(out, Kind::DecTtlCntIds, version, |out| {
            out.u16(u16::try_from(ids.len()).unwrap_or(u16::MAX));
            out.zeroes(4);
            ids.iter().for_each(|id| out.u16(*id));
        }),
        Action::Learn(learn) => learn::encode(learn, version, out),
        Action::Conjunction { id, clause, clauses } => {
            with(out, Kind::Conjunction, version, |out| {
                out.u8(*clause);
                out.u8(*clauses);
                out.u32(*id);
            });
        }
        Action::Ct(ct) => ct::encode_ct(ct, version, out),
        Action::Nat(nat) => ct::encode_nat(nat, version, out),
        Action::Clone(actions) => with(out, Kind::Clone, version, |out| {
            out.zeroes(6);
            encode(actions, version, out);
        }),
        Action::Sample(sample) => encode_sample(sample, version, out),
        Action::FinTimeout { idle, hard } => with(out, Kind::FinTimeout, version, |out| {
            out.u16(*idle);
            out.u16(*hard);
        }),
        Action::Note(bytes) => with(out, Kind::Note, version, |out| out.bytes(bytes)),
        Action::CheckPktLarger { len, target } => {
            with(out, Kind::CheckPktLarger, version, |out| {
                out.u16(*len);
                out.u16(target.offset);
                version.put_name(out, target.field, Version::V10);
            });
        }
        Action::DeleteField(field) => with(out, Kind::DeleteField, version, |out| {
            version.put_name(out, *field, Version::V10);
        }),
        Action::Encap(encap) => encode_encap(encap, version, out),
        Action::Decap { packet_type } => with(out, Kind::Decap, version, |out| {
            out.zeroes(2);
            out.u32(*packet_type);
        }),
        _ => simple(action, version, out),
    }
}

/// Writes an action that has one value or none.
fn simple(action: &Action, version: Style<'_>, out: &mut Vec<u8>) {
    let mut none = |kind| with(out, kind, version, |_| {});
    match action {
        Action::StripVlan | Action::PopVlan if version == Version::V10 => none(Kind::StripVlan),
        Action::StripVlan | Action::PopVlan => none(Kind::PopVlan),
        Action::DecTtl(None) => none(Kind::DecNwTtl),
        Action::DecMplsTtl => none(Kind::DecMplsTtl),
        Action::DecNshTtl => none(Kind::DecNshTtl),
        Action::PopQueue => none(Kind::PopQueue),
        Action::Exit => none(Kind::Exit),
        Action::CtClear => none(Kind::CtClear),
        Action::DebugRecirc => none(Kind::DebugRecirc),
        Action::DebugSlow => none(Kind::DebugSlow),
        Action::PushVlan { ethertype } => {
            value::<2>(out, Kind::PushVlan, version, (*ethertype).into());
        }
        Action::PushMpls { ethertype } => {
            value::<2>(out, Kind::PushMpls, version, (*ethertype).into());
        }
        Action::PopMpls { ethertype } => {
            value::<2>(out, Kind::PopMpls, version, (*ethertype).into());
        }
        Action::SetL4Src(port) => value::<2>(out, Kind::SetTpSrc, version, (*port).into()),
        Action::SetL4Dst(port) => value::<2>(out, Kind::SetTpDst, version, (*port).into()),
        Action::SetQueue(queue) => value::<4>(out, Kind::SetQueue, version, (*queue).into()),
        Action::Group(group) => value::<4>(out, Kind::Group, version, (*group).into()),
        Action::Meter(meter) => value::<4>(out, Kind::Meter15, version, (*meter).into()),
        // All others have been written elsewhere.
        _ => {}
    }
}

fn output(port: PortNo, max_len: u16, version: Style<'_>, out: &mut Vec<u8>) {
    if version == Version::V10 {
        return with(out, Kind::Output10, version, |out| {
            out.u16(port16(port));
            out.u16(max_len);
        });
    }
    with(out, Kind::Output11, version, |out| {
        out.u32(port.0);
        out.u16(max_len);
    });
}

/// Whether a field's header is one of the old ones of 4 bytes.
fn has_old_header(field: Field) -> bool {
    let class = field.header(Version::V10).map(|header| header.class.class);
    class.is_some_and(|class| class != Class::EXPERIMENTER)
}

fn output_field(source: Subfield, max_len: u16, version: Style<'_>, out: &mut Vec<u8>) {
    if has_old_header(source.field) {
        return with(out, Kind::OutputReg, version, |out| {
            out.u16(pack(source));
            version.put_name(out, source.field, Version::V10);
            out.u16(max_len);
        });
    }
    with(out, Kind::OutputReg2, version, |out| {
        out.u16(pack(source));
        out.u16(max_len);
        version.put_name(out, source.field, Version::V10);
    });
}

/// Writes a property of `controller`.
fn property(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = out.position();
    out.u16(kind);
    out.u16(u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX));
    out.bytes(value);
    out.pad8(start);
}

fn controller(to: &Controller, version: Style<'_>, out: &mut Vec<u8>) {
    let is_old = to.userdata.is_empty() && !to.pause && to.meter == u32::MAX;
    if is_old {
        return with(out, Kind::Controller, version, |out| {
            out.u16(to.max_len);
            out.u16(to.id);
            out.u8(to.reason.0);
        });
    }
    with(out, Kind::Controller2, version, |out| {
        out.zeroes(6);
        let half = |value: u16| [value.to_be_bytes(), [0; 2]].concat();
        if to.max_len != u16::MAX {
            property(out, 0, &half(to.max_len));
        }
        if to.id != 0 {
            property(out, 1, &half(to.id));
        }
        if to.reason != Reason::ACTION {
            property(out, 2, &[to.reason.0]);
        }
        if !to.userdata.is_empty() {
            property(out, 3, &to.userdata);
        }
        if to.pause {
            property(out, 4, &[]);
        }
        if to.meter != u32::MAX {
            property(out, 5, &to.meter.to_be_bytes());
        }
    });
}

fn enqueue(port: PortNo, queue: u32, version: Style<'_>, out: &mut Vec<u8>) {
    if version == Version::V10 {
        return with(out, Kind::Enqueue, version, |out| {
            out.u16(port16(port));
            out.zeroes(6);
            out.u32(queue);
        });
    }
    value::<4>(out, Kind::SetQueue, version, queue.into());
    output(port, u16::MAX, version, out);
    with(out, Kind::PopQueue, version, |_| {});
}

fn encode_bundle(bundle: &Bundle, version: Style<'_>, out: &mut Vec<u8>) {
    let kind = if bundle.target.is_some() { Kind::BundleLoad } else { Kind::Bundle };
    with(out, kind, version, |out| {
        out.u16(bundle.algorithm.of_bundle());
        out.u16(bundle.fields.wire());
        out.u16(bundle.basis);
        entry::put_name(out, Field::InPort, Version::V10);
        out.u16(u16::try_from(bundle.members.len()).unwrap_or(u16::MAX));
        out.u16(bundle.target.map_or(0, pack));
        match bundle.target {
            Some(target) => version.put_name(out, target.field, Version::V10),
            None => out.u32(0),
        }
        out.zeroes(4);
        bundle.members.iter().for_each(|port| out.u16(port16(*port)));
    });
}

fn encode_multipath(multipath: &Multipath, version: Style<'_>, out: &mut Vec<u8>) {
    with(out, Kind::Multipath, version, |out| {
        out.u16(multipath.fields.wire());
        out.u16(multipath.basis);
        out.zeroes(2);
        out.u16(multipath.algorithm.of_multipath());
        out.u16(multipath.max_link);
        out.u32(multipath.arg);
        out.zeroes(2);
        out.u16(pack(multipath.target));
        version.put_name(out, multipath.target.field, Version::V10);
    });
}

/// Writes a field's bits to be set, as far as a version can say so.
fn set_field(field: Field, value: u128, mask: u128, version: Style<'_>, out: &mut Vec<u8>) {
    let is_whole = mask == field.byte_mask();
    if version >= Version::V12 && (is_whole || version >= Version::V15) {
        let kind = if version >= Version::V15 { Kind::SetField15 } else { Kind::SetField12 };
        let mask = (!is_whole).then_some(mask);
        return with(out, kind, version, |out| {
            entry::Entry { field, value, mask }.put(out, version.version);
        });
    }
    if version < Version::V12 && is_whole && legacy(field, value, version, out) {
        return;
    }
    if !has_old_header(field) || field.is_tun_metadata() {
        let mask = (!is_whole).then_some(mask);
        return with(out, Kind::RegLoad2, version, |out| {
            entry::Entry { field, value, mask }.put(out, Version::V10);
        });
    }
    for target in segments(field, mask) {
        let value = value >> target.offset & ones(target.bits);
        load_old(target, u64::try_from(value).unwrap_or(u64::MAX), version, out);
    }
}

/// The runs of bits of a mask, none longer than 64.
pub(crate) fn segments(field: Field, mask: u128) -> Vec<Subfield> {
    let mut left = mask & field.full_mask();
    let mut all = Vec::new();
    while left != 0 {
        let offset = left.trailing_zeros();
        let bits = (left >> offset).trailing_ones().min(64);
        let part = |bits: u32| u16::try_from(bits).unwrap_or(0);
        let found = Subfield { field, offset: part(offset), bits: part(bits) };
        left &= !found.mask();
        all.push(found);
    }
    all
}

/// Writes a whole field to be set by actions of OpenFlow 1.0 and 1.1; returns whether there is one.
fn legacy(field: Field, number: u128, version: Style<'_>, out: &mut Vec<u8>) -> bool {
    let low = u64::try_from(number & ones(64)).unwrap_or(0);
    let (vid, pcp) = if version == Version::V10 {
        (Kind::SetVlanVid10, Kind::SetVlanPcp10)
    } else {
        (Kind::SetVlanVid11, Kind::SetVlanPcp11)
    };
    let mac = |out: &mut Vec<u8>, kind| {
        with(out, kind, version, |out| {
            out.bytes(low.to_be_bytes().get(2..).unwrap_or_default());
        });
    };
    match field {
        Field::VlanTci if low & 0x1000 == 0 => simple(&Action::StripVlan, version, out),
        Field::VlanTci => {
            if version > Version::V10 {
                value::<2>(out, Kind::PushVlan, version, 0x8100);
            }
            value::<2>(out, vid, version, low & 0xFFF);
            value::<1>(out, pcp, version, low >> 13);
        }
        Field::VlanVid => value::<2>(out, vid, version, low & 0xFFF),
        Field::VlanPcp => value::<1>(out, pcp, version, low),
        Field::EthSrc => mac(out, Kind::SetDlSrc),
        Field::EthDst => mac(out, Kind::SetDlDst),
        Field::IpSrc => value::<4>(out, Kind::SetNwSrc, version, low),
        Field::IpDst => value::<4>(out, Kind::SetNwDst, version, low),
        Field::NwTos => value::<1>(out, Kind::SetNwTos, version, low),
        Field::IpDscp => value::<1>(out, Kind::SetNwTos, version, low << 2),
        Field::IpEcn if version == Version::V11 => value::<1>(out, Kind::SetNwEcn, version, low),
        Field::TcpSrc | Field::UdpSrc => value::<2>(out, Kind::SetTpSrc, version, low),
        Field::TcpDst | Field::UdpDst => value::<2>(out, Kind::SetTpDst, version, low),
        _ => return false,
    }
    true
}

/// Writes a number to be loaded.
fn load(target: Subfield, value: u64, version: Style<'_>, out: &mut Vec<u8>) {
    let is_experimenter = !has_old_header(target.field) || target.field.is_tun_metadata();
    if version < Version::V15 && !is_experimenter {
        return load_old(target, value, version, out);
    }
    let shifted = u128::from(value).checked_shl(target.offset.into()).unwrap_or(0);
    set_field(target.field, shifted, target.mask(), version, out);
}

fn load_old(target: Subfield, value: u64, version: Style<'_>, out: &mut Vec<u8>) {
    with(out, Kind::RegLoad, version, |out| {
        out.u16(pack(target));
        version.put_name(out, target.field, Version::V10);
        out.u64(value);
    });
}

/// Writes actions that OpenFlow 1.2 and later have `set_field` for.
fn old_set(action: &Action, version: Style<'_>, out: &mut Vec<u8>) {
    let (field, number, push) = match action {
        Action::SetVlanVid { vid, push } => (Field::VlanVid, u128::from(*vid) | 0x1000, *push),
        Action::SetVlanPcp { pcp, push } => (Field::VlanPcp, u128::from(*pcp), *push),
        Action::SetEthSrc(mac) => (Field::EthSrc, mac_number(mac.0), false),
        Action::SetEthDst(mac) => (Field::EthDst, mac_number(mac.0), false),
        Action::SetIpSrc(address) => (Field::IpSrc, address.to_bits().into(), false),
        Action::SetIpDst(address) => (Field::IpDst, address.to_bits().into(), false),
        Action::SetNwTos(tos) => (Field::IpDscp, u128::from(*tos >> 2), false),
        Action::SetNwEcn(ecn) => (Field::IpEcn, (*ecn).into(), false),
        Action::SetNwTtl(ttl) => return set_ttl(*ttl, version, out),
        Action::SetMplsLabel(label) => (Field::MplsLabel, (*label).into(), false),
        Action::SetMplsTc(tc) => (Field::MplsTc, (*tc).into(), false),
        Action::SetMplsTtl(ttl) => {
            return value::<1>(out, Kind::SetMplsTtl, version, (*ttl).into());
        }
        Action::SetTunnel { id, wide } => {
            if version >= Version::V12 {
                (Field::TunId, u128::from(*id), false)
            } else if *wide || u32::try_from(*id).is_err() {
                return value::<8>(out, Kind::SetTunnel64, version, *id);
            } else {
                return value::<4>(out, Kind::SetTunnel, version, *id);
            }
        }
        _ => return,
    };
    if push && version > Version::V10 {
        value::<2>(out, Kind::PushVlan, version, 0x8100);
    }
    let low = u64::try_from(number).unwrap_or(0);
    match field {
        Field::MplsLabel if version < Version::V12 => {
            value::<4>(out, Kind::SetMplsLabel, version, low);
        }
        Field::MplsTc if version < Version::V12 => value::<1>(out, Kind::SetMplsTc, version, low),
        _ => set_field(field, number, field.byte_mask(), version, out),
    }
}

fn mac_number(bytes: [u8; 6]) -> u128 {
    bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

fn set_ttl(ttl: u8, version: Style<'_>, out: &mut Vec<u8>) {
    if version == Version::V10 {
        load_old(Subfield::whole(Field::NwTtl), ttl.into(), version, out);
    } else {
        value::<1>(out, Kind::SetNwTtl, version, ttl.into());
    }
}

fn copy(source: Subfield, target: Subfield, version: Style<'_>, out: &mut Vec<u8>) {
    let is_new = version >= Version::V15;
    let kind = if is_new { Kind::CopyField15 } else { Kind::RegMove };
    let names = if is_new { version.version } else { Version::V10 };
    with(out, kind, version, |out| {
        out.u16(target.bits);
        out.u16(source.offset);
        out.u16(target.offset);
        if is_new {
            out.zeroes(2);
        }
        version.put_name(out, source.field, names);
        version.put_name(out, target.field, names);
    });
}

fn stack(kind: Kind, part: Subfield, version: Style<'_>, out: &mut Vec<u8>) {
    with(out, kind, version, |out| {
        out.u16(part.offset);
        version.put_name(out, part.field, Version::V10);
        out.u16(part.bits);
    });
}

fn resubmit(
    port: Option<PortNo>,
    table: Option<u8>,
    ct: bool,
    version: Style<'_>,
    out: &mut Vec<u8>,
) {
    if table.is_none() && port == Some(PortNo::IN_PORT) && !ct {
        return with(out, Kind::Resubmit, version, |out| out.u16(port16(PortNo::IN_PORT)));
    }
    let kind = if ct { Kind::ResubmitTableCt } else { Kind::ResubmitTable };
    with(out, kind, version, |out| {
        out.u16(port16(port.unwrap_or(PortNo::IN_PORT)));
        out.u8(table.unwrap_or(0xFF));
    });
}

fn encode_sample(sample: &Sample, version: Style<'_>, out: &mut Vec<u8>) {
    let has_port = sample.sampling_port != PortNo::ANY;
    let kind = match sample.direction {
        SampleDirection::Default if !has_port => Kind::Sample,
        SampleDirection::Default => Kind::Sample2,
        _ => Kind::Sample3,
    };
    with(out, kind, version, |out| {
        out.u16(sample.probability);
        out.u32(sample.collector_set_id);
        out.u32(sample.obs_domain_id);
        out.u32(sample.obs_point_id);
        if kind != Kind::Sample {
            out.u16(port16(sample.sampling_port));
            out.u8(sample.direction as u8);
        }
    });
}

fn encode_encap(encap: &Encap, version: Style<'_>, out: &mut Vec<u8>) {
    with(out, Kind::Encap, version, |out| {
        out.u16(encap.header_size);
        out.u32(encap.packet_type);
        for property in &encap.properties {
            out.u16(4);
            match property {
                PropertyOfEncap::NshMdtype(kind) => {
                    out.bytes(&[1, 5, *kind, 0, 0, 0]);
                }
                PropertyOfEncap::NshTlv { class, kind, data } => {
                    let size = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
                    let padded = data.len().next_multiple_of(8);
                    out.bytes(&[2, size(padded.saturating_add(8))]);
                    out.u16(*class);
                    out.bytes(&[*kind, size(data.len())]);
                    out.bytes(data);
                    out.zeroes(padded.saturating_sub(data.len()));
                }
            }
        }
    });
}

/// Writes that bits of the metadata are written, which is no action but in OpenFlow 1.0.
pub(crate) fn encode_metadata(metadata: u64, mask: u64, version: Style<'_>, out: &mut Vec<u8>) {
    with(out, Kind::WriteMetadata, version, |out| {
        out.zeroes(6);
        out.u64(metadata);
        out.u64(mask);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's ovs-ofctl sends `load:0x11223344->tun_metadata1` in OpenFlow 1.0.
    #[test]
    fn what_has_no_old_header_is_loaded_as_ovs_ofctl_has_it() {
        let value = 0x1122_3344;
        let field = Field::TunMetadata1;
        let load = [Action::SetField { field, value, mask: field.byte_mask() }];
        let mut out = Vec::new();
        encode(&load, Version::V10, &mut out);
        let expected = [
            0xff, 0xff, 0, 24, 0, 0, 0x23, 0x20, 0, 33, 0, 1, 0x52, 4, 0x11, 0x22, 0x33, 0x44, 0,
            0, 0, 0, 0, 0,
        ];
        assert_eq!(out, expected);
        assert_eq!(crate::action::wire::decode(&out, Version::V10).unwrap(), load);
    }

    #[test]
    fn options_of_tunnels_are_as_long_as_a_bridge_says() {
        let part = |field| Subfield { field, offset: 0, bits: 32 };
        let (source, target) = (part(Field::TunMetadata0), part(Field::TunMetadata1));
        let copies = [Action::Move { source, target }];
        let mut lengths = [0; 64];
        lengths[0] = 4;
        let written = |style: Style<'_>| {
            let mut out = Vec::new();
            encode(&copies, style, &mut out);
            (out[19], out[23])
        };
        assert_eq!(written(Version::V10.into()), (124, 124));
        assert_eq!(written(Style::new(Version::V10, &lengths)), (4, 124));
    }
}
