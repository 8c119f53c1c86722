//! From a key to the bytes of a frame.

use flow::{FRAG_ANY, FRAG_LATER, Key, NO_ETHER_TYPE, TAG_PRESENT, slot};
use packet::checksum::{Checksum, checksum};

use crate::kind::{Kind, is_discovery};

/// What is behind the header of TCP, UDP, SCTP and ICMP, unless a length is asked for: bytes that
/// count up.
const PAYLOAD: usize = 64;

/// The longest payload that is made.
const MAX_PAYLOAD: usize = 9_000;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// A frame with this key; with `length`, as long as that, but for frames that are longer in any case.
#[must_use]
pub fn compose(key: &Key, length: Option<usize>) -> Vec<u8> {
    let headers = || frame(key, Some(0)).len();
    let payload = length.map(|length| length.saturating_sub(headers()).min(MAX_PAYLOAD));
    let mut frame = frame(key, payload);
    // What has no place for it in its headers is padded.
    let most = frame.len().saturating_add(MAX_PAYLOAD);
    let len = length.map_or(0, |length| length.min(most)).max(frame.len());
    frame.resize(len, 0);
    frame
}

/// The lowest `N` bytes of a value.
fn bytes<const N: usize>(value: u128) -> [u8; N] {
    value.to_be_bytes().last_chunk().copied().unwrap_or([0; N])
}

fn frame(key: &Key, payload: Option<usize>) -> Vec<u8> {
    let mut frame = Vec::from(bytes::<6>(key.get(slot::ETH_DST)));
    frame.extend(bytes::<6>(key.get(slot::ETH_SRC)));
    let tags = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    for (tpid, tci) in tags {
        let tci = key.get_u16(tci);
        if tci & TAG_PRESENT != 0 {
            let tpid = Some(key.get_u16(tpid)).filter(|tpid| *tpid != 0).unwrap_or(0x8100);
            frame.extend(tpid.to_be_bytes());
            frame.extend((tci & !TAG_PRESENT).to_be_bytes());
        }
    }
    // Where no type is given, there is the length, of the header alone.
    let kind = key.get_u16(slot::ETH_TYPE);
    let kind = if kind == 0 || kind == NO_ETHER_TYPE { 14 } else { kind };
    frame.extend(kind.to_be_bytes());
    frame.extend(body(key, payload));
    frame
}

fn body(key: &Key, payload: Option<usize>) -> Vec<u8> {
    match Kind::of(key) {
        // Of a network service header Open vSwitch makes nothing either.
        Kind::Nsh | Kind::Other => Vec::new(),
        Kind::Mpls => key.get_u32(slot::MPLS_LSE).to_be_bytes().to_vec(),
        Kind::Arp => arp(key),
        Kind::Ipv4 => ipv4(key, payload),
        Kind::Ipv6 => ipv6(key, payload),
    }
}

/// ARP about Ethernet and IPv4 (RFC 826).
fn arp(key: &Key) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4];
    arp.extend(bytes::<2>(key.get(slot::IP_PROTO)));
    arp.extend(bytes::<6>(key.get(slot::ARP_SHA)));
    arp.extend(bytes::<4>(key.get(slot::IPV4_SRC)));
    arp.extend(bytes::<6>(key.get(slot::ARP_THA)));
    arp.extend(bytes::<4>(key.get(slot::IPV4_DST)));
    arp
}

/// The offset and the flag of a fragment, in bytes: none, the first one, or another one.
const fn fragment(key_frag: u8) -> Option<u16> {
    match (key_frag & FRAG_ANY != 0, key_frag & FRAG_LATER != 0) {
        (false, _) => None,
        (true, false) => Some(0),
        (true, true) => Some(100),
    }
}

fn ipv4(key: &Key, payload: Option<usize>) -> Vec<u8> {
    let (src, dst) = (bytes::<4>(key.get(slot::IPV4_SRC)), bytes::<4>(key.get(slot::IPV4_DST)));
    let proto = key.get_u8(slot::IP_PROTO);
    let fragment = fragment(key.get_u8(slot::IP_FRAG));
    let sum = |len| Checksum::pseudo_v4(src, dst, proto, short(len));
    let upper = match fragment {
        Some(1..) => Vec::new(),
        _ => upper(key, payload, &sum),
    };
    let len = short(upper.len().saturating_add(20));
    let mut head = vec![0x45, key.get_u8(slot::IP_TOS)];
    head.extend(len.to_be_bytes());
    head.extend([0, 0]);
    head.extend(fragment.map_or(0, |offset| 0x2000 | offset).to_be_bytes());
    head.extend([key.get_u8(slot::IP_TTL), proto, 0, 0]);
    head.extend(src);
    head.extend(dst);
    patch(&mut head, 10, checksum);
    [head, upper].concat()
}

/// The extension header of a fragment (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;

