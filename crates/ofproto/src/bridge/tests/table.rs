//! Settings of tables.

use openflow::message::stats::table_features::TableFeatures;
use openflow::{Field, Match};

use super::*;
use crate::TableConfig;

const VERSION: Version = Version::V14;

fn table_mod(table: u8, config: u8, property: &[u8]) -> Vec<u8> {
    let mut message = Message::new(VERSION, Kind::TableMod, 1);
    message.body().bytes(&[table, 0, 0, 0, 0, 0, 0, config]);
    message.body().bytes(property);
    message.finish()
}

fn add(port: u32, hard_timeout: u16) -> Vec<u8> {
    let matching = Match::new().with(Field::InPort, port.into());
    let add =
        FlowMod { command: Command::Add, table: 0, matching, hard_timeout, ..FlowMod::default() };
    FlowMod { flags: FlowFlags::SEND_FLOW_REMOVED, ..add }.encode(VERSION, Form::Of, false, 1)
}

/// Sets the first table so.
fn set(bridge: &mut Bridge, config: TableConfig) {
    let settings =
        Settings { tables: [(0, config)].into_iter().collect(), ..bridge.settings().clone() };
    bridge.set(settings, &mut Detached::default());
}

/// The settings of the first table, as they are told.
fn desc(bridge: &mut Bridge, id: ConnectionId) -> Vec<u8> {
    let request = Message::new(VERSION, Kind::TableDescRequest, 1).finish();
    let answers = ask(bridge, id, &request);
    let raw = Raw::read(&answers[0]).unwrap();
    Reader::new(raw.body).entry(0).unwrap().rest().to_vec()
}

#[test]
fn rules_make_room_if_their_table_is_set_so() {
    let (mut bridge, id) = connected(VERSION, Origin::Controller);
    set(&mut bridge, TableConfig { limit: Some(2), ..TableConfig::default() });
    for (port, hard) in [(1, 20), (2, 10)] {
        assert!(ask(&mut bridge, id, &add(port, hard)).is_empty());
    }
    assert_eq!(error(&ask(&mut bridge, id, &add(3, 0))), ErrorCode::FmfcTableFull);
    assert!(ask(&mut bridge, id, &table_mod(0, 4, &[])).is_empty());
    assert_eq!(desc(&mut bridge, id)[4..8], [0, 0, 0, 4]);
    let told = ask(&mut bridge, id, &add(3, 0));
    let told = FlowRemoved::decode(&Raw::read(&told[0]).unwrap()).unwrap();
    assert_eq!((told.reason, told.hard_timeout), (RemovedReason::EVICTION, 10));
    // A bundle has the same limits.
    assert!(ask(&mut bridge, id, &table_mod(0xFF, 0, &[])).is_empty());
    assert_eq!(error(&ask(&mut bridge, id, &add(4, 0))), ErrorCode::FmfcTableFull);
    assert_eq!(error(&ask(&mut bridge, id, &table_mod(254, 0, &[]))), ErrorCode::TmfcBadTable);
    // Where fewer are allowed and make room, some have to go.
    set(&mut bridge, TableConfig { limit: Some(1), evicts: true, ..TableConfig::default() });
    assert_eq!(kinds(&sent(&mut bridge, id)), [Kind::FlowRemoved]);
    assert_eq!((bridge.tables.len(), desc(&mut bridge, id)[7]), (1, 0));
}

#[test]
fn controllers_are_told_how_much_room_there_is() {
    let (mut bridge, id) = connected(VERSION, Origin::Controller);
    // By itself, nobody wants to know it.
    let mut wanted = Message::of_form(VERSION, Kind::SetAsyncConfig, Form::Of, 1);
    // Properties of the kind 9: of tables, as primary.
    wanted.body().bytes(&[0, 9, 0, 8, 0, 0, 0, 0x18]);
    assert!(ask(&mut bridge, id, &wanted.finish()).is_empty());
    set(&mut bridge, TableConfig { limit: Some(10), ..TableConfig::default() });
    let vacancy = table_mod(0, 8, &[0, 3, 0, 8, 20, 80, 0, 0]);
    assert!(ask(&mut bridge, id, &vacancy).is_empty());
    assert_eq!(desc(&mut bridge, id)[20..], [20, 80, 100, 0]);
    let told = |bridge: &mut Bridge, message: &[u8]| {
        let told = ask(bridge, id, message);
        let of = |message: &Vec<u8>| (Raw::read(message).unwrap().kind, message[8]);
        told.iter().map(of).collect::<Vec<_>>()
    };
    for port in 0..8 {
        assert!(told(&mut bridge, &add(port, 0)).is_empty(), "{port}");
    }
    assert_eq!(told(&mut bridge, &add(8, 0)), [(Kind::TableStatus, 3)]);
    assert_eq!(told(&mut bridge, &add(9, 0)), []);
    let delete = FlowMod { command: Command::Delete, table: ALL_TABLES, ..FlowMod::default() };
    let told = told(&mut bridge, &delete.encode(VERSION, Form::Of, false, 1));
    assert_eq!(told.last(), Some(&(Kind::TableStatus, 4)));
}

