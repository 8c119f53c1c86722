//! A way that a packet took before, which is found out anew since one of the rules that it found is gone, or
//! another one.
//!
//! In each table where the packet comes to be what it was there before, as far as any rule of that table asks, it
//! finds the rule that it found before, or the one in its place. Only else it is looked up.

use std::sync::Arc;

use super::trace::{Trace, Tracer};
use crate::classifier::Classifier;
use crate::key::Key;
use crate::path::{Path, Visit};
use crate::rule::{Rule, Stats};

/// Ways on which packets change more often are no help.
const MAX_STEPS: usize = 32;

/// A rule that is not what it was.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// What it counts in.
    pub(crate) rule: u64,
    /// Where it was in memory, as long as somebody has it.
    pub(crate) was: usize,
    /// The one that is found in its place, if that is known.
    pub(crate) heir: Option<Arc<Rule>>,
}

/// The way before.
#[derive(Debug)]
pub(crate) struct Guide<'w> {
    visits: &'w [Visit],
    trace: &'w Trace,
    /// The rule that is not found any more.
    gone: &'w Gone,
    /// The packet as it came in.
    key: &'w Key,
    /// The packet was compared with what it was before this look-up, and is to be when it comes to the next at which
    /// it was something else.
    from: usize,
    next: usize,
    /// So many steps of the way now were compared.
    seen: usize,
}

impl<'w> Guide<'w> {
    /// By a path, which a packet took that came in as `key`, and would take still but for the rule that is `gone`;
    /// `None` if that is no help.
    pub(crate) fn new(path: &'w Path, key: &'w Key, gone: &'w Gone) -> Option<Self> {
        let trace = path.trace.as_ref().filter(|trace| trace.is_of_one(MAX_STEPS))?;
        Some(Self { visits: &path.visits, trace, gone, key, from: 0, next: 0, seen: 0 })
    }

    /// What the packet, that is traced, finds in a table when it has passed so many, if that is known.
    #[inline]
    pub(super) fn find(
        &mut self,
        at: usize,
        table: u8,
        rules: &Classifier<Arc<Rule>>,
        tracer: &mut Tracer,
    ) -> Option<Option<&'w Arc<Rule>>> {
        if at >= self.next || tracer.len() > self.seen {
            self.next = tracer.compare(self.key, self.seen, self.trace, (self.from, at));
            (self.from, self.seen) = (at + 1, tracer.len());
        }
        let visit = self.visits.get(at).filter(|visit| visit.table == table)?;
        if rules.has_parts() || tracer.apart.may_be_told_by(rules.mask()) {
            return None;
        }
        let found = visit.rule.as_ref();
        match found.filter(|rule| address(&rule.stats) == self.gone.rule) {
            Some(_) => self.gone.heir.as_ref().map(Some),
            None => Some(found),
        }
    }
}

/// What tells a rule from others, whatever becomes of its packets: where it counts.
pub(crate) fn address(stats: &Arc<Stats>) -> u64 {
    // Neighbours in memory are told apart by their higher bits.
    (Arc::as_ptr(stats).addr() as u64) >> 3
}
