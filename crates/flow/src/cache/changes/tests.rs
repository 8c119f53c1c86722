use std::collections::BTreeMap;
use std::sync::Arc;

use conntrack::{State, Tracked};
use openflow::action::{
    Algorithm, Bundle, Ct, Encap, HashFields, Learn, LearnFlags, LearnSource, LearnSpec,
    LearnTarget, Timeouts,
};
use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{ALL_BUCKETS, Bucket, GroupCommand, GroupMod, GroupType};
use openflow::{Action, Field, Instructions, Match, PortNo, Subfield};
use proptest::prelude::*;

use crate::cache::PathCache;
use crate::frozen::Frozen;
use crate::key::{Key, slot};
use crate::path::{Op, Path};
use crate::pipeline::{Pipeline, Port};
use crate::rule::Stats;
use crate::tables::{Change, Command, Miss, TableSettings};
use crate::walk::guide::address;
use crate::walk::room::Room;
use crate::walk::{Start, find_way, walk};

use super::*;

const TABLES: u8 = 4;
const HEADS: usize = 10;

pub(in crate::cache) fn output(port: u32) -> Action {
    Action::output(PortNo(port))
}

pub(in crate::cache) fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.full_mask() }
}

const fn part(field: Field, bits: u16) -> Subfield {
    Subfield { field, offset: 0, bits }
}

fn bundle() -> Action {
    let members = vec![PortNo(3), PortNo(4)];
    let (fields, algorithm) = (HashFields::EthSrc, Algorithm::ActiveBackup);
    Action::Bundle(Box::new(Bundle { fields, basis: 0, algorithm, members, target: None }))
}

/// Makes rules for table 3, up to three of them.
fn learn() -> Action {
    let spec = LearnSpec {
        bits: 48,
        source: LearnSource::Field { field: Field::EthSrc, offset: 0 },
        target: LearnTarget::Match { field: Field::EthDst, offset: 0 },
    };
    Action::Learn(Box::new(Learn {
        timeouts: Timeouts::default(),
        fin_timeouts: Timeouts::default(),
        priority: 1,
        cookie: 7,
        flags: LearnFlags::default(),
        table: 3,
        limit: 3,
        result: Some(part(Field::Reg1, 1)),
        specs: vec![spec],
    }))
}

fn ct(table: u8) -> Action {
    Action::Ct(Box::new(Ct {
        zone: openflow::action::CtZone::Number(0),
        table: Some(table),
        commit: false,
        force: false,
        alg: 0,
        actions: Vec::new(),
    }))
}

fn encap(packet_type: u32) -> Action {
    let (header_size, properties) = (0, Vec::new());
    Action::Encap(Box::new(Encap { packet_type, header_size, properties }))
}

fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::default();
    for number in 1..6_u16 {
        pipeline.ports.insert(PortNo(number.into()), Port::new(number));
    }
    // So that it stays the same which bits of packets count, whatever rules come and go.
    let all = [Field::EthDst, Field::EthSrc, Field::InPort, Field::Metadata, Field::Reg0]
        .into_iter()
        .chain([Field::Reg1, Field::CtState, Field::ConjId, Field::NwTtl, Field::IpSrc]);
    let ip = Match::new().with(Field::EthType, 0x800);
    let matching = all.fold(ip, |matching, field| {
        if field == Field::CtState { matching.with(field, 0x20) } else { matching.with(field, 1) }
    });
    let actions = vec![learn(), bundle(), ct(9), Action::DecTtl(None), encap(0)];
    let actions = [actions, vec![set(Field::UdpDst, 1), set(Field::TcpDst, 1)]].concat();
    let add = Change::add(9, matching, Instructions::apply(actions));
    group(&mut pipeline, GroupCommand::Add, &[2]);
    pipeline.tables.change(&add, 0).unwrap();
    // Of packets of other kinds, too.
    let all =
        [Field::EthDst, Field::EthSrc, Field::InPort, Field::Metadata, Field::Reg0, Field::ConjId];
    let matching = all.into_iter().fold(Match::new(), |matching, field| matching.with(field, 1));
    let add = Change::add(9, matching, Instructions::default());
    pipeline.tables.change(&add, 0).unwrap();
    pipeline
}

/// A group of which the buckets send to these ports, and one that goes on to the last table.
fn group(pipeline: &mut Pipeline, command: GroupCommand, ports: &[u32]) {
    let (watch_port, watch_group) = (PortNo::ANY, ANY_GROUP);
    let actions = ports.iter().map(|port| vec![output(*port)]);
    let actions = actions.chain([vec![set(Field::Reg0, 2), Action::resubmit_table(3)]]);
    let bucket = |(id, actions)| Bucket { id, weight: 0, watch_port, watch_group, actions };
    let buckets = (1..).zip(actions).map(bucket).collect();
    let (kind, group, bucket) = (GroupType::All, 1, ALL_BUCKETS);
    let change = GroupMod { command, kind, group, bucket, buckets, selection: None };
    pipeline.tables.change_group(&change, 0).unwrap();
}

