//! Why a request was refused: a code for programs beside the text for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of a refusal it is. A code never changes its meaning; more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// It is no JSON, no known command, or has wrong arguments.
    BadRequest,
    /// It is longer than a request may be.
    TooLong,
    /// A value is wrong, or values contradict each other.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// What it would add is there already.
    Exists,
    /// What it would remove is needed by something else.
    InUse,
    /// There are as many already as there can be.
    Full,
    /// It changes what takes a new start of the switch.
    Fixed,
    /// The switch is not allowed to, or was told not to.
    NotPermitted,
    /// A device could not be opened or changed: it may help to try again.
    Device,
    /// This switch, or this device, has no such thing.
    Unsupported,
    /// A fault of the switch, or of the system that it runs on.
    Internal,
    /// One of a later version.
    #[serde(other)]
    Other,
}

impl Code {
    /// All that a switch of this version gives.
    pub const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::TooLong,
        Self::Invalid,
        Self::NotFound,
        Self::Exists,
        Self::InUse,
        Self::Full,
        Self::Fixed,
        Self::NotPermitted,
        Self::Device,
        Self::Unsupported,
        Self::Internal,
    ];
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl From<String> for Refusal {
    /// A value is wrong, as the text says.
    fn from(message: String) -> Self {
        Self { code: Code::Invalid, message }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Code::Internal, error)
    }
}

impl From<daemon::Error> for Refusal {
    fn from(error: daemon::Error) -> Self {
        Self::new(code(&error), error)
    }
}

impl From<switch::Error> for Refusal {
    fn from(error: switch::Error) -> Self {
        Self::new(code_of_switch(&error), error)
    }
}

/// What kind of an error it is.
pub const fn code(error: &daemon::Error) -> Code {
    use daemon::Error;
    match error {
        Error::Invalid { .. } => Code::Invalid,
        Error::Unknown { .. } => Code::NotFound,
        Error::Exists { .. } => Code::Exists,
        Error::NotPermitted { .. } => Code::NotPermitted,
        Error::Fixed(_) => Code::Fixed,
        Error::Stale { .. } => Code::Internal,
        Error::Switch(error) => code_of_switch(error),
        Error::Vdpa { .. } => Code::Device,
    }
}

const fn code_of_switch(error: &switch::Error) -> Code {
    use switch::Error;
    match error {
        Error::UnknownPort { .. } | Error::UnknownBridge { .. } | Error::UnknownEntry { .. } => {
            Code::NotFound
        }
        Error::DuplicatePort { .. } | Error::DuplicateBridge { .. } => Code::Exists,
        Error::BridgeInUse { .. } => Code::InUse,
        Error::TooManyPorts { .. } | Error::TooManyBridges { .. } | Error::FdbFull(_) => Code::Full,
        Error::DefaultBridge => Code::NotPermitted,
        Error::Port { source, .. } => match source {
            ethdev::Error::Spec { .. } => Code::Invalid,
            ethdev::Error::Device { .. } => Code::Device,
            ethdev::Error::Unsupported { .. } => Code::Unsupported,
        },
        Error::System { .. } | Error::NoWorker | Error::DeviceLate { .. } => Code::Internal,
        _ => Code::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_name_and_unknown_ones_are_read() {
        for code in Code::ALL {
            let text = serde_json::to_string(&code).unwrap();
            assert_eq!(serde_json::from_str::<Code>(&text).unwrap(), code);
        }
        assert_eq!(serde_json::from_str::<Code>("\"out-of-luck\"").unwrap(), Code::Other);
    }
}
