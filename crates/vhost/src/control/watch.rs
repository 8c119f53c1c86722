//! Files that a device watches on the control thread.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::{fmt, io};

use eal::Epoll;
use eal::event::Interest;

/// What an event belongs to, packed into the number that epoll carries: the socket in the upper
/// 32 bits, and below it one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A command for the control thread.
    Wake,
    /// Attempts to connect have ended.
    Connector,
    /// The listening socket.
    Listener(u32),
    /// The connection.
    Connection(u32),
    /// The channel for messages of the back-end.
    Channel(u32),
    /// A file that the device watches under a token.
    Watch(u32, u16),
}

const LISTENER: u32 = 1 << 16;
const CONNECTION: u32 = 2 << 16;
const CHANNEL: u32 = 3 << 16;
const WAKE: u64 = u64::MAX;
const CONNECTOR: u64 = u64::MAX - 1;

impl Source {
    pub(super) fn token(self) -> u64 {
        let (socket, low) = match self {
            Self::Wake => return WAKE,
            Self::Connector => return CONNECTOR,
            Self::Listener(socket) => (socket, LISTENER),
            Self::Connection(socket) => (socket, CONNECTION),
            Self::Channel(socket) => (socket, CHANNEL),
            Self::Watch(socket, token) => (socket, token.into()),
        };
        u64::from(socket) << 32 | u64::from(low)
    }

    pub(super) fn of_token(token: u64) -> Option<Self> {
        if token == WAKE {
            return Some(Self::Wake);
        }
        if token == CONNECTOR {
            return Some(Self::Connector);
        }
        let socket = u32::try_from(token >> 32).ok()?;
        match u32::try_from(token & 0xffff_ffff).ok()? {
            LISTENER => Some(Self::Listener(socket)),
            CONNECTION => Some(Self::Connection(socket)),
            CHANNEL => Some(Self::Channel(socket)),
            low => Some(Self::Watch(socket, u16::try_from(low).ok()?)),
        }
    }
}

/// Lets a device watch files on the control thread. Clones are the same watcher.
#[derive(Clone, Debug)]
pub struct Watcher {
    epoll: Arc<Epoll>,
    socket: u32,
}

impl Watcher {
    /// Lets a device watch files in `epoll`, whose events carry `socket` in the upper half of their
    /// number and the token in the lower one.
    #[must_use]
    pub const fn new(epoll: Arc<Epoll>, socket: u32) -> Self {
        Self { epoll, socket }
    }

    /// From now on, [`Backend::kicked`](crate::backend::Backend::kicked) is called with `token`
    /// while `fd` is readable, until the returned [`Watch`] is dropped; even after that once more
    /// if the file was readable a moment before.
    ///
    /// # Errors
    /// When `fd` cannot be waited for, or the process has no file descriptor left.
    pub fn watch(&self, fd: impl AsFd, token: u16) -> io::Result<Watch> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        let token = Source::Watch(self.socket, token).token();
        self.epoll.add(&fd, token, Interest::READ)?;
        Ok(Watch { epoll: Arc::clone(&self.epoll), fd: Box::new(fd) })
    }

    /// As [`watch`](Self::watch), once for each signal of the eventfd `fd`, which nobody has to
    /// read, and once at first where it has been signalled before.
    ///
    /// # Errors
    /// When `fd` cannot be waited for.
    pub fn watch_edges(
        &self,
        fd: impl AsFd + Send + Sync + 'static,
        token: u16,
    ) -> io::Result<Watch> {
        self.epoll.add_edge(&fd, Source::Watch(self.socket, token).token())?;
        Ok(Watch { epoll: Arc::clone(&self.epoll), fd: Box::new(fd) })
    }
}

/// A file that is being watched, until this is dropped.
pub struct Watch {
    epoll: Arc<Epoll>,
    fd: Box<dyn AsFd + Send + Sync>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("fd", &self.fd.as_fd()).finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It was added and only this removes it.
        let _ = self.epoll.remove(&self.fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_epoll() {
        let sources = [
            Source::Wake,
            Source::Listener(0),
            Source::Connection(7),
            Source::Channel(7),
            Source::Connector,
            Source::Watch(u32::MAX - 1, u16::MAX),
            Source::Watch(0, 0),
        ];
        for source in sources {
            assert_eq!(Source::of_token(source.token()), Some(source));
        }
        assert_eq!(Source::of_token(4 << 16), None);
    }
}
