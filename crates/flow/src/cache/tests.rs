use conntrack::{Request, State, Tracked};
use openflow::message::flow_mod::Command;
use openflow::text::{Names, flow_mod};
use openflow::{Action, Field, Instructions, Match, PortNo};
use proptest::prelude::*;

use super::paths::MAX_BYTES;
use super::*;
use crate::extract::LAST_LABEL;
use crate::path::Op;
use crate::pipeline::Port;
use crate::tables::{Change, Fragments};
use crate::walk::walk;

fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::default();
    for number in 1..9_u16 {
        pipeline.ports.insert(PortNo(number.into()), Port::new(number));
    }
    pipeline
}

fn rule(pipeline: &mut Pipeline, table: u8, matching: Match, actions: Vec<Action>) {
    let add = Change::add(table, matching, Instructions::apply(actions));
    pipeline.tables.change(&add, 0).unwrap();
}

fn output(port: u32) -> Action {
    Action::output(PortNo(port))
}

fn key(address: u64, source: u64) -> Key {
    let mut key = Key::default();
    key.set(slot::IN_PORT, 1);
    key.set(slot::ETH_DST, address.into());
    key.set(slot::ETH_SRC, source.into());
    key
}

fn ports(cache: &mut PathCache, key: &Key) -> Vec<u16> {
    cache.begin(0);
    let id = cache.find(key);
    cache.count(id, 1, 60);
    let to = |op: &Op| if let Op::Output(port) = op { Some(*port) } else { None };
    cache.path(id).unwrap().ops.iter().filter_map(to).collect()
}

#[test]
fn packets_share_entries_where_no_rule_tells_them_apart() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 7), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows));
    assert_eq!(cache.depth(), Depth::Link);
    for source in 0..100 {
        assert_eq!(ports(&mut cache, &key(7, source)), [2]);
        assert_eq!(ports(&mut cache, &key(source + 8, source)), [0; 0]);
    }
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits, stats.paths), (101, 99, 2));
}

#[test]
fn packets_without_ethernet_are_told_apart_once_one_has_come() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new(), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows));
    let ethernet = key(0, 0);
    assert_eq!((ports(&mut cache, &ethernet), cache.depth()), (vec![2], Depth::Link));
    let mut bare = ethernet;
    bare.set_packet_type(0x1_0800);
    cache.tell_types();
    // No port takes it.
    assert_eq!(ports(&mut cache, &bare), [0; 0]);
    assert_eq!((ports(&mut cache, &ethernet), ports(&mut cache, &bare)), (vec![2], vec![]));
    // Frames are looked at no deeper for that, and it stays so whatever rules become.
    assert_eq!(cache.depth(), Depth::Link);
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new(), vec![output(3)]);
    cache.update(Arc::new(flows), 0);
    assert_eq!((ports(&mut cache, &ethernet), ports(&mut cache, &bare)), (vec![3], vec![]));
}

#[test]
fn rules_are_told_exactly() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new(), vec![Action::resubmit_table(1), output(3)]);
    rule(&mut flows, 1, Match::new().with(Field::EthDst, 7), vec![output(2)]);
    let stats: Vec<_> = flows.tables.iter().map(|rule| Arc::clone(&rule.stats)).collect();
    let mut cache = PathCache::new(Arc::new(flows));
    assert_eq!(ports(&mut cache, &key(7, 1)), [2, 3]);
    assert_eq!(ports(&mut cache, &key(7, 1)), [2, 3]);
    assert_eq!(ports(&mut cache, &key(8, 1)), [3]);
    assert!(stats.iter().all(|stats| stats.packets() == 0));
    cache.flush(77);
    let counts: Vec<_> = stats.iter().map(|s| (s.packets(), s.bytes(), s.used())).collect();
    assert_eq!(counts, [(3, 180, 77), (2, 120, 77)]);
    cache.flush(99);
    assert_eq!((stats[0].packets(), stats[0].used()), (3, 77));
}

