//! Sessions with a kernel that does what the test wants.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use eal::{Epoll, EventFd, PeerEvent};
use packet::MacAddr;
use proptest::prelude::*;
use rustix::fs::MemfdFlags;
use virtio::Features;

use super::kernel::{Extent, Kernel, RingInfo};
use super::message::{Answer, Kind, Request};
use super::offer::Offer;
use super::session::{FIRST_TOKEN, Session, VduseError};
use crate::backend::Event;
use crate::call::Call as Notification;
use crate::control::{ControlThread, Watcher};
use crate::net::NetDevice;
use crate::session::Device;
use crate::testing::{Call, PROGRESS, Recorder, Recording, Start};

const RINGS: u64 = 0x10_0000;
const BUFFERS: u64 = 0x1000;
const LEN: u64 = 0x10000;
const RING_BYTES: u64 = 0x1000;
const SIZE: u32 = 8;
const AVAIL: u64 = 0x200;
const USED: u64 = 0x400;
const INDEX: u64 = 2;
const ACCEPTED: u64 =
    Features::VERSION_1.union(Features::ACCESS_PLATFORM).union(Features::MAC).bits();

/// What the kernel knows.
#[derive(Debug)]
struct State {
    requests: VecDeque<Request>,
    answers: Vec<Answer>,
    features: u64,
    rings: Vec<RingInfo>,
    memory: Vec<(Extent, OwnedFd)>,
    /// `DRIVER_OK` is noted down.
    accepted: bool,
    given_up: bool,
    link: Option<bool>,
    kicks: Vec<Option<PeerEvent>>,
}

/// A kernel in which a test can look.
#[derive(Clone, Debug)]
struct Fake(Arc<Mutex<State>>, Arc<EventFd>);

impl Fake {
    /// A device with five rings, of which the first two are ready, in memory of their own.
    fn new() -> Self {
        let ring = |index: u64| {
            let at = RINGS + index * RING_BYTES;
            let ready = index < 2;
            RingInfo { size: SIZE, desc: at, driver: at + AVAIL, device: at + USED, base: 0, ready }
        };
        let state = State {
            requests: VecDeque::new(),
            answers: Vec::new(),
            features: ACCEPTED,
            rings: (0..5).map(ring).collect(),
            memory: Vec::new(),
            accepted: false,
            given_up: false,
            link: None,
            kicks: (0..5).map(|_| None).collect(),
        };
        let fake = Self(Arc::new(Mutex::new(state)), Arc::new(EventFd::new().unwrap()));
        fake.share(RINGS, true);
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn share(&self, start: u64, writable: bool) {
        let file = rustix::fs::memfd_create("vduse", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, LEN).unwrap();
        let extent = Extent { start, last: start + LEN - 1, offset: 0, writable };
        let memory = &mut self.state().memory;
        memory.push((extent, file));
        memory.sort_by_key(|(extent, _)| extent.start);
    }

    /// Writes a number into the memory of the rings.
    fn write(&self, ring: u64, at: u64, number: u16) {
        let state = self.state();
        let (_, file) = state.memory.iter().find(|(extent, _)| extent.start == RINGS).unwrap();
        rustix::io::pwrite(file, &number.to_le_bytes(), ring * RING_BYTES + at).unwrap();
    }

    fn check(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.given_up { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(state) }
    }

    /// Asks something by way of the file.
    fn ask(&self, id: u32, kind: Kind) {
        self.state().requests.push_back(Request { id, kind });
        self.1.signal().unwrap();
    }
}

impl AsFd for Fake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}

fn invalid<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

impl Kernel for Fake {
    fn receive(&self) -> io::Result<Option<Request>> {
        let mut state = self.state();
        if state.requests.len() <= 1 && !state.given_up {
            self.1.drain().unwrap();
        }
        Ok(state.requests.pop_front())
    }

    fn answer(&self, answer: &Answer) -> io::Result<()> {
        self.state().answers.push(*answer);
        Ok(())
    }

