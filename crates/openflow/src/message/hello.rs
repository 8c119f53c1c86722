//! HELLO: what both say first, and by which they agree on a version.

use super::{Kind, Message};
use crate::error::ErrorCode;
use crate::version::{Version, VersionSet};
use crate::wire::{Reader, Writer as _};

/// The element that has a bitmap of versions.
const VERSION_BITMAP: u16 = 1;

/// The first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the sender speaks.
    pub versions: VersionSet,
}

impl Hello {
    /// Reads one of whatever version, known or not: `version` is the number in its header. Elements
    /// that are not known, or not as they should be, are passed over (OpenFlow 1.3.1, 7.5.1).
    #[must_use]
    pub fn decode(version: u8, body: &[u8]) -> Self {
        let bitmap = bitmap(body).filter(|versions| !versions.is_empty());
        Self { versions: bitmap.unwrap_or_else(|| VersionSet::up_to(version)) }
    }

    /// The whole message, in the newest of its versions; without a bitmap where the version in the
    /// header says all.
    #[must_use]
    pub fn encode(self, xid: u32) -> Vec<u8> {
        let version = self.versions.newest().unwrap_or(Version::V10);
        let mut message = Message::new(version, Kind::Hello, xid);
        if self.versions != VersionSet::up_to(version.wire()) {
            let out = message.body();
            out.u16(VERSION_BITMAP);
            out.u16(8);
            out.u32(self.versions.bits());
        }
        message.finish()
    }
}

fn bitmap(body: &[u8]) -> Option<VersionSet> {
    let mut reader = Reader::new(body);
    while !reader.is_empty() {
        let (kind, length) = (reader.u16().ok()?, usize::from(reader.u16().ok()?));
        let mut element = reader.sub(length.checked_sub(4)?).ok()?;
        if kind == VERSION_BITMAP {
            return Some(VersionSet::from_bits(element.u32().ok()?));
        }
        let _ = reader.skip(length.next_multiple_of(8) - length);
    }
    None
}

/// The answer to a HELLO with which there is no version in common.
#[must_use]
pub fn incompatible(ours: VersionSet, theirs: VersionSet, xid: u32) -> Vec<u8> {
    let said = format!("We support {ours}, you support {theirs}, no common versions.");
    let version = ours.newest().unwrap_or(Version::V10);
    crate::error::ErrorMessage::reply(ErrorCode::HfcIncompatible, version, xid, said.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> VersionSet {
        Hello::decode(bytes[0], &bytes[8..]).versions
    }

    #[test]
    fn all_sets_are_read_as_they_are_written() {
        for bits in (2..128).step_by(2) {
            let versions = VersionSet::from_bits(bits);
            let bytes = Hello { versions }.encode(1);
            assert_eq!(read(&bytes), versions);
            assert_eq!(usize::from(bytes[3]), bytes.len());
        }
    }

    #[test]
    fn without_a_bitmap_the_header_says_it() {
        assert_eq!(Hello::decode(4, &[]).versions, VersionSet::up_to(4));
        assert_eq!(Hello::decode(200, &[]).versions, VersionSet::ALL);
        // An element that is not known, and then the bitmap.
        let body = [0, 9, 0, 6, 1, 2, 0, 0, 0, 1, 0, 8, 0, 0, 0, 2];
        assert_eq!(Hello::decode(6, &body).versions, VersionSet::up_to(1));
        for broken in [&[0, 1, 0, 3][..], &[0, 1, 0, 8, 0], &[0, 1], &[0, 1, 0, 8, 0, 0, 0, 0]] {
            assert_eq!(Hello::decode(1, broken).versions, VersionSet::up_to(1), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..40), version: u8) {
            let _ = Hello::decode(version, &body);
        }
    }
}