#[test]
fn tables_count_what_is_looked_up_in_them_whatever_becomes_of_their_rules() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new(), vec![Action::resubmit_table(1), output(3)]);
    rule(&mut flows, 1, Match::new().with(Field::EthDst, 7), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    let all = |flows: &Pipeline| [0, 1, 2, 255].map(|table| flows.tables.look_ups().of(table));
    for address in [7, 7, 8] {
        ports(&mut cache, &key(address, 1));
    }
    cache.flush(1);
    assert_eq!(all(&flows), [(3, 3), (3, 2), (0, 0), (0, 0)]);
    // Rules that are gone have counted, and bridges whose rules are forgotten count on.
    flows.tables.clear();
    cache.update(Arc::new(flows.clone()), 1);
    ports(&mut cache, &key(7, 1));
    cache.flush(2);
    assert_eq!(all(&flows), [(4, 3), (3, 2), (0, 0), (0, 0)]);
    // Another bridge's tables do not count for this one.
    ports(&mut cache, &key(7, 1));
    let other = pipeline();
    cache.update(Arc::new(other.clone()), 2);
    ports(&mut cache, &key(7, 1));
    cache.flush(3);
    assert_eq!((all(&flows)[0], all(&other)[0]), ((5, 3), (1, 0)));
}

#[test]
fn a_changed_table_takes_only_its_own_paths_along() {
    let mut flows = pipeline();
    let to = |table| vec![Action::resubmit_table(table)];
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 1), to(1));
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 2), to(2));
    rule(&mut flows, 1, Match::new(), vec![output(2)]);
    rule(&mut flows, 2, Match::new(), vec![output(3)]);
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    let both = |cache: &mut PathCache| [1, 2].map(|to| ports(cache, &key(to, 0)));
    assert_eq!(both(&mut cache), [[2], [3]]);
    rule(&mut flows, 2, Match::new(), vec![output(4)]);
    cache.update(Arc::new(flows.clone()), 0);
    assert_eq!(both(&mut cache), [[2], [4]]);
    assert_eq!((cache.stats().misses, cache.stats().hits), (3, 1));
    // One that a packet was looked up in without being found counts, too.
    assert_eq!(ports(&mut cache, &key(3, 0)), [0; 0]);
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 3), vec![output(5)]);
    cache.update(Arc::new(flows.clone()), 0);
    assert_eq!(ports(&mut cache, &key(3, 0)), [5]);
    flows.ports.remove(&PortNo(5));
    cache.update(Arc::new(flows), 0);
    assert_eq!(ports(&mut cache, &key(3, 0)), [0; 0]);
}

#[test]
fn ways_of_fragments_are_decided_anew_when_others_become_of_them() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 7), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    let key = |fragment: u128| {
        let mut key = key(7, 1);
        key.set(slot::ETH_TYPE, 0x800);
        key.set(slot::IP_FRAG, fragment);
        key
    };
    let all = |cache: &mut PathCache| [0, 1, 3].map(|fragment| ports(cache, &key(fragment)));
    assert_eq!(all(&mut cache), [[2], [2], [2]]);
    flows.tables.set_fragments(Fragments::Drop);
    cache.update(Arc::new(flows.clone()), 0);
    assert_ne!(cache.depth(), Depth::Link, "what a fragment is has to be found out");
    assert_eq!(all(&mut cache), [vec![2], vec![], vec![]]);
    flows.tables.set_fragments(Fragments::NxMatch);
    cache.update(Arc::new(flows), 0);
    assert_eq!(all(&mut cache), [[2], [2], [2]]);
}

#[test]
fn flows_stay_known_when_there_is_to_be_room_for_more() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new().with(Field::EthDst, u128::MAX), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    let all = |cache: &mut PathCache, count: u64| {
        (0..count).for_each(|address| drop(ports(cache, &key(address, 0))));
        cache.stats()
    };
    // So few for so many places that hardly any takes another's.
    let met = all(&mut cache, 64);
    assert_eq!((met.misses, met.entries), (64, 1024));
    cache.others.index.resize(2048);
    assert_eq!(all(&mut cache, 64).misses, 64);
    // What is found out anew takes no more room.
    for port in [3, 4, 5, 6, 7, 8, 3, 4] {
        rule(&mut flows, 0, Match::new(), vec![output(port)]);
        cache.update(Arc::new(flows.clone()), 0);
        assert_eq!(all(&mut cache, 64).entries, 2048);
        assert_eq!(ports(&mut cache, &key(5, 0)), [u16::try_from(port).unwrap()]);
    }
}

