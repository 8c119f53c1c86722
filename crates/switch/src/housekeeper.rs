//! What happens once a second, on a thread of its own: time goes on, entries expire.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::fdb::Fdb;

const TICK: Duration = Duration::from_secs(1);

/// The share of the ageing time in which all entries are looked at once.
const SHARE: u32 = 8;

/// The most seconds between two looks at an entry.
const LONGEST: u32 = 30;

/// Keeps the time of a forwarding database and removes what has expired, a piece per second.
#[derive(Debug)]
pub(crate) struct Ager {
    fdb: Arc<Fdb>,
    /// The bucket to go on with, and how many to do per second.
    next: usize,
    step: usize,
    second: u32,
}

impl Ager {
    /// Ages `fdb`, whose entries live for `ageing` seconds.
    pub(crate) fn new(fdb: Arc<Fdb>, ageing: u32) -> Self {
        let rounds = (ageing / SHARE).clamp(1, LONGEST) as usize;
        let step = fdb.buckets().div_ceil(rounds);
        Self { second: fdb.now(), fdb, next: 0, step }
    }

    /// It is `elapsed` since the start.
    pub(crate) fn tick(&mut self, elapsed: Duration) {
        let now = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        if now > self.second {
            self.second = now;
            self.fdb.set_now(now);
            self.next = self.fdb.expire(self.next, self.step);
        }
    }
}

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    /// Starts the thread, which calls `work` with the time since its start, once a second.
    pub(crate) fn start(mut work: impl FnMut(Duration) + Send + 'static) -> Result<Self, Error> {
        let (stop, stopped) = mpsc::channel::<()>();
        let start = Instant::now();
        let thread = Builder::new()
            .name("switch-time".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    work(start.elapsed());
                }
            })
            .map_err(|source| Error::System { action: "start a thread", source })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that ages the forwarding database has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fdb::Key;

    #[test]
    fn every_entry_expires_within_an_eighth_of_its_time() {
        let fdb = Arc::new(Fdb::new(1_000, 1, 80));
        for mac in 1..=1_000 {
            let key = Key::from_bits(0, mac);
            fdb.write().learn(key, fdb.hash(key), 0);
        }
        let mut ager = Ager::new(Arc::clone(&fdb), 80);
        for second in 0..=80 {
            ager.tick(Duration::from_secs(second));
            // A second time in the same second changes nothing.
            ager.tick(Duration::from_millis(second * 1_000 + 500));
        }
        assert_eq!((fdb.len(), fdb.now()), (1_000, 81));
        for second in 81..=90 {
            ager.tick(Duration::from_secs(second));
        }
        assert_eq!((fdb.len(), fdb.report().expired), (0, 1_000));
    }
}
