//! A transmit queue that several workers use in turns.

use std::fmt;
use std::hint;
use std::sync::Arc;
use std::thread;

use arrayvec::ArrayVec;
use eal::Handover;
use packet::{BURST, Burst, Frame, Packet, PoolCache};

use crate::drop_reason::DropReason;
use crate::queue::{CountedTx, TxQueue};
use crate::stats::QueueStats;

/// How often to look at a lock before giving the core to somebody else: about as long as a
/// burst takes. Past that, its holder has probably lost its core.
const SPINS: u32 = 1_000;

/// A transmit queue that several workers share, for ports with fewer queues than workers.
///
/// Clones are the same queue. Each worker makes a [`TxQueue`] of its clone ([`TxQueue::from`])
/// and does not see a difference.
///
/// The rule: one lock per call, taken for a whole burst and held while the driver transmits,
/// never while waiting for a peer. Bursts of different workers never mix, and each worker's
/// frames stay in order.
///
/// The cost: one atomic swap and one store per burst, some 20 cycles while nobody else has the
/// queue, and a cache miss for the lock and for what the driver keeps when it was last used by
/// another core, some 100 to 300 cycles per burst. A worker that finds it taken waits for the
/// other's burst. So give each worker a queue of its own where the port has enough of them.
pub struct SharedTxQueue {
    queue: Arc<Handover<CountedTx>>,
    stats: Arc<QueueStats>,
}

impl SharedTxQueue {
    /// Makes `queue` one that can be shared. A queue that is shared already stays the same.
    #[must_use]
    pub fn new(queue: TxQueue) -> Self {
        match queue.into_parts() {
            (Ok(queue), stats) => Self { queue: Arc::new(Handover::new(Some(queue))), stats },
            (Err(shared), _) => shared,
        }
    }

    /// The queue for one user alone again, without a lock; or itself while there are other clones.
    ///
    /// # Errors
    /// There are.
    pub fn into_alone(self) -> Result<TxQueue, Self> {
        let Self { queue, stats } = self;
        match Arc::try_unwrap(queue) {
            Ok(mut last) => match last.get_mut().take() {
                Some(queue) => Ok(TxQueue::from_alone(queue, stats)),
                // A slot is only ever emptied here.
                None => Err(Self { queue: Arc::new(last), stats }),
            },
            Err(queue) => Err(Self { queue, stats }),
        }
    }

    /// As [`TxQueue::tx_burst`].
    #[inline]
    pub fn tx_burst(&self, frames: &[Frame<'_>]) -> usize {
        self.tx_frames(Burst::new(frames))
    }

    /// As [`TxQueue::tx_frames`].
    #[inline]
    pub fn tx_frames(&self, frames: Burst<'_, '_>) -> usize {
        self.with(|queue| queue.tx_burst(frames)).unwrap_or_default()
    }

    /// As [`TxQueue::tx_packets`].
    pub fn tx_packets(
        &self,
        packets: &mut ArrayVec<Packet, BURST>,
        cache: &mut PoolCache,
    ) -> usize {
        self.with(|queue| queue.tx_packets(packets, cache)).unwrap_or_default()
    }

    /// As [`TxQueue::keeps_packets`].
    #[must_use]
    pub fn keeps_packets(&self) -> bool {
        self.with(|queue| queue.keeps_packets()).unwrap_or_default()
    }

    /// As [`TxQueue::drop_frames`].
    pub fn drop_frames(&self, reason: DropReason, count: usize) {
        self.with(|queue| queue.drop_frames(reason, count));
    }

    /// As [`TxQueue::is_ready`].
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with(|queue| queue.is_ready()).unwrap_or_default()
    }

    /// As [`TxQueue::flush`].
    pub fn flush(&self) -> bool {
        self.with(CountedTx::flush).unwrap_or_default()
    }

    /// The counters of this queue: one set, however many share it.
    #[must_use]
    pub const fn stats(&self) -> &Arc<QueueStats> {
        &self.stats
    }

    #[inline]
    fn with<T>(&self, act: impl FnOnce(&mut CountedTx) -> T) -> Option<T> {
        let mut spins = 0;
        loop {
            if let Some(mut guard) = self.queue.try_lock() {
                return guard.as_mut().map(act);
            }
            if spins < SPINS {
                spins += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// A transmit queue for each of `users`, who may be receive queues or workers: one of its own
/// where there are enough, otherwise a share of one, in turns. Those beyond that are dropped;
/// where there is no queue at all, there is none for anybody.
#[must_use]
pub fn share_out(queues: Vec<TxQueue>, users: usize) -> Vec<TxQueue> {
    if queues.len() >= users {
        return queues.into_iter().take(users).collect();
    }
    let shared: Vec<SharedTxQueue> = queues.into_iter().map(SharedTxQueue::new).collect();
    shared.iter().cycle().take(users).cloned().map(TxQueue::from).collect()
}

impl Clone for SharedTxQueue {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), stats: Arc::clone(&self.stats) }
    }
}

impl From<SharedTxQueue> for TxQueue {
    fn from(shared: SharedTxQueue) -> Self {
        let stats = Arc::clone(&shared.stats);
        Self::from_shared(shared, stats)
    }
}

impl fmt::Debug for SharedTxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTxQueue").field("stats", &self.stats).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::queue::{Sent, TxDriver};

