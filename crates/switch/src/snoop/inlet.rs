//! What hosts and routers say of groups, on its way from workers to control threads. It is bounded
//! in every way: a guest may send as much as it likes, and costs others nothing.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use packet::Frame;

use crate::config::MAX_PORTS;

/// The most frames that wait.
const ROOM: usize = 128;

/// The most frames that a worker takes from a port within a period.
const MOST: u8 = 32;

/// Periods in a second.
const PERIODS: u64 = 10;

/// Bytes of a frame that are looked at: a message of IGMP or MLD fits into the MTU of the link
/// (RFC 3376, section 4.2.16), and of one on a link of larger frames the first groups count.
const LONGEST: usize = 1_536;

/// A frame that has come in.
#[derive(Clone, Copy)]
pub(crate) struct Heard {
    /// The port and the VLAN where it came in.
    pub(crate) port: u16,
    pub(crate) vlan: u16,
    /// Whether its checksum can be looked at: all of it is here, and nobody else is to write it.
    pub(crate) is_whole: bool,
    len: usize,
    bytes: [u8; LONGEST],
}

impl Heard {
    /// Its first bytes, from the Ethernet header on.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A worker's end. Putting something in never waits.
#[derive(Clone)]
pub(crate) struct Inlet {
    queue: SyncSender<Heard>,
    /// Has somebody look; it is quick.
    notify: Arc<dyn Fn() + Send + Sync>,
    /// When the present period began, in clock cycles, how long one is, and what was taken of each
    /// port in it.
    since: Cell<u64>,
    period: u64,
    taken: Box<[Cell<u8>]>,
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Inlet {
    /// A queue, and where it is read. The clock of the workers has `hz` cycles a second.
    pub(crate) fn new(
        hz: u64,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> (Self, Receiver<Heard>) {
        let (queue, heard) = sync_channel(ROOM);
        let taken = vec![Cell::new(0); MAX_PORTS].into_boxed_slice();
        let (since, period) = (Cell::new(0), (hz / PERIODS).max(1));
        (Self { queue, notify: Arc::new(notify), since, period, taken }, heard)
    }

    /// Takes a frame that came in on `port` in `vlan` at time `now`; returns whether there was room.
    #[cold]
    pub(crate) fn put(&self, (port, vlan): (u16, u16), frame: &Frame<'_>, now: u64) -> bool {
        if now.wrapping_sub(self.since.get()) >= self.period {
            self.since.set(now);
            self.taken.iter().for_each(|taken| taken.set(0));
        }
        let Some(taken) = self.taken.get(usize::from(port)) else { return false };
        if taken.get() >= MOST {
            return false;
        }
        taken.set(taken.get().saturating_add(1));
        let mut bytes = [0; LONGEST];
        let len = frame.copy_to(&mut bytes);
        let is_whole = len == frame.len() && frame.offload().csum().is_none();
        match self.queue.try_send(Heard { port, vlan, is_whole, len, bytes }) {
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
    fn a_flood_is_bounded_and_harms_no_other_port() {
        let calls = Arc::new(AtomicU32::new(0));
        let called = Arc::clone(&calls);
        let (inlet, heard) = Inlet::new(1_000, move || _ = called.fetch_add(1, Relaxed));
        let bytes = [7; 2_000];
        let frame = Frame::from_bytes(&bytes);
        let put = |port, now| (0..1_000).filter(|_| inlet.put((port, 5), &frame, now)).count();
        assert_eq!((put(3, 100), put(3, 199), put(4, 199)), (32, 0, 32), "in a period");
        assert_eq!((put(3, 200), put(4, 300), put(4, 400)), (32, 32, 0), "nobody reads");
        let all: Vec<Heard> = heard.try_iter().collect();
        assert_eq!((all.len(), calls.load(Relaxed)), (128, 128));
        let first = all[0];
        assert_eq!((first.port, first.vlan, first.is_whole), (3, 5, false));
        assert_eq!(first.bytes(), &bytes[..LONGEST]);
        assert_eq!(put(1024, 500), 0, "there is no such port");
        drop(heard);
        assert_eq!(put(5, 900), 0);
    }
}
