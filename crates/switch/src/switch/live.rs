//! Settings that change while the switch runs, without a frame of other ports lost.

use std::time::Duration;

use datapath::vlan::PortVlan;
use datapath::worker::{Idle, Message};
use drivers::Drivers;
use ethdev::OpenPort;

use super::{Control, Switch};
use crate::config::{BridgeOptions, DEFAULT_BRIDGE, PortOptions};
use crate::error::Error;
use crate::ports::Ticket;

impl Switch {
    /// Changes a port's MTU; `None` is the device's own.
    ///
    /// # Errors
    /// There is no such port, or its device refuses.
    pub fn set_mtu(&self, name: &str, mtu: Option<u16>) -> Result<(), Error> {
        let options = self.control().ports.get(name)?.options().clone();
        self.set_port(name, &PortOptions { mtu, ..options })
    }

    /// Gives a port other settings than those that it was added with. Other ports are not touched,
    /// and the port itself loses no frame unless it is [disabled](PortOptions::disabled). One that
    /// changes its bridge takes no address along, not even static ones.
    ///
    /// # Errors
    /// There is no such port, worker or bridge, its device refuses the MTU, or all workers have ended.
    /// Nothing is changed then.
    pub fn set_port(&self, name: &str, options: &PortOptions) -> Result<(), Error> {
        self.control().set_port(name, options)
    }

    /// Has patch port `name` lead to another port from now on, which is a patch port of another bridge and
    /// names this one; until there is such a port, its link is down. Any other port is left alone.
    ///
    /// # Errors
    /// There is no such port.
    pub fn set_peer(&self, name: &str, peer: &str) -> Result<(), Error> {
        self.control().set_peer(name, peer)
    }

    /// Opens a port again that was [shut](crate::PortReport::is_shut); returns whether it was.
    ///
    /// # Errors
    /// There is no such port.
    pub fn reopen_port(&self, name: &str) -> Result<bool, Error> {
        let mut control = self.control();
        let entry = control.ports.get(name)?;
        let is_shut = entry.is_shut();
        if is_shut {
            let options = entry.options().clone();
            control.set_port(name, &options)?;
        }
        Ok(is_shut)
    }

    /// Has another device behind a port, such as the same one with other options. The port keeps its
    /// settings, and what is known behind it: addresses, groups, its part in spanning tree and bonds. The
    /// device so far is closed first, since both may be of one socket.
    ///
    /// # Errors
    /// There is no such port, it is a patch port or a bond, the device cannot be opened, or refuses the
    /// port's MTU. Where it cannot be opened, the port is without one then: it carries nothing, and is to
    /// be given another one or removed. Nor has it this one where it was removed meanwhile, or given yet
    /// another.
    pub fn exchange_device(&self, name: &str, device: &str) -> Result<(), Error> {
        let ticket = self.control().clear_port(name)?;
        // Without the lock, since it may take a while.
        let open = drivers::open(name, device, &self.drivers)
            .map_err(|source| Error::Port { name: name.to_owned(), source })?;
        self.control().fill_port(name, open, &ticket)
    }

    /// Changes what workers without frames do: whether they ever sleep, and for how long they go on
    /// polling before.
    pub fn set_idle(&self, busy_poll: bool, idle_after: Duration) {
        let idle = Idle::new(busy_poll, idle_after);
        let mut control = self.control();
        // Of those that start later, too.
        control.idle = idle;
        for mailbox in &control.mailboxes {
            mailbox.ask(|done| Message::SetIdle(idle, done));
        }
    }

    /// Changes after which time without frames an address of the default bridge is forgotten; zero:
    /// never. Addresses that are known count from their last frame.
    ///
    /// # Errors
    /// A time that [`SwitchConfig::ageing`](crate::SwitchConfig::ageing) cannot be.
    pub fn set_ageing(&self, ageing: Duration) -> Result<(), Error> {
        let mut control = self.control();
        let options = control.bridges.get(DEFAULT_BRIDGE)?.options().clone();
        control.set_bridge(DEFAULT_BRIDGE, &BridgeOptions { ageing, ..options })
    }
}

