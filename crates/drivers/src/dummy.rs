//! Ports without a device, for tests: what comes in on them is what a test has come in, by
//! `Switch::receive` of the crate `switch`; what is sent to them can be read in a file.
//!
//! They are what Open vSwitch calls so, too: they take frames though their link is down, and two of
//! them can be joined by a socket, in one process or in two.
//!
//! - `neighbour`: answers to what asks for an address of its own
//! - `place`: the socket's address
//! - `wire`: what goes over it

mod neighbour;
mod place;
mod wire;

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use eal::sandbox::{Needs, Reach};
use eal::{Epoll, EventFd};
use ethdev::{
    DeviceSpec, DriverInfo, DropReason, Error, Link, OpenPort, OptionInfo, PortControl, PortEvent,
    PortEvents, PortInfo, QueueStats, RxDriver, RxQueue, Sent, TxDriver, TxQueue, mtu,
};
use litemap::LiteMap;
use packet::slots::SlotBatch;
use packet::{BURST, Capabilities, Frame, FrameBatch, MAX_FRAME_LEN, MacAddr};

use self::neighbour::Neighbour;
use self::place::Place;
use self::wire::Wire;
use crate::pcap::{Sink, open_sink};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "dummy",
    syntax: "dummy:[mac=MAC][,rx=FILE][,tx=FILE][,up=off][,queues=1]\
             [,stream=ADDRESS|,pstream=ADDRESS]",
    summary: "no device, for tests: receives what a test has come in, writes what is sent to a file",
    options: &[
        OptionInfo { name: "mac", value: "MAC", help: "its address (default: one of its own)" },
        OptionInfo {
            name: "rx",
            value: "FILE",
            help: "pcap file to write what comes in to, made anew; may be the same as tx",
        },
        OptionInfo {
            name: "tx",
            value: "FILE",
            help: "pcap file to write what is sent to, made anew (default: it is swallowed)",
        },
        OptionInfo {
            name: "up",
            value: "on|off",
            help: "whether its link is up at first (default on)",
        },
        OptionInfo {
            name: "queues",
            value: "N",
            help: "receive queues, 1 to 64, of which the wire is the first (default 1)",
        },
        OptionInfo {
            name: "stream",
            value: "ADDRESS",
            help: "the other end listens there: unix:PATH or tcp:ADDRESS:PORT",
        },
        OptionInfo {
            name: "pstream",
            value: "ADDRESS",
            help: "listen for other ends: punix:PATH or ptcp:PORT[:ADDRESS]",
        },
    ],
};

/// Their names.
const OPTIONS: [&str; 7] = ["mac", "rx", "tx", "up", "queues", "stream", "pstream"];

/// Options of a port, parsed.
struct Config {
    mac: Option<MacAddr>,
    rx: Option<String>,
    tx: Option<String>,
    is_up: bool,
    /// Receive queues.
    queues: usize,
    /// Where the other end is, if it has one.
    place: Option<Place>,
}

impl Config {
    fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        spec.allow_option_as_target(&OPTIONS)?;
        let place = Place::of(spec.take("stream").as_deref(), spec.take("pstream").as_deref());
        let config = Self {
            mac: spec.take_station("mac")?,
            rx: spec.take("rx"),
            tx: spec.take("tx"),
            is_up: spec.take_switch("up", true)?,
            queues: spec.take_number("queues", 1, &(1..=64))?,
            place: place.map_err(|reason| spec.error(reason))?,
        };
        if !spec.target().is_empty() {
            let takes = INFO.option_names();
            return Err(
                spec.error(format!("'{}' is no option; dummy takes {takes}", spec.target()))
            );
        }
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Config::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(spec: &mut DeviceSpec) -> Needs {
    if spec.allow_option_as_target(&OPTIONS).is_err() {
        return Needs::new();
    }
    let place = Place::of(spec.take("stream").as_deref(), spec.take("pstream").as_deref());
    let needs = place.ok().flatten().map_or_else(Needs::new, |place| place.needs());
    let files = [spec.take("rx"), spec.take("tx")].into_iter().flatten();
    files.fold(needs, |needs, path| needs.folder_of(path, Reach::FILES))
}

/// What has come by the wires of dummy ports, and what those answer that have addresses of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The ports that have either.
    pub ports: Vec<String>,
    /// Whether anything has come that no worker has taken yet.
    pub waits: bool,
    /// Frames that workers have taken.
    pub taken: u64,
}

