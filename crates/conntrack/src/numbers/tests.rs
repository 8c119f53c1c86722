use packet::headers::tcp::TcpFlags;
use proptest::prelude::*;

use super::*;

fn segment(sequence: u32, acknowledgment: u32) -> Segment {
    Segment { flags: TcpFlags::ACK, sequence, acknowledgment, window: 1000, len: 0, scale: None }
}

fn growth(by: i32) -> Option<Replacement> {
    let (place, text) = match usize::try_from(by) {
        Ok(by) => (0..0, vec![7; by]),
        Err(_) => (0..by.unsigned_abs() as usize, Vec::new()),
    };
    Some(Replacement { place, text })
}

#[test]
fn what_follows_has_other_numbers() {
    let mut numbers = Numbers::default();
    assert_eq!(numbers.adjust(&segment(100, 900), false, None), None);
    let first = numbers.adjust(&segment(100, 900), false, growth(2)).unwrap();
    assert_eq!((first.sequence, first.acknowledged.back(900)), (0, 900));
    // Once more, as it gets lost; then what is behind it.
    assert_eq!(numbers.adjust(&segment(100, 900), false, growth(2)).unwrap().sequence, 0);
    assert_eq!(numbers.adjust(&segment(120, 900), false, None).unwrap().sequence, 2);
    assert_eq!(numbers.adjust(&segment(120, 900), false, growth(-5)).unwrap().sequence, 2);
    assert_eq!(
        numbers.adjust(&segment(140, 900), false, None).unwrap().sequence,
        2_u32.wrapping_sub(5)
    );
    // What comes back is of all that.
    let back = numbers.adjust(&segment(900, 137), true, None).unwrap();
    assert_eq!((back.sequence, back.acknowledged.back(137)), (0, 140));
    assert_eq!(back.acknowledged.back(122), 120);
    let sent = numbers.as_sent(&segment(900, 137), true, false);
    assert_eq!((sent.sequence, sent.acknowledgment), (900, 140));
    let sent = numbers.as_sent(&segment(137, 900), false, true);
    assert_eq!((sent.sequence, sent.acknowledgment), (140, 900));
}

#[test]
fn numbers_begin_again_at_0() {
    let mut numbers = Numbers::default();
    let start = u32::MAX - 5;
    assert_eq!(numbers.adjust(&segment(start, 0), false, growth(3)).unwrap().sequence, 0);
    let next = start.wrapping_add(20);
    assert_eq!(numbers.adjust(&segment(next, 0), false, None).unwrap().sequence, 3);
    let back = numbers.adjust(&segment(0, 0), true, None).unwrap();
    assert_eq!(back.acknowledged.back(next.wrapping_add(3)), next);
}

/// A message, and by how much it becomes longer on its way.
type Message = (u8, i32);

proptest! {
    /// The other side gets one stream without holes, and what it acknowledges is what was sent, however often
    /// the last segment that was changed comes again.
    #[test]
    fn both_sides_see_one_stream(
        start: u32,
        messages in prop::collection::vec((1..80_u8, prop_oneof![Just(0), -20..20_i32]), 1..20),
        again in prop::collection::vec(any::<bool>(), 20),
        is_reply: bool,
    ) {
        let mut numbers = Numbers::default();
        let (mut sent, mut got) = (start, start);
        for ((len, by), again) in messages.into_iter().zip(again) {
            let (len, by): Message = (len, by.max(-i32::from(len)));
            for _ in 0..=usize::from(again) {
                let replacement = growth(by).filter(|_| by != 0);
                let how = numbers.adjust(&segment(sent, 0), is_reply, replacement);
                let change = how.map_or(0, |how| how.sequence);
                prop_assert_eq!(sent.wrapping_add(change), got);
            }
            let end = sent.wrapping_add(len.into());
            let got_end = got.wrapping_add(u32::from(len)).wrapping_add_signed(by);
            let back = numbers.adjust(&segment(0, got_end), !is_reply, None);
            // Where all of a message is gone, there is nothing to acknowledge.
            if got_end != got {
                prop_assert_eq!(back.map_or(got_end, |back| back.acknowledged.back(got_end)), end);
                let seen = numbers.as_sent(&segment(0, got_end), !is_reply, false);
                prop_assert_eq!(seen.acknowledgment, end);
            }
            (sent, got) = (end, got_end);
        }
    }
}
