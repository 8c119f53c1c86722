//! The thread that looks after a device: link, changes, and starting it again after a failure.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use eal::EventFd;
use eal::channel::Receiver;
use eal::time::Alarm;
use ethdev::{Error, PortEvent};
use packet::announcement;
use packet::{Frame, LINK_HEADERS};
use virtio::Features;

use super::device::Device;
use super::hardware::{Hardware, Trouble};
use super::options::Options;
use super::port::State;
use super::registers::{DRIVER_OK, NEEDS_RESET};
use super::session::Session;
use crate::control_queue::Command;
use crate::link::{Change, Wishes};
use virtio_queues::lane::Lanes;

/// How often to look at a device that may have no way to tell that something happened, or is
/// gone.
const LOOK: Duration = Duration::from_secs(1);

/// What the registers of a device say that is not there.
const ALL_ONES: u8 = u8::MAX;

/// How long to wait before the first attempt to start a device again after a failure; twice as
/// long before each further one, up to a bound.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A device that has run for so long has recovered from whatever it had.
const RECOVERED: Duration = Duration::from_secs(10);

/// What the port's thread has.
pub(super) struct Keeper {
    name: String,
    options: Options,
    wishes: Option<Wishes>,
    device: Device,
    lanes: Lanes,
    session: Option<Session>,
    /// When the session began.
    since: Instant,
    /// When the device was last looked at.
    looked: Instant,
    /// Before the next start.
    pause: Duration,
    /// The device was taken away.
    gone: bool,
    state: Arc<State>,
    changes: Receiver<Change>,
    wake: Arc<EventFd>,
    stop: EventFd,
    alarm: Alarm,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Stop,
    /// A change is wanted, or a worker has found a ring broken.
    Wake,
    Interrupt,
    /// The kernel wants the device back.
    Requested,
    Timeout,
}

impl Keeper {
    #[allow(clippy::too_many_arguments, reason = "what the thread has, put together once")]
    pub(super) fn new(
        name: &str,
        options: Options,
        device: Device,
        lanes: Lanes,
        state: Arc<State>,
        changes: Receiver<Change>,
        wake: Arc<EventFd>,
        stop: EventFd,
        alarm: Alarm,
    ) -> Self {
        Self {
            name: name.to_owned(),
            options,
            wishes: None,
            device,
            lanes,
            session: None,
            since: alarm.now(),
            looked: alarm.now(),
            pause: FIRST_PAUSE,
            gone: false,
            state,
            changes,
            wake,
            stop,
            alarm,
        }
    }

    /// Looks after the device until the port is closed.
    pub(super) fn keep(mut self) {
        loop {
            let timeout = match (&self.session, self.gone) {
                (Some(_), _) => Some(LOOK),
                (None, false) => Some(self.pause),
                (None, true) => None,
            };
            match self.wait(timeout) {
                Woken::Stop => return,
                Woken::Wake => self.make_changes(),
                Woken::Interrupt => {
                    let Hardware { pci, registers } = &*self.device;
                    let changed = self.device.interrupts.handle(pci, &**registers, &self.lanes);
                    // A line that all queues share may interrupt often.
                    if !changed && self.past(self.looked) < LOOK {
                        continue;
                    }
                }
                Woken::Requested => self.remove("is to be given back"),
                Woken::Timeout if self.session.is_none() => self.start(),
                Woken::Timeout => {}
            }
            self.look();
        }
    }

    /// Makes a session that was just started the present one.
    pub(super) fn adopt(&mut self, session: Session) {
        self.wishes = Some(session.wishes());
        self.since = self.alarm.now();
        self.state.starts.fetch_add(1, Relaxed);
        self.state.speed.store(session.speed().unwrap_or(0), Relaxed);
        self.state.link.set_details(session.details(&self.device));
        self.session = Some(session);
        self.look();
    }

    /// Starts the device again, if it is there.
    fn start(&mut self) {
        let (Some(wishes), false) = (self.wishes, self.gone) else { return };
        let Self { name, device, options, lanes, .. } = self;
        match Session::start(name, device, options, &wishes.into(), lanes) {
            Ok(session) => {
                tracing::info!("port {}: the device is started again", self.name);
                self.adopt(session);
            }
            Err(Trouble::Gone) => self.remove("is gone"),
            Err(Trouble::Failed(reason)) => {
                self.state.failures.fetch_add(1, Relaxed);
                self.fail(&reason);
            }
        }
    }

