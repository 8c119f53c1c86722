//! The message by which an error is told.

use super::{ErrorCode, NXET_VENDOR, NXVC_VENDOR_ERROR, Number, OFPET_EXPERIMENTER};
use crate::message::{Kind, Message};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// How much of the message that was wrong is quoted. It has to be 64 bytes at least (OpenFlow 1.5,
/// 7.5.4); Open vSwitch quotes all that fits.
pub const QUOTED: usize = 65_535 - 24;

/// An error as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// Which one.
    pub number: Number,
    /// What was wrong, or what is said about it.
    pub data: Vec<u8>,
}

impl ErrorMessage {
    /// Reads one.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let (kind, code) = (reader.u16()?, reader.u16()?);
        let number = match (kind, code) {
            (NXET_VENDOR, NXVC_VENDOR_ERROR) => {
                let vendor = reader.u32()?;
                Number::Vendor { vendor, kind: reader.u16()?, code: reader.u16()? }
            }
            (OFPET_EXPERIMENTER, code) => {
                Number::Experimenter { experimenter: reader.u32()?, code }
            }
            (kind, code) => Number::Standard { kind, code },
        };
        Ok(Self { number, data: reader.rest().to_vec() })
    }

    /// What the numbers mean in `version`.
    #[must_use]
    pub fn code(&self, version: Version) -> Option<ErrorCode> {
        ErrorCode::of(version, self.number)
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::Error, xid);
        let out = message.body();
        match self.number {
            Number::Standard { kind, code } => {
                out.u16(kind);
                out.u16(code);
            }
            Number::Vendor { vendor, kind, code } => {
                out.u16(NXET_VENDOR);
                out.u16(NXVC_VENDOR_ERROR);
                out.u32(vendor);
                out.u16(kind);
                out.u16(code);
            }
            Number::Experimenter { experimenter, code } => {
                out.u16(OFPET_EXPERIMENTER);
                out.u16(code);
                out.u32(experimenter);
            }
        }
        out.bytes(&self.data);
        message.finish()
    }

    /// The answer to the message `about`, of which the first bytes are quoted.
    #[must_use]
    pub fn reply(code: ErrorCode, version: Version, xid: u32, about: &[u8]) -> Vec<u8> {
        let code = code.encodable(version);
        let unknown = Number::Standard { kind: 1, code: 1 };
        let number = code.number(version).unwrap_or(unknown);
        let data = about.get(..QUOTED).unwrap_or(about).to_vec();
        Self { number, data }.encode(version, xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_are_read_as_they_are_written() {
        for version in Version::ALL {
            for code in ErrorCode::ALL.iter().copied() {
                let Some(number) = code.number(version) else { continue };
                let bytes = ErrorMessage::reply(code, version, 7, b"what was wrong");
                let read = ErrorMessage::decode(&bytes[8..]).unwrap();
                assert_eq!(read, ErrorMessage { number, data: b"what was wrong".to_vec() });
            }
        }
    }

    /// As Debian's Open vSwitch answers who wants an action with a group.
    #[test]
    fn extensions_of_old_versions_have_a_number_of_their_own() {
        let bytes = ErrorMessage::reply(ErrorCode::BacBadOutGroup, Version::V10, 7, &[]);
        let body = [0xb0, 0xc2, 0, 0, 0, 0, 0x23, 0x20, 0, 2, 0, 9];
        assert_eq!(bytes, [&[1, 1, 0, 20, 0, 0, 0, 7], &body[..]].concat());
    }

    #[test]
    fn what_fits_is_quoted() {
        let reply =
            |length| ErrorMessage::reply(ErrorCode::BrcBadType, Version::V13, 1, &vec![5; length]);
        assert_eq!(reply(64)[..12], [4, 1, 0, 76, 0, 0, 0, 1, 0, 1, 0, 1]);
        assert_eq!(reply(70_000).len(), 8 + 4 + QUOTED);
    }
}
