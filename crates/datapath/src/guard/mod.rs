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
//! - `ordinary`: packets of which all that is looked at is who sends them to whom
//! - `ip`: what is checked of IPv4, IPv6 and ARP
//! - `trip`: what shuts a port
//! - `set`: sets of numbers that are looked up for each frame

mod formats;
mod guards;
mod ip;
mod ordinary;
pub mod prefix;
mod rules;
mod set;
mod storm;
#[cfg(test)]
mod tests;
mod trip;

use std::collections::BTreeSet;

use packet::MacAddr;
use serde::{Deserialize, Serialize};

use crate::vlan::formats::is_default;
use crate::vlan::named;

pub use self::guards::Guard;
pub(crate) use self::guards::Guards;
pub use self::prefix::Prefix;
pub use self::rules::probe;
pub use self::trip::Trip;

/// The most addresses in one of the lists of a guard.
pub const MAX_ADDRESSES: usize = 1024;

/// What a port may send. By default everything.
///
/// ```
/// use datapath::guard::PortGuard;
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
    /// What becomes of a bridge's messages of spanning tree, by which a guest could have others send
    /// their frames through it, and which tell of a loop.
    #[serde(skip_serializing_if = "is_default")]
    pub bpdu_guard: BpduGuard,
    /// Whether it reaches only ports that are not isolated, as among ports of a private VLAN.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// The most addresses that are learnt on it; `None`: as many as there is room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_addresses: Option<u32>,
    /// What becomes of frames from further addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub beyond_max: Beyond,
}

/// What becomes of messages of spanning tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BpduGuard {
    /// What the bridge does with such addresses.
    #[default]
    Off,
    /// They are dropped.
    Drop,
    /// The port is shut until somebody changes one of its settings.
    Shut,
}

impl BpduGuard {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Drop, Self::Shut];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Drop => "drop",
            Self::Shut => "shut",
        }
    }
}

/// What becomes of frames from addresses that a port may not learn any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Beyond {
    /// They are dropped.
    #[default]
    Drop,
    /// They pass, and what is sent back goes to all ports.
    Flood,
}

impl Beyond {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Drop, Self::Flood];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Flood => "flood",
        }
    }
}

named!(Beyond, BpduGuard);

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
        if self.max_addresses == Some(0) {
            return Err("max-addresses 0: expected 1 at least".to_owned());
        }
        if self.beyond_max != Beyond::default() && self.max_addresses.is_none() {
            return Err(
                "beyond-max without max-addresses: give that, too, or leave it out".to_owned()
            );
        }
        if let Some(mac) = self.allowed_macs.iter().find(|mac| !mac.is_station()) {
            return Err(format!("allowed-macs: {mac} is not the address of one station"));
        }
        Ok(())
    }
}
