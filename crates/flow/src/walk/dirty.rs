//! What was written to words of a packet, and not done to it yet.

use super::trace::bit;
use crate::key::PACKET_WORDS;

/// Which bits of which words were written. Mostly it is none.
#[derive(Clone, Debug)]
pub(super) struct Dirty {
    bits: [u64; PACKET_WORDS],
    /// The words of which any were, a bit for each.
    words: u64,
}

impl Dirty {
    /// Nothing yet.
    pub(super) const NONE: Self = Self { bits: [0; PACKET_WORDS], words: 0 };

    /// Bits of a word were written.
    pub(super) fn add(&mut self, word: usize, mask: u64) {
        let number = u8::try_from(word).unwrap_or(u8::MAX);
        if let Some(bits) = self.bits.get_mut(word).filter(|_| mask != 0) {
            *bits |= mask;
            self.words |= bit(number);
        }
    }

    /// The next word of which bits were written, which is taken to be done.
    pub(super) fn take(&mut self) -> Option<(u8, u64)> {
        let word = self.words.trailing_zeros();
        let bits = self.bits.get_mut(word as usize)?;
        self.words &= self.words.wrapping_sub(1);
        Some((u8::try_from(word).ok()?, std::mem::take(bits)))
    }

    /// Nothing was written to these words, by their numbers.
    pub(super) fn forget(&mut self, words: std::ops::Range<usize>) {
        for (number, bits) in (0_u8..).zip(&mut self.bits) {
            if words.contains(&number.into()) {
                *bits = 0;
                self.words &= !bit(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_taken_once_and_in_order() {
        let mut dirty = Dirty::NONE;
        let all = |dirty: &mut Dirty| std::iter::from_fn(|| dirty.take()).collect::<Vec<_>>();
        let writes = [(PACKET_WORDS - 1, 1), (3, 4), (3, 8), (5, 0), (7, 1), (PACKET_WORDS, 1)];
        writes.into_iter().for_each(|(word, mask)| dirty.add(word, mask));
        let last = u8::try_from(PACKET_WORDS - 1).unwrap();
        assert_eq!(all(&mut dirty), [(3, 12), (7, 1), (last, 1)]);
        assert_eq!(all(&mut dirty), []);
        (2..6).for_each(|word| dirty.add(word, 1));
        dirty.forget(3..5);
        dirty.add(4, 2);
        assert_eq!(all(&mut dirty), [(2, 1), (4, 2), (5, 1)]);
    }
}
