//! Frames whose connections are tracked.

use conntrack::Conntrack;
use flow::slot;
use openflow::message::flow_mod::Command;
use openflow::text::{Names, flow_mod};
use packet::headers::tcp::TcpFlags;

use super::*;
use crate::record::{Record, Recorded};

mod fragments;
mod helpers;

const ONE: [u8; 4] = [10, 0, 0, 1];
const OTHER: [u8; 4] = [10, 0, 0, 2];

fn rules(rules: &[&str]) -> Pipeline {
    let mut pipeline = pipeline(4, &[]);
    for rule in rules {
        let rule = flow_mod(rule, Command::Add, Names::NONE).unwrap();
        let table = if rule.table == u8::MAX { 0 } else { rule.table };
        let add = Change::add(table, rule.matching, rule.instructions);
        pipeline.tables.change(&add.with_priority(rule.priority), 0).unwrap();
    }
    pipeline
}

fn connected(text: &[&str]) -> (Bench, Arc<Conntrack>) {
    let all = Arc::new(Conntrack::default());
    let mut bench = Bench::new(4);
    change(&mut bench, text, &all);
    (bench, all)
}

fn change(bench: &mut Bench, text: &[&str], all: &Arc<Conntrack>) {
    let flows = BridgeFlows::new(Arc::new(rules(text)));
    let flows = BridgeFlows { connections: Some(Arc::clone(all)), ..flows };
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
}

/// A frame of UDP between two hosts, there or back.
fn udp(port: u16, is_back: bool) -> Vec<u8> {
    let frame = FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let frame = match is_back {
        false => frame.ip(ONE, OTHER).udp(port, 53),
        true => frame.ip(OTHER, ONE).udp(53, port),
    };
    frame.payload(&[7; 200]).build().unwrap()
}

/// Who is inside may begin; from outside only answers come in.
const FIREWALL: [&str; 6] = [
    "in_port=1,ip,actions=ct(commit,zone=5,exec(set_field:7->ct_mark)),output:2",
    "in_port=2,ip,actions=set_field:9->reg3,ct(table=1,zone=5)",
    "table=1,ct_state=+trk+est+rpl,ct_zone=5,ct_mark=7,reg3=9,ip,actions=output:1",
    "table=1,ct_state=+trk+rel,ip,actions=output:3",
    "table=1,ct_state=+trk+inv,ip,actions=output:4",
    "table=1,priority=1,actions=drop",
];

#[test]
fn answers_come_in_where_somebody_has_asked() {
    let (mut bench, all) = connected(&FIREWALL);
    let (there, back) = (udp(1000, false), udp(1000, true));
    assert_eq!(counts(&bench.send(1, std::slice::from_ref(&back))), [0, 0, 0, 0]);
    let strangers = [udp(1001, true), udp(1002, true)];
    let got = bench.send(0, &[there.clone(), udp(1003, false)]);
    assert_eq!(counts(&got), [0, 2, 0, 0]);
    assert_eq!(got[1][0], there);
    let [first, second] = strangers;
    let got = bench.send(1, &[back.clone(), first, back.clone(), second, udp(1003, true)]);
    assert_eq!(counts(&got), [3, 0, 0, 0]);
    assert_eq!(got[0], [back.clone(), back.clone(), udp(1003, true)]);
    assert_eq!((all.count(), bench.dropped(DropReason::FlowDrop)), (2, 3));
    // Once their time is over they are strangers.
    all.set_now(60_000);
    assert_eq!(counts(&bench.send(1, std::slice::from_ref(&back))), [0, 0, 0, 0]);
    // What can be of no connection, and what tells of one.
    let mut broken = back.clone();
    broken[38] = 0xFF;
    assert_eq!(counts(&bench.send(1, &[broken])), [0, 0, 0, 1]);
    bench.send(0, std::slice::from_ref(&there));
    let mut error = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6]))
        .ip(OTHER, ONE)
        .udp(1, 1)
        .payload(&there[14..])
        .build()
        .unwrap();
    error[23] = 1;
    error[34..42].copy_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(counts(&bench.send(1, &[error])), [0, 0, 1, 0]);
}

