//! A view of a switch for threads that do not have it.

use std::sync::{Mutex, Weak};

use crate::report::PortReport;
use crate::switch::{Control, Switch, lock};

/// What a switch's ports do, for a thread of its own. It does not keep the switch alive.
#[derive(Clone, Debug)]
pub struct Sight {
    control: Weak<Mutex<Control>>,
}

impl Sight {
    /// All ports as [`Switch::samples`] has them; none once the switch is gone.
    #[must_use]
    pub fn ports(&self) -> Vec<PortReport> {
        let Some(control) = self.control.upgrade() else { return Vec::new() };
        lock(&control).samples()
    }
}

impl Switch {
    /// A view of its ports.
    #[must_use]
    pub fn sight(&self) -> Sight {
        Sight { control: self.weak_control() }
    }
}
