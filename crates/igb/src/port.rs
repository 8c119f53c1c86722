//! The control side of a port.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eal::Counter;
use eal::pci::PciDevice;
use eal::time::Time;
use ethdev::{Error, Link, PortControl, PortEvent, PortEvents, PortInfo};
use packet::{LINK_HEADERS, MacAddr};

use super::INFO;
use super::filters::{Vlans, receive_bits};
use super::hardware::Hardware;
use super::interrupts::LinkSource;
use super::lane::Lane;
use super::options::{MAX_MTU, Options};
use super::receive::RxRing;
use super::registers::Registers;
use super::statistics::Totals;
use super::transmit::TxRing;
use super::watcher::Watcher;

/// How long opening waits for the link, by the system's clock, as long as a device is waited for: QEMU's devices negotiate for half a second, real ones for
/// two to three, and then a port that comes up late is announced.
const LINK_WAIT: Duration = Duration::from_millis(1000);

/// Between two looks at the link while it is waited for.
const LINK_PAUSE: Duration = Duration::from_millis(5);

/// What a frame has on top of the MTU, in the device's count: the headers of the link and the frame
/// check sequence.
const FRAME_OVERHEAD: usize = LINK_HEADERS + 4;

/// The queues of a port.
#[derive(Debug)]
pub(super) struct Lanes<R: Registers> {
    pub(super) rx: Vec<Arc<Lane<RxRing<R>>>>,
    pub(super) tx: Vec<Arc<Lane<TxRing<R>>>>,
}

/// What control side and the port's thread share.
pub(super) struct Shared<R: Registers> {
    pub(super) name: String,
    pub(super) hardware: Arc<Hardware<R>>,
    pub(super) pci: Arc<dyn PciDevice>,
    pub(super) lanes: Lanes<R>,
    totals: Mutex<Totals>,
    /// Held while registers are read to be changed.
    changing: Mutex<()>,
    up: AtomicBool,
    speed_mbps: AtomicU32,
    changes: AtomicU64,
    gone: AtomicBool,
    bad_checksums: Vec<Arc<Counter>>,
    events: PortEvents,
}

impl<R: Registers> Shared<R> {
    pub(super) fn new(
        name: &str,
        hardware: Arc<Hardware<R>>,
        pci: Arc<dyn PciDevice>,
        lanes: Lanes<R>,
        bad_checksums: Vec<Arc<Counter>>,
    ) -> Self {
        let queues = u16::try_from(lanes.rx.len()).unwrap_or(0);
        Self {
            name: name.to_owned(),
            hardware,
            pci,
            lanes,
            totals: Mutex::new(Totals::new(queues)),
            changing: Mutex::default(),
            up: AtomicBool::new(false),
            speed_mbps: AtomicU32::new(0),
            changes: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            bad_checksums,
            events: PortEvents::new(),
        }
    }

    /// What the device is, for messages.
    pub(super) fn what(&self) -> String {
        format!("port {} (igb {})", self.name, self.pci.info().address)
    }

