use std::sync::Arc;

use openflow::{Action, Field, Instructions, Match};

use crate::cache::PathCache;
use crate::cache::changes::tests::{change_own, key, output, own, passes, rule, set};
use crate::cache::effort::STEPS_OF_VERSION;
use crate::key::Key;
use crate::pipeline::{Pipeline, Port};
use crate::tables::Change;
use crate::walk::{Start, walk};

#[test]
fn rules_that_write_other_fields_leave_exchanges_be() {
    let (mut flows, mut worker) = own();
    // From now on it counts what protocol it is.
    rule(&mut flows, (9, 7), Match::new(), vec![set(Field::UdpDst, 1)]);
    worker.update(&flows);
    let address = packet::MacAddr([0, 0, 0, 0, 0, 9]);
    let others = [
        (Action::DecTtl(None), Field::IpDst, Field::NwTtl),
        (Action::SetNwTtl(7), Field::IpDst, Field::NwTtl),
        (Action::SetNwTos(8), Field::IpDst, Field::UdpDst),
        (Action::SetNwEcn(1), Field::IpDst, Field::UdpDst),
        (Action::SetL4Dst(80), Field::IpDst, Field::IpDscp),
        (Action::SetL4Src(80), Field::IpDst, Field::IpDscp),
        (Action::SetEthSrc(address), Field::IpDst, Field::EthSrc),
        (Action::SetEthDst(address), Field::NwTtl, Field::EthDst),
        (Action::SetIpSrc(9.into()), Field::NwTtl, Field::IpDst),
        (Action::SetIpDst(9.into()), Field::NwTtl, Field::IpDst),
        (Action::PushVlan { ethertype: 0x8100 }, Field::EthDst, Field::VlanPcp),
        (Action::StripVlan, Field::EthDst, Field::VlanPcp),
    ];
    for (behind, other, own) in others {
        let actions = vec![behind.clone(), Action::resubmit_table(3)];
        rule(&mut flows, (2, 1), Match::new(), actions);
        passes(&mut flows, &mut worker, &|_| ());
        let mut walks = |field, value| {
            let change = |flows: &mut _| change_own(flows, 1, Some((&[set(field, value)], 1)));
            passes(&mut flows, &mut worker, &change).0
        };
        // At first it is another operation.
        assert_eq!([2, 3, 4].map(|value| walks(other, value))[1..], [0, 0], "{behind:?}");
        assert!([2, 3, 4].map(|value| walks(own, value))[1..] == [1, 1], "{behind:?}");
    }
    worker.check_counts().unwrap();
}

/// Flows that each have a rule of their own, which goes on to tables that a packet comes to so often.
struct Flows {
    flows: Pipeline,
    cache: PathCache,
    count: u32,
}

/// Of a rule that has another one behind it come so often.
const TIMES: usize = 60;

impl Flows {
    /// Of packets that come to `deep` tables, in each of which all behind it come [`TIMES`] times; their paths are known, and
    /// noted.
    fn new(count: u32, deep: u8) -> Self {
        let mut flows = Pipeline::default();
        flows.ports.insert(openflow::PortNo(2), Port::new(2));
        for table in 1..=deep {
            let mut actions = vec![Action::resubmit_table(table + 1); TIMES];
            if table == deep {
                actions = vec![output(2)];
            }
            rule(&mut flows, (table, 1), Match::new(), actions);
        }
        let cache = PathCache::new(Arc::new(flows.clone()));
        let mut all = Self { flows, cache, count };
        (0..count).for_each(|flow| all.change(flow, 1));
        // So that it is noted what packets are.
        for priority in 5..11 {
            all.update();
            all.pass();
            let some = Match::new().with(Field::EthSrc, 1);
            rule(&mut all.flows, (1, priority), some, vec![output(3)]);
        }
        all.update();
        all.pass();
        all
    }

    /// The rule of a flow writes this.
    fn change(&mut self, flow: u32, value: u128) {
        let matching = Match::new().with(Field::EthDst, flow.into());
        let actions = vec![set(Field::Reg4, value), Action::resubmit_table(1)];
        rule(&mut self.flows, (0, 100), matching, actions);
    }

    /// Gives how many rules are exchanged at once.
    fn update(&mut self) -> u64 {
        let before = self.cache.stats().renewed;
        self.cache.update(Arc::new(self.flows.clone()), 0);
        self.cache.stats().renewed - before
    }

    /// A packet of a flow comes, and takes the way that it has to.
    fn meet(&mut self, key: &Key) {
        self.cache.begin(0);
        let id = self.cache.find(key);
        self.cache.count(id, 1, 60);
        let wanted = walk(&self.flows, &mut key.clone(), &Start::Table, None);
        assert!(*self.cache.path(id).unwrap() == wanted);
    }

    /// The same of all flows. Gives how many go through the tables.
    fn pass(&mut self) -> u64 {
        let before = self.cache.stats().misses;
        (0..self.count).for_each(|flow| self.meet(&key(flow.into(), 0, 1, 0)));
        self.cache.stats().misses - before
    }
}

