//! Which bits of a packet its way depends on beside those that rules match on: those that actions
//! read.
//!
//! Packets of which all these bits are the same go the same way, so they need not be looked up again.

use openflow::action::{CtZone, LearnSource};
use openflow::field::Prerequisite;
use openflow::{Action, Field, Instructions, Subfield};

use crate::key::{Key, Slot, slot};
use crate::place::place;

/// The flags of TCP by which a connection ends: FIN and RST (RFC 9293, section 3.1).
pub(crate) const ENDING: u128 = 0x05;

/// What is known of the first packet of a connection.
pub(crate) const ORIGINAL: [Slot; 7] = [
    slot::CT_NW_SRC,
    slot::CT_NW_DST,
    slot::CT_IPV6_SRC,
    slot::CT_IPV6_DST,
    slot::CT_NW_PROTO,
    slot::CT_TP_SRC,
    slot::CT_TP_DST,
];

const LABELS: [Slot; 3] = [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2];

/// What says of a packet that its addresses were translated when it was tracked.
pub(crate) const TRANSLATED: u128 = 0xC0;

/// All that is said of a packet that was tracked.
const KNOWN: u128 = 0xFF;

/// The bits that instructions read.
pub(crate) fn reads(instructions: &Instructions) -> Key {
    let mut key = Key::default();
    of_actions(&instructions.apply, &mut key);
    of_actions(instructions.write.as_deref().unwrap_or_default(), &mut key);
    key
}

/// Adds the bits that actions read.
pub(crate) fn of_actions(actions: &[Action], key: &mut Key) {
    actions.iter().for_each(|action| read(action, key));
}

/// What every way depends on: where the packet came in, and what kind it is.
pub(crate) fn always() -> Key {
    let mut key = Key::default();
    for slot in [slot::IN_PORT, slot::RECIRC_ID, slot::ETH_TYPE] {
        key.set(slot, slot.ones());
    }
    key
}

fn read(action: &Action, key: &mut Key) {
    match action {
        Action::OutputField { source, .. } | Action::Push(source) => subfield(*source, key),
        Action::Move { source, target } => {
            subfield(*source, key);
            written(target.field, key);
        }
        Action::Load { target, .. } | Action::Pop(target) => written(target.field, key),
        Action::SetField { field, .. } | Action::DeleteField(field) => written(*field, key),
        Action::Clone(actions) => of_actions(actions, key),
        Action::DecTtl(_) => {
            key.set(slot::IP_TTL, slot::IP_TTL.ones());
            written(Field::NwTtl, key);
        }
        Action::SetIpSrc(_) | Action::SetIpDst(_) => written(Field::IpSrc, key),
        Action::SetL4Src(_) | Action::SetL4Dst(_) => written(Field::TcpSrc, key),
        Action::SetVlanVid { .. } | Action::SetVlanPcp { .. } => written(Field::VlanTci, key),
        Action::StripVlan | Action::PopVlan => whole(Field::VlanTci, key),
        // A tag that is put on has the old one's number, and may hide what is behind that: then its kind is
        // what the packet carries.
        Action::PushVlan { .. } => {
            whole(Field::VlanTci, key);
            key.set(slot::VLAN_TPID, slot::VLAN_TPID.ones());
        }
        Action::Learn(learn) => {
            for spec in &learn.specs {
                if let LearnSource::Field { field, offset } = spec.source {
                    subfield(Subfield { field, offset, bits: spec.bits }, key);
                }
            }
            if let Some(target) = learn.result {
                written(target.field, key);
            }
        }
        Action::Multipath(multipath) => {
            hashed(key);
            written(multipath.target.field, key);
        }
        Action::Bundle(bundle) => {
            hashed(key);
            if let Some(target) = bundle.target {
                written(target.field, key);
            }
        }
        Action::CheckPktLarger { target, .. } => {
            key.set(slot::FRAME_LEN, slot::FRAME_LEN.ones());
            written(target.field, key);
        }
        Action::FinTimeout { .. } => {
            key.set_masked(slot::TCP_FLAGS, ENDING, ENDING);
            written(Field::TcpSrc, key);
        }
        Action::Ct(ct) => {
            if let CtZone::Field(source) = ct.zone {
                subfield(source, key);
            }
            of_actions(&ct.actions, key);
            // Where it was tracked before it may stay what it is.
            key.set_masked(slot::CT_STATE, KNOWN, KNOWN);
            // All that says which connection it is of has to be looked at before it is tracked.
            key.set(slot::IP_FRAG, slot::IP_FRAG.ones());
        }
        Action::Resubmit { ct: true, .. } => {
            key.set(slot::IP_PROTO, slot::IP_PROTO.ones());
            ORIGINAL.into_iter().for_each(|slot| key.set(slot, slot.ones()));
        }
        Action::DecMplsTtl => whole(Field::MplsTtl, key),
        Action::PushMpls { .. } | Action::PopMpls { .. } => {
            LABELS.into_iter().for_each(|slot| key.set(slot, slot.ones()));
            let others = [slot::INSIDE, slot::IP_TOS, slot::IP_TTL];
            others.into_iter().for_each(|slot| key.set(slot, slot.ones()));
        }
        Action::DecNshTtl => whole(Field::NshTtl, key),
        Action::Encap(_) | Action::Decap { .. } => {
            LABELS.into_iter().for_each(|slot| key.set(slot, slot.ones()));
            key.set(slot::PACKET_TYPE, slot::PACKET_TYPE.ones());
            whole(Field::NshNp, key);
            whole(Field::VlanTci, key);
        }
        _ => {}
    }
}