/// A message of a request about tables.
fn features(wishes: &[TableFeatures], more: bool, xid: u32) -> Vec<u8> {
    let mut message = Message::new(Version::V13, Kind::TableFeaturesRequest, xid);
    wishes.iter().for_each(|wish| wish.encode(Version::V13, message.body()));
    let mut message = message.finish();
    message[11] = u8::from(more);
    message
}

fn read_features(answers: &[Vec<u8>]) -> Vec<TableFeatures> {
    let of = |message: &Vec<u8>| TableFeatures::decode_all(&Raw::read(message).unwrap()).unwrap();
    answers.iter().flat_map(of).collect()
}

#[test]
fn tables_have_names() {
    let version = Version::V13;
    let (mut bridge, id) = connected(version, Origin::Controller);
    let name = Some("main".to_owned());
    set(&mut bridge, TableConfig { name, ..TableConfig::default() });
    let names = |bridge: &mut Bridge, pieces: &[(&[TableFeatures], bool)]| {
        let piece = |(wishes, more): &(&[TableFeatures], bool)| features(wishes, *more, 1);
        pieces.iter().flat_map(|of| ask(bridge, id, &piece(of))).collect::<Vec<_>>()
    };
    let read = read_features;
    let mut tables = read(&names(&mut bridge, &[(&[], false)]));
    assert_eq!((tables.len(), tables[0].name.as_str(), tables[1].name.as_str()), (254, "main", ""));
    // They are in several messages.
    tables[1].name = "second".to_owned();
    let (first, rest) = tables.split_at(8);
    let pieces: Vec<_> = rest.chunks(8).collect();
    let last = pieces.len() - 1;
    let rest = pieces.iter().enumerate().map(|(at, piece)| (*piece, at < last));
    let pieces: Vec<_> = std::iter::once((first, true)).chain(rest).collect();
    let named = read(&names(&mut bridge, &pieces));
    assert_eq!((named[0].name.as_str(), named[1].name.as_str()), ("main", "second"));
    // Some alone are not all; the owner's name stays; the number of rules is not for a controller.
    assert_eq!(error(&names(&mut bridge, &[(first, false)])), ErrorCode::TffcEperm);
    for (table, name, max_entries) in [(0, "other", 1_000_000), (2, "", 5)] {
        let mut wrong = tables.clone();
        (wrong[table].name, wrong[table].max_entries) = (name.to_owned(), max_entries);
        let (first, second) = wrong.split_at(8);
        let pieces: Vec<_> = second.chunks(8).map(|piece| (piece, true)).collect();
        let pieces = std::iter::once((first, true)).chain(pieces).chain([(&[][..], false)]);
        let pieces: Vec<_> = pieces.collect();
        assert_eq!(error(&names(&mut bridge, &pieces)), ErrorCode::TffcEperm, "{name}");
    }
}

#[test]
fn nothing_is_left_of_a_request_about_tables_that_has_no_end() {
    let (mut bridge, id) = connected(Version::V13, Origin::Controller);
    let plain = features(&[], false, 2);
    let tables = read_features(&ask(&mut bridge, id, &plain));
    assert_eq!(tables.len(), 254);
    // Another request comes.
    assert!(ask(&mut bridge, id, &features(&tables[..8], true, 1)).is_empty());
    assert_eq!(read_features(&ask(&mut bridge, id, &plain)), tables);
    // A message cannot be read, and the same number comes again.
    assert!(ask(&mut bridge, id, &features(&tables[..8], true, 2)).is_empty());
    let mut broken = features(&tables[8..9], true, 2);
    let length = broken.len() - 8;
    broken.truncate(length);
    broken[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    assert_eq!(error(&ask(&mut bridge, id, &broken)), ErrorCode::BpcBadLen);
    assert_eq!(read_features(&ask(&mut bridge, id, &plain)), tables);
}
