//! A vhost-user connection: messages and file descriptors over a Unix stream, without ever
//! waiting for the peer.

use std::collections::VecDeque;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::PeerFd;
use eal::files::NoneLeft;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown,
};

use crate::protocol::{
    BackendMessage, FrontendMessage, HEADER_SIZE, Header, MAX_FDS, MAX_PAYLOAD, Payload,
    ProtocolError,
};

/// Messages that wait to be sent. A peer that sends requests but does not read the replies is
/// not listened to meanwhile (see [`Connection::wants_write`]), so no more than a few gather.
const MAX_QUEUED: usize = 64;

/// Space for the descriptors that go with one message.
const SEND_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// Most descriptors that can come with one byte (Linux `include/net/scm.h`, `SCM_MAX_FD`). The kernel
/// would close those that there is no space for, on this thread.
const MOST_FDS: usize = 253;

/// Space for them.
const RECEIVE_SPACE: usize = rustix::cmsg_space!(ScmRights(MOST_FDS));

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer closed it between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed it in the middle of a message.
    #[error("the peer closed the connection within a message")]
    ClosedWithin,
    /// A payload that is longer than any message.
    #[error("request {request} announces {size} bytes of payload, at most {MAX_PAYLOAD} expected")]
    TooLong {
        /// Number of the request.
        request: u32,
        /// Announced size in bytes.
        size: u32,
    },
    /// More file descriptors than any message has.
    #[error("a message came with more than {MAX_FDS} file descriptors")]
    TooManyFds,
    /// The process cannot take those of a message.
    #[error("a message came with file descriptors: {0}")]
    NoneLeft(#[from] NoneLeft),
    /// The peer does not read what it is sent.
    #[error("{MAX_QUEUED} messages wait for the peer, which does not read them")]
    QueueFull,
    /// A header that is not of this protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] Errno),
}

/// A whole message, as received. Its descriptors are closed if nobody takes them.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its header; the version is checked.
    pub header: Header,
    /// Its payload, as long as the header says.
    pub payload: &'a [u8],
    /// The descriptors that came with it.
    pub fds: ArrayVec<PeerFd, MAX_FDS>,
}

/// One end of a vhost-user connection.
///
/// All that comes from the peer, and the socket itself, is closed by the socket's
/// [`Closer`](eal::Closer).
#[derive(Debug)]
pub struct Connection {
    socket: Arc<PeerFd>,
    incoming: Box<Incoming>,
    outgoing: VecDeque<Outgoing>,
}

/// A message of which a part has arrived.
struct Incoming {
    header: [u8; HEADER_SIZE],
    payload: [u8; MAX_PAYLOAD],
    /// Bytes that have arrived, of header and payload together.
    got: usize,
    /// The message was given out: the next `receive` starts anew.
    done: bool,
    fds: ArrayVec<PeerFd, MAX_FDS>,
}

/// A message of which a part has yet to be sent.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// They go with the first byte, so there are none once that is sent.
    fds: ArrayVec<OwnedFd, MAX_FDS>,
}

impl Connection {
    /// A connection over `socket`, a connected Unix stream, which is made non-blocking.
    ///
    /// # Errors
    /// When `socket` cannot be made non-blocking.
    pub fn new(socket: OwnedFd) -> Result<Self, ConnectionError> {
        Self::over(socket.into())
    }

    /// As [`new`](Self::new), with the socket's closer.
    ///
    /// # Errors
    /// As there.
    pub fn over(socket: PeerFd) -> Result<Self, ConnectionError> {
        rustix::io::ioctl_fionbio(socket.as_fd(), true)?;
        Ok(Self::on(Arc::new(socket)))
    }

    /// Another one over the same socket, for a thread that receives what this one does not. When
    /// either is dropped both are at their end.
    pub(crate) fn another(&self) -> Self {
        Self::on(Arc::clone(&self.socket))
    }

