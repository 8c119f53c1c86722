//! The MAC addresses of next hops, as they have said them, or an operator has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use packet::MacAddr;
use packet::headers::{Arp, ArpOperation, EtherType, Ethernet, Icmp, IpProtocol, Ipv6};

/// The most neighbours that are known.
pub const MAX_NEIGHBOURS: usize = 4_096;

/// How long one is known after it was heard last.
pub const NEIGHBOUR_AGE: Duration = Duration::from_secs(15 * 60);

/// How long before it would be forgotten it is asked again, if it is of use still.
const AHEAD: Duration = Duration::from_secs(60);

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub mac: MacAddr,
    /// When it was heard last, since the start; `None`: an operator has said it, until it is flushed.
    pub heard: Option<Duration>,
}

/// Neighbours by the bridge that they are behind, and their addresses.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(BTreeMap<(String, IpAddr), Neighbour>);

impl Neighbour {
    /// Whether it is to be asked again, as it would be forgotten soon.
    #[must_use]
    pub fn is_ageing(&self, now: Duration) -> bool {
        let least = NEIGHBOUR_AGE.saturating_sub(AHEAD);
        self.heard.is_some_and(|heard| now.saturating_sub(heard) >= least)
    }
}

impl Neighbours {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, IpAddr, &Neighbour)> {
        self.0.iter().map(|((bridge, address), own)| (bridge.as_str(), *address, own))
    }

    /// What a neighbour has said of itself, or an operator of it, who has the last word. Returns whether anything
    /// is other than before; where there is no room, it is not noted.
    pub fn learn(
        &mut self,
        (bridge, address): (&str, IpAddr),
        mac: MacAddr,
        heard: Option<Duration>,
    ) -> bool {
        let key = (bridge.to_owned(), address);
        let known = self.0.get(&key);
        let is_said = known.is_some_and(|own| own.heard.is_none());
        if is_said && heard.is_some() || known.is_none() && self.0.len() >= MAX_NEIGHBOURS {
            return false;
        }
        let before = self.0.insert(key, Neighbour { mac, heard });
        before.is_none_or(|before| before.mac != mac)
    }

    /// Whether so many more could be too many.
    #[must_use]
    pub fn are_too_many_with(&self, more: usize) -> bool {
        self.0.len().saturating_add(more) > MAX_NEIGHBOURS
    }

    /// Forgets those that were heard before the others, if there are any: none that is `wanted`, or that an
    /// operator has said. Anybody can answer what nobody has asked. Returns whether any was forgotten.
    pub fn make_room(&mut self, wanted: &BTreeSet<IpAddr>) -> bool {
        let heard =
            |address: &IpAddr, own: &Neighbour| own.heard.filter(|_| !wanted.contains(address));
        let times = || self.0.iter().filter_map(|((_, address), own)| heard(address, own));
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return false };
        let middle = first.saturating_add(last.saturating_sub(first) / 2);
        self.0.retain(|(_, address), own| heard(address, own).is_none_or(|heard| heard > middle));
        true
    }

    /// Forgets those of a bridge, or all.
    pub fn flush(&mut self, bridge: Option<&str>) {
        self.0.retain(|(own, _), _| bridge.is_some_and(|bridge| own != bridge));
    }

    /// Forgets those that were not heard for long; returns whether any was.
    pub fn expire(&mut self, now: Duration) -> bool {
        let before = self.0.len();
        let is_old = |heard: Duration| now.saturating_sub(heard) >= NEIGHBOUR_AGE;
        self.0.retain(|_, own| !own.heard.is_some_and(is_old));
        self.0.len() < before
    }
}

/// Whom a frame that begins with `head` tells of: an answer of ARP (RFC 826), or an advertisement of IPv6
/// (RFC 4861, section 4.4), with the address that it says.
#[must_use]
pub fn told(head: &[u8]) -> Option<(IpAddr, MacAddr)> {
    let ethernet = Ethernet::parse(head)?;
    let (kind, payload) = ethernet.inner()?;
    let (address, mac) = match kind {
        EtherType::ARP => {
            let arp = Arp::parse(payload).filter(|arp| arp.operation() == ArpOperation::REPLY)?;
            (IpAddr::V4(arp.sender_ip()), arp.sender_mac())
        }
        EtherType::IPV6 => advertised(payload)?,
        _ => return None,
    };
    let is_none = address.is_unspecified() || address.is_multicast();
    let is_station = mac.0[0] & 1 == 0 && mac != MacAddr::default();
    (!is_none && address != IpAddr::V4(Ipv4Addr::BROADCAST) && is_station).then_some((address, mac))
}

