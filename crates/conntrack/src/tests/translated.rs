//! Connections whose ends are translated.

use std::collections::HashSet;

use super::*;
use crate::table::Begun;
use crate::{Nat, NatEnd, Translation};

fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

/// Addresses of these hosts.
fn nat(end: NatEnd, (least, largest): (u8, u8)) -> Nat {
    let addresses = Some((host(least), host(largest)));
    Nat { end: Some(end), addresses, ..Nat::default() }
}

fn commit(nat: Nat) -> Request {
    Request { nat: Some(nat), ..COMMIT }
}

const KNOWN: Request = Request {
    nat: Some(Nat {
        end: None,
        addresses: None,
        ports: None,
        is_persistent: false,
        by_hash: false,
        is_random: false,
    }),
    ..LOOK
};

/// A packet with these ends.
fn of(tuple: Tuple) -> Seen {
    Seen { tuple, is_related: false, segment: None }
}

fn ends(tuple: &Tuple) -> ((IpAddr, u16), (IpAddr, u16)) {
    let (from, to) = tuple.ports();
    ((tuple.source(), from), (tuple.destination(), to))
}

/// What a packet is translated to, and what it is.
fn pass(lane: &mut Lane, seen: &Seen, request: &Request) -> (State, Option<Tuple>) {
    let (tracked, how) = lane.translate(Some(seen), request, 0);
    assert!(how.is_none_or(|how| how.before == seen.tuple && how.is_error == seen.is_related));
    (tracked.state, how.map(|how| how.after))
}

/// Two workers have a packet each of one that is not there yet, and there is one way to translate it.
#[test]
fn who_comes_second_has_what_the_first_has_begun() {
    let (all, _) = lane();
    let first = seen(50, (1, 0), (2, 0), 0);
    let snat = commit(nat(NatEnd::Source, (9, 9)));
    let begin = || all.begin((first.tuple.hash(all.seed()), None), &first, &snat, 0);
    assert!(matches!(begin(), Some(Begun::Now(_))));
    assert!(matches!(begin(), Some(Begun::Was(_))));
    assert_eq!(all.count(), 1);
}

#[test]
fn a_source_is_another_one_and_answers_find_back() {
    let (all, mut lane) = lane();
    let snat = commit(nat(NatEnd::Source, (9, 9)));
    let (there, back) = (udp((1, 5000), (2, 53)), udp((2, 53), (9, 5000)));
    let (state, after) = pass(&mut lane, &there, &snat);
    assert_eq!(state, NEW | State::SOURCE_NAT);
    assert_eq!(ends(&after.unwrap()), ((host(9), 5000), (host(2), 53)));
    for lane in [&mut lane, &mut Lane::new(Arc::clone(&all))] {
        let (state, after) = pass(lane, &back, &KNOWN);
        assert_eq!(state, REPLY | State::DESTINATION_NAT);
        assert_eq!(ends(&after.unwrap()), ((host(2), 53), (host(1), 5000)));
        let (state, after) = pass(lane, &there, &KNOWN);
        assert_eq!((state, after.unwrap().source()), (THERE | State::SOURCE_NAT, host(9)));
        // Who does not ask for it has nothing translated.
        assert_eq!(pass(lane, &back, &LOOK), (REPLY, None));
        // Ends as they are outside are of nobody inside.
        assert_eq!(pass(lane, &udp((2, 53), (1, 5000)), &KNOWN), (NEW, None));
        assert_eq!(pass(lane, &udp((9, 5000), (2, 53)), &KNOWN), (NEW, None));
    }
    let mut entries = Vec::new();
    all.for_each(0, |entry| entries.push((entry.original, entry.reply)));
    assert_eq!(entries, [(there.tuple, back.tuple)]);
    // It ends as a whole.
    assert!(all.flush_tuple(&back.tuple, 0));
    assert_eq!(pass(&mut lane, &back, &KNOWN), (NEW, None));
    assert_eq!((pass(&mut lane, &there, &LOOK), all.count()), ((NEW, None), 0));
}

