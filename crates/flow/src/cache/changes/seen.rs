//! What the packets of a cache have been, all in one. Most changes are about none of them, which is told
//! here by one look for each rule that has come or gone, however many ways there are; and nothing is to
//! be judged for such a change.
//!
//! Of a few words, each with bits that rules have lately asked for, it is noted which values packets had
//! there whenever they were looked up, in filters (Bloom's): what they say is not there is not there. What
//! is noted is never taken back; when there is too much of it, or rules ask for other words, it begins anew
//! with another *era*. And it is noted which path found each rule: if that is a single one, it is *pointed
//! at* when the rule goes, and nothing is to be judged for that either.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::delta::Delta;
use super::finders::{Finder, Finders};
use crate::key::{Key, slot};
use crate::path::{Path, TableSet};
use crate::pattern::{finish, mix};
use crate::rule::Rule;
use crate::tables::log::Turn;
use crate::walk::guide::{Gone, address};
use crate::walk::trace::{Trace, bit};

/// Words that are noted, at most.
const MAX_LENSES: usize = 8;

/// Each value sets a bit in each part of a filter.
const PARTS: usize = 4;

/// The bits of a part, as a power of two.
const PART_BITS: u32 = 15;

/// Of more packets or rules than this a filter says too often that they may be there.
pub(super) const FULL: usize = 1 << 14;

/// So many changes are between the one that is looked at and those that memory is asked for, twice.
const AHEAD: usize = 8;

/// Words, each with some of its bits.
pub(super) type Words = ArrayVec<(u8, u64), MAX_LENSES>;

/// A set of values that may say that it has one that it has not, and never the other way round.
#[derive(Debug)]
struct Filter {
    bits: Box<[u64]>,
    seed: u64,
}

impl Filter {
    fn new(seed: u64) -> Self {
        Self { bits: vec![0; (PARTS << PART_BITS) / 64].into(), seed }
    }

    fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// Where a value's bits are: words, each with its bit.
    fn places(&self, value: u64) -> [(usize, u64); PARTS] {
        let hash = finish(mix(self.seed, value));
        std::array::from_fn(|part| {
            let bit = hash >> (16 * part) & ((1 << PART_BITS) - 1);
            let bit = usize::try_from(bit).unwrap_or_default();
            ((part << PART_BITS | bit) / 64, 1 << (bit % 64))
        })
    }

    fn add(&mut self, value: u64) {
        for (at, bit) in self.places(value) {
            if let Some(word) = self.bits.get_mut(at) {
                *word |= bit;
            }
        }
    }

    fn may_have(&self, value: u64) -> bool {
        let is_set = |(at, bit)| self.bits.get(at).is_some_and(|word: &u64| word & bit != 0);
        self.places(value).into_iter().all(is_set)
    }
}

/// What packets had in some bits of a word.
#[derive(Debug)]
struct Lens {
    word: u8,
    bits: u64,
    values: Filter,
    /// How many rules it has told from all packets.
    told: u64,
}

impl Lens {
    fn new((word, bits): (u8, u64), seed: u64) -> Self {
        Self { word, bits, values: Filter::new(seed), told: 0 }
    }

    /// Whether a rule is for no packet, by what it wants this word to be.
    fn tells(&self, rule: &Rule) -> bool {
        let (value, asked) = rule.pattern.word(self.word);
        asked & self.bits == self.bits && !self.values.may_have(value & self.bits)
    }

    /// Whether it says about as much of rules that ask for these bits as one of just these would.
    fn is_as_good(&self, (word, bits): (u8, u64)) -> bool {
        let few = bits.count_ones().saturating_sub(self.bits.count_ones());
        word == self.word && self.bits & bits == self.bits && few * 4 <= bits.count_ones()
    }
}

/// A path that found a rule which is gone, or another one.
#[derive(Debug)]
pub(in super::super) struct Pointed {
    pub(in super::super) path: u32,
    pub(in super::super) gone: Gone,
}

/// What packets have been since the last era began.
#[derive(Debug)]
pub(super) struct Seen {
    lenses: ArrayVec<Lens, MAX_LENSES>,
    finders: Finders,
    /// Tables of which it mattered which rules there are at all.
    counted: TableSet,
    /// There was one of which nothing is known.
    is_blind: bool,
    /// How much was noted.
    notes: usize,
    seed: u64,
}

impl Seen {
    /// Nothing is known yet of packets that there may be.
    pub(super) fn new(seed: u64) -> Self {
        let (lenses, finders) = (ArrayVec::new(), Finders::new(seed));
        let counted = TableSet::default();
        Self { lenses, finders, counted, is_blind: true, notes: 0, seed }
    }

    /// Forgets all; from now on these words are noted, too, in the place of those that have told the
    /// fewest.
    pub(super) fn restart(&mut self, words: &[(u8, u64)]) {
        self.lenses.sort_by_key(|lens| std::cmp::Reverse(lens.told));
        self.lenses.truncate(MAX_LENSES.saturating_sub(words.len()));
        self.lenses.iter_mut().for_each(|lens| {
            lens.values.clear();
            lens.told = 0;
        });
        let new = words.iter().map(|asked| Lens::new(*asked, self.seed));
        self.lenses.extend(new.take(MAX_LENSES));
        self.finders.restart();
        (self.counted, self.is_blind, self.notes) = (TableSet::default(), false, 0);
    }

    /// Whether there is so much that little can be told by it.
    pub(super) const fn is_full(&self) -> bool {
        self.notes > FULL || self.is_blind
    }

