//! Numbers of ports.

use std::fmt;

/// A port's number, as OpenFlow 1.1 and later have it: 32 bits.
///
/// In OpenFlow 1.0 it has 16; [`from_v10`](Self::from_v10) and [`v10`](Self::v10) lead there and back.
/// Ports proper have numbers below [`MAX`](Self::MAX), as in Open vSwitch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortNo(pub u32);

impl PortNo {
    /// The number that all ports proper are below.
    pub const MAX: Self = Self(0xFFFF_FF00);
    /// In an action set: none was set.
    pub const UNSET: Self = Self(0xFFFF_FFF7);
    /// The port that the packet came in on.
    pub const IN_PORT: Self = Self(0xFFFF_FFF8);
    /// The flow tables, for a packet out.
    pub const TABLE: Self = Self(0xFFFF_FFF9);
    /// What a plain switch does.
    pub const NORMAL: Self = Self(0xFFFF_FFFA);
    /// All ports but the one it came in on and those that do not flood.
    pub const FLOOD: Self = Self(0xFFFF_FFFB);
    /// All ports but the one it came in on.
    pub const ALL: Self = Self(0xFFFF_FFFC);
    /// The controllers.
    pub const CONTROLLER: Self = Self(0xFFFF_FFFD);
    /// The bridge's own port.
    pub const LOCAL: Self = Self(0xFFFF_FFFE);
    /// None; in requests: any.
    pub const ANY: Self = Self(0xFFFF_FFFF);

    /// The reserved ones that have a name.
    const NAMES: [(Self, &str); 9] = [
        (Self::IN_PORT, "IN_PORT"),
        (Self::TABLE, "TABLE"),
        (Self::NORMAL, "NORMAL"),
        (Self::FLOOD, "FLOOD"),
        (Self::ALL, "ALL"),
        (Self::CONTROLLER, "CONTROLLER"),
        (Self::LOCAL, "LOCAL"),
        (Self::ANY, "ANY"),
        (Self::UNSET, "UNSET"),
    ];

    /// The port with this number in OpenFlow 1.0, whose reserved numbers are 0xFF00 and above.
    #[must_use]
    pub fn from_v10(number: u16) -> Self {
        let number = u32::from(number);
        Self(if number < 0xFF00 { number } else { 0xFFFF_0000 | number })
    }

    /// Its number in OpenFlow 1.0, if it has one there.
    #[must_use]
    pub fn v10(self) -> Option<u16> {
        if self.0 < 0xFF00 || self >= Self::MAX {
            u16::try_from(self.0 & 0xFFFF).ok()
        } else {
            None
        }
    }

    /// The reserved port of this name, in any case: `NORMAL`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("NONE") { "ANY" } else { name };
        let named = Self::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        named.map(|(port, _)| *port)
    }

    /// The name of a reserved one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(port, _)| *port == self).map(|(_, name)| *name)
    }
}

/// As ovs-ofctl shows it: a number, or the name of a reserved one.
impl fmt::Display for PortNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.v10()) {
            (Some(name), _) => f.write_str(name),
            (None, Some(number)) => write!(f, "{number}"),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for PortNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortNo({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_the_same_in_all_versions() {
        assert_eq!(PortNo::from_v10(0xFFFA), PortNo::NORMAL);
        assert_eq!(PortNo::NORMAL.v10(), Some(0xFFFA));
        assert_eq!(PortNo::from_v10(7), PortNo(7));
        assert_eq!(PortNo(0xFF00).v10(), None);
        assert_eq!(PortNo::MAX.v10(), Some(0xFF00));
    }

    #[test]
    fn reserved_ports_have_names() {
        assert_eq!(PortNo::by_name("local"), Some(PortNo::LOCAL));
        assert_eq!(PortNo::by_name("none"), Some(PortNo::ANY));
        assert_eq!(PortNo::by_name("eth0"), None);
        assert_eq!(PortNo::FLOOD.to_string(), "FLOOD");
        assert_eq!(PortNo(3).to_string(), "3");
    }
}
