//! The key of a frame.
//!
//! Frames come from guests and networks: whatever their bytes say, only what is there is read, in
//! a number of steps that does not depend on them. What is cut short, or contradicts itself, leaves
//! the fields of that layer, and of those above, empty, as in OVS.

use packet::headers::Nsh;
use packet::headers::nsh::MD1;

use crate::key::{FRAG_ANY, FRAG_LATER, Key, NO_ETHER_TYPE, Slot, TAG_PRESENT, slot};

pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88A8;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86DD;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const MPLS: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
pub(crate) const NSH: u16 = 0x894F;

/// Set in the last label of all.
pub(crate) const LAST_LABEL: u32 = 0x100;

/// The least that is an EtherType; below it is a length (IEEE 802.3, 3.2.6).
pub(crate) const FIRST_ETHER_TYPE: u16 = 0x0600;

/// The extension header of IPv6 that fragments have (RFC 8200, section 4.5).
const FRAGMENT: u8 = 44;

/// LLC and SNAP headers of a frame whose type follows (RFC 1042).
const SNAP: [u8; 6] = [0xAA, 0xAA, 0x03, 0, 0, 0];

/// More extension headers than this in one packet are not followed.
const MAX_EXTENSIONS: usize = 8;

/// Where the layers of a frame begin, in bytes from its start; 0: there is no such layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// What the EtherType says it is, behind tags.
    pub network: u8,
    /// TCP, UDP, SCTP or ICMP, if its header is all there.
    pub transport: u8,
    /// The tags that have been looked at.
    pub tags: u8,
    /// Something that the key should have is in the frame, but behind `head`.
    pub is_cut: bool,
}

/// What a bridge looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Addresses, tags and the EtherType.
    Link,
    /// All there is.
    All,
}

/// Reads the key of a frame into `key`, which is empty but for what does not come from the frame.
///
/// `head` are the first bytes of the frame, or all, and `len` is the length of all of it. Of tags,
/// `vlans` are read: what is behind more of them is for later tables to find out, and the EtherType
/// is then that of the next tag (OVS: `vlan-limit`).
pub fn extract(key: &mut Key, head: &[u8], len: usize, vlans: u8, depth: Depth) -> Layers {
    let mut reader = Reader { key, head, at: 0, len, layers: Layers::default() };
    let _ = reader.link(vlans, depth);
    reader.layers
}

struct Reader<'r> {
    key: &'r mut Key,
    head: &'r [u8],
    /// How far it has been read.
    at: usize,
    /// The length of all that there is: of the frame, or of the packet in it.
    len: usize,
    layers: Layers,
}

