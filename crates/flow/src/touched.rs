//! Which words of packets' headers, and beside packets, actions may write to.

use openflow::{Action, Field, Instructions};

use crate::key::slot;
use crate::place::place;
use crate::walk::trace::bit;

/// How many words there are beside packets that rules can write what they like to: metadata and registers.
pub(crate) const BESIDE: usize = 9;

/// The words of headers, a bit for each.
pub(crate) const HEADERS: u64 = (1 << (slot::PACKET_TYPE.word() + 1)) - (1 << slot::ETH_DST.word());

/// The words of packets' headers and beside them that instructions may write to, a bit for each.
pub(crate) fn touched(instructions: &Instructions) -> u64 {
    let Instructions { apply, write, metadata, .. } = instructions;
    let by_actions = touched_by(apply) | touched_by(write.as_deref().unwrap_or_default());
    by_actions | metadata.map_or(0, |_| words(Field::Metadata))
}

fn touched_by(actions: &[Action]) -> u64 {
    use Action::{
        Bundle, CheckPktLarger, Clone, Conjunction, Controller, CtClear, DebugSlow, DeleteField,
        Enqueue, Exit, FinTimeout, Group, Learn, Load, Meter, Move, Multipath, Note, Output,
        OutputField, OutputTruncated, Pop, PopQueue, Push, Resubmit, Sample, SetField, SetQueue,
        SetTunnel,
    };
    actions.iter().fold(0, |all, action| {
        all | match action {
            SetField { field, .. } | DeleteField(field) => words(*field),
            Load { target, .. }
            | Move { target, .. }
            | Pop(target)
            | CheckPktLarger { target, .. } => words(target.field),
            Learn(learn) => learn.result.map_or(0, |target| words(target.field)),
            Multipath(multipath) => words(multipath.target.field),
            Bundle(bundle) => bundle.target.map_or(0, |target| words(target.field)),
            Clone(actions) => touched_by(actions),
            Output { .. } | OutputField { .. } | OutputTruncated { .. } | Enqueue { .. } => 0,
            Controller(_) | Group(_) | Meter(_) | Sample(_) | Resubmit { .. } | Exit => 0,
            Push(_) | SetQueue(_) | PopQueue | Conjunction { .. } | SetTunnel { .. } => 0,
            CtClear | FinTimeout { .. } | Note(_) | DebugSlow => 0,
            other => words_of_field(other),
        }
    })
}

/// The same of an action that writes a field which its name says.
fn words_of_field(action: &Action) -> u64 {
    use Action::{
        DecMplsTtl, DecNshTtl, DecTtl, PopVlan, PushVlan, SetEthDst, SetEthSrc, SetIpDst, SetIpSrc,
        SetL4Dst, SetL4Src, SetMplsLabel, SetMplsTc, SetMplsTtl, SetNwEcn, SetNwTos, SetNwTtl,
        SetVlanPcp, SetVlanVid, StripVlan,
    };
    words(match action {
        SetEthSrc(_) => Field::EthSrc,
        SetEthDst(_) => Field::EthDst,
        SetIpSrc(_) => Field::IpSrc,
        SetIpDst(_) => Field::IpDst,
        SetNwTos(_) | SetNwEcn(_) => Field::NwTos,
        SetNwTtl(_) | DecTtl(_) => Field::NwTtl,
        SetL4Src(_) => Field::TcpSrc,
        SetL4Dst(_) => Field::TcpDst,
        // All that is known of tags is one word.
        SetVlanVid { .. } | SetVlanPcp { .. } => Field::VlanTci,
        StripVlan | PopVlan | PushVlan { .. } => Field::VlanTci,
        SetMplsLabel(_) | SetMplsTc(_) | SetMplsTtl(_) | DecMplsTtl => Field::MplsLabel,
        DecNshTtl => Field::NshTtl,
        // What puts other headers on, or takes some off, or translates addresses, has it be another packet.
        _ => return HEADERS,
    })
}

/// The words of metadata and registers, a bit for each.
pub(crate) const fn beside() -> u64 {
    (1 << (slot::METADATA.word() + BESIDE)) - (1 << slot::METADATA.word())
}

/// Those that a field is in, of headers and beside packets.
pub(crate) fn words(field: Field) -> u64 {
    let Some(slot) = place(field) else { return 0 };
    let words = slot.spread(0).filter_map(|(word, _)| u8::try_from(word).ok());
    words.fold(0, |all, word| all | bit(word)) & (HEADERS | beside())
}

