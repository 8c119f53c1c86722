use std::sync::Arc;

use openflow::message::group::{ALL_BUCKETS, Bucket as Desc, GroupCommand, GroupMod};
use openflow::{Action, Field, Instructions, Match};
use proptest::prelude::*;

use super::*;
use crate::cache::PathCache;
use crate::frozen::Frozen;
use crate::groups::PlaceHash;
use crate::key::{Key, slot};
use crate::path::{Edit, Lost, Path};
use crate::pipeline::{Pipeline, Port};
use crate::rule::Stats;
use crate::tables::Change;
use crate::walk::{Start, Watch, walk};

fn bucket(id: u32, actions: Vec<Action>) -> Desc {
    Desc { id, weight: 1, watch_port: PortNo::ANY, watch_group: ANY_GROUP, actions }
}

fn output(port: u32) -> Action {
    Action::output(PortNo(port))
}

fn set_source(value: u128) -> Action {
    Action::SetField { field: Field::EthSrc, value, mask: Field::EthSrc.full_mask() }
}

/// Puts a group in place.
fn put(pipeline: &mut Pipeline, group: u32, kind: GroupType, buckets: Vec<Desc>) {
    let (command, bucket) = (GroupCommand::AddOrModify, ALL_BUCKETS);
    let change = GroupMod { command, kind, group, bucket, buckets, selection: None };
    pipeline.tables.change_group(&change, 0).unwrap();
}

/// Ports 1 to 8, and these groups with their buckets.
fn pipeline(groups: &[(u32, GroupType, Vec<Vec<Action>>)]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for number in 1..9_u16 {
        pipeline.ports.insert(PortNo(number.into()), Port::new(number));
    }
    for (id, kind, buckets) in groups {
        let buckets = (0..).zip(buckets).map(|(id, actions)| bucket(id, actions.clone()));
        put(&mut pipeline, *id, *kind, buckets.collect());
    }
    pipeline
}

fn rule(pipeline: &mut Pipeline, table: u8, actions: Vec<Action>) {
    let add = Change::add(table, Match::new(), Instructions::apply(actions));
    pipeline.tables.change(&add, 0).unwrap();
}

fn key() -> Key {
    let mut key = Key::default();
    key.set(slot::IN_PORT, 1);
    key
}

fn path(pipeline: &Pipeline) -> Path {
    walk(pipeline, &mut key(), &Start::Table, None)
}

fn is_edit(op: &Op) -> bool {
    matches!(op, Op::Edit(Edit::Set { .. }))
}

#[test]
fn each_bucket_has_the_packet_as_it_came() {
    // A bucket is a set: what sends the packet comes last, whatever was written last.
    let changed = vec![output(2), set_source(7)];
    let both = (9, GroupType::All, vec![changed, vec![output(3)], vec![set_source(8)]]);
    let mut pipeline = pipeline(&[both]);
    rule(&mut pipeline, 0, vec![Action::Group(9), output(4)]);
    let path = path(&pipeline);
    let [Op::Save, edit, Op::Output(2), Op::Restore, Op::Output(3), Op::Output(4)] = &*path.ops
    else {
        panic!("{:?}", path.ops);
    };
    assert!(is_edit(edit) && !path.is_simple);
    // The rule, three buckets, and the group.
    assert_eq!((path.stats().count(), path.lost), (5, None));
}

#[test]
fn what_only_goes_out_has_no_copies_and_what_was_changed_before_is_for_all() {
    let all = (9, GroupType::All, vec![vec![output(2)], vec![output(3)]]);
    let mut pipeline = pipeline(&[all]);
    rule(&mut pipeline, 0, vec![Action::Group(9)]);
    let plain = path(&pipeline);
    assert!(plain.is_simple && *plain.ops == [Op::Output(2), Op::Output(3)]);
    rule(&mut pipeline, 0, vec![set_source(7), Action::Group(9)]);
    let changed = path(&pipeline);
    let [edit, Op::Output(2), Op::Output(3)] = &*changed.ops else { panic!("{:?}", changed.ops) };
    assert!(is_edit(edit));
}

