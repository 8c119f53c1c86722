//! Changes of frames as paths tell them: of their bytes, and of the checksums over these.

mod adjust;
mod nsh;
mod translate;

pub use adjust::adjust;
pub use nsh::push_nsh;
pub use translate::translate;

use packet::Open;
use packet::checksum::update;
use packet::crc32c;

use crate::extract::{Depth, Layers, NSH, extract};
use crate::key::{Key, slot};
use crate::path::Edit;

/// Where tags are.
const TAGS: usize = 12;

/// Length of a header of Ethernet.
const ETHERNET_LEN: usize = 14;

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
const MPLS: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Changes a frame. What it says of the frame, as that it has an IPv4 header, was true of the packet that
/// the path was found for; where it is not of this one, nothing is changed. Returns whether there was room
/// for what is put in.
pub fn rewrite(edit: &Edit, frame: &mut Open<'_>) -> bool {
    match *edit {
        Edit::PopVlan => !has_tag(frame) || frame.remove(TAGS, 4),
        Edit::PushVlan { tpid, tci } => {
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
            frame.insert(TAGS, &[a, b, c, d])
        }
        Edit::SetVlan { mask, tci } => {
            if has_tag(frame)
                && let Some(place) = frame.head_mut().get_mut(TAGS + 2..TAGS + 4)
            {
                set(place, mask.into(), tci.into());
            }
            true
        }
        Edit::PushMpls { tags, ether_type, entry } => push_mpls(tags, ether_type, entry, frame),
        Edit::PopMpls { tags, ether_type } => pop_mpls(tags, ether_type, frame),
        Edit::PushEthernet { ether_type } => push_ethernet(ether_type, frame),
        Edit::PopEthernet => frame.remove(0, ETHERNET_LEN),
        Edit::EmptyEthernet => empty_ethernet(frame),
        Edit::PopNsh { ether_type } => nsh::pop_nsh(ether_type, frame),
        Edit::RaiseDrop(level) => {
            raise_drop(level, frame);
            true
        }
        Edit::Set { word, mask, value } => {
            write(usize::from(word), mask, value, frame);
            true
        }
    }
}

/// Raises the drop precedence of a packet of a class of assured forwarding; others have none.
fn raise_drop(level: u8, frame: &mut Open<'_>) {
    let mut key = Key::default();
    let len = frame.len();
    extract(&mut key, frame.head(), len, 2, Depth::All);
    let dscp = key.get_u64(slot::IP_DSCP);
    let (class, drop) = (dscp >> 3, dscp >> 1 & 3);
    let is_assured = (1..=4).contains(&class) && drop > 0 && dscp & 1 == 0;
    if is_assured && matches!(key.get_u16(slot::ETH_TYPE), IPV4 | IPV6) {
        let raised = class << 3 | drop.saturating_add(level.into()).min(3) << 1;
        for ((word, mask), (_, value)) in
            slot::IP_DSCP.spread(0x3F).zip(slot::IP_DSCP.spread(raised.into()))
        {
            write(word, mask, value, frame);
        }
    }
}

/// Where the network layer of a frame is, behind so many tags at most, and the EtherType in front of it.
fn network(tags: u8, frame: &Open<'_>) -> Option<(usize, u16)> {
    let mut key = Key::default();
    let layers = extract(&mut key, frame.head(), frame.len(), tags, Depth::Link);
    let at = usize::from(layers.network);
    let kind = frame.head().get(at.checked_sub(2)?..at)?.first_chunk().copied()?;
    Some((at, u16::from_be_bytes(kind)))
}

/// Puts a label on. Large segments would have to be cut with it, which not all ports can: they are cut before.
fn push_mpls(tags: u8, ether_type: u16, entry: u32, frame: &mut Open<'_>) -> bool {
    let Some((at, _)) = network(tags, frame).filter(|_| frame.offload().gso().is_none()) else {
        return false;
    };
    frame.insert(at, &entry.to_be_bytes()) && set_ether_type(ether_type, at, frame)
}

/// Puts a header of Ethernet in front, of what is no large segment, either.
fn push_ethernet(ether_type: u16, frame: &mut Open<'_>) -> bool {
    let mut header = [0; ETHERNET_LEN];
    header[TAGS..].copy_from_slice(&ether_type.to_be_bytes());
    frame.offload().gso().is_none() && frame.insert(0, &header)
}

