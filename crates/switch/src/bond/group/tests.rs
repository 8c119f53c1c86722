use super::*;

const MS: Duration = Duration::from_millis(1);

fn seen(links: &[(u16, bool)]) -> Vec<Seen> {
    let seen = |(port, is_up): &(u16, bool)| Seen {
        is_answered: true,
        port: *port,
        name: format!("eth{port}"),
        is_up: *is_up,
        is_agreed: true,
    };
    links.iter().map(seen).collect()
}

fn group(settings: &Bonding) -> Group {
    let mut group = Group::default();
    group.set(settings);
    group
}

impl Group {
    fn step(&mut self, links: &[(u16, bool)], now: Instant) -> bool {
        self.run(seen(links), Agreement::None, now)
    }

    fn receives(&self) -> Vec<(u16, Receives)> {
        let way = self.way(BridgeId::DEFAULT);
        way.members.iter().map(|one| (one.port, one.receives)).collect()
    }
}

#[test]
fn the_next_member_takes_over_when_the_active_one_fails() {
    let mut group = group(&Bonding::default());
    let now = Instant::now();
    assert!(!group.step(&[(7, false), (3, false)], now));
    assert_eq!((group.active(), group.is_up()), (None, false));
    assert!(group.step(&[(7, true), (3, true)], now));
    assert_eq!((group.active(), group.due()), (Some(3), None));
    assert!(!group.step(&[(7, false), (3, true)], now));
    assert!(!group.step(&[(7, true), (3, true)], now));
    assert!(group.step(&[(7, true), (3, false)], now));
    assert_eq!(group.active(), Some(7));
    // It stays, though the other one comes back.
    assert!(!group.step(&[(7, true), (3, true)], now));
    assert!(group.step(&[(3, true)], now), "its port is gone");
    assert_eq!((group.active(), group.members().len(), group.changes), (Some(3), 1, 3));
    assert_eq!(group.members()[0].failures, 1);
}

#[test]
fn the_primary_one_is_active_whenever_it_can() {
    let primary = Some("eth7".to_owned());
    let mut group = group(&Bonding { primary, updelay: 100, ..Bonding::default() });
    let mut now = Instant::now();
    let (both, one) = ([(3, true), (7, true)], [(3, true), (7, false)]);
    group.step(&one, now);
    assert_eq!(group.active(), Some(3), "nobody waits while there is no other");
    assert!(!group.step(&both, now));
    assert_eq!(group.due(), Some(now + 100 * MS));
    now += 99 * MS;
    assert!(!group.step(&both, now));
    now += MS;
    assert!(group.step(&both, now));
    assert_eq!((group.active(), group.due()), (Some(7), None));
}

#[test]
fn a_link_that_comes_back_in_time_was_never_down() {
    let mut group = group(&Bonding { downdelay: 50, ..Bonding::default() });
    let mut now = Instant::now();
    group.step(&[(3, true), (7, true)], now);
    for _ in 0..3 {
        assert!(!group.step(&[(3, false), (7, true)], now));
        assert_eq!(group.due(), Some(now + 50 * MS));
        now += 49 * MS;
        assert!(!group.step(&[(3, true), (7, true)], now));
        assert_eq!(group.due(), None);
    }
    group.step(&[(3, false), (7, true)], now);
    // A shorter delay holds for a wait that has begun, too.
    group.set(&Bonding { downdelay: 10, ..Bonding::default() });
    group.step(&[(3, false), (7, true)], now);
    assert_eq!(group.due(), Some(now + 10 * MS));
    assert!(group.step(&[(3, false), (7, true)], now + 10 * MS));
    assert_eq!(group.active(), Some(7));
}

#[test]
fn workers_send_to_the_active_member_and_receive_from_it_alone() {
    let mut group = group(&Bonding::default());
    let bridge = BridgeId(5);
    group.step(&[], Instant::now());
    assert_eq!(group.way(bridge).table, [NOBODY; BUCKETS]);
    group.step(&[(3, true), (7, true)], Instant::now());
    let way = group.way(bridge);
    assert_eq!((way.bridge, way.table), (bridge, [3; BUCKETS]));
    assert!(!way.comes_back && way.division == Division::Whole);
    assert_eq!(group.receives(), [(3, Receives::All), (7, Receives::Nothing)]);
}

#[test]
fn by_source_all_hear_groups_where_that_is_wanted() {
    let mode = BondMode::BalanceSlb;
    let mut group = group(&Bonding { mode, all_members_active: true, ..Bonding::default() });
    group.step(&[(3, true), (7, true), (9, false)], Instant::now());
    let heard = [(3, Receives::All), (7, Receives::All), (9, Receives::Nothing)];
    assert_eq!(group.receives(), heard);
    group.set(&Bonding { all_members_active: true, ..Bonding::default() });
    group.step(&[(3, true), (7, true)], Instant::now());
    assert_eq!(group.receives(), [(3, Receives::All), (7, Receives::Nothing)], "one backs up");
}

