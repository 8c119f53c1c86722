//! A worker's share of a port's transmit queues.

use std::ops::Range;

use packet::{Frame, flow};

/// The queues that a worker uses: of those that are ready, the ones with its own number, counted
/// around by the number of workers. So workers have queues of their own where there are enough of
/// them, and several where there are more; then flows are spread over those.
#[derive(Debug)]
pub(crate) struct Share {
    worker: usize,
    workers: usize,
    /// Whether flows are spread. Where the other side polls the queues itself, as a network card,
    /// it is of no use.
    spreads: bool,
    mine: Vec<usize>,
    /// For each of `mine` the frames of a burst: room that is used again.
    masks: Vec<u32>,
}

impl Share {
    /// The share of `worker`, one of `workers`, in at most `queues` queues, none of which is known to
    /// be ready yet.
    pub(crate) fn new(worker: usize, workers: usize, queues: usize, spreads: bool) -> Self {
        let masks = Vec::with_capacity(queues);
        Self { worker, workers: workers.max(1), spreads, mine: Vec::new(), masks }
    }

    /// The worker's number.
    pub(crate) const fn worker(&self) -> usize {
        self.worker
    }

    /// The first queue, if any was ready when last looked at.
    #[inline]
    pub(crate) fn first(&self) -> Option<usize> {
        self.mine.first().copied()
    }

    /// Whether there is more than one queue.
    #[inline]
    pub(crate) const fn is_spread(&self) -> bool {
        self.mine.len() > 1
    }

    /// Places in the share, for [`queue`](Self::queue).
    pub(crate) const fn places(&self) -> Range<usize> {
        0..self.mine.len()
    }

    /// The queue in `place`.
    pub(crate) fn queue(&self, place: usize) -> Option<usize> {
        self.mine.get(place).copied()
    }

    /// Whether the share in the `ready` queues is another than so far.
    pub(crate) fn differs(&self, ready: impl Iterator<Item = usize> + Clone) -> bool {
        !self.share_of(ready).eq(self.mine.iter().copied())
    }

    /// Takes the share in the `ready` queues.
    pub(crate) fn choose(&mut self, ready: impl Iterator<Item = usize> + Clone) {
        self.mine = self.share_of(ready).collect();
    }

    fn share_of(&self, ready: impl Iterator<Item = usize> + Clone) -> impl Iterator<Item = usize> {
        let step = self.workers.min(ready.clone().count()).max(1);
        let most = if self.spreads { usize::MAX } else { 1 };
        ready.skip(self.worker % step).step_by(step).take(most)
    }

    /// Divides the frames in `mask` among the queues, by flow; see [`part`](Self::part).
    pub(crate) fn divide(&mut self, frames: &[Frame<'_>], mask: u32) {
        let count = self.mine.len().max(1);
        self.masks.clear();
        self.masks.resize(count, 0);
        for (index, frame) in frames.iter().enumerate().take(u32::BITS as usize) {
            let bit = 1_u32 << index;
            if mask & bit != 0
                && let Some(part) = self.masks.get_mut(flow::hash(frame.head()) as usize % count)
            {
                *part |= bit;
            }
        }
    }

    /// The frames of the queue in `place`, after [`divide`](Self::divide).
    pub(crate) fn part(&self, place: usize) -> u32 {
        self.masks.get(place).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(workers: usize, ready: &[usize], spreads: bool) -> Vec<Vec<usize>> {
        let share = |worker| {
            let mut share = Share::new(worker, workers, 8, spreads);
            assert_eq!(share.differs(ready.iter().copied()), !ready.is_empty());
            share.choose(ready.iter().copied());
            assert!(!share.differs(ready.iter().copied()));
            share.mine
        };
        (0..workers).map(share).collect()
    }

    #[test]
    fn workers_share_queues_out() {
        assert_eq!(shares(2, &[0, 1], true), [[0], [1]]);
        assert_eq!(shares(1, &[0, 1, 2, 3], true), [[0, 1, 2, 3]]);
        assert_eq!(shares(2, &[0, 1, 2, 3, 5], true), [vec![0, 2, 5], vec![1, 3]]);
        assert_eq!(shares(4, &[0, 2], true), [[0], [2], [0], [2]]);
        assert_eq!(shares(3, &[4], true), [[4], [4], [4]]);
        assert_eq!(shares(2, &[], true), [[0; 0], [0; 0]]);
        assert_eq!(shares(2, &[0, 1, 2, 3], false), [[0], [1]]);
    }

    #[test]
    fn the_parts_of_a_burst_are_whole_flows() {
        let mut share = Share::new(0, 1, 4, true);
        share.choose(0..4);
        let bytes: Vec<_> = (0..32_u8).map(|i| [i % 8; 60]).collect();
        let frames: Vec<_> = bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
        share.divide(&frames, 0x0FFF_FFFF);
        let parts: Vec<u32> = share.places().map(|place| share.part(place)).collect();
        assert_eq!(parts.iter().fold(0, |all, part| all | part), 0x0FFF_FFFF);
        assert_eq!(parts.iter().map(|part| part.count_ones()).sum::<u32>(), 28);
        assert!(parts.iter().filter(|part| **part != 0).count() > 1, "{parts:x?}");
        for flow in 0..8 {
            let all = 0x0101_0101_u32 << flow & 0x0FFF_FFFF;
            assert!(parts.iter().any(|part| part & all == all), "{flow}: {parts:x?}");
        }
    }
}
