//! The control side of a port, and the thread that keeps its session.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use eal::EventFd;
use eal::channel::Receiver;
use eal::time::{Alarm, Time};
use ethdev::{Error, Link, PortControl, PortEvents, PortInfo};
use packet::{LINK_HEADERS, MacAddr};
use vhost::frontend::Endpoint;
use virtio::Features;

use super::INFO;
use super::options::Options;
use super::rings::Rings;
use super::session::Session;
use crate::control_queue::Command;
use crate::link::{Change, LinkState, PortThread, Settings, Wishes};
use virtio_queues::lane::Lanes;

/// How long to wait before the next attempt to find the back-end.
const RETRY: Duration = Duration::from_millis(100);

/// The same after a back-end that was there but could not be used.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What both sides of the port's thread see.
#[derive(Debug, Default)]
struct State {
    link: LinkState,
    sessions: AtomicU64,
    failures: AtomicU64,
    faults: AtomicU64,
}

/// The control side of a virtio-user port. Dropping it ends the session.
pub(super) struct VirtioUserPort {
    /// Dropped first, which ends the session.
    _thread: PortThread,
    options: Options,
    settings: Settings,
    state: Arc<State>,
}

impl VirtioUserPort {
    /// Starts the port's thread, which looks for the back-end from now on.
    pub(super) fn start(
        name: &str,
        options: Options,
        mtu: Arc<AtomicU16>,
        lanes: Lanes,
        wake: Arc<EventFd>,
        time: &Time,
    ) -> Result<Self, Error> {
        let endpoint = if options.server {
            Endpoint::server(&options.path, options.access)
        } else {
            Endpoint::client(&options.path)
        };
        let endpoint = endpoint.map_err(|error| failed("virtio-user", error))?;
        let wishes = Wishes { mac: options.mac, mtu: options.mtu, promiscuous: true };
        let state = Arc::new(State::default());
        let stop = EventFd::new().map_err(|error| failed(name, error))?;
        let (settings, incoming) = Settings::new(name, wishes, u16::MAX, mtu, Arc::clone(&wake));
        let keeper = Keeper {
            name: name.to_owned(),
            options: options.clone(),
            wishes,
            endpoint,
            lanes,
            state: Arc::clone(&state),
            changes: incoming,
            wake,
            stop: stop.try_clone().map_err(|error| failed(name, error))?,
            alarm: time.alarm().map_err(|error| failed(name, error))?,
            kept: None,
            last_complaint: String::new(),
        };
        let thread = PortThread::start(name, "vu", stop, move || keeper.keep())
            .map_err(|error| failed(name, error))?;
        Ok(Self { _thread: thread, options, settings, state })
    }
}

impl PortControl for VirtioUserPort {
    fn info(&self) -> PortInfo {
        let queues = self.options.net.queues.into();
        PortInfo {
            driver: INFO.name,
            rx_queues: queues,
            tx_queues: queues,
            max_mtu: self.settings.max_mtu(),
        }
    }

    fn link(&self) -> Link {
        self.state.link.link()
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
            ("sessions", &self.state.sessions),
            ("session_failures", &self.state.failures),
            ("ring_faults", &self.state.faults),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Relaxed)))
        .into()
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(self.state.link.events())
    }

    fn details(&self) -> Vec<(String, String)> {
        let mode = if self.options.server { "listens" } else { "connects" };
        let mut details = vec![("socket".to_owned(), format!("{} ({mode})", self.options.path))];
        details.extend(self.state.link.details());
        details
    }
}

/// What the port's thread has.
struct Keeper {
    name: String,
    options: Options,
    wishes: Wishes,
    endpoint: Endpoint,
    lanes: Lanes,
    state: Arc<State>,
    changes: Receiver<Change>,
    wake: Arc<EventFd>,
    stop: EventFd,
    alarm: Alarm,
    /// The rings of the last session, where the next one can go on with them.
    kept: Option<Rings>,
    /// The last reason for which there was no session: each is logged once.
    last_complaint: String,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Stop,
    /// A change is wanted, or a worker has found a ring broken.
    Wake,
    /// The file waited for is readable, or time is up.
    Other,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The port is closed.
    Closed,
    /// The back-end went away.
    Gone,
    /// A change takes a new session.
    Changed,
    /// The back-end broke a ring.
    Fault,
}

