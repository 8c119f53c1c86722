//! How tables are set: how many rules there may be, which make room, and what becomes of packets that
//! none is for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

pub use openflow::message::table_mod::Miss;
use openflow::{Field, Subfield};

use super::{Change, Command, Outcome, Table, Tables};
use crate::classifier::Classifier;
use crate::rule::{Ended, Rule};

/// The last table that packets go on to by themselves; the one behind it is not for controllers.
const LAST: u8 = 253;

/// How a table is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSettings {
    /// The most rules; `None`: as many as the bridge may have.
    pub limit: Option<usize>,
    /// Whether rules that end by themselves make room for others.
    pub evicts: bool,
    /// By these bits of what they match on, rules are in groups, and those of the largest one go first.
    pub groups: Vec<Subfield>,
    /// What becomes of packets that no rule is for.
    pub miss: Miss,
    /// Those addresses of which a trace says how many bits decide, if not those of IPv4: no way depends
    /// on it.
    pub prefixes: Option<Vec<Field>>,
}

/// As all tables are set at first.
static DEFAULT: TableSettings = TableSettings {
    limit: None,
    evicts: false,
    groups: Vec::new(),
    miss: Miss::Default,
    prefixes: None,
};

impl Tables {
    /// How a table is set.
    #[must_use]
    pub fn settings(&self, table: u8) -> &TableSettings {
        self.all.get(usize::from(table)).map_or(&DEFAULT, |table| &table.settings)
    }

    /// Sets a table; gives rules that are too many now, if they make room.
    pub fn set_table(&mut self, table: u8, settings: TableSettings) -> Outcome {
        if *self.settings(table) == settings {
            return Outcome::default();
        }
        if let Some(own) = self.table_mut(table) {
            own.settings = Arc::new(settings);
        }
        self.touch();
        let limit = self.settings(table).limit.unwrap_or(usize::MAX);
        let removed = self.evict(table, self.len_of(table).saturating_sub(limit));
        Outcome { removed, ..Outcome::default() }
    }

    /// Whether a change may have rules make room, of which it counts when they were used last.
    #[must_use]
    pub fn may_evict(&self, change: &Change) -> bool {
        let table = change.filter.table.unwrap_or_default();
        let adds = matches!(change.command, Command::Add | Command::Modify | Command::ModifyStrict);
        adds && self.settings(table).evicts && self.is_full(table)
    }

    /// Whether a table has no room for another rule.
    pub(super) fn is_full(&self, table: u8) -> bool {
        self.settings(table).limit.is_some_and(|limit| self.len_of(table) >= limit)
    }

    /// Takes as many rules out of a table, if it may be done and they end by themselves.
    pub(super) fn evict(&mut self, table: u8, count: usize) -> Vec<(Arc<Rule>, Ended)> {
        let settings = self.settings(table);
        if count == 0 || !settings.evicts {
            return Vec::new();
        }
        let rules = self.table(table).map(|rules| victims(rules, &settings.groups, count));
        let rules = rules.unwrap_or_default();
        rules.iter().for_each(|rule| self.remove(rule));
        rules.into_iter().map(|rule| (rule, Ended::Evicted)).collect()
    }

    /// The table that a packet goes on to by itself where none of the rules of `table` is for it.
    #[must_use]
    pub(crate) fn behind(&self, table: u8) -> Option<u8> {
        let goes_on = table < LAST && self.settings(table).miss == Miss::Continue;
        goes_on.then(|| table.saturating_add(1)).or_else(|| Self::behind_hidden(table))
    }

    pub(super) fn table_mut(&mut self, table: u8) -> Option<&mut Table> {
        let index = usize::from(table);
        if self.all.len() <= index {
            self.all.resize_with(index + 1, Arc::default);
        }
        self.all.get_mut(index).map(Arc::make_mut)
    }
}

/// Which rules go first of those that end by themselves: of the largest group those of the least
/// importance, and of these those that end first.
fn victims(rules: &Classifier<Arc<Rule>>, groups: &[Subfield], count: usize) -> Vec<Arc<Rule>> {
    let timed: Vec<&Arc<Rule>> = rules.iter().filter(|rule| rule.is_timed()).collect();
    let mut of_group = BTreeMap::<Vec<u128>, Vec<Reverse<_>>>::new();
    for (at, rule) in timed.iter().enumerate() {
        let group = groups.iter().map(|bits| value(rule, *bits)).collect();
        let rank = Reverse((rule.importance, rule.end(), at));
        of_group.entry(group).or_default().push(rank);
    }
    let mut groups: Vec<BinaryHeap<_>> = of_group.into_values().map(BinaryHeap::from).collect();
    let mut sizes: BinaryHeap<(usize, usize)> =
        groups.iter().enumerate().map(|(group, rules)| (rules.len(), group)).collect();
    let mut victims = Vec::new();
    while victims.len() < count
        && let Some((_, group)) = sizes.pop()
        && let Some(rules) = groups.get_mut(group)
    {
        if let Some(Reverse((_, _, at))) = rules.pop() {
            victims.extend(timed.get(at).map(|rule| Arc::clone(rule)));
            sizes.push((rules.len(), group));
        }
    }
    victims
}