    fn features(&self) -> io::Result<u64> {
        Ok(self.check()?.features)
    }

    fn ring(&self, index: u16) -> io::Result<RingInfo> {
        self.check()?.rings.get(usize::from(index)).copied().map_or_else(invalid, Ok)
    }

    fn set_kick(&self, index: u16, kick: &PeerEvent) -> io::Result<()> {
        self.check()?.kicks[usize::from(index)] = Some(kick.clone());
        Ok(())
    }

    fn call(&self, _index: u16) -> Notification {
        PeerEvent::new().unwrap().into()
    }

    fn lookup(&self, start: u64, last: u64) -> io::Result<Option<(Extent, OwnedFd)>> {
        let state = self.check()?;
        let mut found =
            state.memory.iter().filter(|(extent, _)| extent.last >= start && extent.start <= last);
        Ok(found.next().map(|(extent, file)| (*extent, file.try_clone().unwrap())))
    }

    fn set_link(&self, up: bool) -> io::Result<()> {
        self.check()?.link = Some(up);
        Ok(())
    }

    fn inject_config_irq(&self) -> io::Result<()> {
        if self.check()?.accepted { Ok(()) } else { invalid() }
    }
}

fn offer(backend: &Recording) -> Offer {
    Offer::of(backend, 256, MacAddr([2, 0, 0, 0, 0, 1]), None)
}

/// A session with its device.
struct Bench {
    fake: Fake,
    session: Session,
    device: Device,
    calls: Recorder,
    events: Receiver<Event>,
    now: Instant,
}

impl Bench {
    fn open(fake: &Fake) -> Result<Self, VduseError> {
        let (backend, calls) = Recording::new();
        let offer = offer(&backend);
        let (sender, events) = channel();
        let events_sink = Box::new(move |event| sender.send(event).unwrap_or_default());
        let mut device = Device { backend: Box::new(backend), events: events_sink };
        let watcher = Watcher::new(Arc::new(Epoll::new().unwrap()), 0);
        let now = Instant::now();
        let kernel = Box::new(fake.clone());
        let session = Session::open(kernel, &offer, watcher, &mut device, now)?;
        Ok(Self { fake: fake.clone(), session, device, calls, events, now })
    }

    fn ask(&mut self, kind: Kind) -> (Answer, Option<VduseError>) {
        self.session.handle(&mut self.device, Request { id: 1, kind }, self.now)
    }

    #[track_caller]
    fn status(&mut self, status: u8) {
        let (answer, error) = self.ask(Kind::Status(status));
        assert!(answer.done && error.is_none(), "{error:?}");
    }

