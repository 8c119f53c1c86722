use flow::Tables;
use openflow::Instructions;
use openflow::action::Action;
use openflow::message::bundle::{ATOMIC, BundleAdd, BundleControl, BundleStep};
use openflow::message::ct_flush::CtFlush;
use openflow::message::flow_mod::{ALL_TABLES, Command, FlowFlags, FlowMod};
use openflow::message::flow_removed::{FlowRemoved, RemovedReason};
use openflow::message::flow_stats::{FlowStats, FlowStatsRequest};
use openflow::message::packet_in::PacketIn;
use openflow::message::port::{PortDesc, PortMod, config, state};
use openflow::message::role::{Role, RoleRequest};
use openflow::message::stats::ipfix::IpfixStats;
use openflow::message::stats::port::PortStats;
use openflow::message::{Form, Message};
use openflow::wire::{Reader, Writer as _};
use packet::MacAddr;
use proptest::prelude::*;

use super::*;
use crate::datapath::{Detached, PacketOut, Received, Resumed};
use openflow::message::stats::port::FIGURES;

mod connections;
mod groups;
mod ipfix;
mod meters;
mod monitor;
mod ports;
mod resume;
mod table;

const ROOM: usize = 1 << 16;

fn port(number: u32, name: &str) -> Port {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let desc = PortDesc { mac, name: name.to_owned(), ..PortDesc::new(PortNo(number)) };
    Port {
        desc,
        name: name.to_owned(),
        figures: [3; FIGURES],
        custom: Vec::new(),
        queues: [0].into(),
        marks: Default::default(),
        since: Instant::now(),
    }
}

/// A bridge with two ports, and a connection that has agreed on `version`.
fn connected(version: Version, origin: Origin) -> (Bridge, ConnectionId) {
    let mut bridge = Bridge::new(Settings { datapath_id: 7, ..Settings::default() });
    bridge.set_ports(vec![port(1, "p1"), port(2, "p2")]);
    let id = join(&mut bridge, version, origin);
    (bridge, id)
}

fn join(bridge: &mut Bridge, version: Version, origin: Origin) -> ConnectionId {
    join_with(bridge, version, origin, ROOM)
}

fn join_with(bridge: &mut Bridge, version: Version, origin: Origin, room: usize) -> ConnectionId {
    let id = bridge.connect(origin, room);
    let hello = bridge.take(id).unwrap();
    assert_eq!((hello[0], hello[1]), (6, 0));
    let hello = Hello { versions: [version].into_iter().collect() }.encode(1);
    bridge.receive(id, &hello, &mut Detached::default(), Instant::now()).unwrap();
    assert_eq!(bridge.version(id), Some(version));
    id
}

/// All that waits to be sent.
fn sent(bridge: &mut Bridge, id: ConnectionId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| bridge.take(id)).collect()
}

fn ask(bridge: &mut Bridge, id: ConnectionId, message: &[u8]) -> Vec<Vec<u8>> {
    bridge.receive(id, message, &mut Detached::default(), Instant::now()).unwrap();
    sent(bridge, id)
}

fn kinds(messages: &[Vec<u8>]) -> Vec<Kind> {
    messages.iter().map(|message| Raw::read(message).unwrap().kind).collect()
}

fn error(messages: &[Vec<u8>]) -> ErrorCode {
    let raw = Raw::read(&messages[0]).unwrap();
    assert_eq!((raw.kind, messages.len()), (Kind::Error, 1));
    ErrorMessage::decode(raw.body).unwrap().code(raw.version).unwrap()
}

