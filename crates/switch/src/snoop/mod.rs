//! IGMP and MLD snooping: a bridge that hears which groups the hosts behind its ports belong to,
//! and sends what goes to a group to those alone, and to routers (RFC 4541).
//!
//! The settings are those of Open vSwitch, by the same names where it has them.
//!
//! - `probe`: for the fuzz target
//! - `snooper`: what a bridge hears, and what it says
//! - `table`: which ports have which groups

#[doc(hidden)]
pub mod probe;
pub(crate) mod snooper;
pub(crate) mod table;

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use datapath::vlan::{formats, named};
use serde::{Deserialize, Serialize};

/// How long a member of a group can be remembered without a report, in seconds: the range of Open
/// vSwitch.
const AGEING: RangeInclusive<u32> = 15..=3_600;

/// What it is when it is not given: more than twice the interval in which routers ask (RFC 3376,
/// section 8.2).
const DEFAULT_AGEING: u32 = 300;

/// How many groups there can be.
const SIZES: RangeInclusive<usize> = 1..=MAX_GROUPS;

/// The most groups that a bridge can be set to remember.
pub const MAX_GROUPS: usize = 65_536;

/// How many there are at most when it is not given.
const DEFAULT_SIZE: usize = 2_048;

/// What a bridge does about the groups of IGMP and MLD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McastSnooping {
    /// Whether it looks at them at all; if not, groups go to all ports.
    pub enabled: bool,
    /// After how many seconds without a report a port is taken for no member of a group any more.
    pub aging_time: u32,
    /// The most groups, counted in each VLAN.
    pub table_size: usize,
    /// Whether what goes to a group without members is kept from ports without routers.
    pub disable_flood_unregistered: bool,
    /// Whether the bridge asks for members itself, where no router is heard to do so.
    pub querier: bool,
    /// From which address it asks by IGMP; `None`: from 0.0.0.0, which no other querier gives way
    /// to.
    pub querier_address: Option<Ipv4Addr>,
}

impl Default for McastSnooping {
    fn default() -> Self {
        Self {
            enabled: false,
            aging_time: DEFAULT_AGEING,
            table_size: DEFAULT_SIZE,
            disable_flood_unregistered: false,
            querier: false,
            querier_address: None,
        }
    }
}

impl McastSnooping {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The key of the one that does not, its value, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String, String)> {
        if !AGEING.contains(&self.aging_time) {
            let expected = format!("{} to {} seconds", AGEING.start(), AGEING.end());
            return Err(("mcast-snooping.aging-time", self.aging_time.to_string(), expected));
        }
        if !SIZES.contains(&self.table_size) {
            let expected = format!("{} to {} groups", SIZES.start(), SIZES.end());
            return Err(("mcast-snooping.table-size", self.table_size.to_string(), expected));
        }
        match self.querier_address {
            Some(address) if address.is_multicast() || address.is_broadcast() => {
                let expected = "the address of one host".to_owned();
                Err(("mcast-snooping.querier-address", address.to_string(), expected))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a port has a router that is to hear of all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum McastRouter {
    /// As long as one is heard there.
    #[default]
    Auto,
    /// It has, whether it is heard or not.
    Always,
    /// It has none: what only routers say is dropped there.
    Never,
}

impl McastRouter {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

named!(McastRouter);

/// A port's part in [snooping](McastSnooping).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "what a port does about groups, as in { router = \"never\" }"
)]
pub struct PortSnooping {
    /// Whether it gets what goes to any group.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub flood: bool,
    /// Whether it gets what members report to routers.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub flood_reports: bool,
    /// Whether it has a router.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub router: McastRouter,
    /// The most groups that it may have members of, counted in each VLAN; `None`: as many as there is
    /// room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_groups: Option<u32>,
}

impl PortSnooping {
    /// Whether all settings are as by default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        assert_eq!(serde_json::to_string(&PortSnooping::default()).unwrap(), "{}");
        let text = r#"{"flood":true,"flood-reports":true,"router":"never","max-groups":7}"#;
        let port: PortSnooping = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&port).unwrap(), text);
        let error = serde_json::from_str::<PortSnooping>(r#"{"router":"nevr"}"#).unwrap_err();
        assert!(error.to_string().contains("did you mean 'never'?"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        let check = |change: fn(&mut McastSnooping)| {
            let mut snooping = McastSnooping::default();
            change(&mut snooping);
            snooping.check().unwrap_err()
        };
        assert_eq!(McastSnooping::default().check(), Ok(()));
        let (key, value, expected) = check(|snooping| snooping.aging_time = 14);
        assert_eq!((key, value.as_str()), ("mcast-snooping.aging-time", "14"));
        assert_eq!(expected, "15 to 3600 seconds");
        assert_eq!(check(|snooping| snooping.table_size = 0).0, "mcast-snooping.table-size");
        let (key, ..) = check(|snooping| snooping.querier_address = Some([224, 0, 0, 1].into()));
        assert_eq!(key, "mcast-snooping.querier-address");
    }
}
