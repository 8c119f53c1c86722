//! All connections, in one poll loop.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::Connection;
use crate::context::Context;
use crate::library::Functions;
use crate::order::{Order, Received, Trust, receive};
use crate::session::{PIECE, REFUSED, Session, tell};

/// Connections at a time; further ones are closed. A bridge has 128 at most.
const SESSIONS: usize = 1_024;

/// Orders that are taken in one turn.
const ORDERS: usize = 16;

/// What serves.
pub struct Worker {
    /// The library; or why there is none, which is then told for each connection.
    library: Result<&'static Functions, String>,
    contexts: Vec<Context>,
    sessions: Vec<Session>,
    piece: Vec<u8>,
}

impl Worker {
    /// One without connections, and with the library, if there is one.
    pub fn new() -> Self {
        let library = Functions::load().map(|library| &*Box::leak(Box::new(library)));
        Self { library, contexts: Vec::new(), sessions: Vec::new(), piece: vec![0; PIECE] }
    }

    /// Serves those that are handed over at `orders`, until nobody hands over any more.
    pub fn serve(mut self, orders: &OwnedFd) -> std::io::Result<()> {
        loop {
            let (has_orders, ended) = self.wait(orders)?;
            let now = Instant::now();
            let (piece, mut ended) = (&mut self.piece, ended.into_iter());
            self.sessions
                .retain_mut(|session| session.step(ended.next().unwrap_or_default(), piece, now));
            for _ in 0..if has_orders { ORDERS } else { 0 } {
                match receive(orders)? {
                    Received::Nothing => break,
                    Received::End => return Ok(()),
                    Received::Order(order, files) => self.take(order, files, now),
                }
            }
        }
    }

    /// Waits for something to do: whether there are orders, and of which connections the switch has closed
    /// its side.
    fn wait(&self, orders: &OwnedFd) -> std::io::Result<(bool, Vec<bool>)> {
        let spots: Vec<_> = self.sessions.iter().map(Session::spots).collect();
        let mut fds = vec![PollFd::from_borrowed_fd(orders.as_fd(), PollFlags::IN)];
        let all = spots.iter().flatten().flatten();
        fds.extend(all.map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        match poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = fds.iter().map(PollFd::revents);
        let has_orders = events.next().is_some_and(|events| !events.is_empty());
        let gone = PollFlags::HUP | PollFlags::ERR;
        let ended = spots.iter().map(|[peer, plain]| {
            peer.as_ref().and_then(|_| events.next());
            plain.as_ref().and_then(|_| events.next()).is_some_and(|events| events.intersects(gone))
        });
        Ok((has_orders, ended.collect()))
    }

    fn timeout(&self) -> Option<Timespec> {
        if self.sessions.iter().any(Session::is_busy) {
            return Some(Timespec::default());
        }
        let due = self.sessions.iter().filter_map(Session::due).min()?;
        Timespec::try_from(due.saturating_duration_since(Instant::now())).ok()
    }

    /// Begins with a connection, or tells why not.
    fn take(&mut self, order: Option<Order>, files: Vec<OwnedFd>, now: Instant) {
        let mut files = files.into_iter();
        let (Some(socket), Some(plain), Some(verdict)) = (files.next(), files.next(), files.next())
        else {
            return;
        };
        let files: Vec<File> = files.map(File::from).collect();
        let connection = self.connection(order.as_ref(), socket, &files);
        match (connection, order) {
            (Ok(connection), Some(order)) => {
                let asks = order.trust == Trust::First;
                self.sessions.push(Session::new(connection, plain, verdict, asks, now));
            }
            (Err(reason), _) => tell(&verdict, REFUSED, reason.as_bytes()),
            (Ok(_), None) => {}
        }
    }

    fn connection(
        &mut self,
        order: Option<&Order>,
        socket: OwnedFd,
        files: &[File],
    ) -> Result<Connection, String> {
        let order = order.ok_or("an order that is not understood")?;
        let library = self.library.clone()?;
        if self.sessions.len() >= SESSIONS {
            return Err(format!("there are {SESSIONS} connections with TLS already"));
        }
        let context = Context::get(&mut self.contexts, library, order, files)?;
        Connection::new(context, socket, order.side)
    }
}
