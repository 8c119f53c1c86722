//! A database at a socket: connections that follow each other, none of which is ever waited for.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use litemap::LiteMap;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tls::{Identity, Side, Verdict};

use crate::cache::Cache;
use crate::session::{Event, Failure, Session, TransactionId, Wanted};
use crate::transaction::Transaction;

/// Where a database is.
///
/// ```
/// use ovsdb::Remote;
///
/// let remote: Remote = "unix:/run/openvswitch/db.sock".parse().unwrap();
/// assert_eq!(remote, Remote::Unix("/run/openvswitch/db.sock".into()));
/// assert!("tls:127.0.0.1:6640".parse::<Remote>().unwrap_err().to_string().contains("unix:PATH"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a TCP address.
    Tcp(SocketAddr),
    /// The same by TLS.
    Ssl(SocketAddr),
}

/// A text that does not tell where a database is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no database that can be connected to: expected unix:PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT"
)]
pub struct ParseRemoteError(String);

impl FromStr for Remote {
    type Err = ParseRemoteError;

    fn from_str(text: &str) -> Result<Self, ParseRemoteError> {
        let error = || ParseRemoteError(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| error()),
            Some(("ssl", address)) => address.parse().map(Self::Ssl).map_err(|_| error()),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Ssl(address) => write!(f, "ssl:{address}"),
        }
    }
}

/// How long after a connection was lost the next one is tried: at once after one that has worked,
/// then twice as long each time, up to the second of these.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(8));

/// How long a TCP connection may be silent until it is asked whether it is alive, and as long again
/// until it is given up. The process at a Unix socket cannot be lost without a word.
const SILENCE: Duration = Duration::from_secs(5);

/// The most bytes that wait to be sent; a server that takes none of them is given up.
const MAX_OUTPUT: usize = 64 << 20;

/// Bytes read at once, and how often before others have their turn.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 64;

#[derive(Debug)]
enum Link {
    /// To be tried again, not before then.
    Down { until: Instant },
    /// Under way.
    Connecting { socket: OwnedFd },
    /// There; how it ended, where others secure it; when something came last, and whether it was asked for
    /// since.
    Up { socket: OwnedFd, verdict: Option<Verdict>, heard: Instant, probed: bool },
}

/// A database, and the copy of what is watched of it.
///
/// ```no_run
/// use std::time::Instant;
/// use ovsdb::{Client, Event, Wanted};
///
/// let wanted = Wanted::new("Open_vSwitch").table("Bridge", ["name"]);
/// let mut client = Client::new("unix:/run/openvswitch/db.sock".parse()?, wanted, Instant::now());
/// loop {
///     for event in client.run(Instant::now()) {
///         if event == Event::Online {
///             for (_, bridge) in client.cache().rows("Bridge") {
///                 println!("{:?}", bridge.get("name").string());
///             }
///         }
///     }
///     // Poll `client.fd()` for `client.interest()`, at most until `client.due()`.
/// #   break;
/// }
/// # Ok::<(), ovsdb::client::ParseRemoteError>(())
/// ```
#[derive(Debug)]
pub struct Client {
    /// Where it is, as far as is known.
    remote: Remote,
    /// Where else it may be, the next one first.
    others: VecDeque<Remote>,
    /// Who secures connections that are to be secured.
    tls: Option<Identity>,
    session: Session,
    link: Link,
    backoff: Duration,
    /// Attempts since there was a connection, or since all places were tried.
    failures: usize,
    /// What was said about each place last, so that each reason is told once.
    said: LiteMap<Remote, String>,
}

impl Client {
    /// One that connects with the first [`run`](Self::run).
    #[must_use]
    pub fn new(remote: Remote, wanted: Wanted, now: Instant) -> Self {
        let link = Link::Down { until: now };
        Self {
            remote,
            others: VecDeque::new(),
            tls: None,
            session: Session::new(wanted),
            link,
            backoff: BACKOFF.0,
            failures: 0,
            said: LiteMap::new(),
        }
    }

