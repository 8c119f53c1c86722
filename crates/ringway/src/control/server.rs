//! The switch's end of the control socket: one thread, one poll loop, bounds on everything that
//! a client decides.
//!
//! A client has at most one request in work and one answer under way; while it does not read,
//! nothing more is read from it. A line that does not end, an answer that is not fetched, and
//! clients beyond [`Limits::clients`] are cut off. Patience is by the switch's clock; it may be moved
//! over this very socket.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use eal::time::Alarm;
use eal::unix::Listener;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::event::Topic;
use super::protocol::{Request, Response};
use super::refusal::{Code, Refusal};

/// What a client may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time that have asked something; one more takes the place of the one that has
    /// been quiet longest. As many may have asked nothing yet, such as those by which another switch
    /// sees whether this one lives: they take nobody's place.
    pub clients: usize,
    /// Bytes of one request with its newline.
    pub line: usize,
    /// How long a request may stay incomplete, and an answer unread.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { clients: 16, line: 64 << 10, patience: Duration::from_secs(5) }
    }
}

/// How long no connection is accepted after the system refused one (no file descriptors left). By the
/// system's clock: whoever has stopped the other must be able to connect and move it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What ended a wait, beside clients.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    stopped: bool,
    noticed: bool,
}

/// What becomes of a connection that is no more for requests.
pub struct Takeover(Box<dyn FnOnce(UnixStream) + Send>);

impl Takeover {
    /// `take` gets the connection, once the answer is written.
    pub fn new(take: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        Self(Box::new(take))
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takeover(..)")
    }
}

/// What is served.
pub trait Serve {
    /// Answers a request.
    fn handle(&mut self, request: Request) -> Result<Value, Refusal>;

    /// Has connection `client` told events about these topics, and of drops at `drop_rate` or more.
    fn subscribe(
        &mut self,
        client: u64,
        topics: Vec<Topic>,
        drop_rate: u64,
    ) -> Result<Value, Refusal> {
        let _ = (client, topics, drop_rate);
        Err(Refusal::new(Code::Unsupported, "there are no events here"))
    }

    /// `client`, which had subscribed, has gone.
    fn unsubscribe(&mut self, client: u64) {
        let _ = client;
    }

    /// The lines with events that `client` is to be sent next, if there are any.
    fn events(&mut self, client: u64) -> Option<String> {
        let _ = client;
        None
    }

    /// Asked after each request that was answered well: who gets the connection that it came on, if
    /// it is to be for something else from now on.
    fn takeover(&mut self) -> Option<Takeover> {
        None
    }

    /// There is something to notice; makes that unreadable again.
    fn notice(&mut self);

    /// How long until there is something to do without a request.
    fn next_turn(&self) -> Option<Duration>;

    /// Does that; called whenever something has happened, too.
    fn turn(&mut self);

    /// What else is to be waited for; a [turn](Self::turn) follows.
    fn files(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        Vec::new()
    }

    /// Whether serving is to end.
    fn is_done(&self) -> bool {
        false
    }
}

/// Serves the control socket.
#[derive(Debug)]
pub struct Server<S> {
    listener: Listener,
    limits: Limits,
    clients: Vec<Client>,
    accept_after: Option<Instant>,
    alarm: Alarm,
    /// How often clients were served.
    round: u64,
    /// How many connections there have been.
    accepted: u64,
    served: S,
}

impl<S: Serve> Server<S> {
    /// A server on `listener`, which waits for clients by `alarm`.
    pub const fn new(listener: Listener, limits: Limits, alarm: Alarm, served: S) -> Self {
        let clients = Vec::new();
        Self { listener, limits, clients, accept_after: None, alarm, round: 0, accepted: 0, served }
    }

    /// Closes the socket.
    pub fn into_served(self) -> S {
        self.served
    }

