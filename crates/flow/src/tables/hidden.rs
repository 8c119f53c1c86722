//! Rules that no controller has made, sees or changes: they go before all others, in a table of their own
//! before the first one.

use std::sync::Arc;

use openflow::{Instructions, Match};

use super::{TABLES, Tables};
use crate::classifier::Classifier;
use crate::key::{Key, slot};
use crate::place;
use crate::rule::Rule;

/// The table that they are in. Its number stands for all tables where controllers say it.
pub const HIDDEN_TABLE: u8 = TABLES;

/// The table that packets go on to.
const FIRST: u8 = 0;

/// Where the priorities begin that are shown of them: no other rule has one as high. Open vSwitch's have these.
const SHOWN_PRIORITY: u32 = 180_000;

/// A rule that controllers do not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenRule {
    /// Its priority among these.
    pub priority: u16,
    /// Which packets it is for.
    pub matching: Match,
    /// What becomes of them.
    pub instructions: Arc<Instructions>,
}

impl HiddenRule {
    fn is(&self, rule: &Rule) -> bool {
        (self.priority, &self.matching, &self.instructions)
            == (rule.priority, &rule.matching, &rule.instructions)
    }
}

impl Rule {
    /// The table and the priority that are shown of it: a hidden one goes before all others of the first table.
    #[must_use]
    pub fn shown_place(&self) -> (u8, u32) {
        let priority = u32::from(self.priority);
        match self.table {
            HIDDEN_TABLE => (FIRST, SHOWN_PRIORITY.saturating_add(priority)),
            table => (table, priority),
        }
    }
}

impl Tables {
    /// Has these hidden rules at `now`, in milliseconds; those that stay go on counting. Gives whether they are
    /// others than before. What no packet can have is left out.
    pub fn set_hidden(&mut self, rules: &[HiddenRule], now: u64) -> bool {
        let gone = self.hidden().filter(|rule| !rules.iter().any(|one| one.is(rule)));
        let gone: Vec<Arc<Rule>> = gone.cloned().collect();
        gone.iter().for_each(|rule| self.remove(rule));
        let mut is_other = !gone.is_empty();
        for one in rules {
            let Ok(pattern) = place::pattern(&one.matching) else { continue };
            if !self.hidden().any(|rule| one.is(rule)) {
                let matched = (one.matching.clone(), pattern);
                let identity = (HIDDEN_TABLE, one.priority);
                let rule = Rule::new(identity, matched, Arc::clone(&one.instructions), now);
                self.insert(&Arc::new(rule));
                is_other = true;
            }
        }
        is_other
    }

    /// Those that there are.
    pub fn hidden(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.table(HIDDEN_TABLE).into_iter().flat_map(Classifier::iter)
    }

    /// The table in which packets are looked up first.
    pub(crate) fn first(&self) -> u8 {
        if self.len_of(HIDDEN_TABLE) > 0 { HIDDEN_TABLE } else { FIRST }
    }

    /// The table in which a packet with this key is looked up first: a fragment that is dropped comes to no
    /// hidden rule.
    pub(crate) fn first_of(&self, key: &Key) -> u8 {
        let is_dropped = || self.fragment_rule().is_some() && key.get_u8(slot::IP_FRAG) != 0;
        match self.first() {
            HIDDEN_TABLE if is_dropped() => FIRST,
            first => first,
        }
    }

