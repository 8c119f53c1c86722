//! Records, halves, and what finds no room.

use std::sync::Arc;

use ::capture::bpf::{Instruction, Program};
use ethdev::DropReason;
use packet::{Frame, Segment};

use super::room::{Captured, Draft, Note, Room, append, records, set_reason, withdraw};
use super::tap::{Captures, Tap, TapPort};
use super::{Capture, Direction, Drops};
use crate::header::tests::large_segment;

fn draft(snaplen: usize) -> Draft<'static> {
    Draft {
        port: 3,
        cycles: u64::MAX - 1,
        direction: Direction::Out,
        missed: 9,
        snaplen,
        copy: None,
    }
}

#[test]
fn records_are_read_as_they_were_written() {
    let bytes: Vec<u8> = (0..100).collect();
    let mut all = Vec::with_capacity(300);
    let frame = Frame::from_bytes(&bytes);
    let first = append(&mut all, &frame, &draft(60)).unwrap();
    let second = append(&mut all, &frame, &draft(1_000)).unwrap();
    let third = append(&mut all, &frame, &draft(10)).unwrap();
    assert_eq!(append(&mut all, &frame, &draft(1_000)), None, "no room, and no more memory");
    for reason in DropReason::ALL {
        set_reason(&mut all, first, reason);
        assert_eq!(records(&all).next().unwrap().dropped, Some(reason));
    }
    let expected = Captured {
        port: 3,
        cycles: u64::MAX - 1,
        direction: Direction::Out,
        bytes: &bytes,
        len: 100,
        dropped: None,
        note: Note::Complete,
        missed: 9,
    };
    let lengths = |all: &[u8]| records(all).map(|one| one.bytes.len()).collect::<Vec<_>>();
    assert_eq!((records(&all).nth(1), lengths(&all)), (Some(expected), vec![60, 100, 10]));
    // In the middle, and at the end.
    withdraw(&mut all, second);
    assert_eq!(lengths(&all), [60, 10]);
    withdraw(&mut all, third);
    assert_eq!((lengths(&all), all.len()), (vec![60], third));
}

#[test]
fn large_segments_and_checksums_are_noted() {
    let (bytes, offload) = large_segment();
    let frame = Frame::from_bytes(&bytes).with_offload(offload);
    let mut all = Vec::with_capacity(1 << 17);
    append(&mut all, &frame, &draft(96)).unwrap();
    let found = records(&all).next().unwrap();
    assert_eq!((found.note, found.len as usize), (Note::Segment(1_448), bytes.len()));
    assert_eq!(found.bytes, &bytes[..96]);
}

#[test]
fn whoever_writes_always_has_a_half() {
    let room = Room::new(64);
    let mut spare = Vec::new();
    let mut took = Vec::new();
    assert!(room.put(&[1; 20]) && room.put(&[2; 12]));
    assert!(!room.put(&[3]), "the half is full; the other one is for when this one is away");
    room.take(&mut spare, |half| took.push(half));
    assert_eq!(took, [[&[1; 20][..], &[2; 12]].concat()]);
    assert!(room.put(&[4; 32]));
}

/// A capture of port 0, as one worker has it.
fn tap(capture: &Capture) -> (Captures, Arc<Room>) {
    let room = Arc::new(Room::new(capture.buffer));
    let ports = vec![Some(TapPort { port: 0, missed: room.missed(0) })];
    (Captures::new(vec![Tap::new(capture, ports, Arc::clone(&room))]), room)
}

fn read(room: &Room) -> Vec<u8> {
    let mut all = Vec::new();
    room.take(&mut Vec::new(), |half| all.extend(half));
    all
}

#[test]
fn what_finds_no_room_is_counted() {
    let (mut captures, room) = tap(&Capture { buffer: 128 << 10, ..Capture::default() });
    let bytes = [0; 1_000];
    for _ in 0..200 {
        for _ in 0..32 {
            let handle = captures.begin(&Frame::from_bytes(&bytes), 0, Direction::In).unwrap();
            captures.end(handle, None);
        }
        captures.end_burst();
    }
    let taken = records(&read(&room)).count();
    assert!(taken >= 32, "{taken}");
    assert_eq!(taken as u64 + room.missed_of(0), 200 * 32);
}

#[test]
fn only_what_is_wanted_is_written_down() {
    let is_wanted = |capture: Capture, port, direction, dropped| {
        let (mut captures, room) = tap(&capture);
        let handle = captures.begin(&Frame::from_bytes(&[0; 60]), port, direction);
        if let Some(handle) = handle {
            captures.end(handle, dropped);
        }
        captures.end_burst();
        records(&read(&room)).count() == 1
    };
    let all = Capture::default;
    let (way_in, reason) = (Some(Direction::In), Some(DropReason::Hairpin));
    assert!(is_wanted(all(), 0, Direction::In, None));
    assert!(!is_wanted(all(), 1, Direction::In, None), "another port");
    assert!(!is_wanted(Capture { direction: way_in, ..all() }, 0, Direction::Out, None));
    assert!(is_wanted(Capture { direction: way_in, ..all() }, 0, Direction::In, None));
    assert!(!is_wanted(Capture { dropped: true, ..all() }, 0, Direction::In, None));
    assert!(is_wanted(Capture { dropped: true, ..all() }, 0, Direction::In, reason));
}

#[test]
fn filters_decide_on_what_is_kept() {
    // Byte 70 is 7: behind the private head.
    let op = |code, k| Instruction { code, jt: 0, jf: u8::from(code == 0x15), k };
    let program = Program::new(&[op(0x30, 70), op(0x15, 7), op(6, 1), op(6, 0)]).unwrap();
    let filter = Some(Arc::new(program));
    let (mut captures, room) = tap(&Capture { filter, ..Capture::default() });
    for (byte, len) in [(7, 100), (8, 100), (7, 70)] {
        let mut bytes = [1; 100];
        bytes[70] = byte;
        let (head, body) = bytes[..len].split_at(64);
        let body = [Segment::from_bytes(body)];
        let frame = Frame::from_parts(head, &body).unwrap();
        if let Some(handle) = captures.begin(&frame, 0, Direction::In) {
            captures.end(handle, None);
        }
    }
    captures.end_burst();
    let all = read(&room);
    let found: Vec<_> = records(&all).collect();
    assert_eq!((found.len(), found[0].bytes[70], found[0].bytes.len()), (1, 7, 100));
}

#[test]
fn the_counter_that_moves_is_the_reason() {
    let mut counters = [5; DropReason::COUNT];
    let mut drops = Drops::new(counters);
    let mut moved =
        |counters: [u64; DropReason::COUNT]| drops.moved(counters.iter().sum(), || counters);
    assert_eq!(moved(counters), None);
    for (index, reason) in DropReason::ALL.into_iter().enumerate() {
        counters[index] += 1;
        assert_eq!((moved(counters), moved(counters)), (Some(reason), None));
    }
}

#[test]
fn settings_out_of_range_are_named() {
    for (capture, expected) in [
        (Capture { ports: Some(Vec::new()), ..Capture::default() }, "names no port"),
        (Capture { snaplen: 0, ..Capture::default() }, "snaplen 0: expected 1 to"),
        (Capture { snaplen: 1 << 20, ..Capture::default() }, "snaplen 1048576"),
        (Capture { buffer: 1, ..Capture::default() }, "buffer 1: expected 131072 to"),
    ] {
        let error = capture.check().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Capture::default().check().is_ok());
}
