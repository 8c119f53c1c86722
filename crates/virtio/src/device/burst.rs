//! The buffers that one burst takes from a ring.

use packet::Segment;

/// Buffers in one burst: twice the frames of a burst, so that jumbo frames over mergeable
/// buffers need few rounds.
pub const MAX_BUFFERS: usize = 64;

/// Chains taken from the available ring, in order, with their heads resolved.
#[derive(Debug)]
pub struct Buffers {
    heads: [u16; MAX_BUFFERS],
    /// The chain's memory where it is one ordinary descriptor, which nearly all are; `None`
    /// where the chain must be walked.
    single: [Option<Segment>; MAX_BUFFERS],
    len: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { heads: [0; MAX_BUFFERS], single: [None; MAX_BUFFERS], len: 0 }
    }
}

impl Buffers {
    /// The chains, each by its head and its memory where that is a single descriptor.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u16, Option<Segment>)> + '_ {
        let singles = self.single.get(..self.len).unwrap_or_default();
        self.heads().iter().zip(singles).map(|(head, single)| (*head, *single))
    }

    /// Chain `index`, as in [`iter`](Self::iter).
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<(u16, Option<Segment>)> {
        if index >= self.len {
            return None;
        }
        Some((*self.heads.get(index)?, *self.single.get(index)?))
    }

    /// The heads of the chains.
    #[must_use]
    #[inline]
    pub fn heads(&self) -> &[u16] {
        self.heads.get(..self.len).unwrap_or_default()
    }

    /// Forgets all chains.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `count` other chains (at most [`MAX_BUFFERS`]), which the caller fills in.
    #[inline]
    pub(super) fn refill(
        &mut self,
        count: usize,
    ) -> impl Iterator<Item = (&mut u16, &mut Option<Segment>)> {
        self.len = count.min(MAX_BUFFERS);
        let heads = self.heads.get_mut(..self.len).unwrap_or_default();
        let singles = self.single.get_mut(..self.len).unwrap_or_default();
        heads.iter_mut().zip(singles)
    }
}
