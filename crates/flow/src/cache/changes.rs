//! What has changed lately in the tables that a cache goes by, and whether a way that was decided before
//! still holds.
//!
//! A way holds as long as no rule has come that is for its packets in a table that they pass and is not
//! below the one that they found there, and none has gone that they found. So it is not decided anew for
//! changes that are about other packets. What is asked first is cheap: a few words of which all rules
//! that have come want one of some values.

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::key::{Key, slot};
use crate::path::{Basis, Path, TableSet};
use crate::pipeline::Pipeline;
use crate::rule::{Rule, Stats};
use crate::tables::log::{Batch, Fate, Turn};
use crate::walk::trace::{Known, Trace};

/// The most versions that are remembered: a way that was not asked for so long is decided anew.
const MAX_EPOCHS: usize = 64;

/// The most changes in them, of which those of a table count as so many more.
const MAX_TURNS: usize = 8192;
const TURNS_OF_TABLE: usize = 16;

/// Words that are asked first.
const PROBES: usize = 3;

/// Fewer rules than this are all looked at.
const FEW: usize = 4;

/// What a way comes to by some changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what it was.
    Holds,
    /// It may be another one.
    Unsure,
    /// It is none any more.
    Over,
}

/// Values that may be in a set, a bit for all that look alike.
#[derive(Clone, Debug)]
struct Values([u64; 32]);

impl Values {
    const NONE: Self = Self([0; 32]);

    const fn place(value: u64) -> (usize, u64) {
        let hash = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((hash >> 59) as usize, 1 << (hash >> 53 & 63))
    }

    fn add(&mut self, value: u64) {
        let (at, bit) = Self::place(value);
        if let Some(word) = self.0.get_mut(at) {
            *word |= bit;
        }
    }

    #[inline]
    fn may_have(&self, value: u64) -> bool {
        let (at, bit) = Self::place(value);
        self.0.get(at).is_some_and(|word| word & bit != 0)
    }
}

/// A word for which all rules ask, and what they want it to be.
#[derive(Clone, Debug)]
struct Probe {
    word: u8,
    bits: u64,
    values: Values,
}

/// What has changed in one table.
#[derive(Debug)]
struct Delta {
    table: u8,
    batches: Box<[Arc<Batch>]>,
    /// Rules that are parts of conjunctions are there, or were: whatever changes may matter.
    has_parts: bool,
    /// The highest priority of the rules that may be for packets now; without any, `None`.
    top: Option<u16>,
    /// The counts of rules that are gone.
    gone: Values,
    probes: ArrayVec<Probe, PROBES>,
}

impl Delta {
    fn new(table: u8, batches: &[Arc<Batch>], has_parts: bool) -> Self {
        let (batches, probes) = (batches.into(), ArrayVec::new());
        let mut delta = Self { table, batches, has_parts, top: None, gone: Values::NONE, probes };
        let mut gone = Values::NONE;
        for turn in delta.turns().filter(|turn| turn.fate != Fate::Come) {
            gone.add(address(&turn.rule.stats));
        }
        delta.gone = gone;
        delta.top = delta.wanted().map(|turn| turn.rule.priority).max();
        delta.probes = delta.probes();
        delta
    }

    fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.batches.iter().flat_map(|batch| &batch.turns)
    }

    /// Those by which other packets may find something else than before.
    fn wanted(&self) -> impl Iterator<Item = &Turn> {
        self.turns().filter(|turn| self.has_parts || turn.fate == Fate::Come)
    }

    /// The words that tell the most.
    fn probes(&self) -> ArrayVec<Probe, PROBES> {
        let mut probes = ArrayVec::new();
        let mut wanted = self.wanted();
        let Some(first) = wanted.next() else { return probes };
        let mut words = first.rule.pattern.mask().words().to_vec();
        // By conjunctions, a packet is looked up with several of them.
        words.retain(|(word, _)| usize::from(*word) != slot::CONJ_ID.word());
        let mut count = 1;
        for turn in wanted {
            count += 1;
            let mask = turn.rule.pattern.mask();
            words.retain_mut(|(word, bits)| {
                *bits &= mask.word(*word);
                *bits != 0
            });
        }
        if count < FEW {
            return probes;
        }
        words.sort_by_key(|(_, bits)| std::cmp::Reverse(bits.count_ones()));
        for (word, bits) in words.into_iter().take(PROBES) {
            let mut values = Values::NONE;
            self.wanted().for_each(|turn| values.add(turn.rule.pattern.word(word).0 & bits));
            probes.push(Probe { word, bits, values });
        }
        probes
    }

    /// What becomes of a way that came to this table, of which this is known.
    fn judge(&self, view: &View<'_>) -> Verdict {
        if view.rule.is_some_and(|rule| self.is_gone(rule)) {
            return Verdict::Over;
        }
        if self.may_find_another(view) { Verdict::Unsure } else { Verdict::Holds }
    }

    fn is_gone(&self, rule: &Rule) -> bool {
        let is_it =
            |turn: &Turn| turn.fate != Fate::Come && Arc::ptr_eq(&turn.rule.stats, &rule.stats);
        self.gone.may_have(address(&rule.stats)) && self.turns().any(is_it)
    }

    fn may_find_another(&self, view: &View<'_>) -> bool {
        // Among parts of conjunctions the priority of what is found says little.
        let least = view.rule.filter(|_| !self.has_parts).map_or(0, |rule| rule.priority);
        if self.top.is_none_or(|top| top < least) {
            return false;
        }
        let passes = |probe: &Probe| {
            let (value, known) = view.word(probe.word);
            known & probe.bits != probe.bits || probe.values.may_have(value & probe.bits)
        };
        self.probes.iter().all(passes)
            && self
                .wanted()
                .any(|turn| turn.rule.priority >= least && self.may_be(&turn.rule, view))
    }

    /// Whether a rule may be for packets of which this is known.
    fn may_be(&self, rule: &Rule, view: &View<'_>) -> bool {
        let pattern = &rule.pattern;
        let mut words = pattern.mask().words().iter().zip(pattern.values());
        words.all(|((word, bits), wanted)| {
            let (value, known) = view.word(*word);
            let is_left_open = self.has_parts && usize::from(*word) == slot::CONJ_ID.word();
            is_left_open || (value ^ wanted) & bits & known == 0
        })
    }
}

