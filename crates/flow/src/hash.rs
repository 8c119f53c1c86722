//! The hashes by which `multipath` and `bundle` choose, and how they choose by them.
//!
//! They are Open vSwitch's, bit by bit, so that a connection takes the link here that it takes there:
//! lookup3 by Bob Jenkins, and the mixing of MurmurHash3 by Austin Appleby. Both are in the public
//! domain. Numbers are mixed as they lie in Open vSwitch's memory on x86: the packet's bytes as words
//! of little endian.

use openflow::action::{Algorithm, HashFields};

use crate::key::{Key, Slot, TAG_PRESENT, slot};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

/// Up to so many links all of them are tried (`hrw` of `multipath`).
const MAX_TRIED: u32 = 64;

/// A hash is made anew for so many times, at most, until it is the number of a link: each time is one in
/// two at least.
const MAX_AGAIN: u32 = 256;

/// A hash of those fields of a packet.
pub(crate) fn of_fields(key: &Key, fields: HashFields, basis: u16) -> u32 {
    let basis = u32::from(basis);
    match fields {
        HashFields::EthSrc => lookup3(&bytes::<6>(key, slot::ETH_SRC), basis),
        HashFields::SymmetricL4 => symmetric_l4(key, basis),
        HashFields::SymmetricL3L4 => symmetric_l3l4(key, basis, false),
        HashFields::SymmetricL3L4Udp => symmetric_l3l4(key, basis, true),
        HashFields::NwSrc => address(key, (slot::IPV4_SRC, slot::IPV6_SRC), basis),
        HashFields::NwDst => address(key, (slot::IPV4_DST, slot::IPV6_DST), basis),
        HashFields::SymmetricL3 => symmetric_l3(key, basis),
    }
}

/// The number of the link that a hash leads to, of 0 to `max_link`.
pub(crate) fn link(hash: u32, algorithm: Algorithm, max_link: u16, arg: u32) -> u16 {
    let links = u32::from(max_link).saturating_add(1);
    let link = match algorithm {
        Algorithm::ModuloN | Algorithm::ActiveBackup => hash % links,
        Algorithm::HashThreshold if links == 1 => 0,
        Algorithm::HashThreshold => hash / (u32::MAX / links + 1),
        Algorithm::Hrw if links <= MAX_TRIED => {
            let all = (0..links).map(|link| (link, two(hash, link)));
            highest(all).unwrap_or_default()
        }
        Algorithm::Hrw => again(hash, links, 0),
        Algorithm::IterHash => again(hash, links, arg),
    };
    u16::try_from(link).unwrap_or_default()
}

/// The place of the member that a hash leads to, of those that are alive.
pub(crate) fn member(hash: u32, alive: impl Iterator<Item = u32>) -> Option<u32> {
    highest(alive.map(|place| (place, two(place, hash))))
}

/// What has the highest score; of those that have the same, the first.
fn highest(all: impl Iterator<Item = (u32, u32)>) -> Option<u32> {
    let best = all.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map(|(place, _)| place)
}

/// Hashes anew until it is the number of a link.
fn again(hash: u32, links: u32, modulo: u32) -> u32 {
    let is_good = modulo >= links && modulo / 2 <= links;
    let modulo = if is_good { modulo } else { links.next_power_of_two() };
    let tries = (0..MAX_AGAIN).map(|nth| two(hash, nth) % modulo);
    tries.into_iter().find(|link| *link < links).unwrap_or(hash % links)
}

/// The lowest `N` bytes of a field, as they are in a packet.
fn bytes<const N: usize>(key: &Key, slot: Slot) -> [u8; N] {
    key.get(slot).to_be_bytes().last_chunk().copied().unwrap_or([0; N])
}

/// The bytes of two fields, in which what goes one way is as what goes the other.
fn both<const N: usize>(key: &Key, (source, target): (Slot, Slot)) -> [u8; N] {
    let (mut all, target) = (bytes::<N>(key, source), bytes::<N>(key, target));
    all.iter_mut().zip(target).for_each(|(byte, other)| *byte ^= other);
    all
}

