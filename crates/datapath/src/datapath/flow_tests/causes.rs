//! Why controllers get what has come from another bridge.

use openflow::action::Ct;
use openflow::packet_in::Reason;

use super::*;
use crate::flows::{FlowBegin, FlowPacketOut};

const CONTROLLER: Action = Action::Output { port: PortNo::CONTROLLER, max_len: 20 };

/// The first bridge, whose port 5 leads to another one with these rules.
fn first_bridge(instructions: Instructions) -> Pipeline {
    let mut first = pipeline(5, &[]);
    first.ports.get_mut(&PortNo(5)).unwrap().is_patch = true;
    first.tables.change(&Change::add(0, Match::new(), instructions), 0).unwrap();
    first
}

/// Why controllers of the other bridge get what `send` sends, whose rule does this.
fn reasons(
    first: &Pipeline,
    instructions: Instructions,
    send: impl FnOnce(&mut Bench, &BridgeFlows),
) -> Vec<Reason> {
    let mut bench = Bench::new(4);
    let mut other = pipeline(6, &[]);
    other.tables.change(&Change::add(0, Match::new(), instructions), 0).unwrap();
    let behind = Instructions::apply(vec![CONTROLLER]);
    other.tables.change(&Change::add(1, Match::new(), behind).with_priority(1), 0).unwrap();
    add_neighbour(&mut bench, other.clone());
    let (inlet, packets) = flow_queue(40, || {});
    let told = BridgeFlows::new(Arc::new(other)).with_packets(inlet);
    let told = BridgeFlows { connections: Some(Arc::default()), ..told };
    bench.change(1, BridgeChange::Flows(Some(Box::new(told)), 0));
    set(&mut bench, first.clone());
    send(&mut bench, &BridgeFlows::new(Arc::new(first.clone())));
    let reason = |event| match event {
        FlowEvent::Packet(packet) => packet.about.reason,
        FlowEvent::Learn(change) => panic!("{change:?}"),
    };
    packets.try_iter().map(reason).collect()
}

fn one_frame(bench: &mut Bench, _: &BridgeFlows) {
    bench.send(0, &[frame(station(1), station(2))]);
}

/// What a controller has sent, to the rules of the first bridge.
fn sent_out(bench: &mut Bench, flows: &BridgeFlows) {
    let (in_port, bytes) = (PortNo::CONTROLLER, frame(station(1), station(2)));
    let begin = FlowBegin::Actions(vec![output(PortNo::TABLE.0)]);
    let packet = FlowPacketOut { in_port, begin, key: Box::default(), bytes };
    bench.path.packet_out(BridgeId::DEFAULT, &packet.of(Some(flows), 5), 1);
    bench.send(0, &[]);
}

#[test]
fn what_the_action_set_sends_to_another_bridge_is_told_there_by_that_reason() {
    let by_rule = Instructions::apply(vec![output(5)]);
    let by_set = |actions| Instructions { write: Some(actions), ..Instructions::default() };
    let told = Instructions::apply(vec![CONTROLLER]);
    let ways = [output(5), output(PortNo::FLOOD.0), output(PortNo::NORMAL.0)];
    for way in ways {
        let first = first_bridge(by_set(vec![way]));
        assert_eq!(reasons(&first, told.clone(), one_frame), [Reason::ACTION_SET]);
        assert_eq!(reasons(&first, told.clone(), sent_out), [Reason::PACKET_OUT]);
    }
    let first = first_bridge(by_rule);
    assert_eq!(reasons(&first, told.clone(), one_frame), [Reason::ACTION]);
    assert_eq!(reasons(&first, told, sent_out), [Reason::PACKET_OUT]);
}

#[test]
fn a_reason_that_a_rule_names_stays_and_what_goes_on_tracked_has_its_own() {
    let set = Some(vec![output(5)]);
    let first = first_bridge(Instructions { write: set, ..Instructions::default() });
    let named = Action::Controller(Box::default());
    let track = Action::Ct(Box::new(Ct { table: Some(1), ..Ct::default() }));
    let apply = Instructions::apply(vec![CONTROLLER, named, track]);
    let told = reasons(&first, apply, one_frame);
    assert_eq!(told, [Reason::ACTION_SET, Reason::ACTION, Reason::ACTION]);
}
