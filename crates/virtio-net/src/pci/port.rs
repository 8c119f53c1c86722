//! The control side of a port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use eal::EventFd;
use eal::pci::PciAddress;
use eal::time::Time;
use ethdev::{Error, Link, PortControl, PortEvents, PortInfo};
use packet::MacAddr;

use super::INFO;
use super::device::Device;
use super::keeper::Keeper;
use super::options::Options;
use super::session::{Session, Wanted};
use crate::link::{LinkState, PortThread, Settings};
use virtio_queues::lane::Lanes;

/// What both sides of the port's thread see.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) link: LinkState,
    /// Mbit/s, 0 where it is not known.
    pub(super) speed: AtomicU32,
    pub(super) starts: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) announcements: AtomicU64,
}

/// The control side of a virtio-pci port. Dropping it resets the device.
pub(super) struct VirtioPciPort {
    /// Dropped first, which ends the session.
    _thread: PortThread,
    address: PciAddress,
    queues: u16,
    settings: Settings,
    state: Arc<State>,
}

impl VirtioPciPort {
    /// Starts the device, and the thread that looks after it.
    ///
    /// # Errors
    /// When the device cannot be started with these options.
    pub(super) fn start(
        name: &str,
        options: Options,
        device: Device,
        mtu: &Arc<AtomicU16>,
        lanes: Lanes,
        wake: Arc<EventFd>,
        time: &Time,
    ) -> Result<Self, Error> {
        let address = options.address;
        let failed =
            |reason: String| Error::Device { what: format!("PCI device {address}"), reason };
        let stop = EventFd::new().map_err(|error| failed(error.to_string()))?;
        let stopped = stop.try_clone().map_err(|error| failed(error.to_string()))?;
        let alarm = time.alarm().map_err(|error| failed(error.to_string()))?;
        let wanted = Wanted { mac: options.mac, mtu: options.net.mtu, promiscuous: true };
        let session = Session::start(name, &device, &options, &wanted, &lanes)
            .map_err(|trouble| failed(trouble.to_string()))?;
        let (wishes, max_mtu, queues) = (session.wishes(), session.max_mtu(), options.net.queues);
        let state = Arc::new(State::default());
        let (mtu, woken) = (Arc::clone(mtu), Arc::clone(&wake));
        let (settings, incoming) = Settings::new(name, wishes, max_mtu, mtu, woken);
        let kept = Arc::clone(&state);
        let mut keeper =
            Keeper::new(name, options, device, lanes, kept, incoming, wake, stopped, alarm);
        keeper.adopt(session);
        let thread = PortThread::start(name, "vp", stop, move || keeper.keep())
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { _thread: thread, address, queues, settings, state })
    }
}

impl PortControl for VirtioPciPort {
    fn info(&self) -> PortInfo {
        let queues = self.queues.into();
        let max_mtu = self.settings.max_mtu();
        PortInfo { driver: INFO.name, rx_queues: queues, tx_queues: queues, max_mtu }
    }

    fn link(&self) -> Link {
        let speed = self.state.speed.load(Relaxed);
        Link { speed_mbps: (speed > 0).then_some(speed), ..self.state.link.link() }
    }

    fn mac(&self) -> MacAddr {
        self.settings.wishes().mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.settings.set_mac(mac)
    }

    fn mtu(&self) -> u16 {
        self.settings.wishes().mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        self.settings.set_mtu(mtu)
    }

    fn promiscuous(&self) -> bool {
        self.settings.wishes().promiscuous
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        self.settings.set_promiscuous(on)
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        [
            ("device_starts", &self.state.starts),
            ("device_failures", &self.state.failures),
            ("ring_faults", &self.state.faults),
            ("announcements", &self.state.announcements),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Relaxed)))
        .into()
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(self.state.link.events())
    }

    fn details(&self) -> Vec<(String, String)> {
        let mut details = vec![("address".to_owned(), self.address.to_string())];
        details.extend(self.state.link.details());
        details
    }
}
