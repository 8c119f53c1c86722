//! Ranges of addresses and numbers, as `FIRST-LAST` or `FIRST+COUNT`, with `@STEP`.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use packet::MacAddr;

use crate::stamp::MAX_FLOWS;

/// What a header field can hold, as a number that can be counted on from.
pub trait Countable: Copy + FromStr {
    /// The number.
    fn number(self) -> u64;
    /// The largest number that the field holds.
    fn most(self) -> u64;
    /// What is expected, with an example.
    const EXPECTED: &str;
    /// The first of a range of them, and the next one.
    const EXAMPLE: (&str, &str);
}

/// Addresses that can be made of a number.
pub trait WithNumber {
    /// The address with this number; of IPv6 addresses the upper half stays.
    #[must_use]
    fn with_number(self, number: u64) -> Self;
}

impl WithNumber for MacAddr {
    fn with_number(self, number: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl WithNumber for IpAddr {
    #[allow(clippy::cast_possible_truncation, reason = "numbers of IPv4 addresses have 32 bits")]
    fn with_number(self, number: u64) -> Self {
        match self {
            Self::V4(_) => Self::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6(ip) => {
                let upper = ip.to_bits() >> 64 << 64;
                Self::V6(Ipv6Addr::from_bits(upper | u128::from(number)))
            }
        }
    }
}

impl Countable for MacAddr {
    fn number(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    fn most(self) -> u64 {
        0xFFFF_FFFF_FFFF
    }

    const EXPECTED: &str = "a MAC address";
    const EXAMPLE: (&str, &str) = ("02:00:00:00:00:01", "02:00:00:00:00:ff");
}

impl Countable for IpAddr {
    /// Of IPv6 addresses only the lower half counts.
    fn number(self) -> u64 {
        match self {
            Self::V4(ip) => u64::from(ip.to_bits()),
            Self::V6(ip) => {
                let [.., a, b, c, d, e, f, g, h] = ip.octets();
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
        }
    }

    fn most(self) -> u64 {
        if self.is_ipv4() { u32::MAX.into() } else { u64::MAX }
    }

    const EXPECTED: &str = "an IP address";
    const EXAMPLE: (&str, &str) = ("10.0.0.1", "10.0.0.254");
}

/// A port of UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4Port(pub u16);

/// A VLAN of a tag; 0 means "priority only".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan(pub u16);

/// A VXLAN network identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vni(pub u32);

macro_rules! number {
    ($type:ident, $most:expr, $expected:literal, $example:expr) => {
        impl FromStr for $type {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                let number = text.parse().map_err(drop)?;
                if u64::from(number) > $most { Err(()) } else { Ok(Self(number)) }
            }
        }

        impl Countable for $type {
            fn number(self) -> u64 {
                self.0.into()
            }

            fn most(self) -> u64 {
                $most
            }

            const EXPECTED: &str = $expected;
            const EXAMPLE: (&str, &str) = $example;
        }
    };
}

number!(L4Port, 65_535, "a port from 0 to 65535", ("1024", "2047"));
number!(Vlan, 4094, "a VLAN from 0 to 4094", ("10", "29"));
number!(Vni, 0xFF_FFFF, "a VNI from 0 to 16777215", ("100", "199"));

/// Values of a header field, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<T> {
    /// The first.
    pub first: T,
    /// How many there are: 1 to [`MAX_FLOWS`].
    pub count: u32,
    /// From one to the next.
    pub step: u64,
}

impl<T> Range<T> {
    /// One value.
    pub const fn one(first: T) -> Self {
        Self { first, count: 1, step: 1 }
    }

    /// The values from `first` on; the last one has to be one that there is.
    pub const fn of(first: T, count: u32) -> Self {
        Self { first, count, step: 1 }
    }
}

impl<T: Countable + WithNumber> Range<T> {
    /// The range of the same length that comes `index` such ranges later.
    ///
    /// # Errors
    /// When there are not so many values.
    pub fn block(self, index: usize) -> Result<Self, String> {
        let length = u64::from(self.count).checked_mul(self.step);
        let way = length.and_then(|length| length.checked_mul(index as u64));
        let first = way.and_then(|way| self.first.number().checked_add(way));
        let last = first.and_then(|first| first.checked_add(length?.checked_sub(self.step)?));
        match (first, last) {
            (Some(first), Some(last)) if last <= self.first.most() => {
                Ok(Self { first: self.first.with_number(first), ..self })
            }
            _ => Err(format!(
                "there is no room for {} as many again behind {}, expected {}",
                index,
                self.first.number(),
                T::EXPECTED
            )),
        }
    }
}

impl<T: Countable> FromStr for Range<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (values, step) = match text.split_once('@') {
            None => (text, 1),
            Some((values, step)) => {
                let step = step.parse().ok().filter(|step| *step > 0);
                (values, step.ok_or_else(|| format!("'{text}': expected a step of 1 or more"))?)
            }
        };
        let value = |part: &str| part.trim().parse::<T>().map_err(|_| expected::<T>(text));
        let (first, count) = if let Some((first, count)) = values.split_once('+') {
            let count = count.trim().parse::<u64>().map_err(|_| expected::<T>(text))?;
            (value(first)?, count)
        } else if let Some((first, last)) = values.split_once('-') {
            let (first, last) = (value(first)?, value(last)?);
            if first.most() != last.most() {
                return Err(format!("'{text}': the first and the last are of different kinds"));
            }
            let between = last.number().checked_sub(first.number());
            let between = between.ok_or_else(|| format!("'{text}' ends before it begins"))?;
            (first, (between / step).saturating_add(1))
        } else {
            (value(values)?, 1)
        };
        let short = u32::try_from(count).ok().filter(|count| (1..=MAX_FLOWS).contains(count));
        let count = short
            .ok_or_else(|| format!("'{text}' has {count} values, expected 1 to {MAX_FLOWS}"))?;
        let last = u64::from(count - 1).checked_mul(step);
        let last = last.and_then(|way| first.number().checked_add(way));
        if last.is_none_or(|last| last > first.most()) {
            return Err(format!("'{text}' goes on behind the last value that there is"));
        }
        Ok(Self { first, count, step })
    }
}

