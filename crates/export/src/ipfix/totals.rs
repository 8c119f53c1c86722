//! What has been counted of all packets since the start, with which each flow is told.

use super::packet::{Direction, Sample, Transport};

/// Whom a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    One,
    Many,
    All,
}

impl Audience {
    pub(super) const fn of(mac: [u8; 6]) -> Self {
        match mac {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Self::All,
            [first, ..] if first & 1 != 0 => Self::Many,
            _ => Self::One,
        }
    }
}

/// What has been counted of all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) packets: u64,
    pub(super) dropped: u64,
    /// Bytes of Ethernet.
    pub(super) frame_bytes: u64,
    /// Bytes of packets of IP, those of them that were dropped, and their sum of squares.
    pub(super) bytes: u64,
    pub(super) dropped_bytes: u64,
    pub(super) squares: u64,
    /// Packets that came in, for one, many and all.
    pub(super) ingress: [u64; 3],
    /// Packets that went out for one and all.
    pub(super) egress: [u64; 2],
    /// Packets that went out to many, and their bytes of IP.
    pub(super) multicast: [u64; 2],
    /// Flags of TCP, in the order in which they are told: ACK, FIN, PSH, RST, SYN, URG.
    pub(super) flags: [u64; 6],
}

impl Totals {
    /// Flags of TCP in the order in which they are told.
    const FLAGS: [u16; 6] = [0x10, 0x01, 0x08, 0x04, 0x02, 0x20];

    /// Counts the packets that one stands for.
    pub(super) fn count(&mut self, sample: &Sample<'_>) {
        let packets = sample.packets;
        let add = |total: &mut u64, count: u64| *total = total.wrapping_add(count);
        let dropped = if sample.is_dropped { packets } else { 0 };
        add(&mut self.packets, packets);
        add(&mut self.dropped, dropped);
        add(&mut self.frame_bytes, packets.wrapping_mul(sample.len.into()));
        let len = if sample.ip.is_some() { sample.ip_len() } else { 0 };
        let bytes = packets.wrapping_mul(len);
        add(&mut self.bytes, bytes);
        add(&mut self.dropped_bytes, dropped.wrapping_mul(len));
        add(&mut self.squares, bytes.wrapping_mul(len));
        let [_, destination] = sample.macs;
        let [one, many, all] = &mut self.ingress;
        let [out_one, out_all] = &mut self.egress;
        let to = match (sample.direction, Audience::of(destination)) {
            (Direction::Ingress, Audience::One) => one,
            (Direction::Ingress, Audience::Many) => many,
            (Direction::Ingress, Audience::All) => all,
            (Direction::Egress, Audience::One) => out_one,
            (Direction::Egress, Audience::All) => out_all,
            (Direction::Egress, Audience::Many) => {
                let [packets, octets] = &mut self.multicast;
                add(octets, bytes);
                packets
            }
        };
        add(to, packets);
        if let (Some(_), Transport::Tcp(_, flags)) = (sample.ip, sample.transport) {
            for (total, flag) in self.flags.iter_mut().zip(Self::FLAGS) {
                add(total, if flags & flag != 0 { packets } else { 0 });
            }
        }
    }
}