#[test]
fn a_group_leads_to_others_and_to_tables() {
    let mut pipeline = pipeline(&[
        (2, GroupType::Indirect, vec![vec![output(2)]]),
        (
            1,
            GroupType::All,
            vec![
                vec![Action::Group(2), set_source(7)],
                vec![Action::Group(8)],
                vec![Action::resubmit_table(3)],
            ],
        ),
    ]);
    rule(&mut pipeline, 0, vec![Action::Group(1), output(5)]);
    rule(&mut pipeline, 3, vec![output(4), Action::Exit]);
    let path = path(&pipeline);
    let [Op::Save, edit, Op::Output(2), Op::Restore, Op::Output(4), Op::Output(5)] = &*path.ops
    else {
        panic!("{:?}", path.ops);
    };
    assert!(is_edit(edit));
}

#[test]
fn loops_and_floods_of_groups_are_dropped() {
    let mut looped = pipeline(&[(1, GroupType::All, vec![vec![Action::Group(1)]])]);
    rule(&mut looped, 0, vec![output(2), Action::Group(1)]);
    assert_eq!(path(&looped).lost, Some(Lost::TooDeep));
    // Sixty groups, each of which sends ten times to the next: none of them sends anything out.
    let groups = (0..60_u32).map(|id| {
        let next = if id < 59 { vec![Action::Group(id + 1)] } else { vec![output(99)] };
        (id, GroupType::All, vec![next; 10])
    });
    let mut flood = pipeline(&groups.collect::<Vec<_>>());
    rule(&mut flood, 0, vec![Action::Group(0)]);
    assert_eq!((path(&flood).lost, path(&flood).ops.len()), (Some(Lost::TooMany), 0));
    // The same with groups that are asked whether they are alive.
    for id in 0..60 {
        let watch = |place| Desc { watch_group: id + 1, ..bucket(place, vec![output(2)]) };
        put(&mut flood, id, GroupType::FastFailover, (0..10).map(watch).collect());
    }
    put(&mut flood, 60, GroupType::FastFailover, Vec::new());
    assert_eq!(path(&flood).lost, Some(Lost::Dropped));
}

/// As in Open vSwitch, which counts when it is through with all buckets.
#[test]
fn buckets_behind_one_in_which_a_packet_is_lost_count_it() {
    let buckets = vec![vec![Action::Group(1)], vec![output(2)]];
    let mut looped = pipeline(&[(1, GroupType::All, buckets)]);
    rule(&mut looped, 0, vec![Action::Group(1)]);
    let path = path(&looped);
    assert_eq!((path.lost, path.ops.len()), (Some(Lost::TooDeep), 0));
    let group = looped.tables.groups().get(1).unwrap();
    let times = |stats: &Arc<Stats>| path.stats().filter(|of| Arc::ptr_eq(of, stats)).count();
    let [first, second] = &*group.buckets else { panic!() };
    assert_eq!(times(&first.stats), times(&second.stats));
    assert!(times(&second.stats) > 1);
}

/// As in Open vSwitch: what a bucket's own packet is lost by matters to no other.
#[test]
fn a_packet_that_is_lost_for_what_it_is_in_a_bucket_goes_on_behind_the_group() {
    let encap = openflow::action::Encap { packet_type: 0, header_size: 0, properties: vec![] };
    let lost = vec![Action::Encap(Box::new(encap)), output(2)];
    let label = vec![Action::PushMpls { ethertype: 0x8847 }; 4];
    for bucket in [lost, label] {
        let (lone, all) = (vec![bucket.clone()], vec![bucket.clone(), vec![output(3)]]);
        let mut pipeline = pipeline(&[(1, GroupType::Indirect, lone), (2, GroupType::All, all)]);
        rule(&mut pipeline, 0, vec![Action::Group(1), Action::Group(2), output(4)]);
        let path = path(&pipeline);
        assert_eq!(path.lost, None);
        let sent = path.ops.iter().filter(|op| matches!(op, Op::Output(_)));
        assert_eq!(sent.collect::<Vec<_>>(), [&Op::Output(3), &Op::Output(4)]);
        // No bucket is around it.
        rule(&mut pipeline, 0, [bucket, vec![output(4)]].concat());
        assert!(self::path(&pipeline).lost.is_some());
    }
}

