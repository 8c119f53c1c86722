//! The state machine of a device: what each request of the kernel means for the device behind it.
//!
//! The kernel sends no request when a ring is to start, and shares the memory of frames only when
//! there are some. So once the driver is ready, the rings wait for the first buffer in any of
//! them; then all memory is there, and all rings start.
//!
//! After a restart of this process the device is found as it was left. That a driver is ready is
//! told by the kernel's letting it be interrupted; rings go on where they have given back the
//! last chain, since devices give chains back in order. What was taken out of a ring but not
//! given back comes a second time: a frame may be doubled, none is lost.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::PeerEvent;
use virtio::device::{self, DeviceQueue};
use virtio::{Features, GuestMemory};

use super::kernel::{Kernel, RingInfo};
use super::memory::{MemoryTable, ShareError};
use super::message::{Answer, Kind, Request};
use super::offer::Offer;
use crate::backend::{BackendError, Event, RingSetup};
use crate::control::{SharedLimit, Watch, Watcher};
use crate::session::Device;

/// Bits of the device status byte (virtio 1.3 section 2.1).
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const ALL_OK: u8 = 15;

/// Watched files are kick files of rings from this token on; a backend has those below.
pub const FIRST_TOKEN: u16 = 0x8000;

/// Time until a question is asked the kernel again, and the longest one, to which it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_LAST: Duration = Duration::from_millis(100);

/// For so long after the driver has become ready rings are looked for that become ready later,
/// of which the kernel does not tell.
const LATE_RINGS: Duration = Duration::from_secs(5);

/// Why something cannot be done. The device is of no use after that only where
/// [`is_fatal`](Self::is_fatal) says so.
#[derive(Debug, thiserror::Error)]
pub enum VduseError {
    /// A call of the kernel.
    #[error("{call}: {source}")]
    Kernel {
        /// What was asked for.
        call: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel has stopped to talk to us.
    #[error(
        "the kernel has given the device up, because a request was not answered in time \
         (/sys/class/vduse/NAME/msg_timeout); remove it with `vdpa dev del NAME`, and start again"
    )]
    GivenUp,
    /// The driver has features that were not offered.
    #[error(
        "the driver has accepted the features {0:#x}, which are not offered; a device that was \
         made with other options has to be removed first: `vdpa dev del NAME`"
    )]
    Features(u64),
    /// The device exists and is another one.
    #[error(
        "the device exists with another number of queue pairs; use that, or remove it first: \
         `vdpa dev del NAME`"
    )]
    Rings,
    /// There are no more file descriptors.
    #[error("cannot use eventfds: {0}")]
    Events(io::Error),
    /// The driver's memory.
    #[error(transparent)]
    Memory(#[from] ShareError),
    /// The device behind it.
    #[error("the device refuses: {0}")]
    Backend(BackendError),
    /// A ring that makes no sense.
    #[error("ring {index}: {reason}")]
    Ring {
        /// Its index.
        index: u16,
        /// Why.
        reason: String,
    },
    /// A request that is not known.
    #[error("the kernel asks for {0}, which is not known here")]
    Unknown(u32),
}

impl VduseError {
    fn kernel(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EPERM) => Self::GivenUp,
            _ => Self::Kernel { call, source },
        }
    }

    /// Whether the device is lost.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::GivenUp)
    }
}

type Result<T> = std::result::Result<T, VduseError>;

/// How far the driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is not ready.
    Idle,
    /// It has said that it is; the kernel is yet to note that down, and would lose interrupts
    /// until then.
    Accepting {
        /// When to look whether it has.
        at: Instant,
        /// How long to wait after that.
        pause: Duration,
    },
    /// No ring has a buffer yet.
    Waiting,
    /// Rings run.
    Running,
}

#[derive(Debug)]
struct Ring {
    kick: PeerEvent,
    /// While the ring does not run.
    watch: Option<Watch>,
    running: bool,
    /// Where to go on, once it has run.
    base: Option<u32>,
}

