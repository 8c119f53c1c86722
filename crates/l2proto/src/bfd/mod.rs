//! Bidirectional forwarding detection (RFC 5880, and RFC 5881 for how it is carried): two systems tell each
//! other, as often as they have agreed, that they hear each other. Nothing here reads a clock or sends
//! anything.
//!
//! As in Open vSwitch, a session is of a link, whatever addresses its frames have; there is neither
//! authentication nor the echo function, and demand mode is its own: frames of any kind may tell that the
//! link does.
//!
//! - `frame`: packets on the wire
//! - `session`: the state machine, and when something is sent

pub mod frame;
pub mod session;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use packet::MacAddr;
use serde::{Deserialize, Serialize};

use crate::names::is_default;

/// The address that packets come from where nothing is said.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Likewise where they go.
pub const DESTINATION: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 0);

/// Settings of a session. Times are in milliseconds.
///
/// ```
/// use l2proto::Bfd;
///
/// assert!(Bfd::default().check().is_ok());
/// assert!(Bfd { mult: 0, ..Bfd::default() }.check().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "settings of a BFD session, as in { min-rx = 300 }"
)]
pub struct Bfd {
    /// How often it would like to send at most.
    #[serde(skip_serializing_if = "is_min_tx")]
    pub min_tx: u32,
    /// How often it can receive at most.
    #[serde(skip_serializing_if = "is_min_rx")]
    pub min_rx: u32,
    /// How many packets may be missing before the neighbour is taken for gone, by that.
    #[serde(skip_serializing_if = "is_mult")]
    pub mult: u8,
    /// How often it can receive while nothing else comes; 0: as otherwise.
    #[serde(skip_serializing_if = "is_default")]
    pub decay_min_rx: u32,
    /// Whether frames of any kind tell that the link does, as long as the neighbour says so itself now and
    /// then.
    #[serde(skip_serializing_if = "is_default")]
    pub forwarding_if_rx: bool,
    /// Whether the way behind this system is broken.
    #[serde(skip_serializing_if = "is_default")]
    pub cpath_down: bool,
    /// Of what comes by a tunnel, whether only packets whose key is 0 are for the session: others are of
    /// those that the tunnel is for.
    #[serde(skip_serializing_if = "is_default")]
    pub check_tnl_key: bool,
    /// The Ethernet address that packets come from; `None`: the port's.
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub local_src_mac: Option<MacAddr>,
    /// That which they go to; `None`: [`frame::NEIGHBOUR`].
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub local_dst_mac: Option<MacAddr>,
    /// That which they come to; `None`: any.
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub remote_dst_mac: Option<MacAddr>,
    /// The IP address that packets come from; those that come go there.
    #[serde(skip_serializing_if = "is_source")]
    pub src_ip: Ipv4Addr,
    /// That which they go to.
    #[serde(skip_serializing_if = "is_destination")]
    pub dst_ip: Ipv4Addr,
}

impl Default for Bfd {
    fn default() -> Self {
        Self {
            min_tx: 100,
            min_rx: 1_000,
            mult: 3,
            decay_min_rx: 0,
            forwarding_if_rx: false,
            cpath_down: false,
            check_tnl_key: false,
            local_src_mac: None,
            local_dst_mac: None,
            remote_dst_mac: None,
            src_ip: SOURCE,
            dst_ip: DESTINATION,
        }
    }
}

