//! The switch's ports as control threads see them, and how queues get to the workers and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use datapath::bridge::{BridgeChange, BridgeId};
use datapath::guard::{BpduGuard, Guard, PortGuard, Trip};
use datapath::inputs::Input;
use datapath::limit::{Direction, PortLimits};
use datapath::output::Output;
use datapath::owners::{Owners, Watch};
use datapath::vlan::policy::Policy;
use datapath::worker::{Mailbox, Message};
use eal::clock;
use ethdev::{Link, Port, PortControl, PortStats, RxQueue, TxQueue};
use litemap::LiteMap;
use tunnel::Mode;

use crate::bridges::tell;
use crate::config::{MAX_PORTS, MAX_TX_RETRIES, PortOptions};
use crate::error::Error;
use crate::report::PortReport;
use crate::switch::bonds::Bundle;
use crate::switch::patches::Cable;
use crate::switch::tunnels::Tube;

/// The longest name of a port, in bytes.
const MAX_NAME: usize = 32;

/// How long a worker relies on a queue to be ready before it looks again.
const RECHECK: Duration = Duration::from_millis(1);

/// What a port without a device waits for: that of one exchange, and of no other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<()>);

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A port.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u16,
    /// The bridge that it belongs to.
    bridge: BridgeId,
    /// What it has as a patch port.
    cable: Option<Arc<Cable>>,
    /// What it has as a bond.
    bundle: Option<Arc<Bundle>>,
    /// What it has as a port of a tunnel.
    tube: Option<Arc<Tube>>,
    // The order matters: queues are dropped before their device.
    /// What the workers have not got while the port is disabled.
    parked: Parked,
    /// Whose the transmit queues are; `None` as long as there are none.
    owners: Option<Owners>,
    port: Port,
    /// As the workers see it.
    mtu: Arc<AtomicU32>,
    /// The device's own MTU, as it was before anybody set one.
    own_mtu: u16,
    options: PortOptions,
    /// The worker of each receive queue.
    rx_workers: Vec<usize>,
    /// How often the link had changed when it was last looked at.
    link_changes: u64,
    /// What shuts it.
    trip: Option<Arc<Trip>>,
    /// Whether it is shut, until one of its settings is changed.
    is_shut: bool,
    /// Of the exchange that has closed its device and is to give it another one.
    ticket: Option<Ticket>,
}

impl Entry {
    /// Port `number` of a bridge, whose queues are with nobody yet.
    pub(crate) fn new(
        number: u16,
        bridge: BridgeId,
        port: Port,
        own_mtu: u16,
        options: &PortOptions,
    ) -> Self {
        let mtu = Arc::new(AtomicU32::new(u32::from(port.control().mtu())));
        let (parked, rx_workers, options) = (Parked::default(), Vec::new(), options.clone());
        let (owners, cable, bundle, tube, link_changes) = (None, None, None, None, 0);
        Self {
            number,
            bridge,
            cable,
            bundle,
            tube,
            parked,
            owners,
            port,
            mtu,
            own_mtu,
            options,
            rx_workers,
            link_changes,
            trip: None,
            is_shut: false,
            ticket: None,
        }
    }

    /// Whether no frame is to go in or out.
    fn is_off(&self) -> bool {
        self.options.disabled || self.is_shut
    }

    /// Whether frames may go in and out, as far as the switch is concerned.
    pub(crate) fn is_in_service(&self) -> bool {
        !self.is_off()
    }

    /// Whether it is shut.
    pub(crate) const fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Has `notify` called when a worker finds that the port is to be shut; see
    /// [`shut`](Self::shut).
    pub(crate) fn on_trip(&mut self, notify: impl Fn() + Send + Sync + 'static) {
        self.trip = Some(Arc::new(Trip::new(notify)));
    }

    /// Shuts the port, if a worker has found that it is to be; returns whether it has. Workers go on polling it: its
    /// guard drops all that comes, so that nothing of it waits for the port to be opened again.
    pub(crate) fn shut(&mut self, workers: &[Mailbox]) -> bool {
        let is_due = self.trip.as_ref().is_some_and(|trip| trip.is_tripped());
        if !is_due || self.is_shut || self.options.guard.bpdu_guard != BpduGuard::Shut {
            return false;
        }
        self.is_shut = true;
        self.detach(workers);
        true
    }

