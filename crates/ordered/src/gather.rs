//! What an iterator gives as a map or a set.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use litemap::LiteMap;

use crate::Order as _;

/// In place of `collect`, where that sorts.
pub trait Gather: Iterator + Sized {
    /// All that this gives. Of what has the same key the last counts.
    fn gather<C: Gathered<Self::Item>>(self) -> C {
        C::gathered(self)
    }

    /// All that this gives, or the first error that it gives.
    ///
    /// # Errors
    /// That one.
    fn try_gather<C: Gathered<T>, T, E>(self) -> Result<C, E>
    where
        Self: Iterator<Item = Result<T, E>>,
    {
        Ok(self.collect::<Result<Vec<T>, E>>()?.into_iter().gather())
    }
}

impl<I: Iterator> Gather for I {}

/// What an iterator can be gathered into.
pub trait Gathered<T> {
    /// All that `items` gives.
    fn gathered(items: impl Iterator<Item = T>) -> Self;
}

impl<K: Ord, V> Gathered<(K, V)> for BTreeMap<K, V> {
    fn gathered(items: impl Iterator<Item = (K, V)>) -> Self {
        let mut map = Self::new();
        map.extend(items);
        map
    }
}

impl<T: Ord> Gathered<T> for BTreeSet<T> {
    fn gathered(items: impl Iterator<Item = T>) -> Self {
        let mut set = Self::new();
        set.extend(items);
        set
    }
}

impl<K: Ord, V> Gathered<(K, V)> for LiteMap<K, V> {
    fn gathered(items: impl Iterator<Item = (K, V)>) -> Self {
        let mut entries: Vec<(K, V)> = items.collect();
        entries.order_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                mem::swap(later, earlier);
            }
            is_same
        });
        Self::from_sorted_store_unchecked(entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_gathered_is_what_is_collected(
            all in prop::collection::vec((0_u8..20, any::<u16>()), 0..60),
        ) {
            let all = || all.iter().copied();
            let map: BTreeMap<u8, u16> = all().gather();
            prop_assert_eq!(map, all().collect::<BTreeMap<_, _>>());
            let set: BTreeSet<(u8, u16)> = all().gather();
            prop_assert_eq!(set, all().collect::<BTreeSet<_>>());
            let lite: LiteMap<u8, u16> = all().gather();
            prop_assert_eq!(lite, all().collect::<LiteMap<_, _>>());
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let read =
            |text: &str| text.split(',').map(str::parse::<u8>).try_gather::<BTreeSet<u8>, _, _>();
        assert_eq!(read("3,1,3"), Ok(BTreeSet::from([1, 3])));
        assert_eq!(read("3,x,").unwrap_err(), "x".parse::<u8>().unwrap_err());
    }
}
