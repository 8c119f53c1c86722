//! One vhost-user socket on the control thread: waiting for its front-end, serving it, and
//! waiting again.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::event::Interest;
use eal::time::Time;
use eal::unix::Listener;
use eal::{Closer, Epoll, PeerFd};

use super::FrontEnd;
use super::answers::Readers;
use super::channel::{Channel, ChannelError};
use super::connector::{Attempt, Connector};
use super::limit::{Allowance, LogLimit};
use super::member::Member;
use super::retry::Retry;
use super::watch::{Source, Watcher};
use crate::connection::{Connection, ConnectionError};
use crate::inband::Notifications;
use crate::protocol::InflightRegion;
use crate::protocol::Payload;
use crate::protocol::message::table_payload;
use crate::session::{Device, Reply, Session, SessionError};

/// Messages of one front-end before it is the others' turn.
const BURST: usize = 16;

/// Time after which it is the others' turn, when the message at hand is done: some take a while,
/// since the workers have to let go of every ring first. By the system's clock: nobody stops that.
const TURN: Duration = Duration::from_millis(2);

/// Regions for records of chains in flight that a port makes at once: a front-end needs one.
const REGIONS: u32 = 16;

/// After this, it makes one more.
const REGION_PAUSE: Duration = Duration::from_secs(10);

/// How long a socket whose connection cannot be accepted is left alone: for want of file
/// descriptors, as a rule, which others have to close.
const REST: Duration = Duration::from_millis(500);

/// How a socket gets its front-end.
#[derive(Debug)]
pub(super) enum Role {
    /// It listens.
    Server {
        listener: Listener,
        /// Not listened to until then.
        resting: Option<Instant>,
    },
    /// It connects.
    Client {
        /// When to try next.
        retry: Retry,
        /// The log says already that it fails.
        complained: bool,
        /// What is being tried.
        attempt: Option<Attempt>,
        /// Tries it.
        connector: Arc<Connector>,
    },
}

impl Role {
    pub(super) fn server(listener: Listener) -> Self {
        Self::Server { listener, resting: None }
    }

    pub(super) fn client(connector: Arc<Connector>, now: Instant) -> Self {
        Self::Client { retry: Retry::new(now), complained: false, attempt: None, connector }
    }

    /// When to listen or to connect again, if ever.
    const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Server { resting, .. } => *resting,
            Self::Client { attempt: Some(_), .. } => None,
            Self::Client { retry, .. } => retry.next(),
        }
    }
}

/// A connected front-end.
#[derive(Debug)]
struct Link {
    connection: Connection,
    session: Session,
    since: Instant,
    interest: Interest,
    /// For messages of the back-end, once the front-end has sent one.
    channel: Option<Channel>,
    /// Those of the session that are waited for.
    notifications: Option<Arc<Notifications>>,
}

impl Link {
    /// Sends the reply to `request`, with a descriptor where it has one.
    fn reply(
        &mut self,
        request: u32,
        reply: &Reply,
        attached: Option<BorrowedFd<'_>>,
    ) -> Result<(), ConnectionError> {
        let (connection, attached) = (&mut self.connection, attached.as_slice());
        match reply {
            Reply::U64(value) => connection.send_reply_with(request, &value.encode(), attached),
            Reply::VringState(state) => connection.send_reply(request, state),
            Reply::Config(part) => connection.send_reply_bytes(request, &part.encode()),
            Reply::Empty => connection.send_reply_bytes(request, &[]),
            Reply::LogBase(base) => connection.send_reply(request, base),
            Reply::Inflight(region) => {
                connection.send_reply_with(request, &region.encode(), attached)
            }
            Reply::Userfault => connection.send_reply_with(request, &[], attached),
            Reply::MemTable(regions) => {
                connection.send_reply_bytes(request, &table_payload(regions))
            }
        }
    }

