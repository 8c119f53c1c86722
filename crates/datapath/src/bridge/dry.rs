//! What a bridge would decide about a frame.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::{BURST, Burst};

use super::runs::{Run, gather};
use super::{Bridge, Lookup};
use crate::datapath::Source;
use crate::outputs::Outputs;
use crate::stage::{Gated, Plain, Stage, Vlans};

impl Bridge {
    /// As [`decide`](Self::decide), but nothing is learnt from it.
    pub(crate) fn decide_dry(
        &self,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let port = source.port;
        let vlans = || Vlans::new(&self.vlans, port);
        match (&self.doors, self.vlans.is_used()) {
            (None, false) => self.decide_dry_in(&Plain, frames, source, outputs),
            (None, true) => self.decide_dry_in(&vlans(), frames, source, outputs),
            (Some(doors), _) if !doors.learns(port) => {
                source.stats.count_drops(DropReason::SpanningTree, frames.len());
            }
            (Some(doors), false) => {
                self.decide_dry_in(&Gated::new(Plain, doors, port), frames, source, outputs);
            }
            (Some(doors), true) => {
                self.decide_dry_in(&Gated::new(vlans(), doors, port), frames, source, outputs);
            }
        }
    }

    #[cold]
    fn decide_dry_in<S: Stage>(
        &self,
        stage: &S,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let mut runs = ArrayVec::<Run<S::Key>, BURST>::new();
        gather::<S>(frames, source.stats, &mut runs);
        let mut lookups = ArrayVec::<Lookup<S::Meta>, BURST>::new();
        let mut admitted = None;
        for run in &runs {
            self.classify(stage, run, &mut admitted, source.stats, &mut lookups);
        }
        if !stage.forwards() {
            return source.stats.count_drops(DropReason::SpanningTree, frames.len());
        }
        let flood =
            lookups.iter().fold(0, |all, lookup| all | self.find(stage, lookup, source, outputs));
        if flood != 0 {
            self.flood(stage, &lookups, flood, source, outputs);
        }
    }
}
