//! Rules that are drawn at random, of few kinds, so that they have much to do with each other.

use openflow::action::{
    Algorithm, Bundle, Ct, CtZone, Encap, HashFields, Learn, LearnFlags, LearnSource, LearnSpec,
    LearnTarget, Timeouts,
};
use proptest::prelude::*;

use super::*;

pub(super) const TABLES: u8 = 4;

pub(super) const HEADS: usize = 10;

pub(super) fn bundle() -> Action {
    let members = vec![PortNo(3), PortNo(4)];
    let (fields, algorithm) = (HashFields::EthSrc, Algorithm::ActiveBackup);
    Action::Bundle(Box::new(Bundle { fields, basis: 0, algorithm, members, target: None }))
}

/// Makes rules for table 3, up to three of them.
pub(super) fn learn() -> Action {
    let spec = LearnSpec {
        bits: 48,
        source: LearnSource::Field { field: Field::EthSrc, offset: 0 },
        target: LearnTarget::Match { field: Field::EthDst, offset: 0 },
    };
    Action::Learn(Box::new(Learn {
        timeouts: Timeouts::default(),
        fin_timeouts: Timeouts::default(),
        priority: 1,
        cookie: 7,
        flags: LearnFlags::default(),
        table: 3,
        limit: 3,
        result: Some(part(Field::Reg1, 1)),
        specs: vec![spec],
    }))
}

pub(super) fn ct(table: u8) -> Action {
    Action::Ct(Box::new(Ct {
        zone: CtZone::Number(0),
        table: Some(table),
        commit: false,
        force: false,
        alg: 0,
        actions: Vec::new(),
    }))
}

pub(super) fn encap(packet_type: u32) -> Action {
    let (header_size, properties) = (0, Vec::new());
    Action::Encap(Box::new(Encap { packet_type, header_size, properties }))
}

/// What a rule matches on: any of these, each with some of the values below `end`.
fn matching(end: u128) -> impl Strategy<Value = Match> {
    let some = |values: std::ops::Range<u128>| prop::option::weighted(0.3, values);
    let all = || some(0..end);
    let rare = prop::option::weighted(0.05, 0..3_u128);
    (all(), all(), some(1..3), all(), (all(), some(0..2), all(), rare)).prop_map(
        |(to, from, port, metadata, (reg, conj, source, beside))| {
            let all = [
                (Field::EthDst, to),
                (Field::EthSrc, from),
                (Field::InPort, port),
                (Field::Metadata, metadata),
                (Field::Reg0, reg),
                (Field::ConjId, conj.filter(|id| *id == 1)),
                (Field::Reg4, beside),
                (Field::ActsetOutput, beside.map(|port| port + 1)),
            ];
            let mut matching = Match::new();
            for (field, value) in all {
                if let Some(value) = value {
                    matching.set(field, value);
                }
            }
            match source {
                Some(source) => matching.with(Field::EthType, 0x800).with(Field::IpSrc, source),
                None => matching,
            }
        },
    )
}

/// What rules match on: of few values, which packets mostly have, or of many, which they mostly have not.
pub(super) fn heads() -> impl Strategy<Value = Vec<Match>> {
    let heads = |end| prop::collection::vec(matching(end), HEADS);
    prop_oneof![heads(3), heads(40)]
}

/// Writes to registers for which rules hardly ask.
pub(super) fn beside() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..3_u128).prop_map(|value| set(Field::Reg4, value)),
        1 => (0..3_u128).prop_map(|value| set(Field::Reg5, value)),
        1 => (0..3_u128).prop_map(|value| set(Field::Xreg2, value << 32 | 1)),
        1 => (0..9_u16, 0..8_u64).prop_map(|(offset, value)| Action::Load {
            target: Subfield { field: Field::Reg4, offset, bits: 3 },
            value,
        }),
    ]
}

/// Writes to packets for which rules hardly ask, not all of which are for these.
pub(super) fn to_packets() -> impl Strategy<Value = Action> {
    let value = || 0..3_u128;
    let address = |low| packet::MacAddr([0, 0, 0, 0, 0, low]);
    prop_oneof![
        3 => value().prop_map(|value| set(Field::IpDst, value)),
        2 => value().prop_map(|value| set(Field::UdpDst, value)),
        1 => value().prop_map(|value| set(Field::TcpDst, value)),
        1 => value().prop_map(|value| set(Field::Ipv6Dst, value << 64 | 1)),
        1 => value().prop_map(|value| set(Field::IpDscp, value)),
        1 => (1..3_u128).prop_map(|value| set(Field::NwTtl, value)),
        1 => (0..3_u8).prop_map(move |low| Action::SetEthDst(address(low))),
        1 => (0..3_u32).prop_map(|to| Action::SetIpDst(to.into())),
        1 => (0..9_u16, 0..8_u64).prop_map(|(offset, value)| Action::Load {
            target: Subfield { field: Field::IpDst, offset, bits: 3 },
            value,
        }),
    ]
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let table = || 0..TABLES;
    prop_oneof![
        8 => table().prop_map(Action::resubmit_table),
        4 => (1..6_u32).prop_map(output),
        3 => (0..3_u128).prop_map(|value| set(Field::Reg0, value)),
        2 => (0..3_u128).prop_map(|value| set(Field::Metadata, value)),
        2 => (0..3_u128).prop_map(|value| set(Field::EthDst, value)),
        2 => Just(Action::Move { source: part(Field::EthSrc, 32), target: part(Field::Reg0, 32) }),
        2 => beside(),
        2 => to_packets(),
        1 => Just(Action::Move { source: part(Field::IpDst, 32), target: part(Field::Reg0, 32) }),
        1 => Just(Action::Move { source: part(Field::Reg4, 32), target: part(Field::Reg0, 32) }),
        1 => Just(Action::Push(part(Field::Reg0, 32))),
        1 => Just(Action::Pop(part(Field::Metadata, 32))),
        1 => Just(Action::DecTtl(None)),
        1 => Just(Action::Exit),
        1 => Just(Action::Group(1)),
        1 => Just(bundle()),
        1 => Just(learn()),
        1 => Just(Action::output(PortNo::CONTROLLER)),
        1 => (table(), 1..4_u32).prop_map(|(table, port)| Action::Resubmit {
            port: Some(PortNo(port)),
            table: Some(table),
            ct: false,
        }),
        1 => table().prop_map(|table| Action::Clone(vec![
            set(Field::Metadata, 2),
            Action::resubmit_table(table),
        ])),
        1 => table().prop_map(ct),
        1 => prop_oneof![Just(encap(0)), Just(encap(0x1_8847))],
        1 => prop_oneof![Just(0xFFFE), Just(0)].prop_map(|packet_type| Action::Decap { packet_type }),
        1 => table().prop_map(|table| Action::Clone(vec![
            encap(0x1_8847),
            Action::Decap { packet_type: 0 },
            Action::resubmit_table(table),
        ])),
    ]
}

pub(super) fn instructions() -> impl Strategy<Value = Instructions> {
    let clause = (0..2_u8).prop_map(|clause| {
        Instructions::apply(vec![Action::Conjunction { id: 1, clause, clauses: 2 }])
    });
    let apply = prop::collection::vec(action(), 0..4);
    let other = (apply, prop::option::weighted(0.2, 1..6_u32)).prop_map(|(apply, port)| {
        Instructions { write: port.map(|port| vec![output(port)]), ..Instructions::apply(apply) }
    });
    prop_oneof![12 => other, 1 => clause]
}