    /// Looks at rings, status and link, and does what is to be done.
    fn look(&mut self) {
        self.looked = self.alarm.now();
        let Some(session) = &self.session else { return };
        let status = self.device.registers.status();
        if let Some(fault) = self.lanes.fault() {
            self.state.faults.fetch_add(1, Relaxed);
            self.fail(&format!("broken ring: {fault}"));
        } else if status & DRIVER_OK == 0 || status & NEEDS_RESET != 0 {
            // All ones are no status: two of the bits are reserved (virtio 1.3 section 2.1).
            if status == ALL_ONES || self.device.is_gone() {
                self.remove("is gone");
            } else {
                self.state.failures.fetch_add(1, Relaxed);
                self.fail(&format!("the device cannot go on: its status is {status:#x}"));
            }
        } else {
            let link = session.link(&self.device);
            self.lanes.set_ready(link.up);
            self.state.link.set(link.up);
            if link.announce {
                self.announce();
            }
        }
    }

    /// Ends the session, to start again after a pause.
    fn fail(&mut self, reason: &str) {
        if self.session.is_some() && self.past(self.since) >= RECOVERED {
            self.pause = FIRST_PAUSE;
        } else {
            self.pause = LONGEST_PAUSE.min(self.pause * 2);
        }
        let pause = self.pause;
        tracing::warn!("port {}: {reason}; starting the device again in {pause:?}", self.name);
        self.end();
    }

    /// The device was taken away, or is about to be: then the kernel waits until it is given back.
    fn remove(&mut self, what: &str) {
        tracing::error!(
            "port {}: the device at {} {what}; the port is down for good",
            self.name,
            self.options.address
        );
        self.gone = true;
        self.end();
        self.device.pci.give_back();
        self.state.link.events().announce(PortEvent::Removed);
    }

    /// Ends the session, if there is one.
    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            session.stop(&self.device, &self.lanes);
        }
        self.state.link.set_details(Vec::new());
        self.state.link.set(false);
    }

    /// Tells switches where this station is now, and the device that this was done (virtio 1.3
    /// section 5.1.6.5.4).
    fn announce(&mut self) {
        let (Some(session), Some(wishes)) = (&mut self.session, self.wishes) else { return };
        let frame = announcement(wishes.mac);
        let lane = self.lanes.tx.first();
        let sent = lane.and_then(|lane| {
            let mut guard = lane.ring.lock();
            let ring = guard.as_mut()?;
            ring.send_own(&Frame::from_bytes(&frame)).ok()
        });
        if sent == Some(true) {
            self.state.announcements.fetch_add(1, Relaxed);
        }
        if let Err(error) = session.command(Command::AnnounceAck) {
            tracing::warn!("port {}: {error}", self.name);
        }
    }

    /// Makes the changes that wait.
    fn make_changes(&mut self) {
        let mut restart = false;
        while let Ok(Change { to, done }) = self.changes.try_recv() {
            let outcome = self.apply(&to).map(|again| restart |= again);
            if outcome.is_ok() {
                self.wishes = Some(to);
            }
            let what = self.name.clone();
            let _ = done.send(outcome.map_err(|reason| Error::Device { what, reason }));
        }
        if restart {
            self.end();
            self.start();
        }
    }

    /// Tells the device what is different; `true` when it must be started again for that.
    fn apply(&mut self, to: &Wishes) -> Result<bool, String> {
        if self.gone {
            return Err("the device is gone".to_owned());
        }
        // It will be told when it is started again.
        let (Some(session), Some(from)) = (&mut self.session, self.wishes) else {
            return Ok(false);
        };
        if to.mac != from.mac {
            session.set_mac(&self.device, to.mac)?;
        }
        if to.promiscuous != from.promiscuous {
            if !session.features().contains(Features::CTRL_RX) {
                return Err("the device has no control queue to change receive modes".to_owned());
            }
            let command = Command::Promiscuous(to.promiscuous);
            session.command(command).map_err(|error| error.to_string())?;
        }
        let needed = usize::from(to.mtu) + LINK_HEADERS;
        Ok(to.mtu != from.mtu && needed > session.receive_limit())
    }

    /// How long `moment` is past.
    fn past(&self, moment: Instant) -> Duration {
        self.alarm.now().saturating_duration_since(moment)
    }

    /// Waits for an interrupt, a change, a fault or the end.
    fn wait(&self, timeout: Option<Duration>) -> Woken {
        let there = (!self.gone).then_some(&self.device);
        let files = [
            Some(self.stop.as_fd()),
            there.and_then(|device| device.pci.release_request()),
            Some(self.wake.as_fd()),
            there.and_then(|device| device.interrupts.wait_fd(&device.pci)),
        ];
        // What fails here (no memory) is tried again by the caller's loop.
        let due = timeout.map(|timeout| self.alarm.now() + timeout);
        match self.alarm.wait(&files, due) {
            Ok(Some(0)) => Woken::Stop,
            Ok(Some(1)) => Woken::Requested,
            Ok(Some(2)) => {
                let _ = self.wake.drain();
                Woken::Wake
            }
            Ok(Some(_)) => Woken::Interrupt,
            Ok(None) | Err(_) => Woken::Timeout,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Not even a panic leaves the device with memory that is about to be freed.
        self.end();
    }
}