/// A device's state.
#[derive(Debug)]
pub struct Session {
    kernel: Box<dyn Kernel>,
    watcher: Watcher,
    offered: Features,
    rings: Vec<Ring>,
    features: Features,
    status: u8,
    phase: Phase,
    /// The driver was ready before this process was.
    recovered: bool,
    /// Until when, and when next, to look for rings that become ready.
    late: Option<(Instant, Instant)>,
    table: MemoryTable,
    /// The driver has begun.
    present: bool,
    told_ready: bool,
    /// For log lines that a VMM which has the device can cause.
    limit: SharedLimit,
}

impl Session {
    /// The session of a device that was made as `offer` says, perhaps by another process, whose
    /// driver may be ready already: then it goes on at once.
    ///
    /// # Errors
    /// When what was made is something else, or the kernel has given the device up.
    pub fn open(
        kernel: Box<dyn Kernel>,
        offer: &Offer,
        watcher: Watcher,
        device: &mut Device,
        now: Instant,
    ) -> Result<Self> {
        let known = |index| kernel.ring(index).map(drop);
        known(0).map_err(VduseError::kernel("VDUSE_VQ_GET_INFO"))?;
        if known(offer.rings - 1).is_err() || known(offer.rings).is_ok() {
            return Err(VduseError::Rings);
        }
        let ring = |_| {
            let kick = PeerEvent::new().map_err(VduseError::Events)?;
            Ok(Ring { kick, watch: None, running: false, base: None })
        };
        let mut session = Self {
            kernel,
            watcher,
            offered: offer.features,
            rings: (0..offer.rings).map(ring).collect::<Result<_>>()?,
            features: Features::empty(),
            status: 0,
            phase: Phase::Idle,
            recovered: false,
            late: None,
            table: MemoryTable::default(),
            present: false,
            told_ready: false,
            limit: SharedLimit::default(),
        };
        session.kernel.set_link(true).map_err(VduseError::kernel("VDUSE_DEV_SET_CONFIG"))?;
        session.recover(device, now)?;
        Ok(session)
    }

    /// The kernel's side.
    pub(crate) fn kernel(&self) -> &dyn Kernel {
        self.kernel.as_ref()
    }

    /// Whether the kernel still talks to us.
    pub(crate) fn check_alive(&self) -> Result<()> {
        self.kernel.features().map(drop).map_err(VduseError::kernel("VDUSE_DEV_GET_FEATURES"))
    }

    /// Goes on with a driver that is ready, at the first deadline: what is wrong with its rings
    /// is no reason to refuse the device.
    fn recover(&mut self, device: &mut Device, now: Instant) -> Result<()> {
        if !self.is_accepted()? {
            return Ok(());
        }
        self.accept_features(device)?;
        self.appear(device);
        self.recovered = true;
        self.status = ALL_OK;
        device.backend.set_status(ALL_OK).map_err(VduseError::Backend)?;
        self.phase = Phase::Accepting { at: now, pause: PAUSE_FIRST };
        Ok(())
    }

    /// Serves a request. Returns the answer, which is to be sent in any case, and why it is a
    /// refusal, if it is.
    pub fn handle(
        &mut self,
        device: &mut Device,
        request: Request,
        now: Instant,
    ) -> (Answer, Option<VduseError>) {
        let Request { id, kind } = request;
        let mut ring = None;
        let done = match kind {
            Kind::Status(status) => self.set_status(device, status, now),
            Kind::MemoryChanged(..) => self.change_memory(device),
            Kind::RingState(index) => {
                ring = Some((index, self.ring_state(device, index)));
                Ok(())
            }
            Kind::Unknown(kind) => Err(VduseError::Unknown(kind)),
        };
        self.tell_readiness(device);
        (Answer { id, done: done.is_ok(), ring }, done.err())
    }