    /// Has the port be what `options` say, and no more shut; the workers are told what they may
    /// have of it. Returns whether they have the way to it now and did not before, or the other way round.
    pub(crate) fn switch_to(&mut self, options: &PortOptions) -> bool {
        let was_off = self.is_off();
        self.options = options.clone();
        self.is_shut = false;
        if let Some(trip) = &self.trip {
            trip.reset();
        }
        was_off != self.is_off()
    }

    /// The device string: that it was opened with, or for a patch port, what it has come to be.
    pub(crate) fn device(&self) -> String {
        let cable = self.cable.as_ref();
        cable.map_or_else(|| self.port.device().to_owned(), |cable| cable.device())
    }

    /// Its number.
    pub(crate) const fn number(&self) -> u16 {
        self.number
    }

    /// Makes it a patch port.
    pub(crate) fn set_cable(&mut self, cable: Arc<Cable>) {
        self.cable = Some(cable);
    }

    /// What it has as a patch port; `None` if it is none.
    pub(crate) const fn cable(&self) -> Option<&Arc<Cable>> {
        self.cable.as_ref()
    }

    /// Makes it a bond.
    pub(crate) fn set_bundle(&mut self, bundle: Arc<Bundle>) {
        self.bundle = Some(bundle);
    }

    /// Makes it a port of a tunnel.
    pub(crate) fn set_tube(&mut self, tube: Arc<Tube>) {
        self.tube = Some(tube);
    }

    /// What it has as a port of a tunnel; `None` if it is none.
    pub(crate) const fn tube(&self) -> Option<&Arc<Tube>> {
        self.tube.as_ref()
    }

    /// What it has as a bond; `None` if it is none.
    pub(crate) const fn bundle(&self) -> Option<&Arc<Bundle>> {
        self.bundle.as_ref()
    }

    /// Its device, to look at.
    pub(crate) fn control(&self) -> &dyn PortControl {
        self.port.control()
    }

    /// What has gone through its queues.
    pub(crate) fn stats(&self) -> PortStats {
        self.port.stats()
    }

    /// The bridge that it belongs to; [`BridgeId::BOND`] for a member of a bond.
    pub(crate) const fn bridge(&self) -> BridgeId {
        self.bridge
    }

    /// The name of that.
    pub(crate) fn bridge_name(&self) -> &str {
        self.options.bridge_name()
    }

    /// Has it belong to another bridge or bond, once it has [left](Self::leave) the one so far.
    pub(crate) fn set_bridge(&mut self, bridge: BridgeId, options: &PortOptions) {
        self.bridge = bridge;
        self.options.bridge.clone_from(&options.bridge);
        self.options.bond.clone_from(&options.bond);
    }

    /// Sets the MTU; `None` is the device's own.
    pub(crate) fn set_mtu(&mut self, name: &str, mtu: Option<u16>) -> Result<(), Error> {
        let mtu = mtu.unwrap_or(self.own_mtu);
        let set = self.port.control_mut().set_mtu(mtu);
        set.map_err(|source| Error::Port { name: name.to_owned(), source })?;
        self.update_mtu();
        Ok(())
    }

    /// Has another device behind it, whose queues are with nobody yet; those of the one so far have to be
    /// [taken](Self::detach) from the workers before. What is known of the port stays.
    fn exchange(&mut self, port: Port) {
        // Queues are dropped before their device.
        self.parked = Parked::default();
        self.owners = None;
        self.link_changes = port.control().link().changes;
        self.own_mtu = port.control().mtu();
        self.port = port;
        self.update_mtu();
    }

    /// Has `none` behind it, which carries nothing, until it is [filled](Self::fill) with the ticket that this gives.
    pub(crate) fn clear(&mut self, none: Port) -> Ticket {
        self.exchange(none);
        self.ticket.insert(Ticket::default()).clone()
    }

    /// Has another device behind it, whose queues are with nobody yet.
    pub(crate) fn fill(&mut self, port: Port) {
        self.ticket = None;
        self.exchange(port);
    }

    /// Whether it is still to be filled with this ticket: it may be another port of its name by now, or wait
    /// for the device of somebody else.
    pub(crate) fn waits_for(&self, ticket: &Ticket) -> bool {
        self.ticket.as_ref() == Some(ticket)
    }

