//! From what the database says to what a switch is to be.
//!
//! Nothing in a row may stop another one: what is wrong with an interface is noted for its column
//! `error`, and the switch is made without it.

use std::collections::BTreeSet;

use daemon::state::Fdb;
use daemon::{Error, Port, State};
use indexmap::IndexMap;
use litemap::LiteMap;
use ordered::Gather as _;
use ovsdb::Uuid;
use packet::MacAddr;
use switch::{DEFAULT_BRIDGE, Lacp, LldpMode, PortRstp, PortSnooping, PortVlan, is_port_name};

use crate::bond;
use crate::content::{Bridge, Content, Interface, Port as OvsPort};
use crate::device::{Places, TUNNELS, device, dummy, is_of_system};
use crate::{mirror, policing, shaping, snoop, spanning, vlan, watch};

/// What a port has that asks for nothing.
const USUAL_MTU: i64 = 1_500;

/// Names of interfaces that a data path has for itself, and what those begin with that it gives to its
/// tunnels (netdev_is_reserved_name of Open vSwitch).
const RESERVED_NAMES: [&str; 3] = ["ovs-system", "ovs-netdev", "ovs-dummy"];
const RESERVED_HEADS: [&str; 10] = [
    "genev_sys",
    "gre_sys",
    "vxlan_sys",
    "lisp_sys",
    "stt_sys",
    "erspan_sys",
    "ip6erspan_sys",
    "ip6gre_sys",
    "gtpu_sys",
    "udp_sys",
];

/// What is wrong with an interface that has one of these.
pub const RESERVED: &str = "name is reserved";

fn is_reserved(name: &str) -> bool {
    RESERVED_NAMES.contains(&name) || RESERVED_HEADS.iter().any(|head| name.starts_with(head))
}

/// What is wrong, by the row of `Interface`, in words for its column `error`.
pub type Problems = LiteMap<Uuid, String>;

/// What a switch is to be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// All of it, with the interfaces that make sense.
    pub state: State,
    /// What is wrong with the others.
    pub problems: Problems,
    /// The rows of the ports in the state.
    pub rows: LiteMap<String, Uuid>,
    /// Interfaces of the system that are not there.
    pub absent: Vec<String>,
    /// The names of mirrors, by their rows.
    pub mirrors: LiteMap<Uuid, String>,
}

impl Desired {
    /// What `content` makes of `base`, which has everything that is not in the database: workers,
    /// sockets, limits.
    #[must_use]
    pub fn new(content: &Content, base: &State, places: Places<'_>) -> Self {
        let mut state = base.clone();
        // A port of Open vSwitch without VLAN settings is a trunk of all VLANs.
        state.vlan_aware = Some(true);
        // It takes any address for a source.
        state.any_source = Some(true);
        // Both ends of a patch may be added one after the other.
        state.lone_patches = true;
        state.ports = IndexMap::new();
        let names = content.bridges.keys().filter(|name| *name != DEFAULT_BRIDGE);
        let named =
            names.filter_map(|name| Some((name.clone(), settings(content.bridges.get(name)?))));
        state.bridges = named.collect();
        state.mirrors = IndexMap::new();
        let (problems, rows, absent, mirrors) = Default::default();
        let mut desired = Self { state, problems, rows, absent, mirrors };
        for (bridge, row) in &content.bridges {
            desired.add_ports(bridge, row, places);
        }
        for (bridge, row) in &content.bridges {
            desired.add_mirrors(bridge, row);
        }
        desired.fit_mtus(content, |_, _| None);
        desired
    }

