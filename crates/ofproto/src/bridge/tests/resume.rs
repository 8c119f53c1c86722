//! Packets that stop, and what controllers give back.

use std::sync::Arc;

use flow::{Frozen, Key, Rest, slot};
use openflow::message::nicira::PacketInFormat;
use openflow::packet_in::Reason;

use super::*;

/// What a packet takes along that begins with what this says.
fn frozen_of(packet_type: u32) -> Frozen {
    let mut key = Box::new(Key::default());
    key.set_packet_type(packet_type);
    key.set(slot::IN_PORT, 1);
    key.set(slot::reg(3), 9);
    let apply = Instructions::apply(vec![Action::output(PortNo(2))]);
    let go_on = Instructions { goto_table: Some(7), ..apply.clone() };
    let rest = |table, instructions| Rest { table, cookie: 5, instructions };
    Frozen {
        key,
        stack: vec![1, 2],
        set: vec![Action::output(PortNo(1))],
        table: None,
        rest: vec![rest(3, apply), rest(1, go_on)],
        zone: None,
    }
}

fn stopped(frozen: Frozen) -> Received {
    let about = flow::PacketIn {
        max_len: u16::MAX,
        id: 0,
        reason: Reason::ACTION,
        is_by_place: false,
        table: 3,
        cookie: 5,
        key: frozen.key.clone(),
        userdata: vec![8],
        frozen: Some(Arc::new(frozen)),
    };
    Received { about: Arc::new(about), bytes: vec![7; 60], len: 60, mirrors: 2 }
}

/// What a controller of this bridge is told of a packet that stops, as it gives it back.
fn given_back(bridge: &mut Bridge, id: ConnectionId, version: Version) -> Vec<u8> {
    given_back_of(0, bridge, id, version)
}

fn given_back_of(
    packet_type: u32,
    bridge: &mut Bridge,
    id: ConnectionId,
    version: Version,
) -> Vec<u8> {
    let mut format = Message::new(version, Kind::SetPacketInFormat, 1);
    format.body().u32(2);
    bridge.receive(id, &format.finish(), &mut Detached::default(), Instant::now()).unwrap();
    bridge.receive_packet(&stopped(frozen_of(packet_type)), 0);
    let told = sent(bridge, id).remove(0);
    let told = PacketIn::decode(&Raw::read(&told).unwrap()).unwrap();
    assert_eq!((told.table, &told.userdata[..], told.full_len), (3, &[8][..], 60));
    let whole = told.encode(version, PacketInFormat::Nxt2);
    let mut message = Message::new(version, Kind::Resume, 4);
    message.body().bytes(Raw::read(&whole).unwrap().body);
    message.finish()
}

#[test]
fn a_packet_that_stopped_goes_on_as_it_was() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Controller);
        let message = given_back(&mut bridge, id, version);
        let mut datapath = Recorder::default();
        bridge.receive(id, &message, &mut datapath, Instant::now()).unwrap();
        assert!(sent(&mut bridge, id).is_empty(), "{version}");
        let expected = Resumed { frozen: Box::new(frozen_of(0)), mirrors: 2, bytes: vec![7; 60] };
        assert_eq!(datapath.resumed, [expected], "{version}");
        // Another bridge has not stopped it, nor has this one once it was made anew.
        let (mut other, id) = connected(version, Origin::Controller);
        other.receive(id, &message, &mut datapath, Instant::now()).unwrap();
        let error = ErrorMessage::reply(ErrorCode::NxrStale, version, 4, &message);
        assert_eq!((sent(&mut other, id), datapath.resumed.len()), (vec![error], 1));
    }
}

/// It goes on without a header of Ethernet if it had none, whatever the version can say of that else.
#[test]
fn a_packet_that_stopped_begins_with_what_it_began_with() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Controller);
        let message = given_back_of(0x1_0800, &mut bridge, id, version);
        let mut datapath = Recorder::default();
        bridge.receive(id, &message, &mut datapath, Instant::now()).unwrap();
        assert!(sent(&mut bridge, id).is_empty(), "{version}");
        let begins = datapath.resumed.iter().map(|of| of.frozen.key.get_u32(slot::PACKET_TYPE));
        assert_eq!(begins.collect::<Vec<_>>(), [0x1_0800], "{version}");
    }
}

#[test]
fn what_is_not_there_and_who_may_only_read_is_refused() {
    let version = Version::V13;
    let (mut bridge, id) = connected(version, Origin::Controller);
    let message = given_back(&mut bridge, id, version);
    let refused = |bridge: &mut Bridge, message: &[u8]| {
        let mut datapath = Recorder::default();
        bridge.receive(id, message, &mut datapath, Instant::now()).unwrap();
        assert_eq!(datapath.resumed, []);
        let answer = sent(bridge, id).remove(0);
        let raw = Raw::read(&answer).unwrap();
        ErrorMessage::decode(raw.body).unwrap().code(version)
    };
    // Another group than any that there is, where a port was.
    let raw = PacketIn::decode(&Raw::read(&message).unwrap()).unwrap();
    let read = openflow::message::continuation::Continuation::decode(&raw.continuation, version);
    let mut changed = read.unwrap();
    changed.rest[0].instructions.apply = vec![Action::Group(9)];
    let forged = PacketIn { continuation: changed.encode(version), ..raw };
    let mut resume = Message::new(version, Kind::Resume, 4);
    resume.body().bytes(Raw::read(&forged.encode(version, PacketInFormat::Nxt2)).unwrap().body);
    assert_eq!(refused(&mut bridge, &resume.finish()), Some(ErrorCode::BacBadOutGroup));
    let secondary = RoleRequest { role: Some(Role::Secondary), generation: None };
    let secondary = secondary.encode(version, Kind::RoleRequest, Form::Nx, 1);
    bridge.receive(id, &secondary, &mut Detached::default(), Instant::now()).unwrap();
    sent(&mut bridge, id);
    assert_eq!(refused(&mut bridge, &message), Some(ErrorCode::BrcIsSecondary));
}

#[test]
fn what_was_damaged_does_no_harm() {
    let version = Version::V15;
    let (mut bridge, id) = connected(version, Origin::Controller);
    let message = given_back(&mut bridge, id, version);
    let mut datapath = Recorder::default();
    for at in 8..message.len() {
        let mut damaged = message.clone();
        damaged[at] ^= 0x11;
        bridge.receive(id, &damaged, &mut datapath, Instant::now()).unwrap();
        sent(&mut bridge, id);
    }
}
