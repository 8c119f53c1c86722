//! Network service headers in the words of a datapath.

use std::fmt::Write as _;

use flow::{Key, Slot, slot};

use crate::value::Fields;

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// In base 10; with a mask, in two digits of base 16.
    Small,
    /// In base 16.
    Large,
}

/// A field: its name, where it is, and how it is written.
type Line = (&'static str, Slot, Style);

/// The fields that all have.
const FIRST: [Line; 6] = [
    ("flags", slot::NSH_FLAGS, Style::Small),
    ("ttl", slot::NSH_TTL, Style::Small),
    ("mdtype", slot::NSH_MDTYPE, Style::Small),
    ("np", slot::NSH_NP, Style::Small),
    ("spi", slot::NSH_SPI, Style::Large),
    ("si", slot::NSH_SI, Style::Small),
];

/// Metadata of the first type.
const CONTEXT: [Line; 4] = [
    ("c1", slot::NSH_C1, Style::Large),
    ("c2", slot::NSH_C2, Style::Large),
    ("c3", slot::NSH_C3, Style::Large),
    ("c4", slot::NSH_C4, Style::Large),
];

/// The places of all fields.
pub(crate) fn slots() -> impl Iterator<Item = Slot> {
    FIRST.into_iter().chain(CONTEXT).map(|(_, slot, _)| slot)
}

/// Whether it has metadata of the first type.
fn has_context(key: &Key) -> bool {
    key.get_u8(slot::NSH_MDTYPE) == 1
}

impl Style {
    fn show(self, value: u128, bits: u128, ones: u128) -> String {
        match (self, bits == ones) {
            (Self::Small, true) => value.to_string(),
            (Self::Small, false) => format!("{value:#04x}/{bits:#04x}"),
            (Self::Large, true) => format!("{value:#x}"),
            (Self::Large, false) => format!("{value:#x}/{bits:#010x}"),
        }
    }
}

/// Fields of which any bits count, each with those.
pub(crate) fn masked(key: &Key, bits: impl Fn(Slot) -> u128) -> String {
    let mut fields = Fields::default();
    let context = CONTEXT.into_iter().filter(|_| has_context(key));
    for (name, slot, style) in FIRST.into_iter().chain(context) {
        let bits = bits(slot);
        if bits != 0 {
            fields.add(name, style.show(key.get(slot) & bits, bits, slot.ones()));
        }
    }
    fields.0
}

/// A header that is put on, with metadata of the second type, if it has these.
pub(crate) fn push(key: &Key, metadata: &[u8]) -> String {
    let mut fields = masked(key, Slot::ones);
    if !has_context(key) {
        fields += ",md2=0x";
        metadata.iter().for_each(|byte| {
            let _ = write!(fields, "{byte:02x}");
        });
    }
    format!("push_nsh({fields})")
}

/// Fields that are written: all that have been looked at or written, but those that cannot be.
pub(crate) fn set(key: &Key, mask: &Key) -> String {
    let is_fixed = |slot| slot == slot::NSH_MDTYPE || slot == slot::NSH_NP;
    let fields = masked(key, |slot| if is_fixed(slot) { 0 } else { mask.get(slot) });
    format!("set(nsh({fields}))")
}