/// What a rule matches on in these bits; those that it leaves open are zero.
fn value(rule: &Rule, bits: Subfield) -> u128 {
    rule.matching.get(bits.field).map_or(0, |(value, mask)| value & mask & bits.mask())
}

#[cfg(test)]
mod tests {
    use openflow::{Instructions, Match};

    use super::*;
    use crate::{Filter, Refusal, Timeouts};

    /// Adds a rule for a source and a destination that ends after some seconds.
    fn add(tables: &mut Tables, port: u32, mac: u32, hard: u16) -> Result<Outcome, Refusal> {
        let matching =
            Match::new().with(Field::InPort, port.into()).with(Field::EthSrc, mac.into());
        let change = Change {
            timeouts: Timeouts { idle: 0, hard },
            ..Change::add(0, matching, Instructions::default())
        };
        assert_eq!(tables.may_evict(&change), tables.is_full(0) && tables.settings(0).evicts);
        tables.change(&change, 0)
    }

    fn rules(tables: &Tables) -> Vec<(u128, u128)> {
        let of = |rule: &Rule, field| rule.matching.exact(field).unwrap();
        let pairs = tables.iter().map(|rule| (of(rule, Field::InPortOxm), of(rule, Field::EthSrc)));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn the_rule_that_ends_first_makes_room_in_the_largest_group() {
        let mut tables = Tables::default();
        let groups = vec![Subfield::whole(Field::InPort)];
        let limit = Some(4);
        let settings = TableSettings { limit, evicts: true, groups, ..TableSettings::default() };
        tables.set_table(0, settings.clone());
        for (port, mac, hard) in [(2, 1, 10), (1, 2, 20), (1, 3, 30), (1, 4, 40)] {
            assert!(add(&mut tables, port, mac, hard).unwrap().removed.is_empty());
        }
        let removed = add(&mut tables, 2, 5, 0).unwrap().removed;
        assert!(matches!(&removed[..], [(_, Ended::Evicted)]));
        assert_eq!(rules(&tables), [(1, 3), (1, 4), (2, 1), (2, 5)]);
        // A rule in the place of another one needs no room.
        assert!(add(&mut tables, 1, 3, 30).unwrap().removed.is_empty());
        // Without groups, the one that ends first; fewer rules than there are is too many.
        let settings = TableSettings { groups: Vec::new(), limit: Some(2), ..settings };
        assert_eq!(tables.set_table(0, settings.clone()).removed.len(), 2);
        assert_eq!(rules(&tables), [(1, 4), (2, 5)]);
        // What does not end by itself stays.
        assert_eq!(add(&mut tables, 3, 1, 0).unwrap().removed.len(), 1);
        assert_eq!(add(&mut tables, 3, 2, 0).unwrap_err(), Refusal::Full { limit: 2 });
        tables.set_table(0, TableSettings { limit: Some(1), ..settings });
        assert_eq!(rules(&tables), [(2, 5), (3, 1)]);
    }

    /// A table that is set is there, though it has no rules.
    #[test]
    fn a_table_without_rules_has_not_the_one_of_a_plain_bridge() {
        let mut tables = Tables::default();
        tables.change(&Change::add(1, Match::new(), Instructions::default()), 0).unwrap();
        tables.set_table(0, TableSettings { miss: Miss::Continue, ..TableSettings::default() });
        assert!(!tables.is_plain());
        assert_eq!((tables.clear().len(), tables.settings(0).miss), (1, Miss::Continue));
    }

    #[test]
    fn the_least_important_goes_first_and_none_where_it_is_refused() {
        let mut tables = Tables::default();
        let settings = TableSettings { limit: Some(2), evicts: true, ..TableSettings::default() };
        tables.set_table(0, settings.clone());
        for (port, importance) in [(1, 5), (2, 4)] {
            let matching = Match::new().with(Field::InPort, port);
            let timeouts = Timeouts { idle: 0, hard: u16::try_from(port).unwrap() };
            let add = Change::add(0, matching, Instructions::default());
            tables.change(&Change { importance, timeouts, ..add }, 0).unwrap();
        }
        tables.change(&Change::add(0, Match::new(), Instructions::default()), 0).unwrap();
        let first = Filter { matching: Match::new().with(Field::InPort, 1), ..Filter::default() };
        assert_eq!((tables.len(), tables.select(&first).unwrap().len()), (2, 1));
        tables.set_table(0, TableSettings { evicts: false, limit: Some(0), ..settings });
        assert_eq!(tables.len(), 2);
        let more = Change::add(0, first.matching, Instructions::default());
        assert!(tables.change(&more, 0).is_ok(), "it is there");
        let more = Change::add(0, Match::new().with(Field::InPort, 3), Instructions::default());
        assert_eq!(tables.change(&more, 0).unwrap_err(), Refusal::Full { limit: 0 });
    }
}
