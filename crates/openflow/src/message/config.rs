//! How a connection is to be treated.

use super::{Kind, Message};
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Settings by which GET_CONFIG is answered, and which SET_CONFIG has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Bits: what becomes of fragments, and of packets whose time has run out.
    pub flags: u16,
    /// How many bytes of a packet that no rule is for go to the controller.
    pub miss_send_len: u16,
}

/// What becomes of IP fragments: bits of [`Config::flags`].
const FRAG_MASK: u16 = 3;

/// What becomes of IP fragments (`OFPC_FRAG_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragments {
    /// Rules match on them as on others, but for ports, which they do not have.
    #[default]
    Normal,
    /// They are dropped.
    Drop,
    /// Rules match on the ports of first ones, too: Open vSwitch's extension.
    NxMatch,
}

impl Fragments {
    /// As it is in [`Config::flags`].
    #[must_use]
    pub const fn flags(self) -> u16 {
        match self {
            Self::Normal => 0,
            Self::Drop => 1,
            Self::NxMatch => 3,
        }
    }
}

/// Packets with an invalid TTL go to the controller; no longer in OpenFlow 1.3.
pub const INVALID_TTL_TO_CONTROLLER: u16 = 1 << 2;

impl Config {
    /// Reads it.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN` if it is too short.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        Ok(Self { flags: reader.u16()?, miss_send_len: reader.u16()? })
    }

    /// The whole message, of kind `GetConfigReply` or `SetConfig`.
    #[must_use]
    pub fn encode(self, version: Version, kind: Kind, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, kind, xid);
        message.body().u16(self.flags);
        message.body().u16(self.miss_send_len);
        message.finish()
    }

    /// What becomes of fragments.
    ///
    /// # Errors
    /// They are to be put together, which nobody does for rules: the bits that say so.
    pub const fn fragments(self) -> Result<Fragments, u16> {
        match self.flags & FRAG_MASK {
            0 => Ok(Fragments::Normal),
            1 => Ok(Fragments::Drop),
            3 => Ok(Fragments::NxMatch),
            other => Err(other),
        }
    }

    /// Whether a version knows all flags.
    #[must_use]
    pub const fn is_known_in(self, version: Version) -> bool {
        let known = match version {
            Version::V10 | Version::V11 | Version::V12 => FRAG_MASK | INVALID_TTL_TO_CONTROLLER,
            _ => FRAG_MASK,
        };
        self.flags & !known == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let config = Config { flags: INVALID_TTL_TO_CONTROLLER | 1, miss_send_len: 128 };
        let bytes = config.encode(Version::V10, Kind::SetConfig, 1);
        assert_eq!(bytes, [1, 9, 0, 12, 0, 0, 0, 1, 0, 5, 0, 128]);
        assert_eq!(Config::decode(&bytes[8..]), Ok(config));
        assert!(config.is_known_in(Version::V12) && !config.is_known_in(Version::V13));
        for fragments in [Fragments::Normal, Fragments::Drop, Fragments::NxMatch] {
            let config = Config { flags: fragments.flags() | INVALID_TTL_TO_CONTROLLER, ..config };
            assert_eq!(config.fragments(), Ok(fragments));
        }
        assert_eq!(Config { flags: 2, ..config }.fragments(), Err(2));
    }
}
