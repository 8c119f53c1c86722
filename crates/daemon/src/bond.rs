//! Bonds of a desired state: ports with the device `bond:`, and those that are their members.

use ethdev::hint;
use litemap::LiteMap;
use serde_json::{Map, Value};
use switch::{BOND_DEVICE, Lacp, LldpMode, MAX_MEMBERS, PortVlan};

use crate::error::Error;
use crate::file::explain;
use crate::object;
use crate::state::{Port, State};

impl Port {
    /// A bond with default settings; which ports are its members, these say.
    #[must_use]
    pub fn bond() -> Self {
        Self::new(BOND_DEVICE)
    }

    /// Whether it is a bond.
    #[must_use]
    pub fn is_bond(&self) -> bool {
        self.device == BOND_DEVICE
    }
}

impl State {
    /// The members of bond `name`.
    pub fn members<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let is_member = move |port: &Port| port.bond.as_deref() == Some(name);
        let ports = self.ports.iter().filter(move |(_, port)| is_member(port));
        ports.map(|(name, _)| name.as_str())
    }

    /// Adds a bond, of which these ports become members, and are in service. They leave their
    /// bridges, and what they were set to there.
    ///
    /// # Errors
    /// The name is taken, or a member is not there or belongs to another bond.
    pub fn add_bond(&mut self, name: &str, bond: Port, members: &[String]) -> Result<(), Error> {
        if members.iter().any(|member| member == name) {
            return Err(wrong(name, "bond", "a bond cannot be a member of itself"));
        }
        for member in members {
            self.port_mut(member)?;
        }
        self.add_port(name, bond)?;
        self.set_members(name, members)
    }

    /// Changes settings of a bond, by their keys in its table `bonding`; `null` is the default.
    /// With `members` these ports are its members, and those that are no more are taken out of
    /// service, so that they make no loop.
    ///
    /// # Errors
    /// There is no such bond, setting or port, or a value makes no sense.
    pub fn set_bond(
        &mut self,
        name: &str,
        settings: Map<String, Value>,
        members: Option<&[String]>,
    ) -> Result<(), Error> {
        let port = self.port_mut(name)?;
        if !port.is_bond() {
            return Err(no_bond(name, port));
        }
        let failed = |error: &dyn std::fmt::Display| wrong(name, "bonding", &error.to_string());
        let mut own = serde_json::to_value(&port.bonding).map_err(|error| failed(&error))?;
        for (key, value) in settings {
            match (own.as_object_mut(), value) {
                (Some(own), Value::Null) => _ = own.remove(&key),
                (Some(own), value) => _ = own.insert(key, value),
                (None, _) => {}
            }
        }
        let changed = object::read(own);
        port.bonding = changed.map_err(|error| failed(&explain(&error.to_string())))?;
        members.map_or(Ok(()), |members| self.set_members(name, members))
    }

    fn set_members(&mut self, bond: &str, members: &[String]) -> Result<(), Error> {
        let leave: Vec<String> = self.members(bond).map(str::to_owned).collect();
        for member in leave.iter().filter(|member| !members.contains(member)) {
            let port = self.port_mut(member)?;
            (port.bond, port.enabled) = (None, false);
        }
        for member in members {
            let port = self.port_mut(member)?;
            if let Some(other) = port.bond.as_deref().filter(|other| *other != bond) {
                let reason = format!("it is a member of bond '{other}'");
                return Err(wrong(member, "bond", &reason));
            }
            if port.bond.is_none() {
                port.bond = Some(bond.to_owned());
                (port.bridge, port.vlan, port.enabled) = (None, PortVlan::default(), true);
            }
        }
        Ok(())
    }

    /// Removes a bond, and the ports that are its members.
    ///
    /// # Errors
    /// There is no such bond.
    pub fn remove_bond(&mut self, name: &str) -> Result<(), Error> {
        let port = self.port_mut(name)?;
        if !port.is_bond() {
            return Err(no_bond(name, port));
        }
        self.remove(name)
    }

    /// Removes the members of a bond that is to go: without it they would make loops.
    pub(crate) fn remove_members(&mut self, bond: &str) {
        self.ports.retain(|_, port| port.bond.as_deref() != Some(bond));
    }
}

