//! Frames whose connections are found out, and copies of them that go on by what is known then.

use std::sync::Arc;

use arrayvec::ArrayVec;
use conntrack::{Adjustment, Conntrack, Seen, State, Tracked, Translation, dissect};
use ethdev::DropReason;
use flow::{Cause, Depth, Key, Track, extract, slot};
use packet::frame::HEAD_CAPACITY;
use packet::{BURST, Burst, Frame};

use super::enter::{Entry, Group, Manner, Onward};
use super::inlet::ETHERNET_LEN;
use super::run::bits;
use super::{Flows, Inner};
use crate::datapath::Source;
use crate::outputs::Outputs;

/// How often a frame is tracked and looked up again, at most.
const MAX_ROUNDS: u32 = 8;

/// How often frames of one burst are tracked, at most: rules that have each round make several others would
/// hold up a worker for ever.
const MAX_TRACKED: u32 = 1 << 14;

/// What is asked for of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracking<'t> {
    pub(super) track: &'t Track,
    /// The number of what copies go on with; 0: there is nothing.
    pub(super) round: u32,
    /// Where they are the fragments of one packet: what that is, and how they are translated.
    pub(super) whole: Option<&'t (Tracked, Option<Translation>)>,
}

/// What frames are.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// And how they are to be translated.
    pub(super) frames: ArrayVec<(Tracked, Option<Translation>), BURST>,
    /// The paths of those that are not.
    groups: ArrayVec<Group, BURST>,
    /// Those whose paths are to be found yet, a bit for each.
    left: u32,
    /// Those that are fragments, and wait for others.
    pub(super) fragments: u32,
    /// How those are to be changed that a helper has looked at, by their places among the frames.
    adjustments: Vec<(usize, Adjustment)>,
}

impl Entry<'_> {
    /// Finds out which connections frames are of. If there is something that they go on with, copies of them
    /// do. Returns those that are fragments and wait for others, a bit for each.
    #[inline(never)]
    pub(super) fn track(
        &self,
        frames: Burst<'_, '_>,
        tracking: Tracking<'_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) -> u32 {
        let Some((mut groups, fragments)) =
            self.flows.track(&frames, tracking, source, self.manner)
        else {
            let count = if tracking.round == 0 { 0 } else { frames.len() };
            source.stats.count_drops(DropReason::FlowTooDeep, count);
            return 0;
        };
        let packet_type = tracking.track.packet_type;
        self.go_on((frames, &mut groups), packet_type, source, outputs, onward);
        fragments
    }

    /// Has frames that were tracked go on, which begin with `packet_type`; those whose groups are none go nowhere.
    pub(super) fn go_on(
        &self,
        (frames, groups): (Burst<'_, '_>, &mut ArrayVec<Group, BURST>),
        packet_type: u32,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        if groups.is_empty() {
            return;
        }
        let mut rooms = self.flows.take_rooms();
        // What it goes on by is rules.
        let before = (outputs.set_packet_type(packet_type), outputs.set_cause(Cause::Rule));
        self.go((frames, groups), source, &mut rooms.onward, outputs, onward);
        outputs.set_packet_type(before.0);
        outputs.set_cause(before.1);
        self.flows.give_rooms(rooms);
    }

    /// Has frames go on of which it is known what they are, translated by now.
    #[inline(never)]
    pub(super) fn track_on(
        &self,
        (frames, mut met): (Burst<'_, '_>, Met),
        tracking: Tracking<'_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        self.flows.known((&frames, &mut met), tracking, source, self.manner);
        let packet_type = tracking.track.packet_type;
        self.go_on((frames, &mut met.groups), packet_type, source, outputs, onward);
    }
}

