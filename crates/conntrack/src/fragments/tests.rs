use std::collections::BTreeMap;

use packet::MacAddr;
use packet::builder::FrameBuilder;
use packet::headers::IpProtocol;
use proptest::prelude::*;

use super::*;
use crate::dissect::{IPV4, IPV6};
use crate::tuple::Tuple;

const ETHERNET: usize = 14;

/// A datagram of UDP with so many bytes, of `host`.
fn datagram(host: u8, len: usize) -> Vec<u8> {
    let frame =
        FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6])).ip([10, 0, 0, host], [10, 0, 1, 1]);
    frame.udp(1000, 53).payload(&vec![host; len]).build().unwrap()
}

/// A part of it, as a fragment with this number.
fn part(whole: &[u8], id: u16, (start, end): (usize, usize)) -> Vec<u8> {
    let (headers, payload) = whole.split_at(ETHERNET + 20);
    let end = end.min(payload.len());
    let mut frame = [headers, &payload[start..end]].concat();
    let more = if end < payload.len() { 0x2000 } else { 0 };
    let len = u16::try_from(20 + end - start).unwrap();
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&(more | u16::try_from(start / 8).unwrap()).to_be_bytes());
    frame
}

fn v4(frame: Vec<u8>) -> Fragment {
    Fragment { frame, network: ETHERNET, ether_type: IPV4, zone: 7, next: 0, tags: [0; 2] }
}

/// It comes, and goes on as all others do.
fn add(all: &Fragments, owner: u32, fragment: Fragment, now: u64) -> (Fate, usize) {
    let way: Arc<dyn Way> = Arc::new(());
    all.add((owner, &way), fragment, now)
}

/// The same without a lower limit that matters.
fn fragments() -> Fragments {
    let all = Fragments::default();
    assert!(all.set_shortest(false, 400) && all.set_shortest(true, 400));
    all
}

fn fate(all: &Fragments, owner: u32, frame: Vec<u8>) -> Fate {
    add(all, owner, v4(frame), 0).0
}

fn counts(all: &Fragments) -> FragmentCounts {
    all.status().versions[0].counts
}

#[test]
fn a_packet_goes_on_once_all_of_it_is_there() {
    let (all, whole) = (fragments(), datagram(1, 1500));
    let places = [(800, 1600), (0, 400), (400, 800)];
    let frames = places.map(|place| part(&whole, 9, place));
    let [last, first, middle] = frames.clone();
    assert_eq!(fate(&all, 1, last), Fate::Waits);
    assert_eq!(fate(&all, 1, first), Fate::Waits);
    assert_eq!(all.status().packets[0].1, 2);
    assert_eq!(all.status().packets[0].2, "first/last frag");
    let Fate::Whole(got, seen) = fate(&all, 1, middle) else { panic!("it is whole") };
    assert_eq!(got, [1, 2, 0].map(|at: usize| frames[at].clone()));
    let ends = (([10, 0, 0, 1].into(), 1000), ([10, 0, 1, 1].into(), 53));
    let tuple = Tuple::new(IpProtocol::UDP, ends.0, ends.1, 7).unwrap();
    assert_eq!(seen.unwrap().tuple, tuple);
    let expected = FragmentCounts { accepted: 3, completed: 3, ..FragmentCounts::default() };
    assert_eq!((counts(&all), all.status().count), (expected, 0));
}

#[test]
fn what_is_said_to_be_longer_than_it_is_is_of_no_connection() {
    let (all, mut whole) = (fragments(), datagram(1, 1500));
    whole[38..40].copy_from_slice(&1600_u16.to_be_bytes());
    assert_eq!(fate(&all, 1, part(&whole, 9, (0, 800))), Fate::Waits);
    let Fate::Whole(_, seen) = fate(&all, 1, part(&whole, 9, (800, 1600))) else { panic!() };
    assert_eq!(seen, None);
}

/// A fragment of IPv6, of which this is behind its header.
fn v6((next, payload): (u8, &[u8]), start: u16, more: u16) -> Fragment {
    let mut bytes = vec![0; ETHERNET];
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
    bytes.extend([44, 64]);
    bytes.extend([1; 16].iter().chain(&[2; 16]));
    bytes.extend([next, 0]);
    bytes.extend((start | more).to_be_bytes());
    bytes.extend([0, 0, 0, 5]);
    bytes.extend(payload);
    Fragment { ether_type: IPV6, ..v4(bytes) }
}

