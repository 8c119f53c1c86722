//! Which actions there are. One that is not is refused when a rule is added, so that no packet goes
//! another way than its rule says.

use openflow::action::{Ct, CtZone};
use openflow::{Action, Field, Instructions};

use crate::place::place;
use crate::tables::Refusal;
use crate::walk::learn::fields;
use crate::walk::{MAX_NESTING, helper};

/// Checks all actions of a rule.
pub(crate) fn check(instructions: &Instructions) -> Result<(), Refusal> {
    check_actions(&instructions.apply)?;
    check_actions(instructions.write.as_deref().unwrap_or_default())
}

/// Checks all actions of a list or a set.
pub(crate) fn check_actions(actions: &[Action]) -> Result<(), Refusal> {
    check_all(actions, MAX_NESTING)
}

fn check_all(actions: &[Action], nesting: usize) -> Result<(), Refusal> {
    actions.iter().try_for_each(|action| check_one(action, nesting))
}

fn check_one(action: &Action, nesting: usize) -> Result<(), Refusal> {
    match action {
        Action::Clone(actions) => {
            let left = nesting.checked_sub(1).ok_or(Refusal::Action("clone within so many"))?;
            check_all(actions, left)
        }
        Action::SetField { field, .. } | Action::DeleteField(field) => check_field(*field),
        Action::Load { target, .. } | Action::Pop(target) => check_field(target.field),
        Action::Push(source) | Action::OutputField { source, .. } => check_field(source.field),
        Action::Move { source, target } => {
            check_field(source.field)?;
            check_field(target.field)
        }
        Action::Learn(learn) => {
            learn.result.map_or(Ok(()), |target| check_field(target.field))?;
            fields(learn).try_for_each(check_field)
        }
        Action::CheckPktLarger { target, .. } => check_field(target.field),
        Action::Bundle(bundle) => bundle.target.map_or(Ok(()), |to| check_field(to.field)),
        Action::Multipath(multipath) => check_field(multipath.target.field),
        Action::Ct(ct) => check_ct(ct),
        Action::Nat(_) => Err(Refusal::Action("nat")),
        _ => Ok(()),
    }
}

/// Connections have marks and labels that are written, addresses that are translated, and helpers for two
/// protocols.
fn check_ct(ct: &Ct) -> Result<(), Refusal> {
    if ct.alg != 0 && helper(ct.alg).is_none() {
        return Err(Refusal::Action("ct(alg) of another protocol"));
    }
    if let CtZone::Field(source) = ct.zone {
        check_field(source.field)?;
    }
    ct.actions.iter().try_for_each(|action| match action {
        Action::SetField { .. } | Action::Load { .. } | Action::Nat(_) => Ok(()),
        Action::Move { source, .. } => check_field(source.field),
        _ => Err(Refusal::Action("ct(exec)")),
    })
}

fn check_field(field: Field) -> Result<(), Refusal> {
    if place(field).is_none() { Err(Refusal::Field(field)) } else { Ok(()) }
}