/// What a rule matches on: any of these, each with some of the values below `end`.
fn matching(end: u128) -> impl Strategy<Value = Match> {
    let some = |values: std::ops::Range<u128>| prop::option::weighted(0.3, values);
    let all = || some(0..end);
    let rare = prop::option::weighted(0.05, 0..3_u128);
    (all(), all(), some(1..3), all(), (all(), some(0..2), all(), rare)).prop_map(
        |(to, from, port, metadata, (reg, conj, source, beside))| {
            let all = [
                (Field::EthDst, to),
                (Field::EthSrc, from),
                (Field::InPort, port),
                (Field::Metadata, metadata),
                (Field::Reg0, reg),
                (Field::ConjId, conj.filter(|id| *id == 1)),
                (Field::Reg4, beside),
                (Field::ActsetOutput, beside.map(|port| port + 1)),
            ];
            let mut matching = Match::new();
            for (field, value) in all {
                if let Some(value) = value {
                    matching.set(field, value);
                }
            }
            match source {
                Some(source) => matching.with(Field::EthType, 0x800).with(Field::IpSrc, source),
                None => matching,
            }
        },
    )
}

/// What rules match on: of few values, which packets mostly have, or of many, which they mostly have not.
fn heads() -> impl Strategy<Value = Vec<Match>> {
    let heads = |end| prop::collection::vec(matching(end), HEADS);
    prop_oneof![heads(3), heads(40)]
}

/// Writes to registers for which rules hardly ask.
fn beside() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..3_u128).prop_map(|value| set(Field::Reg4, value)),
        1 => (0..3_u128).prop_map(|value| set(Field::Reg5, value)),
        1 => (0..3_u128).prop_map(|value| set(Field::Xreg2, value << 32 | 1)),
        1 => (0..9_u16, 0..8_u64).prop_map(|(offset, value)| Action::Load {
            target: Subfield { field: Field::Reg4, offset, bits: 3 },
            value,
        }),
    ]
}

