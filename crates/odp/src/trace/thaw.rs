//! A packet comes again, and goes on with what was left of its rules.
//!
//! Open vSwitch keeps that as one list of actions, in which those that may tell a controller something have the table and
//! the cookie of their rule in front.

use std::collections::VecDeque;

use flow::Frozen;
use flow::walk::Step;
use openflow::action::Actions as Shown;
use openflow::{Action as Of, Field};

use super::Tracer;
use crate::node::What;

/// The table and the cookie of a rule.
type Origin = (u8, u64);

/// Whether what an action does may tell a controller where it was.
fn tells(action: &Of) -> bool {
    match action {
        Of::Resubmit { table, .. } => table.is_none(),
        action => matches!(
            action,
            Of::Output { .. }
                | Of::OutputField { .. }
                | Of::OutputTruncated { .. }
                | Of::Group(_)
                | Of::Controller(_)
                | Of::DecTtl(_)
                | Of::DecMplsTtl
                | Of::DecNshTtl
        ),
    }
}

/// The instruction as an action.
fn as_action(step: &Step<'_>) -> Option<String> {
    Some(match step {
        Step::GoTo(table) => Of::resubmit_table(*table).to_string(),
        Step::Metadata(value, mask) => {
            let (value, mask) = ((*value).into(), (*mask).into());
            Of::SetField { field: Field::Metadata, value, mask }.to_string()
        }
        _ => return None,
    })
}

fn unroll((table, cookie): Origin) -> String {
    format!("unroll_xlate(table={table}, cookie={cookie})")
}

/// What is left, as text, and which of it has the origin of its rule in front.
fn left(frozen: &Frozen) -> (Vec<String>, VecDeque<Option<Origin>>) {
    let (mut texts, mut origins, mut last) = (Vec::new(), VecDeque::new(), None);
    for rest in &frozen.rest {
        let own = Some((rest.table, rest.cookie));
        let of = &rest.instructions;
        for action in &of.apply {
            let origin = own.filter(|_| tells(action) && last != own);
            last = origin.or(last);
            origins.push_back(origin);
            texts.extend(origin.map(unroll));
            texts.push(action.to_string());
        }
        let behind = [
            of.clear.then(|| "clear_actions".to_owned()),
            of.write.as_ref().map(|write| format!("write_actions({})", Shown(write))),
            of.metadata.and_then(|(value, mask)| as_action(&Step::Metadata(value, mask))),
            of.goto_table.and_then(|table| as_action(&Step::GoTo(table))),
        ];
        texts.extend(behind.into_iter().flatten().inspect(|_| origins.push_back(None)));
    }
    (texts, origins)
}

impl Tracer<'_> {
    /// A packet that was tracked, or went round, comes to a bridge again.
    pub(super) fn thaw(&mut self, frozen: &Frozen) {
        let depth = self.tree.depth();
        self.tree.begin(What::Table, "thaw".to_owned());
        let table = frozen.table.unwrap_or_default();
        self.tree.add(What::Table, format!("Resuming from table {table}"));
        if !frozen.set.is_empty() {
            let text = format!("Restoring action set: {}", Shown(&frozen.set));
            self.tree.add(What::Table, text);
        }
        let (texts, origins) = left(frozen);
        if !texts.is_empty() {
            self.tree.add(What::Table, format!("Restoring actions: {}", texts.join(",")));
        }
        self.tree.end(depth);
        self.origins = origins;
    }

    /// Tells of a step of what was left; gives what it is called there, if that is another name.
    pub(super) fn thawed(&mut self, step: &Step<'_>) -> Option<String> {
        if !self.lasts.is_empty() {
            return None;
        }
        if let Some((table, cookie)) = self.origins.pop_front()? {
            self.tree.add(What::Action, unroll((table, cookie)));
            let cookie = crate::value::hex(cookie.into());
            self.tree.add(What::Table, format!("restored state: table={table}, cookie={cookie}"));
        }
        as_action(step)
    }
}