#[test]
fn a_destination_and_its_port_are_others() {
    let (_, mut lane) = lane();
    let dnat = Nat { ports: Some((80, 80)), ..nat(NatEnd::Destination, (7, 7)) };
    let (state, after) = pass(&mut lane, &udp((1, 5000), (2, 8080)), &commit(dnat));
    assert_eq!(state, NEW | State::DESTINATION_NAT);
    assert_eq!(ends(&after.unwrap()), ((host(1), 5000), (host(7), 80)));
    let (state, after) = pass(&mut lane, &udp((7, 80), (1, 5000)), &KNOWN);
    assert_eq!(state, REPLY | State::SOURCE_NAT);
    assert_eq!(ends(&after.unwrap()), ((host(2), 8080), (host(1), 5000)));
    // Another way to the same server has another port of the client.
    let (_, after) = pass(&mut lane, &udp((1, 5000), (3, 8080)), &commit(dnat));
    let after = after.unwrap();
    assert_eq!((after.destination(), after.ports().1), (host(7), 80));
    assert_ne!(after.ports().0, 5000);
}

#[test]
fn a_packet_that_was_translated_is_known_as_it_is_then() {
    let (_, mut lane) = lane();
    let snat = commit(nat(NatEnd::Source, (9, 9)));
    let (_, after) = pass(&mut lane, &udp((1, 5000), (2, 53)), &snat);
    let again = Request { is_translated: true, ..LOOK };
    let outside = of(after.unwrap());
    assert_eq!(pass(&mut lane, &outside, &again), (NEW | State::SOURCE_NAT, None));
    let (_, after) = pass(&mut lane, &of(outside.tuple.reversed()), &KNOWN);
    let inside = of(after.unwrap());
    assert_eq!(pass(&mut lane, &inside, &again), (REPLY | State::DESTINATION_NAT, None));
    assert_eq!(pass(&mut lane, &inside, &LOOK), (NEW, None));
}

#[test]
fn ports_are_others_only_where_they_have_to_be() {
    let (_, mut lane) = lane();
    // Without an address, nothing changes for the first one.
    let same = Nat { end: Some(NatEnd::Source), ..Nat::default() };
    assert_eq!(
        pass(&mut lane, &udp((1, 5), (2, 53)), &commit(same)),
        (NEW | State::SOURCE_NAT, None)
    );
    assert_eq!(pass(&mut lane, &udp((2, 53), (1, 5)), &KNOWN).0, REPLY | State::DESTINATION_NAT);
    let pool = commit(nat(NatEnd::Source, (9, 9)));
    let mut used = HashSet::new();
    // However near to each other the ports are that are taken: here 400 of 511 are at last.
    for inside in 1..=4 {
        for port in 1..=100 {
            let (_, after) = pass(&mut lane, &udp((inside + 20, port), (2, 53)), &pool);
            let own = after.unwrap().ports().0;
            assert!(used.insert(own) && (1..512).contains(&own), "{own}");
            assert!(inside > 1 || own == port);
        }
    }
    let identifiers = [1, 2].map(|from| {
        let ping = seen(1, (from, 77), (2, 8), 0);
        pass(&mut lane, &ping, &pool).1.unwrap().query().unwrap().0
    });
    assert!(identifiers[0] == 77 && identifiers[1] != 77, "{identifiers:?}");
}

#[test]
fn ports_of_sctp_are_others_too() {
    let (_, mut lane) = lane();
    let few = Nat { ports: Some((100, 101)), ..nat(NatEnd::Source, (9, 9)) };
    let ports = [5000, 5001, 5002].map(|port| {
        let (_, after) = pass(&mut lane, &seen(132, (1, port), (2, 80), 0), &commit(few));
        after.map(|after| after.ports().0)
    });
    assert_eq!(ports.iter().flatten().collect::<HashSet<_>>(), HashSet::from([&100, &101]));
    assert_eq!(ports[2], None);
}

