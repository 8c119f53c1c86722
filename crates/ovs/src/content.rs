//! What the database says about a switch: rows of `Bridge`, `Port`, `Interface`, `Mirror`, `QoS`,
//! `Flow_Table` and `Controller`, as the schema Open_vSwitch has them (ovs-vswitchd.conf.db(5)).

use std::collections::BTreeSet;

use litemap::LiteMap;
use ordered::Gather as _;
use ovsdb::{Atom, Cache, Change, Changes, Datum, Row, Uuid, Wanted};

use crate::controller::flow_table::FlowTable;
pub use crate::controller::row::Controller;
use crate::controller::row::{managers, ssl};
use crate::export::settings::{IpfixRow, NetflowRow, SflowRow};
use crate::zones::Zones;

/// Texts by key, as in `options` and `other_config`.
pub type Texts = LiteMap<String, String>;

/// The tables that are watched: columns that decide, and columns that are written back, watched so that
/// only what is different is written.
const TABLES: [(&str, &[&str], &[&str]); 18] = [
    (
        "Open_vSwitch",
        &["bridges", "next_cfg", "other_config", "datapaths", "manager_options", "ssl"],
        &["cur_cfg", "datapath_types", "iface_types", "dpdk_initialized", "dpdk_version"],
    ),
    (
        "Bridge",
        &[
            "name",
            "ports",
            "mirrors",
            "datapath_type",
            "stp_enable",
            "rstp_enable",
            "mcast_snooping_enable",
            "other_config",
            "controller",
            "protocols",
            "fail_mode",
            "flow_tables",
            "sflow",
            "netflow",
            "ipfix",
        ],
        &["datapath_id", "datapath_version", "status", "rstp_status"],
    ),
    (
        "Port",
        &[
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
            "qos",
            "other_config",
        ],
        &["bond_active_slave", "status", "statistics", "rstp_status", "rstp_statistics"],
    ),
    (
        "Interface",
        &[
            "name",
            "type",
            "options",
            "other_config",
            "mac",
            "mtu_request",
            "ofport_request",
            "ingress_policing_rate",
            "ingress_policing_burst",
            "ingress_policing_kpkts_rate",
            "ingress_policing_kpkts_burst",
            "lldp",
            "cfm_mpid",
            "bfd",
        ],
        &[
            "ofport",
            "error",
            "ifindex",
            "lacp_current",
            "mac_in_use",
            "mtu",
            "admin_state",
            "link_state",
            "link_speed",
            "duplex",
            "link_resets",
            "status",
            "statistics",
            "cfm_fault",
            "cfm_fault_status",
            "cfm_flap_count",
            "cfm_health",
            "cfm_remote_mpids",
            "cfm_remote_opstate",
            "bfd_status",
        ],
    ),
    ("Datapath", &["ct_zones", "ct_zone_default_limit"], &["capabilities"]),
    ("CT_Zone", &["timeout_policy", "limit"], &[]),
    ("CT_Timeout_Policy", &["timeouts"], &[]),
    ("QoS", &["type", "other_config", "queues"], &[]),
    ("Queue", &["dscp", "other_config"], &[]),
    ("Flow_Table", &["name", "flow_limit", "overflow_policy", "groups", "prefixes"], &[]),
    (
        "Controller",
        &[
            "target",
            "type",
            "max_backoff",
            "inactivity_probe",
            "controller_rate_limit",
            "controller_burst_limit",
            "enable_async_messages",
            "connection_mode",
        ],
        &["is_connected", "role", "status"],
    ),
    ("Manager", &["target", "connection_mode"], &[]),
    (
        "SSL",
        &[
            "private_key",
            "certificate",
            "ca_cert",
            "bootstrap_ca_cert",
            "ssl_protocols",
            "ssl_ciphers",
            "ssl_ciphersuites",
        ],
        &[],
    ),
    (
        "Mirror",
        &[
            "name",
            "select_all",
            "select_src_port",
            "select_dst_port",
            "select_vlan",
            "output_port",
            "output_vlan",
            "snaplen",
        ],
        &["statistics"],
    ),
    ("sFlow", &["targets", "sampling", "polling", "header", "agent"], &[]),
    (
        "NetFlow",
        &["targets", "engine_type", "engine_id", "add_id_to_interface", "active_timeout"],
        &[],
    ),
    (
        "IPFIX",
        &[
            "targets",
            "sampling",
            "obs_domain_id",
            "obs_point_id",
            "cache_active_timeout",
            "cache_max_flows",
            "other_config",
        ],
        &[],
    ),
    ("Flow_Sample_Collector_Set", &["id", "bridge", "ipfix"], &[]),
];

