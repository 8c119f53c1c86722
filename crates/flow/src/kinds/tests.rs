use openflow::message::flow_mod::Command;
use openflow::text::{Names, flow_mod};
use openflow::{Action, Field, Instructions, Match};

use super::*;
use crate::pipeline::Pipeline;
use crate::tables::Change;

fn pipeline(rules: &[&str]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    rules.iter().for_each(|rule| add(&mut pipeline, rule));
    pipeline
}

fn add(pipeline: &mut Pipeline, rule: &str) {
    let rule = flow_mod(rule, Command::Add, Names::NONE).unwrap();
    let table = if rule.table == u8::MAX { 0 } else { rule.table };
    let add = Change::add(table, rule.matching, rule.instructions);
    pipeline.tables.change(&add.with_priority(rule.priority), 0).unwrap();
}

/// Which kinds a field is relevant for, in their order.
fn relevant(pipeline: &Pipeline, slot: Slot) -> [bool; KINDS.len()] {
    pipeline.relevant_by_kind().map(|key| key.get(slot) != 0)
}

const NONE: [bool; KINDS.len()] = [false; KINDS.len()];
const ALL: [bool; KINDS.len()] = [true; KINDS.len()];

#[test]
fn rules_for_others_do_not_count() {
    let mut flows = pipeline(&[
        "arp,arp_tpa=10.0.0.1,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],in_port",
        "icmp6,icmp_type=135,actions=drop",
        "priority=0,actions=normal",
    ]);
    assert_eq!(relevant(&flows, slot::IPV4_DST), NONE);
    assert_eq!(relevant(&flows, slot::ETH_SRC), NONE);
    assert_eq!(relevant(&flows, slot::TP_SRC), [false, false, false, false, false, true]);
    assert_eq!(relevant(&flows, slot::IN_PORT), ALL);
    add(&mut flows, "udp,nw_src=10.0.0.0/8,actions=drop");
    assert_eq!(relevant(&flows, slot::IPV4_SRC), [false, true, false, false, false, false]);
    add(&mut flows, "ip,nw_src=10.0.0.0/8,actions=drop");
    assert_eq!(relevant(&flows, slot::IPV4_SRC), [true, true, true, false, false, false]);
    add(&mut flows, "table=3,actions=move:NXM_OF_ETH_SRC[0..31]->NXM_NX_REG0[]");
    add(&mut flows, "table=4,dl_src=02:00:00:00:00:01,actions=drop");
    assert_eq!(relevant(&flows, slot::ETH_SRC), ALL);
}

#[test]
fn what_no_rule_asks_for_any_more_does_not_count() {
    let mut flows = pipeline(&["udp,tp_dst=53,actions=drop", "priority=0,actions=normal"]);
    assert!(relevant(&flows, slot::TP_DST)[1]);
    let all = Change::delete(None, Match::new().with(Field::EthType, 0x0800));
    flows.tables.change(&all, 0).unwrap();
    assert_eq!(relevant(&flows, slot::TP_DST), NONE);
}

#[test]
fn packets_that_may_become_others_depend_on_all() {
    let actions = [
        Action::PushVlan { ethertype: 0x8100 },
        Action::PushMpls { ethertype: 0x8847 },
        Action::PopMpls { ethertype: 0x0806 },
        Action::Clone(vec![Action::Resubmit { port: None, table: Some(1), ct: true }]),
    ];
    for action in actions {
        let mut flows = pipeline(&["arp,arp_tpa=10.0.0.1,actions=drop"]);
        assert_eq!(relevant(&flows, slot::IPV4_DST), NONE);
        let add = Change::add(1, Match::new(), Instructions::apply(vec![action.clone()]));
        flows.tables.change(&add, 0).unwrap();
        assert_eq!(relevant(&flows, slot::IPV4_DST), ALL, "{action:?}");
    }
}
