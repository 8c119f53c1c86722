//! A whole front-end with its guest. Messages of any kind and order come, mostly well formed and
//! with numbers that mean something, while the guest writes its memory and frames pass.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use arrayvec::ArrayVec;
use ethdev::queue::{RxDriver, TxDriver};
use ethdev::stats::QueueStats;
use packet::{BURST, Frame, MAX_FRAME_LEN};
use vhost::backend::Event;
use vhost::connection::Message;
use vhost::protocol::{FrontendRequest, Header, MAX_FDS};
use vhost::session::{Answer, Device, Reply, Session};
use vhost_net::{NetDevice, NetReceiver, NetTransmitter};
use virtio::Features;

use crate::guest::{BYTES, Driver, GUEST, Ram, USER, file};
use crate::input::Input;

/// Entries of the rings that are prepared.
const SIZE: u16 = 64;

/// Queue pairs; there is a control queue behind them.
const PAIRS: u8 = 2;

/// Steps of one input: more would find nothing else.
const STEPS: usize = 200;

/// Bytes between two rings.
const RING: u64 = 0x1000;

/// Plays one input, to a port that has the options that few have, or to one without.
pub(super) fn run(data: &[u8], options: bool) {
    let mut input = Input::new(data);
    let mut world = World::new(options);
    world.prepare(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.end();
}

/// Everything about one connection.
struct World {
    device: Device,
    /// Whether the port has options: the device is behind an IOMMU, notifications may be messages.
    options: bool,
    session: Session,
    receivers: Vec<NetReceiver>,
    transmitters: Vec<NetTransmitter>,
    stats: QueueStats,
    events: Arc<Mutex<Vec<Event>>>,
    ram: Ram,
    drivers: Vec<Driver>,
    /// A region for records of chains in flight that the session has made.
    region: Option<OwnedFd>,
}

impl World {
    fn new(options: bool) -> Self {
        let mut net = NetDevice::new("fuzz", PAIRS.into()).unwrap();
        if options {
            net = net.with_iommu().unwrap().with_inband_notifications();
        }
        let (receivers, transmitters) = (net.receivers(), net.transmitters());
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let mut device = Device {
            backend: Box::new(net),
            events: Box::new(move |event| sink.lock().unwrap().push(event)),
        };
        Self {
            session: Session::open(&mut device),
            device,
            options,
            receivers,
            transmitters,
            stats: QueueStats::default(),
            events,
            ram: Ram::new(),
            drivers: Vec::new(),
            region: None,
        }
    }

    /// The first messages of an ordinary front-end, or none of them.
    fn prepare(&mut self, input: &mut Input<'_>) {
        use FrontendRequest as R;
        let kind = input.below(4);
        let packed = kind == 3;
        let rings = 2 * u64::from(PAIRS) + 1;
        let driver = |index| Driver::new(index * RING, SIZE, packed);
        self.drivers = (0..rings).map(driver).collect();
        if kind == 0 {
            return;
        }
        let mut features = Features::from_bits_truncate(self.device.backend.features());
        features.set(Features::RING_PACKED, packed);
        let less = [Features::EVENT_IDX, Features::IN_ORDER, Features::MRG_RXBUF, Features::MQ];
        let choice = input.byte();
        for (bit, feature) in (0_u8..).zip(less) {
            features.set(feature, choice >> bit & 1 == 0);
        }
        features.remove(Features::VHOST_LOG_ALL);
        let protocol = self.protocol_features();
        self.send(R::SetProtocolFeatures, &words(&[(protocol, 8)]), &[], false);
        self.send(R::SetFeatures, &words(&[(features.bits(), 8)]), &[], false);
        if self.options {
            self.send(R::SetBackendReqFd, &[], &[2], false);
        }
        let region = [(0, 8), (GUEST, 8), (BYTES, 8), (USER, 8), (0, 8)];
        self.send(R::AddMemReg, &words(&region), &[1], false);
        if self.options {
            // Buffers are where the guest has them, rings where the front-end has them.
            for iova in [GUEST, USER] {
                let all = [(iova, 8), (BYTES, 8), (USER, 8), (3, 1), (2, 1), (0, 6)];
                self.send(R::IotlbMsg, &words(&all), &[], false);
            }
        }
        for index in 0..rings {
            let [desc, driver, device] = self.drivers[usize::try_from(index).unwrap()].user();
            let base = if packed { 0x8000_8000 } else { 0 };
            self.send(R::SetVringNum, &words(&[(index, 4), (SIZE.into(), 4)]), &[], false);
            self.send(R::SetVringBase, &words(&[(index, 4), (base, 4)]), &[], false);
            let addresses =
                [(index, 4), (0, 4), (desc, 8), (device, 8), (driver, 8), (GUEST + 0x7000, 8)];
            self.send(R::SetVringAddr, &words(&addresses), &[], false);
            self.send(R::SetVringCall, &words(&[(index, 8)]), &[0], false);
            self.send(R::SetVringKick, &words(&[(index, 8)]), &[0], false);
            self.send(R::SetVringEnable, &words(&[(index, 4), (1, 4)]), &[], false);
        }
    }

    /// What the back-end offers.
    fn protocol_features(&mut self) -> u64 {
        let request = FrontendRequest::GetProtocolFeatures.number();
        let header = Header { request, flags: 1, size: 0 };
        let message = Message { header, payload: &[], fds: ArrayVec::new() };
        match self.session.handle(&mut self.device, message) {
            Ok(Answer { reply: Some(Reply::U64(offered)), .. }) => offered,
            other => panic!("no protocol features: {other:?}"),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.below(12);
        if step != 4 {
            // The control side waits for a burst to end, which here nobody else would do.
            self.receivers.iter_mut().for_each(RxDriver::release);
        }
        match step {
            0..=3 => self.message(input),
            4..=6 => {
                let driver = usize::from(input.byte()) % self.drivers.len();
                self.drivers[driver].act(&self.ram, input);
            }
            7 | 8 => self.receive(input),
            9 => self.transmit(input),
            10 => self.device.backend.kicked(0),
            _ => match input.below(16) {
                0 => self.ram.truncate(u64::from(input.byte()) << 8),
                1 => self.any_message(input),
                _ => self.sleep(input),
            },
        }
    }

    /// A well-formed message with small numbers.
    fn message(&mut self, input: &mut Input<'_>) {
        let request = input.pick(FrontendRequest::ALL);
        let acknowledge = input.yes();
        let (payload, files) = self.payload(request, input);
        self.send(request, &payload, &files, acknowledge);
    }

    /// Bytes that may be a message.
    fn any_message(&mut self, input: &mut Input<'_>) {
        let (request, flags) = (input.byte().into(), input.number());
        let files = input.bytes();
        self.deliver(request, flags, input.bytes(), &files[..files.len().min(MAX_FDS)]);
    }

    fn send(&mut self, request: FrontendRequest, payload: &[u8], files: &[u8], acknowledge: bool) {
        let flags = if acknowledge { 9 } else { 1 };
        self.deliver(request.number(), flags, payload, files);
    }

    /// Hands a message to the session. A refusal would end a real connection; here the next
    /// message comes nevertheless.
    fn deliver(&mut self, request: u32, flags: u32, payload: &[u8], files: &[u8]) {
        let size = u32::try_from(payload.len()).unwrap();
        let fds = files.iter().map(|kind| self.open(*kind).into()).collect();
        let message = Message { header: Header { request, flags, size }, payload, fds };
        if let Ok(answer) = self.session.handle(&mut self.device, message)
            && answer.attached.is_some()
        {
            self.region = answer.attached;
        }
    }

    /// A file of some kind.
    fn open(&self, kind: u8) -> OwnedFd {
        match kind % 6 {
            0 => rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap(),
            1 => self.ram.fd().try_clone_to_owned().unwrap(),
            2 => std::os::unix::net::UnixStream::pair().unwrap().0.into(),
            3 => file(u64::from(kind)),
            4 => match &self.region {
                Some(region) => region.as_fd().try_clone_to_owned().unwrap(),
                None => file(0x3000),
            },
            _ => std::fs::File::open("/dev/null").unwrap().into(),
        }
    }

    /// The payload and files of a message.
    fn payload(&self, request: FrontendRequest, input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>) {
        use FrontendRequest as R;
        let ring = u64::from(input.below(2 * PAIRS + 3));
        match request {
            R::SetFeatures => {
                let all = self.device.backend.features();
                let likely = [all, all & !(1 << 34), all & !(1 << 26), all & !(1 << 34 | 1 << 26)];
                (words(&[(input.likely(&likely), 8)]), vec![])
            }
            R::SetProtocolFeatures => {
                let all = self.device.backend.protocol_features().bits();
                (words(&[(input.likely(&[all, all & 0x1_a01b]), 8)]), vec![])
            }
            R::SendRarp | R::NetSetMtu | R::SetStatus => {
                (words(&[(input.likely(&[0, 1, 3, 7, 15, 68, 1500, 0xffff]), 8)]), vec![])
            }
            R::SetMemTable => {
                let count = usize::from(input.below(4));
                let regions = (0..count).flat_map(|_| region(input)).collect::<Vec<_>>();
                ([words(&[(count as u64, 8)]), words(&regions)].concat(), vec![1; count])
            }
            R::AddMemReg => (words(&[vec![(0, 8)], region(input)].concat()), vec![1]),
            R::RemMemReg => (words(&[vec![(0, 8)], region(input)].concat()), vec![]),
            R::SetVringNum => (words(&[(ring, 4), (input.likely(&[64, 128, 100]), 4)]), vec![]),
            R::SetVringBase => {
                let base = input.likely(&[0, 0x8000_8000, 0x8001_8001, 0xffff, 63]);
                (words(&[(ring, 4), (base, 4)]), vec![])
            }
            R::GetVringBase | R::SetVringEnable => {
                (words(&[(ring, 4), (u64::from(input.below(3)), 4)]), vec![])
            }
            R::SetVringAddr => (self.addresses(ring, input), vec![]),
            R::IotlbMsg => (translation(input), vec![]),
            R::VringKick => (words(&[(ring, 4), (0, 4)]), vec![]),
            R::SetBackendReqFd if self.options => (vec![], vec![2]),
            R::SetVringKick | R::SetVringCall | R::SetVringErr => match input.byte() {
                0..=0x1f => (words(&[(ring | 0x100, 8)]), vec![]),
                file @ 0x20..=0x3f => (words(&[(ring, 8)]), vec![file]),
                _ => (words(&[(ring, 8)]), vec![0]),
            },
            R::SetLogBase => {
                let size = input.likely(&[0x1_0000, 0x8001, 8]);
                (words(&[(size, 8), (input.likely(&[0]), 8)]), vec![input.pick(&[1, 3, 9, 4])])
            }
            R::SetLogFd | R::SetBackendReqFd => (vec![], vec![input.below(6)]),
            R::GetConfig | R::SetConfig => {
                let len = input.byte();
                let head = [(input.likely(&[0, 4]), 4), (len.into(), 4), (input.likely(&[0]), 4)];
                ([words(&head), vec![7; len.into()]].concat(), vec![])
            }
            R::GetInflightFd | R::SetInflightFd => {
                let sizes = input.likely(&[0x3000, 0x1_0000, 0x1400, 0x2800]);
                let place = [(sizes, 8), (input.likely(&[0]), 8)];
                let count = [(input.likely(&[5, 4, 2]), 2), (input.likely(&[64, 128]), 2)];
                let files =
                    if request == R::SetInflightFd { vec![input.pick(&[4, 1])] } else { vec![] };
                (words(&[place, count].concat()), files)
            }
            _ => (vec![], vec![]),
        }
    }

    /// The payload of SET_VRING_ADDR.
    fn addresses(&self, ring: u64, input: &mut Input<'_>) -> Vec<u8> {
        let driver = &self.drivers[usize::try_from(ring).unwrap() % self.drivers.len()];
        let [desc, avail, used] = driver.user();
        let mut shift = |address: u64| {
            if input.byte() < 8 { address.wrapping_add(input.likely(&[2])) } else { address }
        };
        let places = [desc, used, avail].map(|address| (shift(address), 8));
        let flags = u64::from(input.below(2));
        let log = input.likely(&[GUEST, GUEST + BYTES - 8]);
        [words(&[(ring, 4), (flags, 4)]), words(&places), words(&[(log, 8)])].concat()
    }

    /// A burst of frames from the guest, held while it goes on, or not.
    fn receive(&mut self, input: &mut Input<'_>) {
        let pair = usize::from(input.below(PAIRS));
        self.receivers[pair].receive(BURST, &self.stats);
        for frame in self.receivers[pair].batch().frames() {
            assert!((14..=MAX_FRAME_LEN).contains(&frame.len()));
            assert_eq!(frame.to_vec().len(), frame.len());
        }
    }

    /// A burst of frames for the guest.
    fn transmit(&mut self, input: &mut Input<'_>) {
        let bytes = vec![0xff; 14 + 64 * usize::from(input.byte())];
        let frames = vec![Frame::from_bytes(&bytes); usize::from(input.below(4)) + 1];
        let sent =
            self.transmitters[usize::from(input.below(PAIRS))].transmit(&frames, &self.stats);
        assert!(sent.consumed <= frames.len());
    }

    /// What a worker does that has nothing to do.
    fn sleep(&mut self, input: &mut Input<'_>) {
        let pair = usize::from(input.below(PAIRS));
        let _ = self.receivers[pair].arm();
        self.receivers[pair].disarm();
    }

    /// The front-end goes: nothing of it may be left.
    fn end(mut self) {
        for receiver in &mut self.receivers {
            receiver.release();
        }
        self.session.close(&mut self.device);
        for receiver in &mut self.receivers {
            receiver.receive(BURST, &self.stats);
            assert!(receiver.batch().frames().is_empty(), "the ring is gone");
        }
        let frame = [Frame::from_bytes(&[0xff; 60])];
        for transmitter in &mut self.transmitters {
            assert!(!transmitter.is_ready());
            assert_eq!(transmitter.transmit(&frame, &self.stats).packets(), 0);
        }
        let events = self.events.lock().unwrap();
        assert_eq!((events.first(), events.last()), (Some(&Event::Connected), Some(&Event::Gone)));
        let count = |wanted| events.iter().filter(|event| **event == wanted).count();
        assert_eq!(count(Event::Ready), count(Event::Suspended), "{events:?}");
    }
}

/// Numbers in memory, each of some bytes.
fn words(values: &[(u64, usize)]) -> Vec<u8> {
    values.iter().flat_map(|(value, len)| value.to_le_bytes()[..*len].to_vec()).collect()
}

/// What lies at some I/O virtual addresses, or that nothing does any more.
fn translation(input: &mut Input<'_>) -> Vec<u8> {
    let page = 0x1000 * u64::from(input.below(16));
    let iova = input.likely(&[GUEST, GUEST + page, USER, USER + page]);
    let len = input.likely(&[BYTES, 0x1000, 0x2000, 0]);
    let user = input.likely(&[USER, USER + page, USER + 0x1000]);
    let (access, kind) = (input.pick(&[3, 3, 1, 2, 0]), input.pick(&[2, 2, 3, 3, 1, 4]));
    words(&[(iova, 8), (len, 8), (user, 8), (access, 1), (kind, 1), (0, 6)])
}

/// Guest address, length, address of the front-end, offset in the file.
fn region(input: &mut Input<'_>) -> Vec<(u64, usize)> {
    let slot = u64::from(input.below(4)) * BYTES;
    let bytes = input.likely(&[BYTES, BYTES, BYTES, BYTES / 2, BYTES + 1]);
    let user = if input.byte() < 8 { input.number() } else { USER + slot };
    let offset = input.likely(&[0, 0, 0, 0, 0x1000]);
    vec![(GUEST + slot, 8), (bytes, 8), (user, 8), (offset, 8)]
}
