//! Bonds: ports of a bridge that are made of several others, their *members*, as uplinks that stand
//! in for each other.
//!
//! The settings are those of Open vSwitch's table `Port`, by the same names.
//!
//! - `group`: which members of a bond are in use, and since when
//! - `load`: how much each part of the traffic is
//! - `shares`: which member has which part of the traffic
//! - `way`: what the data path makes of a bond

pub(crate) mod group;
pub(crate) mod load;
pub(crate) mod shares;
pub(crate) mod way;

use std::time::Duration;

use packet::MacAddr;
use serde::{Deserialize, Serialize};

use crate::vlan::{formats, named};

/// The device string of a bond.
pub const BOND_DEVICE: &str = "bond:";

/// The most members that a bond can have.
pub const MAX_MEMBERS: usize = 32;

/// The longest delay of a link, in milliseconds: ten minutes.
const MAX_DELAY: u32 = 600_000;

/// What `rebalance-interval` can be beside 0, in milliseconds.
const INTERVALS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;

/// What it is when it is not given.
const DEFAULT_INTERVAL: u32 = 10_000;

/// What `lacp-system-priority` is when it is not given.
const DEFAULT_PRIORITY: u16 = 65_534;

/// How a bond divides traffic among its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BondMode {
    /// One member has all of it; when its link fails, another one.
    #[default]
    ActiveBackup,
    /// By source address and VLAN, which needs nothing of the switches at the other end.
    BalanceSlb,
    /// By addresses and ports of the flow, between systems that have agreed on it by LACP.
    BalanceTcp,
}

impl BondMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::ActiveBackup, Self::BalanceSlb, Self::BalanceTcp];

    /// The mode's name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
            Self::BalanceSlb => "balance-slb",
            Self::BalanceTcp => "balance-tcp",
        }
    }
}

/// Whether a bond speaks LACP (IEEE 802.1AX) with the system at the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lacp {
    /// It does not.
    #[default]
    Off,
    /// It speaks unasked.
    Active,
    /// It answers.
    Passive,
}

impl Lacp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Active, Self::Passive];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// How often the other end is to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LacpTime {
    /// Every 30 seconds; it is given up after 90.
    #[default]
    Slow,
    /// Once a second; it is given up after 3.
    Fast,
}

impl LacpTime {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Slow, Self::Fast];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Fast => "fast",
        }
    }
}

named!(BondMode, Lacp, LacpTime);

/// Settings of a bond. Which ports are its members, these say themselves
/// ([`PortOptions::bond`](crate::PortOptions)).
///
/// ```
/// use switch::{BondMode, Bonding};
///
/// let bonding = Bonding { primary: Some("eth0".to_owned()), updelay: 200, ..Bonding::default() };
/// assert_eq!(bonding.mode, BondMode::ActiveBackup);
/// assert!(bonding.check().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "settings of a bond, as in { mode = \"active-backup\" }"
)]
pub struct Bonding {
    /// How traffic is divided among the members.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub mode: BondMode,
    /// The member that is the active one whenever its link is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// How long a link has to be up before its member is used, in milliseconds. Where no other
    /// member is in use, it is used at once; so it is where LACP has agreed on it.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub updelay: u32,
    /// How long a link has to be down before its member is given up, in milliseconds; not where LACP
    /// has agreed on it.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub downdelay: u32,
    /// How often load is moved from one member to another, in milliseconds; 0: never; `None`: every
    /// ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalance_interval: Option<u32>,
    /// Whether it speaks LACP.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub lacp: Lacp,
    /// How often the other end is to speak.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub lacp_time: LacpTime,
    /// Whether members are used as by `active-backup` as long as nobody at the other end speaks LACP.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub lacp_fallback_ab: bool,
    /// The address by which it is known; `None`: that of a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_system_id: Option<String>,
    /// Who decides where two systems want different things: the one with the lower number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_system_priority: Option<u16>,
}

