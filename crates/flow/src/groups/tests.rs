use std::collections::BTreeMap;

use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{
    ALL_BUCKETS, ALL_GROUPS, FIRST_BUCKET, GroupCommand, GroupMod, LAST_BUCKET,
};
use openflow::{Field, Instructions, Match};
use proptest::prelude::*;

use super::*;
use crate::key::slot;
use crate::rule::Ended;
use crate::tables::{Change, Refusal, Tables};

fn bucket(id: u32, weight: u16, actions: Vec<Action>) -> Desc {
    Desc { id, weight, watch_port: PortNo::ANY, watch_group: ANY_GROUP, actions }
}

fn output(port: u32) -> Vec<Action> {
    vec![Action::output(PortNo(port))]
}

fn change(command: GroupCommand, group: u32, buckets: Vec<Desc>) -> GroupMod {
    let (kind, bucket) = (GroupType::All, ALL_BUCKETS);
    GroupMod { command, kind, group, bucket, buckets, selection: None }
}

fn add(group: u32, buckets: Vec<Desc>) -> GroupMod {
    change(GroupCommand::Add, group, buckets)
}

fn sends_to(groups: &[u32]) -> Instructions {
    Instructions::apply(groups.iter().map(|group| Action::Group(*group)).collect())
}

fn ids(tables: &Tables, group: u32) -> Vec<u32> {
    tables.groups().get(group).unwrap().buckets.iter().map(|bucket| bucket.desc.id).collect()
}

#[test]
fn rules_send_to_groups_that_are_there_and_go_with_them() {
    let mut tables = Tables::default();
    let rule = Change::add(1, Match::new(), sends_to(&[5, 6]));
    assert_eq!(tables.change(&rule, 0).unwrap_err(), Refusal::NoGroup(5));
    for group in [5, 6, 7] {
        tables.change_group(&add(group, vec![bucket(0, 0, output(1))]), 0).unwrap();
    }
    tables.change(&rule, 0).unwrap();
    let nested = Instructions::apply(vec![Action::Clone(vec![Action::Group(6)])]);
    let other = Change::add(2, Match::new().with(Field::InPort, 1), nested);
    tables.change(&other, 0).unwrap();
    assert_eq!([5, 6, 7].map(|group| tables.group_uses(group)), [1, 2, 0]);
    // A rule in the place of another has its own.
    tables.change(&Change::add(1, Match::new(), sends_to(&[5, 5])), 0).unwrap();
    assert_eq!([5, 6, 7].map(|group| tables.group_uses(group)), [2, 1, 0]);
    let before = tables.clone();
    let gone = tables.change_group(&change(GroupCommand::Delete, 5, Vec::new()), 0).unwrap();
    let gone: Vec<(u8, Ended)> =
        gone.removed.iter().map(|(rule, why)| (rule.table, *why)).collect();
    assert_eq!(gone, [(1, Ended::GroupDeleted)]);
    assert_eq!((tables.len(), tables.groups().len(), tables.group_uses(5)), (1, 2, 0));
    let all = change(GroupCommand::Delete, ALL_GROUPS, Vec::new());
    assert_eq!(tables.change_group(&all, 0).unwrap().removed.len(), 1);
    assert!(tables.is_empty() && tables.groups().is_empty());
    assert_eq!((before.len(), before.groups().len(), before.group_uses(5)), (2, 3, 2));
}

