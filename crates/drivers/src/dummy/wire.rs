//! A dummy port's wire: a socket that joins it to another one, of this or another process.
//!
//! As Open vSwitch has it: in front of each frame is its length, in two bytes in network order. Who
//! listens sends each frame to all that have connected.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::event::Interest;
use eal::unix::{self, Listener};
use eal::{Access, Epoll, EventFd};
use packet::{ETHERNET_HEADER_LEN, Frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, send, socket_with, sockopt,
};

use super::place::{Address, Place};

/// Connections that one port may have.
const MOST_LINKS: usize = 64;

/// Connections that wait to be taken.
const BACKLOG: i32 = 64;

/// Bytes that may wait to be sent to one peer: about a hundred full frames.
const MOST_WAITING: usize = 160 * 1024;

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// How long a peer that is not there is let alone. A worker looks once a second at least.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes in front of each frame.
const LENGTH: usize = 2;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What connections come from.
enum End {
    Unix(Listener),
    Tcp(OwnedFd),
    /// We connect ourselves, as soon as this moment has come.
    Dial(Address, Instant),
}

/// A dummy port's socket, with its connections.
pub(super) struct Wire {
    end: End,
    links: Vec<Link>,
    /// Frames that were received.
    pub(super) taken: u64,
    /// Readable when there is something to do.
    ready: Arc<Epoll>,
}

impl Wire {
    /// Listens, or tries to connect; that nobody listens is no error.
    ///
    /// # Errors
    /// What it cannot do, for people.
    pub(super) fn open(place: &Place) -> Result<Self, String> {
        let ready = Epoll::new().map_err(|error| error.to_string())?;
        let end = match place {
            Place::Listen(Address::Unix(path)) => {
                let listener = Listener::bind(path, Access::default(), BACKLOG);
                End::Unix(listener.map_err(|error| error.to_string())?)
            }
            Place::Listen(Address::Tcp(address)) => {
                let socket = listen_tcp(*address);
                End::Tcp(socket.map_err(|error| format!("cannot listen at {address}: {error}"))?)
            }
            Place::Dial(address) => End::Dial(address.clone(), Instant::now()),
        };
        let listener = match &end {
            End::Unix(listener) => Some(listener.as_fd()),
            End::Tcp(socket) => Some(socket.as_fd()),
            End::Dial(..) => None,
        };
        let watched = listener.map(|fd| ready.add(fd, 0, Interest::READ)).transpose();
        watched.map_err(|error| error.to_string())?;
        let mut wire = Self { end, links: Vec::new(), taken: 0, ready: Arc::new(ready) };
        wire.connect();
        Ok(wire)
    }