    /// Has `notify` called when the link changes.
    pub(crate) fn on_event(&self, notify: impl Fn() + Send + Sync + 'static) {
        self.port.on_event(move |_| notify());
    }

    /// Whether the link is down, or was down for a while since this was asked last.
    fn was_down(&mut self) -> bool {
        let link = self.port.control().link();
        let changes = link.changes.saturating_sub(self.link_changes);
        self.link_changes = link.changes;
        !link.up || changes > 1
    }

    /// Tells the workers the device's MTU.
    fn update_mtu(&self) {
        self.mtu.store(u32::from(self.port.control().mtu()), Relaxed);
    }

    /// What it has counted, of whatever it is made.
    pub(crate) fn stats_of_all(&self) -> PortStats {
        match (&self.cable, &self.bundle, &self.tube) {
            (Some(cable), ..) => cable.stats(),
            (None, Some(bundle), _) => bundle.stats(),
            (None, None, Some(tube)) => tube.stats(),
            (None, None, None) => self.stats(),
        }
    }

    pub(crate) fn report(&self, name: &str, fdb_entries: usize) -> PortReport {
        let details = self.port.control().details();
        PortReport { details, ..self.sample(name, fdb_entries) }
    }

    /// The same without the driver's facts, some of which it has to ask the system for.
    pub(crate) fn sample(&self, name: &str, fdb_entries: usize) -> PortReport {
        let control = self.port.control();
        PortReport {
            name: name.to_owned(),
            device: self.device(),
            driver: control.info().driver,
            bridge: self.bridge_name().to_owned(),
            bond: self.options.bond.clone(),
            link: Link { up: control.link().up && !self.is_shut, ..control.link() },
            is_agreed: true,
            mac: control.mac(),
            mtu: control.mtu(),
            disabled: self.options.disabled,
            is_shut: self.is_shut,
            vlan: self.options.vlan.clone(),
            limits: self.options.limits,
            guard: self.options.guard.clone(),
            mcast_snooping: self.options.mcast_snooping.clone(),
            rx_workers: self.rx_workers.clone(),
            stats: self.stats_of_all(),
            pressures: self.port.pressures(),
            extended: control.extended_stats(),
            peer: control.peer(),
            details: Vec::new(),
            fdb_entries,
        }
    }
}

/// Queues of a port that no worker has.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    inputs: Vec<Input>,
    /// With the worker of each.
    outputs: Vec<(usize, Output)>,
}

/// The workers' side of a port: how its queues get to them, and back.
impl Entry {
    pub(crate) const fn options(&self) -> &PortOptions {
        &self.options
    }

    /// The number of its receive queues.
    pub(crate) fn rx_count(&self) -> usize {
        self.port.control().info().rx_queues
    }

    /// Notes what the port is set to from now on.
    pub(crate) fn set_options(&mut self, options: &PortOptions) {
        self.options = options.clone();
    }

    /// Takes queues of a device that was just opened. `notify` is called when a worker has lost all
    /// its transmit queues ([`look_at_lost`](Self::look_at_lost)).
    pub(crate) fn put(
        &mut self,
        rx: Vec<RxQueue>,
        tx: Vec<TxQueue>,
        workers: usize,
        notify: impl Fn() + Send + Sync + 'static,
    ) {
        let number = self.number;
        let inputs = rx.into_iter().enumerate();
        self.parked.inputs = inputs.map(|(queue, rx)| Input::new(number, queue, rx)).collect();
        let (owners, parts) = Owners::start(number, tx, workers, notify);
        self.owners = Some(owners);
        self.park(parts);
    }

    /// Makes the ways to the port of all workers, whose queues these are.
    fn park(&mut self, parts: Vec<(Vec<TxQueue>, Watch)>) {
        let (workers, recheck) = (parts.len(), clock::cycles(RECHECK));
        let mtu = &self.mtu;
        let output = |(worker, (queues, watch))| {
            let mut output =
                Output::new(Vec::new(), (worker, workers), recheck, Arc::clone(mtu), 0);
            output.set_queues(queues, (worker, workers), watch);
            (worker, output)
        };
        self.parked.outputs = parts.into_iter().enumerate().map(output).collect();
    }

