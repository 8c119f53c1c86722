//! Spanning tree in Open vSwitch's tables: settings of `Bridge` and `Port`, and what is written there of
//! its state (ovs-vswitchd.conf.db(5), "Spanning Tree Configuration" and "Rapid Spanning Tree").
//!
//! Both protocols are one here: a bridge with `stp_enable` speaks the old one. What makes no sense is as
//! when it is absent: there is no column for what is wrong with a bridge.

use std::str::FromStr;

use ovsdb::{Atom, Datum};
use switch::{PortRstp, Rstp, RstpBridge, RstpPort, RstpReport, RstpRole, RstpState, RstpVersion};

use crate::agent::Spans;
use crate::content::{Bridge, Port, Texts, flag};
use crate::desired::bridge_address;
use crate::report::Column;

/// Priorities are multiples of these, as far as they are looked at.
const BRIDGE_STEP: u16 = 0x1000;
const PORT_STEP: u8 = 0x10;

/// The highest number of a port.
const MAX_PORT: u16 = 255;

/// What an operator may say of a port's neighbours: `rstp-admin-p2p-mac`.
const SHARED: &str = "0";

/// A bridge's part in spanning tree.
#[must_use]
pub fn bridge(row: &Bridge) -> Rstp {
    if !(row.rstp || row.stp) {
        return Rstp::default();
    }
    let (all, keys) = (&row.other_config, keys(row));
    let address = if row.rstp { "rstp-address" } else { "stp-system-id" };
    let is_old = !row.rstp || all.get("rstp-force-protocol-version").is_some_and(|one| one == "0");
    let own = || bridge_address(row).to_string();
    let mut rstp = Rstp {
        enabled: true,
        priority: number(all, keys, "priority").map(|one: u16| one & !(BRIDGE_STEP - 1)),
        address: Some(all.get(address).cloned().unwrap_or_else(own)),
        max_age: number(all, keys, "max-age"),
        forward_delay: number(all, keys, "forward-delay"),
        transmit_hold_count: number(all, keys, "transmit-hold-count"),
        force_version: if is_old { RstpVersion::Stp } else { RstpVersion::Rstp },
    };
    while let Err((key, reason)) = rstp.check() {
        tracing::debug!("spanning tree is as if this were not said: {reason}");
        match key {
            "priority" => rstp.priority = None,
            "address" => rstp.address = Some(own()),
            "forward-delay" => rstp.forward_delay = None,
            "transmit-hold-count" => rstp.transmit_hold_count = None,
            // It may be the other one that is wrong, and goes next.
            "max-age" if rstp.max_age.is_some() => rstp.max_age = None,
            "max-age" if rstp.forward_delay.is_some() => rstp.forward_delay = None,
            _ => return Rstp { enabled: true, address: Some(own()), ..Rstp::default() },
        }
    }
    rstp
}

/// A port's part in that of its bridge. Internal ports have none, as with Open vSwitch: there is a host
/// behind them, and no bridge.
#[must_use]
pub fn port(row: &Port, bridge: &Bridge) -> PortRstp {
    let all = &row.other_config;
    let keys = keys(bridge);
    let is_internal = row.interfaces.values().any(|interface| interface.kind == "internal");
    let flag = |key: &str, default| flag(all, key, default);
    let only_rapid = PortRstp {
        admin_edge: flag("rstp-port-admin-edge", false),
        auto_edge: flag("rstp-port-auto-edge", true),
        point_to_point: all.get("rstp-admin-p2p-mac").is_none_or(|one| one != SHARED),
        ..PortRstp::default()
    };
    let common = if bridge.rstp { only_rapid } else { PortRstp::default() };
    let takes_part = (bridge.rstp || bridge.stp).then(|| PortRstp {
        enabled: !is_internal && flag(&format!("{keys}-enable"), true),
        path_cost: number(all, keys, "path-cost"),
        priority: number(all, keys, "port-priority").map(|one: u8| one & !(PORT_STEP - 1)),
        number: number(all, keys, "port-num").filter(|one| (1..=MAX_PORT).contains(one)),
        ..common
    });
    let mut port = takes_part.unwrap_or_default();
    if port.check().is_err() {
        // Of the two that can be wrong, a priority cannot any more.
        port.path_cost = None;
    }
    port
}

/// What goes on by itself in a status: how long a port has been in its state.
const SECONDS: &str = "stp_sec_in_state";

/// Whether two values of `Port.status` differ in nothing but how long that has been so.
#[must_use]
pub fn is_same_status(one: &Datum, other: &Datum) -> bool {
    let timeless = |datum: &Datum| match datum {
        Datum::Map(map) => {
            let mut map = map.clone();
            map.remove(&Atom::from(SECONDS));
            Datum::Map(map)
        }
        same => same.clone(),
    };
    timeless(one) == timeless(other)
}

