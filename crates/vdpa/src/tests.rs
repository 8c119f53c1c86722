//! A front-end and a device that records what it is asked.

#![allow(clippy::needless_pass_by_value, reason = "messages are built on the spot")]

mod log;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use eal::PeerEvent;
use testkit::wait_for;
use vhost::connection::Message;
use vhost::frontend::{self, Frontend};
use vhost::protocol::{
    BackendMessage, ConfigSpace, FrontendMessage, Header, MemoryRegion, ProtocolFeatures,
    VringAddr, VringArea, VringFile, VringState,
};
use vhost::session::{Answer, Device, Reply, Session, SessionError};
use virtio::Features;

use crate::attachment::Attachment;
use crate::backend::{Shared, VdpaBackend};
use crate::testing::{Call, FEATURES, Model, PROGRESS, Recorder, Started};
use crate::{AttachOptions, State, attach};

type M = FrontendMessage<OwnedFd>;

const MEMORY: u64 = 1 << 16;
const USER: u64 = 0x7000_0000;
const VERSION_1: u64 = Features::VERSION_1.bits();
const DRIVER_OK: u64 = 4;

struct Bench {
    device: Device,
    session: Session,
    shared: Shared,
    calls: Recorder,
}

impl Bench {
    fn new(pairs: u16) -> Self {
        let calls = Recorder::default();
        let model = Model::new("model-0", pairs, calls.clone());
        let shared = Shared::new(Attachment::new(Box::new(model)));
        let backend = Box::new(VdpaBackend::new(shared.clone()));
        let mut device = Device { backend, events: Box::new(|_| ()) };
        let session = Session::open(&mut device);
        Self { device, session, shared, calls }
    }

    /// A front-end with protocol features and the first region of its memory shared.
    fn ready(pairs: u16, protocol: ProtocolFeatures) -> Self {
        let mut bench = Self::new(pairs);
        bench.ok(M::SetProtocolFeatures(protocol.bits()));
        let features = Features::VERSION_1 | Features::VHOST_USER_PROTOCOL;
        bench.ok(M::SetFeatures(features.bits()));
        bench.ok(M::SetMemTable([(region(0), memory())].into_iter().collect()));
        bench
    }

    /// The same, and pair 0 runs.
    fn running(pairs: u16) -> Self {
        let mut bench = Self::ready(pairs, slots());
        for index in [0, 1] {
            bench.start(index, 0);
            bench.enable(index.into(), true);
        }
        assert_eq!(bench.calls.take().len(), 1);
        bench
    }

    fn send(&mut self, message: &M, need_reply: bool) -> Result<Answer, SessionError> {
        let payload = message.payload();
        let fds = message.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap().into()).collect();
        let size = payload.len().try_into().unwrap();
        let header = Header::request(message.request().number(), size, need_reply);
        self.session.handle(&mut self.device, Message { header, payload: &payload, fds })
    }

    /// Sends what must succeed; returns the number of the reply, if there was one.
    #[track_caller]
    fn ok(&mut self, message: M) -> Option<u64> {
        match self.send(&message, false).unwrap().reply? {
            Reply::U64(value) => Some(value),
            Reply::VringState(state) => Some(state.num.into()),
            other => panic!("{other:?} is no number"),
        }
    }

    /// Sends what must be refused; returns why.
    #[track_caller]
    fn refused(&mut self, message: M) -> String {
        self.send(&message, false).unwrap_err().to_string()
    }

    fn start(&mut self, index: u8, base: u32) {
        for message in start(index, base) {
            self.ok(message);
        }
    }

    fn enable(&mut self, index: u32, on: bool) {
        self.ok(M::SetVringEnable(VringState { index, num: on.into() }));
    }

    fn stop(&mut self, index: u32) -> u64 {
        self.ok(M::GetVringBase(VringState { index, num: 0 })).unwrap()
    }
}

fn slots() -> ProtocolFeatures {
    ProtocolFeatures::CONFIGURE_MEM_SLOTS | ProtocolFeatures::MQ
}

fn memory() -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, MEMORY).unwrap();
    fd
}

/// Region `number` of the guest: at 1 MiB and so on, and at [`USER`] of the front-end.
fn region(number: u64) -> MemoryRegion {
    MemoryRegion {
        guest_addr: (number + 1) << 20,
        size: MEMORY,
        user_addr: USER + (number << 20),
        mmap_offset: 0,
    }
}

