//! Any changes at all, by which a way that holds is still the way.

use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{ALL_BUCKETS, Bucket, GroupCommand, GroupMod, GroupType};
use proptest::prelude::*;

use super::drawn::{HEADS, TABLES, bundle, ct, encap, heads, instructions, learn};
use super::*;
use crate::pipeline::Port;
use crate::tables::{Miss, TableSettings};

pub(super) fn pipeline() -> Pipeline {
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

#[derive(Clone, Debug)]
pub(super) enum Step {
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

pub(super) fn step() -> impl Strategy<Value = Step> {
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

pub(super) fn change(flows: &mut Pipeline, heads: &[(Match, u16)], step: &Step) {
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
