//! Values of fields as the words of a datapath have them: with a mask behind them where not all bits
//! count.

use std::fmt::{Display, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use flow::Slot;
use packet::MacAddr;

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Mac,
    Ipv4,
    Ipv6,
    /// In base 10; its mask in base 16.
    Decimal,
    /// In base 16.
    Hex,
}

/// A field of a header: its name, where it is, and how it is written.
pub(crate) type Line = (&'static str, Slot, Style);

/// The address in the lowest 48 bits.
pub(crate) fn mac(value: u128) -> MacAddr {
    let [.., a, b, c, d, e, f] = value.to_be_bytes();
    MacAddr([a, b, c, d, e, f])
}

/// The address in the lowest 32 bits.
pub(crate) fn ipv4(value: u128) -> Ipv4Addr {
    Ipv4Addr::from(u32::try_from(value & u128::from(u32::MAX)).unwrap_or_default())
}

/// A number in base 16, but 0 as it is.
pub(crate) fn hex(value: u128) -> String {
    if value == 0 { "0".to_owned() } else { format!("{value:#x}") }
}

impl Style {
    fn value(self, value: u128) -> String {
        match self {
            Self::Mac => mac(value).to_string(),
            Self::Ipv4 => ipv4(value).to_string(),
            Self::Ipv6 => Ipv6Addr::from(value).to_string(),
            Self::Decimal => value.to_string(),
            Self::Hex => hex(value),
        }
    }

    /// A value of `width` bits, of which those in `mask` count.
    pub(crate) fn show(self, value: u128, mask: u128, width: u8) -> String {
        let ones = openflow::field::ones(width.into());
        if mask & ones == ones {
            return self.value(value);
        }
        let mask = match self {
            Self::Decimal => hex(mask),
            _ => self.value(mask),
        };
        format!("{}/{mask}", self.value(value))
    }
}

/// Fields with commas between them.
#[derive(Debug, Default)]
pub(crate) struct Fields(pub(crate) String);

impl Fields {
    pub(crate) fn add(&mut self, name: &str, value: impl Display) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{name}={value}");
    }

    /// Adds those of these fields of which any bits count.
    pub(crate) fn add_lines(&mut self, lines: &[Line], of: impl Fn(Slot) -> (u128, u128)) {
        for (name, slot, style) in lines {
            let (value, mask) = of(*slot);
            if mask != 0 {
                self.add(name, style.show(value & mask, mask, slot.width()));
            }
        }
    }
}
