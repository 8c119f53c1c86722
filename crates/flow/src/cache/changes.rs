//! What has changed lately in the tables that a cache goes by, and whether a way that was decided before
//! still holds.
//!
//! A way holds as long as no rule has come that is for its packets in a table that they pass and is not
//! below the one that they found there, and none has gone that they found. So it is not decided anew for
//! changes that are about other packets. Most are about none that were there at all, and then nothing is
//! asked of any way; else each that is taken is judged by the rules that have changed.
//!
//! - `delta`: what has changed in one table
//! - `finders`: which path found a rule
//! - `seen`: what packets have been, all in one

mod delta;
mod finders;
mod seen;

use std::collections::VecDeque;

use super::effort::Effort;
use crate::key::Key;
use crate::path::{Basis, Path, TableSet};
use crate::pipeline::Pipeline;
use crate::walk::trace::Trace;
pub(super) use delta::Verdict;
use delta::{Delta, View};
pub(super) use seen::Pointed;
use seen::{Seen, Words};

/// The most versions that are remembered: a way that was not asked for so long is decided anew.
const MAX_EPOCHS: usize = 64;

/// The most changes in them, of which those of a table count as so many more.
const MAX_TURNS: usize = 8192;
const TURNS_OF_TABLE: usize = 16;

/// The most changes that are looked at when a version is taken over, and that paths are compared with of one table: of
/// tables in which more have changed all paths are over.
const MAX_AT_ONCE: usize = 1 << 15;
const MAX_OF_TABLE: usize = 512;

/// After so many versions that ways were judged for it is noted what packets are; after twice as many
/// again that begins anew, if there is a reason, and so on.
const FIRST_ERA: u32 = 4;
const LONGEST_ERA: u32 = 1 << 13;

/// What has changed in some tables.
#[derive(Debug, Default)]
struct Changed {
    tables: TableSet,
    /// Those of them in which so much has changed that all paths through them are over.
    whole: TableSet,
    deltas: Box<[Delta]>,
}

impl Changed {
    fn new(mut deltas: Vec<Delta>) -> Self {
        let (mut tables, mut whole) = <(TableSet, TableSet)>::default();
        deltas.iter().for_each(|delta| tables.insert(delta.table));
        deltas.retain(|delta| {
            let is_little = delta.len() <= MAX_OF_TABLE;
            if !is_little {
                whole.insert(delta.table);
            }
            is_little
        });
        Self { tables, whole, deltas: deltas.into() }
    }

    /// Whether there is anything.
    fn is_nothing(&self) -> bool {
        self.tables == TableSet::default()
    }

    /// How many changes are remembered by it.
    fn turns(&self) -> usize {
        self.deltas.iter().map(|delta| delta.len() + TURNS_OF_TABLE).sum()
    }

    /// What a path comes to; if `key` is given, for a packet that took it.
    fn judge(&self, path: &Path, key: Option<&Key>, effort: &mut Effort) -> Verdict {
        if path.basis.counted.meets(&self.tables) || path.basis.tables.meets(&self.whole) {
            return Verdict::Over;
        }
        if !path.basis.tables.meets(&self.tables) {
            return Verdict::Holds;
        }
        if !effort.take(path.visits.len()) {
            return Verdict::Over;
        }
        let mut verdict = Verdict::Holds;
        for (at, visit) in path.visits.iter().enumerate() {
            let Some(delta) = self.of(visit.table) else { continue };
            let (rule, trace) = (visit.rule.as_deref(), path.trace.as_ref());
            match delta.judge(&View { rule, at, trace, key }, effort) {
                Verdict::Holds => {}
                Verdict::Unsure => verdict = Verdict::Unsure,
                Verdict::Over => return Verdict::Over,
            }
        }
        verdict
    }

    /// What has changed in a table.
    #[inline]
    fn of(&self, table: u8) -> Option<&Delta> {
        if !self.tables.has(table) {
            return None;
        }
        // They are in order.
        let at = self.deltas.binary_search_by_key(&table, |delta| delta.table).ok()?;
        self.deltas.get(at)
    }
}

