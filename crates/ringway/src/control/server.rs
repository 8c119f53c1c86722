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
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::AsFd as _;
    use std::path::PathBuf;
    use std::thread::JoinHandle;

    use eal::time::Time;
    use serde_json::json;

    use super::super::listener::listen;
    use super::*;

    /// A server on a thread of its own; `stop` ends it.
    struct Running {
        path: PathBuf,
        time: Time,
        stop: UnixStream,
        thread: Option<JoinHandle<usize>>,
        _dir: tempfile::TempDir,
    }

    impl Running {
        fn start(limits: Limits) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            let listener = listen(&path, eal::Access::default()).unwrap();
            let (stop, stopped) = UnixStream::pair().unwrap();
            let quiet = eal::event::EventFd::new().unwrap();
            let time = Time::stopped();
            let alarm = time.alarm().unwrap();
            let thread = std::thread::spawn(move || {
                let mut server = Server::new(listener, limits, alarm, Answers::default());
                server.run(stopped.as_fd(), quiet.as_fd()).unwrap();
                server.connections()
            });
            Self { path, time, stop, thread: Some(thread), _dir: dir }
        }

        fn connect(&self) -> BufReader<UnixStream> {
            let stream = UnixStream::connect(&self.path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            BufReader::new(stream)
        }

        /// Has time go on until nothing more comes from `client`, and returns what did.
        fn outwait(&self, client: &mut BufReader<UnixStream>) -> Vec<u8> {
            let (mut all, mut part) = (Vec::new(), vec![0; 1 << 20]);
            client.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            while Instant::now() < end {
                self.time.warp(Limits::default().patience);
                match client.read(&mut part) {
                    Ok(0) => return all,
                    Ok(count) => all.extend(&part[..count]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            panic!("it is still there");
        }

        /// Ends it and returns how many connections there were.
        fn end(mut self) -> usize {
            self.stop.write_all(b"x").unwrap();
            self.thread.take().unwrap().join().unwrap()
        }
    }

    #[derive(Default)]
    struct Answers {
        /// For each subscriber what it is to be sent.
        events: BTreeMap<u64, String>,
    }

    impl Serve for Answers {
        fn handle(&mut self, request: Request) -> Result<Value, Refusal> {
            match request {
                Request::Info {} => Ok(json!({"version": "test"})),
                // A big answer: it does not fit into a socket's buffer.
                Request::ShowFdb {} => Ok(json!("x".repeat(4 << 20))),
                Request::FdbFlush { .. } => {
                    self.events.values_mut().for_each(|lines| *lines += "{\"event\":1}\n");
                    Ok(json!({}))
                }
                Request::ShowWorkers {} => Ok(json!(self.events.len())),
                other => Err(Refusal::new(Code::NotFound, format!("no {other:?}"))),
            }
        }

        fn subscribe(&mut self, client: u64, _: Vec<Topic>, size: u64) -> Result<Value, Refusal> {
            let lines = "x".repeat(usize::try_from(size).unwrap());
            self.events.insert(client, lines);
            Ok(json!({}))
        }

        fn unsubscribe(&mut self, client: u64) {
            assert!(self.events.remove(&client).is_some());
        }

        fn events(&mut self, client: u64) -> Option<String> {
            let lines = std::mem::take(self.events.get_mut(&client).unwrap());
            (!lines.is_empty()).then_some(lines)
        }

        fn notice(&mut self) {
            unreachable!()
        }

        fn next_turn(&self) -> Option<Duration> {
            None
        }

        fn turn(&mut self) {}
    }

    fn line(client: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        line
    }

    fn send(client: &mut BufReader<UnixStream>, bytes: &[u8]) {
        client.get_mut().write_all(bytes).unwrap();
    }

    #[test]
    fn requests_are_answered_in_order() {
        let server = Running::start(Limits::default());
        let mut client = server.connect();
        send(
            &mut client,
            b"{\"command\":\"info\"}\n{\"command\":\"show-ports\"}\nnonsense\n{\"comm",
        );
        assert_eq!(line(&mut client), "{\"ok\":{\"version\":\"test\"}}\n");
        assert_eq!(line(&mut client), "{\"error\":\"no ShowPorts\",\"code\":\"not-found\"}\n");
        assert!(line(&mut client).starts_with("{\"error\":\"bad request: "));
        send(&mut client, b"and\":\"info\"}\n");
        assert_eq!(line(&mut client), "{\"ok\":{\"version\":\"test\"}}\n");
        assert_eq!(server.end(), 1);
    }

    #[test]
    fn a_client_that_has_finished_sending_still_gets_its_answers() {
        let server = Running::start(Limits::default());
        let mut client = server.connect();
        send(&mut client, b"{\"command\":\"show-fdb\"}\n{\"command\":\"info\"}\n");
        client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(line(&mut client).len(), (4 << 20) + "{\"ok\":\"\"}\n".len());
        assert_eq!(line(&mut client), "{\"ok\":{\"version\":\"test\"}}\n");
        assert_eq!(line(&mut client), "");
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let server = Running::start(Limits { line: 1000, ..Limits::default() });
        let mut client = server.connect();
        send(&mut client, &[b' '; 1000]);
        assert_eq!(
            line(&mut client),
            "{\"error\":\"a request may have at most 1000 bytes\",\"code\":\"too-long\"}\n"
        );
        assert_eq!(line(&mut client), "");
        assert_eq!(server.end(), 0);
    }

    #[test]
    fn slow_clients_are_cut_off_when_it_is_time_and_harm_nobody() {
        let server = Running::start(Limits::default());
        let mut half_line = server.connect();
        send(&mut half_line, b"{\"command\"");
        // This one does not read its answer.
        let mut deaf = server.connect();
        send(&mut deaf, b"{\"command\":\"show-fdb\"}\n");
        let mut quiet = server.connect();
        send(&mut quiet, b"{\"command\":\"info\"}\n");
        assert_eq!(line(&mut quiet), "{\"ok\":{\"version\":\"test\"}}\n");
        assert_eq!(server.outwait(&mut half_line), b"");
        // When this one's time is over, the deaf one's is, too; the quiet one may stay.
        let mut later = server.connect();
        send(&mut later, b"{\"command\":\"info\"}\n{");
        assert_eq!(line(&mut later), "{\"ok\":{\"version\":\"test\"}}\n");
        assert_eq!(server.outwait(&mut later), b"");
        let mut rest = Vec::new();
        deaf.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < 4 << 20);
        send(&mut quiet, b"{\"command\":\"info\"}\n");
        assert_eq!(line(&mut quiet), "{\"ok\":{\"version\":\"test\"}}\n");
        assert_eq!(server.end(), 1);
    }

    #[test]
    fn one_client_too_many_takes_the_place_of_the_quietest() {
        let server = Running::start(Limits { clients: 2, ..Limits::default() });
        let ask = |client: &mut BufReader<UnixStream>| {
            send(client, b"{\"command\":\"info\"}\n");
            line(client)
        };
        let mut first = server.connect();
        assert!(!ask(&mut first).is_empty());
        let mut second = server.connect();
        assert!(!ask(&mut second).is_empty());
        assert!(!ask(&mut first).is_empty());
        let mut third = server.connect();
        assert!(!ask(&mut third).is_empty());
        assert_eq!(line(&mut second), "");
        assert!(!ask(&mut first).is_empty());
        // Whoever says nothing, as a switch that only looks whether this one lives, harms nobody.
        let mut silent: Vec<_> = (0..3).map(|_| server.connect()).collect();
        assert_eq!(line(&mut silent[0]), "");
        assert!(!ask(&mut first).is_empty() && !ask(&mut third).is_empty());
        assert_eq!(server.end(), 4);
    }

    #[test]
    fn subscribers_are_told_and_a_deaf_one_stays_and_harms_nobody() {
        let server = Running::start(Limits { clients: 2, ..Limits::default() });
        let ask = |client: &mut BufReader<UnixStream>, request: &str| {
            send(client, format!("{{\"command\":{request}}}\n").as_bytes());
            line(client)
        };
        // More than its socket takes, which it does not read.
        let mut deaf = server.connect();
        assert_eq!(ask(&mut deaf, "\"subscribe\",\"drop_rate\":4000000"), "{\"ok\":{}}\n");
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "\"subscribe\",\"drop_rate\":0"), "{\"ok\":{}}\n");
        assert_eq!(ask(&mut client, "\"fdb-flush\""), "{\"ok\":{}}\n");
        assert_eq!(line(&mut client), "{\"event\":1}\n");
        // It may take its time, and answers come between events.
        server.time.warp(Limits::default().patience * 10);
        assert_eq!(ask(&mut client, "\"show-workers\""), "{\"ok\":2}\n");
        // Who has not subscribed makes room first.
        let mut other = server.connect();
        assert_eq!(ask(&mut other, "\"show-workers\""), "{\"ok\":2}\n");
        assert_eq!(line(&mut other), "");
        let mut all = vec![0; 4_000_000];
        deaf.read_exact(&mut all).unwrap();
        assert_eq!(line(&mut deaf), "{\"event\":1}\n");
        drop(deaf);
        let end = Instant::now() + Duration::from_secs(20);
        while ask(&mut client, "\"show-workers\"") != "{\"ok\":1}\n" {
            assert!(Instant::now() < end, "it is still subscribed");
        }
        assert_eq!(server.end(), 1);
    }
}
