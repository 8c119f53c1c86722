//! What the database says about a switch: rows of `Bridge`, `Port` and `Interface`, as the schema
//! Open_vSwitch has them (ovs-vswitchd.conf.db(5)).

use std::collections::BTreeMap;

use ovsdb::{Cache, Datum, Row, Uuid, Wanted};

/// Texts by key, as in `options` and `other_config`.
pub type Texts = BTreeMap<String, String>;

/// What is watched of the database: what decides, and what is written back, so that only what is
/// different is written.
#[must_use]
pub fn wanted() -> Wanted {
    Wanted::new("Open_vSwitch")
        .table(
            "Open_vSwitch",
            [
                "bridges",
                "cur_cfg",
                "next_cfg",
                "other_config",
                "datapath_types",
                "iface_types",
                "dpdk_initialized",
                "dpdk_version",
            ],
        )
        .table(
            "Bridge",
            ["name", "ports", "datapath_id", "datapath_type", "datapath_version", "other_config"],
        )
        .table(
            "Port",
            [
                "name",
                "interfaces",
                "tag",
                "trunks",
                "cvlans",
                "vlan_mode",
                "bond_mode",
                "lacp",
                "bond_updelay",
                "bond_downdelay",
                "bond_active_slave",
                "other_config",
            ],
        )
        .table(
            "Interface",
            [
                "name",
                "type",
                "options",
                "other_config",
                "mac",
                "mtu_request",
                "ofport_request",
                "ofport",
                "error",
                "mac_in_use",
                "mtu",
                "admin_state",
                "link_state",
                "link_speed",
                "duplex",
                "link_resets",
                "status",
                "statistics",
            ],
        )
        .lock("ovs_vswitchd")
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The one row of the root table.
    pub root: Uuid,
    /// Counts what clients have changed; they wait until `cur_cfg` is as high.
    pub next_cfg: i64,
    /// Settings of the whole switch.
    pub other_config: Texts,
    /// By name.
    pub bridges: BTreeMap<String, Bridge>,
}

/// A row of `Bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its row.
    pub row: Uuid,
    /// Further settings.
    pub other_config: Texts,
    /// By name.
    pub ports: BTreeMap<String, Port>,
}

/// A row of `Port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its row.
    pub row: Uuid,
    /// The VLAN of an access or native port.
    pub tag: Option<i64>,
    /// The VLANs of a trunk; empty: all.
    pub trunks: Vec<i64>,
    /// The customers' VLANs of a tunnel; empty: all.
    pub cvlans: Vec<i64>,
    /// How it takes part in VLANs.
    pub vlan_mode: Option<String>,
    /// How a bond divides traffic.
    pub bond_mode: Option<String>,
    /// Whether a bond speaks LACP.
    pub lacp: Option<String>,
    /// How long a link of a bond has to be up before it counts, in milliseconds.
    pub bond_updelay: i64,
    /// How long it has to be down.
    pub bond_downdelay: i64,
    /// Further settings.
    pub other_config: Texts,
    /// One, or those of a bond, by name.
    pub interfaces: BTreeMap<String, Interface>,
}

#[cfg(test)]
impl Port {
    /// A row with all at its default, without interfaces.
    pub(crate) fn bare(row: Uuid) -> Self {
        Self {
            row,
            tag: None,
            trunks: Vec::new(),
            cvlans: Vec::new(),
            vlan_mode: None,
            bond_mode: None,
            lacp: None,
            bond_updelay: 0,
            bond_downdelay: 0,
            other_config: Texts::new(),
            interfaces: BTreeMap::new(),
        }
    }
}

/// A row of `Interface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its row.
    pub row: Uuid,
    /// What kind of device: `dpdkvhostuserclient`, `internal`, and so on; empty for one of the
    /// system's.
    pub kind: String,
    /// Settings of that kind.
    pub options: Texts,
    /// Further settings.
    pub other_config: Texts,
    /// The address that it is to have.
    pub mac: Option<String>,
    /// The MTU that it is to have.
    pub mtu_request: Option<i64>,
    /// The OpenFlow port number that it is to have.
    pub ofport_request: Option<i64>,
    /// The one that it has, by what was written last.
    pub ofport: Option<i64>,
}

fn texts(datum: &Datum) -> Texts {
    datum.texts().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The rows that a column refers to, by their names. Two of one name cannot be, by the schema.
fn named<T>(
    cache: &Cache,
    table: &str,
    references: &Datum,
    read: impl Fn(&Cache, Uuid, &Row) -> T,
) -> BTreeMap<String, T> {
    let rows = references.uuids().filter_map(|uuid| Some((uuid, cache.row(table, uuid)?)));
    rows.map(|(uuid, row)| {
        let name = row.get("name").string().unwrap_or_default().to_owned();
        (name, read(cache, uuid, row))
    })
    .collect()
}

impl Content {
    /// Reads it; `None` as long as there is no root row.
    #[must_use]
    pub fn read(cache: &Cache) -> Option<Self> {
        let (root, row) = cache.rows("Open_vSwitch").next()?;
        Some(Self {
            root,
            next_cfg: row.get("next_cfg").integer().unwrap_or(0),
            other_config: texts(row.get("other_config")),
            bridges: named(cache, "Bridge", row.get("bridges"), Bridge::read),
        })
    }

    /// All interfaces: bridge, port and interface, with the interfaces' names.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &Port, &str, &Interface)> {
        self.bridges.iter().flat_map(|(bridge, row)| {
            row.ports.values().flat_map(move |port| {
                let interfaces = port.interfaces.iter();
                interfaces.map(move |(name, row)| (bridge.as_str(), port, name.as_str(), row))
            })
        })
    }
}

impl Bridge {
    fn read(cache: &Cache, row: Uuid, bridge: &Row) -> Self {
        Self {
            row,
            other_config: texts(bridge.get("other_config")),
            ports: named(cache, "Port", bridge.get("ports"), Port::read),
        }
    }
}

impl Port {
    fn read(cache: &Cache, row: Uuid, port: &Row) -> Self {
        Self {
            row,
            tag: port.get("tag").integer(),
            trunks: port.get("trunks").integers().collect(),
            cvlans: port.get("cvlans").integers().collect(),
            vlan_mode: port.get("vlan_mode").string().map(str::to_owned),
            bond_mode: port.get("bond_mode").string().map(str::to_owned),
            lacp: port.get("lacp").string().map(str::to_owned),
            bond_updelay: port.get("bond_updelay").integer().unwrap_or(0),
            bond_downdelay: port.get("bond_downdelay").integer().unwrap_or(0),
            other_config: texts(port.get("other_config")),
            interfaces: named(cache, "Interface", port.get("interfaces"), Interface::read),
        }
    }
}

impl Interface {
    fn read(_: &Cache, row: Uuid, interface: &Row) -> Self {
        Self {
            row,
            kind: interface.get("type").string().unwrap_or_default().to_owned(),
            options: texts(interface.get("options")),
            other_config: texts(interface.get("other_config")),
            mac: interface.get("mac").string().map(str::to_owned),
            mtu_request: interface.get("mtu_request").integer(),
            ofport_request: interface.get("ofport_request").integer(),
            ofport: interface.get("ofport").integer(),
        }
    }
}
