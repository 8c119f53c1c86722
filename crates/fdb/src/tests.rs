use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::ScopedJoinHandle;

use proptest::prelude::*;

use super::*;

fn key(mac: u64) -> Key {
    Key::from_bits(0, 0x5254_0000_0000 + mac)
}

fn learn(fdb: &Fdb, mac: u64, port: u16) -> Learned {
    let hash = fdb.hash(key(mac));
    if fdb.see(key(mac), hash, port, fdb.now()) {
        fdb.write().learn(key(mac), hash, port)
    } else {
        Learned::Known
    }
}

fn port_of(fdb: &Fdb, mac: u64) -> Option<u16> {
    fdb.find(key(mac), fdb.hash(key(mac))).map(Value::port)
}

fn expire_all(fdb: &Fdb) {
    assert_eq!(fdb.expire(0, fdb.buckets()), 0);
}

#[test]
fn an_address_is_learnt_and_moves() {
    let fdb = Fdb::new(16, 4, 300);
    assert_eq!(port_of(&fdb, 1), None);
    assert_eq!(learn(&fdb, 1, 2), Learned::New);
    assert_eq!(port_of(&fdb, 1), Some(2));
    assert_eq!(learn(&fdb, 1, 3), Learned::Moved);
    assert_eq!(port_of(&fdb, 1), Some(3));
    assert_eq!([2, 3].map(|port| fdb.write().learned_on(port)), [0, 1]);
    let report = fdb.report();
    assert_eq!((report.entries, report.learned, report.moved), (1, 1, 1));
}

#[test]
fn the_same_address_in_two_vlans_is_two_entries() {
    let fdb = Fdb::new(16, 4, 300);
    let keys = [Key::from_bits(0, 1), Key::from_bits(5, 1)];
    for (port, key) in (0..).zip(keys) {
        fdb.write().learn(key, fdb.hash(key), port);
    }
    let ports = keys.map(|key| fdb.find(key, fdb.hash(key)).unwrap().port());
    assert_eq!(ports, [0, 1]);
}

#[test]
fn entries_age_unless_seen_or_static() {
    let fdb = Fdb::new(16, 4, 5);
    fdb.set_now(100);
    learn(&fdb, 1, 0);
    learn(&fdb, 2, 0);
    assert!(fdb.write().add_static(key(3), 1));
    fdb.set_now(104);
    learn(&fdb, 2, 0);
    fdb.set_now(106);
    // Expired entries are not listed even before they are removed.
    assert_eq!(fdb.list().len(), 2);
    expire_all(&fdb);
    assert_eq!([1, 2, 3].map(|mac| port_of(&fdb, mac)), [None, Some(0), Some(1)]);
    fdb.set_now(500);
    expire_all(&fdb);
    assert_eq!([1, 2, 3].map(|mac| port_of(&fdb, mac)), [None, None, Some(1)]);
    assert_eq!(fdb.report().expired, 2);
    assert_eq!(fdb.list()[0].age, 0);
}

#[test]
fn zero_ageing_is_for_ever() {
    let fdb = Fdb::new(16, 4, 0);
    learn(&fdb, 1, 0);
    fdb.set_now(u32::MAX);
    expire_all(&fdb);
    assert_eq!(port_of(&fdb, 1), Some(0));
}

#[test]
fn static_entries_neither_move_nor_give_way() {
    let fdb = Fdb::new(10, 4, 300);
    learn(&fdb, 1, 0);
    assert!(fdb.write().add_static(key(1), 2));
    assert_eq!([1, 2].map(|port| fdb.see(key(1), fdb.hash(key(1)), port, fdb.now())), [false; 2]);
    assert_eq!(fdb.report().kept, 1);
    assert_eq!(fdb.write().learned_on(0), 0);
    assert_eq!(learn(&fdb, 1, 0), Learned::Known);
    (10..100).for_each(|mac| {
        learn(&fdb, mac, 0);
    });
    assert_eq!((port_of(&fdb, 1), fdb.len()), (Some(2), 10));
    assert_eq!(fdb.write().flush(None), 9);
    assert_eq!((port_of(&fdb, 1), fdb.len()), (Some(2), 1));
    assert!(fdb.write().remove(key(1)));
    assert!(!fdb.write().remove(key(1)));
    assert_eq!((fdb.len(), fdb.report().statics), (0, 0));
}

#[test]
fn a_table_of_static_entries_refuses_more() {
    let fdb = Fdb::new(4, 4, 300);
    for mac in 0..4 {
        assert!(fdb.write().add_static(key(mac), 1));
    }
    assert!(!fdb.write().add_static(key(9), 1));
    assert_eq!(learn(&fdb, 9, 1), Learned::Refused);
    assert!(fdb.write().add_static(key(3), 2));
    assert_eq!(fdb.len(), 4);
}

