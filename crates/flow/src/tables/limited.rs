//! How many rules there are of those that may only be learnt up to a number (`limit` of `learn`).
//!
//! They are counted only where a rule learns with such a limit: nobody else asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tables;
use crate::classifier::Classifier;
use crate::rule::Rule;
use crate::uses::Used;

/// How many rules there are of those that some rule learns up to a limit, by table and cookie.
#[derive(Clone, Debug, Default)]
pub(super) struct Limited(Arc<BTreeMap<(u8, u64), usize>>);

impl Tables {
    /// How many rules of `table` have this cookie, if any rule learns such up to a limit.
    pub(crate) fn learned(&self, table: u8, cookie: u64) -> usize {
        self.limited.0.get(&(table, cookie)).copied().unwrap_or_default()
    }

    /// A rule is to come: what it is the first to learn is counted from now on.
    pub(super) fn begin_limits(&mut self, rule: &Rule) {
        for used in &rule.uses {
            let Used::Learned(table, cookie) = *used else { continue };
            if self.limited.0.contains_key(&(table, cookie)) {
                continue;
            }
            let rules = self.table(table).into_iter().flat_map(Classifier::iter);
            let count = rules.filter(|rule| rule.cookie == cookie).count();
            Arc::make_mut(&mut self.limited.0).insert((table, cookie), count);
        }
    }

    /// A rule has come.
    pub(super) fn count_in(&mut self, rule: &Rule) {
        self.count_by(rule, |count| count.saturating_add(1));
    }

    /// A rule has gone: what nobody else learns is not counted any more.
    pub(super) fn count_out(&mut self, rule: &Rule) {
        self.count_by(rule, |count| count.saturating_sub(1));
        for used in &rule.uses {
            if let Used::Learned(table, cookie) = *used
                && self.uses.of(*used) == 0
            {
                Arc::make_mut(&mut self.limited.0).remove(&(table, cookie));
            }
        }
    }

    fn count_by(&mut self, rule: &Rule, by: impl FnOnce(usize) -> usize) {
        let own = (rule.table, rule.cookie);
        if self.limited.0.contains_key(&own)
            && let Some(count) = Arc::make_mut(&mut self.limited.0).get_mut(&own)
        {
            *count = by(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use openflow::action::{Learn, LearnFlags, Timeouts};
    use openflow::{Action, Field, Instructions, Match};

    use super::*;
    use crate::tables::{Change, Refusal};

    fn change(table: u8, port: u128, cookie: u64, actions: Vec<Action>) -> Change {
        let matching = Match::new().with(Field::InPort, port);
        let add = Change::add(table, matching, Instructions::apply(actions));
        Change { cookie: Some(cookie), ..add }
    }

    fn learn(table: u8, cookie: u64, limit: u32) -> Action {
        let timeouts = Timeouts::default();
        Action::Learn(Box::new(Learn {
            timeouts,
            fin_timeouts: timeouts,
            priority: 1,
            cookie,
            flags: LearnFlags::default(),
            table,
            limit,
            result: None,
            specs: Vec::new(),
        }))
    }

    #[test]
    fn only_what_is_learnt_up_to_a_limit_is_counted() {
        let mut tables = Tables::default();
        let mut add = |change: &Change| tables.change(change, 0).unwrap().added.len();
        assert_eq!((add(&change(1, 1, 7, vec![])), add(&change(1, 2, 7, vec![]))), (1, 1));
        add(&change(0, 1, 0, vec![learn(1, 7, 0)]));
        assert_eq!(tables.learned(1, 7), 0);
        let learner = change(0, 2, 0, vec![Action::Clone(vec![learn(1, 7, 3)])]);
        tables.change(&learner, 0).unwrap();
        assert_eq!(tables.learned(1, 7), 2);
        // Of another cookie, in the place of one; in another table; and one more.
        for other in [change(1, 2, 8, vec![]), change(2, 1, 7, vec![]), change(1, 3, 7, vec![])] {
            tables.change(&other, 0).unwrap();
        }
        assert_eq!(tables.learned(1, 7), 2);
        tables.change(&Change::delete(Some(1), Match::new().with(Field::InPort, 1)), 0).unwrap();
        assert_eq!(tables.learned(1, 7), 1);
        // The learner is changed, and is still one; then it goes.
        tables.change(&change(0, 2, 0, vec![learn(1, 7, 2), learn(1, 9, 2)]), 0).unwrap();
        assert_eq!((tables.learned(1, 7), tables.limited.0.len()), (1, 2));
        tables.change(&Change::delete(Some(0), Match::new().with(Field::InPort, 2)), 0).unwrap();
        assert!(tables.limited.0.is_empty());
    }

    #[test]
    fn no_more_are_learnt_than_the_limit_says() {
        let mut tables = Tables::default();
        tables.change(&change(0, 1, 0, vec![learn(1, 7, 2)]), 0).unwrap();
        let learnt =
            |port, actions| Change { limit: 2, may_add: true, ..change(1, port, 7, actions) };
        for port in [1, 2] {
            tables.change(&learnt(port, vec![]), 0).unwrap();
        }
        let refused = |change| tables.clone().change(&change, 0).err();
        assert_eq!(refused(learnt(3, vec![])), Some(Refusal::Full { limit: 2 }));
        // One that is there may live longer, but not be another one.
        assert_eq!(refused(learnt(2, vec![])), None);
        assert_eq!(refused(learnt(2, vec![Action::Exit])), Some(Refusal::Full { limit: 2 }));
        assert_eq!(refused(change(1, 3, 7, vec![])), None, "a controller may");
    }
}
