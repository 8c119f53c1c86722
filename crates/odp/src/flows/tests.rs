use std::collections::BTreeSet;

use super::*;
use crate::parse::parse;

/// Packets go to the port that the rule says, and so many bits of their source count.
#[derive(Debug, Default)]
struct Rules {
    to: u32,
    heeds: Option<flow::Slot>,
    is_gone: bool,
    told: Vec<String>,
    asked: usize,
    /// How often it answers.
    patience: Option<usize>,
    /// Packets that come in go to the member of a bond, by the lowest bits of their source port: member 10
    /// for the even ones, else 11.
    is_for_bond: bool,
}

impl Host for Rules {
    fn way(&mut self, key: &Key, _: Option<&Onward>) -> Option<Way> {
        self.asked += 1;
        let mut mask = Key::default();
        for slot in [slot::RECIRC_ID, slot::IN_PORT, slot::PACKET_TYPE, slot::ETH_TYPE] {
            mask.set(slot, slot.ones());
        }
        if Kind::of(key).is_ip() {
            mask.set(slot::IP_FRAG, 3);
        }
        if let Some(slot) = self.heeds {
            mask.set(slot, slot.ones());
        }
        let mut actions = if self.to == 0 { vec![] } else { vec![Action::Output(self.to)] };
        if self.is_for_bond && key.get_u32(slot::RECIRC_ID) == 0 {
            let mut tagged = *key;
            tagged.set(slot::VLAN_TPID, 0x8100);
            tagged.set(slot::VLAN_TCI, 0x1005);
            actions = vec![Action::Balance(Box::new(Balance::new(7, key, &tagged)))];
        } else if self.is_for_bond {
            mask.set(slot::DP_HASH, 0xFF);
            actions = vec![Action::Output(10 + key.get_u32(slot::DP_HASH) % 2)];
        }
        (!self.is_gone).then_some(Way { mask, actions, is_flooded: false, options: Vec::new() })
    }

    fn hash(&mut self, key: &Key) -> u32 {
        key.get_u32(slot::TP_SRC) & 3
    }

    fn is_tired(&self) -> bool {
        self.patience.is_some_and(|patience| self.asked >= patience)
    }

    fn told(&mut self, event: Event<'_>) {
        let look = Look { is_full: false, names: None, now: 0 };
        self.told.push(match event {
            Event::Missed(_) => "missed".to_owned(),
            Event::Added(flow) => format!("added {}", flow.actions(look)),
            Event::Changed(flow) => format!("changed {}", flow.actions(look)),
            Event::Deleted(flow) => format!("deleted {}", flow.actions(look)),
        });
    }
}

const ICMP: &str = "eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),\
                    ipv4(src=192.168.0.1,dst=192.168.0.2,proto=1,tos=0,ttl=64,frag=no),icmp(type=8,code=0)";

fn key(text: &str) -> Key {
    let mut key = parse(text).unwrap().key;
    key.set(slot::IN_PORT, 1);
    key
}

fn packets(key: &Key, count: u64, last: u64) -> Packets<'_> {
    Packets { key, packets: count, bytes: count * 100, first_bytes: 100, last, thread: 0 }
}

fn dump(flows: &Flows, is_full: bool, now: u64) -> Vec<String> {
    let look = Look { is_full, names: None, now };
    let line = |flow: &Flow| {
        format!("{}, {}, actions:{}", flow.matching(look), flow.counts(look), flow.actions(look))
    };
    flows.iter().map(line).collect()
}

