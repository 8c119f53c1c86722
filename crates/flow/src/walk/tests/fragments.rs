//! Fragments.

use super::watched::Heard;
use super::*;
use crate::key::FRAG_ANY;
use crate::tables::Fragments;

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
