use packet::{Burst, Segment};
use proptest::prelude::*;

use super::*;
use crate::extract::Layers;

/// Bits of all fields that a frame can have.
fn all_bits() -> Key {
    let mut key = Key::default();
    key.0.iter_mut().take(PACKET_WORDS).for_each(|word| *word = u64::MAX);
    key
}

/// The shape of a frame of which only the first `head` bytes are known.
fn shape_of(frame: &[u8], head: usize, depth: Depth) -> Option<Shape> {
    let head = frame.get(..head).unwrap_or(frame);
    let mut seen = [0; SEEN];
    seen.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
    Shape::of(&seen, head, frame.len(), depth)
}

/// Where these bits count of frames of all kinds.
fn shapes_with(relevant: &Key, depth: Depth, vlans: u8) -> Shapes {
    Shapes::new(([*relevant; KINDS.len()], *relevant), depth, vlans)
}

fn shapes_of(depth: Depth) -> Vec<Shape> {
    let all = (0..SHAPES).map(Shape);
    all.filter(|shape| {
        let carried = shape.0 & !TAGGED;
        (carried == LINK) == (depth == Depth::Link) && carried != SIX
    })
    .collect()
}

#[test]
fn samples_have_the_shapes_that_they_are_of() {
    for depth in [Depth::Link, Depth::All] {
        let shapes = shapes_of(depth);
        assert_eq!(shapes.len(), if depth == Depth::Link { 2 } else { 12 });
        for shape in shapes {
            let sample = sample(shape);
            assert_eq!(shape_of(&sample, SAMPLE, depth), Some(shape), "{sample:?}");
        }
    }
}

/// TCP over IPv4, of which the named fields count.
fn mask_of(fields: &[crate::key::Slot]) -> Vec<usize> {
    let mut relevant = Key::default();
    fields.iter().for_each(|field| relevant.set(*field, field.ones()));
    let mask = shapes_with(&relevant, Depth::All, 1).find_mask(Shape(TCP)).unwrap();
    let bytes = mask.iter().zip(PLACES).flat_map(|(word, place)| {
        let bytes = word.to_le_bytes().into_iter().enumerate();
        bytes.filter(|(_, byte)| *byte != 0).map(move |(at, _)| place + at)
    });
    bytes.collect()
}

#[test]
fn masks_are_of_the_bytes_of_fields() {
    let telling = [12, 13, 23];
    let with = |bytes: &[usize]| {
        let mut all = [&telling, bytes].concat();
        all.sort_unstable();
        all
    };
    assert_eq!(mask_of(&[]), telling);
    assert_eq!(mask_of(&[slot::IPV4_DST]), with(&[30, 31, 32, 33]));
    assert_eq!(mask_of(&[slot::TP_DST, slot::TCP_FLAGS]), with(&[36, 37, 46, 47]));
    assert_eq!(mask_of(&[slot::ETH_SRC, slot::IP_TTL]), with(&[6, 7, 8, 9, 10, 11, 22]));
    assert_eq!(mask_of(&[slot::VLAN_TCI, slot::IPV6_DST, slot::ND_TARGET]), telling);
}

#[test]
fn what_is_too_far_behind_is_looked_up_by_key() {
    let of = |field: crate::key::Slot, shape| {
        let mut relevant = Key::default();
        relevant.set(field, field.ones());
        let mut shapes = shapes_with(&relevant, Depth::All, 1);
        let line = shapes.line(&sample(Shape(shape)), SAMPLE, Depth::All);
        // It is the same when it is asked for again.
        assert_eq!(line, shapes.line(&sample(Shape(shape)), SAMPLE, Depth::All));
        line.is_some()
    };
    assert!(of(slot::TP_DST, TCP | SIX) && of(slot::IPV6_DST, UDP | SIX | TAGGED));
    assert!(!of(slot::TCP_FLAGS, TCP | SIX) && !of(slot::TP_DST, UDP | SIX | TAGGED));
    assert!(of(slot::TCP_FLAGS, TCP | TAGGED));
}

/// An acknowledgement of TCP has 54 bytes, and a guest sends no padding.
#[test]
fn short_frames_have_lines_if_their_headers_are_there() {
    for (shape, least) in [(TCP, 54), (UDP, 42), (ICMP | TAGGED, 46), (UDP | SIX, 62)] {
        let shape = Shape(shape);
        let mut frame = sample(shape);
        let at = shape.network();
        let total = if shape.0 & SIX == 0 { least - at } else { least - at - 40 };
        frame[at + if shape.0 & SIX == 0 { 3 } else { 5 }] = u8::try_from(total).unwrap();
        let mut shapes = shapes_with(&all_bits(), Depth::All, 1);
        assert!(shapes.line(&frame[..least], least, Depth::All).is_some(), "{shape:?}");
        let whole = shapes.line(&frame, SAMPLE, Depth::All);
        assert_eq!(shapes.line(&frame[..least], least, Depth::All), whole);
        assert_eq!(shapes.line(&frame[..least - 1], least, Depth::All), None, "{shape:?}");
        assert_eq!(shapes.line(&frame[..least - 1], least - 1, Depth::All), None, "{shape:?}");
    }
}