#[test]
fn who_has_taken_all_ports_holds_up_nobody() {
    let (all, mut lane) = lane();
    let few = Nat { ports: Some((100, 149)), ..nat(NatEnd::Source, (9, 9)) };
    let mut kept = 0;
    for port in 1..=200 {
        let (state, after) = pass(&mut lane, &udp((1, port), (2, 53)), &commit(few));
        kept += usize::from(after.is_some());
        assert_eq!(state, if after.is_some() { NEW | State::SOURCE_NAT } else { NEW });
        assert!(after.is_none_or(|after| (100..=149).contains(&after.ports().0)));
    }
    assert_eq!((kept, all.count(), all.zone_limit(0).count), (50, 50, 50));
    // However many there are, few are tried.
    let tuple = udp((1, 2_000), (2, 53)).tuple;
    for ports in [None, Some((1, 65_535)), Some((5, 5)), Some((100, 227)), Some((100, 228))] {
        for (end, most) in [(NatEnd::Source, 128), (NatEnd::Destination, 256)] {
            let nat = Nat { ports, is_random: true, ..nat(end, (1, 250)) };
            let tries: Vec<_> = nat
                .tries(&tuple, crate::nat::Chances::default().of(&tuple, &nat))
                .unwrap()
                .collect();
            assert!((1..=most).contains(&tries.len()), "{ports:?} {}", tries.len());
        }
    }
    // Those that end leave their ports to others.
    all.flush(None);
    assert!(pass(&mut lane, &udp((1, 999), (2, 53)), &commit(few)).1.is_some());
}

#[test]
fn errors_are_translated_back() {
    let (_, mut lane) = lane();
    pass(&mut lane, &udp((1, 5000), (2, 53)), &commit(nat(NatEnd::Source, (9, 9))));
    let about = Seen { is_related: true, ..udp((2, 53), (9, 5000)) };
    let (tracked, how) = lane.translate(Some(&about), &KNOWN, 0);
    let related = State::RELATED | State::REPLY | State::TRACKED;
    assert_eq!(tracked.state, related | State::DESTINATION_NAT);
    let after = udp((2, 53), (1, 5000)).tuple;
    assert_eq!(how, Some(Translation { before: about.tuple, after, is_error: true }));
    assert_eq!(lane.all().tell(Some(&about), &KNOWN, 0), (tracked, how));
}

#[test]
fn a_persistent_client_has_one_address() {
    let (_, mut lane) = lane();
    let pool = Nat { is_persistent: true, ..nat(NatEnd::Source, (100, 250)) };
    let address = |lane: &mut Lane, nat, port| {
        pass(lane, &udp((1, port), (2, port)), &commit(nat)).1.unwrap().source()
    };
    let all: HashSet<_> = (1..50).map(|port| address(&mut lane, pool, port)).collect();
    assert_eq!(all.len(), 1);
    let any = Nat { is_persistent: false, ..pool };
    let all: HashSet<_> = (50..150).map(|port| address(&mut lane, any, port)).collect();
    assert!(all.len() > 20, "{}", all.len());
}

#[test]
fn what_one_is_translated_to_is_taken_by_no_other() {
    let (all, mut lane) = lane();
    // Whoever goes to the server directly from the same port has to wait.
    let dnat = commit(nat(NatEnd::Destination, (7, 7)));
    pass(&mut lane, &udp((1, 5000), (2, 53)), &dnat);
    let direct = udp((1, 5000), (7, 53));
    assert_eq!(pass(&mut lane, &direct, &COMMIT), (NEW, None));
    assert_eq!((pass(&mut lane, &direct, &LOOK), all.count()), ((NEW, None), 1));
    // Or has another port.
    let same = Nat { end: Some(NatEnd::Source), ..Nat::default() };
    let (_, after) = pass(&mut lane, &direct, &commit(same));
    assert_ne!(after.unwrap().ports().0, 5000);
    let back = pass(&mut lane, &udp((7, 53), (1, 5000)), &KNOWN).1.unwrap();
    assert_eq!(ends(&back), ((host(2), 53), (host(1), 5000)));
}

