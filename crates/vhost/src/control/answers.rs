//! What a front-end says on the channel of the back-end, read by a thread of its own.
//!
//! The front-end has made the channel, and may have kept the end that it gave to us. Whoever reads
//! from a Unix stream holds a lock of its while bytes are copied to where they are to go, which
//! may be a page that never comes; everybody else who reads waits for that lock, however little
//! the call wants to wait. So only a thread that nobody needs reads there. There is none before
//! the first message that has an answer: most front-ends never get one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use eal::event::Interest;
use eal::{Epoll, EventFd};
use rustix::event::{PollFd, PollFlags, poll};

use crate::connection::{Connection, ConnectionError};
use crate::protocol::{Header, MAX_PAYLOAD};

/// Threads of a port that may still read channels which are closed, before it gets no other one.
pub(super) const MAX_READERS: usize = 4;

/// Why a channel cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReaderError {
    /// The threads of earlier ones have not ended.
    #[error("{MAX_READERS} earlier ones are still being read by somebody else, too")]
    Busy,
    /// The system.
    #[error("cannot read it: {0}")]
    System(#[from] io::Error),
}

/// The threads that read channels of one port, whether these are open or not. Clones count the
/// same.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers(Arc<AtomicUsize>);

/// One of them, while it runs.
#[derive(Debug)]
struct Reader(Readers);

impl Readers {
    fn add(&self) -> Result<Reader, ReaderError> {
        let more = |count| (count < MAX_READERS).then_some(count + 1);
        let added = self.0.fetch_update(Relaxed, Relaxed, more);
        added.map(|_| Reader(self.clone())).map_err(|_| ReaderError::Busy)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// A message that has come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) header: Header,
    pub(super) payload: Box<[u8]>,
}

type Said = Result<Answer, ConnectionError>;

/// What comes in one channel, in order.
#[derive(Debug)]
pub(super) struct Answers {
    said: Receiver<Said>,
    /// Signalled after each.
    arrived: Arc<EventFd>,
    epoll: Arc<Epoll>,
}

impl Answers {
    /// Starts to read from `connection`. `epoll` tells under `token` when something has come.
    pub(super) fn read(
        connection: Connection,
        readers: &Readers,
        epoll: &Arc<Epoll>,
        token: u64,
    ) -> Result<Self, ReaderError> {
        let reader = readers.add()?;
        // One is enough: what was not taken keeps the next one, and the front-end, waiting.
        let (sender, said) = sync_channel(1);
        let arrived = Arc::new(EventFd::new()?);
        epoll.add(&*arrived, token, Interest::READ)?;
        let answers = Self { said, arrived: Arc::clone(&arrived), epoll: Arc::clone(epoll) };
        let run = move || {
            read_all(connection, &sender, &arrived);
            drop(reader);
        };
        let thread = std::thread::Builder::new().name("channel".into()).stack_size(STACK);
        eal::thread::spawn(thread, run)?;
        Ok(answers)
    }

    /// The next message, if one has come.
    pub(super) fn next(&self) -> Option<Said> {
        // Before the look: what comes after it is told again.
        let _ = self.arrived.drain();
        match self.said.try_recv() {
            Ok(said) => Some(said),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ConnectionError::Closed)),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // The thread may have a copy.
        let _ = self.epoll.remove(&*self.arrived);
    }
}

/// Bytes of such a thread's stack: a message and what recvmsg(2) needs, several times.
const STACK: usize = 16 * MAX_PAYLOAD;

/// Hands on what comes until the channel is closed by either side, or is not of the protocol.
fn read_all(mut connection: Connection, to: &SyncSender<Said>, arrived: &EventFd) {
    loop {
        let said = match connection.receive() {
            Ok(None) => {
                // It may fail only for want of memory; then the next round waits.
                let mut ready = [PollFd::new(&connection, PollFlags::IN)];
                let _ = poll(&mut ready, None);
                continue;
            }
            Ok(Some(message)) => {
                Ok(Answer { header: message.header, payload: message.payload.into() })
            }
            Err(error) => Err(error),
        };
        let last = said.is_err();
        if to.send(said).is_err() || arrived.signal().is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_few_threads_that_read() {
        let readers = Readers::default();
        let mut all: Vec<_> = (0..MAX_READERS).map(|_| readers.add().unwrap()).collect();
        assert!(matches!(readers.add(), Err(ReaderError::Busy)));
        all.pop();
        all.push(readers.add().unwrap());
        assert!(matches!(readers.add(), Err(ReaderError::Busy)));
    }
}
