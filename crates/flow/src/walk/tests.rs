mod fragments;
mod frozen;
mod tags;
mod told;
mod watched;

use openflow::packet_in::Reason;
use openflow::{Field, Instructions, Match, Subfield};

use super::*;
use crate::path::Edit;
use crate::pipeline::Port;
use crate::place::place;
use crate::tables::Miss;

const VLAN_5: u16 = 0x1005;

pub(super) fn pipeline(rules: &[(u8, u16, Match, Vec<Action>)]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for (table, priority, matching, actions) in rules {
        let add = Change::add(*table, matching.clone(), Instructions::apply(actions.clone()));
        pipeline.tables.change(&add.with_priority(*priority), 0).unwrap();
    }
    for number in 1..5_u16 {
        pipeline.ports.insert(PortNo(number.into()), Port::new(number + 10));
    }
    pipeline
}

/// A packet of UDP, from port 1.
pub(super) fn key() -> Key {
    let mut key = Key::default();
    for (slot, value) in [
        (slot::IN_PORT, 1),
        (slot::ETH_TYPE, 0x800),
        (slot::IP_PROTO, 17),
        (slot::IPV4_SRC, 0x0A00_0001),
        (slot::IP_TTL, 64),
        (slot::TP_DST, 53),
    ] {
        key.set(slot, value);
    }
    key
}

pub(super) fn output(port: u32) -> Action {
    Action::output(PortNo(port))
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.full_mask() }
}

pub(super) fn path(pipeline: &Pipeline) -> Path {
    walk(pipeline, &mut key(), &Start::Table, None)
}

pub(super) fn ops(actions: Vec<Action>) -> Vec<Op> {
    path(&pipeline(&[(0, 0, Match::new(), actions)])).ops.into_vec()
}

fn write(field: Field, value: u64) -> Op {
    let slot = place(field).unwrap();
    let spread = |value| slot.spread(value).next().unwrap();
    let ((word, value), (_, mask)) = (spread(value.into()), spread(slot.ones()));
    Op::Edit(Edit::Set { word: u8::try_from(word).unwrap(), mask, value })
}

#[test]
fn output_goes_everywhere_but_back() {
    assert_eq!(ops(vec![output(2), output(1), output(9)]), [Op::Output(12)]);
    assert_eq!(ops(vec![output(PortNo::IN_PORT.0)]), [Op::Output(11)]);
    assert_eq!(ops(vec![output(PortNo::NORMAL.0)]), [Op::Normal(Some(11))]);
    assert_eq!(ops(vec![output(PortNo::FLOOD.0)]), [Op::Flood { all: false, but: 1 }]);
    // A packet that seems to have come from elsewhere can go back.
    assert_eq!(ops(vec![set(Field::InPort, 0), output(1)]), [Op::Output(11)]);
}

#[test]
fn misses_are_what_their_table_is_set_to() {
    use crate::tables::TableSettings;
    let mut pipeline = pipeline(&[
        (0, 1, Match::new().with(Field::InPort, 2), vec![output(3)]),
        (4, 1, Match::new().with(Field::InPort, 1), vec![output(2)]),
    ]);
    let mut walked = |table: u8, miss: Miss, asks: bool| {
        let settings = TableSettings { miss, ..TableSettings::default() };
        pipeline.tables.set_table(table, settings);
        pipeline.asks_controllers = asks;
        let path = path(&pipeline);
        let ops = path.ops.into_vec();
        ops.first().map(|op| match op {
            Op::Controller(about) => about.table.into(),
            Op::Output(port) => usize::from(*port) + 1_000,
            _ => 0,
        })
    };
    assert_eq!((walked(0, Miss::Default, false), walked(0, Miss::Default, true)), (None, Some(0)));
    assert_eq!((walked(0, Miss::Drop, true), walked(0, Miss::Controller, false)), (None, Some(0)));
    assert_eq!(walked(0, Miss::Continue, false), None);
    for table in 1..4 {
        walked(table, Miss::Continue, false);
    }
    assert_eq!(walked(1, Miss::Continue, false), Some(1_012));
    // At the end there is somebody to be asked.
    pipeline.tables.change(&Change::delete(Some(4), Match::new()), 0).unwrap();
    for table in 0..=254 {
        let settings = TableSettings { miss: Miss::Continue, ..TableSettings::default() };
        pipeline.tables.set_table(table, settings);
    }
    let ops = path(&pipeline).ops.into_vec();
    assert!(matches!(&ops[..], [Op::Controller(about)] if about.table == 253));
}

