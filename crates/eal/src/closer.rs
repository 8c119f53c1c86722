//! Closing files and unmapping memory that a peer has had a hand in.
//!
//! close(2) may wait: a file in FUSE is flushed by whoever serves it, a TCP socket lingers, a Unix
//! socket lets go of whatever files are queued in it, and an eventfd leaves the epoll sets that its
//! peer has put it in, each of which the peer can lock for as long as it likes. Unmapping memory may take long: where the
//! peer has gone, all its pages are freed. So neither is done by a thread that others need: it is
//! handed to a [`Closer`], whose thread may wait for as long as the peer likes.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mem::Map;
use crate::ringer::Ringer;

/// Files of one peer that may wait to be closed before nothing more is taken from it.
pub const MAX_FILES: usize = 256;

/// Eventfds of one peer that may wait to be closed: more than all of its rings have at once.
pub const MAX_EVENTS: usize = 1024;

/// Mappings of one peer that may wait to be removed: as many as a guest may have, or a few more.
pub const MAX_MAPPINGS: usize = 512;

/// How long the thread waits for more before it ends.
const LINGER: Duration = Duration::from_secs(1);

/// Closes the files and removes the mappings of one peer. Clones are the same closer.
///
/// It has a thread while there is something to do, and a moment longer. A peer that makes that
/// thread wait holds up nothing but what it has sent itself; see [`is_behind`](Self::is_behind).
/// Where the process gets no thread, things are kept until it does.
#[derive(Clone, Debug, Default)]
pub struct Closer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    more: Condvar,
    /// Signals the peer's eventfds.
    ringer: Ringer,
}

#[derive(Debug, Default)]
struct Work {
    items: VecDeque<Item>,
    /// With the one that is being closed.
    files: usize,
    /// Likewise.
    events: usize,
    /// With the one that is being removed.
    mappings: usize,
    has_thread: bool,
}

#[derive(Debug)]
enum Item {
    File(OwnedFd),
    Event(OwnedFd),
    Mapping(Map),
}

impl Closer {
    /// One for eventfds that this process shares with itself or the kernel, which nobody makes slow.
    pub(crate) fn trusting() -> Self {
        Self(Arc::new(Shared { ringer: Ringer::trusting(), ..Shared::default() }))
    }

