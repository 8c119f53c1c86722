//! From what a switch is to what is written into the database about it.

use std::collections::BTreeMap;

use ethdev::PortStats;
use ovsdb::{Atom, Cache, Datum, Row, Transaction, Uuid};
use switch::{MemberLacp, MirrorReport, PortReport};

use crate::content::{Bridge, Interface};
use crate::desired::bridge_address;
use crate::device::{DUMMIES, Dummies, KINDS};

/// The value of a column.
pub type Column = (&'static str, Datum);

/// What the root row says of this process.
#[must_use]
pub fn root_columns(version: &str, dummies: Dummies) -> Vec<Column> {
    let (path, kinds): (&[&str], &[&str]) = match dummies {
        Dummies::None => (&[], &[]),
        _ => (&["dummy"], &DUMMIES),
    };
    vec![
        ("datapath_types", ["netdev", "system"].into_iter().chain(path.iter().copied()).collect()),
        ("iface_types", KINDS.into_iter().chain(kinds.iter().copied()).collect()),
        // What asks for it wants to know whether vhost-user ports can be had.
        ("dpdk_initialized", Datum::from(true)),
        ("dpdk_version", Datum::from(format!("Ringway {version}"))),
    ]
}

/// What a bridge's row says.
#[must_use]
pub fn bridge_columns(bridge: &Bridge) -> Vec<Column> {
    vec![
        ("datapath_id", Datum::from(datapath_id(bridge))),
        ("datapath_version", Datum::from("<built-in>")),
    ]
}

/// The bridge's identifier for controllers: the one asked for, or its address behind zeroes.
#[must_use]
pub fn datapath_id(bridge: &Bridge) -> String {
    let asked = bridge.other_config.get("datapath-id");
    let asked = asked.map(|id| id.trim_start_matches("0x"));
    let is_good = |id: &&str| {
        !id.is_empty()
            && id.len() <= 16
            && id.chars().all(|digit| digit.is_ascii_hexdigit())
            && id.chars().any(|digit| digit != '0')
    };
    match asked.filter(is_good) {
        Some(id) => format!("{id:0>16}").to_lowercase(),
        None => {
            let digits: String =
                bridge_address(bridge).to_string().chars().filter(|digit| *digit != ':').collect();
            format!("{digits:0>16}")
        }
    }
}

/// What an interface's row says: of a port that is there, or why it is not.
#[must_use]
pub fn interface_columns(
    name: &str,
    number: Option<u16>,
    report: Option<&PortReport>,
    problem: Option<&str>,
) -> Vec<Column> {
    let error = problem.map(|why| format!("could not open network device {name} ({why})"));
    let mut columns = vec![("error", error.map_or_else(Datum::default, Datum::from))];
    let Some(report) = report else {
        columns.push(("ofport", Datum::from(-1)));
        let gone = ["mac_in_use", "mtu", "admin_state", "link_state", "link_speed", "duplex"];
        columns.extend(gone.map(|column| (column, Datum::default())));
        columns.push(("status", Datum::Map(BTreeMap::new())));
        return columns;
    };
    let up_or_down = |up: bool| Datum::from(if up { "up" } else { "down" });
    let speed = report.link.speed_mbps.map(|mbps| i64::from(mbps).saturating_mul(1_000_000));
    columns.extend([
        ("ofport", number.map_or(Datum::from(-1), |number| Datum::from(i64::from(number)))),
        ("mac_in_use", Datum::from(report.mac.to_string())),
        ("mtu", Datum::from(i64::from(report.mtu))),
        ("admin_state", up_or_down(!report.disabled)),
        ("link_state", up_or_down(report.link.up)),
        ("link_speed", speed.map_or_else(Datum::default, Datum::from)),
        ("duplex", Datum::from("full")),
        ("link_resets", Datum::from(i64::try_from(report.link.changes).unwrap_or(i64::MAX))),
        ("status", status(report)),
    ]);
    columns
}

fn status(report: &PortReport) -> Datum {
    let driver = ("driver_name".to_owned(), report.driver.to_owned());
    let details = report.details.iter().cloned();
    std::iter::once(driver).chain(details).collect()
}

/// What an interface's row says of the system's number for it, and of LACP, where it speaks that: whether
/// its partner is heard, or was lately.
#[must_use]
pub fn host_columns(index: Option<u32>, lacp: Option<MemberLacp>) -> [Column; 2] {
    let is_heard = |state: &str| !matches!(state, "defaulted" | "disabled");
    let is_heard = lacp.map(|lacp| Datum::from(is_heard(lacp.state)));
    let index = index.map(|index| Datum::from(i64::from(index)));
    [("ifindex", index.unwrap_or_default()), ("lacp_current", is_heard.unwrap_or_default())]
}

/// The address of a bond's active interface.
#[must_use]
pub fn active_member(active: Option<&PortReport>) -> Column {
    let mac = active.map(|report| report.mac.to_string());
    ("bond_active_slave", mac.map_or_else(Datum::default, Datum::from))
}

/// What a mirror's row says.
#[must_use]
pub fn mirror_columns(report: &MirrorReport) -> Vec<Column> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let pairs = [("tx_packets", number(report.packets)), ("tx_bytes", number(report.bytes))];
    vec![("statistics", pairs.into_iter().collect())]
}

