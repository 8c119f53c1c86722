//! Bridges with flows on the data path.

use std::sync::Arc;

use ethdev::DropReason;
use flow::{Change, PathCounts, Pipeline, Port, Stats};
use openflow::{Action, Field, Instructions, Match, PortNo};
use packet::builder::FrameBuilder;
use packet::{Frame, MacAddr, Segment};
use proptest::prelude::*;

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bridge::BridgeChange;
use crate::flows::{BridgeFlows, FlowEvent, flow_queue};
use crate::patch::Patch;

mod barred;
mod bonds;
mod calm;
mod causes;
mod connections;
mod marks;
mod meters;
mod mirrors;
mod nsh;
mod outer;
mod stops;

/// A pipeline of a bench's ports, whose OpenFlow numbers are one higher.
fn pipeline(ports: u16, rules: &[(u8, Match, Vec<Action>)]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for number in 0..ports {
        pipeline.ports.insert(PortNo(u32::from(number) + 1), Port::new(number));
    }
    for (priority, (table, matching, actions)) in (1..).zip(rules) {
        let add = Change::add(*table, matching.clone(), Instructions::apply(actions.clone()));
        pipeline.tables.change(&add.with_priority(priority), 0).unwrap();
    }
    pipeline
}

fn bench(rules: &[(u8, Match, Vec<Action>)]) -> (Bench, Vec<Arc<Stats>>) {
    let pipeline = pipeline(4, rules);
    let mut rules: Vec<_> = pipeline.tables.iter().cloned().collect();
    rules.sort_by_key(|rule| rule.priority);
    let mut bench = Bench::new(4);
    set(&mut bench, pipeline);
    (bench, rules.iter().map(|rule| Arc::clone(&rule.stats)).collect())
}

/// What comes out of port 2 of frames that come in on port 1, and why others do not.
fn sent(rules: &[(u8, Match, Vec<Action>)], frames: &[Frame<'_>]) -> (Vec<Vec<u8>>, Bench) {
    let (mut bench, _) = bench(rules);
    let mut got = bench.send_frames(0, frames);
    (got.swap_remove(1), bench)
}

/// The same of one frame, of which `head` bytes lie by themselves, or its first 64 if these are more.
fn sent_from(rules: &[(u8, Match, Vec<Action>)], bytes: &[u8], head: usize) -> Vec<Vec<u8>> {
    let (near, far) = bytes.split_at(head.clamp(64.min(bytes.len()), bytes.len()));
    let body = [Segment::from_bytes(far)];
    sent(rules, &[Frame::from_parts(near, &body).unwrap()]).0
}

fn set(bench: &mut Bench, pipeline: Pipeline) {
    let flows = BridgeFlows::new(Arc::new(pipeline));
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
}

/// Adds another bridge with these rules, to whose port 5 port 4 of the first one leads.
fn add_neighbour(bench: &mut Bench, pipeline: Pipeline) {
    let fdb = Arc::new(fdb::Fdb::new(64, crate::port_set::MAX_PORTS, 300));
    bench.change(1, BridgeChange::Open(Bridge::new(fdb, BURST, 0)));
    for (id, port, peer, other) in [(0, 4, 5, 1), (1, 5, 4, 0)] {
        bench.change(id, BridgeChange::Join(port, None));
        let (bridge, (tx, rx)) = (BridgeId(other), Default::default());
        bench.path.set_patch(port, Some(Patch { bridge, peer, tx, rx }));
    }
    let flows = BridgeFlows::new(Arc::new(pipeline));
    bench.change(1, BridgeChange::Flows(Some(Box::new(flows)), 0));
}

fn output(port: u32) -> Action {
    Action::output(PortNo(port))
}

fn to(address: u64) -> Match {
    Match::new().with(Field::EthDst, address.into())
}

fn write(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.full_mask() }
}

fn counts(got: &[Vec<Vec<u8>>]) -> Vec<usize> {
    got.iter().map(Vec::len).collect()
}

#[test]
fn frames_go_where_rules_say_and_rules_count_them() {
    let (a, b) = (station(1), station(2));
    let (mut bench, stats) = bench(&[
        (0, Match::new().with(Field::InPort, 4), vec![output(PortNo::NORMAL.0)]),
        (0, to(a), vec![output(2)]),
        (0, to(b), vec![]),
    ]);
    let burst = [frame(a, b), frame(b, a), frame(a, a), frame(station(3), a)];
    assert_eq!(counts(&bench.send(0, &burst)), [0, 2, 0, 0]);
    assert_eq!(bench.dropped(DropReason::FlowDrop), 1);
    assert_eq!(bench.dropped(DropReason::NoFlow), 1);
    bench.change(0, BridgeChange::FlushFlows(1_000));
    let told: Vec<_> = stats.iter().map(|stats| (stats.packets(), stats.bytes())).collect();
    assert_eq!(told, [(0, 0), (2, 120), (1, 60)]);
    assert_eq!(stats[1].used(), 1_000);
    // Without flows it is a plain bridge again, of which nothing was learnt so far.
    bench.change(0, BridgeChange::Flows(None, 2_000));
    assert_eq!(counts(&bench.send(0, &burst[..1])), [0, 1, 1, 1]);
}

