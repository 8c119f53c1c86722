//! The control side of a port on an interface of the host: what ip-link(8) does, by ioctl.
//!
//! The interface is not ours: what is changed on it is undone when the port is closed. Only
//! promiscuous mode is undone by the kernel itself when the process dies.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eal::time::Time;
use ethdev::{Error, Link, OpenPort, PortControl, PortEvent, PortEvents, PortInfo};
use packet::MacAddr;

use super::driver::{Kind, Queues};
use super::interface::{Interface, NotOpened, missing};
use super::link::{LinkState, LinkWatch, Next};
use super::options::Settings;
use super::session::Session;
use crate::interfaces::{Interfaces, names};

/// What the control side of a port and the thread that watches its interface share.
struct Shared {
    /// The device as messages name it: `AF_XDP port on interface 'eth0'`.
    what: String,
    /// The name that the device string has.
    name: String,
    asker: Interfaces,
    state: Arc<LinkState>,
    inner: Mutex<Inner>,
}

/// What they use in turns.
struct Inner {
    driver: Box<dyn Queues>,
    /// What the interface is to be like whenever the port gets it.
    wanted: Settings,
    /// While the interface is there.
    session: Option<Session>,
    /// Why it is not in use, although it is there.
    problem: Option<String>,
    /// Counters of sessions that are over.
    past: Vec<(String, u64)>,
    /// The last values seen, for when the interface is gone.
    mac: MacAddr,
    mtu: u16,
    closed: bool,
}