    /// Serves until `stop` becomes readable; then answers that are under way are given up.
    /// `noticed` is readable whenever there is something to [notice](Serve::notice).
    pub fn run(&mut self, stop: BorrowedFd<'_>, noticed: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let woken = self.poll_once(stop, noticed)?;
            if woken.stopped {
                return Ok(());
            }
            if woken.noticed {
                self.served.notice();
            }
            self.serve();
            self.served.turn();
            self.tell();
            if self.served.is_done() {
                return Ok(());
            }
        }
    }

    /// Waits for something to do. Readiness of the clients is stored in them.
    fn poll_once(&mut self, stop: BorrowedFd<'_>, noticed: BorrowedFd<'_>) -> io::Result<Woken> {
        if self.accept_after.is_some_and(|until| until <= Instant::now()) {
            self.accept_after = None;
        }
        let accept = if self.accept_after.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let timeout = self.timeout();
        let mut fds = Vec::with_capacity(4 + self.clients.len());
        fds.push(PollFd::from_borrowed_fd(stop, PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(noticed, PollFlags::IN));
        fds.push(PollFd::new(&self.listener, accept));
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.stream, client.wants())));
        // Last, so that what is ready of it is nobody's.
        fds.extend(self.alarm.moved().map(|moved| PollFd::from_borrowed_fd(moved, PollFlags::IN)));
        let others = self.served.files();
        fds.extend(others.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Woken::default()),
            Err(error) => return Err(error.into()),
        }
        let mut events = fds.iter().map(PollFd::revents);
        let mut is_ready = || events.next().is_some_and(|flags| !flags.is_empty());
        let woken = Woken { stopped: is_ready(), noticed: is_ready() };
        let connecting = is_ready();
        let ready: Vec<PollFlags> = events.collect();
        for (client, flags) in self.clients.iter_mut().zip(ready) {
            client.ready = flags;
        }
        self.alarm.heed();
        if connecting && !woken.stopped {
            self.accept();
        }
        Ok(woken)
    }

    /// How long to wait for clients: until one has to be cut off, or a request may be served.
    fn timeout(&self) -> Option<Duration> {
        if self.clients.iter().any(Client::has_request) {
            return Some(Duration::ZERO);
        }
        let deadlines = self.clients.iter().filter_map(|client| client.deadline(&self.limits));
        let next = deadlines.min().and_then(|next| self.alarm.until(next));
        let accept = self.accept_after.map(|at| at.saturating_duration_since(Instant::now()));
        [next, accept, self.served.next_turn()].into_iter().flatten().min()
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok(None) => {}
            Ok(Some(socket)) => {
                if self.count(false) >= self.limits.clients {
                    self.evict(false);
                }
                let (now, round) = (self.alarm.now(), self.round);
                self.accepted = self.accepted.wrapping_add(1);
                self.clients.push(Client::new(self.accepted, socket.into(), now, round));
            }
            Err(errno) => {
                let error = eal::files::explain(errno);
                tracing::warn!("control socket: cannot accept a connection: {error}");
                self.accept_after = Instant::now().checked_add(ACCEPT_PAUSE);
            }
        }
    }

    /// How many have asked something, or have not.
    fn count(&self, has_asked: bool) -> usize {
        self.clients.iter().filter(|client| client.has_asked == has_asked).count()
    }

    /// Sends what there is for those who have subscribed, as far as they have taken what was sent.
    fn tell(&mut self) {
        let now = (self.alarm.now(), self.round);
        let Self { clients, served, .. } = self;
        let subscribers = clients.iter_mut().filter(|client| client.has_subscribed);
        for client in subscribers.filter(|client| client.output.is_empty() && !client.ended) {
            if let Some(lines) = served.events(client.id) {
                client.output = lines.into_bytes();
                client.is_told = true;
                client.write(now);
            }
        }
    }

    /// Closes that connection of those which has been quiet longest; one that has subscribed only
    /// where there is no other.
    fn evict(&mut self, has_asked: bool) {
        let those = self.clients.iter().enumerate();
        let those = those.filter(|(_, client)| client.has_asked == has_asked);
        let quietest = those.min_by_key(|(_, client)| (client.has_subscribed, client.heard));
        if let Some((index, _)) = quietest {
            tracing::debug!("control socket: too many connections, closing the quietest");
            let client = self.clients.swap_remove(index);
            if client.has_subscribed {
                self.served.unsubscribe(client.id);
            }
        }
    }

    /// One step for each client: at most one read, one request, one write.
    fn serve(&mut self) {
        let now = self.alarm.now();
        self.round = self.round.saturating_add(1);
        for client in &mut self.clients {
            client.step((now, self.round), &self.limits, &mut self.served);
        }
        while self.count(true) > self.limits.clients {
            self.evict(true);
        }
        let Self { clients, limits, served, .. } = self;
        clients.retain(|client| {
            let late = client.deadline(limits).is_some_and(|deadline| deadline <= now);
            if late {
                tracing::debug!("control socket: closing a connection that does not get on");
            }
            let stays = !late && !client.is_done();
            if !stays && client.has_subscribed {
                served.unsubscribe(client.id);
            }
            stays
        });
    }
}

/// One connection.
#[derive(Debug)]
struct Client {
    id: u64,
    stream: UnixStream,
    ready: PollFlags,
    /// Bytes read that are not yet a served request.
    input: Vec<u8>,
    /// The answer under way, and how much of it is written.
    output: Vec<u8>,
    written: usize,
    /// When it last made progress, and in which round: the clock may stand still.
    active: Instant,
    heard: u64,
    /// It has sent something.
    has_asked: bool,
    /// It is told events.
    has_subscribed: bool,
    /// What is under way to it are events: it may take its time.
    is_told: bool,
    /// Who gets the connection when the answer is written.
    takeover: Option<Takeover>,
    /// Nothing more will come from it.
    ended: bool,
    /// It is of no use any more.
    broken: bool,
}

