//! The front-end's end of the channel for messages of the back-end.
//!
//! A back-end may wait for the answer to such a message before it answers a request of ours, so
//! the channel is served whenever the front-end waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eal::PeerFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::connection::{Connection, ConnectionError};
use crate::protocol::{BackendMessage, BackendRequest, ProtocolFeatures};

/// What is done with a message of the back-end. It returns whether it was done, which the back-end
/// is told if it asks. It is called within calls of the front-end and must not wait.
pub type Listener = Box<dyn FnMut(BackendMessage<PeerFd>) -> bool + Send>;

/// Messages at once: a back-end that sends more has to wait for its turn.
const BURST: usize = 64;

/// An end of the channel.
#[derive(Debug)]
pub(super) struct Channel {
    connection: Connection,
}

impl Channel {
    /// A new channel, and the end that the back-end gets.
    pub(super) fn new() -> Result<(Self, OwnedFd), ConnectionError> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { connection: Connection::new(ours)? }, theirs))
    }

    /// Takes the messages that have come.
    ///
    /// # Errors
    /// When the back-end has closed it, does not follow the protocol, or does not read its
    /// answers. The channel is of no use then; the session goes on.
    pub(super) fn serve(
        &mut self,
        listener: &mut Listener,
        negotiated: ProtocolFeatures,
    ) -> Result<(), ConnectionError> {
        for _ in 0..BURST {
            let Some(message) = self.connection.receive()? else { break };
            let header = message.header;
            let name = BackendRequest::try_from(header.request).map_or("message", |r| r.name());
            if header.is_reply() {
                let flags = header.flags;
                let request = name;
                return Err(crate::protocol::ProtocolError::Direction { request, flags }.into());
            }
            let decoded = BackendMessage::decode(header.request, message.payload, message.fds)?;
            let done = negotiated.contains(decoded.needs()) && listener(decoded);
            if header.needs_reply() && negotiated.contains(ProtocolFeatures::REPLY_ACK) {
                self.connection.send_reply(header.request, &u64::from(!done))?;
            }
            if self.connection.wants_write() {
                return Err(ConnectionError::QueueFull);
            }
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
