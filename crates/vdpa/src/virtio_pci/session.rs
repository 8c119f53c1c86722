//! One session with a device: from its start to its stop.
//!
//! What a session has mapped in the IOMMU belongs to it, and goes with it, whatever ends it: the
//! guest's memory at its guest-physical addresses, and a little memory of ours between or behind
//! these for the control queue and shadow rings. Before that the device is reset; should it not
//! take that, its DMA meets no memory any more.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eal::dma::DmaBacking;
use eal::{DmaArena, DmaMapping, DmaPart, EventFd, PeerEvent};
use virtio::device::{DeviceQueue, PackedQueue, SplitQueue};
use virtio::driver::DriverQueue;
use virtio::{DirtyLog, Features, GuestMemory, ShadowRing};
use virtio_net::control::{self, Command, ControlQueue, Kick};
use virtio_net::pci::config::NetConfig;
use virtio_net::pci::hardware::{Hardware, Trouble};
use virtio_net::pci::registers::{DRIVER_OK, NEEDS_RESET, NO_VECTOR, RingPlace};

use super::counters::Counters;
use super::plan::{self, Mode, PlannedRing};
use super::relay::{Call, Entry, Relay, Shadow};
use crate::device::{DeviceError, Setup};

/// How long the device may take for a command on the control queue.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a device may take to send what is in a packed transmit ring, where that decides how
/// far it is; and how long to wait between two looks.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);
const DRAIN_PAUSE: Duration = Duration::from_micros(200);

/// Parts of our own memory start on multiples of this many bytes.
const ALIGN: usize = 128;

/// What of a device a session needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'d> {
    pub(super) name: &'d str,
    pub(super) hardware: &'d Hardware,
    pub(super) offered: Features,
    /// What changes of the configuration signal.
    pub(super) config: &'d EventFd,
    pub(super) counters: &'d Arc<Counters>,
    /// Where all that is written is logged.
    pub(super) log: Option<&'d Arc<DirtyLog>>,
}

/// A ring of a session.
#[derive(Debug)]
struct Running {
    plan: PlannedRing,
    vector: u16,
    kick: Option<PeerEvent>,
    call: Call,
}

/// A session whose rings run.
#[derive(Debug)]
pub(super) struct Session {
    setup: Setup,
    /// The guest's memory, with its guest-physical addresses for front-end addresses.
    memory: Arc<GuestMemory>,
    features: Features,
    rings: Vec<Running>,
    control: Option<ControlQueue>,
    relay: Option<Relay>,
    /// Our own memory, which the device has for as long as it runs.
    own: Option<Arc<DmaBacking>>,
    /// The guest's memory in the IOMMU.
    mappings: Vec<DmaMapping>,
}

impl Session {
    /// Starts the device.
    ///
    /// # Errors
    /// When it does not start with this setup. It is reset then, and nothing is mapped.
    pub(super) fn start(device: Parts<'_>, setup: Setup) -> Result<Self, DeviceError> {
        check_rings(device, &setup)?;
        Self::start_with(device, setup, None)
    }

