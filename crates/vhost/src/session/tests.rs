//! Every message, and every way in which a front-end may get it wrong.
//!
//! - `device_state`: those that move the state of a device
//! - `extras`: configuration space, announcements, the channel of the back-end
//! - `inband`: notifications as messages
//! - `inflight`: the region of chains in flight
//! - `iotlb`: translations of addresses
//! - `log`: those that have to do with live migration
//! - `postcopy`: those of a post-copy migration

#![allow(clippy::needless_pass_by_value, reason = "messages are built on the spot")]

mod device_state;
mod extras;
mod inband;
mod inflight;
mod iotlb;
mod log;
mod postcopy;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::*;
use crate::backend::MemoryKinds;
use crate::protocol::{Header, MAX_FDS, MemoryRegion};
use crate::testing::{
    Call, FEATURES, LOG_ALL, MEMORY, PROGRESS, Recorder, Recording, Start, event, memory, null,
};

type M = FrontendMessage<OwnedFd>;

const SPLIT: u64 = FEATURES & !Features::RING_PACKED.bits() & !LOG_ALL;

struct Bench {
    device: Device,
    session: Session,
    calls: Recorder,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    /// A front-end that has connected, and nothing more.
    fn connected() -> Self {
        Self::with(|_| ())
    }

    fn with(prepare: impl FnOnce(&mut Recording)) -> Self {
        let (mut backend, calls) = Recording::new();
        prepare(&mut backend);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let mut device = Device {
            backend: Box::new(backend),
            events: Box::new(move |event| sink.lock().unwrap().push(event)),
        };
        let session = Session::open(&mut device);
        Self { device, session, calls, events }
    }

    /// A front-end that has negotiated everything and shared its memory.
    fn ready(prepare: impl FnOnce(&mut Recording)) -> Self {
        let mut bench = Self::with(prepare);
        bench.ok(M::SetProtocolFeatures(IMPLEMENTED.bits()));
        bench.ok(M::SetFeatures(SPLIT));
        bench.ok(table([region(0)]));
        bench.calls.take();
        bench.events.lock().unwrap().clear();
        bench
    }