#[test]
fn rules_of_both_rounds_count_and_change() {
    let (mut bench, all) = connected(&FIREWALL);
    bench.send(0, &[udp(1000, false)]);
    for _ in 0..3 {
        assert_eq!(counts(&bench.send(1, &[udp(1000, true)])), [1, 0, 0, 0]);
    }
    let mut others = FIREWALL;
    others[2] = "table=1,ct_state=+trk+est+rpl,ip,actions=output:3";
    change(&mut bench, &others, &all);
    assert_eq!(counts(&bench.send(1, &[udp(1000, true)])), [0, 0, 1, 0]);
    all.flush(None);
    assert_eq!(counts(&bench.send(1, &[udp(1000, true)])), [0, 0, 0, 0]);
}

#[test]
fn a_copy_goes_on_and_the_packet_too() {
    let (mut bench, _) = connected(&[
        "in_port=1,udp,actions=mod_dl_src:02:00:00:00:00:09,ct(table=1),mod_dl_dst:02:00:00:00:00:08,output:3",
        "table=1,ct_state=+trk+new,ct_nw_src=10.0.0.1,ct_tp_dst=53,udp,actions=output:2,mod_nw_tos:4,output:4",
        "table=1,priority=1,actions=output:1",
    ]);
    let got = bench.send(0, &[udp(1000, false), udp(1001, false)]);
    assert_eq!(counts(&got), [0, 2, 2, 2]);
    let frame = udp(1000, false);
    assert_eq!((&got[1][0][..6], &got[1][0][6..12]), (&frame[..6], &[2, 0, 0, 0, 0, 9][..]));
    assert_eq!((got[1][0][15], got[3][0][15]), (0, 4));
    assert_eq!(
        (&got[2][0][..6], &got[2][0][6..12]),
        (&[2, 0, 0, 0, 0, 8][..], &[2, 0, 0, 0, 0, 9][..])
    );
}

#[test]
fn who_goes_round_without_end_is_dropped() {
    let (mut bench, _) = connected(&["ip,actions=ct(table=0),output:2"]);
    let got = bench.send(0, &[udp(1000, false)]);
    assert_eq!(counts(&got).iter().sum::<usize>(), 9);
    assert_eq!(bench.dropped(DropReason::FlowTooDeep), 1);
}

#[test]
fn rounds_that_make_more_of_them_come_to_an_end() {
    let rule = format!("ip,actions={}output:2", "ct(table=0),".repeat(64));
    let (mut bench, all) = connected(&[&rule]);
    let in_time = |got: &[Vec<Vec<u8>>]| {
        assert!((2..=1 + (1 << 14)).contains(&counts(got)[1]), "{:?}", counts(got));
    };
    in_time(&bench.send(0, &[udp(1000, false)]));
    assert!(bench.dropped(DropReason::FlowTooDeep) > 0);
    // A packet from a controller goes round no oftener.
    let actions = flow_mod(&rule, Command::Add, Names::NONE).unwrap().instructions.apply;
    let packet = crate::flows::FlowPacketOut {
        in_port: PortNo(1),
        begin: crate::flows::FlowBegin::Actions(actions),
        key: Box::default(),
        bytes: udp(1000, false),
    };
    let flows = BridgeFlows::new(Arc::new(rules(&[&rule])));
    let flows = BridgeFlows { connections: Some(all), ..flows };
    bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(&flows), 5), 1);
    in_time(&bench.send(0, &[]));
}

