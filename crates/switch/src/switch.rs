//! The switch as an application sees it.

use ::fdb::Fdb;
use datapath::bridge::BridgeId;
use datapath::guard::PortGuard;
use datapath::inlet::Pace;
use datapath::limit::PortLimits;
use datapath::record::Record;
use datapath::worker::{Idle, Mailbox, Message};
use ethdev::OpenPort;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use conntrack::{Conntrack, Timeouts};
use drivers::Drivers;
use drivers::dummy::Dummies;
use eal::time::Time;
use eal::{EventFd, Workers, clock};
use packet::Pool;
use packet::pool::DATA_ROOM;

use self::bonds::{Bonds, Bundle};
use self::groups::Groups;
use self::lldp::Lldp;
use self::patches::{Cable, patch_peer};
use self::rstp::Branches;
use self::traps::Ears;
use self::tunnels::{Tube, Underlay};
use self::watches::Watches;
use crate::bond::BOND_DEVICE;
use crate::bridges::Bridges;
use crate::capture::Wanted;
use crate::config::{MAX_PORTS, PortOptions, SwitchConfig};
use crate::error::Error;
use crate::housekeeper::{Agers, Housekeeper, Notes, TICK, Task, notes};
use crate::identity::Identity;
use crate::mirror::Mirrors;
use crate::ports::{Entry, Ports};
use crate::report::{PortReport, ShutdownReport, WorkerReport};
use crate::sample::Wanted as Samplings;
use crate::tunnel_device::tunnel_settings;
use crew::{Seat, wanted_cores};

pub(crate) mod bonds;
mod bridges;
mod captures;
mod connections;
mod counts;
mod crew;
mod fdb;
mod flows;
mod groups;
mod lacp;
mod live;
mod lldp;
mod mirrors;
mod monitors;
mod offers;
mod orders;
pub(crate) mod patches;
mod recording;
mod rstp;
mod samplings;
pub(crate) mod through;
mod traps;
pub(crate) mod tunnels;
mod watches;

/// A learning switch. Its methods may be called from any thread; none of them makes a worker
/// wait. Dropping it stops it.
///
/// ```
/// use switch::{PortOptions, Switch, SwitchConfig};
///
/// let switch = Switch::start(&SwitchConfig::default())?;
/// switch.open_port("sink", "null:", &PortOptions::default())?;
/// assert_eq!(switch.ports()[0].name, "sink");
/// switch.remove_port("sink")?;
/// switch.shutdown();
/// # Ok::<(), switch::Error>(())
/// ```
#[derive(Debug)]
pub struct Switch {
    // The order matters: fields are dropped from first to last, the drivers' environment after
    // the ports.
    housekeeper: Option<Housekeeper>,
    control: Arc<Mutex<Control>>,
    started: Instant,
    time: Time,
    drivers: Drivers,
    /// Signalled when a port was looked after because of its link; see [`Control::links`].
    links: Arc<EventFd>,
}

/// What control threads use in turns. Workers never touch it.
#[derive(Debug)]
pub(crate) struct Control {
    /// `None` once they are stopped.
    workers: Option<Workers>,
    mailboxes: Vec<Mailbox>,
    /// The same, as the system sees them.
    seats: Vec<Seat>,
    /// What they do without frames.
    idle: Idle,
    /// Where their data paths have buffers from.
    spare: Pool,
    ports: Ports,
    mirrors: Mirrors,
    captures: Wanted,
    samplings: Samplings,
    /// Which packets are recorded.
    records: Record,
    bridges: Bridges,
    connections: Arc<Conntrack>,
    bonds: Bonds,
    /// Signalled when there may be something else to see of links, bonds and ports that are shut.
    links: Arc<EventFd>,
    lldp: Lldp,
    rstp: Branches,
    ears: Ears,
    groups: Groups,
    watches: Watches,
    notes: Notes,
    /// How much of what neighbours say is taken at once.
    pace: Pace,
    time: Time,
    identity: Identity,
    /// Whether devices may have another MTU than is asked for.
    mtu_is_wish: bool,
    underlay: Underlay,
}

