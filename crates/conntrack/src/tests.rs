//! All of it together: what packets are said to be, compared with a simple model.

mod related;
mod translated;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use packet::headers::IpProtocol;
use packet::headers::tcp::TcpFlags;
use proptest::prelude::*;

use crate::{Conntrack, Lane, Request, Seen, Segment, State, Tracked, Tuple};

const NEW: State = State(0x21);
const REPLY: State = State(0x2A);
const THERE: State = State(0x22);
const INVALID: State = State(0x30);

const COMMIT: Request = Request {
    zone: 0,
    commit: true,
    force: false,
    mark: None,
    label: None,
    nat: None,
    helper: None,
    is_translated: false,
    before: None,
};
const LOOK: Request = Request { commit: false, ..COMMIT };

/// A packet between two of four hosts.
fn seen(protocol: u8, from: (u8, u16), to: (u8, u16), zone: u16) -> Seen {
    let end = |(host, port): (u8, u16)| (IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port);
    let tuple = Tuple::new(IpProtocol(protocol), end(from), end(to), zone).unwrap();
    Seen { tuple, is_related: false, segment: None }
}

fn udp(from: (u8, u16), to: (u8, u16)) -> Seen {
    seen(17, from, to, 0)
}

fn tcp(from: (u8, u16), to: (u8, u16), flags: TcpFlags, numbers: (u32, u32), len: u32) -> Seen {
    let (sequence, acknowledgment) = numbers;
    let segment = Segment { flags, sequence, acknowledgment, window: 1000, len, scale: None };
    Seen { segment: Some(segment), ..seen(6, from, to, 0) }
}

fn lane() -> (Arc<Conntrack>, Lane) {
    let all = Arc::new(Conntrack::default());
    (Arc::clone(&all), Lane::new(all))
}

/// One of TCP that is taken up in mid-stream is open with its second packet, not where its first one is tracked twice.
#[test]
fn packets_that_are_tracked_again_stay_what_they_were() {
    let (_, mut lane) = lane();
    let first = tcp((1, 5), (2, 80), TcpFlags::ACK, (7, 9), 3);
    assert_eq!(lane.track(Some(&first), &LOOK, 0).state, NEW);
    // There is no connection that it is of.
    let again = Request { before: Some(NEW), ..LOOK };
    assert_eq!(lane.track(Some(&first), &again, 0).state, NEW);
    assert_eq!(lane.track(Some(&first), &COMMIT, 0).state, NEW);
    let marked = Request { before: Some(NEW), mark: Some((5, u32::MAX)), ..COMMIT };
    for request in [again, marked] {
        let tracked = lane.track(Some(&first), &request, 0);
        assert_eq!((tracked.state, tracked.mark), (NEW, request.mark.map_or(0, |(mark, _)| mark)));
    }
    let second = tcp((1, 5), (2, 80), TcpFlags::ACK, (10, 9), 3);
    assert_eq!(lane.track(Some(&second), &LOOK, 0).state, State::ESTABLISHED | State::TRACKED);
    // What may announce something is looked at each time.
    let control = tcp((1, 5), (2, 21), TcpFlags::ACK, (7, 9), 3);
    assert_eq!(lane.track(Some(&control), &COMMIT, 0).state, NEW);
    let open = State::ESTABLISHED | State::TRACKED;
    assert_eq!(lane.track(Some(&control), &again, 0).state, open);
}

#[test]
fn connections_end_when_their_time_is_over() {
    let (all, mut lane) = lane();
    let (there, back) = (udp((1, 5), (2, 53)), udp((2, 53), (1, 5)));
    assert_eq!(lane.track(Some(&there), &COMMIT, 0).state, NEW);
    assert_eq!(lane.track(Some(&back), &LOOK, 1_000).state, REPLY);
    assert_eq!(lane.track(Some(&there), &LOOK, 30_000).state, THERE);
    assert_eq!(all.sweep(59_999, 1_000_000), 0);
    assert_eq!(lane.track(Some(&back), &LOOK, 60_000).state, NEW);
    assert_eq!((all.count(), all.sweep(60_000, 1_000_000), all.count()), (1, 1, 0));
}

