//! What a match says of the packets that it is for, and whether a field can be there.

use super::Match;
use crate::field::{Field, Prerequisite};

pub(crate) const ETH_TYPE_IP: u16 = 0x0800;
pub(crate) const ETH_TYPE_ARP: u16 = 0x0806;
pub(crate) const ETH_TYPE_RARP: u16 = 0x8035;
pub(crate) const ETH_TYPE_IPV6: u16 = 0x86DD;
pub(crate) const ETH_TYPE_MPLS: u16 = 0x8847;
pub(crate) const ETH_TYPE_MPLS_MCAST: u16 = 0x8848;
pub(crate) const ETH_TYPE_NSH: u16 = 0x894F;

pub(crate) const PROTO_ICMP: u8 = 1;
pub(crate) const PROTO_TCP: u8 = 6;
pub(crate) const PROTO_UDP: u8 = 17;
pub(crate) const PROTO_ICMPV6: u8 = 58;
pub(crate) const PROTO_SCTP: u8 = 132;

/// Types of ICMPv6 of neighbour discovery.
const ND_SOLICIT: u128 = 135;
const ND_ADVERT: u128 = 136;

/// That a packet is a fragment, but not the first.
const FRAG_LATER: u128 = 2;

/// The bit of a connection's state that says that it was tracked, and the one that it is invalid.
const CT_TRACKED: u128 = 0x20;
const CT_INVALID: u128 = 0x10;
/// Those of which each says that there is a connection: new, established, related, in reply, with
/// its source or its destination translated.
const CT_KNOWN: u128 = 0xCF;

impl Match {
    /// The value of a field where it counts, and 0 where not.
    fn value(&self, field: Field) -> u128 {
        self.get(field).map_or(0, |(value, _)| value)
    }

    /// What packets are by their type: with an Ethernet header, or with what is below it.
    fn packet_type(&self) -> Option<u16> {
        let kind = self.value(Field::PacketType);
        (kind >> 16 == 1).then(|| u16::try_from(kind & 0xFFFF).unwrap_or(0))
    }