    /// The driver becomes ready, and the kernel notes it down.
    #[track_caller]
    fn ready(&mut self) {
        for status in [1, 3, 11, 15] {
            self.status(status);
        }
        self.fake.state().accepted = true;
        self.pass(Duration::ZERO).unwrap();
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> Result<(), VduseError> {
        self.now += time;
        self.session.on_deadline(&mut self.device, self.now)
    }

    fn kick(&mut self, ring: u16) {
        if let Some(kick) = &self.fake.state().kicks[usize::from(ring)] {
            kick.signal().unwrap();
        }
        self.session.kicked(&mut self.device, FIRST_TOKEN + ring).unwrap();
    }

    fn starts(&self) -> Vec<(u16, u32)> {
        let starts = |call| match call {
            Call::Start(Start { index, base, .. }) => Some((index, base)),
            _ => None,
        };
        self.calls.take().into_iter().filter_map(starts).collect()
    }

    fn told(&self) -> Vec<Event> {
        let ring = |event: &Event| !matches!(event, Event::RingState { .. });
        self.events.try_iter().filter(ring).collect()
    }
}

#[test]
fn rings_start_with_the_first_buffer_when_all_memory_is_there() {
    let fake = Fake::new();
    let mut bench = Bench::open(&fake).unwrap();
    assert_eq!((fake.state().link, bench.told()), (Some(true), vec![]));
    for status in [1, 3, 11, 15] {
        bench.status(status);
    }
    // The kernel has not noted it down: interrupts would be lost.
    bench.pass(Duration::ZERO).unwrap();
    assert!(bench.session.deadline().is_some_and(|at| at > bench.now));
    assert!(fake.state().kicks.iter().all(Option::is_none));
    fake.state().accepted = true;
    bench.pass(Duration::from_millis(1)).unwrap();
    assert!(fake.state().kicks.iter().all(Option::is_some));
    let features = Features::VERSION_1.bits();
    assert!(bench.calls.take().contains(&Call::Features(features)), "what is the kernel's stays");
    assert_eq!(bench.told(), [Event::Connected]);

    fake.share(BUFFERS, true);
    fake.share(0x100_0000, false);
    bench.kick(0);
    let calls = bench.calls.take();
    let memory = [(BUFFERS, BUFFERS, LEN), (RINGS, RINGS, LEN)];
    assert_eq!(calls[0], Call::Memory(memory.into()), "what is only readable is left out");
    let start = |index: u16| {
        let at = RINGS + u64::from(index) * RING_BYTES;
        let addrs = [at, at + AVAIL, at + USED];
        let files = [true, true, false];
        Call::Start(Start {
            index,
            size: 8,
            addrs,
            log: None,
            base: 0,
            features,
            enabled: true,
            files,
        })
    };
    assert_eq!(calls[1..], [start(0), start(1)]);
    assert_eq!(bench.told(), [Event::Ready]);
    // Once more, for nothing.
    bench.kick(1);
    assert_eq!(bench.calls.take(), []);

    bench.status(0);
    assert_eq!(bench.calls.take(), [Call::Stop(0), Call::Stop(1), Call::Disconnected]);
    assert_eq!(bench.told(), [Event::Suspended, Event::Gone]);
    bench.kick(0);
    assert_eq!((bench.calls.take(), bench.session.deadline()), (vec![], None));
}

#[test]
fn rings_that_have_buffers_start_at_once() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 4);
    let mut bench = Bench::open(&fake).unwrap();
    bench.ready();
    assert_eq!(bench.starts(), [(0, 0), (1, 0)]);
    assert_eq!(bench.told(), [Event::Connected, Event::Ready]);
}

#[test]
fn a_ring_begins_where_the_driver_says() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 4);
    // What is in the ring counts after a restart only.
    fake.write(0, USED + INDEX, 3);
    fake.state().rings[0].base = 2;
    let mut bench = Bench::open(&fake).unwrap();
    bench.ready();
    assert_eq!(bench.starts(), [(0, 2), (1, 0)]);
}

#[test]
fn after_a_restart_rings_go_on_where_they_gave_back_the_last_chain() {
    let fake = Fake::new();
    fake.state().accepted = true;
    fake.write(0, AVAIL + INDEX, 9);
    fake.write(0, USED + INDEX, 5);
    fake.write(1, AVAIL + INDEX, 65_535);
    fake.write(1, USED + INDEX, 65_535);
    let mut bench = Bench::open(&fake).unwrap();
    bench.pass(Duration::ZERO).unwrap();
    assert_eq!(bench.starts(), [(0, 5), (1, 65_535)]);
    assert_eq!(bench.told(), [Event::Connected, Event::Ready]);
    // A new driver starts anew.
    bench.status(0);
    fake.write(0, AVAIL + INDEX, 1);
    fake.write(0, USED + INDEX, 0);
    bench.ready();
    assert_eq!(bench.starts(), [(0, 0), (1, 0)]);
}

#[test]
fn after_a_restart_an_idle_driver_is_waited_for() {
    let fake = Fake::new();
    fake.state().accepted = true;
    let mut bench = Bench::open(&fake).unwrap();
    bench.pass(Duration::ZERO).unwrap();
    assert_eq!(bench.starts(), []);
    bench.kick(1);
    assert_eq!(bench.starts(), [(0, 0), (1, 0)]);
}

