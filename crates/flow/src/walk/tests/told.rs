//! What is told of a packet where it goes out.

use super::*;
use crate::meters::CONTROLLER_METER;
use crate::path::Cause;

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
    pipeline.tables.change(&Change::add(0, Match::new(), set), 0).unwrap();
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