/// What starts a ring of 16 entries in region 0, each ring in a kilobyte of its own.
fn start(index: u8, base: u32) -> [M; 5] {
    let at = USER + 0x400 * u64::from(index);
    let state = |num| VringState { index: index.into(), num };
    let file = || VringFile { index, fd: Some(eal::EventFd::new().unwrap().into()) };
    let addr = VringAddr {
        index: index.into(),
        flags: 0,
        desc: at,
        used: at + 0x200,
        avail: at + 0x100,
        log: 0,
    };
    [
        M::SetVringNum(state(16)),
        M::SetVringAddr(addr),
        M::SetVringBase(state(base)),
        M::SetVringCall(file()),
        M::SetVringKick(file()),
    ]
}

/// A start with region 0, and with rings given by index, base and whether they are enabled.
fn started(rings: &[(u16, u32, bool)]) -> Call {
    let place = |index| (1 << 20) + 0x400 * u64::from(index);
    let rings = rings.iter().map(|&(index, base, on)| (index, place(index), base, on));
    Call::Start(Started {
        features: VERSION_1,
        memory: vec![(1 << 20, MEMORY)],
        rings: rings.collect(),
    })
}

#[test]
fn a_front_end_is_offered_what_device_and_library_have() {
    let mut bench = Bench::new(2);
    let features = FEATURES | Features::VHOST_USER_PROTOCOL;
    assert_eq!(bench.ok(M::GetFeatures), Some(features.bits()));
    bench.ok(M::SetProtocolFeatures(slots().bits()));
    assert_eq!(bench.ok(M::GetQueueNum), Some(2));
    let error = bench.refused(M::SetFeatures(Features::ACCESS_PLATFORM.bits()));
    assert!(error.contains("not offered"), "{error}");
}

#[test]
fn the_device_starts_with_its_first_pair_enabled_and_stops_with_it() {
    let mut bench = Bench::ready(1, slots());
    bench.start(0, 3);
    bench.start(1, 4);
    bench.enable(1, true);
    assert_eq!(bench.calls.take(), []);
    bench.enable(0, true);
    assert_eq!(bench.calls.take(), [started(&[(0, 3, true), (1, 4, true)])]);
    assert_eq!(bench.shared.lock().served(), [0, 1]);
    assert_eq!(bench.stop(0), u64::from(3 + PROGRESS));
    assert_eq!(bench.stop(1), u64::from(4 + PROGRESS));
    assert_eq!(bench.calls.take(), [Call::Stop]);
    // Both are still enabled, and start again where they were.
    bench.start(0, 8);
    bench.start(1, 9);
    assert_eq!(bench.calls.take(), [started(&[(0, 8, true), (1, 9, true)])]);
}

#[test]
fn without_protocol_features_rings_are_always_enabled() {
    let mut bench = Bench::new(1);
    bench.ok(M::SetFeatures(VERSION_1));
    bench.ok(M::SetMemTable([(region(0), memory())].into_iter().collect()));
    bench.start(0, 0);
    bench.start(1, 0);
    assert_eq!(bench.calls.take(), [started(&[(0, 0, true), (1, 0, true)])]);
}

#[test]
fn with_a_device_status_the_driver_has_to_be_ready() {
    let mut bench = Bench::ready(2, slots() | ProtocolFeatures::STATUS);
    for index in 0..4 {
        bench.start(index, 0);
        bench.enable(index.into(), true);
    }
    bench.ok(M::SetStatus(11));
    assert_eq!(bench.calls.take(), []);
    bench.ok(M::SetStatus(11 | DRIVER_OK));
    let all = [(0, 0, true), (1, 0, true), (2, 0, true), (3, 0, true)];
    assert_eq!(bench.calls.take(), [started(&all)]);
    bench.ok(M::SetStatus(0));
    assert_eq!(bench.calls.take(), [Call::Stop]);
    assert_eq!(bench.stop(2), u64::from(PROGRESS));
}

