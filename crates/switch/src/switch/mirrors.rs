//! Mirrors of a running switch.

use datapath::bridge::{BridgeChange, BridgeId};
use datapath::guard::PortGuard;
use datapath::limit::PortLimits;
use datapath::worker::Message;
use eal::clock;
use litemap::LiteMap;
use ordered::Gather as _;

use super::{Control, Switch};
use crate::error::Error;
use crate::mirror::Mirror;
use crate::report::MirrorReport;

impl Switch {
    /// Adds a mirror, or changes one. Ports that it names and that are not there are left out
    /// until they are.
    ///
    /// ```
    /// use switch::{Mirror, PortOptions, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.open_port("watcher", "null:", &PortOptions::default())?;
    /// let output_port = Some("watcher".to_owned());
    /// let mirror = Mirror { select_all: true, output_port, ..Mirror::default() };
    /// switch.set_mirror("all", &mirror)?;
    /// assert!(switch.mirrors()[0].is_active);
    /// # Ok::<(), switch::Error>(())
    /// ```
    ///
    /// # Errors
    /// The settings contradict each other, the name is unusual, or there are
    /// [`MAX_MIRRORS`](crate::MAX_MIRRORS).
    pub fn set_mirror(&self, name: &str, mirror: &Mirror) -> Result<(), Error> {
        let mut guard = self.control();
        let control = &mut *guard;
        let before = control.mirrors.set(name, mirror, control.mailboxes.len(), &control.time)?;
        let bridge = mirror.bridge_name();
        let other = before.as_ref().map(|before| before.mirror.bridge_name());
        if let Some(other) = other.filter(|other| *other != bridge) {
            control.tell_mirrors(other, None);
        }
        control.tell_mirrors(bridge, None);
        // A port that is for copies alone takes no part.
        control.update_rstp();
        // Nobody writes into it any more; what there is goes to the file without the lock.
        drop(guard);
        drop(before);
        Ok(())
    }

    /// Removes a mirror; returns whether there was one. Its output port is one like any other then.
    pub fn remove_mirror(&self, name: &str) -> bool {
        let mut guard = self.control();
        let control = &mut *guard;
        let before = control.mirrors.remove(name);
        if let Some(before) = &before {
            control.tell_mirrors(before.mirror.bridge_name(), None);
            control.update_rstp();
        }
        drop(guard);
        before.is_some()
    }

    /// All mirrors, in the order of their names.
    #[must_use]
    pub fn mirrors(&self) -> Vec<MirrorReport> {
        let control = self.control();
        control.mirrors.report(|bridge, port| {
            control.ports.get(port).is_ok_and(|entry| entry.bridge_name() == bridge)
        })
    }
}

impl Control {
    /// As [`tell_mirrors`](Self::tell_mirrors), if the bridge has mirrors or samplings.
    pub(super) fn update_mirrors(&self, bridge: &str, more: Option<(&str, u16)>) {
        if self.mirrors.concern(bridge) || self.samplings.concern(bridge) {
            self.tell_mirrors(bridge, more);
        }
    }

    /// Tells workers of whom some are new all mirrors and samplings.
    pub(super) fn restart_mirrors(&mut self) {
        self.mirrors.restart(self.mailboxes.len());
        self.samplings.restart(self.mailboxes.len());
        let names: Vec<String> = self.bridges.iter().map(|(name, _)| name.to_owned()).collect();
        names.iter().for_each(|name| self.update_mirrors(name, None));
    }

    /// Has workers of whom some are new share the limits and guards of all ports; buckets are full
    /// then.
    pub(super) fn tell_limits(&self) {
        let none = PortLimits::default();
        for (_, entry) in self.ports.iter() {
            entry.update_limits(&none, &self.mailboxes);
            entry.update_guard((&PortGuard::default(), &none), &self.mailboxes);
        }
    }

    /// The bridge of a mirror, and its number there as workers know it.
    pub(super) fn mirror_place(&self, mirror: &str) -> Option<(BridgeId, usize)> {
        let id = self.bridges.get(self.mirrors.bridge_of(mirror)?).ok()?.id();
        let ports = self.ports.of_bridge(id).map(|(name, port)| (name, port.number()));
        Some((id, self.mirrors.place(mirror, &ports.gather())?))
    }

    /// Tells the workers the mirrors of a bridge, given its ports and `more`, and its samplings; what was
    /// learnt on output ports of mirrors is forgotten.
    pub(super) fn tell_mirrors(&self, bridge: &str, more: Option<(&str, u16)>) {
        let Ok(entry) = self.bridges.get(bridge) else { return };
        let ports = self.ports.of_bridge(entry.id()).map(|(name, port)| (name, port.number()));
        let ports: LiteMap<&str, u16> = ports.chain(more).gather();
        for (index, worker) in self.mailboxes.iter().enumerate() {
            let taps = self.mirrors.taps(bridge, &ports, index);
            let samplers = self.samplings.samplers(bridge, index, clock::now());
            let taps = match samplers.is_empty() {
                true => taps,
                false => Some(taps.unwrap_or_default().with_samplers(samplers)),
            };
            let taps = taps.map(Box::new);
            let change = Box::new(BridgeChange::Mirror(taps));
            worker.ask(|done| Message::Bridge(entry.id(), change, done));
        }
        for port in self.mirrors.outputs(bridge, &ports).iter() {
            entry.fdb().write().flush(Some(port));
        }
    }
}
