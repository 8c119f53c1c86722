//! Settings that change while the switch runs, without a frame of other ports lost.

use std::time::Duration;

use super::{Control, Switch};
use crate::config::{PortOptions, ageing_seconds};
use crate::error::Error;
use crate::vlan::PortVlan;

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
    /// and the port itself loses no frame unless it is [disabled](PortOptions::disabled).
    ///
    /// # Errors
    /// There is no such port or worker, its device refuses the MTU, or all workers have ended.
    /// Nothing is changed then.
    pub fn set_port(&self, name: &str, options: &PortOptions) -> Result<(), Error> {
        self.control().set_port(name, options)
    }

    /// Changes after which time without frames an address is forgotten; zero: never. Addresses
    /// that are known count from their last frame.
    ///
    /// # Errors
    /// A time that [`SwitchConfig::ageing`](crate::SwitchConfig::ageing) cannot be.
    pub fn set_ageing(&self, ageing: Duration) -> Result<(), Error> {
        self.fdb.set_ageing(ageing_seconds(ageing)?);
        Ok(())
    }
}

impl Control {
    /// Gives a port another part in VLANs. What was learnt on it is forgotten.
    pub(super) fn set_vlan(&mut self, name: &str, vlan: &PortVlan) -> Result<(), Error> {
        let had_vlans = self.ports.have_vlans();
        let entry = self.ports.get_mut(name)?;
        if entry.options().vlan == *vlan {
            return Ok(());
        }
        entry.set_options(&PortOptions { vlan: vlan.clone(), ..entry.options().clone() });
        entry.update_vlan(&self.mailboxes);
        self.fdb.write().flush(Some(entry.number()));
        self.forget_other_vlans(had_vlans);
        Ok(())
    }

    fn set_port(&mut self, name: &str, options: &PortOptions) -> Result<(), Error> {
        options.check(name, self.mailboxes.len())?;
        let entry = self.ports.get(name)?;
        let before = entry.options().clone();
        let places = match before.workers == options.workers {
            true => entry.places(),
            false => self.place(name, entry.rx_count(), &options.workers)?,
        };
        if before.mtu != options.mtu {
            self.ports.get_mut(name)?.set_mtu(name, options.mtu)?;
        }
        // Nothing fails from here on.
        let entry = self.ports.get_mut(name)?;
        entry.set_options(&PortOptions { vlan: before.vlan.clone(), ..options.clone() });
        if before.tx_retries != options.tx_retries {
            entry.update_retries(&self.mailboxes);
        }
        let toggled = before.disabled != options.disabled;
        if toggled {
            entry.detach(&self.mailboxes);
            entry.attach(&self.mailboxes);
        }
        if toggled || places != entry.places() {
            entry.unpoll(&self.mailboxes);
            entry.poll(places, &self.mailboxes);
        }
        self.set_vlan(name, &options.vlan)?;
        if options.disabled {
            let entry = self.ports.get(name)?;
            let number = entry.number();
            self.fdb.write().flush(Some(number));
        }
        Ok(())
    }
}