#[test]
fn tcp_is_followed_through_zones() {
    let (mut bench, all) = connected(&[
        "table=0,ip,actions=ct(table=1,zone=1)",
        "table=1,ct_state=+new,tcp,in_port=1,actions=ct(commit,zone=1,exec(load:0x5->NXM_NX_CT_LABEL[64..95])),ct(table=2,zone=2)",
        "table=1,ct_state=+est,tcp,ct_label=0x50000000000000000/0xffffffff0000000000000000,actions=ct(table=2,zone=2)",
        "table=2,ct_state=+new,tcp,in_port=1,actions=ct(commit,zone=2),output:2",
        "table=2,ct_state=+est-rpl,tcp,actions=output:2",
        "table=2,ct_state=+est+rpl,tcp,actions=output:1",
    ]);
    let segment = |is_back: bool, flags: TcpFlags, numbers: (u32, u32)| {
        let frame = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6]));
        let (sequence, acknowledgment) = numbers;
        let frame = match is_back {
            false => frame.ip(ONE, OTHER).tcp((1000, 80), sequence, acknowledgment, flags),
            true => frame.ip(OTHER, ONE).tcp((80, 1000), sequence, acknowledgment, flags),
        };
        frame.payload(&[7; 10]).build().unwrap()
    };
    let (syn, ack) = (TcpFlags::SYN, TcpFlags::ACK);
    let mut pass = |is_back: bool, flags, numbers| {
        counts(&bench.send(u16::from(is_back), &[segment(is_back, flags, numbers)]))
    };
    assert_eq!(pass(true, syn, (1, 0)), [0, 0, 0, 0]);
    assert_eq!(pass(false, syn, (100, 0)), [0, 1, 0, 0]);
    assert_eq!(pass(true, syn | ack, (300, 111)), [1, 0, 0, 0]);
    assert_eq!(pass(false, ack, (111, 311)), [0, 1, 0, 0]);
    assert_eq!(pass(true, ack, (90_000_000, 101)), [0, 0, 0, 0]);
    let mut zones = Vec::new();
    all.for_each(0, |entry| zones.push((entry.original.zone(), entry.label)));
    zones.sort_unstable();
    assert_eq!(zones, [(1, 5 << 64), (2, 0)]);
}

#[test]
fn the_first_packet_of_a_connection_can_be_looked_up() {
    let (mut bench, _) = connected(&[
        "in_port=1,ip,actions=ct(commit),output:2",
        "in_port=2,ip,actions=ct(table=1)",
        "table=1,ct_state=+trk-inv,ip,actions=resubmit(,2),resubmit(,2,ct)",
        "table=2,udp,nw_src=10.0.0.1,tp_dst=53,actions=output:3",
        "table=2,udp,nw_src=10.0.0.2,tp_src=53,actions=output:4",
    ]);
    bench.send(0, &[udp(1000, false)]);
    assert_eq!(counts(&bench.send(1, &[udp(1000, true)])), [0, 0, 1, 1]);
}

/// Who is inside has one address outside.
const MASQUERADE: [&str; 5] = [
    "in_port=1,ip,actions=ct(commit,zone=5,table=1,nat(src=10.0.0.9))",
    "table=1,in_port=1,ct_state=+snat-dnat,nw_src=10.0.0.9,ip,actions=output:2",
    "in_port=2,ip,actions=ct(zone=5,table=2,nat)",
    "table=2,ct_state=+trk+est+rpl+dnat-snat,nw_dst=10.0.0.1,ip,actions=output:1",
    "table=2,ct_state=+trk+rel+rpl+dnat,nw_dst=10.0.0.1,ip,actions=output:3",
];

/// A frame of UDP with these ends.
fn between((from, source): ([u8; 4], u16), (to, destination): ([u8; 4], u16)) -> Vec<u8> {
    let frame = FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    frame.ip(from, to).udp(source, destination).payload(&[7; 200]).build().unwrap()
}

/// An error about a frame, from a router.
fn about(frame: &[u8]) -> Vec<u8> {
    let to: [u8; 4] = frame[26..30].try_into().unwrap();
    let error = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6])).ip([10, 9, 9, 9], to);
    let mut error = error.echo(false, 0, 0).payload(&frame[14..14 + 28]).build().unwrap();
    error[34..36].copy_from_slice(&[3, 3]);
    let sum = u16::from_be_bytes([error[36], error[37]]);
    let sum = packet::checksum::update(sum, 0x0800, 0x0303);
    error[36..38].copy_from_slice(&sum.to_be_bytes());
    error
}

const OUTSIDE: [u8; 4] = [10, 0, 0, 9];