fn no_bond(name: &str, port: &Port) -> Error {
    wrong(name, "device", &format!("it is no bond, but has device '{}'", port.device))
}

fn wrong(name: &str, key: &str, reason: &str) -> Error {
    Error::invalid(format!("ports.{name}.{key}"), format!("port '{name}': {reason}"))
}

/// What is wrong with the bonds of a state and their members.
pub(crate) fn check(state: &State) -> Result<(), Error> {
    for (name, port) in &state.ports {
        if let Some(bond) = &port.bond {
            check_member(state, name, port, bond)?;
        }
    }
    for (name, port) in &state.ports {
        if port.is_bond() {
            check_bond(state, name, port)?;
        } else {
            check_link(name, port)?;
        }
    }
    Ok(())
}

/// A port that is no bond may speak LACP by itself, but a patch port.
fn check_link(name: &str, port: &Port) -> Result<(), Error> {
    let speaks = port.bonding.lacp != Lacp::Off;
    if port.bond.is_none() && !speaks && !port.lacp.is_default() {
        return Err(wrong(
            name,
            "lacp",
            "'lacp' is for members of bonds, and ports with bonding.lacp",
        ));
    }
    if !port.bonding.is_of_link() || (!port.bonding.is_default() && port.bond.is_some()) {
        let reason = format!(
            "'bonding' is for ports with the device '{BOND_DEVICE}'; one that is no member of a bond can \
             have its keys for LACP"
        );
        return Err(wrong(name, "bonding", &reason));
    }
    if speaks && port.peer().is_some() {
        return Err(wrong(name, "bonding", "a patch port speaks LACP as a member of a bond only"));
    }
    Ok(())
}

fn check_member(state: &State, name: &str, port: &Port, bond: &str) -> Result<(), Error> {
    let Some(found) = state.ports.get(bond) else {
        let bonds = state.ports.iter().filter(|(_, port)| port.is_bond());
        let hint = hint(bond, bonds.map(|(name, _)| name.as_str()));
        let reason = format!(
            "there is no bond '{bond}'{hint}; one is a port with the device '{BOND_DEVICE}', as \
             'bond add' makes it"
        );
        return Err(wrong(name, "bond", &reason));
    };
    if !found.is_bond() {
        let reason = format!("'{bond}' is no bond, but has device '{}'", found.device);
        return Err(wrong(name, "bond", &reason));
    }
    if port.is_bond() {
        return Err(wrong(name, "bond", "a bond cannot be a member"));
    }
    if port.peer().is_some() && !found.bonding.arp_ip_targets.is_empty() {
        let reason = format!(
            "bond '{bond}' asks 'arp-ip-targets' by its members, and a patch port does not take answers"
        );
        return Err(wrong(name, "bond", &reason));
    }
    let given = [
        (port.bridge.is_some(), "bridge"),
        (!port.vlan.is_default(), "vlan"),
        (!port.addresses.is_empty(), "addresses"),
        (!port.guard.is_default(), "guard"),
        (!port.rstp.is_default(), "rstp"),
        (!port.mcast_snooping.is_default(), "mcast-snooping"),
    ];
    if port.limits.limits_unknown() {
        let reason = "a member of a bond looks no address up: it has no 'unknown-rate'";
        return Err(wrong(name, "limits", reason));
    }
    match given.into_iter().find_map(|(is_given, key)| is_given.then_some(key)) {
        Some(key) => {
            let reason = format!("a member of a bond has no '{key}': say it of port '{bond}'");
            Err(wrong(name, key, &reason))
        }
        None => Ok(()),
    }
}