    /// The same, for a database that several servers have: one after the other is tried.
    #[must_use]
    pub fn or_at(mut self, others: impl IntoIterator<Item = Remote>) -> Self {
        self.others.extend(others);
        self
    }

    /// The same, with somebody who secures connections to places that are `ssl:`.
    #[must_use]
    pub fn secured(mut self, tls: Option<Identity>) -> Self {
        self.tls = tls;
        self
    }

    /// Where the database is, or is looked for next.
    #[must_use]
    pub const fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Why there is no connection, once all places were tried; empty while there is one.
    #[must_use]
    pub fn trouble(&self) -> &str {
        let all = self.said.len() > self.others.len();
        self.said.get(&self.remote).filter(|_| all).map_or("", String::as_str)
    }

    /// The conversation.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// The watched tables, as they were last told.
    #[must_use]
    pub const fn cache(&self) -> &Cache {
        self.session.cache()
    }

    /// Sends a transaction with the next [`run`](Self::run); see [`Session::transact`].
    ///
    /// # Errors
    /// The transaction, if it cannot be sent now.
    pub fn transact(&mut self, transaction: Transaction) -> Result<TransactionId, Transaction> {
        self.session.transact(transaction)
    }

    /// The descriptor to be polled; it is another one with each connection.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.link {
            Link::Down { .. } => None,
            Link::Connecting { socket } | Link::Up { socket, .. } => Some(socket.as_fd()),
        }
    }

    /// What the descriptor is to be polled for.
    #[must_use]
    pub fn interest(&self) -> PollFlags {
        match &self.link {
            Link::Down { .. } => PollFlags::empty(),
            Link::Connecting { .. } => PollFlags::OUT,
            Link::Up { .. } if self.session.output().is_empty() => PollFlags::IN,
            Link::Up { .. } => PollFlags::IN | PollFlags::OUT,
        }
    }

    /// When to [`run`](Self::run) again even if nothing comes.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match &self.link {
            Link::Down { until } => Some(*until),
            Link::Connecting { .. } => None,
            Link::Up { heard, .. } => self.silence().map(|silence| later(*heard, silence)),
        }
    }

    /// Goes on as far as is possible without waiting, and tells what has happened.
    pub fn run(&mut self, now: Instant) -> Vec<Event> {
        if matches!(self.link, Link::Down { until } if until <= now) {
            self.start(now);
        }
        if matches!(self.link, Link::Connecting { .. }) {
            self.finish(now);
        }
        if let Err(reason) = self.talk(now) {
            let verdict = match &self.link {
                Link::Up { verdict, .. } => verdict.as_ref().and_then(Verdict::words),
                _ => None,
            };
            self.drop_link(&verdict.unwrap_or(reason), now);
        }
        std::iter::from_fn(|| self.session.next_event()).collect()
    }

    /// Begins to connect.
    fn start(&mut self, now: Instant) {
        match connect(&self.remote) {
            Ok(socket) => self.link = Link::Connecting { socket },
            Err(error) => self.retry(&error.to_string(), now),
        }
    }

    /// Looks whether the connection is there.
    fn finish(&mut self, now: Instant) {
        let Link::Connecting { socket } = &self.link else { return };
        match is_connected(socket) {
            Ok(false) => {}
            Err(error) => self.retry(&error.to_string(), now),
            Ok(true) => {
                let before = std::mem::replace(&mut self.link, Link::Down { until: now });
                let Link::Connecting { socket } = before else { return };
                match self.secure(socket) {
                    Ok((socket, verdict)) => {
                        self.link = Link::Up { socket, verdict, heard: now, probed: false };
                        self.session.connected();
                    }
                    Err(error) => self.retry(&error, now),
                }
            }
        }
    }

    /// What is read and written in place of a connection that is to be secured.
    fn secure(&self, socket: OwnedFd) -> Result<(OwnedFd, Option<Verdict>), String> {
        if !matches!(self.remote, Remote::Ssl(_)) {
            return Ok((socket, None));
        }
        let tls = self.tls.as_ref().ok_or("there is nobody who speaks TLS")?;
        let tunnel = tls.wrap(&socket, Side::Client)?;
        Ok((tunnel.plain, Some(tunnel.verdict)))
    }

    /// Reads and writes.
    fn talk(&mut self, now: Instant) -> Result<(), String> {
        let silence = self.silence();
        let Link::Up { socket, heard, probed, .. } = &mut self.link else { return Ok(()) };
        if read(socket, &mut self.session)? {
            (*heard, *probed) = (now, false);
        }
        if let Some(silence) = silence {
            let silent = now.saturating_duration_since(*heard);
            if *probed && silent >= silence {
                return Err("it does not answer".to_owned());
            }
            if silent >= silence {
                self.session.probe();
                (*heard, *probed) = (now, true);
            }
        }
        write(socket, &mut self.session)?;
        if self.session.is_online() {
            (self.backoff, self.failures) = (BACKOFF.0, 0);
            self.said.clear();
        }
        Ok(())
    }

    const fn silence(&self) -> Option<Duration> {
        match self.remote {
            Remote::Unix(_) => None,
            Remote::Tcp(_) | Remote::Ssl(_) => Some(SILENCE),
        }
    }

    fn drop_link(&mut self, reason: &str, now: Instant) {
        self.session.disconnected(reason);
        self.retry(reason, now);
    }

    /// Tries the next place, and says why, once. When all were tried, it waits a while: a server may
    /// be started later, or anew.
    fn retry(&mut self, reason: &str, now: Instant) {
        let said = self.said.entry(self.remote.clone()).or_default();
        if said != reason {
            tracing::info!(database = %self.remote, "no connection to the database: {reason}");
            reason.clone_into(said);
        }
        if let Some(next) = self.others.pop_front() {
            self.others.push_back(std::mem::replace(&mut self.remote, next));
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures <= self.others.len() {
            self.link = Link::Down { until: now };
            return;
        }
        self.failures = 0;
        self.link = Link::Down { until: later(now, self.backoff) };
        self.backoff = self.backoff.saturating_mul(2).min(BACKOFF.1);
    }
}