/// Writes to packets for which rules hardly ask, not all of which are for these.
fn to_packets() -> impl Strategy<Value = Action> {
    let value = || 0..3_u128;
    let address = |low| packet::MacAddr([0, 0, 0, 0, 0, low]);
    prop_oneof![
        3 => value().prop_map(|value| set(Field::IpDst, value)),
        2 => value().prop_map(|value| set(Field::UdpDst, value)),
        1 => value().prop_map(|value| set(Field::TcpDst, value)),
        1 => value().prop_map(|value| set(Field::Ipv6Dst, value << 64 | 1)),
        1 => value().prop_map(|value| set(Field::IpDscp, value)),
        1 => (1..3_u128).prop_map(|value| set(Field::NwTtl, value)),
        1 => (0..3_u8).prop_map(move |low| Action::SetEthDst(address(low))),
        1 => (0..3_u32).prop_map(|to| Action::SetIpDst(to.into())),
        1 => (0..9_u16, 0..8_u64).prop_map(|(offset, value)| Action::Load {
            target: Subfield { field: Field::IpDst, offset, bits: 3 },
            value,
        }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let table = || 0..TABLES;
    prop_oneof![
        8 => table().prop_map(Action::resubmit_table),
        4 => (1..6_u32).prop_map(output),
        3 => (0..3_u128).prop_map(|value| set(Field::Reg0, value)),
        2 => (0..3_u128).prop_map(|value| set(Field::Metadata, value)),
        2 => (0..3_u128).prop_map(|value| set(Field::EthDst, value)),
        2 => Just(Action::Move { source: part(Field::EthSrc, 32), target: part(Field::Reg0, 32) }),
        2 => beside(),
        2 => to_packets(),
        1 => Just(Action::Move { source: part(Field::IpDst, 32), target: part(Field::Reg0, 32) }),
        1 => Just(Action::Move { source: part(Field::Reg4, 32), target: part(Field::Reg0, 32) }),
        1 => Just(Action::Push(part(Field::Reg0, 32))),
        1 => Just(Action::Pop(part(Field::Metadata, 32))),
        1 => Just(Action::DecTtl(None)),
        1 => Just(Action::Exit),
        1 => Just(Action::Group(1)),
        1 => Just(bundle()),
        1 => Just(learn()),
        1 => Just(Action::output(PortNo::CONTROLLER)),
        1 => (table(), 1..4_u32).prop_map(|(table, port)| Action::Resubmit {
            port: Some(PortNo(port)),
            table: Some(table),
            ct: false,
        }),
        1 => table().prop_map(|table| Action::Clone(vec![
            set(Field::Metadata, 2),
            Action::resubmit_table(table),
        ])),
        1 => table().prop_map(ct),
        1 => prop_oneof![Just(encap(0)), Just(encap(0x1_8847))],
        1 => prop_oneof![Just(0xFFFE), Just(0)].prop_map(|packet_type| Action::Decap { packet_type }),
        1 => table().prop_map(|table| Action::Clone(vec![
            encap(0x1_8847),
            Action::Decap { packet_type: 0 },
            Action::resubmit_table(table),
        ])),
    ]
}

fn instructions() -> impl Strategy<Value = Instructions> {
    let clause = (0..2_u8).prop_map(|clause| {
        Instructions::apply(vec![Action::Conjunction { id: 1, clause, clauses: 2 }])
    });
    let apply = prop::collection::vec(action(), 0..4);
    let other = (apply, prop::option::weighted(0.2, 1..6_u32)).prop_map(|(apply, port)| {
        Instructions { write: port.map(|port| vec![output(port)]), ..Instructions::apply(apply) }
    });
    prop_oneof![12 => other, 1 => clause]
}

#[derive(Clone, Debug)]
enum Step {
    /// Rules of a table with what is matched on by this number come, or are changed.
    Add(u8, usize, Instructions),
    Delete(u8, usize),
    Modify(u8, usize, Instructions),
    Group(Vec<u32>),
    /// The third port is dead, or not.
    Link(bool),
    Table(u8, bool),
    /// What there is by now is in use from now on.
    Publish,
    Packet {
        to: u64,
        from: u64,
        port: u32,
        source: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (table, head) = (|| 0..TABLES, || 0..HEADS);
    let packet = (0..3_u64, 0..3_u64, 1..3_u32, 0..3_u32);
    prop_oneof![
        6 => (table(), head(), instructions()).prop_map(|(table, head, what)| Step::Add(table, head, what)),
        3 => (table(), head()).prop_map(|(table, head)| Step::Delete(table, head)),
        2 => (table(), head(), instructions())
            .prop_map(|(table, head, what)| Step::Modify(table, head, what)),
        1 => prop::collection::vec(1..6_u32, 1..3).prop_map(Step::Group),
        1 => any::<bool>().prop_map(Step::Link),
        1 => (table(), any::<bool>()).prop_map(|(table, goes_on)| Step::Table(table, goes_on)),
        8 => Just(Step::Publish),
        40 => packet.prop_map(|(to, from, port, source)| Step::Packet { to, from, port, source }),
    ]
}

fn change(flows: &mut Pipeline, heads: &[(Match, u16)], step: &Step) {
    let of = |command, table, head: usize, what: &Instructions| {
        let (matching, priority) = heads[head].clone();
        let change = Change::add(table, matching, what.clone()).with_priority(priority);
        // In table 3 they count as learnt.
        Change { command, cookie: Some(if table == 3 { 7 } else { 0 }), ..change }
    };
    let change = match step {
        Step::Add(table, head, what) => of(Command::Add, *table, *head, what),
        Step::Modify(table, head, what) => of(Command::ModifyStrict, *table, *head, what),
        Step::Delete(table, head) => {
            of(Command::DeleteStrict, *table, *head, &Instructions::default())
        }
        Step::Group(ports) => return group(flows, GroupCommand::Modify, ports),
        Step::Link(is_dead) => {
            flows.ports.get_mut(&PortNo(3)).unwrap().is_dead = *is_dead;
            return;
        }
        Step::Table(table, goes_on) => {
            let miss = if *goes_on { Miss::Continue } else { Miss::Default };
            let settings = TableSettings { miss, ..TableSettings::default() };
            flows.tables.set_table(*table, settings);
            return;
        }
        Step::Publish | Step::Packet { .. } => return,
    };
    flows.tables.change(&change, 0).unwrap();
}

pub(in crate::cache) fn key(to: u64, from: u64, port: u32, source: u32) -> Key {
    let mut key = Key::default();
    for (slot, value) in [
        (slot::IN_PORT, port.into()),
        (slot::ETH_DST, to.into()),
        (slot::ETH_SRC, from.into()),
        (slot::ETH_TYPE, 0x800),
        (slot::IPV4_SRC, source.into()),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
    ] {
        key.set(slot, value);
    }
    key
}

/// The same path with the numbers of rounds left out, and these with what goes on there.
fn without_rounds(path: &Path) -> (Path, Vec<(u32, Arc<Frozen>)>) {
    let (mut path, mut rounds) = (path.clone(), Vec::new());
    for op in &mut path.ops {
        match op {
            Op::Track(track, round) => {
                rounds.extend(track.next.clone().map(|next| (*round, next)));
                *round = 0;
            }
            Op::Again(next, round) => {
                rounds.push((*round, Arc::clone(next)));
                *round = 0;
            }
            _ => {}
        }
    }
    (path, rounds)
}

/// A worker that may be some versions behind.
pub(in crate::cache) struct Worker {
    pub(in crate::cache) cache: PathCache,
    flows: Arc<Pipeline>,
    /// What rules are to count.
    counts: BTreeMap<u64, (Arc<Stats>, u64)>,
}

impl Worker {
    pub(in crate::cache) fn new(flows: &Pipeline) -> Self {
        let flows = Arc::new(flows.clone());
        Self { cache: PathCache::new(Arc::clone(&flows)), flows, counts: BTreeMap::new() }
    }

    pub(in crate::cache) fn update(&mut self, flows: &Pipeline) {
        self.flows = Arc::new(flows.clone());
        self.cache.update(Arc::clone(&self.flows), 0);
    }

    /// A packet takes the way that it would take without a cache, also when it has been tracked, or is
    /// looked at anew.
    pub(in crate::cache) fn check(&mut self, key: &Key) -> Result<(), TestCaseError> {
        self.cache.begin(0);
        let id = self.cache.find(key);
        let wanted = walk(&self.flows, &mut key.clone(), &Start::Table, None);
        self.check_trace(id, key)?;
        let mut rounds = self.check_path(id, &wanted)?;
        for _ in 0..3 {
            let Some((round, frozen)) = rounds.pop() else { break };
            let state = State(if rounds.len() % 2 == 0 { 0x20 } else { 0x21 });
            let tracked =
                Tracked { state, zone: 0, mark: 0, label: 0, original: None, helper: None };
            let mut key = *key;
            key.set_connection(&tracked);
            let id = self.cache.find_tracked(round, &mut key).unwrap();
            let wanted = walk(&self.flows, &mut key.clone(), &Start::Frozen(&frozen), None);
            rounds.extend(self.check_path(id, &wanted)?);
        }
        Ok(())
    }

    /// What is known of all packets of a path is true of one.
    fn check_trace(&self, id: crate::cache::PathId, key: &Key) -> Result<(), TestCaseError> {
        let path = self.cache.path(id).unwrap();
        if let Some(known) = path.trace.as_ref().filter(|trace| trace.is_of_one(usize::MAX)) {
            let (start, mut room) = (Start::Table, Room::default());
            let trace = find_way(&self.flows, key, &start, (true, None), &mut room).trace();
            prop_assert_eq!(Some(known), trace.as_ref());
        }
        Ok(())
    }

    fn check_path(
        &mut self,
        id: crate::cache::PathId,
        wanted: &Path,
    ) -> Result<Vec<(u32, Arc<Frozen>)>, TestCaseError> {
        self.cache.count(id, 1, 60);
        let (path, rounds) = without_rounds(self.cache.path(id).unwrap());
        prop_assert!(path == *wanted, "{:#?}\n{:#?}", path, wanted);
        for stats in wanted.stats() {
            self.counts.entry(address(stats)).or_insert((Arc::clone(stats), 0)).1 += 1;
        }
        Ok(rounds)
    }

    pub(in crate::cache) fn check_counts(&mut self) -> Result<(), TestCaseError> {
        self.cache.flush(1);
        for (stats, count) in self.counts.values() {
            prop_assert_eq!(stats.packets(), *count);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_way_that_holds_is_the_way(
        heads in heads(),
        first in prop::collection::vec((0..TABLES, 0..HEADS, instructions()), 0..30),
        steps in prop::collection::vec(step(), 0..240),
    ) {
        // Which of several rules of one priority is found is not said.
        let heads: Vec<_> = heads.into_iter().zip(1..).collect();
        let mut flows = pipeline();
        for (table, head, what) in first {
            change(&mut flows, &heads, &Step::Add(table, head, what));
        }
        // Some take over several versions at once.
        let mut workers = [1, 3, 7].map(|every| (every, Worker::new(&flows)));
        let mut published = 0;
        for step in &steps {
            change(&mut flows, &heads, step);
            published += u32::from(matches!(step, Step::Publish));
            for (every, worker) in &mut workers {
                match *step {
                    Step::Publish if published % *every == 0 => worker.update(&flows),
                    Step::Packet { to, from, port, source } => {
                        worker.check(&key(to, from, port, source))?;
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn packets_are_counted_whatever_changes(
        heads in heads(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let heads: Vec<_> = heads.into_iter().zip(1..).collect();
        let mut flows = pipeline();
        let mut worker = Worker::new(&flows);
        for step in &steps {
            change(&mut flows, &heads, step);
            match *step {
                Step::Publish => worker.update(&flows),
                Step::Packet { to, from, port, source } => {
                    worker.check(&key(to, from, port, source))?;
                }
                _ => {}
            }
        }
        worker.check_counts()?;
    }
}

/// Flows that each go by a rule of their own, in the first table.
pub(in crate::cache) const OWN: [(u64, u64); 4] = [(0, 0), (0, 1), (1, 0), (2, 2)];

/// Changes where most are about single flows.
#[derive(Clone, Debug)]
enum Turn {
    /// A flow's own rule is another one: these actions, and a table to go on to; and whether it counts anew.
    Own(usize, Vec<Action>, u8, bool),
    /// It is gone, or has another priority.
    Gone(usize),
    Other(Step),
    Publish,
    Packet(usize),
}

/// Mostly what makes a packet another one for the tables behind.
fn actions() -> impl Strategy<Value = Vec<Action>> {
    let writes = prop_oneof![
        (0..3_u128).prop_map(|value| set(Field::Metadata, value)),
        (0..3_u128).prop_map(|value| set(Field::Reg0, value)),
        (0..3_u128).prop_map(|value| set(Field::EthDst, value)),
    ];
    let any = prop::collection::vec(prop_oneof![4 => writes, 1 => action()], 0..3);
    let unseen = prop::collection::vec(prop_oneof![beside(), to_packets()], 0..3);
    prop_oneof![1 => any, 1 => prop::collection::vec(beside(), 0..3), 1 => unseen]
}

fn turn() -> impl Strategy<Value = Turn> {
    let flow = || 0..OWN.len();
    let other = step().prop_filter("changes of rules", |step| {
        matches!(step, Step::Add(1.., ..) | Step::Delete(1.., ..) | Step::Modify(1.., ..))
    });
    prop_oneof![
        6 => (flow(), actions(), 1..TABLES, prop::bool::weighted(0.1))
            .prop_map(|(flow, actions, to, anew)| Turn::Own(flow, actions, to, anew)),
        1 => flow().prop_map(Turn::Gone),
        1 => other.prop_map(Turn::Other),
        6 => Just(Turn::Publish),
        8 => flow().prop_map(Turn::Packet),
    ]
}

pub(in crate::cache) fn change_own(
    flows: &mut Pipeline,
    flow: usize,
    what: Option<(&[Action], u8)>,
) {
    let (to, from) = OWN[flow];
    let matching = Match::new().with(Field::EthDst, to.into()).with(Field::EthSrc, from.into());
    match what {
        Some((actions, to)) => {
            let actions = [actions, &[Action::resubmit_table(to)]].concat();
            rule(flows, (0, 100), matching, actions);
        }
        None => drop(flows.tables.change(&Change::delete(Some(0), matching), 0).unwrap()),
    }
}

/// The same, by a rule that counts from nothing.
fn count_anew(flows: &mut Pipeline, flow: usize, actions: &[Action], to: u8) {
    let (eth_dst, eth_src) = OWN[flow];
    let matching =
        Match::new().with(Field::EthDst, eth_dst.into()).with(Field::EthSrc, eth_src.into());
    let actions = [actions, &[Action::resubmit_table(to)]].concat();
    let mut change = Change::add(0, matching, Instructions::apply(actions)).with_priority(100);
    change.flags.reset_counts = true;
    flows.tables.change(&change, 0).unwrap();
}

/// Tables in which each flow has a rule of its own, and a worker that has met them all and notes what they are.
pub(in crate::cache) fn own() -> (Pipeline, Worker) {
    let mut flows = pipeline();
    (0..OWN.len()).for_each(|flow| change_own(&mut flows, flow, Some((&[], 1))));
    rule(
        &mut flows,
        (1, 100),
        Match::new().with(Field::Metadata, 2),
        vec![Action::resubmit_table(2)],
    );
    rule(
        &mut flows,
        (1, 90),
        Match::new().with(Field::Reg0, 1),
        vec![output(4), Action::resubmit_table(3)],
    );
    rule(&mut flows, (1, 1), Match::new(), vec![Action::resubmit_table(2)]);
    rule(&mut flows, (2, 1), Match::new(), vec![Action::resubmit_table(3)]);
    rule(&mut flows, (3, 90), Match::new().with(Field::Reg0, 2), vec![output(5)]);
    rule(&mut flows, (3, 1), Match::new(), vec![output(2)]);
    let mut worker = Worker::new(&flows);
    for priority in 5..11 {
        OWN.iter().for_each(|(to, from)| worker.check(&key(*to, *from, 1, 0)).unwrap());
        let some = Match::new().with(Field::EthDst, 1).with(Field::EthSrc, 1);
        rule(&mut flows, (0, priority), some, vec![output(3)]);
        let all = Match::new().with(Field::EthSrc, 77);
        rule(&mut flows, (1, priority), all, vec![output(3)]);
        worker.update(&flows);
    }
    (flows, worker)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_way_that_is_mended_is_the_way(
        heads in heads(),
        turns in prop::collection::vec(turn(), 0..240),
    ) {
        let heads: Vec<_> = heads.into_iter().zip(101..).collect();
        let (mut flows, mut worker) = own();
        let mut late = own().1;
        late.update(&flows);
        for (number, turn) in turns.iter().enumerate() {
            match turn {
                Turn::Own(flow, actions, to, false) => {
                    change_own(&mut flows, *flow, Some((actions, *to)));
                }
                Turn::Own(flow, actions, to, true) => count_anew(&mut flows, *flow, actions, *to),
                Turn::Gone(flow) => change_own(&mut flows, *flow, None),
                Turn::Other(step) => change(&mut flows, &heads, step),
                Turn::Publish => {
                    worker.update(&flows);
                    if number % 3 == 0 {
                        late.update(&flows);
                    }
                }
                Turn::Packet(flow) => {
                    let (to, from) = OWN[*flow];
                    worker.check(&key(to, from, 1, 0))?;
                    late.check(&key(to, from, 1, 0))?;
                }
            }
        }
        // Both count in the same places.
        late.cache.flush(1);
        for (address, (stats, count)) in late.counts {
            worker.counts.entry(address).or_insert((stats, 0)).1 += count;
        }
        worker.check_counts()?;
    }
}

#[test]
fn a_rule_of_one_flow_costs_that_flow_a_walk_and_others_nothing() {
    let (mut flows, mut worker) = own();
    let pass = |worker: &mut Worker| {
        let before = worker.cache.stats();
        OWN.iter().for_each(|(to, from)| worker.check(&key(*to, *from, 1, 0)).unwrap());
        let after = worker.cache.stats();
        (after.misses - before.misses, after.renewed - before.renewed)
    };
    pass(&mut worker);
    let mended = worker.cache.ways.mended;
    assert_eq!(pass(&mut worker), (0, 0));
    for value in 0..1000 {
        let actions = [set(Field::Metadata, value % 3), set(Field::Reg0, value % 2)];
        change_own(&mut flows, 1, Some((&actions, 1)));
        worker.update(&flows);
        assert_eq!(pass(&mut worker), (1, 0), "{value}");
    }
    assert_eq!(worker.cache.ways.mended, mended + 1000);
    // What is not asked for is not decided, and holds all the same.
    (0..200).for_each(|value| {
        change_own(&mut flows, 2, Some((&[set(Field::Metadata, value)], 1)));
        worker.update(&flows);
    });
    assert_eq!(pass(&mut worker), (1, 0));
    // Two that come to be the same are one.
    change_own(&mut flows, 0, None);
    change_own(&mut flows, 3, None);
    rule(&mut flows, (0, 1), Match::new(), vec![output(2)]);
    worker.update(&flows);
    pass(&mut worker);
    let now = [(0, 0), (2, 2)].map(|(to, from)| worker.cache.find(&key(to, from, 1, 0)));
    assert_eq!(now[0], now[1]);
}

/// How many packets of [`own`] take a walk, and how many rules of theirs are exchanged, when `flows` have changed so.
pub(in crate::cache) fn passes(
    flows: &mut Pipeline,
    worker: &mut Worker,
    change: &dyn Fn(&mut Pipeline),
) -> (u64, u64) {
    change(flows);
    let before = worker.cache.stats();
    worker.update(flows);
    OWN.iter().for_each(|(to, from)| worker.check(&key(*to, *from, 1, 0)).unwrap());
    let after = worker.cache.stats();
    (after.misses - before.misses, after.renewed - before.renewed)
}

#[test]
fn what_nobody_asks_for_takes_no_walk() {
    let (mut flows, mut worker) = own();
    let mut passes = |change: &dyn Fn(&mut Pipeline)| passes(&mut flows, &mut worker, change);
    let own_to = |actions: Vec<Action>, to: u8| {
        move |flows: &mut Pipeline| change_own(flows, 1, Some((&actions, to)))
    };
    let own = |actions: Vec<Action>| own_to(actions, 1);
    let beside = |value| set(Field::Reg4, value);
    passes(&|_| ());
    // At first it is something else than the packet came in with.
    assert_eq!(passes(&own(vec![beside(1)])), (1, 0));
    for value in 2..100 {
        assert_eq!(passes(&own(vec![beside(value)])), (0, 1), "{value}");
    }
    // Several at once, the last of which counts.
    let several = |flows: &mut Pipeline| (0..5).for_each(|value| own(vec![beside(value)])(flows));
    assert_eq!(passes(&several), (0, 1));
    assert_eq!(passes(&own(vec![beside(7), set(Field::Reg5, 0)])), (0, 1));
    // In a new place, or none.
    assert_eq!(passes(&own(vec![beside(7), set(Field::Reg15, 1)])), (1, 0));
    assert_eq!(passes(&own(vec![])), (1, 0));
    assert_eq!(passes(&own_to(vec![], 2)), (1, 0));
    assert_eq!(passes(&own(vec![beside(3)])), (1, 0));
    // What a rule behind asks for, or reads, or writes to.
    assert_eq!(passes(&own(vec![beside(4)])), (0, 1));
    let asks = Match::new().with_masked(Field::Reg4, 1, 1);
    rule(&mut flows, (3, 200), asks.clone(), vec![output(1)]);
    let mut passes = |change: &dyn Fn(&mut Pipeline)| {
        change(&mut flows);
        worker.update(&flows);
        let before = worker.cache.stats().misses;
        OWN.iter().for_each(|(to, from)| worker.check(&key(*to, *from, 1, 0)).unwrap());
        worker.cache.stats().misses - before
    };
    passes(&|_| ());
    assert_eq!([5, 7].map(|value| passes(&own(vec![beside(value)]))), [1, 0]);
    passes(&|flows| drop(flows.tables.change(&Change::delete(Some(3), asks.clone()), 0).unwrap()));
    assert_eq!(passes(&own(vec![beside(8)])), 0);
    let moves = Action::Move { source: part(Field::Reg4, 4), target: part(Field::Reg9, 4) };
    passes(&|flows| {
        rule(flows, (2, 1), Match::new(), vec![moves.clone(), Action::resubmit_table(3)]);
    });
    assert_eq!([9, 25].map(|value| passes(&own(vec![beside(value)]))), [1, 0]);
    let writes = || vec![beside(9), Action::resubmit_table(3)];
    passes(&|flows| rule(flows, (2, 1), Match::new(), writes()));
    assert_eq!(passes(&own(vec![beside(9)])), 1);
    worker.check_counts().unwrap();
}

#[test]
fn what_is_written_to_packets_and_nobody_asks_for_takes_no_walk() {
    let (mut flows, mut worker) = own();
    // From now on it counts what protocol it is.
    rule(&mut flows, (9, 7), Match::new(), vec![set(Field::UdpDst, 1)]);
    worker.update(&flows);
    let mut passes = |change: &dyn Fn(&mut Pipeline)| passes(&mut flows, &mut worker, change);
    let own = |actions: Vec<Action>| {
        move |flows: &mut Pipeline| change_own(flows, 1, Some((&actions, 1)))
    };
    let to = |value| set(Field::IpDst, value);
    passes(&|_| ());
    // At first it is another operation.
    assert_eq!(passes(&own(vec![to(1)])), (1, 0));
    for value in 2..100 {
        assert_eq!(passes(&own(vec![to(value)])), (0, 1), "{value}");
    }
    assert_eq!(passes(&own(vec![to(7), set(Field::Reg4, 0)])), (0, 1));
    // Other bits, or other words.
    let half = Action::SetField { field: Field::IpDst, value: 3, mask: 0xFFFF };
    assert_eq!(passes(&own(vec![half])), (1, 0));
    assert_eq!(passes(&own(vec![to(1), set(Field::UdpDst, 5)])), (1, 0));
    assert_eq!(passes(&own(vec![to(2), set(Field::UdpDst, 6)])), (0, 1));
    // What is for other packets is not written.
    assert_eq!(passes(&own(vec![to(2), set(Field::TcpDst, 7)])).0, 1);
    assert_eq!(passes(&own(vec![to(2), set(Field::TcpDst, 8)])).0, 1);
    // What a rule behind reads, or writes to.
    assert_eq!(passes(&own(vec![to(3)])).0, 1);
    assert_eq!(passes(&own(vec![to(4)])), (0, 1));
    let reads = Action::Move { source: part(Field::IpDst, 4), target: part(Field::Reg9, 4) };
    for behind in [reads, Action::SetIpDst(9.into()), Action::PushMpls { ethertype: 0x8847 }] {
        passes(&|flows| {
            let actions = vec![behind.clone(), Action::resubmit_table(3)];
            rule(flows, (2, 1), Match::new(), actions);
        });
        assert_eq!([5, 6].map(|value| passes(&own(vec![to(value)])).0), [1, 1]);
    }
    worker.check_counts().unwrap();
}

/// Tables by which packets to some addresses go on: to the next table, with the address in a register.
fn by_address() -> Pipeline {
    let mut flows = pipeline();
    for to in 0..8_u128 {
        let actions = vec![set(Field::Metadata, to % 2), Action::resubmit_table(1)];
        rule(&mut flows, (0, 10), Match::new().with(Field::EthDst, to), actions);
    }
    rule(&mut flows, (1, 1), Match::new(), vec![output(2)]);
    flows
}

pub(in crate::cache) fn rule(
    flows: &mut Pipeline,
    (table, priority): (u8, u16),
    matching: Match,
    actions: Vec<Action>,
) {
    let add = Change::add(table, matching, Instructions::apply(actions)).with_priority(priority);
    flows.tables.change(&add, 0).unwrap();
}

/// Has packets to all addresses, from some, come; gives how often one goes through the tables.
fn pass(worker: &mut Worker) -> u64 {
    let before = worker.cache.stats().misses;
    for (to, from) in (0..8).flat_map(|to| (0..4).map(move |from| (to, from))) {
        worker.check(&key(to, from, 1, 0)).unwrap();
    }
    worker.cache.stats().misses - before
}

#[test]
fn only_what_a_change_is_about_is_decided_anew() {
    let mut flows = by_address();
    let mut worker = Worker::new(&flows);
    assert_eq!((pass(&mut worker), pass(&mut worker)), (32, 0));
    let mut passes = |change: &dyn Fn(&mut Pipeline)| {
        change(&mut flows);
        worker.update(&flows);
        [pass(&mut worker), pass(&mut worker)]
    };
    // For other packets, by what those have found in the same table.
    let other = Match::new().with(Field::EthDst, 77);
    assert_eq!(passes(&|flows| rule(flows, (0, 20), other.clone(), vec![])), [0, 0]);
    // Below what is found, for all.
    assert_eq!(passes(&|flows| rule(flows, (1, 0), Match::new(), vec![])), [0, 0]);
    // For some of those that find a rule for all: at first nothing else is known of them.
    let some = |from| Match::new().with(Field::EthSrc, from).with(Field::Metadata, 1);
    assert_eq!(passes(&|flows| rule(flows, (1, 5), some(0), vec![output(3)])), [32, 0]);
    // Then it is: four of them have this source, and come by the register.
    assert_eq!(passes(&|flows| rule(flows, (1, 6), some(1), vec![output(3)])), [4, 0]);
    assert_eq!(passes(&|flows| rule(flows, (1, 7), some(77), vec![output(3)])), [0, 0]);
    // Those that have found what is gone, or is another one.
    let delete = |table, priority, matching: Match| Change {
        command: Command::DeleteStrict,
        ..Change::delete(Some(table), matching).with_priority(priority)
    };
    let gone = delete(1, 5, some(0));
    assert_eq!(passes(&|flows| drop(flows.tables.change(&gone, 0).unwrap())), [4, 0]);
    let gone = delete(1, 7, some(77));
    assert_eq!(passes(&|flows| drop(flows.tables.change(&gone, 0).unwrap())), [0, 0]);
    assert_eq!(passes(&|flows| rule(flows, (1, 6), some(1), vec![output(4)])), [4, 0]);
    // The same once more is no change.
    let stats = passes(&|flows| rule(flows, (1, 6), some(1), vec![output(4)]));
    assert_eq!(stats, [0, 0]);
}

#[test]
fn many_changes_are_told_from_packets_by_few_looks() {
    let mut flows = by_address();
    let before = flows.clone();
    for to in 100..200_u128 {
        let matching = Match::new().with(Field::EthDst, to).with(Field::EthSrc, 1);
        rule(&mut flows, (0, 20), matching, vec![output(3)]);
    }
    let batches = flows.tables.turns_since(&before.tables, 0).unwrap();
    let delta = Delta::new(0, batches.0, batches.1);
    assert_eq!(
        (delta.turns().count(), delta.sieve().probes.len(), delta.sieve().top),
        (100, 2, Some(20))
    );
    let looks = |to: u64| {
        let key = key(to, 1, 1, 0);
        let path = walk(&flows, &mut key.clone(), &Start::Table, None);
        let Some(rule) = &path.visits[0].rule else { return 2 };
        let view = View { rule: Some(rule), at: 0, trace: None, key: Some(&key) };
        u32::from(delta.sieve().probes.iter().all(|probe| {
            let (value, known) = view.word(probe.word);
            known & probe.bits != probe.bits || probe.values.may_have(value & probe.bits)
        }))
    };
    assert!((0..8).map(looks).sum::<u32>() < 4);
}

#[test]
fn what_was_not_asked_for_long_is_decided_anew_and_memory_is_bounded() {
    let mut flows = by_address();
    let mut worker = Worker::new(&flows);
    pass(&mut worker);
    // A rule for all, below what they find, comes and goes: the former may be about any of them.
    let change = |worker: &mut Worker, flows: &mut Pipeline, count: usize| {
        for _ in 0..count {
            rule(flows, (1, 0), Match::new(), vec![output(3)]);
            worker.update(flows);
            let delete = Change::delete(Some(1), Match::new()).with_priority(0);
            let delete = Change { command: Command::DeleteStrict, ..delete };
            flows.tables.change(&delete, 0).unwrap();
            worker.update(flows);
        }
    };
    change(&mut worker, &mut flows, 8);
    assert_eq!(pass(&mut worker), 32, "nothing is known of them yet");
    change(&mut worker, &mut flows, MAX_EPOCHS / 2);
    assert_eq!(pass(&mut worker), 0);
    change(&mut worker, &mut flows, MAX_EPOCHS / 2 + 1);
    assert_eq!(worker.cache.stats().paths, 0, "they are of no use");
    assert_eq!(pass(&mut worker), 32);
    for _ in 0..300 {
        change(&mut worker, &mut flows, 10);
        pass(&mut worker);
    }
    assert!(worker.cache.stats().paths < 20, "{:?}", worker.cache.stats());
}

/// Tables in which rules have come four times that were for some packets.
fn busy() -> (Pipeline, Worker) {
    let mut flows = by_address();
    let mut worker = Worker::new(&flows);
    pass(&mut worker);
    for priority in 5..9 {
        let matching = Match::new().with(Field::EthSrc, 1).with(Field::EthDst, 1);
        rule(&mut flows, (1, priority), matching, vec![output(3)]);
        worker.update(&flows);
        pass(&mut worker);
    }
    (flows, worker)
}

#[test]
fn nothing_is_judged_for_changes_that_are_about_nobody() {
    let (mut flows, mut worker) = busy();
    assert_eq!(pass(&mut worker), 0);
    let before = worker.cache.stats();
    for number in 0..1000 {
        // A few are for addresses that look as if they were there.
        let matching = Match::new().with(Field::EthSrc, 1000).with(Field::EthDst, 1000 + number);
        rule(&mut flows, (1, 100), matching, vec![output(3)]);
        worker.update(&flows);
        if number == 500 {
            assert_eq!(pass(&mut worker), 0, "also of what is not asked for long");
        }
    }
    assert_eq!(pass(&mut worker), 0);
    let after = worker.cache.stats();
    assert!(after.renewed < before.renewed + 64, "{before:?} {after:?}");
    // What is about some of them is judged all the same, by a packet of each; and what is gone.
    let matching = || Match::new().with(Field::EthSrc, 2).with(Field::EthDst, 2);
    rule(&mut flows, (1, 200), matching(), vec![output(4)]);
    worker.update(&flows);
    assert_eq!(pass(&mut worker), 1);
    let delete = Change::delete(Some(1), matching());
    flows.tables.change(&delete, 0).unwrap();
    worker.update(&flows);
    assert_eq!(pass(&mut worker), 1);
}

#[test]
fn other_words_are_noted_when_rules_ask_for_them() {
    let (mut flows, mut worker) = busy();
    let mut renewed = |worker: &mut Worker, field: Field| {
        let mut all = Vec::new();
        for number in 0..64_u128 {
            let before = worker.cache.stats().renewed;
            let matching = Match::new().with(field, 77 + number);
            rule(&mut flows, (1, 100), matching, vec![output(3)]);
            worker.update(&flows);
            pass(worker);
            all.push(worker.cache.stats().renewed - before);
        }
        all
    };
    for field in [Field::Metadata, Field::Reg0] {
        let all = renewed(&mut worker, field);
        assert!(all[0] > 0 && all[33..].iter().all(|renewed| *renewed == 0), "{all:?}");
    }
}

/// The last words of a key are traced, too, and a walk is guided by them: what the action set sends is one.
#[test]
fn what_the_action_set_sends_is_traced() {
    let (to, from) = OWN[1];
    let matching = Match::new().with(Field::EthDst, to.into()).with(Field::EthSrc, from.into());
    let sends = |flows: &mut Pipeline, port| {
        let write = Some(vec![output(port)]);
        let instructions = Instructions { write, goto_table: Some(1), ..Instructions::default() };
        let add = Change::add(0, matching.clone(), instructions).with_priority(100);
        flows.tables.change(&add, 0).unwrap();
    };
    for comes_first in [false, true] {
        let (mut flows, mut worker) = own();
        let one = |flows: &mut Pipeline| {
            let asks = Match::new().with(Field::ActsetOutput, 2);
            rule(flows, (1, 200), asks, vec![output(5)]);
        };
        if comes_first {
            one(&mut flows);
        }
        sends(&mut flows, if comes_first { 3 } else { 2 });
        worker.update(&flows);
        worker.check(&key(to, from, 1, 0)).unwrap();
        match comes_first {
            true => sends(&mut flows, 2),
            false => one(&mut flows),
        }
        worker.update(&flows);
        worker.check(&key(to, from, 1, 0)).unwrap();
    }
}