    /// Starts a device that was suspended.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) fn resume(device: Parts<'_>, suspended: Suspended) -> Result<Self, DeviceError> {
        let Suspended { setup, mappings } = suspended;
        Self::start_with(device, setup, Some(mappings))
    }

    fn start_with(
        device: Parts<'_>,
        setup: Setup,
        mappings: Option<Vec<DmaMapping>>,
    ) -> Result<Self, DeviceError> {
        let mut session = Self::prepare(device, setup, mappings).inspect_err(|_| halt(device))?;
        // The reset comes before the session's end, which takes memory away.
        session.run(device).inspect_err(|_| halt(device))?;
        Ok(session)
    }

    /// Maps the guest's memory, unless it is, and agrees with the device on features and rings.
    fn prepare(
        device: Parts<'_>,
        mut setup: Setup,
        mappings: Option<Vec<DmaMapping>>,
    ) -> Result<Self, DeviceError> {
        let pairs = setup.rings.iter().map(|ring| ring.index / 2 + 1).max().unwrap_or(1);
        let features = plan::features(device.offered, setup.features, pairs)?;
        let memory = setup.memory.by_guest_address().map_err(|error| other(&error))?;
        device.hardware.greet().map_err(trouble)?;
        let mappings = mappings.map_or_else(|| map(device, &setup.memory), Ok)?;
        device.hardware.agree(features).map_err(trouble)?;
        let logging = device.log.is_some();
        let plans = plan::rings(&*device.hardware.registers, &setup, &memory, features, logging)?;
        let rings = (1..)
            .zip(plans)
            .zip(&mut setup.rings)
            .map(|((vector, plan), ring)| Running {
                plan,
                vector,
                kick: ring.kick.take(),
                call: Arc::new(Mutex::new(ring.call.take())),
            })
            .collect();
        let memory = Arc::new(memory);
        let (control, relay, own) = (None, None, None);
        Ok(Self { setup, memory, features, rings, control, relay, own, mappings })
    }

    /// Makes our own rings, programs the device (virtio 1.3 section 3.1.1, steps 7 and 8) and
    /// starts the relay.
    fn run(&mut self, device: Parts<'_>) -> Result<(), DeviceError> {
        let mut own = Own::allocate(device, self)?;
        self.control = own.control(device, self.features)?;
        let mut entries = self.entries(device, &mut own)?;
        self.own = Some(Arc::clone(own.memory.backing()));
        self.connect_interrupts(device, &entries)?;
        self.program(device, &mut entries)?;
        self.configure(device)?;
        let relay = Relay::start(device.name, entries, Arc::clone(device.counters))
            .map_err(|error| other(&error))?;
        for ring in &self.rings {
            if let Some(kick) = &ring.kick {
                relay.add_kick(ring.index(), kick).map_err(|error| kick_error(ring, &error))?;
            }
        }
        self.relay = Some(relay);
        Ok(())
    }

    /// What the relay is to look after.
    fn entries(&self, device: Parts<'_>, own: &mut Own) -> Result<Vec<Entry>, DeviceError> {
        let running = self.rings.iter().filter(|ring| ring.plan.mode != Mode::Resting);
        let entry = |ring: &Running| {
            let doorbell = doorbell(device, ring.index(), ring.plan.info)?;
            let shadow = match ring.plan.mode {
                Mode::Shadow(size) => Some(Box::new(self.shadow(device, ring, size, own)?)),
                Mode::Direct | Mode::Resting => None,
            };
            Ok(Entry { index: ring.index(), doorbell, shadow })
        };
        running.map(entry).collect()
    }

    fn shadow(
        &self,
        device: Parts<'_>,
        ring: &Running,
        size: u16,
        own: &mut Own,
    ) -> Result<Shadow, DeviceError> {
        let index = ring.index();
        let guest = DeviceQueue::new(Arc::clone(&self.memory), ring.plan.setup)
            .map_err(|error| DeviceError(format!("ring {index}: {error}")))?;
        let queue = own.queue(size, self.features)?;
        let ring_of = ShadowRing::new(guest, ring.plan.setup.size, queue, index.is_multiple_of(2));
        let interrupt = EventFd::new().map_err(|error| other(&error))?;
        let call = Arc::clone(&ring.call);
        let used = ring.plan.setup.used;
        let mut shadow = Shadow { ring: ring_of, interrupt, call, used, is_broken: false };
        if let Some(log) = device.log {
            shadow.set_log(Some(Arc::clone(log)));
        }
        Ok(shadow)
    }

    /// Vector 0 tells of the configuration, and each ring has one of its own, which goes straight
    /// to the guest where the device serves the ring itself.
    fn connect_interrupts(&self, device: Parts<'_>, entries: &[Entry]) -> Result<(), DeviceError> {
        let has = device.hardware.pci.msix_vectors();
        let needed = self.rings.len() + 1;
        if usize::from(has) < needed {
            return Err(DeviceError(format!(
                "it has {has} MSI-X vectors, and {} rings need {needed}; for QEMU's device say \
                 vectors={needed} or more",
                self.rings.len()
            )));
        }
        let calls: Vec<Option<PeerEvent>> = self.rings.iter().map(Running::call).collect();
        let mut events = vec![Some(device.config.as_fd())];
        for (ring, call) in self.rings.iter().zip(&calls) {
            let entry = entries.iter().find(|entry| entry.index == ring.index());
            let shadow = entry.and_then(|entry| entry.shadow.as_ref());
            events.push(match shadow {
                Some(shadow) => Some(shadow.interrupt.as_fd()),
                None => call.as_ref().map(PeerEvent::as_fd),
            });
        }
        device.hardware.pci.set_msix(&events).map_err(|error| DeviceError(error.reason))
    }

    /// Tells the device where the rings are, and starts it.
    fn program(&self, device: Parts<'_>, entries: &mut [Entry]) -> Result<(), DeviceError> {
        let registers = &*device.hardware.registers;
        registers.set_config_vector(0);
        for ring in &self.rings {
            let entry = entries.iter().find(|entry| entry.index == ring.index());
            let Some(entry) = entry else { continue };
            let place = match &entry.shadow {
                Some(shadow) => shadow.ring.shadow().into(),
                None => ring.place(),
            };
            if !registers.start_queue(ring.index(), place, ring.vector) {
                let (index, vector) = (ring.index(), ring.vector);
                let reason = format!("it does not take MSI-X vector {vector} for ring {index}");
                return Err(DeviceError(reason));
            }
        }
        if let Some(control) = &self.control {
            let index = control_index(device, self.features);
            registers.start_queue(index, control.queue().into(), NO_VECTOR);
        }
        device.hardware.add_status(DRIVER_OK);
        let status = registers.status();
        if status & DRIVER_OK == 0 || status & NEEDS_RESET != 0 {
            return Err(DeviceError(format!("it does not start: its status is {status:#x}")));
        }
        Ok(())
    }

    /// Tells the device what only we can: how many pairs are in use, and, since the front-end
    /// alone knows the guest's address, to let everything through.
    fn configure(&mut self, device: Parts<'_>) -> Result<(), DeviceError> {
        let Some(control) = &mut self.control else { return Ok(()) };
        if self.features.contains(Features::MQ) {
            let pairs = plan::enabled_pairs(&self.setup.rings).max(1);
            control.run(Command::QueuePairs(pairs), COMMAND_TIMEOUT).map_err(|e| other(&e))?;
        }
        if self.features.contains(Features::CTRL_RX) {
            for command in [Command::Promiscuous(true), Command::AllMulticast(true)] {
                if let Err(error) = control.run(command, COMMAND_TIMEOUT) {
                    tracing::warn!("{}: {error}; the guest gets its own frames only", device.name);
                }
            }
        }
        Ok(())
    }

    /// Stops the device, and returns where each ring stands. Nothing is mapped any more.
    pub(super) fn stop(mut self, device: Parts<'_>) -> Vec<(u16, u32)> {
        self.drain(device);
        halt(device);
        let ended = self.relay.take().map(Relay::end).unwrap_or_default();
        for (index, _, relayed) in &ended {
            if let Some(counters) = device.counters.ring(*index) {
                counters.shadow_returned.fetch_add(relayed.returned.into(), Relaxed);
                counters.given_up.fetch_add(relayed.bad.into(), Relaxed);
            }
        }
        let base_of = |ring: &Running| {
            let relayed = ended.iter().find(|(index, ..)| *index == ring.index());
            match (ring.plan.mode, relayed) {
                (Mode::Direct, _) => self.recover(device, ring),
                (_, Some((_, base, _))) => *base,
                (_, None) => ring.plan.setup.base,
            }
        };
        self.rings.iter().map(|ring| (ring.index(), base_of(ring))).collect()
    }

    /// Waits until it is certain how far the device is in packed transmit rings: see
    /// [`PackedQueue::locate`].
    fn drain(&self, device: Parts<'_>) {
        if !self.features.contains(Features::RING_PACKED) {
            return;
        }
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        for ring in self.rings.iter().filter(|ring| ring.plan.mode == Mode::Direct) {
            let is_uncertain = || {
                let located = PackedQueue::locate(&self.memory, &ring.plan.setup);
                located.is_ok_and(|located| located.behind_rest.is_some())
            };
            if ring.index() % 2 == 0 || !is_uncertain() {
                continue;
            }
            if let Ok(doorbell) = doorbell(device, ring.index(), ring.plan.info) {
                doorbell.signal(0);
            }
            while is_uncertain() && Instant::now() < deadline {
                std::thread::sleep(DRAIN_PAUSE);
            }
        }
    }

    /// The base of a ring that the device has served itself.
    fn recover(&self, device: Parts<'_>, ring: &Running) -> u32 {
        let (setup, memory) = (ring.plan.setup, &self.memory);
        if self.features.contains(Features::RING_PACKED) {
            let Ok(located) = PackedQueue::locate(memory, &setup) else { return setup.base };
            // A device that had time has sent what it was given. Receive buffers are mostly of
            // one descriptor, so there is no rest of them.
            let sends = ring.index() % 2 == 1;
            return located.behind_rest.filter(|_| sends).unwrap_or(located.base);
        }
        let Ok((base, given_up)) = SplitQueue::recover(Arc::clone(memory), setup) else {
            return setup.base;
        };
        if let Some(counters) = device.counters.ring(ring.index()) {
            counters.given_up.fetch_add(given_up.into(), Relaxed);
        }
        base
    }

    /// Enables or disables a ring of the running device.
    ///
    /// # Errors
    /// For the first pair, which a device cannot rest: it is started with another setup.
    pub(super) fn set_enabled(&mut self, index: u16, enabled: bool) -> Result<(), DeviceError> {
        let ring = self.setup.rings.iter_mut().find(|ring| ring.index == index);
        let ring = ring.ok_or_else(|| no_ring(index))?;
        if ring.enabled == enabled {
            return Ok(());
        }
        if index < 2 || self.control.is_none() {
            return Err(DeviceError(format!("ring {index} cannot be switched while it runs")));
        }
        ring.enabled = enabled;
        let pairs = plan::enabled_pairs(&self.setup.rings).max(1);
        let control = self.control.as_mut().ok_or_else(|| no_ring(index))?;
        control.run(Command::QueuePairs(pairs), COMMAND_TIMEOUT).map_err(|error| other(&error))
    }

    /// Replaces the file by which the guest notifies.
    pub(super) fn set_kick(
        &mut self,
        index: u16,
        kick: Option<PeerEvent>,
    ) -> Result<(), DeviceError> {
        let ring = self.rings.iter_mut().find(|ring| ring.index() == index);
        let (ring, relay) = ring.zip(self.relay.as_ref()).ok_or_else(|| no_ring(index))?;
        if let Some(old) = &ring.kick {
            relay.remove_kick(old);
        }
        ring.kick = kick;
        match &ring.kick {
            Some(kick) => relay.add_kick(index, kick).map_err(|error| kick_error(ring, &error)),
            None => Err(no_kick(index)),
        }
    }

    /// Replaces the file by which the guest hears of used chains, and signals it.
    pub(super) fn set_call(
        &mut self,
        device: Parts<'_>,
        index: u16,
        call: Option<PeerEvent>,
    ) -> Result<(), DeviceError> {
        let ring = self.rings.iter().find(|ring| ring.index() == index);
        let ring = ring.ok_or_else(|| no_ring(index))?;
        if ring.plan.mode == Mode::Direct {
            let pci = &device.hardware.pci;
            pci.change_msix(ring.vector, call.as_ref().map(PeerEvent::as_fd))
                .map_err(|error| DeviceError(error.reason))?;
        }
        if let Some(call) = &call {
            let _ = call.signal();
        }
        *ring.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
        Ok(())
    }

    /// Whether no ring is served by the device itself.
    pub(super) fn is_all_shadow(&self) -> bool {
        self.rings.iter().all(|ring| ring.plan.mode != Mode::Direct)
    }

    /// Logs what is written to the guest's memory, or nothing any more. Only where
    /// [all rings](Self::is_all_shadow) go through a shadow everything is logged.
    pub(super) fn set_log(&self, log: Option<Arc<DirtyLog>>) -> Result<(), DeviceError> {
        self.relay.as_ref().map_or(Ok(()), |relay| relay.set_log(log))
    }

    /// Has the guest look into all rings.
    pub(super) fn call_all(&self) {
        for call in self.rings.iter().filter_map(Running::call) {
            let _ = call.signal();
        }
    }

    /// Stops the device, and returns what it takes to start it where it was. The guest's memory
    /// stays mapped meanwhile: mapping takes its time with a large guest.
    pub(super) fn suspend(mut self, device: Parts<'_>) -> Suspended {
        let (features, memory) = (self.setup.features, Arc::clone(&self.setup.memory));
        let mut rings = std::mem::take(&mut self.setup.rings);
        let mappings = std::mem::take(&mut self.mappings);
        for (ring, running) in rings.iter_mut().zip(&mut self.rings) {
            ring.kick = running.kick.take();
            ring.call = running.call();
        }
        for (ring, (_, base)) in rings.iter_mut().zip(self.stop(device)) {
            ring.base = base;
        }
        Suspended { setup: Setup { features, memory, rings }, mappings }
    }

    /// Where ring `index` notifies the device, as the device says; `None` where the guest cannot
    /// do that by itself.
    pub(super) fn notify_number(&self, index: u16) -> Option<u16> {
        let ring = self.rings.iter().find(|ring| ring.index() == index)?;
        (ring.plan.mode == Mode::Direct).then_some(ring.plan.info.notify_offset)
    }

    /// Bytes of the guest's memory that the device reaches.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.mappings.iter().map(|mapping| mapping.len() as u64).sum()
    }

    /// Number of rings that are served through a shadow.
    pub(super) fn shadow_rings(&self) -> u64 {
        let shadows = self.rings.iter().filter(|ring| matches!(ring.plan.mode, Mode::Shadow(_)));
        shadows.count() as u64
    }
}