    /// Keeps the first byte of each frame; takes a few frames at a time.
    struct Record {
        log: Arc<Mutex<Vec<u8>>>,
        room: usize,
    }

    impl TxDriver for Record {
        fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
            let taken = frames.len().min(self.room);
            let mut log = self.log.lock().unwrap();
            log.extend(frames.iter().take(taken).map(|frame| frame.head()[0]));
            Sent::first(taken)
        }
    }

    #[test]
    fn bursts_of_several_workers_stay_whole_and_all_are_counted() {
        const BURSTS: u8 = 200;
        let log = Arc::new(Mutex::new(Vec::new()));
        let driver = Record { log: Arc::clone(&log), room: BURST };
        let queue = TxQueue::new(Box::new(driver), Arc::default());
        let shared = SharedTxQueue::new(queue);
        thread::scope(|scope| {
            for worker in 0..4_u8 {
                let mut queue = TxQueue::from(shared.clone());
                scope.spawn(move || {
                    for _ in 0..BURSTS {
                        let bytes = [worker; 60];
                        assert_eq!(queue.tx_burst(&[Frame::from_bytes(&bytes); BURST]), BURST);
                        queue.drop_frames(DropReason::RingFull, 1);
                        assert!(queue.is_ready());
                    }
                });
            }
        });
        let log = log.lock().unwrap();
        assert!(log.chunks(BURST).all(|burst| burst.iter().all(|worker| *worker == burst[0])));
        let stats = shared.stats().snapshot();
        assert_eq!(stats.packets, 4 * u64::from(BURSTS) * BURST as u64);
        assert_eq!(stats.bytes, stats.packets * 60);
        assert_eq!(stats.dropped(), 4 * u64::from(BURSTS));
    }

    #[test]
    fn every_user_gets_a_queue_and_shares_it_only_where_there_are_too_few() {
        let queues = |count| -> Vec<TxQueue> {
            let driver = || Record { log: Arc::default(), room: BURST };
            (0..count).map(|_| TxQueue::new(Box::new(driver()), Arc::default())).collect()
        };
        for (count, users, sent) in
            [(4, 2, vec![1, 1]), (2, 5, vec![3, 2, 3, 2, 3]), (0, 3, vec![])]
        {
            let mut shares = share_out(queues(count), users);
            for share in &mut shares {
                assert_eq!(share.tx_burst(&[Frame::from_bytes(&[7; 60])]), 1);
            }
            let counted: Vec<u64> =
                shares.iter().map(|share| share.stats().snapshot().packets).collect();
            assert_eq!(counted, sent, "{users} users of {count} queues");
        }
    }

    #[test]
    fn the_last_user_has_the_queue_alone_again() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let driver = Record { log: Arc::clone(&log), room: BURST };
        let shared = SharedTxQueue::new(TxQueue::new(Box::new(driver), Arc::default()));
        let mut other = TxQueue::from(shared.clone());
        let shared = shared.into_alone().unwrap_err();
        assert_eq!(other.tx_burst(&[Frame::from_bytes(&[1; 60])]), 1);
        // A value that still shares the queue is no more than a clone.
        other = other.alone_if_last();
        drop(shared);
        other = other.alone_if_last();
        assert!(other.is_alone());
        assert_eq!(other.tx_burst(&[Frame::from_bytes(&[2; 60])]), 1);
        other = other.alone_if_last();
        assert!(SharedTxQueue::new(other).into_alone().unwrap().is_ready());
        assert_eq!(*log.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn sharing_twice_is_sharing_once() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let driver = Record { log: Arc::clone(&log), room: 3 };
        let queue = TxQueue::new(Box::new(driver), Arc::default());
        let once = SharedTxQueue::new(queue);
        let twice = SharedTxQueue::new(once.clone().into());
        // More than a burst: what found no room is the caller's again.
        assert_eq!(twice.tx_burst(&[Frame::from_bytes(&[7; 60]); 40]), 3);
        assert_eq!(once.tx_burst(&[]), 0);
        assert_eq!(once.stats().snapshot().packets, 3);
        assert_eq!(*log.lock().unwrap(), [7; 3]);
    }
}