#[test]
fn a_ring_that_becomes_ready_later_is_found() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 4);
    let mut bench = Bench::open(&fake).unwrap();
    bench.ready();
    bench.calls.take();
    bench.pass(Duration::from_millis(20)).unwrap();
    assert_eq!(bench.starts(), []);
    fake.state().rings[4].ready = true;
    bench.pass(Duration::from_millis(200)).unwrap();
    assert_eq!(bench.starts(), [(4, 0)]);
    // And, after that, by its kick alone.
    let mut looks = 0;
    while let Some(deadline) = bench.session.deadline() {
        bench.pass(deadline.saturating_duration_since(bench.now)).unwrap();
        looks += 1;
    }
    assert!(looks < 20, "{looks}");
    fake.state().rings[2].ready = true;
    bench.kick(2);
    assert_eq!(bench.starts(), [(2, 0)]);
}

#[test]
fn memory_that_is_taken_away_stops_rings_until_it_comes_back() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 4);
    let mut bench = Bench::open(&fake).unwrap();
    bench.ready();
    // More memory: the rings go on in it.
    fake.share(BUFFERS, true);
    bench.calls.take();
    assert!(bench.ask(Kind::MemoryChanged(0, u64::MAX)).0.done);
    let memory = Call::Memory(vec![(BUFFERS, BUFFERS, LEN), (RINGS, RINGS, LEN)]);
    assert_eq!(bench.calls.take(), [memory]);
    // An extent that makes no sense: nothing is used any more, and the driver hears of it.
    fake.state().memory[0].0.last = 0;
    let (answer, error) = bench.ask(Kind::MemoryChanged(0, u64::MAX));
    assert!(!answer.done && error.is_some(), "{error:?}");
    assert_eq!(bench.calls.take(), [Call::Stop(0), Call::Stop(1), Call::Memory(vec![])]);
    fake.state().memory.remove(0);
    assert!(bench.ask(Kind::MemoryChanged(0, u64::MAX)).0.done);
    assert_eq!(bench.starts(), [(0, PROGRESS), (1, PROGRESS)]);
}

#[test]
fn the_state_of_a_ring_is_told_and_it_goes_on() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 4);
    let mut bench = Bench::open(&fake).unwrap();
    bench.ready();
    bench.calls.take();
    let (answer, _) = bench.ask(Kind::RingState(1));
    assert_eq!((answer.done, answer.ring), (true, Some((1, 5))));
    assert_eq!(bench.starts(), [(1, 5)]);
    let (answer, _) = bench.ask(Kind::RingState(0x10001));
    assert_eq!(answer.ring, Some((0x10001, 0)));
    assert_eq!(bench.starts(), []);
}

#[test]
fn what_was_not_offered_is_refused() {
    let fake = Fake::new();
    fake.state().features |= Features::RING_PACKED.bits();
    let mut bench = Bench::open(&fake).unwrap();
    bench.status(3);
    let (answer, error) = bench.ask(Kind::Status(11));
    assert!(!answer.done && matches!(error, Some(VduseError::Features(_))));
    let (answer, error) = bench.ask(Kind::Unknown(7));
    assert!(!answer.done && matches!(error, Some(VduseError::Unknown(7))));
}