#[test]
fn flows_are_told_as_open_vswitch_tells_them() {
    let (mut flows, mut rules) = (Flows::default(), Rules { to: 2, ..Rules::default() });
    flows.take(&packets(&key(ICMP), 1, 1_000), &mut rules);
    let short = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no), ";
    let way = flows.way_of(&key(ICMP), 0).unwrap();
    assert_eq!(way.actions, [Action::Output(2)]);
    assert_eq!(flows.way_of(&Key::default(), 0), None);
    assert_eq!(
        dump(&flows, false, 2_000),
        [format!("{short}packets:0, bytes:0, used:never, actions:2")]
    );
    // Another source is of the same flow.
    let other = key(&ICMP.replace("00:05", "00:06"));
    flows.take(&packets(&other, 3, 1_500), &mut rules);
    assert_eq!(
        dump(&flows, false, 2_000),
        [format!("{short}packets:3, bytes:300, used:0.500s, actions:2")]
    );
    assert_eq!(
        dump(&flows, true, 2_000),
        ["skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),\
          recirc_id(0),dp_hash(0/0),in_port(1),packet_type(ns=0,id=0),\
          eth(src=50:54:00:00:00:05/00:00:00:00:00:00,dst=50:54:00:00:00:07/00:00:00:00:00:00),\
          eth_type(0x0800),ipv4(src=192.168.0.1/0.0.0.0,dst=192.168.0.2/0.0.0.0,proto=1/0,tos=0/0,ttl=64/0,\
          frag=no),icmp(type=8/0,code=0/0), packets:3, bytes:300, used:0.500s, actions:2"]
    );
    // One with a tag is of another, although no rule asks for that.
    let tagged = format!(
        "{},encap({}",
        ICMP.split_once(",eth_type").unwrap().0,
        "eth_type(0x0800),ipv4(proto=1))"
    );
    let tagged = tagged.replace(",encap", ",eth_type(0x8100),vlan(vid=5,pcp=1),encap");
    flows.take(&packets(&key(&tagged), 1, 1_500), &mut rules);
    assert!(
        dump(&flows, false, 0)[1]
            .contains(",eth_type(0x8100),vlan(vid=5,pcp=1/0x0),encap(eth_type(0x0800)")
    );
    let id = flows.iter().nth(1).unwrap().id;
    assert!(flows.remove(id));
    rules.told.truncate(2);
    assert_eq!((flows.hits, flows.misses, flows.len()), (3, 2, 1));
    assert_eq!(rules.told, ["missed", "added 2"]);
    let ufid = flows.iter().next().unwrap().ufid();
    assert_eq!((ufid.len(), ufid.get(19..20)), (41, Some("4")));
}

#[test]
fn all_bits_count_where_there_are_no_masks() {
    let mut flows = Flows { has_masks: false, ..Flows::default() };
    let mut rules = Rules::default();
    let tcp = "eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x8100),vlan(vid=5,pcp=1),\
               encap(eth_type(0x0800),ipv4(src=1.2.3.4,dst=5.6.7.8,proto=6,tos=0,ttl=64,frag=no),\
               tcp(src=8,dst=80),tcp_flags(ack))";
    flows.take(&packets(&key(tcp), 2, 0), &mut rules);
    let beside = "ct_zone(0),ct_mark(0),ct_label(0),recirc_id(0),dp_hash(0),in_port(1),packet_type(ns=0,id=0)";
    assert_eq!(
        dump(&flows, false, 0),
        [format!(
            "skb_priority(0),skb_mark(0),ct_state(-new-est-rel-rpl-inv-trk-snat-dnat),{beside},{tcp}, \
             packets:1, bytes:100, used:0.000s, flags:., actions:drop"
        )]
    );
    assert!(dump(&flows, true, 0)[0].contains(",ct_state(0/0xff),"));
}

#[test]
fn flows_go_with_rules_and_time() {
    let (mut flows, mut rules) = (Flows::default(), Rules { to: 2, ..Rules::default() });
    flows.take(&packets(&key(ICMP), 2, 0), &mut rules);
    flows.revalidate(5_000, true, &mut rules);
    rules.to = 3;
    flows.revalidate(6_000, true, &mut rules);
    // Counts stay where only what is done is something else.
    assert_eq!(flows.iter().next().unwrap().packets, 1);
    // More bits count: it was too wide.
    rules.heeds = Some(slot::ETH_SRC);
    flows.revalidate(7_000, true, &mut rules);
    assert!(flows.is_empty());
    flows.take(&packets(&key(ICMP), 1, 8_000), &mut rules);
    // Fewer bits do no harm.
    rules.heeds = None;
    flows.revalidate(9_000, true, &mut rules);
    assert!(dump(&flows, false, 0)[0].contains(",eth(src=50:54:00:00:00:05),eth_type"));
    flows.revalidate(18_000, false, &mut rules);
    assert_eq!(flows.len(), 1);
    flows.revalidate(18_001, false, &mut rules);
    assert_eq!(
        rules.told,
        ["missed", "added 2", "changed 3", "deleted 3", "missed", "added 3", "deleted 3"]
    );
    flows.take(&packets(&key(ICMP), 1, 20_000), &mut rules);
    rules.is_gone = true;
    flows.revalidate(20_000, true, &mut rules);
    assert!(flows.is_empty() && flows.tuples.is_empty());
}

