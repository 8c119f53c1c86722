//! A rule of a path that is exchanged for another one, where all else of it stays as it is: both only write values
//! beside packets and go on to the same table, and what is not the same behind them is nothing that anybody asks for.
//! Then the packet need not go through the tables at all.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::Paths;
use super::mend::{Broken, Lacks};
use crate::classifier::Classifier;
use crate::key::{Key, slot};
use crate::onward::{AllDiffering, MAX_DIFFERING};
use crate::path::Path;
use crate::rule::Rule;
use crate::tables::Tables;
use crate::walk::guide::address;
use crate::walk::trace::{Trace, bit};

/// What becomes of a path by such an exchange.
#[derive(Debug)]
pub(in super::super) struct Exchange {
    /// Where the rule is.
    at: usize,
    /// Steps of its trace, and what is to be there.
    values: ArrayVec<(usize, u64), MAX_DIFFERING>,
}

impl Exchange {
    /// That of a path that is to be mended, if it can be by one.
    pub(in super::super) fn of(broken: &Broken<'_>, tables: &Tables) -> Option<Self> {
        let Broken { path, key, gone: Some(gone) } = broken else { return None };
        // Of packets that go on it is not known what is left to be done of rules that they found before.
        if key.get_u32(slot::RECIRC_ID) != 0 || !path.is_plain() {
            return None;
        }
        let is_gone = |rule: &Arc<Rule>| address(&rule.stats) == gone.rule;
        let at = path.visits.iter().position(|visit| visit.rule.as_ref().is_some_and(is_gone))?;
        let rules = [path.visits.get(at)?.rule.as_ref()?, gone.heir.as_ref()?];
        let [before, now] = rules.map(|rule| rule.onward.as_ref());
        let differing = before?.differing(now?)?;
        if !is_unseen(&differing, path, at, tables) {
            return None;
        }
        let values = values(&differing, path.trace.as_ref()?, key, at)?;
        Some(Self { at, values })
    }
}

/// Whether nobody asks for what differs behind the rule of a path that is exchanged, or writes to these words.
fn is_unseen(differing: &AllDiffering, path: &Path, at: usize, tables: &Tables) -> bool {
    let words = differing.iter().fold(0, |words, of| words | bit(of.word));
    let is_seen_by =
        |mask: &Key| differing.iter().any(|of| mask.word(of.word.into()) & of.bits != 0);
    let own = path.visits.get(at).and_then(|visit| visit.rule.as_ref());
    path.visits.iter().enumerate().all(|(number, visit)| {
        let rules = tables.table(visit.table).filter(|_| number >= at);
        let has_parts = rules.is_some_and(Classifier::has_parts);
        if has_parts || number > at && rules.is_some_and(|rules| is_seen_by(rules.mask())) {
            return false;
        }
        visit.rule.as_ref().is_none_or(|rule| match own {
            // It is looked at once.
            Some(own) if Arc::ptr_eq(&rule.stats, &own.stats) => number == at,
            _ => rule.touched & words == 0 && !is_seen_by(&rule.reads),
        })
    })
}

/// What the trace of a packet that came in as `key` says by now, if that has the steps that it had.
fn values(
    differing: &AllDiffering,
    trace: &Trace,
    key: &Key,
    at: usize,
) -> Option<ArrayVec<(usize, u64), MAX_DIFFERING>> {
    if !trace.is_of_one(usize::MAX) {
        return None;
    }
    let mut values = ArrayVec::new();
    for of in differing {
        let (before, step) = trace.around(of.word, at + 1, key.word(of.word.into()))?;
        let [was, is] = of.writes.map(|write| write.apply(before));
        match step {
            None if was == before && is == before => {}
            Some(number) if is != before && trace.value(number) == Some(was) => {
                values.try_push((number, is)).ok()?;
            }
            _ => return None,
        }
    }
    Some(values)
}

impl Paths {
    /// Exchanges a rule of a path that is to be mended.
    pub(in super::super) fn exchange(&mut self, id: u32, exchange: &Exchange) {
        let Some(known) = self.known_mut(id) else { return };
        // It is nobody's heir any more.
        known.is_mended = true;
        if let Lacks::One(gone) = std::mem::replace(&mut known.lacks, Lacks::Nothing)
            && let Some(visit) = known.path.visits.get_mut(exchange.at)
        {
            visit.rule = gone.heir;
        }
        if let Some(trace) = known.path.trace.as_mut().filter(|_| !exchange.values.is_empty()) {
            exchange.values.iter().for_each(|(number, value)| trace.set_value(*number, *value));
            self.note_values(id);
        }
        self.renewed += 1;
        self.stand(id);
    }
}
