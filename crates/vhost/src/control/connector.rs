//! Connecting to a front-end that listens, on a thread that may wait.
//!
//! The front-end has made the file at the path, or a link instead, which may lead into a file system
//! that it serves itself. Looking a path up waits for whoever serves it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use eal::event::Interest;
use eal::unix::{SocketError, connect};
use eal::{Closer, Epoll, EventFd, PeerFd};

/// What came of it: `None` where nobody accepts connections there at the moment.
pub(super) type Connected = Result<Option<PeerFd>, SocketError>;

/// An attempt to connect that goes on for as long as it takes. A port has one at most, and none while
/// an earlier one has not ended, so that it has one thread for it.
#[derive(Debug)]
pub(super) struct Attempt {
    result: Receiver<Connected>,
    done: Arc<EventFd>,
    epoll: Arc<Epoll>,
}

impl Attempt {
    /// Begins to connect to `path`. `epoll` tells under `token` when it has come to something;
    /// `closer` closes the socket if nobody takes it.
    pub(super) fn begin(
        path: PathBuf,
        closer: &Closer,
        epoll: &Arc<Epoll>,
        token: u64,
    ) -> io::Result<Self> {
        let (sender, result) = sync_channel(1);
        let (done, closer) = (Arc::new(EventFd::new()?), closer.clone());
        epoll.add(&*done, token, Interest::READ)?;
        let attempt = Self { result, done: Arc::clone(&done), epoll: Arc::clone(epoll) };
        let run = move || {
            let connected = match connect(&path) {
                Ok(socket) => Ok(Some(PeerFd::new(socket, closer))),
                Err(SocketError::Nobody { .. }) => Ok(None),
                Err(error) => Err(error),
            };
            // Where nobody waits any more, the socket is closed.
            let _ = sender.send(connected);
            let _ = done.signal();
        };
        std::thread::Builder::new().name("connect".into()).stack_size(STACK).spawn(run)?;
        Ok(attempt)
    }

    /// What came of it, if it has ended.
    pub(super) fn result(&self) -> Option<Connected> {
        match self.result.try_recv() {
            Ok(connected) => Some(connected),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Ok(None)),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // The thread may have a copy.
        let _ = self.epoll.remove(&*self.done);
    }
}

/// Bytes of such a thread's stack.
const STACK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use eal::event::Events;

    use super::*;

    #[test]
    fn what_came_of_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (epoll, mut events) = (Arc::new(Epoll::new().unwrap()), Events::new());
        let path = dir.path().join("socket");
        let mut connect = || {
            let attempt = Attempt::begin(path.clone(), &Closer::default(), &epoll, 5).unwrap();
            epoll.wait(&mut events, Some(Duration::from_secs(60))).unwrap();
            assert_eq!(events.as_slice()[0].token, 5);
            attempt.result().unwrap()
        };
        assert!(connect().unwrap().is_none());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(connect().unwrap().is_some());
        assert!(listener.accept().is_ok());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(connect().is_err());
    }
}