#[test]
fn another_ring_makes_the_device_start_again_where_it_was() {
    let mut bench = Bench::running(2);
    bench.start(2, 40);
    assert_eq!(bench.calls.take(), [], "it is not enabled yet");
    bench.enable(2, true);
    let first = [(0, PROGRESS, true), (1, PROGRESS, true), (2, 40, true)];
    assert_eq!(bench.calls.take(), [Call::Stop, started(&first)]);
    bench.enable(3, true);
    bench.start(3, 50);
    let second =
        [(0, 2 * PROGRESS, true), (1, 2 * PROGRESS, true), (2, 40 + PROGRESS, true), (3, 50, true)];
    assert_eq!(bench.calls.take(), [Call::Stop, started(&second)]);
    // A ring goes, the others go on.
    assert_eq!(bench.stop(2), u64::from(40 + 2 * PROGRESS));
    let third = [(0, 3 * PROGRESS, true), (1, 3 * PROGRESS, true), (3, 50 + PROGRESS, true)];
    assert_eq!(bench.calls.take(), [Call::Stop, started(&third)]);
    assert_eq!(bench.stop(1), u64::from(4 * PROGRESS));
    assert_eq!(bench.stop(3), u64::from(50 + 2 * PROGRESS));
    assert_eq!(bench.calls.take(), [Call::Stop]);
}

#[test]
fn rings_are_enabled_and_disabled_while_the_device_runs() {
    let mut bench = Bench::running(1);
    bench.enable(0, false);
    bench.enable(0, true);
    assert_eq!(bench.calls.take(), [Call::Enabled(0, false), Call::Enabled(0, true)]);
    // A device that cannot do that on the fly does it by a new start.
    bench.calls.script().refuse_enable = true;
    bench.enable(1, false);
    let expected = [Call::Stop, started(&[(0, PROGRESS, true), (1, PROGRESS, false)])];
    assert_eq!(bench.calls.take(), expected);
    // And where that fails too, it goes on as it was.
    bench.calls.script().refuse_starts = 1;
    let error = bench.refused(M::SetVringEnable(VringState { index: 1, num: 1 }));
    assert!(error.starts_with("SET_VRING_ENABLE: the device refuses: it does not"), "{error}");
    let expected =
        [Call::Stop, Call::Refused, started(&[(0, 2 * PROGRESS, true), (1, 2 * PROGRESS, false)])];
    assert_eq!(bench.calls.take(), expected);
}

#[test]
fn memory_changes_only_under_a_stopped_device() {
    let mut bench = Bench::running(1);
    bench.ok(M::AddMemReg(region(1), memory()));
    let with_both = Call::Start(Started {
        features: VERSION_1,
        memory: vec![(1 << 20, MEMORY), (2 << 20, MEMORY)],
        rings: vec![(0, 1 << 20, PROGRESS, true), (1, (1 << 20) + 0x400, PROGRESS, true)],
    });
    assert_eq!(bench.calls.take(), [Call::Stop, with_both]);
    bench.ok(M::RemMemReg(region(1)));
    let rings = [(0, 2 * PROGRESS, true), (1, 2 * PROGRESS, true)];
    assert_eq!(bench.calls.take(), [Call::Stop, started(&rings)]);
    // The same guest addresses in another file.
    bench.ok(M::SetMemTable([(region(0), memory())].into_iter().collect()));
    let rings = [(0, 3 * PROGRESS, true), (1, 3 * PROGRESS, true)];
    assert_eq!(bench.calls.take(), [Call::Stop, started(&rings)]);
}

#[test]
fn memory_without_the_rings_is_refused_before_the_device_is_touched() {
    let mut bench = Bench::running(1);
    let error = bench.refused(M::SetMemTable([(region(1), memory())].into_iter().collect()));
    assert!(error.contains("ring 0: its descriptor table at 0x70000000, 256 bytes"), "{error}");
    assert_eq!(bench.calls.take(), []);
}

#[test]
fn memory_that_the_device_does_not_take_leaves_it_with_the_old() {
    let mut bench = Bench::running(1);
    bench.calls.script().refuse_starts = 1;
    bench.refused(M::AddMemReg(region(1), memory()));
    let rings = [(0, PROGRESS, true), (1, PROGRESS, true)];
    assert_eq!(bench.calls.take(), [Call::Stop, Call::Refused, started(&rings)]);
    // If not even that works, it rests; what comes next may make it go again.
    bench.calls.script().refuse_starts = 2;
    bench.refused(M::AddMemReg(region(1), memory()));
    assert_eq!(bench.calls.take(), [Call::Stop, Call::Refused, Call::Refused]);
    assert!(bench.shared.lock().failure().unwrap().contains("does not start"));
    bench.ok(M::SetMemTable([(region(0), memory())].into_iter().collect()));
    let rings = [(0, 2 * PROGRESS, true), (1, 2 * PROGRESS, true)];
    assert_eq!(bench.calls.take(), [started(&rings)]);
    assert_eq!(bench.shared.lock().failure(), None);
}

