//! A neighbour that says what it likes by BFD.

use std::time::{Duration, Instant};

use l2proto::bfd::frame::{Packet, is_for, parse};
use l2proto::bfd::{BfdDiag, BfdFlags};
use l2proto::{Bfd, BfdSession, BfdState};
use packet::MacAddr;

use crate::input::Input;

/// Whom packets come from.
const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// How often what is due may have more that is due behind it, at one time.
const MOST: usize = 8;

/// Plays one input: what a neighbour sends, what an operator says, and time that goes by.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let begin = Instant::now();
    let mut session = BfdSession::new(settings(&mut input), 0, begin);
    let (mut milliseconds, mut frames, mut number) = (0_u64, 0_u64, 0_u32);
    while !input.is_empty() {
        let now = begin + Duration::from_millis(milliseconds);
        match input.below(8) {
            0 => session.tell(input.pick(&[None, Some(true), Some(false)])),
            1 => session.set(settings(&mut input), now),
            2 => frames += u64::from(input.byte()),
            _ => hear(&mut session, &mut input, number, now),
        }
        let report = session.report(now);
        assert_eq!(report.local.state, session.state().0);
        milliseconds += input.pause();
        let now = begin + Duration::from_millis(milliseconds);
        for turn in 0.. {
            assert!(turn < MOST, "there is no end of what is due: {session:?}");
            if let Some((packet, port)) = session.run(frames, now) {
                assert_eq!(packet.check(), Ok(()), "{packet:?}");
                let frame = packet.frame(session.settings(), NEIGHBOUR, port);
                assert_eq!(parse(&frame), Some(packet));
                number = packet.own;
            }
            if session.due() > now {
                break;
            }
        }
    }
}

/// Settings that a configuration may have.
fn settings(input: &mut Input<'_>) -> Bfd {
    let bits = input.byte();
    let settings = Bfd {
        min_tx: input.likely_u32(&[1, 100, 1_000, 60_000]),
        min_rx: input.likely_u32(&[0, 1, 100, 1_000]),
        mult: input.byte(),
        decay_min_rx: input.likely_u32(&[0, 0, 200, 3_000]),
        forwarding_if_rx: bits & 1 != 0,
        cpath_down: bits & 2 != 0,
        check_tnl_key: bits & 8 != 0,
        remote_dst_mac: (bits & 4 != 0).then_some(NEIGHBOUR),
        ..Bfd::default()
    };
    if settings.check().is_ok() { settings } else { Bfd::default() }
}

/// Hears a frame, which mostly is a packet of the session that knows the `number` of this side.
fn hear(session: &mut BfdSession, input: &mut Input<'_>, number: u32, now: Instant) {
    let bits = input.byte();
    let states = [BfdState::AdminDown, BfdState::Down, BfdState::Init, BfdState::Up];
    let packet = Packet {
        diag: BfdDiag(input.below(32)),
        state: input.pick(&states),
        flags: BfdFlags(input.byte() & 0x3F),
        mult: input.byte(),
        own: input.likely_u32(&[1, 2]),
        other: if bits & 1 == 0 { number } else { input.number() },
        min_tx: input.likely_u32(&[0, 100_000, 1_000_000]),
        min_rx: input.likely_u32(&[0, 100_000, 1_000_000]),
        ..Packet::new()
    };
    // It answers where this side sends.
    let settings = session.settings().clone();
    let theirs = Bfd { src_ip: settings.dst_ip, dst_ip: settings.src_ip, ..Bfd::default() };
    let mut frame = packet.frame(&theirs, NEIGHBOUR, 50_000);
    input.spoil(&mut frame, (bits & 2 != 0, bits & 4 != 0));
    let _ = is_for(&frame, (bits & 8).into(), &settings);
    let before = session.state();
    if session.hear(&frame, now).is_err() {
        assert_eq!(session.state(), before, "by a packet that was refused");
    }
}