/// What is watched of the database, by whoever is to be its switch.
#[must_use]
pub fn wanted() -> Wanted {
    // A lock is a server's own: all of a cluster ask its leader.
    watched().lock("ovs_vswitchd").leader_only()
}

/// The same for somebody who only looks.
#[must_use]
pub fn watched() -> Wanted {
    TABLES.iter().fold(Wanted::new("Open_vSwitch"), |wanted, (table, decide, report)| {
        wanted.table(*table, decide.iter().chain(*report).copied())
    })
}

/// Whether there is more in these changes than what is written back.
#[must_use]
pub fn decide(changes: &Changes) -> bool {
    let decides = |table: &str, change: &Change| match change {
        Change::Inserted | Change::Deleted(_) => true,
        Change::Modified(columns) => columns.iter().any(|column| {
            let of_table = TABLES.iter().find(|(name, ..)| *name == table);
            of_table.is_none_or(|(_, _, report)| !report.contains(&column.as_str()))
        }),
    };
    changes.iter().any(|(table, rows)| rows.values().any(|change| decides(table, change)))
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
    pub bridges: LiteMap<String, Bridge>,
    /// How connections are kept.
    pub zones: Zones,
    /// Where managers of the database are that bridges are to have a way to: the database's server connects to them.
    pub managers: Vec<String>,
    /// The keys by which controllers know us, and we them.
    pub ssl: Option<tls::Settings>,
}

/// A row of `Bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its row.
    pub row: Uuid,
    /// What kind of data path it is to have; empty where that does not matter.
    pub datapath_type: String,
    /// Whether it takes part in spanning tree by the old protocol.
    pub stp: bool,
    /// Whether it does by the rapid one, which goes before the old one.
    pub rstp: bool,
    /// Whether it looks at groups of IGMP and MLD.
    pub mcast_snooping: bool,
    /// Further settings.
    pub other_config: Texts,
    /// By name.
    pub ports: LiteMap<String, Port>,
    /// By name.
    pub mirrors: LiteMap<String, Mirror>,
    /// The versions of OpenFlow that it is to speak; empty: all.
    pub protocols: Vec<String>,
    /// By their rows.
    pub controllers: LiteMap<Uuid, Controller>,
    /// What it does without a controller.
    pub fail_mode: Option<String>,
    /// How its tables of rules are set, by number.
    pub flow_tables: LiteMap<i64, FlowTable>,
    /// What collectors are told by sFlow.
    pub sflow: Option<SflowRow>,
    /// And by NetFlow.
    pub netflow: Option<NetflowRow>,
    /// And by IPFIX.
    pub ipfix: Option<IpfixRow>,
    /// What they are told that its rules sample, by numbers.
    pub collector_sets: LiteMap<u32, IpfixRow>,
}

