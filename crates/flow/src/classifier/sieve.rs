//! A look at a few words of a key, by which most tuples that have no rule for it are passed over: much
//! cheaper than to hash all that their masks leave of it, and to look that up.

use crate::key::Key;
use crate::pattern::Pattern;

/// How many words are looked at.
const WORDS: usize = 3;

/// Of more values than this it is too likely that one looks like another.
const MAX_VALUES: u32 = 32;

/// A word of a mask, and which values rules have there: a bit for all that look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    word: u8,
    bits: u64,
    values: u64,
}

impl Probe {
    /// One that lets every key pass.
    const ANY: Self = Self { word: 0, bits: 0, values: u64::MAX };

    /// The words of a mask that has no rules yet.
    pub(super) fn all(pattern: &Pattern) -> Box<[Self]> {
        let words = pattern.mask().words().iter();
        words.map(|(word, bits)| Self { word: *word, bits: *bits, values: 0 }).collect()
    }

    #[inline]
    fn bit(&self, word: u64) -> u64 {
        1 << ((word & self.bits).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
    }

    /// Adds the value of a rule, by its key.
    pub(super) fn add(&mut self, key: &Key) {
        self.values |= self.bit(key.word(usize::from(self.word)));
    }

    /// Forgets all values.
    pub(super) const fn clear(&mut self) {
        self.values = 0;
    }

    #[inline]
    fn passes(&self, key: &Key) -> bool {
        self.values & self.bit(key.word(usize::from(self.word))) != 0
    }
}

/// The words of a tuple that tell the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sieve([Probe; WORDS]);

impl Sieve {
    /// Those of which many bits count, for which rules have few values.
    pub(super) fn new(probes: &[Probe]) -> Self {
        let mut sieve = [Probe::ANY; WORDS];
        for probe in probes.iter().filter(|probe| probe.values.count_ones() <= MAX_VALUES) {
            // In order; the one that is least falls out.
            let mut probe = *probe;
            for place in &mut sieve {
                if place.bits.count_ones() < probe.bits.count_ones() {
                    std::mem::swap(place, &mut probe);
                }
            }
        }
        Self(sieve)
    }

    /// Whether there may be a rule for this key.
    #[inline]
    pub(super) fn passes(&self, key: &Key) -> bool {
        self.0.iter().all(|probe| probe.passes(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::slot;

    #[test]
    fn what_rules_have_passes_and_little_else() {
        let key = |source: u128, port: u128| {
            let mut key = Key::default();
            for (slot, value) in [
                (slot::IPV6_SRC, source),
                (slot::TP_DST, port),
                (slot::METADATA, 5),
                (slot::ETH_TYPE, 0x86DD),
            ] {
                key.set(slot, value);
            }
            key
        };
        let pattern = |key: &Key| {
            let mut mask = Key::default();
            for slot in [slot::IPV6_SRC, slot::TP_DST, slot::METADATA, slot::ETH_TYPE] {
                mask.set(slot, slot.ones());
            }
            Pattern::new(key, &mask)
        };
        let mut probes = Probe::all(&pattern(&key(0, 0)));
        assert!(!Sieve::new(&probes).passes(&key(1, 80)));
        for source in 1..5 {
            probes.iter_mut().for_each(|probe| probe.add(&key(source, 80)));
        }
        let sieve = Sieve::new(&probes);
        assert!((1..5).all(|source| sieve.passes(&key(source, 80))));
        let others = (100..1100).filter(|source| sieve.passes(&key(*source, 80))).count();
        assert!(others < 150, "{others} of 1000");
        // Words of which rules have many values are no help.
        for source in 0..1000 {
            probes.iter_mut().for_each(|probe| probe.add(&key(source, 80)));
        }
        let sieve = Sieve::new(&probes);
        assert!(sieve.passes(&key(5000, 80)) && !sieve.passes(&Key::default()));
    }
}
