//! Connections that others have announced.

use super::*;
use crate::{Adjustment, Helper, Nat, NatEnd, Overheard, Translation};

fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

const FTP: Request = Request { helper: Some(Helper::Ftp), ..COMMIT };
const RELATED: State = State(0x04);

/// Which end is translated, to which host.
fn translated(end: NatEnd, to: u8) -> Option<Nat> {
    Some(Nat { end: Some(end), addresses: Some((host(to), host(to))), ..Nat::default() })
}

const ANY: Option<Nat> = Some(Nat {
    end: None,
    addresses: None,
    ports: None,
    is_persistent: false,
    by_hash: false,
    is_random: false,
});

/// A control connection of FTP, open by now, whose sides are at these numbers: 101 and 901.
fn open(lane: &mut Lane, client: (u8, u16), server: (u8, u8), request: &Request) {
    let (there, back) = (request, &Request { nat: request.nat.and(ANY), ..LOOK });
    let (asked, answers) = ((server.0, 21), (server.1, 21));
    let outside = match request.nat {
        Some(Nat { end: Some(NatEnd::Source), .. }) => (9, client.1),
        _ => client,
    };
    let syn = TcpFlags::SYN;
    let state = lane.track(Some(&tcp(client, asked, syn, (100, 0), 0)), there, 0).state;
    assert!(state.contains(NEW), "{state:?}");
    let answer = tcp(answers, outside, syn | TcpFlags::ACK, (900, 101), 0);
    assert!(lane.track(Some(&answer), back, 0).state.contains(REPLY));
    let third = tcp(client, asked, TcpFlags::ACK, (101, 901), 0);
    assert!(lane.track(Some(&third), back, 0).state.contains(THERE));
}

/// Has a segment of a control connection be looked at.
fn say(lane: &mut Lane, seen: &Seen, request: &Request, text: &str) -> Overheard {
    let tracked = lane.track(Some(seen), request, 0);
    assert_eq!(tracked.helper, Some(Helper::Ftp), "{tracked:?}");
    lane.overhear(seen, request, text.as_bytes(), 0)
}

fn line(from: (u8, u16), to: (u8, u16), numbers: (u32, u32), text: &str) -> Seen {
    let len = u32::try_from(text.len()).unwrap();
    tcp(from, to, TcpFlags::ACK | TcpFlags::PSH, numbers, len)
}

const PORT: &str = "PORT 10,0,0,1,200,10\r\n";
const DATA: u16 = 200 << 8 | 10;

fn data(from: u8, to: (u8, u16)) -> Seen {
    tcp((from, 20), to, TcpFlags::SYN, (1, 0), 0)
}

#[test]
fn a_connection_comes_that_was_announced() {
    let (all, mut lane) = lane();
    let request = Request { mark: Some((7, u32::MAX)), label: Some((9, u128::MAX)), ..FTP };
    open(&mut lane, (1, 5000), (2, 2), &request);
    assert_eq!(lane.track(Some(&data(2, (1, DATA))), &LOOK, 0).state, NEW);
    let seen = line((1, 5000), (2, 21), (101, 901), PORT);
    assert_eq!(say(&mut lane, &seen, &LOOK, PORT), Overheard::default());
    // From nobody else, to no other port, in no other zone.
    for other in [data(3, (1, DATA)), data(2, (1, DATA + 1)), data(2, (3, DATA))] {
        assert_eq!(lane.track(Some(&other), &LOOK, 0).state, NEW);
    }
    let elsewhere = Request { zone: 5, ..LOOK };
    let mut far = data(2, (1, DATA));
    far.tuple = seen_in(5, &far);
    assert_eq!(lane.track(Some(&far), &elsewhere, 0).state, NEW);
    // As often as it is not kept.
    let first = data(2, (1, DATA));
    for _ in 0..2 {
        let tracked = lane.track(Some(&first), &LOOK, 0);
        assert_eq!(tracked, all.tell(Some(&first), &LOOK, 0).0);
        assert_eq!((tracked.state, tracked.mark, tracked.label), (NEW | RELATED, 7, 9));
        assert_eq!(tracked.original, Some(*seen.tuple()));
    }
    let kept = lane.track(Some(&first), &Request { mark: Some((1 << 8, 1 << 8)), ..COMMIT }, 0);
    assert_eq!((kept.state, kept.mark, kept.label), (NEW | RELATED, 7 | 1 << 8, 9));
    assert_eq!(all.expectations().len(), 0);
    let answer = tcp((1, DATA), (2, 20), TcpFlags::SYN | TcpFlags::ACK, (5, 2), 0);
    let tracked = lane.track(Some(&answer), &LOOK, 0);
    assert_eq!((tracked.state, tracked.original), (REPLY | RELATED, Some(*seen.tuple())));
    let mut entries = Vec::new();
    all.for_each(0, |entry| entries.push((entry.original.ports(), entry.helper, entry.master)));
    entries.sort_unstable();
    let expected = [((20, DATA), None, Some(*seen.tuple())), ((5000, 21), Some(Helper::Ftp), None)];
    assert_eq!(entries, expected);
    // It is expected once.
    assert_eq!(
        lane.track(Some(&tcp((2, 30), (1, DATA), TcpFlags::SYN, (1, 0), 0)), &LOOK, 0).state,
        NEW
    );
}