    /// A packet came in as this and took a way, of which this is known.
    pub(super) fn note(&mut self, key: &Key, trace: Option<&Trace>) {
        self.notes += 1;
        let Some(trace) = trace else {
            self.is_blind = true;
            return;
        };
        for lens in &mut self.lenses {
            self.is_blind |= !trace.knows(lens.word);
            let values = trace.values_of(lens.word).chain([key.word(lens.word.into())]);
            values.for_each(|value| lens.values.add(value & lens.bits));
        }
    }

    /// A packet that was noted takes another way by now, of which this is known.
    pub(super) fn note_values(&mut self, trace: Option<&Trace>) {
        let Some(trace) = trace else {
            self.is_blind = true;
            return;
        };
        let words = trace.words();
        for lens in self.lenses.iter_mut().filter(|lens| words & bit(lens.word) != 0) {
            self.notes += 1;
            self.is_blind |= !trace.knows(lens.word);
            trace.values_of(lens.word).for_each(|value| lens.values.add(value & lens.bits));
        }
    }

    /// Whether a trace has all that is noted of packets.
    pub(super) fn is_told_by(&self, trace: &Trace) -> bool {
        self.lenses.iter().all(|lens| trace.knows(lens.word))
    }

    /// There is a path of this number, of these rules.
    pub(super) fn note_path(&mut self, path: &Path, id: u32, is_there: &impl Fn(u32) -> bool) {
        self.counted.join(&path.basis.counted);
        let rules = path.visits.iter().filter_map(|visit| visit.rule.as_ref());
        rules.for_each(|rule| self.finders.note(address(&rule.stats), id, is_there));
    }

    /// What of the changes of a table may be about packets or paths that were there, beside the paths that are
    /// pointed at.
    pub(super) fn sift(&mut self, delta: &Delta, pointed: &mut Vec<Pointed>) -> Delta {
        // The memory that it takes is asked for some turns ahead: that of the rules, and then what these lead to.
        let (mut far, mut near) = (delta.turns(), delta.turns());
        far.by_ref().take(2 * AHEAD).for_each(Turn::fetch);
        near.by_ref().take(AHEAD).for_each(|turn| self.fetch(turn));
        let all = self.is_blind || self.counted.has(delta.table);
        delta.pick(|turn| {
            far.next().into_iter().for_each(Turn::fetch);
            near.next().into_iter().for_each(|turn| self.fetch(turn));
            all || self.may_be_about(turn, delta.has_parts, pointed)
        })
    }

    fn fetch(&self, turn: &Turn) {
        self.finders.fetch(address(&turn.rule.stats));
        turn.fetch_writes();
    }

    fn may_be_about(&mut self, turn: &Turn, has_parts: bool, pointed: &mut Vec<Pointed>) -> bool {
        let is_gone = !turn.has_come();
        let rule = address(&turn.rule.stats);
        match self.finders.of(rule) {
            _ if !is_gone => {}
            Finder::Nobody => {}
            Finder::One(path) if !has_parts => {
                let was = Arc::as_ptr(&turn.rule).addr();
                let gone = Gone { rule, was, heir: turn.heir().map(Arc::clone) };
                pointed.push(Pointed { path, gone });
            }
            Finder::One(_) | Finder::Several => return true,
        }
        (has_parts || !is_gone) && self.may_find(&turn.rule)
    }

    /// Whether a packet may have been there that a rule is for.
    fn may_find(&mut self, rule: &Rule) -> bool {
        let tells = |lens: &&mut Lens| lens.tells(rule);
        match self.lenses.iter_mut().find(tells) {
            Some(lens) => {
                lens.told += 1;
                false
            }
            None => true,
        }
    }

    /// Adds words to `words` that would say more than what is noted by now.
    pub(super) fn ask(&self, delta: &Delta, turn: &Turn, words: &mut Words) {
        // Those that all want first; with a single one of many kinds, those of this one.
        let own = turn.rule.pattern.mask().words().iter().copied();
        for asked in delta.words().into_iter().chain(own) {
            // By conjunctions, a packet is looked up with several of them.
            let is_usable = usize::from(asked.0) != slot::CONJ_ID.word();
            let is_there = self.lenses.iter().any(|lens| lens.is_as_good(asked));
            if is_usable && !is_there && !words.contains(&asked) {
                // One more than there is room for does not matter.
                let _ = words.try_push(asked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_all_that_it_was_given_and_little_else() {
        let mut filter = Filter::new(7);
        (0..1000).for_each(|value| filter.add(value << 32));
        assert!((0..1000).all(|value| filter.may_have(value << 32)));
        let others = (1000..101_000_u64).filter(|value| filter.may_have(value << 32)).count();
        assert!(others < 20, "{others} of 100000");
        filter.clear();
        assert!((0..1000).all(|value| !filter.may_have(value << 32)));
    }

    #[test]
    fn words_that_tell_little_make_room() {
        let mut seen = Seen::new(1);
        seen.restart(&[(1, 0xFF), (2, 0xFF)]);
        seen.lenses[1].told = 5;
        let words: Vec<_> = (3..10).map(|word| (word, 0xF)).collect();
        seen.restart(&words);
        let all: Vec<u8> = seen.lenses.iter().map(|lens| lens.word).collect();
        assert_eq!(all, [2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(seen.lenses[0].is_as_good((2, 0x1FF)) && !seen.lenses[0].is_as_good((2, 0xFFFF)));
        assert!(!seen.lenses[0].is_as_good((2, 0x7F)) && !seen.lenses[0].is_as_good((3, 0xFF)));
    }
}