#[test]
fn all_requests_are_answered_in_all_versions() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Service);
        let mut asked = |kind, body: &[u8]| {
            let mut request = Message::new(version, kind, 9);
            request.body().bytes(body);
            let answers = ask(&mut bridge, id, &request.finish());
            let raw = Raw::read(answers.last().unwrap()).unwrap();
            assert_eq!((raw.xid, raw.version), (9, version));
            raw.kind
        };
        assert_eq!(asked(Kind::EchoRequest, b"abc"), Kind::EchoReply);
        assert_eq!(asked(Kind::FeaturesRequest, &[]), Kind::FeaturesReply);
        assert_eq!(asked(Kind::GetConfigRequest, &[]), Kind::GetConfigReply);
        assert_eq!(asked(Kind::BarrierRequest, &[]), Kind::BarrierReply);
        assert_eq!(asked(Kind::DescRequest, &[]), Kind::DescReply);
        assert_eq!(asked(Kind::TableStatsRequest, &[]), Kind::TableStatsReply);
        assert_eq!(asked(Kind::PortStatsRequest, &[0xff; 8]), Kind::PortStatsReply);
        let all: &[u8] = if version == Version::V15 { &[0xff; 8] } else { &[] };
        assert_eq!(asked(Kind::PortDescRequest, all), Kind::PortDescReply);
        assert_eq!(asked(Kind::QueueStatsRequest, &[0xff; 8]), Kind::QueueStatsReply);
        if version >= Version::V13 {
            assert_eq!(asked(Kind::GetAsyncRequest, &[]), Kind::GetAsyncReply);
            assert_eq!(asked(Kind::MeterFeaturesRequest, &[]), Kind::MeterFeaturesReply);
        }
        if version >= Version::V14 {
            assert_eq!(asked(Kind::TableDescRequest, &[]), Kind::TableDescReply);
        }
    }
}

#[test]
fn what_becomes_of_fragments_is_set_as_far_as_it_can_be() {
    use flow::Fragments;
    use openflow::message::config::Config;
    let (mut bridge, id) = connected(Version::V10, Origin::Service);
    let get = Message::new(Version::V10, Kind::GetConfigRequest, 1).finish();
    let mut set = |flags| {
        let set = Config { flags, miss_send_len: 0 }.encode(Version::V10, Kind::SetConfig, 1);
        assert!(ask(&mut bridge, id, &set).is_empty());
        let answer = ask(&mut bridge, id, &get);
        (Config::decode(&answer[0][8..]).unwrap().flags, bridge.tables.fragments())
    };
    assert_eq!(set(1), (1, Fragments::Drop));
    // Nobody puts them together, so that nothing changes.
    assert_eq!(set(2), (1, Fragments::Drop));
    assert_eq!(set(3 | 4), (3 | 4, Fragments::NxMatch));
    assert_eq!(set(0), (0, Fragments::Normal));
}

#[test]
fn statistics_are_of_the_port_that_is_asked_for() {
    let (mut bridge, id) = connected(Version::V13, Origin::Service);
    let mut stats = |number: u32| {
        let mut request = Message::new(Version::V13, Kind::PortStatsRequest, 1);
        request.body().u32(number);
        request.body().u32(0);
        let answers = ask(&mut bridge, id, &request.finish());
        let mut reader = Reader::new(Raw::read(&answers[0]).unwrap().body);
        let mut ports = Vec::new();
        while !reader.is_empty() {
            ports.push(PortStats::decode(Version::V13, &mut reader).unwrap().port.0);
        }
        ports
    };
    assert_eq!(stats(2), [2]);
    assert_eq!(stats(3), [0; 0]);
    assert_eq!(stats(u32::MAX), [1, 2]);
}

#[test]
fn who_does_not_begin_with_hello_is_sent_away() {
    let mut bridge = Bridge::new(Settings::default());
    let id = bridge.connect(Origin::Controller, ROOM);
    let request = Message::new(Version::V10, Kind::FeaturesRequest, 1).finish();
    let why = bridge.receive(id, &request, &mut Detached::default(), Instant::now()).unwrap_err();
    assert!(why.to_string().contains("while expecting hello"), "{why}");
}

#[test]
fn without_a_version_in_common_both_are_told() {
    let versions = [Version::V10, Version::V13].into_iter().collect();
    let mut bridge = Bridge::new(Settings { versions, ..Settings::default() });
    let id = bridge.connect(Origin::Controller, ROOM);
    sent(&mut bridge, id);
    let hello = Hello { versions: [Version::V15].into_iter().collect() }.encode(4);
    assert!(bridge.receive(id, &hello, &mut Detached::default(), Instant::now()).is_err());
    assert_eq!(error(&sent(&mut bridge, id)), ErrorCode::HfcIncompatible);
}