impl Flows {
    /// What frames are, and how they are to be translated; `None` if they have come round too often.
    pub(super) fn meet(
        &self,
        frames: &[Frame<'_>],
        tracking: Tracking<'_>,
        manner: Manner,
    ) -> Option<Met> {
        let Tracking { track, round, whole } = tracking;
        let mut inner = self.0.try_borrow_mut().ok()?;
        inner.begin_round()?;
        let mut met = Met::default();
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let (key, seen) = inner.look(frame, track);
            let (tracked, translation) = match (whole, &seen) {
                (Some(whole), _) => *whole,
                (None, None) if inner.has_wait(&key, manner) => {
                    met.fragments |= 1_u32 << index;
                    continue;
                }
                _ => inner.translated_as(seen.as_ref(), track, manner),
            };
            let tracked = match tracked.helper {
                None => tracked,
                Some(_) => {
                    let (tracked, how) = inner.overheard(frame, (seen, tracked), track, manner);
                    met.adjustments.extend(how.map(|how| (met.frames.len(), how)));
                    tracked
                }
            };
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
        Tracking { track, round, .. }: Tracking<'_>,
        source: &Source<'_>,
        manner: Manner,
    ) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return met.groups.clear() };
        for ((index, frame), (tracked, _)) in frames.iter().enumerate().zip(&met.frames) {
            if inner.records(manner) {
                let (key, _) = inner.look(frame, track);
                inner.record(round, frame, (key, tracked), source);
            }
            if met.left & 1_u32 << index != 0 {
                let (key, _) = inner.look(frame, track);
                inner.group(&mut met.groups, round, (index, frame), (key, tracked));
            }
        }
        inner.count(&met.groups, source, manner);
    }

    /// The paths of tracked frames, and those that are fragments and wait for others, a bit for each; `None` if
    /// they have come round too often.
    fn track(
        &self,
        frames: &[Frame<'_>],
        tracking: Tracking<'_>,
        source: &Source<'_>,
        manner: Manner,
    ) -> Option<(ArrayVec<Group, BURST>, u32)> {
        let Tracking { track, round, whole } = tracking;
        let (mut groups, mut fragments) = (ArrayVec::new(), 0);
        let mut inner = self.0.try_borrow_mut().ok()?;
        inner.begin_round()?;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let (key, seen) = inner.look(frame, track);
            let tracked = match (whole, &seen) {
                (Some((tracked, _)), _) => *tracked,
                (None, None) if inner.has_wait(&key, manner) => {
                    fragments |= 1_u32 << index;
                    continue;
                }
                _ => inner.tracked_as(seen.as_ref(), track, manner),
            };
            let tracked = match tracked.helper {
                None => tracked,
                Some(_) => inner.overheard(frame, (seen, tracked), track, manner).0,
            };
            if round == 0 {
                continue;
            }
            if inner.records(manner) {
                inner.record(round, frame, (key, &tracked), source);
            }
            inner.group(&mut groups, round, (index, frame), (key, &tracked));
        }
        inner.count(&groups, source, manner);
        Some((groups, fragments))
    }

    /// What a packet is that came in fragments, and how it is translated; `None`: nothing can be found out.
    pub(super) fn meet_whole(
        &self,
        seen: Option<&Seen>,
        track: &Track,
        manner: Manner,
    ) -> Option<(Tracked, Option<Translation>)> {
        let (tracked, translation) =
            self.0.try_borrow_mut().ok()?.translated_as(seen, track, manner);
        // No helper looks at what comes in pieces.
        let state = tracked.helper.map_or(tracked.state, |_| tracked.state | State::INVALID);
        Some((Tracked { state, helper: None, ..tracked }, translation))
    }

    /// All connections, with the fragments that wait.
    pub(super) fn connections(&self) -> Option<Arc<Conntrack>> {
        Some(Arc::clone(self.0.try_borrow_mut().ok()?.lane().all()))
    }
}

impl Met {
    /// How the frame at this place is to be changed, if a helper says so.
    pub(super) fn adjusted(&self, place: usize) -> Option<Adjustment> {
        let own = self.adjustments.iter().find(|(own, _)| *own == place);
        own.map(|(_, how)| how.clone())
    }

    /// Those that have stayed of frames of these bits, where any have not. All paths are found anew then:
    /// others have their numbers.
    pub(super) fn keep(&mut self, before: u32, alive: u32) {
        if before == alive && self.fragments == 0 {
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

    /// Whether a frame of which it cannot be told what it is of is a fragment that waits for others.
    #[cold]
    fn has_wait(&mut self, key: &Key, manner: Manner) -> bool {
        let is_v6 = key.get_u16(slot::ETH_TYPE) == 0x86DD;
        manner == Manner::Real
            && key.get_u8(slot::IP_FRAG) != 0
            && self.lane().all().fragments().are_enabled(is_v6)
    }

    /// Frames are tracked; `None` if they were too often.
    pub(super) fn begin_round(&mut self) -> Option<()> {
        if self.depth > MAX_ROUNDS || self.tracked >= MAX_TRACKED {
            return None;
        }
        self.tracked += 1;
        Some(())
    }

    /// Whether frames are counted that were tracked, for somebody who looks at flows.
    #[inline]
    pub(super) fn records(&self, manner: Manner) -> bool {
        self.recorder.is_active() && manner == Manner::Real
    }

    /// Counts one.
    #[cold]
    fn record(
        &mut self,
        round: u32,
        frame: &Frame<'_>,
        (mut key, tracked): (Key, &Tracked),
        source: &Source<'_>,
    ) {
        key.set_connection(tracked);
        self.record_again(round, frame, key, source);
    }

    /// The same of one that was looked at anew.
    #[cold]
    pub(super) fn record_again(
        &mut self,
        round: u32,
        frame: &Frame<'_>,
        mut key: Key,
        source: &Source<'_>,
    ) {
        let Self { cache, recorder, .. } = self;
        let (Some(recorder), Some(onward)) = (recorder.active(), cache.round(round)) else {
            return;
        };
        key.set(slot::IN_PORT, onward.key.get(slot::IN_PORT));
        key.set_packet_type(onward.key.get_u32(slot::PACKET_TYPE));
        // The place of a header that it does not have is nothing of it.
        let place = if key.is_ethernet() { 0 } else { ETHERNET_LEN };
        let len = frame.len().saturating_sub(place);
        recorder.note_tracked(&key, onward, len as u64, source);
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
        self.group_again(groups, round, (index, frame), key);
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
