//! Programs that listen to what goes between a bridge and one of its controllers: `ovs-ofctl snoop`, at the
//! socket `BRIDGE.snoop`.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use openflow::VersionSet;
use openflow::message::hello::Hello;
use ovsdb::Uuid;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::peer::ROOM;

/// Bytes of what one says that are read, and forgotten, at once.
const CHUNK: usize = 4_096;

/// One of them.
#[derive(Debug)]
pub struct Snooper {
    socket: OwnedFd,
    /// The controller that it listens to.
    pub(super) of: Uuid,
    output: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// Messages that had no room.
    dropped: u64,
}

impl Snooper {
    /// One by `socket`, which does not block, that listens to a controller.
    pub fn new(socket: OwnedFd, of: Uuid) -> Self {
        let output = Hello { versions: VersionSet::ALL }.encode(0);
        Self { socket, of, output, sent: 0, dropped: 0 }
    }

    /// The descriptor to be polled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What it is to be polled for.
    pub const fn interest(&self) -> PollFlags {
        let is_behind = self.sent < self.output.len();
        if is_behind { PollFlags::IN.union(PollFlags::OUT) } else { PollFlags::IN }
    }

    /// Has it hear a message, if there is room for it.
    pub fn hear(&mut self, message: &[u8]) {
        let waiting = self.output.len().saturating_sub(self.sent);
        if waiting.saturating_add(message.len()) > ROOM {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.output.extend(message);
        }
    }

    /// Sends what waits, and forgets what it says; returns whether it is still there.
    pub fn step(&mut self) -> bool {
        let is_there = self.read() && self.write();
        if !is_there && self.dropped > 0 {
            tracing::info!(messages = self.dropped, "a snooper did not read fast enough");
        }
        is_there
    }

    fn read(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match recv(&self.socket, chunk.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, count)) => count > 0,
            Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    fn write(&mut self) -> bool {
        let rest = self.output.get(self.sent..).unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => self.sent = self.sent.saturating_add(count),
            Err(error) => return matches!(error, Errno::AGAIN | Errno::INTR),
        }
        // What is sent takes room until it is more than what is not.
        if self.sent.saturating_mul(2) >= self.output.len() {
            self.output.drain(..self.sent.min(self.output.len()));
            self.sent = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Snooper, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Snooper::new(ours.into(), Uuid(1)), theirs)
    }

    #[test]
    fn it_is_greeted_and_hears_all() {
        let (mut snooper, mut theirs) = pair();
        snooper.hear(b"a message");
        assert!(snooper.step() && snooper.output.is_empty());
        let hello = Hello { versions: VersionSet::ALL }.encode(0);
        let mut heard = vec![0; hello.len() + 9];
        theirs.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [&hello[..], b"a message"].concat());
        drop(theirs);
        assert!(!snooper.step());
    }

    #[test]
    fn who_does_not_read_misses_what_has_no_room() {
        let (mut snooper, _theirs) = pair();
        for _ in 0..40 {
            snooper.hear(&vec![0; 60_000]);
            assert!(snooper.step());
        }
        assert!(snooper.dropped > 0 && snooper.output.len() <= 2 * ROOM);
    }
}