#[cfg(test)]
mod tests {
    use openflow::action::{Algorithm, Bundle, Ct, CtZone, Encap, HashFields, Multipath};
    use openflow::{Match, PortNo, Subfield};
    use proptest::prelude::*;

    use super::*;
    use crate::key::{Key, Slot, TAG_PRESENT, WORDS};
    use crate::pipeline::{Pipeline, Port};
    use crate::tables::Change;
    use crate::walk::{Start, walk};

    const FIELDS: [Field; 26] = [
        Field::Metadata,
        Field::Reg0,
        Field::Reg5,
        Field::Xreg1,
        Field::Xxreg1,
        Field::EthDst,
        Field::EthSrc,
        Field::VlanTci,
        Field::VlanVid,
        Field::VlanPcp,
        Field::IpSrc,
        Field::IpDst,
        Field::Ipv6Src,
        Field::Ipv6Dst,
        Field::Ipv6Label,
        Field::NwTos,
        Field::IpDscp,
        Field::IpEcn,
        Field::NwTtl,
        Field::TcpSrc,
        Field::UdpDst,
        Field::ArpSpa,
        Field::ArpTha,
        Field::MplsTtl,
        Field::TunId,
        Field::PktMark,
    ];

    fn writes() -> impl Strategy<Value = Action> {
        let field = || prop::sample::select(&FIELDS[..]);
        let address = |low| packet::MacAddr([2, 0, 0, 0, 0, low]);
        prop_oneof![
            4 => (field(), any::<u128>(), any::<u128>()).prop_map(|(field, value, mask)| {
                Action::SetField { field, value, mask: mask & field.full_mask() }
            }),
            1 => (field(), any::<u64>()).prop_map(|(field, value)| {
                Action::Load { target: Subfield { field, offset: 0, bits: 8 }, value }
            }),
            1 => (field(), field()).prop_map(|(from, to)| {
                let part = |field| Subfield { field, offset: 0, bits: 3 };
                Action::Move { source: part(from), target: part(to) }
            }),
            4 => (0..28_u8, any::<u8>()).prop_map(move |(kind, to)| match kind {
                0 => Action::SetEthSrc(address(to)),
                1 => Action::SetEthDst(address(to)),
                2 => Action::SetIpSrc(u32::from(to).into()),
                3 => Action::SetIpDst(u32::from(to).into()),
                4 => Action::SetNwTos(to),
                5 => Action::SetNwEcn(to & 3),
                6 => Action::SetNwTtl(to),
                7 => Action::SetL4Src(to.into()),
                8 => Action::SetL4Dst(to.into()),
                9 => Action::DecTtl(None),
                10 => Action::SetVlanVid { vid: to.into(), push: to & 1 == 0 },
                11 => Action::SetVlanPcp { pcp: to & 7, push: to & 8 == 0 },
                12 => Action::StripVlan,
                13 => Action::PopVlan,
                14 => Action::PushVlan { ethertype: if to & 1 == 0 { 0x8100 } else { 0x88A8 } },
                15 => Action::SetMplsLabel(to.into()),
                16 => Action::SetMplsTc(to & 7),
                17 => Action::SetMplsTtl(to),
                18 => Action::DecMplsTtl,
                19 => Action::DecNshTtl,
                20 => Action::SetTunnel { id: to.into(), wide: true },
                21 => Action::SetQueue(to.into()),
                22 => Action::CtClear,
                23 => Action::FinTimeout { idle: to.into(), hard: 1 },
                24 => Action::PushMpls { ethertype: 0x8847 },
                25 => Action::PopMpls { ethertype: if to & 1 == 0 { 0x0800 } else { 0x8847 } },
                26 => Action::Encap(Box::new(Encap {
                    packet_type: if to & 1 == 0 { 0x1_8847 } else { 0x1_894F },
                    header_size: 0,
                    properties: Vec::new(),
                })),
                _ => Action::Decap { packet_type: 0xFFFE },
            }),
            1 => any::<bool>().prop_map(picks),
            1 => (any::<u16>(), field()).prop_map(|(len, field)| Action::CheckPktLarger {
                len,
                target: Subfield { field, offset: 0, bits: 1 },
            }),
        ]
    }