/// Two workers may have a packet each that would be the first one, from different ports.
#[test]
fn one_connection_alone_is_what_was_announced() {
    let (all, mut lane) = lane();
    open(&mut lane, (1, 5000), (2, 2), &FTP);
    let seen = line((1, 5000), (2, 21), (101, 901), PORT);
    assert!(!say(&mut lane, &seen, &LOOK, PORT).is_bad);
    // One that is not kept is expected still.
    let first = data(2, (1, DATA));
    all.set_limit(0);
    assert_eq!(lane.track(Some(&first), &COMMIT, 0).state, NEW | RELATED);
    assert_eq!(all.expectations().len(), 1);
    all.set_limit(100);
    // The other worker has come so far that it begins.
    let claimed = all.claim(&first, 0);
    assert!(claimed.is_some() && all.claim(&first, 0).is_none());
    let other = tcp((2, 30), (1, DATA), TcpFlags::SYN, (1, 0), 0);
    assert_eq!(lane.track(Some(&other), &COMMIT, 0).state, NEW);
    all.expectations().put_back(&first.tuple, &claimed.unwrap());
    assert_eq!(lane.track(Some(&first), &COMMIT, 0).state, NEW | RELATED);
    assert_eq!(all.expectations().len(), 0);
}

#[test]
fn who_announces_much_takes_nothing_from_others() {
    let (_, mut lane) = lane();
    let announce = |lane: &mut Lane, client: u16, port: u16| {
        let text = format!("PORT 10,0,0,1,200,{port}\r\n");
        let seen = line((1, client), (2, 21), (101, 901), &text);
        assert!(!say(lane, &seen, &LOOK, &text).is_bad);
    };
    let first = |from: u16| tcp((2, from), (1, 200 << 8 | 1), TcpFlags::SYN, (1, 0), 0);
    [5000, 5001].iter().for_each(|client| open(&mut lane, (1, *client), (2, 2), &FTP));
    announce(&mut lane, 5000, 1);
    assert_eq!(lane.track(Some(&first(20)), &COMMIT, 0).state, NEW | RELATED);
    // The port is free for the next one, and stays that one's.
    announce(&mut lane, 5001, 1);
    (2..=10).for_each(|port| announce(&mut lane, 5000, port));
    assert_eq!(lane.track(Some(&first(30)), &COMMIT, 0).state, NEW | RELATED);
}

fn seen_in(zone: u16, seen: &Seen) -> Tuple {
    let ((from, to), tuple) = (seen.tuple.ports(), seen.tuple);
    Tuple::new(tuple.protocol(), (tuple.source(), from), (tuple.destination(), to), zone).unwrap()
}

#[test]
fn a_server_says_where_it_is_to_be_found() {
    let (_, mut lane) = lane();
    open(&mut lane, (1, 5000), (2, 2), &FTP);
    for (text, port) in [
        ("227 Entering Passive Mode (10,0,0,2,1,2).\r\n", 258),
        ("229 Entering Extended Passive Mode (|||259|)\r\n", 259),
    ] {
        let seen = line((2, 21), (1, 5000), (901, 101), text);
        assert_eq!(say(&mut lane, &seen, &LOOK, text), Overheard::default());
        let first = |from: u8| tcp((from, 6000), (2, port), TcpFlags::SYN, (1, 0), 0);
        assert_eq!(lane.track(Some(&first(1)), &LOOK, 0).state, NEW | RELATED);
        assert_eq!(lane.track(Some(&first(3)), &LOOK, 0).state, NEW);
    }
}

#[test]
fn nobody_announces_what_is_not_his() {
    let (all, mut lane) = lane();
    open(&mut lane, (1, 5000), (2, 2), &FTP);
    let client = |text: &str| line((1, 5000), (2, 21), (101, 901), text);
    for text in ["PORT 10,0,0,3,200,10\r\n", "PORT 10,0,0,1,200\r\n", "EPRT |1|10.0.0.3|258|\r\n"] {
        assert!(say(&mut lane, &client(text), &LOOK, text).is_bad, "{text}");
    }
    // One side does not speak for the other one, and others have nobody who listens.
    let server = "227 Entering Passive Mode (10,0,0,1,200,10).\r\n";
    assert_eq!(say(&mut lane, &client(server), &LOOK, server), Overheard::default());
    let others = line((2, 21), (1, 5000), (901, 101), PORT);
    assert_eq!(say(&mut lane, &others, &LOOK, PORT), Overheard::default());
    let stale = line((1, 5000), (2, 21), (500_000, 901), PORT);
    let tracked = lane.track(Some(&stale), &LOOK, 0);
    assert_eq!((tracked.state, tracked.helper), (INVALID, None));
    assert_eq!(all.expectations().len(), 0);
    // Connections of the same rule that are not to its port carry what they like.
    let first = tcp((1, 5001), (2, 80), TcpFlags::SYN, (1, 0), 0);
    assert_eq!(lane.track(Some(&first), &FTP, 0).helper, None);
    assert_eq!(lane.overhear(&first, &FTP, PORT.as_bytes(), 0), Overheard::default());
    assert_eq!(all.expectations().len(), 0);
}