    /// Has the control thread woken by notifications that are to be messages.
    fn wait_for_notifications(&mut self, epoll: &Epoll, id: u32) -> std::io::Result<()> {
        let all = self.session.notifications();
        if all.map(Arc::as_ptr) == self.notifications.as_ref().map(Arc::as_ptr) {
            return Ok(());
        }
        self.forget_notifications(epoll);
        if let Some(all) = self.session.notifications() {
            epoll.add_edge(&**all, Source::Channel(id).token())?;
            self.notifications = Some(Arc::clone(all));
        }
        Ok(())
    }

    fn forget_notifications(&mut self, epoll: &Epoll) {
        if let Some(all) = self.notifications.take() {
            // It was added, so this cannot fail.
            let _ = epoll.remove(&*all);
        }
    }
}

/// Why a front-end is not served any longer.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(
        "closing what it has sent takes too long: more than {} files wait",
        eal::closer::MAX_FILES
    )]
    Behind,
    #[error("cannot wait for the connection: {0}")]
    Wait(#[from] std::io::Error),
}

/// A socket with its device.
#[derive(Debug)]
pub(super) struct Socket {
    id: u32,
    path: PathBuf,
    epoll: Arc<Epoll>,
    time: Time,
    role: Role,
    device: Device,
    link: Option<Link>,
    /// Closes what front-ends send, and the sockets to them.
    closer: Closer,
    /// Threads that read its channels, and those of front-ends that have gone.
    readers: Readers,
    /// Regions for records of chains in flight that are made for its front-ends: each is a file that
    /// stays for as long as somebody has it, or has not read the answer that it came with.
    regions: Allowance,
    /// For whoever asks who is there.
    front_end: FrontEnd,
    log: LogLimit,
}

/// Writes a log line that a peer caused, unless there were too many, and how many were left out
/// before it.
macro_rules! log {
    ($socket:expr, $level:ident, $error:expr, $text:literal) => {
        if let Some(suppressed) = $socket.log.admit_line() {
            let socket = $socket.path.display();
            tracing::$level!(%socket, error = %$error, suppressed, $text);
        }
    };
    ($socket:expr, $level:ident, $text:literal) => {
        if let Some(suppressed) = $socket.log.admit_line() {
            let socket = $socket.path.display();
            tracing::$level!(%socket, suppressed, $text);
        }
    };
}

impl Socket {
    /// A socket that starts to wait for its front-end.
    pub(super) fn new(
        id: u32,
        path: PathBuf,
        epoll: Arc<Epoll>,
        time: Time,
        role: Role,
        mut device: Device,
        front_end: FrontEnd,
    ) -> std::io::Result<Self> {
        if let Role::Server { listener, .. } = &role {
            epoll.add(listener, Source::Listener(id).token(), Interest::READ)?;
        }
        device.backend.attached(Watcher::new(Arc::clone(&epoll), id));
        Ok(Self {
            id,
            path,
            epoll,
            time,
            role,
            device,
            link: None,
            closer: Closer::default(),
            readers: Readers::default(),
            regions: Allowance::new(REGIONS, REGION_PAUSE, Instant::now()),
            front_end,
            log: LogLimit::default(),
        })
    }
}

impl Member for Socket {
    fn path(&self) -> &Path {
        &self.path
    }