/// The addresses of IP, joined; those of IPv4 are followed by nothing.
fn addresses(key: &Key) -> [u8; 16] {
    match key.get_u16(slot::ETH_TYPE) {
        IPV4 => {
            let [a, b, c, d] = both(key, (slot::IPV4_SRC, slot::IPV4_DST));
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IPV6 => both(key, (slot::IPV6_SRC, slot::IPV6_DST)),
        _ => [0; 16],
    }
}

fn is_ip(key: &Key) -> bool {
    matches!(key.get_u16(slot::ETH_TYPE), IPV4 | IPV6)
}

/// The VLANs of both tags, joined.
fn vlans(key: &Key) -> [u8; 2] {
    let [high, low] = both(key, (slot::VLAN_TCI, slot::INNER_TCI));
    let joined = u16::from_be_bytes([high, low]) & 0x0FFF & !TAG_PRESENT;
    joined.to_be_bytes()
}

/// Of all layers; of UDP without ports, since these need not be the same in both directions.
fn symmetric_l4(key: &Key, basis: u32) -> u32 {
    let proto = if is_ip(key) { key.get_u8(slot::IP_PROTO) } else { 0 };
    let ports = match proto {
        6 | 132 => both(key, (slot::TP_SRC, slot::TP_DST)),
        _ => [0; 2],
    };
    let mut all = addresses(key).to_vec();
    all.extend(bytes::<2>(key, slot::ETH_TYPE));
    all.extend(vlans(key));
    all.extend(ports);
    all.extend(both::<6>(key, (slot::ETH_SRC, slot::ETH_DST)));
    all.extend([proto, 0, 0, 0]);
    lookup3(&all, basis)
}

/// Of the network layer.
fn symmetric_l3(key: &Key, basis: u32) -> u32 {
    let mut all = addresses(key).to_vec();
    all.extend(bytes::<2>(key, slot::ETH_TYPE));
    all.extend([0; 2]);
    lookup3(&all, basis)
}

/// Of the network layer and above, or of Ethernet where there is no IP.
fn symmetric_l3l4(key: &Key, basis: u32, with_udp: bool) -> u32 {
    let mut hash = basis;
    let whole = addresses(key);
    match key.get_u16(slot::ETH_TYPE) {
        IPV4 => hash = words(hash, whole.get(..4).unwrap_or_default()),
        IPV6 => hash = words(hash, &whole),
        _ => return symmetric_l2(key, basis),
    }
    let proto = key.get_u8(slot::IP_PROTO);
    hash = add(hash, proto.into());
    let has_ports = matches!(proto, 6 | 132) || with_udp && proto == 17;
    if has_ports && key.get_u8(slot::IP_FRAG) == 0 {
        let ports: [u8; 2] = both(key, (slot::TP_SRC, slot::TP_DST));
        hash = add(hash, u16::from_le_bytes(ports).into());
    }
    end(hash, basis)
}

fn symmetric_l2(key: &Key, basis: u32) -> u32 {
    let mut all = bytes::<2>(key, slot::ETH_TYPE).to_vec();
    all.extend(vlans(key));
    all.extend(both::<6>(key, (slot::ETH_SRC, slot::ETH_DST)));
    all.extend([0; 2]);
    end(words(basis, &all), basis)
}

/// Of one address of IP; what has none has always the same.
fn address(key: &Key, (v4, v6): (Slot, Slot), basis: u32) -> u32 {
    match key.get_u16(slot::ETH_TYPE) {
        IPV4 => lookup3(&bytes::<4>(key, v4), basis),
        IPV6 => lookup3(&bytes::<16>(key, v6), basis),
        _ => basis,
    }
}

/// A step of MurmurHash3.
const fn add(hash: u32, data: u32) -> u32 {
    let data = data.wrapping_mul(0xCC9E_2D51).rotate_left(15).wrapping_mul(0x1B87_3593);
    (hash ^ data).rotate_left(13).wrapping_mul(5).wrapping_add(0xE654_6B64)
}

/// Its end.
const fn end(hash: u32, last: u32) -> u32 {
    let mut hash = hash ^ last;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85EB_CA6B);
    hash = (hash ^ hash >> 13).wrapping_mul(0xC2B2_AE35);
    hash ^ hash >> 16
}

/// Adds words of four bytes.
fn words(hash: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(hash, |hash, word| add(hash, number(word)))
}

/// A hash of two numbers.
const fn two(first: u32, second: u32) -> u32 {
    end(add(add(first, 0), second), 8)
}