#[test]
fn an_option_that_is_deleted_is_not_there() {
    let begin = |behind: Vec<Action>| {
        let resubmit = vec![Action::resubmit_table(1)];
        let actions = [vec![set(Field::TunMetadata0, 5)], behind, resubmit].concat();
        let found = pipeline(&[
            (0, 0, Match::new(), actions),
            (1, 1, Match::new().with_masked(Field::TunMetadata0, 4, 4), vec![output(2)]),
            (1, 0, Match::new(), vec![output(3)]),
        ]);
        path(&found).ops.into_vec().pop()
    };
    assert_eq!(begin(vec![Action::DeleteField(Field::TunMetadata0)]), Some(Op::Output(13)));
    assert_eq!(begin(Vec::new()), Some(Op::Output(12)));
    // What is written to it makes it be there.
    let zero = vec![Action::DeleteField(Field::TunMetadata0), set(Field::TunMetadata0, 4)];
    assert_eq!(begin(zero), Some(Op::Output(12)));
}

#[test]
fn ports_of_sctp_are_written() {
    let mut pipeline = pipeline(&[(0, 0, Match::new(), vec![Action::SetL4Dst(80), output(2)])]);
    let mut sctp = key();
    sctp.set(slot::IP_PROTO, 132);
    let path = walk(&pipeline, &mut sctp, &Start::Table, None);
    assert_eq!((path.ops.len(), path.lost), (2, None));
    let matching = Match::new().with(Field::EthType, 0x0800).with(Field::IpProto, 132);
    let actions = Instructions::apply(vec![set(Field::SctpDst, 80)]);
    assert!(pipeline.tables.change(&Change::add(1, matching, actions), 0).is_ok());
}

#[test]
fn what_no_rule_is_for_is_dropped_or_goes_to_controllers() {
    let mut pipeline = pipeline(&[]);
    assert_eq!(path(&pipeline).lost, Some(Lost::NoRule));
    pipeline.asks_controllers = true;
    let asked = path(&pipeline);
    assert!(matches!(&*asked.ops, [Op::Controller(to)] if to.reason == Reason::IMPLICIT_MISS));
    pipeline.ports.get_mut(&PortNo(1)).unwrap().no_packet_in = true;
    assert_eq!(path(&pipeline).lost, Some(Lost::NoRule));
}

#[test]
fn changes_are_made_once_before_the_packet_goes() {
    let actions = vec![
        set(Field::EthDst, 7),
        set(Field::EthDst, 9),
        output(2),
        Action::SetNwTtl(3),
        output(3),
        set(Field::EthSrc, 1),
    ];
    assert_eq!(
        ops(actions),
        [write(Field::EthDst, 9), Op::Output(12), write(Field::NwTtl, 3), Op::Output(13)]
    );
    // Fields that the packet does not have are not written.
    assert_eq!(ops(vec![set(Field::TcpDst, 7), output(2)]), [Op::Output(12)]);
    assert_eq!(
        ops(vec![set(Field::UdpDst, 7), output(2)]),
        [write(Field::UdpDst, 7), Op::Output(12)]
    );
}

#[test]
fn registers_and_the_stack_lead_through_tables() {
    let reg0 = Subfield::whole(Field::Reg0);
    let half = Subfield { field: Field::Reg1, offset: 16, bits: 16 };
    let pipeline = pipeline(&[
        (
            0,
            0,
            Match::new(),
            vec![
                Action::Load { target: half, value: 3 },
                Action::Push(half),
                Action::Load { target: half, value: 0 },
                Action::Pop(reg0),
                Action::resubmit_table(4),
            ],
        ),
        (
            4,
            9,
            Match::new().with(Field::Reg0, 3).with(Field::Reg1, 0),
            vec![
                Action::Move { source: reg0, target: half },
                Action::OutputField { source: half, max_len: 0 },
            ],
        ),
        (4, 8, Match::new(), vec![]),
    ]);
    let path = path(&pipeline);
    assert_eq!((&*path.ops, path.stats().count()), (&[Op::Output(13)][..], 2));
}

