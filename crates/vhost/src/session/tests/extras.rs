//! Configuration space, announcements, and the channel of the back-end.

use std::os::unix::net::UnixStream;

use super::*;
use crate::testing::CONFIG;

fn part(offset: u32, len: usize) -> ConfigSpace {
    ConfigSpace { offset, flags: 0, bytes: std::iter::repeat_n(0xff, len).collect() }
}

fn read(bench: &mut Bench, offset: u32, len: usize) -> Answer {
    bench.send(&M::GetConfig(part(offset, len)), true).unwrap()
}

#[test]
fn configuration_space_is_read_in_parts() {
    let mut bench = Bench::ready(|_| ());
    for (offset, len) in [(0, 8), (0, 1), (3, 4), (7, 1)] {
        let answer = read(&mut bench, offset, len);
        let start = usize::try_from(offset).unwrap();
        let bytes = CONFIG[start..start + len].iter().copied().collect();
        let expected = ConfigSpace { offset, flags: 0, bytes };
        assert_eq!(answer.reply, Some(Reply::Config(Box::new(expected))));
        assert!(answer.refused.is_none());
    }
}

#[test]
fn what_is_not_there_has_an_empty_answer() {
    let mut bench = Bench::ready(|_| ());
    for (offset, len) in [(0, 9), (8, 1), (u32::MAX, 1), (u32::MAX, 256), (1, 8)] {
        let answer = read(&mut bench, offset, len);
        assert_eq!(answer.reply, Some(Reply::Empty), "{offset} {len}");
        let refused = answer.refused.unwrap().to_string();
        assert_eq!(refused, "GET_CONFIG: the device refuses: there is no such part");
    }
    // Nothing, more than there can be, and another size than the payload has.
    for (size, len) in [(0_u32, 0), (257, 257), (u32::MAX, 4), (4, 3), (4, 5)] {
        let payload = [[0, size, 0].map(u32::to_ne_bytes).concat(), vec![0; len]].concat();
        let size = payload.len().try_into().unwrap();
        let answer = bench.raw(Header::request(24, size, false), &payload, vec![]).unwrap();
        assert_eq!(answer.reply, Some(Reply::Empty));
        assert!(answer.refused.is_some());
        bench.raw(Header::request(25, size, false), &payload, vec![]).unwrap_err();
    }
    bench.raw(Header::request(24, 13, false), &[1; 13], vec![null()]).unwrap();
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn configuration_space_is_written_by_driver_and_migration() {
    let mut bench = Bench::ready(|_| ());
    bench.ok(M::SetConfig(part(6, 2)));
    bench.ok(M::SetConfig(ConfigSpace { flags: ConfigSpace::MIGRATION, ..part(0, 1) }));
    let calls = [Call::Config(6, vec![0xff; 2], false), Call::Config(0, vec![0xff], true)];
    assert_eq!(bench.calls.take(), calls);
    let error = bench.refused(M::SetConfig(ConfigSpace { flags: 2, ..part(0, 1) }));
    assert_eq!(error.to_string(), "SET_CONFIG: flags is 0x2, expected no bit but bit 0");
    let mut bench = Bench::ready(|device| device.refuse = Some("write_config"));
    let error = bench.refused(M::SetConfig(part(0, 1)));
    assert_eq!(error.to_string(), "SET_CONFIG: the device refuses: as the test wants it");
}

#[test]
fn a_guest_that_has_moved_here_is_announced() {
    let mut bench = Bench::ready(|_| ());
    bench.ok(M::SendRarp(u64::from_ne_bytes([2, 3, 4, 5, 6, 7, 0xff, 0xff])));
    assert_eq!(bench.calls.take(), [Call::Announce([2, 3, 4, 5, 6, 7])]);
}

#[test]
fn a_channel_is_a_unix_stream_socket() {
    let mut bench = Bench::ready(|_| ());
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let answer = bench.send(&M::SetBackendReqFd(ours.into()), true).unwrap();
    assert_eq!(answer.reply, Some(Reply::U64(0)));
    assert!(answer.channel.is_some());
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for fd in [memory(), event(), null(), datagram.into(), tcp.into()] {
        let error = bench.refused(M::SetBackendReqFd(fd));
        assert!(matches!(error, SessionError::NoSocket), "{error}");
    }
    // None, and two.
    for count in [0, 2] {
        let fds = (0..count).map(|_| UnixStream::pair().unwrap().0.into()).collect();
        bench.raw(Header::request(21, 0, false), &[], fds).unwrap_err();
    }
    assert!(bench.send(&M::GetFeatures, false).unwrap().channel.is_none());
}
