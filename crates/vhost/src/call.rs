//! How a device notifies its driver of used buffers.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use eal::{PeerEvent, PeerFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};

use crate::inband::Note;
use crate::vduse::Interrupt;

/// By which a device notifies its driver. Workers use it themselves, once per burst at most, so
/// none of it can make them wait. Clones are the same descriptor.
#[derive(Clone, Debug)]
pub enum Call {
    /// An eventfd that the front-end sent.
    Event(PeerEvent),
    /// A socket that the front-end sent, as User Mode Linux does.
    Socket(CallSocket),
    /// The interrupt of a VDUSE device's ring.
    Interrupt(Interrupt),
    /// A message to the front-end.
    Message(Note),
}

impl Call {
    /// Notifies the driver.
    ///
    /// # Errors
    /// When the file behind it cannot be used for that.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        match self {
            Self::Event(event) => event.signal(),
            Self::Socket(socket) => socket.signal(),
            Self::Interrupt(interrupt) => interrupt.signal(),
            Self::Message(note) => note.make(),
        }
    }

    /// The eventfd, for a device that signals it without us.
    #[must_use]
    pub const fn event(&self) -> Option<&PeerEvent> {
        match self {
            Self::Event(event) => Some(event),
            Self::Socket(_) | Self::Interrupt(_) | Self::Message(_) => None,
        }
    }
}

impl From<PeerEvent> for Call {
    fn from(event: PeerEvent) -> Self {
        Self::Event(event)
    }
}

/// A Unix stream socket instead of an eventfd: the specification says no more than "a file
/// descriptor", and the front-end of User Mode Linux sends one end of a pair. It reads 8 bytes per
/// notification, as from an eventfd.
///
/// No other kind of file is taken. A write to a pipe waits while the peer reads or writes it with
/// memory that is not there; a Unix stream takes what is sent, or refuses it at once.
#[derive(Clone, Debug)]
pub struct CallSocket(Arc<PeerFd>);

impl CallSocket {
    /// The socket behind `fd`; gives it back where it is something else.
    pub(crate) fn new(fd: PeerFd) -> Result<Self, PeerFd> {
        let stream = sockopt::socket_type(fd.as_fd()).is_ok_and(|kind| kind == SocketType::STREAM)
            && sockopt::socket_domain(fd.as_fd()).is_ok_and(|domain| domain == AddressFamily::UNIX);
        if stream { Ok(Self(Arc::new(fd))) } else { Err(fd) }
    }

    fn signal(&self) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(self.0.as_fd(), &1_u64.to_ne_bytes(), flags) {
            // Whoever does not read what was sent before has not slept since.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn each_notification_is_eight_bytes_until_nobody_reads() {
        let (mut guest, ours) = UnixStream::pair().unwrap();
        let call = Call::Socket(CallSocket::new(OwnedFd::from(ours).into()).unwrap());
        call.signal().unwrap();
        let mut bytes = [0; 8];
        guest.read_exact(&mut bytes).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 1);
        // Far beyond what a socket holds. The peer has not asked for a socket that does not block.
        for _ in 0..100_000 {
            call.signal().unwrap();
        }
        guest.read_exact(&mut bytes).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 1);
        drop(guest);
        assert!(call.signal().is_err(), "the front-end has gone");
    }

    #[test]
    fn what_may_wait_is_given_back() {
        let (_reader, writer) = io::pipe().unwrap();
        let (_a, datagram) = UnixDatagram::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let files: [OwnedFd; 3] = [writer.into(), datagram.into(), listener.into()];
        for file in files {
            assert!(CallSocket::new(file.into()).is_err());
        }
    }
}
