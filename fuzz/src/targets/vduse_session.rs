//! The kernel's side of a VDUSE device, with a driver that shares what memory it likes and says of
//! its rings what it likes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use eal::{Epoll, EventFd, PeerEvent};
use ethdev::queue::RxDriver;
use ethdev::stats::QueueStats;
use packet::{BURST, MacAddr};
use rustix::io::Errno;
use vhost::Call;
use vhost::control::Watcher;
use vhost::session::Device;
use vhost::vduse::message::{Answer, Kind, Request};
use vhost::vduse::session::FIRST_TOKEN;
use vhost::vduse::{Extent, Kernel, Offer, RingInfo, Session};
use vhost_net::{NetDevice, NetReceiver};
use virtio::Features;

use crate::guest::{BYTES, Driver, GUEST, Ram, USER};
use crate::input::Input;

/// Steps of one input.
const STEPS: usize = 150;

/// Rings of the device: one pair, without a control queue.
const RINGS: u64 = 2;

/// Entries of each.
const SIZE: u16 = 64;

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(mut world) = World::new(&mut input) else { return };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.receiver.release();
    world.session.close(&mut world.device);
    world.receiver.receive(BURST, &QueueStats::default());
    assert!(world.receiver.batch().frames().is_empty(), "the ring is gone");
}

/// What the kernel knows.
#[derive(Debug)]
struct State {
    features: u64,
    rings: Vec<RingInfo>,
    extents: Vec<Extent>,
    accepted: bool,
    given_up: bool,
}

/// A kernel that says what the input wants.
#[derive(Clone, Debug)]
struct Fake {
    state: Arc<Mutex<State>>,
    ram: Arc<Ram>,
    ready: Arc<EventFd>,
}

impl Fake {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap();
        if state.given_up { Err(Errno::PERM.into()) } else { Ok(state) }
    }
}

impl AsFd for Fake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl Kernel for Fake {
    fn receive(&self) -> io::Result<Option<Request>> {
        Ok(None)
    }

    fn answer(&self, _answer: &Answer) -> io::Result<()> {
        Ok(())
    }

    fn features(&self) -> io::Result<u64> {
        Ok(self.state()?.features)
    }

    fn ring(&self, index: u16) -> io::Result<RingInfo> {
        let state = self.state()?;
        state.rings.get(usize::from(index)).copied().ok_or_else(|| Errno::INVAL.into())
    }

    fn set_kick(&self, _index: u16, _kick: &PeerEvent) -> io::Result<()> {
        self.state().map(drop)
    }

    fn call(&self, _index: u16) -> Call {
        PeerEvent::new().unwrap().into()
    }

    fn lookup(&self, start: u64, last: u64) -> io::Result<Option<(Extent, OwnedFd)>> {
        let state = self.state()?;
        let mut extents = state.extents.iter();
        let found = extents.find(|extent| extent.last >= start && extent.start <= last);
        found.map(|extent| Ok((*extent, self.ram.fd().try_clone_to_owned()?))).transpose()
    }

    fn set_link(&self, _up: bool) -> io::Result<()> {
        self.state().map(drop)
    }

    fn inject_config_irq(&self) -> io::Result<()> {
        if self.state()?.accepted { Ok(()) } else { Err(Errno::INVAL.into()) }
    }
}

/// A session with its device.
struct World {
    fake: Fake,
    session: Session,
    device: Device,
    receiver: NetReceiver,
    drivers: Vec<Driver>,
    now: Instant,
}