#[test]
fn a_device_that_does_not_start_is_refused_to_whoever_asked_for_it() {
    // By the last ring.
    let mut bench = Bench::ready(1, slots());
    bench.enable(0, true);
    bench.enable(1, true);
    bench.start(0, 0);
    bench.calls.script().refuse_starts = 1;
    let [num, addr, base, call, kick] = start(1, 9);
    for message in [num, addr, base, call] {
        bench.ok(message);
    }
    let error = bench.refused(kick);
    assert!(error.starts_with("SET_VRING_KICK: the device refuses: it does not"), "{error}");
    assert_eq!(bench.stop(1), 9);
    // By the last ring to be enabled.
    let mut bench = Bench::ready(1, slots());
    bench.start(0, 0);
    bench.start(1, 0);
    bench.enable(0, true);
    bench.calls.script().refuse_starts = 1;
    bench.refused(M::SetVringEnable(VringState { index: 1, num: 1 }));
    bench.enable(1, true);
    assert_eq!(bench.calls.take().len(), 2);
    // By the status, which then says so.
    let mut bench = Bench::ready(1, slots() | ProtocolFeatures::STATUS);
    for index in [0, 1] {
        bench.start(index, 0);
        bench.enable(index.into(), true);
    }
    bench.calls.script().refuse_starts = 1;
    let error = bench.refused(M::SetStatus(15));
    assert!(error.starts_with("SET_STATUS: the device refuses"), "{error}");
    assert_eq!(bench.ok(M::GetStatus), Some(0x4b));
    // A ring that the running device does not take: the others go on.
    let mut bench = Bench::running(2);
    bench.start(2, 0);
    bench.calls.script().refuse_starts = 1;
    bench.refused(M::SetVringEnable(VringState { index: 2, num: 1 }));
    let rings = [(0, PROGRESS, true), (1, PROGRESS, true), (2, 0, false)];
    assert_eq!(bench.calls.take(), [Call::Stop, Call::Refused, started(&rings)]);
}

#[test]
fn a_ring_outside_of_memory_is_refused() {
    let mut bench = Bench::ready(1, slots());
    let [num, _, base, _, kick] = start(0, 0);
    bench.ok(num);
    bench.ok(base);
    let desc = USER + MEMORY - 0xf0;
    let addr = VringAddr { index: 0, flags: 0, desc, used: USER, avail: USER, log: 0 };
    bench.ok(M::SetVringAddr(addr));
    let error = bench.refused(kick);
    assert!(error.contains("descriptor table at 0x7000ff10, 256 bytes, does not lie"), "{error}");
}

#[test]
fn files_of_running_rings_are_passed_on() {
    let mut bench = Bench::running(1);
    let call = PeerEvent::new().unwrap();
    let file = |event: &PeerEvent| VringFile {
        index: 1,
        fd: Some(event.as_fd().try_clone_to_owned().unwrap()),
    };
    bench.ok(M::SetVringCall(file(&call)));
    bench.ok(M::SetVringKick(file(&PeerEvent::new().unwrap())));
    assert_eq!(bench.calls.take(), [Call::Interrupt(1), Call::Kick(1)]);
    // Interrupts may be lost in a new start, so there is one after it.
    assert!(!call.drain().unwrap());
    bench.ok(M::AddMemReg(region(1), memory()));
    wait_for("an interrupt", || call.drain().unwrap());
}

#[test]
fn a_reset_stops_the_device() {
    let protocol = slots() | ProtocolFeatures::RESET_DEVICE;
    let mut bench = Bench::ready(1, protocol);
    for _ in 0..2 {
        bench.ok(M::SetFeatures(VERSION_1 | Features::VHOST_USER_PROTOCOL.bits()));
        for index in [0, 1] {
            bench.start(index, 0);
            bench.enable(index.into(), true);
        }
        bench.ok(M::ResetDevice);
        let calls = [started(&[(0, 0, true), (1, 0, true)]), Call::Stop];
        assert_eq!(bench.calls.take(), calls);
    }
}

