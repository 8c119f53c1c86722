//! Checksums that a virtual interface's sender has only begun.
//!
//! A veth, TAP or bridge interface leaves TCP and UDP checksums to whoever takes the frame to a
//! real wire: the field holds just the sum of the pseudo header. The kernel keeps a note of that
//! with the frame, but XDP does not get to see the note. So it is found out: a field that holds
//! exactly that sum is taken for a begun checksum.
//!
//! A frame with a complete checksum that happens to be the same number comes to no harm:
//! completing the checksum gives the very number that is there, since the sum of the pseudo
//! header and the data is what a checksum is.

use packet::OffloadRequest;
use packet::checksum::Checksum;
use packet::offload::layout::{Layout, Transport};

/// What the sender of a frame of `len` bytes that starts with `head` must have asked for;
/// `None` when the checksum is complete, or there is none.
pub(super) fn request(head: &[u8], len: usize) -> Option<OffloadRequest> {
    let layout = Layout::parse(head, len)?;
    let offset = layout.transport.csum_offset();
    let field = head.get(layout.transport_at + offset..)?.first_chunk()?;
    if u16::from_be_bytes(*field) != pseudo_header(head, &layout)? {
        return None;
    }
    Some(OffloadRequest {
        needs_csum: true,
        csum_start: u16::try_from(layout.transport_at).ok()?,
        csum_offset: u16::try_from(offset).ok()?,
        ..OffloadRequest::default()
    })
}

/// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo_header(head: &[u8], layout: &Layout) -> Option<u16> {
    let protocol = match layout.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    let network = head.get(layout.network_at..)?;
    let in_front = layout.transport_at.checked_sub(layout.network_at)?;
    let word = |at: usize| network.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word));
    let checksum = if layout.is_v6 {
        let (from, to) = (network.get(8..)?.first_chunk()?, network.get(24..)?.first_chunk()?);
        let len = (40 + u32::from(word(4)?)).checked_sub(u32::try_from(in_front).ok()?)?;
        Checksum::pseudo_v6(*from, *to, protocol, len)
    } else {
        let (from, to) = (network.get(12..)?.first_chunk()?, network.get(16..)?.first_chunk()?);
        let len = word(2)?.checked_sub(u16::try_from(in_front).ok()?)?;
        Checksum::pseudo_v4(*from, *to, protocol, len)
    };
    Some(checksum.partial())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ethernet, IPv4 and UDP headers, with a payload, and the checksum begun or complete.
    fn datagram(payload: &[u8], complete: bool) -> Vec<u8> {
        let udp_len = u16::try_from(8 + payload.len()).unwrap();
        let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut bytes = vec![2; 12];
        bytes.extend([0x08, 0x00, 0x45, 0]);
        bytes.extend((20 + udp_len).to_be_bytes());
        bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        bytes.extend([from, to].concat());
        bytes.extend([0x0F, 0xA0, 0x0F, 0xA1]);
        bytes.extend(udp_len.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        let mut checksum = Checksum::pseudo_v4(from, to, 17, udp_len);
        let field = if complete {
            checksum.add(&bytes[34..]);
            checksum.finish_udp()
        } else {
            checksum.partial()
        };
        bytes[40..42].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    #[test]
    fn a_begun_checksum_is_found() {
        let bytes = datagram(b"hello", false);
        let found = request(&bytes, bytes.len()).unwrap();
        assert!(found.needs_csum && found.gso.is_none());
        assert_eq!((found.csum_start, found.csum_offset), (34, 6));
        let tagged = [&bytes[..12], &[0x81, 0, 0, 5], &bytes[12..]].concat();
        assert_eq!(request(&tagged, tagged.len()).unwrap().csum_start, 38);
    }

    #[test]
    fn with_ipv6_too() {
        let (from, to) = ([0xFD; 16], [0xFE; 16]);
        let mut bytes = vec![2; 12];
        bytes.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, 24, 6, 64]);
        bytes.extend([from, to].concat());
        let mut tcp = [0; 24];
        tcp[12] = 0x50;
        tcp[16..18].copy_from_slice(&Checksum::pseudo_v6(from, to, 6, 24).partial().to_be_bytes());
        bytes.extend(tcp);
        assert_eq!(request(&bytes, bytes.len()).unwrap().csum_start, 54);
        let last = bytes.len() - 8;
        bytes[last] ^= 1;
        assert!(request(&bytes, bytes.len()).is_none());
    }

    #[test]
    fn completing_a_complete_checksum_that_looks_begun_changes_nothing() {
        // The payload is chosen so that both are the same number.
        let found = (0..=u16::MAX).find_map(|word| {
            let complete = datagram(&word.to_be_bytes(), true);
            request(&complete, complete.len()).map(|request| (complete, request))
        });
        let (bytes, request) = found.unwrap();
        let start = usize::from(request.csum_start);
        let mut checksum = Checksum::new();
        checksum.add(&bytes[start..]);
        assert_eq!(checksum.finish().to_be_bytes(), bytes[40..42]);
    }

    proptest! {
        #[test]
        fn a_complete_checksum_is_left_alone(payload in prop::collection::vec(any::<u8>(), 0..99)) {
            let bytes = datagram(&payload, true);
            let begun = datagram(&payload, false);
            prop_assume!(bytes != begun);
            prop_assert!(request(&bytes, bytes.len()).is_none());
            prop_assert!(request(&begun, begun.len()).is_some());
        }

        #[test]
        fn any_bytes_do(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = request(&bytes, bytes.len());
        }
    }
}