/// All ports of this kind in a process, by name. Copies are of the same ones.
#[derive(Clone, Debug, Default)]
pub struct Dummies {
    all: Arc<Mutex<LiteMap<String, Weak<Dummy>>>>,
    count: Arc<AtomicU16>,
    /// For which addresses they answer, whatever else becomes of their devices.
    addresses: Arc<Mutex<LiteMap<String, Vec<Ipv4Addr>>>>,
}

impl Dummies {
    fn all(&self) -> MutexGuard<'_, LiteMap<String, Weak<Dummy>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, LiteMap<String, Vec<Ipv4Addr>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has port `name` answer who asks by ARP for this address, also where it is opened anew with other options.
    pub fn add_address(&self, name: &str, address: Ipv4Addr) {
        let mut addresses = self.addresses();
        let own = addresses.entry(name.to_owned()).or_default();
        if !own.contains(&address) {
            own.push(address);
        }
        if let Some(dummy) = self.get(name)
            && let Some(neighbour) = dummy.neighbour().as_mut()
        {
            neighbour.set(own.clone());
        }
    }

    /// The address of the next one, as those of Open vSwitch's dummies have it: by their order.
    fn next_mac(&self) -> MacAddr {
        let [high, low] = self.count.fetch_add(1, Relaxed).to_be_bytes();
        MacAddr([0xaa, 0x55, 0xaa, 0x55, high, low])
    }

    /// Port `name`, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Dummy>> {
        self.all().get(name)?.upgrade()
    }

    /// The names of all of them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut all = self.all();
        all.retain(|_, dummy| dummy.strong_count() > 0);
        all.keys().cloned().collect()
    }

    fn there(&self) -> Vec<Arc<Dummy>> {
        self.all().values().filter_map(Weak::upgrade).collect()
    }

    /// Has those connect whose other end was not there so far.
    pub fn connect(&self) {
        for dummy in self.there() {
            if let Some(wire) = dummy.wire().as_mut() {
                wire.connect_again();
            }
        }
    }

    /// Makes those of their files anew that tests have taken away.
    pub fn renew_files(&self) {
        for dummy in self.there() {
            for sink in dummy.state().sinks.clone().into_iter().flatten() {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.renew(usize::MAX);
                sink.flush();
            }
        }
    }

    /// What has come by their wires.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        let mut all = Arrivals::default();
        for (name, dummy) in
            self.all().iter().filter_map(|(name, dummy)| Some((name, dummy.upgrade()?)))
        {
            let mut has_either = false;
            if let Some(wire) = dummy.wire().as_ref() {
                has_either = true;
                all.waits |= wire.has_news();
                all.taken = all.taken.wrapping_add(wire.taken);
            }
            if let Some(neighbour) = dummy.neighbour().as_ref().filter(|own| own.is_there()) {
                has_either = true;
                all.waits |= neighbour.has_answer();
                all.taken = all.taken.wrapping_add(neighbour.taken);
            }
            if has_either {
                all.ports.push(name.clone());
            }
        }
        all
    }

    /// How often they have answered for addresses of their own.
    #[must_use]
    pub fn answered(&self) -> u64 {
        let given = |dummy: &Arc<Dummy>| dummy.neighbour().as_ref().map_or(0, |own| own.given);
        self.there().iter().map(given).fold(0, u64::wrapping_add)
    }
}

/// What a port's control side, its queues and tests have in common.
#[derive(Default)]
pub struct Dummy {
    state: Mutex<State>,
    /// Its socket, if it has one and is open.
    wire: Mutex<Option<Wire>>,
    /// Its addresses, while it is open.
    neighbour: Mutex<Option<Neighbour>>,
    events: PortEvents,
}