#[test]
fn there_are_no_more_flows_than_the_limit() {
    let mut flows = Flows { limit: 2, ..Flows::default() };
    let mut rules = Rules { heeds: Some(slot::ETH_SRC), ..Rules::default() };
    for source in 1..=9 {
        let mut key = key(ICMP);
        key.set(slot::ETH_SRC, source);
        flows.take(&packets(&key, 3, 0), &mut rules);
    }
    assert_eq!((flows.len(), flows.misses, flows.lost, rules.asked), (2, 9, 14, 2));
    let id = flows.iter().next().unwrap().id;
    assert!(flows.remove(id) && !flows.remove(id) && flows.len() == 1);
}

#[test]
fn who_is_asked_too_much_goes_on_the_next_time() {
    let mut flows = Flows::default();
    let mut rules = Rules { heeds: Some(slot::ETH_SRC), to: 1, ..Rules::default() };
    for source in 1..=5 {
        let mut key = key(ICMP);
        key.set(slot::ETH_SRC, source);
        flows.take(&packets(&key, 1, 0), &mut rules);
    }
    rules.to = 2;
    let mut changed = Vec::new();
    for _ in 0..3 {
        (rules.asked, rules.patience) = (0, Some(2));
        rules.told.clear();
        changed.push((flows.revalidate(0, true, &mut rules), rules.told.len()));
    }
    assert_eq!(changed, [(false, 2), (false, 2), (false, 1)]);
    // Nobody asks about new ones then, either.
    let mut key = key(ICMP);
    key.set(slot::ETH_SRC, 9);
    flows.take(&packets(&key, 3, 0), &mut rules);
    assert_eq!((flows.len(), flows.lost), (5, 2));
    rules.patience = None;
    assert!(flows.revalidate(0, true, &mut rules));
}

#[test]
fn there_is_an_end_to_looking_for_packets() {
    let (mut flows, mut rules) = (Flows::default(), Rules { to: 2, ..Rules::default() });
    flows.take(&packets(&key(ICMP), 1, 0), &mut rules);
    flows.looks = 3;
    (0..5).for_each(|at| flows.take(&packets(&key(ICMP), 2, at), &mut rules));
    assert_eq!((flows.hits, flows.lost), (6, 4));
    flows.revalidate(10, false, &mut rules);
    flows.take(&packets(&key(ICMP), 2, 10), &mut rules);
    assert_eq!((flows.hits, flows.lost), (8, 4));
}

#[test]
fn packets_for_a_bond_come_again_by_their_hash_as_what_they_have_become() {
    let rules = Rules { is_for_bond: true, ..Rules::default() };
    let (mut flows, mut rules) = (Flows::default(), rules);
    let udp = |port: u16| {
        let mut key = key(&ICMP
            .replace("proto=1", "proto=17")
            .replace("icmp(type=8,code=0)", "udp(src=0,dst=9)"));
        key.set(slot::TP_SRC, port.into());
        key
    };
    for port in [4, 5, 9, 4] {
        flows.take(&packets(&udp(port), 2, 1_000), &mut rules);
    }
    let all = "in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)";
    let again = "recirc_id(0x7)";
    let tagged = "in_port(1),packet_type(ns=0,id=0),eth_type(0x8100),vlan(vid=5),encap(eth_type(0x0800),ipv4(frag=no))";
    assert_eq!(
        dump(&flows, false, 1_000),
        [
            format!(
                "recirc_id(0),{all}, packets:7, bytes:700, used:0.000s, actions:hash(hash_l4(0)),recirc(0x7)"
            ),
            format!(
                "{again},dp_hash(0/0xff),{tagged}, packets:3, bytes:300, used:0.000s, actions:10"
            ),
            format!(
                "{again},dp_hash(0x1/0xff),{tagged}, packets:3, bytes:300, used:0.000s, actions:11"
            ),
        ]
    );
    // As many as asked for come, and no more.
    assert_eq!((flows.hits, flows.misses, flows.lost), (13, 3, 0));
    flows.revalidate(20_000, true, &mut rules);
    assert!(flows.is_empty());
}

