//! The front-end's end of the channel for messages of the back-end.
//!
//! A back-end may wait for the answer to such a message before it answers a request of ours, so
//! the channel is served whenever the front-end waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eal::PeerFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::connection::{Connection, ConnectionError};
use crate::protocol::{BackendMessage, BackendRequest, IotlbMessage, ProtocolFeatures};

/// What is done with a message of the back-end. It returns whether it was done, which the back-end
/// is told if it asks. It is called within calls of the front-end and must not wait.
pub type Listener = Box<dyn FnMut(BackendMessage<PeerFd>) -> bool + Send>;

/// Messages at once: a back-end that sends more has to wait for its turn.
const BURST: usize = 64;

/// An end of the channel.
#[derive(Debug)]
pub(super) struct Channel {
    connection: Connection,
    /// A translation that the back-end has asked for. Until it is answered, no other message is
    /// taken: answers come in order.
    miss: Option<AskedFor>,
}

/// A translation that the back-end asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedFor {
    pub(super) message: IotlbMessage,
    /// It wants to hear when it has been told.
    needs_reply: bool,
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
        Ok((Self { connection: Connection::new(ours)?, miss: None }, theirs))
    }

    /// Whether a translation is asked for.
    pub(super) const fn has_miss(&self) -> bool {
        self.miss.is_some()
    }

    /// The translation that is asked for, to be [answered](Self::answer).
    pub(super) const fn take_miss(&mut self) -> Option<AskedFor> {
        self.miss.take()
    }

    /// Says whether the translation was told.
    pub(super) fn answer(&mut self, miss: &AskedFor, told: bool) -> Result<(), ConnectionError> {
        if miss.needs_reply {
            let request = BackendRequest::IotlbMsg.number();
            self.connection.send_reply(request, &u64::from(!told))?;
        }
        if self.connection.wants_write() { Err(ConnectionError::QueueFull) } else { Ok(()) }
    }

    /// Takes the messages that have come, up to one that asks for a translation.
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
            if self.miss.is_some() {
                break;
            }
            let Some(message) = self.connection.receive()? else { break };
            let header = message.header;
            let name = BackendRequest::try_from(header.request).map_or("message", |r| r.name());
            if header.is_reply() {
                let flags = header.flags;
                let request = name;
                return Err(crate::protocol::ProtocolError::Direction { request, flags }.into());
            }
            let decoded = BackendMessage::decode(header.request, message.payload, message.fds)?;
            if let BackendMessage::Iotlb(message @ IotlbMessage { kind: IotlbMessage::MISS, .. }) =
                decoded
            {
                let acknowledges = negotiated.contains(ProtocolFeatures::REPLY_ACK);
                let needs_reply = header.needs_reply() && acknowledges;
                self.miss = Some(AskedFor { message, needs_reply });
                break;
            }
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