/// A clock that is told once a second has a packet come up to a second earlier than it does.
#[test]
fn a_clock_that_is_behind_ends_no_connection_too_soon() {
    use std::time::Duration;

    use crate::{Stage, Timeouts};
    let all = Arc::new(Conntrack::with_lag(&Timeouts::default(), Duration::from_secs(1)));
    let mut lane = Lane::new(Arc::clone(&all));
    let second = Timeouts::default().with(Stage::OtherFirst, Duration::from_secs(1));
    all.set_zone_timeouts(5, Some(&second));
    for zone in [0, 5] {
        let request = Request { zone, ..COMMIT };
        lane.track(Some(&seen(17, (1, 5), (2, 53), zone)), &request, 7_000);
    }
    let left = |now| {
        let mut left = Vec::new();
        all.for_each(now, |entry| left.push((entry.original.zone(), entry.left)));
        left.sort_unstable();
        left
    };
    assert_eq!(left(7_000), [(0, 60_000), (5, 1_000)]);
    assert_eq!(left(8_999), [(0, 58_001), (5, 0)]);
    assert_eq!(left(9_000), [(0, 58_000)]);
    all.set_zone_timeouts(5, None);
    assert_eq!(all.sweep(9_000, 1_000_000), 1);
}

#[test]
fn zones_have_timeouts() {
    use std::time::Duration;

    use crate::{Stage, Timeouts};
    let (all, mut lane) = lane();
    let of = |seconds| Timeouts::default().with(Stage::OtherFirst, Duration::from_secs(seconds));
    let left = |all: &Conntrack| {
        let mut left = Vec::new();
        all.for_each(0, |entry| left.push((entry.original.zone(), entry.left)));
        left.sort_unstable();
        left
    };
    all.set_zone_timeouts(5, Some(&of(3)));
    for zone in [4, 5] {
        let request = Request { zone, ..COMMIT };
        lane.track(Some(&seen(17, (1, 5), (2, 53), zone)), &request, 0);
    }
    assert_eq!(left(&all), [(4, 60_000), (5, 3_000)]);
    // Who had timeouts of his zone has its new ones with his next packet.
    let next = |all: &Conntrack, lane: &mut Lane, timeouts: Option<&Timeouts>| {
        all.set_zone_timeouts(5, timeouts);
        let request = Request { zone: 5, ..COMMIT };
        lane.track(Some(&seen(17, (1, 5), (2, 53), 5)), &request, 0);
        left(all)[1].1
    };
    let multiple = Timeouts::default().with(Stage::OtherMultiple, Duration::from_secs(9));
    assert_eq!(next(&all, &mut lane, Some(&multiple)), 9_000);
    assert_eq!(next(&all, &mut lane, None), 60_000);
}

#[test]
fn force_turns_a_connection_round() {
    let (all, mut lane) = lane();
    let (there, back) = (udp((1, 5), (2, 53)), udp((2, 53), (1, 5)));
    let force = Request { force: true, ..COMMIT };
    lane.track(Some(&there), &force, 0);
    assert_eq!(lane.track(Some(&there), &force, 0).state, NEW);
    let tracked = lane.track(Some(&back), &force, 0);
    assert_eq!((tracked.state, tracked.original), (NEW, Some(*back.tuple())));
    assert_eq!((lane.track(Some(&there), &LOOK, 0).state, all.count()), (REPLY, 1));
}

#[test]
fn marks_and_labels_are_written_by_bits() {
    let (all, mut lane) = lane();
    let there = udp((1, 5), (2, 53));
    let write = Request { mark: Some((0xFF, 0x0F)), label: Some((1 << 100, u128::MAX)), ..COMMIT };
    let tracked = lane.track(Some(&there), &write, 0);
    assert_eq!((tracked.mark, tracked.label), (0x0F, 1 << 100));
    let write = Request { mark: Some((0xF0, 0xF0)), label: Some((7, 7)), ..COMMIT };
    let tracked = lane.track(Some(&there), &write, 0);
    assert_eq!((tracked.mark, tracked.label), (0xFF, 1 << 100 | 7));
    let mut entries = Vec::new();
    all.for_each(0, |entry| entries.push(entry));
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((entry.mark, entry.label, entry.left), (0xFF, 1 << 100 | 7, 60_000));
    assert_eq!(entry.reply, entry.original.reversed());
}