/// What OVN's load balancers do.
#[test]
fn a_bucket_may_end_with_tracking() {
    let text = "set_field:7->reg1,ct(commit,table=1,zone=5,nat(dst=10.0.0.1:80))";
    let actions = openflow::text::instructions(text, openflow::text::Names::NONE).unwrap().apply;
    let mut tracked = pipeline(&[(1, GroupType::All, vec![actions])]);
    rule(&mut tracked, 0, vec![Action::Group(1), output(2)]);
    let path = path(&tracked);
    assert!(matches!(&*path.ops, [Op::Track(..), Op::Output(2)]), "{:?}", path.ops);
}

#[test]
fn the_first_bucket_that_is_alive_is_taken() {
    let watching = |id: u32| Desc { watch_port: PortNo(id), ..bucket(id, vec![output(id)]) };
    let mut pipeline = pipeline(&[]);
    put(&mut pipeline, 1, GroupType::FastFailover, vec![watching(2), watching(3)]);
    let chained = Desc { watch_group: 1, ..bucket(0, vec![Action::Group(1)]) };
    put(&mut pipeline, 2, GroupType::FastFailover, vec![chained, watching(4)]);
    rule(&mut pipeline, 0, vec![Action::Group(2)]);
    let mut cache = PathCache::new(Arc::new(pipeline.clone()));
    let mut goes = |pipeline: &Pipeline| {
        cache.update(Arc::new(pipeline.clone()), 0);
        let id = cache.find(&key());
        assert!(cache.path(id) == Some(&path(pipeline)));
        cache.path(id).unwrap().ops.to_vec()
    };
    assert_eq!(goes(&pipeline), [Op::Output(2)]);
    let mut set_dead = |port, is_dead| {
        pipeline.ports.get_mut(&PortNo(port)).unwrap().is_dead = is_dead;
        goes(&pipeline)
    };
    assert_eq!(set_dead(2, true), [Op::Output(3)]);
    assert_eq!(set_dead(3, true), [Op::Output(4)]);
    assert_eq!(set_dead(4, true), []);
    assert_eq!(set_dead(2, false), [Op::Output(2)]);
    // A port that is not there is not alive.
    pipeline.ports.remove(&PortNo(2));
    assert_eq!(goes(&pipeline), []);
}

#[test]
fn only_what_has_come_to_a_group_is_found_anew_when_that_changes() {
    let mut pipeline = pipeline(&[
        (1, GroupType::All, vec![vec![output(2)]]),
        (2, GroupType::All, vec![vec![output(3)]]),
    ]);
    let watching = Desc { watch_port: PortNo(5), ..bucket(0, vec![output(5)]) };
    put(&mut pipeline, 3, GroupType::FastFailover, vec![watching]);
    for group in 1..4 {
        let matching = Match::new().with(Field::EthDst, group.into());
        let add = Change::add(0, matching, Instructions::apply(vec![Action::Group(group)]));
        pipeline.tables.change(&add, 0).unwrap();
    }
    let mut cache = PathCache::new(Arc::new(pipeline.clone()));
    let mut misses = |pipeline: &Pipeline| {
        cache.update(Arc::new(pipeline.clone()), 0);
        let before = cache.stats().misses;
        for group in 1..4 {
            let mut key = key();
            key.set(slot::ETH_DST, group);
            cache.begin(0);
            cache.find(&key);
        }
        cache.stats().misses - before
    };
    assert_eq!((misses(&pipeline), misses(&pipeline)), (3, 0));
    put(&mut pipeline, 2, GroupType::All, vec![bucket(0, vec![output(4)])]);
    assert_eq!(misses(&pipeline), 1);
    pipeline.ports.get_mut(&PortNo(8)).unwrap().is_dead = true;
    assert_eq!(misses(&pipeline), 1);
}

