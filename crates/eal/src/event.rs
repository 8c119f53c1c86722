//! Waiting for file descriptors: eventfd and epoll.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::files::explain;

/// A counter in the kernel that one thread of this process, or the kernel, signals and another
/// waits for. It never blocks as long as no other process has it: what a peer has, too, is a
/// [`PeerEvent`](crate::PeerEvent).
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not signalled.
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        rustix::event::eventfd(0, flags).map(Self).map_err(explain)
    }

    /// Signals it. That it cannot take another count (`EAGAIN`) is no error: whoever waits for it
    /// will wake up anyway.
    ///
    /// # Errors
    ///
    /// When the descriptor is none that can be written to.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes it not signalled, and returns whether it was signalled.
    ///
    /// # Errors
    ///
    /// When the descriptor is none that can be read from.
    #[inline]
    pub fn drain(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(read) => Ok(read > 0),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Another handle of the same counter.
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self).map_err(explain)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.0
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Data, a connection or a hang-up to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    /// Reading only.
    pub const READ: Self = Self { read: true, write: false };
    /// Writing only.
    pub const WRITE: Self = Self { read: false, write: true };
    /// Both.
    pub const BOTH: Self = Self { read: true, write: true };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN | epoll::EventFlags::RDHUP, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// What happened to one file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The number that it was added under.
    pub token: u64,
    /// There is something to read, which may be the end.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer closed its side or the whole connection.
    pub hangup: bool,
    /// An error is pending; the next read or write tells it.
    pub error: bool,
}

impl From<&epoll::Event> for Event {
    fn from(event: &epoll::Event) -> Self {
        use epoll::EventFlags as Flags;
        // The structure is packed, so fields are copied, not referred to.
        let flags = event.flags;
        Self {
            token: event.data.u64(),
            readable: flags.intersects(Flags::IN),
            writable: flags.intersects(Flags::OUT),
            hangup: flags.intersects(Flags::HUP | Flags::RDHUP),
            error: flags.intersects(Flags::ERR),
        }
    }
}

/// Events of one [`Epoll::wait`]; reused from call to call.
#[derive(Debug, Default)]
pub struct Events(Vec<Event>);

impl Events {
    /// Room for the events of one wait.
    #[must_use]
    pub fn new() -> Self {
        Self(Vec::with_capacity(MAX_EVENTS))
    }

    /// The events, at most 64; more wait for the next call.
    #[must_use]
    pub fn as_slice(&self) -> &[Event] {
        &self.0
    }

    /// The events.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.iter().copied()
    }
}

const MAX_EVENTS: usize = 64;

