use std::net::Ipv4Addr;

use datapath::snoop::kind::Kind;
use proptest::prelude::*;

use super::*;

const AGEING: Duration = Duration::from_secs(300);

fn key(vlan: u16, group: u8) -> Key {
    (vlan, Ipv4Addr::new(239, 0, 0, group).into())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The ports of a group.
fn members(table: &Table, key: Key) -> Vec<u16> {
    let group = table.groups().find(|(of, _)| *of == key);
    group.map(|(_, members)| members.keys().copied().collect()).unwrap_or_default()
}

#[test]
fn members_are_remembered_until_they_leave_or_are_silent() {
    let start = Instant::now();
    let mut table = Table::new(9, AGEING);
    table.join(key(0, 1), 1, None, start);
    table.join(key(0, 1), 2, None, start);
    table.join(key(5, 1), 3, None, start);
    assert_eq!(members(&table, key(0, 1)), [1, 2]);
    // Another one behind port 1 stays, and behind port 2 nobody.
    assert!(table.leave(key(0, 1), 1, start) && table.leave(key(0, 1), 2, start));
    assert!(!table.leave(key(5, 1), 2, start), "it is no member");
    table.expire(start + seconds(1));
    table.join(key(0, 1), 1, None, start + seconds(1));
    assert_eq!(table.due(), Some(start + seconds(2)));
    table.expire(start + seconds(2));
    assert_eq!((members(&table, key(0, 1)), table.counts.left), (vec![1], 1));
    table.expire(start + seconds(300));
    assert_eq!(table.len(), (1, 1), "one has reported a second later");
    table.expire(start + seconds(301));
    assert_eq!((table.len(), table.counts.expired), ((0, 0), 2));
    assert_eq!(table.due(), None);
}

#[test]
fn routers_are_remembered_as_long_as_they_speak() {
    let start = Instant::now();
    let mut table = Table::new(9, AGEING);
    table.hear_router(5, 1, start);
    assert!(table.has_router(5) && !table.has_router(0));
    table.hear_router(5, 1, start + seconds(125));
    table.expire(start + seconds(379));
    assert!(table.has_router(5));
    table.expire(start + seconds(380));
    assert!(!table.has_router(5));
}

#[test]
fn a_shorter_time_is_for_the_members_that_there_are_too() {
    let start = Instant::now();
    let mut table = Table::new(9, AGEING);
    table.join(key(0, 1), 1, None, start);
    table.set(9, seconds(60));
    table.expire(start + seconds(60));
    assert_eq!(table.len(), (0, 0));
}

#[test]
fn a_port_has_no_more_groups_than_it_may() {
    let start = Instant::now();
    let mut table = Table::new(9, AGEING);
    for group in 1..=5 {
        table.join(key(0, group), 1, Some(3), start);
    }
    assert_eq!((table.len(), table.counts.refused), ((3, 3), 2));
    table.join(key(0, 1), 2, None, start);
    table.trim(1, 2);
    assert_eq!((table.len(), members(&table, key(0, 1))), ((3, 3), vec![2]));
    table.forget_port(1);
    table.join(key(0, 5), 1, Some(3), start);
    assert_eq!(table.len(), (2, 2));
}

#[test]
fn who_floods_the_table_gives_way_to_others() {
    let start = Instant::now();
    let mut table = Table::new(100, AGEING);
    for group in 1..=10 {
        table.join(key(0, group), 7, None, start);
    }
    for (step, group) in (0..).zip((11..=255).cycle().take(1_000)) {
        let now = start + Duration::from_millis(step);
        table.join(key(u16::from(group) + 1, group), 1, None, now);
        // It joins what others have, which does not help it to have that given up.
        table.join(key(0, group % 10 + 1), 1, None, now);
    }
    assert_eq!(table.len().0, 100);
    assert!((1..=10).all(|group| members(&table, key(0, group)).contains(&7)));
    table.join(key(9, 9), 8, None, start + seconds(2));
    assert_eq!((members(&table, key(9, 9)), table.len().0), (vec![8], 100));
    table.set(11, AGEING);
    assert!((1..=10).all(|group| members(&table, key(0, group)).contains(&7)));
    for vlan in 0..1_000 {
        table.hear_router(vlan, 1, start);
    }
    table.hear_router(1_000, 2, start);
    table.hear_router(1_001, 1, start);
    assert!(table.routers().count() <= 11 && table.has_router(1_000));
}

#[test]
fn workers_are_told_where_groups_go() {
    let start = Instant::now();
    let mut table = Table::new(9, AGEING);
    table.join(key(0, 1), 1, None, start);
    table.join(key(5, 2), 2, None, start);
    table.hear_router(5, 3, start);
    let set = |ports: &[u16]| ports.iter().copied().collect::<PortSet>();
    let mut ports = Ports {
        flood: set(&[10]),
        flood_reports: set(&[11]),
        routers: set(&[12]),
        ..Ports::default()
    };
    let reached = |view: &View, vlan, kind| -> Vec<u16> {
        let reach = view.reach(vlan, kind);
        (0..16).filter(|port| reach.has(*port)).collect()
    };
    let group = |group| Kind::Data(key(0, group).1);
    let view = table.view(&ports);
    assert_eq!(reached(&view, 0, group(1)), [1, 10, 12]);
    assert_eq!(reached(&view, 5, group(2)), [2, 3, 10, 12]);
    assert_eq!(reached(&view, 0, group(2)).len(), 16, "nobody has it there");
    assert_eq!(reached(&view, 0, Kind::Report), [11, 12]);
    assert_eq!(reached(&view, 5, Kind::Report), [3, 11, 12]);
    assert_eq!(reached(&view, 5, Kind::FromRouter).len(), 16);
    ports.keeps_unregistered = true;
    let view = table.view(&ports);
    assert_eq!(reached(&view, 0, group(2)), [10, 12]);
    assert_eq!(reached(&view, 5, group(9)), [3, 10, 12]);
    assert_eq!(reached(&view, 5, Kind::Other).len(), 16);
}

/// What a table is to do, in the plainest way: a list of members.
#[derive(Default)]
struct Model(Vec<(Key, u16, Instant, Option<Instant>)>);

impl Model {
    fn find(&mut self, key: Key, port: u16) -> Option<&mut (Key, u16, Instant, Option<Instant>)> {
        self.0.iter_mut().find(|entry| (entry.0, entry.1) == (key, port))
    }

    fn sorted(&self) -> Vec<(Key, u16)> {
        let mut all: Vec<_> = self.0.iter().map(|entry| (entry.0, entry.1)).collect();
        all.sort_unstable();
        all
    }
}

proptest! {
    #[test]
    fn tables_behave_as_lists(
        steps in prop::collection::vec((0_u8..8, 0_u16..3, 1_u8..5, 0_u16..4, 0_u64..200), 0..150),
    ) {
        let mut now = Instant::now();
        let mut table = Table::new(100, AGEING);
        let mut model = Model::default();
        for (step, vlan, group, port, wait) in steps {
            let key = key(vlan, group);
            match step {
                0..=3 => {
                    table.join(key, port, Some(6), now);
                    let has = model.0.iter().filter(|entry| entry.1 == port).count();
                    match model.find(key, port) {
                        Some(entry) => (entry.2, entry.3) = (now, None),
                        None if has < 6 => model.0.push((key, port, now, None)),
                        None => {}
                    }
                }
                4 => {
                    let was = table.leave(key, port, now);
                    let entry = model.find(key, port);
                    prop_assert_eq!(was, entry.is_some());
                    entry.map(|entry| entry.3.get_or_insert(now + LAST_MEMBER));
                }
                5 => {
                    table.forget_port(port);
                    model.0.retain(|entry| entry.1 != port);
                }
                _ => {
                    now += Duration::from_secs(wait % [3, 200][usize::from(step - 6)]);
                    table.expire(now);
                    model.0.retain(|entry| {
                        entry.2 + AGEING > now && entry.3.is_none_or(|ends| ends > now)
                    });
                }
            }
            let all = table.groups().flat_map(|(key, members)| {
                members.keys().map(move |port| (key, *port)).collect::<Vec<_>>()
            });
            let all: Vec<_> = all.collect();
            prop_assert_eq!(table.len().1, all.len());
            prop_assert_eq!(all, model.sorted());
            // Nothing is forgotten about that has an end.
            let ends = model.0.iter().map(|entry| entry.3.map_or(entry.2 + AGEING, |end| end.min(entry.2 + AGEING)));
            prop_assert!(table.due() <= ends.min() || model.0.is_empty());
        }
    }

    #[test]
    fn a_full_table_stays_within_its_limits(
        reports in prop::collection::vec((0_u16..4, 1_u8..40, 0_u16..4), 0..300),
    ) {
        let start = Instant::now();
        let mut table = Table::new(8, AGEING);
        for (vlan, group, port) in reports {
            table.join(key(vlan, group), port, None, start);
            prop_assert!(members(&table, key(vlan, group)).contains(&port));
            prop_assert!(table.len().0 <= 8);
            let sum: usize = table.groups().map(|(_, members)| members.len()).sum();
            prop_assert_eq!(table.len().1, sum);
        }
    }
}