#[test]
fn a_million_flows_have_bounded_memory() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new().with(Field::EthDst, u128::MAX), vec![output(2)]);
    rule(&mut flows, 0, Match::new().with_masked(Field::EthSrc, 0, 1), vec![output(3)]);
    let mut cache = PathCache::new(Arc::new(flows));
    for address in 0..20_000 {
        cache.find(&key(address, 0));
    }
    let stats = cache.stats();
    assert!((16_384..=32_768).contains(&stats.entries), "{stats:?}");
    cache.others.index.resize(index::MAX_ENTRIES);
    for address in 0..5_000 {
        cache.find(&key(address << 20, 0));
    }
    let bytes = cache.others.index.bytes();
    assert!(bytes <= index::MAX_BYTES && cache.stats().entries <= index::MAX_ENTRIES);
    assert_eq!(cache.stats().paths, 1);
}

#[test]
fn paths_have_bounded_memory_and_those_that_are_taken_stay() {
    let mut flows = pipeline();
    // Each source is told to controllers in a register, and so has a path of its own.
    let part = |field| openflow::Subfield { field, offset: 0, bits: 32 };
    let source = Action::Move { source: part(Field::EthSrc), target: part(Field::Reg0) };
    let ask = Action::output(PortNo::CONTROLLER);
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 8), vec![source, ask]);
    rule(&mut flows, 0, Match::new().with(Field::EthDst, 9), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows));
    cache.ways.paths.max_weight = 100_000;
    for source in 0..2_000 {
        assert_eq!(ports(&mut cache, &key(9, 0)), [2]);
        assert_eq!(ports(&mut cache, &key(8, source)), [0; 0]);
        cache.flush(0);
    }
    assert_eq!(cache.stats().misses, 2_001, "the one that is taken always is not forgotten");
    assert!((50_000..150_000).contains(&cache.ways.paths.weight), "{}", cache.ways.paths.weight);
    assert!(cache.stats().paths < 200, "{:?}", cache.stats());
}

/// Bursts in which every packet has a way of its own, and that come faster than rules are told of them.
#[test]
fn memory_is_bounded_where_paths_come_faster_than_they_make_room() {
    let mut flows = pipeline();
    let part = |field| openflow::Subfield { field, offset: 0, bits: 32 };
    let source = Action::Move { source: part(Field::EthSrc), target: part(Field::Reg0) };
    let ask = Action::output(PortNo::CONTROLLER);
    rule(&mut flows, 0, Match::new(), vec![source, ask]);
    let told: Vec<_> = flows.tables.iter().map(|rule| Arc::clone(&rule.stats)).collect();
    let mut cache = PathCache::new(Arc::new(flows));
    cache.ways.paths.max_weight = 100_000;
    for burst in 0..200 {
        cache.begin(0);
        for packet in 0..64 {
            let id = cache.find(&key(1, burst * 64 + packet));
            cache.count(id, 1, 60);
        }
        assert!(cache.ways.paths.weight < 400_000, "burst {burst}: {}", cache.ways.paths.weight);
    }
    cache.flush(0);
    assert_eq!(told[0].packets(), 200 * 64, "those that were forgotten are counted");
}

#[test]
fn numbers_of_paths_are_given_once() {
    let mut flows = pipeline();
    rule(&mut flows, 0, Match::new(), vec![output(2)]);
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    // Two packets take each, so that it is no single one's, which would be mended.
    rule(&mut flows, 1, Match::new().with(Field::EthDst, 1), vec![]);
    let both = [1, 2].map(|address| key(address, 1));
    let mut ids = std::collections::BTreeSet::new();
    for number in 0..20_000_u32 {
        rule(&mut flows, 0, Match::new(), vec![output(number % 2 + 2)]);
        cache.update(Arc::new(flows.clone()), 0);
        cache.begin(0);
        let found = both.map(|key| cache.find(&key).0);
        assert!(found[0] == found[1] && ids.insert(found[0]));
    }
    assert_eq!((cache.stats().paths, cache.stats().misses), (1, 40_000));
    // When there are no more for a place, all begin anew.
    cache.ways.paths.wear();
    for port in [2, 3, 2, 3] {
        rule(&mut flows, 0, Match::new(), vec![output(port)]);
        cache.update(Arc::new(flows.clone()), 0);
        assert_eq!(ports(&mut cache, &key(1, 1)), [u16::try_from(port).unwrap()]);
    }
    assert!(!cache.ways.paths.is_worn() && cache.stats().paths == 1);
}

