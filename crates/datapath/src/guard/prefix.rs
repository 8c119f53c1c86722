//! IP addresses and prefixes, as people write them: `192.0.2.7`, `2001:db8:1::/64`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses of a network, or one alone.
///
/// ```
/// use datapath::guard::Prefix;
///
/// let net: Prefix = "192.0.2.0/24".parse()?;
/// assert_eq!(net.to_string(), "192.0.2.0/24");
/// assert_eq!("2001:db8::7/128".parse::<Prefix>()?.to_string(), "2001:db8::7");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Whether it is IPv6.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The first and the last IPv4 address; `None` if it is IPv6.
    pub(super) fn v4(&self) -> Option<(u32, u32)> {
        let IpAddr::V4(address) = self.address else { return None };
        let mask = u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(self.len))).unwrap_or(0);
        Some((u32::from(address), u32::from(address) | !mask))
    }

    /// The first and the last IPv6 address; `None` if it is IPv4.
    pub(super) fn v6(&self) -> Option<(u128, u128)> {
        let IpAddr::V6(address) = self.address else { return None };
        let mask = u128::MAX.checked_shl(u32::from(128_u8.saturating_sub(self.len))).unwrap_or(0);
        Some((u128::from(address), u128::from(address) | !mask))
    }

    /// The longest prefix of addresses of this kind.
    const fn longest(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// The network that an address is in.
    fn network(address: IpAddr, len: u8) -> IpAddr {
        let longest = u32::from(Self::longest(address));
        let host = longest.saturating_sub(len.into());
        let clear = |bits: u128| bits & u128::MAX.checked_shl(host).unwrap_or(0);
        match address {
            IpAddr::V4(address) => {
                let bits = clear(u32::from(address).into());
                IpAddr::V4(u32::try_from(bits).unwrap_or_default().into())
            }
            IpAddr::V6(address) => IpAddr::V6(clear(address.into()).into()),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("'{text}': expected an IP address or prefix, as in 192.0.2.7 or 2001:db8::/64")
        };
        let (address, len) = text.split_once('/').map_or((text, None), |(a, len)| (a, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let longest = Self::longest(address);
        let len = match len {
            Some(len) => len.parse().ok().filter(|len| *len <= longest).ok_or_else(expected)?,
            None => longest,
        };
        let network = Self::network(address, len);
        if network != address {
            return Err(format!(
                "'{text}' has bits behind its prefix: did you mean {network}/{len}?"
            ));
        }
        Ok(Self { address, len })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == Self::longest(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Prefix, String> {
        text.parse()
    }

    #[test]
    fn prefixes_are_ranges() {
        let v4 = |text| parse(text).unwrap().v4().unwrap();
        assert_eq!(v4("10.0.0.1"), (0x0A00_0001, 0x0A00_0001));
        assert_eq!(v4("10.0.0.0/8"), (0x0A00_0000, 0x0AFF_FFFF));
        assert_eq!(v4("0.0.0.0/0"), (0, u32::MAX));
        let v6 = |text| parse(text).unwrap().v6().unwrap();
        assert_eq!(v6("::1"), (1, 1));
        assert_eq!(v6("::/0"), (0, u128::MAX));
        assert_eq!(v6("fe80::/64"), (0xFE80 << 112, 0xFE80 << 112 | u128::from(u64::MAX)));
        assert!(parse("::").unwrap().v4().is_none() && parse("1.2.3.4").unwrap().v6().is_none());
    }

    #[test]
    fn what_is_no_prefix_is_named() {
        for text in ["", "10.0.0", "10.0.0.1/33", "10.0.0.1/", "::/129", "10.0.0.1/-1", "/8"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("expected an IP address"), "{error}");
        }
        let error = parse("10.1.2.3/8").unwrap_err();
        assert!(error.contains("did you mean 10.0.0.0/8?"), "{error}");
        let error = parse("fe80::1/64").unwrap_err();
        assert!(error.contains("did you mean fe80::/64?"), "{error}");
    }
}
