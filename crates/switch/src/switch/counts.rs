//! What goes through a port without queues of a device, worker by worker.

use std::sync::{Arc, Mutex, PoisonError};

use ethdev::{PortStats, QueueStats};

/// What one worker counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) rx: Arc<QueueStats>,
    pub(super) tx: Arc<QueueStats>,
}

/// The counters of each worker that there ever was.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Vec<Counters>>);

impl Counts {
    /// The counters of worker `index`.
    pub(super) fn of_worker(&self, index: usize) -> Counters {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while workers.len() <= index {
            workers.push(Counters::default());
        }
        workers.get(index).cloned().unwrap_or_default()
    }

    /// What has gone through, all workers together.
    pub(super) fn stats(&self) -> PortStats {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |stats: fn(&Counters) -> &Arc<QueueStats>| {
            vec![workers.iter().map(|worker| stats(worker).snapshot()).sum()]
        };
        PortStats { rx: sum(|worker| &worker.rx), tx: sum(|worker| &worker.tx) }
    }
}
