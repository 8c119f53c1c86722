//! Numbers of bits and of frames, as people write them: `100Mbit`, `1.5M`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The letters behind a number and what they multiply it by, largest first. They are decimal, as
/// for all rates of networks.
const FACTORS: [(char, u64); 4] =
    [('T', 1_000_000_000_000), ('G', 1_000_000_000), ('M', 1_000_000), ('k', 1_000)];

/// A number of bits, or of bits per second: written as `100Mbit`.
///
/// ```
/// use datapath::limit::Bits;
///
/// assert_eq!("1.5Gbit".parse(), Ok(Bits(1_500_000_000)));
/// assert_eq!(Bits(100_000_000).to_string(), "100Mbit");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(pub u64);

/// A number of frames, or of frames per second: written as `200k`.
///
/// ```
/// use datapath::limit::Frames;
///
/// assert_eq!("200k".parse(), Ok(Frames(200_000)));
/// assert_eq!(Frames(256).to_string(), "256");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frames(pub u64);

/// Reads a number that may have a fraction and one of the [`FACTORS`] behind it.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let last = text.chars().next_back()?;
    let factor = FACTORS.iter().find(|(letter, _)| letter.eq_ignore_ascii_case(&last));
    let (number, factor) = match factor {
        Some((letter, factor)) => (text.strip_suffix(last)?.trim_end(), (*factor, *letter)),
        None => (text, (1, ' ')),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let mut value = whole.parse::<u64>().ok()?.checked_mul(factor.0)?;
    let mut worth = factor.0;
    for digit in fraction.bytes() {
        // What is less than one is none.
        worth = (worth % 10 == 0).then_some(worth / 10)?;
        value = value.checked_add(worth.checked_mul(u64::from(digit.checked_sub(b'0')?))?)?;
    }
    Some(value)
}

/// Writes a number with the largest of the [`FACTORS`] that it is a multiple of.
fn write(f: &mut fmt::Formatter<'_>, value: u64, unit: &str) -> fmt::Result {
    let fits = |(_, factor): &&(char, u64)| value != 0 && value.is_multiple_of(*factor);
    match FACTORS.iter().find(fits) {
        Some((letter, factor)) => write!(f, "{}{letter}{unit}", value / factor),
        None => write!(f, "{value}{unit}"),
    }
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().trim_end_matches("/s");
        let number = number.strip_suffix("bit").unwrap_or(number);
        parse(number).map(Self).ok_or_else(|| format!("'{text}': expected bits, as in 100Mbit"))
    }
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim();
        let number = number.strip_suffix("pps").unwrap_or(number);
        parse(number).map(Self).ok_or_else(|| format!("'{text}': expected frames, as in 200k"))
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, "bit")
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, "")
    }
}

/// Reads a text, or a number that is meant as it is.
struct TextOrNumber<T> {
    expected: &'static str,
    of_number: fn(u64) -> T,
}

impl<T: FromStr<Err = String>> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok((self.of_number)(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number);
        number.map(self.of_number).map_err(|_| E::custom(format!("expected {}", self.expected)))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "bits, as in \"100Mbit\"";
        deserializer.deserialize_any(TextOrNumber { expected, of_number: Self })
    }
}

impl<'de> Deserialize<'de> for Frames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "frames, as in \"200k\" or 256";
        deserializer.deserialize_any(TextOrNumber { expected, of_number: Self })
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Frames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_in_several_ways() {
        for (text, bits) in [
            ("100Mbit", 100_000_000),
            ("100Mbit/s", 100_000_000),
            ("100m", 100_000_000),
            (" 1.5 Gbit ", 1_500_000_000),
            ("0.0005M", 500),
            ("1T", 1_000_000_000_000),
            ("8000", 8_000),
        ] {
            assert_eq!(text.parse(), Ok(Bits(bits)), "{text}");
        }
        assert_eq!("200kpps".parse(), Ok(Frames(200_000)));
        assert_eq!(serde_json::from_str::<Frames>("256").unwrap(), Frames(256));
        assert_eq!(serde_json::from_str::<Bits>("\"1G\"").unwrap(), Bits(1_000_000_000));
    }

    #[test]
    fn what_is_no_amount_is_told_what_is() {
        for bad in ["", "M", "-1", "1..5M", "1.5", "0.5", "1,5M", "99999999999T", "10Xbit", "bit"] {
            let error = bad.parse::<Bits>().unwrap_err();
            assert_eq!(error, format!("'{bad}': expected bits, as in 100Mbit"));
        }
        let error = serde_json::from_str::<Frames>("-3").unwrap_err().to_string();
        assert!(error.contains("expected frames, as in \"200k\""), "{error}");
        assert!(serde_json::from_str::<Bits>("true").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value: u64, zeros in 0..13_u32) {
            let value = value / 10_u64.pow(zeros) * 10_u64.pow(zeros);
            prop_assert_eq!(Bits(value).to_string().parse(), Ok(Bits(value)));
            prop_assert_eq!(Frames(value).to_string().parse(), Ok(Frames(value)));
        }
    }
}