    fn raw(
        &mut self,
        header: Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, SessionError> {
        let fds: ArrayVec<_, MAX_FDS> = fds.into_iter().map(PeerFd::from).collect();
        self.session.handle(&mut self.device, Message { header, payload, fds })
    }

    fn send(&mut self, message: &M, need_reply: bool) -> Result<Answer, SessionError> {
        let payload = message.payload();
        let fds = message.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        let size = payload.len().try_into().unwrap();
        self.raw(Header::request(message.request().number(), size, need_reply), &payload, fds)
    }

    /// Sends what must succeed; returns the number of the reply, if there was one.
    #[track_caller]
    fn ok(&mut self, message: M) -> Option<u64> {
        let answer = self.send(&message, false).unwrap();
        assert!(answer.refused.is_none());
        match answer.reply? {
            Reply::U64(value) => Some(value),
            Reply::VringState(state) => Some(state.num.into()),
            Reply::LogBase(base) => Some(base.size),
            other => panic!("{other:?} is no number"),
        }
    }

    /// Sends what must be refused, with and without NEED_REPLY; returns why.
    #[track_caller]
    fn refused(&mut self, message: M) -> SessionError {
        if self.session.protocol_features.contains(ProtocolFeatures::REPLY_ACK)
            && !message.request().has_reply()
        {
            let answer = self.send(&message, true).unwrap();
            assert_eq!(answer.reply, Some(Reply::U64(1)));
            assert!(answer.refused.is_some());
        }
        self.send(&message, false).unwrap_err()
    }

    fn start(&mut self, index: u8) {
        for message in setup(index) {
            self.ok(message);
        }
    }

    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

fn region(number: u64) -> MemoryRegion {
    MemoryRegion {
        guest_addr: number * MEMORY,
        size: MEMORY,
        user_addr: 0x7000_0000 + number * MEMORY,
        mmap_offset: 0,
    }
}

fn table(regions: impl IntoIterator<Item = MemoryRegion>) -> M {
    M::SetMemTable(regions.into_iter().map(|region| (region, memory())).collect())
}

fn with_fd(index: u8) -> VringFile<OwnedFd> {
    VringFile { index, fd: Some(event()) }
}

fn state(index: u32, num: u32) -> VringState {
    VringState { index, num }
}

fn addr(index: u32) -> VringAddr {
    VringAddr { index, flags: 0, desc: 0x7000_0000, used: 0x7000_2000, avail: 0x7000_1000, log: 0 }
}

/// What starts a ring.
fn setup(index: u8) -> [M; 4] {
    [
        M::SetVringNum(state(index.into(), 256)),
        M::SetVringAddr(addr(index.into())),
        M::SetVringBase(state(index.into(), 7)),
        M::SetVringKick(with_fd(index)),
    ]
}

fn started(index: u16) -> Start {
    Start {
        index,
        size: 256,
        addrs: [0x7000_0000, 0x7000_1000, 0x7000_2000],
        log: None,
        base: 7,
        features: SPLIT,
        enabled: false,
        files: [true, false, false],
    }
}

#[test]
fn features_are_offered_and_accepted() {
    let mut bench = Bench::connected();
    assert_eq!(bench.ok(M::GetFeatures), Some(FEATURES));
    assert_eq!(bench.ok(M::GetProtocolFeatures), Some(IMPLEMENTED.bits()));
    assert_eq!(bench.ok(M::SetProtocolFeatures(IMPLEMENTED.bits())), None);
    assert_eq!(bench.ok(M::GetQueueNum), Some(2));
    assert_eq!(bench.ok(M::GetMaxMemSlots), Some(509));
    assert_eq!(bench.ok(M::SetOwner), None);
    bench.ok(M::SetFeatures(SPLIT));
    assert_eq!(bench.calls.take(), [Call::Connected, Call::Features(SPLIT)]);
    assert_eq!(bench.events(), [Event::Connected]);
}

#[test]
fn what_was_not_offered_is_refused() {
    let mut bench = Bench::ready(|_| ());
    let error = bench.refused(M::SetFeatures(SPLIT | Features::GUEST_UFO.bits()));
    assert_eq!(error.to_string(), "SET_FEATURES: bits 0x400 were not offered");
    bench.refused(M::SetFeatures(u64::MAX));
    for bits in [ProtocolFeatures::CROSS_ENDIAN.bits(), 1 << 63] {
        let error = bench.refused(M::SetProtocolFeatures(bits));
        assert!(matches!(error, SessionError::Features { unknown, .. } if unknown == bits));
    }
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn messages_wait_for_their_protocol_feature() {
    let mut bench = Bench::connected();
    let part = ConfigSpace { bytes: std::iter::once(1).collect(), ..ConfigSpace::default() };
    let messages = [
        M::GetQueueNum,
        M::NetSetMtu(1500),
        M::ResetDevice,
        M::GetMaxMemSlots,
        M::AddMemReg(region(0), memory()),
        M::RemMemReg(region(0)),
        M::SetStatus(1),
        M::GetStatus,
        M::SendRarp(1),
        M::PostcopyAdvise,
        M::PostcopyListen,
        M::PostcopyEnd,
        M::SetBackendReqFd(memory()),
        M::GetConfig(part.clone()),
        M::SetConfig(part),
        M::GetInflightFd(InflightRegion { rings: 1, entries: 8, ..Default::default() }),
        M::SetInflightFd(InflightRegion { rings: 1, entries: 8, ..Default::default() }, memory()),
        M::SetDeviceStateFd(StateTransfer::default(), null()),
        M::CheckDeviceState,
    ];
    for message in messages {
        let error = bench.refused(message);
        assert!(matches!(error, SessionError::NotNegotiated { .. }), "{error}");
    }
    assert_eq!(bench.calls.take(), [Call::Connected]);
}

#[test]
fn the_device_may_refuse() {
    let mut bench = Bench::with(|device| device.refuse = Some("set_features"));
    let error = bench.refused(M::SetFeatures(SPLIT));
    assert_eq!(error.to_string(), "SET_FEATURES: the device refuses: as the test wants it");

    let mut bench = Bench::with(|device| device.refuse = Some("set_memory"));
    bench.refused(table([region(0)]));
    let error = bench.refused(M::SetVringKick(with_fd(0)));
    assert!(error.to_string().contains("cannot start before SET_MEM_TABLE"), "{error}");
    assert!(error.to_string().contains("share=on"), "{error}");

    let mut bench = Bench::ready(|device| device.refuse = Some("start_ring"));
    let [num, addr, base, kick] = setup(0);
    for message in [num, addr, base] {
        bench.ok(message);
    }
    bench.refused(kick);
    assert_eq!(bench.ok(M::GetVringBase(state(0, 0))), Some(7));
    assert_eq!((bench.calls.take(), bench.events()), (vec![], vec![]));

    let mut bench = Bench::ready(|device| device.refuse = Some("set_ring_enabled"));
    bench.start(0);
    bench.refused(M::SetVringEnable(state(0, 1)));
    bench.ok(M::GetVringBase(state(0, 0)));
    bench.start(0);
    let calls = [Call::Start(started(0)), Call::Stop(0), Call::Start(started(0))];
    assert_eq!(bench.calls.take(), calls, "it is as it was: not enabled");

    let mut bench = Bench::ready(|device| device.refuse = Some("set_status"));
    bench.refused(M::SetStatus(15));
    assert_eq!(bench.ok(M::GetStatus), Some(0));
}

#[test]
fn acknowledgements_come_when_negotiated_and_asked_for() {
    let mut bench = Bench::connected();
    assert_eq!(bench.send(&M::SetOwner, true).unwrap().reply, None);
    bench.ok(M::SetProtocolFeatures(ProtocolFeatures::REPLY_ACK.bits()));
    assert_eq!(bench.send(&M::SetOwner, true).unwrap().reply, Some(Reply::U64(0)));
    assert_eq!(bench.send(&M::SetOwner, false).unwrap().reply, None);
    let reply = bench.send(&M::GetFeatures, true).unwrap().reply;
    assert_eq!(reply, Some(Reply::U64(FEATURES)), "one reply, not two");
    // A front-end that waits for a number would take an acknowledgement for it.
    bench.send(&M::GetQueueNum, true).unwrap_err();
}

#[test]
fn unknown_requests_are_answered_if_possible() {
    let mut bench = Bench::ready(|_| ());
    for number in [0, 22, 33, 41, 45, 0x1_0001, u32::MAX] {
        let answer = bench.raw(Header::request(number, 0, true), &[], vec![null()]).unwrap();
        assert_eq!(answer.reply, Some(Reply::U64(1)));
        bench.raw(Header::request(number, 0, false), &[], vec![]).unwrap_err();
    }
    let error = bench.raw(Header::reply(1, 0), &[], vec![]).unwrap_err();
    assert!(matches!(error, SessionError::Protocol(ProtocolError::Direction { .. })), "{error}");
}

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

#[test]
fn reset_owner_does_nothing() {
    let mut bench = Bench::ready(|_| ());
    bench.start(0);
    bench.calls.take();
    bench.ok(M::ResetOwner);
    bench.ok(M::SetLogFd(event()));
    assert_eq!(bench.calls.take(), []);
    assert_eq!(bench.ok(M::GetVringBase(state(0, 0))), Some(u64::from(7 + PROGRESS)));
}

#[test]
fn reset_device_stops_everything_but_keeps_memory_and_files() {
    let mut bench = Bench::ready(|_| ());
    bench.ok(M::SetVringCall(with_fd(0)));
    bench.ok(M::SetVringEnable(state(0, 1)));
    bench.start(0);
    bench.start(2);
    bench.calls.take();
    bench.ok(M::ResetDevice);
    assert_eq!(bench.calls.take(), [Call::Stop(0), Call::Stop(2), Call::Reset]);
    assert_eq!(bench.ok(M::GetVringBase(state(0, 0))), Some(0));
    bench.ok(M::SetFeatures(SPLIT));
    bench.start(0);
    let start = Start { files: [true, true, false], ..started(0) };
    assert_eq!(bench.calls.take(), [Call::Features(SPLIT), Call::Start(start)]);
}

#[test]
fn the_device_status_is_passed_on_and_zero_stops_rings() {
    let mut bench = Bench::ready(|_| ());
    bench.ok(M::SetStatus(0x0f));
    assert_eq!(bench.ok(M::GetStatus), Some(0x0f));
    bench.start(0);
    bench.ok(M::SetStatus(0));
    let calls = [Call::Status(15), Call::Start(started(0)), Call::Stop(0), Call::Status(0)];
    assert_eq!(bench.calls.take(), calls);
    // A front-end that asks where the ring was after that is told.
    assert_eq!(bench.ok(M::GetVringBase(state(0, 0))), Some(u64::from(7 + PROGRESS)));
    for status in [0x100, u64::MAX] {
        let error = bench.refused(M::SetStatus(status));
        assert!(matches!(error, SessionError::Value { .. }), "{error}");
    }
}

#[test]
fn the_mtu_has_limits() {
    let mut bench = Bench::ready(|_| ());
    for mtu in [68, 1500, 9000, 65_535] {
        bench.ok(M::NetSetMtu(mtu));
    }
    for mtu in [0, 67, 65_536, 0x1_05dc, u64::MAX] {
        let error = bench.refused(M::NetSetMtu(mtu));
        assert!(error.to_string().contains("68 to 65535"), "{error}");
    }
    let calls = [68, 1500, 9000, 65_535].map(Call::Mtu);
    assert_eq!(bench.calls.take(), calls);
}

#[test]
fn memory_comes_as_a_table_or_one_by_one() {
    let mut bench = Bench::ready(|_| ());
    let span = |number: u64| (number * MEMORY, 0x7000_0000 + number * MEMORY, MEMORY);
    bench.ok(table((0..8).map(region)));
    bench.ok(M::AddMemReg(region(8), memory()));
    bench.ok(M::RemMemReg(region(0)));
    bench.ok(table([region(3)]));
    let calls = [
        Call::Memory((0..8).map(span).collect()),
        Call::Memory((0..9).map(span).collect()),
        Call::Memory((1..9).map(span).collect()),
        Call::Memory(vec![span(3)]),
    ];
    assert_eq!(bench.calls.take(), calls);
}

#[test]
fn a_region_goes_only_if_it_is_named_exactly() {
    let mut bench = Bench::ready(|_| ());
    let known = region(0);
    for wrong in [
        MemoryRegion { guest_addr: 1, ..known },
        MemoryRegion { user_addr: 1, ..known },
        MemoryRegion { size: 4096, ..known },
        region(1),
    ] {
        let error = bench.refused(M::RemMemReg(wrong));
        assert!(matches!(error, SessionError::NoSuchRegion { .. }), "{error}");
    }
    // The offset in the file is not part of its name, and a file may come along.
    let named = MemoryRegion { mmap_offset: 77, ..known };
    let payload = M::RemMemReg(named).payload();
    bench.raw(Header::request(38, 40, false), &payload, vec![memory()]).unwrap();
    assert_eq!(bench.calls.take(), [Call::Memory(vec![])]);
    let error = bench.refused(M::SetVringKick(with_fd(0)));
    assert!(error.to_string().contains("before SET_MEM_TABLE"), "{error}");
}

#[test]
fn regions_may_not_overlap() {
    let mut bench = Bench::ready(|_| ());
    let by_guest = MemoryRegion { guest_addr: MEMORY - 1, ..region(5) };
    let by_user = MemoryRegion { user_addr: 0x7000_0000 + MEMORY - 1, ..region(5) };
    for overlapping in [by_guest, by_user, region(0)] {
        let error = bench.refused(M::AddMemReg(overlapping, memory()));
        assert!(error.to_string().contains("overlap"), "{error}");
        let error = bench.refused(table([region(0), overlapping]));
        assert!(error.to_string().contains("overlap"), "{error}");
    }
    assert_eq!(bench.calls.take(), []);
    bench.start(0);
}

#[test]
fn regions_must_fit_their_file_and_the_address_space() {
    let mut bench = Bench::ready(|_| ());
    let known = region(9);
    for wrong in [
        MemoryRegion { size: 0, ..known },
        MemoryRegion { size: MEMORY + 1, ..known },
        MemoryRegion { size: u64::MAX, ..known },
        MemoryRegion { mmap_offset: 1, ..known },
        MemoryRegion { mmap_offset: u64::MAX - MEMORY + 1, ..known },
        MemoryRegion { mmap_offset: u64::MAX, size: 2, ..known },
        MemoryRegion { guest_addr: u64::MAX - MEMORY + 2, ..known },
        MemoryRegion { user_addr: u64::MAX - MEMORY + 2, ..known },
    ] {
        bench.refused(table([wrong]));
        bench.refused(M::AddMemReg(wrong, memory()));
    }
    for fd in [null(), event()] {
        let error = bench.refused(M::AddMemReg(known, fd));
        assert!(error.to_string().contains("share=on"), "{error}");
    }
    let error = bench.refused(table([]));
    assert!(matches!(error, SessionError::NoMemory), "{error}");
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn files_whose_pages_somebody_has_to_fetch_need_leave() {
    let program = std::env::current_exe().unwrap();
    let on_disk = || -> OwnedFd {
        let file = tempfile::tempfile_in(program.parent().unwrap()).unwrap();
        file.set_len(MEMORY).unwrap();
        file.into()
    };
    let mut bench = Bench::ready(|_| ());
    let error = bench.refused(M::AddMemReg(region(9), on_disk()));
    assert!(error.to_string().contains("tmpfs"), "{error}");
    assert_eq!(bench.calls.take(), []);
    let mut bench = Bench::ready(|device| device.kinds = MemoryKinds::Any);
    bench.ok(M::AddMemReg(region(9), on_disk()));
    assert_eq!(bench.calls.take().len(), 1);
}

#[test]
fn memory_is_limited() {
    let file = || {
        let file = memory();
        rustix::fs::ftruncate(&file, MAX_MEMORY).unwrap();
        file
    };
    let at = |place: u64, size| MemoryRegion {
        guest_addr: place,
        size,
        user_addr: place,
        mmap_offset: 0,
    };
    let mut bench = Bench::ready(|_| ());
    // One region is there already.
    let rest = at(1 << 42, MAX_MEMORY - MEMORY);
    let error = bench.refused(M::AddMemReg(at(1 << 42, MAX_MEMORY), file()));
    assert!(matches!(error, SessionError::TooMuchMemory { .. }), "{error}");
    bench.ok(M::AddMemReg(rest, file()));
    bench.refused(M::AddMemReg(at(1 << 41, 1), file()));
    let two = [at(0, MEMORY), at(1 << 42, MAX_MEMORY)].map(|region| (region, file()));
    let error = bench.refused(M::SetMemTable(two.into_iter().collect()));
    assert!(matches!(error, SessionError::TooMuchMemory { .. }), "{error}");
}

#[test]
fn memory_slots_are_limited() {
    let mut bench = Bench::ready(|_| ());
    for number in 1..MAX_SLOTS as u64 {
        bench.ok(M::AddMemReg(region(number), memory()));
    }
    let error = bench.refused(M::AddMemReg(region(1000), memory()));
    assert!(matches!(error, SessionError::NoSlot), "{error}");
    bench.ok(M::RemMemReg(region(1)));
    bench.ok(M::AddMemReg(region(1000), memory()));
}

#[test]
fn readiness_needs_both_rings_and_the_driver() {
    let mut bench = Bench::ready(|_| ());
    for index in [0, 1] {
        bench.start(index);
        bench.ok(M::SetVringEnable(state(index.into(), 1)));
    }
    assert!(!bench.events().contains(&Event::Ready), "the driver has not said so yet");
    bench.ok(M::SetStatus(0x0f));
    assert_eq!(bench.events(), [Event::Ready]);
    bench.ok(M::SetVringEnable(state(1, 0)));
    let disabled = Event::RingState { index: 1, enabled: false, started: true };
    assert_eq!(bench.events(), [disabled, Event::Suspended]);
    bench.ok(M::SetVringEnable(state(1, 1)));
    assert_eq!(bench.events().last(), Some(&Event::Ready));
    bench.ok(M::GetVringBase(state(0, 0)));
    assert_eq!(bench.events().last(), Some(&Event::Suspended));
}

#[test]
fn closing_stops_all_rings_first() {
    let mut bench = Bench::ready(|_| ());
    for index in 0..5 {
        bench.start(index);
        bench.ok(M::SetVringEnable(state(index.into(), 1)));
    }
    bench.ok(M::SetStatus(4));
    bench.calls.take();
    bench.events();
    bench.session.close(&mut bench.device);
    let stopped = (0..5).map(Call::Stop);
    assert_eq!(bench.calls.take(), stopped.chain([Call::Disconnected]).collect::<Vec<_>>());
    let events = std::mem::take(&mut *bench.events.lock().unwrap());
    assert_eq!(events.last_chunk(), Some(&[Event::Suspended, Event::Gone]));
}
