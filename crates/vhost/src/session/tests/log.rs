//! The log of written pages: SET_LOG_BASE, SET_LOG_FD, and what switches logging.

use std::os::fd::AsFd;

use eal::EventFd;
use testkit::wait_for;

use super::*;
use crate::protocol::{LogBase, Payload};
use crate::testing::log;

/// Bytes of log that two regions of memory need: a bit for each of 32 pages.
const ENOUGH: u64 = 4;

fn base(size: u64) -> M {
    M::SetLogBase(LogBase { size, offset: 0 }, log(size))
}

fn logged(index: u32, at: u64) -> VringAddr {
    VringAddr { flags: VringAddr::LOG, log: at, ..addr(index) }
}

fn running() -> Bench {
    let mut bench = Bench::ready(|_| ());
    bench.start(0);
    bench.calls.take();
    bench
}

#[test]
fn logging_starts_and_ends_while_rings_run() {
    let mut bench = running();
    // As QEMU does it when a migration begins, and when it is over.
    assert_eq!(bench.ok(base(ENOUGH)), Some(ENOUGH), "the reply repeats the log");
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    bench.ok(M::SetVringAddr(logged(0, 0x2000)));
    bench.ok(M::SetFeatures(SPLIT));
    bench.ok(M::SetVringAddr(addr(0)));
    let expected = [
        Call::Features(SPLIT),
        Call::Log(Some(4)),
        Call::RingLog(0, Some(0x2000)),
        Call::Features(SPLIT),
        Call::Log(None),
        Call::RingLog(0, None),
    ];
    assert_eq!(bench.calls.take(), expected);
    // The next migration needs a log of its own.
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    assert_eq!(bench.calls.take(), [Call::Features(SPLIT)]);
    bench.ok(base(ENOUGH));
    assert_eq!(bench.calls.take(), [Call::Log(Some(4))]);
}

#[test]
fn a_ring_that_starts_during_a_migration_gets_the_log_last() {
    let mut bench = Bench::ready(|_| ());
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    let [num, _, base_message, kick] = setup(0);
    for message in [num, M::SetVringAddr(logged(0, 0x2000)), base_message, kick, base(ENOUGH)] {
        bench.ok(message);
    }
    let start = Start { log: Some(0x2000), ..started(0) };
    let expected = [Call::Features(SPLIT), Call::Start(start), Call::Log(Some(4))];
    assert_eq!(bench.calls.take(), expected);
    // Another log, for more memory; and the end of the connection takes it away.
    bench.ok(base(100));
    bench.ok(table([region(0), region(40)]));
    let memory = [0, 40].map(|n| (n * MEMORY, 0x7000_0000 + n * MEMORY, MEMORY));
    assert_eq!(bench.calls.take(), [Call::Log(Some(100)), Call::Memory(memory.to_vec())]);
    let Bench { mut device, session, calls, .. } = bench;
    session.close(&mut device);
    assert_eq!(calls.take(), [Call::Stop(0), Call::Log(None), Call::Disconnected]);
}

