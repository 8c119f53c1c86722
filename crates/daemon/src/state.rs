//! The desired state of a switch: everything that an operator decides, as one value.
//!
//! A setting that is `None` has its default; [`State::resolved`] fills the defaults in. The same
//! type is what a configuration file says, so its serialised form is documented in
//! `docs/configuration.md`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use eal::{Access, CoreList};
use ethdev::hint;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use switch::{
    Bfd, Bonding, Cfm, DEFAULT_BRIDGE, Identity, LldpMode, Mirror, PortGuard, PortLacp, PortLimits,
    PortOptions, PortRstp, PortSnooping, PortVlan, Rstp, SwitchConfig,
};

use crate::address::Address;
use crate::bridge::Bridge;
use crate::error::Error;
use crate::file::explain;
use crate::metrics::Metrics;
use crate::object;
use crate::snoop::McastSnooping;
use crate::text;
use crate::vdpa::Vdpa;

/// The desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct State {
    /// Path of the control socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
    /// Group whose processes may connect to the control socket.
    #[serde(with = "text::group", skip_serializing_if = "Option::is_none")]
    pub control_group: Option<u32>,
    /// Permissions of the control socket.
    #[serde(with = "text::mode", skip_serializing_if = "Option::is_none")]
    pub control_mode: Option<u32>,
    /// One worker on each of these cores.
    #[serde(with = "text::cores", skip_serializing_if = "Option::is_none")]
    pub cores: Option<CoreList>,
    /// Number of workers where no cores are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Never sleep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_poll: Option<bool>,
    /// Reserved group addresses that are forwarded all the same: bit 0 is 01:80:c2:00:00:00.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_fwd_mask: Option<u16>,
    /// Whether bridges look at tags though no port has VLAN settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_aware: Option<bool>,
    /// Whether bridges forward frames whose source is zero or a group's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_source: Option<bool>,
    /// Microseconds that a worker without frames polls before it sleeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<u64>,
    /// The sockets of ports and vDPA devices.
    #[serde(skip_serializing_if = "is_default")]
    pub sockets: Sockets,
    /// Where figures are read.
    #[serde(skip_serializing_if = "is_default")]
    pub metrics: Metrics,
    /// What the switch gives up.
    #[serde(skip_serializing_if = "is_default")]
    pub sandbox: Sandbox,
    /// The forwarding database.
    #[serde(skip_serializing_if = "is_default")]
    pub fdb: Fdb,
    /// The default bridge's part in spanning tree.
    #[serde(skip_serializing_if = "is_default")]
    pub rstp: Rstp,
    /// What is done about groups of IGMP and MLD.
    #[serde(skip_serializing_if = "is_default")]
    pub mcast_snooping: McastSnooping,
    /// The bridges beside the default one, by name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub bridges: IndexMap<String, Bridge>,
    /// The ports, by name, in the order in which they are opened.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub ports: IndexMap<String, Port>,
    /// Whether a patch port may be there before its peer is, as where ports come one by one, and have it in its own
    /// bridge.
    #[serde(skip)]
    pub lone_patches: bool,
    /// Whether a port whose device cannot have the MTU that is asked for keeps its own one.
    #[serde(skip)]
    pub mtu_is_wish: bool,
    /// The mirrors, by name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub mirrors: IndexMap<String, Mirror>,
    /// The vDPA devices, by name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub vdpa: IndexMap<String, Vdpa>,
}

/// Section `[sockets]`: who may connect where the device does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sockets {
    /// Group whose processes may.
    #[serde(with = "text::group", skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Permissions.
    #[serde(with = "text::mode", skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Section `[sandbox]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sandbox {
    /// Whether anything is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Kinds of ports that may be added later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Folders for sockets and files of ports that are added later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
}

impl Sandbox {
    /// What is said here, and for the rest what `base` says, to whose kinds and paths these are added.
    fn over(self, base: Self) -> Self {
        Self {
            enabled: self.enabled.or(base.enabled),
            ports: [base.ports, self.ports].concat(),
            paths: [base.paths, self.paths].concat(),
        }
    }
}

/// Section `[fdb]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fdb {
    /// Seconds until an entry that is not refreshed is removed; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing: Option<u64>,
    /// Largest number of entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Most addresses that a burst of frames may add or move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn_per_burst: Option<usize>,
}

impl Fdb {
    /// What is said here, and for the rest what `base` says.
    fn over(&self, base: &Self) -> Self {
        Self {
            ageing: self.ageing.or(base.ageing),
            size: self.size.or(base.size),
            learn_per_burst: self.learn_per_burst.or(base.learn_per_burst),
        }
    }
}

