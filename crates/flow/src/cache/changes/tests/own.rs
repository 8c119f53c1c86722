//! Flows with rules of their own, and changes that are about single ones.

use proptest::prelude::*;

use super::drawn::{TABLES, action, beside, heads, to_packets};
use super::steps::{Step, change, step};
use super::*;

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