/// What has changed from one version to the next.
#[derive(Debug)]
struct Epoch {
    /// The version that it made.
    version: u32,
    /// What paths that depend on any of it are over by.
    whole: Basis,
    /// Of tables of which it is known what has changed: all of it.
    all: Changed,
    /// Of that, what may be about packets of the era, beside what points at paths.
    own: Changed,
    turns: usize,
}

impl Epoch {
    /// Whether it may be about packets of the era.
    fn is_loud(&self) -> bool {
        !self.own.is_nothing() || self.whole != Basis::default()
    }

    /// What a path comes to, which is of the era or not; if `key` is given, for a packet that took it.
    fn judge(
        &self,
        path: &Path,
        is_noted: bool,
        key: Option<&Key>,
        effort: &mut Effort,
    ) -> Verdict {
        if path.basis.meets(&self.whole) {
            return Verdict::Over;
        }
        if is_noted { &self.own } else { &self.all }.judge(path, key, effort)
    }
}

/// When a path was last known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) version: u32,
    /// Since this era began, what takes it was noted.
    pub(super) era: u32,
}

/// The last versions.
#[derive(Debug)]
pub(super) struct Changes {
    epochs: VecDeque<Epoch>,
    version: u32,
    /// The last version that may be about packets of the era, and so is to be judged.
    loud: u32,
    /// The last versions that are not remembered any more: of those, and of all.
    lost_loud: u32,
    lost: u32,
    turns: usize,
    era: u32,
    /// What packets were in this era, in the first of which that is not noted; there if tables change.
    seen: Option<Box<Seen>>,
    /// Paths that are pointed at, and were not told yet.
    pub(super) pointed: Vec<Pointed>,
    /// Words that the next era is to note, too.
    asked: Words,
    /// How many versions have been judged since the era began, and how many are to be before the next.
    judged: u32,
    patience: u32,
    seed: u64,
}