fn tracked(state: u8, mark: u32) -> Tracked {
    let state = State(state);
    Tracked { state, zone: 3, mark, label: 0, original: None, helper: None }
}

/// The tables' rules, as `ovs-ofctl` writes them.
fn rules(text: &[&str]) -> Arc<Pipeline> {
    let mut flows = pipeline();
    for rule in text {
        let rule = flow_mod(rule, Command::Add, Names::NONE).unwrap();
        let table = if rule.table == u8::MAX { 0 } else { rule.table };
        let add = Change::add(table, rule.matching, rule.instructions);
        flows.tables.change(&add.with_priority(rule.priority), 0).unwrap();
    }
    Arc::new(flows)
}

/// What a packet of IP from this station is tracked for, and where it comes back.
fn round(cache: &mut PathCache, source: u64) -> (Request, u32) {
    let mut key = key(7, source);
    key.set(slot::ETH_TYPE, 0x800);
    let id = cache.find(&key);
    let ops = &cache.path(id).unwrap().ops;
    let found = ops.iter().find_map(|op| match op {
        Op::Track(track, round) => Some((track.request, *round)),
        _ => None,
    });
    found.unwrap()
}

fn second(cache: &mut PathCache, round: u32, source: u64, known: &Tracked) -> Vec<u16> {
    let mut key = key(7, source);
    key.set(slot::ETH_TYPE, 0x800);
    key.set_connection(known);
    let id = cache.find_tracked(round, &mut key).unwrap();
    let to = |op: &Op| if let Op::Output(port) = op { Some(*port) } else { None };
    cache.path(id).unwrap().ops.iter().filter_map(to).collect()
}

/// A packet with a label from this station that was found to be of the connection from this address.
fn of_connection(source: u64, from: u8) -> Key {
    let mut key = key(7, source);
    key.set(slot::ETH_TYPE, 0x8847);
    key.set(slot::MPLS_LSE, LAST_LABEL.into());
    key.set_connection(&tracked(0x22, 0));
    key.set(slot::CT_NW_SRC, from.into());
    key
}

/// The addresses that begin the connections of which controllers are told.
fn told(cache: &mut PathCache, round: u32, from: &[u8]) -> Vec<u128> {
    let mut told = Vec::new();
    for from in from {
        let id = cache.find_tracked(round, &mut of_connection(1, *from)).unwrap();
        for op in &cache.path(id).unwrap().ops {
            match op {
                Op::Controller(about) => told.push(about.key.get(slot::CT_NW_SRC)),
                Op::Again(next, _) => told.push(next.key.get(slot::CT_NW_SRC)),
                _ => {}
            }
        }
    }
    told
}

#[test]
fn controllers_are_told_of_each_packets_own_connection() {
    for actions in [
        "controller",
        "clone(set_field:1->reg1,controller)",
        "controller(pause)",
        "decap(),decap(packet_type(ns=1,type=0x800)),2",
    ] {
        let text = format!("table=1,actions={actions}");
        let mut cache = PathCache::new(rules(&["ip,actions=ct(zone=3,table=1)", &text]));
        let (_, one) = round(&mut cache, 1);
        assert_eq!(told(&mut cache, one, &[4, 5, 4, 5, 6]), [4, 5, 4, 5, 6], "{actions}");
        // A walk for each connection, and one for what came before.
        assert_eq!((cache.stats().misses, cache.stats().hits), (4, 2), "{actions}");
    }
    // One of which is told no more what its connection is.
    let text = ["ip,actions=ct(zone=3,table=1)", "table=1,actions=ct_clear,controller"];
    let mut cache = PathCache::new(rules(&text));
    let (_, one) = round(&mut cache, 1);
    assert_eq!(told(&mut cache, one, &[4, 5, 4]), [0, 0, 0]);
    assert_eq!(cache.stats().misses, 2);
}