/// How many of these, from the first on, are such: as many whether or not what they have in common is known.
fn count(twin: &Twin, frames: &[Frame<'_>], shapes: &Shapes) -> usize {
    let burst = Burst::new(frames);
    let count = twin.count(burst, shapes);
    assert_eq!(twin.count(burst.compared(), shapes), count);
    count
}

/// Whatever bit is another one.
#[test]
fn no_frame_with_another_line_is_a_twin() {
    for depth in [Depth::Link, Depth::All] {
        for shape in shapes_of(depth) {
            let mut shapes = shapes_with(&Key::default(), depth, 1);
            let bytes = sample(shape);
            let line = shapes.line(&bytes, SAMPLE, depth);
            let Some(twin) = shapes.twin(&Frame::from_bytes(&bytes), depth) else { continue };
            for bit in 0..8 * SAMPLE {
                let mut other = bytes;
                other[bit / 8] ^= 1 << (bit % 8);
                let is_twin = count(&twin, &[Frame::from_bytes(&other)], &shapes) == 1;
                let same = shapes.line(&other, SAMPLE, depth) == line;
                assert!(same || !is_twin, "{shape:?}, bit {bit}");
            }
            let shorter = Frame::from_bytes(&bytes[..SAMPLE - 1]);
            assert_eq!(count(&twin, &[shorter], &shapes), 0, "{shape:?}");
        }
    }
}

/// The header of TCP over IPv6 is farther behind than what is seen.
#[test]
fn frames_that_are_alike_are_known_without_another_look_but_of_tcp_over_ipv6() {
    for depth in [Depth::Link, Depth::All] {
        for shape in shapes_of(depth) {
            let mut relevant = Key::default();
            relevant.set(slot::ETH_DST, slot::ETH_DST.ones());
            let mut shapes = shapes_with(&relevant, depth, 1);
            let (bytes, mut others) = (sample(shape), [sample(shape); 3]);
            let is_known = shapes.line(&bytes, SAMPLE, depth).is_some();
            // What does not count differs: the source, and how long a packet lives.
            others[0][6] = 1;
            others[1][shape.network() + 8] ^= u8::from(depth == Depth::All && shape.0 & SIX == 0);
            others[2][5] = 1;
            let [frame, others @ ..] =
                [&bytes, &others[0], &others[1], &others[2]].map(|bytes| Frame::from_bytes(bytes));
            let twin = shapes.twin(&frame, depth);
            assert_eq!(twin.is_some(), is_known && shape.0 & !TAGGED != TCP | SIX, "{shape:?}");
            assert!(twin.is_none_or(|twin| count(&twin, &others, &shapes) == 2), "{shape:?}");
        }
    }
}

fn depths() -> impl Strategy<Value = Depth> {
    prop_oneof![Just(Depth::Link), Just(Depth::All)]
}

/// A frame of an ordinary shape, or nearly so: some bytes are any, and it may be cut.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let headers = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    let rest = prop::collection::vec(any::<u8>(), SAMPLE);
    let parts = (0..SHAPES, headers, rest, any::<bool>(), prop_oneof![Just(SAMPLE), 0..SAMPLE]);
    parts.prop_map(|(shape, changes, rest, is_any, len)| {
        let mut frame = sample(Shape(shape)).to_vec();
        if is_any {
            let at = Shape(shape).network();
            let fixed =
                [at - 2, at - 1, at, at + 2, at + 3, at + 4, at + 5, at + 6, at + 7, at + 9];
            let frame = frame.iter_mut().zip(&rest).enumerate();
            let free = |at: &usize| !fixed.contains(at) && ![12, 13].contains(at);
            frame.filter(|(at, _)| free(at)).for_each(|(_, (byte, any))| *byte = *any);
        }
        changes.into_iter().for_each(|(at, byte)| frame[at.index(SAMPLE)] = byte);
        frame.truncate(len);
        frame
    })
}

fn read(frame: &[u8], head: usize, vlans: u8, depth: Depth) -> (Key, Layers) {
    let mut key = Key::default();
    let head = frame.get(..head).unwrap_or(frame);
    let layers = extract(&mut key, head, frame.len(), vlans, depth);
    (key, layers)
}

