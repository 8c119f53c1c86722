//! The channel for messages of the back-end (SET_BACKEND_REQ_FD).
//!
//! It is a second connection, in which we ask and the front-end answers. Nothing waits for it:
//! the device is asked for the next message only when the last one has left and, where it has an
//! answer, was answered. So a front-end that does not read or answer gets no more of them, and
//! nothing piles up. Answers are [read](super::answers) by another thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use eal::event::Interest;
use eal::{Epoll, PeerFd};

use super::answers::{Answers, ReaderError, Readers};
use super::watch::Source;
use crate::backend::Backend;
use crate::connection::{Connection, ConnectionError};
use crate::inband::Notifications;
use crate::protocol::{
    BackendMessage, BackendRequest, Payload, ProtocolError, ProtocolFeatures, VringArea,
};

/// Messages at once: a doorbell for every ring that there can be, and as many to take them back.
const BURST: usize = 512;

/// Why a channel is closed. The connection goes on without.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// The front-end has closed it, or does not follow the protocol.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// An answer to nothing, or none.
    #[error("{got} {request} on the channel of the back-end, where {expected} was expected")]
    Unexpected { got: &'static str, request: u32, expected: &'static str },
    /// There can be no answers.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The system.
    #[error("cannot wait for it: {0}")]
    Wait(#[from] std::io::Error),
}

/// An open channel, which the control thread waits for.
#[derive(Debug)]
pub(super) struct Channel {
    connection: Connection,
    epoll: Arc<Epoll>,
    token: u64,
    /// Whether it is waited for until there is room to write. Otherwise it is not waited for: the
    /// front-end could end it in a way that only who reads gets to know.
    waits: bool,
    readers: Readers,
    /// What comes in it, from the first question on.
    answers: Option<Answers>,
    /// What the front-end has yet to answer.
    unanswered: Option<Question>,
}

/// A message that has an answer.
#[derive(Clone, Copy, Debug)]
enum Question {
    /// Whether it uses the doorbell of this ring.
    Doorbell(u8),
    /// That it has done with a notification.
    Notification(BackendRequest),
    /// To give a translation.
    Translation,
}

impl Question {
    const fn request(self) -> BackendRequest {
        match self {
            Self::Doorbell(_) => BackendRequest::VringHostNotifierMsg,
            Self::Notification(request) => request,
            Self::Translation => BackendRequest::IotlbMsg,
        }
    }
}

impl Channel {
    /// A channel over `socket`, which may have been made by anybody.
    pub(super) fn open(
        socket: PeerFd,
        epoll: &Arc<Epoll>,
        id: u32,
        readers: &Readers,
    ) -> Result<Self, ChannelError> {
        Ok(Self {
            connection: Connection::over(socket)?,
            epoll: Arc::clone(epoll),
            token: Source::Channel(id).token(),
            waits: false,
            readers: readers.clone(),
            answers: None,
            unanswered: None,
        })
    }

    /// Takes answers, and sends what the device has to tell.
    ///
    /// # Errors
    /// All of them end the channel.
    pub(super) fn serve(
        &mut self,
        backend: &mut dyn Backend,
        negotiated: ProtocolFeatures,
        notifications: Option<&Notifications>,
    ) -> Result<(), ChannelError> {
        self.connection.flush()?;
        for _ in 0..BURST {
            self.take_answers(backend)?;
            if self.unanswered.is_some() || self.connection.wants_write() {
                break;
            }
            let notification = notifications.and_then(Notifications::take);
            let Some(message) = notification.or_else(|| backend.next_message()) else { break };
            if negotiated.contains(message.needs()) {
                self.send(&message, negotiated)?;
            }
        }
        self.wait_for_room()?;
        Ok(())
    }

    /// Waits until what has not left yet can leave, or waits no more.
    fn wait_for_room(&mut self) -> std::io::Result<()> {
        let waits = self.connection.wants_write();
        match (self.waits, waits) {
            (false, true) => self.epoll.add(&self.connection, self.token, Interest::WRITE)?,
            (true, false) => self.epoll.remove(&self.connection)?,
            _ => {}
        }
        self.waits = waits;
        Ok(())
    }

    fn send(
        &mut self,
        message: &BackendMessage<OwnedFd>,
        negotiated: ProtocolFeatures,
    ) -> Result<(), ChannelError> {
        let asks = match message {
            // Only of a doorbell it matters whether it is used.
            BackendMessage::HostNotifier(VringArea { index, area: Some(_) }) => {
                Some(Question::Doorbell(*index))
            }
            // Only so many are on the way as the front-end gets done with.
            BackendMessage::VringCall(_) | BackendMessage::VringErr(_) => {
                Some(Question::Notification(message.request()))
            }
            // Of a translation it matters when there is none.
            BackendMessage::Iotlb(_) => Some(Question::Translation),
            _ => None,
        };
        let asks = asks.filter(|_| negotiated.contains(ProtocolFeatures::REPLY_ACK));
        if asks.is_some() && self.answers.is_none() {
            let reader = self.connection.another();
            self.answers = Some(Answers::read(reader, &self.readers, &self.epoll, self.token)?);
        }
        self.connection.send_backend_request(message, asks.is_some())?;
        self.unanswered = asks;
        Ok(())
    }

    /// Takes the answer that is due, if it has come; any other ends the channel.
    fn take_answers(&mut self, backend: &mut dyn Backend) -> Result<(), ChannelError> {
        while let Some(answer) = self.answers.as_ref().and_then(Answers::next) {
            let answer = answer?;
            let request = answer.header.request;
            let is_due =
                |asked: &Question| answer.header.is_reply() && request == asked.request().number();
            let Some(asked) = self.unanswered.take().filter(is_due) else {
                let got = if answer.header.is_reply() { "reply" } else { "request" };
                return Err(ChannelError::Unexpected { got, request, expected: "an answer" });
            };
            let code = u64::decode(asked.request().name(), &answer.payload);
            let code = code.map_err(|error: ProtocolError| ConnectionError::from(error))?;
            match asked {
                Question::Doorbell(index) => backend.notifier_answered(index, code == 0),
                Question::Notification(_) => {}
                Question::Translation => backend.translation_answered(),
            }
        }
        Ok(())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The reading thread has a copy of the socket, so closing ours would not do.
        if self.waits {
            let _ = self.epoll.remove(&self.connection);
        }
    }
}
