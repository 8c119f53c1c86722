use packet::headers::tcp::TcpFlags;
use proptest::prelude::*;

use super::*;

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags::FIN;
const RST: TcpFlags = TcpFlags::RST;

fn segment(flags: TcpFlags, sequence: u32, acknowledgment: u32, len: u32) -> Segment {
    Segment { flags, sequence, acknowledgment, window: 1000, len, scale: None }
}

/// A connection as it is seen from the middle.
struct Seen([Side; 2]);

impl Seen {
    fn pass(&mut self, from: usize, segment: &Segment) -> Verdict {
        let [one, other] = &mut self.0;
        let (sender, receiver) = if from == 0 { (one, other) } else { (other, one) };
        update(sender, receiver, segment, true)
    }

    fn states(&self) -> [TcpState; 2] {
        self.0.each_ref().map(|side| side.state)
    }
}

/// The three messages that open a connection (RFC 9293, figure 6).
fn open() -> Seen {
    let mut seen = Seen(begin(&segment(SYN, 100, 0, 0)));
    let answer = seen.pass(1, &segment(SYN | ACK, 300, 101, 0));
    assert_eq!(answer, Verdict::Valid(Some(Stage::TcpOpening)));
    let last = seen.pass(0, &segment(ACK, 101, 301, 0));
    assert_eq!(last, Verdict::Valid(Some(Stage::TcpEstablished)));
    seen
}

fn valid(stage: Stage) -> Verdict {
    Verdict::Valid(Some(stage))
}

#[test]
fn a_connection_is_opened_used_and_closed() {
    let mut seen = open();
    assert_eq!(seen.pass(0, &segment(ACK, 101, 301, 50)), valid(Stage::TcpEstablished));
    assert_eq!(seen.pass(1, &segment(ACK, 301, 151, 500)), valid(Stage::TcpEstablished));
    // RFC 9293, figure 12.
    assert_eq!(seen.pass(0, &segment(FIN | ACK, 151, 801, 0)), valid(Stage::TcpClosing));
    assert_eq!(seen.pass(1, &segment(ACK, 801, 152, 0)), valid(Stage::TcpClosing));
    assert_eq!(seen.pass(1, &segment(FIN | ACK, 801, 152, 0)), valid(Stage::TcpFinWait));
    assert_eq!(seen.pass(0, &segment(ACK, 152, 802, 0)), valid(Stage::TcpClosed));
    assert_eq!(seen.states(), [TcpState::FinWait2; 2]);
    // The ports can be used for another one.
    assert_eq!(seen.pass(0, &segment(SYN, 9_000, 0, 0)), Verdict::Anew);
}

#[test]
fn both_may_open_and_close_at_once() {
    // RFC 9293, figures 7 and 13.
    let mut seen = Seen(begin(&segment(SYN, 100, 0, 0)));
    assert_eq!(seen.pass(1, &segment(SYN, 300, 0, 0)), valid(Stage::TcpOpening));
    assert_eq!(seen.pass(0, &segment(SYN | ACK, 100, 301, 0)), valid(Stage::TcpOpening));
    assert_eq!(seen.pass(1, &segment(SYN | ACK, 300, 101, 0)), valid(Stage::TcpEstablished));
    assert_eq!(seen.pass(0, &segment(FIN | ACK, 101, 301, 0)), valid(Stage::TcpClosing));
    assert_eq!(seen.pass(1, &segment(FIN | ACK, 301, 101, 0)), valid(Stage::TcpFinWait));
    assert_eq!(seen.pass(0, &segment(ACK, 102, 302, 0)), valid(Stage::TcpFinWait));
    assert_eq!(seen.pass(1, &segment(ACK, 302, 102, 0)), valid(Stage::TcpClosed));
}