    fn on(socket: Arc<PeerFd>) -> Self {
        let incoming = Incoming {
            header: [0; HEADER_SIZE],
            payload: [0; MAX_PAYLOAD],
            got: 0,
            done: false,
            fds: ArrayVec::new(),
        };
        Self { socket, incoming: Box::new(incoming), outgoing: VecDeque::new() }
    }

    /// The next message, or `None` when not all of it has arrived: then wait until the socket is
    /// readable. It reads no byte beyond the message.
    ///
    /// # Errors
    /// All of them end the connection: there is no telling where the next message would start.
    pub fn receive(&mut self) -> Result<Option<Message<'_>>, ConnectionError> {
        let incoming = &mut *self.incoming;
        if incoming.done {
            incoming.done = false;
            incoming.got = 0;
            incoming.fds.clear();
        }
        while let Some(part) = incoming.missing()? {
            let (bytes, fds) = match read(&self.socket, part) {
                Err(ConnectionError::Closed) if incoming.got > 0 => {
                    return Err(ConnectionError::ClosedWithin);
                }
                Err(ConnectionError::Socket(Errno::AGAIN)) => return Ok(None),
                other => other?,
            };
            incoming.got = incoming.got.saturating_add(bytes);
            for fd in fds {
                incoming.fds.try_push(fd).map_err(|_| ConnectionError::TooManyFds)?;
            }
        }
        incoming.done = true;
        let header = Header::from_bytes(incoming.header)?;
        let size = incoming.got.saturating_sub(HEADER_SIZE);
        let payload = incoming.payload.get(..size).unwrap_or_default();
        Ok(Some(Message { header, payload, fds: std::mem::take(&mut incoming.fds) }))
    }

    /// Sends a message, or keeps what the socket does not take for [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the socket fails, or too many messages wait already.
    pub fn send(
        &mut self,
        header: Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        if self.outgoing.len() >= MAX_QUEUED {
            return Err(ConnectionError::QueueFull);
        }
        let header = header.to_bytes();
        let sent = if self.outgoing.is_empty() {
            write(self.socket.as_fd(), &[IoSlice::new(&header), IoSlice::new(payload)], fds)?
        } else {
            0
        };
        if sent < header.len().saturating_add(payload.len()) {
            let bytes = [&header, payload].concat();
            let mut kept = ArrayVec::new();
            if sent == 0 {
                for fd in fds {
                    let fd = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
                    kept.try_push(fd).map_err(|_| ConnectionError::TooManyFds)?;
                }
            }
            self.outgoing.push_back(Outgoing { bytes, sent, fds: kept });
        }
        Ok(())
    }

    /// Sends a front-end's `message`, asking for an acknowledgement if `need_reply`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_request<F: AsFd>(
        &mut self,
        message: &FrontendMessage<F>,
        need_reply: bool,
    ) -> Result<(), ConnectionError> {
        let payload = message.payload();
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header::request(message.request().number(), size, need_reply);
        self.send(header, &payload, &message.fds())
    }

    /// Sends the reply to `request`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_reply<P: Payload>(
        &mut self,
        request: u32,
        payload: &P,
    ) -> Result<(), ConnectionError> {
        self.send_reply_bytes(request, &payload.encode())
    }

    /// Sends the reply to `request`, whose payload is `bytes`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_reply_bytes(&mut self, request: u32, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.send_reply_with(request, bytes, &[])
    }

    /// Sends the reply to `request`, whose payload is `bytes`, with `fds`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_reply_with(
        &mut self,
        request: u32,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.send(Header::reply(request, size), bytes, fds)
    }

    /// Sends a back-end's `message`, asking for an acknowledgement if `need_reply`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_backend_request<F: AsFd>(
        &mut self,
        message: &BackendMessage<F>,
        need_reply: bool,
    ) -> Result<(), ConnectionError> {
        let payload = message.payload();
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header::request(message.request().number(), size, need_reply);
        self.send(header, &payload, &message.fds())
    }

    /// Whether something waits until the socket is writable: then call [`flush`](Self::flush),
    /// and better [`receive`](Self::receive) nothing before.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while let Some(message) = self.outgoing.front_mut() {
            let rest = message.bytes.get(message.sent..).unwrap_or_default();
            let fds: ArrayVec<_, MAX_FDS> = message.fds.iter().map(AsFd::as_fd).collect();
            let sent = write(self.socket.as_fd(), &[IoSlice::new(rest)], &fds)?;
            drop(fds);
            if sent > 0 {
                message.fds.clear();
            }
            message.sent = message.sent.saturating_add(sent);
            if message.sent < message.bytes.len() {
                break;
            }
            self.outgoing.pop_front();
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // At once, for the peer, and even if it has a copy of our end; closing it may take its time.
        let _ = rustix::net::shutdown(self.socket.as_fd(), Shutdown::Both);
    }
}

