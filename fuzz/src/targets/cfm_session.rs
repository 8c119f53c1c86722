//! Neighbours that say what they like by CFM.

use std::time::{Duration, Instant};

use l2proto::cfm::frame::{Message, is_message, parse};
use l2proto::{Cfm, CfmSession};
use packet::MacAddr;

use crate::input::Input;

/// Whom messages come from.
const NEIGHBOUR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Neighbours that a session knows at most.
const MOST_KNOWN: usize = 256;

/// Plays one input: what neighbours send, what an operator says, and time that goes by.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let begin = Instant::now();
    let mut session = CfmSession::new(settings(&mut input), 0, begin);
    let (mut milliseconds, mut frames) = (0_u64, 0_u64);
    while !input.is_empty() {
        let now = begin + Duration::from_millis(milliseconds);
        match input.below(8) {
            0 => session.tell(input.pick(&[None, Some(true), Some(false)])),
            1 => session.set(settings(&mut input), now),
            2 => frames += u64::from(input.byte()),
            _ => hear(&mut session, &mut input, now),
        }
        milliseconds += input.pause();
        let now = begin + Duration::from_millis(milliseconds);
        if let Some(message) = session.run(frames, now) {
            let Cfm { extended, vlan, .. } = *session.settings();
            let frame = message.frame(NEIGHBOUR, extended, vlan);
            assert!(is_message(&frame, extended), "{message:?}");
            // The standard's messages do not say that their sender is out of operation.
            let said = Message { is_down: extended && message.is_down, ..message };
            assert_eq!(parse(&frame, extended), Some(said));
        }
        assert!(session.due() > now, "there is no end of what is due: {session:?}");
        let report = session.report(now);
        assert!(report.remotes.len() <= MOST_KNOWN, "{report:?}");
    }
}

/// Settings that a configuration may have.
fn settings(input: &mut Input<'_>) -> Cfm {
    let bits = input.byte();
    let settings = Cfm {
        interval: input.likely_u32(&[1, 100, 1_000, 65_535]),
        extended: bits & 1 != 0,
        demand: bits & 2 != 0,
        down: bits & 4 != 0,
        vlan: (bits & 8 != 0).then_some(u16::from(bits)),
        ..Cfm::new(input.likely(&[1, 2, 8_191]))
    };
    if settings.check().is_ok() { settings } else { Cfm::new(1) }
}

/// Hears a frame, which mostly is a message.
fn hear(session: &mut CfmSession, input: &mut Input<'_>, now: Instant) {
    let bits = input.byte();
    let message = Message {
        sequence: input.byte().into(),
        mpid: input.likely(&[1, 2, 3]),
        interval_code: input.below(8),
        interval: input.number(),
        hears_nobody: bits & 1 != 0,
        is_down: bits & 2 != 0,
        is_ours: true,
    };
    let is_extended = session.settings().extended ^ (bits & 0xF0 == 0xF0);
    let mut frame = message.frame(NEIGHBOUR, is_extended, (bits & 4 != 0).then_some(1));
    input.spoil(&mut frame, (bits & 8 != 0, bits & 0x0C == 0x0C));
    session.hear(&frame, now);
}