#[derive(Default)]
struct State {
    is_open: bool,
    mac: MacAddr,
    link: Link,
    /// Where frames are written that come in, and that go out.
    sinks: [Option<Arc<Mutex<Sink>>>; 2],
}

impl fmt::Debug for Dummy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dummy").field("link", &self.state().link).finish_non_exhaustive()
    }
}

impl Dummy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wire(&self) -> MutexGuard<'_, Option<Wire>> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn neighbour(&self) -> MutexGuard<'_, Option<Neighbour>> {
        self.neighbour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state().link.up
    }

    /// Takes its link up or down.
    pub fn set_up(&self, up: bool) {
        let link = &mut self.state().link;
        if link.up == up {
            return;
        }
        *link = Link { up, changes: link.changes.saturating_add(1), ..*link };
        // Not with the lock: whoever listens may look at once.
        self.events.announce(PortEvent::LinkChanged);
    }

    /// Writes frames to the file of what comes in, if there is one.
    pub fn note_received(&self, frames: &[Vec<u8>]) {
        let sink = self.state().sinks[0].clone();
        let frames: Vec<Frame<'_>> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
        record(sink.as_ref(), &frames);
    }
}

/// Writes frames to a file, at once: tests read it while it is open. Returns whether it could.
fn record(sink: Option<&Arc<Mutex<Sink>>>, frames: &[Frame<'_>]) -> bool {
    let Some(sink) = sink else { return true };
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
    let written = frames.iter().all(|frame| sink.write(time, frame));
    sink.flush();
    written
}

/// Opens a dummy port.
///
/// # Errors
/// Options that make no sense, or a file that cannot be made.
pub fn open(name: &str, spec: DeviceSpec, dummies: &Dummies) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let Config { mac, rx, tx, is_up, queues, place } = Config::parse(spec)?;
    let failed = |reason| Error::Device { what: format!("dummy port '{name}'"), reason };
    let sink = |path: &String| {
        let mut sink = open_sink(path, usize::MAX)?;
        // Who reads it before there is a frame finds a file of none.
        sink.flush();
        Ok(Arc::new(Mutex::new(sink)))
    };
    let received = rx.as_ref().map(sink).transpose()?;
    let sent = match tx.as_ref().filter(|tx| Some(*tx) != rx.as_ref()) {
        Some(tx) => Some(sink(tx)?),
        None => received.clone().filter(|_| tx.is_some()),
    };
    let link = Link { up: is_up, ..Link::default() };
    let wire = place.as_ref().map(Wire::open).transpose().map_err(failed)?;
    let event = || EventFd::new().map_err(|error| failed(error.to_string()));
    let ready = event()?;
    let first = match &wire {
        Some(wire) => wire.watch(&ready).map(Idle::Wire),
        None => ready.try_clone().map(Idle::Answers),
    };
    let first = first.map_err(|error| failed(error.to_string()));
    let others = (1..queues).map(|_| event().map(Idle::Never));
    let idle: Vec<Idle> = std::iter::once(first).chain(others).collect::<Result<_, Error>>()?;
    let next = dummies.next_mac();
    let mac = mac.unwrap_or(next);
    let own = dummies.addresses().get(name).cloned().unwrap_or_default();
    let dummy = Arc::new(Dummy {
        state: Mutex::new(State { is_open: true, mac, link, sinks: [received, sent] }),
        wire: Mutex::new(wire),
        neighbour: Mutex::new(Some(Neighbour::new(ready, own))),
        events: PortEvents::new(),
    });
    let rx = idle.into_iter().map(|idle| {
        let (dummy, slots) = (Arc::clone(&dummy), SlotBatch::new(idle.longest()));
        RxQueue::new(Box::new(DummyRx { dummy, slots, idle }), Arc::default())
    });
    let rx = rx.collect();
    let tx = DummyTx(Arc::clone(&dummy));
    dummies.all().insert(name.to_owned(), Arc::downgrade(&dummy));
    if matches!(place, Some(Place::Listen(_))) {
        dummies.connect();
    }
    let control = Control { dummy, mtu: mtu::DEFAULT, queues };
    let tx = vec![TxQueue::new(Box::new(tx), Arc::default())];
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

/// The MTUs that a dummy port takes, as Open vSwitch's do. Frames are no longer than elsewhere.
const MTUS: RangeInclusive<u16> = mtu::MIN..=u16::MAX;

struct Control {
    dummy: Arc<Dummy>,
    mtu: u16,
    queues: usize,
}

impl PortControl for Control {
    fn info(&self) -> PortInfo {
        let (rx_queues, tx_queues) = (self.queues, 1);
        PortInfo { driver: INFO.name, rx_queues, tx_queues, max_mtu: *MTUS.end() }
    }

    fn link(&self) -> Link {
        self.dummy.state().link
    }

    fn mac(&self) -> MacAddr {
        self.dummy.state().mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.dummy.state().mac = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        mtu::check(mtu, &MTUS, || "dummy port".to_owned())?;
        self.mtu = mtu;
        Ok(())
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.dummy.events)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.dummy.state().is_open = false;
        *self.dummy.wire() = None;
        *self.dummy.neighbour() = None;
    }
}

