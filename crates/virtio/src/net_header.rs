//! The header in front of every frame in a virtio-net ring (virtio 1.3 section 5.1.6).

use packet::{Capabilities, Gso, Offload, OffloadRequest};

/// Bytes of the header with `num_buffers`, the form of all modern devices.
pub const NET_HEADER_LEN: usize = 12;

/// Bytes of the header where neither VERSION_1 nor MRG_RXBUF was negotiated: it has no number of
/// buffers (virtio 1.3 section 5.1.6.1).
pub const LEGACY_NET_HEADER_LEN: usize = 10;

/// `flags`: the checksum is only partial; `csum_start` and `csum_offset` say what is missing.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the receiver need not check the checksum.
pub const DATA_VALID: u8 = 2;

/// `gso_type`: an ordinary frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4, to be cut into segments.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6, to be cut into segments.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP, to be cut into datagrams.
pub const GSO_UDP_L4: u8 = 5;
/// Flag in `gso_type`: the TCP segment has ECN bits set.
pub const GSO_ECN: u8 = 0x80;

/// A private copy of a net header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// `GSO_*`.
    pub gso_type: u8,
    /// Length of all headers, for segmentation; only a hint.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the partial checksum starts, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum field lies, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Buffers that the frame spans; 1 where buffers are not merged.
    pub num_buffers: u16,
}

impl NetHeader {
    /// Reads a header; `bytes` is a private copy, 10 or 12 bytes of it count.
    #[must_use]
    pub fn decode(bytes: [u8; NET_HEADER_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// What the header asks for; `None` when there is no such segmentation. Of a sender who is
    /// not trusted, [`OffloadRequest::data_valid`] means nothing.
    #[must_use]
    pub const fn request(&self) -> Option<OffloadRequest> {
        let gso = match self.gso_type & !GSO_ECN {
            GSO_NONE if self.gso_type == GSO_NONE => None,
            GSO_TCPV4 => Some(Gso::TcpV4),
            GSO_TCPV6 => Some(Gso::TcpV6),
            GSO_UDP_L4 => Some(Gso::Udp),
            _ => return None,
        };
        Some(OffloadRequest {
            needs_csum: self.flags & NEEDS_CSUM != 0,
            data_valid: self.flags & DATA_VALID != 0,
            gso,
            ecn: self.gso_type & GSO_ECN != 0,
            gso_size: self.gso_size,
            csum_start: self.csum_start,
            csum_offset: self.csum_offset,
        })
    }

    /// The header of a frame with `offload`, in `num_buffers` buffers. Whether the receiver
    /// takes that is the caller's business.
    #[must_use]
    pub fn for_offload(offload: Offload, num_buffers: u16) -> Self {
        let mut header = Self { num_buffers, ..Self::default() };
        if let Some((start, offset)) = offload.csum() {
            (header.flags, header.csum_start, header.csum_offset) = (NEEDS_CSUM, start, offset);
        } else if offload.is_data_valid() {
            header.flags = DATA_VALID;
        }
        let Some(gso) = offload.gso() else { return header };
        header.gso_type = match gso {
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        if offload.needs().contains(Capabilities::ECN) {
            header.gso_type |= GSO_ECN;
        }
        (header.gso_size, header.hdr_len) = (offload.gso_size(), offload.hdr_len());
        header
    }

    /// The header's bytes; legacy devices send the first 10 of them.
    #[must_use]
    pub fn encode(&self) -> [u8; NET_HEADER_LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_specification_lays_it_out() {
        let header = NetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 1,
        };
        let bytes = [1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 1, 0];
        assert_eq!(header.encode(), bytes);
        assert_eq!(NetHeader::decode(bytes), header);
    }

    #[test]
    fn offloads_come_through() {
        let request = OffloadRequest {
            needs_csum: true,
            gso: Some(Gso::TcpV4),
            ecn: true,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            ..OffloadRequest::default()
        };
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0, 0x45, 0, 0, 140, 0, 0, 0x40, 0, 64, 6]);
        frame.extend([0; 22]);
        frame.extend([0x50, 0x10, 0, 0, 0, 0, 0, 0, 9]);
        let all = Capabilities::all();
        let offload = Offload::check(&request, all, &frame, frame.len()).unwrap();
        let header = NetHeader::for_offload(offload, 3);
        assert_eq!(header.request(), Some(request));
        let expected = (NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 54, 3);
        assert_eq!((header.flags, header.gso_type, header.hdr_len, header.num_buffers), expected);
        let valid = NetHeader::for_offload(Offload::DATA_VALID, 1);
        assert_eq!((valid.flags, valid.gso_type), (DATA_VALID, GSO_NONE));
        assert_eq!(NetHeader::for_offload(Offload::NONE, 0), NetHeader::default());
        for gso_type in [2, 3, 6, 0x80, 0x83, 0xFF] {
            assert_eq!(NetHeader { gso_type, ..NetHeader::default() }.request(), None);
        }
    }
}