/// What it takes to start a device where it was.
#[derive(Debug)]
pub(super) struct Suspended {
    setup: Setup,
    mappings: Vec<DmaMapping>,
}

impl Suspended {
    /// Where each ring stands.
    pub(super) fn bases(&self) -> Vec<(u16, u32)> {
        self.setup.rings.iter().map(|ring| (ring.index, ring.base)).collect()
    }
}

impl Running {
    fn index(&self) -> u16 {
        self.plan.index
    }

    fn call(&self) -> Option<PeerEvent> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guest's ring, as the device finds it.
    const fn place(&self) -> RingPlace {
        let setup = &self.plan.setup;
        RingPlace {
            size: setup.size,
            descriptors: setup.desc,
            driver: setup.avail,
            device: setup.used,
        }
    }
}

/// Memory of ours that is given out in parts.
struct Own {
    memory: DmaArena,
}

impl Own {
    /// As much as the control queue and all shadow rings take.
    fn allocate(device: Parts<'_>, session: &Session) -> Result<Self, DeviceError> {
        let mut bytes = 0_usize;
        let features = session.features;
        let shadows = session.rings.iter().filter_map(|ring| match ring.plan.mode {
            Mode::Shadow(size) => Some(size),
            Mode::Direct | Mode::Resting => None,
        });
        let has_control = features.contains(Features::CTRL_VQ);
        for size in shadows.chain(has_control.then_some(control::SIZE)) {
            bytes += DriverQueue::bytes(size, features).next_multiple_of(ALIGN);
        }
        bytes += control::BUFFER.next_multiple_of(ALIGN);
        let name = format!("ringway-vdpa-{}", device.name);
        let buffer = device.hardware.pci.dma().allocate(&name, bytes).map_err(|e| other(&e))?;
        Ok(Self { memory: DmaArena::new(buffer) })
    }

