//! Which fields are views of which values.

use super::Match;
use crate::field::{Field, ones};
use crate::port_no::PortNo;

/// The bits of a tag's number, with the one that says that there is a tag.
const VID: u128 = 0x1FFF;

/// That one.
const PRESENT: u128 = 0x1000;

/// The bits of a tag's priority.
const PCP: u128 = 0xE000;

/// How OpenFlow 1.0 says that there is no tag.
const NO_VLAN: u128 = 0xFFFF;

/// The field that holds the value that `field` is a view of, or the first of two or four; mostly that
/// field itself. [`Match::iter`] gives no other fields than these.
#[must_use]
pub fn home(field: Field) -> Field {
    if let Some((first, _)) = registers(field) {
        return first;
    }
    match field {
        Field::InPort => Field::InPortOxm,
        Field::DlVlan | Field::VlanVid | Field::DlVlanPcp | Field::VlanPcp => Field::VlanTci,
        Field::IpDscp => Field::NwTos,
        Field::ArpOp => Field::IpProto,
        Field::ArpSpa => Field::IpSrc,
        Field::ArpTpa => Field::IpDst,
        Field::NdSll => Field::ArpSha,
        Field::NdTll => Field::ArpTha,
        Field::UdpSrc | Field::SctpSrc | Field::IcmpType | Field::Icmpv6Type => Field::TcpSrc,
        Field::UdpDst | Field::SctpDst | Field::IcmpCode | Field::Icmpv6Code => Field::TcpDst,
        _ => field,
    }
}

/// The registers of 32 bits, the highest first, that a larger one consists of.
fn registers(field: Field) -> Option<(Field, u8)> {
    let (at, count) = match (field.number_in(Field::Xreg0, 8), field.number_in(Field::Xxreg0, 4)) {
        (Some(n), _) => (n.checked_mul(2)?, 2),
        (_, Some(n)) => (n.checked_mul(4)?, 4),
        _ => return None,
    };
    Some((Field::reg(at)?, count))
}

/// The registers of one that consists of several, and how far each is shifted in it.
fn parts(field: Field) -> Option<impl Iterator<Item = (Field, u16)>> {
    let (first, count) = registers(field)?;
    let first = first.number_in(Field::Reg0, 16)?;
    let shift = move |n: u8| u16::from(count - 1 - n) * 32;
    let part = move |n: u8| Some((Field::reg(first.checked_add(n)?)?, shift(n)));
    Some((0..count).filter_map(part))
}

/// The mask that a match on all of a field has.
pub(super) fn full(field: Field) -> u128 {
    match field {
        // As many as Open vSwitch knows of, and as operations of ARP can be matched on.
        Field::CtState | Field::ArpOp => 0xFF,
        // The lower two are a field of their own.
        Field::NwTos => 0xFC,
        // With the one that says that there is a tag.
        Field::VlanVid => VID,
        _ => field.full_mask(),
    }
}

/// Sets what a field is to be.
pub(super) fn write(matching: &mut Match, field: Field, value: u128, mask: u128) {
    if let Some(parts) = parts(field) {
        for (register, shift) in parts {
            matching.store(register, value >> shift, (mask >> shift) & ones(32));
        }
        return;
    }
    let home = home(field);
    match field {
        Field::InPort => {
            let port = u16::try_from(value & ones(16)).map_or(PortNo::ANY, PortNo::from_v10);
            let mask = if mask == 0 { 0 } else { home.full_mask() };
            matching.store(home, u128::from(port.0), mask);
        }
        Field::DlVlan if value == NO_VLAN && mask != 0 => matching.store(home, 0, ones(16)),
        Field::DlVlan | Field::VlanVid if mask == 0 => {
            matching.store_within(home, 0, 0, ones(12));
            forget_absent(matching);
        }
        Field::DlVlan => matching.store_within(home, value & ones(12) | PRESENT, VID, VID),
        Field::VlanVid => matching.store_within(home, value, mask, VID),
        Field::DlVlanPcp | Field::VlanPcp if mask == 0 => {
            matching.store_within(home, 0, 0, PCP);
            forget_absent(matching);
        }
        Field::DlVlanPcp | Field::VlanPcp => {
            let value = (value & ones(3)) << 13 | PRESENT;
            matching.store_within(home, value, PCP | PRESENT, PCP | PRESENT);
        }
        Field::IpDscp => matching.store(home, value << 2, (mask & ones(6)) << 2),
        // Where the view is narrower, none of the other bits may be set.
        _ => {
            let mask = if mask & full(field) == full(field) { full(home) } else { mask };
            matching.store(home, value & field.full_mask(), mask & full(home));
            // An option that is something is there.
            write_option(matching, field, mask != 0);
        }
    }
}

/// Has an option be there, if `field` stands for one, or has it count no more whether it is.
pub(super) fn write_option(matching: &mut Match, field: Field, counts: bool) {
    let bit = u128::from(field.option_bit());
    if bit != 0 {
        let own = if counts { bit } else { 0 };
        matching.store_within(Field::TunOptions, own, own, bit);
    }
}

/// A tag of which neither number nor priority counts may be absent, too.
fn forget_absent(matching: &mut Match) {
    if matching.stored(Field::VlanTci).is_some_and(|(_, mask)| mask == PRESENT) {
        matching.store(Field::VlanTci, 0, 0);
    }
}

/// What a field is to be.
pub(super) fn read(matching: &Match, field: Field) -> Option<(u128, u128)> {
    let (value, mask) = if let Some(parts) = parts(field) {
        parts.fold((0, 0), |(value, mask), (register, shift)| {
            let (part, bits) = matching.stored(register).unwrap_or_default();
            (value | part << shift, mask | bits << shift)
        })
    } else {
        let (value, mask) = matching.stored(home(field))?;
        match field {
            Field::InPort => {
                let port = u32::try_from(value).ok().and_then(|port| PortNo(port).v10())?;
                (u128::from(port), mask & ones(16))
            }
            Field::DlVlan => (value & ones(12), mask & ones(12)),
            Field::VlanVid => (value & VID, mask & VID),
            Field::DlVlanPcp | Field::VlanPcp => (value >> 13, mask >> 13),
            Field::IpDscp => (value >> 2, mask >> 2),
            _ => (value & field.full_mask(), mask & field.full_mask()),
        }
    };
    (mask != 0).then_some((value, mask))
}
