//! One table's rules, by what they match on: tuple-space search.
//!
//! Rules with the same mask are a *tuple*, and found by the hash of what the mask leaves of a key.
//! Tuples are tried in the order of their highest priorities, until none can have a better rule
//! than the one that is found. A copy of a classifier is cheap, whatever it holds, and stays as it
//! is when the other one changes.
//!
//! - `conjunction`: rules that are found where several others are
//! - `rows`: the rules of a small table
//! - `sieve`: which tuples are passed over

mod conjunction;
mod rows;
mod sieve;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::key::Key;
use crate::pattern::{Mask, Pattern};
use crate::shards::Shards;
use rows::Rows;
use sieve::{Probe, Sieve};

/// What a classifier holds.
pub trait Ranked: Clone {
    /// Which packets it is for.
    fn pattern(&self) -> &Pattern;

    /// Where several are for a packet, the one with the highest priority is taken.
    fn priority(&self) -> u16;

    /// The clauses that it is one of the ways to fulfil. With any, it is found only by way of them.
    fn clauses(&self) -> &[Clause] {
        &[]
    }
}

/// A clause of a conjunction: the rule for its id is found where all of its clauses are fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clause {
    /// The conjunction.
    pub id: u32,
    /// Which of its clauses, counted from 0.
    pub number: u8,
    /// How many it has, 64 at most.
    pub count: u8,
}

/// Rules with the same mask.
#[derive(Clone, Debug)]
pub struct Tuple<R> {
    mask: Arc<Mask>,
    rules: Shards<R>,
    /// How many rules have each priority.
    priorities: BTreeMap<u16, usize>,
    /// The values of rules, word by word; some may be of rules that are gone.
    probes: Box<[Probe]>,
    /// How many are gone since that was found out.
    gone: usize,
}

impl<R: Ranked> Tuple<R> {
    fn new(pattern: &Pattern) -> Self {
        Self {
            mask: Arc::clone(pattern.mask()),
            rules: Shards::default(),
            priorities: BTreeMap::new(),
            probes: Probe::all(pattern),
            gone: 0,
        }
    }

    /// What they look at.
    #[must_use]
    pub const fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// The highest of their priorities.
    #[must_use]
    pub fn top(&self) -> u16 {
        self.priorities.last_key_value().map_or(0, |(priority, _)| *priority)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.len() == 0
    }

    /// All of them, in no order that means anything.
    pub fn rules(&self) -> impl Iterator<Item = &R> {
        self.rules.iter()
    }

    /// Adds the bits that they look at.
    fn add_mask(&self, all: &mut Key) {
        for (at, bits) in self.mask.words() {
            if let Some(word) = all.0.get_mut(usize::from(*at)) {
                *word |= bits;
            }
        }
    }

    /// Notes the values of a rule that is added.
    fn note(&mut self, pattern: &Pattern) {
        let key = pattern.to_key();
        self.probes.iter_mut().for_each(|probe| probe.add(&key));
    }

    /// Notes that a rule is gone. When as many are gone as are left, it is found out anew which values
    /// there are.
    fn forget(&mut self) {
        self.gone += 1;
        if self.gone > self.rules.len() {
            self.gone = 0;
            self.probes.iter_mut().for_each(Probe::clear);
            let Self { rules, probes, .. } = self;
            for rule in rules.iter() {
                let key = rule.pattern().to_key();
                probes.iter_mut().for_each(|probe| probe.add(&key));
            }
        }
    }
}

/// A tuple, and by what it is passed over: side by side with those of others, so that only one that
/// may have a rule for a key is gone to.
#[derive(Clone, Debug)]
struct Entry<R> {
    sieve: Sieve,
    /// The highest priority of its rules.
    top: u16,
    tuple: Arc<Tuple<R>>,
}

impl<R: Ranked> Entry<R> {
    fn new(pattern: &Pattern) -> Self {
        let tuple = Tuple::new(pattern);
        Self { sieve: Sieve::new(&tuple.probes), top: 0, tuple: Arc::new(tuple) }
    }

    /// Finds out again by what it is passed over.
    fn renew(&mut self) {
        self.top = self.tuple.top();
        self.sieve = Sieve::new(&self.tuple.probes);
    }
}

