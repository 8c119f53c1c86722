//! Rules that go with those that have learnt them (`delete_learned` of `learn`).

use std::collections::BTreeSet;
use std::sync::Arc;

use openflow::Action;
use ordered::Gather as _;

use crate::rule::Rule;

/// What tells learnt rules: their table, and the cookie that all of them have.
pub(super) type Learned = (u8, u64);

/// What a rule learns that is to go with it.
fn of(rule: &Rule) -> impl Iterator<Item = Learned> + '_ {
    let written = rule.instructions.write.iter().flatten();
    rule.instructions.apply.iter().chain(written).filter_map(|action| match action {
        Action::Learn(learn) if learn.flags.delete_learned => Some((learn.table, learn.cookie)),
        _ => None,
    })
}

/// What these rules have learnt.
pub(super) fn by<'r>(rules: impl Iterator<Item = &'r Arc<Rule>>) -> BTreeSet<Learned> {
    rules.flat_map(|rule| of(rule)).gather()
}

/// Leaves what a rule learns that is there.
pub(super) fn keep(rule: &Rule, learned: &mut BTreeSet<Learned>) {
    of(rule).for_each(|kept| _ = learned.remove(&kept));
}