#[test]
fn loads_are_told_of_those_who_have_them_and_half_of_them_is_forgotten_in_time() {
    let mode = BondMode::BalanceSlb;
    let mut group = group(&Bonding { mode, rebalance_interval: Some(1_000), ..Bonding::default() });
    let start = Instant::now();
    group.step(&[(3, true), (7, true)], start);
    let mut sent = [0; BUCKETS];
    assert_eq!(group.loads(3, &sent), [], "nothing is moved yet");
    group.rebalance(|| sent, start);
    assert_eq!(group.rebalance_due(), Some(start + 1_000 * MS));
    sent[5] = 4_000;
    let table = group.way(BridgeId::DEFAULT).table;
    let (with, without) = if table[5] == 3 { (3, 7) } else { (7, 3) };
    let loads = |group: &Group, sent: [u64; BUCKETS]| {
        [with, without].map(|member| group.loads(member, &sent))
    };
    assert_eq!(loads(&group, sent), [vec![(5, 4_000)], vec![]]);
    group.rebalance(|| sent, start + 1_000 * MS);
    assert_eq!(loads(&group, sent), [vec![(5, 2_000)], vec![]]);
    sent[5] += 1_000;
    assert_eq!(loads(&group, sent), [vec![(5, 3_000)], vec![]]);
    group.rebalance(|| sent, start + 2_000 * MS);
    assert_eq!(loads(&group, sent), [vec![(5, 1_500)], vec![]]);
    group.step(&[(3, with == 7), (7, with == 3)], start + 2_000 * MS);
    assert_eq!(loads(&group, sent), [vec![], vec![(5, 1_500)]], "it goes with its part");
}

#[test]
fn by_source_all_send_and_one_hears_groups() {
    let mut group = group(&Bonding { mode: BondMode::BalanceSlb, ..Bonding::default() });
    let now = Instant::now();
    group.step(&[(3, true), (7, true)], now);
    let way = group.way(BridgeId::DEFAULT);
    assert!(way.comes_back && way.division == Division::Source);
    assert_eq!([3, 7].map(|port| group.share(port)), [128, 128]);
    assert_eq!(group.receives(), [(3, Receives::All), (7, Receives::Unicast)]);
    group.step(&[(3, false), (7, true)], now);
    assert_eq!(group.receives(), [(3, Receives::Nothing), (7, Receives::All)]);
    assert_eq!(group.share(7), BUCKETS);
    // With an agreement, the other end sends each frame once.
    group.run(seen(&[(3, true), (7, true)]), Agreement::Reached, now);
    assert_eq!(group.receives(), [(3, Receives::All), (7, Receives::All)]);
    assert!(!group.way(BridgeId::DEFAULT).comes_back);
}

#[test]
fn what_is_not_agreed_on_is_not_used_and_agreements_wait_for_no_delay() {
    let settings =
        Bonding { mode: BondMode::BalanceTcp, updelay: 100, downdelay: 100, ..Bonding::default() };
    let mut group = group(&settings);
    let now = Instant::now();
    let agreed = |agreed: [bool; 2]| {
        let both = seen(&[(3, true), (7, true)]).into_iter().zip(agreed);
        both.map(|(seen, is_agreed)| Seen { is_agreed, ..seen }).collect::<Vec<_>>()
    };
    group.run(agreed([false, false]), Agreement::Missing, now);
    assert!(!group.is_up());
    group.run(agreed([false, true]), Agreement::Reached, now);
    assert_eq!((group.active(), group.share(7)), (Some(7), BUCKETS));
    group.run(agreed([true, true]), Agreement::Reached, now);
    assert_eq!((group.share(3), group.due()), (128, None));
    group.run(agreed([true, false]), Agreement::Reached, now);
    assert_eq!((group.active(), group.share(3)), (Some(3), BUCKETS));
    // Nobody answers any more, and members are used one at a time where that is wanted.
    group.run(agreed([true, true]), Agreement::Missing, now);
    assert_eq!(group.way(BridgeId::DEFAULT).division, Division::Whole);
}

#[test]
fn load_is_moved_when_it_is_time() {
    let interval = Some(5_000);
    let settings =
        Bonding { mode: BondMode::BalanceSlb, rebalance_interval: interval, ..Bonding::default() };
    let mut group = group(&settings);
    let mut now = Instant::now();
    group.step(&[(3, true), (7, true)], now);
    let table = group.way(BridgeId::DEFAULT).table;
    let places: Vec<usize> = (0..BUCKETS).filter(|place| table[*place] == 3).take(2).collect();
    let mut sent = [0; BUCKETS];
    sent[places[0]] = 1 << 40;
    group.rebalance(|| sent, now);
    assert_eq!(group.due(), Some(now + 5_000 * MS));
    // Only what has been sent since counts.
    for place in &places {
        sent[*place] += 10_000_000;
    }
    now += 4_999 * MS;
    group.rebalance(|| sent, now);
    assert_eq!(group.moved, 0);
    now += MS;
    group.rebalance(|| sent, now);
    assert_eq!((group.moved, group.due()), (1, Some(now + 5_000 * MS)));
    let moved = places.iter().filter(|place| group.way(BridgeId::DEFAULT).table[**place] == 7);
    assert_eq!(moved.count(), 1);
    // The next run leaves it there.
    group.step(&[(3, true), (7, true)], now);
    assert_eq!([3, 7].map(|port| group.share(port)), [127, 129]);
    group.set(&Bonding { rebalance_interval: Some(0), ..settings });
    group.rebalance(|| unreachable!(), now);
    assert_eq!(group.due(), None);
}
