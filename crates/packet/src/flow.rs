//! Which flow a frame belongs to: a number that all frames of a connection have in common, so that
//! they can be spread over queues and stay in order.

use crate::headers::{EtherType, IpProtocol};
use crate::offload::layout::{Behind, behind_ipv4, behind_ipv6, ether_type};

/// An odd number without pattern, which spreads bits by multiplication.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A hash of the flow of the frame that begins with `head`, its tags left out: of its IP addresses, and
/// of the ports of TCP, UDP and SCTP where it is no fragment; of frames other than IP, of their
/// MAC addresses.
#[must_use]
pub fn hash(head: &[u8]) -> u32 {
    let network = ether_type(head).and_then(|(kind, at)| network(head, kind, at));
    let (addresses, ports) = network.unwrap_or_else(|| (head.get(..12).unwrap_or(head), &[]));
    let mixed = addresses.chunks(8).chain(ports.chunks(8)).fold(0, mix);
    #[allow(clippy::cast_possible_truncation, reason = "the high half, which depends on all bits")]
    let high = (mixed >> 32) as u32;
    high
}

/// The addresses of an IP packet, and its ports if it has such.
fn network(head: &[u8], kind: EtherType, at: usize) -> Option<(&[u8], &[u8])> {
    let (addresses, behind) = match kind {
        EtherType::IPV4 => (head.get(at + 12..at + 20)?, behind_ipv4(head, at)),
        EtherType::IPV6 => (head.get(at + 8..at + 40)?, behind_ipv6(head, at)),
        _ => return None,
    };
    Some((addresses, behind.and_then(|behind| ports(head, &behind)).unwrap_or_default()))
}

fn ports<'a>(head: &'a [u8], behind: &Behind) -> Option<&'a [u8]> {
    let has_ports = matches!(behind.protocol, IpProtocol::TCP | IpProtocol::UDP | IpProtocol(132));
    if has_ports { head.get(behind.at..behind.at + 4) } else { None }
}

/// Adds up to eight bytes to a hash.
fn mix(hash: u64, bytes: &[u8]) -> u64 {
    let word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let product = u128::from(hash ^ word ^ SPREAD) * u128::from(SPREAD);
    #[allow(clippy::cast_possible_truncation, reason = "the two halves are folded")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(source: u8, port: u16, protocol: u8, fragment: u16) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes[14] = 0x45;
        bytes[20..22].copy_from_slice(&fragment.to_be_bytes());
        bytes[23] = protocol;
        bytes[26..30].copy_from_slice(&[10, 0, 0, source]);
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        bytes
    }

    #[test]
    fn a_flow_is_addresses_and_ports() {
        let one = hash(&ipv4(1, 1000, 6, 0));
        assert_ne!(one, hash(&ipv4(2, 1000, 6, 0)));
        assert_ne!(one, hash(&ipv4(1, 1001, 6, 0)));
        // What changes within a flow does not count, nor does a tag.
        let mut later = ipv4(1, 1000, 6, 0);
        later[18..20].fill(7);
        later[40..].fill(9);
        assert_eq!(one, hash(&later));
        later.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(one, hash(&later));
        // Fragments after the first have no ports, so none counts them; nor does ICMP.
        assert_eq!(hash(&ipv4(1, 1000, 6, 0x2000)), hash(&ipv4(1, 5, 6, 0x0010)));
        assert_eq!(hash(&ipv4(1, 1000, 1, 0)), hash(&ipv4(1, 5, 1, 0)));
    }

    #[test]
    fn frames_of_any_kind_have_a_flow() {
        let mut v6 = vec![0; 80];
        v6[12..15].copy_from_slice(&[0x86, 0xDD, 0x60]);
        v6[20] = 17;
        let one = hash(&v6);
        v6[37] = 1;
        assert_ne!(one, hash(&v6));
        v6[37] = 0;
        v6[56] = 1;
        assert_ne!(one, hash(&v6), "ports");
        assert_ne!(hash(&[1; 14]), hash(&[2; 14]));
        for len in 0..60 {
            let _ = hash(&ipv4(1, 1, 6, 0)[..len]);
            let _ = hash(&v6[..len]);
        }
    }

    #[test]
    fn flows_spread_evenly() {
        let mut queues = [0_u32; 4];
        for port in 0..1000 {
            queues[hash(&ipv4(1, port, 17, 0)) as usize % 4] += 1;
        }
        assert!(queues.iter().all(|count| (200..300).contains(count)), "{queues:?}");
    }
}