#[test]
fn a_message_of_another_version_is_an_error_in_that_version() {
    let (mut bridge, id) = connected(Version::V10, Origin::Service);
    let request = Message::new(Version::V11, Kind::FeaturesRequest, 0x0123_4567).finish();
    let answers = ask(&mut bridge, id, &request);
    assert_eq!((answers[0][0], error(&answers)), (2, ErrorCode::BrcBadVersion));
    let barrier = Message::new(Version::V10, Kind::BarrierRequest, 1).finish();
    assert_eq!(kinds(&ask(&mut bridge, id, &barrier)), [Kind::BarrierReply]);
}

#[test]
fn what_is_unknown_is_an_error_that_quotes_it() {
    let (mut bridge, id) = connected(Version::V10, Origin::Service);
    let answers = ask(&mut bridge, id, &[1, 99, 0, 8, 0, 0, 0, 7]);
    assert_eq!(answers, [[1, 1, 0, 20, 0, 0, 0, 7, 0, 1, 0, 1, 1, 99, 0, 8, 0, 0, 0, 7]]);
    // A reply is no request, and what only a switch says is none either.
    let reply = Message::new(Version::V10, Kind::BarrierReply, 1).finish();
    assert_eq!(error(&ask(&mut bridge, id, &reply)), ErrorCode::BrcBadType);
}

#[test]
fn a_port_is_changed_and_its_listeners_are_told() {
    let (mut bridge, id) = connected(Version::V10, Origin::Service);
    let controller = join(&mut bridge, Version::V13, Origin::Controller);
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let (config, mask) = (config::NO_FWD, config::NO_FWD);
    let wanted = PortMod { number: PortNo(2), mac, config, mask, advertise: 0 };
    assert_eq!(ask(&mut bridge, id, &wanted.encode(Version::V10, 1)), Vec::<Vec<u8>>::new());
    let job = Job::SetPort { name: "p2".to_owned(), config };
    assert_eq!(bridge.take_jobs(), [(id, job)]);
    let told = sent(&mut bridge, controller);
    let status = PortStatus::decode(Version::V13, Raw::read(&told[0]).unwrap().body).unwrap();
    assert_eq!((status.reason, status.port.config), (PortReason::Modify, config));
    // The same once more changes nothing.
    ask(&mut bridge, id, &wanted.encode(Version::V10, 1));
    assert!(bridge.take_jobs().is_empty() && sent(&mut bridge, controller).is_empty());
    let wrong = PortMod { mac: MacAddr([2; 6]), ..wanted }.encode(Version::V10, 1);
    assert_eq!(error(&ask(&mut bridge, id, &wrong)), ErrorCode::PmfcBadHwAddr);
    let gone = PortMod { number: PortNo(3), ..wanted }.encode(Version::V10, 1);
    assert_eq!(error(&ask(&mut bridge, id, &gone)), ErrorCode::PmfcBadPort);
}

#[test]
fn ports_that_come_go_and_change_are_told() {
    let (mut bridge, id) = connected(Version::V14, Origin::Controller);
    let mut told = |ports| {
        bridge.set_ports(ports);
        let statuses = sent(&mut bridge, id).into_iter().map(|message| {
            let status = PortStatus::decode(Version::V14, Raw::read(&message).unwrap().body);
            let status = status.unwrap();
            (status.reason, status.port.number.0)
        });
        statuses.collect::<Vec<_>>()
    };
    assert_eq!(told(vec![port(1, "p1"), port(2, "p2")]), []);
    let mut down = port(2, "p2");
    down.desc.state = state::LINK_DOWN;
    assert_eq!(told(vec![port(1, "p1"), down]), [(PortReason::Modify, 2)]);
    let other = told(vec![port(1, "other"), port(3, "p3")]);
    let gone = [(PortReason::Delete, 1), (PortReason::Delete, 2)];
    let new = [(PortReason::Add, 1), (PortReason::Add, 3)];
    assert_eq!(other, [gone, new].concat());
}

