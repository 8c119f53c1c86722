//! Notifications that are passed on to the back-end as messages: a worker signals the event of its
//! ring, as ever, and the port's thread sends the message and waits for the answer.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use eal::event::Events;
use eal::{Epoll, PeerEvent};

/// The events of all rings, by index.
#[derive(Debug)]
pub(super) struct Kicks(Epoll);

impl Kicks {
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new(events: &[PeerEvent]) -> std::io::Result<Self> {
        let kicks = Epoll::new()?;
        for (index, event) in (0..).zip(events) {
            kicks.add_edge(event, index)?;
        }
        Ok(Self(kicks))
    }

    /// The rings that were kicked since the last time, some of them if they are many.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut events = Events::new();
        // It is ours, and does not wait; what it cannot tell now it tells the next time.
        if self.0.wait(&mut events, Some(Duration::ZERO)).is_err() {
            return Vec::new();
        }
        events.iter().filter_map(|event| u8::try_from(event.token).ok()).collect()
    }
}

impl AsFd for Kicks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kick_is_told_once() {
        let events = [PeerEvent::new().unwrap(), PeerEvent::new().unwrap()];
        events[1].signal().unwrap();
        let kicks = Kicks::new(&events).unwrap();
        assert_eq!(kicks.take(), [1], "from before");
        assert_eq!(kicks.take(), []);
        events[0].signal().unwrap();
        events[0].signal().unwrap();
        events[1].signal().unwrap();
        let mut taken = kicks.take();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        assert_eq!(kicks.take(), []);
    }
}