#[test]
fn rings_that_make_no_sense_do_not_start_and_the_others_do() {
    for wrong in [
        RingInfo { size: 7, ..Fake::new().state().rings[0] },
        RingInfo { size: 0x10008, ..Fake::new().state().rings[0] },
        RingInfo { size: 0, ..Fake::new().state().rings[0] },
        RingInfo { desc: 1, ..Fake::new().state().rings[0] },
        RingInfo { device: RINGS + LEN - 4, ..Fake::new().state().rings[0] },
    ] {
        let fake = Fake::new();
        let (backend, _calls) = Recording::new();
        let offer = offer(&backend);
        let net = NetDevice::new("test", 2).unwrap();
        let mut device = Device { backend: Box::new(net), events: Box::new(|_| ()) };
        fake.state().rings[0] = wrong;
        fake.write(1, AVAIL + INDEX, 1);
        let watcher = Watcher::new(Arc::new(Epoll::new().unwrap()), 0);
        let now = Instant::now();
        let mut session =
            Session::open(Box::new(fake.clone()), &offer, watcher, &mut device, now).unwrap();
        fake.state().accepted = true;
        let request = |status| Request { id: 1, kind: Kind::Status(status) };
        for status in [3, 11, 15] {
            assert!(session.handle(&mut device, request(status), now).0.done);
        }
        let error = session.on_deadline(&mut device, now).unwrap_err();
        assert!(matches!(error, VduseError::Ring { index: 0, .. }), "{wrong:?}: {error}");
        let ask = Request { id: 2, kind: Kind::RingState(1) };
        assert_eq!(session.handle(&mut device, ask, now).0.ring, Some((1, 0)));
        session.close(&mut device);
    }
}

#[test]
fn a_device_that_is_another_one_or_was_given_up_is_refused() {
    let fake = Fake::new();
    fake.state().rings.pop();
    assert!(matches!(Bench::open(&fake).map(|_| ()), Err(VduseError::Rings)));
    let extra = fake.state().rings[0];
    fake.state().rings.extend([extra, extra]);
    assert!(matches!(Bench::open(&fake).map(|_| ()), Err(VduseError::Rings)));
    let fake = Fake::new();
    fake.state().given_up = true;
    let error = Bench::open(&fake).map(|_| ()).unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("vdpa dev del"), "{error}");
    // And one that was made with other options.
    let fake = Fake::new();
    fake.state().accepted = true;
    fake.state().features |= Features::CSUM.bits();
    assert!(matches!(Bench::open(&fake).map(|_| ()), Err(VduseError::Features(_))));
}

#[test]
fn the_control_thread_answers_the_kernel_and_ends_with_the_link_down() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 1);
    let control = ControlThread::start().unwrap();
    let (backend, calls) = Recording::new();
    let (offer, kernel) = (offer(&backend), Box::new(fake.clone()));
    let handle = control.add_vduse("/dev/vduse/t", kernel, offer, None, Box::new(backend)).unwrap();
    for (id, status) in [(1, 3), (2, 11), (3, 15)] {
        fake.ask(id, Kind::Status(status));
    }
    calls.wait_for(&Call::Status(15));
    fake.state().accepted = true;
    calls.wait_for(&Call::Start(Start {
        index: 1,
        size: 8,
        addrs: [0, AVAIL, USED].map(|at| RINGS + RING_BYTES + at),
        log: None,
        base: 0,
        features: Features::VERSION_1.bits(),
        enabled: true,
        files: [true, true, false],
    }));
    let answers: Vec<_> = fake.state().answers.iter().map(|a| (a.id, a.done)).collect();
    assert_eq!(answers, [(1, true), (2, true), (3, true)]);
    assert_eq!(fake.state().link, Some(true));
    handle.remove();
    calls.wait_for(&Call::Dropped);
    assert_eq!(fake.state().link, Some(false));
}

#[test]
fn a_device_that_the_kernel_gives_up_is_not_listened_to_any_longer() {
    let fake = Fake::new();
    fake.write(0, AVAIL + INDEX, 1);
    fake.state().accepted = true;
    let control = ControlThread::start().unwrap();
    let (backend, calls) = Recording::new();
    let (offer, kernel) = (offer(&backend), Box::new(fake.clone()));
    let handle = control.add_vduse("/dev/vduse/t", kernel, offer, None, Box::new(backend)).unwrap();
    fake.state().given_up = true;
    // Readable from now on, whatever is read.
    fake.1.signal().unwrap();
    calls.wait_for(&Call::Disconnected);
    handle.remove();
    calls.wait_for(&Call::Dropped);
}

