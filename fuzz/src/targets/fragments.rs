//! Parts of packets, which are put together.

use std::sync::Arc;

use conntrack::{Conntrack, Fate, Fragment, Way};

use crate::input::Input;

/// Fragments that may wait.
const LIMIT: usize = 24;

/// The shortest ones, but for the last of each packet.
const SHORTEST: usize = 400;

/// A frame's header of the link layer, and those of IP and of a fragment of IPv6.
const LINK: usize = 14;
const V4: usize = 20;
const V6: usize = 48;

/// Plays one input: fragments of a few packets, in any order.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let all = Conntrack::default();
    let fragments = all.fragments();
    assert!([false, true].iter().all(|is_v6| fragments.set_shortest(*is_v6, SHORTEST)));
    assert!(fragments.set_limit(LIMIT));
    let mut now = 0;
    while !input.is_empty() {
        let bits = input.byte();
        now += u64::from(input.byte()) * 100;
        match bits >> 5 {
            0 => fragments.forget((bits & 1).into()),
            1 => drop(all.sweep(now, usize::MAX)),
            _ => add(&all, &mut input, bits, now),
        }
        let status = fragments.status();
        assert!(status.count <= LIMIT, "{status:?}");
        assert_eq!(status.count, status.packets.iter().map(|(_, count, _)| count).sum::<usize>());
    }
    [0, 1].into_iter().for_each(|owner| fragments.forget(owner));
    assert_eq!(fragments.status().count, 0);
}

fn add(all: &Conntrack, input: &mut Input<'_>, bits: u8, now: u64) {
    let is_v6 = bits & 2 != 0;
    let frame = if is_v6 { v6(input) } else { v4(input) };
    let way: Arc<dyn Way> = Arc::new(bits & 4 != 0);
    let fragment = Fragment {
        frame,
        network: LINK,
        ether_type: if is_v6 { 0x86DD } else { 0x0800 },
        zone: (bits >> 3 & 1).into(),
        next: 0,
        tags: [0; 2],
    };
    let (fate, gone) = all.fragments().add(((bits & 1).into(), &way), fragment, now);
    assert!(gone <= LIMIT);
    if let Fate::Whole(frames, _) = fate {
        is_whole(&frames, is_v6);
    }
}

/// The parts follow each other without anything between them, and the last one is the last one alone.
fn is_whole(frames: &[Vec<u8>], is_v6: bool) {
    let mut reached = 0;
    for (at, frame) in frames.iter().enumerate() {
        let (start, end, has_more) = place(frame, is_v6);
        assert_eq!(start, reached, "part {at} of {frames:02x?}");
        assert_eq!(has_more, at + 1 < frames.len(), "part {at} of {frames:02x?}");
        reached = end;
    }
    assert!(frames.len() <= LIMIT && reached <= 0xFFFF);
}

/// Where the part of a frame begins and ends, and whether there are more.
fn place(frame: &[u8], is_v6: bool) -> (usize, usize, bool) {
    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if is_v6 {
        let (start, len) = (number(LINK + 42) & 0xFFF8, number(LINK + 4) - 8);
        (start, start + len, frame[LINK + 43] & 1 != 0)
    } else {
        let (start, len) = ((number(LINK + 6) & 0x1FFF) * 8, number(LINK + 2) - V4);
        (start, start + len, frame[LINK + 6] & 0x20 != 0)
    }
}

/// How many bytes a part has, where it begins in units of 8 bytes, and whether there are more.
fn part(input: &mut Input<'_>) -> (usize, u16, bool) {
    let len = usize::try_from(input.likely(&[400, 408, 800, 8, 3])).unwrap_or(0) & 0x7FF;
    let start = u16::try_from(input.likely(&[0, 50, 51, 100, 101]) & 0x1FFF).unwrap_or(0);
    (len, start, input.yes())
}

fn v4(input: &mut Input<'_>) -> Vec<u8> {
    let (len, start, has_more) = part(input);
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(u16::try_from(V4 + len).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend([0, input.below(3)]);
    frame.extend((start | if has_more { 0x2000 } else { 0 }).to_be_bytes());
    frame.extend([64, input.pick(&[17, 6, 1, 132]), 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, input.below(2)]);
    fill(frame, len, input)
}

fn v6(input: &mut Input<'_>) -> Vec<u8> {
    let (len, start, has_more) = part(input);
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(V6 - 40 + len).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend([44, 64]);
    frame.extend([[0xFD; 16], [0xFD; 16]].concat());
    frame.extend([input.pick(&[17, 6, 58, 60]), 0]);
    frame.extend((start << 3 | u16::from(has_more)).to_be_bytes());
    frame.extend([0, 0, 0, input.below(3)]);
    fill(frame, len, input)
}

/// The payload, which begins as the input says; sometimes all of it is not there.
fn fill(mut frame: Vec<u8>, len: usize, input: &mut Input<'_>) -> Vec<u8> {
    let bits = input.byte();
    let end = frame.len() + len;
    frame.extend(input.exactly(usize::from(bits & 0x1F).min(len)));
    frame.resize(end, 0);
    if bits >= 0xF0 {
        frame.truncate(usize::from(input.byte()) + LINK);
    }
    frame
}