impl AsFd for Connection {
    /// The socket, to wait on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("got", &self.got).finish_non_exhaustive()
    }
}

impl Incoming {
    /// Where the next bytes of the message go; `None` when it is complete.
    fn missing(&mut self) -> Result<Option<&mut [u8]>, ConnectionError> {
        let Some(filled) = self.got.checked_sub(HEADER_SIZE) else {
            return Ok(self.header.get_mut(self.got..));
        };
        let header = Header::from_bytes(self.header)?;
        let size = usize::try_from(header.size).ok().filter(|&size| size <= MAX_PAYLOAD);
        let Some(size) = size else {
            let Header { request, size, .. } = header;
            return Err(ConnectionError::TooLong { request, size });
        };
        Ok(self.payload.get_mut(filled..size).filter(|part| !part.is_empty()))
    }
}

/// Reads at most `part.len()` bytes, which are not 0, and the descriptors that came with them.
fn read(
    socket: &PeerFd,
    part: &mut [u8],
) -> Result<(usize, ArrayVec<PeerFd, MAX_FDS>), ConnectionError> {
    let mut space = [MaybeUninit::uninit(); RECEIVE_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(part)], &mut control, flags)
    });
    // A front-end that dies with unread data in its socket is as gone as one that closed it.
    let received = match received {
        Err(Errno::CONNRESET) => return Err(ConnectionError::Closed),
        other => other?,
    };
    let mut fds = ArrayVec::new();
    let mut too_many = false;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights {
                too_many |= fds.try_push(PeerFd::new(fd, socket.closer().clone())).is_err();
            }
        }
    }
    // There is space for all that there can be, so it was not the space that was missing.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(NoneLeft::now().into());
    }
    match received.bytes {
        _ if too_many => Err(ConnectionError::TooManyFds),
        0 => Err(ConnectionError::Closed),
        bytes => Ok((bytes, fds)),
    }
}

