//! The reconciler: keeps a switch as its desired state says.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use eal::time::Time;
use export::Told;
use switch::{Identity, ShutdownReport, Switch, SwitchConfig};

use crate::address::Address;
use crate::check::check;
use crate::diff::{Change, Diff, diff};
use crate::error::Error;
use crate::hub::Hub;
use crate::state::{Port, State};
use crate::vdpa::Vdpa;
use crate::waiting::Waiting;

/// What becomes of a port or vDPA device that cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is changed, and the error says why.
    Refuse,
    /// It is tried again until it is there.
    Retry,
}

/// A device that is to be opened.
#[derive(Clone, Copy, Debug)]
pub enum Device<'a> {
    /// A port's, by its string.
    Port(&'a str),
    /// A vDPA device.
    Vdpa(&'a Vdpa),
    /// A file that a mirror writes.
    File(&'a Path),
}

/// Whether a device may be opened; if not, why.
pub type Permit = Box<dyn Fn(Device<'_>) -> Result<(), String> + Send>;

/// What the state does not say.
#[derive(Default)]
pub struct Options {
    /// Asked before a device is opened; absent: all may be.
    pub permit: Option<Permit>,
    /// The clock by which addresses age, ports look at their devices and what has failed is tried
    /// again.
    pub time: Time,
    /// By what bonds are known to their neighbours.
    pub identity: Identity,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permit = self.permit.is_some();
        f.debug_struct("Options").field("permit", &permit).field("time", &self.time).finish()
    }
}

/// What has come of a new state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version that the state has now.
    pub version: u64,
    /// What was changed, in this order.
    pub changes: Vec<Change>,
    /// What cannot be opened yet, and why: names and reasons.
    pub waiting: Vec<(String, String)>,
}

/// A switch and the state that it is to be in.
///
/// Dropping it stops the switch and detaches the devices.
#[derive(Debug)]
pub struct Daemon {
    // The order matters: devices stop first, and their sockets go.
    hub: Hub,
    switch: Switch,
    state: State,
    version: u64,
    waiting: Waiting,
    options: Options,
    /// What has become of what collectors are told.
    told: Mutex<Vec<Told>>,
}

impl Daemon {
    /// Starts a switch and makes it as `state` says. Devices that are not there yet are
    /// [tried again](Self::retry).
    ///
    /// # Errors
    /// A part of the state that is wrong; or the switch cannot be started.
    pub fn start(state: State, options: Options) -> Result<Self, Error> {
        let state = state.resolved();
        check(&State::default(), &state)?;
        let config = SwitchConfig { identity: options.identity.clone(), ..state.switch() };
        let switch = Switch::start_with(&config, options.time.clone())?;
        let hub = Hub::new(state.sockets.into(), options.time.clone());
        let bare = State {
            bridges: Default::default(),
            mirrors: Default::default(),
            ports: Default::default(),
            vdpa: Default::default(),
            ..state.clone()
        };
        let waiting = Waiting::default();
        let told = Mutex::default();
        let mut daemon = Self { hub, switch, state: bare, version: 0, waiting, options, told };
        daemon.apply(state, Missing::Retry)?;
        Ok(daemon)
    }

    /// The switch, to look at.
    #[must_use]
    pub const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The vDPA devices.
    #[must_use]
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The desired state, with every default filled in.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// How often the state has been changed.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What cannot be opened yet, and why: names and reasons.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.waiting.iter()
    }

    /// Has what becomes of what collectors are told be known to whoever asks, in place of what was known.
    pub fn set_told(&self, told: Vec<Told>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// What has become of what collectors are told.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has `edit` change the state and makes that true.
    ///
    /// # Errors
    /// As `edit` says, and as [`apply`](Self::apply).
    pub fn edit(
        &mut self,
        missing: Missing,
        edit: impl FnOnce(&mut State) -> Result<(), Error>,
    ) -> Result<Applied, Error> {
        let mut next = self.state.clone();
        edit(&mut next)?;
        self.apply(next, missing)
    }

    /// Makes `next` the desired state and the switch what it says. Ports that are the same in both
    /// states are not touched.
    ///
    /// # Errors
    /// A part of it is wrong, cannot be changed while a switch runs, or is refused by a device.
    /// Then all is as it was before: what was changed already is changed back.
    pub fn apply(&mut self, next: State, missing: Missing) -> Result<Applied, Error> {
        let next = next.resolved();
        let Diff { changes, fixed } = self.check(&next)?;
        if !fixed.is_empty() {
            return Err(Error::Fixed(fixed));
        }
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = self.carry_out(change, missing) {
                self.undo(changes.iter().take(done));
                return Err(error);
            }
        }
        if !changes.is_empty() {
            self.version = self.version.saturating_add(1);
        }
        self.state = next;
        let waiting = self.waiting.iter().map(|(name, why)| (name.to_owned(), why.to_owned()));
        Ok(Applied { version: self.version, changes, waiting: waiting.collect() })
    }

    /// What [`apply`](Self::apply) would change; nothing is done.
    ///
    /// # Errors
    /// A part of `next` is wrong, or a device is not permitted.
    pub fn check(&self, next: &State) -> Result<Diff, Error> {
        let next = next.clone().resolved();
        check(&self.state, &next)?;
        let diff = diff(&self.state, &next);
        for change in &diff.changes {
            match change {
                Change::AddPort { name, port } => {
                    self.permit(&format!("ports.{name}.device"), Device::Port(&port.device))?;
                }
                Change::Exchange { name, to, .. } => {
                    self.permit(&format!("ports.{name}.device"), Device::Port(&to.device))?;
                }
                Change::AddVdpa { name, device } => {
                    self.permit(&format!("vdpa.{name}.device"), Device::Vdpa(device))?;
                }
                Change::Mirror { name, to: Some(to), .. } => {
                    if let Some(file) = &to.output_file {
                        self.permit(&format!("mirrors.{name}.output-file"), Device::File(file))?;
                    }
                }
                _ => {}
            }
        }
        Ok(diff)
    }

    fn permit(&self, part: &str, device: Device<'_>) -> Result<(), Error> {
        let Some(permit) = &self.options.permit else { return Ok(()) };
        permit(device).map_err(|reason| Error::NotPermitted { part: part.to_owned(), reason })
    }

    fn carry_out(&mut self, change: &Change, missing: Missing) -> Result<(), Error> {
        match change {
            Change::Workers { to, .. } => {
                let (cores, count) = to.places();
                self.switch.set_workers(cores, count)?;
            }
            Change::Idle { to, .. } => {
                self.switch.set_idle(to.busy_poll, Duration::from_micros(to.idle_after));
            }
            Change::AddBridge { name, options } => self.switch.add_bridge(name, options)?,
            Change::SetBridge { name, to, .. } => self.switch.set_bridge(name, to)?,
            Change::RemoveBridge { name, .. } => self.switch.remove_bridge(name)?,
            Change::Forget { port, address } if self.is_open(port) => {
                self.switch.fdb_remove_static(address.mac, address.vlan, port)?;
            }
            Change::Remember { port, address } if self.is_open(port) => {
                self.remember(port, *address)?;
            }
            Change::Set { name, from, to } if self.is_open(name) => {
                if let Some(peer) = to.peer().filter(|peer| from.peer() != Some(peer)) {
                    self.switch.set_peer(name, peer)?;
                }
                self.switch.set_port(name, &to.options())?;
            }
            // It will be opened with what it is to be by then.
            Change::Forget { .. } | Change::Remember { .. } | Change::Set { .. } => {}
            Change::RemovePort { name, .. } => {
                if !self.waiting.remove(name) {
                    self.switch.remove_port(name)?;
                }
            }
            Change::RemoveVdpa { name, .. } => {
                if !self.waiting.remove(name) {
                    self.hub.remove(name);
                }
            }
            Change::Mirror { name, to: Some(to), .. } => self.switch.set_mirror(name, to)?,
            Change::Mirror { name, to: None, .. } => _ = self.switch.remove_mirror(name),
            Change::Exchange { name, from, to } => self.exchange(name, (from, to), missing)?,
            Change::AddPort { name, port } => {
                let opened = self.open_port(name, port);
                self.or_wait(name, opened, missing)?;
            }
            Change::AddVdpa { name, device } => {
                let opened = self.hub.open(name, device);
                self.or_wait(name, opened, missing)?;
            }
        }
        Ok(())
    }

    /// Has another device behind a port. Where that cannot be opened now, the port goes, and is tried
    /// again with it, or it has the one so far again.
    fn exchange(
        &mut self,
        name: &str,
        (from, to): (&Port, &Port),
        missing: Missing,
    ) -> Result<(), Error> {
        if self.waiting.remove(name) {
            let opened = self.open_port(name, to);
            let refused = self.or_wait(name, opened, missing);
            if let Err(error) = &refused {
                // It waits for the one so far again.
                self.failed(name, error);
            }
            return refused;
        }
        let exchanged = self.switch.exchange_device(name, &to.device);
        let Err(error) = exchanged.map_err(Error::from) else { return Ok(()) };
        if (missing == Missing::Refuse || error.is_permanent())
            && self.switch.exchange_device(name, &from.device).is_ok()
        {
            return Err(error);
        }
        self.switch.remove_port(name)?;
        self.or_wait(name, Err(error), missing)
    }

    fn undo<'a>(&mut self, done: impl DoubleEndedIterator<Item = &'a Change>) {
        for change in done.rev() {
            if let Err(error) = self.carry_out(&change.inverse(), Missing::Retry) {
                tracing::error!("cannot undo '{change}': {error}");
            }
        }
    }

    fn is_open(&self, name: &str) -> bool {
        !self.waiting.has(name)
    }

    fn open_port(&self, name: &str, port: &Port) -> Result<(), Error> {
        self.switch.open_port(name, &port.device, &port.options())?;
        for address in &port.addresses {
            if let Err(error) = self.remember(name, *address) {
                self.switch.remove_port(name)?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn remember(&self, port: &str, address: Address) -> Result<(), Error> {
        self.switch.fdb_add_static(address.mac, address.vlan, port)?;
        Ok(())
    }

    /// Notes a failure to open `name` as one to try again, if that may help.
    fn or_wait(
        &mut self,
        name: &str,
        opened: Result<(), Error>,
        missing: Missing,
    ) -> Result<(), Error> {
        let Err(error) = opened else { return Ok(()) };
        if missing == Missing::Refuse || error.is_permanent() {
            return Err(error);
        }
        self.failed(name, &error);
        Ok(())
    }

    fn failed(&mut self, name: &str, error: &Error) {
        if self.waiting.failed(name, &error.to_string(), self.options.time.now()) {
            tracing::error!(
                "{}; the switch goes on without it and tries again",
                named(name, error)
            );
        } else {
            tracing::debug!("{}; it is tried again", named(name, error));
        }
    }

    /// How long until [`retry`](Self::retry) has something to do; `None` where nothing waits, or
    /// the clock stands still.
    #[must_use]
    pub fn next_retry(&self) -> Option<Duration> {
        self.options.time.until(self.waiting.next()?)
    }

    /// Tries again to open those ports and vDPA devices whose turn it is. To be called when
    /// [`next_retry`](Self::next_retry) says so.
    pub fn retry(&mut self) {
        for name in self.waiting.due(self.options.time.now()) {
            let opened = match (self.state.ports.get(&name), self.state.vdpa.get(&name)) {
                (Some(port), _) => self.open_port(&name, port),
                (None, Some(device)) => self.hub.open(&name, device),
                (None, None) => Ok(()),
            };
            match opened {
                Ok(()) => _ = self.waiting.remove(&name),
                Err(error) => self.failed(&name, &error),
            }
        }
    }

    /// Does whatever has become due by the clock: addresses that are too old are forgotten, devices
    /// whose turn it is are tried again. That happens by itself, too; after this, it has.
    pub fn catch_up(&mut self) {
        self.switch.catch_up();
        self.retry();
    }

    /// Detaches the devices, stops the workers and closes all ports.
    pub fn shutdown(self) -> ShutdownReport {
        let Self { hub, switch, .. } = self;
        drop(hub);
        switch.shutdown()
    }
}

/// An error that says which port or device it is about.
fn named(name: &str, error: &Error) -> String {
    match error {
        Error::Vdpa { .. } => format!("'{name}': {error}"),
        error => error.to_string(),
    }
}
