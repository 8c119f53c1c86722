//! One connection: its socket, and what is half read or half written.
//!
//! While what is to be sent is not sent, nothing is read: what a peer makes us keep is a message of
//! its own, the answer to one, and what its outbox has room for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ofproto::{Bridge, Closed, ConnectionId, Datapath};
use openflow::framing::Splitter;
use openflow::message::{Kind, Message};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tls::{PATIENCE, Verdict};

use super::vconn;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Messages taken in one turn, as long as that takes no longer than this, in milliseconds: others have theirs, and want
/// to hear that we are there. What a message asks for may have to wait for a worker each time.
const TURN: usize = 64;
pub(super) const SLICE: u64 = 5;

/// Bytes that wait for a peer, of what it is told unasked.
pub const ROOM: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub struct Peer {
    socket: OwnedFd,
    /// How it ended, where others secure it.
    verdict: Option<Verdict>,
    pub(super) id: ConnectionId,
    /// Who it is, for the log.
    pub(super) name: String,
    input: Splitter,
    output: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// It has asked for something that others do: until then, nothing more is taken.
    pub(super) waits: bool,
    /// Whether there may be a whole message that was not taken yet.
    has_more: bool,
    /// When something came last, or was sent last where it has to be.
    active: Instant,
    /// When something came last.
    heard: Instant,
    /// How long it may be silent before it is asked whether it is there.
    probe: Option<Duration>,
    probed: bool,
    /// What has come and gone since it was taken, if others listen.
    copies: Option<Vec<Vec<u8>>>,
}