    /// Gives the way to the port to the workers `next`, of whom those in `fresh` have heard nothing
    /// of it, instead of those `before`. Those that are among both can send all the time.
    pub(crate) fn change_workers(
        &mut self,
        before: &[Mailbox],
        (next, fresh): (&[Mailbox], &[Mailbox]),
    ) {
        self.join(fresh);
        let (number, disabled) = (self.number, self.is_off());
        let Some(owners) = &mut self.owners else { return };
        let parked = &mut self.parked.outputs;
        let parts = owners.restart(next.len(), |index| {
            if disabled {
                let parked = parked.iter_mut().find(|(worker, _)| *worker == index);
                return parked.map(|(_, output)| output.share_queues());
            }
            before.get(index)?.on_output(number, Output::share_queues)
        });
        self.park(parts);
        self.attach(next);
        if let [_] = next {
            self.look_at_owners(next, &[0]);
        }
    }

    /// Moves the receive queues from the workers `before` to those of `next` in `places`.
    pub(crate) fn move_inputs(&mut self, places: Vec<usize>, before: &[Mailbox], next: &[Mailbox]) {
        let stays = |place: &usize| match (before.get(*place), next.get(*place)) {
            (Some(before), Some(next)) => before.is_same(next),
            _ => false,
        };
        if places != self.rx_workers || !places.iter().all(stays) {
            self.unpoll(before);
            self.poll(places, next);
        }
    }

    /// Looks whether it is time for the workers to have transmit queues of their own, or to share
    /// them; to be called once a second. `alive` are those that run.
    pub(crate) fn look_at_owners(&mut self, workers: &[Mailbox], alive: &[usize]) {
        let is_off = self.is_off();
        if let Some(owners) = self.owners.as_mut().filter(|_| !is_off) {
            owners.look(workers, alive);
        }
    }

    /// Helps a worker that has lost its transmit queues.
    pub(crate) fn look_at_lost(&mut self, workers: &[Mailbox]) {
        let is_off = self.is_off();
        if let Some(owners) = self.owners.as_mut().filter(|_| !is_off) {
            owners.look_at_lost(workers);
        }
    }

    /// Gives the workers the way to the port, unless it is disabled.
    pub(crate) fn attach(&mut self, workers: &[Mailbox]) {
        if self.is_off() {
            return;
        }
        let retries = self.retries();
        for (index, mut output) in self.parked.outputs.drain(..) {
            output.set_retries(retries);
            if let Some(worker) = workers.get(index) {
                worker.ask(|done| Message::AddOutput(self.number, Box::new(output), done));
            }
        }
    }

    /// Has the port belong to its bridge, with its part in VLANs, on all workers.
    pub(crate) fn join(&self, workers: &[Mailbox]) {
        self.change_bridge(&BridgeChange::Join(self.number, self.policy()), workers);
        if !self.is_flooded() {
            self.change_bridge(&BridgeChange::Flood(self.number, false), workers);
        }
    }

    /// Whether frames flood there. Those for a port that takes the header of Ethernet off are for nobody behind it
    /// in particular.
    fn is_flooded(&self) -> bool {
        self.tube().is_none_or(|tube| tube.settings().mode != Mode::Packets)
    }

    /// Has it belong to its bridge no more.
    pub(crate) fn leave(&self, workers: &[Mailbox]) {
        self.change_bridge(&BridgeChange::Leave(self.number), workers);
    }

    /// Tells all workers the port's part in VLANs.
    pub(crate) fn update_vlan(&self, workers: &[Mailbox]) {
        self.change_bridge(&BridgeChange::SetVlan(self.number, self.policy()), workers);
    }

    fn policy(&self) -> Option<Arc<Policy>> {
        let vlan = &self.options.vlan;
        (!vlan.is_default()).then(|| Arc::new(Policy::from(vlan)))
    }

    fn change_bridge(&self, change: &BridgeChange, workers: &[Mailbox]) {
        // A bridge knows bonds, and not their members.
        if self.bridge != BridgeId::BOND {
            tell(workers, self.bridge, change);
        }
    }

