mod drawn;
mod own;
mod steps;
mod worker;

use std::sync::Arc;

use openflow::{Action, Field, Instructions, Match, PortNo, Subfield};

use super::*;
use crate::key::{Key, slot};
use crate::path::Path;
use crate::pipeline::Pipeline;
use crate::tables::{Change, Command};
use crate::walk::{Start, walk};

pub(in crate::cache) use own::{change_own, own, passes};
use steps::pipeline;
pub(in crate::cache) use worker::{Worker, key};

pub(in crate::cache) fn output(port: u32) -> Action {
    Action::output(PortNo(port))
}

pub(in crate::cache) fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.full_mask() }
}

const fn part(field: Field, bits: u16) -> Subfield {
    Subfield { field, offset: 0, bits }
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
fn tables_in_which_the_most_has_changed_count_as_a_whole() {
    let (before, mut flows) = (pipeline(), pipeline());
    for (table, count) in [(0, 3), (1, 9), (2, 5)] {
        for to in 0..count {
            rule(&mut flows, (table, 20), Match::new().with(Field::EthDst, to), vec![]);
        }
    }
    let delta = |table| {
        let (batches, has_parts) = flows.tables.turns_since(&before.tables, table).unwrap();
        Delta::new(table, batches, has_parts)
    };
    for (most, known) in
        [(17, &[0, 1, 2][..]), (16, &[0, 2]), (8, &[0, 2]), (7, &[0]), (2, &[]), (0, &[])]
    {
        let mut whole = TableSet::default();
        let left = within((0..3).map(delta).collect(), most, &mut whole);
        let tables: Vec<u8> = left.iter().map(|delta| delta.table).collect();
        assert_eq!(tables, known, "{most}");
        assert!((0..3).all(|table| whole.has(table) != known.contains(&table)));
    }
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
