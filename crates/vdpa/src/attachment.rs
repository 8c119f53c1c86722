//! What a front-end has told so far, and the device that it is told for.
//!
//! A vDPA device is started as a whole: with the memory and with all rings that run. So it starts
//! when the first queue pair runs and is enabled and the driver is ready, and whatever it cannot
//! take up while it runs (another ring, other memory) makes it stop, and start again where it was.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use eal::{EventFd, PeerEvent};
use litemap::LiteMap;
use vhost::protocol::BackendMessage;
use vhost::{Call, ProtocolFeatures, RingSetup};
use virtio::{DirtyLog, Features, GuestMemory};

use crate::device::{DeviceError, Ring, Setup, VdpaDevice};
use crate::outbox::Outbox;
use crate::place::Place;

/// Bits of the device status (virtio 1.3 section 2.1).
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 0x40;

/// Features that a device's driver needs somebody for who is not there: the front-end serves the
/// control queue itself, translates no addresses, and has no message that resets a ring.
const WITHHELD: Features = Features::CONTROL
    .union(Features::VHOST_LOG_ALL)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::RING_RESET);

/// A ring that the front-end has started.
#[derive(Debug)]
struct Known {
    /// What the front-end has told; the base is where the device was when it stopped last.
    setup: RingSetup,
    /// Whether the device has it.
    served: bool,
}

/// A device on a socket.
#[derive(Debug)]
pub(crate) struct Attachment {
    device: Box<dyn VdpaDevice>,
    connected: bool,
    protocol: ProtocolFeatures,
    features: u64,
    memory: Arc<GuestMemory>,
    rings: LiteMap<u16, Known>,
    status: u8,
    /// The device was started and not stopped since, even if it does not run any more.
    started: bool,
    /// Why it did not start when it should have.
    failure: Option<String>,
    pub(crate) outbox: Outbox,
}

impl Attachment {
    pub(crate) fn new(device: Box<dyn VdpaDevice>) -> Self {
        Self {
            device,
            connected: false,
            protocol: ProtocolFeatures::empty(),
            features: 0,
            memory: Arc::default(),
            rings: LiteMap::new(),
            status: 0,
            started: false,
            failure: None,
            outbox: Outbox::default(),
        }
    }

    pub(crate) fn device(&self) -> &dyn VdpaDevice {
        &*self.device
    }

    pub(crate) fn device_mut(&mut self) -> &mut dyn VdpaDevice {
        &mut *self.device
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The negotiated feature bits.
    pub(crate) const fn negotiated(&self) -> u64 {
        self.features
    }

    pub(crate) const fn status(&self) -> u8 {
        self.status
    }

    /// The feature bits that a front-end is offered: those that both the device and this library
    /// know.
    pub(crate) fn offered(&self) -> u64 {
        let device = Features::from_bits_truncate(self.device.features());
        let mut offered = device.difference(WITHHELD) | Features::VHOST_USER_PROTOCOL;
        if self.device.can_log() {
            offered |= Features::VHOST_LOG_ALL;
        }
        offered.bits()
    }

    /// Indexes of the rings that the device serves.
    pub(crate) fn served(&self) -> Vec<u16> {
        let served = self.rings.iter().filter(|(_, ring)| ring.served);
        served.map(|(index, _)| *index).collect()
    }

    /// The next message for the front-end.
    pub(crate) fn next_message(&mut self) -> Option<BackendMessage<OwnedFd>> {
        self.outbox.next(&*self.device)
    }

    /// Takes down that the configuration has changed, if it has.
    pub(crate) fn notice_config(&mut self) {
        let changed = self.device.config_changed().map(EventFd::drain);
        if matches!(changed, Some(Ok(true))) {
            self.outbox.config_changed();
        }
    }

    pub(crate) fn connect(&mut self) {
        self.connected = true;
    }

    pub(crate) fn disconnect(&mut self) {
        self.halt();
        self.connected = false;
        self.protocol = ProtocolFeatures::empty();
        self.features = 0;
        self.memory = Arc::default();
        self.rings.clear();
        self.status = 0;
        self.failure = None;
        self.outbox = Outbox::default();
    }

    /// The state after power-on, but for the memory.
    pub(crate) fn reset(&mut self) {
        self.halt();
        self.features = 0;
        self.rings.clear();
        self.status = 0;
        self.failure = None;
    }

    pub(crate) const fn set_protocol(&mut self, protocol: ProtocolFeatures) {
        self.protocol = protocol;
    }

    pub(crate) const fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    /// Replaces the memory. A device that runs is stopped first, and goes on with the new table;
    /// where it cannot, with the old one.
    pub(crate) fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), DeviceError> {
        for (index, ring) in &self.rings {
            Place::of(*index, &ring.setup, &memory)?;
        }
        let ran = self.started;
        self.halt();
        let before = std::mem::replace(&mut self.memory, memory);
        let done = if ran { self.resume() } else { self.start_if_ready() };
        done.inspect_err(|_| {
            self.memory = before;
            if ran {
                self.recover();
            }
        })
    }

