//! UDP (RFC 768).

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// A UDP header.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// `None` when the header is not all there, or its length field is below 8.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload_len = len.checked_sub(HEADER_LEN)?;
        Some(Self { header, payload: payload.get(..payload_len).unwrap_or(payload) })
    }

    /// The sender's port.
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Length of the header and the payload, whether all of it is there or not.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a field of the header")]
    pub const fn len(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// The checksum field; 0 means none (allowed over IPv4 only).
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// As much of the payload as there is.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}
