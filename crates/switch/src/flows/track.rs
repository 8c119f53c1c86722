//! Frames whose connections are found out, and copies of them that go on by what is known then.

use arrayvec::ArrayVec;
use conntrack::{Seen, Tracked, Translation, dissect};
use ethdev::DropReason;
use flow::{Depth, Key, Track, extract, slot, unpadded};
use packet::frame::HEAD_CAPACITY;
use packet::{BURST, Frame};

use super::enter::{Entry, Group, Manner, Onward};
use super::run::bits;
use super::{Flows, Inner};
use crate::datapath::Source;
use crate::outputs::Outputs;

/// How often a frame is tracked and looked up again, at most.
const MAX_ROUNDS: u32 = 8;

/// How often frames of one burst are tracked, at most: rules that have each round make several others would
/// hold up a worker for ever.
const MAX_TRACKED: u32 = 1 << 14;

/// What frames are.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// And how they are to be translated.
    pub(super) frames: ArrayVec<(Tracked, Option<Translation>), BURST>,
    /// The paths of those that are not.
    groups: ArrayVec<Group, BURST>,
    /// Those whose paths are to be found yet, a bit for each.
    left: u32,
}

impl Entry<'_> {
    /// Finds out which connections frames are of. If there is something that they go on with, which has
    /// number `round`, copies of them do.
    #[inline(never)]
    pub(super) fn track(
        &self,
        frames: &[Frame<'_>],
        (track, round): (&Track, u32),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let Some(mut groups) = self.flows.track(frames, (track, round), source, self.manner) else {
            let count = if round == 0 { 0 } else { frames.len() };
            return source.stats.count_drops(DropReason::FlowTooDeep, count);
        };
        self.go_on((frames, &mut groups), source, outputs, onward);
    }

    /// Has frames that were tracked go on; those whose groups are none go nowhere.
    fn go_on(
        &self,
        (frames, groups): (&[Frame<'_>], &mut ArrayVec<Group, BURST>),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        if groups.is_empty() {
            return;
        }
        let mut rooms = self.flows.take_rooms();
        self.go((frames, groups), source, &mut rooms.onward, outputs, onward);
        self.flows.give_rooms(rooms);
    }

    /// Has frames go on of which it is known what they are, translated by now.
    #[inline(never)]
    pub(super) fn track_on(
        &self,
        (frames, mut met): (&[Frame<'_>], Met),
        (track, round): (&Track, u32),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        self.flows.known((frames, &mut met), (track, round), source, self.manner);
        self.go_on((frames, &mut met.groups), source, outputs, onward);
    }
}

impl Flows {
    /// What frames are, and how they are to be translated; `None` if they have come round too often.
    pub(super) fn meet(
        &self,
        frames: &[Frame<'_>],
        (track, round): (&Track, u32),
        manner: Manner,
    ) -> Option<Met> {
        let mut inner = self.0.try_borrow_mut().ok()?;
        inner.begin_round()?;
        let mut met = Met::default();
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let (key, seen) = inner.look(frame, track);
            let (tracked, translation) = inner.translated_as(seen.as_ref(), track, manner);
            if round != 0 && translation.is_none() {
                inner.group(&mut met.groups, round, (index, frame), (key, &tracked));
            } else {
                met.left |= 1_u32 << index;
            }
            met.frames.push((tracked, translation));
        }
        Some(met)
    }

    /// Finds the paths of frames that are translated by now.
    fn known(
        &self,
        (frames, met): (&[Frame<'_>], &mut Met),
        (track, round): (&Track, u32),
        source: &Source<'_>,
        manner: Manner,
    ) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return met.groups.clear() };
        for ((index, frame), (tracked, _)) in frames.iter().enumerate().zip(&met.frames) {
            if met.left & 1_u32 << index != 0 {
                let (key, _) = inner.look(frame, track);
                inner.group(&mut met.groups, round, (index, frame), (key, tracked));
            }
        }
        inner.count(&met.groups, source, manner);
    }

    /// The paths of tracked frames; `None` if they have come round too often.
    fn track(
        &self,
        frames: &[Frame<'_>],
        (track, round): (&Track, u32),
        source: &Source<'_>,
        manner: Manner,
    ) -> Option<ArrayVec<Group, BURST>> {
        let mut groups = ArrayVec::new();
        let mut inner = self.0.try_borrow_mut().ok()?;
        inner.begin_round()?;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let (key, seen) = inner.look(frame, track);
            let tracked = inner.tracked_as(seen.as_ref(), track, manner);
            if round == 0 {
                continue;
            }
            inner.group(&mut groups, round, (index, frame), (key, &tracked));
        }
        inner.count(&groups, source, manner);
        Some(groups)
    }
}

impl Met {
    /// Those that have stayed of frames of these bits, where any have not. All paths are found anew then:
    /// others have their numbers.
    pub(super) fn keep(&mut self, before: u32, alive: u32) {
        if before == alive {
            return;
        }
        let mut bits = bits(before);
        self.frames.retain(|_| bits.next().is_some_and(|bit| alive & bit != 0));
        self.left = u32::MAX;
        self.groups.clear();
    }
}

impl Inner {
    /// The key of a frame that is to be tracked, and what says which connection it is of.
    fn look(&self, frame: &Frame<'_>, track: &Track) -> (Key, Option<Seen>) {
        look(frame, track.request.zone, self.cache.pipeline().vlans.tags())
    }

    /// Frames are tracked; `None` if they were too often.
    fn begin_round(&mut self) -> Option<()> {
        if self.depth > MAX_ROUNDS || self.tracked >= MAX_TRACKED {
            return None;
        }
        self.tracked += 1;
        Some(())
    }

    /// Adds a frame that was tracked to those with its path.
    #[inline]
    fn group(
        &mut self,
        groups: &mut ArrayVec<Group, BURST>,
        round: u32,
        (index, frame): (usize, &Frame<'_>),
        (mut key, tracked): (Key, &Tracked),
    ) {
        key.set_connection(tracked);
        let vlans = self.cache.pipeline().vlans.tags();
        self.cache.note_len(&mut key, || unpadded(frame.head(), frame.wire_len(), vlans));
        if let Some(path) = self.cache.find_tracked(round, &mut key) {
            Group::add(groups, path, (1 << index, frame.len() as u64));
        }
    }

    fn tracked_as(&mut self, seen: Option<&Seen>, track: &Track, manner: Manner) -> Tracked {
        let lane = self.lane();
        let now = lane.all().now();
        match manner {
            Manner::Real => lane.track(seen, &track.request, now),
            Manner::Told { .. } => lane.all().tell(seen, &track.request, now).0,
        }
    }

    fn translated_as(
        &mut self,
        seen: Option<&Seen>,
        track: &Track,
        manner: Manner,
    ) -> (Tracked, Option<Translation>) {
        let lane = self.lane();
        let now = lane.all().now();
        match manner {
            Manner::Real => lane.translate(seen, &track.request, now),
            Manner::Told { .. } => lane.all().tell(seen, &track.request, now),
        }
    }
}

/// The key of a frame, and what says which connection it is of.
fn look(frame: &Frame<'_>, zone: u16, vlans: u8) -> (Key, Option<Seen>) {
    let mut key = Key::default();
    let layers = extract(&mut key, frame.head(), frame.len(), vlans, Depth::All);
    let network = usize::from(layers.network);
    let ether_type = key.get_u16(slot::ETH_TYPE);
    let see = |head: &[u8]| {
        let len = frame.len().checked_sub(network)?;
        dissect(ether_type, head.get(network..)?, len, zone)
    };
    let mut seen = see(frame.head());
    // Options of a first segment, and what an error is about, may lie behind. Whoever changes them
    // meanwhile changes what is said of his own connection.
    if seen.is_none() && matches!(ether_type, 0x0800 | 0x86DD) && frame.head().len() < frame.len() {
        let mut more = [0; HEAD_CAPACITY];
        let len = frame.copy_to(&mut more);
        seen = see(more.get(..len).unwrap_or_default());
    }
    (key, seen)
}