#[test]
fn at_the_limit_the_oldest_of_the_port_goes() {
    let fdb = Fdb::new(10, 4, 300);
    for mac in 0..10 {
        fdb.set_now(100 + u32::try_from(mac).unwrap());
        learn(&fdb, mac, 0);
    }
    fdb.set_now(200);
    learn(&fdb, 0, 0);
    assert_eq!(learn(&fdb, 10, 0), Learned::New);
    assert_eq!((port_of(&fdb, 0), port_of(&fdb, 1), fdb.len()), (Some(0), None, 10));
}

#[test]
fn a_flood_costs_the_flooding_port_its_own_entries() {
    let fdb = Fdb::new(1_000, 4, 300);
    (0..100).for_each(|mac| {
        learn(&fdb, mac, 1);
    });
    (1_000..50_000).for_each(|mac| {
        learn(&fdb, mac, 2);
    });
    let kept = (0..100).filter(|mac| port_of(&fdb, *mac) == Some(1)).count();
    assert_eq!((kept, fdb.len()), (100, 1_000));
    // A second port that needs entries takes them from the flooder.
    (200..600).for_each(|mac| {
        learn(&fdb, mac, 3);
    });
    assert_eq!(fdb.write().learned_on(3), 400);
    assert_eq!(fdb.write().learned_on(1), 100);
}

#[test]
fn a_port_is_flushed_alone() {
    let fdb = Fdb::new(100, 4, 300);
    (0..20).for_each(|mac| {
        learn(&fdb, mac, u16::try_from(mac % 2).unwrap());
    });
    fdb.write().add_static(key(50), 1);
    assert_eq!(fdb.write().flush(Some(1)), 10);
    assert_eq!(fdb.len(), 11);
    assert_eq!(port_of(&fdb, 50), Some(1));
    fdb.write().remove_port(1);
    assert_eq!((port_of(&fdb, 50), fdb.len(), fdb.report().statics), (None, 10, 0));
}

#[test]
fn every_entry_up_to_the_limit_has_room() {
    // Also at the sizes where the table is fullest.
    for limit in [1, 2, 3, 16, 64, 1_000, 1 << 14] {
        let fdb = Fdb::new(limit, 1, 0);
        for mac in 0..limit as u64 {
            assert_eq!(learn(&fdb, mac, 0), Learned::New);
        }
        assert_eq!((fdb.len(), fdb.report().evicted), (limit, 0));
        assert!((0..limit as u64).all(|mac| port_of(&fdb, mac) == Some(0)));
    }
}

#[test]
fn a_worker_does_not_wait_for_the_lock() {
    let fdb = Fdb::new(16, 4, 300);
    let writer = fdb.write();
    assert!(fdb.try_write().is_none());
    drop(writer);
    assert!(fdb.try_write().is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Learn(u64, u16),
    Static(u64, u16),
    Remove(u64),
    Flush(Option<u16>),
    RemovePort(u16),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..40_u64, 0..4_u16).prop_map(|(mac, port)| Step::Learn(mac, port)),
        2 => (0..40_u64, 0..4_u16).prop_map(|(mac, port)| Step::Static(mac, port)),
        2 => (0..40_u64).prop_map(Step::Remove),
        1 => prop::option::of(0..4_u16).prop_map(Step::Flush),
        1 => (0..4_u16).prop_map(Step::RemovePort),
        3 => (1..8_u32).prop_map(Step::Wait),
    ]
}

/// Address to port, whether static, and second last seen.
type Model = HashMap<u64, (u16, bool, u32)>;

/// The port that has to give up an entry, by the rule.
fn check_victim(before: &Model, gone: u64) {
    let dynamic = |port: u16| before.values().filter(|(p, fixed, _)| *p == port && !fixed).count();
    let (victim, fixed, seen) = before[&gone];
    assert!(!fixed);
    let most = (0..4).map(dynamic).max().unwrap();
    assert_eq!(dynamic(victim), most);
    // With so few entries the choice of the oldest is exact.
    let oldest = before.values().filter(|(p, fixed, _)| *p == victim && !fixed).map(|e| e.2).min();
    assert_eq!(oldest, Some(seen));
}

