//! What headers test frames have, and the template that is made of them.

use std::net::IpAddr;

use packet::MacAddr;
use packet::headers::{EtherType, IpProtocol, TcpFlags};

use crate::draft::Draft;
use crate::range::{L4Port, Range, Vlan, Vni, v4, v6};
use crate::stamp::MAX_FLOWS;
use crate::template::{Area, Template};

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 802.1Q or 802.1ad.
    pub ether_type: EtherType,
    /// Its VLANs.
    pub vlan: Range<Vlan>,
    /// Its priority, 0 to 7.
    pub priority: u8,
}

/// An Ethernet header and an IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Source MAC addresses.
    pub src_mac: Range<MacAddr>,
    /// Destination MAC addresses.
    pub dst_mac: Range<MacAddr>,
    /// Source IP addresses.
    pub src_ip: Range<IpAddr>,
    /// Destination IP addresses, of the same version.
    pub dst_ip: Range<IpAddr>,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub class: u8,
}

/// What is above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP without options.
    Tcp(TcpFlags),
}

/// Headers of test frames. Fields that are ranges go on with the flow, all at the same time: flow 5
/// has value 5 of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// VLAN tags from the outside to the inside; of a tunnel's outer frame.
    pub tags: Vec<Tag>,
    /// A VXLAN tunnel around the rest.
    pub tunnel: Option<(Network, Range<Vni>)>,
    /// Addresses.
    pub network: Network,
    /// What is above IP.
    pub transport: Transport,
    /// Source ports.
    pub src_port: Range<L4Port>,
    /// Destination ports.
    pub dst_port: Range<L4Port>,
    /// Different flows that were asked for by ranges; 1 where nothing was.
    pub asked: u64,
}

/// Source addresses of flows: of the networks that RFC 2544 (appendix C.2.2) and RFC 5180 (section 8)
/// set aside for tests.
pub const fn default_src_ip(is_v6: bool) -> Range<IpAddr> {
    if is_v6 { v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 65_536) } else { v4([198, 18, 0, 0], 65_536) }
}

/// Where all flows go.
pub const fn default_dst_ip(is_v6: bool) -> Range<IpAddr> {
    if is_v6 { v6([0x2001, 2, 0, 1, 0, 0, 0, 1], 1) } else { v4([198, 19, 0, 1], 1) }
}

/// Source ports of flows, from the dynamic ones.
pub const DEFAULT_SRC_PORT: Range<L4Port> = Range::of(L4Port(0xC000), 0x4000);

/// Port 9: discard (RFC 863).
pub const DEFAULT_DST_PORT: Range<L4Port> = Range::one(L4Port(9));

impl Network {
    /// IPv4 between two MAC addresses, the source address of which goes on with the flow.
    pub const fn plain(dst_mac: MacAddr, src_mac: MacAddr) -> Self {
        Self {
            src_mac: Range::one(src_mac),
            dst_mac: Range::one(dst_mac),
            src_ip: default_src_ip(false),
            dst_ip: default_dst_ip(false),
            ttl: 64,
            class: 0,
        }
    }

    const fn reversed(&mut self) {
        std::mem::swap(&mut self.src_mac, &mut self.dst_mac);
        std::mem::swap(&mut self.src_ip, &mut self.dst_ip);
    }

    fn counts(&self) -> [u32; 4] {
        [self.src_mac.count, self.dst_mac.count, self.src_ip.count, self.dst_ip.count]
    }
}

impl Headers {
    /// UDP over IPv4 between two MAC addresses; flows differ in source address and port.
    pub const fn plain(dst_mac: MacAddr, src_mac: MacAddr) -> Self {
        Self {
            tags: Vec::new(),
            tunnel: None,
            network: Network::plain(dst_mac, src_mac),
            transport: Transport::Udp,
            src_port: DEFAULT_SRC_PORT,
            dst_port: DEFAULT_DST_PORT,
            asked: 1,
        }
    }

    /// The same the other way round.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let mut headers = self.clone();
        headers.network.reversed();
        if let Some((outer, _)) = &mut headers.tunnel {
            outer.reversed();
        }
        std::mem::swap(&mut headers.src_port, &mut headers.dst_port);
        headers
    }

    /// How many flows there can be that all differ.
    pub fn most_flows(&self) -> u64 {
        let outer = self
            .tunnel
            .iter()
            .flat_map(|(outer, vni)| outer.counts().into_iter().chain([vni.count]));
        let tags = self.tags.iter().map(|tag| tag.vlan.count);
        let ports = [self.src_port.count, self.dst_port.count];
        combinations(self.network.counts().into_iter().chain(ports).chain(tags).chain(outer))
    }

    /// The template of frames of `flows` flows with these headers.
    pub fn template(&self, flows: u32) -> Template {
        let mut draft = Draft::new(flows);
        match &self.tunnel {
            None => draft.ethernet(&self.network, &self.tags),
            Some((outer, vni)) => {
                draft.ethernet(outer, &self.tags);
                draft.ip(outer, IpProtocol::UDP, Area::OuterIp);
                draft.vxlan(*vni);
                draft.ethernet(&self.network, &[]);
            }
        }
        let protocol = match self.transport {
            Transport::Udp => IpProtocol::UDP,
            Transport::Tcp(_) => IpProtocol::TCP,
        };
        draft.ip(&self.network, protocol, Area::Ip);
        draft.transport(self, protocol);
        draft.finish()
    }
}

/// How often one can go on in all of several ranges at the same time before the first combination
/// comes again: their least common multiple, or anything above [`MAX_FLOWS`].
pub fn combinations(counts: impl IntoIterator<Item = u32>) -> u64 {
    counts.into_iter().fold(1, |all, count| {
        let count = u64::from(count.max(1));
        let (mut a, mut b) = (all, count);
        while b != 0 {
            (a, b) = (b, a.checked_rem(b).unwrap_or(0));
        }
        if all > u64::from(MAX_FLOWS) { all } else { all / a.max(1) * count }
    })
}
