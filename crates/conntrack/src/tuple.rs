//! Tuples: what packets of a connection have in common, in one direction.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::headers::IpProtocol;

/// Types of ICMP that ask, and those that answer them (RFC 792).
const QUERIES: [(u8, u8); 3] = [(8, 0), (13, 14), (15, 16)];

/// Those of ICMPv6 (RFC 4443, section 4).
const QUERIES_V6: [(u8, u8); 1] = [(128, 129)];

/// Addresses, protocol and ports of packets that go one way, and their zone: connections in
/// different zones have nothing to do with each other.
///
/// Messages of ICMP that ask and answer have an identifier and a type in place of ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// IPv4 is in the lowest 32 bits.
    source: [u64; 2],
    destination: [u64; 2],
    /// ICMP: the identifier.
    from: u16,
    /// ICMP: the type.
    to: u16,
    zone: u16,
    protocol: u8,
    is_v6: bool,
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, zone, protocol, .. } = self;
        let (source, destination) = (self.source(), self.destination());
        write!(f, "{protocol} {source}:{from} {destination}:{to} zone {zone}")
    }
}

impl Tuple {
    /// Of packets from one address and port to another; `None` where they are not of one family.
    ///
    /// Of ICMP, the first port is the identifier, and the second one the type.
    #[must_use]
    pub fn new(
        protocol: IpProtocol,
        (source, from): (IpAddr, u16),
        (destination, to): (IpAddr, u16),
        zone: u16,
    ) -> Option<Self> {
        let is_v6 = source.is_ipv6();
        if is_v6 != destination.is_ipv6() {
            return None;
        }
        let (source, destination) = (words(source), words(destination));
        Some(Self { source, destination, from, to, zone, protocol: protocol.0, is_v6 })
    }

    /// Where packets come from.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        address(self.source, self.is_v6)
    }

    /// Where they go.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        address(self.destination, self.is_v6)
    }

    /// What they are.
    #[must_use]
    pub const fn protocol(&self) -> IpProtocol {
        IpProtocol(self.protocol)
    }

    /// Where it is tracked.
    #[must_use]
    pub const fn zone(&self) -> u16 {
        self.zone
    }

    /// Source and destination port; 0 where the protocol has none, and for ICMP.
    #[must_use]
    pub const fn ports(&self) -> (u16, u16) {
        if self.is_icmp() { (0, 0) } else { (self.from, self.to) }
    }

    /// Of ICMP, identifier and type.
    #[must_use]
    pub fn query(&self) -> Option<(u16, u8)> {
        let kind = u8::try_from(self.to).unwrap_or_default();
        self.is_icmp().then_some((self.from, kind))
    }

    /// Whether it is ICMP or ICMPv6.
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        self.protocol == if self.is_v6 { IpProtocol::ICMPV6.0 } else { IpProtocol::ICMP.0 }
    }

    /// That of the packets that go back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let Self { source, destination, from, to, .. } = *self;
        let (from, to) = match self.query() {
            Some((id, kind)) => (id, opposite(kind, self.is_v6).unwrap_or(kind).into()),
            None => (to, from),
        };
        Self { source: destination, destination: source, from, to, ..*self }
    }

    /// The same from another address; `None` where it is of another family.
    pub(crate) fn from(&self, address: IpAddr) -> Option<Self> {
        (address.is_ipv6() == self.is_v6).then(|| Self { source: words(address), ..*self })
    }

    /// The same to another address; `None` where it is of another family.
    pub(crate) fn to(&self, address: IpAddr) -> Option<Self> {
        (address.is_ipv6() == self.is_v6).then(|| Self { destination: words(address), ..*self })
    }

    /// Source and destination port; of ICMP, the identifier, and none.
    pub(crate) const fn numbers(&self) -> (u16, u16) {
        if self.is_icmp() { (self.from, 0) } else { (self.from, self.to) }
    }

    /// The same, as what comes back between these ports; of ICMP, with that identifier.
    pub(crate) const fn answering(&self, client: u16, server: u16) -> Self {
        if self.is_icmp() {
            Self { from: client, ..*self }
        } else {
            Self { from: server, to: client, ..*self }
        }
    }

    /// The same to this port, from any one; `None` where there are no ports.
    pub(crate) fn expected(&self, port: u16) -> Option<Self> {
        (!self.is_icmp()).then_some(Self { from: 0, to: port, ..*self })
    }

    /// What stays the same for all connections of whoever it comes from.
    pub(crate) const fn of_client(&self) -> Self {
        Self { destination: [0; 2], from: 0, to: 0, ..*self }
    }

    /// The same for both directions.
    pub(crate) fn canonical(&self) -> Self {
        (*self).min(self.reversed())
    }

    /// A hash that is the same for both directions. Who does not know `seed` cannot choose it.
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let Self { source, destination, from, to, zone, protocol, .. } = *self;
        let mix = |hash: u64, word: u64| fold(u128::from(hash ^ word) * u128::from(seed | 1));
        let is_icmp = self.is_icmp();
        // Words that somebody chooses must not meet before the seed has been multiplied with one of them: he
        // would make up for a change of one by a change of the other.
        let end = |[high, low]: [u64; 2], port: u16| {
            let both = u128::from(high ^ seed) * u128::from(low ^ seed.rotate_left(32));
            mix(fold(both), u64::from(port))
        };
        // The type of a query is not that of its answer.
        let (from, to, id) = if is_icmp { (0, 0, from) } else { (from, to, 0) };
        let ends = end(source, from).wrapping_add(end(destination, to));
        mix(ends, u64::from(id) << 32 | u64::from(zone) << 16 | u64::from(protocol))
    }
}

