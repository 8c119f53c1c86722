//! Which actions may be together, and where.

use crate::action::Action;
use crate::error::ErrorCode;
use crate::field::Field;

/// Where a list of actions is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a flow, to be done at once.
    Apply,
    /// In an action set.
    Write,
    /// In `ct`.
    Ct,
    /// In `clone`.
    Clone,
}

/// What of an action's field is written, where that depends on the place.
fn written(action: &Action) -> Option<Field> {
    match action {
        Action::SetField { field, .. } => Some(*field),
        Action::Load { target, .. } | Action::Move { target, .. } => Some(target.field),
        _ => None,
    }
}

/// Checks a list, and those in it.
///
/// # Errors
/// `NXBAC_BAD_CONJUNCTION` for a conjunction with other actions, `OFPBAC_BAD_SET_ARGUMENT` for what is
/// of a connection outside of `ct`, `OFPBAC_BAD_ARGUMENT` for what may not be in there.
pub(crate) fn list(actions: &[Action], place: Place) -> Result<(), ErrorCode> {
    for action in actions {
        if matches!(action, Action::Conjunction { .. }) {
            let may =
                |other: &Action| matches!(other, Action::Conjunction { .. } | Action::Note(_));
            let is_right = actions.iter().all(may);
            return if is_right { Ok(()) } else { Err(ErrorCode::NxbacBadConjunction) };
        }
        one(action, place)?;
        if let Action::Clone(nested) = action {
            list(nested, Place::Clone)?;
        }
    }
    Ok(())
}

fn one(action: &Action, place: Place) -> Result<(), ErrorCode> {
    let field = written(action);
    let of_connection = field.is_some_and(|field| [Field::CtMark, Field::CtLabel].contains(&field));
    let is_nat = matches!(action, Action::Nat(_));
    if place != Place::Ct && (of_connection || is_nat) {
        return Err(ErrorCode::BacBadSetArgument);
    }
    let is_wrong = match place {
        Place::Ct => !of_connection && !is_nat,
        Place::Write | Place::Clone => matches!(action, Action::Meter(_)),
        Place::Apply => false,
    };
    if is_wrong { Err(ErrorCode::BacBadArgument) } else { Ok(()) }
}

/// Whether an action set can have it.
pub(super) fn may_be_in_set(action: &Action) -> bool {
    !matches!(
        action,
        Action::Bundle(_)
            | Action::Clone(_)
            | Action::Nat(_)
            | Action::Controller(_)
            | Action::Enqueue { .. }
            | Action::OutputField { .. }
            | Action::OutputTruncated { .. }
            | Action::Exit
            | Action::FinTimeout { .. }
            | Action::Learn(_)
            | Action::Conjunction { .. }
            | Action::Multipath(_)
            | Action::Note(_)
            | Action::PopQueue
            | Action::Sample(_)
            | Action::Push(_)
            | Action::Pop(_)
            | Action::DebugRecirc
            | Action::DebugSlow
            | Action::Meter(_)
            | Action::CheckPktLarger { .. }
            | Action::DeleteField(_)
    )
}