impl Peer {
    /// A connection by a socket that does not block, and how it ended, where others secure it.
    pub fn new(
        (socket, verdict): (OwnedFd, Option<Verdict>),
        id: ConnectionId,
        name: String,
        probe: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            verdict,
            id,
            name,
            input: Splitter::default(),
            output: Vec::new(),
            sent: 0,
            waits: false,
            has_more: false,
            active: now,
            heard: now,
            probe,
            probed: false,
            copies: None,
        }
    }

    /// Has what comes and goes be copied for those who listen, or no longer.
    pub fn set_heard(&mut self, is_heard: bool) {
        self.copies = is_heard.then(|| self.copies.take().unwrap_or_default());
    }

    /// What has come and gone since this was called last.
    pub fn take_copies(&mut self) -> Vec<Vec<u8>> {
        self.copies.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn copy(&mut self, message: &[u8]) {
        if let Some(copies) = &mut self.copies {
            copies.push(message.to_vec());
        }
    }

    /// The descriptor to be polled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What it is to be polled for.
    pub fn interest(&self, bridge: &Bridge) -> PollFlags {
        if self.sent < self.output.len() || !bridge.is_drained(self.id) {
            PollFlags::OUT
        } else if self.waits {
            PollFlags::empty()
        } else {
            PollFlags::IN
        }
    }

    /// Whether it can go on without anything coming, and without anything of it being read.
    pub const fn is_busy(&self) -> bool {
        self.has_more && !self.waits && self.sent >= self.output.len()
    }

    /// When it has to be looked at although nothing comes.
    pub fn due(&self, bridge: &Bridge) -> Option<Instant> {
        let probe = self
            .probe
            .and_then(|probe| self.heard.checked_add(probe * if self.probed { 2 } else { 1 }));
        let is_stuck = self.sent < self.output.len() || bridge.version(self.id).is_none();
        let patience = self.active.checked_add(PATIENCE).filter(|_| is_stuck);
        probe.into_iter().chain(patience).min()
    }

    /// Reads, has messages answered, writes; nothing of it waits. `now` is the time by the bridge's
    /// clock.
    pub fn step(
        &mut self,
        bridge: &mut Bridge,
        datapath: &mut dyn Datapath,
        now: Instant,
    ) -> Result<(), Closed> {
        self.write(bridge)?;
        let begin = datapath.now();
        for _ in 0..TURN {
            if self.waits || self.sent < self.output.len() {
                break;
            }
            let next = self.input.next().map_err(|error| Closed(error.to_string()))?;
            let Some(message) = next else {
                self.has_more = false;
                if !self.read()? {
                    break;
                }
                self.has_more = true;
                continue;
            };
            self.receive(&message, bridge, datapath, now)?;
            if bridge.has_job(self.id) {
                self.waits = true;
            }
            if datapath.now().saturating_sub(begin) >= SLICE {
                break;
            }
        }
        self.check_patience(bridge)
    }

    fn receive(
        &mut self,
        message: &[u8],
        bridge: &mut Bridge,
        datapath: &mut dyn Datapath,
        now: Instant,
    ) -> Result<(), Closed> {
        vconn::received(&self.name, message);
        self.copy(message);
        let is_new = bridge.version(self.id).is_none();
        let received = bridge.receive(self.id, message, datapath, now);
        if let Some(version) = bridge.version(self.id).filter(|_| is_new) {
            vconn::negotiated(&self.name, version, bridge.settings().versions, message);
        }
        self.write(bridge)?;
        received
    }

    /// Closes what has not said HELLO for long, does not read, or does not answer; asks the silent.
    fn check_patience(&mut self, bridge: &mut Bridge) -> Result<(), Closed> {
        let now = Instant::now();
        if bridge.is_overrun(self.id) {
            return Err(Closed("it does not read what its flow monitors tell".to_owned()));
        }
        let Some(version) = bridge.version(self.id) else {
            let is_late = now.saturating_duration_since(self.active) >= PATIENCE;
            return if is_late { Err(Closed("no HELLO".to_owned())) } else { Ok(()) };
        };
        if self.sent < self.output.len() {
            let is_late = now.saturating_duration_since(self.active) >= PATIENCE;
            return if is_late { Err(Closed("it does not read".to_owned())) } else { Ok(()) };
        }
        let Some(probe) = self.probe else { return Ok(()) };
        let silence = now.saturating_duration_since(self.heard);
        if self.probed && silence >= probe * 2 {
            let seconds = probe.as_secs();
            return Err(Closed(format!("no response to inactivity probe after {seconds} seconds")));
        }
        if !self.probed && silence >= probe {
            self.probed = true;
            let probe = Message::new(version, Kind::EchoRequest, 0).finish();
            self.copy(&probe);
            self.output.extend(probe);
            self.active = now;
            return self.write(bridge);
        }
        Ok(())
    }

    /// Whether something has come.
    fn read(&mut self) -> Result<bool, Closed> {
        let mut chunk = vec![0; CHUNK];
        match recv(&self.socket, chunk.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(self.ended("connection closed by peer".to_owned())),
            Ok((_, count)) => {
                self.input.push(chunk.get(..count).unwrap_or_default());
                self.heard = Instant::now();
                self.probed = false;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(self.ended(format!("connection dropped ({error})"))),
        }
    }

    /// Why it ended, in these words if nobody knows better.
    fn ended(&self, why: String) -> Closed {
        Closed(self.verdict.as_ref().and_then(Verdict::words).unwrap_or(why))
    }

    /// Sends what waits, as far as the peer takes it.
    fn write(&mut self, bridge: &mut Bridge) -> Result<(), Closed> {
        loop {
            let rest = self.output.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.output.clear();
                self.sent = 0;
                match bridge.take(self.id) {
                    Some(message) => {
                        self.copy(&message);
                        self.output = message;
                    }
                    None => return Ok(()),
                }
                continue;
            }
            let sent = send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            if self.sent == 0 && !matches!(sent, Err(Errno::AGAIN | Errno::INTR)) {
                vconn::sent(&self.name, rest, sent.err());
            }
            match sent {
                Ok(count) => {
                    self.sent = self.sent.saturating_add(count);
                    self.active = Instant::now();
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(self.ended(format!("connection dropped ({error})"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use ofproto::{Detached, Origin, Settings};
    use openflow::Version;

    use super::*;

    const ASKED: usize = 20;

    /// How many of the questions are answered in one turn, and in how many turns all are.
    fn turns(by: u64) -> (usize, usize) {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (mut bridge, mut slow) = (Bridge::new(Settings::default()), Detached::with_pace(by));
        let id = bridge.connect(Origin::Service, ROOM);
        near.set_nonblocking(true).unwrap();
        let mut peer = Peer::new((near.into(), None), id, "test".into(), None);
        let message = |kind| Message::new(Version::V13, kind, 7).finish();
        far.write_all(&message(Kind::Hello)).unwrap();
        let now = Instant::now();
        while bridge.version(id).is_none() {
            peer.step(&mut bridge, &mut slow, now).unwrap();
        }
        far.write_all(&vec![message(Kind::EchoRequest); ASKED].concat()).unwrap();
        far.set_nonblocking(true).unwrap();
        let (mut bytes, mut first, mut turns) = (Vec::new(), None, 0);
        let reply = message(Kind::EchoReply);
        let answers =
            |bytes: &[u8]| bytes.windows(reply.len()).filter(|part| *part == reply).count();
        while answers(&bytes) < ASKED {
            assert!(turns < 2 * ASKED && (turns == 0 || peer.is_busy()), "it has more to do");
            peer.step(&mut bridge, &mut slow, now).unwrap();
            turns += 1;
            let _ = far.read_to_end(&mut bytes);
            first.get_or_insert(answers(&bytes));
        }
        (first.unwrap(), turns)
    }

    #[test]
    fn whoever_has_much_to_say_is_served_a_while_and_others_then() {
        assert_eq!(turns(0), (ASKED, 1));
        let (first, all) = turns(1);
        assert!((1..=5).contains(&first) && all >= ASKED / 5, "{first} in the first of {all}");
        // However long a message takes, one gets its turn.
        assert_eq!(turns(SLICE), (1, ASKED));
    }

    #[test]
    fn whoever_does_not_read_keeps_nobody_busy() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (mut bridge, mut slow) = (Bridge::new(Settings::default()), Detached::default());
        let id = bridge.connect(Origin::Service, ROOM);
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut peer = Peer::new((near.into(), None), id, "test".into(), None);
        let hello = Message::new(Version::V13, Kind::Hello, 7).finish();
        far.write_all(&hello).unwrap();
        let now = Instant::now();
        let mut step = |peer: &mut Peer| peer.step(&mut bridge, &mut slow, now).unwrap();
        let (mut asked, len) = (0, 4_096);
        let mut echo = vec![4, 2, 0x10, 0, 0, 0, 0, 7];
        echo.resize(len, 7);
        // Asked until the answers fill the socket, and so the questions theirs.
        while let Ok(sent) = far.write(&echo) {
            assert_eq!(sent, len);
            asked += 1;
            step(&mut peer);
        }
        assert!(peer.has_more && peer.sent < peer.output.len());
        assert!(!peer.is_busy());
        // Once it reads, all is answered.
        let mut read = 0;
        while read < asked * len {
            read += far.read(&mut [0; 1 << 16]).unwrap();
            step(&mut peer);
        }
    }
}