    fn deadline(&self) -> Option<Instant> {
        let session = self.link.as_ref().and_then(|link| link.session.deadline());
        [self.role.deadline(), session].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.session.on_deadline(&mut self.device, now);
        }
        if self.role.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match &mut self.role {
            Role::Server { listener, resting } => {
                // If it fails, it is tried again after another rest.
                let added =
                    self.epoll.add(&*listener, Source::Listener(self.id).token(), Interest::READ);
                *resting = added.is_err().then_some(now + REST);
            }
            Role::Client { .. } => self.begin_to_connect(now),
        }
    }

    /// Accepts whoever waits, or takes what came of connecting.
    fn on_listener(&mut self, now: Instant) {
        if matches!(self.role, Role::Client { .. }) {
            return self.end_of_attempt(now);
        }
        for _ in 0..BURST {
            let Role::Server { listener, .. } = &self.role else { return };
            if self.closer.is_behind() {
                return self.rest(now);
            }
            match listener.accept() {
                Ok(Some(socket)) => {
                    let socket = PeerFd::new(socket, self.closer.clone());
                    // A front-end that was started again may knock before its end was noticed. It
                    // ended before it knocked, so that looking after accepting is never too early.
                    self.on_connection(now);
                    if self.link.is_none() {
                        self.open(socket, now);
                    } else {
                        drop(socket);
                        log!(self, warn, "a second front-end was refused: one is connected");
                    }
                }
                Ok(None) => return,
                Err(errno) => {
                    let error = eal::files::explain(errno);
                    log!(self, warn, error, "cannot accept a connection; trying again soon");
                    return self.rest(now);
                }
            }
        }
    }

    /// Serves the front-end.
    fn on_connection(&mut self, now: Instant) {
        if self.link.is_none() {
            return;
        }
        match self.serve() {
            Ok(()) => return,
            Err(Ended::Connection(ConnectionError::Closed)) => {
                self.report_end();
            }
            Err(error) => log!(self, warn, error, "the connection to the front-end is closed"),
        }
        self.close(now);
    }

    fn on_watch(&mut self, token: u16, _now: Instant) {
        self.device.backend.kicked(token);
        self.serve_channel();
    }

    fn on_channel(&mut self) {
        self.serve_channel();
    }

    /// Lets go of the front-end; the device has stopped all rings then.
    fn close(&mut self, now: Instant) {
        let Some(mut link) = self.link.take() else { return };
        self.front_end.set(0);
        link.forget_notifications(&self.epoll);
        // Closing it would do as well, but that the device may take its time before.
        let _ = self.epoll.remove(&link.connection);
        link.session.close(&mut self.device);
        if let Role::Client { retry, .. } = &mut self.role {
            retry.ended(link.since, now);
        }
    }
}

impl Socket {
    /// Says that the front-end has gone, and why that may be where it never started.
    fn report_end(&mut self) {
        let unused = self.link.as_ref().is_some_and(|link| !link.session.was_in_use());
        let Some(advice) = self.device.backend.advice().filter(|_| unused) else {
            log!(self, info, "the front-end has disconnected");
            return;
        };
        if let Some(suppressed) = self.log.admit_line() {
            let socket = self.path.display();
            tracing::info!(
                %socket,
                suppressed,
                "the front-end has disconnected before it accepted features; if it ended by itself: \
                 {advice}"
            );
        }
    }

    /// Sends what the device has to tell the front-end, as far as it takes that.
    fn serve_channel(&mut self) {
        let Some(link) = &mut self.link else { return };
        let Some(channel) = &mut link.channel else { return };
        let negotiated = link.session.protocol_features();
        let notifications = link.session.notifications().map(Arc::as_ref);
        let served = channel.serve(&mut *self.device.backend, negotiated, notifications);
        let Err(error) = served else { return };
        link.channel = None;
        // As a rule the connection goes at the same time, and that is told.
        if !matches!(error, ChannelError::Connection(ConnectionError::Closed)) {
            log!(self, warn, error, "the channel for messages of the back-end is closed");
        }
    }

    /// Leaves the listening socket alone for a while: it is readable until somebody accepts.
    fn rest(&mut self, now: Instant) {
        let Role::Server { listener, resting } = &mut self.role else { return };
        let _ = self.epoll.remove(&*listener);
        *resting = Some(now + REST);
    }

