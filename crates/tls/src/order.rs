//! What is said of a connection that is handed over: one message, with its files.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The longest message.
pub const BYTES: usize = 4_096;

/// Files of a message: three sockets, of which the first is to tell how it ended, and up to four to read.
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
    /// An order, or what is wrong with it.
    Order(Result<Order, &'static str>, Vec<OwnedFd>),
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
    let order = match bytes.get(..received.bytes) {
        None | Some([]) => return Ok(Received::End),
        // The others are closed already: too many are open, or more came than there are.
        Some(_) if received.flags.contains(ReturnFlags::CTRUNC) => {
            Err("not all of its files came along")
        }
        Some(bytes) => Order::decode(bytes).ok_or("an order that is not understood"),
    };
    Ok(Received::Order(order, files))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

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
    #[test]
    fn an_order_of_which_files_are_missing_is_none() {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let order = Order {
            side: Side::Client,
            trust: Trust::Anybody,
            has_more: false,
            manner: Manner::default(),
        };
        let sends = |count| send(&ours, &order, &vec![ours.as_fd(); count]);
        let receives = || match receive(&theirs) {
            Ok(Received::Order(order, files)) => (order, files.len()),
            _ => panic!("no order"),
        };
        sends(FILES).unwrap();
        assert_eq!(receives(), (Ok(order.clone()), FILES));
        // As many as there is room for come along, as where too many are open.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let more = [ours.as_fd(); 2 * FILES];
        assert!(control.push(SendAncillaryMessage::ScmRights(&more)));
        let bytes = order.encode();
        let parts = [IoSlice::new(&bytes)];
        rustix::net::sendmsg(&ours, &parts, &mut control, SendFlags::empty()).unwrap();
        let (order, files) = receives();
        assert_eq!(order, Err("not all of its files came along"));
        assert!(files >= FILES, "there is somebody to be told");
        assert_eq!(sends(2 * FILES), Err(Errno::MFILE));
    }
}
