//! The rules of a small table, one behind the other: to look at the first words of those few that one word
//! of a key leaves takes less than to hash what every mask leaves of it.

use std::sync::Arc;

use super::{Ranked, Tuple};
use crate::key::{Key, WORDS};

/// More rules than this are found by hash: as many as `Rows::left` has bits.
const MAX_ROWS: usize = 32;

/// Not more than this are all looked at.
const FEW: usize = 4;

/// Words that are side by side with those of other rules.
const FIRST: usize = 2;

/// A word that a rule asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    word: u8,
    bits: u64,
    value: u64,
}

impl Asked {
    fn all_of<R: Ranked>(rule: &R) -> impl Iterator<Item = Self> {
        let pattern = rule.pattern();
        let all = pattern.mask().words().iter().zip(pattern.values());
        all.map(|((word, bits), value)| Self { word: *word, bits: *bits, value: *value })
    }

    #[inline]
    fn is_in(&self, key: &Key) -> bool {
        key.word(usize::from(self.word)) & self.bits == self.value
    }
}

#[derive(Debug)]
struct Row<R> {
    /// What is not asked for is what any key has.
    first: [Asked; FIRST],
    /// Whether there are more.
    has_more: bool,
    rule: R,
}

impl<R: Ranked> Row<R> {
    fn new(rule: R) -> Self {
        let mut all = Asked::all_of(&rule);
        let mut first = [Asked::default(); FIRST];
        first.iter_mut().zip(&mut all).for_each(|(place, asked)| *place = asked);
        let has_more = all.next().is_some();
        drop(all);
        Self { first, has_more, rule }
    }

    #[inline]
    fn is_for(&self, key: &Key) -> bool {
        let is_first = self.first.iter().all(|asked| asked.is_in(key));
        is_first && (!self.has_more || self.rule.pattern().fits(key))
    }
}

/// All rules of a table, the highest priority first.
#[derive(Clone, Debug)]
pub(super) struct Rows<R> {
    /// The word that tells the most, and which of its bits all rules ask for that ask for any.
    word: u8,
    bits: u64,
    rows: Arc<[Row<R>]>,
    /// Which of them it leaves, by the hash of what it is; where there are few, all are looked at.
    left: Option<Arc<[u32; 64]>>,
}

impl<R: Ranked> Rows<R> {
    /// `None` if there are too many. Of those with one priority the first come first.
    pub(super) fn of<'t>(tuples: impl Iterator<Item = &'t Tuple<R>>, len: usize) -> Option<Self>
    where
        R: 't,
    {
        if len > MAX_ROWS {
            return None;
        }
        let mut rules: Vec<&R> = tuples.flat_map(Tuple::rules).collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority()));
        let (word, rows) = (telling(&rules), rules.into_iter().cloned().map(Row::new).collect());
        let mut rows = Self { word, bits: u64::MAX, rows, left: None };
        if rows.rows.len() > FEW {
            rows.spread();
        }
        Some(rows)
    }

    /// Finds out which rules each value of the word leaves.
    fn spread(&mut self) {
        let asked = |row: &Row<R>| Asked::all_of(&row.rule).find(|asked| asked.word == self.word);
        let all: Vec<Option<Asked>> = self.rows.iter().map(asked).collect();
        self.bits = all.iter().flatten().fold(u64::MAX, |bits, asked| bits & asked.bits);
        let mut left = [0; 64];
        for (at, asked) in all.iter().enumerate().take(MAX_ROWS) {
            // Those that do not ask for it are always left.
            let place = asked.as_ref().map(|asked| self.place(asked.value));
            let places = left.iter_mut().enumerate();
            let places = places.filter(|(own, _)| place.is_none_or(|place| place == *own));
            places.for_each(|(_, left)| *left |= 1_u32 << at);
        }
        self.left = Some(Arc::new(left));
    }

    #[inline]
    const fn place(&self, word: u64) -> usize {
        ((word & self.bits).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize
    }

    /// The rule for a packet that begins with Ethernet.
    #[inline(never)]
    pub(super) fn find(&self, key: &Key) -> Option<&R> {
        let Some(left) = &self.left else {
            return self.rows.iter().find(|row| row.is_for(key)).map(|row| &row.rule);
        };
        let word = key.word(usize::from(self.word));
        let mut left = left.get(self.place(word)).copied().unwrap_or_default();
        while left != 0 {
            let row = self.rows.get(left.trailing_zeros() as usize)?;
            if row.is_for(key) {
                return Some(&row.rule);
            }
            left &= left - 1;
        }
        None
    }
}

