//! How many files the process may have open, and what to say when there are no more.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The process has as many files open as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process has no file descriptor left, of {limit} that it may have; allow it more \
     (`ulimit -n`, LimitNOFILE= of its systemd unit, --ulimit nofile= of its container)"
)]
pub struct NoneLeft {
    /// How many it may have.
    pub limit: u64,
}

impl NoneLeft {
    /// As things are now.
    #[must_use]
    pub fn now() -> Self {
        Self { limit: limit() }
    }
}

/// How many files the process may have open.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Has the process open as many files as the administrator allows, and returns how many those are.
/// The soft limit of 1024 that is usual is there for the sake of select(2).
///
/// # Errors
/// When the system refuses; the limit stays as it was.
pub fn raise_limit() -> io::Result<u64> {
    let limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits })?;
    }
    Ok(limit())
}

/// `error` in words that name the limit, where the limit on open files is the cause.
#[must_use]
pub fn explain(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) {
        return io::Error::other(NoneLeft::now());
    }
    error
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_is_explained() {
        let error = explain(Errno::MFILE).to_string();
        assert!(error.contains("LimitNOFILE") && error.contains(&limit().to_string()), "{error}");
        assert_eq!(explain(Errno::NFILE).raw_os_error(), Some(Errno::NFILE.raw_os_error()));
        assert_eq!(explain(io::ErrorKind::InvalidInput).kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raise_limit().unwrap(), allowed);
        assert_eq!(limit(), allowed);
    }
}
