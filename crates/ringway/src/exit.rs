//! How the program ends: the exit status is part of its interface.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Arguments or configuration are wrong: nothing was started. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Something failed while running. Exit status 1.
    #[error("{0}")]
    Runtime(String),
}

impl Failure {
    /// Arguments or configuration are wrong.
    pub fn usage(message: impl Display) -> Self {
        Self::Usage(message.to_string())
    }

    /// Something failed while running.
    pub fn runtime(message: impl Display) -> Self {
        Self::Runtime(message.to_string())
    }

    /// The exit status that stands for it.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Runtime(_) => 1,
        })
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        if error.is_permanent() { Self::usage(error) } else { Self::runtime(error) }
    }
}

impl From<ethdev::Error> for Failure {
    fn from(error: ethdev::Error) -> Self {
        match error {
            ethdev::Error::Spec { .. } => Self::usage(error),
            ethdev::Error::Device { .. } | ethdev::Error::Unsupported { .. } => {
                Self::runtime(error)
            }
        }
    }
}