#[test]
fn what_cannot_be_is_refused_as_by_open_vswitch() {
    let mut tables = Tables::default();
    let one = vec![bucket(3, 0, output(1))];
    let mut refused = |mut wanted: GroupMod, at| {
        wanted.bucket = at;
        tables.change_group(&wanted, 0).err()
    };
    let all = ALL_BUCKETS;
    assert_eq!(refused(add(1, one.clone()), all), None);
    assert_eq!(refused(add(1, one.clone()), all), Some(GroupRefusal::Exists(1)));
    assert_eq!(refused(add(0xFFFF_FF01, one.clone()), all), Some(GroupRefusal::BadNumber));
    let modify = change(GroupCommand::Modify, 2, one.clone());
    assert_eq!(refused(modify, all), Some(GroupRefusal::Unknown(2)));
    let may_add = change(GroupCommand::AddOrModify, 2, one.clone());
    assert_eq!((refused(may_add.clone(), all), refused(may_add, all)), (None, None));
    let insert = change(GroupCommand::InsertBucket, 2, one);
    assert_eq!(refused(insert.clone(), 9), Some(GroupRefusal::UnknownBucket(9)));
    assert_eq!(refused(insert, LAST_BUCKET), Some(GroupRefusal::BucketExists));
    let remove = change(GroupCommand::RemoveBucket, 2, Vec::new());
    assert_eq!(refused(remove.clone(), 9), Some(GroupRefusal::UnknownBucket(9)));
    assert_eq!(
        [3, FIRST_BUCKET, LAST_BUCKET, all].map(|at| refused(remove.clone(), at)),
        [None; 4]
    );
    let many = (0..1_025).map(|id| bucket(id, 0, Vec::new())).collect();
    assert_eq!(refused(add(3, many), all), Some(GroupRefusal::TooManyBuckets));
    let large = vec![bucket(0, 0, vec![Action::Note(vec![0; 61_000])])];
    assert_eq!(refused(add(3, large), all), Some(GroupRefusal::TooManyBuckets));
    let nat = openflow::action::Nat {
        kind: openflow::action::NatKind::Existing,
        flags: 0,
        addresses: None,
        ports: None,
    };
    let nat = Box::new(nat);
    let impossible = vec![bucket(0, 0, vec![Action::Nat(nat)])];
    let why = Some(GroupRefusal::Action(Refusal::Action("nat")));
    assert_eq!(refused(add(3, impossible), all), why);
}

#[test]
fn memory_has_a_bound() {
    let mut tables = Tables::default();
    let large = vec![bucket(0, 0, vec![Action::Note(vec![0; 56_000])])];
    let full =
        (0..2_000).find_map(|group| tables.change_group(&add(group, large.clone()), 0).err());
    assert_eq!(full, Some(GroupRefusal::Full));
    let count = tables.groups().len();
    assert!((1_000..1_300).contains(&count), "{count}");
    // One may still be changed into one that is no larger, and there is room where one was.
    tables.change_group(&change(GroupCommand::Modify, 7, large.clone()), 0).unwrap();
    tables.change_group(&change(GroupCommand::Delete, 9, Vec::new()), 0).unwrap();
    tables.change_group(&add(9_999, large), 0).unwrap();
}

#[test]
fn buckets_that_stay_go_on_counting() {
    let mut tables = Tables::default();
    tables
        .change_group(&add(1, vec![bucket(1, 0, output(1)), bucket(2, 0, output(2))]), 5)
        .unwrap();
    let group = Arc::clone(tables.groups().get(1).unwrap());
    group.stats.add(3, 30, 0);
    group.buckets[1].stats.add(3, 30, 0);
    let mut remove = change(GroupCommand::RemoveBucket, 1, Vec::new());
    remove.bucket = 1;
    tables.change_group(&remove, 9).unwrap();
    let group = tables.groups().get(1).unwrap();
    let counts = (group.stats.packets(), group.buckets[0].stats.packets(), group.created);
    assert_eq!(counts, (0, 3, 5));
    tables
        .change_group(&change(GroupCommand::Modify, 1, vec![bucket(2, 0, output(2))]), 9)
        .unwrap();
    assert_eq!(tables.groups().get(1).unwrap().buckets[0].stats.packets(), 0);
}

#[test]
fn a_changed_group_is_told_from_others() {
    let mut tables = Tables::default();
    (1..4).for_each(|id| drop(tables.change_group(&add(id, Vec::new()), 0)));
    let before = tables.clone();
    let touches = |tables: &Tables, id| {
        let mut set = TableSet::default();
        mark(&mut set, id);
        set.meets(&tables.groups().changed(before.groups()))
    };
    assert!(!touches(&tables, 2));
    tables.change_group(&change(GroupCommand::Delete, 2, Vec::new()), 0).unwrap();
    assert_eq!([1, 2, 3, 258].map(|id| touches(&tables, id)), [false, true, false, true]);
    assert_ne!(before.version(), tables.version());
}

fn select(buckets: &[(u32, u16)], selection: Option<Selection>) -> Group {
    let buckets = buckets.iter().map(|(id, weight)| bucket(*id, *weight, output(*id)));
    let buckets = buckets.map(|desc| Bucket::new(desc, 0)).collect();
    Group::new((1, GroupType::Select), selection, buckets, 0)
}