/// One section `[ports.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table [ports.NAME] with device = \"..\""
)]
pub struct Port {
    /// Device string.
    pub device: String,
    /// The bridge that it belongs to; the default one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Largest payload in bytes; the device's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Workers that poll its receive queues, by number, in turn; spread evenly when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<usize>,
    /// How often to offer frames again to a port that has no room for any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tx_retries: u32,
    /// Whether it is in service.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
    /// Its part in VLANs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub vlan: PortVlan,
    /// How much may come in and go out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: PortLimits,
    /// The bond that it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<String>,
    /// Its settings as a bond.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bonding: Bonding,
    /// What it says by LACP, as a member of a bond.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lacp: PortLacp,
    /// What it may send.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guard: PortGuard,
    /// Whether it and its neighbours tell each other who they are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lldp: LldpMode,
    /// The maintenance point by which its link is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cfm: Option<Cfm>,
    /// The session of BFD by which it is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
    /// Its part in spanning tree.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rstp: PortRstp,
    /// Its part in snooping.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mcast_snooping: PortSnooping,
    /// Stations that are always behind it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<Address>,
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_yes(value: &bool) -> bool {
    *value
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Port {
    /// A port on `device` with default settings.
    #[must_use]
    pub fn new(device: impl Into<String>) -> Self {
        Self {
            device: device.into(),
            bridge: None,
            mtu: None,
            workers: Vec::new(),
            tx_retries: 0,
            enabled: true,
            vlan: PortVlan::default(),
            limits: PortLimits::default(),
            bond: None,
            bonding: Bonding::default(),
            lacp: PortLacp::default(),
            guard: PortGuard::default(),
            lldp: LldpMode::Off,
            cfm: None,
            bfd: None,
            rstp: PortRstp::default(),
            mcast_snooping: PortSnooping::default(),
            addresses: BTreeSet::new(),
        }
    }

    /// The settings as the switch takes them.
    #[must_use]
    pub fn options(&self) -> PortOptions {
        PortOptions {
            mtu: self.mtu,
            tx_retries: self.tx_retries,
            workers: self.workers.clone(),
            disabled: !self.enabled,
            vlan: self.vlan.clone(),
            limits: self.limits,
            guard: self.guard.clone(),
            lldp: self.lldp,
            cfm: self.cfm,
            bfd: self.bfd.clone(),
            rstp: self.rstp.clone(),
            mcast_snooping: self.mcast_snooping.clone(),
            bridge: self.bridge.clone(),
            bond: self.bond.clone(),
            bonding: self.bonding.clone(),
            lacp: self.lacp,
        }
    }
}

impl From<Sockets> for Access {
    fn from(sockets: Sockets) -> Self {
        Self { group: sockets.group, mode: sockets.mode }
    }
}

impl State {
    /// The same with every default filled in, so that two states which mean the same are equal.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        let defaults = SwitchConfig::default();
        self.cores = self.cores.filter(|cores| !cores.is_empty());
        self.workers = match self.cores {
            Some(_) => None,
            None => Some(self.workers.unwrap_or(defaults.workers)),
        };
        self.group_fwd_mask.get_or_insert(defaults.group_fwd_mask);
        self.vlan_aware.get_or_insert(defaults.vlan_aware);
        self.any_source.get_or_insert(defaults.any_source);
        self.busy_poll.get_or_insert(defaults.busy_poll);
        let idle_after = u64::try_from(defaults.idle_after.as_micros()).unwrap_or(u64::MAX);
        self.idle_after.get_or_insert(idle_after);
        self.sandbox.enabled.get_or_insert(true);
        self.fdb.ageing.get_or_insert(defaults.ageing.as_secs());
        self.fdb.size.get_or_insert(defaults.fdb_limit);
        self.fdb.learn_per_burst.get_or_insert(defaults.learn_per_burst);
        self.mcast_snooping = self.mcast_snooping.over(&(&defaults.mcast_snooping).into());
        for port in self.ports.values_mut() {
            port.bridge = port.bridge.take().filter(|bridge| bridge != DEFAULT_BRIDGE);
        }
        for mirror in self.mirrors.values_mut() {
            mirror.bridge = mirror.bridge.take().filter(|bridge| bridge != DEFAULT_BRIDGE);
        }
        self
    }

    /// What is said here, and for the rest what `base` says. Ports and vDPA devices are added to
    /// its, as are kinds and paths of the sandbox.
    ///
    /// # Errors
    /// A port or vDPA device that both have.
    pub fn over(self, base: Self) -> Result<Self, Error> {
        // A list of cores stands against a number of workers.
        let (cores, workers) = match (self.cores, self.workers) {
            (None, None) => (base.cores, base.workers),
            own => own,
        };
        let (control_group, control_mode) = over_access(
            (self.control_group, self.control_mode),
            (base.control_group, base.control_mode),
        );
        let (group, mode) = over_access(
            (self.sockets.group, self.sockets.mode),
            (base.sockets.group, base.sockets.mode),
        );
        let (mut bridges, mut mirrors) = (base.bridges, base.mirrors);
        bridges.extend(self.bridges);
        mirrors.extend(self.mirrors);
        Ok(Self {
            control: self.control.or(base.control),
            control_group,
            control_mode,
            cores,
            workers,
            busy_poll: self.busy_poll.or(base.busy_poll),
            group_fwd_mask: self.group_fwd_mask.or(base.group_fwd_mask),
            vlan_aware: self.vlan_aware.or(base.vlan_aware),
            any_source: self.any_source.or(base.any_source),
            lone_patches: self.lone_patches || base.lone_patches,
            mtu_is_wish: self.mtu_is_wish || base.mtu_is_wish,
            idle_after: self.idle_after.or(base.idle_after),
            sockets: Sockets { group, mode },
            metrics: self.metrics.over(base.metrics),
            sandbox: self.sandbox.over(base.sandbox),
            fdb: self.fdb.over(&base.fdb),
            rstp: if self.rstp.is_default() { base.rstp } else { self.rstp },
            mcast_snooping: self.mcast_snooping.over(&base.mcast_snooping),
            bridges,
            mirrors,
            ports: added("ports", base.ports, self.ports)?,
            vdpa: added("vdpa", base.vdpa, self.vdpa)?,
        })
    }

    /// The part that the switch itself wants.
    #[must_use]
    pub fn switch(&self) -> SwitchConfig {
        let defaults = SwitchConfig::default();
        let ageing = self.fdb.ageing.map(Duration::from_secs);
        let cores = self.cores.as_ref().map(|cores| cores.as_slice().to_vec());
        SwitchConfig {
            cores: cores.unwrap_or_default(),
            workers: self.workers.unwrap_or(defaults.workers),
            fdb_limit: self.fdb.size.unwrap_or(defaults.fdb_limit),
            ageing: ageing.unwrap_or(defaults.ageing),
            busy_poll: self.busy_poll.unwrap_or(defaults.busy_poll),
            group_fwd_mask: self.group_fwd_mask.unwrap_or(defaults.group_fwd_mask),
            vlan_aware: self.vlan_aware.unwrap_or(defaults.vlan_aware),
            any_source: self.any_source.unwrap_or(defaults.any_source),
            mcast_snooping: self.mcast_snooping.options(&defaults.mcast_snooping),
            sockets: self.sockets.into(),
            learn_per_burst: self.fdb.learn_per_burst.unwrap_or(defaults.learn_per_burst),
            idle_after: self.idle_after.map_or(defaults.idle_after, Duration::from_micros),
            rstp: self.rstp.clone(),
            identity: Identity::default(),
            mtu_is_wish: self.mtu_is_wish,
        }
    }

    /// Whether a port or vDPA device has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.ports.contains_key(name) || self.vdpa.contains_key(name)
    }