#[test]
fn workers_at_once_share_no_ports() {
    let all = Arc::new(Conntrack::default());
    let worker = |from: u8| {
        let all = Arc::clone(&all);
        move || {
            let mut lane = Lane::new(all);
            let pool = commit(nat(NatEnd::Source, (9, 9)));
            let pass = |port| pass(&mut lane, &udp((from, port), (2, 53)), &pool).1;
            (2_000..2_400).filter_map(pass).collect::<Vec<_>>()
        }
    };
    let workers = [20, 21, 22, 20].map(|from| std::thread::spawn(worker(from)));
    let outside: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    let distinct: HashSet<_> = outside.iter().collect();
    assert_eq!((outside.len(), distinct.len(), all.count()), (1_600, 1_200, 1_200));
}

proptest! {
    /// Whatever is translated to whatever, both directions of each connection invert each other, and no
    /// packet is of two.
    #[test]
    fn both_directions_invert_each_other(packets in prop::collection::vec(
        (any::<[bool; 4]>(), 1..4_u8, 1..4_u8, 1..4_u16, prop::option::of(1..4_u16)),
        1..120,
    )) {
        let (all, first) = lane();
        let mut lanes = [first, Lane::new(Arc::clone(&all))];
        let mut known: HashMap<Tuple, Tuple> = HashMap::new();
        for ([is_icmp, is_source, lane, is_any], from, to, port, ports) in packets {
            let lane = &mut lanes[usize::from(lane)];
            let seen = match is_icmp {
                true => seen(1, (from, port), (to, 8), 0),
                false => udp((from, port), (to, port)),
            };
            if seen.tuple == seen.tuple.reversed() {
                // Who talks with himself has packets of which nobody can say where they go.
                continue;
            }
            let end = if is_source { NatEnd::Source } else { NatEnd::Destination };
            let addresses = (!is_any).then(|| (host(2), host(5)));
            let ports = ports.filter(|_| !is_any).map(|port| (port, 5));
            let nat = Nat { end: Some(end), addresses, ports, ..Nat::default() };
            let before = all.count();
            let told = all.tell(Some(&seen), &commit(nat), 0);
            let (tracked, how) = lane.translate(Some(&seen), &commit(nat), 0);
            if tracked.state.contains(State::NEW) && all.count() > before {
                prop_assert_eq!(told.0.state, tracked.state);
                let after = how.map_or(seen.tuple, |how| how.after);
                known.insert(seen.tuple, after);
                if !is_any && is_source {
                    prop_assert!((2..=5).any(|number| after.source() == host(number)));
                }
            }
        }
        let outside: HashSet<Tuple> = known.values().map(Tuple::canonical).collect();
        prop_assert_eq!((outside.len(), known.len()), (known.len(), all.count()));
        for (inside, outside) in &known {
            for lane in &mut lanes {
                let (tracked, how) = lane.translate(Some(&of(outside.reversed())), &KNOWN, 0);
                prop_assert!(tracked.state.contains(State::REPLY), "{:?} {:?}", inside, outside);
                let back = how.map_or(outside.reversed(), |how| how.after);
                prop_assert_eq!(back, inside.reversed());
                let (tracked, how) = lane.translate(Some(&of(*inside)), &KNOWN, 0);
                prop_assert!(tracked.state.contains(State::ESTABLISHED));
                prop_assert!(!tracked.state.contains(State::REPLY));
                prop_assert_eq!(how.map_or(*inside, |how| how.after), *outside);
            }
        }
        prop_assert_eq!(all.flush(None), known.len());
        for outside in known.values() {
            prop_assert!(all.tell(Some(&of(outside.reversed())), &LOOK, 0).0.state == NEW
                || outside.is_icmp());
        }
    }
}
