//! What an operator has bonds do at once.

use super::Switch;
use crate::bond::{BondOrder, BondRefusal};

impl Switch {
    /// Has a bond do something at once. Returns whether anything changes by it.
    ///
    /// # Errors
    /// There is no such bond or member, or it cannot be done.
    pub fn bond_order(&self, bond: &str, order: BondOrder<'_>) -> Result<bool, BondRefusal> {
        let mut control = self.control();
        let is_bond = control.ports.get(bond).is_ok_and(|entry| entry.bundle().is_some());
        if !is_bond {
            return Err(BondRefusal::NoBond);
        }
        let changes = control.bonds.of(bond).group.order(order)?;
        control.update_bonds();
        Ok(changes)
    }
}
