//! Bonds: ports of a bridge that are made of several others, their *members*, as uplinks that stand
//! in for each other.
//!
//! The settings are those of Open vSwitch's table `Port`, by the same names.
//!
//! - `group`: which members of a bond are in use, and since when
//! - `monitor`: which members lead somewhere, by asking stations behind them
//! - `probe`: what these are asked, and answer
//! - `shares`: which member has which part of the traffic

pub(crate) mod group;
pub(crate) mod monitor;
pub(crate) mod probe;
pub(crate) mod shares;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use datapath::vlan::{MAX_VLAN, formats, named};
use packet::MacAddr;
use serde::{Deserialize, Serialize};

pub use self::group::order::{BondOrder, BondRefusal};
use self::monitor::Asking;
pub use datapath::bond::way::{flow_part, source_part};

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

/// The most stations that are asked whether a member leads to them.
pub const MAX_ARP_TARGETS: usize = 16;

/// What `arp-interval` can be, in milliseconds, and what it is when it is not given.
const ARP_INTERVALS: std::ops::RangeInclusive<u32> = 100..=600_000;
const DEFAULT_ARP_INTERVAL: u32 = 1_000;

/// What `arp-missed-max` is when it is not given.
const DEFAULT_ARP_MISSED: u8 = 3;

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

/// Whose state machines a bond follows that speaks LACP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LacpManner {
    /// Those of IEEE 802.1AX.
    #[default]
    Standard,
    /// Open vSwitch's: members count as chosen while their partner is still asked for, all have the
    /// key of the first one, and the fallback is for each member by itself.
    OpenVswitch,
}

impl LacpManner {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Standard, Self::OpenVswitch];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::OpenVswitch => "open-vswitch",
        }
    }
}

named!(BondMode, Lacp, LacpManner, LacpTime);

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
    /// With `balance-slb`, whether members take what goes to a group that are not the active one.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub all_members_active: bool,
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
    /// Whose state machines it follows.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub lacp_manner: LacpManner,
    /// Whether members are used as by `active-backup` as long as nobody at the other end speaks LACP.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub lacp_fallback_ab: bool,
    /// The address by which it is known; `None`: that of a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_system_id: Option<String>,
    /// Who decides where two systems want different things: the one with the lower number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_system_priority: Option<u16>,
    /// Stations that each member asks for, by ARP or neighbour solicitation, to be used as long as they
    /// answer; empty: links are believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arp_ip_targets: Vec<IpAddr>,
    /// How often, in milliseconds; `None`: every second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_interval: Option<u32>,
    /// How many questions in turn may be without an answer before a member is given up, less one;
    /// `None`: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_missed_max: Option<u8>,
    /// Whether all of them have to answer; otherwise any of them is enough.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub arp_all_targets: bool,
    /// The address that asks by ARP; `None`: none, as a station that has none yet does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_source: Option<Ipv4Addr>,
    /// The VLAN where they are, by its tag; `None`: frames without one.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "formats::vlan")]
    pub arp_vlan: Option<u16>,
}

impl Bonding {
    /// Whether all settings are as by default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing is set but what a port by itself can have, too: how it speaks LACP.
    #[must_use]
    pub fn is_of_link(&self) -> bool {
        let Self {
            lacp,
            lacp_time,
            lacp_manner,
            lacp_fallback_ab,
            lacp_system_priority,
            ref lacp_system_id,
            ..
        } = *self;
        let lacp_system_id = lacp_system_id.clone();
        let spoken = Self {
            lacp,
            lacp_time,
            lacp_manner,
            lacp_fallback_ab,
            lacp_system_priority,
            lacp_system_id,
            ..Self::default()
        };
        *self == spoken
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
        self.check_lacp()?;
        self.check_arp()
    }

    fn check_arp(&self) -> Result<(), (&'static str, String)> {
        let key = "arp-ip-targets";
        let targets = &self.arp_ip_targets;
        if targets.len() > MAX_ARP_TARGETS {
            let count = targets.len();
            return Err((key, format!("{key}: {count}: expected {MAX_ARP_TARGETS} at most")));
        }
        let mut seen = BTreeSet::new();
        for target in targets {
            if !is_station(*target) {
                return Err((key, format!("{key}: {target}: expected the address of one station")));
            }
            if !seen.insert(target) {
                return Err((key, format!("{key}: {target} is there twice")));
            }
        }
        if !targets.is_empty() && self.lacp != Lacp::Off {
            let reason = "arp-ip-targets do not go with lacp: the other end takes the links for one, and \
                          sends answers by any of them (LACP tells by itself whether a link works)";
            return Err((key, reason.to_owned()));
        }
        if let Some(interval) = self.arp_interval.filter(|one| !ARP_INTERVALS.contains(one)) {
            let (from, to) = (ARP_INTERVALS.start(), ARP_INTERVALS.end());
            let expected = format!("expected {from} to {to} milliseconds");
            return Err(("arp-interval", format!("arp-interval {interval}: {expected}")));
        }
        if self.arp_missed_max == Some(0) {
            return Err(("arp-missed-max", "arp-missed-max 0: expected 1 to 255".to_owned()));
        }
        if let Some(source) = self.arp_source.filter(|source| !is_station((*source).into())) {
            let reason = format!("arp-source {source}: expected the address of one station");
            return Err(("arp-source", reason));
        }
        if let Some(vlan) = self.arp_vlan.filter(|vlan| !(1..=MAX_VLAN).contains(vlan)) {
            return Err(("arp-vlan", format!("arp-vlan {vlan}: expected 1 to {MAX_VLAN}")));
        }
        Ok(())
    }

