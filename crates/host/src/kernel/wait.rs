//! What a sleeping worker waits on for the sake of a socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use eal::{Epoll, event::Interest};

/// Has a descriptor, which outlives the socket, be readable while the socket is, but only until
/// [`disarm`](Self::disarm) and from [`arm`](Self::arm) on.
///
/// Whoever waits on the socket itself has the kernel call back whenever frames come, whether
/// somebody sleeps or not: measured between virtual interfaces, 15 % of what a frame costs its
/// sender.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: Arc<Epoll>,
    armed: bool,
}

impl Waiter {
    /// Is armed from the start: a worker may sleep on `epoll` already.
    pub(crate) fn new(epoll: Arc<Epoll>, socket: impl AsFd) -> Self {
        let mut waiter = Self { epoll, armed: false };
        waiter.arm(socket);
        waiter
    }

    /// Starts to wait; the caller looks for frames afterwards. `false` when that cannot be.
    pub(crate) fn arm(&mut self, socket: impl AsFd) -> bool {
        if !self.armed {
            self.armed = self.epoll.add(&socket, 0, Interest::READ).is_ok();
        }
        self.armed
    }

    pub(crate) fn disarm(&mut self, socket: impl AsFd) {
        if std::mem::take(&mut self.armed) {
            // An error says that it was not armed.
            let _ = self.epoll.remove(&socket);
        }
    }
}

impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
