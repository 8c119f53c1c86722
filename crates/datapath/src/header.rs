//! What the switch reads of a frame: its Ethernet header.

use packet::headers::EtherType;
use packet::headers::ethernet::{HEADER_LEN, MAX_TAGS, TAG_LEN};
use packet::{Burst, Frame};

/// The bit of an address, read as a 48-bit number, that marks a group.
const GROUP: u64 = 1 << 40;

/// The first of the 16 addresses that a bridge never forwards (IEEE 802.1Q table 8-1).
const RESERVED: u64 = 0x0180_C200_0000;

/// Destination and source address of a frame.
///
/// They are kept as two overlapping numbers, which are quick to load and to compare: bytes 0 to
/// 7 and bytes 4 to 11 of the frame, in the order of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    first: u64,
    last: u64,
}

/// Whether a frame has a length in place of an EtherType (IEEE 802.3, 3.2.6).
pub(crate) fn has_length(frame: &Frame<'_>) -> bool {
    let place = frame.head().get(12..14).and_then(|place| place.first_chunk());
    place.is_some_and(|place| u16::from_be_bytes(*place) < 0x0600)
}

impl Addresses {
    /// The addresses of a frame; `None` if it is shorter than an Ethernet header.
    #[inline]
    pub(crate) fn of(frame: &Frame<'_>) -> Option<Self> {
        Self::read(frame.head().first_chunk::<HEADER_LEN>()?)
    }

    /// Those in an Ethernet header, where there always are some.
    #[inline(always)]
    pub(crate) fn read(header: &[u8; HEADER_LEN]) -> Option<Self> {
        let first = u64::from_ne_bytes(*header.first_chunk()?);
        let last = u64::from_ne_bytes(*header.get(4..)?.first_chunk()?);
        Some(Self { first, last })
    }

    /// The bits in which two pairs of addresses differ, if any.
    #[inline(always)]
    pub(crate) const fn difference(self, other: Self) -> u64 {
        (self.first ^ other.first) | (self.last ^ other.last)
    }

    /// The destination as a 48-bit number.
    #[inline]
    pub(crate) const fn destination(self) -> u64 {
        u64::from_be(self.first) >> 16
    }

    /// The source as a 48-bit number.
    #[inline]
    pub(crate) const fn source(self) -> u64 {
        u64::from_be(self.last) & 0xFFFF_FFFF_FFFF
    }
}

/// Whether all of these frames have surely the addresses of the first, and behind them the same of those
/// bits of eight bytes, which are in the order of memory.
#[inline]
pub(crate) fn have_same_start(frames: Burst<'_, '_>, bits: u64) -> bool {
    const ADDRESSES: u128 = (1 << 96) - 1;
    let bits = u128::from(u64::from_le(bits));
    let near = ADDRESSES | bits << 96;
    let (Some(alike), Some(first)) = (frames.alike(), frames.first()) else { return false };
    if alike.differences() & near != 0 {
        return false;
    }
    // The last four of them are behind what is known: at the end of a word that begins behind four.
    let far = bits >> 32 << 96;
    far == 0 || {
        let word = first.head().get(4..).and_then(|rest| rest.first_chunk());
        let differences =
            word.and_then(|word| frames.differences([4], [u128::from_le_bytes(*word)]));
        differences.is_some_and(|[differ]| differ & far == 0)
    }
}

/// Whether an address is a group's: multicast or broadcast.
#[inline]
pub(crate) const fn is_group(address: u64) -> bool {
    address & GROUP != 0
}

/// Whether a bridge must not forward frames to the address.
#[inline]
pub(crate) const fn is_reserved(address: u64) -> bool {
    address & !0xF == RESERVED
}

/// Whether a reserved address is among `groups`: bit 0 is the first of them.
#[inline]
pub(crate) const fn is_among(reserved: u64, groups: u16) -> bool {
    groups & 1_u16.wrapping_shl((reserved & 0xF) as u32) != 0
}

/// Whether an address can be that of a station, and so a source.
#[inline]
pub(crate) const fn is_station(address: u64) -> bool {
    address != 0 && !is_group(address)
}

/// Whether a frame tells where its sender is: an ARP or reverse ARP frame to everybody. Those of
/// IPv6 say so in many ways, and what a station sends later tells as well.
pub(crate) fn is_announcement(frame: &Frame<'_>) -> bool {
    const BROADCAST: [u8; 6] = [0xFF; 6];
    let kind = |at: usize| {
        let bytes = frame.head().get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
    };
    let outer = kind(HEADER_LEN - 2);
    let kind = if EtherType(outer).is_tag() { kind(HEADER_LEN + TAG_LEN - 2) } else { outer };
    frame.head().starts_with(&BROADCAST) && matches!(kind, 0x0806 | 0x8035)
}

