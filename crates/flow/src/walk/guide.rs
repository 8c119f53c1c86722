//! A way that a packet took before, which is found out anew since one of the rules that it found is gone, or
//! another one.
//!
//! In each table where the packet comes to be what it was there before, as far as any rule of that table asks, it
//! finds the rule that it found before. Only else it is looked up.

use std::sync::Arc;

use super::trace::Trace;
use crate::classifier::Classifier;
use crate::key::{Key, WORDS};
use crate::path::{Path, Visit};
use crate::rule::{Rule, Stats};

/// Ways on which packets change more often are no help.
const MAX_STEPS: usize = 32;

/// The way before, and what the packet is beside what it was there.
#[derive(Debug)]
pub(crate) struct Guide<'w> {
    visits: &'w [Visit],
    trace: &'w Trace,
    /// What the rule counts in that is not known to be found still.
    gone: u64,
    /// What the packet was when it had passed fewer tables than `passed`.
    before: Key,
    passed: usize,
    /// Words in which it is something else by now, a bit for each, and by how much.
    differs: u64,
    difference: Key,
}

impl<'w> Guide<'w> {
    /// By a path, which a packet took that came in as `key`, and would take still but for the rule that counts where
    /// `gone` says; `None` if that is no help.
    pub(crate) fn new(path: &'w Path, key: &Key, gone: u64) -> Option<Box<Self>> {
        let trace = path.trace.as_ref().filter(|trace| trace.is_of_one(MAX_STEPS))?;
        Some(Box::new(Self {
            visits: &path.visits,
            trace,
            gone,
            before: *key,
            passed: 0,
            differs: 0,
            difference: Key::default(),
        }))
    }

    /// What the packet finds in a table when it has passed so many, if that is known. It `is_same` as when it was
    /// asked for the last time, or not.
    pub(super) fn find(
        &mut self,
        at: usize,
        table: u8,
        rules: &Classifier<Arc<Rule>>,
        (key, is_same): (&Key, bool),
    ) -> Option<Option<&'w Arc<Rule>>> {
        let was_same = self.advance(at);
        if !(was_same && is_same) {
            self.compare(key);
        }
        let visit = self.visits.get(at).filter(|visit| visit.table == table)?;
        let is_gone = |rule: &Arc<Rule>| address(&rule.stats) == self.gone;
        if visit.rule.as_ref().is_some_and(is_gone) || rules.has_parts() || self.may_tell(rules) {
            return None;
        }
        Some(visit.rule.as_ref())
    }

    /// The packet was this when it had passed so many tables. Returns whether it was that before.
    fn advance(&mut self, at: usize) -> bool {
        let is_same = self.trace.steps_of(self.passed, at, |word, value| {
            if let Some(own) = self.before.0.get_mut(usize::from(word)) {
                *own = value;
            }
        });
        self.passed = at + 1;
        is_same
    }

    /// Finds out in which words the packet is something else.
    fn compare(&mut self, key: &Key) {
        self.differs = 0;
        let all = self.before.0.iter().zip(&key.0).zip(&mut self.difference.0);
        for (at, ((before, now), difference)) in all.enumerate().take(WORDS) {
            *difference = before ^ now;
            self.differs |= u64::from(*difference != 0) << at;
        }
    }

    /// Whether rules may tell what the packet is from what it was.
    fn may_tell(&self, rules: &Classifier<Arc<Rule>>) -> bool {
        let mut left = self.differs;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            if self.difference.word(at) & rules.mask().word(at) != 0 {
                return true;
            }
            left &= left - 1;
        }
        false
    }
}

/// What tells a rule from others, whatever becomes of its packets: where it counts.
pub(crate) fn address(stats: &Arc<Stats>) -> u64 {
    // Neighbours in memory are told apart by their higher bits.
    (Arc::as_ptr(stats).addr() as u64) >> 3
}