#[test]
fn addresses_are_translated_there_and_back() {
    let (mut bench, all) = connected(&MASQUERADE);
    let there = [1000, 1001].map(|port| between((ONE, port), (OTHER, 53)));
    let got = bench.send(0, &there);
    assert_eq!(got[1], [1000, 1001].map(|port| between((OUTSIDE, port), (OTHER, 53))));
    let back = [1000, 77, 1001].map(|port| between((OTHER, 53), (OUTSIDE, port)));
    let got = bench.send(1, &back);
    assert_eq!(got[0], [1000, 1001].map(|port| between((OTHER, 53), (ONE, port))));
    assert_eq!((counts(&got), bench.dropped(DropReason::NoFlow)), (vec![2, 0, 0, 0], 1));
    // Frames that need none, and errors, go along in one burst.
    let error = about(&between((OUTSIDE, 1001), (OTHER, 53)));
    let broken = &error[..60];
    let got = bench.send(1, &[back[0].clone(), error.clone(), broken.to_vec(), back[2].clone()]);
    assert_eq!(counts(&got), [2, 0, 1, 0]);
    assert_eq!(got[2], [about(&there[1])]);
    assert_eq!(all.count(), 2);
}

#[test]
fn a_packet_goes_on_translated_where_it_was_tracked() {
    let (mut bench, _) = connected(&[
        "in_port=1,ip,actions=output:4,ct(commit,nat(src=10.0.0.9)),output:2,mod_nw_tos:4,output:3",
        "in_port=2,ip,actions=dec_ttl,clone(ct(nat),output:1),output:3",
    ]);
    let there = between((ONE, 1000), (OTHER, 53));
    let got = bench.send(0, std::slice::from_ref(&there));
    let outside = between((OUTSIDE, 1000), (OTHER, 53));
    assert_eq!((counts(&got), &got[3][0], &got[1][0]), (vec![0, 1, 1, 1], &there, &outside));
    assert_eq!((&got[2][0][26..30], got[2][0][15]), (&OUTSIDE[..], 4));
    // Behind a clone it is as it was before.
    let back = between((OTHER, 53), (OUTSIDE, 1000));
    let got = bench.send(1, &[back.clone(), about(&outside)]);
    assert_eq!(counts(&got), [2, 0, 2, 0]);
    assert_eq!((&got[0][0][30..34], &got[2][0][30..34]), (&ONE[..], &OUTSIDE[..]));
    assert_eq!((got[0][0][22], got[2][0][22]), (63, 63));
    let (mut error, mut inside) = (got[0][1].clone(), about(&there));
    // But for its time to live.
    [&mut error, &mut inside].into_iter().for_each(|frame| frame[22..26].fill(0));
    assert_eq!(error, inside);
}

#[test]
fn who_was_translated_in_a_zone_is_known_there() {
    let (mut bench, _) = connected(&[
        "in_port=1,ip,actions=ct(commit,zone=5,table=1,nat(dst=10.0.0.7))",
        "table=1,ct_state=+dnat,ip,actions=ct(zone=5,table=2),ct(zone=6,table=3)",
        "table=2,ct_state=+new+dnat,ct_nw_dst=10.0.0.2,nw_dst=10.0.0.7,ip,actions=output:2",
        "table=3,ct_state=+new-dnat,ct_nw_dst=10.0.0.7,ip,actions=output:3",
    ]);
    let got = bench.send(0, &[between((ONE, 1000), (OTHER, 53))]);
    let after = between((ONE, 1000), ([10, 0, 0, 7], 53));
    assert_eq!((counts(&got), &got[1][0], &got[2][0]), (vec![0, 1, 1, 0], &after, &after));
}

#[test]
fn who_was_translated_in_a_zone_is_not_translated_again() {
    let (mut bench, _) = connected(&[
        "in_port=1,ip,actions=ct(commit,zone=5,table=1,nat(dst=10.0.0.7))",
        "table=1,ct_state=+dnat,ip,actions=ct(commit,zone=5,table=2,nat)",
        "table=2,ct_state=+new+dnat,ct_nw_dst=10.0.0.2,nw_dst=10.0.0.7,ip,actions=output:2",
    ]);
    let got = bench.send(0, &[between((ONE, 1000), (OTHER, 53))]);
    let after = between((ONE, 1000), ([10, 0, 0, 7], 53));
    assert_eq!((counts(&got), &got[1][0]), (vec![0, 1, 0, 0], &after));
}

