//! A port as control threads see it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use datapath::bridge::BridgeId;
use datapath::guard::{BpduGuard, Trip};
use datapath::owners::Owners;
use datapath::worker::Mailbox;
use ethdev::{Link, Port, PortControl, PortStats};

use super::served::Parked;
use crate::config::PortOptions;
use crate::error::Error;
use crate::report::PortReport;
use crate::switch::bonds::Bundle;
use crate::switch::patches::Cable;
use crate::switch::tunnels::Tube;

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
    pub(super) number: u16,
    /// The bridge that it belongs to.
    pub(super) bridge: BridgeId,
    /// What it has as a patch port.
    pub(super) cable: Option<Arc<Cable>>,
    /// What it has as a bond.
    pub(super) bundle: Option<Arc<Bundle>>,
    /// What it has as a port of a tunnel.
    pub(super) tube: Option<Arc<Tube>>,
    // The order matters: queues are dropped before their device.
    /// What the workers have not got while the port is disabled.
    pub(super) parked: Parked,
    /// Whose the transmit queues are; `None` as long as there are none.
    pub(super) owners: Option<Owners>,
    pub(super) port: Port,
    /// As the workers see it.
    pub(super) mtu: Arc<AtomicU32>,
    /// The device's own MTU, as it was before anybody set one.
    pub(super) own_mtu: u16,
    pub(super) options: PortOptions,
    /// The worker of each receive queue.
    pub(super) rx_workers: Vec<usize>,
    /// How often the link had changed when it was last looked at.
    pub(super) link_changes: u64,
    /// What shuts it.
    pub(super) trip: Option<Arc<Trip>>,
    /// Whether it is shut, until one of its settings is changed.
    pub(super) is_shut: bool,
    /// Of the exchange that has closed its device and is to give it another one.
    pub(super) ticket: Option<Ticket>,
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
    pub(super) fn is_off(&self) -> bool {
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
    pub(super) fn exchange(&mut self, port: Port) {
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
    pub(super) fn was_down(&mut self) -> bool {
        let link = self.port.control().link();
        let changes = link.changes.saturating_sub(self.link_changes);
        self.link_changes = link.changes;
        !link.up || changes > 1
    }

    /// Tells the workers the device's MTU.
    pub(super) fn update_mtu(&self) {
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