/// Opens a port on interface `name`, or one that waits for it; `time` is the clock by which it looks
/// for what the kernel does not tell of.
///
/// # Errors
/// Where waiting cannot help: rights or kernel features that are missing, options that the
/// interface cannot have.
pub(crate) fn open_port(
    port: &str,
    device: &str,
    mut driver: Box<dyn Queues>,
    name: &str,
    settings: Settings,
    time: &Time,
) -> Result<OpenPort, Error> {
    let kind = driver.kind();
    let what = format!("{} port on interface '{name}'", kind.title);
    let error = |reason: String| Error::Device { what: what.clone(), reason };
    let no_file = |cause: io::Error| error(format!("no file descriptor: {cause}"));
    let asker = Interfaces::new().map_err(no_file)?;
    let state = Arc::new(LinkState::new(kind.title, name));
    let (rx, tx) = driver.make_slots(name, &asker, &state).map_err(no_file)?;
    let inner = Inner {
        driver,
        wanted: settings,
        session: None,
        problem: None,
        past: Vec::new(),
        mac: settings.mac.unwrap_or_default(),
        mtu: settings.mtu.unwrap_or(1500),
        closed: false,
    };
    let (name, inner) = (name.to_owned(), Mutex::new(inner));
    let shared = Arc::new(Shared { what: what.clone(), name, asker, state, inner });
    shared.open_first().map_err(error)?;
    let looker = Arc::clone(&shared);
    let watch = LinkWatch::start(&shared.state, time, move || looker.look());
    let watch = watch.map_err(|cause| error(format!("cannot watch its link: {cause}")));
    // The control side first, which gives the interface back should there be no watch.
    let mut control = KernelControl { shared, kind, watch: None };
    control.watch = Some(watch?);
    Ok(OpenPort::new(port, device, Box::new(control), rx, tx))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the interface up if it is there; the error is the reason why no port can be.
    fn open_first(&self) -> Result<(), String> {
        let mut inner = self.lock();
        match inner.driver.find(&self.name, &self.asker) {
            Ok(interface) => match self.take_up(&mut inner, &interface, true) {
                Ok(()) => {
                    self.state.open();
                    return Ok(());
                }
                Err(NotOpened::Gone) => {}
                Err(NotOpened::Refused(reason)) => return Err(reason),
            },
            Err(NotOpened::Gone) => {}
            Err(NotOpened::Refused(reason)) => return Err(reason),
        }
        inner.driver.check_rights()?;
        let (what, hint) = (&self.what, missing(&self.name, &names()));
        tracing::warn!("{what} waits for the interface: {hint}");
        Ok(())
    }

    /// Sees how things are with the interface: something may have changed.
    fn look(&self) -> Next {
        let before = self.state.link().changes;
        let next = self.look_quietly(&mut self.lock());
        // Without the lock: the listener may close the port.
        if self.state.link().changes != before {
            self.state.events.announce(PortEvent::LinkChanged);
        }
        next
    }

    fn look_quietly(&self, inner: &mut Inner) -> Next {
        if inner.closed {
            return Next::AtChange;
        }
        if let Some(session) = &inner.session {
            match session.facts(&self.asker) {
                Some((up, mtu)) => {
                    self.state.set_mtu(mtu);
                    self.state.set_up(up);
                    // The kernel tells nothing of other network namespaces.
                    let is_elsewhere = session.elsewhere(&self.asker).is_some();
                    return if is_elsewhere { Next::Soon } else { Next::AtChange };
                }
                None => self.leave(inner),
            }
        }
        let found = inner.driver.find(&self.name, &self.asker);
        match found.and_then(|interface| self.take_up(inner, &interface, false)) {
            Ok(()) => {
                let what = &self.what;
                tracing::info!("{what}: the interface is there, and the port uses it");
                Next::AtChange
            }
            Err(NotOpened::Refused(reason)) => {
                self.note_problem(inner, Some(reason));
                if inner.driver.kind().makes_interfaces { Next::Later } else { Next::AtChange }
            }
            Err(NotOpened::Gone) => {
                self.note_problem(inner, None);
                Next::AtChange
            }
        }
    }

    /// The interface is gone: the queues are empty until it comes again.
    fn leave(&self, inner: &mut Inner) {
        self.state.detach();
        inner.driver.clear();
        if let Some(session) = inner.session.take() {
            add_counts(&mut inner.past, session.extended_stats());
        }
        let what = &self.what;
        tracing::warn!(
            "error receiving on {what}: the interface was deleted or moved to another network \
             namespace; the port waits for one of this name"
        );
    }

    /// Says, if it is news, why an interface that is there is not in use.
    fn note_problem(&self, inner: &mut Inner, problem: Option<String>) {
        if let Some(reason) = &problem
            && inner.problem != problem
        {
            let what = &self.what;
            tracing::warn!("{what} waits: {reason}");
        }
        inner.problem = problem;
    }

    /// Opens the interface and fills the slots. `strictly`: it must get what was asked for.
    fn take_up(
        &self,
        inner: &mut Inner,
        interface: &Interface<'_>,
        strictly: bool,
    ) -> Result<(), NotOpened> {
        let Inner { driver, wanted, .. } = inner;
        let opened = driver.open(interface, wanted, &self.state)?;
        let mut session = Session::new(interface, opened.device, opened.was_off);
        let configured = session.configure(&self.asker, wanted);
        if let Err(reason) = configured.and_then(|()| driver.finish(interface)) {
            if strictly {
                session.give_back(&self.asker);
                return Err(NotOpened::Refused(reason));
            }
            tracing::warn!("{}: {reason}", self.what);
        }
        let Some((up, mtu)) = session.facts(&self.asker) else { return Err(NotOpened::Gone) };
        if mtu > session.max_mtu() {
            let (what, max) = (&self.what, session.max_mtu());
            tracing::warn!("{what}: its MTU is {mtu}, but the port carries {max} bytes at most");
        }
        // Before there are queues: they ask for the MTU with their first frame.
        let driver = self.asker.driver(&interface.name);
        self.state.set_two_tags(driver.is_some_and(|driver| !driver.is_virtual));
        self.state.attach(up, mtu);
        (opened.fill)();
        inner.session = Some(session);
        inner.problem = None;
        Ok(())
    }
}

/// Adds counters to those of the same name.
fn add_counts(to: &mut Vec<(String, u64)>, counts: Vec<(String, u64)>) {
    for (name, count) in counts {
        match to.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => to.push((name, count)),
        }
    }
}

