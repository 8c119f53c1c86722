//! Conjunctions: rules that are found where several others are, one for each clause (ovs-actions(7)).
//!
//! `n` addresses and `m` ports take `n + m` rules, and not one for each pair.

use super::{Classifier, Ranked, seed};
use crate::key::{Key, slot};

/// Rules of one tuple that are for a packet, the highest priority last.
type Column<'c, R> = Vec<&'c R>;

/// The rule for a packet, of a classifier with parts of conjunctions.
pub(super) fn lookup<'c, R: Ranked>(classifier: &'c Classifier<R>, key: &Key) -> Option<&'c R> {
    let plain = classifier.lookup_plain(key, |_| {});
    let is_higher = |rule: &&R| plain.is_none_or(|plain| rule.priority() > plain.priority());
    let mut columns = columns(classifier, key);
    columns.iter_mut().for_each(|column| column.retain(is_higher));
    loop {
        columns.retain(|column| !column.is_empty());
        let tops = columns.iter().filter_map(|column| column.last().copied());
        let Some(highest) = tops.clone().map(Ranked::priority).max() else { return plain };
        if let Some(id) = fulfilled(tops) {
            let mut key = *key;
            key.set(slot::CONJ_ID, id.into());
            let found = classifier.lookup_plain(&key, |_| {});
            if found.is_some() {
                return found;
            }
        }
        // Then without those, as if they were not there.
        for column in &mut columns {
            column.pop_if(|rule| rule.priority() == highest);
        }
    }
}

/// The parts of conjunctions that are for a packet, tuple by tuple.
fn columns<'c, R: Ranked>(classifier: &'c Classifier<R>, key: &Key) -> Vec<Column<'c, R>> {
    let mut columns = Vec::new();
    for entry in classifier.entries.iter().filter(|entry| entry.sieve.passes(key)) {
        let tuple = &entry.tuple;
        let hash = tuple.mask.hash(key, seed());
        let found = tuple.rules.get(hash).filter(|rule| rule.pattern().matches(key));
        let mut column: Column<'c, R> = found.filter(|rule| !rule.clauses().is_empty()).collect();
        column.sort_by_key(|rule| rule.priority());
        columns.push(column);
    }
    columns
}

/// A conjunction of which each clause is fulfilled by one of `rules`.
fn fulfilled<'c, R: Ranked + 'c>(rules: impl Iterator<Item = &'c R>) -> Option<u32> {
    // Of conjunctions that are begun there are few.
    let mut begun = Vec::<(u32, u64)>::new();
    for clause in rules.flat_map(Ranked::clauses) {
        let at = begun.iter().position(|(id, _)| *id == clause.id).unwrap_or(begun.len());
        if at == begun.len() {
            begun.push((clause.id, 0));
        }
        let all = u64::MAX.checked_shr(64_u32.saturating_sub(clause.count.into())).unwrap_or(0);
        let (id, seen) = begun.get_mut(at)?;
        *seen |= 1_u64.checked_shl(clause.number.into()).unwrap_or(0);
        if *seen & all == all {
            return Some(*id);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::Clause;
    use crate::key::Slot;
    use crate::pattern::Pattern;

    #[derive(Clone, Debug)]
    struct Rule(Pattern, u16, &'static str, Vec<Clause>);

    impl Ranked for Rule {
        fn pattern(&self) -> &Pattern {
            &self.0
        }

        fn priority(&self) -> u16 {
            self.1
        }

        fn clauses(&self) -> &[Clause] {
            &self.3
        }
    }

    fn pattern(slot: Slot, value: u128) -> Pattern {
        let (mut key, mut mask) = (Key::default(), Key::default());
        key.set(slot, value);
        mask.set(slot, slot.ones());
        Pattern::new(&key, &mask)
    }

    fn clause(id: u32, number: u8, count: u8) -> Clause {
        Clause { id, number, count }
    }

    #[test]
    fn all_clauses_have_to_be_fulfilled() {
        let mut table = Classifier::default();
        for (slot, value, priority, name, clauses) in [
            (slot::IPV4_SRC, 1, 10, "", vec![clause(7, 0, 2), clause(8, 0, 2)]),
            (slot::IPV4_SRC, 2, 10, "", vec![clause(7, 0, 2)]),
            (slot::TP_DST, 80, 10, "", vec![clause(7, 1, 2)]),
            (slot::TP_DST, 22, 10, "", vec![clause(8, 1, 2)]),
            (slot::CONJ_ID, 7, 5, "web", vec![]),
            (slot::CONJ_ID, 8, 5, "shell", vec![]),
            (slot::IP_PROTO, 6, 1, "tcp", vec![]),
            (slot::ETH_TYPE, 9, 20, "high", vec![]),
        ] {
            table.insert(Rule(pattern(slot, value), priority, name, clauses));
        }
        let find = |table: &Classifier<Rule>, source, port, kind| {
            let mut key = Key::default();
            key.set(slot::IPV4_SRC, source);
            key.set(slot::TP_DST, port);
            key.set(slot::IP_PROTO, 6);
            key.set(slot::ETH_TYPE, kind);
            table.lookup(&key).map(|rule| rule.2)
        };
        assert_eq!(find(&table, 1, 80, 0), Some("web"));
        assert_eq!(find(&table, 2, 80, 0), Some("web"));
        assert_eq!(find(&table, 1, 22, 0), Some("shell"));
        assert_eq!(find(&table, 2, 22, 0), Some("tcp"));
        assert_eq!(find(&table, 3, 80, 0), Some("tcp"));
        assert_eq!(find(&table, 1, 80, 9), Some("high"));
        // A conjunction without a rule of its own is none.
        table.remove(&pattern(slot::CONJ_ID, 7), 5);
        assert_eq!(find(&table, 1, 80, 0), Some("tcp"));
        for (slot, value) in [(slot::IPV4_SRC, 1), (slot::IPV4_SRC, 2), (slot::TP_DST, 80)] {
            table.remove(&pattern(slot, value), 10);
        }
        assert_eq!((table.parts, find(&table, 1, 22, 0)), (1, Some("tcp")));
    }

    #[test]
    fn a_lower_priority_counts_where_the_higher_one_comes_to_nothing() {
        let mut table = Classifier::default();
        for (slot, value, priority, clauses) in [
            (slot::IPV4_SRC, 1, 20, vec![clause(9, 0, 2)]),
            (slot::IPV4_SRC, 1, 10, vec![clause(7, 0, 2)]),
            (slot::TP_DST, 80, 10, vec![clause(7, 1, 2)]),
            (slot::CONJ_ID, 7, 1, vec![]),
        ] {
            table.insert(Rule(pattern(slot, value), priority, "it", clauses));
        }
        let mut key = Key::default();
        key.set(slot::IPV4_SRC, 1);
        key.set(slot::TP_DST, 80);
        assert_eq!(table.lookup(&key).map(|rule| rule.2), Some("it"));
    }
}
