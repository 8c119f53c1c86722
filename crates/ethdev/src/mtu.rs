//! The bounds of MTUs. An MTU counts what a frame carries behind its Ethernet header, in bytes; a
//! VLAN tag does not count.

use std::ops::RangeInclusive;

use crate::port::Error;

/// Smallest MTU: what every IPv4 host takes (RFC 791), and the least that Linux lets an interface
/// have (`ETH_MIN_MTU`).
pub const MIN: u16 = 68;

/// Largest MTU: that of a frame of 65,535 bytes, which is what the length of a frame can say.
pub const MAX: u16 = 65_521;

/// All MTUs that a frame can have room for.
pub const VALID: RangeInclusive<u16> = MIN..=MAX;

/// The MTU where nobody says another one: Ethernet's (IEEE 802.3).
pub const DEFAULT: u16 = 1500;

/// Checks an MTU that the user wants of the device `what`.
///
/// # Errors
/// When it is not in `valid`.
pub fn check(
    mtu: u16,
    valid: &RangeInclusive<u16>,
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    if valid.contains(&mtu) {
        return Ok(());
    }
    let reason = format!("MTU {mtu}: expected {} to {} bytes", valid.start(), valid.end());
    Err(Error::Device { what: what(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_bounds() {
        assert!(check(MIN, &VALID, String::new).is_ok());
        let error = check(67, &(MIN..=9000), || "igb".to_owned()).unwrap_err().to_string();
        assert_eq!(error, "igb: MTU 67: expected 68 to 9000 bytes");
    }
}