proptest! {
    /// Frames have the same line if, and only if, what is relevant of their keys is the same, and they have
    /// the same headers.
    #[test]
    fn lines_are_alike_where_keys_are(
        frame in frames(),
        bits in prop::collection::vec((0..PACKET_WORDS, any::<u64>()), 0..8),
        all in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
        head in 14..=SAMPLE,
        vlans in 1..=2_u8,
        depth in depths(),
    ) {
        let mut relevant = Key::default();
        bits.iter().for_each(|(word, bits)| relevant.0[*word] |= bits);
        let relevant = if all { all_bits() } else { relevant };
        let mut shapes = shapes_with(&relevant, depth, vlans);
        let mut other = frame.clone();
        if !other.is_empty() {
            changes.iter().for_each(|(at, bit)| other[at.index(frame.len())] ^= 1 << bit);
        }
        let known = [&frame, &other].map(|frame| {
            let cut = frame.get(..head).unwrap_or(frame);
            let line = shapes.line(cut, frame.len(), depth)?;
            let (key, layers) = read(frame, head, vlans, depth);
            assert!(layers.network != 0 && !layers.is_cut, "{frame:?}");
            let shape = shape_of(frame, head, depth).unwrap();
            let telling: Vec<u8> = shape.telling().map(|at| frame[at]).collect();
            let words = key.0.iter().zip(&relevant.0).map(|(word, bits)| word & bits);
            Some((line, (telling, words.collect::<Vec<u64>>())))
        });
        if let [Some((own, key)), Some((line, other))] = known {
            prop_assert_eq!(own == line, key == other);
        }
    }

    /// What is taken for a twin has the line of the frame that it is one of.
    #[test]
    fn twins_have_the_same_line(
        frame in frames(),
        bits in prop::collection::vec((0..PACKET_WORDS, any::<u64>()), 0..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 0..4),
        heads in [14..=SAMPLE, 14..=SAMPLE],
        has_same_head in any::<bool>(),
        longer in prop_oneof![4 => Just(0_usize), 1 => 0..20_usize],
        depth in depths(),
    ) {
        let mut relevant = Key::default();
        bits.iter().for_each(|(word, bits)| relevant.0[*word] |= bits);
        let mut shapes = shapes_with(&relevant, depth, 1);
        let mut other = [&frame[..], &vec![0; longer]].concat();
        changes.iter().filter(|_| !frame.is_empty()).for_each(|(at, bit)| other[at.index(frame.len())] ^= 1 << bit);
        let heads = [heads[0].min(frame.len()), heads[if has_same_head { 0 } else { 1 }].min(other.len())];
        let bodies = [Segment::from_bytes(&frame[heads[0]..]), Segment::from_bytes(&other[heads[1]..])];
        let [one, two] = [(&frame, 0), (&other, 1)].map(|(bytes, number)| {
            Frame::from_parts(&bytes[..heads[number]], &bodies[number..=number]).unwrap()
        });
        let [own, line] = [one, two].map(|frame| shapes.line(frame.head(), frame.len(), depth));
        let Some(twin) = shapes.twin(&one, depth) else { return Ok(()) };
        if count(&twin, &[two, one], &shapes) > 0 {
            prop_assert!(own.is_some() && own == line);
        }
        count(&twin, &[one, two, one, one], &shapes);
        count(&twin, &[one, one], &shapes);
    }

    /// Whatever bytes there are, what has a shape is what `extract` reads in whole.
    #[test]
    fn any_bytes_are_taken(
        head in prop::collection::vec(any::<u8>(), 0..SAMPLE),
        kind in prop_oneof![Just([8, 0]), Just([0x86, 0xDD]), Just([0x81, 0]), any::<[u8; 2]>()],
        beyond in 0..2_000_usize,
        depth in depths(),
    ) {
        let mut head = head;
        if let Some(own) = head.get_mut(12..14) {
            own.copy_from_slice(&kind);
        }
        let len = head.len() + beyond;
        if shapes_with(&Key::default(), depth, 1).line(&head, len, depth).is_some() {
            let mut key = Key::default();
            let layers = extract(&mut key, &head, len, 1, depth);
            prop_assert!(layers.network != 0 && !layers.is_cut);
        }
    }

    #[test]
    fn ports_are_told_apart_as_far_as_they_count(one: u32, other: u32, bits: u32) {
        let mut relevant = Key::default();
        relevant.set(slot::IN_PORT, bits.into());
        let mut shapes = shapes_with(&relevant, Depth::All, 1);
        let lines = [one, other].map(|port| {
            shapes.set_port(port);
            shapes.line(&sample(Shape(UDP)), SAMPLE, Depth::All)
        });
        prop_assert_eq!(lines[0] == lines[1], one & bits == other & bits);
        prop_assert!(lines[0].is_some());
    }
}
