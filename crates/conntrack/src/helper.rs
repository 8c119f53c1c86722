//! Helpers: protocols whose connections announce others, in what their packets carry.
//!
//! A rule says which connections have one (`ct(commit,alg=ftp)`). Only packets of these are looked at, and of
//! these only where they go to the protocol's port, or come from it: what a file that somebody transfers has
//! in it announces nothing.

use std::sync::Arc;

use packet::headers::IpProtocol;

use crate::conn::Conn;
use crate::dissect::Seen;
use crate::ftp::{self, Said};
use crate::numbers::{Adjustment, Replacement};
use crate::state::{Request, State};
use crate::table::Conntrack;
use crate::tuple::Tuple;

/// The port that servers of FTP are asked at (RFC 959).
const FTP_PORT: u16 = 21;

/// The port that servers of TFTP are asked at (RFC 1350).
const TFTP_PORT: u16 = 69;

/// A protocol whose connections announce others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Helper {
    /// File transfer (RFC 959, RFC 2428).
    Ftp,
    /// The trivial one (RFC 1350).
    Tftp,
}

impl Helper {
    /// What Open vSwitch calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }

    /// Whether a connection with these ends may announce others, and not only be one of them.
    pub(crate) const fn is_for(self, original: &Tuple, reply: &Tuple) -> bool {
        let (protocol, port) = match self {
            Self::Ftp => (IpProtocol::TCP, FTP_PORT),
            Self::Tftp => (IpProtocol::UDP, TFTP_PORT),
        };
        original.protocol().0 == protocol.0
            && (original.ports().1 == port || reply.ports().0 == port)
    }

    /// Whether a packet with these ends may announce something, by its ports.
    pub(crate) fn may_be_for(tuple: &Tuple) -> bool {
        let (from, to) = tuple.ports();
        match tuple.protocol() {
            IpProtocol::TCP => [from, to].contains(&FTP_PORT),
            IpProtocol::UDP => to == TFTP_PORT,
            _ => false,
        }
    }

    /// What a packet announces.
    fn listen(self, conn: &Conn, (seen, is_reply): (&Seen, bool), bytes: &[u8]) -> Heard {
        match self {
            Self::Ftp => {
                let said = ftp::said(bytes, is_reply, seen.tuple().source().is_ipv6());
                heard(conn, is_reply, &said)
            }
            // The answer to a request comes from another port, to that which it came from.
            Self::Tftp if !is_reply && matches!(bytes, [0, 1 | 2, ..]) => Heard::Port(None, None),
            Self::Tftp => Heard::Nothing,
        }
    }
}

/// What a packet announces.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// What nobody can make sense of, or what would open ports of somebody else.
    Bad,
    /// A connection to this port of its sender; `None`: to the port that it came from. And what is to be
    /// written in place of its address, if that is translated.
    Port(Option<u16>, Option<Replacement>),
}

/// What a message of FTP announces: nobody but its sender, by his address on either side of the translation.
fn heard(conn: &Conn, is_reply: bool, said: &Said) -> Heard {
    let Said::Port { address, place, has_commas, port } = said else {
        return if *said == Said::Bad { Heard::Bad } else { Heard::Nothing };
    };
    let (inside, outside) = match is_reply {
        false => (conn.original.source(), conn.reply().destination()),
        true => (conn.reply().source(), conn.original.destination()),
    };
    match *address {
        Some(address) if address == outside => Heard::Port(Some(*port), None),
        Some(address) if address != inside => Heard::Bad,
        Some(_) => {
            let replacement = Replacement::address(place.clone(), outside, *has_commas);
            Heard::Port(Some(*port), Some(replacement))
        }
        None => Heard::Port(Some(*port), None),
    }
}

/// What a helper says of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overheard {
    /// It announces what cannot be.
    pub is_bad: bool,
    /// How it is changed beside its ends, if it is.
    pub adjustment: Option<Adjustment>,
}

/// Has the helper of a connection look at one of its packets; `None` if it has none.
pub(crate) fn overhear(
    all: &Conntrack,
    conn: &Arc<Conn>,
    (seen, request, carried): (&Seen, &Request, &[u8]),
    now: u64,
) -> Option<Overheard> {
    let is_reply = conn.way(&seen.tuple, request.is_translated)?;
    let helper = conn.told(State::ESTABLISHED, request, is_reply).listener?;
    let (is_bad, replacement) = match helper.listen(conn, (seen, is_reply), carried) {
        Heard::Nothing => (false, None),
        Heard::Bad => (true, None),
        Heard::Port(port, replacement) => (!all.expect(conn, (is_reply, port), now), replacement),
    };
    let is_changed = request.nat.is_some() && !request.is_translated;
    let segment = seen.segment.filter(|_| is_changed && conn.translated().is_some());
    let adjustment =
        segment.and_then(|segment| conn.control()?.numbers.adjust(&segment, is_reply, replacement));
    Some(Overheard { is_bad, adjustment })
}