fn check_bond(state: &State, name: &str, port: &Port) -> Result<(), Error> {
    let given = [
        (port.mtu.is_some(), "mtu"),
        (!port.workers.is_empty(), "workers"),
        (port.tx_retries != 0, "tx-retries"),
        (!port.limits.is_default(), "limits"),
        (port.lldp != LldpMode::Off, "lldp"),
        (port.cfm.is_some(), "cfm"),
        (port.bfd.is_some(), "bfd"),
        (!port.lacp.is_default(), "lacp"),
    ];
    if let Some(key) = given.into_iter().find_map(|(is_given, key)| is_given.then_some(key)) {
        let reason = format!("a bond has no '{key}': say it of its members");
        return Err(wrong(name, key, &reason));
    }
    let members: Vec<&str> = state.members(name).collect();
    if members.len() > MAX_MEMBERS {
        let reason = format!("it has {} members: expected {MAX_MEMBERS} at most", members.len());
        return Err(wrong(name, "bond", &reason));
    }
    check_lacp_ids(state, name)?;
    if let Some(primary) = port.bonding.primary.as_deref().filter(|one| !members.contains(one)) {
        let hint = hint(primary, members.iter().copied());
        let reason = format!("primary '{primary}' is none of its members{hint}");
        return Err(wrong(name, "bonding", &reason));
    }
    Ok(())
}