    /// Two bridges may have mirrors of one name: all but one are known by their rows, then.
    fn add_mirrors(&mut self, bridge: &str, row: &Bridge) {
        let names = mirror::port_names(row);
        for (name, mirror) in &row.mirrors {
            let has = |port: &str| self.state.ports.contains_key(port);
            match mirror::settings(bridge, mirror, &names, has) {
                Ok(made) => {
                    let is_good = is_port_name(name) && !self.state.mirrors.contains_key(name);
                    let key = if is_good { name.clone() } else { format!("{:032x}", mirror.row.0) };
                    self.mirrors.insert(mirror.row, key.clone());
                    self.state.mirrors.insert(key, made);
                }
                Err(why) => tracing::debug!("bridge {bridge}: mirror {name} does nothing: {why}"),
            }
        }
    }

    /// Has bridges' own ports that ask for no MTU have the smallest that the other ports of their bridge have
    /// asked for; or which they have, as `has` says, where that is less. Returns whether it was another.
    pub fn fit_mtus(
        &mut self,
        content: &Content,
        has: impl Fn(&str, &Port) -> Option<u16>,
    ) -> bool {
        let mut is_other = false;
        for bridge in content.bridges.values() {
            let rows = || bridge.ports.values().flat_map(|port| &port.interfaces);
            let has_mtu =
                |kind: &str| !matches!(kind, "internal" | "patch") && !TUNNELS.contains(&kind);
            let others = rows().filter(|(_, row)| has_mtu(&row.kind)).map(|(name, row)| {
                let Some(asked) = row.mtu_request else { return USUAL_MTU };
                let port = self.state.ports.get(name);
                let has = port.and_then(|port| has(name, port));
                has.map_or(asked, |has| asked.min(i64::from(has)))
            });
            let fit = others.min().filter(|mtu| *mtu != USUAL_MTU);
            let fit = fit.and_then(|mtu| u16::try_from(mtu).ok());
            let asks_for_none = |row: &Interface| row.mtu_request.is_none();
            for (name, _) in rows().filter(|(_, row)| row.kind == "internal" && asks_for_none(row))
            {
                if let Some(port) = self.state.ports.get_mut(name) {
                    is_other |= port.mtu != fit;
                    port.mtu = fit;
                }
            }
        }
        is_other
    }

    fn add_ports(&mut self, name: &str, bridge: &Bridge, places: Places<'_>) {
        for (port_name, port) in &bridge.ports {
            if port.interfaces.len() > 1 {
                self.add_bond((name, bridge), (port_name, port), places);
                continue;
            }
            for (interface, row) in &port.interfaces {
                let made = self.port((name, bridge), port, (interface, row), places);
                let made = made.and_then(|made| alone(bridge, port, row, made));
                self.add_port(interface, row.row, made);
            }
        }
    }

    /// A port of several interfaces: a bond, and its members.
    fn add_bond(
        &mut self,
        (bridge, bridge_row): (&str, &Bridge),
        (name, port): (&str, &OvsPort),
        places: Places<'_>,
    ) {
        let bond = bond::settings(port, bridge_address(bridge_row)).and_then(|bonding| {
            if self.state.ports.contains_key(name) || port.interfaces.contains_key(name) {
                return Err(format!("a bond needs a name that no interface has: not '{name}'"));
            }
            let vlan = vlan::settings(port)?;
            let bridge = Some(bridge.to_owned()).filter(|bridge| bridge != DEFAULT_BRIDGE);
            let rstp = spanning::port(port, bridge_row);
            let mcast_snooping = snoop::port(&port.other_config);
            Ok(Port { bonding, vlan, bridge, rstp, mcast_snooping, ..Port::bond() })
        });
        for (interface, row) in &port.interfaces {
            let made = match &bond {
                Ok(_) => self.port((bridge, bridge_row), port, (interface, row), places),
                Err(problem) => Err(problem.clone()),
            };
            let made = made.and_then(|port| {
                let (bond, lacp) = (Some(name.to_owned()), bond::member(row)?);
                let (vlan, rstp) = (PortVlan::default(), PortRstp::default());
                let mcast_snooping = PortSnooping::default();
                Ok(Port { bond, lacp, bridge: None, vlan, rstp, mcast_snooping, ..port })
            });
            self.add_port(interface, row.row, made);
        }
        if let Ok(mut bond) = bond {
            // One that is not there is not preferred.
            let primary = bond.bonding.primary.take();
            bond.bonding.primary =
                primary.filter(|primary| self.state.members(name).any(|member| member == primary));
            self.state.ports.insert(name.to_owned(), bond);
        }
    }