    /// The table that packets go on to by themselves where no hidden rule is for them.
    pub(super) fn behind_hidden(table: u8) -> Option<u8> {
        (table == HIDDEN_TABLE).then_some(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use openflow::{Action, Field, PortNo};

    use super::*;
    use crate::walk::{Start, walk};
    use crate::{Change, Command, Filter, Fragments, Op, Path, Pipeline, Port};

    fn to(port: u32) -> Instructions {
        Instructions::apply(vec![Action::output(PortNo(port))])
    }

    fn hidden(kind: u128, instructions: Instructions) -> HiddenRule {
        let matching = Match::new().with(Field::EthType, kind);
        HiddenRule { priority: 1, matching, instructions: Arc::new(instructions) }
    }

    fn way(pipeline: &Pipeline, kind: u128) -> Path {
        let mut key = Key::default();
        key.set(slot::ETH_TYPE, kind);
        walk(pipeline, &mut key, &Start::Table, None)
    }

    fn ports(path: &Path) -> Vec<u32> {
        let of = |op: &Op| if let Op::Output(port) = op { Some(u32::from(*port)) } else { None };
        path.ops.iter().filter_map(of).collect()
    }

    #[test]
    fn hidden_rules_go_before_those_of_controllers() {
        let mut pipeline = Pipeline::default();
        pipeline.ports.extend((1..4_u16).map(|port| (PortNo(port.into()), Port::new(port))));
        pipeline.tables.change(&Change::add(0, Match::new(), to(1)), 0).unwrap();
        let mut both = to(3);
        both.goto_table = Some(0);
        let rules = [hidden(0x0806, to(2)), hidden(0x0800, both)];
        assert!(pipeline.tables.set_hidden(&rules, 0) && !pipeline.tables.set_hidden(&rules, 0));
        let of =
            |pipeline: &Pipeline| [0x0806, 0x0800, 0x86DD].map(|kind| ports(&way(pipeline, kind)));
        assert_eq!(of(&pipeline), [vec![2], vec![3, 1], vec![1]]);
        // One of them stays as it was, with what it has counted.
        pipeline.tables.hidden().for_each(|rule| rule.stats.add(7, 7, 0));
        assert!(pipeline.tables.set_hidden(&rules[..1], 0));
        assert_eq!(of(&pipeline), [vec![2], vec![1], vec![1]]);
        let counts: Vec<u64> = pipeline.tables.hidden().map(|rule| rule.stats.packets()).collect();
        assert_eq!(counts, [7]);
        let shown =
            pipeline.tables.hidden().chain(pipeline.tables.iter()).map(|rule| rule.shown_place());
        assert_eq!(shown.collect::<Vec<_>>(), [(0, 180_001), (0, 0x8000)]);
    }

    #[test]
    fn nobody_is_told_of_the_hidden_table() {
        let mut pipeline = Pipeline::default();
        pipeline.ports.extend((1..4_u16).map(|port| (PortNo(port.into()), Port::new(port))));
        let write = Some(vec![Action::output(PortNo::CONTROLLER)]);
        let rule = Instructions { write, ..Instructions::default() };
        let mut change = Change::add(0, Match::new(), rule);
        change.cookie = Some(0x77);
        pipeline.tables.change(&change, 0).unwrap();
        let before = way(&pipeline, 0x0800).ops;
        let mut both = to(3);
        both.goto_table = Some(0);
        pipeline.tables.set_hidden(&[hidden(0x0800, both)], 0);
        assert_eq!(way(&pipeline, 0x0800).ops[1..], before[..]);
    }

    #[test]
    fn fragments_that_are_dropped_are_so_in_the_first_table() {
        let mut pipeline = Pipeline::default();
        pipeline.tables.set_fragments(Fragments::Drop);
        let visited = |pipeline: &Pipeline| {
            let mut key = Key::default();
            key.set(slot::ETH_TYPE, 0x0800);
            key.set(slot::IP_FRAG, 1);
            let path = walk(pipeline, &mut key, &Start::Table, None);
            path.visits.iter().map(|visit| visit.table).collect::<Vec<_>>()
        };
        let before = visited(&pipeline);
        pipeline.tables.set_hidden(&[hidden(0x0806, to(2))], 0);
        assert_eq!((visited(&pipeline), before), (vec![0], vec![0]));
    }

    #[test]
    fn controllers_neither_see_nor_change_hidden_rules() {
        let mut tables = Tables::default();
        tables.set_limit(1);
        assert!(tables.set_hidden(&[hidden(0x0806, to(2))], 0));
        assert!(tables.is_empty() && tables.iter().next().is_none());
        assert!(tables.select(&Filter::default()).unwrap().is_empty());
        tables.change(&Change::add(0, Match::new(), to(1)), 0).unwrap();
        for command in [Command::Delete, Command::DeleteStrict, Command::Modify] {
            let matching = Match::new().with(Field::EthType, 0x0806);
            let mut change = Change::delete(None, matching).with_priority(1);
            change.command = command;
            let outcome = tables.change(&change, 0).unwrap();
            assert!(outcome.removed.is_empty() && outcome.modified.is_empty());
        }
        assert_eq!((tables.clear().len(), tables.hidden().count()), (1, 1));
        assert!(tables.is_empty() && !tables.set_hidden(&[hidden(0x0806, to(2))], 0));
    }

    #[test]
    fn a_plain_bridge_stays_plain_with_what_it_would_do_anyway() {
        let mut tables = Tables::default();
        let normal = || Instructions::apply(vec![Action::output(PortNo::NORMAL)]);
        tables.change(&Change::add(0, Match::new(), normal()).with_priority(0), 0).unwrap();
        tables.set_hidden(&[hidden(0x0806, normal())], 0);
        assert!(tables.is_plain());
        tables.set_hidden(&[hidden(0x0806, to(2))], 0);
        assert!(!tables.is_plain());
    }

    /// There is no such table for a controller's rule, which is refused, and ends here where it is not.
    #[test]
    fn controllers_do_not_get_to_hidden_rules_and_round_by_going_there() {
        let mut pipeline = Pipeline::default();
        pipeline.ports.extend((1..4_u16).map(|port| (PortNo(port.into()), Port::new(port))));
        let mut there = to(1);
        there.goto_table = Some(HIDDEN_TABLE);
        let refused = Err(openflow::ErrorCode::BicBadTableId);
        assert_eq!(there.check(&Match::new(), 0, openflow::Version::V13), refused);
        pipeline.tables.change(&Change::add(0, Match::new(), there), 0).unwrap();
        let path = way(&pipeline, 0x0800);
        assert_eq!((ports(&path).len(), path.lost), (1, None));
        pipeline.tables.set_hidden(&[hidden(0x0806, to(2))], 0);
        assert_eq!(ports(&way(&pipeline, 0x0806)), [2]);
        assert_eq!(ports(&way(&pipeline, 0x0800)), [1]);
    }
}