#[test]
fn one_controller_decides() {
    let (mut bridge, first) = connected(Version::V14, Origin::Controller);
    let second = join(&mut bridge, Version::V14, Origin::Controller);
    let claim = |generation| {
        let request = RoleRequest { role: Some(Role::Primary), generation: Some(generation) };
        request.encode(Version::V14, Kind::RoleRequest, Form::Of, 1)
    };
    assert_eq!(kinds(&ask(&mut bridge, first, &claim(5))), [Kind::RoleReply]);
    assert_eq!(kinds(&ask(&mut bridge, second, &claim(6))), [Kind::RoleReply]);
    assert_eq!(kinds(&sent(&mut bridge, first)), [Kind::RoleStatus]);
    assert_eq!(error(&ask(&mut bridge, first, &claim(5))), ErrorCode::RrfcStale);
    let (number, mac) = (PortNo(1), MacAddr([2, 0, 0, 0, 0, 1]));
    let change = PortMod { number, mac, config: 0, mask: 1, advertise: 0 };
    let change = change.encode(Version::V14, 1);
    assert_eq!(error(&ask(&mut bridge, first, &change)), ErrorCode::BrcIsSecondary);
    assert!(ask(&mut bridge, second, &change).is_empty());
}

#[test]
fn other_settings_end_connections_that_no_longer_fit() {
    let (mut bridge, old) = connected(Version::V10, Origin::Service);
    let new = join(&mut bridge, Version::V13, Origin::Service);
    let settings = bridge.settings().clone();
    assert!(bridge.set(settings.clone(), &mut Detached::default()).is_empty());
    let versions = [Version::V13].into_iter().collect();
    assert_eq!(
        bridge.set(Settings { versions, ..settings.clone() }, &mut Detached::default()),
        [old]
    );
    bridge.disconnect(old);
    assert_eq!(
        bridge.set(Settings { versions, datapath_id: 8, ..settings }, &mut Detached::default()),
        [new]
    );
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Recorder {
    now: u64,
    published: Vec<usize>,
    sent: Vec<PacketOut>,
    resumed: Vec<Resumed>,
    flushed: Vec<CtFlush>,
    ipfix: Vec<(Option<u32>, IpfixStats)>,
}

impl Datapath for Recorder {
    fn now(&self) -> u64 {
        self.now
    }

    fn flush(&mut self) {}

    fn set_options(&mut self, _: Vec<flow::OptionField>) {}

    fn publish(&mut self, tables: &Tables, _: &mut dyn Iterator<Item = &Port>, _: bool) {
        self.published.push(tables.len());
    }

    fn send(&mut self, packet: PacketOut) {
        self.sent.push(packet);
    }

    fn send_by(&mut self, _: &Tables, _: &mut dyn Iterator<Item = &Port>, packet: PacketOut) {
        self.sent.push(packet);
    }

    fn resume(&mut self, packet: Resumed) {
        self.resumed.push(packet);
    }

    fn flush_connections(&mut self, which: &CtFlush) {
        self.flushed.push(*which);
    }

    fn ipfix(&self) -> Vec<(Option<u32>, IpfixStats)> {
        self.ipfix.clone()
    }
}

fn flow_mod(version: Version, command: Command, priority: u16) -> FlowMod {
    let is_delete = command.is_delete();
    let actions = vec![Action::output(PortNo(2))];
    FlowMod {
        command,
        table: if version == Version::V10 || is_delete { ALL_TABLES } else { 0 },
        priority,
        flags: FlowFlags::SEND_FLOW_REMOVED,
        new_cookie: 7,
        instructions: if is_delete {
            Instructions::default()
        } else {
            Instructions::apply(actions)
        },
        ..FlowMod::default()
    }
}

/// Rules are made, asked for, end and are deleted, in all versions; controllers are told.
#[test]
fn rules_are_changed_and_told_of() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Service);
        let controller = join(&mut bridge, version, Origin::Controller);
        let mut datapath = Recorder::default();
        let form = Form::Of;
        let ask = |bridge: &mut Bridge, datapath: &mut Recorder, message: &[u8]| {
            bridge.receive(id, message, datapath, Instant::now()).unwrap();
            sent(bridge, id)
        };
        for priority in [1, 2] {
            let add = flow_mod(version, Command::Add, priority);
            let add = FlowMod { hard_timeout: priority, ..add }.encode(version, form, false, 1);
            assert!(ask(&mut bridge, &mut datapath, &add).is_empty());
        }
        // Workers are told before anything is answered, and once.
        assert_eq!(datapath.published, [0; 0]);
        let request = FlowStatsRequest::default();
        let request = request.encode(version, Kind::FlowStatsRequest, Form::Request, 9);
        let answers = ask(&mut bridge, &mut datapath, &request);
        assert_eq!(datapath.published, [2]);
        let flows = FlowStats::decode_all(&Raw::read(&answers[0]).unwrap()).unwrap();
        let mut seen: Vec<_> = flows.iter().map(|flow| (flow.priority, flow.cookie)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(1, 7), (2, 7)]);
        datapath.now = 1_001;
        bridge.expire(&mut datapath);
        assert_eq!(datapath.published, [2, 1]);
        let delete = flow_mod(version, Command::Delete, 0).encode(version, form, false, 1);
        assert!(ask(&mut bridge, &mut datapath, &delete).is_empty());
        let told = sent(&mut bridge, controller);
        let reasons = told
            .iter()
            .map(|message| FlowRemoved::decode(&Raw::read(message).unwrap()).unwrap().reason);
        let both = [RemovedReason::HARD_TIMEOUT, RemovedReason::DELETE];
        assert_eq!(reasons.collect::<Vec<_>>(), both);
        bridge.settle(&mut datapath);
        assert_eq!(datapath.published, [2, 1, 0]);
    }
}

