//! What neighbours, hosts and routers say to the switch itself, on its way from workers to control
//! threads. It is bounded in every way: they may send as much as they like, and cost others nothing.
//!
//! A frame that is taken is copied into memory of its own, of its size, and control threads are woken: the one
//! place where a worker allocates, and may wait for a lock that is held for a moment, because of a frame. It is
//! for 32 frames in a tenth of a second at most, in all or of a port, or for as many as an operator has asked a
//! neighbour for.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use eal::clock;
use eal::time::Time;
use packet::Frame;

use crate::port_set::MAX_PORTS;

/// The most frames that a worker takes within a period, where nobody has asked for more.
pub const MOST: u8 = 32;

/// Periods in a second.
pub const PERIODS: u32 = 10;

/// A frame that has come in, as far as it is taken.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The number of the port.
    pub port: u16,
    /// The VLAN, where that is known.
    pub vlan: u16,
    /// Whether its checksum can be looked at: all of it is here, and nobody else is to write it.
    pub is_whole: bool,
    bytes: Vec<u8>,
}

impl Heard {
    /// Its first bytes, from the Ethernet header on, which are all that count.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// By what it is counted how much comes in: by periods of the workers' clock, and anew whenever that of
/// control threads is moved, since all that is due by then comes at once.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How long a period is, in cycles.
    period: u64,
    /// How often the clock was moved.
    moves: Arc<AtomicU64>,
}

impl Pace {
    /// That of a switch with this clock.
    pub fn new(time: &Time) -> Self {
        let pace = Self::of(clock::hz());
        let moves = Arc::downgrade(&pace.moves);
        time.on_change(move || {
            let moves = moves.upgrade();
            moves.is_some_and(|moves| {
                moves.fetch_add(1, Ordering::Relaxed);
                true
            })
        });
        pace
    }

    /// That of a clock that has `hz` cycles a second, and is never moved.
    pub(crate) fn of(hz: u64) -> Self {
        Self { period: (hz / u64::from(PERIODS)).max(1), moves: Arc::default() }
    }
}

/// A worker's end. Putting something in never waits.
#[derive(Clone)]
pub struct Inlet {
    queue: SyncSender<Heard>,
    /// The most bytes of a frame that are taken. They are no part of the type, for which there would be a
    /// queue of its own.
    len: usize,
    /// The most frames that are taken within a period.
    most: u8,
    /// Has somebody look; it is quick.
    notify: Arc<dyn Fn() + Send + Sync>,
    /// When the present period began, in clock cycles, how often the other clock was moved by then, and
    /// what was taken in it: of each port, or of all together.
    since: Cell<u64>,
    moves: Cell<u64>,
    pace: Pace,
    taken: Box<[Cell<u8>]>,
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inlet").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Inlet {
    /// A queue where `room` frames wait at most, as far as their first `len` bytes, and where it is read; what
    /// may come in within a period is for all ports together.
    pub fn new(
        len: usize,
        room: usize,
        pace: &Pace,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> (Self, Receiver<Heard>) {
        Self::with_limits(1, len, room, pace, notify)
    }

    /// The same, where it is for each port.
    pub fn by_port(
        len: usize,
        room: usize,
        pace: &Pace,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> (Self, Receiver<Heard>) {
        Self::with_limits(MAX_PORTS, len, room, pace, notify)
    }

    fn with_limits(
        limits: usize,
        len: usize,
        room: usize,
        pace: &Pace,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> (Self, Receiver<Heard>) {
        let (queue, heard) = sync_channel(room);
        let taken = vec![Cell::new(0); limits].into_boxed_slice();
        let (since, moves, pace) = (Cell::new(0), Cell::new(0), pace.clone());
        let notify = Arc::new(notify);
        (Self { queue, len, most: MOST, notify, since, moves, pace, taken }, heard)
    }

    /// The same, which takes up to so many frames within a period.
    #[must_use]
    pub fn taking(self, most: u8) -> Self {
        Self { most, ..self }
    }

    /// Takes a frame that came in on `port` in `vlan` at time `now`; returns whether there was room.
    #[cold]
    pub fn put(&self, (port, vlan): (u16, u16), frame: &Frame<'_>, now: u64) -> bool {
        let moves = self.pace.moves.load(Ordering::Relaxed);
        if now.wrapping_sub(self.since.get()) >= self.pace.period || moves != self.moves.get() {
            self.since.set(now);
            self.moves.set(moves);
            self.taken.iter().for_each(|taken| taken.set(0));
        }
        let taken = match &*self.taken {
            [all] => Some(all),
            each => each.get(usize::from(port)),
        };
        let Some(taken) = taken.filter(|taken| taken.get() < self.most) else { return false };
        taken.set(taken.get().saturating_add(1));
        let mut bytes = vec![0; frame.len().min(self.len)];
        let len = frame.copy_to(&mut bytes);
        bytes.truncate(len);
        let is_whole = len == frame.len() && frame.offload().csum().is_none();
        match self.queue.try_send(Heard { port, vlan, is_whole, bytes }) {
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
        let (inlet, heard) =
            Inlet::new(124, 64, &Pace::of(1_000), move || _ = called.fetch_add(1, Relaxed));
        let bytes = [7; 1_000];
        let frame = Frame::from_bytes(&bytes);
        let put = |port, now| (0..1_000).filter(|_| inlet.put((port, 5), &frame, now)).count();
        assert_eq!((put(3, 100), put(4, 100)), (32, 0), "in a period, of all together");
        assert_eq!(put(3, 199), 0);
        assert_eq!(put(3, 200), 32);
        assert_eq!(put(3, 300), 0, "nobody reads");
        let all: Vec<_> = heard.try_iter().collect();
        assert_eq!((all.len(), calls.load(Relaxed)), (64, 64));
        let first = &all[0];
        assert_eq!((first.port, first.vlan, first.is_whole), (3, 5, false));
        assert_eq!(first.bytes(), &bytes[..124]);
        drop(heard);
        assert_eq!(put(3, 900), 0);
    }

    #[test]
    fn a_flood_harms_no_other_port_where_each_has_its_limit() {
        let (inlet, heard) = Inlet::by_port(1_536, 128, &Pace::of(1_000), || {});
        let bytes = [7; 200];
        let frame = Frame::from_bytes(&bytes);
        let put = |port, now| (0..1_000).filter(|_| inlet.put((port, 5), &frame, now)).count();
        assert_eq!((put(3, 100), put(3, 199), put(4, 199)), (32, 0, 32), "in a period");
        assert_eq!((put(3, 200), put(4, 300), put(4, 400)), (32, 32, 0), "nobody reads");
        let all: Vec<_> = heard.try_iter().collect();
        assert_eq!((all.len(), all[0].is_whole, all[0].bytes().len()), (128, true, 200));
        assert_eq!(put(1024, 500), 0, "there is no such port");
    }

    #[test]
    fn what_is_due_at_once_since_the_clock_was_moved_is_no_flood() {
        let time = Time::stopped();
        let (inlet, heard) = Inlet::new(124, 256, &Pace::new(&time), || {});
        let bytes = [7; 100];
        let frame = Frame::from_bytes(&bytes);
        // By the workers' clock, all of this is one moment.
        let put = || (0..100).filter(|_| inlet.put((3, 0), &frame, 5)).count();
        assert_eq!((put(), put()), (32, 0));
        time.warp(std::time::Duration::from_millis(100));
        assert_eq!((put(), put()), (32, 0));
        assert_eq!(heard.try_iter().count(), 64);
    }
}