/// Writes what the socket takes, `fds` with the first byte; returns the number of bytes.
fn write(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> Result<usize, ConnectionError> {
    let mut space = [MaybeUninit::uninit(); SEND_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(ConnectionError::TooManyFds);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent =
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, parts, &mut control, flags));
    match sent {
        Err(Errno::AGAIN) => Ok(0),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(ConnectionError::Closed),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use rustix::event::{PollFd, PollFlags, Timespec};

    use super::*;
    use crate::protocol::{FrontendRequest, MemoryRegion, VringFile};

    fn pair() -> (UnixStream, Connection) {
        let (peer, ours) = UnixStream::pair().unwrap();
        (peer, Connection::new(ours.into()).unwrap())
    }

    fn connections() -> (Connection, Connection) {
        let (peer, ours) = pair();
        (Connection::new(peer.into()).unwrap(), ours)
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// The pipe's reader sees its end only when all copies of the writer are closed.
    fn pipe() -> (std::io::PipeReader, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader, writer.into())
    }

    fn assert_closed(mut reader: std::io::PipeReader) {
        let mut ready = [PollFd::new(&reader, PollFlags::IN)];
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let closed = rustix::event::poll(&mut ready, Some(&minute)).unwrap();
        assert_eq!(closed, 1, "a copy of the descriptor is still open");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn requests_and_replies_arrive_with_their_descriptors() {
        let (mut frontend, mut backend) = connections();
        let region = MemoryRegion { guest_addr: 0, size: 1, user_addr: 2, mmap_offset: 3 };
        let table = FrontendMessage::SetMemTable((0..8).map(|_| (region, null())).collect());
        frontend.send_request(&table, true).unwrap();
        frontend.send_request(&FrontendMessage::<OwnedFd>::GetFeatures, false).unwrap();

        let message = backend.receive().unwrap().unwrap();
        assert!(message.header.needs_reply());
        assert_eq!(message.payload.len(), 8 + 8 * 32);
        assert_eq!(message.fds.len(), 8);
        let Message { header, payload, fds } = message;
        FrontendMessage::decode(header.request, payload, fds).unwrap();
        let message = backend.receive().unwrap().unwrap();
        assert_eq!(message.header, Header::request(1, 0, false));
        assert!(message.fds.is_empty());
        assert!(backend.receive().unwrap().is_none());

        backend.send_reply(1, &0x1234_u64).unwrap();
        let reply = frontend.receive().unwrap().unwrap();
        assert_eq!(reply.header, Header::reply(1, 8));
        assert_eq!(reply.payload, 0x1234_u64.to_ne_bytes());
    }

    #[test]
    fn a_message_may_arrive_byte_by_byte() {
        let (mut peer, mut ours) = pair();
        for round in 0..3_u64 {
            let header = Header::request(FrontendRequest::SetFeatures.number(), 8, false);
            let bytes = [&header.to_bytes()[..], &round.to_ne_bytes()].concat();
            for byte in bytes {
                assert!(ours.receive().unwrap().is_none());
                peer.write_all(&[byte]).unwrap();
            }
            let message = ours.receive().unwrap().unwrap();
            assert_eq!(message.header, header);
            assert_eq!(message.payload, round.to_ne_bytes());
        }
    }

    #[test]
    fn descriptors_come_with_the_first_byte_of_a_slow_message() {
        let (mut peer, mut ours) = pair();
        let file = VringFile { index: 0, fd: Some(null()) };
        let bytes =
            [&Header::request(12, 8, false).to_bytes()[..], &file.value().to_ne_bytes()].concat();
        let fds = [file.fd.as_ref().unwrap().as_fd()];
        write(peer.as_fd(), &[IoSlice::new(&bytes[..1])], &fds).unwrap();
        assert!(ours.receive().unwrap().is_none());
        peer.write_all(&bytes[1..]).unwrap();
        assert_eq!(ours.receive().unwrap().unwrap().fds.len(), 1);
    }

    #[test]
    fn descriptors_of_the_next_message_stay_with_it() {
        let (mut frontend, mut backend) = connections();
        frontend.send_request(&FrontendMessage::<OwnedFd>::GetFeatures, false).unwrap();
        let kick = FrontendMessage::SetVringKick(VringFile { index: 0, fd: Some(null()) });
        frontend.send_request(&kick, false).unwrap();
        assert!(backend.receive().unwrap().unwrap().fds.is_empty());
        assert_eq!(backend.receive().unwrap().unwrap().fds.len(), 1);
    }

    #[test]
    fn too_many_descriptors_are_refused_and_closed() {
        let (peer, mut ours) = pair();
        let (reader, writer) = pipe();
        let fds = [writer.as_fd(); MOST_FDS];
        let mut space = [MaybeUninit::uninit(); RECEIVE_SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let header = Header::request(1, 0, false).to_bytes();
        let flags = SendFlags::empty();
        rustix::net::sendmsg(&peer, &[IoSlice::new(&header)], &mut control, flags).unwrap();
        drop(writer);
        assert!(matches!(ours.receive(), Err(ConnectionError::TooManyFds)));
        assert_closed(reader);
    }

    #[test]
    fn descriptors_may_not_gather_over_the_parts_of_a_message() {
        let (peer, mut ours) = pair();
        let (reader, writer) = pipe();
        let header = Header::request(1, 0, false).to_bytes();
        let peer = OwnedFd::from(peer);
        for byte in &header[..3] {
            write(peer.as_fd(), &[IoSlice::new(&[*byte])], &[writer.as_fd(); 4]).unwrap();
        }
        drop(writer);
        assert!(matches!(ours.receive(), Err(ConnectionError::TooManyFds)));
        drop(ours);
        assert_closed(reader);
    }

    #[test]
    fn descriptors_of_half_a_message_are_closed_with_the_connection() {
        let (peer, mut ours) = pair();
        let (reader, writer) = pipe();
        write(peer.as_fd(), &[IoSlice::new(&[5])], &[writer.as_fd()]).unwrap();
        drop((peer, writer));
        assert!(matches!(ours.receive(), Err(ConnectionError::ClosedWithin)));
        drop(ours);
        assert_closed(reader);
    }

    #[test]
    fn descriptors_that_nobody_takes_are_closed() {
        let (mut frontend, mut backend) = connections();
        let (reader, writer) = pipe();
        frontend.send(Header::request(1, 0, false), &[], &[writer.as_fd()]).unwrap();
        drop(writer);
        assert_eq!(backend.receive().unwrap().unwrap().fds.len(), 1);
        assert_closed(reader);
    }

    #[test]
    fn long_payloads_and_other_versions_end_the_connection() {
        let too_long = u32::try_from(MAX_PAYLOAD).unwrap() + 1;
        for size in [too_long, u32::MAX] {
            let (mut peer, mut ours) = pair();
            peer.write_all(&Header::request(1, size, false).to_bytes()).unwrap();
            let error = ours.receive().unwrap_err();
            assert!(matches!(error, ConnectionError::TooLong { request: 1, .. }), "{error}");
        }
        let (mut peer, mut ours) = pair();
        peer.write_all(&Header { request: 1, flags: 2, size: 0 }.to_bytes()).unwrap();
        assert!(matches!(ours.receive(), Err(ConnectionError::Protocol(_))));
    }

    #[test]
    fn the_longest_payload_is_received() {
        let (mut peer, mut ours) = pair();
        let size = u32::try_from(MAX_PAYLOAD).unwrap();
        peer.write_all(&Header::request(99, size, false).to_bytes()).unwrap();
        peer.write_all(&[7; MAX_PAYLOAD]).unwrap();
        assert_eq!(ours.receive().unwrap().unwrap().payload, [7; MAX_PAYLOAD]);
    }

    #[test]
    fn an_orderly_end_is_told_from_one_within_a_message() {
        let (peer, mut ours) = pair();
        drop(peer);
        assert!(matches!(ours.receive(), Err(ConnectionError::Closed)));
        let (mut peer, mut ours) = pair();
        peer.write_all(&Header::request(2, 8, false).to_bytes()).unwrap();
        drop(peer);
        assert!(matches!(ours.receive(), Err(ConnectionError::ClosedWithin)));
    }

    #[test]
    fn what_the_peer_does_not_read_is_kept_up_to_a_limit_and_in_order() {
        let (mut frontend, mut backend) = connections();
        rustix::net::sockopt::set_socket_send_buffer_size(&backend, 4096).unwrap();
        let mut sent = 0_u64;
        let (reader, writer) = pipe();
        let error = loop {
            let payload = [&sent.to_ne_bytes()[..], &[0; 1000]].concat();
            let header = Header::reply(1, 1008);
            match backend.send(header, &payload, &[writer.as_fd()]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 10_000);
        };
        assert!(matches!(error, ConnectionError::QueueFull));
        assert!(backend.wants_write());
        drop(writer);
        for expected in 0..sent {
            let message = loop {
                backend.flush().unwrap();
                if let Some(message) = frontend.receive().unwrap() {
                    break message;
                }
            };
            assert_eq!(message.payload[..8], expected.to_ne_bytes());
            assert_eq!(message.fds.len(), 1);
        }
        assert!(!backend.wants_write());
        assert_closed(reader);
    }

    #[test]
    fn sending_to_a_peer_that_has_gone_is_an_error_and_no_signal() {
        let (peer, mut ours) = pair();
        drop(peer);
        assert!(matches!(ours.send_reply(1, &0_u64), Err(ConnectionError::Closed)));
    }
}