/// Whether a frame of `len` bytes fits into the MTU even if it has no VLAN tag.
#[inline]
pub(crate) const fn fits_untagged(len: usize, mtu: usize) -> bool {
    len.saturating_sub(HEADER_LEN) <= mtu
}

/// Whether a frame's payload fits into the MTU. VLAN tags are not part of the payload. Of a large
/// segment, what counts is the longest frame that it becomes.
pub(crate) fn fits(frame: &Frame<'_>, mtu: usize) -> bool {
    let mut header = HEADER_LEN;
    for _ in 0..MAX_TAGS {
        let kind = frame.head().get(header - 2..).and_then(|rest| rest.first_chunk());
        if !kind.is_some_and(|kind| EtherType(u16::from_be_bytes(*kind)).is_tag()) {
            break;
        }
        header += TAG_LEN;
    }
    frame.wire_len().saturating_sub(header) <= mtu
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn frame(kinds: &[[u8; 2]], len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (index, kind) in kinds.iter().enumerate() {
            bytes[12 + 4 * index..14 + 4 * index].copy_from_slice(kind);
        }
        bytes
    }

    #[test]
    fn addresses_are_read_in_network_order() {
        let bytes: Vec<u8> = (0..14).collect();
        let addresses = Addresses::of(&Frame::from_bytes(&bytes)).unwrap();
        assert_eq!(addresses.destination(), 0x0001_0203_0405);
        assert_eq!(addresses.source(), 0x0607_0809_0A0B);
        assert!(Addresses::of(&Frame::from_bytes(&bytes[..13])).is_none());
    }

    #[test]
    fn addresses_are_classified() {
        assert!(is_group(0xFFFF_FFFF_FFFF) && is_group(0x0100_5E00_0001));
        assert!(!is_group(0x5254_0000_0001) && is_station(0x5254_0000_0001));
        assert!(!is_station(0) && !is_station(0x0100_0000_0000));
        assert!(is_reserved(0x0180_C200_0000) && is_reserved(0x0180_C200_000F));
        assert!(!is_reserved(0x0180_C200_0010) && !is_reserved(0x0180_C200_0100));
    }

    #[test]
    fn announcements_are_told_from_other_frames() {
        let tells = |to: u8, kinds: &[[u8; 2]]| {
            let mut bytes = frame(kinds, 60);
            bytes[..6].fill(to);
            is_announcement(&Frame::from_bytes(&bytes))
        };
        assert!(tells(0xFF, &[[0x80, 0x35]]) && tells(0xFF, &[[0x81, 0], [8, 6]]));
        assert!(!tells(2, &[[0x80, 0x35]]) && !tells(0xFF, &[[8, 0]]));
        assert!(!is_announcement(&Frame::from_bytes(&[0xFF; 13])));
    }

    #[test]
    fn tags_do_not_count_as_payload() {
        let fits = |kinds: &[[u8; 2]], len| fits(&Frame::from_bytes(&frame(kinds, len)), 1500);
        assert!(fits(&[], 1514) && !fits(&[], 1515));
        assert!(fits(&[[0x81, 0]], 1518) && !fits(&[[0x81, 0]], 1519));
        assert!(fits(&[[0x88, 0xA8], [0x81, 0]], 1522) && !fits(&[[0x88, 0xA8], [0x81, 0]], 1523));
        let three = [[0x88, 0xA8], [0x81, 0], [0x81, 0]];
        assert!(!fits(&three, 1526));
        assert!(fits_untagged(1514, 1500) && !fits_untagged(1515, 1500) && fits_untagged(3, 68));
    }

    /// A large segment in VLAN 5, and its offload.
    pub(crate) fn large_segment() -> (Vec<u8>, packet::Offload) {
        let mut bytes = frame(&[[0x81, 0]], 60_000);
        bytes[15] = 5;
        bytes[16..18].copy_from_slice(&[0x08, 0]);
        bytes[18..28].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
        bytes[50] = 0x80;
        let request = packet::OffloadRequest {
            needs_csum: true,
            gso: Some(packet::Gso::TcpV4),
            gso_size: 1448,
            csum_start: 38,
            csum_offset: 16,
            ..packet::OffloadRequest::default()
        };
        let all = packet::Capabilities::all();
        let offload = packet::Offload::check(&request, all, &bytes[..100], bytes.len()).unwrap();
        (bytes, offload)
    }

    #[test]
    fn a_large_segment_counts_as_the_frames_that_it_becomes() {
        let (bytes, offload) = large_segment();
        let large = Frame::from_bytes(&bytes).with_offload(offload);
        assert!(fits(&large, 1500) && !fits(&large, 1499));
        assert!(!fits(&Frame::from_bytes(&bytes), 1500));
    }
}