/// Workers go on while it is found out which ones are meant; one that begins anew meanwhile is another one.
#[test]
fn invalid_packets_write_nothing_however_often_they_are_tracked() {
    let (_, mut lane) = lane();
    let first = tcp((1, 5), (2, 80), TcpFlags::SYN, (7, 0), 0);
    let answer = tcp((2, 80), (1, 5), TcpFlags::SYN | TcpFlags::ACK, (100, 8), 0);
    lane.track(Some(&first), &Request { mark: Some((3, 3)), ..COMMIT }, 0);
    lane.track(Some(&answer), &LOOK, 0);
    let strange = tcp((1, 5), (2, 80), TcpFlags::ACK, (0x7000_0000, 101), 5);
    let before = lane.track(Some(&strange), &LOOK, 0).state;
    assert_eq!(before, INVALID);
    let written = Request { mark: Some((9, u32::MAX)), label: Some((5, u128::MAX)), ..COMMIT };
    for before in [None, Some(before)] {
        let told = lane.track(Some(&strange), &Request { before, ..written }, 0);
        assert_eq!((told.state, told.mark, told.label), (INVALID, 3, 0), "{before:?}");
    }
    let right = tcp((1, 5), (2, 80), TcpFlags::ACK, (8, 101), 0);
    let told = lane.track(Some(&right), &LOOK, 0);
    assert_eq!((told.state, told.mark, told.label), (THERE, 3, 0));
    let told = lane.track(Some(&right), &Request { before: Some(told.state), ..written }, 0);
    assert_eq!((told.state, told.mark, told.label), (THERE, 9, 5));
}

#[test]
fn only_those_end_that_were_judged() {
    let (all, lane) = lane();
    let lane = std::cell::RefCell::new(lane);
    let track = |from| lane.borrow_mut().track(Some(&udp((1, from), (2, 53))), &COMMIT, 0);
    track(5);
    track(6);
    let ended = all.flush_if(0, |entry| {
        if entry.original.ports().0 == 5 {
            assert!(all.flush_tuple(&entry.original, 0));
            track(5);
        }
        true
    });
    let mut left = Vec::new();
    all.for_each(0, |entry| left.push(entry.original.ports().0));
    assert_eq!((ended, left, all.count()), (1, vec![5], 1));
}

#[test]
fn errors_are_related() {
    let (_, mut lane) = lane();
    let about = Seen { is_related: true, ..udp((2, 53), (1, 5)) };
    assert_eq!(lane.track(Some(&about), &COMMIT, 0).state, INVALID);
    lane.track(Some(&udp((1, 5), (2, 53))), &COMMIT, 0);
    let tracked = lane.track(Some(&about), &LOOK, 0);
    assert_eq!(tracked, lane.all().tell(Some(&about), &LOOK, 0).0);
    assert_eq!(tracked.state, State::RELATED | State::REPLY | State::TRACKED);
    assert_eq!(lane.track(None, &LOOK, 0), Tracked::invalid(0));
}

#[test]
fn a_flood_makes_room_for_itself_only() {
    let (all, mut lane) = lane();
    all.set_limit(200);
    let answered = |lane: &mut Lane, port| {
        lane.track(Some(&udp((1, port), (2, 53))), &COMMIT, 0);
        lane.track(Some(&udp((2, 53), (1, port))), &COMMIT, 0);
    };
    (1..=100).for_each(|port| answered(&mut lane, port));
    for port in 1..2_000 {
        let state = lane.track(Some(&udp((3, port), (2, 53))), &COMMIT, 0).state;
        assert_eq!(state, NEW);
    }
    assert!((100..=200).contains(&all.count()), "{}", all.count());
    for port in 1..=100 {
        assert_eq!(lane.track(Some(&udp((1, port), (2, 53))), &LOOK, 0).state, THERE);
    }
    // Where all are answered, there is no room for another one.
    all.flush(None);
    all.set_limit(100);
    (1..=100).for_each(|port| answered(&mut lane, port));
    answered(&mut lane, 101);
    assert_eq!(
        (all.count(), lane.track(Some(&udp((1, 101), (2, 53))), &LOOK, 0).state),
        (100, NEW)
    );
}

#[test]
fn zones_have_limits() {
    let (all, mut lane) = lane();
    all.set_zone_limit(7, Some(2));
    all.set_default_zone_limit(3);
    let count = |lane: &mut Lane, zone: u16| {
        let request = Request { zone, ..COMMIT };
        (1..=5)
            .for_each(|port| _ = lane.track(Some(&seen(17, (1, port), (2, 9), zone)), &request, 0));
        all.zone_limit(zone).count
    };
    assert_eq!((count(&mut lane, 7), count(&mut lane, 300)), (2, 3));
    all.set_zone_limit(7, None);
    all.set_default_zone_limit(0);
    assert_eq!((count(&mut lane, 7), all.count()), (5, 8));
    assert_eq!((all.flush(Some(7)), all.zone_limit(7).count, all.count()), (5, 0, 3));
    assert!(all.zone_limits().is_empty());
    all.set_zone_limit(300, Some(9));
    assert_eq!(all.zone_limits().iter().map(|zone| zone.count).collect::<Vec<_>>(), [3]);
}