#[test]
fn workers_have_a_bundle_when_it_is_answered() {
    let version = Version::V14;
    let (mut bridge, id) = connected(version, Origin::Service);
    let mut datapath = Recorder::default();
    let step = |step| BundleControl { id: 1, step, flags: 0 }.encode(version, Form::Of, 1);
    let add = flow_mod(version, Command::Add, 1).encode(version, Form::Of, false, 1);
    let add = BundleAdd { id: 1, flags: 0, message: &add }.encode(version, 1);
    for message in [step(BundleStep::OpenRequest), add, step(BundleStep::CommitRequest)] {
        bridge.receive(id, &message, &mut datapath, Instant::now()).unwrap();
    }
    assert_eq!((sent(&mut bridge, id).len(), datapath.published.last()), (2, Some(&1)));
}

/// Only what packets learn lives longer; what a controller adds is new.
#[test]
fn a_rule_that_is_added_again_is_another_one() {
    let version = Version::V14;
    let (mut bridge, id) = connected(version, Origin::Service);
    for importance in [1, 2] {
        let add = FlowMod { importance, ..flow_mod(version, Command::Add, 1) };
        let add = add.encode(version, Form::Of, false, 1);
        bridge.receive(id, &add, &mut Recorder::default(), Instant::now()).unwrap();
    }
    let rules: Vec<u16> = bridge.tables.iter().map(|rule| rule.importance).collect();
    assert_eq!((rules, sent(&mut bridge, id).len()), (vec![2], 0));
}

#[test]
fn what_is_learnt_is_told_to_workers() {
    let (mut bridge, _) = connected(Version::V10, Origin::Service);
    let mut datapath = Recorder::default();
    let actions = Instructions::apply(vec![Action::output(PortNo(1))]);
    let change = Change::add(3, openflow::Match::new(), actions);
    bridge.learn(&change, &mut datapath);
    bridge.settle(&mut datapath);
    assert_eq!((datapath.published, bridge.tables.len_of(3)), (vec![1], 1));
}

#[test]
fn the_rule_of_a_plain_bridge_counts_what_ports_receive() {
    let (mut bridge, id) = connected(Version::V13, Origin::Service);
    let mut datapath = Recorder::default();
    bridge.reset(true, &mut datapath);
    let more = Port { figures: [10; FIGURES], ..port(1, "p1") };
    bridge.set_ports(vec![more, port(2, "p2")]);
    let request = FlowStatsRequest::default();
    let request = request.encode(Version::V13, Kind::FlowStatsRequest, Form::Request, 9);
    bridge.receive(id, &request, &mut datapath, Instant::now()).unwrap();
    let answers = sent(&mut bridge, id);
    let flows = FlowStats::decode_all(&Raw::read(&answers[0]).unwrap()).unwrap();
    assert_eq!((flows.len(), flows[0].packets, flows[0].bytes), (1, Some(7), Some(7)));
}