fn method(name: &str, fields: Vec<(Field, u128)>) -> Option<Selection> {
    Some(Selection { method: name.to_owned(), parameter: 0, fields })
}

fn tcp(source: u32, target: u32, port: u16) -> Key {
    let mut key = Key::default();
    for (slot, value) in [
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 6),
        (slot::IPV4_SRC, source),
        (slot::IPV4_DST, target),
        (slot::TP_SRC, port.into()),
        (slot::TP_DST, 80),
    ] {
        key.set(slot, value.into());
    }
    key
}

fn pick(group: &Group, key: &Key, dead: &[u32]) -> Option<u32> {
    let is_alive = |bucket: &Bucket| bucket.desc.weight > 0 && !dead.contains(&bucket.desc.id);
    group.method.pick(&group.buckets, key, is_alive).map(|bucket| bucket.desc.id)
}

#[test]
fn buckets_are_selected_as_often_as_they_weigh() {
    let weights = [(0, 5), (1, 10), (2, 25), (3, 60), (4, 0)];
    let methods = [
        None,
        method("dp_hash", Vec::new()),
        method("hash", Vec::new()),
        method("hash", vec![(Field::IpSrc, 0xFFFF_FFFF), (Field::TcpSrc, 0xFFFF)]),
    ];
    for (index, method) in methods.into_iter().enumerate() {
        let group = select(&weights, method);
        let mut counts = BTreeMap::<u32, u32>::new();
        for port in 0..10_000_u16 {
            let key = tcp(0x0A00_0000 | u32::from(port) << 3, 7, port.wrapping_mul(17));
            *counts.entry(pick(&group, &key, &[]).unwrap()).or_default() += 1;
        }
        // Scores are no shares: there it only is that more weight is more often.
        let least: [u32; 4] = if index < 2 { [400, 800, 2_200, 5_500] } else { [1, 1, 500, 4_500] };
        for (id, least) in (0..).zip(least) {
            assert!(counts[&id] >= least, "{index}: {counts:?}");
        }
        assert!(!counts.contains_key(&4));
    }
}

#[test]
fn a_connection_takes_one_bucket_both_ways_and_another_only_if_that_is_dead() {
    let group = select(&[(0, 1), (1, 1), (2, 1)], None);
    for port in 0..500_u16 {
        let there = tcp(1, 2, port);
        let mut back = tcp(2, 1, 80);
        back.set(slot::TP_DST, port.into());
        let first = pick(&group, &there, &[]).unwrap();
        assert_eq!(pick(&group, &back, &[]), Some(first));
        for dead in 0..3 {
            let then = pick(&group, &there, &[dead]).unwrap();
            assert_eq!(then == first, dead != first);
        }
        assert_eq!(pick(&group, &there, &[0, 1, 2]), None);
    }
}

#[test]
fn places_are_shared_out_by_weights() {
    // As Open vSwitch shares them out.
    let hits = |weights: &[u16]| {
        let weights: Vec<(u32, u16)> = (0..).zip(weights.iter().copied()).collect();
        let Method::Places { places, .. } = select(&weights, None).method else {
            return Vec::new();
        };
        let count = |id: usize| places.iter().filter(|place| usize::from(**place) == id).count();
        (0..weights.len()).map(count).collect()
    };
    assert_eq!(hits(&[1, 1]), [8, 8]);
    assert_eq!(hits(&[5, 10, 25, 60, 0]), [2, 3, 8, 19, 0]);
    assert_eq!(hits(&[1, 1000]), [0; 0]);
    assert_eq!(hits(&[0, 0]), [0; 0]);
    assert_eq!(hits(&[]), [0; 0]);
}