fn advertised(packet: &[u8]) -> Option<(IpAddr, MacAddr)> {
    const ADVERTISEMENT: u8 = 136;
    const TARGET_ADDRESS: [u8; 2] = [2, 1];
    let ip = Ipv6::parse(packet)?;
    let icmp = Icmp::parse(ip.payload())?;
    // Routers hand none of them on (RFC 4861, section 7.1.2).
    if ip.next_header() != IpProtocol::ICMPV6
        || icmp.kind() != ADVERTISEMENT
        || ip.hop_limit() != 255
    {
        return None;
    }
    let target: [u8; 16] = *icmp.payload().first_chunk()?;
    let mut options = icmp.payload().get(16..)?;
    // Each is 8 bytes at least.
    while let Some([kind, len, ..]) = options.first_chunk::<8>() {
        if [*kind, *len] == TARGET_ADDRESS {
            return Some((target.into(), MacAddr(*options.get(2..)?.first_chunk()?)));
        }
        options = options.get(usize::from(*len).max(1) * 8..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use packet::builder::FrameBuilder;
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn neighbours_are_known_until_they_are_old_and_asked_again_before() {
        let mut neighbours = Neighbours::default();
        let second = Duration::from_secs;
        assert!(neighbours.learn(("br", address(1)), MAC, Some(second(2))));
        assert!(!neighbours.learn(("br", address(1)), MAC, Some(second(3))), "that is no news");
        assert!(neighbours.learn(("br", address(2)), MAC, None));
        let old = NEIGHBOUR_AGE + second(3);
        let ageing = |neighbours: &Neighbours, now| {
            let ageing = neighbours.iter().filter(|(.., own)| own.is_ageing(now));
            ageing.map(|(_, own, _)| own).collect::<Vec<_>>()
        };
        assert!(ageing(&neighbours, old - second(61)).is_empty());
        assert_eq!(ageing(&neighbours, old - second(60)), [address(1)]);
        assert!(!neighbours.expire(old - second(1)) && neighbours.expire(old));
        assert_eq!(neighbours.iter().map(|(_, own, _)| own).collect::<Vec<_>>(), [address(2)]);
        neighbours.flush(Some("other"));
        assert_eq!(neighbours.iter().count(), 1);
        neighbours.flush(None);
        assert_eq!(neighbours.iter().count(), 0);
    }

    #[test]
    fn who_answers_does_not_take_away_what_an_operator_has_said() {
        let mut neighbours = Neighbours::default();
        let (own, other) = (("br", address(1)), MacAddr([2; 6]));
        assert!(neighbours.learn(own, MAC, None));
        assert!(!neighbours.learn(own, other, Some(Duration::ZERO)));
        let known = |neighbours: &Neighbours| neighbours.iter().map(|(.., own)| *own).next();
        assert_eq!(known(&neighbours), Some(Neighbour { mac: MAC, heard: None }));
        // The operator may say something else, and is forgotten where that is asked for.
        assert!(neighbours.learn(own, other, None));
        neighbours.flush(Some("br"));
        assert!(neighbours.learn(own, MAC, Some(Duration::ZERO)));
    }

    #[test]
    fn there_is_an_end_to_neighbours() {
        let mut neighbours = Neighbours::default();
        let number = |at: usize| Ipv4Addr::from(u32::try_from(at).unwrap() + 1).into();
        for at in 0..MAX_NEIGHBOURS {
            assert!(neighbours.learn(("br", number(at)), MAC, None));
        }
        assert!(!neighbours.learn(("br", number(MAX_NEIGHBOURS)), MAC, None));
        assert!(neighbours.learn(("br", number(0)), MacAddr([2; 6]), None));
    }

    #[test]
    fn who_answers_unasked_keeps_nobody_out() {
        let mut neighbours = Neighbours::default();
        let number = |at: usize| Ipv4Addr::from(u32::try_from(at).unwrap() + 1).into();
        let wanted = BTreeSet::from([number(0)]);
        let (hop, said) = (("br", number(0)), ("br", number(1)));
        assert!(
            neighbours.learn(hop, MAC, Some(Duration::ZERO)) && neighbours.learn(said, MAC, None)
        );
        for at in 2..3 * MAX_NEIGHBOURS {
            assert!(!neighbours.are_too_many_with(1) || neighbours.make_room(&wanted));
            let now = Duration::from_millis(at.try_into().unwrap());
            assert!(neighbours.learn(("br", number(at)), MAC, Some(now)), "{at}");
            assert!(neighbours.iter().count() <= MAX_NEIGHBOURS);
        }
        let known: BTreeSet<IpAddr> = neighbours.iter().map(|(_, address, _)| address).collect();
        assert!([0, 1, 3 * MAX_NEIGHBOURS - 1].iter().all(|at| known.contains(&number(*at))));
        assert!(!known.contains(&number(2)), "those that were heard first go first");
        while neighbours.make_room(&wanted) {}
        let known: Vec<IpAddr> = neighbours.iter().map(|(_, address, _)| address).collect();
        assert_eq!(known, [number(0), number(1)]);
    }

    #[test]
    fn answers_say_where_a_neighbour_is() {
        let reply = |mac, ip: [u8; 4]| {
            let frame = FrameBuilder::new(MAC, MacAddr([2; 6]));
            frame.arp(ArpOperation::REPLY, (mac, ip.into()), (MAC, [10, 0, 0, 2].into())).build()
        };
        assert_eq!(told(&reply(MAC, [10, 0, 0, 1]).unwrap()), Some((address(1), MAC)));
        assert_eq!(told(&reply(MAC, [0; 4]).unwrap()), None);
        assert_eq!(told(&reply(MacAddr([0xFF; 6]), [10, 0, 0, 1]).unwrap()), None);
        let mut advertisement = vec![0; 86];
        advertisement[12..15].copy_from_slice(&[0x86, 0xDD, 0x60]);
        advertisement[19..22].copy_from_slice(&[32, 58, 255]);
        advertisement[54] = 136;
        advertisement[77] = 1;
        advertisement[78..80].copy_from_slice(&[2, 1]);
        advertisement[80..86].copy_from_slice(&MAC.0);
        assert_eq!(told(&advertisement), Some((Ipv6Addr::LOCALHOST.into(), MAC)));
        advertisement[21] = 254;
        assert_eq!(told(&advertisement), None);
    }

    proptest! {
        #[test]
        fn nobody_is_told_of_by_nonsense(mut bytes in prop::collection::vec(any::<u8>(), 14..140)) {
            for kind in [[0x08, 0x06], [0x86, 0xDD]] {
                bytes[12..14].copy_from_slice(&kind);
                if let Some((address, mac)) = told(&bytes) {
                    prop_assert!(!address.is_unspecified() && mac.0[0] & 1 == 0);
                }
            }
        }
    }
}
