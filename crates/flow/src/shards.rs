//! A map that is cheap to keep an old version of: what control threads change while workers look
//! things up in the version before.
//!
//! Entries lie in shards of a dozen, found by hash; whoever changes one copies its shard and
//! the list of shards, unless nobody else has them. Several entries may have one hash.

use std::sync::Arc;

/// Entries of a shard on average, at most, before there are twice as many shards.
const FULL: usize = 16;

/// The most shards; beyond that they get longer.
const MAX_SHARDS: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Shard<V> {
    hashes: Vec<u64>,
    values: Vec<V>,
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { hashes: Vec::new(), values: Vec::new() }
    }
}

/// Values by hash.
#[derive(Clone, Debug)]
pub(crate) struct Shards<V> {
    /// As many as a power of two.
    shards: Arc<Vec<Arc<Shard<V>>>>,
    len: usize,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { shards: Arc::new(vec![Arc::default()]), len: 0 }
    }
}

impl<V: Clone> Shards<V> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        // The mask fits, and so does what is left by it.
        usize::try_from(hash >> 32).unwrap_or_default() & (self.shards.len() - 1)
    }

    /// All values with this hash, in no order.
    #[inline]
    pub(crate) fn get(&self, hash: u64) -> impl Iterator<Item = &V> {
        let shard = self.shards.get(self.place(hash));
        let entries = shard.into_iter().flat_map(|shard| shard.hashes.iter().zip(&shard.values));
        entries.filter(move |(own, _)| **own == hash).map(|(_, value)| value)
    }

    /// Hands each value with this hash to `take`.
    #[inline]
    pub(crate) fn for_each<'s>(&'s self, hash: u64, mut take: impl FnMut(&'s V)) {
        let Some(shard) = self.shards.get(self.place(hash)) else { return };
        for (at, own) in shard.hashes.iter().enumerate() {
            if *own == hash
                && let Some(value) = shard.values.get(at)
            {
                take(value);
            }
        }
    }

    /// All values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| &shard.values)
    }

    /// Adds a value.
    pub(crate) fn insert(&mut self, hash: u64, value: V) {
        if self.len >= FULL * self.shards.len() && self.shards.len() < MAX_SHARDS {
            self.grow();
        }
        let place = self.place(hash);
        if let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(place) {
            let shard = Arc::make_mut(shard);
            shard.hashes.push(hash);
            shard.values.push(value);
            self.len += 1;
        }
    }

    /// Puts another value in the place of the first one that `is_it` tells, and returns that.
    pub(crate) fn replace(
        &mut self,
        hash: u64,
        value: V,
        is_it: impl FnMut(&V) -> bool,
    ) -> Option<V> {
        let (place, at) = self.find(hash, is_it)?;
        let shard = Arc::make_mut(&mut self.shards).get_mut(place).map(Arc::make_mut)?;
        Some(std::mem::replace(shard.values.get_mut(at)?, value))
    }

    /// Takes the first value out that `is_it` tells.
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl FnMut(&V) -> bool) -> Option<V> {
        let (place, at) = self.find(hash, is_it)?;
        let shard = Arc::make_mut(&mut self.shards).get_mut(place).map(Arc::make_mut)?;
        shard.hashes.swap_remove(at);
        self.len -= 1;
        Some(shard.values.swap_remove(at))
    }

    fn find(&self, hash: u64, mut is_it: impl FnMut(&V) -> bool) -> Option<(usize, usize)> {
        let place = self.place(hash);
        let shard = self.shards.get(place)?;
        let mut entries = shard.hashes.iter().zip(&shard.values);
        Some((place, entries.position(|(own, value)| *own == hash && is_it(value))?))
    }

    fn grow(&mut self) {
        let count = self.shards.len() * 2;
        let mut shards: Vec<Shard<V>> =
            std::iter::repeat_with(Shard::default).take(count).collect();
        for shard in self.shards.iter() {
            for (hash, value) in shard.hashes.iter().zip(&shard.values) {
                let place = usize::try_from(hash >> 32).unwrap_or_default() & (count - 1);
                if let Some(shard) = shards.get_mut(place) {
                    shard.hashes.push(*hash);
                    shard.values.push(value.clone());
                }
            }
        }
        self.shards = Arc::new(shards.into_iter().map(Arc::new).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_plain_map_holds_and_old_versions_stay(
            steps in prop::collection::vec((0..200_u64, 0..3_u8, any::<u16>()), 0..600),
        ) {
            let mut map = Shards::default();
            let mut model = BTreeMap::<u64, Vec<u16>>::new();
            let mut old = None;
            for (index, (key, act, value)) in steps.into_iter().enumerate() {
                let hash = key << 32 | 7;
                if index == 300 {
                    old = Some((map.clone(), model.clone()));
                }
                let first = model.get(&key).and_then(|all| all.first().copied());
                match (act, first) {
                    (2, Some(first)) => {
                        prop_assert_eq!(map.remove(hash, |v| *v == first), Some(first));
                        model.get_mut(&key).unwrap().remove(0);
                    }
                    (1, Some(first)) => {
                        prop_assert_eq!(map.replace(hash, value, |v| *v == first), Some(first));
                        model.get_mut(&key).unwrap()[0] = value;
                    }
                    _ => {
                        map.insert(hash, value);
                        model.entry(key).or_default().push(value);
                    }
                }
            }
            for (map, model) in old.into_iter().chain([(map, model)]) {
                prop_assert_eq!(map.len(), model.values().map(Vec::len).sum::<usize>());
                prop_assert_eq!(map.iter().count(), map.len());
                for (key, mut values) in model {
                    let mut found: Vec<u16> = map.get(key << 32 | 7).copied().collect();
                    found.sort_unstable();
                    values.sort_unstable();
                    prop_assert_eq!(found, values);
                }
            }
        }
    }
}