#[test]
fn a_clone_changes_nothing_outside() {
    let inner = || vec![set(Field::EthDst, 7), output(2)];
    assert_eq!(
        ops(vec![Action::Clone(inner()), output(3)]),
        [Op::Save, write(Field::EthDst, 7), Op::Output(12), Op::Restore, Op::Output(13)]
    );
    // But that all ends is true of the packet, too.
    let last = Action::Clone([inner(), vec![Action::Exit]].concat());
    assert_eq!(ops(vec![last, output(3)]), [Op::Save, write(Field::EthDst, 7), Op::Output(12)]);
    assert_eq!(
        ops(vec![Action::Clone(vec![output(2)]), output(3)]),
        [Op::Output(12), Op::Output(13)]
    );
    let cut = Action::OutputTruncated { port: PortNo(2), max_len: 60 };
    assert_eq!(ops(vec![cut]), [Op::Save, Op::Cut(60), Op::Output(12)]);
}

#[test]
fn loops_end_and_take_the_packet_along() {
    let twice =
        |table| vec![output(2), Action::resubmit_table(table), Action::resubmit_table(table)];
    let endless = pipeline(&[(0, 0, Match::new(), vec![output(2), Action::resubmit_table(0)])]);
    assert_eq!((path(&endless).lost, path(&endless).ops.len()), (Some(Lost::TooDeep), 0));
    let rules: Vec<_> = (0..20).map(|table| (table, 0, Match::new(), twice(table + 1))).collect();
    assert_eq!(path(&pipeline(&rules)).lost, Some(Lost::TooMany));
    let few = path(&pipeline(&rules[..8]));
    assert_eq!((few.lost, few.ops.len()), (None, 255));
}

/// Whoever makes tables must not be able to exhaust a worker's stack.
#[test]
fn the_deepest_way_fits_a_small_stack() {
    let deep = |table: u8| {
        let back = Action::resubmit_table(table.checked_add(1).unwrap_or(0));
        let nested = (0..MAX_NESTING).fold(vec![back], |inner, _| vec![Action::Clone(inner)]);
        (table, 0, Match::new(), nested)
    };
    let rules: Vec<_> = (0..=254).map(deep).collect();
    let pipeline = pipeline(&rules);
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let lost = thread.spawn(move || path(&pipeline).lost).unwrap().join().unwrap();
    assert_eq!(lost, Some(Lost::TooDeep));
}

#[test]
fn time_to_live_that_is_over_ends_the_way() {
    let pipeline = pipeline(&[(0, 0, Match::new(), vec![Action::DecTtl(None), output(2)])]);
    assert_eq!(*path(&pipeline).ops, [write(Field::NwTtl, 63), Op::Output(12)]);
    let mut over = key();
    over.set(slot::IP_TTL, 1);
    let path = walk(&pipeline, &mut over, &Start::Table, None);
    assert!(matches!(&*path.ops, [Op::Controller(to)] if to.reason == Reason::INVALID_TTL));
    assert_eq!(pipeline.tables.relevant().get(slot::IP_TTL), 0xFF);
}

#[test]
fn the_action_set_is_done_at_the_end_in_its_own_order() {
    let mut pipeline = pipeline(&[(1, 0, Match::new(), vec![output(2)])]);
    let instructions = Instructions {
        write: Some(vec![output(3), set(Field::EthDst, 7), output(4)]),
        metadata: Some((0xFF, 0x0F)),
        goto_table: Some(1),
        ..Instructions::default()
    };
    pipeline.tables.change(&Change::add(0, Match::new(), instructions), 0).unwrap();
    let mut key = key();
    let path = walk(&pipeline, &mut key, &Start::Table, None);
    assert_eq!(*path.ops, [Op::Output(12), write(Field::EthDst, 7), Op::Output(14)]);
    assert_eq!(key.get(slot::METADATA), 0x0F);
    // A set that sends nowhere does nothing.
    let write = Some(vec![set(Field::EthDst, 7)]);
    let only = Instructions { write, ..Instructions::default() };
    pipeline.tables.change(&Change::add(0, Match::new(), only), 0).unwrap();
    assert_eq!(walk(&pipeline, &mut key, &Start::Table, None).lost, Some(Lost::Dropped));
}

