//! What is told of a flow, and in which order: information elements (IANA, "IP Flow Information Export (IPFIX)
//! Entities"), as Open vSwitch has them.

use super::packet::Direction;
use crate::wire::Writer;

/// The number of a template of records, at least (RFC 7011, section 3.4.1).
const FIRST_TEMPLATE: u16 = 256;

/// The template of what is told of the one who tells: behind all that there could be for flows.
pub(super) const OPTIONS_TEMPLATE: u16 = 462;

/// The length of what has any (RFC 7011, section 7).
const VARIABLE: u16 = u16::MAX;

/// Whose elements those are that VMware has defined (IANA, "Private Enterprise Numbers").
const VMWARE: u32 = 6_876;

/// An information element: its number, and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element(u16, u16);

/// `virtualObsID`, which is VMware's.
const VIRTUAL_ID: Element = Element(898, VARIABLE);

impl Element {
    /// Writes how it is told.
    pub(super) fn specify(self, writer: &mut Writer) {
        const OF_ENTERPRISE: u16 = 0x8000;
        let Self(number, len) = self;
        if self == VIRTUAL_ID {
            writer.u16(number | OF_ENTERPRISE).u16(len).u32(VMWARE);
        } else {
            writer.u16(number).u16(len);
        }
    }
}

/// Where packets are seen, and Ethernet: `observationPointId`, `flowDirection`, `sourceMacAddress`,
/// `destinationMacAddress`, `ethernetType`, `ethernetHeaderLength`.
const COMMON: &[Element] = &[
    Element(138, 4),
    Element(61, 1),
    Element(56, 6),
    Element(80, 6),
    Element(256, 2),
    Element(240, 1),
];

/// `ingressInterface`, `ingressInterfaceType`, `interfaceName`, `interfaceDescription`.
const INPUT: &[Element] =
    &[Element(10, 4), Element(368, 4), Element(82, VARIABLE), Element(83, VARIABLE)];

/// `egressInterface`, `egressInterfaceType`, `interfaceName`, `interfaceDescription`.
const OUTPUT: &[Element] =
    &[Element(14, 4), Element(369, 4), Element(82, VARIABLE), Element(83, VARIABLE)];

/// `vlanId`, `dot1qVlanId`, `dot1qPriority`.
const TAG: &[Element] = &[Element(58, 2), Element(243, 2), Element(244, 1)];

/// `ipVersion`, `ipTTL`, `protocolIdentifier`, `ipDiffServCodePoint`, `ipPrecedence`, `ipClassOfService`.
const IP: &[Element] = &[
    Element(60, 1),
    Element(192, 1),
    Element(4, 1),
    Element(195, 1),
    Element(196, 1),
    Element(5, 1),
];

/// `sourceIPv4Address`, `destinationIPv4Address`.
const V4: &[Element] = &[Element(8, 4), Element(12, 4)];

/// `sourceIPv6Address`, `destinationIPv6Address`, `flowLabelIPv6`.
const V6: &[Element] = &[Element(27, 16), Element(28, 16), Element(31, 4)];

/// `sourceTransportPort`, `destinationTransportPort`.
const PORTS: &[Element] = &[Element(7, 2), Element(11, 2)];

/// `icmpTypeIPv4`, `icmpCodeIPv4`.
const ICMP_V4: &[Element] = &[Element(176, 1), Element(177, 1)];

/// `icmpTypeIPv6`, `icmpCodeIPv6`.
const ICMP_V6: &[Element] = &[Element(178, 1), Element(179, 1)];

/// `flowStartDeltaMicroseconds`, `flowEndDeltaMicroseconds`, `droppedPacketDeltaCount`, `droppedPacketTotalCount`,
/// `packetDeltaCount`, `packetTotalCount`, totals of packets that came in (`ingressUnicastPacketTotalCount`,
/// `ingressMulticastPacketTotalCount`, `ingressBroadcastPacketTotalCount`) and went out
/// (`egressUnicastPacketTotalCount`, `egressBroadcastPacketTotalCount`), `postMCastPacketDeltaCount`,
/// `postMCastPacketTotalCount`, `layer2OctetDeltaCount`, `layer2OctetTotalCount`, `flowEndReason`.
const COUNTS: &[Element] = &[
    Element(158, 4),
    Element(159, 4),
    Element(133, 8),
    Element(135, 8),
    Element(2, 8),
    Element(86, 8),
    Element(354, 8),
    Element(355, 8),
    Element(356, 8),
    Element(357, 8),
    Element(358, 8),
    Element(19, 8),
    Element(174, 8),
    Element(352, 8),
    Element(353, 8),
    Element(136, 1),
];