fn expected<T: Countable>(text: &str) -> String {
    let (first, last) = T::EXAMPLE;
    format!("'{text}': expected {}, or a range: {first}-{last} or {first}+100", T::EXPECTED)
}

impl Range<IpAddr> {
    /// Why this and `other` cannot be the two addresses of a packet, if that is so.
    pub fn differs(&self, other: &Self) -> Option<String> {
        let (one, two): (&dyn Display, &dyn Display) = (&self.first, &other.first);
        (self.first.is_ipv4() != other.first.is_ipv4())
            .then(|| format!("{one} and {two} are addresses of different versions of IP"))
    }
}

/// An IPv4 range.
pub const fn v4(first: [u8; 4], count: u32) -> Range<IpAddr> {
    let [a, b, c, d] = first;
    Range::of(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), count)
}

/// An IPv6 range.
pub const fn v6(first: [u16; 8], count: u32) -> Range<IpAddr> {
    let [a, b, c, d, e, f, g, h] = first;
    Range::of(IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<T: Countable>(text: &str) -> (u64, u32, u64) {
        let range: Range<T> = text.parse().unwrap();
        (range.first.number(), range.count, range.step)
    }

    #[test]
    fn ranges_are_first_and_last_or_a_count_with_a_step() {
        assert_eq!(numbers::<L4Port>("9"), (9, 1, 1));
        assert_eq!(numbers::<L4Port>("1024-2047"), (1024, 1024, 1));
        assert_eq!(numbers::<Vlan>("10-20@5"), (10, 3, 5));
        assert_eq!(numbers::<Vlan>("10-19@5"), (10, 2, 5));
        assert_eq!(numbers::<Vni>("16777214+2"), (0xFF_FFFE, 2, 1));
        assert_eq!(numbers::<MacAddr>("02:00:00:00:00:ff+100000"), (0x0200_0000_00FF, 100_000, 1));
        assert_eq!(numbers::<IpAddr>("10.0.0.1-10.0.255.1@256"), (0x0A00_0001, 256, 256));
        assert_eq!(numbers::<IpAddr>("2001:2::5+3@65536"), (5, 3, 65_536));
    }

    #[test]
    fn blocks_follow_each_other() {
        let macs: Range<MacAddr> = "02:00:00:00:00:fe+3".parse().unwrap();
        assert_eq!(macs.block(0), Ok(macs));
        let next = macs.block(2).unwrap();
        assert_eq!((next.first, next.count), (MacAddr([2, 0, 0, 0, 1, 4]), 3));
        let ips: Range<IpAddr> = "2001:2::1-2001:2::ff01@256".parse().unwrap();
        assert_eq!(ips.block(1).unwrap().first, "2001:2::1:1".parse::<IpAddr>().unwrap());
        let ips: Range<IpAddr> = "255.255.255.0+100".parse().unwrap();
        assert_eq!(ips.block(1).unwrap().first.to_string(), "255.255.255.100");
        assert!(ips.block(2).is_err() && ips.block(usize::MAX).is_err());
    }

    #[test]
    fn what_is_no_range_is_told_why() {
        fn error<T: Countable>(text: &str) -> String {
            match text.parse::<Range<T>>() {
                Err(error) => error,
                Ok(_) => String::new(),
            }
        }
        assert_eq!(
            error::<Vlan>("4095"),
            "'4095': expected a VLAN from 0 to 4094, or a range: 10-29 or 10+100"
        );
        for text in ["", "x", "1-", "-1", "1+", "+1", "1-2-3", "70000", "1+x"] {
            assert!(error::<L4Port>(text).contains("expected a port"), "{text}");
        }
        assert_eq!(error::<L4Port>("1-2@0"), "'1-2@0': expected a step of 1 or more");
        assert_eq!(error::<L4Port>("2-1"), "'2-1' ends before it begins");
        assert!(error::<L4Port>("1+0").contains("0 values, expected 1 to 1048576"));
        assert!(error::<IpAddr>("10.0.0.0+9000000").contains("9000000 values"));
        assert!(error::<IpAddr>("10.0.0.1-::1").contains("different kinds"));
        for text in ["65535+2", "1+3@65535", "1+2@18446744073709551615"] {
            assert!(error::<L4Port>(text).contains("behind the last"), "{text}");
        }
        assert!(error::<IpAddr>("::ffff:ffff:ffff:ffff+2").contains("behind the last"));
        assert!(error::<MacAddr>("ff:ff:ff:ff:ff:ff+2").contains("behind the last"));
    }
}