    /// Tells the workers how often to try again although the port takes nothing.
    pub(crate) fn update_retries(&self, workers: &[Mailbox]) {
        let (number, retries) = (self.number, self.retries());
        for worker in workers {
            worker.ask(|done| Message::SetRetries(number, retries, done));
        }
    }

    /// Takes the port's limits and its guard away.
    pub(crate) fn drop_limits(&mut self, workers: &[Mailbox]) {
        let guard = std::mem::take(&mut self.options.guard);
        let limits = std::mem::take(&mut self.options.limits);
        self.update_limits(&limits, workers);
        self.update_guard((&guard, &limits), workers);
    }

    /// Tells the workers the port's limits, where they are others than `before`; buckets are full
    /// then.
    pub(crate) fn update_limits(&self, before: &PortLimits, workers: &[Mailbox]) {
        let (now, hz) = (clock::now(), clock::hz());
        let limits = &self.options.limits;
        for (direction, from, to) in
            [(Direction::Rx, before.rx(), limits.rx()), (Direction::Tx, before.tx(), limits.tx())]
        {
            if from == to {
                continue;
            }
            for (worker, limiter) in workers.iter().zip(to.limiters(workers.len(), hz, now)) {
                let limiter = limiter.map(Box::new);
                worker.ask(|done| Message::SetLimit(self.number, direction, limiter, done));
            }
        }
    }

    /// Tells the workers what the port may send, where that is something else than `before`; what
    /// may come at once may do so again then.
    pub(crate) fn update_guard(
        &self,
        (guard_before, limits_before): (&PortGuard, &PortLimits),
        workers: &[Mailbox],
    ) {
        let PortOptions { guard, limits, .. } = &self.options;
        let trip = self.trip.as_ref();
        if guard == guard_before && limits.storm() == limits_before.storm() {
            return;
        }
        for (worker, guard) in workers.iter().zip(Guard::of(guard, limits, trip, workers.len())) {
            let guard = guard.map(Box::new);
            worker.ask(|done| Message::SetGuard(self.number, guard, done));
        }
    }

    fn retries(&self) -> u32 {
        self.options.tx_retries.min(MAX_TX_RETRIES)
    }

    /// Takes the way to the port from all workers.
    pub(crate) fn detach(&mut self, workers: &[Mailbox]) {
        for (index, worker) in workers.iter().enumerate() {
            let output = worker.ask(|reply| Message::TakeOutput(self.number, reply)).flatten();
            self.parked.outputs.extend(output.map(|output| (index, output)));
        }
    }

    /// Gives the receive queues to the workers in `places`, by queue number, unless the port is
    /// disabled.
    pub(crate) fn poll(&mut self, places: Vec<usize>, workers: &[Mailbox]) {
        self.rx_workers = places;
        if self.options.disabled {
            return;
        }
        for mut input in self.parked.inputs.drain(..) {
            input.bridge = self.bridge;
            let place = self.rx_workers.get(input.queue);
            if let Some(worker) = place.and_then(|place| workers.get(*place)) {
                worker.ask(|done| Message::AddInput(Box::new(input), done));
            }
        }
    }

    /// Takes the receive queues from the workers.
    pub(crate) fn unpoll(&mut self, workers: &[Mailbox]) {
        let take = |worker: &Mailbox| worker.ask(|reply| Message::TakeInputs(self.number, reply));
        let inputs: Vec<Input> = workers.iter().filter_map(take).flatten().collect();
        self.parked.inputs.extend(inputs);
    }

    /// Has no worker count the receive queues as its own any more; they are to be placed anew.
    pub(crate) fn forget_places(&mut self) {
        self.rx_workers.clear();
    }

    /// The worker of each receive queue.
    pub(crate) fn places(&self) -> Vec<usize> {
        self.rx_workers.clone()
    }
}

/// All ports, by name.
#[derive(Debug, Default)]
pub(crate) struct Ports(LiteMap<String, Entry>);

impl Ports {
    /// Checks that a port `name` can be added.
    pub(crate) fn check_new(&self, name: &str) -> Result<(), Error> {
        let name = || name.to_owned();
        if !is_port_name(&name()) {
            return Err(Error::PortName { name: name() });
        }
        if self.0.contains_key(&name()) {
            return Err(Error::DuplicatePort { name: name() });
        }
        if self.0.len() >= MAX_PORTS {
            return Err(Error::TooManyPorts { name: name(), max: MAX_PORTS });
        }
        Ok(())
    }

