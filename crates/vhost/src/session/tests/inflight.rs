//! The region of chains in flight.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::SealFlags;

use super::*;

const PACKED: u64 = FEATURES & !LOG_ALL;

const fn asked(rings: u16, entries: u16) -> InflightRegion {
    InflightRegion { size: 0, offset: 0, rings, entries }
}

/// Asks for a region; returns what it is and its file.
#[track_caller]
fn get(bench: &mut Bench, asked: InflightRegion) -> (InflightRegion, File) {
    let answer = bench.send(&M::GetInflightFd(asked), true).unwrap();
    match (answer.reply, answer.attached) {
        (Some(Reply::Inflight(region)), Some(file)) => (region, file.into()),
        other => panic!("{other:?}"),
    }
}

fn set(region: InflightRegion, file: &File) -> M {
    M::SetInflightFd(region, file.try_clone().unwrap().into())
}

#[test]
fn a_region_has_the_size_that_the_format_asks_for() {
    for (features, bytes) in [(SPLIT, 4 * (16 + 16 * 9)), (PACKED, 4 * (32 + 32 * 9))] {
        let mut bench = Bench::ready(|_| ());
        bench.ok(M::SetFeatures(features));
        let (region, file) = get(&mut bench, asked(4, 9));
        // Each area starts at a multiple of 64 bytes.
        let bytes = (bytes / 4_u64).next_multiple_of(64) * 4;
        assert_eq!(region, InflightRegion { size: bytes, offset: 0, rings: 4, entries: 9 });
        assert_eq!(file.metadata().unwrap().len(), bytes);
        // Nobody can take it away under our hands.
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        let mut first = [1; 64];
        file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, [0; 64], "a region that holds nothing");
        bench.ok(set(region, &file));
    }
    // Before the format is known there is room for either.
    let mut bench = Bench::connected();
    bench.ok(M::SetProtocolFeatures(IMPLEMENTED.bits()));
    let (region, file) = get(&mut bench, asked(2, 8));
    bench.ok(M::SetFeatures(PACKED));
    bench.ok(set(region, &file));
}

#[test]
fn rings_get_their_areas_and_no_others() {
    let mut bench = Bench::ready(|_| ());
    bench.start(0);
    assert_eq!(bench.calls.take(), [Call::Start(started(0))], "without a region");
    bench.ok(M::GetVringBase(state(0, 0)));
    bench.calls.take();
    let size = started(0).size;
    let (region, file) = get(&mut bench, asked(2, size));
    bench.ok(set(region, &file));
    for index in 0..3 {
        bench.start(index);
        let mut calls = vec![Call::Start(started(index.into()))];
        if index < 2 {
            calls.insert(0, Call::Inflight(index.into(), size));
        }
        assert_eq!(bench.calls.take(), calls);
    }
    let error = bench.refused(set(region, &file));
    assert!(matches!(error, SessionError::RingRuns { index: 0, .. }), "{error}");
}

#[test]
fn what_is_recorded_goes_with_an_orderly_stop_and_stays_otherwise() {
    let version = |file: &File, ring: u64| {
        let mut bytes = [0; 2];
        let area = (16 + 16 * 256_u64).next_multiple_of(64);
        file.read_exact_at(&mut bytes, ring * area + 8).unwrap();
        u16::from_ne_bytes(bytes)
    };
    let start = || {
        let mut bench = Bench::ready(|_| ());
        let (region, file) = get(&mut bench, asked(2, 256));
        for ring in 0..2 {
            let area = (16 + 16 * 256_u64).next_multiple_of(64);
            file.write_all_at(&1_u16.to_ne_bytes(), ring * area + 8).unwrap();
        }
        bench.ok(set(region, &file));
        bench.start(0);
        bench.start(1);
        (bench, file)
    };
    let (mut bench, file) = start();
    bench.ok(M::GetVringBase(state(1, 0)));
    assert_eq!([0, 1].map(|ring| version(&file, ring)), [1, 0]);
    for reset in [M::ResetDevice, M::SetStatus(0)] {
        let (mut bench, file) = start();
        bench.ok(reset);
        assert_eq!([0, 1].map(|ring| version(&file, ring)), [0, 0]);
    }
    let (mut bench, file) = start();
    bench.session.close(&mut bench.device);
    assert_eq!([0, 1].map(|ring| version(&file, ring)), [1, 1], "nobody knows the place else");
}

#[test]
fn regions_that_cannot_be_are_refused() {
    let mut bench = Bench::ready(|_| ());
    let (good, file) = get(&mut bench, asked(2, 256));
    for (rings, entries) in [(0, 256), (6, 256), (u16::MAX, 256), (2, 0), (2, 32_769)] {
        bench.send(&M::GetInflightFd(asked(rings, entries)), false).unwrap_err();
        let error = bench.refused(set(InflightRegion { rings, entries, ..good }, &file));
        assert!(matches!(error, SessionError::Value { .. }), "{error}");
    }
    for (size, offset) in [(0, 0), (good.size - 1, 0), (good.size, 8), (good.size, u64::MAX)] {
        let error = bench.refused(set(InflightRegion { size, offset, ..good }, &file));
        assert!(matches!(error, SessionError::InflightPlace { .. }), "{error}");
    }
    let error = bench.refused(set(InflightRegion { offset: 64, ..good }, &file));
    assert!(matches!(error, SessionError::MapInflight { .. }), "{error}");
    // What a worker could have to wait for.
    let (pipe, _writer) = std::io::pipe().unwrap();
    for file in [event(), null(), pipe.into()] {
        let error = bench.refused(set(good, &file.into()));
        assert!(matches!(error, SessionError::MapInflight { .. }), "{error}");
    }
    assert_eq!(bench.calls.take(), []);
    // Smaller than the ring, or of the other format.
    bench.ok(set(InflightRegion { entries: 128, ..good }, &file));
    let [num, addr, base, kick] = setup(0);
    for message in [num, addr, base] {
        bench.ok(message);
    }
    let error = bench.refused(kick);
    assert!(matches!(error, SessionError::InflightArea { entries: 128, .. }), "{error}");
    bench.ok(set(good, &file));
    bench.ok(M::SetFeatures(PACKED));
    let [.., kick] = setup(0);
    let error = bench.refused(kick);
    assert!(matches!(error, SessionError::InflightArea { entries: 256, .. }), "{error}");
}