    /// What is readable when there is something to do, or this is.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn watch(&self, also: &EventFd) -> io::Result<Arc<Epoll>> {
        self.ready.add(also, 0, Interest::READ)?;
        Ok(Arc::clone(&self.ready))
    }

    /// Connects once more, if that is its part and its connection has ended.
    pub(super) fn connect_again(&mut self) {
        if matches!(self.end, End::Dial(..)) {
            self.turn();
            self.connect();
        }
    }

    /// Connects, if that is its part and it is not connected. A port that was not there is tried again
    /// a second later, or by whoever knows that it is there now.
    fn connect(&mut self) {
        let End::Dial(address, due) = &mut self.end else { return };
        if !self.links.is_empty() {
            return;
        }
        *due = eal::time::later(Instant::now(), PAUSE);
        match dial(address) {
            Ok(socket) => self.add(socket),
            Err(why) => tracing::debug!("a dummy port's peer is not there: {why}"),
        }
    }

    /// Takes connections and bytes that have come, and sends bytes that wait.
    fn turn(&mut self) {
        if let End::Dial(_, due) = &self.end
            && self.links.is_empty()
            && *due <= Instant::now()
        {
            self.connect();
        }
        while self.links.len() < MOST_LINKS {
            let Some(socket) = self.accept() else { break };
            self.add(socket);
        }
        let ready = &self.ready;
        self.links.retain_mut(|link| {
            let is_good = link.turn(ready);
            if !is_good {
                // Closing it does the same.
                let _ = ready.remove(&link.socket);
            }
            is_good
        });
    }

    fn accept(&self) -> Option<OwnedFd> {
        match &self.end {
            End::Unix(listener) => listener.accept().ok()?,
            End::Tcp(socket) => accept_with(socket, FLAGS).ok(),
            End::Dial(..) => None,
        }
    }

    fn add(&mut self, socket: OwnedFd) {
        if let Err(error) = self.ready.add(&socket, 0, Interest::READ) {
            tracing::warn!("a dummy port's connection is of no use: {error}");
            return;
        }
        self.links.push(Link::new(socket));
    }

    /// Has `take` get the next frame that has come; gives what that gives, `None` where there is none.
    pub(super) fn receive<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if !self.has_frame() {
            self.turn();
        }
        let link = self.links.iter_mut().find(|link| link.frame().is_some())?;
        let frame = link.frame()?;
        let (taken, end) = (take(frame), LENGTH.saturating_add(frame.len()));
        link.came.drain(..end);
        self.taken = self.taken.wrapping_add(1);
        Some(taken)
    }

    /// Whether a frame has been read and not been taken yet.
    pub(super) fn has_frame(&self) -> bool {
        self.links.iter().any(|link| link.frame().is_some())
    }

    /// Whether something has come that nobody has taken yet.
    pub(super) fn has_news(&self) -> bool {
        let mut fds = [PollFd::new(&*self.ready, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.has_frame() || poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Sends a frame to all that are connected; returns whether there was room for it everywhere.
    pub(super) fn send(&mut self, frame: &Frame<'_>) -> bool {
        let Ok(length) = u16::try_from(frame.len()) else { return false };
        let bytes = [&length.to_be_bytes()[..], &frame.to_vec()].concat();
        let ready = &self.ready;
        // Every one of them gets it that has room.
        let full =
            self.links.iter_mut().filter_map(|link| (!link.send(&bytes, ready)).then_some(()));
        full.count() == 0
    }
}

/// A connection.
struct Link {
    socket: OwnedFd,
    came: Vec<u8>,
    waiting: Vec<u8>,
    /// Whether it is waited for that there is room to send.
    is_full: bool,
}

impl Link {
    const fn new(socket: OwnedFd) -> Self {
        Self { socket, came: Vec::new(), waiting: Vec::new(), is_full: false }
    }

    /// The first frame that has come, if it is complete.
    fn frame(&self) -> Option<&[u8]> {
        let (length, rest) = self.came.split_first_chunk::<LENGTH>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        rest.get(..length).filter(|_| length >= ETHERNET_HEADER_LEN)
    }

    /// Whether what has come next is too short to be a frame.
    fn is_broken(&self) -> bool {
        let length = self.came.first_chunk::<LENGTH>();
        length.is_some_and(|length| usize::from(u16::from_be_bytes(*length)) < ETHERNET_HEADER_LEN)
    }

    /// Reads, unless there are frames to be taken first, and sends what waits; returns whether it is
    /// still of use.
    fn turn(&mut self, ready: &Epoll) -> bool {
        self.flush(ready);
        if self.frame().is_some() {
            return true;
        }
        let mut bytes = [0; CHUNK];
        match recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
            Ok((0, _)) => false,
            Ok((read, _)) => {
                self.came.extend_from_slice(bytes.get(..read).unwrap_or_default());
                !self.is_broken()
            }
            Err(Errno::AGAIN | Errno::INTR) => !self.is_broken(),
            Err(_) => false,
        }
    }

    fn send(&mut self, bytes: &[u8], ready: &Epoll) -> bool {
        let has_room = self.waiting.len().saturating_add(bytes.len()) <= MOST_WAITING;
        if has_room {
            self.waiting.extend_from_slice(bytes);
            self.flush(ready);
        }
        has_room
    }

    /// Sends what waits. That the peer has gone is seen by who reads.
    fn flush(&mut self, ready: &Epoll) {
        while !self.waiting.is_empty() {
            match send(&self.socket, &self.waiting, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let is_full = !self.waiting.is_empty();
        if is_full != self.is_full {
            let interest = Interest { read: true, write: is_full };
            // Otherwise it is sent when a worker looks the next time.
            let _ = ready.modify(&self.socket, 0, interest);
            self.is_full = is_full;
        }
    }
}

fn dial(address: &Address) -> Result<OwnedFd, String> {
    let address = match address {
        Address::Unix(path) => return unix::connect(path).map_err(|error| error.to_string()),
        Address::Tcp(address) => *address,
    };
    let begin = || {
        let socket = socket_with(family(address), SocketType::STREAM, FLAGS, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    };
    begin().map_err(|error: Errno| format!("{address}: {error}"))
}

fn listen_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = socket_with(family(address), SocketType::STREAM, FLAGS, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

const fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}