impl Changes {
    /// Of the first version.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            epochs: VecDeque::new(),
            version: 1,
            loud: 1,
            lost_loud: 0,
            lost: 0,
            turns: 0,
            era: 0,
            seen: None,
            pointed: Vec::new(),
            asked: Words::new_const(),
            judged: 0,
            patience: FIRST_ERA,
            seed,
        }
    }

    /// The present version.
    pub(super) const fn now(&self) -> Since {
        Since { version: self.version, era: self.era }
    }

    /// The version since which nothing is to be judged.
    #[inline]
    pub(super) const fn loud(&self) -> u32 {
        self.loud
    }

    /// Whether it is noted what packets are. Then traces are needed of all.
    pub(super) const fn notes(&self) -> bool {
        self.era > 0
    }

    /// Another pipeline decides from now on. Returns whether it is known what is different.
    pub(super) fn add(&mut self, pipeline: &Pipeline, before: &Pipeline) -> bool {
        let (Some(mut whole), Some(version)) =
            (pipeline.changed(before), self.version.checked_add(1))
        else {
            return false;
        };
        let mut deltas = Vec::new();
        let changed = std::mem::take(&mut whole.tables);
        for table in changed.iter() {
            match pipeline.tables.turns_since(&before.tables, table) {
                Some(([], _)) => {}
                Some((batches, has_parts)) => deltas.push(Delta::new(table, batches, has_parts)),
                None => whole.tables.insert(table),
            }
        }
        let deltas = within(deltas, MAX_AT_ONCE, &mut whole.tables);
        whole.counted = whole.tables;
        if deltas.is_empty() && whole == Basis::default() {
            return true;
        }
        let (own, all) = (Changed::new(self.sift(&deltas)), Changed::new(deltas));
        let turns = all.turns();
        self.push(Epoch { version, whole, all, own, turns });
        true
    }

    fn push(&mut self, epoch: Epoch) {
        let is_loud = epoch.is_loud();
        self.version = epoch.version;
        self.turns += epoch.turns;
        self.epochs.push_back(epoch);
        while self.epochs.len() > MAX_EPOCHS || self.turns > MAX_TURNS {
            let Some(oldest) = self.epochs.pop_front() else { break };
            self.turns -= oldest.turns;
            self.lost = oldest.version;
            if oldest.is_loud() {
                self.lost_loud = oldest.version;
            }
        }
        if is_loud {
            self.loud = self.version;
            self.judged += 1;
            self.begin_era();
        }
    }

    /// What may be about packets of the era.
    fn sift(&mut self, deltas: &[Delta]) -> Vec<Delta> {
        let Self { seen, asked, pointed, seed, .. } = self;
        let seen = seen.get_or_insert_with(|| Box::new(Seen::new(*seed)));
        let mut own = Vec::new();
        for delta in deltas {
            let sifted = seen.sift(delta, pointed);
            let Some(turn) = sifted.turns().next() else { continue };
            seen.ask(delta, turn, asked);
            own.push(sifted);
        }
        own
    }

    /// Begins the next era, if there is a reason to: it can be told by more words, or by fewer packets.
    /// What has come before is judged once more, each packet by itself.
    fn begin_era(&mut self) {
        let (Some(seen), Some(era)) = (&mut self.seen, self.era.checked_add(1)) else { return };
        if self.judged < self.patience || !seen.is_full() && self.asked.is_empty() {
            return;
        }
        seen.restart(&self.asked);
        self.asked.clear();
        (self.era, self.judged) = (era, 0);
        self.patience = (self.patience * 2).min(LONGEST_ERA);
    }

    /// Nobody asks for anything from before any more.
    pub(super) fn restart(&mut self) {
        let mut seen = self.seen.take().filter(|_| self.era > 0);
        if let Some(seen) = &mut seen {
            seen.restart(&[]);
        }
        let Self { era, patience, seed, .. } = *self;
        *self = Self { seen, era, patience, ..Self::new(seed) };
    }

    /// A packet came in as this and takes a path, of which this is known.
    pub(super) fn note(&mut self, key: &Key, trace: Option<&Trace>) {
        if let Some(seen) = self.seen.as_mut().filter(|_| self.era > 0) {
            seen.note(key, trace);
        }
    }

    /// A packet that was noted takes another way by now, of which this is known.
    pub(super) fn note_values(&mut self, trace: Option<&Trace>) {
        if let Some(seen) = self.seen.as_mut().filter(|_| self.era > 0) {
            seen.note_values(trace);
        }
    }

    /// There is another path, of this number.
    pub(super) fn note_path(&mut self, path: &Path, id: u32, is_there: &impl Fn(u32) -> bool) {
        if let Some(seen) = self.seen.as_mut().filter(|_| self.era > 0) {
            seen.note_path(path, id, is_there);
        }
    }

    /// Whether all that is noted is known by a trace.
    pub(super) fn is_told_by(&self, trace: &Trace) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.is_told_by(trace))
    }

    /// Whether it is known what has changed since then.
    pub(super) const fn reach(&self, since: Since) -> bool {
        since.version >= if since.era == self.era { self.lost_loud } else { self.lost }
    }

    /// What a path that held then comes to by now; if `key` is given, for a packet that took it. Where it would take more
    /// than this effort to tell, it is over.
    pub(super) fn judge(
        &self,
        path: &Path,
        since: Since,
        key: Option<&Key>,
        effort: &mut Effort,
    ) -> Verdict {
        if !self.reach(since) {
            return Verdict::Over;
        }
        let is_noted = since.era == self.era;
        let mut verdict = Verdict::Holds;
        if is_noted && since.version >= self.loud {
            return verdict;
        }
        // Mostly it is the last one alone.
        let epochs = self.epochs.iter().rev().take_while(|epoch| epoch.version > since.version);
        for epoch in epochs {
            match epoch.judge(path, is_noted, key, effort) {
                Verdict::Holds => {}
                Verdict::Unsure => verdict = Verdict::Unsure,
                Verdict::Over => return Verdict::Over,
            }
        }
        verdict
    }
}

/// Leaves out those in which the most has changed, as long as there are more changes than these: they count as a whole.
fn within(mut deltas: Vec<Delta>, most: usize, whole: &mut TableSet) -> Vec<Delta> {
    deltas.sort_by_key(Delta::len);
    let mut left = most;
    deltas.retain(|delta| {
        let rest = left.checked_sub(delta.len());
        left = rest.unwrap_or_default();
        if rest.is_none() {
            whole.insert(delta.table);
        }
        rest.is_some()
    });
    deltas.sort_by_key(|delta| delta.table);
    deltas
}

#[cfg(test)]
pub(super) mod tests;