#[test]
fn normal_learns_and_floods_as_a_plain_bridge_does() {
    let normal = output(PortNo::NORMAL.0);
    let (mut bench, _) = bench(&[
        (0, Match::new(), vec![normal]),
        (0, Match::new().with(Field::EthType, 0x88CC), vec![]),
    ]);
    let (a, b) = (station(1), station(2));
    assert_eq!(counts(&bench.send(3, &[frame(BROADCAST, a)])), [1, 1, 1, 0]);
    assert_eq!(counts(&bench.send(1, &[frame(a, b), frame(a, b)])), [0, 0, 0, 2]);
    assert_eq!(counts(&bench.send(2, &[frame(b, a)])), [0, 1, 0, 0]);
    assert_eq!(bench.dropped(DropReason::Hairpin), 0);
}

#[test]
fn flooding_leaves_out_where_a_frame_came_from_and_ports_that_do_not() {
    let mut flows = pipeline(
        4,
        &[
            (0, Match::new(), vec![output(PortNo::FLOOD.0)]),
            (0, to(station(1)), vec![output(PortNo::ALL.0)]),
            (0, to(station(2)), vec![output(PortNo::IN_PORT.0), output(2), output(2)]),
        ],
    );
    flows.ports.get_mut(&PortNo(3)).unwrap().no_flood = true;
    let mut bench = Bench::new(4);
    set(&mut bench, flows.clone());
    assert_eq!(counts(&bench.send(0, &[frame(BROADCAST, 2)])), [0, 1, 0, 1]);
    assert_eq!(counts(&bench.send(0, &[frame(station(1), 2)])), [0, 1, 1, 1]);
    assert_eq!(counts(&bench.send(0, &[frame(station(2), 2)])), [1, 2, 0, 0]);
    flows.ports.get_mut(&PortNo(2)).unwrap().no_forward = true;
    set(&mut bench, flows);
    assert_eq!(counts(&bench.send(0, &[frame(station(1), 2)])), [0, 0, 1, 1]);
}

#[test]
fn each_port_gets_the_frame_as_it_was_by_then() {
    let clone = Action::Clone(vec![write(Field::EthSrc, 7), output(3)]);
    let cut = Action::OutputTruncated { port: PortNo(2), max_len: 20 };
    let (mut bench, _) = bench(&[(
        0,
        Match::new(),
        vec![
            output(2),
            write(Field::EthDst, 5),
            clone,
            output(2),
            Action::SetVlanVid { vid: 9, push: true },
            output(4),
            cut,
        ],
    )]);
    let before = frame(station(1), station(2));
    let got = bench.send(0, &[before.clone(), before.clone()]);
    let mut second = before.clone();
    second[..6].copy_from_slice(&[0, 0, 0, 0, 0, 5]);
    let mut third = second.clone();
    third[6..12].copy_from_slice(&[0, 0, 0, 0, 0, 7]);
    let mut fourth = second.clone();
    fourth.splice(12..12, [0x81, 0, 0, 9]);
    let short = fourth[..20].to_vec();
    let twice = |frame: &Vec<u8>| vec![frame.clone(), frame.clone()];
    assert_eq!(got[1], [twice(&before), twice(&second), twice(&short)].concat());
    assert_eq!((&got[2], &got[3]), (&twice(&third), &twice(&fourth)));
}