impl Bonding {
    /// Whether all settings are as by default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The key of the one that does not, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, delay) in [("updelay", self.updelay), ("downdelay", self.downdelay)] {
            if delay > MAX_DELAY {
                let reason = format!("{key} {delay}: expected 0 to {MAX_DELAY} milliseconds");
                return Err((key, reason));
            }
        }
        if let Some(interval) = self.rebalance_interval
            && interval != 0
            && !INTERVALS.contains(&interval)
        {
            let key = "rebalance-interval";
            let (from, to) = (INTERVALS.start(), INTERVALS.end());
            let expected = format!("expected {from} to {to} milliseconds, or 0 for never");
            return Err((key, format!("{key} {interval}: {expected}")));
        }
        if self.mode == BondMode::BalanceTcp && self.lacp == Lacp::Off {
            let reason = "mode balance-tcp needs lacp = \"active\" or \"passive\": without it, the \
                          other end does not take the links for one (balance-slb is for that)";
            return Err(("mode", reason.to_owned()));
        }
        self.check_lacp()
    }

    fn check_lacp(&self) -> Result<(), (&'static str, String)> {
        if self.lacp_system_priority == Some(0) {
            let key = "lacp-system-priority";
            return Err((key, format!("{key} 0: expected 1 to 65535")));
        }
        if let Some(id) = &self.lacp_system_id {
            let key = "lacp-system-id";
            let mac =
                id.parse::<MacAddr>().map_err(|error| (key, format!("{key} {id}: {error}")))?;
            if !mac.is_station() {
                return Err((key, format!("{key} {id}: expected the address of one station")));
            }
        }
        Ok(())
    }

    /// How often load is moved; `None`: never.
    pub(crate) fn rebalance(&self) -> Option<Duration> {
        let interval = self.rebalance_interval.unwrap_or(DEFAULT_INTERVAL);
        let is_wanted = self.mode != BondMode::ActiveBackup && interval != 0;
        is_wanted.then(|| Duration::from_millis(u64::from(interval)))
    }

    /// The priority by which it is known.
    pub(crate) fn system_priority(&self) -> u16 {
        self.lacp_system_priority.unwrap_or(DEFAULT_PRIORITY)
    }

    /// The address by which it is to be known, if that is given.
    pub(crate) fn system_id(&self) -> Option<MacAddr> {
        self.lacp_system_id.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        assert_eq!(serde_json::to_string(&Bonding::default()).unwrap(), "{}");
        let text = r#"{"mode":"balance-tcp","primary":"a","updelay":200,"downdelay":100,"rebalance-interval":0,"lacp":"passive","lacp-time":"fast","lacp-fallback-ab":true,"lacp-system-id":"02:00:00:00:00:01","lacp-system-priority":7}"#;
        let bonding: Bonding = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&bonding).unwrap(), text);
        assert_eq!(bonding.check(), Ok(()));
        assert_eq!((bonding.rebalance(), bonding.system_priority()), (None, 7));
        let error = serde_json::from_str::<Bonding>(r#"{"mode":"active-backpu"}"#).unwrap_err();
        assert!(error.to_string().contains("did you mean 'active-backup'?"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, key, expected) in [
            (r#"{"downdelay":600001}"#, "downdelay", "0 to 600000"),
            (r#"{"rebalance-interval":999}"#, "rebalance-interval", "1000 to 3600000"),
            (r#"{"mode":"balance-tcp"}"#, "mode", "needs lacp"),
            (r#"{"lacp-system-priority":0}"#, "lacp-system-priority", "1 to 65535"),
            (r#"{"lacp-system-id":"x"}"#, "lacp-system-id", "x"),
            (r#"{"lacp-system-id":"01:00:00:00:00:00"}"#, "lacp-system-id", "one station"),
        ] {
            let bonding: Bonding = serde_json::from_str(text).unwrap();
            let (found, reason) = bonding.check().unwrap_err();
            assert!(found == key && reason.contains(expected), "{text}: {reason}");
        }
    }
}