/// What the keys of a bridge's protocol begin with.
const fn keys(row: &Bridge) -> &'static str {
    if row.rstp { "rstp" } else { "stp" }
}

/// The number that is said under the key `KEYS-KEY`.
fn number<T: FromStr>(all: &Texts, keys: &str, key: &str) -> Option<T> {
    all.get(&format!("{keys}-{key}"))?.parse().ok()
}

/// What a bridge's row says of its tree: `report` is there where it takes part.
#[must_use]
pub fn bridge_columns(row: &Bridge, report: Option<&RstpReport>) -> Vec<Column> {
    let empty = || [("status", Datum::default()), ("rstp_status", Datum::default())];
    let [mut old, mut rapid] = empty();
    match report {
        Some(report) if row.rstp => rapid.1 = rapid_status(report),
        Some(report) => old.1 = old_status(report),
        None => {}
    }
    vec![old, rapid]
}

fn rapid_status(report: &RstpReport) -> Datum {
    let root_port = report.ports.iter().find(|port| Some(&port.name) == report.root_port.as_ref());
    let designated = root_port.and_then(|port| port.designated).unwrap_or(report.id);
    texts([
        ("rstp_bridge_id", rapid_id(report.id)),
        ("rstp_root_path_cost", report.root_path_cost.to_string()),
        ("rstp_root_id", rapid_id(report.root)),
        ("rstp_designated_id", rapid_id(designated)),
        ("rstp_designated_port_id", port_id(root_port.map_or(0, |port| port.designated_port))),
        ("rstp_bridge_port_id", port_id(root_port.map_or(0, |port| port.id))),
    ])
}

fn old_status(report: &RstpReport) -> Datum {
    texts([
        ("stp_bridge_id", old_id(report.id)),
        ("stp_designated_root", old_id(report.root)),
        ("stp_root_path_cost", report.root_path_cost.to_string()),
    ])
}

/// What a port's row says of its part; `report` is there where it has one, for as long as `spans` says.
/// Counters with them, if `counts`.
#[must_use]
pub fn port_columns(
    bridge: &Bridge,
    report: Option<&RstpPort>,
    spans: Spans,
    counts: bool,
) -> Vec<Column> {
    let names = ["status", "rstp_status", "statistics", "rstp_statistics"];
    let [mut old, mut rapid, mut old_counts, mut rapid_counts] =
        names.map(|name| (name, Datum::default()));
    let counters = |report: &RstpPort, keys: &str| {
        let counters =
            [("tx_count", report.sent), ("rx_count", report.received), ("error_count", report.bad)];
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let uptime = (keys == "rstp").then_some(("uptime", spans.uptime.as_secs()));
        let counters = counters.into_iter().chain(uptime);
        counters.map(|(key, value)| (format!("{keys}_{key}"), number(value))).collect()
    };
    match report {
        Some(report) if bridge.rstp => {
            rapid.1 = rapid_port_status(report);
            rapid_counts.1 = counters(report, "rstp");
        }
        Some(report) => {
            old.1 = old_port_status(report, spans);
            old_counts.1 = counters(report, "stp");
        }
        None => {}
    }
    let counted = [old_counts, rapid_counts].into_iter().filter(|_| counts || report.is_none());
    [old, rapid].into_iter().chain(counted).collect()
}

fn rapid_port_status(report: &RstpPort) -> Datum {
    let designated = report.designated.map(rapid_id);
    let designated = designated.unwrap_or_else(|| "0.000.000000000000".to_owned());
    texts([
        ("rstp_port_id", port_id(report.id)),
        ("rstp_port_role", rapid_role(report.role).to_owned()),
        ("rstp_port_state", rapid_state(report).to_owned()),
        ("rstp_designated_bridge_id", designated),
        ("rstp_designated_port_id", port_id(report.designated_port)),
        ("rstp_designated_path_cost", report.designated_path_cost.to_string()),
    ])
}

fn old_port_status(report: &RstpPort, spans: Spans) -> Datum {
    texts([
        ("stp_port_id", report.id.to_string()),
        ("stp_state", old_state(report).to_owned()),
        (SECONDS, spans.in_state.as_secs().to_string()),
        ("stp_role", old_role(report.role).to_owned()),
    ])
}

/// The name of a role in the rapid protocol.
#[must_use]
pub const fn rapid_role(role: RstpRole) -> &'static str {
    match role {
        RstpRole::Disabled => "Disabled",
        RstpRole::Root => "Root",
        RstpRole::Designated => "Designated",
        RstpRole::Alternate => "Alternate",
        RstpRole::Backup => "Backup",
    }
}

/// The state of a port that does not take part, in the rapid protocol.
pub const RAPID_OFF: &str = "Disabled";

