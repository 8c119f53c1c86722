//! Numbers by which collectors know interfaces (`ifIndex`).

use crate::agent::news::interface_index;
use crate::content::Interface;

/// The number of an interface: that which the system has for it, or, for one that is none of the system's, one
/// that is made of its name and stays as long as that does. Collectors are told the names, too.
pub(super) fn of(name: &str, row: Option<&Interface>, has_dummies: bool) -> u32 {
    let said = row.filter(|_| has_dummies).and_then(|row| row.options.get("ifindex")?.parse().ok());
    said.or_else(|| interface_index(name)).unwrap_or_else(|| made(name))
}

/// Numbers have 24 bits; the system's are small.
fn made(name: &str) -> u32 {
    // FNV-1a.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    0x80_0000 | (hash ^ hash >> 23) & 0x7f_ffff
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ovsdb::Uuid;

    use super::*;

    #[test]
    fn a_number_is_the_systems_or_made_of_the_name() {
        assert_eq!(of("lo", None, false), interface_index("lo").unwrap());
        let made: BTreeSet<u32> =
            (0..1_000).map(|number| of(&format!("vm no {number}"), None, false)).collect();
        assert_eq!(made.len(), 1_000);
        assert!(made.iter().all(|index| (0x80_0000..=0xff_ffff).contains(index)));
        assert!(made.contains(&of("vm no 7", None, false)));
    }

    #[test]
    fn a_test_can_say_the_number() {
        let mut row = Interface::bare(Uuid(1), "dummy");
        row.options = [("ifindex".to_owned(), "1004".to_owned())].into_iter().collect();
        assert_eq!(of("no such", Some(&row), true), 1_004);
        assert_ne!(of("no such", Some(&row), false), 1_004);
    }
}
