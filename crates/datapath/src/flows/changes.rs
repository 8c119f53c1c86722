//! What was changed of frames on their way along a path, so that it can be done again with others of their
//! heads.

use std::sync::Arc;

use arrayvec::ArrayVec;
use conntrack::{Adjustment, Translation};
use ethdev::DropReason;
use flow::{Edit, NshPush, adjust, push_nsh, rewrite, translate};
use packet::{BURST, Open};

use super::run::bits;
use crate::datapath::Source;

/// Changes of a frame one after the other, at most; one that would have more is dropped.
const MAX_CHANGES: usize = 64;

/// A change, and of which frames: a bit for each.
#[derive(Clone, Copy, Debug)]
enum Change {
    Edit(u32, Edit),
    /// All get the header of this number in front.
    Nsh(usize),
    /// Each frame of these translations has one of its own.
    Translate(usize, usize),
    /// The same of these adjustments.
    Adjust(usize, usize),
}

/// How much of frames is in heads of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// What is in their heads as they come.
    #[default]
    Head,
    /// More, where headers of errors and of tunnels end.
    Deep,
    /// As much as there is room for: a network service header is taken off.
    Deepest,
}

/// How many changes there were, and how much of frames they need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) len: usize,
    depth: Depth,
}

/// Changes, one after the other.
#[derive(Debug, Default)]
pub(super) struct Changes {
    list: ArrayVec<Change, MAX_CHANGES>,
    translations: Vec<(u32, Translation)>,
    /// Those of frames that a helper has looked at.
    adjustments: Vec<(u32, Adjustment)>,
    headers: Vec<Arc<NshPush>>,
    /// How much of frames is changed, or looked at then.
    pub(super) depth: Depth,
}

impl Changes {
    /// None yet, with the memory for translations of those before.
    pub(super) fn new(mut translations: Vec<(u32, Translation)>) -> Self {
        translations.clear();
        Self { translations, ..Self::default() }
    }

