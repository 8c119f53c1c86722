//! A map of few entries: a vector in the order of its keys.
//!
//! It is to a [`BTreeMap`](std::collections::BTreeMap) what an insertion sort is to a merge sort: as good
//! for what a control thread knows of some ports, bridges or queues, and a tenth of the machine code,
//! which the compiler makes anew for each kind of key and value. All at once can be many, but an insertion
//! moves what is behind it, so it is not for what a peer may fill one by one with more than some thousands.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::iter::Map;
use std::ops::Index;
use std::{mem, slice, vec};

/// A map of few entries, in the order of their keys.
///
/// ```
/// let mut ages = eal::SortedMap::from([("b", 2), ("a", 1)]);
/// *ages.entry("c").or_default() += 3;
/// assert_eq!(ages.get("b"), Some(&2));
/// assert!(ages.keys().eq(&["a", "b", "c"]));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SortedMap<K, V>(Vec<(K, V)>);

impl<K, V> SortedMap<K, V> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(pair)
    }

    /// The same, to change the values.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        self.0.iter_mut().map(pair_mut)
    }

    /// The keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// The keys in order, without the map.
    pub fn into_keys(self) -> impl DoubleEndedIterator<Item = K> {
        self.0.into_iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys, without the map.
    pub fn into_values(self) -> impl DoubleEndedIterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    /// Removes the entries that `keeps` says no to; it is asked in the order of keys.
    pub fn retain(&mut self, mut keeps: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keeps(key, value));
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// Where `key` is, or where it belongs.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(other, _)| other.borrow().cmp(key))
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Whether it has `key`.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Gives `key` a value; returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| mem::replace(old, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes `key`; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// The place of `key`, with or without a value.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        let (at, is_new) = match self.find(&key) {
            Ok(at) => (at, false),
            Err(at) => (at, true),
        };
        Entry { entries: &mut self.0, key, at, is_new }
    }
}

/// The place of a key in a map.
#[derive(Debug)]
pub struct Entry<'m, K, V> {
    entries: &'m mut Vec<(K, V)>,
    key: K,
    at: usize,
    is_new: bool,
}

impl<'m, K, V> Entry<'m, K, V> {
    /// Its value, which is that of `make` if it has none.
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> &'m mut V {
        let Self { entries, key, at, is_new } = self;
        if is_new {
            entries.insert(at, (key, make()));
        }
        match entries.get_mut(at) {
            Some((_, value)) => value,
            None => unreachable!("it was found there, or was put there"),
        }
    }

    /// Its value, which is the default one if it has none.
    pub fn or_default(self) -> &'m mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SortedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> Extend<(K, V)> for SortedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

/// The value of a key that is there, for tests: as that of a tree, it panics where it is not.
impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for SortedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        match self.get(key) {
            Some(value) => value,
            None => unreachable!("a key that is not there"),
        }
    }
}

/// Of entries with the same key the last one counts.
impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        if entries.is_sorted_by(|one, next| one.0 < next.0) {
            return Self(entries);
        }
        let key = |at: usize| entries.get(at).map(|(key, _)| key);
        let order = order(entries.len(), &mut |one, other| key(one).cmp(&key(other)));
        let mut places: Vec<_> = entries.into_iter().map(Some).collect();
        let in_order = order.into_iter().filter_map(|at| places.get_mut(at)?.take());
        let mut sorted = Vec::<(K, V)>::new();
        for entry in in_order {
            match sorted.last_mut() {
                Some(last) if last.0 == entry.0 => *last = entry,
                _ => sorted.push(entry),
            }
        }
        Self(sorted)
    }
}

/// The order of so many things by `compare`, which is told the places of two. That is the same code
/// whatever they are.
fn order(len: usize, compare: &mut dyn FnMut(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    places.sort_by(|one, other| compare(*one, *other));
    places
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SortedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

/// The entries of a map.
pub type Iter<'m, K, V> = Map<slice::Iter<'m, (K, V)>, fn(&(K, V)) -> (&K, &V)>;

/// The entries of a map, to change the values.
pub type IterMut<'m, K, V> = Map<slice::IterMut<'m, (K, V)>, fn(&mut (K, V)) -> (&K, &mut V)>;

fn pair<K, V>((key, value): &(K, V)) -> (&K, &V) {
    (key, value)
}

fn pair_mut<K, V>((key, value): &mut (K, V)) -> (&K, &mut V) {
    (key, value)
}

impl<'m, K, V> IntoIterator for &'m SortedMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'m, K, V> IntoIterator for &'m mut SortedMap<K, V> {
    type Item = (&'m K, &'m mut V);
    type IntoIter = IterMut<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u8, u16),
        Remove(u8),
        Add(u8, u16),
        Keep(u16),
        Clear,
    }

    fn act() -> impl Strategy<Value = Act> {
        let key = 0..24_u8;
        prop_oneof![
            8 => (key.clone(), any::<u16>()).prop_map(|(key, value)| Act::Insert(key, value)),
            4 => key.clone().prop_map(Act::Remove),
            4 => (key, any::<u16>()).prop_map(|(key, value)| Act::Add(key, value)),
            1 => (1..5_u16).prop_map(Act::Keep),
            1 => Just(Act::Clear),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_tree_does(acts in prop::collection::vec(act(), 0..64)) {
            let (mut map, mut model) = (SortedMap::new(), BTreeMap::new());
            for act in acts {
                match act {
                    Act::Insert(key, value) => {
                        prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                    }
                    Act::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Act::Add(key, value) => {
                        let sum = map.entry(key).or_default();
                        *sum = sum.wrapping_add(value);
                        let of_model = model.entry(key).or_default();
                        *of_model = of_model.wrapping_add(value);
                    }
                    Act::Keep(part) => {
                        map.retain(|_, value| *value % part != 0);
                        model.retain(|_, value| *value % part != 0);
                    }
                    Act::Clear => {
                        map.clear();
                        model.clear();
                    }
                }
                prop_assert!(map.iter().eq(&model) && map.iter_mut().eq(&mut model));
                prop_assert!(map.keys().eq(model.keys()) && map.values().eq(model.values()));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                for key in 0..25 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    prop_assert_eq!(map.get_mut(&key), model.get_mut(&key));
                    prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
                }
            }
            let reversed: SortedMap<u8, u16> = model.clone().into_iter().rev().collect();
            prop_assert!(reversed == map);
            let twice = model.clone().into_iter().rev().flat_map(|(key, value)| [(key, 0), (key, value)]);
            prop_assert!(twice.collect::<SortedMap<_, _>>() == map);
            prop_assert_eq!(format!("{map:?}"), format!("{model:?}"));
            prop_assert!(map.clone().into_keys().eq(model.clone().into_keys()));
            prop_assert!(map.clone().into_values().eq(model.clone().into_values()));
            prop_assert!(map.into_iter().eq(model));
        }
    }
}