/// Up to four bytes, the least significant first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// lookup3.
fn lookup3(bytes: &[u8], basis: u32) -> u32 {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let start = 0xDEAD_BEEF_u32.wrapping_add(len).wrapping_add(basis);
    let mut state = [start; 3];
    for part in bytes.chunks(12) {
        for (word, four) in state.iter_mut().zip(part.chunks(4)) {
            *word = word.wrapping_add(number(four));
        }
        if part.len() == 12 { mix(&mut state) } else { last(&mut state) }
    }
    let [_, _, hash] = state;
    hash
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |from: &mut u32, with: &mut u32, to: &mut u32, by: u32| {
        *from = from.wrapping_sub(*with) ^ with.rotate_left(by);
        *with = with.wrapping_add(*to);
    };
    step(a, c, b, 4);
    step(b, a, c, 6);
    step(c, b, a, 8);
    step(a, c, b, 16);
    step(b, a, c, 19);
    step(c, b, a, 4);
}

fn last([a, b, c]: &mut [u32; 3]) {
    let step = |to: &mut u32, with: u32, by: u32| {
        *to = (*to ^ with).wrapping_sub(with.rotate_left(by));
    };
    step(c, *b, 14);
    step(a, *c, 11);
    step(b, *a, 25);
    step(c, *b, 16);
    step(a, *c, 4);
    step(b, *a, 14);
    step(c, *b, 24);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(proto: u8, reverse: bool) -> Key {
        let mut key = Key::default();
        let pairs = [
            (slot::ETH_SRC, slot::ETH_DST, 0x5254_0000_0001, 0x5254_0000_0002),
            (slot::IPV4_SRC, slot::IPV4_DST, 0x0A00_0001, 0x0A00_0002),
            (slot::TP_SRC, slot::TP_DST, 40_000, 80),
        ];
        for (source, target, one, other) in pairs {
            let (one, other) = if reverse { (other, one) } else { (one, other) };
            key.set(source, one);
            key.set(target, other);
        }
        key.set(slot::ETH_TYPE, IPV4.into());
        key.set(slot::IP_PROTO, proto.into());
        key
    }

    const ALL: [HashFields; 7] = [
        HashFields::EthSrc,
        HashFields::SymmetricL4,
        HashFields::SymmetricL3L4,
        HashFields::SymmetricL3L4Udp,
        HashFields::NwSrc,
        HashFields::NwDst,
        HashFields::SymmetricL3,
    ];

    /// What lookup3.c says of itself.
    #[test]
    fn lookup3_is_lookup3() {
        let text = b"Four score and seven years ago";
        assert_eq!([lookup3(text, 0), lookup3(text, 1)], [0x1777_0551, 0xCD62_8161]);
        assert_eq!([lookup3(b"", 0), lookup3(b"", 0xDEAD_BEEF)], [0xDEAD_BEEF, 0xBD5B_7DDE]);
    }

    #[test]
    fn murmur3_is_murmur3() {
        assert_eq!(end(add(0, number(b"test")), 4), 0xBA6B_D213);
    }

    #[test]
    fn what_is_symmetric_is_so() {
        for fields in ALL {
            let [there, back] = [false, true].map(|way| of_fields(&key(6, way), fields, 7));
            let is_one_way =
                matches!(fields, HashFields::EthSrc | HashFields::NwSrc | HashFields::NwDst);
            assert_eq!(there != back, is_one_way, "{fields}");
        }
        // Ports of UDP count only where it is said.
        let mut other = key(17, false);
        other.set(slot::TP_SRC, 1);
        let differs =
            |fields| of_fields(&key(17, false), fields, 0) != of_fields(&other, fields, 0);
        assert_eq!(ALL.map(differs), [false, false, false, true, false, false, false]);
    }

    #[test]
    fn links_are_within_bounds_and_all_of_them_are_taken() {
        let algorithms =
            [Algorithm::ModuloN, Algorithm::HashThreshold, Algorithm::Hrw, Algorithm::IterHash];
        for algorithm in algorithms {
            for (max_link, arg) in [(0, 0), (4, 0), (4, 7), (99, 5), (u16::MAX, 0)] {
                let links = (0..2_000_u32).map(|n| link(two(n, 1), algorithm, max_link, arg));
                let links: std::collections::BTreeSet<u16> = links.collect();
                assert!(links.last().is_some_and(|last| *last <= max_link), "{algorithm}");
                assert!(max_link > 99 || links.len() == usize::from(max_link) + 1, "{algorithm}");
            }
        }
    }

    /// One link less moves only what was there.
    #[test]
    fn a_member_that_is_gone_takes_nobody_elses_along() {
        assert_eq!(member(1, std::iter::empty()), None);
        for hash in 0..500 {
            let before = member(hash, 0..5).unwrap();
            let after = member(hash, (0..5).filter(|place| *place != 2)).unwrap();
            assert!(after == before || before == 2 && after != 2);
        }
    }
}
