//! Frames whose addresses are translated where their connections say so: they go on with these, as does the
//! copy that was tracked.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use flow::Track;
use packet::{BURST, EditRoom, Editing, Frame, Open};

use super::enter::{Entry, Onward};
use super::run::{Run, Steps, bits};
use super::track::Met;
use crate::datapath::Source;
use crate::outputs::Outputs;

impl<'f> Run<'_, 'f> {
    /// Finds out which connections frames are of, and translates them. A copy goes on if there is something
    /// that it goes on with, which has number `round`.
    #[inline(never)]
    pub(super) fn translate<'r>(
        &mut self,
        (track, round): (&Track, u32),
        open: &mut Option<ArrayVec<Open<'r>, BURST>>,
        (editing, cut): (&mut Editing<'r>, &mut EditRoom),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) where
        'f: 'r,
    {
        let Steps { bridge, flows, manner, .. } = self.steps;
        let before = self.alive;
        let mut met = None;
        let meet = |frames: &[Frame<'_>], _| met = flows.meet(frames, (track, round), manner);
        self.with(open.as_deref(), cut, meet);
        // Nobody gets a packet that should have been translated, and is not.
        let is_all = |met: &Met| met.frames.len() == before.count_ones() as usize;
        let Some(mut met) = met.filter(is_all) else {
            return self.drop_open(before, DropReason::FlowTooDeep, open.as_mut(), source);
        };
        let first = self.changes.len();
        let each = bits(before).zip(&met.frames).filter_map(|(bit, (_, how))| Some((bit, (*how)?)));
        if !self.changes.translate(each) {
            return self.drop_open(before, DropReason::FlowTooDeep, open.as_mut(), source);
        }
        if self.changes.len() > first {
            self.change(first, open, editing, source);
        }
        if round == 0 {
            return;
        }
        met.keep(before, self.alive);
        let entry = Entry { bridge, flows, manner };
        self.with(open.as_deref(), cut, |frames, _| {
            if frames.len() == met.frames.len() {
                entry.track_on((frames, met), (track, round), source, outputs, onward);
            }
        });
    }
}
