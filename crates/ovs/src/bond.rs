//! Settings of bonds in Open vSwitch's table `Port`.

use std::str::FromStr;

use packet::MacAddr;
use switch::{Bonding, Lacp, LacpManner, PortLacp};

use crate::content::{Interface, Port};

/// The shortest time between two moves of load that Open vSwitch has, in milliseconds.
const SHORTEST: u32 = 1_000;

/// The priority as a system of a port with one interface, where none is given.
const ALONE_PRIORITY: u16 = 65_535;

/// What a port with several interfaces does as a bond; `bridge` is the address of its bridge. Whether its
/// primary interface is there, nobody has looked yet.
///
/// # Errors
/// A value that is not known, or what bonds cannot be, in words for `Interface.error`.
pub fn settings(port: &Port, bridge: MacAddr) -> Result<Bonding, String> {
    let other = |key: &str| port.other_config.get(key).map(String::as_str);
    let bonding = Bonding {
        mode: parsed("bond_mode", port.bond_mode.as_deref())?.unwrap_or_default(),
        primary: other("bond-primary").map(str::to_owned),
        all_members_active: is_true(other("all-members-active").or(other("all_slaves_active"))),
        updelay: delay("bond_updelay", port.bond_updelay)?,
        downdelay: delay("bond_downdelay", port.bond_downdelay)?,
        rebalance_interval: interval(other("bond-rebalance-interval"))?,
        ..link(port, bridge)?
    };
    bonding.check().map_err(|(_, reason)| reason)?;
    Ok(bonding)
}

/// How a port speaks LACP, with one interface or several.
///
/// # Errors
/// A value that makes no sense, in words for `Interface.error`.
pub fn link(port: &Port, bridge: MacAddr) -> Result<Bonding, String> {
    let other = |key: &str| port.other_config.get(key).map(String::as_str);
    let lacp = parsed::<Lacp>("lacp", port.lacp.as_deref())?.unwrap_or_default();
    let priority = number("lacp-system-priority", other("lacp-system-priority"))?;
    let alone = (port.interfaces.len() < 2).then_some(ALONE_PRIORITY);
    let bonding = match lacp {
        Lacp::Off => Bonding::default(),
        lacp => Bonding {
            lacp,
            lacp_time: parsed("other_config:lacp-time", other("lacp-time"))?.unwrap_or_default(),
            lacp_manner: LacpManner::OpenVswitch,
            lacp_fallback_ab: is_true(other("lacp-fallback-ab")),
            lacp_system_id: Some(
                other("lacp-system-id").map_or_else(|| bridge.to_string(), str::to_owned),
            ),
            lacp_system_priority: priority.or(alone),
            ..Bonding::default()
        },
    };
    bonding.check().map_err(|(_, reason)| reason)?;
    Ok(bonding)
}

fn is_true(text: Option<&str>) -> bool {
    text == Some("true")
}

/// What an interface says by LACP, as one of several of a port.
///
/// # Errors
/// A value that makes no sense, in words for `Interface.error`.
pub fn member(interface: &Interface) -> Result<PortLacp, String> {
    let other = |key| number(key, interface.other_config.get(key).map(String::as_str));
    let lacp = PortLacp {
        port_id: other("lacp-port-id")?,
        port_priority: other("lacp-port-priority")?,
        aggregation_key: other("lacp-aggregation-key")?,
    };
    lacp.check().map_err(|reason| format!("other_config:lacp-{reason}"))?;
    Ok(lacp)
}

fn parsed<T: FromStr<Err = String>>(key: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(str::parse).transpose().map_err(|error| format!("{key}: {error}"))
}

fn number<T: FromStr>(key: &str, text: Option<&str>) -> Result<Option<T>, String> {
    let failed = |text| format!("other_config:{key}: '{text}': expected a number");
    text.map(|text| text.parse().map_err(|_| failed(text))).transpose()
}

fn delay(key: &str, delay: i64) -> Result<u32, String> {
    u32::try_from(delay).map_err(|_| format!("{key}={delay}: expected 0 to 600000"))
}

fn interval(text: Option<&str>) -> Result<Option<u32>, String> {
    let interval: Option<u32> = number("bond-rebalance-interval", text)?;
    Ok(interval.map(|interval| if interval == 0 { 0 } else { interval.max(SHORTEST) }))
}

#[cfg(test)]
mod tests {
    use ovsdb::Uuid;
    use switch::{BondMode, LacpTime};

    use super::*;

    fn port(other: &[(&str, &str)]) -> Port {
        let other = other.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Port { other_config: other.collect(), ..Port::bare(Uuid(1)) }
    }

