//! What spanning tree lets the ports of a bridge do, as workers know it.

use crate::port_set::PortSet;

/// A bridge where not all ports forward. A port that is in neither set discards, one that is just
/// joining the bridge among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Ports that forward.
    pub forwarding: PortSet,
    /// Ports where stations are learnt, and nothing is forwarded.
    pub learning: PortSet,
}

impl Gate {
    /// Whether frames from and to `port` are forwarded.
    #[inline]
    pub(crate) fn forwards(&self, port: u16) -> bool {
        self.forwarding.contains(port)
    }

    /// Whether it is learnt from frames from `port`.
    pub(crate) fn learns(&self, port: u16) -> bool {
        self.forwards(port) || self.learning.contains(port)
    }
}