/// Likewise in the old one, where it is that of a port without a link, too.
pub const OLD_OFF: &str = "disabled";

/// The name of a port's state in the rapid protocol.
#[must_use]
pub const fn rapid_state(port: &RstpPort) -> &'static str {
    match port.state {
        RstpState::Discarding => "Discarding",
        RstpState::Learning => "Learning",
        RstpState::Forwarding => "Forwarding",
    }
}

/// The name of a role in the old protocol, which knows no backup.
#[must_use]
pub const fn old_role(role: RstpRole) -> &'static str {
    match role {
        RstpRole::Disabled => "disabled",
        RstpRole::Root => "root",
        RstpRole::Designated => "designated",
        RstpRole::Alternate | RstpRole::Backup => "alternate",
    }
}

/// The name of a port's state in the old protocol: one that is to forward listens first.
#[must_use]
pub fn old_state(port: &RstpPort) -> &'static str {
    let forwards = matches!(port.role, RstpRole::Root | RstpRole::Designated);
    match port.state {
        _ if port.role == RstpRole::Disabled => OLD_OFF,
        RstpState::Discarding if forwards => "listening",
        RstpState::Discarding => "blocking",
        RstpState::Learning => "learning",
        RstpState::Forwarding => "forwarding",
    }
}

/// A bridge's identifier, with the part of its priority that belongs to the standard by itself.
fn rapid_id(id: RstpBridge) -> String {
    format!("{:x}.{:03x}.{}", id.priority >> 12, id.priority & 0xFFF, digits(id))
}

fn old_id(id: RstpBridge) -> String {
    format!("{:04x}.{}", id.priority, digits(id))
}

fn digits(id: RstpBridge) -> String {
    id.address.to_string().replace(':', "")
}

fn port_id(id: u16) -> String {
    format!("{id:04x}")
}