/// A row of `Mirror`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Its row.
    pub row: Uuid,
    /// Whether it copies what passes through any port.
    pub select_all: bool,
    /// Rows of ports of which it copies what comes in.
    pub select_src_port: BTreeSet<Uuid>,
    /// Rows of ports of which it copies what goes out.
    pub select_dst_port: BTreeSet<Uuid>,
    /// The VLANs of which it copies; empty: all.
    pub select_vlan: Vec<i64>,
    /// The row of the port where copies go.
    pub output_port: Option<Uuid>,
    /// The VLAN where they go.
    pub output_vlan: Option<i64>,
    /// How many bytes of a frame are copied.
    pub snaplen: Option<i64>,
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
    /// How much may go out.
    pub qos: Option<Qos>,
    /// Further settings.
    pub other_config: Texts,
    /// One, or those of a bond, by name.
    pub interfaces: LiteMap<String, Interface>,
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
            qos: None,
            other_config: Texts::new(),
            interfaces: LiteMap::new(),
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
    /// How much may come in on it.
    pub policing: Policing,
    /// Whether it and its neighbours tell each other who they are.
    pub lldp: bool,
    /// The number of its maintenance point.
    pub cfm_mpid: Option<i64>,
    /// Settings of its session of BFD.
    pub bfd: Texts,
    /// The OpenFlow port number that it has, by what was written last.
    pub ofport: Option<i64>,
}

/// A row of `QoS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// What is done: `egress-policer`, `linux-htb`, and so on.
    pub kind: String,
    /// How much may pass, and further settings.
    pub other_config: Texts,
    /// Its queues, by their numbers.
    pub queues: LiteMap<u32, Queue>,
}

/// A row of `Queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// The DSCP that packets get that go out by it.
    pub dscp: Option<u8>,
    /// How much may go out by it.
    pub other_config: Texts,
}

/// How much may come in on an interface; 0 where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policing {
    /// `ingress_policing_rate`, in kbit/s.
    pub rate: i64,
    /// `ingress_policing_burst`, in kbit.
    pub burst: i64,
    /// `ingress_policing_kpkts_rate`, in thousands of frames per second.
    pub kpkts_rate: i64,
    /// `ingress_policing_kpkts_burst`, in thousands of frames.
    pub kpkts_burst: i64,
}

#[cfg(test)]
impl Interface {
    /// A row of this type, with all else at its default.
    pub(crate) fn bare(row: Uuid, kind: &str) -> Self {
        Self {
            row,
            kind: kind.to_owned(),
            options: Texts::new(),
            other_config: Texts::new(),
            mac: None,
            mtu_request: None,
            ofport_request: None,
            policing: Policing::default(),
            lldp: false,
            cfm_mpid: None,
            bfd: Texts::new(),
            ofport: None,
        }
    }
}

#[cfg(test)]
impl Content {
    /// One with these settings, and one bridge.
    pub(crate) fn bare(other_config: Texts, bridge: (&str, Bridge)) -> Self {
        let (name, bridge) = bridge;
        let bridges = LiteMap::from_iter([(name.to_owned(), bridge)]);
        let (zones, managers, ssl) = Default::default();
        Self { root: Uuid(1), next_cfg: 1, other_config, bridges, zones, managers, ssl }
    }
}

#[cfg(test)]
impl Bridge {
    /// A row with these settings and ports.
    pub(crate) fn bare(row: Uuid, other_config: Texts, ports: LiteMap<String, Port>) -> Self {
        let (datapath_type, mirrors, protocols, controllers, flow_tables) = Default::default();
        Self {
            row,
            datapath_type,
            stp: false,
            rstp: false,
            mcast_snooping: false,
            other_config,
            ports,
            mirrors,
            protocols,
            controllers,
            fail_mode: None,
            flow_tables,
            sflow: None,
            netflow: None,
            ipfix: None,
            collector_sets: LiteMap::new(),
        }
    }
}

pub(crate) fn texts(datum: &Datum) -> Texts {
    datum.texts().map(|(key, value)| (key.to_owned(), value.to_owned())).gather()
}

/// Whether a column of one truth value, or none, is true.
fn is_set(row: &Row, column: &str) -> bool {
    row.get(column).boolean().unwrap_or(false)
}

