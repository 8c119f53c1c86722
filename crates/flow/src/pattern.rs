//! What a rule asks of a key: words, each with a mask and a value.

use std::sync::Arc;

use crate::key::{Key, slot};

/// The words of a key that are looked at, each with its bits; only those where there are any, in
/// order. Rules with the same mask share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mask(Box<[(u8, u64)]>);

impl Mask {
    /// The bits that are set in `key`.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        let words = (0_u8..).zip(key.words().iter().copied());
        Self(words.filter(|(_, word)| *word != 0).collect())
    }

    /// Its words: number and bits.
    #[must_use]
    #[inline]
    pub const fn words(&self) -> &[(u8, u64)] {
        &self.0
    }

    /// Its bits of one word.
    #[inline]
    pub(crate) fn word(&self, at: u8) -> u64 {
        self.0.iter().find(|(own, _)| *own == at).map_or(0, |(_, bits)| *bits)
    }

    /// The same as a key.
    #[must_use]
    pub fn to_key(&self) -> Key {
        let mut key = Key::default();
        for (at, bits) in &self.0 {
            if let Some(word) = key.0.get_mut(usize::from(*at)) {
                *word = *bits;
            }
        }
        key
    }

    /// The hash of what it leaves of `key`.
    #[inline]
    pub(crate) fn hash(&self, key: &Key, seed: u64) -> u64 {
        let mut hash = seed;
        for (at, bits) in &self.0 {
            hash = mix(hash, key.word(usize::from(*at)) & bits);
        }
        finish(hash)
    }

    /// Whether it looks at all bits that `other` looks at.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut mine = self.0.iter();
        let covered = |(at, bits): &(u8, u64)| {
            mine.find(|(own, _)| own >= at)
                .is_some_and(|(own, more)| own == at && more & bits == *bits)
        };
        other.0.iter().all(covered)
    }
}

/// Adds a word to a hash. It is keyed by where it starts, so that nobody outside can tell which values
/// collide.
#[inline]
pub(crate) const fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The end of a hash.
#[inline]
pub(crate) const fn finish(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    hash ^ hash >> 29
}

/// Which packets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    mask: Arc<Mask>,
    /// As many as the mask has words.
    values: Box<[u64]>,
    /// Only those that begin with a header of Ethernet. Nearly all rules ask for that and nearly all packets do so:
    /// were it in the masks, every look-up would have a word more to look at.
    is_ethernet: bool,
}

impl Default for Pattern {
    /// All packets.
    fn default() -> Self {
        Self::new(&Key::default(), &Key::default())
    }
}

impl Pattern {
    /// Packets of which the bits in `mask` are those of `key`.
    #[must_use]
    pub fn new(key: &Key, mask: &Key) -> Self {
        let mask = Mask::new(mask);
        let values = mask.0.iter().map(|(at, bits)| key.word(usize::from(*at)) & bits).collect();
        Self { mask: Arc::new(mask), values, is_ethernet: false }
    }

    /// Those of these alone that begin with a header of Ethernet.
    #[must_use]
    pub const fn with_ethernet(mut self) -> Self {
        self.is_ethernet = true;
        self
    }

    /// Whether it asks for a header of Ethernet, beside the bits that it looks at.
    #[must_use]
    #[inline]
    pub const fn is_ethernet(&self) -> bool {
        self.is_ethernet
    }

    /// Whether it is all packets.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.mask.0.is_empty() && !self.is_ethernet
    }

    /// Whether a packet begins with what it asks for, if that is Ethernet.
    #[inline]
    pub(crate) fn takes_type(&self, key: &Key) -> bool {
        !self.is_ethernet || key.is_ethernet()
    }

    /// All bits that it asks for.
    #[must_use]
    pub fn bits(&self) -> Key {
        let mut bits = self.mask.to_key();
        if self.is_ethernet {
            bits.set(slot::PACKET_TYPE, slot::PACKET_TYPE.ones());
        }
        bits
    }

    /// The bits that are looked at.
    #[must_use]
    pub const fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// What they are, word by word.
    pub(crate) const fn values(&self) -> &[u64] {
        &self.values
    }

    /// The same as a key, of which all other bits are zero.
    #[must_use]
    pub fn to_key(&self) -> Key {
        let mut key = Key::default();
        for ((at, _), value) in self.mask.0.iter().zip(&self.values) {
            if let Some(word) = key.0.get_mut(usize::from(*at)) {
                *word = *value;
            }
        }
        key
    }

    /// Whether a packet is one of them.
    #[must_use]
    #[inline]
    pub fn matches(&self, key: &Key) -> bool {
        self.fits(key) && self.takes_type(key)
    }

    /// Whether a packet that begins with Ethernet is one of them.
    #[inline]
    pub(crate) fn fits(&self, key: &Key) -> bool {
        let mut words = self.mask.0.iter().zip(&self.values);
        words.all(|((at, bits), value)| key.word(usize::from(*at)) & bits == *value)
    }

    /// What it asks of a word, and of which bits.
    #[inline]
    pub(crate) fn word(&self, at: u8) -> (u64, u64) {
        let mut words = self.mask.0.iter().zip(&self.values);
        let found = words.find(|((own, _), _)| *own == at);
        found.map_or((0, 0), |((_, bits), value)| (*value, *bits))
    }

    /// Whether a packet is as it asks in those bits that are in `within`, and begins as it asks.
    #[must_use]
    pub fn agrees(&self, key: &Key, within: &Key) -> bool {
        let mut words = self.mask.0.iter().zip(&self.values);
        words.all(|((at, bits), value)| {
            let at = usize::from(*at);
            (key.word(at) ^ value) & bits & within.word(at) == 0
        }) && self.takes_type(key)
    }

    /// Whether each of its packets is one of `other`'s.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        (self.is_ethernet || !other.is_ethernet)
            && self.mask.covers(&other.mask)
            && other.matches(&self.to_key())
    }

    /// Whether a packet can be one of both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.to_key(), other.to_key());
        let (my_mask, their_mask) = (self.bits(), other.bits());
        let keys = mine.0.iter().zip(&theirs.0);
        let masks = my_mask.0.iter().zip(&their_mask.0);
        keys.zip(masks).all(|((mine, theirs), (a, b))| (mine ^ theirs) & a & b == 0)
    }
}
