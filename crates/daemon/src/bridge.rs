//! The bridges of a desired state.

use std::time::Duration;

use ethdev::hint;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use switch::{BridgeOptions, DEFAULT_BRIDGE, MAX_BRIDGES, Rstp};

use crate::error::Error;
use crate::file::explain;
use crate::object;
use crate::snoop::McastSnooping;
use crate::state::{Fdb, Port, State, is_default};

/// One section `[bridges.NAME]`. What it does not say is as in the default bridge, which the
/// settings outside of these sections are for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bridge {
    /// Reserved group addresses that are forwarded all the same: bit 0 is 01:80:c2:00:00:00.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_fwd_mask: Option<u16>,
    /// Whether it looks at tags though no port has VLAN settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_aware: Option<bool>,
    /// Whether it forwards frames whose source is zero or a group's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_source: Option<bool>,
    /// Its forwarding database.
    #[serde(skip_serializing_if = "is_default")]
    pub fdb: Fdb,
    /// Its part in spanning tree, whatever that of the default one is.
    #[serde(skip_serializing_if = "is_default")]
    pub rstp: Rstp,
    /// What it does about groups of IGMP and MLD.
    #[serde(skip_serializing_if = "is_default")]
    pub mcast_snooping: McastSnooping,
}

impl From<&BridgeOptions> for Bridge {
    fn from(options: &BridgeOptions) -> Self {
        let fdb = Fdb {
            ageing: Some(options.ageing.as_secs()),
            size: Some(options.fdb_limit),
            learn_per_burst: Some(options.learn_per_burst),
        };
        let (rstp, mcast_snooping) =
            (options.rstp.clone(), McastSnooping::from(&options.mcast_snooping));
        Self {
            group_fwd_mask: Some(options.group_fwd_mask),
            vlan_aware: Some(options.vlan_aware),
            any_source: Some(options.any_source),
            fdb,
            rstp,
            mcast_snooping,
        }
    }
}

impl Port {
    /// The name of the bridge that it belongs to.
    #[must_use]
    pub fn bridge_name(&self) -> &str {
        self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }
}

impl State {
    /// The names of all bridges, that of the default one first.
    pub fn bridge_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(DEFAULT_BRIDGE).chain(self.bridges.keys().map(String::as_str))
    }

    /// The settings of a bridge, with every default filled in; `None` where there is none of this
    /// name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<BridgeOptions> {
        let default = self.switch().bridge();
        if name == DEFAULT_BRIDGE {
            return Some(default);
        }
        let own = self.bridges.get(name)?;
        Some(BridgeOptions {
            fdb_limit: own.fdb.size.unwrap_or(default.fdb_limit),
            ageing: own.fdb.ageing.map_or(default.ageing, Duration::from_secs),
            learn_per_burst: own.fdb.learn_per_burst.unwrap_or(default.learn_per_burst),
            group_fwd_mask: own.group_fwd_mask.unwrap_or(default.group_fwd_mask),
            vlan_aware: own.vlan_aware.unwrap_or(default.vlan_aware),
            any_source: own.any_source.unwrap_or(default.any_source),
            rstp: own.rstp.clone(),
            mcast_snooping: own.mcast_snooping.options(&default.mcast_snooping),
        })
    }

    /// Adds a bridge.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_bridge(&mut self, name: &str, bridge: Bridge) -> Result<(), Error> {
        if self.bridge_names().any(|known| known == name) {
            let name = name.to_owned();
            return Err(switch::Error::DuplicateBridge { name }.into());
        }
        self.bridges.insert(name.to_owned(), bridge);
        Ok(())
    }

    /// Removes a bridge. Its ports have to be moved or removed, too.
    ///
    /// # Errors
    /// There is none of this name, or it has ports.
    pub fn remove_bridge(&mut self, name: &str) -> Result<(), Error> {
        if name == DEFAULT_BRIDGE {
            return Err(switch::Error::DefaultBridge.into());
        }
        let ports = self.ports.iter().filter(|(_, port)| port.bridge_name() == name);
        let ports: Vec<String> = ports.map(|(port, _)| port.clone()).collect();
        if !ports.is_empty() {
            return Err(switch::Error::BridgeInUse { name: name.to_owned(), ports }.into());
        }
        let removed = self.bridges.shift_remove(name);
        removed.map(drop).ok_or_else(|| self.unknown_bridge(&format!("bridges.{name}"), "", name))
    }

    /// Changes settings of a bridge, by their keys in the file, as in `fdb.ageing`; `null` is the
    /// default.
    ///
    /// # Errors
    /// There is no such bridge or setting, or a value makes no sense.
    pub fn set_bridge(
        &mut self,
        name: &str,
        settings: serde_json::Map<String, Value>,
    ) -> Result<(), Error> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("bridges.{name}"), format!("bridge '{name}': {error}"))
        };
        if name == DEFAULT_BRIDGE {
            let changed = self.default_bridge().with(settings).map_err(|error| wrong(&error))?;
            self.set_default_bridge(changed);
            return Ok(());
        }
        let Some(bridge) = self.bridges.get_mut(name) else {
            return Err(self.unknown_bridge(&format!("bridges.{name}"), "", name));
        };
        *bridge = bridge.with(settings).map_err(|error| wrong(&error))?;
        Ok(())
    }

    /// What the desired state says of the default bridge.
    pub(crate) fn default_bridge(&self) -> Bridge {
        Bridge {
            group_fwd_mask: self.group_fwd_mask,
            vlan_aware: self.vlan_aware,
            any_source: self.any_source,
            fdb: self.fdb.clone(),
            rstp: self.rstp.clone(),
            mcast_snooping: self.mcast_snooping.clone(),
        }
    }

    /// Has the default bridge be so.
    pub(crate) fn set_default_bridge(&mut self, bridge: Bridge) {
        let Bridge { group_fwd_mask, vlan_aware, any_source, fdb, rstp, mcast_snooping } = bridge;
        (self.group_fwd_mask, self.vlan_aware, self.fdb) = (group_fwd_mask, vlan_aware, fdb);
        self.any_source = any_source;
        (self.rstp, self.mcast_snooping) = (rstp, mcast_snooping);
    }

    /// That there is no bridge `name`, which `part` asks for, with the ones that there are.
    fn unknown_bridge(&self, part: &str, who: &str, name: &str) -> Error {
        let known: Vec<&str> = self.bridge_names().collect();
        let hint = hint(name, known.iter().copied());
        let known = known.join(", ");
        Error::unknown(part, format!("{who}there is no bridge '{name}'{hint}; there are: {known}"))
    }
}