/// The rules of one table.
#[derive(Clone, Debug)]
pub struct Classifier<R> {
    /// Those with the highest priorities first.
    entries: Vec<Entry<R>>,
    len: usize,
    /// How many rules are part of conjunctions.
    parts: usize,
    /// The bits that any rule looks at, and the words in which any of them are, a bit for each.
    mask: Key,
    asked: u64,
    /// All of them in one list, where there are few, and no conjunctions.
    rows: Option<Rows<R>>,
}

impl<R> Default for Classifier<R> {
    fn default() -> Self {
        Self { entries: Vec::new(), len: 0, parts: 0, mask: Key::default(), asked: 0, rows: None }
    }
}

impl<R: Ranked> Classifier<R> {
    /// How many rules there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many different masks they have.
    #[must_use]
    pub const fn masks(&self) -> usize {
        self.entries.len()
    }

    /// All rules, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &R> {
        self.tuples().flat_map(|tuple| tuple.rules.iter())
    }

    /// The rules by their masks, in the order in which these are tried.
    pub fn tuples(&self) -> impl Iterator<Item = &Tuple<R>> {
        self.entries.iter().map(|entry| &*entry.tuple)
    }

    /// Whether any rule is part of conjunctions.
    #[must_use]
    pub const fn has_parts(&self) -> bool {
        self.parts > 0
    }

    /// The bits that any rule looks at.
    #[must_use]
    pub const fn mask(&self) -> &Key {
        &self.mask
    }

    /// The words that any rule looks at, a bit for each.
    pub(crate) const fn asked(&self) -> u64 {
        self.asked
    }

    /// Finds out anew which bits these are.
    fn look(&mut self) {
        let mut all = Key::default();
        self.tuples().for_each(|tuple| tuple.add_mask(&mut all));
        (self.asked, self.mask) = (all.used(), all);
    }

    /// The rule for a packet.
    #[must_use]
    #[inline(always)]
    pub fn lookup(&self, key: &Key) -> Option<&R> {
        match &self.rows {
            Some(rows) if key.is_ethernet() => rows.find(key),
            _ => self.lookup_by_hash(key),
        }
    }

    /// The same where rules are not listed, or not for such packets: by itself, so that the other way has no room to make
    /// for it.
    #[inline(never)]
    fn lookup_by_hash(&self, key: &Key) -> Option<&R> {
        self.lookup_with(key, |_| {})
    }

    /// The same; `look` is told each mask that it depends on.
    pub fn lookup_with(&self, key: &Key, mut look: impl FnMut(&Mask)) -> Option<&R> {
        if self.parts > 0 {
            self.tuples().for_each(|tuple| look(&tuple.mask));
            return conjunction::lookup(self, key);
        }
        self.lookup_plain(key, look)
    }

    /// The rule for a packet that is no part of a conjunction.
    fn lookup_plain(&self, key: &Key, mut look: impl FnMut(&Mask)) -> Option<&R> {
        let mut best: Option<(&R, u16)> = None;
        let seed = seed();
        for Entry { sieve, top, tuple } in &self.entries {
            if best.is_some_and(|(_, priority)| priority >= *top) {
                break;
            }
            look(&tuple.mask);
            if !sieve.passes(key) {
                continue;
            }
            let hash = tuple.mask.hash(key, seed);
            tuple.rules.for_each(hash, |rule| {
                let priority = rule.priority();
                if best.is_none_or(|(_, best)| best < priority)
                    && (self.parts == 0 || rule.clauses().is_empty())
                    && rule.pattern().matches(key)
                {
                    best = Some((rule, priority));
                }
            });
        }
        best.map(|(rule, _)| rule)
    }

    /// The rule with exactly this pattern and priority.
    #[must_use]
    pub fn find(&self, pattern: &Pattern, priority: u16) -> Option<&R> {
        let tuple = &self.entries.get(self.position(pattern)?)?.tuple;
        tuple.rules.get(hash_of(pattern)).find(|rule| is_it(*rule, pattern, priority))
    }

    /// All rules whose packets are all among `pattern`'s: what changes that are not strict are about.
    pub fn within<'c>(&'c self, pattern: &'c Pattern) -> impl Iterator<Item = &'c R> {
        let tuples = self.tuples().filter(|tuple| tuple.mask.covers(pattern.mask()));
        tuples.flat_map(|tuple| tuple.rules.iter().filter(|rule| rule.pattern().is_within(pattern)))
    }

    /// Whether another rule of this priority is for some of the packets, too.
    #[must_use]
    pub fn has_overlap(&self, pattern: &Pattern, priority: u16) -> bool {
        let tuples = self.tuples().filter(|tuple| tuple.priorities.contains_key(&priority));
        let mut rules = tuples.flat_map(|tuple| tuple.rules.iter());
        rules.any(|rule| rule.priority() == priority && rule.pattern().overlaps(pattern))
    }

    /// Adds a rule; returns the one with the same pattern and priority whose place it takes.
    pub fn insert(&mut self, rule: R) -> Option<R> {
        let (hash, priority) = (hash_of(rule.pattern()), rule.priority());
        let at = self.position(rule.pattern()).unwrap_or_else(|| {
            let entry = Entry::new(rule.pattern());
            entry.tuple.add_mask(&mut self.mask);
            self.asked = self.mask.used();
            self.entries.push(entry);
            self.entries.len() - 1
        });
        let entry = self.entries.get_mut(at)?;
        let tuple = Arc::make_mut(&mut entry.tuple);
        let pattern = rule.pattern().clone();
        self.parts += usize::from(!rule.clauses().is_empty());
        let before =
            tuple.rules.replace(hash, rule.clone(), |other| is_it(other, &pattern, priority));
        if before.is_none() {
            tuple.rules.insert(hash, rule);
            *tuple.priorities.entry(priority).or_default() += 1;
            tuple.note(&pattern);
            entry.renew();
            self.len += 1;
            self.sort();
        }
        self.parts -= before.iter().filter(|before| !before.clauses().is_empty()).count();
        self.list();
        before
    }

    /// Takes a rule out, by its pattern and priority.
    pub fn remove(&mut self, pattern: &Pattern, priority: u16) -> Option<R> {
        let at = self.position(pattern)?;
        let entry = self.entries.get_mut(at)?;
        let tuple = Arc::make_mut(&mut entry.tuple);
        let hash = hash_of(pattern);
        let removed = tuple.rules.remove(hash, |rule| is_it(rule, pattern, priority))?;
        if let Some(count) = tuple.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                tuple.priorities.remove(&priority);
            }
        }
        tuple.forget();
        let is_empty = tuple.rules.len() == 0;
        entry.renew();
        self.len -= 1;
        self.parts -= usize::from(!removed.clauses().is_empty());
        if is_empty {
            self.entries.remove(at);
            self.look();
        }
        self.sort();
        self.list();
        Some(removed)
    }

    /// Lists the rules anew.
    fn list(&mut self) {
        let len = if self.parts == 0 { self.len } else { usize::MAX };
        self.rows = Rows::of(self.tuples(), len);
    }

    fn position(&self, pattern: &Pattern) -> Option<usize> {
        self.tuples().position(|tuple| tuple.mask == *pattern.mask())
    }

    fn sort(&mut self) {
        // What is nearly in order is sorted in one pass.
        self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.top));
    }
}