    /// Takes one more ring, and starts the device if it was the last that was missing.
    pub(crate) fn start_ring(&mut self, index: u16, setup: RingSetup) -> Result<(), DeviceError> {
        Place::of(index, &setup, &self.memory)?;
        let (ran, enabled) = (self.started, setup.enabled);
        self.rings.insert(index, Known { setup, served: false });
        let done = if ran && enabled { self.restart() } else { self.start_if_ready() };
        done.inspect_err(|_| {
            self.rings.remove(&index);
            if ran {
                self.recover();
            }
        })
    }

    /// Gives a ring back and returns its base. The device goes on with the others, unless the
    /// first pair is not complete any more.
    pub(crate) fn stop_ring(&mut self, index: u16) -> u32 {
        let ran = self.started;
        if self.rings.get(&index).is_some_and(|ring| ring.served) {
            self.halt();
        }
        let base = self.rings.remove(&index).map_or(0, |ring| ring.setup.base);
        self.outbox.stopped(index);
        if ran && !self.started && self.has_first_pair() {
            self.recover();
        }
        base
    }

    /// Enables or disables a ring.
    pub(crate) fn set_ring_enabled(&mut self, index: u16, on: bool) -> Result<(), DeviceError> {
        let ran = self.started;
        let Some(ring) = self.rings.get_mut(&index) else { return Ok(()) };
        let before = std::mem::replace(&mut ring.setup.enabled, on);
        let done = match (ran, ring.served) {
            (true, true) => self.device.set_ring_enabled(index, on).or_else(|_| self.restart()),
            (true, false) if on => self.restart(),
            _ => self.start_if_ready(),
        };
        done.inspect_err(|_| {
            if let Some(ring) = self.rings.get_mut(&index) {
                ring.setup.enabled = before;
            }
            if ran {
                self.recover();
            }
        })
    }