/// A packet whose destination is written after it was tracked is of another connection, and told so.
#[test]
fn a_packet_that_is_of_another_connection_by_now_is_known_as_that() {
    let (mut bench, _) = connected(&[
        "in_port=1,ip,actions=ct(table=1,zone=5)",
        "in_port=2,ip,actions=ct(zone=5,table=3)",
        "table=1,ct_state=+new,ip,actions=ct(commit,zone=5),output:2",
        "table=1,ct_state=+est,ip,actions=set_field:10.0.0.7->ip_dst,ct(table=2,zone=5)",
        "table=2,ct_state=+est,ip,actions=output:3",
        "table=2,ct_state=+new,ip,actions=output:4",
        "table=3,ct_state=+est,ip,actions=output:1",
    ]);
    assert_eq!(counts(&bench.send(0, &[udp(1000, false)])), [0, 1, 0, 0]);
    assert_eq!(counts(&bench.send(1, &[udp(1000, true)])), [1, 0, 0, 0]);
    assert_eq!(counts(&bench.send(0, &[udp(1000, false)])), [0, 0, 0, 1]);
}

#[test]
fn tracked_packets_are_recorded_where_they_go_on_while_somebody_looks() {
    let (mut bench, _) = connected(&FIREWALL);
    bench.send(0, &[udp(1000, false)]);
    bench.send(1, &[udp(1000, true)]);
    bench.path.set_recording(Record::All, 0);
    bench.send(1, &[udp(1000, true), udp(1000, true), udp(1001, true)]);
    let (came, again) = bench.path.take_recording();
    assert_eq!(came.kinds.len(), 2);
    let [(BridgeId::DEFAULT, again)] = &again[..] else { panic!("{again:?}") };
    let [known, strange] = &again.kinds[..] else { panic!("{again:?}") };
    // Tracked, established, a reply; and new.
    let state = |of: &Recorded| of.key.get_u32(slot::CT_STATE);
    assert_eq!((known.packets, state(known)), (2, 0x2A));
    assert_eq!((strange.packets, state(strange)), (1, 0x21));
    let onward = known.onward.as_ref().unwrap();
    assert_eq!((onward.table, onward.key.get_u32(slot::reg(3))), (Some(1), 9));
    assert_eq!(known.key.get_u32(slot::IN_PORT), 2);
    bench.path.set_recording(Record::Nothing, 0);
    bench.send(1, &[udp(1000, true)]);
    assert!(bench.path.take_recording().1.iter().all(|(_, own)| own.kinds.is_empty()));
}

#[test]
fn packets_are_recorded_sparingly_until_it_is_enough() {
    let (mut bench, _) = connected(&FIREWALL);
    let second = eal::clock::cycles(std::time::Duration::from_secs(1));
    bench.path.set_recording(Record::Sparingly, 0);
    let packets = |bench: &mut Bench| -> ([u64; 2], Option<u64>) {
        let (came, again) = bench.path.take_recording();
        let count = |of: &[Recorded]| of.iter().map(|kind| kind.packets).sum();
        let again = again.iter().map(|(_, own)| count(&own.kinds)).sum();
        ([count(&came.kinds), again], came.passed)
    };
    let burst = vec![udp(1000, true); 16];
    (0..20).for_each(|_| _ = bench.send(1, &burst));
    // What was recorded stays while it rests.
    assert_eq!(packets(&mut bench), ([256, 256], None));
    bench.path.sleeps(second / 100);
    bench.send(1, &burst);
    assert_eq!(packets(&mut bench), ([0, 0], None));
    bench.path.sleeps(second);
    bench.send(1, &burst);
    // When they are recorded again is when the last one may have been passed over.
    assert_eq!(packets(&mut bench), ([16, 16], Some(second)));
    // What came lately while all was recorded is not there afterwards.
    bench.path.set_recording(Record::All, 2 * second);
    bench.send(1, &burst);
    assert_eq!(packets(&mut bench), ([16, 16], None));
    bench.path.set_recording(Record::Sparingly, 3 * second);
    bench.path.set_recording(Record::All, 4 * second);
    assert_eq!(packets(&mut bench), ([0, 0], Some(3 * second)));
}
