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

    /// Whether the state is to blame, and not the system: to try again does not help.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Invalid { .. } | Self::Fixed(_) | Self::Stale { .. } => true,
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