    /// The smallest number that no port has.
    pub(crate) fn free_number(&self) -> Option<u16> {
        let mut used = [false; MAX_PORTS];
        for entry in self.0.values() {
            if let Some(used) = used.get_mut(usize::from(entry.number)) {
                *used = true;
            }
        }
        used.iter().position(|used| !used).and_then(|number| u16::try_from(number).ok())
    }

    pub(crate) fn insert(&mut self, name: String, entry: Entry) {
        self.0.insert(name, entry);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Entry, Error> {
        self.0.get(name).ok_or_else(|| self.unknown(name))
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Result<&mut Entry, Error> {
        if !self.0.contains_key(name) {
            return Err(self.unknown(name));
        }
        self.0
            .get_mut(name)
            .ok_or_else(|| Error::UnknownPort { name: name.to_owned(), known: Vec::new() })
    }

    fn unknown(&self, name: &str) -> Error {
        Error::UnknownPort { name: name.to_owned(), known: self.0.keys().cloned().collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The ports of a bridge.
    pub(crate) fn of_bridge(&self, bridge: BridgeId) -> impl Iterator<Item = (&str, &Entry)> {
        self.iter().filter(move |(_, entry)| entry.bridge == bridge)
    }

    /// Whether any port of a bridge has VLAN settings.
    pub(crate) fn have_vlans(&self, bridge: BridgeId) -> bool {
        self.of_bridge(bridge).any(|(_, entry)| !entry.options.vlan.is_default())
    }

    /// All ports, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut().map(|(_, entry)| entry)
    }

    /// See [`Entry::look_at_owners`].
    pub(crate) fn look_at_owners(&mut self, workers: &[Mailbox], alive: &[usize]) {
        self.iter_mut().for_each(|entry| entry.look_at_owners(workers, alive));
    }

    /// See [`Entry::look_at_lost`].
    pub(crate) fn look_at_lost(&mut self, number: u16, workers: &[Mailbox]) {
        if let Some(entry) = self.iter_mut().find(|entry| entry.number == number) {
            entry.look_at_lost(workers);
        }
    }

    /// Whether the link of port `number` is down, or was down since this was asked last.
    pub(crate) fn was_down(&mut self, number: u16) -> bool {
        let mut entries = self.iter_mut();
        entries.find(|entry| entry.number == number).is_some_and(Entry::was_down)
    }

    /// Port `number`, with its name.
    pub(crate) fn numbered(&self, number: u16) -> Option<(&str, &Entry)> {
        self.iter().find(|(_, entry)| entry.number == number)
    }

    /// The same, to be changed.
    pub(crate) fn numbered_mut(&mut self, number: u16) -> Option<(&str, &mut Entry)> {
        let mut all = self.0.iter_mut();
        let found = all.find(|(_, entry)| entry.number == number);
        found.map(|(name, entry)| (name.as_str(), entry))
    }

    /// The name of port `number`.
    pub(crate) fn name_of(&self, number: u16) -> Option<&str> {
        self.numbered(number).map(|(name, _)| name)
    }

    /// The receive queues that a worker polls: port name and queue number.
    pub(crate) fn queues_of(&self, worker: usize) -> impl Iterator<Item = (&str, usize)> {
        self.iter().flat_map(move |(name, entry)| {
            let queues = entry.rx_workers.iter().enumerate();
            queues.filter(move |(_, of)| **of == worker).map(move |(queue, _)| (name, queue))
        })
    }

    /// Tells the workers the MTUs, which a device may change by itself.
    pub(crate) fn update_mtus(&self) {
        self.0.values().for_each(Entry::update_mtu);
    }
}

/// Whether `name` can be a port's: what a shell, a table and a metric take without quoting, and no
/// command takes for an option.
#[must_use]
pub fn is_port_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_ordinary_characters() {
        for good in ["a", "vm1", "0", "tap-vm_1.0", "patch+", &"x".repeat(32)] {
            assert!(is_port_name(good), "{good}");
        }
        for bad in ["", "-a", ".", "a b", "a/b", "a:b", "ä", "a\n", &"x".repeat(33)] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }
}