    /// Adds a port.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_port(&mut self, name: &str, port: Port) -> Result<(), Error> {
        self.check_free(name)?;
        self.ports.insert(name.to_owned(), port);
        Ok(())
    }

    /// Adds a vDPA device.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_vdpa(&mut self, name: &str, device: Vdpa) -> Result<(), Error> {
        self.check_free(name)?;
        self.vdpa.insert(name.to_owned(), device);
        Ok(())
    }

    fn check_free(&self, name: &str) -> Result<(), Error> {
        if self.ports.contains_key(name) {
            let name = name.to_owned();
            return Err(switch::Error::DuplicatePort { name }.into());
        }
        if self.vdpa.contains_key(name) {
            let reason = format!("a vDPA device '{name}' exists already");
            return Err(Error::exists(format!("vdpa.{name}"), reason));
        }
        Ok(())
    }

    /// Removes a port, with its static addresses, or a vDPA device; of a pair of patch ports both, and
    /// a bond with its members.
    ///
    /// # Errors
    /// There is neither.
    pub fn remove(&mut self, name: &str) -> Result<(), Error> {
        if let Some(peer) = self.peer_of(name).map(str::to_owned) {
            self.ports.shift_remove(&peer);
        }
        self.remove_members(name);
        if self.ports.shift_remove(name).is_some() || self.vdpa.shift_remove(name).is_some() {
            return Ok(());
        }
        Err(self.unknown(name))
    }

    /// A port, to be changed.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn port_mut(&mut self, name: &str) -> Result<&mut Port, Error> {
        if !self.ports.contains_key(name) {
            return Err(self.unknown(name));
        }
        self.ports.get_mut(name).ok_or_else(|| Error::invalid(name, "there is no such port"))
    }

    /// Changes settings of a port, by their keys in the file; `null` is the default. Of `guard`, `lacp`,
    /// `rstp` and `mcast-snooping`, settings that are not named stay.
    ///
    /// # Errors
    /// There is no such port or setting, or a value makes no sense.
    pub fn set_port(&mut self, name: &str, settings: Map<String, Value>) -> Result<(), Error> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("ports.{name}"), format!("port '{name}': {error}"))
        };
        let port = self.port_mut(name)?;
        let value = serde_json::to_value(&*port).map_err(|error| wrong(&error))?;
        let Value::Object(mut all) = value else { return Err(wrong(&"it has no settings")) };
        for (key, value) in settings {
            match value {
                // One that does not exist is to be refused all the same.
                Value::Null if all.contains_key(&key) || is_setting(&key) => _ = all.remove(&key),
                Value::Object(parts)
                    if matches!(key.as_str(), "guard" | "lacp" | "rstp" | "mcast-snooping") =>
                {
                    let own = all.entry(key).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(own) = own {
                        merge(own, parts);
                    }
                }
                value => _ = all.insert(key, value),
            }
        }
        let changed = object::read(Value::Object(all));
        *port = changed.map_err(|error| wrong(&explain(&error.to_string())))?;
        Ok(())
    }

    /// Has `address` be behind `port` always, and returns the port of the same bridge that it was
    /// behind before.
    ///
    /// # Errors
    /// There is no such port.
    pub fn add_address(&mut self, address: Address, port: &str) -> Result<Option<String>, Error> {
        let bridge = self.port_mut(port)?.bridge_name().to_owned();
        let before = self.port_of(&bridge, address).map(str::to_owned);
        let before = before.filter(|before| before != port);
        self.remove_address(&bridge, address);
        self.port_mut(port)?.addresses.insert(address);
        Ok(before)
    }

    /// Forgets a static address of a bridge; returns whether there was one.
    pub fn remove_address(&mut self, bridge: &str, address: Address) -> bool {
        let ports = self.ports.values_mut().filter(|port| port.bridge_name() == bridge);
        ports.fold(false, |was, port| port.addresses.remove(&address) | was)
    }

    /// The port of a bridge that `address` is always behind.
    #[must_use]
    pub fn port_of(&self, bridge: &str, address: Address) -> Option<&str> {
        let mut ports = self.ports.iter().filter(|(_, port)| port.bridge_name() == bridge);
        ports.find(|(_, port)| port.addresses.contains(&address)).map(|(name, _)| name.as_str())
    }

    /// That there is no port `name`, with the ones that there are.
    #[must_use]
    pub fn unknown(&self, name: &str) -> Error {
        let known: Vec<&str> =
            self.ports.keys().chain(self.vdpa.keys()).map(String::as_str).collect();
        let list = match known.as_slice() {
            [] => "; there are no ports".to_owned(),
            known => format!("; there are: {}", known.join(", ")),
        };
        let hint = hint(name, known);
        Error::unknown(format!("ports.{name}"), format!("there is no port '{name}'{hint}{list}"))
    }
}