#[test]
fn how_buckets_are_selected_is_told_as_by_open_vswitch() {
    let last = |group: Group| group.explain().pop().unwrap();
    let group = select(&[(0, 5), (1, 10), (2, 25), (3, 60), (4, 0)], None);
    let lines = group.explain();
    assert_eq!(lines[1], "  Minimum weight: 5, total weight: 100");
    assert_eq!(lines[3], "  Bucket 0: weight=5, target=1.60 hits=2");
    assert_eq!(lines[6], "  Bucket 3: weight=60, target=19.20 hits=19");
    assert_eq!(lines[8], "Use dp_hash with 32 hash values using algorithm 1.");
    let two = [(0, 1), (1, 1_000)];
    let lines = select(&two, method("dp_hash", Vec::new())).explain();
    assert_eq!(lines[2], "  Too many hash values required: 1024");
    assert_eq!(lines[3], "Falling back to default hash method.");
    let legacy = last(select(&two, method("hash", Vec::new())));
    assert_eq!(legacy, "No hash fields. Falling back to default hash method.");
    assert_eq!(last(select(&two, method("hash", vec![(Field::IpSrc, 1)]))), "Hash fields: ip_src");
}

proptest! {
    /// Against lists: which buckets a group has, and which groups rules use.
    #[test]
    fn groups_are_what_a_model_says(
        steps in prop::collection::vec((0..6_u8, 0..4_u32, 0..8_u32, 0..3_u32), 0..60),
    ) {
        let mut tables = Tables::default();
        let mut model = BTreeMap::<u32, Vec<u32>>::new();
        let mut rules = BTreeMap::<u32, u32>::new();
        for (step, group, id, extra) in steps {
            let new: Vec<u32> = (id..id + extra).collect();
            let descs: Vec<Desc> = new.iter().map(|id| bucket(*id, 0, output(1))).collect();
            let known = model.get(&group).cloned();
            match step {
                0 => {
                    let done = tables.change_group(&add(group, descs), 0).is_ok();
                    prop_assert_eq!(done, known.is_none());
                    model.entry(group).or_insert(new);
                }
                1 => {
                    let done = tables.change_group(&change(GroupCommand::Modify, group, descs), 0);
                    prop_assert_eq!(done.is_ok(), known.is_some());
                    model.entry(group).and_modify(|buckets| *buckets = new);
                }
                2 => {
                    tables.change_group(&change(GroupCommand::Delete, group, vec![]), 0).unwrap();
                    model.remove(&group);
                    rules.retain(|_, to| *to != group);
                }
                3 => {
                    let mut insert = change(GroupCommand::InsertBucket, group, descs);
                    insert.bucket = id;
                    let done = tables.change_group(&insert, 0).is_ok();
                    let before = known.unwrap_or_default();
                    let at = before.iter().position(|other| *other == id);
                    prop_assert_eq!(done, at.is_some() && new.is_empty());
                    insert.bucket = FIRST_BUCKET;
                    let done = tables.change_group(&insert, 0).is_ok();
                    let is_free = new.iter().all(|id| !before.contains(id));
                    prop_assert_eq!(done, model.contains_key(&group) && is_free);
                    if done {
                        model.insert(group, new.into_iter().chain(before).collect());
                    }
                }
                4 => {
                    let mut remove = change(GroupCommand::RemoveBucket, group, vec![]);
                    remove.bucket = id;
                    let at = known.as_ref().and_then(|all| all.iter().position(|own| *own == id));
                    prop_assert_eq!(tables.change_group(&remove, 0).is_ok(), at.is_some());
                    if let (Some(at), Some(buckets)) = (at, model.get_mut(&group)) {
                        buckets.remove(at);
                    }
                }
                _ => {
                    let matching = Match::new().with(Field::EthDst, id.into());
                    let done = tables.change(&Change::add(0, matching, sends_to(&[group])), 0);
                    prop_assert_eq!(done.is_ok(), known.is_some());
                    if done.is_ok() {
                        rules.insert(id, group);
                    }
                }
            }
            let all: Vec<u32> = tables.groups().all().iter().map(|group| group.id).collect();
            prop_assert_eq!(all, model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(tables.groups().len(), model.len());
            for (group, buckets) in &model {
                prop_assert_eq!(&ids(&tables, *group), buckets);
                let uses = rules.values().filter(|to| *to == group).count();
                prop_assert_eq!(tables.group_uses(*group) as usize, uses);
            }
            prop_assert_eq!(tables.len(), rules.len());
        }
        tables.change_group(&change(GroupCommand::Delete, ALL_GROUPS, vec![]), 0).unwrap();
        prop_assert!(tables.is_empty() && tables.groups().is_empty() && !tables.groups().has_watches());
        prop_assert_eq!(tables.groups().bytes, 0);
    }
}