#[test]
fn headers_behind_the_private_head_are_copied_before_they_count() {
    let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let built = FrameBuilder::new(a, b)
        .ip(
            "fd00::1".parse::<std::net::Ipv6Addr>().unwrap(),
            "fd00::2".parse::<std::net::Ipv6Addr>().unwrap(),
        )
        .udp(1, 53)
        .payload(&[7; 100])
        .build()
        .unwrap();
    let dns = Match::new().with(Field::EthType, 0x86DD).with(Field::IpProto, 17);
    let (mut bench, _) = bench(&[
        (0, Match::new(), vec![output(3)]),
        (0, dns.with(Field::UdpDst, 53), vec![Action::SetL4Dst(54), output(2)]),
    ]);
    for head in [14, 40, 55, 64] {
        let body = [Segment::from_bytes(&built[head..])];
        let frame = Frame::from_parts(&built[..head], &body).unwrap();
        let other = Frame::from_bytes(&built[..20]);
        let got = bench.send_frames(0, &[other, frame, other]);
        assert_eq!(counts(&got), [0, 1, 2, 0], "{head}");
        assert_eq!((got[1][0].len(), &got[1][0][56..58]), (built.len(), &[0, 54][..]));
    }
    // Headers that go on behind what is looked at get by no rule.
    let endless: Vec<u8> = [&built[..20], &[0], &built[21..54], &[0; 8].repeat(30)].concat();
    let mut endless = endless;
    endless[18..20].copy_from_slice(&240_u16.to_be_bytes());
    let body = [Segment::from_bytes(&endless[64..])];
    let frame = Frame::from_parts(&endless[..64], &body).unwrap();
    assert_eq!(counts(&bench.send_frames(0, &[frame])), [0, 0, 1, 0]);
}

#[test]
fn controllers_get_packets_and_a_flood_of_them_harms_nobody() {
    let controller = Action::Output { port: PortNo::CONTROLLER, max_len: 20 };
    let flows = pipeline(2, &[(0, Match::new(), vec![controller, output(2)])]);
    let (inlet, packets) = flow_queue(40, || {});
    let flows = BridgeFlows::new(Arc::new(flows)).with_packets(inlet.clone());
    let mut bench = Bench::new(2);
    bench.change(0, BridgeChange::Flows(Some(Box::new(flows)), 0));
    let burst = vec![frame(station(1), station(2)); 32];
    for _ in 0..4 {
        assert_eq!(counts(&bench.send(0, &burst)), [0, 32]);
    }
    let packet = |event| match event {
        FlowEvent::Packet(packet) => packet,
        FlowEvent::Learn(change) => panic!("{change:?}"),
    };
    let packets: Vec<_> = packets.try_iter().map(packet).collect();
    assert_eq!((packets.len(), inlet.lost()), (40, 88));
    let first = &packets[0];
    // All of it, since nothing is kept that could be asked for.
    assert_eq!((first.bytes.len(), first.len, first.about.table), (60, 60, 0));
    assert_eq!(first.about.key.get_u32(flow::slot::IN_PORT), 1);
}

#[test]
fn what_controllers_send_goes_where_they_say() {
    let (mut bench, stats) = bench(&[(0, Match::new(), vec![output(2)])]);
    let flows = {
        let flows = bench.bridge().flows().unwrap().pipeline();
        BridgeFlows::new(flows)
    };
    let mut send = |in_port, actions: Vec<Action>| {
        let bytes = frame(station(1), station(2));
        let begin = crate::flows::FlowBegin::Actions(actions);
        let packet = crate::flows::FlowPacketOut { in_port, begin, key: Box::default(), bytes };
        bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(&flows), 5), 1);
        counts(&bench.send(0, &[]))
    };
    assert_eq!(send(PortNo::CONTROLLER, vec![output(1), output(3)]), [1, 0, 1, 0]);
    assert_eq!(send(PortNo(3), vec![output(PortNo::TABLE.0)]), [0, 1, 0, 0]);
    assert_eq!(send(PortNo(3), vec![output(PortNo::FLOOD.0)]), [1, 1, 0, 1]);
    assert_eq!(send(PortNo::CONTROLLER, vec![output(PortNo::NORMAL.0)]), [1, 1, 1, 1]);
    assert_eq!(stats[0].packets(), 1);
}

#[test]
fn patch_ports_lead_from_flows_to_flows_and_loops_end() {
    let (mut bench, stats) = bench(&[(0, Match::new(), vec![output(5), output(2)])]);
    bench.change(0, BridgeChange::Leave(3));
    let fdb = Arc::new(fdb::Fdb::new(64, crate::port_set::MAX_PORTS, 300));
    bench.change(1, BridgeChange::Open(Bridge::new(fdb, BURST, 0)));
    for (id, port, peer, other) in [(0, 4, 5, 1), (1, 5, 4, 0)] {
        bench.change(id, BridgeChange::Join(port, None));
        let bridge = BridgeId(other);
        let (tx, rx) = Default::default();
        bench.path.set_patch(port, Some(Patch { bridge, peer, tx, rx }));
    }
    bench.change(1, BridgeChange::Join(3, None));
    let mut first = pipeline(3, &[(0, Match::new(), vec![output(5), output(2)])]);
    first.ports.insert(PortNo(5), Port::new(4));
    drop(stats);
    set(&mut bench, first);
    // The other one is a plain bridge.
    assert_eq!(counts(&bench.send(0, &[frame(BROADCAST, station(1))])), [0, 1, 0, 1]);
    // Then one that sends back.
    let back = vec![write(Field::EthSrc, 9), output(4), output(PortNo::IN_PORT.0)];
    let mut second = pipeline(0, &[(0, Match::new(), back)]);
    second.ports.insert(PortNo(4), Port::new(3));
    second.ports.insert(PortNo(6), Port::new(5));
    let second = BridgeFlows::new(Arc::new(second));
    bench.change(1, BridgeChange::Flows(Some(Box::new(second)), 0));
    let got = bench.send(0, &[frame(BROADCAST, station(1))]);
    // What comes back from there is sent to port 2 once more, and not to where it came from.
    assert_eq!(counts(&got), [0, 2, 0, 1]);
    assert_eq!(got[3][0][6..12], [0, 0, 0, 0, 0, 9]);
}

