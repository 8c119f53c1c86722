//! Ports without a device, for tests: what comes in on them is what a test has come in, by
//! `Switch::receive` of the crate `switch`; what is sent to them can be read in a file.
//!
//! They are what Open vSwitch calls so, too: they take frames though their link is down.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use eal::EventFd;
use eal::sandbox::{Needs, Reach};
use ethdev::{
    DeviceSpec, DriverInfo, DropReason, Error, Link, OpenPort, OptionInfo, PortControl, PortEvent,
    PortEvents, PortInfo, QueueStats, RxDriver, RxQueue, Sent, TxDriver, TxQueue, mtu,
};
use packet::{Capabilities, Frame, FrameBatch, MacAddr};

use crate::pcap::{Sink, open_sink};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "dummy",
    syntax: "dummy:[mac=MAC][,rx=FILE][,tx=FILE][,up=off]",
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
    ],
};

/// Options of a port, parsed.
struct Config {
    mac: Option<MacAddr>,
    rx: Option<String>,
    tx: Option<String>,
    is_up: bool,
}

impl Config {
    fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        spec.allow_option_as_target(&["mac", "rx", "tx", "up"])?;
        let config = Self {
            mac: spec.take_station("mac")?,
            rx: spec.take("rx"),
            tx: spec.take("tx"),
            is_up: spec.take_switch("up", true)?,
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
    if spec.allow_option_as_target(&["mac", "rx", "tx", "up"]).is_err() {
        return Needs::new();
    }
    let files = [spec.take("rx"), spec.take("tx")].into_iter().flatten();
    files.fold(Needs::new(), |needs, path| needs.folder_of(path, Reach::FILES))
}

/// All ports of this kind in a process, by name. Copies are of the same ones.
#[derive(Clone, Debug, Default)]
pub struct Dummies(Arc<Mutex<BTreeMap<String, Weak<Dummy>>>>, Arc<AtomicU16>);

impl Dummies {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Dummy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of the next one, as those of Open vSwitch's dummies have it: by their order.
    fn next_mac(&self) -> MacAddr {
        let [high, low] = self.1.fetch_add(1, Relaxed).to_be_bytes();
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
}

/// What a port's control side, its queues and tests have in common.
#[derive(Default)]
pub struct Dummy {
    state: Mutex<State>,
    events: PortEvents,
}

#[derive(Default)]
struct State {
    is_open: bool,
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
    let Config { mac, rx, tx, is_up } = Config::parse(spec)?;
    let sink = |path: &String| Ok(Arc::new(Mutex::new(open_sink(path, usize::MAX)?)));
    let received = rx.as_ref().map(sink).transpose()?;
    let sent = match tx.as_ref().filter(|tx| Some(*tx) != rx.as_ref()) {
        Some(tx) => Some(sink(tx)?),
        None => received.clone().filter(|_| tx.is_some()),
    };
    let link = Link { up: is_up, ..Link::default() };
    let state = Mutex::new(State { is_open: true, link, sinks: [received, sent] });
    let dummy = Arc::new(Dummy { state, events: PortEvents::new() });
    let idle = EventFd::new().map_err(|error| Error::Device {
        what: format!("dummy port '{name}'"),
        reason: error.to_string(),
    })?;
    let rx = DummyRx { batch: FrameBatch::with_segments(0), idle };
    let tx = DummyTx(Arc::clone(&dummy));
    dummies.all().insert(name.to_owned(), Arc::downgrade(&dummy));
    let next = dummies.next_mac();
    let mac = mac.unwrap_or(next);
    let control = Control { dummy, mac, mtu: mtu::DEFAULT };
    let rx = vec![RxQueue::new(Box::new(rx), Arc::default())];
    let tx = vec![TxQueue::new(Box::new(tx), Arc::default())];
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

struct Control {
    dummy: Arc<Dummy>,
    mac: MacAddr,
    mtu: u16,
}

impl PortControl for Control {
    fn info(&self) -> PortInfo {
        PortInfo { driver: INFO.name, rx_queues: 1, tx_queues: 1, max_mtu: mtu::MAX }
    }

    fn link(&self) -> Link {
        self.dummy.state().link
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.mac = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        mtu::check(mtu, &mtu::VALID, || "dummy port".to_owned())?;
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
    }
}

/// Never receives anything by itself, and never wakes anybody.
struct DummyRx {
    batch: FrameBatch,
    idle: EventFd,
}

impl RxDriver for DummyRx {
    fn receive(&mut self, _max: usize, _stats: &QueueStats) {}

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {}

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.idle.as_fd())
    }

    fn arm(&mut self) -> bool {
        true
    }
}

/// Takes everything, and writes it down where that is wanted.
struct DummyTx(Arc<Dummy>);

impl TxDriver for DummyTx {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        let (is_open, sink) = {
            let state = self.0.state();
            (state.is_open, state.sinks[1].clone())
        };
        if !is_open {
            return Sent::NONE;
        }
        if record(sink.as_ref(), frames) {
            return Sent::first(frames.len());
        }
        let mut sent = Sent::NONE;
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
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
    fn what_comes_in_and_goes_out_is_in_one_file_or_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let drivers = Drivers::new();
        for (name, rx, tx) in [("p1", "both", "both"), ("p2", "in", "out")] {
            let device = format!("dummy:rx={},tx={}", path(rx), path(tx));
            let mut port = open(name, &device, &drivers).unwrap();
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