/// Something that happens to a session, from whichever side.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(Kind),
    Accept(bool),
    Features(u64),
    Ring(usize, RingInfo),
    Share(u64, u64, bool),
    Unshare,
    Kick(u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Numbers that mean something, and such that do not.
    let address =
        || prop_oneof![4 => (0_u64..0x40).prop_map(|n| RINGS + n * 0x200), 1 => any::<u64>()];
    let size = prop_oneof![4 => (0_u32..12).prop_map(|n| 1 << n), 1 => any::<u32>()];
    let ring = (size, address(), address(), address(), any::<u16>(), any::<bool>()).prop_map(
        |(size, desc, driver, device, base, ready)| RingInfo {
            size,
            desc,
            driver,
            device,
            base,
            ready,
        },
    );
    let status = prop::sample::select(vec![0, 1, 3, 11, 15, 4, 0x8f, 0xff]);
    prop_oneof![
        4 => status.prop_map(|status| Step::Ask(Kind::Status(status))),
        2 => Just(Step::Ask(Kind::MemoryChanged(0, u64::MAX))),
        1 => (0_u32..7).prop_map(|ring| Step::Ask(Kind::RingState(ring))),
        1 => any::<u32>().prop_map(|kind| Step::Ask(Kind::Unknown(kind))),
        3 => any::<bool>().prop_map(Step::Accept),
        1 => any::<u64>().prop_map(Step::Features),
        4 => (0_usize..5, ring).prop_map(|(index, info)| Step::Ring(index, info)),
        2 => (address(), 0_u64..0x20000, any::<bool>()).prop_map(|(a, l, w)| Step::Share(a, l, w)),
        1 => Just(Step::Unshare),
        3 => (0_u16..8).prop_map(Step::Kick),
        3 => (0_u64..300).prop_map(Step::Pass),
    ]
}

fn take(fake: &Fake, session: &mut Session, device: &mut Device, now: &mut Instant, step: Step) {
    match step {
        Step::Ask(kind) => {
            let (answer, error) = session.handle(device, Request { id: 9, kind }, *now);
            assert_eq!((answer.id, answer.done), (9, error.is_none()));
        }
        Step::Accept(accepted) => fake.state().accepted = accepted,
        Step::Features(features) => fake.state().features = features,
        Step::Ring(index, info) => fake.state().rings[index] = info,
        Step::Share(start, len, writable) => {
            fake.share(start & !0xfff & (u64::MAX >> 1), writable);
            if let Some((extent, _)) = fake.state().memory.last_mut() {
                extent.last = extent.start + len;
            }
        }
        Step::Unshare => drop(fake.state().memory.pop()),
        Step::Kick(ring) => drop(session.kicked(device, FIRST_TOKEN + ring)),
        Step::Pass(millis) => {
            *now += Duration::from_millis(millis);
            let _ = session.on_deadline(device, *now);
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_happens_breaks_a_session(
        steps in prop::collection::vec(step(), 1..60),
        accepted: bool,
    ) {
        let fake = Fake::new();
        fake.state().accepted = accepted;
        let offer = offer(&Recording::new().0);
        let net = NetDevice::new("test", 2).unwrap();
        let slots = net.slots().to_vec();
        let mut device = Device { backend: Box::new(net), events: Box::new(|_| ()) };
        let watcher = Watcher::new(Arc::new(Epoll::new().unwrap()), 0);
        let mut now = Instant::now();
        let kernel = Box::new(fake.clone());
        let mut session = Session::open(kernel, &offer, watcher, &mut device, now).unwrap();
        for step in steps {
            take(&fake, &mut session, &mut device, &mut now, step);
        }
        session.close(&mut device);
        prop_assert!(slots.iter().all(|slot| !slot.is_ready()), "a ring still runs");
    }
}
