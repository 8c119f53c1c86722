//! Frames for no port in particular: which ports of a bridge they go to.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::BURST;

use super::{Bridge, Lookup};
use crate::datapath::Source;
use crate::header;
use crate::outputs::Outputs;
use crate::stage::Stage;

impl Bridge {
    /// Notes the frames of `flood` at all ports of the bridge that are flooded, ready and carry them, except
    /// where they came from.
    #[cold]
    pub(super) fn flood<S: Stage>(
        &self,
        stage: &S,
        lookups: &[Lookup<S::Meta>],
        flood: u32,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let unknown = lookups.iter().filter(|lookup| !header::is_group(lookup.destination.address));
        outputs.note_unknown(flood & unknown.fold(0, |mask, lookup| mask | lookup.mask));
        let runs: ArrayVec<(u32, S::Meta), BURST> = merged(lookups, flood).take(BURST).collect();
        let (mut reached, mut why) = (0, None);
        let others = self.flooded.iter().filter(|port| **port != source.port);
        for &port in others.filter(|port| !self.taps().is_some_and(|taps| taps.keeps(**port))) {
            let is_for = |(_, meta): &(u32, S::Meta)| S::reaches(port, meta);
            if !runs.iter().any(is_for) || !outputs.is_ready(port, source.now) {
                continue;
            }
            for (mask, meta) in runs.iter().filter(|run| is_for(run)) {
                if !stage.floods(port, meta, outputs.bonds()) {
                    why = why.or(Some(DropReason::FlowDrop));
                    continue;
                }
                match stage.edit(port, meta) {
                    Some(edit) if outputs.mark(port, *mask, edit) => reached |= mask,
                    None if stage.refusal(port) != DropReason::WrongVlan => {
                        why = Some(stage.refusal(port));
                    }
                    Some(_) | None => {}
                }
            }
        }
        let lost = flood & !reached;
        for lookup in lookups.iter().filter(|lookup| lookup.mask & lost != 0) {
            let count = (lookup.mask & lost).count_ones() as usize;
            source.stats.count_drops(why.unwrap_or_else(|| S::lost(&lookup.meta)), count);
        }
    }
}

/// The frames of `flood`, those together that are neighbours in `lookups` and of which the same is
/// known.
fn merged<M: Copy + PartialEq>(
    lookups: &[Lookup<M>],
    flood: u32,
) -> impl Iterator<Item = (u32, M)> {
    let flooded = move |lookup: &&Lookup<M>| lookup.mask & flood != 0;
    let mut rest = lookups.iter().filter(flooded).peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut mask = first.mask;
        while let Some(more) = rest.next_if(|next| next.meta == first.meta) {
            mask |= more.mask;
        }
        Some((mask, first.meta))
    })
}
