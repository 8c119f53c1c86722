//! Versions of the protocol, and which of them two peers speak.

use std::fmt;
use std::str::FromStr;

/// A version of OpenFlow, by the number that each message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// OpenFlow 1.0.
    V10 = 1,
    /// OpenFlow 1.1.
    V11 = 2,
    /// OpenFlow 1.2.
    V12 = 3,
    /// OpenFlow 1.3.
    V13 = 4,
    /// OpenFlow 1.4.
    V14 = 5,
    /// OpenFlow 1.5.
    V15 = 6,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 6] = [Self::V10, Self::V11, Self::V12, Self::V13, Self::V14, Self::V15];

    /// Its number in messages.
    #[must_use]
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The version with this number.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.wire() == number)
    }

    /// As people write it: `1.3`.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
            Self::V13 => "1.3",
            Self::V14 => "1.4",
            Self::V15 => "1.5",
        }
    }
}

/// As the column `protocols` of a bridge and ovs-ofctl's `-O` have it: `OpenFlow13`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFlow1{}", self.wire() - 1)
    }
}

/// A name that is no version's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown OpenFlow version '{0}': expected OpenFlow10 to OpenFlow15")]
pub struct UnknownVersion(pub String);

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let is_it = |version: &Self| text == version.to_string() || text == version.short();
        Self::ALL.into_iter().find(is_it).ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

/// Some versions, as the bitmap of a HELLO has them: bit N stands for version number N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionSet(u32);

impl VersionSet {
    /// All that there are.
    pub const ALL: Self = Self(0b111_1110);

    /// Those of a bitmap, of which bits that mean nothing are left out.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bitmap.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `version` is one of them.
    #[must_use]
    pub const fn has(self, version: Version) -> bool {
        self.0 & (1 << version.wire()) != 0
    }

    /// All up to a version with this number, which is what a HELLO without a bitmap says.
    #[must_use]
    pub fn up_to(number: u8) -> Self {
        Version::ALL.into_iter().filter(|version| version.wire() <= number).collect()
    }

    /// The newest.
    #[must_use]
    pub fn newest(self) -> Option<Version> {
        Version::ALL.into_iter().rev().find(|version| self.has(*version))
    }

    /// The newest that both have: what they are to speak (OpenFlow 1.3.1, 6.3.1).
    #[must_use]
    pub fn negotiate(self, peer: Self) -> Option<Version> {
        Self(self.0 & peer.0).newest()
    }
}

impl FromIterator<Version> for VersionSet {
    fn from_iter<I: IntoIterator<Item = Version>>(versions: I) -> Self {
        Self(versions.into_iter().fold(0, |bits, version| bits | 1 << version.wire()))
    }
}

/// Their numbers as Open vSwitch's log has them: `version 0x01`, `versions 0x01, 0x04`, `version 0x06 and
/// earlier`.
impl fmt::Display for VersionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Version::ALL.into_iter().filter(|version| self.has(*version));
        let all: Vec<String> = all.map(|version| format!("{:#04x}", version.wire())).collect();
        let is_up_to = |newest: Version| *self == Self::up_to(newest.wire());
        match (&all[..], self.newest().filter(|newest| is_up_to(*newest))) {
            ([], _) => f.write_str("no versions"),
            ([one], _) => write!(f, "version {one}"),
            (_, Some(newest)) => write!(f, "version {:#04x} and earlier", newest.wire()),
            (all, None) => write!(f, "versions {}", all.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_have_is_spoken() {
        let set = |versions: &[Version]| versions.iter().copied().collect::<VersionSet>();
        let both = set(&[Version::V10, Version::V13]);
        assert_eq!(both.negotiate(VersionSet::ALL), Some(Version::V13));
        assert_eq!(both.negotiate(VersionSet::up_to(3)), Some(Version::V10));
        assert_eq!(both.negotiate(set(&[Version::V14])), None);
        assert_eq!(VersionSet::up_to(9), VersionSet::ALL);
        assert_eq!(VersionSet::from_bits(u32::MAX), VersionSet::ALL);
        assert_eq!(both.to_string(), "versions 0x01, 0x04");
        assert_eq!(VersionSet::ALL.to_string(), "version 0x06 and earlier");
        assert_eq!(VersionSet::default().to_string(), "no versions");
    }

    #[test]
    fn versions_have_names_and_numbers() {
        for version in Version::ALL {
            assert_eq!(Version::from_wire(version.wire()), Some(version));
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(version.short().parse(), Ok(version));
        }
        assert_eq!((Version::from_wire(0), Version::from_wire(7)), (None, None));
        assert!("OpenFlow16".parse::<Version>().unwrap_err().to_string().contains("OpenFlow15"));
    }
}