/// What a port has while it has no device.
const NO_DEVICE: &str = "null:";

impl Control {
    /// Closes the device of a port, which stays.
    fn clear_port(&mut self, name: &str) -> Result<Ticket, Error> {
        let entry = self.ports.get_mut(name)?;
        let refuse = |source| Error::Port { name: name.to_owned(), source };
        if entry.cable().is_some() || entry.bundle().is_some() || entry.tube().is_some() {
            let (driver, what) = ("patch, bond and tunnel", "have another device");
            return Err(refuse(ethdev::Error::Unsupported { driver, what }));
        }
        let none = drivers::open(name, NO_DEVICE, &Drivers::new()).map_err(refuse)?;
        entry.unpoll(&self.mailboxes);
        entry.detach(&self.mailboxes);
        Ok(entry.clear(none.port))
    }

    /// Gives a port that was [cleared](Self::clear_port) a device.
    fn fill_port(&mut self, name: &str, open: OpenPort, ticket: &Ticket) -> Result<(), Error> {
        let OpenPort { port, rx, tx } = open;
        let entry = self.ports.get(name)?;
        if !entry.waits_for(ticket) {
            let (name, device) = (name.to_owned(), port.device().to_owned());
            return Err(Error::DeviceLate { name, device });
        }
        let (mtu, number, wanted) =
            (entry.options().mtu, entry.number(), entry.options().workers.clone());
        let places = self.place(name, rx.len(), &wanted)?;
        let entry = self.ports.get_mut(name)?;
        tracing::info!(port = name, device = port.device(), "port has another device");
        entry.fill(port);
        entry.put(rx, tx, self.mailboxes.len(), self.notes.of_port(number));
        entry.attach(&self.mailboxes);
        entry.poll(places, &self.mailboxes);
        entry.on_event(self.notes.of_port(number));
        let set = if mtu.is_some() { entry.set_mtu(name, mtu) } else { Ok(()) };
        let set = self.allow_mtu(set);
        self.update_captures(None);
        self.update_protocols();
        self.tell_links();
        set
    }

    /// What has come of setting an MTU, which may be no more than a wish: whatever it has failed by, the port is
    /// there all the same, as with Open vSwitch.
    pub(super) fn allow_mtu(&self, set: Result<(), Error>) -> Result<(), Error> {
        match set {
            Err(error) if self.mtu_is_wish => {
                tracing::warn!("{error}; the port keeps its MTU");
                Ok(())
            }
            set => set,
        }
    }

    /// Gives a port another part in VLANs. What was learnt on it is forgotten.
    pub(super) fn set_vlan(&mut self, name: &str, vlan: &PortVlan) -> Result<(), Error> {
        let had_vlans = self.have_vlans(self.ports.get(name)?.bridge());
        let entry = self.ports.get_mut(name)?;
        if entry.options().vlan == *vlan {
            return Ok(());
        }
        entry.set_options(&PortOptions { vlan: vlan.clone(), ..entry.options().clone() });
        entry.update_vlan(&self.mailboxes);
        let entry = self.ports.get(name)?;
        let (number, id, bridge) = (entry.number(), entry.bridge(), entry.bridge_name().to_owned());
        self.fdb_of(entry)?.write().flush(Some(number));
        self.forget_groups(number);
        self.forget_other_vlans((&bridge, id), had_vlans)
    }