/// What a port is made of.
enum Kind {
    /// Queues of a device.
    Device,
    Patch(Arc<Cable>),
    Bond(Arc<Bundle>),
    Tunnel(Arc<Tube>),
}

impl Switch {
    /// Starts the workers of a switch without ports.
    ///
    /// # Errors
    /// A setting out of range, a core that cannot be had, or no thread left.
    pub fn start(config: &SwitchConfig) -> Result<Self, Error> {
        Self::start_with(config, Time::system())
    }

    /// The same with a clock of its own, by which addresses age and ports look at their devices.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: &SwitchConfig, time: Time) -> Result<Self, Error> {
        config.check()?;
        let (notes, inbox) = notes();
        let links = EventFd::new();
        let links = links.map_err(|source| Error::System { action: "watch links", source })?;
        let links = Arc::new(links);
        let control = Control::start(config, Arc::clone(&links), notes.clone(), time.clone())?;
        let control = Arc::new(Mutex::new(control));
        let mut agers = Agers::default();
        let ports = Arc::downgrade(&control);
        let housekeeper = Housekeeper::start(notes, inbox, time.clone(), move |task| {
            let control = ports.upgrade()?;
            match task {
                Task::Second(elapsed) => {
                    let (fdbs, connections, due) = {
                        let mut control = lock(&control);
                        let connections = control.connections_at(elapsed);
                        control.flush_flows(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
                        control.go_on_recording();
                        (control.look_around(), connections, control.run_protocols())
                    };
                    // Without the lock, since it may take a while.
                    agers.tick(fdbs, elapsed);
                    connections::sweep(&connections);
                    due
                }
                Task::Link(number) => {
                    let mut control = lock(&control);
                    let due = control.look_at_port(number);
                    control.tell_links();
                    due
                }
                Task::Due => lock(&control).run_protocols(),
            }
        })?;
        Ok(Self {
            housekeeper: Some(housekeeper),
            control,
            started: time.now(),
            drivers: Drivers::new().with_sockets(config.sockets).with_time(time.clone()),
            time,
            links,
        })
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    pub(crate) fn parts(&self) -> (Weak<Mutex<Control>>, Instant, Time) {
        (Arc::downgrade(&self.control), self.started, self.time.clone())
    }

    /// Opens a device, such as `vhost-user:/run/vm1.sock`, and adds it as port `name`. The device
    /// `patch:PEER` is a patch port: what its bridge sends there comes in at port `PEER` of another
    /// bridge, which has the device `patch:NAME`, and the other way round. Until both are there
    /// their links are down. The device `bond:` is a bond, made of those ports that say so in their
    /// options. The devices `vxlan:`, `geneve:` and `gre:` are tunnels, which go by what
    /// [`set_underlay`](Self::set_underlay) says.
    ///
    /// # Errors
    /// As [`add_port`](Self::add_port), and where the device cannot be opened.
    pub fn open_port(&self, name: &str, device: &str, options: &PortOptions) -> Result<(), Error> {
        if let Some(peer) = patch_peer(device) {
            return self.control().add_patch(name, peer, options);
        }
        if device == BOND_DEVICE {
            return self.control().add_bond(name, options);
        }
        if let Some(settings) = tunnel_settings(device) {
            let settings =
                settings.map_err(|source| Error::Port { name: name.to_owned(), source })?;
            return self.control().add_tunnel((name, device), settings, options);
        }
        self.control().check_new_port(name, options)?;
        // Without the lock, since it may take a while.
        let port = drivers::open(name, device, &self.drivers)
            .map_err(|source| Error::Port { name: name.to_owned(), source })?;
        self.add_port(port, options)
    }

    /// Adds a port that is open already. When this returns, its queues are polled.
    ///
    /// # Errors
    /// The name is taken or unusual, there are too many ports, the MTU cannot be set, the bridge or a
    /// worker does not exist, or all have ended. The port is then closed.
    pub fn add_port(&self, port: OpenPort, options: &PortOptions) -> Result<(), Error> {
        self.control().add_port(port, options)
    }

    /// Removes a port: takes its queues back from the workers, forgets its addresses, static
    /// ones too, and closes the device. Returns what it had counted.
    ///
    /// # Errors
    /// There is no such port.
    pub fn remove_port(&self, name: &str) -> Result<PortReport, Error> {
        self.control().remove_port(name)
    }

    /// All ports, in the order of their names.
    #[must_use]
    pub fn ports(&self) -> Vec<PortReport> {
        let control = self.control();
        control.ports.iter().map(|(name, entry)| control.report(name, entry)).collect()
    }

    /// All ports as [`ports`](Self::ports) has them, without the facts of their devices
    /// ([`PortReport::details`]): for those who come often.
    #[must_use]
    pub fn samples(&self) -> Vec<PortReport> {
        self.control().samples()
    }

    /// One port.
    ///
    /// # Errors
    /// There is no such port.
    pub fn port(&self, name: &str) -> Result<PortReport, Error> {
        let control = self.control();
        Ok(control.report(name, control.ports.get(name)?))
    }

    /// Its ports of the driver `dummy`.
    #[must_use]
    pub const fn dummies(&self) -> &Dummies {
        self.drivers.dummies()
    }

    /// All workers.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.control().worker_reports()
    }

