//! Lists are put in order by what is at which place: places are of one type, whatever is there.

use std::cmp::Ordering;

/// Puts a list in order; what compares as equal stays in the order that it had.
pub trait Order<T> {
    /// As `sort_by` of the standard library.
    fn order_by(&mut self, compare: impl Fn(&T, &T) -> Ordering);

    /// As `sort_by_key` of the standard library.
    fn order_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        self.order_by(|one, other| key(one).cmp(&key(other)));
    }

    /// As `sort` of the standard library.
    fn order(&mut self)
    where
        T: Ord,
    {
        self.order_by(T::cmp);
    }
}

impl<T> Order<T> for [T] {
    fn order_by(&mut self, compare: impl Fn(&T, &T) -> Ordering) {
        let swaps = swaps(self.len(), &|one, other| match (self.get(one), self.get(other)) {
            (Some(one), Some(other)) => compare(one, other),
            _ => Ordering::Equal,
        });
        for (one, other) in swaps {
            self.swap(one, other);
        }
    }
}

/// Which places of a list of `len` have to change what is there, one pair after the other, until all is in
/// order.
fn swaps(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<(usize, usize)> {
    let mut sources: Vec<usize> = (0..len).collect();
    sources.sort_by(|one, other| compare(*one, *other));
    let mut swaps = Vec::new();
    for start in 0..len {
        // Each place gets what belongs there from the next one of its cycle, until that is the first.
        let mut place = start;
        while let Some(source) = sources.get_mut(place) {
            let next = std::mem::replace(source, place);
            if next == place || next == start {
                break;
            }
            swaps.push((place, next));
            place = next;
        }
    }
    swaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_are_in_the_order_of_the_standard_library(
            keys in prop::collection::vec(0_u8..20, 0..100),
        ) {
            // The place where it was tells which of two that are equal came first.
            let mut list: Vec<(u8, String)> =
                keys.iter().enumerate().map(|(at, key)| (*key, at.to_string())).collect();
            let mut model = list.clone();
            model.sort_by_key(|(key, _)| *key);
            list.order_by_key(|(key, _)| *key);
            prop_assert_eq!(&list, &model);
            list.order_by(|one, other| other.0.cmp(&one.0));
            model.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
            prop_assert_eq!(&list, &model);
            list.order();
            model.sort();
            prop_assert_eq!(list, model);
        }
    }

    #[test]
    fn each_place_changes_once_at_most() {
        let reversed = swaps(6, &|one, other| other.cmp(&one));
        assert_eq!(reversed, [(0, 5), (1, 4), (2, 3)]);
        assert_eq!(swaps(3, &|one, other| one.cmp(&other)), []);
        // One to the right, all around.
        let around = swaps(4, &|one, other| ((one + 1) % 4).cmp(&((other + 1) % 4)));
        assert_eq!(around.len(), 3);
    }
}
