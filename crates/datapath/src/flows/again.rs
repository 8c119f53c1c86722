//! Frames that are looked at anew on their way, since headers were taken off that nobody looks behind.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use flow::{Depth, Frozen, Key, extract, slot, unpadded};
use packet::{BURST, EditRoom, Frame, Open};

use super::enter::{Entry, Group, Manner, Onward};
use super::inlet::ETHERNET_LEN;
use super::run::{Run, Steps};
use super::{Flows, Inner};
use crate::datapath::Source;
use crate::outputs::Outputs;

impl Run<'_, '_> {
    /// Has frames go on with this, which has number `round`, by what they are now.
    #[inline(never)]
    pub(super) fn again(
        &self,
        (next, round): (&Frozen, u32),
        open: Option<&[Open<'_>]>,
        cut: &mut EditRoom,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let Steps { bridge, flows, manner, .. } = self.steps;
        let entry = Entry { bridge, flows, manner };
        self.with(open, cut, |frames| {
            let Some(mut groups) = flows.again(&frames, round, source, manner) else {
                return source.stats.count_drops(DropReason::FlowTooDeep, frames.len());
            };
            let begins = next.key.get_u32(slot::PACKET_TYPE);
            entry.go_on((frames, &mut groups), begins, source, outputs, onward);
        });
    }
}

impl Flows {
    /// The paths of frames that are looked at anew; `None` if they have come round too often.
    fn again(
        &self,
        frames: &[Frame<'_>],
        round: u32,
        source: &Source<'_>,
        manner: Manner,
    ) -> Option<ArrayVec<Group, BURST>> {
        let mut groups = ArrayVec::new();
        let mut inner = self.0.try_borrow_mut().ok()?;
        inner.begin_round()?;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            match inner.look_again(frame) {
                Ok(key) => {
                    if inner.records(manner) {
                        inner.record_again(round, frame, key, source);
                    }
                    inner.group_again(&mut groups, round, (index, frame), key);
                }
                Err(reason) => source.stats.count_drops(reason, 1),
            }
        }
        inner.count(&groups, source, manner);
        Some(groups)
    }
}

impl Inner {
    /// What a frame is by now.
    fn look_again(&self, frame: &Frame<'_>) -> Result<Key, DropReason> {
        let mut key = Key::default();
        let vlans = self.cache.pipeline().vlans.tags();
        let layers = extract(&mut key, frame.head(), frame.len(), vlans, Depth::All);
        match (layers.is_cut, layers.network) {
            // Nobody gets by a rule by headers that are longer than what is looked at.
            (true, _) => Err(DropReason::Malformed),
            (false, 0) => Err(DropReason::TooShort),
            (false, _) => Ok(key),
        }
    }

    /// Adds a frame to those with its path.
    #[inline]
    pub(super) fn group_again(
        &mut self,
        groups: &mut ArrayVec<Group, BURST>,
        round: u32,
        (index, frame): (usize, &Frame<'_>),
        mut key: Key,
    ) {
        let vlans = self.cache.pipeline().vlans.tags();
        self.cache.note_len(&mut key, || unpadded(frame.head(), frame.wire_len(), vlans));
        if let Some(path) = self.cache.find_tracked(round, &mut key) {
            // The place of a header that it does not have is nothing of it.
            let place = if key.is_ethernet() { 0 } else { ETHERNET_LEN };
            Group::add(groups, path, (1_u32 << index, frame.len().saturating_sub(place) as u64));
        }
    }
}