/// Whether `key` says `true`, or `false` where `default` is true; what else it says is the default, as with
/// Open vSwitch.
#[must_use]
pub fn flag(texts: &Texts, key: &str, default: bool) -> bool {
    let text = texts.get(key).map_or("", String::as_str);
    let other = if default { "false" } else { "true" };
    text.eq_ignore_ascii_case(other) != default
}

/// The rows that a column refers to, by their names. Two of one name cannot be, by the schema.
fn named<T>(
    cache: &Cache,
    table: &str,
    references: &Datum,
    read: impl Fn(&Cache, Uuid, &Row) -> T,
) -> LiteMap<String, T> {
    let rows = references.uuids().filter_map(|uuid| Some((uuid, cache.row(table, uuid)?)));
    rows.map(|(uuid, row)| {
        let name = row.get("name").string().unwrap_or_default().to_owned();
        (name, read(cache, uuid, row))
    })
    .gather()
}

/// What collectors are told that rules of a bridge sample.
fn collector_sets(cache: &Cache, bridge: Uuid) -> LiteMap<u32, IpfixRow> {
    let rows = cache.rows("Flow_Sample_Collector_Set").map(|(_, row)| row);
    let own = rows.filter(|row| row.get("bridge").uuid() == Some(bridge));
    own.filter_map(|row| {
        let number = row.get("id").integer().and_then(|id| u32::try_from(id).ok())?;
        let ipfix = cache.row("IPFIX", row.get("ipfix").uuid()?)?;
        Some((number, IpfixRow::read(ipfix)))
    })
    .gather()
}

/// Whether files, such as a bridge's socket, may be named by this.
fn is_safe(name: &str) -> bool {
    let is_safe = !name.is_empty() && !name.contains(['/', '\\', '\0']);
    if !is_safe {
        tracing::warn!("ignoring bridge with invalid name \"{}\"", name.escape_default());
    }
    is_safe
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
            zones: Zones::read(cache, row),
            managers: managers(cache, row),
            ssl: ssl(cache, row),
            bridges: {
                let mut bridges = named(cache, "Bridge", row.get("bridges"), Bridge::read);
                bridges.retain(|name, _| is_safe(name));
                bridges
            },
        })
    }

    /// The interface of this name, and its bridge.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<(&str, &Interface)> {
        // Nearly all are the only one of a port of that name; the others are members of bonds.
        let mut bridges = self.bridges.iter();
        let alone = bridges.find_map(|(bridge, row)| {
            Some((bridge.as_str(), row.ports.get(name)?.interfaces.get(name)?))
        });
        alone.or_else(|| {
            let mut all = self.interfaces();
            let found = all.find(|(_, _, found, _)| *found == name);
            found.map(|(bridge, _, _, row)| (bridge, row))
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
            datapath_type: bridge.get("datapath_type").string().unwrap_or_default().to_owned(),
            stp: is_set(bridge, "stp_enable"),
            rstp: is_set(bridge, "rstp_enable"),
            mcast_snooping: is_set(bridge, "mcast_snooping_enable"),
            other_config: texts(bridge.get("other_config")),
            ports: named(cache, "Port", bridge.get("ports"), Port::read),
            mirrors: named(cache, "Mirror", bridge.get("mirrors"), Mirror::read),
            fail_mode: bridge.get("fail_mode").string().map(str::to_owned),
            protocols: bridge.get("protocols").strings().map(str::to_owned).collect(),
            controllers: bridge
                .get("controller")
                .uuids()
                .filter_map(|row| Some((row, Controller::read(cache.row("Controller", row)?))))
                .gather(),
            flow_tables: FlowTable::all(cache, bridge),
            sflow: {
                let row = bridge.get("sflow").uuid();
                row.and_then(|row| cache.row("sFlow", row)).map(SflowRow::read)
            },
            netflow: {
                let row = bridge.get("netflow").uuid();
                row.and_then(|row| cache.row("NetFlow", row)).map(NetflowRow::read)
            },
            ipfix: {
                let row = bridge.get("ipfix").uuid();
                row.and_then(|row| cache.row("IPFIX", row)).map(IpfixRow::read)
            },
            collector_sets: collector_sets(cache, row),
        }
    }
}