/// Takes a label off.
fn pop_mpls(tags: u8, ether_type: u16, frame: &mut Open<'_>) -> bool {
    let Some((at, _)) =
        network(tags, frame).filter(|(_, kind)| matches!(*kind, MPLS | MPLS_MULTICAST))
    else {
        return true;
    };
    frame.remove(at, 4) && set_ether_type(ether_type, at, frame)
}

/// Leaves of the header of Ethernet what the frame carries.
fn empty_ethernet(frame: &mut Open<'_>) -> bool {
    if let Some(addresses) = frame.head_mut().get_mut(..TAGS) {
        addresses.fill(0);
    }
    let Some((at, kind)) = network(0, frame) else { return true };
    match at.checked_sub(ETHERNET_LEN) {
        None | Some(0) => true,
        Some(len) => frame.remove(ETHERNET_LEN, len) && set_ether_type(kind, ETHERNET_LEN, frame),
    }
}

/// Writes what a frame carries, in front of its network layer.
fn set_ether_type(ether_type: u16, network: usize, frame: &mut Open<'_>) -> bool {
    let place = network.checked_sub(2).and_then(|at| frame.head_mut().get_mut(at..network));
    place.is_some_and(|place| {
        place.copy_from_slice(&ether_type.to_be_bytes());
        true
    })
}

fn has_tag(frame: &Open<'_>) -> bool {
    let kind = frame.head().get(TAGS..).and_then(|rest| rest.first_chunk().copied());
    matches!(kind.map(u16::from_be_bytes), Some(0x8100 | 0x88A8))
}

/// Writes those bits of a number of as many bytes as there are in `place`, 16 at most.
fn set(place: &mut [u8], mask: u128, value: u128) {
    let mask = mask.to_be_bytes();
    let value = value.to_be_bytes();
    let bits = mask.iter().rev().zip(value.iter().rev());
    for (byte, (mask, value)) in place.iter_mut().rev().zip(bits) {
        *byte = *byte & !mask | value & mask;
    }
}

/// What checksums are over what is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Covers {
    Nothing,
    /// That of the IPv4 header.
    Header,
    /// The same, and that of the layer above, by its pseudo header.
    Addresses,
    /// That of the layer above.
    Transport,
}

/// A frame of which it is known where its layers are.
struct Layered<'l, 'e> {
    frame: &'l mut Open<'e>,
    layers: Layers,
    key: Key,
}

/// Writes bits of a word of the key.
fn write(word: usize, mask: u64, value: u64, frame: &mut Open<'_>) {
    // Addresses are where they are in every frame.
    let link = [(slot::ETH_DST, 0..6), (slot::ETH_SRC, 6..12)].into_iter();
    for (_, place) in link.filter(|(slot, _)| slot.word() == word) {
        if let Some(place) = frame.head_mut().get_mut(place) {
            set(place, mask.into(), value.into());
        }
    }
    if word <= slot::VLAN_TCI.word() {
        return;
    }
    let mut layered = Layered::new(frame);
    match word {
        4 => layered.write_v4(mask, value),
        5 => layered.write_transport(mask, value),
        6 => layered.write_rest(mask, value),
        7..=10 => layered.write_v6(word, mask, value),
        11 | 12 => layered.write_target(word, mask, value),
        13 | 14 => layered.write_hardware(word, mask, value),
        15 => layered.write_label(mask, value),
        17..=19 => layered.write_nsh(word, mask, value),
        _ => {}
    }
}

impl<'l, 'e> Layered<'l, 'e> {
    fn new(frame: &'l mut Open<'e>) -> Self {
        let mut key = Key::default();
        let len = frame.len();
        // All tags that there may be, so that what the path takes for the network layer is that.
        let layers = extract(&mut key, frame.head(), len, 2, Depth::All);
        Self { frame, layers, key }
    }

    fn is(&self, ether_type: u16) -> bool {
        self.key.get_u16(slot::ETH_TYPE) == ether_type
    }

    fn is_arp(&self) -> bool {
        self.is(ARP) || self.is(RARP)
    }

    fn network(&self, at: usize) -> usize {
        usize::from(self.layers.network) + at
    }

    fn transport(&self, at: usize) -> Option<usize> {
        (self.layers.transport != 0).then(|| usize::from(self.layers.transport) + at)
    }

