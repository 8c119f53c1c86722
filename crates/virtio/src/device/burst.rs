//! The buffers that one burst takes from a ring.

use packet::Segment;

/// Buffers in one burst: twice the frames of a burst, so that jumbo frames over mergeable
/// buffers need few rounds.
pub const MAX_BUFFERS: usize = 64;

/// A chain of descriptors that the driver has made available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Number of its first descriptor.
    pub head: u16,
    /// By which the driver knows it when it comes back.
    pub id: u16,
    /// Entries of the ring that it takes: 1 in a split ring, where chains lie in the table.
    pub slots: u16,
}

/// Chains taken from the available ring, in order, with their heads resolved.
#[derive(Debug)]
pub struct Buffers {
    chains: [Chain; MAX_BUFFERS],
    /// The chain's memory where it is one ordinary descriptor, which nearly all are; `None`
    /// where the chain must be walked.
    single: [Option<Segment>; MAX_BUFFERS],
    len: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { chains: [Chain::default(); MAX_BUFFERS], single: [None; MAX_BUFFERS], len: 0 }
    }
}

impl Buffers {
    /// The chains, each with its memory where that is a single descriptor.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Chain, Option<Segment>)> + '_ {
        let singles = self.single.get(..self.len).unwrap_or_default();
        self.chains().iter().zip(singles).map(|(chain, single)| (*chain, *single))
    }

    /// Chain `index`, as in [`iter`](Self::iter).
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<(Chain, Option<Segment>)> {
        if index >= self.len {
            return None;
        }
        Some((*self.chains.get(index)?, *self.single.get(index)?))
    }

    /// The chains.
    #[must_use]
    #[inline]
    pub fn chains(&self) -> &[Chain] {
        self.chains.get(..self.len).unwrap_or_default()
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
    ) -> impl Iterator<Item = (&mut Chain, &mut Option<Segment>)> {
        self.len = count.min(MAX_BUFFERS);
        let chains = self.chains.get_mut(..self.len).unwrap_or_default();
        let singles = self.single.get_mut(..self.len).unwrap_or_default();
        chains.iter_mut().zip(singles)
    }

    /// Adds a chain, if there is room.
    #[inline]
    pub(super) fn push(&mut self, chain: Chain, single: Option<Segment>) {
        let places = (self.chains.get_mut(self.len), self.single.get_mut(self.len));
        if let (Some(place_chain), Some(place_single)) = places {
            (*place_chain, *place_single) = (chain, single);
            self.len += 1;
        }
    }
}
