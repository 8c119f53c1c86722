//! The socket: bytes and descriptors, in any number and order.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect,
    recvmsg, sendmsg, shutdown, socket_with,
};

use crate::message::request::SET_LOG_BASE;
use crate::message::{feature, flags, header, number, protocol, request};

/// The most descriptors that one message can carry (`SCM_MAX_FD` of the kernel).
pub const MOST_FDS: usize = 253;

/// How long an answer may take; a back-end that takes longer goes on without being waited for.
pub const PATIENCE: Duration = Duration::from_millis(1000);

/// How a back-end took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A reply, with its first 64 bits.
    Reply(u64),
    /// The connection is closed.
    Closed,
    /// Nothing came in time.
    Silent,
}

/// One connection to a back-end.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    /// Whether acknowledgements were negotiated.
    acks: bool,
    /// The protocol features that were negotiated.
    pub protocol: u64,
    /// The first refusal or the end of the connection, for the record.
    pub refusal: Option<String>,
}

impl Wire {
    /// Connects to a back-end and says nothing yet.
    pub fn connect(path: &Path) -> Result<Self> {
        let kind = SocketType::STREAM;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        Ok(Self { socket, acks: false, protocol: 0, refusal: None })
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends any bytes with any descriptors; `false` when the back-end does not take them.
    pub fn raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return false;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut rest = bytes;
        while !rest.is_empty() {
            let now = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, now) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    control.clear();
                }
                Err(rustix::io::Errno::AGAIN) if Instant::now() < deadline => {
                    self.wait(PollFlags::OUT, Duration::from_millis(20));
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends a message whose header tells the truth.
    pub fn send(&self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send_flagged(request, flags::VERSION, payload, fds)
    }

    /// As [`send`](Self::send), with any flags.
    pub fn send_flagged(
        &self,
        request: u32,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> bool {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.raw(&[&header(request, flags, size)[..], payload].concat(), fds)
    }

    fn wait(&self, flags: PollFlags, limit: Duration) -> bool {
        let mut ready = [PollFd::new(&self.socket, flags)];
        let limit = limit.try_into().ok();
        poll(&mut ready, limit.as_ref()).is_ok_and(|count| count > 0)
    }

    /// Receives a message: its request, payload and descriptors.
    pub fn receive(&self, limit: Duration) -> Result<(u32, Vec<u8>, Vec<OwnedFd>), Answer> {
        let deadline = Instant::now() + limit;
        let mut fds = Vec::new();
        let head = self.exactly(12, deadline, &mut fds)?;
        let field = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| head[at + i]));
        let size = usize::try_from(field(8)).unwrap_or(0).min(1 << 16);
        let payload = self.exactly(size, deadline, &mut fds)?;
        Ok((field(0), payload, fds))
    }

    fn exactly(
        &self,
        len: usize,
        deadline: Instant,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<Vec<u8>, Answer> {
        let mut bytes = vec![0; len];
        let mut got = 0;
        while got < len {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.wait(PollFlags::IN, left) {
                return Err(Answer::Silent);
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let part = &mut [IoSliceMut::new(&mut bytes[got..])];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(&self.socket, part, &mut control, flags) {
                Ok(received) if received.bytes > 0 => got += received.bytes,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return Err(Answer::Closed),
            }
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
        }
        Ok(bytes)
    }

    /// Waits for a reply to whatever was sent last.
    pub fn answer(&self) -> Answer {
        match self.receive(PATIENCE) {
            Ok((_, payload, _)) => {
                let first = payload.first_chunk().copied().map_or(0, u64::from_ne_bytes);
                Answer::Reply(first)
            }
            Err(answer) => answer,
        }
    }

    /// Sends a message that always has a reply and gives the reply's first 64 bits.
    pub fn ask(&mut self, request: u32, payload: &[u8]) -> Answer {
        let answer = if self.send(request, payload, &[]) { self.answer() } else { Answer::Closed };
        if !matches!(answer, Answer::Reply(_)) {
            self.note(request, answer);
        }
        answer
    }

    /// Sends a message and, where acknowledgements were negotiated, waits for its one.
    pub fn tell(&mut self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
        let need = if self.acks { flags::NEED_REPLY } else { 0 };
        let answer = match self.send_flagged(request, flags::VERSION | need, payload, fds) {
            false => Answer::Closed,
            true if self.acks => self.answer(),
            true => Answer::Silent,
        };
        match answer {
            Answer::Reply(0) => {}
            // Its reply is what it has taken over, and no acknowledgement.
            Answer::Reply(_) if request == SET_LOG_BASE => {}
            Answer::Silent if !self.acks => {}
            _ => self.note(request, answer),
        }
        answer
    }

    /// Keeps the first refusal.
    fn note(&mut self, request: u32, answer: Answer) {
        let how = match answer {
            Answer::Reply(_) => "refused",
            Answer::Closed => "closed",
            Answer::Silent => "unanswered",
        };
        self.refusal.get_or_insert_with(|| format!("{how}: request {request}"));
    }

    /// Whether the back-end has read everything so far and still talks to us. What it had to say
    /// meanwhile is thrown away.
    pub fn settle(&self) -> bool {
        if !self.send(request::GET_FEATURES, &[], &[]) {
            return false;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive(deadline.saturating_duration_since(Instant::now())) {
                Ok((request::GET_FEATURES, ..)) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Says that no more comes.
    pub fn shut(&self, how: Shutdown) {
        let _ = shutdown(&self.socket, how);
    }

    /// Negotiates features as an honest front-end does: of those offered, these. Gives the
    /// features that are in force.
    ///
    /// # Errors
    /// When the back-end does not answer, or lacks one of `needed`.
    pub fn negotiate(&mut self, wanted: u64, needed: u64, wanted_protocol: u64) -> Result<u64> {
        let Answer::Reply(offered) = self.ask(request::GET_FEATURES, &[]) else {
            bail!("GET_FEATURES is not answered");
        };
        if offered & needed != needed {
            bail!("the back-end lacks feature bits {:#x}", needed & !offered);
        }
        self.tell(request::SET_OWNER, &[], &[]);
        let features = wanted & offered;
        if features & feature::PROTOCOL_FEATURES != 0 {
            let Answer::Reply(known) = self.ask(request::GET_PROTOCOL_FEATURES, &[]) else {
                bail!("GET_PROTOCOL_FEATURES is not answered");
            };
            self.protocol = known & wanted_protocol;
            self.tell(request::SET_PROTOCOL_FEATURES, &number(self.protocol), &[]);
            self.acks = self.protocol & protocol::REPLY_ACK != 0;
        }
        self.tell(request::SET_FEATURES, &number(features), &[]);
        Ok(features)
    }
}