#[test]
fn a_bundle_is_made_as_a_whole_or_not_at_all() {
    let version = Version::V14;
    let (mut bridge, id) = connected(version, Origin::Service);
    let mut datapath = Recorder::default();
    let mut ask = |bridge: &mut Bridge, message: &[u8]| {
        bridge.receive(id, message, &mut datapath, Instant::now()).unwrap();
        sent(bridge, id)
    };
    let control = |step| BundleControl { id: 3, step, flags: ATOMIC }.encode(version, Form::Of, 5);
    let add = |change: &FlowMod| {
        let message = change.encode(version, Form::Of, false, 5);
        BundleAdd { id: 3, flags: ATOMIC, message: &message }.encode(version, 5)
    };
    let good = flow_mod(version, Command::Add, 1);
    let bad = Instructions::apply(vec![Action::Group(1)]);
    let bad = FlowMod { instructions: bad, ..flow_mod(version, Command::Add, 2) };
    for (last, made) in [(&bad, 0), (&good, 1)] {
        assert_eq!(
            kinds(&ask(&mut bridge, &control(BundleStep::OpenRequest))),
            [Kind::BundleControl]
        );
        assert!(ask(&mut bridge, &add(&good)).is_empty());
        assert!(ask(&mut bridge, &add(last)).is_empty());
        let answers = ask(&mut bridge, &control(BundleStep::CommitRequest));
        if made == 0 {
            assert_eq!(error(&answers[..1]), ErrorCode::BacBadOutGroup);
            assert_eq!(error(&answers[1..]), ErrorCode::BfcMsgFailed);
        } else {
            assert_eq!(kinds(&answers), [Kind::BundleControl]);
        }
        assert_eq!(bridge.tables.len(), made);
    }
    // Of one that is gone, or is as it was not opened, there is nothing to commit.
    let commit = control(BundleStep::CommitRequest);
    assert_eq!(error(&ask(&mut bridge, &commit)), ErrorCode::BfcBadId);
    ask(&mut bridge, &control(BundleStep::OpenRequest));
    ask(&mut bridge, &control(BundleStep::CloseRequest));
    assert_eq!(error(&ask(&mut bridge, &add(&good))), ErrorCode::BfcBundleClosed);
}

#[test]
fn bundles_end_when_nothing_is_done_with_them() {
    let version = Version::V14;
    let (mut bridge, id) = connected(version, Origin::Service);
    let mut datapath = Recorder::default();
    let control = |id, step| BundleControl { id, step, flags: 0 }.encode(version, Form::Of, id);
    let mut at = |bridge: &mut Bridge, now: u64, message: Option<Vec<u8>>| {
        datapath.now = now;
        bridge.expire(&mut datapath);
        let told = sent(bridge, id);
        if let Some(message) = message {
            bridge.receive(id, &message, &mut datapath, Instant::now()).unwrap();
            assert_eq!(kinds(&sent(bridge, id)), [Kind::BundleControl]);
        }
        told
    };
    assert!(!bridge.has_timed());
    assert!(at(&mut bridge, 0, Some(control(1, BundleStep::OpenRequest))).is_empty());
    assert!(at(&mut bridge, 1_000, Some(control(2, BundleStep::OpenRequest))).is_empty());
    assert!(at(&mut bridge, 9_999, Some(control(1, BundleStep::CloseRequest))).is_empty());
    assert!(bridge.has_timed());
    let told = at(&mut bridge, 11_000, None);
    assert_eq!((error(&told), Raw::read(&told[0]).unwrap().xid), (ErrorCode::BfcTimeout, 2));
    assert!(at(&mut bridge, 19_998, None).is_empty());
    assert_eq!(error(&at(&mut bridge, 19_999, None)), ErrorCode::BfcTimeout);
    assert!(!bridge.has_timed());
}