#[test]
fn what_is_looked_at_for_all_paths_at_once_is_bounded() {
    // One has 3, or 63, or 3,663 visits, and may have twice as many steps as visits by what they do.
    let most = |flows: u32, deep| {
        let mut all = Flows::new(flows, deep);
        let counts: Vec<u64> = (2..5)
            .map(|value| {
                (0..flows).for_each(|flow| all.change(flow, value));
                let exchanged = all.update();
                // What is left is exchanged by its packet.
                assert_eq!(all.pass(), 0, "{value}");
                exchanged
            })
            .collect();
        counts
    };
    assert_eq!(most(300, 1), [256; 3]);
    assert_eq!(most(40, 2), [40; 3]);
    let visits = TIMES * TIMES + TIMES + 2;
    let bound = (STEPS_OF_VERSION / visits) as u64;
    assert!(most(8, 3).iter().all(|exchanged| (1..=bound).contains(exchanged)), "{bound}");
}

#[test]
fn only_packets_keep_a_path_young() {
    let mut all = Flows::new(4, 1);
    let exchanged = |all: &mut Flows, value| {
        (0..4).for_each(|flow| all.change(flow, value));
        all.update()
    };
    // Two flows send packets, one of them after all was told that was counted.
    assert_eq!((exchanged(&mut all, 2), exchanged(&mut all, 3)), (4, 0));
    all.meet(&key(0, 0, 1, 0));
    all.cache.flush(1);
    assert_eq!((exchanged(&mut all, 4), exchanged(&mut all, 5)), (1, 0));
    all.cache.flush(2);
    all.meet(&key(1, 0, 1, 0));
    assert_eq!((exchanged(&mut all, 6), exchanged(&mut all, 7)), (1, 0));
    // Whoever comes late finds the rule of now, without a walk.
    assert_eq!(all.pass(), 0);
    // What nobody takes is of no use in the end, whatever becomes of its rule.
    for number in 0..200_u128 {
        (2..4).for_each(|flow| all.change(flow, number));
        let near = Match::new().with(Field::EthDst, number % 2);
        let add = Change::add(0, near.clone(), Instructions::default()).with_priority(200);
        match number % 4 {
            0 | 1 => drop(all.flows.tables.change(&add, 0).unwrap()),
            _ => drop(all.flows.tables.change(&Change::delete(Some(0), near), 0).unwrap()),
        }
        (0..2).for_each(|flow| all.change(flow, 1));
        all.update();
        (0..2).for_each(|flow| all.meet(&key(flow, 0, 1, 0)));
    }
    assert!(all.cache.stats().paths <= 3, "{:?}", all.cache.stats());
}

#[test]
fn many_changes_of_a_large_table_are_about_those_that_they_are_about() {
    let mut all = Flows::new(4, 1);
    let elsewhere = |all: &mut Flows, addresses: std::ops::Range<u128>, to| {
        for address in addresses {
            let matching = Match::new().with(Field::EthDst, address);
            rule(&mut all.flows, (0, 200), matching, vec![output(to)]);
        }
    };
    // So that it is noted where packets go to.
    for number in 0..64 {
        elsewhere(&mut all, 900 + number..901 + number, 2);
        all.update();
        all.pass();
    }
    // More than any path is compared with have come, and are other ones, and are gone.
    elsewhere(&mut all, 1000..3000, 2);
    all.update();
    assert_eq!(all.pass(), 0);
    for to in 3..6 {
        elsewhere(&mut all, 1000..3000, to);
        (0..4).for_each(|flow| all.change(flow, to.into()));
        all.update();
        assert_eq!(all.pass(), 0);
    }
    for address in 1000..2000_u128 {
        let gone = Change::delete(Some(0), Match::new().with(Field::EthDst, address));
        all.flows.tables.change(&gone, 0).unwrap();
    }
    all.update();
    assert_eq!(all.pass(), 0);
    // As many that may be for packets: all are decided anew, once.
    for port in 1000..2000_u128 {
        let matching = Match::new().with(Field::InPort, port).with(Field::EthSrc, 0);
        rule(&mut all.flows, (0, 200), matching, vec![output(2)]);
    }
    all.update();
    assert_eq!([all.pass(), all.pass()], [4, 0]);
}

#[test]
fn a_long_path_is_not_compared_with_ever_more_changes() {
    let mut all = Flows::new(2, 3);
    // Rules come below the one that packets find, and may be for any of these.
    let mut masks = (1..40_u32).map(|bit| 1 << bit);
    let mut walks = |versions| {
        for mask in masks.by_ref().take(versions) {
            let some = Match::new().with_masked(Field::EthDst, 0, mask);
            rule(&mut all.flows, (2, 0), some, vec![output(3)]);
            all.update();
        }
        all.pass()
    };
    assert_eq!([walks(2), walks(2)], [0, 0]);
    assert_eq!([walks(30), walks(2)], [2, 0]);
}