#[test]
fn a_first_packet_may_come_again_with_other_numbers() {
    let mut seen = Seen(begin(&segment(SYN, 4_000_000_000, 0, 0)));
    assert_eq!(seen.pass(0, &segment(SYN, 4_000_000_000, 0, 0)), Verdict::First);
    assert_eq!(seen.pass(0, &segment(SYN, 100, 0, 0)), Verdict::First);
    assert_eq!(seen.pass(1, &segment(SYN | ACK, 300, 101, 0)), valid(Stage::TcpOpening));
    assert_eq!(seen.pass(0, &segment(ACK, 101, 301, 80)), valid(Stage::TcpEstablished));
}

#[test]
fn numbers_outside_the_window_are_invalid() {
    let mut seen = open();
    let before = seen.0;
    // More than was offered; older than a window; acknowledging what nobody has sent.
    assert_eq!(seen.pass(0, &segment(ACK, 101, 301, 1001)), Verdict::Invalid);
    assert_eq!(seen.pass(0, &segment(ACK, 101_000_000, 301, 10)), Verdict::Invalid);
    assert_eq!(seen.pass(0, &segment(ACK, 4_000_000_000, 301, 10)), Verdict::Invalid);
    assert_eq!(seen.pass(0, &segment(ACK, 101, 70_000, 10)), Verdict::Invalid);
    assert_eq!(seen.0, before);
    assert_eq!(seen.pass(0, &segment(ACK, 101, 301, 1000)), valid(Stage::TcpEstablished));
    let [one, other] = &mut seen.0;
    let far = segment(ACK, 101_000_000, 7, 10);
    assert_eq!(update(one, other, &far, false), valid(Stage::TcpEstablished));
}

#[test]
fn numbers_begin_again_at_zero() {
    let start = u32::MAX - 10;
    let mut seen = Seen(begin(&segment(SYN, start, 0, 0)));
    seen.pass(1, &segment(SYN | ACK, u32::MAX, start.wrapping_add(1), 0));
    for from in [0, 100, 200] {
        let sequence = start.wrapping_add(1 + from);
        let data = segment(ACK, sequence, 0, 100);
        assert_eq!(seen.pass(0, &data), valid(Stage::TcpEstablished));
        let answer = segment(ACK, 0, sequence.wrapping_add(100), 0);
        assert_eq!(seen.pass(1, &answer), valid(Stage::TcpEstablished));
    }
}

#[test]
fn a_reset_has_to_be_the_next_one() {
    let mut seen = open();
    assert_eq!(seen.pass(1, &segment(RST, 700, 0, 0)), Verdict::Invalid);
    assert_eq!(seen.states(), [TcpState::Established; 2]);
    assert_eq!(seen.pass(1, &segment(RST, 301, 0, 0)), valid(Stage::TcpClosed));
    assert_eq!(seen.states(), [TcpState::TimeWait; 2]);
    // A connection that is refused.
    let mut seen = Seen(begin(&segment(SYN, 100, 0, 0)));
    assert_eq!(seen.pass(1, &segment(RST | ACK, 0, 101, 0)), valid(Stage::TcpClosed));
}

#[test]
fn flags_that_make_no_sense_are_invalid() {
    for flags in [0, 0x01, 0x08, 0x20, 0x03, 0x06, 0x07, 0x29] {
        let mut seen = open();
        assert_eq!(seen.pass(0, &segment(TcpFlags(flags), 101, 301, 1)), Verdict::Invalid);
        assert!(!segment(TcpFlags(flags), 1, 1, 1).can_begin(), "{flags:#x}");
    }
    assert!(!segment(SYN | ACK, 1, 1, 0).can_begin());
    assert!(segment(SYN, 1, 0, 0).can_begin() && segment(ACK, 1, 1, 0).can_begin());
}

