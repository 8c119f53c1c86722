//! Monitors of flows.

use std::collections::BTreeMap;

use openflow::message::flow_monitor::{FlowMonitorRequest, MonitorCommand, MonitorFlags};
use openflow::{Field, Match};

use super::*;

const VERSION: Version = Version::V14;

const EVERYTHING: MonitorFlags = MonitorFlags::INITIAL
    .with(MonitorFlags::ADD)
    .with(MonitorFlags::REMOVED)
    .with(MonitorFlags::MODIFY)
    .with(MonitorFlags::INSTRUCTIONS);

fn monitor(flags: MonitorFlags) -> Vec<u8> {
    let monitor = FlowMonitorRequest { id: 1, flags, ..FlowMonitorRequest::default() };
    FlowMonitorRequest::encode_all(&[monitor], VERSION, 5)
}

fn change(command: Command, in_port: u32, cookie: u64, xid: u32) -> Vec<u8> {
    let port = PortNo(u32::try_from(cookie).unwrap() + 1);
    let change = FlowMod {
        command,
        table: if command.is_delete() { ALL_TABLES } else { 0 },
        matching: Match::new().with(Field::InPort, in_port.into()),
        new_cookie: cookie,
        instructions: Instructions::apply(vec![Action::output(port)]),
        ..FlowMod::default()
    };
    change.encode(VERSION, Form::Of, false, xid)
}

/// What an entry says: the event, the match, the cookie, the length; of those that are of no flow, the
/// event alone.
type Entry = (u16, Vec<u8>, u64, usize);

fn entries(message: &[u8]) -> Vec<Entry> {
    let raw = Raw::read(message).unwrap();
    assert_eq!(raw.kind, Kind::FlowMonitorReply);
    let mut reader = Reader::new(raw.body);
    let mut all = Vec::new();
    while !reader.is_empty() {
        let mut entry = reader.entry(0).unwrap();
        let len = entry.len();
        entry.skip(2).unwrap();
        let event = entry.u16().unwrap();
        if event > 3 {
            all.push((event, Vec::new(), 0, len));
            continue;
        }
        entry.skip(12).unwrap();
        let cookie = entry.u64().unwrap();
        let mut head = entry;
        head.skip(2).unwrap();
        let matched = usize::from(head.u16().unwrap()).next_multiple_of(8);
        all.push((event, entry.take(matched).unwrap().to_vec(), cookie, len));
    }
    all
}

fn events(messages: &[Vec<u8>]) -> Vec<(u16, u64)> {
    let all = messages.iter().flat_map(|message| entries(message));
    all.map(|(event, _, cookie, _)| (event, cookie)).collect()
}

#[test]
fn changes_are_told_in_full_to_others_and_short_to_who_made_them() {
    let (mut bridge, own) = connected(VERSION, Origin::Service);
    let full = join(&mut bridge, VERSION, Origin::Service);
    let other = join(&mut bridge, VERSION, Origin::Service);
    ask(&mut bridge, other, &change(Command::Add, 1, 7, 1));
    assert_eq!(events(&ask(&mut bridge, own, &monitor(EVERYTHING))), [(0, 7)]);
    let everything = monitor(EVERYTHING.with(MonitorFlags::OWN));
    assert_eq!(events(&ask(&mut bridge, full, &everything)), [(0, 7)]);
    assert_eq!(error(&ask(&mut bridge, full, &everything)), ErrorCode::MofcMonitorExists);
    for (command, cookie, event) in
        [(Command::Add, 8, 1), (Command::ModifyStrict, 9, 3), (Command::Delete, 0, 2)]
    {
        let told = ask(&mut bridge, own, &change(command, 1, cookie, 0x1234));
        assert_eq!((events(&told), &told[0][20..]), (vec![(4, 0)], &[0, 0, 0x12, 0x34][..]));
        // What is changed keeps its cookie from OpenFlow 1.2 on.
        let told = events(&sent(&mut bridge, full));
        assert_eq!(told, [(event, 8)], "{command:?}");
        assert!(sent(&mut bridge, other).is_empty());
    }
    // What changes nothing is not told.
    assert!(ask(&mut bridge, own, &change(Command::Delete, 1, 0, 3)).is_empty());
}

