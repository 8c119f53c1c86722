//! The header in front of every frame in a virtio-net ring (virtio 1.3 section 5.1.6).

/// Bytes of the header with `num_buffers`, the form of all modern devices.
pub const NET_HEADER_LEN: usize = 12;

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
}
