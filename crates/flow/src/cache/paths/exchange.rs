//! A rule of a path that is exchanged for another one, where all else of it stays as it is: both only write values
//! to packets or beside them and go on to the same table, and what is not the same behind them is nothing that anybody
//! asks for. Then the packet need not go through the tables at all: what is written to it is another value in the
//! operations of the path.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::mend::{Broken, Lacks};
use super::{Known, Paths};
use crate::cache::effort::Effort;
use crate::key::Key;
use crate::onward::{AllDiffering, MAX_DIFFERING};
use crate::path::{Edit, Op, Path};
use crate::rule::Rule;
use crate::tables::Tables;
use crate::walk::guide::{Gone, address};
use crate::walk::trace::{Trace, bit};

/// Operations of a path that write other values, at most.
const MAX_EDITS: usize = 8;

/// What becomes of a path by such an exchange.
#[derive(Debug, Default)]
struct Exchange {
    /// Where the rule is.
    at: usize,
    /// Steps of its trace, and what is to be there.
    values: ArrayVec<(usize, u64), MAX_DIFFERING>,
    /// Operations, and what they are to write.
    edits: ArrayVec<(usize, u64), MAX_EDITS>,
}

impl Exchange {
    /// Finds out that of a path that is to be mended; `None` if it cannot be by one.
    fn find(&mut self, broken: &Broken<'_>, tables: &Tables) -> Option<()> {
        let Broken { path, key, gone: Some(gone), comes_round: false } = broken else {
            // Of packets that have come round it is not known what is left to be done of rules that they found before.
            return None;
        };
        let (at, before) = found(path, gone)?;
        let [before, now] = [before.onward.as_ref()?, gone.heir.as_ref()?.onward.as_ref()?];
        let trace = path.trace.as_ref()?;
        let mut differing = AllDiffering::new();
        if !path.is_plain()
            || !before.compare(now, &mut differing)
            || !is_unseen(&differing, path, at, tables)
        {
            return None;
        }
        if !before.is_for_all() || !now.is_for_all() {
            let there = trace.key_at(at, key);
            if !before.is_for(&there) || !now.is_for(&there) {
                return None;
            }
        }
        self.at = at;
        self.find_values(&differing, trace, key)?;
        self.find_edits(&differing, &path.ops)
    }