#[test]
fn what_is_expected_goes_with_its_master_and_with_time() {
    let (all, mut lane) = lane();
    open(&mut lane, (1, 5000), (2, 2), &FTP);
    let announce = |lane: &mut Lane, port: u8| {
        let text = format!("PORT 10,0,0,1,200,{port}\r\n");
        let seen = line((1, 5000), (2, 21), (101, 901), &text);
        assert!(!say(lane, &seen, &LOOK, &text).is_bad);
    };
    let is_expected = |lane: &mut Lane, port: u16, now| {
        lane.track(Some(&data(2, (1, 200 << 8 | port))), &LOOK, now).state == NEW | RELATED
    };
    (1..=20).for_each(|port| announce(&mut lane, port));
    assert_eq!(all.expectations().len(), 8);
    assert!(!is_expected(&mut lane, 12, 0) && is_expected(&mut lane, 13, 0));
    assert!(is_expected(&mut lane, 20, 299_999) && !is_expected(&mut lane, 20, 300_000));
    all.sweep(300_000, 1);
    assert_eq!(all.expectations().len(), 0);
    announce(&mut lane, 5);
    assert!(is_expected(&mut lane, 5, 0));
    all.flush(None);
    assert!(!is_expected(&mut lane, 5, 0));
    all.sweep(0, 1);
    assert_eq!(all.expectations().len(), 0);
    // All that was expected is forgotten, in hints, too.
    open(&mut lane, (1, 5000), (2, 2), &FTP);
    announce(&mut lane, 6);
    let expected = (1..=20).map(|port| data(2, (1, 200 << 8 | port)).tuple);
    assert_eq!(expected.filter(|tuple| all.expectations().may_expect(tuple)).count(), 1);
}

#[test]
fn expectations_are_bounded_and_who_has_most_makes_room() {
    let (all, mut lane) = lane();
    let mut announce = |zone: u16, client: u16, port: u8| {
        let request = Request { zone, ..FTP };
        let text = format!("PORT 10,0,0,1,{},{port}\r\n", client % 200);
        let mut seen = line((1, client), (2, 21), (101, 901), &text);
        seen.tuple = seen_in(zone, &seen);
        let first =
            Seen { segment: tcp((1, 1), (2, 21), TcpFlags::SYN, (100, 0), 0).segment, ..seen };
        lane.track(Some(&first), &request, 0);
        lane.overhear(&seen, &request, text.as_bytes(), 0)
    };
    assert!(!announce(7, 1, 1).is_bad);
    let mut refused = 0;
    for client in 1..=1_500 {
        refused += (0..8).filter(|port| announce(8, client, *port).is_bad).count();
    }
    // Some wait for the same ports.
    assert!(refused > 0 && (2..=4096).contains(&all.expectations().len()));
    let mut own = data(2, (1, 257));
    own.tuple = seen_in(7, &own);
    let tracked = lane.track(Some(&own), &Request { zone: 7, ..LOOK }, 0);
    assert_eq!(tracked.state, NEW | RELATED);
}

/// Two clients behind one address cannot wait at the same port of it.
#[test]
fn a_port_is_expected_by_one() {
    let (_, mut lane) = lane();
    let snat = Request { nat: translated(NatEnd::Source, 9), ..FTP };
    let known = Request { nat: ANY, ..LOOK };
    for (client, is_bad) in [(1, false), (3, true), (1, false)] {
        let port = 5000 + u16::from(client);
        if !is_bad || client == 3 {
            open_once(&mut lane, (client, port), &snat);
        }
        let text = format!("PORT 10,0,0,{client},200,10\r\n");
        let seen = line((client, port), (2, 21), (101, 901), &text);
        assert_eq!(say(&mut lane, &seen, &known, &text).is_bad, is_bad, "{client}");
    }
}

fn open_once(lane: &mut Lane, client: (u8, u16), request: &Request) {
    let third = tcp(client, (2, 21), TcpFlags::ACK, (101, 901), 0);
    if lane.track(Some(&third), &LOOK, 0).state != THERE {
        open(lane, client, (2, 2), request);
    }
}

