//! A template in the making, header by header, from the outside to the inside.

use std::net::IpAddr;

use packet::checksum::Checksum;
use packet::headers::{EtherType, IpProtocol, TcpFlags};

use crate::headers::{Headers, Network, Tag, Transport};
use crate::range::{Countable, L4Port, Range, Vni};
use crate::template::{AREAS, Area, Field, Length, Sum, Template, Width};

/// Port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;

/// Source ports of a tunnel, from the dynamic ones, as RFC 7348 (section 5) wants them. They go on with
/// the flow.
const TUNNEL_PORTS: Range<L4Port> = Range::of(L4Port(0xE000), 0x2000);

/// A length that is known when all headers are.
struct Counted {
    /// Where it is in the frame, if it is in it.
    at: Option<usize>,
    /// Where what it counts begins.
    from: usize,
    /// The checksum that it is part of.
    area: Option<Area>,
}

/// A template in the making.
#[derive(Default)]
pub struct Draft {
    /// Number of flows: of a range no more values are needed.
    flows: u32,
    head: Vec<u8>,
    fields: Vec<Field>,
    lengths: Vec<Counted>,
    sums: Vec<Sum>,
    base: [u64; AREAS],
    /// Where the addresses of the inner IP header are.
    addresses: std::ops::Range<usize>,
}

impl Draft {
    /// An empty one, for `flows` flows.
    pub fn new(flows: u32) -> Self {
        Self { flows, ..Self::default() }
    }

    /// An Ethernet header with tags, for what `network` carries.
    pub fn ethernet(&mut self, network: &Network, tags: &[Tag]) {
        self.field(network.dst_mac, &network.dst_mac.first.0, Width::Six, &[]);
        self.field(network.src_mac, &network.src_mac.first.0, Width::Six, &[]);
        for tag in tags {
            self.head.extend(tag.ether_type.0.to_be_bytes());
            let control = u16::from(tag.priority) << 13 | tag.vlan.first.0;
            let field = (u64::from(control), tag.vlan.count, tag.vlan.step);
            self.number(field, &control.to_be_bytes(), Width::Two, &[]);
        }
        let is_v4 = network.src_ip.first.is_ipv4();
        let ether_type = if is_v4 { EtherType::IPV4 } else { EtherType::IPV6 };
        self.head.extend(ether_type.0.to_be_bytes());
    }

    /// An IP header; `area` is that of its checksum.
    pub fn ip(&mut self, network: &Network, protocol: IpProtocol, area: Area) {
        // UDP around a tunnel has no checksum (RFC 7348, section 5; RFC 6935), so that addresses
        // there are part of one checksum only.
        let areas = if area == Area::Ip { &[Area::Transport][..] } else { &[] };
        if network.src_ip.first.is_ipv4() {
            let start = self.head.len();
            let flags = 0x40;
            self.head.extend([0x45, network.class, 0, 0, 0, 0, flags, 0]);
            self.head.extend([network.ttl, protocol.0, 0, 0]);
            self.lengths.push(Counted { at: Some(start + 2), from: start, area: Some(area) });
            self.sums.push(Sum { at: start + 10, area, zero_is_none: false });
            self.addresses(network, &[&[area][..], areas].concat());
            self.cover(area, start..self.head.len());
        } else {
            let [high, low] = [0x60 | network.class >> 4, network.class << 4];
            self.head.extend([high, low, 0, 0, 0, 0, protocol.0, network.ttl]);
            let (at, from) = (self.head.len() - 4, self.head.len() + 32);
            self.lengths.push(Counted { at: Some(at), from, area: None });
            self.addresses(network, areas);
        }
    }

    fn addresses(&mut self, network: &Network, areas: &[Area]) {
        let start = self.head.len();
        for range in [network.src_ip, network.dst_ip] {
            match range.first {
                IpAddr::V4(ip) => self.field(range, &ip.octets(), Width::Four, areas),
                IpAddr::V6(ip) => {
                    let [high, low] = [ip.octets(); 2];
                    self.head.extend(high.iter().take(8));
                    self.field(range, low.split_at(8).1, Width::Eight, areas);
                }
            }
        }
        self.addresses = start..self.head.len();
    }

