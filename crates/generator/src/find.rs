//! Finds the stamp of a frame that was received, whatever its headers are by now.

use packet::headers::ethernet::{MAX_TAGS, TAG_LEN};
use packet::headers::{EtherType, IpProtocol};

use crate::stamp::{Seen, Stamp};

/// Where a stamp is when there are no tags, and UDP over IPv4.
pub const USUAL_PLACE: usize = 42;

/// Bytes of a frame that are enough to find any stamp that a generator makes: two tags, a tunnel over
/// IPv6, TCP over IPv6, the stamp.
pub const ENOUGH: usize = 192;

/// Port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;

/// A stamp that was found, and where. A frame with a stamp is never padded: the shortest has as many
/// bytes as Ethernet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is like.
    pub seen: Seen,
    /// Where it is.
    pub at: usize,
}

/// Looks at the place where the stamp was in the frame before.
#[inline]
pub fn at_place(head: &[u8], len: usize, place: usize) -> Option<Found> {
    let bytes = head.get(place..)?;
    let seen = Stamp::read(bytes, len.checked_sub(place)?);
    matches!(seen, Seen::Stamped(_)).then_some(Found { seen, at: place })
}

/// Looks where the headers say that it is, in a frame of `len` bytes that begins with `head`.
pub fn by_headers(head: &[u8], len: usize) -> Found {
    let at = payload(head, 0, true).unwrap_or(head.len());
    let bytes = head.get(at..).unwrap_or_default();
    Found { seen: Stamp::read(bytes, len.saturating_sub(at)), at }
}

/// Where what UDP or TCP carries begins, in a frame that begins at `start` of `bytes`; `outer` frames
/// may have a tunnel in them.
fn payload(bytes: &[u8], start: usize, outer: bool) -> Option<usize> {
    let mut at = start + 12;
    let mut ether_type = EtherType(u16_at(bytes, at)?);
    for _ in 0..MAX_TAGS {
        if ether_type.is_tag() {
            at += TAG_LEN;
            ether_type = EtherType(u16_at(bytes, at)?);
        }
    }
    at += 2;
    let (protocol, transport) = match ether_type {
        EtherType::IPV4 => {
            let words = usize::from(bytes.get(at)? & 0xF);
            (*bytes.get(at + 9)?, at + words * 4)
        }
        EtherType::IPV6 => (*bytes.get(at + 6)?, at + 40),
        _ => return None,
    };
    match IpProtocol(protocol) {
        IpProtocol::UDP => {
            let tunnel = outer && u16_at(bytes, transport + 2)? == VXLAN_PORT;
            let inner = tunnel.then(|| payload(bytes, transport + 16, false));
            Some(inner.flatten().unwrap_or(transport + 8))
        }
        IpProtocol::TCP => {
            let words = usize::from(bytes.get(transport + 12)? >> 4);
            Some(transport + words * 4)
        }
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;

    use super::*;
    use crate::headers::Headers;
    use crate::stamp::STAMP_LEN;
    use crate::template::Builder;

    fn frame(size: usize) -> Vec<u8> {
        let headers = Headers::plain(MacAddr([2; 6]), MacAddr([4; 6]));
        let builder = Builder::new(headers.template(8), 1, true);
        let mut bytes = vec![0; size];
        builder.begin(&mut bytes);
        builder.write(&mut bytes, 3, 4, 5);
        bytes
    }

    fn is_good(found: &Found, bytes: &[u8]) -> bool {
        let Seen::Stamped(stamp) = found.seen else { return false };
        stamp.pattern_matches(&bytes[found.at + STAMP_LEN..])
    }

    #[test]
    fn a_tag_put_on_or_taken_off_on_the_way_is_no_damage() {
        let bytes = frame(100);
        let mut tagged = bytes.clone();
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert!(at_place(&tagged, tagged.len(), USUAL_PLACE).is_none());
        let found = by_headers(&tagged, tagged.len());
        assert_eq!(found.at, USUAL_PLACE + 4);
        assert!(is_good(&found, &tagged));
        assert!(at_place(&bytes, bytes.len(), USUAL_PLACE).is_some_and(|f| is_good(&f, &bytes)));
    }

    #[test]
    fn any_other_length_is_damage() {
        let mut bytes = frame(64);
        bytes.push(0);
        assert_eq!(by_headers(&bytes, 65).seen, Seen::Damaged);
        assert_eq!(by_headers(&bytes[..63], 63).seen, Seen::Damaged);
    }

    #[test]
    fn nonsense_is_foreign() {
        for len in 0..80 {
            assert_eq!(by_headers(&vec![0x45; len], len).seen, Seen::Foreign);
            assert_eq!(by_headers(&frame(80)[..len.min(41)], len).seen, Seen::Foreign);
        }
    }
}
