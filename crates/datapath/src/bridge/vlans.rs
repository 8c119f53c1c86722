//! The VLAN settings of a bridge's ports, as the bridge asks for them.

use std::sync::Arc;

use crate::vlan::policy::{Policy, TRUNK};

/// The VLAN settings of a bridge's ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct VlanTable {
    /// By port number; those that have no settings of their own are trunks of all VLANs.
    ports: Vec<Option<Arc<Policy>>>,
    /// Whether any has, or the bridge looks at tags all the same.
    is_used: bool,
    /// Whether it does whatever its ports have.
    is_always_used: bool,
}

impl VlanTable {
    /// The settings of `port`.
    #[inline]
    pub(crate) fn of(&self, port: u16) -> &Policy {
        self.ports.get(usize::from(port)).and_then(Option::as_deref).unwrap_or(&TRUNK)
    }

    /// Whether the bridge has to look at tags.
    #[inline]
    pub(crate) const fn is_used(&self) -> bool {
        self.is_used
    }

    pub(super) fn set(&mut self, port: u16, policy: Option<Arc<Policy>>) {
        let index = usize::from(port);
        if self.ports.len() <= index {
            self.ports.resize(index + 1, None);
        }
        if let Some(place) = self.ports.get_mut(index) {
            *place = policy;
        }
        self.find_out();
    }

    pub(super) fn set_always(&mut self, always: bool) {
        self.is_always_used = always;
        self.find_out();
    }

    fn find_out(&mut self) {
        self.is_used = self.is_always_used || self.ports.iter().any(Option::is_some);
    }
}