/// What wakes a worker.
enum Idle {
    /// Nothing: no frame comes by itself.
    Never(EventFd),
    /// Answers for addresses of its own.
    Answers(EventFd),
    /// What comes by the wire, and those answers.
    Wire(Arc<Epoll>),
}

impl Idle {
    /// The longest frame that comes by itself.
    const fn longest(&self) -> usize {
        match self {
            Self::Never(_) => 0,
            Self::Answers(_) => neighbour::LEN,
            Self::Wire(_) => MAX_FRAME_LEN,
        }
    }
}

/// Receives what comes by the wire, if there is one, and what the port answers itself.
struct DummyRx {
    dummy: Arc<Dummy>,
    slots: SlotBatch,
    idle: Idle,
}

/// Copies a frame into a slot; gives its length, unless it is too long.
fn copy(frame: &[u8], slot: &mut [u8]) -> Option<usize> {
    slot.get_mut(..frame.len())?.copy_from_slice(frame);
    Some(frame.len())
}

impl DummyRx {
    /// Takes answers; returns how many.
    fn take_answers(&mut self, max: usize) -> usize {
        let mut neighbour = self.dummy.neighbour();
        let Some(neighbour) = neighbour.as_mut() else { return 0 };
        let mut taken: usize = 0;
        while taken < max && neighbour.has_answer() {
            let Some(slot) = self.slots.next_slot() else { break };
            let copied = neighbour.take().and_then(|answer| copy(&answer, slot));
            copied.map(|len| self.slots.commit(len));
            taken = taken.saturating_add(1);
        }
        taken
    }

    /// Takes what has come by the wire.
    fn take_frames(&mut self, max: usize, stats: &QueueStats) {
        let mut wire = self.dummy.wire();
        let Some(wire) = wire.as_mut() else { return };
        for _ in 0..max {
            let Some(slot) = self.slots.next_slot() else { break };
            match wire.receive(|frame| copy(frame, slot)) {
                None => break,
                Some(Some(len)) if self.slots.commit(len) => {}
                Some(_) => stats.count_drops(DropReason::TooLong, 1),
            }
        }
    }
}

impl RxDriver for DummyRx {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.slots.clear();
        if matches!(self.idle, Idle::Never(_)) {
            return;
        }
        let max = max.min(BURST);
        let taken = self.take_answers(max);
        self.take_frames(max.saturating_sub(taken), stats);
        let sink = self.dummy.state().sinks[0].clone();
        record(sink.as_ref(), self.slots.batch().frames());
    }

    fn batch(&self) -> &FrameBatch {
        self.slots.batch()
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        self.slots.batch_mut()
    }

    fn release(&mut self) {
        self.slots.clear();
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.idle {
            Idle::Never(event) | Idle::Answers(event) => Some(event.as_fd()),
            Idle::Wire(ready) => Some(ready.as_fd()),
        }
    }

    fn arm(&mut self) -> bool {
        if matches!(self.idle, Idle::Never(_)) {
            return true;
        }
        let has_answer = self.dummy.neighbour().as_ref().is_some_and(Neighbour::has_answer);
        !has_answer && !self.dummy.wire().as_ref().is_some_and(Wire::has_frame)
    }
}