    const BRIDGE: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn settings(port: &Port) -> Result<Bonding, String> {
        super::settings(port, BRIDGE)
    }

    #[test]
    fn a_port_with_one_interface_speaks_lacp_by_itself() {
        let spoken = |lacp: &str, other: &[(&str, &str)]| {
            link(&Port { lacp: Some(lacp.into()), ..port(other) }, BRIDGE)
        };
        assert_eq!(link(&port(&[("lacp-time", "fast")]), BRIDGE), Ok(Bonding::default()));
        assert_eq!(spoken("off", &[("lacp-system-id", "x")]), Ok(Bonding::default()));
        let bonding = spoken("active", &[]).unwrap();
        assert_eq!(bonding.lacp_system_id.as_deref(), Some("02:00:00:00:00:09"));
        assert_eq!((bonding.lacp, bonding.lacp_system_priority), (Lacp::Active, Some(65_535)));
        assert_eq!(bonding.lacp_manner, LacpManner::OpenVswitch);
        let other = [("lacp-system-id", "11:22:33:44:55:66"), ("lacp-system-priority", "7")];
        let bonding = spoken("passive", &other).unwrap();
        assert_eq!(bonding.lacp_system_id.as_deref(), Some("11:22:33:44:55:66"));
        assert_eq!(bonding.lacp_system_priority, Some(7));
        assert!(spoken("on", &[]).unwrap_err().contains("lacp: 'on'"));
    }

    #[test]
    fn columns_are_the_settings_of_bonds() {
        assert_eq!(settings(&port(&[])), Ok(Bonding::default()));
        for key in ["all-members-active", "all_slaves_active"] {
            let all = settings(&port(&[(key, "true")])).unwrap();
            assert!(all.all_members_active && !all.lacp_fallback_ab);
        }
        let other = [
            ("bond-primary", "eth0"),
            ("bond-rebalance-interval", "500"),
            ("lacp-time", "fast"),
            ("lacp-fallback-ab", "true"),
            ("lacp-system-id", "02:00:00:00:00:01"),
            ("lacp-system-priority", "7"),
        ];
        let columns = Port {
            bond_mode: Some("balance-tcp".into()),
            lacp: Some("passive".into()),
            bond_updelay: 200,
            bond_downdelay: 100,
            ..port(&other)
        };
        let bonding = settings(&columns).unwrap();
        assert_eq!((bonding.mode, bonding.lacp), (BondMode::BalanceTcp, Lacp::Passive));
        assert_eq!((bonding.updelay, bonding.downdelay), (200, 100));
        assert_eq!((bonding.rebalance_interval, bonding.lacp_time), (Some(1_000), LacpTime::Fast));
        assert_eq!((bonding.lacp_system_priority, bonding.lacp_fallback_ab), (Some(7), true));
        assert_eq!(bonding.primary.as_deref(), Some("eth0"));
    }

    #[test]
    fn members_have_settings_of_their_own() {
        let of = |key: &str, value: &str| {
            let mut row = Interface::bare(Uuid(1), "");
            row.other_config.insert(key.into(), value.into());
            member(&row)
        };
        let expected = PortLacp { port_priority: Some(3), ..PortLacp::default() };
        assert_eq!(of("lacp-port-priority", "3"), Ok(expected));
        let expected = PortLacp { aggregation_key: Some(3), ..PortLacp::default() };
        assert_eq!(of("lacp-aggregation-key", "3"), Ok(expected));
        assert!(of("lacp-port-id", "65536").unwrap_err().contains("lacp-port-id: '65536'"));
        assert!(of("lacp-port-id", "0").unwrap_err().contains("lacp-port-id 0: expected 1"));
    }

    #[test]
    fn what_is_not_known_is_named() {
        let of = |change: &dyn Fn(&mut Port)| {
            let mut port = port(&[]);
            change(&mut port);
            settings(&port).unwrap_err()
        };
        assert!(
            of(&|port| port.bond_mode = Some("balance".into())).contains("bond_mode: 'balance'")
        );
        assert!(of(&|port| port.lacp = Some("on".into())).contains("lacp: 'on'"));
        assert!(of(&|port| port.bond_updelay = -1).contains("bond_updelay=-1"));
        assert!(of(&|port| port.bond_mode = Some("balance-tcp".into())).contains("needs lacp"));
        let other = |key: &'static str, value: &'static str| {
            of(&move |port| {
                port.lacp = Some("active".into());
                port.other_config.insert(key.into(), value.into());
            })
        };
        assert!(other("lacp-system-priority", "x").contains("lacp-system-priority: 'x'"));
        assert!(other("lacp-time", "quick").contains("lacp-time: 'quick'"));
    }
}