#[test]
fn fragments_of_ipv6_too() {
    let all = fragments();
    let frame = |start, more, payload: &[u8]| v6((17, payload), start, more);
    let mut payload = vec![3; 800];
    payload[..8].copy_from_slice(&[0, 5, 0, 6, 3, 32, 0, 0]);
    let (first, last) = payload.split_at(400);
    assert_eq!(add(&all, 1, frame(400, 0, last), 0), (Fate::Waits, 0));
    let (Fate::Whole(_, Some(seen)), 0) = add(&all, 1, frame(0, 1, first), 0) else { panic!() };
    assert_eq!((seen.tuple.ports(), seen.tuple.protocol()), ((5, 6), IpProtocol::UDP));
    assert_eq!(all.status().versions[1].counts.completed, 2);
    // One that is whole is none.
    assert_eq!(add(&all, 1, frame(0, 0, first), 0).0, Fate::Refused(Refused::Bad));
}

#[test]
fn what_is_of_fragments_inside_fragments_is_of_no_connection() {
    let all = fragments();
    let mut payload = vec![3; 800];
    // Where the ports would be, whatever somebody likes.
    payload[8..16].copy_from_slice(&[0, 5, 0, 6, 3, 24, 0, 0]);
    // Another one's middle, its start, its end; and behind options.
    for (next, header) in [
        (44, [17, 0, 1, 1, 0, 0, 0, 7]),
        (44, [17, 0, 0, 1, 0, 0, 0, 7]),
        (44, [17, 0, 1, 0, 0, 0, 0, 7]),
        (60, [44, 0, 1, 4, 0, 0, 0, 0]),
    ] {
        payload[..8].copy_from_slice(&header);
        let (first, last) = payload.split_at(400);
        assert_eq!(add(&all, 1, v6((next, last), 400, 0), 0).0, Fate::Waits);
        let fate = add(&all, 1, v6((next, first), 0, 1), 0).0;
        assert!(matches!(fate, Fate::Whole(_, None)), "{next} {header:?}: {fate:?}");
    }
    // Behind options alone there is no harm.
    payload[..8].copy_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]);
    let (first, last) = payload.split_at(400);
    assert_eq!(add(&all, 1, v6((60, last), 400, 0), 0).0, Fate::Waits);
    let fate = add(&all, 1, v6((60, first), 0, 1), 0).0;
    assert!(matches!(fate, Fate::Whole(_, Some(_))), "{fate:?}");
}

#[test]
fn those_of_other_networks_and_ways_are_of_other_packets() {
    let (all, whole) = (fragments(), datagram(1, 1500));
    let of = |place, tags| Fragment { tags, ..v4(part(&whole, 9, place)) };
    let way = |at: usize| -> Arc<dyn Way> {
        if at == 0 { Arc::new(()) } else { Arc::new((1, vec![at; 9])) }
    };
    let tags = [[0, 0], [1, 0], [1, 2], [2, 1]];
    let each = || tags.into_iter().flat_map(|tags| (0..3).map(move |at| (tags, at)));
    for (tags, at) in each() {
        assert_eq!(all.add((1, &way(at)), of((0, 800), tags), 0).0, Fate::Waits);
    }
    assert_eq!(all.status().packets.len(), 12);
    // Each is its own, by what its way is, and not by where that lies.
    for (tags, at) in each() {
        let (fate, _) = all.add((1, &way(at)), of((800, 1508), tags), 0);
        assert!(matches!(fate, Fate::Whole(frames, Some(_)) if frames.len() == 2));
    }
    assert_eq!(all.status().count, 0);
}

#[test]
fn what_nobody_makes_goes_nowhere() {
    let (all, whole) = (fragments(), datagram(1, 3000));
    let bad = Fate::Refused(Refused::Bad);
    // Too short; not the last, and of a length that no other one can go on behind; of nothing.
    assert_eq!(fate(&all, 1, part(&whole, 1, (0, 376))), bad);
    assert_eq!(fate(&all, 1, part(&whole, 1, (0, 804))), bad);
    assert_eq!(fate(&all, 1, part(&whole, 1, (800, 800))), bad);
    // Whole; longer than what there is; behind the end of all packets.
    assert_eq!(fate(&all, 1, whole.clone()), bad);
    let mut cut = part(&whole, 1, (0, 800));
    cut.pop();
    assert_eq!(fate(&all, 1, cut), bad);
    let mut far = part(&whole, 1, (2400, 3008));
    far[20..22].copy_from_slice(&0x1FFF_u16.to_be_bytes());
    assert_eq!(fate(&all, 1, far), bad);
    assert_eq!((counts(&all).too_small, all.status().count), (1, 0));
}

