//! ICMP (RFC 792) and ICMPv6 (RFC 4443), which share their first bytes.

/// Length of the part that all messages have, in bytes.
pub const HEADER_LEN: usize = 8;

/// ICMP: answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// ICMP: `ping`.
pub const ECHO_REQUEST: u8 = 8;
/// ICMPv6: `ping`.
pub const ECHO_REQUEST_V6: u8 = 128;
/// ICMPv6: answer to an echo request.
pub const ECHO_REPLY_V6: u8 = 129;

/// An ICMP or ICMPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Icmp<'a> {
    /// `None` when `bytes` has fewer than 8.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk()?;
        Some(Self { header, payload })
    }

    /// Type of the message.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.header[0]
    }

    /// What it says more exactly; depends on the type.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.header[1]
    }

    /// The checksum field: over the message, and for ICMPv6 a pseudo header too.
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Echo messages: whose they are.
    #[must_use]
    pub const fn identifier(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Echo messages: which one it is.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// As much of the rest as there is.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}
