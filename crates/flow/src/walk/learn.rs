//! Rules that are made of packets.

use std::sync::Arc;

use openflow::action::{Learn, LearnSource, LearnSpec, LearnTarget};
use openflow::{Action, Field, Instructions, Match, PortNo, Subfield};

use super::Walk;
use crate::rule::{Flags, Timeouts};
use crate::tables::{Change, Command, Filter};

impl Walk<'_> {
    /// Notes the rule that is made of the packet as it is by now.
    pub(super) fn learn(&mut self, learn: &Learn) {
        let (mut matching, mut actions) = (Match::new(), Vec::new());
        for spec in &learn.specs {
            let value = self.value_of(spec);
            match spec.target {
                LearnTarget::Match { field, offset } => {
                    ask(&mut matching, Subfield { field, offset, bits: spec.bits }, value);
                }
                LearnTarget::Load { field, offset } => {
                    actions.push(load(Subfield { field, offset, bits: spec.bits }, value));
                }
                LearnTarget::Output => {
                    let port = u32::try_from(value).unwrap_or(PortNo::ANY.0);
                    let port = u16::try_from(port).map_or(PortNo(port), PortNo::from_v10);
                    actions.push(Action::output(port));
                }
            }
        }
        let timeouts = Timeouts { idle: learn.timeouts.idle, hard: learn.timeouts.hard };
        let send_flow_removed = learn.flags.send_flow_removed;
        self.learns.push(Arc::new(Change {
            command: Command::Add,
            filter: Filter { table: Some(learn.table), matching, ..Filter::default() },
            priority: learn.priority,
            cookie: Some(learn.cookie),
            flags: Flags { send_flow_removed, ..Flags::default() },
            timeouts,
            importance: 0,
            instructions: Arc::new(Instructions::apply(actions)),
            may_add: true,
        }));
    }

    fn value_of(&self, spec: &LearnSpec) -> u128 {
        match spec.source {
            LearnSource::Value(value) => value,
            LearnSource::Field { field, offset } => {
                self.read(Subfield { field, offset, bits: spec.bits })
            }
        }
    }
}

/// Has a match be on some bits of a field, beside what it is on.
fn ask(matching: &mut Match, to: Subfield, value: u128) {
    let (before, asked) = matching.get(to.field).unwrap_or_default();
    let mask = to.mask();
    let value = value.checked_shl(u32::from(to.offset)).unwrap_or_default();
    matching.set_masked(to.field, before & !mask | value & mask, asked | mask);
}

/// The action that writes a value.
fn load(target: Subfield, value: u128) -> Action {
    match u64::try_from(value) {
        Ok(value) if target.bits <= 64 => Action::Load { target, value },
        _ => {
            let shifted = value.checked_shl(u32::from(target.offset)).unwrap_or_default();
            Action::SetField { field: target.field, value: shifted, mask: target.mask() }
        }
    }
}

/// The fields that a learnt rule is about: those that packets here must be able to have.
pub(crate) fn fields(learn: &Learn) -> impl Iterator<Item = Field> + '_ {
    learn.specs.iter().flat_map(|spec| {
        let source = match spec.source {
            LearnSource::Field { field, .. } => Some(field),
            LearnSource::Value(_) => None,
        };
        let target = match spec.target {
            LearnTarget::Match { field, .. } | LearnTarget::Load { field, .. } => Some(field),
            LearnTarget::Output => None,
        };
        source.into_iter().chain(target)
    })
}
