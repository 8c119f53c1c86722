//! Questions to stations behind a link, and their answers: ARP (RFC 826), for a station without an
//! address of its own as a probe (RFC 5227 section 1.1), and neighbour solicitations of IPv6 (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::checksum::Checksum;
use packet::headers::arp::{Arp, ArpOperation};
use packet::headers::icmp::Icmp;
use packet::headers::ipv6::Ipv6;
use packet::headers::{EtherType, Ethernet, IpProtocol};
use packet::{MacAddr, Tag};

/// The shortest Ethernet frame.
const MIN_LEN: usize = 60;

/// Types of ICMPv6 (RFC 4861 section 4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Bytes of either before its options, and of the option with the sender's address.
const NEIGHBOUR_LEN: usize = 24;
const SOURCE_OPTION: [u8; 2] = [1, 1];

/// The bit of an advertisement which says that it answers.
const SOLICITED: u8 = 0x40;

/// What neighbours send each other has come through no router.
const HOP_LIMIT: u8 = 255;

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The address where answers go.
    pub(crate) own: MacAddr,
    /// The address of IPv4; unspecified where there is none.
    pub(crate) source: Ipv4Addr,
    /// The VLAN, 0 for none.
    pub(crate) vlan: u16,
}

impl Asker {
    /// The question whether `target` is there.
    pub(crate) fn question(&self, target: IpAddr) -> Vec<u8> {
        let mut frame = match target {
            IpAddr::V4(target) => self.ask_v4(target),
            IpAddr::V6(target) => self.ask_v6(target),
        };
        if self.vlan != 0 {
            let tag = Tag { kind: EtherType::VLAN, control: self.vlan };
            frame.splice(12..12, tag.to_bytes());
        }
        frame.resize(frame.len().max(MIN_LEN), 0);
        frame
    }

    fn header(&self, to: MacAddr, kind: EtherType) -> Vec<u8> {
        [&to.0[..], &self.own.0, &kind.0.to_be_bytes()].concat()
    }

    fn ask_v4(&self, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = self.header(MacAddr::BROADCAST, EtherType::ARP);
        // Ethernet and IPv4, with addresses of 6 and 4 bytes.
        frame.extend([0, 1, 0x08, 0, 6, 4]);
        frame.extend(ArpOperation::REQUEST.0.to_be_bytes());
        frame.extend(self.own.0);
        frame.extend(self.source.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }

    fn ask_v6(&self, target: Ipv6Addr) -> Vec<u8> {
        let [.., a, b, c] = target.octets();
        let mut group = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 1, 0xFF00, 0).octets();
        let [.., x, y, z] = &mut group;
        (*x, *y, *z) = (a, b, c);
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        message.extend(SOURCE_OPTION);
        message.extend(self.own.0);
        let (from, len) = (link_local(self.own).octets(), 32_u16);
        let mut sum = Checksum::pseudo_v6(from, group, IpProtocol::ICMPV6.0, len.into());
        sum.add(&message);
        let sum = sum.finish().to_be_bytes();
        let mut frame = self.header(MacAddr([0x33, 0x33, 0xFF, a, b, c]), EtherType::IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([IpProtocol::ICMPV6.0, HOP_LIMIT]);
        frame.extend(from);
        frame.extend(group);
        frame.extend(message.iter().take(2));
        frame.extend(sum);
        frame.extend(message.iter().skip(4));
        frame
    }

    /// Who has answered by this frame; `None` where it is no answer to what was asked.
    pub(crate) fn answer(&self, frame: &[u8]) -> Option<IpAddr> {
        let ethernet = Ethernet::parse(frame)?;
        let vlan = ethernet.vlan().map_or(0, |tag| tag.vlan());
        let (kind, payload) = match ethernet.vlan() {
            Some(tag) => (tag.ether_type(), tag.payload()),
            None => (ethernet.ether_type(), ethernet.payload()),
        };
        if ethernet.destination() != self.own || vlan != self.vlan {
            return None;
        }
        match kind {
            EtherType::ARP => self.answer_v4(payload),
            EtherType::IPV6 => self.answer_v6(payload),
            _ => None,
        }
    }

    fn answer_v4(&self, payload: &[u8]) -> Option<IpAddr> {
        let arp = Arp::parse(payload)?;
        let is_for_us = arp.target_mac() == self.own && arp.target_ip() == self.source;
        let is_answer = arp.operation() == ArpOperation::REPLY && arp.sender_mac().is_station();
        (is_answer && is_for_us).then(|| arp.sender_ip().into())
    }

    /// The checks of RFC 4861 section 7.1.2.
    fn answer_v6(&self, payload: &[u8]) -> Option<IpAddr> {
        let ip = Ipv6::parse(payload)?;
        let message = ip.payload();
        let icmp = Icmp::parse(message)?;
        let body = message.get(..NEIGHBOUR_LEN)?;
        let target: [u8; 16] = *body.last_chunk()?;
        let is_valid = ip.next_header() == IpProtocol::ICMPV6
            && ip.hop_limit() == HOP_LIMIT
            && ip.is_complete()
            && ip.destination() == link_local(self.own)
            && (icmp.kind(), icmp.code()) == (ADVERTISEMENT, 0)
            && body.get(4).is_some_and(|flags| flags & SOLICITED != 0);
        let len = u32::try_from(message.len()).ok()?;
        let mut sum = ip.pseudo_header(IpProtocol::ICMPV6, len);
        sum.add(message);
        (is_valid && sum.is_valid()).then(|| Ipv6Addr::from(target).into())
    }
}

/// The address of IPv6 that a station has which has nothing but that of its interface (RFC 4291
/// appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let [a, b, c, d, e, f] = [a ^ 2, b, c, d, e, f].map(u16::from);
    Ipv6Addr::new(0xFE80, 0, 0, 0, a << 8 | b, c << 8 | 0xFF, 0xFE00 | d, e << 8 | f)
}