    /// What the trace of a packet that came in as `key` says by now, if that has the steps that it had.
    fn find_values(&mut self, differing: &AllDiffering, trace: &Trace, key: &Key) -> Option<()> {
        if !trace.is_of_one(usize::MAX) {
            return None;
        }
        for of in differing {
            let (before, step) = trace.around(of.word, self.at + 1)?;
            let before = before.unwrap_or_else(|| key.word(of.word.into()));
            let [was, is] = of.writes.map(|write| write.apply(before));
            match step {
                None if was == before && is == before => {}
                Some(number) if is != before && trace.value(number) == Some(was) => {
                    self.values.try_push((number, is)).ok()?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// What operations write by now. Nobody else writes to these words.
    fn find_edits(&mut self, differing: &AllDiffering, ops: &[Op]) -> Option<()> {
        for (at, op) in ops.iter().enumerate() {
            let Op::Edit(Edit::Set { word, mask, .. }) = op else { continue };
            let Some(of) = differing.iter().find(|of| of.word == *word) else { continue };
            let (bits, value) = of.writes[1].said();
            if bits != *mask || self.edits.try_push((at, value)).is_err() {
                return None;
            }
        }
        Some(())
    }
}

/// The rule of a path that is gone, and which it is of those that it passes.
fn found<'p>(path: &'p Path, gone: &Gone) -> Option<(usize, &'p Arc<Rule>)> {
    let rules = || path.visits.iter().map(|visit| visit.rule.as_ref()).enumerate();
    let counts_there = |rule: &Arc<Rule>| address(&rule.stats) == gone.rule;
    let is_it = |rule: &Arc<Rule>| Arc::as_ptr(rule).addr() == gone.was;
    let found = rules().find(|(_, rule)| rule.is_some_and(is_it));
    let found = found.filter(|(_, rule)| rule.is_some_and(counts_there));
    let (at, rule) = found.or_else(|| rules().find(|(_, rule)| rule.is_some_and(counts_there)))?;
    Some((at, rule?))
}

/// Whether nobody asks for what differs behind the rule of a path that is exchanged, or writes to these words.
fn is_unseen(differing: &AllDiffering, path: &Path, at: usize, tables: &Tables) -> bool {
    let words = differing.iter().fold(0, |words, of| words | bit(of.word));
    let is_seen_by =
        |mask: &Key| differing.iter().any(|of| mask.word(of.word.into()) & of.bits != 0);
    let own = path.visits.get(at).and_then(|visit| visit.rule.as_ref());
    path.visits.iter().enumerate().all(|(number, visit)| {
        if number >= at
            && let Some(rules) = tables.table(visit.table)
        {
            let is_asked = number > at && rules.asked() & words != 0;
            if rules.has_parts() || is_asked && is_seen_by(rules.mask()) {
                return false;
            }
        }
        visit.rule.as_ref().is_none_or(|rule| match own {
            // It is looked at once.
            Some(own) if Arc::ptr_eq(&rule.stats, &own.stats) => number == at,
            _ => rule.touched & words == 0 && (rule.read & words == 0 || !is_seen_by(&rule.reads)),
        })
    })
}

/// So many paths at most are seen to when rules change, and not when their packets come; fewer where they are long.
const MAX_AT_ONCE: usize = 256;

/// So many of them wait for memory together.
const TOGETHER: usize = 8;

impl Paths {
    /// Exchanges rules of the paths that the last change has pointed at, as far as that is all that is to be done with
    /// these: what each waits for comes sooner where others wait, too. The worker stands still for it, so what there is to
    /// look at is bounded; else it is seen to when its packet comes.
    pub(in super::super) fn exchange_all(&mut self, tables: &Tables) {
        let mut effort = Effort::of_version();
        let pointed = std::mem::take(&mut self.pointed);
        for some in pointed.chunks(TOGETHER).take(MAX_AT_ONCE / TOGETHER) {
            some.iter().for_each(|id| self.fetch(*id));
            for id in some {
                self.exchange_early(*id, tables, &mut effort);
            }
        }
        self.pointed = pointed;
    }

    /// The same of one path, once until a packet takes it: what nobody takes is to become old.
    fn exchange_early(&mut self, id: u32, tables: &Tables, effort: &mut Effort) {
        let is_taken = |known: &&Known| known.only.is_some() && !known.is_left && !known.is_idle();
        let Some(known) = self.known(id).filter(is_taken) else { return };
        if effort.take(known.path.len())
            && self.try_exchange(id, tables, effort)
            && let Some(known) = self.known_mut(id)
        {
            known.exchanged_at = known.packets;
        }
    }

    /// Exchanges a rule of a path that is to be mended, if that is all that there is to do; returns whether it was.
    pub(in super::super) fn try_exchange(
        &mut self,
        id: u32,
        tables: &Tables,
        effort: &mut Effort,
    ) -> bool {
        let mut exchange = Exchange::default();
        let found = self.broken(id, effort).and_then(|broken| exchange.find(&broken, tables));
        if found.is_some() {
            self.exchange(id, &exchange);
        }
        found.is_some()
    }

    fn exchange(&mut self, id: u32, exchange: &Exchange) {
        let seed = self.seed;
        let Some(known) = self.known_mut(id) else { return };
        // It is nobody's heir any more.
        known.is_mended = true;
        if let Lacks::One(gone) = std::mem::replace(&mut known.lacks, Lacks::Nothing)
            && let Some(visit) = known.path.visits.get_mut(exchange.at)
        {
            visit.rule = gone.heir;
        }
        let values = &exchange.values;
        if let Some(trace) = known.path.trace.as_mut().filter(|_| !values.is_empty()) {
            values.iter().for_each(|(number, value)| trace.set_value(*number, *value));
        }
        if !exchange.edits.is_empty() {
            // Another path may have come to be the same since: then either of them is found.
            let hash = known.path.rewrite(&exchange.edits, seed, known.hash);
            self.relist(id, hash);
        }
        if !values.is_empty() {
            self.note_values(id);
        }
        self.renewed += 1;
        self.stand(id);
    }
}