/// The statistics of an interface, by Open vSwitch's names.
#[must_use]
pub fn statistics(report: &PortReport) -> Column {
    let (rx, tx) = (report.stats.rx_total(), report.stats.tx_total());
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let pairs = [
        ("rx_packets", number(rx.packets)),
        ("rx_bytes", number(rx.bytes)),
        ("rx_dropped", number(rx.dropped())),
        ("rx_errors", 0),
        ("tx_packets", number(tx.packets)),
        ("tx_bytes", number(tx.bytes)),
        ("tx_dropped", number(tx.dropped())),
        ("tx_errors", 0),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
    let queues = queues(report.driver, &report.stats).into_iter();
    let queues = queues.map(|(name, value)| (name, number(value)));
    ("statistics", pairs.into_iter().chain(queues).collect())
}

/// What each queue has carried, of devices whose queues Open vSwitch counts, by the names that it has for them: up to
/// the last queue that carried something.
fn queues(driver: &str, stats: &PortStats) -> Vec<(String, u64)> {
    let (good, has_bytes) = match driver {
        "vhost-user" => ("good_", true),
        "igb" | "virtio-pci" => ("", true),
        "dummy" => ("", false),
        _ => return Vec::new(),
    };
    let mut all = Vec::new();
    for (direction, queues) in [("rx", &stats.rx), ("tx", &stats.tx)] {
        let used = queues.iter().rposition(|queue| queue.packets != 0).map_or(0, |last| last + 1);
        for (at, queue) in queues.iter().enumerate().take(used.max(1)) {
            all.push((format!("{direction}_q{at}_{good}packets"), queue.packets));
            if has_bytes {
                all.push((format!("{direction}_q{at}_{good}bytes"), queue.bytes));
            }
        }
    }
    all
}

/// Adds to `transaction` those of `columns` whose value in the database is another one.
pub fn write(
    transaction: &mut Transaction,
    cache: &Cache,
    table: &str,
    row: Uuid,
    columns: Vec<Column>,
) {
    let Some(current) = cache.row(table, row) else { return };
    let is_news =
        |(column, value): &Column| cache.has(table, column) && !is_same(current, column, value);
    // Nothing is written as the column's type has it: an empty map is no empty set to the database.
    let typed = |(column, value): Column| match current.get(column) {
        Datum::Map(_) if value.is_empty() => (column, Datum::Map(BTreeMap::new())),
        _ => (column, value),
    };
    let columns: Vec<Column> = columns.into_iter().filter(is_news).map(typed).collect();
    if !columns.is_empty() {
        transaction.update(table, row, columns);
    }
}

/// Whether a column has this value. An empty map and an empty set are written alike.
fn is_same(row: &Row, column: &str, value: &Datum) -> bool {
    let current = row.get(column);
    current == value || (current.is_empty() && value.is_empty())
}

/// The number of an interface, as it is in the database.
#[must_use]
pub fn number_before(interface: &Interface) -> Option<i64> {
    interface.ofport.filter(|number| *number > 0)
}

/// `cur_cfg`, which tells clients that their change was taken.
#[must_use]
pub fn taken(next_cfg: i64) -> Column {
    ("cur_cfg", Datum::Set([Atom::Integer(next_cfg)].into()))
}

#[cfg(test)]
mod tests {
    use ethdev::Stats;

    use super::*;
    use crate::content::Texts;

    fn bridge(settings: &[(&str, &str)]) -> Bridge {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Bridge::bare(Uuid(0xabcdef), settings.collect(), Default::default())
    }

    #[test]
    fn a_partner_is_current_until_it_is_given_up() {
        let told = |state| {
            let [_, (name, datum)] =
                host_columns(None, Some(MemberLacp { state, ..MemberLacp::default() }));
            assert_eq!(name, "lacp_current");
            datum
        };
        for (state, is_current) in
            [("current", true), ("expired", true), ("defaulted", false), ("disabled", false)]
        {
            assert_eq!(told(state), Datum::from(is_current), "{state}");
        }
        assert_eq!(host_columns(None, None)[1].1, Datum::default());
    }

    #[test]
    fn queues_are_counted_up_to_the_last_one_in_use() {
        let queue = |packets| Stats { packets, bytes: packets * 60, ..Stats::default() };
        let stats = PortStats { rx: [0, 2, 0].map(queue).to_vec(), tx: [0, 0].map(queue).to_vec() };
        let told = |driver| -> Vec<String> {
            let all = queues(driver, &stats).into_iter();
            all.map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(told("dummy"), ["rx_q0_packets=0", "rx_q1_packets=2", "tx_q0_packets=0"]);
        assert_eq!(told("igb").len(), 6);
        assert_eq!(told("vhost-user")[2..4], ["rx_q1_good_packets=2", "rx_q1_good_bytes=120"]);
        assert!(told("tap").is_empty());
    }

    #[test]
    fn a_bridge_has_an_identifier_of_16_digits() {
        let id = |settings: &[(&str, &str)]| datapath_id(&bridge(settings));
        assert_eq!(id(&[]), "0000fe0000abcdef");
        assert_eq!(id(&[("hwaddr", "02:00:00:00:00:07")]), "0000020000000007");
        assert_eq!(id(&[("datapath-id", "0xABC")]), "0000000000000abc");
        for nonsense in ["", "0", "x", "12345678901234567"] {
            assert_eq!(id(&[("datapath-id", nonsense)]), id(&[]), "{nonsense}");
        }
    }

    #[test]
    fn a_port_that_is_not_there_has_an_error_and_no_number() {
        let columns: Texts = interface_columns("p1", Some(3), None, Some("No such device"))
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_json().to_string()))
            .collect();
        let error = r#""could not open network device p1 (No such device)""#;
        assert_eq!(
            (columns[&"error".to_owned()].as_str(), columns[&"ofport".to_owned()].as_str()),
            (error, "-1")
        );
        assert_eq!(columns[&"mtu".to_owned()], r#"["set",[]]"#);
    }
}
