//! Serves metrics to whoever may connect: in the turns of somebody else's loop, with bounds on all
//! that a client decides.
//!
//! A client has one answer under way; while it does not take that, nothing more is read from it. A
//! request that does not end and an answer that is not taken end their connection, however little
//! of it comes meanwhile. Where all places are taken, a connection that waits for its next request
//! makes room; whoever is being served does not. All that ask in the same turn get the same text.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::closer::{Closer, PeerFd};
use eal::time::Time;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use super::http::{MAX_HEAD, Request};
use super::listener::Listener;
use super::text::Format;

/// Connections at a time.
const CLIENTS: usize = 8;

/// How long a request may take to come, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nobody is accepted after the system had no file left for one, or while files of clients
/// are still being closed.
const PAUSE: Duration = Duration::from_millis(100);

/// The most descriptors that come with one message (unix(7), SCM_RIGHTS).
const MAX_RIGHTS: usize = 253;

/// Serves metrics.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    clients: Vec<Client>,
    time: Time,
    accept_after: Option<Instant>,
    /// Closes what clients have put into their sockets, which may take its time.
    closer: Closer,
}

/// The texts of a turn.
#[derive(Debug, Default)]
struct Pages([Option<Arc<String>>; 2]);

impl Pages {
    fn get(&mut self, format: Format, write: &mut impl FnMut(Format) -> String) -> Arc<String> {
        let [open, older] = &mut self.0;
        let page = match format {
            Format::OpenMetrics => open,
            Format::Prometheus => older,
        };
        Arc::clone(page.get_or_insert_with(|| Arc::new(write(format))))
    }
}

impl Server {
    /// One that serves those who connect to `listener`, with patience by `time`.
    pub fn new(listener: Listener, time: Time) -> Self {
        let (clients, closer) = (Vec::new(), Closer::default());
        Self { listener, clients, time, accept_after: None, closer }
    }