    /// Writes bits of the number of `N` bytes at `at`, which begins at an even place of what a checksum
    /// is over.
    fn put<const N: usize>(&mut self, at: usize, mask: u64, value: u64, covers: Covers) {
        if mask == 0 {
            return;
        }
        let Some(place) = self.frame.head_mut().get_mut(at..at + N) else { return };
        let before: Vec2 = words(place);
        set(place, mask.into(), value.into());
        let after = words(place);
        if covers == Covers::Transport && self.key.get_u8(slot::IP_PROTO) == SCTP {
            let words = before.into_iter().zip(after).enumerate();
            words.for_each(|(word, (old, new))| self.mend_sctp(at + 2 * word, old, new));
            return;
        }
        for (old, new) in before.into_iter().zip(after) {
            self.mend(old, new, covers);
        }
    }

    /// Mends the checksum of SCTP, which is over all of its packet, and over no addresses.
    #[cold]
    fn mend_sctp(&mut self, at: usize, old: u16, new: u16) {
        let Some(behind) = self.end().and_then(|end| end.checked_sub(at + 2)) else { return };
        let change = crc32c::change(old.to_be_bytes(), new.to_be_bytes(), behind);
        let Some(place) = self.transport(8) else { return };
        let place = self.frame.head_mut().get_mut(place..).and_then(|rest| rest.first_chunk_mut());
        if let Some(place) = place {
            let place: &mut [u8; 4] = place;
            *place = (u32::from_le_bytes(*place) ^ change).to_le_bytes();
        }
    }

    /// Where the packet of IP ends.
    fn end(&self) -> Option<usize> {
        let (at, before) = if self.is(IPV4) { (2, 0) } else { (4, 40) };
        let len = self.frame.head().get(self.network(at)..)?.first_chunk()?;
        Some(self.network(before + usize::from(u16::from_be_bytes(*len))))
    }

    /// Mends the checksums that are over a word.
    fn mend(&mut self, old: u16, new: u16, covers: Covers) {
        if matches!(covers, Covers::Header | Covers::Addresses) && self.is(IPV4) {
            let at = self.network(10);
            self.mend_at(at, |sum| update(sum, old, new));
        }
        if !matches!(covers, Covers::Addresses | Covers::Transport) {
            return;
        }
        let at = match self.key.get_u8(slot::IP_PROTO) {
            TCP => self.transport(16),
            UDP => self.transport(6),
            ICMPV6 if self.is(IPV6) => self.transport(2),
            1 if self.is(IPV4) && covers == Covers::Transport => self.transport(2),
            _ => None,
        };
        let Some(at) = at else { return };
        let begun = self.frame.offload().csum();
        let is_begun =
            begun.is_some_and(|(start, offset)| usize::from(start) + usize::from(offset) == at);
        let is_udp = self.key.get_u8(slot::IP_PROTO) == UDP;
        match (is_begun, covers) {
            // Only the pseudo header is in it by now, and not inverted.
            (true, Covers::Addresses) => self.mend_at(at, |sum| !update(!sum, old, new)),
            (true, _) => {}
            (false, _) => self.mend_at(at, |sum| match update(sum, old, new) {
                // None at all (RFC 768).
                _ if is_udp && sum == 0 => 0,
                0 if is_udp => 0xFFFF,
                sum => sum,
            }),
        }
    }

    fn mend_at(&mut self, at: usize, mend: impl FnOnce(u16) -> u16) {
        let place = self.frame.head_mut().get_mut(at..).and_then(|rest| rest.first_chunk_mut());
        if let Some(place) = place {
            let place: &mut [u8; 2] = place;
            *place = mend(u16::from_be_bytes(*place)).to_be_bytes();
        }
    }

    /// Addresses of IPv4, or those that ARP tells.
    fn write_v4(&mut self, mask: u64, value: u64) {
        let (low, covers) = match (self.is(IPV4), self.is_arp()) {
            (true, _) => ([12, 16], Covers::Addresses),
            (_, true) => ([14, 24], Covers::Nothing),
            _ => return,
        };
        let [source, destination] = low.map(|at| self.network(at));
        self.put::<4>(source, mask >> 32, value >> 32, covers);
        self.put::<4>(destination, mask & 0xFFFF_FFFF, value & 0xFFFF_FFFF, covers);
    }

