//! Recording that is there before anybody asks, and costs next to nothing: so many frames, then none for a
//! while.
//!
//! A worker that sleeps between frames, as it does where little comes in, has time for all of them. One
//! that has none to sleep records some frames a second, and goes the short way with the others.

use eal::clock;
use std::time::Duration;

use super::{Recorder, Room};

/// What workers record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// Nothing.
    #[default]
    Nothing,
    /// What they have the time for, of the last seconds.
    Sparingly,
    /// All.
    All,
}

/// The most frames that are recorded one after the other: it is what a worker does besides at most, about
/// as long as a burst of new flows takes.
const FRAMES: usize = 256;

/// How long a worker that sleeps goes without at least, once it has recorded so many.
const PAUSE: Duration = Duration::from_millis(100);

/// A recorder that may rest: what it has stays then.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    active: Option<Box<Recorder>>,
    resting: Option<Box<Recorder>>,
}

impl Slot {
    /// Has it record with this room, or rest; `None`: there is none. Returns whether packets that came lately are
    /// not there: it has rested, or recorded all, which was taken.
    pub(crate) fn set(&mut self, how: Option<(bool, Room)>) -> bool {
        let (active, resting) = (self.active.take(), self.resting.take());
        let Some((is_active, room)) = how else { return false };
        let has_rested = resting.is_some();
        let before = active.or(resting);
        let lacks = has_rested || before.as_ref().is_some_and(|own| own.has_given_away(room));
        let mut recorder = before.unwrap_or_default();
        recorder.set_room(room);
        let place = if is_active { &mut self.active } else { &mut self.resting };
        *place = Some(recorder);
        lacks
    }

    /// Whether it records.
    #[inline]
    pub(crate) const fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// The recorder, while it records.
    #[inline]
    pub(crate) fn active(&mut self) -> Option<&mut Recorder> {
        self.active.as_deref_mut()
    }

    /// The recorder.
    pub(crate) fn any(&mut self) -> Option<&mut Recorder> {
        self.active.as_deref_mut().or(self.resting.as_deref_mut())
    }
}

/// When a worker records, and when it rests.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    record: Record,
    /// How many frames are left until it rests.
    left: usize,
    /// When it was told to go on last, in clock cycles.
    since: u64,
}

impl Turns {
    /// Has workers record this from `now` on, in clock cycles.
    pub(crate) const fn set(&mut self, record: Record, now: u64) {
        (self.record, self.left, self.since) = (record, FRAMES, now);
    }

    /// A worker is about to sleep, at `now`. Returns whether it may record more from now on.
    #[inline]
    pub(crate) fn sleeps(&mut self, now: u64) -> bool {
        if !matches!(self.record, Record::Sparingly)
            || now.wrapping_sub(self.since) < clock::cycles(PAUSE)
        {
            return false;
        }
        let rests = self.left == 0;
        self.set(self.record, now);
        rests
    }

    /// Frames were recorded; returns whether no more are to be.
    pub(crate) fn spend(&mut self, frames: usize) -> bool {
        if !matches!(self.record, Record::Sparingly) {
            return false;
        }
        self.left = self.left.saturating_sub(frames);
        self.left == 0
    }

    /// How recorders are to be.
    pub(crate) fn slot(&self) -> Option<(bool, Room)> {
        match self.record {
            Record::Nothing => None,
            Record::Sparingly => Some((self.left > 0, Room::SPARING)),
            Record::All => Some((true, Room::ALL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_rests_until_it_has_time() {
        let mut turns = Turns::default();
        assert_eq!(
            (turns.slot(), turns.spend(FRAMES), turns.sleeps(u64::MAX)),
            (None, false, false)
        );
        turns.set(Record::Sparingly, 0);
        assert!(!turns.spend(FRAMES - 1));
        assert_eq!(turns.slot(), Some((true, Room::SPARING)));
        assert!(turns.spend(32));
        assert_eq!(turns.slot(), Some((false, Room::SPARING)));
        let pause = clock::cycles(PAUSE);
        assert!(!turns.sleeps(pause - 1));
        assert!(turns.sleeps(pause));
        assert_eq!(turns.slot(), Some((true, Room::SPARING)));
        // It has not rested.
        assert!(!turns.spend(FRAMES - 1) && !turns.sleeps(2 * pause) && !turns.spend(FRAMES - 1));
        turns.set(Record::All, 0);
        assert!(!turns.spend(10 * FRAMES));
        assert_eq!(turns.slot(), Some((true, Room::ALL)));
    }

    #[test]
    fn what_was_recorded_stays_while_a_recorder_rests() {
        let mut slot = Slot::default();
        assert!(!slot.is_active() && slot.any().is_none());
        assert!(!slot.set(Some((true, Room::SPARING))), "nothing was before");
        slot.active().unwrap().count(&super::super::tests::key(1), (None, 1), 60, 5);
        assert!(!slot.set(Some((false, Room::SPARING))));
        assert!(!slot.is_active() && slot.active().is_none());
        assert!(slot.set(Some((true, Room::ALL))), "it has rested");
        assert_eq!(slot.active().unwrap().take().kinds.len(), 1);
        assert!(!slot.set(Some((true, Room::ALL))));
        assert!(slot.set(Some((true, Room::SPARING))), "what came lately was taken");
        assert!(!slot.set(Some((true, Room::SPARING))) && !slot.set(Some((true, Room::ALL))));
        assert!(!slot.set(None));
        assert!(slot.any().is_none());
    }
}