fn ipv6(key: &Key, payload: Option<usize>) -> Vec<u8> {
    let (src, dst) = (bytes::<16>(key.get(slot::IPV6_SRC)), bytes::<16>(key.get(slot::IPV6_DST)));
    let proto = key.get_u8(slot::IP_PROTO);
    let fragment = fragment(key.get_u8(slot::IP_FRAG));
    let sum =
        |len: usize| Checksum::pseudo_v6(src, dst, proto, u32::try_from(len).unwrap_or_default());
    let mut upper = match fragment {
        Some(1..) => Vec::new(),
        _ => upper(key, payload, &sum),
    };
    let mut next = proto;
    if let Some(offset) = fragment {
        // The offset is counted in units of 8 bytes, and more follows.
        let offset = offset.div_ceil(8) << 3 | 1;
        let [high, low] = offset.to_be_bytes();
        upper.splice(0..0, [proto, 0, high, low, 0, 0, 0, 1]);
        next = FRAGMENT;
    }
    let label = key.get_u32(slot::IPV6_LABEL);
    let first = 6 << 28 | u32::from(key.get_u8(slot::IP_TOS)) << 20 | label & 0xf_ffff;
    let mut head = first.to_be_bytes().to_vec();
    head.extend(short(upper.len()).to_be_bytes());
    head.extend([next, key.get_u8(slot::IP_TTL)]);
    head.extend(src);
    head.extend(dst);
    [head, upper].concat()
}

fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// What is above IP, with its checksum, which `pseudo` begins given its length.
fn upper(key: &Key, payload: Option<usize>, pseudo: &dyn Fn(usize) -> Checksum) -> Vec<u8> {
    let proto = key.get_u8(slot::IP_PROTO);
    let (src, dst) = (key.get_u16(slot::TP_SRC), key.get_u16(slot::TP_DST));
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    let low = |word: u16| word.to_be_bytes()[1];
    let flags = key.get_u16(slot::TCP_FLAGS);
    let usual = if carries(proto, (src, dst), flags) { PAYLOAD } else { 0 };
    let (asked, payload) = (payload.unwrap_or(0), payload.unwrap_or(usual));
    let (mut head, at): (Vec<u8>, usize) = match proto {
        // Header length 5 words, and the flags.
        TCP => ([&ports[..], &[0; 8], &(0x5000 | flags).to_be_bytes(), &[0; 6]].concat(), 16),
        UDP => {
            let len = short(payload.saturating_add(8));
            ([&ports[..], &len.to_be_bytes(), &[0, 0]].concat(), 6)
        }
        ICMP | ICMPV6 => (vec![low(src), low(dst), 0, 0, 0, 0, 0, 0], 2),
        SCTP => ([&ports[..], &[0; 8]].concat(), usize::MAX),
        // Zeroes, as Open vSwitch fills up.
        _ => return vec![0; asked],
    };
    if is_discovery(key) {
        discovery(key, &mut head);
    } else {
        head.extend((0..=u8::MAX).cycle().take(payload));
    }
    let len = head.len();
    patch(&mut head, at, |bytes| {
        if proto == ICMP {
            return checksum(bytes);
        }
        let mut sum = pseudo(len);
        sum.add(bytes);
        match (proto, sum.finish()) {
            // No checksum at all is another matter (RFC 768).
            (UDP, 0) => u16::MAX,
            (_, sum) => sum,
        }
    });
    head
}

/// Whether a packet carries something, unless a length is asked for: no connection that begins or ends
/// does, and of ICMP only echoes do.
const fn carries(proto: u8, (kind, code): (u16, u16), tcp_flags: u16) -> bool {
    /// FIN, SYN and RST.
    const ENDS: u16 = 0x07;
    match proto {
        TCP => tcp_flags & ENDS == 0,
        ICMP => matches!(kind, 0 | 8) && code == 0,
        ICMPV6 => matches!(kind, 128 | 129) && code == 0,
        proto => proto != SCTP,
    }
}

/// Whom neighbour discovery asks for, and the addresses of the link layer that it tells (RFC 4861
/// section 4.6.1).
fn discovery(key: &Key, head: &mut Vec<u8>) {
    head.truncate(4);
    head.extend(key.get_u32(slot::ND_RESERVED).to_be_bytes());
    head.extend(bytes::<16>(key.get(slot::ND_TARGET)));
    for (kind, address) in [(1, slot::ARP_SHA), (2, slot::ARP_THA)] {
        let address = key.get(address);
        if address != 0 {
            head.extend([kind, 1]);
            head.extend(bytes::<6>(address));
        }
    }
}

/// Puts the checksum of `bytes`, whose field for it is zero, at place `at`.
fn patch(bytes: &mut [u8], at: usize, sum: impl FnOnce(&[u8]) -> u16) {
    let sum = sum(bytes).to_be_bytes();
    let field = at.checked_add(2).and_then(|end| bytes.get_mut(at..end));
    if let Some(field) = field {
        field.copy_from_slice(&sum);
    }
}
