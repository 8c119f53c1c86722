//! A filter that is asked about one rule after the other.

use super::change::{is_port, sends};
use super::{Filter, Refusal};
use crate::pattern::Pattern;
use crate::place;
use crate::rule::Rule;

/// What a [`Filter`] means, told for single rules.
#[derive(Clone, Debug)]
pub struct Selector {
    filter: Filter,
    pattern: Pattern,
}

impl Filter {
    /// To be asked about single rules.
    ///
    /// # Errors
    /// No packet can have a field of the match.
    pub fn selector(self) -> Result<Selector, Refusal> {
        let pattern = place::pattern(&self.matching).map_err(Refusal::Field)?;
        Ok(Selector { filter: self, pattern })
    }
}

impl Selector {
    /// Whether a rule is meant. Where it was another one `before`, a port that only that one has sent
    /// to counts, too.
    #[must_use]
    pub fn takes(&self, rule: &Rule, before: Option<&Rule>) -> bool {
        let Self { filter, pattern } = self;
        if filter.table.is_some_and(|table| table != rule.table) || !rule.pattern.is_within(pattern)
        {
            return false;
        }
        let sent = |port| {
            before.is_some_and(|before| sends(&before.instructions, &|to| is_port(to, port)))
        };
        filter.takes(rule)
            || filter.out_port.is_some_and(sent)
                && Filter { out_port: None, ..filter.clone() }.takes(rule)
    }
}

#[cfg(test)]
mod tests {
    use openflow::{Action, Field, Instructions, Match, PortNo};

    use super::*;
    use crate::{Change, Tables};

    #[test]
    fn ports_of_before_count() {
        let mut tables = Tables::default();
        let mut add = |port: u32| {
            let does = Instructions::apply(vec![Action::output(PortNo(port))]);
            let change = Change::add(0, Match::new().with(Field::InPort, 1), does);
            let outcome = tables.change(&change, 0).unwrap();
            let after = outcome.modified.iter().map(|(_, after)| after);
            outcome.added.iter().chain(after).next().map(std::sync::Arc::clone).unwrap()
        };
        let (before, rule) = (add(2), add(3));
        assert!(rule.added == before.added && rule.changed > before.changed);
        let selector = |port: u32, in_port: u32| {
            let matching = Match::new().with(Field::InPort, in_port.into());
            let filter = Filter { out_port: Some(PortNo(port)), matching, ..Filter::default() };
            filter.selector().unwrap()
        };
        assert!(selector(3, 1).takes(&rule, None) && !selector(2, 1).takes(&rule, None));
        assert!(selector(2, 1).takes(&rule, Some(&before)));
        assert!(!selector(3, 2).takes(&rule, None) && !selector(4, 1).takes(&rule, Some(&before)));
    }
}