impl Client {
    const fn new(id: u64, stream: UnixStream, now: Instant, round: u64) -> Self {
        Self {
            id,
            stream,
            ready: PollFlags::empty(),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            active: now,
            heard: round,
            has_asked: false,
            has_subscribed: false,
            is_told: false,
            takeover: None,
            ended: false,
            broken: false,
        }
    }

    fn wants(&self) -> PollFlags {
        if !self.output.is_empty() {
            PollFlags::OUT
        } else if self.ended {
            PollFlags::empty()
        } else {
            PollFlags::IN
        }
    }

    /// A whole request waits and may be served.
    fn has_request(&self) -> bool {
        self.output.is_empty() && self.input.contains(&b'\n')
    }

    fn is_done(&self) -> bool {
        self.broken || (self.ended && self.output.is_empty() && !self.has_request())
    }

    /// When it is cut off, unless it gets on until then.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let answering = !self.output.is_empty() && !self.is_told;
        let asking = self.output.is_empty() && !self.input.is_empty() && !self.has_request();
        let waiting = answering || asking;
        if waiting { self.active.checked_add(limits.patience) } else { None }
    }

    /// It has got on.
    const fn note(&mut self, (now, round): (Instant, u64)) {
        self.active = now;
        self.heard = round;
    }

    fn step(&mut self, now: (Instant, u64), limits: &Limits, served: &mut impl Serve) {
        if self.output.is_empty() && !self.ready.is_empty() && !self.has_request() {
            self.read(now, limits);
        }
        if self.has_request() {
            self.answer(served);
            self.note(now);
        } else if self.output.is_empty() && self.input.len() >= limits.line {
            let message = format!("a request may have at most {} bytes", limits.line);
            self.respond(&Response::Error(Refusal::new(Code::TooLong, message)));
            // What follows is the rest of that line: there is no way back to a request's start.
            self.input.clear();
            self.ended = true;
        }
        if !self.output.is_empty() {
            self.write(now);
        }
        self.ready = PollFlags::empty();
    }

    fn read(&mut self, now: (Instant, u64), limits: &Limits) {
        let mut chunk = [0; 4096];
        let room = limits.line.saturating_sub(self.input.len()).min(chunk.len());
        let Some(chunk) = chunk.get_mut(..room) else { return };
        match self.stream.read(chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                // A line's time runs from its first byte: a byte now and then does not help.
                if self.input.is_empty() {
                    self.note(now);
                }
                self.has_asked = true;
                self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
    }

    fn answer(&mut self, served: &mut impl Serve) {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { return };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(Request::Subscribe { topics, drop_rate }) => {
                let subscribed = served.subscribe(self.id, topics, drop_rate);
                self.has_subscribed |= subscribed.is_ok();
                subscribed
            }
            Ok(request) => {
                let answer = served.handle(request);
                if answer.is_ok() {
                    self.takeover = served.takeover();
                }
                answer
            }
            Err(error) => Err(Refusal::new(Code::BadRequest, format!("bad request: {error}"))),
        };
        self.respond(&response.map_or_else(Response::Error, Response::Ok));
    }

    fn respond(&mut self, response: &Response) {
        match serde_json::to_vec(response) {
            Ok(mut line) => {
                line.push(b'\n');
                self.output = line;
                self.written = 0;
                self.is_told = false;
            }
            Err(error) => {
                tracing::error!("control socket: cannot write an answer: {error}");
                self.broken = true;
            }
        }
    }

    fn write(&mut self, now: (Instant, u64)) {
        let rest = self.output.get(self.written..).unwrap_or_default();
        match self.stream.write(rest) {
            Ok(0) => self.broken = true,
            Ok(count) => {
                self.note(now);
                self.written = self.written.saturating_add(count);
                if self.written >= self.output.len() {
                    self.output = Vec::new();
                    self.written = 0;
                    self.give_away();
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
    }
}

impl Client {
    /// Gives the connection to somebody else, if it is no more for requests.
    fn give_away(&mut self) {
        let Some(Takeover(take)) = self.takeover.take() else { return };
        match self.stream.try_clone() {
            Ok(stream) => take(stream),
            Err(error) => tracing::warn!("control socket: {error}"),
        }
        self.broken = true;
    }
}

#[cfg(test)]
impl<S> Server<S> {
    /// Number of connections now.
    fn connections(&self) -> usize {
        self.clients.len()
    }
}

#[cfg(test)]
mod tests;