#[test]
fn packets_go_both_ways() {
    let version = Version::V13;
    let (mut bridge, id) = connected(version, Origin::Controller);
    let mut datapath = Recorder::default();
    let actions = vec![Action::output(PortNo(1))];
    let out = openflow::message::packet_out::PacketOut::new(
        PortNo::CONTROLLER,
        actions.clone(),
        vec![1; 60],
    );
    bridge.receive(id, &out.encode(version, 1), &mut datapath, Instant::now()).unwrap();
    let [sent_out] = &datapath.sent[..] else { panic!("{:?}", datapath.sent) };
    assert_eq!((sent_out.in_port, &sent_out.actions), (PortNo::CONTROLLER, &actions));
    assert_eq!(sent_out.bytes, [1; 60]);
    let mut key = flow::Key::default();
    key.set(flow::place::place(openflow::Field::InPortOxm).unwrap(), 2);
    let about = flow::PacketIn {
        max_len: 128,
        id: 0,
        reason: openflow::packet_in::Reason::ACTION,
        is_by_place: true,
        table: 1,
        cookie: 5,
        key: Box::new(key),
        userdata: Vec::new(),
        frozen: None,
    };
    let received = |about: &flow::PacketIn| Received {
        about: about.clone().into(),
        bytes: vec![9; 60],
        len: 60,
        mirrors: 0,
    };
    bridge.receive_packet(&received(&about), 0);
    let told = sent(&mut bridge, id);
    let told = PacketIn::decode(&Raw::read(&told[0]).unwrap()).unwrap();
    assert_eq!((told.in_port(), told.cookie, told.packet), (PortNo(2), Some(5), vec![9; 60]));
    // Those for another controller's number are not for this one.
    bridge.receive_packet(&received(&flow::PacketIn { id: 1, ..about.clone() }), 0);
    assert!(sent(&mut bridge, id).is_empty());
    // There are limits, and controllers that do not want to hear anything.
    let limited = bridge.connect(Origin::Controller, ROOM);
    let rate = Some(crate::Rate { per_second: 100, burst: 2 });
    bridge.set_manner(limited, Manner { rate, is_silent: false });
    let silent = bridge.connect(Origin::Controller, ROOM);
    bridge.set_manner(silent, Manner { rate: None, is_silent: true });
    for id in [limited, silent] {
        let hello = Hello { versions: [version].into_iter().collect() }.encode(1);
        ask(&mut bridge, id, &hello);
    }
    for now in [0, 0, 0, 10] {
        bridge.receive_packet(&received(&about), now);
    }
    let told = [id, limited, silent].map(|id| sent(&mut bridge, id).len());
    assert_eq!(told, [4, 3, 0]);
}

/// Whatever the rules are: they stay, and count again when somebody is there who makes them.
#[test]
fn without_controllers_a_bridge_may_switch_as_usual() {
    let (mut bridge, _) = connected(Version::V13, Origin::Service);
    let mut datapath = Recorder::default();
    bridge.settle(&mut datapath);
    for is_open in [true, true, false] {
        bridge.set_open(is_open);
        bridge.settle(&mut datapath);
    }
    assert_eq!(datapath.published, [0, 1, 0]);
}

proptest! {
    #[test]
    fn no_message_is_too_much(
        bodies in prop::collection::vec((0..40_u8, prop::collection::vec(any::<u8>(), 0..60)), 1..8),
        at in 0..6_usize,
    ) {
        let version = Version::ALL[at];
        let (mut bridge, id) = connected(version, Origin::Controller);
        for (kind, body) in bodies {
            let length = u16::try_from(8 + body.len()).unwrap().to_be_bytes();
            let message = [&[version.wire(), kind, length[0], length[1], 0, 0, 0, 1], &body[..]].concat();
            bridge.receive(id, &message, &mut Detached::default(), Instant::now()).unwrap();
            for sent in sent(&mut bridge, id) {
                prop_assert!(Raw::read(&sent).is_ok());
            }
        }
    }
}
