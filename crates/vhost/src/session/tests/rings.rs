//! Rings: where they are, how they are notified, when they run.

use super::*;

#[test]
fn a_ring_starts_by_its_kick_file_and_stops_by_get_base() {
    let mut bench = Bench::ready(|_| ());
    bench.start(3);
    assert_eq!(bench.calls.take(), [Call::Start(started(3))]);
    let event = Event::RingState { index: 3, enabled: false, started: true };
    assert_eq!(bench.events(), [event]);
    assert_eq!(bench.ok(M::GetVringBase(state(3, 0))), Some(u64::from(7 + PROGRESS)));
    assert_eq!(bench.calls.take(), [Call::Stop(3)]);
    // Again tells the same, and the next start goes on there.
    assert_eq!(bench.ok(M::GetVringBase(state(3, 0))), Some(u64::from(7 + PROGRESS)));
    bench.ok(M::SetVringKick(VringFile { index: 3, fd: None }));
    let base = 7 + PROGRESS;
    let again = Start { base, files: [false; 3], ..started(3) };
    assert_eq!(bench.calls.take(), [Call::Start(again)]);
}

#[test]
fn a_ring_that_never_ran_has_the_base_that_was_set() {
    let mut bench = Bench::ready(|_| ());
    assert_eq!(bench.ok(M::GetVringBase(state(1, 0))), Some(0));
    bench.ok(M::SetVringBase(state(1, 0xffff)));
    assert_eq!(bench.ok(M::GetVringBase(state(1, 0))), Some(0xffff));
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn a_ring_needs_memory_size_and_addresses() {
    let mut bench = Bench::connected();
    let [num, addr, base, kick] = setup(0);
    let error = |bench: &mut Bench, kick: &M| bench.send(kick, false).unwrap_err().to_string();
    assert!(error(&mut bench, &kick).contains("before SET_MEM_TABLE"));
    bench.ok(table([region(0)]));
    assert!(error(&mut bench, &kick).contains("before SET_VRING_NUM"));
    bench.ok(num);
    assert!(error(&mut bench, &kick).contains("before SET_VRING_ADDR"));
    bench.ok(addr);
    bench.ok(base);
    bench.ok(kick);
}

#[test]
fn files_of_a_ring_are_kept_and_passed_on() {
    let mut bench = Bench::ready(|_| ());
    bench.ok(M::SetVringCall(with_fd(0)));
    bench.ok(M::SetVringErr(with_fd(0)));
    assert_eq!(bench.calls.take(), []);
    bench.start(0);
    let with_files = Start { files: [true; 3], ..started(0) };
    assert_eq!(bench.calls.take(), [Call::Start(with_files)]);
    bench.ok(M::SetVringKick(with_fd(0)));
    bench.ok(M::SetVringCall(with_fd(0)));
    bench.ok(M::SetVringErr(VringFile { index: 0, fd: None }));
    let calls = [Call::Kick(0, true), Call::Interrupt(0, true), Call::Err(0, false)];
    assert_eq!(bench.calls.take(), calls);
    // QEMU sends the call file once and stops and starts the ring many times.
    bench.ok(M::GetVringBase(state(0, 0)));
    bench.start(0);
    let again = Start { files: [true, true, false], ..started(0) };
    assert_eq!(bench.calls.take(), [Call::Stop(0), Call::Start(again)]);
}

#[test]
fn only_an_eventfd_will_do() {
    let mut bench = Bench::ready(|_| ());
    let (_reader, writer) = std::io::pipe().unwrap();
    for fd in [null(), memory(), writer.into()] {
        let file = VringFile { index: 0, fd: Some(fd) };
        let error = bench.refused(M::SetVringCall(file));
        assert!(matches!(error, SessionError::NoEventFd { .. }), "{error}");
    }
}

#[test]
fn rings_are_enabled_by_message_if_bit_30_was_negotiated() {
    let mut bench = Bench::ready(|_| ());
    bench.start(0);
    bench.ok(M::SetVringEnable(state(0, 1)));
    bench.ok(M::SetVringEnable(state(0, 1)));
    bench.ok(M::SetVringEnable(state(1, 1)));
    bench.start(1);
    bench.ok(M::SetVringEnable(state(0, 0)));
    let enabled = Start { enabled: true, ..started(1) };
    let calls = [
        Call::Start(started(0)),
        Call::Enabled(0, true),
        Call::Start(enabled.clone()),
        Call::Enabled(0, false),
    ];
    assert_eq!(bench.calls.take(), calls);
    // Stopping a ring does not disable it.
    bench.ok(M::GetVringBase(state(1, 0)));
    bench.start(1);
    assert_eq!(bench.calls.take(), [Call::Stop(1), Call::Start(enabled)]);
    let error = bench.refused(M::SetVringEnable(state(0, 2)));
    assert_eq!(error.to_string(), "SET_VRING_ENABLE: the state is 0x2, expected 0 or 1");
}

#[test]
fn a_ring_waits_for_a_while_to_be_enabled() {
    let mut bench = Bench::ready(|_| ());
    assert_eq!(bench.session.deadline(), None);
    // One that was enabled before is drained at once.
    bench.ok(M::SetVringEnable(state(0, 1)));
    bench.ok(M::SetVringEnable(state(0, 0)));
    bench.start(0);
    assert_eq!(bench.session.deadline(), None);
    // DPDK disables them while they are stopped.
    bench.ok(M::SetVringEnable(state(1, 0)));
    for index in 1..4 {
        bench.start(index);
    }
    bench.ok(M::SetVringEnable(state(1, 1)));
    bench.ok(M::SetVringEnable(state(2, 0)));
    let told = [Call::Enabled(1, true), Call::Enabled(2, false)];
    assert_eq!(bench.calls.take().split_off(4), told);

    let end = bench.session.deadline().unwrap();
    bench.session.on_deadline(&mut bench.device, end - Duration::from_nanos(1));
    assert_eq!((bench.calls.take(), bench.session.deadline()), (vec![], Some(end)));
    bench.session.on_deadline(&mut bench.device, end);
    assert_eq!((bench.calls.take(), bench.session.deadline()), (vec![Call::Drain(3)], None));
    // Once, and not again with its next start, before the device is reset.
    bench.ok(M::GetVringBase(state(3, 0)));
    bench.start(3);
    assert_eq!(bench.session.deadline(), None);
    bench.ok(M::ResetDevice);
    bench.ok(M::SetFeatures(SPLIT));
    bench.start(3);
    assert!(bench.session.deadline().is_some());
}

#[test]
fn rings_are_always_enabled_without_bit_30() {
    let mut bench = Bench::ready(|_| ());
    let features = SPLIT & !PROTOCOL_FEATURES;
    bench.ok(M::SetStatus(DRIVER_OK.into()));
    bench.calls.take();
    bench.ok(M::SetFeatures(features));
    bench.start(0);
    bench.start(1);
    let error = bench.refused(M::SetVringEnable(state(0, 0)));
    assert!(matches!(error, SessionError::NotNegotiated { .. }), "{error}");
    let start = |index| Call::Start(Start { features, enabled: true, ..started(index) });
    assert_eq!(bench.calls.take(), [Call::Features(features), start(0), start(1)]);
    assert_eq!(bench.events().last(), Some(&Event::Ready));
}

#[test]
fn rings_may_be_enabled_before_features_are_set() {
    let mut bench = Bench::connected();
    bench.ok(M::SetVringEnable(state(0, 1)));
    bench.ok(M::SetFeatures(SPLIT));
    bench.ok(table([region(0)]));
    bench.start(0);
    let start = Call::Start(Start { enabled: true, ..started(0) });
    assert_eq!(bench.calls.take().last(), Some(&start));
}

#[test]
fn indexes_are_checked_before_they_are_truncated() {
    let mut bench = Bench::ready(|_| ());
    for index in [5, 0x100, 0x1_0000, 0x1_0001, u32::MAX] {
        let messages = [
            M::SetVringNum(state(index, 256)),
            M::SetVringAddr(addr(index)),
            M::SetVringBase(state(index, 0)),
            M::GetVringBase(state(index, 0)),
            M::SetVringEnable(state(index, 1)),
        ];
        for message in messages {
            let error = bench.refused(message);
            assert!(matches!(error, SessionError::RingIndex { count: 5, .. }), "{error}");
        }
    }
    for index in [5, 255] {
        for message in [M::SetVringKick, M::SetVringCall, M::SetVringErr] {
            let error = bench.refused(message(with_fd(index)));
            assert!(matches!(error, SessionError::RingIndex { .. }), "{error}");
        }
    }
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn sizes_and_bases_are_checked() {
    let mut bench = Bench::ready(|_| ());
    for size in [0, 3, 1000, 32_769, 65_536, 0x1_0100, u32::MAX] {
        let error = bench.refused(M::SetVringNum(state(0, size)));
        assert!(error.to_string().contains("a power of two"), "{error}");
    }
    for base in [0x1_0000, u32::MAX] {
        bench.refused(M::SetVringBase(state(0, base)));
    }
    for size in [1, 2, 32_768] {
        bench.ok(M::SetVringNum(state(0, size)));
    }
    bench.refused(M::SetVringAddr(VringAddr { flags: 2, ..addr(0) }));

    bench.ok(M::SetFeatures(FEATURES));
    for size in [0, 32_769, 0x1_0001] {
        bench.refused(M::SetVringNum(state(0, size)));
    }
    bench.ok(M::SetVringNum(state(0, 1000)));
    bench.ok(M::SetVringBase(state(0, 0x8003_8003)));
    bench.ok(M::SetVringAddr(VringAddr { flags: 1, log: 5, ..addr(0) }));
    // What is fine for a packed ring is none for a split one, whatever the order.
    bench.ok(M::SetFeatures(SPLIT));
    bench.refused(M::SetVringKick(with_fd(0)));
    bench.ok(M::SetFeatures(FEATURES));
    bench.calls.take();
    bench.ok(M::SetVringKick(with_fd(0)));
    let packed = Start {
        size: 1000,
        base: 0x8003_8003,
        log: Some(5),
        features: FEATURES & !LOG_ALL,
        ..started(0)
    };
    assert_eq!(bench.calls.take(), [Call::Start(packed)]);
}

#[test]
fn a_running_ring_stays_as_it_is() {
    let mut bench = Bench::ready(|_| ());
    bench.start(0);
    let error = bench.refused(M::SetVringNum(state(0, 128)));
    assert_eq!(error.to_string(), "SET_VRING_NUM: ring 0 runs; stop it with GET_VRING_BASE");
    bench.refused(M::SetVringBase(state(0, 0)));
    bench.refused(M::SetVringAddr(VringAddr { desc: 0, ..addr(0) }));
    bench.ok(M::SetVringAddr(addr(0)));
    let error = bench.refused(M::SetFeatures(FEATURES));
    assert!(matches!(error, SessionError::FeaturesInUse { .. }), "{error}");
    bench.ok(M::SetFeatures(SPLIT));
    assert_eq!(bench.calls.take(), [Call::Start(started(0)), Call::Features(SPLIT)]);
}
