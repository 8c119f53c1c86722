//! What comes from the switch, until somebody has enough.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use eal::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the switch may take to end a capture, in seconds.
const PATIENCE: i64 = 5;

/// The connection to the switch, which a signal makes it end.
#[derive(Debug)]
pub struct Source {
    connection: UnixStream,
    signals: Signals,
    is_ending: bool,
}

impl Source {
    /// What comes on `connection`.
    pub const fn new(connection: UnixStream, signals: Signals) -> Self {
        Self { connection, signals, is_ending: false }
    }

    /// Waits for something to read; on a signal the switch is told that this is enough.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            let connection = PollFd::new(&self.connection, PollFlags::IN);
            let signals = PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN);
            let mut fds = [connection, signals];
            let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
            let polled = if self.is_ending {
                let [connection, _] = &mut fds;
                poll(std::slice::from_mut(connection), Some(&patience))
            } else {
                poll(&mut fds, None)
            };
            match polled {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [connection, signals] = fds.map(|fd| !fd.revents().is_empty());
            if signals && !self.is_ending {
                self.is_ending = true;
                end(&self.connection);
            } else if connection {
                return Ok(());
            }
        }
    }
}

/// Tells the switch that this is enough.
pub fn end(connection: &UnixStream) {
    // Where it fails, the switch has ended by itself.
    let _ = connection.shutdown(Shutdown::Write);
}

impl Read for Source {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.connection.read(room)
    }
}
