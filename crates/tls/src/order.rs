//! What is said of a connection that is handed over: one message, with its files.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The longest message.
pub const BYTES: usize = 4_096;

/// Files of a message: three sockets, and up to four to read.
const FILES: usize = 7;
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(FILES));

/// Who of the two begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We have connected.
    Client,
    /// We were connected to.
    Server,
}

/// Whom to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever has a certificate by one of the file.
    File,
    /// Whoever is there: the certificate that it is signed by is to be told.
    First,
    /// Anybody.
    Anybody,
}

/// What is spoken, as it was set; empty: as it is usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    pub protocols: String,
    pub ciphers: String,
    pub ciphersuites: String,
}

/// What is to be done with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub side: Side,
    pub trust: Trust,
    /// Whether there is a file of certificates that peers are sent, too.
    pub has_more: bool,
    pub manner: Manner,
}

impl Order {
    fn encode(&self) -> Vec<u8> {
        let side = if self.side == Side::Client { 'c' } else { 's' };
        let trust = match self.trust {
            Trust::File => 'f',
            Trust::First => '1',
            Trust::Anybody => '*',
        };
        let more = if self.has_more { 'm' } else { '-' };
        let Manner { protocols, ciphers, ciphersuites } = &self.manner;
        format!("{side}{trust}{more}\0{protocols}\0{ciphers}\0{ciphersuites}").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split('\0');
        let [side, trust, more] = words.next()?.as_bytes() else { return None };
        let side = if *side == b'c' { Side::Client } else { Side::Server };
        let trust = match trust {
            b'*' => Trust::Anybody,
            b'1' => Trust::First,
            _ => Trust::File,
        };
        let mut text = || Some(words.next()?.to_owned());
        let manner = Manner { protocols: text()?, ciphers: text()?, ciphersuites: text()? };
        Some(Self { side, trust, has_more: *more == b'm', manner })
    }
}

/// Hands over an order and its files; waits for nobody.
pub fn send(socket: impl AsFd, order: &Order, files: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let bytes = order.encode();
    if bytes.len() > BYTES {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::MFILE);
    }
    let (socket, parts) = (socket.as_fd(), [IoSlice::new(&bytes)]);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &parts, &mut control, flags))
        .map(drop)
}

/// What was received.
pub enum Received {
    /// An order; or none, if it cannot be understood.
    Order(Option<Order>, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// Nothing will come any more.
    End,
}

/// The next order; waits for nobody.
pub fn receive(socket: impl AsFd) -> Result<Received, Errno> {
    let mut bytes = [0; BYTES];
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let socket = socket.as_fd();
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, flags)
    });
    let received = match received {
        Err(Errno::AGAIN) => return Ok(Received::Nothing),
        other => other?,
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    match bytes.get(..received.bytes) {
        None | Some([]) => Ok(Received::End),
        Some(bytes) => Ok(Received::Order(Order::decode(bytes), files)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_were_written() {
        let manner = Manner { protocols: "TLSv1.3".to_owned(), ..Manner::default() };
        for side in [Side::Client, Side::Server] {
            for trust in [Trust::File, Trust::First, Trust::Anybody] {
                for has_more in [false, true] {
                    let order = Order { side, trust, has_more, manner: manner.clone() };
                    assert_eq!(Order::decode(&order.encode()), Some(order));
                }
            }
        }
        for wrong in [&b""[..], b"c", b"cf-\0a\0b", b"cf--\0a\0b\0c", b"cf-\0\xff\0\0"] {
            assert_eq!(Order::decode(wrong), None);
        }
    }
}