impl Keeper {
    /// One session after the other until the port is closed.
    fn keep(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let listener = self.endpoint.wait_fd().filter(|_| pause <= RETRY);
            let due = if listener.is_some() { None } else { Some(self.alarm.now() + pause) };
            match self.wait([listener, None, None], due) {
                Woken::Stop => return,
                Woken::Wake => {
                    self.make_changes(None);
                    continue;
                }
                Woken::Other => {}
            }
            pause = match self.endpoint.open() {
                Ok(None) => RETRY,
                Ok(Some(stream)) => match self.start(stream) {
                    Ok(session) => match self.attend(session) {
                        End::Closed => return,
                        End::Gone | End::Changed => RETRY,
                        // It may do the same again, at once.
                        End::Fault => RETRY_AFTER_FAILURE,
                    },
                    Err(error) => {
                        self.state.failures.fetch_add(1, Relaxed);
                        self.complain(&error.to_string());
                        RETRY_AFTER_FAILURE
                    }
                },
                Err(error) => {
                    self.complain(&error.to_string());
                    RETRY
                }
            };
        }
    }

    fn start(&mut self, stream: OwnedFd) -> Result<Session, Error> {
        let cancel = self.stop.try_clone().map_err(|error| failed(&self.name, error))?;
        let cancel = Some(cancel.into());
        let (options, wishes) = (&self.options, &self.wishes);
        let (lanes, kept) = (&self.lanes, &mut self.kept);
        Session::start(&self.name, options, wishes, stream, cancel, lanes, kept)
    }

    /// Stays with a session until it ends.
    fn attend(&mut self, mut session: Session) -> End {
        self.last_complaint.clear();
        self.state.sessions.fetch_add(1, Relaxed);
        let mut broken = self.follow_link(&mut session);
        tracing::info!("port {}: connected to {}", self.name, self.options.path);
        let (reason, end) = loop {
            if let Some(reason) = broken.take() {
                break (Some(reason), End::Gone);
            }
            let due = session.has_news().then(|| self.alarm.now());
            let files = [Some(session.as_fd()), session.channel_fd(), session.kicks_fd()];
            match self.wait(files, due) {
                Woken::Stop => break (None, End::Closed),
                Woken::Other => {
                    if let Err(error) = session.check().and_then(|()| session.pass_kicks_on()) {
                        break (Some(error.to_string()), End::Gone);
                    }
                    let config_changed = session.heed_news(&self.lanes);
                    if let Some(fault) = session.fault() {
                        break (Some(fault), End::Fault);
                    }
                    if config_changed {
                        broken = self.follow_link(&mut session);
                    } else {
                        self.state.link.set_details(session.details());
                    }
                }
                Woken::Wake => {
                    if let Some(fault) = self.fault() {
                        self.state.faults.fetch_add(1, Relaxed);
                        break (Some(fault), End::Fault);
                    }
                    if self.make_changes(Some(&mut session)) {
                        break (None, End::Changed);
                    }
                }
            }
        };
        if let Some(reason) = reason {
            tracing::warn!("port {}: link down: {reason}", self.name);
        }
        if end == End::Gone {
            self.kept = session.suspend(&self.lanes);
        } else {
            session.stop(&self.lanes);
        }
        self.state.link.set_details(Vec::new());
        self.state.link.set(false);
        end
    }

    /// Takes the state of the device's link over; returns why it cannot be known, if so.
    fn follow_link(&self, session: &mut Session) -> Option<String> {
        let up = match session.is_link_up() {
            Ok(up) => up,
            Err(error) => return Some(error.to_string()),
        };
        self.lanes.set_ready(up);
        self.state.link.set_details(session.details());
        self.state.link.set(up);
        None
    }

    /// What the back-end did wrong with a ring, if it did.
    fn fault(&self) -> Option<String> {
        let fault = self.lanes.fault()?;
        Some(format!("{}: broken ring: {fault}", self.options.path))
    }

    /// Makes the changes that wait; `true` when they take a new session.
    fn make_changes(&mut self, mut session: Option<&mut Session>) -> bool {
        let mut restart = false;
        while let Ok(Change { to, done }) = self.changes.try_recv() {
            let outcome = match session.as_deref_mut() {
                Some(session) => apply(&self.wishes, &to, session),
                None => Ok(false),
            };
            let outcome = outcome.map(|again| restart |= again);
            if outcome.is_ok() {
                self.wishes = to;
            }
            let _ = done.send(outcome.map_err(|reason| failed(&self.name, reason)));
        }
        restart
    }

    /// Waits for one of `files`, for a change, a fault or the end.
    fn wait(
        &self,
        [first, second, third]: [Option<BorrowedFd<'_>>; 3],
        due: Option<Instant>,
    ) -> Woken {
        let (stop, wake) = (Some(self.stop.as_fd()), Some(self.wake.as_fd()));
        match self.alarm.wait(&[stop, wake, first, second, third], due) {
            Ok(Some(0)) => Woken::Stop,
            Ok(Some(1)) => {
                let _ = self.wake.drain();
                Woken::Wake
            }
            Ok(_) | Err(_) => Woken::Other,
        }
    }

    fn complain(&mut self, reason: &str) {
        if self.last_complaint != reason {
            tracing::warn!("port {}: no link: {reason}; trying again", self.name);
            reason.clone_into(&mut self.last_complaint);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Not even a panic leaves rings with the workers that nobody looks after.
        drop(self.lanes.withdraw());
        self.state.link.set(false);
    }
}

/// Tells the back-end what is different; `true` when that takes a new session.
fn apply(from: &Wishes, to: &Wishes, session: &mut Session) -> Result<bool, String> {
    let mut restart = false;
    if to.mtu != from.mtu {
        session.set_mtu(to.mtu).map_err(|error| error.to_string())?;
        restart = usize::from(to.mtu) + LINK_HEADERS > session.receive_limit();
    }
    if to.mac != from.mac && session.features().contains(Features::CTRL_MAC_ADDR) {
        command(session, Command::Mac(to.mac))?;
    }
    if to.promiscuous != from.promiscuous {
        if !session.features().contains(Features::CTRL_RX) {
            return Err("the back-end has no control queue to change receive modes".to_owned());
        }
        command(session, Command::Promiscuous(to.promiscuous))?;
    }
    Ok(restart)
}

fn command(session: &mut Session, command: Command) -> Result<(), String> {
    session.command(command).unwrap_or(Ok(())).map_err(|error| error.to_string())
}

fn failed(what: &str, reason: impl std::fmt::Display) -> Error {
    Error::Device { what: what.to_owned(), reason: reason.to_string() }
}
