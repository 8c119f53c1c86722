//! Where an outer packet goes: by which bridge, from which address, to whom.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use arrayvec::ArrayVec;
use eal::clock;
use ethdev::DropReason;
use litemap::LiteMap;
use packet::MacAddr;
use packet::checksum::Checksum;
use tunnel::{Link, Meta, Prefix};

use crate::bridge::BridgeId;

/// How long until the same question is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most questions within that time.
const MAX_ASKED: usize = 64;

/// The own port of a bridge, by which the host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its number.
    pub port: u16,
    /// The bridge.
    pub bridge: BridgeId,
    /// The address of the host there.
    pub mac: MacAddr,
    /// The addresses of the host there.
    pub addresses: Vec<IpAddr>,
}

/// A way to some addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where it leads.
    pub to: Prefix,
    /// The place of the end by which it leads.
    pub end: usize,
    /// Who takes packets on, if somebody has to.
    pub gateway: Option<IpAddr>,
    /// The source of what goes there; `None`: one of the end's.
    pub source: Option<IpAddr>,
    /// The mark of the packets that it is for.
    pub mark: u32,
}

/// All ways, and who is known on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Where the host is reached.
    pub ends: Vec<End>,
    /// The longest prefixes first.
    pub ways: Vec<Way>,
    /// By the place of the end; and whether they are to be asked again.
    pub neighbours: LiteMap<(usize, IpAddr), (MacAddr, bool)>,
}

/// A next hop.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'w> {
    /// The end by which it is reached.
    pub end: &'w End,
    /// Between whom the outer frame goes.
    pub link: Link,
    /// The source of the outer packet.
    pub source: IpAddr,
    /// Whether to ask where it is, all the same.
    pub(crate) asks: bool,
}

/// Why there is none.
#[derive(Clone, Copy, Debug)]
pub enum NoHop<'w> {
    /// It is lost, for this reason.
    Lost(DropReason),
    /// The next hop has to be asked first: by which end, from which address, and who.
    Ask(&'w End, IpAddr, IpAddr),
}

impl Ways {
    /// The next hop for an outer header, of packets with this mark.
    pub fn hop(&self, meta: &Meta, mark: u32) -> Result<(Hop<'_>, IpAddr), NoHop<'_>> {
        let none = NoHop::Lost(DropReason::NoRoute);
        let is_it = |way: &&Way| way.mark == mark && way.to.has(meta.destination);
        let way = self.ways.iter().find(is_it).ok_or(none)?;
        let end = self.ends.get(way.end).ok_or(none)?;
        let source = match meta.source.is_unspecified() {
            true => way.source.ok_or(none)?,
            false => meta.source,
        };
        let next = way.gateway.unwrap_or(meta.destination);
        let Some((mac, asks)) = self.neighbours.get(&(way.end, next)) else {
            return Err(NoHop::Ask(end, source, next));
        };
        let link = Link { source: end.mac, destination: *mac };
        Ok((Hop { end, link, source, asks: *asks }, next))
    }
}

/// Who was asked lately, and when, in clock cycles.
#[derive(Debug, Default)]
pub(crate) struct Asked(RefCell<ArrayVec<(IpAddr, u64), MAX_ASKED>>);

impl Asked {
    /// Whether to ask for an address now.
    pub(crate) fn may(&self, address: IpAddr, now: u64) -> bool {
        let Ok(mut asked) = self.0.try_borrow_mut() else { return false };
        let patience = clock::cycles(PATIENCE);
        asked.retain(|(_, at)| now.wrapping_sub(*at) < patience);
        asked.iter().all(|(other, _)| *other != address) && asked.try_push((address, now)).is_ok()
    }
}

/// The frame by which an end asks for the address of a neighbour: a request of ARP (RFC 826), or a
/// solicitation (RFC 4861, section 4.3). `None` if the addresses are not of one family.
pub(crate) fn question(end: &End, source: IpAddr, wanted: IpAddr) -> Option<Vec<u8>> {
    match (source, wanted) {
        (IpAddr::V4(source), IpAddr::V4(wanted)) => Some(request(end.mac, source, wanted)),
        (IpAddr::V6(source), IpAddr::V6(wanted)) => Some(solicitation(end.mac, source, wanted)),
        _ => None,
    }
}

fn request(own: MacAddr, source: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    const REQUEST: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    // A port to a wire makes it as long as frames there are.
    let parts: [&[u8]; 7] = [
        &MacAddr::BROADCAST.0,
        &own.0,
        &REQUEST,
        &own.0,
        &source.octets(),
        &[0; 6],
        &wanted.octets(),
    ];
    parts.concat()
}

fn solicitation(own: MacAddr, source: Ipv6Addr, wanted: Ipv6Addr) -> Vec<u8> {
    const LEN: u16 = 32;
    let [.., a, b, c] = wanted.octets();
    let group = Ipv6Addr::from([0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, a, b, c]);
    let body = |sum: [u8; 2]| {
        let parts: [&[u8]; 5] = [&[135, 0], &sum, &[0; 4], &wanted.octets(), &[1, 1]];
        [parts.concat(), own.0.to_vec()].concat()
    };
    let mut sum = Checksum::pseudo_v6(source.octets(), group.octets(), 58, LEN.into());
    sum.add(&body([0; 2]));
    let parts: [&[u8]; 7] = [
        &[0x33, 0x33, 0xFF, a, b, c],
        &own.0,
        &[0x86, 0xDD, 0x60, 0, 0, 0],
        &LEN.to_be_bytes(),
        &[58, 255],
        &source.octets(),
        &group.octets(),
    ];
    [parts.concat(), body(sum.finish().to_be_bytes())].concat()
}

#[cfg(test)]
mod tests {
    use packet::headers::{Arp, ArpOperation, Ethernet, Ipv6};