#[test]
fn who_has_no_room_in_his_zone_takes_nobody_elses() {
    let (all, mut lane) = lane();
    all.set_limit(64);
    all.set_zone_limit(7, Some(1));
    let in_zone = Request { zone: 7, ..COMMIT };
    lane.track(Some(&seen(17, (1, 1), (2, 9), 7)), &in_zone, 0);
    (1..64).for_each(|port| _ = lane.track(Some(&udp((1, port), (2, 53))), &COMMIT, 0));
    for port in 2..2_000 {
        lane.track(Some(&seen(17, (1, port), (2, 9), 7)), &in_zone, 0);
    }
    assert_eq!((all.count(), all.zone_limit(7).count), (64, 1));
    // Nor does he take a place in his zone where there is none in the whole.
    all.set_limit(0);
    all.flush(None);
    lane.track(Some(&seen(17, (1, 1), (2, 9), 7)), &in_zone, 0);
    assert_eq!((all.count(), all.zone_limit(7).count), (0, 0));
}

#[test]
fn one_that_is_over_leaves_its_place_in_the_zone() {
    let (all, mut lane) = lane();
    all.set_default_zone_limit(1);
    lane.track(Some(&udp((1, 5), (2, 53))), &COMMIT, 0);
    lane.track(Some(&udp((1, 5), (2, 53))), &COMMIT, 100_000);
    let there = lane.track(Some(&udp((2, 53), (1, 5))), &LOOK, 100_000).state;
    assert_eq!((there, all.count(), all.zone_limit(0).count), (REPLY, 1, 1));
}

#[test]
fn places_of_a_flood_are_known() {
    let (all, mut lane) = lane();
    (1..=5_000).for_each(|port| _ = lane.track(Some(&udp((1, port), (2, 53))), &COMMIT, 0));
    assert_eq!((all.count(), all.places()), (5_000, 5_000));
    assert_eq!((all.shares().len(), all.shares().iter().sum::<usize>()), (64, 5_000));
    lane.track(Some(&udp((1, 1), (2, 53))), &COMMIT, 1_000);
    assert_eq!(all.sweep(60_500, usize::MAX), 4_999);
    assert!((1..5_000).contains(&all.places()), "{}", all.places());
}

#[test]
fn ports_of_a_closed_connection_are_used_again() {
    let (all, mut lane) = lane();
    let (client, server) = ((1, 5), (2, 80));
    let pass = |lane: &mut Lane, from, to, flags: TcpFlags, numbers, len| {
        lane.track(Some(&tcp(from, to, flags, numbers, len)), &COMMIT, 0).state
    };
    let (syn, ack, fin) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN);
    for start in [100, 7_000] {
        assert_eq!(pass(&mut lane, client, server, syn, (start, 0), 0), NEW);
        assert_eq!(pass(&mut lane, server, client, syn | ack, (300, start + 1), 0), REPLY);
        assert_eq!(pass(&mut lane, client, server, ack, (start + 1, 301), 0), THERE);
        assert_eq!(pass(&mut lane, server, client, ack, (90_000, start + 1), 5), INVALID);
        assert_eq!(pass(&mut lane, server, client, fin | ack, (301, start + 1), 0), REPLY);
        assert_eq!(pass(&mut lane, client, server, fin | ack, (start + 1, 302), 0), THERE);
        assert_eq!(pass(&mut lane, server, client, ack, (302, start + 2), 0), REPLY);
        assert_eq!(all.count(), 1);
    }
    assert!(all.flush_tuple(&tcp(server, client, ack, (0, 0), 0).tuple, 0));
    assert_eq!(pass(&mut lane, server, client, syn | ack, (300, 101), 0), INVALID);
    // Seen in the middle.
    assert_eq!(pass(&mut lane, client, server, ack, (50, 60), 9), NEW);
}

#[test]
fn lanes_see_the_same_connections() {
    let (all, mut one) = lane();
    let mut other = Lane::new(Arc::clone(&all));
    for port in 1..700 {
        let (there, back) = (udp((1, port), (2, 53)), udp((2, 53), (1, port)));
        assert_eq!(one.track(Some(&there), &COMMIT, 0).state, NEW);
        assert_eq!(other.track(Some(&back), &LOOK, 0).state, REPLY);
        assert_eq!(one.track(Some(&there), &LOOK, 0).state, THERE);
    }
    assert_eq!((all.flush(None), all.count()), (699, 0));
    assert_eq!(other.track(Some(&udp((2, 53), (1, 9))), &LOOK, 0).state, NEW);
    // Memory of those that are over is not kept.
    assert!((0..10).all(|_| {
        one.tidy(0);
        other.tidy(0);
        true
    }));
    let mut entries = 0;
    all.for_each(0, |_| entries += 1);
    assert_eq!(entries, 0);
}