fn later(moment: Instant, by: Duration) -> Instant {
    moment.checked_add(by).unwrap_or(moment)
}

/// A socket that is on the way to `remote`.
fn connect(remote: &Remote) -> io::Result<OwnedFd> {
    let family = match remote {
        Remote::Unix(_) => AddressFamily::UNIX,
        Remote::Tcp(SocketAddr::V4(_)) | Remote::Ssl(SocketAddr::V4(_)) => AddressFamily::INET,
        Remote::Tcp(SocketAddr::V6(_)) | Remote::Ssl(SocketAddr::V6(_)) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    let connected = match remote {
        Remote::Unix(path) => net::connect(&socket, &SocketAddrUnix::new(path)?),
        Remote::Tcp(address) | Remote::Ssl(address) => net::connect(&socket, address),
    };
    match connected {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Whether a connection is there; an error if there will be none.
fn is_connected(socket: &OwnedFd) -> io::Result<bool> {
    net::sockopt::socket_error(socket)??;
    match net::getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads what is there; returns whether there was something.
fn read(socket: &OwnedFd, session: &mut Session) -> Result<bool, String> {
    let mut chunk = vec![0; CHUNK];
    let mut heard = false;
    for _ in 0..CHUNKS {
        match net::recv(socket, chunk.as_mut_slice(), net::RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err("it has closed the connection".to_owned()),
            Ok((_, count)) => {
                heard = true;
                let bytes = chunk.get(..count).unwrap_or_default();
                session.receive(bytes).map_err(|failure: Failure| failure.to_string())?;
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).to_string()),
        }
    }
    Ok(heard)
}

/// Writes what can be written.
fn write(socket: &OwnedFd, session: &mut Session) -> Result<(), String> {
    while !session.output().is_empty() {
        let flags = net::SendFlags::DONTWAIT | net::SendFlags::NOSIGNAL;
        match net::send(socket, session.output(), flags) {
            Ok(count) => session.sent(count),
            Err(Errno::AGAIN) if session.output().len() > MAX_OUTPUT => {
                return Err("it does not read what it is sent".to_owned());
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    fn client(listener: &TcpListener, now: Instant) -> Client {
        let remote = Remote::Tcp(listener.local_addr().unwrap());
        Client::new(remote, Wanted::new("D"), now)
    }

    /// Runs it until it has sent its first question.
    fn accept(client: &mut Client, listener: &TcpListener, now: Instant) -> std::net::TcpStream {
        client.run(now);
        let (mut peer, _) = listener.accept().unwrap();
        while !matches!(client.link, Link::Up { .. }) {
            client.run(now);
        }
        let mut question = [0; 10];
        peer.read_exact(&mut question).unwrap();
        peer
    }

    #[test]
    fn who_is_silent_is_asked_and_then_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut now = Instant::now();
        let mut client = client(&listener, now);
        let _peer = accept(&mut client, &listener, now);
        assert_eq!(client.due(), Some(now + SILENCE));
        now += SILENCE;
        assert_eq!(client.run(now), []);
        assert!(matches!(client.link, Link::Up { probed: true, .. }));
        now += SILENCE;
        assert_eq!(client.run(now), [Event::Offline("it does not answer".to_owned())]);
        assert_eq!(client.due(), Some(now + BACKOFF.0));
        assert!(client.fd().is_none());
    }

    #[test]
    fn tries_are_further_and_further_apart() {
        let mut now = Instant::now();
        let remote = Remote::Unix("/nonexistent/db.sock".into());
        let mut client = Client::new(remote, Wanted::new("D"), now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(client.run(now), []);
            let due = client.due().unwrap();
            waits.push(due - now);
            now = due;
        }
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 8000];
        assert_eq!(waits, expected.map(Duration::from_millis));
    }

    #[test]
    fn of_several_servers_one_after_the_other_is_tried() {
        let nobody = |name: &str| Remote::Unix(format!("/nonexistent/{name}").into());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut now = Instant::now();
        let mut client = Client::new(nobody("a"), Wanted::new("D"), now).or_at([nobody("b")]);
        for wait in [BACKOFF.0, BACKOFF.0 * 2] {
            // Both at once, then it waits.
            assert_eq!(client.run(now), []);
            assert_eq!((client.due(), client.remote()), (Some(now), &nobody("b")));
            assert_eq!(client.run(now), []);
            assert_eq!((client.due(), client.remote()), (Some(now + wait), &nobody("a")));
            assert!(!client.trouble().is_empty());
            now += wait;
        }
        let mut client = Client::new(nobody("a"), Wanted::new("D"), now)
            .or_at([Remote::Tcp(listener.local_addr().unwrap()), nobody("c")]);
        assert_eq!(client.run(now), []);
        assert_eq!(client.trouble(), "", "there are others");
        let peer = accept(&mut client, &listener, now);
        // When it goes, the next one is tried at once.
        drop(peer);
        while client.run(now).is_empty() {}
        assert_eq!((client.due(), client.remote()), (Some(now), &nobody("c")));
    }

    #[test]
    fn a_server_that_talks_nonsense_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let now = Instant::now();
        let mut client = client(&listener, now);
        let mut peer = accept(&mut client, &listener, now);
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        let offline = loop {
            if let Some(event) = client.run(now).pop() {
                break event;
            }
        };
        let Event::Offline(reason) = offline else { panic!("{offline:?}") };
        assert!(reason.contains("does not speak as an OVSDB server does"), "{reason}");
    }
}