    /// Whether so much waits to be closed that nothing more should be taken from the peer:
    /// [`MAX_FILES`], [`MAX_EVENTS`] or [`MAX_MAPPINGS`].
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let work = self.lock();
        work.files >= MAX_FILES || work.events >= MAX_EVENTS || work.mappings >= MAX_MAPPINGS
    }

    /// Whether nothing waits any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let work = self.lock();
        work.files == 0 && work.events == 0 && work.mappings == 0
    }

    /// What signals eventfds of the same peer.
    pub(crate) fn ringer(&self) -> &Ringer {
        &self.0.ringer
    }

    /// Closes `file`, soon.
    pub fn close(&self, file: OwnedFd) {
        let mut work = self.lock();
        work.files += 1;
        self.take(work, Item::File(file));
    }

    /// Closes the eventfd `file`, soon.
    fn close_event(&self, file: OwnedFd) {
        let mut work = self.lock();
        work.events += 1;
        self.take(work, Item::Event(file));
    }

    /// Removes a mapping, soon.
    pub(crate) fn unmap(&self, map: Map) {
        let mut work = self.lock();
        work.mappings += 1;
        self.take(work, Item::Mapping(map));
    }

    fn take(&self, mut work: MutexGuard<'_, Work>, item: Item) {
        work.items.push_back(item);
        if work.has_thread {
            self.0.more.notify_one();
            return;
        }
        let closer = self.clone();
        let thread = std::thread::Builder::new().name("closer".into());
        work.has_thread = crate::thread::spawn(thread, move || closer.run()).is_ok();
    }

    fn run(&self) {
        let mut work = self.lock();
        loop {
            if let Some(item) = work.items.pop_front() {
                drop(work);
                work = self.finish(item);
                continue;
            }
            let more = self.0.more.wait_timeout_while(work, LINGER, |work| work.items.is_empty());
            work = more.unwrap_or_else(PoisonError::into_inner).0;
            if work.items.is_empty() {
                work.has_thread = false;
                return;
            }
        }
    }

    /// Lets go of `item`, however long that takes.
    fn finish(&self, item: Item) -> MutexGuard<'_, Work> {
        match item {
            Item::File(file) => {
                drop(file);
                let mut work = self.lock();
                work.files -= 1;
                work
            }
            Item::Event(file) => {
                drop(file);
                let mut work = self.lock();
                work.events -= 1;
                work
            }
            Item::Mapping(map) => {
                drop(map);
                let mut work = self.lock();
                work.mappings -= 1;
                work
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.0.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that a peer has sent, or a socket to it. Dropping it hands it to its [`Closer`], so that
/// no thread that has one waits for it.
#[derive(Debug)]
pub struct PeerFd {
    file: ManuallyDrop<OwnedFd>,
    closer: Closer,
    is_event: bool,
}

impl PeerFd {
    /// `file`, to be closed by `closer`.
    #[must_use]
    pub const fn new(file: OwnedFd, closer: Closer) -> Self {
        Self { file: ManuallyDrop::new(file), closer, is_event: false }
    }

    /// What closes it, and whatever else comes from the same peer.
    #[must_use]
    pub const fn closer(&self) -> &Closer {
        &self.closer
    }

    /// The same file, known to be an eventfd: of those a peer has many.
    pub(crate) const fn into_event(mut self) -> Self {
        self.is_event = true;
        self
    }
}

impl From<OwnedFd> for PeerFd {
    /// With a closer of its own.
    fn from(file: OwnedFd) -> Self {
        Self::new(file, Closer::default())
    }
}

impl AsFd for PeerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for PeerFd {
    fn drop(&mut self) {
        // SAFETY: the value is not used after its drop, so the file is taken once.
        let file = unsafe { ManuallyDrop::take(&mut self.file) };
        if self.is_event {
            self.closer.close_event(file);
        } else {
            self.closer.close(file);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    use testkit::wait_for;

    use super::*;

    /// A socket whose close(2) waits for an hour, or until the second one closes.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let full = loop {
            if let Err(error) = ours.write(&[0; 1 << 16]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let hour = Some(Duration::from_secs(3600));
        rustix::net::sockopt::set_socket_linger(&ours, hour).unwrap();
        (ours.into(), theirs)
    }

    #[test]
    fn a_file_that_is_dropped_gets_closed() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        drop(PeerFd::from(OwnedFd::from(writer)));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_close_that_waits_holds_up_nobody_but_its_own_peer() {
        let (closer, other) = (Closer::default(), Closer::default());
        let (file, theirs) = lingering();
        let (done, dropped) = channel();
        let file = PeerFd::new(file, closer.clone());
        let thread = std::thread::spawn(move || {
            drop(file);
            done.send(()).unwrap();
        });
        dropped.recv_timeout(Duration::from_secs(60)).expect("dropping it waits");
        thread.join().unwrap();
        let null = || std::fs::File::open("/dev/null").unwrap().into();
        for _ in 1..MAX_FILES {
            assert!(!closer.is_behind());
            drop(PeerFd::new(null(), closer.clone()));
        }
        assert!(closer.is_behind());
        for _ in 0..MAX_EVENTS {
            drop(crate::PeerEvent::for_peer(&closer).unwrap());
        }
        assert_eq!(closer.lock().events, MAX_EVENTS, "they were not closed in place");
        other.close(null());
        wait_for("the other one is done", || other.is_done());
        assert!(closer.is_behind(), "the close did not wait");
        drop(theirs);
        wait_for("it is done", || closer.is_done());
        assert!(!closer.is_behind());
    }

    #[test]
    fn mappings_go_with_their_memory() {
        let memory = crate::SharedMemory::allocate("goes", 4096).unwrap();
        let closer = Closer::default();
        let mapping = crate::Mapping::map(memory.fd(), 0, 4096).unwrap().closed_by(&closer);
        let start = mapping.ptr().addr().get();
        let is_mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            // Other tests may get memory of their own there afterwards.
            let is_there = |line: &str| line.starts_with(&format!("{start:x}-"));
            maps.lines().any(|line| is_there(line) && line.contains("memfd:goes"))
        };
        assert!(is_mapped());
        drop(mapping);
        wait_for("it is done", || closer.is_done());
        assert!(!is_mapped());
    }
}
