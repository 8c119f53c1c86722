//! Which parts of which fields actions read and write by name.

use super::{Action, CtZone, LearnSource, LearnTarget};
use crate::field::{Field, Subfield};
use crate::instruction::Instructions;

impl Instructions {
    /// Calls `visit` with all parts of fields that are named in it, those within other actions, too,
    /// until it finds fault with one.
    ///
    /// # Errors
    /// What `visit` says.
    pub fn try_for_each_part<E>(
        &self,
        visit: &mut impl FnMut(Subfield) -> Result<(), E>,
    ) -> Result<(), E> {
        actions(&self.apply, visit)?;
        actions(self.write.as_deref().unwrap_or_default(), visit)
    }
}

fn actions<E>(all: &[Action], visit: &mut impl FnMut(Subfield) -> Result<(), E>) -> Result<(), E> {
    all.iter().try_for_each(|action| one(action, visit))
}

fn one<E>(action: &Action, visit: &mut impl FnMut(Subfield) -> Result<(), E>) -> Result<(), E> {
    match action {
        Action::SetField { field, value, mask } => visit(written(*field, *value, *mask)),
        Action::Load { target: part, .. }
        | Action::Push(part)
        | Action::Pop(part)
        | Action::OutputField { source: part, .. }
        | Action::CheckPktLarger { target: part, .. } => visit(*part),
        Action::Move { source, target } => {
            visit(*source)?;
            visit(*target)
        }
        Action::Bundle(bundle) => bundle.target.map_or(Ok(()), visit),
        Action::Multipath(multipath) => visit(multipath.target),
        Action::DeleteField(field) => visit(Subfield { field: *field, offset: 0, bits: 0 }),
        Action::Clone(all) => actions(all, visit),
        Action::Ct(ct) => {
            if let CtZone::Field(part) = ct.zone {
                visit(part)?;
            }
            actions(&ct.actions, visit)
        }
        Action::Learn(learn) => {
            for spec in &learn.specs {
                let mut part = |field, offset| visit(Subfield { field, offset, bits: spec.bits });
                if let LearnSource::Field { field, offset } = spec.source {
                    part(field, offset)?;
                }
                match spec.target {
                    LearnTarget::Match { field, offset } | LearnTarget::Load { field, offset } => {
                        part(field, offset)?;
                    }
                    LearnTarget::Output => {}
                }
            }
            learn.result.map_or(Ok(()), visit)
        }
        _ => Ok(()),
    }
}

/// The part of a field up to the highest bit that `set_field` writes a one to, or chooses.
fn written(field: Field, value: u128, mask: u128) -> Subfield {
    let highest = if mask == field.byte_mask() { value } else { value | mask };
    let bits = u16::try_from(u128::BITS - highest.leading_zeros()).unwrap_or(0);
    Subfield { field, offset: 0, bits }
}

#[cfg(test)]
mod tests {
    use crate::text;

    #[test]
    fn parts_within_others_are_found() {
        let line = "move:tun_metadata0[0..31]->reg0,clone(push:tun_metadata1[32..63]),\
                    learn(tun_metadata2[0..15]=reg1[0..15]),set_field:0x1ff->tun_metadata3";
        let instructions = text::instructions(line, text::Names::NONE).unwrap();
        let mut found = Vec::new();
        let visited: Result<(), ()> = instructions.try_for_each_part(&mut |part| {
            if part.field.is_tun_metadata() {
                found.push((part.field.name(), part.offset, part.bits));
            }
            Ok(())
        });
        assert_eq!(visited, Ok(()));
        let expected = [
            ("tun_metadata0", 0, 32),
            ("tun_metadata1", 32, 32),
            ("tun_metadata2", 0, 16),
            ("tun_metadata3", 0, 9),
        ];
        assert_eq!(found, expected);
    }
}
