use std::sync::Arc;

use openflow::{Action, Field, Instructions, Match, PortNo};
use packet::{BURST, Burst, Frame};
use proptest::prelude::*;

use crate::extract::extract;
use crate::key::{Key, slot};
use crate::path::{Op, Path};
use crate::pipeline::{Pipeline, Port};
use crate::tables::Change;
use crate::walk::{Start, walk};
use crate::{PathCache, PathId};

/// A frame of one of few flows: whether there is a tag, the version of IP, what that carries, and the last
/// bytes of addresses and ports.
#[derive(Clone, Copy, Debug)]
struct About {
    has_tag: bool,
    is_six: bool,
    proto: u8,
    to: u8,
    from: u8,
    options: u8,
    len: usize,
}

impl About {
    fn frame(self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, self.to, 2, 0, 0, 0, 0, self.from];
        if self.has_tag {
            frame.extend([0x81, 0, 0, self.to]);
        }
        let len = u8::try_from(self.len - frame.len() - 2).unwrap();
        if self.is_six {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, len - 40, self.proto, 64]);
            frame.extend([0xFE; 15]);
            frame.push(self.from);
            frame.extend([0xFE; 15]);
            frame.push(self.to);
        } else {
            let first = 0x45 + self.options;
            frame.extend([8, 0, first, 0, 0, len, 0, 0, 0, 0, 64, self.proto, 0, 0]);
            frame.extend([10, 0, 0, self.from, 10, 0, 0, self.to]);
        }
        frame.extend([0, self.from, 0, self.to, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, self.from]);
        frame.resize(self.len, 0);
        frame
    }
}

prop_compose! {
    fn abouts()(
        has_tag: bool,
        is_six: bool,
        proto in prop_oneof![Just(6), Just(17), Just(1), Just(58), Just(2)],
        to in 0..3_u8,
        from in 0..3_u8,
        options in prop_oneof![9 => Just(0_u8), 1 => Just(1_u8)],
        len in prop_oneof![3 => Just(84_usize), 1 => 84..120_usize],
    ) -> About {
        About { has_tag, is_six, proto, to, from, options, len }
    }
}

/// A rule's match, for some of these frames.
fn matching(kind: u8, value: u8) -> Match {
    let value = u128::from(value);
    let ip = || Match::new().with(Field::EthType, 0x0800);
    match kind {
        0 => Match::new().with_masked(Field::EthDst, value, 0xFF),
        1 => ip().with_masked(Field::IpSrc, value, 3),
        2 => ip().with(Field::IpProto, 6).with(Field::TcpDst, value),
        3 => Match::new().with(Field::InPort, value),
        4 => ip().with(Field::IpProto, 6).with_masked(Field::TcpFlags, value, 3),
        5 => Match::new().with(Field::EthType, 0x86DD).with_masked(Field::Ipv6Src, value, 0xFF),
        6 => Match::new().with_masked(Field::VlanVid, 0x1000 | value, 0x10FF),
        8 => Match::new().with(Field::EthType, 0x0806).with_masked(Field::ArpTpa, value, 3),
        9 => ip().with(Field::IpProto, 17).with(Field::UdpSrc, value),
        _ => Match::new(),
    }
}

fn add(pipeline: &mut Pipeline, (kind, value, port): (u8, u8, u32)) {
    let priority = u16::from(kind);
    let actions = vec![Action::output(PortNo(port))];
    let add = Change::add(0, matching(kind, value), Instructions::apply(actions));
    pipeline.tables.change(&add.with_priority(priority), 0).unwrap();
}

fn key(frame: &Frame<'_>, port: u32) -> Key {
    let mut key = Key::default();
    key.set(slot::IN_PORT, port.into());
    extract(&mut key, frame.head(), frame.len(), 1, crate::Depth::All);
    key
}

/// Frames of some flows, or many of one or two.
fn bursts() -> impl Strategy<Value = Vec<(About, usize)>> {
    prop_oneof![
        prop::collection::vec((abouts(), 1..4_usize), 1..8),
        prop::collection::vec((abouts(), 3..30_usize), 1..3),
    ]
}

