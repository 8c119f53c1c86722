//! One worker's part in the guards of all ports.

use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::clock;
use ethdev::DropReason;
use packet::{BURST, EditRoom, Editing, Frame};

use super::ordinary::Ordinary;
use super::rules::{Denied, Rules};
use super::storm::Storm;
use super::{Beyond, BpduGuard, PortGuard, Trip};
use crate::datapath::Source;
use crate::limit::PortLimits;
use crate::output::pick;
use crate::outputs::Outputs;

/// One worker's part in the guard of a port.
#[derive(Debug)]
pub struct Guard {
    rules: Arc<Rules>,
    storm: Option<Storm>,
    isolated: bool,
    /// What shuts the port, where a message of spanning tree does.
    trip: Option<Arc<Trip>>,
    /// Whether frames from addresses that the port may not learn go nowhere.
    drops_strangers: bool,
}

impl Guard {
    /// For each of so many workers its part in a guard and in storm limits; `None` where there is
    /// neither.
    pub fn of(
        guard: &PortGuard,
        limits: &PortLimits,
        trip: Option<&Arc<Trip>>,
        workers: usize,
    ) -> Vec<Option<Self>> {
        let rules = Arc::new(Rules::from(guard));
        let storms = Storm::of(limits, workers, clock::hz(), clock::now());
        let trip = trip.filter(|_| guard.bpdu_guard == BpduGuard::Shut);
        let part = |storm: Option<Storm>| {
            let is_any = storm.is_some() || !guard.is_default();
            let rules = Arc::clone(&rules);
            let PortGuard { isolated, beyond_max, .. } = *guard;
            let drops_strangers = beyond_max == Beyond::Drop;
            let trip = trip.cloned();
            is_any.then_some(Self { rules, storm, isolated, trip, drops_strangers })
        };
        storms.into_iter().map(part).collect()
    }

    /// Whether nothing comes in any more, since the port has sent what it is shut for.
    #[inline]
    fn is_shut(&self) -> bool {
        self.trip.as_ref().is_some_and(|trip| trip.is_tripped())
    }

    /// The frames of a burst that may come in; the others are counted. Where not all come in as
    /// they are, they are put into `kept`.
    pub(crate) fn admit<'b, 'f>(
        &mut self,
        frames: &'b [Frame<'f>],
        source: &Source<'_>,
        editing: &mut Editing<'f>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> &'b [Frame<'f>] {
        if self.is_shut() {
            // Nothing waits for the port to be opened again: switches drop at a port that is out of service.
            source.stats.count_drops(DropReason::Bpdu, frames.len());
            return &[];
        }
        if !self.rules.are_any() || self.lets_all_in(frames) {
            return self.admit_calm(frames, source, kept);
        }
        self.admit_some(frames, source, editing, kept)
    }

    /// Whether all frames come in as they are.
    fn lets_all_in(&self, frames: &[Frame<'_>]) -> bool {
        let mut last = None;
        frames.iter().all(|frame| {
            let ordinary = Ordinary::of(frame.head());
            if ordinary.is_some() && ordinary == last {
                return true;
            }
            last = ordinary;
            self.rules.check(frame.head()).is_ok()
        })
    }

    /// As `admit`, as far as storm limits are concerned.
    fn admit_calm<'b, 'f>(
        &mut self,
        frames: &'b [Frame<'f>],
        source: &Source<'_>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> &'b [Frame<'f>] {
        let Some(storm) = &mut self.storm else { return frames };
        let passed = storm.pass(frames, source.now, source.stats);
        if passed == u32::MAX {
            return frames;
        }
        kept.extend(pick(frames, passed));
        kept
    }

    /// As `admit`, where some do not come in, or have to be copied first.
    #[cold]
    fn admit_some<'b, 'f>(
        &mut self,
        frames: &'b [Frame<'f>],
        source: &Source<'_>,
        editing: &mut Editing<'f>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> &'b [Frame<'f>] {
        for frame in frames {
            match self.admit_one(frame, editing) {
                // A burst has no more frames than there is room.
                Ok(frame) => _ = kept.try_push(frame),
                Err(reason) => {
                    source.stats.count_drops(reason, 1);
                    if let Some(trip) = self.trip.as_ref().filter(|_| reason == DropReason::Bpdu) {
                        trip.trip();
                    }
                }
            }
        }
        if let Some(storm) = &mut self.storm {
            let mut passed = storm.pass(kept, source.now, source.stats);
            kept.retain(|_| {
                let comes_in = passed & 1 != 0;
                passed = passed.rotate_right(1);
                comes_in
            });
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
    pub(crate) fn of(&mut self, port: u16) -> Option<&mut Guard> {
        self.ports.get_mut(usize::from(port))?.as_deref_mut()
    }

    /// Whether nothing comes in on `port` any more, since it has sent what it is shut for.
    #[inline]
    pub(crate) fn has_shut(&self, port: u16) -> bool {
        let guard = self.ports.get(usize::from(port)).and_then(Option::as_ref);
        guard.is_some_and(|guard| guard.is_shut())
    }

    /// Takes from the verdicts on a burst what the guard of the port where it came in does not
    /// allow, once the bridge has decided where it goes.
    pub(crate) fn judge(
        &mut self,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let Some(guard) = self.of(source.port) else { return };
        let (unknown, strangers) = outputs.take_notes();
        let mut out = if guard.drops_strangers { strangers } else { 0 };
        source.stats.count_drops(DropReason::AddressLimit, out.count_ones() as usize);
        if let Some(storm) = guard.storm.as_mut().filter(|_| unknown & !out != 0) {
            out |= storm.unknown(frames, unknown & !out, source.now, source.stats);
        }
        if out != 0 {
            outputs.retain(|_, mask| mask & !out);
        }
        if guard.isolated {
            self.isolate(source, outputs);
        }
    }

    /// Leaves no frame to an isolated port.
    #[inline(never)]
    fn isolate(&self, source: &Source<'_>, outputs: &mut Outputs) {
        let is_isolated = |port: u16| {
            let guard = self.ports.get(usize::from(port)).and_then(Option::as_deref);
            guard.is_some_and(|guard| guard.isolated)
        };
        let (mut before, mut after) = (0_u32, 0_u32);
        outputs.retain(|port, mask| {
            before |= mask;
            let left = if is_isolated(port) { 0 } else { mask };
            after |= left;
            left
        });
        // What others get is not lost.
        let lost = before & !after;
        source.stats.count_drops(DropReason::Isolated, lost.count_ones() as usize);
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
