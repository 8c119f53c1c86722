//! Connections that controllers have end.

use super::*;

/// What comes of a message of this kind, and of one whose zeroes are none.
fn flushed(version: Version, kind: Kind, body: &[u8], broken: usize) -> Vec<CtFlush> {
    let (mut bridge, id) = connected(version, Origin::Controller);
    let mut datapath = Recorder::default();
    let mut flush = |body: &[u8]| {
        let mut message = Message::new(version, kind, 9);
        message.body().bytes(body);
        let message = message.finish();
        bridge.receive(id, &message, &mut datapath, Instant::now()).unwrap();
        let error = ErrorMessage::reply(ErrorCode::NxbrcMustBeZero, version, 9, &message);
        (sent(&mut bridge, id), error)
    };
    assert!(flush(body).0.is_empty(), "{version}");
    let mut body = body.to_vec();
    body[broken] = 1;
    let (answers, error) = flush(&body);
    assert_eq!(answers, [error], "{version}");
    datapath.flushed
}

#[test]
fn connections_of_a_zone_end() {
    for version in Version::ALL {
        let zone = [0, 0, 0, 0, 0, 0, 1, 2];
        let expected = CtFlush { zone: Some(0x102), ..CtFlush::default() };
        assert_eq!(flushed(version, Kind::CtFlushZone, &zone, 3), [expected]);
    }
}

#[test]
fn connections_end_by_what_they_have() {
    for version in Version::ALL {
        let words = ["zone=5", "mark=1/3", "ct_nw_src=10.0.0.1,ct_nw_proto=17,ct_tp_dst=53"];
        let which = CtFlush::parse(&words).unwrap();
        let mut message = Message::new(version, Kind::CtFlush, 9);
        which.write(&mut message);
        let body = message.body().clone();
        let header = Message::new(version, Kind::CtFlush, 9).body().len();
        assert_eq!(flushed(version, Kind::CtFlush, &body[header..], 3), [which]);
    }
}
