//! Waiting for a file descriptor, with a limit.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit::Failure;

/// Waits until `fd` is readable, at most `patience`; whether it is.
pub fn readable(fd: &impl AsFd, patience: Duration) -> Result<bool, Failure> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    match poll(&mut fds, Timespec::try_from(patience).ok().as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(Failure::runtime(format!("cannot wait: {error}"))),
    }
}