/// Takes everything, answers what asks for an address of the port, writes it down where that is wanted, and
/// sends it by the wire.
struct DummyTx(Arc<Dummy>);

impl TxDriver for DummyTx {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        let (is_open, mac, sink) = {
            let state = self.0.state();
            (state.is_open, state.mac, state.sinks[1].clone())
        };
        if !is_open {
            return Sent::NONE;
        }
        if let Some(neighbour) = self.0.neighbour().as_mut() {
            frames.iter().for_each(|frame| neighbour.hear(frame, mac));
        }
        let mut sent = Sent::NONE;
        if record(sink.as_ref(), frames) {
            let mut wire = self.0.wire();
            let Some(wire) = wire.as_mut() else { return Sent::first(frames.len()) };
            for frame in frames {
                match wire.send(frame) {
                    true => sent.add_sent(),
                    false => sent.add_dropped(stats, DropReason::RingFull),
                }
            }
            return sent;
        }
        frames.iter().for_each(|_| sent.add_dropped(stats, DropReason::DeviceError));
        sent
    }

    fn takes(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn is_ready(&self) -> bool {
        self.0.state().is_open
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Instant;

    use packet::builder::FrameBuilder;
    use packet::headers::ArpOperation;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::{Drivers, open};

    #[test]
    fn a_link_goes_up_and_down_and_frames_go_out_anyway() {
        let drivers = Drivers::new();
        let mut port = open("p1", "dummy:mac=02:00:00:00:00:07", &drivers).unwrap();
        let dummy = drivers.dummies().get("p1").unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        assert!(port.port.on_event(move |_| _ = count.fetch_add(1, Relaxed)));
        assert!(dummy.is_up());
        for up in [false, false, true, false] {
            dummy.set_up(up);
            assert_eq!(port.port.control().link().up, up);
        }
        assert!(port.tx[0].is_ready());
        assert_eq!((told.load(Relaxed), port.port.control().link().changes), (3, 3));
        assert_eq!(port.port.control().mac(), MacAddr([2, 0, 0, 0, 0, 7]));
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 1);
        assert_eq!(drivers.dummies().names(), ["p1"]);
        drop(dummy);
        let OpenPort { port, mut tx, rx } = port;
        drop(port);
        assert_eq!(tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 0);
        drop((tx, rx));
        assert!(drivers.dummies().names().is_empty());
    }

    #[test]
    fn a_file_that_was_taken_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sent");
        let drivers = Drivers::new();
        let mut port = open("p1", &format!("dummy:tx={}", path.display()), &drivers).unwrap();
        let len = || std::fs::metadata(&path).ok().map(|file| file.len());
        let header = len();
        let mut send = || port.tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]);
        assert_eq!(send(), 1);
        let full = len();
        assert!(full > header && header.is_some());
        // One that is there stays as it is.
        drivers.dummies().renew_files();
        assert_eq!(len(), full);
        std::fs::remove_file(&path).unwrap();
        drivers.dummies().renew_files();
        assert_eq!(len(), header);
        assert_eq!((send(), len()), (1, full));
        // Without its folder it cannot be made, and the port goes on.
        drop(folder);
        drivers.dummies().renew_files();
        assert_eq!((send(), len()), (1, None));
    }

    /// Waits until frames have come to a port, which are given; it is woken by each.
    fn receive(rx: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let begin = Instant::now();
        while frames.len() < count {
            frames.extend(rx.rx_burst(BURST).frames().iter().map(Frame::to_vec));
            if frames.len() < count && rx.arm() {
                let mut fds = [PollFd::from_borrowed_fd(rx.wait_fd().unwrap(), PollFlags::IN)];
                poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
            }
            assert!(begin.elapsed().as_secs() < 60, "{} of {count} frames have come", frames.len());
        }
        frames
    }

    #[test]
    fn two_are_joined_by_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let unix = format!("unix:{}", folder.path().join("wire").display());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (stream, pstream) in [
            (unix.clone(), format!("p{unix}")),
            (format!("tcp:{free}"), format!("ptcp:{}:127.0.0.1", free.port())),
        ] {
            let drivers = Drivers::new();
            // The one that listens comes later, and the other one is told.
            let mut p1 = open("p1", &format!("dummy:stream={stream}"), &drivers).unwrap();
            assert_eq!(p1.tx[0].tx_burst(&[Frame::from_bytes(&[9; 60])]), 1, "it goes nowhere");
            let mut p2 = open("p2", &format!("dummy:pstream={pstream}"), &drivers).unwrap();
            let frames: Vec<Vec<u8>> =
                (0..100_u8).map(|n| vec![n; 60 + usize::from(n) * 7]).collect();
            for burst in frames.chunks(BURST) {
                let burst: Vec<Frame<'_>> =
                    burst.iter().map(|frame| Frame::from_bytes(frame)).collect();
                assert_eq!(p1.tx[0].tx_burst(&burst), burst.len());
            }
            assert_eq!(receive(&mut p2.rx[0], 100), frames);
            let mut p3 = open("p3", &format!("dummy:stream={stream}"), &drivers).unwrap();
            // All that have connected get what the listener sends.
            p3.tx[0].tx_burst(&[Frame::from_bytes(&[1; 60])]);
            assert_eq!(receive(&mut p2.rx[0], 1), [vec![1; 60]]);
            p2.tx[0].tx_burst(&[Frame::from_bytes(&[2; 70])]);
            let arrivals = drivers.dummies().arrivals();
            assert_eq!((arrivals.ports.join(" ").as_str(), arrivals.taken), ("p1 p2 p3", 101));
            assert!(arrivals.waits);
            for rx in [&mut p1.rx[0], &mut p3.rx[0]] {
                assert_eq!(receive(rx, 1), [vec![2; 70]]);
            }
            let arrivals = drivers.dummies().arrivals();
            assert_eq!((arrivals.waits, arrivals.taken), (false, 103));
            // One that comes again is connected to again.
            drop(p2);
            let mut p2 = open("p2", &format!("dummy:pstream={pstream}"), &drivers).unwrap();
            for port in [&mut p1, &mut p3] {
                // It sees that the connection has ended, and makes another one.
                port.rx[0].rx_burst(BURST);
                drivers.dummies().connect();
                port.tx[0].tx_burst(&[Frame::from_bytes(&[3; 60])]);
            }
            assert_eq!(receive(&mut p2.rx[0], 2), [vec![3; 60], vec![3; 60]]);
        }
    }

    #[test]
    fn who_sends_no_frames_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire");
        let drivers = Drivers::new();
        let mut port =
            open("p", &format!("dummy:pstream=punix:{}", path.display()), &drivers).unwrap();
        let mut good = UnixStream::connect(&path).unwrap();
        let mut bad = UnixStream::connect(&path).unwrap();
        let frame = [&[0, 14][..], &[7; 14]].concat();
        // A frame, and one that is too short to be one.
        bad.write_all(&[&frame[..], &[0, 13], &[7; 13]].concat()).unwrap();
        assert_eq!(receive(&mut port.rx[0], 1), [vec![7; 14]]);
        // A frame in pieces.
        good.write_all(&frame[..1]).unwrap();
        port.rx[0].rx_burst(BURST);
        good.write_all(&frame[1..9]).unwrap();
        port.rx[0].rx_burst(BURST);
        good.write_all(&frame[9..]).unwrap();
        assert_eq!(receive(&mut port.rx[0], 1), [vec![7; 14]]);
        assert_eq!(bad.read(&mut [0; 9]).unwrap(), 0, "it is closed");
        // Who does not read does not stop others, nor the port.
        let burst: Vec<Frame<'_>> = (0..BURST).map(|_| Frame::from_bytes(&[1; 9000])).collect();
        let mut tries = 0;
        while port.tx[0].stats().dropped() == 0 {
            port.tx[0].tx_burst(&burst);
            tries += 1;
            assert!(tries < 10_000, "there is no end to what is kept");
        }
        drop(port);
        assert!(!path.exists());
        for wrong in ["stream=unix:/a,pstream=punix:/b", "stream=/a", "pstream=unix:/a"] {
            assert!(open("p", &format!("dummy:{wrong}"), &drivers).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_answers_who_asks_for_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let asker = MacAddr([2, 0, 0, 0, 0, 9]);
        let (own, other) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
        let question = FrameBuilder::new(asker, MacAddr::BROADCAST)
            .arp(ArpOperation::REQUEST, (asker, other), (MacAddr([0; 6]), own))
            .build()
            .unwrap();
        let wire = format!(",pstream=punix:{}", folder.path().join("wire").display());
        for wire in ["", &wire] {
            let drivers = Drivers::new();
            let mac = MacAddr([2, 0, 0, 0, 0, 7]);
            let mut port = open("p1", &format!("dummy:mac={mac}{wire}"), &drivers).unwrap();
            let mut ask = || port.tx[0].tx_burst(&[Frame::from_bytes(&question)]);
            assert_eq!(ask(), 1);
            assert_eq!(port.rx[0].rx_burst(BURST).frames().len(), 0, "it has none");
            let dummies = drivers.dummies();
            dummies.add_address("p1", own);
            assert_eq!((ask(), ask()), (1, 1));
            assert!(dummies.arrivals().waits && dummies.arrivals().ports == ["p1"]);
            let expected = FrameBuilder::new(mac, asker)
                .arp(ArpOperation::REPLY, (mac, own), (asker, other))
                .build()
                .unwrap();
            assert_eq!(receive(&mut port.rx[0], 2), [expected.clone(), expected]);
            assert_eq!((dummies.answered(), dummies.arrivals().taken), (2, 2));
            assert!(!dummies.arrivals().waits && port.rx[0].arm());
            // It keeps its address when it is opened with other options.
            drop(port);
            let mut port = open("p1", &format!("dummy:mac={mac},up=off{wire}"), &drivers).unwrap();
            assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&question)]), 1);
            assert_eq!(receive(&mut port.rx[0], 1).len(), 1);
        }
    }

    #[test]
    fn it_has_as_many_receive_queues_as_wanted() {
        let port = open("p1", "dummy:queues=3", &Drivers::new()).unwrap();
        assert_eq!((port.port.control().info().rx_queues, port.rx.len(), port.tx.len()), (3, 3, 1));
        assert!(open("p2", "dummy:queues=0", &Drivers::new()).is_err());
    }

    #[test]
    fn it_takes_the_mtus_that_open_vswitch_has_it_take() {
        let mut port = open("p1", "dummy:", &Drivers::new()).unwrap();
        let control = port.port.control_mut();
        assert!(control.set_mtu(u16::MAX).is_ok() && control.mtu() == u16::MAX);
        assert!(control.set_mtu(67).unwrap_err().to_string().contains("68 to 65535"));
    }

    #[test]
    fn what_comes_in_and_goes_out_is_in_one_file_or_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let drivers = Drivers::new();
        for (name, rx, tx) in [("p1", "both", "both"), ("p2", "in", "out")] {
            let device = format!("dummy:rx={},tx={}", path(rx), path(tx));
            let mut port = open(name, &device, &drivers).unwrap();
            assert_eq!(std::fs::metadata(path(tx)).unwrap().len(), 24, "a file without frames");
            drivers.dummies().get(name).unwrap().note_received(&[vec![1; 60]]);
            port.tx[0].tx_burst(&[Frame::from_bytes(&[2; 61])]);
        }
        let length = |name: &str| std::fs::metadata(path(name)).unwrap().len();
        // 24 bytes of header, and 16 for each frame (the file format of libpcap).
        assert_eq!(["both", "in", "out"].map(length), [24 + 16 + 60 + 16 + 61, 100, 101]);
        assert!(open("p3", "dummy:p3", &drivers).unwrap_err().to_string().contains("is no option"));
        assert!(open("p3", "dummy:tx=/nonexistent/a", &drivers).is_err());
    }
}