    use super::*;

    fn end() -> End {
        let addresses = vec![[10, 0, 0, 1].into()];
        let (bridge, mac) = (BridgeId(1), MacAddr([2, 0, 0, 0, 0, 1]));
        End { port: 3, bridge, mac, addresses }
    }

    #[test]
    fn questions_are_those_of_the_standards() {
        let frame = question(&end(), [10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
        assert_eq!(frame.len(), 42);
        let arp = Arp::parse(Ethernet::parse(&frame).unwrap().payload()).unwrap();
        assert_eq!((arp.operation(), arp.sender_mac()), (ArpOperation::REQUEST, end().mac));
        assert_eq!(arp.target_ip(), Ipv4Addr::new(10, 0, 0, 2));
        let (own, other): (Ipv6Addr, Ipv6Addr) =
            ("fd00::1".parse().unwrap(), "fd00::2:3".parse().unwrap());
        let frame = question(&end(), own.into(), other.into()).unwrap();
        let ip = Ipv6::parse(&frame[14..]).unwrap();
        assert_eq!(ip.destination(), "ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap());
        let mut sum = ip.pseudo_header(ip.next_header(), 32);
        sum.add(ip.payload());
        assert!(sum.is_valid() && ip.is_complete() && ip.payload().len() == 32);
        assert_eq!(question(&end(), own.into(), [10, 0, 0, 2].into()), None);
    }

    #[test]
    fn a_hop_needs_a_route_an_address_and_a_neighbour() {
        let to = |address: [u8; 4]| Meta::new(Ipv4Addr::UNSPECIFIED.into(), address.into());
        let prefix = |last: u8, len| Prefix::new([10, 0, 0, last].into(), len).unwrap();
        let source = Some([10, 0, 0, 1].into());
        let way = |to, gateway| Way { to, end: 0, gateway, source, mark: 0 };
        let gateway: IpAddr = [10, 0, 0, 9].into();
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let ways = Ways {
            ends: vec![end()],
            ways: vec![way(prefix(0, 24), None), way(prefix(0, 8), Some(gateway))],
            neighbours: [((0, gateway), (mac, true))].into_iter().collect(),
        };
        let (hop, next) = ways.hop(&to([10, 1, 0, 1]), 0).unwrap();
        assert_eq!((hop.link.destination, next, hop.asks), (mac, gateway, true));
        assert_eq!(hop.source, IpAddr::from([10, 0, 0, 1]));
        let asked: IpAddr = [10, 0, 0, 2].into();
        let found = ways.hop(&to([10, 0, 0, 2]), 0);
        assert!(matches!(found, Err(NoHop::Ask(_, _, next)) if next == asked));
        for (address, mark) in [([11, 0, 0, 2], 0), ([10, 1, 0, 1], 1)] {
            let found = ways.hop(&to(address), mark);
            assert!(matches!(found, Err(NoHop::Lost(DropReason::NoRoute))));
        }
    }

    #[test]
    fn questions_are_bounded() {
        let asked = Asked::default();
        let now = clock::cycles(PATIENCE) * 3;
        let number = |at: u32| IpAddr::from(Ipv4Addr::from(at));
        assert!((0..64).all(|at| asked.may(number(at), now)));
        assert!(!asked.may(number(0), now) && !asked.may(number(64), now));
        assert!(asked.may(number(0), now + clock::cycles(PATIENCE)));
    }
}