    fn begin_to_connect(&mut self, now: Instant) {
        let Role::Client { retry, attempt, connector, .. } = &mut self.role else { return };
        if self.closer.is_behind() {
            return retry.failed(now);
        }
        match connector.begin(self.id, self.path.clone(), &self.closer) {
            Ok(begun) => *attempt = Some(begun),
            Err(error) => {
                retry.failed(now);
                log!(self, warn, error, "cannot try to connect to the front-end; trying on");
            }
        }
    }

    fn end_of_attempt(&mut self, now: Instant) {
        let Role::Client { retry, complained, attempt, .. } = &mut self.role else { return };
        let Some(connected) = attempt.as_ref().and_then(Attempt::result) else { return };
        *attempt = None;
        match connected {
            Ok(Some(socket)) => {
                retry.connected();
                *complained = false;
                self.open(socket, now);
            }
            Ok(None) => retry.failed(now),
            Err(error) => {
                retry.failed(now);
                if !std::mem::replace(complained, true) {
                    log!(self, warn, error, "cannot connect to the front-end; trying on");
                }
            }
        }
    }

    fn open(&mut self, socket: PeerFd, now: Instant) {
        let token = Source::Connection(self.id).token();
        let process = eal::access::peer_process(&socket);
        let connection = Connection::over(socket).map_err(Ended::from).and_then(|connection| {
            self.epoll.add(&connection, token, Interest::READ)?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => {
                log!(self, info, "a front-end has connected");
                self.front_end.set(process.unwrap_or(0));
                let session = Session::open(&mut self.device).with_time(self.time.clone());
                let interest = Interest::READ;
                self.link = Some(Link {
                    connection,
                    session,
                    since: now,
                    interest,
                    channel: None,
                    notifications: None,
                });
            }
            Err(error) => {
                log!(self, warn, error, "a connection cannot be used");
                if let Role::Client { retry, .. } = &mut self.role {
                    retry.failed(now);
                }
            }
        }
    }

    /// Handles a burst of messages. While replies wait for a front-end that does not read them,
    /// none of its requests are read.
    fn serve(&mut self) -> Result<(), Ended> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if self.closer.is_behind() {
            return Err(Ended::Behind);
        }
        link.connection.flush()?;
        let begun = Instant::now();
        for _ in 0..BURST {
            if link.connection.wants_write() || begun.elapsed() >= TURN {
                break;
            }
            let Some(message) = link.connection.receive()? else { break };
            let request = message.header.request;
            let answer = link.session.handle(&mut self.device, message)?;
            let attached = answer.attached.as_ref().map(AsFd::as_fd);
            match answer.reply {
                Some(Reply::Inflight(region)) if !self.regions.take(begun) => {
                    // By which a back-end says that it keeps no records.
                    let none = Reply::Inflight(InflightRegion { size: 0, ..region });
                    link.reply(request, &none, None)?;
                    log!(
                        self,
                        warn,
                        "a front-end gets no region for chains in flight: too many asked"
                    );
                }
                Some(reply) => link.reply(request, &reply, attached)?,
                None => {}
            }
            link.wait_for_notifications(&self.epoll, self.id)?;
            if let Some(socket) = answer.channel {
                // The old one first, so that its messages do not overtake.
                link.channel = None;
                self.device.backend.channel_changed();
                match Channel::open(socket, &self.epoll, self.id, &self.readers) {
                    Ok(channel) => link.channel = Some(channel),
                    Err(error) => log!(self, warn, error, "the channel cannot be used"),
                }
            }
            if let Some(refused) = answer.refused {
                log!(self, warn, refused, "a message of the front-end is refused");
            }
        }
        self.serve_channel();
        self.wait_for_turn()
    }

    /// Waits for messages, or until replies that wait find room.
    fn wait_for_turn(&mut self) -> Result<(), Ended> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let interest = if link.connection.wants_write() { Interest::WRITE } else { Interest::READ };
        if interest != link.interest {
            let token = Source::Connection(self.id).token();
            self.epoll.modify(&link.connection, token, interest)?;
            link.interest = interest;
        }
        Ok(())
    }
}