/// `droppedOctetDeltaCount`, `droppedOctetTotalCount`, `octetDeltaCount`, `octetTotalCount`,
/// `octetDeltaSumOfSquares`, `octetTotalSumOfSquares`, `minimumIpTotalLength`, `maximumIpTotalLength`,
/// `postMCastOctetDeltaCount`, `postMCastOctetTotalCount`.
const IP_COUNTS: &[Element] = &[
    Element(132, 8),
    Element(134, 8),
    Element(1, 8),
    Element(85, 8),
    Element(198, 8),
    Element(199, 8),
    Element(25, 8),
    Element(26, 8),
    Element(20, 8),
    Element(175, 8),
];

/// `tcpAckTotalCount`, `tcpFinTotalCount`, `tcpPshTotalCount`, `tcpRstTotalCount`, `tcpSynTotalCount`,
/// `tcpUrgTotalCount`.
const TCP_COUNTS: &[Element] = &[
    Element(222, 8),
    Element(219, 8),
    Element(221, 8),
    Element(220, 8),
    Element(218, 8),
    Element(223, 8),
];

/// Of the one who tells, `exportingProcessId`, and `notSentPacketTotalCount`.
pub(super) const OPTIONS: &[Element] = &[Element(144, 4), Element(167, 8)];

/// What is known of a layer, by its number among those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Layer(u16);

impl Layer {
    pub(super) const OTHER: Self = Self(0);
    pub(super) const V4: Self = Self(1);
    pub(super) const V6: Self = Self(2);
    pub(super) const TCP: Self = Self(1);
    pub(super) const UDP: Self = Self(2);
    pub(super) const SCTP: Self = Self(3);
    pub(super) const ICMP: Self = Self(4);

    /// How many there are of networks, and of transports.
    const NETWORKS: u16 = 3;
    const TRANSPORTS: u16 = 5;
}

/// What is told of a flow: a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) is_tagged: bool,
    pub(super) network: Layer,
    pub(super) transport: Layer,
    pub(super) direction: Direction,
}

impl Shape {
    /// The number of the template.
    pub(super) fn template(self) -> u16 {
        let Self { is_tagged, network: Layer(network), transport: Layer(transport), direction } =
            self;
        let layers = (u16::from(is_tagged) * Layer::NETWORKS + network) * Layer::TRANSPORTS;
        // Between a transport and a direction it is told whether packets are in tunnels: these are not.
        FIRST_TEMPLATE + (layers + transport) * 4 + direction as u16
    }

    /// Whether it is of packets of IP.
    pub(super) fn is_ip(self) -> bool {
        self.network != Layer::OTHER
    }

    /// Whether it is of packets of TCP.
    pub(super) fn is_tcp(self) -> bool {
        self.is_ip() && self.transport == Layer::TCP
    }

    /// What packets of a flow have in common.
    fn key(self) -> [&'static [Element]; 7] {
        let none: &[Element] = &[];
        let output = if self.direction == Direction::Egress { OUTPUT } else { none };
        let tag = if self.is_tagged { TAG } else { none };
        let (ip, addresses) = match self.network {
            Layer::V4 => (IP, V4),
            Layer::V6 => (IP, V6),
            _ => (none, none),
        };
        let transport = match self.transport {
            _ if !self.is_ip() => none,
            Layer::TCP | Layer::UDP | Layer::SCTP => PORTS,
            Layer::ICMP if self.network == Layer::V4 => ICMP_V4,
            Layer::ICMP => ICMP_V6,
            _ => none,
        };
        [COMMON, INPUT, output, tag, ip, addresses, transport]
    }

    /// All that is told of a flow, in order; with the name of a virtual observation, if it has one.
    pub(super) fn elements(self, is_virtual: bool) -> Vec<Element> {
        let none: &[Element] = &[];
        let name = if is_virtual { &[VIRTUAL_ID][..] } else { none };
        let ip = if self.is_ip() { IP_COUNTS } else { none };
        let tcp = if self.is_tcp() { TCP_COUNTS } else { none };
        let all = self.key().into_iter().chain([name, COUNTS, ip, tcp]);
        all.flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_the_numbers_of_open_vswitch() {
        let plain = Shape {
            is_tagged: false,
            network: Layer::OTHER,
            transport: Layer::OTHER,
            direction: Direction::Ingress,
        };
        assert_eq!(plain.template(), 256);
        assert_eq!(Shape { direction: Direction::Egress, ..plain }.template(), 257);
        let tcp = Shape { network: Layer::V4, transport: Layer::TCP, ..plain };
        assert_eq!(tcp.template(), 256 + 6 * 4);
        let last = Shape {
            is_tagged: true,
            network: Layer::V6,
            transport: Layer::ICMP,
            direction: Direction::Egress,
        };
        assert_eq!(last.template(), 256 + 29 * 4 + 1);
        assert!(last.template() < OPTIONS_TEMPLATE);
    }
}