#[test]
fn a_front_end_over_a_socket_gets_the_device_until_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let calls = Recorder::default();
    let model = Box::new(Model::new("model-0", 2, calls.clone()));
    let attached = attach(&path, AttachOptions::default(), model).unwrap();
    assert_eq!((attached.status().state, attached.queue_pairs()), (State::Waiting, 2));
    // Twice: the first one vanishes under a running device.
    for _ in 0..2 {
        let stream = UnixStream::connect(&path).unwrap().into();
        let mut front = Frontend::new(stream, "s", Duration::from_secs(10), None).unwrap();
        let offer = front.handshake().unwrap();
        assert_eq!((offer.queue_pairs, offer.features.contains(FEATURES)), (2, true));
        front.set_features(Features::VERSION_1 | Features::VHOST_USER_PROTOCOL).unwrap();
        front.share_memory(&[(region(0), memory().as_fd())]).unwrap();
        let [kick, call] = [PeerEvent::new().unwrap(), PeerEvent::new().unwrap()];
        for index in 0..4 {
            let at = USER + 0x400 * u64::from(index);
            let addresses = (at, at + 0x100, at + 0x200);
            let (kick, call) = (kick.as_fd(), call.as_fd());
            let ring = frontend::Ring {
                index,
                size: 16,
                base: 0,
                addresses,
                kick: Some(kick),
                call: Some(call),
            };
            front.start_ring(&ring).unwrap();
            front.enable_ring(index, true).unwrap();
        }
        assert_eq!(attached.status().state, State::Connected);
        front.driver_ok().unwrap();
        let all = [(0, 0, true), (1, 0, true), (2, 0, true), (3, 0, true)];
        assert_eq!(calls.take(), [started(&all)]);
        let status = attached.status();
        assert_eq!((status.state, status.rings), (State::Running, vec![0, 1, 2, 3]));
        assert_eq!(status.features, (Features::VERSION_1 | Features::VHOST_USER_PROTOCOL).bits());
        calls.script().broken = true;
        assert!(matches!(attached.status().state, State::Failed(_)));
        calls.script().broken = false;
        drop(front);
        assert_eq!(calls.wait_for(&Call::Stop), [Call::Stop]);
    }
    drop(attached);
    assert_eq!(calls.take(), [Call::Dropped]);
    assert!(!path.exists());
}

#[test]
fn a_device_that_does_not_answer_holds_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let calls = [Recorder::default(), Recorder::default()];
    let attached = [0, 1].map(|n| {
        let model = Box::new(Model::new("model", 1, calls[n].clone()));
        attach(dir.path().join(n.to_string()), AttachOptions::default(), model).unwrap()
    });
    let connect = |n: usize| {
        let stream = UnixStream::connect(attached[n].path()).unwrap().into();
        Frontend::new(stream, "s", Duration::from_secs(10), None).unwrap()
    };
    let hung = calls[0].script();
    // It is asked whether it can log, and does not get to an answer.
    let mut front = connect(0);
    let asking = std::thread::spawn(move || front.handshake().map(|offer| offer.queue_pairs));
    wait_for("the question", || attached[0].status().state == State::Busy);
    assert_eq!(connect(1).handshake().unwrap().queue_pairs, 1);
    assert!(matches!(attached[1].status().state, State::Waiting | State::Connected));
    drop(hung);
    assert_eq!(asking.join().unwrap().unwrap(), 1);
}

#[test]
fn detaching_stops_a_running_device() {
    let mut bench = Bench::running(1);
    bench.session.close(&mut bench.device);
    assert_eq!(bench.calls.take(), [Call::Stop]);
    assert!(!bench.shared.lock().is_connected());
    drop((bench.device, bench.shared));
    assert_eq!(bench.calls.take(), [Call::Dropped]);
}

/// The doorbells in the messages that wait, and whether each is given or taken back.
fn doorbells(bench: &mut Bench) -> Vec<(u8, bool)> {
    let mut seen = Vec::new();
    while let Some(message) = bench.device.backend.next_message() {
        let BackendMessage::HostNotifier(VringArea { index, area }) = message else {
            panic!("{message:?}")
        };
        if let Some((_, len, offset)) = &area {
            assert_eq!((*len, *offset), (4096, 4096 * u64::from(index)));
        }
        seen.push((index, area.is_some()));
    }
    seen
}