#[test]
fn nothing_but_the_log_bit_changes_while_rings_run() {
    let mut bench = running();
    bench.ok(base(ENOUGH));
    for features in [FEATURES, SPLIT & !Features::MQ.bits() | LOG_ALL] {
        let error = bench.refused(M::SetFeatures(features));
        assert!(matches!(error, SessionError::FeaturesInUse { .. }), "{error}");
    }
    let moved = VringAddr { used: 0x7000_3000, ..logged(0, 0x2000) };
    let error = bench.refused(M::SetVringAddr(moved));
    assert!(matches!(error, SessionError::RingRuns { .. }), "{error}");
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn a_reset_device_logs_no_more() {
    let mut bench = running();
    bench.ok(base(ENOUGH));
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    bench.calls.take();
    bench.ok(M::ResetDevice);
    assert_eq!(bench.calls.take(), [Call::Stop(0), Call::Log(None), Call::Reset]);
}

#[test]
fn a_log_needs_its_protocol_feature() {
    let mut bench = Bench::connected();
    let error = bench.refused(base(ENOUGH));
    assert!(error.to_string().contains("LOG_SHMFD"), "{error}");
}

#[test]
fn a_log_that_does_not_cover_the_memory_is_refused() {
    let mut bench = running();
    bench.ok(table([region(0), region(1)]));
    bench.calls.take();
    let error = bench.refused(base(ENOUGH - 1));
    let text = "SET_LOG_BASE: the log of 3 bytes ends before address 0x20000; it needs a bit for \
                every 4096 bytes below that";
    assert_eq!(error.to_string(), text);
    // Also when the memory grows, and when the used ring is to be logged behind the end.
    bench.ok(base(ENOUGH));
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    let too_much = |error| matches!(error, SessionError::LogTooSmall { .. });
    assert!(too_much(bench.refused(table([region(2)]))));
    let used_ring = 6 + 8 * 256;
    for start in [u64::MAX, 2 * MEMORY - used_ring + 1] {
        assert!(too_much(bench.refused(M::SetVringAddr(logged(0, start)))), "{start:#x}");
    }
    bench.ok(M::SetVringAddr(logged(0, 2 * MEMORY - used_ring)));
    bench.ok(M::SetFeatures(SPLIT));
    bench.ok(table([region(2)]));
    // A log that was shared before the memory grew.
    bench.ok(table([region(0)]));
    bench.ok(M::SetVringAddr(addr(0)));
    bench.ok(base(ENOUGH));
    bench.ok(table([region(5)]));
    assert!(too_much(bench.refused(M::SetFeatures(SPLIT | LOG_ALL))));
}

#[test]
fn a_log_that_cannot_be_mapped_is_refused() {
    let mut bench = running();
    let bad = |bench: &mut Bench, size, offset, file| {
        let error = bench.refused(M::SetLogBase(LogBase { size, offset }, file));
        assert!(matches!(error, SessionError::MapLog { .. }), "{error}");
    };
    bad(&mut bench, ENOUGH, 4096, log(4096));
    bad(&mut bench, 4097, 0, log(4096));
    bad(&mut bench, u64::MAX, 0, log(4096));
    bad(&mut bench, ENOUGH, u64::MAX, log(4096));
    bad(&mut bench, 0, 0, log(4096));
    bad(&mut bench, ENOUGH, 0, null());
    bad(&mut bench, ENOUGH, 0, event());
    let payload = LogBase { size: ENOUGH, offset: 0 }.encode();
    let header = Header::request(6, 16, false);
    let error = bench.raw(header, &payload, vec![]).unwrap_err();
    assert!(matches!(error, SessionError::Protocol(ProtocolError::FdCount { got: 0, .. })));
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn a_log_that_is_truncated_harms_nobody() {
    let mut bench = running();
    let file = log(ENOUGH);
    let base = LogBase { size: ENOUGH, offset: 0 };
    bench.ok(M::SetLogBase(base, file.try_clone().unwrap()));
    rustix::fs::ftruncate(&file, 0).unwrap();
    // The device of these tests marks a page, first and last.
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    bench.ok(M::SetFeatures(SPLIT));
}

#[test]
fn the_front_end_hears_of_marks_by_the_file_that_it_sent() {
    let mut bench = running();
    let event = EventFd::new().unwrap();
    let file = log(ENOUGH);
    let told = || event.drain().unwrap();
    let ours = || event.as_fd().try_clone_to_owned().unwrap();
    bench.ok(M::SetLogFd(ours()));
    bench.ok(M::SetLogBase(LogBase { size: ENOUGH, offset: 0 }, file.try_clone().unwrap()));
    assert!(!told());
    bench.ok(M::SetFeatures(SPLIT | LOG_ALL));
    wait_for("the front-end is told", told);
    let mut bits = [0; 4];
    rustix::io::pread(&file, &mut bits, 0).unwrap();
    assert_eq!(bits, [1, 0, 0, 0]);
    // Another file while it logs; what is no eventfd is refused.
    rustix::io::pwrite(&file, &[0], 0).unwrap();
    let other = EventFd::new().unwrap();
    bench.ok(M::SetLogFd(other.as_fd().try_clone_to_owned().unwrap()));
    let error = bench.refused(M::SetLogFd(null()));
    assert!(matches!(error, SessionError::NoEventFd { .. }), "{error}");
    told();
    other.drain().unwrap();
    rustix::io::pwrite(&file, &[0], 0).unwrap();
    bench.ok(M::SetLogBase(LogBase { size: ENOUGH, offset: 0 }, file));
    // A thread tells it where an earlier signal took long.
    wait_for("the front-end is told by the other file", || other.drain().unwrap());
    assert!(!told());
}
