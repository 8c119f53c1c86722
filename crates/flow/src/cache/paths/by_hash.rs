//! Numbers of paths by hashes.
//!
//! Each entry has of its hash what tells the entries of the table apart: where the table grows, or is made free of
//! what was taken out, nothing is asked of paths, of which each would be memory from far away.

use hashbrown::HashTable;

/// A number, with a part of its hash.
#[derive(Clone, Copy, Debug)]
struct Listed {
    hash: u32,
    id: u32,
}

/// Numbers of paths, each of which may be found by a hash; several may be by the same one.
#[derive(Debug, Default)]
pub(super) struct ByHash(HashTable<Listed>);

impl ByHash {
    /// One of those that are found by this hash, if any of them is it.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = part(hash);
        let is_it = |listed: &Listed| listed.hash == hash && is_it(listed.id);
        self.0.find(spread(hash), is_it).map(|listed| listed.id)
    }

    /// Adds a number, which is not there.
    pub(super) fn add(&mut self, hash: u64, id: u32) {
        let hash = part(hash);
        self.0.insert_unique(spread(hash), Listed { hash, id }, |listed| spread(listed.hash));
    }

    /// Takes a number out that was added with this hash.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let hash = part(hash);
        let is_it = |listed: &Listed| (listed.hash, listed.id) == (hash, id);
        if let Ok(own) = self.0.find_entry(spread(hash), is_it) {
            own.remove();
        }
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What is kept of a hash: the half that all of its path is mixed into best.
#[inline]
const fn part(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A hash for the table, which goes by the lowest and the highest bits.
#[inline]
const fn spread(part: u32) -> u64 {
    (part as u64) << 32 | part as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compared with a set of both, where hashes are few or many.
        #[test]
        fn what_was_added_is_found(
            steps in prop::collection::vec((0..4_u64, 0..40_u64, 0..60_u32), 0..400),
            factor in prop_oneof![Just(1), Just(0x9E37_79B9_7F4A_7C15_u64), Just(1 << 32)],
        ) {
            let (mut table, mut model) = (ByHash::default(), BTreeSet::new());
            for (kind, hash, id) in steps {
                let (hash, own) = (hash.wrapping_mul(factor), part(hash.wrapping_mul(factor)));
                match kind {
                    0 => {
                        table.remove(hash, id);
                        model.remove(&(own, id));
                    }
                    1 if id == 0 => {
                        table.clear();
                        model.clear();
                    }
                    _ if model.insert((own, id)) => table.add(hash, id),
                    _ => {}
                }
                let found = table.find(hash, |listed| listed == id);
                prop_assert_eq!(found.is_some(), model.contains(&(own, id)));
                let any = table.find(hash, |_| true);
                prop_assert_eq!(any.is_some(), model.iter().any(|(part, _)| *part == own));
                prop_assert!(any.is_none_or(|id| model.contains(&(own, id))));
            }
        }
    }

    /// No other number is looked at than those of the same half of a hash, however full the table is.
    #[test]
    fn few_are_looked_at() {
        let mut table = ByHash::default();
        let hash = |id: u32| u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (0..10_000).for_each(|id| table.add(hash(id), id));
        for id in 0..10_000 {
            let looked = std::cell::Cell::new(0);
            let found = table.find(hash(id), |own| {
                looked.set(looked.get() + 1);
                own == id
            });
            assert_eq!((found, looked.get()), (Some(id), 1));
        }
    }
}