#[test]
fn of_fragments_over_each_other_nothing_goes_on() {
    let whole = datagram(1, 3000);
    let overlaps = Fate::Refused(Refused::Overlaps);
    for (one, other) in [((0, 800), (792, 1600)), ((800, 1600), (0, 808)), ((0, 1600), (800, 1200))]
    {
        let all = fragments();
        assert_eq!(fate(&all, 1, part(&whole, 9, one)), Fate::Waits);
        assert_eq!(fate(&all, 1, part(&whole, 9, other)), overlaps, "{one:?} {other:?}");
        // Nor do those behind, of this packet.
        assert_eq!(fate(&all, 1, part(&whole, 9, (2400, 3008))), overlaps);
        assert_eq!(fate(&all, 1, part(&whole, 10, (2400, 3008))), Fate::Waits);
        assert_eq!((counts(&all).overlapped, all.status().count), (2, 2));
    }
    // Two ends; and one that is there already, which does no harm.
    let (all, short) = (fragments(), datagram(1, 1500));
    assert_eq!(fate(&all, 1, part(&short, 9, (800, 1508))), Fate::Waits);
    assert_eq!(fate(&all, 1, part(&short, 9, (800, 1508))), overlaps);
    assert!(matches!(fate(&all, 1, part(&short, 9, (0, 800))), Fate::Whole(..)));
    assert_eq!(fate(&all, 1, part(&short, 9, (800, 1508))), Fate::Waits);
    assert_eq!(fate(&all, 1, part(&whole, 9, (2400, 3008))), overlaps);
}

#[test]
fn who_waits_too_long_is_given_up() {
    let (all, whole) = (fragments(), datagram(1, 1500));
    let waits = |now| add(&all, 1, v4(part(&whole, 9, (0, 800))), now).0;
    assert_eq!(waits(5), Fate::Waits);
    all.sweep(WAIT + 4);
    assert_eq!(all.status().count, 1);
    all.sweep(WAIT + 5);
    assert_eq!((all.status().count, counts(&all).expired), (0, 1));
    assert_eq!(all.store().owners.len(), 0);
    assert_eq!(waits(WAIT), Fate::Waits);
    // One that comes when the time of the others is over makes nothing whole.
    let late = add(&all, 1, v4(part(&whole, 9, (800, 1508))), 2 * WAIT);
    assert_eq!((late, all.status().count, counts(&all).expired), ((Fate::Waits, 1), 1, 2));
}

#[test]
fn who_gets_the_number_of_another_one_has_none_of_his() {
    let (all, whole) = (fragments(), datagram(1, 1500));
    for owner in [1, 2] {
        assert_eq!(fate(&all, owner, part(&whole, 9, (0, 800))), Fate::Waits);
    }
    all.forget(1);
    all.forget(3);
    assert_eq!((all.status().count, counts(&all).purged), (1, 1));
    assert_eq!(fate(&all, 1, part(&whole, 9, (800, 1508))), Fate::Waits);
    assert!(matches!(fate(&all, 2, part(&whole, 9, (800, 1508))), Fate::Whole(..)));
    let store = all.store();
    assert_eq!((store.count, store.bytes), (1, 34 + 708));
}

#[test]
fn a_flood_takes_the_room_of_its_own_port() {
    let (all, whole) = (fragments(), datagram(1, 1500));
    assert_eq!(fate(&all, 2, part(&whole, 9, (0, 800))), Fate::Waits);
    let mut gone = 0;
    for id in 0..5_000 {
        let (fate, went) = add(&all, 1, v4(part(&whole, id, (0, 800))), 0);
        assert_eq!(fate, Fate::Waits);
        gone += went;
    }
    assert_eq!((gone, all.status().count), (5_000 - FRAGMENTS / SHARE, 1 + FRAGMENTS / SHARE));
    assert_eq!(counts(&all).purged, gone as u64);
    // Where many have taken all, who has most of it makes room for who has less.
    for owner in 3..9 {
        for id in 0..300 {
            add(&all, owner, v4(part(&whole, id, (0, 800))), 0);
        }
    }
    assert!(all.status().count <= FRAGMENTS);
    assert!(matches!(fate(&all, 2, part(&whole, 9, (800, 1508))), Fate::Whole(..)));
    assert!(all.set_limit(0) && !all.set_limit(MOST_FRAGMENTS + 1));
    assert_eq!(fate(&all, 7, part(&whole, 1, (0, 800))), Fate::Refused(Refused::NoRoom));
}

#[test]
fn bytes_are_bounded_too() {
    let (all, whole) = (fragments(), datagram(1, 60_000));
    for id in 0..200 {
        add(&all, 1, v4(part(&whole, id, (0, 59_992))), 0);
    }
    let bytes = all.store().bytes;
    assert!(bytes <= BYTES / SHARE && bytes > BYTES / SHARE / 2, "{bytes}");
}

