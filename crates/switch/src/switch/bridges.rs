//! Bridges of a switch: several in one, with the same workers.

use datapath::bridge::BridgeId;

use super::{Control, Switch};
use crate::config::BridgeOptions;
use crate::error::Error;
use crate::report::BridgeReport;

impl Switch {
    /// Adds a bridge without ports. Ports of one bridge do not reach those of another.
    ///
    /// ```
    /// use switch::{BridgeOptions, PortOptions, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.add_bridge("tenant", &BridgeOptions::default())?;
    /// let options = PortOptions { bridge: Some("tenant".into()), ..PortOptions::default() };
    /// switch.open_port("sink", "null:", &options)?;
    /// assert_eq!(switch.port("sink")?.bridge, "tenant");
    /// # Ok::<(), switch::Error>(())
    /// ```
    ///
    /// # Errors
    /// The name is taken or unusual, a setting out of range, or there are
    /// [`MAX_BRIDGES`](crate::MAX_BRIDGES).
    pub fn add_bridge(&self, name: &str, options: &BridgeOptions) -> Result<(), Error> {
        let control = &mut *self.control();
        control.bridges.add(name, options, &control.mailboxes)?;
        control.update_mirrors(name, None);
        control.update_rstp();
        control.update_groups();
        tracing::info!(bridge = name, "bridge added");
        Ok(())
    }

    /// Gives a bridge other settings, while frames flow. With another size of its forwarding
    /// database, addresses stay as far as there is room.
    ///
    /// # Errors
    /// There is no such bridge, a setting is out of range, or there is no room for the static
    /// addresses. Nothing is changed then.
    pub fn set_bridge(&self, name: &str, options: &BridgeOptions) -> Result<(), Error> {
        self.control().set_bridge(name, options)
    }

    /// Removes a bridge.
    ///
    /// # Errors
    /// There is no such bridge, it still has ports, or it is the
    /// [default](crate::DEFAULT_BRIDGE) one, which always stays.
    pub fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        let control = &mut *self.control();
        let ports = control.ports.of_bridge(control.bridges.get(name)?.id());
        let ports: Vec<String> = ports.map(|(port, _)| port.to_owned()).collect();
        if !ports.is_empty() {
            return Err(Error::BridgeInUse { name: name.to_owned(), ports });
        }
        control.bridges.remove(name, &control.mailboxes)?;
        control.update_rstp();
        control.update_groups();
        tracing::info!(bridge = name, "bridge removed");
        Ok(())
    }

    /// All bridges, in the order of their names.
    #[must_use]
    pub fn bridges(&self) -> Vec<BridgeReport> {
        let control = self.control();
        let report = |(name, entry): (&str, &crate::bridges::Entry)| BridgeReport {
            name: name.to_owned(),
            options: entry.options().clone(),
            ports: control.ports.of_bridge(entry.id()).map(|(port, _)| port.to_owned()).collect(),
            fdb: entry.fdb().report(),
        };
        control.bridges.iter().map(report).collect()
    }
}

impl Control {
    pub(super) fn set_bridge(&mut self, name: &str, options: &BridgeOptions) -> Result<(), Error> {
        let id = self.bridges.get(name)?.id();
        let had_vlans = self.have_vlans(id);
        self.bridges.set(name, options, &self.mailboxes)?;
        self.forget_other_vlans((name, id), had_vlans)?;
        self.update_rstp();
        self.update_groups();
        Ok(())
    }

    /// Whether the workers look at tags in a bridge: it is to, or a port has VLAN settings.
    pub(super) fn have_vlans(&self, bridge: BridgeId) -> bool {
        self.bridges.is_vlan_aware(bridge) || self.ports.have_vlans(bridge)
    }
}