    /// Whether they have an Ethernet header.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.value(Field::PacketType) == 0
    }

    /// Whether they have a VLAN tag, or had one before their header of Ethernet was taken off.
    pub(crate) fn has_tag(&self) -> bool {
        self.value(Field::VlanTci) & 0x1000 != 0
    }

    /// Their EtherType; 0 if any.
    #[must_use]
    pub fn eth_type(&self) -> u16 {
        let of_header = || u16::try_from(self.value(Field::EthType)).unwrap_or(0);
        self.packet_type().unwrap_or_else(of_header)
    }

    /// Their protocol over IP; 0 if any.
    pub(crate) fn protocol(&self) -> u8 {
        u8::try_from(self.value(Field::IpProto)).unwrap_or(0)
    }

    /// Whether they are IPv4 or IPv6.
    pub(crate) fn is_ip(&self) -> bool {
        matches!(self.eth_type(), ETH_TYPE_IP | ETH_TYPE_IPV6)
    }

    fn has_protocol(&self, protocol: u8) -> bool {
        self.is_ip() && self.protocol() == protocol
    }

    fn is_icmpv6(&self) -> bool {
        self.eth_type() == ETH_TYPE_IPV6 && self.protocol() == PROTO_ICMPV6
    }

    /// Whether they are a message of neighbour discovery of one of these types.
    fn is_nd(&self, types: &[u128]) -> bool {
        let kind = self.value(Field::TcpSrc);
        self.is_icmpv6() && self.value(Field::TcpDst) == 0 && types.contains(&kind)
    }

    fn is_tracked(&self) -> bool {
        let (state, mask) = self.get(Field::CtState).unwrap_or_default();
        let is_valid = mask & CT_INVALID != 0 && state & CT_INVALID == 0;
        state & CT_KNOWN != 0 || state & CT_TRACKED != 0 && is_valid
    }

    /// Whether they have what a field needs. Fragments count, too, of which only the first has what
    /// is behind the network header.
    #[must_use]
    pub fn has(&self, needs: Prerequisite) -> bool {
        match needs {
            Prerequisite::Nothing => true,
            Prerequisite::Ethernet => self.is_ethernet(),
            Prerequisite::Arp => matches!(self.eth_type(), ETH_TYPE_ARP | ETH_TYPE_RARP),
            Prerequisite::Vlan => self.is_ethernet() && self.has_tag(),
            Prerequisite::Ipv4 => self.eth_type() == ETH_TYPE_IP,
            Prerequisite::Ipv6 => self.eth_type() == ETH_TYPE_IPV6,
            Prerequisite::Ip => self.is_ip(),
            Prerequisite::Mpls => {
                matches!(self.eth_type(), ETH_TYPE_MPLS | ETH_TYPE_MPLS_MCAST)
            }
            Prerequisite::Tracked => self.is_tracked(),
            Prerequisite::Nsh => self.eth_type() == ETH_TYPE_NSH,
            Prerequisite::Tcp => self.has_protocol(PROTO_TCP),
            Prerequisite::Udp => self.has_protocol(PROTO_UDP),
            Prerequisite::Sctp => self.has_protocol(PROTO_SCTP),
            Prerequisite::Icmpv4 => self.eth_type() == ETH_TYPE_IP && self.protocol() == PROTO_ICMP,
            Prerequisite::Icmpv6 => self.is_icmpv6(),
            Prerequisite::Nd => self.is_nd(&[ND_SOLICIT, ND_ADVERT]),
            Prerequisite::NdSolicit => self.is_nd(&[ND_SOLICIT]),
            Prerequisite::NdAdvert => self.is_nd(&[ND_ADVERT]),
        }
    }

    /// Whether they have a field, by what has been said of them so far.
    #[must_use]
    pub fn may_have(&self, field: Field) -> bool {
        let needs = field.prerequisite();
        let of_first = [Prerequisite::Tcp, Prerequisite::Udp, Prerequisite::Sctp].contains(&needs);
        self.has(needs) && !(of_first && self.value(Field::IpFrag) & FRAG_LATER != 0)
    }

    /// Makes anything of fields that cannot be there, as Open vSwitch does to flows in the form of
    /// OpenFlow 1.0 and to those that people write.
    pub fn normalize(&mut self) {
        let (eth_type, protocol) = (self.eth_type(), self.protocol());
        let is_arp = matches!(eth_type, ETH_TYPE_ARP | ETH_TYPE_RARP);
        let (is_v4, is_v6) = (eth_type == ETH_TYPE_IP, eth_type == ETH_TYPE_IPV6);
        let ports = [PROTO_TCP, PROTO_UDP, PROTO_SCTP].contains(&protocol)
            || protocol == if is_v4 { PROTO_ICMP } else { PROTO_ICMPV6 };
        let kind = self.value(Field::TcpSrc);
        let nd = |types: &[u128]| is_v6 && protocol == PROTO_ICMPV6 && types.contains(&kind);
        let may: [(bool, &[Field]); 10] = [
            (self.is_ethernet(), &[Field::EthSrc, Field::EthDst]),
            (is_v4 || is_arp, &[Field::IpSrc, Field::IpDst]),
            (self.is_ip() && ports, &[Field::TcpSrc, Field::TcpDst]),
            (self.is_ip() || is_arp, &[Field::IpProto]),
            (self.is_ip(), &[Field::NwTos, Field::IpEcn, Field::NwTtl]),
            (is_arp || nd(&[ND_SOLICIT]), &[Field::ArpSha]),
            (is_arp || nd(&[ND_ADVERT]), &[Field::ArpTha]),
            (is_v6, &[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label]),
            (nd(&[ND_SOLICIT, ND_ADVERT]), &[Field::NdTarget]),
            (
                self.has(Prerequisite::Mpls),
                &[Field::MplsLabel, Field::MplsTc, Field::MplsBos, Field::MplsTtl],
            ),
        ];
        for field in may.iter().filter(|(may, _)| !may).flat_map(|(_, fields)| *fields) {
            self.remove(*field);
        }
        self.forget_implied();
    }

    /// That packets have an Ethernet header goes without saying where a field is in it.
    pub(crate) fn forget_implied(&mut self) {
        if self.exact(Field::PacketType) == Some(0) && self.implies_ethernet() {
            self.remove(Field::PacketType);
        }
    }

    /// Whether it is said, or goes without saying, that packets have an Ethernet header: a match on any field
    /// of packets themselves, and not on their type, is on such packets alone (OpenFlow 1.5, 7.2.3.11).
    #[must_use]
    pub fn says_ethernet(&self) -> bool {
        self.exact(Field::PacketType).map_or_else(|| self.implies_ethernet(), |kind| kind == 0)
    }

    /// Whether a field is there that packets themselves have, whatever their type.
    fn implies_ethernet(&self) -> bool {
        let in_packet = |field: Field| field.prerequisite() != Prerequisite::Nothing;
        self.iter().any(|entry| in_packet(entry.field))
    }
}
