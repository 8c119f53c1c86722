use openflow::{Field, Match};

use super::*;
use crate::rule::Timeouts;

fn output(port: u32) -> Instructions {
    Instructions::apply(vec![Action::output(PortNo(port))])
}

fn tcp(port: u16) -> Match {
    let tcp = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 6);
    tcp.with(Field::TcpDst, u128::from(port))
}

fn table() -> Tables {
    let mut tables = Tables::default();
    for (port, cookie) in [(80, 0x11), (81, 0x12), (443, 0x21)] {
        let mut add = Change::add(3, tcp(port), output(u32::from(port)));
        add.cookie = Some(cookie);
        tables.change(&add, 0).unwrap();
    }
    tables
}

fn count(tables: &mut Tables, change: &Change) -> (usize, usize, usize) {
    let Outcome { added, modified, removed } = tables.change(change, 1000).unwrap();
    (added.len(), modified.len(), removed.len())
}

#[test]
fn deleting_loosely_takes_all_that_is_within() {
    let mut tables = table();
    let all_tcp = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 6);
    let mut strict = Change::delete(None, all_tcp.clone());
    strict.command = Command::DeleteStrict;
    assert_eq!(count(&mut tables, &strict), (0, 0, 0));
    let other_table = Change::delete(Some(2), all_tcp.clone());
    assert_eq!(count(&mut tables, &other_table), (0, 0, 0));
    let mut by_cookie = Change::delete(None, all_tcp.clone());
    by_cookie.filter.cookie = (0x10, 0xF0);
    assert_eq!(count(&mut tables, &by_cookie), (0, 0, 2));
    let mut by_port = Change::delete(None, all_tcp.clone());
    by_port.filter.out_port = Some(PortNo(80));
    assert_eq!(count(&mut tables, &by_port), (0, 0, 0));
    by_port.filter.out_port = Some(PortNo(443));
    assert_eq!(count(&mut tables, &by_port), (0, 0, 1));
    assert!(tables.is_empty());
}

#[test]
fn strictly_it_is_the_one_with_that_priority() {
    let mut tables = table();
    let mut delete = Change::delete(Some(3), tcp(80));
    delete.command = Command::DeleteStrict;
    delete.priority = 1;
    assert_eq!(count(&mut tables, &delete), (0, 0, 0));
    delete.priority = 0x8000;
    assert_eq!(count(&mut tables, &delete), (0, 0, 1));
}

#[test]
fn a_rule_that_is_changed_goes_on_counting_and_keeps_its_times() {
    let mut tables = table();
    let rule = Arc::clone(tables.iter().find(|rule| rule.cookie == 0x11).unwrap());
    rule.stats.add(3, 300, 500);
    let mut modify = Change::add(3, tcp(80), output(9));
    modify.command = Command::Modify;
    modify.cookie = None;
    modify.timeouts = Timeouts { idle: 5, hard: 5 };
    assert_eq!(count(&mut tables, &modify), (0, 1, 0));
    let after = tables.iter().find(|rule| rule.cookie == 0x11).unwrap();
    assert_eq!((after.stats.packets(), after.created, after.modified), (3, 0, 1000));
    assert_eq!((after.timeouts, &*after.instructions), (Timeouts::default(), &output(9)));
    // What is added in its place begins anew if asked to.
    let mut add = Change::add(3, tcp(80), output(7));
    assert_eq!(count(&mut tables, &add), (0, 1, 0));
    assert_eq!(tables.select(&add.filter).unwrap()[0].stats.packets(), 3);
    add.flags.reset_counts = true;
    assert_eq!(count(&mut tables, &add), (0, 1, 0));
    let rules = tables.select(&add.filter).unwrap();
    assert_eq!((rules[0].stats.packets(), rules[0].created, tables.len()), (0, 1000, 3));
    // When it was used last is still so.
    assert_eq!(rules[0].stats.used(), 500);
}

#[test]
fn what_is_not_there_is_added_by_a_change_that_may() {
    let mut tables = Tables::default();
    let mut modify = Change::add(0, tcp(22), output(1));
    modify.command = Command::ModifyStrict;
    assert_eq!(count(&mut tables, &modify), (0, 0, 0));
    modify.may_add = true;
    assert_eq!(count(&mut tables, &modify), (1, 0, 0));
    assert_eq!(count(&mut tables, &modify), (0, 1, 0));
}

