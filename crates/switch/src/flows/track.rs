//! Frames whose connections are found out, and copies of them that go on by what is known then.

use arrayvec::ArrayVec;
use conntrack::{Seen, Tracked, dissect};
use ethdev::DropReason;
use flow::{Depth, Key, Track, extract, slot};
use packet::frame::HEAD_CAPACITY;
use packet::{BURST, Frame};

use super::enter::{Entry, Group, Manner, Onward, VLANS};
use super::{Flows, Inner, Rooms};
use crate::datapath::Source;
use crate::outputs::Outputs;

/// How often a frame is tracked and looked up again, at most.
const MAX_ROUNDS: u32 = 8;

/// How often frames of one burst are tracked, at most: rules that have each round make several others would
/// hold up a worker for ever.
const MAX_TRACKED: u32 = 1 << 14;

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
        if groups.is_empty() {
            return;
        }
        let mut rooms = self.flows.take_rooms();
        let Rooms { edit, cut, .. } = &mut *rooms;
        self.go((frames, &mut groups), source, (edit, cut), outputs, onward);
        self.flows.give_rooms(rooms);
    }
}

impl Flows {
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
        if inner.depth > MAX_ROUNDS || inner.tracked >= MAX_TRACKED {
            return None;
        }
        inner.tracked += 1;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let (mut key, seen) = look(frame, track.request.zone);
            let tracked = inner.tracked_as(seen.as_ref(), track, manner);
            if round == 0 {
                continue;
            }
            key.set_connection(&tracked);
            inner.cache.note_len(&mut key, || frame.wire_len());
            if let Some(path) = inner.cache.find_tracked(round, &mut key) {
                Group::add(&mut groups, path, (index, frame.len()));
            }
        }
        inner.count(&groups, source, manner);
        Some(groups)
    }
}

impl Inner {
    fn tracked_as(&mut self, seen: Option<&Seen>, track: &Track, manner: Manner) -> Tracked {
        let lane = self.lane();
        let now = lane.all().now();
        match manner {
            Manner::Real => lane.track(seen, &track.request, now),
            Manner::Told { .. } => lane.all().tell(seen, &track.request, now).0,
        }
    }
}

/// The key of a frame, and what says which connection it is of.
fn look(frame: &Frame<'_>, zone: u16) -> (Key, Option<Seen>) {
    let mut key = Key::default();
    let layers = extract(&mut key, frame.head(), frame.len(), VLANS, Depth::All);
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