impl Bridge {
    /// A bridge of these settings, by their keys in the file.
    ///
    /// # Errors
    /// There is no such setting, or a value makes no sense.
    pub fn of(settings: serde_json::Map<String, Value>) -> Result<Self, String> {
        Self::default().with(settings)
    }

    fn with(&self, settings: serde_json::Map<String, Value>) -> Result<Self, String> {
        let mut own = serde_json::to_value(self).map_err(|error| error.to_string())?;
        for (key, value) in settings {
            set(&mut own, &key, value);
        }
        object::read(own).map_err(|error| explain(&error.to_string()))
    }
}

/// Puts `value` where `key`, with dots between its parts, says.
fn set(table: &mut Value, key: &str, value: Value) {
    match key.split_once('.') {
        // A setting that is not there takes no other way, so that it is refused.
        None if value.is_null() && table.get(key).is_some() => {
            let table = table.as_object_mut();
            table.map(|table| table.remove(key));
        }
        None => table[key] = value,
        Some((first, rest)) => {
            if !table[first].is_object() {
                table[first] = Value::Object(serde_json::Map::new());
            }
            set(&mut table[first], rest, value);
        }
    }
}

/// What is wrong with the bridges of a state, and with where its ports belong.
pub(crate) fn check(state: &State) -> Result<(), Error> {
    if state.bridges.contains_key(DEFAULT_BRIDGE) {
        let reason = "the settings of bridge 'default' are 'group-fwd-mask', 'vlan-aware', 'any-source' and those \
                      in [fdb], [rstp] and [mcast-snooping], outside of [bridges]";
        return Err(Error::invalid(format!("bridges.{DEFAULT_BRIDGE}"), reason));
    }
    if state.bridges.len() >= MAX_BRIDGES {
        let (count, max) = (state.bridges.len().saturating_add(1), MAX_BRIDGES);
        let reason = format!("{count} bridges with the default one: expected {max} at most");
        return Err(Error::invalid("bridges", reason));
    }
    for name in state.bridges.keys() {
        check_one(state, name)?;
    }
    for (name, port) in &state.ports {
        if state.bridge(port.bridge_name()).is_none() {
            let (part, who) = (format!("ports.{name}.bridge"), format!("port '{name}': "));
            return Err(state.unknown_bridge(&part, &who, port.bridge_name()));
        }
    }
    Ok(())
}

fn check_one(state: &State, name: &str) -> Result<(), Error> {
    if !switch::is_port_name(name) {
        let error = switch::Error::BridgeName { name: name.to_owned() };
        return Err(Error::invalid(format!("bridges.{name}"), error));
    }
    let Some(options) = state.bridge(name) else { return Ok(()) };
    options.check().map_err(|error| {
        let part = format!("bridges.{name}.{}", part_of(&error));
        Error::invalid(part, format!("bridge '{name}': {error}"))
    })
}

/// The key of the setting that an error of the switch is about.
pub(crate) fn part_of(error: &switch::Error) -> &'static str {
    match error {
        switch::Error::Config { setting, .. } => match *setting {
            "number of workers" => "workers",
            "forwarding database limit" => "fdb.size",
            "addresses learnt per burst" => "fdb.learn-per-burst",
            setting if setting.starts_with("mcast-snooping.") => setting,
            _ => "fdb.ageing",
        },
        switch::Error::Rstp { setting, .. } => match *setting {
            "priority" => "rstp.priority",
            "address" => "rstp.address",
            "forward-delay" => "rstp.forward-delay",
            "transmit-hold-count" => "rstp.transmit-hold-count",
            _ => "rstp.max-age",
        },
        _ => "",
    }
}