    fn port(
        &mut self,
        (bridge, bridge_row): (&str, &Bridge),
        port: &OvsPort,
        (name, row): (&str, &Interface),
        places: Places<'_>,
    ) -> Result<Port, String> {
        if is_reserved(name) {
            return Err(RESERVED.to_owned());
        }
        let is_dummy = places.dummies.has(&row.kind, &bridge_row.datapath_type);
        if is_of_system(row) && !is_dummy && !(places.exists)(name) {
            self.absent.push(name.to_owned());
            return Err("No such device".to_owned());
        }
        let mac = address(bridge, name, bridge_row, row)?;
        let device = match is_dummy {
            true => dummy(row, mac.as_deref()),
            false => device(name, row, mac.as_deref(), places)?,
        };
        // What the kernel shapes is not limited once more.
        let is_shaped = shaping::is_shaped(&device, port.qos.as_ref()) && (places.shapes)(name);
        let qos = port.qos.as_ref().filter(|_| !is_shaped);
        Ok(Port {
            limits: policing::limits(&row.policing, qos)?,
            mtu: row.mtu_request.map(mtu),
            vlan: vlan::settings(port)?,
            lldp: if row.lldp && has_neighbours(row) { LldpMode::Both } else { LldpMode::Off },
            cfm: watch::cfm(row),
            bfd: watch::bfd(row),
            rstp: spanning::port(port, bridge_row),
            mcast_snooping: snoop::port(&port.other_config),
            bridge: Some(bridge.to_owned()).filter(|bridge| bridge != DEFAULT_BRIDGE),
            ..Port::new(device)
        })
    }

    fn add_port(&mut self, name: &str, row: Uuid, made: Result<Port, String>) {
        match made {
            Err(problem) => _ = self.problems.insert(row, problem),
            Ok(_) if self.rows.contains_key(name) || self.state.ports.contains_key(name) => {
                let problem = "there is another interface of this name".to_owned();
                self.problems.insert(row, problem);
            }
            Ok(port) => {
                self.rows.insert(name.to_owned(), row);
                self.state.ports.insert(name.to_owned(), port);
            }
        }
    }

    /// Has those that speak LACP be known by their numbers of OpenFlow, as far as they are not told
    /// another one, and no other member of the bond is.
    pub fn number_links(&mut self, number: impl Fn(&str, &str) -> Option<u16>) {
        let speaks = |port: &Port| port.bonding.lacp != Lacp::Off;
        let bonds = self.state.ports.iter().filter(|(_, port)| port.is_bond() && speaks(port));
        let bonds: LiteMap<String, String> =
            bonds.map(|(name, bond)| (name.clone(), bond.bridge_name().to_owned())).gather();
        let ports = self.state.ports.iter();
        let given = ports.filter_map(|(_, port)| Some((port.bond.clone()?, port.lacp.port_id?)));
        let given: BTreeSet<(String, u16)> = given.gather();
        for (name, port) in &mut self.state.ports {
            let bridge = match &port.bond {
                Some(bond) => bonds.get(bond).map(String::as_str),
                None => (speaks(port) && !port.is_bond()).then(|| port.bridge_name()),
            };
            let own = bridge.and_then(|bridge| number(bridge, name));
            let bond = port.bond.clone().unwrap_or_default();
            let is_free = |own: &u16| !given.contains(&(bond, *own));
            port.lacp.port_id = port.lacp.port_id.or(own.filter(is_free));
        }
    }