    pub(crate) fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) {
        let Some(ring) = self.rings.get_mut(&index) else { return };
        ring.setup.kick = kick;
        if ring.served {
            let set = self.device.set_ring_kick(index, ring.setup.kick.clone());
            self.complain("cannot take another kick file", set);
        }
    }

    pub(crate) fn set_ring_call(&mut self, index: u16, call: Option<Call>) {
        let Some(ring) = self.rings.get_mut(&index) else { return };
        ring.setup.call = call;
        if ring.served {
            let call = ring.setup.call.as_ref().and_then(Call::event).cloned();
            let set = self.device.set_ring_call(index, call);
            self.complain("cannot take another call file", set);
        }
    }

    pub(crate) fn set_ring_err(&mut self, index: u16, err: Option<Call>) {
        if let Some(ring) = self.rings.get_mut(&index) {
            ring.setup.err = err;
        }
    }

    /// Has the device log what it writes, or log nothing any more. Doorbells are offered anew: a
    /// device that logs may have to hear of each notification from us.
    ///
    /// A device that cannot is started again, without a log if it has to be: then the guest that
    /// is migrated is not whole, which the log line says.
    pub(crate) fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        if let Err(error) = self.device.set_dirty_log(log) {
            let device = self.device.name();
            tracing::error!(device, %error, "the vDPA device does not log; a guest migrated with \
                it is not whole");
        }
        if !self.started {
            return;
        }
        if self.device.is_running() {
            self.offer_doorbells();
        } else {
            self.halt();
            self.recover();
        }
    }

    /// The driver wrote the status byte.
    pub(crate) fn set_status(&mut self, status: u8) -> Result<(), DeviceError> {
        self.status = status;
        if status & DRIVER_OK == 0 {
            self.halt();
        }
        self.start_if_ready().inspect_err(|_| {
            self.status = status & !DRIVER_OK | NEEDS_RESET;
        })
    }

    fn has_first_pair(&self) -> bool {
        self.rings.contains_key(&0) && self.rings.contains_key(&1)
    }

    /// Whether frames could be exchanged.
    fn is_ready(&self) -> bool {
        let enabled = |index| self.rings.get(&index).is_some_and(|ring| ring.setup.enabled);
        let tells = self.protocol.contains(ProtocolFeatures::STATUS);
        enabled(0) && enabled(1) && (!tells || self.status & DRIVER_OK != 0)
    }

    fn start_if_ready(&mut self) -> Result<(), DeviceError> {
        if self.started || !self.is_ready() { Ok(()) } else { self.start() }
    }

    /// Starts the device, which is stopped, with all rings.
    fn start(&mut self) -> Result<(), DeviceError> {
        let started = self.setup().and_then(|setup| self.device.start(setup));
        self.failure = started.as_ref().err().map(ToString::to_string);
        started?;
        self.started = true;
        self.rings.iter_mut().for_each(|(_, ring)| ring.served = true);
        self.offer_doorbells();
        let (device, rings) = (self.device.name(), self.rings.len());
        tracing::info!(device, rings, "the vDPA device runs");
        Ok(())
    }

    /// Has the front-end told where the doorbells are now.
    fn offer_doorbells(&mut self) {
        if self.protocol.contains(ProtocolFeatures::HOST_NOTIFIER) {
            self.outbox.started(self.rings.keys().copied());
        }
    }

    /// Starts a device that was stopped for a change only. Interrupts may have been lost with
    /// that, so drivers are to look at their rings.
    fn resume(&mut self) -> Result<(), DeviceError> {
        self.start()?;
        for call in self.rings.values().filter_map(|ring| ring.setup.call.as_ref()) {
            // One that cannot be signalled has nobody who waits for it.
            let _ = call.signal();
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), DeviceError> {
        self.halt();
        self.resume()
    }

    /// Goes on as before a change that failed. If that fails too, the rings are at rest, and
    /// whoever has to be told of a broken ring is told.
    fn recover(&mut self) {
        if self.started {
            return;
        }
        if let Err(error) = self.resume() {
            let device = self.device.name();
            tracing::error!(device, %error, "the vDPA device does not start again; its rings rest");
            for err in self.rings.values().filter_map(|ring| ring.setup.err.as_ref()) {
                let _ = err.signal();
            }
        }
    }

    /// Stops the device if it was started, and takes down where it was.
    fn halt(&mut self) {
        if !std::mem::take(&mut self.started) {
            return;
        }
        let packed = self.features & Features::RING_PACKED.bits() != 0;
        for (index, base) in self.device.stop() {
            if let Some(ring) = self.rings.get_mut(&index) {
                ring.setup.base = if packed { base } else { base & 0xffff };
            }
        }
        self.rings.iter_mut().for_each(|(_, ring)| ring.served = false);
        tracing::info!(device = self.device.name(), "the vDPA device is stopped");
    }

    fn setup(&self) -> Result<Setup, DeviceError> {
        let rings = self.rings.iter().map(|(index, ring)| {
            let setup = &ring.setup;
            let place = Place::of(*index, setup, &self.memory)?;
            Ok(Ring {
                index: *index,
                size: setup.size,
                descriptors: place.descriptors,
                driver: place.driver,
                device: place.device,
                base: setup.base,
                enabled: setup.enabled,
                kick: setup.kick.clone(),
                call: setup.call.as_ref().and_then(Call::event).cloned(),
            })
        });
        let vhost = Features::VHOST_USER_PROTOCOL | Features::VHOST_LOG_ALL;
        Ok(Setup {
            features: self.features & !vhost.bits(),
            memory: Arc::clone(&self.memory),
            rings: rings.collect::<Result<_, DeviceError>>()?,
        })
    }

    fn complain(&self, what: &'static str, done: Result<(), DeviceError>) {
        if let Err(error) = done {
            let device = self.device.name();
            tracing::warn!(device, %error, "the vDPA device {what}");
        }
    }
}
