//! Eventfds that another process has, too: kicks and calls of virtqueues.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, LazyLock};

use rustix::event::EventfdFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::aio::Aio;
use crate::closer::{Closer, PeerFd};
use crate::files::explain;

/// An eventfd that is shared with a peer, whoever made it. Clones are the same descriptor.
///
/// Its flags and its count belong to both sides, at any moment: the peer can make it block, and
/// fill or empty it, and then a write or a read waits for the peer. So there is neither. It is
/// signalled by the kernel on our behalf, which never waits, and a thread that waits for it does so
/// by edges ([`Epoll::add_edge`](crate::Epoll::add_edge)), so that nobody has to read it. Nor is it
/// closed by whoever drops it: where ours is the last copy, the kernel takes it out of the epoll
/// sets of the peer, and waits for whoever is at them.
#[derive(Clone, Debug)]
pub struct PeerEvent {
    file: Arc<PeerFd>,
    aio: &'static Aio,
}

impl PeerEvent {
    /// A new one, not signalled, for somebody who can be trusted to let it be closed, and signalled
    /// at once: the kernel, or this process.
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open, or the system has no asynchronous I/O
    /// ([`AioError`](crate::AioError)).
    pub fn new() -> io::Result<Self> {
        static TRUSTED: LazyLock<Closer> = LazyLock::new(Closer::trusting);
        Self::for_peer(&TRUSTED)
    }

    /// A new one, not signalled, for a peer to be sent, to be closed by the peer's `closer`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn for_peer(closer: &Closer) -> io::Result<Self> {
        let aio = Aio::get()?;
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let file = rustix::event::eventfd(0, flags).map_err(explain)?;
        let file = PeerFd::new(file, closer.clone()).into_event();
        Ok(Self { file: Arc::new(file), aio })
    }

    /// Checks that the system has what eventfds of peers need.
    ///
    /// # Errors
    ///
    /// When it has no asynchronous I/O; says what to do.
    pub fn check_support() -> Result<(), crate::AioError> {
        Aio::get().map(drop)
    }

    /// Whether `fd`, which a peer sent, is an eventfd. No file of whatever kind can make that wait,
    /// and none is changed by it.
    ///
    /// # Errors
    ///
    /// When the system has no asynchronous I/O.
    pub fn is_event(fd: BorrowedFd<'_>) -> io::Result<bool> {
        Aio::get()?.is_event(fd)
    }

    /// One that a peer sent.
    ///
    /// # Errors
    ///
    /// When it is no eventfd (`InvalidInput`), or the system has no asynchronous I/O.
    pub fn from_fd(fd: impl Into<PeerFd>) -> io::Result<Self> {
        let (aio, fd) = (Aio::get()?, fd.into());
        if !aio.is_event(fd.as_fd())? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { file: Arc::new(fd.into_event()), aio })
    }

    /// Signals it, or has a thread of the peer's do so where that takes long. That its count is at its end is no error: whoever waits for it wakes up anyway.
    ///
    /// # Errors
    ///
    /// None that a peer could cause.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        self.file.closer().ringer().signal(self.aio, &self.file)
    }

    /// Makes it not signalled, and returns whether it was, without waiting (`RWF_NOWAIT`): for
    /// those who cannot wait by edges.
    ///
    /// # Errors
    ///
    /// On a kernel before Linux 5.8, where an eventfd cannot be read that way.
    #[inline]
    pub fn drain(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        let to = &mut [IoSliceMut::new(&mut count)];
        // The offset that says "as read(2)".
        match rustix::io::preadv2(self.file.as_fd(), to, u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read > 0),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether it is the same descriptor as `other`.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }
}

impl AsFd for PeerEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::event::Events;
    use crate::{Epoll, EventFd};

    /// A peer that has made its eventfd block.
    fn blocking() -> (OwnedFd, PeerEvent) {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let ours = PeerEvent::from_fd(fd.try_clone().unwrap()).unwrap();
        (fd, ours)
    }

    fn count(fd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(fd, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn a_signal_arrives_and_is_taken() {
        let event = PeerEvent::new().unwrap();
        assert!(!event.drain().unwrap());
        event.signal().unwrap();
        event.clone().signal().unwrap();
        assert!(event.drain().unwrap());
        assert!(!event.drain().unwrap());
    }

    #[test]
    fn a_full_counter_that_blocks_makes_nobody_wait() {
        let (peer, ours) = blocking();
        // The end of the count: a write of 1 would wait for a reader now.
        rustix::io::write(&peer, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        for _ in 0..3 {
            ours.signal().unwrap();
        }
        assert_eq!(count(&peer), u64::MAX);
    }

    #[test]
    fn an_empty_counter_that_blocks_makes_nobody_wait() {
        let (peer, ours) = blocking();
        assert!(!ours.drain().unwrap());
        ours.signal().unwrap();
        assert_eq!(count(&peer), 1);
        assert!(!ours.drain().unwrap());
    }

    #[test]
    fn edges_come_from_a_full_counter_too() {
        let (peer, ours) = blocking();
        let (epoll, mut events) = (Epoll::new().unwrap(), Events::new());
        rustix::io::write(&peer, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        epoll.add_edge(&ours, 7).unwrap();
        for _ in 0..3 {
            epoll.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(events.as_slice()[0].token, 7);
            epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.as_slice().is_empty());
            ours.signal().unwrap();
        }
    }

    #[test]
    fn only_eventfds_are_taken_and_none_is_touched() {
        let event = EventFd::new().unwrap();
        assert!(PeerEvent::is_event(event.as_fd()).unwrap());
        assert!(!event.drain().unwrap(), "it was signalled");
        let (reader, writer) = io::pipe().unwrap();
        let (stream, _other) = UnixStream::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let others = [reader.into(), writer.into(), stream.into(), null];
        for fd in others {
            assert!(!PeerEvent::is_event(fd.as_fd()).unwrap());
            let error = PeerEvent::from_fd(fd).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert!(!PeerEvent::is_event(epoll.as_fd()).unwrap());
    }
}