    /// Leaves out the port that `error` is about, or has it as it was in `before`, or the bridge
    /// with all its ports, and notes the error for their rows. Returns whether there is such a port
    /// or bridge: then it is worth trying again.
    pub fn leave_out(&mut self, error: &Error, before: &State) -> bool {
        if let Some(bridge) = culprit_bridge(error, &self.state) {
            self.state.bridges.shift_remove(&bridge);
            let is_there = |port: &Port| port.bridge.as_ref() == Some(&bridge);
            let ports = self.state.ports.extract_if(.., |_, port| is_there(port));
            for row in ports.filter_map(|(name, _)| self.rows.get(&name)) {
                self.problems.insert(*row, error.to_string());
            }
            return true;
        }
        if let Some(mirror) = culprit_mirror(error, &self.state) {
            tracing::warn!("mirror {mirror} does nothing: {error}");
            return self.state.mirrors.shift_remove(&mirror).is_some();
        }
        let Some(name) = culprit(error, &self.state) else { return false };
        let Some(wanted) = self.state.ports.shift_remove(&name) else { return false };
        // A bond goes with its members.
        let members = self.state.ports.extract_if(.., |_, port| port.bond.as_ref() == Some(&name));
        for row in members.filter_map(|(member, _)| self.rows.get(&member)) {
            self.problems.insert(*row, error.to_string());
        }
        if let Some(row) = self.rows.get(&name) {
            self.problems.insert(*row, error.to_string());
        }
        let old = before.ports.get(&name).filter(|old| **old != wanted);
        if let Some(old) = old.filter(|old| old.bridge == wanted.bridge) {
            self.state.ports.insert(name, old.clone());
        }
        true
    }
}

/// Whether there is somebody at the other end of a wire: behind a patch port there is another bridge, and
/// behind a tunnel no neighbour.
fn has_neighbours(row: &Interface) -> bool {
    row.kind != "patch" && !TUNNELS.contains(&row.kind.as_str())
}

/// A port with one interface may speak LACP, where there are neighbours.
fn alone(bridge: &Bridge, port: &OvsPort, row: &Interface, made: Port) -> Result<Port, String> {
    let bonding = bond::link(port, bridge_address(bridge))?;
    if bonding.lacp == Lacp::Off || !has_neighbours(row) {
        return Ok(made);
    }
    Ok(Port { bonding, lacp: bond::member(row)?, ..made })
}

/// The port that an error is about.
fn culprit(error: &Error, state: &State) -> Option<String> {
    use switch::Error::{
        Bond, DuplicatePort, Port, PortName, PortVlan, TooManyPorts, UnknownPort, UnknownWorker,
    };
    match error {
        Error::Switch(
            Bond { name, .. }
            | DuplicatePort { name }
            | Port { name, .. }
            | PortName { name }
            | PortVlan { name, .. }
            | TooManyPorts { name, .. }
            | UnknownPort { name, .. }
            | UnknownWorker { name, .. },
        ) => Some(name.clone()),
        Error::Invalid { part, .. } | Error::Unknown { part, .. } => {
            named_in(part.strip_prefix("ports.")?, state.ports.keys())
        }
        _ => None,
    }
}

/// The bridge that an error is about.
fn culprit_bridge(error: &Error, state: &State) -> Option<String> {
    use switch::Error::{BridgeName, TooManyBridges};
    match error {
        Error::Switch(BridgeName { name } | TooManyBridges { name, .. }) => {
            state.bridges.contains_key(name).then(|| name.clone())
        }
        Error::Invalid { part, .. } | Error::Unknown { part, .. } => {
            named_in(part.strip_prefix("bridges.")?, state.bridges.keys())
        }
        _ => None,
    }
}

/// The mirror that an error is about.
fn culprit_mirror(error: &Error, state: &State) -> Option<String> {
    match error {
        Error::Switch(switch::Error::Mirror { name, .. }) => {
            state.mirrors.contains_key(name).then(|| name.clone())
        }
        Error::Invalid { part, .. } | Error::Unknown { part, .. } => {
            named_in(part.strip_prefix("mirrors.")?, state.mirrors.keys())
        }
        _ => None,
    }
}

