//! One worker's part in the guards of all ports.

use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::{BURST, EditRoom, Editing, Frame};

use super::PortGuard;
use super::rules::{Denied, Rules};
use crate::datapath::Source;

/// One worker's part in the guard of a port.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: Arc<Rules>,
}

impl Guard {
    /// For each of so many workers its part in a guard; `None` where there is none.
    pub(crate) fn of(guard: &PortGuard, workers: usize) -> Vec<Option<Self>> {
        let rules = (!guard.is_default()).then(|| Arc::new(Rules::from(guard)));
        (0..workers).map(|_| rules.clone().map(|rules| Self { rules })).collect()
    }

    /// The frames of a burst that may come in; the others are counted. Where not all come in as
    /// they are, they are put into `kept`.
    pub(crate) fn admit<'b, 'f>(
        &self,
        frames: &'b [Frame<'f>],
        source: &Source<'_>,
        editing: &mut Editing<'f>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> &'b [Frame<'f>] {
        if frames.iter().all(|frame| self.rules.check(frame.head()).is_ok()) {
            return frames;
        }
        self.admit_some(frames, source, editing, kept)
    }

    /// As `admit`, where some do not come in, or have to be copied first.
    #[cold]
    fn admit_some<'b, 'f>(
        &self,
        frames: &'b [Frame<'f>],
        source: &Source<'_>,
        editing: &mut Editing<'f>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> &'b [Frame<'f>] {
        for frame in frames {
            match self.admit_one(frame, editing) {
                // A burst has no more frames than there is room.
                Ok(frame) => _ = kept.try_push(frame),
                Err(reason) => source.stats.count_drops(reason, 1),
            }
        }
        kept
    }

    /// A frame that may come in, with all that was checked in its head.
    fn admit_one<'f>(
        &self,
        frame: &Frame<'f>,
        editing: &mut Editing<'f>,
    ) -> Result<Frame<'f>, DropReason> {
        match self.rules.check(frame.head()) {
            Ok(()) => return Ok(*frame),
            Err(Denied::For(reason)) => return Err(reason),
            Err(Denied::Short) => {}
        }
        let deep = editing.deepen(frame).ok_or(DropReason::Malformed)?;
        match self.rules.check(deep.head()) {
            Ok(()) => Ok(deep),
            Err(Denied::For(reason)) => Err(reason),
            Err(Denied::Short) => Err(DropReason::Malformed),
        }
    }
}

/// How many ports a burst comes in on one after the other.
const ROOMS: usize = 2;

/// The guards of all ports.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// By port number.
    ports: Vec<Option<Box<Guard>>>,
    /// Where frames have their heads that more was copied of than a queue does; there while there
    /// are guards, and nobody has them: one for a port, and one for the bond that it is a member of.
    rooms: Vec<EditRoom>,
}

impl Guards {
    /// Whether no port has one.
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.iter().all(Option::is_none)
    }

    /// Gives `port` another guard, or none.
    pub(crate) fn set(&mut self, port: u16, guard: Option<Box<Guard>>) {
        let index = usize::from(port);
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        if let Some(place) = self.ports.get_mut(index) {
            *place = guard;
        }
        self.rooms.resize_with(if self.is_empty() { 0 } else { ROOMS }, EditRoom::default);
    }

    /// That of `port`.
    #[inline]
    pub(crate) fn of(&self, port: u16) -> Option<&Guard> {
        self.ports.get(usize::from(port))?.as_deref()
    }

    /// A room for heads, to be [given back](Self::give_room).
    #[inline]
    pub(crate) fn take_room(&mut self) -> EditRoom {
        self.rooms.pop().unwrap_or_default()
    }

    /// Takes a room for heads back.
    #[inline]
    pub(crate) fn give_room(&mut self, room: EditRoom) {
        self.rooms.push(room);
    }
}