fn is_it<R: Ranked>(rule: &R, pattern: &Pattern, priority: u16) -> bool {
    let own = rule.pattern();
    rule.priority() == priority
        && own.values() == pattern.values()
        && own.is_ethernet() == pattern.is_ethernet()
}

fn hash_of(pattern: &Pattern) -> u64 {
    pattern.mask().hash(&pattern.to_key(), seed())
}

/// Another one for each process, so that nobody can prepare values that collide.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        use std::hash::BuildHasher as _;
        std::hash::RandomState::new().hash_one(0_u64)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Rule(Pattern, u16, u32);

    impl Ranked for Rule {
        fn pattern(&self) -> &Pattern {
            &self.0
        }

        fn priority(&self) -> u16 {
            self.1
        }
    }

    /// Keys and masks in which much is the same.
    fn small() -> impl Strategy<Value = Key> {
        prop::collection::vec((0..4_usize, 0..4_u64), 0..4).prop_map(|words| {
            let mut key = Key::default();
            words.iter().for_each(|(at, word)| key.0[at * 9] = *word);
            key
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Key, Key, u16),
        Remove(Key, Key, u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let rule = || (small(), small(), 0..6_u16);
        let step = prop_oneof![
            3 => rule().prop_map(|(key, mask, priority)| Step::Insert(key, mask, priority)),
            1 => rule().prop_map(|(key, mask, priority)| Step::Remove(key, mask, priority)),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_through_all_rules_finds(
            steps in steps(),
            keys in prop::collection::vec(small(), 1..20),
            pattern in (small(), small()),
        ) {
            let mut table = Classifier::default();
            let mut model = Vec::<Rule>::new();
            for (id, step) in (0..).zip(steps) {
                let snapshot = (table.clone(), model.clone());
                let same = |rule: &Rule, pattern: &Pattern, priority: u16| {
                    rule.0 == *pattern && rule.1 == priority
                };
                match step {
                    Step::Insert(key, mask, priority) => {
                        let rule = Rule(Pattern::new(&key, &mask), priority, id);
                        let before = model.iter().position(|r| same(r, &rule.0, priority));
                        let before = before.map(|at| model.swap_remove(at));
                        model.push(rule.clone());
                        prop_assert_eq!(table.insert(rule), before);
                    }
                    Step::Remove(key, mask, priority) => {
                        let pattern = Pattern::new(&key, &mask);
                        let at = model.iter().position(|r| same(r, &pattern, priority));
                        let gone = at.map(|at| model.swap_remove(at));
                        prop_assert_eq!(table.remove(&pattern, priority), gone);
                    }
                }
                prop_assert_eq!(snapshot.0.len(), snapshot.1.len());
                prop_assert!(snapshot.0.iter().all(|rule| snapshot.1.contains(rule)));
            }
            prop_assert_eq!(table.len(), model.len());
            for key in keys {
                let all = model.iter().filter(|rule| rule.0.matches(&key));
                let best = all.clone().map(|rule| rule.1).max();
                let found = table.lookup(&key);
                prop_assert_eq!(found.map(|rule| rule.1), best);
                prop_assert!(found.is_none_or(|found| all.clone().any(|rule| rule == found)));
            }
            let pattern = Pattern::new(&pattern.0, &pattern.1);
            let within = model.iter().filter(|rule| rule.0.is_within(&pattern)).count();
            prop_assert_eq!(table.within(&pattern).count(), within);
            for priority in 0..6 {
                let overlaps = |rule: &&Rule| rule.1 == priority && rule.0.overlaps(&pattern);
                prop_assert_eq!(
                    table.has_overlap(&pattern, priority),
                    model.iter().find(overlaps).is_some()
                );
                let same = |rule: &&Rule| rule.1 == priority && rule.0 == pattern;
                prop_assert_eq!(table.find(&pattern, priority), model.iter().find(same));
            }
        }

        #[test]
        fn overlap_and_inclusion_are_what_keys_say(
            a in (small(), small()), b in (small(), small()), keys in prop::collection::vec(small(), 40),
        ) {
            let (a, b) = (Pattern::new(&a.0, &a.1), Pattern::new(&b.0, &b.1));
            for key in keys {
                prop_assert!(!(a.matches(&key) && b.matches(&key)) || a.overlaps(&b));
                prop_assert!(!(a.matches(&key) && a.is_within(&b)) || b.matches(&key));
            }
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }
    }

    #[test]
    fn masks_go_when_their_last_rule_goes() {
        let mut table = Classifier::default();
        let mut mask = Key::default();
        mask.0[1] = 0xFF;
        let pattern = Pattern::new(&mask, &mask);
        table.insert(Rule(pattern.clone(), 1, 0));
        table.insert(Rule(pattern.clone(), 2, 0));
        table.insert(Rule(Pattern::default(), 0, 0));
        assert_eq!((table.masks(), table.mask()), (2, &mask));
        assert!(table.remove(&pattern, 1).is_some() && table.remove(&pattern, 2).is_some());
        assert_eq!((table.masks(), table.mask()), (1, &Key::default()));
    }
}
