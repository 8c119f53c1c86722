//! What can go wrong between a desired state and a running switch.

use crate::diff::Setting;

/// Why a desired state was not made true. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of the state is wrong in itself.
    #[error("{reason}")]
    Invalid {
        /// The part, as in `ports.vm1.mtu`: keys of the file with dots between them.
        part: String,
        /// What is wrong with it, and what was expected.
        reason: String,
    },
    /// A part of the state names what is not there.
    #[error("{reason}")]
    Unknown {
        /// The part.
        part: String,
        /// What is not there, and what is.
        reason: String,
    },
    /// What was to be added is there already.
    #[error("{reason}")]
    Exists {
        /// The part.
        part: String,
        /// What is there.
        reason: String,
    },
    /// A device may not be opened.
    #[error("{reason}")]
    NotPermitted {
        /// The part.
        part: String,
        /// What is missing, and what permits it.
        reason: String,
    },
    /// Settings differ that hold from the start of a switch to its end.
    #[error("{} until the switch is started anew", list(.0))]
    Fixed(Vec<Setting>),
    /// The state was changed by somebody else.
    #[error("the configuration has changed: it is at version {now}, not {expected} any more")]
    Stale {
        /// The version that was to be changed.
        expected: u64,
        /// The version by now.
        now: u64,
    },
    /// The switch could not be started or changed.
    #[error(transparent)]
    Switch(#[from] switch::Error),
    /// A vDPA device could not be opened or attached.
    #[error("vDPA device {device}: {reason}")]
    Vdpa {
        /// Its device string.
        device: String,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// A part that is wrong.
    #[allow(clippy::needless_pass_by_value, reason = "errors and texts alike")]
    pub fn invalid(part: impl Into<String>, reason: impl ToString) -> Self {
        Self::Invalid { part: part.into(), reason: reason.to_string() }
    }

    /// The part of the state that is wrong, and why, where it is one part.
    #[must_use]
    pub fn part(&self) -> Option<(&str, &str)> {
        match self {
            Self::Invalid { part, reason }
            | Self::Unknown { part, reason }
            | Self::Exists { part, reason }
            | Self::NotPermitted { part, reason } => Some((part, reason)),
            _ => None,
        }
    }

    /// Something that is not there.
    pub(crate) fn unknown(part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unknown { part: part.into(), reason: reason.into() }
    }

    /// Something that is there already.
    pub(crate) fn exists(part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Exists { part: part.into(), reason: reason.into() }
    }

    /// Whether the state is to blame, and not the system: to try again does not help.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Invalid { .. }
            | Self::Unknown { .. }
            | Self::Exists { .. }
            | Self::NotPermitted { .. }
            | Self::Fixed(_)
            | Self::Stale { .. } => true,
            Self::Switch(error) => is_permanent(error),
            Self::Vdpa { .. } => false,
        }
    }
}

const fn is_permanent(error: &switch::Error) -> bool {
    use switch::Error::{
        Bond, BridgeInUse, BridgeName, Config, DefaultBridge, DuplicateBridge, DuplicatePort,
        Mirror, NotUnicast, Port, PortLimits, PortName, PortVlan, UnknownBridge, UnknownPort,
        UnknownWorker, Vlan,
    };
    match error {
        Port { source, .. } => matches!(source, ethdev::Error::Spec { .. }),
        Bond { .. }
        | BridgeInUse { .. }
        | BridgeName { .. }
        | Config { .. }
        | DefaultBridge
        | DuplicateBridge { .. }
        | DuplicatePort { .. }
        | Mirror { .. }
        | NotUnicast { .. }
        | PortLimits { .. }
        | PortName { .. }
        | PortVlan { .. }
        | UnknownBridge { .. }
        | UnknownPort { .. }
        | UnknownWorker { .. }
        | Vlan { .. } => true,
        _ => false,
    }
}

fn list(settings: &[Setting]) -> String {
    let each: Vec<String> =
        settings.iter().map(|one| format!("'{}' stays {}", one.key, one.from)).collect();
    each.join(", ")
}