fn subfield(of: Subfield, key: &mut Key) {
    if let Some(slot) = place(of.field) {
        key.set_masked(slot, of.mask(), of.mask());
    }
    present(of.field, key);
    written(of.field, key);
}

fn whole(field: Field, key: &mut Key) {
    if let Some(slot) = place(field) {
        key.set(slot, slot.ones());
    }
    present(field, key);
}

/// Whether there is the option that a field stands for.
fn present(field: Field, key: &mut Key) {
    let bit = u128::from(field.option_bit());
    key.set_masked(slot::TUN_PRESENT, bit, bit);
}

/// All of a field, and what says whether it is there.
pub(crate) fn field(field: Field, key: &mut Key) {
    whole(field, key);
    written(field, key);
    if matches!(
        field.prerequisite(),
        Prerequisite::Nd | Prerequisite::NdSolicit | Prerequisite::NdAdvert
    ) {
        key.set(slot::TP_SRC, slot::TP_SRC.ones());
        key.set(slot::TP_DST, slot::TP_DST.ones());
    }
}

/// Whether a field is there to be written depends on what kind of packet it is.
fn written(field: Field, key: &mut Key) {
    let Some(slot) = place(field) else { return };
    if slot.word() == slot::VLAN_TCI.word() {
        key.set_masked(slot::VLAN_TCI, 0x1000, 0x1000);
    } else if (slot::IP_PROTO.word() - 1..=slot::ARP_THA.word()).contains(&slot.word()) {
        key.set(slot::IP_PROTO, slot::IP_PROTO.ones());
        key.set(slot::IP_FRAG, slot::IP_FRAG.ones());
    }
}

/// What hashes are made of: addresses, protocol and ports.
pub(crate) fn hashed(key: &mut Key) {
    let slots = [
        slot::ETH_SRC,
        slot::ETH_DST,
        slot::VLAN_VID_PRESENT,
        slot::IPV4_SRC,
        slot::IPV4_DST,
        slot::IPV6_SRC,
        slot::IPV6_DST,
        slot::IP_PROTO,
        slot::IP_FRAG,
        slot::TP_SRC,
        slot::TP_DST,
    ];
    slots.into_iter().for_each(|slot| key.set(slot, slot.ones()));
}
