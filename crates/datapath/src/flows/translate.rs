//! Frames whose addresses are translated where their connections say so: they go on with these, as does the
//! copy that was tracked.

use arrayvec::ArrayVec;
use conntrack::Fragment;
use ethdev::DropReason;
use packet::{BURST, EditRoom, Editing, Open};

use super::enter::{Entry, Onward};
use super::run::{Run, Steps, bits};
use super::track::{Met, Tracking};
use crate::datapath::Source;
use crate::outputs::Outputs;

impl<'f> Run<'_, 'f> {
    /// Finds out which connections frames are of, and translates them. A copy goes on if there is something
    /// that it goes on with. Returns the fragments that wait for others.
    #[inline(never)]
    pub(super) fn translate<'r>(
        &mut self,
        tracking: Tracking<'_>,
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        (editing, cut): (&mut Editing<'r>, &mut EditRoom),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) -> Vec<Fragment>
    where
        'f: 'r,
    {
        let Steps { bridge, flows, manner, .. } = self.steps;
        let mut met = None;
        self.with(open.as_deref(), cut, |frames| met = flows.meet(&frames, tracking, manner));
        let all = self.alive.count_ones();
        let fragments = met.as_ref().map_or(0, |met| met.fragments);
        let fragments = self.set_apart(fragments, tracking.track, open.as_mut(), cut, source);
        let before = self.alive;
        // Nobody gets a packet that should have been translated, and is not.
        let is_all = |met: &Met| met.frames.len() == (all - met.fragments.count_ones()) as usize;
        let Some(mut met) = met.filter(is_all) else {
            self.drop_open(before, DropReason::FlowTooDeep, open.as_mut(), source);
            return fragments;
        };
        let first = self.changes.len();
        let each = bits(before).zip(&met.frames).filter_map(|(bit, (_, how))| Some((bit, (*how)?)));
        let is_translated = self.changes.translate(each);
        let adjusted =
            bits(before).enumerate().filter_map(|(at, bit)| Some((bit, met.adjusted(at)?)));
        if !is_translated || !self.changes.adjust(adjusted) {
            self.drop_open(before, DropReason::FlowTooDeep, open.as_mut(), source);
            return fragments;
        }
        if self.changes.len() > first {
            self.change(first, open, editing, source);
        }
        if tracking.round == 0 {
            return fragments;
        }
        met.keep(before, self.alive);
        let entry = Entry { bridge, flows, manner };
        self.with(open.as_deref(), cut, |frames| {
            if frames.len() == met.frames.len() {
                entry.track_on((frames, met), tracking, source, outputs, onward);
            }
        });
        fragments
    }
}
