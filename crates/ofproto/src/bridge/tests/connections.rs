//! Connections that controllers have end.

use super::*;

#[test]
fn connections_of_a_zone_end() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Controller);
        let mut datapath = Recorder::default();
        let mut flush = |body: [u8; 8]| {
            let mut message = Message::new(version, Kind::CtFlushZone, 9);
            message.body().bytes(&body);
            let message = message.finish();
            bridge.receive(id, &message, &mut datapath, Instant::now()).unwrap();
            let error = ErrorMessage::reply(ErrorCode::NxbrcMustBeZero, version, 9, &message);
            (sent(&mut bridge, id), error)
        };
        assert!(flush([0, 0, 0, 0, 0, 0, 1, 2]).0.is_empty(), "{version}");
        let (answers, error) = flush([0, 0, 0, 1, 0, 0, 1, 2]);
        assert_eq!(answers, [error], "{version}");
        assert_eq!(datapath.zones, [0x102]);
    }
}
