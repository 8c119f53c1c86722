//! Feature bits (virtio 1.3 sections 5.1.3 and 6) and the two that vhost adds.

use packet::Capabilities;

use crate::net_header::{LEGACY_NET_HEADER_LEN, NET_HEADER_LEN};

bitflags::bitflags! {
    /// Feature bits that Ringway knows. Bits it does not know are never offered or accepted.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Features: u64 {
        /// The device handles frames with a partial checksum.
        const CSUM = 1 << 0;
        /// The driver handles frames with a partial checksum.
        const GUEST_CSUM = 1 << 1;
        /// The driver may switch its receive offloads at run time.
        const CTRL_GUEST_OFFLOADS = 1 << 2;
        /// The device tells its largest MTU.
        const MTU = 1 << 3;
        /// The device has a MAC address.
        const MAC = 1 << 5;
        /// The driver takes TCP segments over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes TCP segments over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes TCP segments with ECN.
        const GUEST_ECN = 1 << 9;
        /// The driver takes UDP fragmentation offload.
        const GUEST_UFO = 1 << 10;
        /// The device takes TCP segments over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device takes TCP segments over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device takes TCP segments with ECN.
        const HOST_ECN = 1 << 13;
        /// The device takes UDP fragmentation offload.
        const HOST_UFO = 1 << 14;
        /// A received frame may span several of the driver's buffers.
        const MRG_RXBUF = 1 << 15;
        /// The device tells the state of its link.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// Receive modes over the control queue.
        const CTRL_RX = 1 << 18;
        /// VLAN filter over the control queue.
        const CTRL_VLAN = 1 << 19;
        /// More receive modes over the control queue.
        const CTRL_RX_EXTRA = 1 << 20;
        /// The driver announces itself when asked.
        const GUEST_ANNOUNCE = 1 << 21;
        /// Several queue pairs.
        const MQ = 1 << 22;
        /// MAC address over the control queue.
        const CTRL_MAC_ADDR = 1 << 23;
        /// vhost: every write to guest memory is logged.
        const VHOST_LOG_ALL = 1 << 26;
        /// Legacy devices: header and data may share a descriptor.
        const ANY_LAYOUT = 1 << 27;
        /// Descriptors may point to tables of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// Notifications are suppressed by ring index.
        const EVENT_IDX = 1 << 29;
        /// vhost-user: protocol features can be negotiated.
        const VHOST_USER_PROTOCOL = 1 << 30;
        /// A device that follows virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// The device's addresses are translated by an IOMMU.
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed rings.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// Memory barriers as for a real device.
        const ORDER_PLATFORM = 1 << 36;
        /// Notifications carry the ring index.
        const NOTIFICATION_DATA = 1 << 38;
        /// Single queues can be reset.
        const RING_RESET = 1 << 40;
        /// The driver takes large UDP datagrams over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes large UDP datagrams over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device takes large UDP datagrams.
        const HOST_USO = 1 << 56;
        /// The device spreads flows over receive queues as it is told.
        const RSS = 1 << 60;
        /// The device tells the speed of its link.
        const SPEED_DUPLEX = 1 << 63;
    }
}

impl Features {
    /// The receive offloads that a driver may switch at run time (virtio 1.3 section
    /// 5.1.6.5.6.1): the numbers there are those of the feature bits.
    pub const GUEST_OFFLOADS: Self = Self::GUEST_CSUM
        .union(Self::GUEST_TSO4)
        .union(Self::GUEST_TSO6)
        .union(Self::GUEST_ECN)
        .union(Self::GUEST_USO4)
        .union(Self::GUEST_USO6);

    /// Offloads of what the driver sends.
    pub const HOST_OFFLOADS: Self = Self::CSUM
        .union(Self::HOST_TSO4)
        .union(Self::HOST_TSO6)
        .union(Self::HOST_ECN)
        .union(Self::HOST_USO);

    /// What only matters with a control queue, but for several queue pairs (virtio 1.3 section
    /// 5.1.3.1).
    pub const CONTROL: Self = Self::CTRL_VQ
        .union(Self::CTRL_RX)
        .union(Self::CTRL_RX_EXTRA)
        .union(Self::CTRL_VLAN)
        .union(Self::CTRL_MAC_ADDR)
        .union(Self::CTRL_GUEST_OFFLOADS)
        .union(Self::GUEST_ANNOUNCE)
        .union(Self::RSS);

    /// What the driver takes of the device. Segmentation needs checksum offload (virtio 1.3
    /// section 5.1.3.1).
    #[must_use]
    pub fn guest_takes(self) -> Capabilities {
        self.capabilities(&[
            (Self::GUEST_CSUM, Capabilities::CSUM),
            (Self::GUEST_TSO4, Capabilities::TSO4),
            (Self::GUEST_TSO6, Capabilities::TSO6),
            (Self::GUEST_ECN, Capabilities::ECN),
            (Self::GUEST_USO4, Capabilities::USO4),
            (Self::GUEST_USO6, Capabilities::USO6),
        ])
    }

    /// What the device takes of the driver.
    #[must_use]
    pub fn host_takes(self) -> Capabilities {
        self.capabilities(&[
            (Self::CSUM, Capabilities::CSUM),
            (Self::HOST_TSO4, Capabilities::TSO4),
            (Self::HOST_TSO6, Capabilities::TSO6),
            (Self::HOST_ECN, Capabilities::ECN),
            (Self::HOST_USO, Capabilities::USO4.union(Capabilities::USO6)),
        ])
    }

    fn capabilities(self, table: &[(Self, Capabilities)]) -> Capabilities {
        let negotiated = table.iter().filter(|(feature, _)| self.contains(*feature));
        let all: Capabilities = negotiated.map(|(_, capability)| *capability).collect();
        if all.contains(Capabilities::CSUM) { all } else { Capabilities::empty() }
    }

    /// Bytes of the net header with these features (virtio 1.3 section 5.1.6.1): the field
    /// `num_buffers` is there since virtio 1.0, and before with mergeable buffers only.
    #[must_use]
    pub const fn net_header_len(self) -> usize {
        if self.intersects(Self::VERSION_1.union(Self::MRG_RXBUF)) {
            NET_HEADER_LEN
        } else {
            LEGACY_NET_HEADER_LEN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segmentation_needs_checksums() {
        let features = Features::GUEST_TSO4 | Features::GUEST_USO6 | Features::HOST_USO;
        assert_eq!(features.guest_takes(), Capabilities::empty());
        assert_eq!(features.host_takes(), Capabilities::empty());
        let features = features | Features::GUEST_CSUM | Features::CSUM;
        let csum = Capabilities::CSUM;
        assert_eq!(features.guest_takes(), csum | Capabilities::TSO4 | Capabilities::USO6);
        assert_eq!(features.host_takes(), csum | Capabilities::USO4 | Capabilities::USO6);
        let all = Features::GUEST_OFFLOADS | Features::HOST_OFFLOADS;
        assert_eq!(
            (all.guest_takes(), all.host_takes()),
            (Capabilities::VIRTIO, Capabilities::VIRTIO)
        );
    }
}
