//! What a port may send: a tenant's guard.
//!
//! Frames from a port with a guard are checked before the bridge sees them, so that nobody learns
//! from what is refused. What was checked is what is sent: a guest may change its memory at any
//! time, so whatever a check looks at is in the frame's private head, and where a check has to
//! look further than that, more of the frame is copied there first.
//!
//! - `formats`: lists of addresses in configuration files and messages
//! - `guards`: one worker's part in the guards of all ports
//! - `storm`: limits of frames that go to many
//! - [`prefix`]: IP addresses and prefixes
//! - `rules`: what is made of the settings, and of a frame's link layer
//! - `ip`: what is checked of IPv4, IPv6 and ARP
//! - `set`: sets of numbers that are looked up for each frame

mod formats;
mod guards;
mod ip;
pub mod prefix;
mod rules;
mod set;
mod storm;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use packet::MacAddr;
use serde::{Deserialize, Serialize};

pub(crate) use self::guards::{Guard, Guards};
pub use self::prefix::Prefix;
pub use self::rules::probe;

/// The most addresses in one of the lists of a guard.
pub const MAX_ADDRESSES: usize = 1024;

/// What a port may send. By default everything.
///
/// ```
/// use switch::PortGuard;
///
/// let guard = PortGuard {
///     allowed_macs: ["52:54:00:00:00:01".parse()?].into(),
///     allowed_ips: ["192.0.2.7".parse()?, "2001:db8::/64".parse()?].into(),
///     ..PortGuard::default()
/// };
/// assert!(guard.check().is_ok() && guard.guards_dhcp());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a guard, as in { allowed-ips = [\"192.0.2.7\"] }"
)]
pub struct PortGuard {
    /// MAC addresses that it may send from, and name as its own in ARP, neighbour discovery and
    /// DHCP; empty: any.
    #[serde(with = "formats", skip_serializing_if = "BTreeSet::is_empty")]
    pub allowed_macs: BTreeSet<MacAddr>,
    /// IP addresses and prefixes that it may send from, and name as its own; empty: any, and other
    /// protocols, too.
    #[serde(with = "formats", skip_serializing_if = "BTreeSet::is_empty")]
    pub allowed_ips: BTreeSet<Prefix>,
    /// Whether what DHCP servers send is dropped; `None`: where there are
    /// [`allowed_ips`](Self::allowed_ips).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp_guard: Option<bool>,
    /// Whether what IPv6 routers send in neighbour discovery is dropped; `None`: where there are
    /// [`allowed_ips`](Self::allowed_ips).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ra_guard: Option<bool>,
    /// Whether it reaches only ports that are not isolated, as among ports of a private VLAN.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
}

impl PortGuard {
    /// Whether there is none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether what DHCP servers send is dropped.
    #[must_use]
    pub fn guards_dhcp(&self) -> bool {
        self.dhcp_guard.unwrap_or(!self.allowed_ips.is_empty())
    }

    /// Whether what IPv6 routers send in neighbour discovery is dropped.
    #[must_use]
    pub fn guards_ra(&self) -> bool {
        self.ra_guard.unwrap_or(!self.allowed_ips.is_empty())
    }

    /// Checks it.
    ///
    /// # Errors
    /// What makes no sense, by its key in a configuration file.
    pub fn check(&self) -> Result<(), String> {
        let counts =
            [("allowed-macs", self.allowed_macs.len()), ("allowed-ips", self.allowed_ips.len())];
        if let Some((key, count)) = counts.into_iter().find(|(_, count)| *count > MAX_ADDRESSES) {
            return Err(format!("{key}: {count} addresses: expected {MAX_ADDRESSES} at most"));
        }
        if let Some(mac) = self.allowed_macs.iter().find(|mac| !mac.is_station()) {
            return Err(format!("allowed-macs: {mac} is not the address of one station"));
        }
        Ok(())
    }
}