    fn set_status(&mut self, device: &mut Device, status: u8, now: Instant) -> Result<()> {
        if status == 0 {
            self.reset(device);
            return Ok(());
        }
        self.appear(device);
        let new = status & !self.status;
        if new & (FEATURES_OK | DRIVER_OK) != 0 {
            self.accept_features(device)?;
        }
        self.status = status;
        device.backend.set_status(status).map_err(VduseError::Backend)?;
        if new & DRIVER_OK != 0 {
            // Not before the answer: see `Phase::Accepting`.
            self.phase = Phase::Accepting { at: now, pause: PAUSE_FIRST };
        }
        Ok(())
    }

    fn appear(&mut self, device: &mut Device) {
        if !std::mem::replace(&mut self.present, true) {
            device.backend.connected();
            (device.events)(Event::Connected);
        }
    }

    fn accept_features(&mut self, device: &mut Device) -> Result<()> {
        let features =
            self.kernel.features().map_err(VduseError::kernel("VDUSE_DEV_GET_FEATURES"))?;
        if features & !self.offered.bits() != 0 {
            return Err(VduseError::Features(features));
        }
        // The device itself knows nothing of where its memory comes from.
        let features = features & device.backend.features();
        device.backend.set_features(features).map_err(VduseError::Backend)?;
        self.features = Features::from_bits_truncate(features);
        Ok(())
    }