    /// What is to be polled, and for what.
    pub fn files(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| (client.socket.as_fd(), client.interest()));
        let listens = self.has_room() && self.accept_after.is_none();
        let accept = if listens { PollFlags::IN } else { PollFlags::empty() };
        std::iter::once((self.listener.as_fd(), accept)).chain(clients)
    }

    /// How long until there is something to do although nothing can be polled.
    pub fn next_turn(&self) -> Option<Duration> {
        if self.clients.iter().any(Client::has_request) {
            return Some(Duration::ZERO);
        }
        let late = self.clients.iter().filter_map(Client::deadline);
        let next = late.chain(self.accept_after).min();
        next.and_then(|next| self.time.until(next))
    }

    /// Serves what has come, without waiting; `write` makes the text.
    pub fn turn(&mut self, mut write: impl FnMut(Format) -> String) {
        let now = self.time.now();
        if self.accept_after.is_some_and(|until| until <= now) {
            self.accept_after = None;
        }
        self.accept(now);
        let mut pages = Pages::default();
        self.clients.retain_mut(|client| {
            let result = client.step(now, &mut |format| pages.get(format, &mut write));
            let late = client.deadline().is_some_and(|deadline| deadline <= now);
            match result {
                Ok(()) if late => {
                    tracing::debug!("metrics: closing a connection that does not get on");
                    false
                }
                Ok(()) => true,
                Err(errno) => {
                    tracing::debug!("metrics: a connection has ended: {errno}");
                    false
                }
            }
        });
    }

    fn has_room(&self) -> bool {
        self.clients.len() < CLIENTS || self.clients.iter().any(Client::is_idle)
    }

    fn accept(&mut self, now: Instant) {
        if !self.has_room() || self.accept_after.is_some() {
            return;
        }
        if self.closer.is_behind() {
            self.accept_after = now.checked_add(PAUSE);
            return;
        }
        match self.listener.accept() {
            Ok(None) => {}
            Ok(Some(socket)) => {
                if self.clients.len() >= CLIENTS {
                    let idle = self.clients.iter().position(Client::is_idle);
                    idle.map(|index| self.clients.remove(index));
                }
                self.clients.push(Client::new(PeerFd::new(socket, self.closer.clone()), now));
            }
            Err(errno) => {
                let error = eal::files::explain(errno);
                tracing::warn!("metrics: cannot accept a connection: {error}");
                self.accept_after = now.checked_add(PAUSE);
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Client {
    socket: PeerFd,
    input: Vec<u8>,
    /// The answer under way, and how much of it is sent.
    head: String,
    body: Arc<String>,
    sent: usize,
    /// Since when it has something to do: its request, or its answer.
    since: Option<Instant>,
    /// Whether it may ask again.
    stays: bool,
}

impl Client {
    fn new(socket: PeerFd, now: Instant) -> Self {
        let (input, head, body) = (Vec::new(), String::new(), Arc::default());
        Self { socket, input, head, body, sent: 0, since: Some(now), stays: true }
    }

    /// It has had its answer and may ask again.
    const fn is_idle(&self) -> bool {
        self.since.is_none()
    }

    fn deadline(&self) -> Option<Instant> {
        self.since.and_then(|since| since.checked_add(PATIENCE))
    }

    /// A whole request has come while the one before was answered.
    fn has_request(&self) -> bool {
        !self.is_answering() && !self.input.is_empty() && Request::read(&self.input).is_some()
    }

    const fn is_answering(&self) -> bool {
        !self.head.is_empty()
    }

    const fn interest(&self) -> PollFlags {
        if self.is_answering() { PollFlags::OUT } else { PollFlags::IN }
    }

    /// One read, one request, one write; an error ends the connection.
    fn step(
        &mut self,
        now: Instant,
        page: &mut impl FnMut(Format) -> Arc<String>,
    ) -> Result<(), Errno> {
        if !self.is_answering() {
            self.read(now)?;
            if let Some(request) = Request::read(&self.input).filter(|_| !self.input.is_empty()) {
                self.input.drain(..request.len.min(self.input.len()));
                self.answer(&request, page);
                self.since = Some(now);
            }
        }
        if self.is_answering() { self.write(now) } else { Ok(()) }
    }

    fn answer(&mut self, request: &Request, page: &mut impl FnMut(Format) -> Arc<String>) {
        let body = match request.wants {
            Ok(format) => page(format),
            Err(refusal) => Arc::new(refusal.text().to_owned()),
        };
        self.head = request.head(body.len());
        self.body = if request.head_only { Arc::default() } else { body };
        self.sent = 0;
        self.stays = request.stays;
    }

    /// Reads what there is room for. Descriptors are none of HTTP, and to close them may take long,
    /// so they are taken to be closed elsewhere.
    fn read(&mut self, now: Instant) -> Result<(), Errno> {
        let mut chunk = [0; 4096];
        let room = MAX_HEAD.saturating_sub(self.input.len()).min(chunk.len());
        let Some(part) = chunk.get_mut(..room).filter(|part| !part.is_empty()) else {
            return Ok(());
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_RIGHTS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut parts = [IoSliceMut::new(part)];
        let received = match recvmsg(&self.socket, &mut parts, &mut control, flags) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            other => other?,
        };
        let mut has_rights = false;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                has_rights = true;
                rights.for_each(|file| self.socket.closer().close(file));
            }
        }
        if received.bytes == 0 || has_rights {
            return Err(Errno::CONNRESET);
        }
        self.since.get_or_insert(now);
        self.input.extend_from_slice(chunk.get(..received.bytes).unwrap_or_default());
        Ok(())
    }

    /// Sends as much as goes; at the end there may be another request.
    fn write(&mut self, now: Instant) -> Result<(), Errno> {
        loop {
            let head = self.head.as_bytes();
            let body = self.sent.saturating_sub(head.len());
            let rest = match head.get(self.sent..).filter(|rest| !rest.is_empty()) {
                Some(rest) => rest,
                None => self.body.as_bytes().get(body..).unwrap_or_default(),
            };
            if rest.is_empty() {
                break;
            }
            match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        (self.head, self.body) = (String::new(), Arc::default());
        if !self.stays {
            return Err(Errno::SHUTDOWN);
        }
        // What has come of the next one has its time from now on.
        self.since = (!self.input.is_empty()).then_some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
