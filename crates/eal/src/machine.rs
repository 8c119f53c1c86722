//! By what the machine is known.

use std::fmt;
use std::fs;

/// Where it is kept (machine-id(5)).
const PATH: &str = "/etc/machine-id";

/// The number of this installation of an operating system, which stays the same for as long as that is
/// there. It is not to be shown, nor told to anybody (machine-id(5)): what is made of it is a keyed hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MachineId(pub [u8; 16]);

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineId(..)")
    }
}

impl MachineId {
    /// That of this machine; `None` where it has none, as in a container or before its first boot.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string(PATH).ok()?)
    }

    /// 32 hexadecimal digits, and the end of the line; not all zeroes.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end();
        let is_good = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u128::from_str_radix(digits, 16).ok().filter(|_| is_good)?;
        (number != 0).then(|| Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_taken() {
        let id = MachineId::parse("0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!((id.0[0], id.0[15]), (0x01, 0xEF));
        assert_eq!(format!("{id:?}"), "MachineId(..)");
        let zero = "0".repeat(32);
        let signed = format!("+{}", "1".repeat(31));
        for text in ["", "uninitialized\n", "0123", &zero, &signed, &"f".repeat(33)] {
            assert_eq!(MachineId::parse(text), None, "{text}");
        }
    }
}