    fn take(&mut self, bytes: usize) -> Result<DmaPart, DeviceError> {
        self.memory.take(bytes, ALIGN).ok_or_else(no_room)
    }

    fn queue(&mut self, size: u16, features: Features) -> Result<DriverQueue, DeviceError> {
        let memory = self.take(DriverQueue::bytes(size, features))?;
        DriverQueue::new(memory, size, features).ok_or_else(no_room)
    }

    /// The control queue, if there is to be one.
    fn control(
        &mut self,
        device: Parts<'_>,
        features: Features,
    ) -> Result<Option<ControlQueue>, DeviceError> {
        if !features.contains(Features::CTRL_VQ) {
            return Ok(None);
        }
        let index = control_index(device, features);
        let info = device.hardware.registers.queue(index);
        if info.size < control::SIZE {
            let (has, needed) = (info.size, control::SIZE);
            let reason = format!("its control queue has {has} entries, expected {needed} at least");
            return Err(DeviceError(reason));
        }
        let queue = self.queue(control::SIZE, features)?;
        let buffer = self.take(control::BUFFER)?;
        let kick = doorbell(device, index, info)?;
        Ok(Some(ControlQueue::new(queue, buffer, kick, None)))
    }
}

/// The control queue is behind all pairs that the device has, used or not (section 5.1.2).
fn control_index(device: Parts<'_>, features: Features) -> u16 {
    let pairs = NetConfig::read(&*device.hardware.registers, features).pairs;
    pairs.saturating_mul(2)
}

