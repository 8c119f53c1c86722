//! Large segments, as a sender makes them who leaves it to the device to cut them.

use packet::{Gso, OffloadRequest};

use crate::input::Input;

/// A large segment.
#[derive(Clone, Debug)]
pub struct Large {
    /// All of it, with checksums begun.
    pub bytes: Vec<u8>,
    /// What its sender asks for.
    pub request: OffloadRequest,
    /// Where the IP header begins.
    pub network_at: usize,
    /// Bytes of all headers.
    pub headers: usize,
    /// IPv6 rather than IPv4.
    pub is_v6: bool,
    /// TCP rather than UDP.
    pub is_tcp: bool,
}

impl Large {
    /// A segment with headers of any kind and length, which keeps to the rules.
    pub fn new(input: &mut Input<'_>) -> Self {
        let choice = input.byte();
        let (is_v6, is_tcp) = (choice & 1 == 1, choice & 2 == 0);
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..(choice >> 2 & 3) % 3 {
            bytes.extend(if input.yes() { [0x81, 0] } else { [0x88, 0xa8] });
            bytes.extend(input.number::<u16>().to_be_bytes());
        }
        bytes.extend(if is_v6 { [0x86, 0xdd] } else { [8, 0] });
        let network_at = bytes.len();
        let protocol = if is_tcp { 6 } else { 17 };
        let transport = if is_tcp { tcp(input) } else { udp(input) };
        let gso_size = u16::from(input.byte()) * 8 + u16::from(input.byte()) + 1;
        let room = 0xffff - 500 - transport.len();
        let len = usize::from(input.number::<u16>()) % room;
        let payload = pattern(len, input.byte());
        let ip = if is_v6 {
            ipv6(input, protocol, transport.len() + len)
        } else {
            ipv4(input, protocol, transport.len() + len)
        };
        bytes.extend(ip);
        let transport_at = bytes.len();
        bytes.extend(&transport);
        let headers = bytes.len();
        bytes.extend(payload);
        let csum_offset = if is_tcp { 16 } else { 6 };
        if !is_tcp {
            let len = u16::try_from(bytes.len() - transport_at).unwrap();
            bytes[transport_at + 4..][..2].copy_from_slice(&len.to_be_bytes());
        }
        let begun = pseudo(&bytes[network_at..], is_v6, protocol, bytes.len() - transport_at);
        bytes[transport_at + csum_offset..][..2].copy_from_slice(&begun.to_be_bytes());
        let request = OffloadRequest {
            needs_csum: true,
            data_valid: false,
            gso: Some(match (is_tcp, is_v6) {
                (true, false) => Gso::TcpV4,
                (true, true) => Gso::TcpV6,
                (false, _) => Gso::Udp,
            }),
            ecn: choice & 0x40 != 0 && is_tcp,
            gso_size,
            csum_start: u16::try_from(transport_at).unwrap(),
            csum_offset: u16::try_from(csum_offset).unwrap(),
        };
        Self { bytes, request, network_at, headers, is_v6, is_tcp }
    }

    /// Bytes of payload.
    #[must_use]
    pub const fn payload(&self) -> usize {
        self.bytes.len() - self.headers
    }

    /// Whether the checksums of a part are right, that of IPv4 and that of the transport.
    #[must_use]
    pub fn has_good_checksums(&self, part: &[u8]) -> bool {
        let transport_at = usize::from(self.request.csum_start);
        let protocol = if self.is_tcp { 6 } else { 17 };
        let ip = &part[self.network_at..];
        let begun = pseudo(ip, self.is_v6, protocol, part.len() - transport_at);
        let whole = [&begun.to_be_bytes(), &part[transport_at..]].concat();
        let network = &part[self.network_at..transport_at];
        sum(&whole) == 0xffff && (self.is_v6 || sum(network) == 0xffff)
    }
}

/// The one's complement sum (RFC 1071).
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The sum of the pseudo header of `ip` with a transport of `len` bytes.
fn pseudo(ip: &[u8], is_v6: bool, protocol: u8, len: usize) -> u16 {
    let mut bytes = if is_v6 { ip[8..40].to_vec() } else { ip[12..20].to_vec() };
    bytes.extend([0, protocol]);
    bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
    sum(&bytes)
}

/// Bytes that differ in each part.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    let byte = |at: usize| seed.wrapping_add((at ^ at >> 8).to_le_bytes()[0].wrapping_mul(167));
    (0..len).map(byte).collect()
}

fn ipv4(input: &mut Input<'_>, protocol: u8, len: usize) -> Vec<u8> {
    let words = input.below(11);
    let total = u16::try_from(20 + 4 * usize::from(words) + len).unwrap().to_be_bytes();
    let id = input.number::<u16>().to_be_bytes();
    let dont_fragment = if input.yes() { 0x40 } else { 0 };
    let mut ip = vec![0x45 + words, input.byte(), total[0], total[1], id[0], id[1]];
    ip.extend([dont_fragment, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    // No operation.
    ip.extend(vec![1; 4 * usize::from(words)]);
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip
}

fn ipv6(input: &mut Input<'_>, protocol: u8, len: usize) -> Vec<u8> {
    let kinds: Vec<u8> = (0..input.below(4)).map(|_| input.pick(&[0, 60, 43])).collect();
    let kinds: Vec<u8> = kinds
        .iter()
        .enumerate()
        // Options for every hop come first, or not at all (RFC 8200 section 4.1).
        .filter(|(index, kind)| *index == 0 || **kind != 0)
        .map(|(_, kind)| *kind)
        .collect();
    let mut extensions = Vec::new();
    for index in 0..kinds.len() {
        let units = input.below(3);
        let next = kinds.get(index + 1).copied().unwrap_or(protocol);
        // Padding; of a routing header, no stop left.
        let body = 6 + 8 * usize::from(units);
        extensions.extend([next, units]);
        if kinds[index] == 43 {
            extensions.extend(vec![0; body]);
        } else {
            extensions.extend([1, u8::try_from(body - 2).unwrap()]);
            extensions.extend(vec![0; body - 2]);
        }
    }
    let payload = u16::try_from(extensions.len() + len).unwrap().to_be_bytes();
    let first = kinds.first().copied().unwrap_or(protocol);
    let label = input.number::<u16>().to_be_bytes();
    let mut ip = vec![0x60, 0, label[0], label[1], payload[0], payload[1], first, 64];
    ip.extend([0x20; 16]);
    ip.extend([0x21; 16]);
    ip.extend(extensions);
    ip
}

/// A TCP header without a checksum.
fn tcp(input: &mut Input<'_>) -> Vec<u8> {
    let words = input.below(11);
    let mut tcp = vec![0x12, 0x34, 0, 80];
    tcp.extend(input.number::<u32>().to_be_bytes());
    tcp.extend([1, 2, 3, 4, (5 + words) << 4, input.byte(), 0x10, 0, 0, 0, 0, 0]);
    tcp.extend(vec![1; 4 * usize::from(words)]);
    tcp
}

/// A UDP header without length and checksum.
fn udp(input: &mut Input<'_>) -> Vec<u8> {
    let port = input.number::<u16>().to_be_bytes();
    vec![0x12, 0x34, port[0], port[1], 0, 0, 0, 0]
}
