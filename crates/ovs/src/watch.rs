//! Maintenance points (CFM) and sessions of BFD of interfaces, in the columns `cfm_mpid`, `bfd` and
//! `other_config`, and what is written back of them.

use std::str::FromStr;

use ovsdb::Datum;
use switch::{Bfd, BfdReport, Cfm, CfmReport, MAX_BFD_INTERVAL};

use crate::content::{Interface, Texts, flag};
use crate::report::Column;

fn number<T: FromStr>(all: &Texts, key: &str) -> Option<T> {
    all.get(key)?.parse().ok()
}

/// The maintenance point of an interface, if it has one that makes sense.
#[must_use]
pub fn cfm(row: &Interface) -> Option<Cfm> {
    let all = &row.other_config;
    let up = all.get("cfm_opstate").is_none_or(|state| state.eq_ignore_ascii_case("up"));
    let settings = Cfm {
        interval: number(all, "cfm_interval").filter(|interval| *interval > 0).unwrap_or(1_000),
        extended: flag(all, "cfm_extended", false),
        demand: flag(all, "cfm_demand", false),
        down: !up,
        vlan: number(all, "cfm_ccm_vlan").filter(|vlan| matches!(vlan, 1..4096)),
        priority: number(all, "cfm_ccm_pcp").filter(|priority| *priority < 8).unwrap_or(0),
        ..Cfm::new(u64::try_from(row.cfm_mpid?).unwrap_or(0))
    };
    match settings.check() {
        Ok(()) => Some(settings),
        Err(error) => {
            tracing::warn!("an interface has no maintenance point: cfm_{error}");
            None
        }
    }
}

/// The session of BFD of an interface, if it has one; what makes no sense is as when it is absent.
#[must_use]
pub fn bfd(row: &Interface) -> Option<Bfd> {
    let all = &row.bfd;
    if !flag(all, "enable", false) {
        return None;
    }
    let plain = Bfd::default();
    let interval = |key, default: u32| {
        number::<i64>(all, key).map_or(default, |value| {
            let value = value.clamp(1, MAX_BFD_INTERVAL.into());
            value.try_into().unwrap_or(default)
        })
    };
    let min_rx = interval("min_rx", plain.min_rx);
    let decay = number(all, "decay_min_rx");
    Some(Bfd {
        min_tx: interval("min_tx", plain.min_tx),
        min_rx,
        mult: number(all, "mult").filter(|mult| *mult > 0).unwrap_or(plain.mult),
        decay_min_rx: decay
            .filter(|decay| (min_rx..=MAX_BFD_INTERVAL).contains(decay))
            .unwrap_or(0),
        forwarding_if_rx: flag(all, "forwarding_if_rx", false),
        cpath_down: flag(all, "cpath_down", false),
        check_tnl_key: flag(all, "check_tnl_key", false),
        local_src_mac: number(all, "bfd_local_src_mac"),
        local_dst_mac: number(all, "bfd_local_dst_mac"),
        remote_dst_mac: number(all, "bfd_remote_dst_mac"),
        src_ip: number(all, "bfd_src_ip").unwrap_or(plain.src_ip),
        dst_ip: number(all, "bfd_dst_ip").unwrap_or(plain.dst_ip),
    })
}

/// What an interface's row says of its maintenance point.
#[must_use]
pub fn cfm_columns(report: Option<&CfmReport>) -> [Column; 6] {
    let integer = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let state = report.filter(|report| report.settings.extended);
    let state = state.map(|report| if report.is_remote_up { "up" } else { "down" });
    let health = report.and_then(|report| report.health).map(i64::from);
    [
        ("cfm_fault", one(report.map(|report| !report.faults.is_empty()))),
        ("cfm_fault_status", report.into_iter().flat_map(|report| report.faults.names()).collect()),
        ("cfm_flap_count", one(report.map(|report| integer(report.flaps)))),
        ("cfm_health", one(health)),
        (
            "cfm_remote_mpids",
            report.into_iter().flat_map(|report| &report.reached).copied().map(integer).collect(),
        ),
        ("cfm_remote_opstate", one(state)),
    ]
}

/// A value, or none.
fn one<T>(value: Option<T>) -> Datum
where
    Datum: From<T>,
{
    value.map_or_else(Datum::default, Datum::from)
}

/// What an interface's row says of its session of BFD.
#[must_use]
pub fn bfd_status(report: Option<&BfdReport>) -> Column {
    let pairs = report.map(|report| {
        let (local, remote) = (&report.local, &report.remote);
        [
            ("diagnostic", local.diag.name().to_owned()),
            ("flap_count", report.flaps.to_string()),
            ("forwarding", report.is_forwarding.to_string()),
            ("remote_diagnostic", remote.diag.name().to_owned()),
            ("remote_state", remote.state.name().to_owned()),
            ("state", local.state.name().to_owned()),
        ]
    });
    ("bfd_status", pairs.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ovsdb::Uuid;
    use packet::MacAddr;

    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn columns_are_the_settings_of_a_maintenance_point() {
        let of = |mpid, pairs: &[(&str, &str)]| {
            let bare = Interface::bare(Uuid(1), "");
            cfm(&Interface { cfm_mpid: mpid, other_config: texts(pairs), ..bare })
        };
        assert_eq!((of(None, &[]), of(Some(0), &[]), of(Some(-1), &[])), (None, None, None));
        assert_eq!(of(Some(7), &[("cfm_interval", "0")]), Some(Cfm::new(7)));
        let all = [
            ("cfm_interval", "300"),
            ("cfm_extended", "true"),
            ("cfm_demand", "true"),
            ("cfm_opstate", "down"),
            ("cfm_ccm_vlan", "5"),
            ("cfm_ccm_pcp", "6"),
        ];
        let made = of(Some(9_000), &all).unwrap();
        assert_eq!((made.interval, made.vlan, made.priority), (300, Some(5), 6));
        assert!(made.extended && made.demand && made.down);
        assert_eq!(of(Some(9_000), &[]), None, "without the extension it is too large");
    }

    #[test]
    fn the_column_is_the_settings_of_a_session() {
        let of = |pairs: &[(&str, &str)]| {
            bfd(&Interface { bfd: texts(pairs), ..Interface::bare(Uuid(1), "") })
        };
        assert_eq!((of(&[]), of(&[("enable", "true")])), (None, Some(Bfd::default())));
        let made = of(&[
            ("enable", "true"),
            ("min_tx", "-5"),
            ("min_rx", "300"),
            ("decay_min_rx", "200"),
            ("mult", "256"),
            ("cpath_down", "true"),
            ("check_tnl_key", "true"),
            ("bfd_remote_dst_mac", "02:00:00:00:00:01"),
            ("bfd_src_ip", "10.0.0.1"),
            ("bfd_dst_ip", "nowhere"),
        ]);
        let made = made.unwrap();
        assert_eq!((made.min_tx, made.min_rx, made.decay_min_rx, made.mult), (1, 300, 0, 3));
        assert_eq!(made.remote_dst_mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!((made.src_ip, made.dst_ip), (Ipv4Addr::new(10, 0, 0, 1), Bfd::default().dst_ip));
        assert!(made.cpath_down && made.check_tnl_key && made.check().is_ok());
    }

    #[test]
    fn without_either_nothing_is_said() {
        assert!(cfm_columns(None).iter().all(|(_, value)| value.is_empty()));
        assert!(bfd_status(None).1.is_empty());
    }
}