fn address(stats: &Arc<Stats>) -> u64 {
    // Neighbours in memory are told apart by their higher bits.
    (Arc::as_ptr(stats).addr() as u64) >> 3
}

/// What is known of packets where they were looked up.
struct View<'v> {
    /// The rule that they found.
    rule: Option<&'v Rule>,
    /// How many tables they had passed.
    at: usize,
    trace: Option<&'v Trace>,
    /// One of them as it came in, if it is about that one.
    key: Option<&'v Key>,
}

impl View<'_> {
    /// What is known of a word, and which bits.
    #[inline]
    fn word(&self, word: u8) -> (u64, u64) {
        match (self.trace.map(|trace| trace.at(self.at, word)), self.key) {
            (Some(Known::Is(value)), _) => return (value, u64::MAX),
            (Some(Known::Own), Some(key)) => return (key.word(word.into()), u64::MAX),
            _ => {}
        }
        self.rule.map_or((0, 0), |rule| rule.pattern.word(word))
    }
}

/// What has changed from one version to the next.
#[derive(Debug)]
struct Epoch {
    /// The version that it made.
    version: u32,
    /// What paths that depend on any of it are over by.
    whole: Basis,
    /// Tables of which it is known what has changed.
    tables: TableSet,
    deltas: Box<[Delta]>,
    turns: usize,
}

impl Epoch {
    /// What a path comes to; if `key` is given, for a packet that took it.
    fn judge(&self, path: &Path, key: Option<&Key>) -> Verdict {
        if path.basis.meets(&self.whole) || path.basis.counted.meets(&self.tables) {
            return Verdict::Over;
        }
        if !path.basis.tables.meets(&self.tables) {
            return Verdict::Holds;
        }
        let mut verdict = Verdict::Holds;
        for delta in &self.deltas {
            for (at, visit) in path.visits.iter().enumerate() {
                if visit.table != delta.table {
                    continue;
                }
                let (rule, trace) = (visit.rule.as_deref(), path.trace.as_ref());
                match delta.judge(&View { rule, at, trace, key }) {
                    Verdict::Holds => {}
                    Verdict::Unsure => verdict = Verdict::Unsure,
                    Verdict::Over => return Verdict::Over,
                }
            }
        }
        verdict
    }
}

/// The last versions.
#[derive(Debug)]
pub(super) struct Changes {
    epochs: VecDeque<Epoch>,
    version: u32,
    turns: usize,
}

impl Changes {
    /// Of the first version.
    pub(super) const fn new() -> Self {
        Self { epochs: VecDeque::new(), version: 1, turns: 0 }
    }

    /// The present version.
    #[inline]
    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// Another pipeline decides from now on. Returns whether it is known what is different.
    pub(super) fn add(&mut self, pipeline: &Pipeline, before: &Pipeline) -> bool {
        let (Some(mut whole), Some(version)) =
            (pipeline.changed(before), self.version.checked_add(1))
        else {
            return false;
        };
        let mut tables = TableSet::default();
        let mut deltas = Vec::new();
        let changed = std::mem::take(&mut whole.tables);
        for table in changed.iter() {
            match pipeline.tables.turns_since(&before.tables, table) {
                Some(([], _)) => {}
                Some((batches, has_parts)) => {
                    tables.insert(table);
                    deltas.push(Delta::new(table, batches, has_parts));
                }
                None => whole.tables.insert(table),
            }
        }
        whole.counted = whole.tables;
        if deltas.is_empty() && whole == Basis::default() {
            return true;
        }
        let turns = deltas.iter().map(|delta| delta.turns().count() + TURNS_OF_TABLE).sum();
        self.version = version;
        self.turns += turns;
        self.epochs.push_back(Epoch { version, whole, tables, deltas: deltas.into(), turns });
        while self.epochs.len() > MAX_EPOCHS || self.turns > MAX_TURNS {
            let Some(oldest) = self.epochs.pop_front() else { break };
            self.turns -= oldest.turns;
        }
        true
    }

    /// Nobody asks for anything from before any more.
    pub(super) fn restart(&mut self) {
        *self = Self::new();
    }

    /// Whether it is known what has changed since a version.
    pub(super) fn reach(&self, version: u32) -> bool {
        let oldest = self.epochs.front().map_or(self.version, |epoch| epoch.version - 1);
        version >= oldest
    }

    /// What a path that held in a version comes to by now; if `key` is given, for a packet that took it.
    pub(super) fn judge(&self, path: &Path, version: u32, key: Option<&Key>) -> Verdict {
        if !self.reach(version) {
            return Verdict::Over;
        }
        let mut verdict = Verdict::Holds;
        // Mostly it is the last one alone.
        for epoch in self.epochs.iter().rev().take_while(|epoch| epoch.version > version) {
            match epoch.judge(path, key) {
                Verdict::Holds => {}
                Verdict::Unsure => verdict = Verdict::Unsure,
                Verdict::Over => return Verdict::Over,
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