    /// Ports, or type and code of ICMP; what IP says of the type of service, or ARP of its operation.
    fn write_transport(&mut self, mask: u64, value: u64) {
        let proto = self.key.get_u8(slot::IP_PROTO);
        let is_icmp = proto == 1 && self.is(IPV4) || proto == ICMPV6 && self.is(IPV6);
        let bits = |from: u64, shift: u32| from >> shift & 0xFFFF;
        if let Some(at) = self.transport(0) {
            if is_icmp {
                let of = |from: u64| bits(from, 0) << 8 & 0xFF00 | bits(from, 16) & 0xFF;
                self.put::<2>(at, of(mask), of(value), Covers::Transport);
            } else if matches!(proto, TCP | UDP | SCTP) {
                self.put::<2>(at, bits(mask, 0), bits(value, 0), Covers::Transport);
                self.put::<2>(at + 2, bits(mask, 16), bits(value, 16), Covers::Transport);
            }
        }
        if self.is_arp() {
            let at = self.network(6);
            self.put::<2>(at, bits(mask, 48) & 0xFF, bits(value, 48) & 0xFF, Covers::Nothing);
        }
        let (tos, new) = (bits(mask, 56) & 0xFF, bits(value, 56) & 0xFF);
        let at = self.network(0);
        if self.is(IPV4) {
            self.put::<2>(at, tos, new, Covers::Header);
        } else if self.is(IPV6) {
            self.put::<2>(at, tos << 4, new << 4, Covers::Nothing);
        }
    }

    /// Time to live, flow label, and what is reserved in neighbour discovery.
    fn write_rest(&mut self, mask: u64, value: u64) {
        let (ttl, new) = (mask & 0xFF, value & 0xFF);
        if self.is(IPV4) {
            let at = self.network(8);
            self.put::<2>(at, ttl << 8, new << 8, Covers::Header);
        } else if self.is(IPV6) {
            let at = self.network(6);
            self.put::<2>(at, ttl, new, Covers::Nothing);
            let at = self.network(0);
            let label = |from: u64| from >> 8 & 0xF_FFFF;
            self.put::<4>(at, label(mask), label(value), Covers::Nothing);
            if let Some(at) = self.transport(4) {
                self.put::<4>(at, mask >> 32, value >> 32, Covers::Transport);
            }
        }
    }

    /// Addresses of IPv6: half of one is a word.
    fn write_v6(&mut self, word: usize, mask: u64, value: u64) {
        if self.is(IPV6) {
            let at = self.network(8 + (word - slot::IPV6_SRC.word()) * 8);
            self.put::<8>(at, mask, value, Covers::Addresses);
        }
    }

    /// Whom neighbour discovery asks for.
    fn write_target(&mut self, word: usize, mask: u64, value: u64) {
        if self.is(IPV6)
            && let Some(at) = self.transport(8 + (word - slot::ND_TARGET.word()) * 8)
        {
            self.put::<8>(at, mask, value, Covers::Transport);
        }
    }

    /// The outermost label of MPLS.
    fn write_label(&mut self, mask: u64, value: u64) {
        if self.is(MPLS) || self.is(MPLS_MULTICAST) {
            let at = self.network(0);
            self.put::<4>(at, mask >> 32, value >> 32, Covers::Nothing);
        }
    }

    /// Addresses of the link layer in ARP, or in the first option of neighbour discovery.
    fn write_hardware(&mut self, word: usize, mask: u64, value: u64) {
        let is_target = word == slot::ARP_THA.word();
        if self.is_arp() {
            let at = self.network(if is_target { 18 } else { 8 });
            self.put::<6>(at, mask & 0xFFFF_FFFF_FFFF, value, Covers::Nothing);
        } else if self.is(IPV6)
            && let Some(at) = self.transport(24)
        {
            // The kind first: Open vSwitch has it so.
            let kind = |from: u64| if is_target { 0 } else { from >> 40 & 0xFF00 };
            self.put::<2>(at, kind(mask), kind(value), Covers::Transport);
            let option = self.frame.head().get(at).copied();
            if option == Some(if is_target { 2 } else { 1 }) {
                self.put::<6>(at + 2, mask & 0xFFFF_FFFF_FFFF, value, Covers::Transport);
            }
        }
    }
}

/// The words of a place of 8 bytes at most.
type Vec2 = arrayvec::ArrayVec<u16, 4>;

fn words(place: &[u8]) -> Vec2 {
    let pairs = place.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied());
    pairs.map(u16::from_be_bytes).take(4).collect()
}

#[cfg(test)]
mod tests;