/// The settings of a bridge.
fn settings(bridge: &Bridge) -> daemon::Bridge {
    let number = |key: &str| bridge.other_config.get(key).and_then(|text| text.parse::<u64>().ok());
    let size =
        number("mac-table-size").filter(|size| *size > 0).and_then(|size| size.try_into().ok());
    // As Open vSwitch bounds it, in seconds.
    let ageing = number("mac-aging-time").filter(|age| *age > 0).map(|age| age.clamp(15, 3_600));
    daemon::Bridge {
        fdb: Fdb { ageing, size, ..Fdb::default() },
        rstp: spanning::bridge(bridge),
        mcast_snooping: snoop::bridge(bridge),
        ..daemon::Bridge::default()
    }
}

/// The name at the begin of a part of the state. A name may have dots, too: the longest that fits.
fn named_in<'n>(part: &str, names: impl Iterator<Item = &'n String>) -> Option<String> {
    let is_about = |name: &&String| {
        let key = part.strip_prefix(name.as_str());
        key.is_some_and(|key| key.is_empty() || key.starts_with('.'))
    };
    names.filter(is_about).max_by_key(|name| name.len()).cloned()
}

/// The address that an interface is to have: its own, or for a bridge's own port, the bridge's.
fn address(
    bridge: &str,
    name: &str,
    row: &Bridge,
    interface: &Interface,
) -> Result<Option<String>, String> {
    if let Some(mac) = &interface.mac {
        let mac: MacAddr = mac.parse().map_err(|error| format!("mac {mac}: {error}"))?;
        return Ok(Some(mac.to_string()));
    }
    Ok((name == bridge).then(|| bridge_address(row).to_string()))
}

/// The address of a bridge: the one that is asked for, otherwise one of its own that stays the
/// same, made from the identifier of its row.
#[must_use]
pub fn bridge_address(bridge: &Bridge) -> MacAddr {
    let asked = bridge.other_config.get("hwaddr").and_then(|mac| mac.parse::<MacAddr>().ok());
    asked.filter(|mac| !mac.is_multicast()).unwrap_or_else(|| {
        let [.., b, c, d, e, f] = bridge.row.0.to_be_bytes();
        // Locally administered, for one station.
        MacAddr([0xfe, b, c, d, e, f])
    })
}

