use openflow::{Field, Match};
use proptest::prelude::*;

use super::*;
use crate::classifier::Classifier;
use crate::groups::PlaceHash;
use crate::key::FRAG_ANY;
use crate::pipeline::Port;
use crate::rule::Rule;
use crate::tables::{Change, Fragments, Miss};

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
fn tags_are_put_on_changed_and_taken_off() {
    let push = Action::PushVlan { ethertype: 0x88A8 };
    let vid = |vid| Action::SetVlanVid { vid, push: true };
    let pushed = |tpid, tci| Op::Edit(Edit::PushVlan { tpid, tci });
    assert_eq!(ops(vec![push.clone(), vid(5), output(2)]), [pushed(0x88A8, 5), Op::Output(12)]);
    assert_eq!(ops(vec![vid(5), output(2)]), [pushed(0x8100, 5), Op::Output(12)]);
    assert_eq!(ops(vec![vid(5), Action::StripVlan, output(2)]), [Op::Output(12)]);
    assert_eq!(ops(vec![Action::StripVlan, output(2)]), [Op::Output(12)]);
    let keep = Action::SetVlanVid { vid: 5, push: false };
    assert_eq!(ops(vec![keep.clone(), output(2)]), [Op::Output(12)]);
    let mut tagged = key();
    tagged.set(slot::VLAN_TCI, VLAN_5.into());
    let pipeline = pipeline(&[(0, 0, Match::new(), vec![keep, output(2), vid(6), output(3)])]);
    let path = walk(&pipeline, &mut tagged, &Start::Table, None);
    let vlan = |tci| Op::Edit(Edit::SetVlan { mask: 0xFFF, tci });
    assert_eq!(*path.ops, [vlan(5), Op::Output(12), vlan(6), Op::Output(13)]);
    assert_eq!(tagged.get_u16(slot::VLAN_TCI), 0x1006);
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

/// What a watcher hears of a walk.
#[derive(Default)]
struct Heard(Vec<String>);

impl Watch for Heard {
    fn look_up(&mut self, _: &Key, _: u8, rules: &Classifier<Arc<Rule>>) {
        self.0.push(format!("among {}", rules.len()));
    }

    fn enter(&mut self, _: &Key, place: Place<'_>) {
        self.0.push(match place {
            Place::Table(table, rule) => format!("{table} {:?}", rule.map(|rule| rule.priority)),
            Place::Fragments(table) => format!("{table} fragments"),
            Place::ActionSet => "set".to_owned(),
            Place::Bucket(id) => format!("bucket {id}"),
        });
    }

    fn leave(&mut self) {
        self.0.push("leave".to_owned());
    }

    fn step(&mut self, _: &Key, step: Step<'_>, is_last: bool) {
        let step = match step {
            Step::Action(action) => action.to_string(),
            other => format!("{other:?}"),
        };
        self.0.push(format!("{step}{}", if is_last { "." } else { "" }));
    }

    fn send(&mut self, key: &Key, op: &Op) {
        self.0.push(format!("{op:?} {}", key.get(slot::ETH_DST)));
    }

    fn note(&mut self, kind: Kind, note: Arguments<'_>) {
        self.0.push(format!("{kind:?}: {note}"));
    }
}

#[test]
fn a_watcher_hears_of_every_step() {
    let clone = Action::Clone(vec![set(Field::EthDst, 7), output(2)]);
    let actions = vec![Action::resubmit_table(1), clone, output(1)];
    let pipeline = pipeline(&[(0, 5, Match::new(), actions)]);
    let mut heard = Heard::default();
    let mut key = key();
    key.set(slot::ETH_DST, 1);
    walk(&pipeline, &mut key, &Start::Table, Some(&mut heard));
    let copy = "clone(set_field:00:00:00:00:00:07->eth_dst,output:2)";
    assert_eq!(
        heard.0,
        [
            "among 1",
            "0 Ok(5)",
            "resubmit(,1)",
            "1 Err(false)",
            "Drop.",
            "leave",
            copy,
            "set_field:00:00:00:00:00:07->eth_dst",
            "output:2.",
            "Output(12) 7",
            "output:1.",
            "Warning: skipping output to input port",
            "leave",
        ]
    );
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
fn rules_see_no_ports_of_fragments() {
    let port = |port| {
        Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 17).with(Field::UdpDst, port)
    };
    let read = Action::Move {
        source: Subfield::whole(Field::UdpDst),
        target: Subfield { field: Field::Reg0, offset: 0, bits: 16 },
    };
    let rules = [(0, 2, port(53), vec![output(2)]), (0, 1, port(0), vec![read, output(3)])];
    let mut pipeline = pipeline(&rules);
    let relevant = pipeline.tables.relevant();
    assert_eq!(relevant.get(slot::IP_FRAG), slot::IP_FRAG.ones());
    let ops = |pipeline: &Pipeline, frag: u8| {
        let mut key = key();
        key.set(slot::IP_FRAG, frag.into());
        let path = walk(pipeline, &mut key, &Start::Table, None);
        (path.ops.into_vec(), key.get_u32(slot::reg(0)), path.lost)
    };
    let whole = (vec![Op::Output(12)], 0, None);
    assert_eq!(ops(&pipeline, 0), whole);
    // Actions see them.
    assert_eq!(ops(&pipeline, FRAG_ANY), (vec![Op::Output(13)], 53, None));
    // They may be told to see them.
    pipeline.tables.set_fragments(Fragments::NxMatch);
    assert_eq!((ops(&pipeline, 0), ops(&pipeline, FRAG_ANY)), (whole.clone(), whole));
}

#[test]
fn fragments_are_dropped_in_every_table_if_they_are_to_be() {
    let actions = vec![Action::resubmit_table(1), output(3)];
    let rules = [(0, 0, Match::new(), actions), (1, 0, Match::new(), vec![output(2)])];
    let mut pipeline = pipeline(&rules);
    let relevant = |pipeline: &Pipeline| pipeline.tables.relevant().get(slot::IP_FRAG);
    assert_eq!((pipeline.tables.fragments(), relevant(&pipeline)), (Fragments::Normal, 0));
    let version = pipeline.tables.version();
    pipeline.tables.set_fragments(Fragments::Drop);
    assert!(pipeline.tables.version() > version && relevant(&pipeline) != 0);
    let ops = |frag: u8, start: &Start<'_>, heard: &mut Heard| {
        let mut key = key();
        key.set(slot::IP_FRAG, frag.into());
        let path = walk(&pipeline, &mut key, start, Some(heard));
        (path.ops.into_vec(), path.lost)
    };
    let (mut heard, table) = (Heard::default(), Start::Table);
    assert_eq!(ops(0, &table, &mut heard), (vec![Op::Output(12), Op::Output(13)], None));
    assert_eq!(ops(FRAG_ANY, &table, &mut heard), (vec![], Some(Lost::Dropped)));
    assert!(heard.0.ends_with(&["0 fragments", "Drop.", "leave"].map(str::to_owned)));
    // What else was to be done is.
    let actions = [Action::resubmit_table(1), output(4)];
    let actions = Start::Actions(&actions);
    let later = FRAG_ANY | crate::key::FRAG_LATER;
    assert_eq!(ops(later, &actions, &mut heard), (vec![Op::Output(14)], None));
    // A bridge that is plain but for this is none, and stays so when its rules are forgotten.
    pipeline.tables.clear();
    let normal = Instructions::apply(vec![output(PortNo::NORMAL.0)]);
    let normal = Change::add(0, Match::new(), normal).with_priority(0);
    pipeline.tables.change(&normal, 0).unwrap();
    assert!(!pipeline.tables.is_plain());
    pipeline.tables.set_fragments(Fragments::Normal);
    assert!(pipeline.tables.is_plain());
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

/// The changes of tags of a packet with these tags, the outermost first.
fn tags(tags: &[u16], actions: Vec<Action>) -> Vec<Edit> {
    let mut key = key();
    let places = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    for ((tpid, tci), tag) in places.into_iter().zip(tags) {
        key.set(tpid, 0x8100);
        key.set(tci, u128::from(tag | TAG_PRESENT));
    }
    let actions = actions.into_iter().chain([output(2)]).collect();
    let pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
    let ops = walk(&pipeline, &mut key, &Start::Table, None).ops.into_vec();
    ops.into_iter()
        .filter_map(|op| if let Op::Edit(edit) = op { Some(edit) } else { None })
        .collect()
}

fn set_tci(tci: u64) -> Action {
    Action::Load { target: Subfield::whole(Field::VlanTci), value: tci }
}

#[test]
fn changes_of_tags_are_few() {
    let (push, pop) = (|| Action::PushVlan { ethertype: 0x88A8 }, || Action::PopVlan);
    let vid = |vid| Action::SetVlanVid { vid, push: true };
    let pushed = |tci| Edit::PushVlan { tpid: 0x88A8, tci };
    let set = |tci| Edit::SetVlan { mask: 0xFFF, tci };
    assert_eq!(tags(&[5], vec![vid(7)]), [set(7)]);
    assert_eq!(tags(&[5], vec![vid(7), push(), vid(8)]), [set(7), pushed(8)]);
    assert_eq!(tags(&[5], vec![vid(7), pop()]), [Edit::PopVlan]);
    assert_eq!(tags(&[5], vec![push(), vid(3), pop()]), []);
    assert_eq!(tags(&[5], vec![pop(), push()]), [Edit::PopVlan, pushed(0)]);
    assert_eq!(tags(&[], vec![push(), push(), pop()]), [pushed(0)]);
    assert_eq!(tags(&[5, 6], vec![pop(), vid(7)]), [Edit::PopVlan, set(7)]);
    // Where the outer one says that it is none, there are none.
    let none = || set_tci(0);
    assert_eq!(tags(&[5], vec![push(), none()]), [Edit::PopVlan]);
    assert_eq!(tags(&[5], vec![push(), none(), set_tci(0x1007)]), [pushed(7)]);
    assert_eq!(tags(&[5, 6], vec![none()]), [Edit::PopVlan, Edit::PopVlan]);
    // A third one pushes the innermost out.
    assert_eq!(
        tags(&[5], vec![push(), vid(1), push(), vid(2)]),
        [Edit::PopVlan, pushed(1), pushed(2)]
    );
}

/// What is done with a packet whose tag is taken off, and of which so much is sent.
fn sent_of_tagged(max_len: u32) -> Vec<Op> {
    let mut key = key();
    key.set(slot::VLAN_TCI, VLAN_5.into());
    let cut = Action::OutputTruncated { port: PortNo(2), max_len };
    let pipeline = pipeline(&[(0, 0, Match::new(), vec![Action::PopVlan, cut, output(3)])]);
    let ops = walk(&pipeline, &mut key, &Start::Table, None).ops.into_vec();
    ops.into_iter().filter(|op| *op != Op::Output(13)).collect()
}

#[test]
fn a_length_is_that_before_tags_that_are_still_to_be() {
    let cut = || Action::OutputTruncated { port: PortNo(2), max_len: 60 };
    assert_eq!(sent_of_tagged(18).len(), 5);
    assert_eq!(sent_of_tagged(17), [Op::Edit(Edit::PopVlan)]);
    let of = |actions: Vec<Action>| {
        let ops = ops(actions);
        ops.into_iter().find_map(|op| if let Op::Cut(len) = op { Some(len) } else { None })
    };
    let push = || Action::PushVlan { ethertype: 0x8100 };
    assert_eq!(of(vec![cut()]), Some(60));
    assert_eq!(of(vec![push(), cut()]), Some(64));
    assert_eq!(of(vec![push(), output(3), cut()]), Some(60));
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

/// What a packet does until it stops, and from there each time that it is let go on.
fn in_parts(pipeline: &Pipeline) -> (Vec<Op>, usize) {
    let (mut all, mut stops) = (Vec::new(), 0);
    let mut left = vec![(path(pipeline).ops, key())];
    while let Some((ops, key)) = left.pop() {
        for op in ops {
            let Op::Controller(about) = &op else {
                all.push(op);
                continue;
            };
            let frozen = about.frozen.as_deref().unwrap();
            assert_eq!((frozen.key.beside(), frozen.table), (*frozen.key, None));
            stops += 1;
            let mut packet = key;
            let path = walk(pipeline, &mut packet, &Start::Frozen(frozen), None);
            left.push((path.ops, key));
        }
    }
    (all, stops)
}

fn pause() -> Action {
    Action::Controller(Box::new(openflow::action::Controller {
        pause: true,
        ..openflow::action::Controller::default()
    }))
}

#[test]
fn a_packet_that_stops_does_what_one_does_that_does_not() {
    let part = |field| Subfield { field, offset: 0, bits: 32 };
    let rules = |pause: &[Action]| {
        let list = |parts: &[&[Action]]| parts.concat();
        let go_on = Instructions {
            apply: list(&[pause, &[output(2)], pause]),
            write: Some(vec![output(4)]),
            metadata: Some((1, 1)),
            goto_table: Some(5),
            clear: true,
        };
        let mut pipeline = pipeline(&[
            (
                0,
                0,
                Match::new(),
                list(&[
                    &[set(Field::Reg0, 3), Action::Push(part(Field::Reg0))],
                    pause,
                    &[Action::resubmit_table(1), Action::Pop(part(Field::Reg1))],
                    pause,
                    &[Action::OutputField { source: part(Field::Reg1), max_len: 0 }, output(2)],
                    pause,
                    &[Action::Clone(vec![output(2), output(4)]), output(2)],
                    pause,
                ]),
            ),
            (2, 0, Match::new().with(Field::Reg0, 3), list(&[&[output(4)], pause])),
            (5, 0, Match::new().with(Field::Metadata, 1), list(&[pause, &[output(3)], pause])),
        ]);
        pipeline.tables.change(&Change::add(1, Match::new(), go_on), 0).unwrap();
        pipeline
    };
    let (parts, stops) = in_parts(&rules(&[pause()]));
    let (whole, none) = in_parts(&rules(&[]));
    assert_eq!(none, 0);
    assert!(stops > 6, "{stops}");
    let outputs = |ops: &[Op]| {
        let mut ports: Vec<_> = ops
            .iter()
            .filter_map(|op| if let Op::Output(to) = op { Some(*to) } else { None })
            .collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(outputs(&parts), outputs(&whole));
}

/// As in Open vSwitch, where it is an end as `exit` is; one that goes round for whoever asks is none.
#[test]
fn nothing_is_done_behind_a_clone_in_which_a_packet_stops() {
    let pop = Action::Decap { packet_type: 0xFFFE };
    let encap =
        openflow::action::Encap { packet_type: 0x1_894F, header_size: 0, properties: vec![] };
    for stop in [vec![pause()], vec![Action::Encap(Box::new(encap)), pop], vec![Action::Exit]] {
        let clone = Action::Clone([stop, vec![output(2)]].concat());
        let rules = [
            (0, 0, Match::new(), vec![Action::resubmit_table(1), output(3)]),
            (1, 0, Match::new(), vec![output(2), clone, output(4)]),
        ];
        let sent = path(&pipeline(&rules)).ops;
        let sent = sent.iter().filter(|op| matches!(op, Op::Output(_)));
        assert_eq!(sent.cloned().collect::<Vec<_>>(), [Op::Output(12)]);
    }
    // What is left of the copy is done once that goes on.
    let clone = Action::Clone(vec![output(3), pause(), output(2)]);
    let all = [(0, 0, Match::new(), vec![clone, output(4)])];
    assert_eq!(in_parts(&pipeline(&all)), (vec![Op::Output(13), Op::Output(12)], 1));
    let clone = Action::Clone(vec![Action::DebugRecirc, output(2)]);
    assert_eq!(ops(vec![clone, output(4)]), [Op::Output(12), Op::Output(14)]);
}

/// Watches, and wants to know nothing.
struct Idle;

impl Watch for Idle {}

/// Actions that go on to other tables, forwards and back, or matter to what comes behind them.
fn wandering() -> impl Strategy<Value = Action> {
    let to = |table| Action::resubmit_table(table);
    prop_oneof![
        4 => (0..6_u8).prop_map(to),
        1 => (0..6_u8, 1..4_u32).prop_map(|(table, port)| Action::Resubmit {
            port: Some(PortNo(port)),
            table: Some(table),
            ct: false,
        }),
        2 => (1..5_u32).prop_map(output),
        2 => (0..3_u128).prop_map(|value| set(Field::Reg0, value)),
        1 => (0..3_u128).prop_map(|value| set(Field::EthDst, value)),
        1 => (0..6_u8).prop_map(move |table| Action::Clone(vec![to(table), output(4)])),
        1 => Just(Action::Exit),
        1 => Just(Action::output(PortNo::CONTROLLER)),
        1 => Just(pause()),
    ]
}

proptest! {
    /// Chains of tables are gone along in another manner when nobody watches.
    #[test]
    fn a_way_is_the_same_when_it_is_watched(
        rules in prop::collection::vec(
            (
                (0..6_u8, 0..3_u16, prop::option::of(0..3_u128)),
                prop::collection::vec(wandering(), 0..4),
                (prop::option::of(wandering()), prop::option::of(1..6_u8)),
            ),
            0..20,
        ),
        asks in any::<bool>(),
    ) {
        let mut pipeline = pipeline(&[]);
        pipeline.asks_controllers = asks;
        for ((table, priority, reg), apply, (write, goto)) in rules {
            let matching = reg.map_or(Match::new(), |reg| Match::new().with(Field::Reg0, reg));
            let mut instructions = Instructions::apply(apply);
            instructions.write = write.map(|action| vec![action]);
            instructions.goto_table = goto.filter(|goto| *goto > table);
            let add = Change::add(table, matching, instructions).with_priority(priority);
            pipeline.tables.change(&add, 0).unwrap();
        }
        let (mut alone, mut watched) = (key(), key());
        let path = walk(&pipeline, &mut alone, &Start::Table, None);
        let other = walk(&pipeline, &mut watched, &Start::Table, Some(&mut Idle));
        prop_assert!(path == other, "{path:?}\n{other:?}");
        prop_assert_eq!(alone, watched);
    }
}

/// Has packets go round where actions say so, and keeps what they go on with.
#[derive(Default)]
struct Rounds(Vec<Frozen>);

impl Watch for Rounds {
    fn goes_round(&self) -> bool {
        true
    }

    fn round(&mut self, _: &Key, hash: Option<PlaceHash>, next: Frozen) {
        assert_eq!(hash, None);
        self.0.push(next);
    }
}

#[test]
fn a_packet_goes_round_only_for_whoever_asks() {
    let resubmit = Action::Resubmit { port: None, table: Some(1), ct: false };
    let any = Match::new();
    let pipeline = pipeline(&[
        (0, 1, any.clone(), vec![output(2), resubmit, output(3)]),
        (1, 1, any, vec![Action::DebugSlow, Action::DebugRecirc, output(4)]),
    ]);
    let all = [Op::Output(12), Op::Output(14), Op::Output(13)];
    assert_eq!(*walk(&pipeline, &mut key(), &Start::Table, None).ops, all);
    let mut rounds = Rounds::default();
    let way = walk(&pipeline, &mut key(), &Start::Table, Some(&mut rounds));
    let [next] = rounds.0.as_slice() else { panic!("{rounds:?}", rounds = rounds.0) };
    assert_eq!(*way.ops, all[..1]);
    assert_eq!(*walk(&pipeline, &mut key(), &Start::Frozen(next), None).ops, all[1..]);
}

#[test]
fn a_mark_is_told_where_it_is_another_one() {
    let mark = |value| {
        let field = Field::PktMark;
        Action::SetField { field, value, mask: field.full_mask() }
    };
    let copy = Action::Clone(vec![mark(9), output(3)]);
    let actions = vec![output(2), mark(7), output(2), copy, mark(7), output(3), mark(0), output(2)];
    let pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
    let wanted = [
        Op::Output(12),
        Op::Mark(7),
        Op::Output(12),
        Op::Save,
        Op::Mark(9),
        Op::Output(13),
        Op::Restore,
        Op::Output(13),
        Op::Mark(0),
        Op::Output(12),
    ];
    assert_eq!(*path(&pipeline).ops, wanted);
    // One that has come in with it goes on with it, and nothing has to be said.
    let mut key = key();
    key.set(slot::PKT_MARK, 7);
    let way = walk(&pipeline, &mut key, &Start::Table, None);
    assert_eq!(*way.ops.get(1..3).unwrap(), [Op::Output(12), Op::Save]);
}

/// What a meter of what controllers get sees is told to it alone.
#[test]
fn a_mark_is_told_behind_a_metered_copy_for_controllers_once_more() {
    use openflow::message::meter::{Band, Meter, MeterCommand, MeterMod};
    let mark = Action::SetField { field: Field::PktMark, value: 7, mask: u32::MAX.into() };
    let actions = vec![mark, output(PortNo::CONTROLLER.0), output(2)];
    let mut pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
    let bands = vec![Band { remark: None, rate: 1, burst: 0 }];
    let meter = Meter { id: CONTROLLER_METER, flags: 1, bands };
    pipeline.tables.change_meter(&MeterMod { command: MeterCommand::Add, meter }, 0).unwrap();
    let ops = path(&pipeline).ops;
    let [Op::Save, Op::Mark(7), Op::Meter(_), Op::Controller(_), Op::Restore, rest @ ..] = &*ops
    else {
        panic!("{ops:?}");
    };
    assert_eq!(*rest, [Op::Mark(7), Op::Output(12)]);
}

#[test]
fn it_is_told_by_what_a_packet_goes_to_another_bridge() {
    let set = Instructions {
        write: Some(vec![output(PortNo::FLOOD.0)]),
        goto_table: Some(1),
        ..Instructions::default()
    };
    let behind = vec![output(2), Action::Clone(vec![output(3)]), output(3)];
    let mut pipeline = pipeline(&[(1, 0, Match::new(), behind)]);
    pipeline.tables.change(&crate::tables::Change::add(0, Match::new(), set), 0).unwrap();
    let flood = Op::Flood { all: false, but: 1 };
    let copy = [Op::Output(13), flood.clone()];
    let before = [&[Op::Output(12)], &copy[..], &[Op::Output(13)]].concat();
    let last = [flood.clone()];
    // Nobody asks where no other bridge is.
    assert_eq!(*path(&pipeline).ops, [&before[..], &last].concat());
    pipeline.ports.get_mut(&PortNo(2)).unwrap().is_patch = true;
    let by_set = Op::Cause(Cause::ActionSet);
    let copy = [Op::Save, Op::Output(13), by_set.clone(), flood.clone(), Op::Restore];
    let wanted = [&[Op::Output(12)], &copy[..], &[Op::Output(13), by_set, flood]].concat();
    assert_eq!(*path(&pipeline).ops, wanted);
    let actions = [output(2), output(3), output(2)];
    let way = walk(&pipeline, &mut key(), &Start::Actions(&actions), None);
    let by_controller = Op::Cause(Cause::PacketOut);
    assert_eq!(*way.ops, [by_controller, Op::Output(12), Op::Output(13), Op::Output(12)]);
}

#[test]
fn what_a_packet_begins_with_is_told_where_it_goes_out() {
    let decap = Action::Decap { packet_type: 0xFFFE };
    let encap = openflow::action::Encap { packet_type: 0, header_size: 0, properties: vec![] };
    let actions = vec![
        output(2),
        Action::Clone(vec![decap.clone(), output(2), output(3)]),
        output(2),
        decap,
        output(PortNo::FLOOD.0),
        Action::Encap(Box::new(encap)),
        output(3),
    ];
    let mut pipeline = pipeline(&[(0, 0, Match::new(), actions)]);
    pipeline.ports.get_mut(&PortNo(2)).unwrap().takes_bare = true;
    let path = path(&pipeline);
    let ops: Vec<&Op> = path.ops.iter().filter(|op| !matches!(op, Op::Edit(_))).collect();
    let wanted = [
        Op::Output(12),
        Op::Save,
        Op::Begins(0x1_0800),
        Op::Output(12),
        Op::Restore,
        Op::Output(12),
        Op::Begins(0x1_0800),
        Op::Flood { all: false, but: 1 },
        Op::Begins(0),
        Op::Output(13),
    ];
    assert_eq!(ops, wanted.iter().collect::<Vec<_>>());
    // One that has come in so goes out so, and nothing has to be said.
    let simple = self::pipeline(&[(0, 0, Match::new(), vec![output(2), output(3)])]);
    let sent = |takes_bare| {
        let mut pipeline = simple.clone();
        pipeline.ports.get_mut(&PortNo(2)).unwrap().takes_bare = takes_bare;
        let mut key = key();
        key.set_packet_type(0x1_0800);
        walk(&pipeline, &mut key, &Start::Table, None).ops.into_vec()
    };
    assert_eq!((sent(true), sent(false)), (vec![Op::Output(12)], vec![]));
}

/// What is done with a packet that begins with a header of IP.
fn ops_of_bare(rules: &[(u8, u16, Match, Vec<Action>)]) -> (Vec<Op>, Option<Lost>) {
    let mut pipeline = pipeline(rules);
    pipeline.ports.iter_mut().for_each(|(_, port)| port.takes_bare = true);
    let mut key = key();
    key.set_packet_type(0x1_0800);
    let path = walk(&pipeline, &mut key, &Start::Table, None);
    (path.ops.into_vec(), path.lost)
}

#[test]
fn without_ethernet_there_are_no_tags() {
    let encap = openflow::action::Encap { packet_type: 0, header_size: 0, properties: vec![] };
    let tag = |vid| Action::SetVlanVid { vid, push: true };
    for action in [tag(5), Action::PushVlan { ethertype: 0x8100 }, Action::PopVlan, set_tci(0x1005)]
    {
        let sent = vec![output(2), action.clone(), output(3), action.clone()];
        let (ops, lost) = ops_of_bare(&[(0, 0, Match::new(), sent)]);
        assert_eq!((ops, lost), (vec![Op::Output(12), Op::Output(13)], None), "{action:?}");
        // Nor behind one that is put on then.
        let actions = vec![action.clone(), Action::Encap(Box::new(encap.clone())), output(3)];
        let (ops, _) = ops_of_bare(&[(0, 0, Match::new(), actions)]);
        let is_tag = |op: &Op| matches!(op, Op::Edit(Edit::PushVlan { .. } | Edit::SetVlan { .. }));
        assert!(!ops.iter().any(is_tag) && ops.last() == Some(&Op::Output(13)), "{ops:?}");
    }
    // Rules find what was written all the same, until it goes out.
    let tagged = Match::new().with(Field::PacketType, 0x1_0800).with(Field::VlanTci, 0x1005);
    let asks = Action::resubmit_table(1);
    let actions = vec![tag(5), asks.clone(), output(3), asks];
    let (ops, _) = ops_of_bare(&[(0, 0, Match::new(), actions), (1, 0, tagged, vec![output(2)])]);
    assert_eq!(ops, [Op::Output(12), Op::Output(13)]);
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
