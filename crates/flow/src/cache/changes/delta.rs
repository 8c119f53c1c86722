//! What has changed in one table, and whether a way that came to it still holds.

use std::cell::OnceCell;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::cache::effort::Effort;
use crate::key::{Key, slot};
use crate::rule::Rule;
use crate::tables::log::{Batch, Turn};
use crate::walk::guide::address;
use crate::walk::trace::{Known, Trace};

/// Words that are asked first.
const PROBES: usize = 3;

/// Fewer rules than this are all looked at.
const FEW: usize = 4;

/// What a way comes to by some changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// It is what it was.
    Holds,
    /// It may be another one.
    Unsure,
    /// It is none any more.
    Over,
}

/// Values that may be in a set, a bit for all that look alike.
#[derive(Clone, Debug)]
pub(super) struct Values([u64; 32]);

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
    pub(super) fn may_have(&self, value: u64) -> bool {
        let (at, bit) = Self::place(value);
        self.0.get(at).is_some_and(|word| word & bit != 0)
    }
}

/// A word for which all rules ask, and what they want it to be.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) word: u8,
    pub(super) bits: u64,
    pub(super) values: Values,
}

/// What is asked before all changes are looked at.
#[derive(Debug)]
pub(super) struct Sieve {
    /// The highest priority of the rules that may be for packets now; without any, `None`.
    pub(super) top: Option<u16>,
    /// The counts of rules that are gone.
    gone: Values,
    pub(super) probes: ArrayVec<Probe, PROBES>,
}

/// What has changed in one table.
#[derive(Debug)]
pub(super) struct Delta {
    pub(super) table: u8,
    /// All changes, or some that were picked from all.
    batches: Box<[Arc<Batch>]>,
    picked: Box<[Turn]>,
    /// How many they are.
    len: usize,
    /// Rules that are parts of conjunctions are there, or were: whatever changes may matter.
    pub(super) has_parts: bool,
    /// Made when it is needed first: mostly it never is.
    sieve: OnceCell<Sieve>,
}

impl Delta {
    pub(super) fn new(table: u8, batches: &[Arc<Batch>], has_parts: bool) -> Self {
        let len = batches.iter().map(|batch| batch.turns.len()).sum();
        let (batches, picked) = (batches.into(), Box::default());
        Self { table, batches, picked, len, has_parts, sieve: OnceCell::new() }
    }

    /// Some of the changes alone.
    pub(super) fn pick(&self, is_picked: impl FnMut(&&Turn) -> bool) -> Self {
        let picked: Box<[Turn]> = self.turns().filter(is_picked).cloned().collect();
        let (batches, len) = (Box::default(), picked.len());
        Self { batches, picked, len, sieve: OnceCell::new(), ..*self }
    }

    /// How many changes they are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.batches.iter().flat_map(|batch| &batch.turns).chain(&self.picked)
    }

    pub(super) fn sieve(&self) -> &Sieve {
        self.sieve.get_or_init(|| {
            let mut gone = Values::NONE;
            for turn in self.turns().filter(|turn| !turn.has_come()) {
                gone.add(address(&turn.rule.stats));
            }
            let top = self.wanted().map(|turn| turn.rule.priority).max();
            Sieve { top, gone, probes: self.probes() }
        })
    }

    /// Those by which other packets may find something else than before.
    fn wanted(&self) -> impl Iterator<Item = &Turn> {
        self.turns().filter(|turn| self.has_parts || turn.has_come())
    }

    /// The words for which all rules ask by which a packet may find something else, each with the bits
    /// that all ask for; those that tell the most first.
    pub(super) fn words(&self) -> Vec<(u8, u64)> {
        let mut wanted = self.wanted();
        let Some(first) = wanted.next() else { return Vec::new() };
        let mut words = first.rule.pattern.mask().words().to_vec();
        // By conjunctions, a packet is looked up with several of them.
        words.retain(|(word, _)| usize::from(*word) != slot::CONJ_ID.word());
        for turn in wanted {
            let mask = turn.rule.pattern.mask();
            words.retain_mut(|(word, bits)| {
                *bits &= mask.word(*word);
                *bits != 0
            });
        }
        words.sort_by_key(|(_, bits)| std::cmp::Reverse(bits.count_ones()));
        words.truncate(PROBES);
        words
    }

    fn probes(&self) -> ArrayVec<Probe, PROBES> {
        if self.wanted().nth(FEW - 1).is_none() {
            return ArrayVec::new();
        }
        let probe = |(word, bits)| {
            let mut values = Values::NONE;
            self.wanted().for_each(|turn| values.add(turn.rule.pattern.word(word).0 & bits));
            Probe { word, bits, values }
        };
        self.words().into_iter().map(probe).take(PROBES).collect()
    }

    /// What becomes of a way that came to this table, of which this is known.
    pub(super) fn judge(&self, view: &View<'_>, effort: &mut Effort) -> Verdict {
        if let Some(rule) = view.rule.filter(|rule| self.may_be_gone(rule))
            && (!effort.take(self.len) || self.is_gone(rule))
        {
            return Verdict::Over;
        }
        if !self.may_find_others(view) {
            return Verdict::Holds;
        }
        match effort.take(self.len) {
            true if self.may_find_another(view) => Verdict::Unsure,
            true => Verdict::Holds,
            false => Verdict::Over,
        }
    }

    fn may_be_gone(&self, rule: &Rule) -> bool {
        self.sieve().gone.may_have(address(&rule.stats))
    }

    fn is_gone(&self, rule: &Rule) -> bool {
        let is_it = |turn: &Turn| !turn.has_come() && Arc::ptr_eq(&turn.rule.stats, &rule.stats);
        self.turns().any(is_it)
    }

    /// The lowest priority of rules that may be found in place of the one that was.
    fn least(&self, view: &View<'_>) -> u16 {
        // Among parts of conjunctions the priority of what is found says little.
        view.rule.filter(|_| !self.has_parts).map_or(0, |rule| rule.priority)
    }

    /// The same as whether another rule may be found, without a look at each.
    fn may_find_others(&self, view: &View<'_>) -> bool {
        let (sieve, least) = (self.sieve(), self.least(view));
        if sieve.top.is_none_or(|top| top < least) {
            return false;
        }
        let passes = |probe: &Probe| {
            let (value, known) = view.word(probe.word);
            known & probe.bits != probe.bits || probe.values.may_have(value & probe.bits)
        };
        sieve.probes.iter().all(passes)
    }

    fn may_find_another(&self, view: &View<'_>) -> bool {
        let least = self.least(view);
        let mut wanted = self.wanted();
        wanted.any(|turn| turn.rule.priority >= least && self.may_be(&turn.rule, view))
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

/// What is known of packets where they were looked up.
pub(super) struct View<'v> {
    /// The rule that they found.
    pub(super) rule: Option<&'v Rule>,
    /// How many tables they had passed.
    pub(super) at: usize,
    pub(super) trace: Option<&'v Trace>,
    /// One of them as it came in, if it is about that one.
    pub(super) key: Option<&'v Key>,
}

impl View<'_> {
    /// What is known of a word, and which bits.
    #[inline]
    pub(super) fn word(&self, word: u8) -> (u64, u64) {
        match (self.trace.map(|trace| trace.at(self.at, word)), self.key) {
            (Some(Known::Is(value)), _) => return (value, u64::MAX),
            (Some(Known::Own), Some(key)) => return (key.word(word.into()), u64::MAX),
            _ => {}
        }
        self.rule.map_or((0, 0), |rule| rule.pattern.word(word))
    }
}