#[cfg(test)]
pub(crate) mod tests {
    use datapath::bond::answers::may_answer;
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const ASKER: Asker = Asker { own: OWN, source: Ipv4Addr::UNSPECIFIED, vlan: 0 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What a station at `from` answers to a question; `None` where it would not.
    pub(crate) fn answer_to(question: &[u8], from: MacAddr) -> Option<Vec<u8>> {
        let at = if question[12..14] == [0x81, 0] { 18 } else { 14 };
        let mut frame = [&question[6..12], &from.0, &question[12..at]].concat();
        let asked = &question[at..];
        match question[at - 2..at] {
            [0x08, 0x06] => {
                frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
                frame.extend(from.0);
                frame.extend(&asked[24..28]);
                frame.extend(&asked[8..18]);
            }
            [0x86, 0xDD] => {
                let mut message = vec![ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0];
                message.extend(&asked[48..64]);
                message.extend([2, 1]);
                message.extend(from.0);
                let (to, by) =
                    (asked[8..24].try_into().unwrap(), asked[48..64].try_into().unwrap());
                let mut sum = Checksum::pseudo_v6(by, to, 58, 32);
                sum.add(&message);
                message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
                frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
                frame.extend(by.into_iter().chain(to).chain(message));
            }
            _ => return None,
        }
        Some(frame)
    }

    #[test]
    fn questions_are_as_the_standards_have_them() {
        let arp = ASKER.question(ip("10.1.0.2"));
        assert_eq!((arp.len(), &arp[..12]), (60, &[&[0xFF; 6][..], &OWN.0].concat()[..]));
        assert_eq!(arp[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(arp[22..32], [2, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(arp[32..42], [0, 0, 0, 0, 0, 0, 10, 1, 0, 2]);
        let tagged = Asker { vlan: 7, ..ASKER }.question(ip("10.1.0.2"));
        assert_eq!((tagged.len(), &tagged[12..18]), (60, &[0x81, 0, 0, 7, 8, 6][..]));
        let solicitation = ASKER.question(ip("2001:db8::12:3456"));
        assert_eq!(solicitation[..6], [0x33, 0x33, 0xFF, 0x12, 0x34, 0x56]);
        let ip = Ipv6::parse(&solicitation[14..]).unwrap();
        assert_eq!(ip.source().to_string(), "fe80::ff:fe00:1");
        assert_eq!(ip.destination().to_string(), "ff02::1:ff12:3456");
        assert_eq!((ip.hop_limit(), solicitation.len()), (255, 86));
        let mut sum = ip.pseudo_header(IpProtocol::ICMPV6, 32);
        sum.add(ip.payload());
        assert!(sum.is_valid());
    }

    #[test]
    fn answers_are_known_and_nothing_else() {
        for (target, vlan) in [("10.1.0.2", 0), ("10.1.0.2", 7), ("fd00::2", 0), ("fd00::2", 4094)]
        {
            let asker = Asker { vlan, ..ASKER };
            let question = asker.question(ip(target));
            assert!(!may_answer(&question, OWN) && asker.answer(&question).is_none());
            let answer = answer_to(&question, THEIRS).unwrap();
            assert!(may_answer(&answer[..answer.len().min(64)], OWN));
            assert_eq!(asker.answer(&answer), Some(ip(target)));
            // To somebody else, in another VLAN, cut off, or with a bit changed that counts.
            assert_eq!(Asker { own: THEIRS, ..asker }.answer(&answer), None);
            assert_eq!(Asker { vlan: vlan ^ 1, ..asker }.answer(&answer), None);
            assert_eq!(asker.answer(&answer[..answer.len() - 1]), None, "{target}");
        }
        let arp = answer_to(&ASKER.question(ip("10.1.0.2")), THEIRS).unwrap();
        assert_eq!(Asker { source: Ipv4Addr::new(10, 1, 0, 1), ..ASKER }.answer(&arp), None);
        let advertisement = answer_to(&ASKER.question(ip("fd00::2")), THEIRS).unwrap();
        // Hop limit, type, code, checksum, flags, target.
        for at in [21, 54, 55, 57, 58, 70] {
            let mut other = advertisement.clone();
            other[at] ^= 0x40;
            assert_eq!(ASKER.answer(&other), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_of_somebody_or_none(
            body in proptest::collection::vec(any::<u8>(), 0..130),
            kind in prop::sample::select(vec![0x0806_u16, 0x86DD, 0x8100]), is_arp in any::<bool>()
        ) {
            let mut frame = [&OWN.0[..], &THEIRS.0, &kind.to_be_bytes()].concat();
            if is_arp {
                frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
            }
            frame.extend(&body);
            if ASKER.answer(&frame).is_some() {
                prop_assert!(may_answer(&frame, OWN));
            }
            may_answer(&body, OWN);
        }
    }
}
