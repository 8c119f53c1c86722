//! Settings of bonds in Open vSwitch's table `Port`.

use std::str::FromStr;

use switch::{Bonding, Lacp, PortLacp};

use crate::content::{Interface, Port};

/// The shortest time between two moves of load that Open vSwitch has, in milliseconds.
const SHORTEST: u32 = 1_000;

/// What a port with several interfaces does as a bond. Whether its primary interface is there, nobody
/// has looked yet.
///
/// # Errors
/// A value that is not known, or what bonds cannot be, in words for `Interface.error`.
pub fn settings(port: &Port) -> Result<Bonding, String> {
    let other = |key: &str| port.other_config.get(key).map(String::as_str);
    let bonding = Bonding {
        mode: parsed("bond_mode", port.bond_mode.as_deref())?.unwrap_or_default(),
        primary: other("bond-primary").map(str::to_owned),
        updelay: delay("bond_updelay", port.bond_updelay)?,
        downdelay: delay("bond_downdelay", port.bond_downdelay)?,
        rebalance_interval: interval(other("bond-rebalance-interval"))?,
        lacp: parsed::<Lacp>("lacp", port.lacp.as_deref())?.unwrap_or_default(),
        lacp_time: parsed("other_config:lacp-time", other("lacp-time"))?.unwrap_or_default(),
        lacp_fallback_ab: other("lacp-fallback-ab") == Some("true"),
        lacp_system_id: other("lacp-system-id").map(str::to_owned),
        lacp_system_priority: number("lacp-system-priority", other("lacp-system-priority"))?,
        // Open vSwitch has nothing like the rest.
        ..Bonding::default()
    };
    bonding.check().map_err(|(_, reason)| reason)?;
    Ok(bonding)
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

    #[test]
    fn columns_are_the_settings_of_bonds() {
        assert_eq!(settings(&port(&[])), Ok(Bonding::default()));
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
            of(&move |port| _ = port.other_config.insert(key.into(), value.into()))
        };
        assert!(other("lacp-system-priority", "x").contains("lacp-system-priority: 'x'"));
        assert!(other("lacp-time", "quick").contains("lacp-time: 'quick'"));
    }
}