#[test]
fn addresses_are_replaced_and_numbers_follow() {
    let (_, mut lane) = lane();
    let snat = Request { nat: translated(NatEnd::Source, 9), ..FTP };
    let known = Request { nat: ANY, ..LOOK };
    open(&mut lane, (1, 5000), (2, 2), &snat);
    let seen = line((1, 5000), (2, 21), (101, 901), PORT);
    let heard = say(&mut lane, &seen, &known, PORT);
    let Adjustment { sequence: 0, replacement: Some(by), .. } = heard.adjustment.unwrap() else {
        panic!()
    };
    assert_eq!((by.place, by.text), (5..13, b"10,0,0,9".to_vec()));
    // The connection that comes goes to the client, and its answers come from that address.
    let first = data(2, (9, DATA));
    let keep = Request { nat: ANY, ..COMMIT };
    let (tracked, how) = lane.translate(Some(&first), &keep, 0);
    assert_eq!(tracked.state, NEW | RELATED | State::DESTINATION_NAT);
    assert_eq!(how.unwrap().after, data(2, (1, DATA)).tuple);
    let answer = tcp((1, DATA), (2, 20), TcpFlags::SYN | TcpFlags::ACK, (5, 2), 0);
    let (tracked, how) = lane.translate(Some(&answer), &known, 0);
    assert_eq!(tracked.state, REPLY | RELATED | State::SOURCE_NAT);
    assert_eq!(how.unwrap().after, first.tuple.reversed());
}

#[test]
fn a_server_behind_an_address_is_found_by_that() {
    let (_, mut lane) = lane();
    let dnat = Request { nat: translated(NatEnd::Destination, 240), ..FTP };
    let known = Request { nat: ANY, ..LOOK };
    open(&mut lane, (1, 5000), (2, 240), &dnat);
    let text = "227 Entering Passive Mode (10,0,0,240,1,2).\r\n";
    let seen = line((240, 21), (1, 5000), (901, 101), text);
    let heard = say(&mut lane, &seen, &known, text).adjustment.unwrap();
    assert_eq!(heard.replacement.unwrap().text, b"10,0,0,2");
    // It has become shorter by two: what the client acknowledges is of more.
    let len = u32::try_from(text.len()).unwrap();
    let third = tcp((1, 5000), (2, 21), TcpFlags::ACK, (101, 901 + len - 2), 0);
    let heard = say(&mut lane, &third, &known, "");
    assert_eq!(heard.adjustment.unwrap().acknowledged.back(901 + len - 2), 901 + len);
    let next = line((240, 21), (1, 5000), (901 + len, 101), "x");
    assert_eq!(
        say(&mut lane, &next, &known, "x").adjustment.unwrap().sequence,
        2_u32.wrapping_neg()
    );
    // A rule that does not translate leaves all as it is.
    assert_eq!(say(&mut lane, &third, &LOOK, ""), Overheard::default());
    let first = tcp((1, 6000), (2, 258), TcpFlags::SYN, (1, 0), 0);
    let (tracked, how) = lane.translate(Some(&first), &Request { nat: ANY, ..COMMIT }, 0);
    assert_eq!(tracked.state, NEW | RELATED | State::DESTINATION_NAT);
    let after = tcp((1, 6000), (240, 258), TcpFlags::SYN, (1, 0), 0).tuple;
    assert_eq!(how, Some(Translation { before: first.tuple, after, is_error: false }));
}

#[test]
fn answers_of_trivial_file_transfer_come_from_another_port() {
    let (all, mut lane) = lane();
    let request =
        Request { helper: Some(Helper::Tftp), nat: translated(NatEnd::Source, 9), ..COMMIT };
    let ask = udp((1, 5000), (2, 69));
    let tracked = lane.track(Some(&ask), &request, 0);
    assert_eq!(tracked.helper, Some(Helper::Tftp));
    for (bytes, count) in [(&b"\0\x03"[..], 0), (b"", 0), (b"\0\x01file", 1)] {
        assert_eq!(lane.overhear(&ask, &request, bytes, 0), Overheard::default());
        assert_eq!(all.expectations().len(), count);
    }
    // Who begins other connections meanwhile takes no lock for that: of so many hardly any is taken for it.
    let others = (1..=2_000).map(|port| udp((3, 4000), (9, port)).tuple);
    assert!(others.filter(|tuple| all.expectations().may_expect(tuple)).count() < 10);
    let answer = udp((2, 4000), (9, 5000));
    let (tracked, how) = lane.translate(Some(&answer), &Request { nat: ANY, ..COMMIT }, 0);
    assert_eq!(tracked.state, NEW | RELATED | State::DESTINATION_NAT);
    assert_eq!(how.unwrap().after, udp((2, 4000), (1, 5000)).tuple);
}