#[test]
fn windows_are_scaled_if_both_say_so() {
    let opening = |scale, answer| {
        let mut seen = Seen(begin(&Segment { scale, ..segment(SYN, 100, 0, 0) }));
        seen.pass(1, &Segment { scale: answer, ..segment(SYN | ACK, 300, 101, 0) });
        seen.pass(0, &segment(ACK, 101, 301, 0));
        // What is offered, scaled by 7 bits, is 128,000 bytes.
        seen.pass(1, &segment(ACK, 301, 101, 0));
        seen.pass(0, &segment(ACK, 101, 301, 100_000))
    };
    assert_eq!(opening(Some(7), Some(7)), valid(Stage::TcpEstablished));
    assert_eq!(opening(Some(7), None), Verdict::Invalid);
    assert_eq!(opening(None, Some(7)), Verdict::Invalid);
    // Seen in the middle, windows are anything that can be.
    let mut seen = Seen(begin(&segment(ACK, 101, 301, 0)));
    seen.pass(1, &segment(ACK, 301, 101, 0));
    assert_eq!(seen.pass(0, &segment(ACK, 101, 301, 100_000)), valid(Stage::TcpEstablished));
}

#[test]
fn a_scale_is_the_same_as_a_byte() {
    for scale in [Scale::None, Scale::Unknown, Scale::Known(0), Scale::Known(14)] {
        assert_eq!(Scale::from_byte(scale.to_byte()), scale);
    }
}

proptest! {
    /// Whatever two ends send that keep to the protocol, in whatever order it is lost, is valid.
    #[test]
    fn what_ends_may_send_is_valid(
        starts in any::<[u32; 2]>(),
        turns in prop::collection::vec((0..2_usize, 0..900_u32, any::<bool>()), 0..80),
    ) {
        let mut seen = Seen(begin(&segment(SYN, starts[0], 0, 0)));
        let mut next = starts.map(|start| start.wrapping_add(1));
        seen.pass(1, &segment(SYN | ACK, starts[1], next[0], 0));
        seen.pass(0, &segment(ACK, next[0], next[1], 0));
        // What each has had acknowledged by the other one, whose window is 1000 bytes.
        let mut had = next;
        for (from, len, is_sent_again) in turns {
            let to = 1 - from;
            let first = if is_sent_again { had[from] } else { next[from] };
            let room = 1000 - first.wrapping_sub(had[from]);
            let data = segment(ACK, first, next[to], len.min(room));
            prop_assert_eq!(seen.pass(from, &data), valid(Stage::TcpEstablished));
            had[to] = next[to];
            next[from] = later(first.wrapping_add(len.min(room)), next[from]);
        }
    }

    /// Who guesses does not change what is known, unless he hits the window.
    #[test]
    fn guesses_change_nothing(
        sequence in 10_000..u32::MAX - 200_000,
        flags in any::<u8>(),
        acknowledgment in any::<u32>(),
        window in any::<u16>(),
    ) {
        let mut seen = open();
        let before = seen.0;
        let flags = TcpFlags(flags & !SYN.0);
        let guess = Segment { window, ..segment(flags, sequence, acknowledgment, 10) };
        prop_assert_eq!(seen.pass(0, &guess), Verdict::Invalid);
        prop_assert_eq!(seen.0, before);
    }

    #[test]
    fn nothing_is_too_much(segments in prop::collection::vec(
        (0..2_usize, any::<(u8, u32, u32, u16, u32)>(), any::<Option<u8>>(), any::<bool>()),
        0..40,
    )) {
        let mut sides = begin(&segment(SYN, 1, 0, 0));
        for (from, (flags, sequence, acknowledgment, window, len), scale, checks) in segments {
            let flags = TcpFlags(flags);
            let segment = Segment { flags, sequence, acknowledgment, window, len, scale };
            let [one, other] = &mut sides;
            let (sender, receiver) = if from == 0 { (one, other) } else { (other, one) };
            let _ = update(sender, receiver, &segment, checks);
        }
    }
}

/// The later one of two numbers that begin again at 0.
const fn later(one: u32, other: u32) -> u32 {
    if reaches(one, other) { one } else { other }
}