#[test]
fn packets_that_a_select_group_tells_apart_share_no_entry() {
    let buckets = (2..6).map(|port| vec![output(port)]).collect();
    let mut pipeline = pipeline(&[(1, GroupType::Select, buckets)]);
    rule(&mut pipeline, 0, vec![Action::Group(1)]);
    let group = Arc::clone(pipeline.tables.groups().get(1).unwrap());
    let mut cache = PathCache::new(Arc::new(pipeline.clone()));
    let mut sent = [0_u64; 6];
    for source in 0..200 {
        let mut key = key();
        key.set(slot::ETH_SRC, source);
        cache.begin(0);
        let id = cache.find(&key);
        cache.count(id, 2, 120);
        let Some([Op::Output(port)]) = cache.path(id).map(|path| &*path.ops) else { panic!() };
        sent[usize::from(*port)] += 2;
        assert!(cache.path(id) == Some(&walk(&pipeline, &mut key, &Start::Table, None)));
    }
    cache.flush(5);
    let counts: Vec<u64> = group.buckets.iter().map(|bucket| bucket.stats.packets()).collect();
    assert_eq!((&counts[..], group.stats.packets()), (&sent[2..], 400));
    assert!(sent[2..].iter().all(|sent| *sent > 40), "{sent:?}");
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let one = prop_oneof![
        (1..9_u32).prop_map(output),
        (0..4_u32).prop_map(Action::Group),
        (0..3_u8).prop_map(Action::resubmit_table),
        (0..9_u128).prop_map(set_source),
        Just(Action::Exit),
        Just(output(PortNo::TABLE.0)),
    ];
    prop::collection::vec(one, 0..4)
}

proptest! {
    /// Whatever groups and rules there are, a walk ends, and its copies are in pairs.
    #[test]
    fn walks_end(
        groups in prop::collection::vec(prop::collection::vec(actions(), 0..4), 4),
        kinds in prop::collection::vec(0..3_usize, 4),
        rules in prop::collection::vec(actions(), 3),
    ) {
        let kinds = kinds.into_iter().map(|kind| {
            [GroupType::All, GroupType::Select, GroupType::FastFailover][kind]
        });
        let groups = (0..).zip(kinds).zip(groups).map(|((id, kind), buckets)| (id, kind, buckets));
        let mut pipeline = pipeline(&groups.collect::<Vec<_>>());
        for (table, actions) in (0..).zip(rules) {
            rule(&mut pipeline, table, actions);
        }
        let path = path(&pipeline);
        let mut depth = 0_i32;
        for op in &path.ops {
            depth += i32::from(*op == Op::Save) - i32::from(*op == Op::Restore);
            prop_assert!(depth >= 0);
        }
    }
}

/// Has packets stop before buckets of select groups; what they go on with.
#[derive(Debug, Default)]
struct Stops(Vec<Frozen>);

impl Watch for Stops {
    fn choose(&mut self, _: &Key, choice: Choice<'_>) -> bool {
        matches!(choice, Choice::Place(_, 16))
    }

    fn round(&mut self, _: &Key, hash: Option<PlaceHash>, next: Frozen) {
        assert!(hash.is_some());
        self.0.push(next);
    }
}

#[test]
fn whoever_follows_a_packet_can_have_it_stop_before_a_bucket() {
    let mut pipeline = pipeline(&[(9, GroupType::Select, vec![vec![output(2)], vec![output(2)]])]);
    let copy = Action::Clone(vec![Action::Group(9)]);
    rule(&mut pipeline, 0, vec![copy, output(4), Action::Group(9), output(5)]);
    let mut stops = Stops::default();
    let way = walk(&pipeline, &mut key(), &Start::Table, Some(&mut stops));
    assert_eq!(&*way.ops, [Op::Output(4)]);
    // Each goes on where it stopped, with the hash that it comes with.
    let ways = stops.0.iter().map(|frozen| {
        let mut key = key();
        key.set(slot::DP_HASH, 5);
        let way = walk(&pipeline, &mut key, &Start::Frozen(frozen), None);
        assert_eq!(key.get(slot::DP_HASH), 5);
        way.ops.to_vec()
    });
    assert_eq!(ways.collect::<Vec<_>>(), [vec![Op::Output(2)], vec![Op::Output(2), Op::Output(5)]]);
    let all = [Op::Output(2), Op::Output(4), Op::Output(2), Op::Output(5)];
    assert_eq!(&*path(&pipeline).ops, all);
}

