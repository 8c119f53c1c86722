//! Static addresses: stations that are behind a port whatever frames say.

use std::fmt;
use std::str::FromStr;

use packet::MacAddr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest VLAN id; 4095 is reserved (IEEE 802.1Q table 9-2).
pub const MAX_VLAN: u16 = 4094;

/// A station's address, written `52:54:00:00:00:01`, or `52:54:00:00:00:01 vlan 7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The VLAN; 0 for untagged frames.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
}

impl Address {
    /// Address `mac` in VLAN `vlan`, 0 for untagged frames.
    ///
    /// # Errors
    /// A VLAN above 4094, or an address that is not one station's; says what was expected.
    pub fn new(mac: MacAddr, vlan: u16) -> Result<Self, String> {
        if vlan > MAX_VLAN {
            return Err(format!("VLAN {vlan}: expected 0 to {MAX_VLAN}"));
        }
        if mac.is_multicast() || mac == MacAddr::default() {
            return Err(format!("{mac} is not the address of one station"));
        }
        Ok(Self { vlan, mac })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("address '{text}': expected 52:54:00:12:34:56, or 52:54:00:12:34:56 vlan 7");
        let (mac, vlan) = match text.split_once(" vlan ") {
            Some((mac, vlan)) => (mac, vlan.trim().parse().map_err(|_| wrong())?),
            None => (text, 0),
        };
        Self::new(mac.trim().parse().map_err(|_| wrong())?, vlan)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mac)?;
        if self.vlan != 0 {
            write!(f, " vlan {}", self.vlan)?;
        }
        Ok(())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["52:54:00:00:00:01", "52:54:00:00:00:01 vlan 4094"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let address: Address = "52:54:00:00:00:01 vlan 0".parse().unwrap();
        assert_eq!(address.to_string(), "52:54:00:00:00:01");
    }

    #[test]
    fn what_is_no_station_is_refused() {
        for (text, expected) in [
            ("", "expected 52:54:00:12:34:56"),
            ("52:54:00:00:00", "expected 52:54:00:12:34:56"),
            ("52:54:00:00:00:01 vlan x", "vlan 7"),
            ("52:54:00:00:00:01 vlan 4095", "VLAN 4095: expected 0 to 4094"),
            ("ff:ff:ff:ff:ff:ff", "not the address of one station"),
            ("00:00:00:00:00:00", "not the address of one station"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