/// What is beyond all that a device may have is refused by it as the least or the largest number is.
fn mtu(request: i64) -> u16 {
    u16::try_from(request).unwrap_or(if request < 0 { 0 } else { u16::MAX })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::content::Texts;
    use crate::device::Dummies;

    fn interface(row: u8, kind: &str) -> Interface {
        Interface::bare(Uuid(u128::from(row)), kind)
    }

    fn port(interfaces: Vec<(&str, Interface)>) -> OvsPort {
        let interfaces = interfaces.into_iter().map(|(name, row)| (name.to_owned(), row));
        OvsPort { interfaces: interfaces.collect(), ..OvsPort::bare(Uuid(99)) }
    }

    fn content(ports: Vec<OvsPort>) -> Content {
        let ports = ports.into_iter().enumerate().map(|(at, port)| (format!("port{at}"), port));
        let bridge = Bridge::bare(Uuid(0xabcdef), Texts::new(), ports.collect());
        Content::bare(Texts::new(), ("br0", bridge))
    }

    fn desired(ports: Vec<OvsPort>) -> Desired {
        let content = content(ports);
        let (dummies, run) = (Dummies::None, Path::new("/run"));
        let places =
            Places { dummies, run, exists: &|name| name == "eth0", shapes: &|name| name == "eth0" };
        Desired::new(&content, &State::default(), places)
    }

    #[test]
    fn one_wrong_interface_stops_no_other() {
        let tagged =
            OvsPort { tag: Some(4095), ..port(vec![("c", interface(3, "dpdkvhostuser"))]) };
        let desired = desired(vec![
            port(vec![("br0", interface(1, "internal"))]),
            port(vec![("b", interface(2, "nonsense"))]),
            tagged,
            OvsPort {
                bond_mode: Some("balance-tcp".into()),
                ..port(vec![("d", interface(4, "")), ("e", interface(5, ""))])
            },
            port(vec![("eth0", interface(6, ""))]),
            port(vec![("eth1", interface(7, ""))]),
            port(vec![(
                "f",
                Interface { mtu_request: Some(1 << 20), ..interface(8, "dpdkvhostuser") },
            )]),
            port(vec![("g", Interface { mac: Some("x".into()), ..interface(9, "internal") })]),
            port(vec![("vxlan_sys_4789", interface(10, "internal"))]),
        ]);
        let names: Vec<&String> = desired.state.ports.keys().collect();
        assert_eq!(names, ["br0", "eth0", "f"]);
        assert_eq!(desired.state.ports["br0"].device, "tap:br0,mac=fe:00:00:ab:cd:ef");
        assert_eq!(desired.state.ports["eth0"].bridge.as_deref(), Some("br0"));
        let mtu = |name: &str| desired.state.ports[name].mtu;
        assert_eq!((mtu("f"), mtu("br0")), (Some(u16::MAX), None), "the device sees to that");
        let rows: Vec<u128> = desired.problems.keys().map(|row| row.0).collect();
        assert_eq!(rows, [2, 3, 4, 5, 7, 9, 10]);
        assert_eq!(desired.problems[&Uuid(10)], RESERVED);
        assert_eq!(desired.absent, ["eth1"]);
    }

    #[test]
    fn a_bridges_own_port_has_no_larger_mtu_than_the_others() {
        let asks = |mtu, kind| Interface { mtu_request: Some(mtu), ..interface(2, kind) };
        let ports = [
            port(vec![("br0", interface(1, "internal"))]),
            port(vec![("eth0", asks(9_000, ""))]),
            port(vec![("v", asks(2_000, "internal"))]),
        ];
        let content = content(ports.to_vec());
        let mut desired = desired(ports.to_vec());
        let mtus = |desired: &Desired| ["br0", "v"].map(|name| desired.state.ports[name].mtu);
        assert_eq!(mtus(&desired), [Some(9_000), Some(2_000)]);
        // What eth0 has: as much as it has asked for or more, or less.
        assert!(!desired.fit_mtus(&content, |_, _| Some(9_600)));
        assert!(desired.fit_mtus(&content, |name, _| (name == "eth0").then_some(4_000)));
        assert_eq!(mtus(&desired), [Some(4_000), Some(2_000)]);
        assert!(desired.fit_mtus(&content, |_, port| port.mtu.and(Some(1_500))));
        assert_eq!(mtus(&desired), [None, Some(2_000)]);
        assert!(!desired.fit_mtus(&content, |_, _| Some(1_500)));
    }

    #[test]
    fn several_interfaces_of_a_port_are_members_of_a_bond() {
        let other = [("bond-primary", "eth1"), ("bond-rebalance-interval", "5000")];
        let other = other.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let bond = || OvsPort {
            tag: Some(7),
            bond_mode: Some("balance-slb".into()),
            other_config: other.clone().into_iter().collect(),
            ..port(vec![("eth0", interface(2, "")), ("eth1", interface(3, ""))])
        };
        let mut wanted = desired(vec![port(vec![("br0", interface(1, "internal"))]), bond()]);
        let ports = &wanted.state.ports;
        assert_eq!(ports.keys().collect::<Vec<_>>(), ["br0", "eth0", "port1"]);
        assert_eq!((ports["eth0"].bond.as_deref(), &ports["eth0"].bridge), (Some("port1"), &None));
        assert!(ports["port1"].is_bond() && ports["port1"].vlan.tag == Some(7));
        let bonding = &ports["port1"].bonding;
        // An interface that is not there can be no primary one.
        assert_eq!((&bonding.primary, bonding.rebalance_interval), (&None, Some(5_000)));
        assert_eq!(wanted.absent, ["eth1"]);
        let refused = Error::invalid("ports.port1.bonding", "no good");
        assert!(wanted.leave_out(&refused, &State::default()));
        assert_eq!(wanted.state.ports.keys().collect::<Vec<_>>(), ["br0"]);
        assert!(wanted.problems[&Uuid(2)].contains("no good"));
        let taken = desired(vec![OvsPort { ..bond() }, port(vec![("port0", interface(4, "tap"))])]);
        assert_eq!(taken.state.ports["port0"].device, "bond:");
        assert!(taken.problems.contains_key(&Uuid(4)));
    }

    #[test]
    fn those_that_speak_lacp_are_known_by_their_numbers_of_openflow() {
        let speaks = |names: &[&str]| {
            let rows = (2..).zip(names).map(|(row, name)| (*name, interface(row, "dpdkvhostuser")));
            OvsPort { lacp: Some("active".into()), ..port(rows.collect()) }
        };
        let mut bond = speaks(&["m1", "m2", "m3"]);
        let told = bond.interfaces.get_mut("m2").unwrap();
        told.other_config.insert("lacp-port-id".into(), "1".into());
        let mute = OvsPort { lacp: None, ..speaks(&["d", "e"]) };
        let mut wanted = desired(vec![bond, speaks(&["alone"]), mute]);
        let numbers = [("m1", 1), ("m2", 2), ("m3", 3), ("alone", 4), ("d", 5)];
        wanted.number_links(|bridge, port| {
            assert_eq!(bridge, "br0");
            numbers.iter().find(|(name, _)| *name == port).map(|(_, number)| *number)
        });
        let id = |name: &str| wanted.state.ports[name].lacp.port_id;
        assert_eq!(["m1", "m2", "m3"].map(id), [None, Some(1), Some(3)], "one has that number");
        assert_eq!((id("alone"), id("d"), id("port0")), (Some(4), None, None));
        let alone = &wanted.state.ports["alone"].bonding;
        assert_eq!(alone.lacp_system_id.as_deref(), Some("fe:00:00:ab:cd:ef"));
    }

    #[test]
    fn a_bridge_that_is_refused_goes_with_its_ports() {
        let mut desired = desired(vec![port(vec![("eth0", interface(6, ""))])]);
        let before = State::default();
        assert!(desired.leave_out(&Error::invalid("bridges.br0", "no good name"), &before));
        assert!(desired.state.bridges.is_empty() && desired.state.ports.is_empty());
        assert!(desired.problems[&Uuid(6)].contains("no good name"));
        assert!(!desired.leave_out(&Error::invalid("bridges.br0", "no good name"), &before));
    }

    #[test]
    fn a_port_that_is_refused_is_left_out_or_stays_as_it_was() {
        let eth0 = || desired(vec![port(vec![("eth0", interface(6, ""))])]);
        let mut wanted = eth0();
        let mut before = wanted.state.clone();
        let refused = Error::invalid("ports.eth0.mtu", "too large");
        assert!(wanted.leave_out(&refused, &before));
        assert!(wanted.state.ports.is_empty(), "as it was is what was refused");
        assert!(wanted.problems[&Uuid(6)].contains("too large"));
        assert!(!wanted.leave_out(&refused, &before), "there is no such port any more");
        assert!(!wanted.leave_out(&Error::invalid("workers", "0"), &before));

        before.ports.get_mut("eth0").unwrap().mtu = Some(1400);
        let mut wanted = eth0();
        assert!(wanted.leave_out(&refused, &before));
        assert_eq!(wanted.state.ports["eth0"].mtu, Some(1400));
    }
}