/// Packets go round for a group, behind that for a bond, and then out; or for a group over and over.
struct Rounds {
    has_end: bool,
}

impl Host for Rounds {
    fn way(&mut self, key: &Key, onward: Option<&Onward>) -> Option<Way> {
        let mut mask = Key::default();
        for slot in [slot::RECIRC_ID, slot::IN_PORT] {
            mask.set(slot, slot.ones());
        }
        let action = match (onward, key.get_u32(slot::RECIRC_ID)) {
            (None, 0) => Action::Balance(Box::new(for_group(key))),
            (Some(_), _) if !self.has_end => Action::Balance(Box::new(for_group(key))),
            (Some(_), 4) => Action::Balance(Box::new(Balance::new(7, key, key))),
            (None, 7) => Action::Output(2),
            other => panic!("{other:?}"),
        };
        Some(Way { mask, actions: vec![action], is_flooded: false, options: Vec::new() })
    }

    fn hash(&mut self, _: &Key) -> u32 {
        9
    }
}

fn for_group(key: &Key) -> Balance {
    let frozen = flow::Frozen {
        key: Box::default(),
        stack: Vec::new(),
        set: Vec::new(),
        table: None,
        rest: Vec::new(),
        zone: None,
    };
    let hash = flow::PlaceHash { kind: flow::HashKind::Symmetric, basis: 1 };
    let (bridge, frozen) = ("br0".to_owned(), Arc::new(frozen));
    let onward = Onward { bridge, frozen, hash: Some(hash), copied: BTreeSet::new() };
    let mut balance = Balance::new(4, key, key);
    balance.onward = Some(Arc::new(onward));
    balance
}

#[test]
fn packets_go_round_as_often_as_it_takes_but_not_for_ever() {
    let (mut flows, mut host) = (Flows::default(), Rounds { has_end: true });
    flows.take(&packets(&key(ICMP), 3, 0), &mut host);
    let does = dump(&flows, false, 0);
    let ends = [
        "actions:hash(sym_l4(1)),recirc(0x4)",
        "actions:hash(hash_l4(0)),recirc(0x7)",
        "actions:2",
    ];
    assert_eq!(does.len(), 3);
    for (flow, end) in does.iter().zip(ends) {
        assert!(flow.contains("packets:2, ") && flow.ends_with(end), "{flow}");
    }
    assert!(flows.revalidate(1, true, &mut host) && flows.len() == 3);
    let (mut flows, mut host) = (Flows::default(), Rounds { has_end: false });
    flows.take(&packets(&key(ICMP), 3, 0), &mut host);
    assert_eq!((flows.len(), flows.hits), (2, 4 + 3 * 63));
}

#[test]
fn each_thread_has_flows_of_its_own() {
    let (mut flows, mut rules) = (Flows::default(), Rules { to: 2, ..Rules::default() });
    let key = key(ICMP);
    for (thread, count) in [(0, 3), (1, 2), (0, 1)] {
        flows.take(&Packets { thread, ..packets(&key, count, 5) }, &mut rules);
    }
    let told: Vec<_> = flows.iter().map(|flow| (flow.thread, flow.packets)).collect();
    assert_eq!((told, flows.misses), (vec![(0, 3), (1, 1)], 2));
    assert!(flows.way_of(&key, 1).is_some() && flows.way_of(&key, 2).is_none());
}