/// Both halves of a product, mixed.
fn fold(product: u128) -> u64 {
    let [high, low] = halves(product);
    high ^ low
}

/// The more and the less significant half.
pub(crate) fn halves(value: u128) -> [u64; 2] {
    [value >> 64, value & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or_default())
}

fn words(address: IpAddr) -> [u64; 2] {
    halves(match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    })
}

fn address([high, low]: [u64; 2], is_v6: bool) -> IpAddr {
    let value = u128::from(high) << 64 | u128::from(low);
    match u32::try_from(value) {
        Ok(value) if !is_v6 => IpAddr::V4(Ipv4Addr::from(value)),
        _ => IpAddr::V6(Ipv6Addr::from(value)),
    }
}

fn pairs(is_v6: bool) -> &'static [(u8, u8)] {
    if is_v6 { &QUERIES_V6 } else { &QUERIES }
}

/// The type of ICMP that answers one, or that it answers.
pub(crate) fn opposite(kind: u8, is_v6: bool) -> Option<u8> {
    pairs(is_v6).iter().find_map(|(asks, answers)| match kind {
        kind if kind == *asks => Some(*answers),
        kind if kind == *answers => Some(*asks),
        _ => None,
    })
}

/// Whether a type of ICMP asks something.
pub(crate) fn asks(kind: u8, is_v6: bool) -> bool {
    pairs(is_v6).iter().any(|(asks, _)| *asks == kind)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tuple(protocol: u8, source: &str, from: u16, destination: &str, to: u16) -> Tuple {
        let [source, destination] = [source, destination].map(|text| text.parse().unwrap());
        Tuple::new(IpProtocol(protocol), (source, from), (destination, to), 7).unwrap()
    }

    #[test]
    fn the_way_back_is_the_way_back() {
        let there = tuple(6, "10.0.0.1", 4000, "10.0.0.2", 80);
        let back = tuple(6, "10.0.0.2", 80, "10.0.0.1", 4000);
        assert_eq!((there.reversed(), back.reversed()), (back, there));
        assert_eq!((there.canonical(), there.hash(5)), (back.canonical(), back.hash(5)));
        let ping = tuple(58, "fe80::1", 99, "fe80::2", 128);
        assert_eq!(ping.reversed(), tuple(58, "fe80::2", 99, "fe80::1", 129));
        assert_eq!((ping.ports(), ping.reversed().query()), ((0, 0), Some((99, 129))));
        // That number is ICMP's only in IPv6.
        let other = tuple(58, "10.0.0.1", 0, "10.0.0.2", 0);
        assert_eq!((other.is_icmp(), other.query()), (false, None));
    }

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["0.0.0.0", "255.1.2.3", "::", "::1.2.3.4", "::ffff:1.2.3.4", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            let tuple = Tuple::new(IpProtocol::UDP, (address, 1), (address, 2), 0).unwrap();
            assert_eq!((tuple.source(), tuple.destination()), (address, address));
        }
        let [v4, v6]: [IpAddr; 2] = ["1.2.3.4", "::1"].map(|text| text.parse().unwrap());
        assert!(Tuple::new(IpProtocol::UDP, (v4, 1), (v6, 2), 0).is_none());
    }

    #[test]
    fn nobody_makes_up_for_an_address_by_a_port() {
        let v4 = |host: u16| tuple(6, &format!("10.0.0.{host}"), 4096 ^ host, "10.1.0.1", 80);
        let v6 = |host: u16| tuple(6, &format!("fe80:0:0:{host:x}::{host:x}"), 9, "fe80::", 80);
        let both = |host: u16| tuple(6, &format!("fe80::{host:x}"), 4096 ^ host, "fe80::", 80);
        for seed in [0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210, 0xDEAD_BEEF_0BAD_CAFE] {
            for tuple in [&v4 as &dyn Fn(u16) -> Tuple, &v6, &both] {
                let hashes: HashSet<u64> = (1..=99).map(|host| tuple(host).hash(seed)).collect();
                assert_eq!(hashes.len(), 99, "{:?}", tuple(1));
            }
        }
    }

    #[test]
    fn hashes_differ_where_one_bit_does() {
        let tuple = tuple(17, "10.0.0.1", 1, "10.0.0.2", 2);
        for seed in [0, 1, 0x1234_5678_9ABC_DEF0] {
            let other = Tuple { zone: 8, ..tuple };
            assert_ne!(tuple.hash(seed), other.hash(seed), "{seed}");
        }
    }
}