#[test]
fn a_rule_is_made_of_a_packet() {
    use openflow::action::{Learn, LearnFlags, LearnSource, LearnSpec, LearnTarget, Timeouts};
    let spec = |bits, source, target| LearnSpec { bits, source, target };
    let field = |field| LearnSource::Field { field, offset: 0 };
    let learn = Learn {
        timeouts: Timeouts { idle: 3, hard: 9 },
        fin_timeouts: Timeouts::default(),
        priority: 7,
        cookie: 0xC,
        flags: LearnFlags::default(),
        table: 5,
        limit: 0,
        result: None,
        specs: vec![
            spec(
                16,
                LearnSource::Value(0x800),
                LearnTarget::Match { field: Field::EthType, offset: 0 },
            ),
            spec(32, field(Field::IpSrc), LearnTarget::Match { field: Field::IpDst, offset: 0 }),
            spec(8, field(Field::NwTtl), LearnTarget::Load { field: Field::Reg0, offset: 8 }),
            spec(32, field(Field::InPortOxm), LearnTarget::Output),
        ],
    };
    let mut pipeline = pipeline(&[(0, 0, Match::new(), vec![Action::Learn(Box::new(learn))])]);
    let path = path(&pipeline);
    let change = &path.learns[0];
    assert_eq!(
        (path.learns.len(), pipeline.tables.relevant().get(slot::IPV4_SRC)),
        (1, 0xFFFF_FFFF)
    );
    assert_eq!(pipeline.tables.change(change, 1_000).unwrap().added.len(), 1);
    let find = |pipeline: &Pipeline| {
        let rule = pipeline.tables.table(5).and_then(|rules| rules.iter().next()).unwrap();
        Rule::clone(rule)
    };
    let rule = find(&pipeline);
    assert_eq!((rule.priority, rule.cookie, rule.timeouts.idle), (7, 0xC, 3));
    let matching = Match::new().with(Field::EthType, 0x800).with(Field::IpDst, 0x0A00_0001);
    assert_eq!(rule.matching, matching);
    let target = Subfield { field: Field::Reg0, offset: 8, bits: 8 };
    assert_eq!(rule.instructions.apply, [Action::Load { target, value: 64 }, output(1)]);
    // Once more, it lives longer and counts on.
    rule.stats.add(1, 60, 1_500);
    assert!(pipeline.tables.change(change, 2_000).unwrap().modified.is_empty());
    let again = find(&pipeline);
    assert_eq!((again.modified, again.created, again.stats.packets()), (2_000, 1_000, 1));
}

#[test]
fn a_clone_does_what_is_in_the_action_set() {
    let mut pipeline = pipeline(&[]);
    let write = Instructions {
        write: Some(vec![output(3)]),
        goto_table: Some(1),
        ..Instructions::default()
    };
    let clone = Instructions::apply(vec![Action::Clone(vec![output(2)])]);
    for (table, instructions) in [(0, write), (1, clone)] {
        let add = Change::add(table, Match::new(), instructions);
        pipeline.tables.change(&add, 0).unwrap();
    }
    assert_eq!(*path(&pipeline).ops, [Op::Output(12), Op::Output(13), Op::Output(13)]);
}

#[test]
fn what_makes_no_sense_is_not_written_to() {
    let sent = |protocol: u8, ether_type: u16| {
        let mut key = key();
        key.set(slot::ETH_TYPE, ether_type.into());
        key.set(slot::IP_PROTO, protocol.into());
        let actions = vec![set(Field::IpSrc, 9), set(Field::ArpSpa, 9), output(2)];
        let pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
        walk(&pipeline, &mut key, &Start::Table, None).ops.len()
    };
    assert_eq!([sent(17, 0x0800), sent(1, 0x0806)], [2, 2]);
    // Cut short, without an operation, and RARP.
    assert_eq!([sent(0, 0x0800), sent(0, 0x0806), sent(3, 0x8035)], [1, 1, 1]);
}