    /// Has a port belong to another bridge or bond. All its addresses are forgotten, static ones
    /// too.
    fn move_port(&mut self, name: &str, options: &PortOptions) -> Result<(), Error> {
        let to = options.bridge_name();
        let bridge = self.home_of(options)?;
        let entry = self.ports.get(name)?;
        let (from, before) = (entry.bridge_name().to_owned(), entry.bridge());
        if before == bridge && entry.options().bond == options.bond {
            return Ok(());
        }
        let had_vlans = self.leave(name)?;
        let has_vlans = self.have_vlans(bridge);
        let entry = self.ports.get_mut(name)?;
        entry.set_bridge(bridge, options);
        self.update_mirrors(&from, None);
        self.update_mirrors(to, None);
        self.close_gate(to);
        let entry = self.ports.get_mut(name)?;
        entry.join(&self.mailboxes);
        entry.poll(entry.places(), &self.mailboxes);
        self.forget_other_vlans((&from, before), had_vlans)?;
        self.forget_other_vlans((to, bridge), has_vlans)
    }

    fn set_port(&mut self, name: &str, options: &PortOptions) -> Result<(), Error> {
        options.check(name, self.mailboxes.len())?;
        self.bridges.get(options.bridge_name())?;
        let entry = self.ports.get(name)?;
        let before = entry.options().clone();
        let places = match before.workers == options.workers {
            true => entry.places(),
            false => self.place(name, entry.rx_count(), &options.workers)?,
        };
        if before.mtu != options.mtu {
            let set = self.ports.get_mut(name)?.set_mtu(name, options.mtu);
            self.allow_mtu(set)?;
        }
        // Nothing fails from here on.
        let entry = self.ports.get_mut(name)?;
        // A port that is shut is polled, and one that is disabled is not. Nothing of what comes meanwhile may
        // find the guard open already.
        let moves = before.disabled != options.disabled || places != entry.places();
        if moves {
            entry.unpoll(&self.mailboxes);
        }
        let PortOptions { bridge, bond, vlan, .. } = before.clone();
        let toggled = entry.switch_to(&PortOptions { bridge, bond, vlan, ..options.clone() });
        if before.tx_retries != options.tx_retries {
            entry.update_retries(&self.mailboxes);
        }
        entry.update_limits(&before.limits, &self.mailboxes);
        entry.update_guard((&before.guard, &before.limits), &self.mailboxes);
        if toggled {
            entry.detach(&self.mailboxes);
            entry.attach(&self.mailboxes);
        }
        if moves {
            entry.poll(places, &self.mailboxes);
        }
        self.set_vlan(name, &options.vlan)?;
        self.move_port(name, options)?;
        self.update_patches();
        self.update_protocols();
        let entry = self.ports.get(name)?;
        self.fdb_of(entry)?.set_most(entry.number(), options.guard.max_addresses);
        if options.disabled {
            let number = entry.number();
            self.fdb_of(entry)?.write().flush(Some(number));
            self.forget_groups(number);
            self.update_groups();
        }
        // One that was shut is not any more.
        self.tell_links();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SwitchConfig;

    #[test]
    fn a_device_goes_to_the_port_that_it_was_opened_for() {
        let switch = Switch::start(&SwitchConfig::default()).unwrap();
        let add = || switch.open_port("vm1", "null:", &PortOptions::default()).unwrap();
        let open = |device| drivers::open("vm1", device, &switch.drivers).unwrap();
        let is_late = |filled| matches!(filled, Err(Error::DeviceLate { .. }));
        add();
        // Another port of its name.
        let ticket = switch.control().clear_port("vm1").unwrap();
        switch.remove_port("vm1").unwrap();
        add();
        assert!(is_late(switch.control().fill_port("vm1", open("null:"), &ticket)));
        // The same port, whose device somebody else exchanges.
        let [first, second] = [(); 2].map(|()| switch.control().clear_port("vm1").unwrap());
        assert!(is_late(switch.control().fill_port("vm1", open("null:"), &first)));
        switch.control().fill_port("vm1", open("null:size=64"), &second).unwrap();
        assert_eq!(switch.port("vm1").unwrap().device, "null:size=64");
        assert!(is_late(switch.control().fill_port("vm1", open("null:"), &second)));
        assert_eq!(switch.port("vm1").unwrap().device, "null:size=64");
        switch.shutdown();
    }
}