fn texts<const N: usize>(pairs: [(&str, String); N]) -> Datum {
    pairs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ovsdb::Uuid;
    use packet::MacAddr;

    use super::*;
    use crate::content::Interface;

    fn all(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn row(rstp: bool, pairs: &[(&str, &str)]) -> Bridge {
        Bridge { rstp, stp: true, ..Bridge::bare(Uuid(0xabcdef), all(pairs), Default::default()) }
    }

    #[test]
    fn columns_are_the_settings_of_the_protocol_that_is_on() {
        let pairs = [
            ("rstp-priority", "8191"),
            ("rstp-max-age", "10"),
            ("rstp-forward-delay", "7"),
            ("rstp-transmit-hold-count", "3"),
            ("stp-priority", "0x7800"),
            ("stp-system-id", "02:00:00:00:00:07"),
            ("stp-max-age", "39"),
            ("stp-forward-delay", "21"),
        ];
        let rapid = bridge(&row(true, &pairs));
        assert_eq!(
            (rapid.priority, rapid.max_age, rapid.forward_delay),
            (Some(4096), Some(10), Some(7))
        );
        assert_eq!(rapid.address.as_deref(), Some("fe:00:00:ab:cd:ef"));
        assert_eq!((rapid.transmit_hold_count, rapid.force_version), (Some(3), RstpVersion::Rstp));
        let old = bridge(&row(false, &pairs));
        assert_eq!((old.priority, old.max_age, old.forward_delay), (None, Some(39), Some(21)));
        assert_eq!(old.address.as_deref(), Some("02:00:00:00:00:07"));
        assert_eq!((old.enabled, old.force_version), (true, RstpVersion::Stp));
        let off = Bridge { stp: false, ..row(false, &pairs) };
        assert!(bridge(&off).is_default());
    }

    #[test]
    fn nonsense_is_as_if_it_were_not_said() {
        let pairs = [
            ("rstp-priority", "-1"),
            ("rstp-address", "01:00:00:00:00:00"),
            ("rstp-max-age", "40"),
            ("rstp-forward-delay", "4"),
            ("rstp-transmit-hold-count", "11"),
        ];
        let made = bridge(&row(true, &pairs));
        assert_eq!(made.check(), Ok(()));
        assert_eq!((made.enabled, made.address.as_deref()), (true, Some("fe:00:00:ab:cd:ef")));
        // Every number that fits its type ends with settings that make sense.
        for age in 0..=u8::MAX {
            for delay in [0, 1, 4, 10, 30, 255] {
                let pairs = [("rstp-max-age", age), ("rstp-forward-delay", delay)];
                let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_string()));
                let made =
                    bridge(&Bridge { other_config: pairs.into_iter().collect(), ..row(true, &[]) });
                assert!(made.enabled && made.check().is_ok(), "{age} {delay}");
            }
        }
    }

    #[test]
    fn ports_have_their_part_as_their_bridge_has() {
        let of = |kind: &str, rstp: bool, pairs: &[(&str, &str)]| {
            let interface = ("p".to_owned(), Interface::bare(Uuid(2), kind));
            let interfaces = [interface].into_iter().collect();
            port(
                &Port { other_config: all(pairs), interfaces, ..Port::bare(Uuid(1)) },
                &row(rstp, &[]),
            )
        };
        assert!(of("dummy", true, &[]).is_default() && !of("internal", true, &[]).enabled);
        let pairs = [
            ("rstp-enable", "false"),
            ("rstp-path-cost", "2000"),
            ("rstp-port-priority", "40"),
            ("rstp-port-num", "7"),
            ("rstp-port-admin-edge", "true"),
            ("rstp-port-auto-edge", "false"),
            ("rstp-admin-p2p-mac", "0"),
            ("stp-path-cost", "0"),
            ("stp-port-num", "256"),
        ];
        let rapid = of("dummy", true, &pairs);
        assert_eq!((rapid.enabled, rapid.path_cost, rapid.priority), (false, Some(2000), Some(32)));
        assert_eq!(rapid.number, Some(7));
        assert!(rapid.admin_edge && !rapid.auto_edge && !rapid.point_to_point);
        assert!(of("dummy", false, &pairs).is_default());
    }

    #[test]
    fn state_is_told_in_the_words_of_the_protocol() {
        let id = |last| RstpBridge { priority: 0x8001, address: MacAddr([2, 0, 0, 0, 0, last]) };
        let port = RstpPort {
            name: "p1".to_owned(),
            id: 0x8001,
            role: RstpRole::Root,
            state: RstpState::Discarding,
            path_cost: 2000,
            is_edge: false,
            is_point_to_point: true,
            is_rapid: true,
            designated: Some(id(1)),
            designated_port: 0x8002,
            designated_path_cost: 0,
            received: 3,
            sent: 4,
            bad: 0,
            forwards: 0,
            turn: 0,
        };
        let report = RstpReport {
            bridge: "br0".to_owned(),
            id: id(2),
            root: id(1),
            root_path_cost: 2000,
            root_port: Some("p1".to_owned()),
            max_age: 20,
            hello_time: 2,
            forward_delay: 15,
            is_rapid: true,
            changes: 0,
            since_change: None,
            ports: vec![port.clone()],
        };
        let texts = |columns: Vec<Column>| -> Texts {
            let text = |(name, value): (&str, Datum)| {
                let pairs = value
                    .pairs()
                    .map(|(key, value)| format!("{}={}", key.to_json(), value.to_json()));
                (name.to_owned(), pairs.collect::<Vec<_>>().join(" ").replace('"', ""))
            };
            columns.into_iter().map(text).collect()
        };
        let rapid = texts(bridge_columns(&row(true, &[]), Some(&report)));
        assert_eq!(rapid[&"status".to_owned()], "");
        assert!(
            rapid[&"rstp_status".to_owned()].contains("rstp_designated_id=8.001.020000000001"),
            "{rapid:?}"
        );
        assert!(rapid[&"rstp_status".to_owned()].contains("rstp_bridge_port_id=8001"), "{rapid:?}");
        let old = texts(bridge_columns(&row(false, &[]), Some(&report)));
        assert!(
            old[&"status".to_owned()].contains("stp_designated_root=8001.020000000001"),
            "{old:?}"
        );
        let spans = Spans { uptime: Duration::from_secs(30), in_state: Duration::from_secs(7) };
        let rapid = texts(port_columns(&row(true, &[]), Some(&port), spans, true));
        assert!(
            rapid[&"rstp_status".to_owned()]
                .contains("rstp_port_role=Root rstp_port_state=Discarding")
        );
        let counted = "rstp_error_count=0 rstp_rx_count=3 rstp_tx_count=4 rstp_uptime=30";
        assert_eq!(rapid[&"rstp_statistics".to_owned()], counted);
        let columns = port_columns(&row(false, &[]), Some(&port), spans, false);
        let later = Spans { in_state: Duration::from_secs(9), ..spans };
        let at = |spans| port_columns(&row(false, &[]), Some(&port), spans, false).remove(0).1;
        assert!(at(spans) != at(later) && is_same_status(&at(spans), &at(later)));
        assert!(!is_same_status(&at(spans), &Datum::default()));
        let old = texts(columns);
        let status = "stp_port_id=32769 stp_role=root stp_sec_in_state=7 stp_state=listening";
        assert_eq!(old[&"status".to_owned()], status);
        assert!(!old.contains_key("statistics"));
        let none = texts(port_columns(&row(true, &[]), None, spans, false));
        assert_eq!(none.values().filter(|value| value.is_empty()).count(), 4);
    }
}