/// The word for which rules have the most values.
fn telling<R: Ranked>(rules: &[&R]) -> u8 {
    let mut all: Vec<Asked> = rules.iter().flat_map(|rule| Asked::all_of(*rule)).collect();
    all.sort_unstable();
    all.dedup();
    let mut counts = [0_u32; WORDS];
    for asked in all {
        if let Some(count) = counts.get_mut(usize::from(asked.word)) {
            *count += 1;
        }
    }
    let most = (0_u8..).zip(counts).max_by_key(|(_, count)| *count);
    most.map_or(0, |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::super::Classifier;
    use super::*;
    use crate::key::slot;
    use crate::pattern::Pattern;

    #[derive(Clone, Debug)]
    struct Rule(Pattern, u16);

    impl Ranked for Rule {
        fn pattern(&self) -> &Pattern {
            &self.0
        }

        fn priority(&self) -> u16 {
            self.1
        }
    }

    fn rule(asked: &[(crate::key::Slot, u128)], priority: u16) -> Rule {
        let (mut key, mut mask) = (Key::default(), Key::default());
        for (slot, value) in asked {
            key.set(*slot, *value);
            mask.set(*slot, slot.ones());
        }
        Rule(Pattern::new(&key, &mask), priority)
    }

    /// However many there are; and the same rule for packets of all kinds is another one.
    #[test]
    fn rules_for_ethernet_are_passed_over_where_there_is_none() {
        for count in [1, 8, 60] {
            let mut table = Classifier::default();
            let ip = |port| [(slot::ETH_TYPE, 0x0800), (slot::METADATA, 1), (slot::TP_DST, port)];
            for (port, len) in (0..count).zip([1, 2, 3].into_iter().cycle()) {
                let Rule(pattern, _) = rule(&ip(port)[..len], 1);
                table.insert(Rule(pattern.clone(), 1));
                table.insert(Rule(pattern.with_ethernet(), 2));
            }
            assert_eq!(table.rows.is_some(), count < 10);
            let mut key = Key::default();
            for (slot, value) in ip(0) {
                key.set(slot, value);
            }
            assert_eq!(table.lookup(&key).map(|rule| rule.1), Some(2));
            key.set_packet_type(0x1_0800);
            assert_eq!(table.lookup(&key).map(|rule| rule.1), Some(1));
            let Rule(pattern, _) = rule(&ip(0)[..1], 1);
            assert!(table.remove(&pattern, 2).is_none());
            assert!(table.remove(&pattern.with_ethernet(), 2).is_some());
        }
    }

    #[test]
    fn few_rules_are_looked_at_and_many_are_hashed() {
        let mut table = Classifier::default();
        let all = |port| [(slot::ETH_TYPE, 0x0800), (slot::METADATA, 1), (slot::TP_DST, port)];
        table.insert(rule(&all(0)[..2], 1));
        for port in 1..32 {
            table.insert(rule(&all(port), 10));
        }
        let rows = table.rows.clone().unwrap();
        assert_eq!((usize::from(rows.word), rows.rows.len()), (slot::TP_DST.word(), 32));
        // The one that does not ask for the port, and hardly another.
        let looked_at: u32 = rows.left.unwrap().iter().map(|left| left.count_ones()).sum();
        assert_eq!(looked_at, 64 + 31);
        let mut key = Key::default();
        for (slot, value) in all(40) {
            key.set(slot, value);
        }
        assert_eq!(table.lookup(&key).map(|rule| rule.1), Some(1));
        table.insert(rule(&all(40), 10));
        assert!(table.rows.is_none());
        assert_eq!(table.lookup(&key).map(|rule| rule.1), Some(10));
        table.remove(&rule(&all(40), 10).0, 10);
        assert_eq!((table.rows.is_some(), table.lookup(&key).map(|rule| rule.1)), (true, Some(1)));
    }
}
