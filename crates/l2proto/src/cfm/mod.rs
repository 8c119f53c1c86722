//! Connectivity fault management (IEEE 802.1Q-2018 clause 20, once 802.1ag): maintenance points of a link
//! tell each other, in continuity check messages, that they are there. Nothing here reads a clock or sends
//! anything.
//!
//! Beside the standard's messages there are Open vSwitch's extended ones, with longer numbers and any
//! interval. As there, messages that nobody should send are a fault only where they say that the link does
//! not do.
//!
//! - `frame`: messages on the wire
//! - `session`: what one maintenance point knows of the others

pub mod frame;
pub mod session;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// The largest number of a maintenance point in messages of the standard.
const MAX_MPID: u64 = 8_191;

/// How often messages are sent where nothing is said, in milliseconds.
const INTERVAL: u32 = 1_000;

/// Settings of a maintenance point.
///
/// ```
/// use l2proto::Cfm;
///
/// let point = Cfm { mpid: 9_000, ..Cfm::new(1) };
/// assert!(point.check().is_err());
/// assert!(Cfm { extended: true, ..point }.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "settings of a maintenance point, as in { mpid = 1 }"
)]
pub struct Cfm {
    /// Its number, which no other one of the link has.
    pub mpid: u64,
    /// How often it says that it is there, in milliseconds.
    #[serde(default = "interval", skip_serializing_if = "is_interval")]
    pub interval: u32,
    /// Whether it speaks Open vSwitch's extended messages.
    #[serde(default, skip_serializing_if = "crate::names::is_default")]
    pub extended: bool,
    /// Whether frames of any kind tell that a neighbour is there, as long as it says so itself now and
    /// then.
    #[serde(default, skip_serializing_if = "crate::names::is_default")]
    pub demand: bool,
    /// Whether it says that it is out of operation.
    #[serde(default, skip_serializing_if = "crate::names::is_default")]
    pub down: bool,
    /// The VLAN of its messages; `None`: they have no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Their priority, with a tag.
    #[serde(default, skip_serializing_if = "crate::names::is_default")]
    pub priority: u8,
}

const fn interval() -> u32 {
    INTERVAL
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_interval(value: &u32) -> bool {
    *value == INTERVAL
}

impl Cfm {
    /// That of number `mpid`, with all else as it is where nothing is said.
    #[must_use]
    pub const fn new(mpid: u64) -> Self {
        Self {
            mpid,
            interval: INTERVAL,
            extended: false,
            demand: false,
            down: false,
            vlan: None,
            priority: 0,
        }
    }

    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The one that does not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let Self { mpid, interval, extended, vlan, priority, .. } = self;
        if *mpid == 0 || (!extended && *mpid > MAX_MPID) {
            let most = if *extended { u64::MAX } else { MAX_MPID };
            return Err(format!("mpid {mpid}: expected 1 to {most}"));
        }
        if *interval == 0 {
            return Err("interval 0: expected milliseconds, 1 at least".to_owned());
        }
        if let Some(vlan) = vlan.filter(|vlan| !matches!(vlan, 1..4096)) {
            return Err(format!("vlan {vlan}: expected 1 to 4095"));
        }
        if *priority > 7 {
            return Err(format!("priority {priority}: expected 0 to 7"));
        }
        Ok(())
    }
}

/// What is wrong with a link, as one of its maintenance points sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u8);

impl Faults {
    /// Nobody is heard.
    pub const RECV: Self = Self(1);
    /// Somebody hears nobody.
    pub const RDI: Self = Self(2);
    /// Somebody is of another maintenance association.
    pub const MAID: Self = Self(4);
    /// Own messages come back.
    pub const LOOPBACK: Self = Self(8);
    /// There are more maintenance points than are kept.
    pub const OVERFLOW: Self = Self(16);
    /// An operator says so.
    pub const OVERRIDE: Self = Self(32);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::RECV, "recv"),
        (Self::RDI, "rdi"),
        (Self::MAID, "maid"),
        (Self::LOOPBACK, "loopback"),
        (Self::OVERFLOW, "overflow"),
        (Self::OVERRIDE, "override"),
    ];

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is wrong, by Open vSwitch's names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let has = move |(fault, _): &(Self, &str)| self.0 & fault.0 != 0;
        Self::NAMES.into_iter().filter(has).map(|(_, name)| name)
    }

    const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What a maintenance point knows at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CfmReport {
    /// Its settings.
    pub settings: Cfm,
    /// How often it says that it is there, in milliseconds.
    pub interval: u32,
    /// What is wrong.
    pub faults: Faults,
    /// Whether an operator has said whether anything is.
    pub is_overridden: bool,
    /// How often that came and went.
    pub flaps: u64,
    /// The percentage of messages that came, of one other maintenance point; `None` where there are more,
    /// or it was not found out yet.
    pub health: Option<u8>,
    /// Whether others are in operation, as they say.
    pub is_remote_up: bool,
    /// Those that were heard when it was looked at last.
    pub reached: Vec<u64>,
    /// Those that are heard.
    pub remotes: Vec<CfmRemote>,
    /// Milliseconds until the next message, and until it is looked at what has come.
    pub next: [u64; 2],
}

impl CfmReport {
    /// Whether the link does.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.faults.is_empty() && (!self.settings.extended || self.is_remote_up)
    }
}

/// Another maintenance point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CfmRemote {
    /// Its number.
    pub mpid: u64,
    /// Whether it was heard since that was looked at last.
    pub is_heard: bool,
    /// Whether it is in operation, as it says.
    pub is_up: bool,
}