impl Port {
    fn read(cache: &Cache, row: Uuid, port: &Row) -> Self {
        let qos = port.get("qos").uuid().and_then(|row| cache.row("QoS", row));
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
            qos: qos.map(|qos| Qos::read(cache, qos)),
            other_config: texts(port.get("other_config")),
            interfaces: named(cache, "Interface", port.get("interfaces"), Interface::read),
        }
    }
}

impl Qos {
    fn read(cache: &Cache, qos: &Row) -> Self {
        let queues = qos.get("queues").pairs().filter_map(|(number, row)| match (number, row) {
            (Atom::Integer(number), Atom::Uuid(row)) => {
                let queue = cache.row("Queue", *row)?;
                let dscp = queue.get("dscp").integer().and_then(|dscp| u8::try_from(dscp).ok());
                let dscp = dscp.filter(|dscp| *dscp < 64);
                let other_config = texts(queue.get("other_config"));
                Some((u32::try_from(*number).ok()?, Queue { dscp, other_config }))
            }
            _ => None,
        });
        Self {
            queues: queues.gather(),
            kind: qos.get("type").string().unwrap_or_default().to_owned(),
            other_config: texts(qos.get("other_config")),
        }
    }
}

impl Policing {
    fn read(interface: &Row) -> Self {
        let figure = |column| interface.get(column).integer().unwrap_or(0);
        Self {
            rate: figure("ingress_policing_rate"),
            burst: figure("ingress_policing_burst"),
            kpkts_rate: figure("ingress_policing_kpkts_rate"),
            kpkts_burst: figure("ingress_policing_kpkts_burst"),
        }
    }
}

impl Mirror {
    fn read(_: &Cache, row: Uuid, mirror: &Row) -> Self {
        Self {
            row,
            select_all: is_set(mirror, "select_all"),
            select_src_port: mirror.get("select_src_port").uuids().gather(),
            select_dst_port: mirror.get("select_dst_port").uuids().gather(),
            select_vlan: mirror.get("select_vlan").integers().collect(),
            output_port: mirror.get("output_port").uuid(),
            output_vlan: mirror.get("output_vlan").integer(),
            snaplen: mirror.get("snaplen").integer(),
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
            policing: Policing::read(interface),
            lldp: interface.get("lldp").value_of("enable") == Some("true"),
            cfm_mpid: interface.get("cfm_mpid").integer(),
            bfd: texts(interface.get("bfd")),
            ofport: interface.get("ofport").integer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_name_or_in_its_bond() {
        let port = |(port, interfaces): (&str, &[&str])| {
            let rows = interfaces.iter().zip(7..).map(|(name, row)| {
                let row = Interface::bare(Uuid(row), "internal");
                ((*name).to_owned(), row)
            });
            (port.to_owned(), Port { interfaces: rows.collect(), ..Port::bare(Uuid(3)) })
        };
        let bridge = |ports: &[(&str, &[&str])]| {
            Bridge::bare(Uuid(2), Texts::new(), ports.iter().copied().map(port).collect())
        };
        // A port may have the name of another one's interface.
        let ports: &[(&str, &[&str])] = &[("a", &["a"]), ("bond", &["m0", "m1"])];
        let mut content = Content::bare(Texts::new(), ("br0", bridge(ports)));
        content.bridges.insert("br1".to_owned(), bridge(&[("m1", &["x"])]));
        let found = |name| content.interface(name).map(|(bridge, row)| (bridge, row.row));
        assert_eq!(found("a"), Some(("br0", Uuid(7))));
        assert_eq!(found("m1"), Some(("br0", Uuid(8))));
        assert_eq!((found("x"), found("bond")), (Some(("br1", Uuid(7))), None));
    }
}