    /// UDP and VXLAN.
    pub fn vxlan(&mut self, vni: Range<Vni>) {
        self.lengths.push(Counted {
            at: Some(self.head.len() + 4),
            from: self.head.len(),
            area: None,
        });
        let port = TUNNEL_PORTS;
        self.field(port, &port.first.0.to_be_bytes(), Width::Two, &[]);
        self.head.extend(VXLAN_PORT.to_be_bytes());
        self.head.extend([0, 0, 0, 0]);
        self.head.extend([0x08, 0, 0, 0]);
        let first = vni.first.0 << 8;
        let field = (u64::from(first), vni.count, vni.step << 8);
        self.number(field, &first.to_be_bytes(), Width::Four, &[]);
    }

    /// UDP or TCP, with a checksum.
    pub fn transport(&mut self, headers: &Headers, protocol: IpProtocol) {
        let area = Area::Transport;
        let start = self.head.len();
        for port in [headers.src_port, headers.dst_port] {
            self.field(port, &port.first.0.to_be_bytes(), Width::Two, &[area]);
        }
        let udp = headers.transport == Transport::Udp;
        match headers.transport {
            Transport::Udp => {
                self.lengths.push(Counted { at: Some(start + 4), from: start, area: Some(area) });
                self.head.extend([0; 4]);
            }
            Transport::Tcp(TcpFlags(flags)) => {
                self.head.extend([0; 8]);
                self.head.extend([0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
            }
        }
        let at = start + if udp { 6 } else { 16 };
        self.sums.push(Sum { at, area, zero_is_none: udp });
        self.cover(area, start..self.head.len());
        // The pseudo header: addresses, protocol, length.
        self.cover(area, self.addresses.clone());
        self.add(area, protocol.0.into());
        self.lengths.push(Counted { at: None, from: start, area: Some(area) });
    }

    /// The template.
    pub fn finish(self) -> Template {
        let mut template = Template {
            head: self.head,
            fields: self.fields,
            lengths: Vec::new(),
            sums: self.sums,
            base: self.base,
            lengths_in: [0; AREAS],
        };
        for Counted { at, from, area } in self.lengths {
            // Headers are far shorter than what 16 bits hold.
            let base = u16::try_from(template.head.len() - from).unwrap_or(u16::MAX);
            template.lengths.extend(at.map(|at| Length { at, base }));
            for (index, sum) in template.base.iter_mut().enumerate() {
                *sum +=
                    if area.is_some_and(|area| area as usize == index) { base.into() } else { 0 };
            }
            for (index, times) in template.lengths_in.iter_mut().enumerate() {
                *times += u64::from(area.is_some_and(|area| area as usize == index));
            }
        }
        template
    }

    fn field<T: Countable>(&mut self, range: Range<T>, first: &[u8], width: Width, areas: &[Area]) {
        self.number((range.first.number(), range.count, range.step), first, width, areas);
    }

    /// A field of the bytes `bytes`, which take `count` values.
    fn number(
        &mut self,
        (first, count, step): (u64, u32, u64),
        bytes: &[u8],
        width: Width,
        areas: &[Area],
    ) {
        let count = count.min(self.flows);
        if count <= 1 {
            self.head.extend(bytes);
            return;
        }
        let mut masks = [0; AREAS];
        for (index, mask) in masks.iter_mut().enumerate() {
            *mask = if areas.iter().any(|area| *area as usize == index) { u64::MAX } else { 0 };
        }
        self.fields.push(Field { at: self.head.len(), width, first, count, step, masks });
        self.head.extend(bytes.iter().map(|_| 0));
    }

    /// Adds what is in the head, as far as it stays the same, to a checksum.
    fn cover(&mut self, area: Area, bytes: std::ops::Range<usize>) {
        let mut sum = Checksum::new();
        sum.add(self.head.get(bytes).unwrap_or_default());
        self.add(area, sum.partial());
    }

    fn add(&mut self, area: Area, value: u16) {
        for (index, sum) in self.base.iter_mut().enumerate() {
            *sum += if area as usize == index { value.into() } else { 0 };
        }
    }
}