impl World {
    /// A device of which the kernel may know already; `None` where that is another.
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let net = NetDevice::new("fuzz", 1).unwrap();
        let receiver = net.receivers().pop()?;
        let offer = Offer::of(&net, 256, MacAddr([2, 0, 0, 0, 0, 1]), None);
        let drivers = (0..RINGS).map(|index| Driver::new(index * 0x1000, SIZE, false));
        let drivers: Vec<Driver> = drivers.collect();
        let ring = |driver: &Driver| {
            let [desc, avail, used] = driver.user().map(|address| address - USER + GUEST);
            let size = SIZE.into();
            RingInfo { size, desc, driver: avail, device: used, base: 0, ready: true }
        };
        let whole = Extent { start: GUEST, last: GUEST + BYTES - 1, offset: 0, writable: true };
        let optional = Features::EVENT_IDX | Features::INDIRECT_DESC | Features::IN_ORDER;
        let less = if input.yes() { optional } else { Features::empty() };
        let state = State {
            features: (offer.features - less).bits(),
            rings: drivers.iter().map(ring).collect(),
            extents: vec![whole],
            accepted: input.yes(),
            given_up: false,
        };
        let fake = Fake {
            state: Arc::new(Mutex::new(state)),
            ram: Arc::new(Ram::new()),
            ready: Arc::new(EventFd::new().unwrap()),
        };
        let mut device = Device { backend: Box::new(net), events: Box::new(|_| ()) };
        let watcher = Watcher::new(Arc::new(Epoll::new().unwrap()), 0);
        let now = Instant::now();
        let kernel = Box::new(fake.clone());
        let session = Session::open(kernel, &offer, watcher, &mut device, now).ok()?;
        Some(Self { fake, session, device, receiver, drivers, now })
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.below(10);
        // The control side waits for a burst to end, which here nobody else would do.
        self.receiver.release();
        match step {
            0 | 1 => self.ask(input),
            2 => {
                self.now += Duration::from_millis(u64::from(input.byte()) * 16);
                let _ = self.session.on_deadline(&mut self.device, self.now);
            }
            3 => {
                let token = FIRST_TOKEN + u16::from(input.below(4));
                let _ = self.session.kicked(&mut self.device, token);
            }
            4 | 5 => {
                let driver = usize::from(input.byte()) % self.drivers.len();
                self.drivers[driver].act(&self.fake.ram, input);
            }
            6 => self.receiver.receive(BURST, &QueueStats::default()),
            _ => self.change(input),
        }
    }

    /// A request of the kernel. What is answered is about the ring that was asked for.
    fn ask(&mut self, input: &mut Input<'_>) {
        let kind = match input.below(8) {
            0 => Kind::RingState(input.byte().into()),
            1..=4 => Kind::Status(input.pick(&[0, 1, 3, 11, 15, 15, 0x4f, 0x80])),
            5 => Kind::MemoryChanged(input.number(), input.number()),
            6 => Kind::MemoryChanged(GUEST, GUEST + BYTES - 1),
            _ => Kind::Unknown(input.number()),
        };
        let (answer, error) =
            self.session.handle(&mut self.device, Request { id: 7, kind }, self.now);
        assert_eq!((answer.id, answer.done), (7, error.is_none()));
        if let Kind::RingState(index) = kind {
            assert_eq!(answer.ring.map(|(ring, _)| ring), Some(index));
        }
    }

    /// The driver, or the kernel, changes its mind.
    fn change(&self, input: &mut Input<'_>) {
        let mut state = self.fake.state.lock().unwrap();
        let ring = usize::from(input.byte()) % state.rings.len();
        match input.below(12) {
            0 => state.accepted = !state.accepted,
            1 => state.given_up = input.byte() < 8,
            2 => state.features = input.number(),
            3 => state.rings[ring].ready = input.yes(),
            4 => state.rings[ring].size = input.number::<u16>().into(),
            5 => state.rings[ring].base = input.number(),
            6 => state.rings[ring].desc = input.number(),
            7 => state.rings[ring].device = GUEST + u64::from(input.number::<u16>()),
            8 => self.fake.ram.truncate(u64::from(input.byte()) << 8),
            9 => {
                state.extents.clear();
            }
            _ => {
                let start = input.likely(&[GUEST, GUEST + BYTES, 0, u64::MAX - 0xfff]);
                let len = input.likely(&[BYTES, 0x1000, 1]);
                let offset = input.likely(&[0, 0x1000]);
                let last = start.saturating_add(len).saturating_sub(1);
                state.extents.push(Extent { start, last, offset, writable: input.byte() < 0xe0 });
                if input.yes() {
                    state.extents.sort_by_key(|extent| extent.start);
                }
            }
        }
    }
}