#[test]
fn some_bits_of_the_port_are_written() {
    let target = Subfield { field: Field::InPort, offset: 1, bits: 1 };
    let actions = vec![Action::Load { target, value: 1 }, output(PortNo::IN_PORT.0)];
    assert_eq!(ops(actions), [Op::Output(13)]);
}

/// As in Open vSwitch: a rule that says something of packets, and not what they begin with, is for Ethernet.
#[test]
fn behind_a_header_that_is_gone_rules_are_found_that_say_so() {
    let (any, ip) = (Match::new(), Match::new().with(Field::EthType, 0x800));
    let bare = Match::new().with(Field::PacketType, 0x1_0800);
    let clause = |clause| vec![Action::Conjunction { id: 1, clause, clauses: 2 }];
    let actions = [1, 2, 3].map(Action::resubmit_table);
    let decap = Action::Decap { packet_type: 0xFFFE };
    let mut pipeline = pipeline(&[
        (0, 1, any.clone(), [&[decap][..], &actions].concat()),
        (1, 9, ip.clone(), vec![output(4)]),
        (1, 8, any.clone().with_masked(Field::EthSrc, 0, 1 << 40), vec![output(4)]),
        (1, 7, bare.clone().with(Field::IpSrc, 0x0A00_0001), vec![output(2)]),
        (2, 9, ip, clause(0)),
        (2, 9, bare.clone(), clause(1)),
        (2, 8, any.clone().with(Field::ConjId, 1), vec![output(4)]),
        (2, 7, any.clone(), vec![output(3)]),
        (3, 9, bare.clone().with(Field::IpProto, 17), clause(0)),
        (3, 9, bare.with(Field::IpSrc, 0x0A00_0001), clause(1)),
        (3, 8, any.with(Field::ConjId, 1), vec![output(2)]),
    ]);
    for number in 1..5 {
        pipeline.ports.get_mut(&PortNo(number)).unwrap().takes_bare = true;
    }
    let path = path(&pipeline);
    let sent = path.ops.iter().filter(|op| matches!(op, Op::Output(_))).cloned();
    assert_eq!(sent.collect::<Vec<_>>(), [12, 13, 12].map(Op::Output));
}

#[test]
fn what_a_port_does_not_take_finds_its_first_rule_and_nothing_else() {
    let mut pipeline = pipeline(&[(0, 0, Match::new(), vec![output(2)])]);
    let actions = [output(2)];
    let sent = |pipeline: &Pipeline, key: &Key| {
        let starts = [Start::Table, Start::Actions(&actions)];
        starts.map(|start| walk(pipeline, &mut key.clone(), &start, None).ops.len())
    };
    let mut bpdu = key();
    bpdu.set(slot::ETH_DST, 0x0180_C200_0000);
    bpdu.set(slot::ETH_TYPE, 0x05FF);
    pipeline.ports.get_mut(&PortNo(1)).unwrap().no_receive = true;
    assert_eq!((sent(&pipeline, &key()), sent(&pipeline, &bpdu)), ([0, 0], [1, 1]));
    let dropped = path(&pipeline);
    assert_eq!((dropped.lost, dropped.visits.len()), (Some(Lost::Dropped), 1));
    assert_eq!(pipeline.relevant().get(slot::ETH_DST), slot::ETH_DST.ones());
    assert!(!pipeline.is_plain());
    let port = pipeline.ports.get_mut(&PortNo(1)).unwrap();
    (port.no_receive, port.no_receive_stp) = (false, true);
    assert_eq!((sent(&pipeline, &key()), sent(&pipeline, &bpdu)), ([1, 1], [0, 0]));
    // It is the port where a packet comes in.
    let mut other = bpdu;
    other.set(slot::IN_PORT, 2);
    assert_eq!(sent(&pipeline, &other), [0, 0], "it does not go back");
    other.set(slot::IN_PORT, 3);
    assert_eq!(sent(&pipeline, &other), [1, 1]);
}