/// The path of a single packet is found anew where it is; by then others may have its entry.
#[test]
fn a_path_that_comes_to_tell_of_connections_is_that_of_one() {
    let base = ["ip,actions=ct(zone=3,table=1)", "table=1,priority=1,actions=output:2"];
    for early in [false, true] {
        let mut cache = PathCache::new(rules(&base));
        let change = |cache: &mut PathCache, actions: &str| {
            let mut flows = (**cache.pipeline()).clone();
            let text = format!("table=1,priority=2,actions={actions}");
            let rule = flow_mod(&text, Command::Add, Names::NONE).unwrap();
            let add = Change::add(1, rule.matching, rule.instructions).with_priority(2);
            flows.tables.change(&add, 0).unwrap();
            cache.update(Arc::new(flows), 0);
            round(cache, 1).1
        };
        // Packets are noted once rules change.
        let mut one = change(&mut cache, "output:3");
        if early {
            assert_eq!(told(&mut cache, one, &[4]), [0; 0]);
            one = change(&mut cache, "output:4");
        }
        assert_eq!(told(&mut cache, one, &[4, 5, 4]), [0; 0]);
        one = change(&mut cache, "controller");
        assert_eq!(told(&mut cache, one, &[5, 4, 5, 6]), [5, 4, 5, 6]);
        let misses = cache.stats().misses;
        assert_eq!(told(&mut cache, one, &[4, 5]), [4, 5]);
        assert_eq!(cache.stats().misses, misses);
        one = change(&mut cache, "output:5");
        assert_eq!(told(&mut cache, one, &[4, 5]), [0; 0]);
    }
}

/// What packets go on with has its weight: there is no more of it for all that is left of their rules.
#[test]
fn rounds_are_forgotten_by_what_they_hold() {
    let left = vec![output(2); 4_000];
    let begin = "actions=move:NXM_OF_ETH_SRC[0..31]->NXM_NX_REG0[],decap()";
    let mut flows = (*rules(&[begin])).clone();
    let labels = Action::Decap { packet_type: 0 };
    let first = flows.tables.iter().next().unwrap().instructions.apply.clone();
    rule(&mut flows, 0, Match::new(), [first, vec![labels], left].concat());
    let mut cache = PathCache::new(Arc::new(flows));
    let mut most = 0;
    for source in 0..1_000 {
        let mut key = key(7, source);
        key.set(slot::ETH_TYPE, 0x8847);
        key.set(slot::MPLS_LSE, 0x0000_7140);
        cache.begin(0);
        let id = cache.find(&key);
        let again = cache.path(id).unwrap().ops.iter().find_map(|op| match op {
            Op::Again(frozen, _) => Some(frozen.weight()),
            _ => None,
        });
        assert!(again.is_some_and(|weight| weight >= 4_000 * size_of::<Action>()));
        most = most.max(cache.ways.rounds.len());
    }
    let each = 4_000 * size_of::<Action>();
    assert!((100..=MAX_BYTES / each + 2).contains(&most), "{most}");
}

/// As in Open vSwitch: not in another zone, where addresses were to be translated, or where it is forced.
#[test]
fn packets_stay_what_they_are_where_they_are_tracked_again() {
    let before = |first: &str, again: &str| {
        let text = [
            format!("ip,actions=ct({first},zone=3,table=1)"),
            format!("table=1,ip,ct_state=+trk,actions=ct({again},table=2)"),
        ];
        let mut cache = PathCache::new(rules(&text.each_ref().map(String::as_str)));
        let (request, one) = round(&mut cache, 1);
        assert_eq!(request.before, None);
        let mut key = key(7, 1);
        key.set(slot::ETH_TYPE, 0x800);
        key.set_connection(&tracked(0x21, 0));
        let id = cache.find_tracked(one, &mut key).unwrap();
        let found = cache.path(id).unwrap().ops.iter().find_map(|op| match op {
            Op::Track(track, _) => Some(track.request.before),
            _ => None,
        });
        found.unwrap().map(|state| state.0)
    };
    assert_eq!(before("", "zone=3"), Some(0x21));
    assert_eq!(before("commit", "zone=3,nat"), Some(0x21));
    assert_eq!(before("", "zone=4"), None);
    assert_eq!(before("nat", "zone=3"), None);
    assert_eq!(before("", "commit,force,zone=3"), None);
}