#[test]
fn doorbells_are_offered_once_and_taken_back_when_they_are_gone() {
    let mut bench = Bench::ready(1, slots() | ProtocolFeatures::HOST_NOTIFIER);
    bench.calls.script().doorbells = true;
    for index in [0, 1] {
        bench.start(index, 0);
        bench.enable(index.into(), true);
    }
    assert_eq!(doorbells(&mut bench), [(0, true), (1, true)]);
    bench.device.backend.notifier_answered(0, true);
    bench.device.backend.notifier_answered(1, false);
    assert_eq!(bench.shared.lock().outbox.used(), [0]);
    // A new start with the same doorbells, and one without.
    bench.ok(M::AddMemReg(region(1), memory()));
    assert_eq!(doorbells(&mut bench), []);
    bench.calls.script().doorbells = false;
    bench.ok(M::RemMemReg(region(1)));
    assert_eq!(doorbells(&mut bench), [(0, false), (1, false)]);
    assert_eq!(bench.shared.lock().outbox.used(), []);
    // Who stops a ring lets go of its doorbell, and is offered it anew.
    bench.calls.script().doorbells = true;
    bench.stop(0);
    bench.start(0, 0);
    assert_eq!(doorbells(&mut bench), [(0, true), (1, true)]);
    bench.stop(0);
    bench.start(0, 0);
    assert_eq!(doorbells(&mut bench), [(0, true)]);
}

#[test]
fn without_the_protocol_feature_there_are_no_doorbells() {
    let mut bench = Bench::running(1);
    bench.calls.script().doorbells = true;
    bench.ok(M::AddMemReg(region(1), memory()));
    assert_eq!(doorbells(&mut bench), []);
}

#[test]
fn the_devices_configuration_is_read_through() {
    let mut bench = Bench::ready(1, slots() | ProtocolFeatures::CONFIG);
    let part = |offset, len| {
        let bytes = std::iter::repeat_n(0, len).collect();
        M::GetConfig(ConfigSpace { offset, flags: 0, bytes })
    };
    let reply = bench.send(&part(6, 4), false).unwrap().reply;
    let bytes = [1, 0, 8, 9].into_iter().collect();
    let expected = ConfigSpace { offset: 6, flags: 0, bytes };
    assert_eq!(reply, Some(Reply::Config(Box::new(expected))));
    let answer = bench.send(&part(10, 4), false).unwrap();
    assert_eq!(answer.reply, Some(Reply::Empty));
    let bytes = std::iter::once(1).collect();
    let error = bench.refused(M::SetConfig(ConfigSpace { offset: 0, flags: 0, bytes }));
    assert!(error.contains("its configuration is read only"), "{error}");
}

#[test]
fn the_end_of_a_migration_is_passed_on() {
    let mut bench = Bench::ready(1, slots() | ProtocolFeatures::RARP);
    bench.ok(M::SendRarp(7));
    assert_eq!(bench.calls.take(), [Call::MigrationDone]);
}

#[test]
fn our_own_driver_uses_doorbells_and_follows_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let calls = Recorder::default();
    let model = Box::new(Model::new("model-0", 1, calls.clone()));
    let changed = model.changed();
    calls.script().doorbells = true;
    let attached = attach(&path, AttachOptions::default(), model).unwrap();
    let drivers = drivers::Drivers::new();
    let device = format!("virtio-user:{}", path.display());
    let open = drivers::open("p0", &device, &drivers).unwrap();
    let port = open.port.control();
    wait_for("the link", || port.link().up);
    wait_for("both doorbells", || attached.status().mapped_doorbells == [0, 1]);
    // A ring's number was written to its page, at the beginning.
    let rung = |index: u16, fd: &OwnedFd| {
        let mut seen = [0xff; 2];
        rustix::io::pread(fd, &mut seen, 4096 * u64::from(index)).unwrap();
        u16::from_ne_bytes(seen) == index
    };
    wait_for("a kick", || {
        let script = calls.script();
        script.bells.len() == 2 && script.bells.iter().all(|(index, fd)| rung(*index, fd))
    });
    let details = || port.details().into_iter().find(|(name, _)| name == "doorbells").unwrap().1;
    wait_for("the detail", || details() == "2 of 2 rings");
    for up in [false, true] {
        calls.script().link_down = !up;
        changed.signal().unwrap();
        wait_for("the change of the link", || port.link().up == up);
    }
    // Other pages under a running device are no business of the front-end's; a device without is.
    drop(attached);
    wait_for("the end of the link", || !port.link().up);
}
