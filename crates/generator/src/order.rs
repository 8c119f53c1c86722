//! The order in which flows take their turns.

/// In which order the flows of a round are sent; each is sent once per round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other.
    Sequence,
    /// In an order that looks random, the same in each round.
    Shuffled(Shuffle),
}

impl Order {
    /// The flow at `place` of a round.
    #[inline]
    pub const fn flow(&self, place: u32) -> u32 {
        match self {
            Self::Sequence => place,
            Self::Shuffled(shuffle) => shuffle.at(place),
        }
    }
}

/// A permutation of the numbers below `len` that needs no table: one of all numbers of as many bits,
/// gone through until the result is one of those below `len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffle {
    len: u32,
    mask: u32,
    shift: u32,
    add: u32,
    factors: [u32; 2],
}

impl Shuffle {
    /// A permutation of the numbers below `len`, which is at least 1; another one for each `seed`.
    #[allow(clippy::cast_possible_truncation, reason = "any bits of the seed will do")]
    pub const fn new(len: u32, seed: u64) -> Self {
        let len = if len == 0 { 1 } else { len };
        let bits = u32::BITS - (len - 1).leading_zeros();
        let mask = if bits == 0 { 0 } else { u32::MAX >> (u32::BITS - bits) };
        let first = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let second = (first ^ first >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        // Odd factors have an inverse modulo a power of two, so that no two numbers become one.
        let factors = [(first >> 32) as u32 | 1, (second >> 32) as u32 | 1];
        Self { len, mask, shift: bits.div_ceil(2), add: second as u32, factors }
    }

    /// What is at `place`, which is below `len`.
    #[inline]
    pub const fn at(&self, place: u32) -> u32 {
        let mut value = place;
        // Ends: a permutation comes back to where it started from, and that is below `len`.
        loop {
            value = self.step(value);
            if value < self.len || value == place {
                return value;
            }
        }
    }

    const fn step(&self, value: u32) -> u32 {
        let [first, second] = self.factors;
        let value = value.wrapping_add(self.add).wrapping_mul(first) & self.mask;
        let value = (value ^ value.unbounded_shr(self.shift)).wrapping_mul(second) & self.mask;
        let value = (value ^ value.unbounded_shr(self.shift)).wrapping_mul(first) & self.mask;
        value ^ value.unbounded_shr(self.shift)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_make_other_orders() {
        let order = |seed| -> Vec<u32> {
            let shuffle = Shuffle::new(1000, seed);
            (0..1000).map(|place| shuffle.at(place)).collect()
        };
        assert_eq!(order(1), order(1));
        for (one, other) in [(0, 1), (1, 2), (2, u64::MAX)] {
            let same = order(one).iter().zip(order(other)).filter(|(a, b)| *a == b).count();
            assert!(same < 50, "{one}, {other}: {same}");
        }
        // Neighbours are not neighbours any more.
        let near = order(1).windows(2).filter(|two| two[0].abs_diff(two[1]) < 10).count();
        assert!(near < 100, "{near}");
    }

    proptest! {
        #[test]
        fn each_number_comes_once(len in 1..3000_u32, seed: u64) {
            let shuffle = Shuffle::new(len, seed);
            let mut seen: Vec<u32> = (0..len).map(|place| shuffle.at(place)).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..len));
        }
    }
}
