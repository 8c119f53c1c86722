//! Entries by the words of a packet's key that its way depends on.

use super::PathId;
use super::index::Index;
use crate::key::Key;

/// Entries by some of the first `N` words of a key.
#[derive(Debug)]
pub(super) struct ByWords<const N: usize> {
    /// The words that count, each with its bits.
    words: Box<[(u8, u64)]>,
    pub(super) index: Index,
    /// The entry that was found last in this burst, and its values.
    last: Option<PathId>,
    values: [u64; N],
}

impl<const N: usize> ByWords<N> {
    /// Without entries, and of no words yet.
    pub(super) fn new() -> Self {
        Self { words: Box::default(), index: Index::new(0), last: None, values: [0; N] }
    }

    /// Has these bits count; returns whether they are others than before. Then all entries are gone.
    pub(super) fn look_at(&mut self, relevant: &Key) -> bool {
        let words = (0_u8..).zip(relevant.words().iter().copied()).take(N);
        let words: Box<[(u8, u64)]> = words.filter(|(_, bits)| *bits != 0).collect();
        let is_other = words != self.words;
        if is_other {
            self.index.begin_with(words.len());
            self.words = words;
        }
        is_other
    }

    /// Numbers of paths from before are good for nothing any more.
    #[inline]
    pub(super) const fn begin(&mut self) {
        self.last = None;
    }

    /// The path of a packet with this key, if there is an entry with one of which `judge` says that it, or
    /// another one, is good. If not, one can be [put](Self::put) in next.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        key: &Key,
        judge: impl FnMut(u32) -> Option<u32>,
    ) -> Option<PathId> {
        // Neighbours in a burst are mostly of one flow.
        let mut differs = self.last.is_none();
        for ((word, bits), last) in self.words.iter().zip(&mut self.values) {
            let value = key.word(usize::from(*word)) & bits;
            differs |= *last != value;
            *last = value;
        }
        if let (false, Some(id)) = (differs, self.last) {
            return Some(id);
        }
        let values = self.values.get(..self.words.len()).unwrap_or_default();
        let hash = self.index.hash(values);
        self.last = self.index.find(hash, values, judge).map(PathId);
        self.last
    }

    /// Adds the entry that was missing just now; it may take the place of one whose path is not there.
    pub(super) fn put(&mut self, id: u32, is_there: impl Fn(u32) -> bool) {
        let values = self.values.get(..self.words.len()).unwrap_or_default();
        self.index.put(values, id, is_there);
        self.last = Some(PathId(id));
    }
}