#[test]
fn look_ups_are_counted_by_what_they_found_and_where() {
    let (mut bench, _) = bench(&[]);
    set(&mut bench, pipeline(6, &[(0, to(station(2)), vec![output(2), output(5)])]));
    add_neighbour(&mut bench, pipeline(6, &[(0, Match::new(), vec![])]));
    let mut look_ups = |count| {
        bench.send(0, &vec![frame(station(2), station(1)); count]);
        bench.path.take_look_ups()
    };
    // One packet goes through the tables of either bridge; the other three find what it has found.
    assert_eq!(look_ups(4), PathCounts { hits: 6, misses: 2, again: 4 });
    assert_eq!(look_ups(2), PathCounts { hits: 4, misses: 0, again: 2 });
    assert_eq!(look_ups(0), PathCounts::default());
}

#[test]
fn a_trace_tells_what_would_become_of_a_frame_and_counts_nothing() {
    let (mut bench, stats) = bench(&[
        (0, Match::new(), vec![output(2), write(Field::EthDst, 5), output(3)]),
        (0, to(station(2)), vec![]),
    ]);
    let before = frame(station(1), station(2));
    let trace = bench.path.trace((BridgeId::DEFAULT, 0), &before, false, 0);
    let mut after = before.clone();
    after[..6].copy_from_slice(&[0, 0, 0, 0, 0, 5]);
    assert_eq!(trace.outputs, [(1, before), (2, after)]);
    let dropped = bench.path.trace((BridgeId::DEFAULT, 0), &frame(station(2), 2), false, 0);
    assert_eq!(dropped.reason, Some(DropReason::FlowDrop));
    let priorities = |trace: &trace::Trace| -> Vec<Option<u16>> {
        let visits = trace.entered.iter().flat_map(|(_, visits)| visits);
        visits.map(|visit| visit.rule.as_ref().map(|rule| rule.priority)).collect()
    };
    assert_eq!((priorities(&trace), priorities(&dropped)), (vec![Some(1)], vec![Some(2)]));
    bench.change(0, BridgeChange::FlushFlows(1));
    assert!(stats.iter().all(|stats| stats.packets() == 0));
}

proptest! {
    /// Frames that go different ways within a burst keep their order at each port, and none is lost
    /// or doubled.
    #[test]
    fn bursts_of_many_ways_are_sorted_out(
        ways in prop::collection::vec((0..5_u64, any::<u8>()), 0..BURST),
        changes in prop::collection::vec((any::<bool>(), 2..5_u32), 5),
    ) {
        let rules: Vec<_> = (0..5_u64).zip(&changes).map(|(way, (edits, port))| {
            let edit = edits.then(|| write(Field::EthSrc, 0xEE));
            (0, to(station(way)), edit.into_iter().chain([output(*port)]).collect::<Vec<_>>())
        }).collect();
        let (mut bench, stats) = bench(&rules);
        let frames: Vec<Vec<u8>> = ways.iter().map(|(way, tag)| {
            let mut frame = frame(station(*way), station(8));
            frame[20] = *tag;
            frame
        }).collect();
        let got = bench.send(0, &frames);
        for (way, (edits, port)) in (0..5_u64).zip(&changes) {
            let own = |frame: &&Vec<u8>| frame[..6] == station(way).to_be_bytes()[2..];
            let sent: Vec<u8> = frames.iter().filter(own).map(|frame| frame[20]).collect();
            let came = got[*port as usize - 1].iter().filter(own);
            let last = if *edits { 0xEE } else { 8 };
            prop_assert!(came.clone().all(|frame| frame[11] == last));
            prop_assert_eq!(came.map(|frame| frame[20]).collect::<Vec<u8>>(), sent);
        }
        bench.change(0, BridgeChange::FlushFlows(1));
        prop_assert_eq!(stats.iter().map(|s| s.packets()).sum::<u64>(), ways.len() as u64);
    }
}