    pub(super) fn into_memory(self) -> Vec<(u32, Translation)> {
        self.translations
    }

    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// How far it has come.
    pub(super) const fn mark(&self) -> Mark {
        Mark { len: self.list.len(), depth: self.depth }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets those since then, and what they need of frames.
    pub(super) fn go_back(&mut self, Mark { len, depth }: Mark) {
        self.depth = depth;
        self.list.truncate(len);
        let last = |end_of: fn(&Change) -> Option<usize>| self.list.iter().rev().find_map(end_of);
        let translated = last(|change| match change {
            Change::Translate(_, end) => Some(*end),
            _ => None,
        });
        let adjusted = last(|change| match change {
            Change::Adjust(_, end) => Some(*end),
            _ => None,
        });
        self.translations.truncate(translated.unwrap_or(0));
        self.adjustments.truncate(adjusted.unwrap_or(0));
        let put = last(|change| match change {
            Change::Nsh(at) => Some(*at + 1),
            _ => None,
        });
        self.headers.truncate(put.unwrap_or(0));
    }

    /// Adds a change of the frames of these bits; returns whether there is room for it.
    pub(super) fn edit(&mut self, (which, edit): (u32, Edit)) -> bool {
        if let Edit::PopNsh { .. } = edit {
            self.deepen(Depth::Deepest);
        }
        self.list.try_push(Change::Edit(which, edit)).is_ok()
    }

    /// Adds a network service header in front of all frames; returns whether there is room for that.
    pub(super) fn push_nsh(&mut self, header: Arc<NshPush>) -> bool {
        self.headers.push(header);
        self.list.try_push(Change::Nsh(self.headers.len() - 1)).is_ok()
    }

    /// Has at least so much of frames be in heads of their own.
    pub(super) fn deepen(&mut self, depth: Depth) {
        self.depth = self.depth.max(depth);
    }

    /// Adds translations of some frames, in order of their bits; returns whether there is room for them.
    pub(super) fn translate(&mut self, each: impl Iterator<Item = (u32, Translation)>) -> bool {
        let start = self.translations.len();
        self.translations.extend(each.take(BURST));
        if self.last_from(start).iter().any(|(_, translation)| translation.is_error) {
            self.deepen(Depth::Deep);
        }
        let end = self.translations.len();
        start == end || self.list.try_push(Change::Translate(start, end)).is_ok()
    }

    /// The same of adjustments, if there are any.
    pub(super) fn adjust(&mut self, each: impl Iterator<Item = (u32, Adjustment)>) -> bool {
        let start = self.adjustments.len();
        self.adjustments.extend(each.take(BURST));
        let end = self.adjustments.len();
        // What packets carry is changed.
        if start < end {
            self.deepen(Depth::Deep);
        }
        start == end || self.list.try_push(Change::Adjust(start, end)).is_ok()
    }

    fn last_from(&self, start: usize) -> &[(u32, Translation)] {
        self.translations.get(start..).unwrap_or_default()
    }

    /// Does those from number `first` on to frames that are alive; those for which there is no room, or
    /// that are broken, are dropped.
    pub(super) fn apply(
        &self,
        first: usize,
        open: &mut ArrayVec<Open<'_>, BURST>,
        alive: &mut u32,
        source: &Source<'_>,
    ) {
        for change in self.list.iter().skip(first) {
            let before = open.len();
            let reason = match *change {
                Change::Edit(which, edit) => {
                    retain(open, alive, |bit, frame| which & bit == 0 || rewrite(&edit, frame));
                    failure(&edit)
                }
                Change::Nsh(at) => {
                    let header = self.headers.get(at);
                    let put = |frame: &mut Open<'_>| header.is_some_and(|of| push_nsh(of, frame));
                    retain(open, alive, |_, frame| put(frame));
                    DropReason::TooLong
                }
                Change::Translate(start, end) => {
                    let all = self.translations.get(start..end).unwrap_or_default();
                    retain_each(open, alive, all, translate);
                    DropReason::Malformed
                }
                Change::Adjust(start, end) => {
                    let all = self.adjustments.get(start..end).unwrap_or_default();
                    retain_each(open, alive, all, adjust);
                    DropReason::Malformed
                }
            };
            source.stats.count_drops(reason, before.saturating_sub(open.len()));
        }
    }
}

/// Why a change of a frame fails.
const fn failure(edit: &Edit) -> DropReason {
    match edit {
        // What was to be taken off is not all there.
        Edit::PopVlan
        | Edit::PopMpls { .. }
        | Edit::PopEthernet
        | Edit::EmptyEthernet
        | Edit::PopNsh { .. } => DropReason::Malformed,
        // There is no room.
        Edit::PushVlan { .. }
        | Edit::PushMpls { .. }
        | Edit::PushEthernet { .. }
        | Edit::Set { .. }
        | Edit::SetVlan { .. }
        | Edit::RaiseDrop(_) => DropReason::TooLong,
    }
}

/// Changes some of the frames that are alive, each by a change of its own; those have bits in order. Frames stay
/// for which that could be done.
fn retain_each<C>(
    open: &mut ArrayVec<Open<'_>, BURST>,
    alive: &mut u32,
    all: &[(u32, C)],
    change: impl Fn(&C, &mut Open<'_>) -> bool,
) {
    let mut all = all.iter().peekable();
    retain(open, alive, |bit, frame| {
        while all.next_if(|(own, _)| *own < bit).is_some() {}
        let own = all.next_if(|(own, _)| *own == bit);
        own.is_none_or(|(_, how)| change(how, frame))
    });
}

/// Has frames that are alive stay if `keep` says so, which has their bits in order.
fn retain(
    open: &mut ArrayVec<Open<'_>, BURST>,
    alive: &mut u32,
    mut keep: impl FnMut(u32, &mut Open<'_>) -> bool,
) {
    let mut bits = bits(*alive);
    open.retain(|frame| {
        let bit = bits.next().unwrap_or(0);
        let stays = keep(bit, frame);
        if !stays {
            *alive &= !bit;
        }
        stays
    });
}

#[cfg(test)]
mod tests {
    use ethdev::QueueStats;
    use packet::{EditRoom, Frame};

    use super::*;
    use crate::bridge::BridgeId;

    /// Why frames with these bytes are dropped that get this change so many times.
    fn dropped(bytes: &[u8], edit: Edit, times: usize) -> Vec<(DropReason, u64)> {
        let (stats, mut room) = (QueueStats::default(), EditRoom::default());
        let mut changes = Changes::default();
        assert!((0..times).all(|_| changes.edit((u32::MAX, edit))));
        let mut editing = room.begin();
        let mut open: ArrayVec<_, BURST> =
            (0..2).filter_map(|_| editing.open(&Frame::from_bytes(bytes))).collect();
        let mut alive = 3;
        changes.apply(0, &mut open, &mut alive, &Source::new((BridgeId(0), 0), &stats, 0));
        assert_eq!((open.len(), alive), if stats.dropped() == 0 { (2, 3) } else { (0, 0) });
        let counts = DropReason::ALL.map(|reason| (reason, stats.snapshot().dropped_for(reason)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn frames_that_cannot_be_changed_are_counted_by_why() {
        let tagged = [&[0; 12][..], &[0x81, 0, 0]].concat();
        let malformed = vec![(DropReason::Malformed, 2)];
        assert_eq!(dropped(&tagged, Edit::PopVlan, 1), malformed);
        assert_eq!(dropped(&[0; 13], Edit::PopEthernet, 1), malformed);
        for ether_type in [None, Some(0x0800)] {
            let pop = Edit::PopNsh { ether_type };
            assert_eq!(dropped(&[0; 60], pop, 1), malformed, "{ether_type:?}");
        }
        let push = Edit::PushEthernet { ether_type: 0x0800 };
        assert_eq!(dropped(&[0; 60], push, 1), []);
        assert_eq!(dropped(&[0; 60], push, MAX_CHANGES), [(DropReason::TooLong, 2)]);
    }
}
