//! Identifiers of rows (RFC 4122).

use std::fmt;
use std::str::FromStr;

/// The identifier of a row.
///
/// ```
/// let text = "228b645b-a5fe-4c66-b431-530601486b7b";
/// let uuid: ovsdb::Uuid = text.parse().unwrap();
/// assert_eq!(uuid.to_string(), text);
/// assert!("228b645b".parse::<ovsdb::Uuid>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// A text that is no identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an identifier as 01234567-89ab-cdef-0123-456789abcdef")]
pub struct ParseUuidError;

/// Lengths of the groups of digits.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let mut groups = text.split('-');
        let mut value = 0_u128;
        for length in GROUPS {
            let group = groups.next().filter(|group| group.len() == length);
            let group = group.ok_or(ParseUuidError)?;
            for digit in group.chars() {
                let digit = digit.to_digit(16).ok_or(ParseUuidError)?;
                value = value << 4 | u128::from(digit);
            }
        }
        if groups.next().is_some() {
            return Err(ParseUuidError);
        }
        Ok(Self(value))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = 128_u32;
        for (index, length) in GROUPS.into_iter().enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            for _ in 0..length {
                digits = digits.saturating_sub(4);
                let digit = self.0.wrapping_shr(digits) & 0xf;
                write!(f, "{digit:x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_quite_an_identifier_is_refused() {
        let good = "00000000-0000-0000-0000-0000000000ff";
        assert_eq!(good.parse(), Ok(Uuid(255)));
        for bad in [
            "",
            "0000000-00000-0000-0000-0000000000ff",
            "00000000-0000-0000-0000-0000000000fg",
            "00000000-0000-0000-0000-0000000000ff-",
            "+0000000-0000-0000-0000-0000000000ff",
            "00000000-0000-0000-0000-0000000000f\u{e9}",
        ] {
            assert_eq!(bad.parse::<Uuid>(), Err(ParseUuidError), "{bad}");
        }
    }
}