#[test]
fn limits_overlaps_and_bad_tables_are_refused() {
    let mut tables = table();
    tables.set_limit(4);
    let ip = Match::new().with(Field::EthType, 0x800);
    let mut overlapping = Change::add(3, ip, output(1));
    overlapping.flags.check_overlap = true;
    assert_eq!(tables.change(&overlapping, 0).unwrap_err(), Refusal::Overlap);
    overlapping.priority = 7;
    assert_eq!(count(&mut tables, &overlapping), (1, 0, 0));
    let more = Change::add(3, tcp(8080), output(1));
    assert_eq!(tables.change(&more, 0).unwrap_err(), Refusal::Full { limit: 4 });
    // In the place of another one it can be added all the same.
    assert_eq!(count(&mut tables, &Change::add(3, tcp(80), output(1))), (0, 1, 0));
    let beyond = Change::add(255, tcp(80), output(1));
    assert_eq!(tables.change(&beyond, 0).unwrap_err(), Refusal::BadTable);
    let option = Match::new().with(Field::TunMetadata63, 1);
    let option = tables.change(&Change::add(0, option, output(1)), 0);
    assert_eq!(option.unwrap_err(), Refusal::Field(Field::TunMetadata63));
}

#[test]
fn rules_end_when_their_time_is_over() {
    let mut tables = Tables::default();
    for (port, idle, hard) in [(1, 10, 0), (2, 0, 15), (3, 0, 0), (4, 10, 12)] {
        let mut add = Change::add(0, tcp(port), output(1));
        add.timeouts = Timeouts { idle, hard };
        tables.change(&add, 0).unwrap();
    }
    let used = tables.select(&Change::add(0, tcp(4), output(1)).filter).unwrap();
    used[0].stats.add(1, 60, 5_000);
    let mut ended = |now| -> Vec<Ended> {
        let mut ended = tables.expire(now);
        ended.sort_by_key(|(rule, _)| rule.matching.get(Field::TcpDst));
        ended.into_iter().map(|(_, why)| why).collect()
    };
    assert_eq!(ended(10_000), []);
    assert_eq!(ended(10_001), [Ended::Idle]);
    assert_eq!(ended(15_001), [Ended::Hard, Ended::Hard]);
    assert_eq!(ended(u64::MAX), []);
    assert!(!tables.has_timed() && tables.len() == 1);
}

#[test]
fn a_bridge_is_plain_with_nothing_but_normal() {
    let mut tables = Tables::default();
    assert!(!tables.is_plain());
    let normal = output(PortNo::NORMAL.0);
    tables.change(&Change::add(0, Match::new(), normal.clone()).with_priority(0), 0).unwrap();
    assert!(tables.is_plain());
    tables.change(&Change::add(1, Match::new(), normal).with_priority(0), 0).unwrap();
    assert!(!tables.is_plain());
    tables.change(&Change::delete(None, Match::new()), 0).unwrap();
    assert!(!tables.is_plain() && tables.is_empty());
}

#[test]
fn what_was_learnt_goes_with_the_last_rule_that_learns_it() {
    use openflow::action::{Learn, LearnFlags};
    let learn = |cookie| {
        let flags = LearnFlags { delete_learned: true, ..LearnFlags::default() };
        Instructions::apply(vec![Action::Learn(Box::new(Learn {
            timeouts: Default::default(),
            fin_timeouts: Default::default(),
            priority: 1,
            cookie,
            flags,
            table: 5,
            limit: 0,
            result: None,
            specs: Vec::new(),
        }))])
    };
    let mut tables = Tables::default();
    for (table, port, instructions, cookie) in [
        (0, 1, learn(7), 0),
        (0, 2, learn(7), 0),
        (5, 3, output(1), 7),
        (5, 4, output(1), 8),
        (6, 5, output(1), 7),
    ] {
        let mut add = Change::add(table, tcp(port), instructions);
        add.cookie = Some(cookie);
        tables.change(&add, 0).unwrap();
    }
    assert_eq!(count(&mut tables, &Change::delete(Some(0), tcp(1))), (0, 0, 1));
    assert_eq!(count(&mut tables, &Change::delete(Some(0), tcp(2))), (0, 0, 2));
    let left: Vec<u64> = tables.iter().map(|rule| rule.cookie).collect();
    assert_eq!(left, [8, 7]);
}
