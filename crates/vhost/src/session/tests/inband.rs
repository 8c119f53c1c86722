//! Notifications as messages.

use super::*;

const INBAND: ProtocolFeatures = ProtocolFeatures::INBAND_NOTIFICATIONS;

fn kick(index: u32) -> M {
    M::VringKick(state(index, 0))
}

/// A front-end that has negotiated notifications as messages, and described ring 1.
fn ready() -> Bench {
    let mut bench = Bench::ready(|device| device.inband = true);
    bench.ok(M::SetProtocolFeatures((IMPLEMENTED | INBAND).bits()));
    for message in setup(1) {
        if !matches!(message, M::SetVringKick(_) | M::SetVringCall(_) | M::SetVringErr(_)) {
            bench.ok(message);
        }
    }
    bench.calls.take();
    bench
}

#[test]
fn a_kick_starts_a_ring_that_tells_in_messages() {
    let mut bench = ready();
    bench.ok(kick(1));
    // No kick file, and notes in place of the others.
    let calls =
        [Call::Start(Start { files: [false, true, true], ..started(1) }), Call::RingKicked(1)];
    assert_eq!(bench.calls.take(), calls);
    let all = Arc::clone(bench.session.notifications().unwrap());
    // The recording device uses what is there when it is kicked, and tells.
    assert!(matches!(all.take(), Some(crate::protocol::BackendMessage::VringCall(1))));
    assert!(all.take().is_none());
    bench.ok(kick(1));
    assert_eq!(bench.calls.take(), [Call::RingKicked(1)]);
    bench.ok(M::GetVringBase(state(1, 0)));
    assert_eq!(bench.calls.take(), [Call::Stop(1)]);
}

#[test]
fn files_go_before_messages_and_no_file_for_calls_is_polling() {
    let mut bench = ready();
    bench.ok(M::SetVringErr(with_fd(1)));
    bench.ok(M::SetVringCall(VringFile { index: 1, fd: None }));
    bench.ok(kick(1));
    bench.ok(M::SetVringKick(with_fd(1)));
    let start = Start { files: [false, false, true], ..started(1) };
    let calls = [Call::Start(start), Call::RingKicked(1), Call::Kick(1, true)];
    assert_eq!(bench.calls.take(), calls);
    assert!(bench.session.notifications().unwrap().take().is_none());
}

#[test]
fn a_kick_needs_what_a_kick_file_needs() {
    let mut bench = ready();
    let error = bench.refused(kick(0));
    assert!(matches!(error, SessionError::RingIncomplete { index: 0, .. }), "{error}");
    let error = bench.refused(kick(5));
    assert!(matches!(error, SessionError::RingIndex { index: 5, .. }), "{error}");
    let mut bench = Bench::ready(|_| ());
    let error = bench.refused(kick(1));
    assert!(matches!(error, SessionError::NotNegotiated { .. }), "{error}");
}

#[test]
fn a_channel_and_acknowledgements_have_to_be_negotiated_as_well() {
    for without in [ProtocolFeatures::BACKEND_REQ, ProtocolFeatures::REPLY_ACK] {
        let mut bench = Bench::with(|device| device.inband = true);
        let features = (IMPLEMENTED | INBAND) - without;
        let error = bench.refused(M::SetProtocolFeatures(features.bits()));
        assert!(matches!(error, SessionError::NotNegotiated { .. }), "{error}");
        assert!(bench.session.notifications().is_none());
    }
}