#[test]
fn monitors_choose_and_end() {
    let (mut bridge, id) = connected(VERSION, Origin::Service);
    let other = join(&mut bridge, VERSION, Origin::Service);
    let wanted = FlowMonitorRequest {
        id: 3,
        flags: MonitorFlags::ADD,
        out_port: PortNo(6),
        ..FlowMonitorRequest::default()
    };
    let begin = FlowMonitorRequest::encode_all(std::slice::from_ref(&wanted), VERSION, 1);
    assert_eq!(events(&ask(&mut bridge, id, &begin)), []);
    ask(&mut bridge, other, &change(Command::Add, 1, 4, 1));
    ask(&mut bridge, other, &change(Command::Add, 2, 5, 1));
    let told = sent(&mut bridge, id);
    assert_eq!(events(&told), [(1, 5)]);
    // Without instructions it is as long as its head and its match.
    assert_eq!(entries(&told[0])[0].3, 24 + 16);
    let end = FlowMonitorRequest { command: MonitorCommand::Delete, ..wanted };
    let end = FlowMonitorRequest::encode_all(&[end], VERSION, 2);
    assert_eq!(events(&ask(&mut bridge, id, &end)), []);
    ask(&mut bridge, other, &change(Command::Add, 3, 5, 1));
    assert!(sent(&mut bridge, id).is_empty());
    assert_eq!(error(&ask(&mut bridge, id, &end)), ErrorCode::MofcUnknownMonitor);
    // An unknown one has all of its message refused.
    let both = FlowMonitorRequest { id: 9, ..FlowMonitorRequest::default() };
    let gone = FlowMonitorRequest { command: MonitorCommand::Modify, ..both.clone() };
    let gone = FlowMonitorRequest { id: 10, ..gone };
    let both = FlowMonitorRequest::encode_all(&[both, gone], VERSION, 2);
    assert_eq!(error(&ask(&mut bridge, id, &both)), ErrorCode::MofcUnknownMonitor);
    ask(&mut bridge, other, &change(Command::Add, 4, 5, 1));
    assert!(sent(&mut bridge, id).is_empty());
}

#[test]
fn who_does_not_read_is_given_up() {
    let (mut bridge, other) = connected(VERSION, Origin::Service);
    let id = join_with(&mut bridge, VERSION, Origin::Service, 1_024);
    for port in 0..300 {
        ask(&mut bridge, other, &change(Command::Add, port, 1, 1));
    }
    ask(&mut bridge, id, &monitor(EVERYTHING));
    ask(&mut bridge, other, &change(Command::Add, 0, 1, 1));
    assert!(!bridge.is_overrun(id));
    let all = FlowMod { command: Command::Delete, table: ALL_TABLES, ..FlowMod::default() };
    ask(&mut bridge, other, &all.encode(VERSION, Form::Of, false, 1));
    assert!(bridge.is_overrun(id) && !bridge.is_overrun(other));
}

/// What a controller knows that goes by what monitors tell.
#[derive(Default)]
struct Picture {
    flows: BTreeMap<Vec<u8>, u64>,
    is_paused: bool,
    pauses: usize,
}

impl Picture {
    fn read(&mut self, message: &[u8]) {
        for (event, matched, cookie, _) in entries(message) {
            match event {
                0 | 1 => _ = self.flows.insert(matched, cookie),
                2 => assert!(self.flows.remove(&matched).is_some(), "what goes was there"),
                3 => assert!(self.flows.insert(matched, cookie).is_some(), "it was there"),
                5 => (self.is_paused, self.pauses) = (true, self.pauses + 1),
                _ => self.is_paused = false,
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(Command, u32, u64),
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        4 => Just(Command::Add),
        1 => Just(Command::ModifyStrict),
        2 => Just(Command::DeleteStrict),
    ];
    let step = prop_oneof![
        300 => (command, 0..200_u32, 0..9_u64).prop_map(|(it, port, cookie)| {
            Step::Change(it, port, cookie)
        }),
        1 => (1..200_usize).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn who_reads_slowly_knows_all_in_the_end(steps in steps()) {
        let (mut bridge, id) = connected(VERSION, Origin::Service);
        let other = join(&mut bridge, VERSION, Origin::Service);
        let mut picture = Picture::default();
        bridge.receive(id, &monitor(EVERYTHING), &mut Detached::default(), Instant::now()).unwrap();
        for step in steps {
            match step {
                Step::Change(command, port, cookie) => {
                    let told = ask(&mut bridge, other, &change(command, port, cookie, 1));
                    prop_assert!(told.is_empty());
                }
                Step::Read(count) => {
                    let read: Vec<_> =
                        std::iter::from_fn(|| bridge.take(id)).take(count).collect();
                    read.iter().for_each(|message| picture.read(message));
                }
            }
        }
        sent(&mut bridge, id).iter().for_each(|message| picture.read(message));
        prop_assert!(!picture.is_paused);
        let flows: Vec<u64> = picture.flows.values().copied().collect();
        let rules: BTreeMap<u128, u64> = bridge
            .tables
            .iter()
            .map(|rule| (rule.matching.exact(Field::InPortOxm).unwrap(), rule.cookie))
            .collect();
        prop_assert_eq!(flows, rules.into_values().collect::<Vec<_>>());
    }
}
