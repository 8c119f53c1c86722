//! One connection: its handshake, and what passes both ways. While something is not taken at one end,
//! nothing more is read at the other: what a peer makes us keep is one piece for each direction.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::connection::{Connection, Outcome};

/// The most bytes of a piece: a record of TLS.
pub const PIECE: usize = 16 << 10;

/// Pieces that pass in one turn, each way: others have theirs.
const TURN: usize = 16;

/// How long a handshake may take, and a peer whose first words are waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer may take for what is left when the switch has closed its side.
const LINGER: Duration = Duration::from_secs(10);

/// How to tell the switch how it ended.
pub const REFUSED: u8 = b'-';

/// The same, with a certificate that it may believe from now on.
pub const FOUND: u8 = b'+';

/// What waits to be taken.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    taken: usize,
}

impl Piece {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.rest().is_empty() {
            self.bytes.clear();
            self.taken = 0;
        }
    }
}

/// A connection.
pub struct Session {
    connection: Connection,
    /// Where the switch reads and writes.
    plain: OwnedFd,
    /// Where the switch is told how it ended.
    verdict: OwnedFd,
    shakes_hands: bool,
    /// Whether the peer's authority is to be told, and nothing else.
    asks: bool,
    inward: Piece,
    outward: Piece,
    /// What reading and writing at the peer's side wait for.
    read_wants: EventFlags,
    write_wants: EventFlags,
    peer_closed: bool,
    plain_closed: bool,
    /// Whether there may be more to do without anything coming.
    is_busy: bool,
    /// When it is over at the latest.
    until: Option<Instant>,
}

impl Session {
    /// One that begins with its handshake.
    pub fn new(
        connection: Connection,
        plain: OwnedFd,
        verdict: OwnedFd,
        asks: bool,
        now: Instant,
    ) -> Self {
        Self {
            connection,
            plain,
            verdict,
            shakes_hands: true,
            asks,
            inward: Piece::default(),
            outward: Piece::default(),
            read_wants: EventFlags::IN | EventFlags::OUT,
            write_wants: EventFlags::OUT,
            peer_closed: false,
            plain_closed: false,
            is_busy: true,
            until: now.checked_add(PATIENCE),
        }
    }

    /// The socket of the switch's side, or that of the peer's.
    pub fn fd(&self, is_plain: bool) -> BorrowedFd<'_> {
        if is_plain { self.plain.as_fd() } else { self.connection.fd() }
    }

    /// For what the sockets of the peer's side and of the switch's are to be watched; `None`: not at all, as nothing
    /// can be done now.
    pub fn interests(&self) -> [Option<EventFlags>; 2] {
        let none = EventFlags::empty();
        let (peer, plain) = if self.shakes_hands {
            (self.read_wants, none)
        } else {
            let (has_inward, has_outward) =
                (!self.inward.rest().is_empty(), !self.outward.rest().is_empty());
            let reads = if has_inward || self.peer_closed { none } else { self.read_wants };
            let writes = if has_outward { self.write_wants } else { none };
            let takes = if has_outward || self.plain_closed { none } else { EventFlags::IN };
            let gives = if has_inward { EventFlags::OUT } else { none };
            (reads | writes, takes | gives)
        };
        // That the switch has closed its side is to be seen at any time, once.
        let is_watched = !plain.is_empty() || !self.plain_closed;
        [Some(peer).filter(|peer| !peer.is_empty()), Some(plain).filter(|_| is_watched)]
    }

    pub const fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub const fn due(&self) -> Option<Instant> {
        self.until
    }

    /// Goes on as far as is possible; gives whether it is still there. `plain_ended`: the switch has closed
    /// its side.
    pub fn step(&mut self, plain_ended: bool, piece: &mut [u8], now: Instant) -> bool {
        if plain_ended && !self.plain_closed {
            // What it has said before is still to be sent.
            self.plain_closed = self.shakes_hands || !self.outward.rest().is_empty();
            self.until = now.checked_add(LINGER);
        }
        match self.go_on(piece, now) {
            Ok(true) => true,
            Ok(false) => {
                self.connection.shut_down();
                false
            }
            Err(reason) => {
                self.refuse(&reason);
                false
            }
        }
    }

    /// Tells the switch why it is over.
    pub fn refuse(&self, reason: &str) {
        tell(&self.verdict, REFUSED, reason.as_bytes());
    }

    fn go_on(&mut self, piece: &mut [u8], now: Instant) -> Result<bool, String> {
        self.is_busy = false;
        let is_late = self.until.is_some_and(|until| now >= until);
        if self.shakes_hands {
            if self.plain_closed {
                return Ok(false);
            }
            if !self.shake_hands()? {
                let late = || Err("the TLS handshake takes too long".to_owned());
                return if is_late { late() } else { Ok(true) };
            }
            if self.asks {
                let authority = self.connection.authority()?;
                tell(&self.verdict, FOUND, &authority);
                return Ok(false);
            }
            self.until = None;
        } else if is_late {
            return Ok(false);
        }
        let goes_on = self.pass_inward(piece)? && self.pass_outward(piece)?;
        Ok(goes_on)
    }

    /// Whether the handshake is done.
    fn shake_hands(&mut self) -> Result<bool, String> {
        match self.connection.shake_hands() {
            Outcome::Done(_) => {
                self.shakes_hands = false;
                self.read_wants = EventFlags::IN;
                Ok(true)
            }
            Outcome::Wants(what) => {
                self.read_wants = what;
                Ok(false)
            }
            Outcome::Closed => Err("closed during the handshake".to_owned()),
            Outcome::Failed(reason) => Err(reason),
        }
    }

    /// Passes on what the peer says; gives whether the connection is still there.
    fn pass_inward(&mut self, piece: &mut [u8]) -> Result<bool, String> {
        for _ in 0..TURN {
            let rest = self.inward.rest();
            if !rest.is_empty() {
                match send(&self.plain, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(count) => self.inward.take(count),
                    Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
                    Err(_) => return Ok(false),
                }
                continue;
            }
            if self.peer_closed {
                return Ok(false);
            }
            match self.connection.read(piece) {
                Outcome::Done(count) => self.inward.put(piece.get(..count).unwrap_or_default()),
                Outcome::Wants(what) => {
                    self.read_wants = what;
                    return Ok(true);
                }
                Outcome::Closed => self.peer_closed = true,
                Outcome::Failed(reason) => return Err(reason),
            }
        }
        self.is_busy = true;
        Ok(true)
    }

    /// Passes on what the switch says, in the same way.
    fn pass_outward(&mut self, piece: &mut [u8]) -> Result<bool, String> {
        for _ in 0..TURN {
            let rest = self.outward.rest();
            if !rest.is_empty() {
                match self.connection.write(rest) {
                    Outcome::Done(count) => self.outward.take(count),
                    Outcome::Wants(what) => {
                        self.write_wants = what;
                        return Ok(true);
                    }
                    Outcome::Closed => return Ok(false),
                    Outcome::Failed(reason) => return Err(reason),
                }
                continue;
            }
            match recv(&self.plain, &mut *piece, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Ok(false),
                Ok((_, count)) => self.outward.put(piece.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
        self.is_busy = true;
        Ok(true)
    }
}

/// Tells the switch how a connection ended.
pub fn tell(verdict: &OwnedFd, how: u8, words: &[u8]) {
    let message = [&[how], words].concat();
    let _ = send(verdict, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