#[test]
fn who_has_few_bytes_makes_no_room_for_who_has_many() {
    let (all, long, short) = (fragments(), datagram(1, 60_000), datagram(1, 8_500));
    for owner in 1..=4 {
        for id in 0..40 {
            add(&all, owner, v4(part(&long, id, (0, 59_992))), 0);
        }
    }
    // More fragments than any of the others, of which each has all bytes that it may have.
    for id in 0..40 {
        let (fate, gone) = add(&all, 5, v4(part(&short, id, (0, 8_000))), 0);
        assert_eq!((fate, gone), (Fate::Waits, 0), "{id}");
    }
    assert!(all.store().bytes <= BYTES);
    for id in 0..40 {
        assert!(matches!(fate(&all, 5, part(&short, id, (8_000, 8_508))), Fate::Whole(..)), "{id}");
    }
}

/// A packet in the model: which bytes are there, by whom, and whether nothing of it goes on.
#[derive(Default)]
struct Model {
    there: BTreeMap<usize, usize>,
    is_refused: bool,
    len: Option<usize>,
}

impl Model {
    fn add(&mut self, start: usize, end: usize, is_last: bool) -> Fit {
        if self.there.get(&start) == Some(&end) {
            return Fit::Again;
        }
        let is_over = self.there.iter().any(|(own, own_end)| *own < end && start < *own_end);
        let furthest = self.there.values().max().copied().unwrap_or(0);
        let is_wrong =
            self.len.is_some_and(|len| end > len || is_last) || is_last && furthest > end;
        if self.is_refused || is_over || is_wrong {
            *self = Self { is_refused: true, len: self.len, ..Self::default() };
            return Fit::Overlaps;
        }
        self.there.insert(start, end);
        self.len = self.len.or(is_last.then_some(end));
        let bytes: usize = self.there.iter().map(|(start, end)| end - start).sum();
        if self.len == Some(bytes) { Fit::Complete } else { Fit::Kept }
    }
}

proptest! {
    #[test]
    fn fragments_fit_as_in_the_model(
        steps in prop::collection::vec((0_u32..3, 0_u16..3, 0_usize..6, 1_usize..4), 1..200),
    ) {
        let (all, whole) = (fragments(), datagram(1, 3000));
        let mut models = BTreeMap::<(u32, u16), Model>::new();
        for (owner, id, place, parts) in steps {
            let (start, end) = (place * 504, (place + parts) * 504);
            let frame = part(&whole, id, (start, end));
            let end = end.min(3008);
            let model = models.entry((owner, id)).or_default();
            let expected = model.add(start, end, end == 3008);
            let got = fate(&all, owner, frame);
            let is_right = match (&got, expected) {
                (Fate::Waits, Fit::Kept) => true,
                (Fate::Refused(Refused::Overlaps), Fit::Overlaps | Fit::Again) => true,
                (Fate::Whole(frames, Some(_)), Fit::Complete) => {
                    let payload: Vec<u8> =
                        frames.iter().flat_map(|frame| frame[34..].to_vec()).collect();
                    prop_assert_eq!(&payload[..], &whole[34..]);
                    true
                }
                _ => false,
            };
            prop_assert!(is_right, "{:?} where {:?} is right", got, expected);
            if expected == Fit::Complete {
                models.remove(&(owner, id));
            }
            let count: usize = models.values().map(|model| model.there.len().max(1)).sum();
            let status = all.status();
            prop_assert_eq!(status.count, count);
            prop_assert_eq!(status.packets.iter().map(|(_, count, _)| count).sum::<usize>(), count);
            let store = all.store();
            let bytes: usize = store.owners.values().map(|own| own.bytes).sum();
            let lists = store.owners.values().flat_map(|own| &own.lists);
            prop_assert_eq!((store.bytes, bytes), (bytes, lists.map(|list| list.bytes).sum()));
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        changes in prop::collection::vec((0_usize..60, any::<u8>()), 0..6),
        is_v6: bool,
    ) {
        let all = fragments();
        let ether_type = if is_v6 { IPV6 } else { IPV4 };
        add(&all, 1, Fragment { ether_type, ..v4(bytes) }, 0);
        let mut frame = part(&datagram(1, 1000), 1, (0, 800));
        for (at, value) in changes {
            frame[at] = value;
        }
        add(&all, 1, Fragment { ether_type, ..v4(frame) }, 0);
        prop_assert!(all.status().count <= 2);
    }
}
