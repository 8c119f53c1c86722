//! Errors that a switch answers with, by their names, and their numbers in each version.
//!
//! One error may have other numbers in each version, or be an extension's in some; the table has
//! all of them.
//!
//! ```
//! use openflow::{ErrorCode, Version};
//!
//! let code = ErrorCode::BrcBadTableId;
//! assert_eq!(code.to_string(), "OFPBRC_BAD_TABLE_ID");
//! assert_ne!(code.number(Version::V10), code.number(Version::V13));
//! ```

mod message;
mod table;

use std::fmt;

pub use message::{ErrorMessage, QUOTED};
pub use table::ErrorCode;

use crate::experimenter::{NICIRA, ONF};
use crate::version::Version;

/// What errors of an extension have as type in OpenFlow 1.0 and 1.1 (Nicira).
const NXET_VENDOR: u16 = 0xb0c2;

/// And as code.
const NXVC_VENDOR_ERROR: u16 = 0;

/// What errors of an extension have as type from OpenFlow 1.2.
const OFPET_EXPERIMENTER: u16 = 0xffff;

/// An error's numbers in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// One of the specification's.
    Standard {
        /// Its type.
        kind: u16,
        /// Its code.
        code: u16,
    },
    /// One of Nicira's in OpenFlow 1.0 and 1.1, which have no place for extensions.
    Vendor {
        /// Whose it is.
        vendor: u32,
        /// Its type.
        kind: u16,
        /// Its code.
        code: u16,
    },
    /// One of an extension from OpenFlow 1.2.
    Experimenter {
        /// Whose it is.
        experimenter: u32,
        /// Its code.
        code: u16,
    },
}

/// Numbers that hold for some versions.
#[derive(Clone, Copy, Debug)]
struct Row {
    from: Version,
    to: Version,
    number: Number,
}

const fn of(from: Version, to: Version, (kind, code): (u16, u16)) -> Row {
    Row { from, to, number: Number::Standard { kind, code } }
}

const fn nv(from: Version, to: Version, (kind, code): (u16, u16)) -> Row {
    Row { from, to, number: Number::Vendor { vendor: NICIRA, kind, code } }
}

const fn nx(from: Version, to: Version, code: u16) -> Row {
    Row { from, to, number: Number::Experimenter { experimenter: NICIRA, code } }
}

const fn onf(from: Version, to: Version, code: u16) -> Row {
    Row { from, to, number: Number::Experimenter { experimenter: ONF, code } }
}

impl ErrorCode {
    /// Its numbers in `version`; `None` where that has no such error.
    #[must_use]
    pub fn number(self, version: Version) -> Option<Number> {
        let holds = |row: &&Row| (row.from..=row.to).contains(&version);
        self.rows().iter().find(holds).map(|row| row.number)
    }

    /// The error with these numbers. Where one number stands for several, the first of the table.
    #[must_use]
    pub fn of(version: Version, number: Number) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number(version) == Some(number))
    }

    /// The one that `version` has a number for: this one, or, where it has none, the error that
    /// says so.
    #[must_use]
    pub fn encodable(self, version: Version) -> Self {
        if self.number(version).is_some() { self } else { Self::NxbrcUnencodableError }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for ErrorCode {}

impl From<crate::wire::Short> for ErrorCode {
    fn from(_: crate::wire::Short) -> Self {
        Self::BrcBadLen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of which each means several errors in one version, as the specification has merged
    /// them.
    const MERGED: [(Version, Number); 3] = [
        (Version::V10, Number::Standard { kind: 1, code: 5 }),
        (Version::V11, Number::Standard { kind: 1, code: 5 }),
        (Version::V11, Number::Standard { kind: 3, code: 5 }),
    ];

    #[test]
    fn numbers_lead_back_to_their_errors() {
        for code in ErrorCode::ALL.iter().copied() {
            assert!(Version::ALL.iter().any(|version| code.number(*version).is_some()), "{code}");
            for version in Version::ALL {
                let Some(number) = code.number(version) else { continue };
                let found = ErrorCode::of(version, number);
                let is_merged = MERGED.contains(&(version, number));
                assert!(found == Some(code) || is_merged, "{code} and {found:?} in {version}");
                let fits = match number {
                    Number::Standard { .. } => true,
                    Number::Vendor { .. } => version <= Version::V11,
                    Number::Experimenter { .. } => version >= Version::V12,
                };
                assert!(fits, "{code} in {version}");
            }
        }
        assert_eq!(ErrorCode::ALL.len(), 198);
    }

    #[test]
    fn each_version_can_say_that_it_has_no_number() {
        for version in Version::ALL {
            assert!(ErrorCode::NxbrcUnencodableError.number(version).is_some());
        }
        let code = ErrorCode::BfcBadId;
        assert_eq!(code.encodable(Version::V10), ErrorCode::NxbrcUnencodableError);
        assert_eq!(code.encodable(Version::V13), code);
    }
}