/// The paths of a burst, and how many of its frames were looked up by their bytes.
fn look_up(cache: &mut PathCache, frames: &[Frame<'_>], port: u32) -> (Vec<Path>, usize) {
    cache.begin(0);
    if let Some((id, bytes)) = cache.find_whole(port, Burst::new(frames).compared()) {
        assert_eq!(bytes, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
        let path = cache.path(id).unwrap().clone();
        return (vec![path; frames.len()], frames.len());
    }
    let shaped = cache.take_frames(port, Burst::new(frames).compared());
    let mut ids: Vec<Option<PathId>> = vec![None; frames.len()];
    while let Some(run) = cache.next_run(frames) {
        let of_run = |at: &usize| run.mask & 1 << at != 0;
        let lens = (0..frames.len()).filter(of_run).map(|at| frames[at].len() as u64);
        assert_eq!(run.bytes, lens.sum::<u64>());
        for at in (0..frames.len()).filter(of_run) {
            assert!(ids[at].replace(run.path).is_none(), "frame {at} is in two runs");
        }
    }
    let found: u32 = ids.iter().enumerate().map(|(at, id)| u32::from(id.is_some()) << at).sum();
    assert_eq!(found, shaped);
    let by_key = |(frame, id): (&Frame<'_>, Option<PathId>)| {
        let id = id.unwrap_or_else(|| cache.find(&key(frame, port)));
        cache.path(id).unwrap().clone()
    };
    let paths = frames.iter().zip(ids).map(by_key).collect();
    (paths, shaped.count_ones() as usize)
}

proptest! {
    #[test]
    fn frames_take_the_ways_of_their_keys(
        bursts in prop::collection::vec(
            (1..3_u32, bursts(), 0..6_usize), 1..12),
        rules in prop::collection::vec((0..10_u8, 0..3_u8, 2..6_u32), 6),
    ) {
        let mut flows = Pipeline::default();
        for number in 1..6_u16 {
            flows.ports.insert(PortNo(number.into()), Port::new(number));
        }
        let mut cache = PathCache::new(Arc::new(flows.clone()));
        for (port, abouts, rule) in bursts {
            add(&mut flows, rules[rule]);
            cache.update(Arc::new(flows.clone()), 0);
            let again = abouts.iter().flat_map(|(about, times)| vec![about.frame(); *times]);
            let bytes: Vec<Vec<u8>> = again.take(BURST).collect();
            let frames: Vec<Frame<'_>> = bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
            // All of them are known the second time.
            for _ in 0..2 {
                let (paths, _) = look_up(&mut cache, &frames, port);
                for (frame, path) in frames.iter().zip(&paths) {
                    let way = walk(&flows, &mut key(frame, port), &Start::Table, None);
                    prop_assert!(*path == way, "{:?}", frame.head());
                }
            }
        }
    }
}

/// Addresses of ARP are in the same places of a key as those of IPv4.
#[test]
fn rules_for_arp_tell_no_packets_of_ip_apart() {
    let mut flows = Pipeline::default();
    flows.ports.insert(PortNo(2), Port::new(2));
    add(&mut flows, (8, 1, 2));
    add(&mut flows, (9, 1, 2));
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    let about =
        About { has_tag: false, is_six: false, proto: 6, to: 1, from: 1, options: 0, len: 84 };
    let bytes = [about, About { to: 2, from: 2, ..about }].map(About::frame);
    let frames = bytes.each_ref().map(|bytes| Frame::from_bytes(bytes));
    let ports =
        |cache: &mut PathCache| look_up(cache, &frames, 1).0.into_iter().map(|path| path.ops.len());
    assert_eq!(ports(&mut cache).collect::<Vec<_>>(), [0, 0]);
    assert_eq!((cache.stats().misses, cache.stats().hits), (1, 1));
    // Once there is a rule for them, they are, though no other field counts than before.
    let relevant = flows.tables.relevant();
    let change = Change::add(
        0,
        Match::new().with(Field::EthType, 0x0800).with_masked(Field::IpDst, 2, 3),
        Instructions::apply(vec![Action::output(PortNo(2))]),
    );
    flows.tables.change(&change, 0).unwrap();
    assert_eq!(flows.tables.relevant(), relevant);
    cache.update(Arc::new(flows), 0);
    assert_eq!(ports(&mut cache).collect::<Vec<_>>(), [0, 1]);
}

/// By port, and as long as rules stay.
#[test]
fn what_came_in_last_is_not_looked_up_anew() {
    let mut flows = Pipeline::default();
    (1..4_u16).for_each(|port| _ = flows.ports.insert(PortNo(port.into()), Port::new(port)));
    add(&mut flows, (3, 1, 2));
    add(&mut flows, (3, 2, 3));
    let mut cache = PathCache::new(Arc::new(flows.clone()));
    let about =
        About { has_tag: false, is_six: false, proto: 17, to: 1, from: 1, options: 0, len: 84 };
    let (bytes, longer) = (about.frame(), About { len: 100, ..about }.frame());
    let frames = [&bytes, &bytes, &bytes, &longer].map(|bytes| Frame::from_bytes(bytes));
    let ways = |cache: &mut PathCache, port: u32| {
        let (paths, shaped) = look_up(cache, &frames, port);
        assert_eq!(shaped, frames.len());
        paths.into_iter().map(|path| path.ops.first().cloned()).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert_eq!(ways(&mut cache, 1), vec![Some(Op::Output(2)); 4]);
        assert_eq!(ways(&mut cache, 2), vec![Some(Op::Output(3)); 4]);
        // It has the same place.
        assert_eq!(ways(&mut cache, 10), vec![None; 4]);
    }
    assert_eq!(cache.stats().misses, 3);
    add(&mut flows, (3, 1, 3));
    cache.update(Arc::new(flows.clone()), 0);
    for _ in 0..3 {
        assert_eq!(ways(&mut cache, 1), vec![Some(Op::Output(3)); 4]);
    }
    // Other bytes count by then.
    add(&mut flows, (9, 1, 1));
    cache.update(Arc::new(flows), 0);
    assert_eq!(ways(&mut cache, 2), vec![Some(Op::Output(1)); 4]);
}

#[test]
fn ordinary_frames_need_no_keys_and_neighbours_no_look_up() {
    let mut flows = Pipeline::default();
    add(&mut flows, (1, 1, 2));
    flows.ports.insert(PortNo(2), Port::new(2));
    let mut cache = PathCache::new(Arc::new(flows));
    let about =
        About { has_tag: false, is_six: false, proto: 6, to: 1, from: 1, options: 0, len: 84 };
    let abouts = [
        about,
        About { to: 2, len: 100, ..about },
        About { from: 2, ..about },
        About { options: 1, ..about },
        about,
    ];
    let bytes = abouts.map(About::frame);
    let frames = bytes.each_ref().map(|bytes| Frame::from_bytes(bytes));
    assert_eq!(look_up(&mut cache, &frames, 1).1, 4);
    // One for each source, and one with options.
    assert_eq!((cache.stats().misses, cache.stats().hits), (3, 2));
    look_up(&mut cache, &frames, 1);
    assert_eq!((cache.stats().misses, cache.stats().hits), (3, 7));
}

/// Many more than are asked for one by one.
#[test]
fn many_flows_stay_known() {
    let mut flows = Pipeline::default();
    add(&mut flows, (0, 1, 2));
    let mask = u128::from(u64::MAX >> 16);
    let change = Change::add(
        0,
        Match::new().with_masked(Field::EthSrc, 1, mask),
        Instructions::apply(vec![]),
    );
    flows.tables.change(&change, 0).unwrap();
    let mut cache = PathCache::new(Arc::new(flows));
    let flow = |number: u16| {
        let mut frame = [0; 64];
        frame[8..10].copy_from_slice(&number.to_be_bytes());
        frame[12] = 0x88;
        frame
    };
    let count = 20_000;
    let mut round = || {
        let before = cache.stats().misses;
        for first in (0..count).step_by(BURST) {
            let bytes: Vec<_> = (first..count).take(BURST).map(flow).collect();
            let frames: Vec<_> = bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
            assert_eq!(look_up(&mut cache, &frames, 1).1, frames.len());
        }
        (cache.stats().misses - before, cache.stats().entries)
    };
    // Where there comes to be room for more, those are forgotten that nobody has asked for meanwhile.
    let first = [round(), round(), round()];
    let (misses, entries) = round();
    assert!(
        misses <= u64::from(count / 1_000) && entries <= 66_000,
        "{first:?} {misses} {entries}"
    );
}