/// Many file descriptors waited for at once, level-triggered unless one is added as
/// [edge-triggered](Epoll::add_edge).
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn new() -> io::Result<Self> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self).map_err(explain)
    }

    /// Adds `fd`; its events carry `token`. Remove it before closing it if it has duplicates.
    ///
    /// # Errors
    ///
    /// When it is in the set already, or of a kind that cannot be waited for.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.0, fd, data, interest.flags())?)
    }

    /// Adds `fd` for reading, edge-triggered: each signal of an eventfd is one event, as is that it
    /// has been signalled before, and nobody needs to drain it.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_edge(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.0, fd, data, flags)?)
    }

    /// Takes the edges that wait, without a word on whose they are; returns whether there were any.
    /// For a set of a few files, which is itself waited for in another.
    ///
    /// # Errors
    ///
    /// None that an application could cause.
    pub fn take_edges(&self) -> io::Result<bool> {
        let mut buffer = [const { MaybeUninit::<epoll::Event>::uninit() }; 4];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.0, &mut buffer[..], Some(&now)) {
            Ok((ready, _)) => Ok(!ready.is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Changes the token and the interest of `fd`.
    ///
    /// # Errors
    ///
    /// When it is not in the set.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.0, fd, data, interest.flags())?)
    }

    /// Takes `fd` out of the set.
    ///
    /// # Errors
    ///
    /// When it is not in the set.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits until something happens or `timeout` is over (`None`: for ever), and fills `events`,
    /// which is empty after a timeout. A signal that interrupts it does not end it.
    ///
    /// # Errors
    ///
    /// None that an application could cause.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.0.clear();
        // A timeout beyond what a clock can hold is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut buffer = [const { MaybeUninit::<epoll::Event>::uninit() }; MAX_EVENTS];
        loop {
            let rest = deadline.map(|end| timespec(end.saturating_duration_since(Instant::now())));
            match epoll::wait(&self.0, &mut buffer[..], rest.as_ref()) {
                Ok((ready, _)) => {
                    events.0.extend(ready.iter().map(Event::from));
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// At most a day at a time, which every kernel takes; the caller gets an early, empty wake-up.
fn timespec(duration: Duration) -> Timespec {
    let duration = duration.min(Duration::from_secs(86_400));
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(86_400),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn tokens(epoll: &Epoll, timeout: Duration) -> Vec<Event> {
        let mut events = Events::new();
        epoll.wait(&mut events, Some(timeout)).unwrap();
        events.iter().collect()
    }

    #[test]
    fn an_eventfd_is_signalled_until_drained() {
        let event = EventFd::new().unwrap();
        assert!(!event.drain().unwrap());
        event.signal().unwrap();
        event.try_clone().unwrap().signal().unwrap();
        assert!(event.drain().unwrap());
        assert!(!event.drain().unwrap());
    }

    #[test]
    fn signalling_never_blocks() {
        let event = EventFd::new().unwrap();
        // One below the limit: the next count would block a blocking eventfd.
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        event.signal().unwrap();
        assert!(event.drain().unwrap());
    }

    #[test]
    fn epoll_tells_who_and_what() {
        let epoll = Epoll::new().unwrap();
        let (a, b) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        epoll.add(&a, 1, Interest::READ).unwrap();
        epoll.add(&b, u64::MAX, Interest::READ).unwrap();
        assert!(epoll.add(&a, 1, Interest::READ).is_err());
        assert_eq!(tokens(&epoll, Duration::ZERO), []);
        b.signal().unwrap();
        let ready = tokens(&epoll, Duration::from_secs(10));
        assert_eq!((ready.len(), ready[0].token, ready[0].readable), (1, u64::MAX, true));
        epoll.modify(&b, 7, Interest::BOTH).unwrap();
        let ready = tokens(&epoll, Duration::from_secs(10));
        assert_eq!((ready[0].token, ready[0].writable), (7, true));
        epoll.remove(&b).unwrap();
        assert_eq!(tokens(&epoll, Duration::ZERO), []);
        assert!(epoll.remove(&b).is_err());
    }

    #[test]
    fn edges_come_once_per_signal_without_draining() {
        let (epoll, event) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add_edge(&event, 5).unwrap();
        for _ in 0..3 {
            assert_eq!(tokens(&epoll, Duration::ZERO), []);
            event.signal().unwrap();
            assert_eq!(tokens(&epoll, Duration::from_secs(10))[0].token, 5);
        }
        assert_eq!(tokens(&epoll, Duration::ZERO), []);
    }

    #[test]
    fn a_set_of_edges_is_readable_until_they_are_taken() {
        let (outer, inner, event) =
            (Epoll::new().unwrap(), Epoll::new().unwrap(), EventFd::new().unwrap());
        inner.add_edge(&event, 5).unwrap();
        outer.add(&inner, 6, Interest::READ).unwrap();
        for _ in 0..3 {
            assert_eq!(tokens(&outer, Duration::ZERO), []);
            assert!(!inner.take_edges().unwrap());
            event.signal().unwrap();
            assert_eq!(tokens(&outer, Duration::from_secs(10))[0].token, 6);
            assert_eq!(tokens(&outer, Duration::from_secs(10))[0].token, 6);
            assert!(inner.take_edges().unwrap());
        }
        assert_eq!(tokens(&outer, Duration::ZERO), []);
    }

    #[test]
    fn a_hang_up_is_told() {
        let epoll = Epoll::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        epoll.add(&ours, 3, Interest::READ).unwrap();
        drop(theirs);
        let ready = tokens(&epoll, Duration::from_secs(10));
        assert!(ready[0].hangup && ready[0].readable && !ready[0].error);
    }

    #[test]
    fn waiting_ends_by_timeout_or_by_another_thread() {
        let epoll = Epoll::new().unwrap();
        let event = EventFd::new().unwrap();
        epoll.add(&event, 1, Interest::READ).unwrap();
        let start = Instant::now();
        assert_eq!(tokens(&epoll, Duration::from_millis(30)), []);
        assert!(start.elapsed() >= Duration::from_millis(30));
        std::thread::scope(|scope| {
            scope.spawn(|| event.signal().unwrap());
            let mut events = Events::new();
            epoll.wait(&mut events, Some(Duration::MAX)).unwrap();
            assert_eq!(events.as_slice().len(), 1);
        });
    }
}