    /// What members ask for, if they do.
    pub(crate) fn asking(&self) -> Option<Asking> {
        let interval = self.arp_interval.unwrap_or(DEFAULT_ARP_INTERVAL);
        (!self.arp_ip_targets.is_empty()).then(|| Asking {
            targets: self.arp_ip_targets.clone(),
            interval: Duration::from_millis(interval.into()),
            missed: self.arp_missed_max.unwrap_or(DEFAULT_ARP_MISSED).into(),
            all: self.arp_all_targets,
            source: self.arp_source.unwrap_or(Ipv4Addr::UNSPECIFIED),
            vlan: self.arp_vlan.unwrap_or_default(),
        })
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
            // For Open vSwitch it is a name, whoever could have such an address.
            let is_loose = self.lacp_manner == LacpManner::OpenVswitch && mac != MacAddr::default();
            if !mac.is_station() && !is_loose {
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

/// Whether a station can have this address.
fn is_station(address: IpAddr) -> bool {
    let is_other = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    !is_other && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads settings and writes them again.
    fn check_round(text: &str) -> Bonding {
        let bonding: Bonding = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&bonding).unwrap(), text);
        assert_eq!(bonding.check(), Ok(()));
        bonding
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        assert_eq!(serde_json::to_string(&Bonding::default()).unwrap(), "{}");
        let text = r#"{"mode":"balance-tcp","primary":"a","all-members-active":true,"updelay":200,"downdelay":100,"rebalance-interval":0,"lacp":"passive","lacp-time":"fast","lacp-manner":"open-vswitch","lacp-fallback-ab":true,"lacp-system-id":"02:00:00:00:00:01","lacp-system-priority":7}"#;
        let bonding = check_round(text);
        assert_eq!((bonding.rebalance(), bonding.system_priority()), (None, 7));
        let text = r#"{"arp-ip-targets":["10.1.0.2","fd00::2"],"arp-interval":500,"arp-missed-max":2,"arp-all-targets":true,"arp-source":"10.1.0.1","arp-vlan":7}"#;
        let asking = check_round(text).asking().unwrap();
        assert_eq!((asking.interval, asking.missed), (Duration::from_millis(500), 2));
        assert_eq!((asking.vlan, asking.source.octets()), (7, [10, 1, 0, 1]));
        let error = serde_json::from_str::<Bonding>(r#"{"mode":"active-backpu"}"#).unwrap_err();
        assert!(error.to_string().contains("did you mean 'active-backup'?"), "{error}");
    }

    #[test]
    fn open_vswitch_takes_any_address_for_a_system_but_none() {
        check_round(r#"{"lacp-manner":"open-vswitch","lacp-system-id":"11:22:33:44:55:66"}"#);
    }

    #[test]
    fn a_port_by_itself_has_lacp_and_nothing_else_of_a_bond() {
        let is_of_link = |text: &str| serde_json::from_str::<Bonding>(text).unwrap().is_of_link();
        assert!(is_of_link(r#"{"lacp":"active","lacp-time":"fast","lacp-system-priority":7}"#));
        assert!(!is_of_link(r#"{"lacp":"active","updelay":7}"#));
        assert!(is_of_link("{}"));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, key, expected) in [
            (r#"{"downdelay":600001}"#, "downdelay", "0 to 600000"),
            (r#"{"rebalance-interval":999}"#, "rebalance-interval", "1000 to 3600000"),
            (r#"{"mode":"balance-tcp"}"#, "mode", "needs lacp"),
            (r#"{"lacp-system-priority":0}"#, "lacp-system-priority", "1 to 65535"),
            (r#"{"arp-ip-targets":["0.0.0.0"]}"#, "arp-ip-targets", "one station"),
            (r#"{"arp-ip-targets":["ff02::1"]}"#, "arp-ip-targets", "one station"),
            (r#"{"arp-ip-targets":["10.0.0.1","10.0.0.1"]}"#, "arp-ip-targets", "twice"),
            (r#"{"arp-ip-targets":["10.0.0.1"],"lacp":"active"}"#, "arp-ip-targets", "lacp"),
            (r#"{"arp-interval":99}"#, "arp-interval", "100 to 600000"),
            (r#"{"arp-missed-max":0}"#, "arp-missed-max", "1 to 255"),
            (r#"{"arp-source":"224.0.0.1"}"#, "arp-source", "one station"),
            (r#"{"arp-vlan":0}"#, "arp-vlan", "1 to 4094"),
            (r#"{"lacp-system-id":"x"}"#, "lacp-system-id", "x"),
            (r#"{"lacp-system-id":"01:00:00:00:00:00"}"#, "lacp-system-id", "one station"),
            (
                r#"{"lacp-manner":"open-vswitch","lacp-system-id":"00:00:00:00:00:00"}"#,
                "lacp-system-id",
                "one station",
            ),
        ] {
            let bonding: Bonding = serde_json::from_str(text).unwrap();
            let (found, reason) = bonding.check().unwrap_err();
            assert!(found == key && reason.contains(expected), "{text}: {reason}");
        }
    }
}