#[test]
fn tracked_packets_go_on_with_what_they_had() {
    let text = [
        "ip,dl_src=00:00:00:00:00:01,actions=load:1->NXM_NX_REG0[],push:NXM_NX_REG0[],ct(zone=NXM_NX_REG0[0..15],table=1)",
        "ip,priority=1,actions=load:2->NXM_NX_REG0[],ct(commit,table=1,exec(move:NXM_NX_REG0[]->NXM_NX_CT_MARK[0..31]))",
        "table=1,reg0=1,ct_state=+est+trk,actions=pop:NXM_NX_REG1[],resubmit(,2)",
        "table=1,reg0=2,ct_mark=5,actions=output:3",
        "table=1,priority=1,actions=output:4",
        "table=2,reg1=1,actions=output:2",
    ];
    let mut cache = PathCache::new(rules(&text));
    let (first, one) = round(&mut cache, 1);
    assert_eq!((first.zone, first.commit, first.mark), (1, false, None));
    let (other, two) = round(&mut cache, 2);
    assert_eq!((other.zone, other.commit, other.mark), (0, true, Some((2, u32::MAX))));
    assert_eq!((one, two, round(&mut cache, 3).1), (1, 2, 2));
    assert_eq!(second(&mut cache, one, 1, &tracked(0x22, 0)), [2]);
    assert_eq!(second(&mut cache, one, 1, &tracked(0x21, 0)), [4]);
    assert_eq!(second(&mut cache, two, 2, &tracked(0x22, 5)), [3]);
    assert_eq!(second(&mut cache, two, 2, &tracked(0x22, 6)), [4]);
    let misses = cache.stats().misses;
    assert_eq!(second(&mut cache, two, 2, &tracked(0x22, 5)), [3]);
    assert_eq!((cache.stats().misses, cache.find_tracked(9, &mut Key::default())), (misses, None));
    // A rule of the second round changes; what was learnt of the first holds.
    let mut flows = (**cache.pipeline()).clone();
    let matching = Match::new().with(Field::Reg0, 2).with(Field::CtMark, 5);
    rule(&mut flows, 1, matching, vec![output(5)]);
    cache.update(Arc::new(flows), 0);
    assert_eq!(second(&mut cache, two, 2, &tracked(0x22, 5)), [5]);
    assert_eq!(round(&mut cache, 2).1, two);
}

proptest! {
    #[test]
    fn a_cached_way_is_the_way(
        rules in prop::collection::vec((0..3_u8, 0..3_u64, 0..4_u64, 1..9_u32, 0..4_u8), 0..12),
        packets in prop::collection::vec((0..4_u64, 0..4_u64), 0..60),
        changes in 0..10_usize,
    ) {
        let mut flows = pipeline();
        let mut cache = PathCache::new(Arc::new(flows.clone()));
        let mut rules = rules.into_iter();
        for (index, (to, from)) in packets.into_iter().enumerate() {
            if index % (changes + 1) == 0 && let Some((table, to, mask, port, next)) = rules.next() {
                let matching = Match::new().with_masked(Field::EthDst, to.into(), mask.into());
                let mut actions = vec![output(port)];
                if next > table {
                    actions.push(Action::resubmit_table(next));
                }
                rule(&mut flows, table, matching, actions);
                cache.update(Arc::new(flows.clone()), 0);
            }
            let key = key(to, from);
            let path = walk(&flows, &mut key.clone(), &Start::Table, None);
            cache.begin(0);
            let id = cache.find(&key);
            prop_assert!(cache.path(id) == Some(&path));
        }
    }
}
