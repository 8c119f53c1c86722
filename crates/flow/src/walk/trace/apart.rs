//! In which words a packet is something else than it was on the way before, where it was looked up last.

use arrayvec::ArrayVec;

use crate::key::{Key, slot};

/// Words that are compared, at most.
const MAX_WORDS: usize = 16;

/// What a word was, and is.
#[derive(Clone, Copy, Debug)]
struct Word {
    word: u8,
    was: u64,
    is: u64,
}

/// The words in which it is, or was, something else than it came in as.
#[derive(Debug, Default)]
pub(in super::super) struct Apart {
    words: ArrayVec<Word, MAX_WORDS>,
    /// Those that are not what they were, with the bits.
    differing: ArrayVec<(u8, u64), MAX_WORDS>,
    /// It begins with something else, which rules tell beside their masks.
    begins_otherwise: bool,
    /// There are too many.
    is_lost: bool,
}

impl Apart {
    /// It is what it was.
    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.differing.clear();
        (self.begins_otherwise, self.is_lost) = (false, false);
    }

    /// A word was this, of a packet that came in as `own`.
    pub(super) fn was(&mut self, own: &Key, word: u8, value: u64) {
        if let Some(word) = self.word(own, word) {
            word.was = value;
        }
    }

    /// A word is this.
    pub(super) fn is(&mut self, own: &Key, word: u8, value: u64) {
        if let Some(word) = self.word(own, word) {
            word.is = value;
        }
    }

    fn word(&mut self, own: &Key, word: u8) -> Option<&mut Word> {
        let at = self.words.iter().position(|known| known.word == word);
        let at = at.unwrap_or(self.words.len());
        if at == self.words.len() {
            let value = own.word(word.into());
            self.is_lost |= self.words.try_push(Word { word, was: value, is: value }).is_err();
        }
        self.words.get_mut(at)
    }

    /// Finds out what differs; or that this cannot be told, which is so from then on.
    pub(super) fn compare(&mut self, is_lost: bool) {
        self.is_lost |= is_lost;
        let all = self.words.iter().map(|Word { word, was, is }| (*word, was ^ is));
        self.differing = all.filter(|(_, bits)| *bits != 0).collect();
        let mut types = Key::default();
        types.set(slot::PACKET_TYPE, slot::PACKET_TYPE.ones());
        self.begins_otherwise = self.differs_in(&types);
    }

    /// Whether whoever looks at these bits may tell what it is from what it was.
    #[inline]
    pub(in super::super) fn may_be_told_by(&self, mask: &Key) -> bool {
        self.is_lost || self.begins_otherwise || self.differs_in(mask)
    }

    #[inline]
    fn differs_in(&self, bits: &Key) -> bool {
        self.differing.iter().any(|(word, own)| bits.word((*word).into()) & own != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_by_those_who_see_it() {
        let (mut own, mut mask) = (Key::default(), Key::default());
        own.0[3] = 5;
        mask.0[3] = 2;
        let mut apart = Apart::default();
        let told = |apart: &mut Apart| {
            apart.compare(false);
            apart.may_be_told_by(&mask)
        };
        apart.is(&own, 3, 4);
        assert!(!told(&mut apart), "another bit");
        apart.is(&own, 3, 7);
        assert!(told(&mut apart));
        apart.was(&own, 3, 6);
        assert!(!told(&mut apart), "both have it");
        apart.was(&own, 2, 6);
        assert!(!told(&mut apart), "another word");
        // Rules that are for packets of Ethernet do not say so in their masks.
        let (begin, _) = slot::PACKET_TYPE.spread(0).next().unwrap();
        apart.is(&own, u8::try_from(begin).unwrap(), 0x1_0800);
        assert!(told(&mut apart), "what it begins with");
        apart.is(&own, u8::try_from(begin).unwrap(), 0);
        assert!(!told(&mut apart));
        (4..20).for_each(|word| apart.is(&own, word, 0));
        assert!(told(&mut apart), "there are too many");
        apart.clear();
        assert!(!told(&mut apart));
    }
}
