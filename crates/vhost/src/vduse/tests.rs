//! Sessions with a kernel that does what the test wants.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use eal::Epoll;
use packet::MacAddr;
use virtio::Features;

use super::message::{Answer, Kind, Request};
use super::offer::Offer;
use super::session::{FIRST_TOKEN, Session, VduseError};
use crate::backend::Event;
use crate::control::{ControlThread, Watcher};
use crate::session::Device;
use crate::testing::kernel::{AVAIL, BUFFERS, Fake, INDEX, LEN, RING_BYTES, RINGS, USED};
use crate::testing::{Call, PROGRESS, Recorder, Recording, Start};

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
    fake.signal();
    calls.wait_for(&Call::Disconnected);
    handle.remove();
    calls.wait_for(&Call::Dropped);
}
