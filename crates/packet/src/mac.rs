//! MAC addresses.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

/// A MAC address (IEEE 802 EUI-48), in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of all stations.
    pub const BROADCAST: Self = Self([0xFF; 6]);

    /// Whether this is a group address: multicast or broadcast.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// Whether this is the address of all stations.
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
    }

    /// Whether this is one of the addresses 01:80:C2:00:00:00 to 0F, which bridges never forward
    /// (IEEE 802.1Q, table 8-1): spanning tree, pause frames, link aggregation, LLDP.
    #[must_use]
    pub const fn is_reserved_multicast(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xC2, 0x00, 0x00, 0x00..=0x0F])
    }

    /// Whether a station can have it as its own: neither a group address nor all zeroes.
    #[must_use]
    pub const fn is_station(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether it was made up locally rather than assigned by a manufacturer.
    #[must_use]
    pub const fn is_local(self) -> bool {
        let [first, ..] = self.0;
        first & 2 != 0
    }

    /// A random station address, marked as made up locally.
    #[must_use]
    pub fn random_local() -> Self {
        // The standard library seeds every hasher's state at random.
        let random = RandomState::new().build_hasher().finish();
        let [a, b, c, d, e, f, ..] = random.to_be_bytes();
        Self([a & 0xFC | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six hexadecimal bytes with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a MAC address such as 52:54:00:12:34:56")]
pub struct BadMacAddr;

impl FromStr for MacAddr {
    type Err = BadMacAddr;

    fn from_str(text: &str) -> Result<Self, BadMacAddr> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(BadMacAddr)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(BadMacAddr);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadMacAddr)?;
        }
        if parts.next().is_some() { Err(BadMacAddr) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_of_addresses_are_told_apart() {
        let mac = |text: &str| text.parse::<MacAddr>().unwrap();
        assert!(mac("ff:ff:ff:ff:ff:ff").is_broadcast());
        assert!(mac("FF:FF:FF:FF:FF:FF").is_multicast());
        assert!(mac("01:80:c2:00:00:0e").is_reserved_multicast());
        assert!(!mac("01:80:c2:00:00:10").is_reserved_multicast());
        assert!(!mac("01:80:c2:00:01:00").is_reserved_multicast());
        assert!(mac("52:54:00:12:34:56").is_station() && mac("52:54:00:12:34:56").is_local());
        assert!(!mac("00:00:00:00:00:00").is_station());
        assert!(!mac("01:00:5e:00:00:01").is_station());
    }

    #[test]
    fn random_addresses_are_local_stations_and_differ() {
        let (one, other) = (MacAddr::random_local(), MacAddr::random_local());
        assert!(one.is_station() && one.is_local() && one != other);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52-54-00-12-34-56", "é:1:2:3:4:5"]
        {
            assert_eq!(text.parse::<MacAddr>(), Err(BadMacAddr), "{text}");
        }
        assert!("+1:54:00:12:34:56".parse::<MacAddr>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes: [u8; 6]) {
            prop_assert_eq!(MacAddr(bytes).to_string().parse(), Ok(MacAddr(bytes)));
        }
    }
}