fn doorbell(
    device: Parts<'_>,
    index: u16,
    info: virtio_net::pci::registers::QueueInfo,
) -> Result<Kick, DeviceError> {
    device.hardware.registers.kick(index, info, false).map_err(|error| DeviceError(error.reason))
}

/// Resets the device and switches its interrupts off.
fn halt(device: Parts<'_>) {
    if !device.hardware.halt() {
        tracing::error!("{}: it does not stop; its memory is taken away", device.name);
    }
    // Both fail only for a device that is gone.
    let _ = device.hardware.pci.set_msix(&[]);
    let _ = device.hardware.pci.set_bus_master(false);
}

/// The rings are those of the device, and complete.
fn check_rings(device: Parts<'_>, setup: &Setup) -> Result<(), DeviceError> {
    let known = |index: u16| device.counters.ring(index).is_some();
    if let Some(ring) = setup.rings.iter().find(|ring| !known(ring.index)) {
        return Err(DeviceError(format!("it has no ring {}", ring.index)));
    }
    let running = setup.rings.iter().filter(|ring| ring.enabled || ring.index > 1);
    if let Some(ring) = running.into_iter().find(|ring| ring.kick.is_none()) {
        return Err(no_kick(ring.index));
    }
    Ok(())
}

/// Maps the guest's memory where the guest has it.
fn map(device: Parts<'_>, memory: &GuestMemory) -> Result<Vec<DmaMapping>, DeviceError> {
    let space = device.hardware.pci.dma();
    let regions = memory.regions().iter();
    let mapped = regions.map(|region| space.map_at(Arc::clone(&region.mapping), region.guest_addr));
    mapped.collect::<Result<_, _>>().map_err(|error| other(&error))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn trouble(trouble: Trouble) -> DeviceError {
    DeviceError(trouble.to_string())
}

fn other(error: &dyn std::error::Error) -> DeviceError {
    DeviceError(error.to_string())
}

fn kick_error(ring: &Running, error: &dyn std::error::Error) -> DeviceError {
    DeviceError(format!("the kick file of ring {} cannot be waited for: {error}", ring.index()))
}

fn no_room() -> DeviceError {
    DeviceError("its rings do not fit into the memory made for them".to_owned())
}

fn no_kick(index: u16) -> DeviceError {
    DeviceError(format!(
        "ring {index} has no kick file: the front-end wants it to be polled, which the device does \
         not do"
    ))
}

fn no_ring(index: u16) -> DeviceError {
    DeviceError(format!("ring {index} does not run"))
}
