//! Every message, and every way in which a front-end may get it wrong.
//!
//! - `device_state`: those that move the state of a device
//! - `extras`: configuration space, announcements, the channel of the back-end
//! - `inband`: notifications as messages
//! - `inflight`: the region of chains in flight
//! - `iotlb`: translations of addresses
//! - `log`: those that have to do with live migration
//! - `memory`: the memory table
//! - `postcopy`: those of a post-copy migration
//! - `rings`: where rings are, how they are notified, when they run

#![allow(clippy::needless_pass_by_value, reason = "messages are built on the spot")]

mod device_state;
mod extras;
mod inband;
mod inflight;
mod iotlb;
mod log;
mod memory;
mod postcopy;
mod rings;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::*;
use crate::backend::MemoryKinds;
use crate::protocol::{Header, MAX_FDS, MemoryRegion, VringAddr, VringFile};
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
fn a_front_end_that_resets_its_device_has_used_it() {
    let mut bench = Bench::connected();
    bench.ok(M::SetProtocolFeatures(IMPLEMENTED.bits()));
    assert!(!bench.session.was_in_use());
    bench.ok(M::SetFeatures(SPLIT));
    // As QEMU does when the device is unplugged, before it goes.
    bench.ok(M::ResetDevice);
    assert!(bench.session.was_in_use());
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
