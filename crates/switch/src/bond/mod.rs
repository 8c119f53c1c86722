//! Bonds: ports of a bridge that are made of several others, their *members*, as uplinks that stand
//! in for each other.
//!
//! The settings are those of Open vSwitch's table `Port`, by the same names.
//!
//! - `group`: which members of a bond are in use, and since when
//! - `way`: what the data path makes of a bond

pub(crate) mod group;
pub(crate) mod way;

use serde::{Deserialize, Serialize};

use crate::vlan::{formats, named};

/// The device string of a bond.
pub const BOND_DEVICE: &str = "bond:";

/// The most members that a bond can have.
pub const MAX_MEMBERS: usize = 32;

/// The longest delay of a link, in milliseconds: ten minutes.
const MAX_DELAY: u32 = 600_000;

/// How a bond divides traffic among its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BondMode {
    /// One member has all of it; when its link fails, another one.
    #[default]
    ActiveBackup,
}

impl BondMode {
    /// All modes.
    pub const ALL: [Self; 1] = [Self::ActiveBackup];

    /// The mode's name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
        }
    }
}

named!(BondMode);

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
    /// member is in use, it is used at once.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub updelay: u32,
    /// How long a link has to be down before its member is given up, in milliseconds.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub downdelay: u32,
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        assert_eq!(serde_json::to_string(&Bonding::default()).unwrap(), "{}");
        let text = r#"{"primary":"a","updelay":200,"downdelay":100}"#;
        let bonding: Bonding = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&bonding).unwrap(), text);
        assert_eq!(bonding.check(), Ok(()));
        let error = serde_json::from_str::<Bonding>(r#"{"mode":"active-backpu"}"#).unwrap_err();
        assert!(error.to_string().contains("did you mean 'active-backup'?"), "{error}");
    }

    #[test]
    fn delays_that_make_no_sense_are_named() {
        let bonding = Bonding { downdelay: 600_001, ..Bonding::default() };
        let (key, reason) = bonding.check().unwrap_err();
        assert_eq!(key, "downdelay");
        assert!(reason.contains("0 to 600000"), "{reason}");
    }
}