/// Members of a bond are told from each other by their numbers.
fn check_lacp_ids(state: &State, bond: &str) -> Result<(), Error> {
    let mut given: LiteMap<u16, &String> = LiteMap::new();
    for (name, port) in state.ports.iter().filter(|(_, port)| port.bond.as_deref() == Some(bond)) {
        let Some(id) = port.lacp.port_id else { continue };
        if let Some(other) = given.insert(id, name) {
            let reason = format!("member '{other}' has the same port-id {id} for LACP");
            return Err(wrong(name, "lacp", &reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check as check_all;
    use crate::file::parse;

    const BOND: &str = r#"
        [ports.up]
        device = "bond:"
        bonding = { primary = "m1", updelay = 200 }
        [ports.m1]
        device = "null:"
        bond = "up"
        [ports.m2]
        device = "null:"
        bond = "up"
        [ports.vm]
        device = "null:"
        vlan.tag = 5
    "#;

    fn state(text: &str) -> State {
        parse(text).unwrap()
    }

    fn error(text: &str) -> String {
        check_all(&State::default(), &state(text)).unwrap_err().to_string()
    }

    #[test]
    fn a_bond_is_a_port_and_its_members_say_so() {
        let state = state(BOND);
        assert!(check_all(&State::default(), &state).is_ok());
        assert_eq!(state.members("up").collect::<Vec<_>>(), ["m1", "m2"]);
        let port = &state.ports["up"];
        assert!(port.is_bond() && port.bonding.updelay == 200);
    }

    #[test]
    fn a_port_by_itself_may_speak_lacp() {
        let alone = "bonding = { lacp = \"active\" }\nlacp.port-id = 5";
        let text = BOND.replacen("vlan.tag = 5", alone, 1);
        assert!(check_all(&State::default(), &state(&text)).is_ok());
        let patches = "[bridges.red]\n[ports.a]\ndevice = \"patch:b\"\nbonding.lacp = \"active\"\n\
                       [ports.b]\nbridge = \"red\"\ndevice = \"patch:a\"\n";
        assert!(error(patches).contains("as a member of a bond only"));
    }

    #[test]
    fn members_may_be_patch_ports_to_another_bridge() {
        let text = "[bridges.red]\n[ports.up]\ndevice = \"bond:\"\n\
                    [ports.a]\nbond = \"up\"\ndevice = \"patch:b\"\n\
                    [ports.b]\nbridge = \"red\"\ndevice = \"patch:a\"\n";
        assert!(check_all(&State::default(), &state(text)).is_ok());
        let same = error(&text.replace("bridge = \"red\"\n", ""));
        assert!(same.contains("is in bridge 'default', too"), "{same}");
        let other = text.replace("\"bond:\"", "\"bond:\"\nbridge = \"red\"");
        assert!(error(&other).contains("is in bridge 'red', too"));
        let asks = text.replace("\"bond:\"", "\"bond:\"\nbonding.arp-ip-targets = [\"10.0.0.1\"]");
        assert!(error(&asks).contains("a patch port does not take answers"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (from, to, expected) in [
            ("bond = \"up\"", "bond = \"upp\"", "there is no bond 'upp'; did you mean 'up'?"),
            ("bond = \"up\"", "bond = \"vm\"", "'vm' is no bond, but has device 'null:'"),
            ("bond = \"up\"", "bond = \"up\"\nmtu = 1500\nvlan.tag = 5", "has no 'vlan'"),
            ("bond = \"up\"", "bond = \"up\"\naddresses = [\"02:00:00:00:00:01\"]", "'addresses'"),
            ("\"m1\", updelay", "\"vm\", updelay", "primary 'vm' is none of its members"),
            ("updelay = 200", "updelay = 600001", "updelay 600001: expected 0 to 600000"),
            ("device = \"bond:\"", "device = \"null:\"", "is no bond"),
            ("device = \"bond:\"", "device = \"bond:\"\nmtu = 1500", "a bond has no 'mtu'"),
            ("vlan.tag = 5", "lacp.port-id = 5", "'lacp' is for members of bonds"),
            (
                "bond = \"up\"",
                "bond = \"up\"\nlacp.port-id = 0",
                "lacp: port-id 0: expected 1 to 65535",
            ),
            ("vlan.tag = 5", "bonding.updelay = 5", "is for ports with the device 'bond:'"),
            (
                "bond = \"up\"",
                "bond = \"up\"\nbonding.lacp = \"active\"",
                "is for ports with the device 'bond:'",
            ),
            (
                "device = \"bond:\"",
                "device = \"bond:\"\nbond = \"up\"",
                "a bond cannot be a member",
            ),
        ] {
            let text = BOND.replacen(from, to, 1);
            assert_ne!(text, BOND);
            let error = error(&text);
            assert!(error.contains(expected), "{to}: {error}");
        }
        let twice = BOND.replace("bond = \"up\"", "bond = \"up\"\nlacp.port-id = 7");
        let same = error(&twice);
        assert!(same.contains("'m2': member 'm1' has the same port-id 7"), "{same}");
        let mirror = "[mirrors.w]\nselect-src-port = [\"m1\"]\noutput-port = \"vm\"\n";
        let error = error(&format!("{BOND}{mirror}"));
        assert!(error.contains("'m1' is a member of bond 'up'"), "{error}");
    }

    #[test]
    fn commands_make_change_and_remove_bonds_with_their_members() {
        let mut state =
            state("[ports.a]\ndevice=\"null:\"\nvlan.tag=5\n[ports.b]\ndevice=\"null:\"");
        let members = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let none = || Map::new();
        state.add_bond("up", Port::bond(), &members(&["a", "b"])).unwrap();
        assert_eq!(state.members("up").count(), 2);
        assert!(state.ports["a"].vlan.is_default());
        let missing = state.clone().add_bond("up2", Port::bond(), &members(&["x"])).unwrap_err();
        assert!(missing.to_string().contains("no port 'x'"), "{missing}");
        let taken = state.clone().add_bond("up2", Port::bond(), &members(&["a"])).unwrap_err();
        assert!(taken.to_string().contains("a member of bond 'up'"), "{taken}");
        let settings = |text: &str| serde_json::from_str(text).unwrap();
        state.set_bond("up", settings(r#"{"updelay":100,"primary":"a"}"#), None).unwrap();
        state.set_bond("up", settings(r#"{"primary":null,"downdelay":7}"#), None).unwrap();
        let bonding = &state.ports["up"].bonding;
        assert_eq!((bonding.updelay, bonding.downdelay, &bonding.primary), (100, 7, &None));
        let unknown = state.set_bond("up", settings(r#"{"updelai":1}"#), None).unwrap_err();
        assert!(unknown.to_string().contains("updelay"), "{unknown}");
        let no_bond = state.set_bond("a", none(), None).unwrap_err().to_string();
        assert!(no_bond.contains("it is no bond"), "{no_bond}");
        state.set_bond("up", none(), Some(&members(&["b"]))).unwrap();
        assert!(!state.ports["a"].enabled && state.ports["a"].bond.is_none());
        state.set_bond("up", none(), Some(&members(&["a", "b"]))).unwrap();
        assert!(state.ports["a"].enabled);
        assert!(state.remove_bond("a").unwrap_err().to_string().contains("it is no bond"));
        state.remove_bond("up").unwrap();
        assert!(state.ports.is_empty());
    }
}
