//! Bits that have names.

use std::fmt::{self, Display, Formatter};

use crate::field::text::Hex;

/// Names of bits, the lowest first; empty where a bit has none.
pub(super) type Names = &'static [&'static str];

/// Bits by their names, and those without one as a number; 0 for none.
pub(super) struct Bits(pub(super) u32, pub(super) Names);

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined(" "))
    }
}

impl Bits {
    /// The same with something else between the words.
    pub(super) fn joined(&self, between: &str) -> String {
        let Self(bits, names) = *self;
        let (mut words, mut unknown) = (Vec::new(), bits);
        for (name, at) in names.iter().zip(0..u32::BITS) {
            if bits >> at & 1 != 0 && !name.is_empty() {
                words.push((*name).to_owned());
                unknown &= !(1 << at);
            }
        }
        if unknown != 0 || words.is_empty() {
            words.push(Hex(unknown.into()).to_string());
        }
        words.join(between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_without_a_name_are_a_number() {
        let names: Names = &["a", "", "c"];
        let shown = |bits| Bits(bits, names).to_string();
        assert_eq!((shown(0).as_str(), shown(5).as_str()), ("0", "a c"));
        assert_eq!((shown(7).as_str(), shown(0x8002).as_str()), ("a c 0x2", "0x8002"));
        assert_eq!(Bits(u32::MAX, names).joined("|"), "a|c|0xfffffffa");
    }
}
