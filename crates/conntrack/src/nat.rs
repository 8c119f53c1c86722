//! Translation of addresses and ports: what is asked for, and which ends are tried.
//!
//! A connection whose ends are translated has packets with two pairs of ends: those of its first packet
//! as it came, and those of the packets that come back. The latter must be of no other connection, so
//! that each packet says which it is of. Where they are taken, others are tried, but only so many: who
//! has taken all of them must not hold up a worker with further ones.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::headers::IpProtocol;

use crate::tuple::{Tuple, halves};

/// So many ports are tried. Where there are more to choose from, those behind the first are anywhere, and
/// not side by side: ports that are taken are.
const TRIES: u32 = 128;

/// The ports that a port is replaced with where nothing is said: those of the same kind.
const LOWEST: (u16, u16) = (1, 511);
const RESERVED: (u16, u16) = (600, 1023);
const OTHERS: (u16, u16) = (1024, 65535);

/// Which end of a connection is translated, as its first packet has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatEnd {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// How packets are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nat {
    /// Which end of connections that begin; `None`: packets of connections that there are already are
    /// translated as these are, and nothing else is.
    pub end: Option<NatEnd>,
    /// The least and the largest address to choose from. `None`: the address stays, and the port, too,
    /// as long as it is of no other connection.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The least and the largest port to choose from.
    pub ports: Option<(u16, u16)>,
    /// The address is chosen by that of the client alone, so that it has the same one each time.
    pub is_persistent: bool,
    /// Ports are chosen by a hash, which they are in any case.
    pub by_hash: bool,
    /// Ports are chosen at random.
    pub is_random: bool,
}

/// What chooses for one connection. All numbers are such that nobody outside can tell them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    /// Which address.
    pub(crate) address: u64,
    /// With which port it begins.
    pub(crate) port: u64,
    /// Where it goes on when those behind are taken.
    pub(crate) other: u64,
}

/// Where chances come from: seeds that nobody knows, and others than connections are found by, since what
/// is chosen can be seen.
#[derive(Debug)]
pub(crate) struct Chances(RandomState);

impl Default for Chances {
    fn default() -> Self {
        Self(RandomState::new())
    }
}

impl Chances {
    /// What chooses for a connection that begins with these ends.
    pub(crate) fn of(&self, original: &Tuple, nat: &Nat) -> Chance {
        let own = self.0.hash_one(original);
        let address = if nat.is_persistent { self.0.hash_one(original.of_client()) } else { own };
        let port = if nat.is_random { RandomState::new().hash_one(original) } else { own >> 32 };
        Chance { address, port, other: RandomState::new().hash_one(own) }
    }
}

/// Ports to try, one after the other.
#[derive(Clone, Copy, Debug)]
struct Ports {
    least: u16,
    /// How many there are.
    count: u32,
    /// How far behind the least the next one is.
    at: u32,
    /// How many are still tried.
    left: u32,
    /// Where the one behind is, if not all are tried.
    other: u64,
}

impl Ports {
    fn new((least, largest): (u16, u16), first: u32, other: u64) -> Self {
        let count = u32::from(largest.saturating_sub(least)) + 1;
        Self { least, count, at: first % count, left: count.min(TRIES), other }
    }

    /// This one, and others of its kind.
    fn of_kind(port: u16, other: u64) -> Self {
        let range = same_kind(port);
        Self::new(range, u32::from(port.saturating_sub(range.0)), other)
    }
}

impl Iterator for Ports {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let port = u32::from(self.least) + self.at;
        let behind = if self.count <= TRIES {
            u64::from(self.at) + 1
        } else {
            let [high, low] = halves((u128::from(self.other) + 1) * 0x9E37_79B9_7F4A_7C15);
            self.other = high ^ low;
            self.other
        };
        self.at = u32::try_from(behind % u64::from(self.count.max(1))).unwrap_or_default();
        u16::try_from(port).ok()
    }
}

/// Ends of packets that come back, to be tried one after the other.
#[derive(Debug)]
pub(crate) struct Tries {
    reply: Tuple,
    /// Ports of the side that the first packet goes to, beside the client's own one.
    servers: Option<Ports>,
    /// Then those of the other side, beside the first of these.
    clients: Option<Ports>,
    client: u16,
    server: u16,
}

impl Nat {
    /// What packets may come back as, of a connection that begins with these ends. `None`: nothing is
    /// to be translated, or cannot be, as addresses of another family.
    pub(crate) fn tries(&self, original: &Tuple, chance: Chance) -> Option<Tries> {
        let end = self.end?;
        let reply = self.translated(original, end, chance.address)?;
        let (client, server) = original.numbers();
        let first = u32::try_from(chance.port & 0xFFFF_FFFF).unwrap_or_default();
        // Of ICMP there is only an identifier, which stays where it can.
        let ports = self.ports.filter(|_| !original.is_icmp());
        let asked = ports.map(|range| Ports::new(range, first, chance.other));
        let alike = Ports::of_kind(client, chance.other);
        let (servers, clients) = match end {
            _ if !has_numbers(original) => (None, None),
            NatEnd::Source => (None, Some(asked.unwrap_or(alike))),
            NatEnd::Destination => (asked, Some(alike)),
        };
        let server = servers.and_then(|mut ports| ports.next()).unwrap_or(server);
        Some(Tries { reply, servers, clients, client, server })
    }

    /// The ends of what comes back, but for ports.
    fn translated(&self, original: &Tuple, end: NatEnd, chance: u64) -> Option<Tuple> {
        let reply = original.reversed();
        let Some((least, largest)) = self.addresses else { return Some(reply) };
        let address = pick(least, largest, chance);
        match end {
            NatEnd::Source => reply.to(address),
            NatEnd::Destination => reply.from(address),
        }
    }
}

impl Iterator for Tries {
    type Item = Tuple;

    fn next(&mut self) -> Option<Tuple> {
        if let Some(server) = self.servers.as_mut().and_then(Iterator::next) {
            return Some(self.reply.answering(self.client, server));
        }
        match &mut self.clients {
            Some(clients) => Some(self.reply.answering(clients.next()?, self.server)),
            // There is nothing to choose.
            None => {
                let none = Ports { left: 0, ..Ports::of_kind(self.client, 0) };
                self.clients = Some(none);
                Some(self.reply)
            }
        }
    }
}

/// Whether packets have ports, or an identifier, that can be replaced.
fn has_numbers(tuple: &Tuple) -> bool {
    tuple.is_icmp()
        || matches!(tuple.protocol(), IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP)
}

/// Ports that one is replaced with where nothing is said.
const fn same_kind(port: u16) -> (u16, u16) {
    match port {
        0..=511 => LOWEST,
        512..=1023 => RESERVED,
        1024.. => OTHERS,
    }
}

/// An address of those between two.
fn pick(least: IpAddr, largest: IpAddr, chance: u64) -> IpAddr {
    match (least, largest) {
        (IpAddr::V4(least), IpAddr::V4(largest)) => {
            let (least, largest) = (u64::from(u32::from(least)), u64::from(u32::from(largest)));
            let count = largest.saturating_sub(least) + 1;
            let address = least + chance % count;
            Ipv4Addr::from(u32::try_from(address).unwrap_or_default()).into()
        }
        (IpAddr::V6(least), IpAddr::V6(largest)) => {
            let (least, largest) = (u128::from(least), u128::from(largest));
            let count = largest.saturating_sub(least).saturating_add(1);
            Ipv6Addr::from(least.saturating_add(u128::from(chance) % count)).into()
        }
        _ => least,
    }
}
