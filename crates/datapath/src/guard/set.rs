//! Sets of numbers that are looked up for each frame: few of them, mostly one.

use ordered::Order as _;

/// Ranges of numbers, both ends included.
#[derive(Clone, Debug)]
pub(super) struct Ranges<T> {
    /// The lowest, so that where there is one alone nothing else is looked at.
    first: (T, T),
    /// The others, in order; none touches another.
    others: Box<[(T, T)]>,
}

impl<T: Copy + Ord + Step> Ranges<T> {
    /// All numbers in any of `ranges`.
    pub(super) fn new(ranges: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut all: Vec<(T, T)> = ranges.into_iter().collect();
        all.order();
        let mut joined: Vec<(T, T)> = Vec::new();
        for (low, high) in all {
            match joined.last_mut() {
                Some((_, end)) if low <= *end => *end = high.max(*end),
                _ => joined.push((low, high)),
            }
        }
        let mut joined = joined.into_iter();
        // A range that ends before it begins has no number.
        let first = joined.next().unwrap_or((T::ONE, T::ZERO));
        Self { first, others: joined.collect() }
    }

    /// Whether `number` is in one of them.
    #[inline]
    pub(super) fn contain(&self, number: T) -> bool {
        let (low, high) = self.first;
        (low <= number && number <= high) || (!self.others.is_empty() && self.search(number))
    }

    #[inline(never)]
    fn search(&self, number: T) -> bool {
        let next = self.others.partition_point(|(low, _)| *low <= number);
        let range = next.checked_sub(1).and_then(|index| self.others.get(index));
        range.is_some_and(|(_, high)| number <= *high)
    }
}

/// Numbers that there can be ranges of.
pub(super) trait Step {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
}

macro_rules! step {
    ($($number:ty),*) => {$(
        impl Step for $number {
            const ZERO: Self = 0;
            const ONE: Self = 1;
        }
    )*};
}

step!(u32, u64, u128);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_have_what_any_of_them_has(
            ranges in prop::collection::vec((0..200_u32, 0..50_u32), 0..12),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(low, len)| (low, low + len)).collect();
            let all = Ranges::new(ranges.clone());
            for number in 0..300 {
                let expected = ranges.iter().any(|(low, high)| (*low..=*high).contains(&number));
                prop_assert_eq!(all.contain(number), expected, "{}", number);
            }
        }
    }
}
