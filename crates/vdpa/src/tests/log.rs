//! The log of written pages, while a guest is migrated.

use super::*;
use vhost::protocol::LogBase;

const LOG_ALL: u64 = Features::VHOST_LOG_ALL.bits();

/// Bytes of log that region 0 needs, which ends at page 272.
const ENOUGH: u64 = 34;

fn features() -> u64 {
    VERSION_1 | Features::VHOST_USER_PROTOCOL.bits()
}

/// A device that can log, which runs, and a log.
fn logged() -> Bench {
    let mut bench = Bench::new(1);
    bench.calls.script().logs = true;
    bench.ok(M::SetProtocolFeatures((slots() | ProtocolFeatures::LOG_SHMFD).bits()));
    bench.ok(M::SetFeatures(features()));
    bench.ok(M::SetMemTable([(region(0), memory())].into_iter().collect()));
    for index in [0, 1] {
        bench.start(index, 0);
        bench.enable(index.into(), true);
    }
    bench.calls.take();
    let file = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, ENOUGH).unwrap();
    let message = M::SetLogBase(LogBase { size: ENOUGH, offset: 0 }, file);
    bench.send(&message, false).unwrap();
    bench
}

#[test]
fn logging_is_offered_where_the_device_can() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.ok(M::GetFeatures).unwrap() & LOG_ALL, 0);
    bench.calls.script().logs = true;
    assert_eq!(bench.ok(M::GetFeatures).unwrap() & LOG_ALL, LOG_ALL);
    let offered = bench.ok(M::GetProtocolFeatures).unwrap();
    assert_ne!(offered & ProtocolFeatures::LOG_SHMFD.bits(), 0);
}

#[test]
fn a_running_device_begins_and_ends_to_log() {
    let mut bench = logged();
    assert_eq!(bench.calls.take(), [], "nothing is logged until the driver's features say so");
    bench.ok(M::SetFeatures(features() | LOG_ALL));
    assert_eq!(bench.calls.take(), [Call::Log(true)]);
    // A start meanwhile does not show the device the bit.
    bench.stop(1);
    bench.start(1, 9);
    assert_eq!(bench.calls.take(), [Call::Stop, started(&[(0, PROGRESS, true), (1, 9, true)])]);
    bench.ok(M::SetFeatures(features()));
    assert_eq!(bench.calls.take(), [Call::Log(false)]);
}

#[test]
fn a_front_end_that_goes_during_a_migration_ends_the_log() {
    let mut bench = logged();
    bench.ok(M::SetFeatures(features() | LOG_ALL));
    bench.calls.take();
    bench.session.close(&mut bench.device);
    let calls = bench.calls.take();
    assert!(calls.contains(&Call::Stop) && calls.contains(&Call::Log(false)), "{calls:?}");
}

#[test]
fn a_device_that_fails_to_log_goes_on_where_it_was() {
    let mut bench = logged();
    bench.calls.script().fail_log = true;
    bench.ok(M::SetFeatures(features() | LOG_ALL));
    let rings = [(0, PROGRESS, true), (1, PROGRESS, true)];
    assert_eq!(bench.calls.take(), [Call::Log(true), Call::Stop, started(&rings)]);
}