/// Control side of a port.
struct KernelControl {
    shared: Arc<Shared>,
    kind: &'static Kind,
    watch: Option<LinkWatch>,
}

impl KernelControl {
    fn error(&self, reason: String) -> Error {
        Error::Device { what: self.shared.what.clone(), reason }
    }

    /// Changes what the interface is like now, if it is there, and whenever it comes.
    fn change(
        &self,
        wish: impl FnOnce(&mut Settings),
        now: impl FnOnce(&mut Session, &Interfaces) -> Result<(), String>,
    ) -> Result<(), Error> {
        let mut inner = self.shared.lock();
        if let Some(session) = &mut inner.session {
            now(session, &self.shared.asker).map_err(|reason| self.error(reason))?;
        }
        wish(&mut inner.wanted);
        Ok(())
    }
}

impl PortControl for KernelControl {
    fn info(&self) -> PortInfo {
        let inner = self.shared.lock();
        let queues = inner.driver.count();
        let max_mtu = inner.session.as_ref().map_or(self.kind.max_mtu, Session::max_mtu);
        PortInfo { driver: self.kind.name, rx_queues: queues, tx_queues: queues, max_mtu }
    }

    /// Up when the interface is, as ip-link(8) shows it: switched on, with a carrier.
    fn link(&self) -> Link {
        let mut link = self.shared.state.link();
        // The thread that watches may not have come to it yet.
        let inner = self.shared.lock();
        let facts = inner.session.as_ref().and_then(|session| session.facts(&self.shared.asker));
        link.up &= facts.is_some_and(|(up, _)| up);
        link
    }

    fn mac(&self) -> MacAddr {
        let mut inner = self.shared.lock();
        if let Some(mac) = inner.session.as_ref().and_then(|it| it.mac(&self.shared.asker)) {
            inner.mac = mac;
        }
        inner.mac
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.change(|wanted| wanted.mac = Some(mac), |session, asker| session.set_mac(asker, mac))
    }

    fn mtu(&self) -> u16 {
        let mut inner = self.shared.lock();
        if let Some((_, mtu)) = inner.session.as_ref().and_then(|it| it.facts(&self.shared.asker)) {
            inner.mtu = mtu;
        }
        inner.mtu
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let max = self.info().max_mtu;
        if mtu > max {
            return Err(self.error(format!("the MTU is at most {max}, not {mtu}")));
        }
        self.change(|wanted| wanted.mtu = Some(mtu), |session, asker| session.set_mtu(asker, mtu))?;
        self.shared.state.set_mtu(mtu);
        self.shared.lock().mtu = mtu;
        Ok(())
    }

    fn promiscuous(&self) -> bool {
        self.kind.always_promiscuous || self.shared.lock().wanted.promiscuous
    }

    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        if self.kind.always_promiscuous {
            let what = "leave promiscuous mode";
            return on.then_some(()).ok_or(Error::Unsupported { driver: self.kind.name, what });
        }
        self.change(|wanted| wanted.promiscuous = on, |session, _| session.set_promiscuous(on))
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        let inner = self.shared.lock();
        let mut all = inner.session.as_ref().map(Session::extended_stats).unwrap_or_default();
        add_counts(&mut all, inner.past.clone());
        all
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.shared.state.events)
    }

    fn details(&self) -> Vec<(String, String)> {
        let inner = self.shared.lock();
        let Some(session) = &inner.session else {
            let name = &self.shared.name;
            let problem = inner.problem.as_deref().unwrap_or("there is no such interface");
            return vec![("interface".to_owned(), format!("waiting for '{name}': {problem}"))];
        };
        session.details(&self.shared.asker)
    }
}

impl Drop for KernelControl {
    fn drop(&mut self) {
        self.shared.state.close();
        let mut inner = self.shared.lock();
        inner.closed = true;
        inner.driver.clear();
        if let Some(mut session) = inner.session.take() {
            session.give_back(&self.shared.asker);
        }
        // Not with the lock: the thread may be about to take it.
        drop(inner);
        self.watch = None;
    }
}
