//! A packet that stands for many.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::element::{Layer, Shape};
use crate::wire::Writer;

/// Which way a packet goes past the point where it is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// It comes in.
    #[default]
    Ingress = 0,
    /// It goes out.
    Egress = 1,
}

/// Where a packet comes in or goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface<'s> {
    /// Its number; 0 where that is not known.
    pub index: u32,
    /// Its name.
    pub name: &'s str,
}

/// The outer VLAN tag of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The VLAN.
    pub vlan: u16,
    /// The priority.
    pub priority: u8,
}

/// Addresses of IP, from where and to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Of version 4.
    V4([Ipv4Addr; 2]),
    /// Of version 6, with the flow's label.
    V6([Ipv6Addr; 2], u32),
}

/// A header of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// From where and to where.
    pub addresses: Addresses,
    /// How many hops are left.
    pub ttl: u8,
    /// The protocol in it.
    pub protocol: u8,
    /// The type of service.
    pub tos: u8,
}

/// What is in a packet of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Something that is not looked at.
    #[default]
    Other,
    /// TCP: ports from where and to where, and flags.
    Tcp([u16; 2], u16),
    /// UDP: ports.
    Udp([u16; 2]),
    /// SCTP: ports.
    Sctp([u16; 2]),
    /// ICMP of either version: type and code.
    Icmp([u8; 2]),
}

/// A packet that stands for many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'s> {
    /// Where it is seen: an observation domain, and a point there.
    pub domain: u32,
    /// The point.
    pub point: u32,
    /// Which way it goes there.
    pub direction: Direction,
    /// Where it came in.
    pub input: Interface<'s>,
    /// Where it goes out, of one that is seen there.
    pub output: Interface<'s>,
    /// Addresses of Ethernet, from where and to where.
    pub macs: [[u8; 6]; 2],
    /// What it carries, behind tags.
    pub ether_type: u16,
    /// Its tag.
    pub tag: Option<Tag>,
    /// Its header of IP, if it has one.
    pub ip: Option<Ip>,
    /// What is in that.
    pub transport: Transport,
    /// How many bytes it has.
    pub len: u32,
    /// For how many packets it stands.
    pub packets: u64,
    /// Whether these go nowhere.
    pub is_dropped: bool,
}

impl Sample<'_> {
    /// What is told of packets like this.
    pub(super) fn shape(&self) -> Shape {
        let network = match self.ip.map(|ip| ip.addresses) {
            None => Layer::OTHER,
            Some(Addresses::V4(_)) => Layer::V4,
            Some(Addresses::V6(..)) => Layer::V6,
        };
        let transport = match self.transport {
            _ if network == Layer::OTHER => Layer::OTHER,
            Transport::Other => Layer::OTHER,
            Transport::Tcp(..) => Layer::TCP,
            Transport::Udp(_) => Layer::UDP,
            Transport::Sctp(_) => Layer::SCTP,
            Transport::Icmp(_) => Layer::ICMP,
        };
        Shape { is_tagged: self.tag.is_some(), network, transport, direction: self.direction }
    }

    /// How many bytes of Ethernet it begins with.
    pub(super) const fn header_len(&self) -> u8 {
        if self.tag.is_some() { 18 } else { 14 }
    }

    /// How many bytes are behind that.
    pub(super) fn ip_len(&self) -> u64 {
        u64::from(self.len).saturating_sub(self.header_len().into())
    }

    /// Writes what packets of its flow have in common, in the order of [`Shape::key`].
    pub(super) fn write_key(&self, key: &mut Writer) {
        let [source, destination] = self.macs;
        key.u32(self.point).bytes(&[self.direction as u8]);
        key.bytes(&source).bytes(&destination).u16(self.ether_type).bytes(&[self.header_len()]);
        self.input.write(key);
        if self.direction == Direction::Egress {
            self.output.write(key);
        }
        if let Some(Tag { vlan, priority }) = self.tag {
            key.u16(vlan).u16(vlan).bytes(&[priority]);
        }
        if let Some(ip) = &self.ip {
            ip.write(key);
            match self.transport {
                Transport::Other => {}
                Transport::Tcp(ports, _) | Transport::Udp(ports) | Transport::Sctp(ports) => {
                    ports.iter().for_each(|port| _ = key.u16(*port));
                }
                Transport::Icmp(kind) => _ = key.bytes(&kind),
            }
        }
    }
}

impl Interface<'_> {
    fn write(&self, key: &mut Writer) {
        /// The most bytes of a name.
        const MOST: usize = 64;
        let name = self.name.as_bytes();
        // Of what kind it is, and its description, are not known.
        key.u32(self.index).u32(0).variable(name.get(..MOST).unwrap_or(name)).variable(&[]);
    }
}

impl Ip {
    fn write(&self, key: &mut Writer) {
        let Self { ttl, protocol, tos, .. } = *self;
        let version = match self.addresses {
            Addresses::V4(_) => 4,
            Addresses::V6(..) => 6,
        };
        key.bytes(&[version, ttl, protocol, tos >> 2, tos >> 5, tos]);
        match self.addresses {
            Addresses::V4(both) => both.iter().for_each(|one| _ = key.bytes(&one.octets())),
            Addresses::V6(both, label) => {
                both.iter().for_each(|one| _ = key.bytes(&one.octets()));
                key.u32(label);
            }
        }
    }
}