impl Reader<'_> {
    /// The `N` bytes from `at` bytes behind, if they are there.
    #[inline]
    fn peek<const N: usize>(&mut self, at: usize) -> Option<[u8; N]> {
        let start = self.at.checked_add(at)?;
        let end = start.checked_add(N)?;
        if end > self.len {
            return None;
        }
        let bytes = self.head.get(start..end).and_then(|bytes| bytes.first_chunk()).copied();
        self.layers.is_cut |= bytes.is_none();
        bytes
    }

    /// The next `N` bytes.
    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.peek(0)?;
        self.at += N;
        Some(bytes)
    }

    /// Goes on so many bytes, if they are there.
    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.len).then_some(())
    }

    /// Puts a value of 64 bits at most at a place that is empty.
    #[inline(always)]
    fn put(&mut self, slot: Slot, value: impl Into<u64>) {
        self.key.fill(slot, value.into());
    }

    /// The same, of 128 bits.
    #[inline(always)]
    fn put_long(&mut self, slot: Slot, value: u128) {
        self.key.set(slot, value);
    }

    /// Where it is, as a layer's place.
    fn place(&self) -> u8 {
        u8::try_from(self.at).unwrap_or_default()
    }

    #[inline(always)]
    fn link(&mut self, vlans: u8, depth: Depth) -> Option<()> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.take()?;
        self.put(slot::ETH_DST, u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        self.put(slot::ETH_SRC, u64::from_be_bytes([0, 0, g, h, i, j, k, l]));
        let kind = self.peek(0).map(u16::from_be_bytes);
        if matches!(kind, Some(VLAN | QINQ)) {
            self.tags(vlans)?;
        }
        let ether_type = self.ether_type()?;
        self.put(slot::ETH_TYPE, ether_type);
        self.layers.network = self.place();
        if depth == Depth::Link {
            return None;
        }
        match ether_type {
            IPV4 => self.ipv4(),
            IPV6 => self.ipv6(),
            ARP | RARP => self.arp(),
            MPLS | MPLS_MULTICAST => self.mpls(),
            NSH => self.nsh(),
            _ => None,
        }
    }

    #[inline(never)]
    fn tags(&mut self, vlans: u8) -> Option<()> {
        let places =
            [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)].into_iter();
        for (tpid, tci) in places.take(usize::from(vlans)) {
            let Some(kind) = self.peek(0).map(u16::from_be_bytes) else { break };
            // A tag is one only where something follows.
            if !matches!(kind, VLAN | QINQ) || self.peek::<6>(0).is_none() {
                break;
            }
            let [_, _, high, low] = self.take()?;
            self.put(tpid, kind);
            self.put(tci, u16::from_be_bytes([high, low]) | TAG_PRESENT);
            self.layers.tags += 1;
        }
        Some(())
    }

    #[inline(always)]
    fn ether_type(&mut self) -> Option<u16> {
        let kind = u16::from_be_bytes(self.take()?);
        if kind >= FIRST_ETHER_TYPE {
            return Some(kind);
        }
        let Some(header) = self.peek::<8>(0) else { return Some(NO_ETHER_TYPE) };
        let ([a, b, c, d, e, f], [high, low]) = split(header);
        if [a, b, c, d, e, f] != SNAP {
            return Some(NO_ETHER_TYPE);
        }
        self.at += 8;
        let inner = u16::from_be_bytes([high, low]);
        Some(if inner >= FIRST_ETHER_TYPE { inner } else { NO_ETHER_TYPE })
    }

    #[inline(always)]
    fn ipv4(&mut self) -> Option<()> {
        let header: [u8; 20] = self.peek(0)?;
        let [first, tos, high, low, _, _, flags, offset, ttl, proto, _, _, a, b, c, d, e, f, g, h] =
            header;
        let header_len = usize::from(first & 0x0F) * 4;
        let total = usize::from(u16::from_be_bytes([high, low]));
        let there = self.len.checked_sub(self.at)?;
        // What is behind is padding, however long.
        if header_len < 20 || header_len > total || total > there {
            return None;
        }
        self.len = self.at + total;
        self.put(slot::IPV4_SRC, u32::from_be_bytes([a, b, c, d]));
        self.put(slot::IPV4_DST, u32::from_be_bytes([e, f, g, h]));
        self.put(slot::IP_TOS, tos);
        self.put(slot::IP_TTL, ttl);
        self.put(slot::IP_PROTO, proto);
        let fragment = u16::from_be_bytes([flags, offset]);
        let is_later = fragment & 0x1FFF != 0;
        self.frag(is_later, is_later || fragment & 0x2000 != 0);
        self.at += header_len;
        if is_later { None } else { self.transport(proto) }
    }

    #[inline(always)]
    fn frag(&mut self, is_later: bool, is_any: bool) {
        let later = if is_later { FRAG_LATER } else { 0 };
        self.put(slot::IP_FRAG, if is_any { later | FRAG_ANY } else { 0 });
    }

    fn ipv6(&mut self) -> Option<()> {
        let [first, second, third, fourth, high, low, next, hops] = self.peek(0)?;
        let payload = usize::from(u16::from_be_bytes([high, low]));
        let there = self.len.checked_sub(self.at + 40)?;
        // Longer frames are padded; a length of zero is that of a jumbogram, or of nothing.
        if payload > there {
            return None;
        }
        let (source, destination) = (self.peek(8)?, self.peek(24)?);
        self.put_long(slot::IPV6_SRC, u128::from_be_bytes(source));
        self.put_long(slot::IPV6_DST, u128::from_be_bytes(destination));
        self.len = self.at + 40 + payload;
        self.at += 40;
        // Without the last of the extension headers nothing but addresses is known.
        let (proto, frag) = self.extensions(next)?;
        self.put(slot::IP_TOS, first << 4 | second >> 4);
        self.put(slot::IPV6_LABEL, u32::from_be_bytes([0, second & 0x0F, third, fourth]));
        self.put(slot::IP_TTL, hops);
        self.put(slot::IP_PROTO, proto);
        self.put(slot::IP_FRAG, frag);
        if frag & FRAG_LATER != 0 { None } else { self.transport(proto) }
    }

    /// What comes behind the extension headers, and whether it is a fragment; of one that is not the
    /// first, that is all that is known.
    fn extensions(&mut self, mut next: u8) -> Option<(u8, u8)> {
        let mut frag = 0;
        for _ in 0..MAX_EXTENSIONS {
            match next {
                // Hop-by-hop options, routing, destination options (RFC 8200, section 4).
                0 | 43 | 60 => {
                    let [after, len, ..] = self.peek::<8>(0)?;
                    self.skip(8 + usize::from(len) * 8)?;
                    next = after;
                }
                // Authentication (RFC 4302, section 2.2).
                51 => {
                    let [after, len, ..] = self.peek::<8>(0)?;
                    self.skip(8 + usize::from(len) * 4)?;
                    next = after;
                }
                FRAGMENT => {
                    let [after, _, high, low, ..] = self.take::<8>()?;
                    let fragment = u16::from_be_bytes([high, low]);
                    if fragment & 0xFFF8 != 0 {
                        return Some((FRAGMENT, FRAG_ANY | FRAG_LATER));
                    }
                    // One that is whole is none (RFC 6946).
                    frag = if fragment == 0 { frag } else { FRAG_ANY };
                    next = after;
                }
                _ => return Some((next, frag)),
            }
        }
        None
    }

    #[inline(always)]
    fn transport(&mut self, proto: u8) -> Option<()> {
        match proto {
            6 => {
                let [a, b, c, d, _, _, _, _, _, _, _, _, high, low, ..] = self.peek::<20>(0)?;
                let header_len = usize::from(high >> 4) * 4;
                if header_len < 20 || self.at + header_len > self.len {
                    return None;
                }
                self.ports([a, b, c, d]);
                self.put(slot::TCP_FLAGS, u16::from_be_bytes([high, low]) & 0x0FFF);
            }
            // UDP and SCTP.
            17 => {
                let [a, b, c, d, ..] = self.peek::<8>(0)?;
                self.ports([a, b, c, d]);
            }
            132 => {
                let [a, b, c, d, ..] = self.peek::<12>(0)?;
                self.ports([a, b, c, d]);
            }
            // ICMP and IGMP; whatever the version of IP, as in Open vSwitch.
            1 | 2 => {
                let [kind, code, ..] = self.peek::<8>(0)?;
                self.ports([0, kind, 0, code]);
            }
            58 => {
                let [kind, code, ..] = self.peek::<8>(0)?;
                self.ports([0, kind, 0, code]);
                if matches!(kind, 135 | 136) && code == 0 {
                    self.neighbour();
                }
            }
            _ => {}
        }
        Some(())
    }

    #[inline(always)]
    fn ports(&mut self, [a, b, c, d]: [u8; 4]) {
        self.put(slot::TP_SRC, u16::from_be_bytes([a, b]));
        self.put(slot::TP_DST, u16::from_be_bytes([c, d]));
        self.layers.transport = self.place();
    }

    /// A message of neighbour discovery (RFC 4861, sections 4.3 and 4.4). An option that is there twice
    /// takes the addresses with it; behind one that makes no sense there are none.
    #[inline(never)]
    fn neighbour(&mut self) {
        let reserved = self.peek::<4>(4).map(u32::from_be_bytes).unwrap_or_default();
        self.put(slot::ND_RESERVED, reserved);
        let Some(target) = self.peek::<16>(8) else { return };
        self.put_long(slot::ND_TARGET, u128::from_be_bytes(target));
        let mut at = 24;
        // Of options there are few: an ordinary message has one.
        for _ in 0..MAX_EXTENSIONS {
            let Some([option, len, a, b, c, d, e, f]) = self.peek::<8>(at) else { return };
            let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
            let end = at + usize::from(len) * 8;
            if len == 0 || self.at + end > self.len {
                return;
            }
            let place = match (option, len) {
                (1, 1) => Some(slot::ARP_SHA),
                (2, 1) => Some(slot::ARP_THA),
                _ => None,
            };
            if let Some(place) = place {
                if self.key.get_u64(place) != 0 {
                    return self.forget_neighbour();
                }
                self.put(place, address);
                if self.key.get_u64(slot::ND_OPTIONS_TYPE) == 0 {
                    self.put(slot::ND_OPTIONS_TYPE, option);
                }
            }
            at = end;
        }
    }

    fn forget_neighbour(&mut self) {
        for place in [slot::ND_TARGET, slot::ARP_SHA, slot::ARP_THA] {
            self.key.set(place, 0);
        }
    }

    /// ARP for IPv4 over Ethernet (RFC 826).
    fn arp(&mut self) -> Option<()> {
        let message: [u8; 28] = self.peek(0)?;
        let ([a, b, c, d, e, f, high, low], addresses) = split::<28, 8, 20>(message);
        if [a, b, c, d, e, f] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        if let Ok(operation) = u8::try_from(u16::from_be_bytes([high, low])) {
            self.put(slot::IP_PROTO, operation);
        }
        let (sender, target) = split::<20, 10, 10>(addresses);
        let places = [(slot::ARP_SHA, slot::IPV4_SRC), (slot::ARP_THA, slot::IPV4_DST)];
        for ((hardware, protocol), part) in places.into_iter().zip([sender, target]) {
            let [a, b, c, d, e, f, w, x, y, z] = part;
            self.put(hardware, u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
            self.put(protocol, u32::from_be_bytes([w, x, y, z]));
        }
        Some(())
    }

    /// Labels (RFC 3032, section 2.1), and behind the last of them what it seems to be: there is no field
    /// that says it, but IP begins with its version.
    #[inline(never)]
    fn mpls(&mut self) -> Option<()> {
        let mut is_last = false;
        for place in [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2] {
            let entry = u32::from_be_bytes(self.take()?);
            self.put(place, entry);
            is_last = entry & LAST_LABEL != 0;
            if is_last {
                break;
            }
        }
        if !is_last || self.at >= self.len {
            return None;
        }
        let [first] = self.peek(0)?;
        match first >> 4 {
            4 => {
                self.put(slot::INSIDE, 1_u8);
                self.ipv4()
            }
            6 => {
                self.put(slot::INSIDE, 2_u8);
                self.ipv6()
            }
            _ => None,
        }
    }

    /// A network service header. What is behind it is for those to look at who take it off.
    #[inline(never)]
    fn nsh(&mut self) -> Option<()> {
        let first = self.peek(0)?;
        let there = self.len.checked_sub(self.at)?;
        let (Nsh { flags, ttl, md_type, next, path }, _) = Nsh::read(first, there)?;
        if md_type == MD1 {
            let (high, low) = split::<16, 8, 8>(self.peek(8)?);
            self.put(slot::NSH_C1_C2, u64::from_be_bytes(high));
            self.put(slot::NSH_C3_C4, u64::from_be_bytes(low));
        }
        for (place, value) in [
            (slot::NSH_FLAGS, flags),
            (slot::NSH_TTL, ttl),
            (slot::NSH_MDTYPE, md_type),
            (slot::NSH_NP, next),
        ] {
            self.put(place, value);
        }
        self.put(slot::NSH_PATH, path);
        Some(())
    }
}

/// An array in two parts.
fn split<const N: usize, const A: usize, const B: usize>(whole: [u8; N]) -> ([u8; A], [u8; B]) {
    const { assert!(A + B == N, "the parts are the whole") };
    let first = whole.first_chunk().copied().unwrap_or([0; A]);
    (first, whole.last_chunk().copied().unwrap_or([0; B]))
}

#[cfg(test)]
mod tests;