#[test]
fn workers_at_once_lose_nothing() {
    let all = Arc::new(Conntrack::default());
    let (first, second) = (TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ACK);
    let worker = |is_client: bool| {
        let all = Arc::clone(&all);
        move || {
            let mut lane = Lane::new(all);
            for port in 1..500 {
                let (client, server) = ((1, port), (2, 80));
                let packet = match is_client {
                    true => tcp(client, server, first, (100, 0), 0),
                    false => tcp(server, client, second, (300, 101), 0),
                };
                lane.track(Some(&packet), &COMMIT, 0);
                let write = Request {
                    label: Some((u128::MAX * u128::from(port & 1), u128::MAX)),
                    ..COMMIT
                };
                let label = lane.track(Some(&udp((3, 1), (4, 1))), &write, 0).label;
                assert!(label == 0 || label == u128::MAX, "{label:x}");
            }
        }
    };
    let workers = [true, false, true].map(|is_client| std::thread::spawn(worker(is_client)));
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let mut count = 0;
    all.for_each(0, |_| count += 1);
    assert_eq!((count, all.count()), (500, 500));
}

/// What the model knows of a connection.
#[derive(Clone)]
struct Known {
    original: Tuple,
    end: u64,
    is_answered: bool,
    mark: u32,
}

/// UDP and ICMP by the book.
#[derive(Default)]
struct Model(HashMap<Tuple, Known>);

impl Model {
    fn track(&mut self, seen: &Seen, request: &Request, now: u64) -> (State, u32) {
        let key = seen.tuple.canonical();
        self.0.retain(|_, known| known.end > now);
        let is_icmp = seen.tuple.is_icmp();
        if let Some(known) = self.0.get_mut(&key) {
            let is_reply = known.original != seen.tuple;
            if !(is_reply && request.force) {
                known.is_answered |= is_reply;
                known.end = now + if known.is_answered { 30_000 } else { 60_000 };
                if let Some((value, mask)) = request.mark {
                    known.mark = known.mark & !mask | value & mask;
                }
                let reply = if is_reply { State::REPLY } else { State::default() };
                let state = if known.is_answered { State::ESTABLISHED | reply } else { State::NEW };
                return (state | State::TRACKED, known.mark);
            }
            self.0.remove(&key);
        }
        if is_icmp && seen.tuple.query().is_some_and(|(_, kind)| kind != 8) {
            return (INVALID, 0);
        }
        let mark = request.mark.map_or(0, |(value, mask)| value & mask);
        if request.commit {
            let known = Known { original: seen.tuple, end: now + 60_000, is_answered: false, mark };
            self.0.insert(key, known);
            return (NEW, mark);
        }
        (NEW, 0)
    }
}

proptest! {
    #[test]
    fn packets_are_what_the_model_says(packets in prop::collection::vec(
        (any::<[bool; 4]>(), 1..3_u8, 1..3_u8, 0..2_u16, 0..20_000_u64, 0..2_usize),
        0..120,
    )) {
        let (all, first) = lane();
        let mut lanes = [first, Lane::new(Arc::clone(&all))];
        let mut model = Model::default();
        let mut now = 0;
        for ([is_icmp, commit, force, is_answer], from, to, zone, later, lane) in packets {
            now += later;
            let seen = match (is_icmp, is_answer) {
                (true, true) => seen(1, (from, 1), (to, 0), zone),
                (true, false) => seen(1, (from, 1), (to, 8), zone),
                (false, _) => seen(17, (from, 5), (to, 5), zone),
            };
            let mark = force.then_some((u32::try_from(later).unwrap(), 0xFF0));
            let (force, mark) = if commit { (force, mark) } else { (false, None) };
            let request = Request { zone, commit, force, mark, ..LOOK };
            let told = all.tell(Some(&seen), &request, now).0.state;
            let was_known = model.0.get(&seen.tuple.canonical()).is_some_and(|known| known.end > now);
            let tracked = lanes[lane].track(Some(&seen), &request, now);
            prop_assert_eq!((tracked.state, tracked.mark), model.track(&seen, &request, now));
            prop_assert!(told == tracked.state || force && was_known);
            if later % 7 == 0 {
                all.sweep(now, 100_000);
                lanes[lane].tidy(now);
                prop_assert_eq!(all.count(), model.0.values().filter(|known| known.end > now).count());
            }
        }
    }
}