    /// Whether the kernel has noted down that the driver is ready. The driver is told to look at
    /// the configuration, which does no harm.
    fn is_accepted(&self) -> Result<bool> {
        match self.kernel.inject_config_irq() {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(VduseError::kernel("VDUSE_DEV_INJECT_CONFIG_IRQ")(error)),
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is due, if ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Accepting { at, .. } => Some(at),
            _ => self.late.map(|(_, next)| next),
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn on_deadline(&mut self, device: &mut Device, now: Instant) -> Result<()> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        let done = match self.phase {
            Phase::Accepting { pause, .. } => match self.is_accepted() {
                Ok(true) => self.begin(device, now),
                Ok(false) => {
                    let next = (pause * 2).min(PAUSE_LAST);
                    self.phase = Phase::Accepting { at: now + pause, pause: next };
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Phase::Waiting | Phase::Running => self.look_for_late(device, now),
            Phase::Idle => Ok(()),
        };
        self.tell_readiness(device);
        done
    }

    /// The driver is ready: waits for the first buffer.
    fn begin(&mut self, device: &mut Device, now: Instant) -> Result<()> {
        self.phase = Phase::Waiting;
        self.late = Some((now + LATE_RINGS, now + PAUSE_FIRST));
        for (index, ring) in (0..).zip(&mut self.rings) {
            let set = self.kernel.set_kick(index, &ring.kick);
            set.map_err(VduseError::kernel("VDUSE_VQ_SETUP_KICKFD"))?;
            let token = FIRST_TOKEN.saturating_add(index);
            let watch = self.watcher.watch(&ring.kick, token).map_err(VduseError::Events)?;
            ring.watch = Some(watch);
        }
        self.refresh_memory(device)?;
        if self.has_buffers()? { self.run(device) } else { Ok(()) }
    }

    /// Whether a ring has buffers. If none has, the drivers' first ones will come with kicks.
    fn has_buffers(&self) -> Result<bool> {
        let memory = self.table.memory()?;
        let mut any = false;
        for (index, info) in self.ready_rings()? {
            // What is wrong with a ring is said when it is to start.
            let Ok(place) = self.place(index, &info, &memory) else { continue };
            let queue = DeviceQueue::new(Arc::clone(&memory), place);
            any |= queue.is_ok_and(|mut queue| !queue.arm());
        }
        Ok(any)
    }

    /// The rings that are to run and do not.
    fn ready_rings(&self) -> Result<Vec<(u16, RingInfo)>> {
        let mut found = Vec::new();
        for (index, _) in (0..).zip(&self.rings).filter(|(_, ring)| !ring.running) {
            let info = self.kernel.ring(index).map_err(VduseError::kernel("VDUSE_VQ_GET_INFO"))?;
            if info.ready {
                found.push((index, info));
            }
        }
        Ok(found)
    }

    /// Where ring `index` lies and goes on.
    fn place(
        &self,
        index: u16,
        info: &RingInfo,
        memory: &Arc<GuestMemory>,
    ) -> Result<device::RingSetup> {
        let wrong = |reason: String| VduseError::Ring { index, reason };
        let size = u16::try_from(info.size).map_err(|_| wrong(format!("size {}", info.size)))?;
        let mut place = device::RingSetup {
            size,
            desc: info.desc,
            avail: info.driver,
            used: info.device,
            base: info.base.into(),
            features: self.features,
        };
        let stopped_at = self.rings.get(usize::from(index)).and_then(|ring| ring.base);
        if let Some(base) = stopped_at {
            place.base = base;
        } else if self.recovered {
            let queue = DeviceQueue::new(Arc::clone(memory), place);
            match queue.map_err(|error| wrong(error.to_string()))? {
                DeviceQueue::Split(queue) => place.base = queue.next_used().into(),
                DeviceQueue::Packed(_) => return Err(wrong("it is packed".into())),
            }
        }
        Ok(place)
    }

    /// Starts every ring that is ready.
    fn run(&mut self, device: &mut Device) -> Result<()> {
        self.phase = Phase::Running;
        self.refresh_memory(device)?;
        let memory = self.table.memory()?;
        let mut failed = None;
        for (index, info) in self.ready_rings()? {
            let started = self
                .place(index, &info, &memory)
                .and_then(|place| self.start(device, index, place));
            // The others can do without it.
            failed = started.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    fn start(&mut self, device: &mut Device, index: u16, place: device::RingSetup) -> Result<()> {
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        let (kick, call) = (Some(ring.kick.clone()), Some(self.kernel.call(index)));
        let setup = RingSetup { kick, call, ..RingSetup::at(place) };
        let started = device.backend.start_ring(index, setup);
        started.map_err(|error| VduseError::Ring { index, reason: error.to_string() })?;
        (ring.running, ring.watch) = (true, None);
        (device.events)(Event::RingState { index, enabled: true, started: true });
        Ok(())
    }

    /// The driver has kicked a ring that does not run: the file with `token` is readable.
    ///
    /// # Errors
    /// When a ring cannot be started.
    pub fn kicked(&mut self, device: &mut Device, token: u16) -> Result<()> {
        let index = token.saturating_sub(FIRST_TOKEN);
        let Some(ring) = self.rings.get(usize::from(index)) else { return Ok(()) };
        if ring.running {
            return Ok(());
        }
        // It is ours and cannot fail.
        let _ = ring.kick.drain();
        let done = match self.phase {
            Phase::Waiting | Phase::Running => self.run(device),
            Phase::Idle | Phase::Accepting { .. } => Ok(()),
        };
        self.tell_readiness(device);
        done
    }

    /// Looks for rings that have become ready.
    fn look_for_late(&mut self, device: &mut Device, now: Instant) -> Result<()> {
        let Some((until, next)) = self.late else { return Ok(()) };
        let all_run = self.rings.iter().all(|ring| ring.running);
        // The pause is the time that has passed, so that there are about a dozen looks.
        let pause = (LATE_RINGS - until.saturating_duration_since(next)).max(PAUSE_FIRST);
        self.late = (!all_run && now < until).then_some((until, now + pause));
        match self.phase {
            Phase::Waiting if self.has_buffers()? => self.run(device),
            Phase::Running if !all_run => self.run(device),
            _ => Ok(()),
        }
    }

    /// Maps what has been added to the driver's memory.
    fn refresh_memory(&mut self, device: &mut Device) -> Result<()> {
        let table = MemoryTable::scan(self.kernel.as_ref(), &self.table)?;
        if table.is_same(&self.table) {
            return Ok(());
        }
        self.set_memory(device, table)
    }

    /// The driver has taken memory away, or exchanged it.
    fn change_memory(&mut self, device: &mut Device) -> Result<()> {
        if !matches!(self.phase, Phase::Waiting | Phase::Running) {
            // It is looked at when the driver is ready.
            return Ok(());
        }
        let table = match MemoryTable::scan(self.kernel.as_ref(), &MemoryTable::default()) {
            Ok(table) => table,
            Err(error) => {
                self.stop_all(device);
                self.set_memory(device, MemoryTable::default())?;
                return Err(error.into());
            }
        };
        self.set_memory(device, table)?;
        if self.phase == Phase::Running { self.run(device) } else { Ok(()) }
    }

    /// Replaces the memory. Rings that do not lie in it are stopped; once this returns, nobody
    /// touches the old one any more.
    fn set_memory(&mut self, device: &mut Device, table: MemoryTable) -> Result<()> {
        let memory = table.memory()?;
        if device.backend.set_memory(Arc::clone(&memory)).is_err() {
            self.stop_all(device);
            device.backend.set_memory(memory).map_err(VduseError::Backend)?;
        }
        self.table = table;
        Ok(())
    }

    /// Where ring `index` is.
    fn ring_state(&mut self, device: &mut Device, index: u32) -> u16 {
        let Ok(index) = u16::try_from(index) else { return 0 };
        self.stop(device, index);
        let base = self.rings.get(usize::from(index)).and_then(|ring| ring.base);
        if self.phase == Phase::Running
            && let Err(error) = self.run(device)
            && let Some(suppressed) = self.limit.admit_line()
        {
            tracing::warn!(%error, suppressed, "a ring of a VDUSE device has stopped");
        }
        base.and_then(|base| u16::try_from(base).ok()).unwrap_or(0)
    }

    fn stop(&mut self, device: &mut Device, index: u16) {
        let ring = self.rings.get_mut(usize::from(index));
        let Some(ring) = ring.filter(|ring| ring.running) else { return };
        ring.base = Some(device.backend.stop_ring(index));
        ring.running = false;
        let token = FIRST_TOKEN.saturating_add(index);
        // Without it the ring still starts when the memory changes again.
        ring.watch = self.watcher.watch(&ring.kick, token).ok();
        (device.events)(Event::RingState { index, enabled: true, started: false });
    }

    fn stop_all(&mut self, device: &mut Device) {
        for index in 0..u16::try_from(self.rings.len()).unwrap_or(u16::MAX) {
            self.stop(device, index);
        }
    }

    /// Back to the state before there was a driver.
    fn reset(&mut self, device: &mut Device) {
        self.stop_all(device);
        for ring in &mut self.rings {
            (ring.watch, ring.base) = (None, None);
            let _ = ring.kick.drain();
        }
        (self.phase, self.late) = (Phase::Idle, None);
        (self.status, self.features, self.recovered) = (0, Features::empty(), false);
        self.table = MemoryTable::default();
        self.tell_readiness(device);
        if std::mem::take(&mut self.present) {
            device.backend.disconnected();
            (device.events)(Event::Gone);
        }
    }

    /// Stops everything, and tells the driver that its link is down.
    pub fn close(&mut self, device: &mut Device) {
        let used = self.status & DRIVER_OK != 0;
        self.reset(device);
        if used && self.kernel.set_link(false).is_ok() {
            // A driver that does not hear of it has a link that carries nothing.
            let _ = self.kernel.inject_config_irq();
        }
    }

    /// Tells the application when frames can be exchanged, and when no longer.
    fn tell_readiness(&mut self, device: &mut Device) {
        let ready = self.rings.iter().take(2).all(|ring| ring.running);
        if ready != self.told_ready {
            self.told_ready = ready;
            (device.events)(if ready { Event::Ready } else { Event::Suspended });
        }
    }
}