proptest! {
    #[test]
    fn it_behaves_as_a_map(limit in 4..14_usize, steps in prop::collection::vec(step(), 1..150)) {
        const AGEING: u32 = 20;
        let fdb = Fdb::new(limit, 4, AGEING);
        let mut model = Model::new();
        for step in steps {
            let now = fdb.now();
            let add = match step {
                Step::Learn(mac, port) => match model.get_mut(&mac) {
                    Some((_, true, _)) => { prop_assert_eq!(learn(&fdb, mac, port), Learned::Known); None }
                    Some(entry) => { learn(&fdb, mac, port); *entry = (port, false, now); None }
                    None => Some((mac, port, learn(&fdb, mac, port) == Learned::New, false)),
                },
                Step::Static(mac, port) => {
                    let added = fdb.write().add_static(key(mac), port);
                    if let Some(entry) = model.get_mut(&mac) {
                        prop_assert!(added);
                        *entry = (port, true, 0);
                        None
                    } else {
                        Some((mac, port, added, true))
                    }
                }
                Step::Remove(mac) => {
                    prop_assert_eq!(fdb.write().remove(key(mac)), model.remove(&mac).is_some());
                    None
                }
                Step::Flush(port) => {
                    let before = model.len();
                    model.retain(|_, (p, fixed, _)| *fixed || port.is_some_and(|port| port != *p));
                    prop_assert_eq!(fdb.write().flush(port), before - model.len());
                    None
                }
                Step::RemovePort(port) => {
                    model.retain(|_, (p, _, _)| *p != port);
                    fdb.write().remove_port(port);
                    None
                }
                Step::Wait(seconds) => {
                    fdb.set_now(now + seconds);
                    expire_all(&fdb);
                    model.retain(|_, (_, fixed, seen)| *fixed || now + seconds - *seen <= AGEING);
                    None
                }
            };
            if let Some((mac, port, added, fixed)) = add {
                let full = model.len() == limit;
                let all_static = model.values().all(|(_, fixed, _)| *fixed);
                prop_assert_eq!(added, !(full && all_static));
                if full && added {
                    let gone: Vec<u64> =
                        model.keys().copied().filter(|mac| port_of(&fdb, *mac).is_none()).collect();
                    prop_assert_eq!(gone.len(), 1);
                    check_victim(&model, gone[0]);
                    model.remove(&gone[0]);
                }
                if added {
                    model.insert(mac, (port, fixed, if fixed { 0 } else { now }));
                }
            }
            prop_assert_eq!(fdb.len(), model.len());
            for mac in 0..40 {
                let value = fdb.find(key(mac), fdb.hash(key(mac)));
                let found = value.map(|v| (v.port(), v.is_static(), v.seen()));
                prop_assert_eq!(found, model.get(&mac).copied());
            }
            prop_assert_eq!(fdb.list().len(), model.len());
            for port in 0..4_u16 {
                let learnt = model.values().filter(|(p, fixed, _)| *p == port && !fixed).count();
                prop_assert_eq!(fdb.write().learned_on(port), learnt);
            }
        }
    }
}

/// Writers churn a tiny table, where every slot changes its key all the time, while readers
/// check that an address is never found behind a port where it never was.
#[test]
fn readers_never_see_the_port_of_another_address() {
    const PORTS: u64 = 8;
    let fdb = Fdb::new(12, 64, 0);
    let stop = AtomicBool::new(false);
    let hits = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|reader: u32| {
            let (fdb, stop, hits) = (&fdb, &stop, &hits);
            scope.spawn(move || {
                let mut second = reader;
                while !stop.load(Relaxed) {
                    second = second.wrapping_add(1);
                    for mac in 0..200 {
                        let hash = fdb.hash(key(mac));
                        if let Some(value) = fdb.find(key(mac), hash) {
                            assert_eq!(u64::from(value.port()) % PORTS, mac % PORTS);
                            hits.fetch_add(1, Relaxed);
                            // Refreshes race with changes of key too.
                            fdb.see(key(mac), hash, value.port(), second);
                        }
                    }
                }
            })
        });
        // Until the readers have had a core, and only as long as they are there.
        let in_vain =
            || hits.load(Relaxed) == 0 && !readers.iter().any(ScopedJoinHandle::is_finished);
        for round in (0..).take_while(|round: &u64| *round < 60_000 || in_vain()) {
            let mac = round.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let mac = mac % 200;
            // Two possible ports for each address, so that it moves too.
            let port = u16::try_from(mac % PORTS + PORTS * (round % 2)).unwrap();
            fdb.write().learn(key(mac), fdb.hash(key(mac)), port);
            if round % 7 == 0 {
                fdb.write().remove(key(mac));
            }
        }
        stop.store(true, Relaxed);
    });
    assert!(hits.load(Relaxed) > 0);
    assert!(fdb.len() <= 12 && fdb.list().len() == fdb.len());
}

#[test]
fn after_much_churn_everything_is_found_and_marks_are_exact() {
    const LIMIT: usize = 1_024;
    let fdb = Fdb::new(LIMIT, 4, 0);
    let mut present = BTreeSet::new();
    let mut state = 1_u64;
    for _ in 0..60_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let mac = (state >> 40) % 3_000;
        if present.remove(&mac) {
            assert!(fdb.write().remove(key(mac)));
        } else if present.len() < LIMIT {
            assert_eq!(learn(&fdb, mac, 1), Learned::New);
            present.insert(mac);
        }
    }
    assert_eq!((fdb.len(), fdb.report().evicted), (present.len(), 0));
    for mac in 0..3_000 {
        assert_eq!(port_of(&fdb, mac).is_some(), present.contains(&mac));
    }
    let elsewhere = |fdb: &Fdb| {
        let index = fdb.index.lock().unwrap();
        index.overflows.iter().map(|count| *count as usize).sum::<usize>()
    };
    let in_second = present.iter().filter(|mac| {
        let hash = fdb.hash(key(**mac));
        fdb.table.position(key(**mac), hash).unwrap() / WAYS != fdb.table.first(hash)
    });
    assert_eq!(in_second.count(), elsewhere(&fdb));
    assert!(elsewhere(&fdb) > 0);
    fdb.write().flush(None);
    assert_eq!(elsewhere(&fdb), 0);
}