/// Addresses as text.
mod as_text {
    use packet::MacAddr;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[allow(clippy::ref_option, reason = "as serde calls it")]
    pub fn serialize<S: Serializer>(mac: &Option<MacAddr>, to: S) -> Result<S::Ok, S::Error> {
        mac.map(|mac| mac.to_string()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MacAddr>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

fn is_min_tx(value: &u32) -> bool {
    *value == Bfd::default().min_tx
}

fn is_min_rx(value: &u32) -> bool {
    *value == Bfd::default().min_rx
}

fn is_mult(value: &u8) -> bool {
    *value == Bfd::default().mult
}

fn is_source(value: &Ipv4Addr) -> bool {
    *value == SOURCE
}

fn is_destination(value: &Ipv4Addr) -> bool {
    *value == DESTINATION
}

/// The longest interval, in milliseconds: on the wire, there are 32 bits for microseconds.
pub const MAX_INTERVAL: u32 = u32::MAX / 1_000;

impl Bfd {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The one that does not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        for (key, value) in [("min-tx", self.min_tx), ("min-rx", self.min_rx)] {
            if !(1..=MAX_INTERVAL).contains(&value) {
                return Err(format!("{key} {value}: expected 1 to {MAX_INTERVAL} ms"));
            }
        }
        let decay = self.decay_min_rx;
        if decay > MAX_INTERVAL || (1..self.min_rx).contains(&decay) {
            let least = self.min_rx;
            return Err(format!(
                "decay-min-rx {decay}: expected 0, or {least} to {MAX_INTERVAL} ms"
            ));
        }
        if self.mult == 0 {
            return Err("mult 0: expected 1 to 255".to_owned());
        }
        Ok(())
    }
}

/// The state of a session (RFC 5880, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BfdState {
    /// An operator has taken it down.
    AdminDown,
    /// The neighbour is not heard.
    #[default]
    Down,
    /// It is, and does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl BfdState {
    /// Its name, in Open vSwitch's words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminDown => "admin_down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }
}

/// Why a session was not up the last time (RFC 5880, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdDiag(pub u8);

impl BfdDiag {
    /// Nothing was wrong.
    pub const NONE: Self = Self(0);
    /// The neighbour was not heard for too long.
    pub const EXPIRED: Self = Self(1);
    /// The neighbour said so.
    pub const NEIGHBOUR_DOWN: Self = Self(3);
    /// The link does not do.
    pub const PATH_DOWN: Self = Self(5);
    /// The way behind the one that says so does not.
    pub const CONCATENATED_DOWN: Self = Self(6);
    /// The same, of the way back.
    pub const REVERSE_CONCATENATED_DOWN: Self = Self(8);

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            _ => "Invalid Diagnostic",
        }
    }

    /// Whether the link, or a way behind it, does not do, though both hear each other.
    const fn is_broken(self) -> bool {
        matches!(self, Self::PATH_DOWN | Self::CONCATENATED_DOWN | Self::REVERSE_CONCATENATED_DOWN)
    }
}

/// Flags of a packet (RFC 5880, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdFlags(pub u8);

impl BfdFlags {
    /// For what is not there yet.
    pub const MULTIPOINT: Self = Self(1);
    /// There is authentication.
    pub const AUTH: Self = Self(4);
    /// It answers one with [`POLL`](Self::POLL).
    pub const FINAL: Self = Self(16);
    /// It is to be answered.
    pub const POLL: Self = Self(32);

    const NAMES: [&'static str; 6] = ["multipoint", "demand", "auth", "ctl", "final", "poll"];

    /// Whether this one is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn set(&mut self, other: Self, is_set: bool) {
        self.0 = if is_set { self.0 | other.0 } else { self.0 & !other.0 };
    }
}

impl std::fmt::Display for BfdFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has = |(at, _): &(u8, &str)| self.0 >> at & 1 != 0;
        let names = (0_u8..).zip(Self::NAMES).filter(has).map(|(_, name)| name);
        let names: Vec<&str> = names.collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

/// One side of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdSide {
    /// Flags of its packets.
    pub flags: BfdFlags,
    /// Its state.
    pub state: BfdState,
    /// Why it was not up the last time.
    pub diag: BfdDiag,
    /// The number by which it knows the session.
    pub discriminator: u32,
    /// How often it sends at most, and can receive, in milliseconds.
    pub min_tx: u32,
    /// How often it can receive at most, in milliseconds.
    pub min_rx: u32,
    /// How many packets may be missing.
    pub mult: u8,
}

/// What a session is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdReport {
    /// Its settings.
    pub settings: Bfd,
    /// Whether the link does.
    pub is_forwarding: bool,
    /// How often that has changed.
    pub flaps: u64,
    /// This side.
    pub local: BfdSide,
    /// The neighbour, as it says.
    pub remote: BfdSide,
    /// How often packets go out and come, in milliseconds.
    pub intervals: [u32; 2],
    /// In how many milliseconds the neighbour is taken for gone, the next packet goes out, and the last
    /// one did.
    pub times: [i64; 3],
}