    /// Writes which of some ports, or links, it is to a register.
    fn picks(is_bundle: bool) -> Action {
        let (fields, basis, target) = (HashFields::EthSrc, 0, Field::Reg3);
        let target = Subfield { field: target, offset: 0, bits: 16 };
        if is_bundle {
            let (algorithm, members) = (Algorithm::Hrw, vec![PortNo(1), PortNo(2)]);
            return Action::Bundle(Box::new(Bundle {
                fields,
                basis,
                algorithm,
                members,
                target: Some(target),
            }));
        }
        let (algorithm, max_link, arg) = (Algorithm::ModuloN, 7, 0);
        Action::Multipath(Box::new(Multipath { fields, basis, algorithm, max_link, arg, target }))
    }

    /// A packet of some kind, with tags or without.
    fn packet() -> impl Strategy<Value = Key> {
        let kinds = prop::sample::select(&[0x0800_u16, 0x86DD, 0x0806, 0x8847, 0x894F, 0x88B5][..]);
        let proto = prop::sample::select(&[6_u8, 17, 1, 58, 132, 0][..]);
        (kinds, proto, any::<[u64; 20]>(), 0..3_u8, 0..3_u8, any::<bool>()).prop_map(
            |(kind, proto, words, frag, ttl, is_tagged)| {
                let mut key = Key::default();
                key.0[1..].iter_mut().zip(words).for_each(|(word, value)| *word = value);
                let mut set = |slot: Slot, value: u64| key.set(slot, value.into());
                set(slot::ETH_TYPE, kind.into());
                set(slot::IP_PROTO, proto.into());
                set(slot::IP_FRAG, frag.into());
                set(slot::IP_TTL, ttl.into());
                set(slot::IN_PORT, 1);
                set(slot::PACKET_TYPE, 0);
                set(slot::VLAN_TCI, if is_tagged { TAG_PRESENT.into() } else { 0 });
                key
            },
        )
    }

    proptest! {
        /// Compared with what a walk does by them, also where packets are sent in between.
        #[test]
        fn no_other_words_are_written_to(
            actions in prop::collection::vec(writes(), 1..4),
            sends in any::<bool>(),
            key in packet(),
        ) {
            let mut pipeline = Pipeline::default();
            pipeline.ports.insert(PortNo(2), Port::new(2));
            let ends = sends.then(|| Action::output(PortNo(2)));
            let instructions = Instructions::apply(actions.iter().cloned().chain(ends).collect());
            let add = Change::add(0, Match::new(), instructions.clone());
            pipeline.tables.change(&add, 0).unwrap();
            let mut behind = key;
            walk(&pipeline, &mut behind, &Start::Table, None);
            let touched = touched(&instructions);
            for at in 0..WORDS {
                let counts = (HEADERS | beside()) >> at & 1 == 1;
                let is_touched = touched >> at & 1 == 1;
                prop_assert!(is_touched || !counts || behind.0[at] == key.0[at], "word {}", at);
            }
        }
    }

    #[test]
    fn what_writes_a_single_field_is_said_to_write_no_other() {
        let own = |slot: Slot| bit(u8::try_from(slot.word()).unwrap());
        let of = |actions: Vec<Action>| touched(&Instructions::apply(actions));
        let set = |field| Action::SetField { field, value: 1, mask: 1 };
        assert_eq!(of(vec![Action::DecTtl(None)]), own(slot::IP_TTL));
        assert_eq!(of(vec![Action::SetNwTos(4)]), own(slot::IP_TOS));
        assert_eq!(of(vec![Action::SetEthDst(packet::MacAddr([0; 6]))]), own(slot::ETH_DST));
        assert_eq!(of(vec![Action::PopVlan]), own(slot::VLAN_TCI));
        assert_eq!(of(vec![Action::CtClear, Action::SetTunnel { id: 1, wide: false }]), 0);
        let inner = Action::Clone(vec![set(Field::Metadata), set(Field::Reg3)]);
        assert_eq!(of(vec![inner]), own(slot::METADATA) | own(slot::reg(3)));
        let ct = Ct {
            zone: CtZone::Number(0),
            table: None,
            commit: true,
            force: false,
            alg: 0,
            actions: Vec::new(),
        };
        let others = [Action::PushMpls { ethertype: 0x8847 }, Action::Ct(Box::new(ct))];
        assert_eq!(others.map(|other| of(vec![other])), [HEADERS; 2]);
    }
}
