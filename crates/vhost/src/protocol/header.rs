//! What every message starts with (chapter "Message Specification", section "Header").

use super::ProtocolError;

/// Size of a header in bytes.
pub const HEADER_SIZE: usize = 12;

bitflags::bitflags! {
    /// Bits of [`Header::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct HeaderFlags: u32 {
        /// Version 1, which every message has.
        const VERSION = 1;
        /// A reply; otherwise a request.
        const REPLY = 1 << 2;
        /// The sender wants an acknowledgement (with REPLY_ACK negotiated).
        const NEED_REPLY = 1 << 3;
    }
}

/// The bits that hold the version.
const VERSION_MASK: u32 = 3;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the request, see [`FrontendRequest`](super::FrontendRequest).
    pub request: u32,
    /// See [`HeaderFlags`].
    pub flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

impl Header {
    /// The header of a request with `size` bytes of payload.
    #[must_use]
    pub const fn request(request: u32, size: u32, need_reply: bool) -> Self {
        let need_reply = if need_reply { HeaderFlags::NEED_REPLY.bits() } else { 0 };
        Self { request, flags: HeaderFlags::VERSION.bits() | need_reply, size }
    }

    /// The header of a reply with `size` bytes of payload.
    #[must_use]
    pub const fn reply(request: u32, size: u32) -> Self {
        let flags = HeaderFlags::VERSION.union(HeaderFlags::REPLY).bits();
        Self { request, flags, size }
    }

    /// Whether it is a reply.
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        self.flags & HeaderFlags::REPLY.bits() != 0
    }

    /// Whether the sender wants an acknowledgement.
    #[must_use]
    pub const fn needs_reply(&self) -> bool {
        self.flags & HeaderFlags::NEED_REPLY.bits() != 0
    }

    /// The header as it goes over the socket.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let [a, b, c] = [self.request, self.flags, self.size].map(u32::to_ne_bytes);
        let mut bytes = [0; HEADER_SIZE];
        for (to, from) in bytes.iter_mut().zip(a.into_iter().chain(b).chain(c)) {
            *to = from;
        }
        bytes
    }

    /// The header in `bytes`.
    ///
    /// # Errors
    /// When the version is not 1. Unknown flags are ignored.
    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Result<Self, ProtocolError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let header = Self {
            request: u32::from_ne_bytes([a, b, c, d]),
            flags: u32::from_ne_bytes([e, f, g, h]),
            size: u32::from_ne_bytes([i, j, k, l]),
        };
        if header.flags & VERSION_MASK != HeaderFlags::VERSION.bits() {
            return Err(ProtocolError::Version { flags: header.flags });
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_wire() {
        for header in [Header::request(18, 8, true), Header::reply(11, 8)] {
            assert_eq!(Header::from_bytes(header.to_bytes()), Ok(header));
        }
        assert!(Header::request(1, 0, true).needs_reply());
        assert!(!Header::request(1, 0, true).is_reply());
        assert!(Header::reply(1, 8).is_reply());
    }

    #[test]
    fn other_versions_are_refused() {
        for flags in [0, 2, 3, 0xffff_fffe] {
            let bytes = Header { request: 1, flags, size: 0 }.to_bytes();
            assert_eq!(Header::from_bytes(bytes), Err(ProtocolError::Version { flags }));
        }
    }
}
