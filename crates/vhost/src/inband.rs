//! Notifications as messages (chapter "In-band notifications"), the back-end's part.
//!
//! Workers note which rings have something to tell; the control thread sends that over the channel
//! of the back-end, one message after the other, each when the one before was answered. A ring has
//! one note of a kind, however often it is made, so nothing piles up where nobody reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eal::EventFd;

use crate::protocol::BackendMessage;

/// What is noted for a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    Err,
}

/// A bit for each of the 256 rings that a front-end can name.
type Notes = [AtomicU64; 4];

/// What has to be told to one front-end.
#[derive(Debug)]
pub struct Notifications {
    calls: Notes,
    errs: Notes,
    /// Wakes the control thread.
    wake: EventFd,
}

impl Notifications {
    /// Nothing to tell.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let (calls, errs) = (Notes::default(), Notes::default());
        Ok(Arc::new(Self { calls, errs, wake: EventFd::new()? }))
    }

    /// By which ring `index` tells that there are used buffers.
    pub(crate) fn call(self: &Arc<Self>, index: u8) -> Note {
        Note { all: Arc::clone(self), index, kind: Kind::Call }
    }

    /// By which ring `index` tells that it is broken.
    pub(crate) fn err(self: &Arc<Self>, index: u8) -> Note {
        Note { all: Arc::clone(self), index, kind: Kind::Err }
    }

    /// Takes the next message.
    pub(crate) fn take(&self) -> Option<BackendMessage<OwnedFd>> {
        if let Some(index) = take(&self.errs) {
            return Some(BackendMessage::VringErr(index));
        }
        take(&self.calls).map(BackendMessage::VringCall)
    }

    fn of(&self, kind: Kind) -> &Notes {
        match kind {
            Kind::Call => &self.calls,
            Kind::Err => &self.errs,
        }
    }
}

impl AsFd for Notifications {
    /// Signalled when there is something to [`take`](Self::take); nobody reads it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Takes the lowest ring out of the notes.
fn take(notes: &Notes) -> Option<u8> {
    for (word, first) in notes.iter().zip((0..=u8::MAX).step_by(64)) {
        let set = word.load(Ordering::Relaxed);
        if set != 0 {
            // Only the control thread takes bits out, so it is still there. What the worker wrote
            // to the ring before it made the note is there for whoever is told of it.
            word.fetch_and(!(set & set.wrapping_neg()), Ordering::Acquire);
            return u8::try_from(set.trailing_zeros()).ok().map(|bit| first | bit);
        }
    }
    None
}

/// A note that a worker can make. Clones are the same.
#[derive(Clone, Debug)]
pub struct Note {
    all: Arc<Notifications>,
    index: u8,
    kind: Kind,
}

impl Note {
    /// Makes the note, unless it is there already.
    pub(crate) fn make(&self) -> io::Result<()> {
        let Some(word) = self.all.of(self.kind).get(usize::from(self.index / 64)) else {
            return Ok(());
        };
        let bit = 1 << (self.index % 64);
        if word.fetch_or(bit, Ordering::Release) & bit != 0 {
            return Ok(());
        }
        self.all.wake.signal()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use eal::Epoll;
    use eal::event::Events;

    use super::*;

    /// The next message: its kind, and the ring.
    fn next(all: &Notifications) -> Option<(Kind, u8)> {
        match all.take()? {
            BackendMessage::VringCall(index) => Some((Kind::Call, index)),
            BackendMessage::VringErr(index) => Some((Kind::Err, index)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_ring_has_one_note_of_a_kind_and_faults_come_first() {
        let all = Notifications::new().unwrap();
        for index in [255, 64, 63, 0] {
            all.call(index).make().unwrap();
            all.call(index).make().unwrap();
        }
        all.err(64).make().unwrap();
        assert_eq!(next(&all), Some((Kind::Err, 64)));
        all.call(0).make().unwrap();
        for index in [0, 63, 64, 255] {
            assert_eq!(next(&all), Some((Kind::Call, index)));
        }
        assert_eq!(next(&all), None);
        all.call(7).make().unwrap();
        assert_eq!(next(&all), Some((Kind::Call, 7)));
    }

    #[test]
    fn a_note_wakes_whoever_waits() {
        let all = Notifications::new().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add_edge(&*all, 1).unwrap();
        let mut events = Events::new();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.iter().count(), 0);
        for _ in 0..2 {
            all.err(3).make().unwrap();
            epoll.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(events.iter().count(), 1);
            assert_eq!(next(&all), Some((Kind::Err, 3)));
        }
    }
}