    /// Readable once the link of a port, the active member of a bond, or whether a port is shut may
    /// have changed, until [`heed_links`](Self::heed_links) is called.
    #[must_use]
    pub fn links(&self) -> BorrowedFd<'_> {
        self.links.as_fd()
    }

    /// Whether one of [these](Self::links) may have changed since this was called last.
    pub fn heed_links(&self) -> bool {
        self.links.drain().unwrap_or(true)
    }

    /// How long the switch has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.time.now().saturating_duration_since(self.started)
    }

    /// Waits until all addresses are forgotten that are too old by the clock: without this, it takes
    /// a moment after that was put forward.
    pub fn catch_up(&self) {
        if let Some(housekeeper) = &self.housekeeper {
            housekeeper.catch_up();
        }
    }

    /// Stops the workers and closes all ports.
    pub fn shutdown(mut self) -> ShutdownReport {
        self.stop()
    }

    fn stop(&mut self) -> ShutdownReport {
        self.housekeeper = None;
        let panics = self.control().stop();
        ShutdownReport { panics, uptime: self.uptime() }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Control {
    fn start(
        config: &SwitchConfig,
        links: Arc<EventFd>,
        notes: Notes,
        time: Time,
    ) -> Result<Self, Error> {
        let system = |action| move |source| Error::System { action, source };
        // Packets go through the switch in buffers of the ports' own; nothing is allocated here.
        let spare = Pool::new("switch", 1, DATA_ROOM);
        let spare = spare.map_err(io::Error::other).map_err(system("allocate memory"))?;
        let mut control = Self {
            workers: Some(Workers::new().map_err(system("start workers"))?),
            mailboxes: Vec::new(),
            seats: Vec::new(),
            // Calibrates the clock, before anybody is in a hurry.
            idle: Idle::new(config.busy_poll, config.idle_after),
            spare,
            ports: Ports::default(),
            mirrors: Mirrors::default(),
            captures: Wanted::default(),
            samplings: Samplings::default(),
            records: Record::Nothing,
            bridges: Bridges::new(&config.bridge())?,
            connections: Arc::new(Conntrack::with_lag(&Timeouts::default(), TICK)),
            bonds: Bonds::default(),
            links,
            lldp: Lldp::default(),
            rstp: Branches::default(),
            ears: Ears::default(),
            groups: Groups::default(),
            watches: Watches::default(),
            notes,
            pace: Pace::new(&time),
            underlay: Underlay::new(time.now()),
            time,
            identity: config.identity.clone(),
            mtu_is_wish: config.mtu_is_wish,
        };
        for core in wanted_cores(&config.cores, config.workers) {
            let (mailbox, seat) = control.start_worker(core)?;
            control.mailboxes.push(mailbox);
            control.seats.push(seat);
        }
        control.update_groups();
        Ok(control)
    }

    /// Has whoever waits for [`Switch::links`] look.
    fn tell_links(&self) {
        // It fails when nobody has read it for very long, which tells the same.
        let _ = self.links.signal();
    }

    fn is_alive(&self, worker: usize) -> bool {
        let (workers, seat) = (self.workers.as_ref(), self.seats.get(worker));
        workers.zip(seat).is_some_and(|(workers, seat)| !workers.has_ended(seat.thread))
    }

    fn check_new_port(&self, name: &str, options: &PortOptions) -> Result<(), Error> {
        self.ports.check_new(name)?;
        self.bridges.get(options.bridge_name())?;
        options.check(name, self.mailboxes.len())
    }

    fn add_port(&mut self, open: OpenPort, options: &PortOptions) -> Result<(), Error> {
        self.add_port_with(open, Kind::Device, options)
    }

    fn add_port_with(
        &mut self,
        open: OpenPort,
        kind: Kind,
        options: &PortOptions,
    ) -> Result<(), Error> {
        let OpenPort { mut port, rx, tx } = open;
        let name = port.name().to_owned();
        self.check_new_port(&name, options)?;
        let bridge = self.home_of(options)?;
        let own_mtu = port.control().mtu();
        if let Some(mtu) = options.mtu {
            let set = port.control_mut().set_mtu(mtu);
            self.allow_mtu(set.map_err(|source| Error::Port { name: name.clone(), source }))?;
        }
        let places = self.place(&name, rx.len(), &options.workers)?;
        let number = self
            .ports
            .free_number()
            .ok_or_else(|| Error::TooManyPorts { name: name.clone(), max: MAX_PORTS })?;
        tracing::info!(port = name, device = port.device(), "port added");
        let mut entry = Entry::new(number, bridge, port, own_mtu, options);
        match kind {
            Kind::Patch(cable) => entry.set_cable(cable),
            Kind::Bond(bundle) => entry.set_bundle(bundle),
            Kind::Tunnel(tube) => entry.set_tube(tube),
            Kind::Device => entry.put(rx, tx, self.mailboxes.len(), self.notes.of_port(number)),
        }
        entry.on_trip(self.notes.of_port(number));
        // First it joins its bridge, then the workers get the way to the port, then the way from it,
        // so that an answer to its first frame finds it.
        let had_vlans = self.have_vlans(bridge);
        self.close_gate(options.bridge_name());
        entry.join(&self.mailboxes);
        self.bridges
            .get(options.bridge_name())?
            .fdb()
            .set_most(number, options.guard.max_addresses);
        let none = PortLimits::default();
        entry.update_limits(&none, &self.mailboxes);
        entry.update_guard((&PortGuard::default(), &none), &self.mailboxes);
        // A mirror's output port must get nothing else from the beginning.
        let more = (bridge != BridgeId::BOND).then_some((name.as_str(), number));
        self.update_mirrors(options.bridge_name(), more);
        // And its first frame is one to be captured.
        self.update_captures(Some((&name, &entry)));
        entry.attach(&self.mailboxes);
        entry.poll(places, &self.mailboxes);
        entry.on_event(self.notes.of_port(number));
        self.ports.insert(name, entry);
        self.update_patches();
        self.update_protocols();
        self.forget_other_vlans((options.bridge_name(), bridge), had_vlans)
    }

    /// Forgets what was learnt if a bridge has begun to look at tags, or ceased to: addresses are
    /// in other VLANs now. No worker learns in the old way any more, since all have answered.
    pub(crate) fn forget_other_vlans(
        &mut self,
        (bridge, id): (&str, BridgeId),
        had_vlans: bool,
    ) -> Result<(), Error> {
        if id == BridgeId::BOND {
            return Ok(());
        }
        if self.have_vlans(id) != had_vlans {
            self.bridges.get(bridge)?.fdb().write().flush(None);
            self.clear_groups(bridge);
            self.update_groups();
        }
        Ok(())
    }

    /// The bridge of a port with these options; none of its own where it is a member of a bond.
    fn home_of(&self, options: &PortOptions) -> Result<BridgeId, Error> {
        let bridge = self.bridges.get(options.bridge_name())?.id();
        Ok(if options.bond.is_some() { BridgeId::BOND } else { bridge })
    }

    /// Chooses a worker for each of the `count` receive queues of port `name`: those that are
    /// `wanted`, in turn, or the ones with the fewest queues of others.
    fn place(&self, name: &str, count: usize, wanted: &[usize]) -> Result<Vec<usize>, Error> {
        let all = self.alive();
        let wanted: Vec<usize> =
            wanted.iter().copied().filter(|worker| all.contains(worker)).collect();
        if !wanted.is_empty() {
            return Ok(wanted.into_iter().cycle().take(count).collect());
        }
        let others = |worker| self.ports.queues_of(worker).filter(|(port, _)| *port != name);
        let mut load: Vec<(usize, usize)> =
            all.into_iter().map(|worker| (others(worker).count(), worker)).collect();
        let mut placed = Vec::new();
        for _ in 0..count {
            let least = load.iter_mut().min().ok_or(Error::NoWorker)?;
            placed.push(least.1);
            least.0 = least.0.saturating_add(1);
        }
        if load.is_empty() { Err(Error::NoWorker) } else { Ok(placed) }
    }

    /// The workers that run.
    fn alive(&self) -> Vec<usize> {
        (0..self.mailboxes.len()).filter(|worker| self.is_alive(*worker)).collect()
    }

    /// A worker that has not ended, for what any of them can do.
    fn any_worker(&self) -> Result<&Mailbox, Error> {
        let first = (0..self.mailboxes.len()).find(|worker| self.is_alive(*worker));
        first.and_then(|worker| self.mailboxes.get(worker)).ok_or(Error::NoWorker)
    }

    /// Looks after port `number`, of which a device or a worker has told something.
    ///
    /// Forgets what was learnt if its link is down, or was down since the last look: what is behind
    /// it may be elsewhere now, and frames to it are flooded until it is heard again.
    fn look_at_port(&mut self, number: u16) -> Option<Instant> {
        // What has failed is given up before anything else.
        self.run_bonds();
        self.ports.look_at_lost(number, &self.mailboxes);
        self.shut_port(number);
        if self.ports.was_down(number) {
            self.forget_behind(number);
        }
        self.watches.ask(number);
        self.run_protocols()
    }

    /// Does what is due by all protocols; returns when there is something to do next.
    fn run_protocols(&mut self) -> Option<Instant> {
        // Bonds go by which links do.
        let watches = self.run_watches();
        self.run_tunnels();
        let bonds = self.run_bonds();
        let others = self.run_lldp().into_iter().chain(self.run_rstp()).chain(watches);
        // Bonds and spanning tree may have more to be asked.
        others.chain(bonds).chain(self.run_groups()).min()
    }

    /// Looks after all that depends on which ports there are, and what they are set to.
    fn update_protocols(&mut self) {
        self.forget_ears();
        self.update_watches();
        self.update_bonds();
        self.update_lldp();
        self.update_rstp();
        self.update_groups();
        self.update_tunnels();
    }

    fn forget_behind(&mut self, number: u16) {
        // Frames that came before the link went down are dealt with, and learnt from, when every
        // worker has answered.
        for mailbox in &self.mailboxes {
            mailbox.ask(Message::Answer);
        }
        let Some((name, entry)) = self.ports.numbered(number) else { return };
        if let Ok(fdb) = self.fdb_of(entry) {
            let removed = fdb.write().flush(Some(number));
            tracing::debug!(port = name, removed, "forgot addresses: link down");
        }
        self.forget_groups(number);
    }

    /// Shuts port `number`, if a worker has found that it is to be.
    fn shut_port(&mut self, number: u16) {
        let Some((name, entry)) = self.ports.numbered_mut(number) else { return };
        if !entry.shut(&self.mailboxes) {
            return;
        }
        tracing::warn!(
            port = name,
            "shut: it has sent a message of spanning tree; 'ringway port set' opens it again"
        );
        let Some((_, entry)) = self.ports.numbered(number) else { return };
        if let Ok(fdb) = self.fdb_of(entry) {
            fdb.write().flush(Some(number));
        }
        self.forget_groups(number);
    }

    /// Looks at what changes by itself; returns all forwarding databases.
    fn look_around(&mut self) -> Vec<Arc<Fdb>> {
        self.ports.update_mtus();
        let alive = self.alive();
        self.ports.look_at_owners(&self.mailboxes, &alive);
        self.bridges.fdbs().cloned().collect()
    }

    fn remove_port(&mut self, name: &str) -> Result<PortReport, Error> {
        let entry = self.ports.get(name)?;
        let (bridge, id, bond) =
            (entry.bridge_name().to_owned(), entry.bridge(), entry.options().bond.clone());
        self.leave_lldp(name);
        let had_vlans = self.leave(name)?;
        self.ports.get_mut(name)?.detach(&self.mailboxes);
        // It counts for its bond to the end.
        bond.iter().for_each(|bond| self.count_bond(bond));
        let report = self.report(name, self.ports.get(name)?);
        self.ports.get_mut(name)?.drop_limits(&self.mailboxes);
        self.ports.remove(name);
        self.forget_neighbours(name);
        self.remove_bond(name);
        self.update_protocols();
        self.update_mirrors(&bridge, None);
        self.update_captures(None);
        self.forget_other_vlans((&bridge, id), had_vlans)?;
        tracing::info!(port = name, "port removed");
        Ok(report)
    }

    /// Has a port belong to no bridge: nothing comes in from it any more, and all its addresses are
    /// forgotten. Returns whether the bridge has looked at tags so far.
    fn leave(&mut self, name: &str) -> Result<bool, Error> {
        self.part(name);
        self.untell_bond(name);
        self.ports.get_mut(name)?.unpoll(&self.mailboxes);
        let entry = self.ports.get(name)?;
        // Nobody learns its addresses any more.
        self.fdb_of(entry)?.write().remove_port(entry.number());
        self.fdb_of(entry)?.set_most(entry.number(), None);
        let had_vlans = self.have_vlans(entry.bridge());
        entry.leave(&self.mailboxes);
        let number = entry.number();
        self.connections.fragments().forget(number.into());
        self.forget_groups(number);
        Ok(had_vlans)
    }

    pub(crate) fn samples(&self) -> Vec<PortReport> {
        let sample = |(name, entry): (&str, &Entry)| {
            self.count_bond(name);
            let is_agreed = self.is_agreed(name, entry);
            PortReport { is_agreed, ..entry.sample(name, self.learned_on(entry)) }
        };
        self.ports.iter().map(sample).collect()
    }

    fn report(&self, name: &str, entry: &Entry) -> PortReport {
        self.count_bond(name);
        let mut report = entry.report(name, self.learned_on(entry));
        report.is_agreed = self.is_agreed(name, entry);
        if let Some(bond) = report.bond.as_ref().and_then(|bond| self.ports.get(bond).ok()) {
            bond.bridge_name().clone_into(&mut report.bridge);
        }
        report
    }

    /// How many addresses were learnt on a port.
    fn learned_on(&self, entry: &Entry) -> usize {
        let learned = |fdb: &Arc<Fdb>| fdb.write().learned_on(entry.number());
        self.fdb_of(entry).map_or(0, learned)
    }

    fn worker_reports(&self) -> Vec<WorkerReport> {
        let now = clock::now();
        let workers = self.mailboxes.iter().zip(&self.seats).enumerate();
        let report = |(index, (mailbox, seat)): (usize, (&Mailbox, &Seat))| {
            let counters = &mailbox.counters;
            WorkerReport {
                index,
                core: seat.core,
                alive: self.is_alive(index),
                polls: counters.polls.get(),
                busy_polls: counters.busy_polls.get(),
                packets: counters.packets.get(),
                busy_cycles: counters.busy_cycles.get(),
                total_cycles: now.saturating_sub(seat.since),
                sleeps: counters.sleeps.get(),
                sleep_cycles: counters.asleep.until(now),
                look_ups: counters.look_ups(),
                queues: self.ports.queues_of(index).map(|(n, q)| (n.to_owned(), q)).collect(),
            }
        };
        workers.map(report).collect()
    }

    /// Stops the workers and closes the ports; returns the workers that panicked.
    fn stop(&mut self) -> Vec<(usize, String)> {
        self.leave_all_lldp();
        let Some(workers) = self.workers.take() else { return Vec::new() };
        workers.stop();
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
        let panics = workers.join().into_iter();
        // The queues are dropped by now, with their workers.
        self.ports.clear();
        panics.filter_map(|exit| Some((exit.index, exit.panic?))).collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}