    pub(super) fn failed(&self, reason: impl Into<String>) -> Error {
        Error::Device { what: self.what(), reason: reason.into() }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Looks at the link, and announces what has changed.
    pub(super) fn update_link(&self) {
        if self.is_gone() {
            return;
        }
        let Some(link) = self.hardware.link() else {
            self.remove("does not answer any more");
            return;
        };
        self.speed_mbps.store(link.speed_mbps, Relaxed);
        if self.up.swap(link.up, Relaxed) == link.up {
            return;
        }
        for lane in &self.lanes.tx {
            lane.set_ready(link.up);
        }
        self.changes.fetch_add(1, Relaxed);
        self.events.announce(PortEvent::LinkChanged);
    }

    /// Waits for the link after the start; what it is then counts as no change.
    pub(super) fn wait_for_link(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.hardware.link().is_some_and(|link| !link.up) && Instant::now() < deadline {
            std::thread::sleep(LINK_PAUSE);
        }
        self.update_link();
        self.changes.store(0, Relaxed);
    }

    /// Adds up what the device has counted.
    pub(super) fn collect(&self) {
        if !self.is_gone() && !lock(&self.totals).collect(&self.hardware) {
            self.remove("does not answer any more");
        }
    }

    /// The device is gone for good, or is about to be: then the kernel waits until it is given
    /// back.
    pub(super) fn remove(&self, what: &str) {
        if self.gone.swap(true, Relaxed) {
            return;
        }
        tracing::error!("{}: the device {what}; the port is down for good", self.what());
        self.up.store(false, Relaxed);
        self.speed_mbps.store(0, Relaxed);
        self.stop();
        self.pci.give_back();
        self.events.announce(PortEvent::Removed);
    }

    /// Takes the queues from their workers and keeps the device from their memory.
    fn stop(&self) {
        // Each worker ends the burst that it is at, and finds nothing afterwards.
        let rx: Vec<_> = self.lanes.rx.iter().map(|lane| lane.take()).collect();
        let tx: Vec<_> = self.lanes.tx.iter().map(|lane| lane.take()).collect();
        let _changing = lock(&self.changing);
        if let Err(error) = self.hardware.reset()
            && !self.is_gone()
        {
            tracing::warn!("{}: it cannot be reset: {error}", self.what());
        }
        // Should that have failed, this keeps it from memory as well.
        let _ = self.pci.set_bus_master(false);
        // They stop their queues once more before they free what the device has known.
        drop((rx, tx));
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The control side of a port. Dropping it stops the device and frees its memory.
pub(super) struct IgbPort<R: Registers> {
    shared: Arc<Shared<R>>,
    options: Options,
    mac: MacAddr,
    /// What the transmit queues check frames against.
    mtu: Arc<AtomicU16>,
    interrupts: String,
    /// Ends the port's thread when it is dropped, which comes before all else.
    watcher: Option<Watcher>,
}

impl<R: Registers> IgbPort<R> {
    /// Takes a device over that is running, once its link is there.
    pub(super) fn start(
        shared: Shared<R>,
        options: Options,
        mac: MacAddr,
        mtu: Arc<AtomicU16>,
        link: LinkSource,
        interrupts: String,
        time: &Time,
    ) -> Result<Self, Error> {
        let shared = Arc::new(shared);
        // From here on, a failure stops the device.
        let mut port =
            Self { shared: Arc::clone(&shared), options, mac, mtu, interrupts, watcher: None };
        link.enable(&shared.hardware, &shared.pci).map_err(|reason| shared.failed(reason))?;
        shared.wait_for_link(LINK_WAIT);
        let watcher = Watcher::start(Arc::clone(&shared), link, time);
        port.watcher = Some(watcher.map_err(|error| shared.failed(error.to_string()))?);
        Ok(port)
    }

    fn receive_bits(&self) -> u32 {
        receive_bits(self.options.promiscuous, &self.options.groups, &self.options.vlans)
    }

    fn check_present(&self) -> Result<(), Error> {
        if self.shared.is_gone() { Err(self.shared.failed("the device is gone")) } else { Ok(()) }
    }
}

/// The length that the device counts for the longest frame of an MTU.
pub(super) fn longest_frame(mtu: u16) -> u32 {
    u32::try_from(usize::from(mtu) + FRAME_OVERHEAD).unwrap_or(u32::MAX)
}

impl<R: Registers> PortControl for IgbPort<R> {
    fn info(&self) -> PortInfo {
        let queues = self.options.queues.into();
        PortInfo { driver: INFO.name, rx_queues: queues, tx_queues: queues, max_mtu: MAX_MTU }
    }

    fn link(&self) -> Link {
        self.shared.update_link();
        let speed = self.shared.speed_mbps.load(Relaxed);
        Link {
            up: self.shared.up.load(Relaxed),
            speed_mbps: (speed > 0).then_some(speed),
            changes: self.shared.changes.load(Relaxed),
        }
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        if !mac.is_station() {
            return Err(self.shared.failed(format!("{mac} is not the address of one station")));
        }
        self.check_present()?;
        self.shared.hardware.set_address(mac);
        self.mac = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.options.mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        ethdev::mtu::check(mtu, &(ethdev::mtu::MIN..=MAX_MTU), || self.shared.what())?;
        self.check_present()?;
        // Frames may span buffers at any MTU, so no queue has to change.
        self.shared.hardware.set_longest_frame(longest_frame(mtu));
        self.options.mtu = mtu;
        self.mtu.store(mtu, Relaxed);
        Ok(())
    }

    fn promiscuous(&self) -> bool {
        self.options.promiscuous
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        self.check_present()?;
        self.options.promiscuous = on;
        let bits = self.receive_bits();
        let _changing = lock(&self.shared.changing);
        self.shared.hardware.set_receive_bits(bits);
        Ok(())
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        self.shared.collect();
        let mut all = lock(&self.shared.totals).named();
        let bad = self.shared.bad_checksums.iter().enumerate();
        all.extend(bad.map(|(queue, count)| (format!("rx_q{queue}_bad_checksums"), count.get())));
        all
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.shared.events)
    }

    fn details(&self) -> Vec<(String, String)> {
        let info = self.shared.pci.info();
        let vlans = match &self.options.vlans {
            Vlans::Any => "any".to_owned(),
            Vlans::Only(ids) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
            Vlans::Access(id) => format!("access to {id}"),
        };
        let details = [
            ("address", info.address.to_string()),
            ("device", self.shared.hardware.model.name.to_owned()),
            ("kernel driver", info.driver.clone().unwrap_or_default()),
            ("interrupts", self.interrupts.clone()),
            ("queue size", self.options.queue_size.to_string()),
            ("vlans", vlans),
        ];
        details.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl<R: Registers> Drop for IgbPort<R> {
    fn drop(&mut self) {
        self.watcher = None;
        if !self.shared.is_gone() {
            self.shared.stop();
        }
        // Vectors signal events that end with the port.
        let _ = self.shared.pci.set_msix(&[]);
    }
}