/// As in Open vSwitch: a bucket that sends a packet to a table has its rules speak for themselves.
#[test]
fn what_rules_behind_a_bucket_tell_controllers_is_no_bucket_s() {
    use openflow::packet_in::Reason;

    let buckets = vec![vec![Action::output(PortNo::CONTROLLER)], vec![Action::resubmit_table(1)]];
    let mut both = pipeline(&[(1, GroupType::All, buckets)]);
    rule(&mut both, 0, vec![Action::Group(1)]);
    rule(&mut both, 1, vec![Action::output(PortNo::CONTROLLER)]);
    let path = path(&both);
    let reasons = path.ops.iter().filter_map(|op| match op {
        Op::Controller(about) => Some(about.reason),
        _ => None,
    });
    assert_eq!(reasons.collect::<Vec<_>>(), [Reason::GROUP, Reason::ACTION]);
}

/// The header that a bucket puts on counts where a table that it leads to asks how long the packet is.
#[test]
fn a_header_that_a_bucket_puts_on_counts_in_lengths() {
    let encap =
        openflow::action::Encap { packet_type: 0x1_894F, header_size: 0, properties: vec![] };
    let actions = vec![Action::Encap(Box::new(encap)), Action::resubmit_table(1)];
    let mut pipeline = pipeline(&[(1, GroupType::All, vec![actions])]);
    let bit = openflow::Subfield { field: Field::Reg0, offset: 0, bits: 1 };
    rule(&mut pipeline, 0, vec![Action::Group(1)]);
    let check = Action::CheckPktLarger { len: 1_500, target: bit };
    rule(&mut pipeline, 1, vec![check, Action::resubmit_table(2)]);
    for (port, bit) in [(2, 1), (3, 0)] {
        let matching = Match::new().with_masked(Field::Reg0, bit, 1);
        let add = Change::add(2, matching, Instructions::apply(vec![output(port)]));
        pipeline.tables.change(&add, 0).unwrap();
        pipeline.ports.get_mut(&PortNo(port)).unwrap().takes_bare = true;
    }
    let mut cache = PathCache::new(Arc::new(pipeline));
    let mut sent = |len: usize| {
        let mut key = key();
        cache.begin(0);
        cache.note_len(&mut key, || len);
        let id = cache.find(&key);
        let ops = &cache.path(id).unwrap().ops;
        ops.iter().find_map(|op| if let Op::Output(port) = op { Some(*port) } else { None })
    };
    assert_eq!((sent(1_500 - 24), sent(1_500 - 23)), (Some(3), Some(2)));
}

/// OpenFlow 1.5, 5.6: meters are behind what is written, and in front of where the packet goes.
#[test]
fn a_bucket_has_its_packets_go_through_a_meter() {
    use openflow::message::meter::{Band, Meter, MeterCommand, MeterMod};

    let mut flows = pipeline(&[]);
    let change = |flows: &mut Pipeline, command| {
        let bands = vec![Band { remark: None, rate: 1, burst: 1 }];
        let meter = Meter { id: 7, flags: 1, bands };
        flows.tables.change_meter(&MeterMod { command, meter }, 0).map(drop)
    };
    let tag = Action::PushVlan { ethertype: 0x8100 };
    let metered = vec![Action::output(PortNo(2)), Action::Meter(7), tag];
    let buckets = vec![metered, vec![Action::output(PortNo(3))]];
    let buckets = (0..).zip(buckets).map(|(id, actions)| bucket(id, actions)).collect();
    let add = GroupMod {
        command: GroupCommand::Add,
        kind: GroupType::All,
        group: 1,
        bucket: ALL_BUCKETS,
        buckets,
        selection: None,
    };
    // There is to be such a meter.
    assert!(flows.tables.change_group(&add, 0).is_err());
    change(&mut flows, MeterCommand::Add).unwrap();
    flows.tables.change_group(&add, 0).unwrap();
    rule(&mut flows, 0, vec![Action::Group(1)]);
    let ops = path(&flows).ops;
    let [Op::Save, Op::Edit(_), Op::Meter(7), Op::Output(2), Op::Restore, Op::Output(3)] = &*ops
    else {
        panic!("{ops:?}");
    };
    // Without it nothing passes there, and the way is found anew.
    let before = flows.clone();
    change(&mut flows, MeterCommand::Delete).unwrap();
    assert!(path(&before).basis.meets(&flows.changed(&before).unwrap()));
    assert_eq!(&*path(&flows).ops, [Op::Output(3)]);
}
