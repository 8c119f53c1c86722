//! What neighbours say to the switch itself, on its way from workers to control threads. It is bounded
//! in every way: a neighbour may send as much as it likes.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use packet::Frame;

/// The most frames that a worker takes within a period.
const MOST: u32 = 32;

/// Periods in a second.
const PERIODS: u64 = 10;

/// A frame that has come in, as far as `N` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard<const N: usize> {
    /// The number of the port.
    pub(crate) port: u16,
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Heard<N> {
    /// Its first bytes, which are all that count.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A worker's end. Putting something in never waits.
#[derive(Clone)]
pub(crate) struct Inlet<const N: usize> {
    queue: SyncSender<Heard<N>>,
    /// Has somebody look; it is quick.
    notify: Arc<dyn Fn() + Send + Sync>,
    /// When the present period began, in clock cycles, how long one is, and what was taken in it.
    since: u64,
    period: u64,
    taken: u32,
}

impl<const N: usize> fmt::Debug for Inlet<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl<const N: usize> Inlet<N> {
    /// A queue where `room` frames wait at most, and where it is read. The clock of the workers has
    /// `hz` cycles a second.
    pub(crate) fn new(
        room: usize,
        hz: u64,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> (Self, Receiver<Heard<N>>) {
        let (queue, heard) = sync_channel(room);
        let period = (hz / PERIODS).max(1);
        (Self { queue, notify: Arc::new(notify), since: 0, period, taken: 0 }, heard)
    }

    /// Takes a frame that came in on `port` at time `now`; returns whether there was room.
    #[cold]
    pub(crate) fn put(&mut self, port: u16, frame: &Frame<'_>, now: u64) -> bool {
        if now.wrapping_sub(self.since) >= self.period {
            (self.since, self.taken) = (now, 0);
        }
        if self.taken >= MOST {
            return false;
        }
        self.taken = self.taken.saturating_add(1);
        let mut bytes = [0; N];
        let len = frame.copy_to(&mut bytes);
        match self.queue.try_send(Heard { port, bytes, len }) {
            Ok(()) => {
                (self.notify)();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn a_flood_is_bounded_and_harms_nobody() {
        let calls = Arc::new(AtomicU32::new(0));
        let called = Arc::clone(&calls);
        let (mut inlet, heard) =
            Inlet::<124>::new(64, 1_000, move || _ = called.fetch_add(1, Relaxed));
        let bytes = [7; 1_000];
        let frame = Frame::from_bytes(&bytes);
        let mut put = |now| (0..1_000).filter(|_| inlet.put(3, &frame, now)).count();
        assert_eq!(put(100), 32, "in a period");
        assert_eq!(put(199), 0);
        assert_eq!(put(200), 32);
        assert_eq!(put(300), 0, "nobody reads");
        let all: Vec<_> = heard.try_iter().collect();
        assert_eq!((all.len(), calls.load(Relaxed)), (64, 64));
        assert_eq!((all[0].port, all[0].bytes()), (3, &bytes[..124]));
        drop(heard);
        assert_eq!((0..9).filter(|_| inlet.put(3, &frame, 900)).count(), 0);
    }
}