/// Changes settings that belong together; `null` is the default.
fn merge(all: &mut Map<String, Value>, parts: Map<String, Value>) {
    for (key, value) in parts {
        match value {
            Value::Null if all.contains_key(&key) => _ = all.remove(&key),
            // One that does not exist is refused where all are read.
            value => _ = all.insert(key, value),
        }
    }
}

/// Whether a port has a setting of this key, apart from its device.
fn is_setting(key: &str) -> bool {
    // All settings have defaults, which a file need not say: so ask for one that has none.
    let parts = [("device", Value::from("")), (key, Value::Null)];
    let parts = parts.map(|(key, value)| (key.to_owned(), value));
    let error = object::read::<Port>(Value::Object(parts.into_iter().collect())).err();
    error.is_none_or(|error| !error.to_string().starts_with("unknown field"))
}

/// What there is of ports or vDPA devices, `section`, with those that are added.
fn added<T>(
    section: &str,
    mut all: IndexMap<String, T>,
    more: IndexMap<String, T>,
) -> Result<IndexMap<String, T>, Error> {
    for (name, one) in more {
        if all.insert(name.clone(), one).is_some() {
            return Err(twice(&format!("{section}.{name}"), &name));
        }
    }
    Ok(all)
}

fn twice(part: &str, name: &str) -> Error {
    let reason = format!("port name '{name}' is given twice; each port needs a name of its own");
    Error::invalid(part, reason)
}

/// Who may use a socket, group and mode, and for the rest what `base` says.
fn over_access(
    (group, mode): (Option<u32>, Option<u32>),
    base: (Option<u32>, Option<u32>),
) -> (Option<u32>, Option<u32>) {
    let Access { group, mode } = Access { group, mode }.or(Access { group: base.0, mode: base.1 });
    (group, mode)
}
